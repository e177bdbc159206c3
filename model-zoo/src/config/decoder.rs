//! Owns the sizes that most families share, and their rules; never touches what one family alone has.

use serde::{Deserialize, Serialize};

use super::rules::{MAX_HEADS, MAX_LAYERS, MAX_POSITIONS, MAX_VOCAB_SIZE, MAX_WIDTH, bounded, invalid, positive};
use super::{ConfigError, Facts, RopeConfig};

/// What decoders with RMSNorm, rotary positions, grouped-query attention and a gated feed-forward block have in
/// common; the whole of a Llama. Fields carry their Hugging Face names.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DecoderConfig {
    /// Rows of the embedding.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width inside the feed-forward block.
    pub intermediate_size: usize,
    /// Number of blocks.
    pub num_hidden_layers: usize,
    /// Number of query heads.
    pub num_attention_heads: usize,
    /// Number of key and value heads; divides `num_attention_heads`.
    pub num_key_value_heads: usize,
    /// Elements of one head; even. Need not be `hidden_size / num_attention_heads`.
    pub head_dim: usize,
    /// Longest context the model is made for, tokens.
    pub max_position_embeddings: usize,
    /// Added to the mean square inside RMSNorm.
    pub rms_norm_eps: f64,
    /// Rotary positions.
    pub rope: RopeConfig,
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

impl DecoderConfig {
    /// What every family has.
    pub(super) fn facts(&self, name: &'static str) -> Facts<'_> {
        Facts {
            name,
            vocab_size: self.vocab_size,
            hidden_size: self.hidden_size,
            num_layers: self.num_hidden_layers,
            max_positions: self.max_position_embeddings,
            tied_head: self.tie_word_embeddings,
            bos: self.bos_token_id,
            eos: &self.eos_token_ids,
            pad: self.pad_token_id,
        }
    }

    /// Checks every rule that such a model must keep.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] names the first rule that is broken.
    pub fn validate(&self) -> Result<(), ConfigError> {
        bounded("vocab_size", self.vocab_size, MAX_VOCAB_SIZE)?;
        bounded("hidden_size", self.hidden_size, MAX_WIDTH)?;
        bounded("intermediate_size", self.intermediate_size, MAX_WIDTH)?;
        bounded("num_hidden_layers", self.num_hidden_layers, MAX_LAYERS)?;
        bounded("num_attention_heads", self.num_attention_heads, MAX_HEADS)?;
        bounded("num_key_value_heads", self.num_key_value_heads, MAX_HEADS)?;
        bounded("head_dim", self.head_dim, MAX_WIDTH)?;
        bounded("num_attention_heads * head_dim", self.num_attention_heads * self.head_dim, MAX_WIDTH)?;
        bounded("max_position_embeddings", self.max_position_embeddings, MAX_POSITIONS)?;
        if !self.num_attention_heads.is_multiple_of(self.num_key_value_heads) {
            return invalid(format!(
                "num_attention_heads ({}) is not a multiple of num_key_value_heads ({})",
                self.num_attention_heads, self.num_key_value_heads
            ));
        }
        if !self.head_dim.is_multiple_of(2) {
            return invalid(format!("head_dim ({}) is odd, but rotary positions turn pairs", self.head_dim));
        }
        positive("rms_norm_eps", self.rms_norm_eps)?;
        positive("initializer_range", self.initializer_range)?;
        self.rope.validate("rope_theta")?;
        let specials = self.bos_token_id.iter().chain(&self.eos_token_ids).chain(&self.pad_token_id);
        for id in specials {
            if *id as usize >= self.vocab_size {
                return invalid(format!("special token id {id} is not below vocab_size ({})", self.vocab_size));
            }
        }
        Ok(())
    }
}

/// Llama 2, 3 and look-alikes: a decoder with SwiGLU and without biases.
pub type LlamaConfig = DecoderConfig;

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use crate::config::{
        Gemma2Config, Gemma3Config, LayerType, LayerWindows, MistralConfig, ModelConfig, Qwen2Config, Qwen3Config,
        RopeScaling,
    };

    /// A model small enough for unit tests, with every size different.
    pub(crate) fn tiny() -> LlamaConfig {
        LlamaConfig {
            vocab_size: 37,
            hidden_size: 24,
            intermediate_size: 40,
            num_hidden_layers: 3,
            num_attention_heads: 4,
            num_key_value_heads: 2,
            head_dim: 8,
            max_position_embeddings: 64,
            rms_norm_eps: 1e-5,
            rope: RopeConfig { theta: 10_000.0, scaling: RopeScaling::None },
            tie_word_embeddings: false,
            initializer_range: 0.02,
            bos_token_id: Some(1),
            eos_token_ids: vec![2, 3],
            pad_token_id: None,
        }
    }

    /// The tiny model as one of every family, the head tied or not.
    pub(crate) fn families(tied: bool) -> Vec<ModelConfig> {
        let decoder = DecoderConfig { tie_word_embeddings: tied, ..tiny() };
        let kinds = [LayerType::SlidingAttention, LayerType::SlidingAttention, LayerType::FullAttention];
        let windows = LayerWindows { sliding_window: 8, layer_types: kinds.to_vec() };
        vec![
            ModelConfig::Llama(decoder.clone()),
            ModelConfig::Mistral(MistralConfig { decoder: decoder.clone(), sliding_window: Some(8) }),
            ModelConfig::Qwen2(Qwen2Config { decoder: decoder.clone(), windows: Some(windows.clone()) }),
            ModelConfig::Qwen3(Qwen3Config { decoder: decoder.clone(), windows: None }),
            ModelConfig::Gemma2(Gemma2Config {
                decoder: decoder.clone(),
                windows: windows.clone(),
                query_pre_attn_scalar: 12.0,
                attn_logit_softcapping: Some(50.0),
                final_logit_softcapping: Some(30.0),
            }),
            ModelConfig::Gemma3(Gemma3Config {
                local_rope: decoder.rope,
                decoder,
                windows,
                query_pre_attn_scalar: 8.0,
                final_logit_softcapping: None,
            }),
        ]
    }

    fn refused(change: impl FnOnce(&mut LlamaConfig), part: &str) {
        let mut config = tiny();
        change(&mut config);
        let message = config.validate().unwrap_err().to_string();
        assert!(message.contains(part), "{message:?} does not contain {part:?}");
    }

    #[test]
    fn a_sound_configuration_passes() {
        assert_eq!(tiny().validate(), Ok(()));
    }

    #[test]
    fn impossible_configurations_are_refused() {
        refused(|c| c.vocab_size = 0, "vocab_size is 0");
        refused(|c| c.num_hidden_layers = 1_000_000, "num_hidden_layers is 1000000, outside 1..=4096");
        refused(|c| c.num_key_value_heads = 3, "not a multiple of num_key_value_heads (3)");
        refused(|c| c.head_dim = 7, "head_dim (7) is odd");
        refused(|c| c.head_dim = 1 << 18, "num_attention_heads * head_dim is 1048576");
        refused(|c| c.rms_norm_eps = 0.0, "rms_norm_eps is 0");
        refused(|c| c.rope.theta = f64::NAN, "rope_theta is NaN");
        refused(|c| c.eos_token_ids = vec![37], "special token id 37 is not below vocab_size (37)");
        let scaling = RopeScaling::Llama3 {
            factor: 8.0,
            low_freq_factor: 4.0,
            high_freq_factor: 4.0,
            original_max_position_embeddings: 64,
        };
        refused(|c| c.rope.scaling = scaling, "low_freq_factor (4) is not below high_freq_factor (4)");
        refused(|c| c.rope.scaling = RopeScaling::Linear { factor: 0.0 }, "rope_scaling.factor is 0");
    }

    #[test]
    fn every_family_keeps_its_rules() {
        for mut config in families(true) {
            assert_eq!(config.validate(), Ok(()));
            let message = match &mut config {
                ModelConfig::Llama(_) | ModelConfig::Qwen3(_) | ModelConfig::Mixtral(_) | ModelConfig::Gpt2(_) => {
                    continue;
                }
                ModelConfig::Mistral(config) => {
                    config.sliding_window = Some(0);
                    "sliding_window is 0"
                }
                ModelConfig::Qwen2(config) => {
                    config.windows.as_mut().unwrap().layer_types.pop();
                    "layer_types has 2 entries for num_hidden_layers = 3"
                }
                ModelConfig::Gemma2(config) => {
                    config.attn_logit_softcapping = Some(0.0);
                    "attn_logit_softcapping is 0"
                }
                ModelConfig::Gemma3(config) => {
                    config.local_rope.theta = -1.0;
                    "rope_local_base_freq is -1"
                }
            };
            assert!(config.validate().unwrap_err().to_string().contains(message), "{message}");
        }
    }
}
