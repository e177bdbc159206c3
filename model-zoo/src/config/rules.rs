//! Owns rules that several families share; never touches keys of one family.

use super::ConfigError;

/// Ceilings against hostile or mistyped configurations, far above any published model. They keep every size and
/// element count inside 64 bits.
pub(super) const MAX_VOCAB_SIZE: usize = 1 << 24;
pub(super) const MAX_WIDTH: usize = 1 << 18;
pub(super) const MAX_LAYERS: usize = 1 << 12;
pub(super) const MAX_HEADS: usize = 1 << 14;
pub(super) const MAX_POSITIONS: usize = 1 << 26;

/// Refuses 0 and what lies above a ceiling.
pub(super) fn bounded(key: &str, value: usize, max: usize) -> Result<(), ConfigError> {
    if (1..=max).contains(&value) { Ok(()) } else { invalid(format!("{key} is {value}, outside 1..={max}")) }
}

/// Refuses what is no positive number.
pub(super) fn positive(key: &str, value: f64) -> Result<(), ConfigError> {
    if value.is_finite() && value > 0.0 { Ok(()) } else { invalid(format!("{key} is {value}, not a positive number")) }
}

/// The refusal itself.
pub(super) fn invalid<T>(what: String) -> Result<T, ConfigError> {
    Err(ConfigError::Invalid { what })
}
