//! Owns how the processes of a run find and prove each other; never touches what they compute.
//!
//! Rank 0 listens at the rendezvous address, the others dial it. Every connection starts with the handshake of
//! [`super::channel::handshake`], then:
//!
//! 1. member -> rank 0: `HELLO` (who it is, what it is about to run), sealed;
//! 2. rank 0 -> member: `WELCOME`, or `FAREWELL` with the reason;
//! 3. when all have come, rank 0 -> members: `ROSTER` (hosts, process ids, addresses, how data travels);
//! 4. each pair connects for data: the higher rank dials the lower (`LINK`, answered by `WELCOME`);
//! 5. member -> rank 0: `READY`; when all are, rank 0 -> members: `GO`.
//!
//! Whoever fails in between says why in a `FAREWELL`, which rank 0 passes on, so that all end with the same words.

mod gate;
mod host;
mod links;
mod member;
mod messages;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, ToSocketAddrs};
use std::time::{Duration, Instant};

pub use super::channel::{Channel, Wire};
use super::error::{Cause, ClusterError, Verdict};
use super::token::Token;
pub(crate) use gate::{Arrival, Gate};
use messages::Hello;

/// Pending connections that have not proven to hold the token, at most.
const MAX_PENDING: usize = 64;
/// Time a connection has to prove that it holds the token.
const PROOF_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest wait before the caller's check is called again.
const TICK: Duration = Duration::from_millis(50);
/// Time for connecting all pairs once all have come, even if the last came just before the deadline.
const LINKS_TIMEOUT: Duration = Duration::from_secs(15);
/// Time in which one farewell must go out.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(2);
/// Most processes of a run: what a roster of one frame holds.
pub const MAX_WORLD: usize = 4096;

/// What every process of a run must agree on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Membership {
    /// Name of the run: keeps apart runs that share a token and a port by mistake.
    pub run_id: String,
    /// Digest over everything that must be equal.
    pub fingerprint: String,
    /// The parts of it that a user can understand, as key and value, compared one by one.
    pub facts: Vec<(String, String)>,
}

/// How to join a run.
pub struct JoinOptions<'a> {
    /// This process, from 0.
    pub rank: usize,
    /// Number of processes.
    pub world: usize,
    /// Name of this host, for messages.
    pub host: String,
    /// `host:port` of rank 0; the host is a name or an address, IPv6 in brackets.
    pub rendezvous: String,
    /// Address that this process listens at. `None`: rank 0 at the rendezvous address, the others where they reach it
    /// from; so nothing listens beyond loopback when the rendezvous is there. `0.0.0.0` or `::` is every address.
    pub bind: Option<IpAddr>,
    /// The shared secret.
    pub token: &'a Token,
    /// How data travels. `None`: plain when every process is reached over loopback, sealed otherwise. Control
    /// connections are always sealed.
    pub wire: Option<Wire>,
    /// How long to wait for all processes.
    pub deadline: Duration,
    /// What every process must agree on.
    pub members: &'a Membership,
    /// Hears of connections that were turned away, once per address.
    pub on_refused: &'a dyn Fn(&str),
    /// Called at least every 100 ms or so while waiting (2 s while a connection is being made); its error ends the
    /// rendezvous.
    pub keep_waiting: &'a dyn Fn() -> Result<(), ClusterError>,
}

/// The processes of a run, connected.
#[derive(Debug)]
pub struct Mesh {
    /// This process, from 0.
    pub rank: usize,
    /// Number of processes.
    pub world: usize,
    /// Host names by rank.
    pub hosts: Vec<String>,
    /// Process ids by rank.
    pub pids: Vec<u32>,
    /// On rank 0 a control connection to every other rank (its own entry is `None`); on the others only to rank 0.
    pub control: Vec<Option<Channel>>,
    /// A data connection to every other rank.
    pub data: Vec<Option<Channel>>,
    /// How data travels.
    pub wire: Wire,
}

/// Joins the run: returns once all processes are connected in pairs. A world of 1 opens no socket.
///
/// # Errors
/// [`ClusterError::Refused`] when the processes do not belong together or do not all come in time,
/// [`ClusterError::Lost`] when one died while joining, [`ClusterError::Local`] when this host's network fails. Where
/// rank 0 can tell the others, all fail with the same words.
pub fn join(options: &JoinOptions<'_>) -> Result<Mesh, ClusterError> {
    let JoinOptions { rank, world, .. } = *options;
    if world == 0 || world > MAX_WORLD || rank >= world {
        return Err(ClusterError::Refused {
            what: format!("rank {rank} of {world} processes is impossible"),
            advice: format!("ranks count from 0, up to {MAX_WORLD} processes; check the launcher's variables"),
        });
    }
    if world == 1 {
        return Ok(Mesh {
            rank,
            world,
            hosts: vec![options.host.clone()],
            pids: vec![std::process::id()],
            control: vec![None],
            data: vec![None],
            wire: options.wire.unwrap_or(Wire::Plain),
        });
    }
    let started = Joining { options, key: options.token.derive("control"), until: Instant::now() + options.deadline };
    if rank == 0 { host::join(&started) } else { member::join(&started) }
}

/// What both sides of a rendezvous need.
struct Joining<'a> {
    options: &'a JoinOptions<'a>,
    key: [u8; 32],
    until: Instant,
}

impl Joining<'_> {
    fn hello(&self, data_ip: Option<IpAddr>, data_port: u16) -> Hello {
        let JoinOptions { rank, world, host, wire, members, .. } = self.options;
        let mut facts = members.facts.clone();
        facts.push(("wire".to_owned(), wire.map_or("auto", Wire::name).to_owned()));
        facts.push(("fingerprint".to_owned(), members.fingerprint.clone()));
        Hello {
            run_id: members.run_id.clone(),
            rank: *rank,
            world: *world,
            host: host.clone(),
            pid: std::process::id(),
            facts,
            data_ip,
            data_port,
        }
    }

    /// The addresses that the rendezvous name stands for now. Names may appear late (a pod that is just starting).
    fn addresses(&self) -> Result<Vec<SocketAddr>, String> {
        let name = &self.options.rendezvous;
        let found: Vec<_> = name.to_socket_addrs().map_err(|e| format!("cannot find {name}: {e}"))?.collect();
        if found.is_empty() { Err(format!("{name} has no address")) } else { Ok(found) }
    }

    /// Refuses a rendezvous that cannot be one, before anybody waits for it.
    fn check_rendezvous(&self) -> Result<(), ClusterError> {
        let name = &self.options.rendezvous;
        let port = name.rsplit_once(':').and_then(|(host, port)| {
            let bracketed = host.starts_with('[') && host.ends_with(']');
            let plain = !host.is_empty() && !host.contains(':');
            port.parse::<u16>().ok().filter(|p| *p > 0 && (bracketed || plain))
        });
        match port {
            Some(_) => Ok(()),
            None => Err(ClusterError::Refused {
                what: format!("the rendezvous '{name}' is not HOST:PORT"),
                advice: "write for example node0:29500, 10.0.0.1:29500 or [fd00::1]:29500".to_owned(),
            }),
        }
    }
}

/// Whether an address is of this host only. An IPv4 address in IPv6 clothes counts as what it is.
fn is_loopback(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}

/// "Any address" of the same family.
fn unspecified_like(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

/// Opens the listener for data connections; returns it with the address to announce, if it is a specific one.
fn listen_for_data(
    bind: Option<IpAddr>,
    reached_from: IpAddr,
) -> Result<(TcpListener, Option<IpAddr>, u16), ClusterError> {
    let ip = match bind {
        Some(ip) if ip.is_unspecified() => unspecified_like(reached_from),
        Some(ip) => ip,
        None => reached_from,
    };
    let opened = TcpListener::bind((ip, 0)).and_then(|listener| Ok((listener.local_addr()?.port(), listener)));
    let (port, listener) = opened.map_err(|e| ClusterError::Local {
        what: format!("cannot listen for data connections at {ip}"),
        cause: e.to_string(),
        advice: "choose an address of this host as bind address, or 0.0.0.0".to_owned(),
    })?;
    Ok((listener, Some(ip).filter(|ip| !ip.is_unspecified()), port))
}

/// The verdict on a rank that was lost while joining.
fn lost(rank: usize, host: &str, pid: u32, cause: Cause, detail: impl Into<String>) -> ClusterError {
    let (host, during) = (host.to_owned(), "the rendezvous".to_owned());
    ClusterError::Lost(Verdict { rank, host, pid, cause, step: 0, during, detail: detail.into() })
}

#[cfg(test)]
mod tests;
