//! Owns what a user may ask of the filters; never touches texts.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::de::{Error, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::rule::Rule;
use crate::document::is_language_label;

/// A limit of a rule, or `off`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, JsonSchema)]
#[serde(untagged)]
#[schemars(example = 0.3)]
pub enum Limit {
    /// Texts on the wrong side of this value are dropped.
    Value(f64),
    /// The rule is not applied.
    Off(Off),
}

/// The word `off`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Off {
    /// The rule is not applied.
    Off,
}

impl<'de> Deserialize<'de> for Limit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(LimitVisitor)
    }
}

/// Tells of wrong values in the words of the file's writer, which an untagged enum cannot.
struct LimitVisitor;

impl Visitor<'_> for LimitVisitor {
    type Value = Limit;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number from 0 on, or `off`")
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Limit, E> {
        Ok(Limit::Value(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Limit, E> {
        Ok(Limit::Value(value as f64))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Limit, E> {
        Ok(Limit::Value(value as f64))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Limit, E> {
        match text {
            "off" => Ok(Limit::Off(Off::Off)),
            other => Err(E::invalid_value(Unexpected::Str(other), &self)),
        }
    }
}

impl Limit {
    /// The value, unless the rule is off.
    pub fn value(self) -> Option<f32> {
        match self {
            Limit::Value(value) => Some(value as f32),
            Limit::Off(Off::Off) => None,
        }
    }
}

/// Limits of some rules.
pub type Limits = BTreeMap<Rule, Limit>;

/// Quality filters. Every rule has a default limit for each language; what is written here replaces it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FilterConfig {
    /// Limits for all languages: `{symbols: 0.3, line_punctuation: off}`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub rules: Limits,
    /// Limits for one language, over those of `rules`: `{ary_Arab: {function_share: 0.05}}`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub languages: BTreeMap<String, Limits>,
    /// Sources of short texts such as strings of programs or single sentences (names, or globs such as `*-l10n`): only
    /// the rules of `short` apply to them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub short_sources: Vec<String>,
    /// Texts of fewer words than this are judged as short ones too. Statistics of repetition and function words say
    /// little about them. To drop short texts of the web, set `min_words` in `short`.
    #[serde(default = "default_short_below")]
    pub short_below: u32,
    /// Limits for short texts, over their defaults.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub short: Limits,
    /// Word lists by language, one word a line, for the rule `unknown_words`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub word_lists: BTreeMap<String, PathBuf>,
    /// Also leave out single lines, as C4 does: those that are no sentence, and those of cookie banners.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub clean_lines: bool,
}

impl Default for FilterConfig {
    fn default() -> Self {
        FilterConfig {
            rules: Limits::new(),
            languages: BTreeMap::new(),
            short_sources: Vec::new(),
            short_below: default_short_below(),
            short: Limits::new(),
            word_lists: BTreeMap::new(),
            clean_lines: false,
        }
    }
}

fn default_short_below() -> u32 {
    50
}

impl FilterConfig {
    /// Problems that need no file to be seen, each with its key and what to write; `key` is where this struct stands.
    pub fn validate(&self, key: &str, problems: &mut Vec<String>) {
        let mut tables = vec![(format!("{key}.rules"), &self.rules), (format!("{key}.short"), &self.short)];
        for (label, limits) in &self.languages {
            tables.push((format!("{key}.languages.{label}"), limits));
        }
        for (place, limits) in tables {
            for (rule, limit) in limits {
                if let Some(value) = limit.value().filter(|value| !value.is_finite() || *value < 0.0) {
                    problems.push(format!("{place}.{}: is {value}; write a number from 0 on, or `off`", rule.name()));
                }
            }
        }
        let named = self.languages.keys().map(|label| ("languages", label));
        for (table, label) in named.chain(self.word_lists.keys().map(|label| ("word_lists", label))) {
            if !is_language_label(label) {
                problems.push(format!(
                    "{key}.{table}.{label}: is no language label; write ISO 639-3 and ISO 15924 codes joined by `_`, for \
                     example `ary_Arab`"
                ));
            }
        }
        for pattern in &self.short_sources {
            if let Err(error) = glob::Pattern::new(pattern) {
                problems.push(format!(
                    "{key}.short_sources: `{pattern}` is not a valid glob ({}); `*`, `?` and `[a-z]` are understood",
                    error.msg
                ));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn limits_are_numbers_or_off() {
        let text =
            r#"{"rules": {"symbols": 0.3, "line_punctuation": "off"}, "languages": {"ary_Arab": {"min_words": 5}}}"#;
        let config: FilterConfig = serde_json::from_str(text).unwrap();
        assert_eq!(config.rules[&Rule::Symbols].value(), Some(0.3));
        assert_eq!(config.rules[&Rule::LinePunctuation].value(), None);
        let mut problems = Vec::new();
        config.validate("filters", &mut problems);
        assert!(problems.is_empty());
        for wrong in [r#"{"rules": {"symbol": 1}}"#, r#"{"rules": {"symbols": "on"}}"#, r#"{"gopher": true}"#] {
            assert!(serde_json::from_str::<FilterConfig>(wrong).is_err(), "{wrong}");
        }
        let wrong = r#"{"rules": {"symbols": -1}, "languages": {"Darija": {}}, "short_sources": ["a[" ]}"#;
        serde_json::from_str::<FilterConfig>(wrong).unwrap().validate("filters", &mut problems);
        assert_eq!(problems.len(), 3, "{problems:?}");
    }
}
