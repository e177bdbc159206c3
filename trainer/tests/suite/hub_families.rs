//! Every family comes from Hugging Face files and goes back to them as the same bits, and what a family has too much or
//! too little of is named.

use std::path::Path;

use crate::hub_directory::{Stored, config, shared, tensors, tokenizer, write_tensors};
use burn::tensor::Device;
use model_zoo::config::{Gemma2Config, Gemma3Config, LayerType, LayerWindows, MistralConfig, Qwen2Config, Qwen3Config};
use model_zoo::init::initial_values;
use model_zoo::{Init, Model, ModelConfig, ParamSpec, Params, RopeConfig, RopeScaling, WeightDtype};
use safetensors::Dtype;
use serde_json::Value;
use trainer::hub::weights::Weights;
use trainer::hub::{ExportOptions, export, import, read_config, verify};

const BUNDLES: [&str; 9] =
    ["llama", "llama_rope3", "llama_sharded", "llama_bf16", "mistral", "qwen2", "qwen3", "gemma2", "gemma3"];

fn families(tied: bool) -> Vec<ModelConfig> {
    let ModelConfig::Llama(decoder) = config(tied) else { panic!("not a Llama") };
    let windows =
        LayerWindows { sliding_window: 4, layer_types: vec![LayerType::SlidingAttention, LayerType::FullAttention] };
    let mut stretched = decoder.clone();
    stretched.rope.scaling = RopeScaling::Linear { factor: 8.0 };
    let local_rope = RopeConfig { theta: 500.0, scaling: RopeScaling::None };
    vec![
        ModelConfig::Llama(decoder.clone()),
        ModelConfig::Mistral(MistralConfig { decoder: decoder.clone(), sliding_window: Some(4) }),
        ModelConfig::Mistral(MistralConfig { decoder: decoder.clone(), sliding_window: None }),
        ModelConfig::Qwen2(Qwen2Config { decoder: decoder.clone(), windows: None }),
        ModelConfig::Qwen2(Qwen2Config { decoder: decoder.clone(), windows: Some(windows.clone()) }),
        ModelConfig::Qwen3(Qwen3Config { decoder: decoder.clone(), windows: None }),
        ModelConfig::Gemma2(Gemma2Config {
            decoder,
            windows: windows.clone(),
            query_pre_attn_scalar: 12.0,
            attn_logit_softcapping: Some(2.0),
            final_logit_softcapping: None,
        }),
        ModelConfig::Gemma3(Gemma3Config {
            decoder: stretched,
            windows,
            local_rope,
            query_pre_attn_scalar: 8.5,
            final_logit_softcapping: Some(5.0),
        }),
    ]
}

/// A model all of whose parameters are drawn, so that no norm and no bias is where a fresh one stands.
fn drawn(config: &ModelConfig) -> (Model, Params) {
    let model = Model::new(config).unwrap();
    let spec = |spec: &ParamSpec| ParamSpec { init: Init::Normal { std: 0.2 }, ..spec.clone() };
    let values = model.specs().iter().map(|s| initial_values(&spec(s), 5)).collect();
    let params = Params::from_host(model.specs(), values, &Device::flex()).unwrap();
    (model, params)
}

/// The bytes of all weight files of a directory, by name.
fn weight_files(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let weights = Weights::open(dir).unwrap();
    let file = |path: &Path| (path.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read(path).unwrap());
    weights.shards().iter().map(|shard| file(shard.path())).collect()
}

#[test]
fn files_come_back_bit_by_bit_in_every_format_tied_or_not_in_shards_or_not() {
    let place = tempfile::tempdir().unwrap();
    tokenizer(&place.path().join("tokenizer"));
    for (number, config) in [false, true].into_iter().flat_map(families).enumerate() {
        let (model, params) = drawn(&config);
        for dtype in [WeightDtype::F32, WeightDtype::Bf16, WeightDtype::F16] {
            let write = |model: &Model, params: &Params, name: &str| {
                let out = place.path().join(format!("{number}-{dtype:?}-{name}"));
                let options = ExportOptions {
                    out: &out,
                    tokenizer: &place.path().join("tokenizer"),
                    dtype,
                    max_shard_bytes: if number % 2 == 0 { 8_000 } else { 1 << 30 },
                    end_of_turn: &[259],
                    chat_template: None,
                };
                export(model, params, &options, &Device::flex(), &|_| ()).unwrap();
                out
            };
            let first = write(&model, &params, "first");
            let read = import(&first, &Device::flex()).unwrap();
            assert_eq!(read.model.config(), &config, "{dtype:?}");
            let sound = verify(&first, &|_, _| ());
            assert!(sound.is_sound(), "{config:?}: {sound:?}");
            let second = write(&read.model, &read.params, "second");
            assert_eq!(weight_files(&first), weight_files(&second), "{config:?} as {dtype:?}");
        }
    }
}

#[test]
fn bundles_in_both_styles_are_the_same_model_and_come_back_bit_by_bit() {
    let Some(shared) = shared() else { return };
    for name in BUNDLES {
        let bundle = shared.join("fixtures").join(name);
        let hub = bundle.join("hf");
        let imported = import(&hub, &Device::flex()).unwrap();
        let new = tempfile::tempdir().unwrap();
        std::fs::copy(bundle.join("expected/config.transformers5.json"), new.path().join("config.json")).unwrap();
        assert_eq!(imported.model.config(), &read_config(new.path()).unwrap(), "{name}");

        let stored = Weights::open(&hub).unwrap();
        let out = new.path().join("out");
        let options = ExportOptions {
            out: &out,
            tokenizer: &hub,
            dtype: stored.dtypes().unwrap()[0],
            max_shard_bytes: 100_000,
            end_of_turn: &imported.generation.eos_token_ids,
            chat_template: None,
        };
        let report = export(&imported.model, &imported.params, &options, &Device::flex(), &|_| ()).unwrap();
        assert_eq!(report.logits.largest, 0.0, "{name}");
        let written = Weights::open(&out).unwrap();
        for spec in imported.params.specs() {
            let bits = |weights: &Weights| -> Vec<u32> {
                weights.floats(&spec.name).unwrap().into_iter().map(f32::to_bits).collect()
            };
            assert_eq!(bits(&stored), bits(&written), "{name}: {}", spec.name);
        }
        assert_eq!(read_config(&out).unwrap(), *imported.model.config(), "{name}");
    }
}

/// The keys of `config.json` that some server asks for and another does not write.
#[test]
fn configurations_hold_the_keys_that_servers_read() {
    for config in families(false) {
        let written: Value = serde_json::from_str(&config.to_hub_json(WeightDtype::Bf16)).unwrap();
        let mut needed = vec![
            "architectures",
            "model_type",
            "vocab_size",
            "head_dim",
            "num_key_value_heads",
            "rope_theta",
            "rope_scaling",
            "rope_parameters",
            "hidden_act",
            "tie_word_embeddings",
            "torch_dtype",
            "dtype",
        ];
        match config {
            ModelConfig::Mistral(_) => needed.push("sliding_window"),
            ModelConfig::Qwen2(_) | ModelConfig::Qwen3(_) => {
                needed.extend(["use_sliding_window", "sliding_window", "max_window_layers", "layer_types"]);
            }
            ModelConfig::Gemma2(_) => {
                needed.extend(["hidden_activation", "sliding_window", "layer_types", "query_pre_attn_scalar"]);
                needed.extend(["attn_logit_softcapping", "final_logit_softcapping"]);
            }
            ModelConfig::Gemma3(_) => {
                needed.extend(["hidden_activation", "sliding_window", "layer_types", "query_pre_attn_scalar"]);
                needed.extend(["rope_local_base_freq", "sliding_window_pattern"]);
                assert!(written["rope_parameters"]["sliding_attention"]["rope_theta"].is_number());
                assert_eq!(written["rope_parameters"]["full_attention"]["rope_type"], "linear");
            }
            ModelConfig::Llama(_) | ModelConfig::Mixtral(_) | ModelConfig::Gpt2(_) => {}
        }
        for key in needed {
            assert!(written.get(key).is_some(), "{}: {key:?} is not in {written:#}", config.family_name());
        }
    }
}

/// The error of importing a model after a change of its tensors.
fn refusal(config: &ModelConfig, change: impl FnOnce(&mut std::collections::BTreeMap<String, Stored>)) -> String {
    let dir = tempfile::tempdir().unwrap();
    let (model, params) = drawn(config);
    let mut stored = tensors(&model, &params);
    change(&mut stored);
    std::fs::write(dir.path().join("config.json"), config.to_hub_json(WeightDtype::F32)).unwrap();
    write_tensors(&dir.path().join("model.safetensors"), &stored);
    import(dir.path(), &Device::flex()).unwrap_err().to_string()
}

#[test]
fn tensors_of_one_family_are_missing_surplus_or_misshapen_in_another_by_name() {
    let all = families(true);
    let by_name = |name: &str| all.iter().find(|config| config.family_name() == name).unwrap();
    let own = [
        ("Qwen2", "model.layers.1.self_attn.k_proj.bias"),
        ("Qwen3", "model.layers.0.self_attn.q_norm.weight"),
        ("Gemma 2", "model.layers.1.pre_feedforward_layernorm.weight"),
        ("Gemma 3", "model.layers.1.post_feedforward_layernorm.weight"),
        ("Gemma 3", "model.layers.0.self_attn.k_norm.weight"),
        ("Mistral", "model.layers.0.self_attn.o_proj.weight"),
    ];
    for (family, tensor) in own {
        let message = refusal(by_name(family), |stored| {
            stored.remove(tensor).unwrap();
        });
        assert!(message.contains(tensor) && message.contains("missing"), "{family}: {message}");
        let message = refusal(by_name(family), |stored| {
            let (dtype, shape, bytes) = stored.remove(tensor).unwrap();
            let count = shape.iter().product::<usize>() + 1;
            let bytes = [bytes, vec![0; 4]].concat();
            stored.insert(tensor.into(), (dtype, vec![count], bytes));
        });
        assert!(message.contains(tensor) && message.contains("shape"), "{family}: {message}");
        if family != "Mistral" {
            let message = refusal(by_name("Llama"), |stored| {
                stored.insert(tensor.into(), (Dtype::F32, vec![1], vec![0; 4]));
            });
            assert!(message.contains(tensor), "{family}: {message}");
        }
    }
}
