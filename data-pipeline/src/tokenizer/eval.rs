//! Owns measuring a tokenizer on documents: tokens a word, bytes a token, exact round trips; never changes either.

use std::collections::BTreeMap;

use serde::Serialize;

use super::words::DocumentEncoder;
use super::{Tokenizer, TokenizerError};
use crate::document::Document;

/// Identifiers of failing documents that a report keeps for each language.
const MAX_EXAMPLES: usize = 3;

/// How a tokenizer does on the documents of one language and script.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct LanguageEvaluation {
    /// Documents.
    pub documents: u64,
    /// Words, divided by white space.
    pub words: u64,
    /// UTF-8 bytes.
    pub bytes: u64,
    /// Tokens, without BOS and EOS.
    pub tokens: u64,
    /// Tokens that stand for text the vocabulary cannot spell.
    pub unknown: u64,
    /// Documents whose decoded tokens are not the text.
    pub failed_round_trips: u64,
    /// Identifiers of the first of them.
    pub examples: Vec<String>,
}

impl LanguageEvaluation {
    /// Tokens a word.
    pub fn fertility(&self) -> f64 {
        self.tokens as f64 / self.words.max(1) as f64
    }

    /// UTF-8 bytes a token.
    pub fn bytes_per_token(&self) -> f64 {
        self.bytes as f64 / self.tokens.max(1) as f64
    }

    fn add(&mut self, other: &Self) {
        self.documents += other.documents;
        self.words += other.words;
        self.bytes += other.bytes;
        self.tokens += other.tokens;
        self.unknown += other.unknown;
        self.failed_round_trips += other.failed_round_trips;
        self.examples.extend(other.examples.iter().cloned());
        self.examples.truncate(MAX_EXAMPLES);
    }
}

/// A measurement in progress.
pub struct Evaluation<'a> {
    tokenizer: &'a Tokenizer,
    encoder: DocumentEncoder<'a>,
    ids: Vec<u32>,
    languages: BTreeMap<String, LanguageEvaluation>,
}

impl<'a> Evaluation<'a> {
    /// Begins with no documents.
    pub fn new(tokenizer: &'a Tokenizer) -> Self {
        let encoder = tokenizer.document_encoder();
        Self { tokenizer, encoder, ids: Vec::new(), languages: BTreeMap::new() }
    }

    /// Measures one document.
    ///
    /// # Errors
    /// When the tokenizer fails on it.
    pub fn add(&mut self, document: &Document) -> Result<(), TokenizerError> {
        self.ids.clear();
        self.encoder.encode(&document.text, &mut self.ids)?;
        let exact = self.tokenizer.decode(&self.ids, false)? == document.text;
        let unknown = self.tokenizer.unknown();
        let language = self.languages.entry(document.lang.clone()).or_default();
        language.add(&LanguageEvaluation {
            documents: 1,
            words: document.text.split_whitespace().count() as u64,
            bytes: document.text.len() as u64,
            tokens: self.ids.len() as u64,
            unknown: self.ids.iter().filter(|&&id| Some(id) == unknown).count() as u64,
            failed_round_trips: u64::from(!exact),
            examples: if exact { Vec::new() } else { vec![document.id.clone()] },
        });
        Ok(())
    }

    /// The figures by language and script, sorted by name.
    pub fn finish(self) -> BTreeMap<String, LanguageEvaluation> {
        self.languages
    }
}

/// Measures `tokenizer` on all `documents`.
///
/// # Errors
/// When the tokenizer fails on a document.
pub fn evaluate(
    tokenizer: &Tokenizer,
    documents: impl IntoIterator<Item = Document>,
) -> Result<BTreeMap<String, LanguageEvaluation>, TokenizerError> {
    let mut evaluation = Evaluation::new(tokenizer);
    for document in documents {
        evaluation.add(&document)?;
    }
    Ok(evaluation.finish())
}
