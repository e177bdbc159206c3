//! Owns comparing passes whose matrix products are in bf16 with the reference in f32; never touches optimizer steps.

use burn::tensor::Device;
use model_zoo::{Model, Precision};

use super::bundle::{Bundle, StoredRows};
use super::difference::Difference;
use super::reference::host;
use super::{ParityError, Table};
use crate::hub::Imported;
use crate::step::{self, summed_gradients};

/// Logits may be so many times further from the reference than those of PyTorch in bf16: its rounding errors and ours
/// are two draws of the same size.
const LOGITS_FACTOR: f64 = 2.0;
/// Largest `1 - cosine` of the gradient of a batch and its reference.
const COSINE_TOLERANCE: f64 = 2e-3;
/// Largest difference of their norms, as a part of the reference's.
const NORM_TOLERANCE: f64 = 2e-2;

/// Compares the logits and the gradient of the first batch.
pub fn compare(
    bundle: &Bundle,
    imported: &Imported,
    device: &Device,
    table: &mut Table<'_>,
) -> Result<(), ParityError> {
    let Ok(model) = Model::new(imported.model.config()) else { return Ok(()) };
    let model = model.with_precision(Precision::Bf16Mixed);
    if let Some(peer) = bundle.manifest.bf16_compute_logits_max_abs_diff {
        logits(bundle, imported, &model, device, peer, table)?;
    }
    if bundle.manifest.training.is_some() {
        gradient(bundle, imported, &model, device, table)?;
    }
    Ok(())
}

fn logits(
    bundle: &Bundle,
    imported: &Imported,
    model: &Model,
    device: &Device,
    peer: f64,
    table: &mut Table<'_>,
) -> Result<(), ParityError> {
    let reference = bundle.tensors("inference.safetensors")?;
    let stored = StoredRows::read(&reference, 0)?;
    let mask = reference.integers("attention_mask")?;
    let batch = step::to_device(&stored.batch(None), model.vocab_size(), device)?;
    let found = host(model.logits(&imported.params, &batch.inputs))?;
    let expected = reference.floats("logits")?;
    let logits = Difference::between(&expected, &found, |token| mask.get(token) == Some(&1), mask.len());
    let detail = format!("PyTorch in bf16: {peer:.3e}; {}", logits.detail());
    table.add("logits, bf16-mixed", logits.largest(), LOGITS_FACTOR * peer, detail);
    Ok(())
}

fn gradient(
    bundle: &Bundle,
    imported: &Imported,
    model: &Model,
    device: &Device,
    table: &mut Table<'_>,
) -> Result<(), ParityError> {
    let batches = bundle.tensors("train_batches.safetensors")?;
    let batch = StoredRows::read(&batches, 0)?.batch(None);
    let found = summed_gradients(model, &imported.params, &[&batch], device)?;
    let reference = bundle.tensors("grads_step0.safetensors")?;
    let (mut product, mut expected_square, mut found_square) = (0.0, 0.0, 0.0);
    for (spec, gradient) in imported.params.specs().iter().zip(found.grads) {
        for (e, f) in reference.floats(&spec.name)?.into_iter().zip(host(gradient)?) {
            let (e, f) = (f64::from(e), f64::from(f) / found.valid as f64);
            product += e * f;
            expected_square += e * e;
            found_square += f * f;
        }
    }
    let (expected, found) = (expected_square.sqrt(), found_square.sqrt());
    let detail = format!("1 - cosine with the gradient in f32, {} tensors", imported.params.specs().len());
    table.add("gradient, bf16-mixed", 1.0 - product / (expected * found), COSINE_TOLERANCE, detail);
    let detail = format!("{found:.7}");
    table.add("gradient norm, bf16-mixed", (found - expected).abs() / expected, NORM_TOLERANCE, detail);
    Ok(())
}
