//! Owns the shapes that pass from the readers to the gates: chunks, rows, rejected records and why; never touches files.

use std::borrow::Cow;
use std::fmt;

use super::page::PageChunk;
use crate::config::{FieldNames, Format};
use crate::opt_out::{self, MarkerKind};

/// Why a record did not become a document. The text form stands in statistics and in the quarantine file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// A JSONL line of nothing but white space. Counted, not quarantined.
    BlankLine,
    /// A JSONL line that is not one whole JSON object.
    InvalidJson,
    /// Bytes that are not UTF-8.
    InvalidUtf8,
    /// No text field.
    MissingText,
    /// The text field is null.
    NullText,
    /// The text field is a number, boolean, list or object.
    TextNotString,
    /// The text is empty or white space.
    EmptyText,
    /// A label field (language, source, licence, url, id) is not a string or not usable.
    BadField,
    /// Larger than `limits.max_record_bytes`.
    RecordTooLarge,
    /// A CSV or TSV record with another number of fields than the header.
    ColumnCount,
    /// A CSV or TSV record whose quotes do not close as RFC 4180 asks.
    BadQuoting,
    /// The record that the damage of its file cuts.
    Damaged,
    /// A web page that the server did not deliver (its status is not 200). Counted, not quarantined.
    HttpStatus,
    /// A web record that is neither HTML nor plain text. Counted, not quarantined.
    NotText,
    /// A web page without a main text. Counted, not quarantined.
    NoMainText,
    /// A web record that is not laid out as WARC, HTTP or its content encoding ask.
    BadWebRecord,
    /// No language, and no default.
    MissingLanguage,
    /// The language is not an ISO 639-3 and ISO 15924 pair.
    BadLanguage,
    /// The licence (`missing` when there is none) is not in `allow_licences`. Counted, not quarantined.
    Licence(String),
    /// The row, its licence, a header or tag of its web page or an opt-out list asks for it to stay out; what said so.
    /// Counted, not quarantined.
    OptOut(&'static str),
    /// Same key form as an earlier document of the language. Counted, not quarantined.
    Duplicate,
    /// A stage does not want the text; its reason (`language:und`, `garbage:ocr_soup`). Counted, not quarantined.
    Judged(Cow<'static, str>),
}

impl Reason {
    /// Whether the record is written to the quarantine: it is broken, rather than unwanted.
    pub fn is_quarantined(&self) -> bool {
        !matches!(
            self,
            Reason::BlankLine
                | Reason::Licence(_)
                | Reason::OptOut(_)
                | Reason::Duplicate
                | Reason::Judged(_)
                | Reason::HttpStatus
                | Reason::NotText
                | Reason::NoMainText
        )
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Reason::BlankLine => "blank_line",
            Reason::InvalidJson => "invalid_json",
            Reason::InvalidUtf8 => "invalid_utf8",
            Reason::MissingText => "missing_text",
            Reason::NullText => "null_text",
            Reason::TextNotString => "text_not_string",
            Reason::EmptyText => "empty_text",
            Reason::BadField => "bad_field",
            Reason::RecordTooLarge => "record_too_large",
            Reason::ColumnCount => "column_count",
            Reason::BadQuoting => "bad_quoting",
            Reason::Damaged => "damaged_file",
            Reason::HttpStatus => "http_status",
            Reason::NotText => "not_text",
            Reason::NoMainText => "no_main_text",
            Reason::BadWebRecord => "bad_web_record",
            Reason::MissingLanguage => "missing_language",
            Reason::BadLanguage => "bad_language",
            Reason::Licence(id) => return write!(f, "licence:{id}"),
            Reason::OptOut(what) => return write!(f, "opt_out:{what}"),
            Reason::Duplicate => "duplicate",
            Reason::Judged(reason) => reason,
        })
    }
}

/// Where a record stands in its file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Place {
    /// Record number from 1 (for JSONL the line number, blank lines included; for CSV the header is not counted).
    pub row: u64,
    /// Position of its first byte in the decompressed stream; absent for Parquet.
    pub byte: Option<u64>,
}

/// A record that a reader could not cut into fields.
#[derive(Debug, Clone)]
pub(crate) struct Reject {
    pub place: Place,
    pub reason: Reason,
    pub excerpt: String,
}

/// Longest excerpt of a rejected record, in characters.
pub(crate) const EXCERPT_CHARS: usize = 120;

/// The first characters of a record, with invalid bytes replaced.
pub(crate) fn excerpt(bytes: &[u8]) -> String {
    let head = bytes.get(..4 * EXCERPT_CHARS).unwrap_or(bytes);
    String::from_utf8_lossy(head).chars().take(EXCERPT_CHARS).collect()
}

/// Number of fields of a row.
pub(crate) const NUM_FIELDS: usize = 12;

/// Which field of a row a value belongs to; the discriminants index [`Fields`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub(crate) enum Slot {
    Text = 0,
    Lang = 1,
    Script = 2,
    Source = 3,
    Licence = 4,
    Url = 5,
    Id = 6,
    /// These four hold no text: a value is there when a field of that kind opts out.
    Flag = 7,
    Reservation = 8,
    Permission = 9,
    Directives = 10,
    /// When the text was published or fetched.
    Date = 11,
}

impl Slot {
    /// The slot of fields that opt out in this way.
    pub fn of_marker(kind: MarkerKind) -> Slot {
        match kind {
            MarkerKind::Flag => Slot::Flag,
            MarkerKind::Reservation => Slot::Reservation,
            MarkerKind::Permission => Slot::Permission,
            MarkerKind::Directives => Slot::Directives,
        }
    }

    /// How fields of this slot opt out; `None` of those that hold data.
    pub fn marker(self) -> Option<MarkerKind> {
        MarkerKind::ALL.into_iter().find(|&kind| Slot::of_marker(kind) == self)
    }
}

/// One name that a file may use for a field.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    pub slot: Slot,
    /// Key of `fields`, for messages.
    pub field: &'static str,
    /// Name in the file, dots reach into objects.
    pub name: String,
    /// Asked for by the configuration, so its absence from a header is an error.
    pub required: bool,
}

impl FieldNames {
    /// The names to look for in files of `format`; of two names for one slot the first that a row holds wins.
    pub(crate) fn wanted(&self, format: Format) -> Vec<Wanted> {
        let mut wanted = Vec::new();
        let mut add = |slot, field, given: &Option<String>, defaults: &[&str]| match given {
            Some(name) => wanted.push(Wanted { slot, field, name: name.clone(), required: true }),
            None => wanted.extend(defaults.iter().map(|&name| Wanted {
                slot,
                field,
                name: name.to_owned(),
                required: slot == Slot::Text,
            })),
        };
        add(Slot::Text, "text", &self.text, &["text"]);
        let dolma = format == Format::Dolma;
        let pick = |plain: &'static [&'static str], nested: &'static [&'static str]| if dolma { nested } else { plain };
        add(Slot::Lang, "lang", &self.lang, &["lang"]);
        add(Slot::Script, "script", &self.script, &["script"]);
        add(Slot::Source, "source", &self.source, &["source"]);
        let nested = &["licence", "license", "metadata.licence", "metadata.license"];
        add(Slot::Licence, "licence", &self.licence, pick(&["licence", "license"], nested));
        add(Slot::Url, "url", &self.url, pick(&["url"], &["url", "metadata.url"]));
        add(Slot::Id, "id", &self.id, pick(&[], &["id"]));
        add(Slot::Date, "date", &self.date, &[]);
        // A name that says nothing of its kind is read as a flag, which also hears words such as `noai`.
        let marker = |name: String, required| Wanted {
            slot: Slot::of_marker(MarkerKind::of(&name).unwrap_or(MarkerKind::Flag)),
            field: "opt_out",
            name,
            required,
        };
        match &self.opt_out {
            Some(names) => wanted.extend(names.iter().map(|name| marker(name.clone(), true))),
            None => wanted.extend(opt_out::default_fields().into_iter().map(|name| marker(name, false))),
        }
        wanted
    }
}

/// A field's value as the file holds it.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) enum Value<'a> {
    /// Not there.
    #[default]
    Missing,
    /// JSON null.
    Null,
    /// A string.
    Str(Cow<'a, str>),
    /// A number, in its JSON form.
    Number(String),
    /// A boolean, list or object.
    Other,
}

/// The fields of a row, indexed by [`Slot`].
#[derive(Debug, Default)]
pub(crate) struct Fields<'a>(pub [Value<'a>; NUM_FIELDS]);

impl<'a> Fields<'a> {
    pub fn get(&self, slot: Slot) -> &Value<'a> {
        &self.0[slot as usize]
    }

    pub fn set(&mut self, slot: Slot, value: Value<'a>) {
        self.0[slot as usize] = value;
    }
}

/// Part of a file, small enough to hold in memory and whole in its records.
#[derive(Debug)]
pub(crate) enum Chunk {
    /// JSONL lines, parsed by whoever takes the chunk.
    Lines { bytes: Vec<u8>, first: Place, rejects: Vec<Reject> },
    /// Rows already cut into fields.
    Rows(RowChunk),
    /// Web records, taken apart by whoever takes the chunk.
    Pages(PageChunk),
}

/// Rows written out as lines of JSON.
#[derive(Debug, Default)]
pub(crate) struct LineChunk {
    bytes: Vec<u8>,
    first: Option<Place>,
    pub rejects: Vec<Reject>,
}

impl LineChunk {
    /// Adds a row.
    pub fn push(&mut self, place: Place, line: &str) {
        self.first.get_or_insert(place);
        self.bytes.extend_from_slice(line.as_bytes());
        self.bytes.push(b'\n');
    }

    /// Bytes held.
    pub fn len_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The chunk, unless nothing was collected. Its lines have no byte positions: the rows are written otherwise in their
    /// file.
    pub fn into_chunk(self) -> Option<Chunk> {
        if self.bytes.is_empty() && self.rejects.is_empty() {
            return None;
        }
        let first = Place { byte: None, ..self.first.unwrap_or(Place { row: 1, byte: None }) };
        Some(Chunk::Lines { bytes: self.bytes, first, rejects: self.rejects })
    }
}

impl Chunk {
    /// Bytes of rows held.
    pub fn len_bytes(&self) -> usize {
        match self {
            Chunk::Lines { bytes, .. } => bytes.len(),
            Chunk::Rows(rows) => rows.len_bytes(),
            Chunk::Pages(pages) => pages.len_bytes(),
        }
    }

    /// Number of the row after the last one, whether usable or not.
    pub fn next_row(&self) -> u64 {
        let after = |rejects: &[Reject]| rejects.iter().map(|reject| reject.place.row + 1).max().unwrap_or(0);
        match self {
            Chunk::Lines { bytes, first, rejects } => {
                let cut = bytes.last().is_some_and(|&last| last != b'\n');
                let lines = memchr::memchr_iter(b'\n', bytes).count() as u64 + u64::from(cut);
                (first.row + lines).max(after(rejects))
            }
            Chunk::Rows(rows) => {
                rows.rows.iter().map(|row| row.place.row + 1).max().unwrap_or(0).max(after(&rows.rejects))
            }
            Chunk::Pages(pages) => pages.next_row().max(after(&pages.rejects)),
        }
    }

    /// What is left from row number `from` on; `None` when nothing is.
    pub fn starting_at(self, from: u64) -> Option<Chunk> {
        match self {
            Chunk::Lines { mut bytes, mut first, mut rejects } => {
                rejects.retain(|reject| reject.place.row >= from);
                if first.row < from {
                    let skip = usize::try_from(from - first.row).unwrap_or(usize::MAX);
                    let end = memchr::memchr_iter(b'\n', &bytes).nth(skip - 1).map_or(bytes.len(), |at| at + 1);
                    bytes.drain(..end);
                    first = Place { row: from, byte: first.byte.map(|byte| byte + end as u64) };
                }
                (!bytes.is_empty() || !rejects.is_empty()).then_some(Chunk::Lines { bytes, first, rejects })
            }
            Chunk::Rows(mut rows) => {
                rows.rejects.retain(|reject| reject.place.row >= from);
                rows.rows.retain(|row| row.place.row >= from);
                (!rows.is_empty()).then_some(Chunk::Rows(rows))
            }
            Chunk::Pages(pages) => pages.starting_at(from).map(Chunk::Pages),
        }
    }
}

/// Rows whose field values lie end to end in one buffer.
#[derive(Debug, Default)]
pub(crate) struct RowChunk {
    values: Vec<u8>,
    rows: Vec<RowRef>,
    pub rejects: Vec<Reject>,
}

/// A row's place and where its values lie.
#[derive(Debug, Clone)]
pub(crate) struct RowRef {
    pub place: Place,
    spans: [Option<(u32, u32)>; NUM_FIELDS],
}

impl RowChunk {
    /// Bytes of values held.
    pub fn len_bytes(&self) -> usize {
        self.values.len()
    }

    /// Whether nothing was collected.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.rejects.is_empty()
    }

    /// Opens a row; [`RowChunk::value`] adds to the last one opened.
    pub fn open_row(&mut self, place: Place) {
        self.rows.push(RowRef { place, spans: [None; NUM_FIELDS] });
    }

    /// Sets a field of the row opened last, unless it has a value already.
    pub fn value(&mut self, slot: Slot, bytes: &[u8]) {
        if let Some(kind) = slot.marker()
            && !std::str::from_utf8(bytes).is_ok_and(|text| kind.says_no(text))
        {
            return;
        }
        let start = self.values.len();
        let Some(row) = self.rows.last_mut() else { return };
        let span = &mut row.spans[slot as usize];
        // A chunk holds a few records of at most 1 GiB each, in practice about a MiB in all.
        if let (None, Ok(start), Ok(len)) = (&span, u32::try_from(start), u32::try_from(bytes.len())) {
            *span = Some((start, len));
            self.values.extend_from_slice(bytes);
        }
    }

    /// The rows.
    pub fn rows(&self) -> &[RowRef] {
        &self.rows
    }

    /// The raw value of a field.
    pub fn bytes(&self, row: &RowRef, slot: Slot) -> Option<&[u8]> {
        let (start, len) = row.spans[slot as usize]?;
        self.values.get(start as usize..start as usize + len as usize)
    }

    /// The row as fields.
    ///
    /// # Errors
    /// [`Reason::InvalidUtf8`] when a value is not UTF-8.
    pub fn fields(&self, row: &RowRef) -> Result<Fields<'_>, Reason> {
        let mut fields = Fields::default();
        for (i, field) in fields.0.iter_mut().enumerate() {
            if let Some((start, len)) = row.spans[i] {
                let bytes = self.values.get(start as usize..start as usize + len as usize).unwrap_or_default();
                let text = std::str::from_utf8(bytes).map_err(|_| Reason::InvalidUtf8)?;
                *field = Value::Str(Cow::Borrowed(text));
            }
        }
        Ok(fields)
    }
}
