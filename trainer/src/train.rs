//! Owns the training loop; never touches paths, backends or the terminal.
//!
//! [`train`] reads like the algorithm. What must survive a restart is in `TrainState`, what must not is in
//! [`Context`]; nothing is both.

use std::sync::Arc;
use std::time::{Duration, Instant};

use burn::tensor::Device;
use data_pipeline::dataset::{DataError, Dataset};
use data_pipeline::loader::Loader;
use model_zoo::Model;

use crate::buckets::Buckets;
use crate::checkpoint::store::Committed;
use crate::checkpoint::{CheckpointError, CheckpointStore, TrainState, digest};
use crate::cluster::ClusterError;
use crate::config::plan::Plan;
use crate::device;
use crate::energy::Energy;
use crate::evaluate;
use crate::events::{EvalRecord, Event, StepRecord};
use crate::guard::{Reason, Verdict};
use crate::outer::OuterError;
use crate::outer::site::Site;
use crate::outer::sync::{self, Ended};
use crate::power::PowerWindow;
use crate::preference::{self, Preferences, Tally};
use crate::prefetch::Prefetch;
use crate::regression;
use crate::seen::Viewer;
use crate::signals::StopFlag;
use crate::step::{self, StepError, StepGradients};
use crate::team::{Layout, Team, Waits};

/// Saves that may fail in a row before the run stops with its older checkpoints intact.
const MAX_FAILED_SAVES: u32 = 2;

/// Time between two looks while there is no power.
const POWER_TICK: Duration = Duration::from_millis(250);

/// Capabilities of a run that are not saved.
pub struct Context<'a> {
    /// The plain device that holds the parameters.
    pub device: Device,
    /// The model's forward pass.
    pub model: Model,
    /// The dataset.
    pub dataset: Arc<Dataset>,
    /// Rows by index.
    pub loader: Arc<Loader>,
    /// What travels together between processes.
    pub buckets: Buckets,
    /// Where states are saved; `None` in a process that does not lead.
    pub checkpoints: Option<&'a CheckpointStore>,
    /// The other processes.
    pub team: &'a mut Team,
    /// Small files that travel inside every checkpoint.
    pub checkpoint_files: &'a [(&'static str, Vec<u8>)],
    /// Peak arithmetic of the device, FLOP/s; raised when the run itself is faster than what was measured.
    pub peak_flops: f64,
    /// FLOPs of forward and backward a token.
    pub flops_per_token: f64,
    /// Told everything, able to change nothing.
    pub observer: &'a mut dyn FnMut(&Event) -> Result<(), TrainError>,
    /// Speaks for this site in an outer run; `None` in a process that does not lead.
    pub outer: Option<&'a Site>,
    /// Counts what is trained on.
    pub viewer: Viewer,
    /// What is learned from preferences; `None` where the next token is.
    pub preferences: Option<Preferences>,
    /// Counts what is drawn.
    pub energy: Energy,
    /// Joules that no record holds yet.
    pub drawn: Option<f64>,
    /// Knows when there is power; `None` in a process that does not lead, and where it does not matter.
    pub power: Option<PowerWindow>,
    /// Set by signals.
    pub stop: StopFlag,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// All steps are done.
    Finished {
        /// The last evaluation.
        eval: Option<EvalRecord>,
    },
    /// A signal asked for a stop; the state is saved.
    Stopped,
}

/// Why a run failed.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// The data could not be read.
    #[error(transparent)]
    Data(#[from] DataError),
    /// A batch does not fit the model.
    #[error("step {step}: {source}")]
    Step {
        /// Steps done before it.
        step: u64,
        /// The cause.
        source: StepError,
    },
    /// A checkpoint could not be written or read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// Two saves in a row failed.
    #[error("{failures} saves in a row failed, the last one with: {source}; older checkpoints are intact")]
    CannotSave {
        /// How many.
        failures: u32,
        /// The last cause.
        source: CheckpointError,
    },
    /// The guard halted the run.
    #[error(
        "halted at step {step} after {skips} skipped steps in a row: {reason}; rows {first_row}..{end_row} were the last \
         ones: lower learning_rate, or look at the rows with `jazari data inspect`; the state is saved"
    )]
    Halted {
        /// The step.
        step: u64,
        /// Skipped steps in a row.
        skips: u32,
        /// Why the last one was bad.
        reason: Reason,
        /// First global row of the step.
        first_row: u64,
        /// One past the last global row.
        end_row: u64,
    },
    /// The prefetch thread could not be started.
    #[error("cannot start the thread that reads data: {0}; lower the number of threads on this machine")]
    Thread(std::io::Error),
    /// The data ended before the plan did.
    #[error("step {step}: the data reader stopped early; this is a defect, please report it")]
    DataEnded {
        /// Steps done.
        step: u64,
    },
    /// The processes of the run cannot go on together.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// The other sites of an outer run cannot be reached, or refuse this one.
    #[error(transparent)]
    Outer(#[from] OuterError),
    /// A log could not be written.
    #[error(transparent)]
    Log(#[from] crate::run_dir::RunDirError),
}

/// Trains from `state` to the end of `plan`, a stop signal, or a failure.
///
/// # Errors
/// See [`TrainError`]; the last committed checkpoint is intact in every case.
pub fn train(plan: &Plan, state: &mut TrainState, cx: &mut Context<'_>) -> Result<Outcome, TrainError> {
    let mut data = prefetch(plan, state.step, cx)?;
    let mut meter = Meter::new();
    let mut saves = Saves { last: state.step, failures: 0 };
    let mut stop = cx.team.any_stop(cx.stop.is_set())?;
    let mut pending = join_sites(plan, state, cx, &mut saves)?;
    // A fresh run is scored before its first step: progress needs a beginning.
    let due = state.step == 0 || plan.evaluates_at(state.step);
    let mut eval = if due { Some(evaluate(plan, state, cx)?) } else { None };

    while state.step < plan.max_steps && !stop && !pending {
        match wait_for_power(plan, state, cx, &mut saves)? {
            Wait::None => {}
            Wait::Over => meter.restart(),
            Wait::Stopped => break,
        }
        cx.team.at(state.step, "forward and backward");
        let (sum, anyone_stops) = accumulate(plan, state, cx, &mut data)?;
        // From here on every process holds the same numbers, so all decide alike.
        stop = anyone_stops;
        let partition = state.optimizer.partition.as_ref();
        let grad_norm = cx.team.grad_norm(&sum, partition)?;
        let loss = sum.loss_sum / sum.valid as f64;
        let lr = plan.lr(state.step);
        let verdict = state.guard.judge(&plan.guard, loss, grad_norm, sum.valid);
        cx.viewer.end_step(verdict == Verdict::Apply);
        if let Verdict::Apply = verdict {
            state.optimizer.apply(&mut state.params, sum.grads, sum.valid, grad_norm, lr);
            if let Some(partition) = &state.optimizer.partition {
                cx.team.gather_parameters(&mut state.params, partition)?;
            }
            state.tokens += sum.valid;
            state.losses.first.get_or_insert(loss);
            state.losses.last = Some(loss);
        }
        state.step += 1;
        meter.add(sum.valid);
        report(plan, state, cx, verdict, |waits| meter.record(loss, lr, grad_norm, &mut data, waits))?;

        if plan.compares_replicas_at(state.step) && cx.team.world() > 1 {
            cx.team.compare_digests(state.step, &digest::replica(state))?;
        }
        if plan.compares_replicas_at(state.step) && cx.team.leads() {
            (cx.observer)(&Event::Digest { step: state.step, parameters_digest: digest::parameters(state) })?;
        }
        if let Verdict::Halt(reason) = verdict {
            saves.commit(state, cx, true)?;
            return Err(halted(plan, state.step - 1, reason));
        }
        if plan.syncs_at(state.step) {
            pending = sync_sites(plan, state, cx, &mut saves)?;
            meter.restart();
        }
        if plan.evaluates_at(state.step) && !pending {
            eval = Some(evaluate(plan, state, cx)?);
            meter.restart();
        }
        if plan.saves_at(state.step) && !pending {
            saves.commit(state, cx, false)?;
            meter.restart();
        }
    }
    if state.step < plan.max_steps || pending {
        (cx.observer)(&Event::Stopping { step: state.step })?;
        saves.commit(state, cx, true)?;
        return Ok(Outcome::Stopped);
    }
    saves.commit(state, cx, true)?;
    Ok(Outcome::Finished { eval })
}

/// How a look at the power ended.
enum Wait {
    /// There is power.
    None,
    /// There was none for a while.
    Over,
    /// There is none, and a stop was asked for.
    Stopped,
}

/// Saves and waits while there is no power; rank 0 knows, and says it to the others.
fn wait_for_power(
    plan: &Plan,
    state: &mut TrainState,
    cx: &mut Context<'_>,
    saves: &mut Saves,
) -> Result<Wait, TrainError> {
    if plan.power_window.is_none() {
        return Ok(Wait::None);
    }
    let why = cx.power.as_mut().and_then(PowerWindow::closed);
    if !cx.team.leader_says(why.is_some())? {
        return Ok(Wait::None);
    }
    let since = Instant::now();
    saves.commit(state, cx, false)?;
    (cx.observer)(&Event::Paused { step: state.step, why: why.unwrap_or_default() })?;
    loop {
        if cx.team.any_stop(cx.stop.is_set())? {
            return Ok(Wait::Stopped);
        }
        let closed = cx.power.as_mut().is_some_and(|power| power.closed().is_some());
        if let Some(text) = cx.power.as_mut().and_then(PowerWindow::take_trouble) {
            (cx.observer)(&Event::Noted { text })?;
        }
        if !cx.team.leader_says(closed)? {
            (cx.observer)(&Event::Woken { step: state.step, seconds: since.elapsed().as_secs_f64() })?;
            return Ok(Wait::Over);
        }
        std::thread::sleep(POWER_TICK);
    }
}

/// Takes this site's place in an outer run, if there is one; whether a stop was asked for before it had it.
fn join_sites(
    plan: &Plan,
    state: &mut TrainState,
    cx: &mut Context<'_>,
    saves: &mut Saves,
) -> Result<bool, TrainError> {
    match sync::start(plan, state, cx)? {
        Ended::Nothing => Ok(false),
        Ended::Adopted => {
            if state.step == plan.max_steps {
                // What is saved is the state before its last round.
                saves.last = u64::MAX;
            }
            Ok(false)
        }
        Ended::Stopped => Ok(true),
        // Whatever was trained is saved already.
        Ended::GaveUp(error) => Err(error.into()),
    }
}

/// Ends a round of the outer run; whether a stop was asked for before it was over.
fn sync_sites(
    plan: &Plan,
    state: &mut TrainState,
    cx: &mut Context<'_>,
    saves: &mut Saves,
) -> Result<bool, TrainError> {
    // What was trained is safe before anybody waits for slow links, and a site that is killed meanwhile offers the same
    // delta again. The last step is saved with the parameters that all sites end with.
    if state.step < plan.max_steps {
        saves.commit(state, cx, false)?;
    }
    match sync::deliver(plan, state, cx)? {
        Ended::Nothing | Ended::Adopted => Ok(false),
        Ended::Stopped => Ok(true),
        Ended::GaveUp(error) => {
            saves.commit(state, cx, true)?;
            Err(error.into())
        }
    }
}

/// Starts reading the micro-batches of all steps from `step` on.
fn prefetch(plan: &Plan, step: u64, cx: &Context<'_>) -> Result<Prefetch, TrainError> {
    let (plan, rank, world) = (plan.clone(), cx.team.rank(), cx.team.world());
    let ranges = (step..plan.max_steps).flat_map(move |step| plan.micro_batches_of(step, rank, world));
    Prefetch::start(Arc::clone(&cx.loader), ranges).map_err(TrainError::Thread)
}

/// Loss and gradients of an optimizer step, summed along the canonical tree over the micro-batches of all processes; and
/// whether anybody wants to stop.
fn accumulate(
    plan: &Plan,
    state: &TrainState,
    cx: &mut Context<'_>,
    data: &mut Prefetch,
) -> Result<(StepGradients, bool), TrainError> {
    let recompute = plan.gradient_checkpointing.into();
    let micro_batches = plan.micro_batches_of(state.step, cx.team.rank(), cx.team.world()).len();
    let mut reduction = cx.team.reduction(Layout {
        buckets: &cx.buckets,
        partition: state.optimizer.partition.as_ref(),
        every_micro_batch: plan.divides_gradients(),
        micro_batches,
    });
    for _ in 0..micro_batches {
        let batch = data.next_batch().ok_or(TrainError::DataEnded { step: state.step })??;
        cx.viewer.look(&batch);
        let mut take = |param, gradient| Ok::<_, LeafError>(reduction.take(param, gradient)?);
        let leaf = match &mut cx.preferences {
            None => step::loss_and_gradients(&cx.model, &state.params, &batch, &cx.device, recompute, &mut take),
            Some(preferences) => {
                let with = (&cx.model, &state.params, &cx.device);
                preference::pass::loss_and_gradients(with, &batch, preferences, recompute, &mut take)
            }
        };
        let (loss_sum, valid) = leaf.map_err(|error| error.at(state.step))?;
        reduction.end_micro_batch(loss_sum, valid)?;
    }
    Ok(reduction.finish(cx.stop.is_set())?)
}

/// Why a micro-batch has no gradients.
#[derive(Debug, thiserror::Error)]
enum LeafError {
    #[error(transparent)]
    Step(#[from] StepError),
    #[error(transparent)]
    Cluster(#[from] ClusterError),
}

impl LeafError {
    fn at(self, step: u64) -> TrainError {
        match self {
            Self::Step(source) => TrainError::Step { step, source },
            Self::Cluster(error) => error.into(),
        }
    }
}

fn report(
    plan: &Plan,
    state: &mut TrainState,
    cx: &mut Context<'_>,
    verdict: Verdict,
    record: impl FnOnce(Waits) -> Measured,
) -> Result<(), TrainError> {
    if let Verdict::Skip(reason) | Verdict::Halt(reason) = verdict {
        let rows = plan.rows_of(state.step - 1);
        let (first_row, rows) = (rows.start, rows.end - rows.start);
        return (cx.observer)(&Event::Skipped { step: state.step - 1, first_row, rows, reason });
    }
    if !plan.logs_at(state.step) {
        return (cx.observer)(&Event::Tick { step: state.step, loss: state.losses.last.unwrap_or(f64::NAN) });
    }
    let tally = take_tally(cx)?;
    cx.viewer.put_together(&mut state.seen, cx.team)?;
    let measured = record(cx.team.take_waits());
    for slow in cx.team.report_phases(state.step, measured.data, measured.total, measured.waits) {
        (cx.observer)(&Event::Straggler(slow))?;
    }
    let energy_joules = cx.energy.take(cx.team)?.map(|joules| joules + cx.drawn.take().unwrap_or(0.0));
    let achieved = measured.tokens_per_second * cx.flops_per_token;
    // The peak was measured once, perhaps while other programs ran; what the run itself reached is possible too.
    if achieved > cx.peak_flops {
        cx.peak_flops = achieved;
    }
    let record = StepRecord {
        step: state.step,
        tokens: state.tokens,
        loss: measured.loss,
        lr: measured.lr,
        grad_norm: measured.grad_norm,
        exact: StepRecord::exact(measured.loss, measured.grad_norm),
        tokens_per_second: measured.tokens_per_second,
        mfu: achieved / cx.peak_flops,
        data_wait: measured.share(measured.data),
        communication: measured.share(measured.waits.exposed),
        communication_hidden: measured.waits.hidden(),
        memory_bytes: device::process_memory().peak_resident.unwrap_or(0),
        energy_joules,
        reward_margin: tally.map(|tally| tally.margins / tally.pairs),
        preference_accuracy: tally.map(|tally| tally.right / tally.pairs),
        seen: state.seen.languages(),
    };
    (cx.observer)(&Event::Step(record))
}

/// What the pairs of all processes since the last record have come to.
fn take_tally(cx: &mut Context<'_>) -> Result<Option<Tally>, TrainError> {
    let Some(preferences) = &mut cx.preferences else { return Ok(None) };
    let own = std::mem::take(&mut preferences.tally);
    Ok(Some(Tally::sum(&cx.team.gather(own.to_bytes())?)))
}

fn evaluate(plan: &Plan, state: &mut TrainState, cx: &mut Context<'_>) -> Result<EvalRecord, TrainError> {
    cx.team.at(state.step, "evaluation");
    // What was drawn before belongs to training.
    cx.drawn = cx.energy.take(cx.team)?.map(|joules| joules + cx.drawn.unwrap_or(0.0));
    let mut record = evaluate::evaluate(plan, state, cx)?;
    record.energy_joules = cx.energy.take(cx.team)?;
    if state.losses.first_val_bpb.is_empty() {
        state.losses.first_val_bpb = record.val.iter().map(|(lang, score)| (lang.clone(), score.bpb)).collect();
    }
    (cx.observer)(&Event::Evaluated(record.clone()))?;
    if let Some(regression) = regression::find(&state.losses.first_val_bpb, &record) {
        (cx.observer)(&Event::Regressed(regression))?;
    }
    Ok(record)
}

fn halted(plan: &Plan, step: u64, reason: Reason) -> TrainError {
    let rows = plan.rows_of(step);
    let (first_row, end_row) = (rows.start, rows.end);
    TrainError::Halted { step, skips: plan.guard.max_consecutive_skips, reason, first_row, end_row }
}

/// Keeps count of failed saves: one may fail (a full disk that is being cleaned), two in a row stop the run.
struct Saves {
    last: u64,
    failures: u32,
}

impl Saves {
    /// Saves `state` unless it is saved already. With `last` the run cannot go on after it, so a failure is tried
    /// again at once and then reported as the run's. Replicas are equal, so rank 0 writes; it decides for all whether
    /// there is a (further) attempt, and the others send it what only they hold.
    fn commit(&mut self, state: &mut TrainState, cx: &mut Context<'_>, last: bool) -> Result<(), TrainError> {
        cx.team.at(state.step, "saving");
        cx.viewer.put_together(&mut state.seen, cx.team)?;
        let mut wanted = match cx.checkpoints {
            Some(store) => state.step != self.last || self.failures > 0 || store.list()?.is_empty(),
            None => false,
        };
        while cx.team.leader_says(wanted)? {
            wanted = match cx.checkpoints {
                Some(checkpoints) => !self.save(state, cx, checkpoints)? && last,
                None if state.optimizer.partition.is_some() => {
                    cx.team.send_moments(&state.optimizer).map(|()| false)?
                }
                None => false,
            };
        }
        Ok(())
    }

    /// One attempt; whether it succeeded.
    fn save(
        &mut self,
        state: &TrainState,
        cx: &mut Context<'_>,
        checkpoints: &CheckpointStore,
    ) -> Result<bool, TrainError> {
        let start = Instant::now();
        match commit(state, cx, checkpoints) {
            Ok(saved) => {
                (self.last, self.failures) = (state.step, 0);
                let seconds = start.elapsed().as_secs_f64();
                let Committed { path: checkpoint, bytes, state_digest } = saved;
                (cx.observer)(&Event::Saved { step: state.step, checkpoint, bytes, seconds, state_digest })?;
                Ok(true)
            }
            Err(CheckpointError::Peer(lost)) => Err(lost.into()),
            Err(source) => {
                self.failures += 1;
                (cx.observer)(&Event::SaveFailed { step: state.step, why: source.to_string() })?;
                if self.failures >= MAX_FAILED_SAVES {
                    return Err(TrainError::CannotSave { failures: self.failures, source });
                }
                Ok(false)
            }
        }
    }
}

/// Writes a checkpoint; moments that other processes keep are fetched as they are written.
fn commit(
    state: &TrainState,
    cx: &mut Context<'_>,
    checkpoints: &CheckpointStore,
) -> Result<Committed, CheckpointError> {
    if state.optimizer.partition.is_none() {
        return checkpoints.commit(state, cx.checkpoint_files);
    }
    let (params, team) = (state.params.specs().len(), &mut *cx.team);
    let mut fetched = 0;
    let mut fetch = |moment: usize, param: usize| {
        fetched += 1;
        Ok(team.collect_moment(&state.optimizer, moment, param)?)
    };
    let saved = checkpoints.commit_with(state, cx.checkpoint_files, &mut fetch);
    // After a failed write the others still send the rest, and must not wait for somebody to take it.
    for rest in fetched..2 * params {
        cx.team.collect_moment(&state.optimizer, rest / params, rest % params)?;
    }
    saved
}

struct Measured {
    loss: f64,
    lr: f64,
    grad_norm: f64,
    tokens_per_second: f64,
    data: Duration,
    total: Duration,
    waits: Waits,
}

impl Measured {
    fn share(&self, part: Duration) -> f64 {
        part.as_secs_f64() / self.total.as_secs_f64().max(1e-9)
    }
}

/// Tokens and seconds since the last record; evaluation and saves are left out.
struct Meter {
    since: Instant,
    tokens: u64,
}

impl Meter {
    fn new() -> Self {
        Self { since: Instant::now(), tokens: 0 }
    }

    fn add(&mut self, tokens: u64) {
        self.tokens += tokens;
    }

    fn restart(&mut self) {
        *self = Self::new();
    }

    fn record(&mut self, loss: f64, lr: f64, grad_norm: f64, data: &mut Prefetch, waits: Waits) -> Measured {
        let total = self.since.elapsed();
        let tokens_per_second = self.tokens as f64 / total.as_secs_f64().max(1e-9);
        let data = data.take_waited();
        self.restart();
        Measured { loss, lr, grad_norm, tokens_per_second, data, total, waits }
    }
}
