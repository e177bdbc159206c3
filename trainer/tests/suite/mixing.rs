//! Promise: a staged mixture with quotas and best-fit rows is the same after a stop and on any number of processes, and
//! what was seen is what the plan said, counted to the token.

use std::path::Path;

use crate::support::{
    final_digest, kill_after, launch_tiny, losses, run, run_ok, set, text, tiny_arguments, tiny_dataset, train_tiny,
};
use serde_json::Value;

const MIXTURE: &str = "mixture={temperature: 1.0, max_epochs: 50, quotas: {zgh_Tfng: {min_share: 0.2}, \
    'licence:CC0-1.0': {min_share: 0.5}}, stages: [{until: 40%}, {until: 20, temperature: 0.0}, \
    {weights: {fra_Latn: 0}, quotas: {ary_Latn: {max_share: 0.1}}}]}";
const SETTINGS: [&str; 5] =
    [MIXTURE, "sample_packing=best_fit", "micro_batch_size=1", "logging_steps=1", "save_steps=7"];

/// What the last record of metrics says was seen, by language: rows, tokens, bytes.
fn seen(run: &Path) -> (u64, Vec<(String, [u64; 3])>) {
    let text = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let mut steps = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let last = steps.rfind(|record| record.get("seen").is_some()).unwrap();
    let languages = last["seen"].as_object().unwrap();
    let counts = |counts: &Value| ["rows", "tokens", "bytes"].map(|key| counts[key].as_u64().unwrap());
    (last["tokens"].as_u64().unwrap(), languages.iter().map(|(name, c)| (name.clone(), counts(c))).collect())
}

#[test]
fn stages_survive_stops_and_processes_and_what_was_seen_was_planned() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, cut, two) = (dir.path().join("whole"), dir.path().join("cut"), dir.path().join("two"));
    train_tiny(&whole, &SETTINGS);
    let (tokens, languages) = seen(&whole);
    assert_eq!(languages.iter().map(|(_, [rows, ..])| rows).sum::<u64>(), 30 * 8, "every row counts once");
    assert_eq!(languages.iter().map(|(_, [_, tokens, _])| tokens).sum::<u64>(), tokens);

    // The same plan says beforehand what was seen: rows to the row.
    let arguments = tiny_arguments(&dir.path().join("planned"), &SETTINGS);
    let mut plan: Vec<&str> = arguments.iter().map(String::as_str).collect();
    plan[0] = "plan";
    plan.push("--json");
    let output = run_ok(&plan);
    let planned: Value = serde_json::from_slice(&output.stdout).unwrap();
    for (language, [rows, seen_tokens, bytes]) in &languages {
        let planned = &planned["data"]["whole"]["languages"][language];
        assert_eq!(planned["rows"].as_f64().unwrap(), *rows as f64, "{language}");
        let near = |value: u64, planned: f64| (value as f64 - planned).abs() < 0.25 * planned + 300.0;
        assert!(near(*seen_tokens, planned["tokens"].as_f64().unwrap()), "{language}: {seen_tokens} of {planned}");
        assert!(near(*bytes, planned["bytes"].as_f64().unwrap()), "{language}: {bytes} of {planned}");
    }
    let stages = planned["data"]["stages"].as_array().unwrap();
    let share = |stage: usize, language: &str| stages[stage]["languages"][language]["share"].as_f64().unwrap();
    assert_eq!(stages.iter().map(|s| s["end_row"].as_u64().unwrap()).collect::<Vec<_>>(), [96, 160, 240]);
    assert!(share(0, "zgh_Tfng") >= 0.2 - 1.0 / 96.0 && share(2, "zgh_Tfng") >= 0.2 - 1.0 / 80.0);
    assert!(share(2, "fra_Latn") == 0.0 && share(2, "ary_Latn") <= 0.1 + 1.0 / 80.0);
    assert!((share(1, "fra_Latn") - share(1, "ary_Arab")).abs() < 2.0 / 64.0, "equal shares");

    // Stopped between two saves and inside a stage.
    let shorter = [&SETTINGS[..], &["expect={}"]].concat();
    kill_after(&cut, 14, &shorter);
    train_tiny(&cut, &SETTINGS);
    launch_tiny(2, &two, &SETTINGS);
    for other in [&cut, &two] {
        assert_eq!(losses(&whole), losses(other));
        assert_eq!(final_digest(&whole), final_digest(other));
        assert_eq!(seen(&whole), seen(other));
    }
    let inspected = text(&run_ok(&["inspect", two.to_str().unwrap()]));
    assert!(inspected.contains("seen by step 30") && inspected.contains("zgh_Tfng"), "{inspected}");
    let page = std::fs::read_to_string(two.join("report.html")).unwrap();
    assert!(page.contains("What the model saw"));
}

#[test]
fn the_resolved_config_is_the_same_plan() {
    let dir = tempfile::tempdir().unwrap();
    let whole = dir.path().join("whole");
    let short = [&SETTINGS[..], &["max_steps=30", "eval_steps=30"]].concat();
    train_tiny(&whole, &short);
    let resolved = whole.join("config.resolved.yaml");
    let again = dir.path().join("again");
    run_ok(&["train", resolved.to_str().unwrap(), "--set", &set("output_dir", &again)]);
    assert_eq!(final_digest(&whole), final_digest(&again));
}

#[test]
fn impossible_mixtures_end_before_anything_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let output = dir.path().join("run");
    for (mixture, word) in [
        ("mixture={quotas: {zgh_Tfng: {min_share: 0.9}}, max_epochs: 0.5}", "mixture"),
        ("mixture={quotas: {rif_Latn: {min_share: 0.1}}}", "mixture.quotas.rif_Latn: the dataset has no such language"),
        ("mixture={quotas: {zgh_Tfng: {max_share: 0}}}", "mixture.quotas.zgh_Tfng.max_share"),
        ("mixture={quotas: {zgh_Tfng: {}}}", "bounds nothing"),
        ("mixture={quotas: {'*': {max_share: 0.1}}}", "mixture.quotas.*: the dataset has no such"),
        ("mixture=[{temperature: 1}, {temperature: 0}]", "does not say where it ends"),
        ("mixture=[{until: 90%}, {until: 50%}, {}]", "stage 2 would end at step 15"),
        ("mixture=[{until: 90 percent}, {}]", "no part of a run"),
        ("mixture={stages: [{until: 10, quotas: {zgh_Tfng: {max_epochs: 2}}}, {}]}", "over the whole run"),
        ("sample_packing=first_fit", "best_fit"),
    ] {
        let arguments = tiny_arguments(&output, &[mixture]);
        let found = run(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(found.status.code(), Some(2), "{mixture}\n{}", text(&found));
        assert!(text(&found).contains(word), "{mixture}\n{}", text(&found));
        assert!(!output.exists());
    }
}

#[test]
fn a_tokenizer_is_measured_beside_another_and_held_to_gates() {
    let tokenizer = tiny_dataset().join("tokenizer");
    let tokenizer = tokenizer.to_str().unwrap();
    let eval = |more: &[&str]| run(&[&["tokenizer", "eval", tokenizer, "samples/*.jsonl"][..], more].concat());
    let plain = eval(&[]);
    assert_eq!(plain.status.code(), Some(0), "{}", text(&plain));
    assert!(text(&plain).contains("zgh_Tfng") && text(&plain).contains("letter-digit"), "{}", text(&plain));
    let beside = eval(&["--against", tokenizer, "--reference", "fra_Latn"]);
    assert!(text(&beside).contains("[2]") && text(&beside).contains("parity"), "{}", text(&beside));
    let json = eval(&["--json", "--reference", "fra_Latn"]);
    let json: Value = serde_json::from_slice(&json.stdout).unwrap();
    let french = &json["tokenizers"][0]["languages"]["fra_Latn"];
    assert_eq!(french["parity"]["ratio"].as_f64(), Some(1.0));
    assert!(french["tokens_per_word"].as_f64().unwrap() > 0.5);
    let missed = eval(&["--gate", "zgh_Tfng.max_tokens_per_word=0.5", "--gate", "*.max_failed_round_trips=0"]);
    assert_eq!(missed.status.code(), Some(3), "{}", text(&missed));
    assert!(text(&missed).contains("FAILED") && text(&missed).contains("1 of "), "{}", text(&missed));
    assert_eq!(eval(&["--gate", "zgh_Tfng.fertility=3"]).status.code(), Some(2));
    assert_eq!(eval(&["--reference", "rif_Latn"]).status.code(), Some(2));
}
