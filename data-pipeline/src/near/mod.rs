//! Owns finding texts that repeat others: whole documents, paragraphs, near duplicates; never reads a corpus itself, its
//! only files are anonymous scratch files that hold what does not fit in memory.
//!
//! All three work alike. A pure function makes keys of a text and is called from many threads; what it returns is added
//! in document order; `finish` sorts on disk and says which documents or paragraphs go. The outcome depends on the texts
//! and their order, not on threads or on the memory allowed.
//!
//! Suggested reading order: [`words`], [`signature`], [`cluster`], [`paragraphs`], [`exact`], `sort`.

pub mod cluster;
pub mod exact;
pub(crate) mod hash;
pub mod paragraphs;
pub mod rows;
pub mod signature;
pub(crate) mod sort;
mod table;
pub mod words;

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use cluster::{Cluster, Clusterer, Clusters};
pub use exact::SpillingKeys;
pub use paragraphs::{ParagraphConfig, ParagraphKey, Paragraphs, RepeatFinder, Repeats};
pub use signature::{Signature, Signer, SignerBuffers};

/// Most documents of one run: they are numbered in 32 bits.
pub const MAX_DOCUMENTS: u64 = u32::MAX as u64;

/// Near-duplicate detection: MinHash with locality-sensitive hashing, then the exact Jaccard similarity of the candidates.
///
/// Two texts are near duplicates when the sets of their shingles have a Jaccard similarity of at least `threshold`.
/// Shingles are `ngram` words in a row; of texts below `short_words` words, `short_chars` characters in a row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct NearConfig {
    /// Words of a shingle.
    pub ngram: usize,
    /// Texts of fewer words are compared by characters. A text of up to a quarter more is compared both ways, so that no
    /// pair is lost at the border.
    pub short_words: usize,
    /// Characters of a shingle of a short text.
    pub short_chars: usize,
    /// Bands of the signature. A pair becomes a candidate when one band agrees: with similarity s this happens with
    /// probability 1 - (1 - s^rows)^bands, 0.998 at 0.8 for 20 bands of 6 rows.
    pub bands: usize,
    /// Rows (hash functions) of a band.
    pub rows: usize,
    /// Least Jaccard similarity of near duplicates, above 0 and at most 1.
    pub threshold: f64,
    /// Compare candidates by their exact similarity. Without it every candidate counts as a near duplicate, as in tools
    /// that only hash; the threshold is then unused.
    pub verify: bool,
    /// Which document of a cluster stays.
    pub keep: Keep,
    /// Read every number as 0, so that texts which differ in numbers alone are duplicates.
    pub fold_numbers: bool,
    /// Compare texts of one language only (whatever their script). Otherwise a text is a duplicate of the same text
    /// under another label.
    pub per_language: bool,
    /// Seed of the hash functions.
    pub seed: u64,
    /// Memory for sorting in MiB; what goes beyond is sorted on disk. Beside it 4 bytes a document are held, 12 with
    /// `keep: longest`.
    pub memory_mib: usize,
}

/// Which document of a cluster stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Keep {
    /// The first one read.
    #[default]
    First,
    /// The one with the most bytes, the first of several.
    Longest,
}

impl Default for NearConfig {
    fn default() -> Self {
        NearConfig {
            ngram: 5,
            short_words: 32,
            short_chars: 5,
            bands: 20,
            rows: 6,
            threshold: 0.8,
            verify: true,
            keep: Keep::First,
            fold_numbers: false,
            per_language: false,
            seed: 1,
            memory_mib: DEFAULT_MEMORY_MIB,
        }
    }
}

/// Default of `memory_mib` of every part: 256 MiB hold the band keys of about 0.8 M documents.
pub const DEFAULT_MEMORY_MIB: usize = 256;
/// Most hash functions (`bands` x `rows`).
pub const MAX_HASHES: usize = 4096;
/// Longest shingle, in words or characters.
pub const MAX_NGRAM: usize = 64;

impl NearConfig {
    /// Checks the values; `key` is where they stand (`near`).
    ///
    /// # Errors
    /// Adds a line to `problems` for each value that cannot be used.
    pub fn check(&self, key: &str, problems: &mut Vec<String>) {
        let mut range = |name: &str, value: usize, max: usize| {
            if value == 0 || value > max {
                problems.push(format!("{key}.{name}: is {value}; write a number from 1 to {max}"));
            }
        };
        range("ngram", self.ngram, MAX_NGRAM);
        range("short_chars", self.short_chars, MAX_NGRAM);
        range("bands", self.bands, MAX_HASHES);
        range("rows", self.rows, MAX_HASHES);
        range("memory_mib", self.memory_mib, 1 << 20);
        if self.bands.saturating_mul(self.rows) > MAX_HASHES {
            let product = self.bands.saturating_mul(self.rows);
            problems.push(format!(
                "{key}.bands: {} bands of {} rows are {product} hash functions; write fewer, up to {MAX_HASHES} in all (20 \
                 bands of 6 rows are usual)",
                self.bands, self.rows
            ));
        }
        if self.short_words > 1 << 16 {
            problems.push(format!("{key}.short_words: is {}; write a number up to 65536", self.short_words));
        }
        if !(self.threshold > 0.0 && self.threshold <= 1.0) {
            problems.push(format!("{key}.threshold: is {}; write a number above 0 and up to 1", self.threshold));
        }
    }

    /// Probability that a pair of similarity `similarity` becomes a candidate.
    pub fn candidate_probability(&self, similarity: f64) -> f64 {
        let power = |base: f64, times: usize| std::iter::repeat_n(base, times).product::<f64>();
        1.0 - power(1.0 - power(similarity, self.rows), self.bands)
    }
}

/// A search for duplicates that failed.
#[derive(Debug, thiserror::Error)]
pub enum DedupError {
    /// A scratch file refuses.
    #[error("{}: a scratch file cannot be {action}; free space there, or name another folder", .folder.display())]
    Scratch {
        /// The folder of the scratch files.
        folder: PathBuf,
        /// "created", "written", "read".
        action: &'static str,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
    /// Too many documents for 32 bits.
    #[error("more than {MAX_DOCUMENTS} documents; prepare them as several data sets")]
    TooMany,
    /// The stop flag was raised.
    #[error("stopped while looking for duplicates")]
    Stopped,
}

impl DedupError {
    pub(crate) fn scratch(folder: &Path, action: &'static str) -> impl FnOnce(std::io::Error) -> DedupError {
        let folder = folder.to_owned();
        move |source| DedupError::Scratch { folder, action, source }
    }
}
