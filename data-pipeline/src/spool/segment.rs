//! Owns the files of a segment: contents of documents, their entries, quarantined records, hits of benchmarks; never
//! knows what they mean.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::entry::{ENTRY_BYTES, Entry};

const BUFFER_BYTES: usize = 1024 * 1024;
/// Endings of the files: contents, entries, quarantine, hits.
const KINDS: [&str; 4] = ["bin", "idx", "quarantine", "hits"];

/// A segment that is whole on disk.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Segment {
    pub documents: u64,
    pub bytes: u64,
    pub bytes_blake3: String,
    pub index_blake3: String,
    pub quarantine_bytes: u64,
    pub quarantine_blake3: String,
    pub hits_bytes: u64,
    pub hits_blake3: String,
}

/// Path of one of a segment's files.
pub(crate) fn segment_file(dir: &Path, number: usize, kind: &str) -> PathBuf {
    dir.join(format!("{number:05}.{kind}"))
}

/// Writes through a digest.
pub(super) struct Digested {
    inner: BufWriter<File>,
    hasher: blake3::Hasher,
    pub len: u64,
}

impl Digested {
    /// A new file; one that was there before is left to whoever still has it open.
    pub fn create(path: &Path) -> io::Result<Digested> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = File::options().write(true).create_new(true).open(path)?;
        let inner = BufWriter::with_capacity(BUFFER_BYTES, file);
        Ok(Digested { inner, hasher: blake3::Hasher::new(), len: 0 })
    }

    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hasher.update(bytes);
        self.len += bytes.len() as u64;
        self.inner.write_all(bytes)
    }

    /// Makes the file durable; its length and hexadecimal digest.
    pub fn finish(mut self) -> io::Result<(u64, String)> {
        self.inner.flush()?;
        self.inner.get_ref().sync_all()?;
        Ok((self.len, self.hasher.finalize().to_hex().to_string()))
    }
}

/// A segment being written.
pub(super) struct SegmentWriter {
    number: usize,
    documents: u64,
    bytes: Digested,
    index: Digested,
    quarantine: Digested,
    hits: Digested,
}

impl SegmentWriter {
    pub fn create(dir: &Path, number: usize) -> io::Result<SegmentWriter> {
        let open = |kind| Digested::create(&segment_file(dir, number, kind));
        let [bytes, index, quarantine, hits] = KINDS;
        let (bytes, index, quarantine, hits) = (open(bytes)?, open(index)?, open(quarantine)?, open(hits)?);
        Ok(SegmentWriter { number, documents: 0, bytes, index, quarantine, hits })
    }

    /// Adds a document; segment and offset of the entry are set here.
    pub fn add(&mut self, entry: Entry, content: &[u8]) -> io::Result<()> {
        let segment = u32::try_from(self.number).map_err(io::Error::other)?;
        let entry = Entry { offset: self.bytes.len, segment, ..entry };
        self.index.write(&entry.to_bytes())?;
        self.bytes.write(content)?;
        self.documents += 1;
        Ok(())
    }

    /// Adds a line to the quarantine.
    pub fn quarantine(&mut self, line: &[u8]) -> io::Result<()> {
        self.quarantine.write(line)?;
        self.quarantine.write(b"\n")
    }

    /// Adds lines to the hits.
    pub fn hits(&mut self, lines: &[u8]) -> io::Result<()> {
        self.hits.write(lines)
    }

    /// Bytes written.
    pub fn len(&self) -> u64 {
        self.bytes.len + self.index.len + self.quarantine.len + self.hits.len
    }

    pub fn finish(self) -> io::Result<Segment> {
        let documents = self.documents;
        let (bytes, bytes_blake3) = self.bytes.finish()?;
        let (_, index_blake3) = self.index.finish()?;
        let (quarantine_bytes, quarantine_blake3) = self.quarantine.finish()?;
        let (hits_bytes, hits_blake3) = self.hits.finish()?;
        Ok(Segment {
            documents,
            bytes,
            bytes_blake3,
            index_blake3,
            quarantine_bytes,
            quarantine_blake3,
            hits_bytes,
            hits_blake3,
        })
    }
}

impl Segment {
    /// Whether the files of segment `number` in `dir` are what was written.
    pub fn is_whole(&self, dir: &Path, number: usize) -> bool {
        let same = |kind, len: u64, digest: &str| {
            digest_of(&segment_file(dir, number, kind)).is_ok_and(|found| found == (len, digest.to_owned()))
        };
        let [bytes, index, quarantine, hits] = KINDS;
        same(bytes, self.bytes, &self.bytes_blake3)
            && same(index, self.documents * ENTRY_BYTES as u64, &self.index_blake3)
            && same(quarantine, self.quarantine_bytes, &self.quarantine_blake3)
            && same(hits, self.hits_bytes, &self.hits_blake3)
    }
}

/// Length and hexadecimal digest of a file.
pub(super) fn digest_of(path: &Path) -> io::Result<(u64, String)> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(BufReader::with_capacity(BUFFER_BYTES, File::open(path)?))?;
    Ok((hasher.count(), hasher.finalize().to_hex().to_string()))
}

/// The entries of an index file, in order, read as they are asked for.
pub(crate) struct EntryReader {
    file: BufReader<File>,
}

impl EntryReader {
    pub fn open(path: &Path) -> io::Result<EntryReader> {
        Ok(EntryReader { file: BufReader::with_capacity(BUFFER_BYTES, File::open(path)?) })
    }
}

impl Iterator for EntryReader {
    type Item = io::Result<Entry>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut bytes = [0; ENTRY_BYTES];
        let mut filled = 0;
        while filled < ENTRY_BYTES {
            match self.file.read(bytes.get_mut(filled..)?) {
                Ok(0) if filled == 0 => return None,
                Ok(0) => return Some(Err(io::ErrorKind::UnexpectedEof.into())),
                Ok(n) => filled += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Some(Err(error)),
            }
        }
        Some(Ok(Entry::from_bytes(&bytes)))
    }
}
