//! Owns writes that survive a crash: sync, rename, sync the folder; never touches what the bytes mean.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// An input or output error with the path and what was being done.
#[derive(Debug, thiserror::Error)]
#[error("{}: cannot {action}: {source}{}", path.display(), advice(source))]
pub struct FileError {
    /// The file or folder.
    pub path: PathBuf,
    /// What was tried, as an infinitive.
    pub action: &'static str,
    /// The operating system's answer.
    pub source: io::Error,
}

impl FileError {
    /// For `map_err`: `File::open(p).map_err(FileError::at(p, "open"))`.
    pub fn at<'a>(path: &'a Path, action: &'static str) -> impl FnOnce(io::Error) -> FileError + 'a {
        move |source| FileError { path: path.to_owned(), action, source }
    }
}

fn advice(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::StorageFull => "; free some space or choose an output_dir on another disk",
        io::ErrorKind::PermissionDenied => "; check the owner and the permissions of the folder",
        io::ErrorKind::NotFound | io::ErrorKind::InvalidInput | io::ErrorKind::NotADirectory => "; check the path",
        io::ErrorKind::FileTooLarge => "; check that it is the file that was meant",
        io::ErrorKind::InvalidData => "; it must be a text in UTF-8",
        io::ErrorKind::ReadOnlyFilesystem => "; choose an output_dir on a writable disk",
        _ => "",
    }
}

/// Makes the entries of a folder durable.
///
/// # Errors
/// When the folder cannot be opened or synced.
pub fn sync_folder(folder: &Path) -> Result<(), FileError> {
    File::open(folder).and_then(|f| f.sync_all()).map_err(FileError::at(folder, "sync the folder"))
}

/// Writes a whole file so that a crash leaves either the old or the new content. A device or a pipe (`/dev/null`,
/// `/dev/stdout`) is written to as it is: a file in its place would break the machine.
///
/// # Errors
/// When any of the disk operations fails; the old content is then still there.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    if fs::metadata(path).is_ok_and(|facts| !facts.is_file() && !facts.is_dir()) {
        let opened = OpenOptions::new().write(true).open(path);
        return opened.and_then(|mut file| file.write_all(bytes)).map_err(FileError::at(path, "write"));
    }
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let temporary = folder.join(format!(".{name}.{}.tmp", std::process::id()));
    let written = write_new(&temporary, bytes)
        .and_then(|()| fs::rename(&temporary, path).map_err(FileError::at(path, "put the file into place")));
    if written.is_err() {
        // The failure itself is what the caller must hear about; the leftover is harmless.
        let _ = fs::remove_file(&temporary);
    }
    written?;
    sync_folder(folder)
}

fn write_new(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)
        .map_err(FileError::at(path, "create the file"))?;
    file.write_all(bytes).map_err(FileError::at(path, "write"))?;
    file.sync_all().map_err(FileError::at(path, "sync"))
}

/// Creates a folder and its parents.
///
/// # Errors
/// When the operating system refuses.
pub fn create_folder(folder: &Path) -> Result<(), FileError> {
    fs::create_dir_all(folder).map_err(FileError::at(folder, "create the folder"))
}

/// Opens a regular file, or a link to one: a pipe would keep its reader waiting, and some devices have no end.
///
/// # Errors
/// When it is something else or cannot be opened.
pub fn open_file(path: &Path) -> Result<File, FileError> {
    let metadata = fs::metadata(path).map_err(FileError::at(path, "open"))?;
    if !metadata.is_file() {
        let source = io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file");
        return Err(FileError { path: path.to_owned(), action: "open", source });
    }
    File::open(path).map_err(FileError::at(path, "open"))
}

/// Reads a file of at most `limit_bytes`.
///
/// # Errors
/// When the file cannot be read or is larger than the limit.
pub fn read_bytes(path: &Path, limit_bytes: u64) -> Result<Vec<u8>, FileError> {
    use std::io::Read;
    let mut bytes = Vec::new();
    open_file(path)?.take(limit_bytes + 1).read_to_end(&mut bytes).map_err(FileError::at(path, "read"))?;
    if bytes.len() as u64 > limit_bytes {
        let source = io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("the file is larger than the limit of {limit_bytes} bytes"),
        );
        return Err(FileError { path: path.to_owned(), action: "read", source });
    }
    Ok(bytes)
}

/// Reads a text file of at most `limit_bytes`.
///
/// # Errors
/// When the file cannot be read, is larger than the limit or is not UTF-8.
pub fn read_text(path: &Path, limit_bytes: u64) -> Result<String, FileError> {
    let not_text = |_| io::Error::new(io::ErrorKind::InvalidData, "stream did not contain valid UTF-8");
    String::from_utf8(read_bytes(path, limit_bytes)?).map_err(not_text).map_err(FileError::at(path, "read"))
}

/// Bytes free for this user on the file system that holds `folder`; `None` where the system cannot tell.
pub fn free_bytes(folder: &Path) -> Option<u64> {
    let stat = rustix::fs::statvfs(folder).ok()?;
    stat.f_bavail.checked_mul(stat.f_frsize)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn atomic_write_replaces_and_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        write_atomic(&path, b"one").unwrap();
        write_atomic(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn errors_name_the_path_and_what_to_do() {
        let error = write_atomic(Path::new("/nonexistent/x/a.json"), b"").unwrap_err().to_string();
        assert!(error.contains("/nonexistent/x/.a.json") && error.ends_with("check the path"), "{error}");
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("big");
        fs::write(&path, vec![b'x'; 11]).unwrap();
        assert!(read_text(&path, 10).unwrap_err().to_string().contains("limit of 10 bytes"));
        assert_eq!(read_text(&path, 11).unwrap().len(), 11);
    }
}
