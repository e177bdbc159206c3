//! Owns rank 0's side of the rendezvous: who has come, who fits, who is missing; never touches the members' side.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use super::super::channel::{Channel, ChannelError, Wire};
use super::super::error::{Cause, ClusterError};
use super::gate::{Arrival, Gate};
use super::messages::{
    self, Entry, FAREWELL, Farewell, GO, HELLO, HERE, Hello, Judgement, PROBE, READY, ROSTER, Roster, WELCOME,
};
use super::{FAREWELL_TIMEOUT, Joining, LINKS_TIMEOUT, Mesh, TICK, is_loopback, links, listen_for_data, lost};
use crate::secret_file::fill_random;

/// How long a port that is in use is tried again: an earlier attempt of the same run may still be ending.
const BIND_PATIENCE: Duration = Duration::from_secs(20);
/// Time for a message that is on its way, once its first bytes are there.
const MESSAGE_TIMEOUT: Duration = Duration::from_secs(2);

/// A member that has come.
pub(super) struct Seat {
    pub channel: Channel,
    pub hello: Hello,
    pub from: SocketAddr,
    pub ready: bool,
}

pub(super) fn join(joining: &Joining<'_>) -> Result<Mesh, ClusterError> {
    joining.check_rendezvous()?;
    let listener = listen(joining)?;
    let address = listener.local_addr().map_err(|e| network("cannot listen", e))?;
    let (data_listener, data_ip, data_port) = listen_for_data(joining.options.bind, address.ip())?;
    let own = joining.hello(data_ip, data_port);
    let gate = Gate::new(listener, joining.key, messages::PROTOCOL.into(), joining.options.on_refused);
    let gate = gate.map_err(|e| network("cannot listen", e))?;
    let mut seats: Vec<Option<Seat>> = (0..own.world).map(|_| None).collect();
    let built = gather(joining, gate, &own, &mut seats).and_then(|()| build(joining, &own, &mut seats, data_listener));
    match built {
        Ok((data, wire)) => Ok(mesh(joining, own, seats, data, wire)),
        Err(error) => {
            let farewell = Farewell::of(&error, &own);
            for seat in seats.iter_mut().flatten() {
                dismiss(&mut seat.channel, &farewell);
            }
            Err(error)
        }
    }
}

fn network(what: &str, error: impl ToString) -> ClusterError {
    ClusterError::Local {
        what: format!("rendezvous: {what}"),
        cause: error.to_string(),
        advice: "check this host's network and its limits on open files".to_owned(),
    }
}

/// Listens at the rendezvous port.
fn listen(joining: &Joining<'_>) -> Result<TcpListener, ClusterError> {
    let name = &joining.options.rendezvous;
    let patience = Instant::now() + BIND_PATIENCE.min(joining.options.deadline);
    loop {
        // The standard library sets SO_REUSEADDR: connections of an earlier attempt in TIME_WAIT do not matter.
        let tried = joining.addresses().map_err(io::Error::other).and_then(|found| {
            let addresses: Vec<SocketAddr> = match joining.options.bind {
                Some(ip) => found.iter().take(1).map(|a| SocketAddr::new(ip, a.port())).collect(),
                None => found,
            };
            TcpListener::bind(addresses.as_slice())
        });
        let error = match tried {
            Ok(listener) => return Ok(listener),
            Err(error) => error,
        };
        if error.kind() != io::ErrorKind::AddrInUse || Instant::now() >= patience {
            let advice = match error.kind() {
                io::ErrorKind::AddrInUse => {
                    "another program (or an earlier attempt of this run) listens there: end it, or choose another port"
                }
                io::ErrorKind::AddrNotAvailable => {
                    "this is no address of this host: start rank 0 on the rendezvous host, or give 0.0.0.0 as bind \
                     address"
                }
                _ => "correct the rendezvous address; it must name the host that rank 0 runs on",
            };
            let (what, advice) = (format!("rank 0 cannot listen at {name}: {error}"), advice.to_owned());
            return Err(ClusterError::Refused { what, advice });
        }
        (joining.options.keep_waiting)()?;
        std::thread::sleep(TICK);
    }
}

/// Waits until every rank has come.
fn gather(
    joining: &Joining<'_>,
    mut gate: Gate<'_>,
    own: &Hello,
    seats: &mut [Option<Seat>],
) -> Result<(), ClusterError> {
    let mut turned_away: Option<String> = None;
    loop {
        if seats.iter().skip(1).all(Option::is_some) {
            return Ok(());
        }
        (joining.options.keep_waiting)()?;
        if Instant::now() >= joining.until {
            return Err(missing(joining, &gate, seats, turned_away));
        }
        let patience = joining.until.saturating_duration_since(Instant::now()).min(TICK);
        let news = {
            let watched: Vec<&Channel> = seats.iter().flatten().map(|seat| &seat.channel).collect();
            gate.wait(patience, &watched).map_err(|e| network("cannot wait for members", e))?
        };
        // Indices count the seats that are taken, which arrivals change: look at these first.
        hear(seats, &news.readable)?;
        for arrival in news.arrivals {
            if let Some(why) = seat(own, seats, arrival)? {
                (joining.options.on_refused)(&why);
                turned_away = Some(why);
            }
        }
    }
}

/// Gives an arrival its seat; returns why if it was turned away alone.
fn seat(own: &Hello, seats: &mut [Option<Seat>], arrival: Arrival) -> Result<Option<String>, ClusterError> {
    let Arrival { mut channel, first, from } = arrival;
    // It came unharmed through an authenticated channel: another program version at most.
    let hello: Hello = match messages::parse(HELLO, &first) {
        Ok(hello) => hello,
        Err(error) => return Ok(Some(format!("a member at {} was turned away: {error}", from.ip()))),
    };
    let seated = |seats: &[Option<Seat>]| seats.get(hello.rank).and_then(Option::as_ref).map(|seat| seat.hello.clone());
    let mut judgement = messages::judge(own, &hello, seated(seats).as_ref());
    if let (Judgement::Taken { .. }, Some(place)) = (&judgement, seats.get_mut(hello.rank))
        && !place.as_mut().is_some_and(is_there)
    {
        // Its host is gone without a word: the newcomer is its replacement.
        *place = None;
        judgement = messages::judge(own, &hello, None);
    }
    match judgement {
        Judgement::Welcome => {
            let sent = channel.sender().set_write_timeout(Some(FAREWELL_TIMEOUT));
            if sent.and_then(|()| channel.sender().send(WELCOME, &[])).is_ok()
                && let Some(place) = seats.get_mut(hello.rank)
            {
                *place = Some(Seat { channel, hello, from, ready: false });
            }
            // Otherwise it left at once: as if it had not come.
            Ok(None)
        }
        Judgement::Taken { what, advice } | Judgement::Refuse { what, advice } => {
            dismiss(&mut channel, &Farewell::Refused { what: what.clone(), advice });
            Ok(Some(what))
        }
        Judgement::Abort { what, advice } => {
            dismiss(&mut channel, &Farewell::Refused { what: what.clone(), advice: advice.clone() });
            Err(ClusterError::Refused { what, advice })
        }
    }
}

/// Asks a seated member for a sign of life.
fn is_there(seat: &mut Seat) -> bool {
    let asked = seat.channel.sender().set_write_timeout(Some(FAREWELL_TIMEOUT));
    asked.and_then(|()| seat.channel.sender().send(PROBE, &[])).is_ok()
        && matches!(seat.channel.receiver().try_recv(MESSAGE_TIMEOUT), Ok(Some((HERE, _))))
}

/// Reads what seated members say: that they are ready, that they failed, or nothing any more. `indices` count the seats
/// that are taken.
pub(super) fn hear(seats: &mut [Option<Seat>], indices: &[usize]) -> Result<(), ClusterError> {
    for (_, seat) in seats.iter_mut().flatten().enumerate().filter(|(index, _)| indices.contains(index)) {
        let Hello { rank, host, pid, .. } = &seat.hello;
        let said = seat.channel.receiver().try_recv(MESSAGE_TIMEOUT);
        match said {
            Ok(Some((READY, _))) => seat.ready = true,
            Ok(Some(frame)) => {
                let farewell: Farewell = messages::parse(FAREWELL, &frame)
                    .map_err(|error| lost(*rank, host, *pid, Cause::Disagrees, error.to_string()))?;
                return Err(farewell.into_error());
            }
            Ok(None) => return Err(lost(*rank, host, *pid, Cause::Silent, "it stopped in the middle of a message")),
            Err(ChannelError::Closed) => return Err(lost(*rank, host, *pid, Cause::Died, "its connection closed")),
            Err(error) => return Err(lost(*rank, host, *pid, Cause::Failed, error.to_string())),
        }
    }
    Ok(())
}

fn missing(
    joining: &Joining<'_>,
    gate: &Gate<'_>,
    seats: &[Option<Seat>],
    turned_away: Option<String>,
) -> ClusterError {
    let ranks: Vec<String> =
        seats.iter().enumerate().skip(1).filter(|(_, s)| s.is_none()).map(|(rank, _)| rank.to_string()).collect();
    let noun = if ranks.len() == 1 { "rank" } else { "ranks" };
    let mut what = format!(
        "{noun} {} of {} never came to the rendezvous at {} within {:.0?}",
        ranks.join(", "),
        seats.len(),
        joining.options.rendezvous,
        joining.options.deadline
    );
    for clause in [turned_away.map(|why| format!("turned away: {why}")), gate.refusals()].into_iter().flatten() {
        what = format!("{what}; {clause}");
    }
    let advice = "look at the output of the missing ranks: they say which address they tried and what they met";
    ClusterError::Absent { what, advice: advice.to_owned() }
}

/// Sends the roster, connects for data and waits until everybody has.
fn build(
    joining: &Joining<'_>,
    own: &Hello,
    seats: &mut [Option<Seat>],
    listener: TcpListener,
) -> Result<(Vec<Option<Channel>>, Wire), ClusterError> {
    let roster = roster(joining, own, seats)?;
    for seat in seats.iter_mut().flatten() {
        messages::send(&mut seat.channel, ROSTER, &roster).map_err(|e| left(seat, &e))?;
    }
    let until = joining.until.max(Instant::now() + LINKS_TIMEOUT);
    let data = links::connect(joining, &roster, listener, links::Control::Host(&mut *seats), until)?;
    for seat in seats.iter_mut().flatten() {
        let timeout = seat.channel.sender().set_write_timeout(Some(FAREWELL_TIMEOUT));
        timeout.and_then(|()| seat.channel.sender().send(GO, &[])).map_err(|e| left(seat, &e))?;
    }
    Ok((data, roster.wire))
}

fn left(seat: &Seat, error: &ChannelError) -> ClusterError {
    lost(seat.hello.rank, &seat.hello.host, seat.hello.pid, Cause::Died, error.to_string())
}

fn roster(joining: &Joining<'_>, own: &Hello, seats: &[Option<Seat>]) -> Result<Roster, ClusterError> {
    let mut random = [0u8; 16];
    fill_random(&mut random).map_err(|e| network("the system gives no random bytes", e))?;
    let mut entries = vec![Entry { host: own.host.clone(), pid: own.pid, ip: None, port: own.data_port }];
    let mut all_local = true;
    for seat in seats.iter().flatten() {
        all_local &= is_loopback(seat.from.ip());
        let ip: IpAddr = seat.hello.data_ip.unwrap_or(seat.from.ip()).to_canonical();
        // A member seen over loopback lives on rank 0's host; others reach it where they reach rank 0.
        let ip = Some(ip).filter(|ip| !is_loopback(*ip));
        entries.push(Entry { host: seat.hello.host.clone(), pid: seat.hello.pid, ip, port: seat.hello.data_port });
    }
    let wire = joining.options.wire.unwrap_or(if all_local { Wire::Plain } else { Wire::Sealed });
    let session = random.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Roster { session, wire, entries })
}

/// Says why it ends here. Whether it arrives is the member's luck: its own deadline ends it otherwise.
pub(super) fn dismiss(channel: &mut Channel, farewell: &Farewell) {
    let timeout = channel.sender().set_write_timeout(Some(FAREWELL_TIMEOUT));
    let _ = timeout.and_then(|()| messages::send(channel, FAREWELL, farewell));
}

fn mesh(joining: &Joining<'_>, own: Hello, seats: Vec<Option<Seat>>, data: Vec<Option<Channel>>, wire: Wire) -> Mesh {
    let (mut hosts, mut pids, mut control) = (vec![own.host], vec![own.pid], vec![None]);
    for mut seat in seats.into_iter().flatten() {
        // The timeouts were for joining; what follows sets its own.
        let _ = seat.channel.sender().set_write_timeout(None);
        hosts.push(seat.hello.host);
        pids.push(seat.hello.pid);
        control.push(Some(seat.channel));
    }
    Mesh { rank: 0, world: joining.options.world, hosts, pids, control, data, wire }
}
