//! Owns the documents between reading and tokenising: files on disk, checked before they are used; never decides what
//! goes in.
//!
//! Reading writes [`PartState`]s, each the documents of a few input files in segments. The dedup stage writes the final
//! index over them: one fixed-size entry for each document that is kept, in the order read. Texts stay where they are.

mod entry;
mod part;
mod segment;

pub(crate) use entry::{ENTRY_BYTES, Entry, Group};
pub(crate) use part::{Next, PartState, PartWriter};
pub(crate) use segment::{EntryReader, segment_file};

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::document::{Document, Notes, id_to_hex};
use crate::stats::Stats;
use segment::{Digested, digest_of};

const SPOOL_VERSION: u32 = 2;
const INDEX_FILE: &str = "documents.idx";
const SPOOL_FILE: &str = "spool.json";
/// Segments that are kept open.
const MAX_OPEN_FILES: usize = 256;

/// Everything but the documents themselves.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct SpoolManifest {
    version: u32,
    /// What the documents depend on: configuration and input files.
    pub key: String,
    pub groups: Vec<Group>,
    pub licences: Vec<String>,
    /// For each group the largest split digest that is held out.
    pub cutoffs: Vec<Option<u64>>,
    /// Statistics of reading and deduplication; tokens are still missing.
    pub stats: Stats,
    pub documents: u64,
    index_blake3: String,
    /// Files of contents below the work folder, by number, with size and digest.
    segments: Vec<(PathBuf, u64, String)>,
}

/// Files of contents, opened as they are needed.
pub(crate) struct Contents {
    root: PathBuf,
    segments: Vec<(PathBuf, u64, String)>,
    open: Mutex<HashMap<u32, Arc<File>>>,
}

impl Contents {
    pub fn new(root: &Path, segments: Vec<(PathBuf, u64, String)>) -> Contents {
        Contents { root: root.to_owned(), segments, open: Mutex::default() }
    }

    fn file(&self, number: u32) -> io::Result<Arc<File>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = open.get(&number) {
            return Ok(Arc::clone(file));
        }
        if open.len() >= MAX_OPEN_FILES {
            open.clear();
        }
        let missing = || io::Error::new(io::ErrorKind::InvalidData, "an entry names a segment that is not there");
        let (path, _, _) = self.segments.get(number as usize).ok_or_else(missing)?;
        let file = Arc::new(File::open(self.root.join(path))?);
        open.insert(number, Arc::clone(&file));
        Ok(file)
    }

    /// Address, text and notes of a document, end to end.
    pub fn read(&self, entry: &Entry) -> io::Result<Vec<u8>> {
        let mut content = vec![0; entry.content_len()];
        self.file(entry.segment)?.read_exact_at(&mut content, entry.offset)?;
        Ok(content)
    }

    /// The text of a document.
    pub fn text(&self, entry: &Entry) -> io::Result<String> {
        let mut text = vec![0; entry.text_len as usize];
        self.file(entry.segment)?.read_exact_at(&mut text, entry.offset + u64::from(entry.url_len))?;
        utf8(text)
    }
}

fn utf8(bytes: Vec<u8>) -> io::Result<String> {
    String::from_utf8(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Writes the final index.
pub(crate) struct SpoolWriter {
    dir: PathBuf,
    index: Digested,
    documents: u64,
}

/// What the final index refers to.
pub(crate) struct SpoolLabels {
    pub groups: Vec<Group>,
    pub licences: Vec<String>,
    pub cutoffs: Vec<Option<u64>>,
    pub segments: Vec<(PathBuf, u64, String)>,
}

impl SpoolWriter {
    pub fn create(dir: &Path) -> io::Result<SpoolWriter> {
        Ok(SpoolWriter { dir: dir.to_owned(), index: Digested::create(&dir.join(INDEX_FILE))?, documents: 0 })
    }

    /// Adds a document that is kept.
    pub fn add(&mut self, entry: Entry) -> io::Result<()> {
        self.documents += 1;
        self.index.write(&entry.to_bytes())
    }

    /// Writes the manifest once everything else is on disk.
    pub fn finish(self, key: String, labels: SpoolLabels, stats: Stats) -> io::Result<()> {
        let (_, index_blake3) = self.index.finish()?;
        let SpoolLabels { groups, licences, cutoffs, segments } = labels;
        let (version, documents) = (SPOOL_VERSION, self.documents);
        let manifest =
            SpoolManifest { version, key, groups, licences, cutoffs, stats, documents, index_blake3, segments };
        let mut file = File::create(self.dir.join(SPOOL_FILE))?;
        file.write_all(&serde_json::to_vec(&manifest)?)?;
        file.sync_all()
    }
}

/// A finished spool.
pub(crate) struct Spool {
    pub manifest: SpoolManifest,
    contents: Contents,
    dir: PathBuf,
}

impl Spool {
    /// Opens a spool that was made for `key` and whose bytes are what they were, or `None`.
    pub fn reuse(root: &Path, dir: &Path, key: &str) -> Option<Spool> {
        let spool = Spool::open(root, dir).ok()?;
        let whole = |(path, bytes, digest): &(PathBuf, u64, String)| {
            digest_of(&root.join(path)).is_ok_and(|found| found == (*bytes, digest.clone()))
        };
        (spool.manifest.key == key && spool.contents.segments.iter().all(whole)).then_some(spool)
    }

    /// Opens a spool and checks its index.
    pub fn open(root: &Path, dir: &Path) -> io::Result<Spool> {
        let manifest: SpoolManifest = serde_json::from_slice(&std::fs::read(dir.join(SPOOL_FILE))?)?;
        let changed =
            |what: &str| io::Error::new(io::ErrorKind::InvalidData, format!("{what} is not as it was written"));
        if manifest.version != SPOOL_VERSION {
            return Err(changed(SPOOL_FILE));
        }
        let index = digest_of(&dir.join(INDEX_FILE))?;
        if index != (manifest.documents * ENTRY_BYTES as u64, manifest.index_blake3.clone()) {
            return Err(changed(INDEX_FILE));
        }
        let contents = Contents::new(root, manifest.segments.clone());
        let spool = Spool { manifest, contents, dir: dir.to_owned() };
        let (groups, licences) = (spool.manifest.groups.len(), spool.manifest.licences.len());
        for entry in spool.entries()? {
            let entry = entry?;
            if entry.group as usize >= groups || entry.licence as usize >= licences {
                return Err(changed(SPOOL_FILE));
            }
        }
        Ok(spool)
    }

    /// Digest of the documents, for what is made from them.
    pub fn digest(&self) -> &str {
        &self.manifest.index_blake3
    }

    /// All documents, in the order read.
    pub fn entries(&self) -> io::Result<EntryReader> {
        EntryReader::open(&self.dir.join(INDEX_FILE))
    }

    /// Whether a document is held out for validation.
    pub fn is_validation(&self, entry: &Entry) -> bool {
        let cutoff = self.manifest.cutoffs.get(entry.group as usize).copied().flatten();
        cutoff.is_some_and(|cutoff| entry.split <= cutoff)
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Language and source of a document.
    pub fn group(&self, entry: &Entry) -> &Group {
        // `open` has checked the number.
        &self.manifest.groups[entry.group as usize]
    }

    /// Reads a document.
    pub fn document(&self, entry: &Entry) -> io::Result<Document> {
        let mut content = self.contents.read(entry)?;
        let notes = content.split_off(entry.url_len as usize + entry.text_len as usize);
        let text = content.split_off(entry.url_len as usize);
        let Group { lang, source } = self.group(entry).clone();
        Ok(Document {
            id: id_to_hex(&entry.id),
            text: utf8(text)?,
            lang,
            source,
            licence: self.manifest.licences[entry.licence as usize].clone(),
            url: if content.is_empty() { None } else { Some(utf8(content)?) },
            notes: if notes.is_empty() { None } else { Some(Box::new(serde_json::from_slice::<Notes>(&notes)?)) },
        })
    }
}

#[cfg(test)]
mod tests;
