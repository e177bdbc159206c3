//! Owns exact deduplication: which documents of a language share a key form; never touches files.

use std::hash::Hasher;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::normalize::key_form;

/// Which documents count as duplicates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Dedup {
    /// Keep the first of the documents of a language that have the same key form (see [`crate::normalize::key_form`]).
    #[default]
    Exact,
    /// Keep them all.
    None,
}

/// Digest of a document's key form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyDigest {
    /// Decides equality.
    pub key: u128,
    /// Decides between training and validation; independent of `key`.
    pub split: u64,
}

impl KeyDigest {
    /// Digests the key form of `text`; `buffer` is scratch space.
    pub fn of(text: &str, buffer: &mut String) -> KeyDigest {
        key_form(text, buffer);
        let mut bytes = [0; 24];
        blake3::Hasher::new().update(buffer.as_bytes()).finalize_xof().fill(&mut bytes);
        let mut key = [0; 16];
        let mut split = [0; 8];
        key.copy_from_slice(&bytes[..16]);
        split.copy_from_slice(&bytes[16..]);
        KeyDigest { key: u128::from_le_bytes(key), split: u64::from_le_bytes(split) }
    }
}

/// Takes the low half of a value that is a digest already.
#[derive(Debug, Default)]
pub struct AlreadyHashed(u64);

impl Hasher for AlreadyHashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(byte);
        }
    }

    fn write_u128(&mut self, value: u128) {
        self.0 = value as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(text: &str) -> KeyDigest {
        KeyDigest::of(text, &mut String::new())
    }

    #[test]
    fn the_split_does_not_follow_the_key() {
        let (a, b) = (digest("a"), digest("b"));
        assert_ne!(a.split, b.split);
        assert_ne!(a.key as u64, a.split);
    }
}
