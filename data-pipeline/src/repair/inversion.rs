//! Owns the ligatures that PDF extraction turns round (lam-alef and others): which texts have them and how their words
//! are put right; never touches texts without evidence.
//!
//! A PDF draws لا as one glyph; extractors that reverse a line glyph by glyph reverse its two letters as well. So الأمن is
//! read as األمن, الاسم as االسم, خلال as خالل, الله as هللا. The first two spellings are impossible and are the evidence;
//! words such as خالل need a list of words, for سالم may be سلام or سالم. Some fonts do the same to لم, لح, لج, لخ, لى and في.

use std::borrow::Cow;
use std::ops::Range;

use ahash::AHashMap;

use super::lexicon::{Lexicon, is_arabic, is_mark};
use crate::normalize::{Changes, Rule};

/// Lam-alefs inside a word of which every combination is tried; further ones stay.
const MAX_PLACES: usize = 4;
/// Longest word, in letters, that is looked into.
const MAX_LETTERS: usize = 24;
/// How much more usual a repaired word must be where the text has sound ligatures as well.
const MIXED_MARGIN: f32 = 8.0;
/// How much more usual a word must be after a ligature other than lam-alef is turned.
const LIGATURE_MARGIN: f32 = 8.0;
/// Words in a text with a ligature other than lam-alef turned round, before it is believed.
const MIN_LIGATURES: usize = 3;

/// How often a text shows each kind of damage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Evidence {
    /// Words that begin with a lam-alef with hamza turned round: األ, اإل, اآل.
    pub inverted: usize,
    /// Words that begin with a sound one: الأ, الإ, الآ.
    pub sound: usize,
    /// Words with ى before ل, which no word has.
    pub maqsura: usize,
    /// The word يف.
    pub fy: usize,
    /// The word في.
    pub fi: usize,
    /// Words that begin with امل, احل, اجل or اخل.
    pub meem: usize,
}

/// Counts the evidence letter by letter.
#[derive(Debug, Default)]
pub(super) struct EvidenceReader {
    found: Evidence,
    /// The last four letters of the word so far.
    letters: [char; 4],
    /// How many letters the word has.
    length: usize,
}

impl EvidenceReader {
    /// Takes the next character of an Arabic word.
    #[inline]
    pub fn push(&mut self, c: char, is_mark: bool) {
        if is_mark {
            return;
        }
        let [_, a, b, last] = self.letters;
        self.letters = [a, b, last, c];
        self.length += 1;
        match self.length {
            3 => self.found.start_of_word(b, last, c),
            4 if is_proclitic(a) => self.found.start_of_word(b, last, c),
            _ => {}
        }
        self.found.maqsura += usize::from(c == 'ل' && last == 'ى' && self.length > 1);
    }

    /// The word is at its end.
    #[inline]
    pub fn end(&mut self) {
        if self.length == 2 {
            let [_, _, a, b] = self.letters;
            self.found.fy += usize::from(a == 'ي' && b == 'ف');
            self.found.fi += usize::from(a == 'ف' && b == 'ي');
        }
        self.length = 0;
    }

    /// What was found.
    pub fn finish(mut self) -> Evidence {
        self.end();
        self.found
    }
}

impl Evidence {
    /// Counts in one pass over the letters.
    pub fn of(text: &str) -> Evidence {
        let mut reader = EvidenceReader::default();
        for c in text.chars() {
            if is_arabic(c) { reader.push(c, is_mark(c)) } else { reader.end() }
        }
        reader.finish()
    }

    fn start_of_word(&mut self, a: char, b: char, c: char) {
        match (a, b, c) {
            ('ا', 'أ' | 'إ' | 'آ', 'ل') => self.inverted += 1,
            ('ا', 'ل', 'أ' | 'إ' | 'آ') => self.sound += 1,
            ('ا', 'م' | 'ح' | 'ج' | 'خ', 'ل') => self.meem += 1,
            _ => {}
        }
    }

    /// Whether a word may have to be put right at all.
    fn any(&self) -> bool {
        self.inverted > 0 || self.maqsura > 1 || self.meem >= MIN_LIGATURES || self.turns_fi()
    }

    /// Whether most lam-alefs are turned round, so that one inside a word may be as well. One is enough where the text
    /// has none that is sound; what a person mistyped stands beside sound ones.
    pub fn is_inverted(&self) -> bool {
        self.inverted > 2 * self.sound
    }

    fn turns_fi(&self) -> bool {
        self.fy >= 2 && self.fy > self.fi
    }
}

/// Letters that stand before the article (ل does not: it takes the alef away).
fn is_proclitic(c: char) -> bool {
    matches!(c, 'و' | 'ف' | 'ب' | 'ك')
}

fn is_alef(c: char) -> bool {
    matches!(c, 'ا' | 'أ' | 'إ' | 'آ')
}

/// Puts the words of a text right. Borrows when there is nothing to do.
pub fn repair<'a>(text: &'a str, lexicon: &Lexicon, changes: &mut Changes) -> Cow<'a, str> {
    repair_with(text, Evidence::of(text), lexicon, changes)
}

/// As [`repair`], with the evidence of the text.
pub(super) fn repair_with<'a>(
    text: &'a str,
    evidence: Evidence,
    lexicon: &Lexicon,
    changes: &mut Changes,
) -> Cow<'a, str> {
    if !evidence.any() {
        return Cow::Borrowed(text);
    }
    let mut words = Words { lexicon, evidence, meem: false, known: AHashMap::new() };
    words.meem = evidence.meem >= MIN_LIGATURES && words.turned_meems(text) >= MIN_LIGATURES;
    let mut out = String::new();
    let mut copied = 0;
    for range in ranges(text) {
        let Some(word) = text.get(range.clone()) else { continue };
        if !words.may_change(word) {
            continue;
        }
        let Some((right, rule)) = words.right(word) else { continue };
        out.push_str(text.get(copied..range.start).unwrap_or_default());
        out.push_str(&right);
        copied = range.end;
        changes.add(rule, 1);
    }
    if copied == 0 {
        return Cow::Borrowed(text);
    }
    out.push_str(text.get(copied..).unwrap_or_default());
    Cow::Owned(out)
}

/// The Arabic words of a text.
fn ranges(text: &str) -> impl Iterator<Item = Range<usize>> + '_ {
    let mut chars = text.char_indices().peekable();
    std::iter::from_fn(move || {
        let (start, first) = chars.find(|(_, c)| is_arabic(*c))?;
        let mut end = start + first.len_utf8();
        while let Some((i, c)) = chars.next_if(|(_, c)| is_arabic(*c)) {
            end = i + c.len_utf8();
        }
        Some(start..end)
    })
}

struct Words<'t, 'l> {
    lexicon: &'l Lexicon,
    evidence: Evidence,
    /// لم, لح, لج and لخ are turned round.
    meem: bool,
    /// Words seen before, with what became of them.
    known: AHashMap<&'t str, Option<(String, Rule)>>,
}

impl<'t> Words<'t, '_> {
    /// The word put right, with the most telling rule; `None` when it stays.
    fn right(&mut self, word: &'t str) -> Option<(String, Rule)> {
        if let Some(known) = self.known.get(word) {
            return known.clone();
        }
        let letters: Vec<char> = word.chars().collect();
        let right = if letters.len() < 2 || letters.len() > MAX_LETTERS || letters.iter().any(|&c| is_mark(c)) {
            None
        } else {
            self.decide(letters)
        };
        self.known.insert(word, right.clone());
        right
    }

    /// Whether a look at the letters of a word is worth it: what no rule can touch is most of a text.
    fn may_change(&self, word: &str) -> bool {
        let evidence = &self.evidence;
        let lam_alef = evidence.inverted > 0 || evidence.is_inverted();
        let pair = |first: &[u8], second: [u8; 2]| {
            word.as_bytes().windows(4).any(|w| matches!(w, [0xd8, a, b, c] if first.contains(a) && [*b, *c] == second))
        };
        // ا أ إ آ before ل; هلل; ىل and ني at the end; يف; ا before م ح ج خ.
        lam_alef && (pair(&[0xa7, 0xa3, 0xa5, 0xa2], [0xd9, 0x84]) || word.contains("هلل"))
            || word.ends_with("ىل")
            || evidence.turns_fi() && word == "يف"
            || self.meem && (word.ends_with("ني") || ["ام", "اح", "اج", "اخ"].iter().any(|pair| word.contains(pair)))
    }

    fn decide(&self, letters: Vec<char>) -> Option<(String, Rule)> {
        let mut word = letters;
        let mut rule = None;
        if self.evidence.inverted > 0 && turn_start(&mut word, self.evidence.is_inverted()) {
            rule = Some(Rule::LamAlef);
        }
        if (self.evidence.maqsura > 1 || rule.is_some()) && turn_end(&mut word) {
            rule = Some(Rule::Ligature);
        }
        if self.evidence.turns_fi() && word == ['ي', 'ف'] {
            return Some(("في".to_owned(), Rule::Ligature));
        }
        if self.meem && self.turn_meem(&mut word) {
            rule = Some(Rule::Ligature);
        }
        if self.evidence.is_inverted() && self.turn_inside(&mut word) {
            rule = Some(rule.unwrap_or(Rule::LamAlefInner));
        }
        rule.map(|rule| (word.into_iter().collect(), rule))
    }

    /// Chooses the most usual of the spellings with some lam-alefs turned.
    fn turn_inside(&self, word: &mut Vec<char>) -> bool {
        let places: Vec<usize> = word
            .windows(2)
            .enumerate()
            .filter(|(_, pair)| matches!(pair, [alef, 'ل'] if is_alef(*alef)))
            .map(|(i, _)| i)
            .take(MAX_PLACES)
            .collect();
        if places.is_empty() {
            return false;
        }
        let weight = |word: &[char]| self.lexicon.weight(&word.iter().collect::<String>());
        let margin = if self.evidence.sound > 0 { MIXED_MARGIN } else { 1.0 };
        let mut best = (weight(word) * margin, word.clone());
        for choice in 1..1_u32 << places.len() {
            let mut turned = word.clone();
            for (bit, place) in places.iter().enumerate() {
                if choice & (1 << bit) != 0 {
                    turned.swap(*place, place + 1);
                }
            }
            let weight = weight(&turned);
            if weight > best.0 {
                best = (weight, turned);
            }
        }
        let changed = best.1 != *word;
        *word = best.1;
        changed
    }

    /// Turns امل to الم and its like where that makes a far more usual word, and then ني to ين at the end.
    fn turn_meem(&self, word: &mut Vec<char>) -> bool {
        let mut changed = false;
        let weight = |word: &[char]| self.lexicon.weight(&word.iter().collect::<String>());
        if let Some(at) = meem_place(word) {
            let mut turned = word.clone();
            turned.swap(at, at + 1);
            let mut inside = turned.clone();
            if self.evidence.is_inverted() {
                self.turn_inside(&mut inside);
            }
            if weight(&inside) > LIGATURE_MARGIN * weight(word) {
                *word = turned;
                changed = true;
            }
        }
        let last = word.len() - 2;
        if word.len() > 3 && word.ends_with(&['ن', 'ي']) {
            let mut turned = word.clone();
            turned.swap(last, last + 1);
            if weight(&turned) > LIGATURE_MARGIN * weight(word) {
                *word = turned;
                changed = true;
            }
        }
        changed
    }

    /// Words of the text that become usual when their امل is turned, not counting repetitions.
    fn turned_meems(&self, text: &str) -> usize {
        let mut found = std::collections::HashSet::new();
        for range in ranges(text) {
            let Some(word) = text.get(range) else { continue };
            let letters: Vec<char> = word.chars().collect();
            if letters.len() > MAX_LETTERS || meem_place(&letters).is_none() || found.contains(word) {
                continue;
            }
            let mut turned = letters;
            if self.turn_meem(&mut turned) && meem_place(&turned).is_none() {
                found.insert(word);
            }
        }
        found.len()
    }
}

/// Where the two letters stand in a word that begins with امل or its like.
fn meem_place(word: &[char]) -> Option<usize> {
    let start = usize::from(word.first().is_some_and(|&c| is_proclitic(c)));
    match word.get(start..)? {
        ['ا', 'م' | 'ح' | 'ج' | 'خ', 'ل', _, _, ..] => Some(start + 1),
        _ => None,
    }
}

/// Turns what can only be a lam-alef at the start of a word. `all` allows the short words as well, which are words of
/// their own in sound text.
fn turn_start(word: &mut Vec<char>, all: bool) -> bool {
    let start = usize::from(word.len() > 3 && word.first().is_some_and(|&c| is_proclitic(c)));
    let second = usize::from(start == 1 && word.len() > 4 && word.get(1).is_some_and(|&c| is_proclitic(c)));
    for start in [0, start, start + second] {
        match word.get(start..) {
            Some(['ا', 'أ' | 'إ' | 'آ', 'ل', ..]) => {
                word.swap(start + 1, start + 2);
                return true;
            }
            Some(['ا', 'ا', 'ل', ..]) if all => {
                word.swap(start + 1, start + 2);
                return true;
            }
            _ => {}
        }
    }
    if !all {
        return false;
    }
    let right = match word.as_slice() {
        ['ا', 'ل'] => "لا",
        ['و', 'ا', 'ل'] => "ولا",
        ['ف', 'ا', 'ل'] => "فلا",
        ['إ', 'ا', 'ل'] => "إلا",
        ['أ', 'ا', 'ل'] => "ألا",
        ['ه', 'ل', 'ل'] => "لله",
        ['و', 'ه', 'ل', 'ل'] => "ولله",
        ['ه', 'ل', 'ل', 'ا'] | ['ا', 'ه', 'ل', 'ل'] => "الله",
        ['و', 'ه', 'ل', 'ل', 'ا'] => "والله",
        ['ب', 'ا', 'ه', 'ل', 'ل'] => "بالله",
        _ => return false,
    };
    *word = right.chars().collect();
    true
}

/// Turns ىل at the end of a word.
fn turn_end(word: &mut [char]) -> bool {
    let last = word.len().saturating_sub(2);
    if !word.ends_with(&['ى', 'ل']) {
        return false;
    }
    word.swap(last, last + 1);
    true
}

/// Whether a word of a damaged text is surely spelt as it was meant: learning takes no other from such texts.
pub fn is_certain(word: &str) -> bool {
    let letters: Vec<char> = word.chars().collect();
    let pairs = letters.windows(2).skip(1).any(|pair| matches!(pair, [alef, 'ل'] if is_alef(*alef)));
    let start = matches!(letters.as_slice(), ['أ' | 'إ' | 'آ', 'ل', ..] | ['ا', 'ل', 'ئ', ..]);
    !pairs && !start && meem_place(&letters).is_none() && !word.contains("ىل") && !word.contains("هلل")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    fn lexicon() -> Lexicon {
        let mut lexicon = Lexicon::default();
        let list = "خلال\t50\nسلام\t30\nسالم\t5\nالقانون\t90\nعلاقة\t20\nالحالة\t40\nاستقلال\t9\nاقتصاد\t9\nمجال\t12\n\
                    المجلس\t50\nالمادة\t90\nالمالية\t40\nالحساب\t10\nالخاصة\t10\nالعاملين\t9\nرسالة\t9\nبلاد\t9\nالبلاد\t9";
        lexicon.read(list.as_bytes()).unwrap();
        lexicon
    }

    fn repaired(text: &str) -> (String, Changes) {
        let mut changes = Changes::default();
        let out = repair(text, &lexicon(), &mut changes).into_owned();
        (out, changes)
    }

    #[test]
    fn damaged_text_is_put_right() {
        for (before, after) in [
            ("األشخاص واإلدارات واآلخر", "الأشخاص والإدارات والآخر"),
            ("األمن االجتماعي واالقتصادي باالتفاق", "الأمن الاجتماعي والاقتصادي بالاتفاق"),
            ("األمن خالل عالقته القانون والحالة", "الأمن خلال علاقته القانون والحالة"),
            ("األمن هللا وحده هلل وال سيما ال إال", "الأمن الله وحده لله ولا سيما لا إلا"),
            ("األمن سالم رسالة مجال البالد", "الأمن سلام رسالة مجال البلاد"),
            ("األمن لالقتصاد واستقالل", "الأمن للاقتصاد واستقلال"),
            ("املجلس واملادة اخلاصة باملالية كاملة العاملني", "المجلس والمادة الخاصة بالمالية كاملة العاملين"),
            ("إىل عىل األوىل", "إلى على الأولى"),
            ("يف البيت يف المدرسة", "في البيت في المدرسة"),
        ] {
            let (once, changes) = repaired(before);
            assert_eq!(once, after);
            assert!(!changes.is_empty());
            assert_eq!(repaired(&once).0, once, "again");
        }
    }

    #[test]
    fn sound_text_is_left_alone() {
        for text in [
            "سالم خالد طالب العالم الأمن الإدارة",
            "ال هلل بال وال فال",
            "كامل امله املس احلام اجلس",
            "بزاف ديال الناس اللي كاينين هنايا ماكاينش",
            "يف في",
            "",
        ] {
            let (once, changes) = repaired(text);
            assert_eq!(once, text);
            assert!(changes.is_empty());
        }
        // One slip beside sound words: only the impossible word changes.
        assert_eq!(repaired("الأمن الإدارة األمن سالم ال").0, "الأمن الإدارة الأمن سالم ال");
    }

    #[test]
    fn evidence_is_counted_at_the_start_of_words() {
        let found = Evidence::of("األمن واإلدارة الأمن امللف يف في إىل كاألمن");
        assert_eq!(found, Evidence { inverted: 3, sound: 1, maqsura: 1, fy: 1, fi: 1, meem: 1 });
    }

    #[test]
    fn long_words_and_marks_are_passed_over() {
        let long = format!("األمن {}", "ال".repeat(5_000));
        assert!(repaired(&long).0.ends_with(&"ال".repeat(5_000)));
        assert_eq!(repaired("األمن خَالل").0, "الأمن خَالل");
    }
}
