//! Owns one part of the spool: the documents of a few input files, with everything that was counted while they were
//! read, written so that it can be gone on with after any crash; never decides what goes in.
//!
//! A part grows by segments. `part.json` names those that are whole and where reading goes on; it is replaced in one
//! rename after a segment is on disk, so whatever is not in it was never written.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::entry::{Entry, Group};
use super::segment::{Segment, SegmentWriter};
use crate::pii::AuditSample;
use crate::stats::{ComponentStats, FileStats};

/// Version of the layout; an older spool is made again, never converted.
const PART_VERSION: u32 = 3;
/// Name of the state.
pub(crate) const PART_FILE: &str = "part.json";

/// Where reading goes on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Next {
    /// Input file, counted from the first of the part.
    pub file: usize,
    /// First row that has not been taken, from 1.
    pub row: u64,
}

/// What is known of a part beside its documents.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct PartState {
    version: u32,
    /// What the documents depend on: configuration and input files.
    pub key: String,
    pub segments: Vec<Segment>,
    pub groups: Vec<Group>,
    pub licences: Vec<String>,
    /// One a group, in their order; documents are counted later.
    pub components: Vec<ComponentStats>,
    /// One an input file of the part.
    pub files: Vec<FileStats>,
    pub quarantined: u64,
    /// A sample of the personal data that was found, masked.
    pub audit: AuditSample,
    pub next: Next,
    pub done: bool,
}

impl PartState {
    /// The state in `dir`, when it was made for `key` and every segment is what was written.
    pub fn read(dir: &Path, key: &str) -> Option<PartState> {
        let state: PartState = serde_json::from_slice(&std::fs::read(dir.join(PART_FILE)).ok()?).ok()?;
        let whole = |(number, segment): (usize, &Segment)| segment.is_whole(dir, number);
        let usable = state.version == PART_VERSION && state.key == key && state.segments.iter().enumerate().all(whole);
        usable.then_some(state)
    }
}

/// A part being written.
pub(crate) struct PartWriter {
    dir: PathBuf,
    pub state: PartState,
    open: Option<SegmentWriter>,
}

impl PartWriter {
    /// Begins a part in the folder `dir`, or goes on with the one that lies there.
    pub fn open(dir: &Path, key: &str) -> io::Result<PartWriter> {
        std::fs::create_dir_all(dir)?;
        let fresh = || PartState { version: PART_VERSION, key: key.to_owned(), ..PartState::default() };
        let state = PartState::read(dir, key).unwrap_or_else(fresh);
        Ok(PartWriter { dir: dir.to_owned(), state, open: None })
    }

    fn segment(&mut self) -> io::Result<&mut SegmentWriter> {
        let number = self.state.segments.len();
        match &mut self.open {
            Some(segment) => Ok(segment),
            none => Ok(none.insert(SegmentWriter::create(&self.dir, number)?)),
        }
    }

    /// Adds a document; `content` is its address, text and notes end to end.
    pub fn add(&mut self, entry: Entry, content: &[u8]) -> io::Result<()> {
        self.segment()?.add(entry, content)
    }

    /// Adds a line to the quarantine.
    pub fn quarantine(&mut self, line: &[u8]) -> io::Result<()> {
        self.state.quarantined += 1;
        self.segment()?.quarantine(line)
    }

    /// Adds lines to the hits.
    pub fn hits(&mut self, lines: &[u8]) -> io::Result<()> {
        if lines.is_empty() { Ok(()) } else { self.segment()?.hits(lines) }
    }

    /// Bytes written since the last commit.
    pub fn uncommitted(&self) -> u64 {
        self.open.as_ref().map_or(0, SegmentWriter::len)
    }

    /// Makes everything so far durable: after a crash, the part goes on from here.
    pub fn commit(&mut self) -> io::Result<()> {
        if let Some(segment) = self.open.take() {
            self.state.segments.push(segment.finish()?);
        }
        // The entries of the folder must be on disk before the state names them.
        sync_folder(&self.dir)?;
        let (path, temporary) = (self.dir.join(PART_FILE), self.dir.join("part.json.partial"));
        let mut file = File::create(&temporary)?;
        file.write_all(&serde_json::to_vec(&self.state)?)?;
        file.sync_all()?;
        std::fs::rename(&temporary, &path)?;
        sync_folder(&self.dir)
    }

    /// Commits the part as finished.
    pub fn finish(mut self) -> io::Result<PartState> {
        self.state.done = true;
        self.commit()?;
        Ok(self.state)
    }
}

fn sync_folder(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}
