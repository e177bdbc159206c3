//! Owns the decision who is to blame, in the process of rank 0; never touches the main thread.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use crate::cluster::error::{ClusterError, Verdict};

use super::Timing;
use super::docket::{Docket, Evidence, Finding, Ruling};
use super::frame::Frame;
use super::shared::{Event, Shared, lock};
use super::standing::{self, Peer};
use super::wire::Outlet;

/// How long rank 0 waits until the others have read the verdict before its own main thread may leave with it: its
/// sockets must not close while the verdict is under way.
const HEARD_LIMIT: Duration = Duration::from_millis(300);

/// A verdict that has been sent.
struct Published {
    verdict: Verdict,
    at: Instant,
    /// Ranks that have not said yet that they have read it.
    awaited: Vec<usize>,
}

pub(super) struct Coordinator {
    shared: Arc<Shared>,
    timing: Timing,
    outlets: Vec<Outlet>,
    peers: Vec<Peer>,
    docket: Docket,
    published: Option<Published>,
    next_beat: Instant,
    /// When the loop last ran: a gap means that this process was stopped itself.
    ran: Instant,
}

impl Coordinator {
    pub(super) fn new(shared: Arc<Shared>, timing: Timing, outlets: Vec<Outlet>) -> Self {
        let now = Instant::now();
        let peers = outlets.iter().map(|_| Peer::new(now)).collect();
        Self { shared, timing, outlets, peers, docket: Docket::default(), published: None, next_beat: now, ran: now }
    }

    /// Runs until the handle of the control plane is gone.
    pub(super) fn run(mut self, events: &Receiver<Event>) {
        while !self.shared.is_closed() {
            let now = Instant::now();
            let ruling = if self.published.is_none() { self.docket.due(now) } else { None };
            let release = self.published.as_ref().map(|p| p.at + HEARD_LIMIT).filter(|&at| at > now);
            let until = [ruling, release].into_iter().flatten().fold(self.next_beat, Instant::min);
            match events.recv_timeout(until.saturating_duration_since(now)) {
                Ok(event) => self.take(event),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.forgive_own_pause();
            self.beat();
            self.rule();
            self.release();
        }
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Wake => {}
            Event::Mine(frame) => self.hear(0, frame, Instant::now()),
            Event::Frame { from, frame, at } => self.hear(from, frame, at),
            Event::Closed { from, why } => {
                self.heard_verdict(from);
                let Some(peer) = self.peers.get_mut(from) else { return };
                peer.closed = true;
                if !peer.left {
                    self.file(Evidence::Closed { rank: from, why });
                }
                self.say_farewell_when_all_left();
            }
        }
    }

    fn hear(&mut self, from: usize, frame: Frame, at: Instant) {
        let Some(peer) = self.peers.get_mut(from) else { return };
        peer.heard = at;
        match frame {
            Frame::Beat(position) => peer.position = position,
            Frame::Answer { position, records } => {
                (peer.position, peer.records) = (position, records);
            }
            Frame::Claim(claim) if claim.rank < self.peers.len() => self.file(Evidence::Claim { by: from, claim }),
            Frame::Failed(message) => self.file(Evidence::Failed { rank: from, message }),
            Frame::Concluded(verdict) => self.file(Evidence::Concluded(verdict)),
            Frame::Goodbye => self.goodbye(from),
            Frame::Phases(phases) => lock(&self.shared.phases).insert(from, phases),
            Frame::Understood => self.heard_verdict(from),
            // Only rank 0 says these.
            Frame::Claim(_) | Frame::Farewell | Frame::Ask | Frame::Verdict(_) => {}
        }
    }

    fn goodbye(&mut self, from: usize) {
        if let Some(peer) = self.peers.get_mut(from) {
            peer.left = true;
        }
        if from == 0 {
            self.send_to_present(&Frame::Goodbye);
        } else if let Some(outlet) = self.outlets.get_mut(from) {
            outlet.send(&Frame::Farewell);
        }
        self.say_farewell_when_all_left();
    }

    fn say_farewell_when_all_left(&self) {
        if self.peers.iter().all(|p| p.left || p.closed) {
            self.shared.set_farewell();
        }
    }

    /// Sends to every rank that has neither left nor closed.
    fn send_to_present(&mut self, frame: &Frame) {
        for (peer, outlet) in self.peers.iter().zip(&mut self.outlets) {
            if !peer.left && !peer.closed {
                outlet.send(frame);
            }
        }
    }

    fn file(&mut self, evidence: Evidence) {
        if self.published.is_some() {
            return;
        }
        if self.docket.file(evidence, Instant::now()) {
            // Positions are up to a heartbeat old; while the evidence settles everybody tells the newest.
            self.send_to_present(&Frame::Ask);
        }
    }

    /// After a pause of this process (stopped and continued, a suspended machine) the silence of the others proves
    /// nothing.
    fn forgive_own_pause(&mut self) {
        let now = Instant::now();
        if now.duration_since(self.ran) > self.timing.peer_timeout / 2 {
            for peer in &mut self.peers {
                peer.heard = now;
            }
        }
        self.ran = now;
    }

    fn beat(&mut self) {
        let now = Instant::now();
        let position = self.shared.position();
        if let Some(own) = self.peers.first_mut() {
            (own.position, own.heard) = (position.clone(), now);
        }
        if now < self.next_beat {
            return;
        }
        self.next_beat = now + self.timing.heartbeat;
        self.send_to_present(&Frame::Beat(position));
        if self.published.is_some() || self.docket.is_open() {
            return;
        }
        if self.silent(now).is_some() {
            self.file(Evidence::Silent);
        } else if standing::find_stuck(&self.peers, self.timing.collective_timeout).is_some() {
            self.file(Evidence::Stuck);
        }
    }

    /// The rank that has been silent longest, if that is too long.
    fn silent(&self, now: Instant) -> Option<(usize, Duration)> {
        let present = self.peers.iter().enumerate().filter(|(_, p)| !p.left && !p.closed);
        let quiet = present.map(|(rank, p)| (rank, now.saturating_duration_since(p.heard)));
        quiet.max_by_key(|(_, quiet)| *quiet).filter(|(_, quiet)| *quiet >= self.timing.peer_timeout)
    }

    fn rule(&mut self) {
        if self.published.is_some() || !self.docket.is_open() {
            return;
        }
        let now = Instant::now();
        let stuck = standing::find_stuck(&self.peers, self.timing.collective_timeout);
        match self.docket.rule(&self.peers, now, self.silent(now), stuck) {
            Ruling::Wait => {}
            Ruling::Dismissed => self.docket.close(),
            Ruling::Blame(finding) => self.publish(finding),
            Ruling::Adopt(verdict) => self.send_verdict(verdict),
        }
    }

    fn publish(&mut self, mut finding: Finding) {
        let blamed = finding.rank;
        let during = finding.during.take().unwrap_or_else(|| standing::during(&self.peers, blamed));
        let step = self.peers.iter().map(|p| p.position.step).max().unwrap_or_default();
        let whereabouts = standing::whereabouts_of_all(&self.peers, blamed);
        finding.detail = super::frame::bounded(&format!("{}; {whereabouts}", finding.detail));
        self.send_verdict(self.shared.verdict_of(finding, step, during));
    }

    fn send_verdict(&mut self, verdict: Verdict) {
        if let Some(own) = self.peers.first_mut() {
            own.records = self.shared.newest_records();
        }
        *lock(&self.shared.report) = Some(standing::flight_recorder(&self.peers));
        // Also to those that have left: they may still wait for their last bytes.
        for (peer, outlet) in self.peers.iter().zip(&mut self.outlets) {
            if !peer.closed {
                outlet.send(&Frame::Verdict(verdict.clone()));
            }
        }
        let awaited = |(rank, peer): (usize, &Peer)| {
            (rank != 0 && rank != verdict.rank && !peer.left && !peer.closed).then_some(rank)
        };
        let awaited = self.peers.iter().enumerate().filter_map(awaited).collect();
        self.published = Some(Published { verdict, at: Instant::now(), awaited });
    }

    fn heard_verdict(&mut self, from: usize) {
        if let Some(published) = &mut self.published {
            published.awaited.retain(|&rank| rank != from);
        }
    }

    /// Tells the main thread of rank 0 once the others know.
    fn release(&mut self) {
        if let Some(Published { verdict, at, awaited }) = &self.published
            && (awaited.is_empty() || at.elapsed() >= HEARD_LIMIT)
            && self.shared.verdict().is_none()
        {
            self.shared.set_verdict(ClusterError::Lost(verdict.clone()));
        }
    }
}
