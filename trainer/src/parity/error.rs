//! Owns why a bundle cannot be compared; never touches the comparison.

use std::path::PathBuf;

use data_pipeline::tokenizer::TokenizerError;
use data_pipeline::tokenizer::chat::ChatError;
use model_zoo::ParamsError;
use model_zoo::generate::GenerateError;

use crate::adapter::AdapterFileError;
use crate::durable::FileError;
use crate::hub::HubError;
use crate::step::StepError;
use crate::tensor_file::TensorFileError;

/// A bundle that cannot be compared.
#[derive(Debug, thiserror::Error)]
pub enum ParityError {
    /// The directory is laid out in another way.
    #[error("{}: not a reference bundle: {cause}; a bundle has hf/ and expected/manifest.json", dir.display())]
    NotABundle {
        /// The directory.
        dir: PathBuf,
        /// What is missing.
        cause: String,
    },
    /// The adapter of a bundle cannot be read or does not fit its base.
    #[error(transparent)]
    Adapter(#[from] AdapterFileError),
    /// A file of reference results is damaged.
    #[error("{}: {cause}; make the bundle again", path.display())]
    Reference {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        cause: String,
    },
    /// A file cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// The checkpoint cannot be read.
    #[error(transparent)]
    Hub(#[from] HubError),
    /// A file of tensors cannot be read.
    #[error(transparent)]
    Tensors(#[from] TensorFileError),
    /// A batch does not fit the model.
    #[error(transparent)]
    Step(#[from] StepError),
    /// Parameters cannot be read from the device.
    #[error(transparent)]
    Params(#[from] ParamsError),
    /// A text cannot be generated.
    #[error(transparent)]
    Generate(#[from] GenerateError),
    /// A text cannot be encoded or decoded.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The chat template cannot be opened.
    #[error(transparent)]
    Chat(#[from] ChatError),
    /// Results cannot be read from the device.
    #[error("results could not be read from the device: {cause}; the device may have failed, start again")]
    Read {
        /// What the backend said.
        cause: String,
    },
}
