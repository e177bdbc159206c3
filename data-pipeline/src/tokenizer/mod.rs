//! Owns text to token ids and back: limits, a fence around the library's panics, special tokens, digests; never touches
//! shards.

pub mod alphabet;
pub mod chat;
pub mod config;
mod error;
pub mod eval;
mod extend;
pub mod files;
pub mod gates;
mod guard;
mod merges;
mod open;
pub mod pattern;
pub mod report;
mod special;
mod train;
mod vocabulary_size;
mod words;

use std::collections::BTreeSet;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

pub use self::alphabet::Spelling;
pub use self::error::TokenizerError;
pub use self::extend::{ExtendReport, Extended, TokenizerExtender};
pub use self::open::MAX_TOKENIZER_BYTES;
pub use self::train::{
    MAX_REPEATS, MAX_SAMPLE_BYTES, MAX_VOCAB_SIZE, MIN_VOCAB_SIZE, SampledLanguage, TokenizerTrainer, TrainConfig,
    TrainReport, Trained,
};
pub use self::words::DocumentEncoder;

/// A tokenizer.json with the special tokens' roles from the files beside it.
pub struct Tokenizer {
    /// Special tokens in a text become their ids.
    library: tokenizers::Tokenizer,
    /// Special tokens in a text are spelled out like other text.
    plain: tokenizers::Tokenizer,
    path: PathBuf,
    digest: String,
    vocab_size: usize,
    spelling: Spelling,
    roles: special::Roles,
    /// BOS and EOS around every document; BOS only when the tokenizer itself puts it before a text.
    begins_with_bos: bool,
    splitter: Option<words::Splitter>,
}

impl Tokenizer {
    /// Opens a tokenizer.json, or the one inside a folder. The roles of the special tokens are read from
    /// `tokenizer_config.json` or `special_tokens_map.json` beside it.
    ///
    /// # Errors
    /// A file that is absent, too large, malformed, of an unsupported kind, or names an unknown special token.
    pub fn open(path: &Path) -> Result<Self, TokenizerError> {
        open::open(path)
    }

    /// A tokenizer from the text of a tokenizer.json and of a tokenizer_config.json, which other files may hold in
    /// another form; `path` is the file that errors name.
    ///
    /// # Errors
    /// As [`Tokenizer::open`].
    pub fn from_json(tokenizer: &[u8], config: &Map<String, Value>, path: &Path) -> Result<Self, TokenizerError> {
        open::parse(tokenizer, path, |id_of| {
            let mut roles = special::Roles::default();
            special::add_roles(&mut roles, config, path, id_of)?;
            Ok(roles)
        })
    }

    /// Where the tokenizer.json lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Largest id plus one, special tokens included.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// The token that begins a text, when the tokenizer names one.
    pub fn bos(&self) -> Option<u32> {
        self.roles.bos
    }

    /// The token that ends a text, when the tokenizer names one.
    pub fn eos(&self) -> Option<u32> {
        self.roles.eos
    }

    /// The token that fills short rows, when the tokenizer names one.
    pub fn pad(&self) -> Option<u32> {
        self.roles.pad
    }

    /// The token before every document: BOS, when the tokenizer puts it before a text by itself.
    pub fn document_bos(&self) -> Option<u32> {
        self.roles.bos.filter(|_| self.begins_with_bos)
    }

    /// Hexadecimal SHA-256 of the tokenizer.json.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// How the vocabulary spells text.
    pub fn spelling(&self) -> Spelling {
        self.spelling
    }

    /// Ids of a text in which special tokens have their meaning (prompts, rendered chats). `add_special` adds what the
    /// tokenizer puts around a text, usually BOS.
    ///
    /// # Errors
    /// When the library fails or panics.
    pub fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>, TokenizerError> {
        let encoding = fenced("encode", || self.library.encode_fast(text, add_special))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Ids of a rendered chat, in which special tokens have their meaning and nothing is added, with the byte range of
    /// the text that each stands for.
    ///
    /// # Errors
    /// When the library fails or panics.
    pub fn encode_with_offsets(&self, text: &str) -> Result<(Vec<u32>, Vec<Range<usize>>), TokenizerError> {
        let encoding = fenced("encode", || self.library.encode(text, false))?;
        let ranges = encoding.get_offsets().iter().map(|&(start, end)| start..end).collect();
        Ok((encoding.get_ids().to_vec(), ranges))
    }

    /// Ids of the special tokens.
    pub fn special_ids(&self) -> BTreeSet<u32> {
        let added = self.library.get_added_tokens_decoder();
        added.iter().filter(|(_, token)| token.special).map(|(&id, _)| id).collect()
    }

    /// An encoder for texts of a corpus, in which special tokens have no meaning: a document that spells
    /// `<|end_of_text|>` must not end itself.
    pub fn document_encoder(&self) -> DocumentEncoder<'_> {
        DocumentEncoder::new(self)
    }

    /// The text of ids; `skip_special` leaves special tokens out.
    ///
    /// # Errors
    /// An id outside the vocabulary, or a failure of the library.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String, TokenizerError> {
        if let Some(&id) = ids.iter().find(|&&id| id as usize >= self.vocab_size) {
            return Err(TokenizerError::UnknownId { id, vocab_size: self.vocab_size });
        }
        fenced("decode", || self.library.decode(ids, skip_special))
    }

    /// The vocabulary entry of an id, as the tokenizer.json spells it.
    pub fn piece(&self, id: u32) -> Option<String> {
        self.library.id_to_token(id)
    }

    /// The id of a vocabulary entry, as the tokenizer.json spells it.
    pub fn id_of(&self, piece: &str) -> Option<u32> {
        self.library.token_to_id(piece)
    }

    /// The token for text that the vocabulary cannot spell.
    pub fn unknown(&self) -> Option<u32> {
        self.roles.unknown
    }

    /// UTF-8 bytes that each id stands for, `[vocab_size]`; 0 for special tokens and unused ids. SentencePiece
    /// tokenizers that put `▁` before a text count one byte a document that is not in it.
    pub fn token_bytes(&self) -> Vec<u16> {
        let added = self.library.get_added_tokens_decoder();
        let bytes = |id: u32| match added.get(&id) {
            Some(token) if token.special => 0,
            Some(token) => token.content.len(),
            None => self.library.id_to_token(id).map_or(0, |piece| self.spelling.num_bytes(&piece)),
        };
        (0..self.vocab_size as u32).map(|id| u16::try_from(bytes(id)).unwrap_or(u16::MAX)).collect()
    }
}

/// Runs the library so that neither its errors nor its panics leave as anything but a [`TokenizerError`].
fn fenced<T>(action: &'static str, work: impl FnOnce() -> tokenizers::Result<T>) -> Result<T, TokenizerError> {
    // The library keeps only caches between calls, and drops its borrow of them when it unwinds.
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(TokenizerError::Failed { action, reason: error.to_string() }),
        Err(panic) => {
            let said = panic.downcast_ref::<&str>().map(|s| (*s).to_owned());
            let said = said.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
            Err(TokenizerError::Failed { action, reason: format!("the library panicked ({said})") })
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn panics_become_errors() {
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(|_| {}));
        let result: Result<(), _> = fenced("encode", || panic!("index {} out of range", 3));
        std::panic::set_hook(hook);
        assert_eq!(
            result.unwrap_err().to_string(),
            "the tokenizer cannot encode this text: the library panicked (index 3 out of range); \
             check the tokenizer with `jazari tokenizer eval`"
        );
    }
}
