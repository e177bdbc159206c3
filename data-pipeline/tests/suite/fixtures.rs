//! The tokenizers and chat templates of the reference bundles give what transformers gave.

use std::path::{Path, PathBuf};

use crate::support;
use data_pipeline::tokenizer::Tokenizer;
use data_pipeline::tokenizer::chat::{ChatError, ChatTemplate, RenderOptions};
use serde_json::Value;

const FAMILIES: [&str; 11] = [
    "llama",
    "llama_rope3",
    "llama_bf16",
    "llama_sharded",
    "mistral",
    "mixtral",
    "qwen2",
    "qwen3",
    "gemma2",
    "gemma3",
    "gpt2",
];

fn cases(bundle: &Path) -> Value {
    let json = std::fs::read(bundle.join("expected/tokenizer_cases.json")).unwrap();
    serde_json::from_slice(&json).unwrap()
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

fn bundles() -> Vec<PathBuf> {
    let Some(root) = support::shared("fixtures") else { return Vec::new() };
    FAMILIES.iter().map(|family| root.join(family)).collect()
}

#[test]
fn texts_encode_and_decode_as_in_transformers() {
    for bundle in bundles() {
        let tokenizer = Tokenizer::open(&bundle.join("hf")).unwrap();
        let mut count = 0;
        for case in cases(&bundle)["encode"].as_array().unwrap() {
            let text = case["text"].as_str().unwrap();
            let name = format!("{}: {text:?}", bundle.display());
            let (with, without) = (ids(&case["ids"]), ids(&case["ids_no_special"]));
            assert_eq!(tokenizer.encode(text, true).unwrap(), with, "{name}");
            assert_eq!(tokenizer.encode(text, false).unwrap(), without, "{name}");
            assert_eq!(tokenizer.decode(&without, false).unwrap(), case["decoded"].as_str().unwrap(), "{name}");
            assert_eq!(tokenizer.decode(&with, true).unwrap(), case["decoded_skip"].as_str().unwrap(), "{name}");
            count += 1;
        }
        assert!(count >= 30, "{}: {count} cases", bundle.display());
    }
}

#[test]
fn documents_encode_like_texts_unless_they_spell_special_tokens() {
    for bundle in bundles() {
        let tokenizer = Tokenizer::open(&bundle.join("hf")).unwrap();
        let mut encoder = tokenizer.document_encoder();
        let mut seen = 0;
        for case in cases(&bundle)["encode"].as_array().unwrap() {
            let text = case["text"].as_str().unwrap();
            let mut found = Vec::new();
            encoder.encode(text, &mut found).unwrap();
            let special = tokenizer.token_bytes();
            let expected = ids(&case["ids_no_special"]);
            if expected.iter().all(|&id| special[id as usize] > 0) {
                assert_eq!(found, expected, "{}: {text:?}", bundle.display());
                seen += 1;
            } else {
                let bytes: usize = found.iter().map(|&id| usize::from(special[id as usize])).sum();
                assert!(bytes >= text.len() || tokenizer.unknown().is_some(), "{text:?} lost text");
            }
        }
        assert!(seen >= 20, "{}: {seen} cases", bundle.display());
    }
}

#[test]
fn special_tokens_have_their_roles() {
    let expected = [
        ("llama", Some(506), Some(507), Some(508), true),
        ("mistral", Some(1), Some(2), None, true),
        ("qwen2", None, Some(511), Some(509), false),
        ("gemma2", Some(2), Some(1), Some(0), true),
    ];
    let Some(root) = support::shared("fixtures") else { return };
    for (family, bos, eos, pad, begins) in expected {
        let tokenizer = Tokenizer::open(&root.join(family).join("hf/tokenizer.json")).unwrap();
        assert_eq!((tokenizer.bos(), tokenizer.eos(), tokenizer.pad()), (bos, eos, pad), "{family}");
        assert_eq!(tokenizer.document_bos(), bos.filter(|_| begins), "{family}");
        assert_eq!(tokenizer.digest().len(), 64);
    }
    let gpt2 = Tokenizer::open(&root.join("gpt2/hf")).unwrap();
    assert_eq!(gpt2.document_bos(), None, "GPT-2 names a BOS but puts none before a text");
}

#[test]
fn bytes_of_tokens_sum_to_the_bytes_of_the_text() {
    for bundle in bundles() {
        let tokenizer = Tokenizer::open(&bundle.join("hf")).unwrap();
        let bytes_of = tokenizer.token_bytes();
        assert_eq!(bytes_of.len(), tokenizer.vocab_size());
        let prefix = usize::from(bundle.ends_with("mistral") || bundle.ends_with("mixtral"));
        for case in cases(&bundle)["encode"].as_array().unwrap() {
            let (text, ids) = (case["text"].as_str().unwrap(), ids(&case["ids_no_special"]));
            let special = ids.iter().any(|&id| bytes_of[id as usize] == 0);
            let composed = case["decoded"].as_str().unwrap().ends_with(text);
            if special || !composed || text.is_empty() {
                continue;
            }
            let sum: usize = ids.iter().map(|&id| usize::from(bytes_of[id as usize])).sum();
            assert_eq!(sum, text.len() + prefix, "{}: {text:?}", bundle.display());
        }
    }
}

#[test]
fn chats_render_as_in_transformers() {
    let mut rendered = 0;
    for bundle in bundles() {
        let cases = cases(&bundle);
        let Some(chats) = cases["chat"].as_array().filter(|chats| !chats.is_empty()) else { continue };
        let folder = bundle.join("hf");
        let tokenizer = Tokenizer::open(&folder).unwrap();
        let template = ChatTemplate::open(&folder).unwrap().unwrap();
        let marked = cases["chat_template_with_generation"].as_str().unwrap();
        let marked = ChatTemplate::new(marked, template.special_tokens().clone()).unwrap();
        for case in chats {
            let messages = case["messages"].as_array().unwrap();
            let add_generation_prompt = case["add_generation_prompt"].as_bool().unwrap();
            let options = RenderOptions { add_generation_prompt, now: None };
            for template in [&template, &marked] {
                let found = template.render(messages, options);
                let Some(expected) = case["rendered"].as_str() else {
                    let refused = case["error"].as_str().unwrap();
                    assert!(matches!(&found, Err(ChatError::Refused { message }) if message == refused), "{found:?}");
                    continue;
                };
                let found = found.unwrap();
                assert_eq!(found, expected, "{}", bundle.display());
                assert_eq!(tokenizer.encode(&found, false).unwrap(), ids(&case["ids"]), "{}", bundle.display());
                rendered += 1;
            }
        }
    }
    assert!(rendered > 80 || bundles().is_empty(), "{rendered} chats");
}
