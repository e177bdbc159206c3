//! Owns the keys of Gemma 2 and Gemma 3; never touches keys that decoders share.

use serde_json::{Map, Value, json};

use super::decoder::{self, Defaults, refuse_other_activation, refuse_present, refuse_true};
use super::keys::{Keys, conflict};
use super::{rope, windows};
use crate::config::{ConfigError, Gemma2Config, Gemma3Config, LayerWindows, RopeConfig, WeightDtype};

pub(super) const ARCHITECTURE_2: &str = "Gemma2ForCausalLM";
pub(super) const MODEL_TYPE_2: &str = "gemma2";
pub(super) const ARCHITECTURE_3: &str = "Gemma3ForCausalLM";
pub(super) const MODEL_TYPE_3: &str = "gemma3_text";

/// The one activation that both have.
const ACTIVATION: &str = "gelu_pytorch_tanh";

/// configuration_gemma2.py.
const DEFAULTS_2: Defaults = Defaults {
    head_dim: Some(256),
    num_key_value_heads: Some(4),
    max_position_embeddings: 8192,
    tie_word_embeddings: true,
};
/// configuration_gemma3.py.
const DEFAULTS_3: Defaults = Defaults { max_position_embeddings: 131_072, ..DEFAULTS_2 };
const DEFAULT_QUERY_PRE_ATTN_SCALAR: f64 = 256.0;
/// Window where the key is absent; `null` means none.
const DEFAULT_WINDOW: usize = 4096;
/// One layer in so many has no window.
const PERIOD_2: usize = 2;
const DEFAULT_PERIOD_3: usize = 6;
/// Bounds where the keys are absent; `null` means none (configuration_gemma2.py).
const DEFAULT_ATTENTION_BOUND: f64 = 50.0;
const DEFAULT_FINAL_BOUND: f64 = 30.0;
/// Rotary bases where no key names them (configuration_gemma3.py).
const GLOBAL_THETA: f64 = 1_000_000.0;
const LOCAL_THETA: f64 = 10_000.0;

pub(super) fn read_2(keys: &Keys<'_>) -> Result<Gemma2Config, ConfigError> {
    refuse_foreign_features(keys)?;
    let decoder = decoder::read(keys, rope::read(keys)?, &DEFAULTS_2)?;
    Ok(Gemma2Config {
        windows: read_windows(keys, decoder.num_hidden_layers, PERIOD_2)?,
        query_pre_attn_scalar: keys.number("query_pre_attn_scalar")?.unwrap_or(DEFAULT_QUERY_PRE_ATTN_SCALAR),
        attn_logit_softcapping: keys.number_or("attn_logit_softcapping", Some(DEFAULT_ATTENTION_BOUND))?,
        final_logit_softcapping: keys.number_or("final_logit_softcapping", Some(DEFAULT_FINAL_BOUND))?,
        decoder,
    })
}

pub(super) fn read_3(keys: &Keys<'_>) -> Result<Gemma3Config, ConfigError> {
    refuse_foreign_features(keys)?;
    // transformers reads this key and computes without it (modeling_gemma3.py); other servers may use it.
    refuse_present(keys, &["attn_logit_softcapping"])?;
    let (global, local) = read_ropes(keys)?;
    let decoder = decoder::read(keys, global, &DEFAULTS_3)?;
    Ok(Gemma3Config {
        windows: read_windows(keys, decoder.num_hidden_layers, read_period(keys)?)?,
        local_rope: local,
        query_pre_attn_scalar: keys.number("query_pre_attn_scalar")?.unwrap_or(DEFAULT_QUERY_PRE_ATTN_SCALAR),
        final_logit_softcapping: keys.number("final_logit_softcapping")?,
        decoder,
    })
}

/// Features that change the computation and that Gemma does not have here. `hidden_act` is not among them: it stands
/// in old files and counts nowhere.
fn refuse_foreign_features(keys: &Keys<'_>) -> Result<(), ConfigError> {
    refuse_other_activation(keys, "hidden_activation", &[ACTIVATION])?;
    refuse_true(keys, &["attention_bias", "use_bidirectional_attention"])
}

/// One layer in how many has no window, from either spelling of the key.
fn read_period(keys: &Keys<'_>) -> Result<usize, ConfigError> {
    let (old, new) = ("sliding_window_pattern", "_sliding_window_pattern");
    let period = match (keys.size(old)?, keys.size(new)?) {
        (Some(a), Some(b)) if a != b => return Err(conflict(old, a, new, b)),
        (a, b) => a.or(b).unwrap_or(DEFAULT_PERIOD_3),
    };
    if period == 0 { Err(keys.unsupported(old, "a whole number of at least 1")) } else { Ok(period) }
}

fn read_windows(keys: &Keys<'_>, num_layers: usize, period: usize) -> Result<LayerWindows, ConfigError> {
    let types = windows::read_types(keys, num_layers, |layer| windows::is_sliding(layer, period))?;
    let window = keys.size_or("sliding_window", Some(DEFAULT_WINDOW))?;
    // Without layers that have one, the width of the window does not matter, but it is kept.
    let full = LayerWindows { sliding_window: window.unwrap_or(DEFAULT_WINDOW), layer_types: types.clone() };
    Ok(windows::join(keys, window, types)?.unwrap_or(full))
}

/// Rotary positions of layers without and with a window: `rope_theta`, `rope_scaling` and `rope_local_base_freq` of
/// transformers 4, and a block for each kind of layer in the `rope_parameters` of transformers 5.
fn read_ropes(keys: &Keys<'_>) -> Result<(RopeConfig, RopeConfig), ConfigError> {
    let (mut global, mut local) = (rope::Said::default(), rope::Said::default());
    global.theta(keys, "rope_theta")?;
    local.theta(keys, "rope_local_base_freq")?;
    if let Some(block) = keys.block("rope_scaling")? {
        global.block("rope_scaling", &block)?;
    }
    if let Some(parameters) = keys.block("rope_parameters")? {
        if let Some(key) = parameters.unknown(&["full_attention", "sliding_attention"]) {
            return Err(parameters.unsupported(&key, "a block full_attention and a block sliding_attention"));
        }
        if let Some(block) = parameters.block("full_attention")? {
            global.block("rope_parameters.full_attention", &block)?;
        }
        if let Some(block) = parameters.block("sliding_attention")? {
            local.block("rope_parameters.sliding_attention", &block)?;
        }
    }
    Ok((global.together(GLOBAL_THETA), local.together(LOCAL_THETA)))
}

pub(super) fn write_2(config: &Gemma2Config, dtype: WeightDtype) -> Map<String, Value> {
    let own = [
        ("hidden_act", json!(ACTIVATION)),
        ("hidden_activation", json!(ACTIVATION)),
        ("attention_bias", json!(false)),
        ("query_pre_attn_scalar", number(config.query_pre_attn_scalar)),
        ("attn_logit_softcapping", json!(config.attn_logit_softcapping)),
        ("final_logit_softcapping", json!(config.final_logit_softcapping)),
        ("sliding_window", json!(config.windows.sliding_window)),
        ("layer_types", windows::write_types(&config.windows.layer_types)),
    ];
    decoder::write(&config.decoder, ARCHITECTURE_2, MODEL_TYPE_2, dtype, own)
}

pub(super) fn write_3(config: &Gemma3Config, dtype: WeightDtype) -> Map<String, Value> {
    let parameters = json!({
        "full_attention": rope::parameters(&config.decoder.rope),
        "sliding_attention": rope::parameters(&config.local_rope),
    });
    let own = [
        ("hidden_act", json!(ACTIVATION)),
        ("hidden_activation", json!(ACTIVATION)),
        ("attention_bias", json!(false)),
        ("query_pre_attn_scalar", number(config.query_pre_attn_scalar)),
        ("attn_logit_softcapping", Value::Null),
        ("final_logit_softcapping", json!(config.final_logit_softcapping)),
        ("sliding_window", json!(config.windows.sliding_window)),
        ("layer_types", windows::write_types(&config.windows.layer_types)),
        ("rope_local_base_freq", json!(config.local_rope.theta)),
        ("rope_parameters", parameters),
    ];
    let mut keys = decoder::write(&config.decoder, ARCHITECTURE_3, MODEL_TYPE_3, dtype, own);
    if let Some(period) = windows::pattern(&config.windows.layer_types) {
        keys.insert("sliding_window_pattern".into(), json!(period));
    }
    keys
}

/// A whole number without a fraction: transformers declares the key as one.
fn number(value: f64) -> Value {
    if value.fract() == 0.0 && value < 1e15 { json!(value as u64) } else { json!(value) }
}
