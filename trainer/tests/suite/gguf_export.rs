//! A GGUF file is the model it was made from or it is not there; hostile files are refused.

use std::io::Write;
use std::path::{Path, PathBuf};

use crate::hub_directory::{model, shared, tokenizer};
use burn::tensor::Device;
use model_zoo::{Params, WeightDtype};
use proptest::prelude::*;
use trainer::gguf::{
    GgufError, GgufFile, GgufOptions, GgufReport, GgufSource, Quantization, TensorType, dequantise, export, open_model,
    quantise, verify,
};
use trainer::hub::{GenerationConfig, import};

const FORMATS: [Quantization; 7] = [
    Quantization::F32,
    Quantization::F16,
    Quantization::Bf16,
    Quantization::Q8_0,
    Quantization::Q6K,
    Quantization::Q5KM,
    Quantization::Q4KM,
];

/// The fixtures.
const FAMILIES: [&str; 9] =
    ["llama", "llama_rope3", "mistral", "qwen2", "qwen3", "gemma2", "gemma3", "mixtral", "gpt2"];

fn out(dir: &Path, name: &str) -> PathBuf {
    // Kept for checks by other programs where the variable names a folder.
    let kept = std::env::var_os("JAZARI_KEEP_GGUF").map(PathBuf::from);
    kept.unwrap_or_else(|| dir.to_owned()).join(name)
}

fn of_fixture(dir: &Path, name: &str, quantization: Quantization) -> Option<GgufReport> {
    let hub = shared()?.join("fixtures").join(name).join("hf");
    // Families that can be computed here are compared by their answers too.
    let (imported, device) = (import(&hub, &Device::flex()).ok(), Device::flex());
    let mut source = GgufSource::of_folder(&hub).unwrap();
    source.trained = imported.as_ref().map(|imported| (&imported.model, &imported.params, &device));
    if let Some(imported) = &imported {
        source.config = imported.model.config().to_hub_json(WeightDtype::F32);
    }
    let out = out(dir, &format!("{name}-{quantization:?}"));
    let report = export(&source, &GgufOptions { out: &out, quantization }, &|_| ());
    Some(report.unwrap_or_else(|error| panic!("{name} as {quantization:?}: {error}")))
}

/// Tensors, vocabulary and token ids of every family, in every format.
#[test]
fn every_family_keeps_its_tensors_its_vocabulary_and_its_answers() {
    let dir = tempfile::tempdir().unwrap();
    let mut computed = Vec::new();
    for name in FAMILIES {
        for quantization in FORMATS {
            let Some(report) = of_fixture(dir.path(), name, quantization) else { return };
            let logits = report.logits.map(|l| format!("{:.2e} of {:.1}, KL {:.1e}", l.largest, l.peak, l.divergence));
            // For the table in docs/guide/export.md.
            let _ = writeln!(std::io::stderr(), "{name} {quantization:?} {} {logits:?}", report.bytes);
            let (equal, texts) = report.equal_texts;
            assert_eq!(equal, texts, "{name}: {:?}", report.warnings);
            assert!(report.worst_tensor.0 <= quantization.tolerance());
            if report.logits.is_some() {
                computed.push(name);
                let sound = verify(&report.path, &|_, _| ());
                assert!(sound.is_sound(), "{name}: {sound:?}");
            }
        }
    }
    for name in ["llama", "llama_rope3", "mistral", "qwen2", "qwen3", "gemma2", "gemma3"] {
        assert!(computed.contains(&name), "{name} was not compared by its answers");
    }
}

struct Place {
    _dir: tempfile::TempDir,
    out: PathBuf,
    tokenizer: PathBuf,
}

fn place() -> Place {
    let dir = tempfile::tempdir().unwrap();
    let (out, folder) = (dir.path().join("export/small"), dir.path().join("tokenizer"));
    tokenizer(&folder);
    Place { out, tokenizer: folder, _dir: dir }
}

impl Place {
    fn export(&self, params: Option<Params>, quantization: Quantization) -> Result<GgufReport, GgufError> {
        let (model, own) = model(true);
        let (params, device) = (params.unwrap_or(own), Device::flex());
        let generation = GenerationConfig::of(&model.config().clone(), &[259]);
        let source = GgufSource::of_params(&model, &params, &self.tokenizer, generation, &device);
        export(&source, &GgufOptions { out: &self.out, quantization }, &|_| ())
    }

    fn siblings(&self) -> Vec<String> {
        let list = std::fs::read_dir(self.out.parent().unwrap()).unwrap();
        list.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect()
    }
}

#[test]
fn a_small_model_comes_back_with_every_bit_and_with_its_ids() {
    let place = place();
    let report = place.export(None, Quantization::F32).unwrap();
    assert_eq!(report.path, place.out.join("small-F32.gguf"));
    assert_eq!((report.worst_tensor.0, report.logits.unwrap().largest), (0.0, 0.0));
    let opened = open_model(&report.path, &Device::flex()).unwrap();
    let (_, params) = model(true);
    for index in 0..params.specs().len() {
        assert_eq!(opened.params.to_host(index).unwrap(), params.to_host(index).unwrap());
    }
    assert_eq!(opened.eos_token_ids, [257, 259]);
    assert_eq!(opened.tokenizer.encode("a<|eot_id|>", false).unwrap().last(), Some(&259));
    assert!(verify(&report.path, &|_, _| ()).is_sound());
    // A second export never overwrites.
    assert!(place.export(None, Quantization::F32).unwrap_err().to_string().contains("already exists"));
}

#[test]
fn what_does_not_fit_leaves_nothing_behind() {
    let place = place();
    let (model, params) = model(true);
    let mut values: Vec<Vec<f32>> = (0..params.specs().len()).map(|i| params.to_host(i).unwrap()).collect();
    values[3][5] = 1e6;
    let large = Params::from_host(model.specs(), values, &Device::flex()).unwrap();
    let message = place.export(Some(large), Quantization::F16).unwrap_err().to_string();
    assert!(message.contains("\"blk.0.attn_k.weight\" holds 1000000"), "{message}");
    assert!(place.siblings().is_empty());
}

/// Every single damage that a check can see is named.
#[test]
fn damaged_files_are_recognised() {
    let place = place();
    let report = place.export(None, Quantization::F32).unwrap();
    let whole = std::fs::read(&report.path).unwrap();
    let check = |bytes: &[u8]| -> Vec<String> {
        std::fs::write(&report.path, bytes).unwrap();
        let report = verify(&report.path, &|_, _| ());
        report.checks.into_iter().filter(|check| !check.passed).map(|c| format!("{}: {}", c.name, c.detail)).collect()
    };
    assert!(check(&whole).is_empty());
    assert!(check(&whole[..whole.len() - 64])[0].contains("reaches beyond the"));
    assert!(check(&[whole.clone(), vec![0; 64]].concat())[0].contains("64 bytes follow the last tensor"));
    assert!(check(b"GGML")[0].contains("no GGUF file"));
    let mut nan = whole.clone();
    let end = nan.len();
    nan[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    assert!(check(&nan).iter().any(|found| found.starts_with("finite values") && found.contains("NaN")));
    // A weight that is only wrong: nothing but the record of the export knows.
    let mut wrong = whole.clone();
    wrong[end - 1] ^= 0x80;
    let found = check(&wrong);
    assert!(found.len() == 1 && found[0].starts_with("recorded digests: small-F32.gguf was changed"), "{found:?}");
}

#[test]
fn claims_of_hostile_headers_reserve_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.gguf");
    let header = |tensors: u64, settings: u64, rest: &[u8]| {
        let head = [b"GGUF".as_slice(), &3_u32.to_le_bytes(), &tensors.to_le_bytes(), &settings.to_le_bytes()];
        [head.concat(), rest.to_vec()].concat()
    };
    let text = |text: &str| [(text.len() as u64).to_le_bytes().as_slice(), text.as_bytes()].concat();
    let list = |code: u32, items: u64| {
        [text("k"), 9_u32.to_le_bytes().to_vec(), code.to_le_bytes().to_vec(), items.to_le_bytes().to_vec()].concat()
    };
    let tensor = |dimensions: &[u64], kind: u32| {
        let sizes: Vec<u8> = dimensions.iter().flat_map(|size| size.to_le_bytes()).collect();
        let count = (dimensions.len() as u32).to_le_bytes().to_vec();
        [text("t"), count, sizes, kind.to_le_bytes().to_vec(), 0_u64.to_le_bytes().to_vec()].concat()
    };
    let cases = [
        (header(u64::MAX, 0, b""), "18446744073709551615 tensors"),
        (header(0, 1, &u64::MAX.to_le_bytes()), "claims a text of 18446744073709551615 bytes"),
        (header(0, 1, &list(8, u64::MAX)), "claims a list of 18446744073709551615 items"),
        (header(0, 1, &list(6, 1 << 22)), "cut off"),
        (header(0, 1, &list(9, 2)), "a list of type 9"),
        (header(1, 0, &tensor(&[1 << 31, 1 << 31, 1 << 31], 0)), "reaches beyond the"),
        (header(1, 0, &tensor(&[0], 0)), "a dimension of 0"),
        (header(1, 0, &tensor(&[], 0)), "has 0 dimensions"),
        (header(1, 0, &tensor(&[33], 8)), "has rows of 33, no multiple of 32"),
        (header(1, 0, &tensor(&[32], 99)), "number format 99"),
    ];
    for (bytes, part) in cases {
        std::fs::write(&path, bytes).unwrap();
        let message = GgufFile::open(&path).unwrap_err().to_string();
        assert!(message.contains(part) && message.contains("x.gguf"), "{message:?} does not contain {part:?}");
    }
}

fn rmse(kind: TensorType, values: &[f32]) -> f64 {
    let mut back = Vec::new();
    dequantise(&quantise(values, kind), kind, &mut back);
    assert_eq!(back.len(), values.len());
    let square = |sum: f64, d: f64| sum + d * d;
    let error = values.iter().zip(&back).map(|(a, b)| f64::from(a - b)).fold(0.0, square);
    let size = values.iter().map(|a| f64::from(*a)).fold(0.0, square);
    if size == 0.0 { error } else { (error / size).sqrt() }
}

/// The bounds are those of llama.cpp's own quantisers on the same kind of values.
#[test]
fn formats_lose_as_little_as_they_should() {
    // SplitMix64, then Box and Muller's transform.
    let uniform = |index: u64| {
        let z = index.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    };
    let draw =
        |i: u64| (-2.0 * (1.0 - uniform(2 * i + 1)).ln()).sqrt() * (std::f64::consts::TAU * uniform(2 * i)).cos();
    let normal: Vec<f32> = (0..1 << 14).map(|i| draw(i) as f32).collect();
    let bounds = [
        (TensorType::F32, 0.0),
        (TensorType::F16, 3e-4),
        (TensorType::Bf16, 2e-3),
        (TensorType::Q8_0, 7e-3),
        (TensorType::Q6K, 0.02),
        (TensorType::Q5K, 0.04),
        (TensorType::Q5_0, 0.045),
        (TensorType::Q4K, 0.078),
    ];
    for (kind, bound) in bounds {
        let error = rmse(kind, &normal);
        assert!(error <= bound, "{kind:?}: {error}");
        assert_eq!(rmse(kind, &[0.0; 256]), 0.0, "{kind:?} keeps zeros");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Whatever the values, blocks come back finite and near.
    #[test]
    fn blocks_of_any_values_come_back(values in proptest::collection::vec(-60_000.0_f32..60_000.0, 256), exponent in -8_i32..0) {
        let values: Vec<f32> = values.into_iter().map(|value| value * 10.0_f32.powi(exponent)).collect();
        for kind in TensorType::ALL {
            prop_assert!(rmse(kind, &values) < 0.3, "{kind:?}");
        }
    }

    /// Damaged files end in an error or in a file whose tensors can be read, never in a panic.
    #[test]
    fn no_damage_panics(changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8), cut in any::<Option<prop::sample::Index>>()) {
        static FILE: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
        let whole = FILE.get_or_init(|| std::fs::read(place_with_file().1).unwrap());
        let mut bytes = whole.clone();
        for (at, byte) in changes {
            // The header is where damage is dangerous.
            let at = at.index(16_384.min(bytes.len()));
            bytes[at] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.gguf");
        std::fs::write(&path, bytes).unwrap();
        let report = verify(&path, &|_, _| ());
        prop_assert!(!report.checks.is_empty());
        let _ = open_model(&path, &Device::flex());
    }
}

fn place_with_file() -> (Place, PathBuf) {
    let place = place();
    let path = place.export(None, Quantization::F32).unwrap().path;
    (place, path)
}
