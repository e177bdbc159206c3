//! Owns the coordinator's files: one folder a round, committed by a rename; never touches sockets.
//!
//! `round-00000012/` holds the parameters under Hugging Face names, the optimizer's vectors and `ROUND.json`, which is
//! written last and lists size and digest of the others. The two newest rounds are kept.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use super::OuterError;
use super::average::OuterState;
use super::held::{entries_of, floats_of};
use super::messages::Shape;
use crate::durable::{self, FileError};
use crate::tensor_file::{self, FileEntry, TensorFile};

const ROUND_FILE: &str = "ROUND.json";
const MODEL_FILE: &str = "model.safetensors";
const OPTIMIZER_FILE: &str = "optimizer.safetensors";
const LOG_FILE: &str = "rounds.jsonl";
const FORMAT_VERSION: u32 = 1;
/// Rounds kept: the newest, and the one before it for a look back.
const KEPT: usize = 2;
/// Largest `ROUND.json` that is read, bytes.
const LIMIT_BYTES: u64 = 16 << 20;

/// What a round is, beside its vectors.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// What all sites have alike, as the first one said it.
    pub facts: Vec<(String, String)>,
    /// That site.
    pub set_by: String,
    /// Names and shapes of the parameters.
    pub shapes: Vec<Shape>,
    /// The newest round that holds a delta of each site.
    pub included: BTreeMap<String, u64>,
    /// Sites whose runs have ended.
    pub finished: BTreeSet<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RoundFile {
    format_version: u32,
    round: u64,
    state_digest: String,
    record: Record,
    files: Vec<FileEntry>,
}

/// The folder of a coordinator; locked while it runs.
pub struct Store {
    root: PathBuf,
    _lock: File,
}

impl Store {
    /// Creates or opens the folder and takes its lock.
    ///
    /// # Errors
    /// When the folder cannot be made, or another coordinator holds it.
    pub fn open(root: &Path) -> Result<Self, OuterError> {
        durable::create_folder(root)?;
        let path = root.join(".lock");
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
        let lock = lock.map_err(FileError::at(&path, "open the lock"))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|_| {
            OuterError::refused(
                format!("{}: another coordinator keeps its state here", root.display()),
                "end it first, or choose another --output",
            )
        })?;
        Ok(Self { root: root.to_owned(), _lock: lock })
    }

    /// Commits a round: after `Ok` it survives a crash; after `Err` the round before is as it was.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn commit(&self, state: &OuterState, record: &Record) -> Result<(), OuterError> {
        let target = self.root.join(format!("round-{:08}", state.round));
        let temporary = self.root.join(format!(".round-{:08}.tmp", state.round));
        if temporary.exists() {
            fs::remove_dir_all(&temporary).map_err(FileError::at(&temporary, "remove an unfinished round"))?;
        }
        durable::create_folder(&temporary)?;
        let specs = Shape::to_specs(&record.shapes);
        let model = entries_of::<OuterError>("", &state.theta, &specs);
        let mut optimizer = entries_of::<OuterError>("momentum", &state.momentum, &specs);
        optimizer.extend(entries_of::<OuterError>("residual", &state.residual, &specs));
        let files = vec![
            tensor_file::write::<OuterError>(&temporary.join(MODEL_FILE), model)?,
            tensor_file::write::<OuterError>(&temporary.join(OPTIMIZER_FILE), optimizer)?,
        ];
        let (round, state_digest, record) = (state.round, state.digest(), record.clone());
        let file = RoundFile { format_version: FORMAT_VERSION, round, state_digest, record, files };
        let text = serde_json::to_vec_pretty(&file).unwrap_or_default();
        durable::write_atomic(&temporary.join(ROUND_FILE), &text)?;
        fs::rename(&temporary, &target).map_err(FileError::at(&target, "put the round into place"))?;
        durable::sync_folder(&self.root)?;
        for (_, old) in self.list()?.into_iter().skip(KEPT) {
            fs::remove_dir_all(&old).map_err(FileError::at(&old, "remove an old round"))?;
        }
        Ok(())
    }

    /// The newest round; `None` in a fresh folder.
    ///
    /// # Errors
    /// When it is damaged. An older one would put the coordinator behind its sites, so that is left to a person.
    pub fn newest(&self) -> Result<Option<(OuterState, Record)>, OuterError> {
        let Some((_, folder)) = self.list()?.into_iter().next() else { return Ok(None) };
        let path = folder.join(ROUND_FILE);
        let damaged = |path: &Path, what: String| OuterError::Damaged {
            path: path.to_owned(),
            what: format!(
                "{what}; restore the folder from a copy, or move it away to go on from the round before: sites that are \
                 further must then be resumed from a checkpoint of that round"
            ),
        };
        let text = durable::read_text(&path, LIMIT_BYTES)?;
        let file: RoundFile =
            serde_json::from_str(&text).map_err(|error| damaged(&path, format!("not a valid record ({error})")))?;
        if file.format_version != FORMAT_VERSION {
            let found = file.format_version;
            return Err(damaged(&path, format!("format version {found}, this program reads {FORMAT_VERSION}")));
        }
        for entry in &file.files {
            let at = folder.join(&entry.name);
            if tensor_file::describe(&at)? != *entry {
                return Err(damaged(&at, "size or digest is not that of the record".into()));
            }
        }
        let specs = Shape::to_specs(&file.record.shapes);
        let optimizer = TensorFile::open(&folder.join(OPTIMIZER_FILE))?;
        let has_residual = optimizer.names().iter().any(|name| name.starts_with("residual/"));
        let state = OuterState {
            round: file.round,
            theta: floats_of(&TensorFile::open(&folder.join(MODEL_FILE))?, "", &specs)?,
            momentum: floats_of(&optimizer, "momentum", &specs)?,
            residual: if has_residual { floats_of(&optimizer, "residual", &specs)? } else { Vec::new() },
        };
        if state.digest() != file.state_digest {
            return Err(damaged(&path, "the state's digest is not that of the record".into()));
        }
        Ok(Some((state, file.record)))
    }

    /// Appends a line to the log of rounds.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn log<T: Serialize>(&self, line: &T) -> Result<(), OuterError> {
        let path = self.root.join(LOG_FILE);
        let mut file =
            OpenOptions::new().create(true).append(true).open(&path).map_err(FileError::at(&path, "open the log"))?;
        let text = serde_json::to_string(line).unwrap_or_default();
        file.write_all(format!("{text}\n").as_bytes()).map_err(FileError::at(&path, "append"))?;
        Ok(())
    }

    fn list(&self) -> Result<Vec<(u64, PathBuf)>, OuterError> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.root).map_err(FileError::at(&self.root, "list the folder"))? {
            let path = entry.map_err(FileError::at(&self.root, "list the folder"))?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if let Some(round) = name.strip_prefix("round-").and_then(|round| round.parse().ok()) {
                found.push((round, path));
            }
        }
        found.sort_unstable_by(|a, b| b.cmp(a));
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    fn record() -> Record {
        Record {
            facts: vec![("a".into(), "b".into())],
            set_by: "rabat".into(),
            shapes: vec![Shape { name: "w".into(), shape: vec![2, 2] }, Shape { name: "norm".into(), shape: vec![1] }],
            included: [("rabat".to_owned(), 3)].into(),
            finished: BTreeSet::new(),
        }
    }

    fn state(round: u64) -> OuterState {
        let values = |start: f32| (0..5).map(|i| start + i as f32).collect::<Vec<_>>();
        OuterState { round, theta: values(0.5), momentum: values(round as f32), residual: values(-1.0) }
    }

    #[test]
    fn the_newest_round_is_read_and_two_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("outer")).unwrap();
        assert!(store.newest().unwrap().is_none());
        for round in 0..4 {
            store.commit(&state(round), &record()).unwrap();
            assert_eq!(store.newest().unwrap(), Some((state(round), record())));
        }
        let rounds: Vec<u64> = store.list().unwrap().into_iter().map(|(round, _)| round).collect();
        assert_eq!(rounds, [3, 2]);
        let plain = OuterState { residual: Vec::new(), ..state(4) };
        store.commit(&plain, &record()).unwrap();
        assert_eq!(store.newest().unwrap().unwrap().0, plain);
    }

    #[test]
    fn a_second_coordinator_and_damage_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let second = Store::open(dir.path()).map(|_| ()).unwrap_err().to_string();
        assert!(second.contains("another coordinator"), "{second}");
        store.commit(&state(1), &record()).unwrap();
        let model = dir.path().join("round-00000001/model.safetensors");
        let mut bytes = fs::read(&model).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&model, bytes).unwrap();
        let error = store.newest().unwrap_err().to_string();
        assert!(error.contains("model.safetensors: size or digest"), "{error}");
        // An unfinished round is never taken for one.
        fs::create_dir(dir.path().join(".round-00000002.tmp")).unwrap();
        store.commit(&state(2), &record()).unwrap();
        assert_eq!(store.newest().unwrap().unwrap().0, state(2));
    }
}
