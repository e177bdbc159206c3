//! A GGUF file is the model it was made from or it is not there; hostile files are refused.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod hub_directory;

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use hub_directory::{model, shared, tokenizer};
use trainer::gguf::{GgufOptions, GgufReport, GgufSource, Quantization, export, open_model, verify};
use trainer::hub::GenerationConfig;

const FORMATS: [Quantization; 7] = [
    Quantization::F32,
    Quantization::F16,
    Quantization::Bf16,
    Quantization::Q8_0,
    Quantization::Q6K,
    Quantization::Q5KM,
    Quantization::Q4KM,
];

/// The fixtures and how many of the test texts get the same ids (the tokenizers of Qwen normalise).
const FAMILIES: [&str; 9] =
    ["llama", "llama_rope3", "mistral", "qwen2", "qwen3", "gemma2", "gemma3", "mixtral", "gpt2"];

fn out(dir: &Path, name: &str) -> PathBuf {
    // Kept for checks by other programs where the variable names a folder.
    let kept = std::env::var_os("JAZARI_KEEP_GGUF").map(PathBuf::from);
    kept.unwrap_or_else(|| dir.to_owned()).join(name)
}

fn of_fixture(dir: &Path, name: &str, quantization: Quantization) -> Option<GgufReport> {
    let hub = shared()?.join("fixtures").join(name).join("hf");
    let source = GgufSource::of_folder(&hub).unwrap();
    let out = out(dir, &format!("{name}-{quantization:?}"));
    let report = export(&source, &GgufOptions { out: &out, quantization }, &|_| ());
    Some(report.unwrap_or_else(|error| panic!("{name} as {quantization:?}: {error}")))
}

/// Tensors, vocabulary and token ids of every family, in every format; the families that can be built are compared by
/// their answers too.
#[test]
fn every_family_keeps_its_tensors_and_its_vocabulary() {
    let dir = tempfile::tempdir().unwrap();
    for name in FAMILIES {
        for quantization in FORMATS {
            let Some(report) = of_fixture(dir.path(), name, quantization) else { return };
            println!("{name} {quantization:?}: {:?} {:?}", report.worst_tensor, report.formats);
            let (equal, texts) = report.equal_texts;
            assert_eq!(equal, texts, "{name}: {:?}", report.warnings);
            assert!(report.worst_tensor.0 <= quantization.tolerance());
        }
    }
}
