//! Owns writing a reference bundle from an exported model: what servers must answer; never compares.
//!
//! The files are those that [`super::run`] reads, so any program that checks bundles (ours, or scripts that open the
//! export in transformers, vLLM, llama.cpp) can say whether a server answers as the trained model did. Training
//! references are not written: a bundle made by the program under test would prove nothing about its gradients.

use std::fs;
use std::ops::ControlFlow;
use std::path::Path;

use burn::tensor::{Device, Tensor};
use data_pipeline::tokenizer::Tokenizer;
use model_zoo::generate::{GenerateOptions, Sampling, generate};
use safetensors::Dtype;
use serde_json::{Value, json};

use super::ParityError;
use super::bundle::{IGNORED_LABEL, StoredRows};
use super::difference::RELATIVE_TOLERANCE;
use crate::durable::{FileError, create_folder, sync_folder, write_atomic};
use crate::hub::{self, Imported, PROBE_TEXTS};
use crate::step;
use crate::tensor_file::{self, Entry};

/// Tokens of a row of the forward reference; shorter for models with a shorter context.
const MAX_SEQ_LEN: usize = 64;
/// Tokens of each greedy continuation.
const NEW_TOKENS: usize = 24;
/// Prompts of the continuations: one a script and language.
const PROMPTS: [&str; 5] = ["السلام", "wach", "ⴰⵣⵓⵍ", "Le Maroc", "في"];

/// Writes the answers of the model in `hub_dir` to the new folder `out`: logits and hidden states, packed rows, token
/// log-likelihoods, greedy continuations with their margins, token ids of texts.
///
/// # Errors
/// [`ParityError`] when `out` exists, the model cannot be opened or the disk refuses; `out` is then not there.
pub fn write_reference(hub_dir: &Path, out: &Path, device: &Device) -> Result<(), ParityError> {
    if out.symlink_metadata().is_ok() {
        return Err(hub::HubError::Exists { path: out.to_owned() }.into());
    }
    let imported = hub::import(hub_dir, device)?;
    let tokenizer = Tokenizer::open(&hub_dir.join("tokenizer.json"))?;
    let parent = out.parent().filter(|path| !path.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = out.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let partial = parent.join(format!(".{name}.partial-{}", std::process::id()));
    create_folder(&partial)?;
    let writer = Writer { imported: &imported, tokenizer: &tokenizer, device, dir: &partial };
    let written = writer.write(&name).and_then(|()| {
        fs::rename(&partial, out).map_err(FileError::at(out, "put the reference into place"))?;
        Ok(sync_folder(parent)?)
    });
    if written.is_err() {
        // The failure itself is what the caller must hear about; a leftover is hidden and harmless.
        let _ = fs::remove_dir_all(&partial);
    }
    written
}

struct Writer<'a> {
    imported: &'a Imported,
    tokenizer: &'a Tokenizer,
    device: &'a Device,
    dir: &'a Path,
}

impl Writer<'_> {
    fn write(&self, name: &str) -> Result<(), ParityError> {
        let ids = self.text_ids()?;
        let (loss, peak) = self.inference(&ids)?;
        let packed_loss = self.packed(&ids)?;
        self.perplexity(&ids)?;
        self.generation()?;
        self.tokenizer_cases()?;
        let manifest = json!({
            "name": name,
            "parameters": self.imported.params.num_elements(),
            "loss": loss,
            "packed_loss": packed_loss,
            "tolerances": { "logits_abs": (RELATIVE_TOLERANCE * peak).max(1e-4), "loss_abs": 1e-5 },
            "made_by": format!("jazari {}", env!("CARGO_PKG_VERSION")),
        });
        self.json("manifest.json", &manifest)?;
        Ok(sync_folder(self.dir)?)
    }

    /// Ids of the probe texts one after another, as often as two rows need.
    fn text_ids(&self) -> Result<Vec<u32>, ParityError> {
        let mut ids = Vec::new();
        while ids.len() < 2 * MAX_SEQ_LEN {
            let before = ids.len();
            for text in PROBE_TEXTS {
                ids.extend(self.tokenizer.encode(text, true)?);
            }
            if ids.len() == before {
                ids.push(0);
            }
        }
        Ok(ids)
    }

    fn seq_len(&self) -> usize {
        MAX_SEQ_LEN.min(self.imported.model.config().max_positions())
    }

    /// Two rows, the second padded to three quarters; returns the mean loss and the largest logit.
    fn inference(&self, ids: &[u32]) -> Result<(f64, f64), ParityError> {
        let seq_len = self.seq_len();
        let real = (seq_len * 3 / 4).max(1);
        let mut rows: Vec<u32> = ids.iter().copied().take(2 * seq_len).collect();
        let pad = self.tokenizer.pad().or(self.tokenizer.eos()).unwrap_or(0);
        rows.iter_mut().skip(seq_len + real).for_each(|id| *id = pad);
        let counts = |index: usize| index < seq_len + real;
        let labels = rows.iter().enumerate().map(|(i, id)| if counts(i) { i64::from(*id) } else { IGNORED_LABEL });
        let stored = StoredRows { rows: 2, seq_len, labels: labels.collect(), ids: rows };
        let batch = stored.batch(None);
        let logits = self.logits(&batch)?;
        let peak = logits.iter().fold(0.0_f64, |peak, value| peak.max(f64::from(value.abs())));
        let mask = (0..2 * seq_len).map(|index| i64::from(counts(index))).collect::<Vec<_>>();
        let shape = vec![2, seq_len];
        let mut entries = vec![
            integers("input_ids", shape.clone(), stored.ids.iter().map(|id| i64::from(*id)).collect()),
            integers("attention_mask", shape.clone(), mask),
            integers("labels", shape, stored.labels.clone()),
            floats("logits", vec![2, seq_len, self.imported.model.vocab_size()], logits),
        ];
        let inputs = self.upload(&batch)?.inputs;
        for (layer, state) in self.imported.model.hidden_states(&self.imported.params, &inputs).into_iter().enumerate()
        {
            let [_, hidden] = state.dims();
            let values = host(state.narrow(0, 0, seq_len))?;
            entries.push(floats(&format!("hidden.{layer}"), vec![seq_len, hidden], values));
        }
        tensor_file::write::<FileError>(&self.dir.join("inference.safetensors"), entries)?;
        Ok((self.loss(&batch)?, peak))
    }

    /// Three documents in one row.
    fn packed(&self, ids: &[u32]) -> Result<f64, ParityError> {
        let seq_len = self.seq_len();
        let cuts = [0, seq_len / 3, seq_len / 2, seq_len];
        let segment = |index: usize| cuts.iter().filter(|cut| **cut > 0 && index >= **cut).count();
        let segments: Vec<u32> = (0..seq_len).map(|index| segment(index) as u32).collect();
        let position = |index: usize| index - cuts.get(segment(index)).copied().unwrap_or(0);
        let positions: Vec<u32> = (0..seq_len).map(|index| position(index) as u32).collect();
        let ids: Vec<u32> = ids.iter().copied().skip(7).take(seq_len).collect();
        let label = |(index, id): (usize, &u32)| {
            if index > 0 && position(index) == 0 { IGNORED_LABEL } else { i64::from(*id) }
        };
        let labels = ids.iter().enumerate().map(label).collect();
        let stored = StoredRows { rows: 1, seq_len, ids, labels };
        let batch = stored.batch(Some((positions.clone(), segments.clone())));
        let wide = |values: &[u32]| values.iter().map(|value| i64::from(*value)).collect::<Vec<_>>();
        let shape = vec![1, seq_len];
        let logits = self.logits(&batch)?;
        let entries = vec![
            integers("input_ids", shape.clone(), wide(&stored.ids)),
            integers("position_ids", shape.clone(), wide(&positions)),
            integers("segment_ids", shape.clone(), wide(&segments)),
            integers("labels", shape, stored.labels.clone()),
            floats("logits", vec![1, seq_len, self.imported.model.vocab_size()], logits),
        ];
        tensor_file::write::<FileError>(&self.dir.join("packed.safetensors"), entries)?;
        self.loss(&batch)
    }

    fn perplexity(&self, ids: &[u32]) -> Result<(), ParityError> {
        let seq_len = self.seq_len();
        let windows: Vec<&[u32]> = ids.chunks(seq_len).filter(|window| window.len() > 1).take(2).collect();
        let mut per_token = Vec::new();
        for window in &windows {
            let labels = window.iter().map(|id| i64::from(*id)).collect();
            let stored = StoredRows { rows: 1, seq_len: window.len(), ids: window.to_vec(), labels };
            let batch = self.upload(&stored.batch(None))?;
            let mut losses =
                host(self.imported.model.token_losses(&self.imported.params, &batch.inputs, batch.targets))?;
            losses.truncate(window.len() - 1);
            per_token.push(losses.into_iter().map(f64::from).collect::<Vec<_>>());
        }
        let all: Vec<f64> = per_token.iter().flatten().copied().collect();
        let mean = all.iter().sum::<f64>() / all.len().max(1) as f64;
        let value = json!({
            "windows": windows, "nll_per_token": per_token, "tokens": all.len(), "nll_mean": mean,
            "perplexity": mean.exp(),
        });
        self.json("perplexity.json", &value)
    }

    /// Greedy continuations; the margin of a step tells how near another answer was.
    fn generation(&self) -> Result<(), ParityError> {
        let Imported { model, params, .. } = self.imported;
        let room = model.config().max_positions();
        let mut texts = Vec::new();
        for prompt in PROMPTS {
            let prompt_ids = self.tokenizer.encode(prompt, true)?;
            let max_new_tokens = NEW_TOKENS.min(room.saturating_sub(prompt_ids.len()));
            if prompt_ids.is_empty() || max_new_tokens == 0 {
                continue;
            }
            let options = GenerateOptions { max_new_tokens, sampling: Sampling::GREEDY, seed: 0, eos: Vec::new() };
            let new_ids = generate(model, params, &prompt_ids, &options, &mut |_| ControlFlow::Continue(()))?.tokens;
            let all: Vec<u32> = prompt_ids.iter().chain(&new_ids).copied().collect();
            let labels = vec![IGNORED_LABEL; all.len()];
            let stored = StoredRows { rows: 1, seq_len: all.len(), ids: all, labels };
            let logits = self.logits(&stored.batch(None))?;
            let rows = logits.chunks(model.vocab_size()).skip(prompt_ids.len() - 1).take(new_ids.len());
            let margins: Vec<f64> = rows.map(margin).collect();
            texts.push(json!({
                "prompt": prompt, "prompt_ids": prompt_ids, "new_ids": new_ids,
                "text": self.tokenizer.decode(&new_ids, false)?,
                "min_margin": margins.iter().copied().fold(f64::MAX, f64::min), "margins": margins,
            }));
        }
        self.json("generation.json", &Value::Array(texts))
    }

    fn tokenizer_cases(&self) -> Result<(), ParityError> {
        let mut cases = Vec::new();
        for text in PROBE_TEXTS.iter().chain(&PROMPTS) {
            let (ids, bare) = (self.tokenizer.encode(text, true)?, self.tokenizer.encode(text, false)?);
            cases.push(json!({
                "text": text, "decoded": self.tokenizer.decode(&bare, false)?,
                "decoded_skip": self.tokenizer.decode(&ids, true)?, "ids": ids, "ids_no_special": bare,
            }));
        }
        self.json("tokenizer_cases.json", &json!({ "encode": cases, "chat": [] }))
    }

    fn logits(&self, batch: &data_pipeline::loader::TokenBatch) -> Result<Vec<f32>, ParityError> {
        host(self.imported.model.logits(&self.imported.params, &self.upload(batch)?.inputs))
    }

    fn loss(&self, batch: &data_pipeline::loader::TokenBatch) -> Result<f64, ParityError> {
        let batch = self.upload(batch)?;
        let sum = host(self.imported.model.loss_sum(&self.imported.params, &batch.inputs, batch.targets))?;
        Ok(sum.first().map_or(f64::NAN, |sum| f64::from(*sum) / batch.valid.max(1) as f64))
    }

    fn upload(&self, batch: &data_pipeline::loader::TokenBatch) -> Result<step::DeviceBatch, ParityError> {
        Ok(step::to_device(batch, self.imported.model.vocab_size(), self.device)?)
    }

    fn json(&self, name: &str, value: &Value) -> Result<(), ParityError> {
        Ok(write_atomic(&self.dir.join(name), format!("{value:#}\n").as_bytes())?)
    }
}

/// Distance between the two largest logits.
fn margin(logits: &[f32]) -> f64 {
    let (mut first, mut second) = (f32::NEG_INFINITY, f32::NEG_INFINITY);
    for &value in logits {
        if value > first {
            (first, second) = (value, first);
        } else if value > second {
            second = value;
        }
    }
    f64::from(first) - f64::from(second)
}

fn integers(name: &str, shape: Vec<usize>, values: Vec<i64>) -> Entry<'static, FileError> {
    let bytes = Box::new(move || Ok(values.into_iter().flat_map(i64::to_le_bytes).collect()));
    Entry { name: name.into(), dtype: Dtype::I64, shape, bytes }
}

fn floats(name: &str, shape: Vec<usize>, values: Vec<f32>) -> Entry<'static, FileError> {
    let bytes = Box::new(move || Ok(values.into_iter().flat_map(f32::to_le_bytes).collect()));
    Entry { name: name.into(), dtype: Dtype::F32, shape, bytes }
}

/// Values of a tensor, read from its device.
pub(super) fn host<const D: usize>(tensor: Tensor<D>) -> Result<Vec<f32>, ParityError> {
    tensor.inner().try_into_vec_as::<f32>().map_err(|error| ParityError::Read { cause: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::margin;

    #[test]
    fn the_margin_is_between_the_two_largest() {
        assert!((margin(&[1.0, 5.0, 3.5, -2.0]) - 1.5).abs() < 1e-12);
        assert!((margin(&[5.0, 5.0]) - 0.0).abs() < 1e-12);
    }
}
