//! Owns the keys of GPT-2; never touches keys that decoders share.

use serde_json::{Map, Value, json};

use super::decoder::{check_dtypes, refuse_other_activation, refuse_present, refuse_true};
use super::keys::Keys;
use crate::config::{ConfigError, Gpt2Config, WeightDtype};

pub(super) const ARCHITECTURE: &str = "GPT2LMHeadModel";
pub(super) const MODEL_TYPE: &str = "gpt2";

/// configuration_gpt2.py.
const DEFAULT_POSITIONS: usize = 1024;
const DEFAULT_EPSILON: f64 = 1e-5;

/// Dropout rates are not read: every published GPT-2 names one, they do not change inference, and nothing here drops
/// out in training. `reorder_and_upcast_attn` changes roundings in half precision only.
pub(super) fn read(keys: &Keys<'_>) -> Result<Gpt2Config, ConfigError> {
    refuse_other_activation(keys, "activation_function", &["gelu_new", "gelu_pytorch_tanh"])?;
    refuse_true(keys, &["add_cross_attention"])?;
    refuse_present(keys, &["quantization_config"])?;
    let n_embd = keys.required_size("n_embd")?;
    let inner = keys.size("n_inner")?;
    let config = Gpt2Config {
        vocab_size: keys.required_size("vocab_size")?,
        n_positions: keys.size("n_positions")?.unwrap_or(DEFAULT_POSITIONS),
        n_embd,
        n_layer: keys.required_size("n_layer")?,
        n_head: keys.required_size("n_head")?,
        n_inner: inner.unwrap_or(n_embd.saturating_mul(4)),
        layer_norm_epsilon: keys.number("layer_norm_epsilon")?.unwrap_or(DEFAULT_EPSILON),
        scale_attn_weights: keys.boolean("scale_attn_weights")?.unwrap_or(true),
        scale_attn_by_inverse_layer_idx: keys.boolean("scale_attn_by_inverse_layer_idx")?.unwrap_or(false),
        tie_word_embeddings: keys.boolean("tie_word_embeddings")?.unwrap_or(true),
        initializer_range: keys.number("initializer_range")?.unwrap_or(0.02),
        bos_token_id: keys.token_ids("bos_token_id")?.first().copied(),
        eos_token_ids: keys.token_ids("eos_token_id")?,
        pad_token_id: keys.token_ids("pad_token_id")?.first().copied(),
    };
    check_dtypes(keys)?;
    config.validate()?;
    Ok(config)
}

pub(super) fn write(config: &Gpt2Config, dtype: WeightDtype) -> Map<String, Value> {
    let inner = (config.n_inner != 4 * config.n_embd).then_some(config.n_inner);
    let keys = [
        ("architectures", json!([ARCHITECTURE])),
        ("model_type", json!(MODEL_TYPE)),
        ("vocab_size", json!(config.vocab_size)),
        ("n_positions", json!(config.n_positions)),
        // llama.cpp's converter reads the context from this old spelling.
        ("n_ctx", json!(config.n_positions)),
        ("n_embd", json!(config.n_embd)),
        ("n_layer", json!(config.n_layer)),
        ("n_head", json!(config.n_head)),
        ("n_inner", json!(inner)),
        ("activation_function", json!("gelu_new")),
        ("layer_norm_epsilon", json!(config.layer_norm_epsilon)),
        ("scale_attn_weights", json!(config.scale_attn_weights)),
        ("scale_attn_by_inverse_layer_idx", json!(config.scale_attn_by_inverse_layer_idx)),
        ("reorder_and_upcast_attn", json!(false)),
        ("add_cross_attention", json!(false)),
        ("attn_pdrop", json!(0.0)),
        ("embd_pdrop", json!(0.0)),
        ("resid_pdrop", json!(0.0)),
        ("initializer_range", json!(config.initializer_range)),
        ("tie_word_embeddings", json!(config.tie_word_embeddings)),
        ("bos_token_id", json!(config.bos_token_id)),
        // One id here: llama.cpp's converter reads no list. All of them stand in generation_config.json.
        ("eos_token_id", json!(config.eos_token_ids.first())),
        ("pad_token_id", json!(config.pad_token_id)),
        ("use_cache", json!(true)),
        ("torch_dtype", json!(dtype.hub_name())),
        ("dtype", json!(dtype.hub_name())),
    ];
    keys.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}
