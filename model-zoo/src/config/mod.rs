//! Owns what a model is made of and which combinations are possible; never touches tensors, devices or JSON.

mod decoder;
mod gemma;
mod gpt2;
mod mistral;
mod mixtral;
mod qwen;
mod rope;
mod rules;
mod windows;

use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use decoder::{DecoderConfig, LlamaConfig};
pub use gemma::{Gemma2Config, Gemma3Config};
pub use gpt2::Gpt2Config;
pub use mistral::MistralConfig;
pub use mixtral::MixtralConfig;
pub use qwen::{Qwen2Config, Qwen3Config};
pub use rope::{RopeConfig, RopeScaling};
pub use windows::{LayerType, LayerWindows};

#[cfg(test)]
pub(crate) use self::{decoder::tests, gpt2::tests as gpt2_tests, mixtral::tests as mixtral_tests};

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

/// The closed set of model families.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "family", rename_all = "snake_case")]
pub enum ModelConfig {
    /// Llama 2, 3 and look-alikes.
    Llama(LlamaConfig),
    /// Mistral 7B and its successors.
    Mistral(MistralConfig),
    /// Qwen2 and Qwen2.5.
    Qwen2(Qwen2Config),
    /// Qwen3, dense.
    Qwen3(Qwen3Config),
    /// Gemma 2.
    Gemma2(Gemma2Config),
    /// Gemma 3, text only.
    Gemma3(Gemma3Config),
    /// Mixtral.
    Mixtral(MixtralConfig),
    /// GPT-2.
    Gpt2(Gpt2Config),
}

/// What every family has.
#[derive(Debug, Clone, Copy)]
struct Facts<'a> {
    name: &'static str,
    vocab_size: usize,
    hidden_size: usize,
    num_layers: usize,
    max_positions: usize,
    tied_head: bool,
    bos: Option<u32>,
    eos: &'a [u32],
    pad: Option<u32>,
}

impl ModelConfig {
    fn facts(&self) -> Facts<'_> {
        let (name, decoder) = match self {
            Self::Llama(config) => ("Llama", config),
            Self::Mistral(config) => ("Mistral", &config.decoder),
            Self::Qwen2(config) => ("Qwen2", &config.decoder),
            Self::Qwen3(config) => ("Qwen3", &config.decoder),
            Self::Gemma2(config) => ("Gemma 2", &config.decoder),
            Self::Gemma3(config) => ("Gemma 3", &config.decoder),
            Self::Mixtral(config) => ("Mixtral", &config.decoder),
            Self::Gpt2(config) => return config.facts(),
        };
        decoder.facts(name)
    }

    /// Name of the family, such as `Gemma 2`.
    #[must_use]
    pub fn family_name(&self) -> &'static str {
        self.facts().name
    }

    /// Rows of the embedding.
    #[must_use]
    pub fn vocab_size(&self) -> usize {
        self.facts().vocab_size
    }

    /// Width of the residual stream.
    #[must_use]
    pub fn hidden_size(&self) -> usize {
        self.facts().hidden_size
    }

    /// Number of blocks.
    #[must_use]
    pub fn num_layers(&self) -> usize {
        self.facts().num_layers
    }

    /// Longest context the model is made for, tokens.
    #[must_use]
    pub fn max_positions(&self) -> usize {
        self.facts().max_positions
    }

    /// The same model made for another longest context, tokens.
    #[must_use]
    pub fn with_max_positions(mut self, max_positions: usize) -> Self {
        let decoder = match &mut self {
            Self::Llama(config) => config,
            Self::Mistral(config) => &mut config.decoder,
            Self::Qwen2(config) => &mut config.decoder,
            Self::Qwen3(config) => &mut config.decoder,
            Self::Gemma2(config) => &mut config.decoder,
            Self::Gemma3(config) => &mut config.decoder,
            Self::Mixtral(config) => &mut config.decoder,
            Self::Gpt2(config) => {
                config.n_positions = max_positions;
                return self;
            }
        };
        decoder.max_position_embeddings = max_positions;
        self
    }

    /// The same model with further ids that end a turn.
    #[must_use]
    pub fn with_end_ids(mut self, ids: &[u32]) -> Self {
        let known = match &mut self {
            Self::Llama(config) => &mut config.eos_token_ids,
            Self::Mistral(config) => &mut config.decoder.eos_token_ids,
            Self::Qwen2(config) => &mut config.decoder.eos_token_ids,
            Self::Qwen3(config) => &mut config.decoder.eos_token_ids,
            Self::Gemma2(config) => &mut config.decoder.eos_token_ids,
            Self::Gemma3(config) => &mut config.decoder.eos_token_ids,
            Self::Mixtral(config) => &mut config.decoder.eos_token_ids,
            Self::Gpt2(config) => &mut config.eos_token_ids,
        };
        for id in ids {
            if !known.contains(id) {
                known.push(*id);
            }
        }
        self
    }

    /// The coefficient with which training adds the load-balancing loss of experts unless told otherwise: that of the
    /// configuration where `output_router_logits` is set, as in transformers, and 0 where it is not. `None` without
    /// experts.
    #[must_use]
    pub fn router_aux_loss_coef(&self) -> Option<f64> {
        match self {
            Self::Mixtral(config) if config.output_router_logits => Some(config.router_aux_loss_coef),
            Self::Mixtral(_) => Some(0.0),
            _ => None,
        }
    }

    /// Whether the output head is the embedding.
    #[must_use]
    pub fn tied_head(&self) -> bool {
        self.facts().tied_head
    }

    /// Id that begins a document.
    #[must_use]
    pub fn bos_token_id(&self) -> Option<u32> {
        self.facts().bos
    }

    /// Ids that end a document or a turn.
    #[must_use]
    pub fn eos_token_ids(&self) -> &[u32] {
        self.facts().eos
    }

    /// Id that fills unused places.
    #[must_use]
    pub fn pad_token_id(&self) -> Option<u32> {
        self.facts().pad
    }

    /// Checks every rule of the family.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] names the first rule that is broken.
    pub fn validate(&self) -> Result<(), ConfigError> {
        match self {
            Self::Llama(config) => config.validate(),
            Self::Mistral(config) => config.validate(),
            Self::Qwen2(config) => config.validate(),
            Self::Qwen3(config) => config.validate(),
            Self::Gemma2(config) => config.validate(),
            Self::Gemma3(config) => config.validate(),
            Self::Mixtral(config) => config.validate(),
            Self::Gpt2(config) => config.validate(),
        }
    }
}
