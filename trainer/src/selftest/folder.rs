//! Owns the folder that a self-test works in; never touches what is put there.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use crate::durable::{FileError, create_folder};
use crate::launch::{LaunchError, random_name};

/// An empty folder; removed with all it holds when this is dropped, unless the user wants to keep it.
#[derive(Debug)]
pub struct WorkFolder {
    path: PathBuf,
    kept: bool,
}

/// Why there is no folder to work in.
#[derive(Debug, thiserror::Error)]
pub enum WorkFolderError {
    /// The disk refuses.
    #[error(transparent)]
    File(#[from] FileError),
    /// No random name can be had.
    #[error(transparent)]
    Name(#[from] LaunchError),
    /// There is something in it.
    #[error("{}: is not empty; choose a new folder, so that nothing of yours is overwritten", path.display())]
    NotEmpty {
        /// The folder.
        path: PathBuf,
    },
}

impl WorkFolder {
    /// A new folder below the system's folder for temporary files.
    ///
    /// # Errors
    /// When the operating system refuses.
    pub fn temporary() -> Result<Self, WorkFolderError> {
        let path = absolute(&std::env::temp_dir())?.join(format!("jazari-selftest-{}", random_name()?));
        // Only for this user: others may write to the folder above.
        DirBuilder::new().mode(0o700).create(&path).map_err(FileError::at(&path, "create the folder"))?;
        Ok(Self { path, kept: false })
    }

    /// A folder of the user's choice, which stays.
    ///
    /// # Errors
    /// When it holds something, or the operating system refuses.
    pub fn kept(path: &Path) -> Result<Self, WorkFolderError> {
        let path = absolute(path)?;
        create_folder(&path)?;
        let first = fs::read_dir(&path).map_err(FileError::at(&path, "list the folder"))?.next();
        if first.is_some() {
            return Err(WorkFolderError::NotEmpty { path });
        }
        Ok(Self { path, kept: true })
    }

    /// Its absolute path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn absolute(path: &Path) -> Result<PathBuf, FileError> {
    let found: io::Result<PathBuf> = std::path::absolute(path);
    found.map_err(FileError::at(path, "find the folder"))
}

impl Drop for WorkFolder {
    fn drop(&mut self) {
        if !self.kept {
            // What cannot be removed is in the system's folder for temporary files, where it belongs.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn a_temporary_folder_goes_and_a_kept_one_stays() {
        let folder = WorkFolder::temporary().unwrap();
        let path = folder.path().to_owned();
        fs::write(path.join("file"), "x").unwrap();
        drop(folder);
        assert!(!path.exists());
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        drop(WorkFolder::kept(&path).unwrap());
        drop(WorkFolder::kept(&path).unwrap());
        fs::write(path.join("file"), "x").unwrap();
        let message = WorkFolder::kept(&path).unwrap_err().to_string();
        assert!(message.contains("is not empty") && path.join("file").exists(), "{message}");
    }
}
