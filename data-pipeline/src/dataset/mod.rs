//! Owns an open dataset: its manifest, components and the table of bytes a token stands for; never writes.

mod best_fit;
mod component;
mod error;
mod fitted;
mod join;
mod packing;
mod shard_log;
mod write;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::chat::config::ExcessLength;
use crate::manifest::{Manifest, Split, TOKEN_BYTES_FILE, TOKENIZER_FOLDER};
use crate::order::Stream;
use crate::shard::digest_of;
use crate::shard::reader::{ShardReader, check_size};
use crate::tokenizer::files::TOKENIZER_FILE;

pub use self::best_fit::TextPackingCounts;
pub(crate) use self::component::RowSlots;
pub use self::component::{Component, EachDocument, RowPart, Span, Window};
pub use self::error::DataError;
pub use self::fitted::PackingComparison;
pub use self::join::Part;
pub use self::packing::PackingCounts;
pub(crate) use self::shard_log::ShardLog;
pub(crate) use self::write::write;
pub use self::write::{ChatsToWrite, DatasetMeta, Group, WriteProgress, write_chats, write_dataset};

/// A dataset that `data prepare` wrote.
#[derive(Debug)]
pub struct Dataset {
    dir: PathBuf,
    id: String,
    manifest: Manifest,
    train: Vec<Component>,
    validation: Vec<Component>,
    token_bytes: Vec<u16>,
    /// Empty for one that was not joined.
    parts: Vec<Part>,
}

impl Dataset {
    /// Opens the dataset in `dir`. Lengths, types, heads and the manifest are checked, contents are not: that is
    /// [`crate::verify::verify`].
    ///
    /// # Errors
    /// A folder that holds no dataset, or one whose files do not fit its manifest.
    pub fn open(dir: &Path) -> Result<Self, DataError> {
        Self::open_with(dir, ExcessLength::default())
    }

    /// [`Dataset::open`], saying what becomes of samples that are longer than a row; of texts it says nothing.
    ///
    /// # Errors
    /// As [`Dataset::open`].
    pub fn open_with(dir: &Path, excess: ExcessLength) -> Result<Self, DataError> {
        let manifest = Manifest::read(dir)?;
        let mut train = Vec::new();
        let mut validation = Vec::new();
        for record in &manifest.shards {
            let reader = ShardReader::open(dir, record, manifest.dtype)?;
            let components = match record.split {
                Split::Train => &mut train,
                Split::Validation => &mut validation,
            };
            let chats = manifest.chat.as_ref().map(|_| excess);
            Component::place(components, record, reader, manifest.tokenizer.eos_id, chats);
        }
        for (name, record) in &manifest.tokenizer.files {
            check_size(&dir.join(TOKENIZER_FOLDER).join(name), record.bytes)?;
        }
        let token_bytes = read_token_bytes(dir, &manifest)?;
        let (dir, id) = (dir.to_owned(), manifest.id());
        Ok(Self { dir, id, manifest, train, validation, token_bytes, parts: Vec::new() })
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The DatasetId: hexadecimal BLAKE3 of the manifest.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The training components, in the order of the manifest.
    pub fn train(&self) -> &[Component] {
        &self.train
    }

    /// The held-out components, in the order of the manifest.
    pub fn validation(&self) -> &[Component] {
        &self.validation
    }

    /// UTF-8 bytes that each id stands for, `[vocab_size]`; 0 for special tokens.
    pub fn token_bytes(&self) -> &[u16] {
        &self.token_bytes
    }

    /// Largest id plus one.
    pub fn vocab_size(&self) -> usize {
        self.manifest.tokenizer.vocab_size
    }

    /// Folder of the tokenizer's files.
    pub fn tokenizer_folder(&self) -> PathBuf {
        self.dir.join(TOKENIZER_FOLDER)
    }

    /// Path of the tokenizer.json.
    pub fn tokenizer_file(&self) -> PathBuf {
        self.tokenizer_folder().join(TOKENIZER_FILE)
    }

    /// Refuses the dataset when it was made with another tokenizer than the one with this SHA-256.
    ///
    /// # Errors
    /// [`DataError::WrongTokenizer`].
    pub fn expect_tokenizer(&self, sha256: &str) -> Result<(), DataError> {
        let found = &self.manifest.tokenizer.sha256;
        if found == sha256 {
            return Ok(());
        }
        Err(DataError::WrongTokenizer { dir: self.dir.clone(), expected: sha256.to_owned(), found: found.clone() })
    }

    /// Refuses the dataset when a model with `vocab_size` embeddings cannot take all its ids.
    ///
    /// # Errors
    /// [`DataError::Vocabulary`].
    pub fn expect_vocab(&self, vocab_size: usize) -> Result<(), DataError> {
        if self.vocab_size() <= vocab_size {
            return Ok(());
        }
        Err(DataError::Vocabulary { dir: self.dir.clone(), dataset: self.vocab_size(), model: vocab_size })
    }

    /// What packing rows of `seq_len` tokens does with the samples of both splits; `None` of texts.
    ///
    /// # Errors
    /// [`DataError::TooLong`] when samples are longer than a row and `excess` is [`ExcessLength::Raise`].
    pub fn packing(&self, seq_len: usize, excess: ExcessLength) -> Result<Option<PackingCounts>, DataError> {
        if self.manifest.chat.is_none() {
            return Ok(None);
        }
        let mut sum = PackingCounts::default();
        for counts in self.train.iter().chain(&self.validation).filter_map(|c| c.packing_counts(seq_len)) {
            sum.samples += counts.samples;
            sum.truncated += counts.truncated;
            sum.dropped += counts.dropped;
            sum.rows += counts.rows;
            sum.tokens += counts.tokens;
            sum.longest = sum.longest.max(counts.longest);
        }
        if excess == ExcessLength::Raise && sum.dropped > 0 {
            let (dir, count, longest) = (self.dir.clone(), sum.dropped, sum.longest);
            return Err(DataError::TooLong { dir, count, sequence_len: seq_len, longest });
        }
        Ok(Some(sum))
    }

    /// What the mixture needs to know of the training components, in their order.
    pub fn streams(&self, seq_len: usize) -> Vec<Stream> {
        let stream = |component: &Component| Stream {
            lang: component.lang().to_owned(),
            source: component.source().to_owned(),
            rows: component.num_rows(seq_len),
            tokens: component.num_tokens(),
            text_bytes: component.num_text_bytes(),
            licences: BTreeMap::new(),
        };
        self.train.iter().map(stream).collect()
    }
}

/// Reads the table of bytes a token stands for; it is small, so its digest is checked as well.
fn read_token_bytes(dir: &Path, manifest: &Manifest) -> Result<Vec<u16>, DataError> {
    let path = dir.join(TOKEN_BYTES_FILE);
    let record = &manifest.token_bytes;
    check_size(&path, record.bytes)?;
    let found = digest_of(&path, &mut |_| {})?;
    if found.blake3 != record.blake3 {
        return Err(DataError::Digest { path, expected: record.blake3.clone(), found: found.blake3 });
    }
    let bytes = std::fs::read(&path).map_err(DataError::io(&path, "read"))?;
    Ok(bytes.as_chunks::<2>().0.iter().map(|pair| u16::from_le_bytes(*pair)).collect())
}
