//! Owns the key form, under which two texts count as the same for deduplication; never changes training text.

use std::sync::LazyLock;

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
    out.reserve(text.len());
    let mut writer = Writer { out, space_due: false, last: ' ', run: 0 };
    let short_cuts: &[ShortCut; SHORT_CUTS] = &SHORT_CUT;
    let mut chars = text.chars().peekable();
    let mut segment = String::new();
    // The last character that a combining mark may still join; NFKC is only run from it to the end of such marks.
    let mut pending = None;
    while let Some(c) = chars.next() {
        let short_cut = short_cuts.get(c as usize).copied().unwrap_or_else(|| match class(c) {
            Class::Dropped => ShortCut::Dropped,
            Class::Direct => ShortCut::Fold,
            Class::Complex => ShortCut::Complex,
        });
        match short_cut {
            ShortCut::Dropped => {}
            ShortCut::Letter(_) | ShortCut::Space | ShortCut::Fold => {
                if let Some((before, short_cut)) = pending.replace((c, short_cut)) {
                    writer.take(before, short_cut);
                }
            }
            ShortCut::Complex => {
                segment.clear();
                segment.extend(pending.take().map(|(before, _)| before));
                segment.push(c);
                while let Some(next) = chars.next_if(|&next| class(next) != Class::Direct) {
                    if class(next) == Class::Complex {
                        segment.push(next);
                    }
                }
                segment.nfkc().for_each(|c| writer.fold(c));
            }
        }
    }
    if let Some((before, short_cut)) = pending {
        writer.take(before, short_cut);
    }
    if out.is_empty() {
        out.extend(text.nfkc());
        let trimmed = out.trim();
        if trimmed.len() != out.len() {
            *out = trimmed.to_owned();
        }
    }
}

/// Writes the key for near duplicates and for finding benchmark texts into `out`, replacing what it held.
///
/// The [`key_form`] and then: numbers become 0 (digits that touch a Latin letter stay, for Arabizi writes letters with
/// them), every letter stands once (`bzzaaf` is `bzaf`), Tifinagh is in Latin letters and the look-alikes of Amazigh
/// Latin letters are those letters. Texts that differ in more than their spelling can share it (`Article 1`,
/// `Article 2`), so it never decides alone that a document goes. Idempotent.
pub fn near_key(text: &str, out: &mut String) {
    key_form(text, out);
    let key = std::mem::take(out);
    out.reserve(key.len());
    let mut last = ' ';
    let mut chars = key.chars().flat_map(near_letters).peekable();
    while let Some(c) = chars.next() {
        if c.is_ascii_digit() {
            let start = out.len();
            out.push(c);
            while let Some(digit) = chars.next_if(char::is_ascii_digit) {
                out.push(digit);
            }
            if !is_latin(last) && !chars.peek().copied().is_some_and(is_latin) {
                out.truncate(start);
                out.push('0');
            }
            last = '0';
        } else if c != last || !c.is_alphabetic() {
            out.push(c);
            last = c;
        }
    }
}

/// The letters of a near key for a character of a key form.
fn near_letters(c: char) -> impl Iterator<Item = char> {
    let latin = match c {
        'γ' => "ɣ",
        'ε' | 'σ' | 'ς' | '\u{511}' => "ɛ",
        '\u{163}' | '\u{21b}' => "ṭ",
        c => super::tifinagh::latin_of(c).unwrap_or(""),
    };
    // Signs without a letter only reach this in a text of nothing but signs, which is its own key.
    latin.chars().chain(latin.is_empty().then_some(c))
}

fn is_latin(c: char) -> bool {
    matches!(c, 'a'..='z' | 'A'..='Z' | '\u{c0}'..='\u{24f}' | '\u{250}'..='\u{2af}' | '\u{1e00}'..='\u{1eff}')
}

/// How a character takes part in NFKC.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    /// Never reaches the key, and never stands between a letter and its marks.
    Dropped,
    /// A starter that NFKC leaves alone but for marks after it: the bulk of Latin, Arabic and Tifinagh text. Arabic
    /// letters with a hamza count, because folding makes their composition irrelevant.
    Direct,
    /// Everything else.
    Complex,
}

fn class(c: char) -> Class {
    match c {
        '\0'..='\u{7f}' => Class::Direct,
        '\u{675}'..='\u{678}' => Class::Complex,
        '\u{600}'..='\u{6ff}' if arabic(c) == DROP => Class::Dropped,
        '\u{c0}'..='\u{131}'
        | '\u{180}'..='\u{1c3}'
        | '\u{1cd}'..='\u{1f0}'
        | '\u{1f4}'..='\u{2af}'
        | '\u{600}'..='\u{6ff}'
        | '\u{750}'..='\u{77f}'
        | '\u{2018}'..='\u{2023}'
        | '\u{2d30}'..='\u{2d67}' => Class::Direct,
        c if is_ignorable(c) => Class::Dropped,
        _ => Class::Complex,
    }
}

/// What is known of a character without another look: [`class`], and for direct ones what [`Writer::fold`] makes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ShortCut {
    Dropped,
    Complex,
    /// Direct; becomes this letter.
    Letter(char),
    /// Direct; stands between words.
    Space,
    /// Direct; has to be folded.
    Fold,
}

/// Characters of one or two bytes in UTF-8: Latin, Greek, Cyrillic, Hebrew, Arabic.
const SHORT_CUTS: usize = 0x800;

static SHORT_CUT: LazyLock<[ShortCut; SHORT_CUTS]> = LazyLock::new(|| {
    std::array::from_fn(|code| {
        let Some(c) = u32::try_from(code).ok().and_then(char::from_u32) else { return ShortCut::Fold };
        match class(c) {
            Class::Dropped => ShortCut::Dropped,
            Class::Complex => ShortCut::Complex,
            Class::Direct => {
                let mut out = String::from("0");
                let mut writer = Writer { out: &mut out, space_due: false, last: '0', run: 0 };
                writer.fold(c);
                let spaced = writer.space_due;
                let mut letters = out.chars().skip(1);
                match (letters.next(), letters.next()) {
                    (None, _) if spaced => ShortCut::Space,
                    (Some(letter), None) => ShortCut::Letter(letter),
                    _ => ShortCut::Fold,
                }
            }
        }
    })
});

struct Writer<'a> {
    out: &'a mut String,
    space_due: bool,
    last: char,
    run: usize,
}

impl Writer<'_> {
    #[inline]
    fn take(&mut self, c: char, short_cut: ShortCut) {
        match short_cut {
            ShortCut::Letter(letter) => self.push(letter),
            ShortCut::Space => self.space(),
            _ => self.fold(c),
        }
    }

    /// Takes a character that NFKC has left its final form.
    fn fold(&mut self, c: char) {
        match c {
            '\0'..='\u{7f}' if c.is_ascii_alphanumeric() || is_ascii_symbol(c) => self.push(c.to_ascii_lowercase()),
            '\0'..='\u{7f}' => self.space(),
            '\u{600}'..='\u{6ff}' => match arabic(c) {
                DROP => {}
                ' ' => self.space(),
                c => self.push(c),
            },
            'ݣ' => self.push('گ'),
            '\u{2d30}'..='\u{2d67}' => self.push(c),
            c if is_separator(c) => self.space(),
            c if is_ignorable(c) || canonical_combining_class(c) != 0 => {}
            c => {
                for lower in c.to_lowercase() {
                    if lower.is_ascii() || canonical_combining_class(lower) == 0 {
                        self.push(lower);
                    }
                }
            }
        }
    }

    #[inline]
    fn space(&mut self) {
        self.space_due = !self.out.is_empty();
    }

    #[inline]
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

/// Stands for "nothing" in [`ARABIC`].
const DROP: char = '\0';

/// What each character of the Arabic block (U+0600 to U+06FF) becomes: another letter, a space, or nothing.
static ARABIC: [char; 256] = arabic_table();

fn arabic(c: char) -> char {
    ARABIC.get((c as usize).wrapping_sub(0x600)).copied().unwrap_or(c)
}

const fn arabic_table() -> [char; 256] {
    let mut table = [DROP; 256];
    let mut i = 0;
    while i < table.len() {
        if let Some(c) = char::from_u32(0x600 + i as u32) {
            table[i] = fold_arabic(c);
        }
        i += 1;
    }
    table
}

/// Folds spellings that vary freely in Darija and letters that keyboards exchange; drops marks and the tatweel.
///
/// A letter and the same letter with a hamza always meet, so it does not matter whether the hamza is a mark of its own.
const fn fold_arabic(c: char) -> char {
    match c {
        'أ' | 'إ' | 'آ' | 'ٱ' | 'ٲ' | 'ٳ' => 'ا',
        'ى' | 'ئ' | 'ی' => 'ي',
        'ؤ' => 'و',
        'ة' | 'ہ' | 'ۀ' | 'ۂ' | 'ە' | 'ھ' => 'ه',
        'ۓ' => 'ے',
        'ک' => 'ك',
        'ڭ' => 'گ',
        'ڥ' => 'ڤ',
        '\u{660}'..='\u{669}' => (b'0' + (c as u32 - 0x660) as u8) as char,
        '\u{6f0}'..='\u{6f9}' => (b'0' + (c as u32 - 0x6f0) as u8) as char,
        // Punctuation.
        '\u{609}'
        | '\u{60a}'
        | '\u{60c}'
        | '\u{60d}'
        | '\u{61b}'
        | '\u{61d}'..='\u{61f}'
        | '\u{66a}'..='\u{66d}'
        | '\u{6d4}' => ' ',
        // Vowel signs and other marks, the Arabic letter mark, the tatweel.
        '\u{610}'..='\u{61a}'
        | '\u{61c}'
        | '\u{640}'
        | '\u{64b}'..='\u{65f}'
        | '\u{670}'
        | '\u{6d6}'..='\u{6dc}'
        | '\u{6df}'..='\u{6e4}'
        | '\u{6e7}'
        | '\u{6e8}'
        | '\u{6ea}'..='\u{6ed}' => DROP,
        c => c,
    }
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

/// White space, controls and punctuation outside ASCII and the Arabic block, for the scripts of the corpora.
fn is_separator(c: char) -> bool {
    matches!(c,
        '\u{80}'..='\u{a1}' | '\u{a7}' | '\u{ab}' | '\u{b6}' | '\u{b7}' | '\u{bb}' | '\u{bf}'
        | '\u{55a}'..='\u{55f}' | '\u{589}' | '\u{58a}' | '\u{5be}' | '\u{5f3}' | '\u{5f4}'
        | '\u{2000}'..='\u{200a}' | '\u{2010}'..='\u{2029}' | '\u{202f}'..='\u{2043}' | '\u{2045}'..='\u{2051}'
        | '\u{2053}'..='\u{205f}'
        | '\u{2d70}' | '\u{2e00}'..='\u{2e5d}'
        | '\u{3000}'..='\u{3003}' | '\u{3008}'..='\u{3011}' | '\u{3014}'..='\u{301f}')
        || (c > '\u{ff}' && c.is_whitespace())
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
            ("ا\u{654}هلا", "أهلا"),
            ("ا\u{64e}\u{654}هلا", "أهلا"),
            ("e\u{200d}\u{301}cole", "école"),
            ("e\u{323}\u{302}", "ê\u{323}"),
            ("ﻣﺮﺣﺒﺎ", "مرحبا"),
            ("d’accord…", "D'accord"),
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
    fn direct_characters_are_starters_that_nfkc_leaves_alone() {
        for c in ('\0'..='\u{3000}').filter(|&c| class(c) == Class::Direct) {
            assert_eq!(canonical_combining_class(c), 0, "{c:?}");
            assert_eq!(is_nfkc_quick([c].into_iter()), IsNormalized::Yes, "{c:?}");
            assert!(!is_ignorable(c), "{c:?}");
        }
    }

    #[test]
    fn arabic_marks_are_dropped_and_composition_does_not_matter() {
        for c in '\u{600}'..='\u{6ff}' {
            let is_mark = canonical_combining_class(c) != 0;
            assert!(!is_mark || class(c) == Class::Dropped, "{c:?}");
            let decomposed: String = c.nfd().collect();
            if class(c) != Class::Complex {
                assert_eq!(key(&decomposed), key(&c.to_string()), "{c:?}");
            }
        }
    }

    #[test]
    fn the_key_of_every_character_is_stable() {
        let mut unstable: Vec<char> = Vec::new();
        let mut buffer = String::new();
        for c in ('\0'..=char::MAX).filter(|&c| !is_ideograph(c)) {
            let once = key(buffer_of(c, &mut buffer));
            if key(&once) != once {
                unstable.push(c);
            }
        }
        assert!(unstable.is_empty(), "{unstable:?}");
    }

    /// Seventy thousand letters without case or variants would only take time.
    fn is_ideograph(c: char) -> bool {
        matches!(c, '\u{3400}'..='\u{9fff}' | '\u{ac00}'..='\u{d7a3}' | '\u{17000}'..='\u{18cff}' | '\u{20000}'..='\u{dffff}')
    }

    fn buffer_of(c: char, buffer: &mut String) -> &str {
        buffer.clear();
        buffer.push(c);
        buffer
    }

    fn near(text: &str) -> String {
        let mut out = String::from("left over");
        near_key(text, &mut out);
        out
    }

    #[test]
    fn near_keys_forget_numbers_gemination_and_script() {
        for (a, b) in [
            ("Article 12, alinéa 3", "article 7 alinéa 456"),
            ("رقم 03.01بشأن", "رقم 12.99بشأن"),
            ("bzzzaaf", "bzaf"),
            ("ⵜⴰⵎⴰⵣⵉⵖⵜ ⵏ ⵍⵎⵖⵔⵉⴱ", "Tamaziɣt n lmeɣrib".replace('e', "").as_str()),
            ("ⴰⴳⵯⵍⵍⵉⴷ", "agʷllid"),
            ("tamaziγt, taεrabt", "tamaziɣt taɛrabt"),
        ] {
            assert_eq!(near(a), near(b), "{a} / {b}");
        }
        assert_eq!(near("3lach m9wd 2 2025"), "3lach m9wd 0 0");
        assert_eq!(near("..."), "...");
        for signs in ["\u{feff}\t\u{2d70}", "\u{feff}\t\u{2d7f}", "\u{2d70} \u{2d7f}"] {
            assert_eq!(near(signs), signs);
            assert_eq!(near(&near(signs)), near(signs));
        }
        assert_ne!(near("3lach"), near("9lach"));
    }

    proptest! {
        #[test]
        fn near_key_is_idempotent(text in any_text()) {
            let once = near(&text);
            prop_assert_eq!(near(&once), once);
        }

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
