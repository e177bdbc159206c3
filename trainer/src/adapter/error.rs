//! Owns what can be wrong with an adapter; never touches files.

use std::path::PathBuf;

use model_zoo::{AdapterError, ParamsError};

use crate::durable::FileError;
use crate::hub::HubError;
use crate::tensor_file::TensorFileError;

/// An adapter that cannot be made, read, written or trusted.
#[derive(Debug, thiserror::Error)]
pub enum AdapterFileError {
    /// A setting means nothing in this model.
    #[error("`{key}`: {what}")]
    Settings {
        /// The key.
        key: &'static str,
        /// What is wrong, and what there is.
        what: String,
    },
    /// The adapter does not fit its base.
    #[error(transparent)]
    Fit(#[from] AdapterError),
    /// The disk refused.
    #[error(transparent)]
    File(#[from] FileError),
    /// The directory of the adapter is not one, or holds what is not supported.
    #[error("{}: {cause}", path.display())]
    Directory {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong and what to do.
        cause: String,
    },
    /// Its tensors cannot be read.
    #[error(transparent)]
    Tensors(#[from] TensorFileError),
    /// Its base cannot be read.
    #[error(transparent)]
    Hub(#[from] HubError),
    /// Parameters could not be read from or made on the device.
    #[error(transparent)]
    Params(#[from] ParamsError),
    /// The base is not the one that the adapter was trained on.
    #[error(
        "{}: this is not the model that the adapter was trained on (weights {found}, expected {expected}); \
         name the right one",
        path.display()
    )]
    OtherBase {
        /// The directory of the base.
        path: PathBuf,
        /// Digest of its weights.
        found: String,
        /// Digest of the weights that training started from.
        expected: String,
    },
    /// A base that is only an adapter.
    #[error(
        "{}: this run trained an adapter, which is no model by itself; write it merged with `jazari export RUN --out DIR` \
         and name that, or go on from the adapter with `lora_model_dir`",
        path.display()
    )]
    NotWhole {
        /// The checkpoint.
        path: PathBuf,
    },
    /// The number format of the base is not computed on the device.
    #[error(
        "`adapter: qlora` computes on a CPU only, and the device is {device}; write `adapter: lora` with `base_dtype: bf16`, or `device: cpu`"
    )]
    Device {
        /// The device.
        device: String,
    },
    /// The merged or written adapter is another model.
    #[error("{what}; nothing was put into place, please report it with the run directory")]
    Differs {
        /// Where and by how much.
        what: String,
    },
}
