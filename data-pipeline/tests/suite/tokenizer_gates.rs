//! What is measured of tokenizers, and the gates that end a preparation.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use crate::support::{self, document, documents, shared};
use data_pipeline::document::Document;
use data_pipeline::prepare::{PrepareError, prepare};
use data_pipeline::tokenizer::eval::Evaluation;
use data_pipeline::tokenizer::gates::{Gate, Gates, check};
use data_pipeline::tokenizer::report::Report;
use data_pipeline::tokenizer::{Tokenizer, TokenizerError, TokenizerExtender};
use serde_json::{Value, json};

fn report(tokenizer: &Tokenizer, texts: &[Document], reference: Option<&str>) -> Report {
    let mut evaluation = Evaluation::new(tokenizer).keyed();
    evaluation.add_all(texts).unwrap();
    evaluation.report(reference)
}

fn texts() -> Vec<Document> {
    let mut texts = documents("ary_Latn", "a", 40);
    texts.push(document("ary_Latn", "a", "3lach 7na m9wd, 12 dyal lktoub"));
    texts.push(document("arb_Arab", "a", "كِتَابٌ جَدِيدٌ في البيت"));
    texts.push(document("zgh_Tfng", "a", "ⴰⵣⵓⵍ ⵎⴰⵏⵉⴽ"));
    texts
}

#[test]
fn the_order_of_documents_and_the_threads_have_no_say() {
    let dir = tempfile::tempdir().unwrap();
    let tokenizer = support::tokenizer(dir.path());
    let mut texts = texts();
    let first = report(&tokenizer, &texts, Some("ary_Latn"));
    texts.reverse();
    assert_eq!(first, report(&tokenizer, &texts, Some("ary_Latn")));
    let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
    assert_eq!(first, pool.install(|| report(&tokenizer, &texts, Some("ary_Latn"))));
    let darija = &first.languages["ary_Latn"].counts;
    assert!(darija.bordered.words >= 3 && darija.bordered.tokens >= darija.bordered.words);
    let arabic = &first.languages["arb_Arab"];
    assert_eq!(arabic.counts.marked.words, 2);
    assert!(arabic.mark_inflation.unwrap() > 1.0, "{arabic:?}");
    let tifinagh = &first.languages["zgh_Tfng"];
    assert!(tifinagh.byte_share > 0.5, "a tokenizer that never saw Tifinagh spells it in bytes: {tifinagh:?}");
    assert!(tifinagh.parity.as_ref().unwrap().ratio > 1.0);
    assert_eq!(first.scripts["Latn"].counts.documents, 41);
    assert!(first.vocabulary["Latn"].used <= first.vocabulary["Latn"].entries);
}

#[test]
fn parallel_rows_are_compared_by_their_key() {
    let dir = tempfile::tempdir().unwrap();
    let tokenizer = support::tokenizer(dir.path());
    let keyed = |lang: &str, key: u8, text: &str| Document { id: format!("{key:032x}"), ..document(lang, "a", text) };
    let texts = [
        keyed("fra_Latn", 1, "le livre"),
        keyed("fra_Latn", 2, "la maison"),
        keyed("zgh_Tfng", 1, "ⴰⴷⵍⵉⵙ"),
        keyed("zgh_Tfng", 9, "ⵜⴰⴷⴷⴰⵔⵜ ⵜⴰⵎⵇⵇⵔⴰⵏⵜ"),
    ];
    let report = report(&tokenizer, &texts, Some("fra_Latn"));
    let parity = report.languages["zgh_Tfng"].parity.clone().unwrap();
    let tokens = |text: &str| tokenizer.encode(text, false).unwrap().len() as f64;
    assert_eq!(parity.parallel_rows, 1);
    assert!((parity.ratio - tokens("ⴰⴷⵍⵉⵙ") / tokens("le livre")).abs() < 1e-12);
}

#[test]
fn gates_name_what_failed() {
    let dir = tempfile::tempdir().unwrap();
    let tokenizer = support::tokenizer(dir.path());
    let report = report(&tokenizer, &texts(), None);
    let gate = |name: &str, value: f64| {
        let mut gate = Gate::default();
        assert!(gate.set(name, value));
        gate
    };
    let verdict = |gates: &[(&str, Gate)]| {
        let gates: Gates = gates.iter().map(|(lang, gate)| ((*lang).to_owned(), *gate)).collect();
        check(&gates, &report)
    };
    assert!(
        verdict(&[("*", gate("max_failed_round_trips", 0.0)), ("*_Latn", gate("max_tokens_per_word", 9.0))]).passed()
    );
    let failed = verdict(&[("zgh_Tfng", gate("max_byte_share", 0.1)), ("rif_Latn", gate("min_bytes_per_token", 1.0))]);
    assert_eq!(failed.failures(), 2);
    let table = failed.to_string();
    assert!(table.contains("rif_Latn") && table.contains("no text  FAILED"), "{table}");
    assert!(!Gate::default().set("max_fertility", 1.0));
}

/// A folder with a corpus of Latin Darija and a little Tifinagh, and a config for it.
fn config(dir: &Path, gates: &Value) -> Value {
    let row = |lang: &str, text: &str| json!({"text": text, "lang": lang, "source": "s", "licence": "MIT"}).to_string();
    let mut rows: Vec<String> = (0..200).map(|i| row("ary_Latn", &support::text("ary_Latn", i))).collect();
    rows.extend((0..20).map(|i| row("zgh_Tfng", &format!("ⴰⵣⵓⵍ ⵎⴰⵏⵉⴽ {i}"))));
    std::fs::write(dir.join("rows.jsonl"), rows.join("\n")).unwrap();
    json!({
        "output_dir": dir.join("out"),
        "sources": [{"path": dir.join("*.jsonl")}],
        "allow_licences": ["MIT"],
        "tokenizer": {"train": {"vocab_size": 400}, "gates": gates},
    })
}

#[test]
fn a_preparation_ends_at_a_gate_and_passes_without() {
    let dir = tempfile::tempdir().unwrap();
    let run = |gates: Value| {
        let config = serde_json::from_value(config(dir.path(), &gates)).unwrap();
        prepare(&config, &|_| {}, &AtomicBool::new(false))
    };
    let error = run(json!({"zgh_Tfng": {"max_tokens_per_word": 0.5}})).unwrap_err();
    assert!(matches!(&error, PrepareError::Tokenizer(TokenizerError::Gates { .. })), "{error}");
    assert!(error.to_string().contains("zgh_Tfng   max_tokens_per_word"), "{error}");
    assert!(!dir.path().join("out").exists());
    let parity = run(json!({"zgh_Tfng": {"max_parity": 2.0}})).unwrap_err().to_string();
    assert!(parity.contains("tokenizer.gates.zgh_Tfng.max_parity: is measured by"), "{parity}");
    let with = run(json!({"zgh_Tfng": {"max_tokens_per_word": 50.0}})).unwrap();
    std::fs::remove_dir_all(dir.path().join("out")).unwrap();
    let without = run(json!({})).unwrap();
    assert_eq!(with.id, without.id, "gates decide whether, not what");
}

#[test]
fn gates_written_later_are_checked_on_the_data_set_that_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let run = |gates: Value| {
        let config = serde_json::from_value(config(dir.path(), &gates)).unwrap();
        prepare(&config, &|_| {}, &AtomicBool::new(false))
    };
    let loose = json!({"zgh_Tfng": {"max_tokens_per_word": 50.0}});
    assert!(!run(loose.clone()).unwrap().already);
    let before = support::contents(dir.path());
    assert!(run(loose).unwrap().already && run(json!({})).unwrap().already);
    assert!(run(json!({"*": {"max_failed_round_trips": 0}})).unwrap().already);
    let error = run(json!({"zgh_Tfng": {"max_tokens_per_word": 0.5}})).unwrap_err();
    assert!(matches!(error, PrepareError::Gates { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("fails 1 of them") && text.contains("zgh_Tfng   max_tokens_per_word"), "{text}");
    assert!(support::contents(dir.path()) == before, "the data set was changed");
}

#[test]
fn imported_tokenizers_are_measured_too() {
    let Some(root) = shared("fixtures") else { return };
    for family in ["llama", "mistral", "gemma2", "qwen2", "gpt2"] {
        let tokenizer = Tokenizer::open(&root.join(family).join("hf")).unwrap();
        let report = report(&tokenizer, &texts(), Some("ary_Latn"));
        for (lang, figures) in &report.languages {
            assert!(figures.tokens_per_word > 0.5 && figures.bytes_per_token > 0.9, "{family} {lang}: {figures:?}");
        }
        let darija = report.languages["ary_Latn"].counts.bordered;
        assert!(darija.words >= 3 && darija.tokens >= darija.words, "{family}: {darija:?}");
        let entries: u64 = report.vocabulary.values().map(|vocabulary| vocabulary.entries).sum();
        assert!(entries <= tokenizer.vocab_size() as u64 && entries > 0, "{family}");
    }
}

#[test]
fn imported_tokenizers_are_extended_and_old_ids_keep_their_meaning() {
    let Some(root) = shared("fixtures") else { return };
    let open = |family: &str| Tokenizer::open(&root.join(family).join("hf")).unwrap();
    // Added tokens stand inside the vocabulary (Llama, GPT-2) or behind it (Qwen).
    for family in ["llama", "gpt2", "qwen2", "qwen3"] {
        let base = open(family);
        let mut extender = TokenizerExtender::new(&base).unwrap();
        texts().iter().for_each(|text| extender.add(text));
        let extended = extender.finish(40, &|_| {}, &AtomicBool::new(false)).unwrap();
        let dir = tempfile::tempdir().unwrap();
        extended.files.iter().for_each(|(name, bytes)| std::fs::write(dir.path().join(name), bytes).unwrap());
        let new = Tokenizer::open(dir.path()).unwrap();
        assert_eq!(new.vocab_size(), base.vocab_size() + extended.report.added, "{family}");
        for id in 0..base.vocab_size() as u32 {
            assert!(base.piece(id).is_none() || base.piece(id) == new.piece(id), "{family}: id {id}");
        }
        assert_eq!((new.bos(), new.eos(), new.special_ids()), (base.bos(), base.eos(), base.special_ids()), "{family}");
        let (before, after) = (report(&base, &texts(), None), report(&new, &texts(), None));
        let (before, after) = (&before.languages["ary_Latn"], &after.languages["ary_Latn"]);
        assert!(after.tokens_per_word < before.tokens_per_word, "{family}");
        assert_eq!(after.counts.failed_round_trips, before.counts.failed_round_trips, "{family}");
    }
    let refused = TokenizerExtender::new(&open("mistral")).err().unwrap().to_string();
    assert!(refused.contains("only byte-level BPE") && refused.contains("choose another base"), "{refused}");
}
