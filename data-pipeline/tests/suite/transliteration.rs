//! Owns the tests of `data transliterate` on rows of a file, and its figures on the corpora:
//! `cargo test --release -p data-pipeline --test suite -- --ignored --nocapture transliteration`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::AtomicBool;

use data_pipeline::config::SourceConfig;
use data_pipeline::filter::{self, Inputs, Options, Summary, Watch};
use data_pipeline::normalize::key_form;
use data_pipeline::transliterate::{Target, TransliterateStage, is_reversible, to_arabic};
use serde_json::Value;

use crate::support::shared;

fn run(stage: &TransliterateStage, rows: &str) -> (Vec<Value>, Summary) {
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

#[test]
fn rows_say_that_they_are_no_originals() {
    let rows = [
        r#"{"text": "ⵜⴰⵎⴰⵣⵉⵖⵜ", "lang": "zgh", "script": "Tfng", "n": 1}"#,
        r#"{"text": "ⴰⵣⵓⵍ", "lang": "zgh_Tfng"}"#,
        r#"{"text": "ⴰⵣⵓⵍ"}"#,
        r#"{"text": "bonjour ⴰⵣⵓⵍ", "lang": "fra_Latn"}"#,
        r#"{"text": "ⵒⴰⵔⵉⵙ", "lang": "zgh_Tfng", "script": "Tfng"}"#,
    ]
    .join("\n");
    let (out, summary) = run(&TransliterateStage::new(Target::Latin, false), &rows);
    let texts: Vec<&str> = out.iter().map(|row| row["text"].as_str().unwrap()).collect();
    assert_eq!(texts, ["tamaziɣt", "azul", "azul", "bonjour ⴰⵣⵓⵍ", "paris"]);
    assert_eq!((&out[0]["lang"], &out[0]["script"], &out[0]["n"]), (&"zgh".into(), &"Latn".into(), &1.into()));
    assert_eq!((&out[1]["lang"], out[1].get("script")), (&"zgh_Latn".into(), None));
    assert_eq!((&out[4]["lang"], &out[4]["script"]), (&"zgh_Latn".into(), &"Latn".into()));
    assert_eq!(out[2]["transliterated"], "Tfng>Latn");
    assert_eq!(out[3].get("transliterated"), None);
    let counts: Vec<_> = summary.counts.0.into_iter().collect();
    let expected = [("not_reversible", 1), ("passed", 1), ("reversible", 3), ("transliterated", 4)];
    assert_eq!(counts, expected.map(|(name, count)| (name.to_owned(), count)));
}

#[test]
fn what_was_made_so_is_not_made_so_again() {
    let rows = r#"{"text": "salam 3likom", "lang": "ary_Latn"}"#;
    let (once, _) = run(&TransliterateStage::new(Target::Arabic, false), rows);
    assert_eq!((&once[0]["text"], &once[0]["lang"]), (&"سالام عليكوم".into(), &"ary_Arab".into()));
    let latin = r#"{"text": "azul", "lang": "shi_Latn", "transliterated": "Tfng>Latn"}"#;
    let (kept, summary) = run(&TransliterateStage::new(Target::Tifinagh, false), latin);
    assert_eq!((&kept[0]["text"], summary.changed), (&"azul".into(), 0));
    let (none, summary) = run(&TransliterateStage::new(Target::Tifinagh, true), latin);
    assert_eq!((none.len(), summary.dropped.0.get("other_script")), (0, Some(&1)));
}

/// Single-character edits that turn `a` into `b`.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut before = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let above = row[j + 1];
            row[j + 1] = (before + usize::from(x != y)).min(above + 1).min(row[j] + 1);
            before = above;
        }
    }
    row[b.len()]
}

/// Agreement of two texts: edits, characters of the second, equal words and all words where both have as many.
fn agreement(made: &str, real: &str) -> [usize; 4] {
    let key = |text: &str| {
        let mut key = String::new();
        key_form(text, &mut key);
        key
    };
    let (made, real) = (key(made), key(real));
    let letters = |text: &str| text.chars().collect::<Vec<char>>();
    let (a, b): (Vec<&str>, Vec<&str>) = (made.split(' ').collect(), real.split(' ').collect());
    let equal = if a.len() == b.len() { a.iter().zip(&b).filter(|(a, b)| a == b).count() } else { 0 };
    let all = if a.len() == b.len() { a.len() } else { 0 };
    [distance(&letters(&made), &letters(&real)), real.chars().count(), equal, all]
}

fn rows(file: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn print(name: &str, sums: [usize; 4]) {
    let percent = |part: usize, all: usize| 100.0 * part as f64 / all.max(1) as f64;
    println!(
        "{name}: {} characters, {:.1} % to edit; {} words, {:.1} % equal",
        sums[1],
        percent(sums[0], sums[1]),
        sums[3],
        percent(sums[2], sums[3])
    );
}

#[test]
#[ignore = "prints figures; needs ../shared"]
fn figures() {
    let Some(corpora) = shared("corpora") else { return };
    let mut folders: Vec<_> = std::fs::read_dir(&corpora).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    let all: Vec<Value> = folders.iter().flat_map(|folder| rows(&folder.join("data.jsonl"))).collect();
    let text = |row: &Value| row["text"].as_str().unwrap_or_default().to_owned();
    let mut there_and_back: BTreeMap<String, [usize; 2]> = BTreeMap::new();
    for row in all.iter().filter(|row| row["script"] == "Tfng") {
        let sums = there_and_back.entry(format!("{}_Tfng {}", row["lang"], row["source"])).or_default();
        let is_back = is_reversible(&text(row));
        if !is_back {
            println!("not reversible: {}", text(row).chars().take(100).collect::<String>().replace('\n', " "));
        }
        *sums = [sums[0] + usize::from(is_back), sums[1] + 1];
    }
    for (name, [back, all]) in there_and_back {
        println!("{name}: {back} of {all} texts come back from Latin as they were");
    }
    // Names and terms of CLDR in both scripts: files of `shi` and `shi-Latn`, a line each, repetitions left out.
    let shilha = |script: &str| {
        let rows = all.iter().filter(|row| row["source"] == "cldr" && row["lang"] == "shi" && row["script"] == script);
        rows.flat_map(|row| text(row).lines().map(str::to_owned).collect::<Vec<_>>())
            .filter(|line| line.chars().filter(|c| c.is_alphabetic() && *c > 'z' || "aiu".contains(*c)).count() > 1)
            .collect::<BTreeSet<String>>()
    };
    let (latin, tifinagh) = (shilha("Latn"), shilha("Tfng"));
    let found = latin.iter().filter(|line| tifinagh.contains(Target::Tifinagh.write(line, Some("shi_Latn")).as_ref()));
    println!(
        "CLDR, shi: {} lines in Latin letters, {} of them in Tifinagh as well once written in it",
        latin.len(),
        found.count()
    );
    let missing =
        latin.iter().filter(|line| !tifinagh.contains(Target::Tifinagh.write(line, Some("shi_Latn")).as_ref()));
    missing.take(40).for_each(|line| println!("    {line}"));
    let key = |row: &Value| (row["url"].to_string(), row["row"].to_string());
    for source in ["doda-nc", "darija-phrases"] {
        let of = |script: &str| {
            let rows =
                all.iter().filter(|row| row["source"] == source && row["lang"] == "ary" && row["script"] == script);
            rows.filter(|row| !row["row"].is_null()).map(|row| (key(row), text(row))).collect::<BTreeMap<_, _>>()
        };
        let (latin, arabic) = (of("Latn"), of("Arab"));
        let mut sums = [0; 4];
        for (key, latin) in &latin {
            if let Some(arabic) = arabic.get(key) {
                sums.iter_mut().zip(agreement(&to_arabic(latin), arabic)).for_each(|(sum, more)| *sum += more);
            }
        }
        print(&format!("{source}, Arabizi > Arabic"), sums);
    }
}
