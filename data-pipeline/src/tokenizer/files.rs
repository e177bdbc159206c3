//! Owns the files of a trained tokenizer as other programs read them; never touches the disk.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::alphabet::byte_to_char;
use super::merges::Pair;
use super::pattern::PATTERN;

/// Begins every document.
pub const BOS_TOKEN: &str = "<|begin_of_text|>";
/// Ends every document.
pub const EOS_TOKEN: &str = "<|end_of_text|>";
/// Fills the end of short rows.
pub const PAD_TOKEN: &str = "<|pad|>";

/// The special tokens of trained tokenizers, which have the first ids: document bounds, padding, turns of a chat, and
/// eleven without meaning so far.
pub const SPECIAL_TOKENS: [&str; 16] = [
    BOS_TOKEN,
    EOS_TOKEN,
    PAD_TOKEN,
    "<|im_start|>",
    "<|im_end|>",
    "<|reserved_0|>",
    "<|reserved_1|>",
    "<|reserved_2|>",
    "<|reserved_3|>",
    "<|reserved_4|>",
    "<|reserved_5|>",
    "<|reserved_6|>",
    "<|reserved_7|>",
    "<|reserved_8|>",
    "<|reserved_9|>",
    "<|reserved_10|>",
];

/// File name of the tokenizer itself.
pub const TOKENIZER_FILE: &str = "tokenizer.json";
/// File name of the special tokens' roles and the chat template.
pub const CONFIG_FILE: &str = "tokenizer_config.json";
/// File name of the special tokens' roles for older readers.
pub const SPECIAL_TOKENS_FILE: &str = "special_tokens_map.json";

/// `model_max_length` of a tokenizer that no model limits yet; an export writes the model's.
const UNLIMITED: u64 = 1_000_000_000;

/// Writes all files of a vocabulary whose first entries are [`SPECIAL_TOKENS`].
pub(crate) fn render(pieces: &[Vec<u8>], merges: &[Pair]) -> BTreeMap<&'static str, Vec<u8>> {
    BTreeMap::from([
        (TOKENIZER_FILE, pretty(&tokenizer(pieces, merges))),
        (CONFIG_FILE, pretty(&config())),
        (SPECIAL_TOKENS_FILE, pretty(&roles())),
    ])
}

fn pretty(value: &Value) -> Vec<u8> {
    format!("{value:#}\n").into_bytes()
}

fn roles() -> Value {
    json!({"bos_token": BOS_TOKEN, "eos_token": EOS_TOKEN, "pad_token": PAD_TOKEN})
}

fn config() -> Value {
    let flags = |content: &&str| {
        json!({
            "content": content, "lstrip": false, "normalized": false, "rstrip": false, "single_word": false, "special": true,
        })
    };
    let decoder: Map<String, Value> =
        SPECIAL_TOKENS.iter().enumerate().map(|(id, token)| (id.to_string(), flags(token))).collect();
    json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": UNLIMITED,
        "clean_up_tokenization_spaces": false,
        "bos_token": BOS_TOKEN,
        "eos_token": EOS_TOKEN,
        "pad_token": PAD_TOKEN,
        "added_tokens_decoder": decoder,
    })
}

fn tokenizer(pieces: &[Vec<u8>], merges: &[Pair]) -> Value {
    let spell = |id: u32| -> String {
        let piece = pieces.get(id as usize).map(Vec::as_slice).unwrap_or_default();
        piece.iter().map(|&byte| byte_to_char(byte)).collect()
    };
    let special = SPECIAL_TOKENS.iter().map(|token| (*token).to_owned());
    let learned = (SPECIAL_TOKENS.len()..pieces.len()).map(|id| spell(id as u32));
    let vocabulary: Map<String, Value> = special.chain(learned).zip(0_u64..).map(|(s, id)| (s, id.into())).collect();
    // Pairs as one string with a space are read by every version of the library; lists only since 0.20.
    let merges: Vec<Value> = merges.iter().map(|&(a, b)| format!("{} {}", spell(a), spell(b)).into()).collect();
    let added: Vec<Value> = SPECIAL_TOKENS
        .iter()
        .enumerate()
        .map(|(id, token)| {
            json!({
                "id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": true,
            })
        })
        .collect();
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": null,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": PATTERN}, "behavior": "Isolated", "invert": false},
                {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false},
            ],
        },
        "post_processor": begin_with_bos(),
        "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false},
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
            "vocab": vocabulary,
            "merges": merges,
        },
    })
}

fn begin_with_bos() -> Value {
    let bos = json!({"SpecialToken": {"id": BOS_TOKEN, "type_id": 0}});
    let sequence = |id: &str, type_id: u8| json!({"Sequence": {"id": id, "type_id": type_id}});
    json!({
        "type": "TemplateProcessing",
        "single": [bos, sequence("A", 0)],
        "pair": [bos, sequence("A", 0), {"SpecialToken": {"id": BOS_TOKEN, "type_id": 1}}, sequence("B", 1)],
        "special_tokens": {BOS_TOKEN: {"id": BOS_TOKEN, "ids": [0], "tokens": [BOS_TOKEN]}},
    })
}
