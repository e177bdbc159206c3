//! Owns Hugging Face directories: import, export, and checking what was exported; never touches training state.
//!
//! Suggested reading order: `weights` (all tensors of a directory), `import`, `writer`, `tokenizer_files`, `export`,
//! `verify`.

mod chat_format;
mod error;
mod export;
mod generation_config;
mod import;
pub(crate) mod probe;
pub(crate) mod publish;
pub(crate) mod tokenizer_files;
mod verify;
pub mod weights;
pub(crate) mod writer;

pub use chat_format::{CHAT_FORMAT_FILE, ChatFormat};
pub use error::HubError;
pub use export::{ExportOptions, ExportProgress, ExportReport, export};
pub use generation_config::GenerationConfig;
pub use import::{Imported, OpenedWeights, import, read_config};
pub use probe::LogitDistance;
pub(crate) use probe::{TEXTS as PROBE_TEXTS, logits as probe_logits};
pub(crate) use verify::recorded as verify_recorded;
pub use verify::{Check, VerifyReport, verify};
pub use weights::weights_digest;
pub(crate) use writer::{round, write_tensors};

pub(crate) use data_pipeline::tokenizer::MAX_TOKENIZER_BYTES;
pub(crate) use data_pipeline::tokenizer::chat::CHAT_TEMPLATE_FILE;
pub(crate) use data_pipeline::tokenizer::files::{
    CONFIG_FILE as TOKENIZER_CONFIG_FILE, SPECIAL_TOKENS_FILE, TOKENIZER_FILE,
};

/// Names that Hugging Face libraries look for.
pub(crate) const CONFIG_FILE: &str = "config.json";
pub(crate) const GENERATION_CONFIG_FILE: &str = "generation_config.json";
pub(crate) const WEIGHTS_FILE: &str = "model.safetensors";
pub(crate) const INDEX_FILE: &str = "model.safetensors.index.json";
/// The output head, absent when it is the embedding.
pub(crate) const HEAD_NAME: &str = "lm_head.weight";

/// Largest configuration file that is read, bytes.
pub(crate) const JSON_LIMIT_BYTES: u64 = 4 << 20;
