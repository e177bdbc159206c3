//! Import is strict: what is missing, surplus, misshapen or damaged is named, and nothing is guessed.

use std::collections::BTreeMap;
use std::path::Path;

use crate::hub_directory::{Stored, directory, model, shared, tensors, write_tensors};
use burn::tensor::Device;
use half::{bf16, f16};
use safetensors::Dtype;
use serde_json::json;
use trainer::hub::{import, read_config};

/// The error of importing `dir`, with the directory's own path cut off.
fn refusal(dir: &Path) -> String {
    let message = import(dir, &Device::flex()).unwrap_err().to_string();
    message.replace(&dir.display().to_string(), "DIR")
}

#[track_caller]
fn refused(tied: bool, change: impl FnOnce(&mut BTreeMap<String, Stored>), message: &str) {
    assert_eq!(refusal(directory(tied, change).path()), message);
}

fn floats(shape: &[usize], value: f32) -> Stored {
    let count: usize = shape.iter().product();
    (Dtype::F32, shape.to_vec(), value.to_le_bytes().repeat(count))
}

#[test]
fn what_was_stored_is_what_is_read() {
    let dir = directory(false, |_| ());
    let imported = import(dir.path(), &Device::flex()).unwrap();
    let (model, params) = model(false);
    assert_eq!(imported.model.config(), model.config());
    for index in 0..params.specs().len() {
        assert_eq!(imported.params.to_host(index).unwrap(), params.to_host(index).unwrap());
    }
    assert_eq!(imported.generation.eos_token_ids, [257]);
}

#[test]
fn half_formats_are_widened() {
    let name = "model.layers.1.mlp.up_proj.weight";
    for dtype in [Dtype::BF16, Dtype::F16] {
        let dir = directory(false, |stored| {
            let (stored_dtype, _, bytes) = stored.get_mut(name).unwrap();
            let values = bytes.chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap()));
            let narrow = values.flat_map(|value| match dtype {
                Dtype::BF16 => bf16::from_f32(value).to_le_bytes(),
                _ => f16::from_f32(value).to_le_bytes(),
            });
            (*bytes, *stored_dtype) = (narrow.collect(), dtype);
        });
        let imported = import(dir.path(), &Device::flex()).unwrap();
        let index = imported.params.specs().iter().position(|spec| spec.name == name).unwrap();
        let (_, params) = model(false);
        for (found, exact) in imported.params.to_host(index).unwrap().iter().zip(params.to_host(index).unwrap()) {
            let expected =
                if dtype == Dtype::BF16 { bf16::from_f32(exact).to_f32() } else { f16::from_f32(exact).to_f32() };
            assert_eq!(*found, expected);
        }
    }
}

#[test]
fn missing_tensors_are_named() {
    refused(
        false,
        |stored| drop(stored.remove("model.layers.1.self_attn.k_proj.weight")),
        "DIR: 1 tensor missing: \"model.layers.1.self_attn.k_proj.weight\"; check that all weight files are there and \
         that config.json belongs to them",
    );
    refused(
        false,
        |stored| drop(stored.remove("lm_head.weight")),
        "DIR: 1 tensor missing: \"lm_head.weight\"; if the head is the embedding, set tie_word_embeddings to true in \
         config.json",
    );
    refused(
        false,
        |stored| stored.retain(|name, _| !name.contains("layers.0")),
        "DIR: 9 tensors missing: \"model.layers.0.input_layernorm.weight\", \"model.layers.0.self_attn.q_proj.weight\", \
         \"model.layers.0.self_attn.k_proj.weight\", \"model.layers.0.self_attn.v_proj.weight\", \
         \"model.layers.0.self_attn.o_proj.weight\" and 4 more; check that all weight files are there and that \
         config.json belongs to them",
    );
}

#[test]
fn surplus_tensors_are_named() {
    refused(
        false,
        |stored| drop(stored.insert("model.layers.0.self_attn.q_proj.bias".into(), floats(&[16], 0.0))),
        "DIR/model.safetensors: 1 tensor the model has no place for: \"model.layers.0.self_attn.q_proj.bias\"; check \
         that config.json belongs to these weights",
    );
}

#[test]
fn misshapen_and_foreign_tensors_are_named() {
    refused(
        false,
        |stored| drop(stored.insert("model.layers.0.mlp.gate_proj.weight".into(), floats(&[16, 24], 0.1))),
        "DIR/model.safetensors: tensor \"model.layers.0.mlp.gate_proj.weight\" has shape [16, 24], but config.json \
         makes it [24, 16]; check that config.json belongs to these weights",
    );
    refused(
        false,
        |stored| drop(stored.insert("model.norm.weight".into(), (Dtype::I8, vec![16], vec![1; 16]))),
        "DIR/model.safetensors: tensor \"model.norm.weight\" is stored as I8; F32, F16 and BF16 are read: convert the \
         weights first",
    );
}

#[test]
fn values_that_are_no_numbers_are_named() {
    refused(
        false,
        |stored| stored.get_mut("model.norm.weight").unwrap().2[12..16].copy_from_slice(&f32::NAN.to_le_bytes()),
        "DIR/model.safetensors: tensor \"model.norm.weight\" holds NaN at element 3; these weights are damaged, take \
         an earlier checkpoint",
    );
}

#[test]
fn a_copy_of_a_tied_head_is_dropped_and_anything_else_is_refused() {
    let copy = |stored: &mut BTreeMap<String, Stored>| {
        let embedding = stored["model.embed_tokens.weight"].clone();
        stored.insert("lm_head.weight".into(), embedding);
    };
    let imported = import(directory(true, copy).path(), &Device::flex()).unwrap();
    assert_eq!(imported.dropped, ["lm_head.weight"]);
    refused(
        true,
        |stored| {
            copy(stored);
            stored.get_mut("lm_head.weight").unwrap().2[43] ^= 1;
        },
        "DIR/model.safetensors: config.json ties the output head to the embedding, but the stored lm_head.weight \
         differs from model.embed_tokens.weight at element 10; set tie_word_embeddings to false to keep both",
    );
    refused(
        true,
        |stored| drop(stored.insert("lm_head.weight".into(), floats(&[2, 2], 0.0))),
        "DIR/model.safetensors: tensor \"lm_head.weight\" has shape [2, 2], but config.json makes it [260, 16]; check \
         that config.json belongs to these weights",
    );
}

#[test]
fn rotary_frequencies_of_old_files_are_dropped() {
    let name = "model.layers.0.self_attn.rotary_emb.inv_freq";
    let dir = directory(false, |stored| drop(stored.insert(name.into(), floats(&[4], 1.0))));
    assert_eq!(import(dir.path(), &Device::flex()).unwrap().dropped, [name]);
}

/// Cuts the tensors of a directory into two files with an index, after `change` of the index.
fn shards(change: impl FnOnce(&mut serde_json::Value)) -> tempfile::TempDir {
    let dir = directory(false, |_| ());
    std::fs::remove_file(dir.path().join("model.safetensors")).unwrap();
    let (model, params) = model(false);
    let (first, second): (BTreeMap<_, _>, BTreeMap<_, _>) =
        tensors(&model, &params).into_iter().partition(|(name, _)| name.contains("layers.0"));
    let mut map = serde_json::Map::new();
    for (part, file) in [(first, "a.safetensors"), (second, "b.safetensors")] {
        write_tensors(&dir.path().join(file), &part);
        map.extend(part.keys().map(|name| (name.clone(), json!(file))));
    }
    let mut index = json!({"metadata": {"total_size": 1}, "weight_map": map});
    change(&mut index);
    std::fs::write(dir.path().join("model.safetensors.index.json"), index.to_string()).unwrap();
    dir
}

#[test]
fn shards_are_read_and_must_agree_with_their_index() {
    let (_, params) = model(false);
    let imported = import(shards(|_| ()).path(), &Device::flex()).unwrap();
    for index in 0..params.specs().len() {
        assert_eq!(imported.params.to_host(index).unwrap(), params.to_host(index).unwrap());
    }
    let advice = "; copy the file again from where the model came from";
    let check = |change: fn(&mut serde_json::Value), cause: &str| {
        let message = format!("DIR/model.safetensors.index.json: {cause}{advice}");
        assert_eq!(refusal(shards(change).path()), message);
    };
    check(
        |index| drop(index["weight_map"].as_object_mut().unwrap().remove("model.norm.weight")),
        "\"model.norm.weight\" of b.safetensors is not listed",
    );
    check(
        |index| index["weight_map"]["model.norm.weight"] = json!("a.safetensors"),
        "\"model.norm.weight\" is said to be in a.safetensors, but is in b.safetensors",
    );
    check(
        |index| index["weight_map"]["extra"] = json!("a.safetensors"),
        "\"extra\" is not in a.safetensors, where it is said to be",
    );
    check(
        |index| index["weight_map"]["model.norm.weight"] = json!("../../etc/passwd"),
        "\"../../etc/passwd\" is not a plain file name",
    );
}

#[test]
fn directories_without_one_set_of_weights_are_refused() {
    let dir = directory(false, |_| ());
    std::fs::write(dir.path().join("model.safetensors.index.json"), "{}").unwrap();
    assert_eq!(
        refusal(dir.path()),
        "DIR: both model.safetensors and model.safetensors.index.json are there; remove the one that is out of date"
    );
    let dir = directory(false, |_| ());
    std::fs::remove_file(dir.path().join("model.safetensors")).unwrap();
    assert_eq!(
        refusal(dir.path()),
        "DIR: there is neither model.safetensors nor model.safetensors.index.json; pickled weights (.bin, .pth) are \
         never read: convert them to safetensors with the tool that made them"
    );
}

#[test]
fn configurations_are_named_with_their_file() {
    let dir = directory(false, |_| ());
    let path = dir.path().join("config.json");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("LlamaForCausalLM", "PhiForCausalLM")).unwrap();
    assert_eq!(
        refusal(dir.path()),
        "DIR/config.json: key \"architectures\" is \"PhiForCausalLM\", which is not supported; supported: \
         LlamaForCausalLM, MistralForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM, Gemma2ForCausalLM, \
         Gemma3ForCausalLM, MixtralForCausalLM, GPT2LMHeadModel"
    );
    std::fs::write(dir.path().join("generation_config.json"), r#"{"eos_token_id": 9999}"#).unwrap();
    std::fs::write(&path, text).unwrap();
    assert_eq!(
        refusal(dir.path()),
        "DIR/generation_config.json: eos_token_id holds 9999, which is no id of a vocabulary of 260; copy the file \
         again from where the model came from"
    );
}

#[test]
fn truncated_files_are_refused_at_any_length() {
    let dir = directory(false, |_| ());
    let path = dir.path().join("model.safetensors");
    let whole = std::fs::read(&path).unwrap();
    for length in (0..whole.len()).step_by(997).chain([whole.len() - 1]) {
        std::fs::write(&path, &whole[..length]).unwrap();
        let message = refusal(dir.path());
        assert!(message.starts_with("DIR/model.safetensors: "), "at {length} bytes: {message}");
    }
}

#[test]
fn both_config_styles_of_every_llama_fixture_are_the_same_model() {
    let Some(shared) = shared() else { return };
    for name in ["llama", "llama_rope3", "llama_sharded", "llama_bf16"] {
        let bundle = shared.join("fixtures").join(name);
        let old = read_config(&bundle.join("hf")).unwrap();
        let new = tempfile::tempdir().unwrap();
        std::fs::copy(bundle.join("expected/config.transformers5.json"), new.path().join("config.json")).unwrap();
        assert_eq!(old, read_config(new.path()).unwrap(), "{name}");
    }
}
