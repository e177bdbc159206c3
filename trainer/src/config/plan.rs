//! Owns the resolved run: every value decided, every schedule a pure function of the step; never touches devices,
//! files or data.

mod written;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;

use data_pipeline::chat::RecordKind;
use data_pipeline::chat::config::ExcessLength;
use model_zoo::Model;
use model_zoo::config::ModelConfig;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::check::bf16_on_cpu;
use super::error::{ConfigError, Note, Places};
use super::raw::{
    EngineChoice, GradientCheckpointing, OptimizerName, OuterCompress, OuterOptimizer, Precision, RawEnergy, RawQuota,
    Reduction, WireChoice,
};
use crate::adapter::AdapterPlan;
use crate::device::DeviceChoice;
use crate::expect::Expect;
use crate::guard::GuardSpec;
use crate::optim::OptimizerHyper;
use crate::power::PowerPlan;
use crate::preference::Objective;
use crate::schedule::Schedule;

/// Changes whenever the same plan would mean other numbers, so that old digests stop matching.
const DIGEST_VERSION: u32 = 2;

/// A run with every value decided. Made by [`super::resolve::resolve`].
#[derive(Clone, Debug, Serialize)]
pub struct Plan {
    /// Run directory.
    pub output_dir: PathBuf,
    /// Seed of the initial weights and of the data order.
    pub seed: u64,
    /// Directory of the weights training starts from; `None` starts from fresh ones.
    pub base_model: Option<PathBuf>,
    /// Digest of those weights.
    pub base_weights: Option<String>,
    /// The model.
    pub model: ModelConfig,
    /// What is trained on top of it while it is frozen; absent: all of it is trained.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adapter: Option<AdapterPlan>,
    /// The data.
    pub dataset: DatasetPlan,
    /// Shares of languages and sources.
    pub mixture: MixturePlan,
    /// Digest of the best-fit packing of the training texts; `None` where they stand end to end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub best_fit: Option<String>,
    /// What is learned from preferences; `None` is the next token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub objective: Option<Objective>,
    /// Tokens in a row.
    pub sequence_len: usize,
    /// Rows in a step, over every process.
    pub global_batch_rows: u64,
    /// Rows that go through the model at once; divides `global_batch_rows`.
    pub micro_batch_rows: u64,
    /// Number of optimizer steps.
    pub max_steps: u64,
    /// The optimizer.
    pub optimizer: OptimizerName,
    /// Its hyper-parameters.
    pub adamw: OptimizerHyper,
    /// Factor of the load-balancing loss of experts; `None` without experts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub router_aux_loss_coef: Option<f64>,
    /// Learning rate over the steps.
    pub schedule: Schedule,
    /// Where the warm-up starts, as a share of the highest rate.
    #[serde(skip_serializing_if = "is_zero")]
    pub warmup_start_ratio: f64,
    /// Arithmetic of the forward and backward pass.
    pub precision: Precision,
    /// Which activations are recomputed.
    pub gradient_checkpointing: GradientCheckpointing,
    /// Order in which gradients are added.
    pub reduction: Reduction,
    /// When a step is too bad to apply.
    pub guard: GuardSpec,
    /// Device that was asked for.
    pub device: DeviceChoice,
    /// CPU threads; `None` uses all cores.
    pub threads: Option<usize>,
    /// How processes of a run watch each other.
    pub cluster: ClusterPlan,
    /// When the run may draw power; at any time where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub power_window: Option<PowerPlan>,
    /// What the machines draw, for estimates and reports.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub energy: Option<RawEnergy>,
    /// This run's place among sites that are joined by slow links.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outer: Option<OuterPlan>,
    /// Steps between evaluations.
    pub eval_steps: u64,
    /// What an evaluation looks at.
    pub eval: EvalPlan,
    /// Steps between checkpoints.
    pub save_steps: u64,
    /// Checkpoints kept.
    pub save_total_limit: u64,
    /// Steps between metrics.
    pub logging_steps: u64,
    /// Whether event files for TensorBoard are written.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub tensorboard: bool,
    /// Where Prometheus reads the figures of the run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prometheus: Option<String>,
    /// What the run must reach.
    pub expect: Expect,
    /// What was chosen on the user's behalf, in words.
    #[serde(skip)]
    pub notes: Vec<Note>,
    /// Where the keys were written.
    #[serde(skip)]
    pub places: Places,
}

/// The data of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DatasetPlan {
    /// Directory of the prepared data set.
    pub path: PathBuf,
    /// Its identity: the digest of its manifest.
    pub id: String,
    /// Training tokens in it, once through.
    pub train_tokens: u64,
    /// Training rows in it, once through.
    pub train_rows: u64,
    /// Size of its files, bytes.
    pub bytes: u64,
    /// What chats are beside their tokens; `None` of texts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chat: Option<ChatPlan>,
    /// The data sets it is joined of; empty when there is but one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<PartPlan>,
}

/// Chats or preferences as training data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChatPlan {
    /// Chats or preferences.
    pub kind: RecordKind,
    /// What becomes of samples that are longer than a row.
    pub excess: ExcessLength,
    /// Ids that end trained turns.
    pub end_of_turn: Vec<u32>,
}

/// One of several data sets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PartPlan {
    /// Its directory.
    pub path: PathBuf,
    /// Its own identity.
    pub id: String,
    /// Number of its training streams.
    pub streams: usize,
    /// Its share of the rows against the others'; `None` where all share as one data set would.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<f64>,
}

/// How languages and sources share the training rows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MixturePlan {
    /// Exponent on a language's tokens, 0 to 1.
    pub temperature: f64,
    /// Factors by language, language/source or */source.
    pub weights: BTreeMap<String, f64>,
    /// Most times a row is repeated.
    pub max_epochs: f64,
    /// Bounds by language, script, source or licence.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub quotas: BTreeMap<String, RawQuota>,
    /// Parts of the run with shares of their own, in order; empty where the whole run is one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stages: Vec<StagePlan>,
}

/// A part of the run; what it does not say is that of the mixture.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StagePlan {
    /// Steps of the run before its end.
    pub until_step: u64,
    /// Exponent on a language's tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    /// Factors, all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights: Option<BTreeMap<String, f64>>,
    /// Bounds on shares, each instead of the mixture's of that name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub quotas: BTreeMap<String, RawQuota>,
}

/// How processes of a run watch each other; none of it changes a number.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClusterPlan {
    /// What is divided among the processes (ZeRO): 0 nothing, 1 the optimizer state, 2 gradients too.
    pub zero: u8,
    /// Megabytes of gradients that leave together.
    pub bucket_cap_mb: f64,
    /// Steps between comparisons of the replicas' digests.
    pub digest_steps: u64,
    /// Seconds without a heartbeat after which a process counts as lost.
    pub peer_timeout: f64,
    /// Seconds that the others wait in a collective for one that is alive but does not come.
    pub collective_timeout: f64,
    /// Seconds in which all processes must have come together at the start.
    pub join_timeout: f64,
    /// How data travels between processes.
    pub wire: WireChoice,
    /// What carries the data of collectives.
    pub engine: EngineChoice,
}

/// A run's place among sites that are joined by slow links.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OuterPlan {
    /// `HOST:PORT` of the coordinator.
    pub coordinator: String,
    /// Name of this site.
    pub site: String,
    /// Steps between two rounds.
    pub sync_every: u64,
    /// What the coordinator makes of the sites' changes.
    pub optimizer: OuterOptimizer,
    /// Its learning rate.
    pub learning_rate: f64,
    /// Its momentum.
    pub momentum: f64,
    /// How parameters travel.
    pub compress: OuterCompress,
    /// Seconds without the coordinator after which the run saves and ends.
    pub give_up_after: f64,
}

impl OuterPlan {
    /// What decides the numbers: neither where the coordinator is, nor what this site is called.
    fn decisive(&self) -> Value {
        let Self { sync_every, optimizer, learning_rate, momentum, compress, .. } = self;
        json!({
            "sync_every": sync_every,
            "optimizer": optimizer,
            "learning_rate": learning_rate,
            "momentum": momentum,
            "compress": compress,
        })
    }
}

/// What an evaluation looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EvalPlan {
    /// Most held-out tokens scored for each language.
    pub max_tokens_per_language: u64,
}

impl Plan {
    /// Learning rate of the update that makes step `step` (from 0) into `step + 1`.
    pub fn lr(&self, step: u64) -> f64 {
        let rate = self.schedule.lr(step);
        if self.warmup_start_ratio > 0.0 && step < self.schedule.warmup_steps() {
            // The same line, but from there to the peak instead of from 0.
            return rate + (self.schedule.peak() - rate) * self.warmup_start_ratio;
        }
        rate
    }

    /// Whether to evaluate when `step` steps are done. The untrained model is evaluated too: it is what a drop is
    /// measured from, and a failing evaluation shows before hours of training.
    pub fn evaluates_at(&self, step: u64) -> bool {
        step == 0 || self.is_due(step, self.eval_steps)
    }

    /// Whether to save when `step` steps are done.
    pub fn saves_at(&self, step: u64) -> bool {
        self.is_due(step, self.save_steps)
    }

    /// Whether a round of the outer run ends when `step` steps are done: every `outer.sync_every` steps, and at the end.
    pub fn syncs_at(&self, step: u64) -> bool {
        self.outer.as_ref().is_some_and(|outer| self.is_due(step, outer.sync_every))
    }

    /// Whether to write metrics when `step` steps are done; the first step is always written.
    pub fn logs_at(&self, step: u64) -> bool {
        step == 1 || self.is_due(step, self.logging_steps)
    }

    fn is_due(&self, step: u64, interval: u64) -> bool {
        step > 0 && (step == self.max_steps || step.is_multiple_of(interval.max(1)))
    }

    /// Global rows of step `step`, counted from 0 over the whole run.
    pub fn rows_of(&self, step: u64) -> Range<u64> {
        let start = step.saturating_mul(self.global_batch_rows);
        start..start.saturating_add(self.global_batch_rows)
    }

    /// [`Plan::rows_of`] cut into micro-batches, in the order of the leaves of the gradient sum.
    pub fn micro_batches(&self, step: u64) -> Vec<Range<u64>> {
        let rows = self.rows_of(step);
        let micro = self.micro_batch_rows.max(1);
        (0..self.micro_batches_per_step())
            .map(|index| {
                let start = rows.start.saturating_add(index * micro);
                start..start.saturating_add(micro).min(rows.end)
            })
            .collect()
    }

    /// Those of [`Plan::micro_batches`] that `rank` of `world` processes computes. What is added first must be an inner
    /// node of the canonical tree wherever [`Plan::check_world`] agrees: a process adds up its own, a contiguous block;
    /// but where gradients are divided, the processes add up one of each at a time, so they are dealt out in turn.
    pub fn micro_batches_of(&self, step: u64, rank: usize, world: usize) -> Vec<Range<u64>> {
        let all = self.micro_batches(step);
        let world = world.max(1);
        if self.divides_gradients() {
            return all.into_iter().skip(rank).step_by(world).collect();
        }
        let at = |rank: usize| all.len() * rank.min(world) / world;
        all.get(at(rank)..at(rank + 1)).unwrap_or_default().to_vec()
    }

    /// Whether each process keeps only its pieces of the summed gradients (ZeRO-2).
    pub fn divides_gradients(&self) -> bool {
        self.cluster.zero >= 2
    }

    /// Whether the micro-batches of a step can be divided among `world` processes.
    ///
    /// # Errors
    /// With `reduction: exact` every process needs the same number of micro-batches, a power of two (where gradients are
    /// divided, the number of processes must be one), or the sum would depend on the number of processes; with `fast`,
    /// at least one, and where gradients are divided as many as the others.
    pub fn check_world(&self, world: usize) -> Result<(), ConfigError> {
        let (leaves, world) = (self.micro_batches_per_step(), world as u64);
        let even = |world: u64| world > 0 && leaves.is_multiple_of(world);
        let fits = |world: u64| match (self.reduction, self.divides_gradients()) {
            _ if world == 1 => true,
            (Reduction::Fast, false) => world <= leaves,
            (Reduction::Fast, true) => even(world),
            (Reduction::Exact, false) => even(world) && (leaves / world).is_power_of_two(),
            (Reduction::Exact, true) => even(world) && world.is_power_of_two(),
        };
        if fits(world) {
            return Ok(());
        }
        let possible: Vec<String> = (1..=leaves.min(4096)).filter(|w| fits(*w)).map(|w| w.to_string()).collect();
        let message = format!(
            "a step has {leaves} micro-batches ({} rows, {} at a time), which {world} processes cannot share{}",
            self.global_batch_rows,
            self.micro_batch_rows,
            if self.reduction == Reduction::Fast { "" } else { " without changing the order of the sum" }
        );
        let hint = format!("start {} processes, or write a smaller `micro_batch_size`", possible.join(", "));
        Err(self.places.invalid("micro_batch_size", message, hint))
    }

    /// Whether replicas are compared when `step` steps are done.
    pub fn compares_replicas_at(&self, step: u64) -> bool {
        self.is_due(step, self.cluster.digest_steps)
    }

    /// Micro-batches in a step.
    pub fn micro_batches_per_step(&self) -> u64 {
        self.global_batch_rows / self.micro_batch_rows.max(1)
    }

    /// Tokens in a step, padding included.
    pub fn tokens_per_step(&self) -> u64 {
        self.global_batch_rows.saturating_mul(self.sequence_len as u64)
    }

    /// Tokens of the whole run, padding included.
    pub fn total_tokens(&self) -> u64 {
        self.max_steps.saturating_mul(self.tokens_per_step())
    }

    /// Rows of the whole run.
    pub fn total_rows(&self) -> u64 {
        self.max_steps.saturating_mul(self.global_batch_rows)
    }

    /// The model as this run computes with it.
    ///
    /// # Errors
    /// A configuration that breaks a rule of its family.
    pub fn build_model(&self) -> Result<Model, model_zoo::ConfigError> {
        let model = Model::new(&self.model)?.with_precision(self.precision.into());
        Ok(match self.router_aux_loss_coef {
            Some(coefficient) => model.with_router_aux_loss_coef(coefficient),
            None => model,
        })
    }

    /// Refuses what a CPU cannot do; call it when the device that was chosen is one.
    ///
    /// # Errors
    /// `precision: bf16-mixed`.
    pub fn check_on_cpu(&self) -> Result<(), ConfigError> {
        match self.precision {
            Precision::Fp32 => Ok(()),
            Precision::Bf16Mixed => Err(bf16_on_cpu(&self.places)),
        }
    }

    /// What decides the numbers of the run: the model, the data, how the batch is cut, the optimizer, its schedule,
    /// precision, seed, order of sums and guard. Where the run is written, how often it is evaluated, saved or logged,
    /// on which device, with how many threads and whether
    /// activations are computed twice do not enter.
    pub fn decisive(&self) -> Value {
        let mut decisive = json!({
            "digest_version": DIGEST_VERSION,
            "seed": self.seed,
            "starts_from": self.base_weights.as_deref().unwrap_or("fresh"),
            "model": self.model,
            "dataset": self.dataset.id,
            "mixture": self.mixture,
            "sequence_len": self.sequence_len,
            "global_batch_rows": self.global_batch_rows,
            "micro_batch_rows": self.micro_batch_rows,
            "max_steps": self.max_steps,
            "optimizer": self.optimizer,
            "adamw": self.adamw,
            "learning_rate": self.schedule,
            "precision": self.precision,
            "reduction": self.reduction,
            "guard": self.guard,
        });
        // Keys that are absent where they have no effect, so that plans without them keep their digests.
        if let (true, Some(entries)) = (self.warmup_start_ratio > 0.0, decisive.as_object_mut()) {
            entries.insert("warmup_start_ratio".into(), self.warmup_start_ratio.into());
        }
        let weights: Vec<Option<f64>> = self.dataset.parts.iter().map(|part| part.weight).collect();
        if let (true, Some(entries)) = (weights.iter().any(Option::is_some), decisive.as_object_mut()) {
            entries.insert("dataset_weights".into(), json!(weights));
        }
        // Absent where there is none, so that plans without it keep their digests.
        if let (Some(adapter), Some(entries)) = (&self.adapter, decisive.as_object_mut()) {
            entries.insert("adapter".into(), adapter.decisive());
        }
        if let (Some(packing), Some(entries)) = (&self.best_fit, decisive.as_object_mut()) {
            entries.insert("best_fit_packing".into(), json!(packing));
        }
        if let (Some(outer), Some(entries)) = (&self.outer, decisive.as_object_mut()) {
            entries.insert("outer".into(), outer.decisive());
        }
        if let (Some(chat), Some(entries)) = (&self.dataset.chat, decisive.as_object_mut()) {
            entries.insert("excess_length_strategy".into(), json!(chat.excess));
        }
        if let (Some(coefficient), Some(entries)) = (self.router_aux_loss_coef, decisive.as_object_mut()) {
            entries.insert("router_aux_loss_coef".into(), json!(coefficient));
        }
        if let (Some(objective), Some(entries)) = (&self.objective, decisive.as_object_mut()) {
            entries.insert("objective".into(), json!(objective));
        }
        decisive
    }

    /// BLAKE3 of [`Plan::decisive`] in canonical form, in hex.
    pub fn digest(&self) -> String {
        let mut canonical = String::new();
        write_canonical(&self.decisive(), &mut canonical);
        blake3::hash(canonical.as_bytes()).to_hex().to_string()
    }

    /// The plan for `plan.json`, with its digest.
    pub fn to_json(&self) -> Value {
        let mut value = json!(self);
        if let Value::Object(entries) = &mut value {
            entries.insert("digest".into(), self.digest().into());
            entries.insert("decisive".into(), self.decisive());
        }
        value
    }
}

fn is_zero(value: &f64) -> bool {
    *value == 0.0
}

/// JSON with sorted keys and no spaces, so that equal plans have equal text.
fn write_canonical(value: &Value, out: &mut String) {
    match value {
        Value::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write_canonical(item, out);
            }
            out.push(']');
        }
        Value::Object(entries) => {
            let sorted: BTreeMap<&String, &Value> = entries.iter().collect();
            out.push('{');
            for (index, (key, item)) in sorted.into_iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                out.push_str(&Value::String(key.clone()).to_string());
                out.push(':');
                write_canonical(item, out);
            }
            out.push('}');
        }
        scalar => out.push_str(&scalar.to_string()),
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
pub(crate) mod tests;
