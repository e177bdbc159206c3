//! The promises of language identification: own sentences (CC0), code switching, hostile texts, fastText models whose
//! answers the reference wrote down (`lid/make_fasttext.py`), damaged models.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use data_pipeline::lid::evaluation::{LabelledText, corpus};
use data_pipeline::lid::fasttext::FastText;
use data_pipeline::lid::file;
use data_pipeline::lid::train::{FitConfig, train};
use data_pipeline::lid::{Identifier, LidError};

const SENTENCES: &str = include_str!("../lid/sentences.tsv");
/// Hand-made texts of kinds that the corpora do not hold (CC0): label, kind, text.
const UNSEEN: &str = include_str!("../lid/unseen.tsv");
const ANSWERS: &str = include_str!("../lid/fasttext.json");

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lid").join(name)
}

#[test]
fn own_sentences_get_their_labels() {
    let identifier = Identifier::embedded();
    let (mut wrong, mut surely_wrong) = (Vec::new(), Vec::new());
    for line in SENTENCES.lines() {
        let (label, text) = line.split_once('\t').unwrap();
        let found = identifier.identify(text);
        if found.label != label {
            wrong.push(format!("{label} called {} ({:.2}): {text}", found.label, found.score));
            if found.sure && !found.label.starts_with("ber") {
                surely_wrong.push(text);
            }
        }
    }
    assert!(wrong.len() * 20 <= SENTENCES.lines().count(), "{}", wrong.join("\n"));
    assert!(surely_wrong.is_empty(), "{surely_wrong:?}");
}

#[test]
fn written_vowels_and_case_endings_speak_for_standard_arabic() {
    let identifier = Identifier::embedded();
    // A line of law of the kind that dialects' particles (`عاد`, `كان`, `غير`) stand in too.
    let vocalised = "وَمَنْ عَادَ فَعَلَيْهِ مِثْلُ ذَلِكَ ، غَيْرَ أَنَّهُ لَا يُؤَدِّيهِ";
    let found = identifier.identify(vocalised);
    assert!(found.label == "arb_Arab" && found.sure, "{found:?}");
    let indefinite = identifier.identify("عاد كثيراً إلى دير الراهبات");
    assert_eq!(indefinite.label, "arb_Arab");
    // Months and faculties share their letters with verbs of Darija.
    for text in ["في شهر يوليو 1975", "متى بدأت الثورة؟", "تتكون اللجنة من تسعة أعضاء"]
    {
        assert_eq!(identifier.identify(text).label, "arb_Arab", "{text}");
    }
    // Tanwin inside a word is a shadda that the keyboard has elsewhere; one vowel sign vocalises no text.
    for text in ["ماقدرتش نبدًل لباسوورد ديالي", "واش كاين شي حد هنا؟ عَفاك جاوبني"]
    {
        assert_eq!(identifier.identify(text).label, "ary_Arab", "{text}");
    }
}

/// Of each label: lowest share called right, highest share that is wrong and said to be sure.
const LEAST: [(&str, f64, f64); 11] = [
    ("ary_Latn", 0.95, 0.03),
    ("ary_Arab", 0.95, 0.03),
    ("arb_Arab", 0.97, 0.03),
    ("arq_Latn", 0.8, 0.1),
    ("fra_Latn", 0.95, 0.0),
    ("eng_Latn", 0.95, 0.0),
    ("spa_Latn", 0.95, 0.0),
    ("kab_Latn", 0.9, 0.0),
    ("shi_Latn", 0.85, 0.06),
    ("und", 0.7, 0.1),
    ("zxx", 1.0, 0.0),
];

#[test]
fn kinds_of_text_that_the_corpora_do_not_hold_are_told_apart() {
    let identifier = Identifier::embedded();
    for (label, least, most_surely_wrong) in LEAST {
        let texts = UNSEEN.lines().filter_map(|line| line.strip_prefix(label)?.strip_prefix('\t')?.split_once('\t'));
        let found: Vec<_> = texts.map(|(_, text)| (text, identifier.identify(text))).collect();
        assert!(found.len() >= 10, "{label}: {} texts", found.len());
        let wrong: Vec<_> = found.iter().filter(|(_, f)| f.label != label).collect();
        let surely = wrong.iter().filter(|(_, f)| f.sure).count() as f64;
        let (count, listed) = (found.len() as f64, wrong.iter().map(|(t, f)| format!("{} {t}", f.label)));
        let listed: Vec<String> = listed.collect();
        assert!((count - wrong.len() as f64) >= least * count, "{label}:\n{}", listed.join("\n"));
        assert!(surely <= most_surely_wrong * count, "{label}, surely wrong {surely}:\n{}", listed.join("\n"));
    }
}

#[test]
fn a_french_or_english_sentence_stays_so_whatever_short_words_it_shares_with_darija() {
    let identifier = Identifier::embedded();
    for (label, text) in [
        ("fra_Latn", "Déplacer le curseur à la fin de la ligne"),
        ("fra_Latn", "Pour la maladie de Paget, ce médicament peut agir pendant plus d'un an"),
        ("eng_Latn", "If you paid me more I would press more buttons for help"),
    ] {
        assert_eq!(identifier.identify(text).description(), label, "{text}");
    }
}

#[test]
fn a_sentence_in_two_languages_has_a_span_of_each() {
    let text = "salam khoya, ghadi nmchi ghedda l la gare, est-ce que vous savez à quelle heure le train arrive";
    let found = Identifier::embedded().identify(text);
    assert_eq!(found.description(), "ary_Latn with fra_Latn");
    let french: String = found.spans.iter().filter(|s| s.label == "fra_Latn").map(|s| &text[s.start..s.end]).collect();
    assert!(french.contains("vous savez") && !french.contains("khoya"), "{french}");
    let shares: f32 = found.spans.iter().map(|s| s.share).sum();
    assert!((shares - 1.0).abs() < 1e-3);

    let both = "هادشي اللي كاين دابا فالمدينة ديالنا. C'est tout ce que je peux vous dire.";
    let found = Identifier::embedded().identify(both);
    assert_eq!(found.description(), "ary_Arab with fra_Latn");
}

#[test]
fn scripts_without_a_model_and_texts_without_language_are_said_to_be_so() {
    let identifier = Identifier::embedded();
    for (text, label, script) in [
        ("Привет, как дела сегодня?", "und", "Cyrl"),
        ("今天天气很好", "und", "Hani"),
        ("12/03/2026 - 45 %", "zxx", "Zyyy"),
        ("", "zxx", "Zyyy"),
        ("🎉🎉 !!!", "zxx", "Zyyy"),
    ] {
        let found = identifier.identify(text);
        assert_eq!((found.label.as_str(), found.script), (label, script), "{text}");
        assert!(data_pipeline::document::is_language_label(&found.document_label()));
    }
}

#[test]
fn spelling_by_font_keyboard_or_care_changes_nothing() {
    let identifier = Identifier::embedded();
    for (a, b) in [
        ("بزاف ديال الناس كيمشيو للسوق", "بَزَّاااف ديـــال النَّاس كيمشيو للسوق"),
        ("واش كاين شي جديد", "ﻭﺍﺵ ﻛﺎﻳﻦ ﺷﻲ ﺟﺪﻳﺪ"),
        ("L'ÉCOLE EST FERMÉE DEMAIN", "l’e\u{301}cole est ferme\u{301}e demain"),
    ] {
        let (a, b) = (identifier.identify(a), identifier.identify(b));
        assert_eq!(a.label, b.label);
        assert!((a.score - b.score).abs() < 1e-4);
    }
}

#[test]
fn hostile_texts_take_linear_time_and_any_thread_gives_the_same_answer() {
    let identifier = Identifier::embedded();
    let texts = [
        "a".repeat(2_000_000),
        "<".repeat(500_000),
        "&".repeat(500_000),
        "@a ".repeat(300_000),
        "a\u{301}".repeat(500_000),
        "كي".repeat(500_000),
        "ab كي ⵣⴰ ".repeat(100_000),
        "a'".repeat(500_000),
        "{".repeat(500_000) + "x",
    ];
    for text in &texts {
        let found = identifier.identify(text);
        let again = std::thread::scope(|s| s.spawn(|| identifier.identify(text)).join().unwrap());
        assert_eq!(found, again);
        let mut end = 0;
        for span in &found.spans {
            assert!(span.start >= end && span.end > span.start && text.is_char_boundary(span.end));
            end = span.end;
        }
    }
}

proptest::proptest! {
    #[test]
    fn any_text_has_an_answer(text in "\\PC{0,120}") {
        let found = Identifier::embedded().identify(&text);
        assert!((0.0..=1.0).contains(&found.score) && found.margin <= found.score + 1e-6);
        assert!(data_pipeline::document::is_language_label(&found.document_label()));
    }
}

#[test]
fn fasttext_models_answer_as_the_reference_does() {
    let answers: serde_json::Value = serde_json::from_str(ANSWERS).unwrap();
    for (name, cases) in answers.as_object().unwrap() {
        let model = FastText::read(std::fs::read(file(name)).unwrap()).unwrap().unwrap();
        for case in cases.as_array().unwrap() {
            let text = case[0].as_str().unwrap();
            for (label, p) in model.predict(text) {
                // The reference reads its sigmoid from a table of 512 steps and adds 1e-5 to logarithms.
                let meant = case[1][format!("__label__{label}")].as_f64().unwrap() as f32;
                assert!((p - meant).abs() < 0.01, "{name}: {text}: {label} {p}, the reference says {meant}");
            }
        }
        let opened = Identifier::open(&file(name)).unwrap();
        assert_eq!(opened.identify("wach kayn dyal bzaf").label, "ary_Latn", "{name}");
        assert_eq!(opened.identify("ⴰⵣⵓⵍ ⴰⵎⴰⵏ").script, "Tfng");
    }
}

#[test]
fn a_damaged_fasttext_model_is_an_error_wherever_it_is_cut_and_never_a_panic() {
    for name in ["softmax.bin", "tree.bin", "each.bin", "pruned.ftz"] {
        let bytes = std::fs::read(file(name)).unwrap();
        for cut in (4..bytes.len()).step_by(7) {
            assert!(FastText::read(bytes[..cut].to_vec()).unwrap().is_err(), "{name} cut at {cut}");
        }
        for at in (4..bytes.len().min(1200)).step_by(3) {
            for value in [0xff, 0x00, 0x7f] {
                let mut changed = bytes.clone();
                changed[at] = value;
                if let Ok(model) = FastText::read(changed).unwrap() {
                    model.identify("wach kayn dyal");
                }
            }
        }
    }
}

#[test]
fn files_that_are_no_model_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.bin");
    std::fs::write(&path, b"hello").unwrap();
    assert!(matches!(Identifier::open(&path), Err(LidError::NotAModel { .. })));
    std::fs::write(&path, [file::MAGIC.as_slice(), &[0; 60]].concat()).unwrap();
    assert!(matches!(Identifier::open(&path), Err(LidError::Damaged { .. })));
    let absent = Identifier::open(&folder.path().join("absent")).unwrap_err().to_string();
    assert!(absent.contains("absent") && absent.contains("identify.model"), "{absent}");
}

#[test]
fn training_twice_gives_the_same_bytes_and_the_model_answers() {
    let words = [("fra_Latn", "les écoles sont fermées demain matin"), ("ary_Latn", "wach kayn chi haja jdida lyoum")];
    let texts: Vec<LabelledText> = (0..60)
        .map(|i| {
            let (label, text) = words[i % 2];
            LabelledText {
                text: format!("{text} {}", text.split(' ').nth(i % 6).unwrap()),
                label: label.into(),
                source: "s".into(),
            }
        })
        .collect();
    let corpus = corpus(&texts, &Default::default());
    let bytes = || {
        let go_on = AtomicBool::new(false);
        let models = train(&corpus, &FitConfig::default(), 0.004, &go_on).unwrap().unwrap();
        file::write("", &models, &file::Provenance::default()).unwrap()
    };
    let first = bytes();
    assert_eq!(first, bytes());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.jzlid");
    std::fs::write(&path, first).unwrap();
    assert_eq!(Identifier::open(&path).unwrap().identify("les écoles sont fermées").label, "fra_Latn");
}
