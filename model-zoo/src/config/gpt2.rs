//! Owns what a GPT-2 is made of; never touches tensors or JSON.

use serde::{Deserialize, Serialize};

use super::rules::{MAX_HEADS, MAX_LAYERS, MAX_VOCAB_SIZE, MAX_WIDTH, bounded, invalid, positive};
use super::{ConfigError, Facts};

/// Largest table of positions. Unlike those of rotary positions it takes memory.
const MAX_TABLE: usize = 1 << 20;

/// GPT-2: learned positions, LayerNorm, GELU, biases (Radford et al. 2019). Fields carry their Hugging Face names.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gpt2Config {
    /// Rows of the embedding.
    pub vocab_size: usize,
    /// Rows of the table of positions: no context can be longer.
    pub n_positions: usize,
    /// Width of the residual stream.
    pub n_embd: usize,
    /// Number of blocks.
    pub n_layer: usize,
    /// Number of heads; divides `n_embd`.
    pub n_head: usize,
    /// Width inside the feed-forward block.
    pub n_inner: usize,
    /// Added to the variance inside LayerNorm.
    pub layer_norm_epsilon: f64,
    /// Whether scores are divided by the root of the width of a head.
    pub scale_attn_weights: bool,
    /// Whether scores of block `i` are divided by `i + 1` too.
    pub scale_attn_by_inverse_layer_idx: bool,
    /// Whether the output head is the embedding.
    pub tie_word_embeddings: bool,
    /// Standard deviation of initial weights.
    pub initializer_range: f64,
    /// Id that begins a document.
    pub bos_token_id: Option<u32>,
    /// Ids that end a document or a turn; the first one ends documents.
    pub eos_token_ids: Vec<u32>,
    /// Id that fills unused places.
    pub pad_token_id: Option<u32>,
}

impl Gpt2Config {
    /// What every family has.
    pub(super) fn facts(&self) -> Facts<'_> {
        Facts {
            name: "GPT-2",
            vocab_size: self.vocab_size,
            hidden_size: self.n_embd,
            num_layers: self.n_layer,
            max_positions: self.n_positions,
            tied_head: self.tie_word_embeddings,
            bos: self.bos_token_id,
            eos: &self.eos_token_ids,
            pad: self.pad_token_id,
        }
    }

    /// Factor of the scores of block `layer`.
    #[must_use]
    pub fn attention_scale(&self, layer: usize) -> f64 {
        let head_dim = (self.n_embd / self.n_head.max(1)) as f64;
        let by_width = if self.scale_attn_weights { 1.0 / head_dim.sqrt() } else { 1.0 };
        if self.scale_attn_by_inverse_layer_idx { by_width / (layer + 1) as f64 } else { by_width }
    }

    /// Checks every rule that a GPT-2 must keep.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] names the first rule that is broken.
    pub fn validate(&self) -> Result<(), ConfigError> {
        bounded("vocab_size", self.vocab_size, MAX_VOCAB_SIZE)?;
        bounded("n_positions", self.n_positions, MAX_TABLE)?;
        bounded("n_embd", self.n_embd, MAX_WIDTH)?;
        bounded("n_layer", self.n_layer, MAX_LAYERS)?;
        bounded("n_head", self.n_head, MAX_HEADS)?;
        bounded("n_inner", self.n_inner, 4 * MAX_WIDTH)?;
        if !self.n_embd.is_multiple_of(self.n_head) {
            return invalid(format!("n_embd ({}) is not a multiple of n_head ({})", self.n_embd, self.n_head));
        }
        positive("layer_norm_epsilon", self.layer_norm_epsilon)?;
        positive("initializer_range", self.initializer_range)?;
        let mut specials = self.bos_token_id.iter().chain(&self.eos_token_ids).chain(&self.pad_token_id);
        match specials.find(|id| **id as usize >= self.vocab_size) {
            Some(id) => invalid(format!("special token id {id} is not below vocab_size ({})", self.vocab_size)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    /// A model small enough for unit tests.
    pub(crate) fn tiny() -> Gpt2Config {
        Gpt2Config {
            vocab_size: 37,
            n_positions: 20,
            n_embd: 24,
            n_layer: 3,
            n_head: 4,
            n_inner: 96,
            layer_norm_epsilon: 1e-5,
            scale_attn_weights: true,
            scale_attn_by_inverse_layer_idx: false,
            tie_word_embeddings: true,
            initializer_range: 0.02,
            bos_token_id: Some(1),
            eos_token_ids: vec![1],
            pad_token_id: None,
        }
    }

    fn refused(change: impl FnOnce(&mut Gpt2Config), part: &str) {
        let mut config = tiny();
        change(&mut config);
        let message = config.validate().unwrap_err().to_string();
        assert!(message.contains(part), "{message:?} does not contain {part:?}");
    }

    #[test]
    fn impossible_configurations_are_refused() {
        assert_eq!(tiny().validate(), Ok(()));
        refused(|c| c.n_positions = 1 << 26, "n_positions is 67108864, outside 1..=1048576");
        refused(|c| c.n_head = 5, "n_embd (24) is not a multiple of n_head (5)");
        refused(|c| c.n_head = 0, "n_head is 0");
        refused(|c| c.layer_norm_epsilon = f64::NAN, "layer_norm_epsilon is NaN");
        refused(|c| c.pad_token_id = Some(37), "special token id 37 is not below vocab_size (37)");
    }

    #[test]
    fn scores_are_scaled_as_asked() {
        let scale = |weights, by_layer| {
            Gpt2Config { scale_attn_weights: weights, scale_attn_by_inverse_layer_idx: by_layer, n_head: 6, ..tiny() }
                .attention_scale(2)
        };
        assert_eq!([scale(true, false), scale(false, false)], [0.5, 1.0]);
        assert_eq!([scale(true, true), scale(false, true)], [0.5 / 3.0, 1.0 / 3.0]);
    }
}
