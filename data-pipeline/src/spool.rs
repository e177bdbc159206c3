//! Owns the documents between reading and tokenising: two files on disk, checked before they are used; never decides
//! what goes in.
//!
//! `documents.bin` holds each document's address and text end to end, `documents.idx` one fixed-size entry a document in
//! the same order, `spool.json` (written last) the names, the sizes and the digests.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::document::{DOCUMENT_ID_BYTES, Document, id_to_hex};
use crate::stats::Stats;

/// Version of the layout; an older spool is made again, never converted.
const SPOOL_VERSION: u32 = 1;
const BYTES_FILE: &str = "documents.bin";
const INDEX_FILE: &str = "documents.idx";
const SPOOL_FILE: &str = "spool.json";
/// Size of an index entry in bytes.
const ENTRY_BYTES: usize = 48;
const BUFFER_BYTES: usize = 1024 * 1024;

/// A language and source.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct Group {
    pub lang: String,
    pub source: String,
}

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
    /// Reading statistics; tokens are still missing.
    pub stats: Stats,
    bytes_len: u64,
    bytes_blake3: String,
    index_blake3: String,
}

/// Where a document lies and what is known of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    pub offset: u64,
    pub id: [u8; DOCUMENT_ID_BYTES],
    pub split: u64,
    pub group: u32,
    pub licence: u32,
    pub url_len: u32,
    pub text_len: u32,
}

impl Entry {
    fn to_bytes(self) -> [u8; ENTRY_BYTES] {
        let mut out = [0; ENTRY_BYTES];
        let (head, tail) = out.split_at_mut(32);
        head[..8].copy_from_slice(&self.offset.to_le_bytes());
        head[8..24].copy_from_slice(&self.id);
        head[24..].copy_from_slice(&self.split.to_le_bytes());
        for (place, value) in tail.chunks_exact_mut(4).zip([self.group, self.licence, self.url_len, self.text_len]) {
            place.copy_from_slice(&value.to_le_bytes());
        }
        out
    }

    fn from_bytes(bytes: &[u8; ENTRY_BYTES]) -> Entry {
        let u64_at = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
        let u32_at = |at: usize| u32::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
        Entry {
            offset: u64_at(0),
            id: std::array::from_fn(|i| bytes[8 + i]),
            split: u64_at(24),
            group: u32_at(32),
            licence: u32_at(36),
            url_len: u32_at(40),
            text_len: u32_at(44),
        }
    }
}

/// Writes through a digest.
struct Digested<W> {
    inner: W,
    hasher: blake3::Hasher,
    len: u64,
}

impl<W: Write> Digested<W> {
    fn new(inner: W) -> Self {
        Digested { inner, hasher: blake3::Hasher::new(), len: 0 }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hasher.update(bytes);
        self.len += bytes.len() as u64;
        self.inner.write_all(bytes)
    }
}

/// Takes documents in the order read.
pub(crate) struct SpoolWriter {
    dir: PathBuf,
    bytes: Digested<BufWriter<File>>,
    index: Digested<BufWriter<File>>,
}

impl SpoolWriter {
    pub fn create(dir: &Path) -> io::Result<SpoolWriter> {
        let open = |name| {
            let file = File::create(dir.join(name))?;
            io::Result::Ok(Digested::new(BufWriter::with_capacity(BUFFER_BYTES, file)))
        };
        Ok(SpoolWriter { dir: dir.to_owned(), bytes: open(BYTES_FILE)?, index: open(INDEX_FILE)? })
    }

    /// Adds a document; `content` is its address and its text end to end. `entry.offset` is set here.
    pub fn add(&mut self, entry: Entry, content: &[u8]) -> io::Result<()> {
        let entry = Entry { offset: self.bytes.len, ..entry };
        self.index.write(&entry.to_bytes())?;
        self.bytes.write(content)
    }

    /// Writes the manifest once everything else is on disk.
    pub fn finish(
        mut self,
        key: String,
        groups: Vec<Group>,
        licences: Vec<String>,
        cutoffs: Vec<Option<u64>>,
        stats: Stats,
    ) -> io::Result<()> {
        for part in [&mut self.bytes.inner, &mut self.index.inner] {
            part.flush()?;
            part.get_ref().sync_all()?;
        }
        let manifest = SpoolManifest {
            version: SPOOL_VERSION,
            key,
            groups,
            licences,
            cutoffs,
            stats,
            bytes_len: self.bytes.len,
            bytes_blake3: self.bytes.hasher.finalize().to_hex().to_string(),
            index_blake3: self.index.hasher.finalize().to_hex().to_string(),
        };
        let path = self.dir.join(SPOOL_FILE);
        let mut file = File::create(&path)?;
        file.write_all(&serde_json::to_vec(&manifest)?)?;
        file.sync_all()
    }
}

/// A finished spool.
pub(crate) struct Spool {
    pub manifest: SpoolManifest,
    pub entries: Vec<Entry>,
    bytes: File,
    dir: PathBuf,
}

impl Spool {
    /// Opens a spool that was made for `key` and whose bytes are what they were, or `None`.
    pub fn reuse(dir: &Path, key: &str) -> Option<Spool> {
        let spool = Spool::open(dir).ok()?;
        (spool.manifest.key == key).then_some(spool)
    }

    /// Opens a spool and checks every digest.
    pub fn open(dir: &Path) -> io::Result<Spool> {
        let manifest: SpoolManifest = serde_json::from_slice(&std::fs::read(dir.join(SPOOL_FILE))?)?;
        let bytes = File::open(dir.join(BYTES_FILE))?;
        let mut index = Vec::new();
        File::open(dir.join(INDEX_FILE))?.read_to_end(&mut index)?;
        let changed =
            |what: &str| io::Error::new(io::ErrorKind::InvalidData, format!("{what} is not as it was written"));
        if manifest.version != SPOOL_VERSION {
            return Err(changed(SPOOL_FILE));
        }
        if blake3::hash(&index).to_hex().as_str() != manifest.index_blake3 {
            return Err(changed(INDEX_FILE));
        }
        let mut hasher = blake3::Hasher::new();
        hasher.update_reader(BufReader::with_capacity(BUFFER_BYTES, &bytes))?;
        if hasher.finalize().to_hex().as_str() != manifest.bytes_blake3 || hasher.count() != manifest.bytes_len {
            return Err(changed(BYTES_FILE));
        }
        let entries: Vec<Entry> = index.as_chunks::<ENTRY_BYTES>().0.iter().map(Entry::from_bytes).collect();
        let (groups, licences) = (manifest.groups.len(), manifest.licences.len());
        if entries.iter().any(|entry| entry.group as usize >= groups || entry.licence as usize >= licences) {
            return Err(changed(SPOOL_FILE));
        }
        Ok(Spool { manifest, entries, bytes, dir: dir.to_owned() })
    }

    /// Digest of the documents, for what is made from them.
    pub fn digest(&self) -> &str {
        &self.manifest.index_blake3
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
        let mut content = vec![0; entry.url_len as usize + entry.text_len as usize];
        self.bytes.read_exact_at(&mut content, entry.offset)?;
        let text = content.split_off(entry.url_len as usize);
        let utf8 = |bytes| String::from_utf8(bytes).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e));
        let Group { lang, source } = self.group(entry).clone();
        Ok(Document {
            id: id_to_hex(&entry.id),
            text: utf8(text)?,
            lang,
            source,
            licence: self.manifest.licences[entry.licence as usize].clone(),
            url: if content.is_empty() { None } else { Some(utf8(content)?) },
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use proptest::prelude::*;

    fn entry(i: u32, url: &str, text: &str) -> Entry {
        Entry {
            offset: 0,
            id: [i as u8; DOCUMENT_ID_BYTES],
            split: u64::from(i) << 40,
            group: i % 2,
            licence: 0,
            url_len: url.len() as u32,
            text_len: text.len() as u32,
        }
    }

    fn write(dir: &Path, documents: &[(&str, &str)]) {
        let mut writer = SpoolWriter::create(dir).unwrap();
        for (i, (url, text)) in documents.iter().enumerate() {
            writer.add(entry(i as u32, url, text), format!("{url}{text}").as_bytes()).unwrap();
        }
        let group = |lang: &str| Group { lang: lang.to_owned(), source: "s".to_owned() };
        let groups = vec![group("ary_Arab"), group("ary_Latn")];
        let cutoffs = vec![None, Some(1 << 40)];
        writer.finish("key".into(), groups, vec!["MIT".into()], cutoffs, Stats::default()).unwrap();
    }

    #[test]
    fn documents_come_back_and_the_split_follows_the_cutoff() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &[("", "سلام"), ("https://a", "wach"), ("", "ⵢⴰⵏ"), ("u", "4")]);
        let spool = Spool::reuse(dir.path(), "key").unwrap();
        assert!(Spool::reuse(dir.path(), "other").is_none());
        let read: Vec<_> = spool.entries.iter().map(|e| spool.document(e).unwrap()).collect();
        let read: Vec<_> = read.iter().map(|d| (d.url.as_deref(), d.text.as_str(), d.lang.as_str())).collect();
        assert_eq!(read[0], (None, "سلام", "ary_Arab"));
        assert_eq!(read[1], (Some("https://a"), "wach", "ary_Latn"));
        assert_eq!(read[3], (Some("u"), "4", "ary_Latn"));
        let held: Vec<_> = spool.entries.iter().map(|e| spool.is_validation(e)).collect();
        assert_eq!(held, [false, true, false, false]);
    }

    #[test]
    fn a_changed_byte_in_any_file_is_noticed() {
        for name in [BYTES_FILE, INDEX_FILE, SPOOL_FILE] {
            let dir = tempfile::tempdir().unwrap();
            write(dir.path(), &[("", "سلام"), ("https://a", "wach")]);
            let path = dir.path().join(name);
            let mut bytes = std::fs::read(&path).unwrap();
            bytes[1] ^= 1;
            std::fs::write(&path, bytes).unwrap();
            assert!(Spool::reuse(dir.path(), "key").is_none(), "{name}");
        }
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &[("", "سلام")]);
        std::fs::write(dir.path().join(BYTES_FILE), "").unwrap();
        assert!(Spool::reuse(dir.path(), "key").is_none());
    }

    proptest! {
        #[test]
        fn entries_round_trip(
            offset: u64, id: [u8; 16], split: u64, group: u32, licence: u32, url_len: u32, text_len: u32,
        ) {
            let entry = Entry { offset, id, split, group, licence, url_len, text_len };
            prop_assert_eq!(Entry::from_bytes(&entry.to_bytes()), entry);
        }
    }
}
