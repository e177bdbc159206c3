//! A take-down that is killed leaves the old or the new data set whole, and the same command finishes it; a full disk
//! changes nothing.

use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use data_pipeline::config::PrepareConfig;
use data_pipeline::prepare::prepare;
use data_pipeline::removal::{self, Cause, RemovalError, Report, Selection};
use data_pipeline::verify::verify;
use serde_json::json;

use crate::support::disk::SmallDisk;
use crate::support::{self, NEVER};

/// Names the data set to a child process.
const DATA: &str = "TEST_REMOVAL_DATA";
/// Kills, at the most.
const MAX_KILLS: u64 = 60;

/// A data set of many small shards, so that its removal takes a while.
fn prepared(dir: &Path) -> PathBuf {
    let row = |i: usize| {
        // Every shard holds some of both, so that every shard is written anew.
        let host = if i.is_multiple_of(3) { "www.example.org" } else { "news.example.ma" };
        let (text, url) = (format!("{} {i}", support::text("ary_Latn", i)), format!("https://{host}/{i}"));
        json!({"text": text, "lang": "ary_Latn", "source": "news", "licence": "MIT", "url": url}).to_string()
    };
    let lines: Vec<String> = (0..6_000).map(row).collect();
    let input = dir.join("in.jsonl");
    std::fs::write(&input, lines.join("\n") + "\n").unwrap();
    let config = json!({
        "output_dir": dir.join("data"),
        "sources": [{"path": input}],
        "allow_licences": ["MIT"],
        "shards": {"max_tokens": 4000},
        "tokenizer": {"train": {"vocab_size": 300, "max_bytes": 50_000}},
    });
    let config: PrepareConfig = serde_json::from_value(config).unwrap();
    prepare(&config, &|_| {}, &NEVER).unwrap().dir
}

fn take_down(data: &Path) -> Result<Report, RemovalError> {
    let mut selection = Selection::default();
    selection.insert("domain", "example.org").unwrap();
    let cause = Cause { time: "2026-11-22T10:00:00Z".into(), reason: None };
    removal::remove(data, &selection, &cause, false, &|_| {}, &NEVER)
}

/// This very test program, taking documents out of a data set.
fn child(data: &Path) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "removal_crash::as_a_child_of_another_test", "--ignored", "--nocapture"]);
    command.env(DATA, data).stdout(std::process::Stdio::null()).spawn().unwrap()
}

#[test]
#[ignore = "the other tests start it in a process of its own"]
fn as_a_child_of_another_test() {
    let Ok(data) = std::env::var(DATA) else { return };
    take_down(Path::new(&data)).unwrap();
}

fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-r").arg(from).arg(to).status().unwrap().success());
}

#[test]
fn killed_at_any_moment_it_leaves_one_whole_data_set_and_the_next_finishes() {
    let dir = tempfile::tempdir().unwrap();
    let original = prepared(dir.path());
    let old = support::contents(&original);
    let expected = dir.path().join("expected");
    copy(&original, &expected);
    let report = take_down(&expected).unwrap();
    let new = support::contents(&expected);
    let work = dir.path().join("work");
    let data = work.join("data");
    let (mut as_before, mut done) = (0, 0);
    let mut kills = 0;
    // Later and later, from before the first file to after the exchange.
    while kills < MAX_KILLS && done < 2 {
        _ = std::fs::remove_dir_all(&work);
        std::fs::create_dir(&work).unwrap();
        copy(&original, &data);
        let mut child = child(&data);
        std::thread::sleep(Duration::from_millis(5 + kills * kills));
        child.kill().unwrap();
        child.wait().unwrap();
        kills += 1;
        let found = support::contents(&data);
        assert!(found == old || found == new, "kill {kills} left neither the old nor the new data set");
        let was_done = found == new;
        (as_before, done) = (as_before + u64::from(!was_done), done + u64::from(was_done));
        let checked = verify(&data, &|_| {}, &NEVER).unwrap();
        assert!(checked.warnings.is_empty(), "{:?}", checked.warnings);
        let again = take_down(&data).unwrap();
        assert_eq!((again.already, &again.removal.new), (was_done, &report.removal.new));
        assert_eq!(again.removal.documents, report.removal.documents);
        assert!(support::contents(&data) == new, "after kill {kills} the second removal made other bytes");
        assert_eq!(std::fs::read_dir(&work).unwrap().count(), 1, "the work folder is gone");
    }
    assert!(as_before >= 2 && done >= 1, "{as_before} kills before and {done} after the exchange tell too little");
}

#[test]
fn a_full_disk_leaves_the_old_data_set_and_space_lets_it_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let original = prepared(dir.path());
    let old = support::contents(&original);
    let bytes: usize = old.values().map(Vec::len).sum();
    let size = u32::try_from(bytes.div_ceil(1 << 20)).unwrap() + 4;
    let Some(disk) = SmallDisk::mount(&dir.path().join("disk"), size) else { return };
    let data = disk.path().join("data");
    copy(&original, &data);
    // Whatever is left of the disk is taken, but for a little.
    let filler = std::fs::File::create(disk.path().join("filler")).unwrap();
    let mut written = 0;
    let block = vec![0; 64 << 10];
    while std::io::Write::write_all(&mut &filler, &block).is_ok() {
        written += block.len() as u64;
    }
    filler.set_len(written.saturating_sub(128 << 10)).unwrap();
    let error = take_down(&data).unwrap_err();
    assert!(error.to_string().contains("free space"), "{error}");
    assert!(support::contents(&data) == old, "a full disk changed the data set");
    assert!(!disk.path().join(".data.removing").exists(), "nothing is left of the attempt");
    verify(&data, &|_| {}, &NEVER).unwrap();
    disk.resize(size + 16);
    let report = take_down(&data).unwrap();
    assert_eq!(verify(&data, &|_| {}, &NEVER).unwrap().id, report.removal.new);
}
