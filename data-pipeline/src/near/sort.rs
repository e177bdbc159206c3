//! Owns sorting more records than memory holds: sorted runs in anonymous scratch files, merged; never interprets a record.
//!
//! A scratch file has no name once it is open, so a process that is killed leaves nothing behind.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rayon::slice::ParallelSliceMut;

use super::DedupError;

/// Runs that are merged at once; more are merged in several rounds.
const MAX_FAN_IN: usize = 128;
/// Bytes read ahead of each run.
const READ_BYTES: usize = 128 * 1024;
const WRITE_BYTES: usize = 1024 * 1024;

/// Something of fixed size that can be sorted.
pub(crate) trait Record: Copy + Ord + Send {
    /// Bytes on disk.
    const BYTES: usize;
    /// Appends exactly [`Record::BYTES`] bytes.
    fn write(&self, out: &mut Vec<u8>);
    /// Reads what `write` wrote.
    fn read(bytes: &[u8]) -> Self;
}

macro_rules! tuple_record {
    ($($kind:ident $at:tt),+) => {
        impl Record for ($($kind,)+) {
            const BYTES: usize = 0 $(+ size_of::<$kind>())+;

            fn write(&self, out: &mut Vec<u8>) {
                $(out.extend_from_slice(&self.$at.to_le_bytes());)+
            }

            fn read(mut bytes: &[u8]) -> Self {
                ($({
                    let (head, tail) = bytes.split_at_checked(size_of::<$kind>()).unwrap_or_default();
                    bytes = tail;
                    let value = $kind::from_le_bytes(head.try_into().unwrap_or_default());
                    let _ = bytes;
                    value
                },)+)
            }
        }
    };
}

tuple_record!(u64 0, u32 1);
tuple_record!(u32 0, u32 1);
tuple_record!(u128 0, u32 1, u32 2);
tuple_record!(u128 0, u32 1);
tuple_record!(u128 0);

/// Opens a scratch file in `folder` and takes its name away.
pub(crate) fn scratch_file(folder: &Path) -> Result<File, DedupError> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let path = folder.join(format!(".scratch-{}-{number}", std::process::id()));
    let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path);
    let file = file.map_err(DedupError::scratch(folder, "created"))?;
    fs::remove_file(&path).map_err(DedupError::scratch(folder, "created"))?;
    Ok(file)
}

/// Takes records in any order.
pub(crate) struct ExternalSort<R> {
    folder: PathBuf,
    held: Vec<R>,
    /// Records held before a run is written.
    cap: usize,
    runs: Vec<Run>,
}

/// A sorted run on disk.
struct Run {
    file: File,
    records: u64,
}

impl<R: Record> ExternalSort<R> {
    /// Holds `memory_bytes` of records at most; runs go to `folder`, which must exist.
    pub fn new(folder: &Path, memory_bytes: usize) -> Self {
        let cap = (memory_bytes / size_of::<R>()).max(1024);
        ExternalSort { folder: folder.to_owned(), held: Vec::new(), cap, runs: Vec::new() }
    }

    pub fn push(&mut self, record: R) -> Result<(), DedupError> {
        if self.held.len() >= self.cap {
            self.spill()?;
        }
        if self.held.len() == self.held.capacity() {
            // Doubling by itself would pass the cap.
            let more = self.held.len().max(1024).min(self.cap - self.held.len());
            self.held.reserve_exact(more);
        }
        self.held.push(record);
        Ok(())
    }

    /// Records added.
    pub fn len(&self) -> u64 {
        self.held.len() as u64 + self.runs.iter().map(|run| run.records).sum::<u64>()
    }

    fn spill(&mut self) -> Result<(), DedupError> {
        self.held.par_sort_unstable();
        let mut writer = RunWriter::create(&self.folder)?;
        for record in &self.held {
            writer.push(record)?;
        }
        self.runs.push(writer.finish()?);
        self.held.clear();
        Ok(())
    }

    /// All records in order.
    pub fn finish(mut self) -> Result<Merged<R>, DedupError> {
        if self.runs.is_empty() {
            self.held.par_sort_unstable();
            return Ok(Merged { memory: self.held.into_iter(), readers: Vec::new(), heap: BinaryHeap::new() });
        }
        if !self.held.is_empty() {
            self.spill()?;
        }
        self.held = Vec::new();
        while self.runs.len() > MAX_FAN_IN {
            let rest = self.runs.split_off(MAX_FAN_IN);
            let mut merged = Merged::<R>::open(std::mem::replace(&mut self.runs, rest), &self.folder)?;
            let mut writer = RunWriter::create(&self.folder)?;
            while let Some(record) = merged.next()? {
                writer.push(&record)?;
            }
            self.runs.push(writer.finish()?);
        }
        Merged::open(self.runs, &self.folder)
    }
}

struct RunWriter {
    folder: PathBuf,
    file: File,
    buffer: Vec<u8>,
    records: u64,
}

impl RunWriter {
    fn create(folder: &Path) -> Result<RunWriter, DedupError> {
        let file = scratch_file(folder)?;
        Ok(RunWriter { folder: folder.to_owned(), file, buffer: Vec::with_capacity(WRITE_BYTES + 64), records: 0 })
    }

    fn push<R: Record>(&mut self, record: &R) -> Result<(), DedupError> {
        record.write(&mut self.buffer);
        self.records += 1;
        if self.buffer.len() >= WRITE_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), DedupError> {
        self.file.write_all(&self.buffer).map_err(DedupError::scratch(&self.folder, "written"))?;
        self.buffer.clear();
        Ok(())
    }

    fn finish(mut self) -> Result<Run, DedupError> {
        self.flush()?;
        self.file.seek(SeekFrom::Start(0)).map_err(DedupError::scratch(&self.folder, "read"))?;
        Ok(Run { file: self.file, records: self.records })
    }
}

/// Records in ascending order.
pub(crate) struct Merged<R> {
    /// All of them, when they fitted in memory.
    memory: std::vec::IntoIter<R>,
    readers: Vec<RunReader>,
    heap: BinaryHeap<Reverse<(R, usize)>>,
}

impl<R: Record> Merged<R> {
    fn open(runs: Vec<Run>, folder: &Path) -> Result<Merged<R>, DedupError> {
        let mut readers: Vec<RunReader> = runs.into_iter().map(|run| RunReader::new(run, folder)).collect();
        let mut heap = BinaryHeap::with_capacity(readers.len());
        for (number, reader) in readers.iter_mut().enumerate() {
            if let Some(record) = reader.next()? {
                heap.push(Reverse((record, number)));
            }
        }
        Ok(Merged { memory: Vec::new().into_iter(), readers, heap })
    }

    /// The next record.
    pub fn next(&mut self) -> Result<Option<R>, DedupError> {
        if self.readers.is_empty() {
            return Ok(self.memory.next());
        }
        let Some(mut top) = self.heap.peek_mut() else { return Ok(None) };
        let Reverse((record, number)) = *top;
        match self.readers.get_mut(number).map(RunReader::next::<R>).transpose()?.flatten() {
            Some(next) => *top = Reverse((next, number)),
            None => _ = std::collections::binary_heap::PeekMut::pop(top),
        }
        Ok(Some(record))
    }
}

struct RunReader {
    folder: PathBuf,
    file: File,
    left: u64,
    buffer: Vec<u8>,
    at: usize,
}

impl RunReader {
    fn new(run: Run, folder: &Path) -> RunReader {
        RunReader { folder: folder.to_owned(), file: run.file, left: run.records, buffer: Vec::new(), at: 0 }
    }

    fn next<R: Record>(&mut self) -> Result<Option<R>, DedupError> {
        if self.at >= self.buffer.len() {
            if self.left == 0 {
                return Ok(None);
            }
            let records = (READ_BYTES / R::BYTES).min(usize::try_from(self.left).unwrap_or(usize::MAX)).max(1);
            self.buffer.resize(records * R::BYTES, 0);
            self.file.read_exact(&mut self.buffer).map_err(DedupError::scratch(&self.folder, "read"))?;
            self.left -= records as u64;
            self.at = 0;
        }
        let bytes = self
            .buffer
            .get(self.at..self.at + R::BYTES)
            .ok_or_else(|| DedupError::scratch(&self.folder, "read")(io::Error::from(io::ErrorKind::UnexpectedEof)))?;
        self.at += R::BYTES;
        Ok(Some(R::read(bytes)))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use crate::near::hash::split_mix;

    fn sorted(records: &[(u64, u32)], memory_bytes: usize) -> Vec<(u64, u32)> {
        let dir = tempfile::tempdir().unwrap();
        let mut sort = ExternalSort::new(dir.path(), memory_bytes);
        records.iter().for_each(|&record| sort.push(record).unwrap());
        let mut merged = sort.finish().unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "scratch files have no name");
        let mut out = Vec::new();
        while let Some(record) = merged.next().unwrap() {
            out.push(record);
        }
        out
    }

    #[test]
    fn memory_one_run_and_many_rounds_of_runs_agree() {
        let mut state = 5;
        let mut records: Vec<(u64, u32)> = (0..150_000).map(|i| (split_mix(&mut state) >> 48, i % 50)).collect();
        // 150,000 records of 16 bytes: in memory; 3 runs; 147 runs, more than are merged at once.
        let results: Vec<_> = [usize::MAX, 1 << 20, 1].into_iter().map(|bytes| sorted(&records, bytes)).collect();
        records.sort_unstable();
        assert!(results.iter().all(|result| *result == records));
        assert!(sorted(&[], 1).is_empty());
    }

    #[test]
    fn records_round_trip() {
        let mut bytes = Vec::new();
        let record = (u128::MAX - 3, 7_u32, u32::MAX);
        record.write(&mut bytes);
        assert_eq!(bytes.len(), <(u128, u32, u32)>::BYTES);
        assert_eq!(<(u128, u32, u32)>::read(&bytes), record);
    }

    #[test]
    fn a_folder_that_is_absent_is_named() {
        let mut sort = ExternalSort::new(Path::new("/nonexistent/folder"), 1);
        let result = (0..2000_u32).try_for_each(|i| sort.push((i, i)));
        assert!(result.unwrap_err().to_string().starts_with("/nonexistent/folder: a scratch file cannot be created"));
    }
}
