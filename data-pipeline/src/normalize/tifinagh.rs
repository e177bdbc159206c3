//! Owns the letter table between Tifinagh and Amazigh Latin; never touches files.
//!
//! The 31 letters of the IRCAM alphabet and the labialisation mark correspond one to one with Latin letters (the table
//! of MediaWiki's converter for Tachelhit). Letters outside that alphabet (Tuareg, Berber Academy, spirants) are read as
//! the nearest standard letter, one way only: enough to compare texts, not to restore them.

/// The Latin spelling of a Tifinagh letter, or `None` for any other character.
pub const fn latin_of_tifinagh(c: char) -> Option<&'static str> {
    Some(match c {
        'ⴰ' => "a",
        'ⴱ' | 'ⴲ' => "b",
        'ⴳ' | 'ⴴ' => "g",
        'ⴵ' | 'ⴶ' => "ǧ",
        'ⴷ' | 'ⴸ' => "d",
        'ⴹ' | 'ⴺ' => "ḍ",
        'ⴻ' | 'ⵦ' => "e",
        'ⴼ' => "f",
        'ⴽ' | 'ⴾ' | 'ⴿ' => "k",
        'ⵀ' | 'ⵁ' | 'ⵂ' => "h",
        'ⵃ' => "ḥ",
        'ⵄ' => "ɛ",
        'ⵅ' | 'ⵆ' => "x",
        'ⵇ' | 'ⵈ' => "q",
        'ⵉ' => "i",
        'ⵊ' | 'ⵋ' | 'ⵌ' => "j",
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
        'ⵛ' => "c",
        'ⵜ' | 'ⵝ' => "t",
        'ⵞ' => "č",
        'ⵟ' => "ṭ",
        'ⵠ' => "v",
        'ⵡ' => "w",
        'ⵢ' => "y",
        'ⵣ' | 'ⵤ' => "z",
        'ⵥ' => "ẓ",
        'ⵧ' => "o",
        '\u{2d6f}' => "ʷ",
        // The joiner writes two letters as one sign.
        '\u{2d7f}' => "",
        _ => return None,
    })
}

/// Whether `text` holds a character of the Tifinagh block.
pub fn has_tifinagh(text: &str) -> bool {
    // U+2D30 to U+2D7F are E2 B4 B0 to E2 B5 BF in UTF-8.
    let mut rest = text.as_bytes();
    while let Some(at) = memchr::memchr(0xe2, rest) {
        match rest.get(at + 1) {
            Some(0xb4 | 0xb5) => return true,
            _ => rest = rest.get(at + 1..).unwrap_or_default(),
        }
    }
    false
}

/// Writes `text` with its Tifinagh letters in Latin ones into `out`, which is not emptied.
pub fn to_latin(text: &str, out: &mut String) {
    out.reserve(text.len());
    for c in text.chars() {
        match latin_of_tifinagh(c) {
            Some(latin) => out.push_str(latin),
            None => out.push(c),
        }
    }
}

/// The IRCAM letter of a Latin letter of the standard orthography, lower case, or `None`.
pub const fn tifinagh_of_latin(c: char) -> Option<char> {
    Some(match c {
        'a' => 'ⴰ',
        'b' => 'ⴱ',
        'g' => 'ⴳ',
        'd' => 'ⴷ',
        'ḍ' => 'ⴹ',
        'e' => 'ⴻ',
        'f' => 'ⴼ',
        'k' => 'ⴽ',
        'h' => 'ⵀ',
        'ḥ' => 'ⵃ',
        'ɛ' => 'ⵄ',
        'x' => 'ⵅ',
        'q' => 'ⵇ',
        'i' => 'ⵉ',
        'j' => 'ⵊ',
        'l' => 'ⵍ',
        'm' => 'ⵎ',
        'n' => 'ⵏ',
        'u' | 'o' => 'ⵓ',
        'r' => 'ⵔ',
        'ṛ' => 'ⵕ',
        'ɣ' => 'ⵖ',
        's' => 'ⵙ',
        'ṣ' => 'ⵚ',
        'c' => 'ⵛ',
        't' => 'ⵜ',
        'ṭ' => 'ⵟ',
        'w' => 'ⵡ',
        'y' => 'ⵢ',
        'z' => 'ⵣ',
        'ẓ' => 'ⵥ',
        'ʷ' => '\u{2d6f}',
        'p' => 'ⴱ',
        'v' => 'ⴼ',
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn the_ircam_alphabet_goes_there_and_back() {
        let letters = "ⴰⴱⴳⴷⴹⴻⴼⴽⵀⵃⵄⵅⵇⵉⵊⵍⵎⵏⵓⵔⵕⵖⵙⵚⵛⵜⵟⵡⵢⵣⵥⵯ";
        assert_eq!(letters.chars().count(), 32);
        for letter in letters.chars() {
            let latin = latin_of_tifinagh(letter).unwrap();
            let mut chars = latin.chars();
            assert_eq!(chars.next().and_then(tifinagh_of_latin), Some(letter), "{letter}");
            assert_eq!(chars.next(), None, "{letter}");
        }
    }

    #[test]
    fn every_letter_of_the_block_has_a_reading() {
        for c in ('\u{2d30}'..='\u{2d67}').chain(['\u{2d6f}', '\u{2d7f}']) {
            assert!(latin_of_tifinagh(c).is_some(), "{c}");
            assert!(has_tifinagh(&format!("é€{c}")), "{c}");
        }
        assert!(!has_tifinagh("€ d’accord … سلام ẓ"));
    }

    #[test]
    fn texts() {
        let mut out = String::new();
        to_latin("ⵜⴰⵎⴰⵣⵉⵖⵜ, ⴰⴳⵯⴹⵉ 12", &mut out);
        assert_eq!(out, "tamaziɣt, agʷḍi 12");
    }
}
