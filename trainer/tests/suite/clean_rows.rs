//! `jazari data clean` as a user runs it: what it keeps is what a preparation of the same sections keeps; steps,
//! dropped rows, refusals.

use std::fs;
use std::path::Path;

use crate::support::{run, run_ok, text};
use serde_json::{Value, json};

const RULES: &str = "normalize: moroccan-v1\nrepair: {}\nidentify: {}\nfilters: {}\npii: {}\n";

fn lines(path: &Path) -> Vec<Value> {
    fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Texts that each step has something to do with, beside the samples.
fn dirty_rows() -> String {
    let row = |text: &str, lang: &str| {
        json!({"text": text, "lang": lang, "source": "dirty", "licence": "CC0-1.0"}).to_string() + "\n"
    };
    [
        row("الســلام ١٢ کیف بزاااف ديال الناس هاد الصباح", "ary_Arab"),
        row("األشخاص واإلدارات االجتماعية والمؤسسات العمومية", "arb_Arab"),
        row("Bonjour, appelez le 06 61 23 45 67 ou écrivez à amina@example.ma avant la fin du mois.", "fra_Latn"),
        row("This is surely an English sentence, whatever the row says about its language.", "fra_Latn"),
        row("ǀƁǋƲƶŽȚ ƹǀƁǋ Ʋƶ ǀƁǋƲƶŽȚ ƹǀƁǋ Ʋƶ ǀƁǋƲƶŽȚ ƹǀƁǋ Ʋƶ", "arb_Arab"),
        row("هاد النص ديال الناس كاملين وما كاينش شي لغة مكتوبة معاه هنا", "und_Zzzz"),
        row(&"location voiture casablanca pas cher ".repeat(20), "fra_Latn"),
        row(" \u{200f}\u{200b} ", "ary_Arab"),
    ]
    .concat()
}

#[test]
fn cleaned_rows_are_the_documents_of_a_preparation() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    fs::write(path("dirty.jsonl"), dirty_rows()).unwrap();
    fs::write(path("rules.yaml"), RULES).unwrap();
    let config = format!(
        "output_dir: {}\nsources: [{{path: samples/*.jsonl}}, {{path: {}}}]\nallow_licences: [CC0-1.0]\ndedup: none\n\
         tokenizer: {{train: {{vocab_size: 300}}}}\n{RULES}",
        path("data"),
        path("dirty.jsonl"),
    );
    fs::write(path("data.yaml"), config).unwrap();
    run_ok(&["data", "prepare", &path("data.yaml")]);
    run_ok(&["data", "convert", &path("data"), "--to", "jsonl", "--out", &path("prepared.jsonl")]);
    let inputs = ["samples/*.jsonl", &path("dirty.jsonl"), "--rules", &path("rules.yaml")];
    let done = run_ok(&[&["data", "clean"], &inputs[..], &["--out", &path("clean.jsonl")]].concat());
    let label = |row: &Value| {
        let (lang, script) = (row["lang"].as_str().unwrap(), row["script"].as_str().unwrap_or_default());
        if lang.contains('_') { lang.to_owned() } else { format!("{lang}_{script}") }
    };
    let documents = |name: &str| {
        let rows = lines(path(name).as_ref());
        let mut found: Vec<_> = rows.iter().map(|row| (label(row), row["text"].as_str().unwrap().to_owned())).collect();
        found.sort();
        found
    };
    let (cleaned, prepared) = (documents("clean.jsonl"), documents("prepared.jsonl"));
    assert_eq!(cleaned, prepared);
    let has = |part: &str| cleaned.iter().any(|(_, text)| text.contains(part));
    assert!(has("السلام 12 كيف بزااف") && has("الأشخاص والإدارات الاجتماعية") && has("<PHONE_1>"), "{cleaned:?}");
    assert!(cleaned.iter().any(|(label, text)| label == "eng_Latn" && text.starts_with("This is surely")));
    // Dropped for the same reasons.
    let stats: Value = serde_json::from_slice(&run_ok(&["data", "stats", &path("data"), "--json"]).stdout).unwrap();
    let dropped = stats["total"]["dropped"].as_object().unwrap();
    assert_eq!(dropped.len(), 3, "{dropped:?}");
    for (reason, count) in dropped {
        assert!(
            text(&done).lines().any(|line| line.ends_with(&format!("{:>12}  {reason}", count.as_u64().unwrap()))),
            "{reason} {count} is not in\n{}",
            text(&done)
        );
    }
}

#[test]
fn steps_are_chosen_and_dropped_rows_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    fs::write(path("dirty.jsonl"), dirty_rows()).unwrap();
    let clean = |more: &[&str]| {
        run_ok(&[&["data", "clean", &path("dirty.jsonl"), "--out", &path("out.jsonl")], more].concat());
        lines(path("out.jsonl").as_ref())
    };
    let scrubbed = clean(&["--steps", "pii"]);
    assert_eq!(scrubbed.len(), 8);
    assert_eq!(scrubbed[0]["text"], "الســلام ١٢ کیف بزاااف ديال الناس هاد الصباح");
    assert!(scrubbed[2]["text"].as_str().unwrap().contains("<EMAIL_1>"), "{}", scrubbed[2]);
    let whole = clean(&["--notes", "--dropped", &path("dropped.jsonl")]);
    assert_eq!(whole[0]["notes"]["history"]["normalize:tatweel"], 2);
    assert_eq!(whole[0]["notes"]["identified"], "ary_Arab");
    assert_eq!((&whole[3]["lang"], &whole[3]["notes"]["given"]), (&json!("eng_Latn"), &json!("fra_Latn")));
    let reasons: Vec<Value> = lines(path("dropped.jsonl").as_ref()).iter().map(|row| row["reason"].clone()).collect();
    assert_eq!(reasons, ["garbage:glyph_soup", "filter:top_2_gram", "empty_text"]);
    assert_eq!(whole[4]["lang"], "ary_Arab");
    assert_eq!(whole.len() + reasons.len(), 8);
    // A second time nothing is left to do.
    run_ok(&["data", "clean", &path("out.jsonl"), "--out", &path("again.jsonl")]);
    assert_eq!(fs::read(path("out.jsonl")).unwrap(), fs::read(path("again.jsonl")).unwrap());
}

#[test]
fn wrong_rules_and_steps_are_refused_and_nothing_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    fs::write(path("dirty.jsonl"), dirty_rows()).unwrap();
    fs::write(path("rules.yaml"), "identify: {min_score: 7}\nfilter: {}\n").unwrap();
    fs::write(path("wrong.yaml"), "identify: {min_score: 7}\nrepair: {max_garbage: 9}\n").unwrap();
    let (input, out) = (path("dirty.jsonl"), path("out.jsonl"));
    for (more, told) in [
        (vec!["--rules", &path("rules.yaml")], vec!["rules.yaml", "filter"]),
        (vec!["--rules", &path("wrong.yaml")], vec!["min_score", "repair.max_garbage"]),
        (vec!["--rules", &path("absent.yaml")], vec!["absent.yaml"]),
        (vec!["--steps", "normalise"], vec!["normalise", "normalize, repair, identify, filters, pii"]),
        (vec!["--dropped", &input], vec!["--dropped", "one of the inputs"]),
    ] {
        let refused = run(&[&["data", "clean", &input, "--out", &out][..], &more[..]].concat());
        assert_eq!(refused.status.code(), Some(2), "{more:?}: {}", text(&refused));
        assert!(told.iter().all(|part| text(&refused).contains(part)), "{more:?}: {}", text(&refused));
        assert!(!Path::new(&out).exists());
    }
    assert_eq!(fs::read_to_string(&input).unwrap(), dirty_rows());
}
