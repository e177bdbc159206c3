//! Owns what the document stages do to one text, in their order; never counts over documents or reads files after it was
//! opened.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::error::PrepareError;
use crate::config::PrepareConfig;
use crate::document::{DOCUMENT_ID_BYTES, Notes};
use crate::normalize::Normalize;

/// The stages that a configuration asks for, opened once and shared by all threads.
pub(crate) struct Curation {
    on: bool,
}

/// What the stages did to one text and found out about it.
#[derive(Default)]
pub(crate) struct Applied {
    /// How often each rule fired, by stage and name.
    pub counts: BTreeMap<String, u64>,
    /// The label that the text ends with, when that is another than the given one.
    pub label: Option<String>,
    /// Lines about parts of benchmarks in the text.
    pub hits: Vec<u8>,
    notes: Notes,
}

impl Applied {
    /// Brings a text into its normal form.
    pub fn normalize<'t>(&mut self, normalize: Normalize, text: &'t str, given: Option<&str>) -> Cow<'t, str> {
        _ = given;
        normalize.apply(text)
    }

    /// What is kept of this beside the text.
    pub fn into_notes(self) -> Notes {
        Notes { history: self.counts, ..self.notes }
    }
}

impl Curation {
    /// Opens models, word lists and benchmarks.
    ///
    /// # Errors
    /// One that cannot be read.
    pub fn open(config: &PrepareConfig) -> Result<Curation, PrepareError> {
        _ = config;
        Ok(Curation { on: false })
    }

    /// Whether there is any stage.
    pub fn is_on(&self) -> bool {
        self.on
    }

    /// Whether rows without a language get one.
    pub fn identifies(&self) -> bool {
        false
    }

    /// Takes a text in its normal form through the stages.
    ///
    /// # Errors
    /// The reason to drop it.
    pub fn apply<'t>(
        &self,
        text: Cow<'t, str>,
        given: Option<&str>,
        (id, source): (&[u8; DOCUMENT_ID_BYTES], &str),
        applied: &mut Applied,
    ) -> Result<Cow<'t, str>, Cow<'static, str>> {
        _ = (given, id, source, applied);
        Ok(text)
    }
}
