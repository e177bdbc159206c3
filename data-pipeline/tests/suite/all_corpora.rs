//! The whole way over the Moroccan collection: counts that agree with its own tables, and no language lost on the way.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use data_pipeline::prepare::{PrepareError, PrepareEvent, Prepared, prepare};
use serde_json::{Value, json};

/// Licences of the redistributable sources, as `README.md` of the collection lists them.
const LICENCES: [&str; 12] = [
    "Apache-2.0",
    "CC-BY-2.0-FR",
    "CC-BY-SA-3.0",
    "CC-BY-SA-4.0",
    "GPL-2.0-or-later",
    "GPL-3.0-or-later",
    "LGPL-LR",
    "MIT",
    "MPL-2.0",
    "Unicode-3.0",
    "CC0-1.0",
    "CC-BY-4.0",
];

/// Small sources that together hold every script and most languages.
const SMALL: [&str; 7] =
    ["arcd-wikipedia", "cldr", "darija-phrases", "doda-mit", "gettext-l10n", "hassaniya-variants", "kabyle-sentences"];

fn corpora() -> Option<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/corpora");
    if !dir.exists() {
        eprintln!("SKIPPED: ../shared is absent");
        return None;
    }
    Some(dir)
}

fn config(out: &Path, sources: Value, vocab_size: u32) -> Value {
    json!({
        "output_dir": out,
        "sources": sources,
        "allow_licences": LICENCES,
        "tokenizer": {"train": {"vocab_size": vocab_size, "max_bytes": 20_000_000}},
    })
}

fn run(config: &Value) -> Result<Prepared, PrepareError> {
    let start = Instant::now();
    let observe = |event: &PrepareEvent| {
        if !matches!(event, PrepareEvent::Progress { .. }) {
            eprintln!("{:7.2} s {event:?}", start.elapsed().as_secs_f64());
        }
    };
    prepare(&serde_json::from_value(config.clone()).unwrap(), &observe, &AtomicBool::new(false))
}

/// Rows of each source as a plain count of lines.
fn line_count(dir: &Path, source: &str) -> u64 {
    std::fs::read_to_string(dir.join(source).join("data.jsonl")).unwrap().lines().count() as u64
}

fn check(dir: &Path, done: &Prepared, sources: &[&str]) {
    done.stats.reconcile().unwrap();
    let by_source = done.stats.by_source();
    assert_eq!(by_source.len(), sources.len());
    for source in sources {
        assert_eq!(by_source[*source].rows, line_count(dir, source), "{source}");
    }
    // Deduplication must not empty a corpus because of its script.
    for (lang, tally) in done.stats.by_language() {
        let duplicates = tally.duplicates() as f64 / tally.rows as f64;
        eprintln!(
            "{lang}: {} rows, {} documents, {} held out, {} duplicates, {} words, {} tokens",
            tally.rows,
            tally.documents,
            tally.validation_documents,
            tally.duplicates(),
            tally.words,
            tally.tokens()
        );
        assert!(duplicates < 0.6, "{lang}: {duplicates}");
        assert_eq!(tally.documents, tally.rows - tally.duplicates(), "{lang}");
    }
    let total = &done.stats.total;
    eprintln!("total: {total:?}");
    assert_eq!(done.stats.quarantined, 0);
}

#[test]
fn the_small_sources_are_prepared_whole() {
    let Some(dir) = corpora() else { return };
    let out = tempfile::tempdir().unwrap();
    let sources: Vec<Value> = SMALL.iter().map(|source| json!({"path": dir.join(source).join("data.jsonl")})).collect();
    let done = run(&config(&out.path().join("dataset"), json!(sources), 2048)).unwrap();
    check(&dir, &done, &SMALL);
    let languages = done.stats.by_language();
    for (lang, at_least) in [
        ("ary_Arab", 300),
        ("ary_Latn", 8000),
        ("zgh_Tfng", 200),
        ("shi_Tfng", 5),
        ("arb_Arab", 2000),
        ("kab_Latn", 14_000),
    ] {
        assert!(languages[lang].documents >= at_least, "{lang}: {}", languages[lang].documents);
    }
}

#[test]
#[ignore = "minutes in a debug build; `cargo nextest run -p data-pipeline --run-ignored all -E 'test(collection)'`"]
fn the_whole_collection_is_prepared_twice_to_the_same_digest() {
    let Some(dir) = corpora() else { return };
    let out = tempfile::tempdir().unwrap();
    let sources = json!([{"path": dir.join("*/data.jsonl"), "exclude": ["**/doda-nc/**"]}]);
    let first = run(&config(&out.path().join("first"), sources.clone(), 16_384)).unwrap();
    let names: Vec<String> = first.stats.by_source().into_keys().collect();
    assert_eq!(names.len(), 14);
    check(&dir, &first, &names.iter().map(String::as_str).collect::<Vec<_>>());
    let second = run(&config(&out.path().join("second"), sources, 16_384)).unwrap();
    assert_eq!(first.id, second.id);
}

#[test]
#[ignore = "minutes in a debug build; `cargo nextest run -p data-pipeline --run-ignored all -E 'test(collection)'`"]
fn the_whole_collection_with_its_non_commercial_source_needs_consent() {
    let Some(dir) = corpora() else { return };
    let out = tempfile::tempdir().unwrap();
    let sources = json!([{"path": dir.join("*/data.jsonl")}]);
    let mut config = config(&out.path().join("dataset"), sources, 16_384);
    let error = run(&config).unwrap_err().to_string();
    assert!(error.contains("doda-nc/data.jsonl: row 1 of source `doda-nc` is under `CC-BY-NC-4.0`"), "{error}");
    assert_eq!(std::fs::read_dir(out.path()).unwrap().count(), 0);
    config["non_commercial"] = json!(true);
    let listed = run(&config).unwrap();
    assert_eq!(listed.stats.total.dropped["licence:CC-BY-NC-4.0"], 97_318);
    std::fs::remove_dir_all(&listed.dir).unwrap();
    config["allow_licences"].as_array_mut().unwrap().push(json!("CC-BY-NC-4.0"));
    let done = run(&config).unwrap();
    assert_eq!(done.stats.total.rows, 250_450);
    let names: Vec<String> = done.stats.by_source().into_keys().collect();
    check(&dir, &done, &names.iter().map(String::as_str).collect::<Vec<_>>());
}
