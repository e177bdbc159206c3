//! Owns the signs of damage that are counted while a text goes by: odd characters, words that are none; never judges.

use super::chars::{ARABIC, E_OR_O, INNER, LEAD, LETTER, LOWER, MARK, NUMBER, ODD, PRIVATE, RARE, UPPER};
use super::pairs::is_rare;

/// Letters of a word whose pairs are counted.
const MIN_WORD_OF_PAIRS: u32 = 4;

/// What one pass over a text counts.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Signs {
    pub chars: u32,
    pub rare: u32,
    pub private: u32,
    pub odd: u32,
    pub latin_words: u32,
    pub broken_words: u32,
    pub single_letters: u32,
    pub arabic_words: u32,
    pub arabic_singles: u32,
    pub wrong_starts: u32,
    /// Latin words with more capitals than small letters.
    pub capital_words: u32,
    /// ASCII letters right after another, and those that hardly ever follow it.
    pub pairs: u32,
    pub rare_pairs: u32,
    /// Letters of Latin words.
    pub letters: u32,
    pub e: u32,
    pub v: u32,
    pub amazigh: u32,
    /// A lead and a symbol that look like bytes of another table.
    pub byte_pairs: u32,
}

/// Counts the signs character by character.
#[derive(Debug, Default)]
pub(super) struct SignsReader {
    signs: Signs,
    word: Word,
}

/// A word while it is read.
#[derive(Debug, Default)]
struct Word {
    first: char,
    arabic: u32,
    latin: u32,
    /// Capitals after a small letter.
    turns: u32,
    /// Signs that recognition puts inside words.
    inner_signs: u32,
    e: u32,
    v: u32,
    capitals: u32,
    pairs: u32,
    rare_pairs: u32,
    /// The character before, when it is an ASCII letter, else 0.
    before: u8,
    /// Its first letters, small, when they are ASCII.
    start: [u8; 4],
}

impl SignsReader {
    /// Takes the next character; `sets` and `last_sets` are those of [`super::chars`].
    #[inline]
    pub fn push(&mut self, c: char, sets: u16, last: char, last_sets: u16) {
        let signs = &mut self.signs;
        signs.chars += 1;
        if sets & (RARE | PRIVATE | ODD) != 0 {
            signs.rare += u32::from(sets & RARE != 0);
            signs.private += u32::from(sets & PRIVATE != 0);
            signs.odd += u32::from(sets & ODD != 0);
        }
        if last_sets & LEAD != 0 && !c.is_ascii() {
            signs.byte_pairs += u32::from(is_byte_pair(last, c, sets));
        }
        if sets & (ARABIC | LETTER | NUMBER) != 0 || (sets & INNER != 0 && self.word.latin > 0) {
            self.word.push(c, sets, last_sets);
        } else if self.word.first != '\0' {
            self.end_of_word();
        }
    }

    /// What was counted.
    pub fn finish(mut self) -> Signs {
        self.end_of_word();
        self.signs
    }

    fn end_of_word(&mut self) {
        let word = std::mem::take(&mut self.word);
        let signs = &mut self.signs;
        match (word.arabic, word.latin) {
            (0, 0) => {}
            (arabic, 0) => {
                signs.arabic_words += 1;
                signs.arabic_singles += u32::from(arabic == 1);
                signs.wrong_starts += u32::from(arabic > 1 && matches!(word.first, 'ة' | 'ى'));
            }
            (0, latin) => {
                signs.latin_words += 1;
                signs.single_letters += u32::from(latin == 1);
                signs.broken_words += u32::from(word.turns > 1 || word.inner_signs > 0);
                signs.capital_words += u32::from(latin > 1 && 2 * word.capitals > latin);
                // Alphabets and units are full of pairs that no word has.
                if latin >= MIN_WORD_OF_PAIRS {
                    signs.pairs += word.pairs;
                    signs.rare_pairs += word.rare_pairs;
                }
                signs.letters += latin;
                signs.e += word.e;
                signs.v += word.v;
                signs.amazigh += u32::from(word.is_amazigh());
            }
            _ => {}
        }
    }
}

/// Whether two characters look like the bytes of a letter in another table.
fn is_byte_pair(last: char, c: char, sets: u16) -> bool {
    match last {
        'Ã' | 'Â' | 'Ø' | 'Ù' | 'â' => sets & (LETTER | NUMBER) == 0,
        'ط' | 'ظ' => matches!(c, '\u{a2}'..='\u{b9}' | '„' | '…' | '†' | '‡' | 'ƒ' | 'ˆ'),
        _ => false,
    }
}

impl Word {
    #[inline]
    fn push(&mut self, c: char, sets: u16, last_sets: u16) {
        let is_first = self.first == '\0';
        if is_first {
            self.first = c;
        }
        if sets & ARABIC != 0 {
            self.arabic += u32::from(sets & MARK == 0);
        } else if sets & LETTER != 0 {
            let ascii = if c.is_ascii() { c as u8 } else { 0 };
            if ascii > 0 {
                if let Some(slot) = self.start.get_mut(self.latin as usize) {
                    *slot = ascii.to_ascii_lowercase();
                }
                if self.before > 0 {
                    self.pairs += 1;
                    self.rare_pairs += u32::from(is_rare(self.before, ascii));
                }
            }
            self.before = ascii;
            self.capitals += u32::from(sets & UPPER != 0);
            self.latin += 1;
            self.turns += u32::from(sets & UPPER != 0 && last_sets & LOWER != 0 && !is_first);
            self.e += u32::from(sets & E_OR_O != 0);
            self.v += u32::from(c == 'v');
        } else {
            self.before = 0;
            self.inner_signs += u32::from(sets & NUMBER == 0);
        }
    }

    /// Function words that Amazigh texts are full of.
    fn is_amazigh(&self) -> bool {
        let start = self.start.get(..(self.latin as usize).min(4)).unwrap_or_default();
        matches!(
            start,
            b"n" | b"ad" | b"ar" | b"ur" | b"lli" | b"vr" | b"vf" | b"zv" | b"dar" | b"tam" | b"ima" | b"is"
        )
    }
}
