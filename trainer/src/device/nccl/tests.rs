//! Owns the tests of the engine over a fabric of threads, with real control connections; never touches a GPU.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::needless_range_loop)]

use std::thread;
use std::time::{Duration, Instant};

use burn::tensor::{DType, Device, Tensor, TensorData};

use super::engine::Engine;
use super::fake::{FakeFabric, World};
use super::*;
use crate::cluster::channel::{Channel, Wire};
use crate::cluster::control::Timing;
use crate::cluster::control::tests::{pair, quick, star, start};
use crate::cluster::device_collective::Staged;
use crate::cluster::tcp::TcpCollective;
use crate::cluster::{Alone, Cause, DeviceCollective, Order, Verdict, conformance, device_conformance};
use crate::device::{DeviceChoice, open};

/// Long enough for any machine; only a hang takes so long.
const FOR_EVER: Duration = Duration::from_secs(60);

/// A rank of a test.
struct Rank {
    engine: Engine<FakeFabric>,
    control: Arc<Control>,
    world: Arc<World>,
    rank: usize,
}

/// Runs `body` as every rank at once and returns what each found.
fn as_ranks<T: Send + 'static>(
    ranks: usize,
    timing: Timing,
    body: impl Fn(Rank) -> T + Send + Clone + 'static,
) -> Vec<T> {
    let world = World::new(ranks);
    over_tcp(ranks, timing, move |control, host| {
        let fabric = FakeFabric::new(Arc::clone(&world), Arc::clone(&control)).unwrap();
        let engine = Engine::new("fake", fabric, Arc::clone(&control), host);
        let rank = control.rank();
        body(Rank { engine, control, world: Arc::clone(&world), rank })
    })
}

/// Connects ranks over TCP and runs `body` as each of them.
fn over_tcp<T: Send + 'static>(
    ranks: usize,
    timing: Timing,
    body: impl Fn(Arc<Control>, Box<dyn Collective>) -> T + Send + Clone + 'static,
) -> Vec<T> {
    let mut data: Vec<Vec<Option<Channel>>> = (0..ranks).map(|_| (0..ranks).map(|_| None).collect()).collect();
    for high in 1..ranks {
        for low in 0..high {
            let (dialled, answered) = pair(Wire::Plain);
            data[high][low] = Some(dialled);
            data[low][high] = Some(answered);
        }
    }
    let threads: Vec<_> = star(ranks, Wire::Plain)
        .into_iter()
        .zip(data)
        .enumerate()
        .map(|(rank, (channels, data))| {
            let body = body.clone();
            thread::spawn(move || {
                let control = start(rank, channels, timing);
                let host = Box::new(TcpCollective::new(data, Arc::clone(&control)).unwrap());
                body(control, host)
            })
        })
        .collect();
    threads.into_iter().map(|t| t.join().unwrap()).collect()
}

fn tensor(values: &[f32]) -> Tensor<1> {
    Tensor::from_data(TensorData::new(values.to_vec(), [values.len()]), &Device::flex())
}

fn lost<T: std::fmt::Debug>(result: Result<T, ClusterError>) -> Verdict {
    match result {
        Err(ClusterError::Lost(verdict)) => verdict,
        other => panic!("{other:?}"),
    }
}

fn leave(rank: Rank) {
    let Rank { engine, control, .. } = rank;
    drop(engine);
    control.leave();
    control.check().unwrap();
}

#[test]
fn conforms_with_1_to_4_and_7_ranks() {
    for ranks in [1, 2, 3, 4, 7] {
        let reports = as_ranks(ranks, quick(), |mut rank| {
            let report = device_conformance::run(&mut rank.engine, &Device::flex());
            leave(rank);
            report
        });
        for (rank, report) in reports.into_iter().enumerate() {
            assert_eq!(report.len(), 12, "{report:?}");
            assert!(report.iter().all(|c| c.passed), "rank {rank} of {ranks}: {report:?}");
        }
    }
}

#[test]
fn tensors_through_host_memory_conform() {
    let reports = over_tcp(3, quick(), |control, host| {
        let mut staged = Staged::new(host);
        let report = device_conformance::run(&mut staged, &Device::flex());
        drop(staged);
        control.leave();
        report
    });
    assert!(reports.iter().all(|report| report.len() == 12 && report.iter().all(|c| c.passed)), "{reports:?}");
}

#[test]
fn the_host_is_served_by_the_host_engine() {
    let reports = as_ranks(3, quick(), |mut rank| {
        assert_eq!(rank.engine.name(), "fake");
        assert!(rank.engine.on_device().is_some());
        let report = conformance::run(&mut rank.engine);
        leave(rank);
        report
    });
    assert!(reports.iter().flatten().all(|check| check.passed), "{reports:?}");
}

#[test]
fn a_bucket_is_one_group_and_an_exact_one_two() {
    let groups = as_ranks(2, quick(), |mut rank| {
        let bucket = || vec![tensor(&[1.0; 5]), tensor(&[]), tensor(&[2.0; 3000]), tensor(&[3.0])];
        let sums = rank.engine.all_reduce_tensors(bucket(), Order::Fast).unwrap();
        assert_eq!(sums.iter().map(|t| t.dims()[0]).collect::<Vec<_>>(), [5, 0, 3000, 1]);
        rank.engine.all_reduce_tensors(bucket(), Order::Exact).unwrap();
        rank.engine.all_reduce_tensors(vec![tensor(&[]), tensor(&[])], Order::Exact).unwrap();
        rank.engine.all_reduce_tensors(Vec::new(), Order::Fast).unwrap();
        let groups = rank.world.groups_of(rank.rank);
        leave(rank);
        groups
    });
    assert_eq!(groups, vec![vec![3, 1, 1]; 2]);
}

#[test]
fn starting_does_not_wait_for_the_others() {
    // Rank 1 starts only after rank 0 has told it, over the host, that its own start has returned.
    let sums = as_ranks(2, quick(), |mut rank| {
        if rank.rank == 1 {
            assert_eq!(rank.engine.recv(0).unwrap(), b"started");
        }
        let ticket = rank.engine.start_all_reduce(vec![tensor(&[1.5, 2.5])], Order::Exact).unwrap();
        if rank.rank == 0 {
            rank.engine.send(1, b"started").unwrap();
        }
        let sum = rank.engine.wait(ticket).unwrap().remove(0).into_data().try_into_vec::<f32>().unwrap();
        rank.engine.settle().unwrap();
        leave(rank);
        sum
    });
    assert_eq!(sums, [[3.0, 5.0]; 2]);
}

#[test]
fn mistakes_of_the_caller_are_refused() {
    as_ranks(2, quick(), |mut rank| {
        let engine = &mut rank.engine;
        let refused = |result: Result<_, ClusterError>| match result {
            Err(ClusterError::Refused { what, .. }) => what,
            other => panic!("{other:?}"),
        };
        let uneven = engine.start_reduce_scatter(tensor(&[1.0; 5]), Order::Fast).map(drop);
        assert!(refused(uneven).contains("5 values cannot be divided into 2 equal regions"));
        let mixed = vec![tensor(&[1.0]), tensor(&[1.0]).cast(DType::BF16)];
        assert!(refused(engine.start_all_reduce(mixed, Order::Exact).map(drop)).contains("one type"));
        assert!(refused(engine.start_broadcast(tensor(&[1.0]), 2).map(drop)).contains("rank 2 does not exist"));
        let ticket = engine.start_all_reduce(Vec::new(), Order::Fast).unwrap();
        let again = crate::cluster::Ticket(ticket.0);
        engine.wait(ticket).unwrap();
        assert!(refused(engine.wait(again).map(drop)).contains("was not given by this engine"));
        engine.barrier().unwrap();
        leave(rank);
    });
}

#[test]
fn a_killed_peer_is_named_and_collectives_are_cut_short() {
    for (ranks, dead) in [(2, 0), (2, 1), (4, 2)] {
        for order in [Order::Exact, Order::Fast] {
            let verdicts = as_ranks(ranks, quick(), move |mut rank| {
                rank.engine.all_reduce_tensors(vec![tensor(&[1.0; 5000])], order).unwrap();
                if rank.rank == dead {
                    return None;
                }
                let ticket = rank.engine.start_all_reduce(vec![tensor(&[1.0; 5000])], order);
                let verdict = lost(ticket.and_then(|ticket| rank.engine.wait(ticket)));
                let end = Instant::now() + FOR_EVER;
                while !rank.world.is_aborted(rank.rank) {
                    assert!(Instant::now() < end, "the watch did not cut the collectives short");
                    thread::sleep(Duration::from_millis(1));
                }
                assert!(rank.engine.settle().is_err() && rank.engine.barrier().is_err());
                Some(verdict)
            });
            for verdict in verdicts.into_iter().flatten() {
                assert_eq!((verdict.rank, verdict.cause), (dead, Cause::Died), "{verdict}");
            }
        }
    }
}

#[test]
fn a_rank_that_keeps_devices_waiting_is_named_though_no_host_waits() {
    let timing = Timing { collective_timeout: Duration::from_millis(900), ..quick() };
    let verdicts = as_ranks(3, timing, |mut rank| {
        rank.engine.barrier().unwrap();
        rank.control.at(4, "backward");
        let ticket = match rank.rank {
            1 => None,
            _ => Some(rank.engine.start_all_reduce(vec![tensor(&[1.0; 70])], Order::Fast).unwrap()),
        };
        // The main threads compute on, or wait for their devices outside of any collective.
        let end = Instant::now() + FOR_EVER;
        while rank.control.verdict().is_none() {
            assert!(Instant::now() < end, "no verdict");
            thread::sleep(Duration::from_millis(5));
        }
        ticket.map(|ticket| lost(rank.engine.wait(ticket)))
    });
    assert_eq!(verdicts.iter().flatten().count(), 2);
    for verdict in verdicts.into_iter().flatten() {
        assert_eq!((verdict.rank, verdict.cause, verdict.step), (1, Cause::Stuck, 4), "{verdict}");
        assert_eq!(verdict.during, "all_reduce #2 (70 values)", "{verdict}");
        assert!(verdict.detail.contains("rank 1 is at step 4 in backward"), "{verdict}");
    }
}

#[test]
fn a_broken_device_says_so_to_everybody() {
    let verdicts = as_ranks(3, quick(), |mut rank| {
        rank.engine.barrier().unwrap();
        if rank.rank == 2 {
            rank.world.break_device(2, "CUDA fault: an illegal memory access");
            let end = Instant::now() + FOR_EVER;
            while rank.control.verdict().is_none() {
                assert!(Instant::now() < end, "no verdict");
                thread::sleep(Duration::from_millis(5));
            }
            return lost(rank.engine.settle());
        }
        let ticket = rank.engine.start_all_reduce(vec![tensor(&[1.0; 70])], Order::Exact).unwrap();
        lost(rank.engine.wait(ticket))
    });
    for verdict in verdicts {
        assert_eq!((verdict.rank, verdict.cause), (2, Cause::Failed), "{verdict}");
        assert!(verdict.detail.starts_with("CUDA fault: an illegal memory access"), "{verdict}");
    }
}

#[test]
fn groups_that_differ_are_an_error_not_a_sum() {
    let failed = as_ranks(2, quick(), |mut rank| {
        let len = 100 + rank.rank;
        let ticket = rank.engine.start_all_reduce(vec![tensor(&vec![1.0; len])], Order::Fast).unwrap();
        lost(rank.engine.wait(ticket))
    });
    assert_eq!(failed[0], failed[1]);
    assert!(failed[0].detail.contains("differs between ranks"), "{}", failed[0]);
}

#[test]
fn without_cuda_the_host_engine_comes_back() {
    let control = start(0, vec![None], quick());
    let cpu = open(DeviceChoice::Cpu, None).unwrap();
    let refusal = connect(&cpu, Arc::clone(&control), Box::new(Alone)).err().unwrap();
    let message = refusal.error.to_string();
    assert!(message.starts_with("rank 0 (host host0) cannot use NCCL: "), "{message}");
    assert!(message.ends_with("`cluster.engine: tcp`"), "{message}");
    assert_eq!(refusal.host.unwrap().name(), "alone");
    control.leave();
}
