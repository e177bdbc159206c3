//! Owns the list of shards that are finished while a data set is written, so that a process that was killed goes on behind
//! the last of them; never writes a shard.
//!
//! The list begins with a key that names what is written, and grows by a line a shard: its record, and everything that
//! was summed up to its end. A line that was cut off, or whose files are not what it says, ends the list.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::error::DataError;
use crate::manifest::{Counts, ShardRecord};
use crate::shard::{digest_of, sync_folder};

/// What was summed over all documents so far.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Sums {
    pub counts: Counts,
    pub licences: BTreeMap<String, Counts>,
    /// Of chats: the tokens that end a turn.
    pub ends_of_turn: BTreeSet<u32>,
    /// Of chats: tokens that are learned.
    pub trained_tokens: u64,
}

#[derive(Debug, Deserialize)]
struct Line {
    shard: ShardRecord,
    sums: Sums,
}

/// Shards that are whole on disk.
#[derive(Debug, Default)]
pub(super) struct Finished {
    pub shards: Vec<ShardRecord>,
    pub sums: Sums,
}

/// The list, open for more.
pub(crate) struct ShardLog {
    /// Folder of the shards.
    dir: PathBuf,
    path: PathBuf,
    file: File,
    pub(super) finished: Finished,
}

impl ShardLog {
    /// Opens the list at `path` of the shards in `dir`, which is created. Shards that were made for another `key`, or are
    /// not whole, are removed, as is everything else in `dir`.
    ///
    /// # Errors
    /// A disk that refuses.
    pub fn open(path: &Path, dir: &Path, key: &str) -> Result<ShardLog, DataError> {
        std::fs::create_dir_all(dir).map_err(DataError::io(dir, "created"))?;
        let mut finished = Finished::default();
        let mut list = format!("{key}\n");
        let bytes = std::fs::read(path).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let mut lines = text.lines();
        if lines.next() == Some(key) {
            for line in lines {
                let Ok(Line { shard, sums }) = serde_json::from_str(line) else { break };
                if !is_whole(dir, &shard) {
                    break;
                }
                finished.shards.push(shard);
                finished.sums = sums;
                list.push_str(line);
                list.push('\n');
            }
        }
        clear(dir, &finished.shards)?;
        let temporary = path.with_extension("partial");
        let failed = || DataError::io(path, "written");
        let mut file = File::create(&temporary).map_err(failed())?;
        file.write_all(list.as_bytes()).and_then(|()| file.sync_all()).map_err(failed())?;
        std::fs::rename(&temporary, path).map_err(failed())?;
        Ok(ShardLog { dir: dir.to_owned(), path: path.to_owned(), file, finished })
    }

    /// Documents in finished shards: the first ones of the data set.
    pub fn documents(&self) -> u64 {
        self.finished.sums.counts.documents
    }

    /// Adds a shard whose files are on disk.
    pub(super) fn add(&mut self, shard: &ShardRecord, sums: &Sums) -> Result<(), DataError> {
        // The names of the files must be on disk before the list names them.
        sync_folder(&self.dir)?;
        // Plain data with string keys always has a JSON form.
        let mut line = serde_json::to_vec(&serde_json::json!({"shard": shard, "sums": sums})).unwrap_or_default();
        line.push(b'\n');
        let written = self.file.write_all(&line).and_then(|()| self.file.sync_data());
        written.map_err(DataError::io(&self.path, "written"))
    }
}

fn is_whole(dir: &Path, shard: &ShardRecord) -> bool {
    shard.files.iter().all(|(ending, record)| {
        let path = dir.join(format!("{}.{ending}", shard.name));
        // The length first: half a shard need not be read.
        std::fs::metadata(&path).is_ok_and(|metadata| metadata.len() == record.bytes)
            && digest_of(&path, &mut |_| {}).is_ok_and(|found| found == *record)
    })
}

/// Removes everything from `dir` but the files of `shards`.
fn clear(dir: &Path, shards: &[ShardRecord]) -> Result<(), DataError> {
    let kept: BTreeSet<String> =
        shards.iter().flat_map(|shard| shard.files.keys().map(|ending| format!("{}.{ending}", shard.name))).collect();
    for entry in std::fs::read_dir(dir).map_err(DataError::io(dir, "listed"))? {
        let path = entry.map_err(DataError::io(dir, "listed"))?.path();
        if path.file_name().and_then(OsStr::to_str).is_some_and(|name| kept.contains(name)) {
            continue;
        }
        let removed = if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
        removed.map_err(DataError::io(&path, "removed"))?;
    }
    Ok(())
}
