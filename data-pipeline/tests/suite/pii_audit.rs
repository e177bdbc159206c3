//! A data set whose personal data was replaced holds a masked sample of it: bounded, the same however the work was cut,
//! and without the documents that were taken down.

use std::collections::BTreeMap;
use std::path::Path;

use data_pipeline::config::PrepareConfig;
use data_pipeline::pii::{AuditEntry, Kind};
use data_pipeline::prepare::{PII_AUDIT_FILE, Prepared, prepare};
use data_pipeline::removal::{self, Cause, Selection};
use data_pipeline::verify::verify;
use serde_json::{Value, json};

use crate::support::{self, NEVER};

fn write_rows(dir: &Path) {
    for file in 0..3 {
        let row = |i: usize| {
            let i = i + file * 1000;
            let (lang, tel) = if i.is_multiple_of(2) { ("fra_Latn", "Tél") } else { ("ary_Latn", "nmra") };
            let text = format!(
                "{} {tel} : 06 61 {:02} {:02} {:02}, ou amina{i}@gmail.com pour le rendez-vous",
                support::text(lang, i),
                i / 100 % 100,
                i % 100,
                file
            );
            json!({"text": text, "lang": lang, "source": format!("s{file}"), "licence": "MIT"}).to_string()
        };
        let lines: Vec<String> = (0..300).map(row).collect();
        std::fs::write(dir.join(format!("{file}.jsonl")), lines.join("\n") + "\n").unwrap();
    }
}

fn run(dir: &Path, name: &str, change: &Value) -> Prepared {
    let mut config = json!({
        "output_dir": dir.join(name),
        "sources": [{"path": dir.join("*.jsonl")}],
        "allow_licences": ["MIT"],
        "pii": {"audit_per_kind": 5},
        "tokenizer": {"train": {"vocab_size": 330, "max_bytes": 50_000}},
    });
    for (key, value) in change.as_object().unwrap() {
        config[key] = value.clone();
    }
    let config: PrepareConfig = serde_json::from_value(config).unwrap();
    prepare(&config, &|_| {}, &NEVER).unwrap()
}

fn entries(dir: &Path) -> Vec<AuditEntry> {
    let lines = std::fs::read_to_string(dir.join(PII_AUDIT_FILE)).unwrap();
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn the_sample_is_bounded_masked_and_the_same_however_the_work_was_cut() {
    let dir = tempfile::tempdir().unwrap();
    write_rows(dir.path());
    let whole = run(dir.path(), "whole", &json!({}));
    let mut by_kind: BTreeMap<(Kind, String), u64> = BTreeMap::new();
    for entry in entries(&whole.dir) {
        assert!(!entry.context.contains("amina") && !entry.context.contains("06 61"), "{}", entry.context);
        assert_eq!(entry.document.len(), 32);
        *by_kind.entry((entry.kind, entry.lang)).or_default() += 1;
    }
    let expected = [Kind::Email, Kind::Phone]
        .into_iter()
        .flat_map(|kind| ["ary_Latn", "fra_Latn"].map(|lang| ((kind, lang.to_owned()), 5)));
    assert_eq!(by_kind, expected.collect());
    for page in ["DATACARD.md", "datacard.html"] {
        let page = std::fs::read_to_string(whole.dir.join(page)).unwrap();
        assert!(page.contains("Personal data shown, masked") && page.contains("ary_Latn 5, fra_Latn 5"), "{page}");
    }
    assert!(verify(&whole.dir, &|_| {}, &NEVER).unwrap().warnings.is_empty());

    let sample = std::fs::read(whole.dir.join(PII_AUDIT_FILE)).unwrap();
    let cut = run(dir.path(), "cut", &json!({"limits": {"checkpoint_bytes": 65536, "max_memory_bytes": 134_217_728}}));
    assert_eq!(cut.id, whole.id);
    assert_eq!(std::fs::read(cut.dir.join(PII_AUDIT_FILE)).unwrap(), sample);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    let alone = pool.install(|| run(dir.path(), "alone", &json!({})));
    assert_eq!(std::fs::read(alone.dir.join(PII_AUDIT_FILE)).unwrap(), sample);

    let none = run(dir.path(), "none", &json!({"pii": {"audit_per_kind": 0}}));
    assert!(!none.dir.join(PII_AUDIT_FILE).exists());
    assert!(!std::fs::read_to_string(none.dir.join("DATACARD.md")).unwrap().contains("shown, masked"));
}

#[test]
fn what_is_taken_down_leaves_the_sample_too() {
    let dir = tempfile::tempdir().unwrap();
    write_rows(dir.path());
    let data = run(dir.path(), "data", &json!({})).dir;
    let before = entries(&data);
    let victim = before[0].document.clone();
    let mut selection = Selection::default();
    selection.insert("id", &victim).unwrap();
    let cause = Cause { time: "2026-11-22T10:00:00Z".into(), reason: None };
    removal::remove(&data, &selection, &cause, false, &|_| {}, &NEVER).unwrap();
    let after = entries(&data);
    assert!(after.len() < before.len() && after.iter().all(|entry| entry.document != victim), "{after:?}");
    let stay: Vec<_> = before.into_iter().filter(|entry| entry.document != victim).collect();
    assert_eq!(after, stay);
}
