//! Owns the list of Arabic words and how often they occur: reading, learning, writing and asking; never touches texts.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::LazyLock;

use crate::normalize::Normalize;

/// The list built by `jazari data lexicon`, see docs/guide/normalisation.md for its sources and their licences.
pub(super) static BUILT_IN: &[u8] = include_bytes!("arabic-words.txt.zst");
/// Bytes that a compressed list may expand to.
const MAX_LIST_BYTES: usize = 256 << 20;
/// How much less a stem tells than the word itself.
const STEM_WEIGHT: f32 = 0.05;
/// How much less the word with its article tells about the same word after a particle.
const PARTICLE_WEIGHT: f32 = 0.05;
/// Letters that a stem must have.
const MIN_STEM: usize = 3;
/// Letters of a stem that says something about a word: shorter ones belong to too many (ولا, علا, بلا).
const MIN_TELLING_STEM: usize = 4;
/// Distinct words that are counted at most while learning; beyond it the rarest are forgotten.
const MAX_LEARNED: usize = 4_000_000;
/// Longest word of a list, in bytes.
const MAX_WORD_BYTES: usize = 64;

type Table = HashMap<u64, u32, BuildHasherDefault<Hashed>>;

/// Arabic words with their frequency, without vowel signs. Words are kept as 64-bit hashes, 12 bytes each.
#[derive(Debug, Default, Clone)]
pub struct Lexicon {
    words: Table,
    stems: Table,
}

/// A line of a word list that is none.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("line {line}: is not `WORD`, a tab and a number; word lists are written by `jazari data lexicon`")]
pub struct BadLine {
    /// Line number from 1.
    pub line: usize,
}

impl Lexicon {
    /// The list inside the program.
    pub fn built_in() -> &'static Lexicon {
        static LEXICON: LazyLock<Lexicon> = LazyLock::new(|| {
            let list = expand(BUILT_IN).unwrap_or_default();
            let mut lexicon = Lexicon::default();
            // A test reads the same bytes.
            _ = lexicon.add_list(&list);
            lexicon
        });
        &LEXICON
    }

    /// Adds a list: `WORD`, a tab and a count on every line; Zstandard-compressed or not.
    ///
    /// # Errors
    /// The first line that is something else.
    pub fn read(&mut self, bytes: &[u8]) -> Result<(), BadLine> {
        if bytes.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
            return self.add_list(&expand(bytes).ok_or(BadLine { line: 1 })?);
        }
        self.add_list(std::str::from_utf8(bytes).map_err(|_| BadLine { line: 1 })?)
    }

    fn add_list(&mut self, list: &str) -> Result<(), BadLine> {
        for (i, line) in list.lines().enumerate() {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let entry = line.split_once('\t').and_then(|(word, count)| Some((word, count.parse().ok()?)));
            let (word, count) = entry.ok_or(BadLine { line: i + 1 })?;
            self.add(word, count);
        }
        Ok(())
    }

    /// Adds a word without vowel signs.
    pub fn add(&mut self, word: &str, count: u32) {
        let add = |table: &mut Table, word: &str| {
            let sum = table.entry(hash(word)).or_default();
            *sum = sum.saturating_add(count);
        };
        add(&mut self.words, word);
        add(&mut self.stems, stem(word));
    }

    /// Whether the list holds exactly this word.
    pub fn contains(&self, word: &str) -> bool {
        self.words.contains_key(&hash(word))
    }

    /// How usual a word is: its count, or a fraction of the count of its stem; 0 when neither is known.
    pub fn weight(&self, word: &str) -> f32 {
        let count = |table: &Table, word: &str| table.get(&hash(word)).copied().unwrap_or(0);
        let of_stem = |word: &str| {
            let stem = stem(word);
            if stem.len() / 2 < MIN_TELLING_STEM { 0 } else { count(&self.stems, stem) }
        };
        // One letter before a word may be a particle or its own first letter: both are looked up.
        let inner = word.strip_prefix(LETTER_PREFIXES).unwrap_or_default();
        let with_article = if inner.starts_with("ال") { count(&self.words, inner) } else { 0 };
        count(&self.words, word) as f32
            + PARTICLE_WEIGHT * with_article as f32
            + STEM_WEIGHT * of_stem(word).max(of_stem(inner)) as f32
    }

    /// Number of words.
    pub fn len(&self) -> usize {
        self.words.len()
    }

    /// Whether there is no word.
    pub fn is_empty(&self) -> bool {
        self.words.is_empty()
    }
}

fn expand(bytes: &[u8]) -> Option<String> {
    use std::io::Read;
    let mut list = Vec::new();
    let stream = zstd::stream::read::Decoder::new(bytes).ok()?;
    let read = stream.take(MAX_LIST_BYTES as u64 + 1).read_to_end(&mut list).ok()?;
    (read <= MAX_LIST_BYTES).then(|| String::from_utf8(list).ok())?
}

/// Eight bytes at a time, each multiplied to 128 bits and folded: the same on every machine.
fn hash(word: &str) -> u64 {
    const FACTOR: u128 = 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835;
    let fold = |value: u64, factor: u64| {
        let wide = u128::from(value) * u128::from(factor);
        (wide as u64) ^ ((wide >> 64) as u64)
    };
    let (low, high) = (FACTOR as u64, (FACTOR >> 64) as u64);
    let mut hash = low ^ word.len() as u64;
    let mut chunks = word.as_bytes().chunks_exact(8);
    for chunk in chunks.by_ref() {
        hash = fold(hash ^ chunk.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte)), high);
    }
    let rest = chunks.remainder().iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
    fold(fold(hash ^ rest, high), low)
}

/// Takes a hash as it is.
#[derive(Debug, Default, Clone)]
struct Hashed(u64);

impl Hasher for Hashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(byte);
        }
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}

const LETTER_PREFIXES: [char; 6] = ['و', 'ف', 'ب', 'ك', 'ل', 'س'];

/// Prefixes by their first letter, the first that fits counts.
fn prefixes(first: char) -> &'static [&'static str] {
    match first {
        'و' => &["وبال", "وكال", "وال", "ولل", "وب", "ول", "وس"],
        'ف' => &["فبال", "فال", "فلل", "فل", "فس"],
        'ب' => &["بال"],
        'ك' => &["كال"],
        'ل' => &["لل"],
        'ا' => &["ال"],
        _ => &[],
    }
}

/// Endings by their last letter, the first that fits counts.
fn suffixes(last: char) -> &'static [&'static str] {
    match last {
        'ا' => &["اتهما", "اتها", "اتنا", "تهما", "تها", "تنا", "هما", "ها", "نا", "ا"],
        'م' => &["اتهم", "تهم", "هم", "كم"],
        'ه' => &["اته", "ته", "ه"],
        'ن' => &["تين", "تان", "هن", "ان", "ين", "ون"],
        'ت' => &["يات", "ات"],
        'ة' => &["ية", "ة"],
        'ي' => &["ي"],
        _ => &[],
    }
}

/// The word without article, conjunctions and endings: the first of each list that leaves enough, as light stemmers do.
fn stem(word: &str) -> &str {
    let enough = |rest: &&str| rest.len() / 2 >= MIN_STEM;
    let (Some(first), Some(last)) = (word.chars().next(), word.chars().next_back()) else { return word };
    let stem = prefixes(first).iter().filter_map(|prefix| word.strip_prefix(prefix)).find(enough).unwrap_or(word);
    suffixes(last).iter().filter_map(|suffix| stem.strip_suffix(suffix)).find(enough).unwrap_or(stem)
}

/// Whether a character stands inside Arabic words: letters and vowel signs, no digits or punctuation.
pub(crate) fn is_arabic(c: char) -> bool {
    matches!(c, '\u{620}'..='\u{655}' | '\u{66e}'..='\u{6d3}' | '\u{750}'..='\u{77f}')
}

/// Whether a character is a vowel sign or a tatweel, which lists do not hold.
pub(crate) fn is_mark(c: char) -> bool {
    matches!(c, '\u{640}' | '\u{64b}'..='\u{655}' | '\u{670}')
}

/// The words of a text as lists hold them.
pub fn words(text: &str) -> impl Iterator<Item = String> + '_ {
    text.split(|c| !is_arabic(c))
        .filter(|word| !word.is_empty())
        .map(|word| word.chars().filter(|&c| !is_mark(c)).collect::<String>())
        .filter(|word| !word.is_empty())
}

/// Counts words of clean texts.
#[derive(Debug, Default)]
pub struct Learner {
    counts: HashMap<String, u32>,
}

impl Learner {
    /// Counts the words of a text, `certain` ones only when the text is damaged in a way that words cannot show.
    pub fn add(&mut self, text: &str, certain: impl Fn(&str) -> bool) {
        let text = Normalize::Profile(crate::normalize::Profile::default()).apply(text);
        for word in words(&text) {
            if word.len() <= MAX_WORD_BYTES && word.len() > 2 && certain(&word) {
                let count = self.counts.entry(word).or_default();
                *count = count.saturating_add(1);
            }
        }
        let mut floor = 1;
        while self.counts.len() > MAX_LEARNED {
            self.counts.retain(|_, count| *count > floor);
            floor *= 2;
        }
    }

    /// The list: words that occur at least `min_count` times, the most frequent first.
    pub fn list(self, min_count: u32) -> String {
        let mut words: Vec<(String, u32)> = self.counts.into_iter().filter(|(_, count)| *count >= min_count).collect();
        words.sort_by(|(a, n), (b, m)| m.cmp(n).then_with(|| a.cmp(b)));
        words.iter().map(|(word, count)| format!("{word}\t{count}\n")).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn the_built_in_list_is_whole() {
        let list = expand(BUILT_IN).unwrap();
        assert_eq!(Lexicon::default().read(BUILT_IN), Ok(()));
        assert!(list.lines().count() > 20_000);
        let lexicon = Lexicon::built_in();
        for word in ["خلال", "القانون", "على", "لا", "الأشخاص", "الله"] {
            assert!(lexicon.contains(word), "{word}");
        }
    }

    #[test]
    fn words_are_known_by_themselves_or_by_their_stem() {
        let mut lexicon = Lexicon::default();
        lexicon.read("# a comment\nالعلاقة\t40\nسلام\t3\n".as_bytes()).unwrap();
        assert_eq!((lexicon.len(), lexicon.is_empty()), (2, false));
        assert!(lexicon.weight("العلاقة") > 40.0);
        assert!(lexicon.weight("علاقتها") > 0.0 && lexicon.weight("وبالسلام") > 0.0);
        assert_eq!(lexicon.weight("عالقة"), 0.0);
        assert!(!lexicon.contains("علاقة"));
        assert_eq!(lexicon.read(b"x"), Err(BadLine { line: 1 }));
        assert_eq!(lexicon.read("سلام\tx".as_bytes()), Err(BadLine { line: 1 }));
    }

    /// The lists as they were written down first: one order for all.
    fn stem_by_lists(word: &str) -> &str {
        let letters = |text: &str| text.len() / 2;
        let mut stem = word;
        let prefixes = "وبال وكال فبال وال بال كال فال ولل فلل لل ال وب ول وس فل فس";
        let suffixes =
            "اتهما اتها اتهم اتنا اته تهما تها تهم تين تان تنا يات هما ية ته ها هم هن كم نا ات ان ين ون ه ة ي ا";
        let mut start = prefixes.split(' ').filter_map(|prefix| stem.strip_prefix(prefix));
        if let Some(rest) = start.find(|rest| letters(rest) >= MIN_STEM) {
            stem = rest;
        }
        let mut ending = suffixes.split(' ').filter_map(|suffix| stem.strip_suffix(suffix));
        ending.find(|rest| letters(rest) >= MIN_STEM).unwrap_or(stem)
    }

    proptest::proptest! {
        #[test]
        fn stems_are_those_of_the_lists(word in "[ابتةسفكلمنهوي]{0,12}|(وال|وبال|فال|ولل|ال|و)?[درجحق]{1,4}(اتهما|ات|ين|ها|ة)?") {
            proptest::prop_assert_eq!(stem(&word), stem_by_lists(&word));
        }
    }

    #[test]
    fn words_have_hashes_of_their_own() {
        let list = expand(BUILT_IN).unwrap();
        let hashes: std::collections::HashSet<u64> = list.lines().map(hash).collect();
        assert_eq!(hashes.len(), list.lines().count());
    }

    #[test]
    fn learning_counts_words_without_their_signs() {
        let mut learner = Learner::default();
        learner.add("كَتَبَ كتب الكتــاب، hello 12 ء", |_| true);
        learner.add("كتب قرأ", |word| word != "قرأ");
        assert_eq!(learner.list(1), "كتب\t3\nالكتاب\t1\n");
    }
}
