//! Owns what a run shows a model of its data, before it does: rows, tokens, bytes and epochs by language, source and
//! licence, for every stage; never reads a row.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::Serialize;

use super::{Order, Stream};

/// How much of a part of the data is seen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Exposure {
    /// Share of the rows, 0 to 1.
    pub share: f64,
    /// Training rows.
    pub rows: f64,
    /// Tokens in them, by the mean of the component.
    pub tokens: f64,
    /// UTF-8 bytes of text in them, likewise.
    pub bytes: f64,
    /// How often the part is seen on average.
    pub epochs: f64,
    /// Tokens of the part, once through.
    #[serde(skip)]
    available: f64,
}

/// Exposures by name.
pub type ExposureTable = BTreeMap<String, Exposure>;

/// What a stretch of the run shows.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Exposures {
    /// First row.
    pub first_row: u64,
    /// First row after it.
    pub end_row: u64,
    /// By language and script.
    pub languages: ExposureTable,
    /// By source, over its languages.
    pub sources: ExposureTable,
    /// By language and source.
    pub components: ExposureTable,
    /// By licence; empty where streams do not know theirs.
    pub licences: ExposureTable,
}

impl Order {
    /// What the whole run shows, and what each stage of it does. Streams that know their licences give a table of them;
    /// they must be those that the order was made for.
    pub fn exposures(&self, streams: &[Stream]) -> (Exposures, Vec<Exposures>) {
        let whole = self.exposures_in(streams, 0..self.total_rows);
        (whole, self.stages().into_iter().map(|rows| self.exposures_in(streams, rows)).collect())
    }

    /// What rows `range` of the run show.
    pub fn exposures_in(&self, streams: &[Stream], range: Range<u64>) -> Exposures {
        let (before, after) = (self.draws_before(range.start), self.draws_before(range.end));
        let mut found = Exposures { first_row: range.start, end_row: range.end, ..Exposures::default() };
        for (stream, (before, after)) in streams.iter().zip(before.iter().zip(&after)) {
            let draws = (after - before) as f64;
            let epochs = if stream.rows == 0 { 0.0 } else { draws / stream.rows as f64 };
            let part = |share: f64| Exposure {
                share: share * draws / (range.end - range.start).max(1) as f64,
                rows: share * draws,
                tokens: share * epochs * stream.tokens as f64,
                bytes: share * epochs * stream.text_bytes as f64,
                epochs: 0.0,
                available: share * stream.tokens as f64,
            };
            add(&mut found.languages, &stream.lang, part(1.0));
            add(&mut found.sources, &stream.source, part(1.0));
            add(&mut found.components, &stream.name(), part(1.0));
            let all: u64 = stream.licences.values().sum();
            for (licence, tokens) in &stream.licences {
                add(&mut found.licences, licence, part(*tokens as f64 / all.max(1) as f64));
            }
        }
        found
    }
}

fn add(table: &mut ExposureTable, name: &str, part: Exposure) {
    let sum = table.entry(name.to_owned()).or_default();
    sum.share += part.share;
    sum.rows += part.rows;
    sum.tokens += part.tokens;
    sum.bytes += part.bytes;
    sum.available += part.available;
    sum.epochs = if sum.available > 0.0 { sum.tokens / sum.available } else { 0.0 };
}
