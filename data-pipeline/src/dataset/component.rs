//! Owns one stream of documents (a split, language and source) over its shards, and cutting it into rows; never mixes
//! streams.

use std::ops::Range;

use super::error::DataError;
use crate::manifest::{Counts, ShardRecord, Split};
use crate::shard::reader::ShardReader;
use crate::shard::sidecar::{DocumentFacts, read_facts};

/// The documents of one split, language and source, end to end: `BOS text EOS BOS text EOS ...`.
///
/// Row `i` at sequence length `L` holds the tokens from `i L` to `i L + L` as inputs, and each one's successor as its
/// target. So every token but the first of a document is predicted exactly once an epoch.
#[derive(Debug)]
pub struct Component {
    split: Split,
    lang: String,
    source: String,
    shards: Vec<Placed>,
    counts: Counts,
    /// Fills the rest of the last row.
    filler: u32,
}

#[derive(Debug)]
struct Placed {
    first_token: u64,
    first_document: u64,
    reader: ShardReader,
}

/// A part of a document inside a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// Number of the document in its component.
    pub document: u64,
    /// Where its tokens lie in the row.
    pub tokens: Range<usize>,
}

/// The tokens of a row before they are batched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// Inputs and the last target, at most `seq_len + 1`; fewer in the last row.
    pub ids: Vec<u32>,
    /// The documents in it, in order.
    pub spans: Vec<Span>,
}

/// One row of each field of a batch, `[seq_len]` each.
pub(crate) struct RowSlots<'a> {
    pub tokens: &'a mut [u32],
    pub targets: &'a mut [i32],
    pub segments: &'a mut [u32],
    pub positions: &'a mut [u32],
}

impl Component {
    /// Adds a shard to the component it belongs to, or begins one.
    pub(super) fn place(components: &mut Vec<Self>, record: &ShardRecord, reader: ShardReader, filler: u32) {
        let of = |c: &Self| c.lang == record.lang && c.source == record.source;
        let at = components.iter().position(of).unwrap_or_else(|| {
            components.push(Self {
                split: record.split,
                lang: record.lang.clone(),
                source: record.source.clone(),
                shards: Vec::new(),
                counts: Counts::default(),
                filler,
            });
            components.len() - 1
        });
        if let Some(component) = components.get_mut(at) {
            let Counts { tokens, documents, .. } = component.counts;
            component.counts.add(record.counts());
            component.shards.push(Placed { first_token: tokens, first_document: documents, reader });
        }
    }

    /// What its documents are for.
    pub fn split(&self) -> Split {
        self.split
    }

    /// `ary_Arab`.
    pub fn lang(&self) -> &str {
        &self.lang
    }

    /// Corpus.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// `ary_Arab/doda-mit`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.lang, self.source)
    }

    /// Tokens, BOS and EOS included.
    pub fn num_tokens(&self) -> u64 {
        self.counts.tokens
    }

    /// Documents.
    pub fn num_documents(&self) -> u64 {
        self.counts.documents
    }

    /// UTF-8 bytes of text.
    pub fn num_text_bytes(&self) -> u64 {
        self.counts.text_bytes
    }

    /// Rows of `seq_len` targets; the last one may be short.
    pub fn num_rows(&self, seq_len: usize) -> u64 {
        (self.counts.tokens - 1).div_ceil(seq_len.max(1) as u64)
    }

    /// The tokens of a row and the documents they belong to.
    ///
    /// # Errors
    /// A row past the last.
    pub fn row(&self, row: u64, seq_len: usize) -> Result<Window, DataError> {
        let start = self.start_of(row, seq_len)?;
        let len = (self.counts.tokens - start).min(seq_len as u64 + 1) as usize;
        let mut ids = vec![0; len];
        self.read(start, &mut ids);
        let end = start + len as u64;
        let mut spans = Vec::new();
        let mut at = start;
        for (document, document_end) in self.ends_after(start) {
            let to = document_end.clamp(at, end);
            spans.push(Span { document, tokens: (at - start) as usize..(to - start) as usize });
            at = to;
            if at == end {
                break;
            }
        }
        Ok(Window { ids, spans })
    }

    /// Tokens of a document, BOS and EOS included.
    ///
    /// # Errors
    /// A document past the last.
    pub fn document(&self, document: u64) -> Result<Vec<u32>, DataError> {
        let placed = self.shard_of_document(document)?;
        let range = placed.reader.document(document - placed.first_document);
        let mut ids = vec![0; (range.end - range.start) as usize];
        placed.reader.read(range.start, &mut ids);
        Ok(ids)
    }

    /// What is known of a document.
    ///
    /// # Errors
    /// A document past the last, or a table that cannot be read.
    pub fn facts(&self, document: u64) -> Result<DocumentFacts, DataError> {
        let placed = self.shard_of_document(document)?;
        let path = placed.reader.sidecar();
        let missing = || DataError::Content {
            path: path.clone(),
            reason: format!("has no row for document {}", document - placed.first_document),
        };
        read_facts(&path, document - placed.first_document, 1)?.pop().ok_or_else(missing)
    }

    /// Writes a row into the fields of a batch, `[seq_len]` each.
    pub(crate) fn fill_row(&self, row: u64, slots: RowSlots<'_>) -> Result<(), DataError> {
        let seq_len = slots.tokens.len();
        let start = self.start_of(row, seq_len)?;
        let total = self.counts.tokens;
        let inputs = ((total - start) as usize).min(seq_len);
        self.read(start, slots.tokens);
        let mut after = [0];
        self.read(start + seq_len as u64, &mut after);
        let mut ends = self.ends_after(start).map(|(_, end)| end);
        let mut end = ends.next().unwrap_or(total);
        let (mut segment, mut position) = (0, 0);
        let fields = slots.targets.iter_mut().zip(slots.segments).zip(slots.positions);
        for (i, ((target, segment_slot), position_slot)) in fields.enumerate() {
            let at = start + i as u64;
            if at == end {
                (segment, position) = (segment + 1, 0);
                end = ends.next().unwrap_or(u64::MAX);
            }
            let has_target = at + 1 < total && at + 1 != end;
            let next = slots.tokens.get(i + 1).or(after.first()).copied().unwrap_or(0);
            *target = if has_target { i32::try_from(next).unwrap_or(-1) } else { -1 };
            *segment_slot = segment;
            *position_slot = position;
            position += 1;
        }
        slots.tokens.get_mut(inputs..).unwrap_or_default().fill(self.filler);
        Ok(())
    }

    fn start_of(&self, row: u64, seq_len: usize) -> Result<u64, DataError> {
        let available = self.num_rows(seq_len);
        if row < available {
            return Ok(row * seq_len as u64);
        }
        Err(DataError::OutOfRange { what: "row", number: row, of: self.name(), available })
    }

    fn shard_of_document(&self, document: u64) -> Result<&Placed, DataError> {
        let out_of_range = || DataError::OutOfRange {
            what: "document",
            number: document,
            of: self.name(),
            available: self.counts.documents,
        };
        if document >= self.counts.documents {
            return Err(out_of_range());
        }
        let after = self.shards.partition_point(|placed| placed.first_document <= document);
        self.shards.get(after - 1).ok_or_else(out_of_range)
    }

    /// Copies tokens from `start` on, across shards, as many as there are.
    fn read(&self, start: u64, mut out: &mut [u32]) {
        let first = self.shards.partition_point(|placed| placed.first_token <= start).saturating_sub(1);
        let mut at = start;
        for placed in self.shards.iter().skip(first) {
            let count = placed.reader.read(at - placed.first_token, out);
            out = out.get_mut(count..).unwrap_or_default();
            at += count as u64;
            if out.is_empty() {
                return;
            }
        }
    }

    /// Number and end of each document from the one that holds token `start` on.
    fn ends_after(&self, start: u64) -> impl Iterator<Item = (u64, u64)> {
        let first = self.shards.partition_point(|placed| placed.first_token <= start).saturating_sub(1);
        self.shards.iter().skip(first).enumerate().flat_map(move |(i, placed)| {
            let from = if i == 0 { placed.reader.document_at(start - placed.first_token) } else { 0 };
            let number = move |d: u64| (placed.first_document + d, placed.first_token + placed.reader.end_of(d));
            (from..placed.reader.num_documents()).map(number)
        })
    }
}
