//! Owns extending a byte-level BPE tokenizer with merges learned on new text: old ids keep their meaning, new ones are
//! appended; never touches the disk but for reading the tokenizer.
//!
//! New merges rank behind all old ones, so a word is first put together as before and then further. Text that the
//! tokenizer knew well hardly changes; text of a new language gets shorter.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::AtomicBool;

use ahash::AHashMap;
use serde_json::Value;
use tokenizers::Model;

use super::alphabet::{Spelling, byte_to_char, char_to_byte};
use super::error::TokenizerError;
use super::merges::{Learned, Pair, Task, learn};
use super::open::read_limited;
use super::train::{MAX_TOKEN_BYTES, MAX_VOCAB_SIZE, MAX_WORD_BYTES};
use super::{Tokenizer, fenced, files};
use crate::document::Document;

/// Pairs seen less often do not become a token.
const MIN_FREQUENCY: u64 = 2;
/// Distinct words held at a time, about 400 MB. Beyond it the rarest are forgotten: what is common in a corpus of any
/// size has been seen often by then.
const MAX_WORDS: usize = 1 << 22;

/// What an extension did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExtendReport {
    /// Vocabulary before.
    pub base: usize,
    /// New tokens; fewer than asked for when the text holds no further frequent pair.
    pub added: usize,
    /// Distinct words that it learned from.
    pub distinct_words: usize,
}

/// A tokenizer with more tokens than before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extended {
    /// Its files by name.
    pub files: BTreeMap<String, Vec<u8>>,
    /// What was done.
    pub report: ExtendReport,
}

/// Gathers words, then learns from them.
pub struct TokenizerExtender<'a> {
    base: &'a Tokenizer,
    words: AHashMap<Box<str>, u64>,
}

impl<'a> TokenizerExtender<'a> {
    /// Begins with no text.
    ///
    /// # Errors
    /// A tokenizer that is not byte-level BPE, or cuts text in a way that is not known.
    pub fn new(base: &'a Tokenizer) -> Result<Self, TokenizerError> {
        if base.spelling != Spelling::ByteLevel || base.splitter.is_none() {
            let what = "only byte-level BPE that cuts text into words can be extended".to_owned();
            return Err(TokenizerError::Unsupported { path: base.path.clone(), what });
        }
        Ok(Self { base, words: AHashMap::new() })
    }

    /// Counts the words of a document.
    pub fn add(&mut self, document: &Document) {
        let Self { base, words } = self;
        let Some(splitter) = &base.splitter else { return };
        splitter.cut(&document.text, |word| match words.get_mut(word) {
            Some(count) => *count += 1,
            None if word.len() <= MAX_WORD_BYTES => _ = words.insert(word.into(), 1),
            None => {}
        });
        forget_rare(words, MAX_WORDS);
    }

    /// Learns up to `add` new tokens. `progress` receives the size of the vocabulary now and then.
    ///
    /// # Errors
    /// When no text was added, the vocabulary would be too large, or `stop` was raised.
    pub fn finish(self, add: usize, progress: &dyn Fn(usize), stop: &AtomicBool) -> Result<Extended, TokenizerError> {
        let base = self.base;
        let size = base.vocab_size();
        if add == 0 || size.saturating_add(add) > MAX_VOCAB_SIZE {
            let rule = format!("from 1 to {}; write for example 4096", MAX_VOCAB_SIZE.saturating_sub(size));
            return Err(TokenizerError::Setting { key: "add", value: add.to_string(), rule });
        }
        if self.words.is_empty() {
            return Err(TokenizerError::NoText);
        }
        let distinct_words = self.words.len();
        let spell = |(word, count): (Box<str>, u64)| -> Result<(Vec<u32>, u64), TokenizerError> {
            let spelled: String = word.bytes().map(byte_to_char).collect();
            Ok((base.spell(&spelled)?, count))
        };
        let words = self.words.into_iter().map(spell).collect::<Result<Vec<_>, _>>()?;
        let Learned { merges, pieces } = learn(Task {
            words,
            pieces: (0..size as u32).map(|id| base.bytes_of(id)).collect(),
            first_id: 0,
            vocab_size: size + add,
            min_frequency: MIN_FREQUENCY,
            max_token_bytes: MAX_TOKEN_BYTES,
            progress,
            stop,
        })
        .ok_or(TokenizerError::Stopped)?;
        let report = ExtendReport { base: size, added: pieces.len() - size, distinct_words };
        Ok(Extended { files: render(base, &pieces, &merges)?, report })
    }
}

/// Leaves at most half of `most` words when there are more, the most frequent ones.
fn forget_rare(words: &mut AHashMap<Box<str>, u64>, most: usize) {
    if words.len() <= most {
        return;
    }
    let mut bar = 1;
    while words.len() > most / 2 {
        words.retain(|_, count| *count > bar);
        bar *= 2;
    }
}

impl Tokenizer {
    /// Ids of a piece as the vocabulary of another byte-level tokenizer spells it, which may be half a character.
    ///
    /// # Errors
    /// When the library fails.
    pub fn spell(&self, piece: &str) -> Result<Vec<u32>, TokenizerError> {
        let tokens = fenced("encode", || self.plain.get_model().tokenize(piece))?;
        Ok(tokens.iter().map(|token| token.id).collect())
    }

    /// Bytes that an id stands for; none for added tokens and unused ids, which take no part in merges.
    fn bytes_of(&self, id: u32) -> Vec<u8> {
        if self.library.get_added_tokens_decoder().contains_key(&id) {
            return Vec::new();
        }
        let bytes = self.piece(id).and_then(|piece| piece.chars().map(char_to_byte).collect::<Option<_>>());
        bytes.unwrap_or_default()
    }
}

/// The base's files with the new entries at the end of its vocabulary and merges.
fn render(base: &Tokenizer, pieces: &[Vec<u8>], merges: &[Pair]) -> Result<BTreeMap<String, Vec<u8>>, TokenizerError> {
    let malformed = |reason: &str| TokenizerError::Malformed { path: base.path.clone(), reason: reason.to_owned() };
    let mut json: Value =
        serde_json::from_slice(&read_limited(&base.path)?).map_err(|error| malformed(&error.to_string()))?;
    let spelled = |id: u32| -> String {
        let piece = pieces.get(id as usize).map(Vec::as_slice).unwrap_or_default();
        piece.iter().map(|&byte| byte_to_char(byte)).collect()
    };
    let vocabulary = json.pointer_mut("/model/vocab").and_then(Value::as_object_mut);
    let vocabulary = vocabulary.ok_or_else(|| malformed("there is no model.vocab"))?;
    for id in base.vocab_size()..pieces.len() {
        vocabulary.insert(spelled(id as u32), id.into());
    }
    let known = json.pointer_mut("/model/merges").and_then(Value::as_array_mut);
    let known = known.ok_or_else(|| malformed("there is no model.merges"))?;
    // Written as lists by newer versions of the library, as strings with a space by older ones.
    let as_lists = known.first().is_some_and(Value::is_array);
    let written = |&(a, b): &Pair| -> Value {
        if as_lists { vec![spelled(a), spelled(b)].into() } else { format!("{} {}", spelled(a), spelled(b)).into() }
    };
    // A merge that is written twice has the rank of the second, which would change what the first has made.
    let before: HashSet<String> = known.iter().map(Value::to_string).collect();
    known.extend(merges.iter().map(written).filter(|merge| !before.contains(&merge.to_string())));
    let mut all = BTreeMap::from([(files::TOKENIZER_FILE.to_owned(), format!("{json:#}\n").into_bytes())]);
    let folder = base.path.parent().unwrap_or_else(|| std::path::Path::new("."));
    for name in [files::CONFIG_FILE, files::SPECIAL_TOKENS_FILE, super::chat::CHAT_TEMPLATE_FILE] {
        let path = folder.join(name);
        if path.is_file() {
            all.insert(name.to_owned(), read_limited(&path)?);
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use proptest::prelude::*;

    use super::*;
    use crate::tokenizer::{TokenizerTrainer, TrainConfig};

    fn document(lang: &str, text: &str) -> Document {
        let id = crate::document::id_to_hex(&crate::document::document_id("test", text));
        let (text, source, licence) = (text.to_owned(), "test".into(), "CC0-1.0".into());
        Document { id, text, lang: lang.into(), source, licence, url: None, notes: None }
    }

    const OLD: &str = "le marché du village ouvre tôt le matin, et le pain du marché est bon";
    const NEW: &str = "السوق ديال الدوار كيحل بكري فالصباح والخبز ديال السوق بنين";

    fn trained(dir: &std::path::Path, name: &str, files: impl IntoIterator<Item = (String, Vec<u8>)>) -> Tokenizer {
        let folder = dir.join(name);
        std::fs::create_dir_all(&folder).unwrap();
        files.into_iter().for_each(|(name, bytes)| std::fs::write(folder.join(name), bytes).unwrap());
        Tokenizer::open(&folder).unwrap()
    }

    fn pair(dir: &std::path::Path) -> (Tokenizer, Tokenizer) {
        let bytes = [("fra_Latn".to_owned(), OLD.len() as u64)].into();
        let config = TrainConfig { vocab_size: 300, ..TrainConfig::default() };
        let mut trainer = TokenizerTrainer::new(&config, &bytes).unwrap();
        trainer.add(&document("fra_Latn", OLD));
        let files = trainer.finish(&|_| {}, &AtomicBool::new(false)).unwrap().files;
        let old = trained(dir, "old", files.into_iter().map(|(name, bytes)| (name.to_owned(), bytes)));
        let mut extender = TokenizerExtender::new(&old).unwrap();
        extender.add(&document("ary_Arab", NEW));
        extender.add(&document("ary_Arab", &format!("{NEW}. {OLD}")));
        let extended = extender.finish(40, &|_| {}, &AtomicBool::new(false)).unwrap();
        assert_eq!((extended.report.base, extended.report.added), (old.vocab_size(), 40));
        let new = trained(dir, "new", extended.files);
        (old, new)
    }

    #[test]
    fn old_ids_stay_and_new_text_gets_shorter() {
        let dir = tempfile::tempdir().unwrap();
        let (old, new) = pair(dir.path());
        assert_eq!(new.vocab_size(), old.vocab_size() + 40);
        for id in 0..old.vocab_size() as u32 {
            assert_eq!(old.piece(id), new.piece(id), "id {id}");
        }
        let len = |tokenizer: &Tokenizer, text: &str| tokenizer.encode(text, false).unwrap().len();
        assert!(len(&new, NEW) < len(&old, NEW) * 3 / 4, "{} of {}", len(&new, NEW), len(&old, NEW));
        assert!(len(&new, OLD) <= len(&old, OLD));
        // Every new token is spelled by old ones.
        for id in old.vocab_size()..new.vocab_size() {
            let piece = new.piece(id as u32).unwrap();
            let ids = old.spell(&piece).unwrap();
            let joined: String = ids.iter().map(|id| old.piece(*id).unwrap()).collect();
            assert_eq!(joined, piece);
        }
        assert_eq!(new.bos(), old.bos());
    }

    #[test]
    fn rare_words_are_forgotten_when_there_are_too_many() {
        let mut words: AHashMap<Box<str>, u64> = (0..10).map(|i| (format!("w{i}").into(), i + 1)).collect();
        forget_rare(&mut words, 10);
        assert_eq!(words.len(), 10);
        forget_rare(&mut words, 8);
        // Those seen more than once, more than twice, more than four... times: w8 and w9 have 9 and 10.
        let mut left: Vec<u64> = words.into_values().collect();
        left.sort_unstable();
        assert_eq!(left, [9, 10]);
    }

    #[test]
    fn nothing_to_learn_and_nothing_to_add_are_errors() {
        let dir = tempfile::tempdir().unwrap();
        let (old, _) = pair(dir.path());
        let never = AtomicBool::new(false);
        let empty = TokenizerExtender::new(&old).unwrap().finish(4, &|_| {}, &never);
        assert!(matches!(empty, Err(TokenizerError::NoText)));
        assert!(matches!(
            TokenizerExtender::new(&old).unwrap().finish(0, &|_| {}, &never),
            Err(TokenizerError::Setting { .. })
        ));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn any_text_survives_a_round_trip(text in "\\PC{0,60}") {
            thread_local!(static PAIR: (tempfile::TempDir, Tokenizer) = {
                let dir = tempfile::tempdir().unwrap();
                let new = pair(dir.path()).1;
                (dir, new)
            });
            let text = format!("{text} {NEW}");
            PAIR.with(|(_, new)| {
                let ids = new.encode(&text, false).unwrap();
                assert_eq!(new.decode(&ids, true).unwrap(), text);
            });
        }
    }
}
