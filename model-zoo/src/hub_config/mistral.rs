//! Owns the keys of Mistral; never touches keys that decoders share.

use serde_json::{Map, Value, json};

use super::decoder::{self, Defaults, refuse_other_activation, refuse_present};
use super::keys::Keys;
use super::rope;
use crate::config::{ConfigError, MistralConfig, WeightDtype};

pub(super) const ARCHITECTURE: &str = "MistralForCausalLM";
pub(super) const MODEL_TYPE: &str = "mistral";

/// configuration_mistral.py.
const DEFAULTS: Defaults = Defaults {
    head_dim: None,
    num_key_value_heads: Some(8),
    max_position_embeddings: 131_072,
    tie_word_embeddings: false,
};
/// Window where the key is absent; `null` means none (configuration_mistral.py).
const DEFAULT_WINDOW: usize = 4096;

pub(super) fn read(keys: &Keys<'_>) -> Result<MistralConfig, ConfigError> {
    refuse_other_activation(keys, "hidden_act", &["silu", "swish"])?;
    // Windows in some layers only are Ministral's, another architecture.
    refuse_present(keys, &["layer_types"])?;
    let sliding_window = keys.size_or("sliding_window", Some(DEFAULT_WINDOW))?;
    Ok(MistralConfig { decoder: decoder::read(keys, rope::read(keys)?, &DEFAULTS)?, sliding_window })
}

pub(super) fn write(config: &MistralConfig, dtype: WeightDtype) -> Map<String, Value> {
    let own = [("hidden_act", json!("silu")), ("sliding_window", json!(config.sliding_window))];
    decoder::write(&config.decoder, ARCHITECTURE, MODEL_TYPE, dtype, own)
}
