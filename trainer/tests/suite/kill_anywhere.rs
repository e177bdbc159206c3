//! Promise: `kill -9` at any moment of a run, inside a save too, loses no committed checkpoint, and every resume works.
//!
//! `JAZARI_KILLS=200` sets the number of kills; the default keeps the everyday suite short.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use crate::support::{final_digest, jazari, tiny_arguments, train_tiny};
use trainer::checkpoint::Manifest;
use trainer::checkpoint::store::{list, verify_files};

/// Saves after every step, so that most of the run's time is spent inside the commit protocol.
const SETTINGS: [&str; 3] = ["save_steps=1", "logging_steps=1", "eval_steps=20"];

/// Steps whose checkpoints are complete: every byte is checked.
fn valid_steps(run: &Path) -> BTreeSet<u64> {
    let Ok(found) = list(&run.join("checkpoints")) else { return BTreeSet::new() };
    found
        .into_iter()
        .filter(|(_, path)| Manifest::read(path).is_ok_and(|m| verify_files(path, &m).is_ok()))
        .map(|(step, _)| step)
        .collect()
}

fn kills() -> usize {
    std::env::var("JAZARI_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(25)
}

#[test]
fn no_checkpoint_is_lost_and_every_resume_is_valid() {
    let dir = tempfile::tempdir().unwrap();
    let whole = dir.path().join("whole");
    train_tiny(&whole, &SETTINGS);
    let expected = final_digest(&whole);

    let (mut killed, mut finished, mut runs, mut random) = (0, 0, 0, 0x9e37_79b9_7f4a_7c15_u64);
    let mut run = dir.path().join("run-0");
    let mut newest = None;
    while killed < kills() {
        // xorshift64: the moments are random but the same in every run of this test.
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let arguments = tiny_arguments(&run, &SETTINGS);
        let mut child = jazari(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_micros(random % 900_000));
        let ended = child.try_wait().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        if let Some(status) = ended {
            assert_eq!(status.code(), Some(0), "a resumed run must end well");
            assert_eq!(final_digest(&run), expected, "after {killed} kills");
            (finished, runs, newest) = (finished + 1, runs + 1, None);
            run = dir.path().join(format!("run-{runs}"));
            continue;
        }
        killed += 1;
        let valid = valid_steps(&run);
        assert!(
            valid.last().copied() >= newest,
            "kill {killed}: {newest:?} was committed, now only {valid:?} are valid"
        );
        newest = valid.last().copied().or(newest);
        let set_aside = std::fs::read_dir(run.join("checkpoints")).into_iter().flatten();
        let set_aside = set_aside.filter(|e| e.as_ref().unwrap().file_name().to_string_lossy().starts_with("invalid-"));
        assert_eq!(set_aside.count(), 0, "kill {killed}: a committed checkpoint was invalid");
    }
    train_tiny(&run, &SETTINGS);
    assert_eq!(final_digest(&run), expected);
    eprintln!("{killed} kills, {} runs brought to their end, 0 lost checkpoints, same bits every time", finished + 1);
}
