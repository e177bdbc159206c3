//! Owns what a run reports about itself: a closed set of events; never touches control flow.
//!
//! Observers get events by reference and can change nothing. `metrics.jsonl` holds the records of steps and
//! evaluations, `events.jsonl` everything else; see [`crate::run_dir`].

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::certificate::program::Machine;
use crate::cluster::control::Straggler;
use crate::guard::Reason;
use crate::regression::Regression;
use crate::seen::SeenCounts;

/// One logged step.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StepRecord {
    /// Steps done, this one included.
    pub step: u64,
    /// Target tokens seen since the start of the run.
    pub tokens: u64,
    /// Mean loss of the step, nats a token.
    pub loss: f64,
    /// Learning rate of the step.
    pub lr: f64,
    /// Global gradient norm before clipping.
    pub grad_norm: f64,
    /// The bits of `loss` and `grad_norm` in hexadecimal, in this order: not every reader of JSON returns the last bit of a
    /// decimal number.
    pub exact: String,
    /// Target tokens a second since the last record.
    pub tokens_per_second: f64,
    /// Share of the device's peak arithmetic (the table's value on GPUs, measured on CPUs), 0 to 1.
    pub mfu: f64,
    /// Share of the time spent waiting for data, 0 to 1.
    pub data_wait: f64,
    /// Share of the time spent exchanging gradients with other processes, waiting for them included, 0 to 1.
    pub communication: f64,
    /// Share of the time in collectives that ran beside the backward pass and cost nothing, 0 to 1; absent
    /// where it is not measured: one process, or sums on the device.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub communication_hidden: Option<f64>,
    /// Peak resident memory of the process, bytes.
    pub memory_bytes: u64,
    /// Joules drawn since the last record of a step or an evaluation, over all processes; absent where nothing is measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub energy_joules: Option<f64>,
    /// Mean reward of chosen answers less that of rejected ones since the last record; of preferences only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reward_margin: Option<f64>,
    /// Share of pairs whose chosen answer had the higher reward, 0 to 1; of preferences only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preference_accuracy: Option<f64>,
    /// What was trained on since the start of the run, by language and script.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub seen: BTreeMap<String, SeenCounts>,
}

impl StepRecord {
    /// The text of [`StepRecord::exact`].
    pub fn exact(loss: f64, grad_norm: f64) -> String {
        format!("{:016x}{:016x}", loss.to_bits(), grad_norm.to_bits())
    }
}

/// Validation result of one language.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct LanguageScore {
    /// Bits a byte of UTF-8 text.
    pub bpb: f64,
    /// Nats a token.
    pub loss: f64,
    /// Tokens scored.
    pub tokens: u64,
    /// Bytes of text those tokens stand for.
    pub bytes: u64,
}

/// One evaluation over the held-out documents.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EvalRecord {
    /// Steps done.
    pub step: u64,
    /// Bits a byte over all languages together.
    pub val_bpb_all: f64,
    /// Results by language and script.
    pub val: BTreeMap<String, LanguageScore>,
    /// Seconds the evaluation took.
    pub seconds: f64,
    /// Joules drawn meanwhile, over all processes; absent where nothing is measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub energy_joules: Option<f64>,
}

impl Event {
    /// Steps done, of an event that ends one.
    pub fn steps_done(&self) -> Option<u64> {
        match self {
            Self::Step(record) => Some(record.step),
            Self::Tick { step, .. } => Some(*step),
            Self::Skipped { step, .. } => Some(step + 1),
            _ => None,
        }
    }
}

/// Everything a run can report.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A process held the others up in the last window of steps.
    Straggler(Straggler),
    /// The run starts or continues.
    Started {
        /// Steps already done.
        step: u64,
        /// Steps in all.
        max_steps: u64,
        /// Number of trained parameters.
        parameters: u64,
        /// Device in words.
        device: String,
        /// Number of processes.
        processes: u64,
        /// Engine of collectives between them: `tcp`, `mpi`, `nccl`; `alone` for one process.
        engine: String,
        /// Peak arithmetic used for MFU, FLOP/s.
        peak_flops: f64,
        /// Digest of the plan.
        plan: String,
        /// Digest of the dataset.
        dataset: String,
        /// Version of the program.
        version: String,
        /// BLAKE3 of the program's file; absent where the system does not show it.
        #[serde(skip_serializing_if = "Option::is_none")]
        binary_blake3: Option<String>,
        /// What it runs on.
        machine: Machine,
        /// Whose energy is measured, or why none is.
        energy: String,
    },
    /// State was loaded from a checkpoint.
    Resumed {
        /// Step it stands at.
        step: u64,
        /// The checkpoint.
        checkpoint: PathBuf,
    },
    /// From here on the run learns from another data set, because the user said so.
    DatasetChanged {
        /// Steps done on the old one.
        step: u64,
        /// The data set before.
        from: String,
        /// The data set after.
        to: String,
        /// Plan before.
        from_plan: String,
        /// Plan after.
        to_plan: String,
    },
    /// Something worth knowing about how the run goes on.
    Noted {
        /// What.
        text: String,
    },
    /// A damaged checkpoint was renamed, not deleted.
    SetAside {
        /// Where it was.
        checkpoint: PathBuf,
        /// Where it is now.
        moved_to: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A logged step.
    Step(StepRecord),
    /// What all processes hold alike, see [`crate::checkpoint::digest::parameters`].
    Digest {
        /// Steps done.
        step: u64,
        /// Digest of parameters and counters; the same for any number of processes.
        parameters_digest: String,
    },
    /// A finished step between two logged ones, for progress bars only.
    Tick {
        /// Steps done.
        step: u64,
        /// Mean loss of the step, nats a token.
        loss: f64,
    },
    /// A step's update was not applied.
    Skipped {
        /// The step.
        step: u64,
        /// First global row of the step.
        first_row: u64,
        /// Number of rows.
        rows: u64,
        /// Why.
        reason: Reason,
    },
    /// An evaluation is going on.
    Evaluating {
        /// Language being scored.
        language: String,
        /// Rows scored so far, of all languages.
        rows_done: u64,
        /// Rows in all.
        rows: u64,
    },
    /// An evaluation is done.
    Evaluated(EvalRecord),
    /// Languages are worse than at the first evaluation of the run.
    Regressed(Regression),
    /// A checkpoint is committed and was read back.
    Saved {
        /// Its step.
        step: u64,
        /// Where.
        checkpoint: PathBuf,
        /// Bytes written.
        bytes: u64,
        /// Seconds it took.
        seconds: f64,
        /// Digest over all parameters, moments and counters.
        state_digest: String,
    },
    /// A save failed; older checkpoints are intact.
    SaveFailed {
        /// Its step.
        step: u64,
        /// Why.
        why: String,
    },
    /// There is no power: the run is saved and waits.
    Paused {
        /// Steps done.
        step: u64,
        /// Why there is none.
        why: String,
    },
    /// There is power again, and the run goes on.
    Woken {
        /// Steps done.
        step: u64,
        /// Seconds of waiting.
        seconds: f64,
    },
    /// A stop was asked for; the run saves and leaves.
    Stopping {
        /// Steps done.
        step: u64,
    },
    /// The run broke off; what was saved is intact.
    Broken {
        /// Steps done.
        step: u64,
        /// The code of the error, see `jazari explain`.
        code: String,
        /// The error.
        why: String,
    },
    /// This site has taken over the parameters of an outer run.
    OuterJoined {
        /// Steps done.
        step: u64,
        /// The round that is open.
        round: u64,
        /// This site.
        site: String,
        /// Bytes sent.
        sent_bytes: u64,
        /// Bytes received.
        received_bytes: u64,
    },
    /// The coordinator waits for other sites.
    OuterWaiting {
        /// Steps done.
        step: u64,
        /// Sites that have delivered.
        delivered: Vec<String>,
        /// How many are expected.
        expected: usize,
    },
    /// The coordinator could not be reached and is tried again.
    OuterRetrying {
        /// Steps done.
        step: u64,
        /// What the attempt met.
        why: String,
    },
    /// A round of the outer run is over for this site.
    OuterRound {
        /// Steps done.
        step: u64,
        /// The round.
        round: u64,
        /// Whether this site's delta is part of it; one that comes too late is dropped.
        included: bool,
        /// The sites of the round.
        sites: Vec<String>,
        /// Target tokens behind this site's delta.
        tokens: u64,
        /// Bytes sent.
        sent_bytes: u64,
        /// Bytes received.
        received_bytes: u64,
        /// Seconds from the end of the last step until the new parameters were here.
        seconds: f64,
    },
    /// The run is over.
    Finished {
        /// Steps done.
        step: u64,
        /// Digest over all parameters, moments and counters.
        state_digest: String,
        /// Seconds of this process.
        seconds: f64,
    },
}
