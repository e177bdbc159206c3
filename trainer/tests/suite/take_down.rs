//! Promise: after a take-down a run goes on only when its user has acknowledged the change of the data set, and what was
//! seen before and after can be told.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use crate::support::{self, jazari, run_ok, set, text};
use serde_json::Value;
use trainer::checkpoint::Manifest;
use trainer::checkpoint::store::list;

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() { copy(&path, &target) } else { _ = fs::copy(&path, &target).unwrap() }
    }
}

fn train(data: &Path, run: &Path, more: &[&str]) -> Output {
    let datasets = format!("datasets=[{{path: \"{}\"}}]", data.display());
    let mut arguments = vec!["train".to_owned(), "configs/ci-tiny.yaml".to_owned()];
    for value in [set("output_dir", run), datasets] {
        arguments.extend(["--set".to_owned(), value]);
    }
    arguments.extend(more.iter().map(|part| (*part).to_owned()));
    jazari(&arguments.iter().map(String::as_str).collect::<Vec<_>>()).output().unwrap()
}

fn lines(output: &Output) -> Vec<Value> {
    String::from_utf8_lossy(&output.stdout).lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// The samples as five sources, one a language.
fn five_sources(dir: &Path) -> PathBuf {
    let (raw, data) = (dir.join("raw"), dir.join("data"));
    fs::create_dir(&raw).unwrap();
    for name in ["ary_Arab", "ary_Latn", "zgh_Tfng", "fra_Latn", "arb_Arab"] {
        let rows = fs::read_to_string(support::root().join(format!("samples/{name}.jsonl"))).unwrap();
        fs::write(raw.join(format!("{name}.jsonl")), rows.replace("jazari-samples", name)).unwrap();
    }
    let sources = format!("sources=[{{path: \"{}\"}}]", raw.display());
    let out = set("output_dir", &data);
    run_ok(&["data", "prepare", "configs/ci-tiny-data.yaml", "--set", &out, "--set", &sources]);
    data
}

fn path(dir: &Path) -> &str {
    dir.to_str().unwrap()
}

#[test]
fn a_source_and_a_document_go_and_the_run_goes_on_when_that_is_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let (data, run) = (five_sources(dir.path()), dir.path().join("run"));
    let whole = train(&data, &run, &[]);
    assert_eq!(whole.status.code(), Some(0), "{}", text(&whole));
    // Back to the checkpoint of step 20: 10 steps are left to do.
    let checkpoints = list(&run.join("checkpoints")).unwrap();
    let (newest, folder) = &checkpoints[0];
    assert_eq!((*newest, checkpoints.len()), (30, 2));
    fs::remove_dir_all(folder).unwrap();

    // What step 1 saw, and who saw the first of these documents.
    let rows = lines(&run_ok(&["data", "trace", path(&run), "--step", "1", "--world", "2", "--json"]));
    assert_eq!(rows.len(), 8);
    assert_eq!((rows[0]["rank"].as_u64(), rows[7]["rank"].as_u64()), (Some(0), Some(1)));
    let one = rows[0]["parts"][0]["id"].as_str().unwrap().to_owned();
    let seen = lines(&run_ok(&["data", "trace", path(&run), "--document", &one, "--json"]));
    let seen = seen[0]["seen"].as_array().unwrap().clone();
    assert!(seen.iter().any(|sighting| sighting["row"] == 0 && sighting["step"] == 1), "{seen:?}");

    let named = if one_is_french(&rows) { "arb_Arab" } else { "fra_Latn" };
    let dry = run_ok(&["data", "remove", path(&data), "--source", named, "--dry-run"]);
    assert!(text(&dry).contains("nothing was changed"), "{}", text(&dry));
    let removed = run_ok(&["data", "remove", path(&data), "--id", &one, "--reason", "asked for by letter"]);
    assert!(text(&removed).contains("--accept-dataset-change "), "{}", text(&removed));
    run_ok(&["data", "remove", path(&data), "--source", named]);
    run_ok(&["data", "verify", path(&data)]);

    let refused = train(&data, &run, &[]);
    let message = text(&refused);
    assert_eq!(refused.status.code(), Some(2), "{message}");
    assert!(message.contains("asked for by letter") && message.contains("from step 20"), "{message}");
    let known = message.split("--accept-dataset-change ").nth(1).unwrap().split('`').next().unwrap().to_owned();
    let wrong = train(&data, &run, &["--accept-dataset-change", "0123456789ab..0123456789ab"]);
    assert_eq!(wrong.status.code(), Some(2), "{}", text(&wrong));

    let accepted = train(&data, &run, &["--accept-dataset-change", &known]);
    assert_eq!(accepted.status.code(), Some(0), "{}", text(&accepted));
    let (step, newest) = list(&run.join("checkpoints")).unwrap().remove(0);
    let manifest = Manifest::read(&newest).unwrap();
    assert_eq!((step, manifest.dataset_changes.len(), manifest.dataset_changes[0].step), (30, 1, 20));
    assert_eq!(manifest.dataset_changes[0].to, manifest.identity.dataset);
    let events = fs::read_to_string(run.join("events.jsonl")).unwrap();
    assert!(events.contains("\"event\":\"dataset_changed\""), "{events}");
    // From here on nothing has to be acknowledged again.
    assert_eq!(train(&data, &run, &[]).status.code(), Some(0));

    trace_after(&data, &run, &one, seen.len());
}

fn one_is_french(rows: &[Value]) -> bool {
    rows[0]["parts"][0]["source"] == "fra_Latn"
}

/// The removed document's sightings are those from before, less what the steps after the change would have seen.
fn trace_after(data: &Path, run: &Path, one: &str, before: usize) {
    let gone = lines(&run_ok(&["data", "trace", path(run), "--document", one, "--json"]));
    let seen = gone[0]["seen"].as_array().unwrap();
    assert!(gone[0]["removed"]["id"] == *one && seen.len() <= before, "{gone:?}");
    assert!(seen.iter().any(|sighting| sighting["row"] == 0) && seen.iter().all(|s| s["step"].as_u64() <= Some(20)));
    let late = lines(&run_ok(&["data", "trace", path(run), "--step", "21", "--json"]));
    assert!(late.iter().all(|row| row["parts"].as_array().unwrap().iter().all(|part| part["id"] != *one)));
    let early = support::run(&["data", "trace", path(run), "--step", "20"]);
    assert_eq!(early.status.code(), Some(2));
    assert!(text(&early).contains("documents were taken down after step 20"), "{}", text(&early));
    let of_data = run_ok(&["data", "trace", path(data), "--document", one]);
    assert!(text(&of_data).contains("was taken down at"), "{}", text(&of_data));
}

#[test]
fn the_order_after_a_change_is_a_function_of_the_step() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    copy(&support::tiny_dataset(), &data);
    let (first, second) = (dir.path().join("first"), dir.path().join("second"));
    assert_eq!(train(&data, &first, &[]).status.code(), Some(0));
    let (_, newest) = list(&first.join("checkpoints")).unwrap().remove(0);
    fs::remove_dir_all(newest).unwrap();
    copy(&first, &second);
    let rows = lines(&run_ok(&["data", "inspect", path(&data), "--limit", "1", "--json"]));
    let id = rows[0]["id"].as_str().unwrap();
    let old = Manifest::read(&list(&first.join("checkpoints")).unwrap()[0].1).unwrap().identity.dataset;
    run_ok(&["data", "remove", path(&data), "--id", id]);
    let new = blake3_of(&data.join("manifest.json"));
    let known = format!("{old}..{new}");
    for run in [&first, &second] {
        let done = train(&data, run, &["--accept-dataset-change", &known]);
        assert_eq!(done.status.code(), Some(0), "{}", text(&done));
    }
    assert_eq!(support::final_digest(&first), support::final_digest(&second));
}

fn blake3_of(path: &Path) -> String {
    blake3::hash(&fs::read(path).unwrap()).to_hex().to_string()
}

#[test]
fn a_data_set_comes_back_as_text_and_in_the_layouts_of_others() {
    let dir = tempfile::tempdir().unwrap();
    let data = support::tiny_dataset();
    let out = |name: &str| dir.path().join(name);
    for (form, name) in [
        ("jsonl", "a.jsonl"),
        ("jsonl", "a.jsonl.zst"),
        ("parquet", "a.parquet"),
        ("text", "a.txt"),
        ("dolma", "dolma"),
        ("megatron", "megatron"),
        ("datatrove", "datatrove"),
    ] {
        run_ok(&["data", "convert", path(&data), "--to", form, "--out", path(&out(name))]);
        let again = support::run(&["data", "convert", path(&data), "--to", form, "--out", path(&out(name))]);
        assert_eq!(again.status.code(), Some(2), "{}", text(&again));
    }
    let piped = run_ok(&["data", "convert", path(&data), "--to", "jsonl", "--out", "-"]);
    assert_eq!(fs::read(out("a.jsonl")).unwrap(), piped.stdout);
    // The texts are those of the samples, character for character.
    let samples: String = ["ary_Arab", "ary_Latn", "zgh_Tfng", "fra_Latn", "arb_Arab"]
        .iter()
        .map(|name| fs::read_to_string(support::root().join(format!("samples/{name}.jsonl"))).unwrap())
        .collect();
    let texts: Vec<String> = samples
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["text"].as_str().unwrap().to_owned())
        .collect();
    let rows = lines(&piped);
    assert!(!rows.is_empty() && rows.iter().all(|row| texts.iter().any(|text| *text == row["text"])));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 7, "no temporary file stays");
}
