//! Owns what a word is in running text, for filters, deduplication and word lists; never touches the tokenizer's cut.
//!
//! A word is a run of letters, marks and digits: `\w` and `\W` of most engines break diacritised Arabic at every vowel
//! sign and Arabizi at every digit. Marks stay with their letter (`كَتَبَ`), digits with the letters they touch (`3lach`,
//! `m9wd`), an apostrophe or a hyphen between letters joins (`l'école`, `yenna-yas`, `ma-3reftch`), and characters that
//! do not show (joiners, bidirectional marks, soft hyphens) never break a word.

use std::str::Chars;
use std::sync::LazyLock;

use crate::char_table::CharTable;

/// What kind of character something is; the general categories of Unicode, coarsely.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Class {
    /// Controls, unassigned and private characters.
    Other = 0,
    /// `\p{L}`
    Letter,
    /// `\p{M}`: vowel signs, the Tifinagh joiner U+2D7F.
    Mark,
    /// `\p{N}`
    Number,
    /// `\s`
    Space,
    /// `\p{P}`
    Punctuation,
    /// `\p{S}`
    Symbol,
    /// Joiners, bidirectional marks, zero-width spaces, the soft hyphen: characters that do not show.
    Hidden,
}

const NUM_CLASSES: usize = 8;

static CLASSES: LazyLock<CharTable<Class>> = LazyLock::new(|| {
    let properties = [
        (r"\p{L}", Class::Letter),
        (r"\p{M}", Class::Mark),
        (r"\p{N}", Class::Number),
        (r"\p{P}", Class::Punctuation),
        (r"\p{S}", Class::Symbol),
        (r"\p{Cf}", Class::Hidden),
        (r"\s", Class::Space),
    ];
    CharTable::new(&properties, Class::Other)
});

/// The class of a character.
pub fn class(c: char) -> Class {
    CLASSES.of(c)
}

/// One word and what it is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Word<'a> {
    /// The word as it is written.
    pub text: &'a str,
    /// Letters, marks not counted: the length of a word does not depend on its vowel signs.
    pub letters: u32,
    /// Digits and other numbers.
    pub numbers: u32,
}

impl Word<'_> {
    /// Letters and digits.
    pub fn len(&self) -> u32 {
        self.letters + self.numbers
    }

    /// Never true: a word holds a letter or a digit.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// How many characters of each class a text holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    counts: [u32; NUM_CLASSES],
}

impl Tally {
    /// Characters of one class.
    pub fn of(&self, class: Class) -> u32 {
        self.counts.get(class as usize).copied().unwrap_or(0)
    }

    /// Characters of every class but white space and those that do not show.
    pub fn visible(&self) -> u32 {
        self.total().saturating_sub(self.of(Class::Space)).saturating_sub(self.of(Class::Hidden))
    }

    /// All characters.
    pub fn total(&self) -> u32 {
        self.counts.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// Adds the counts of another text.
    pub fn join(&mut self, other: Tally) {
        for (sum, count) in self.counts.iter_mut().zip(other.counts) {
            *sum = sum.saturating_add(count);
        }
    }

    fn add(&mut self, class: Class) {
        if let Some(count) = self.counts.get_mut(class as usize) {
            *count = count.saturating_add(1);
        }
    }
}

/// The words of `text` in order; what lies between them is counted too, see [`Words::tally`].
pub fn words(text: &str) -> Words<'_> {
    Words { rest: text.chars(), classes: &CLASSES, tally: Tally::default() }
}

/// Iterator over the words of a text.
#[derive(Clone)]
pub struct Words<'a> {
    rest: Chars<'a>,
    classes: &'static CharTable<Class>,
    tally: Tally,
}

impl<'a> Words<'a> {
    /// Characters passed so far by class; after the last word those of the whole text.
    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// What lies after the words handed out so far.
    pub fn rest(&self) -> &'a str {
        self.rest.as_str()
    }

    /// Whether `c`, which is no letter, mark or digit, joins what stands before and after it.
    fn joins(&self, c: char, class: Class, last: Class) -> bool {
        let mut ahead = self.rest.clone().map(|next| self.classes.of(next));
        match (class, c) {
            // Few in a row, so that a text of nothing else takes no square time.
            (Class::Hidden, _) => ahead
                .take(4)
                .find(|&next| next != Class::Hidden)
                .is_some_and(|next| matches!(next, Class::Letter | Class::Mark | Class::Number)),
            (_, '\'' | '’' | '-' | '\u{2010}' | '\u{2011}') if matches!(last, Class::Letter | Class::Mark) => {
                match ahead.next() {
                    Some(Class::Letter) => true,
                    Some(Class::Number) => ahead.next() == Some(Class::Letter),
                    _ => false,
                }
            }
            _ => false,
        }
    }
}

impl<'a> Iterator for Words<'a> {
    type Item = Word<'a>;

    fn next(&mut self) -> Option<Word<'a>> {
        let mut last;
        let start = loop {
            let before = self.rest.as_str();
            last = self.classes.of(self.rest.next()?);
            self.tally.add(last);
            if matches!(last, Class::Letter | Class::Number) {
                break before;
            }
        };
        let (mut letters, mut numbers) = (u32::from(last == Class::Letter), u32::from(last == Class::Number));
        loop {
            let before = self.rest.clone();
            let Some(c) = self.rest.next() else { break };
            let class = self.classes.of(c);
            match class {
                Class::Letter => letters += 1,
                Class::Number => numbers += 1,
                Class::Mark => {}
                _ if self.joins(c, class, last) => {}
                _ => {
                    self.rest = before;
                    break;
                }
            }
            self.tally.add(class);
            // A character that does not show leaves what was before it in sight.
            last = if class == Class::Hidden { last } else { class };
        }
        let len = start.len() - self.rest.as_str().len();
        Some(Word { text: start.get(..len).unwrap_or(start), letters, numbers })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use proptest::prelude::*;

    fn check(text: &str, expected: &[&str]) {
        assert_eq!(words(text).map(|word| word.text).collect::<Vec<_>>(), expected, "{text}");
    }

    #[test]
    fn words_of_every_script() {
        check("كَتَبَ الوَلَدُ، الدرسَ.", &["كَتَبَ", "الوَلَدُ", "الدرسَ"]);
        check("3lach m9wd? 7it l'3arbiya ma-3reftch", &["3lach", "m9wd", "7it", "l'3arbiya", "ma-3reftch"]);
        check("l’école du rendez-vous d'été — 12,5 %", &["l’école", "du", "rendez-vous", "d'été", "12", "5"]);
        check("yenna-yas i tmeṭṭut", &["yenna-yas", "i", "tmeṭṭut"]);
        check("ⴰⵣⵓⵍ, ⵜⴰⴳⵯⵎⴰⵜ ⴰ\u{2d7f}ⴱ", &["ⴰⵣⵓⵍ", "ⵜⴰⴳⵯⵎⴰⵜ", "ⴰ\u{2d7f}ⴱ"]);
        check("dar\u{1e0d}", &["darḍ"]);
        check("می\u{200c}خواهم so\u{ad}lo \u{200f}سلام\u{200f} !", &["می\u{200c}خواهم", "so\u{ad}lo", "سلام"]);
        check("a_b c++ 'quoted' - 06-12 covid-19 -a", &["a", "b", "c", "quoted", "06", "12", "covid", "19", "a"]);
        check("...", &[]);
        check("", &[]);
    }

    #[test]
    fn lengths_do_not_count_marks_and_the_tally_counts_everything() {
        let word = words("كَتَبَ").next().unwrap();
        assert_eq!((word.letters, word.numbers, word.len()), (3, 0, 3));
        let mut all = words(" 3lach؟ + \u{200f}٣\u{0}");
        assert_eq!(all.by_ref().map(|word| word.numbers).collect::<Vec<_>>(), [1, 1]);
        let tally = all.tally();
        let counts = [Class::Letter, Class::Number, Class::Space, Class::Punctuation, Class::Symbol];
        assert_eq!(counts.map(|class| tally.of(class)), [4, 2, 3, 1, 1]);
        assert_eq!((tally.of(Class::Hidden), tally.of(Class::Other), tally.visible()), (1, 1, 9));
    }

    #[test]
    fn every_class_has_its_characters() {
        for (c, expected) in [
            ('ⵯ', Class::Letter),
            ('\u{640}', Class::Letter),
            ('\u{64b}', Class::Mark),
            ('٣', Class::Number),
            ('\u{a0}', Class::Space),
            ('؟', Class::Punctuation),
            ('°', Class::Symbol),
            ('🙂', Class::Symbol),
            ('\u{200f}', Class::Hidden),
            ('\u{feff}', Class::Hidden),
            ('\u{7}', Class::Other),
            ('\u{10ffff}', Class::Other),
            ('𐤀', Class::Letter),
        ] {
            assert_eq!(class(c), expected, "{c:?}");
        }
    }

    proptest! {
        #[test]
        fn words_lie_in_order_and_hold_every_letter(text in "(\\PC|[a-z3'’-]|[\u{620}-\u{652}\u{200b}-\u{200f}]){0,60}") {
            let mut at = 0;
            let (mut letters, mut numbers) = (0, 0);
            let mut all = words(&text);
            for word in all.by_ref() {
                let found = text[at..].find(word.text).unwrap();
                at += found + word.text.len();
                letters += word.letters;
                numbers += word.numbers;
                prop_assert!(!word.is_empty());
            }
            prop_assert_eq!(letters, all.tally().of(Class::Letter));
            prop_assert_eq!(numbers, all.tally().of(Class::Number));
            prop_assert_eq!(all.tally().total() as usize, text.chars().count());
        }
    }
}
