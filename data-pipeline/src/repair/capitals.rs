//! Owns capitals whose accented letters came out as small ones: `DONNmES g CARACTnRE`; never touches other text.
//!
//! Text of a font without a table of characters (see `shifted`) shows glyph numbers as characters. A reader that takes
//! them for letters moved by three and moves them back, but letters only, leaves `a société` as `A SOCImTm`: small letters
//! are capitals, x y z are `[ \ ]`, and the accented letters, whose glyph numbers are those of small letters, are three
//! places off as well.

use std::borrow::Cow;

use crate::normalize::{Changes, Rule};

/// Words in capitals with such a letter, before a text is believed to be damaged.
const MIN_WORDS: usize = 6;
/// Of the words of two letters and more that have a small letter, the share that must look damaged.
const MIN_SHARE: f32 = 0.5;

/// The capital that a character stands for.
fn capital(c: char) -> Option<char> {
    Some(match c {
        'g' => 'À',
        'h' => 'Â',
        'l' => 'Ç',
        'm' => 'É',
        'n' => 'È',
        'o' => 'Ê',
        'p' => 'Ë',
        's' => 'Î',
        't' => 'Ï',
        '{' => 'Ô',
        '[' => 'X',
        '\\' => 'Y',
        ']' => 'Z',
        '©' => '«',
        'ª' => '»',
        '±' => '–',
        '²' => '—',
        '³' => '“',
        '´' => '”',
        '¶' => '’',
        '°' => 'Œ',
        _ => return None,
    })
}

/// Whether a character may stand in a damaged word.
fn is_of_word(c: char) -> bool {
    c.is_ascii_uppercase() || matches!(c, 'h' | 'l'..='p' | 's' | 't' | '{' | '[' | '\\' | ']')
}

/// A word of capitals with at least one letter that is none: `DONNmES`, `PH\SIQUES`, `mVOLUE`.
fn is_damaged(word: &str) -> bool {
    let capitals = word.bytes().filter(u8::is_ascii_uppercase).count();
    // [A] and {B} are what they look like.
    let inner = word.trim_matches(['[', ']', '{', '\\']);
    capitals >= 2 && word.chars().all(is_of_word) && inner.chars().any(|c| !c.is_ascii_uppercase())
}

fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c: char| !is_of_word(c) && !c.is_alphanumeric()).filter(|word| !word.is_empty())
}

/// Whether a line has no word that is written in small letters.
fn is_of_capitals(line: &str) -> bool {
    let is_plain = |word: &str| word == "g" || word.chars().all(is_of_word) || !word.contains(char::is_lowercase);
    words(line).all(|word| is_plain(word) && (word.chars().count() < 3 || !word.chars().all(char::is_lowercase)))
}

/// Gives the accents back. Borrows when the text has no such words.
pub(super) fn decode<'a>(text: &'a str, changes: &mut Changes) -> Cow<'a, str> {
    let (mut damaged, mut small) = (0, 0);
    for word in words(text).filter(|word| word.len() > 1) {
        if is_damaged(word) {
            damaged += 1;
        } else {
            small += usize::from(word.contains(char::is_lowercase));
        }
    }
    if damaged < MIN_WORDS || (damaged as f32) < MIN_SHARE * (damaged + small) as f32 {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 2 * damaged);
    let mut count = 0;
    for line in text.split_inclusive('\n') {
        let is_one = is_of_capitals(line) && words(line).any(|word| is_damaged(word) || word == "g");
        if !is_one {
            out.push_str(line);
            continue;
        }
        count += 1;
        out.extend(line.chars().map(|c| capital(c).unwrap_or(c)));
    }
    if count == 0 {
        return Cow::Borrowed(text);
    }
    changes.add(Rule::ShiftedFont, count);
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAMAGED: &str = "RELATIVE g LA PROTECTION DES PERSONNES PH\\SIQUES\ng L mGARD DES DONNmES g CARACTnRE PERSONNEL\n\
        SECTION PREMInRE. ± DmFINITIONS\nL¶INFORMATIQUE mVOLUE AU[ DROITS\nElle est en vigueur.";

    #[test]
    fn accents_of_capitals_come_back() {
        let mut changes = Changes::default();
        let expected = "RELATIVE À LA PROTECTION DES PERSONNES PHYSIQUES\nÀ L ÉGARD DES DONNÉES À CARACTÈRE PERSONNEL\n\
            SECTION PREMIÈRE. – DÉFINITIONS\nL’INFORMATIQUE ÉVOLUE AUX DROITS\nElle est en vigueur.";
        assert_eq!(decode(DAMAGED, &mut changes), expected);
        assert_eq!(changes.count(Rule::ShiftedFont), 4);
        assert!(matches!(decode(expected, &mut changes), Cow::Borrowed(_)));
    }

    #[test]
    fn other_capitals_stay() {
        for text in [
            "LOI N° 17-95 RELATIVE AUX SOCIÉTÉS ANONYMES",
            "GHz MHz kWh PhD McDonald GmbH IPv4 WiFi iOS macOS DVDs CDs PDFs URLs APIs",
            "WSSbah lTTbib SSaraHa mDDina nDDar TTmn lHHmam",
            "[A] {B} \\C [NOTE] [ERROR] TOmATO",
            "",
        ] {
            assert!(matches!(decode(text, &mut Changes::default()), Cow::Borrowed(_)), "{text}");
        }
    }
}
