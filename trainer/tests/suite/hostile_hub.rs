//! Directories from strangers: whatever stands in their files, opening them ends in a model or in an error with a name,
//! in bounded time and memory, and never in a panic.

use std::path::{Path, PathBuf};

use crate::hub_directory::{directory, shared, tokenizer};
use burn::tensor::Device;
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use trainer::hub::{import, verify};

/// More than any of these files needs, and less than a machine notices.
const MAX_RESIDENT_KIB: u64 = 3 << 20;

/// Largest resident memory of this process so far; every test is a process of its own.
fn check_memory() {
    let Ok(status) = std::fs::read_to_string("/proc/self/status") else { return };
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap_or_default();
    let kib: u64 = line.split_whitespace().nth(1).and_then(|text| text.parse().ok()).unwrap_or_default();
    assert!(kib < MAX_RESIDENT_KIB, "{kib} KiB");
}

/// Opens and verifies; an error must say something.
fn open(dir: &Path) -> Result<(), String> {
    let opened = import(dir, &Device::flex()).map(|_| ()).map_err(|error| error.to_string());
    let verified = verify(dir, &|_, _| ());
    if let Err(message) = &opened {
        assert!(message.contains(';') && message.len() < 60_000, "{message}");
        assert!(!verified.is_sound());
    }
    opened
}

/// A whole directory: weights, configuration, tokenizer, settings.
fn whole() -> tempfile::TempDir {
    let dir = directory(false, |_| ());
    tokenizer(dir.path());
    std::fs::write(dir.path().join("generation_config.json"), r#"{"eos_token_id": [257], "bos_token_id": 256}"#)
        .unwrap();
    let settings = json!({"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|end_of_text|>"});
    std::fs::write(dir.path().join("tokenizer_config.json"), settings.to_string()).unwrap();
    dir
}

fn header(bytes: &[u8]) -> (Map<String, Value>, Vec<u8>) {
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    (serde_json::from_slice(&bytes[8..8 + length]).unwrap(), bytes[8 + length..].to_vec())
}

fn with_header(text: &str, data: &[u8]) -> Vec<u8> {
    let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(text.as_bytes());
    bytes.extend_from_slice(data);
    bytes
}

/// The error of opening a directory whose weights are `bytes`.
fn weights(bytes: &[u8]) -> String {
    let dir = whole();
    std::fs::write(dir.path().join("model.safetensors"), bytes).unwrap();
    open(dir.path()).unwrap_err().replace(&dir.path().display().to_string(), "DIR")
}

fn stored() -> Vec<u8> {
    std::fs::read(whole().path().join("model.safetensors")).unwrap()
}

#[test]
fn headers_that_lie_are_refused() {
    let (honest, data) = header(&stored());
    let lie = |change: &dyn Fn(&mut Map<String, Value>)| {
        let mut map = honest.clone();
        change(&mut map);
        let message = weights(&with_header(&Value::Object(map).to_string(), &data));
        assert!(message.starts_with("DIR/model.safetensors: "), "{message}");
    };
    let (first, second) = ("lm_head.weight", "model.embed_tokens.weight");
    let offsets = |name: &str| honest[name]["data_offsets"].clone();
    lie(&|map| map[first]["data_offsets"] = offsets(second));
    lie(&|map| map[first]["data_offsets"][0] = json!(4));
    lie(&|map| map[first]["data_offsets"] = json!([100, 0]));
    lie(&|map| map[first]["data_offsets"] = json!([0, u64::MAX]));
    lie(&|map| map[first]["dtype"] = json!("F64"));
    lie(&|map| map[first]["dtype"] = json!("BF16"));
    lie(&|map| map[first]["dtype"] = json!("PICKLE"));
    lie(&|map| map[first]["shape"] = json!([u64::MAX, u64::MAX]));
    lie(&|map| map[first]["shape"] = json!([1_u64 << 32, 1_u64 << 32, 0]));
    lie(&|map| map[first]["shape"] = json!([-1]));
    lie(&|map| drop(map.remove(first)));
    lie(&|map| drop(map.insert("more".into(), json!({"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}))));
    check_memory();
}

/// JSON lets a key stand twice; the bytes of the first would then belong to nobody.
#[test]
fn a_name_that_stands_twice_is_refused() {
    let (honest, data) = header(&stored());
    let text = Value::Object(honest).to_string();
    let twice = r#"{"lm_head.weight":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"#;
    let mut moved = data.clone();
    moved.extend([0; 4]);
    let message = weights(&with_header(&format!("{twice}{}", &text[1..]), &moved));
    assert!(message.starts_with("DIR/model.safetensors: the header "), "{message}");
}

#[test]
fn headers_of_any_claimed_length_are_refused() {
    let bytes = stored();
    for length in [0, 1, 7, 100_000, (16 << 20) + 1, 1 << 40, u64::MAX] {
        let mut lying = bytes.clone();
        lying[..8].copy_from_slice(&length.to_le_bytes());
        weights(&lying);
    }
    check_memory();
}

/// An index may send nobody out of its folder or around in circles.
#[test]
fn indices_lead_nowhere_else() {
    let secret = tempfile::tempdir().unwrap();
    std::fs::write(secret.path().join("model.safetensors"), stored()).unwrap();
    let outside = secret.path().join("model.safetensors").display().to_string();
    let names = [
        "../model.safetensors",
        "..",
        ".",
        "",
        "/etc/passwd",
        outside.as_str(),
        "a/../model-1.safetensors",
        "./model-1.safetensors",
        "model.safetensors.index.json",
        "absent.safetensors",
        "nul\0.safetensors",
        "sub",
        "model-1.safetensors/",
    ];
    for name in names {
        let dir = whole();
        let (map, _) = header(&stored());
        std::fs::rename(dir.path().join("model.safetensors"), dir.path().join("model-1.safetensors")).unwrap();
        std::fs::create_dir(dir.path().join("sub")).unwrap();
        let entries: Map<String, Value> =
            map.keys().filter(|key| *key != "__metadata__").map(|key| (key.clone(), json!(name))).collect();
        let index = json!({"metadata": {"total_size": "many"}, "weight_map": entries});
        let index_path = dir.path().join("model.safetensors.index.json");
        std::fs::write(&index_path, json!({"weight_map": entries}).to_string()).unwrap();
        let message = open(dir.path()).unwrap_err();
        assert!(!message.contains("root:"), "{message}");
        std::fs::write(&index_path, index.to_string()).unwrap();
        open(dir.path()).unwrap_err();
    }
}

/// A pipe that nobody writes to would keep its reader waiting for ever.
#[cfg(unix)]
#[test]
fn what_is_no_file_is_not_waited_for() {
    assert!(verify(whole().path(), &|_, _| ()).is_sound());
    for name in
        ["model.safetensors", "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"]
    {
        for make in [make_pipe as fn(&Path), make_folder, link_to_zeros] {
            let dir = whole();
            let path = dir.path().join(name);
            std::fs::remove_file(&path).unwrap();
            make(&path);
            let found = verify(dir.path(), &|_, _| ());
            assert!(!found.is_sound(), "{name}");
            let _ = import(dir.path(), &Device::flex());
        }
    }
    check_memory();
}

#[cfg(unix)]
fn make_pipe(path: &Path) {
    let made = std::process::Command::new("mkfifo").arg(path).status().unwrap();
    assert!(made.success());
}

#[cfg(unix)]
fn make_folder(path: &Path) {
    std::fs::create_dir(path).unwrap();
}

#[cfg(unix)]
fn link_to_zeros(path: &Path) {
    std::os::unix::fs::symlink("/dev/zero", path).unwrap();
}

#[test]
fn configurations_beyond_all_measure_are_refused() {
    let dir = whole();
    let path = dir.path().join("config.json");
    let text = std::fs::read_to_string(&path).unwrap();
    let deep = format!("{}{}", "[".repeat(200_000), "]".repeat(200_000));
    let replaced = |value: &str| text.replacen("\"hidden_size\": 16", &format!("\"hidden_size\": {value}"), 1);
    assert_ne!(replaced("17"), text);
    let long = format!("\"{}\"", "x".repeat(1 << 20));
    for value in
        [deep.as_str(), "NaN", "Infinity", "1e400", "-1", "18446744073709551616", "262145", "null", &long, "0x10"]
    {
        std::fs::write(&path, replaced(value)).unwrap();
        open(dir.path()).unwrap_err();
    }
    std::fs::write(&path, "x".repeat(5 << 20)).unwrap();
    assert!(open(dir.path()).unwrap_err().contains("larger than the limit"));
    std::fs::write(&path, [0xFF, 0xFE, 0x00]).unwrap();
    open(dir.path()).unwrap_err();
    check_memory();
}

/// Names are made before weights are looked at: a small file must not ask for millions of them.
#[test]
fn a_configuration_cannot_ask_for_millions_of_parameters() {
    let dir = whole();
    let config = json!({"architectures": ["MixtralForCausalLM"], "vocab_size": 260, "hidden_size": 16,
        "intermediate_size": 24, "num_hidden_layers": 4096, "num_attention_heads": 2, "num_key_value_heads": 1,
        "num_local_experts": 1024, "num_experts_per_tok": 2});
    std::fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
    assert!(open(dir.path()).unwrap_err().contains("num_hidden_layers * num_local_experts"));
    check_memory();
}

/// The same sequence of numbers for a seed (Knuth's MMIX constants).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % end.max(1)
    }
}

/// Something that does not belong where it is put.
fn stray(numbers: &mut Numbers) -> Value {
    let mut nested = json!(1);
    for _ in 0..120 {
        nested = json!([nested]);
    }
    let all = [
        json!(null),
        json!(-1),
        json!(0),
        json!(1),
        json!(u64::MAX),
        json!(i64::MIN),
        json!(1e308),
        json!(-0.0),
        json!(0.5),
        json!(1_u64 << 33),
        json!(u32::MAX),
        json!(""),
        json!("../../etc/passwd"),
        json!("\u{0}"),
        json!("x".repeat(5000)),
        json!([]),
        json!({}),
        json!(true),
        json!([1, "a", null]),
        nested,
    ];
    all[numbers.below(all.len())].clone()
}

/// Replaces, removes or doubles one value somewhere in `value`.
fn damage(value: &mut Value, numbers: &mut Numbers) {
    let stop = numbers.below(4) == 0;
    match value {
        Value::Object(map) if !map.is_empty() && !stop => {
            let key = map.keys().nth(numbers.below(map.len())).unwrap().clone();
            match numbers.below(8) {
                0 => drop(map.remove(&key)),
                1 => drop(map.insert(format!("{key}x"), stray(numbers))),
                _ => damage(map.get_mut(&key).unwrap(), numbers),
            }
        }
        Value::Array(list) if !list.is_empty() && !stop => {
            let at = numbers.below(list.len());
            match numbers.below(8) {
                0 => drop(list.remove(at)),
                1 => list.push(list[at].clone()),
                _ => damage(&mut list[at], numbers),
            }
        }
        other => *other = stray(numbers),
    }
}

fn damaged_json(dir: &Path, name: &str, seed: u64, times: usize) {
    let (path, mut numbers) = (dir.join(name), Numbers(seed));
    let mut value: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    (0..times).for_each(|_| damage(&mut value, &mut numbers));
    std::fs::write(&path, value.to_string()).unwrap();
}

/// Flips, cuts, doubles and inserts bytes.
fn damaged_bytes(bytes: &mut Vec<u8>, limit: usize, seed: u64, times: usize) {
    let mut numbers = Numbers(seed);
    for _ in 0..times {
        let at = numbers.below(bytes.len().min(limit));
        match numbers.below(5) {
            0 => bytes.truncate(at),
            1 => drop(bytes.drain(at..bytes.len().min(at + 1 + numbers.below(40)))),
            2 => bytes.insert(at, numbers.below(256) as u8),
            3 if at < bytes.len() => bytes[at] ^= 1 << numbers.below(8),
            _ if at < bytes.len() => bytes[at] = numbers.below(256) as u8,
            _ => {}
        }
        if bytes.is_empty() {
            return;
        }
    }
}

/// Configurations of all families, where the reference bundles are there.
fn configurations() -> Vec<PathBuf> {
    let Some(shared) = shared() else { return Vec::new() };
    let entries =
        std::fs::read_dir(shared.join("fixtures")).unwrap().map(|entry| entry.unwrap().path().join("hf/config.json"));
    entries.filter(|path| path.exists()).collect()
}

#[test]
fn damaged_configurations_of_every_family_end_in_errors() {
    for path in configurations() {
        let text = std::fs::read_to_string(&path).unwrap();
        let dir = whole();
        for seed in 0..150 {
            std::fs::write(dir.path().join("config.json"), &text).unwrap();
            damaged_json(dir.path(), "config.json", seed, 1 + seed as usize % 3);
            // No damage makes these weights fit a model of other sizes.
            assert!(open(dir.path()).is_err(), "{}, seed {seed}", path.display());
        }
    }
    check_memory();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn damaged_settings_never_panic(
        name in "config|generation_config|tokenizer_config|tokenizer", seed: u64, times in 1_usize..4,
    ) {
        let dir = whole();
        damaged_json(dir.path(), &format!("{name}.json"), seed, times);
        let _ = open(dir.path());
        if let Ok(tokenizer) = data_pipeline::tokenizer::Tokenizer::open(dir.path()) {
            let ids = tokenizer.encode("azul, السلام <|end_of_text|> 12\u{0}", true).unwrap_or_default();
            let _ = tokenizer.decode(&ids, false);
            let _ = tokenizer.token_bytes();
        }
        check_memory();
    }

    #[test]
    fn damaged_bytes_never_panic(
        name in "config\\.json|generation_config\\.json|tokenizer\\.json|tokenizer_config\\.json|model\\.safetensors",
        seed: u64, times in 1_usize..6,
    ) {
        let dir = whole();
        let path = dir.path().join(&name);
        let mut bytes = std::fs::read(&path).unwrap();
        // The header of the weights is where damage is worth looking for.
        let limit = if name.ends_with("tensors") { 3000 } else { usize::MAX };
        damaged_bytes(&mut bytes, limit, seed, times);
        std::fs::write(&path, &bytes).unwrap();
        let _ = open(dir.path());
        check_memory();
    }

    #[test]
    fn damaged_headers_never_panic(seed: u64, times in 1_usize..4) {
        let (honest, data) = header(&stored());
        let mut value = Value::Object(honest);
        let mut numbers = Numbers(seed);
        (0..times).for_each(|_| damage(&mut value, &mut numbers));
        let dir = whole();
        std::fs::write(dir.path().join("model.safetensors"), with_header(&value.to_string(), &data)).unwrap();
        let _ = open(dir.path());
        check_memory();
    }

    #[test]
    fn damaged_indices_never_panic(seed: u64, times in 1_usize..4) {
        let dir = whole();
        let (map, _) = header(&stored());
        std::fs::rename(dir.path().join("model.safetensors"), dir.path().join("a.safetensors")).unwrap();
        let entries: Map<String, Value> =
            map.keys().filter(|key| *key != "__metadata__").map(|key| (key.clone(), json!("a.safetensors"))).collect();
        let index = json!({"metadata": {"total_size": 1}, "weight_map": entries});
        std::fs::write(dir.path().join("model.safetensors.index.json"), index.to_string()).unwrap();
        open(dir.path()).unwrap();
        damaged_json(dir.path(), "model.safetensors.index.json", seed, times);
        let _ = open(dir.path());
    }
}
