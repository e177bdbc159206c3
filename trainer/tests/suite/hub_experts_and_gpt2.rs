//! Mixtral and GPT-2 directories in every spelling that is around, there and back.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::hub_directory::{Stored, shared, write_tensors};
use burn::tensor::{Device, Tensor, TensorData};
use half::{bf16, f16};
use model_zoo::{Inputs, WeightDtype};
use safetensors::{Dtype, SafeTensors};
use trainer::hub::{ExportOptions, Imported, export, import, verify};

fn fixture(name: &str) -> Option<PathBuf> {
    Some(shared()?.join("fixtures").join(name).join("hf"))
}

fn stored(path: &Path) -> BTreeMap<String, Stored> {
    let bytes = std::fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let entry = |(name, view): (String, safetensors::tensor::TensorView<'_>)| {
        (name, (view.dtype(), view.shape().to_vec(), view.data().to_vec()))
    };
    file.tensors().into_iter().map(entry).collect()
}

/// A copy of a fixture's directory after `change` of its tensors.
fn changed(source: &Path, change: impl FnOnce(&mut BTreeMap<String, Stored>)) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::copy(source.join("config.json"), dir.path().join("config.json")).unwrap();
    let mut tensors = stored(&source.join("model.safetensors"));
    change(&mut tensors);
    write_tensors(&dir.path().join("model.safetensors"), &tensors);
    dir
}

fn open(dir: &Path) -> Imported {
    import(dir, &Device::flex()).unwrap()
}

fn refusal(dir: &Path) -> String {
    let message = import(dir, &Device::flex()).unwrap_err().to_string();
    message.replace(&dir.display().to_string(), "DIR")
}

fn bits(imported: &Imported) -> Vec<Vec<u32>> {
    let of = |index| imported.params.to_host(index).unwrap().iter().map(|value| value.to_bits()).collect();
    (0..imported.params.specs().len()).map(of).collect()
}

fn narrowed(bytes: &[u8], dtype: WeightDtype) -> Vec<u8> {
    let values = bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap()));
    match dtype {
        WeightDtype::F32 => bytes.to_vec(),
        WeightDtype::F16 => values.flat_map(|value| f16::from_f32(value).to_le_bytes()).collect(),
        WeightDtype::Bf16 => values.flat_map(|value| bf16::from_f32(value).to_le_bytes()).collect(),
    }
}

/// Hub to Jazari to hub: the same names, shapes and bytes, in one file and in shards.
#[test]
fn exports_hold_the_bytes_that_were_imported() {
    for name in ["mixtral", "gpt2"] {
        let Some(source) = fixture(name) else { return };
        let (imported, original) = (open(&source), stored(&source.join("model.safetensors")));
        for dtype in [WeightDtype::F32, WeightDtype::F16, WeightDtype::Bf16] {
            for max_shard_bytes in [1 << 30, 100_000] {
                let dir = tempfile::tempdir().unwrap();
                let out = dir.path().join("out");
                let options = ExportOptions {
                    out: &out,
                    tokenizer: &source,
                    dtype,
                    max_shard_bytes,
                    end_of_turn: &[],
                    chat_template: None,
                };
                export(&imported.model, &imported.params, &options, &Device::flex(), &|_| ()).unwrap();
                let mut found = BTreeMap::new();
                for entry in std::fs::read_dir(&out).unwrap() {
                    let path = entry.unwrap().path();
                    if path.extension().is_some_and(|extension| extension == "safetensors") {
                        found.extend(stored(&path));
                    }
                }
                assert_eq!(found.keys().collect::<Vec<_>>(), original.keys().collect::<Vec<_>>());
                for (tensor, (_, shape, bytes)) in &original {
                    let (_, found_shape, found_bytes) = &found[tensor];
                    assert_eq!(found_shape, shape, "{name} {tensor}");
                    assert!(*found_bytes == narrowed(bytes, dtype), "{name} {tensor} as {dtype:?}");
                }
                let sound = verify(&out, &|_, _| ());
                assert!(sound.is_sound(), "{name}: {sound:?}");
                assert_eq!(open(&out).model.config(), imported.model.config(), "{name}");
            }
        }
    }
}

#[test]
fn both_config_styles_are_the_same_model() {
    for name in ["mixtral", "gpt2"] {
        let Some(source) = fixture(name) else { return };
        let new = tempfile::tempdir().unwrap();
        let path = source.parent().unwrap().join("expected/config.transformers5.json");
        std::fs::copy(path, new.path().join("config.json")).unwrap();
        let [old, new] = [&source, new.path()].map(|dir| trainer::hub::read_config(dir).unwrap());
        assert_eq!(old, new, "{name}");
    }
}

/// What transformers 5 writes with `save_original_format=False`.
fn fuse(tensors: &mut BTreeMap<String, Stored>) {
    for layer in 0..2 {
        let block = format!("model.layers.{layer}");
        let mut take = |part: String| tensors.remove(&format!("{block}.block_sparse_moe.{part}.weight")).unwrap();
        let (mut gate_up, mut down) = (Vec::new(), Vec::new());
        for expert in 0..4 {
            gate_up.extend(take(format!("experts.{expert}.w1")).2);
            gate_up.extend(take(format!("experts.{expert}.w3")).2);
            down.extend(take(format!("experts.{expert}.w2")).2);
        }
        let router = take("gate".into());
        tensors.insert(format!("{block}.mlp.gate.weight"), router);
        tensors.insert(format!("{block}.mlp.experts.gate_up_proj"), (Dtype::F32, vec![4, 96, 64], gate_up));
        tensors.insert(format!("{block}.mlp.experts.down_proj"), (Dtype::F32, vec![4, 64, 48], down));
    }
}

#[test]
fn experts_in_one_tensor_are_read_as_those_in_many() {
    let Some(source) = fixture("mixtral") else { return };
    let fused = changed(&source, fuse);
    assert!(bits(&open(fused.path())) == bits(&open(&source)));
    let verified = verify(fused.path(), &|_, _| ());
    let check = verified.checks.iter().find(|check| check.name == "weight files").unwrap();
    assert!(!check.passed && check.detail.contains("only transformers 5 reads"), "{check:?}");
    let short = changed(&source, |tensors| {
        fuse(tensors);
        let down = tensors.get_mut("model.layers.1.mlp.experts.down_proj").unwrap();
        (down.1, down.2) = (vec![3, 64, 48], down.2[..3 * 64 * 48 * 4].to_vec());
    });
    assert_eq!(
        refusal(short.path()),
        "DIR/model.safetensors: tensor \"model.layers.1.mlp.experts.down_proj\" has shape [3, 64, 48], but config.json \
         makes it [4, 64, 48]; check that config.json belongs to these weights"
    );
}

#[test]
fn a_parameter_in_two_spellings_is_surplus() {
    let Some(source) = fixture("gpt2") else { return };
    let twice = changed(&source, |tensors| {
        let table = tensors["transformer.wte.weight"].clone();
        tensors.insert("wte.weight".into(), table);
    });
    assert_eq!(
        refusal(twice.path()),
        "DIR/model.safetensors: 1 tensor the model has no place for: \"wte.weight\"; check that config.json belongs to \
         these weights"
    );
}

/// Published files have no prefix, masks beside the weights, and some a copy of the head.
#[test]
fn old_gpt2_files_are_read() {
    let Some(source) = fixture("gpt2") else { return };
    let old = changed(&source, |tensors| {
        let head = tensors["transformer.wte.weight"].clone();
        let names: Vec<String> = tensors.keys().cloned().collect();
        for name in names {
            let tensor = tensors.remove(&name).unwrap();
            tensors.insert(name.strip_prefix("transformer.").unwrap().to_owned(), tensor);
        }
        tensors.insert("lm_head.weight".into(), head);
        tensors.insert("h.0.attn.bias".into(), (Dtype::U8, vec![1, 1, 128, 128], vec![1; 128 * 128]));
        tensors.insert("h.1.attn.masked_bias".into(), (Dtype::F32, vec![], (-1e4_f32).to_le_bytes().to_vec()));
    });
    let imported = open(old.path());
    assert!(bits(&imported) == bits(&open(&source)));
    assert_eq!(imported.dropped, ["h.0.attn.bias", "h.1.attn.masked_bias", "lm_head.weight"]);
}

#[test]
fn missing_experts_and_misshapen_projections_are_named() {
    let Some((mixtral, gpt2)) = fixture("mixtral").zip(fixture("gpt2")) else { return };
    let name = "model.layers.1.block_sparse_moe.experts.3.w2.weight";
    let missing = changed(&mixtral, |tensors| drop(tensors.remove(name)));
    assert!(refusal(missing.path()).starts_with(&format!("DIR: 1 tensor missing: {name:?}; ")));
    let turned = changed(&gpt2, |tensors| {
        tensors.get_mut("transformer.h.0.mlp.c_fc.weight").unwrap().1.reverse();
    });
    assert_eq!(
        refusal(turned.path()),
        "DIR/model.safetensors: tensor \"transformer.h.0.mlp.c_fc.weight\" has shape [256, 64], but config.json makes it \
         [64, 256]; check that config.json belongs to these weights"
    );
}

fn with_config(source: &Path, change: impl FnOnce(&mut serde_json::Map<String, serde_json::Value>)) -> String {
    let dir = changed(source, |_| ());
    let path = dir.path().join("config.json");
    let mut map = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    change(&mut map);
    std::fs::write(&path, serde_json::Value::Object(map).to_string()).unwrap();
    refusal(dir.path())
}

#[test]
fn features_that_change_the_computation_are_refused() {
    let Some((mixtral, gpt2)) = fixture("mixtral").zip(fixture("gpt2")) else { return };
    let refused = |source: &Path, key: &str, value: serde_json::Value, expected: &str| {
        let message = with_config(source, |map| drop(map.insert(key.into(), value)));
        assert_eq!(message, format!("DIR/config.json: {expected}"));
    };
    refused(
        &gpt2,
        "activation_function",
        "gelu".into(),
        "key \"activation_function\" is \"gelu\", which is not supported; supported: gelu_new",
    );
    refused(
        &gpt2,
        "add_cross_attention",
        true.into(),
        "key \"add_cross_attention\" is true, which is not supported; supported: false",
    );
    refused(&gpt2, "n_head", 5.into(), "n_embd (64) is not a multiple of n_head (5); correct the configuration");
    refused(
        &mixtral,
        "num_experts_per_tok",
        5.into(),
        "num_experts_per_tok is 5, outside 1..=4; correct the configuration",
    );
    refused(
        &mixtral,
        "router_jitter_noise",
        0.1.into(),
        "key \"router_jitter_noise\" is 0.1, which is not supported; supported: 0.0 (noise does not change inference: \
         set it to 0.0)",
    );
}

/// transformers 5.23 with `output_router_logits=True` on the first row of the bundle: its `aux_loss`.
#[test]
fn the_balance_loss_is_that_of_transformers() {
    let Some(source) = fixture("mixtral") else { return };
    let imported = open(&source);
    let reference = stored(&source.parent().unwrap().join("expected/inference.safetensors"));
    let ids: Vec<i64> =
        reference["input_ids"].2.chunks_exact(8).take(64).map(|b| i64::from_le_bytes(b.try_into().unwrap())).collect();
    let device = Device::flex();
    let inputs = Inputs {
        tokens: Tensor::from_data(TensorData::new(ids, [1, 64]), &device),
        positions: Tensor::arange(0..64, &device).reshape([1, 64]),
        segments: Tensor::zeros([1, 64], &device),
    };
    let loss = imported.model.balance_loss(&imported.params, &inputs).unwrap().into_scalar::<f32>();
    assert!((loss - 2.478_933_8).abs() < 1e-5, "{loss}");
}
