//! Owns what this process was last seen doing: its position and its newest collectives; never touches a connection.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// Collectives kept a process.
pub const KEPT_RECORDS: usize = 64;

/// Collectives a process sends when somebody is being blamed.
pub const SENT_RECORDS: usize = 8;

/// What a collective does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The sum of a vector, to everybody.
    AllReduce,
    /// The sum of a vector, a slice to each.
    ReduceScatter,
    /// Slices of a vector, to everybody.
    AllGather,
    /// Bytes of every rank, to everybody.
    AllGatherBytes,
    /// Bytes of one rank, to everybody.
    Broadcast,
    /// Waiting for everybody.
    Barrier,
    /// Bytes to one rank.
    Send,
    /// Bytes from one rank.
    Recv,
}

impl Kind {
    /// The name in messages.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::AllReduce => "all_reduce",
            Self::ReduceScatter => "reduce_scatter",
            Self::AllGather => "all_gather",
            Self::AllGatherBytes => "all_gather_bytes",
            Self::Broadcast => "broadcast",
            Self::Barrier => "barrier",
            Self::Send => "send",
            Self::Recv => "recv",
        }
    }

    /// Whether every rank takes part.
    #[must_use]
    pub fn is_collective(self) -> bool {
        !matches!(self, Self::Send | Self::Recv)
    }
}

/// One collective of one process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Number of the collective in the run, from 1.
    pub sequence: u64,
    /// What it does.
    pub kind: Kind,
    /// Elements (values or bytes) this rank passed.
    pub elements: u64,
    /// Optimizer steps done before it.
    pub step: u64,
    /// Seconds between its start and the moment the record was read.
    pub started_seconds_ago: f64,
    /// Seconds it took; `None` while it runs.
    pub seconds: Option<f64>,
}

/// Where a process is, as its heartbeats tell it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Position {
    /// Optimizer steps done.
    pub step: u64,
    /// What the main thread does between collectives.
    pub phase: String,
    /// Number of the newest collective it arrived at; 0 before the first.
    pub sequence: u64,
    /// That collective; `None` before the first.
    pub kind: Option<Kind>,
    /// Elements of that collective.
    pub elements: u64,
    /// Whether it is still in there.
    pub inside: bool,
    /// Seconds since the position changed or bytes arrived.
    pub idle_seconds: f64,
    /// The rank whose bytes it waits for.
    pub waits_for: Option<usize>,
}

impl Position {
    /// Before anything happened.
    #[must_use]
    pub fn start() -> Self {
        Self {
            step: 0,
            phase: "start-up".into(),
            sequence: 0,
            kind: None,
            elements: 0,
            inside: false,
            idle_seconds: 0.0,
            waits_for: None,
        }
    }

    /// A few words on what it does: the collective it is in, or the phase.
    #[must_use]
    pub fn activity(&self) -> String {
        match self.kind {
            Some(kind) if self.inside => self.name_of(kind),
            _ => self.phase.clone(),
        }
    }

    fn name_of(&self, kind: Kind) -> String {
        let unit = match kind {
            Kind::AllReduce | Kind::ReduceScatter | Kind::AllGather => "values",
            _ => "bytes",
        };
        match kind {
            Kind::Barrier => format!("barrier #{}", self.sequence),
            Kind::Send | Kind::Recv => format!("{} after #{}", kind.name(), self.sequence),
            _ => format!("{} #{} ({} {unit})", kind.name(), self.sequence, self.elements),
        }
    }
}

struct Entry {
    sequence: u64,
    kind: Kind,
    elements: u64,
    step: u64,
    started: Instant,
    took: Option<Duration>,
}

/// A collective that was handed to the device and has not come back.
struct InFlight {
    sequence: u64,
    kind: Kind,
    elements: u64,
    issued: Instant,
}

/// The position and the newest collectives of this process.
pub struct Recorder {
    position: Position,
    moved: Instant,
    entries: VecDeque<Entry>,
    /// Collectives of the device so far; those of the host are numbered on from there.
    issued: u64,
    in_flight: VecDeque<InFlight>,
    landed: Instant,
}

impl Default for Recorder {
    fn default() -> Self {
        Self {
            position: Position::start(),
            moved: Instant::now(),
            entries: VecDeque::with_capacity(KEPT_RECORDS),
            issued: 0,
            in_flight: VecDeque::new(),
            landed: Instant::now(),
        }
    }
}

impl Recorder {
    /// The main thread is at `phase` of the step after `step` done ones.
    pub fn at(&mut self, step: u64, phase: &'static str) {
        self.position.step = step;
        if self.position.phase != phase {
            self.position.phase.clear();
            self.position.phase.push_str(phase);
        }
        self.moved = Instant::now();
    }

    /// The main thread enters a collective, the `sequence`-th of the host.
    pub fn arrive(&mut self, sequence: u64, kind: Kind, elements: u64) {
        let now = Instant::now();
        let sequence = sequence + self.issued;
        self.keep(sequence, kind, elements, now);
        let position = &mut self.position;
        (position.sequence, position.kind, position.elements) = (sequence, Some(kind), elements);
        (position.inside, position.waits_for) = (true, None);
        self.moved = now;
    }

    fn keep(&mut self, sequence: u64, kind: Kind, elements: u64, started: Instant) {
        if self.entries.len() == KEPT_RECORDS {
            self.entries.pop_front();
        }
        let step = self.position.step;
        self.entries.push_back(Entry { sequence, kind, elements, step, started, took: None });
    }

    /// The main thread hands a collective to the device and goes on. Returns its number in the run, which counts the
    /// collectives of host and device together.
    pub fn issue(&mut self, kind: Kind, elements: u64) -> u64 {
        let now = Instant::now();
        self.issued += 1;
        let sequence = self.position.sequence + 1;
        self.keep(sequence, kind, elements, now);
        let position = &mut self.position;
        (position.sequence, position.kind, position.elements) = (sequence, Some(kind), elements);
        (position.inside, position.waits_for) = (false, None);
        self.moved = now;
        self.in_flight.push_back(InFlight { sequence, kind, elements, issued: now });
        sequence
    }

    /// The device has finished the collective `sequence`.
    pub fn land(&mut self, sequence: u64) {
        let now = Instant::now();
        self.in_flight.retain(|flight| flight.sequence != sequence);
        self.landed = now;
        if let Some(entry) = self.entries.iter_mut().find(|entry| entry.sequence == sequence) {
            entry.took = Some(now.duration_since(entry.started));
        }
    }

    /// The main thread leaves the collective it is in.
    pub fn depart(&mut self) {
        let now = Instant::now();
        if let Some(entry) = self.entries.back_mut() {
            entry.took = Some(now.duration_since(entry.started));
        }
        (self.position.inside, self.position.waits_for) = (false, None);
        self.moved = now;
    }

    /// Bytes arrived.
    pub fn progress(&mut self) {
        self.position.waits_for = None;
        self.moved = Instant::now();
    }

    /// The main thread waits for bytes of `rank`.
    pub fn wait_for(&mut self, rank: usize) {
        self.position.waits_for = Some(rank);
    }

    /// The position now. While the main thread is in no collective, a process is where its device is: in the oldest
    /// collective that the device has not finished, since that was issued or the one before it finished.
    #[must_use]
    pub fn position(&self) -> Position {
        let position = self.position.clone();
        match self.in_flight.front() {
            Some(&InFlight { sequence, kind, elements, issued }) if !position.inside => Position {
                sequence,
                kind: Some(kind),
                elements,
                inside: true,
                idle_seconds: issued.max(self.landed).elapsed().as_secs_f64(),
                ..position
            },
            _ => Position { idle_seconds: self.moved.elapsed().as_secs_f64(), ..position },
        }
    }

    /// The newest `count` collectives, oldest first.
    #[must_use]
    pub fn newest(&self, count: usize) -> Vec<Record> {
        let skip = self.entries.len().saturating_sub(count);
        let record = |e: &Entry| Record {
            sequence: e.sequence,
            kind: e.kind,
            elements: e.elements,
            step: e.step,
            started_seconds_ago: e.started.elapsed().as_secs_f64(),
            seconds: e.took.map(|t| t.as_secs_f64()),
        };
        self.entries.iter().skip(skip).map(record).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ring_keeps_the_newest_and_knows_which_one_runs() {
        let mut recorder = Recorder::default();
        assert_eq!(recorder.position().activity(), "start-up");
        for sequence in 1..=100 {
            recorder.at(sequence / 2, "compute");
            recorder.arrive(sequence, Kind::AllReduce, 10 * sequence);
            if sequence < 100 {
                recorder.depart();
            }
        }
        let newest = recorder.newest(SENT_RECORDS);
        assert_eq!(newest.iter().map(|r| r.sequence).collect::<Vec<_>>(), (93..=100).collect::<Vec<_>>());
        assert!(newest.iter().all(|r| r.seconds.is_some() == (r.sequence < 100)));
        assert_eq!(recorder.newest(1000).len(), KEPT_RECORDS);
        assert_eq!(recorder.position().activity(), "all_reduce #100 (1000 values)");
        recorder.depart();
        assert_eq!(recorder.position().activity(), "compute");
    }

    #[test]
    fn collectives_of_the_device_are_numbered_among_those_of_the_host() {
        let mut recorder = Recorder::default();
        recorder.at(3, "backward");
        recorder.arrive(1, Kind::Barrier, 0);
        recorder.depart();
        assert_eq!([recorder.issue(Kind::AllReduce, 50), recorder.issue(Kind::AllReduce, 60)], [2, 3]);
        let position = recorder.position();
        assert!(position.inside);
        assert_eq!(position.activity(), "all_reduce #2 (50 values)", "the oldest is what the others may wait in");
        // The second collective of the host is the fourth of the run.
        recorder.arrive(2, Kind::AllGatherBytes, 17);
        assert_eq!(recorder.position().activity(), "all_gather_bytes #4 (17 bytes)");
        recorder.land(3);
        recorder.depart();
        assert_eq!(recorder.position().activity(), "all_reduce #2 (50 values)");
        recorder.land(2);
        assert_eq!(recorder.position().activity(), "backward");
        let records: Vec<_> = recorder.newest(9).iter().map(|r| (r.sequence, r.seconds.is_some())).collect();
        assert_eq!(records, [(1, true), (2, true), (3, true), (4, true)]);
    }
}
