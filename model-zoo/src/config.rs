//! Owns what a model is made of and which combinations are possible; never touches tensors, devices or JSON.

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Ceilings against hostile or mistyped configurations, far above any published model. They keep every size and
/// element count inside 64 bits.
const MAX_VOCAB_SIZE: usize = 1 << 24;
const MAX_WIDTH: usize = 1 << 18;
const MAX_LAYERS: usize = 1 << 12;
const MAX_HEADS: usize = 1 << 14;
const MAX_POSITIONS: usize = 1 << 26;

/// A configuration that cannot be read or built.
#[derive(Debug, Error, PartialEq)]
pub enum ConfigError {
    /// The text is not a JSON object.
    #[error("not a JSON object: {cause}; copy config.json again from where the model came from")]
    Json {
        /// What the parser said.
        cause: String,
    },
    /// A required key is absent.
    #[error("key {key:?} is missing; a {family} configuration needs it")]
    Missing {
        /// Key.
        key: String,
        /// Model family.
        family: &'static str,
    },
    /// A key holds another kind of value.
    #[error("key {key:?} holds {found}, but {expected} was expected; correct the value")]
    Type {
        /// Key.
        key: String,
        /// What may stand there.
        expected: &'static str,
        /// What stands there.
        found: String,
    },
    /// A value that exists elsewhere but not here.
    #[error("key {key:?} is {found}, which is not supported; supported: {supported}")]
    Unsupported {
        /// Key.
        key: String,
        /// What stands there.
        found: String,
        /// What may stand there.
        supported: String,
    },
    /// Two keys that say the same thing say it differently.
    #[error("keys {first:?} and {second:?} disagree ({first_value} and {second_value}); make them equal or remove one")]
    Conflict {
        /// One key.
        first: String,
        /// Its value.
        first_value: String,
        /// The other key.
        second: String,
        /// Its value.
        second_value: String,
    },
    /// A value or combination that no model can have.
    #[error("{what}; correct the configuration")]
    Invalid {
        /// What is wrong.
        what: String,
    },
}

/// Number format of stored weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WeightDtype {
    /// IEEE single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// Brain floating point: 8 exponent bits, 7 fraction bits.
    Bf16,
}

impl WeightDtype {
    /// The name Hugging Face configurations use, such as `bfloat16`.
    #[must_use]
    pub fn hub_name(self) -> &'static str {
        match self {
            Self::F32 => "float32",
            Self::F16 => "float16",
            Self::Bf16 => "bfloat16",
        }
    }

    /// Bytes of one element.
    #[must_use]
    pub fn num_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }
}

/// How rotary frequencies are stretched beyond the context of pre-training.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "rope_type", rename_all = "snake_case", deny_unknown_fields)]
pub enum RopeScaling {
    /// Not at all.
    #[serde(rename = "default")]
    None,
    /// Llama 3.1's blend of scaled and unscaled frequencies.
    Llama3 {
        /// Divisor of low frequencies.
        factor: f64,
        /// Wavelengths above `original / low_freq_factor` are scaled fully.
        low_freq_factor: f64,
        /// Wavelengths below `original / high_freq_factor` are not scaled.
        high_freq_factor: f64,
        /// Context length before scaling, tokens.
        original_max_position_embeddings: usize,
    },
}

/// Rotary position embedding.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RopeConfig {
    /// Base of the geometric series of frequencies.
    pub theta: f64,
    /// Scaling of the frequencies.
    pub scaling: RopeScaling,
}

/// Llama 2, 3 and look-alikes: RMSNorm, rotary positions, grouped-query attention, SwiGLU, no biases.
/// Fields carry their Hugging Face names.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LlamaConfig {
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

impl LlamaConfig {
    /// Checks every rule that a Llama model must keep.
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
        self.rope.validate()?;
        let specials = self.bos_token_id.iter().chain(&self.eos_token_ids).chain(&self.pad_token_id);
        for id in specials {
            if *id as usize >= self.vocab_size {
                return invalid(format!("special token id {id} is not below vocab_size ({})", self.vocab_size));
            }
        }
        Ok(())
    }
}

impl RopeConfig {
    fn validate(&self) -> Result<(), ConfigError> {
        positive("rope_theta", self.theta)?;
        let RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_position_embeddings } =
            self.scaling
        else {
            return Ok(());
        };
        positive("rope_scaling.factor", factor)?;
        positive("rope_scaling.low_freq_factor", low_freq_factor)?;
        positive("rope_scaling.high_freq_factor", high_freq_factor)?;
        bounded("rope_scaling.original_max_position_embeddings", original_max_position_embeddings, MAX_POSITIONS)?;
        if low_freq_factor >= high_freq_factor {
            return invalid(format!(
                "rope_scaling.low_freq_factor ({low_freq_factor}) is not below high_freq_factor ({high_freq_factor})"
            ));
        }
        Ok(())
    }
}

fn bounded(key: &str, value: usize, max: usize) -> Result<(), ConfigError> {
    if (1..=max).contains(&value) { Ok(()) } else { invalid(format!("{key} is {value}, outside 1..={max}")) }
}

fn positive(key: &str, value: f64) -> Result<(), ConfigError> {
    if value.is_finite() && value > 0.0 { Ok(()) } else { invalid(format!("{key} is {value}, not a positive number")) }
}

fn invalid<T>(what: String) -> Result<T, ConfigError> {
    Err(ConfigError::Invalid { what })
}

/// The closed set of model families.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "family", rename_all = "snake_case")]
pub enum ModelConfig {
    /// Llama 2, 3 and look-alikes.
    Llama(LlamaConfig),
}

impl ModelConfig {
    /// Rows of the embedding.
    #[must_use]
    pub fn vocab_size(&self) -> usize {
        match self {
            Self::Llama(config) => config.vocab_size,
        }
    }

    /// Longest context the model is made for, tokens.
    #[must_use]
    pub fn max_positions(&self) -> usize {
        match self {
            Self::Llama(config) => config.max_position_embeddings,
        }
    }

    /// Whether the output head is the embedding.
    #[must_use]
    pub fn tied_head(&self) -> bool {
        match self {
            Self::Llama(config) => config.tie_word_embeddings,
        }
    }

    /// Id that begins a document.
    #[must_use]
    pub fn bos_token_id(&self) -> Option<u32> {
        match self {
            Self::Llama(config) => config.bos_token_id,
        }
    }

    /// Ids that end a document or a turn.
    #[must_use]
    pub fn eos_token_ids(&self) -> &[u32] {
        match self {
            Self::Llama(config) => &config.eos_token_ids,
        }
    }

    /// Id that fills unused places.
    #[must_use]
    pub fn pad_token_id(&self) -> Option<u32> {
        match self {
            Self::Llama(config) => config.pad_token_id,
        }
    }

    /// Checks every rule of the family.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] names the first rule that is broken.
    pub fn validate(&self) -> Result<(), ConfigError> {
        match self {
            Self::Llama(config) => config.validate(),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

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
    }
}
