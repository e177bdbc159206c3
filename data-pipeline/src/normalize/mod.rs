//! Owns the two forms of a text, the training form and the key form; never touches files or drops documents.
//!
//! The training form changes as little as possible: NFC (not NFKC, which would turn the Tifinagh labialisation mark
//! U+2D6F into the letter U+2D61 and U+02B7 into a plain w), line feeds for line ends, no NUL and no leading byte order
//! mark. Rules that belong to one script (tatweel, digits, look-alike letters) are in the profiles, see [`Profile`].

mod arabic;
mod changes;
mod choice;
mod class;
mod edit;
mod elongation;
mod key;
mod look_alikes;
mod profile;
pub mod tifinagh;

pub use changes::{Changes, Rule};
pub use key::{key_form, near_key};
pub use profile::{Harakat, Profile, ProfileName};

use std::borrow::Cow;

use unicode_normalization::char::canonical_combining_class;
use unicode_normalization::{IsNormalized, UnicodeNormalization, is_nfc_quick};

use crate::document::BYTE_ORDER_MARK;

/// How texts are normalised before anything else sees them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Normalize {
    /// Unicode NFC, CRLF and CR to LF, no NUL, no leading byte order mark.
    #[default]
    Nfc,
    /// The text exactly as the file holds it.
    None,
    /// A profile for the scripts of Morocco, which includes NFC.
    Profile(Profile),
}

impl Normalize {
    /// Applies the form to a text of an unknown language; borrows when there is nothing to change.
    pub fn apply<'a>(self, text: &'a str) -> Cow<'a, str> {
        self.apply_to(text, None, &mut Changes::default())
    }

    /// Applies the form to a text in the language `label`, as far as that is known, and counts the rules that fired
    /// (those of a profile only). Borrows when there is nothing to change.
    pub fn apply_to<'a>(self, text: &'a str, label: Option<&str>, changes: &mut Changes) -> Cow<'a, str> {
        match self {
            Normalize::Nfc => training_form(text),
            Normalize::None => Cow::Borrowed(text),
            Normalize::Profile(profile) => profile.apply(text, label, changes),
        }
    }
}

/// The training form of a text. Idempotent; borrows when the text already has it.
pub fn training_form(text: &str) -> Cow<'_, str> {
    let text = plain_line_ends(text);
    if is_nfc(&text) {
        return text;
    }
    Cow::Owned(to_nfc(&text))
}

/// NFC of a text: only the stretches from a letter to the last of the marks that follow it are normalised, for an inert
/// character never changes with what stands before it.
fn to_nfc(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut copied = 0;
    // The last inert character, and whether something follows it that is not.
    let (mut start, mut is_marked) = (0, false);
    let ends = std::iter::once((text.len(), ' '));
    for (at, c) in text.char_indices().chain(ends) {
        if !is_inert(c) {
            is_marked = true;
            continue;
        }
        if is_marked {
            out.push_str(text.get(copied..start).unwrap_or_default());
            stretch_to_nfc(text.get(start..at).unwrap_or_default(), &mut out);
            (copied, is_marked) = (at, false);
        }
        start = at;
    }
    out.push_str(text.get(copied..).unwrap_or_default());
    out
}

/// Vowel signs on one letter that are put in order without tables.
const MAX_SIGNS: usize = 6;

fn stretch_to_nfc(stretch: &str, out: &mut String) {
    let mut chars = stretch.chars();
    let first = chars.next().unwrap_or_default();
    let mut signs = ['\0'; MAX_SIGNS];
    let mut count = 0;
    for c in chars {
        // These compose with nothing, and stand before all marks that do.
        let (true, Some(slot)) = (is_arabic_sign(c), signs.get_mut(count)) else {
            out.extend(stretch.nfc());
            return;
        };
        *slot = c;
        count += 1;
    }
    if !is_inert(first) {
        out.extend(stretch.nfc());
        return;
    }
    let signs = signs.get_mut(..count).unwrap_or_default();
    signs.sort_by_key(|&c| canonical_combining_class(c));
    out.push(first);
    out.extend(signs.iter());
}

/// Arabic vowel signs, of combining classes 27 to 35.
fn is_arabic_sign(c: char) -> bool {
    matches!(c, '\u{64b}'..='\u{652}' | '\u{670}')
}

fn plain_line_ends(text: &str) -> Cow<'_, str> {
    let unmarked = text.trim_start_matches(BYTE_ORDER_MARK);
    if memchr::memchr2(b'\r', 0, unmarked.as_bytes()).is_none() {
        return Cow::Borrowed(unmarked);
    }
    let mut out = String::with_capacity(unmarked.len());
    let mut after_return = false;
    for c in unmarked.chars() {
        match c {
            '\0' => continue,
            BYTE_ORDER_MARK if out.is_empty() => continue,
            '\r' => out.push('\n'),
            '\n' if after_return => {}
            c => out.push(c),
        }
        after_return = c == '\r';
    }
    Cow::Owned(out)
}

/// The quick check of UAX #15 §9 with a short cut, and the slow comparison where it says "maybe".
fn is_nfc(text: &str) -> bool {
    let mut last_class = 0;
    let mut certain = true;
    for c in text.chars() {
        if is_inert(c) {
            last_class = 0;
            continue;
        }
        let class = canonical_combining_class(c);
        if class != 0 && class < last_class {
            return false;
        }
        match is_nfc_quick(std::iter::once(c)) {
            IsNormalized::Yes => {}
            IsNormalized::No => return false,
            IsNormalized::Maybe => certain = false,
        }
        last_class = class;
    }
    certain || text.chars().eq(text.chars().nfc())
}

/// Characters that NFC never changes whatever stands beside them, in the ranges that fill Moroccan corpora: one
/// comparison each instead of two table look-ups. (Everything below U+0300 is `NFC_Quick_Check=Yes` with combining
/// class 0: <https://www.unicode.org/Public/UCD/latest/ucd/DerivedNormalizationProps.txt>.)
fn is_inert(c: char) -> bool {
    matches!(c,
        '\0'..='\u{2ff}'
        | '\u{606}'..='\u{60f}'
        | '\u{61b}'..='\u{64a}'
        | '\u{660}'..='\u{66f}'
        | '\u{671}'..='\u{6d3}'
        | '\u{2010}'..='\u{2027}'
        | '\u{2d30}'..='\u{2d70}')
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use proptest::prelude::*;

    /// Text from the blocks where normalisation has something to do, and from everywhere else.
    pub(super) fn any_text() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            "[a-zA-Z0-9 .,!?'’\u{e0}-\u{ff}\u{300}-\u{330}]{0,12}",
            "[\u{60c}\u{61b}\u{61f}\u{620}-\u{65f}\u{660}-\u{6d5}\u{200b}-\u{200f}]{0,12}",
            "[\u{2d30}-\u{2d7f}ɣɛḍḥṛṣṭẓʷ-]{0,12}",
            "[\r\n\t\u{0}\u{feff} ]{0,4}",
            "[\u{fb50}-\u{fdff}\u{fe70}-\u{feff}\u{ff01}-\u{ff5e}]{0,6}",
            "\\PC{0,12}",
        ];
        prop::collection::vec(piece, 0..6).prop_map(|pieces| pieces.concat())
    }

    #[test]
    fn inert_characters_are_left_alone_by_nfc_in_any_company() {
        for c in ('\0'..='\u{3000}').filter(|&c| is_inert(c)) {
            assert_eq!(unicode_normalization::char::canonical_combining_class(c), 0, "{c:?}");
            assert_eq!(is_nfc_quick([c].into_iter()), IsNormalized::Yes, "{c:?}");
        }
    }

    #[test]
    fn training_form_is_nfc_and_not_nfkc() {
        assert_eq!(training_form("d\u{323}ar"), "ḍar");
        for kept in ["ⴳⵯ", "agʷ", "ﷺ", "ـــ", "نقدر نسوّلك؟", "3lach M9wd"] {
            assert_eq!(training_form(kept), kept);
            assert!(matches!(training_form(kept), Cow::Borrowed(_)), "{kept}");
        }
    }

    #[test]
    fn line_ends_marks_and_nuls() {
        assert_eq!(training_form("a\r\nb\rc\n"), "a\nb\nc\n");
        assert_eq!(training_form("\r\r\n"), "\n\n");
        assert_eq!(training_form("\0\u{feff}\u{feff}a\0b"), "ab");
        assert_eq!(training_form("\r\0\n"), "\n");
        assert_eq!(Normalize::None.apply("\u{feff}a\r\n"), "\u{feff}a\r\n");
    }

    proptest! {
        #[test]
        fn training_form_is_idempotent(text in any_text()) {
            let once = training_form(&text).into_owned();
            prop_assert_eq!(training_form(&once).into_owned(), once.clone());
            prop_assert!(unicode_normalization::is_nfc(&once));
        }

        #[test]
        fn the_check_agrees_with_the_standard_one(text in any_text()) {
            prop_assert_eq!(is_nfc(&text), unicode_normalization::is_nfc(&text));
        }

        #[test]
        fn stretches_make_the_nfc_of_the_whole(
            text in any_text(),
            signs in "[بأإؤéḍaⴰ\u{64b}-\u{655}\u{670}\u{300}-\u{304}\u{323}\u{327}]{0,24}",
        ) {
            for text in [text, signs] {
                prop_assert_eq!(to_nfc(&text), text.nfc().collect::<String>());
            }
        }

        #[test]
        fn training_form_keeps_every_other_character(text in "[a-z\u{620}-\u{64a}\u{2d30}-\u{2d67} ]{0,40}") {
            prop_assert_eq!(training_form(&text).into_owned(), text.clone());
        }
    }
}
