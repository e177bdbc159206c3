//! Owns the squeezing of letters repeated for effect; never touches digits, punctuation or what only looks elongated.

use std::borrow::Cow;
use std::ops::Range;

use unicode_normalization::char::is_combining_mark;

use super::changes::{Changes, Rule};

/// A letter repeated more often is written this many times: once would take the gemination away that tells `7mmam`
/// (bath) from `7mam` (pigeons).
const KEPT: usize = 2;
/// All capitals up to this length are an abbreviation or a Roman number: `IEEE`, `VIII`, `YYYY`.
const MAX_CAPITALS: usize = 4;
/// A Roman number repeats a numeral at most this many times.
const MAX_NUMERALS: usize = 3;

/// Cuts runs of three or more equal letters to two. Addresses, file names, date patterns, Roman numbers and
/// abbreviations keep theirs.
pub(super) fn squeeze<'a>(text: Cow<'a, str>, changes: &mut Changes) -> Cow<'a, str> {
    let mut out = String::new();
    let mut copied = 0;
    let mut at = 0;
    let mut place = Place::default();
    while let Some(run) = next_run(&text, at) {
        at = run.end;
        let (Some(found), Some(before)) = (text.get(run.clone()), text.get(copied..run.start)) else { break };
        if place.is_meant(&text, &run) {
            continue;
        }
        let Some(letter) = found.chars().next() else { break };
        out.push_str(before);
        out.extend(std::iter::repeat_n(letter, KEPT));
        copied = run.end;
        changes.add(Rule::Elongation, 1);
    }
    if copied == 0 {
        return text;
    }
    out.push_str(text.get(copied..).unwrap_or_default());
    Cow::Owned(out)
}

/// The next run of three or more equal letters from byte `at` on.
fn next_run(text: &str, at: usize) -> Option<Range<usize>> {
    let mut run = at..at;
    let mut last = '\0';
    let mut length = 0;
    for (i, c) in text.get(at..)?.char_indices() {
        if c == last {
            length += 1;
            run.end = at + i + c.len_utf8();
            continue;
        }
        if length > KEPT && last.is_alphabetic() {
            return Some(run);
        }
        run = at + i..at + i + c.len_utf8();
        last = c;
        length = 1;
    }
    (length > KEPT && last.is_alphabetic()).then_some(run)
}

/// The token and the word of the last run, so that each is looked at once however many runs it holds.
#[derive(Debug, Default)]
struct Place {
    token_end: usize,
    token_is_meant: bool,
    word: Range<usize>,
    is_short_capitals: bool,
    is_small_roman: bool,
}

impl Place {
    /// Whether the repeated letters are part of the spelling.
    fn is_meant(&mut self, text: &str, run: &Range<usize>) -> bool {
        if run.start >= self.token_end {
            let token = around(text, run, |c| !c.is_whitespace());
            self.token_end = token.end;
            let token = text.get(token).unwrap_or_default();
            self.token_is_meant = ["://", "www."].iter().any(|mark| token.contains(mark))
                || token.contains(['@', '\\', '_', '=', '$', '{', '%', '#'])
                || is_date_pattern(token);
        }
        if self.token_is_meant {
            return true;
        }
        if run.start >= self.word.end {
            self.word = around(text, run, |c| c.is_alphabetic() || is_combining_mark(c));
            let word = text.get(self.word.clone()).unwrap_or_default();
            self.is_short_capitals = word.chars().nth(MAX_CAPITALS).is_none() && word.chars().all(char::is_uppercase);
            self.is_small_roman = word.chars().all(|c| matches!(c, 'i' | 'v' | 'x' | 'l'));
        }
        // Of a Roman number, whatever is glued to it: `XVIIIe`, `GPIIb/IIIa`.
        let letters = text.get(run.clone()).unwrap_or_default();
        let is_roman = letters.len() == MAX_NUMERALS
            && (letters.starts_with(['I', 'X', 'C', 'M']) || self.is_small_roman && letters.starts_with(['i', 'x']));
        self.is_short_capitals || is_roman
    }
}

/// The bytes around `run` whose characters all satisfy `inside`.
fn around(text: &str, run: &Range<usize>, inside: impl Fn(char) -> bool) -> Range<usize> {
    let (before, after) = (text.get(..run.start).unwrap_or_default(), text.get(run.end..).unwrap_or_default());
    before.trim_end_matches(&inside).len()..text.len() - after.trim_start_matches(&inside).len()
}

/// `yyyy-MM-dd`, `AAAA/MM/JJ`: runs of the letters of date patterns with separators between them.
fn is_date_pattern(token: &str) -> bool {
    let bounds = |c: char| !c.is_alphanumeric();
    let token = token.trim_matches(bounds);
    let mut parts = token.split(['-', '/', '.', ':']).peekable();
    let is_part = |part: &str| {
        let mut letters = part.chars();
        let first = letters.next();
        first.is_some_and(|c| "yYmMdDaAjJhHsSE".contains(c)) && letters.all(|c| Some(c) == first)
    };
    token.contains(['-', '/', '.', ':']) && parts.all(is_part)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn squeezed(text: &str) -> String {
        squeeze(Cow::Borrowed(text), &mut Changes::default()).into_owned()
    }

    #[test]
    fn elongation_is_cut_to_two() {
        for (before, after) in [
            ("بزاااف", "بزااف"),
            ("hhhhhh!", "hh!"),
            ("bzaaaf niiiit", "bzaaf niit"),
            ("ⴰⴰⴰⴰ ⴱ", "ⴰⴰ ⴱ"),
            ("ÉÉÉÉÉtait VERYYYY", "ÉÉtait VERYY"),
            ("aaa/bbb", "aa/bb"),
            ("3afaaak! 7mmam", "3afaak! 7mmam"),
        ] {
            assert_eq!(squeezed(before), after);
            assert_eq!(squeezed(after), after);
        }
    }

    #[test]
    fn what_only_looks_elongated_stays() {
        for kept in [
            "1000000 ..... !!!! ----",
            "https://www.example.ma www.example.ma a@bbb.ma",
            "titre III, XVIIIe siècle, GPIIb/IIIa, viii) xxiii",
            "IEEE AAA СССР",
            "yyyy-MM-dd AAAA/MM/JJ, YYYY.",
            "7mmam",
            "$aaa $bbbb",
        ] {
            assert_eq!(squeezed(kept), kept);
            assert!(matches!(squeeze(Cow::Borrowed(kept), &mut Changes::default()), Cow::Borrowed(_)));
        }
    }
}
