//! Owns the way between documents and rows: which documents a row holds, which rows hold a document; never decides the
//! order of rows.
//!
//! Tokens are counted where they are inputs, so that every token of a stream is counted once an epoch. Bytes are the UTF-8
//! bytes that the tokens stand for.

use std::collections::BTreeMap;
use std::ops::Range;

use rayon::prelude::*;
use serde::Serialize;

use crate::dataset::{Component, DataError, Dataset, RowPart};
use crate::loader::Loader;
use crate::manifest::Split;
use crate::order::Order;
use crate::removal::RemovedDocument;
use crate::shard::sidecar::DocumentFacts;

/// A document, wherever it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TracedDocument {
    /// Its identifier.
    pub id: String,
    /// What it is for.
    pub split: Split,
    /// `ary_Arab`.
    pub lang: String,
    /// Corpus.
    pub source: String,
    /// Licence.
    pub licence: String,
    /// Where it was published.
    pub url: Option<String>,
    /// The data set it is in.
    pub dataset: String,
    /// Its number in its component.
    pub number: u64,
    /// Its tokens.
    pub tokens: u64,
    /// UTF-8 bytes of its text.
    pub text_bytes: u64,
}

/// The part of a document that is in a row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TracedPart {
    /// The document.
    #[serde(flatten)]
    pub document: TracedDocument,
    /// Places of the row, the last not included.
    pub in_row: [u64; 2],
    /// Tokens of the document, the last not included.
    pub of_document: [u64; 2],
    /// UTF-8 bytes that these tokens stand for.
    pub bytes: u64,
}

/// A row of a run with the documents in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TracedRow {
    /// Number in the run.
    pub row: u64,
    /// `ary_Arab/doda-mit`.
    pub component: String,
    /// Number in the component.
    pub component_row: u64,
    /// The parts, in order.
    pub parts: Vec<TracedPart>,
}

/// Where a document stands in a dataset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Location {
    /// The document.
    #[serde(flatten)]
    pub document: TracedDocument,
    /// Index into the components of its split.
    pub component: usize,
    /// Where its tokens lie in the component, the last not included.
    pub in_component: [u64; 2],
}

/// A row of a run that holds a part of a document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Sighting {
    /// Number in the run.
    pub row: u64,
    /// Number in the component.
    pub component_row: u64,
    /// Tokens of the document, the last not included.
    pub of_document: [u64; 2],
    /// UTF-8 bytes that these tokens stand for.
    pub bytes: u64,
}

/// Rows `range` of a run with the documents in them.
///
/// # Errors
/// Files that cannot be read.
pub fn rows(loader: &Loader, range: Range<u64>) -> Result<Vec<TracedRow>, DataError> {
    let (dataset, seq_len) = (loader.dataset(), loader.seq_len());
    let owners = owners(dataset);
    let mut rows = Vec::new();
    // Facts are read once for each component: tables are read from their beginning.
    let mut wanted: BTreeMap<usize, Vec<u64>> = BTreeMap::new();
    for row in range {
        let place = loader.order().row(row);
        let component = component(dataset, place.component)?;
        let parts = parts(dataset, component, place.row, seq_len)?;
        wanted.entry(place.component).or_default().extend(parts.iter().map(|part| part.document));
        rows.push((row, place, parts));
    }
    let mut facts: BTreeMap<(usize, u64), DocumentFacts> = BTreeMap::new();
    for (at, mut documents) in wanted {
        documents.sort_unstable();
        documents.dedup();
        let found = component(dataset, at)?.facts_of(&documents)?;
        facts.extend(documents.into_iter().map(|document| (at, document)).zip(found));
    }
    let traced = rows.into_iter().map(|(row, place, parts)| {
        let component = component(dataset, place.component)?;
        let owner = owners.get(place.component).cloned().unwrap_or_default();
        let traced = parts.into_iter().filter_map(|part| {
            let facts = facts.get(&(place.component, part.document))?.clone();
            let document = described(facts, Split::Train, owner.clone(), part.document);
            Some(TracedPart { document, in_row: part.in_row, of_document: part.of_document, bytes: part.bytes })
        });
        let parts = traced.collect();
        Ok(TracedRow { row, component: component.name(), component_row: place.row, parts })
    });
    traced.collect()
}

/// Every place of a dataset where documents with this identifier stand, held-out ones too.
///
/// # Errors
/// Files that cannot be read.
pub fn find(dataset: &Dataset, id: &str) -> Result<Vec<Location>, DataError> {
    let owners = owners(dataset);
    let mut found = Vec::new();
    for (split, components) in [(Split::Train, dataset.train()), (Split::Validation, dataset.validation())] {
        for (at, component) in components.iter().enumerate() {
            let owner = match split {
                Split::Train => owners.get(at).cloned().unwrap_or_default(),
                Split::Validation => dataset.id().to_owned(),
            };
            let mut here = Vec::new();
            component.scan(&mut |number, facts, _, _| {
                if facts.id == id {
                    here.push((number, facts));
                }
                Ok(())
            })?;
            for (number, facts) in here {
                let tokens = component.place_of(number)?;
                let document = described(facts, split, owner.clone(), number);
                found.push(Location { document, component: at, in_component: [tokens.start, tokens.end] });
            }
        }
    }
    Ok(found)
}

/// The rows in `range` of a run that hold parts of a training document.
///
/// # Errors
/// Files that cannot be read.
pub fn sightings(loader: &Loader, location: &Location, range: Range<u64>) -> Result<Vec<Sighting>, DataError> {
    if location.document.split == Split::Validation {
        return Ok(Vec::new());
    }
    let (dataset, seq_len) = (loader.dataset(), loader.seq_len());
    let component = component(dataset, location.component)?;
    let number = location.document.number;
    let mut held: BTreeMap<u64, Vec<Part>> = BTreeMap::new();
    for row in component.rows_of(number, seq_len)? {
        let own = parts(dataset, component, row, seq_len)?.into_iter().filter(|part| part.document == number);
        held.insert(row, own.collect());
    }
    let order = loader.order();
    let hits: Vec<(u64, u64)> = range
        .into_par_iter()
        .filter_map(|row| {
            let place = order.row(row);
            (place.component == location.component && held.contains_key(&place.row)).then_some((row, place.row))
        })
        .collect();
    let seen = hits.into_iter().flat_map(|(row, component_row)| {
        let parts = held.get(&component_row).map(Vec::as_slice).unwrap_or_default();
        parts.iter().map(move |part| Sighting { row, component_row, of_document: part.of_document, bytes: part.bytes })
    });
    Ok(seen.collect())
}

/// The rows in `range` of a run over `order` that held a document before it was taken down; bytes are its share of the
/// tokens, because its text is gone.
pub fn removed_sightings(
    order: &Order,
    component: usize,
    document: &RemovedDocument,
    seq_len: usize,
    range: Range<u64>,
) -> Vec<Sighting> {
    if document.split == Split::Validation {
        return Vec::new();
    }
    let width = seq_len.max(1) as u64;
    let (start, end) = (document.first_token, document.first_token + document.tokens);
    let held = start / width..end.div_ceil(width);
    let seen = range.into_par_iter().filter_map(|row| {
        let place = order.row(row);
        if place.component != component || !held.contains(&place.row) {
            return None;
        }
        let from = start.max(place.row * width) - start;
        let to = end.min((place.row + 1) * width) - start;
        let bytes = u128::from(document.text_bytes) * u128::from(to - from) / u128::from(document.tokens.max(1));
        let bytes = u64::try_from(bytes).unwrap_or(document.text_bytes);
        Some(Sighting { row, component_row: place.row, of_document: [from, to], bytes })
    });
    seen.collect()
}

/// A part of a document in a row of its component.
struct Part {
    document: u64,
    in_row: [u64; 2],
    of_document: [u64; 2],
    bytes: u64,
}

fn parts(dataset: &Dataset, component: &Component, row: u64, seq_len: usize) -> Result<Vec<Part>, DataError> {
    let bytes = |id: &u32| u64::from(dataset.token_bytes().get(*id as usize).copied().unwrap_or(0));
    let part = |part: RowPart| Part {
        document: part.document,
        in_row: [part.in_row.start as u64, part.in_row.end as u64],
        of_document: [part.of_document.start, part.of_document.end],
        bytes: part.ids.iter().map(bytes).sum(),
    };
    Ok(component.parts_of_row(row, seq_len)?.into_iter().map(part).collect())
}

/// The dataset that each training component belongs to.
fn owners(dataset: &Dataset) -> Vec<String> {
    dataset.parts().into_iter().flat_map(|part| std::iter::repeat_n(part.id, part.streams)).collect()
}

fn component(dataset: &Dataset, at: usize) -> Result<&Component, DataError> {
    dataset.train().get(at).ok_or_else(|| DataError::OutOfRange {
        what: "component",
        number: at as u64,
        of: "the dataset".to_owned(),
        available: dataset.train().len() as u64,
    })
}

fn described(facts: DocumentFacts, split: Split, dataset: String, number: u64) -> TracedDocument {
    let DocumentFacts { id, lang, source, licence, url, text_bytes, tokens, .. } = facts;
    TracedDocument { id, split, lang, source, licence, url, dataset, number, tokens, text_bytes }
}
