//! Owns the data connections of one rank to all others; never touches who may be a member.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::super::channel::{Channel, ChannelError, handshake};
use super::super::error::{Cause, ClusterError};
use super::gate::{Arrival, Gate};
use super::host::{self, Seat};
use super::member::{self, CONNECT_TIMEOUT, FIRST_PAUSE, LAST_PAUSE};
use super::messages::{self, Entry, LINK, Link, PROTOCOL, Roster, WELCOME};
use super::{Joining, PROOF_TIMEOUT, TICK, lost};

/// Longest wait at the gate while only this rank's own dialling is outstanding.
const DIAL_TICK: Duration = Duration::from_millis(5);

const OPEN_PORTS: &str = "open all ports between the hosts, or choose a bind address that the others can reach";

/// The control connections, which are listened to meanwhile.
pub(super) enum Control<'a> {
    /// Rank 0: all members; they also report here that they are ready.
    Host(&'a mut [Option<Seat>]),
    /// The others: rank 0, which speaks only to end it.
    Member(&'a mut Channel),
}

/// What the thread that dials must know.
struct Dialler<'a> {
    key: [u8; 32],
    rank: usize,
    roster: &'a Roster,
    rank_0: Option<SocketAddr>,
    until: Instant,
    /// Nobody waits for the result any more.
    cancelled: AtomicBool,
    /// A lower rank could not be reached: no use in waiting for the higher ones.
    failed: AtomicBool,
}

/// Bound into the handshake: the purpose, this rendezvous and the rank that listens. The rank that dials names itself
/// in its first sealed frame.
fn prologue(session: &str, listening: usize) -> Vec<u8> {
    format!("{PROTOCOL}, data, session {session}, to rank {listening}").into_bytes()
}

/// Connects to every other rank: dials the lower ones, waits for the higher ones. On rank 0 it also waits until all
/// members are ready.
pub(super) fn connect(
    joining: &Joining<'_>,
    roster: &Roster,
    listener: TcpListener,
    mut control: Control<'_>,
    until: Instant,
) -> Result<Vec<Option<Channel>>, ClusterError> {
    let rank = joining.options.rank;
    let key = joining.options.token.derive("data");
    let rank_0 = match &control {
        Control::Host(_) => None,
        Control::Member(channel) => Some(channel.peer_addr().map_err(|e| member::rank_0(joining, Cause::Died, &e))?),
    };
    let gate = Gate::new(listener, key, prologue(&roster.session, rank), joining.options.on_refused);
    let mut gate = gate.map_err(|e| local("cannot listen for data connections", &e))?;
    let (cancelled, failed) = (AtomicBool::new(false), AtomicBool::new(false));
    let dialler = Dialler { key, rank, roster, rank_0, until, cancelled, failed };
    std::thread::scope(|scope| {
        let dialling = std::thread::Builder::new()
            .name("links".to_owned())
            .spawn_scoped(scope, || dialler.dial_lower())
            .map_err(|e| local("cannot start a thread", &e))?;
        let mut waiting = Waiting { joining, roster, gate: &mut gate, control: &mut control, until };
        let accepted = waiting.accept(&|| dialling.is_finished(), &dialler.failed);
        dialler.cancelled.store(accepted.is_err(), Ordering::Relaxed);
        let dialled = dialling
            .join()
            .unwrap_or_else(|_| Err(local("a thread ended", &"it panicked while connecting to the lower ranks")));
        // What ended the waiting comes first: a cancelled dialler only follows.
        let higher = accepted?;
        let mut all: Vec<Option<Channel>> = dialled?;
        all.push(None);
        all.extend(higher.into_iter().skip(rank + 1));
        Ok(all.into_iter().map(|link| link.map(|channel| channel.into_wire(roster.wire))).collect())
    })
}

fn local(what: &str, error: &dyn ToString) -> ClusterError {
    ClusterError::Local {
        what: what.to_owned(),
        cause: error.to_string(),
        advice: "check this host's network and its limits on open files and threads".to_owned(),
    }
}

/// What the thread that waits for the higher ranks works with.
struct Waiting<'a, 'c> {
    joining: &'a Joining<'a>,
    roster: &'a Roster,
    gate: &'a mut Gate<'a>,
    control: &'a mut Control<'c>,
    until: Instant,
}

impl Waiting<'_, '_> {
    /// Waits for the higher ranks and for the dialler; listens to the control connections meanwhile. Ends early when
    /// the dialler has failed: its error is read where its thread is joined.
    fn accept(
        &mut self,
        is_dialled: &dyn Fn() -> bool,
        has_failed: &AtomicBool,
    ) -> Result<Vec<Option<Channel>>, ClusterError> {
        let (rank, world) = (self.joining.options.rank, self.joining.options.world);
        let mut links: Vec<Option<Channel>> = (0..world).map(|_| None).collect();
        loop {
            let all_came = links.iter().skip(rank + 1).all(Option::is_some);
            let is_complete = all_came && self.first_unready().is_none() && is_dialled();
            if is_complete || has_failed.load(Ordering::Relaxed) {
                return Ok(links);
            }
            (self.joining.options.keep_waiting)()?;
            if Instant::now() >= self.until {
                return Err(self.overdue(&links));
            }
            self.listen(if all_came && rank > 0 { DIAL_TICK } else { TICK }, &mut links)?;
        }
    }

    fn first_unready(&self) -> Option<usize> {
        match &*self.control {
            Control::Host(seats) => seats.iter().flatten().find(|seat| !seat.ready).map(|seat| seat.hello.rank),
            Control::Member(_) => None,
        }
    }

    fn listen(&mut self, patience: Duration, links: &mut [Option<Channel>]) -> Result<(), ClusterError> {
        let watched: Vec<&Channel> = match &*self.control {
            Control::Host(seats) => seats.iter().flatten().map(|seat| &seat.channel).collect(),
            Control::Member(channel) => vec![channel],
        };
        let news = self.gate.wait(patience, &watched).map_err(|e| local("cannot wait for data connections", &e))?;
        match self.control {
            Control::Host(seats) => host::hear(seats, &news.readable)?,
            Control::Member(channel) if !news.readable.is_empty() => return Err(member::hear(self.joining, channel)),
            Control::Member(_) => {}
        }
        for arrival in news.arrivals {
            take(self.joining, arrival, links);
        }
        Ok(())
    }

    fn overdue(&self, links: &[Option<Channel>]) -> ClusterError {
        let rank = self.joining.options.rank;
        let unconnected = links.iter().enumerate().skip(rank + 1).find(|(_, link)| link.is_none()).map(|(r, _)| r);
        let name = |rank: usize| {
            let entry = self.roster.entries.get(rank);
            let (host, pid) = entry.map_or(("?", 0), |entry| (entry.host.as_str(), entry.pid));
            format!("rank {rank} (host {host}, pid {pid})")
        };
        let what = match unconnected.or(self.first_unready()) {
            Some(missing) => format!("{} has not connected to {} for data in time", name(missing), name(rank)),
            None => format!("{} has not reached all lower ranks in time", name(rank)),
        };
        ClusterError::Absent { what, advice: OPEN_PORTS.to_owned() }
    }
}

/// Takes a data connection in. One that does not fit is dropped: its rank dials again or is named at the deadline.
fn take(joining: &Joining<'_>, arrival: Arrival, links: &mut [Option<Channel>]) {
    let Arrival { mut channel, first, from } = arrival;
    let link = match messages::parse::<Link>(LINK, &first) {
        Ok(link) if link.rank > joining.options.rank => link,
        Ok(link) => return (joining.options.on_refused)(&format!("{} dialled as rank {}", from.ip(), link.rank)),
        Err(error) => return (joining.options.on_refused)(&format!("{}: {error}", from.ip())),
    };
    // A rank dials again only after it has given its earlier connection up: the newer one counts.
    if let Some(place) = links.get_mut(link.rank)
        && channel.sender().send(WELCOME, &[]).is_ok()
    {
        *place = Some(channel);
    }
}

impl Dialler<'_> {
    fn dial_lower(&self) -> Result<Vec<Option<Channel>>, ClusterError> {
        let dialled = (0..self.rank).map(|lower| self.dial(lower).map(Some)).collect();
        if matches!(dialled, Result::Err(_)) {
            self.failed.store(true, Ordering::Relaxed);
        }
        dialled
    }

    /// Dials one lower rank until it answers.
    fn dial(&self, lower: usize) -> Result<Channel, ClusterError> {
        let Some(entry) = self.roster.entries.get(lower) else {
            return Err(local("the roster is incomplete", &format!("rank {lower} is missing")));
        };
        let Some(address) = self.address(entry) else {
            return Err(local("the roster is incomplete", &format!("the address of rank {lower} is missing")));
        };
        let mut pause = FIRST_PAUSE;
        loop {
            let error = match self.attempt(lower, address) {
                Ok(channel) => return Ok(channel),
                Err(error) => error,
            };
            if Instant::now() >= self.until || self.cancelled.load(Ordering::Relaxed) {
                return Err(self.unreachable(lower, entry, address, &error));
            }
            std::thread::sleep(pause);
            pause = pause.mul_f64(1.6).min(LAST_PAUSE);
        }
    }

    fn address(&self, entry: &Entry) -> Option<SocketAddr> {
        let ip = entry.ip.or(self.rank_0.map(|address| address.ip()))?;
        Some(SocketAddr::new(ip, entry.port))
    }

    fn attempt(&self, lower: usize, address: SocketAddr) -> Result<Channel, String> {
        let text = |e: ChannelError| e.to_string();
        let left = self.until.saturating_duration_since(Instant::now()).clamp(TICK, CONNECT_TIMEOUT);
        let stream = TcpStream::connect_timeout(&address, left).map_err(|e| e.to_string())?;
        let deadline = Instant::now() + PROOF_TIMEOUT;
        let mut check = || {
            let is_over = Instant::now() >= deadline || self.cancelled.load(Ordering::Relaxed);
            if is_over { Err(ChannelError::Timeout) } else { Ok(()) }
        };
        let prologue = prologue(&self.roster.session, lower);
        let dialled = handshake::dial(stream, &self.key, &prologue, deadline, &mut check);
        let mut channel = dialled.map_err(|e| e.to_string())?;
        messages::send(&mut channel, LINK, &Link { rank: self.rank }).map_err(text)?;
        match channel.receiver().recv_idle(&mut check).map_err(text)? {
            (WELCOME, _) => Ok(channel),
            (kind, _) => Err(format!("message {kind} came instead of a welcome")),
        }
    }

    fn unreachable(&self, lower: usize, entry: &Entry, address: SocketAddr, error: &str) -> ClusterError {
        let Entry { host, pid, .. } = entry;
        if self.cancelled.load(Ordering::Relaxed) {
            return lost(lower, host, *pid, Cause::Failed, "the rendezvous was given up");
        }
        ClusterError::Absent {
            what: format!(
                "rank {} cannot reach rank {lower} (host {host}, pid {pid}) at {address} for data: {error}",
                self.rank
            ),
            advice: OPEN_PORTS.to_owned(),
        }
    }
}
