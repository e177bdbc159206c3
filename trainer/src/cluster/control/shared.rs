//! Owns what the threads of the control plane of one process share; never touches connections.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use crate::cluster::error::{Cause, ClusterError, Verdict};
use crate::cluster::recorder::{Position, Record, Recorder, SENT_RECORDS};

use super::docket::Finding;
use super::frame::Frame;
use super::stragglers::Table;

/// Something the main loop of the control plane must look at.
pub(super) enum Event {
    /// A frame of another rank.
    Frame { from: usize, frame: Frame, at: Instant },
    /// The connection to another rank ended.
    Closed { from: usize, why: String },
    /// This process has something to say to rank 0 (on rank 0: to itself).
    Mine(Frame),
    /// Look at the flags.
    Wake,
}

/// Flags under one lock, with the condition variable beside it.
#[derive(Default)]
struct Flags {
    /// The verdict stands since then.
    verdict_at: Option<Instant>,
    /// The others know that this process leaves.
    farewell: bool,
}

pub(super) struct Shared {
    pub(super) rank: usize,
    pub(super) hosts: Vec<String>,
    pub(super) pids: Vec<u32>,
    pub(super) recorder: Mutex<Recorder>,
    pub(super) phases: Mutex<Table>,
    pub(super) report: Mutex<Option<String>>,
    verdict: OnceLock<ClusterError>,
    flags: Mutex<Flags>,
    changed: Condvar,
    /// The main thread has been told the verdict.
    told: AtomicBool,
    /// This process has begun to leave in good order.
    leaving: AtomicBool,
    /// The handle is gone: threads end.
    closed: AtomicBool,
    events: Mutex<mpsc::Sender<Event>>,
}

/// A lock that a panicking thread has left behind is still good: nothing in here is ever half changed.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(super) fn new(rank: usize, hosts: Vec<String>, pids: Vec<u32>, events: mpsc::Sender<Event>) -> Self {
        Self {
            phases: Mutex::new(Table::new(hosts.len())),
            rank,
            hosts,
            pids,
            recorder: Mutex::default(),
            report: Mutex::default(),
            verdict: OnceLock::new(),
            flags: Mutex::default(),
            changed: Condvar::new(),
            told: AtomicBool::new(false),
            leaving: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            events: Mutex::new(events),
        }
    }

    pub(super) fn position(&self) -> Position {
        lock(&self.recorder).position()
    }

    pub(super) fn newest_records(&self) -> Vec<Record> {
        lock(&self.recorder).newest(SENT_RECORDS)
    }

    /// Hands something to the main loop; without effect once that has ended.
    pub(super) fn post(&self, event: Event) {
        let _ = lock(&self.events).send(event);
    }

    pub(super) fn verdict_of(&self, finding: Finding, step: u64, during: String) -> Verdict {
        let Finding { rank, cause, detail, .. } = finding;
        let host = self.hosts.get(rank).cloned().unwrap_or_default();
        let pid = self.pids.get(rank).copied().unwrap_or_default();
        Verdict { rank, host, pid, cause, step, during, detail }
    }

    /// A verdict about rank 0 that this process reaches by itself.
    pub(super) fn conclude(&self, cause: Cause, detail: String) -> Verdict {
        let position = self.position();
        let during = position.activity();
        self.verdict_of(Finding { rank: 0, cause, during: None, detail }, position.step, during)
    }

    /// The first verdict wins.
    pub(super) fn set_verdict(&self, error: ClusterError) {
        let mut flags = lock(&self.flags);
        if self.verdict.set(error).is_ok() {
            flags.verdict_at = Some(Instant::now());
        }
        self.changed.notify_all();
    }

    pub(super) fn verdict(&self) -> Option<&ClusterError> {
        self.verdict.get()
    }

    /// The verdict for the main thread, which from now on is known to have heard it.
    pub(super) fn tell(&self) -> Option<ClusterError> {
        let verdict = self.verdict.get()?;
        self.told.store(true, Ordering::Relaxed);
        Some(verdict.clone())
    }

    pub(super) fn is_told(&self) -> bool {
        self.told.load(Ordering::Relaxed)
    }

    pub(super) fn set_leaving(&self) {
        self.leaving.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::Relaxed)
    }

    pub(super) fn set_farewell(&self) {
        lock(&self.flags).farewell = true;
        self.changed.notify_all();
    }

    pub(super) fn set_closed(&self) {
        self.closed.store(true, Ordering::Relaxed);
        // Taken so that nobody misses the notification between looking at the flag and going to sleep.
        drop(lock(&self.flags));
        self.changed.notify_all();
        self.post(Event::Wake);
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// Waits for a verdict, at most for `limit`.
    pub(super) fn wait_for_verdict(&self, limit: Duration) {
        self.wait(limit, |f| f.verdict_at.is_some());
    }

    /// Waits until everybody knows that this process leaves, at most for `limit`.
    pub(super) fn wait_for_farewell(&self, limit: Duration) {
        self.wait(limit, |f| f.farewell || f.verdict_at.is_some());
    }

    /// Waits until there is a verdict and returns since when; `None` when the handle goes first.
    pub(super) fn wait_for_verdict_or_end(&self) -> Option<Instant> {
        let mut flags = lock(&self.flags);
        loop {
            if self.is_closed() {
                return None;
            }
            if flags.verdict_at.is_some() {
                return flags.verdict_at;
            }
            flags = self.changed.wait(flags).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Sleeps until `until`; `true` when the handle went before that.
    pub(super) fn sleep_or_end(&self, until: Instant) -> bool {
        let left = until.saturating_duration_since(Instant::now());
        self.wait(left, |_| self.is_closed());
        self.is_closed()
    }

    fn wait(&self, limit: Duration, done: impl Fn(&Flags) -> bool) {
        let end = Instant::now() + limit;
        let mut flags = lock(&self.flags);
        while !done(&flags) {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            flags = self.changed.wait_timeout(flags, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}
