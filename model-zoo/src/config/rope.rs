//! Owns what rotary positions are made of; never touches angles.

use serde::{Deserialize, Serialize};

use super::ConfigError;
use super::rules::{MAX_POSITIONS, bounded, invalid, positive};

/// How rotary frequencies are stretched beyond the context of pre-training.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "rope_type", rename_all = "snake_case", deny_unknown_fields)]
pub enum RopeScaling {
    /// Not at all.
    #[serde(rename = "default")]
    None,
    /// All frequencies divided by one number: positions between those of pre-training (S. Chen et al. 2023,
    /// "Extending Context Window of Large Language Models via Positional Interpolation").
    Linear {
        /// Divisor.
        factor: f64,
    },
    /// Llama 3.1's blend of scaled and unscaled frequencies.
    Llama3 {
        /// Divisor of low frequencies.
        factor: f64,
        /// Wavelengths above `original / low_freq_factor` are scaled fully.
        low_freq_factor: f64,
        /// Wavelengths below `original / high_freq_factor` are not scaled.
        high_freq_factor: f64,
        /// Context length before scaling, tokens.
        original_max_position_embeddings: usize,
    },
}

/// Rotary position embedding.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RopeConfig {
    /// Base of the geometric series of frequencies.
    pub theta: f64,
    /// Scaling of the frequencies.
    pub scaling: RopeScaling,
}

impl RopeConfig {
    /// Checks every rule of rotary positions; `key` names the base.
    pub(super) fn validate(&self, key: &str) -> Result<(), ConfigError> {
        positive(key, self.theta)?;
        match self.scaling {
            RopeScaling::None => Ok(()),
            RopeScaling::Linear { factor } => positive("rope_scaling.factor", factor),
            RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_position_embeddings } => {
                positive("rope_scaling.factor", factor)?;
                positive("rope_scaling.low_freq_factor", low_freq_factor)?;
                positive("rope_scaling.high_freq_factor", high_freq_factor)?;
                let (key, original) =
                    ("rope_scaling.original_max_position_embeddings", original_max_position_embeddings);
                bounded(key, original, MAX_POSITIONS)?;
                if low_freq_factor >= high_freq_factor {
                    return invalid(format!(
                        "rope_scaling.low_freq_factor ({low_freq_factor}) is not below high_freq_factor \
                         ({high_freq_factor})"
                    ));
                }
                Ok(())
            }
        }
    }
}
