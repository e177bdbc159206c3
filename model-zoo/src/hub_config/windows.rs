//! Owns the keys that say which layers see a window; never touches other keys.

use serde_json::{Value, json};

use super::keys::{Keys, conflict};
use crate::config::{ConfigError, LayerType, LayerWindows};

const FULL: &str = "full_attention";
const SLIDING: &str = "sliding_attention";

/// `layer_types` where it is written, else `rule` for each of the layers.
pub(super) fn read_types(
    keys: &Keys<'_>,
    num_layers: usize,
    rule: impl Fn(usize) -> bool,
) -> Result<Vec<LayerType>, ConfigError> {
    match keys.list("layer_types")? {
        None => Ok((0..num_layers).map(|layer| kind(rule(layer))).collect()),
        Some(names) => names.iter().map(|name| read_type(keys, name)).collect(),
    }
}

fn kind(sliding: bool) -> LayerType {
    if sliding { LayerType::SlidingAttention } else { LayerType::FullAttention }
}

fn read_type(keys: &Keys<'_>, name: &Value) -> Result<LayerType, ConfigError> {
    match name.as_str() {
        Some(FULL) => Ok(LayerType::FullAttention),
        Some(SLIDING) => Ok(LayerType::SlidingAttention),
        _ => Err(keys.unsupported("layer_types", "a list of full_attention and sliding_attention")),
    }
}

/// Joins a window and the layers that have it; `None` where no layer has one.
pub(super) fn join(
    keys: &Keys<'_>,
    window: Option<usize>,
    layer_types: Vec<LayerType>,
) -> Result<Option<LayerWindows>, ConfigError> {
    if !layer_types.contains(&LayerType::SlidingAttention) {
        return Ok(None);
    }
    let Some(sliding_window) = window else {
        return Err(conflict("layer_types", SLIDING, &keys.full_name("sliding_window"), "no window"));
    };
    Ok(Some(LayerWindows { sliding_window, layer_types }))
}

/// `layer_types` as it is written.
pub(super) fn write_types(layer_types: &[LayerType]) -> Value {
    let name = |kind: &LayerType| match kind {
        LayerType::FullAttention => FULL,
        LayerType::SlidingAttention => SLIDING,
    };
    json!(layer_types.iter().map(name).collect::<Vec<_>>())
}

/// One layer in how many has no window, where the layers follow such a pattern.
pub(super) fn pattern(layer_types: &[LayerType]) -> Option<usize> {
    let first = layer_types.iter().position(|kind| *kind == LayerType::FullAttention);
    let period = first.map_or(layer_types.len() + 1, |first| first + 1);
    let repeats = layer_types.iter().enumerate().all(|(layer, found)| *found == kind(is_sliding(layer, period)));
    repeats.then_some(period)
}

/// Whether a layer has a window where one in `period` has none.
pub(super) fn is_sliding(layer: usize, period: usize) -> bool {
    !(layer + 1).is_multiple_of(period)
}
