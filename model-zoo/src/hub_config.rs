//! Owns the Hugging Face form of a configuration, `config.json`, both ways; never touches files or tensors.

use serde_json::{Map, Value, json};

use crate::config::{ConfigError, LlamaConfig, ModelConfig, RopeConfig, RopeScaling, WeightDtype};

/// Rotary base when no key names one: transformers' default for Llama, which files of 2023 rely on.
const DEFAULT_ROPE_THETA: f64 = 10_000.0;

impl ModelConfig {
    /// Reads `config.json` in the style of transformers 4 (`rope_theta`, `rope_scaling`, `torch_dtype`), of
    /// transformers 5 (`rope_parameters`, `dtype`), or with both.
    ///
    /// # Errors
    /// [`ConfigError`] when the architecture, the rotary type, the activation or another feature is not known, a key
    /// is missing or of the wrong kind, or keys contradict each other.
    pub fn from_hub_json(text: &str) -> Result<Self, ConfigError> {
        let keys: Map<String, Value> =
            serde_json::from_str(text).map_err(|error| ConfigError::Json { cause: error.to_string() })?;
        let keys = Keys { map: &keys, prefix: "", family: "Llama" };
        match architecture(&keys)?.as_str() {
            "LlamaForCausalLM" => {
                let config = Self::Llama(read_llama(&keys)?);
                config.validate()?;
                Ok(config)
            }
            other => Err(ConfigError::Unsupported {
                key: "architectures".into(),
                found: format!("{other:?}"),
                supported: "LlamaForCausalLM".into(),
            }),
        }
    }

    /// Writes `config.json` with the keys of transformers 4 and 5 side by side, so that both versions, vLLM,
    /// llama.cpp's converter and mistral.rs read the same model from it. `dtype` is that of the weights beside it.
    #[must_use]
    pub fn to_hub_json(&self, dtype: WeightDtype) -> String {
        let value = match self {
            Self::Llama(config) => write_llama(config, dtype),
        };
        format!("{value:#}\n")
    }
}

/// `architectures[0]`; `model_type` decides when the list is absent, as in some converted files.
fn architecture(keys: &Keys<'_>) -> Result<String, ConfigError> {
    match keys.get("architectures") {
        None => match keys.string("model_type")? {
            Some("llama") => Ok("LlamaForCausalLM".into()),
            Some(other) => Ok(other.to_owned()),
            None => Err(keys.missing("architectures")),
        },
        Some(Value::Array(names)) => match names.as_slice() {
            [Value::String(name)] => Ok(name.clone()),
            _ => Err(keys.wrong_type("architectures", "a list of one name")),
        },
        Some(_) => Err(keys.wrong_type("architectures", "a list of one name")),
    }
}

fn read_llama(keys: &Keys<'_>) -> Result<LlamaConfig, ConfigError> {
    refuse_foreign_features(keys)?;
    let hidden_size = keys.required_size("hidden_size")?;
    let num_attention_heads = keys.required_size("num_attention_heads")?;
    let head_dim = match keys.size("head_dim")? {
        Some(size) => size,
        None if num_attention_heads > 0 && hidden_size.is_multiple_of(num_attention_heads) => {
            hidden_size / num_attention_heads
        }
        None => return Err(keys.missing("head_dim")),
    };
    let config = LlamaConfig {
        vocab_size: keys.required_size("vocab_size")?,
        hidden_size,
        intermediate_size: keys.required_size("intermediate_size")?,
        num_hidden_layers: keys.required_size("num_hidden_layers")?,
        num_attention_heads,
        num_key_value_heads: keys.size("num_key_value_heads")?.unwrap_or(num_attention_heads),
        head_dim,
        // Defaults of transformers' LlamaConfig (configuration_llama.py), which omits keys that hold them.
        max_position_embeddings: keys.size("max_position_embeddings")?.unwrap_or(2048),
        rms_norm_eps: keys.number("rms_norm_eps")?.unwrap_or(1e-6),
        rope: read_rope(keys)?,
        tie_word_embeddings: keys.boolean("tie_word_embeddings")?.unwrap_or(false),
        initializer_range: keys.number("initializer_range")?.unwrap_or(0.02),
        bos_token_id: keys.token_ids("bos_token_id")?.first().copied(),
        eos_token_ids: keys.token_ids("eos_token_id")?,
        pad_token_id: keys.token_ids("pad_token_id")?.first().copied(),
    };
    check_dtypes(keys)?;
    Ok(config)
}

/// Features that change the computation and that a Llama here does not have.
fn refuse_foreign_features(keys: &Keys<'_>) -> Result<(), ConfigError> {
    if let Some(name) = keys.string("hidden_act")?
        && !matches!(name, "silu" | "swish")
    {
        return Err(keys.unsupported("hidden_act", "silu"));
    }
    for key in ["attention_bias", "mlp_bias"] {
        if keys.boolean(key)? == Some(true) {
            return Err(keys.unsupported(key, "false"));
        }
    }
    if keys.number("attention_dropout")?.is_some_and(|rate| rate != 0.0) {
        return Err(keys.unsupported("attention_dropout", "0.0 (dropout does not change inference: set it to 0.0)"));
    }
    for key in ["sliding_window", "quantization_config"] {
        if keys.get(key).is_some() {
            return Err(keys.unsupported(key, "null"));
        }
    }
    Ok(())
}

fn check_dtypes(keys: &Keys<'_>) -> Result<(), ConfigError> {
    match (keys.string("torch_dtype")?, keys.string("dtype")?) {
        (Some(old), Some(new)) if old != new => Err(conflict("torch_dtype", old, "dtype", new)),
        _ => Ok(()),
    }
}

/// Rotary settings from `rope_theta`, `rope_scaling` and `rope_parameters`, which must agree where they overlap.
fn read_rope(keys: &Keys<'_>) -> Result<RopeConfig, ConfigError> {
    let blocks = ["rope_scaling", "rope_parameters"];
    let mut theta: Option<(String, f64)> = keys.number("rope_theta")?.map(|value| ("rope_theta".into(), value));
    let mut scaling: Option<(&str, RopeScaling)> = None;
    for name in blocks {
        let Some(block) = keys.block(name)? else { continue };
        if let Some(value) = block.number("rope_theta")? {
            let key = format!("{name}.rope_theta");
            match &theta {
                Some((first, known)) if *known != value => return Err(conflict(first, known, &key, value)),
                _ => theta = Some((key, value)),
            }
        }
        let value = read_scaling(&block)?;
        match scaling {
            Some((first, known)) if known != value => {
                return Err(conflict(first, format!("{known:?}"), name, format!("{value:?}")));
            }
            _ => scaling = Some((name, value)),
        }
    }
    Ok(RopeConfig {
        theta: theta.map_or(DEFAULT_ROPE_THETA, |(_, value)| value),
        scaling: scaling.map_or(RopeScaling::None, |(_, value)| value),
    })
}

fn read_scaling(block: &Keys<'_>) -> Result<RopeScaling, ConfigError> {
    // `type` is the spelling of 2023.
    let key = if block.get("rope_type").is_some() { "rope_type" } else { "type" };
    match block.string(key)? {
        None | Some("default") => Ok(RopeScaling::None),
        Some("llama3") => Ok(RopeScaling::Llama3 {
            factor: block.required_number("factor")?,
            low_freq_factor: block.required_number("low_freq_factor")?,
            high_freq_factor: block.required_number("high_freq_factor")?,
            original_max_position_embeddings: block.required_size("original_max_position_embeddings")?,
        }),
        Some(_) => Err(block.unsupported(key, "default, llama3")),
    }
}

fn write_llama(config: &LlamaConfig, dtype: WeightDtype) -> Value {
    let scaling = match config.rope.scaling {
        RopeScaling::None => Map::new(),
        RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_position_embeddings } => {
            let mut block = Map::new();
            block.insert("rope_type".into(), json!("llama3"));
            block.insert("factor".into(), json!(factor));
            block.insert("low_freq_factor".into(), json!(low_freq_factor));
            block.insert("high_freq_factor".into(), json!(high_freq_factor));
            block.insert("original_max_position_embeddings".into(), json!(original_max_position_embeddings));
            block
        }
    };
    let mut parameters = scaling.clone();
    parameters.entry("rope_type").or_insert(json!("default"));
    parameters.insert("rope_theta".into(), json!(config.rope.theta));
    let scaling = if scaling.is_empty() { Value::Null } else { Value::Object(scaling) };
    json!({
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_hidden_layers,
        "num_attention_heads": config.num_attention_heads,
        "num_key_value_heads": config.num_key_value_heads,
        "head_dim": config.head_dim,
        "max_position_embeddings": config.max_position_embeddings,
        "rms_norm_eps": config.rms_norm_eps,
        "rope_theta": config.rope.theta,
        "rope_scaling": scaling,
        "rope_parameters": parameters,
        "hidden_act": "silu",
        "attention_bias": false,
        "mlp_bias": false,
        "attention_dropout": 0.0,
        "initializer_range": config.initializer_range,
        "tie_word_embeddings": config.tie_word_embeddings,
        "bos_token_id": config.bos_token_id,
        // One id here: llama.cpp's converter reads no list. All of them stand in generation_config.json.
        "eos_token_id": config.eos_token_ids.first(),
        "pad_token_id": config.pad_token_id,
        "use_cache": true,
        "torch_dtype": dtype.hub_name(),
        "dtype": dtype.hub_name(),
    })
}

fn conflict(first: &str, first_value: impl ToString, second: &str, second_value: impl ToString) -> ConfigError {
    ConfigError::Conflict {
        first: first.into(),
        first_value: first_value.to_string(),
        second: second.into(),
        second_value: second_value.to_string(),
    }
}

/// A JSON object read key by key; `null` counts as absent, as in transformers.
struct Keys<'a> {
    map: &'a Map<String, Value>,
    prefix: &'a str,
    family: &'static str,
}

impl<'a> Keys<'a> {
    fn get(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    fn full_name(&self, key: &str) -> String {
        if self.prefix.is_empty() { key.into() } else { format!("{}.{key}", self.prefix) }
    }

    fn missing(&self, key: &str) -> ConfigError {
        ConfigError::Missing { key: self.full_name(key), family: self.family }
    }

    fn found(&self, key: &str) -> String {
        let text = self.get(key).map_or_else(String::new, Value::to_string);
        let mut short: String = text.chars().take(60).collect();
        if short.len() < text.len() {
            short.push_str("...");
        }
        short
    }

    fn wrong_type(&self, key: &str, expected: &'static str) -> ConfigError {
        ConfigError::Type { key: self.full_name(key), expected, found: self.found(key) }
    }

    fn unsupported(&self, key: &str, supported: &str) -> ConfigError {
        ConfigError::Unsupported { key: self.full_name(key), found: self.found(key), supported: supported.into() }
    }

    fn typed<T>(
        &self,
        key: &str,
        expected: &'static str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, ConfigError> {
        match self.get(key) {
            None => Ok(None),
            Some(value) => read(value).map(Some).ok_or_else(|| self.wrong_type(key, expected)),
        }
    }

    fn size(&self, key: &str) -> Result<Option<usize>, ConfigError> {
        self.typed(key, "a whole number of at least 0", |value| value.as_u64()?.try_into().ok())
    }

    fn number(&self, key: &str) -> Result<Option<f64>, ConfigError> {
        self.typed(key, "a number", Value::as_f64)
    }

    fn boolean(&self, key: &str) -> Result<Option<bool>, ConfigError> {
        self.typed(key, "true or false", Value::as_bool)
    }

    fn string(&self, key: &str) -> Result<Option<&'a str>, ConfigError> {
        self.typed(key, "a string", Value::as_str)
    }

    fn required_size(&self, key: &str) -> Result<usize, ConfigError> {
        self.size(key)?.ok_or_else(|| self.missing(key))
    }

    fn required_number(&self, key: &str) -> Result<f64, ConfigError> {
        self.number(key)?.ok_or_else(|| self.missing(key))
    }

    fn block(&self, key: &'a str) -> Result<Option<Keys<'a>>, ConfigError> {
        let map = self.typed(key, "an object", Value::as_object)?;
        Ok(map.map(|map| Keys { map, prefix: key, family: self.family }))
    }

    /// One id, a list of ids, or -1 for none (an older spelling).
    fn token_ids(&self, key: &str) -> Result<Vec<u32>, ConfigError> {
        let expected = "a token id or a list of token ids";
        let id = |value: &Value| u32::try_from(value.as_u64()?).ok();
        let ids = self.typed(key, expected, |value| match value {
            Value::Array(list) => list.iter().map(id).collect(),
            single if single.as_i64() == Some(-1) => Some(Vec::new()),
            single => id(single).map(|id| vec![id]),
        })?;
        Ok(ids.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use proptest::prelude::*;

    use super::*;
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
        let ModelConfig::Llama(llama) = old;
        assert_eq!(llama.eos_token_ids, [507]);
        assert!(matches!(llama.rope.scaling, RopeScaling::Llama3 { factor: 8.0, .. }));
    }

    #[test]
    fn older_spellings_and_defaults_are_read() {
        let text = r#"{"model_type": "llama", "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 1,
            "num_attention_heads": 4, "vocab_size": 100, "pad_token_id": -1, "eos_token_id": [2, 5]}"#;
        let ModelConfig::Llama(llama) = ModelConfig::from_hub_json(text).unwrap();
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
            "key \"architectures\" is \"MambaForCausalLM\", which is not supported; supported: LlamaForCausalLM",
        );
        refused(
            &with("rope_scaling", json!({"rope_type": "yarn", "factor": 4.0})),
            "key \"rope_scaling.rope_type\" is \"yarn\", which is not supported; supported: default, llama3",
        );
        refused(
            &with("rope_scaling", json!({"type": "dynamic", "factor": 4.0})),
            "key \"rope_scaling.type\" is \"dynamic\", which is not supported; supported: default, llama3",
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
}
