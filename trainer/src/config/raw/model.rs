//! Owns the keys that describe a model with fresh weights, as they are written; never touches what is built of them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A model with fresh weights: a preset, explicit dimensions, or a preset with some dimensions replaced.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawModel {
    /// Architecture. Default: llama.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = &"llama")]
    pub family: Option<Family>,
    /// Preset of dimensions, named for its number of parameters; `jazari plan` prints the exact count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = &"30m")]
    pub size: Option<SizePreset>,
    /// Width of the residual stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = 512)]
    pub hidden_size: Option<usize>,
    /// Width of the feed-forward layers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = 1408)]
    pub intermediate_size: Option<usize>,
    /// Number of layers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = 8)]
    pub num_hidden_layers: Option<usize>,
    /// Number of query heads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = 8)]
    pub num_attention_heads: Option<usize>,
    /// Number of key and value heads; divides `num_attention_heads`. Default: as many as those.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = 4)]
    pub num_key_value_heads: Option<usize>,
    /// Width of one head; even. Default: `hidden_size` / `num_attention_heads`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = 64)]
    pub head_dim: Option<usize>,
    /// Rows of the embedding. Default: the vocabulary of the data set's tokenizer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = 16384)]
    pub vocab_size: Option<usize>,
    /// Longest position that the exported model claims to handle. Default: `sequence_len`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = 1024)]
    pub max_position_embeddings: Option<usize>,
    /// Use the embedding as output layer too. Default: that of the preset, else true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = true)]
    pub tie_word_embeddings: Option<bool>,
    /// Base of the rotary position frequencies. Default: 10000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = 10000.0)]
    pub rope_theta: Option<f64>,
    /// Stretching of the rotary frequencies for longer contexts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rope_scaling: Option<RawRopeScaling>,
    /// Added to the mean square in RMSNorm. Default: 1e-5.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = 1e-5)]
    pub rms_norm_eps: Option<f64>,
    /// Standard deviation of the initial weights. Default: 0.02.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = 0.02)]
    pub initializer_range: Option<f64>,
    /// Most tokens that a token sees, itself included; `family: mistral` and `mixtral` only. Default: all earlier ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = 4096)]
    pub sliding_window: Option<usize>,
    /// Experts of a layer, each as wide as `intermediate_size`; `family: mixtral` only. Default: 8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = 8)]
    pub num_local_experts: Option<usize>,
    /// Experts that a token passes through; `family: mixtral` only. Default: 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = 2)]
    pub num_experts_per_tok: Option<usize>,
}

/// Rotary scaling as Llama 3.1 defines it, with the names of Hugging Face.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawRopeScaling {
    /// Kind of scaling.
    #[schemars(example = &"llama3")]
    pub rope_type: RopeScalingKind,
    /// How many times longer the context becomes.
    #[schemars(example = 8.0)]
    pub factor: f64,
    /// Wavelengths longer than the original context divided by this are stretched in full.
    #[schemars(example = 1.0)]
    pub low_freq_factor: f64,
    /// Wavelengths shorter than the original context divided by this are left alone.
    #[schemars(example = 4.0)]
    pub high_freq_factor: f64,
    /// Context length before stretching, tokens.
    #[schemars(example = 8192)]
    pub original_max_position_embeddings: usize,
}

/// Architectures that can be trained.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// Llama: RMSNorm, rotary positions, grouped-query attention, SwiGLU.
    #[default]
    Llama,
    /// Mistral: a Llama that may see a window of earlier tokens only.
    Mistral,
    /// Qwen2: a Llama with biases on queries, keys and values.
    Qwen2,
    /// Qwen3: a Llama that normalises every head of queries and keys.
    Qwen3,
    /// Mixtral: a Mistral whose tokens choose among several feed-forward layers.
    Mixtral,
}

/// Presets of dimensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum SizePreset {
    /// About 3 million parameters with a vocabulary of 16,384.
    #[serde(rename = "3m")]
    M3,
    /// About 10 million with a vocabulary of 16,384.
    #[serde(rename = "10m")]
    M10,
    /// About 30 million with a vocabulary of 16,384.
    #[serde(rename = "30m")]
    M30,
    /// About 110 million with a vocabulary of 32,768.
    #[serde(rename = "110m")]
    M110,
    /// About 350 million with a vocabulary of 32,768.
    #[serde(rename = "350m")]
    M350,
    /// About 1 billion with a vocabulary of 32,768.
    #[serde(rename = "1b")]
    B1,
}

/// Kinds of rotary scaling.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RopeScalingKind {
    /// Llama 3.1's frequency-dependent stretching.
    Llama3,
}
