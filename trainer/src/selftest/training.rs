//! Owns the small model that the self-test trains again and again, and the comparison of two such runs; never touches
//! how a run is computed.

use std::path::{Path, PathBuf};

use data_pipeline::stats::Stats;
use serde_json::Value;

use super::table::{Finding, Outcome};
use super::{Setup, child, corpus};
use crate::checkpoint::{Manifest, store};
use crate::durable::{self, FileError};

/// Optimizer steps of every run.
const STEPS: u64 = 24;
/// The run that is to be resumed is cut at the first checkpoint of this or a later step.
const CUT_STEP: u64 = STEPS / 2;
/// A run may end before it is cut, on a disk that syncs at once.
const CUT_ATTEMPTS: usize = 5;
/// Fewest micro-batches in a step.
const MIN_LEAVES: usize = 8;
/// Texts of the corpus; none of them may be dropped.
const TEXTS: u64 = 40;
/// Largest log that is read, bytes.
const LOG_LIMIT_BYTES: u64 = 16 << 20;

const DATA_CONFIG: &str = "\
output_dir: data
sources:
  - path: corpus.jsonl
allow_licences: [CC0-1.0]
validation:
  fraction: 0.1
  min_documents: 1
tokenizer:
  train:
    vocab_size: 512
";

/// A micro-batch is one row, and `LEAVES` of them make a step: a number that all processes can share.
const TRAIN_CONFIG: &str = "\
config_version: 1
output_dir: run
seed: 1234
model:
  family: llama
  hidden_size: 64
  intermediate_size: 192
  num_hidden_layers: 2
  num_attention_heads: 2
  num_key_value_heads: 1
  head_dim: 32
  tie_word_embeddings: true
datasets:
  - path: data
mixture:
  max_epochs: 200
sequence_len: 64
global_batch_size: LEAVES seq
micro_batch_size: 1
max_steps: STEPS
optimizer: adamw
learning_rate: 5.0e-3
betas: [0.9, 0.95]
weight_decay: 0.1
lr_scheduler: wsd
warmup_steps: 4
precision: fp32
device: cpu
reduction: exact
eval_steps: STEPS
save_steps: 2
logging_steps: 1
";

/// What a run left behind.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Trained {
    /// Its folder inside the work folder.
    pub name: String,
    /// Step and loss, in order.
    pub losses: Vec<(u64, f64)>,
    /// Digest of the last state: parameters, moments, counters.
    pub digest: String,
    /// The whole life of its processes.
    pub seconds: f64,
}

/// Writes the corpus and the two configs.
pub(super) fn write_inputs(setup: &Setup) -> Result<(), FileError> {
    let leaves = leaves(setup.processes).to_string();
    let train = TRAIN_CONFIG.replace("LEAVES", &leaves).replace("STEPS", &STEPS.to_string());
    let files = [("corpus.jsonl", corpus::jsonl()), ("data.yaml", DATA_CONFIG.to_owned()), ("train.yaml", train)];
    files.iter().try_for_each(|(name, text)| durable::write_atomic(&setup.folder.join(name), text.as_bytes()))
}

/// Micro-batches of a step: each process takes a power of two of them, so that the sum is the same tree for one process
/// and for all.
fn leaves(processes: usize) -> usize {
    let mut leaves = processes.max(1);
    while leaves < MIN_LEAVES {
        leaves *= 2;
    }
    leaves
}

/// Makes the data set and checks its digests.
pub(super) fn prepare(setup: &Setup) -> Outcome {
    child::run(setup, "data-prepare", &["data", "prepare", "data.yaml"])?;
    child::run(setup, "data-verify", &["data", "verify", "data"])?;
    let stats = Stats::read(&setup.folder.join("data")).map_err(|error| error.to_string())?;
    let documents = stats.total.documents;
    if documents != TEXTS {
        return Err(format!("{documents} of {TEXTS} texts were kept; this is a defect, please report it"));
    }
    let finding = Finding::ok("texts in five forms of writing prepared, tokenizer trained, digests verified");
    Ok(finding.with("texts", documents as f64, "").with("tokens", stats.total.tokens() as f64, ""))
}

/// Trains on `processes` into the folder `name`.
pub(super) fn train(setup: &Setup, name: &str, processes: usize, settings: &[&str]) -> Result<Trained, String> {
    let nproc = processes.to_string();
    let launch = ["launch", "--max-restarts", "0", "--nproc", &nproc, "--"];
    let train = arguments(name, settings);
    let launch = if processes > 1 { launch.as_slice() } else { &[] };
    let all: Vec<&str> = launch.iter().copied().chain(train.iter().map(String::as_str)).collect();
    let ran = child::run(setup, name, &all)?;
    Trained::read(setup, name, ran.seconds)
}

fn arguments(name: &str, settings: &[&str]) -> Vec<String> {
    let mut arguments = vec!["train".to_owned(), "train.yaml".to_owned()];
    for setting in [format!("output_dir={name}")].into_iter().chain(settings.iter().map(|s| (*s).to_owned())) {
        arguments.extend(["--set".to_owned(), setting]);
    }
    arguments
}

/// The same run on several processes.
pub(super) fn invariance(setup: &Setup, one: &Trained) -> Outcome {
    let many = train(setup, "run-n", setup.processes, &[])?;
    one.must_equal(&many, &format!("{} processes", setup.processes))?;
    let result = format!(
        "1 and {} processes: the same {} losses and the same state, to the bit ({:.12})",
        setup.processes,
        one.losses.len(),
        one.digest
    );
    Ok(Finding::ok(result).with("1 process", one.seconds, "s").with("all processes", many.seconds, "s"))
}

/// The same run, killed half-way and started again.
pub(super) fn resume(setup: &Setup, one: &Trained) -> Outcome {
    for attempt in 1..=CUT_ATTEMPTS {
        let name = format!("run-cut-{attempt}");
        let checkpoints = setup.folder.join(&name).join("checkpoints");
        let mut cut = || newest_step(&checkpoints).is_some_and(|step| (CUT_STEP..STEPS).contains(&step));
        let train = arguments(&name, &[]);
        let train: Vec<&str> = train.iter().map(String::as_str).collect();
        if child::run_until(setup, &name, &train, &mut cut)?.is_some() {
            continue;
        }
        let step = newest_step(&checkpoints).ok_or("the checkpoint of the killed run is gone")?;
        if step >= STEPS {
            continue;
        }
        let ran = child::run(setup, &format!("{name}-resumed"), &train)?;
        let resumed = Trained::read(setup, &name, ran.seconds)?;
        one.must_equal(&resumed, "the run that was killed and resumed")?;
        let result = "killed (SIGKILL) half-way and resumed: the same losses and the same state, to the bit";
        let finding = Finding::ok(result).with("killed after step", step as f64, "");
        return Ok(finding.with("start to end after it", ran.seconds, "s"));
    }
    Err(format!("{CUT_ATTEMPTS} runs ended before they could be killed; this is a defect, please report it"))
}

fn newest_step(checkpoints: &Path) -> Option<u64> {
    store::list(checkpoints).ok()?.first().map(|(step, _)| *step)
}

impl Trained {
    fn read(setup: &Setup, name: &str, seconds: f64) -> Result<Self, String> {
        let folder = setup.folder.join(name);
        let losses = losses(&folder)?;
        let checkpoints = store::list(&folder.join("checkpoints")).map_err(|error| error.to_string())?;
        let newest: Option<(u64, PathBuf)> = checkpoints.into_iter().next();
        let (step, newest) = newest.ok_or_else(|| format!("{name}: the run left no checkpoint"))?;
        let digest = Manifest::read(&newest).map_err(|error| error.to_string())?.state_digest;
        let steps: Vec<u64> = losses.iter().map(|(step, _)| *step).collect();
        if step != STEPS || !steps.iter().copied().eq(1..=STEPS) {
            return Err(format!("{name}: the run ended at step {step} of {STEPS} with losses of the steps {steps:?}"));
        }
        let trained = Self { name: name.to_owned(), losses, digest, seconds };
        let (first, last) = trained.ends();
        if last < first { Ok(trained) } else { Err(format!("{name}: it learns nothing: loss {first:.4} to {last:.4}")) }
    }

    /// First and last loss.
    pub(super) fn ends(&self) -> (f64, f64) {
        let loss = |entry: Option<&(u64, f64)>| entry.map_or(f64::NAN, |(_, loss)| *loss);
        (loss(self.losses.first()), loss(self.losses.last()))
    }

    /// Whether `other`, in words, holds the same bits.
    fn must_equal(&self, other: &Self, words: &str) -> Result<(), String> {
        for ((step, expected), (_, found)) in self.losses.iter().zip(&other.losses) {
            if expected.to_bits() != found.to_bits() {
                return Err(format!(
                    "the loss of step {step} is {found} with {words} and {expected} with one process that was left \
                     alone; suspect the memory or the processor, or report it"
                ));
            }
        }
        if self.losses.len() != other.losses.len() {
            return Err(format!("{words} did {} steps, not {}", other.losses.len(), self.losses.len()));
        }
        if self.digest != other.digest {
            return Err(format!(
                "the losses agree, but the last state has the digest {:.12} with {words} and {:.12} with one process \
                 that was left alone; suspect the memory or the processor, or report it",
                other.digest, self.digest
            ));
        }
        Ok(())
    }

    /// Largest difference of a loss from that of `self`, relative to it.
    pub(super) fn largest_difference(&self, other: &Self) -> f64 {
        if self.losses.len() != other.losses.len() {
            return f64::INFINITY;
        }
        let pairs = self.losses.iter().zip(&other.losses);
        let differences = pairs.map(|((_, expected), (_, found))| ((found - expected) / expected).abs());
        // Unlike `f64::max` this never forgets a NaN.
        differences.fold(0.0, |worst, found| if found > worst || found.is_nan() { found } else { worst })
    }
}

fn losses(folder: &Path) -> Result<Vec<(u64, f64)>, String> {
    let text = durable::read_text(&folder.join("metrics.jsonl"), LOG_LIMIT_BYTES).map_err(|error| error.to_string())?;
    let record = |line: &str| -> Option<(u64, f64)> {
        let record: Value = serde_json::from_str(line).ok()?;
        Some((record.get("step")?.as_u64()?, record.get("loss")?.as_f64()?))
    };
    Ok(text.lines().filter_map(record).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trained(losses: &[f64], digest: &str) -> Trained {
        let losses = (1..).zip(losses.iter().copied()).collect();
        Trained { name: "a".into(), losses, digest: digest.into(), seconds: 0.0 }
    }

    #[test]
    fn every_number_of_processes_has_leaves_to_share() {
        for processes in super::super::PROCESSES {
            let leaves = leaves(processes);
            assert!(leaves >= MIN_LEAVES && leaves.is_multiple_of(processes), "{processes}");
            assert!((leaves / processes).is_power_of_two(), "{processes}");
        }
    }

    #[test]
    fn runs_are_compared_to_the_bit() {
        let one = trained(&[2.0, 1.0], "aa");
        assert_eq!(one.must_equal(&one.clone(), "x"), Ok(()));
        for (other, why) in [
            (trained(&[2.0, 1.0 + f64::EPSILON], "aa"), "the loss of step 2 is 1.0000000000000002 with x and 1 with"),
            (trained(&[2.0], "aa"), "x did 1 steps, not 2"),
            (trained(&[2.0, 1.0], "ab"), "the digest ab with x and aa with"),
        ] {
            let found = one.must_equal(&other, "x");
            assert!(found.as_ref().is_err_and(|text| text.contains(why)), "{found:?}");
        }
    }

    #[test]
    fn differences_are_relative_and_never_forget_a_nan() {
        let one = trained(&[2.0, 1.0, 4.0], "");
        assert!((one.largest_difference(&trained(&[2.0, 1.1, 4.0], "")) - 0.1).abs() < 1e-12);
        assert!(one.largest_difference(&trained(&[f64::NAN, 1.0, 4.0], "")).is_nan());
        assert!(one.largest_difference(&trained(&[2.0], "")).is_infinite());
    }
}
