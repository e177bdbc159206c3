//! Owns checkpoints: what is saved, how it is committed, verified, chosen and kept; never touches the training loop.
//!
//! The promise: kill the process at any moment, inside a save too, and the newest valid checkpoint resumes to the same
//! bits. The protocol is in [`store`], the files in [`crate::tensor_file`], their description in
//! [`manifest`].

pub mod digest;
pub mod manifest;
pub mod read;
pub mod store;

use std::collections::BTreeMap;
use std::path::PathBuf;

use model_zoo::Params;

use crate::cluster::ClusterError;
use crate::durable::FileError;
use crate::guard::Guard;
use crate::optim::Optimizer;
use crate::outer::held::Held;
use crate::seen::Seen;
use crate::tensor_file::TensorFileError;

pub use manifest::{DatasetChange, Identity, Manifest};
pub use store::{CheckpointStore, Loaded};

/// Everything that must survive a restart, and nothing else. The data order is a function of the step.
pub struct TrainState {
    /// Steps done, skipped ones included.
    pub step: u64,
    /// Target tokens of applied steps.
    pub tokens: u64,
    /// The parameters.
    pub params: Params,
    /// The optimizer's moments and counter.
    pub optimizer: Optimizer,
    /// The guard's windows.
    pub guard: Guard,
    /// First and last loss, for the expectations of the config.
    pub losses: LossSpan,
    /// What was trained on, by language and source.
    pub seen: Seen,
    /// Data sets that took another's place, the first first.
    pub dataset_changes: Vec<DatasetChange>,
    /// What a site of an outer run holds; only in the process that leads.
    pub outer: Option<Held>,
}

/// Where a run began and where it is: first and last training loss, nats a token, and the first evaluation.
#[derive(Debug, Clone, PartialEq, Default, serde::Serialize, serde::Deserialize)]
pub struct LossSpan {
    /// Loss of the first step.
    pub first: Option<f64>,
    /// Loss of the last applied step.
    pub last: Option<f64>,
    /// Validation bits per byte of every language at the first evaluation.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub first_val_bpb: BTreeMap<String, f64>,
}

/// What can go wrong with a checkpoint.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// Disk trouble.
    #[error(transparent)]
    File(#[from] FileError),
    /// The checkpoint is damaged.
    #[error("{}: {what}", path.display())]
    Damaged {
        /// The file or folder.
        path: PathBuf,
        /// What was found, and what was expected.
        what: String,
    },
    /// The checkpoint belongs to another run.
    #[error("{}: {what}", path.display())]
    Mismatch {
        /// The checkpoint.
        path: PathBuf,
        /// Both values and what to do.
        what: String,
    },
    /// A process that keeps a part of the state was lost during a save.
    #[error(transparent)]
    Peer(#[from] ClusterError),
    /// Too little free space for a save.
    #[error(
        "{}: a checkpoint needs {needed_bytes} bytes and {free_bytes} are free; \
         free some space, raise save_steps or lower save_total_limit",
        path.display()
    )]
    NoSpace {
        /// The folder.
        path: PathBuf,
        /// Bytes the save needs.
        needed_bytes: u64,
        /// Bytes there are.
        free_bytes: u64,
    },
}

impl From<TensorFileError> for CheckpointError {
    fn from(error: TensorFileError) -> Self {
        match error {
            TensorFileError::File(error) => Self::File(error),
            TensorFileError::Damaged { path, cause } => Self::Damaged { path, what: cause },
            TensorFileError::Missing { path, name } => {
                Self::Damaged { path, what: format!("tensor `{name}` is missing") }
            }
            TensorFileError::Dtype { path, name, dtype } => {
                Self::Damaged { path, what: format!("tensor `{name}` is stored as {dtype}, checkpoints hold F32") }
            }
        }
    }
}
