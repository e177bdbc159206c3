//! Owns the conversation of a rank with rank 0; never touches other ranks.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Instant;

use crate::cluster::error::{Cause, ClusterError, Verdict};

use super::Timing;
use super::docket::Finding;
use super::frame::{Claim, Frame};
use super::shared::{Event, Shared};
use super::wire::Outlet;

pub(super) struct Member {
    shared: Arc<Shared>,
    timing: Timing,
    outlet: Outlet,
    /// When rank 0 was last heard.
    heard: Instant,
    /// Rank 0 has left in good order.
    coordinator_left: bool,
    next_beat: Instant,
    /// When the loop last ran: a gap means that this process was stopped itself.
    ran: Instant,
}

impl Member {
    pub(super) fn new(shared: Arc<Shared>, timing: Timing, outlet: Outlet) -> Self {
        let now = Instant::now();
        Self { shared, timing, outlet, heard: now, coordinator_left: false, next_beat: now, ran: now }
    }

    /// Runs until the handle of the control plane is gone.
    pub(super) fn run(mut self, events: &Receiver<Event>) {
        while !self.shared.is_closed() {
            let wait = self.next_beat.saturating_duration_since(Instant::now());
            match events.recv_timeout(wait) {
                Ok(event) => self.take(event),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.beat();
        }
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Wake => {}
            // Nobody is left to ask.
            Event::Mine(Frame::Claim(claim)) if self.coordinator_left => self.judge(claim),
            Event::Mine(frame) => self.outlet.send(&frame),
            Event::Frame { frame, at, .. } => self.hear(frame, at),
            Event::Closed { why, .. } => {
                if self.coordinator_left || self.shared.is_leaving() {
                    self.shared.set_farewell();
                } else if self.shared.verdict().is_none() {
                    // A verdict would have come before the end of the stream.
                    let detail = format!("its control connection closed without a farewell ({why})");
                    self.conclude(Cause::Died, detail);
                }
            }
        }
    }

    fn hear(&mut self, frame: Frame, at: Instant) {
        self.heard = at;
        match frame {
            Frame::Ask => {
                let (position, records) = (self.shared.position(), self.shared.newest_records());
                self.outlet.send(&Frame::Answer { position, records });
            }
            Frame::Verdict(verdict) => self.accept(verdict),
            Frame::Farewell => self.shared.set_farewell(),
            Frame::Goodbye => {
                self.coordinator_left = true;
                self.shared.set_farewell();
            }
            _ => {}
        }
    }

    fn accept(&mut self, verdict: Verdict) {
        // First to rank 0, which waits for it before it leaves; then to the main thread, which leaves.
        self.outlet.send(&Frame::Understood);
        self.shared.set_verdict(ClusterError::Lost(verdict));
    }

    /// Rank 0 has left in good order, so this rank takes what it sees at its word.
    fn judge(&self, claim: Claim) {
        let Claim { rank, cause, mine, theirs, detail } = claim;
        let (cause, detail) = match (rank, cause) {
            (0, Cause::Died) => (Cause::Disagrees, "it left the run in good order while this rank needs it".to_owned()),
            (_, Cause::Disagrees) if mine != theirs => (cause, format!("it has {theirs}, this rank {mine}")),
            _ => (cause, detail),
        };
        let position = self.shared.position();
        let finding = Finding { rank, cause, during: None, detail };
        let verdict = self.shared.verdict_of(finding, position.step, position.activity());
        self.shared.set_verdict(ClusterError::Lost(verdict));
    }

    fn conclude(&mut self, cause: Cause, detail: String) {
        let verdict = self.shared.conclude(cause, detail);
        // In case rank 0 was only stopped: it reads this when it goes on.
        self.outlet.send(&Frame::Concluded(verdict.clone()));
        self.shared.set_verdict(ClusterError::Lost(verdict));
    }

    fn beat(&mut self) {
        let now = Instant::now();
        if now.duration_since(self.ran) > self.timing.peer_timeout / 2 {
            // This process was stopped itself: the silence of rank 0 proves nothing.
            self.heard = now;
        }
        self.ran = now;
        if now < self.next_beat {
            return;
        }
        self.next_beat = now + self.timing.heartbeat;
        if self.coordinator_left {
            return;
        }
        self.outlet.send(&Frame::Beat(self.shared.position()));
        let quiet = now.saturating_duration_since(self.heard);
        if quiet >= self.timing.peer_timeout && self.shared.verdict().is_none() && !self.shared.is_leaving() {
            self.conclude(Cause::Silent, format!("nothing was heard for {:.1} s", quiet.as_secs_f64()));
        }
    }
}
