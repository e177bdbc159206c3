//! Owns opening a frozen base and putting an adapter on it; never touches training.

use std::path::Path;
use std::sync::Arc;

use burn::tensor::Device;
use model_zoo::{BaseFormat, FrozenBase, Model, Params};

use super::config::{AdapterPlan, LoraConfig};
use super::{AdapterFileError, peft};
use crate::checkpoint::read::{SavedAdapter, SavedModel};
use crate::hub::{self, HubError};

/// Reads the weights of a Hugging Face directory into the number format in which they stay frozen: one tensor at a time,
/// so memory holds what is kept and the largest tensor.
///
/// # Errors
/// When the directory does not hold the tensors of `model`, or nf4 is asked for on another device than the CPU.
pub fn load_base(
    dir: &Path,
    model: &Model,
    format: BaseFormat,
    device: &Device,
) -> Result<Arc<FrozenBase>, AdapterFileError> {
    if format == BaseFormat::Nf4 && *device != Device::flex() {
        return Err(AdapterFileError::Device { device: format!("{device:?}") });
    }
    let mut tensors = hub::OpenedWeights::open(dir, model)?;
    let (specs, linear) = (model.family_specs(), model.linear_params());
    let base = FrozenBase::load::<AdapterFileError>(specs, &linear, format, device, |spec| Ok(tensors.read(spec)?))?;
    Ok(Arc::new(base))
}

/// `model` on a frozen base with `lora` on top.
///
/// # Errors
/// When the adapter does not fit.
pub fn adapted_model(model: Model, lora: &LoraConfig, base: Arc<FrozenBase>) -> Result<Model, AdapterFileError> {
    let spec = lora.spec(&model)?;
    Ok(model.with_adapter(&spec, base)?)
}

/// The adapted model of a checkpoint: on `base`, or on the directory that its run named.
///
/// # Errors
/// [`AdapterFileError::OtherBase`] when the weights there are not those that the adapter was trained on.
pub fn saved_model(
    saved: &SavedModel,
    adapter: &SavedAdapter,
    base: Option<&Path>,
    device: &Device,
) -> Result<Model, AdapterFileError> {
    let dir = base.unwrap_or(&adapter.base_model);
    let model = Model::new(&saved.config).map_err(|source| HubError::Config { path: dir.to_owned(), source })?;
    let found = hub::weights_digest(dir)?;
    if found != adapter.base_weights {
        let short = |digest: &str| digest.chars().take(16).collect();
        let (found, expected) = (short(&found), short(&adapter.base_weights));
        return Err(AdapterFileError::OtherBase { path: dir.to_owned(), found, expected });
    }
    let base = load_base(dir, &model, adapter.plan.base, device)?;
    adapted_model(model, &adapter.plan.lora, base)
}

/// The parameters that a fresh run of an adapted model starts from: those of the adapter named in the plan, or fresh
/// ones.
///
/// # Errors
/// When that adapter cannot be read or does not fit.
pub fn first_params(plan: &AdapterPlan, model: &Model, seed: u64, device: &Device) -> Result<Params, AdapterFileError> {
    match &plan.start {
        None => Ok(model.initial_params(seed, device)?),
        Some(start) => peft::AdapterDir::open(&start.path)?.params(&model.specs(), device),
    }
}
