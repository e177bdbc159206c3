//! Owns JSONL: cutting a stream into chunks of whole lines, and reading the wanted fields of one line; never keeps the rest.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::row::{Chunk, Fields, Place, Reason, Reject, Slot, Value, Wanted, excerpt};
use super::window::Window;

/// Chunks are cut at the first line end after this many bytes.
pub(crate) const CHUNK_BYTES: usize = 1024 * 1024;

/// Cuts a stream into chunks of whole lines.
pub(crate) struct LineCutter {
    window: Window,
    max_record: usize,
    lines: u64,
}

impl LineCutter {
    pub fn new(window: Window, max_record: usize) -> LineCutter {
        LineCutter { window, max_record, lines: 0 }
    }

    pub fn window(&self) -> &Window {
        &self.window
    }

    pub fn into_window(self) -> Window {
        self.window
    }

    /// The next lines, or `None` at the end.
    pub fn next_chunk(&mut self) -> Option<Chunk> {
        self.window.fill_to(CHUNK_BYTES);
        if self.window.data().is_empty() {
            return None;
        }
        let first = Place { row: self.lines + 1, byte: Some(self.window.offset()) };
        let mut rejects = Vec::new();
        let mut searched = 0;
        let length = loop {
            let data = self.window.data();
            if let Some(end) = data.get(searched..).and_then(|new| memchr::memrchr(b'\n', new)) {
                break searched + end + 1;
            }
            if self.window.ended() {
                break self.last_line(first, &mut rejects);
            }
            if data.len() > self.max_record {
                rejects.push(self.skip_long_line(first));
                return Some(Chunk::Lines { bytes: Vec::new(), first, rejects });
            }
            searched = data.len();
            self.window.fill();
        };
        let bytes = self.window.data().get(..length).unwrap_or_default().to_vec();
        self.window.consume(length);
        self.lines += memchr::memchr_iter(b'\n', &bytes).count() as u64;
        self.lines += u64::from(bytes.last().is_some_and(|&b| b != b'\n'));
        Some(Chunk::Lines { bytes, first, rejects })
    }

    /// Length of the last line, which has no line end; a line that damage cuts is rejected and dropped.
    fn last_line(&mut self, place: Place, rejects: &mut Vec<Reject>) -> usize {
        if !self.window.cut() {
            return self.window.data().len();
        }
        rejects.push(Reject { place, reason: Reason::Damaged, excerpt: excerpt(self.window.data()) });
        self.window.consume(self.window.data().len());
        self.lines += 1;
        0
    }

    fn skip_long_line(&mut self, place: Place) -> Reject {
        let reject = Reject { place, reason: Reason::RecordTooLarge, excerpt: excerpt(self.window.data()) };
        skip_line(&mut self.window);
        self.lines += 1;
        reject
    }
}

/// Consumes up to and with the next line end, holding no more than one read.
pub(crate) fn skip_line(window: &mut Window) {
    loop {
        if let Some(end) = memchr::memchr(b'\n', window.data()) {
            window.consume(end + 1);
            return;
        }
        window.consume(window.data().len());
        if !window.fill() && window.data().is_empty() {
            return;
        }
    }
}

/// The lines of a chunk with their places.
pub(crate) fn lines(bytes: &[u8], first: Place) -> impl Iterator<Item = (Place, &[u8])> {
    let mut rest = bytes;
    let mut place = first;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let length = memchr::memchr(b'\n', rest).map_or(rest.len(), |end| end + 1);
        let (line, tail) = rest.split_at(length);
        let here = place;
        rest = tail;
        place = Place { row: place.row + 1, byte: place.byte.map(|byte| byte + length as u64) };
        Some((here, line.strip_suffix(b"\n").unwrap_or(line)))
    })
}

/// The names to look for as a tree: one level of nesting for each dot.
#[derive(Debug, Default)]
pub(crate) struct FieldTree(Vec<Branch>);

#[derive(Debug)]
struct Branch {
    name: String,
    slot: Option<Slot>,
    /// Later names for a slot yield to earlier ones.
    rank: usize,
    below: FieldTree,
}

impl FieldTree {
    pub fn new(wanted: &[Wanted]) -> FieldTree {
        let mut tree = FieldTree::default();
        for (rank, wanted) in wanted.iter().enumerate() {
            tree.insert(&wanted.name, wanted.slot, rank);
        }
        tree
    }

    fn insert(&mut self, name: &str, slot: Slot, rank: usize) {
        let (head, tail) = match name.split_once('.') {
            Some((head, tail)) => (head, Some(tail)),
            None => (name, None),
        };
        let at = match self.0.iter().position(|branch| branch.name == head) {
            Some(at) => at,
            None => {
                let below = FieldTree::default();
                self.0.push(Branch { name: head.to_owned(), slot: None, rank, below });
                self.0.len() - 1
            }
        };
        let Some(branch) = self.0.get_mut(at) else { return };
        match tail {
            Some(tail) => branch.below.insert(tail, slot, rank),
            None => (branch.slot, branch.rank) = (Some(slot), rank),
        }
    }
}

/// Reads the wanted fields of a line.
///
/// # Errors
/// [`Reason::InvalidJson`] unless the line is one JSON object.
pub(crate) fn parse_line<'a>(line: &'a str, tree: &FieldTree) -> Result<Fields<'a>, Reason> {
    let mut found = Found { fields: Fields::default(), ranks: [usize::MAX; super::row::NUM_FIELDS] };
    let mut json = serde_json::Deserializer::from_str(line);
    json.deserialize_map(ObjectVisitor { tree, found: &mut found })
        .and_then(|()| json.end())
        .map_err(|_| Reason::InvalidJson)?;
    Ok(found.fields)
}

struct Found<'a> {
    fields: Fields<'a>,
    ranks: [usize; super::row::NUM_FIELDS],
}

impl<'a> Found<'a> {
    fn set(&mut self, slot: Slot, rank: usize, value: Value<'a>) {
        let best = &mut self.ranks[slot as usize];
        let wins = match (self.fields.get(slot), &value) {
            (Value::Missing | Value::Null, _) => true,
            (_, Value::Null) => rank == *best,
            _ => rank <= *best,
        };
        if wins {
            *best = rank;
            self.fields.set(slot, value);
        }
    }
}

struct ObjectVisitor<'t, 'f, 'a> {
    tree: &'t FieldTree,
    found: &'f mut Found<'a>,
}

impl<'a> Visitor<'a> for ObjectVisitor<'_, '_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(branch) = map.next_key_seed(KeySeed(self.tree))? {
            match branch {
                None => _ = map.next_value::<IgnoredAny>()?,
                Some(branch) => map.next_value_seed(BranchSeed { branch, found: &mut *self.found })?,
            }
        }
        Ok(())
    }
}

/// Looks a key up in the tree.
struct KeySeed<'t>(&'t FieldTree);

impl<'a, 't> DeserializeSeed<'a> for KeySeed<'t> {
    type Value = Option<&'t Branch>;

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'t> Visitor<'_> for KeySeed<'t> {
    type Value = Option<&'t Branch>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<Self::Value, E> {
        Ok(self.0.0.iter().find(|branch| branch.name == key))
    }
}

/// The value of a wanted field, below which other wanted fields may lie.
struct BranchSeed<'t, 'f, 'a> {
    branch: &'t Branch,
    found: &'f mut Found<'a>,
}

impl<'a> DeserializeSeed<'a> for BranchSeed<'_, '_, 'a> {
    type Value = ();

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'a> BranchSeed<'_, '_, 'a> {
    fn scalar<E>(self, value: Value<'a>) -> Result<(), E> {
        let Some(slot) = self.branch.slot else { return Ok(()) };
        match slot.marker() {
            None => self.found.set(slot, self.branch.rank, value),
            Some(kind) => match &value {
                Value::Str(text) => self.marked(kind.says_no(text)),
                Value::Number(number) => self.marked(kind.says_no(number)),
                _ => {}
            },
        }
        Ok(())
    }

    /// Notes that the row opts out; no other field of the kind takes that back.
    fn marked(self, says_no: bool) {
        if let (true, Some(slot)) = (says_no, self.branch.slot) {
            self.found.fields.set(slot, Value::Other);
        }
    }
}

impl<'a> Visitor<'a> for BranchSeed<'_, '_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<(), A::Error> {
        if !self.branch.below.0.is_empty() {
            return ObjectVisitor { tree: &self.branch.below, found: self.found }.visit_map(map);
        }
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        self.scalar(Value::Other)
    }

    fn visit_borrowed_str<E>(self, text: &'a str) -> Result<(), E> {
        self.scalar(Value::Str(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        self.scalar(Value::Str(Cow::Owned(text.to_owned())))
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        self.scalar(Value::Null)
    }

    fn visit_bool<E>(self, set: bool) -> Result<(), E> {
        if let Some(kind) = self.branch.slot.and_then(Slot::marker) {
            self.marked(kind.says_no_by(set));
            return Ok(());
        }
        self.scalar(Value::Other)
    }

    fn visit_u64<E>(self, n: u64) -> Result<(), E> {
        self.scalar(Value::Number(n.to_string()))
    }

    fn visit_i64<E>(self, n: i64) -> Result<(), E> {
        self.scalar(Value::Number(n.to_string()))
    }

    fn visit_f64<E>(self, n: f64) -> Result<(), E> {
        self.scalar(Value::Number(n.to_string()))
    }

    fn visit_seq<A: SeqAccess<'a>>(self, mut seq: A) -> Result<(), A::Error> {
        if let Some(kind) = self.branch.slot.and_then(Slot::marker) {
            let mut says_no = false;
            while let Some(item) = seq.next_element::<serde_json::Value>()? {
                says_no |= item.as_str().is_some_and(|text| kind.says_no(text));
            }
            self.marked(says_no);
            return Ok(());
        }
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        self.scalar(Value::Other)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use crate::config::{FieldNames, Format};

    fn parse<'a>(line: &'a str, names: &FieldNames) -> Result<Fields<'a>, Reason> {
        parse_line(line, &FieldTree::new(&names.wanted(Format::Jsonl)))
    }

    fn text(s: &str) -> Value<'_> {
        Value::Str(Cow::Borrowed(s))
    }

    #[test]
    fn wanted_fields_are_taken_and_the_rest_is_passed_over() {
        let names = FieldNames::default();
        let fields =
            parse(r#"{"x":[1,{"text":"no"}],"text":"a\nb","lang":null,"license":"MIT","url":3}"#, &names).unwrap();
        assert_eq!(fields.get(Slot::Text), &text("a\nb"));
        assert_eq!(fields.get(Slot::Lang), &Value::Null);
        assert_eq!(fields.get(Slot::Licence), &text("MIT"));
        assert_eq!(fields.get(Slot::Url), &Value::Number("3".into()));
        assert_eq!(fields.get(Slot::Source), &Value::Missing);
    }

    #[test]
    fn the_british_spelling_wins_in_any_order() {
        let names = FieldNames::default();
        for line in [r#"{"licence":"A","license":"B"}"#, r#"{"license":"B","licence":"A"}"#] {
            assert_eq!(parse(line, &names).unwrap().get(Slot::Licence), &text("A"));
        }
        let null = r#"{"license":"B","licence":null}"#;
        assert_eq!(parse(null, &names).unwrap().get(Slot::Licence), &text("B"));
    }

    #[test]
    fn dots_reach_into_objects() {
        let names = FieldNames { lang: Some("metadata.lang".into()), id: Some("id".into()), ..FieldNames::default() };
        let line = r#"{"id":"7","text":"t","metadata":{"other":{},"lang":"ary","licence":"X"}}"#;
        let fields = parse(line, &names).unwrap();
        assert_eq!(fields.get(Slot::Lang), &text("ary"));
        assert_eq!(fields.get(Slot::Id), &text("7"));
        assert_eq!(fields.get(Slot::Licence), &Value::Missing);
        assert_eq!(parse(r#"{"metadata":"flat"}"#, &names).unwrap().get(Slot::Lang), &Value::Missing);
    }

    #[test]
    fn anything_but_one_object_is_invalid() {
        for line in ["", "[]", "12", r#"{"text":"a""#, r#"{"text":"a"} x"#, r#"{"text":"\ud800"}"#, "{'text':'a'}"] {
            assert_eq!(parse(line, &FieldNames::default()).err(), Some(Reason::InvalidJson), "{line}");
        }
    }

    #[test]
    fn nesting_of_any_depth_is_passed_over() {
        let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
        let line = format!(r#"{{"x":{deep},"text":"a"}}"#);
        assert_eq!(parse(&line, &FieldNames::default()).unwrap().get(Slot::Text), &text("a"));
        let line = format!(r#"{{"text":{deep}}}"#);
        assert_eq!(parse(&line, &FieldNames::default()).unwrap().get(Slot::Text), &Value::Other);
    }

    #[test]
    fn objects_and_lists_are_not_text() {
        for line in [r#"{"text":{"a":1}}"#, r#"{"text":["a"]}"#, r#"{"text":true}"#] {
            assert_eq!(parse(line, &FieldNames::default()).unwrap().get(Slot::Text), &Value::Other);
        }
    }

    #[test]
    fn lines_know_their_places() {
        let first = Place { row: 5, byte: Some(100) };
        let seen: Vec<_> = lines(b"ab\n\nc", first).map(|(p, l)| (p.row, p.byte.unwrap(), l.to_vec())).collect();
        assert_eq!(seen, [(5, 100, b"ab".to_vec()), (6, 103, b"".to_vec()), (7, 104, b"c".to_vec())]);
    }
}
