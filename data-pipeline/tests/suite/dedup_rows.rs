//! `data dedup` and `data decontaminate` over files: what is marked, dropped and listed.

use std::path::{Path, PathBuf};

use crate::support::NEVER;
use data_pipeline::config::SourceConfig;
use data_pipeline::decontaminate::{Benchmarks, DecontaminateConfig, rows as hits};
use data_pipeline::filter::{Inputs, Options, Summary, Watch};
use data_pipeline::near::rows::{DedupPlan, DedupReport, DedupWatch, dedup};
use data_pipeline::near::{NearConfig, ParagraphConfig};
use serde_json::Value;

const SOUK: &str = "lyoum mchina l souk w chrina khodra w fakiha";
const CHTA: &str = "lbare7 kanet chta bzaf f casablanca w f rbat";

fn long(extra: &str) -> String {
    format!("{} {extra}", (0..60).map(|i| format!("kelma{i}")).collect::<Vec<_>>().join(" "))
}

fn row(text: &str, lang: &str) -> String {
    serde_json::json!({"id": text.len(), "text": text, "lang": lang, "more": [1, 2]}).to_string()
}

/// Two files with a broken row, a blank line, and duplicates of every kind.
fn files(dir: &Path) -> Vec<PathBuf> {
    let notice = "had l'mawqi3 kayst3mel l'cookies bach y7essen tajriba dyalk";
    let a = [
        row(&long("a"), "ary_Latn"),
        "{broken".to_owned(),
        String::new(),
        row("Salam labas 3lik!", "ary_Latn"),
        row("salam  LABAS 3lik", "ary_Latn"),
        row("salam labas 3lik", "fra_Latn"),
        row(&format!("{SOUK}\n{notice}"), "ary_Latn"),
    ];
    let b = [
        row(&format!("{CHTA}\n{notice}"), "ary_Latn"),
        row(&long("b"), "ary_Latn"),
        row(notice, "ary_Latn"),
        row(&long("A"), "ary_Latn"),
    ];
    let write = |name: &str, lines: &[String]| {
        let path = dir.join(name);
        std::fs::write(&path, lines.join("\n")).unwrap();
        path
    };
    vec![write("a.jsonl", &a), write("b.jsonl", &b)]
}

fn plan(leave_out: bool, paragraphs: bool) -> DedupPlan {
    DedupPlan {
        exact: true,
        paragraphs: paragraphs.then(ParagraphConfig::default),
        near: Some(NearConfig { short_words: 10, ..NearConfig::default() }),
        leave_out,
        memory_mib: 1,
        names: vec!["a".into(), "b".into()],
    }
}

type Outcome = (Vec<Value>, Vec<Value>, Summary, DedupReport);

fn run(paths: &[PathBuf], plan: &DedupPlan) -> Outcome {
    let dir = tempfile::tempdir().unwrap();
    let sources: Vec<SourceConfig> = paths.iter().map(|path| SourceConfig::at(path.display().to_string())).collect();
    let inputs = Inputs::open(&sources).unwrap();
    let (mut out, mut clusters) = (Vec::new(), Vec::new());
    let watch = DedupWatch { watch: Watch { observe: &|_| (), stop: &NEVER }, phase: &|_| (), scratch: dir.path() };
    let (summary, report) = dedup(
        (&inputs, &Options::default()),
        plan,
        (&mut out, Path::new("out")),
        Some((&mut clusters, Path::new("clusters"))),
        &watch,
    )
    .unwrap();
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    let lines = |bytes: Vec<u8>| -> Vec<Value> {
        String::from_utf8(bytes).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    (lines(out), lines(clusters), summary, report)
}

#[test]
fn duplicates_are_marked_with_the_row_that_stays() {
    let dir = tempfile::tempdir().unwrap();
    let (rows, clusters, summary, report) = run(&files(dir.path()), &plan(false, false));
    assert_eq!((rows.len(), summary.rows, summary.kept), (9, 11, 9));
    let marks: Vec<(&str, &str)> = rows
        .iter()
        .map(|row| (row["duplicate_of"].as_str().unwrap_or(""), row["duplicate_kind"].as_str().unwrap_or("")))
        .collect();
    let expected = [
        ("", ""),
        ("", ""),
        ("a:4", "exact"),
        ("a:4", "near"),
        ("", ""),
        ("", ""),
        ("a:1", "near"),
        ("", ""),
        ("a:1", "exact"),
    ];
    assert_eq!(marks, expected);
    assert!(rows.iter().all(|row| row["more"][1] == 2), "other fields pass through");
    assert_eq!((report.exact, report.near), (2, 2));
    assert_eq!(clusters.len(), 2);
    assert_eq!(clusters[0].to_string(), r#"{"kept":"a:1","size":3,"duplicates":["b:2","b:4"]}"#);
    assert_eq!(report.clusters.into_iter().collect::<Vec<_>>(), [(3, 2)]);
}

#[test]
fn duplicates_and_paragraphs_are_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let (rows, _, summary, report) = run(&files(dir.path()), &plan(true, true));
    let texts: Vec<&str> = rows.iter().map(|row| row["text"].as_str().unwrap()).collect();
    assert_eq!(texts.len(), 4);
    assert_eq!(texts[1], "Salam labas 3lik!");
    assert!(texts[2].starts_with(SOUK) && texts[2].ends_with("dyalk"));
    assert_eq!(texts[3], CHTA);
    assert_eq!(rows[3]["paragraphs_removed"], 1);
    assert_eq!((report.paragraphs, report.distinct_paragraphs, report.emptied), (2, 1, 1));
    assert_eq!(summary.dropped.0["only_repeated_paragraphs"], 1);
    assert_eq!(summary.dropped.0["exact_duplicate"], 2);
    assert_eq!(summary.rows, summary.kept + 5 + 2);
}

#[test]
fn one_reading_leaves_out_what_two_readings_mark() {
    let dir = tempfile::tempdir().unwrap();
    let paths = files(dir.path());
    let two = DedupPlan { near: None, ..plan(false, false) };
    let one = DedupPlan { leave_out: true, ..two.clone() };
    assert!(one.is_one_reading() && !two.is_one_reading());
    let (mut marked, clusters, summary, report) = run(&paths, &two);
    marked.retain(|row| row.get("duplicate_of").is_none());
    let left = run(&paths, &one);
    assert_eq!((&left.0, &left.1, &left.3), (&marked, &clusters, &report));
    assert_eq!((left.2.rows, left.2.kept, left.2.dropped.0["exact_duplicate"]), (summary.rows, 7, 2));
}

#[test]
fn the_output_does_not_depend_on_threads() {
    let dir = tempfile::tempdir().unwrap();
    let paths = files(dir.path());
    let expected = run(&paths, &plan(false, true));
    for threads in [1, 3] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        assert_eq!(pool.install(|| run(&paths, &plan(false, true))), expected);
    }
}

#[test]
fn hits_are_listed_in_order_and_their_rows_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let bench = dir.path().join("bench");
    std::fs::create_dir(&bench).unwrap();
    std::fs::write(bench.join("sib.txt"), format!("Sâlam, labas 3lik\n{}\n", long("x"))).unwrap();
    let paths = files(dir.path());
    let sources: Vec<SourceConfig> = paths.iter().map(|path| SourceConfig::at(path.display().to_string())).collect();
    let inputs = Inputs::open(&sources).unwrap();
    let benchmarks = Benchmarks::open(&DecontaminateConfig::against(&bench)).unwrap();
    let (mut out, mut list) = (Vec::new(), Vec::new());
    let watch = Watch { observe: &|_| (), stop: &NEVER };
    let (summary, report) = hits::decontaminate(
        (&inputs, &Options::default()),
        &benchmarks,
        (&mut out, Path::new("out")),
        (&mut list, Path::new("hits")),
        watch,
    )
    .unwrap();
    let list: Vec<Value> =
        String::from_utf8(list).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let rows: Vec<&str> =
        list.iter().map(|hit| hit["document"].as_str().unwrap().rsplit('/').next().unwrap()).collect();
    assert_eq!(rows, ["a.jsonl:1", "b.jsonl:2", "b.jsonl:4"], "sâlam is another word than salam");
    assert_eq!(list[0]["action"], "drop");
    assert_eq!(list[0]["item"], 2);
    assert_eq!(list[0]["id"], long("a").len());
    assert_eq!(summary.dropped.0["benchmark"], 3);
    assert_eq!((report.hits, report.rows, report.items["sib.txt"]), (3, 3, 1));
}
