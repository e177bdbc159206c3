//! Owns turning documents into a dataset on disk, in parallel and in order; never decides which documents or in what
//! order.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use rayon::prelude::*;

use super::error::DataError;
use super::shard_log::{Finished, ShardLog, Sums};
use crate::chat::{ChatEncoder, RecordKind, Sample, SampleError, TRAINED};
use crate::document::Document;
use crate::manifest::{
    ChatRecord, Counts, FileRecord, MANIFEST_FILE, Manifest, ManifestHead, ShardRecord, Split, TOKEN_BYTES_FILE,
    TOKENIZER_FOLDER, TokenizerRecord,
};
use crate::shard::format::Dtype;
use crate::shard::writer::{ShardKey, ShardWriter};
use crate::shard::{DigestedFile, sync_folder};
use crate::tokenizer::chat::CHAT_TEMPLATE_FILE;
use crate::tokenizer::files::{CONFIG_FILE, SPECIAL_TOKENS_FILE, TOKENIZER_FILE};
use crate::tokenizer::{DocumentEncoder, Tokenizer, TokenizerError};

/// Text encoded between two writes, in bytes, over all threads.
const CHUNK_BYTES: usize = 8 << 20;
/// Documents encoded between two writes; bounds the memory of many tiny ones.
const CHUNK_DOCUMENTS: usize = 1 << 16;
/// Text that a thread takes at a time, in bytes.
const TASK_BYTES: usize = 128 << 10;
/// Files beside a tokenizer.json that belong to it.
const TOKENIZER_COMPANIONS: [&str; 3] = [CONFIG_FILE, SPECIAL_TOKENS_FILE, CHAT_TEMPLATE_FILE];

/// The documents of one split, language and source, in their final order.
pub struct Group<D> {
    /// What they are for.
    pub split: Split,
    /// `ary_Arab`; all documents have it.
    pub lang: String,
    /// Corpus; all documents have it.
    pub source: String,
    /// The documents.
    pub documents: D,
}

/// What a dataset is beside its documents and tokenizer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatasetMeta {
    /// Digest of the configuration.
    pub config_digest: String,
    /// Seed of the documents' order.
    pub seed: u64,
    /// A shard is closed by the document that brings it to this many tokens.
    pub max_shard_tokens: u64,
}

/// How far writing has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WriteProgress {
    /// Sizes written so far.
    pub counts: Counts,
    /// Shards begun so far.
    pub shards: usize,
}

/// Writes a dataset into the empty folder `dir`: shards, the tokenizer's files, the table of bytes a token stands for,
/// and the manifest last. The bytes depend on the groups, the tokenizer and `meta` alone, not on the number of threads.
///
/// # Errors
/// A tokenizer without an end-of-text token, documents that cannot be read or encoded, a group handed over twice, a
/// disk that refuses, or `stop`. What was written so far stays.
pub fn write_dataset<D>(
    dir: &Path,
    groups: impl IntoIterator<Item = Group<D>>,
    tokenizer: &Tokenizer,
    meta: &DatasetMeta,
    observer: &dyn Fn(WriteProgress),
    stop: &AtomicBool,
) -> Result<Manifest, DataError>
where
    D: Iterator<Item = Result<Document, DataError>>,
{
    write(dir, groups, (tokenizer, None), meta, None, observer, stop)
}

/// Chats or preferences to be written: the text of a document is that of a [`Sample`].
#[derive(Clone, Copy)]
pub struct ChatsToWrite<'a> {
    /// Renders and encodes them.
    pub encoder: &'a ChatEncoder<'a>,
    /// Chats or preferences.
    pub kind: RecordKind,
}

/// [`write_dataset`] for chats: shards have marks beside their tokens, and the tokenizer's folder the chat template.
///
/// # Errors
/// As [`write_dataset`], and [`DataError::Sample`] for a sample that cannot be learned from.
pub fn write_chats<D>(
    dir: &Path,
    groups: impl IntoIterator<Item = Group<D>>,
    (tokenizer, chats): (&Tokenizer, ChatsToWrite<'_>),
    meta: &DatasetMeta,
    observer: &dyn Fn(WriteProgress),
    stop: &AtomicBool,
) -> Result<Manifest, DataError>
where
    D: Iterator<Item = Result<Document, DataError>>,
{
    write(dir, groups, (tokenizer, Some(chats)), meta, None, observer, stop)
}

/// [`write_dataset`] or [`write_chats`], behind the shards that `log` has: `groups` begin after their documents. Every
/// further shard is added to it.
pub(crate) fn write<D>(
    dir: &Path,
    groups: impl IntoIterator<Item = Group<D>>,
    (tokenizer, chats): (&Tokenizer, Option<ChatsToWrite<'_>>),
    meta: &DatasetMeta,
    mut log: Option<ShardLog>,
    observer: &dyn Fn(WriteProgress),
    stop: &AtomicBool,
) -> Result<Manifest, DataError>
where
    D: Iterator<Item = Result<Document, DataError>>,
{
    let eos = tokenizer.eos().ok_or_else(|| DataError::NoEndOfText { tokenizer: tokenizer.path().to_owned() })?;
    let dtype = Dtype::for_vocab(tokenizer.vocab_size());
    let Finished { shards, sums } = log.as_mut().map(|log| std::mem::take(&mut log.finished)).unwrap_or_default();
    let mut writer = Writer {
        dir,
        dtype,
        max_shard_tokens: meta.max_shard_tokens,
        encoders: Encoders { tokenizer, eos, idle: Mutex::new(Vec::new()), chats },
        observer,
        stop,
        begun: shards.len(),
        shards,
        sums,
        log,
    };
    let mut seen = BTreeSet::new();
    for Group { split, lang, source, documents } in groups {
        if !seen.insert((split, lang.clone(), source.clone())) {
            return Err(DataError::RepeatedGroup { split: split.name(), name: format!("{lang}/{source}") });
        }
        writer.group(&ShardKey { split, lang, source }, documents)?;
    }
    let Writer { shards, sums: Sums { licences, ends_of_turn, trained_tokens, .. }, .. } = writer;
    let head = ManifestHead {
        dtype,
        tokenizer: TokenizerRecord {
            sha256: tokenizer.digest().to_owned(),
            vocab_size: tokenizer.vocab_size(),
            bos_id: tokenizer.document_bos(),
            eos_id: eos,
            pad_id: tokenizer.pad(),
            files: copy_tokenizer(dir, tokenizer, chats)?,
        },
        token_bytes: write_token_bytes(dir, tokenizer)?,
        seed: meta.seed,
        config_digest: meta.config_digest.clone(),
    };
    let manifest = Manifest::new(head, licences, shards);
    let manifest = match chats {
        None => manifest,
        Some(ChatsToWrite { encoder, kind }) => manifest.with_chat(ChatRecord {
            kind,
            template_blake3: blake3::hash(encoder.template().source().as_bytes()).to_hex().to_string(),
            roles: encoder.roles().to_vec(),
            end_of_turn_ids: ends_of_turn.into_iter().collect(),
            trained_tokens,
        }),
    };
    sync_folder(dir)?;
    write_file(&dir.join(MANIFEST_FILE), &manifest.to_bytes())?;
    sync_folder(dir)?;
    Ok(manifest)
}

struct Writer<'a> {
    dir: &'a Path,
    dtype: Dtype,
    max_shard_tokens: u64,
    encoders: Encoders<'a>,
    observer: &'a dyn Fn(WriteProgress),
    stop: &'a AtomicBool,
    shards: Vec<ShardRecord>,
    /// Shards begun so far.
    begun: usize,
    sums: Sums,
    log: Option<ShardLog>,
}

impl Writer<'_> {
    fn group(
        &mut self,
        key: &ShardKey,
        documents: impl Iterator<Item = Result<Document, DataError>>,
    ) -> Result<(), DataError> {
        let mut documents = documents.peekable();
        let mut open: Option<ShardWriter> = None;
        while documents.peek().is_some() {
            let chunk = next_chunk(&mut documents)?;
            let encoded = self.encoders.encode(&chunk)?;
            self.sums.ends_of_turn.extend(encoded.iter().flat_map(|encoded| &encoded.ends_of_turn));
            for (document, (ids, marks)) in chunk.iter().zip(encoded.iter().flat_map(Encoded::documents)) {
                let shard = match &mut open {
                    Some(shard) => shard,
                    None => {
                        let number = self.begun;
                        self.begun += 1;
                        open.insert(ShardWriter::create(
                            self.dir,
                            number,
                            self.dtype,
                            key.clone(),
                            self.encoders.chats.is_some(),
                        )?)
                    }
                };
                shard.add(document, ids, marks)?;
                self.sums.trained_tokens += marks.iter().skip(1).filter(|&mark| mark & TRAINED != 0).count() as u64;
                let full = shard.num_tokens() >= self.max_shard_tokens;
                self.count(document, ids.len());
                if full && let Some(shard) = open.take() {
                    self.close(shard)?;
                }
            }
            (self.observer)(WriteProgress { counts: self.sums.counts, shards: self.begun });
            if self.stop.load(Ordering::Relaxed) {
                return Err(DataError::Stopped);
            }
        }
        open.map_or(Ok(()), |shard| self.close(shard))
    }

    /// Finishes a shard; from here on it need not be made again.
    fn close(&mut self, shard: ShardWriter) -> Result<(), DataError> {
        let record = shard.finish()?;
        if let Some(log) = &mut self.log {
            log.add(&record, &self.sums)?;
        }
        self.shards.push(record);
        Ok(())
    }

    fn count(&mut self, document: &Document, tokens: usize) {
        let counts = Counts { documents: 1, tokens: tokens as u64, text_bytes: document.text.len() as u64 };
        self.sums.counts.add(counts);
        match self.sums.licences.get_mut(&document.licence) {
            Some(sum) => sum.add(counts),
            None => _ = self.sums.licences.insert(document.licence.clone(), counts),
        }
    }
}

fn next_chunk(documents: &mut impl Iterator<Item = Result<Document, DataError>>) -> Result<Vec<Document>, DataError> {
    let (mut chunk, mut bytes) = (Vec::new(), 0);
    while bytes < CHUNK_BYTES && chunk.len() < CHUNK_DOCUMENTS {
        let Some(document) = documents.next().transpose()? else { break };
        bytes += document.text.len();
        chunk.push(document);
    }
    Ok(chunk)
}

/// Encoders that no thread is using. Whose cache a document meets decides nothing but speed.
struct Encoders<'a> {
    tokenizer: &'a Tokenizer,
    eos: u32,
    idle: Mutex<Vec<DocumentEncoder<'a>>>,
    chats: Option<ChatsToWrite<'a>>,
}

/// Documents encoded by one thread, end to end.
#[derive(Default)]
struct Encoded {
    ids: Vec<u32>,
    /// Marks of the ids; none of texts.
    marks: Vec<u8>,
    ends: Vec<usize>,
    ends_of_turn: BTreeSet<u32>,
}

impl Encoded {
    /// Ids and marks of each document.
    fn documents(&self) -> impl Iterator<Item = (&[u32], &[u8])> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        let part = |(start, &end): (usize, &usize)| {
            (self.ids.get(start..end).unwrap_or_default(), self.marks.get(start..end).unwrap_or_default())
        };
        starts.zip(&self.ends).map(part)
    }
}

impl Encoders<'_> {
    fn encode(&self, documents: &[Document]) -> Result<Vec<Encoded>, DataError> {
        let encode = |task| match self.chats {
            Some(chats) => encode_chats(task, chats.encoder),
            None => Ok(self.encode_task(task)?),
        };
        tasks(documents).into_par_iter().map(encode).collect()
    }

    fn encode_task(&self, documents: &[Document]) -> Result<Encoded, TokenizerError> {
        let idle = || self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = idle().pop();
        let mut encoder = taken.unwrap_or_else(|| self.tokenizer.document_encoder());
        let mut encoded = Encoded::default();
        for document in documents {
            encoded.ids.extend(self.tokenizer.document_bos());
            encoder.encode(&document.text, &mut encoded.ids)?;
            encoded.ids.push(self.eos);
            encoded.ends.push(encoded.ids.len());
        }
        idle().push(encoder);
        Ok(encoded)
    }
}

fn encode_chats(documents: &[Document], encoder: &ChatEncoder<'_>) -> Result<Encoded, DataError> {
    let mut encoded = Encoded::default();
    for document in documents {
        let wrong = |beginning: String| {
            let (id, group) = (document.id.clone(), format!("{}/{}", document.lang, document.source));
            move |problem: SampleError| DataError::Sample { id, group, beginning, problem: Box::new(problem) }
        };
        let sample = Sample::from_text(&document.text).map_err(SampleError::from).map_err(wrong(String::new()))?;
        let one = encoder.encode(&sample, &mut encoded.ends_of_turn).map_err(wrong(sample.beginning()))?;
        encoded.ids.extend(one.ids);
        encoded.marks.extend(one.marks);
        encoded.ends.push(encoded.ids.len());
    }
    Ok(encoded)
}

/// Cuts documents into runs of about [`TASK_BYTES`].
fn tasks(documents: &[Document]) -> Vec<&[Document]> {
    let mut tasks = Vec::new();
    let mut rest = documents;
    while !rest.is_empty() {
        let mut bytes = 0;
        let fits = |document: &&Document| {
            let room = bytes < TASK_BYTES;
            bytes += document.text.len();
            room
        };
        let count = rest.iter().take_while(fits).count().max(1);
        let (task, tail) = rest.split_at_checked(count).unwrap_or((rest, &[]));
        tasks.push(task);
        rest = tail;
    }
    tasks
}

fn copy_tokenizer(
    dir: &Path,
    tokenizer: &Tokenizer,
    chats: Option<ChatsToWrite<'_>>,
) -> Result<BTreeMap<String, FileRecord>, DataError> {
    let folder = dir.join(TOKENIZER_FOLDER);
    std::fs::create_dir(&folder).map_err(DataError::io(&folder, "created"))?;
    let mut files = BTreeMap::new();
    let from = tokenizer.path().parent().unwrap_or_else(|| Path::new("."));
    let companions =
        TOKENIZER_COMPANIONS.iter().map(|name| (*name, from.join(name))).filter(|(_, path)| path.is_file());
    let template = chats.map(|chats| chats.encoder.template().source());
    for (name, path) in std::iter::once((TOKENIZER_FILE, tokenizer.path().to_owned())).chain(companions) {
        if name == CHAT_TEMPLATE_FILE && template.is_some() {
            continue;
        }
        let bytes = std::fs::read(&path).map_err(DataError::io(&path, "read"))?;
        files.insert(name.to_owned(), write_file(&folder.join(name), &bytes)?);
    }
    if let Some(template) = template {
        let record = write_file(&folder.join(CHAT_TEMPLATE_FILE), template.as_bytes())?;
        files.insert(CHAT_TEMPLATE_FILE.to_owned(), record);
    }
    sync_folder(&folder)?;
    Ok(files)
}

fn write_token_bytes(dir: &Path, tokenizer: &Tokenizer) -> Result<FileRecord, DataError> {
    let bytes: Vec<u8> = tokenizer.token_bytes().into_iter().flat_map(u16::to_le_bytes).collect();
    write_file(&dir.join(TOKEN_BYTES_FILE), &bytes)
}

fn write_file(path: &Path, bytes: &[u8]) -> Result<FileRecord, DataError> {
    let mut file = DigestedFile::create(path)?;
    file.put(bytes)?;
    file.finish()
}
