//! Owns the file that a filter writes: under a temporary name until it is whole, compressed as its name asks; never
//! looks into what is written.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use super::FilterError;

const BUFFER_BYTES: usize = 1024 * 1024;
/// A good speed for text at a fair size.
const ZSTD_LEVEL: i32 = 3;

/// A file that appears under its name only when [`AtomicFile::commit`] is called; dropped before, it leaves nothing. A
/// device or a pipe (`/dev/null`, `/dev/stdout`) is written to as it is: a file in its place would break the machine.
pub struct AtomicFile {
    path: PathBuf,
    temporary: Option<PathBuf>,
    sink: Option<Sink>,
}

enum Sink {
    Plain(BufWriter<File>),
    Gzip(flate2::write::GzEncoder<BufWriter<File>>),
    Zstd(zstd::stream::write::Encoder<'static, BufWriter<File>>),
}

impl AtomicFile {
    /// Opens `path` for writing; its folder must exist. A name that ends in `.gz` or `.zst` is compressed. A file that
    /// has the name already is replaced by the commit.
    ///
    /// # Errors
    /// [`FilterError::Out`] when the folder does not let a file be made, or when `path` is a folder.
    pub fn create(path: &Path) -> Result<AtomicFile, FilterError> {
        let failed = |source: io::Error| match source.kind() {
            // Space may be made; then the same command does it.
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                FilterError::Io { path: path.to_owned(), action: "created", source }
            }
            _ => FilterError::Out { path: path.to_owned(), source },
        };
        let Some(name) = path.file_name().filter(|_| !path.is_dir()) else {
            return Err(failed(io::Error::new(io::ErrorKind::IsADirectory, "it is a folder")));
        };
        let partial = path.with_file_name(format!(".{}.{}.partial", name.to_string_lossy(), std::process::id()));
        let temporary = (!is_special(path)).then_some(partial);
        let opened = match &temporary {
            Some(temporary) => File::create(temporary),
            None => OpenOptions::new().write(true).open(path),
        };
        let file = BufWriter::with_capacity(BUFFER_BYTES, opened.map_err(failed)?);
        let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        let sink = match extension {
            "gz" => Sink::Gzip(flate2::write::GzEncoder::new(file, flate2::Compression::default())),
            "zst" | "zstd" => Sink::Zstd(zstd::stream::write::Encoder::new(file, ZSTD_LEVEL).map_err(failed)?),
            _ => Sink::Plain(file),
        };
        Ok(AtomicFile { path: path.to_owned(), temporary, sink: Some(sink) })
    }

    /// Makes the file durable and gives it its name.
    ///
    /// # Errors
    /// [`FilterError::Io`] when the disk refuses; the temporary file is removed.
    pub fn commit(mut self) -> Result<(), FilterError> {
        let failed = |source| FilterError::Io { path: self.path.clone(), action: "written", source };
        let Some(sink) = self.sink.take() else { return Ok(()) };
        let buffered = match sink {
            Sink::Plain(file) => Ok(file),
            Sink::Gzip(encoder) => encoder.finish(),
            Sink::Zstd(encoder) => encoder.finish(),
        };
        let file = buffered.and_then(|file| file.into_inner().map_err(io::IntoInnerError::into_error));
        let file = file.map_err(failed)?;
        // Devices and pipes keep nothing that could be lost.
        let Some(temporary) = &self.temporary else { return Ok(()) };
        file.sync_all().map_err(failed)?;
        std::fs::rename(temporary, &self.path).map_err(failed)?;
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)
    }
}

/// Whether something is there that is neither a file nor a folder, also at the end of a link.
fn is_special(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|facts| !facts.is_file() && !facts.is_dir())
}

impl Write for AtomicFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.sink {
            Some(Sink::Plain(file)) => file.write(bytes),
            Some(Sink::Gzip(encoder)) => encoder.write(bytes),
            Some(Sink::Zstd(encoder)) => encoder.write(bytes),
            None => Err(io::Error::other("the file is closed")),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.sink {
            Some(Sink::Plain(file)) => file.flush(),
            Some(Sink::Gzip(encoder)) => encoder.flush(),
            Some(Sink::Zstd(encoder)) => encoder.flush(),
            None => Ok(()),
        }
    }
}

impl Drop for AtomicFile {
    fn drop(&mut self) {
        // After a commit there is nothing under this name.
        _ = self.temporary.as_ref().map(std::fs::remove_file);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use std::io::Read;

    #[test]
    fn a_file_is_there_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.jsonl");
        std::fs::write(&path, "before").unwrap();
        let mut file = AtomicFile::create(&path).unwrap();
        file.write_all(b"half").unwrap();
        file.flush().unwrap();
        drop(file);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "before");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        let mut file = AtomicFile::create(&path).unwrap();
        file.write_all(b"whole").unwrap();
        file.commit().unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "whole");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        assert!(AtomicFile::create(dir.path()).is_err());
        assert!(AtomicFile::create(&dir.path().join("no/out.jsonl")).is_err());
    }

    #[test]
    fn a_pipe_is_written_through_and_stays_one() {
        use std::os::unix::fs::FileTypeExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        let reader = std::thread::spawn({
            let path = path.clone();
            move || std::fs::read_to_string(path).unwrap()
        });
        let mut file = AtomicFile::create(&path).unwrap();
        file.write_all(b"through").unwrap();
        file.commit().unwrap();
        assert_eq!(reader.join().unwrap(), "through");
        assert!(std::fs::metadata(&path).unwrap().file_type().is_fifo());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn the_name_decides_the_compression() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a.jsonl.gz", "a.jsonl.zst"] {
            let path = dir.path().join(name);
            let mut file = AtomicFile::create(&path).unwrap();
            file.write_all(b"text").unwrap();
            file.commit().unwrap();
            let bytes = std::fs::read(&path).unwrap();
            let mut text = String::new();
            match name.ends_with("gz") {
                true => _ = flate2::read::GzDecoder::new(bytes.as_slice()).read_to_string(&mut text).unwrap(),
                false => text = String::from_utf8(zstd::decode_all(bytes.as_slice()).unwrap()).unwrap(),
            }
            assert_eq!(text, "text");
        }
    }
}
