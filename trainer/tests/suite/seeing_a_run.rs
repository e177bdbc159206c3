//! Promise: what a run did can be seen: on a terminal, in TensorBoard, in its report with every fault, by the code of an
//! error; and a configuration from elsewhere can be brought here.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::support::{jazari, kill_after, root, run, run_ok, text, tiny_arguments, train_tiny};

fn event_files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// Frames of an event file, without a look at the checksums (unit tests look).
fn frames(file: &Path) -> Vec<Vec<u8>> {
    let bytes = fs::read(file).unwrap();
    let mut rest = bytes.as_slice();
    let mut frames = Vec::new();
    while !rest.is_empty() {
        let length = usize::try_from(u64::from_le_bytes(rest[..8].try_into().unwrap())).unwrap();
        frames.push(rest[12..12 + length].to_vec());
        rest = &rest[16 + length..];
    }
    frames
}

fn holds(frame: &[u8], words: &str) -> bool {
    frame.windows(words.len()).any(|window| window == words.as_bytes())
}

#[test]
fn tensorboard_gets_every_record_also_of_a_run_that_was_killed() {
    let dir = tempfile::tempdir().unwrap();
    let run_dir = dir.path().join("run");
    let more = ["logging_steps=1", "tensorboard=true"];
    kill_after(&run_dir, 10, &more);
    train_tiny(&run_dir, &more);
    let live = event_files(&run_dir.join("tensorboard"));
    assert_eq!(live.len(), 2, "a file for each start: {live:?}");
    let steps = |frames: &[Vec<u8>]| frames.iter().filter(|frame| holds(frame, "train/loss")).count();
    let second = frames(&live[1]);
    assert!(steps(&frames(&live[0])) >= 10 && steps(&second) < 30, "{}", steps(&second));
    assert!(second.iter().any(|frame| holds(frame, "val_bits_per_byte/zgh_Tfng")));

    let made = dir.path().join("made");
    let (from, to) = (run_dir.display().to_string(), made.display().to_string());
    let said = text(&run_ok(&["inspect", &from, "--tensorboard", &to]));
    let made = event_files(&made);
    let records = fs::read_to_string(run_dir.join("metrics.jsonl")).unwrap();
    let records = records.lines().filter(|line| !line.contains("parameters_digest")).count();
    assert!(said.contains(&format!("{}: {records} records", made[0].display())), "{said}");
    assert_eq!((steps(&frames(&made[0])), frames(&made[0]).len()), (30, records + 2));
}

#[test]
fn a_run_is_watched_as_text_where_there_is_no_terminal() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().display().to_string();
    let nothing = run(&["watch", &folder]);
    assert_eq!(nothing.status.code(), Some(2));
    assert!(text(&nothing).contains("no run here"), "{}", text(&nothing));
    train_tiny(&dir.path().join("first"), &["max_steps=2", "warmup_steps=1", "expect={}"]);
    train_tiny(&dir.path().join("second"), &["max_steps=4", "warmup_steps=1", "expect={}"]);
    let seen = text(&run_ok(&["watch", &folder]));
    assert!(seen.contains("second: finished   plan ") && seen.contains("step 4 of 4"), "{seen}");
    assert!(seen.contains("zgh_Tfng: ") && seen.contains("event: step 4: saved"), "{seen}");
}

/// `script` of util-linux gives the program a terminal; a real one is needed to see that it is given back as it was.
#[test]
fn a_run_is_watched_on_a_terminal_and_left_with_q() {
    if std::process::Command::new("script").arg("--version").stdout(Stdio::null()).status().is_err() {
        return eprintln!("SKIPPED: there is no `script` (util-linux) to make a terminal with");
    }
    let dir = tempfile::tempdir().unwrap();
    train_tiny(&dir.path().join("run"), &["max_steps=4", "warmup_steps=1", "expect={}"]);
    let jazari = jazari(&[]).get_program().to_str().unwrap().to_owned();
    let command = format!("stty rows 40 cols 120; {jazari} watch {}; echo left with $?", dir.path().display());
    let mut child = std::process::Command::new("script")
        .args(["-qec", &command, "/dev/null"])
        .env("TERM", "xterm-256color")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut keys = child.stdin.take().unwrap();
    for key in ["\t", "\t", "q"] {
        std::thread::sleep(std::time::Duration::from_millis(700));
        std::io::Write::write_all(&mut keys, key.as_bytes()).unwrap();
    }
    let output = child.wait_with_output().unwrap();
    let bytes = &output.stdout;
    let at = |words: &str| bytes.windows(words.len()).rposition(|window| window == words.as_bytes());
    // The screen of before comes back when the program leaves, and the cursor with it.
    let left = at("\u{1b}[?1049l").expect("the other screen is left");
    assert!(at("left with 0").is_some_and(|end| left < end), "{}", text(&output));
    let mut terminal = vt100::Parser::new(40, 120, 0);
    terminal.process(&bytes[..left]);
    let shown = terminal.screen().contents();
    for words in
        ["run: finished   plan ", "step 4 of 4", "peak memory, GiB", "bits a byte", "zgh_Tfng", "step 4: saved, "]
    {
        assert!(shown.contains(words), "{words}\n{shown}");
    }
    terminal.process(&bytes[left..]);
    let screen = terminal.screen();
    assert!(!screen.alternate_screen() && !screen.hide_cursor() && screen.contents().contains("left with 0"));
}

#[test]
fn a_run_that_breaks_off_says_so_in_its_log_and_report() {
    let dir = tempfile::tempdir().unwrap();
    let run_dir = dir.path().join("run");
    // Every step looks like an outlier after the first two, and two in a row halt the run.
    let guard = "guard={outlier_sigma: 1.0e-9, window: 2, max_consecutive_skips: 2}";
    let arguments = tiny_arguments(&run_dir, &["logging_steps=1", guard]);
    let output = run(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert!(text(&output).contains("error[J0505]: halted at step "), "{}", text(&output));
    let events = fs::read_to_string(run_dir.join("events.jsonl")).unwrap();
    assert!(events.contains("\"event\":\"broken\"") && events.contains("\"code\":\"J0505\""), "{events}");
    let report = fs::read_to_string(run_dir.join("report.html")).unwrap();
    assert!(report.contains("What happened") && report.contains("BROKEN OFF [J0505]: halted at step "), "{report}");
    fs::remove_file(run_dir.join("report.html")).unwrap();
    run_ok(&["inspect", &run_dir.display().to_string(), "--report"]);
    assert_eq!(fs::read_to_string(run_dir.join("report.html")).unwrap(), report);
    let nowhere = dir.path().join("nowhere");
    assert_eq!(run(&["inspect", &nowhere.display().to_string(), "--report"]).status.code(), Some(2));
    assert!(!nowhere.exists());
    let seen = text(&run_ok(&["watch", &run_dir.display().to_string()]));
    assert!(seen.contains("BROKEN OFF [J0505]: halted at step ") && seen.contains(": stopped "), "{seen}");
}

#[test]
fn a_code_is_explained_in_three_languages() {
    let list = text(&run_ok(&["explain", "--lang", "en"]));
    assert!(list.contains("J0103 Unknown key\n") && list.lines().count() > 80, "{list}");
    let english = text(&run_ok(&["explain", "[j0103]", "--lang", "en"]));
    assert!(english.starts_with("J0103 Unknown key\n\nNothing reads this key"), "{english}");
    let in_locale = |locale: &str| {
        let output = jazari(&["explain", "103"]).env("LC_ALL", locale).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let (french, arabic) = (in_locale("fr_MA.UTF-8"), in_locale("ar_MA.UTF-8"));
    assert!(french.starts_with("J0103 ") && french.contains("`jazari migrate`") && french != english, "{french}");
    assert!(arabic.chars().any(|c| ('\u{600}'..'\u{700}').contains(&c)) && !arabic.contains("</div>"), "{arabic}");
    let unknown = run(&["explain", "J9999"]);
    assert_eq!(unknown.status.code(), Some(2));
    assert!(text(&unknown).contains("error[J0001]: there is no error code `J9999`"), "{}", text(&unknown));
}

#[test]
fn errors_have_the_codes_of_their_causes() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let tiny = root().join("configs/ci-tiny.yaml").display().to_string();
    let cases: [(&[&str], &str); 7] = [
        (&["validate", &path("absent.yaml")], "J0101"),
        (&["validate", &tiny, "--set", "learnig_rate=1"], "J0103"),
        (&["validate", &tiny, "--set", "datasets=[{path: /nowhere}]"], "J0301"),
        (&["verify", &path("absent")], "J0"),
        (&["data", "stats", &path("absent")], "J0"),
        (&["eval", &path("absent")], "J0801"),
        (&["runs", &path("absent")], "J0001"),
    ];
    for (arguments, code) in cases {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", text(&output));
        assert!(text(&output).contains(&format!("error[{code}")), "{arguments:?}: {}", text(&output));
    }
}

#[test]
fn a_recipe_from_elsewhere_is_brought_here() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("old.yaml");
    let old = "# ours since 2019\nmodel: {size: 3m}\ndatasets: [{path: d}]\nout_dir: runs/x # here\nseq_len: 64\ntrain_batch_size: 8\nmax_steps: 5\nlr: 1.0e-3\n";
    fs::write(&file, old).unwrap();
    let name = file.display().to_string();
    let printed = text(&run_ok(&["migrate", &name]));
    assert!(printed.contains("config_version: 1\nmodel") && printed.contains("output_dir: runs/x # here"), "{printed}");
    assert_eq!(fs::read_to_string(&file).unwrap(), old, "nothing is written without --write");
    assert_eq!(run(&["migrate", "--check", &name]).status.code(), Some(3));
    let link = dir.path().join("link.yaml");
    std::os::unix::fs::symlink(&file, &link).unwrap();
    let written = text(&run_ok(&["migrate", "--write", &link.display().to_string()]));
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink(), "a link stays one");
    assert!(written.contains("brought up to date"), "{written}");
    assert_eq!(run(&["migrate", "--check", &name]).status.code(), Some(0));
    assert!(fs::read_to_string(&file).unwrap().contains("global_batch_size: 8 seq\n"));
    let typo = dir.path().join("typo.yaml");
    fs::write(&typo, old.replace("max_steps", "max_step")).unwrap();
    let before = fs::read_to_string(&file).unwrap();
    let refused = run(&["migrate", "--write", &name, &typo.display().to_string()]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(
        text(&refused).contains("error[J0103]: ") && text(&refused).contains("typo.yaml:7:1"),
        "{}",
        text(&refused)
    );
    assert_eq!(fs::read_to_string(&file).unwrap(), before);
}
