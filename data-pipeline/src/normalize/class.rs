//! Owns which characters the rules of the profiles look at, as one table, so that clean text is only read; never changes
//! a text.

/// A line end, an invisible character, a presentation form, a tatweel or a digit: see `edit`.
pub(super) const EDIT: u8 = 1;
/// A letter of a Persian or Urdu keyboard.
pub(super) const PERSIAN: u8 = 1 << 1;
/// A character that NFC may change or move.
pub(super) const MARK: u8 = 1 << 2;
/// A look-alike of an Amazigh Latin letter.
pub(super) const LOOK_ALIKE: u8 = 1 << 3;
/// Three equal letters in a row; found by [`scan`], no character has it.
pub(super) const RUN: u8 = 1 << 4;
/// An Arabic vowel sign.
pub(super) const HARAKAT: u8 = 1 << 5;

const SMALL: usize = 0x800;
static CLASSES: [u8; SMALL] = classes();

const fn classes() -> [u8; SMALL] {
    let mut table = [0; SMALL];
    let mut i = 0;
    while i < SMALL {
        if let Some(c) = char::from_u32(i as u32) {
            table[i] = class_below_800(c);
        }
        i += 1;
    }
    table
}

const fn class_below_800(c: char) -> u8 {
    match c {
        '\t' | '\n' => 0,
        '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}' | '\u{ad}' => EDIT,
        '\u{b0}' | '\u{162}' | '\u{163}' | '\u{21a}' | '\u{21b}' => LOOK_ALIKE,
        'Γ' | 'Σ' | 'γ' | 'ε' | 'σ' | 'ς' | '\u{4d8}' | '\u{4d9}' | '\u{510}' | '\u{511}' => LOOK_ALIKE,
        '\u{2b7}' => LOOK_ALIKE,
        '\u{300}'..='\u{36f}' | '\u{374}' | '\u{37e}' | '\u{387}' => MARK,
        '\u{483}'..='\u{489}' => MARK,
        '\u{370}'..='\u{52f}' | '\u{606}'..='\u{60f}' => 0,
        '\u{530}'..='\u{60f}' => MARK,
        '\u{61c}' | '\u{640}' | '\u{660}'..='\u{669}' | '\u{6f0}'..='\u{6f9}' => EDIT,
        '\u{64b}'..='\u{652}' | '\u{670}' => MARK | HARAKAT,
        '\u{6a9}' | '\u{6be}' | '\u{6c1}' | '\u{6cc}' => PERSIAN,
        '\u{610}'..='\u{61a}' | '\u{653}'..='\u{65f}' | '\u{6d4}'..='\u{6ed}' | '\u{700}'..='\u{74f}' => MARK,
        '\u{780}'..='\u{7ff}' => MARK,
        _ => 0,
    }
}

/// The class of a character.
#[inline]
pub(super) fn class(c: char) -> u8 {
    match CLASSES.get(c as usize) {
        Some(class) => *class,
        None => class_from_800(c),
    }
}

fn class_from_800(c: char) -> u8 {
    match c {
        '\u{1e00}'..='\u{1eff}' | '\u{2010}'..='\u{2027}' | '\u{2d30}'..='\u{2d70}' | '\u{202f}'..='\u{205f}' => 0,
        '\u{20ac}' => LOOK_ALIKE,
        '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}' => EDIT,
        '\u{fb50}'..='\u{fdf9}' | '\u{fdfe}' | '\u{fdff}' | '\u{fe70}'..='\u{fefc}' => EDIT,
        '\u{fff9}'..='\u{fffb}' => EDIT,
        '\u{2000}'..='\u{200a}' | '\u{20a0}'..='\u{20c0}' | '\u{2100}'..='\u{2120}' => MARK,
        '\u{2122}' | '\u{2190}'..='\u{2199}' | '\u{2500}'..='\u{27bf}' | '\u{1f300}'..='\u{1faff}' => 0,
        _ => MARK,
    }
}

/// The classes of all characters of a text together, and [`RUN`].
pub(super) fn scan(text: &str) -> u8 {
    let mut seen = 0;
    let mut last = '\0';
    let mut repeats = 0_u32;
    for c in text.chars() {
        seen |= class(c);
        if c == last {
            repeats += 1;
            if repeats == 2 && c.is_alphabetic() {
                seen |= RUN;
            }
        } else {
            last = c;
            repeats = 0;
        }
    }
    seen
}

#[cfg(test)]
mod tests {
    use super::*;
    use unicode_normalization::char::canonical_combining_class;
    use unicode_normalization::{IsNormalized, is_nfc_quick};

    #[test]
    fn characters_that_nfc_may_change_are_marked() {
        for c in '\0'..=char::MAX {
            if class(c) & (MARK | EDIT) == 0 {
                assert_eq!(canonical_combining_class(c), 0, "{c:?}");
                assert_eq!(is_nfc_quick([c].into_iter()), IsNormalized::Yes, "{c:?} {:x}", c as u32);
            }
        }
    }

    #[test]
    fn a_scan_gathers_classes_and_runs() {
        assert_eq!(scan("Bonjour, l’été ! سلام عليكم ⴰⵣⵓⵍ ḍ\n"), 0);
        assert_eq!(scan("1000 ... --- !!!"), 0);
        assert_eq!(scan("bzaaaf"), RUN);
        assert_eq!(scan("بـ"), EDIT);
        assert_eq!(scan("بَ"), MARK | HARAKAT);
        assert_eq!(scan("tamaziγt"), LOOK_ALIKE);
    }
}
