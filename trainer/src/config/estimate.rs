//! Owns what a run will cost before it starts: parameters, operations, memory, disk, hours; never touches a device.
//!
//! Every figure is arithmetic over the plan. A throughput is never guessed: it comes from the metrics of an earlier run
//! or from the user, and without one the hours are said to be unknown.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use model_zoo::size::{Kernels, activation_memory, count_active_parameters, count_parameters};
use serde::Serialize;
use serde_json::Value;

use super::plan::Plan;
use super::raw::OptimizerName;
use crate::device::DeviceChoice;

/// Bytes of an fp32 number.
const F32_BYTES: u64 = 4;
/// Longest metrics file that is read for a throughput, lines.
const MAX_METRICS_LINES: usize = 10_000_000;
/// Longest line of a metrics file, bytes; a longer one ends the reading.
const MAX_METRICS_BYTES: u64 = 4 << 30;

/// How fast a device trains, from somewhere that can be named.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Throughput {
    /// Training tokens a second.
    pub tokens_per_second: f64,
    /// Where the figure comes from.
    pub source: String,
}

/// Why an earlier run gives no throughput.
#[derive(Debug, thiserror::Error)]
pub enum ThroughputError {
    /// The metrics cannot be read.
    #[error("{}: cannot read the metrics of an earlier run: {source}; name its output_dir", path.display())]
    Unreadable {
        /// The metrics file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The run wrote no throughput.
    #[error("{}: holds no `tokens_per_second`; let the run reach its first logged steps", path.display())]
    NoFigure {
        /// The metrics file.
        path: PathBuf,
    },
}

impl Throughput {
    /// The median throughput that an earlier run wrote to its `metrics.jsonl`, its first record (which includes
    /// starting up) left out when there are others. The run should have had the same model, row length and device:
    /// this cannot be checked here, and `source` says so.
    ///
    /// # Errors
    /// The directory holds no readable metrics, or they hold no throughput.
    pub fn of_run(run: &Path) -> Result<Self, ThroughputError> {
        use std::io::Read;
        let path = run.join("metrics.jsonl");
        let unreadable = |source| ThroughputError::Unreadable { path: path.clone(), source };
        let file = File::open(&path).map_err(unreadable)?;
        let mut figures = Vec::new();
        for line in BufReader::new(file.take(MAX_METRICS_BYTES)).lines().take(MAX_METRICS_LINES) {
            let line = line.map_err(unreadable)?;
            // A torn last line of a killed run is no reason to fail.
            let Ok(record) = serde_json::from_str::<Value>(&line) else { continue };
            let figure = record.get("tokens_per_second").and_then(Value::as_f64);
            figures.extend(figure.filter(|figure| figure.is_finite() && *figure > 0.0));
        }
        if figures.len() > 1 {
            figures.remove(0);
        }
        figures.sort_by(f64::total_cmp);
        let Some(median) = figures.get(figures.len() / 2).copied() else {
            return Err(ThroughputError::NoFigure { path });
        };
        let source =
            format!("median of {} records of {}, if model and device are the same", figures.len(), run.display());
        Ok(Throughput { tokens_per_second: median, source })
    }
}

/// Memory of one process on one kind of device, bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MemoryEstimate {
    /// The kind of device.
    pub device: &'static str,
    /// fp32 weights that are trained.
    pub weights: u64,
    /// Frozen weights.
    pub frozen_weights: u64,
    /// Gradients of one micro-batch.
    pub gradients: u64,
    /// Partial sums of gradients that wait in the canonical tree.
    pub gradient_tree: u64,
    /// Moments of the optimizer: AdamW has two a parameter, Muon one a matrix.
    pub moments: u64,
    /// What the layers keep between forward and backward pass.
    pub activations: u64,
    /// Final norm, output layer and loss, with the chunk of logits.
    pub head_and_logits: u64,
    /// bf16 copies of the weights.
    pub weight_copies: u64,
    /// The program itself with its threads' working memory; on a GPU that is the host's.
    pub program: u64,
    /// Sum of the above.
    pub total: u64,
}

/// What a run will cost.
#[derive(Clone, Debug, Serialize)]
pub struct Estimate {
    /// Parameters.
    pub parameters: u64,
    /// Those of them that compute with one token: all, but for experts.
    pub active_parameters: u64,
    /// Those of them in the embedding and the output layer.
    pub embedding_parameters: u64,
    /// Those of them that are trained, and an adapter's.
    pub trained_parameters: u64,
    /// What the frozen weights of an adapter run would take in bf16, bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frozen_bytes_bf16: Option<u64>,
    /// Floating-point operations to train on one token.
    pub flops_per_token: f64,
    /// The same for one optimizer step.
    pub flops_per_step: f64,
    /// The same for the whole run.
    pub flops_total: f64,
    /// Optimizer steps.
    pub steps: u64,
    /// Tokens of one step.
    pub tokens_per_step: u64,
    /// Tokens of the run.
    pub tokens: u64,
    /// Passes over the data set, all languages together.
    pub epochs: f64,
    /// Tokens for each parameter.
    pub tokens_per_parameter: f64,
    /// Memory of one process, by kind of device; one entry when the device is known.
    pub memory: Vec<MemoryEstimate>,
    /// Data set on disk, read through the page cache, bytes.
    pub dataset_bytes: u64,
    /// Size of one checkpoint, bytes.
    pub checkpoint_bytes: u64,
    /// Most that checkpoints take at a time (one more than is kept, while saving), bytes.
    pub checkpoints_total_bytes: u64,
    /// Size of an export in fp32, bytes.
    pub export_bytes: u64,
    /// Training tokens a second and where the figure comes from; `None` until one was measured.
    pub throughput: Option<Throughput>,
    /// Hours of training by that throughput, without evaluation and saving; `None` until one was measured.
    pub hours: Option<f64>,
    /// Kilowatt-hours of those hours; `None` unless `energy.watts` is known as well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub energy_kwh: Option<f64>,
    /// Grams of carbon dioxide of a kilowatt-hour, as configured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub co2_g_per_kwh: Option<f64>,
}

impl Estimate {
    /// Adds up what `plan` will cost.
    pub fn of(plan: &Plan, throughput: Option<Throughput>) -> Self {
        let count = count_parameters(&plan.model);
        let parameters = count.total();
        let adapter = plan.adapter_cost();
        let trained = adapter.map_or(parameters, |cost| cost.trained);
        let flops_per_token = plan.flops_per_token();
        let tokens = plan.total_tokens();
        let checkpoint_bytes = F32_BYTES * trained + moment_bytes(plan, trained);
        let saves = plan.max_steps.div_ceil(plan.save_steps.max(1));
        let hours = throughput.as_ref().map(|throughput| tokens as f64 / throughput.tokens_per_second / 3600.0);
        let kept = plan.save_total_limit.saturating_add(1).min(saves);
        Estimate {
            parameters,
            active_parameters: count_active_parameters(&plan.model),
            embedding_parameters: count.embedding + count.head,
            flops_per_token,
            flops_per_step: flops_per_token * plan.tokens_per_step() as f64,
            flops_total: flops_per_token * tokens as f64,
            steps: plan.max_steps,
            tokens_per_step: plan.tokens_per_step(),
            tokens,
            epochs: plan.total_rows() as f64 / plan.dataset.train_rows.max(1) as f64,
            tokens_per_parameter: tokens as f64 / parameters.max(1) as f64,
            memory: memory(plan, trained),
            trained_parameters: trained,
            frozen_bytes_bf16: adapter.map(|cost| cost.frozen_bytes_bf16),
            dataset_bytes: plan.dataset.bytes,
            checkpoint_bytes,
            checkpoints_total_bytes: checkpoint_bytes.saturating_mul(kept),
            export_bytes: F32_BYTES * parameters,
            energy_kwh: hours
                .zip(plan.energy.and_then(|energy| energy.watts))
                .map(|(hours, watts)| hours * watts / 1e3),
            co2_g_per_kwh: plan.energy.and_then(|energy| energy.co2_g_per_kwh),
            hours,
            throughput,
        }
    }

    /// The estimate as a table for people.
    pub fn render(&self) -> String {
        let mut rows: Vec<(String, String)> = vec![
            (
                "parameters".into(),
                format!(
                    "{} ({} in the embedding{})",
                    count(self.parameters),
                    count(self.embedding_parameters),
                    match self.active_parameters {
                        all if all == self.parameters => String::new(),
                        active => format!(", {} at work for a token", count(active)),
                    }
                ),
            ),
            ("steps".into(), format!("{} of {} tokens", self.steps, count(self.tokens_per_step))),
            (
                "tokens".into(),
                format!(
                    "{} ({:.2} epochs, {:.1} a parameter)",
                    count(self.tokens),
                    self.epochs,
                    self.tokens_per_parameter
                ),
            ),
            (
                "FLOPs".into(),
                format!(
                    "{:.3e} a token, {:.3e} a step, {:.3e} in all",
                    self.flops_per_token, self.flops_per_step, self.flops_total
                ),
            ),
        ];
        if let Some(size) = self.frozen_bytes_bf16 {
            let trained = count(self.trained_parameters);
            let text = format!("{trained} in an adapter; the base would take {} in bf16", bytes(size));
            rows.insert(1, ("trained".into(), text));
        }
        for memory in &self.memory {
            rows.push((format!("memory ({})", memory.device), format!("{} for each process", bytes(memory.total))));
            let parts = [
                ("weights", memory.weights),
                ("frozen weights", memory.frozen_weights),
                ("gradients", memory.gradients),
                ("gradient tree", memory.gradient_tree),
                ("optimizer moments", memory.moments),
                ("activations", memory.activations),
                ("head and logits", memory.head_and_logits),
                ("bf16 weight copies", memory.weight_copies),
                ("program", memory.program),
            ];
            rows.extend(
                parts.into_iter().filter(|(_, size)| *size > 0).map(|(name, size)| (format!("  {name}"), bytes(size))),
            );
        }
        rows.push(("data set".into(), format!("{} on disk, mapped", bytes(self.dataset_bytes))));
        rows.push((
            "checkpoints".into(),
            format!("{} each, up to {} at a time", bytes(self.checkpoint_bytes), bytes(self.checkpoints_total_bytes)),
        ));
        rows.push(("export (fp32)".into(), bytes(self.export_bytes)));
        let duration = match (&self.throughput, self.hours) {
            (Some(throughput), Some(hours)) => {
                format!("{hours:.2} h at {:.0} tokens/s ({})", throughput.tokens_per_second, throughput.source)
            }
            _ => "unknown until measured: train a few steps, then name that run".into(),
        };
        rows.push(("duration".into(), duration));
        rows.push(("energy".into(), self.energy()));
        table(&rows)
    }

    fn energy(&self) -> String {
        match (self.energy_kwh, self.co2_g_per_kwh) {
            (Some(kwh), Some(grams)) => format!("{kwh:.3} kWh, {:.3} kg of CO2", kwh * grams / 1e3),
            (Some(kwh), None) => format!("{kwh:.3} kWh; `energy: {{co2_g_per_kwh: ...}}` adds the CO2"),
            (None, _) if self.hours.is_none() => "unknown until the duration is".into(),
            (None, _) => "not estimated: write `energy: {watts: ...}`, what the machines draw while they train".into(),
        }
    }
}

fn table(rows: &[(String, String)]) -> String {
    let width = rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    rows.iter().fold(String::new(), |mut text, (name, value)| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{name:width$}  {value}");
        text
    })
}

/// What a run of the smallest model keeps resident beyond its own arrays: code and tables of the program, working memory
/// of two threads (measured: 68 MiB, `benches/results/2026-11-22-plan-memory.md`).
const PROGRAM_BYTES: u64 = 68 << 20;

/// Bytes of the optimizer's moments of `trained` parameters.
fn moment_bytes(plan: &Plan, trained: u64) -> u64 {
    let count = count_parameters(&plan.model);
    let with_one = match (plan.optimizer, plan.adapter_cost()) {
        (OptimizerName::Adamw, _) => 0,
        (OptimizerName::Muon, None) => count.attention + count.feed_forward,
        // What an adapter trains are matrices.
        (OptimizerName::Muon, Some(_)) => trained,
    };
    F32_BYTES * (2 * trained).saturating_sub(with_one)
}

fn memory(plan: &Plan, parameters: u64) -> Vec<MemoryEstimate> {
    let on_cpu = if plan.adapter_cost().is_some() { Kernels::Fused } else { Kernels::Joined };
    let kinds: &[(&'static str, Kernels)] = match plan.device {
        DeviceChoice::Cpu => &[("cpu", on_cpu)],
        DeviceChoice::Auto => &[("cpu", on_cpu), ("gpu", Kernels::Chunked)],
        DeviceChoice::Cuda(_) | DeviceChoice::Rocm(_) | DeviceChoice::Wgpu(_) => &[("gpu", Kernels::Chunked)],
    };
    let copy = F32_BYTES * parameters;
    // The sum is a binary counter: before the last of n leaves it holds one partial sum for each bit of n - 1.
    let waiting = u64::from(u64::BITS - plan.micro_batches_per_step().saturating_sub(1).leading_zeros());
    let micro_rows = usize::try_from(plan.micro_batch_rows).unwrap_or(usize::MAX);
    let is_possible = |device: &str| device != "cpu" || plan.check_on_cpu().is_ok();
    kinds
        .iter()
        .filter(|(device, _)| is_possible(device))
        .map(|(device, kernels)| {
            let (precision, recompute) = (plan.precision.into(), plan.gradient_checkpointing.into());
            let activations =
                activation_memory(&plan.model, micro_rows, plan.sequence_len, precision, *kernels, recompute);
            let mut memory = MemoryEstimate {
                device,
                weights: copy,
                frozen_weights: plan.adapter_cost().map_or(0, |cost| cost.frozen_bytes),
                gradients: copy,
                gradient_tree: copy * waiting,
                moments: moment_bytes(plan, parameters),
                activations: activations.blocks,
                head_and_logits: activations.head,
                weight_copies: activations.weight_copies,
                program: if *device == "cpu" { PROGRAM_BYTES } else { 0 },
                total: 0,
            };
            memory.total = memory.weights
                + memory.frozen_weights
                + memory.gradients
                + memory.gradient_tree
                + memory.moments
                + memory.activations
                + memory.head_and_logits
                + memory.weight_copies
                + memory.program;
            memory
        })
        .collect()
}

/// `12.3 M`: a count in thousands.
fn count(number: u64) -> String {
    scaled(number as f64, 1000.0, &["", " k", " M", " G", " T", " P", " E"])
}

/// `1.5 GiB`: a size in powers of 1024.
fn bytes(number: u64) -> String {
    scaled(number as f64, 1024.0, &[" B", " KiB", " MiB", " GiB", " TiB", " PiB", " EiB"])
}

fn scaled(number: f64, base: f64, units: &[&str]) -> String {
    let mut value = number;
    let mut unit = 0;
    while value >= base && unit + 1 < units.len() {
        value /= base;
        unit += 1;
    }
    let name = units.get(unit).copied().unwrap_or_default();
    if unit == 0 { format!("{value:.0}{name}") } else { format!("{value:.2}{name}") }
}

#[cfg(test)]
#[path = "estimate_tests.rs"]
mod tests;
