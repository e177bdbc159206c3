//! Continuing a trained model: from a run, on several data sets, with a larger vocabulary, language by language.

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::{root, run, run_ok, set, text, tiny_dataset, train_tiny};
use serde_json::Value;

/// Prepares one language of the sample corpus with a finished tokenizer.
fn prepared(out: &Path, sources: &str, tokenizer: &Path) -> PathBuf {
    let sources = format!("sources=[{{path: {sources}}}]");
    let tokenizer = format!("tokenizer={{path: \"{}\"}}", tokenizer.display());
    let out_dir = set("output_dir", out);
    run_ok(&[
        "data",
        "prepare",
        "configs/ci-tiny-data.yaml",
        "--set",
        &out_dir,
        "--set",
        &sources,
        "--set",
        &tokenizer,
    ]);
    out.to_owned()
}

/// Arguments of a run of the tiny config that continues `base` instead of starting with a fresh model.
fn continuing(base: &Path, output: &Path, datasets: &str, more: &[&str]) -> Vec<String> {
    let tiny = fs::read_to_string(root().join("configs/ci-tiny.yaml")).unwrap();
    let (head, rest) = tiny.split_once("model:").unwrap();
    let (_, rest) = rest.split_once("datasets:").unwrap();
    let (rest, _) = rest.split_once("expect:").unwrap();
    let config = output.with_extension("yaml");
    fs::write(&config, format!("{head}base_model: {}\n\ndatasets:{rest}", base.display())).unwrap();
    let mut arguments = vec!["train".to_owned(), config.display().to_string()];
    let own = [set("output_dir", output), format!("datasets={datasets}")];
    for value in own.into_iter().chain(more.iter().map(|value| (*value).to_owned())) {
        arguments.extend(["--set".to_owned(), value]);
    }
    arguments
}

fn evaluations(run: &Path) -> Vec<Value> {
    let text = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let records = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    records.filter(|record| record["val"].is_object()).collect()
}

fn bpb(evaluation: &Value, language: &str) -> f64 {
    evaluation["val"][language]["bpb"].as_f64().unwrap()
}

#[test]
fn a_run_goes_on_with_replay_and_says_which_language_got_worse() {
    let dir = tempfile::tempdir().unwrap();
    let (base, next) = (dir.path().join("base"), dir.path().join("next"));
    train_tiny(&base, &["max_steps=30", "eval_steps=30"]);
    let whole = tiny_dataset();
    let part = prepared(&dir.path().join("latn"), "samples/ary_Latn.jsonl", &whole.join("tokenizer"));
    let mix =
        format!("[{{path: \"{}\", weight: 0.95}}, {{path: \"{}\", weight: 0.05}}]", part.display(), whole.display());
    let more = [
        "max_steps=30",
        "eval_steps=30",
        "warmup_start_ratio=0.5",
        "mixture.max_epochs=1000",
        "expect={max_regression: {zgh_Tfng: 0.0}}",
    ];
    let arguments = continuing(&base, &next, &mix, &more);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let output = run(&arguments);
    let said = text(&output);
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("expectation missed: max_regression: zgh_Tfng: 0"), "{said}");
    assert!(said.contains("zgh_Tfng got worse by"), "{said}");
    let (before, after) = (evaluations(&base).pop().unwrap(), evaluations(&next));
    // The first evaluation is the base model's, on the same documents and those of the part.
    assert!((bpb(&before, "zgh_Tfng") - bpb(&after[0], "zgh_Tfng")).abs() < 1e-6, "{before} {}", after[0]);
    let events = fs::read_to_string(next.join("events.jsonl")).unwrap();
    assert!(events.contains("\"event\":\"regressed\""), "{events}");
    let plan: Value = serde_json::from_str(&fs::read_to_string(next.join("plan.json")).unwrap()).unwrap();
    assert_eq!(plan["dataset"]["parts"].as_array().unwrap().len(), 2);
    assert!(plan["base_model"].as_str().unwrap().ends_with("step-00000030"));
    // The same command again finds a finished run of the same plan.
    assert_eq!(run(&arguments).status.code(), Some(3));
    let other = continuing(&base, &dir.path().join("other"), &mix.replace("0.05", "-1"), &[]);
    let refused = run(&other.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(refused.status.code() == Some(2) && text(&refused).contains("datasets[1].weight"), "{}", text(&refused));
}

#[test]
fn a_model_takes_a_larger_vocabulary_and_refuses_a_foreign_one() {
    let dir = tempfile::tempdir().unwrap();
    let base = dir.path().join("base");
    train_tiny(&base, &["max_steps=30", "eval_steps=30"]);
    let wide = dir.path().join("wide");
    let (from, to) = (base.join("tokenizer").display().to_string(), wide.display().to_string());
    let extended =
        run_ok(&["tokenizer", "extend", &from, "--data", "samples/ary_Latn.jsonl", "--add", "64", "--out", &to]);
    assert!(text(&extended).contains("64 of them new") && text(&extended).contains("exact"), "{}", text(&extended));
    let data = prepared(&dir.path().join("data"), "samples/ary_Latn.jsonl", &wide);
    let next = dir.path().join("next");
    let list = format!("[{{path: \"{}\"}}]", data.display());
    let more = ["max_steps=10", "eval_steps=10", "mixture.max_epochs=1000"];
    let arguments = continuing(&base, &next, &list, &more);
    let said = text(&run_ok(&arguments.iter().map(String::as_str).collect::<Vec<_>>()));
    assert!(said.contains("the vocabulary grows from"), "{said}");
    // New tokens are guessed about as well as the pieces were: far from the 8 bits a byte of a fresh model.
    let (before, start) = (evaluations(&base).pop().unwrap(), evaluations(&next).remove(0));
    let (before, start) = (bpb(&before, "ary_Latn"), bpb(&start, "ary_Latn"));
    assert!(start < before * 1.6, "{before} bits per byte before, {start} with the larger vocabulary");

    let foreign = dir.path().join("foreign");
    run_ok(&[
        "tokenizer",
        "train",
        "configs/ci-tiny-data.yaml",
        "--out",
        &foreign.display().to_string(),
        "--set",
        "sources=[{path: samples/zgh_Tfng.jsonl}]",
    ]);
    let data = prepared(&dir.path().join("strange"), "samples/ary_Latn.jsonl", &foreign);
    let list = format!("[{{path: \"{}\"}}]", data.display());
    let arguments = continuing(&base, &dir.path().join("no"), &list, &more);
    let refused = run(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(refused.status.code(), Some(2), "{}", text(&refused));
    assert!(text(&refused).contains("prepared with another tokenizer than `base_model`'s"), "{}", text(&refused));
    assert!(!dir.path().join("no").exists(), "a refused run writes nothing");
}
