//! Owns comparing forward passes: logits, hidden states, losses, greedy texts; never touches gradients.

use std::ops::ControlFlow;

use burn::tensor::Device;
use data_pipeline::loader::TokenBatch;
use model_zoo::generate::{GenerateOptions, Sampling, generate};
use model_zoo::{Model, Params};
use serde::Deserialize;

use super::bundle::{Bundle, StoredRows};
use super::difference::{Difference, RELATIVE_TOLERANCE, Worst};
use super::reference::host;
use super::{ParityError, Table};
use crate::hub::Imported;
use crate::step::{self, DeviceBatch};

/// Runs every comparison of forward passes.
pub fn compare(bundle: &Bundle, model: &Imported, device: &Device, table: &mut Table<'_>) -> Result<(), ParityError> {
    let elements = model.params.num_elements();
    let difference = elements.abs_diff(bundle.manifest.parameters as usize);
    table.add("parameters", difference as f64, 0.0, format!("{elements} elements"));
    logits_and_states(bundle, model, device, table)?;
    packed(bundle, model, device, table)?;
    perplexity(bundle, model, device, table)?;
    greedy(&bundle.json::<Vec<StoredText>>("generation.json")?, &model.model, &model.params, table)
}

fn logits_and_states(
    bundle: &Bundle,
    model: &Imported,
    device: &Device,
    table: &mut Table<'_>,
) -> Result<(), ParityError> {
    let reference = bundle.tensors("inference.safetensors")?;
    let stored = StoredRows::read(&reference, 0)?;
    let mask = reference.integers("attention_mask")?;
    let batch = upload(model, &stored.batch(None), device)?;

    let found = host(model.model.logits(&model.params, &batch.inputs))?;
    let logits =
        Difference::between(&reference.floats("logits")?, &found, |token| mask.get(token) == Some(&1), mask.len());
    logits.report("logits", bundle.manifest.tolerances.logits_abs, table);

    for (layer, state) in model.model.hidden_states(&model.params, &batch.inputs).into_iter().enumerate() {
        let expected = reference.floats(&format!("hidden.{layer}"))?;
        let found = host(state.narrow(0, 0, stored.seq_len))?;
        let state = Difference::between(&expected, &found, |_| true, stored.seq_len);
        table.add(format!("hidden state {layer}"), state.relative(), RELATIVE_TOLERANCE, state.detail());
    }
    loss("loss", bundle.manifest.loss, model, batch, bundle, table)
}

fn packed(bundle: &Bundle, model: &Imported, device: &Device, table: &mut Table<'_>) -> Result<(), ParityError> {
    let reference = bundle.tensors("packed.safetensors")?;
    let stored = StoredRows::read(&reference, 0)?;
    let small = |name: &str| -> Result<Vec<u32>, ParityError> {
        Ok(reference.integers(name)?.into_iter().map(|value| value as u32).collect())
    };
    let documents = (small("position_ids")?, small("segment_ids")?);
    let batch = upload(model, &stored.batch(Some(documents)), device)?;
    let found = host(model.model.logits(&model.params, &batch.inputs))?;
    let expected = reference.floats("logits")?;
    let logits = Difference::between(&expected, &found, |_| true, stored.ids.len());
    logits.report("packed logits", bundle.manifest.tolerances.logits_abs, table);
    loss("packed loss", bundle.manifest.packed_loss, model, batch, bundle, table)
}

fn loss(
    check: &str,
    expected: f64,
    model: &Imported,
    batch: DeviceBatch,
    bundle: &Bundle,
    table: &mut Table<'_>,
) -> Result<(), ParityError> {
    let sum = host(model.model.loss_sum(&model.params, &batch.inputs, batch.targets))?;
    let mean = sum.first().map_or(f64::NAN, |sum| f64::from(*sum) / batch.valid as f64);
    let detail = format!("{mean:.7} over {} targets", batch.valid);
    table.add(check, (mean - expected).abs(), bundle.manifest.tolerances.loss_abs, detail);
    Ok(())
}

#[derive(Deserialize)]
struct Perplexity {
    windows: Vec<Vec<u32>>,
    nll_per_token: Vec<Vec<f64>>,
    nll_mean: f64,
}

fn perplexity(bundle: &Bundle, model: &Imported, device: &Device, table: &mut Table<'_>) -> Result<(), ParityError> {
    let reference: Perplexity = bundle.json("perplexity.json")?;
    let (mut sum, mut count, mut worst) = (0.0, 0, Worst::default());
    for (window, expected) in reference.windows.iter().zip(&reference.nll_per_token) {
        let labels = window.iter().map(|id| i64::from(*id)).collect();
        let stored = StoredRows { rows: 1, seq_len: window.len(), ids: window.clone(), labels };
        let batch = upload(model, &stored.batch(None), device)?;
        let found = host(model.model.token_losses(&model.params, &batch.inputs, batch.targets))?;
        for (expected, found) in expected.iter().zip(found) {
            sum += f64::from(found);
            count += 1;
            worst.see((expected - f64::from(found)).abs(), || ());
        }
    }
    let mean = sum / f64::from(count);
    // A log-likelihood is a difference of logits.
    let tolerance = 2.0 * bundle.manifest.tolerances.logits_abs;
    table.add("token log-likelihoods", worst.value, tolerance, format!("{count} tokens"));
    let detail = format!("perplexity {:.5}", mean.exp());
    table.add("mean log-likelihood", (mean - reference.nll_mean).abs(), bundle.manifest.tolerances.loss_abs, detail);
    Ok(())
}

/// A greedy continuation as the reference stores it.
#[derive(Deserialize)]
pub struct StoredText {
    pub prompt_ids: Vec<u32>,
    pub new_ids: Vec<u32>,
    pub text: String,
}

/// Compares greedy continuations.
pub fn greedy(
    reference: &[StoredText],
    model: &Model,
    params: &Params,
    table: &mut Table<'_>,
) -> Result<(), ParityError> {
    let (mut differing, mut first) = (0, None);
    for case in reference {
        let options = GenerateOptions {
            max_new_tokens: case.new_ids.len(),
            sampling: Sampling::GREEDY,
            seed: 0,
            eos: Vec::new(),
        };
        let found = generate(model, params, &case.prompt_ids, &options, &mut |_| ControlFlow::Continue(()))?;
        if found.tokens != case.new_ids {
            differing += 1;
            let at = found.tokens.iter().zip(&case.new_ids).take_while(|(a, b)| a == b).count();
            first.get_or_insert(format!("token {at} of {:?}", case.text));
        }
    }
    table.add_cases("greedy texts", reference.len(), differing, first);
    Ok(())
}

fn upload(model: &Imported, batch: &TokenBatch, device: &Device) -> Result<DeviceBatch, ParityError> {
    step::check_positions(batch, &model.model)?;
    Ok(step::to_device(batch, model.model.vocab_size(), device)?)
}
