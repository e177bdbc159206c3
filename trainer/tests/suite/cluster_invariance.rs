//! Promise: the number of processes is invisible: same losses, same state, to the bit, also when it changes on the way.

use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use crate::support::{self, final_digest, jazari, launch_arguments, launch_tiny, losses, text, train_tiny};
use trainer::checkpoint::store::list;

/// Eight leaves a step, so that up to eight processes can share it; rows hold different numbers of target tokens.
const LEAVES: &str = "micro_batch_size=1";

#[test]
fn one_process_or_eight_train_the_same_bits() {
    let dir = tempfile::tempdir().unwrap();
    let one = dir.path().join("one");
    let settings = [LEAVES, "logging_steps=1", "cluster.digest_steps=5"];
    train_tiny(&one, &settings);
    let (expected, digest) = (losses(&one), final_digest(&one));
    assert_eq!(expected.len(), 30);
    for processes in [2, 4, 8] {
        let run = dir.path().join(format!("run-{processes}"));
        launch_tiny(processes, &run, &settings);
        assert_eq!(losses(&run), expected, "{processes} processes");
        assert_eq!(final_digest(&run), digest, "{processes} processes");
    }
}

#[test]
fn divided_states_and_gradients_train_the_same_bits() {
    divided_runs_train_the_same_bits("optimizer=adamw");
}

/// Muon's matrices are dealt out whole.
#[test]
fn divided_matrices_of_muon_train_the_same_bits() {
    divided_runs_train_the_same_bits("optimizer=muon");
}

fn divided_runs_train_the_same_bits(optimizer: &str) {
    let dir = tempfile::tempdir().unwrap();
    let one = dir.path().join("one");
    let settings = [LEAVES, optimizer, "logging_steps=1", "cluster.digest_steps=5", "save_steps=7", "max_steps=28"];
    train_tiny(&one, &settings);
    let (expected, digest) = (losses(&one), final_digest(&one));
    // Small buckets, so that several are on their way at a time.
    let stages = ["cluster.zero=0", "cluster.zero=1", "cluster.zero=2"];
    let [whole, moments, gradients] =
        stages.map(|zero| [&settings[..], &[zero, "cluster.bucket_cap_mb=0.05"]].concat());
    for (processes, stage) in [(2, &whole), (2, &moments), (4, &moments), (2, &gradients), (8, &gradients)] {
        let run = dir.path().join(format!("run-{processes}-{}", stage[settings.len()]));
        launch_tiny(processes, &run, stage);
        assert_eq!(losses(&run), expected, "{processes} processes, {stage:?}");
        assert_eq!(final_digest(&run), digest, "{processes} processes, {stage:?}");
    }
    // Their checkpoints are whole: another number of processes, divided or not, goes on from them.
    let cut = dir.path().join("cut");
    start_and_cut(4, &cut, &gradients, 7);
    start_and_cut(2, &cut, &settings, 14);
    start_and_cut(8, &cut, &moments, 21);
    launch_tiny(4, &cut, &gradients);
    assert_eq!((losses(&cut), final_digest(&cut)), (expected, digest));
}

#[test]
fn fast_sums_agree_to_rounding_and_replicas_to_the_bit() {
    let dir = tempfile::tempdir().unwrap();
    let settings = [LEAVES, "logging_steps=1", "reduction=fast", "cluster.digest_steps=1"];
    let (one, three) = (dir.path().join("one"), dir.path().join("three"));
    train_tiny(&one, &settings);
    // Three processes cannot share eight leaves evenly; with digest_steps=1 every step compares the replicas.
    launch_tiny(3, &three, &settings);
    for ((step, a), (_, b)) in losses(&one).into_iter().zip(losses(&three)) {
        let (a, b) = (f64::from_bits(a), f64::from_bits(b));
        assert!((a - b).abs() <= 1e-5 * a, "step {step}: {a} and {b}");
    }
}

/// Starts a run that ends by itself, and ends its supervisor once `step` steps are saved.
fn start_and_cut(processes: usize, run: &Path, settings: &[&str], step: u64) {
    let arguments = launch_arguments(processes, &[], run, settings);
    let mut child: Child = jazari(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let limit = Instant::now() + Duration::from_secs(120);
    let saved = || list(&run.join("checkpoints")).ok().and_then(|found| Some(found.first()?.0)).unwrap_or(0);
    while saved() < step {
        assert!(Instant::now() < limit, "{processes} processes never saved step {step}");
        assert!(child.try_wait().unwrap().is_none(), "the run ended before step {step}");
        std::thread::sleep(Duration::from_millis(2));
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn another_number_of_processes_at_every_resume() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, cut) = (dir.path().join("whole"), dir.path().join("cut"));
    let settings = [LEAVES, "logging_steps=1", "save_steps=1", "max_steps=60"];
    train_tiny(&whole, &settings);
    for (processes, step) in [(4, 5), (2, 10), (1, 15), (8, 20)] {
        start_and_cut(processes, &cut, &settings, step);
    }
    launch_tiny(2, &cut, &settings);
    assert_eq!(final_digest(&cut), final_digest(&whole));
    assert_eq!(losses(&cut), losses(&whole));
}

#[test]
fn an_engine_that_cannot_be_used_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    // Without the feature the program does not have the one; with it, no MPI launcher has started the processes. The
    // other has to be there for one process as well.
    for (processes, engine) in [(2, "mpi"), (1, "nccl")] {
        let arguments = launch_arguments(processes, &[], &run, &[LEAVES, &format!("cluster.engine={engine}")]);
        let output = support::run(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(output.status.code(), Some(2), "{}", text(&output));
        assert!(text(&output).contains(&format!("error[J0702]: `cluster.engine: {engine}`: ")), "{}", text(&output));
        assert!(!run.exists(), "nothing may be written");
    }
}

#[test]
fn a_number_of_processes_that_would_change_the_sum_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    let arguments = launch_arguments(3, &[], &run, &[LEAVES]);
    let output = support::run(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
    let said = text(&output);
    assert!(
        said.contains("a step has 8 micro-batches (8 rows, 1 at a time), which 3 processes cannot share"),
        "{said}"
    );
    assert!(said.contains("start 1, 2, 4, 8 processes, or write a smaller `micro_batch_size`"), "{said}");
    assert!(!run.exists(), "nothing may be written");
}
