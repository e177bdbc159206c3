//! Owns several prepared datasets as one: their components side by side, under one identity; never mixes their rows.
//!
//! A run that continues a model replays a part of what the model knows beside the new data. The parts keep their own
//! shards; what the joined dataset is, is the digest of what they are, in their order.

use std::path::PathBuf;

use super::{DataError, Dataset};
use crate::chat::config::RecordKind;
use crate::manifest::Counts;

/// A dataset inside a joined one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Its folder.
    pub dir: PathBuf,
    /// Its own identity.
    pub id: String,
    /// Its training components, which stand one after another among those of the joined dataset.
    pub streams: usize,
}

impl Dataset {
    /// Joins datasets that were made with the same tokenizer; one alone stays what it is.
    ///
    /// # Errors
    /// [`DataError::WrongTokenizer`] names the first that was made with another; no dataset at all.
    pub fn join(datasets: Vec<Self>) -> Result<Self, DataError> {
        let mut datasets = datasets.into_iter();
        let Some(mut joined) = datasets.next() else {
            return Err(DataError::OutOfRange { what: "dataset", number: 0, of: "the list".to_owned(), available: 0 });
        };
        let mut parts = vec![joined.as_part()];
        for other in datasets {
            other.expect_tokenizer(&joined.manifest.tokenizer.sha256)?;
            other.expect_same_kind(&joined)?;
            parts.push(other.as_part());
            let manifest = &mut joined.manifest;
            let sums = [
                (&mut manifest.languages, other.manifest.languages),
                (&mut manifest.licences, other.manifest.licences),
            ];
            for (sum, own) in sums {
                own.into_iter().for_each(|(name, counts)| sum.entry(name).or_insert_with(Counts::default).add(counts));
            }
            manifest.shards.extend(other.manifest.shards);
            joined.train.extend(other.train);
            joined.validation.extend(other.validation);
        }
        if parts.len() > 1 {
            let mut hasher = blake3::Hasher::new_derive_key("jazari joined dataset");
            parts.iter().for_each(|part| _ = hasher.update(part.id.as_bytes()));
            joined.id = hasher.finalize().to_hex().to_string();
        }
        joined.parts = parts;
        Ok(joined)
    }

    /// The datasets it was joined of; itself, when there was but one.
    pub fn parts(&self) -> Vec<Part> {
        if self.parts.is_empty() { vec![self.as_part()] } else { self.parts.clone() }
    }

    /// Loss masks and objectives belong to a whole run.
    fn expect_same_kind(&self, other: &Self) -> Result<(), DataError> {
        let (found, expected) = (self.kind(), other.kind());
        if found == expected {
            return Ok(());
        }
        Err(DataError::OtherKind { dir: self.dir.clone(), found, other: other.dir.clone(), expected })
    }

    fn kind(&self) -> &'static str {
        match self.manifest.chat.as_ref().map(|chat| chat.kind) {
            None | Some(RecordKind::Text) => "texts",
            Some(RecordKind::Chat) => "chats",
            Some(RecordKind::Preference) => "preferences",
        }
    }

    fn as_part(&self) -> Part {
        Part { dir: self.dir.clone(), id: self.id.clone(), streams: self.train.len() }
    }
}
