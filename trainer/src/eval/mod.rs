//! Owns the evaluation of a finished model: bits per byte of texts, multiple choice by log-likelihood, samples; never
//! touches training. Suggested reading order: `subject` (the model), `task` (questions), `score` (log-likelihoods),
//! `choice` (accuracies), `text` (bits per byte), `results`.

pub mod choice;
pub mod results;
pub mod sample;
pub mod score;
pub mod subject;
pub mod task;
pub mod text;

use std::path::PathBuf;

use data_pipeline::dataset::DataError;
use data_pipeline::order::OrderError;
use data_pipeline::prepare::PrepareError;
use data_pipeline::records::RecordError;
use data_pipeline::tokenizer::TokenizerError;
use data_pipeline::tokenizer::chat::ChatError;
use model_zoo::generate::GenerateError;

use crate::adapter::AdapterFileError;
use crate::checkpoint::CheckpointError;
use crate::durable::FileError;
use crate::hub::HubError;
use crate::step::StepError;

/// Why an evaluation cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum EvalError {
    /// The path is no model.
    #[error(
        "{}: neither a run directory, a checkpoint nor a model in the layout of Hugging Face or Mistral; check the path",
        path.display()
    )]
    NoModel {
        /// What was named.
        path: PathBuf,
    },
    /// Training starts from the other layout.
    #[error(
        "{p}: training does not start from Mistral's own layout; convert it first: jazari export {p} --to hf --out DIR",
        p = path.display()
    )]
    MistralBase {
        /// The directory.
        path: PathBuf,
    },
    /// A model without the tokenizer it was trained with.
    #[error("{}: there is no tokenizer.json here; name the tokenizer's folder with --tokenizer", path.display())]
    NoTokenizer {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// A checkpoint is damaged.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A Hugging Face directory cannot be read.
    #[error(transparent)]
    Hub(#[from] HubError),
    /// An adapter cannot be read or does not fit its base.
    #[error(transparent)]
    Adapter(#[from] AdapterFileError),
    /// The tokenizer fails.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The chat template cannot be read.
    #[error(transparent)]
    Chat(#[from] ChatError),
    /// A data set cannot be read.
    #[error(transparent)]
    Data(#[from] DataError),
    /// Rows of a data set cannot be cut.
    #[error(transparent)]
    Order(#[from] OrderError),
    /// Raw text cannot be read.
    #[error(transparent)]
    Text(#[from] PrepareError),
    /// A table of questions cannot be read.
    #[error(transparent)]
    Records(#[from] RecordError),
    /// Disk trouble.
    #[error(transparent)]
    File(#[from] FileError),
    /// Ids do not fit the model.
    #[error(transparent)]
    Step(#[from] StepError),
    /// A sample cannot be made.
    #[error(transparent)]
    Generate(#[from] GenerateError),
    /// A task file is wrong.
    #[error("{}: {what}", path.display())]
    Task {
        /// The task file.
        path: PathBuf,
        /// What is wrong, and what to write.
        what: String,
    },
    /// A question of a task cannot be asked.
    #[error("{task}: question {number}: {what}")]
    Question {
        /// The task.
        task: String,
        /// Which of its questions, from 1.
        number: usize,
        /// What is wrong, and what to do.
        what: String,
    },
    /// The device would not hand values back.
    #[error("log-likelihoods could not be read from the device: {cause}; the device may have failed, start again")]
    Read {
        /// What the backend said.
        cause: String,
    },
    /// The model computes something that is not a number.
    #[error("the model's log-likelihoods are not finite; its weights are damaged, or overflow")]
    NotFinite,
    /// A signal asked for a stop.
    #[error("stopped; nothing was written")]
    Stopped,
}

/// How far an evaluation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Tokens that went through the model.
    pub done: u64,
    /// Of so many.
    pub total: u64,
}

/// What long work is given: whether to stop, and whom to tell how far it is.
pub struct Watch<'a> {
    /// Set by signals.
    pub stop: &'a crate::signals::StopFlag,
    /// Told after every batch.
    pub progress: &'a dyn Fn(Progress),
}

impl Watch<'_> {
    /// Tells the progress.
    ///
    /// # Errors
    /// [`EvalError::Stopped`] once a stop was asked for.
    pub fn at(&self, done: u64, total: u64) -> Result<(), EvalError> {
        (self.progress)(Progress { done, total });
        if self.stop.is_set() { Err(EvalError::Stopped) } else { Ok(()) }
    }
}
