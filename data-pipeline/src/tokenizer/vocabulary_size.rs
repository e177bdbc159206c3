//! Owns the bounds on the vocabulary of a tokenizer.json, counted while it is passed over; never keeps a token longer than
//! the count takes.

use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// Tokens at most; the largest vocabularies in use have about a million.
const MAX_TOKENS: usize = 1 << 21;
/// Tokens beside the vocabulary at most; those in use have some thousand.
const MAX_ADDED_TOKENS: usize = 1 << 16;
/// Bytes of a token of a Unigram model, of which every place of a text is compared with all that begin there.
const MAX_UNIGRAM_BYTES: usize = 1024;
/// Nodes of the tree of prefixes that the library makes of a Unigram vocabulary. A node takes some hundred bytes; a
/// vocabulary of 900,000 tokens has about three million.
const MAX_PREFIXES: usize = 6_000_000;

/// Number of the added tokens.
#[derive(Default)]
pub(super) struct AddedTokens(usize);

/// The vocabulary of a model, as far as its size goes.
#[derive(Default)]
pub(super) struct Model {
    tokens: usize,
    /// Prefixes of the tokens of a list, and the longest of them in bytes.
    prefixes: usize,
    longest: usize,
}

impl Model {
    /// Refuses what the library would need too much memory or time for.
    ///
    /// # Errors
    /// What is too much, for a message that names the file.
    pub fn check(&self, added: &AddedTokens) -> Result<(), String> {
        if self.tokens > MAX_TOKENS {
            return Err(format!("its vocabulary has more than {MAX_TOKENS} tokens"));
        }
        if added.0 > MAX_ADDED_TOKENS {
            return Err(format!("it adds {} tokens to its vocabulary, more than {MAX_ADDED_TOKENS}", added.0));
        }
        if self.longest > MAX_UNIGRAM_BYTES {
            return Err(format!(
                "a token of {} bytes, more than the {MAX_UNIGRAM_BYTES} of a Unigram model",
                self.longest
            ));
        }
        if self.prefixes > MAX_PREFIXES {
            return Err(format!("the tokens of its vocabulary have more than {MAX_PREFIXES} different beginnings"));
        }
        Ok(())
    }

    /// Counts a list of tokens, as Unigram models have it.
    fn of_list(mut tokens: Vec<String>) -> Model {
        tokens.sort_unstable();
        let mut before: &[u8] = &[];
        let mut model = Model { tokens: tokens.len(), ..Model::default() };
        for token in &tokens {
            let shared = before.iter().zip(token.as_bytes()).take_while(|(a, b)| a == b).count();
            model.prefixes += token.len() - shared;
            model.longest = model.longest.max(token.len());
            before = token.as_bytes();
        }
        model
    }
}

impl<'de> Deserialize<'de> for AddedTokens {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let list = Option::<Vec<IgnoredAny>>::deserialize(deserializer)?;
        Ok(AddedTokens(list.map_or(0, |list| list.len())))
    }
}

impl<'de> Deserialize<'de> for Model {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ModelVisitor)
    }
}

struct ModelVisitor;

impl<'de> Visitor<'de> for ModelVisitor {
    type Value = Model;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a model")
    }

    fn visit_unit<E>(self) -> Result<Model, E> {
        Ok(Model::default())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Model, A::Error> {
        let mut model = None;
        while let Some(key) = map.next_key::<String>()? {
            if key != "vocab" {
                map.next_value::<IgnoredAny>()?;
            } else if model.replace(map.next_value::<Vocabulary>()?).is_some() {
                return Err(serde::de::Error::custom("two vocabularies"));
            }
        }
        Ok(model.map(|vocabulary| vocabulary.0).unwrap_or_default())
    }
}

struct Vocabulary(Model);

impl<'de> Deserialize<'de> for Vocabulary {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(VocabularyVisitor).map(Vocabulary)
    }
}

struct VocabularyVisitor;

impl<'de> Visitor<'de> for VocabularyVisitor {
    type Value = Model;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a vocabulary")
    }

    fn visit_unit<E>(self) -> Result<Model, E> {
        Ok(Model::default())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Model, A::Error> {
        let mut model = Model::default();
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {
            model.tokens += 1;
        }
        Ok(model)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Model, A::Error> {
        let mut tokens = Vec::new();
        while let Some((token, _)) = list.next_element::<(String, IgnoredAny)>()? {
            tokens.push(token);
            if tokens.len() > MAX_TOKENS {
                while list.next_element::<IgnoredAny>()?.is_some() {}
                return Ok(Model { tokens: tokens.len(), ..Model::default() });
            }
        }
        Ok(Model::of_list(tokens))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use serde_json::json;

    use super::*;

    fn checked(model: &serde_json::Value) -> Result<(), String> {
        serde_json::from_str::<Model>(&model.to_string()).unwrap().check(&AddedTokens::default())
    }

    fn unigram(tokens: impl Iterator<Item = String>) -> serde_json::Value {
        json!({"type": "Unigram", "vocab": tokens.map(|token| json!([token, -1.0])).collect::<Vec<_>>()})
    }

    #[test]
    fn prefixes_are_counted_once() {
        let model = Model::of_list(["ab", "abc", "abd", "x", "ab"].map(str::to_owned).to_vec());
        assert_eq!((model.tokens, model.prefixes, model.longest), (5, 5, 3));
    }

    #[test]
    fn vocabularies_of_any_kind_are_bounded() {
        checked(&json!({"type": "BPE", "vocab": {"a": 0}, "merges": []})).unwrap();
        checked(&unigram((0..1000).map(|n| format!("token{n}")))).unwrap();
        assert!(checked(&unigram(std::iter::once("a".repeat(2000)))).unwrap_err().contains("2000 bytes"));
        let wide = unigram((0..7000).map(|n| format!("{n:04}{}", "x".repeat(900))));
        assert!(checked(&wide).unwrap_err().contains("different beginnings"));
        let many = format!("{{\"vocab\": [{}[\"a\", 0]]}}", "[\"a\", 0],".repeat(MAX_TOKENS));
        let model: Model = serde_json::from_str(&many).unwrap();
        assert!(model.check(&AddedTokens::default()).unwrap_err().contains("more than 2097152 tokens"));
        assert!(Model::default().check(&AddedTokens(70_000)).unwrap_err().contains("adds 70000 tokens"));
        assert!(serde_json::from_str::<Model>(r#"{"vocab": {}, "vocab": {}}"#).is_err());
    }
}
