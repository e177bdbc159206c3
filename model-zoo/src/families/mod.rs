//! Owns the closed set of families; never touches passes over whole models.

mod decoder;
mod gemma2;
mod gemma3;
mod gpt2;
mod llama;
mod mistral;
mod mixtral;
mod qwen2;
mod qwen3;

use std::sync::Arc;

use crate::config::ModelConfig;
use crate::family::Family;

/// The family of a valid configuration.
pub(crate) fn build(config: ModelConfig) -> Arc<dyn Family> {
    match config {
        ModelConfig::Llama(config) => Arc::new(llama::Llama::new(config)),
        ModelConfig::Mistral(config) => Arc::new(mistral::Mistral::new(config)),
        ModelConfig::Qwen2(config) => Arc::new(qwen2::Qwen2::new(config)),
        ModelConfig::Qwen3(config) => Arc::new(qwen3::Qwen3::new(config)),
        ModelConfig::Gemma2(config) => Arc::new(gemma2::Gemma2::new(config)),
        ModelConfig::Gemma3(config) => Arc::new(gemma3::Gemma3::new(config)),
        ModelConfig::Mixtral(config) => Arc::new(mixtral::Mixtral::new(config)),
        ModelConfig::Gpt2(config) => Arc::new(gpt2::Gpt2::new(config)),
    }
}
