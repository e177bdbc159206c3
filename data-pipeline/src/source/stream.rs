//! Owns a file as a stream of decompressed bytes under limits, with the digest of the stored bytes; never looks at text.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::discover::Compression;
use super::error::SourceError;
use crate::config::Limits;

/// Largest Zstandard window, as a power of two: 128 MiB, what `zstd` itself accepts without `--long`.
pub(crate) const ZSTD_WINDOW_LOG_MAX: u32 = 27;
/// The expansion limit is not applied to the first bytes a file produces: small files may repeat themselves at will.
const EXPANSION_GRACE_BYTES: u64 = 1024 * 1024;
/// Size of a read from disk, in bytes.
const READ_BYTES: usize = 256 * 1024;

/// What the file on disk has given so far.
struct Stored {
    file: File,
    bytes: u64,
    hasher: blake3::Hasher,
    failure: Option<io::Error>,
}

/// The stored bytes, counted and digested on their way to the decoder.
struct StoredReader(Arc<Mutex<Stored>>);

impl Read for StoredReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let mut stored = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match stored.file.read(buf) {
            Ok(n) => {
                stored.bytes += n as u64;
                stored.hasher.update(buf.get(..n).unwrap_or_default());
                Ok(n)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(error),
            Err(error) => {
                let copy = io::Error::new(error.kind(), error.to_string());
                stored.failure = Some(error);
                Err(copy)
            }
        }
    }
}

/// A file's size and digest as stored on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredDigest {
    pub bytes: u64,
    /// Hexadecimal BLAKE3.
    pub blake3: String,
}

/// Decompressed bytes of one file.
pub(crate) struct ByteStream {
    path: PathBuf,
    decoder: Box<dyn Read + Send>,
    stored: Arc<Mutex<Stored>>,
    produced: u64,
    limits: Limits,
    compression: Compression,
}

impl ByteStream {
    pub fn open(path: &Path, compression: Compression, limits: &Limits) -> Result<ByteStream, SourceError> {
        let io_error = |source| SourceError::Io { path: path.to_owned(), action: "opened", source };
        let file = File::open(path).map_err(io_error)?;
        let stored = Arc::new(Mutex::new(Stored { file, bytes: 0, hasher: blake3::Hasher::new(), failure: None }));
        let raw = io::BufReader::with_capacity(READ_BYTES, StoredReader(Arc::clone(&stored)));
        let decoder: Box<dyn Read + Send> = match compression {
            Compression::None => Box::new(StoredReader(Arc::clone(&stored))),
            Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(raw)),
            Compression::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(raw).map_err(io_error)?;
                decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(io_error)?;
                Box::new(decoder)
            }
        };
        Ok(ByteStream { path: path.to_owned(), decoder, stored, produced: 0, limits: limits.clone(), compression })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Stored bytes read so far.
    pub fn stored_bytes(&self) -> u64 {
        self.stored.lock().unwrap_or_else(PoisonError::into_inner).bytes
    }

    /// Reads once into `buf`; 0 at the end.
    ///
    /// # Errors
    /// [`SourceError::Damaged`] (with `rows` 0) when the data does not decode, [`SourceError::Bomb`] beyond a limit,
    /// [`SourceError::Io`] when the disk fails.
    pub fn read(&mut self, buf: &mut [u8]) -> Result<usize, SourceError> {
        loop {
            match self.decoder.read(buf) {
                Ok(n) => {
                    self.produced += n as u64;
                    self.check_limits()?;
                    return Ok(n);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.decode_error(&error)),
            }
        }
    }

    fn check_limits(&self) -> Result<(), SourceError> {
        if self.produced > self.limits.max_file_bytes {
            return Err(SourceError::Bomb {
                path: self.path.clone(),
                what: format!("expands to more than {} bytes", self.limits.max_file_bytes),
                limit: "max_file_bytes",
            });
        }
        if self.compression != Compression::None && self.produced > EXPANSION_GRACE_BYTES {
            let stored = self.stored_bytes();
            if self.produced / stored.max(1) >= self.limits.max_expansion {
                return Err(SourceError::Bomb {
                    path: self.path.clone(),
                    what: format!(
                        "{stored} bytes expand to {} and more, over {} times",
                        self.produced, self.limits.max_expansion
                    ),
                    limit: "max_expansion",
                });
            }
        }
        Ok(())
    }

    fn decode_error(&mut self, error: &io::Error) -> SourceError {
        let mut stored = self.stored.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(source) = stored.failure.take() {
            return SourceError::Io { path: self.path.clone(), action: "read", source };
        }
        let name = match self.compression {
            Compression::None => "file",
            Compression::Gzip => "gzip stream",
            Compression::Zstd => "zstd stream",
        };
        let text = error.to_string();
        if self.compression == Compression::Zstd && text.contains("too much memory") {
            return SourceError::WindowTooLarge { path: self.path.clone(), log_max: ZSTD_WINDOW_LOG_MAX };
        }
        let what = match error.kind() {
            io::ErrorKind::UnexpectedEof => format!("the {name} ends too early"),
            _ => format!("the {name} does not decode ({text})"),
        };
        SourceError::Damaged { path: self.path.clone(), byte: stored.bytes, what, rows: 0 }
    }

    /// Reads what is left of the stored file and gives its size and digest.
    pub fn finish(self) -> Result<StoredDigest, SourceError> {
        let path = self.path;
        drop(self.decoder);
        let mut buf = vec![0; READ_BYTES];
        let mut rest = StoredReader(self.stored);
        loop {
            match rest.read(&mut buf) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(SourceError::Io { path, action: "read", source }),
            }
        }
        let stored = rest.0.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(StoredDigest { bytes: stored.bytes, blake3: stored.hasher.finalize().to_hex().to_string() })
    }
}

/// Size and digest of a file that is read at random (Parquet).
pub(crate) fn digest_file(path: &Path) -> Result<StoredDigest, SourceError> {
    let limits = Limits { max_file_bytes: u64::MAX, ..Limits::default() };
    ByteStream::open(path, Compression::None, &limits)?.finish()
}
