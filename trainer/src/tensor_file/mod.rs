//! Owns safetensors files: reading and writing tensors as bytes; never touches what the tensors are for.
//!
//! Format: <https://huggingface.co/docs/safetensors>: u64 header length, JSON header, data. Checkpoints, exports and
//! reference bundles are all read and written here, one tensor in memory at a time.

mod read;
mod write;

use std::path::PathBuf;

pub use read::{MAX_HEADER_BYTES, TensorFile};
pub use write::{Entry, FileEntry, describe, write};

use crate::durable::FileError;

/// A safetensors file that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum TensorFileError {
    /// The disk refused.
    #[error(transparent)]
    File(#[from] FileError),
    /// The file is damaged.
    #[error("{}: {cause}; copy the file again from where it came from", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        cause: String,
    },
    /// A tensor is not there.
    #[error("{}: tensor {name:?} is missing; check that this is the file that was meant", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
    },
    /// A tensor has another number format than its reader expects.
    #[error("{}: tensor {name:?} is stored as {dtype}, which is not read here", path.display())]
    Dtype {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// Stored number format.
        dtype: String,
    },
}
