//! Promise: `jazari selftest` finds nothing wrong with a machine that works, says what it measured, and leaves nothing
//! behind, also when it is stopped half-way.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::Stdio;

use crate::support::{jazari, run, text};
use rustix::process::{Pid, Signal, kill_process};

/// Every check, in order, with a word of what it measured.
const CHECKS: [(&str, &str); 14] = [
    ("machine", "memory"),
    ("kernels", "GFLOP/s"),
    ("disk", "MB/s"),
    ("commit", "ms"),
    ("collectives", "processes 2"),
    ("all_reduce, exact", "GB/s"),
    ("all_reduce, fast", "GB/s"),
    ("data", "texts 40"),
    ("training", "first loss"),
    ("invariance", "1 process"),
    ("resume", "killed after step"),
    ("export", "MB"),
    ("parity", "comparisons"),
    ("generate", "prompts 5"),
];

#[test]
fn a_machine_that_works_passes_every_check() {
    let dir = tempfile::tempdir().unwrap();
    let output = jazari(&["selftest", "--processes", "2"]).env("TMPDIR", dir.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let table = String::from_utf8(output.stdout.clone()).unwrap();
    let mut lines = table.lines().skip(1);
    for (check, measured) in CHECKS {
        let row = lines.find(|line| line.starts_with(&format!("{check}  ")));
        let row = row.unwrap_or_else(|| panic!("no row {check:?} in its place\n{}", text(&output)));
        assert!(row.contains("  ok  ") && row.contains(measured), "{row}\n{}", text(&output));
    }
    let gpu = lines.find(|line| line.starts_with("gpu")).expect("a row about GPUs");
    let built = ["cuda", "rocm", "wgpu"].iter().any(|backend| {
        let choice: trainer::device::DeviceChoice = backend.parse().unwrap();
        choice.is_built()
    });
    assert!(built || gpu.contains("not in this build") && gpu.contains("  absent  "), "{gpu}");
    assert!(table.lines().last().unwrap().contains(" 0 missed"), "{table}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "something was left behind");
}

#[test]
fn a_signal_ends_it_and_nothing_stays() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = jazari(&["selftest", "--processes", "2"])
        .env("TMPDIR", dir.path())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    assert!(said.any(|line| line.ends_with(": collectives")), "it never came to the collectives");
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let rest: Vec<String> = said.collect();
    assert_eq!(child.wait().unwrap().code(), Some(1), "{rest:?}");
    assert!(rest.iter().any(|line| line.contains("stopped by a signal")), "{rest:?}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "something was left behind");
}

#[test]
fn wrong_usage_starts_nothing() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("mine"), "x").unwrap();
    let kept = dir.path().to_str().unwrap();
    for (arguments, why) in [
        (["selftest", "--processes", "1"].as_slice(), "between 2 and 32"),
        (&["selftest", "--keep", kept], "is not empty"),
        (&["selftest-rank"], "is a part of `jazari selftest`"),
    ] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", text(&output));
        assert!(text(&output).contains(why), "{arguments:?}: {}", text(&output));
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}
