//! Owns the key form, under which two texts count as the same for deduplication; never changes training text.

use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::canonical_combining_class;

/// A letter repeated more often than this in a row is written this many times in the key: `bzzzaaaaf` and `bzzaaf` meet,
/// the geminated `7mmam` and the plain `7mam` stay apart.
const MAX_LETTER_RUN: usize = 2;

/// Writes the key form of `text` into `out`, replacing what it held.
///
/// NFKC, lower case, no diacritics that stand alone after composition (so Arabic vowel signs go and Latin `ḍ` stays a
/// letter), no tatweel, bidi or zero-width characters, Arabic letter variants folded, digits in ASCII, letters repeated
/// three times or more squeezed to two, runs of white space and punctuation turned into one space. A text made of nothing
/// else (`...`, `***`) is its own key, so that such texts are not all duplicates of each other. Idempotent.
pub fn key_form(text: &str, out: &mut String) {
    out.clear();
    if text.chars().all(is_plain) {
        fold(text.chars(), out);
    } else {
        fold(text.chars().filter(|&c| !is_ignorable(c)).nfkc(), out);
    }
    if out.is_empty() {
        out.extend(text.nfkc());
        let trimmed = out.trim();
        if trimmed.len() != out.len() {
            *out = trimmed.to_owned();
        }
    }
}

fn fold(chars: impl Iterator<Item = char>, out: &mut String) {
    let mut writer = Writer { out, space_due: false, last: ' ', run: 0 };
    for c in chars {
        if c.is_ascii() {
            if c.is_ascii_alphanumeric() || is_ascii_symbol(c) {
                writer.push(c.to_ascii_lowercase());
            } else {
                writer.space();
            }
        } else if is_separator(c) {
            writer.space();
        } else if !is_plain(c) && (is_ignorable(c) || canonical_combining_class(c) != 0) {
            // A mark or an invisible character: it neither joins nor divides.
        } else {
            for lower in c.to_lowercase() {
                if lower.is_ascii() || canonical_combining_class(lower) == 0 {
                    writer.push(fold_arabic(lower));
                }
            }
        }
    }
}

struct Writer<'a> {
    out: &'a mut String,
    space_due: bool,
    last: char,
    run: usize,
}

impl Writer<'_> {
    fn space(&mut self) {
        self.space_due = !self.out.is_empty();
    }

    fn push(&mut self, c: char) {
        if self.space_due {
            self.out.push(' ');
            self.space_due = false;
            self.last = ' ';
        }
        self.run = if c == self.last { self.run + 1 } else { 1 };
        self.last = c;
        if self.run > MAX_LETTER_RUN && c.is_alphabetic() {
            return;
        }
        self.out.push(c);
    }
}

/// Folds spellings that vary freely in Darija, and letters that keyboards exchange.
fn fold_arabic(c: char) -> char {
    match c {
        'أ' | 'إ' | 'آ' | 'ٱ' => 'ا',
        'ى' | 'ئ' | 'ی' => 'ي',
        'ؤ' => 'و',
        'ة' | 'ہ' | 'ۀ' | 'ھ' => 'ه',
        'ک' => 'ك',
        'ڭ' | 'ݣ' => 'گ',
        'ڥ' => 'ڤ',
        '\u{660}'..='\u{669}' => ascii_digit(c, '\u{660}'),
        '\u{6f0}'..='\u{6f9}' => ascii_digit(c, '\u{6f0}'),
        c => c,
    }
}

fn ascii_digit(c: char, zero: char) -> char {
    char::from_digit(u32::from(c).saturating_sub(u32::from(zero)), 10).unwrap_or(c)
}

/// Starters that NFKC leaves alone and that no following starter can join: the bulk of Latin, Arabic and Tifinagh text.
fn is_plain(c: char) -> bool {
    matches!(c,
        '\0'..='\u{7f}'
        | '\u{c0}'..='\u{131}'
        | '\u{606}'..='\u{60f}'
        | '\u{61b}'
        | '\u{61e}'..='\u{63f}'
        | '\u{641}'..='\u{64a}'
        | '\u{660}'..='\u{66f}'
        | '\u{671}'..='\u{674}'
        | '\u{679}'..='\u{6d3}'
        | '\u{2d30}'..='\u{2d67}')
}

/// Invisible characters, and the tatweel, which only stretches a word.
fn is_ignorable(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{640}' | '\u{180b}'..='\u{180f}'
        | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
        | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{e0000}'..='\u{e0fff}')
}

/// ASCII characters of the Unicode symbol categories: `C++` is not `C`.
fn is_ascii_symbol(c: char) -> bool {
    matches!(c, '$' | '+' | '<' | '=' | '>' | '^' | '`' | '|' | '~')
}

/// White space, controls and punctuation outside ASCII, for the scripts of the corpora.
fn is_separator(c: char) -> bool {
    if is_plain(c) && c > '\u{2000}' {
        return false;
    }
    matches!(c,
        '\u{a1}' | '\u{a7}' | '\u{ab}' | '\u{b6}' | '\u{b7}' | '\u{bb}' | '\u{bf}'
        | '\u{55a}'..='\u{55f}' | '\u{589}' | '\u{58a}' | '\u{5be}' | '\u{5f3}' | '\u{5f4}'
        | '\u{609}' | '\u{60a}' | '\u{60c}' | '\u{60d}' | '\u{61b}' | '\u{61d}'..='\u{61f}'
        | '\u{66a}'..='\u{66d}' | '\u{6d4}'
        | '\u{2010}'..='\u{2027}' | '\u{2030}'..='\u{2043}' | '\u{2045}'..='\u{2051}' | '\u{2053}'..='\u{205e}'
        | '\u{2d70}' | '\u{2e00}'..='\u{2e5d}'
        | '\u{3001}'..='\u{3003}' | '\u{3008}'..='\u{3011}' | '\u{3014}'..='\u{301f}')
        || c.is_whitespace()
        || c.is_control()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::super::tests::any_text;
    use super::*;
    use proptest::prelude::*;
    use unicode_normalization::{IsNormalized, is_nfkc_quick};

    fn key(text: &str) -> String {
        let mut out = String::from("left over");
        key_form(text, &mut out);
        out
    }

    #[test]
    fn spellings_of_one_text_meet() {
        for (a, b) in [
            ("وَاشْ نَقْدَرْ", "واش نقدر"),
            ("الســـلام", "السلام"),
            ("أهلا", "اهلا"),
            ("على المدينة", "علي المدينه"),
            ("ڭاع", "گاع"),
            ("ݣاع", "گاع"),
            ("\u{202b}سلام\u{202c}\u{200f}", "سلام"),
            ("کیفاش", "كيفاش"),
            ("٢٠٢٥ / ۲۰۲۵", "2025 2025"),
            ("wach jay?", "Wach   jay !"),
            ("bzaaaaf", "bzaaf"),
            ("ﻻ", "لا"),
            ("d\u{323}ar", "Ḍar"),
            ("yenna-yas", "Yenna yas"),
            ("ⵢⴰⵏ  ⵓⵎⵙⵏⴼⵍ.", "ⵢⴰⵏ ⵓⵎⵙⵏⴼⵍ"),
            ("« salam »", "salam"),
        ] {
            assert_eq!(key(a), key(b), "{a} / {b}");
        }
    }

    #[test]
    fn different_words_stay_apart() {
        for (a, b) in [
            ("7mmam", "7mam"),
            ("aḍar", "adar"),
            ("C++", "C"),
            ("3lach", "lach"),
            ("100", "1000"),
            ("...", "***"),
            ("🙂", "🙁"),
            ("ⵙⵙⵏⵖ", "ⵙⵏⵖ"),
            ("$1", "$2"),
        ] {
            assert_ne!(key(a), key(b), "{a} / {b}");
        }
    }

    #[test]
    fn a_text_of_punctuation_alone_is_its_own_key() {
        assert_eq!(key(" ... "), "...");
        assert_eq!(key("؟!"), "؟!");
        assert_eq!(key(""), "");
    }

    #[test]
    fn plain_characters_are_left_alone_by_nfkc() {
        for c in ('\0'..='\u{3000}').filter(|&c| is_plain(c)) {
            assert_eq!(canonical_combining_class(c), 0, "{c:?}");
            assert_eq!(is_nfkc_quick([c].into_iter()), IsNormalized::Yes, "{c:?}");
            assert!(!is_ignorable(c), "{c:?}");
        }
    }

    #[test]
    fn the_key_of_every_character_is_stable() {
        let mut unstable: Vec<char> = Vec::new();
        let mut buffer = String::new();
        for c in '\0'..=char::MAX {
            let once = key(buffer_of(c, &mut buffer));
            if key(&once) != once {
                unstable.push(c);
            }
        }
        assert!(unstable.is_empty(), "{unstable:?}");
    }

    fn buffer_of(c: char, buffer: &mut String) -> &str {
        buffer.clear();
        buffer.push(c);
        buffer
    }

    proptest! {
        #[test]
        fn key_form_is_idempotent(text in any_text()) {
            let once = key(&text);
            prop_assert_eq!(key(&once), once);
        }

        #[test]
        fn composed_and_decomposed_texts_have_one_key(text in any_text()) {
            let expected = key(&text);
            prop_assert_eq!(&key(&text.nfc().collect::<String>()), &expected);
            prop_assert_eq!(&key(&text.nfd().collect::<String>()), &expected);
        }

        #[test]
        fn a_text_with_letters_has_a_key_with_letters(text in "[\u{620}-\u{64a}\u{2d30}-\u{2d67}a-z]{1,20}") {
            prop_assume!(text.chars().any(|c| c != '\u{640}'));
            prop_assert!(key(&text).chars().any(char::is_alphabetic));
        }
    }
}
