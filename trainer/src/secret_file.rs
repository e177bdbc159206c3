//! Owns files that hold a secret: who may read them, how they are made; never knows what the secret is for.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{Mode, OFlags};

/// A secret file that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {what}; {advice}")]
pub struct SecretFileError {
    /// The file.
    pub path: String,
    /// What is wrong with it. Never the secret itself.
    pub what: String,
    /// What to do.
    pub advice: String,
}

impl SecretFileError {
    /// An error about the file at `path`.
    pub fn new(path: &Path, what: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { path: path.display().to_string(), what: what.into(), advice: advice.into() }
    }
}

/// Reads a regular file (no link) of this user that nobody else may read or write, as ssh asks of keys. `content` says
/// in errors what it should hold.
///
/// # Errors
/// When the file cannot be read, is not private, or holds more than `limit_bytes`.
pub fn read(path: &Path, limit_bytes: u64, content: &str) -> Result<Vec<u8>, SecretFileError> {
    // NONBLOCK: a pipe planted at this path must not hang the start.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty()).map_err(|e| cannot_open(path, e))?);
    // The opened file is examined, not the path: the path may point elsewhere by now.
    let metadata = file.metadata().map_err(|e| unreadable(path, &e))?;
    check_private(path, &metadata, content)?;
    let mut bytes = Vec::new();
    file.take(limit_bytes + 1).read_to_end(&mut bytes).map_err(|e| unreadable(path, &e))?;
    if bytes.len() as u64 > limit_bytes {
        let what = format!("it is larger than {limit_bytes} bytes");
        return Err(SecretFileError::new(path, what, format!("name a file that holds {content}")));
    }
    Ok(bytes)
}

/// Writes a file that must not exist yet, readable by this user only.
///
/// # Errors
/// When the file exists or cannot be written; nothing is left behind then.
pub fn create(path: &Path, bytes: &[u8]) -> Result<(), SecretFileError> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR).map_err(|e| cannot_create(path, e))?;
    let mut file = File::from(file);
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(|error| {
        // Half a secret must not be taken for one later.
        let _ = fs::remove_file(path);
        SecretFileError::new(path, format!("cannot write it: {error}"), "free some space or choose another folder")
    })
}

/// Fills `bytes` from the system's generator of random numbers.
///
/// # Errors
/// When the system has none.
pub fn fill_random(bytes: &mut [u8]) -> io::Result<()> {
    let mut done = 0;
    while let Some(rest) = bytes.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match rustix::rand::getrandom(rest, rustix::rand::GetRandomFlags::empty()) {
            Ok(count) => done += count,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn check_private(path: &Path, metadata: &fs::Metadata, content: &str) -> Result<(), SecretFileError> {
    if !metadata.is_file() {
        return Err(SecretFileError::new(path, "it is no regular file", format!("name a file that holds {content}")));
    }
    let (owner, user) = (metadata.uid(), rustix::process::geteuid().as_raw());
    if owner != user {
        let what = format!("it belongs to user {owner}, this process runs as user {user}");
        return Err(SecretFileError::new(path, what, "copy it to a file of your own with mode 600"));
    }
    let mode = metadata.mode() & 0o777;
    if mode & 0o077 != 0 {
        let what = format!("others may use it (mode {mode:03o})");
        return Err(SecretFileError::new(path, what, format!("run `chmod 600 {}`", path.display())));
    }
    Ok(())
}

fn cannot_open(path: &Path, errno: rustix::io::Errno) -> SecretFileError {
    match errno {
        rustix::io::Errno::LOOP => SecretFileError::new(path, "it is a symbolic link", "name the file itself"),
        rustix::io::Errno::NOENT => SecretFileError::new(
            path,
            "there is no such file",
            "check the path, and that the file was copied to this host",
        ),
        other => unreadable(path, &other.into()),
    }
}

fn cannot_create(path: &Path, errno: rustix::io::Errno) -> SecretFileError {
    match errno {
        rustix::io::Errno::EXIST => SecretFileError::new(path, "it exists already", "use it, or delete it first"),
        other => {
            let what = format!("cannot create it: {}", io::Error::from(other));
            SecretFileError::new(path, what, "check the folder and its permissions")
        }
    }
}

fn unreadable(path: &Path, error: &io::Error) -> SecretFileError {
    SecretFileError::new(path, format!("cannot read it: {error}"), "check the path and the permissions")
}
