//! What lies beside texts: Dolma's attributes, dates of web archives, and publishers' opt-outs that a configuration may
//! set aside.

use std::io::Write;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use crate::support::{self, NEVER};
use data_pipeline::config::{Limits, PrepareConfig, SourceConfig};
use data_pipeline::dataset::Dataset;
use data_pipeline::documents::{ReadOptions, read_documents};
use data_pipeline::filter::{self, Counts, Inputs, Options, Row, Watch};
use data_pipeline::prepare::{PrepareError, Prepared, prepare};
use serde_json::{Value, json};

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

/// A Dolma corpus of `count` documents; the attributes of every tenth are absent, and pairs of them change places.
fn corpus(dir: &Path, count: usize) {
    for folder in ["documents/a", "attributes/lang/a", "attributes/quality/a"] {
        std::fs::create_dir_all(dir.join(folder)).unwrap();
    }
    let (mut documents, mut languages, mut qualities) = (String::new(), Vec::new(), String::new());
    for i in 0..count {
        let text = support::text("ary_Latn", i);
        documents += &format!("{}\n", json!({"id": format!("d{i}"), "text": text, "source": "web", "metadata": {}}));
        if i % 10 != 9 {
            languages.push(format!("{}\n", json!({"id": format!("d{i}"), "attributes": {"name": "ary_Latn"}})));
        }
        let score = json!({"id": format!("d{i}"), "attributes": {"quality__score": [[0, 4, i]]}});
        qualities += &format!("{score}\n");
    }
    (0..languages.len() / 2).step_by(3).for_each(|i| languages.swap(i, i + 1));
    std::fs::write(dir.join("documents/a/x.jsonl.gz"), gzip(&documents)).unwrap();
    std::fs::write(dir.join("attributes/lang/a/x.jsonl.gz"), gzip(&languages.concat())).unwrap();
    std::fs::write(dir.join("attributes/quality/a/x.jsonl.gz"), gzip(&qualities)).unwrap();
}

fn languages(source: &SourceConfig) -> Vec<String> {
    let mut found = Vec::new();
    let summary = read_documents(std::slice::from_ref(source), &ReadOptions::default(), &NEVER, &mut |document| {
        found.push(document.lang);
        Ok(())
    });
    assert_eq!(summary.unwrap().documents, found.len() as u64);
    found
}

#[test]
fn attributes_are_joined_by_id_where_a_field_is_taken_from_them() {
    let dir = tempfile::tempdir().unwrap();
    corpus(dir.path(), 300);
    let mut source = SourceConfig { lang: Some("und_Latn".into()), ..SourceConfig::at(dir.path().to_str().unwrap()) };
    assert!(languages(&source).iter().all(|lang| lang == "und_Latn"), "nobody asked for attributes");
    source.fields.lang = Some("attributes.name".into());
    for path in [dir.path().to_owned(), dir.path().join("documents"), dir.path().join("documents/a/x.jsonl.gz")] {
        source.path = path.to_str().unwrap().to_owned();
        let found = languages(&source);
        assert_eq!(found.len(), 300);
        for (i, lang) in found.iter().enumerate() {
            assert_eq!(lang, if i % 10 == 9 { "und_Latn" } else { "ary_Latn" }, "document {i}");
        }
    }
}

#[test]
fn one_stage_commands_see_the_attributes_of_every_tagger() {
    let dir = tempfile::tempdir().unwrap();
    corpus(dir.path(), 50);
    let inputs = Inputs::open(&[SourceConfig::at(dir.path().to_str().unwrap())]).unwrap();
    let mut scores = Vec::new();
    let map = |row: &Row<'_>, _: &mut Counts| (row.field("attributes.quality__score"), row.field("attributes.name"));
    let mut each = |found: (Option<Value>, Option<Value>)| {
        scores.push(found);
        Ok(())
    };
    let watch = Watch { observe: &|_| {}, stop: &AtomicBool::new(false) };
    let summary = filter::read(&inputs, &Options::default(), &map, &mut each, watch).unwrap();
    assert_eq!((summary.rows, scores.len()), (50, 50));
    for (i, (score, name)) in scores.iter().enumerate() {
        assert_eq!(score, &Some(json!([[0, 4, i]])));
        assert_eq!(name.is_some(), i % 10 != 9, "document {i}");
    }
}

fn config(dir: &Path, source: Value) -> Value {
    let mut config = json!({
        "output_dir": dir.join("data"),
        "sources": [{"path": dir.join("in"), "licence": "MIT", "lang": "ary_Latn"}],
        "allow_licences": ["MIT"],
        "validation": {"fraction": 0.0, "min_documents": 0},
        "tokenizer": {"train": {"vocab_size": 330}},
    });
    for (key, value) in source.as_object().unwrap() {
        config["sources"][0][key] = value.clone();
    }
    config
}

fn run(config: &Value) -> Result<Prepared, PrepareError> {
    let config: PrepareConfig = serde_json::from_value(config.clone()).unwrap();
    prepare(&config, &|_| {}, &NEVER)
}

#[test]
fn attributes_that_change_make_another_data_set() {
    let dir = tempfile::tempdir().unwrap();
    corpus(&dir.path().join("in"), 120);
    let config = config(dir.path(), json!({"fields": {"lang": "attributes.name"}}));
    let first = run(&config).unwrap();
    assert_eq!(first.stats.files.len(), 3, "the attributes are among the inputs");
    assert!(run(&config).unwrap().already);
    let path = dir.path().join("in/attributes/lang/a/x.jsonl.gz");
    std::fs::write(&path, gzip("{\"id\": \"d1\", \"attributes\": {\"name\": \"fra_Latn\"}}\n")).unwrap();
    let error = run(&config).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("another `attributes/lang/a/x.jsonl.gz`"), "{error}");
}

#[test]
fn damaged_attributes_are_damage() {
    let dir = tempfile::tempdir().unwrap();
    corpus(dir.path(), 300);
    let path = dir.path().join("attributes/quality/a/x.jsonl.gz");
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    let mut source = SourceConfig::at(dir.path().to_str().unwrap());
    source.fields.lang = Some("attributes.name".into());
    let read = read_documents(&[source], &ReadOptions::default(), &NEVER, &mut |_| Ok(()));
    let error = read.unwrap_err().to_string();
    assert!(error.contains("quality") && error.contains("damaged"), "{error}");
}

fn web_record(number: usize, date: &str, headers: &str) -> String {
    let text = [0, 1000, 2000, 3000].map(|more| support::text("ary_Latn", number + more)).join(" ");
    let page = format!("<html><body><article><p>{text}</p><p>{text} x</p></article></body></html>");
    let http = format!("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n{headers}\r\n{page}");
    format!(
        "WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: https://example.org/{number}\r\n{date}\
         Content-Type: application/http\r\nContent-Length: {}\r\n\r\n{http}\r\n\r\n",
        http.len()
    )
}

#[test]
fn the_date_of_a_web_page_stays_in_the_table() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("in")).unwrap();
    let date = |i: usize| (i % 3 != 1).then(|| format!("2026-03-{:02}T05:06:07Z", i % 28 + 1));
    let line = |i: usize| date(i).map(|date| format!("WARC-Date: {date}\r\n")).unwrap_or_default();
    let archive: String = (0..60).map(|i| web_record(i, &line(i), "")).collect();
    std::fs::write(dir.path().join("in/crawl.warc"), archive).unwrap();
    let plain: String = (100..110).map(|i| format!("{}\n", json!({"text": support::text("ary_Latn", i)}))).collect();
    std::fs::write(dir.path().join("in/plain.jsonl"), plain).unwrap();
    let config = config(dir.path(), json!({"source": "mixed"}));
    let prepared = run(&config).unwrap();
    let dataset = Dataset::open(&prepared.dir).unwrap();
    let component = &dataset.train()[0];
    let mut dates = std::collections::BTreeMap::new();
    for document in 0..component.num_documents() {
        let facts = component.facts(document).unwrap();
        dates.insert(facts.url, facts.notes.and_then(|notes| notes.date));
    }
    assert_eq!(dates.len(), 61, "the rows of the other file have no address");
    for i in 0..60 {
        assert_eq!(dates[&Some(format!("https://example.org/{i}"))], date(i), "page {i}");
    }
    assert_eq!(dates[&None], None);
}

#[test]
fn the_opt_out_of_a_page_counts_unless_the_configuration_sets_it_aside() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("in")).unwrap();
    let header = |i: usize| if i.is_multiple_of(2) { "X-Robots-Tag: noai\r\n" } else { "" };
    let archive: String = (0..40).map(|i| web_record(i, "", header(i))).collect();
    std::fs::write(dir.path().join("in/crawl.warc"), archive).unwrap();
    let mut config = config(dir.path(), json!({}));
    let kept = |config: &Value| {
        let stats = run(config).unwrap().stats;
        let tallies = stats.components.iter().map(|component| &component.tally);
        tallies.map(|tally| (tally.rows, tally.dropped.get("opt_out:noai").copied().unwrap_or(0))).collect::<Vec<_>>()
    };
    let sum = |found: Vec<(u64, u64)>| found.into_iter().fold((0, 0), |sum, next| (sum.0 + next.0, sum.1 + next.1));
    assert_eq!(sum(kept(&config)), (40, 20));
    std::fs::remove_dir_all(dir.path().join("data")).unwrap();
    config["opt_outs"] = json!({"markers": false});
    assert_eq!(sum(kept(&config)), (40, 0));
}

#[test]
fn a_joined_row_keeps_to_the_limit_of_a_record() {
    let dir = tempfile::tempdir().unwrap();
    corpus(dir.path(), 20);
    let mut source = SourceConfig { lang: Some("ary_Latn".into()), ..SourceConfig::at(dir.path().to_str().unwrap()) };
    source.fields.lang = Some("attributes.name".into());
    let limits = Limits { max_record_bytes: 40, ..Limits::default() };
    let options = ReadOptions { limits, ..ReadOptions::default() };
    let summary = read_documents(&[source], &options, &NEVER, &mut |_| Ok(())).unwrap();
    assert_eq!((summary.documents, summary.dropped["record_too_large"]), (0, 20));
}
