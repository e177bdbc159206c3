//! `jazari data normalize` and `data lexicon` as a user runs them: fields that pass through, counts, drops, refusals.

use std::fs;

use crate::support::{run, run_ok, text};
use serde_json::{Value, json};

fn lines(path: &std::path::Path) -> Vec<Value> {
    fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn rows_are_normalised_repaired_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let (raw, out) = (dir.path().join("raw.jsonl"), dir.path().join("out.jsonl"));
    let rows = [
        json!({"id": 1, "text": "الســلام ١٢ کیف بزاااف", "lang": "ary", "script": "Arab"}),
        json!({"text": "األشخاص واإلدارات االجتماعية", "lang": "arb_Arab", "year": 2020}),
        json!({"text": "3lach m9wd 7mmam TSD", "lang": "ary_Latn"}),
        json!({"text": "ǀƁǋƲƶŽȚ ƹǀƁǋ Ʋƶ ǀƁǋƲƶŽȚ ƹǀƁǋ Ʋƶ ǀƁǋƲƶŽȚ ƹǀƁǋ Ʋƶ"}),
    ];
    fs::write(&raw, rows.map(|row| row.to_string()).join("\n")).unwrap();
    let (raw, out_name) = (raw.to_str().unwrap(), out.to_str().unwrap());
    let done = run_ok(&["data", "normalize", raw, "--repair", "--changes", "--out", out_name]);
    assert!(text(&done).contains("garbage:glyph_soup"), "{}", text(&done));
    let found = lines(&out);
    assert_eq!(found.len(), 3);
    assert_eq!(found[0]["text"], "السلام 12 كيف بزااف");
    assert_eq!(found[0]["changes"], json!({"tatweel": 2, "persian_letter": 2, "digit": 2, "elongation": 1}));
    assert_eq!((&found[0]["id"], &found[1]["year"]), (&json!(1), &json!(2020)));
    assert_eq!(found[1]["text"], "الأشخاص والإدارات الاجتماعية");
    assert_eq!(found[1]["changes"], json!({"lam_alef": 3}));
    assert_eq!(found[2]["text"], "3lach m9wd 7mmam TSD");
    assert_eq!(found[2]["changes"], json!({}));
    // A second time nothing is left to do.
    let again = dir.path().join("again.jsonl");
    run_ok(&["data", "normalize", out_name, "--repair", "--out", again.to_str().unwrap()]);
    assert_eq!(fs::read(&out).unwrap(), fs::read(&again).unwrap());
}

#[test]
fn a_learned_list_helps_and_wrong_ones_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    fs::write(path("clean.jsonl"), "{\"text\": \"الأمن بولاغسون بولاغسون\"}\n").unwrap();
    fs::write(path("raw.jsonl"), "{\"text\": \"األمن بوالغسون\"}\n").unwrap();
    run_ok(&["data", "lexicon", &path("clean.jsonl"), "--out", &path("words.txt")]);
    assert_eq!(fs::read_to_string(path("words.txt")).unwrap(), "بولاغسون\t2\n");
    let out = path("out.jsonl");
    run_ok(&["data", "normalize", &path("raw.jsonl"), "--repair", "--lexicon", &path("words.txt"), "--out", &out]);
    assert_eq!(lines(out.as_ref())[0]["text"], "الأمن بولاغسون");
    fs::remove_file(&out).unwrap();
    fs::write(path("words.txt"), "no list\n").unwrap();
    let refused =
        run(&["data", "normalize", &path("raw.jsonl"), "--repair", "--lexicon", &path("words.txt"), "--out", &out]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(text(&refused).contains("words.txt") && text(&refused).contains("line 1"), "{}", text(&refused));
    let refused = run(&["data", "normalize", &path("raw.jsonl"), "--max-garbage", "9", "--repair", "--out", &out]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(!std::path::Path::new(&out).exists());
}
