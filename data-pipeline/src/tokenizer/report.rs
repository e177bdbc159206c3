//! Owns what a measurement of a tokenizer says: figures by language and script, parity, use of the vocabulary; never
//! encodes a text.

use std::collections::BTreeMap;

use serde::Serialize;

use super::Tokenizer;
use super::alphabet::{Spelling, WORD_START, char_to_byte};
use super::eval::{Gathered, LanguageEvaluation};

/// Everything that was measured of a tokenizer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Its tokenizer.json.
    pub tokenizer: String,
    /// Hexadecimal SHA-256 of that file.
    pub sha256: String,
    /// Largest id plus one.
    pub vocab_size: usize,
    /// Figures by language and script.
    pub languages: BTreeMap<String, Figures>,
    /// Figures by script.
    pub scripts: BTreeMap<String, Figures>,
    /// Entries of the vocabulary by the script of their letters, and how many of them were used.
    pub vocabulary: BTreeMap<&'static str, VocabularyUse>,
}

/// Counts and what follows from them.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Figures {
    /// What was counted.
    #[serde(flatten)]
    pub counts: LanguageEvaluation,
    /// Tokens a word.
    pub tokens_per_word: f64,
    /// UTF-8 bytes a token.
    pub bytes_per_token: f64,
    /// Tokens a character.
    pub tokens_per_character: f64,
    /// Share of the tokens that stand for text the vocabulary cannot spell.
    pub unknown_share: f64,
    /// Share of the tokens that stand for less than a character.
    pub byte_share: f64,
    /// Share of the words with a letter beside a digit that are cut there.
    pub cut_share: f64,
    /// Tokens of a word with Arabic diacritics over those of the same word without.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mark_inflation: Option<f64>,
    /// Length against the reference language.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parity: Option<Parity>,
}

impl Figures {
    fn new(counts: LanguageEvaluation, parity: Option<Parity>) -> Self {
        let marked = counts.marked;
        Self {
            tokens_per_word: counts.fertility(),
            bytes_per_token: counts.bytes_per_token(),
            tokens_per_character: counts.tokens_per_character(),
            unknown_share: counts.unknown_share(),
            byte_share: counts.byte_share(),
            cut_share: counts.cut_share(),
            mark_inflation: (marked.words > 0).then(|| marked.tokens as f64 / marked.bare_tokens.max(1) as f64),
            parity,
            counts,
        }
    }
}

/// Length of a language's texts against those of a reference language.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Parity {
    /// The reference.
    pub reference: String,
    /// Rows that both languages have; 0 when the figures are those of different texts.
    pub parallel_rows: u64,
    /// Of parallel rows tokens over the reference's tokens; otherwise tokens a word over the reference's.
    pub ratio: f64,
}

impl Parity {
    pub(super) fn of(lang: &str, own: &Gathered, name: &str, reference: &Gathered) -> Self {
        let (small, large, swapped) = match own.keyed.len() <= reference.keyed.len() {
            true => (&own.keyed, &reference.keyed, false),
            false => (&reference.keyed, &own.keyed, true),
        };
        let (mut rows, mut a, mut b) = (0, 0, 0);
        for (key, tokens) in small {
            if let Some(other) = large.get(key) {
                rows += 1;
                a += tokens;
                b += other;
            }
        }
        if swapped {
            std::mem::swap(&mut a, &mut b);
        }
        // Rows that name no key are identified by their text: a language shares those with itself alone.
        let ratio = match rows {
            0 => own.figures.fertility() / reference.figures.fertility().max(f64::MIN_POSITIVE),
            _ => a as f64 / (b as f64).max(1.0),
        };
        Self { reference: name.to_owned(), parallel_rows: if lang == name { 0 } else { rows }, ratio }
    }
}

/// Entries of one script.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct VocabularyUse {
    /// Entries.
    pub entries: u64,
    /// Those of them that were used at least once.
    pub used: u64,
}

impl Report {
    pub(super) fn new(
        tokenizer: &Tokenizer,
        gathered: BTreeMap<String, Gathered>,
        parities: Vec<Option<Parity>>,
    ) -> Self {
        let (mut scripts, mut languages): (BTreeMap<String, Gathered>, _) = (BTreeMap::new(), BTreeMap::new());
        let mut all = Gathered::default();
        for ((lang, mut own), parity) in gathered.into_iter().zip(parities) {
            own.keyed.clear();
            let script = lang.split_once('_').map_or("Zzzz", |(_, script)| script).to_owned();
            scripts.entry(script).or_default().merge(own.clone());
            all.merge(own.clone());
            languages.insert(lang, Figures::new(own.counted(), parity));
        }
        Self {
            tokenizer: tokenizer.path().display().to_string(),
            sha256: tokenizer.digest().to_owned(),
            vocab_size: tokenizer.vocab_size(),
            languages,
            scripts: scripts.into_iter().map(|(script, own)| (script, Figures::new(own.counted(), None))).collect(),
            vocabulary: vocabulary_use(tokenizer, &all.used),
        }
    }
}

fn vocabulary_use(tokenizer: &Tokenizer, used: &[u64]) -> BTreeMap<&'static str, VocabularyUse> {
    let special = tokenizer.special_ids();
    let mut table: BTreeMap<&'static str, VocabularyUse> = BTreeMap::new();
    for id in 0..tokenizer.vocab_size() as u32 {
        let Some(piece) = tokenizer.piece(id) else { continue };
        let script = if special.contains(&id) { "special" } else { script_of(tokenizer.spelling(), &piece) };
        let entry = table.entry(script).or_default();
        entry.entries += 1;
        entry.used += used.get(id as usize / 64).map_or(0, |word| word >> (id % 64) & 1);
    }
    table
}

/// The script of an entry's first letter; `bytes` of less than a character.
fn script_of(spelling: Spelling, piece: &str) -> &'static str {
    let text = match spelling {
        Spelling::SentencePiece if super::alphabet::is_byte_piece(piece) => return "bytes",
        Spelling::SentencePiece => piece.replace(WORD_START, " "),
        Spelling::ByteLevel => {
            let bytes: Option<Vec<u8>> = piece.chars().map(char_to_byte).collect();
            match bytes.map(String::from_utf8) {
                Some(Ok(text)) => text,
                Some(Err(error)) => return script_of_fragment(error.as_bytes()),
                None => piece.to_owned(),
            }
        }
    };
    text.chars().find_map(script_of_letter).unwrap_or("digits and signs")
}

/// A fragment that begins with a whole letter belongs to its script.
fn script_of_fragment(bytes: &[u8]) -> &'static str {
    let text = String::from_utf8_lossy(bytes);
    text.chars().filter(|c| *c != char::REPLACEMENT_CHARACTER).find_map(script_of_letter).unwrap_or("bytes")
}

/// The script of a letter, by its block: those of Moroccan texts, and the rest together.
fn script_of_letter(c: char) -> Option<&'static str> {
    match u32::from(c) {
        0x0600..=0x06ff | 0x0750..=0x077f | 0x0870..=0x08ff | 0xfb50..=0xfdff | 0xfe70..=0xfeff
            if !c.is_numeric() && !c.is_ascii_punctuation() =>
        {
            Some("Arab")
        }
        0x2d30..=0x2d7f => Some("Tfng"),
        0x0041..=0x024f | 0x1e00..=0x1eff | 0x2c60..=0x2c7f | 0xa720..=0xa7ff if c.is_alphabetic() => Some("Latn"),
        _ if c.is_alphabetic() => Some("other"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_belong_to_the_script_of_their_letters() {
        for (piece, script) in [("Ġsalam", "Latn"), ("ÙĪØ§", "Arab"), ("âµ", "bytes"), ("123", "digits and signs")]
        {
            assert_eq!(script_of(Spelling::ByteLevel, piece), script, "{piece}");
        }
        for (piece, script) in [("▁ⴰⵣⵓⵍ", "Tfng"), ("<0xE2>", "bytes"), ("▁", "digits and signs"), ("▁Ж", "other")]
        {
            assert_eq!(script_of(Spelling::SentencePiece, piece), script, "{piece}");
        }
    }
}
