//! Owns reading a JSON object key by key; never touches what keys mean.

use serde_json::{Map, Value};

use crate::config::ConfigError;

/// Two keys that say the same thing differently.
pub(super) fn conflict(
    first: &str,
    first_value: impl ToString,
    second: &str,
    second_value: impl ToString,
) -> ConfigError {
    ConfigError::Conflict {
        first: first.into(),
        first_value: first_value.to_string(),
        second: second.into(),
        second_value: second_value.to_string(),
    }
}

/// A JSON object read key by key; `null` counts as absent, as in transformers.
pub(super) struct Keys<'a> {
    map: &'a Map<String, Value>,
    prefix: String,
    family: &'static str,
}

impl<'a> Keys<'a> {
    /// The keys of a whole configuration of `family`.
    pub(super) fn new(map: &'a Map<String, Value>, family: &'static str) -> Self {
        Self { map, prefix: String::new(), family }
    }

    /// The same keys, read for `family`.
    pub(super) fn of_family(self, family: &'static str) -> Self {
        Self { family, ..self }
    }

    /// Whether the key is there, `null` or not: where `null` and absence mean different things.
    pub(super) fn is_written(&self, key: &str) -> bool {
        self.map.contains_key(key)
    }

    pub(super) fn get(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    pub(super) fn full_name(&self, key: &str) -> String {
        if self.prefix.is_empty() { key.into() } else { format!("{}.{key}", self.prefix) }
    }

    pub(super) fn missing(&self, key: &str) -> ConfigError {
        ConfigError::Missing { key: self.full_name(key), family: self.family }
    }

    pub(super) fn found(&self, key: &str) -> String {
        let text = self.get(key).map_or_else(String::new, Value::to_string);
        let mut short: String = text.chars().take(60).collect();
        if short.len() < text.len() {
            short.push_str("...");
        }
        short
    }

    pub(super) fn wrong_type(&self, key: &str, expected: &'static str) -> ConfigError {
        ConfigError::Type { key: self.full_name(key), expected, found: self.found(key) }
    }

    pub(super) fn unsupported(&self, key: &str, supported: &str) -> ConfigError {
        ConfigError::Unsupported { key: self.full_name(key), found: self.found(key), supported: supported.into() }
    }

    pub(super) fn typed<T>(
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

    pub(super) fn size(&self, key: &str) -> Result<Option<usize>, ConfigError> {
        self.typed(key, "a whole number of at least 0", |value| value.as_u64()?.try_into().ok())
    }

    pub(super) fn number(&self, key: &str) -> Result<Option<f64>, ConfigError> {
        self.typed(key, "a number", Value::as_f64)
    }

    pub(super) fn boolean(&self, key: &str) -> Result<Option<bool>, ConfigError> {
        self.typed(key, "true or false", Value::as_bool)
    }

    pub(super) fn string(&self, key: &str) -> Result<Option<&'a str>, ConfigError> {
        self.typed(key, "a string", Value::as_str)
    }

    /// [`Keys::size`] with a default for where the key is absent; `None` where it is `null`.
    pub(super) fn size_or(&self, key: &str, absent: Option<usize>) -> Result<Option<usize>, ConfigError> {
        if self.is_written(key) { self.size(key) } else { Ok(absent) }
    }

    /// [`Keys::number`] with a default for where the key is absent; `None` where it is `null`.
    pub(super) fn number_or(&self, key: &str, absent: Option<f64>) -> Result<Option<f64>, ConfigError> {
        if self.is_written(key) { self.number(key) } else { Ok(absent) }
    }

    pub(super) fn list(&self, key: &str) -> Result<Option<&'a [Value]>, ConfigError> {
        self.typed(key, "a list", |value| value.as_array().map(Vec::as_slice))
    }

    /// The first key that is none of these.
    pub(super) fn unknown(&self, known: &[&str]) -> Option<String> {
        self.map.keys().find(|key| !known.contains(&key.as_str())).cloned()
    }

    pub(super) fn required_size(&self, key: &str) -> Result<usize, ConfigError> {
        self.size(key)?.ok_or_else(|| self.missing(key))
    }

    pub(super) fn required_number(&self, key: &str) -> Result<f64, ConfigError> {
        self.number(key)?.ok_or_else(|| self.missing(key))
    }

    pub(super) fn block(&self, key: &str) -> Result<Option<Keys<'a>>, ConfigError> {
        let map = self.typed(key, "an object", Value::as_object)?;
        Ok(map.map(|map| Keys { map, prefix: self.full_name(key), family: self.family }))
    }

    /// One id, a list of ids, or -1 for none (an older spelling).
    pub(super) fn token_ids(&self, key: &str) -> Result<Vec<u32>, ConfigError> {
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
