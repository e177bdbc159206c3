//! An export is the trained model or it is not there; a damaged one is recognised.

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use crate::hub_directory::{config, model, shared, tokenizer};
use burn::tensor::Device;
use model_zoo::{Params, WeightDtype};
use serde_json::{Value, json};
use trainer::hub::weights::Weights;
use trainer::hub::{ExportOptions, ExportProgress, ExportReport, HubError, export, import, verify};

struct Place {
    _dir: tempfile::TempDir,
    out: PathBuf,
    tokenizer: PathBuf,
}

fn place() -> Place {
    let dir = tempfile::tempdir().unwrap();
    let (out, folder) = (dir.path().join("export/model"), dir.path().join("tokenizer"));
    tokenizer(&folder);
    Place { out, tokenizer: folder, _dir: dir }
}

impl Place {
    fn options(&self, dtype: WeightDtype) -> ExportOptions<'_> {
        ExportOptions {
            out: &self.out,
            tokenizer: &self.tokenizer,
            dtype,
            max_shard_bytes: 1 << 30,
            end_of_turn: &[259],
            chat_template: None,
        }
    }

    fn export(&self, tied: bool, dtype: WeightDtype) -> Result<ExportReport, HubError> {
        let (model, params) = model(tied);
        export(&model, &params, &self.options(dtype), &Device::flex(), &|_| ())
    }

    fn siblings(&self) -> Vec<String> {
        let parent = self.out.parent().unwrap();
        let names = std::fs::read_dir(parent).unwrap().map(|e| e.unwrap().file_name().to_string_lossy().into_owned());
        names.collect()
    }
}

fn json(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn every_format_comes_back_as_the_same_model() {
    for (dtype, exact) in [(WeightDtype::F32, true), (WeightDtype::Bf16, false), (WeightDtype::F16, false)] {
        for tied in [false, true] {
            let place = place();
            let report = place.export(tied, dtype).unwrap();
            assert_eq!(report.logits.largest == 0.0, exact, "{dtype:?}: {report:?}");
            assert!(report.logits.largest <= report.logits.tolerance.unwrap() && report.logits.peak > 0.1);
            assert_eq!(report.num_tensors, model(tied).1.specs().len());
            assert!(report.num_token_ids > 500);
            let imported = import(&place.out, &Device::flex()).unwrap();
            assert_eq!(*imported.model.config(), config(tied));
            assert_eq!(imported.generation.eos_token_ids, [257, 259]);
            assert_eq!(place.siblings(), ["model"]);
            let sound = verify(&place.out, &|_, _| ());
            assert!(sound.is_sound(), "{sound:?}");
        }
    }
}

#[test]
fn the_files_are_those_that_servers_read() {
    let place = place();
    let report = place.export(true, WeightDtype::Bf16).unwrap();
    let names: Vec<&str> = report.files.iter().map(|(name, _)| name.as_str()).collect();
    let expected = [
        "config.json",
        "generation_config.json",
        "jazari_export.json",
        "model.safetensors",
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ];
    assert_eq!(names, expected);
    let settings = json(&place.out.join("tokenizer_config.json"));
    assert_eq!(settings["tokenizer_class"], json!("PreTrainedTokenizerFast"));
    assert_eq!(settings["eos_token"], json!("<|end_of_text|>"));
    assert_eq!(settings["model_max_length"], json!(64));
    assert_eq!(settings["added_tokens_decoder"]["259"]["content"], json!("<|eot_id|>"));
    assert_eq!(json(&place.out.join("special_tokens_map.json"))["bos_token"], json!("<|begin_of_text|>"));
    assert_eq!(json(&place.out.join("generation_config.json"))["eos_token_id"], json!([257, 259]));
    assert_eq!(json(&place.out.join("config.json"))["dtype"], json!("bfloat16"));
    let header = std::fs::read(place.out.join("model.safetensors")).unwrap();
    let header = String::from_utf8_lossy(&header[8..2000]).into_owned();
    assert!(header.starts_with(r#"{"__metadata__":{"format":"pt"},"#) && !header.contains("lm_head"), "{header}");
}

#[test]
fn a_chat_template_stands_in_both_places() {
    let place = place();
    let template = "{{ bos_token }}{% for message in messages %}{{ message.content }}{% endfor %}";
    std::fs::write(place.tokenizer.join("chat_template.jinja"), template).unwrap();
    place.export(false, WeightDtype::F32).unwrap();
    assert_eq!(json(&place.out.join("tokenizer_config.json"))["chat_template"], json!(template));
    assert_eq!(std::fs::read_to_string(place.out.join("chat_template.jinja")).unwrap(), template);
}

#[test]
fn large_models_are_cut_into_shards_with_an_index() {
    let place = place();
    let (model, params) = model(false);
    let seen = RefCell::new(Vec::new());
    let options = ExportOptions { max_shard_bytes: 10_000, ..place.options(WeightDtype::F32) };
    export(&model, &params, &options, &Device::flex(), &|step| seen.borrow_mut().push(step)).unwrap();
    let index = json(&place.out.join("model.safetensors.index.json"));
    assert_eq!(index["metadata"]["total_size"], json!(params.num_elements() * 4));
    let files: std::collections::BTreeSet<&str> =
        index["weight_map"].as_object().unwrap().values().map(|file| file.as_str().unwrap()).collect();
    let expected: Vec<String> =
        (1..=files.len()).map(|i| format!("model-{i:05}-of-{:05}.safetensors", files.len())).collect();
    assert!(files.len() > 2);
    assert_eq!(files.into_iter().collect::<Vec<_>>(), expected);
    let imported = import(&place.out, &Device::flex()).unwrap();
    for index in 0..params.specs().len() {
        assert_eq!(imported.params.to_host(index).unwrap(), params.to_host(index).unwrap());
    }
    let total = params.specs().len();
    let seen = seen.into_inner();
    assert!(seen.contains(&ExportProgress::Written { tensors: total, total }));
    assert_eq!(seen[seen.len() - 2..], [ExportProgress::Reopening, ExportProgress::Comparing]);
    assert!(verify(&place.out, &|_, _| ()).is_sound());
}

/// Real checkpoints come back with every bit, whole or in shards, in the number format they had.
#[test]
fn a_round_trip_keeps_every_bit_of_every_fixture() {
    let Some(shared) = shared() else { return };
    for name in ["llama", "llama_rope3", "llama_sharded", "llama_bf16"] {
        let hub = shared.join("fixtures").join(name).join("hf");
        let imported = import(&hub, &Device::flex()).unwrap();
        let stored = Weights::open(&hub).unwrap();
        let place = place();
        let options = ExportOptions {
            tokenizer: &hub,
            end_of_turn: &imported.generation.eos_token_ids,
            max_shard_bytes: 200_000,
            ..place.options(stored.dtypes().unwrap()[0])
        };
        let report = export(&imported.model, &imported.params, &options, &Device::flex(), &|_| ()).unwrap();
        assert_eq!(report.logits.largest, 0.0, "{name}");
        let written = Weights::open(&place.out).unwrap();
        assert_eq!(stored.dtypes().unwrap(), written.dtypes().unwrap(), "{name}");
        for spec in imported.params.specs() {
            let bits = |weights: &Weights| -> Vec<u32> {
                weights.floats(&spec.name).unwrap().into_iter().map(f32::to_bits).collect()
            };
            assert_eq!(bits(&stored), bits(&written), "{name}: {}", spec.name);
        }
        let again = import(&place.out, &Device::flex()).unwrap();
        assert_eq!(again.model.config(), imported.model.config(), "{name}");
        assert_eq!(again.generation, imported.generation, "{name}");
        let sound = verify(&place.out, &|_, _| ());
        assert!(sound.is_sound(), "{name}: {sound:?}");
    }
}

#[test]
fn nothing_is_overwritten_and_nothing_is_left_behind() {
    let place = place();
    std::fs::create_dir_all(&place.out).unwrap();
    let message = place.export(false, WeightDtype::F32).unwrap_err().to_string();
    assert!(message.ends_with("already exists; choose another --out or remove it first (an export never overwrites)"));
    std::fs::remove_dir(&place.out).unwrap();

    let (model, params) = model(false);
    let mut values: Vec<Vec<f32>> = (0..params.specs().len()).map(|i| params.to_host(i).unwrap()).collect();
    values[3][5] = 1e6;
    let large = Params::from_host(model.specs(), values, &Device::flex()).unwrap();
    let options = place.options(WeightDtype::F16);
    let message = export(&model, &large, &options, &Device::flex(), &|_| ()).unwrap_err().to_string();
    assert_eq!(
        message,
        "parameter \"model.layers.0.self_attn.k_proj.weight\" holds 1000000, which float16 cannot represent; export \
         as bf16 or f32"
    );
    assert!(place.siblings().is_empty());
}

#[test]
fn a_tokenizer_without_the_models_special_tokens_is_refused() {
    let place = place();
    let path = place.tokenizer.join("tokenizer.json");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("\"id\":257", "\"id\":263")).unwrap();
    let message = place.export(false, WeightDtype::F32).unwrap_err().to_string();
    assert!(
        message.ends_with("the eos_token id 257 is no special token there; use the tokenizer the model was made with"),
        "{message}"
    );
    assert!(place.siblings().is_empty());
}

/// Exports, lets `damage` loose on the directory and returns the first failed check.
fn damaged(damage: impl FnOnce(&Path)) -> String {
    let place = place();
    place.export(false, WeightDtype::F32).unwrap();
    damage(&place.out);
    let report = verify(&place.out, &|_, _| ());
    let failed = report.checks.iter().find(|check| !check.passed);
    let failed = failed.unwrap_or_else(|| panic!("nothing was found: {report:?}"));
    format!("{}: {}", failed.name, failed.detail.replace(&place.out.display().to_string(), "DIR"))
}

fn edit(path: &Path, change: impl FnOnce(&mut Value)) {
    let mut value = json(path);
    change(&mut value);
    std::fs::write(path, value.to_string()).unwrap();
}

fn overwrite(path: &Path, at_end: usize, bytes: &[u8]) {
    let mut whole = std::fs::read(path).unwrap();
    let start = whole.len() - at_end;
    whole[start..start + bytes.len()].copy_from_slice(bytes);
    std::fs::write(path, whole).unwrap();
}

#[test]
fn damaged_weights_are_recognised() {
    assert_eq!(
        damaged(|dir| overwrite(&dir.join("model.safetensors"), 8, &f32::NAN.to_le_bytes())),
        "finite values: DIR/model.safetensors: tensor \"lm_head.weight\" holds NaN at element 4158; these weights are \
         damaged, take an earlier checkpoint"
    );
    assert!(
        damaged(|dir| {
            let path = dir.join("model.safetensors");
            let whole = std::fs::read(&path).unwrap();
            std::fs::write(&path, &whole[..whole.len() - 4]).unwrap();
        })
        .starts_with("weight files: DIR/model.safetensors: the header describes ")
    );
    assert!(
        damaged(|dir| overwrite(&dir.join("model.safetensors"), 260 * 16 * 4, &vec![0; 260 * 16 * 4]))
            .starts_with("finite values: every element of \"lm_head.weight\" is 0")
    );
}

#[test]
fn settings_that_do_not_fit_are_recognised() {
    let starts = |damage: fn(&Path), start: &str| {
        let found = damaged(damage);
        assert!(found.starts_with(start), "{found:?} does not start with {start:?}");
    };
    starts(
        |dir| edit(&dir.join("config.json"), |c| c["hidden_size"] = json!(17)),
        "weight files: DIR/model.safetensors: tensor",
    );
    starts(
        |dir| edit(&dir.join("config.json"), |c| c["vocab_size"] = json!(200)),
        "configuration: DIR/config.json: special token id 256",
    );
    starts(
        |dir| edit(&dir.join("config.json"), |c| (c["dtype"], c["torch_dtype"]) = (json!("float16"), json!("float16"))),
        "number format: config.json: torch_dtype is float16, but the tensors are float32",
    );
    starts(
        |dir| edit(&dir.join("generation_config.json"), |c| c["eos_token_id"] = json!([259])),
        "generation settings: generation_config.json lacks end id 257 of config.json",
    );
    starts(
        |dir| edit(&dir.join("generation_config.json"), |c| c["eos_token_id"] = json!([257, 65])),
        "end ids: end id 65 is no special token of tokenizer.json",
    );
    starts(
        |dir| std::fs::remove_file(dir.join("generation_config.json")).unwrap(),
        "generation settings: generation_config.json is missing",
    );
    starts(
        |dir| edit(&dir.join("tokenizer_config.json"), |c| c["tokenizer_class"] = json!("TokenizersBackend")),
        "tokenizer settings: tokenizer_config.json: tokenizer_class is TokenizersBackend",
    );
    starts(
        |dir| edit(&dir.join("tokenizer_config.json"), |c| c["eos_token"] = json!("<|pad|>")),
        "end ids: eos_token \"<|pad|>\" of tokenizer_config.json is none of the end ids [257, 259]",
    );
    starts(|dir| std::fs::write(dir.join("tokenizer.json"), "{}").unwrap(), "tokenizer: ");
}

#[test]
fn an_index_with_wrong_totals_is_recognised() {
    let place = place();
    let (model, params) = model(false);
    let options = ExportOptions { max_shard_bytes: 10_000, ..place.options(WeightDtype::F32) };
    export(&model, &params, &options, &Device::flex(), &|_| ()).unwrap();
    edit(&place.out.join("model.safetensors.index.json"), |index| index["metadata"]["total_size"] = json!(7));
    let report = verify(&place.out, &|_, _| ());
    let failed: Vec<&str> = report.checks.iter().filter(|c| !c.passed).map(|c| c.detail.as_str()).collect();
    assert_eq!(failed.len(), 2, "the totals, and the digest of the file: {failed:?}");
    let totals = "model.safetensors.index.json counts 7 bytes, the files hold ";
    assert!(failed.iter().any(|detail| detail.starts_with(totals)), "{failed:?}");
}
