//! Owns the work folder beside the output and the one rename that publishes it; never looks into a stage's files.

use std::fs::{File, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::error::PrepareError;
use super::parts;

/// Who may use a work folder at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Holding {
    /// One process.
    Alone,
    /// Any number of workers.
    Together,
}

/// The folder `.NAME.preparing` beside the output, held by one process at a time, or by workers.
pub(crate) struct WorkDir {
    output: PathBuf,
    parent: PathBuf,
    path: PathBuf,
    /// Ancestors that did not exist before, outermost last.
    created: Vec<PathBuf>,
    _lock: File,
}

impl WorkDir {
    /// Creates or re-enters the work folder of `output`, alone or together with others.
    ///
    /// # Errors
    /// [`PrepareError::Busy`] when another process holds it.
    pub fn open(output: &Path, holding: Holding) -> Result<WorkDir, PrepareError> {
        let name = output.file_name().ok_or_else(|| PrepareError::OutputTaken { dir: output.to_owned() })?;
        let parent = match output.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        let missing = |dir: &&Path| !dir.as_os_str().is_empty() && !dir.exists();
        let created: Vec<PathBuf> = parent.ancestors().take_while(missing).map(Path::to_owned).collect();
        let path = parent.join(format!(".{}.preparing", name.to_string_lossy()));
        std::fs::create_dir_all(&path).map_err(|source| {
            remove_empty(&created);
            match source.kind() {
                // Space may be made, and then the same command does it.
                ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
                    PrepareError::Io { path: path.clone(), action: "created", source }
                }
                _ => PrepareError::OutputRefused { dir: output.to_owned(), source },
            }
        })?;
        let lock_path = path.join("lock");
        let lock = File::create(&lock_path).map_err(PrepareError::io(&lock_path, "created"))?;
        let locked = match holding {
            Holding::Alone => lock.try_lock(),
            Holding::Together => lock.try_lock_shared(),
        };
        match locked {
            Ok(()) => Ok(WorkDir { output: output.to_owned(), parent, path, created, _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(PrepareError::Busy { dir: output.to_owned() }),
            Err(TryLockError::Error(source)) => Err(PrepareError::Io { path: lock_path, action: "locked", source }),
        }
    }

    /// Removes what a process left that was killed after publishing `output`, before or while it cleaned up; one that is
    /// at work keeps its folder.
    pub fn sweep(output: &Path) {
        let left = output
            .file_name()
            .is_some_and(|name| output.with_file_name(format!(".{}.preparing", name.to_string_lossy())).is_dir());
        if left && let Ok(work) = WorkDir::open(output, Holding::Alone) {
            work.discard();
        }
    }

    /// An empty folder `name` inside; what was there is removed.
    pub fn fresh(&self, name: &str) -> Result<PathBuf, PrepareError> {
        let dir = self.path.join(name);
        if dir.exists() {
            std::fs::remove_dir_all(&dir).map_err(PrepareError::io(&dir, "removed"))?;
        }
        std::fs::create_dir(&dir).map_err(PrepareError::io(&dir, "created"))?;
        Ok(dir)
    }

    /// The folder `name` inside, which may not exist.
    pub fn at(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path.join(name)
    }

    /// The work folder itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes the parts that other configurations or inputs left behind.
    pub fn keep_only_parts(&self, key: &str) -> Result<(), PrepareError> {
        let own = parts::folder(key);
        for entry in std::fs::read_dir(&self.path).map_err(PrepareError::io(&self.path, "listed"))? {
            let entry = entry.map_err(PrepareError::io(&self.path, "listed"))?;
            let (name, path) = (entry.file_name(), entry.path());
            if parts::is_folder(&name) && name != own {
                std::fs::remove_dir_all(&path).map_err(PrepareError::io(&path, "removed"))?;
            }
        }
        Ok(())
    }

    /// Moves the finished folder `name` to the output, durably, and removes the rest.
    pub fn publish(self, name: &str) -> Result<(), PrepareError> {
        let finished = self.path.join(name);
        sync_dir(&finished)?;
        if self.output.exists() {
            // Only ever an empty folder: anything else was refused at the start, and `remove_dir` refuses it again.
            std::fs::remove_dir(&self.output).map_err(PrepareError::io(&self.output, "replaced"))?;
        }
        std::fs::rename(&finished, &self.output).map_err(PrepareError::io(&self.output, "written"))?;
        sync_dir(&self.parent)?;
        std::fs::remove_dir_all(&self.path).map_err(PrepareError::io(&self.path, "removed"))
    }

    /// Removes every trace of an attempt that came to nothing.
    pub fn discard(self) {
        // The reason for discarding is what the user must see; a folder that stays is reused by the next attempt.
        _ = std::fs::remove_dir_all(&self.path);
        remove_empty(&self.created);
    }
}

/// Removes folders, innermost first, up to the first that is not empty or was never made.
fn remove_empty(created: &[PathBuf]) {
    for dir in created {
        match std::fs::remove_dir(dir) {
            Err(error) if error.kind() != ErrorKind::NotFound => return,
            _ => {}
        }
    }
}

/// Makes a folder's entries durable.
pub(crate) fn sync_dir(dir: &Path) -> Result<(), PrepareError> {
    File::open(dir).and_then(|file| file.sync_all()).map_err(PrepareError::io(dir, "synced"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn publishing_moves_one_folder_and_leaves_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let output = dir.path().join("a/b/out");
        let work = WorkDir::open(&output, Holding::Alone).unwrap();
        std::fs::write(work.fresh("spool").unwrap().join("x"), "1").unwrap();
        std::fs::write(work.fresh("dataset").unwrap().join("y"), "2").unwrap();
        std::fs::create_dir(&output).unwrap();
        work.publish("dataset").unwrap();
        assert_eq!(std::fs::read_to_string(output.join("y")).unwrap(), "2");
        assert_eq!(std::fs::read_dir(dir.path().join("a/b")).unwrap().count(), 1);
    }

    #[test]
    fn what_a_kill_left_of_the_work_folder_is_swept_and_one_in_use_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let output = dir.path().join("out");
        let work = WorkDir::open(&output, Holding::Alone).unwrap();
        WorkDir::sweep(&output);
        assert!(work.path().exists());
        work.discard();
        // The lock goes with the folder, in any order.
        std::fs::create_dir_all(dir.path().join(".out.preparing/dataset")).unwrap();
        WorkDir::sweep(&output);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn discarding_removes_what_opening_created_and_no_more() {
        let dir = tempfile::tempdir().unwrap();
        let output = dir.path().join("a/b/out");
        let work = WorkDir::open(&output, Holding::Alone).unwrap();
        work.fresh("spool").unwrap();
        work.discard();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        std::fs::create_dir(dir.path().join("a")).unwrap();
        WorkDir::open(&output, Holding::Alone).unwrap().discard();
        assert!(dir.path().join("a").exists() && !dir.path().join("a/b").exists());
    }

    #[test]
    fn a_folder_in_use_is_busy_and_a_full_output_is_never_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let output = dir.path().join("out");
        let work = WorkDir::open(&output, Holding::Alone).unwrap();
        for holding in [Holding::Alone, Holding::Together] {
            assert!(matches!(WorkDir::open(&output, holding), Err(PrepareError::Busy { .. })));
        }
        work.fresh("dataset").unwrap();
        std::fs::create_dir(&output).unwrap();
        std::fs::write(output.join("precious"), "").unwrap();
        assert!(work.publish("dataset").is_err());
        assert!(output.join("precious").exists());
    }
}
