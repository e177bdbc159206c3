//! Owns the tests of the engine over real sockets, a thread a rank.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::needless_range_loop)]

use std::thread;
use std::time::Duration;

use super::*;
use crate::cluster::channel::Wire;
use crate::cluster::conformance;
use crate::cluster::control::Timing;
use crate::cluster::control::tests::{pair, quick, star, start};
use crate::cluster::error::Verdict;

type Channels = Vec<Option<Channel>>;

/// The control and data channels of every rank.
fn meshes(world: usize, wire: Wire) -> Vec<(Channels, Channels)> {
    let mut data: Vec<Channels> = (0..world).map(|_| (0..world).map(|_| None).collect()).collect();
    for high in 1..world {
        for low in 0..high {
            let (dialled, answered) = pair(wire);
            data[high][low] = Some(dialled);
            data[low][high] = Some(answered);
        }
    }
    star(world, wire).into_iter().zip(data).collect()
}

/// Runs `body` as every rank at once and returns what each found.
fn as_ranks<T: Send + 'static>(
    world: usize,
    wire: Wire,
    timing: Timing,
    body: impl Fn(TcpCollective) -> T + Send + Clone + 'static,
) -> Vec<T> {
    let threads: Vec<_> = meshes(world, wire)
        .into_iter()
        .enumerate()
        .map(|(rank, (control, data))| {
            let body = body.clone();
            thread::spawn(move || {
                let control = start(rank, control, timing);
                body(TcpCollective::new(data, control).unwrap())
            })
        })
        .collect();
    threads.into_iter().map(|t| t.join().unwrap()).collect()
}

fn lost<T: std::fmt::Debug>(result: Result<T, ClusterError>) -> Verdict {
    match result {
        Err(ClusterError::Lost(verdict)) => verdict,
        other => panic!("{other:?}"),
    }
}

fn conforms(world: usize, wire: Wire) {
    let reports = as_ranks(world, wire, quick(), |mut tcp| {
        let report = conformance::run(&mut tcp);
        drop(tcp.links.drain(..));
        tcp.control.leave();
        tcp.control.check().unwrap();
        report
    });
    for (rank, report) in reports.into_iter().enumerate() {
        for check in report {
            assert!(check.passed, "rank {rank} of {world}: {check:?}");
        }
    }
}

#[test]
fn conforms_with_1_2_and_3_ranks() {
    for world in [1, 2, 3] {
        conforms(world, Wire::Plain);
    }
}

#[test]
fn conforms_with_4_ranks() {
    conforms(4, Wire::Plain);
}

#[test]
fn conforms_with_8_ranks() {
    conforms(8, Wire::Plain);
}

#[test]
fn conforms_when_sealed() {
    conforms(3, Wire::Sealed);
}

#[test]
fn long_vectors_keep_their_order() {
    // Several chunks a slice, slices of different numbers of chunks, more chunks than buffers.
    let len = 9 * exchange::CHUNK_VALUES + 1500;
    let sums = as_ranks(3, Wire::Plain, quick(), move |mut tcp| {
        let value = |rank: usize, i: usize| ((rank * 7 + i) % 1000) as f32;
        let mut sums = Vec::new();
        for order in [Order::Exact, Order::Fast] {
            let mut values: Vec<f32> = (0..len).map(|i| value(tcp.rank, i)).collect();
            tcp.all_reduce(&mut values, order).unwrap();
            assert!((0..len).all(|i| values[i] == (0..3).map(|r| value(r, i)).sum::<f32>()));
            sums.push(values);
        }
        tcp.control.leave();
        sums
    });
    assert!(sums.windows(2).all(|w| w[0] == w[1]));
}

#[test]
fn a_killed_peer_is_named_from_inside_a_collective() {
    for (world, dead) in [(2, 0), (2, 1), (4, 0), (4, 2)] {
        for order in [Order::Exact, Order::Fast] {
            let verdicts = as_ranks(world, Wire::Plain, quick(), move |mut tcp| {
                let mut values = vec![1.0; 3_000_000];
                tcp.all_reduce(&mut values, order).unwrap();
                if tcp.rank == dead {
                    return None;
                }
                Some(lost(tcp.all_reduce(&mut values, order)))
            });
            for verdict in verdicts.into_iter().flatten() {
                assert_eq!((verdict.rank, verdict.cause), (dead, Cause::Died), "{verdict}");
            }
        }
    }
}

#[test]
fn a_peer_that_does_not_read_is_named_although_all_buffers_are_full() {
    let timing = Timing { collective_timeout: Duration::from_millis(900), ..quick() };
    for stuck in [0, 2] {
        let verdicts = as_ranks(3, Wire::Plain, timing, move |mut tcp| {
            if tcp.rank == stuck {
                while tcp.control.check().is_ok() {
                    thread::sleep(Duration::from_millis(10));
                }
                return None;
            }
            Some(lost(tcp.all_reduce(&mut vec![1.0; 20_000_000], Order::Exact)))
        });
        for verdict in verdicts.into_iter().flatten() {
            assert_eq!((verdict.rank, verdict.cause), (stuck, Cause::Stuck), "{verdict}");
            assert!(verdict.during.starts_with("all_reduce #1"), "{verdict}");
        }
    }
}

#[test]
fn a_receiver_whose_sender_is_stuck_names_it() {
    let timing = Timing { collective_timeout: Duration::from_millis(900), ..quick() };
    let verdicts = as_ranks(2, Wire::Plain, timing, |mut tcp| match tcp.rank {
        0 => Some(lost(tcp.recv(1))),
        _ => {
            while tcp.control.check().is_ok() {
                thread::sleep(Duration::from_millis(10));
            }
            None
        }
    });
    let verdict = verdicts.into_iter().flatten().next().unwrap();
    assert_eq!((verdict.rank, verdict.cause), (1, Cause::Stuck), "{verdict}");
}

#[test]
fn different_collectives_are_named_not_added() {
    let verdicts = as_ranks(3, Wire::Plain, quick(), |mut tcp| {
        tcp.barrier().unwrap();
        let len = if tcp.rank == 1 { 99 } else { 100 };
        lost(tcp.all_reduce(&mut vec![0.0; len], Order::Exact))
    });
    for verdict in verdicts {
        assert_eq!((verdict.rank, verdict.cause), (1, Cause::Disagrees), "{verdict}");
        let both = "it has all_reduce #2 of 99 values (exact), rank 0 has all_reduce #2 of 100 values (exact)";
        assert!(verdict.detail.starts_with(both), "{verdict}");
    }
    let verdicts = as_ranks(2, Wire::Plain, quick(), |mut tcp| match tcp.rank {
        0 => lost(tcp.all_reduce(&mut vec![0.0; 100_000], Order::Exact)),
        _ => lost(tcp.broadcast(&mut Vec::new(), 0)),
    });
    for verdict in verdicts {
        assert_eq!((verdict.rank, verdict.cause), (1, Cause::Disagrees), "{verdict}");
    }
}

#[test]
fn leaving_before_the_others_are_done_is_named() {
    let verdicts = as_ranks(3, Wire::Plain, quick(), |mut tcp| {
        tcp.barrier().unwrap();
        if tcp.rank == 1 {
            drop(tcp.links.drain(..));
            tcp.control.leave();
            return None;
        }
        Some(lost(tcp.barrier()))
    });
    for verdict in verdicts.into_iter().flatten() {
        assert_eq!((verdict.rank, verdict.cause), (1, Cause::Disagrees), "{verdict}");
    }
}

#[test]
fn a_broken_data_connection_between_living_ranks_ends_the_run() {
    let verdicts = as_ranks(3, Wire::Plain, quick(), |mut tcp| {
        tcp.barrier().unwrap();
        if tcp.rank == 1 {
            tcp.links[2] = None;
        }
        // Rank 1 finds out by itself; whoever comes later must still get the verdict.
        match tcp.rank {
            1 => loop {
                if let Err(error) = tcp.control.check() {
                    return lost::<()>(Err(error));
                }
                thread::sleep(Duration::from_millis(5));
            },
            _ => lost(tcp.barrier()),
        }
    });
    assert!(verdicts.windows(2).all(|w| w[0] == w[1]), "{verdicts:#?}");
    assert_eq!((verdicts[0].rank, verdicts[0].cause), (1, Cause::Died));
}

#[test]
fn a_rank_that_fails_is_named_even_if_its_data_connections_end_first() {
    for failing in [0, 2] {
        let verdicts = as_ranks(3, Wire::Plain, quick(), move |mut tcp| {
            tcp.barrier().unwrap();
            if tcp.rank == failing {
                drop(tcp.links.drain(..));
                thread::sleep(Duration::from_millis(50));
                tcp.control.fail("the disk is full");
                return None;
            }
            Some(lost(tcp.all_reduce(&mut vec![1.0; 500_000], Order::Fast)))
        });
        for verdict in verdicts.into_iter().flatten() {
            assert_eq!((verdict.rank, verdict.cause), (failing, Cause::Failed), "{verdict}");
            assert!(verdict.detail.starts_with("the disk is full"), "{verdict}");
        }
    }
}

#[test]
fn without_a_coordinator_a_member_says_what_it_sees() {
    let verdicts = as_ranks(3, Wire::Plain, quick(), |mut tcp| {
        tcp.barrier().unwrap();
        match tcp.rank {
            0 => {
                drop(tcp.links.drain(..));
                tcp.control.leave();
                None
            }
            rank => {
                thread::sleep(Duration::from_millis(200));
                Some((rank, lost(tcp.recv(0))))
            }
        }
    });
    for (rank, verdict) in verdicts.into_iter().flatten() {
        assert_eq!((verdict.rank, verdict.cause), (0, Cause::Disagrees), "rank {rank}: {verdict}");
    }
}
