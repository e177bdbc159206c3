//! Owns the repair of damaged text and the judgement of what cannot be repaired; never touches files or drops documents.

mod capitals;
mod chars;
mod direction;
mod garbage;
pub mod inversion;
pub mod lexicon;
mod look;
mod mojibake;
mod pairs;
mod shifted;
mod signs;
mod survey;

pub use garbage::{GarbageReason, Verdict};

use std::borrow::Cow;
use std::path::PathBuf;
use std::sync::LazyLock;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::normalize::{Changes, Normalize, Rule};
use inversion::Evidence;
use lexicon::Lexicon;
use look::Look;
use survey::Survey;

/// Words in capitals from which a text may be one of capitals with damaged accents.
const MIN_CAPITAL_WORDS: u32 = 6;

/// Rules of the training form that take away or replace what may be a byte of text in a wrong encoding.
const TAKEN_AWAY: [Rule; 6] =
    [Rule::PersianLetter, Rule::Joiner, Rule::Tatweel, Rule::Bidi, Rule::Invisible, Rule::Control];

/// Version of the rules: it goes up when they change what comes out of a text.
const RULES_VERSION: u32 = 2;

/// Digest of everything inside the program that decides what the repair does: rules and word list.
pub(crate) fn content_digest() -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&RULES_VERSION.to_le_bytes()).update(lexicon::BUILT_IN);
    hasher.finalize().to_hex().to_string()
}

/// What the repair may do, and from which score on a text counts as garbage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RepairConfig {
    /// Word lists (`jazari data lexicon`) that are added to the built-in one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lexicons: Vec<PathBuf>,
    /// Texts with this garbage score or a higher one are dropped, between 0 and 1; 1.1 drops none.
    #[serde(default = "default_garbage")]
    pub max_garbage: f32,
}

fn default_garbage() -> f32 {
    0.5
}

impl Default for RepairConfig {
    fn default() -> Self {
        RepairConfig { lexicons: Vec::new(), max_garbage: default_garbage() }
    }
}

/// The repair with its word list.
#[derive(Debug)]
pub struct Repairer {
    lexicon: Cow<'static, Lexicon>,
}

impl Repairer {
    /// The repair with the built-in word list.
    pub fn embedded() -> &'static Repairer {
        static EMBEDDED: LazyLock<Repairer> =
            LazyLock::new(|| Repairer { lexicon: Cow::Borrowed(Lexicon::built_in()) });
        &EMBEDDED
    }

    /// The repair of a configuration.
    ///
    /// # Errors
    /// A word list that cannot be read.
    pub fn new(config: &RepairConfig) -> Result<Repairer, RepairError> {
        let mut lexicon = Cow::Borrowed(Lexicon::built_in());
        for path in &config.lexicons {
            let read = |source| RepairError::Read { path: path.clone(), source };
            let bytes = std::fs::read(path).map_err(read)?;
            let bad = |source| RepairError::List { path: path.clone(), source };
            lexicon.to_mut().read(&bytes).map_err(bad)?;
        }
        Ok(Repairer { lexicon })
    }

    /// Normalises, repairs, and normalises again what the repair decoded.
    pub fn clean<'a>(
        &self,
        text: &'a str,
        normalize: Normalize,
        label: Option<&str>,
        changes: &mut Changes,
    ) -> (Cow<'a, str>, Verdict) {
        let raw = text;
        let mut first = Changes::default();
        let mut text = normalize.apply_to(raw, label, &mut first);
        // The training form takes characters away that are bytes of text in a wrong encoding.
        if TAKEN_AWAY.iter().any(|rule| first.count(*rule) > 0) && Look::of(raw).survey.may_be_utf8() {
            let mut decoding = Changes::default();
            if let Cow::Owned(decoded) = mojibake::decode(raw, true, &self.lexicon, &mut decoding) {
                first = decoding;
                text = Cow::Owned(normalize.apply_to(&decoded, label, &mut first).into_owned());
            }
        }
        changes.merge(&first);
        // Binary data is known by its control characters, which the training form has not.
        let removed = if matches!(text, Cow::Owned(_)) { controls(raw).saturating_sub(controls(&text)) } else { 0 };
        let mut verdict = Verdict::default();
        let mut repaired = false;
        let text = then(text, |text| {
            let (out, judged) = self.repair_after(text, removed, label, changes);
            (verdict, repaired) = (judged, matches!(out, Cow::Owned(_)));
            match out {
                Cow::Owned(out) => Cow::Owned(out),
                Cow::Borrowed(_) => Cow::Borrowed(text),
            }
        });
        if !repaired {
            return (text, verdict);
        }
        (then(text, |text| normalize.apply_to(text, label, changes)), verdict)
    }

    /// Repairs a text and judges what is left. Borrows when nothing changes. `label` (`arb_Arab`) is the language as far
    /// as it is known.
    ///
    /// Meant for text in training form: a profile leaves alone what the repair needs to see.
    pub fn repair<'a>(&self, text: &'a str, label: Option<&str>, changes: &mut Changes) -> (Cow<'a, str>, Verdict) {
        self.repair_after(text, 0, label, changes)
    }

    /// As [`Self::repair`], for a text of which `removed` control characters are gone.
    fn repair_after<'a>(
        &self,
        text: &'a str,
        removed: u32,
        label: Option<&str>,
        changes: &mut Changes,
    ) -> (Cow<'a, str>, Verdict) {
        let look = Look::of(text);
        let found = look.survey;
        let mut lost = found;
        let mut out = Cow::Borrowed(text);
        if found.controls > 0 {
            out = then(out, |text| shifted::decode(text, changes));
            if matches!(out, Cow::Owned(_)) {
                lost = Survey::default();
            }
        }
        if look.signs.capital_words >= MIN_CAPITAL_WORDS {
            out = then(out, |text| capitals::decode(text, changes));
        }
        if found.may_be_mojibake() {
            out = then(out, |text| mojibake::decode(text, found.may_be_utf8(), &self.lexicon, changes));
        }
        // What was decoded holds no lost characters any more but those that are left.
        if found.has_lost() && matches!(out, Cow::Owned(_)) && lost == found {
            lost = Look::of(&out).survey;
        }
        if found.has_lost() {
            out = then(out, |text| garbage::without_lost(text, changes));
        }
        // What was decoded may be Arabic now, and is not what was looked at.
        let mut is_same = matches!(out, Cow::Borrowed(_));
        if found.arabic || !is_same {
            out = then(out, |text| direction::decode(text, is_same.then_some(&look.order), &self.lexicon, changes));
            is_same = matches!(out, Cow::Borrowed(_));
            out = then(out, |text| {
                let evidence = if is_same { look.evidence } else { Evidence::of(text) };
                inversion::repair_with(text, evidence, &self.lexicon, changes)
            });
        }
        lost.controls += removed;
        lost.chars += removed;
        let signs = if matches!(out, Cow::Borrowed(_)) { look.signs } else { Look::of(&out).signs };
        let verdict = garbage::judge(&out, &signs, lost, label, &self.lexicon);
        (out, verdict)
    }
}

/// Control characters of ASCII that no text has.
fn controls(text: &str) -> u32 {
    let is_control = |byte: &&u8| matches!(byte, 0..=8 | 0xe..=0x1f | 0x7f);
    u32::try_from(text.as_bytes().iter().filter(is_control).count()).unwrap_or(u32::MAX)
}

/// Takes a text one step further, without a copy where the step changes nothing.
fn then<'a>(text: Cow<'a, str>, step: impl FnOnce(&str) -> Cow<'_, str>) -> Cow<'a, str> {
    match text {
        Cow::Borrowed(text) => step(text),
        Cow::Owned(text) => match step(&text) {
            Cow::Owned(changed) => Cow::Owned(changed),
            Cow::Borrowed(_) => Cow::Owned(text),
        },
    }
}

/// Repairs a text with the built-in word list, see [`Repairer::repair`].
pub fn repair<'a>(text: &'a str, label: Option<&str>, changes: &mut Changes) -> (Cow<'a, str>, Verdict) {
    Repairer::embedded().repair(text, label, changes)
}

/// A word list that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RepairError {
    /// The file could not be read.
    #[error("{}: cannot be read; check the path in `repair.lexicons`", path.display())]
    Read {
        /// The word list.
        path: PathBuf,
        /// Cause.
        #[source]
        source: std::io::Error,
    },
    /// The file is no word list.
    #[error("{}: is not a word list", path.display())]
    List {
        /// The word list.
        path: PathBuf,
        /// Where.
        #[source]
        source: lexicon::BadLine,
    },
}

impl RepairConfig {
    /// Checks the configuration without opening files; every problem is named with its key below `repair`.
    pub fn validate(&self) -> Result<(), Vec<String>> {
        if (0.0..=2.0).contains(&self.max_garbage) {
            return Ok(());
        }
        Err(vec![format!("max_garbage: {} is not between 0 and 2; the default is 0.5", self.max_garbage)])
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use crate::normalize::Profile;
    use proptest::prelude::*;

    fn cleaned(text: &str) -> (String, Verdict, Changes) {
        let mut changes = Changes::default();
        let profile = Normalize::Profile(Profile::default());
        let (text, verdict) = Repairer::embedded().clean(text, profile, None, &mut changes);
        (text.into_owned(), verdict, changes)
    }

    #[test]
    fn profile_and_repair_work_in_this_order() {
        for (before, after) in [
            ("Ã©cole et l\u{e2}\u{80}\u{99}Ã©tÃ©", "école et l’été"),
            ("d\u{92}accord", "d’accord"),
            ("Ø³Ù\u{84}Ø§Ù\u{85} Ù\u{81}Ù\u{8a}", "سلام في"),
            (
                "\u{27}D\u{3}VRFLpWp\u{3}DQRQ\\PH\u{3}HVW\u{3}UpJLH\u{3}SDU\u{3}OD\u{3}ORL\u{3}HW\u{3}OHV",
                "Da société anonyme est régie par la loi et les",
            ),
            ("األشخـــاص و اإلدارات", "الأشخاص و الإدارات"),
            ("intro\u{fffd}duction", "introduction"),
            // What was decoded is normalised as well: a tatweel in mojibake.
            ("Ø§Ù\u{84}Ø³Ù\u{80}Ù\u{84}Ø§Ù\u{85}", "السلام"),
        ] {
            let (text, verdict, changes) = cleaned(before);
            assert_eq!(text, after, "{changes:?}");
            assert_eq!(verdict.garbage(0.5), None, "{verdict:?}");
            assert_eq!(cleaned(&text).0, text, "again");
        }
    }

    #[test]
    fn bytes_shown_as_arabic_letters_are_decoded_before_they_are_normalised() {
        let sound = "كتبت الطالبة في المكتبة، وقرأت تسع مقالات";
        let wrong = encoding_rs::WINDOWS_1256.decode_without_bom_handling(sound.as_bytes()).0.into_owned();
        assert_eq!(cleaned(&wrong).0, sound);
        let wrong = encoding_rs::WINDOWS_1252.decode_without_bom_handling(sound.as_bytes()).0.into_owned();
        let (text, verdict, _) = cleaned(&wrong);
        assert_eq!((text.as_str(), verdict.garbage(0.5)), (sound, None));
    }

    #[test]
    fn word_lists_are_read_from_files() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("words.txt");
        std::fs::write(&path, "أعلاه\t500\n").unwrap();
        let config = RepairConfig { lexicons: vec![path.clone()], ..RepairConfig::default() };
        let repairer = Repairer::new(&config).unwrap();
        assert_eq!(repairer.repair("األمن أعاله", None, &mut Changes::default()).0, "الأمن أعلاه");
        std::fs::write(&path, "what").unwrap();
        let refused = Repairer::new(&config).unwrap_err();
        assert!(refused.to_string().contains("words.txt"));
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(Repairer::new(&config), Err(RepairError::Read { .. })));
    }

    #[test]
    fn configurations_are_checked() {
        assert_eq!(RepairConfig::default().validate(), Ok(()));
        assert!(RepairConfig { max_garbage: -1.0, ..RepairConfig::default() }.validate().is_err());
        assert!(RepairConfig { max_garbage: f32::NAN, ..RepairConfig::default() }.validate().is_err());
    }

    fn hostile() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            "[األإآلمحجخنيفىهو ]{0,20}",
            "[ÃÂØÙâÅ\u{80}-\u{bf}€™œ ]{0,10}",
            "[طظأ³„§…† ]{0,10}",
            "[\u{0}-\u{60}p-r]{0,12}",
            "[ÇáÓãÑÍÈ ]{0,12}",
            "\\PC{0,8}",
        ];
        prop::collection::vec(piece, 0..6).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn changes_are_counted_and_verdicts_are_in_bounds(text in hostile()) {
            let mut changes = Changes::default();
            let (out, verdict) = repair(&text, None, &mut changes);
            prop_assert_eq!(changes.is_empty(), out == text.as_str());
            prop_assert!((0.0..=1.0).contains(&verdict.score));
            prop_assert_eq!(verdict.reason.is_none(), verdict.score == 0.0);
        }
    }
}
