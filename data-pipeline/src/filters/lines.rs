//! Owns leaving out single lines as C4 does: those that are no sentence and those of banners; never drops documents.

use std::borrow::Cow;

use super::phrases;
use crate::words::words;

/// Fewest words of a line that stays (C4 keeps lines of five; Arabic and Amazigh words carry more).
const MIN_LINE_WORDS: usize = 3;

/// How many lines of a text were left out, by reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LineCounts {
    /// Lines of the text that are not blank.
    pub lines: u64,
    /// No punctuation at their end.
    pub unfinished: u64,
    /// Fewer than three words.
    pub short: u64,
    /// Words of cookie banners, or a mention of JavaScript.
    pub boilerplate: u64,
}

impl LineCounts {
    /// Adds the counts of another text.
    pub fn merge(&mut self, other: LineCounts) {
        self.lines += other.lines;
        self.unfinished += other.unfinished;
        self.short += other.short;
        self.boilerplate += other.boilerplate;
    }
}

/// The text without the lines that C4 leaves out. `punctuation` is false for scripts that write little of it.
pub(super) fn clean(text: &str, punctuation: bool) -> (Cow<'_, str>, LineCounts) {
    let mut counts = LineCounts::default();
    let keeps = |line: &str, counts: &mut LineCounts| {
        let line = line.trim();
        if line.is_empty() {
            return true;
        }
        counts.lines += 1;
        let (banner, lorem) = phrases::count(line);
        let finished = line.ends_with(['.', '!', '?', '…', '؟', '۔', ':', ';', '؛', '،', ',', '»', '”', '"', ')', '⵰'])
            || !punctuation;
        let javascript = line.len() >= 10 && line.as_bytes().windows(10).any(|w| w.eq_ignore_ascii_case(b"javascript"));
        let dropped = if banner > 0 || lorem > 0 || javascript {
            &mut counts.boilerplate
        } else if !finished {
            &mut counts.unfinished
        } else if words(line).take(MIN_LINE_WORDS).count() < MIN_LINE_WORDS {
            &mut counts.short
        } else {
            return true;
        };
        *dropped += 1;
        false
    };
    let mut kept = String::new();
    for line in text.split_inclusive('\n') {
        if keeps(line, &mut counts) {
            kept.push_str(line);
        }
    }
    if kept.len() == text.len() {
        return (Cow::Borrowed(text), counts);
    }
    (Cow::Owned(kept.trim_matches('\n').to_owned()), counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_are_no_sentences_go() {
        let text =
            "Accueil\nLe roi a reçu les élèves hier.\nTous droits réservés 2024.\nActivez JavaScript svp.\nOui.\n";
        let (clean_text, counts) = clean(text, true);
        assert_eq!(clean_text, "Le roi a reçu les élèves hier.");
        assert_eq!((counts.lines, counts.unfinished, counts.short, counts.boilerplate), (5, 1, 1, 2));
        let tifinagh = "ⴰⵣⵓⵍ ⴼⵍⵍⴰⵡⵏ ⴰ ⵉⵎⴷⴷⵓⴽⴽⴰⵍ";
        assert!(matches!(clean(tifinagh, false).0, Cow::Borrowed(_)));
    }
}
