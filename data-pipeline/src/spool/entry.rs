//! Owns what is known of one document between the stages and its form on disk; never touches files.

use serde::{Deserialize, Serialize};

use crate::document::DOCUMENT_ID_BYTES;

/// Size of an entry in bytes.
pub(crate) const ENTRY_BYTES: usize = 80;

/// A language and source.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct Group {
    pub lang: String,
    pub source: String,
}

/// Where a document lies and what is known of it. Numbers of segments, groups and licences are those of a part in the
/// part's own index, and those of the whole spool everywhere else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    pub offset: u64,
    pub id: [u8; DOCUMENT_ID_BYTES],
    /// Decides between training and validation.
    pub split: u64,
    /// Decides which documents are equal.
    pub key: u128,
    pub segment: u32,
    pub group: u32,
    pub licence: u32,
    /// Input file it came from.
    pub file: u32,
    /// The content is the address, the text and the notes end to end.
    pub url_len: u32,
    pub text_len: u32,
    pub notes_len: u32,
    /// Words of the text, as far as 32 bits hold them.
    pub words: u32,
}

impl Entry {
    pub fn to_bytes(self) -> [u8; ENTRY_BYTES] {
        let mut out = [0; ENTRY_BYTES];
        let (head, tail) = out.split_at_mut(48);
        head[..8].copy_from_slice(&self.offset.to_le_bytes());
        head[8..24].copy_from_slice(&self.id);
        head[24..32].copy_from_slice(&self.split.to_le_bytes());
        head[32..].copy_from_slice(&self.key.to_le_bytes());
        let numbers = [
            self.segment,
            self.group,
            self.licence,
            self.file,
            self.url_len,
            self.text_len,
            self.notes_len,
            self.words,
        ];
        for (place, value) in tail.chunks_exact_mut(4).zip(numbers) {
            place.copy_from_slice(&value.to_le_bytes());
        }
        out
    }

    pub fn from_bytes(bytes: &[u8; ENTRY_BYTES]) -> Entry {
        let u64_at = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
        let u32_at = |at: usize| u32::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
        Entry {
            offset: u64_at(0),
            id: std::array::from_fn(|i| bytes[8 + i]),
            split: u64_at(24),
            key: u128::from_le_bytes(std::array::from_fn(|i| bytes[32 + i])),
            segment: u32_at(48),
            group: u32_at(52),
            licence: u32_at(56),
            file: u32_at(60),
            url_len: u32_at(64),
            text_len: u32_at(68),
            notes_len: u32_at(72),
            words: u32_at(76),
        }
    }

    /// Bytes of address, text and notes.
    pub fn content_len(&self) -> usize {
        self.url_len as usize + self.text_len as usize + self.notes_len as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn entries_round_trip(offset: u64, id: [u8; 16], split: u64, key: u128, numbers: [u32; 8]) {
            let [segment, group, licence, file, url_len, text_len, notes_len, words] = numbers;
            let entry = Entry { offset, id, split, key, segment, group, licence, file, url_len, text_len, notes_len, words };
            prop_assert_eq!(Entry::from_bytes(&entry.to_bytes()), entry);
        }
    }
}
