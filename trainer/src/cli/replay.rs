//! Owns `jazari replay`: a certified run once more, and the comparison step by step; never touches the loop.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use clap::Args;

use super::certify;
use super::failure::{Exit, Failure, note, say};
use super::progress::short;
use super::train::{self, Job};
use crate::card::RunFacts;
use crate::certificate::trace::{self, Agreement, StepVerdict, Trace};
use crate::certificate::{Certificate, Opened};
use crate::checkpoint::{self, Manifest};
use crate::cluster::place::{Place, PlaceFlags};
use crate::dataset_change::changed_values;
use crate::expect::Expect;
use crate::session::{self, Resume};

#[derive(Debug, Args)]
pub(super) struct ReplayArguments {
    /// A certificate
    certificate: PathBuf,
    /// The public key that must have signed it
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Begin after this step, from a checkpoint of the certified run; 0 begins as the run did
    #[arg(long, default_value_t = 0, value_name = "S")]
    from_step: u64,
    /// How many steps to repeat; default: all that are certified
    #[arg(long, value_name = "K")]
    steps: Option<u64>,
    /// The certified run, for --from-step; default: the folder that the certificate lies in
    #[arg(long, value_name = "DIR")]
    run: Option<PathBuf>,
    /// Where the replay is written; default: replay-DIGEST
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Also be content with what differs by no more than rounding, as on another kind of processor
    #[arg(long)]
    accept_rounding: bool,
    /// Change a value that does not decide the numbers: where the data is, threads, `cluster`
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
}

/// Repeats a certified run and says where it differs.
pub(super) fn replay(arguments: &ReplayArguments) -> Result<Exit, Failure> {
    let place = Place::find(&PlaceFlags::default(), &|name| std::env::var(name).ok()).map_err(Failure::usage)?;
    let opened = certify::open(&arguments.certificate, arguments.key.as_deref())?;
    let steps = steps(arguments, &opened.statement.predicate)?;
    let out = output(arguments, &opened)?;
    let exit = train::start(|| job(arguments, &opened, &out, &steps))?;
    if place.rank > 0 || exit != Exit::Done {
        return Ok(exit);
    }
    compare(arguments, &opened, &out, &steps)
}

/// The run directory of a replay that was asked for on the command line of `jazari launch`, after the checks that need no
/// device.
pub(super) fn prepare(arguments: &ReplayArguments) -> Result<PathBuf, Failure> {
    let opened = certify::open(&arguments.certificate, arguments.key.as_deref())?;
    let out = output(arguments, &opened)?;
    job(arguments, &opened, &out, &steps(arguments, &opened.statement.predicate)?)?;
    Ok(out)
}

fn steps(arguments: &ReplayArguments, certificate: &Certificate) -> Result<RangeInclusive<u64>, Failure> {
    let (from, last) = (arguments.from_step, certificate.checkpoint.step);
    let refuse = |what: String| Err(Failure::usage(format!("{}: {what}", arguments.certificate.display())));
    if from >= last || arguments.steps == Some(0) {
        return refuse(format!(
            "it certifies steps 1 to {last}; choose --from-step below {last} and at least one step"
        ));
    }
    if let Some(change) = certificate.checkpoint.dataset_changes.iter().rfind(|change| change.step > from) {
        let step = change.step;
        return refuse(format!("the run changed its data set after step {step}; replay it with --from-step {step}"));
    }
    if certificate.plan.get("outer").is_some_and(|outer| !outer.is_null()) {
        return refuse(
            "the run was one site of several, and what the others sent is not in it; it cannot be repeated".into(),
        );
    }
    let steps = from + 1..=arguments.steps.map_or(last, |steps| from.saturating_add(steps).min(last));
    // Found out before hours of work, not after.
    let known = certificate.trace.known();
    match known.iter().find(|step| **step > from) {
        Some(next) if !steps.contains(next) => refuse(format!(
            "it says nothing of the steps {} to {}; the next that it knows is {next}: write --steps {}",
            steps.start(),
            steps.end(),
            next - from
        )),
        _ => Ok(steps),
    }
}

/// Where the replay is written: never into what it is compared with.
fn output(arguments: &ReplayArguments, opened: &Opened) -> Result<PathBuf, Failure> {
    let out = arguments.out.clone().unwrap_or_else(|| PathBuf::from(format!("replay-{}", short(&opened.digest))));
    let original = certified_run(arguments);
    if original.canonicalize().is_ok_and(|run| out.canonicalize().is_ok_and(|out| out == run)) {
        let why = format!("{}: this is the certified run itself; choose another folder with --out", out.display());
        return Err(Failure::usage(why));
    }
    Ok(out)
}

fn certified_run(arguments: &ReplayArguments) -> PathBuf {
    let beside = arguments.certificate.parent().filter(|folder| !folder.as_os_str().is_empty());
    arguments.run.clone().unwrap_or_else(|| beside.unwrap_or(Path::new(".")).to_owned())
}

fn job(arguments: &ReplayArguments, opened: &Opened, out: &Path, steps: &RangeInclusive<u64>) -> Result<Job, Failure> {
    let certificate = &opened.statement.predicate;
    let place = format!("output_dir={}", serde_json::json!(out));
    let overrides: Vec<String> = std::iter::once(place).chain(arguments.set.iter().cloned()).collect();
    // Mistakes can only be in what was set: what errors call the file is where its text is from.
    let mut resolved = session::resolve_text(&arguments.certificate, &certificate.config, &overrides)?;
    if resolved.plan.digest() != certificate.checkpoint.plan {
        return Err(Failure::usage(format!(
            "{}: what is here is another plan than the certified one: {}; say where the same data and base model are \
             with `--set 'datasets=[{{path: DIR}}]'` and `--set base_model=DIR`, and change nothing that decides the numbers",
            arguments.certificate.display(),
            changed_values(certificate.plan.get("decisive").unwrap_or(&serde_json::Value::Null), &resolved.plan)
                .join(", ")
        )));
    }
    // What the run had to reach was judged when it ran.
    resolved.plan.expect = Expect::default();
    // Where and when the run was watched and had power is no part of what it computed.
    (resolved.plan.power_window, resolved.plan.prometheus) = (None, None);
    let resume = if steps.start() == &1 || out.join("checkpoints").is_dir() {
        Resume::Auto
    } else {
        Resume::From(certified_checkpoint(arguments, certificate)?)
    };
    Ok(Job { resolved, resume, until: Some(*steps.end()) })
}

/// The checkpoint to begin from, once it is known to be the certified one.
fn certified_checkpoint(arguments: &ReplayArguments, certificate: &Certificate) -> Result<PathBuf, Failure> {
    let (run, step) = (certified_run(arguments), arguments.from_step);
    let there = checkpoint::store::list(&run.join("checkpoints")).unwrap_or_default();
    let Some((_, path)) = there.iter().find(|(at, _)| *at == step) else {
        let steps: Vec<String> = there.iter().rev().map(|(step, _)| step.to_string()).collect();
        let steps = if steps.is_empty() { "none".to_owned() } else { steps.join(", ") };
        return Err(Failure::usage(format!(
            "{}: there is no checkpoint of step {step} here (there are: {steps}); choose one of them, or name the certified \
             run with --run",
            run.display()
        )));
    };
    let found = Manifest::read(path).map_err(Failure::usage)?.state_digest;
    match certificate.trace.states.get(&step) {
        Some(certified) if *certified == found => Ok(path.clone()),
        certified => Err(Failure::failed(format!(
            "{}: refused: its state is {}, the certificate says {}",
            path.display(),
            short(&found),
            certified.map_or("nothing about this step", |digest| short(digest))
        ))),
    }
}

fn compare(
    arguments: &ReplayArguments,
    opened: &Opened,
    out: &Path,
    steps: &RangeInclusive<u64>,
) -> Result<Exit, Failure> {
    let replayed = Trace::read(out, &RunFacts::read(out)).map_err(Failure::failed)?;
    let verdicts = trace::compare(&opened.statement.predicate.trace, &replayed, steps);
    for stretch in verdicts.chunk_by(|a, b| a.agreement == b.agreement) {
        show(stretch);
    }
    let Some(worst) = verdicts.iter().map(|verdict| verdict.agreement).max() else {
        note("note: the certificate says nothing about these steps; choose more with --steps");
        return Ok(Exit::Missed);
    };
    let (first, last) = (steps.start(), steps.end());
    let (verdict, exit) = match worst {
        Agreement::SameBits => ("the same bits", Exit::Done),
        Agreement::SameToRounding if arguments.accept_rounding => ("the same to rounding", Exit::Done),
        Agreement::SameToRounding => {
            ("the same to rounding, not to the bit (--accept-rounding is content with that)", Exit::Missed)
        }
        Agreement::Different => ("DIFFERENT", Exit::Missed),
    };
    say(&format!("{}: steps {first} to {last} replayed: {verdict}", arguments.certificate.display()));
    Ok(exit)
}

/// A line for steps in a row that agree alike; of what differs, the first is told in full.
fn show(stretch: &[StepVerdict]) {
    let (Some(first), Some(last)) = (stretch.first(), stretch.last()) else { return };
    let steps = if first.step == last.step {
        format!("step {}", first.step)
    } else {
        format!("steps {}..{}", first.step, last.step)
    };
    match first.agreement {
        Agreement::SameBits => {
            let with = |what: &str| stretch.iter().filter(|verdict| verdict.detail.contains(what)).count();
            let (losses, parameters, states) = (with("loss"), with("parameters"), with("state"));
            say(&format!(
                "ok   {steps}: same bits ({losses} losses, {parameters} digests of parameters, {states} of states)"
            ));
        }
        agreement => {
            let word = if agreement == Agreement::Different { "FAIL" } else { "near" };
            let at = if first.step == last.step { String::new() } else { format!("first at step {}: ", first.step) };
            say(&format!("{word} {steps}: {at}{}", first.detail));
        }
    }
}
