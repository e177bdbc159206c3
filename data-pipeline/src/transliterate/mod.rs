//! Owns writing a text in another script of its language: Tifinagh and Amazigh Latin both ways, Arabizi in Arabic letters;
//! never decides which language a text is in, and never touches files.
//!
//! What comes out is the same sentence in other letters and not a text that anybody wrote: a row made so says it in its
//! field `transliterated`, see [`TransliterateStage`].

mod arabizi;
mod stage;

pub use arabizi::to_arabic;
pub use stage::{FIELD, TransliterateStage};

use std::borrow::Cow;

use crate::normalize::tifinagh::{has_tifinagh, to_latin, to_tifinagh};
use crate::normalize::{Changes, Profile};

/// The script that a text is to be written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// Amazigh in Latin letters becomes Tifinagh.
    Tifinagh,
    /// Tifinagh becomes Latin letters.
    Latin,
    /// Arabizi becomes Arabic letters: a guess, for keys and for augmentation.
    Arabic,
}

/// Amazigh languages whose Latin letters are those of the table.
const AMAZIGH: [&str; 6] = ["zgh", "shi", "tzm", "rif", "kab", "ber"];
/// Languages whose Latin letters are Arabizi.
const ARABIZI: [&str; 2] = ["ary", "arq"];

impl Target {
    /// The code of the script in labels.
    pub fn script(self) -> &'static str {
        match self {
            Target::Tifinagh => "Tfng",
            Target::Latin => "Latn",
            Target::Arabic => "Arab",
        }
    }

    /// The code of the script that texts are taken from.
    pub fn from_script(self) -> &'static str {
        match self {
            Target::Tifinagh | Target::Arabic => "Latn",
            Target::Latin => "Tfng",
        }
    }

    /// Whether a text is one to write anew. Latin letters say nothing about the language, so that only a label does;
    /// Tifinagh says it itself, and a label with another script wins over a Tifinagh word in the text.
    pub fn takes(self, text: &str, label: Option<&str>) -> bool {
        let (language, script) = label.and_then(|label| label.split_once(['_', '-'])).unwrap_or_default();
        match self {
            Target::Tifinagh => script == "Latn" && AMAZIGH.contains(&language),
            Target::Arabic => script == "Latn" && ARABIZI.contains(&language),
            Target::Latin => match script {
                "Tfng" => has_tifinagh(text),
                "" => mostly_tifinagh(text),
                _ => false,
            },
        }
    }

    /// The text in the other script. `label` is its language, as far as that is known.
    ///
    /// Tifinagh of the standard alphabet without Latin letters beside it comes back from Latin as it was: see
    /// [`is_reversible`].
    pub fn write<'a>(self, text: &'a str, label: Option<&str>) -> Cow<'a, str> {
        // Letters that other keyboards put in the place of Amazigh ones, and elongation, are put right first.
        let plain = || Profile::default().apply(text, label, &mut Changes::default());
        match self {
            Target::Latin => to_latin(text),
            Target::Tifinagh => Cow::Owned(to_tifinagh(&plain())),
            Target::Arabic => Cow::Owned(to_arabic(&plain())),
        }
    }
}

/// Whether Latin letters made of a Tifinagh text give it back letter by letter: not where it has letters outside the
/// standard alphabet, joiners, or Latin letters of its own.
pub fn is_reversible(tifinagh: &str) -> bool {
    to_tifinagh(&to_latin(tifinagh)) == tifinagh
}

/// Whether more letters of a text are Tifinagh than are not.
fn mostly_tifinagh(text: &str) -> bool {
    if !has_tifinagh(text) {
        return false;
    }
    let (mut tifinagh, mut others) = (0_u64, 0_u64);
    for c in text.chars() {
        match c {
            '\u{2d30}'..='\u{2d6f}' => tifinagh += 1,
            c => others += u64::from(c.is_alphabetic()),
        }
    }
    tifinagh > others
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_texts_of_the_source_are_taken() {
        for (target, text, label, is_taken) in [
            (Target::Latin, "ⵜⴰⵎⴰⵣⵉⵖⵜ", Some("zgh_Tfng"), true),
            (Target::Latin, "ⵜⴰⵎⴰⵣⵉⵖⵜ ok", None, true),
            (Target::Latin, "le mot ⵜⴰⵎⴰⵣⵉⵖⵜ en tifinagh", None, false),
            (Target::Latin, "le mot ⵜⴰⵎⴰⵣⵉⵖⵜ", Some("fra_Latn"), false),
            (Target::Latin, "12 %", Some("zgh_Tfng"), false),
            (Target::Tifinagh, "tamaziɣt", Some("shi_Latn"), true),
            (Target::Tifinagh, "tamaziɣt", None, false),
            (Target::Tifinagh, "salam", Some("ary_Latn"), false),
            (Target::Arabic, "salam", Some("ary_Latn"), true),
            (Target::Arabic, "سلام", Some("ary_Arab"), false),
            (Target::Arabic, "bonjour", Some("fra_Latn"), false),
        ] {
            assert_eq!(target.takes(text, label), is_taken, "{text} {label:?}");
        }
    }

    #[test]
    fn amazigh_goes_both_ways() {
        for (tifinagh, latin) in [
            ("ⵜⴰⵎⴰⵣⵉⵖⵜ ⵜⴳⴰ ⵜⵓⵜⵍⴰⵢⵜ", "tamaziɣt tga tutlayt"),
            ("ⴰⴳⵯⵍⵍⵉⴷ ⴰⵎⵇⵇⵔⴰⵏ, 12.", "agʷllid amqqran, 12."),
            ("ⴰⴹⴰⵕ ⵉⵟⵟⴰⵚ ⵥⵥⵓ", "aḍaṛ iṭṭaṣ ẓẓu"),
            ("ⵃⵎⵎⵓ ⵄⵍⵉ ⵅⴰⵍⵉ", "ḥmmu ɛli xali"),
        ] {
            assert_eq!(Target::Latin.write(tifinagh, Some("zgh_Tfng")), latin);
            assert_eq!(Target::Tifinagh.write(latin, Some("zgh_Latn")), tifinagh);
            assert!(is_reversible(tifinagh));
        }
        // Other spellings of the same letters: combining dots, Greek letters, ° for ʷ.
        assert_eq!(
            Target::Tifinagh.write("Ad\u{323}ar n tmaziγt, ag°llid", Some("shi_Latn")),
            "ⴰⴹⴰⵔ ⵏ ⵜⵎⴰⵣⵉⵖⵜ, ⴰⴳⵯⵍⵍⵉⴷ"
        );
        assert!(!is_reversible("ⵒⴰⵔⵉⵙ") && !is_reversible("Iⵉⵙⵙⵏ"));
    }

    proptest! {
        #[test]
        fn the_standard_alphabet_comes_back(text in "[ⴰⴱⴳⴷⴹⴻⴼⴽⵀⵃⵄⵅⵇⵉⵊⵍⵎⵏⵓⵔⵕⵖⵙⵚⵛⵜⵟⵡⵢⵣⵥⵯ0-9 ,.?!\\n-]{0,60}") {
            prop_assert!(is_reversible(&text));
            // The training form cuts what is written three times, so only such text is compared through it.
            let plain = Profile::default().apply(&text, Some("zgh_Tfng"), &mut Changes::default()).into_owned();
            let latin = Target::Latin.write(&plain, Some("zgh_Tfng")).into_owned();
            prop_assert_eq!(Target::Tifinagh.write(&latin, Some("zgh_Latn")), plain);
            prop_assert!(!has_tifinagh(&latin));
        }

        #[test]
        fn any_text_can_be_written(text in any::<String>()) {
            for (target, label) in
                [(Target::Tifinagh, "shi_Latn"), (Target::Latin, "zgh_Tfng"), (Target::Arabic, "ary_Latn")]
            {
                target.write(&text, Some(label));
            }
        }
    }
}
