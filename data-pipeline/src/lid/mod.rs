//! Owns which language and script a text is in: script gate, sentence model, code-switch spans; never touches files
//! but to open a model.
//!
//! A text is cut into sentences, each sentence into runs of one script (by code point, [`script`]), each run is judged
//! by the model of its script ([`model`]): a linear model over hashed character n-grams and marker words. Runs add up
//! to the document. A [`Identifier`] holds either the model that is embedded in the library or one read from a file:
//! our own format, or a fastText model ([`fasttext`]).

mod cache;
mod config;
pub mod confusion;
mod error;
pub mod evaluation;
pub mod fasttext;
pub mod file;
pub mod judge;
pub mod lexicon;
pub mod model;
mod roles;
pub mod script;
pub mod stage;
mod switch;
mod tally;
pub mod train;
pub mod words;

use std::path::Path;
use std::sync::LazyLock;

pub use config::{Decision, IdentifyConfig, OnConflict};
pub use error::LidError;

/// What [`Identifier::identify`] says of a text.
#[derive(Debug, Clone, PartialEq)]
pub struct Identification {
    /// `ary_Arab`, `fra_Latn`, ...; a macro label (`ber_Latn`, `ber_Tfng`) when the text is Tamazight and its variety
    /// is not certain; `und` for letters of no known language, `zxx` for text without language (numbers, code).
    pub label: String,
    /// The most probable single label, also where `label` is a macro label or `und`; the same as `label` when sure.
    pub guess: String,
    /// ISO 15924 script of most letters: `Arab`, `Latn`, `Tfng`, ..., `Zyyy` when there are no letters.
    pub script: &'static str,
    /// Calibrated probability of `label`, 0 to 1.
    pub score: f32,
    /// Probability of the guess minus that of the next label of the same script, 0 to 1.
    pub margin: f32,
    /// Whether score and margin pass the thresholds; `false` is the "unsure" class.
    pub sure: bool,
    /// Stretches of one label, in order, not overlapping; one for a text in one language. Characters between spans
    /// (digits, punctuation) belong to neither.
    pub spans: Vec<Span>,
}

/// A stretch of one label.
#[derive(Debug, Clone, PartialEq)]
pub struct Span {
    /// First byte of the text that belongs to the span.
    pub start: usize,
    /// One past the last byte.
    pub end: usize,
    /// Label of the stretch.
    pub label: String,
    /// Letters of the span over all letters of the text, 0 to 1.
    pub share: f32,
}

impl Identification {
    /// Labels other than [`Self::label`] with at least `min_share` of the letters, largest first.
    pub fn with(&self, min_share: f32) -> Vec<(String, f32)> {
        let mut shares: Vec<(String, f32)> = Vec::new();
        for span in self.spans.iter().filter(|span| span.label != self.label && span.label != self.guess) {
            match shares.iter_mut().find(|(label, _)| *label == span.label) {
                Some((_, share)) => *share += span.share,
                None => shares.push((span.label.clone(), span.share)),
            }
        }
        shares.retain(|(label, share)| *share >= min_share && label != "und" && label != "zxx");
        shares.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        shares
    }

    /// The label with what is mixed into it: `ary_Latn with fra_Latn`.
    pub fn description(&self) -> String {
        let with = self.with(0.1);
        let others: Vec<&str> = with.iter().map(|(label, _)| label.as_str()).collect();
        if others.is_empty() { self.label.clone() } else { format!("{} with {}", self.label, others.join(", ")) }
    }

    /// The label as documents carry it, always language and script: `und_Latn`, `zxx_Zyyy`.
    pub fn document_label(&self) -> String {
        if self.label.contains('_') { self.label.clone() } else { format!("{}_{}", self.label, self.script) }
    }
}

/// The model that is part of the library: `scripts/lid-model.sh` makes it from the corpora.
static EMBEDDED: &[u8] = include_bytes!("model.jzlid");

/// Digest of the model that is part of the library.
pub(crate) fn embedded_digest() -> String {
    blake3::hash(EMBEDDED).to_hex().to_string()
}

/// Largest model file that is read, in bytes.
const MAX_MODEL_BYTES: u64 = 4 << 30;

/// A model that identifies languages; shared between threads.
#[derive(Debug)]
pub struct Identifier {
    engine: Engine,
}

#[derive(Debug)]
enum Engine {
    Own(Box<judge::Judge>),
    FastText(Box<fasttext::FastText>),
}

impl From<judge::Judge> for Identifier {
    fn from(judge: judge::Judge) -> Self {
        Identifier { engine: Engine::Own(Box::new(judge)) }
    }
}

impl Identifier {
    /// The model that is part of the library. Built once for a process.
    pub fn embedded() -> &'static Identifier {
        static BUILT: LazyLock<Identifier> = LazyLock::new(|| match file::read(EMBEDDED) {
            Some(Ok(loaded)) => judge::Judge::new(loaded.lexicon, loaded.models).into(),
            // A test reads the embedded bytes; without models every answer is `und`.
            _ => judge::Judge::new(lexicon::Lexicon::default(), Vec::new()).into(),
        });
        &BUILT
    }

    /// A model from a file: one written by the trainer of this module, or a fastText `.bin` or `.ftz`.
    ///
    /// # Errors
    /// The file cannot be read, is neither, or is damaged.
    pub fn open(path: &Path) -> Result<Identifier, LidError> {
        let read = |source| LidError::Read { path: path.to_owned(), source };
        let size = std::fs::metadata(path).map_err(read)?.len();
        if size > MAX_MODEL_BYTES {
            let what = format!("{size} bytes are more than the {MAX_MODEL_BYTES} that a model may have");
            return Err(LidError::Damaged { path: path.to_owned(), at: 0, what });
        }
        let bytes = std::fs::read(path).map_err(read)?;
        let damaged = |(at, what)| LidError::Damaged { path: path.to_owned(), at, what };
        if let Some(loaded) = file::read(&bytes) {
            let loaded = loaded.map_err(damaged)?;
            return Ok(judge::Judge::new(loaded.lexicon, loaded.models).into());
        }
        match fasttext::FastText::read(bytes) {
            Some(model) => Ok(Identifier { engine: Engine::FastText(Box::new(model.map_err(damaged)?)) }),
            None => Err(LidError::NotAModel { path: path.to_owned() }),
        }
    }

    /// Labels that an answer may have, macro labels aside.
    pub fn labels(&self) -> Vec<&str> {
        match &self.engine {
            Engine::Own(judge) => judge.labels(),
            Engine::FastText(model) => model.names().iter().map(String::as_str).collect(),
        }
    }

    /// The language of `text`. Never fails; time is linear in the length of the text.
    pub fn identify(&self, text: &str) -> Identification {
        match &self.engine {
            Engine::Own(judge) => judge.identify(text),
            Engine::FastText(model) => model.identify(text),
        }
    }
}
