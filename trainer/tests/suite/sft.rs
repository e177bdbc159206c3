//! Promise: a model that is fine-tuned on chats answers in their template and ends its turn, and a run on chats or
//! preferences resumes to the bit.

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::{self, final_digest, run, run_ok, set, text, tiny_dataset};
use serde_json::Value;

/// Arguments of `configs/ci-sft.yaml` into `output`.
fn sft(output: &Path, more: &[&str]) -> Vec<String> {
    let tokenizer = set("chat.tokenizer", &tiny_dataset().join("tokenizer"));
    arguments("configs/ci-sft.yaml", output, &[&[tokenizer.as_str()], more].concat())
}

fn dpo(base: &Path, output: &Path, more: &[&str]) -> Vec<String> {
    let base = set("base_model", base);
    arguments("configs/ci-dpo.yaml", output, &[&[base.as_str()], more].concat())
}

fn arguments(config: &str, output: &Path, more: &[&str]) -> Vec<String> {
    let mut arguments = vec!["train".to_owned(), config.to_owned(), "--set".to_owned(), set("output_dir", output)];
    for value in more {
        arguments.extend(["--set".to_owned(), (*value).to_owned()]);
    }
    arguments
}

fn go(arguments: &[String]) -> String {
    text(&run_ok(&arguments.iter().map(String::as_str).collect::<Vec<_>>()))
}

fn refuse(arguments: &[String]) -> String {
    let output = run(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
    text(&output)
}

fn export(run: &Path, out: &Path) -> PathBuf {
    run_ok(&["export", run.to_str().unwrap(), "--out", out.to_str().unwrap()]);
    out.to_owned()
}

fn metrics(run: &Path, key: &str) -> Vec<f64> {
    let text = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let values = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    values.filter_map(|record| record.get(key).and_then(Value::as_f64)).collect()
}

#[test]
fn a_model_fine_tuned_on_chats_answers_in_the_template_and_ends_its_turn() {
    let dir = tempfile::tempdir().unwrap();
    let output = dir.path().join("run");
    let said = go(&sft(&output, &[]));
    assert!(said.contains("samples of up to"), "{said}");
    run_ok(&["data", "verify", output.join("data").to_str().unwrap()]);
    let model = export(&output, &dir.path().join("model"));
    let read = |name: &str| fs::read_to_string(model.join(name)).unwrap();
    let template = read("chat_template.jinja");
    assert!(template.contains("<|im_start|>") && !template.contains("generation %}"), "{template}");
    let settings: Value = serde_json::from_str(&read("tokenizer_config.json")).unwrap();
    assert_eq!(settings["chat_template"].as_str(), Some(template.as_str()));
    let generation: Value = serde_json::from_str(&read("generation_config.json")).unwrap();
    // <|end_of_text|> and <|im_end|>
    assert_eq!(generation["eos_token_id"], serde_json::json!([1, 4]));
    let ask = |question: &str| {
        let arguments = ["generate", model.to_str().unwrap(), "--chat", question, "--max-tokens", "60"];
        String::from_utf8(run_ok(&arguments).stdout).unwrap()
    };
    let chats = fs::read_to_string(support::root().join("samples/chats/chats.jsonl")).unwrap();
    let mut right = 0;
    for line in chats.lines() {
        let record: Value = serde_json::from_str(line).unwrap();
        let messages = record["messages"].as_array().unwrap();
        if messages.len() == 2 && right < 3 {
            let answer = ask(messages[0]["content"].as_str().unwrap());
            right += usize::from(answer.trim_end() == messages[1]["content"].as_str().unwrap());
        }
    }
    assert!(right >= 3, "learned by heart: {right} answers");
}

#[test]
fn runs_on_chats_resume_to_the_bit_and_do_not_depend_on_processes() {
    let dir = tempfile::tempdir().unwrap();
    let short = ["max_steps=12", "warmup_steps=2", "save_steps=6", "eval_steps=12", "expect={}"];
    let whole = dir.path().join("whole");
    go(&sft(&whole, &short));
    // A run that was killed after its first checkpoint.
    let resumed = dir.path().join("resumed");
    go(&sft(&resumed, &short));
    fs::remove_dir_all(resumed.join("checkpoints/step-00000012")).unwrap();
    let said = go(&sft(&resumed, &short));
    assert_eq!(final_digest(&resumed), final_digest(&whole), "{said}");
    let shared = dir.path().join("shared");
    let train = sft(&shared, &short);
    let launch: Vec<&str> =
        ["launch", "--nproc", "2", "--"].into_iter().chain(train.iter().map(String::as_str)).collect();
    run_ok(&launch);
    assert_eq!(final_digest(&shared), final_digest(&whole), "two processes");
}

#[test]
fn preferences_are_learned_and_resume_to_the_bit() {
    let dir = tempfile::tempdir().unwrap();
    let base = dir.path().join("base");
    go(&sft(&base, &["max_steps=60", "warmup_steps=5", "eval_steps=60", "save_steps=60", "expect={}"]));
    let model = export(&base, &dir.path().join("model"));
    let whole = dir.path().join("whole");
    go(&dpo(&model, &whole, &[]));
    let (losses, margins) = (metrics(&whole, "loss"), metrics(&whole, "reward_margin"));
    assert!((losses[0] - std::f64::consts::LN_2).abs() < 1e-5, "the first loss is that of no preference: {losses:?}");
    assert!(margins[0].abs() < 1e-4 && margins.last().unwrap() > &0.5, "{margins:?}");
    assert!(losses.last().unwrap() < &0.5, "{losses:?}");
    assert_eq!(metrics(&whole, "preference_accuracy").last(), Some(&1.0));
    let resumed = dir.path().join("resumed");
    go(&dpo(&model, &resumed, &[]));
    fs::remove_dir_all(resumed.join("checkpoints/step-00000040")).unwrap();
    // The reference is read back, and made again when it is damaged.
    fs::write(resumed.join("reference_log_probs.bin"), "x").unwrap();
    go(&dpo(&model, &resumed, &[]));
    assert_eq!(final_digest(&resumed), final_digest(&whole));
    for objective in ["orpo", "simpo"] {
        let output = dir.path().join(objective);
        go(&dpo(&model, &output, &[&format!("objective={{type: {objective}}}")]));
        let (first, last) = (metrics(&output, "loss")[0], *metrics(&output, "loss").last().unwrap());
        assert!(last < first, "{objective}: {first} to {last}");
        assert!(!output.join("reference_log_probs.bin").exists());
    }
}

#[test]
fn what_cannot_be_learned_is_refused_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let output = dir.path().join("run");
    let chats = dir.path().join("chats.jsonl");
    fs::write(&chats, "{\"id\": \"a1\", \"messages\": [{\"role\": \"user\", \"content\": \"salam\"}]}\n").unwrap();
    let datasets = format!("datasets=[{{path: \"{}\", type: chat}}]", chats.display());
    let message = refuse(&sft(&output, &[&datasets]));
    assert!(message.contains("chats.jsonl: row 1 (byte 0), id `a1`"), "{message}");
    let cases: [(&[&str], &str); 8] = [
        (&["sequence_len=16"], "longer than sequence_len 16"),
        (&["objective={type: dpo}"], "holds no preferences"),
        (&["chat.chat_template=chatlm"], "neither a file nor a known chat template"),
        (&["chat.chat_template=llama3"], "no special token after a trained message"),
        (&["chat.roles_to_train=[]"], "`chat.roles_to_train` is empty"),
        (&["chat.tokenizer=nowhere"], "nowhere"),
        (&["datasets=[{path: samples/chats/preferences.jsonl, type: preference}]"], "add `objective: {type: dpo"),
        (&["max_steps=0"], "max_steps"),
    ];
    for (more, expected) in cases {
        let message = refuse(&sft(&output, more));
        assert!(message.contains(expected), "{more:?}: {message}");
        assert!(!output.exists(), "{more:?} left something behind");
    }
}
