//! Owns `jazari train` and `jazari inspect`: arguments, progress, the closing report; never touches the loop.

use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use data_pipeline::loader::Loader;
use model_zoo::Model;
use serde_json::Value;

use super::failure::{Exit, Failure, note, say};
use super::progress::{TrainProgress, short, thousands};
use crate::assembly::{self, Callbacks};
use crate::card;
use crate::certificate::program::{self, Machine};
use crate::checkpoint::{Manifest, TrainState};
use crate::cluster::ClusterError;
use crate::cluster::place::{Place, PlaceFlags};
use crate::config::Plan;
use crate::dataset_change::Acknowledged;
use crate::device::Opened;
use crate::durable;
use crate::energy::Energy;
use crate::events::Event;
use crate::launch;
use crate::outer::site::Site;
use crate::outer::sync;
use crate::power::PowerWindow;
use crate::preference::reference::{self, ReferenceError, Scoring};
use crate::preference::{Preferences, Reference, Tally};
use crate::prometheus::Exporter;
use crate::run_dir::RunDirError;
use crate::seen::Viewer;
use crate::session::{self, HostShare, Output, Resume, Session, SessionError};
use crate::signals::StopFlag;
use crate::team::Team;
use crate::tensorboard::{self, EventFile};
use crate::train::{self, Context, Outcome, TrainError};

/// Largest log that `inspect` reads, bytes.
const LOG_LIMIT_BYTES: u64 = 4 << 30;

#[derive(Debug, Args)]
pub(super) struct TrainArguments {
    #[command(flatten)]
    pub(super) config: super::ConfigArguments,
    /// Where to start: `auto` (newest valid checkpoint in output_dir, else fresh), `never`, or a checkpoint's folder
    #[arg(long, default_value = "auto", value_name = "auto|never|PATH")]
    resume: String,
    /// Go on though documents were taken down from the data set; may be given several times
    #[arg(long, value_name = "OLD..NEW")]
    accept_dataset_change: Vec<Acknowledged>,
}

#[derive(Debug, Args)]
pub(super) struct InspectArguments {
    /// A run directory
    run: PathBuf,
    /// Write its figures for TensorBoard into this folder, and show nothing
    #[arg(long, value_name = "FOLDER")]
    tensorboard: Option<PathBuf>,
    /// Make its report.html anew, and show nothing
    #[arg(long, conflicts_with = "tensorboard")]
    report: bool,
}

/// A run that is about to start.
pub(super) struct Job {
    /// What it is to do.
    pub(super) resolved: session::Resolved,
    /// Where it begins.
    pub(super) resume: Resume,
    /// Steps after which it stops though its plan goes on.
    pub(super) until: Option<u64>,
}

/// Trains as the config says.
pub(super) fn train(arguments: &TrainArguments) -> Result<Exit, Failure> {
    start(|| {
        let resume = match arguments.resume.as_str() {
            "auto" => Resume::Auto,
            "never" => Resume::Never,
            path => Resume::From(PathBuf::from(path)),
        };
        let mut resolved = session::resolve(&arguments.config.config, &arguments.config.set)?;
        resolved.acknowledged.clone_from(&arguments.accept_dataset_change);
        Ok(Job { resolved, resume, until: None })
    })
}

/// Does what `job` finds to be done.
pub(super) fn start(job: impl FnOnce() -> Result<Job, Failure>) -> Result<Exit, Failure> {
    let started = Instant::now();
    let env = |name: &str| std::env::var(name).ok();
    launch::tie_to_supervisor(&env).map_err(Failure::failed)?;
    let place = Place::find(&PlaceFlags::default(), &env).map_err(Failure::usage)?;
    let leads = place.rank == 0;
    let Job { resolved, resume, until } = job()?;
    resolved.plan.check_world(place.world).map_err(Failure::usage)?;
    for line in resolved.notes.iter().filter(|_| leads) {
        note(&format!("note: {line}"));
    }
    // Before the first write, so that a signal during start-up is not lost.
    let stop = StopFlag::install(!launch::is_supervised(&env)).map_err(Failure::failed)?;
    let mut team = join(&place, &resolved, &stop)?;
    // Whether this site fits is found out before anything is written.
    let tokenizer = &resolved.dataset.manifest().tokenizer.sha256;
    let site = sync::meet(&resolved.plan, tokenizer, &mut team, &stop, &note)
        .map_err(Failure::from)
        .inspect_err(|failure| farewell(&team, failure))?;
    let share = HostShare { threads: shared_threads(&place), local_rank: place.local_rank };
    let mut session = Session::open(resolved, &resume, share, team).map_err(Failure::from)?;
    for line in session.opened.notes.iter().filter(|_| leads) {
        note(&format!("note: {line}"));
    }
    if leads && session.state.step >= session.plan.max_steps {
        note("note: this run is already finished; it is evaluated again and its expectations are checked");
    }
    let outcome = run(&mut session, site.as_ref(), stop, (until, place.local_rank))
        .inspect_err(|failure| farewell(&session.team, failure));
    if let (Err(failure), Some(output)) = (&outcome, &mut session.output) {
        let broken = Event::Broken { step: session.state.step, code: failure.code().into(), why: failure.to_string() };
        // The error is what counts; a log that cannot be written may be its cause.
        let _ = output.run.record(&broken);
        let _ = card::html::write_report(output.run.root());
    }
    let outcome = outcome?;
    let as_planned = until.is_some_and(|until| session.state.step >= until);
    let exit = report(&mut session, &outcome, started, as_planned);
    // Nobody leaves before the leader has written everything: its failure would have no witness.
    session.team.barrier().map_err(Failure::from)?;
    session.team.leave();
    exit
}

/// Joins the other processes, if there are any.
fn join(place: &Place, resolved: &session::Resolved, stop: &StopFlag) -> Result<Team, Failure> {
    if !place.is_alone() {
        note(&place.to_string());
    }
    let on_fatal = Box::new(|error: &ClusterError| {
        end_process(Failure::from(error.clone()).report());
    });
    let callbacks = Callbacks { on_refused: &|line| note(&format!("warning: {line}")), on_fatal };
    assembly::assemble(place, &resolved.plan, resolved.dataset.id(), stop, callbacks).map_err(Failure::from)
}

/// A main thread that is stuck in a kernel or a system call cannot unwind.
#[allow(clippy::exit)]
pub(super) fn end_process(exit: Exit) {
    std::process::exit(exit.code().into());
}

/// Processes of one host share its cores, unless somebody has divided them already.
fn shared_threads(place: &Place) -> Option<usize> {
    let divided = std::env::var_os("RAYON_NUM_THREADS").is_some() || place.local_world <= 1;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    (!divided).then_some((cores / place.local_world).max(1))
}

/// Tells the others why this process leaves.
fn farewell(team: &Team, failure: &Failure) {
    match failure.exit() {
        Exit::PeerLost => {
            if let Some(report) = team.flight_recorder() {
                note(&format!("the newest collectives of each rank:\n{report}"));
            }
        }
        _ => team.fail(&failure.to_string()),
    }
}

fn run(
    session: &mut Session,
    outer: Option<&Site>,
    stop: StopFlag,
    (until, local_rank): (Option<u64>, usize),
) -> Result<Outcome, Failure> {
    let Session { plan, opened, model, buckets, dataset, loader, output, team, checkpoint_files, state, events } =
        session;
    let output_root = output.as_ref().map(|output| output.run.root().to_owned());
    let (mut log, checkpoints) = match output {
        Some(Output { run, checkpoints }) => (Some(run), Some(&*checkpoints)),
        None => (None, None),
    };
    let peak_flops = opened
        .published_peak_flops(model.precision())
        .or_else(|| crate::device::measure_peak_flops(&opened.device))
        .unwrap_or(f64::NAN);
    let leads = team.leads();
    let mut progress = leads.then(|| TrainProgress::new(plan.max_steps, state.step));
    let mut exporter = if leads { exporter(plan)? } else { None };
    let mut board = board(plan, output_root.as_deref(), state.step)?;
    let enough = stop.clone();
    let mut observer = |event: &Event| -> Result<(), TrainError> {
        if until.zip(event.steps_done()).is_some_and(|(until, done)| done >= until) {
            enough.set();
        }
        if let Some(progress) = &mut progress {
            progress.show(event);
        }
        if let Some(exporter) = &mut exporter {
            exporter.note(event);
        }
        if let Some(board) = &mut board {
            board.note(event).map_err(RunDirError::from)?;
        }
        Ok(log.as_mut().map_or(Ok(()), |log| log.record(event))?)
    };
    for event in events.drain(..) {
        observer(&event).map_err(Failure::failed)?;
    }
    let (energy, counted) = Energy::open(opened, local_rank, team).map_err(Failure::from)?;
    let started = started((plan, state, dataset.id()), (opened, peak_flops), team, counted);
    observer(&started).map_err(Failure::failed)?;
    let watched = plan.power_window.as_ref().filter(|_| leads);
    let preferences = preferences(plan, (opened, model, loader, state), team, &stop, &mut observer, output_root)?;
    let mut context = Context {
        preferences,
        viewer: Viewer::new(dataset),
        buckets: buckets.clone(),
        device: opened.device.clone(),
        model: model.clone(),
        dataset: std::sync::Arc::clone(dataset),
        loader: std::sync::Arc::clone(loader),
        checkpoints,
        checkpoint_files,
        peak_flops: peak_flops * team.world() as f64,
        team,
        flops_per_token: plan.flops_per_token(),
        observer: &mut observer,
        outer,
        energy,
        drawn: None,
        power: watched.map(PowerWindow::new).transpose().map_err(Failure::failed)?,
        stop,
    };
    train::train(plan, state, &mut context).map_err(Failure::from)
}

/// How a start is reported.
fn started(
    (plan, state, dataset): (&Plan, &TrainState, &str),
    (opened, peak_flops): (&Opened, f64),
    team: &Team,
    energy: String,
) -> Event {
    Event::Started {
        step: state.step,
        max_steps: plan.max_steps,
        parameters: state.params.num_elements() as u64,
        device: opened.summary(),
        processes: team.world() as u64,
        engine: team.engine().into(),
        peak_flops: peak_flops * team.world() as f64,
        plan: plan.digest(),
        dataset: dataset.to_owned(),
        version: env!("CARGO_PKG_VERSION").into(),
        binary_blake3: if team.leads() { program::binary_blake3() } else { None },
        machine: Machine::detect(),
        energy,
    }
}

/// Opens the page of figures where the plan asks for one.
fn exporter(plan: &Plan) -> Result<Option<Exporter>, Failure> {
    let Some(address) = plan.prometheus.as_ref().and_then(|address| address.parse().ok()) else { return Ok(None) };
    let exporter = Exporter::start(address).map_err(|error| {
        Failure::failed(format!("prometheus: {address} cannot be listened at ({error}); choose another port"))
    })?;
    note(&format!("figures for Prometheus at http://{}/metrics", exporter.address()));
    Ok(Some(exporter))
}

/// Begins the file for TensorBoard where the plan asks for one.
fn board(plan: &Plan, root: Option<&Path>, step: u64) -> Result<Option<EventFile>, Failure> {
    let folder = root.filter(|_| plan.tensorboard).map(|root| root.join(tensorboard::FOLDER));
    folder.map(|folder| EventFile::begin(&folder, step)).transpose().map_err(Failure::failed)
}

/// What a run needs to learn from preferences.
fn preferences(
    plan: &Plan,
    (opened, model, loader, state): (&Opened, &Model, &Loader, &TrainState),
    team: &mut Team,
    stop: &StopFlag,
    observer: &mut dyn FnMut(&Event) -> Result<(), TrainError>,
    folder: Option<PathBuf>,
) -> Result<Option<Preferences>, Failure> {
    let Some(objective) = plan.objective else { return Ok(None) };
    if !objective.needs_reference() {
        return Ok(Some(Preferences { objective, reference: Reference::default(), tally: Tally::default() }));
    }
    let scoring = Scoring { plan, loader, model, device: &opened.device };
    let starting_weights = || match state.step {
        0 => Ok(state.params.clone()),
        _ => session::starting_weights(plan, model, &opened.device).map_err(Failure::from),
    };
    let mut progress = |rows_done: u64, rows: u64| {
        let language = "reference".to_owned();
        // A log that cannot be written ends the run at its next event.
        observer(&Event::Evaluating { language, rows_done, rows }).is_err() || stop.is_set()
    };
    let reference = reference::obtain(&scoring, folder.as_deref(), starting_weights, team, &mut progress)?;
    Ok(Some(Preferences { objective, reference, tally: Tally::default() }))
}

fn report(session: &mut Session, outcome: &Outcome, started: Instant, as_planned: bool) -> Result<Exit, Failure> {
    let Session { plan, output, state, .. } = session;
    let Some(Output { run, checkpoints }) = output else { return Ok(follower_exit(plan, state, outcome)) };
    // The last thing a run does is to save; its manifest knows the digest of what several processes may hold in parts.
    let newest = checkpoints.list().map_err(Failure::failed)?.into_iter().next();
    let (_, newest) = newest.ok_or_else(|| Failure::failed("the run has ended without a checkpoint"))?;
    let state_digest = Manifest::read(&newest).map_err(Failure::failed)?.state_digest;
    let finished = Event::Finished { step: state.step, state_digest, seconds: started.elapsed().as_secs_f64() };
    run.record(&finished).map_err(Failure::failed)?;
    if let Err(error) = card::html::write_report(run.root()) {
        note(&format!("warning: the report was not written: {error}"));
    }
    let Event::Finished { state_digest, .. } = &finished else { return Ok(Exit::Failed) };
    let expect = &plan.expect;
    match outcome {
        Outcome::Stopped if as_planned => Ok(Exit::Done),
        Outcome::Stopped => {
            say(&format!(
                "stopped at step {} of {}; the state is saved: run the same command again to continue",
                state.step, plan.max_steps
            ));
            if !expect.is_empty() {
                note("note: the expectations were not checked, because the run is not over");
            }
            Ok(Exit::Done)
        }
        Outcome::Finished { eval } => {
            let loss = state.losses.last.map_or("none".into(), |l| format!("{l:.4}"));
            say(&format!(
                "finished {} steps, {} tokens: loss {loss}, state {}",
                state.step,
                thousands(state.tokens as f64),
                short(state_digest)
            ));
            say(&format!("run directory: {} (report.html shows it)", run.root().display()));
            let missed = expect.missed(&state.losses, eval.as_ref());
            for miss in &missed {
                note(&format!("expectation missed: {miss}"));
            }
            Ok(if missed.is_empty() { Exit::Done } else { Exit::Missed })
        }
    }
}

/// The exit code of a process that does not lead: what the leader decides, without its words.
fn follower_exit(plan: &Plan, state: &TrainState, outcome: &Outcome) -> Exit {
    match outcome {
        Outcome::Finished { eval } if !plan.expect.missed(&state.losses, eval.as_ref()).is_empty() => Exit::Missed,
        Outcome::Finished { .. } | Outcome::Stopped => Exit::Done,
    }
}

/// Shows what a run did, from its logs.
pub(super) fn inspect(arguments: &InspectArguments) -> Result<Exit, Failure> {
    if let Some(folder) = &arguments.tensorboard {
        let metrics = arguments.run.join("metrics.jsonl");
        let (path, records) = tensorboard::convert(&metrics, LOG_LIMIT_BYTES, folder).map_err(Failure::usage)?;
        match records {
            0 => note(&format!("{}: no figures to convert yet", metrics.display())),
            _ => say(&format!("{}: {records} records", path.display())),
        }
        return Ok(Exit::Done);
    }
    if arguments.report {
        // The folder of a run that is not there must not be made for a report of nothing.
        durable::read_text(&arguments.run.join("plan.json"), LOG_LIMIT_BYTES).map_err(Failure::usage)?;
        card::html::write_report(&arguments.run).map_err(Failure::failed)?;
        say(&arguments.run.join("report.html").display().to_string());
        return Ok(Exit::Done);
    }
    let read = |name: &str| -> Result<Vec<Value>, Failure> {
        let text = durable::read_text(&arguments.run.join(name), LOG_LIMIT_BYTES).map_err(Failure::usage)?;
        Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
    };
    let (metrics, events) = (read("metrics.jsonl")?, read("events.jsonl")?);
    let number = |v: &Value, key: &str| v.get(key).and_then(Value::as_f64).unwrap_or(f64::NAN);
    let steps: Vec<_> = metrics.iter().filter(|m| m.get("loss").is_some()).collect();
    if let (Some(first), Some(last)) = (steps.first(), steps.last()) {
        say(&format!(
            "steps {}..{}: loss {:.4} -> {:.4}, {} target tokens, {} tok/s in the last record",
            number(first, "step"),
            number(last, "step"),
            number(first, "loss"),
            number(last, "loss"),
            thousands(number(last, "tokens")),
            thousands(number(last, "tokens_per_second"))
        ));
    }
    for record in metrics.iter().filter(|m| m.get("val").is_some()) {
        let scores = record.get("val").and_then(Value::as_object).into_iter().flatten();
        let scores: Vec<_> = scores.map(|(l, s)| format!("{l} {:.3}", number(s, "bpb"))).collect();
        say(&format!("step {}: bits per byte {}", number(record, "step"), scores.join(", ")));
    }
    if let Some(last) = steps.last() {
        super::mixing::print_seen(last);
    }
    for event in &events {
        let kind = event.get("event").and_then(Value::as_str).unwrap_or("?");
        say(&format!("{kind}: {event}"));
    }
    Ok(Exit::Done)
}

impl From<SessionError> for Failure {
    fn from(error: SessionError) -> Self {
        match error {
            // A damaged checkpoint that was named on the command line is input as well.
            SessionError::RunDir(crate::run_dir::RunDirError::File(_)) => Self::failed(error),
            SessionError::Cluster(error) => Self::from(error),
            other => Self::usage(other),
        }
    }
}

impl From<TrainError> for Failure {
    fn from(error: TrainError) -> Self {
        match error {
            TrainError::Cluster(error) => Self::from(error),
            TrainError::Outer(error) => Self::from(error),
            other => Self::failed(other),
        }
    }
}

impl From<ReferenceError> for Failure {
    fn from(error: ReferenceError) -> Self {
        match error {
            ReferenceError::Cluster(error) => Self::from(error),
            other => Self::failed(other),
        }
    }
}

impl From<ClusterError> for Failure {
    fn from(error: ClusterError) -> Self {
        Self::with(Exit::from(&error), error)
    }
}
