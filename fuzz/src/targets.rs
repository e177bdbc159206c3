//! Owns the functions that are fuzzed: bytes of an untrusted file in, no panic and no broken promise out; never mutates.
//!
//! The libFuzzer targets in `fuzz_targets/` and the test `data-pipeline/tests/suite/mutations.rs` run these same functions.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use data_pipeline::chat::{RecordKind, Role, Sample, record};
use data_pipeline::config::{FieldNames, Format, Limits, OnDamage, PrepareConfig, SourceConfig};
use data_pipeline::documents::{ReadOptions, read_documents};
use data_pipeline::lid::Identifier;
use data_pipeline::lid::file::MAGIC as LID_MAGIC;
use data_pipeline::manifest::{FileRecord, Manifest, ShardRecord, Split};
use data_pipeline::normalize::Normalize;
use data_pipeline::opt_out::{Candidate, OptOutList};
use data_pipeline::records::read_records;
use data_pipeline::shard::format::Dtype;
use data_pipeline::shard::reader::ShardReader;
use data_pipeline::shard::sidecar;
use data_pipeline::tokenizer::Tokenizer;
use data_pipeline::tokenizer::chat::{ChatTemplate, RenderOptions};

/// A target: a folder for its files, and the bytes; whether they were accepted.
pub type Target = fn(&Path, &[u8]) -> bool;

/// All targets by name.
pub const TARGETS: [(&str, Target); 24] = [
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
    ("chat", chat),
    ("preference", preference),
    ("table_csv", table_csv),
    ("table_parquet", table_parquet),
    ("parquet_pages", parquet_pages),
    ("sidecar", sidecar_table),
    ("shard", shard),
    ("fasttext", fasttext),
    ("lid_model", lid_model),
    ("opt_outs", opt_outs),
];

/// Rows are read or refused, their counts agree, and every text is one.
fn rows(folder: &Path, name: &str, format: Format, bytes: &[u8]) -> bool {
    let path = folder.join(name);
    std::fs::write(&path, bytes).unwrap();
    let source = SourceConfig { format, ..SourceConfig::at(path.to_str().unwrap()) };
    read(&source, name)
}

fn read(source: &SourceConfig, name: &str) -> bool {
    let mut accepted = false;
    let limits = Limits { max_record_bytes: 1 << 16, max_file_bytes: 1 << 24, ..Limits::default() };
    for on_damage in [OnDamage::Error, OnDamage::Quarantine] {
        let options = ReadOptions { on_damage, limits: limits.clone(), ..ReadOptions::default() };
        let mut documents = 0;
        let read = read_documents(std::slice::from_ref(source), &options, &AtomicBool::new(false), &mut |document| {
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

/// What is understood as a chat has one spelling, which reads back.
fn sample(bytes: &[u8], kind: RecordKind) -> bool {
    let Ok(line) = std::str::from_utf8(bytes) else { return false };
    let names = FieldNames::default();
    let roles = [Role::Assistant];
    match record::parse(line, &names, kind, Normalize::default(), &roles) {
        Ok(sample) => {
            assert_eq!(Sample::from_text(&sample.to_text()).unwrap(), sample);
            assert!(sample.beginning().len() < 1024);
            true
        }
        Err(error) => {
            assert!(error.to_string().len() < 4096, "{error}");
            false
        }
    }
}

fn chat(_: &Path, bytes: &[u8]) -> bool {
    sample(bytes, RecordKind::Chat)
}

fn preference(_: &Path, bytes: &[u8]) -> bool {
    sample(bytes, RecordKind::Preference)
}

/// A table of an evaluation task.
fn table(folder: &Path, name: &str, bytes: &[u8]) -> bool {
    let path = folder.join(name);
    std::fs::write(&path, bytes).unwrap();
    match read_records(&path) {
        Ok(records) => !records.is_empty(),
        Err(error) => {
            assert!(error.to_string().contains(name), "{error}");
            false
        }
    }
}

fn table_csv(folder: &Path, bytes: &[u8]) -> bool {
    table(folder, "t.csv", bytes)
}

fn table_parquet(folder: &Path, bytes: &[u8]) -> bool {
    table(folder, "t.parquet", bytes)
}

/// Rows with nested columns, read as objects.
fn parquet_pages(folder: &Path, bytes: &[u8]) -> bool {
    let path = folder.join("b.parquet");
    std::fs::write(&path, bytes).unwrap();
    let source = SourceConfig { kind: RecordKind::Chat, ..SourceConfig::at(path.to_str().unwrap()) };
    let options = ReadOptions { on_damage: OnDamage::Quarantine, ..ReadOptions::default() };
    let none = &mut |_| Ok(());
    read_documents(&[source], &options, &AtomicBool::new(false), none).is_ok_and(|summary| summary.damaged_files == 0)
}

/// The table of documents of a shard.
fn sidecar_table(folder: &Path, bytes: &[u8]) -> bool {
    let path = folder.join("shard-00000.parquet");
    std::fs::write(&path, bytes).unwrap();
    let mut rows = 0;
    let scanned = sidecar::scan_facts(&path, &mut |number, _| {
        assert_eq!(number, rows);
        rows += 1;
        Ok(())
    });
    _ = sidecar::count_documents(&path);
    _ = sidecar::read_facts(&path, 1, 2);
    _ = sidecar::pick_facts(&path, &[0, 2]);
    scanned.is_ok() && rows > 0
}

/// The files of a shard: type, documents, tokens, then `.idx`, `.bin.index` and `.bin` one after the other. No place in them
/// leads outside the shard.
fn shard(folder: &Path, bytes: &[u8]) -> bool {
    let Some(([wide, documents, tokens], files)) = bytes.split_first_chunk::<3>() else { return false };
    let (documents, tokens) = (u64::from(*documents).max(1), u64::from(*tokens).max(1));
    let dtype = if wide % 2 == 1 { Dtype::Uint32 } else { Dtype::Uint16 };
    let mut rest = files;
    let mut record = ShardRecord {
        name: "shard-00000".to_owned(),
        split: Split::Train,
        lang: "ary_Arab".to_owned(),
        source: "doda".to_owned(),
        documents,
        tokens,
        text_bytes: 1,
        files: BTreeMap::new(),
    };
    let idx = data_pipeline::shard::format::megatron_index_bytes(documents) as usize;
    for (ending, length) in
        [("idx", idx), ("bin.index", documents as usize * 8), ("bin", tokens as usize * dtype.width())]
    {
        let (part, tail) = rest.split_at_checked(length).unwrap_or((rest, &[]));
        rest = tail;
        std::fs::write(folder.join(format!("shard-00000.{ending}")), part).unwrap();
        record.files.insert(ending.to_owned(), FileRecord { bytes: length as u64, blake3: String::new() });
    }
    let Ok(reader) = ShardReader::open(folder, &record, dtype) else { return false };
    let mut ids = vec![0; 300];
    for document in 0..=documents {
        let range = reader.document(document);
        assert!(range.start <= range.end && range.end <= tokens);
        assert!(reader.read(range.start, &mut ids) as u64 <= tokens);
    }
    (0..tokens).for_each(|position| assert!(reader.document_at(position) < documents));
    true
}

/// A model that opens also answers, with shares that are numbers.
fn model(path: &Path) -> bool {
    let Ok(identifier) = Identifier::open(path) else { return false };
    for text in ["salam 3lik a sahbi. Bonjour !", "السلام عليكم", "ⴰⵣⵓⵍ ⴼⵍⵍⴰⵡⵏ", "", "a\u{0} 12"]
    {
        let found = identifier.identify(text);
        assert!(!found.label.is_empty());
        assert!(found.spans.iter().all(|span| text.get(span.start..span.end).is_some()));
    }
    true
}

fn fasttext(folder: &Path, bytes: &[u8]) -> bool {
    let path = folder.join("model.bin");
    std::fs::write(&path, bytes).unwrap();
    model(&path)
}

/// The payload of a model of our own, under a checksum that fits.
fn lid_model(folder: &Path, bytes: &[u8]) -> bool {
    let path = folder.join("model.jzlid");
    let packed = zstd::bulk::compress(bytes, 1).unwrap();
    std::fs::write(&path, [LID_MAGIC.as_slice(), blake3::hash(bytes).as_bytes(), &packed].concat()).unwrap();
    model(&path)
}

/// What a list says is found again by what it says.
fn opt_outs(_: &Path, bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let mut list = OptOutList::default();
    if list.add_text(Path::new("list.txt"), text).is_err() {
        return false;
    }
    let url = text.lines().last().unwrap_or_default();
    _ = list.find(Candidate { id: "", given_id: Some(url), url: Some(url), source: url });
    !list.is_empty()
}
