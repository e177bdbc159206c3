//! Owns the files that a certificate speaks for: their names, their digests, and what is wrong with them; never touches
//! signatures.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::envelope::hex;
use crate::durable::FileError;

/// Bytes read at once.
const BUFFER_BYTES: usize = 1 << 20;

/// A file by name and digest: an in-toto ResourceDescriptor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subject {
    /// `PLACE/path inside it`, with slashes.
    pub name: String,
    /// Its digest.
    pub digest: DigestSet,
}

/// Digests of a file by algorithm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DigestSet {
    /// SHA-256, in hexadecimal.
    pub sha256: String,
}

/// Told how many bytes were read, from several threads.
pub type OnBytes<'a> = &'a (dyn Fn(u64) + Sync);

/// The files below a folder, by path inside it; names that begin with a dot (locks, unfinished writes) are left out.
///
/// # Errors
/// When a folder cannot be listed, or something in it is neither a file nor a folder.
pub fn files_of(folder: &Path) -> Result<BTreeMap<String, PathBuf>, FileError> {
    let mut found = BTreeMap::new();
    walk(folder, "", &mut found)?;
    Ok(found)
}

fn walk(folder: &Path, prefix: &str, found: &mut BTreeMap<String, PathBuf>) -> Result<(), FileError> {
    for entry in fs::read_dir(folder).map_err(FileError::at(folder, "list the folder"))? {
        let entry = entry.map_err(FileError::at(folder, "list the folder"))?;
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        if name.starts_with('.') {
            continue;
        }
        let kind = entry.file_type().map_err(FileError::at(&path, "look at"))?;
        let inside = format!("{prefix}{name}");
        if kind.is_dir() {
            walk(&path, &format!("{inside}/"), found)?;
        } else {
            // Links and pipes are listed too: reading them is what is refused, by name.
            found.insert(inside, path);
        }
    }
    Ok(())
}

/// Names and digests of files, in the order given.
///
/// # Errors
/// When one cannot be read.
pub fn describe(
    place: &str,
    files: &BTreeMap<String, PathBuf>,
    on_bytes: OnBytes<'_>,
) -> Result<Vec<Subject>, FileError> {
    let files: Vec<_> = files.iter().collect();
    let one = |(name, path): &(&String, &PathBuf)| {
        let sha256 = sha256(path, on_bytes)?;
        Ok(Subject { name: format!("{place}/{name}"), digest: DigestSet { sha256 } })
    };
    files.par_iter().map(one).collect()
}

/// SHA-256 of a regular file; a link is not followed.
fn sha256(path: &Path, on_bytes: OnBytes<'_>) -> Result<String, FileError> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let opened = rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| match errno {
        rustix::io::Errno::LOOP => io::Error::other("it is a symbolic link"),
        other => other.into(),
    });
    let mut file = File::from(opened.map_err(FileError::at(path, "open"))?);
    if !file.metadata().map_err(FileError::at(path, "look at"))?.is_file() {
        return Err(FileError::at(path, "read")(io::Error::other("it is no regular file")));
    }
    let (mut hasher, mut buffer) = (Sha256::new(), vec![0u8; BUFFER_BYTES]);
    loop {
        let count = file.read(&mut buffer).map_err(FileError::at(path, "read"))?;
        if count == 0 {
            return Ok(hex(&hasher.finalize()));
        }
        hasher.update(buffer.get(..count).unwrap_or_default());
        on_bytes(count as u64);
    }
}

/// What is wrong with a folder that a certificate speaks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub what: String,
}

/// Compares the files of a folder with the subjects of `place`. With `whole` a file that the certificate does not know is
/// a finding too.
///
/// # Errors
/// When the folder cannot be listed.
pub fn check(
    place: &str,
    folder: &Path,
    subjects: &[Subject],
    whole: bool,
    on_bytes: OnBytes<'_>,
) -> Result<Vec<Finding>, FileError> {
    let inside = |subject: &Subject| {
        Some((subject.name.strip_prefix(place)?.strip_prefix('/')?.to_owned(), subject.digest.sha256.clone()))
    };
    let wanted: BTreeMap<String, String> = subjects.iter().filter_map(inside).collect();
    let present = files_of(folder)?;
    let one = |(name, digest): &(&String, &String)| {
        let path = folder.join(name);
        let Some(found) = present.get(*name) else {
            return Some(Finding { path, what: "the file is missing".into() });
        };
        match sha256(found, on_bytes) {
            Ok(found) if found == **digest => None,
            Ok(_) => Some(Finding { path, what: "the file was changed: its SHA-256 is not the certified one".into() }),
            Err(error) => Some(Finding { path, what: error.to_string() }),
        }
    };
    let listed: Vec<_> = wanted.iter().collect();
    let mut findings: Vec<Finding> = listed.par_iter().filter_map(one).collect();
    if whole {
        let strange = present.iter().filter(|(name, _)| !wanted.contains_key(*name));
        let what = "the file is not in the certificate";
        findings.extend(strange.map(|(_, path)| Finding { path: path.clone(), what: what.into() }));
    }
    Ok(findings)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn changed_missing_added_and_linked_files_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at("sub")).unwrap();
        for name in ["a", "b", "c", "sub/d", ".lock"] {
            fs::write(at(name), name).unwrap();
        }
        let nothing = |_| ();
        let subjects = describe("model", &files_of(dir.path()).unwrap(), &nothing).unwrap();
        let names: Vec<&str> = subjects.iter().map(|subject| subject.name.as_str()).collect();
        assert_eq!(names, ["model/a", "model/b", "model/c", "model/sub/d"]);
        // `printf a | sha256sum`
        assert_eq!(subjects[0].digest.sha256, "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb");
        assert_eq!(check("model", dir.path(), &subjects, true, &nothing).unwrap(), []);

        fs::write(at("a"), "A").unwrap();
        fs::remove_file(at("b")).unwrap();
        fs::remove_file(at("c")).unwrap();
        std::os::unix::fs::symlink(at("a"), at("c")).unwrap();
        fs::write(at("sub/e"), "").unwrap();
        let found = check("model", dir.path(), &subjects, true, &nothing).unwrap();
        let told: Vec<String> = found.iter().map(|f| format!("{}: {}", f.path.display(), f.what)).collect();
        for (name, what) in [("a", "was changed"), ("b", "is missing"), ("c", "symbolic link"), ("sub/e", "not in the")]
        {
            let path = at(name).display().to_string();
            assert!(told.iter().any(|line| line.starts_with(&path) && line.contains(what)), "{name}: {told:?}");
        }
        assert_eq!(told.len(), 4);
        assert_eq!(check("model", dir.path(), &subjects, false, &nothing).unwrap().len(), 3);
    }
}
