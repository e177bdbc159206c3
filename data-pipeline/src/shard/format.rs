//! Owns the byte layout of shard files; never opens them.
//!
//! `shard-00000.bin` holds raw little-endian tokens, documents end to end. Beside it lie two indices of the same
//! documents: `.bin.index`, one little-endian u64 a document, where it ends in tokens (datatrove
//! `pipeline/tokens/tokenizer.py`); and `.idx` (Megatron-LM `megatron/core/datasets/indexed_dataset.py`): the magic
//! `MMIDIDX\0\0`, u64 version 1, u8 type of a token, u64 number of sequences, u64 length of the document list, i32
//! length of each sequence, i64 byte offset of each sequence, i64 document list (here every sequence is a document:
//! 0, 1, ... n). Shards of chats have a fifth file, `.marks`, one byte a token: bit 0 where its loss counts, bit 1 where
//! it belongs to the rejected answer of a preference.

use serde::{Deserialize, Serialize};

/// First bytes of an `.idx` file.
pub const MEGATRON_MAGIC: &[u8; 9] = b"MMIDIDX\0\0";
/// Version of the `.idx` layout.
pub const MEGATRON_VERSION: u64 = 1;
/// Bytes of an `.idx` file before its lists.
pub const MEGATRON_HEADER_BYTES: usize = 34;
/// Bytes of an entry of `.bin.index`.
pub const END_BYTES: usize = 8;

/// Ending of the token file.
pub const TOKENS: &str = "bin";
/// Ending of the Megatron index.
pub const MEGATRON_INDEX: &str = "idx";
/// Ending of the list of document ends.
pub const ENDS: &str = "bin.index";
/// Ending of the table of documents.
pub const SIDECAR: &str = "parquet";
/// Ending of the marks of chats: one byte a token.
pub const MARKS: &str = "marks";
/// All endings of a shard's files.
pub const ENDINGS: [&str; 4] = [TOKENS, MEGATRON_INDEX, ENDS, SIDECAR];
/// All endings of the files of a shard of chats.
pub const CHAT_ENDINGS: [&str; 5] = [TOKENS, MEGATRON_INDEX, ENDS, MARKS, SIDECAR];

/// The endings of a shard's files.
pub fn endings(chats: bool) -> &'static [&'static str] {
    if chats { &CHAT_ENDINGS } else { &ENDINGS }
}

/// Type of a stored token, little-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    /// Two bytes, for vocabularies of up to 65,536.
    Uint16,
    /// Four bytes. Ids stay below 2^31, so that readers which know only int32 read the same numbers.
    Uint32,
}

impl Dtype {
    /// The smallest type for a vocabulary.
    pub fn for_vocab(vocab_size: usize) -> Self {
        if vocab_size <= 1 << 16 { Self::Uint16 } else { Self::Uint32 }
    }

    /// Bytes of a token.
    pub fn width(self) -> usize {
        match self {
            Self::Uint16 => 2,
            Self::Uint32 => 4,
        }
    }

    /// Megatron's code: 8 for uint16, 4 for int32, whose bytes are those of uint32 below 2^31.
    pub fn megatron_code(self) -> u8 {
        match self {
            Self::Uint16 => 8,
            Self::Uint32 => 4,
        }
    }

    /// The name in manifests.
    pub fn name(self) -> &'static str {
        match self {
            Self::Uint16 => "uint16",
            Self::Uint32 => "uint32",
        }
    }

    /// Appends the bytes of `ids` to `out`. Ids fit by construction: the type was chosen for the vocabulary.
    pub fn write(self, ids: &[u32], out: &mut Vec<u8>) {
        match self {
            Self::Uint16 => ids.iter().for_each(|&id| out.extend_from_slice(&(id as u16).to_le_bytes())),
            Self::Uint32 => ids.iter().for_each(|id| out.extend_from_slice(&id.to_le_bytes())),
        }
    }

    /// Reads tokens from `bytes` into `out`, as many as both hold.
    pub fn read(self, bytes: &[u8], out: &mut [u32]) {
        match self {
            Self::Uint16 => {
                let (tokens, _) = bytes.as_chunks::<2>();
                out.iter_mut().zip(tokens).for_each(|(out, token)| *out = u32::from(u16::from_le_bytes(*token)));
            }
            Self::Uint32 => {
                let (tokens, _) = bytes.as_chunks::<4>();
                out.iter_mut().zip(tokens).for_each(|(out, token)| *out = u32::from_le_bytes(*token));
            }
        }
    }
}

/// Name of the `number`-th shard, without an ending.
pub fn shard_name(number: usize) -> String {
    format!("shard-{number:05}")
}

/// Whether `name` is one that [`shard_name`] gives, so that joining it to a folder stays inside.
pub fn is_shard_name(name: &str) -> bool {
    let digits = name.strip_prefix("shard-").unwrap_or_default();
    digits.len() >= 5 && digits.bytes().all(|b| b.is_ascii_digit())
}

/// The number of a shard, from its name.
pub fn shard_number(name: &str) -> Option<usize> {
    if is_shard_name(name) { name.strip_prefix("shard-")?.parse().ok() } else { None }
}

/// Length of an `.idx` file of `documents` documents.
pub fn megatron_index_bytes(documents: u64) -> u64 {
    MEGATRON_HEADER_BYTES as u64 + documents * 12 + (documents + 1) * 8
}

/// The `.idx` file of documents with these lengths in tokens, piece by piece.
pub fn megatron_index(dtype: Dtype, lengths: &[i32], mut put: impl FnMut(&[u8])) {
    let count = lengths.len() as u64;
    put(MEGATRON_MAGIC);
    put(&MEGATRON_VERSION.to_le_bytes());
    put(&[dtype.megatron_code()]);
    put(&count.to_le_bytes());
    put(&(count + 1).to_le_bytes());
    lengths.iter().for_each(|length| put(&length.to_le_bytes()));
    let mut offset = 0_i64;
    for length in lengths {
        put(&offset.to_le_bytes());
        offset += i64::from(*length) * dtype.width() as i64;
    }
    (0..=count as i64).for_each(|document| put(&document.to_le_bytes()));
}

/// Checks the head of an `.idx` file against what the manifest says.
///
/// # Errors
/// What differs, as a clause about the file.
pub fn check_megatron_header(bytes: &[u8], dtype: Dtype, documents: u64) -> Result<(), String> {
    let (head, rest) = bytes.split_at_checked(MEGATRON_MAGIC.len()).unwrap_or((bytes, &[]));
    if head != MEGATRON_MAGIC {
        return Err("is no Megatron index (it does not begin with MMIDIDX)".to_owned());
    }
    let u64_at = |at: usize| {
        let bytes = rest.get(at..at + 8).and_then(|bytes| bytes.try_into().ok());
        bytes.map(u64::from_le_bytes).ok_or_else(|| "ends inside its header".to_owned())
    };
    let version = u64_at(0)?;
    if version != MEGATRON_VERSION {
        return Err(format!("has index version {version}, expected {MEGATRON_VERSION}"));
    }
    let code = rest.get(8).copied().unwrap_or(0);
    if code != dtype.megatron_code() {
        return Err(format!(
            "has tokens of type {code}, the manifest says {} (type {})",
            dtype.name(),
            dtype.megatron_code()
        ));
    }
    for (what, at, expected) in [("sequences", 9, documents), ("document bounds", 17, documents + 1)] {
        let found = u64_at(at)?;
        if found != expected {
            return Err(format!("lists {found} {what}, expected {expected}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_megatron_index_is_byte_for_byte_as_documented() {
        let mut bytes = Vec::new();
        megatron_index(Dtype::Uint16, &[3, 2], |part| bytes.extend_from_slice(part));
        let mut expected = b"MMIDIDX\0\0".to_vec();
        expected.extend([1, 0, 0, 0, 0, 0, 0, 0, 8, 2, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0]);
        expected.extend([3, 0, 0, 0, 2, 0, 0, 0]);
        for value in [0_i64, 6, 0, 1, 2] {
            expected.extend(value.to_le_bytes());
        }
        assert_eq!(bytes, expected);
        assert_eq!(bytes.len() as u64, megatron_index_bytes(2));
        assert_eq!(check_megatron_header(&bytes, Dtype::Uint16, 2), Ok(()));
    }

    #[test]
    fn headers_that_differ_say_how() {
        let mut bytes = Vec::new();
        megatron_index(Dtype::Uint16, &[3, 2], |part| bytes.extend_from_slice(part));
        let check =
            |bytes: &[u8], dtype, documents| check_megatron_header(bytes, dtype, documents).err().unwrap_or_default();
        assert_eq!(check(&bytes, Dtype::Uint32, 2), "has tokens of type 8, the manifest says uint32 (type 4)");
        assert_eq!(check(&bytes, Dtype::Uint16, 3), "lists 2 sequences, expected 3");
        assert_eq!(check(b"MMIDIDX", Dtype::Uint16, 2), "is no Megatron index (it does not begin with MMIDIDX)");
        assert_eq!(check(&bytes[..30], Dtype::Uint16, 2), "ends inside its header");
        bytes[9] = 2;
        assert_eq!(check(&bytes, Dtype::Uint16, 2), "has index version 2, expected 1");
    }

    #[test]
    fn tokens_round_trip_in_both_types() {
        for (dtype, ids) in [(Dtype::Uint16, [0, 258, 65_535]), (Dtype::Uint32, [0, 65_536, (1 << 31) - 1])] {
            let mut bytes = Vec::new();
            dtype.write(&ids, &mut bytes);
            assert_eq!(bytes.len(), 3 * dtype.width());
            let mut back = [9; 4];
            dtype.read(&bytes, &mut back);
            assert_eq!(back, [ids[0], ids[1], ids[2], 9]);
        }
        assert_eq!((Dtype::for_vocab(65_536), Dtype::for_vocab(65_537)), (Dtype::Uint16, Dtype::Uint32));
    }

    #[test]
    fn only_our_own_names_are_shard_names() {
        assert!(is_shard_name(&shard_name(0)) && is_shard_name(&shard_name(123_456)));
        assert!(!is_shard_name("../shard-00000") && !is_shard_name("shard-0") && !is_shard_name("shard-0000x"));
    }
}
