//! Owns the keys of mixtures of experts; never touches how experts are computed or trained.

use model_zoo::config::ModelConfig;

use super::check::Rules;
use super::error::ConfigError;
use super::raw::{Family, RawConfig, RawModel};

/// Experts of a block and of a token when the configuration names none: as in Mixtral 8x7B.
pub(super) const DEFAULT_EXPERTS: usize = 8;
pub(super) const DEFAULT_EXPERTS_PER_TOKEN: usize = 2;
/// Factor of the load-balancing loss of a model with fresh weights: that of Mixtral 8x7B. Without it, a few experts
/// would soon do all the work.
pub(super) const DEFAULT_COEFFICIENT: f64 = 0.02;

/// The keys of `model:` by themselves.
pub(super) fn check_model(model: &RawModel, rules: &Rules<'_>) -> Result<(), ConfigError> {
    let keys = [("num_local_experts", model.num_local_experts), ("num_experts_per_tok", model.num_experts_per_tok)];
    for (name, value) in keys {
        let path = format!("model.{name}");
        rules.count(&path, value.map(|value| value as u64), 1..=1 << 10, "a number of experts")?;
        if value.is_some() && model.family != Some(Family::Mixtral) {
            let message = "only a Mixtral has experts";
            return Err(rules.places.invalid(&path, message, "delete it, or write `family: mixtral`"));
        }
    }
    Ok(())
}

/// The factor of the load-balancing loss: what the configuration says, else what goes with the model. `None` without
/// experts.
pub(super) fn coefficient(raw: &RawConfig, model: &ModelConfig) -> Result<Option<f64>, ConfigError> {
    let is_fresh = raw.base_model.is_none();
    match (model, raw.router_aux_loss_coef) {
        (ModelConfig::Mixtral(_), Some(coefficient)) => Ok(Some(coefficient)),
        (ModelConfig::Mixtral(config), None) if is_fresh => Ok(Some(config.router_aux_loss_coef)),
        (_, None) => Ok(model.router_aux_loss_coef()),
        (_, Some(_)) => {
            let message = format!("a {} has no experts whose load could be balanced", model.family_name());
            Err(raw.places.invalid("router_aux_loss_coef", message, "delete it"))
        }
    }
}
