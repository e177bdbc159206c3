//! Owns `generation_config.json`: the ids that begin, end and pad texts; never touches sampling.

use std::path::Path;

use model_zoo::ModelConfig;
use serde_json::{Map, Value, json};

use super::{GENERATION_CONFIG_FILE, HubError, JSON_LIMIT_BYTES};
use crate::durable::read_text;

/// Ids that begin, end and pad texts. Sampling settings are neither read nor written: servers would apply them to
/// every request by default.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GenerationConfig {
    /// Id that begins a text.
    pub bos_token_id: Option<u32>,
    /// Ids that end a text or a turn, the end of a text first.
    pub eos_token_ids: Vec<u32>,
    /// Id that fills unused places.
    pub pad_token_id: Option<u32>,
}

impl GenerationConfig {
    /// What a model's own configuration says, with further ids that end a turn.
    #[must_use]
    pub fn of(config: &ModelConfig, end_of_turn: &[u32]) -> Self {
        let mut eos_token_ids = config.eos_token_ids().to_vec();
        for id in end_of_turn {
            if !eos_token_ids.contains(id) {
                eos_token_ids.push(*id);
            }
        }
        Self { bos_token_id: config.bos_token_id(), eos_token_ids, pad_token_id: config.pad_token_id() }
    }

    /// Reads the file where there is one; keys that are absent come from `config`.
    ///
    /// # Errors
    /// [`HubError::Json`] when an id is no id of this model's vocabulary.
    pub fn read(dir: &Path, config: &ModelConfig) -> Result<Self, HubError> {
        let path = dir.join(GENERATION_CONFIG_FILE);
        let mut settings = Self::of(config, &[]);
        if !path.exists() {
            return Ok(settings);
        }
        let text = read_text(&path, JSON_LIMIT_BYTES)?;
        settings.overlay(&text, config.vocab_size()).map_err(|cause| HubError::Json { path, cause })?;
        Ok(settings)
    }

    fn overlay(&mut self, text: &str, vocab_size: usize) -> Result<(), String> {
        let map: Map<String, Value> = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let ids = |key: &str| token_ids(&map, key, vocab_size);
        self.bos_token_id = ids("bos_token_id")?.first().copied().or(self.bos_token_id);
        self.pad_token_id = ids("pad_token_id")?.first().copied().or(self.pad_token_id);
        let eos = ids("eos_token_id")?;
        if !eos.is_empty() {
            self.eos_token_ids = eos;
        }
        Ok(())
    }

    /// The file's text.
    #[must_use]
    pub fn to_json(&self) -> String {
        let value = json!({
            "_from_model_config": true,
            "bos_token_id": self.bos_token_id,
            "eos_token_id": self.eos_token_ids,
            "pad_token_id": self.pad_token_id,
        });
        let mut map = value.as_object().cloned().unwrap_or_default();
        map.retain(|_, value| !value.is_null() && value.as_array().is_none_or(|list| !list.is_empty()));
        format!("{:#}\n", Value::Object(map))
    }
}

/// One id, a list of ids, or nothing.
fn token_ids(map: &Map<String, Value>, key: &str, vocab_size: usize) -> Result<Vec<u32>, String> {
    let list = match map.get(key) {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(list)) => list.clone(),
        Some(single) => vec![single.clone()],
    };
    list.iter()
        .map(|value| {
            let id = value.as_u64().and_then(|id| u32::try_from(id).ok());
            id.filter(|id| (*id as usize) < vocab_size)
                .ok_or_else(|| format!("{key} holds {value}, which is no id of a vocabulary of {vocab_size}"))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    fn settings() -> GenerationConfig {
        GenerationConfig { bos_token_id: Some(1), eos_token_ids: vec![2, 7], pad_token_id: None }
    }

    #[test]
    fn what_is_written_is_read_back() {
        let mut read = GenerationConfig::default();
        read.overlay(&settings().to_json(), 8).unwrap();
        assert_eq!(read, settings());
        assert!(!settings().to_json().contains("pad_token_id"));
    }

    #[test]
    fn a_single_id_and_absent_keys_are_understood() {
        let mut read = settings();
        read.overlay(r#"{"eos_token_id": 3, "temperature": 0.6}"#, 8).unwrap();
        assert_eq!(read, GenerationConfig { eos_token_ids: vec![3], ..settings() });
    }

    #[test]
    fn ids_outside_the_vocabulary_are_refused() {
        let error = settings().overlay(r#"{"eos_token_id": [2, 8]}"#, 8).unwrap_err();
        assert_eq!(error, "eos_token_id holds 8, which is no id of a vocabulary of 8");
    }
}
