//! Owns what a tokenizer.json may ask of the library before the library sees it: bounds on its steps, on how much they
//! make a text grow, and on its number of values; never builds a tokenizer.
//!
//! The library's panics are fenced, but a step that makes a text grow a thousand times, repeated, exhausts the memory,
//! and that no fence stops.

use serde::Deserialize;
use serde_json::Value;
use serde_json::error::Category;

use super::vocabulary_size::{AddedTokens, Model};

/// Values of a tokenizer.json at most. The largest in use have about two million.
const MAX_VALUES: usize = 8_000_000;
/// Steps of all its parts together at most, and how deep they may be nested.
const MAX_STEPS: usize = 256;
const MAX_DEPTH: usize = 16;
/// Bytes that a step puts in at one place.
const MAX_INSERTED_BYTES: usize = 1024;
/// How many times its steps may make a text longer. SentencePiece's `▁` for a space makes it three.
const MAX_GROWTH: usize = 256;
/// Tokens that are put around a text.
const MAX_TEMPLATE_TOKENS: usize = 1024;
/// Longest regular expression in bytes; the longest in use have about 500.
const MAX_PATTERN_BYTES: usize = 16 * 1024;
/// Regular expressions at most: each may take tens of megabytes. Those in use have up to five.
const MAX_PATTERNS: usize = 16;

/// The parts in which steps are written, and the sizes of the vocabulary.
#[derive(Deserialize)]
struct Parts {
    #[serde(default)]
    normalizer: Value,
    #[serde(default)]
    pre_tokenizer: Value,
    #[serde(default)]
    post_processor: Value,
    #[serde(default)]
    decoder: Value,
    #[serde(default)]
    added_tokens: AddedTokens,
    #[serde(default)]
    model: Model,
}

/// Refuses what would take too much memory or time.
///
/// # Errors
/// What is wrong, for a message that names the file.
pub(super) fn check(bytes: &[u8]) -> Result<(), String> {
    let values = bytes.iter().filter(|&&b| matches!(b, b',' | b'[' | b'{')).count();
    if values > MAX_VALUES {
        return Err(format!("it has {values} values, more than the {MAX_VALUES} of any tokenizer"));
    }
    let parts = match serde_json::from_slice::<Parts>(bytes) {
        Ok(parts) => parts,
        // A part that stands there twice is one that the library may read and this did not.
        Err(error) if error.classify() == Category::Data && bytes.trim_ascii_start().starts_with(b"{") => {
            return Err(format!("its parts cannot be told apart ({error})"));
        }
        // What is no JSON, or no object, the library refuses with a better message.
        Err(_) => return Ok(()),
    };
    parts.model.check(&parts.added_tokens)?;
    let mut budget = Budget { steps: 0, growth: 1, patterns: 0 };
    for (name, part) in [("normalizer", &parts.normalizer), ("pre_tokenizer", &parts.pre_tokenizer)] {
        budget.visit(name, part, 0)?;
    }
    budget.growth = 1;
    budget.visit("decoder", &parts.decoder, 0)?;
    budget.visit("post_processor", &parts.post_processor, 0)
}

struct Budget {
    steps: usize,
    growth: usize,
    patterns: usize,
}

impl Budget {
    fn visit(&mut self, part: &str, value: &Value, depth: usize) -> Result<(), String> {
        if depth > MAX_DEPTH {
            return Err(format!("its {part} is nested more than {MAX_DEPTH} deep"));
        }
        match value {
            Value::Array(items) => items.iter().try_for_each(|item| self.visit(part, item, depth + 1)),
            Value::Object(object) => {
                if let Some(kind) = object.get("type").and_then(Value::as_str) {
                    self.step(part, kind, value)?;
                }
                let below = ["normalizers", "pretokenizers", "processors", "decoders"];
                below.iter().filter_map(|key| object.get(*key)).try_for_each(|items| self.visit(part, items, depth + 1))
            }
            _ => Ok(()),
        }
    }

    fn step(&mut self, part: &str, kind: &str, step: &Value) -> Result<(), String> {
        self.steps += 1;
        if self.steps > MAX_STEPS {
            return Err(format!("it has more than {MAX_STEPS} steps"));
        }
        let text = |key: &str| step.get(key).and_then(Value::as_str).unwrap_or_default();
        let pattern = |key: &str| step.get("pattern").and_then(|p| p.get(key)).and_then(Value::as_str);
        if pattern("Regex").is_some_and(|regex| regex.len() > MAX_PATTERN_BYTES) {
            return Err(format!("a pattern of its {part} is longer than {MAX_PATTERN_BYTES} bytes"));
        }
        self.patterns += usize::from(pattern("Regex").is_some());
        if self.patterns > MAX_PATTERNS {
            return Err(format!("it has more than {MAX_PATTERNS} regular expressions"));
        }
        let inserted = text("content").len().max(text("prepend").len()).max(text("replacement").len());
        if inserted > MAX_INSERTED_BYTES {
            return Err(format!("a step of its {part} inserts {inserted} bytes at a place"));
        }
        match kind {
            "Replace" => {
                // An empty match at every place inserts its content there.
                let replaced = pattern("String").map_or(0, str::len);
                let growth = if replaced == 0 { inserted + 1 } else { inserted.div_ceil(replaced).max(1) };
                // A pattern that is a regular expression matches at least one character, as far as can be known.
                let growth = if pattern("Regex").is_some() { growth.min(inserted.max(1)) } else { growth };
                self.grow(part, growth)
            }
            "ByteLevel" => self.grow(part, 2),
            "Metaspace" => self.grow(part, inserted.max(1)),
            "FixedLength" if step.get("length").and_then(Value::as_u64) == Some(0) => {
                Err(format!("its {part} cuts pieces of length 0"))
            }
            "TemplateProcessing" => {
                let tokens = |key: &str| step.get(key).and_then(Value::as_array).map_or(0, Vec::len);
                let special = step.get("special_tokens").and_then(Value::as_object);
                let ids = |token: &Value| token.get("ids").and_then(Value::as_array).map_or(0, Vec::len);
                let longest = special.into_iter().flat_map(|all| all.values()).map(ids).max().unwrap_or(0);
                let most = tokens("single").max(tokens("pair"));
                if most.saturating_mul(longest.max(1)) > MAX_TEMPLATE_TOKENS {
                    return Err(format!("its {part} puts more than {MAX_TEMPLATE_TOKENS} tokens around a text"));
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn grow(&mut self, part: &str, times: usize) -> Result<(), String> {
        self.growth = self.growth.saturating_mul(times);
        if self.growth > MAX_GROWTH {
            return Err(format!("its {part} makes a text more than {MAX_GROWTH} times longer"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use serde_json::json;

    use super::*;

    fn checked(part: &str, value: Value) -> Result<(), String> {
        check(json!({ part: value, "model": {"type": "BPE", "vocab": {}, "merges": []} }).to_string().as_bytes())
    }

    fn replace(from: &str, to: &str) -> Value {
        json!({"type": "Replace", "pattern": {"String": from}, "content": to})
    }

    #[test]
    fn steps_of_known_tokenizers_pass() {
        let llama = json!([{"type": "Prepend", "prepend": "▁"}, replace(" ", "▁")]);
        checked("normalizer", json!({"type": "Sequence", "normalizers": llama})).unwrap();
        let split = json!({"type": "Split", "pattern": {"Regex": "a|b+"}, "behavior": "Isolated", "invert": false});
        let bytes = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false});
        checked("pre_tokenizer", json!({"type": "Sequence", "pretokenizers": [split, bytes]})).unwrap();
        check(b"no json").unwrap();
        check(b"[1, 2]").unwrap();
    }

    #[test]
    fn growth_is_bounded_however_it_is_written() {
        let sequence = |steps: Vec<Value>| json!({"type": "Sequence", "normalizers": steps});
        let doubling = vec![replace("a", "aa"); 30];
        assert!(checked("normalizer", sequence(doubling.clone())).unwrap_err().contains("times longer"));
        let nested =
            doubling.into_iter().reduce(|inner, step| json!({"type": "Sequence", "normalizers": [inner, step]}));
        assert!(checked("normalizer", nested.unwrap()).is_err());
        assert!(checked("normalizer", replace("a", &"a".repeat(2000))).unwrap_err().contains("inserts 2000 bytes"));
        assert!(checked("normalizer", sequence(vec![replace("", "aaaa"); 4])).is_err());
        let regex = json!({"type": "Replace", "pattern": {"Regex": "."}, "content": "aaaaaaaaaaaaaaaaaaaa"});
        assert!(checked("normalizer", sequence(vec![regex; 2])).is_err());
        assert!(checked("decoder", json!({"type": "Sequence", "decoders": vec![replace("a", "aa"); 30]})).is_err());
    }

    #[test]
    fn other_parts_are_bounded() {
        let many = json!({"type": "Sequence", "normalizers": vec![json!({"type": "NFC"}); 300]});
        assert!(checked("normalizer", many).unwrap_err().contains("more than 256 steps"));
        let fixed = json!({"type": "FixedLength", "length": 0});
        assert!(checked("pre_tokenizer", fixed).unwrap_err().contains("length 0"));
        let token = json!({"SpecialToken": {"id": "x", "type_id": 0}});
        let special = json!({"x": {"id": "x", "ids": vec![0; 2000], "tokens": ["x"]}});
        let template = json!({"type": "TemplateProcessing", "single": [token], "pair": [], "special_tokens": special});
        assert!(checked("post_processor", template).unwrap_err().contains("around a text"));
        let zeros = format!("{{\"model\": [{}0]}}", "0,".repeat(MAX_VALUES + 1));
        assert!(check(zeros.as_bytes()).unwrap_err().contains("values"));
    }
}
