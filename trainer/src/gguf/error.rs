//! Owns what can be wrong with a GGUF file or with making one; never touches files.

use std::path::PathBuf;

use model_zoo::{ConfigError, ParamsError};

use crate::durable::FileError;
use crate::hub::HubError;

/// A GGUF file that cannot be read, written or trusted.
#[derive(Debug, thiserror::Error)]
pub enum GgufError {
    /// The disk refused.
    #[error(transparent)]
    File(#[from] FileError),
    /// The model to be exported, or the reopened one, cannot be read.
    #[error(transparent)]
    Hub(#[from] HubError),
    /// Parameters could not be read from or made on the device.
    #[error(transparent)]
    Params(#[from] ParamsError),
    /// The file is not GGUF or is damaged.
    #[error("{}: {cause}; copy the file again from where it came from, or export it again", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong and where.
        cause: String,
    },
    /// The file is sound but holds something that is not read here.
    #[error("{}: {cause}", path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// What is not supported and what to do.
        cause: String,
    },
    /// The settings in the file describe no model that can be built.
    #[error("{}: its settings describe no model: {source}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: Box<ConfigError>,
    },
    /// The model has something that GGUF, or llama.cpp, has no place for.
    #[error("this model cannot be written as GGUF: {cause}")]
    Model {
        /// What and what to do.
        cause: String,
    },
    /// The tokenizer has something that GGUF, or llama.cpp, has no place for.
    #[error("{}: this tokenizer cannot be written as GGUF: {cause}", path.display())]
    Tokenizer {
        /// The tokenizer.json.
        path: PathBuf,
        /// What and what to do.
        cause: String,
    },
    /// A weight does not fit the number format.
    #[error("tensor {name:?} holds {value} at element {index}, which {kind} cannot represent; choose f32 or bf16")]
    Overflow {
        /// The tensor.
        name: String,
        /// The value.
        value: f32,
        /// Its place, row-major.
        index: usize,
        /// The number format.
        kind: &'static str,
    },
    /// The reopened file is not the model that was written.
    #[error("the reopened GGUF file differs from the model: {what}; nothing was put into place, please report it")]
    Differs {
        /// Where and by how much.
        what: String,
    },
}
