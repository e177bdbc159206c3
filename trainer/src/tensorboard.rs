//! Owns event files that TensorBoard reads: scalars of steps and evaluations; never touches the run.
//!
//! A file is a sequence of TFRecord frames (tensorflow/core/lib/io/record_writer.h), each an `Event` message
//! (tensorflow/core/util/event.proto). What is shown is taken from the records of `metrics.jsonl`, so a file written
//! beside a run and one made from its log hold the same.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prost::Message;
use serde_json::Value;

use crate::durable::{self, FileError};
use crate::events::Event;

/// Where a run keeps its event files.
pub const FOLDER: &str = "tensorboard";

/// Numbers of a step's record and the names they are shown under.
const STEP_TAGS: [(&str, &str); 12] = [
    ("loss", "train/loss"),
    ("lr", "train/learning_rate"),
    ("grad_norm", "train/grad_norm"),
    ("reward_margin", "train/reward_margin"),
    ("preference_accuracy", "train/preference_accuracy"),
    ("tokens", "train/tokens"),
    ("tokens_per_second", "speed/tokens_per_second"),
    ("mfu", "speed/mfu"),
    ("data_wait", "speed/data_wait"),
    ("communication", "speed/communication"),
    ("memory_bytes", "machine/memory_bytes"),
    ("energy_joules", "machine/energy_joules"),
];

/// tensorflow.Event
#[derive(Clone, PartialEq, Message)]
struct EventMessage {
    /// Seconds since 1970.
    #[prost(double, tag = "1")]
    wall_time: f64,
    #[prost(int64, tag = "2")]
    step: i64,
    #[prost(oneof = "What", tags = "3, 5, 7")]
    what: Option<What>,
}

/// The `what` of an event.
#[derive(Clone, PartialEq, prost::Oneof)]
enum What {
    #[prost(string, tag = "3")]
    FileVersion(String),
    #[prost(message, tag = "5")]
    Summary(Summary),
    #[prost(message, tag = "7")]
    SessionLog(SessionLog),
}

/// tensorflow.Summary
#[derive(Clone, PartialEq, Message)]
struct Summary {
    #[prost(message, repeated, tag = "1")]
    value: Vec<Scalar>,
}

/// tensorflow.Summary.Value, of one number.
#[derive(Clone, PartialEq, Message)]
struct Scalar {
    #[prost(string, tag = "1")]
    tag: String,
    #[prost(float, optional, tag = "2")]
    simple_value: Option<f32>,
}

/// tensorflow.SessionLog
#[derive(Clone, PartialEq, Message)]
struct SessionLog {
    #[prost(int32, tag = "1")]
    status: i32,
}

/// SessionLog.START: what other files say of this step and later ones is void.
const SESSION_START: i32 = 1;

/// An open event file.
#[derive(Debug)]
pub struct EventFile {
    path: PathBuf,
    file: File,
}

impl EventFile {
    /// Begins a file in `folder`, for a run that has done `step` steps. What older files say of later steps is void: a
    /// run that goes on from a checkpoint does them again.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn begin(folder: &Path, step: u64) -> Result<Self, FileError> {
        durable::create_folder(folder)?;
        let now = now();
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        // TensorBoard reads the files of a folder in the order of their names; two starts may fall into one second.
        let mut nth = (0..).map(|nth| {
            let name = format!("events.out.tfevents.{:010}.{host}.{}.{nth}", now.as_secs(), std::process::id());
            let path = folder.join(name);
            (OpenOptions::new().create_new(true).write(true).open(&path), path)
        });
        let is_taken =
            |opened: &io::Result<File>| opened.as_ref().is_err_and(|error| error.kind() == ErrorKind::AlreadyExists);
        let found = nth.find(|(opened, _)| !is_taken(opened));
        let (opened, path) = found.unwrap_or_else(|| (Err(ErrorKind::AlreadyExists.into()), folder.to_owned()));
        let file = opened.map_err(FileError::at(&path, "open the event file"))?;
        let mut begun = Self { path, file };
        begun.put(now.as_secs_f64(), 0, What::FileVersion("brain.Event:2".into()))?;
        begun.put(now.as_secs_f64(), step + 1, What::SessionLog(SessionLog { status: SESSION_START }))?;
        Ok(begun)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Takes notice of an event of a run.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn note(&mut self, event: &Event) -> Result<(), FileError> {
        let record = match event {
            Event::Step(record) => serde_json::to_value(record),
            Event::Evaluated(record) => serde_json::to_value(record),
            _ => return Ok(()),
        };
        self.record(&record.unwrap_or(Value::Null))
    }

    /// Appends what a record of `metrics.jsonl` says.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn record(&mut self, record: &Value) -> Result<(), FileError> {
        let Some(step) = record.get("step").and_then(Value::as_u64) else { return Ok(()) };
        let value = scalars(record);
        if value.is_empty() {
            return Ok(());
        }
        let unix_ms = record.get("unix_ms").and_then(Value::as_f64);
        let wall_time = unix_ms.map_or_else(|| now().as_secs_f64(), |ms| ms / 1e3);
        self.put(wall_time, step, What::Summary(Summary { value }))
    }

    fn put(&mut self, wall_time: f64, step: u64, what: What) -> Result<(), FileError> {
        let message = EventMessage { wall_time, step: i64::try_from(step).unwrap_or(i64::MAX), what: Some(what) };
        // One call a frame: a kill between two bytes can only cut the last one.
        let written = self.file.write_all(&frame(&message.encode_to_vec()));
        written.map_err(FileError::at(&self.path, "append"))
    }
}

/// Makes an event file of the log of a run, in place of one that was made before.
///
/// # Errors
/// When the log cannot be read, or the disk refuses.
pub fn convert(metrics: &Path, limit_bytes: u64, folder: &Path) -> Result<(PathBuf, usize), FileError> {
    let text = durable::read_text(metrics, limit_bytes)?;
    let mut file = EventFile::begin(folder, 0)?;
    let mut count = 0;
    for record in text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
        file.record(&record)?;
        count += usize::from(!scalars(&record).is_empty());
    }
    if count == 0 {
        // A file that shows nothing would only puzzle.
        let path = file.path.clone();
        fs::remove_file(&path).map_err(FileError::at(&path, "remove"))?;
    }
    Ok((file.path, count))
}

/// The numbers of a record.
fn scalars(record: &Value) -> Vec<Scalar> {
    let scalar = |tag: &str, value: Option<f64>| {
        // Single precision is what the format has.
        Some(Scalar { tag: tag.to_owned(), simple_value: Some(value? as f32) })
    };
    let of = |value: &Value, key: &str| value.get(key).and_then(Value::as_f64);
    let entries = |key: &str| record.get(key).and_then(Value::as_object).into_iter().flatten();
    let mut all: Vec<Scalar> = Vec::new();
    if record.get("val").is_some() {
        all.extend(scalar("val/bits_per_byte", of(record, "val_bpb_all")));
        for (language, score) in entries("val") {
            all.extend(scalar(&format!("val_bits_per_byte/{language}"), of(score, "bpb")));
            all.extend(scalar(&format!("val_loss/{language}"), of(score, "loss")));
        }
    } else if record.get("loss").is_some() {
        all.extend(STEP_TAGS.iter().filter_map(|(key, tag)| scalar(tag, of(record, key))));
        all.extend(
            entries("seen").filter_map(|(name, seen)| scalar(&format!("seen_tokens/{name}"), of(seen, "tokens"))),
        );
    }
    all
}

/// A TFRecord frame: length, masked checksum of the length, data, masked checksum of the data; all little-endian.
fn frame(data: &[u8]) -> Vec<u8> {
    let masked = |bytes: &[u8]| crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes();
    let length = (data.len() as u64).to_le_bytes();
    [&length[..], &masked(&length), data, &masked(data)].concat()
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    /// The frames of a file; panics on a wrong checksum.
    fn read(path: &Path) -> Vec<EventMessage> {
        let bytes = fs::read(path).unwrap();
        let mut rest = bytes.as_slice();
        let mut events = Vec::new();
        while !rest.is_empty() {
            let length = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
            let data = &rest[12..12 + length];
            assert_eq!(frame(data), rest[..16 + length]);
            events.push(EventMessage::decode(data).unwrap());
            rest = &rest[16 + length..];
        }
        events
    }

    #[test]
    fn a_frame_has_the_checksums_of_the_format() {
        // Every event file that TensorFlow writes begins so: a record of 24 bytes.
        let message = EventMessage { wall_time: 1.5, step: 0, what: Some(What::FileVersion("brain.Event:2".into())) };
        let framed = frame(&message.encode_to_vec());
        assert_eq!(&framed[..12], [24, 0, 0, 0, 0, 0, 0, 0, 0xa3, 0x7f, 0x4b, 0x22].as_slice(), "{framed:?}");
    }

    #[test]
    fn a_log_becomes_scalars_and_a_second_start_voids_later_steps() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("metrics.jsonl");
        let lines = [
            json!({"step": 10, "loss": 2.5, "lr": 1e-3, "tokens": 100, "unix_ms": 5000, "seen": {"ary_Arab": {"tokens": 60}}}),
            json!({"step": 10, "event": "digest", "parameters_digest": "ab"}),
            json!({"step": 10, "val_bpb_all": 1.5, "val": {"zgh_Tfng": {"bpb": 1.25, "loss": 3.0}}, "unix_ms": 6000}),
        ];
        fs::write(&log, lines.iter().map(|line| format!("{line}\n")).collect::<String>() + "{\"st").unwrap();
        let folder = dir.path().join("tb");
        let (path, count) = convert(&log, 1 << 20, &folder).unwrap();
        let events = read(&path);
        assert_eq!((count, events.len()), (2, 4));
        let Some(What::Summary(step)) = &events[2].what else { panic!("{events:?}") };
        assert_eq!((events[2].step, events[2].wall_time), (10, 5.0));
        let tags: Vec<&str> = step.value.iter().map(|scalar| scalar.tag.as_str()).collect();
        assert_eq!(tags, ["train/loss", "train/learning_rate", "train/tokens", "seen_tokens/ary_Arab"]);
        let Some(What::Summary(evaluation)) = &events[3].what else { panic!("{events:?}") };
        assert_eq!(evaluation.value[1], Scalar { tag: "val_bits_per_byte/zgh_Tfng".into(), simple_value: Some(1.25) });
        // Two starts in the same second do not share a file.
        let again = EventFile::begin(&folder, 7).unwrap();
        assert_ne!(again.path(), path);
        let start = &read(again.path())[1];
        assert_eq!((start.step, &start.what), (8, &Some(What::SessionLog(SessionLog { status: SESSION_START }))));
    }

    #[test]
    fn a_log_without_numbers_leaves_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("metrics.jsonl");
        fs::write(&log, "").unwrap();
        let (_, count) = convert(&log, 1 << 20, dir.path()).unwrap();
        assert_eq!((count, fs::read_dir(dir.path()).unwrap().count()), (0, 1));
    }
}
