//! Owns the letter table between Tifinagh and Amazigh Latin, both ways; never decides which script a text is in.
//!
//! The letters are those of the standard (IRCAM) alphabet with the Latin letters that Moroccan school books and the
//! localisations of free software use. Tifinagh letters outside the standard have a Latin form as well, so that nothing
//! is lost in keys; they come back as standard letters.

use std::borrow::Cow;

/// Pairs that go both ways: Tifinagh, Latin.
pub(crate) const EXACT: [(char, char); 32] = [
    ('ⴰ', 'a'),
    ('ⴱ', 'b'),
    ('ⵛ', 'c'),
    ('ⴷ', 'd'),
    ('ⴹ', 'ḍ'),
    ('ⴻ', 'e'),
    ('ⴼ', 'f'),
    ('ⴳ', 'g'),
    ('ⵀ', 'h'),
    ('ⵃ', 'ḥ'),
    ('ⵄ', 'ɛ'),
    ('ⵅ', 'x'),
    ('ⵇ', 'q'),
    ('ⵉ', 'i'),
    ('ⵊ', 'j'),
    ('ⴽ', 'k'),
    ('ⵍ', 'l'),
    ('ⵎ', 'm'),
    ('ⵏ', 'n'),
    ('ⵓ', 'u'),
    ('ⵔ', 'r'),
    ('ⵕ', 'ṛ'),
    ('ⵖ', 'ɣ'),
    ('ⵙ', 's'),
    ('ⵚ', 'ṣ'),
    ('ⵜ', 't'),
    ('ⵟ', 'ṭ'),
    ('ⵡ', 'w'),
    ('ⵢ', 'y'),
    ('ⵣ', 'z'),
    ('ⵥ', 'ẓ'),
    ('ⵯ', 'ʷ'),
];

/// The Latin letters (lower case) of a Tifinagh character; `None` for characters that are not Tifinagh.
///
/// The joiner U+2D7F is nothing, the separator U+2D70 stays itself.
pub fn latin_of(c: char) -> Option<&'static str> {
    Some(match c {
        'ⴰ' => "a",
        'ⴱ' | 'ⴲ' => "b",
        'ⵛ' => "c",
        'ⴷ' | 'ⴸ' => "d",
        'ⴹ' | 'ⴺ' => "ḍ",
        'ⴻ' => "e",
        'ⴼ' => "f",
        'ⴳ' | 'ⴴ' => "g",
        'ⵀ' | 'ⵁ' | 'ⵂ' => "h",
        'ⵃ' => "ḥ",
        'ⵄ' => "ɛ",
        'ⵅ' | 'ⵆ' => "x",
        'ⵇ' | 'ⵈ' => "q",
        'ⵉ' => "i",
        'ⵊ' | 'ⵋ' | 'ⵌ' => "j",
        'ⴵ' | 'ⴶ' => "ǧ",
        'ⴽ' | 'ⴾ' | 'ⴿ' => "k",
        'ⵍ' => "l",
        'ⵎ' => "m",
        'ⵏ' => "n",
        'ⵐ' => "ny",
        'ⵑ' => "ng",
        'ⵒ' => "p",
        'ⵓ' => "u",
        'ⵔ' => "r",
        'ⵕ' => "ṛ",
        'ⵖ' | 'ⵗ' | 'ⵘ' => "ɣ",
        'ⵙ' => "s",
        'ⵚ' => "ṣ",
        'ⵜ' | 'ⵝ' => "t",
        'ⵞ' => "č",
        'ⵟ' => "ṭ",
        'ⵠ' => "v",
        'ⵡ' => "w",
        'ⵢ' => "y",
        'ⵣ' | 'ⵤ' => "z",
        'ⵥ' => "ẓ",
        'ⵦ' => "e",
        'ⵧ' => "o",
        'ⵯ' => "ʷ",
        '\u{2d70}' => "\u{2d70}",
        '\u{2d7f}' => "",
        _ => return None,
    })
}

/// The Tifinagh letter of a Latin letter of either case: the standard alphabet, and `o p v č ǧ` by their nearest letters.
pub fn tifinagh_of(c: char) -> Option<char> {
    let lower = match c {
        'A'..='Z' => c.to_ascii_lowercase(),
        'a'..='z' => c,
        c if c.is_uppercase() => {
            let mut lower = c.to_lowercase();
            match (lower.next(), lower.next()) {
                (Some(one), None) => one,
                _ => return None,
            }
        }
        c => c,
    };
    let near = match lower {
        'o' => 'ⵓ',
        'p' => 'ⴱ',
        'v' => 'ⴼ',
        'č' => 'ⵛ',
        'ǧ' => 'ⵊ',
        _ => return EXACT.iter().find(|(_, latin)| *latin == lower).map(|(tifinagh, _)| *tifinagh),
    };
    Some(near)
}

/// Tifinagh in Latin letters (lower case, for Tifinagh has no case); everything else stays. Borrows without Tifinagh.
///
/// Texts in the standard alphabet come back unchanged from [`to_tifinagh`].
pub fn to_latin(text: &str) -> Cow<'_, str> {
    // U+2D30 to U+2D7F is E2 B4 B0 to E2 B5 BF; no other character of the text holds these pairs of bytes in this place.
    if !has_tifinagh(text) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match latin_of(c) {
            Some(latin) => out.push_str(latin),
            None => out.push(c),
        }
    }
    Cow::Owned(out)
}

/// Latin letters as Tifinagh; everything else stays, as do letters that Amazigh does not have.
///
/// Only for text known to be Amazigh: French comes out as nonsense.
pub fn to_tifinagh(text: &str) -> String {
    text.chars().map(|c| tifinagh_of(c).unwrap_or(c)).collect()
}

/// Whether a text holds a character of the Tifinagh block.
pub fn has_tifinagh(text: &str) -> bool {
    let bytes = text.as_bytes();
    memchr::memchr_iter(0xe2, bytes).any(|at| matches!(bytes.get(at + 1), Some(0xb4 | 0xb5)) && is_in_block(bytes, at))
}

fn is_in_block(bytes: &[u8], at: usize) -> bool {
    match (bytes.get(at + 1), bytes.get(at + 2)) {
        (Some(0xb4), Some(last)) => *last >= 0xb0,
        (Some(0xb5), Some(_)) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_standard_alphabet_goes_both_ways() {
        for (tifinagh, latin) in EXACT {
            assert_eq!(latin_of(tifinagh), Some(latin.to_string().as_str()));
            assert_eq!(tifinagh_of(latin), Some(tifinagh));
        }
        assert_eq!(to_latin("ⵜⴰⵎⴰⵣⵉⵖⵜ"), "tamaziɣt");
        assert_eq!(to_tifinagh("Tamaziɣt"), "ⵜⴰⵎⴰⵣⵉⵖⵜ");
        assert_eq!(to_latin("ⴰⴳⵯⵍⵍⵉⴷ, 2"), "agʷllid, 2");
        assert_eq!(to_tifinagh("Ɛli, ḌAR"), "ⵄⵍⵉ, ⴹⴰⵔ");
        assert_eq!(to_tifinagh("opv"), "ⵓⴱⴼ");
    }

    #[test]
    fn every_letter_of_the_block_has_a_latin_form() {
        for c in '\u{2d30}'..='\u{2d67}' {
            assert!(latin_of(c).is_some_and(|latin| !latin.is_empty()), "{c}");
            assert!(has_tifinagh(&c.to_string()));
        }
        assert!(has_tifinagh("ⵯ") && !has_tifinagh("ⴀ“’"), "Georgian and quotation marks are not Tifinagh");
    }

    #[test]
    fn text_without_tifinagh_is_borrowed() {
        assert!(matches!(to_latin("سلام “l’été”"), Cow::Borrowed(_)));
    }

    proptest! {
        #[test]
        fn standard_tifinagh_survives_the_way_there_and_back(text in "[ⴰⴱⴳⴷⴹⴻⴼⴽⵀⵃⵄⵅⵇⵉⵊⵍⵎⵏⵓⵔⵕⵖⵙⵚⵛⵜⵟⵡⵢⵣⵥⵯ ,.]{0,40}") {
            prop_assert_eq!(to_tifinagh(&to_latin(&text)), text);
        }

        #[test]
        fn standard_latin_survives_the_way_there_and_back(text in "[abcdḍefghḥɛxqijklmnuryṛɣsṣtṭwzẓʷ -]{0,40}") {
            let there = to_tifinagh(&text);
            let back = to_latin(&there);
            prop_assert_eq!(back.as_ref(), text.as_str());
        }
    }
}
