//! Owns what can be wrong with a dataset on disk and what to do about it; never touches files.

use std::io;
use std::path::{Path, PathBuf};

use crate::tokenizer::TokenizerError;

/// A dataset that cannot be written, read or trusted.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// The disk refused.
    #[error("{}: cannot be {action}; check the path, permissions and free space", .path.display())]
    Io {
        /// File or folder.
        path: PathBuf,
        /// "read", "written", ...
        action: &'static str,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// A folder without a manifest.
    #[error("{}: holds no manifest.json; give the folder that `jazari data prepare` wrote", .dir.display())]
    NotADataset {
        /// The folder.
        dir: PathBuf,
    },
    /// A manifest of another time.
    #[error(
        "{}: has format version {found}, this program reads version {supported}; use the program that wrote it, or prepare \
         the data again", .path.display()
    )]
    Version {
        /// The manifest.
        path: PathBuf,
        /// Its version.
        found: u64,
        /// The version of this program.
        supported: u32,
    },
    /// A manifest that is not what the writer wrote.
    #[error("{}: {reason}; restore the file from a copy, or prepare the data again", .path.display())]
    Manifest {
        /// The manifest.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A file that the manifest names and the folder lacks.
    #[error("{}: is missing; copy it again, or prepare the data again", .path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// A file of another length.
    #[error(
        "{}: has {found} bytes, the manifest says {expected}; it was cut or replaced: copy it again, or prepare the data \
         again", .path.display()
    )]
    Size {
        /// The file.
        path: PathBuf,
        /// Bytes by the manifest.
        expected: u64,
        /// Bytes on disk.
        found: u64,
    },
    /// A file with other content.
    #[error(
        "{}: its BLAKE3 is {found}, the manifest says {expected}; its content changed: copy it again, or prepare the data \
         again", .path.display()
    )]
    Digest {
        /// The file.
        path: PathBuf,
        /// Digest by the manifest.
        expected: String,
        /// Digest of the content.
        found: String,
    },
    /// A file whose content contradicts the manifest.
    #[error("{}: {reason}; its files do not belong together: copy all of them again, or prepare the data again", .path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// The contradiction.
        reason: String,
    },
    /// A dataset of another tokenizer.
    #[error(
        "{}: was made with the tokenizer {found}, this run uses {expected}; prepare the data with the run's tokenizer, or \
         train with the dataset's", .dir.display()
    )]
    WrongTokenizer {
        /// The dataset.
        dir: PathBuf,
        /// SHA-256 of the tokenizer.json asked for.
        expected: String,
        /// SHA-256 of the dataset's.
        found: String,
    },
    /// A dataset of chats or preferences beside one of another kind.
    #[error(
        "{}: is a data set of {found}, {} of {expected}; join data sets of one kind, or train on one after the other",
        .dir.display(), .other.display()
    )]
    OtherKind {
        /// The dataset.
        dir: PathBuf,
        /// What it holds.
        found: &'static str,
        /// The dataset that it should be joined to.
        other: PathBuf,
        /// What that holds.
        expected: &'static str,
    },
    /// A dataset with a larger vocabulary than the model.
    #[error(
        "{}: has token ids up to {}, the model's vocabulary has {model}; set vocab_size to {dataset} or more, or prepare \
         the data with the model's tokenizer", .dir.display(), .dataset - 1
    )]
    Vocabulary {
        /// The dataset.
        dir: PathBuf,
        /// Vocabulary of the dataset's tokenizer.
        dataset: usize,
        /// Vocabulary of the model.
        model: usize,
    },
    /// A token that no vocabulary entry belongs to.
    #[error(
        "{}: token {index} is {id}, outside the vocabulary of {vocab_size}; the file belongs to another tokenizer: prepare \
         the data again", .path.display()
    )]
    TokenOutOfRange {
        /// The shard.
        path: PathBuf,
        /// Which token of it.
        index: u64,
        /// The id.
        id: u32,
        /// Size of the vocabulary.
        vocab_size: usize,
    },
    /// A row or document past the end.
    #[error("{what} {number} was asked for, {of} has {available}; ask for a smaller number")]
    OutOfRange {
        /// "row", "document", "component".
        what: &'static str,
        /// The number asked for, from 0.
        number: u64,
        /// Of what.
        of: String,
        /// How many there are.
        available: u64,
    },
    /// More than one thing is wrong.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Several(Vec<DataError>),
    /// The tokenizer cannot be used.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// A tokenizer without an end.
    #[error(
        "{}: names no end-of-text token; put a tokenizer_config.json with `eos_token` beside it", .tokenizer.display()
    )]
    NoEndOfText {
        /// The tokenizer.json.
        tokenizer: PathBuf,
    },
    /// A document whose length the index cannot hold.
    #[error(
        "document {id} has {tokens} tokens, a shard's index holds at most 2147483647; split it before it is prepared"
    )]
    DocumentTooLong {
        /// Its identifier.
        id: String,
        /// Its length.
        tokens: usize,
    },
    /// A sample that cannot be learned from.
    #[error("sample {id} of {group} (\"{beginning}\"): {problem}")]
    Sample {
        /// Its identifier.
        id: String,
        /// `ary_Arab/chats`.
        group: String,
        /// Its first words.
        beginning: String,
        /// What is wrong with it and what to do.
        problem: Box<crate::chat::SampleError>,
    },
    /// Samples that no row can hold.
    #[error(
        "{}: {count} samples are longer than sequence_len {sequence_len}, the longest has {longest} tokens; write \
         sequence_len: {longest} or more, or `excess_length_strategy: drop` or `truncate` under `chat:`", .dir.display()
    )]
    TooLong {
        /// The data set.
        dir: PathBuf,
        /// How many.
        count: u64,
        /// Tokens of a row.
        sequence_len: usize,
        /// Tokens of the longest.
        longest: u64,
    },
    /// Two groups of documents with one name.
    #[error("{split} documents of {name} come in two groups; hand each language and source over once")]
    RepeatedGroup {
        /// `train` or `validation`.
        split: &'static str,
        /// `ary_Arab/doda-mit`.
        name: String,
    },
    /// The documents could not be read.
    #[error("the documents cannot be read again: {0}")]
    Documents(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The stop flag was raised.
    #[error("stopped before the dataset was complete; run the same command again")]
    Stopped,
}

impl DataError {
    /// Turns an I/O error at `path` into one of these.
    pub(crate) fn io(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, action, source }
    }

    /// Whether the place of an output is at fault, before anything was read or written: no folder, no permission.
    pub fn refuses_output(&self) -> bool {
        use io::ErrorKind::{NotADirectory, NotFound, PermissionDenied, ReadOnlyFilesystem};
        let kinds = [NotADirectory, NotFound, PermissionDenied, ReadOnlyFilesystem];
        matches!(self, Self::Io { action: "created" | "locked", source, .. } if kinds.contains(&source.kind()))
    }

    /// The only error, or all of them; `None` when there is none.
    pub(crate) fn join(mut errors: Vec<Self>) -> Option<Self> {
        match errors.len() {
            0 | 1 => errors.pop(),
            _ => Some(Self::Several(errors)),
        }
    }
}
