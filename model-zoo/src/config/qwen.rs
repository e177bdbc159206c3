//! Owns what Qwen2 and Qwen3 are made of; never touches tensors or JSON.

use serde::{Deserialize, Serialize};

use super::{ConfigError, DecoderConfig, LayerWindows};

/// Qwen2 and Qwen2.5: a Llama with biases on queries, keys and values (A. Yang et al. 2024, arXiv:2407.10671).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Qwen2Config {
    /// What it shares with a Llama.
    pub decoder: DecoderConfig,
    /// Layers with a window; `None` = no layer has one, as in all published models.
    pub windows: Option<LayerWindows>,
}

/// Qwen3, dense: a Llama that normalises every head of queries and keys (A. Yang et al. 2025, arXiv:2505.09388).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Qwen3Config {
    /// What it shares with a Llama.
    pub decoder: DecoderConfig,
    /// Layers with a window; `None` = no layer has one, as in all published models.
    pub windows: Option<LayerWindows>,
}

impl Qwen2Config {
    /// Checks every rule that a Qwen2 must keep.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] names the first rule that is broken.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.decoder.validate()?;
        self.windows.as_ref().map_or(Ok(()), |windows| windows.validate(self.decoder.num_hidden_layers))
    }
}

impl Qwen3Config {
    /// Checks every rule that a Qwen3 must keep.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] names the first rule that is broken.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.decoder.validate()?;
        self.windows.as_ref().map_or(Ok(()), |windows| windows.validate(self.decoder.num_hidden_layers))
    }
}
