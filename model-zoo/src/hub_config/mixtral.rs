//! Owns the keys of Mixtral; never touches keys that decoders share.

use serde_json::{Map, Value, json};

use super::decoder::{self, Defaults, refuse_other_activation};
use super::keys::Keys;
use super::rope;
use crate::config::{ConfigError, MixtralConfig, WeightDtype};

pub(super) const ARCHITECTURE: &str = "MixtralForCausalLM";
pub(super) const MODEL_TYPE: &str = "mixtral";

/// configuration_mixtral.py.
const DEFAULTS: Defaults = Defaults {
    head_dim: None,
    num_key_value_heads: Some(8),
    max_position_embeddings: 131_072,
    tie_word_embeddings: false,
};
const DEFAULT_THETA: f64 = 1e6;
const DEFAULT_EPSILON: f64 = 1e-5;
const DEFAULT_EXPERTS: usize = 8;
const DEFAULT_CHOSEN: usize = 2;
const DEFAULT_COEFFICIENT: f64 = 0.001;

pub(super) fn read(keys: &Keys<'_>) -> Result<MixtralConfig, ConfigError> {
    refuse_other_activation(keys, "hidden_act", &["silu", "swish"])?;
    if keys.number("router_jitter_noise")?.is_some_and(|noise| noise != 0.0) {
        return Err(keys.unsupported("router_jitter_noise", "0.0 (noise does not change inference: set it to 0.0)"));
    }
    let mut decoder = decoder::read(keys, rope::read_or(keys, DEFAULT_THETA)?, &DEFAULTS)?;
    if keys.get("rms_norm_eps").is_none() {
        decoder.rms_norm_eps = DEFAULT_EPSILON;
    }
    Ok(MixtralConfig {
        decoder,
        sliding_window: keys.size("sliding_window")?,
        num_local_experts: keys.size("num_local_experts")?.unwrap_or(DEFAULT_EXPERTS),
        num_experts_per_tok: keys.size("num_experts_per_tok")?.unwrap_or(DEFAULT_CHOSEN),
        router_aux_loss_coef: keys.number("router_aux_loss_coef")?.unwrap_or(DEFAULT_COEFFICIENT),
        output_router_logits: keys.boolean("output_router_logits")?.unwrap_or(false),
    })
}

pub(super) fn write(config: &MixtralConfig, dtype: WeightDtype) -> Map<String, Value> {
    let own = [
        ("hidden_act", json!("silu")),
        ("sliding_window", json!(config.sliding_window)),
        ("num_local_experts", json!(config.num_local_experts)),
        ("num_experts_per_tok", json!(config.num_experts_per_tok)),
        ("router_aux_loss_coef", json!(config.router_aux_loss_coef)),
        ("router_jitter_noise", json!(0.0)),
        ("output_router_logits", json!(config.output_router_logits)),
    ];
    decoder::write(&config.decoder, ARCHITECTURE, MODEL_TYPE, dtype, own)
}
