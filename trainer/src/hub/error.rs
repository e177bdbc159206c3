//! Owns what can be wrong with a Hugging Face directory; never touches files.

use std::path::PathBuf;

use model_zoo::{ConfigError, ParamsError, WeightDtype};

use crate::durable::FileError;
use crate::step::StepError;
use crate::tensor_file::TensorFileError;

/// Names listed in one message before the rest is only counted.
const MAX_NAMES_LISTED: usize = 5;

/// A Hugging Face directory that cannot be read, written or trusted.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// The disk refused.
    #[error(transparent)]
    File(#[from] FileError),
    /// `config.json` describes no model that can be built.
    #[error("{}: {source}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: ConfigError,
    },
    /// A JSON file beside the weights is not what it should be.
    #[error("{}: {cause}; copy the file again from where the model came from", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        cause: String,
    },
    /// There are no weights in a format that is read.
    #[error(
        "{}: there is neither model.safetensors nor model.safetensors.index.json; pickled weights (.bin, .pth) are \
         never read: convert them to safetensors with the tool that made them",
        dir.display()
    )]
    NoWeights {
        /// The directory.
        dir: PathBuf,
    },
    /// Two sets of weights, and nothing says which one counts.
    #[error(
        "{}: both model.safetensors and model.safetensors.index.json are there; remove the one that is out of date",
        dir.display()
    )]
    TwoWeights {
        /// The directory.
        dir: PathBuf,
    },
    /// A safetensors file is damaged.
    #[error("{}: {cause}; copy the file again from where the model came from", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        cause: String,
    },
    /// Tensors the model needs are not stored.
    #[error("{}: {} missing: {}; {}", dir.display(), tensors(names.len()), listed(names), missing_advice(names))]
    Missing {
        /// The directory.
        dir: PathBuf,
        /// Their names.
        names: Vec<String>,
    },
    /// Tensors are stored that the model has no place for.
    #[error(
        "{}: {} the model has no place for: {}; check that config.json belongs to these weights",
        path.display(), tensors(names.len()), listed(names)
    )]
    Surplus {
        /// The file that holds the first of them.
        path: PathBuf,
        /// Their names.
        names: Vec<String>,
    },
    /// A stored tensor has another shape than the model needs.
    #[error(
        "{}: tensor {name:?} has shape {found:?}, but config.json makes it {expected:?}; check that config.json \
         belongs to these weights",
        path.display()
    )]
    Shape {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// Stored shape.
        found: Vec<usize>,
        /// Shape the model needs.
        expected: Vec<usize>,
    },
    /// A stored tensor has a number format that is not read.
    #[error("{}: tensor {name:?} is stored as {dtype}; F32, F16 and BF16 are read: convert the weights first", path.display())]
    Dtype {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// Stored number format.
        dtype: String,
    },
    /// A weight is infinite or not a number.
    #[error("{}: tensor {name:?} holds {value} at element {index}; these weights are damaged, take an earlier checkpoint", path.display())]
    NotFinite {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// First such element, row-major.
        index: usize,
        /// The value.
        value: f32,
    },
    /// A tied head is stored beside the embedding and is not its equal.
    #[error(
        "{}: config.json ties the output head to the embedding, but the stored lm_head.weight differs from \
         {embedding} at element {index}; set tie_word_embeddings to false to keep both",
        path.display()
    )]
    UntiedHead {
        /// The file.
        path: PathBuf,
        /// Name of the embedding.
        embedding: String,
        /// First element that differs, row-major.
        index: usize,
    },
    /// The tokenizer cannot be read or does not fit.
    #[error("{}: {cause}", path.display())]
    Tokenizer {
        /// The file.
        path: PathBuf,
        /// What is wrong and what to do.
        cause: String,
    },
    /// The place to write to is taken.
    #[error("{}: already exists; choose another --out or remove it first (an export never overwrites)", path.display())]
    Exists {
        /// The directory.
        path: PathBuf,
    },
    /// A weight does not fit the number format of the export.
    #[error("parameter {name:?} holds {value}, which {} cannot represent; export as bf16 or f32", dtype.hub_name())]
    Overflow {
        /// The parameter.
        name: String,
        /// The value.
        value: f32,
        /// The number format asked for.
        dtype: WeightDtype,
    },
    /// The model has something that a layout cannot say.
    #[error("{what}")]
    Layout {
        /// What, and what to do.
        what: String,
    },
    /// The reopened export is not the model that was written.
    #[error(
        "the reopened export differs from the trained model: {what}; nothing was put into place, please report it with the run directory"
    )]
    Differs {
        /// Where and by how much.
        what: String,
    },
    /// Parameters could not be read from or made on the device.
    #[error(transparent)]
    Params(#[from] ParamsError),
    /// A batch of tokens does not fit the model.
    #[error(transparent)]
    Step(#[from] StepError),
}

impl From<TensorFileError> for HubError {
    fn from(error: TensorFileError) -> Self {
        match error {
            TensorFileError::File(error) => Self::File(error),
            TensorFileError::Damaged { path, cause } => Self::Damaged { path, cause },
            TensorFileError::Missing { path, name } => Self::Missing { dir: path, names: vec![name] },
            TensorFileError::Dtype { path, name, dtype } => Self::Dtype { path, name, dtype },
        }
    }
}

fn tensors(count: usize) -> String {
    if count == 1 { "1 tensor".into() } else { format!("{count} tensors") }
}

fn listed(names: &[String]) -> String {
    let mut text = names.iter().take(MAX_NAMES_LISTED).map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ");
    if let Some(rest) = names.len().checked_sub(MAX_NAMES_LISTED).filter(|rest| *rest > 0) {
        text.push_str(&format!(" and {rest} more"));
    }
    text
}

fn missing_advice(names: &[String]) -> &'static str {
    match names {
        [only] if only == "lm_head.weight" => {
            "if the head is the embedding, set tie_word_embeddings to true in config.json"
        }
        _ => "check that all weight files are there and that config.json belongs to them",
    }
}
