//! Owns the keys that decoders share, and those of Llama; never touches keys of other families.

use serde_json::{Map, Value, json};

use super::keys::{Keys, conflict};
use super::rope;
use crate::config::{ConfigError, DecoderConfig, LlamaConfig, RopeConfig, WeightDtype};

pub(super) const ARCHITECTURE: &str = "LlamaForCausalLM";
pub(super) const MODEL_TYPE: &str = "llama";

/// What transformers takes where a key is absent.
pub(super) struct Defaults {
    /// `None` = `hidden_size / num_attention_heads`.
    pub(super) head_dim: Option<usize>,
    /// `None` = as many as query heads.
    pub(super) num_key_value_heads: Option<usize>,
    pub(super) max_position_embeddings: usize,
    pub(super) tie_word_embeddings: bool,
}

/// Llama (configuration_llama.py).
const LLAMA: Defaults =
    Defaults { head_dim: None, num_key_value_heads: None, max_position_embeddings: 2048, tie_word_embeddings: false };

pub(super) fn read_llama(keys: &Keys<'_>) -> Result<LlamaConfig, ConfigError> {
    refuse_other_activation(keys, "hidden_act", &["silu", "swish"])?;
    refuse_true(keys, &["attention_bias", "mlp_bias"])?;
    refuse_present(keys, &["sliding_window"])?;
    read(keys, rope::read(keys)?, &LLAMA)
}

pub(super) fn write_llama(config: &LlamaConfig, dtype: WeightDtype) -> Map<String, Value> {
    let own = [("hidden_act", json!("silu")), ("attention_bias", json!(false)), ("mlp_bias", json!(false))];
    write(config, ARCHITECTURE, MODEL_TYPE, dtype, own)
}

/// The keys that decoders share, with every feature refused that none of them has.
pub(super) fn read(keys: &Keys<'_>, rope: RopeConfig, defaults: &Defaults) -> Result<DecoderConfig, ConfigError> {
    rope::refuse_partial_rotation(keys)?;
    refuse_present(keys, &["quantization_config"])?;
    if keys.number("attention_dropout")?.is_some_and(|rate| rate != 0.0) {
        return Err(keys.unsupported("attention_dropout", "0.0 (dropout does not change inference: set it to 0.0)"));
    }
    let hidden_size = keys.required_size("hidden_size")?;
    let num_attention_heads = keys.required_size("num_attention_heads")?;
    let head_dim = match keys.size("head_dim")?.or(defaults.head_dim) {
        Some(size) => size,
        None if num_attention_heads > 0 && hidden_size.is_multiple_of(num_attention_heads) => {
            hidden_size / num_attention_heads
        }
        None => return Err(keys.missing("head_dim")),
    };
    // Where the key is `null`, transformers takes as many as query heads in every family.
    let absent = if keys.is_written("num_key_value_heads") { None } else { defaults.num_key_value_heads };
    let config = DecoderConfig {
        vocab_size: keys.required_size("vocab_size")?,
        hidden_size,
        intermediate_size: keys.required_size("intermediate_size")?,
        num_hidden_layers: keys.required_size("num_hidden_layers")?,
        num_attention_heads,
        num_key_value_heads: keys.size("num_key_value_heads")?.or(absent).unwrap_or(num_attention_heads),
        head_dim,
        max_position_embeddings: keys.size("max_position_embeddings")?.unwrap_or(defaults.max_position_embeddings),
        rms_norm_eps: keys.number("rms_norm_eps")?.unwrap_or(1e-6),
        rope,
        tie_word_embeddings: keys.boolean("tie_word_embeddings")?.unwrap_or(defaults.tie_word_embeddings),
        initializer_range: keys.number("initializer_range")?.unwrap_or(0.02),
        bos_token_id: keys.token_ids("bos_token_id")?.first().copied(),
        eos_token_ids: keys.token_ids("eos_token_id")?,
        pad_token_id: keys.token_ids("pad_token_id")?.first().copied(),
    };
    check_dtypes(keys)?;
    config.validate()?;
    Ok(config)
}

/// The keys that decoders share, and those of one family: `own` replaces and adds.
pub(super) fn write<const N: usize>(
    config: &DecoderConfig,
    architecture: &str,
    model_type: &str,
    dtype: WeightDtype,
    own: [(&str, Value); N],
) -> Map<String, Value> {
    let shared = [
        ("architectures", json!([architecture])),
        ("model_type", json!(model_type)),
        ("vocab_size", json!(config.vocab_size)),
        ("hidden_size", json!(config.hidden_size)),
        ("intermediate_size", json!(config.intermediate_size)),
        ("num_hidden_layers", json!(config.num_hidden_layers)),
        ("num_attention_heads", json!(config.num_attention_heads)),
        ("num_key_value_heads", json!(config.num_key_value_heads)),
        ("head_dim", json!(config.head_dim)),
        ("max_position_embeddings", json!(config.max_position_embeddings)),
        ("rms_norm_eps", json!(config.rms_norm_eps)),
        ("rope_theta", json!(config.rope.theta)),
        ("rope_scaling", rope::scaling(&config.rope)),
        ("rope_parameters", rope::parameters(&config.rope)),
        ("attention_dropout", json!(0.0)),
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
    shared.into_iter().chain(own).map(|(key, value)| (key.to_owned(), value)).collect()
}

/// Refuses activations that change the computation.
pub(super) fn refuse_other_activation(keys: &Keys<'_>, key: &str, known: &[&str]) -> Result<(), ConfigError> {
    match (keys.string(key)?, known) {
        (Some(name), [first, ..]) if !known.contains(&name) => Err(keys.unsupported(key, first)),
        _ => Ok(()),
    }
}

/// Refuses switches that change the computation where they are on.
pub(super) fn refuse_true(keys: &Keys<'_>, names: &[&str]) -> Result<(), ConfigError> {
    for key in names {
        if keys.boolean(key)? == Some(true) {
            return Err(keys.unsupported(key, "false"));
        }
    }
    Ok(())
}

/// Refuses keys that change the computation where they are not `null`.
pub(super) fn refuse_present(keys: &Keys<'_>, names: &[&str]) -> Result<(), ConfigError> {
    match names.iter().find(|key| keys.get(key).is_some()) {
        Some(key) => Err(keys.unsupported(key, "null")),
        None => Ok(()),
    }
}

/// Refuses two names for two number formats.
pub(super) fn check_dtypes(keys: &Keys<'_>) -> Result<(), ConfigError> {
    match (keys.string("torch_dtype")?, keys.string("dtype")?) {
        (Some(old), Some(new)) if old != new => Err(conflict("torch_dtype", old, "dtype", new)),
        _ => Ok(()),
    }
}
