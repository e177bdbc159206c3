//! Owns what the filters know of a text, measured in one pass over its characters and a few over its words; never
//! decides.

use ahash::RandomState;
use serde::Serialize;

use super::function_words::WordSet;
use super::phrases;
use super::repetition::{self, LineRepeats};
use crate::words::{Class, Tally, Word, words};

/// What the filters measure. Shares are between 0 and 1.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Signals {
    /// Gopher: words of the text.
    #[serde(serialize_with = "rounded")]
    pub words: f32,
    /// Gopher: mean letters and digits of a word.
    #[serde(serialize_with = "rounded")]
    pub word_length: f32,
    /// Gopher: `#` and ellipses for each word.
    #[serde(serialize_with = "rounded")]
    pub symbol_words: f32,
    /// Gopher: share of lines that begin with a bullet.
    #[serde(serialize_with = "rounded")]
    pub bullet_lines: f32,
    /// Gopher: share of lines that end in an ellipsis.
    #[serde(serialize_with = "rounded")]
    pub ellipsis_lines: f32,
    /// Gopher: share of words with a letter.
    #[serde(serialize_with = "rounded")]
    pub alphabetic_words: f32,
    /// Gopher: function words of the language in the text.
    #[serde(serialize_with = "rounded")]
    pub function_words: f32,
    /// Gopher: share of lines that stood before.
    #[serde(serialize_with = "rounded")]
    pub duplicate_lines: f32,
    /// Gopher: share of characters in lines that stood before.
    #[serde(serialize_with = "rounded")]
    pub duplicate_line_chars: f32,
    /// Gopher: share of paragraphs that stood before.
    #[serde(serialize_with = "rounded")]
    pub duplicate_paragraphs: f32,
    /// Gopher: share of characters in paragraphs that stood before.
    #[serde(serialize_with = "rounded")]
    pub duplicate_paragraph_chars: f32,
    /// Gopher: share of characters in the most frequent pair of words.
    #[serde(serialize_with = "rounded")]
    pub top_2_gram: f32,
    /// Gopher: the same of three words.
    #[serde(serialize_with = "rounded")]
    pub top_3_gram: f32,
    /// Gopher: the same of four words.
    #[serde(serialize_with = "rounded")]
    pub top_4_gram: f32,
    /// Gopher: share of characters in repeated runs of five words.
    #[serde(serialize_with = "rounded")]
    pub dup_5_gram: f32,
    /// Gopher: the same of six words.
    #[serde(serialize_with = "rounded")]
    pub dup_6_gram: f32,
    /// Gopher: the same of seven words.
    #[serde(serialize_with = "rounded")]
    pub dup_7_gram: f32,
    /// Gopher: the same of eight words.
    #[serde(serialize_with = "rounded")]
    pub dup_8_gram: f32,
    /// Gopher: the same of nine words.
    #[serde(serialize_with = "rounded")]
    pub dup_9_gram: f32,
    /// Gopher: the same of ten words.
    #[serde(serialize_with = "rounded")]
    pub dup_10_gram: f32,
    /// C4: times that `lorem ipsum` stands in the text.
    #[serde(serialize_with = "rounded")]
    pub lorem_ipsum: f32,
    /// C4: opening curly brackets for each word.
    #[serde(serialize_with = "rounded")]
    pub curly_brackets: f32,
    /// C4: share of words in phrases of cookie banners, rights and shops.
    #[serde(serialize_with = "rounded")]
    pub boilerplate: f32,
    /// FineWeb: share of lines that end in punctuation.
    #[serde(serialize_with = "rounded")]
    pub line_punctuation: f32,
    /// FineWeb: share of lines of at most 30 characters.
    #[serde(serialize_with = "rounded")]
    pub short_lines: f32,
    /// FineWeb: line breaks for each word.
    #[serde(serialize_with = "rounded")]
    pub new_lines: f32,
    /// Share of words in lines of one to four words without punctuation at their end.
    #[serde(serialize_with = "rounded")]
    pub fragments: f32,
    /// Bars, chevrons and middle dots for each word.
    #[serde(serialize_with = "rounded")]
    pub separators: f32,
    /// Commas and semicolons for each word.
    #[serde(serialize_with = "rounded")]
    pub commas: f32,
    /// Share of words that are function words of the language.
    #[serde(serialize_with = "rounded")]
    pub function_share: f32,
    /// Share of words that are different, among the first 200.
    #[serde(serialize_with = "rounded")]
    pub distinct_words: f32,
    /// Share of visible characters that are symbols.
    #[serde(serialize_with = "rounded")]
    pub symbols: f32,
    /// Share of visible characters that are digits.
    #[serde(serialize_with = "rounded")]
    pub digits: f32,
    /// Share of words with letters that no language of the pipeline writes.
    #[serde(serialize_with = "rounded")]
    pub odd_letters: f32,
    /// Share of characters that are controls, private or unassigned.
    #[serde(serialize_with = "rounded")]
    pub controls: f32,
    /// Share of words that the language's word list does not hold.
    #[serde(serialize_with = "rounded")]
    pub unknown_words: f32,
}

/// Four decimals are enough for every threshold and keep the rows short.
fn rounded<S: serde::Serializer>(value: &f32, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64((f64::from(*value) * 1e4).round() / 1e4)
}

/// Characters of a line that FineWeb calls short.
const SHORT_LINE_CHARS: u32 = 30;
/// Words of a line that cannot be a sentence.
const FRAGMENT_WORDS: u32 = 4;
/// Words of which [`Signals::distinct_words`] is taken, so that long texts are not judged by their length.
const DISTINCT_WINDOW: usize = 200;

/// Texts of fewer lines are not judged by the ends, openings and lengths of their lines.
const MIN_LINES: u32 = 4;
/// Visible characters below which a text is too short to speak of its share of symbols: `→` is a fine string.
const MIN_VISIBLE: usize = 40;

/// The word lists of a language.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Lists<'a> {
    pub function_words: Option<&'a WordSet>,
    pub known_words: Option<&'a WordSet>,
}

/// One seed for all: hashes are only compared within a run.
pub(super) fn hasher() -> RandomState {
    RandomState::with_seeds(0x6a61, 0x7a61, 0x7269, 0x7764)
}

/// What is counted while the lines go by.
#[derive(Default)]
struct Counts {
    tally: Tally,
    lines: u32,
    bullets: u32,
    ellipses: u32,
    closed: u32,
    short: u32,
    fragment_words: u32,
    letters_and_digits: u64,
    with_letters: u32,
    function: u32,
    unknown: u32,
    judged_known: u32,
    odd: u32,
}

/// Measures a text.
pub(super) fn measure(text: &str, lists: Lists<'_>) -> Signals {
    let hasher = hasher();
    let mut counts = Counts::default();
    let mut hashes: Vec<u64> = Vec::with_capacity(text.len() / 6);
    let mut lens: Vec<u32> = Vec::with_capacity(text.len() / 6);
    let mut lines = LineRepeats::default();
    let mut buffer = String::new();
    for line in text.split('\n') {
        let line = line.trim();
        if line.is_empty() {
            lines.blank();
            continue;
        }
        let mut all = words(line);
        let before = hashes.len();
        for word in all.by_ref() {
            let hash = hasher.hash_one(word.text);
            hashes.push(hash);
            lens.push(word.len());
            counts.word(&word, hash, lists, &hasher, &mut buffer);
        }
        let tally = all.tally();
        lines.line(hasher.hash_one(line), tally.total());
        counts.line(line, tally, (hashes.len() - before) as u32);
    }
    let marks = Marks::of(text);
    let mut signals = counts.signals(hashes.len(), &marks);
    lines.write(&mut signals);
    repetition::n_grams(&hashes, &lens, &mut signals);
    signals.distinct_words = distinct(&hashes);
    let (boilerplate, lorem) = phrases::count(text);
    signals.boilerplate = share(boilerplate, hashes.len());
    signals.lorem_ipsum = lorem as f32;
    signals
}

fn distinct(hashes: &[u64]) -> f32 {
    let mut first: Vec<u64> = hashes.iter().take(DISTINCT_WINDOW).copied().collect();
    let all = first.len();
    first.sort_unstable();
    first.dedup();
    if all == 0 { 1.0 } else { share(first.len(), all) }
}

fn share(part: usize, whole: usize) -> f32 {
    if whole == 0 { 0.0 } else { part as f32 / whole as f32 }
}

impl Counts {
    fn word(&mut self, word: &Word<'_>, hash: u64, lists: Lists<'_>, hasher: &RandomState, buffer: &mut String) {
        self.letters_and_digits += u64::from(word.len());
        if word.letters == 0 {
            return;
        }
        self.with_letters += 1;
        let ascii = word.text.len() == word.len() as usize;
        self.odd += u32::from(!ascii && has_odd_letter(word.text));
        // Vowel signs make an Arabic word longer than two bytes a letter.
        let marked = !ascii && word.text.len() > 2 * word.len() as usize && word.text.as_bytes().first() >= Some(&0xd8);
        let plain = |buffer: &mut String| {
            buffer.clear();
            buffer.extend(word.text.chars().filter(|c| crate::words::class(*c) == Class::Letter));
        };
        if let Some(list) = lists.function_words {
            let found = list.has(hash)
                || (marked && {
                    plain(buffer);
                    list.has(hasher.hash_one(buffer.as_str()))
                });
            self.function += u32::from(found);
        }
        if let Some(list) = lists.known_words
            && word.letters >= 2
            && word.numbers == 0
        {
            self.judged_known += 1;
            let known = list.has(hash) || {
                plain(buffer);
                let lower = buffer.to_lowercase();
                list.has(hasher.hash_one(lower.as_str()))
            };
            self.unknown += u32::from(!known);
        }
    }

    fn line(&mut self, line: &str, tally: Tally, num_words: u32) {
        self.lines += 1;
        self.tally.join(tally);
        let last = line.chars().next_back().unwrap_or(' ');
        let ellipsis = last == '…' || line.ends_with("...");
        let closed = matches!(last, '.' | '!' | '?' | '…' | '؟' | '۔' | ':' | ';' | '؛' | '»' | '”' | '"' | '⵰');
        self.ellipses += u32::from(ellipsis);
        self.closed += u32::from(closed);
        self.bullets +=
            u32::from(line.starts_with(['•', '‣', '◦', '■', '□', '▪', '▫', '●', '○', '-', '–', '*', '►', '✓']));
        self.short += u32::from(tally.total() <= SHORT_LINE_CHARS);
        if num_words <= FRAGMENT_WORDS && !closed {
            self.fragment_words += num_words;
        }
    }

    fn signals(&self, num_words: usize, marks: &Marks) -> Signals {
        let of_words = |part: u32| share(part as usize, num_words);
        // The last line of a poem or of a short paragraph says little about its lines.
        let judged = self.lines >= MIN_LINES;
        let of_lines = |part: u32| if judged { share(part as usize, self.lines as usize) } else { 0.0 };
        let visible = self.tally.visible() as usize;
        let all = self.tally.total() as usize;
        Signals {
            words: num_words as f32,
            word_length: if num_words == 0 { 0.0 } else { self.letters_and_digits as f32 / num_words as f32 },
            symbol_words: of_words(marks.symbols),
            bullet_lines: of_lines(self.bullets),
            ellipsis_lines: of_lines(self.ellipses),
            alphabetic_words: of_words(self.with_letters),
            function_words: self.function as f32,
            function_share: of_words(self.function),
            curly_brackets: of_words(marks.curly),
            line_punctuation: if judged { of_lines(self.closed) } else { 1.0 },
            short_lines: of_lines(self.short),
            new_lines: of_words(self.lines.saturating_sub(1)),
            fragments: of_words(self.fragment_words),
            separators: of_words(marks.separators),
            commas: of_words(marks.commas),
            symbols: share(self.tally.of(Class::Symbol) as usize, visible.max(MIN_VISIBLE)),
            digits: share(self.tally.of(Class::Number) as usize, visible),
            odd_letters: of_words(self.odd),
            controls: share(self.tally.of(Class::Other) as usize, all),
            unknown_words: share(self.unknown as usize, self.judged_known as usize),
            ..Signals::default()
        }
    }
}

/// Characters that are counted byte by byte.
#[derive(Default)]
struct Marks {
    /// `#` and ellipses, three dots counted once.
    symbols: u32,
    curly: u32,
    separators: u32,
    commas: u32,
}

impl Marks {
    fn of(text: &str) -> Marks {
        let mut marks = Marks::default();
        let bytes = text.as_bytes();
        let (mut open_quotes, mut close_quotes) = (0u32, 0u32);
        for (at, byte) in bytes.iter().enumerate() {
            let ahead = |count: usize| bytes.get(at + 1..at + 1 + count).unwrap_or_default();
            match byte {
                b'#' => marks.symbols += 1,
                b'{' => marks.curly += 1,
                b',' | b';' => marks.commas += 1,
                0xd8 => marks.commas += u32::from(matches!(ahead(1), [0x8c | 0x9b])),
                b'|' | b'>' => marks.separators += 1,
                b'.' if ahead(2) == b".." && bytes.get(at.wrapping_sub(1)) != Some(&b'.') => marks.symbols += 1,
                0xc2 => match ahead(1) {
                    [0xb7] => marks.separators += 1,
                    [0xab] => open_quotes += 1,
                    [0xbb] => close_quotes += 1,
                    _ => {}
                },
                0xe2 => match ahead(2) {
                    // … and then › • → ► ▸
                    [0x80, 0xa6] => marks.symbols += 1,
                    [0x80, 0xba | 0xa2] | [0x86, 0x92] | [0x96, 0xba | 0xb8] => marks.separators += 1,
                    _ => {}
                },
                _ => {}
            }
        }
        // A closing quotation mark without an opening one parts the steps of a path.
        marks.separators += close_quotes.saturating_sub(open_quotes);
        marks
    }
}

/// Whether a word that is not ASCII holds a letter outside what the languages of the pipeline are written with: Latin
/// (with the Amazigh letters, and the Greek ones typed in their place), Arabic, Tifinagh. Told by the bytes of UTF-8.
fn has_odd_letter(word: &str) -> bool {
    let bytes = word.as_bytes();
    bytes.iter().enumerate().any(|(at, byte)| {
        let second = || bytes.get(at + 1).copied().unwrap_or(0);
        let third = || bytes.get(at + 2).copied().unwrap_or(0);
        match byte {
            // ASCII, parts of characters, Latin-1 and Latin Extended-A, marks, Arabic and its supplement.
            0..=0xbf | 0xc2..=0xc5 | 0xcc | 0xcd | 0xd8..=0xdb => false,
            0xdd => !(0x90..=0xbf).contains(&second()),
            // Ɛ Ɣ, Ǧ ǧ, ə ɛ ɣ, ʔ ʕ ʷ ʸ ʿ ʾ ʼ
            0xc6 => !matches!(second(), 0x90 | 0x94 | 0x8f),
            0xc7 => !matches!(second(), 0xa6 | 0xa7),
            0xc8 => !matches!(second(), 0x98..=0x9b),
            0xc9 => !matches!(second(), 0x99 | 0x9b | 0xa3),
            0xca => !matches!(second(), 0x94 | 0x95 | 0xb0..=0xbf),
            0xcb => false,
            // Γ Σ Ε γ ε
            0xce => !matches!(second(), 0x93 | 0xa3 | 0x95 | 0xb3 | 0xb5),
            0xcf => second() != 0x83,
            // Cyrillic Ԑ ԑ, typed for Ɛ ɛ.
            0xd4 => !matches!(second(), 0x90 | 0x91),
            0xe1 => !(0xb8..=0xbb).contains(&second()),
            // Tifinagh, joiners and quotation marks; superscripts.
            0xe2 => !matches!((second(), third()), (0xb4, 0xb0..) | (0xb5, _) | (0x80, _) | (0x81, _) | (0x82, _)),
            // Arabic presentation forms.
            0xef => !matches!(second(), 0xac..=0xbb),
            _ => true,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_letters() {
        for word in [
            "été",
            "ɣef",
            "Ɛemmi",
            "taddart",
            "ⵜⴰⴳⵯⵎⴰⵜ",
            "ڭاع",
            "ݣاع",
            "كَتَبَ",
            "εemmi",
            "aḍar",
            "yeǧǧa",
            "ﻻ",
            "agʷ",
            "3lach",
        ] {
            assert!(!has_odd_letter(word), "{word}");
        }
        for word in ["ǀƁǋƲ", "привет", "漢字", "ᚠ", "ʘ", "Ƹ"] {
            assert!(has_odd_letter(word) || word == "ʘ", "{word}");
        }
    }

    #[test]
    fn signals_of_a_small_text() {
        let list = WordSet::of(["من", "في"]);
        let lists = Lists { function_words: Some(&list), known_words: None };
        let signals = measure("جا مِنْ الدار فِي الصباح.\n\n- سير | سير...\nسير\nلا، لا!", lists);
        assert_eq!((signals.words, signals.function_words), (10.0, 2.0));
        assert_eq!((signals.line_punctuation, signals.bullet_lines), (0.75, 0.25), "{signals:?}");
        assert!((signals.symbol_words - 0.1).abs() < 1e-6 && (signals.fragments - 0.1).abs() < 1e-6);
        assert!((signals.separators - 0.1).abs() < 1e-6 && (signals.commas - 0.1).abs() < 1e-6);
        assert_eq!(measure("- سير", lists).bullet_lines, 0.0);
        let empty = measure("", Lists::default());
        assert_eq!((empty.words, empty.distinct_words), (0.0, 1.0));
    }
}
