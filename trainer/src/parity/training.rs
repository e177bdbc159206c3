//! Owns comparing gradients and optimizer steps; never defines them: they come from the modules that train.

use std::collections::BTreeMap;

use burn::tensor::{Device, Tensor};
use data_pipeline::loader::TokenBatch;
use model_zoo::{ParamSpec, Params};

use super::bundle::{Accumulation, Bundle, StoredRows, Tolerances, Training};
use super::difference::Worst;
use super::{ParityError, Table};
use crate::hub::Imported;
use crate::optim::{Optimizer, OptimizerHyper, clip_scale, grad_norm};
use crate::step::{StepGradients, summed_gradients};
use crate::tensor_file::TensorFile;

/// Steps after which parameters are compared.
const COMPARED_STEPS: [usize; 2] = [1, 10];

/// Runs every comparison of training.
pub fn compare(bundle: &Bundle, model: &Imported, device: &Device, table: &mut Table<'_>) -> Result<(), ParityError> {
    let Some(training) = &bundle.manifest.training else { return Ok(()) };
    let tolerances = &bundle.manifest.tolerances;
    let batches = bundle.tensors("train_batches.safetensors")?;
    decay_groups(training, model, table);

    let first = summed_gradients(&model.model, &model.params, &[&batch(&batches, 0)?], device)?;
    gradients(bundle, training, &first, model, table)?;
    accumulation(&training.grad_accumulation, &batches, model, device, tolerances, table)?;
    let explained = explained_by_gradients(bundle, training, &first, model)?;
    steps(bundle, training, &batches, model, device, &explained, table)
}

fn batch(batches: &TensorFile, index: usize) -> Result<TokenBatch, ParityError> {
    Ok(StoredRows::read(batches, index)?.batch(None))
}

fn decay_groups(training: &Training, model: &Imported, table: &mut Table<'_>) {
    let wrong = |name: &str, decay: bool| {
        let (with, without) = (training.decay.iter(), training.no_decay.iter());
        let expected = if decay { with.clone().any(|n| n == name) } else { without.clone().any(|n| n == name) };
        !expected
    };
    let mut differing = model.params.specs().iter().filter(|spec| wrong(&spec.name, spec.decay));
    let first = differing.next().map(|spec| spec.name.clone());
    let count = differing.count() + usize::from(first.is_some());
    table.add_cases("weight decay groups", model.params.specs().len(), count, first);
}

fn gradients(
    bundle: &Bundle,
    training: &Training,
    step: &StepGradients,
    model: &Imported,
    table: &mut Table<'_>,
) -> Result<(), ParityError> {
    let tolerance = bundle.manifest.tolerances.grad_norm_rel;
    norms("gradient norms", step, &training.grad_norms_step0, model, tolerance, table)?;
    let reference = bundle.tensors("grads_step0.safetensors")?;
    let mut worst = Worst::<String>::default();
    for (spec, grad) in model.params.specs().iter().zip(&step.grads) {
        let expected = reference.floats(&spec.name)?;
        let found = host(grad)?;
        let scale = 1.0 / step.valid as f64;
        let pairs = expected.iter().zip(&found).map(|(e, f)| (f64::from(*e), f64::from(*f) * scale));
        let (apart, size) = pairs.fold((0.0, 0.0), |(apart, size), (e, f)| (apart + (e - f).powi(2), size + e * e));
        worst.see((apart / size).sqrt(), || spec.name.clone());
    }
    table.add("gradients", worst.value, tolerance, format!("relative distance of each tensor, worst {}", worst.place));
    Ok(())
}

/// Compares the norm of each mean gradient, relative to the expected one.
fn norms(
    check: &str,
    step: &StepGradients,
    expected: &BTreeMap<String, f64>,
    model: &Imported,
    tolerance: f64,
    table: &mut Table<'_>,
) -> Result<(), ParityError> {
    let mut worst = Worst::<String>::default();
    for (spec, grad) in model.params.specs().iter().zip(&step.grads) {
        let found = grad_norm(std::slice::from_ref(grad), step.valid);
        let relative = expected.get(&spec.name).map_or(f64::INFINITY, |norm| (found - norm).abs() / norm);
        worst.see(relative, || spec.name.clone());
    }
    let surplus = expected.len().abs_diff(step.grads.len());
    let value = if surplus == 0 { worst.value } else { f64::INFINITY };
    table.add(check, value, tolerance, format!("{} tensors, worst {}", step.grads.len(), worst.place));
    Ok(())
}

fn accumulation(
    expected: &Accumulation,
    batches: &TensorFile,
    model: &Imported,
    device: &Device,
    tolerances: &Tolerances,
    table: &mut Table<'_>,
) -> Result<(), ParityError> {
    let summed = expected.batches.iter().map(|index| batch(batches, *index)).collect::<Result<Vec<_>, _>>()?;
    let total = summed_gradients(&model.model, &model.params, &summed.iter().collect::<Vec<_>>(), device)?;
    let tokens = total.valid.abs_diff(expected.target_tokens);
    table.add("accumulated targets", tokens as f64, 0.0, format!("{} targets", total.valid));
    let norm = grad_norm(&total.grads, total.valid);
    let relative = (norm - expected.global_grad_norm).abs() / expected.global_grad_norm;
    table.add("accumulated global norm", relative, tolerances.grad_norm_rel, format!("{norm:.7}"));
    norms("accumulated norms", &total, &expected.grad_norms, model, tolerances.grad_norm_rel, table)
}

fn steps(
    bundle: &Bundle,
    training: &Training,
    batches: &TensorFile,
    model: &Imported,
    device: &Device,
    explained: &[Vec<f64>],
    table: &mut Table<'_>,
) -> Result<(), ParityError> {
    let hyper = OptimizerHyper {
        beta1: training.betas[0],
        beta2: training.betas[1],
        eps: training.eps,
        weight_decay: training.weight_decay,
        max_grad_norm: Some(training.clip_grad_norm),
        muon_momentum: None,
    };
    let mut params = model.params.clone();
    let mut optimizer = Optimizer::new(hyper, &params, device);
    let (mut worst_loss, mut worst_norm, mut clipped) = (Worst::default(), Worst::default(), 0);
    let expected = training.loss_per_step.iter().zip(&training.grad_norm_per_step_before_clip);
    for (index, (lr, (loss, norm))) in training.lr_per_step.iter().zip(expected).enumerate() {
        let step = summed_gradients(&model.model, &params, &[&batch(batches, index)?], device)?;
        let mean = step.loss_sum / step.valid as f64;
        let stats = optimizer.step(&mut params, step.grads, step.valid, *lr);
        worst_loss.see((mean - loss).abs(), || index);
        worst_norm.see((stats.grad_norm - norm).abs() / norm, || index);
        clipped += usize::from(stats.clipped);
        if COMPARED_STEPS.contains(&(index + 1)) {
            parameters(bundle, index + 1, &params, explained, table)?;
        }
    }
    let count = training.lr_per_step.len();
    let tolerances = &bundle.manifest.tolerances;
    table.add(
        "loss of every step",
        worst_loss.value,
        tolerances.loss_abs,
        format!("{count} steps, worst at {}", worst_loss.place),
    );
    table.add(
        "norm of every step",
        worst_norm.value,
        tolerances.grad_norm_rel,
        format!("{clipped} of {count} clipped, worst at {}", worst_norm.place),
    );
    Ok(())
}

/// How far apart the first AdamW step of each element is for the expected and for the found gradient.
///
/// The first step is `lr * g / (|g| + eps)`: where a gradient is as small as `eps`, rounding it in another order turns
/// it into a visible part of the learning rate. The gradients themselves are compared above; here only what they do
/// not explain counts.
fn explained_by_gradients(
    bundle: &Bundle,
    training: &Training,
    found: &StepGradients,
    model: &Imported,
) -> Result<Vec<Vec<f64>>, ParityError> {
    let reference = bundle.tensors("grads_step0.safetensors")?;
    let lr = training.lr_per_step.first().copied().unwrap_or_default();
    let expected_norm = training.grad_norm_per_step_before_clip.first().copied().unwrap_or_default();
    let found_norm = grad_norm(&found.grads, found.valid);
    let expected_scale = clip_scale(expected_norm, training.clip_grad_norm);
    let found_scale = clip_scale(found_norm, training.clip_grad_norm) / found.valid as f64;
    let step = |gradient: f64| lr * gradient / (gradient.abs() + training.eps);
    let apart = |(e, f): (&f32, f32)| (step(f64::from(*e) * expected_scale) - step(f64::from(f) * found_scale)).abs();
    let of_tensor = |(spec, grad): (&ParamSpec, &Tensor<1>)| -> Result<Vec<f64>, ParityError> {
        Ok(reference.floats(&spec.name)?.iter().zip(host(grad)?).map(apart).collect())
    };
    model.params.specs().iter().zip(&found.grads).map(of_tensor).collect()
}

/// Compares all parameters after `steps`: the mean difference first, because Adam turns a gradient near 0 into a step
/// of the learning rate in either direction.
fn parameters(
    bundle: &Bundle,
    steps: usize,
    params: &Params,
    explained: &[Vec<f64>],
    table: &mut Table<'_>,
) -> Result<(), ParityError> {
    let reference = bundle.tensors(&format!("params_step{steps}.safetensors"))?;
    let (mut sum, mut count) = (0.0, 0);
    let (mut worst, mut largest) = (Worst::<String>::default(), Worst::<()>::default());
    for ((index, spec), explained) in params.specs().iter().enumerate().zip(explained) {
        let pairs = reference.floats(&spec.name)?.into_iter().zip(params.to_host(index)?);
        for ((expected, found), explained) in pairs.zip(explained) {
            let difference = (f64::from(expected) - f64::from(found)).abs();
            sum += difference;
            count += 1;
            largest.see(difference, || ());
            let excess = if steps == 1 { (difference - explained).max(0.0) } else { difference };
            worst.see(if difference.is_nan() { difference } else { excess }, || spec.name.clone());
        }
    }
    let tolerances = &bundle.manifest.tolerances;
    let (mean_tolerance, max_tolerance) = match steps {
        1 => (tolerances.params_step1_mean_abs, tolerances.params_step1_abs),
        _ => (tolerances.params_step10_mean_abs, tolerances.params_step10_abs),
    };
    let name = if steps == 1 { "1 AdamW step".into() } else { format!("{steps} AdamW steps") };
    table.add(format!("{name}, mean"), sum / f64::from(count), mean_tolerance, format!("{count} elements"));
    let detail = match steps {
        1 => format!("beyond what the gradients explain; {:.2e} in all; worst in {}", largest.value, worst.place),
        _ => format!("worst in {}", worst.place),
    };
    table.add(format!("{name}, largest"), worst.value, max_tolerance, detail);
    Ok(())
}

fn host(tensor: &Tensor<1>) -> Result<Vec<f32>, ParityError> {
    let values = tensor.clone().try_into_vec_as::<f32>();
    values.map_err(|error| ParityError::Read { cause: error.to_string() })
}
