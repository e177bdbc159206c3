//! Owns the tests of the stage of `data scrub` on rows of a file: fields, reasons, the rows that go.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use data_pipeline::config::SourceConfig;
use data_pipeline::filter::{self, Inputs, Options, Summary, Watch};
use data_pipeline::scrub::{Scrub, ScrubConfig};
use serde_json::Value;

fn run(stage: &Scrub, rows: &str) -> (Vec<Value>, Summary) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("rows.jsonl");
    std::fs::write(&path, rows).unwrap();
    let inputs = Inputs::open(&[SourceConfig::at(path.to_string_lossy())]).unwrap();
    let (mut out, stop) = (Vec::new(), AtomicBool::new(false));
    let watch = Watch { observe: &|_| {}, stop: &stop };
    let summary = filter::run(&inputs, &Options::default(), stage, (&mut out, Path::new("out")), watch).unwrap();
    let text = String::from_utf8(out).unwrap();
    (text.lines().map(|line| serde_json::from_str(line).unwrap()).collect(), summary)
}

fn config(text: &str) -> ScrubConfig {
    serde_json::from_str(text).unwrap()
}

#[test]
fn rows_are_scrubbed_counted_and_dropped_with_a_reason() {
    let spam = "location voiture casablanca pas cher ".repeat(20);
    let rows = [
        r#"{"text": "Tél : 06 61 23 45 67 ou 0661234567", "lang": "fra_Latn", "year": 2024}"#.to_owned(),
        r#"{"text": "صباح الخير", "lang": "ary_Arab"}"#.to_owned(),
        format!(r#"{{"text": "{spam}", "lang": "fra_Latn"}}"#),
        r#"{"text": "carte 4111 1111 1111 1111", "lang": "fra_Latn"}"#.to_owned(),
    ]
    .join("\n");
    let config = config(r#"{"filters": {}, "pii": {"kinds": {"card": "drop"}}}"#);
    let stage = Scrub::new(&config).unwrap();
    let (kept, summary) = run(&stage, &rows);
    assert_eq!(kept.len(), 2);
    assert_eq!(kept[0]["text"], "Tél : <PHONE_1> ou <PHONE_1>");
    assert_eq!((&kept[0]["pii"]["phone"], &kept[0]["year"]), (&Value::from(2), &Value::from(2024)));
    assert_eq!(kept[1].get("pii"), None);
    assert_eq!(summary.counts.0.get("pii:phone"), Some(&2));
    let reasons: Vec<_> = summary.dropped.0.keys().map(String::as_str).collect();
    assert_eq!(reasons, ["filter:top_2_gram", "pii:card"]);
    let audit = stage.audit();
    assert!(audit.len() == 3 && audit.iter().all(|entry| !entry.context.contains("0661")), "{audit:?}");

    let (dropped, _) = run(&Scrub::new(&config).unwrap().only_dropped(), &rows);
    assert_eq!(dropped.len(), 2);
    assert_eq!(dropped[0]["reason"], "filter:top_2_gram");
    assert!(dropped[0]["details"]["signals"]["words"].as_f64().unwrap() > 50.0);
    assert_eq!((&dropped[1]["reason"], &dropped[1]["text"]), (&"pii:card".into(), &"carte 4111 1111 1111 1111".into()));
}

#[test]
fn signals_are_written_when_asked_for_and_wrong_limits_are_refused() {
    let stage = Scrub::new(&config(r#"{"filters": {}}"#)).unwrap().with_signals();
    let (kept, _) = run(&stage, r#"{"text": "0661234567 صباح الخير", "lang": "ary_Arab"}"#);
    assert_eq!(kept[0]["text"], "0661234567 صباح الخير");
    assert_eq!(kept[0]["signals"]["words"], 3.0);
    assert!(Scrub::new(&config(r#"{"filters": {"rules": {"symbols": -1}}}"#)).is_err());
}
