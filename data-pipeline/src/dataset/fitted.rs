//! Owns the rows of a component whose texts are packed by best fit; never decides which parts share a row.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use super::Dataset;
use super::best_fit::{BestFit, Part, TextPackingCounts};
use super::component::{Component, RowPart, RowSlots, Span, Window};
use super::error::DataError;
use crate::manifest::Counts;

impl Dataset {
    /// Packs the training texts into rows of `seq_len` by best fit, instead of end to end. Held-out texts stay as they
    /// are, so that scores can be compared. Chats are always packed whole.
    ///
    /// # Errors
    /// When a packing too large for memory cannot be written to the temporary folder.
    pub fn with_best_fit(mut self, seq_len: usize) -> Result<Self, DataError> {
        for component in self.train.iter_mut().filter(|component| !component.holds_chats()) {
            component.fitted = Some(Arc::new(BestFit::new(component.lengths(), seq_len)?));
        }
        Ok(self)
    }

    /// What filling rows of `seq_len` does with the training texts: by best fit, and end to end.
    ///
    /// # Errors
    /// As [`Dataset::with_best_fit`].
    pub fn compare_packings(&self, seq_len: usize) -> Result<Vec<PackingComparison>, DataError> {
        let compare = |component: &Component| {
            Ok(PackingComparison {
                lang: component.lang().to_owned(),
                source: component.source().to_owned(),
                tokens: component.num_tokens(),
                end_to_end: TextPackingCounts::end_to_end(component.lengths(), seq_len),
                best_fit: BestFit::new(component.lengths(), seq_len)?.counts(),
            })
        };
        self.train.iter().filter(|component| !component.holds_chats()).map(compare).collect()
    }

    /// The best-fit packing of all training texts: what it does with them, and the digest of its tables; `None` where
    /// texts stand end to end.
    pub fn best_fit(&self) -> Option<(TextPackingCounts, String)> {
        let mut sum = TextPackingCounts::default();
        let mut digest = blake3::Hasher::new_derive_key("jazari best-fit packing of a dataset");
        for fitted in self.train.iter().map(|component| component.fitted.as_ref()) {
            sum.add(&fitted?.counts());
            digest.update(fitted?.digest().as_bytes());
        }
        Some((sum, digest.finalize().to_hex().to_string())).filter(|_| !self.train.is_empty())
    }

    /// [`Dataset::streams`] with the tokens of each licence, which are counted in the tables of documents.
    ///
    /// # Errors
    /// A table that cannot be read.
    pub fn licensed_streams(&self, seq_len: usize) -> Result<Vec<crate::order::Stream>, DataError> {
        let mut streams = self.streams(seq_len);
        for (stream, component) in streams.iter_mut().zip(&self.train) {
            stream.licences = component.licences()?.into_iter().map(|(name, counts)| (name, counts.tokens)).collect();
        }
        Ok(streams)
    }
}

/// Two ways to fill rows with the texts of a component.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct PackingComparison {
    /// `ary_Arab`.
    pub lang: String,
    /// Corpus.
    pub source: String,
    /// Tokens.
    pub tokens: u64,
    /// Documents one after another, cut where a row is full.
    pub end_to_end: TextPackingCounts,
    /// Documents whole where they fit.
    pub best_fit: TextPackingCounts,
}

impl Component {
    /// Documents, tokens and bytes by licence.
    ///
    /// # Errors
    /// A table of documents that cannot be read.
    pub fn licences(&self) -> Result<BTreeMap<String, Counts>, DataError> {
        let mut sum: BTreeMap<String, Counts> = BTreeMap::new();
        for table in self.sidecars() {
            for (licence, counts) in crate::shard::sidecar::count_licences(&table)? {
                sum.entry(licence).or_default().add(counts);
            }
        }
        Ok(sum)
    }

    /// The packing, when it was made for rows of this length.
    pub(super) fn fitted_for(&self, seq_len: usize) -> Option<&BestFit> {
        self.fitted.as_deref().filter(|fitted| fitted.capacity() == seq_len)
    }

    /// Tokens of the component from the first input of a part to its last target.
    fn tokens_of_part(&self, part: Part, capacity: usize) -> Result<Range<u64>, DataError> {
        let document = self.place_of(part.document)?;
        let start = document.start + part.chunk * capacity as u64;
        Ok(start..document.end.min(start + capacity as u64 + 1))
    }

    /// The parts of a row; each with the token behind it, which is only a target.
    pub(super) fn fitted_row(&self, fitted: &BestFit, row: u64) -> Result<Window, DataError> {
        let parts = fitted.row(row).ok_or_else(|| self.no_row(row, fitted.counts().rows))?;
        let mut window = Window { ids: Vec::new(), spans: Vec::new(), marks: Vec::new() };
        for part in parts {
            let tokens = self.tokens_of_part(part, fitted.capacity())?;
            let from = window.ids.len();
            window.ids.resize(from + (tokens.end - tokens.start) as usize, 0);
            self.read(tokens.start, window.ids.get_mut(from..).unwrap_or_default());
            window.spans.push(Span { document: part.document, tokens: from..window.ids.len() });
        }
        Ok(window)
    }

    /// The parts of documents whose tokens are inputs of a row.
    pub(super) fn parts_of_fitted_row(&self, fitted: &BestFit, row: u64) -> Result<Vec<RowPart>, DataError> {
        let parts = fitted.row(row).ok_or_else(|| self.no_row(row, fitted.counts().rows))?;
        let (mut found, mut at) = (Vec::new(), 0);
        for part in parts {
            let tokens = self.tokens_of_part(part, fitted.capacity())?;
            // The token behind the last input is only a target.
            let inputs = (tokens.end - tokens.start).saturating_sub(1);
            let mut ids = vec![0; inputs as usize];
            self.read(tokens.start, &mut ids);
            let start = tokens.start - self.place_of(part.document)?.start;
            let in_row = at..at + ids.len();
            at = in_row.end;
            found.push(RowPart { document: part.document, in_row, of_document: start..start + inputs, ids });
        }
        Ok(found)
    }

    /// Writes a row into the fields of a batch, `[seq_len]` each.
    pub(super) fn fill_fitted_row(&self, fitted: &BestFit, row: u64, slots: RowSlots<'_>) -> Result<(), DataError> {
        let Window { ids, spans, .. } = self.fitted_row(fitted, row)?;
        let RowSlots { tokens, targets, segments, positions } = slots;
        tokens.fill(self.filler());
        targets.fill(-1);
        // The rest of the row is a segment of its own in which nothing is learned.
        segments.fill(spans.len() as u32);
        let mut at = 0;
        for (segment, span) in (0_u32..).zip(&spans) {
            let own = ids.get(span.tokens.clone()).unwrap_or_default();
            for (position, pair) in (0_u32..).zip(own.windows(2)) {
                let (Some(&id), Some(&next)) = (pair.first(), pair.get(1)) else { continue };
                let field = (tokens.get_mut(at), targets.get_mut(at), segments.get_mut(at), positions.get_mut(at));
                let (Some(token), Some(target), Some(segment_slot), Some(position_slot)) = field else { break };
                *token = id;
                *target = i32::try_from(next).unwrap_or(-1);
                *segment_slot = segment;
                *position_slot = position;
                at += 1;
            }
        }
        for (position, slot) in (0_u32..).zip(positions.iter_mut().skip(at)) {
            *slot = position;
        }
        Ok(())
    }
}
