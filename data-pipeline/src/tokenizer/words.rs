//! Owns encoding the documents of a corpus fast: words are cut by the tokenizer's pattern and looked up in a cache;
//! never decides what a token is.
//!
//! The library keeps offsets of every byte through every step, which costs several times the encoding itself. For
//! byte-level BPE the ids of a text are the ids of its words one after another, so a cache of words does most of the
//! work and the library's model the rest. Tokenizers of another build go through the library as a whole.

use std::panic::{AssertUnwindSafe, catch_unwind};

use ahash::AHashMap;
use tokenizers::models::ModelWrapper;
use tokenizers::normalizers::NormalizerWrapper;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{Model, SplitDelimiterBehavior};
use unicode_normalization::{IsNormalized, is_nfc_quick};

use super::alphabet::byte_to_char;
use super::error::TokenizerError;
use super::pattern::{self, PATTERN};
use super::{Tokenizer, fenced};

/// The pattern inside the library's `ByteLevel` with `use_regex` (GPT-2, `encoder.py`).
const GPT2_PATTERN: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

/// Words kept by an encoder; about 30 MB. A full cache is emptied, so that a new language finds room.
const MAX_CACHED_WORDS: usize = 1 << 18;
/// Longer words are rare and not kept.
const MAX_CACHED_BYTES: usize = 64;

/// How a byte-level BPE tokenizer cuts text into words.
pub(super) struct Splitter {
    cut: Cut,
    /// The tokenizer composes text first; composed text passes as it is.
    composed_only: bool,
}

enum Cut {
    /// [`PATTERN`], scanned.
    Scanner,
    /// Another pattern, matched by the library's own engine.
    Pattern(Box<Split>),
}

impl Splitter {
    /// The way a tokenizer cuts text, when its encoding is known to go word by word.
    pub fn of(library: &tokenizers::Tokenizer) -> Option<Self> {
        let composed_only = match library.get_normalizer() {
            None => false,
            Some(NormalizerWrapper::NFC(_)) => true,
            Some(_) => return None,
        };
        let ModelWrapper::BPE(bpe) = library.get_model() else { return None };
        let plain_model = bpe.continuing_subword_prefix.is_none() && bpe.end_of_word_suffix.is_none();
        // Added tokens that are not special are found in any text, across words.
        let only_special = library.get_added_tokens_decoder().values().all(|token| token.special);
        if !plain_model || !only_special {
            return None;
        }
        Some(Self { cut: cut_of(library.get_pre_tokenizer()?)?, composed_only })
    }

    fn takes(&self, text: &str) -> bool {
        !self.composed_only || is_nfc_quick(text.chars()) == IsNormalized::Yes
    }

    /// Hands out the words of a text in order.
    pub fn cut<'a>(&self, text: &'a str, mut each: impl FnMut(&'a str)) {
        let split = match &self.cut {
            Cut::Scanner => return pattern::split(text, each),
            Cut::Pattern(split) => split,
        };
        let mut at = 0;
        for (start, end) in split.regex.find_iter(text) {
            for (from, to) in [(at, start), (start, end)] {
                if let Some(piece) = text.get(from..to).filter(|piece| !piece.is_empty()) {
                    each(piece);
                }
            }
            at = end;
        }
        if let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
            each(rest);
        }
    }
}

fn cut_of(pre_tokenizer: &PreTokenizerWrapper) -> Option<Cut> {
    let steps = match pre_tokenizer {
        PreTokenizerWrapper::Sequence(sequence) => sequence.as_ref(),
        one => std::slice::from_ref(one),
    };
    let isolated = SplitDelimiterBehavior::Isolated;
    match steps {
        [PreTokenizerWrapper::Split(split), PreTokenizerWrapper::ByteLevel(bytes)]
            if split.behavior == isolated && !split.invert && !bytes.add_prefix_space && !bytes.use_regex =>
        {
            match &split.pattern {
                SplitPattern::Regex(regex) if regex == PATTERN => Some(Cut::Scanner),
                SplitPattern::Regex(_) => Some(Cut::Pattern(Box::new(split.clone()))),
                SplitPattern::String(_) => None,
            }
        }
        [PreTokenizerWrapper::ByteLevel(bytes)] if !bytes.add_prefix_space && bytes.use_regex => {
            let split = Split::new(SplitPattern::Regex(GPT2_PATTERN.to_owned()), isolated, false).ok()?;
            Some(Cut::Pattern(Box::new(split)))
        }
        _ => None,
    }
}

/// Encodes documents one after another; each thread has its own.
pub struct DocumentEncoder<'a> {
    tokenizer: &'a Tokenizer,
    /// Where the ids of a word lie in `ids`.
    places: AHashMap<Box<str>, (u32, u32)>,
    ids: Vec<u32>,
}

impl<'a> DocumentEncoder<'a> {
    pub(super) fn new(tokenizer: &'a Tokenizer) -> Self {
        Self { tokenizer, places: AHashMap::new(), ids: Vec::new() }
    }

    /// Appends the ids of `text` alone to `out`: no BOS, no EOS, and special tokens spelled in the text are text.
    ///
    /// # Errors
    /// When the library fails or panics; `out` is then as it was.
    pub fn encode(&mut self, text: &str, out: &mut Vec<u32>) -> Result<(), TokenizerError> {
        let tokenizer = self.tokenizer;
        let before = out.len();
        let result = match &tokenizer.splitter {
            Some(splitter) if splitter.takes(text) => {
                let work = || self.encode_words(splitter, text, out);
                catch_unwind(AssertUnwindSafe(work))
                    .unwrap_or_else(|_| Err("the library panicked".to_owned()))
                    .map_err(|reason| TokenizerError::Failed { action: "encode", reason })
            }
            _ => fenced("encode", || tokenizer.plain.encode_fast(text, false))
                .map(|encoding| out.extend_from_slice(encoding.get_ids())),
        };
        if result.is_err() {
            out.truncate(before);
        }
        result
    }

    fn encode_words(&mut self, splitter: &Splitter, text: &str, out: &mut Vec<u32>) -> Result<(), String> {
        let mut failure = None;
        splitter.cut(text, |word| {
            if failure.is_none() {
                failure = self.encode_word(word, out).err();
            }
        });
        failure.map_or(Ok(()), Err)
    }

    fn encode_word(&mut self, word: &str, out: &mut Vec<u32>) -> Result<(), String> {
        if let Some(&(from, to)) = self.places.get(word) {
            out.extend_from_slice(self.ids.get(from as usize..to as usize).unwrap_or_default());
            return Ok(());
        }
        let spelled: String = word.bytes().map(byte_to_char).collect();
        let tokens = self.tokenizer.plain.get_model().tokenize(&spelled).map_err(|error| error.to_string())?;
        let ids = tokens.iter().map(|token| token.id);
        if word.len() <= MAX_CACHED_BYTES {
            if self.places.len() >= MAX_CACHED_WORDS {
                self.places.clear();
                self.ids.clear();
            }
            // At most 2^18 words of 64 bytes, and no word has more tokens than bytes.
            let from = self.ids.len() as u32;
            self.ids.extend(ids.clone());
            self.places.insert(word.into(), (from, self.ids.len() as u32));
        }
        out.extend(ids);
        Ok(())
    }
}
