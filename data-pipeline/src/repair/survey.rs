//! Owns the first look at a text: which repairs have anything to look for, so that clean text is read only twice; never
//! changes or judges it.

use super::chars::{ARABIC, HIGH, LEAD, LOST};

/// Latin-1 letters in a row of which windows-1256 text may be made.
const MIN_HIGH_LETTERS: u32 = 3;

/// What one pass finds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Survey {
    /// Characters.
    pub chars: u32,
    /// Control characters but tabs and line ends.
    pub controls: u32,
    /// U+FFFD.
    pub replaced: u32,
    /// There is Arabic.
    pub arabic: bool,
    /// Two characters in a row may be bytes of UTF-8.
    byte_pairs: bool,
    /// Letters U+00C0 to U+00FF beside each other.
    high_letters: u32,
}

impl Survey {
    /// Takes the next character; `sets` and `last_sets` are those of [`super::chars`].
    #[inline]
    pub fn push(&mut self, c: char, sets: u16, last: char, last_sets: u16) {
        self.chars += 1;
        self.controls += u32::from(sets & LOST != 0);
        if c.is_ascii() {
            return;
        }
        self.arabic |= sets & ARABIC != 0;
        self.replaced += u32::from(c == '\u{fffd}');
        self.high_letters += u32::from(sets & last_sets & HIGH != 0);
        if last_sets & LEAD != 0 {
            self.byte_pairs |= match last {
                // Letters and vowel signs of Arabic are bytes from C0 on and never follow a first byte.
                'ط' | 'ظ' | 'أ' | 'آ' | '\u{64b}' => !matches!(c, '\u{621}'..='\u{63a}' | '\u{641}'..='\u{655}'),
                _ => matches!(c, '\u{80}'..='\u{bf}' | '\u{152}'..='\u{2122}'),
            };
        }
    }

    /// Whether sequences of UTF-8 may have been read with another table.
    pub fn may_be_utf8(&self) -> bool {
        self.byte_pairs
    }

    /// Whether a wrong encoding is possible at all.
    pub fn may_be_mojibake(&self) -> bool {
        self.byte_pairs || self.high_letters >= MIN_HIGH_LETTERS - 1
    }

    /// Whether there are characters that stand for lost ones.
    pub fn has_lost(&self) -> bool {
        self.controls + self.replaced > 0
    }
}

/// Control characters that no text has.
pub(super) fn is_lost_control(c: char) -> bool {
    matches!(c, '\0'..='\u{8}' | '\u{b}' | '\u{c}' | '\u{e}'..='\u{1f}' | '\u{7f}'..='\u{9f}')
}

#[cfg(test)]
mod tests {
    use super::super::look::Look;

    #[test]
    fn clean_text_asks_for_no_repair() {
        for text in ["L’été à Noël, œuvre « oui » créée", "السلام عليكم، أين الطلبة؟ أ، ط", "ⴰⵣⵓⵍ", "aḍar n ɛli"]
        {
            let found = Look::of(text).survey;
            assert!(!found.has_lost(), "{text}");
            assert_eq!(found.arabic, text.contains('س'));
        }
        assert!(!Look::of("L’été à Noël, œuvre « oui »").survey.may_be_mojibake());
        assert!(Look::of("Ã©").survey.may_be_mojibake() && Look::of("ظ„ط§").survey.may_be_mojibake());
        assert!(Look::of("ÓáÇã").survey.may_be_mojibake());
        assert!(Look::of("a\u{1}").survey.has_lost() && Look::of("a\u{fffd}").survey.has_lost());
    }
}
