//! Prints how well languages are identified: every source is judged by a model that never saw it.
//!
//! `cargo test --release -p data-pipeline --test lid_evaluation -- --ignored --nocapture NAME`
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, clippy::print_stdout)]

mod support;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use data_pipeline::lid::confusion::Confusion;
use data_pipeline::lid::judge::Judge;
use data_pipeline::lid::lexicon::{BUILT_IN, Lexicon};
use data_pipeline::lid::train::{Corpus, FitConfig, is_learned, train};
use support::shared;

static GO_ON: AtomicBool = AtomicBool::new(false);

struct Row {
    text: String,
    label: String,
    source: String,
}

fn rows(folder: &Path) -> Vec<Row> {
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path().join("data.jsonl")).collect();
    files.sort();
    let mut rows = Vec::new();
    for file in files.iter().filter(|f| f.exists()) {
        for line in std::fs::read_to_string(file).unwrap().lines() {
            let row: serde_json::Value = serde_json::from_str(line).unwrap();
            let field = |name: &str| row[name].as_str().unwrap_or_default().to_owned();
            let label = format!("{}_{}", field("lang"), field("script"));
            rows.push(Row { text: field("text"), label, source: field("source") });
        }
    }
    rows
}

fn corpus(rows: &[Row], without: &[&str]) -> Corpus {
    let mut corpus = Corpus::default();
    for row in rows.iter().filter(|r| !without.contains(&r.source.as_str()) && is_learned(&r.label)) {
        corpus.push(&row.text, &row.label, &row.source);
    }
    corpus
}

fn judge(rows: &[Row], without: &[&str], scale: f64) -> Judge {
    let start = Instant::now();
    let corpus = corpus(rows, without);
    let models = train(&corpus, &FitConfig::default(), scale, &GO_ON).unwrap().unwrap();
    eprintln!("trained without {without:?} in {:.0} s", start.elapsed().as_secs_f64());
    Judge::new(Lexicon::parse(BUILT_IN), models)
}

fn report(judge: &Judge, rows: &[&Row]) -> (Confusion, BTreeMap<(String, String), (u64, u64)>) {
    let (mut all, mut by_source) = (Confusion::default(), BTreeMap::<_, (u64, u64)>::new());
    for row in rows {
        let found = judge.identify(&row.text);
        all.add(&row.label, &found.label);
        let entry = by_source.entry((row.label.clone(), row.source.clone())).or_default();
        entry.0 += 1;
        entry.1 += u64::from(found.label == row.label);
    }
    (all, by_source)
}

#[test]
#[ignore = "prints a table"]
fn probe() {
    let Some(folder) = shared("corpora") else { return };
    let rows = rows(&folder);
    let without: Vec<String> = std::env::var("WITHOUT").unwrap_or("doda-nc".into()).split(',').map(String::from).collect();
    let without: Vec<&str> = without.iter().map(String::as_str).collect();
    let judge = judge(&rows, &without, std::env::var("SCALE").map_or(0.5, |s| s.parse().unwrap()));
    for file in std::fs::read_dir("/tmp/eval").unwrap().map(|e| e.unwrap().path()) {
        let mut confusion = Confusion::default();
        let name = file.file_stem().unwrap().to_str().unwrap().to_owned();
        for line in std::fs::read_to_string(&file).unwrap().lines() {
            let found = judge.identify(line);
            confusion.add(&name, &found.label);
            if !found.label.starts_with(&name.split('_').nth(1).unwrap_or_default()[..3]) {
                eprintln!("{} {:.2} {line}", found.label, found.score);
            }
        }
        println!("{}", confusion.table());
    }
    let unseen: Vec<&Row> = rows.iter().filter(|r| without.contains(&r.source.as_str())).collect();
    let (all, by_source) = report(&judge, &unseen);
    println!("{}", all.table());
    for ((label, source), (texts, right)) in by_source {
        println!("{label} {source} {texts} {:.3}", right as f64 / texts as f64);
    }
    let text: String = unseen.iter().map(|r| r.text.clone() + "\n").collect();
    let start = Instant::now();
    let mut n = 0;
    for row in &unseen {
        n += usize::from(!judge.identify(&row.text).label.is_empty());
    }
    let s = start.elapsed().as_secs_f64();
    println!("{n} rows {:.0}/s {:.1} MB/s", n as f64 / s, text.len() as f64 / s / 1e6);
}
