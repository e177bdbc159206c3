//! Files that make the tokenizers library panic, loop or fill the memory, after the published reports (tokenizers issues
//! 2060, 2094 and 2151): each ends in an error that names the file, or in a tokenizer that works.

use data_pipeline::tokenizer::{Tokenizer, TokenizerError};
use serde_json::{Value, json};

/// A small tokenizer with some of its parts replaced.
fn tokenizer(parts: &[(&str, Value)]) -> Result<Tokenizer, TokenizerError> {
    let bytes = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
    let mut file = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": bytes, "post_processor": null, "decoder": bytes,
        "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]},
    });
    for (name, part) in parts {
        file[*name] = part.clone();
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tokenizer.json");
    std::fs::write(&path, file.to_string()).unwrap();
    Tokenizer::open(&path)
}

fn refused(parts: &[(&str, Value)]) -> String {
    let error = tokenizer(parts).map(|_| ()).expect_err("it was accepted").to_string();
    assert!(error.contains("tokenizer.json: "), "{error}");
    error
}

/// Opens, and encodes and decodes texts that hostile parts trip over; all of it returns.
fn survives(parts: &[(&str, Value)]) {
    let Ok(tokenizer) = tokenizer(parts) else { return };
    for text in ["", "a", "ab ba", "السلام", &"a".repeat(20_000), &("a".repeat(40) + "!")] {
        if let Ok(ids) = tokenizer.encode(text, true) {
            _ = tokenizer.decode(&ids, false);
        }
        _ = tokenizer.encode_with_offsets(text);
        _ = tokenizer.document_encoder().encode(text, &mut Vec::new());
    }
}

#[test]
fn the_unchanged_file_works() {
    let tokenizer = tokenizer(&[]).unwrap();
    assert_eq!(tokenizer.encode("ab", true).unwrap(), [2]);
}

#[test]
fn a_merge_longer_than_any_token() {
    let model = json!({"type": "BPE", "vocab": {"aaaa": 0, "bbbb": 1, "c": 2}, "merges": ["aaaa bbbb"]});
    assert!(refused(&[("model", model)]).contains("panicked"));
}

#[test]
fn a_template_without_its_special_token() {
    let template = json!({
        "type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "[X]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}], "special_tokens": {},
    });
    survives(&[("post_processor", template)]);
}

#[test]
fn truncation_and_padding_that_contradict_themselves() {
    let truncation = json!({"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 5});
    let padding = json!({
        "strategy": {"Fixed": 1_000_000_000_u64}, "direction": "Right", "pad_to_multiple_of": 0, "pad_id": 0,
        "pad_type_id": 0, "pad_token": "a",
    });
    let tokenizer = tokenizer(&[("truncation", truncation), ("padding", padding)]);
    if let Ok(tokenizer) = tokenizer {
        assert_eq!(tokenizer.encode("ababab", true).unwrap().len(), 3);
    }
}

#[test]
fn decoders_and_cutters_beyond_their_text() {
    let strip = json!({"type": "Strip", "content": "a", "start": 1_u64 << 40, "stop": 1_u64 << 40});
    let bytes = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
    survives(&[("decoder", json!({"type": "Sequence", "decoders": [strip, bytes]}))]);
    assert!(refused(&[("pre_tokenizer", json!({"type": "FixedLength", "length": 0}))]).contains("length 0"));
}

#[test]
fn a_charsmap_that_is_none() {
    for map in ["", "AAAA", "////////////////", "QUJD"] {
        let normalizer = json!({"type": "Precompiled", "precompiled_charsmap": map});
        survives(&[("normalizer", normalizer)]);
    }
}

#[test]
fn patterns_that_backtrack_for_ever() {
    for regex in ["(a+)+$", "(a|aa)+!$", "(?=(a+))a*b\\1", "((a*)*)*c", "(?:a?){50}a{50}", "a{1000}{1000}{1000}"] {
        let pattern = json!({"Regex": regex});
        let split = json!({"type": "Split", "pattern": pattern, "behavior": "Removed", "invert": false});
        survives(&[("pre_tokenizer", split)]);
        let replace = json!({"type": "Replace", "pattern": pattern, "content": "b"});
        survives(&[("normalizer", replace)]);
    }
}

#[test]
fn texts_that_grow_without_end() {
    let step = json!({"type": "Replace", "pattern": {"String": "a"}, "content": "a".repeat(100)});
    let bomb = json!({"type": "Sequence", "normalizers": vec![step; 8]});
    assert!(refused(&[("normalizer", bomb)]).contains("times longer"));
    let unigram = json!({"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0], ["", 0.0], ["a", -1.0]]});
    let metaspace = json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "never", "split": false});
    let parts = [("model", unigram), ("decoder", metaspace), ("pre_tokenizer", Value::Null)];
    assert!(refused(&parts).contains("empty token"));
}

#[test]
fn vocabularies_that_would_fill_the_memory() {
    // The library makes a tree of the beginnings of these tokens, some hundred bytes for each letter.
    let long: Vec<Value> = (0..7_000).map(|n| json!([format!("{n}{}", "x".repeat(1000)), -1.0])).collect();
    let metaspace = json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "never", "split": false});
    let parts = |vocab: Vec<Value>| {
        let model = json!({"type": "Unigram", "unk_id": 0, "vocab": vocab});
        [("model", model), ("decoder", metaspace.clone()), ("pre_tokenizer", Value::Null)]
    };
    assert!(refused(&parts(long)).contains("different beginnings"));
    let added: Vec<Value> = (0..70_000)
        .map(|id| {
            json!({"id": id + 3, "content": format!("<{id}>"), "single_word": false, "lstrip": false, "rstrip": false,
                   "normalized": false, "special": true})
        })
        .collect();
    assert!(refused(&[("added_tokens", json!(added))]).contains("adds 70000 tokens"));
}

#[test]
fn many_large_patterns() {
    let split = json!({"type": "Split", "pattern": {"Regex": "\\p{L}{100}|\\p{L}{90}"}, "behavior": "Removed", "invert": false});
    let many = json!({"type": "Sequence", "pretokenizers": vec![split.clone(); 17]});
    assert!(refused(&[("pre_tokenizer", many)]).contains("more than 16 regular expressions"));
    survives(&[("pre_tokenizer", json!({"type": "Sequence", "pretokenizers": vec![split; 4]}))]);
}

#[test]
fn a_part_that_stands_there_twice() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tokenizer.json");
    let step = json!({"type": "Replace", "pattern": {"String": "a"}, "content": "a".repeat(100)});
    let bomb = json!({"type": "Sequence", "normalizers": vec![step; 8]});
    let file = format!(
        "{{\"version\": \"1.0\", \"normalizer\": {bomb}, \"normalizer\": null, \"model\": {{\"type\": \"BPE\", \"vocab\": {{\"a\": 0}}, \"merges\": []}}}}"
    );
    std::fs::write(&path, file).unwrap();
    let error = Tokenizer::open(&path).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("cannot be told apart"), "{error}");
}

#[test]
fn numbers_and_nesting_out_of_bounds() {
    let vocab = json!({"a": 0, "b": 4_294_967_295_u32});
    assert!(refused(&[("model", json!({"type": "BPE", "vocab": vocab, "merges": []}))]).contains("far outside"));
    let scores = json!({"type": "Unigram", "unk_id": 99, "vocab": [["a", 0.0]]});
    refused(&[("model", scores)]);
    let deep = (0..20).fold(json!({"type": "NFC"}), |inner, _| json!({"type": "Sequence", "normalizers": [inner]}));
    assert!(refused(&[("normalizer", deep)]).contains("nested"));
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tokenizer.json");
    std::fs::write(&path, "[".repeat(1 << 20)).unwrap();
    assert!(Tokenizer::open(&path).is_err());
}
