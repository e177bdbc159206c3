//! Owns the tests of the control plane over real sockets, a thread a rank.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::needless_range_loop)]

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::AtomicUsize;
use std::time::Instant;

use super::*;
use crate::cluster::channel::Wire;
use crate::cluster::channel::handshake::{Answer, dial};
use crate::cluster::error::Verdict;

/// Long enough for any machine; only a hang takes so long.
const FOR_EVER: Duration = Duration::from_secs(60);

/// Both ends of an authenticated connection.
pub(crate) fn pair(wire: Wire) -> (Channel, Channel) {
    pair_through(wire, &|address| address)
}

/// Both ends of an authenticated connection; `lead` turns the address of one into the one that the other dials.
pub(in crate::cluster) fn pair_through(wire: Wire, lead: &dyn Fn(SocketAddr) -> SocketAddr) -> (Channel, Channel) {
    let key = [7; 32];
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = lead(listener.local_addr().unwrap());
    let dialling = thread::spawn(move || {
        let stream = TcpStream::connect(address).unwrap();
        dial(stream, &key, b"test", Instant::now() + FOR_EVER, &mut || Ok(())).unwrap()
    });
    let (stream, _) = listener.accept().unwrap();
    let mut answer = Answer::new();
    assert!(answer.read(&stream).unwrap());
    let answered = answer.reply(stream, &key, b"test").unwrap();
    (dialling.join().unwrap().into_wire(wire), answered.into_wire(wire))
}

/// The control channels of every rank of a star.
pub(crate) fn star(world: usize, wire: Wire) -> Vec<Vec<Option<Channel>>> {
    let mut ends: Vec<Vec<Option<Channel>>> = (0..world).map(|_| (0..world).map(|_| None).collect()).collect();
    for rank in 1..world {
        let (outer, inner) = pair(wire);
        ends[rank][0] = Some(outer);
        ends[0][rank] = Some(inner);
    }
    ends
}

pub(crate) fn quick() -> Timing {
    Timing {
        heartbeat: Duration::from_millis(100),
        peer_timeout: Duration::from_secs(20),
        collective_timeout: Duration::from_secs(20),
        check_grace: FOR_EVER,
        exit_grace: FOR_EVER,
    }
}

pub(crate) fn start(rank: usize, channels: Vec<Option<Channel>>, timing: Timing) -> Arc<Control> {
    let world = channels.len();
    let hosts = (0..world).map(|r| format!("host{r}")).collect();
    let pids = (0..world).map(|r| 100 + r as u32).collect();
    Control::start(Members { rank, hosts, pids }, channels, timing, Box::new(|_| {})).unwrap()
}

fn controls(world: usize, timing: Timing) -> Vec<Option<Arc<Control>>> {
    star(world, Wire::Plain).into_iter().enumerate().map(|(r, c)| Some(start(r, c, timing))).collect()
}

fn verdict(control: &Control) -> Verdict {
    let end = Instant::now() + FOR_EVER;
    loop {
        match control.check() {
            Err(ClusterError::Lost(verdict)) => return verdict,
            Err(other) => panic!("{other}"),
            Ok(()) => assert!(Instant::now() < end, "no verdict"),
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// The verdict of all that are left, which must be one.
fn one_verdict(controls: &[Option<Arc<Control>>]) -> Verdict {
    let all: Vec<Verdict> = controls.iter().flatten().map(|c| verdict(c)).collect();
    assert!(all.windows(2).all(|w| w[0] == w[1]), "{all:#?}");
    all.into_iter().next().unwrap()
}

#[test]
fn a_rank_that_dies_is_named_by_all_in_the_same_words() {
    for dead in 1..4 {
        let mut ranks = controls(4, quick());
        for (rank, control) in ranks.iter().flatten().enumerate() {
            control.at(7, "compute");
            if rank != dead {
                control.arrive(12, Kind::AllReduce, 1000);
            }
        }
        ranks[dead] = None;
        let verdict = one_verdict(&ranks);
        assert_eq!((verdict.rank, verdict.cause, verdict.step), (dead, Cause::Died, 7));
        assert_eq!((verdict.host.as_str(), verdict.pid), (format!("host{dead}").as_str(), 100 + dead as u32));
        assert_eq!(verdict.during, "all_reduce #12 (1000 values)");
        let text = ranks[0].as_ref().unwrap().flight_recorder().unwrap();
        assert!(text.contains("#12 all_reduce of 1000"), "{text}");
    }
}

#[test]
fn without_rank_0_all_others_name_it() {
    let mut ranks = controls(4, quick());
    ranks[0] = None;
    for control in ranks.iter().flatten() {
        let verdict = verdict(control);
        assert_eq!((verdict.rank, verdict.cause), (0, Cause::Died));
    }
}

#[test]
fn a_silent_rank_is_named() {
    // A rank whose process is stopped: its connection stands but nobody serves it.
    let timing = Timing { peer_timeout: Duration::from_millis(1500), ..quick() };
    let mut ends = star(3, Wire::Plain);
    let stopped = ends.pop().unwrap();
    let ranks: Vec<_> = ends.into_iter().enumerate().map(|(r, c)| Some(start(r, c, timing))).collect();
    let verdict = one_verdict(&ranks);
    assert_eq!((verdict.rank, verdict.cause), (2, Cause::Silent));
    drop(stopped);
}

#[test]
fn a_silent_rank_0_is_named() {
    let timing = Timing { peer_timeout: Duration::from_millis(1500), ..quick() };
    let mut ends = star(3, Wire::Plain).into_iter();
    let stopped = ends.next().unwrap();
    let ranks: Vec<_> = ends.enumerate().map(|(r, c)| start(r + 1, c, timing)).collect();
    for control in &ranks {
        let verdict = verdict(control);
        assert_eq!((verdict.rank, verdict.cause), (0, Cause::Silent));
    }
    // Once it goes on, rank 0 learns what the others have concluded.
    let resumed = start(0, stopped, timing);
    assert_eq!((verdict(&resumed).rank, verdict(&resumed).cause), (0, Cause::Silent));
}

#[test]
fn a_stuck_rank_is_named_with_the_collective() {
    let timing = Timing { collective_timeout: Duration::from_millis(700), ..quick() };
    let ranks = controls(4, timing);
    for (rank, control) in ranks.iter().flatten().enumerate() {
        control.at(3, "data");
        if rank != 2 {
            control.arrive(5, Kind::AllGather, 10);
        }
    }
    let verdict = one_verdict(&ranks);
    assert_eq!((verdict.rank, verdict.cause), (2, Cause::Stuck));
    assert_eq!(verdict.during, "all_gather #5 (10 values)");
    assert!(verdict.detail.contains("rank 2 is at step 3 in data"), "{}", verdict.detail);
}

#[test]
fn a_rank_that_fails_is_named_with_its_words() {
    for failing in 0..3 {
        let mut ranks = controls(3, quick());
        let control = ranks[failing].take().unwrap();
        control.fail("the disk is full");
        drop(control);
        let verdict = one_verdict(&ranks);
        assert_eq!((verdict.rank, verdict.cause), (failing, Cause::Failed));
        assert!(verdict.detail.starts_with("the disk is full"), "{}", verdict.detail);
    }
}

#[test]
fn reports_of_others_do_not_hide_who_died() {
    let mut ranks = controls(4, quick());
    let control = Arc::clone(ranks[1].as_ref().unwrap());
    let claimed = thread::spawn(move || control.lost(3, "receiving data failed"));
    let control = Arc::clone(ranks[3].as_ref().unwrap());
    let back = thread::spawn(move || control.lost(1, "receiving data failed"));
    ranks[2] = None;
    assert_eq!(one_verdict(&ranks).rank, 2);
    for error in [claimed.join().unwrap(), back.join().unwrap()] {
        assert!(matches!(error, ClusterError::Lost(v) if v.rank == 2));
    }
}

#[test]
fn disagreement_names_the_odd_rank_and_both_sides() {
    let ranks = controls(3, quick());
    let threads: Vec<_> = [(0, 1, "a", "b"), (1, 2, "b", "a"), (2, 1, "a", "b")]
        .into_iter()
        .map(|(by, about, mine, theirs)| {
            let control = Arc::clone(ranks[by].as_ref().unwrap());
            thread::spawn(move || control.disagree(about, mine, theirs))
        })
        .collect();
    for thread in threads {
        let ClusterError::Lost(verdict) = thread.join().unwrap() else { panic!() };
        assert_eq!((verdict.rank, verdict.cause), (1, Cause::Disagrees));
        assert!(verdict.detail.starts_with("it has b, rank 0 has a"), "{}", verdict.detail);
    }
}

#[test]
fn leaving_in_good_order_is_no_death() {
    for first in 0..3 {
        let mut ranks = controls(3, quick());
        let early = ranks[first].take().unwrap();
        let leaving = thread::spawn(move || early.leave());
        if first != 0 {
            leaving.join().unwrap();
        }
        let others: Vec<_> = ranks.into_iter().flatten().collect();
        assert!(others.iter().all(|c| c.check().is_ok()));
        let threads: Vec<_> = others
            .into_iter()
            .map(|control| {
                thread::spawn(move || {
                    control.leave();
                    control.check().unwrap();
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
    }
}

#[test]
fn the_watchdog_ends_a_process_that_does_not_ask() {
    let timing = Timing { check_grace: Duration::from_millis(200), ..quick() };
    let mut ends = star(2, Wire::Plain);
    let other = start(1, ends.pop().unwrap(), timing);
    let calls = Arc::new(AtomicUsize::new(0));
    let (hosts, pids) = (vec![String::new(); 2], vec![0; 2]);
    let counted = Arc::clone(&calls);
    let on_fatal = Box::new(move |e: &ClusterError| {
        assert!(matches!(e, ClusterError::Lost(v) if v.rank == 1));
        counted.fetch_add(1, Ordering::SeqCst);
    });
    let control = Control::start(Members { rank: 0, hosts, pids }, ends.pop().unwrap(), timing, on_fatal).unwrap();
    drop(other);
    let end = Instant::now() + FOR_EVER;
    while calls.load(Ordering::SeqCst) == 0 {
        assert!(Instant::now() < end);
        thread::sleep(Duration::from_millis(5));
    }
    assert!(control.check().is_err());
    assert_eq!(calls.load(Ordering::SeqCst), 1);
}

#[test]
fn stragglers_reach_rank_0() {
    let ranks = controls(3, quick());
    let seconds = Duration::from_secs;
    for (rank, control) in ranks.iter().flatten().enumerate() {
        let compute = if rank == 1 { seconds(9) } else { seconds(3) };
        control.report_phases(20, seconds(1), compute, seconds(10) - compute);
    }
    let end = Instant::now() + FOR_EVER;
    let found = loop {
        let found = ranks[0].as_ref().unwrap().stragglers();
        if !found.is_empty() {
            break found;
        }
        assert!(Instant::now() < end);
        thread::sleep(Duration::from_millis(5));
    };
    assert_eq!((found[0].rank, found[0].host.as_str(), found[0].phase), (1, "host1", Phase::Compute));
}

#[test]
fn a_world_of_one_needs_nobody() {
    let control = start(0, vec![None], quick());
    control.check().unwrap();
    control.leave();
    control.check().unwrap();
    assert!(control.stragglers().is_empty());
}
