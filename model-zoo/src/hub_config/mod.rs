//! Owns the Hugging Face form of a configuration, `config.json`, both ways; never touches files or tensors.

mod decoder;
mod gemma;
mod gpt2;
mod keys;
mod mistral;
mod mixtral;
mod qwen;
mod rope;
#[cfg(test)]
mod tests;
mod windows;

use serde_json::{Map, Value};

use crate::config::{ConfigError, ModelConfig, WeightDtype};
use keys::Keys;

/// What reads the configurations of one architecture.
struct Reader {
    /// Entry of `architectures`.
    architecture: &'static str,
    /// `model_type`, which decides where the list is absent.
    model_type: &'static str,
    /// Name in messages.
    family: &'static str,
    read: fn(&Keys<'_>) -> Result<ModelConfig, ConfigError>,
}

const READERS: [Reader; 8] = [
    Reader {
        architecture: decoder::ARCHITECTURE,
        model_type: decoder::MODEL_TYPE,
        family: "Llama",
        read: |keys| decoder::read_llama(keys).map(ModelConfig::Llama),
    },
    Reader {
        architecture: mistral::ARCHITECTURE,
        model_type: mistral::MODEL_TYPE,
        family: "Mistral",
        read: |keys| mistral::read(keys).map(ModelConfig::Mistral),
    },
    Reader {
        architecture: qwen::ARCHITECTURE_2,
        model_type: qwen::MODEL_TYPE_2,
        family: "Qwen2",
        read: |keys| qwen::read_2(keys).map(ModelConfig::Qwen2),
    },
    Reader {
        architecture: qwen::ARCHITECTURE_3,
        model_type: qwen::MODEL_TYPE_3,
        family: "Qwen3",
        read: |keys| qwen::read_3(keys).map(ModelConfig::Qwen3),
    },
    Reader {
        architecture: gemma::ARCHITECTURE_2,
        model_type: gemma::MODEL_TYPE_2,
        family: "Gemma 2",
        read: |keys| gemma::read_2(keys).map(ModelConfig::Gemma2),
    },
    Reader {
        architecture: gemma::ARCHITECTURE_3,
        model_type: gemma::MODEL_TYPE_3,
        family: "Gemma 3",
        read: |keys| gemma::read_3(keys).map(ModelConfig::Gemma3),
    },
    Reader {
        architecture: mixtral::ARCHITECTURE,
        model_type: mixtral::MODEL_TYPE,
        family: "Mixtral",
        read: |keys| mixtral::read(keys).map(ModelConfig::Mixtral),
    },
    Reader {
        architecture: gpt2::ARCHITECTURE,
        model_type: gpt2::MODEL_TYPE,
        family: "GPT-2",
        read: |keys| gpt2::read(keys).map(ModelConfig::Gpt2),
    },
];

impl ModelConfig {
    /// Reads `config.json` in the style of transformers 4 (`rope_theta`, `rope_scaling`, `torch_dtype`), of
    /// transformers 5 (`rope_parameters`, `dtype`), or with both.
    ///
    /// # Errors
    /// [`ConfigError`] when the architecture, the rotary type, the activation or another feature is not known, a key
    /// is missing or of the wrong kind, or keys contradict each other.
    pub fn from_hub_json(text: &str) -> Result<Self, ConfigError> {
        let map: Map<String, Value> =
            serde_json::from_str(text).map_err(|error| ConfigError::Json { cause: error.to_string() })?;
        let keys = Keys::new(&map, "model");
        let reader = reader(&keys)?;
        let config = (reader.read)(&keys.of_family(reader.family))?;
        config.validate()?;
        Ok(config)
    }

    /// Writes `config.json` with the keys of transformers 4 and 5 side by side, so that both versions, vLLM,
    /// llama.cpp's converter and mistral.rs read the same model from it. `dtype` is that of the weights beside it.
    #[must_use]
    pub fn to_hub_json(&self, dtype: WeightDtype) -> String {
        format!("{:#}\n", Value::Object(self.hub_keys(dtype)))
    }

    /// [`ModelConfig::to_hub_json`] with every id that ends a text: what a checkpoint keeps. Exports name the first
    /// one here and all of them in `generation_config.json`.
    #[must_use]
    pub fn to_checkpoint_json(&self) -> String {
        let mut keys = self.hub_keys(WeightDtype::F32);
        if self.eos_token_ids().len() > 1 {
            keys.insert("eos_token_id".into(), self.eos_token_ids().into());
        }
        format!("{:#}\n", Value::Object(keys))
    }

    fn hub_keys(&self, dtype: WeightDtype) -> Map<String, Value> {
        match self {
            Self::Llama(config) => decoder::write_llama(config, dtype),
            Self::Mistral(config) => mistral::write(config, dtype),
            Self::Qwen2(config) => qwen::write_2(config, dtype),
            Self::Qwen3(config) => qwen::write_3(config, dtype),
            Self::Gemma2(config) => gemma::write_2(config, dtype),
            Self::Gemma3(config) => gemma::write_3(config, dtype),
            Self::Mixtral(config) => mixtral::write(config, dtype),
            Self::Gpt2(config) => gpt2::write(config, dtype),
        }
    }
}

/// Found by `architectures[0]`; `model_type` decides when the list is absent, as in some converted files.
fn reader(keys: &Keys<'_>) -> Result<&'static Reader, ConfigError> {
    let unknown = |key: &str, name: &str| ConfigError::Unsupported {
        key: key.into(),
        found: format!("{name:?}"),
        supported: READERS.map(|reader| reader.architecture).join(", "),
    };
    match keys.get("architectures") {
        None => {
            let name = keys.string("model_type")?.ok_or_else(|| keys.missing("architectures"))?;
            READERS.iter().find(|reader| reader.model_type == name).ok_or_else(|| unknown("model_type", name))
        }
        Some(Value::Array(names)) => match names.as_slice() {
            [Value::String(name)] => {
                let found = READERS.iter().find(|reader| reader.architecture == name);
                found.ok_or_else(|| unknown("architectures", name))
            }
            _ => Err(keys.wrong_type("architectures", "a list of one name")),
        },
        Some(_) => Err(keys.wrong_type("architectures", "a list of one name")),
    }
}
