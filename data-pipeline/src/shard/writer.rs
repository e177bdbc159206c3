//! Owns writing one shard: tokens, indices and table together; never decides what goes in.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::file::DigestedFile;
use super::format::{self, Dtype, ENDS, MARKS, MEGATRON_INDEX, SIDECAR, TOKENS, shard_name};
use super::sidecar::{DocumentFacts, SidecarWriter};
use crate::dataset::DataError;
use crate::document::Document;
use crate::manifest::{Counts, FileRecord, ShardRecord, Split};

/// What all documents of a shard have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ShardKey {
    pub split: Split,
    pub lang: String,
    pub source: String,
}

/// Appends documents to the files of one shard.
pub(crate) struct ShardWriter {
    dir: PathBuf,
    name: String,
    key: ShardKey,
    dtype: Dtype,
    tokens: DigestedFile,
    ends: DigestedFile,
    sidecar: SidecarWriter,
    /// Of chats only.
    marks: Option<DigestedFile>,
    lengths: Vec<i32>,
    counts: Counts,
    buffer: Vec<u8>,
}

impl ShardWriter {
    /// Creates the `number`-th shard in `dir`, of `chats` or of texts.
    pub fn create(dir: &Path, number: usize, dtype: Dtype, key: ShardKey, chats: bool) -> Result<Self, DataError> {
        let name = shard_name(number);
        let path = |ending: &str| dir.join(format!("{name}.{ending}"));
        Ok(Self {
            tokens: DigestedFile::create(&path(TOKENS))?,
            ends: DigestedFile::create(&path(ENDS))?,
            sidecar: SidecarWriter::create(&path(SIDECAR))?,
            marks: chats.then(|| DigestedFile::create(&path(MARKS))).transpose()?,
            dir: dir.to_owned(),
            name,
            key,
            dtype,
            lengths: Vec::new(),
            counts: Counts::default(),
            buffer: Vec::new(),
        })
    }

    /// Tokens written so far.
    pub fn num_tokens(&self) -> u64 {
        self.counts.tokens
    }

    /// Appends a document with its tokens, BOS and EOS included; of a chat with the marks of its tokens.
    pub fn add(&mut self, document: &Document, ids: &[u32], marks: &[u8]) -> Result<(), DataError> {
        self.put(&document.id, document.text.len() as u64, ids, marks)?;
        self.sidecar.add(document, ids.len() as u64)
    }

    /// Appends a document of another shard, of which only the facts are at hand.
    pub fn add_facts(&mut self, facts: &DocumentFacts, ids: &[u32], marks: &[u8]) -> Result<(), DataError> {
        self.put(&facts.id, facts.text_bytes, ids, marks)?;
        self.sidecar.add_facts(facts)
    }

    fn put(&mut self, id: &str, text_bytes: u64, ids: &[u32], marks: &[u8]) -> Result<(), DataError> {
        let too_long = |_| DataError::DocumentTooLong { id: id.to_owned(), tokens: ids.len() };
        self.lengths.push(i32::try_from(ids.len()).map_err(too_long)?);
        self.buffer.clear();
        self.dtype.write(ids, &mut self.buffer);
        self.tokens.put(&self.buffer)?;
        if let Some(file) = &mut self.marks {
            file.put(marks)?;
        }
        self.counts.add(Counts { documents: 1, tokens: ids.len() as u64, text_bytes });
        self.ends.put(&self.counts.tokens.to_le_bytes())
    }

    /// Writes the index and makes all files durable.
    pub fn finish(self) -> Result<ShardRecord, DataError> {
        let mut index = DigestedFile::create(&self.dir.join(format!("{}.{MEGATRON_INDEX}", self.name)))?;
        let mut result = Ok(());
        format::megatron_index(self.dtype, &self.lengths, |bytes| {
            if result.is_ok() {
                result = index.put(bytes);
            }
        });
        result?;
        let mut files: BTreeMap<String, FileRecord> = BTreeMap::from([
            (TOKENS.to_owned(), self.tokens.finish()?),
            (ENDS.to_owned(), self.ends.finish()?),
            (SIDECAR.to_owned(), self.sidecar.finish()?),
            (MEGATRON_INDEX.to_owned(), index.finish()?),
        ]);
        if let Some(marks) = self.marks {
            files.insert(MARKS.to_owned(), marks.finish()?);
        }
        let ShardKey { split, lang, source } = self.key;
        let Counts { documents, tokens, text_bytes } = self.counts;
        Ok(ShardRecord { name: self.name, split, lang, source, documents, tokens, text_bytes, files })
    }
}
