//! Owns what can go wrong with a tokenizer and what to do about it; never touches text.

use std::io;
use std::path::PathBuf;

/// A tokenizer that cannot be read, used or trained.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// The disk refused.
    #[error("{}: cannot be {action}; check the path, permissions and free space", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// "read", "written".
        action: &'static str,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// A file larger than any known tokenizer.
    #[error(
        "{}: {bytes} bytes are more than the {limit} a tokenizer file may have; check that it is a tokenizer.json",
        .path.display()
    )]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size in bytes.
        bytes: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// A file that is not what its name says.
    #[error("{}: is no tokenizer ({reason}); name a tokenizer.json as Hugging Face tokenizers write it", .path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What the parser met.
        reason: String,
    },
    /// A kind of tokenizer whose text cannot be recovered from its tokens.
    #[error("{}: {what}; use a byte-level or SentencePiece BPE or Unigram tokenizer", .path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// What is not supported.
        what: String,
    },
    /// A tokenizer that cannot get further tokens.
    #[error(
        "{}: only byte-level BPE that cuts text into words can be extended (GPT-2, Llama 3, Qwen, and what is trained \
         here); continue this model with the vocabulary it has, or choose another base",
        .path.display()
    )]
    NotExtensible {
        /// The file.
        path: PathBuf,
    },
    /// A special token that is not in the vocabulary.
    #[error("{}: {role} is `{token}`, which is not in the vocabulary; correct it, or add the token", .path.display())]
    UnknownSpecial {
        /// The file that names the token.
        path: PathBuf,
        /// `bos_token`, `eos_token` or `pad_token`.
        role: &'static str,
        /// The token as written.
        token: String,
    },
    /// The tokenizer library failed on a text.
    #[error("the tokenizer cannot {action} this text: {reason}; check the tokenizer with `jazari tokenizer eval`")]
    Failed {
        /// "encode", "decode".
        action: &'static str,
        /// The library's reason.
        reason: String,
    },
    /// An id past the end of the vocabulary.
    #[error("token id {id} is outside the tokenizer's vocabulary of {vocab_size}; the ids come from another tokenizer")]
    UnknownId {
        /// The id.
        id: u32,
        /// Size of the vocabulary.
        vocab_size: usize,
    },
    /// A training setting out of its range.
    #[error("{key}: {value} is not {rule}")]
    Setting {
        /// Name of the setting.
        key: &'static str,
        /// What was given.
        value: String,
        /// What it must be and what to write.
        rule: String,
    },
    /// Nothing to learn from.
    #[error(
        "the tokenizer has no text to learn from; add sources, or give `tokenizer.path` instead of `tokenizer.train`"
    )]
    NoText,
    /// Bounds that the tokenizer does not keep.
    #[error(
        "{} of the tokenizer's gates failed; train on more text of these languages, with a lower `temperature` or a larger \
         `vocab_size`, or change `tokenizer.gates`\n{verdict}", .verdict.failures()
    )]
    Gates {
        /// All that were checked.
        verdict: Box<super::gates::Verdict>,
    },
    /// The stop flag was raised.
    #[error("tokenizer training was stopped; run the same command again")]
    Stopped,
}

impl TokenizerError {
    /// Turns an I/O error at `path` into one of these.
    pub(crate) fn io(path: &std::path::Path, action: &'static str) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, action, source }
    }
}
