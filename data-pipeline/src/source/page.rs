//! Owns web records as rows: decoding what a record holds, opt-outs, main text; runs wherever its chunk is taken, so that
//! pages are read on all threads.

use std::sync::Arc;

use serde_json::json;

use super::discover::SourceSpec;
use super::encoding::decode_labelled;
use super::html::read_page;
use super::http::{self, content_type};
use super::row::{Place, Reason, Reject, RowChunk, Slot, excerpt};

/// Bytes of a page in which its own statement of the charset is looked for.
const META_BYTES: usize = 4096;

/// How a record holds its content.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum RecordKind {
    /// An HTTP response.
    #[default]
    Response,
    /// The content itself (`resource`, and `conversion` as WET files have it).
    Plain,
}

/// A record's header, and where its content lies in the chunk.
#[derive(Debug, Default)]
pub(crate) struct Record {
    pub place: Place,
    pub kind: RecordKind,
    pub url: String,
    pub date: String,
    pub id: String,
    pub content_type: String,
    /// Where its content lies; set by [`PageChunk::push`].
    pub start: usize,
    /// Where it ends.
    pub end: usize,
}

/// Web records as they were read.
#[derive(Debug)]
pub(crate) struct PageChunk {
    spec: Arc<SourceSpec>,
    max_record: usize,
    /// Rows are handed out as JSON objects, in the place of their text.
    whole: bool,
    content: Vec<u8>,
    records: Vec<Record>,
    pub rejects: Vec<Reject>,
}

/// A record that is a text.
struct Row<'r> {
    record: &'r Record,
    text: String,
    title: String,
    html_lang: Option<String>,
    charset: &'static str,
}

impl PageChunk {
    pub fn new(spec: Arc<SourceSpec>, max_record: usize, whole: bool) -> PageChunk {
        PageChunk { spec, max_record, whole, content: Vec::new(), records: Vec::new(), rejects: Vec::new() }
    }

    /// Bytes of content held.
    pub fn len_bytes(&self) -> usize {
        self.content.len()
    }

    /// Whether nothing was collected.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty() && self.rejects.is_empty()
    }

    /// Adds a record.
    pub fn push(&mut self, record: Record, content: &[u8]) {
        let start = self.content.len();
        self.content.extend_from_slice(content);
        self.records.push(Record { start, end: self.content.len(), ..record });
    }

    /// The records as rows of the fields that the configuration asks for, or of one field, the whole row as JSON.
    /// Pages whose publisher opts out are rejected when `markers` say so.
    pub fn rows(&self, markers: bool) -> RowChunk {
        let mut chunk = RowChunk::default();
        chunk.rejects.clone_from(&self.rejects);
        for record in &self.records {
            match self.row(record, markers) {
                Ok(row) => {
                    chunk.open_row(record.place);
                    if self.whole {
                        chunk.value(Slot::Text, row.object().as_bytes());
                        continue;
                    }
                    for wanted in &self.spec.wanted {
                        if let Some(value) =
                            row.value(&wanted.name).filter(|v| !v.is_empty() || wanted.slot == Slot::Text)
                        {
                            chunk.value(wanted.slot, value.as_bytes());
                        }
                    }
                    // A page without its date is worth less; another field may have been named for it.
                    if !record.date.is_empty() {
                        chunk.value(Slot::Date, record.date.as_bytes());
                    }
                }
                Err(reject) => chunk.rejects.push(reject),
            }
        }
        chunk
    }

    /// Number of the row after the last record.
    pub fn next_row(&self) -> u64 {
        self.records.last().map_or(0, |record| record.place.row + 1)
    }

    /// What is left from row number `from` on; `None` when nothing is.
    pub fn starting_at(mut self, from: u64) -> Option<PageChunk> {
        self.rejects.retain(|reject| reject.place.row >= from);
        self.records.retain(|record| record.place.row >= from);
        (!self.is_empty()).then_some(self)
    }

    fn row<'r>(&self, record: &'r Record, markers: bool) -> Result<Row<'r>, Reject> {
        let content = self.content.get(record.start..record.end).unwrap_or_default();
        self.read(record, content, markers).map_err(|reason| {
            // Who opted out must stay on record by address.
            let excerpt = if record.url.is_empty() { excerpt(content) } else { excerpt(record.url.as_bytes()) };
            Reject { place: record.place, reason, excerpt }
        })
    }

    fn read<'r>(&self, record: &'r Record, content: &[u8], markers: bool) -> Result<Row<'r>, Reason> {
        let response = match record.kind {
            RecordKind::Response => http::parse(content, self.max_record)?,
            RecordKind::Plain => {
                let (media_type, charset) = content_type(&record.content_type);
                let body = content.into();
                http::Response { status: 200, media_type, charset, opt_out: None, body }
            }
        };
        if response.status != 200 {
            return Err(Reason::HttpStatus);
        }
        if let Some(how) = response.opt_out.filter(|_| markers) {
            return Err(Reason::OptOut(how));
        }
        let body = response.body.as_ref();
        let is_html = match response.media_type.as_str() {
            "text/html" | "application/xhtml+xml" => true,
            "text/plain" => false,
            "" => looks_like_html(body),
            _ => return Err(Reason::NotText),
        };
        let charset = response.charset.or_else(|| if is_html { meta_charset(body) } else { None });
        let (text, charset) = decode_labelled(body, charset.as_deref());
        if !is_html {
            let (title, html_lang) = (String::new(), None);
            let text = text.trim().to_owned();
            return if text.is_empty() {
                Err(Reason::NoMainText)
            } else {
                Ok(Row { record, text, title, html_lang, charset })
            };
        }
        let page = read_page(&text);
        match page.opt_out.filter(|_| markers) {
            Some(how) => Err(Reason::OptOut(how)),
            None if page.text.is_empty() => Err(Reason::NoMainText),
            None => Ok(Row { record, text: page.text, title: page.title, html_lang: page.lang, charset }),
        }
    }
}

impl Row<'_> {
    fn value(&self, name: &str) -> Option<&str> {
        Some(match name {
            "text" => &self.text,
            "url" => &self.record.url,
            "date" => &self.record.date,
            "id" => &self.record.id,
            "title" => &self.title,
            "charset" => self.charset,
            "html_lang" => self.html_lang.as_deref()?,
            "host" => host(&self.record.url)?,
            _ => return None,
        })
    }

    fn object(&self) -> String {
        let record = self.record;
        let mut object = json!({
            "id": record.id, "url": record.url, "date": record.date, "title": self.title, "charset": self.charset,
            "text": self.text,
        });
        if let (Some(lang), Some(fields)) = (&self.html_lang, object.as_object_mut()) {
            fields.insert("html_lang".to_owned(), lang.as_str().into());
        }
        object.to_string()
    }
}

/// The host of an address.
fn host(url: &str) -> Option<&str> {
    let (_, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let host = authority.rsplit('@').next()?;
    host.split(':').next().filter(|host| !host.is_empty())
}

fn looks_like_html(body: &[u8]) -> bool {
    let head = String::from_utf8_lossy(body.get(..META_BYTES).unwrap_or(body)).to_ascii_lowercase();
    ["<html", "<!doctype html", "<body", "<head"].iter().any(|tag| head.contains(tag))
}

/// The charset that a page states in its first bytes, in a `meta` tag or an XML declaration.
fn meta_charset(body: &[u8]) -> Option<String> {
    let head = body.get(..META_BYTES).unwrap_or(body).to_ascii_lowercase();
    let stated = |mark: &[u8]| {
        let at = memchr::memmem::find(&head, mark)? + mark.len();
        let rest = head.get(at..)?.trim_ascii_start().strip_prefix(b"=")?.trim_ascii_start();
        let rest = rest.strip_prefix(b"\"").or_else(|| rest.strip_prefix(b"'")).unwrap_or(rest);
        let end = rest.iter().position(|b| !b.is_ascii_alphanumeric() && !b"-_:.".contains(b)).unwrap_or(rest.len());
        Some(String::from_utf8_lossy(rest.get(..end)?).into_owned()).filter(|label| !label.is_empty())
    };
    let label = stated(b"charset").or_else(|| if head.starts_with(b"<?xml") { stated(b"encoding") } else { None })?;
    // A page whose statement could be read as ASCII is not in UTF-16.
    Some(if label.starts_with("utf-16") { "utf-8".to_owned() } else { label })
}
