//! A preparation is whole or absent, the same bytes every time, and every row of its inputs is accounted for.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use data_pipeline::config::PrepareConfig;
use data_pipeline::dataset::Dataset;
use data_pipeline::prepare::{PrepareError, PrepareEvent, Prepared, Stage, prepare};
use serde_json::{Value, json};

/// Two small corpora in four languages, with a duplicate, a blank line and a broken row.
fn write_inputs(dir: &Path) {
    let row = |text: String, lang: &str, source: &str| {
        json!({"text": text, "lang": lang, "source": source, "licence": "MIT", "url": "https://example.org/a"})
            .to_string()
    };
    let mut a: Vec<String> = (0..300).map(|i| row(format!("واش نقدر نسولك سؤال رقم {i}؟"), "ary_Arab", "a")).collect();
    a.extend((0..200).map(|i| row(format!("wach n9der nsewlek so2al {i}"), "ary_Latn", "a")));
    a.push(row("Wach n9der   nsewlek so2al 7 !".into(), "ary_Latn", "a"));
    a.push(String::new());
    a.push("{\"text\": \"cut".into());
    std::fs::write(dir.join("a.jsonl"), a.join("\n") + "\n").unwrap();
    let mut b: Vec<String> = (0..90).map(|i| row(format!("ⵢⴰⵏ ⵓⵎⵙⵏⴼⵍ ⵏ ⵉⴹⵕⵉⵚⵏ {i}"), "zgh_Tfng", "b")).collect();
    b.extend((0..90).map(|i| row(format!("une phrase en français, numéro {i}"), "fra_Latn", "b")));
    b.extend((0..30).map(|i| row(format!("واش نقدر نسولك سؤال رقم {i}؟"), "ary_Arab", "b")));
    std::fs::write(dir.join("b.jsonl"), b.join("\n")).unwrap();
}

fn config(dir: &Path, out: &str) -> Value {
    json!({
        "output_dir": dir.join(out),
        "sources": [{"path": dir.join("*.jsonl")}],
        "allow_licences": ["MIT"],
        "validation": {"fraction": 0.05, "min_documents": 4},
        "tokenizer": {"train": {"vocab_size": 400}},
    })
}

fn run(config: &Value) -> Result<Prepared, PrepareError> {
    run_observed(config, &|_| {})
}

fn run_observed(config: &Value, observe: &dyn Fn(&PrepareEvent)) -> Result<Prepared, PrepareError> {
    prepare(&serde_json::from_value(config.clone()).unwrap(), observe, &AtomicBool::new(false))
}

/// Every file of a folder with its bytes.
fn contents(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if path.is_dir() {
            found.extend(contents(&path).into_iter().map(|(below, bytes)| (format!("{name}/{below}"), bytes)));
        } else {
            found.insert(name, std::fs::read(&path).unwrap());
        }
    }
    found
}

#[test]
fn every_row_is_kept_or_dropped_for_a_reason() {
    let dir = tempfile::tempdir().unwrap();
    write_inputs(dir.path());
    let done = run(&config(dir.path(), "out")).unwrap();
    let total = &done.stats.total;
    assert_eq!(total.rows, 503 + 210);
    assert_eq!(total.documents, 300 + 200 + 90 + 90);
    let dropped: Vec<(&str, u64)> = total.dropped.iter().map(|(r, n)| (r.as_str(), *n)).collect();
    assert_eq!(dropped, [("blank_line", 1), ("duplicate", 31), ("invalid_json", 1)]);
    done.stats.reconcile().unwrap();
    let languages = done.stats.by_language();
    assert_eq!(languages["ary_Arab"].rows, 330);
    assert_eq!(languages["ary_Arab"].duplicates(), 30);
    assert_eq!(languages["ary_Latn"].duplicates(), 1);
    assert_eq!(languages["zgh_Tfng"].documents, 90);
    assert_eq!(languages["und_Zzzz"].rows, 2);
    for lang in ["ary_Arab", "ary_Latn", "zgh_Tfng", "fra_Latn"] {
        assert!(languages[lang].validation_documents >= 1, "{lang}");
        assert!(languages[lang].train_tokens > 0 && languages[lang].validation_tokens > 0, "{lang}");
    }

    let dataset = Dataset::open(&done.dir).unwrap();
    assert_eq!(dataset.id(), done.id);
    let tokens: u64 = dataset.train().iter().chain(dataset.validation()).map(|c| c.num_tokens()).sum();
    assert_eq!(tokens, total.tokens());
    let quarantine = std::fs::read_to_string(done.dir.join("quarantine.jsonl")).unwrap();
    let entries: Vec<Value> = quarantine.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(entries.len() as u64, done.stats.quarantined);
    assert_eq!(entries[0]["file"], "a.jsonl");
    assert_eq!(entries[0]["row"], 503);
    assert_eq!(entries[0]["reason"], "invalid_json");
    assert_eq!(entries[0]["excerpt"], "{\"text\": \"cut");
    let input = std::fs::read_to_string(dir.path().join("a.jsonl")).unwrap();
    let at = entries[0]["byte"].as_u64().unwrap() as usize;
    assert!(input[at..].starts_with("{\"text\": \"cut"));
    let card = std::fs::read_to_string(done.dir.join("DATACARD.md")).unwrap();
    assert!(card.contains("| ary_Arab | 330 | 300 | 30 | 0 |"), "{card}");
    assert_eq!(data_pipeline::stats::Stats::read(&done.dir).unwrap(), done.stats);
}

#[test]
fn twice_and_elsewhere_and_on_other_threads_gives_the_same_bytes() {
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write_inputs(first.path());
    write_inputs(second.path());
    let expected = run(&config(first.path(), "out")).unwrap();
    let mut files = contents(&expected.dir);
    files.remove("inputs.json").unwrap();
    for threads in [1, 2, 5] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let config = config(second.path(), &format!("out{threads}"));
        let done = pool.install(|| run(&config)).unwrap();
        assert_eq!(done.id, expected.id);
        let mut again = contents(&done.dir);
        again.remove("inputs.json").unwrap();
        assert!(again == files, "{threads} threads wrote other bytes");
    }
    let mut other = config(first.path(), "seed");
    other["seed"] = json!(1);
    assert_ne!(run(&other).unwrap().id, expected.id);
}

#[test]
fn a_finished_dataset_is_recognised_and_another_is_not_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    write_inputs(dir.path());
    let config = config(dir.path(), "out");
    let first = run(&config).unwrap();
    let before = contents(dir.path());
    let again = run(&config).unwrap();
    assert!(!first.already && again.already);
    assert_eq!((again.id, again.stats), (first.id.clone(), first.stats.clone()));
    let expect = |config: &Value, what: &str| {
        let message = run(config).unwrap_err().to_string();
        let expected = format!("output_dir: {} holds a dataset with {what}", first.dir.display());
        assert!(message.starts_with(&expected), "{message}");
    };
    let mut changed = config.clone();
    changed["dedup"] = json!("none");
    expect(&changed, "another configuration; remove it, or name another folder");
    // The same bytes with another time are the same input.
    let input = dir.path().join("a.jsonl");
    let text = std::fs::read_to_string(&input).unwrap();
    std::fs::write(&input, &text).unwrap();
    assert!(run(&config).unwrap().already);
    assert!(contents(dir.path()) == before);
    std::fs::write(&input, text.replacen("رقم 7", "رقم ٧", 1).replacen("so2al 9\"", "so2al\"", 1)).unwrap();
    expect(&config, "another `a.jsonl`");
    std::fs::copy(&input, dir.path().join("c.jsonl")).unwrap();
    expect(&config, "2 input files where there are now 3");
}

#[test]
fn stopped_at_any_event_it_goes_on_to_the_same_dataset() {
    let dir = tempfile::tempdir().unwrap();
    write_inputs(dir.path());
    let expected = run(&config(dir.path(), "whole")).unwrap().id;
    let events = RefCell::new(0);
    run_observed(&config(dir.path(), "counted"), &|_| *events.borrow_mut() += 1).unwrap();
    let (mut stopped, mut reused) = (0, 0);
    for at in 0..events.into_inner() {
        let config = config(dir.path(), &format!("out{at}"));
        let (seen, stop) = (RefCell::new(0), AtomicBool::new(false));
        let observe = |_: &PrepareEvent| {
            stop.fetch_or(*seen.borrow() == at, Ordering::Relaxed);
            *seen.borrow_mut() += 1;
        };
        let parsed: PrepareConfig = serde_json::from_value(config.clone()).unwrap();
        let id = match prepare(&parsed, &observe, &stop) {
            Ok(done) => done.id,
            Err(PrepareError::Interrupted { .. }) => {
                stopped += 1;
                assert!(!parsed.output_dir.exists());
                let observe = |event: &PrepareEvent| {
                    if let PrepareEvent::StageFinished { reused: true, .. } = event {
                        *seen.borrow_mut() += 1000;
                    }
                };
                let id = run_observed(&config, &observe).unwrap().id;
                reused += seen.into_inner() / 1000;
                id
            }
            Err(other) => panic!("{other}"),
        };
        assert_eq!(id, expected, "stopped at event {at}");
        assert!(!dir.path().join(format!(".out{at}.preparing")).exists());
    }
    assert!(stopped >= 4, "{stopped}");
    assert!(reused >= 2, "{reused}");
}

#[test]
fn a_changed_spool_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    write_inputs(dir.path());
    let expected = run(&config(dir.path(), "whole")).unwrap().id;
    let config = config(dir.path(), "out");
    let stop = AtomicBool::new(false);
    let observe = |event: &PrepareEvent| {
        let read = PrepareEvent::StageFinished { stage: Stage::Read, reused: false };
        stop.fetch_or(*event == read, Ordering::Relaxed);
    };
    let parsed: PrepareConfig = serde_json::from_value(config.clone()).unwrap();
    assert!(matches!(prepare(&parsed, &observe, &stop), Err(PrepareError::Interrupted { .. })));
    let parts = std::fs::read_dir(dir.path().join(".out.preparing")).unwrap().map(|entry| entry.unwrap().path());
    let parts = parts.into_iter().find(|path| path.file_name().unwrap().to_str().unwrap().starts_with("parts-"));
    let spool = parts.unwrap().join("00000/00000.bin");
    let mut bytes = std::fs::read(&spool).unwrap();
    bytes[100] ^= 1;
    std::fs::write(&spool, bytes).unwrap();
    let reused = RefCell::new(Vec::new());
    let observe = |event: &PrepareEvent| {
        if let PrepareEvent::StageFinished { stage, reused: again } = event {
            reused.borrow_mut().push((*stage, *again));
        }
    };
    assert_eq!(run_observed(&config, &observe).unwrap().id, expected);
    assert_eq!(reused.into_inner()[0], (Stage::Read, false));
}

#[test]
fn damage_can_be_quarantined() {
    let dir = tempfile::tempdir().unwrap();
    write_inputs(dir.path());
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut encoder, &std::fs::read(dir.path().join("b.jsonl")).unwrap()).unwrap();
    let whole = encoder.finish().unwrap();
    std::fs::write(dir.path().join("z.jsonl.gz"), &whole[..whole.len() * 3 / 4]).unwrap();
    let mut config = config(dir.path(), "out");
    config["sources"] = json!([{"path": dir.path().join("a.jsonl")}, {"path": dir.path().join("z.jsonl.gz")}]);
    config["on_damage"] = json!("quarantine");
    let warnings = RefCell::new(Vec::new());
    let done = run_observed(&config, &|event| {
        if let PrepareEvent::Warning(text) = event {
            warnings.borrow_mut().push(text.clone());
        }
    })
    .unwrap();
    assert!(warnings.into_inner().iter().any(|w| w.contains("z.jsonl.gz: damaged at or before byte")));
    assert_eq!(done.stats.total.dropped["damaged_file"], 1);
    assert!(done.stats.files[1].damage.as_ref().unwrap().contains("ends too early"));
    assert!(done.stats.files[1].documents > 30);
    done.stats.reconcile().unwrap();
}

#[test]
fn equal_texts_stay_on_one_side_of_the_split_and_dedup_can_be_off() {
    let dir = tempfile::tempdir().unwrap();
    write_inputs(dir.path());
    let mut config = config(dir.path(), "out");
    config["dedup"] = json!("none");
    config["validation"] = json!({"fraction": 0.3, "min_documents": 0});
    let done = run(&config).unwrap();
    assert_eq!(done.stats.total.documents, 300 + 201 + 90 + 90 + 30);
    let of = |source: &str| {
        let component = done.stats.components.iter().find(|c| c.lang == "ary_Arab" && c.source == source).unwrap();
        component.tally.validation_documents
    };
    assert!(of("b") > 0 && of("b") < 30 && of("a") > of("b"));
}

#[test]
fn a_given_tokenizer_is_used_and_kept() {
    let dir = tempfile::tempdir().unwrap();
    write_inputs(dir.path());
    let trained = run(&config(dir.path(), "trained")).unwrap();
    let mut config = config(dir.path(), "given");
    config["tokenizer"] = json!({"path": trained.dir.join("tokenizer/tokenizer.json")});
    let given = run(&config).unwrap();
    assert_eq!(given.stats, trained.stats);
    assert!(run(&config).unwrap().already);
    let (a, b) = (Dataset::open(&given.dir).unwrap(), Dataset::open(&trained.dir).unwrap());
    assert_eq!(a.manifest().tokenizer, b.manifest().tokenizer);
}
