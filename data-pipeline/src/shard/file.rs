//! Owns writing a file together with its digest, durably; never knows what is in it.

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use crate::dataset::DataError;
use crate::manifest::FileRecord;

const BUFFER_BYTES: usize = 1 << 20;

/// A new file whose bytes are digested as they are written.
pub(crate) struct DigestedFile {
    path: PathBuf,
    inner: BufWriter<File>,
    hasher: blake3::Hasher,
    bytes: u64,
}

impl DigestedFile {
    /// Creates `path`, which must not exist.
    pub fn create(path: &Path) -> Result<Self, DataError> {
        let file = File::create_new(path).map_err(DataError::io(path, "created"))?;
        Ok(Self {
            path: path.to_owned(),
            inner: BufWriter::with_capacity(BUFFER_BYTES, file),
            hasher: blake3::Hasher::new(),
            bytes: 0,
        })
    }

    /// Appends `bytes`.
    pub fn put(&mut self, bytes: &[u8]) -> Result<(), DataError> {
        self.write_all(bytes).map_err(DataError::io(&self.path, "written"))
    }

    /// Makes the file durable.
    pub fn finish(mut self) -> Result<FileRecord, DataError> {
        let done = self.inner.flush().and_then(|()| self.inner.get_ref().sync_all());
        done.map_err(DataError::io(&self.path, "written"))?;
        Ok(FileRecord { bytes: self.bytes, blake3: self.hasher.finalize().to_hex().to_string() })
    }
}

impl Write for DigestedFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hasher.update(bytes.get(..written).unwrap_or_default());
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Digest and length of a file on disk; `read` hears how many bytes were read since the last call.
pub(crate) fn digest_of(path: &Path, read: &mut dyn FnMut(u64)) -> Result<FileRecord, DataError> {
    let failed = || DataError::io(path, "read");
    let mut file = File::open(path).map_err(failed())?;
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let count = file.read(&mut buffer).map_err(failed())?;
        if count == 0 {
            return Ok(FileRecord { bytes: hasher.count(), blake3: hasher.finalize().to_hex().to_string() });
        }
        hasher.update(buffer.get(..count).unwrap_or_default());
        read(count as u64);
    }
}

/// Makes a folder's entries durable.
pub(crate) fn sync_folder(path: &Path) -> Result<(), DataError> {
    File::open(path).and_then(|folder| folder.sync_all()).map_err(DataError::io(path, "synced"))
}
