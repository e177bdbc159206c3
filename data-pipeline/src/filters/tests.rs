//! Owns the tests of judging: clean prose stays, garbage goes, configurations are obeyed.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::*;

const FRENCH: &str = "La ville de Fès est l'une des plus anciennes du Maroc. Elle a été fondée au huitième siècle et reste \
    connue pour ses écoles, ses artisans et ses jardins. Les visiteurs qui y arrivent pour la première fois se perdent \
    souvent dans la médina, où les rues sont si étroites que deux ânes ne peuvent s'y croiser. On dit que celui qui boit \
    de son eau y revient toujours, et que personne ne l'a jamais connue tout entière.";
const DARIJA: &str = "واحد النهار كان واحد الراجل ساكن ف واحد الدوار بعيد على المدينة، وكان عندو حمار ديالو كيعاونو ف الخدمة. \
    نهار من النهارات مشى للسوق باش يبيع الزيتون، ولكن الطريق كانت خايبة والشتا كانت كطيح. ملي وصل لقى السوق خاوي، \
    وما كاين حتى واحد. رجع لدارو وهو كيضحك وقال لمراتو غدا إن شاء الله نرجع، وهي قالت ليه الرزق على الله والصبر زين";

#[test]
fn clean_prose_stays() {
    let filters = Filters::new(&FilterConfig::default()).unwrap();
    for (text, label) in [(FRENCH, "fra_Latn"), (DARIJA, "ary_Arab")] {
        let signals = filters.judge(text, label, "book").map_err(|reason| reason.to_string()).unwrap();
        assert!(signals.words > 60.0 && signals.function_share > 0.1, "{signals:?}");
    }
    for text in ["Annuler", "حفظ", "OK", "ⴰⵣⵓⵍ", "%d fichiers", "$1", ""] {
        assert!(filters.judge(text, "fra_Latn", "ui").is_ok(), "{text}");
    }
}

#[test]
fn garbage_goes_with_the_name_of_a_rule() {
    let filters = Filters::new(&FilterConfig::default()).unwrap();
    let rules = |text: &str, label: &str| -> Vec<&str> {
        filters.broken(&filters.measure(text, label), label, "web").map(|reason| reason.rule.name()).collect()
    };
    let spam = "location voiture casablanca pas cher ".repeat(20);
    assert!(rules(&spam, "fra_Latn").contains(&"top_2_gram"));
    let lines = format!("{FRENCH}\n{}", "Cliquez ici pour voir la suite de cet article.\n".repeat(40));
    assert!(rules(&lines, "fra_Latn").contains(&"duplicate_lines"));
    let navigation: String = (0..60).map(|i| format!("Rubrique {i}\n")).collect();
    assert!(rules(&navigation, "fra_Latn").contains(&"fragments"));
    assert!(rules(&"ǀƁǋƲ ƶŽȚ ƸƱƯ ".repeat(30), "fra_Latn").contains(&"odd_letters"));
    assert!(
        rules(&"ديكور أثاث مطبخ صالون ستائر زرابي ثريات مرايا خزائن أسرة ".repeat(6), "arb_Arab")
            .contains(&"function_share")
    );
}

#[test]
fn configurations_are_obeyed() {
    let text = r#"{"rules": {"max_words": 10, "top_2_gram": "off"}, "languages": {"fra_Latn": {"max_words": "off"}},
        "short_sources": ["*-l10n"], "short": {"min_words": 2}}"#;
    let filters = Filters::new(&serde_json::from_str(text).unwrap()).unwrap();
    assert!(filters.judge(FRENCH, "fra_Latn", "book").is_ok());
    let reason = filters.judge(DARIJA, "ary_Arab", "book").unwrap_err();
    assert_eq!(reason.rule, Rule::MaxWords);
    assert!(reason.to_string().starts_with("max_words: ") && reason.to_string().ends_with("is above 10"), "{reason}");
    assert!(filters.judge(DARIJA, "ary_Arab", "app-l10n").is_ok());
    assert_eq!(filters.judge("Oui", "fra_Latn", "web").unwrap_err().rule, Rule::MinWords);
}

#[test]
fn word_lists_tell_unknown_words() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("words.txt");
    let known: Vec<String> = crate::words::words(FRENCH).map(|w| w.text.to_lowercase()).collect();
    std::fs::write(&path, known.join("\t3\n")).unwrap();
    let config = FilterConfig { word_lists: [("fra_Latn".to_owned(), path.clone())].into(), ..FilterConfig::default() };
    let filters = Filters::new(&config).unwrap();
    assert!(filters.measure(FRENCH, "fra_Latn").unknown_words < 0.01);
    let other = "Le chat dort sur un vieux tapis rouge pendant que dehors tombe une neige fine. ";
    assert!(filters.measure(other, "fra_Latn").unknown_words > 0.3);
    std::fs::remove_file(&path).unwrap();
    assert!(matches!(Filters::new(&config), Err(FilterError::WordList { .. })));
}

#[test]
fn lines_are_cleaned_only_when_asked() {
    let text = "Accueil\nLe roi a reçu les élèves hier.";
    let config = FilterConfig { clean_lines: true, ..FilterConfig::default() };
    let (kept, counts) = Filters::new(&config).unwrap().clean_lines(text, "fra_Latn", "web");
    assert_eq!((kept.as_ref(), counts.unfinished), ("Le roi a reçu les élèves hier.", 1));
    let (kept, _) = Filters::new(&FilterConfig::default()).unwrap().clean_lines(text, "fra_Latn", "web");
    assert_eq!(kept, text);
}
