//! Owns the YAML text as a tree that remembers where each value stands; never knows what a key means.

use std::collections::HashMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::budget::BudgetBreach;
use serde_saphyr::{DuplicateKeyPolicy, MergeKeyPolicy, NonFiniteFloatPolicy, Spanned};

use super::error::{Place, shown};

/// Deepest nesting of blocks and lists. The deepest configuration that we ship uses 4.
pub(crate) const MAX_DEPTH: usize = 16;
/// Most values (scalars, lists, blocks) in one file.
const MAX_NODES: usize = 20_000;
/// Longest run of comment lines that stand together; a commented recipe has dozens.
const MAX_COMMENT_RUN: usize = 4096;
/// Longest key, in characters, as YAML 1.2 itself limits it.
const MAX_KEY_CHARS: usize = 1024;

/// One value and where it stands.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub value: Value,
    pub place: Place,
}

/// A YAML value after scalar resolution by the core schema of YAML 1.2.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Int(i128),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// One `key: value` of a block.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub key: String,
    pub key_place: Place,
    pub node: Node,
}

/// Why a text is not a tree. `line` and `column` count from 1.
#[derive(Clone, Debug)]
pub(crate) struct TreeError {
    pub line: u64,
    pub column: u64,
    pub message: String,
    pub hint: String,
}

impl Node {
    /// What stands here, in the words of an error message.
    pub fn found(&self) -> String {
        match &self.value {
            Value::Null => "nothing".into(),
            Value::Bool(value) => format!("`{value}`"),
            Value::Int(value) => format!("the number {value}"),
            Value::Float(value) => format!("the number {value}"),
            Value::Text(text) if text.is_empty() => "empty text".into(),
            Value::Text(text) => format!("the text `{}`", shown(text)),
            Value::List(_) => "a list".into(),
            Value::Map(_) => "a block of `key: value` lines".into(),
        }
    }

    /// The entry of a block under `key`.
    pub fn entry(&self, key: &str) -> Option<&Entry> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|entry| entry.key == key),
            _ => None,
        }
    }

    /// Puts every place inside this node (keys too) at `place`: the text came from the command line.
    pub fn move_to(&mut self, place: &Place) {
        self.place = place.clone();
        match &mut self.value {
            Value::List(items) => items.iter_mut().for_each(|item| item.move_to(place)),
            Value::Map(entries) => {
                for entry in entries {
                    entry.key_place = place.clone();
                    entry.node.move_to(place);
                }
            }
            _ => {}
        }
    }

    /// Calls `visit` with the key path and place of every value below this one, `prefix` being this one's own path.
    pub fn walk(&self, prefix: &str, visit: &mut impl FnMut(String, &Place)) {
        match &self.value {
            Value::List(items) => {
                for (index, item) in items.iter().enumerate() {
                    let path = format!("{prefix}[{index}]");
                    visit(path.clone(), &item.place);
                    item.walk(&path, visit);
                }
            }
            Value::Map(entries) => {
                for entry in entries {
                    let path = join(prefix, &entry.key);
                    // A block is named by its key; a scalar is what stands there.
                    let is_block = matches!(entry.node.value, Value::Map(_) | Value::List(_));
                    visit(path.clone(), if is_block { &entry.key_place } else { &entry.node.place });
                    entry.node.walk(&path, visit);
                }
            }
            _ => {}
        }
    }
}

/// `prefix.key`, or `key` at the top.
pub(crate) fn join(prefix: &str, key: &str) -> String {
    if prefix.is_empty() { key.to_string() } else { format!("{prefix}.{key}") }
}

/// Parses one YAML document under limits: no anchors, aliases, merge keys, tags or second document.
///
/// # Errors
/// The first place where the text is not such a document, or holds a key twice.
pub(crate) fn parse(text: &str) -> Result<Node, TreeError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let parsed: Spanned<Parsed> =
        serde_saphyr::from_str_with_options(text, options()).map_err(|error| explain(&error, text))?;
    let root = convert(parsed);
    check_keys(&root)?;
    Ok(root)
}

fn options() -> serde_saphyr::Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: MAX_DEPTH,
            flow_nesting_limit: MAX_DEPTH,
            max_nodes: MAX_NODES,
            max_events: 4 * MAX_NODES,
            max_anchors: 0,
            max_aliases: 0,
            max_merge_keys: 0,
            max_documents: 1,
            max_inclusion_depth: 0,
            max_buffered_comment_events: MAX_COMMENT_RUN,
            simple_key_max_lookahead: MAX_KEY_CHARS,
        },
        // Duplicates are found here, where both places can be named.
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        merge_keys: MergeKeyPolicy::AsOrdinary,
        emit_comments: false,
        strict_booleans: true,
        leading_zero_numbers_as_strings: true,
        non_finite_float_policy: NonFiniteFloatPolicy::PassThrough,
        reject_unsupported_tags: true,
        reject_tagged_field_names: true,
        with_snippet: false,
    }
}

/// A value as serde-saphyr hands it over.
enum Parsed {
    Null,
    Bool(bool),
    Int(i128),
    Float(f64),
    Text(String),
    List(Vec<Spanned<Parsed>>),
    Map(Vec<(Spanned<String>, Spanned<Parsed>)>),
}

impl<'de> Deserialize<'de> for Parsed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ParsedVisitor)
    }
}

struct ParsedVisitor;

impl<'de> Visitor<'de> for ParsedVisitor {
    type Value = Parsed;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Parsed, E> {
        Ok(Parsed::Null)
    }

    fn visit_none<E>(self) -> Result<Parsed, E> {
        Ok(Parsed::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Parsed, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Parsed, E> {
        Ok(Parsed::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Parsed, E> {
        Ok(Parsed::Int(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Parsed, E> {
        Ok(Parsed::Int(value.into()))
    }

    fn visit_i128<E>(self, value: i128) -> Result<Parsed, E> {
        Ok(Parsed::Int(value))
    }

    fn visit_u128<E>(self, value: u128) -> Result<Parsed, E> {
        Ok(i128::try_from(value).map_or(Parsed::Float(value as f64), Parsed::Int))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Parsed, E> {
        Ok(Parsed::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Parsed, E> {
        Ok(Parsed::Text(value.to_string()))
    }

    fn visit_string<E>(self, value: String) -> Result<Parsed, E> {
        Ok(Parsed::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Parsed, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Parsed::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Parsed, A::Error> {
        let mut map = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            map.push(entry);
        }
        Ok(Parsed::Map(map))
    }
}

fn convert(parsed: Spanned<Parsed>) -> Node {
    let place = place_of(parsed.referenced);
    let value = match parsed.value {
        Parsed::Null => Value::Null,
        Parsed::Bool(value) => Value::Bool(value),
        Parsed::Int(value) => Value::Int(value),
        Parsed::Float(value) => Value::Float(value),
        Parsed::Text(text) => Value::Text(text),
        Parsed::List(items) => Value::List(items.into_iter().map(convert).collect()),
        Parsed::Map(entries) => Value::Map(
            entries
                .into_iter()
                .map(|(key, node)| Entry { key_place: place_of(key.referenced), key: key.value, node: convert(node) })
                .collect(),
        ),
    };
    Node { value, place }
}

fn place_of(location: serde_saphyr::Location) -> Place {
    match location.line() {
        0 => Place::File,
        line => Place::Line { line, column: location.column() },
    }
}

/// Refuses a key that is written twice in a block, and the merge key.
fn check_keys(node: &Node) -> Result<(), TreeError> {
    match &node.value {
        Value::List(items) => items.iter().try_for_each(check_keys),
        Value::Map(entries) => {
            let mut seen = HashMap::new();
            for entry in entries {
                let Place::Line { line, column } = entry.key_place else { continue };
                if entry.key == "<<" {
                    let (message, hint) = anchor_words();
                    return Err(TreeError { line, column, message, hint });
                }
                if let Some(first) = seen.insert(entry.key.as_str(), line) {
                    let message = format!("`{}` is written twice, first on line {first}", shown(&entry.key));
                    return Err(TreeError { line, column, message, hint: "keep one of the two lines".into() });
                }
                check_keys(&entry.node)?;
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Turns the parser's error into one for someone who writes a recipe, not a parser.
fn explain(error: &serde_saphyr::Error, text: &str) -> TreeError {
    use serde_saphyr::Error;
    let (line, column) = error.location().map_or((1, 1), |at| (at.line().max(1), at.column().max(1)));
    let (message, hint) = match error {
        Error::Budget { breach, .. } => breach_words(breach),
        Error::UnknownAnchor { .. } | Error::AliasError { .. } => anchor_words(),
        Error::MultipleDocuments { .. } => document_words(),
        Error::UnsupportedTag { tag, .. } | Error::TaggedStructFieldName { tag, .. } => (
            format!("YAML tags are not read here, found `{}`", shown(tag)),
            "write the plain value without the tag".into(),
        ),
        Error::NullIntoString { .. } => ("a key is missing before the `:`".into(), "write `key: value`".to_string()),
        other => {
            let formatter = serde_saphyr::UserMessageFormatter;
            let words = serde_saphyr::MessageFormatter::format_message(&formatter, other);
            match words.contains("recursion limit") {
                // The scanner's own limit on brackets, which it meets before the budget counts them.
                true => depth_words(),
                false => (format!("not valid YAML: {}", shown(&words)), syntax_hint(text, line, &words)),
            }
        }
    };
    TreeError { line, column, message, hint }
}

fn breach_words(breach: &BudgetBreach) -> (String, String) {
    match breach {
        BudgetBreach::Anchors { .. } | BudgetBreach::Aliases { .. } | BudgetBreach::MergeKeys { .. } => anchor_words(),
        BudgetBreach::Documents { .. } => document_words(),
        BudgetBreach::Depth { .. } => depth_words(),
        BudgetBreach::Nodes { .. } | BudgetBreach::Events { .. } => {
            (format!("holds more than {MAX_NODES} values"), "is this really a configuration file?".into())
        }
        other => (format!("is beyond what a configuration may hold ({other:?})"), "shorten the file".into()),
    }
}

fn depth_words() -> (String, String) {
    (
        format!("nested deeper than {MAX_DEPTH} levels"),
        "a configuration needs no more than 4: look for brackets that are never closed".into(),
    )
}

fn anchor_words() -> (String, String) {
    (
        "YAML anchors (`&name`), aliases (`*name`) and merge keys (`<<`) are not read here".into(),
        "write the value out, and put text that begins with `&` or `*` in quotes".into(),
    )
}

fn document_words() -> (String, String) {
    ("holds a second YAML document".into(), "keep one document a file: remove the `---` line in the middle".into())
}

/// What is most likely meant: the parser names the place where it gave up, which may be a line after the slip.
fn syntax_hint(text: &str, line: u64, words: &str) -> String {
    let index = usize::try_from(line.saturating_sub(1)).unwrap_or(usize::MAX);
    let at = text.lines().nth(index).unwrap_or("");
    let before: String = text.lines().take(index).flat_map(|line| [line, "\n"]).collect();
    let indent: String = at.chars().take_while(|c| c.is_whitespace()).collect();
    let odd = |quote: char| at.matches(quote).count() % 2 == 1;
    let unclosed = |open: char, close: char| before.matches(open).count() > before.matches(close).count();
    let lacks_space = at.split_once(':').is_some_and(|(key, rest)| {
        let is_key = !key.trim().is_empty() && key.trim().chars().all(|c| c.is_alphanumeric() || c == '_');
        is_key && rest.starts_with(|c: char| !c.is_whitespace())
    });
    if indent.contains('\t') {
        "YAML is indented with spaces: replace the tab".into()
    } else if words.contains("quoted") || odd('"') || odd('\'') {
        "a quote is opened and not closed; inside single quotes an apostrophe is written as two".into()
    } else if unclosed('[', ']') || unclosed('{', '}') || at.contains(['{', '[', '}', ']']) {
        "check that every bracket is closed, or put the text in quotes".into()
    } else if lacks_space {
        "put a space after the colon: `key: value`".into()
    } else if !indent.is_empty() {
        "check the indentation: the keys of one block start in the same column".into()
    } else {
        "write `key: value`, one a line, nested lines indented by two spaces; text with `:` or `#` goes in quotes"
            .into()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    fn line_of(text: &str, key: &str) -> Place {
        parse(text).unwrap().entry(key).unwrap().node.place.clone()
    }

    #[test]
    fn values_know_their_place() {
        let text = "a: 1\n# why\nb:\n  - x\n  - {c: 2.5}\n";
        assert_eq!(line_of(text, "a"), Place::Line { line: 1, column: 4 });
        let tree = parse(text).unwrap();
        let mut seen = Vec::new();
        tree.walk("", &mut |path, place| seen.push((path, place.clone())));
        let paths: Vec<&str> = seen.iter().map(|(path, _)| path.as_str()).collect();
        assert_eq!(paths, ["a", "b", "b[0]", "b[1]", "b[1].c"]);
        assert_eq!(seen.last().unwrap().1, Place::Line { line: 5, column: 9 });
    }

    #[test]
    fn scalars_follow_yaml_1_2() {
        let tree = parse("a: 3e-4\nb: yes\nc: 010\nd: '7'\ne: .nan\nf: ~\ng: 1_000\nh: true\ni: 32 seq\n").unwrap();
        let found: Vec<String> =
            ["a", "b", "c", "d", "e", "f", "g", "h", "i"].map(|key| tree.entry(key).unwrap().node.found()).into();
        assert_eq!(
            found,
            [
                "the number 0.0003",
                "the text `yes`",
                "the text `010`",
                "the text `7`",
                "the number NaN",
                "nothing",
                "the number 1000",
                "`true`",
                "the text `32 seq`"
            ]
        );
    }

    #[test]
    fn what_can_hide_or_explode_is_refused() {
        for (text, word) in [
            ("a: &x 1\nb: *x\n", "anchors"),
            ("a: *x\n", "anchors"),
            ("a: 1\n<<: {b: 1}\n", "merge keys"),
            ("a: 1\na: 2\n", "twice, first on line 1"),
            ("a:\n  b: 1\n  b: 1\n", "twice, first on line 2"),
            ("a: !include x.yaml\n", "tags"),
            ("a: 1\n---\nb: 2\n", "second YAML document"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.message.contains(word), "{text:?}: {}", error.message);
        }
        for deep in ["[".repeat(40), "{a: ".repeat(40) + "1" + &"}".repeat(40)] {
            assert!(parse(&format!("x: {deep}")).unwrap_err().message.contains("nested deeper"), "{deep}");
        }
        let block: String = (0..20).map(|depth| format!("{}k:\n", " ".repeat(depth))).collect();
        assert!(parse(&block).unwrap_err().message.contains("nested deeper"), "block of depth 20");
    }
}
