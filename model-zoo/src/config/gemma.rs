//! Owns what Gemma 2 and Gemma 3 are made of; never touches tensors or JSON.

use serde::{Deserialize, Serialize};

use super::rules::positive;
use super::{ConfigError, DecoderConfig, LayerWindows, RopeConfig};

/// Gemma 2: windows in every other layer, bounded scores and logits, norms before and after both halves of a block
/// (Gemma Team 2024, arXiv:2408.00118).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gemma2Config {
    /// What it shares with a Llama.
    pub decoder: DecoderConfig,
    /// Layers with a window.
    pub windows: LayerWindows,
    /// Scores are divided by the root of this.
    pub query_pre_attn_scalar: f64,
    /// Bound of the scores.
    pub attn_logit_softcapping: Option<f64>,
    /// Bound of the logits.
    pub final_logit_softcapping: Option<f64>,
}

/// Gemma 3, text only: several layers with windows for one without, each kind with its own rotary base, and normalised
/// heads of queries and keys (Gemma Team 2025, arXiv:2503.19786).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gemma3Config {
    /// What it shares with a Llama; the rotary positions are those of layers without a window.
    pub decoder: DecoderConfig,
    /// Layers with a window.
    pub windows: LayerWindows,
    /// Rotary positions of layers with a window.
    pub local_rope: RopeConfig,
    /// Scores are divided by the root of this.
    pub query_pre_attn_scalar: f64,
    /// Bound of the logits.
    pub final_logit_softcapping: Option<f64>,
}

impl Gemma2Config {
    /// Checks every rule that a Gemma 2 must keep.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] names the first rule that is broken.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.decoder.validate()?;
        self.windows.validate(self.decoder.num_hidden_layers)?;
        positive("query_pre_attn_scalar", self.query_pre_attn_scalar)?;
        self.attn_logit_softcapping.map_or(Ok(()), |bound| positive("attn_logit_softcapping", bound))?;
        self.final_logit_softcapping.map_or(Ok(()), |bound| positive("final_logit_softcapping", bound))
    }
}

impl Gemma3Config {
    /// Checks every rule that a Gemma 3 must keep.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] names the first rule that is broken.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.decoder.validate()?;
        self.windows.validate(self.decoder.num_hidden_layers)?;
        self.local_rope.validate("rope_local_base_freq")?;
        positive("query_pre_attn_scalar", self.query_pre_attn_scalar)?;
        self.final_logit_softcapping.map_or(Ok(()), |bound| positive("final_logit_softcapping", bound))
    }
}
