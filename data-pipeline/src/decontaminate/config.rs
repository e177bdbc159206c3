//! Owns what a user may ask of decontamination; never touches files.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Removal of documents that hold benchmark items.
///
/// A document is hit by an item when `ngram` words in a row (`short_ngram` in languages of short texts, or all words of a
/// shorter item) are the same on both sides, in the key form. An item of fewer than `short_ngram` words hits only a
/// document, line or sentence that is the item and nothing else.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DecontaminateConfig {
    /// Folder of the benchmarks: JSONL, JSON, CSV, TSV, Parquet or text (an item a line), also `.gz` and `.zst`. Every
    /// text field of a record counts.
    #[schemars(example = &"benchmarks")]
    pub against: PathBuf,
    /// Words in a row that hit, in languages of long texts.
    #[serde(default = "default_ngram")]
    pub ngram: usize,
    /// Words in a row that hit, in `short_languages` and in texts without a label.
    #[serde(default = "default_short_ngram")]
    pub short_ngram: usize,
    /// Languages (ISO 639-3) whose texts are mostly short.
    #[serde(default = "default_short_languages")]
    pub short_languages: Vec<String>,
    /// Items of fewer words are not looked for: they are phrases that everybody writes.
    #[serde(default = "default_min_words")]
    pub min_words: usize,
    /// Share of an item's n-grams in the document from which a hit drops it; below, it is reported only.
    #[serde(default = "default_coverage")]
    pub coverage: f64,
    /// What a hit does to its document.
    #[serde(default)]
    pub on_hit: OnHit,
    /// Benchmarks that must be in the folder, by the name of a file or folder (`flores`, `sib200`, `belebele`,
    /// `darijabench`), compared without case and signs. Where one is missing the run stops, so that an empty folder does
    /// not pass for clean data.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub require: Vec<String>,
}

/// What a hit does to its document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnHit {
    /// It is dropped, when the hit covers enough of the item.
    #[default]
    Drop,
    /// It stays; hits are only listed.
    Report,
}

fn default_ngram() -> usize {
    13
}

fn default_short_ngram() -> usize {
    8
}

fn default_short_languages() -> Vec<String> {
    ["ary", "arq", "aeb", "mey", "zgh", "tzm", "shi", "rif", "kab", "taq"].map(str::to_owned).to_vec()
}

fn default_min_words() -> usize {
    3
}

fn default_coverage() -> f64 {
    0.5
}

/// Longest n-gram.
const MAX_NGRAM: usize = 256;

impl DecontaminateConfig {
    /// Every setting at its default.
    pub fn against(folder: impl Into<PathBuf>) -> DecontaminateConfig {
        DecontaminateConfig {
            against: folder.into(),
            ngram: default_ngram(),
            short_ngram: default_short_ngram(),
            short_languages: default_short_languages(),
            min_words: default_min_words(),
            coverage: default_coverage(),
            on_hit: OnHit::Drop,
            require: Vec::new(),
        }
    }

    /// Checks the values; `key` is where they stand (`decontaminate`).
    ///
    /// # Errors
    /// Adds a line to `problems` for each value that cannot be used.
    pub fn check(&self, key: &str, problems: &mut Vec<String>) {
        if self.short_ngram < 2 || self.short_ngram > self.ngram || self.ngram > MAX_NGRAM {
            let (short, long) = (self.short_ngram, self.ngram);
            problems.push(format!(
                "{key}.short_ngram: is {short}, and `ngram` is {long}; write 2 <= short_ngram <= ngram <= {MAX_NGRAM}"
            ));
        }
        if self.min_words == 0 {
            problems.push(format!("{key}.min_words: is 0; write 1 or more"));
        }
        if !(0.0..=1.0).contains(&self.coverage) {
            problems.push(format!("{key}.coverage: is {}; write a share from 0 to 1", self.coverage));
        }
        if self.against.as_os_str().is_empty() {
            problems.push(format!("{key}.against: is empty; write the folder of the benchmarks"));
        }
    }

    /// Words in a row that hit in a document with this label.
    pub(crate) fn words_needed(&self, label: &str) -> usize {
        let language = label.split(['_', '-']).next().unwrap_or(label);
        let short = language.is_empty() || language == "und" || self.short_languages.iter().any(|l| l == language);
        if short { self.short_ngram } else { self.ngram }
    }
}
