//! Owns the run directory: its lock, its small files and its logs; never touches checkpoints' insides.
//!
//! Layout: `config.resolved.yaml`, `plan.json`, `data.json`, `metrics.jsonl`, `events.jsonl`, `tokenizer/`,
//! `checkpoints/`, `eval/`, `report.html`.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::{FlockOperation, flock};
use serde_json::Value;

use crate::durable::{self, FileError};
use crate::events::Event;

/// Largest log that is rewritten at resume, bytes (100 million steps' records would be larger: refuse to guess).
const METRICS_LIMIT_BYTES: u64 = 4 << 30;

/// What can be wrong with a run directory.
#[derive(Debug, thiserror::Error)]
pub enum RunDirError {
    /// Disk trouble.
    #[error(transparent)]
    File(#[from] FileError),
    /// Another process trains here.
    #[error(
        "{}: another process is training in this folder; wait for it, or choose another output_dir",
        path.display()
    )]
    Locked {
        /// The run directory.
        path: PathBuf,
    },
    /// A log line that is not JSON.
    #[error("{}:{line}: not a JSON object ({source}); move the file away to go on", path.display())]
    DamagedLog {
        /// The log.
        path: PathBuf,
        /// Line, 1-based.
        line: usize,
        /// What the parser said.
        source: serde_json::Error,
    },
}

/// An open run directory; holds an advisory lock that the kernel drops with the process, however it ends.
pub struct RunDir {
    root: PathBuf,
    metrics: File,
    events: File,
    _lock: File,
}

impl RunDir {
    /// Creates or opens the folder and takes its lock.
    ///
    /// # Errors
    /// When the folder cannot be made or another process holds it.
    pub fn open(root: &Path) -> Result<Self, RunDirError> {
        durable::create_folder(root)?;
        let lock_path = root.join(".lock");
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&lock_path)
            .map_err(FileError::at(&lock_path, "open the lock"))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| RunDirError::Locked { path: root.to_owned() })?;
        let append = |name: &str| -> Result<File, RunDirError> {
            let path = root.join(name);
            let file = OpenOptions::new().create(true).append(true).open(&path);
            Ok(file.map_err(FileError::at(&path, "open the log"))?)
        };
        Ok(Self {
            metrics: append("metrics.jsonl")?,
            events: append("events.jsonl")?,
            root: root.to_owned(),
            _lock: lock,
        })
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Folder of the checkpoints.
    pub fn checkpoints(&self) -> PathBuf {
        self.root.join("checkpoints")
    }

    /// Folder of the tokenizer files that travel with exports.
    pub fn tokenizer(&self) -> PathBuf {
        self.root.join("tokenizer")
    }

    /// Writes one of the small files.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<(), RunDirError> {
        Ok(durable::write_atomic(&self.root.join(name), bytes)?)
    }

    /// Copies the dataset's tokenizer files, so that the run can be exported when the dataset is gone.
    ///
    /// # Errors
    /// When a file cannot be read or written.
    pub fn copy_tokenizer(&self, from: &Path) -> Result<(), RunDirError> {
        let to = self.tokenizer();
        durable::create_folder(&to)?;
        for entry in fs::read_dir(from).map_err(FileError::at(from, "list the folder"))? {
            let path = entry.map_err(FileError::at(from, "list the folder"))?.path();
            let Some(name) = path.file_name() else { continue };
            if path.is_file() {
                let bytes = fs::read(&path).map_err(FileError::at(&path, "read"))?;
                durable::write_atomic(&to.join(name), &bytes)?;
            }
        }
        Ok(())
    }

    /// Appends an event to its log; progress-only events are not written.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn record(&mut self, event: &Event) -> Result<(), RunDirError> {
        let (file, name) = match event {
            Event::Tick { .. } | Event::Evaluating { .. } => return Ok(()),
            Event::Step(_) | Event::Evaluated(_) | Event::Digest { .. } => (&mut self.metrics, "metrics.jsonl"),
            _ => (&mut self.events, "events.jsonl"),
        };
        let mut value = match event {
            Event::Step(record) => serde_json::to_value(record),
            Event::Evaluated(record) => serde_json::to_value(record),
            other => serde_json::to_value(other),
        }
        .unwrap_or(Value::Null);
        if let Value::Object(object) = &mut value {
            object.insert("unix_ms".into(), unix_ms().into());
        }
        // One write call a line: a kill between two bytes of a line can only cut the last one.
        let path = self.root.join(name);
        file.write_all(format!("{value}\n").as_bytes()).map_err(FileError::at(&path, "append"))?;
        Ok(())
    }

    /// Forgets the records of steps after `step`, which a resumed run is about to do again.
    ///
    /// A half line at the end (a kill in mid-write) is dropped as well.
    ///
    /// # Errors
    /// When the log cannot be read or rewritten, or a line inside it is damaged.
    pub fn rewind_metrics(&mut self, step: u64) -> Result<(), RunDirError> {
        let path = self.root.join("metrics.jsonl");
        let text = durable::read_text(&path, METRICS_LIMIT_BYTES)?;
        let complete = text.rfind('\n').map_or("", |end| text.get(..=end).unwrap_or(""));
        let mut kept = String::with_capacity(complete.len());
        for (i, line) in complete.lines().enumerate() {
            let value: Value = serde_json::from_str(line).map_err(|source| RunDirError::DamagedLog {
                path: path.clone(),
                line: i + 1,
                source,
            })?;
            if value.get("step").and_then(Value::as_u64).is_some_and(|s| s <= step) {
                kept.push_str(line);
                kept.push('\n');
            }
        }
        if kept.len() != text.len() {
            durable::write_atomic(&path, kept.as_bytes())?;
            self.metrics = OpenOptions::new().append(true).open(&path).map_err(FileError::at(&path, "open the log"))?;
        }
        Ok(())
    }
}

/// Whether a process trains in this run directory now.
pub fn is_locked(root: &Path) -> bool {
    let lock = OpenOptions::new().write(true).open(root.join(".lock"));
    lock.is_ok_and(|lock| flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err())
}

fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn a_second_process_is_refused_and_the_lock_dies_with_its_holder() {
        let dir = tempfile::tempdir().unwrap();
        let first = RunDir::open(dir.path()).unwrap();
        let refused = RunDir::open(dir.path()).map(|_| ()).unwrap_err().to_string();
        assert!(refused.contains("another process is training"), "{refused}");
        assert!(is_locked(dir.path()));
        drop(first);
        assert!(!is_locked(dir.path()));
        assert!(RunDir::open(dir.path()).is_ok());
    }

    #[test]
    fn rewinding_drops_later_steps_and_a_torn_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        fs::write(&path, "{\"step\":1}\n{\"step\":2}\n{\"step\":3}\n{\"st").unwrap();
        let mut run = RunDir::open(dir.path()).unwrap();
        run.rewind_metrics(2).unwrap();
        run.record(&Event::Evaluated(crate::events::EvalRecord {
            step: 3,
            val_bpb_all: 1.0,
            val: Default::default(),
            seconds: 0.0,
            energy_joules: None,
        }))
        .unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("{\"step\":1}\n{\"step\":2}\n{\"step\":3,"), "{text}");
        assert_eq!(text.lines().count(), 3);
    }

    #[test]
    fn a_damaged_line_inside_the_log_is_named() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("metrics.jsonl"), "{\"step\":1}\nxx\n{\"step\":3}\n").unwrap();
        let error = RunDir::open(dir.path()).unwrap().rewind_metrics(2).unwrap_err().to_string();
        assert!(error.contains("metrics.jsonl:2: not a JSON object"), "{error}");
    }
}
