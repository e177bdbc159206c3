//! Owns showing what is in a dataset: documents and training rows as ids, pieces and text; never prints.

use std::ops::Range;

use serde::Serialize;

use crate::dataset::{Component, DataError, Dataset, Span};
use crate::loader::Loader;
use crate::manifest::Split;
use crate::shard::sidecar::DocumentFacts;
use crate::tokenizer::Tokenizer;

/// Which documents to show.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// Held-out documents instead of training documents.
    pub validation: bool,
    /// Only this language and script.
    pub lang: Option<String>,
    /// Only this corpus.
    pub source: Option<String>,
    /// The first document of each component.
    pub first: u64,
    /// At most this many documents of each component.
    pub documents: u64,
}

impl Selection {
    fn names(&self, component: &Component) -> bool {
        self.lang.as_ref().is_none_or(|lang| lang == component.lang())
            && self.source.as_ref().is_none_or(|source| source == component.source())
    }
}

/// A document, or the part of one that lies in a row.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct InspectedDocument {
    /// What it is for.
    pub split: Split,
    /// `ary_Arab`.
    pub lang: String,
    /// Corpus.
    pub source: String,
    /// Number in its component.
    pub number: u64,
    /// Its identifier.
    pub id: String,
    /// Its licence.
    pub licence: String,
    /// Where it was published.
    pub url: Option<String>,
    /// UTF-8 bytes of the whole document.
    pub text_bytes: u64,
    /// Tokens of the whole document.
    pub num_tokens: u64,
    /// The tokens shown.
    pub tokens: Vec<u32>,
    /// The vocabulary entry of each token shown.
    pub pieces: Vec<String>,
    /// The text of the tokens shown, special tokens included.
    pub text: String,
    /// Of chats the marks of the tokens shown: bit 0 trained, bit 1 the rejected answer of a preference.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub marks: Vec<u8>,
    /// Of chats the text in pieces of equal marks.
    #[serde(skip)]
    pub runs: Vec<(u8, String)>,
}

/// A row of a training run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct InspectedRow {
    /// Number in the run.
    pub index: u64,
    /// Index into the training components.
    pub component: usize,
    /// Row of the component.
    pub row: u64,
    /// The parts of documents in it. The last token of the last part is only a target; of rows packed by best fit that
    /// of every part.
    pub documents: Vec<InspectedDocument>,
}

/// The first documents of every component that `selection` names.
///
/// # Errors
/// Files that cannot be read, and ids that the tokenizer does not know.
pub fn documents(
    dataset: &Dataset,
    tokenizer: &Tokenizer,
    selection: &Selection,
) -> Result<Vec<InspectedDocument>, DataError> {
    dataset.expect_tokenizer(tokenizer.digest())?;
    let components = if selection.validation { dataset.validation() } else { dataset.train() };
    let mut shown = Vec::new();
    for component in components.iter().filter(|component| selection.names(component)) {
        let end = selection.first.saturating_add(selection.documents).min(component.num_documents());
        for number in selection.first..end {
            let marks = component.marks(number, usize::MAX);
            shown.push(inspect(component, tokenizer, number, (component.document(number)?, marks))?);
        }
    }
    Ok(shown)
}

/// The parts of documents in row `row` of every component that `selection` names and that has such a row.
///
/// # Errors
/// Files that cannot be read, and ids that the tokenizer does not know.
pub fn component_rows(
    dataset: &Dataset,
    tokenizer: &Tokenizer,
    selection: &Selection,
    row: u64,
    seq_len: usize,
) -> Result<Vec<InspectedDocument>, DataError> {
    dataset.expect_tokenizer(tokenizer.digest())?;
    let components = if selection.validation { dataset.validation() } else { dataset.train() };
    let wanted = |component: &&Component| selection.names(component) && row < component.num_rows(seq_len);
    let mut shown = Vec::new();
    for component in components.iter().filter(wanted) {
        shown.extend(row_of(component, tokenizer, row, seq_len)?);
    }
    Ok(shown)
}

fn row_of(
    component: &Component,
    tokenizer: &Tokenizer,
    row: u64,
    seq_len: usize,
) -> Result<Vec<InspectedDocument>, DataError> {
    let window = component.row(row, seq_len)?;
    let part = |span: Span| {
        let tokens = window.ids.get(span.tokens.clone()).unwrap_or_default().to_vec();
        let marks = window.marks.get(span.tokens).unwrap_or_default().to_vec();
        inspect(component, tokenizer, span.document, (tokens, marks))
    };
    window.spans.iter().cloned().map(part).collect()
}

/// Rows `range` of a training run, with the documents in them.
///
/// # Errors
/// Files that cannot be read, and ids that the tokenizer does not know.
pub fn rows(loader: &Loader, tokenizer: &Tokenizer, range: Range<u64>) -> Result<Vec<InspectedRow>, DataError> {
    let dataset = loader.dataset();
    dataset.expect_tokenizer(tokenizer.digest())?;
    let mut shown = Vec::new();
    for index in range {
        let place = loader.order().row(index);
        let component = dataset.train().get(place.component).ok_or_else(|| DataError::OutOfRange {
            what: "component",
            number: place.component as u64,
            of: "the dataset".to_owned(),
            available: dataset.train().len() as u64,
        })?;
        let documents = row_of(component, tokenizer, place.row, loader.seq_len())?;
        shown.push(InspectedRow { index, component: place.component, row: place.row, documents });
    }
    Ok(shown)
}

fn inspect(
    component: &Component,
    tokenizer: &Tokenizer,
    number: u64,
    (tokens, marks): (Vec<u32>, Vec<u8>),
) -> Result<InspectedDocument, DataError> {
    let DocumentFacts { id, lang, source, licence, url, text_bytes, tokens: num_tokens, .. } =
        component.facts(number)?;
    let pieces = tokens.iter().map(|&id| tokenizer.piece(id).unwrap_or_default()).collect();
    let text = tokenizer.decode(&tokens, false)?;
    let mut runs = Vec::new();
    let mut rest = tokens.as_slice();
    for run in marks.chunk_by(|a, b| a == b) {
        let (ids, after) = rest.split_at_checked(run.len()).unwrap_or((rest, &[]));
        runs.push((run.first().copied().unwrap_or(0), tokenizer.decode(ids, false)?));
        rest = after;
    }
    Ok(InspectedDocument {
        split: component.split(),
        lang,
        source,
        number,
        id,
        licence,
        url,
        text_bytes,
        num_tokens,
        tokens,
        pieces,
        text,
        marks,
        runs,
    })
}
