//! Owns the keys of Qwen2 and Qwen3; never touches keys that decoders share.

use serde_json::{Map, Value, json};

use super::decoder::{self, Defaults, refuse_other_activation, refuse_true};
use super::keys::Keys;
use super::{rope, windows};
use crate::config::{ConfigError, DecoderConfig, LayerType, LayerWindows, Qwen2Config, Qwen3Config, WeightDtype};

pub(super) const ARCHITECTURE_2: &str = "Qwen2ForCausalLM";
pub(super) const MODEL_TYPE_2: &str = "qwen2";
pub(super) const ARCHITECTURE_3: &str = "Qwen3ForCausalLM";
pub(super) const MODEL_TYPE_3: &str = "qwen3";

/// configuration_qwen2.py.
const DEFAULTS_2: Defaults = Defaults {
    head_dim: None,
    num_key_value_heads: Some(32),
    max_position_embeddings: 32_768,
    tie_word_embeddings: false,
};
/// configuration_qwen3.py.
const DEFAULTS_3: Defaults = Defaults { head_dim: Some(128), ..DEFAULTS_2 };
/// Window where windows are on and the key is absent; `null` means none (configuration_qwen2.py).
const DEFAULT_WINDOW: usize = 4096;
/// Layers without a window at the bottom where the key is absent (configuration_qwen2.py).
const DEFAULT_MAX_WINDOW_LAYERS: usize = 28;

pub(super) fn read_2(keys: &Keys<'_>) -> Result<Qwen2Config, ConfigError> {
    refuse_other_activation(keys, "hidden_act", &["silu", "swish"])?;
    let decoder = decoder::read(keys, rope::read(keys)?, &DEFAULTS_2)?;
    Ok(Qwen2Config { windows: read_windows(keys, &decoder)?, decoder })
}

pub(super) fn read_3(keys: &Keys<'_>) -> Result<Qwen3Config, ConfigError> {
    refuse_other_activation(keys, "hidden_act", &["silu", "swish"])?;
    refuse_true(keys, &["attention_bias"])?;
    let decoder = decoder::read(keys, rope::read(keys)?, &DEFAULTS_3)?;
    Ok(Qwen3Config { windows: read_windows(keys, &decoder)?, decoder })
}

/// A window counts only where `use_sliding_window` is true, and then in the layers from `max_window_layers` on.
fn read_windows(keys: &Keys<'_>, decoder: &DecoderConfig) -> Result<Option<LayerWindows>, ConfigError> {
    let used = keys.boolean("use_sliding_window")?.unwrap_or(false);
    let window = keys.size_or("sliding_window", Some(DEFAULT_WINDOW))?.filter(|_| used);
    let first = keys.size("max_window_layers")?.unwrap_or(DEFAULT_MAX_WINDOW_LAYERS);
    let rule = |layer| window.is_some() && layer >= first;
    windows::join(keys, window, windows::read_types(keys, decoder.num_hidden_layers, rule)?)
}

pub(super) fn write_2(config: &Qwen2Config, dtype: WeightDtype) -> Map<String, Value> {
    let mut keys = decoder::write(&config.decoder, ARCHITECTURE_2, MODEL_TYPE_2, dtype, []);
    keys.extend(write_windows(config.windows.as_ref(), &config.decoder));
    keys
}

pub(super) fn write_3(config: &Qwen3Config, dtype: WeightDtype) -> Map<String, Value> {
    let own = [("attention_bias", json!(false))];
    let mut keys = decoder::write(&config.decoder, ARCHITECTURE_3, MODEL_TYPE_3, dtype, own);
    keys.extend(write_windows(config.windows.as_ref(), &config.decoder));
    keys
}

fn write_windows(windows: Option<&LayerWindows>, decoder: &DecoderConfig) -> Map<String, Value> {
    let num_layers = decoder.num_hidden_layers;
    let types = match windows {
        Some(windows) => windows.layer_types.clone(),
        None => vec![LayerType::FullAttention; num_layers],
    };
    let first = types.iter().position(|kind| *kind == LayerType::SlidingAttention).unwrap_or(num_layers);
    let keys = [
        ("hidden_act", json!("silu")),
        ("use_sliding_window", json!(windows.is_some())),
        ("sliding_window", json!(windows.map(|windows| windows.sliding_window))),
        ("max_window_layers", json!(first)),
        ("layer_types", windows::write_types(&types)),
    ];
    keys.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}
