//! Owns the tests of reading and writing `config.json`.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::config::RopeScaling;
use crate::config::tests::tiny;

const VERSION_4: &str = r#"{
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 128, "intermediate_size": 64,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32,
    "max_position_embeddings": 256, "rms_norm_eps": 1e-05, "rope_theta": 10000.0, "hidden_act": "silu",
    "tie_word_embeddings": true, "initializer_range": 0.02, "torch_dtype": "float32", "vocab_size": 512,
    "attention_bias": false, "mlp_bias": false, "rope_scaling": {"rope_type": "llama3", "factor": 8.0,
    "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64},
    "bos_token_id": 506, "eos_token_id": 507, "pad_token_id": 508 }"#;
const VERSION_5: &str = r#"{
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 128, "intermediate_size": 64,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32,
    "max_position_embeddings": 256, "rms_norm_eps": 1e-05, "hidden_act": "silu", "dtype": "float32",
    "tie_word_embeddings": true, "initializer_range": 0.02, "vocab_size": 512, "pretraining_tp": 1,
    "rope_parameters": {"rope_theta": 10000.0, "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
    "high_freq_factor": 4.0, "original_max_position_embeddings": 64},
    "bos_token_id": 506, "eos_token_id": [507], "pad_token_id": 508 }"#;

/// `VERSION_4` with one key replaced or added.
fn with(key: &str, value: Value) -> String {
    let mut map: Map<String, Value> = serde_json::from_str(VERSION_4).unwrap();
    map.insert(key.into(), value);
    Value::Object(map).to_string()
}

fn refused(text: &str, message: &str) {
    assert_eq!(ModelConfig::from_hub_json(text).unwrap_err().to_string(), message);
}

#[test]
fn both_styles_are_the_same_model() {
    let old = ModelConfig::from_hub_json(VERSION_4).unwrap();
    assert_eq!(old, ModelConfig::from_hub_json(VERSION_5).unwrap());
    let ModelConfig::Llama(llama) = old else { panic!("not a Llama") };
    assert_eq!(llama.eos_token_ids, [507]);
    assert!(matches!(llama.rope.scaling, RopeScaling::Llama3 { factor: 8.0, .. }));
}

#[test]
fn older_spellings_and_defaults_are_read() {
    let text = r#"{"model_type": "llama", "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 1,
        "num_attention_heads": 4, "vocab_size": 100, "pad_token_id": -1, "eos_token_id": [2, 5]}"#;
    let ModelConfig::Llama(llama) = ModelConfig::from_hub_json(text).unwrap() else { panic!("not a Llama") };
    assert_eq!((llama.num_key_value_heads, llama.head_dim), (4, 16));
    assert_eq!((llama.rms_norm_eps, llama.rope.theta), (1e-6, 10_000.0));
    assert_eq!((llama.pad_token_id, llama.eos_token_ids), (None, vec![2, 5]));
}

#[test]
fn the_written_file_has_both_styles() {
    let config = ModelConfig::from_hub_json(VERSION_4).unwrap();
    let written: Value = serde_json::from_str(&config.to_hub_json(WeightDtype::Bf16)).unwrap();
    assert_eq!(written["rope_theta"], json!(10000.0));
    assert_eq!(written["rope_scaling"]["rope_type"], json!("llama3"));
    assert_eq!(written["rope_parameters"]["rope_theta"], json!(10000.0));
    assert_eq!(written["rope_parameters"]["factor"], json!(8.0));
    assert_eq!((&written["torch_dtype"], &written["dtype"]), (&json!("bfloat16"), &json!("bfloat16")));
    let plain = ModelConfig::Llama(tiny()).to_hub_json(WeightDtype::F32);
    let plain: Value = serde_json::from_str(&plain).unwrap();
    assert_eq!(plain["rope_scaling"], Value::Null);
    assert_eq!(plain["rope_parameters"], json!({"rope_type": "default", "rope_theta": 10000.0}));
    assert_eq!(plain["eos_token_id"], json!(2));
}

#[test]
fn what_is_not_known_is_refused_by_name() {
    refused(
        &with("architectures", json!(["MambaForCausalLM"])),
        "key \"architectures\" is \"MambaForCausalLM\", which is not supported; supported: LlamaForCausalLM, \
         MistralForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM, Gemma2ForCausalLM, Gemma3ForCausalLM",
    );
    refused(
        &with("rope_scaling", json!({"rope_type": "yarn", "factor": 4.0})),
        "key \"rope_scaling.rope_type\" is \"yarn\", which is not supported; supported: default, linear, llama3",
    );
    refused(
        &with("rope_scaling", json!({"type": "dynamic", "factor": 4.0})),
        "key \"rope_scaling.type\" is \"dynamic\", which is not supported; supported: default, linear, llama3",
    );
    refused(
        &with("hidden_act", json!("gelu")),
        "key \"hidden_act\" is \"gelu\", which is not supported; supported: silu",
    );
    refused(
        &with("attention_bias", json!(true)),
        "key \"attention_bias\" is true, which is not supported; supported: false",
    );
    refused(
        &with("sliding_window", json!(4096)),
        "key \"sliding_window\" is 4096, which is not supported; supported: null",
    );
}

#[test]
fn wrong_kinds_and_contradictions_are_refused() {
    refused(
        &with("hidden_size", json!("128")),
        "key \"hidden_size\" holds \"128\", but a whole number of at least 0 was expected; correct the value",
    );
    refused(&with("vocab_size", Value::Null), "key \"vocab_size\" is missing; a Llama configuration needs it");
    refused(
        &with(
            "rope_parameters",
            json!({"rope_theta": 500000.0, "rope_type": "llama3", "factor": 8.0,
            "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}),
        ),
        "keys \"rope_theta\" and \"rope_parameters.rope_theta\" disagree (10000 and 500000); make them equal or \
         remove one",
    );
    refused(
        &with("dtype", json!("bfloat16")),
        "keys \"torch_dtype\" and \"dtype\" disagree (float32 and bfloat16); make them equal or remove one",
    );
    let error = ModelConfig::from_hub_json("[1, 2]").unwrap_err().to_string();
    assert!(error.starts_with("not a JSON object"), "{error}");
}

proptest! {
    #[test]
    fn writing_and_reading_gives_the_same_model(
        heads in 1_usize..9, group in 1_usize..4, half_head in 1_usize..40, hidden in 1_usize..500,
        layers in 1_usize..50, theta in 1_u32..10_000_000, tied: bool, scaled: bool, eos in proptest::option::of(0_u32..37),
    ) {
        let mut config = tiny();
        config.num_key_value_heads = heads;
        config.num_attention_heads = heads * group;
        config.head_dim = 2 * half_head;
        config.hidden_size = hidden;
        config.num_hidden_layers = layers;
        config.rope.theta = f64::from(theta);
        config.tie_word_embeddings = tied;
        config.eos_token_ids = eos.into_iter().collect();
        if scaled {
            config.rope.scaling = RopeScaling::Llama3 {
                factor: f64::from(theta) * 0.5, low_freq_factor: 1.0, high_freq_factor: 4.0,
                original_max_position_embeddings: 8192,
            };
        }
        let config = ModelConfig::Llama(config);
        prop_assert_eq!(ModelConfig::from_hub_json(&config.to_hub_json(WeightDtype::F16)).unwrap(), config);
    }

    #[test]
    fn hostile_text_never_panics(text in ".{0,200}") {
        let _ = ModelConfig::from_hub_json(&text);
    }

    #[test]
    fn hostile_values_never_panic(key in "hidden_size|num_attention_heads|head_dim|num_hidden_layers|rope_scaling|architectures|eos_token_id|vocab_size|rms_norm_eps", number: i64, shape in 0_u8..5) {
        let value = match shape { 0 => json!(number), 1 => json!([number]), 2 => json!({"factor": number, "rope_type": "llama3"}), 3 => json!(number as f64 * 1e300), _ => json!("x") };
        let _ = ModelConfig::from_hub_json(&with(&key, value));
    }
}
