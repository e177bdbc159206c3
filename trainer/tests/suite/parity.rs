//! The model, the gradients, the optimizer and the tokenizer agree with PyTorch and transformers.

use crate::hub_directory::shared;
use burn::tensor::Device;
use trainer::parity::{self, ParityReport};

fn report(name: &str) -> Option<ParityReport> {
    let dir = shared()?.join("fixtures").join(name);
    Some(parity::run(&dir, &Device::flex(), &|_| ()).unwrap())
}

fn check(name: &str, absent: &[&str]) {
    let Some(report) = report(name) else { return };
    let failed: Vec<String> = report.rows.iter().filter(|row| !row.passed()).map(|row| format!("{row:?}")).collect();
    assert!(report.passed(), "{name}: {}", failed.join("\n"));
    assert_eq!((report.name.as_str(), report.absent.as_slice()), (name, absent));
    let seen: Vec<&str> = report.rows.iter().map(|row| row.check.as_str()).collect();
    let mut needed = vec![
        "parameters",
        "logits",
        "logits, relative",
        "hidden state 0",
        "hidden state 2",
        "loss",
        "packed logits",
        "packed loss",
        "token log-likelihoods",
        "mean log-likelihood",
        "greedy texts",
        "token ids",
        "decoded texts",
        "decoded continuations",
        "rendered chats",
        "token ids of chats",
        "trained tokens of chats",
        "logits, bf16-mixed",
    ];
    if absent.is_empty() {
        needed.extend([
            "weight decay groups",
            "gradient norms",
            "gradients",
            "accumulated global norm",
            "accumulated norms",
            "1 AdamW step, mean",
            "1 AdamW step, largest",
            "10 AdamW steps, mean",
            "10 AdamW steps, largest",
            "loss of every step",
            "norm of every step",
            "gradient, bf16-mixed",
            "gradient norm, bf16-mixed",
        ]);
    }
    for check in needed {
        assert!(seen.contains(&check), "{name}: {check:?} is not among {seen:?}");
    }
}

#[test]
fn llama() {
    check("llama", &[]);
}

#[test]
fn llama_with_scaled_rotary_positions_and_tied_head() {
    check("llama_rope3", &[]);
}

#[test]
fn llama_in_shards() {
    check("llama_sharded", &["training: the bundle has no reference for it"]);
}

#[test]
fn llama_stored_in_bf16() {
    check("llama_bf16", &["training: the bundle has no reference for it"]);
}

#[test]
fn mistral_with_a_window() {
    check("mistral", &[]);
}

#[test]
fn qwen2_with_biases() {
    check("qwen2", &[]);
}

#[test]
fn qwen3_with_normalised_heads() {
    check("qwen3", &[]);
}

#[test]
fn gemma2_with_bounds_and_windows() {
    check("gemma2", &[]);
}

#[test]
fn gemma3_with_two_rotary_bases() {
    check("gemma3", &[]);
}

#[test]
fn mixtral() {
    check("mixtral", &[]);
}

#[test]
fn gpt2() {
    check("gpt2", &[]);
}

#[test]
fn adapters() {
    for name in ["llama_lora", "qwen2_rslora"] {
        let Some(report) = report(name) else { return };
        let failed: Vec<String> =
            report.rows.iter().filter(|row| !row.passed()).map(|row| format!("{row:?}")).collect();
        assert!(report.passed(), "{name}: {}", failed.join("\n"));
        let seen: Vec<&str> = report.rows.iter().map(|row| row.check.as_str()).collect();
        let needed = [
            "scaling",
            "logits",
            "logits, relative",
            "loss",
            "loss of the base",
            "greedy texts",
            "merged beside adapted",
            "gradient norms",
            "gradients",
            "1 AdamW step, mean",
            "1 AdamW step, largest",
            "10 AdamW steps, mean",
            "10 AdamW steps, largest",
            "loss of every step",
            "norm of every step",
        ];
        assert!(needed.iter().all(|check| seen.contains(check)), "{name}: {seen:?}");
        assert!(name != "llama_lora" || seen.contains(&"merged tensors"));
    }
}

/// Runs the bundle `llama` with `from` replaced by `to` in one of its files; names the checks that failed.
fn failures_after(file: &str, from: &str, to: &str) -> Option<Vec<String>> {
    let (source, copy) = (shared()?.join("fixtures/llama"), tempfile::tempdir().unwrap());
    for part in ["hf", "expected"] {
        std::fs::create_dir(copy.path().join(part)).unwrap();
        for entry in std::fs::read_dir(source.join(part)).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), copy.path().join(part).join(entry.file_name())).unwrap();
        }
    }
    let path = copy.path().join(file);
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains(from));
    std::fs::write(&path, text.replace(from, to)).unwrap();
    let report = parity::run(copy.path(), &Device::flex(), &|_| ()).unwrap();
    Some(report.rows.into_iter().filter(|row| !row.passed()).map(|row| row.check).collect())
}

/// The tolerances must be able to fail: a model that differs in one number of its configuration does not pass.
#[test]
fn a_wrong_model_does_not_pass() {
    let change = ("\"rms_norm_eps\": 1e-05", "\"rms_norm_eps\": 1e-04");
    let Some(failed) = failures_after("hf/config.json", change.0, change.1) else { return };
    for check in ["logits", "gradients", "10 AdamW steps, mean"] {
        assert!(failed.iter().any(|name| name == check), "{check:?} passed; failed: {failed:?}");
    }
    assert!(!failed.iter().any(|name| name == "token ids"));
}

#[test]
fn a_wrong_optimizer_does_not_pass() {
    let manifest = "expected/manifest.json";
    let changes = [
        ("\"weight_decay\": 0.1", "\"weight_decay\": 0.3", "1 AdamW step, mean"),
        ("\"eps\": 1e-08", "\"eps\": 1e-04", "10 AdamW steps, mean"),
        ("\"clip_grad_norm\": 2.04", "\"clip_grad_norm\": 200.0", "10 AdamW steps, mean"),
        ("0.0003333333333333333", "0.0004333333333333333", "1 AdamW step, largest"),
    ];
    for (from, to, check) in changes {
        let Some(failed) = failures_after(manifest, from, to) else { return };
        assert!(failed.iter().any(|name| name == check), "{to}: {check:?} passed; failed: {failed:?}");
        assert!(!failed.iter().any(|name| name == "logits" || name == "gradients"), "{to}: {failed:?}");
    }
}

#[test]
fn bundles_that_are_not_supported_are_named() {
    let Some(shared) = shared() else { return };
    let refusal = |name: &str| {
        let dir = shared.join("fixtures").join(name);
        let message = parity::run(&dir, &Device::flex(), &|_| ()).unwrap_err().to_string();
        message.replace(&dir.display().to_string(), "DIR")
    };
    assert_eq!(
        refusal("llama/hf"),
        "DIR: not a reference bundle: hf/ is missing; a bundle has hf/ and expected/manifest.json"
    );
}
