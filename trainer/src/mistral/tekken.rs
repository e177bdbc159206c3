//! Owns `tekken.json`, made of a byte-level tokenizer.json and turned back into one; never touches files.
//!
//! A Tekken vocabulary has special tokens first, then all 256 bytes in order, then entries in the order in which they
//! were learned; a pair is merged when its bytes are an entry, the earliest entry first.

use std::collections::HashMap;

use data_pipeline::tokenizer::alphabet::{byte_to_char, char_to_byte};
use serde_json::{Map, Value, json};

use super::byte_order::ByteOrder;

/// Roles of special tokens in mistral-common, which looks for them by these names.
const ROLES: [(&str, &str); 4] =
    [("bos_token", "<s>"), ("eos_token", "</s>"), ("unk_token", "<unk>"), ("pad_token", "<pad>")];
/// The first version whose files list their special tokens.
const VERSION: &str = "v7";
const GPT_2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
const NUM_BYTES: usize = 256;

/// The `tekken.json` of a tokenizer.json with the roles of its tokenizer_config.json. Ids of single bytes may change.
///
/// # Errors
/// Why this tokenizer has no such form.
pub fn from_hub(hub: &Value, roles: &Map<String, Value>) -> Result<Value, String> {
    let model = &hub["model"];
    if model["type"] != json!("BPE") || hub["decoder"]["type"] != json!("ByteLevel") {
        return Err("only byte-level BPE has a form in tekken.json".into());
    }
    if !hub["normalizer"].is_null() {
        return Err("tekken.json knows no normalizer".into());
    }
    let pattern = pattern(&hub["pre_tokenizer"])?;
    let specials = specials(hub, roles)?;
    let vocabulary = vocabulary(model, specials.len())?;
    let entries: Vec<Value> = vocabulary
        .iter()
        .enumerate()
        .map(|(rank, bytes)| {
            let text = std::str::from_utf8(bytes).ok();
            json!({"rank": rank, "token_bytes": base64(bytes), "token_str": text})
        })
        .collect();
    Ok(json!({
        "config": {
            "pattern": pattern,
            "num_vocab_tokens": entries.len(),
            "default_vocab_size": entries.len() + specials.len(),
            "default_num_special_tokens": specials.len(),
            "version": VERSION,
        },
        "vocab": entries,
        "special_tokens": specials,
        "type": "tekken",
        "version": 1,
    }))
}

fn pattern(pre_tokenizer: &Value) -> Result<String, String> {
    let own = [pre_tokenizer.clone()];
    let steps = pre_tokenizer["pretokenizers"].as_array().map_or(own.as_slice(), Vec::as_slice);
    match steps {
        [byte_level] if byte_level["type"] == json!("ByteLevel") && byte_level["use_regex"] != json!(false) => {
            Ok(GPT_2.into())
        }
        [split, byte_level]
            if split["behavior"] == json!("Isolated")
                && split["invert"] == json!(false)
                && byte_level["type"] == json!("ByteLevel")
                && byte_level["use_regex"] == json!(false) =>
        {
            let pattern = split["pattern"]["Regex"].as_str();
            pattern.map(str::to_owned).ok_or_else(|| "its pattern is no regular expression".into())
        }
        _ => Err("it does not cut text by one pattern".into()),
    }
}

fn specials(hub: &Value, roles: &Map<String, Value>) -> Result<Vec<Value>, String> {
    let name = |role: &str| roles.get(role).and_then(|token| token.as_str().or_else(|| token["content"].as_str()));
    let mut list = Vec::new();
    for added in hub["added_tokens"].as_array().into_iter().flatten() {
        let content = added["content"].as_str().unwrap_or_default();
        if added["id"].as_u64() != Some(list.len() as u64) {
            return Err(format!(
                "special tokens must have the first ids, but {content:?} has id {} (tokenizers that Jazari trains do)",
                added["id"]
            ));
        }
        let role = ROLES.into_iter().find(|(role, _)| name(role) == Some(content));
        let text = role.map_or(content, |(_, text)| text);
        list.push(json!({"rank": list.len(), "token_str": text, "is_control": added["special"]}));
    }
    if list.is_empty() {
        return Err("it has no special tokens".into());
    }
    Ok(list)
}

/// Which ids change because Tekken numbers the bytes by their value; `None` when they are numbered so already.
///
/// # Errors
/// As [`from_hub`].
pub(super) fn byte_order(hub: &Value, roles: &Map<String, Value>) -> Result<Option<ByteOrder>, String> {
    let num_specials = specials(hub, roles)?.len();
    let mut places = vec![0; NUM_BYTES];
    for (place, entry) in entries(&hub["model"], num_specials)?.iter().take(NUM_BYTES).enumerate() {
        if let Some(slot) = entry.first().and_then(|byte| places.get_mut(usize::from(*byte))) {
            *slot = place;
        }
    }
    Ok(ByteOrder::new(num_specials, &places))
}

/// The bytes of every entry after the special tokens, by rank; the single bytes by their value.
fn vocabulary(model: &Value, num_specials: usize) -> Result<Vec<Vec<u8>>, String> {
    let mut list = entries(model, num_specials)?;
    let bytes = list.get_mut(..NUM_BYTES).ok_or("it has no entry for each of the 256 bytes")?;
    bytes.sort();
    let complete = bytes.iter().enumerate().all(|(i, b)| *b == [i as u8]);
    if complete { Ok(list) } else { Err("the 256 bytes do not come first".into()) }
}

/// The bytes of every entry after the special tokens, by id.
fn entries(model: &Value, num_specials: usize) -> Result<Vec<Vec<u8>>, String> {
    let map = model["vocab"].as_object().ok_or("it has no vocabulary")?;
    let mut list: Vec<Option<Vec<u8>>> = Vec::new();
    for (token, id) in map {
        let id = id.as_u64().unwrap_or(u64::MAX) as usize;
        let Some(rank) = id.checked_sub(num_specials) else { continue };
        if rank >= map.len() {
            return Err(format!("id {id} leaves a gap in the vocabulary"));
        }
        let bytes: Option<Vec<u8>> = token.chars().map(char_to_byte).collect();
        let bytes = bytes.ok_or_else(|| format!("entry {token:?} is not byte-level"))?;
        list.resize(list.len().max(rank + 1), None);
        if let Some(slot) = list.get_mut(rank) {
            *slot = Some(bytes);
        }
    }
    let list: Option<Vec<Vec<u8>>> = list.into_iter().collect();
    list.ok_or_else(|| "its ids have gaps".into())
}

/// tokenizer.json and tokenizer_config.json of a `tekken.json`.
///
/// # Errors
/// What is missing or contradicts itself.
pub fn to_hub(tekken: &Value) -> Result<(Value, Value), String> {
    let pattern = tekken["config"]["pattern"].as_str().ok_or("config.pattern is missing")?;
    let size = |key: &str| tekken["config"][key].as_u64().and_then(|size| usize::try_from(size).ok());
    let num_specials = size("default_num_special_tokens").ok_or("config.default_num_special_tokens is missing")?;
    let total = size("default_vocab_size").ok_or("config.default_vocab_size is missing")?;
    let stored = tekken["vocab"].as_array().ok_or("vocab is missing")?;
    let num_entries = total.checked_sub(num_specials).filter(|entries| *entries <= stored.len());
    let num_entries = num_entries.ok_or("config.default_vocab_size does not fit vocab")?;
    let (mut vocabulary, mut ranks, mut entries) = (Map::new(), HashMap::new(), Vec::new());
    for (rank, entry) in stored.iter().take(num_entries).enumerate() {
        let bytes = entry["token_bytes"].as_str().and_then(from_base64);
        let bytes = bytes.ok_or_else(|| format!("vocab entry {rank} has no bytes"))?;
        let spelled: String = bytes.iter().map(|byte| byte_to_char(*byte)).collect();
        vocabulary.insert(spelled, json!(rank + num_specials));
        ranks.insert(bytes.clone(), rank);
        entries.push(bytes);
    }
    let added = added_tokens(tekken, num_specials)?;
    // In the vocabulary too: the library gives new ids to those that are not.
    for token in &added {
        vocabulary.insert(token["content"].as_str().unwrap_or_default().to_owned(), token["id"].clone());
    }
    let role = |text: &str| added.iter().any(|token| token["content"] == json!(text)).then(|| json!(text));
    let config: Map<String, Value> =
        ROLES.into_iter().filter_map(|(name, text)| Some((name.to_owned(), role(text)?))).collect();
    let config = [("tokenizer_class".to_owned(), json!("PreTrainedTokenizerFast"))].into_iter().chain(config).collect();
    let bos = added.iter().find(|token| token["content"] == json!("<s>"));
    let frame = bos.map(|token| {
        let piece = json!({"SpecialToken": {"id": "<s>", "type_id": 0}});
        let single = json!([piece, {"Sequence": {"id": "A", "type_id": 0}}]);
        let known = json!({"<s>": {"id": "<s>", "ids": [token["id"]], "tokens": ["<s>"]}});
        json!({"type": "TemplateProcessing", "single": single, "pair": single, "special_tokens": known})
    });
    let byte_level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false});
    let split = json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false});
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": null,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, byte_level]},
        "post_processor": frame, "decoder": byte_level,
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
            // A whole word that is an entry is taken as it is.
            "ignore_merges": true, "vocab": vocabulary, "merges": merges(&entries, &ranks)},
    });
    Ok((tokenizer, Value::Object(config)))
}

fn added_tokens(tekken: &Value, num_specials: usize) -> Result<Vec<Value>, String> {
    let listed = tekken["special_tokens"].as_array().ok_or("special_tokens is missing (a file older than v7)")?;
    if listed.len() > num_specials || num_specials > NUM_BYTES * NUM_BYTES {
        return Err(format!("{} special tokens do not fit into {num_specials}", listed.len()));
    }
    let filler = |rank: usize| format!("<SPECIAL_{rank}>");
    let token = |rank: usize| {
        let content = listed.get(rank).and_then(|token| token["token_str"].as_str()).map(str::to_owned);
        json!({"id": rank, "content": content.unwrap_or_else(|| filler(rank)), "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": false, "special": true})
    };
    Ok((0..num_specials).map(token).collect())
}

/// Every way of making an entry of two others, entries in order.
fn merges(entries: &[Vec<u8>], ranks: &HashMap<Vec<u8>, usize>) -> Vec<Value> {
    let spell = |bytes: &[u8]| -> String { bytes.iter().map(|byte| byte_to_char(*byte)).collect() };
    let mut list = Vec::new();
    for entry in entries.iter().filter(|entry| entry.len() > 1) {
        let mut ways: Vec<(usize, usize, usize)> = (1..entry.len())
            .filter_map(|at| {
                let (left, right) = entry.split_at_checked(at)?;
                Some((*ranks.get(left)?, *ranks.get(right)?, at))
            })
            .collect();
        ways.sort_unstable();
        for (.., at) in ways {
            let (left, right) = entry.split_at_checked(at).unwrap_or_default();
            list.push(json!(format!("{} {}", spell(left), spell(right))));
        }
    }
    list
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// RFC 4648, with padding.
fn base64(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let at = |i: usize| u32::from(chunk.get(i).copied().unwrap_or_default());
        let word = at(0) << 16 | at(1) << 8 | at(2);
        for place in 0..4 {
            let digit = ALPHABET[(word >> (18 - 6 * place)) as usize & 63];
            text.push(if place <= chunk.len() { char::from(digit) } else { '=' });
        }
    }
    text
}

fn from_base64(text: &str) -> Option<Vec<u8>> {
    let digits = text.trim_end_matches('=');
    let mut bytes = Vec::new();
    let (mut word, mut bits) = (0_u32, 0);
    for digit in digits.bytes() {
        let value = ALPHABET.iter().position(|known| *known == digit)?;
        word = word << 6 | value as u32;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push((word >> bits) as u8);
            word &= (1 << bits) - 1;
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn base64_is_that_of_the_standard() {
        for (bytes, text) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")] {
            assert_eq!(base64(bytes.as_bytes()), text);
            assert_eq!(from_base64(text).unwrap(), bytes.as_bytes());
        }
        assert_eq!(from_base64("Zg\n"), None);
    }

    proptest! {
        #[test]
        fn base64_keeps_every_byte(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            prop_assert_eq!(from_base64(&base64(&bytes)).unwrap(), bytes);
        }
    }
}
