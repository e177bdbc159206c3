//! Owns what is known of a run that is being watched: it reads only what was added to the logs since the last look;
//! never writes.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use serde_json::Value;

use crate::card::happened::told;
use crate::card::number;
use crate::durable;
use crate::run_dir;

/// Events that are kept.
const EVENTS: usize = 64;
/// Records that the pace is taken from.
const RECENT: usize = 20;
/// Largest plan that is read, bytes.
const PLAN_LIMIT_BYTES: u64 = 64 << 20;
/// Most of a log that is read in one go, bytes.
const PIECE_BYTES: u64 = 64 << 20;

/// Points of a curve: step and value.
pub(super) type Curve = Vec<(f64, f64)>;

/// How a run has gone so far.
#[derive(Debug, Default)]
pub(super) struct Course {
    /// The run directory.
    pub(super) root: PathBuf,
    /// Steps of the plan.
    pub(super) max_steps: Option<f64>,
    /// Digest of the plan.
    pub(super) plan: Option<String>,
    /// Curves of the records of steps, by their key.
    pub(super) curves: BTreeMap<&'static str, Curve>,
    /// Bits per byte over all languages.
    pub(super) bits_per_byte: Curve,
    /// The first and the newest score by language, bits per byte.
    pub(super) languages: BTreeMap<String, (f64, f64)>,
    /// The newest record of a step.
    pub(super) last: Value,
    /// The newest start.
    pub(super) started: Value,
    /// The newest events in words, the last one last.
    pub(super) events: VecDeque<String>,
    /// Whether the newest word about power was that there is none.
    pub(super) is_paused: bool,
    /// Whether a process works here now.
    pub(super) is_running: bool,
    /// Step and time (milliseconds) of the newest records of steps.
    recent: VecDeque<(f64, f64)>,
    metrics: Tail,
    log: Tail,
}

/// The keys of records that become curves.
pub(super) const CURVES: [&str; 6] = ["loss", "tokens_per_second", "memory_bytes", "data_wait", "communication", "lr"];

impl Course {
    /// Of a run directory.
    pub(super) fn new(root: PathBuf) -> Self {
        Self {
            metrics: Tail::of(root.join("metrics.jsonl")),
            log: Tail::of(root.join("events.jsonl")),
            root,
            ..Self::default()
        }
    }

    /// Looks at the files again.
    pub(super) fn refresh(&mut self) {
        self.is_running = run_dir::is_locked(&self.root);
        let (records, is_anew) = self.metrics.read();
        if is_anew {
            // A resumed run has taken records back.
            self.curves.clear();
            self.recent.clear();
            self.bits_per_byte.clear();
            self.languages.clear();
            self.last = Value::Null;
        }
        records.iter().for_each(|record| self.take_record(record));
        let (events, is_anew) = self.log.read();
        if is_anew {
            self.events.clear();
        }
        events.iter().for_each(|event| self.take_event(event));
        if self.max_steps.is_none() || !events.is_empty() {
            let plan = durable::read_text(&self.root.join("plan.json"), PLAN_LIMIT_BYTES).unwrap_or_default();
            let plan: Value = serde_json::from_str(&plan).unwrap_or_default();
            self.max_steps = number(&plan, "max_steps");
            self.plan = plan.get("digest").and_then(Value::as_str).map(str::to_owned);
        }
    }

    fn take_record(&mut self, record: &Value) {
        let Some(step) = number(record, "step") else { return };
        if let Some(scores) = record.get("val").and_then(Value::as_object) {
            self.bits_per_byte.extend(number(record, "val_bpb_all").map(|value| (step, value)));
            for (language, score) in scores {
                let Some(now) = number(score, "bpb") else { continue };
                self.languages.entry(language.clone()).and_modify(|(_, last)| *last = now).or_insert((now, now));
            }
        } else if record.get("loss").is_some() {
            for key in CURVES {
                let Some(value) = number(record, key).filter(|value| value.is_finite()) else { continue };
                self.curves.entry(key).or_default().push((step, value));
            }
            self.recent.extend(number(record, "unix_ms").map(|ms| (step, ms)));
            if self.recent.len() > RECENT {
                self.recent.pop_front();
            }
            self.last = record.clone();
        }
    }

    fn take_event(&mut self, event: &Value) {
        match event.get("event").and_then(Value::as_str) {
            Some("started") => {
                self.started = event.clone();
                self.is_paused = false;
                // Time between two starts is no pace.
                self.recent.clear();
            }
            Some("paused") => self.is_paused = true,
            Some("woken") => {
                self.is_paused = false;
                self.recent.clear();
            }
            _ => {}
        }
        self.events.extend(told(event));
        if self.events.len() > EVENTS {
            self.events.pop_front();
        }
    }

    /// Steps done.
    pub(super) fn step(&self) -> f64 {
        number(&self.last, "step").or_else(|| number(&self.started, "step")).unwrap_or(0.0)
    }

    /// What the run does, in a word.
    pub(super) fn state(&self) -> &'static str {
        let is_over = self.max_steps.is_some_and(|all| self.step() >= all);
        match (self.is_running, self.is_paused, is_over) {
            (true, true, _) => "waits for power",
            (true, ..) => "running",
            (false, _, true) => "finished",
            (false, ..) => "stopped",
        }
    }

    /// Seconds until the last step at the pace of the newest records.
    pub(super) fn seconds_left(&self) -> Option<f64> {
        let ((first, since), (last, until)) = (*self.recent.front()?, *self.recent.back()?);
        let pace = (until - since) / 1e3 / (last - first);
        let left = self.max_steps? - last;
        (pace.is_finite() && pace > 0.0 && left > 0.0 && self.is_running).then_some(pace * left)
    }
}

/// A log that grows.
#[derive(Debug, Default)]
struct Tail {
    path: PathBuf,
    inode: u64,
    offset: u64,
}

impl Tail {
    fn of(path: PathBuf) -> Self {
        Self { path, ..Self::default() }
    }

    /// Whole lines that are new, and whether the log was replaced or cut, so that they are all there is.
    fn read(&mut self) -> (Vec<Value>, bool) {
        let read = || -> std::io::Result<(Vec<u8>, u64, bool)> {
            let mut file = File::open(&self.path)?;
            let facts = file.metadata()?;
            let is_anew = facts.ino() != self.inode || facts.len() < self.offset;
            file.seek(SeekFrom::Start(if is_anew { 0 } else { self.offset }))?;
            let mut bytes = Vec::new();
            file.take(PIECE_BYTES).read_to_end(&mut bytes)?;
            Ok((bytes, facts.ino(), is_anew))
        };
        // A log that is not there yet will be.
        let Ok((bytes, inode, is_anew)) = read() else { return (Vec::new(), false) };
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        self.inode = inode;
        self.offset = if is_anew { 0 } else { self.offset } + whole as u64;
        let lines = bytes.get(..whole).unwrap_or_default().split(|byte| *byte == b'\n');
        (lines.filter_map(|line| serde_json::from_slice(line).ok()).collect(), is_anew)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;
    use std::io::Write;

    use super::*;

    #[test]
    fn a_log_is_followed_over_half_lines_and_a_rewind() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        let mut course = Course::new(dir.path().to_owned());
        course.refresh();
        assert_eq!((course.state(), course.step()), ("stopped", 0.0));
        fs::write(dir.path().join("plan.json"), "{\"max_steps\": 4, \"digest\": \"abc\"}").unwrap();
        let line = |step: u64| format!("{{\"step\":{step},\"loss\":{step}.5,\"unix_ms\":{}}}\n", step * 1000);
        fs::write(&path, line(1) + &line(2) + "{\"step\":3,\"lo").unwrap();
        course.refresh();
        assert_eq!(course.curves["loss"], [(1.0, 1.5), (2.0, 2.5)]);
        let mut log = fs::OpenOptions::new().append(true).open(&path).unwrap();
        log.write_all(
            b"ss\":3.5,\"unix_ms\":3000}\n{\"step\":3,\"val_bpb_all\":2,\"val\":{\"ary_Arab\":{\"bpb\":2.0}}}\n",
        )
        .unwrap();
        course.refresh();
        assert_eq!((course.step(), course.curves["loss"].len()), (3.0, 3));
        assert_eq!(course.languages["ary_Arab"], (2.0, 2.0));
        assert_eq!((course.max_steps, course.plan.as_deref()), (Some(4.0), Some("abc")));
        // One step a second, one to go; but nobody is at work.
        assert_eq!(course.seconds_left(), None);
        course.is_running = true;
        assert_eq!(course.seconds_left(), Some(1.0));
        durable::write_atomic(&path, line(1).as_bytes()).unwrap();
        course.refresh();
        assert_eq!((course.step(), course.curves["loss"].len(), course.languages.len()), (1.0, 1, 0));
    }

    #[test]
    fn events_are_told_and_only_the_newest_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let mut text = String::new();
        for step in 0..100 {
            text += &format!("{{\"event\":\"saved\",\"step\":{step},\"bytes\":1500000,\"seconds\":0.25}}\n");
        }
        text += "{\"event\":\"paused\",\"step\":99,\"why\":\"night\"}\n";
        fs::write(dir.path().join("events.jsonl"), text).unwrap();
        let mut course = Course::new(dir.path().to_owned());
        course.refresh();
        assert_eq!(course.events.len(), EVENTS);
        let last: Vec<&String> = course.events.iter().rev().take(2).collect();
        assert_eq!(last, ["step 99: no power, saved and waiting: night", "step 99: saved, 1.5 MB in 0.2 s"]);
        assert!(course.is_paused);
    }
}
