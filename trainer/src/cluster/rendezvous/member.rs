//! Owns the side of every rank but 0 at the rendezvous: dialling until rank 0 is there; never touches rank 0's side.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use super::super::channel::handshake::{self, HandshakeError, UNPROVEN_FRAME_BYTES};
use super::super::channel::{Channel, ChannelError};
use super::super::error::{Cause, ClusterError};
use super::host::dismiss;
use super::messages::{self, FAREWELL, Farewell, GO, HELLO, HERE, Hello, PROBE, READY, ROSTER, Roster, WELCOME};
use super::{Joining, LINKS_TIMEOUT, Mesh, PROOF_TIMEOUT, TICK, links, listen_for_data, lost};

/// Pauses between attempts grow from the first to the last value.
pub(super) const FIRST_PAUSE: Duration = Duration::from_millis(20);
pub(super) const LAST_PAUSE: Duration = Duration::from_millis(500);
/// Longest wait for a host to accept a connection.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a wrong answer is met with another attempt: the port may just be changing hands.
const STRANGER_PATIENCE: Duration = Duration::from_secs(3);

/// How one attempt ended that did not reach rank 0.
enum Attempt {
    /// Nobody there, or nobody that answered: worth trying until the deadline.
    Again(String),
    /// Somebody there that is not rank 0 of this run.
    Stranger(String),
    /// It will not get better.
    Over(ClusterError),
}

/// A seat at rank 0's table.
struct Joined {
    control: Channel,
    own: Hello,
    listener: TcpListener,
}

pub(super) fn join(joining: &Joining<'_>) -> Result<Mesh, ClusterError> {
    joining.check_rendezvous()?;
    let Joined { mut control, own, listener } = reach(joining)?;
    let result = take_part(joining, &mut control, listener);
    match result {
        Ok((roster, data)) => {
            let mut controls: Vec<Option<Channel>> = (0..roster.entries.len()).map(|_| None).collect();
            if let Some(first) = controls.first_mut() {
                let _ = control.sender().set_write_timeout(None);
                *first = Some(control);
            }
            let (hosts, pids) = roster.entries.into_iter().map(|e| (e.host, e.pid)).unzip();
            Ok(Mesh { rank: own.rank, world: own.world, hosts, pids, control: controls, data, wire: roster.wire })
        }
        Err(error) => {
            dismiss(&mut control, &Farewell::of(&error, &own));
            Err(error)
        }
    }
}

/// Dials rank 0 until it says welcome.
fn reach(joining: &Joining<'_>) -> Result<Joined, ClusterError> {
    let name = &joining.options.rendezvous;
    let mut pause = Pause::new(joining.options.rank);
    let mut strange_since: Option<Instant> = None;
    loop {
        let (met, is_stranger) = match attempt(joining) {
            Ok(joined) => return Ok(joined),
            Err(Attempt::Over(error)) => return Err(error),
            Err(Attempt::Again(met)) => (met, false),
            Err(Attempt::Stranger(met)) => (met, true),
        };
        strange_since = strange_since.filter(|_| is_stranger).or(is_stranger.then(Instant::now));
        if strange_since.is_some_and(|since| since.elapsed() >= STRANGER_PATIENCE) {
            return Err(ClusterError::Refused {
                what: format!("rank {} was turned away at {name}: {met}", joining.options.rank),
                advice:
                    "compare the token files of both hosts (a digest will do), and make sure that the port belongs \
                         to this run"
                        .to_owned(),
            });
        }
        if Instant::now() >= joining.until {
            let waited = joining.options.deadline;
            return Err(ClusterError::Absent {
                what: format!(
                    "rank {} did not reach rank 0 at {name} within {waited:.0?}: {met}",
                    joining.options.rank
                ),
                advice: "start rank 0, correct the rendezvous address, or open the port between the hosts".to_owned(),
            });
        }
        pause.sleep(joining)?;
    }
}

/// Growing pauses between attempts.
struct Pause(Duration);

impl Pause {
    fn new(rank: usize) -> Self {
        // Ranks that start together do not dial together for ever.
        Self(FIRST_PAUSE + Duration::from_millis(rank as u64 % 16))
    }

    fn sleep(&mut self, joining: &Joining<'_>) -> Result<(), ClusterError> {
        let until = (Instant::now() + self.0).min(joining.until);
        self.0 = self.0.mul_f64(1.6).min(LAST_PAUSE);
        loop {
            (joining.options.keep_waiting)()?;
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(TICK));
        }
    }
}

fn attempt(joining: &Joining<'_>) -> Result<Joined, Attempt> {
    let mut met = String::new();
    for address in joining.addresses().map_err(Attempt::Again)? {
        let left = joining.until.saturating_duration_since(Instant::now()).clamp(TICK, CONNECT_TIMEOUT);
        match TcpStream::connect_timeout(&address, left) {
            Ok(stream) => return introduce(joining, stream, address),
            Err(error) => {
                let separator = if met.is_empty() { "" } else { ", " };
                met = format!("{met}{separator}{address} said: {error}");
            }
        }
    }
    Err(Attempt::Again(met))
}

/// Proves the token, says hello, waits for the welcome.
fn introduce(joining: &Joining<'_>, stream: TcpStream, address: SocketAddr) -> Result<Joined, Attempt> {
    let deadline = (Instant::now() + PROOF_TIMEOUT).min(joining.until);
    let mut check = || (joining.options.keep_waiting)().map_err(|e| ChannelError::Interrupted(Box::new(e)));
    let dialled = handshake::dial(stream, &joining.key, messages::PROTOCOL.as_bytes(), deadline, &mut check);
    let mut control = dialled.map_err(|error| match error {
        HandshakeError::Channel(ChannelError::Interrupted(error)) => Attempt::Over(*error),
        HandshakeError::Channel(error) => Attempt::Again(format!(
            "{address} took the connection, but not our greeting ({error}): it may be busy, hold another token, or be \
             another program"
        )),
        error => Attempt::Stranger(format!("{address}: {error}")),
    })?;
    let again = |error: ChannelError| match error {
        ChannelError::Interrupted(error) => Attempt::Over(*error),
        error => Attempt::Again(format!("{address}: {error}")),
    };
    let reached_from = control.local_addr().map_err(again)?.ip();
    let (listener, data_ip, data_port) = listen_for_data(joining.options.bind, reached_from).map_err(Attempt::Over)?;
    let own = joining.hello(data_ip, data_port);
    let text = serde_json::to_vec(&own).map_err(|e| again(ChannelError::Protocol(e.to_string())))?;
    if text.len() > UNPROVEN_FRAME_BYTES {
        return Err(Attempt::Over(ClusterError::Refused {
            what: format!("what this process must say of itself takes {} bytes", text.len()),
            advice: format!("shorten the facts and names that describe the run to {UNPROVEN_FRAME_BYTES} bytes"),
        }));
    }
    control.sender().set_write_timeout(Some(PROOF_TIMEOUT)).map_err(again)?;
    control.sender().send(HELLO, &text).map_err(again)?;
    let mut idle = || if Instant::now() >= deadline { Err(ChannelError::Timeout) } else { check() };
    let frame = control.receiver().recv_idle(&mut idle).map_err(again)?;
    if frame.0 == WELCOME {
        return Ok(Joined { control, own, listener });
    }
    let farewell: Farewell = messages::parse(FAREWELL, &frame).map_err(again)?;
    Err(Attempt::Over(farewell.into_error()))
}

/// Waits for the roster, connects for data, waits for the start.
fn take_part(
    joining: &Joining<'_>,
    control: &mut Channel,
    listener: TcpListener,
) -> Result<(Roster, Vec<Option<Channel>>), ClusterError> {
    let frame = expect(joining, control, ROSTER, joining.until, "the other ranks did not all come")?;
    let roster: Roster = messages::parse(ROSTER, &frame).map_err(|e| rank_0(joining, Cause::Disagrees, &e))?;
    if roster.entries.len() != joining.options.world {
        let error = ChannelError::Protocol(format!("the roster has {} entries", roster.entries.len()));
        return Err(rank_0(joining, Cause::Disagrees, &error));
    }
    let until = joining.until.max(Instant::now() + LINKS_TIMEOUT);
    let data = links::connect(joining, &roster, listener, links::Control::Member(&mut *control), until)?;
    control.sender().send(READY, &[]).map_err(|e| rank_0(joining, Cause::Died, &e))?;
    expect(joining, control, GO, until + LINKS_TIMEOUT, "the other ranks did not all connect")?;
    Ok((roster, data))
}

/// Waits for a message of rank 0, which may be its farewell instead.
fn expect(
    joining: &Joining<'_>,
    control: &mut Channel,
    kind: u8,
    until: Instant,
    overdue: &str,
) -> Result<(u8, Vec<u8>), ClusterError> {
    let mut idle = || {
        (joining.options.keep_waiting)().map_err(|e| ChannelError::Interrupted(Box::new(e)))?;
        if Instant::now() >= until { Err(ChannelError::Timeout) } else { Ok(()) }
    };
    let mut received = control.receiver().recv_idle(&mut idle);
    while matches!(received, Ok((PROBE, _))) {
        control.sender().send(HERE, &[]).map_err(|e| rank_0(joining, Cause::Died, &e))?;
        received = control.receiver().recv_idle(&mut idle);
    }
    match received {
        Ok(frame) if frame.0 == kind => Ok(frame),
        Ok(frame) => {
            let farewell: Farewell =
                messages::parse(FAREWELL, &frame).map_err(|e| rank_0(joining, Cause::Disagrees, &e))?;
            Err(farewell.into_error())
        }
        Err(ChannelError::Interrupted(error)) => Err(*error),
        Err(ChannelError::Timeout) => Err(ClusterError::Absent {
            what: format!(
                "rank {} reached rank 0 at {}, but {overdue} within {:.0?}",
                joining.options.rank, joining.options.rendezvous, joining.options.deadline
            ),
            advice: "look at the output of rank 0, and start all ranks within the deadline".to_owned(),
        }),
        Err(ChannelError::Closed) => Err(rank_0(joining, Cause::Died, &ChannelError::Closed)),
        Err(error) => Err(rank_0(joining, Cause::Failed, &error)),
    }
}

/// Rank 0 is to blame. Before the roster only its address is known.
pub(super) fn rank_0(joining: &Joining<'_>, cause: Cause, error: &ChannelError) -> ClusterError {
    lost(0, &joining.options.rendezvous, 0, cause, error.to_string())
}

/// A farewell (or the end) of rank 0 that came while this rank was busy connecting.
pub(super) fn hear(joining: &Joining<'_>, control: &mut Channel) -> ClusterError {
    match control.receiver().try_recv(CONNECT_TIMEOUT) {
        Ok(Some(frame)) => match messages::parse::<Farewell>(FAREWELL, &frame) {
            Ok(farewell) => farewell.into_error(),
            Err(error) => rank_0(joining, Cause::Disagrees, &error),
        },
        Ok(None) => rank_0(joining, Cause::Silent, &ChannelError::Timeout),
        Err(ChannelError::Closed) => rank_0(joining, Cause::Died, &ChannelError::Closed),
        Err(error) => rank_0(joining, Cause::Failed, &error),
    }
}
