//! Owns the functions that are fuzzed: bytes of an untrusted file in, no panic and no broken promise out; never mutates.
//!
//! The libFuzzer targets in `fuzz_targets/` and the test `data-pipeline/tests/suite/mutations.rs` run these same functions.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use data_pipeline::config::{Format, Limits, OnDamage, PrepareConfig, SourceConfig};
use data_pipeline::documents::{ReadOptions, read_documents};
use data_pipeline::manifest::Manifest;
use data_pipeline::tokenizer::Tokenizer;
use data_pipeline::tokenizer::chat::{ChatTemplate, RenderOptions};

/// A target: a folder for its files, and the bytes; whether they were accepted.
pub type Target = fn(&Path, &[u8]) -> bool;

/// All targets by name.
pub const TARGETS: [(&str, Target); 14] = [
    ("jsonl", jsonl),
    ("csv", csv),
    ("json_array", json_array),
    ("parquet", parquet),
    ("arrow", arrow),
    ("warc", warc),
    ("html", html),
    ("encoding", encoding),
    ("gzip", gzip),
    ("zstd", zstd),
    ("tokenizer", tokenizer),
    ("chat_template", chat_template),
    ("config", config),
    ("manifest", manifest),
];

/// Rows are read or refused, their counts agree, and every text is one.
fn rows(folder: &Path, name: &str, format: Format, bytes: &[u8]) -> bool {
    let mut accepted = false;
    let path = folder.join(name);
    std::fs::write(&path, bytes).unwrap();
    let source = SourceConfig { format, ..SourceConfig::at(path.to_str().unwrap()) };
    let limits = Limits { max_record_bytes: 1 << 16, max_file_bytes: 1 << 24, ..Limits::default() };
    for on_damage in [OnDamage::Error, OnDamage::Quarantine] {
        let options = ReadOptions { on_damage, limits: limits.clone(), ..ReadOptions::default() };
        let mut documents = 0;
        let read = read_documents(std::slice::from_ref(&source), &options, &AtomicBool::new(false), &mut |document| {
            documents += 1;
            assert!(!document.text.trim().is_empty());
            Ok(())
        });
        match read {
            Ok(summary) => {
                assert_eq!(summary.documents, documents);
                accepted = documents > 0;
                assert_eq!(summary.rows, summary.documents + summary.dropped.values().sum::<u64>());
            }
            Err(error) => assert!(error.to_string().contains(name), "{error}"),
        }
    }
    accepted
}

fn jsonl(folder: &Path, bytes: &[u8]) -> bool {
    rows(folder, "a.jsonl", Format::Jsonl, bytes)
}

fn csv(folder: &Path, bytes: &[u8]) -> bool {
    rows(folder, "a.csv", Format::Csv, bytes)
}

fn json_array(folder: &Path, bytes: &[u8]) -> bool {
    rows(folder, "a.json", Format::Json, bytes)
}

fn parquet(folder: &Path, bytes: &[u8]) -> bool {
    rows(folder, "a.parquet", Format::Parquet, bytes)
}

fn arrow(folder: &Path, bytes: &[u8]) -> bool {
    rows(folder, "a.arrow", Format::Arrow, bytes)
}

fn warc(folder: &Path, bytes: &[u8]) -> bool {
    rows(folder, "a.warc", Format::Warc, bytes)
}

/// A page as the only record of an archive.
fn html(folder: &Path, bytes: &[u8]) -> bool {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n";
    let length = head.len() + bytes.len();
    let record = format!(
        "WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: https://example.org/\r\nContent-Length: {length}\r\n\r\n{head}"
    );
    rows(folder, "a.warc", Format::Warc, &[record.as_bytes(), bytes, b"\r\n\r\n"].concat())
}

fn encoding(folder: &Path, bytes: &[u8]) -> bool {
    rows(folder, "a.txt", Format::Text, bytes)
}

fn gzip(folder: &Path, bytes: &[u8]) -> bool {
    rows(folder, "a.jsonl.gz", Format::Jsonl, bytes)
}

fn zstd(folder: &Path, bytes: &[u8]) -> bool {
    rows(folder, "a.jsonl.zst", Format::Jsonl, bytes)
}

/// A tokenizer that opens also encodes and decodes, or says why not.
fn tokenizer(folder: &Path, bytes: &[u8]) -> bool {
    let path = folder.join("tokenizer.json");
    std::fs::write(&path, bytes).unwrap();
    let Ok(tokenizer) = Tokenizer::open(&path) else { return false };
    assert!(tokenizer.vocab_size() > 0);
    for text in ["salam 3lik", "السلام عليكم", "ⴰⵣⵓⵍ", "a\u{0}\n  b", &"a ".repeat(500)] {
        if let Ok(ids) = tokenizer.encode(text, true) {
            _ = tokenizer.decode(&ids, true);
        }
        _ = tokenizer.document_encoder().encode(text, &mut Vec::new());
    }
    assert_eq!(tokenizer.token_bytes().len(), tokenizer.vocab_size());
    true
}

fn chat_template(_: &Path, bytes: &[u8]) -> bool {
    let Ok(source) = std::str::from_utf8(bytes) else { return false };
    let special = BTreeMap::from([("bos_token".to_owned(), "<s>".to_owned())]);
    let Ok(template) = ChatTemplate::new(source, special) else { return false };
    let messages = [
        serde_json::json!({"role": "user", "content": "salam"}),
        serde_json::json!({"role": "assistant", "content": "labas"}),
    ];
    template.render(&messages, RenderOptions::default()).is_ok()
}

/// A configuration that is read is also checked.
fn config(_: &Path, bytes: &[u8]) -> bool {
    serde_json::from_slice::<PrepareConfig>(bytes).is_ok_and(|config| config.validate().is_ok())
}

fn manifest(folder: &Path, bytes: &[u8]) -> bool {
    std::fs::write(folder.join("manifest.json"), bytes).unwrap();
    let Ok(manifest) = Manifest::read(folder) else { return false };
    assert_eq!(manifest.id().len(), 64);
    true
}
