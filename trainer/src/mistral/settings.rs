//! Owns `params.json`, made of config.json and turned back into one; never touches tensors.

use serde_json::{Map, Value, json};

use crate::hub::HubError;

/// Keys that mean the same in both files: theirs, ours.
const SAME: [(&str, &str); 10] = [
    ("dim", "hidden_size"),
    ("n_layers", "num_hidden_layers"),
    ("head_dim", "head_dim"),
    ("hidden_dim", "intermediate_size"),
    ("n_heads", "num_attention_heads"),
    ("n_kv_heads", "num_key_value_heads"),
    ("norm_eps", "rms_norm_eps"),
    ("vocab_size", "vocab_size"),
    ("tied_embeddings", "tie_word_embeddings"),
    ("max_position_embeddings", "max_position_embeddings"),
];
/// Where the key is absent (mistral-inference, `args.py`; vLLM, `configs/mistral.py`).
const DEFAULT_POSITIONS: u64 = 128_000;
const DEFAULT_ROPE_THETA: f64 = 10_000.0;

/// `params.json` of a config.json.
///
/// # Errors
/// [`HubError::Layout`] when the model has something that the layout cannot say.
pub(super) fn write(config: &Map<String, Value>) -> Result<Map<String, Value>, HubError> {
    let refused = |what: &str| HubError::Layout { what: what.to_owned() };
    let class = config.get("architectures").and_then(|list| list.get(0)).and_then(Value::as_str).unwrap_or_default();
    if !["LlamaForCausalLM", "MistralForCausalLM", "MixtralForCausalLM"].contains(&class) {
        return Err(refused(&format!("Mistral's layout is for Llama, Mistral and Mixtral, not for {class}")));
    }
    if config.get("rope_scaling").is_some_and(|scaling| !scaling.is_null()) {
        return Err(refused("Mistral's layout has no rope_scaling; export to hf or gguf instead"));
    }
    let mut params = Map::new();
    for (key, hub_key) in SAME {
        if let Some(value) = config.get(hub_key).filter(|value| !value.is_null()) {
            params.insert(key.into(), value.clone());
        }
    }
    params.insert("rope_theta".into(), config.get("rope_theta").cloned().unwrap_or(json!(DEFAULT_ROPE_THETA)));
    if let Some(window) = config.get("sliding_window").filter(|window| !window.is_null()) {
        params.insert("sliding_window".into(), window.clone());
    }
    if let Some(experts) = config.get("num_local_experts").filter(|experts| !experts.is_null()) {
        let active = config.get("num_experts_per_tok").cloned().unwrap_or(json!(2));
        params.insert("moe".into(), json!({"num_experts": experts, "num_experts_per_tok": active}));
    }
    Ok(params)
}

/// The config.json of a `params.json`.
///
/// # Errors
/// What is missing or not supported, for the message.
pub(super) fn read(params: &Map<String, Value>) -> Result<Map<String, Value>, String> {
    let mut config = Map::new();
    for (key, hub_key) in SAME {
        if let Some(value) = params.get(key) {
            config.insert(hub_key.into(), value.clone());
        }
    }
    for key in ["dim", "n_layers", "hidden_dim", "n_heads", "vocab_size", "norm_eps"] {
        if !params.contains_key(key) {
            return Err(format!("key {key:?} is missing"));
        }
    }
    for key in ["yarn", "quantization", "lora", "vision_encoder", "multimodal", "llama_4_scaling"] {
        if params.get(key).is_some_and(|value| !value.is_null()) {
            return Err(format!("key {key:?} is set, which is not supported"));
        }
    }
    config.entry("num_key_value_heads").or_insert_with(|| params.get("n_heads").cloned().unwrap_or_default());
    config.entry("tie_word_embeddings").or_insert(json!(false));
    config.entry("max_position_embeddings").or_insert(json!(DEFAULT_POSITIONS));
    let (class, kind) = match params.get("moe").filter(|moe| !moe.is_null()) {
        None => ("MistralForCausalLM", "mistral"),
        Some(moe) => {
            config.insert("num_local_experts".into(), moe.get("num_experts").cloned().unwrap_or_default());
            config.insert("num_experts_per_tok".into(), moe.get("num_experts_per_tok").cloned().unwrap_or_default());
            ("MixtralForCausalLM", "mixtral")
        }
    };
    config.insert("architectures".into(), json!([class]));
    config.insert("model_type".into(), json!(kind));
    config.insert("hidden_act".into(), json!("silu"));
    config.insert("rope_theta".into(), params.get("rope_theta").cloned().unwrap_or(json!(DEFAULT_ROPE_THETA)));
    // `null` means none; an absent key would mean the family's default.
    config.insert("sliding_window".into(), params.get("sliding_window").cloned().unwrap_or_default());
    Ok(config)
}
