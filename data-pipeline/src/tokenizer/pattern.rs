//! Owns how text is cut into words before BPE, as a regular expression for other programs and as a hand-written scanner
//! for this one; never touches vocabularies.

use std::sync::LazyLock;

use crate::char_table::CharTable;

/// Cuts text so that marks (harakat), joiners, apostrophes and the digits of Arabizi stay inside their word, and a word
/// takes the space before it.
///
/// In the order tried: white space up to the last line break; white space before other white space or the end; an
/// optional space and a word of letters, marks, joiners, apostrophes and digits that touch a letter (`3lach`, `m9wd`);
/// up to three digits; anything else.
pub const PATTERN: &str = concat!(
    r"\s*[\r\n]+",
    r"|\s+(?!\S)",
    r"| ?(?:[\p{L}\p{M}\u200c\u200d\u2d7f'’ʷ]|(?<=\p{L})\p{N}|\p{N}(?=\p{L}))+",
    r"| ?\p{N}{1,3}",
    r"| ?[^\s\p{L}\p{M}\p{N}]+",
);

/// What the pattern asks of a character.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    /// `\p{L}`
    Letter,
    /// `\p{M}`, which holds the Tifinagh joiner U+2D7F
    Mark,
    /// `\p{N}`
    Number,
    /// `\s`
    Space,
    /// Joiners and apostrophes: part of a word, though also part of a run of other characters.
    Inner,
    /// Everything else
    Other,
}

/// The same Unicode tables that the pattern is matched with, so that the scanner and the pattern cannot disagree; the
/// tests compare every character of the four properties.
static CLASSES: LazyLock<CharTable<Class>> = LazyLock::new(|| {
    let properties =
        [(r"\p{L}", Class::Letter), (r"\p{M}", Class::Mark), (r"\p{N}", Class::Number), (r"\s", Class::Space)];
    let mut classes = CharTable::new(&properties, Class::Other);
    for inner in ['\'', '’', '\u{200c}', '\u{200d}'] {
        classes.set(inner, Class::Inner);
    }
    classes
});

/// Calls `each` with every piece of `text`, in order and without gaps, exactly as [`PATTERN`] with isolated matches
/// cuts it.
pub fn split<'a>(text: &'a str, mut each: impl FnMut(&'a str)) {
    let mut at = 0;
    let mut before = Class::Other;
    while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
        let (len, last) = piece(rest, before);
        let (piece, _) = rest.split_at_checked(len).unwrap_or((rest, ""));
        each(piece);
        at += piece.len();
        before = last;
    }
}

/// Length in bytes of the first piece of `rest` and the class of its last character; `before` is the class of the
/// character before it.
fn piece(rest: &str, before: Class) -> (usize, Class) {
    let classes: &CharTable<Class> = &CLASSES;
    let first = rest.chars().next().map_or(Class::Other, |c| classes.of(c));
    if first == Class::Space
        && let Some(len) = white_space(rest, classes)
    {
        return (len, Class::Space);
    }
    // White space that stays is one character before something else: a space joins it, another kind stands alone.
    let (lead, first, before) = match first {
        Class::Space if rest.starts_with(' ') => {
            (1, rest.chars().nth(1).map_or(Class::Other, |c| classes.of(c)), Class::Space)
        }
        Class::Space => return (rest.chars().next().map_or(1, char::len_utf8), Class::Space),
        other => (0, other, before),
    };
    let body = rest.get(lead..).unwrap_or_default();
    let (len, last) = match word(body, before, classes) {
        (0, _) if first == Class::Number => digits(body, classes),
        (0, _) => others(body, classes),
        found => found,
    };
    (lead + len, last)
}

/// `\s*[\r\n]+` or `\s+(?!\S)` at the start of `rest`.
fn white_space(rest: &str, classes: &CharTable<Class>) -> Option<usize> {
    let (mut end, mut last_start, mut after_break) = (0, 0, None);
    for (i, c) in rest.char_indices() {
        if classes.of(c) != Class::Space {
            // Followed by something: all but the last white space.
            return after_break.or(Some(last_start).filter(|&len| len > 0));
        }
        (last_start, end) = (i, i + c.len_utf8());
        if matches!(c, '\r' | '\n') {
            after_break = Some(end);
        }
    }
    after_break.or(Some(end))
}

/// A run of letters, marks, joiners, apostrophes and digits that touch a letter.
fn word(body: &str, before: Class, classes: &CharTable<Class>) -> (usize, Class) {
    let (mut len, mut last) = (0, before);
    let mut chars = body.chars().peekable();
    while let Some(c) = chars.next() {
        let class = classes.of(c);
        let inside = match class {
            Class::Letter | Class::Mark | Class::Inner => true,
            Class::Number => {
                last == Class::Letter || chars.peek().is_some_and(|&next| classes.of(next) == Class::Letter)
            }
            Class::Space | Class::Other => false,
        };
        if !inside {
            break;
        }
        (len, last) = (len + c.len_utf8(), class);
    }
    (len, last)
}

/// One to three digits.
fn digits(body: &str, classes: &CharTable<Class>) -> (usize, Class) {
    let len = body.chars().take(3).take_while(|&c| classes.of(c) == Class::Number).map(char::len_utf8).sum();
    (len, Class::Number)
}

/// A run of characters that are no letter, mark, digit or white space.
fn others(body: &str, classes: &CharTable<Class>) -> (usize, Class) {
    let inside = |c: &char| matches!(classes.of(*c), Class::Other | Class::Inner);
    let len: usize = body.chars().take_while(inside).map(char::len_utf8).sum();
    // A mark or letter is always taken by `word`, so `len` is at least one character.
    (len.max(body.chars().next().map_or(0, char::len_utf8)), Class::Other)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use proptest::prelude::*;
    use tokenizers::SplitDelimiterBehavior;
    use tokenizers::pre_tokenizers::split::{Split, SplitPattern};

    use super::*;

    fn scanned(text: &str) -> Vec<&str> {
        let mut pieces = Vec::new();
        split(text, |piece| pieces.push(piece));
        pieces
    }

    fn regex() -> &'static Split {
        static REGEX: LazyLock<Split> = LazyLock::new(|| {
            Split::new(SplitPattern::Regex(PATTERN.to_owned()), SplitDelimiterBehavior::Isolated, false)
                .expect("the look-behind is accepted")
        });
        &REGEX
    }

    fn matched(text: &str) -> Vec<&str> {
        let (mut pieces, mut at) = (Vec::new(), 0);
        for (start, end) in regex().regex.find_iter(text) {
            if at < start {
                pieces.push(&text[at..start]);
            }
            pieces.push(&text[start..end]);
            at = end;
        }
        if at < text.len() {
            pieces.push(&text[at..]);
        }
        pieces
    }

    #[test]
    fn digits_marks_and_joiners_stay_inside_words() {
        assert_eq!(scanned("3lach m9wd, 7it 2024!"), ["3lach", " m9wd", ",", " 7it", " 202", "4", "!"]);
        assert_eq!(scanned("كَتَبَ الوَلَدُ"), ["كَتَبَ", " الوَلَدُ"]);
        assert_eq!(scanned("l'école d’été"), ["l'école", " d’été"]);
        assert_eq!(scanned("ⴰⵎⴰⵣⵉⵖ ⵜⴰⴳⵯⵎⴰⵜ"), ["ⴰⵎⴰⵣⵉⵖ", " ⵜⴰⴳⵯⵎⴰⵜ"]);
        assert_eq!(scanned("a \n\n  b\t\tc  "), ["a", " \n\n", " ", " b", "\t", "\t", "c", "  "]);
        assert_eq!(scanned("\u{a0}x"), ["\u{a0}", "x"]);
        assert_eq!(scanned(""), [""; 0]);
    }

    #[test]
    fn every_character_alone_and_between_letters_is_cut_as_the_pattern_says() {
        let mut text = String::new();
        // All planes with letters; the rest is unassigned or private but for tags and selectors, and alike.
        for code in (0..0x3_3480).chain(0xe_0000..0xe_0200).chain((0x4_0000..=u32::from(char::MAX)).step_by(101)) {
            let Some(c) = char::from_u32(code) else { continue };
            // Context on both sides distinguishes all classes; batches keep the matcher far from its limits.
            text.extend(['a', c, ' ', c, c, '1', c, 'b', '\n']);
            if text.len() > 4096 {
                assert_eq!(scanned(&text), matched(&text));
                text.clear();
            }
        }
        assert_eq!(scanned(&text), matched(&text));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]
        #[test]
        fn the_scanner_and_the_pattern_agree(
            text in "([a-zA-Z]|[0-9]{1,4}|[ \\t\\r\\n]{1,3}|['’ʷ.,!<|_-]|[ء-ي]|[\u{64b}-\u{652}]|[ⴰ-ⵥ]|[\u{200c}\u{200d}\u{2d7f}\u{a0}\u{2028}\u{3000}]|[²½Ⅷ٣]|😀|\\PC){0,40}"
        ) {
            prop_assert_eq!(scanned(&text), matched(&text));
            prop_assert_eq!(scanned(&text).concat(), text);
        }
    }
}
