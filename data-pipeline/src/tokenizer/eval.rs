//! Owns measuring a tokenizer on documents: tokens a word, bytes a token, exact round trips, what becomes of Arabizi and
//! of diacritics, which entries are used; never changes either.

use std::collections::BTreeMap;

use ahash::AHashMap;
use rayon::prelude::*;
use serde::Serialize;

use super::alphabet::{Spelling, char_to_byte};
use super::report::{Parity, Report};
use super::words::DocumentEncoder;
use super::{Tokenizer, TokenizerError, fenced};
use crate::document::Document;

/// Identifiers of failing documents that a report keeps for each language.
const MAX_EXAMPLES: usize = 3;
/// Words whose cutting is remembered.
const MAX_REMEMBERED: usize = 1 << 16;
/// Parallel rows of a language that are remembered; 24 bytes each.
const MAX_KEYS: usize = 1 << 22;

/// How a tokenizer does on the documents of one language and script.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct LanguageEvaluation {
    /// Documents.
    pub documents: u64,
    /// Words, divided by white space.
    pub words: u64,
    /// Characters (Unicode code points).
    pub characters: u64,
    /// UTF-8 bytes.
    pub bytes: u64,
    /// Tokens, without BOS and EOS.
    pub tokens: u64,
    /// Tokens that stand for text the vocabulary cannot spell.
    pub unknown: u64,
    /// Tokens that stand for less than a character: byte fallback, and pieces of a letter.
    pub byte_tokens: u64,
    /// Distinct entries of the vocabulary that were used.
    pub vocabulary_used: u64,
    /// Words in which a letter touches a digit: `3lach`, `m9wd`.
    pub bordered: BorderedWords,
    /// Words with Arabic diacritics.
    pub marked: MarkedWords,
    /// Documents whose decoded tokens are not the text.
    pub failed_round_trips: u64,
    /// Identifiers of some of them.
    pub examples: Vec<String>,
}

/// Words in which a letter touches a digit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct BorderedWords {
    /// Words.
    pub words: u64,
    /// Their tokens.
    pub tokens: u64,
    /// Words that are cut between a letter and a digit.
    pub cut: u64,
}

/// Words with Arabic diacritics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct MarkedWords {
    /// Words.
    pub words: u64,
    /// Their tokens.
    pub tokens: u64,
    /// Tokens of the same words without diacritics.
    pub bare_tokens: u64,
}

impl LanguageEvaluation {
    /// Tokens a word.
    pub fn fertility(&self) -> f64 {
        self.tokens as f64 / self.words.max(1) as f64
    }

    /// UTF-8 bytes a token.
    pub fn bytes_per_token(&self) -> f64 {
        self.bytes as f64 / self.tokens.max(1) as f64
    }

    /// Tokens a character.
    pub fn tokens_per_character(&self) -> f64 {
        self.tokens as f64 / self.characters.max(1) as f64
    }

    /// Share of the tokens that stand for text the vocabulary cannot spell.
    pub fn unknown_share(&self) -> f64 {
        self.unknown as f64 / self.tokens.max(1) as f64
    }

    /// Share of the tokens that stand for less than a character.
    pub fn byte_share(&self) -> f64 {
        self.byte_tokens as f64 / self.tokens.max(1) as f64
    }

    /// Share of the words with a letter beside a digit that are cut there.
    pub fn cut_share(&self) -> f64 {
        self.bordered.cut as f64 / self.bordered.words.max(1) as f64
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.documents += other.documents;
        self.words += other.words;
        self.characters += other.characters;
        self.bytes += other.bytes;
        self.tokens += other.tokens;
        self.unknown += other.unknown;
        self.byte_tokens += other.byte_tokens;
        self.bordered.words += other.bordered.words;
        self.bordered.tokens += other.bordered.tokens;
        self.bordered.cut += other.bordered.cut;
        self.marked.words += other.marked.words;
        self.marked.tokens += other.marked.tokens;
        self.marked.bare_tokens += other.marked.bare_tokens;
        self.failed_round_trips += other.failed_round_trips;
        // The smallest, so that the order of the documents has no say.
        self.examples.extend(other.examples.iter().cloned());
        self.examples.sort();
        self.examples.dedup();
        self.examples.truncate(MAX_EXAMPLES);
    }
}

/// What is gathered of one language.
#[derive(Debug, Clone, Default)]
pub(super) struct Gathered {
    pub figures: LanguageEvaluation,
    /// A bit for each entry of the vocabulary.
    pub used: Vec<u64>,
    /// Tokens of each document by its identifier, where rows share one across languages.
    pub keyed: AHashMap<u128, u64>,
}

impl Gathered {
    pub(super) fn merge(&mut self, other: Self) {
        self.figures.add(&other.figures);
        self.used.resize(self.used.len().max(other.used.len()), 0);
        self.used.iter_mut().zip(&other.used).for_each(|(own, other)| *own |= other);
        for (key, tokens) in other.keyed {
            if self.keyed.len() < MAX_KEYS {
                // Of two rows of a language with one key the shorter counts, whichever comes first.
                self.keyed.entry(key).and_modify(|own| *own = tokens.min(*own)).or_insert(tokens);
            }
        }
    }

    pub(super) fn counted(mut self) -> LanguageEvaluation {
        self.figures.vocabulary_used = self.used.iter().map(|word| u64::from(word.count_ones())).sum();
        self.figures
    }
}

/// A measurement in progress. The figures depend on the set of documents, not on their order or the number of threads.
pub struct Evaluation<'a> {
    tokenizer: &'a Tokenizer,
    workers: Vec<Worker<'a>>,
}

/// What one thread measures with.
struct Worker<'a> {
    tokenizer: &'a Tokenizer,
    encoder: DocumentEncoder<'a>,
    /// Entries that stand for less than a character.
    is_byte: std::sync::Arc<Vec<bool>>,
    ids: Vec<u32>,
    languages: BTreeMap<String, Gathered>,
    /// Tokens of words with a letter beside a digit, and whether they are cut there.
    bordered: AHashMap<Box<str>, (u64, bool)>,
    keyed: bool,
}

impl<'a> Evaluation<'a> {
    /// Begins with no documents.
    pub fn new(tokenizer: &'a Tokenizer) -> Self {
        let is_byte = (0..tokenizer.vocab_size() as u32).map(|id| is_byte_token(tokenizer, id)).collect();
        let is_byte = std::sync::Arc::new(is_byte);
        let worker = || Worker {
            tokenizer,
            encoder: tokenizer.document_encoder(),
            is_byte: std::sync::Arc::clone(&is_byte),
            ids: Vec::new(),
            languages: BTreeMap::new(),
            bordered: AHashMap::new(),
            keyed: false,
        };
        let workers = (0..rayon::current_num_threads().max(1)).map(|_| worker()).collect();
        Self { tokenizer, workers }
    }

    /// Remembers the tokens of each document by its identifier, to compare parallel texts.
    #[must_use]
    pub fn keyed(mut self) -> Self {
        self.workers.iter_mut().for_each(|worker| worker.keyed = true);
        self
    }

    /// Measures one document.
    ///
    /// # Errors
    /// When the tokenizer fails on it.
    pub fn add(&mut self, document: &Document) -> Result<(), TokenizerError> {
        self.workers.first_mut().map_or(Ok(()), |worker| worker.add(document))
    }

    /// Measures many documents on all threads.
    ///
    /// # Errors
    /// When the tokenizer fails on one of them.
    pub fn add_all(&mut self, documents: &[Document]) -> Result<(), TokenizerError> {
        let share = documents.len().div_ceil(self.workers.len().max(1)).max(1);
        let work = self.workers.par_iter_mut().zip(documents.par_chunks(share));
        work.try_for_each(|(worker, documents)| documents.iter().try_for_each(|document| worker.add(document)))
    }

    /// The figures by language and script, sorted by name.
    pub fn finish(self) -> BTreeMap<String, LanguageEvaluation> {
        self.gathered().into_iter().map(|(lang, gathered)| (lang, gathered.counted())).collect()
    }

    /// Everything that was measured; lengths are compared with those of `reference`, a language.
    pub fn report(self, reference: Option<&str>) -> Report {
        let tokenizer = self.tokenizer;
        let gathered = self.gathered();
        let parity = |lang: &str, own: &Gathered| -> Option<Parity> {
            let name = reference?;
            Some(Parity::of(lang, own, name, gathered.get(name)?))
        };
        let parities = gathered.iter().map(|(lang, own)| parity(lang, own)).collect::<Vec<_>>();
        Report::new(tokenizer, gathered, parities)
    }

    fn gathered(self) -> BTreeMap<String, Gathered> {
        let mut all: BTreeMap<String, Gathered> = BTreeMap::new();
        for (lang, gathered) in self.workers.into_iter().flat_map(|worker| worker.languages) {
            all.entry(lang).or_default().merge(gathered);
        }
        all
    }
}

impl Worker<'_> {
    fn add(&mut self, document: &Document) -> Result<(), TokenizerError> {
        self.ids.clear();
        self.encoder.encode(&document.text, &mut self.ids)?;
        let exact = self.tokenizer.decode(&self.ids, false)? == document.text;
        let unknown = self.tokenizer.unknown();
        let is_byte = |id: &u32| self.is_byte.get(*id as usize).copied().unwrap_or(false);
        let mut figures = LanguageEvaluation {
            documents: 1,
            words: document.text.split_whitespace().count() as u64,
            characters: document.text.chars().count() as u64,
            bytes: document.text.len() as u64,
            tokens: self.ids.len() as u64,
            unknown: self.ids.iter().filter(|&&id| Some(id) == unknown).count() as u64,
            byte_tokens: self.ids.iter().filter(|id| is_byte(id)).count() as u64,
            failed_round_trips: u64::from(!exact),
            examples: if exact { Vec::new() } else { vec![document.id.clone()] },
            ..LanguageEvaluation::default()
        };
        let entries = self.tokenizer.vocab_size().div_ceil(64);
        let language = self.languages.entry(document.lang.clone()).or_default();
        language.used.resize(entries, 0);
        for &id in &self.ids {
            if let Some(word) = language.used.get_mut(id as usize / 64) {
                *word |= 1 << (id % 64);
            }
        }
        if self.keyed
            && language.keyed.len() < MAX_KEYS
            && let Ok(key) = u128::from_str_radix(&document.id, 16)
        {
            let tokens = figures.tokens;
            language.keyed.entry(key).and_modify(|own| *own = tokens.min(*own)).or_insert(tokens);
        }
        for word in document.text.split_whitespace() {
            self.word(word, &mut figures)?;
        }
        if let Some(language) = self.languages.get_mut(&document.lang) {
            language.figures.add(&figures);
        }
        Ok(())
    }

    /// Looks at a word that is of a kind that tokenizers get wrong.
    fn word(&mut self, word: &str, figures: &mut LanguageEvaluation) -> Result<(), TokenizerError> {
        if has_border(word) {
            let (tokens, is_cut) = self.bordered(word)?;
            figures.bordered.words += 1;
            figures.bordered.tokens += tokens;
            figures.bordered.cut += u64::from(is_cut);
        }
        if word.contains(is_mark) {
            figures.marked.words += 1;
            figures.marked.tokens += self.tokens_of(word)?;
            figures.marked.bare_tokens += self.tokens_of(&word.replace(is_mark, ""))?;
        }
        Ok(())
    }

    /// Tokens of a word after another one: what tokenizers put before a text is no part of it.
    fn tokens_of(&mut self, word: &str) -> Result<u64, TokenizerError> {
        self.ids.clear();
        self.encoder.encode(LEAD, &mut self.ids)?;
        let lead = self.ids.len();
        self.ids.clear();
        self.encoder.encode(&format!("{LEAD} {word}"), &mut self.ids)?;
        Ok(self.ids.len().saturating_sub(lead) as u64)
    }

    fn bordered(&mut self, word: &str) -> Result<(u64, bool), TokenizerError> {
        if let Some(&known) = self.bordered.get(word) {
            return Ok(known);
        }
        let text = format!("{LEAD} {word}");
        let encoding = fenced("encode", || self.tokenizer.plain.encode(text.as_str(), false))?;
        let from = LEAD.len() + 1;
        let own = encoding.get_offsets().iter().filter(|(_, end)| *end > from);
        let starts: Vec<usize> = own.map(|(start, _)| (*start).max(from)).collect();
        let found = (starts.len() as u64, borders(word).any(|at| starts.contains(&(from + at))));
        if self.bordered.len() >= MAX_REMEMBERED {
            self.bordered.clear();
        }
        self.bordered.insert(word.into(), found);
        Ok(found)
    }
}

/// A word that stands before the one looked at.
const LEAD: &str = "a";

/// Fathatan to sukun, and the superscript alef.
fn is_mark(c: char) -> bool {
    matches!(c, '\u{64b}'..='\u{652}' | '\u{670}')
}

fn has_border(word: &str) -> bool {
    word.contains(char::is_numeric) && borders(word).next().is_some()
}

/// Where a letter touches a digit.
fn borders(word: &str) -> impl Iterator<Item = usize> {
    let after = word.char_indices().skip(1);
    let is_border = |a: char, b: char| (a.is_alphabetic() && b.is_numeric()) || (a.is_numeric() && b.is_alphabetic());
    word.chars().zip(after).filter(move |(a, (_, b))| is_border(*a, *b)).map(|(_, (at, _))| at)
}

/// Whether an entry stands for less than a character.
fn is_byte_token(tokenizer: &Tokenizer, id: u32) -> bool {
    let Some(piece) = tokenizer.piece(id) else { return false };
    match tokenizer.spelling() {
        Spelling::SentencePiece => super::alphabet::is_byte_piece(&piece),
        Spelling::ByteLevel => {
            let bytes: Option<Vec<u8>> = piece.chars().map(char_to_byte).collect();
            bytes.is_some_and(|bytes| std::str::from_utf8(&bytes).is_err())
        }
    }
}

/// Measures `tokenizer` on all `documents`.
///
/// # Errors
/// When the tokenizer fails on a document.
pub fn evaluate(
    tokenizer: &Tokenizer,
    documents: impl IntoIterator<Item = Document>,
) -> Result<BTreeMap<String, LanguageEvaluation>, TokenizerError> {
    let mut evaluation = Evaluation::new(tokenizer);
    for document in documents {
        evaluation.add(&document)?;
    }
    Ok(evaluation.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn borders_lie_between_letters_and_digits() {
        assert!(borders("3lach").eq([1]) && borders("m9wd").eq([1, 2]) && borders("s7ab2").eq([1, 2, 4]));
        assert!(!has_border("123") && !has_border("labas") && !has_border("12,5") && has_border("ق2"));
        assert!(is_mark('\u{64e}') && is_mark('\u{670}') && !is_mark('ب'));
    }
}
