//! Owns sorted records on disk that are looked up: a scratch file and the first record of each block in memory; never
//! changes what was written.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::DedupError;
use super::sort::{Record, scratch_file};

/// Records of a block.
const BLOCK: usize = 256;
const WRITE_BYTES: usize = 256 * 1024;

/// Takes records in ascending order.
pub(crate) struct TableWriter<R> {
    folder: PathBuf,
    file: File,
    buffer: Vec<u8>,
    fences: Vec<R>,
    len: u64,
}

impl<R: Record> TableWriter<R> {
    pub fn create(folder: &Path) -> Result<Self, DedupError> {
        let file = scratch_file(folder)?;
        Ok(TableWriter { folder: folder.to_owned(), file, buffer: Vec::new(), fences: Vec::new(), len: 0 })
    }

    pub fn push(&mut self, record: R) -> Result<(), DedupError> {
        if self.len.is_multiple_of(BLOCK as u64) {
            self.fences.push(record);
        }
        self.len += 1;
        record.write(&mut self.buffer);
        if self.buffer.len() >= WRITE_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), DedupError> {
        self.file.write_all(&self.buffer).map_err(DedupError::scratch(&self.folder, "written"))?;
        self.buffer.clear();
        Ok(())
    }

    pub fn finish(mut self) -> Result<Table<R>, DedupError> {
        self.flush()?;
        let TableWriter { folder, file, fences, len, .. } = self;
        Ok(Table { folder, file, fences, len })
    }
}

/// Sorted records; looking up is safe from many threads.
pub(crate) struct Table<R> {
    folder: PathBuf,
    file: File,
    /// First record of each block.
    fences: Vec<R>,
    len: u64,
}

impl<R: Record> Table<R> {
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Hands the records from the first that is not below `from` to `each`, in order, until it returns false.
    pub fn range(&self, from: &R, mut each: impl FnMut(R) -> bool) -> Result<(), DedupError> {
        let first = self.fences.partition_point(|fence| fence < from).saturating_sub(1);
        for block in first..self.fences.len() {
            for record in self.block(block)? {
                if record >= *from && !each(record) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Whether `record` is there.
    pub fn contains(&self, record: &R) -> Result<bool, DedupError> {
        let mut found = false;
        self.range(record, |at| {
            found = at == *record;
            false
        })?;
        Ok(found)
    }

    /// The records of a block, none past the last.
    pub fn block(&self, block: usize) -> Result<Vec<R>, DedupError> {
        let start = block as u64 * BLOCK as u64;
        let count = usize::try_from(self.len.saturating_sub(start)).unwrap_or(usize::MAX).min(BLOCK);
        let mut bytes = vec![0; count * R::BYTES];
        let read = self.file.read_exact_at(&mut bytes, start * R::BYTES as u64);
        read.map_err(DedupError::scratch(&self.folder, "read"))?;
        Ok(bytes.chunks_exact(R::BYTES).map(R::read).collect())
    }

    /// Blocks there are.
    pub fn num_blocks(&self) -> usize {
        self.fences.len()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn every_record_is_found_and_none_between() {
        let dir = tempfile::tempdir().unwrap();
        for count in [0_u32, 1, 255, 256, 257, 3000] {
            let mut writer = TableWriter::create(dir.path()).unwrap();
            (0..count).for_each(|i| writer.push((i / 3 * 2, i % 3)).unwrap());
            let table = writer.finish().unwrap();
            assert_eq!(table.len(), u64::from(count));
            for i in 0..count {
                assert!(table.contains(&(i / 3 * 2, i % 3)).unwrap());
                assert!(!table.contains(&(i / 3 * 2 + 1, 0)).unwrap());
            }
            let mut of_ten = Vec::new();
            let take = |record: (u32, u32)| {
                let inside = record.0 == 10;
                if inside {
                    of_ten.push(record.1);
                }
                inside
            };
            table.range(&(10, 0), take).unwrap();
            assert_eq!(of_ten, if count > 17 { vec![0, 1, 2] } else { vec![] });
        }
    }
}
