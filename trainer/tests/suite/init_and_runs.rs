//! Promise: whatever `jazari init` offers is a pair of configurations that this program accepts; `jazari runs` tells runs
//! apart.

use std::fs;
use std::path::Path;

use crate::support::{run, run_ok, text, tiny_dataset, train_tiny};

const HARDWARE: [&str; 4] = ["cpu", "gpu-24gb", "gpu-80gb", "8xgpu-80gb"];

fn init(folder: &Path, more: &[&str]) -> String {
    let folder = folder.display().to_string();
    text(&run_ok(&[&["init", folder.as_str()], more].concat()))
}

fn valid(folder: &Path, more: &[&str]) {
    let config = folder.join("train.yaml").display().to_string();
    run_ok(&[&["validate", config.as_str()], more].concat());
}

#[test]
fn every_task_that_starts_from_a_model_is_valid() {
    let dir = tempfile::tempdir().unwrap();
    let (base, export) = (dir.path().join("base"), dir.path().join("export"));
    train_tiny(&base, &["max_steps=2", "warmup_steps=1", "expect={}"]);
    let [base, export] = [base, export].map(|path| path.display().to_string());
    run_ok(&["export", &base, "--to", "hf", "--out", &export]);
    let data = format!("datasets=[{{path: {:?}}}]", tiny_dataset());
    for from in [&base, &export] {
        for hardware in HARDWARE {
            for task in ["continue", "lora", "chat", "preferences"] {
                let folder = dir.path().join(format!("{}-{hardware}-{task}", from.len()));
                let texts = match task {
                    "chat" => "samples/chats/chats.jsonl",
                    "preferences" => "samples/chats/preferences.jsonl",
                    _ => "samples/*.jsonl",
                };
                init(&folder, &["--task", task, "--hardware", hardware, "--base", from, "--texts", texts]);
                let more: &[&str] = if folder.join("data.yaml").exists() { &["--set", &data] } else { &[] };
                valid(&folder, more);
            }
        }
    }
}

/// The whole way of a newcomer: init, prepare, train.
#[test]
fn what_init_writes_trains_and_keeps_the_languages_that_were_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("model");
    init(&folder, &["--languages", "darija,french", "--size", "3m", "--texts", "samples/*.jsonl"]);
    let config = |name: &str| folder.join(name).display().to_string();
    run_ok(&["data", "prepare", &config("data.yaml"), "--set", "tokenizer.train.vocab_size=1024"]);
    let stats = fs::read_to_string(folder.join("data/manifest.json")).unwrap();
    assert!(stats.contains("ary_Arab") && stats.contains("ary_Latn") && stats.contains("fra_Latn"), "{stats}");
    assert!(!stats.contains("zgh_Tfng") && !stats.contains("arb_Arab"), "{stats}");
    run_ok(&["train", &config("train.yaml"), "--set", "sequence_len=64", "--set", "global_batch_size=8 seq"]);
    assert!(folder.join("run/report.html").is_file());

    let again = run(&["init", &folder.display().to_string()]);
    assert_eq!(again.status.code(), Some(2));
    assert!(text(&again).contains("data.yaml: it exists already"), "{}", text(&again));
    for (arguments, words) in [
        (vec!["--task", "lora"], "name its directory with --base DIR"),
        (vec!["--base", "samples"], "--base is for a model that goes on learning"),
        (vec!["--languages", "klingon"], "darija"),
        (vec!["--task", "chat", "--base", "nowhere"], "nowhere"),
    ] {
        let other = dir.path().join("other").display().to_string();
        let output = run(&[&["init", other.as_str()], &arguments[..]].concat());
        assert_eq!(output.status.code(), Some(2), "{arguments:?}\n{}", text(&output));
        assert!(text(&output).contains(words), "{arguments:?}\n{}", text(&output));
        assert!(!Path::new(&other).exists(), "{arguments:?}");
    }
}

#[test]
fn runs_are_listed_and_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let [first, second] = ["one", "two"].map(|name| dir.path().join(format!("runs/{name}")));
    train_tiny(&first, &[]);
    train_tiny(&second, &["learning_rate=0.001", "expect={}"]);
    let folder = dir.path().join("runs").display().to_string();
    let told = text(&run_ok(&["runs", &folder, "--diff"]));
    for words in ["one", "two", "finished", "30/30", "bits/byte", "learning_rate.", "0.001"] {
        assert!(told.contains(words), "{words}\n{told}");
    }
    assert!(!told.contains("seed:"), "{told}");
    let json: serde_json::Value =
        serde_json::from_slice(&run_ok(&["runs", &first.display().to_string(), "--json"]).stdout).unwrap();
    assert_eq!((json[0]["state"].as_str(), json[0]["step"].as_f64()), (Some("finished"), Some(30.0)), "{json}");
    assert!(json[0]["bits_per_byte_by_language"]["ary_Arab"].as_f64().is_some_and(|bpb| bpb > 0.0), "{json}");
    let empty = tempfile::tempdir().unwrap().path().join("none").display().to_string();
    assert_eq!(run(&["runs", &empty]).status.code(), Some(2));
    fs::create_dir(dir.path().join("empty")).unwrap();
    assert!(text(&run_ok(&["runs", &dir.path().join("empty").display().to_string()])).contains("no run here"));
}
