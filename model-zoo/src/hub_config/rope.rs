//! Owns the keys of rotary positions, in the style of transformers 4 and 5; never touches other keys.

use serde_json::{Map, Value, json};

use super::keys::{Keys, conflict};
use crate::config::{ConfigError, RopeConfig, RopeScaling};

/// Rotary base when no key names one: transformers' default for most families, which files of 2023 rely on.
pub(super) const DEFAULT_THETA: f64 = 10_000.0;

/// Rotary settings from `rope_theta`, `rope_scaling` and `rope_parameters`, which must agree where they overlap.
pub(super) fn read(keys: &Keys<'_>) -> Result<RopeConfig, ConfigError> {
    read_or(keys, DEFAULT_THETA)
}

/// The same where another base is meant when no key names one.
pub(super) fn read_or(keys: &Keys<'_>, default_theta: f64) -> Result<RopeConfig, ConfigError> {
    let mut said = Said::default();
    said.theta(keys, "rope_theta")?;
    for name in ["rope_scaling", "rope_parameters"] {
        if let Some(block) = keys.block(name)? {
            said.block(name, &block)?;
        }
    }
    Ok(said.together(default_theta))
}

/// What the keys read so far say, and which of them said it.
#[derive(Default)]
pub(super) struct Said {
    theta: Option<(String, f64)>,
    scaling: Option<(String, RopeScaling)>,
}

impl Said {
    /// Reads a base of frequencies.
    pub(super) fn theta(&mut self, keys: &Keys<'_>, name: &str) -> Result<(), ConfigError> {
        let Some(value) = keys.number(name)? else { return Ok(()) };
        let key = keys.full_name(name);
        match &self.theta {
            Some((first, known)) if *known != value => Err(conflict(first, known, &key, value)),
            _ => {
                self.theta = Some((key, value));
                Ok(())
            }
        }
    }

    /// Reads a block with a scaling and perhaps a base.
    pub(super) fn block(&mut self, name: &str, block: &Keys<'_>) -> Result<(), ConfigError> {
        self.theta(block, "rope_theta")?;
        refuse_partial_rotation(block)?;
        let value = read_scaling(block)?;
        match &self.scaling {
            Some((first, known)) if *known != value => {
                Err(conflict(first, format!("{known:?}"), name, format!("{value:?}")))
            }
            _ => {
                self.scaling = Some((name.to_owned(), value));
                Ok(())
            }
        }
    }

    pub(super) fn together(self, default_theta: f64) -> RopeConfig {
        RopeConfig {
            theta: self.theta.map_or(default_theta, |(_, value)| value),
            scaling: self.scaling.map_or(RopeScaling::None, |(_, value)| value),
        }
    }
}

/// Heads that are turned in part only.
pub(super) fn refuse_partial_rotation(keys: &Keys<'_>) -> Result<(), ConfigError> {
    match keys.number("partial_rotary_factor")? {
        Some(factor) if factor != 1.0 => Err(keys.unsupported("partial_rotary_factor", "1.0")),
        _ => Ok(()),
    }
}

fn read_scaling(block: &Keys<'_>) -> Result<RopeScaling, ConfigError> {
    // `type` is the spelling of 2023.
    let key = if block.get("rope_type").is_some() { "rope_type" } else { "type" };
    match block.string(key)? {
        None | Some("default") => Ok(RopeScaling::None),
        Some("linear") => Ok(RopeScaling::Linear { factor: block.required_number("factor")? }),
        Some("llama3") => Ok(RopeScaling::Llama3 {
            factor: block.required_number("factor")?,
            low_freq_factor: block.required_number("low_freq_factor")?,
            high_freq_factor: block.required_number("high_freq_factor")?,
            original_max_position_embeddings: block.required_size("original_max_position_embeddings")?,
        }),
        Some(_) => Err(block.unsupported(key, "default, linear, llama3")),
    }
}

/// `rope_scaling` of transformers 4: `null` without scaling.
pub(super) fn scaling(rope: &RopeConfig) -> Value {
    let block = scaling_keys(rope);
    if block.is_empty() { Value::Null } else { Value::Object(block) }
}

/// `rope_parameters` of transformers 5.
pub(super) fn parameters(rope: &RopeConfig) -> Value {
    let mut block = scaling_keys(rope);
    block.entry("rope_type").or_insert(json!("default"));
    block.insert("rope_theta".into(), json!(rope.theta));
    Value::Object(block)
}

fn scaling_keys(rope: &RopeConfig) -> Map<String, Value> {
    let mut block = Map::new();
    match rope.scaling {
        RopeScaling::None => {}
        RopeScaling::Linear { factor } => {
            block.insert("rope_type".into(), json!("linear"));
            block.insert("factor".into(), json!(factor));
        }
        RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_position_embeddings } => {
            block.insert("rope_type".into(), json!("llama3"));
            block.insert("factor".into(), json!(factor));
            block.insert("low_freq_factor".into(), json!(low_freq_factor));
            block.insert("high_freq_factor".into(), json!(high_freq_factor));
            block.insert("original_max_position_embeddings".into(), json!(original_max_position_embeddings));
        }
    }
    block
}
