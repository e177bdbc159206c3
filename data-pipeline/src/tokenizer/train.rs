//! Owns training a tokenizer: which documents are sampled, which words they hold, and the report; never touches files.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;

use ahash::AHashMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::alphabet::byte_to_char;
use super::error::TokenizerError;
use super::files::{self, SPECIAL_TOKENS};
use super::merges::{Learned, Task, learn};
use super::pattern;
use crate::document::Document;
use crate::share::pour;

/// How to train a tokenizer: byte-level BPE over words in which marks and the digits of Arabizi stay inside.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TrainConfig {
    /// Tokens of the finished vocabulary, 16 special tokens included. Little text may give fewer.
    #[serde(default = "default_vocab_size")]
    pub vocab_size: usize,
    /// Share of a language in the sample ∝ (its bytes)^temperature: 1 keeps natural shares, 0 makes all equal.
    #[serde(default = "default_temperature")]
    pub temperature: f64,
    /// Size of the sample in bytes of text, repeats included.
    #[serde(default = "default_max_bytes")]
    pub max_bytes: u64,
    /// Most times that a document of a small language is counted.
    #[serde(default = "default_max_repeats")]
    pub max_repeats: f64,
    /// Pairs seen less often in the sample do not become a token.
    #[serde(default = "default_min_frequency")]
    pub min_frequency: u64,
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            vocab_size: default_vocab_size(),
            temperature: default_temperature(),
            max_bytes: default_max_bytes(),
            max_repeats: default_max_repeats(),
            min_frequency: default_min_frequency(),
        }
    }
}

fn default_vocab_size() -> usize {
    32_768
}

fn default_temperature() -> f64 {
    0.3
}

fn default_max_bytes() -> u64 {
    64_000_000
}

fn default_max_repeats() -> f64 {
    8.0
}

fn default_min_frequency() -> u64 {
    2
}

/// Smallest vocabulary: special tokens and the 256 bytes.
pub const MIN_VOCAB_SIZE: usize = SPECIAL_TOKENS.len() + 256;
/// Largest vocabulary; four times the largest in use.
pub const MAX_VOCAB_SIZE: usize = 1 << 20;
/// Largest sample: 4 GB of text, so that its distinct words can be numbered with 32 bits.
pub const MAX_SAMPLE_BYTES: u64 = 4_000_000_000;
/// Most repeats.
pub const MAX_REPEATS: f64 = 1000.0;
/// Words longer than this (base64, unbroken lines) teach nothing and would slow every merge down.
pub(super) const MAX_WORD_BYTES: usize = 256;
/// Longest token: 32 Arabic or 21 Tifinagh letters.
pub(super) const MAX_TOKEN_BYTES: usize = 64;

impl TrainConfig {
    /// Checks the ranges of all settings.
    ///
    /// # Errors
    /// The first that is out of range, with its key.
    pub fn validate(&self) -> Result<(), TokenizerError> {
        let refuse = |key, value: &dyn std::fmt::Display, rule: String| {
            Err(TokenizerError::Setting { key, value: value.to_string(), rule })
        };
        if !(MIN_VOCAB_SIZE..=MAX_VOCAB_SIZE).contains(&self.vocab_size) {
            let rule = format!("between {MIN_VOCAB_SIZE} (bytes and special tokens) and {MAX_VOCAB_SIZE}; write 32768");
            return refuse("vocab_size", &self.vocab_size, rule);
        }
        if !(0.0..=1.0).contains(&self.temperature) {
            let rule = "between 0 (languages equal) and 1 (natural shares); write 0.3".to_owned();
            return refuse("temperature", &self.temperature, rule);
        }
        if !(1..=MAX_SAMPLE_BYTES).contains(&self.max_bytes) {
            return refuse("max_bytes", &self.max_bytes, format!("between 1 and {MAX_SAMPLE_BYTES}; write 64000000"));
        }
        if !(1.0..=MAX_REPEATS).contains(&self.max_repeats) {
            return refuse("max_repeats", &self.max_repeats, format!("between 1 and {MAX_REPEATS}; write 8"));
        }
        if self.min_frequency == 0 {
            return refuse("min_frequency", &self.min_frequency, "1 or more; write 2".to_owned());
        }
        Ok(())
    }
}

/// What the sample held of a language.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct SampledLanguage {
    /// Bytes of text at hand.
    pub bytes: u64,
    /// Times that a document is counted on average.
    pub copies: f64,
    /// Documents taken at least once.
    pub documents: u64,
    /// Bytes counted, repeats included.
    pub sampled_bytes: u64,
}

/// What a training did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrainReport {
    /// Size asked for.
    pub requested_vocab_size: usize,
    /// Size reached; smaller when the sample holds no further pair of `min_frequency`.
    pub vocab_size: usize,
    /// Distinct words of the sample.
    pub distinct_words: usize,
    /// Words left out because they are too long.
    pub long_words: u64,
    /// The sample by language.
    pub languages: BTreeMap<String, SampledLanguage>,
}

/// A trained tokenizer.
#[derive(Debug, Clone, PartialEq)]
pub struct Trained {
    /// The files by name: `tokenizer.json`, `tokenizer_config.json`, `special_tokens_map.json`.
    pub files: BTreeMap<&'static str, Vec<u8>>,
    /// What was done.
    pub report: TrainReport,
}

/// Gathers the words of a sample of documents, then learns from them. The result depends on the set of documents, not
/// on their order.
pub struct TokenizerTrainer {
    config: TrainConfig,
    languages: BTreeMap<String, SampledLanguage>,
    words: AHashMap<Box<str>, u64>,
    long_words: u64,
}

impl TokenizerTrainer {
    /// Plans the sample from the number of bytes of text of each language.
    ///
    /// # Errors
    /// When a setting is out of range or there is no text.
    pub fn new(config: &TrainConfig, bytes_by_language: &BTreeMap<String, u64>) -> Result<Self, TokenizerError> {
        config.validate()?;
        let copies = plan_copies(config, bytes_by_language)?;
        let languages = bytes_by_language
            .iter()
            .zip(copies)
            .map(|((lang, &bytes), copies)| (lang.clone(), SampledLanguage { bytes, copies, ..Default::default() }))
            .collect();
        Ok(Self { config: config.clone(), languages, words: AHashMap::new(), long_words: 0 })
    }

    /// Times that the sample counts the document `id` of a language; 0 means that it need not be read.
    pub fn copies(&self, lang: &str, id: &str) -> u64 {
        let copies = self.languages.get(lang).map_or(0.0, |language| language.copies);
        let whole = copies.floor();
        let mut draw = [0; 8];
        blake3::Hasher::new_derive_key("jazari tokenizer sample").update(id.as_bytes()).finalize_xof().fill(&mut draw);
        // 53 bits fit a double exactly.
        let draw = (u64::from_le_bytes(draw) >> 11) as f64 / (1_u64 << 53) as f64;
        whole as u64 + u64::from(draw < copies - whole)
    }

    /// Counts the words of a document as often as the sample wants it.
    pub fn add(&mut self, document: &Document) {
        let copies = self.copies(&document.lang, &document.id);
        if copies == 0 {
            return;
        }
        if let Some(language) = self.languages.get_mut(&document.lang) {
            language.documents += 1;
            language.sampled_bytes += copies * document.text.len() as u64;
        }
        let Self { words, long_words, .. } = self;
        pattern::split(&document.text, |word| {
            if word.len() > MAX_WORD_BYTES {
                *long_words += 1;
            } else if let Some(count) = words.get_mut(word) {
                *count += copies;
            } else {
                words.insert(word.into(), copies);
            }
        });
    }

    /// Learns the merges. `progress` receives the size of the vocabulary now and then.
    ///
    /// # Errors
    /// When no text was added, or `stop` was raised.
    pub fn finish(self, progress: &dyn Fn(usize), stop: &AtomicBool) -> Result<Trained, TokenizerError> {
        if self.words.is_empty() {
            return Err(TokenizerError::NoText);
        }
        let distinct_words = self.words.len();
        let (pieces, ids) = byte_pieces();
        let spell = |(word, count): (Box<str>, u64)| {
            let ids = word.bytes().map(|byte| ids.get(usize::from(byte)).copied().unwrap_or(0)).collect();
            (ids, count)
        };
        let Learned { merges, pieces } = learn(Task {
            words: self.words.into_iter().map(spell).collect(),
            pieces,
            first_id: SPECIAL_TOKENS.len() as u32,
            vocab_size: self.config.vocab_size,
            min_frequency: self.config.min_frequency,
            max_token_bytes: MAX_TOKEN_BYTES,
            progress,
            stop,
        })
        .ok_or(TokenizerError::Stopped)?;
        let report = TrainReport {
            requested_vocab_size: self.config.vocab_size,
            vocab_size: pieces.len(),
            distinct_words,
            long_words: self.long_words,
            languages: self.languages,
        };
        Ok(Trained { files: files::render(&pieces, &merges), report })
    }
}

/// Average number of copies of a document, in the order of the languages.
fn plan_copies(config: &TrainConfig, bytes: &BTreeMap<String, u64>) -> Result<Vec<f64>, TokenizerError> {
    let sizes: Vec<f64> = bytes.values().map(|&bytes| bytes as f64).collect();
    let room: f64 = sizes.iter().sum::<f64>() * config.max_repeats;
    if room <= 0.0 {
        return Err(TokenizerError::NoText);
    }
    let budget = (config.max_bytes as f64).min(room);
    let weight = |&size: &f64| if size > 0.0 { size.powf(config.temperature) } else { 0.0 };
    let weights: Vec<f64> = sizes.iter().map(weight).collect();
    let caps: Vec<f64> = sizes.iter().map(|size| size * config.max_repeats / budget).collect();
    let copies = |portions: Vec<crate::share::Portion>| {
        let of = |(portion, &size): (crate::share::Portion, &f64)| {
            if size > 0.0 { portion.share * budget / size } else { 0.0 }
        };
        portions.into_iter().zip(&sizes).map(of).collect()
    };
    // The budget is within the room, so that all vessels together hold it.
    Ok(pour(&weights, &caps).map_or_else(|| vec![config.max_repeats; sizes.len()], copies))
}

/// Special tokens, then the bytes in the order of their characters, as the `tokenizers` crate numbers them; and the
/// id of each byte.
fn byte_pieces() -> (Vec<Vec<u8>>, Vec<u32>) {
    let mut bytes: Vec<u8> = (0..=255).collect();
    bytes.sort_by_key(|&byte| byte_to_char(byte));
    let mut ids = vec![0; 256];
    let mut pieces: Vec<Vec<u8>> = SPECIAL_TOKENS.iter().map(|token| token.as_bytes().to_vec()).collect();
    for byte in bytes {
        if let Some(id) = ids.get_mut(usize::from(byte)) {
            *id = pieces.len() as u32;
        }
        pieces.push(vec![byte]);
    }
    (pieces, ids)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use crate::document::{document_id, id_to_hex};

    fn document(lang: &str, text: &str) -> Document {
        let id = id_to_hex(&document_id("test", text));
        let text = text.to_owned();
        Document {
            id,
            text,
            lang: lang.into(),
            source: "test".into(),
            licence: "CC0-1.0".into(),
            url: None,
            notes: None,
        }
    }

    fn sizes(list: &[(&str, u64)]) -> BTreeMap<String, u64> {
        list.iter().map(|(lang, bytes)| ((*lang).to_owned(), *bytes)).collect()
    }

    #[test]
    fn small_languages_are_repeated_up_to_the_cap_and_large_ones_sampled() {
        let config = TrainConfig { max_bytes: 1_000, temperature: 0.0, max_repeats: 4.0, ..TrainConfig::default() };
        let copies =
            plan_copies(&config, &sizes(&[("ara_Arab", 10_000), ("ary_Latn", 500), ("zgh_Tfng", 20)])).unwrap();
        // Equal shares would be 333 bytes each; Tifinagh stops at 80, the others share 920.
        assert!((copies[0] - 0.046).abs() < 1e-9 && (copies[1] - 0.92).abs() < 1e-9 && (copies[2] - 4.0).abs() < 1e-9);
        let scarce = plan_copies(&config, &sizes(&[("ary_Latn", 100), ("zgh_Tfng", 0)])).unwrap();
        assert_eq!(scarce, [4.0, 0.0]);
        assert!(matches!(plan_copies(&config, &sizes(&[("ary_Latn", 0)])), Err(TokenizerError::NoText)));
    }

    #[test]
    fn the_sample_is_close_to_its_plan_and_independent_of_order() {
        let config = TrainConfig { max_bytes: 25_000, vocab_size: 300, ..TrainConfig::default() };
        let trainer = TokenizerTrainer::new(&config, &sizes(&[("ary_Latn", 100_000)])).unwrap();
        let taken: u64 = (0..10_000).map(|i| trainer.copies("ary_Latn", &format!("{i:032x}"))).sum();
        assert!((2_350..2_650).contains(&taken), "{taken} of 10000 at 0.25 copies");
        assert_eq!(trainer.copies("fra_Latn", "0"), 0);
    }

    #[test]
    fn training_twice_and_in_another_order_gives_the_same_bytes() {
        let texts: Vec<String> = (0..400).map(|i| format!("salam {} labas 3lik {} wach", i % 7, i * i % 97)).collect();
        let bytes: u64 = texts.iter().map(|text| text.len() as u64).sum();
        let config = TrainConfig { vocab_size: 330, ..TrainConfig::default() };
        let train = |texts: &mut dyn Iterator<Item = &String>| {
            let mut trainer = TokenizerTrainer::new(&config, &sizes(&[("ary_Latn", bytes)])).unwrap();
            texts.for_each(|text| trainer.add(&document("ary_Latn", text)));
            trainer.finish(&|_| {}, &AtomicBool::new(false)).unwrap()
        };
        let first = train(&mut texts.iter());
        assert_eq!(first, train(&mut texts.iter()));
        assert_eq!(first.files, train(&mut texts.iter().rev()).files);
        assert_eq!(first.report.vocab_size, 330);
        assert!((first.report.languages["ary_Latn"].copies - 8.0).abs() < 1e-9);
    }

    #[test]
    fn no_text_and_a_stop_are_errors() {
        let trainer = || TokenizerTrainer::new(&TrainConfig::default(), &sizes(&[("ary_Latn", 10)])).unwrap();
        let never = AtomicBool::new(false);
        assert!(matches!(trainer().finish(&|_| {}, &never), Err(TokenizerError::NoText)));
        let mut stopped = trainer();
        stopped.add(&document("ary_Latn", "wach labas"));
        assert!(matches!(stopped.finish(&|_| {}, &AtomicBool::new(true)), Err(TokenizerError::Stopped)));
    }

    #[test]
    fn settings_out_of_range_are_named() {
        let message = |config: TrainConfig| config.validate().unwrap_err().to_string();
        assert_eq!(
            message(TrainConfig { vocab_size: 100, ..TrainConfig::default() }),
            "vocab_size: 100 is not between 272 (bytes and special tokens) and 1048576; write 32768"
        );
        assert_eq!(
            message(TrainConfig { temperature: 2.0, ..TrainConfig::default() }),
            "temperature: 2 is not between 0 (languages equal) and 1 (natural shares); write 0.3"
        );
        assert_eq!(
            message(TrainConfig { max_repeats: 0.5, ..TrainConfig::default() }),
            "max_repeats: 0.5 is not between 1 and 1000; write 8"
        );
        assert_eq!(
            message(TrainConfig { max_bytes: 0, ..TrainConfig::default() }),
            "max_bytes: 0 is not between 1 and 4000000000; write 64000000"
        );
        assert_eq!(
            message(TrainConfig { min_frequency: 0, ..TrainConfig::default() }),
            "min_frequency: 0 is not 1 or more; write 2"
        );
    }
}
