//! `jazari eval`: the numbers of training come back, a model is found in all its forms, and multiple choice agrees with
//! the log-likelihoods that lm-evaluation-harness computes.

use std::fs;
use std::path::Path;

use crate::support::{root, run, run_ok, shared, text, tiny_dataset, train_tiny};
use serde_json::Value;
use trainer::eval::task::{Task, TaskOptions};

fn json(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn a_run_a_checkpoint_and_an_export_have_the_same_scores() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let shown = |name: &str| at(name).display().to_string();
    train_tiny(&at("run"), &["max_steps=10", "eval_steps=10", "expect={}", "eval.max_tokens_per_language=100000"]);
    run_ok(&["eval", &shown("run"), "--json", &shown("run.json")]);
    run_ok(&["export", &shown("run"), "--out", &shown("hf"), "--license", "apache-2.0"]);
    let checkpoint = at("run").join("checkpoints/step-00000010").display().to_string();
    let data = tiny_dataset().display().to_string();
    run_ok(&["eval", &checkpoint, "--data", &data, "--json", &shown("checkpoint.json")]);
    run_ok(&["eval", &shown("hf"), "--data", &data, "--sequence-len", "64", "--json", &shown("hf.json")]);

    let of = |name: &str| json(&at(name))["text"].as_object().unwrap().values().next().unwrap().clone();
    let from_run = of("run.json");
    assert_eq!(from_run, of("checkpoint.json"));
    let length = from_run["row_length"].as_u64().unwrap();
    run_ok(&[
        "eval",
        &shown("hf"),
        "--data",
        &data,
        "--sequence-len",
        &length.to_string(),
        "--json",
        &shown("hf.json"),
    ]);
    assert_eq!(from_run, of("hf.json"));
    // What training itself reported at its last step.
    let metrics = fs::read_to_string(at("run").join("metrics.jsonl")).unwrap();
    let records = metrics.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let last = records.rev().find(|record| record["val"].is_object()).unwrap();
    for (language, score) in last["val"].as_object().unwrap() {
        let (trained, now) = (score["bpb"].as_f64().unwrap(), from_run["languages"][language]["bpb"].as_f64().unwrap());
        assert!((trained - now).abs() < 1e-5, "{language}: {trained} in training, {now} now");
        assert_eq!(score["bytes"], from_run["languages"][language]["bytes"]);
    }
    assert!(from_run["scripts"].get("Tfng").is_some() || from_run["scripts"].get("Arab").is_some());

    let card = fs::read_to_string(at("hf").join("README.md")).unwrap();
    assert!(card.starts_with("---\nlanguage:\n") && card.contains("license: \"apache-2.0\""), "{card}");
    assert!(card.contains("CC0-1.0") && card.contains("Bits per byte on held-out documents at step 10"), "{card}");
    let report = fs::read_to_string(at("run").join("report.html")).unwrap();
    assert!(report.contains("<polyline") && !report.contains("<script"), "{report}");
    assert!(at("run").join("eval/step-00000010.json").is_file());
    let output = run(&["eval", &shown("hf")]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output).contains("say what to evaluate on"), "{}", text(&output));
    let output = run(&["eval", &shown("nothing")]);
    assert!(output.status.code() == Some(2) && text(&output).contains("neither a run directory"), "{}", text(&output));
}

/// Two made-up records of each benchmark, in Parquet with the columns and folders of the Hub.
#[test]
fn the_darija_benchmarks_load_as_they_lie_on_the_hub() {
    let data = Some(root().join("trainer/tests/golden/darija"));
    let options = TaskOptions { data, num_fewshot: Some(1), limit: None };
    let load = |name: &str| Task::load(&root().join("samples/eval").join(name), &options).unwrap();
    let (letters, endings) = (load("darijammlu.yaml"), load("darijahellaswag.yaml"));
    // The example is the other record, as the first of `dev` is the question itself.
    let expected = "هادا سؤال متعدد الخيارات (مع الجواب ديالو) على البيولوجيا\n\nالقلب فيه ربعة.\n\nشحال فيه؟\nA. 3\nB. 4\nC. 5\n\
        الجواب: B\n\nهادا سؤال متعدد الخيارات (مع الجواب ديالو) على البيولوجيا\n\nشنو هو القلب؟\nA. عضلة\nB. عظم\nC. جلد\nD. شعر\n\
        الجواب:";
    assert_eq!(letters.questions[0].context, expected);
    assert_eq!(letters.questions[1].choices, ["A", "B", "C"]);
    assert_eq!((letters.questions[0].gold.as_slice(), letters.questions[1].gold.as_slice()), (&[0][..], &[1][..]));
    assert!(endings.questions[0].context.ends_with("الطبخ: واحد الراجل كيقطع البصلة. من بعد"));
    assert_eq!((endings.questions[0].choices.len(), endings.questions[0].gold.as_slice()), (4, &[0][..]));
}

/// Log-likelihoods and accuracies of lm-evaluation-harness 0.4.13 with transformers on the same model and questions:
/// `lm_eval --model hf --model_args pretrained=llama/hf,dtype=float32 --tasks jazari_mini --log_samples`.
#[test]
fn questions_are_scored_as_the_harness_scores_them() {
    let Some(bundle) = shared("fixtures/llama/hf") else { return };
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    let model = bundle.display().to_string();
    let batches = [("big", "4096"), ("small", "64")];
    for (name, tokens) in batches {
        let (results, log) = (at(&format!("{name}.json")), at(&format!("{name}.jsonl")));
        let tasks = ["--tasks", "samples/eval/jazari_mini.yaml", "--log-samples", &log, "--json", &results];
        run_ok(&[&["eval", &model, "--batch-tokens", tokens][..], &tasks[..]].concat());
    }
    let expected: Value = serde_json::from_str(include_str!("../golden/harness_llama.json")).unwrap();
    let answers: Vec<Value> = fs::read_to_string(at("big.jsonl"))
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["answer"].clone())
        .collect();
    assert_eq!(answers.len(), 60);
    for (answer, expected) in answers.iter().zip(expected["log_likelihoods"].as_array().unwrap()) {
        let numbers =
            |value: &Value| -> Vec<f64> { value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect() };
        for (ours, theirs) in numbers(&answer["log_likelihoods"]).iter().zip(numbers(expected)) {
            assert!((ours - theirs).abs() < 1e-3, "question {}: {ours}, the harness says {theirs}", answer["question"]);
        }
    }
    let metrics = json(Path::new(&at("big.json")))["tasks"]["jazari_mini"]["metrics"].clone();
    for name in ["acc", "acc_norm"] {
        for key in ["value", "stderr"] {
            let (ours, theirs) = (metrics[name][key].as_f64().unwrap(), expected[name][key].as_f64().unwrap());
            assert!((ours - theirs).abs() < 1e-9, "{name} {key}: {ours}, the harness says {theirs}");
        }
    }
    let small = json(Path::new(&at("small.json")))["tasks"]["jazari_mini"]["metrics"].clone();
    assert_eq!(metrics, small, "how questions are batched must not change an answer");
}
