//! Promise: stop a run anywhere, by any means, with any number of threads; it ends with the same bits.

use std::process::Stdio;
use std::time::Duration;

use crate::support::{final_digest, jazari, kill_after, losses, run, text, tiny_arguments, train_tiny};

const EVERY_STEP: [&str; 2] = ["save_steps=3", "logging_steps=1"];

#[test]
fn kill_and_resume_once_and_twice() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, once, twice) = (dir.path().join("whole"), dir.path().join("once"), dir.path().join("twice"));
    train_tiny(&whole, &EVERY_STEP);
    kill_after(&once, 12, &EVERY_STEP);
    train_tiny(&once, &EVERY_STEP);
    kill_after(&twice, 6, &EVERY_STEP);
    kill_after(&twice, 15, &EVERY_STEP);
    train_tiny(&twice, &EVERY_STEP);
    for other in [&once, &twice] {
        assert_eq!(final_digest(&whole), final_digest(other));
        assert_eq!(losses(&whole), losses(other), "every loss, to the bit");
    }
}

#[test]
fn the_number_of_threads_is_invisible() {
    let dir = tempfile::tempdir().unwrap();
    let runs: Vec<_> = [1, 2, 3, 4].map(|n| (n, dir.path().join(format!("threads-{n}")))).into();
    for (n, run) in &runs {
        train_tiny(run, &["logging_steps=1", &format!("threads={n}")]);
    }
    for (n, run) in &runs {
        assert_eq!(final_digest(&runs[0].1), final_digest(run), "{n} threads");
        assert_eq!(losses(&runs[0].1), losses(run), "{n} threads");
    }
    let mixed = dir.path().join("mixed");
    kill_after(&mixed, 9, &["logging_steps=1", "save_steps=3", "threads=1"]);
    train_tiny(&mixed, &["logging_steps=1", "save_steps=3", "threads=2"]);
    assert_eq!(final_digest(&runs[0].1), final_digest(&mixed), "killed on 1 thread, resumed on 2");
}

#[test]
fn activations_computed_twice_are_the_same_bits() {
    let dir = tempfile::tempdir().unwrap();
    let (kept, twice, switched) = (dir.path().join("kept"), dir.path().join("twice"), dir.path().join("switched"));
    let block = "gradient_checkpointing=block";
    train_tiny(&kept, &["logging_steps=1"]);
    train_tiny(&twice, &["logging_steps=1", block]);
    let half = dir.path().join("half");
    train_tiny(&half, &["logging_steps=1", "gradient_checkpointing=selective"]);
    kill_after(&switched, 9, &["logging_steps=1", "save_steps=3", block]);
    train_tiny(&switched, &["logging_steps=1", "save_steps=3"]);
    for other in [&twice, &half, &switched] {
        assert_eq!(losses(&kept), losses(other));
        assert_eq!(final_digest(&kept), final_digest(other));
    }
}

#[test]
fn half_the_micro_batch_is_the_same_loss() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, half) = (dir.path().join("whole"), dir.path().join("half"));
    train_tiny(&whole, &["logging_steps=1", "micro_batch_size=4"]);
    train_tiny(&half, &["logging_steps=1", "micro_batch_size=2"]);
    let (a, b) = (losses(&whole), losses(&half));
    assert_eq!(a.len(), b.len());
    assert!(a.len() >= 20);
    let mut worst: f64 = 0.0;
    for ((step, x), (_, y)) in a.iter().zip(&b).take(10) {
        let (x, y) = (f64::from_bits(*x), f64::from_bits(*y));
        worst = worst.max(((x - y) / x).abs());
        assert!(((x - y) / x).abs() < 1e-6, "step {step}: {x} and {y}");
    }
    eprintln!("largest relative difference over the first 10 steps: {worst:.2e}");
}

#[test]
fn sigterm_saves_and_leaves_and_the_rest_is_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, stopped) = (dir.path().join("whole"), dir.path().join("stopped"));
    train_tiny(&whole, &["logging_steps=1"]);
    let arguments = tiny_arguments(&stopped, &["logging_steps=1", "expect={}"]);
    let child = jazari(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    while !std::fs::read_to_string(stopped.join("metrics.jsonl")).is_ok_and(|t| t.contains("\"step\":5,")) {
        std::thread::sleep(Duration::from_millis(5));
    }
    let pid = rustix::process::Pid::from_raw(child.id().try_into().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert!(text(&output).contains("stopping at step"), "{}", text(&output));
    train_tiny(&stopped, &["logging_steps=1"]);
    assert_eq!(losses(&whole), losses(&stopped));
    assert_eq!(final_digest(&whole), final_digest(&stopped));
}

#[test]
fn a_changed_plan_or_a_second_process_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let output = dir.path().join("run");
    train_tiny(&output, &[]);
    let before = final_digest(&output);
    let arguments = tiny_arguments(&output, &["learning_rate=1e-5"]);
    let refused = run(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(refused.status.code(), Some(2), "{}", text(&refused));
    assert!(text(&refused).contains("learning_rate"), "the changed key is named: {}", text(&refused));
    let again = train_tiny(&output, &[]);
    assert!(text(&again).contains("already"), "{}", text(&again));
    assert_eq!(before, final_digest(&output));
}
