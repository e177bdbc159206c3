//! Owns the memory maps of one shard and reading tokens and document bounds from them; never writes.

use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::path::{Path, PathBuf};

use memmap2::Mmap;

use super::format::{self, Dtype, END_BYTES, ENDS, MARKS, MEGATRON_HEADER_BYTES, MEGATRON_INDEX, SIDECAR, TOKENS};
use crate::dataset::DataError;
use crate::manifest::ShardRecord;

/// An open shard.
#[derive(Debug)]
pub struct ShardReader {
    dir: PathBuf,
    name: String,
    dtype: Dtype,
    num_tokens: u64,
    num_documents: u64,
    tokens: Mmap,
    ends: Mmap,
    /// Of chats only.
    marks: Option<Mmap>,
}

impl ShardReader {
    /// Opens a shard after checking that all its files have the lengths of the manifest and fitting heads.
    ///
    /// # Errors
    /// A missing, shorter, longer or contradicting file.
    pub fn open(dir: &Path, record: &ShardRecord, dtype: Dtype) -> Result<Self, DataError> {
        let path = |ending: &str| dir.join(format!("{}.{ending}", record.name));
        for (ending, file) in &record.files {
            check_size(&path(ending), file.bytes)?;
        }
        let content = |path: PathBuf, reason: String| DataError::Content { path, reason };
        check_index_head(&path(MEGATRON_INDEX), dtype, record.documents)?;
        let (tokens, ends) = (map(&path(TOKENS))?, map(&path(ENDS))?);
        let marks = record.files.contains_key(MARKS).then(|| map(&path(MARKS))).transpose()?;
        let reader = Self {
            dir: dir.to_owned(),
            name: record.name.clone(),
            dtype,
            num_tokens: record.tokens,
            num_documents: record.documents,
            tokens,
            ends,
            marks,
        };
        let last = reader.end_of(record.documents - 1);
        if last != record.tokens {
            let reason = format!("ends the last document at token {last}, the shard has {}", record.tokens);
            return Err(content(path(ENDS), reason));
        }
        Ok(reader)
    }

    /// Path of one of the shard's files.
    pub fn path(&self, ending: &str) -> PathBuf {
        self.dir.join(format!("{}.{ending}", self.name))
    }

    /// Path of the table of documents.
    pub fn sidecar(&self) -> PathBuf {
        self.path(SIDECAR)
    }

    /// Tokens.
    pub fn num_tokens(&self) -> u64 {
        self.num_tokens
    }

    /// Documents.
    pub fn num_documents(&self) -> u64 {
        self.num_documents
    }

    /// Copies tokens from position `start` on into `out`, as many as both hold; returns how many.
    pub fn read(&self, start: u64, out: &mut [u32]) -> usize {
        let count = (self.num_tokens.saturating_sub(start)).min(out.len() as u64) as usize;
        let from = start as usize * self.dtype.width();
        let bytes = self.tokens.get(from..from + count * self.dtype.width()).unwrap_or_default();
        self.dtype.read(bytes, out);
        count
    }

    /// Marks of tokens from position `start` on, as many as `count` and the shard have; none in a shard of texts.
    pub fn marks(&self, start: u64, count: usize) -> &[u8] {
        let marks = self.marks.as_deref().unwrap_or_default();
        let from = usize::try_from(start).map_or(marks.len(), |start| start.min(marks.len()));
        let end = from.saturating_add(count).min(marks.len());
        marks.get(from..end).unwrap_or_default()
    }

    /// Where a document ends, in tokens; the last document's end for numbers past it.
    pub fn end_of(&self, document: u64) -> u64 {
        let at = document.min(self.num_documents - 1) as usize * END_BYTES;
        let bytes = self.ends.get(at..at + END_BYTES).and_then(|bytes| bytes.try_into().ok());
        // A damaged list must not lead outside the shard.
        bytes.map_or(self.num_tokens, u64::from_le_bytes).min(self.num_tokens)
    }

    /// Tokens of a document.
    pub fn document(&self, document: u64) -> Range<u64> {
        let start = if document == 0 { 0 } else { self.end_of(document - 1) };
        start..self.end_of(document).max(start)
    }

    /// The document that token `position` belongs to, by binary search.
    pub fn document_at(&self, position: u64) -> u64 {
        let (mut low, mut high) = (0, self.num_documents - 1);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.end_of(middle) > position {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        low
    }
}

/// Checks that a file is there and has this many bytes.
pub(crate) fn check_size(path: &Path, expected: u64) -> Result<(), DataError> {
    let found = match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => metadata.len(),
        Ok(_) => return Err(DataError::Missing { path: path.to_owned() }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(DataError::Missing { path: path.to_owned() });
        }
        Err(error) => return Err(DataError::io(path, "read")(error)),
    };
    if found == expected { Ok(()) } else { Err(DataError::Size { path: path.to_owned(), expected, found }) }
}

fn check_index_head(path: &Path, dtype: Dtype, documents: u64) -> Result<(), DataError> {
    let mut head = Vec::new();
    let file = File::open(path).map_err(DataError::io(path, "read"))?;
    file.take(MEGATRON_HEADER_BYTES as u64).read_to_end(&mut head).map_err(DataError::io(path, "read"))?;
    format::check_megatron_header(&head, dtype, documents)
        .map_err(|reason| DataError::Content { path: path.to_owned(), reason })
}

fn map(path: &Path) -> Result<Mmap, DataError> {
    let file = File::open(path).map_err(DataError::io(path, "read"))?;
    // SAFETY: the map is read-only and private to this process, and shards are never changed once published: they are
    // written under another name and renamed. Bytes are only ever copied out as plain integers, all of whose bit
    // patterns are valid, so even a file changed from outside can give wrong numbers but no invalid value.
    unsafe { Mmap::map(&file) }.map_err(DataError::io(path, "mapped"))
}
