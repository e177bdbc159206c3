//! Owns GGUF files, the one-file format of llama.cpp: writing them from Hugging Face tensors, reading them strictly,
//! and proving that a written file is the model it was made from; never touches training state.
//!
//! Format: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>. Suggested reading order: `types`, `write`,
//! `read`, `quantise`, `mix`, `names`, `metadata`, `tokenizer`, `model`, `export`, `verify`.

mod error;
mod export;
mod k_quants;
mod metadata;
mod mix;
mod model;
mod names;
mod pre_tokenizer;
mod quantise;
mod read;
mod tokenizer;
mod types;
mod verify;
mod write;

pub use error::GgufError;
pub use export::{GgufOptions, GgufReport, GgufSource, export};
pub use metadata::Settings;
pub use mix::Quantization;
pub use model::{OpenedModel, open_model};
pub use names::{Change, Family, Part, PlannedTensor, plan};
pub(crate) use pre_tokenizer::SAMPLE as SAMPLE_TEXTS;
pub use quantise::{dequantise, quantise};
pub use read::{GgufFile, TensorPlace};
pub use types::{TensorType, Value};
pub use verify::verify;
pub use write::{Entry, write};
