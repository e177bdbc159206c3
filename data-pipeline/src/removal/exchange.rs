//! Owns the folder beside a data set in which its successor is made, and the exchange of the two; never looks into them.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

use super::RemovalError;
use crate::dataset::DataError;
use crate::shard::sync_folder;

/// The folder `.NAME.removing` beside a data set, held by one process at a time.
pub(super) struct Workplace {
    /// The data set, links resolved.
    dir: PathBuf,
    parent: PathBuf,
    path: PathBuf,
    _lock: File,
}

/// Where the new data set is made, and the old one lies after the exchange.
const NEW: &str = "dataset";
/// Where the old data set waits on systems that cannot exchange two folders.
const OLD: &str = "old";

impl Workplace {
    /// Creates or re-enters the folder, and clears what a killed process left.
    pub fn open(dir: &Path) -> Result<Self, RemovalError> {
        let resolved = resolved(dir);
        let not_a_dataset = || DataError::NotADataset { dir: dir.to_owned() };
        let (Some(parent), Some(name)) = (resolved.parent(), resolved.file_name()) else {
            return Err(not_a_dataset().into());
        };
        let path = parent.join(format!(".{}.removing", name.to_string_lossy()));
        if !resolved.is_dir() && !path.join(OLD).is_dir() {
            return Err(not_a_dataset().into());
        }
        std::fs::create_dir_all(&path).map_err(DataError::io(&path, "created"))?;
        let lock_path = path.join("lock");
        let lock = File::create(&lock_path).map_err(DataError::io(&lock_path, "created"))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(RemovalError::Busy { dir: dir.to_owned() }),
            Err(TryLockError::Error(source)) => return Err(DataError::io(&lock_path, "locked")(source).into()),
        }
        let workplace = Self { parent: parent.to_owned(), path, dir: resolved, _lock: lock };
        workplace.recover()?;
        Ok(workplace)
    }

    /// A process that was killed between two renames left the name empty: the old data set goes back.
    fn recover(&self) -> Result<(), DataError> {
        let old = self.path.join(OLD);
        if old.is_dir() && !self.dir.exists() {
            std::fs::rename(&old, &self.dir).map_err(DataError::io(&self.dir, "put back"))?;
            sync_folder(&self.parent)?;
        }
        for leftover in [old, self.path.join(NEW)] {
            if leftover.is_dir() {
                std::fs::remove_dir_all(&leftover).map_err(DataError::io(&leftover, "removed"))?;
            }
        }
        Ok(())
    }

    /// The empty folder for the new data set.
    pub fn fresh(&self) -> Result<PathBuf, DataError> {
        let fresh = self.path.join(NEW);
        std::fs::create_dir(&fresh).map_err(DataError::io(&fresh, "created"))?;
        Ok(fresh)
    }

    /// Puts the new data set in the place of the old one, durably, and deletes the old one.
    pub fn publish(self) -> Result<(), DataError> {
        let fresh = self.path.join(NEW);
        sync_folder(&fresh)?;
        if !exchange(&fresh, &self.dir)? {
            let old = self.path.join(OLD);
            std::fs::rename(&self.dir, &old).map_err(DataError::io(&self.dir, "moved"))?;
            std::fs::rename(&fresh, &self.dir).map_err(DataError::io(&self.dir, "replaced"))?;
        }
        sync_folder(&self.parent)?;
        std::fs::remove_dir_all(&self.path).map_err(DataError::io(&self.path, "removed"))
    }
}

impl Drop for Workplace {
    fn drop(&mut self) {
        // After a refusal only the lock is left; a folder with anything else in it is kept for the next attempt.
        _ = std::fs::remove_file(self.path.join("lock"));
        _ = std::fs::remove_dir(&self.path);
    }
}

fn resolved(dir: &Path) -> PathBuf {
    let absolute = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
    dir.canonicalize().unwrap_or(absolute)
}

/// Exchanges two folders in one step; `false` where the system has no such step.
fn exchange(a: &Path, b: &Path) -> Result<bool, DataError> {
    #[cfg(target_os = "linux")]
    {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        use rustix::io::Errno;
        match renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE) {
            Ok(()) => Ok(true),
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => Ok(false),
            Err(error) => Err(DataError::io(b, "replaced")(error.into())),
        }
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = (a, b);
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    fn folder(path: &Path, content: &str) {
        std::fs::create_dir_all(path).unwrap();
        std::fs::write(path.join("x"), content).unwrap();
    }

    fn content(path: &Path) -> String {
        std::fs::read_to_string(path.join("x")).unwrap()
    }

    #[test]
    fn folders_change_places_and_nothing_else_stays() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        folder(&data, "old");
        let workplace = Workplace::open(&data).unwrap();
        assert!(matches!(Workplace::open(&data), Err(RemovalError::Busy { .. })));
        folder(&workplace.fresh().unwrap(), "new");
        assert_eq!(content(&data), "old");
        workplace.publish().unwrap();
        assert_eq!(content(&data), "new");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_a_killed_process_left_is_cleared_or_put_back() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        folder(&data, "new");
        folder(&dir.path().join(".data.removing/dataset"), "half");
        drop(Workplace::open(&data).unwrap());
        assert_eq!((content(&data).as_str(), std::fs::read_dir(dir.path()).unwrap().count()), ("new", 1));
        // Between the two renames of a system without exchange.
        std::fs::create_dir_all(dir.path().join(".data.removing")).unwrap();
        std::fs::rename(&data, dir.path().join(".data.removing/old")).unwrap();
        drop(Workplace::open(&data).unwrap());
        assert_eq!((content(&data).as_str(), std::fs::read_dir(dir.path()).unwrap().count()), ("new", 1));
        assert!(matches!(Workplace::open(&dir.path().join("none")), Err(RemovalError::Data(_))));
    }
}
