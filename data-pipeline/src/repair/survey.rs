//! Owns the first look at a text: which repairs have anything to look for, so that clean text is read only twice; never
//! changes or judges it.

use super::lexicon::is_arabic;

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
    /// Looks at a text.
    pub fn of(text: &str) -> Survey {
        let mut found = Survey::default();
        let mut last = ' ';
        for c in text.chars() {
            found.chars += 1;
            if c.is_ascii() {
                found.controls += u32::from(is_lost_control(c));
                last = c;
                continue;
            }
            if is_arabic(c) {
                found.arabic = true;
            } else {
                found.controls += u32::from(is_lost_control(c));
                found.replaced += u32::from(c == '\u{fffd}');
                found.high_letters += u32::from(is_high(c) && is_high(last));
            }
            found.byte_pairs |= match last {
                // Letters and vowel signs of Arabic are bytes from C0 on and never follow a first byte.
                'ط' | 'ظ' | 'أ' | 'آ' | '\u{64b}' => !matches!(c, '\u{621}'..='\u{63a}' | '\u{641}'..='\u{655}'),
                '\u{c2}'..='\u{f4}' => matches!(c, '\u{80}'..='\u{bf}' | '\u{152}'..='\u{2122}'),
                _ => false,
            };
            last = c;
        }
        found
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

fn is_high(c: char) -> bool {
    matches!(c, '\u{c0}'..='\u{ff}')
}

/// Control characters that no text has.
pub(super) fn is_lost_control(c: char) -> bool {
    matches!(c, '\0'..='\u{8}' | '\u{b}' | '\u{c}' | '\u{e}'..='\u{1f}' | '\u{7f}'..='\u{9f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clean_text_asks_for_no_repair() {
        for text in ["L’été à Noël, œuvre « oui » créée", "السلام عليكم، أين الطلبة؟ أ، ط", "ⴰⵣⵓⵍ", "aḍar n ɛli"]
        {
            let found = Survey::of(text);
            assert!(!found.has_lost(), "{text}");
            assert_eq!(found.arabic, text.contains('س'));
        }
        assert!(!Survey::of("L’été à Noël, œuvre « oui »").may_be_mojibake());
        assert!(Survey::of("Ã©").may_be_mojibake() && Survey::of("ظ„ط§").may_be_mojibake());
        assert!(Survey::of("ÓáÇã").may_be_mojibake());
        assert!(Survey::of("a\u{1}").has_lost() && Survey::of("a\u{fffd}").has_lost());
    }
}
