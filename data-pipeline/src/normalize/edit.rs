//! Owns the rules that look at one character and its neighbours: line ends, invisible characters, presentation forms,
//! tatweel, digits, vowel signs; never looks at words or languages beyond what its caller says.

use unicode_normalization::UnicodeNormalization;

use super::changes::{Changes, Rule};
use super::class::{EDIT, HARAKAT, class};

/// What of the profile and of the language the rules need to know.
#[derive(Debug, Clone, Copy)]
pub(super) struct Edits {
    /// Arabic vowel signs go.
    pub drop_harakat: bool,
    /// The text is in a language other than Arabic that spells with zero-width non-joiners (Persian, Urdu, Kurdish).
    pub keep_joiners: bool,
}

/// Glyph numbers of spaces before control characters are taken for glyphs.
const MIN_GLYPH_SPACES: usize = 4;
const TATWEEL: char = '\u{640}';

/// The text with all rules of this module applied.
pub(super) fn edit(text: &str, edits: Edits, changes: &mut Changes) -> String {
    let keep_controls = are_glyph_numbers(text);
    let mut out = String::with_capacity(text.len());
    let mut last = '\n';
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        let class = class(c);
        if class & EDIT == 0 && !(edits.drop_harakat && class & HARAKAT != 0) {
            out.push(c);
            last = c;
            continue;
        }
        let length = out.len();
        match c {
            '\r' if !keep_controls => {
                if rest.as_str().starts_with('\n') {
                    rest.next();
                }
                out.push('\n');
                changes.add(Rule::LineEnd, 1);
            }
            '\u{b}' | '\u{c}' | '\u{2028}' | '\u{2029}' if !keep_controls || c > '\u{1f}' => {
                out.push('\n');
                changes.add(Rule::LineEnd, 1);
            }
            // A windows-1252 byte that was taken for a Latin-1 one: d\u{92}accord.
            '\u{80}'..='\u{9f}' => match windows_1252(c) {
                Some(sign) => {
                    out.push(sign);
                    changes.add(Rule::Control, 1);
                }
                // Half of a letter in text read in a wrong encoding, which the repair decodes.
                None if matches!(last, '\u{c2}'..='\u{f4}') => out.push(c),
                None => changes.add(Rule::Control, 1),
            },
            '\u{1}'..='\u{1f}' if keep_controls => out.push(c),
            TATWEEL if last.is_ascii_digit() && next_kept(rest.as_str()).is_some_and(is_digit) => out.push(c),
            '\u{200c}' | '\u{200d}' if joins(c, last, rest.as_str(), edits) => out.push(c),
            '\u{fb50}'..='\u{fdff}' | '\u{fe70}'..='\u{fefc}' => {
                let mut letters = [c].into_iter().nfkc().filter(|d| !matches!(d, ' ' | &TATWEEL)).peekable();
                if letters.peek() != Some(&c) {
                    changes.add(Rule::PresentationForm, 1);
                }
                for letter in letters {
                    if edits.drop_harakat && super::class::class(letter) & HARAKAT != 0 {
                        changes.add(Rule::Harakat, 1);
                    } else {
                        out.push(letter);
                    }
                }
            }
            c => match ascii_digit(c) {
                Some(digit) => {
                    out.push(digit);
                    changes.add(Rule::Digit, 1);
                }
                None => changes.add(removal(c), 1),
            },
        }
        if let Some(c) = out.get(length..).and_then(|added| added.chars().next_back()) {
            last = c;
        }
    }
    out
}

/// Whether the control characters of a text are the numbers of glyphs, which the repair turns into letters: U+0003 is
/// more frequent than the space that it stands for.
fn are_glyph_numbers(text: &str) -> bool {
    let bytes = text.as_bytes();
    let found = memchr::memchr_iter(3, bytes).count();
    found >= MIN_GLYPH_SPACES && found > memchr::memchr_iter(b' ', bytes).count()
}

/// The character of windows-1252 in the place of a control character, where it has one.
fn windows_1252(c: char) -> Option<char> {
    const SIGNS: [char; 32] = [
        '€', '\0', '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', '\0', 'Ž', '\0', '\0', '‘', '’', '“', '”',
        '•', '–', '—', '˜', '™', 'š', '›', 'œ', '\0', 'ž', 'Ÿ',
    ];
    SIGNS.get((c as usize).wrapping_sub(0x80)).copied().filter(|&sign| sign != '\0')
}

/// The rule that removes a character.
fn removal(c: char) -> Rule {
    match c {
        TATWEEL => Rule::Tatweel,
        '\u{64b}'..='\u{652}' | '\u{670}' => Rule::Harakat,
        '\u{200e}' | '\u{200f}' | '\u{61c}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => Rule::Bidi,
        '\u{200c}' | '\u{200d}' => Rule::Joiner,
        '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}' => Rule::Control,
        _ => Rule::Invisible,
    }
}

fn ascii_digit(c: char) -> Option<char> {
    let value = match c {
        '\u{660}'..='\u{669}' => c as u32 - 0x660,
        '\u{6f0}'..='\u{6f9}' => c as u32 - 0x6f0,
        _ => return None,
    };
    char::from_digit(value, 10)
}

fn is_digit(c: char) -> bool {
    c.is_ascii_digit() || ascii_digit(c).is_some()
}

/// The next character that is not removed whatever stands around it, past tatweels and joiners.
fn next_kept(rest: &str) -> Option<char> {
    rest.chars().find(|&c| {
        let removed = class(c) & EDIT != 0
            && ascii_digit(c).is_none()
            && !matches!(c, '\u{fb50}'..='\u{fdff}' | '\u{fe70}'..='\u{fefc}')
            && !matches!(c, '\r' | '\u{b}' | '\u{c}' | '\u{2028}' | '\u{2029}' | '\u{80}'..='\u{9f}');
        !removed
    })
}

/// Whether a joiner stays: between emoji and in scripts that need it, not in Arabic, Latin or Tifinagh.
fn joins(joiner: char, last: char, rest: &str, edits: Edits) -> bool {
    let Some(next) = next_kept(rest) else { return false };
    let arabic = |c: char| matches!(c, '\u{620}'..='\u{63f}' | '\u{641}'..='\u{64a}' | '\u{671}'..='\u{6d3}');
    if edits.keep_joiners && joiner == '\u{200c}' && arabic(last) && arabic(next) {
        return true;
    }
    takes_joiner(last) && takes_joiner(next)
}

/// Emoji and their modifiers, and the scripts of South and South-East Asia.
fn takes_joiner(c: char) -> bool {
    matches!(c,
        '\u{900}'..='\u{109f}' | '\u{1780}'..='\u{18af}'
        | '\u{2190}'..='\u{2bff}' | '\u{a8e0}'..='\u{a9ff}' | '\u{fe0e}' | '\u{fe0f}'
        | '\u{11000}'..='\u{11fff}' | '\u{1f000}'..='\u{1faff}' | '\u{e0020}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(text: &str) -> String {
        edit(text, Edits { drop_harakat: false, keep_joiners: false }, &mut Changes::default())
    }

    #[test]
    fn each_rule_on_its_own() {
        for (before, after) in [
            ("a\r\nb\rc\u{c}d\u{2028}e", "a\nb\nc\nd\ne"),
            ("a\0\u{1}b\u{7f}\u{9d}", "ab"),
            ("d\u{92}accord \u{93}oui\u{94} \u{80}", "d’accord “oui” €"),
            ("D\u{3}VRFLp\u{3}OD\u{3}ORL\u{3}", "D\u{3}VRFLp\u{3}OD\u{3}ORL\u{3}"),
            ("Ù\u{81}", "Ù\u{81}"),
            ("\u{feff}a\u{ad}b\u{200b}c\u{2060}", "abc"),
            ("\u{202b}سلام\u{202c}\u{200f}\u{61c}", "سلام"),
            ("الســـلام", "السلام"),
            ("1ـ2 ٣ـ٤ 1ــ2 1ـ\u{200f}2", "1ـ2 3ـ4 1ـ2 1ـ2"),
            ("1ـ 2 ـ3", "1 2 3"),
            ("١٢٣ ۴۵", "123 45"),
            ("ﻣﺮﺣﺒﺎ ﻻ ﷲ", "مرحبا لا الله"),
            ("ﷺ ﷽ ﴿", "ﷺ ﷽ ﴿"),
            ("مـﹱ ب\u{fe76}", "مً بَ"),
            ("می\u{200c}خواهم l\u{200d}a", "میخواهم la"),
            (
                "👨\u{200d}👩\u{200d}👧 👩🏽\u{200d}⚕\u{fe0f} क\u{94d}\u{200d}ष",
                "👨\u{200d}👩\u{200d}👧 👩🏽\u{200d}⚕\u{fe0f} क\u{94d}\u{200d}ष",
            ),
            ("👨\u{200d}\u{200d}👩 👨\u{200d} a", "👨\u{200d}👩 👨 a"),
            ("وَاشْ", "وَاشْ"),
        ] {
            assert_eq!(plain(before), after, "{before:?}");
            assert_eq!(plain(after), after, "{after:?} again");
        }
    }

    #[test]
    fn options() {
        let mut changes = Changes::default();
        let drop = Edits { drop_harakat: true, keep_joiners: false };
        assert_eq!(edit("وَاشْ \u{fe77}رحمٰن", drop, &mut changes), "واش رحمن");
        assert_eq!(changes.count(Rule::Harakat), 4);
        let persian = Edits { drop_harakat: false, keep_joiners: true };
        assert_eq!(edit("می\u{200c}خواهم", persian, &mut changes), "می\u{200c}خواهم");
    }
}
