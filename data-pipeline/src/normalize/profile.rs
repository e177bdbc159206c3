//! Owns the versioned profiles of the training form and their order of rules; never touches the key form or files.

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::arabic::{self, Arabic};
use super::changes::{Changes, Rule};
use super::edit::{Edits, edit};
use super::{class, elongation, look_alikes};

/// Which set of rules a profile is. A set never changes once released: better rules come as a new version, so that a
/// data set made from a configuration stays what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum ProfileName {
    /// Rules for Arabic, Arabizi, Tifinagh, Amazigh Latin and French text, version 1.
    #[default]
    #[serde(rename = "moroccan-v1", alias = "moroccan")]
    MoroccanV1,
}

/// What happens to Arabic vowel signs (U+064B to U+0652 and U+0670).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Harakat {
    /// They stay.
    #[default]
    Keep,
    /// They are removed.
    Drop,
}

/// A profile: the rules and the choices left to the user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// The set of rules.
    #[serde(default)]
    pub profile: ProfileName,
    /// What happens to Arabic vowel signs.
    #[serde(default, skip_serializing_if = "is_default")]
    pub harakat: Harakat,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl Profile {
    /// The training form of `text`, which is in the language `label` (`ary_Arab`) as far as that is known. Idempotent;
    /// borrows when nothing changes, and adds to `changes` how often each rule fired.
    ///
    /// Rules go by the script of each word, so mixed text needs no label; a label widens the rules that depend on the
    /// language (letters of Persian keyboards, look-alikes of Amazigh letters).
    pub fn apply<'a>(&self, text: &'a str, label: Option<&str>, changes: &mut Changes) -> Cow<'a, str> {
        let seen = class::scan(text);
        let drop_harakat = self.harakat == Harakat::Drop;
        if seen == 0 || (seen == class::HARAKAT && !drop_harakat) {
            return Cow::Borrowed(text);
        }
        let language = arabic::arabic(label);
        let mut text = Cow::Borrowed(text);
        let mut edited = false;
        if seen & class::EDIT != 0 || (seen & class::HARAKAT != 0 && drop_harakat) {
            let edits = Edits { drop_harakat, keep_joiners: language == Arabic::No };
            let before = changes.total();
            let out = edit(&text, edits, changes);
            edited = changes.total() > before;
            if edited {
                text = Cow::Owned(out);
            }
        }
        let nfc = edited || seen & (class::MARK | class::PERSIAN) != 0;
        // Before the letters decide about the language, for a letter and its hamza may be one of another alphabet.
        let mut composed = nfc && compose(&mut text);
        // Presentation forms may have become letters of Persian keyboards.
        if edited || seen & class::PERSIAN != 0 {
            let before = changes.total();
            text = arabic::keyboard_letters(text, language, changes);
            composed |= changes.total() > before && compose(&mut text);
        }
        if composed {
            changes.add(Rule::Nfc, 1);
        }
        // Letters may have met, or become others: what was changed is looked at again.
        let mut seen = if matches!(text, Cow::Owned(_)) { class::scan(&text) } else { seen };
        if seen & class::LOOK_ALIKE != 0 {
            let before = changes.total();
            text = look_alikes::replace(text, look_alikes::amazigh(label), changes);
            if changes.total() > before {
                seen |= class::RUN;
            }
        }
        if seen & class::RUN != 0 {
            text = elongation::squeeze(text, changes);
        }
        text
    }
}

/// Brings a text to NFC; whether that changed it.
fn compose(text: &mut Cow<'_, str>) -> bool {
    let change = !super::is_nfc(text);
    if change {
        *text = Cow::Owned(super::to_nfc(text));
    }
    change
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::super::tests::any_text;
    use super::*;
    use proptest::prelude::*;

    const MOROCCAN: Profile = Profile { profile: ProfileName::MoroccanV1, harakat: Harakat::Keep };

    fn applied(text: &str, label: Option<&str>) -> (String, Changes) {
        let mut changes = Changes::default();
        let out = MOROCCAN.apply(text, label, &mut changes).into_owned();
        (out, changes)
    }

    #[test]
    fn what_belongs_to_the_text_stays_and_is_borrowed() {
        for kept in [
            "وَاشْ نَقْدَرْ نْسَوّلَكْ؟ «نعم»، لا؛",
            "أإآٱ ى ة ؤ ئ گ ڭ ݣ پ ڤ ڥ چ",
            "3lach m9wd 7mmam 7mam, TSD",
            "ⵜⴰⵎⴰⵣⵉⵖⵜ ⵜⴰⴳⵯⵎⴰⵜ ⴰⴽ\u{2d7f}ⴰ ⵢⴰⵏ\u{2d70} Iⵉⵙⵙⵏⵥⴰ",
            "aɣrum n uḍar ʷ yenna-yas ǧ č",
            "l’été à Noël, œuvre — « oui »",
            "ﷺ ﷽ 👨\u{200d}👩 1ـ2 10 000 ... III",
        ] {
            let mut changes = Changes::default();
            let out = MOROCCAN.apply(kept, None, &mut changes);
            assert_eq!(out, kept);
            assert!(matches!(out, Cow::Borrowed(_)) && changes.is_empty(), "{kept} {changes:?}");
        }
    }

    #[test]
    fn rules_are_counted() {
        let (text, changes) = applied("\u{feff}الســلام\r\nبزاااف ١٢ ﻻ کیف d\u{323}ar", Some("ary_Arab"));
        assert_eq!(text, "السلام\nبزااف 12 لا كيف ḍar");
        let counted: Vec<_> = changes.iter().collect();
        let expected = [
            ("line_end", 1),
            ("invisible", 1),
            ("presentation_form", 1),
            ("tatweel", 2),
            ("persian_letter", 2),
            ("digit", 2),
            ("nfc", 1),
            ("elongation", 1),
        ];
        assert_eq!(counted, expected);
    }

    #[test]
    fn rules_work_on_what_other_rules_leave() {
        assert_eq!(applied("بزاـاـاف", None).0, "بزااف");
        assert_eq!(applied("ﯾﯽ ة", None).0, "يي ة");
        assert_eq!(applied("کييي", Some("arb_Arab")).0, "كيي");
        assert_eq!(applied("e\u{200b}\u{301}", None).0, "é");
        assert_eq!(applied("ا\u{640}\u{654}", None).0, "أ");
        assert_eq!(applied("ی\u{654}كک ه", None).0, "ئكك ه");
        assert_eq!(applied("ە\u{654}كک", None).0, "ۀكک");
        assert_eq!(applied("t\u{327}\u{327}", Some("zgh_Tfng")).0, "ţ\u{327}");
    }

    #[test]
    fn vowel_signs_go_when_asked() {
        let profile = Profile { harakat: Harakat::Drop, ..MOROCCAN };
        let mut changes = Changes::default();
        assert_eq!(profile.apply("كَتَبَ الرَّحْمٰن", None, &mut changes), "كتب الرحمن");
        assert_eq!(changes.count(Rule::Harakat), 7);
    }

    const LABELS: [Option<&str>; 7] =
        [None, Some("ary_Arab"), Some("kab_Latn"), Some("zgh_Tfng"), Some("fra_Latn"), Some("fas_Arab"), Some("und")];

    /// Strings rich in what the rules look at.
    fn rich_text() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            "[\u{640}\u{64b}-\u{655}\u{660}-\u{669}\u{670}اليكةىیکہھ0-9\u{200c}-\u{200f}]{0,8}",
            "[\u{fb50}-\u{fdff}\u{fe70}-\u{fefc}]{0,4}",
            "[aeγΓεΣσԐԑţȚțəә€°ʷɣḍ\u{300}-\u{330}]{0,8}",
            "[ⴰⴱⴳⴽⵯʷ°\u{2d7f}]{0,5}",
            "(a{1,5}|I{1,5}|i{1,4}|x{2,4}|و{1,5}|www\\.|://|/|-|@|y{2,5}| |\n){0,8}",
            "[👨👩🏽⚕♂क\u{fe0f}\u{200d}\u{200c}]{0,6}",
            "[\u{0}-\u{20}\u{7f}-\u{b0}\u{feff}\u{2028}]{0,4}",
            "[\u{1100}-\u{1112}\u{1161}-\u{1175}\u{11a8}-\u{11c2}]{0,5}",
        ];
        prop::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat())
    }

    fn check_idempotent(text: &str, harakat: Harakat) -> Result<(), TestCaseError> {
        for label in LABELS {
            let profile = Profile { harakat, ..MOROCCAN };
            let mut changes = Changes::default();
            let once = profile.apply(text, label, &mut changes).into_owned();
            prop_assert_eq!(changes.is_empty(), once == text, "{:?} {:?}", label, changes);
            let mut again = Changes::default();
            let twice = profile.apply(&once, label, &mut again);
            prop_assert_eq!(&twice, &once, "{:?} {:?}", label, again);
            prop_assert!(matches!(twice, Cow::Borrowed(_)));
            prop_assert!(unicode_normalization::is_nfc(&once));
        }
        Ok(())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]
        #[test]
        fn a_profile_is_idempotent_on_rich_text(text in rich_text(), drop in any::<bool>()) {
            check_idempotent(&text, if drop { Harakat::Drop } else { Harakat::Keep })?;
        }

        #[test]
        fn a_profile_is_idempotent_on_any_text(text in any_text()) {
            check_idempotent(&text, Harakat::Keep)?;
        }

        #[test]
        fn a_profile_is_idempotent_on_all_of_unicode(text in any::<String>()) {
            check_idempotent(&text, Harakat::Drop)?;
        }
    }
}
