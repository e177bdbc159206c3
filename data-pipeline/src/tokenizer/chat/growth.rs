//! Owns a bound on what a template may build up in its variables and texts; never renders.
//!
//! The engine counts instructions, not bytes: sixty times `{% set s = s ~ s %}` are few steps and more memory than there
//! is. So everything that gets a name (an assignment, a parameter, a loop variable) and everything that is written
//! passes through a filter that looks at its size, alone and in sum, and the filters and methods that multiply are asked
//! for the size of their result before they make it.

use minijinja::value::{Rest, ValueKind, ValueOrKwargs};
use minijinja::{Environment, Error, ErrorKind, State, Value, filters};

/// Name of the filter.
const FILTER: &str = "jazari_bounded";
/// Largest text or list that may get a name or be written, in bytes.
const MAX_VALUE: usize = 16 << 20;
/// Bytes of all texts that one rendering may name and write.
const MAX_SUM: i64 = 512 << 20;
const SUM_KEY: &str = "jazari_assigned";
/// Most texts that one expression may join by operators.
const MAX_JOINS: usize = 100;
/// Bytes that plain text may add up to, were it written by every step of a rendering.
const MAX_PLAIN: u64 = 1 << 30;
/// Bytes that count for an item of a list, beside its text.
const ITEM: usize = 16;
/// Depth to which lists of lists are measured; what is deeper counts as too large.
const MAX_DEPTH: usize = 32;

/// A variable that grows beyond its bounds.
#[derive(Debug, thiserror::Error)]
#[error("a variable grows too large")]
pub(super) struct Overgrown;

fn overgrown() -> Error {
    Error::new(ErrorKind::InvalidOperation, "a variable grows too large").with_source(Overgrown)
}

/// Puts the filter into `environment`, and bounded forms of those filters whose result can be much larger than what
/// they are given.
pub(super) fn install(environment: &mut Environment<'_>) {
    environment.add_filter(FILTER, bounded);
    environment.add_filter("jazari_replace", filters::replace);
    environment.add_filter("jazari_join", filters::join);
    environment.add_filter("jazari_indent", filters::indent);
    environment.add_filter("jazari_format", filters::format);
    environment.add_filter("replace", |state: &mut State<'_, '_>, value: Value, rest: Rest<ValueOrKwargs>| {
        forecast("replace", "jazari_replace", state, value, &rest.into_values())
    });
    environment.add_filter("join", |state: &mut State<'_, '_>, value: Value, rest: Rest<ValueOrKwargs>| {
        forecast("join", "jazari_join", state, value, &rest.into_values())
    });
    environment.add_filter("indent", |state: &mut State<'_, '_>, value: Value, rest: Rest<ValueOrKwargs>| {
        forecast("indent", "jazari_indent", state, value, &rest.into_values())
    });
    environment.add_filter("format", |state: &mut State<'_, '_>, value: Value, rest: Rest<ValueOrKwargs>| {
        forecast("format", "jazari_format", state, value, &rest.into_values())
    });
    environment.set_unknown_method_callback(|state, value, method, arguments| {
        // `" ".join(list)` is the filter with both sides exchanged.
        match (method, arguments) {
            ("join", [list]) => expected_size("join", list, std::slice::from_ref(value))?,
            _ => expected_size(method, value, arguments)?,
        };
        minijinja_contrib::pycompat::unknown_method_callback(state, value, method, arguments)
    });
}

fn forecast(
    name: &str,
    original: &str,
    state: &mut State<'_, '_>,
    value: Value,
    rest: &[Value],
) -> Result<Value, Error> {
    expected_size(name, &value, rest)?;
    let mut arguments = vec![value];
    arguments.extend(rest.iter().cloned());
    state.apply_filter(original, &arguments)
}

/// Refuses a call whose result would be too large. The estimates are upper bounds, and exact for what templates do.
fn expected_size(name: &str, value: &Value, arguments: &[Value]) -> Result<(), Error> {
    let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().len();
    let size = match name {
        "replace" => {
            let (from, to) = (arguments.first().and_then(Value::as_str), text(arguments.get(1)));
            let found = from.zip(value.as_str()).map_or(0, |(from, value)| value.matches(from).count());
            text(Some(value)).saturating_add(found.saturating_mul(to))
        }
        "join" => {
            let gaps = value.len().unwrap_or(0).saturating_mul(text(arguments.first()));
            measure(value, MAX_DEPTH).saturating_add(gaps)
        }
        "indent" => {
            let lines = value.as_str().map_or(0, |text| text.lines().count());
            text(Some(value)).saturating_add(lines.saturating_mul(largest_number(arguments)))
        }
        "format" => {
            let pattern = value.as_str().unwrap_or_default();
            let fields = pattern.bytes().filter(|byte| matches!(byte, b'%' | b'{')).count();
            let widest = arguments.iter().map(|value| measure(value, MAX_DEPTH)).max().unwrap_or(0);
            let widest = widest.max(largest_width(pattern)).max(largest_number(arguments));
            pattern.len().saturating_add(fields.saturating_mul(widest))
        }
        _ => 0,
    };
    if size > MAX_VALUE { Err(overgrown()) } else { Ok(()) }
}

/// The largest number among arguments, named ones included: a width.
fn largest_number(arguments: &[Value]) -> usize {
    let of = |value: &Value| match value.kind() {
        ValueKind::Map => value.get_attr("width").ok().and_then(|width| width.as_usize()).unwrap_or(0),
        _ => value.as_usize().unwrap_or(0),
    };
    arguments.iter().map(of).max().unwrap_or(0)
}

/// The largest number that a format string writes: a width or a precision.
fn largest_width(pattern: &str) -> usize {
    let numbers = pattern.split(|c: char| !c.is_ascii_digit()).filter(|digits| !digits.is_empty());
    numbers.map(|digits| digits.parse().unwrap_or(usize::MAX)).max().unwrap_or(0)
}

/// Bytes of a text; of a list those of its items. Stops counting where it is too much.
fn measure(value: &Value, depth: usize) -> usize {
    match value.kind() {
        ValueKind::String => value.as_str().map_or(0, str::len),
        ValueKind::Seq | ValueKind::Iterable | ValueKind::Map if depth == 0 => usize::MAX,
        ValueKind::Seq | ValueKind::Iterable | ValueKind::Map => {
            let mut size = value.len().unwrap_or(0).saturating_mul(ITEM);
            let Ok(items) = value.try_iter() else { return size };
            for item in items {
                if size > MAX_VALUE {
                    break;
                }
                size = size.saturating_add(measure(&item, depth - 1));
            }
            size
        }
        _ => 0,
    }
}

/// The filter: gives the value back, or ends the rendering.
fn bounded(state: &mut State<'_, '_>, value: Value) -> Result<Value, Error> {
    // A sequence without a length computes its items when it is asked for them; maps are the messages themselves.
    let size = match value.kind() {
        ValueKind::Seq | ValueKind::Iterable if value.len().is_some() => measure(&value, MAX_DEPTH),
        ValueKind::String => measure(&value, MAX_DEPTH),
        _ => 0,
    };
    let sum = state.get_temp(SUM_KEY).and_then(|sum| sum.as_i64()).unwrap_or(0).saturating_add(size as i64);
    state.set_temp(SUM_KEY, Value::from(sum));
    if size > MAX_VALUE || sum > MAX_SUM {
        return Err(overgrown());
    }
    Ok(value)
}

/// Steps that a template may take: `most`, and fewer where it holds so much plain text that writing it over and over
/// would fill the memory.
pub(super) fn fuel(source: &str, most: u64) -> u64 {
    let longest =
        pieces(source).filter_map(|piece| if let Piece::Plain(text) = piece { Some(text.len()) } else { None });
    (MAX_PLAIN / longest.max().unwrap_or(0).max(1) as u64).clamp(1000, most)
}

/// An expression that joins too many texts at once.
pub(super) fn joins_too_much(source: &str) -> bool {
    pieces(source).any(|piece| match piece {
        Piece::Plain(_) => false,
        Piece::Tag(tag) => unquoted(tag).filter(|(_, byte)| matches!(byte, b'~' | b'+')).count() > MAX_JOINS,
    })
}

/// The template with everything that it names or writes passing through [`FILTER`]. A tag that does neither is copied
/// as it is, and so are comments and what stands between `raw` and `endraw`.
pub(super) fn bound(source: &str) -> String {
    let mut out = String::with_capacity(source.len() + 256);
    for piece in pieces(source) {
        match piece {
            Piece::Plain(text) => out.push_str(text),
            Piece::Tag(tag) => out.push_str(&rewritten(tag).unwrap_or_else(|| tag.to_owned())),
        }
    }
    out
}

/// What a template consists of.
enum Piece<'a> {
    /// Text, comments, raw blocks.
    Plain(&'a str),
    /// `{% ... %}` or `{{ ... }}`.
    Tag(&'a str),
}

fn pieces(source: &str) -> impl Iterator<Item = Piece<'_>> {
    let mut rest = source;
    let mut is_raw = false;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let start = ["{%", "{{", "{#"].iter().filter_map(|open| rest.find(open)).min().unwrap_or(rest.len());
        if start > 0 {
            let (text, tag) = rest.split_at(start);
            rest = tag;
            return Some(Piece::Plain(text));
        }
        let is_comment = rest.starts_with("{#");
        let end = if is_comment { rest.find("#}").map(|at| at + 2) } else { end_of_tag(rest) };
        // An unclosed tag is the parser's to complain about; inside a raw block it is text.
        let end = if is_raw && !is_word(rest, "endraw") { Some(2) } else { end };
        let (tag, after) = rest.split_at(end.unwrap_or(rest.len()));
        rest = after;
        let is_plain = is_comment || end.is_none() || is_raw;
        is_raw = if is_raw { !is_word(tag, "endraw") } else { is_word(tag, "raw") };
        Some(if is_plain { Piece::Plain(tag) } else { Piece::Tag(tag) })
    })
}

/// Whether a tag begins with the word `word`.
fn is_word(tag: &str, word: &str) -> bool {
    let body = tag.strip_prefix("{%").map(|body| body.trim_start_matches(['-', '+']).trim_start());
    let after = body.and_then(|body| body.strip_prefix(word));
    after.is_some_and(|after| !after.starts_with(|c: char| c.is_alphanumeric() || c == '_'))
}

/// One past the `%}` or `}}` of the tag that `text` begins with; texts in quotes hide it, and so do braces of a map.
fn end_of_tag(text: &str) -> Option<usize> {
    let is_block = text.starts_with("{%");
    let bytes = text.as_bytes();
    let mut open = 0_usize;
    for (at, byte) in unquoted(text).skip_while(|(at, _)| *at < 2) {
        let closes = bytes.get(at + 1) == Some(&b'}');
        match byte {
            b'%' if is_block && closes => return Some(at + 2),
            b'}' if !is_block && open == 0 && closes => return Some(at + 2),
            b'{' => open += 1,
            b'}' => open = open.saturating_sub(1),
            _ => {}
        }
    }
    None
}

/// The bytes outside quotes with their places.
fn unquoted(text: &str) -> impl Iterator<Item = (usize, u8)> + '_ {
    let (mut quote, mut escaped) = (None, false);
    text.bytes().enumerate().filter(move |&(_, byte)| match quote {
        Some(_) if escaped => {
            escaped = false;
            false
        }
        Some(_) if byte == b'\\' => {
            escaped = true;
            false
        }
        Some(open) => {
            if byte == open {
                quote = None;
            }
            false
        }
        None if matches!(byte, b'\'' | b'"') => {
            quote = Some(byte);
            false
        }
        None => true,
    })
}

fn rewritten(tag: &str) -> Option<String> {
    let (open, close) = if tag.starts_with("{{") { ("{{", "}}") } else { ("{%", "%}") };
    let inner = tag.strip_prefix(open)?.strip_suffix(close)?;
    let body = inner.trim_start_matches(['-', '+']);
    let (left, body) = inner.split_at(inner.len() - body.len());
    let trimmed = body.trim_end_matches(['-', '+']);
    let (body, right) = body.split_at(trimmed.len());
    if body.trim().is_empty() {
        return None;
    }
    if open == "{{" {
        return Some(format!("{{{{{left} ({body}) | {FILTER} {right}}}}}"));
    }
    let words = body.trim_start();
    let (word, rest) = words.split_at(words.find(|c: char| !c.is_alphanumeric()).unwrap_or(words.len()));
    let names = match word {
        "set" if rest.starts_with(char::is_whitespace) => {
            return Some(match rest.split_once('=') {
                Some((names, value)) => format!("{{%{left} set{names}= ({value}) | {FILTER} {right}%}}"),
                // `{% set name %}...{% endset %}` takes what is rendered in between.
                None => format!("{{%{left} set{rest} | {FILTER} {right}%}}"),
            });
        }
        "for" => names(rest.split_once(" in ")?.0.trim().trim_start_matches('(').trim_end_matches(')')),
        "with" => names(rest),
        "macro" | "call" => names(parameters(rest)?),
        _ => return None,
    };
    let bounds: Vec<String> = names.map(|name| format!(" set {name} = {name} | {FILTER} ")).collect();
    // White space after the tag is the last one's to trim.
    Some(match bounds.is_empty() {
        true => tag.to_owned(),
        false => format!("{{%{left}{body}%}}{{%{}{right}%}}", bounds.join("%}{%")),
    })
}

/// What stands between the first parenthesis of a text and the one that closes it.
fn parameters(text: &str) -> Option<&str> {
    let mut depth = 0_usize;
    let mut start = None;
    for (at, byte) in unquoted(text) {
        match byte {
            b'(' => {
                start = start.or(Some(at + 1));
                depth += 1;
            }
            b')' if depth == 1 => return text.get(start?..at),
            b')' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    None
}

/// The names in `a, b = 1, c = [2, 3]`.
fn names(list: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0_usize;
    let mut cuts = vec![0];
    for (at, byte) in unquoted(list) {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            b',' if depth == 0 => cuts.push(at + 1),
            _ => {}
        }
    }
    cuts.push(list.len() + 1);
    let parts: Vec<&str> = cuts.windows(2).filter_map(|cut| list.get(cut[0]..cut[1] - 1)).collect();
    parts.into_iter().filter_map(|part| {
        let name = part.split('=').next()?.trim();
        let is_name = name.starts_with(|c: char| c.is_alphabetic() || c == '_');
        (is_name && name.chars().all(|c| c.is_alphanumeric() || c == '_')).then_some(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_named_or_written_is_bounded_and_nothing_else_changes() {
        let f = FILTER;
        let cases = [
            ("{% set a = b ~ c %}x", format!("{{% set a = ( b ~ c ) | {f} %}}x")),
            ("{%- set ns.a = 'x%}' -%}", format!("{{%- set ns.a = ( 'x%}}' ) | {f} -%}}")),
            ("{% set a %}b{% endset %}", format!("{{% set a  | {f} %}}b{{% endset %}}")),
            ("{{- {'a': {}} }}", format!("{{{{- ( {{'a': {{}}}} ) | {f} }}}}")),
            ("{% for a, b in c -%}", format!("{{% for a, b in c %}}{{% set a = a | {f} %}}{{% set b = b | {f} -%}}")),
            (
                "{% macro m(a, b=',)') %}",
                format!("{{% macro m(a, b=',)') %}}{{% set a = a | {f} %}}{{% set b = b | {f} %}}"),
            ),
            ("{% with a = [1, 2] %}", format!("{{% with a = [1, 2] %}}{{% set a = a | {f} %}}")),
            ("{% call(x) m() %}", format!("{{% call(x) m() %}}{{% set x = x | {f} %}}")),
        ];
        for (source, expected) in cases {
            assert_eq!(bound(source), expected);
        }
        let same = [
            "{% setting %}{% if a == 1 %}",
            "a {% set b = 'c",
            "{# {{ a }} #}",
            "{% macro m() %}",
            "{% raw %}{{ a }}{% set b = c %} {{ {% endraw %}",
            "x } }} %}",
        ];
        for source in same {
            assert_eq!(bound(source), source);
        }
    }
}
