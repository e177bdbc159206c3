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
         MistralForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM, Gemma2ForCausalLM, Gemma3ForCausalLM, \
         MixtralForCausalLM, GPT2LMHeadModel",
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

const QWEN2: &str = r#"{
    "architectures": ["Qwen2ForCausalLM"], "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 4,
    "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 512, "sliding_window": 32768,
    "use_sliding_window": false, "max_window_layers": 2, "rope_theta": 1000000.0, "tie_word_embeddings": true }"#;
const GEMMA3: &str = r#"{
    "architectures": ["Gemma3ForCausalLM"], "model_type": "gemma3_text", "hidden_size": 64, "intermediate_size": 96,
    "num_hidden_layers": 7, "num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 256, "vocab_size": 512,
    "sliding_window": 512, "sliding_window_pattern": 6, "rope_theta": 1000000.0, "rope_local_base_freq": 10000.0,
    "rope_scaling": {"factor": 8.0, "rope_type": "linear"}, "query_pre_attn_scalar": 256,
    "cache_implementation": "hybrid", "hidden_activation": "gelu_pytorch_tanh" }"#;
const MISTRAL: &str = r#"{
    "architectures": ["MistralForCausalLM"], "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 512 }"#;
const GEMMA2: &str = r#"{
    "model_type": "gemma2", "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 512 }"#;

/// A configuration with one key replaced, added, or taken away.
fn changed(text: &str, key: &str, value: Option<Value>) -> String {
    let mut map: Map<String, Value> = serde_json::from_str(text).unwrap();
    match value {
        Some(value) => map.insert(key.into(), value),
        None => map.remove(key),
    };
    Value::Object(map).to_string()
}

fn read(text: &str) -> ModelConfig {
    ModelConfig::from_hub_json(text).unwrap()
}

#[test]
fn a_window_of_mistral_is_a_number_null_or_absent() {
    let window = |value| match read(&changed(MISTRAL, "sliding_window", value)) {
        ModelConfig::Mistral(config) => config.sliding_window,
        other => panic!("{other:?}"),
    };
    assert_eq!(window(Some(json!(16))), Some(16));
    assert_eq!(window(Some(Value::Null)), None);
    assert_eq!(window(None), Some(4096), "transformers takes 4096 where the key is absent");
    refused(
        &changed(MISTRAL, "sliding_window", Some(json!(0))),
        "sliding_window is 0, outside 1..=67108864; correct the configuration",
    );
    refused(
        &changed(MISTRAL, "layer_types", Some(json!(["sliding_attention"]))),
        "key \"layer_types\" is [\"sliding_attention\"], which is not supported; supported: null",
    );
}

#[test]
fn windows_of_qwen_count_only_where_they_are_switched_on() {
    let windows = |text: &str| match read(text) {
        ModelConfig::Qwen2(config) => config.windows,
        other => panic!("{other:?}"),
    };
    assert_eq!(windows(QWEN2), None);
    let on = changed(QWEN2, "use_sliding_window", Some(json!(true)));
    let found = windows(&on).unwrap();
    assert_eq!((0..4).map(|layer| found.of(layer)).collect::<Vec<_>>(), [None, None, Some(32768), Some(32768)]);
    assert_eq!(windows(&changed(&on, "sliding_window", Some(Value::Null))), None);
    assert_eq!(windows(&changed(&on, "max_window_layers", Some(json!(4)))), None);
    let types = json!(["sliding_attention", "full_attention", "full_attention", "full_attention"]);
    let by_name = windows(&changed(&on, "layer_types", Some(types.clone()))).unwrap();
    assert_eq!((by_name.of(0), by_name.of(3)), (Some(32768), None));
    refused(
        &changed(QWEN2, "layer_types", Some(types)),
        "keys \"layer_types\" and \"sliding_window\" disagree (sliding_attention and no window); make them equal or \
         remove one",
    );
    let short = changed(&on, "layer_types", Some(json!(["sliding_attention"])));
    refused(&short, "layer_types has 1 entries for num_hidden_layers = 4; correct the configuration");
}

#[test]
fn gemma_has_the_defaults_of_transformers() {
    let ModelConfig::Gemma2(gemma) = read(GEMMA2) else { panic!("not a Gemma 2") };
    assert_eq!((gemma.attn_logit_softcapping, gemma.final_logit_softcapping), (Some(50.0), Some(30.0)));
    assert_eq!((gemma.decoder.head_dim, gemma.query_pre_attn_scalar), (256, 256.0));
    assert!(gemma.decoder.tie_word_embeddings);
    let found: Vec<_> = (0..3).map(|layer| gemma.windows.of(layer)).collect();
    assert_eq!(found, [Some(4096), None, Some(4096)]);
    let ModelConfig::Gemma2(free) = read(&changed(GEMMA2, "attn_logit_softcapping", Some(Value::Null))) else {
        panic!("not a Gemma 2")
    };
    assert_eq!(free.attn_logit_softcapping, None);
}

#[test]
fn gemma_3_has_two_rotary_bases_in_both_styles() {
    let old = read(GEMMA3);
    let ModelConfig::Gemma3(gemma) = &old else { panic!("not a Gemma 3") };
    assert_eq!(gemma.decoder.rope.scaling, RopeScaling::Linear { factor: 8.0 });
    assert_eq!((gemma.decoder.rope.theta, gemma.local_rope.theta), (1e6, 1e4));
    assert_eq!(gemma.local_rope.scaling, RopeScaling::None);
    let found: Vec<_> = (0..7).map(|layer| gemma.windows.of(layer).is_none()).collect();
    assert_eq!(found, [false, false, false, false, false, true, false]);
    let keys = ["rope_theta", "rope_local_base_freq", "rope_scaling"];
    let bare = keys.iter().fold(GEMMA3.to_owned(), |text, key| changed(&text, key, None));
    let blocks = json!({
        "full_attention": {"rope_theta": 1000000.0, "rope_type": "linear", "factor": 8.0},
        "sliding_attention": {"rope_theta": 10000.0, "rope_type": "default"},
    });
    assert_eq!(old, read(&changed(&bare, "rope_parameters", Some(blocks.clone()))));
    refused(
        &changed(&changed(GEMMA3, "rope_local_base_freq", Some(json!(5.0))), "rope_parameters", Some(blocks)),
        "keys \"rope_local_base_freq\" and \"rope_parameters.sliding_attention.rope_theta\" disagree (5 and 10000); \
         make them equal or remove one",
    );
    refused(
        &changed(GEMMA3, "rope_parameters", Some(json!({"rope_theta": 1.0}))),
        "key \"rope_parameters.rope_theta\" is 1.0, which is not supported; supported: a block full_attention and a \
         block sliding_attention",
    );
}

#[test]
fn features_that_a_family_does_not_compute_are_refused() {
    let cases = [
        (GEMMA3, "attn_logit_softcapping", json!(50.0), "is 50.0, which is not supported; supported: null"),
        (GEMMA3, "use_bidirectional_attention", json!(true), "is true, which is not supported; supported: false"),
        (GEMMA3, "sliding_window_pattern", json!(0), "is 0, which is not supported; supported: a whole number"),
        (GEMMA3, "_sliding_window_pattern", json!(3), "disagree (6 and 3)"),
        (GEMMA3, "layer_types", json!(["chunked_attention"]), "supported: a list of full_attention and"),
        (GEMMA3, "hidden_activation", json!("relu"), "supported: gelu_pytorch_tanh"),
        (GEMMA2, "attention_bias", json!(true), "supported: false"),
        (MISTRAL, "partial_rotary_factor", json!(0.5), "supported: 1.0"),
        (MISTRAL, "rope_scaling", json!({"type": "yarn", "factor": 4.0}), "supported: default, linear, llama3"),
        (QWEN2, "hidden_act", json!("gelu"), "supported: silu"),
    ];
    for (text, key, value, part) in cases {
        let message = ModelConfig::from_hub_json(&changed(text, key, Some(value))).unwrap_err().to_string();
        assert!(message.contains(key) && message.contains(part), "{key}: {message}");
    }
    let huge = changed(GEMMA2, "num_hidden_layers", Some(json!(u64::MAX)));
    assert!(ModelConfig::from_hub_json(&huge).is_err(), "no list of that many layers is made");
}

#[test]
fn families_are_written_and_read_as_the_same() {
    let on = changed(QWEN2, "use_sliding_window", Some(json!(true)));
    for text in [MISTRAL, QWEN2, &on, GEMMA2, GEMMA3] {
        let config = read(text);
        assert_eq!(read(&config.to_hub_json(WeightDtype::Bf16)), config);
    }
}

#[test]
fn a_checkpoint_keeps_every_end_and_an_export_names_the_first() {
    for text in [MISTRAL, QWEN2, GEMMA2, GEMMA3] {
        let config = read(&changed(text, "eos_token_id", Some(json!([5])))).with_end_ids(&[7, 5]);
        assert_eq!(config.eos_token_ids(), [5, 7]);
        assert_eq!(read(&config.to_checkpoint_json()), config);
        assert_eq!(read(&config.to_hub_json(WeightDtype::F32)).eos_token_ids(), [5]);
    }
}
