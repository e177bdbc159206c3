//! Owns the settings of a model as GGUF keys, made of config.json and turned back into one; never touches tokenizers.

use serde_json::{Map, Value as Json, json};

use super::GgufError;
use super::mix::Quantization;
use super::names::Family;
use super::read::GgufFile;
use super::types::Value;

/// The class of config.json. GGUF has one architecture for several of them.
const CLASS_KEY: &str = "jazari.model_class";
/// `rope_scaling` of config.json: GGUF holds only the factors that follow from it, as a tensor.
const SCALING_KEY: &str = "jazari.rope_scaling";
/// `query_pre_attn_scalar` of Gemma, which llama.cpp derives.
const QUERY_SCALE_KEY: &str = "jazari.query_pre_attn_scalar";
/// Tensor of divisors of rotary frequencies.
pub(super) const ROPE_FACTORS: &str = "rope_freqs.weight";

/// What the rest of the export needs to know of a config.json.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Family.
    pub family: Family,
    /// Rows of the embedding.
    pub vocab_size: usize,
    /// Number of blocks.
    pub layers: usize,
    /// Elements of a head.
    pub head_dim: usize,
    /// Number of experts; 0 without.
    pub experts: usize,
    /// Whether the output head is the embedding.
    pub tied_head: bool,
    config: Map<String, Json>,
}

impl Settings {
    /// Reads what is needed of a config.json.
    ///
    /// # Errors
    /// [`GgufError::Model`] names a key that is missing or a class that GGUF is not written for.
    pub fn read(config_json: &str) -> Result<Self, GgufError> {
        let config: Map<String, Json> = serde_json::from_str(config_json)
            .map_err(|error| GgufError::Model { cause: format!("config.json is no JSON object ({error})") })?;
        let class = config.get("architectures").and_then(|list| list.get(0)).and_then(Json::as_str);
        let named = |family: &Family| {
            class.map_or_else(
                || config.get("model_type").and_then(Json::as_str) == Some(family.model_type()),
                |class| class == family.class(),
            )
        };
        let family = Family::ALL.into_iter().find(named).ok_or_else(|| GgufError::Model {
            cause: format!(
                "config.json names the class {}; GGUF is written for {}",
                class.unwrap_or("nowhere"),
                Family::ALL.map(Family::class).join(", ")
            ),
        })?;
        let keys = Keys { config: &config };
        let (width, heads) = (keys.size(&["hidden_size", "n_embd"])?, keys.size(&["num_attention_heads", "n_head"])?);
        let head_dim = keys.optional_size("head_dim").unwrap_or_else(|| width.checked_div(heads).unwrap_or_default());
        Ok(Self {
            family,
            vocab_size: keys.size(&["vocab_size"])?,
            layers: keys.size(&["num_hidden_layers", "n_layer"])?,
            head_dim,
            experts: keys.optional_size("num_local_experts").unwrap_or_default(),
            tied_head: keys.flag("tie_word_embeddings").unwrap_or(family == Family::Gpt2),
            config,
        })
    }

    /// The keys of the model, its tokenizer's excepted.
    ///
    /// # Errors
    /// [`GgufError::Model`] names a key of config.json that is missing.
    pub fn describe(&self, name: &str, quantization: Quantization) -> Result<Vec<(String, Value)>, GgufError> {
        let arch = self.family.architecture();
        let mut keys = vec![
            ("general.architecture".to_owned(), Value::String(arch.into())),
            ("general.type".into(), Value::String("model".into())),
            ("general.name".into(), Value::String(name.into())),
            ("general.file_type".into(), Value::U32(quantization.file_type())),
            ("general.quantization_version".into(), Value::U32(2)),
            (CLASS_KEY.into(), Value::String(self.family.class().into())),
        ];
        let model = if self.family == Family::Gpt2 { self.gpt2()? } else { self.rotary()? };
        keys.extend(model.into_iter().map(|(key, value)| (format!("{arch}.{key}"), value)));
        if let Some(scaling) = self.scaling() {
            keys.push((SCALING_KEY.into(), Value::String(Json::Object(scaling.clone()).to_string())));
        }
        if let Some(scale) = self.config.get("query_pre_attn_scalar").and_then(Json::as_f64) {
            keys.push((QUERY_SCALE_KEY.into(), Value::F32(scale as f32)));
        }
        Ok(keys)
    }

    fn gpt2(&self) -> Result<Vec<(&'static str, Value)>, GgufError> {
        let keys = Keys { config: &self.config };
        let width = keys.size(&["n_embd", "hidden_size"])?;
        let inner = keys.optional_size("n_inner").unwrap_or(4 * width);
        Ok(vec![
            ("block_count", count(self.layers)),
            ("context_length", count(keys.size(&["n_positions", "n_ctx", "max_position_embeddings"])?)),
            ("embedding_length", count(width)),
            ("feed_forward_length", count(inner)),
            ("attention.head_count", count(keys.size(&["n_head", "num_attention_heads"])?)),
            ("attention.layer_norm_epsilon", Value::F32(keys.number("layer_norm_epsilon").unwrap_or(1e-5) as f32)),
            ("vocab_size", count(self.vocab_size)),
        ])
    }

    fn rotary(&self) -> Result<Vec<(&'static str, Value)>, GgufError> {
        let keys = Keys { config: &self.config };
        if self.is_qwen() && keys.flag("use_sliding_window") == Some(true) {
            return Err(GgufError::Model {
                cause: "llama.cpp has no sliding window for Qwen; set use_sliding_window to false to export it".into(),
            });
        }
        let heads = keys.size(&["num_attention_heads"])?;
        let epsilon = keys.number("rms_norm_eps").ok_or_else(|| Keys::missing("rms_norm_eps"))?;
        let mut list = vec![
            ("block_count", count(self.layers)),
            ("context_length", count(keys.size(&["max_position_embeddings"])?)),
            ("embedding_length", count(keys.size(&["hidden_size"])?)),
            ("feed_forward_length", count(keys.size(&["intermediate_size"])?)),
            ("attention.head_count", count(heads)),
            ("attention.head_count_kv", count(keys.optional_size("num_key_value_heads").unwrap_or(heads))),
            ("attention.layer_norm_rms_epsilon", Value::F32(epsilon as f32)),
            ("attention.key_length", count(self.head_dim)),
            ("attention.value_length", count(self.head_dim)),
            ("rope.dimension_count", count(self.head_dim)),
            ("rope.freq_base", Value::F32(self.rope_theta() as f32)),
            ("vocab_size", count(self.vocab_size)),
        ];
        if self.experts > 0 {
            list.push(("expert_count", count(self.experts)));
            list.push(("expert_used_count", count(keys.size(&["num_experts_per_tok"])?)));
        }
        // llama.cpp does not read it for the architecture "llama"; it is written for those who do, and for `verify`.
        if let Some(window) = keys.optional_size("sliding_window").filter(|_| !self.is_qwen()) {
            list.push(("attention.sliding_window", count(window)));
        }
        for key in ["attn_logit_softcapping", "final_logit_softcapping"] {
            if let Some(cap) = keys.number(key) {
                list.push((key, Value::F32(cap as f32)));
            }
        }
        if self.family == Family::Gemma3 {
            list.push(("rope.freq_base_swa", Value::F32(self.local_rope_theta() as f32)));
            list.push(("attention.sliding_window_pattern", Value::Bools(self.windowed_layers())));
        }
        Ok(list)
    }

    fn is_qwen(&self) -> bool {
        matches!(self.family, Family::Qwen2 | Family::Qwen3)
    }

    /// The block of rotary settings, in the spelling of transformers 4 or 5; Gemma 3's is nested by kind of layer.
    fn rope_block(&self, kind: &str) -> Option<&Map<String, Json>> {
        let block = self.config.get("rope_parameters").and_then(Json::as_object)?;
        Some(block.get(kind).and_then(Json::as_object).unwrap_or(block))
    }

    fn rope_theta(&self) -> f64 {
        let nested = || self.rope_block("full_attention")?.get("rope_theta")?.as_f64();
        self.config.get("rope_theta").and_then(Json::as_f64).or_else(nested).unwrap_or(10_000.0)
    }

    fn local_rope_theta(&self) -> f64 {
        let nested = || self.rope_block("sliding_attention")?.get("rope_theta")?.as_f64();
        self.config.get("rope_local_base_freq").and_then(Json::as_f64).or_else(nested).unwrap_or(10_000.0)
    }

    fn windowed_layers(&self) -> Vec<bool> {
        if let Some(types) = self.config.get("layer_types").and_then(Json::as_array) {
            return types.iter().map(|kind| kind.as_str() == Some("sliding_attention")).collect();
        }
        let pattern = Keys { config: &self.config }.optional_size("sliding_window_pattern").unwrap_or(6).max(1);
        (1..=self.layers).map(|layer| layer % pattern != 0).collect()
    }

    /// Rotary scaling other than none.
    fn scaling(&self) -> Option<&Map<String, Json>> {
        let kind = |block: &Map<String, Json>| {
            block.get("rope_type").or(block.get("type")).and_then(Json::as_str).unwrap_or("default").to_owned()
        };
        let own = self.config.get("rope_scaling").and_then(Json::as_object);
        own.or_else(|| self.rope_block("full_attention")).filter(|block| kind(block) != "default")
    }

    /// What rotary frequencies are divided by, `[head_dim / 2]`: Llama 3.1's blend (`apply_scaling` of Meta's
    /// reference code). `None` without scaling.
    ///
    /// # Errors
    /// [`GgufError::Model`] when the kind of scaling has no form in GGUF.
    pub fn rope_factors(&self) -> Result<Option<Vec<f32>>, GgufError> {
        let Some(block) = self.scaling() else { return Ok(None) };
        let number = |key: &str| block.get(key).and_then(Json::as_f64);
        let llama3 = block.get("rope_type").or(block.get("type")).and_then(Json::as_str) == Some("llama3");
        let known = (
            number("factor"),
            number("low_freq_factor"),
            number("high_freq_factor"),
            number("original_max_position_embeddings"),
        );
        let (true, (Some(factor), Some(low), Some(high), Some(original))) = (llama3, known) else {
            return Err(GgufError::Model {
                cause: format!("its rope_scaling {} is not written; known: llama3", Json::Object(block.clone())),
            });
        };
        let theta = self.rope_theta();
        let factors = (0..self.head_dim / 2).map(|pair| {
            let frequency = theta.powf(-(2.0 * pair as f64) / self.head_dim as f64);
            let turns = original * frequency / (2.0 * std::f64::consts::PI);
            let smooth = ((turns - low) / (high - low)).clamp(0.0, 1.0);
            (1.0 / ((1.0 - smooth) / factor + smooth)) as f32
        });
        Ok(Some(factors.collect()))
    }

    /// Where llama.cpp computes something else than this model does, in words for the user.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let keys = Keys { config: &self.config };
        let mut list = Vec::new();
        if let (Family::Mistral | Family::Mixtral, Some(window)) = (self.family, keys.optional_size("sliding_window")) {
            list.push(format!(
                "llama.cpp has no sliding window for this family: its answers are the model's only within the first \
                 {window} tokens"
            ));
        }
        let heads = keys.optional_size("num_attention_heads").unwrap_or(1).max(1);
        let width = keys.optional_size("hidden_size").unwrap_or_default();
        if matches!(self.family, Family::Llama | Family::Mixtral | Family::Qwen2) && self.head_dim * heads != width {
            list.push(format!(
                "head_dim is {}, not hidden_size / heads = {}: llama.cpp reads it, but mistral.rs (and vLLM for Qwen2) \
                 does not",
                self.head_dim,
                width / heads
            ));
        }
        if let Some(scale) = keys.number("query_pre_attn_scalar").filter(|scale| *scale != self.head_dim as f64) {
            let large = matches!((self.family, self.layers), (Family::Gemma2, 46) | (Family::Gemma3, 62));
            if !(large && scale == (width / heads) as f64) {
                list.push(format!(
                    "llama.cpp divides attention scores by the root of head_dim ({}), the model by that of \
                     query_pre_attn_scalar ({scale}): its answers will differ",
                    self.head_dim
                ));
            }
        }
        list
    }
}

/// The config.json that the keys of a file describe.
///
/// # Errors
/// [`GgufError::Unsupported`] names a key that is missing or an architecture that is not read.
pub fn config_of(file: &GgufFile) -> Result<Map<String, Json>, GgufError> {
    let unsupported = |cause: String| GgufError::Unsupported { path: file.path().to_owned(), cause };
    let arch = file.get("general.architecture").and_then(Value::as_str).unwrap_or_default();
    let class = file.get(CLASS_KEY).and_then(Value::as_str);
    let has = |key: &str| file.get(&format!("{arch}.{key}")).is_some();
    let guessed = match arch {
        "llama" if has("expert_count") => Some(Family::Mixtral),
        "llama" if has("attention.sliding_window") => Some(Family::Mistral),
        _ => Family::ALL.into_iter().find(|family| family.architecture() == arch),
    };
    let named = Family::ALL.into_iter().find(|family| Some(family.class()) == class && family.architecture() == arch);
    let family = named.or(guessed).ok_or_else(|| unsupported(format!("architecture {arch:?} is not read here")))?;
    let reader = Described { file, arch };
    let mut config = if family == Family::Gpt2 { reader.gpt2()? } else { reader.rotary(family)? };
    config.insert("architectures".into(), json!([family.class()]));
    config.insert("model_type".into(), json!(family.model_type()));
    config.insert("tie_word_embeddings".into(), json!(!file.tensors().contains_key("output.weight")));
    for (key, token) in [("bos_token_id", "bos"), ("eos_token_id", "eos"), ("pad_token_id", "padding")] {
        let id = file.get(&format!("tokenizer.ggml.{token}_token_id")).and_then(Value::as_u64);
        config.insert(key.into(), json!(id));
    }
    if let Some(text) = file.get(SCALING_KEY).and_then(Value::as_str) {
        let scaling: Json = serde_json::from_str(text)
            .map_err(|error| unsupported(format!("{SCALING_KEY} is no JSON ({error}); export again")))?;
        config.insert("rope_scaling".into(), scaling);
    } else if file.tensors().contains_key(ROPE_FACTORS) {
        return Err(unsupported(format!("it holds {ROPE_FACTORS} without {SCALING_KEY}, which only Jazari writes")));
    }
    if let Some(scale) = file.get(QUERY_SCALE_KEY).and_then(Value::as_f64) {
        config.insert("query_pre_attn_scalar".into(), json!(scale));
    }
    Ok(config)
}

struct Described<'a> {
    file: &'a GgufFile,
    arch: &'a str,
}

impl Described<'_> {
    fn value(&self, key: &str) -> Option<&Value> {
        self.file.get(&format!("{}.{key}", self.arch))
    }

    fn missing(&self, key: &str) -> GgufError {
        GgufError::Unsupported {
            path: self.file.path().to_owned(),
            cause: format!("key {:?} is missing or of another kind", format!("{}.{key}", self.arch)),
        }
    }

    fn size(&self, key: &str) -> Result<u64, GgufError> {
        self.value(key).and_then(Value::as_u64).ok_or_else(|| self.missing(key))
    }

    fn number(&self, key: &str) -> Result<f64, GgufError> {
        self.value(key).and_then(Value::as_f64).ok_or_else(|| self.missing(key))
    }

    /// Rows of the embedding: GGUF need not say.
    fn vocab_size(&self) -> Result<u64, GgufError> {
        let rows = || Some(*self.file.tensors().get("token_embd.weight")?.shape.first()? as u64);
        rows().ok_or_else(|| self.missing("vocab_size"))
    }

    fn gpt2(&self) -> Result<Map<String, Json>, GgufError> {
        let value = json!({
            "n_layer": self.size("block_count")?,
            "n_positions": self.size("context_length")?,
            "n_ctx": self.size("context_length")?,
            "n_embd": self.size("embedding_length")?,
            "n_inner": self.size("feed_forward_length")?,
            "n_head": self.size("attention.head_count")?,
            "layer_norm_epsilon": self.number("attention.layer_norm_epsilon")?,
            "activation_function": "gelu_new",
            "vocab_size": self.vocab_size()?,
        });
        Ok(value.as_object().cloned().unwrap_or_default())
    }

    fn rotary(&self, family: Family) -> Result<Map<String, Json>, GgufError> {
        let heads = self.size("attention.head_count")?;
        let width = self.size("embedding_length")?;
        let head_dim = match self.value("attention.key_length").and_then(Value::as_u64) {
            Some(head_dim) => head_dim,
            None => width.checked_div(heads).ok_or_else(|| self.missing("attention.head_count"))?,
        };
        let activation = if matches!(family, Family::Gemma2 | Family::Gemma3) { "gelu_pytorch_tanh" } else { "silu" };
        let value = json!({
            "vocab_size": self.vocab_size()?,
            "hidden_size": width,
            "intermediate_size": self.size("feed_forward_length")?,
            "num_hidden_layers": self.size("block_count")?,
            "num_attention_heads": heads,
            "num_key_value_heads": self.value("attention.head_count_kv").and_then(Value::as_u64).unwrap_or(heads),
            "head_dim": head_dim,
            "max_position_embeddings": self.size("context_length")?,
            "rms_norm_eps": self.number("attention.layer_norm_rms_epsilon")?,
            "rope_theta": self.number("rope.freq_base").unwrap_or(10_000.0),
            "hidden_act": activation,
        });
        let mut config = value.as_object().cloned().unwrap_or_default();
        let mut add = |key: &str, value: Option<Json>| {
            if let Some(value) = value {
                config.insert(key.into(), value);
            }
        };
        if activation != "silu" {
            add("hidden_activation", Some(json!(activation)));
            // Where the file does not say: what llama.cpp computes with.
            add("query_pre_attn_scalar", Some(json!(head_dim)));
        }
        for (key, hub_key) in [("expert_count", "num_local_experts"), ("expert_used_count", "num_experts_per_tok")] {
            add(hub_key, self.value(key).and_then(Value::as_u64).map(|size| json!(size)));
        }
        // What is absent is off; in config.json only `null` says so, an absent key means the family's default.
        add("sliding_window", Some(json!(self.value("attention.sliding_window").and_then(Value::as_u64))));
        for key in ["attn_logit_softcapping", "final_logit_softcapping"] {
            add(key, Some(json!(self.value(key).and_then(Value::as_f64))));
        }
        if family == Family::Gemma3 {
            add("rope_local_base_freq", Some(json!(self.number("rope.freq_base_swa").unwrap_or(10_000.0))));
            if let Some(Value::Bools(windowed)) = self.value("attention.sliding_window_pattern") {
                let kind = |windowed: &bool| if *windowed { "sliding_attention" } else { "full_attention" };
                add("layer_types", Some(json!(windowed.iter().map(kind).collect::<Vec<_>>())));
            }
        }
        Ok(config)
    }
}

fn count(size: usize) -> Value {
    Value::U32(u32::try_from(size).unwrap_or(u32::MAX))
}

/// config.json key by key; `null` counts as absent.
struct Keys<'a> {
    config: &'a Map<String, Json>,
}

impl Keys<'_> {
    fn missing(key: &str) -> GgufError {
        GgufError::Model { cause: format!("config.json lacks {key}") }
    }

    fn optional_size(&self, key: &str) -> Option<usize> {
        self.config.get(key)?.as_u64()?.try_into().ok()
    }

    /// The first key that is there.
    fn size(&self, keys: &[&str]) -> Result<usize, GgufError> {
        let found = keys.iter().find_map(|key| self.optional_size(key));
        found.ok_or_else(|| Self::missing(keys.first().copied().unwrap_or_default()))
    }

    fn number(&self, key: &str) -> Option<f64> {
        self.config.get(key)?.as_f64()
    }

    fn flag(&self, key: &str) -> Option<bool> {
        self.config.get(key)?.as_bool()
    }
}
