//! What was asked to stay out stays out, what is taken down is gone from every file, and a removal that is killed leaves
//! a whole data set.

use std::path::{Path, PathBuf};

use crate::support::{self, NEVER};
use data_pipeline::config::PrepareConfig;
use data_pipeline::dataset::Dataset;
use data_pipeline::prepare::{PrepareError, Prepared, prepare};
use data_pipeline::removal::{self, Cause, RemovalError, Report, Selection, read_log, removed_document};
use data_pipeline::stats::Stats;
use data_pipeline::verify::verify;
use serde_json::{Value, json};

/// Rows of two sources and three licences, some of which ask to stay out.
fn rows() -> Vec<Value> {
    let mut rows = Vec::new();
    for i in 0..120 {
        let source = if i % 3 == 0 { "forum" } else { "news" };
        let licence = if i % 4 == 0 { "CC-BY-4.0" } else { "MIT" };
        let host = if i % 5 == 0 { "www.example.org" } else { "news.example.ma" };
        rows.push(json!({
            "text": support::text("ary_Latn", i), "lang": "ary_Latn", "source": source, "licence": licence,
            "url": format!("https://{host}/page/{i}"), "id": format!("row-{i}"),
        }));
    }
    rows
}

fn write(path: &Path, rows: &[Value]) {
    let lines: Vec<String> = rows.iter().map(Value::to_string).collect();
    std::fs::write(path, lines.join("\n") + "\n").unwrap();
}

fn config(dir: &Path) -> Value {
    json!({
        "output_dir": dir.join("data"),
        "sources": [{"path": dir.join("in.jsonl"), "fields": {"id": "id"}}],
        "allow_licences": ["MIT", "CC-BY-4.0"],
        "validation": {"fraction": 0.1, "min_documents": 4},
        "shards": {"max_tokens": 700},
        "tokenizer": {"train": {"vocab_size": 330}},
    })
}

fn run(config: &Value) -> Result<Prepared, PrepareError> {
    let config: PrepareConfig = serde_json::from_value(config.clone()).unwrap();
    prepare(&config, &|_| {}, &NEVER)
}

fn prepared(dir: &Path) -> PathBuf {
    write(&dir.join("in.jsonl"), &rows());
    run(&config(dir)).unwrap().dir
}

fn select(entries: &[(&str, &str)]) -> Selection {
    let mut selection = Selection::default();
    entries.iter().for_each(|(kind, value)| selection.insert(kind, value).unwrap());
    selection
}

fn take_down(dir: &Path, entries: &[(&str, &str)]) -> Result<Report, RemovalError> {
    let cause = Cause { time: "2026-11-22T10:00:00Z".into(), reason: Some("asked for by letter".into()) };
    removal::remove(dir, &select(entries), &cause, false, &|_| {}, &NEVER)
}

/// Identifier, licence and tokens of every document, held-out ones last.
fn documents(dir: &Path) -> Vec<(String, String, String, Vec<u32>)> {
    let dataset = Dataset::open(dir).unwrap();
    let mut found = Vec::new();
    for component in dataset.train().iter().chain(dataset.validation()) {
        for number in 0..component.num_documents() {
            let facts = component.facts(number).unwrap();
            found.push((facts.id, facts.source, facts.licence, component.document(number).unwrap()));
        }
    }
    found.sort();
    found
}

#[test]
fn marks_in_rows_keep_them_out_and_are_counted_by_kind() {
    let dir = tempfile::tempdir().unwrap();
    let mut rows = rows();
    let marks = [
        json!({"no_ai": true}),
        json!({"metadata": {"noai": "yes"}}),
        json!({"tdm-reservation": 1}),
        json!({"headers": {"X-Robots-Tag": "noindex, NoAI"}}),
        json!({"robots": ["nofollow", "noai"]}),
        json!({"ai_training": false}),
        json!({"licence": "CC-BY-4.0 no-ai"}),
        // These change nothing.
        json!({"no_ai": false, "robots": "noindex", "ai_training": "allowed", "tdm-reservation": 0}),
    ];
    for (row, mark) in rows.iter_mut().zip(&marks) {
        let own = row.as_object_mut().unwrap();
        own.extend(mark.as_object().unwrap().clone());
    }
    write(&dir.path().join("in.jsonl"), &rows);
    let done = run(&config(dir.path())).unwrap();
    let dropped = &done.stats.total.dropped;
    let count = |reason: &str| dropped.get(reason).copied().unwrap_or(0);
    assert_eq!(count("opt_out:no_ai"), 2, "{dropped:?}");
    assert_eq!(count("opt_out:tdm_reservation"), 1);
    assert_eq!(count("opt_out:directive"), 2);
    assert_eq!(count("opt_out:ai_training"), 1);
    assert_eq!(count("opt_out:licence"), 1);
    assert_eq!(done.stats.total.documents, 120 - 7);
    let card = std::fs::read_to_string(done.dir.join("DATACARD.md")).unwrap();
    assert!(card.contains("| opt-outs | opt_out:no_ai | 2 |"), "{card}");

    let mut ignoring = config(dir.path());
    ignoring["output_dir"] = json!(dir.path().join("ignoring"));
    ignoring["opt_outs"] = json!({"markers": false});
    ignoring["allow_licences"] = json!(["*"]);
    assert_eq!(run(&ignoring).unwrap().stats.total.documents, 120);
}

#[test]
fn marks_in_columns_and_under_names_of_ones_own() {
    let dir = tempfile::tempdir().unwrap();
    let mut csv = "text,lang,licence,no_ai,rights.mining\n".to_owned();
    for i in 0..60 {
        let (flag, mining) = (if i == 3 { "1" } else { "" }, if i == 5 { "noai" } else { "fine" });
        csv.push_str(&format!("{},ary_Latn,MIT,{flag},{mining}\n", support::text("ary_Latn", i)));
    }
    std::fs::write(dir.path().join("in.csv"), csv).unwrap();
    let mut config = config(dir.path());
    config["sources"] = json!([{"path": dir.path().join("in.csv"), "fields": {"opt_out": ["no_ai", "rights.mining"]}}]);
    let done = run(&config).unwrap();
    assert_eq!(done.stats.total.dropped.get("opt_out:no_ai"), Some(&2), "{:?}", done.stats.total.dropped);
    config["sources"] = json!([{"path": dir.path().join("in.csv"), "fields": {"opt_out": ["absent"]}}]);
    config["output_dir"] = json!(dir.path().join("other"));
    let message = run(&config).unwrap_err().to_string();
    assert!(message.contains("`absent`"), "{message}");
}

#[test]
fn lists_keep_out_what_they_name_and_belong_to_the_identity() {
    let dir = tempfile::tempdir().unwrap();
    write(&dir.path().join("in.jsonl"), &rows());
    let list = dir.path().join("list.txt");
    std::fs::write(&list, "# by mail\nid: row-1\ndomain: example.org\nhttps://news.example.ma/page/7\n").unwrap();
    let mut config = config(dir.path());
    config["opt_outs"] = json!({"lists": [list]});
    let done = run(&config).unwrap();
    let dropped = done.stats.total.dropped.clone();
    // 7 and 71 to 79 without 75, which is of the other host.
    assert_eq!(dropped.get("opt_out:list_url"), Some(&9), "{dropped:?}");
    assert_eq!(dropped.get("opt_out:list_id"), Some(&1));
    assert_eq!(dropped.get("opt_out:list_domain"), Some(&24));
    assert!(run(&config).unwrap().already);
    std::fs::write(&list, "id: row-1\n").unwrap();
    assert!(matches!(run(&config), Err(PrepareError::OutputDiffers { .. })));
    std::fs::write(&list, "id: row-1\nwhat is this\n").unwrap();
    config["output_dir"] = json!(dir.path().join("other"));
    let message = run(&config).unwrap_err().to_string();
    assert!(message.contains("list.txt:2: `what is this`"), "{message}");
    assert!(!dir.path().join("other").exists());
}

#[test]
fn a_source_and_a_document_are_gone_from_every_file_and_nothing_else_is() {
    let dir = tempfile::tempdir().unwrap();
    let data = prepared(dir.path());
    let before = documents(&data);
    let old = Dataset::open(&data).unwrap().id().to_owned();
    let stats_before = Stats::read(&data).unwrap();
    let one = before.iter().find(|(_, source, ..)| source == "news").unwrap().0.clone();

    let dry = removal::remove(&data, &select(&[("source", "forum")]), &Cause::default(), true, &|_| {}, &NEVER);
    assert_eq!(dry.unwrap().removal.documents, 40);
    assert_eq!(documents(&data), before);

    let report = take_down(&data, &[("source", "forum"), ("id", &one)]).unwrap();
    assert_eq!((report.removal.documents, report.documents_left), (41, 79));
    assert_eq!(report.removal.by_entry.get("source"), Some(&40));
    let checked = verify(&data, &|_| {}, &NEVER).unwrap();
    assert_eq!((checked.id.as_str(), checked.documents), (report.removal.new.as_str(), 79));
    assert!(checked.warnings.is_empty(), "{:?}", checked.warnings);
    assert_ne!(checked.id, old);
    let expected: Vec<_> = before.iter().filter(|(id, source, ..)| source != "forum" && *id != one).cloned().collect();
    assert_eq!(documents(&data), expected);

    let stats = Stats::read(&data).unwrap();
    stats.reconcile().unwrap();
    assert_eq!(stats.total.dropped.get("taken_down"), Some(&41));
    assert_eq!(stats.total.rows, stats_before.total.rows);
    let words: u64 = expected.iter().map(|(id, ..)| words_of(id)).sum();
    assert_eq!(stats.total.words, words);
    for (name, part) in [("DATACARD.md", "asked for by letter"), ("datacard.html", "taken down later")] {
        assert!(std::fs::read_to_string(data.join(name)).unwrap().contains(part), "{name}");
    }
    assert!(std::fs::read_to_string(data.join("DATACARD.md")).unwrap().contains("- Normalisation: "));

    let log = read_log(&data).unwrap();
    assert_eq!((log.len(), log[0].old.as_str(), log[0].new.as_str()), (1, old.as_str(), checked.id.as_str()));
    assert_eq!(log[0].selection, ["source: forum".to_owned(), format!("id: {one}")]);
    assert_eq!(removed_document(&data, &one).unwrap().len(), 1);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2, "the work folder is gone");

    // Another one, by the identifier that the row gave, is a second entry.
    let again = take_down(&data, &[("id", "row-2")]).unwrap();
    assert_eq!((again.removal.documents, again.removal.old), (1, checked.id));
    let log = read_log(&data).unwrap();
    assert_eq!(log.len(), 2);
    verify(&data, &|_| {}, &NEVER).unwrap();
}

/// Words of the row with this document identifier.
fn words_of(id: &str) -> u64 {
    use data_pipeline::document::{document_id, id_to_hex};
    let is_it =
        |row: &&Value| id_to_hex(&document_id(row["source"].as_str().unwrap(), row["id"].as_str().unwrap())) == id;
    rows().iter().find(is_it).map_or(0, |row| row["text"].as_str().unwrap().split_whitespace().count() as u64)
}

#[test]
fn licences_addresses_and_lists_name_documents_too() {
    let dir = tempfile::tempdir().unwrap();
    let data = prepared(dir.path());
    let list = dir.path().join("asked.txt");
    std::fs::write(&list, "id: row-1\nurl: https://news.example.ma/page/2\n").unwrap();
    let mut selection = select(&[("licence", "cc by 4.0"), ("url", "https://example.org/page/3")]);
    selection.read_list(&list).unwrap();
    let report = removal::remove(&data, &selection, &Cause::default(), false, &|_| {}, &NEVER).unwrap();
    // 30 under the licence; pages 3 30 35, 2 21 to 24 26 to 29, and row 1, less those of the licence.
    assert_eq!(report.removal.by_entry.get("licence"), Some(&30));
    assert_eq!(report.removal.by_entry.get("id"), Some(&1));
    assert!(documents(&data).iter().all(|(.., licence, _)| licence == "MIT"));
    assert!(!Dataset::open(&data).unwrap().manifest().licences.contains_key("CC-BY-4.0"));
    verify(&data, &|_| {}, &NEVER).unwrap();
}

#[test]
fn removals_that_make_no_sense_change_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let data = prepared(dir.path());
    let before = support::contents(dir.path());
    for (entries, part) in [
        (vec![("source", "nobody")], "no document fits source: nobody"),
        (vec![("licence", "*")], "nothing would be left of 120 documents"),
        (vec![], "nothing is named"),
    ] {
        let message = take_down(&data, &entries).unwrap_err().to_string();
        assert!(message.contains(part), "{message}");
        assert_eq!(support::contents(dir.path()), before);
    }
    assert!(take_down(&dir.path().join("none"), &[("id", "1")]).unwrap_err().to_string().contains("manifest.json"));
}

#[test]
fn a_stop_at_any_point_leaves_the_old_data_set() {
    use std::cell::Cell;
    use std::sync::atomic::{AtomicBool, Ordering};
    let dir = tempfile::tempdir().unwrap();
    let data = prepared(dir.path());
    let before = support::contents(dir.path());
    for after in 0..40 {
        let (stop, heard) = (AtomicBool::new(false), Cell::new(0));
        let observe = |_| {
            heard.set(heard.get() + 1);
            if heard.get() > after {
                stop.store(true, Ordering::Relaxed);
            }
        };
        match removal::remove(&data, &select(&[("source", "forum")]), &Cause::default(), false, &observe, &stop) {
            Err(_) => assert_eq!(support::contents(dir.path()), before, "stopped after {after}"),
            Ok(report) => {
                assert_eq!(verify(&data, &|_| {}, &NEVER).unwrap().id, report.removal.new);
                return;
            }
        }
    }
    panic!("the removal never ended");
}

/// A card to be looked at: `cargo nextest run -p data-pipeline --run-ignored only governance::` names the page.
#[test]
#[ignore = "for people to look at"]
#[allow(clippy::print_stderr)]
fn a_card_of_the_shared_corpora() {
    let Some(corpora) = support::shared("corpora") else { return };
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("card");
    _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).unwrap();
    let list = dir.join("opt-outs.txt");
    std::fs::write(&list, "domain: adala.justice.gov.ma\n").unwrap();
    let config = json!({
        "output_dir": dir.join("data"),
        "sources": [{"path": corpora.join("*/data.jsonl"), "exclude": ["*/doda-nc/*"]}],
        "allow_licences": ["*"],
        "opt_outs": {"lists": [list]},
        "tokenizer": {"train": {"vocab_size": 8192, "max_bytes": 8_000_000}},
    });
    let data = run(&config).unwrap().dir;
    let source = Dataset::open(&data).unwrap().train()[0].source().to_owned();
    take_down(&data, &[("source", &source)]).unwrap();
    eprintln!("{}", data.join("datacard.html").display());
}
