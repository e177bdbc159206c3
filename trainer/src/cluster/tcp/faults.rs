//! Owns the tests of the engine over networks that misbehave: real sockets, a thread a rank, all connections of one rank
//! led through a proxy.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::needless_range_loop)]

#[path = "../../../tests/suite/support/proxy.rs"]
mod proxy;
#[path = "../../../tests/suite/support/table.rs"]
mod table;

use std::net::SocketAddr;
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use self::proxy::{Blow, Network, Weather};
use self::table::{Row, faults};
use super::*;
use crate::cluster::channel::Wire;
use crate::cluster::control::Timing;
use crate::cluster::control::tests::{pair_through, quick, start};
use crate::cluster::error::Verdict;

const WORLD: usize = 3;
/// Nothing here may take longer; only a hang does.
const FOR_EVER: Duration = Duration::from_secs(60);
/// Deadline for silence and for being stuck in these tests.
const DEADLINE: Duration = Duration::from_secs(1);

/// What a test does with the engine, whose rank is told by the engine itself.
type Body = fn(&mut TcpCollective) -> Result<(), ClusterError>;

/// The networks behind which one rank lives.
#[derive(Default)]
struct Networks {
    control: Network,
    data: Network,
}

impl Networks {
    fn both(&self, change: impl Fn(&Network)) {
        change(&self.control);
        change(&self.data);
    }
}

/// What became of a rank.
struct End {
    rank: usize,
    result: Result<(), ClusterError>,
    at: Instant,
}

/// Runs `body` as every rank, `odd` behind networks of its own with which `act` does something after a moment. Returns
/// the moment and the ends of all ranks.
fn play(odd: usize, wire: Wire, timing: Timing, body: Body, act: &dyn Fn(&Networks)) -> (Instant, Vec<End>) {
    let networks = Networks::default();
    let mut ends: Vec<(Vec<_>, Vec<_>)> =
        (0..WORLD).map(|_| ((0..WORLD).map(|_| None).collect(), (0..WORLD).map(|_| None).collect())).collect();
    let pair = |high: usize, low: usize, wire: Wire, network: &Network| {
        let lead = |address: SocketAddr| network.lead_to(address);
        if [high, low].contains(&odd) { pair_through(wire, &lead) } else { pair_through(wire, &|address| address) }
    };
    for high in 1..WORLD {
        let (outer, inner) = pair(high, 0, Wire::Sealed, &networks.control);
        (ends[high].0[0], ends[0].0[high]) = (Some(outer), Some(inner));
        for low in 0..high {
            let (outer, inner) = pair(high, low, wire, &networks.data);
            (ends[high].1[low], ends[low].1[high]) = (Some(outer), Some(inner));
        }
    }
    let (send, results) = channel();
    for (rank, (control, data)) in ends.into_iter().enumerate() {
        let send = send.clone();
        thread::spawn(move || {
            let control = start(rank, control, timing);
            let mut tcp = TcpCollective::new(data, control).unwrap();
            let result = body(&mut tcp);
            let _ = send.send(End { rank, at: Instant::now(), result });
            drop(tcp.links.drain(..));
            tcp.control.leave();
        });
    }
    thread::sleep(Duration::from_millis(150));
    let at = Instant::now();
    act(&networks);
    let mut seen: Vec<End> = (0..WORLD).filter_map(|_| results.recv_timeout(FOR_EVER).ok()).collect();
    seen.sort_by_key(|end| end.rank);
    (at, seen)
}

/// Sums that are checked, again and again: an end comes only with a lost rank.
fn sums_for_ever(tcp: &mut TcpCollective) -> Result<(), ClusterError> {
    (0..).try_for_each(|round| checked_sum(tcp, round))
}

/// A few sums, for networks that only take their time.
fn five_sums(tcp: &mut TcpCollective) -> Result<(), ClusterError> {
    (0..5).try_for_each(|round| checked_sum(tcp, round))
}

fn checked_sum(tcp: &mut TcpCollective, round: usize) -> Result<(), ClusterError> {
    let value = |rank: usize, i: usize| ((rank * 7 + i + round) % 1000) as f32;
    let mut values: Vec<f32> = (0..150_000).map(|i| value(tcp.rank, i)).collect();
    tcp.all_reduce(&mut values, Order::Exact)?;
    let right = |i: usize| (0..WORLD).map(|rank| value(rank, i)).sum::<f32>();
    assert!((0..values.len()).all(|i| values[i] == right(i)), "round {round}: a wrong sum and no error");
    Ok(())
}

/// A fault, and which verdict on it is right for the rank it was done to.
struct Trial<'a> {
    what: &'a str,
    timing: Timing,
    act: &'a dyn Fn(&Networks),
    is_right: &'a dyn Fn(&Verdict, usize) -> bool,
}

impl Trial<'_> {
    /// Does the fault to every rank in turn and writes what the others made of it.
    fn run(&self, wires: &[Wire]) {
        let mut row = Row::default();
        for (odd, wire) in (0..repetitions()).flat_map(|n| (0..WORLD).map(move |odd| (odd, wires[n % wires.len()]))) {
            let (at, ends) = play(odd, wire, self.timing, sums_for_ever, self.act);
            row.count += 1;
            if ends.len() < WORLD {
                row.hangs.push(format!("rank {odd}: {} of {WORLD} ended", ends.len()));
            }
            // What the rank itself sees is that the others are gone.
            for end in ends.into_iter().filter(|end| end.rank != odd) {
                row.named.push((end.at - at).as_secs_f64());
                match end.result {
                    Err(ClusterError::Lost(verdict)) if (self.is_right)(&verdict, odd) => {}
                    other => row.wrong.push(format!("rank {odd}, {wire:?}: rank {} says {other:?}", end.rank)),
                }
            }
        }
        row.finish(self.what);
    }
}

const BOTH: [Wire; 2] = [Wire::Plain, Wire::Sealed];

/// Repetitions for three ranks each, from the number of main faults.
fn repetitions() -> usize {
    faults().div_ceil(24)
}

#[test]
fn a_late_or_slow_network_changes_no_bit_and_alarms_nobody() {
    let timing = Timing { peer_timeout: 4 * DEADLINE, collective_timeout: 4 * DEADLINE, ..quick() };
    let late = Weather::Late(Duration::from_millis(200));
    let slow = Weather::Trickle(16 * 1024, Duration::from_millis(5));
    for (what, weather) in [("network: 200 ms late", late), ("network: 3 MB/s in small pieces", slow)] {
        let mut row = Row { same_bits: Some(true), ..Row::default() };
        for wire in [Wire::Plain, Wire::Sealed] {
            for odd in 0..2 {
                let (_, ends) = play(odd, wire, timing, five_sums, &|n| n.both(|network| network.becomes(weather)));
                row.count += 1;
                assert_eq!(ends.len(), WORLD, "{what}: a hang");
                row.wrong.extend(ends.into_iter().filter_map(|end| end.result.err()).map(|error| error.to_string()));
            }
        }
        row.finish(what);
    }
}

#[test]
fn a_rank_whose_connections_end_in_mid_frame_is_named() {
    for (what, blow) in [("network: all connections of a rank cut", Blow::Cut), ("network: … reset", Blow::Reset)] {
        let act = |n: &Networks| n.both(|network| network.strike(blow));
        let is_right = |v: &Verdict, odd| v.rank == odd && v.cause == Cause::Died;
        Trial { what, timing: quick(), act: &act, is_right: &is_right }.run(&BOTH);
    }
}

#[test]
fn a_rank_in_a_black_hole_is_named() {
    let timing = Timing { peer_timeout: DEADLINE, ..quick() };
    let act = |n: &Networks| n.both(|network| network.becomes(Weather::BlackHole));
    let is_right = |v: &Verdict, odd| v.rank == odd && v.cause == Cause::Silent;
    let what = "network: … in a black hole (deadline 1 s)";
    Trial { what, timing, act: &act, is_right: &is_right }.run(&BOTH);
}

/// A connection has two ends, and from its data alone nobody can tell which of them is ill: the verdict names one and
/// mentions the other.
fn names_the_connection(verdict: &Verdict, odd: usize) -> bool {
    let cause = verdict.detail.split(" was last seen").next().unwrap_or_default();
    verdict.rank == odd || format!("{cause} ").replace(';', " ").contains(&format!("rank {odd} "))
}

#[test]
fn a_connection_whose_data_vanish_is_named() {
    let timing = Timing { collective_timeout: DEADLINE, ..quick() };
    let act = |n: &Networks| n.data.becomes(Weather::BlackHole);
    let is_right = |v: &Verdict, odd| v.cause == Cause::Stuck && names_the_connection(v, odd);
    let what = "network: … data alone in a black hole (deadline 1 s)";
    Trial { what, timing, act: &act, is_right: &is_right }.run(&BOTH);
}

#[test]
fn an_altered_bit_on_a_sealed_wire_never_reaches_a_sum() {
    let act = |n: &Networks| n.data.flip_a_bit_in_pieces_of(1000);
    let is_right = |v: &Verdict, odd| names_the_connection(v, odd) && v.detail.contains("damaged or forged");
    Trial { what: "network: one bit altered, sealed", timing: quick(), act: &act, is_right: &is_right }
        .run(&[Wire::Sealed]);
}

#[test]
fn an_altered_control_connection_ends_the_run() {
    let act = |n: &Networks| n.control.flip_a_bit_in_pieces_of(1);
    let is_right = |v: &Verdict, odd| v.rank == odd && v.cause == Cause::Died;
    Trial { what: "network: one bit of the heartbeats altered", timing: quick(), act: &act, is_right: &is_right }
        .run(&BOTH);
}

/// Barriers only: what is altered is a header.
fn barriers_for_ever(tcp: &mut TcpCollective) -> Result<(), ClusterError> {
    (0..).try_for_each(|_| tcp.barrier())
}

#[test]
fn an_altered_header_on_a_plain_wire_is_noticed() {
    let act = |n: &Networks| n.data.flip_a_bit_in_pieces_of(1);
    let (_, ends) = play(1, Wire::Plain, quick(), barriers_for_ever, &act);
    assert_eq!(ends.len(), WORLD, "a hang");
    for end in ends {
        let Err(ClusterError::Lost(verdict)) = end.result else { panic!("rank {}", end.rank) };
        assert_eq!(verdict.cause, Cause::Disagrees, "{verdict}");
    }
}

/// The limit of plain wires, as the guide states it: nothing but TCP's own checksum protects values on the way.
#[test]
fn an_altered_value_on_a_plain_wire_goes_unnoticed() {
    let networks = Network::default();
    networks.flip_a_bit_in_pieces_of(1000);
    let (mut dialled, mut answered) = pair_through(Wire::Plain, &|address| networks.lead_to(address));
    dialled.sender().send_bulk(&[0; 4000]).unwrap();
    let mut got = [0; 4000];
    answered.receiver().recv_bulk(&mut got, &mut || Ok(())).unwrap();
    assert_eq!((networks.flipped(), got.iter().filter(|byte| **byte != 0).count()), (1, 1));
}
