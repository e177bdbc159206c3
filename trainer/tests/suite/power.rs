//! Promise: a run that pauses while there is no power saves, waits, goes on by itself, and computes the same bits.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::support::{final_digest, jazari, launch_arguments, losses, run, text, tiny_arguments, train_tiny};

const SETTINGS: [&str; 3] = ["micro_batch_size=1", "logging_steps=1", "save_steps=10"];

/// Steps after which the power goes, three times.
const CUTS: [u64; 3] = [3, 11, 24];

fn events(run: &Path, kind: &str) -> Vec<serde_json::Value> {
    let text = fs::read_to_string(run.join("events.jsonl")).unwrap_or_default();
    let events = text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    events.filter(|event| event["event"] == kind).collect()
}

/// Waits until `ready` says so.
fn until(what: &str, mut ready: impl FnMut() -> bool) {
    let since = Instant::now();
    while !ready() {
        assert!(since.elapsed() < Duration::from_secs(60), "{what} never came");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Asks whether there is power, by the number of the step that the run has logged last: none after each of the cuts, until
/// the file `go-N` is there.
fn window(folder: &Path, run: &Path) -> Vec<String> {
    let script = folder.join("power.sh");
    let cuts: Vec<String> = CUTS.iter().map(u64::to_string).collect();
    let text = format!(
        "done=$(grep -c '\"grad_norm\"' {run}/metrics.jsonl)\nfor cut in {cuts}; do\n  if [ \"$done\" -ge $cut ] && [ ! -e {folder}/go-$cut ]; then exit 1; fi\ndone\nexit 0\n",
        run = run.display(),
        cuts = cuts.join(" "),
        folder = folder.display(),
    );
    fs::write(&script, text).unwrap();
    vec![format!("power_window={{command: \"sh {}\", check_every: 0.000001}}", script.display())]
}

fn with_power_cuts(arguments: &[String], folder: &Path, output: &Path) {
    let child = jazari(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    for (count, cut) in CUTS.iter().enumerate() {
        until("a pause", || events(output, "paused").len() > count);
        // Whatever happens to the machine now: the state is on disk.
        let step = events(output, "paused")[count]["step"].as_u64().unwrap();
        assert_eq!(step, *cut);
        assert!(output.join(format!("checkpoints/step-{step:08}/MANIFEST.json")).is_file());
        fs::write(folder.join(format!("go-{cut}")), "").unwrap();
    }
    let output_of_child = child.wait_with_output().unwrap();
    let told = text(&output_of_child);
    assert_eq!(output_of_child.status.code(), Some(0), "{told}");
    for cut in CUTS {
        assert!(told.contains(&format!("paused after step {cut}, saved")), "{told}");
        assert!(told.contains(&format!("going on from step {cut}")), "{told}");
    }
    assert_eq!(events(output, "woken").len(), CUTS.len());
}

#[test]
fn three_pauses_change_no_bit_on_one_process_and_on_two() {
    let dir = tempfile::tempdir().unwrap();
    let whole = dir.path().join("whole");
    train_tiny(&whole, &SETTINGS);
    for processes in [1, 2] {
        let folder = dir.path().join(format!("on-{processes}"));
        fs::create_dir(&folder).unwrap();
        let output = folder.join("run");
        let window = window(&folder, &output);
        let settings: Vec<&str> = SETTINGS.iter().copied().chain(window.iter().map(String::as_str)).collect();
        let arguments = match processes {
            1 => tiny_arguments(&output, &settings),
            _ => launch_arguments(processes, &[], &output, &settings),
        };
        with_power_cuts(&arguments, &folder, &output);
        assert_eq!((losses(&output), final_digest(&output)), (losses(&whole), final_digest(&whole)), "{processes}");
    }
}

#[test]
fn a_stop_is_heard_while_there_is_no_power() {
    let dir = tempfile::tempdir().unwrap();
    let output = dir.path().join("run");
    let settings = [&SETTINGS[..], &["power_window={command: \"exit 1\"}"]].concat();
    let arguments = tiny_arguments(&output, &settings);
    let child = jazari(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    until("the pause", || !events(&output, "paused").is_empty());
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let ended = child.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(0), "{}", text(&ended));
    assert!(text(&ended).contains("stopped at step 0 of 30; the state is saved"), "{}", text(&ended));
}

#[test]
fn mistakes_are_found_before_anything_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let output = dir.path().join("run");
    for (window, named) in [
        ("power_window={}", "says nothing about power"),
        ("power_window={hours: [\"8-17\"]}", "is no stretch of the day"),
        ("power_window={hours: [\"08:00-09:00\"], time_zone: Mars/Olympus}", "does not know the time zone"),
        ("power_window={command: \" \"}", "`power_window.command` is empty"),
        ("power_window={command: \"true\", check_every: 0}", "check_every"),
        ("power_window={hour: [\"08:00-09:00\"]}", "hours"),
    ] {
        let arguments = tiny_arguments(&output, &[window]);
        let ended = run(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(ended.status.code(), Some(2), "{window}\n{}", text(&ended));
        assert!(text(&ended).contains(named), "{window}\n{}", text(&ended));
        assert!(!output.exists(), "{window}");
    }
}

/// Without counters nothing is invented; with the watts of the configuration it is called an estimate.
#[test]
fn energy_is_measured_or_said_not_to_be() {
    let dir = tempfile::tempdir().unwrap();
    let output = dir.path().join("run");
    let energy = "energy={watts: 65, co2_g_per_kwh: 600}";
    train_tiny(&output, &[energy]);
    let started = events(&output, "started").remove(0);
    let counted = started["energy"].as_str().unwrap().to_owned();
    let metrics = fs::read_to_string(output.join("metrics.jsonl")).unwrap();
    let report = fs::read_to_string(output.join("report.html")).unwrap();
    if counted.starts_with("not measurable here: ") {
        assert!(!metrics.contains("energy_joules"), "{metrics}");
    } else {
        assert!(metrics.contains("energy_joules"), "{counted}");
    }
    assert!(report.contains("<h3>Energy</h3>") && report.contains("by the 65 W of the configuration"), "{report}");
    let plan = |more: &[&str]| {
        let arguments = tiny_arguments(&output, &[]);
        let arguments: Vec<&str> = arguments.iter().skip(1).map(String::as_str).chain(more.iter().copied()).collect();
        text(&run(&[&["plan"], &arguments[..]].concat()))
    };
    // 30 steps of 8 rows of 64 tokens at one token a second: 15,360 s at 65 W.
    let told = plan(&["--tokens-per-second", "1", "--set", energy]);
    assert!(told.contains("0.277 kWh, 0.166 kg of CO2"), "{told}");
    assert!(plan(&["--tokens-per-second", "1"]).contains("not estimated: write `energy"), "{told}");
    assert!(plan(&["--set", energy]).contains("unknown until the duration is"), "{told}");
    let wrong = plan(&["--set", "energy={watts: -1}"]);
    assert!(wrong.contains("energy.watts"), "{wrong}");
}
