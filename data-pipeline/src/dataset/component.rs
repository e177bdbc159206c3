//! Owns one stream of documents (a split, language and source) over its shards, and cutting it into rows; never mixes
//! streams.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use super::best_fit::BestFit;
use super::error::DataError;
use super::packing::{Packing, PackingCounts};
use crate::chat::config::ExcessLength;
use crate::chat::{REJECTED, TRAINED};
use crate::manifest::{Counts, ShardRecord, Split};
use crate::shard::reader::ShardReader;
use crate::shard::sidecar::{DocumentFacts, pick_facts, read_facts, scan_facts};

/// The documents of one split, language and source, end to end: `BOS text EOS BOS text EOS ...`.
///
/// Row `i` at sequence length `L` holds the tokens from `i L` to `i L + L` as inputs, and each one's successor as its
/// target. So every token but the first of a document is predicted exactly once an epoch.
///
/// With a best-fit packing a row holds parts of several documents, whole where they fit: see [`super::best_fit`].
///
/// Of chats every row holds whole samples, by [`Packing`], each a document of its own; of preferences both answers, which
/// are two documents. Only marked tokens are targets.
#[derive(Debug)]
pub struct Component {
    split: Split,
    lang: String,
    source: String,
    shards: Vec<Placed>,
    counts: Counts,
    /// Fills the rest of the last row.
    filler: u32,
    /// How chats fill rows; `None` of texts.
    samples: Option<Samples>,
    /// How texts fill rows of one length; `None` end to end.
    pub(super) fitted: Option<Arc<BestFit>>,
}

#[derive(Debug, Default)]
struct Samples {
    excess: ExcessLength,
    /// The packing for the row length last asked for.
    packing: Mutex<Option<(usize, Arc<Packing>)>>,
}

#[derive(Debug)]
struct Placed {
    first_token: u64,
    first_document: u64,
    reader: ShardReader,
}

/// Takes a document's number, its facts, its shard and where its tokens lie there.
pub type EachDocument<'a> = dyn FnMut(u64, DocumentFacts, &ShardReader, Range<u64>) -> Result<(), DataError> + 'a;

/// A part of a document inside a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// Number of the document in its component.
    pub document: u64,
    /// Where its tokens lie in the row.
    pub tokens: Range<usize>,
}

/// The tokens of a document that are inputs of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowPart {
    /// Number of the document in its component.
    pub document: u64,
    /// Where they stand in the row.
    pub in_row: Range<usize>,
    /// Which tokens of the document they are.
    pub of_document: Range<u64>,
    /// The tokens.
    pub ids: Vec<u32>,
}

/// The tokens of a row before they are batched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// Inputs and the last target, at most `seq_len + 1`; fewer in the last row.
    pub ids: Vec<u32>,
    /// The documents in it, in order.
    pub spans: Vec<Span>,
    /// Of chats the [`TRAINED`] and [`REJECTED`] bits of each token; empty of texts.
    pub marks: Vec<u8>,
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
    pub(super) fn place(
        components: &mut Vec<Self>,
        record: &ShardRecord,
        reader: ShardReader,
        filler: u32,
        chats: Option<ExcessLength>,
    ) {
        let of = |c: &Self| c.lang == record.lang && c.source == record.source;
        let at = components.iter().position(of).unwrap_or_else(|| {
            components.push(Self {
                split: record.split,
                lang: record.lang.clone(),
                source: record.source.clone(),
                shards: Vec::new(),
                counts: Counts::default(),
                filler,
                samples: chats.map(|excess| Samples { excess, packing: Mutex::default() }),
                fitted: None,
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
        if let Some(packing) = self.packing(seq_len) {
            return packing.counts().rows;
        }
        if let Some(fitted) = self.fitted_for(seq_len) {
            return fitted.counts().rows;
        }
        (self.counts.tokens - 1).div_ceil(seq_len.max(1) as u64)
    }

    /// The tokens of a row and the documents they belong to.
    ///
    /// # Errors
    /// A row past the last.
    pub fn row(&self, row: u64, seq_len: usize) -> Result<Window, DataError> {
        if let Some(packing) = self.packing(seq_len) {
            return self.packed_row(&packing, row);
        }
        if let Some(fitted) = self.fitted_for(seq_len) {
            return self.fitted_row(fitted, row);
        }
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
        Ok(Window { ids, spans, marks: Vec::new() })
    }

    /// What packing rows of `seq_len` tokens does with the samples; `None` of texts.
    pub fn packing_counts(&self, seq_len: usize) -> Option<PackingCounts> {
        self.packing(seq_len).map(|packing| packing.counts())
    }

    /// The packing of samples into rows of `seq_len` tokens.
    fn packing(&self, seq_len: usize) -> Option<Arc<Packing>> {
        let samples = self.samples.as_ref()?;
        let mut cached = samples.packing.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, packing)) = cached.as_ref().filter(|(length, _)| *length == seq_len) {
            return Some(Arc::clone(packing));
        }
        let lengths = self.lengths();
        let cut = |sample: u64| {
            let truncates = samples.excess == ExcessLength::Truncate;
            let marks = if truncates { self.marks(sample, seq_len) } else { Vec::new() };
            // A pair without its second answer is no pair; a sample without a trained token teaches nothing.
            let is_pair = self.marks(sample, usize::MAX).last().is_some_and(|mark| mark & REJECTED != 0);
            let learns = marks.iter().skip(1).any(|mark| mark & TRAINED != 0);
            if truncates && learns && !is_pair { u32::try_from(seq_len).unwrap_or(0) } else { 0 }
        };
        let packing = Arc::new(Packing::new(lengths, seq_len, cut));
        *cached = Some((seq_len, Arc::clone(&packing)));
        Some(packing)
    }

    /// Marks of the first `count` tokens of a document; none of texts.
    pub fn marks(&self, document: u64, count: usize) -> Vec<u8> {
        let Ok(placed) = self.shard_of_document(document) else { return Vec::new() };
        let tokens = placed.reader.document(document - placed.first_document);
        placed.reader.marks(tokens.start, ((tokens.end - tokens.start) as usize).min(count)).to_vec()
    }

    /// The samples of a row, by their numbers; none of texts.
    pub(crate) fn samples_of(&self, row: u64, seq_len: usize) -> Vec<u64> {
        let packing = self.packing(seq_len);
        let members = packing.as_ref().and_then(|packing| packing.row(row)).unwrap_or_default();
        members.iter().map(|(sample, _)| *sample).collect()
    }

    fn packed_row(&self, packing: &Packing, row: u64) -> Result<Window, DataError> {
        let members = packing.row(row).ok_or_else(|| self.no_row(row, packing.counts().rows))?;
        let mut window = Window { ids: Vec::new(), spans: Vec::new(), marks: Vec::new() };
        for &(document, kept) in members {
            let start = window.ids.len();
            let ids = self.document(document)?;
            window.ids.extend(ids.into_iter().take(kept as usize));
            window.marks.extend(self.marks(document, kept as usize));
            window.spans.push(Span { document, tokens: start..window.ids.len() });
        }
        Ok(window)
    }

    /// Writes a row of whole samples into the fields of a batch.
    fn fill_packed_row(&self, packing: &Packing, row: u64, slots: RowSlots<'_>) -> Result<(), DataError> {
        let Window { ids, spans, marks } = self.packed_row(packing, row)?;
        slots.tokens.fill(self.filler);
        slots.targets.fill(-1);
        for (slot, &id) in slots.tokens.iter_mut().zip(&ids) {
            *slot = id;
        }
        let ends: Vec<usize> = spans.iter().map(|span| span.tokens.end).collect();
        let mut ends = ends.into_iter();
        let mut end = ends.next().unwrap_or(0);
        let (mut segment, mut position) = (0, 0);
        let fields = slots.targets.iter_mut().zip(slots.segments).zip(slots.positions);
        for (at, ((target, segment_slot), position_slot)) in fields.enumerate() {
            let mark = |at: usize| marks.get(at).copied().unwrap_or(0);
            let turns = at > 0 && at < end && mark(at) & REJECTED != mark(at - 1) & REJECTED;
            if at == end || turns {
                (segment, position) = (segment + 1, 0);
            }
            if at == end {
                end = ends.next().unwrap_or(usize::MAX);
            }
            (*segment_slot, *position_slot) = (segment, position);
            position += 1;
            let same = at + 1 < end && mark(at + 1) & REJECTED == mark(at) & REJECTED;
            if same && mark(at + 1) & TRAINED != 0 {
                *target = ids.get(at + 1).and_then(|&id| i32::try_from(id).ok()).unwrap_or(-1);
            }
        }
        Ok(())
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

    /// The parts of documents whose tokens are inputs of a row, in order.
    ///
    /// # Errors
    /// A row past the last.
    pub fn parts_of_row(&self, row: u64, seq_len: usize) -> Result<Vec<RowPart>, DataError> {
        if let Some(fitted) = self.fitted_for(seq_len) {
            return self.parts_of_fitted_row(fitted, row);
        }
        let window = self.row(row, seq_len)?;
        let mut parts = Vec::new();
        for span in window.spans {
            // What stands behind the last input is a target only, and an input of another row.
            let in_row = span.tokens.start.min(seq_len)..span.tokens.end.min(seq_len);
            if in_row.is_empty() {
                continue;
            }
            let start = match self.samples {
                Some(_) => 0,
                None => {
                    (row * seq_len as u64 + in_row.start as u64).saturating_sub(self.place_of(span.document)?.start)
                }
            };
            let ids = window.ids.get(in_row.clone()).unwrap_or_default().to_vec();
            parts.push(RowPart {
                document: span.document,
                of_document: start..start + in_row.len() as u64,
                in_row,
                ids,
            });
        }
        Ok(parts)
    }

    /// The rows that hold inputs of a document, ascending.
    ///
    /// # Errors
    /// A document past the last.
    pub fn rows_of(&self, document: u64, seq_len: usize) -> Result<Vec<u64>, DataError> {
        if let Some(packing) = self.packing(seq_len) {
            let holds = |row: &u64| packing.row(*row).unwrap_or_default().iter().any(|(sample, _)| *sample == document);
            return Ok((0..packing.counts().rows).filter(holds).collect());
        }
        if let Some(fitted) = self.fitted_for(seq_len) {
            let holds = |row: &u64| fitted.row(*row).unwrap_or_default().iter().any(|part| part.document == document);
            return Ok((0..fitted.counts().rows).filter(holds).collect());
        }
        let tokens = self.place_of(document)?;
        let width = seq_len.max(1) as u64;
        Ok((tokens.start / width..tokens.end.div_ceil(width)).filter(|&row| row < self.num_rows(seq_len)).collect())
    }

    /// What is known of documents, by their ascending numbers.
    ///
    /// # Errors
    /// A document past the last, or a table that cannot be read.
    pub fn facts_of(&self, documents: &[u64]) -> Result<Vec<DocumentFacts>, DataError> {
        let mut facts = Vec::with_capacity(documents.len());
        for of_shard in documents.chunk_by(|a, b| {
            let shard = |document: u64| self.shards.partition_point(|placed| placed.first_document <= document);
            shard(*a) == shard(*b)
        }) {
            let Some(&first) = of_shard.first() else { continue };
            let placed = self.shard_of_document(first)?;
            let numbers: Vec<u64> = of_shard.iter().map(|document| document - placed.first_document).collect();
            facts.extend(pick_facts(&placed.reader.sidecar(), &numbers)?);
        }
        Ok(facts)
    }

    /// Hands every document to `each`: its number, its facts and its tokens.
    ///
    /// # Errors
    /// A table that cannot be read, or what `each` returns.
    pub fn scan(&self, each: &mut EachDocument<'_>) -> Result<(), DataError> {
        for placed in &self.shards {
            scan_facts(&placed.reader.sidecar(), &mut |number, facts| {
                each(placed.first_document + number, facts, &placed.reader, placed.reader.document(number))
            })?;
        }
        Ok(())
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
        if let Some(packing) = self.packing(seq_len) {
            return self.fill_packed_row(&packing, row, slots);
        }
        if let Some(fitted) = self.fitted_for(seq_len) {
            return self.fill_fitted_row(fitted, row, slots);
        }
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
        Err(self.no_row(row, available))
    }

    /// Tokens of each document, in order.
    pub(super) fn lengths(&self) -> impl Iterator<Item = u64> {
        self.shards.iter().flat_map(|placed| {
            let length = |tokens: Range<u64>| tokens.end - tokens.start;
            (0..placed.reader.num_documents()).map(move |document| length(placed.reader.document(document)))
        })
    }

    /// Where a document's tokens lie in the component.
    ///
    /// # Errors
    /// A document past the last.
    pub fn place_of(&self, document: u64) -> Result<Range<u64>, DataError> {
        let placed = self.shard_of_document(document)?;
        let range = placed.reader.document(document - placed.first_document);
        Ok(placed.first_token + range.start..placed.first_token + range.end)
    }

    /// Whether its documents are chats or preferences.
    pub(super) fn holds_chats(&self) -> bool {
        self.samples.is_some()
    }

    /// What fills unused places.
    pub(super) fn filler(&self) -> u32 {
        self.filler
    }

    /// Paths of the tables of documents.
    pub(super) fn sidecars(&self) -> impl Iterator<Item = PathBuf> {
        self.shards.iter().map(|placed| placed.reader.sidecar())
    }

    pub(super) fn no_row(&self, row: u64, available: u64) -> DataError {
        DataError::OutOfRange { what: "row", number: row, of: self.name(), available }
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
    pub(super) fn read(&self, start: u64, mut out: &mut [u32]) {
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
