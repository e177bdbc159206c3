//! Planted contamination is found in other spellings; clean texts are not hit.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;

use super::*;

const QUESTION: &str = "شْنُو هِيَ أَوَّلُ مدينة في المغرب دخلات ليها الكهرباء فبداية القرن العشرين؟";
const PASSAGE: &str = "Le Haut Commissariat au Plan a publié hier son rapport annuel sur la situation économique du \
                       Royaume, qui relève une croissance de trois pour cent dans les régions du nord et du centre.";

fn benchmarks(config: impl FnOnce(&mut DecontaminateConfig)) -> (tempfile::TempDir, Benchmarks) {
    let dir = tempfile::tempdir().unwrap();
    let question = serde_json::json!({"id": 1, "question": QUESTION, "choices": ["طنجة", "فالقرن التاسع عشر الميلادي"]});
    fs::create_dir(dir.path().join("DarijaMMLU")).unwrap();
    fs::write(dir.path().join("DarijaMMLU/test.jsonl"), format!("{question}\n")).unwrap();
    fs::write(dir.path().join("sib200.fra_Latn.txt"), format!("{PASSAGE}\n\nwach nta labas 3lik\n")).unwrap();
    fs::write(dir.path().join("zgh_Tfng.dev"), "ⴰⵣⵓⵍ ⴼⵍⵍⴰⵡⵏ ⵎⴰⵏⵣⴰⴽⵉⵏ ⵜⴳⴰⵎ ⴰⵙⵙⴰ ⴷⵉ ⵜⵎⴷⵉⵏⵜ ⵏ ⵕⵕⴱⴰⵟ ⵖ ⵍⵎⵖⵔⵉⴱ\n").unwrap();
    let mut settings = DecontaminateConfig::against(dir.path());
    config(&mut settings);
    let mut problems = Vec::new();
    settings.check("decontaminate", &mut problems);
    assert!(problems.is_empty(), "{problems:?}");
    let benchmarks = Benchmarks::open(&settings).unwrap();
    (dir, benchmarks)
}

fn hits(benchmarks: &Benchmarks, text: &str, label: &str) -> Vec<(String, u32, Action)> {
    let hits = benchmarks.hits(text, label, &mut SearchBuffers::default());
    hits.into_iter().map(|hit| (hit.benchmark, hit.item, hit.action)).collect()
}

#[test]
fn items_are_found_in_other_spellings() {
    let (_dir, benchmarks) = benchmarks(|_| {});
    let darija = vec![("DarijaMMLU/test.jsonl".to_owned(), 1, Action::Drop)];
    for spelling in [
        QUESTION,
        "قبل السؤال: شنو هي اول مدينه فى المغرب دخلات ليها الكهرباء فبداية القرن العشرين ومن بعد",
        "شـــنو هي اول\nمدينة... في المغرب (دخلات) ليها الكَهرباء فبداية القرن العشرين",
        "ﺷﻨﻮ ﻫﻲ أول مدينة في المغرب دخلات ليها الكهرباء فبداية القرن العشرين",
    ] {
        assert_eq!(hits(&benchmarks, spelling, "ary_Arab"), darija, "{spelling}");
    }
    let shouted = PASSAGE.to_uppercase().replace('É', "E\u{301}");
    let sib = vec![("sib200.fra_Latn.txt".to_owned(), 1, Action::Drop)];
    assert_eq!(hits(&benchmarks, &format!("Bonjour. {shouted} Fin."), "fra_Latn"), sib);
    let latin = "d azul fllawn manzakin tgam assa di tmdint n ṛṛbaṭ ɣ lmɣrib";
    assert_eq!(hits(&benchmarks, latin, "zgh_Latn"), [("zgh_Tfng.dev".to_owned(), 1, Action::Drop)]);
}

#[test]
fn a_short_item_hits_only_where_it_stands_alone() {
    let (_dir, benchmarks) = benchmarks(|_| {});
    let hit = vec![("sib200.fra_Latn.txt".to_owned(), 3, Action::Drop)];
    for text in
        ["Wach nta labas 3lik?", "salam!\nwach nta labas 3lik\nbslama", "Ahlan. Wach nta labas 3lik! Hamdollah."]
    {
        assert_eq!(hits(&benchmarks, text, "ary_Latn"), hit, "{text}");
    }
    assert!(hits(&benchmarks, "gal lia wach nta labas 3lik w khrej", "ary_Latn").is_empty());
    // A choice of a question marks no item.
    assert!(hits(&benchmarks, "فالقرن التاسع عشر الميلادي", "ary_Arab").is_empty());
}

#[test]
fn part_of_a_passage_is_reported_and_less_is_nothing() {
    let (_dir, benchmarks) = benchmarks(|_| {});
    let words: Vec<&str> = PASSAGE.split(' ').collect();
    let quote = |count: usize| format!("Selon la presse, {} dit-il", words[..count].join(" "));
    let report = vec![("sib200.fra_Latn.txt".to_owned(), 1, Action::Report)];
    assert!(hits(&benchmarks, &quote(12), "fra_Latn").is_empty());
    assert_eq!(hits(&benchmarks, &quote(13), "fra_Latn"), report);
    assert_eq!(hits(&benchmarks, &quote(9), "ary_Latn"), report, "8 words are enough in Darija");
    assert_eq!(hits(&benchmarks, &quote(9), ""), report, "and in a text without a label");
    let (_dir, reporting) = self::benchmarks(|config| config.on_hit = OnHit::Report);
    assert_eq!(hits(&reporting, PASSAGE, "fra_Latn"), report);
    let found = reporting.hits(PASSAGE, "fra_Latn", &mut SearchBuffers::default());
    assert!(found[0].matched.starts_with("le haut commissariat au plan a publié"), "{}", found[0].matched);
    assert_eq!((found[0].words, found[0].coverage), (words.len() as u32, 1.0));
}

#[test]
fn wording_that_a_benchmark_repeats_marks_no_item() {
    let dir = tempfile::tempdir().unwrap();
    let instruction = "ترجم هاد الجملة اللي جاية من الدارجة المغربية للغة الإنجليزية من فضلك";
    let lines: Vec<String> = (0..40)
        .map(|i| {
            let words: String = (0..14).map(|j| format!("kelma{}x{j} ", i * 31 % 40)).collect();
            serde_json::json!({"messages": [{"content": format!("{instruction} {words}")}]}).to_string()
        })
        .collect();
    fs::write(dir.path().join("bench.jsonl"), lines.join("\n")).unwrap();
    let benchmarks = Benchmarks::open(&DecontaminateConfig::against(dir.path())).unwrap();
    assert_eq!(benchmarks.files()[0].searchable, 40);
    assert!(hits(&benchmarks, instruction, "ary_Arab").is_empty());
    let item: String = (0..14).map(|j| format!("kelma31x{j} ")).collect();
    assert_eq!(hits(&benchmarks, &item, "ary_Latn").len(), 1);
}

#[test]
fn empty_folders_and_missing_benchmarks_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("README.md"), QUESTION).unwrap();
    let mut config = DecontaminateConfig::against(dir.path());
    let error = Benchmarks::open(&config).unwrap_err().to_string();
    assert!(error.contains("no benchmark item in 1 files"), "{error}");
    fs::write(dir.path().join("sib-200.txt"), QUESTION).unwrap();
    config.require = vec!["SIB200".into(), "Belebele".into()];
    let error = Benchmarks::open(&config).unwrap_err().to_string();
    assert!(error.contains("no file or folder for Belebele"), "{error}");
    config.against = dir.path().join("absent");
    assert!(Benchmarks::open(&config).is_err());
}
