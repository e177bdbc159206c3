//! Owns a bound on what a template may build up in its variables; never renders.
//!
//! The engine counts instructions, not bytes: sixty times `{% set s = s ~ s %}` are few steps and more memory than there
//! is. So every assignment passes through a filter that looks at the size of what is assigned, alone and in sum.

use minijinja::value::ValueKind;
use minijinja::{Error, ErrorKind, State, Value};

/// Name of the filter.
pub(super) const FILTER: &str = "jazari_bounded";
/// Largest text that may be assigned, in bytes, and longest list.
const MAX_VALUE: usize = 16 << 20;
/// Bytes of all texts that one rendering may assign.
const MAX_SUM: i64 = 512 << 20;
const SUM_KEY: &str = "jazari_assigned";

/// A variable that grows beyond its bounds.
#[derive(Debug, thiserror::Error)]
#[error("a variable grows too large")]
pub(super) struct Overgrown;

/// The filter: gives the value back, or ends the rendering.
pub(super) fn bounded(state: &mut State<'_, '_>, value: Value) -> Result<Value, Error> {
    let size = match value.kind() {
        ValueKind::String => value.as_str().map_or(0, str::len),
        ValueKind::Seq | ValueKind::Iterable | ValueKind::Map => value.len().unwrap_or(0),
        _ => 0,
    };
    let sum = state.get_temp(SUM_KEY).and_then(|sum| sum.as_i64()).unwrap_or(0).saturating_add(size as i64);
    state.set_temp(SUM_KEY, Value::from(sum));
    if size > MAX_VALUE || sum > MAX_SUM {
        return Err(Error::new(ErrorKind::InvalidOperation, "a variable grows too large").with_source(Overgrown));
    }
    Ok(value)
}

/// The template with every `{% set NAME = VALUE %}` passing its value through [`FILTER`]. What stands in comments or in
/// texts that only look like tags keeps its meaning: a tag that is no assignment is copied as it is.
pub(super) fn bound_assignments(source: &str) -> String {
    let mut out = String::with_capacity(source.len() + 256);
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let (before, tag) = rest.split_at(start);
        out.push_str(before);
        rest = tag;
        let Some(end) = end_of_tag(tag) else { break };
        let (tag, after) = tag.split_at(end);
        out.push_str(&rewritten(tag).unwrap_or_else(|| tag.to_owned()));
        rest = after;
        if after.is_empty() {
            return out;
        }
    }
    // An unclosed tag is the parser's to complain about.
    out.push_str(rest);
    out
}

/// One past the `%}` of the tag that `text` begins with; texts in quotes hide it.
fn end_of_tag(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let (mut quote, mut escaped) = (None, false);
    for (at, &byte) in bytes.iter().enumerate().skip(2) {
        match quote {
            Some(_) if escaped => escaped = false,
            Some(_) if byte == b'\\' => escaped = true,
            Some(open) if byte == open => quote = None,
            Some(_) => {}
            None if byte == b'\'' || byte == b'"' => quote = Some(byte),
            None if byte == b'%' && bytes.get(at + 1) == Some(&b'}') => return Some(at + 2),
            None => {}
        }
    }
    None
}

fn rewritten(tag: &str) -> Option<String> {
    let inner = tag.strip_prefix("{%")?.strip_suffix("%}")?;
    let body = inner.trim_start_matches(['-', '+']);
    let (left, body) = inner.split_at(inner.len() - body.len());
    let trimmed = body.trim_end_matches(['-', '+']);
    let (body, right) = body.split_at(trimmed.len());
    let assignment = body.trim_start().strip_prefix("set")?;
    if !assignment.starts_with(char::is_whitespace) {
        return None;
    }
    match assignment.split_once('=') {
        Some((names, value)) => Some(format!("{{%{left} set{names}= ({value}) | {FILTER} {right}%}}")),
        // `{% set name %}...{% endset %}` takes what is rendered in between.
        None => Some(format!("{{%{left} set{assignment} | {FILTER} {right}%}}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn assignments_and_nothing_else_are_rewritten() {
        let cases = [
            ("{% set a = b ~ c %}x", "{% set a = ( b ~ c ) | jazari_bounded %}x"),
            ("{%- set ns.a = 'x%}' -%}", "{%- set ns.a = ( 'x%}' ) | jazari_bounded -%}"),
            ("{% set a %}b{% endset %}", "{% set a  | jazari_bounded %}b{% endset %}"),
            ("{% setting %}{% if a == 1 %}", "{% setting %}{% if a == 1 %}"),
            ("a {% set b = 'c", "a {% set b = 'c"),
            ("{{ 'set' }}", "{{ 'set' }}"),
        ];
        for (source, expected) in cases {
            assert_eq!(bound_assignments(source), expected);
        }
    }
}
