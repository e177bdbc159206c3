//! Owns what a Mistral is made of; never touches tensors or JSON.

use serde::{Deserialize, Serialize};

use super::rules::{MAX_POSITIONS, bounded};
use super::{ConfigError, DecoderConfig};

/// Mistral 7B and its successors: a Llama whose tokens may see a window of earlier ones only (A. Q. Jiang et al. 2023,
/// arXiv:2310.06825).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MistralConfig {
    /// What it shares with a Llama.
    pub decoder: DecoderConfig,
    /// Most tokens that a token sees, itself included; `None` = all earlier ones (since version 0.2).
    pub sliding_window: Option<usize>,
}

impl MistralConfig {
    /// Checks every rule that a Mistral must keep.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] names the first rule that is broken.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.decoder.validate()?;
        self.sliding_window.map_or(Ok(()), |window| bounded("sliding_window", window, MAX_POSITIONS))
    }
}
