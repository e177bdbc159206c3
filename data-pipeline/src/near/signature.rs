//! Owns shingles and MinHash signatures of one text; never compares two texts and touches no file.
//!
//! Each shingle is hashed once to 64 bits; the hash functions of the signature are x -> a x + b mod 2^64 with odd a over
//! that hash (linear permutations, Bohman, Cooper and Frieze 2000), a multiplication and an addition each. Everything is
//! integer arithmetic: the same text has the same signature on every machine.

use super::NearConfig;
use super::hash::{hash_bytes, mix, split_mix};
use super::words::{KeyBuffers, compare_key, words};

/// Multiplier of the rolling hash over words or characters (odd, from the fraction of the golden ratio).
const ROLL: u64 = 0x9e37_79b9_7f4a_7c15;
/// Keeps hashes of characters apart from hashes of words.
const SHORT_KIND: u64 = 0x5bd1_e995_7b93_3f1d;
/// What stands for every number under `fold_numbers`.
const NUMBER: u64 = 0x30;

/// Makes signatures; one for all threads.
#[derive(Debug, Clone)]
pub struct Signer {
    config: NearConfig,
    /// Multiplier and addend of each hash function.
    functions: Vec<(u64, u64)>,
    word_power: u64,
    char_power: u64,
}

/// What a text is compared by: one sketch, or two at the border between short and long.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Signature {
    /// Bytes of the text.
    pub bytes: u32,
    /// None for a text without a word.
    pub sketches: Vec<Sketch>,
}

/// The shingles of a text and the hashes of its bands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sketch {
    /// By characters, not by words.
    pub short: bool,
    /// One hash a band; two sketches are candidates when they share one.
    pub bands: Vec<u64>,
    /// Upper halves of the hashes of the shingles, sorted, each once.
    pub shingles: Vec<u32>,
}

/// Room that [`Signer::sign`] keeps between texts.
#[derive(Debug, Default)]
pub struct SignerBuffers {
    key: String,
    buffers: KeyBuffers,
    words: Vec<u64>,
    units: Vec<u64>,
    shingles: Vec<u64>,
    minima: Vec<u64>,
}

impl Signer {
    /// A signer for valid settings (see [`NearConfig::check`]).
    pub fn new(config: &NearConfig) -> Signer {
        let mut state = config.seed;
        let functions =
            (0..config.bands * config.rows).map(|_| (split_mix(&mut state) | 1, split_mix(&mut state))).collect();
        let power = |length: usize| std::iter::repeat_n(ROLL, length).fold(1, u64::wrapping_mul);
        let (word_power, char_power) = (power(config.ngram), power(config.short_chars));
        Signer { config: config.clone(), functions, word_power, char_power }
    }

    /// The signature of `text`; `label` is its language label or empty (see [`compare_key`]).
    pub fn sign(&self, text: &str, label: &str, buffers: &mut SignerBuffers) -> Signature {
        compare_key(text, label, &mut buffers.buffers, &mut buffers.key);
        let SignerBuffers { key, words: hashes, units, shingles, minima, .. } = buffers;
        hashes.clear();
        hashes.extend(words(key).map(|(_, word)| self.word(word)));
        let mut signature = Signature { bytes: u32::try_from(text.len()).unwrap_or(u32::MAX), sketches: Vec::new() };
        let (count, short) = (hashes.len(), self.config.short_words);
        // Bands of two languages never agree.
        let language = match self.config.per_language {
            true => hash_bytes(1, label.split(['_', '-']).next().unwrap_or(label).as_bytes()),
            false => 0,
        };
        if count > 0 && count <= short + short / 4 {
            units.clear();
            for (i, (_, word)) in words(key).enumerate() {
                if i > 0 {
                    units.push(mix(u64::from(b' ')));
                }
                match word.bytes().all(|b| b.is_ascii_digit()) && self.config.fold_numbers {
                    true => units.push(mix(NUMBER)),
                    false => units.extend(word.chars().map(|c| mix(u64::from(c)))),
                }
            }
            roll(units, self.config.short_chars, self.char_power, SHORT_KIND, shingles);
            signature.sketches.push(self.sketch(shingles, minima, SHORT_KIND, language));
        }
        if count > 0 && count >= short {
            roll(hashes, self.config.ngram, self.word_power, 0, shingles);
            signature.sketches.push(self.sketch(shingles, minima, 0, language));
        }
        signature
    }

    fn word(&self, word: &str) -> u64 {
        if self.config.fold_numbers && word.bytes().all(|b| b.is_ascii_digit()) {
            return mix(NUMBER);
        }
        hash_bytes(0, word.as_bytes())
    }

    fn sketch(&self, shingles: &mut Vec<u64>, minima: &mut Vec<u64>, kind: u64, language: u64) -> Sketch {
        shingles.sort_unstable();
        shingles.dedup();
        minima.clear();
        minima.resize(self.functions.len(), u64::MAX);
        for &shingle in shingles.iter() {
            for (minimum, &(a, b)) in minima.iter_mut().zip(&self.functions) {
                *minimum = (*minimum).min(shingle.wrapping_mul(a).wrapping_add(b));
            }
        }
        let bands = minima
            .chunks_exact(self.config.rows.max(1))
            .enumerate()
            .map(|(band, rows)| {
                rows.iter().fold(mix(kind ^ language ^ (band as u64 + 1)), |state, &row| mix(state ^ mix(row)))
            })
            .collect();
        let mut halves: Vec<u32> = shingles.iter().map(|shingle| (shingle >> 32) as u32).collect();
        halves.dedup();
        Sketch { short: kind == SHORT_KIND, bands, shingles: halves }
    }
}

/// Hashes of all runs of `length` units, or of all units together when there are fewer.
fn roll(units: &[u64], length: usize, power: u64, kind: u64, out: &mut Vec<u64>) {
    out.clear();
    let mut state: u64 = 0;
    for (i, &unit) in units.iter().enumerate() {
        state = state.wrapping_mul(ROLL).wrapping_add(unit);
        if let Some(&gone) = i.checked_sub(length).and_then(|at| units.get(at)) {
            state = state.wrapping_sub(gone.wrapping_mul(power));
        }
        if i + 1 >= length {
            out.push(mix(state ^ kind));
        }
    }
    if units.len() < length {
        // The number of units keeps a short text apart from the shingles of longer ones.
        out.push(mix(state ^ kind ^ mix(units.len() as u64)));
    }
}

/// Jaccard similarity of two sorted sets, as the sizes of their intersection and union.
pub(crate) fn overlap(a: &[u32], b: &[u32]) -> (usize, usize) {
    let (mut i, mut j, mut shared) = (0, 0, 0);
    while let (Some(x), Some(y)) = (a.get(i), b.get(j)) {
        shared += usize::from(x == y);
        i += usize::from(x <= y);
        j += usize::from(y <= x);
    }
    (shared, a.len() + b.len() - shared)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use std::collections::BTreeSet;

    use super::*;

    fn sign(text: &str, config: &NearConfig) -> Signature {
        Signer::new(config).sign(text, "", &mut SignerBuffers::default())
    }

    fn numbered(count: usize) -> String {
        (0..count).map(|i| format!("w{i} ")).collect()
    }

    #[test]
    fn rolling_equals_hashing_each_window() {
        let units: Vec<u64> = (0..40).map(|i| mix(i % 7)).collect();
        for length in [1, 3, 5, 40] {
            let power = std::iter::repeat_n(ROLL, length).fold(1, u64::wrapping_mul);
            let mut rolled = Vec::new();
            roll(&units, length, power, 0, &mut rolled);
            let direct: Vec<u64> = units
                .windows(length)
                .map(|w| mix(w.iter().fold(0_u64, |state, unit| state.wrapping_mul(ROLL).wrapping_add(*unit))))
                .collect();
            assert_eq!(rolled, direct, "{length}");
        }
    }

    #[test]
    fn short_long_and_border_texts() {
        let config = NearConfig::default();
        let kinds = |words: usize| sign(&numbered(words), &config).sketches.len();
        assert_eq!((kinds(0), kinds(1), kinds(31), kinds(32), kinds(40), kinds(41)), (0, 1, 1, 2, 2, 1));
        assert_eq!(sign(&numbered(100), &config).sketches[0].shingles.len(), 96);
        assert_eq!(sign("🙂", &config).sketches.len(), 1);
        assert_ne!(sign("🙂", &config), sign("🙁", &config));
        assert_ne!(sign("ab", &config).sketches, sign("abc", &config).sketches);
    }

    #[test]
    fn spellings_share_a_signature_and_numbers_only_when_asked() {
        let config = NearConfig::default();
        let pair = |a: &str, b: &str, config: &NearConfig| sign(a, config).sketches == sign(b, config).sketches;
        assert!(pair("وَاشْ نقدر أهلا", "واش  نقدر اهلا!", &config));
        assert!(pair("ⴰⵣⵓⵍ ⵜⴰⵎⴰⵣⵉⵖⵜ", "Azul tamaziɣt", &config));
        assert!(!pair("الفصل 12", "الفصل 13", &config));
        assert!(pair("الفصل 12", "الفصل 13", &NearConfig { fold_numbers: true, ..config }));
    }

    #[test]
    fn languages_are_kept_apart_when_asked() {
        let sign = |label: &str, per_language| {
            let config = NearConfig { per_language, ..NearConfig::default() };
            Signer::new(&config).sign("azul fllawn a tamazight", label, &mut SignerBuffers::default())
        };
        assert_eq!(sign("zgh_Latn", false), sign("kab_Latn", false));
        let bands = |label| sign(label, true).sketches.remove(0).bands;
        assert_eq!(bands("zgh_Latn"), bands("zgh_Tfng"));
        assert!(bands("zgh_Latn").iter().zip(bands("kab_Latn")).all(|(a, b)| *a != b));
    }

    /// The share of equal minima estimates the similarity; bands agree as often as the formula says.
    #[test]
    fn candidates_are_as_likely_as_the_formula_says() {
        let config = NearConfig { bands: 16, rows: 4, short_words: 0, ngram: 1, ..NearConfig::default() };
        let mut found = 0;
        let pairs = 400;
        for pair in 0..pairs {
            // 60 shared of 100 in all.
            let text = |from: usize| (from..from + 80).map(|i| format!("p{pair}w{i} ")).collect::<String>();
            let (a, b) = (sign(&text(0), &config), sign(&text(20), &config));
            let (a, b) = (&a.sketches[0], &b.sketches[0]);
            assert_eq!(overlap(&a.shingles, &b.shingles), (60, 100));
            found += usize::from(a.bands.iter().zip(&b.bands).any(|(x, y)| x == y));
        }
        let expected = config.candidate_probability(0.6) * pairs as f64;
        // 1 - (1 - 0.6^4)^16 = 0.89; five standard deviations of 400 tosses are 31.
        assert!((found as f64 - expected).abs() < 31.0, "{found} of {pairs}, expected {expected}");
    }

    #[test]
    fn hash_functions_differ_by_seed_and_are_odd() {
        let functions = |seed| Signer::new(&NearConfig { seed, ..NearConfig::default() }).functions;
        let (one, two) = (functions(1), functions(2));
        assert_ne!(one, two);
        assert!(one.iter().all(|(a, _)| a % 2 == 1));
        assert_eq!(one.iter().collect::<BTreeSet<_>>().len(), 120);
    }
}
