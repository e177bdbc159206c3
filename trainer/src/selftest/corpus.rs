//! Owns the texts that the self-test trains on; never touches files.
//!
//! Written for this project with the help of a language model, under CC0-1.0: everyday sentences, none of them quoted.

use serde_json::json;

/// Licence of every text.
pub(super) const LICENCE: &str = "CC0-1.0";

/// Language, script and texts.
const TEXTS: [(&str, &str, [&str; 8]); 5] = [
    (
        "ary",
        "Arab",
        [
            "البارح جلست مع صحابي فالقهوة حتى لليل، وهضرنا بزاف على الكورة.",
            "الجو اليوم بارد شوية، خاصك تلبس شي حاجة سخونة قبل ما تخرج.",
            "القطار ديال الرباط كيخرج مع السبعة، وكيوصل من بعد ساعة.",
            "ختي كتقرا الطب ففاس، وكتجي عندنا غير فالعطلة.",
            "عافاك عطيني كاس ديال الما، راه فيا العطش من الصباح.",
            "هاد الكتاب زوين بزاف، قريتو كامل فنهار واحد.",
            "جارنا نجار، وكيصاوب البيبان من خشب العرعار.",
            "إلى طاحت الشتا هاد السيمانة، الفلاحة غادي يفرحو.",
        ],
    ),
    (
        "ary",
        "Latn",
        [
            "Lbare7 glest m3a s7abi f l9ahwa 7ta l lil, w hderna bzaf 3la lkora.",
            "Ljaw lyoum bared chwiya, khassek telbes chi 7aja skhouna 9bel ma tekhrej.",
            "Tran dyal Rbat kaykhrej m3a seb3a, w kaywsel mn be3d sa3a.",
            "Khti kat9ra tibb f Fas, w katji 3endna ghir f l3otla.",
            "3afak 3tini kas dyal lma, rah fiya l3tech mn sba7.",
            "Had lktab zwin bzaf, 9ritou kamel f nhar wa7ed.",
            "Telephone dyali tfa liya f tri9, dakchi 3lach ma jawbtekch.",
            "Ila ta7et chta had simana, lfella7a ghadi yfer7ou.",
        ],
    ),
    (
        "zgh",
        "Tfng",
        [
            "ⴰⵣⵓⵍ ⴼⵍⵍⴰⵡⵏ, ⵎⴰⵏⵣⴰⴽⵉⵏ? ⵍⴰⴱⴰⵙ, ⵜⴰⵏⵎⵎⵉⵔⵜ.",
            "ⴳⵎⴰ ⵉⵣⴷⵖ ⴳ ⴼⴰⵙ, ⵏⴽⴽ ⵣⴷⵖⵖ ⴳ ⵓⴳⴰⴷⵉⵔ.",
            "ⴰⵙⵙ ⴰⴷ ⵉⵍⵍⴰ ⵓⵏⵥⴰⵔ ⴳ ⵓⴷⵔⴰⵔ.",
            "ⴷⴰ ⵏⵙⵙⴰ ⴰⵜⴰⵢ ⴷ ⵏⵛⵜⵜⴰ ⴰⵖⵔⵓⵎ ⴽⵓ ⵜⵉⴼⴰⵡⵜ.",
            "ⵖⵓⵔⵉ ⵢⴰⵏ ⵓⴷⵍⵉⵙ ⴰⵎⴰⵢⵏⵓ ⵅⴼ ⵉⵙⴽⵍⴰ.",
            "ⵉⵎⵎⴰ ⵜⴷⴷⴰ ⵖⵔ ⵓⵙⵓⵇ, ⵜⵙⵖⴰ ⵜⵉⵢⵏⵉ ⴷ ⵣⵣⵉⵜ.",
            "ⵓⵔⴰⵔⵏ ⵉⵔⴱⴰⵏ ⵜⴰⴽⵓⵔⵜ ⵜⴰⵎⴰ ⵏ ⵜⵉⵏⵎⵍ.",
            "ⴷⴰ ⵏⵍⵎⵎⴷ ⵉⵙⴽⴽⵉⵍⵏ ⵏ ⵜⵉⴼⵉⵏⴰⵖ ⴳ ⵜⵉⵏⵎⵍ.",
        ],
    ),
    (
        "fra",
        "Latn",
        [
            "Hier soir, mes amis et moi avons parlé de football jusqu'à la fermeture du café.",
            "Il fait un peu froid aujourd'hui : couvre-toi avant de sortir.",
            "Le train pour Rabat part à sept heures et arrive une heure plus tard.",
            "Ma sœur étudie la médecine à Fès et ne rentre que pendant les vacances.",
            "Ce livre est si beau que je l'ai lu en une seule journée.",
            "Notre voisin est menuisier ; il fabrique des portes en bois de thuya.",
            "S'il pleut cette semaine, les agriculteurs seront contents.",
            "Un modèle de langue apprend à deviner le mot suivant.",
        ],
    ),
    (
        "arb",
        "Arab",
        [
            "تحدثنا مساء أمس في المقهى عن كرة القدم حتى ساعة متأخرة.",
            "الطقس بارد قليلا اليوم، فارتد معطفا قبل أن تخرج.",
            "ينطلق القطار إلى الرباط في الساعة السابعة ويصل بعد ساعة.",
            "تدرس أختي الطب في فاس ولا تعود إلا في العطلة.",
            "هذا الكتاب جميل جدا، وقد قرأته في يوم واحد.",
            "جارنا نجار يصنع الأبواب من خشب العرعار.",
            "إذا نزل المطر هذا الأسبوع فسيفرح الفلاحون.",
            "يتعلم نموذج اللغة أن يخمن الكلمة التالية.",
        ],
    ),
];

/// One JSON object a text, as `jazari data prepare` reads them.
pub(super) fn jsonl() -> String {
    let mut lines = String::new();
    for (lang, script, texts) in TEXTS {
        for text in texts {
            let row = json!({
                "text": text, "lang": lang, "script": script, "source": "jazari-selftest", "licence": LICENCE,
            });
            lines.push_str(&format!("{row}\n"));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn no_two_texts_are_equal_and_all_are_in_their_script() {
        let texts: BTreeSet<&str> = TEXTS.iter().flat_map(|(_, _, texts)| texts).copied().collect();
        assert_eq!((texts.len(), jsonl().lines().count()), (40, 40));
        for (_, script, texts) in TEXTS {
            let of_script = |c: char| match script {
                "Arab" => ('\u{600}'..='\u{6ff}').contains(&c),
                "Tfng" => ('\u{2d30}'..='\u{2d7f}').contains(&c),
                _ => c < '\u{250}' || c == '\u{153}',
            };
            for text in texts {
                assert!(text.chars().all(|c| of_script(c) || " ,.?".contains(c)), "{text}");
            }
        }
    }
}
