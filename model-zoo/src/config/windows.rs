//! Owns which layers see only a window of earlier tokens; never touches the rest of a configuration.

use serde::{Deserialize, Serialize};

use super::ConfigError;
use super::rules::{MAX_POSITIONS, bounded, invalid};

/// What a layer attends to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LayerType {
    /// All earlier tokens.
    FullAttention,
    /// The tokens of a window.
    SlidingAttention,
}

/// Which layers see only a window of earlier tokens.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LayerWindows {
    /// Most tokens that a token sees in such a layer, itself included.
    pub sliding_window: usize,
    /// What each layer attends to.
    pub layer_types: Vec<LayerType>,
}

impl LayerWindows {
    /// The window of layer `layer`; `None` = all earlier tokens.
    #[must_use]
    pub fn of(&self, layer: usize) -> Option<usize> {
        (self.layer_types.get(layer) == Some(&LayerType::SlidingAttention)).then_some(self.sliding_window)
    }

    pub(super) fn validate(&self, num_hidden_layers: usize) -> Result<(), ConfigError> {
        bounded("sliding_window", self.sliding_window, MAX_POSITIONS)?;
        let count = self.layer_types.len();
        if count == num_hidden_layers {
            return Ok(());
        }
        invalid(format!("layer_types has {count} entries for num_hidden_layers = {num_hidden_layers}"))
    }
}
