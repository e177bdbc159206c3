//! Owns making an export's folder appear whole or not at all, and the record of its files; never touches their content.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{HubError, JSON_LIMIT_BYTES};
use crate::durable::{FileError, create_folder, read_text, sync_folder, write_atomic};
use crate::tensor_file::{FileEntry, describe};

/// The record of an export, inside its folder.
pub(crate) const RECORD_FILE: &str = "jazari_export.json";

/// What an export was when it had been proven to be the model it was made from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Record {
    /// Version of the program.
    pub jazari: String,
    /// Every file of the folder, by name.
    pub files: Vec<FileEntry>,
}

impl Record {
    /// Describes every file of `dir` and writes the record beside them.
    pub fn write(dir: &Path) -> Result<(), HubError> {
        let mut files = Vec::new();
        for entry in fs::read_dir(dir).map_err(FileError::at(dir, "list the folder"))? {
            files.push(describe(&entry.map_err(FileError::at(dir, "list the folder"))?.path())?);
        }
        files.sort_by(|a, b| a.name.cmp(&b.name));
        let record = Self { jazari: env!("CARGO_PKG_VERSION").into(), files };
        let text = serde_json::to_string_pretty(&record)
            .map_err(|error| HubError::Json { path: dir.join(RECORD_FILE), cause: error.to_string() })?;
        Ok(write_atomic(&dir.join(RECORD_FILE), format!("{text}\n").as_bytes())?)
    }

    /// The record in `dir`, where there is one.
    pub fn read(dir: &Path) -> Result<Option<Self>, HubError> {
        let path = dir.join(RECORD_FILE);
        if !path.exists() {
            return Ok(None);
        }
        let text = read_text(&path, JSON_LIMIT_BYTES)?;
        serde_json::from_str(&text).map(Some).map_err(|error| HubError::Json { path, cause: error.to_string() })
    }

    /// Compares every recorded file with what lies in `dir` now. Files that were added since are no concern of it.
    ///
    /// # Errors
    /// Says which files are not those that were proven.
    pub fn compare(&self, dir: &Path) -> Result<String, String> {
        let mut changed = Vec::new();
        for recorded in &self.files {
            // A name with a folder in it could lead anywhere on this machine.
            if Path::new(&recorded.name).file_name() != Some(recorded.name.as_ref()) {
                return Err(format!("{RECORD_FILE}: {:?} is not a plain file name", recorded.name));
            }
            match describe(&dir.join(&recorded.name)) {
                Ok(found) if found == *recorded => {}
                Ok(_) => changed.push(format!("{} was changed", recorded.name)),
                Err(error) => changed.push(error.to_string()),
            }
        }
        if changed.is_empty() {
            return Ok(format!("{} files are those that were exported", self.files.len()));
        }
        Err(format!("{} since the export was proven; export again", changed.join(", ")))
    }
}

/// Lets `make` fill a hidden sibling of `out` and renames it into place when all went well; else it is removed.
///
/// # Errors
/// [`HubError::Exists`] when `out` is there already, what `make` returns, and what the disk refuses.
pub(crate) fn publish<T, E: From<HubError> + From<FileError>>(
    out: &Path,
    make: impl FnOnce(&Path) -> Result<T, E>,
) -> Result<T, E> {
    if out.symlink_metadata().is_ok() {
        return Err(HubError::Exists { path: out.to_owned() }.into());
    }
    let parent = out.parent().filter(|path| !path.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = out.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let partial = parent.join(format!(".{name}.partial-{}", std::process::id()));
    create_folder(parent)?;
    fs::create_dir(&partial).map_err(FileError::at(&partial, "create the folder"))?;
    let made = make(&partial).and_then(|made| {
        fs::rename(&partial, out).map_err(FileError::at(out, "put the export into place"))?;
        sync_folder(parent)?;
        Ok(made)
    });
    if made.is_err() {
        // The failure itself is what the caller must hear about; a leftover is hidden and harmless.
        let _ = fs::remove_dir_all(&partial);
    }
    made
}
