//! Owns how layers are named by patterns; never touches models.

use std::borrow::Cow;
use std::fmt;

use fancy_regex::{Regex, RegexBuilder};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::AdapterFileError;

/// What PEFT writes for every linear layer.
const ALL_LINEAR: &str = "all-linear";
/// Longest pattern that is read, bytes.
const MAX_PATTERN_BYTES: usize = 4096;
/// Steps after which matching one name is given up: a pattern must not be able to hang a run.
const MAX_MATCH_STEPS: usize = 100_000;

/// Linear layers, as configurations name them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Targets {
    /// Every linear layer of the blocks.
    AllLinear,
    /// Those whose names are these or end in `.` and one of these.
    Endings(Vec<String>),
    /// Those whose whole names a regular expression matches.
    Pattern(String),
}

impl Targets {
    /// The names among `known` that are meant, in their order; `key` is where the targets were written.
    ///
    /// # Errors
    /// [`AdapterFileError::Settings`] where a name or pattern means none of them.
    pub(super) fn select(&self, known: &[String], key: &'static str) -> Result<Vec<String>, AdapterFileError> {
        let wrong = |what: String| Err(AdapterFileError::Settings { key, what });
        let there_are = || format!("the model's linear layers are {}", endings(known).join(", "));
        match self {
            Self::AllLinear => Ok(known.to_vec()),
            Self::Endings(wanted) if wanted.is_empty() => wrong(format!("no layer is named; {}", there_are())),
            Self::Endings(wanted) => {
                if let Some(none) = wanted.iter().find(|ending| !known.iter().any(|name| has_suffix(name, ending))) {
                    let hint = if none == "lm_head" || none == "embed_tokens" {
                        "; embedding and head are trained whole: name them in `lora_modules_to_save`"
                    } else {
                        ""
                    };
                    return wrong(format!("no linear layer's name ends in `{none}`; {}{hint}", there_are()));
                }
                let meant = |name: &&String| wanted.iter().any(|ending| has_suffix(name, ending));
                Ok(known.iter().filter(meant).cloned().collect())
            }
            Self::Pattern(text) => {
                let regex = pattern(&format!("^(?:{text})$"), text, key)?;
                let found: Vec<String> = known.iter().filter(|name| matches_end(&regex, name)).cloned().collect();
                if found.is_empty() {
                    let first = known.first().map(String::as_str).unwrap_or_default();
                    let what = format!("`{text}` matches no linear layer as a whole (the first is `{first}`)");
                    return wrong(format!("{what}; {}", there_are()));
                }
                Ok(found)
            }
        }
    }
}

/// Whether a name is `ending` or ends in `.` and it.
pub(super) fn has_suffix(name: &str, ending: &str) -> bool {
    name.strip_suffix(ending).is_some_and(|rest| rest.is_empty() || rest.ends_with('.')) && !ending.is_empty()
}

/// The different last parts of names, in order.
pub(super) fn endings(names: &[String]) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for name in names {
        let ending = name.rsplit('.').next().unwrap_or(name).to_owned();
        if !ending.is_empty() && !found.contains(&ending) {
            found.push(ending);
        }
    }
    found
}

/// A regular expression in Python's syntax, bounded in size and time.
pub(super) fn pattern(whole: &str, text: &str, key: &'static str) -> Result<Regex, AdapterFileError> {
    let wrong = |what: String| AdapterFileError::Settings { key, what };
    if text.len() > MAX_PATTERN_BYTES {
        return Err(wrong(format!("a pattern of {} bytes is longer than {MAX_PATTERN_BYTES}", text.len())));
    }
    let built = RegexBuilder::new(whole).backtrack_limit(MAX_MATCH_STEPS).delegate_size_limit(1 << 20).build();
    built.map_err(|error| wrong(format!("`{text}` is no regular expression: {error}")))
}

/// Whether a pattern that is anchored at both ends matches; one that takes too long does not.
pub(super) fn matches_end(regex: &Regex, name: &str) -> bool {
    regex.is_match(name).unwrap_or(false)
}

impl Serialize for Targets {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::AllLinear => serializer.serialize_str(ALL_LINEAR),
            Self::Pattern(text) => serializer.serialize_str(text),
            Self::Endings(names) => names.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Targets {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Targets;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of layer names, a regular expression or `all-linear`")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Targets, E> {
                Ok(if text == ALL_LINEAR { Targets::AllLinear } else { Targets::Pattern(text.to_owned()) })
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Targets, A::Error> {
                let mut names = Vec::new();
                while let Some(name) = items.next_element::<String>()? {
                    names.push(name);
                }
                Ok(Targets::Endings(names))
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl JsonSchema for Targets {
    fn schema_name() -> Cow<'static, str> {
        "LayerNames".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "Layer names, a regular expression for whole names, or `all-linear`.",
            "anyOf": [{ "type": "array", "items": { "type": "string" } }, { "type": "string" }],
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    fn known() -> Vec<String> {
        let layer = |layer: usize| {
            ["self_attn.q_proj", "self_attn.v_proj", "mlp.up_proj"].map(|part| format!("model.layers.{layer}.{part}"))
        };
        (0..12).flat_map(layer).collect()
    }

    fn selected(yaml: serde_json::Value) -> Result<Vec<String>, String> {
        let targets: Targets = serde_json::from_value(yaml).unwrap();
        targets.select(&known(), "lora_target_modules").map_err(|error| error.to_string())
    }

    #[test]
    fn names_patterns_and_all() {
        assert_eq!(selected("all-linear".into()).unwrap().len(), 36);
        assert_eq!(selected(vec!["q_proj", "mlp.up_proj"].into()).unwrap().len(), 24);
        assert_eq!(selected(vec!["1.self_attn.q_proj"].into()).unwrap(), ["model.layers.1.self_attn.q_proj"]);
        assert_eq!(selected(r".*\.[23]\..*q_proj".into()).unwrap().len(), 2);
        assert_eq!(selected(r"model\.layers\.(?!1\.).*v_proj".into()).unwrap().len(), 11);
    }

    #[test]
    fn what_means_nothing_is_refused_and_says_what_there_is() {
        let none = selected(vec!["q_proj", "k_proj"].into()).unwrap_err();
        assert!(none.contains("no linear layer's name ends in `k_proj`"), "{none}");
        assert!(none.contains("the model's linear layers are q_proj, v_proj, up_proj"), "{none}");
        assert!(selected(vec!["proj"].into()).is_err(), "only whole parts of a name count");
        assert!(selected(vec![""].into()).is_err());
        assert!(selected(serde_json::json!([])).unwrap_err().contains("no layer is named"));
        assert!(selected(vec!["lm_head"].into()).unwrap_err().contains("lora_modules_to_save"));
        assert!(selected("q_proj".into()).unwrap_err().contains("matches no linear layer as a whole"));
        assert!(selected("(".into()).unwrap_err().contains("no regular expression"));
        assert!(selected("x".repeat(5000).into()).unwrap_err().contains("longer than 4096"));
    }

    #[test]
    fn a_pattern_cannot_hang() {
        let refused = selected(r"(?:(?:[a-z_.0-9]+)+)+(?=!)\1?x".into());
        assert!(refused.is_err());
    }

    #[test]
    fn targets_survive_being_written() {
        for value in [serde_json::json!("all-linear"), serde_json::json!(["a", "b"]), serde_json::json!(".*q")] {
            let targets: Targets = serde_json::from_value(value.clone()).unwrap();
            assert_eq!(serde_json::to_value(targets).unwrap(), value);
        }
    }
}
