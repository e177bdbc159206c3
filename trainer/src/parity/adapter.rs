//! Owns comparing an adapter on its base with stored results: answers, merged tensors, gradients, optimizer steps; never
//! defines any of them.
//!
//! Such a bundle has `adapter/` and `expected/`; its base, inputs and training batches are those of the bundle beside
//! it that its manifest names.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use burn::tensor::{Device, Tensor};
use model_zoo::{FrozenBase, Model, Params};
use serde::Deserialize;

use super::bundle::{Bundle, StoredRows, Tolerances, read_json};
use super::difference::{Difference, Worst};
use super::inference::greedy;
use super::reference::host;
use super::{ParityError, Table};
use crate::adapter::{self, AdapterDir};
use crate::hub;
use crate::optim::{Optimizer, OptimizerHyper, grad_norm};
use crate::step::{self, StepGradients, summed_gradients};
use crate::tensor_file::TensorFile;

/// Largest difference of a merged tensor: a rounding of a sum of a few products, as a part of the largest value.
const MERGED_TOLERANCE: f64 = 2e-6;
/// Largest difference of a parameter after Adam steps, as a multiple of what rounding alone does to it (the manifest's
/// comparison of f32 with f64): a gradient near 0 becomes a visible part of the learning rate.
const NOISE_FACTOR: f64 = 30.0;

/// `expected/manifest.json`, as far as it is compared.
#[derive(Deserialize)]
struct Manifest {
    name: String,
    base: String,
    scaling: f64,
    loss: f64,
    base_loss: f64,
    tolerances: Tolerances,
    training: Training,
}

#[derive(Deserialize)]
struct Training {
    betas: [f64; 2],
    eps: f64,
    weight_decay: f64,
    clip_grad_norm: f64,
    lr_per_step: Vec<f64>,
    loss_per_step: Vec<f64>,
    grad_norm_per_step_before_clip: Vec<f64>,
    grad_norms_step0: BTreeMap<String, f64>,
    noise_f32_vs_f64: BTreeMap<String, f64>,
}

struct Adapted<'a> {
    manifest: &'a Manifest,
    expected: &'a Path,
    base: &'a Bundle,
    model: Model,
    params: Params,
    device: &'a Device,
}

/// Runs every comparison of the adapter bundle in `dir`; gives its name.
pub fn run(dir: &Path, device: &Device, table: &mut Table<'_>) -> Result<String, ParityError> {
    let expected = dir.join("expected");
    let manifest: Manifest = read_json(&expected.join("manifest.json"))?;
    if Path::new(&manifest.base).file_name() != Some(manifest.base.as_ref()) {
        let cause = format!("base {:?} is no name of a bundle beside this one", manifest.base);
        return Err(ParityError::NotABundle { dir: dir.to_owned(), cause });
    }
    let base = Bundle::open(&dir.join("..").join(&manifest.base))?;
    let imported = hub::import(&base.hub, device)?;
    let opened = AdapterDir::open(&dir.join("adapter"))?;
    let spec = opened.config.spec(&imported.model)?;
    let scaling = spec.modules.iter().map(|module| (module.scale - manifest.scaling).abs()).fold(0.0, f64::max);
    table.add("scaling", scaling, 1e-12, format!("{} layers, {}", spec.modules.len(), manifest.scaling));
    let frozen = Arc::new(FrozenBase::of_params(&imported.params));
    let model = adapter::adapted_model(imported.model, &opened.config, frozen)?;
    let params = opened.params(&model.specs(), device)?;
    let whole = (model.clone().without_adapter(), imported.params);
    let adapted = Adapted { manifest: &manifest, expected: &expected, base: &base, model, params, device };
    adapted.answers(&whole, table)?;
    adapted.merged(table)?;
    adapted.training(table)?;
    Ok(manifest.name)
}

impl Adapted<'_> {
    fn tensors(&self, name: &str) -> Result<TensorFile, ParityError> {
        Ok(TensorFile::open(&self.expected.join(name))?)
    }

    fn answers(&self, base: &(Model, Params), table: &mut Table<'_>) -> Result<(), ParityError> {
        let inputs = self.base.tensors("inference.safetensors")?;
        let (stored, mask) = (StoredRows::read(&inputs, 0)?, inputs.integers("attention_mask")?);
        let batch = step::to_device(&stored.batch(None), self.model.vocab_size(), self.device)?;
        let found = host(self.model.logits(&self.params, &batch.inputs))?;
        let expected = self.tensors("inference.safetensors")?.floats("logits_adapter")?;
        let logits = Difference::between(&expected, &found, |token| mask.get(token) == Some(&1), mask.len());
        logits.report("logits", self.manifest.tolerances.logits_abs, table);
        let losses = [
            ("loss", self.manifest.loss, &self.model, &self.params),
            ("loss of the base", self.manifest.base_loss, &base.0, &base.1),
        ];
        for (check, expected, model, params) in losses {
            let sum = host(model.loss_sum(params, &batch.inputs, batch.targets.clone()))?;
            let mean = sum.first().map_or(f64::NAN, |sum| f64::from(*sum) / batch.valid as f64);
            let detail = format!("{mean:.7} over {} targets", batch.valid);
            table.add(check, (mean - expected).abs(), self.manifest.tolerances.loss_abs, detail);
        }
        let texts: Vec<super::inference::StoredText> = read_json(&self.expected.join("generation.json"))?;
        greedy(&texts, &self.model, &self.params, table)
    }

    fn merged(&self, table: &mut Table<'_>) -> Result<(), ParityError> {
        let merged = adapter::merge(&self.model, &self.params, self.device)?;
        let closeness = merged.closeness;
        let detail = format!("divergence {:.1e} nats a token", closeness.kl);
        table.add("merged beside adapted", closeness.max_difference, closeness.tolerance(), detail);
        if !self.expected.join("merged.safetensors").is_file() {
            return Ok(());
        }
        let reference = self.tensors("merged.safetensors")?;
        let (mut worst, mut compared) = (Worst::<String>::default(), 0);
        for (index, spec) in merged.params.specs().iter().enumerate() {
            if reference.info(&spec.name).is_none() {
                continue;
            }
            compared += 1;
            let expected = reference.floats(&spec.name)?;
            let peak = expected.iter().fold(0.0_f64, |peak, value| peak.max(f64::from(value.abs())));
            for (expected, found) in expected.iter().zip(merged.params.to_host(index)?) {
                worst.see((f64::from(*expected) - f64::from(found)).abs() / peak, || spec.name.clone());
            }
        }
        let missing = reference.names().len().abs_diff(compared);
        let value = if missing == 0 { worst.value } else { f64::INFINITY };
        table.add("merged tensors", value, MERGED_TOLERANCE, format!("{compared} tensors, worst {}", worst.place));
        Ok(())
    }

    fn training(&self, table: &mut Table<'_>) -> Result<(), ParityError> {
        let training = &self.manifest.training;
        let batches = self.base.tensors("train_batches.safetensors")?;
        let hyper = OptimizerHyper {
            beta1: training.betas[0],
            beta2: training.betas[1],
            eps: training.eps,
            weight_decay: training.weight_decay,
            max_grad_norm: Some(training.clip_grad_norm),
            muon_momentum: None,
        };
        let mut params = self.params.clone();
        let mut optimizer = Optimizer::new(hyper, &params, self.device);
        let (mut worst_loss, mut worst_norm) = (Worst::default(), Worst::default());
        let expected = training.loss_per_step.iter().zip(&training.grad_norm_per_step_before_clip);
        for (index, (lr, (loss, norm))) in training.lr_per_step.iter().zip(expected).enumerate() {
            let batch = StoredRows::read(&batches, index)?.batch(None);
            let step = summed_gradients(&self.model, &params, &[&batch], self.device)?;
            if index == 0 {
                self.gradients(&step, table)?;
            }
            worst_loss.see((step.loss_sum / step.valid as f64 - loss).abs(), || index);
            let stats = optimizer.step(&mut params, step.grads, step.valid, *lr);
            worst_norm.see((stats.grad_norm - norm).abs() / norm, || index);
            if [1, 10].contains(&(index + 1)) {
                self.after_steps(index + 1, &params, table)?;
            }
        }
        let (tolerances, count) = (&self.manifest.tolerances, training.lr_per_step.len());
        let detail = |worst: usize| format!("{count} steps, worst at {worst}");
        table.add("loss of every step", worst_loss.value, tolerances.loss_abs, detail(worst_loss.place));
        table.add("norm of every step", worst_norm.value, tolerances.grad_norm_rel, detail(worst_norm.place));
        Ok(())
    }

    fn gradients(&self, step: &StepGradients, table: &mut Table<'_>) -> Result<(), ParityError> {
        let (reference, norms) = (self.tensors("grads_step0.safetensors")?, &self.manifest.training.grad_norms_step0);
        let (mut worst_norm, mut worst) = (Worst::<String>::default(), Worst::<String>::default());
        for (spec, grad) in self.params.specs().iter().zip(&step.grads) {
            let found = grad_norm(std::slice::from_ref(grad), step.valid);
            let relative = norms.get(&spec.name).map_or(f64::INFINITY, |norm| (found - norm).abs() / norm);
            worst_norm.see(relative, || spec.name.clone());
            let pairs = reference.floats(&spec.name)?.into_iter().zip(values(grad)?);
            let (apart, size) = pairs.fold((0.0, 0.0), |(apart, size), (expected, found)| {
                let (expected, found) = (f64::from(expected), f64::from(found) / step.valid as f64);
                (apart + (expected - found).powi(2), size + expected * expected)
            });
            worst.see((apart / size).sqrt(), || spec.name.clone());
        }
        let tolerance = self.manifest.tolerances.grad_norm_rel;
        let surplus = norms.len().abs_diff(step.grads.len());
        let value = if surplus == 0 { worst_norm.value } else { f64::INFINITY };
        let detail = format!("{} tensors, worst {}", step.grads.len(), worst_norm.place);
        table.add("gradient norms", value, tolerance, detail);
        table.add("gradients", worst.value, tolerance, format!("relative distance, worst {}", worst.place));
        Ok(())
    }

    fn after_steps(&self, steps: usize, params: &Params, table: &mut Table<'_>) -> Result<(), ParityError> {
        let file = format!("adapter_step{steps}");
        let reference = self.tensors(&format!("{file}.safetensors"))?;
        let (mut sum, mut count, mut worst) = (0.0, 0_u32, Worst::<String>::default());
        for (index, spec) in params.specs().iter().enumerate() {
            for (expected, found) in reference.floats(&spec.name)?.into_iter().zip(params.to_host(index)?) {
                let difference = (f64::from(expected) - f64::from(found)).abs();
                (sum, count) = (sum + difference, count + 1);
                worst.see(difference, || spec.name.clone());
            }
        }
        let name = if steps == 1 { "1 AdamW step".to_owned() } else { format!("{steps} AdamW steps") };
        let mean_tolerance = self.manifest.tolerances.params_step10_mean_abs;
        table.add(format!("{name}, mean"), sum / f64::from(count), mean_tolerance, format!("{count} elements"));
        let noise = self.manifest.training.noise_f32_vs_f64.get(&file).copied().unwrap_or_default();
        let detail = format!("rounding alone does {noise:.1e}; worst in {}", worst.place);
        table.add(format!("{name}, largest"), worst.value, NOISE_FACTOR * noise, detail);
        Ok(())
    }
}

fn values(tensor: &Tensor<1>) -> Result<Vec<f32>, ParityError> {
    host(tensor.clone())
}
