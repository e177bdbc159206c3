//! Owns what can go wrong with a model of languages; never touches files.

use std::path::PathBuf;

/// Why a model cannot be used or trained.
#[derive(Debug, thiserror::Error)]
pub enum LidError {
    /// The file cannot be opened or read.
    #[error("{}: cannot read the model of languages: {source}; check the path in `identify.model`", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// Neither a model of ours nor one of fastText.
    #[error(
        "{}: not a model of languages (neither a Jazari model nor a fastText .bin or .ftz); \
         train one with `jazari data identify --train`",
        .path.display()
    )]
    NotAModel {
        /// The file.
        path: PathBuf,
    },
    /// A model whose bytes contradict each other.
    #[error("{}: damaged model of languages at byte {at}: {what}; fetch or train it again", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Offset of the field that is wrong.
        at: u64,
        /// What is wrong with it.
        what: String,
    },
    /// Nothing to learn from.
    #[error("{what}; give corpora with the fields text, lang, script and source")]
    Training {
        /// What is missing.
        what: String,
    },
    /// A key of the configuration.
    #[error("identify.{key}: {what}")]
    Config {
        /// The key below `identify`.
        key: &'static str,
        /// What is wrong and what to write.
        what: String,
    },
}
