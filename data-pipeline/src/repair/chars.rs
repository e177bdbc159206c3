//! Owns what the repair asks about single characters, as one table of sets; never touches texts.

use std::sync::LazyLock;

use super::lexicon::{is_arabic, is_mark};
use super::survey::is_lost_control;

/// A letter or vowel sign of an Arabic word.
pub(super) const ARABIC: u16 = 1;
/// A vowel sign or tatweel of an Arabic word.
pub(super) const MARK: u16 = 1 << 1;
/// `Alphabetic` of Unicode.
pub(super) const LETTER: u16 = 1 << 2;
/// `Uppercase` of Unicode.
pub(super) const UPPER: u16 = 1 << 3;
/// `Lowercase` of Unicode.
pub(super) const LOWER: u16 = 1 << 4;
/// A number of any kind.
pub(super) const NUMBER: u16 = 1 << 5;
/// A letter of a block that no language of Morocco uses.
pub(super) const RARE: u16 = 1 << 6;
/// A private use character.
pub(super) const PRIVATE: u16 = 1 << 7;
/// A letter or sign of Latin-1 that French does not have.
pub(super) const ODD: u16 = 1 << 8;
/// A control character that no text has.
pub(super) const LOST: u16 = 1 << 9;
/// U+00C0 to U+00FF.
pub(super) const HIGH: u16 = 1 << 10;
/// What may be the first byte of a UTF-8 sequence in another table.
pub(super) const LEAD: u16 = 1 << 11;
/// A sign that recognition puts inside words.
pub(super) const INNER: u16 = 1 << 12;
/// The letters e and o, which Amazigh hardly has.
pub(super) const E_OR_O: u16 = 1 << 13;

/// Sets of the characters of the basic plane, by code point.
pub(super) struct Sets {
    basic: Box<[u16]>,
}

/// The sets of a character, worked out.
fn sets(c: char) -> u16 {
    let when = |is: bool, set: u16| if is { set } else { 0 };
    when(is_arabic(c), ARABIC)
        | when(is_arabic(c) && is_mark(c), MARK)
        | when(c.is_alphabetic(), LETTER)
        | when(c.is_uppercase(), UPPER)
        | when(c.is_lowercase(), LOWER)
        | when(c.is_numeric(), NUMBER)
        | when(is_rare(c), RARE)
        | when(matches!(c, '\u{e000}'..='\u{f8ff}'), PRIVATE)
        | when(is_odd(c), ODD)
        | when(is_lost_control(c), LOST)
        | when(matches!(c, '\u{c0}'..='\u{ff}'), HIGH)
        | when(matches!(c, '\u{c2}'..='\u{f4}' | 'ط' | 'ظ' | 'أ' | 'آ' | '\u{64b}'), LEAD)
        | when(matches!(c, '~' | '^' | '|' | '{' | '}' | '<' | '>' | '¬' | '¦'), INNER)
        | when(matches!(c, 'e' | 'E' | 'é' | 'o' | 'O'), E_OR_O)
}

fn is_rare(c: char) -> bool {
    match c {
        '\u{18f}' | '\u{190}' | '\u{194}' | '\u{1dd}' | '\u{1e6}' | '\u{1e7}' | '\u{218}'..='\u{21b}' => false,
        c => {
            matches!(c, '\u{180}'..='\u{24f}' | '\u{530}'..='\u{5cf}' | '\u{840}'..='\u{8ff}' | '\u{1200}'..='\u{139f}')
        }
    }
}

fn is_odd(c: char) -> bool {
    match c {
        'é' | 'è' | 'ê' | 'ë' | 'à' | 'â' | 'ä' | 'î' | 'ï' | 'ô' | 'ö' | 'ù' | 'û' | 'ü' | 'ç' | 'ñ' | 'á' | 'í'
        | 'ó' | 'ú' | 'É' | 'È' | 'Ê' | 'À' | 'Â' | 'Î' | 'Ô' | 'Ç' | '«' | '»' | '\u{a0}' | '°' | '·' | '²' | '³'
        | '©' | '®' | '¿' | '¡' | 'º' | 'ª' => false,
        c => matches!(c, '\u{a1}'..='\u{ff}'),
    }
}

impl Sets {
    /// The table; made once for a process.
    pub fn table() -> &'static Sets {
        static TABLE: LazyLock<Sets> =
            LazyLock::new(|| Sets { basic: (0..0x1_0000).map(|code| char::from_u32(code).map_or(0, sets)).collect() });
        &TABLE
    }

    /// The sets that hold a character.
    #[inline]
    pub fn of(&self, c: char) -> u16 {
        match self.basic.get(c as usize) {
            Some(sets) => *sets,
            None => sets(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_says_what_was_worked_out() {
        let table = Sets::table();
        for c in '\0'..=char::MAX {
            assert_eq!(table.of(c), sets(c), "{c:?}");
        }
        assert_eq!(table.of('é'), LETTER | LOWER | HIGH | LEAD | E_OR_O);
        assert_eq!(table.of('\u{64b}') & (ARABIC | MARK | LEAD), ARABIC | MARK | LEAD);
    }
}
