//! Promise: what one rank computes wrongly is applied by none. A NaN makes all skip the same step; a bit that differs
//! is found at the next comparison of replicas, and its rank is named.
//!
//! Most ranks here are threads of this process that run the real loop over the real engine; a wrapper around the engine,
//! or the test between two calls of the loop, does the damage. One test alters the memory of a launched process.

use std::fs::{File, OpenOptions};
use std::net::TcpListener;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::support::running::{LIMIT, Running, is_saving, newest_step};
use crate::support::{final_digest, launch_arguments, root, set, tiny_dataset, train_tiny};
use burn::tensor::TensorData;
use rustix::process::Signal;
use trainer::checkpoint::digest;
use trainer::cluster::control::{Control, Members, Timing};
use trainer::cluster::device_collective::Staged;
use trainer::cluster::rendezvous::{JoinOptions, Membership, join};
use trainer::cluster::tcp::TcpCollective;
use trainer::cluster::token::Token;
use trainer::cluster::{Cause, ClusterError, Collective, Order};
use trainer::events::Event;
use trainer::guard::{Guard, Reason};
use trainer::session::{self, HostShare, Output, Resume, Session};
use trainer::signals::StopFlag;
use trainer::team::Team;
use trainer::train::{self, Context, Outcome, TrainError};

const WORLD: usize = 4;
const STEPS: u64 = 24;
/// Steps after which replicas are compared.
const COMPARED_EVERY: u64 = 3;

/// An engine that replaces the first value of the `at`-th sum that this rank takes part in by NaN.
struct Spoilt {
    inner: TcpCollective,
    sums: usize,
    at: Option<usize>,
}

impl Spoilt {
    fn count(&mut self, values: &mut [f32]) {
        self.sums += 1;
        if let (true, Some(first)) = (Some(self.sums) == self.at, values.first_mut()) {
            *first = f32::NAN;
        }
    }
}

impl Collective for Spoilt {
    fn rank(&self) -> usize {
        self.inner.rank()
    }

    fn world(&self) -> usize {
        self.inner.world()
    }

    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn all_reduce(&mut self, values: &mut [f32], order: Order) -> Result<(), ClusterError> {
        self.count(values);
        self.inner.all_reduce(values, order)
    }

    fn reduce_scatter(&mut self, values: &mut [f32], order: Order) -> Result<(), ClusterError> {
        self.count(values);
        self.inner.reduce_scatter(values, order)
    }

    fn all_gather(&mut self, values: &mut [f32]) -> Result<(), ClusterError> {
        self.inner.all_gather(values)
    }

    fn all_gather_bytes(&mut self, bytes: &[u8]) -> Result<Vec<Vec<u8>>, ClusterError> {
        self.inner.all_gather_bytes(bytes)
    }

    fn broadcast(&mut self, bytes: &mut Vec<u8>, root: usize) -> Result<(), ClusterError> {
        self.inner.broadcast(bytes, root)
    }

    fn send(&mut self, to: usize, bytes: &[u8]) -> Result<(), ClusterError> {
        self.inner.send(to, bytes)
    }

    fn recv(&mut self, from: usize) -> Result<Vec<u8>, ClusterError> {
        self.inner.recv(from)
    }
}

/// What the ranks of a test share.
#[derive(Clone)]
struct Scene {
    rendezvous: String,
    token: Arc<Token>,
    overrides: Vec<String>,
    /// The rank whose sum is spoilt, and which of its sums.
    spoilt: Option<(usize, usize)>,
    /// Whether the loop takes the way of engines that add tensors on the device.
    on_device: bool,
}

impl Scene {
    fn new(folder: &Path, more: &[&str]) -> Self {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let data = format!("datasets=[{{path: \"{}\"}}]", tiny_dataset().display());
        let mut overrides = vec![set("output_dir", &folder.join("run")), data];
        overrides.extend(settings().iter().chain(more).map(|value| (*value).to_owned()));
        let token = Arc::new(Token::generate(&folder.join("token")).unwrap());
        Self { rendezvous: free.to_string(), token, overrides, spoilt: None, on_device: false }
    }

    fn team(&self, rank: usize) -> Team {
        let mesh = join(&JoinOptions {
            rank,
            world: WORLD,
            host: format!("host{rank}"),
            rendezvous: self.rendezvous.clone(),
            bind: None,
            token: &self.token,
            wire: None,
            deadline: Duration::from_secs(60),
            members: &Membership::default(),
            on_refused: &|_| {},
            keep_waiting: &|| Ok(()),
        });
        let mesh = mesh.unwrap();
        let who = Members { rank, hosts: mesh.hosts, pids: mesh.pids };
        let control = Control::start(who, mesh.control, Timing::default(), Box::new(|_| {})).unwrap();
        let inner = TcpCollective::new(mesh.data, Arc::clone(&control)).unwrap();
        let at = self.spoilt.filter(|(spoilt, _)| *spoilt == rank).map(|(_, at)| at);
        let engine: Box<dyn Collective> = Box::new(Spoilt { inner, sums: 0, at });
        let engine = if self.on_device { Box::new(Staged::new(engine)) } else { engine };
        Team::new(engine, control, Order::Exact)
    }

    fn open(&self, rank: usize) -> Session {
        let resolved = session::resolve(&root().join("configs/ci-tiny.yaml"), &self.overrides).unwrap();
        let share = HostShare { threads: Some(1), local_rank: 0 };
        Session::open(resolved, &Resume::Auto, share, self.team(rank)).unwrap()
    }

    /// Runs `body` as every rank at once; the results by rank.
    fn as_ranks<T: Send + 'static>(&self, body: impl Fn(Session) -> T + Send + Clone + 'static) -> Vec<T> {
        let start = |rank| {
            let (scene, body) = (self.clone(), body.clone());
            std::thread::spawn(move || body(scene.open(rank)))
        };
        let threads: Vec<_> = (0..WORLD).map(start).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    }
}

fn settings() -> [&'static str; 6] {
    ["max_steps=24", "save_steps=8", "eval_steps=24", "logging_steps=1", "expect={}", "cluster.digest_steps=3"]
}

/// The real loop, from where the session stands; also the steps that were skipped and why.
fn go(
    session: &mut Session,
    stop: &StopFlag,
    stop_at: Option<u64>,
) -> (Result<Outcome, TrainError>, Vec<(u64, Reason)>) {
    let Session { plan, opened, model: _, buckets, dataset, loader, output, team, checkpoint_files, state, .. } =
        session;
    let mut skipped = Vec::new();
    let mut observer = |event: &Event| -> Result<(), TrainError> {
        match event {
            Event::Skipped { step, reason, .. } => skipped.push((*step, *reason)),
            Event::Step(record) if Some(record.step) == stop_at => stop.set(),
            _ => {}
        }
        Ok(())
    };
    let mut context = Context {
        preferences: None,
        viewer: trainer::seen::Viewer::new(dataset),
        device: opened.device.clone(),
        model: model_zoo::Model::new(&plan.model).unwrap(),
        buckets: buckets.clone(),
        outer: None,
        dataset: Arc::clone(dataset),
        loader: Arc::clone(loader),
        checkpoints: output.as_ref().map(|Output { checkpoints, .. }| checkpoints),
        checkpoint_files,
        peak_flops: 1e9,
        team,
        flops_per_token: 1e6,
        observer: &mut observer,
        power: None,
        energy: trainer::energy::Energy::default(),
        drawn: None,
        stop: stop.clone(),
    };
    let outcome = train::train(plan, state, &mut context);
    (outcome, skipped)
}

/// What a rank has to show at the end.
#[derive(Debug, PartialEq)]
struct Shown {
    skipped: Vec<(u64, Reason)>,
    guard: Guard,
    step: u64,
    updates: u64,
    replica: String,
}

fn all_skip_the_step_that_one_spoils(more: &[&str]) {
    for (rank, sum) in [(0, 1), (1, 5), (3, 12)] {
        let folder = tempfile::tempdir().unwrap();
        let mut scene = Scene::new(folder.path(), more);
        scene.spoilt = Some((rank, sum));
        let shown = scene.as_ranks(|mut session| {
            let (outcome, skipped) = go(&mut session, &StopFlag::default(), None);
            assert!(matches!(outcome, Ok(Outcome::Finished { .. })), "{outcome:?}");
            session.team.leave();
            let Session { state, .. } = session;
            let replica = digest::replica(&state);
            Shown { skipped, guard: state.guard, step: state.step, updates: state.optimizer.updates, replica }
        });
        for other in &shown {
            assert_eq!(other, &shown[0], "rank {rank}, sum {sum}");
        }
        assert_eq!(shown[0].skipped.len(), 1, "{shown:?}");
        assert_eq!(shown[0].skipped[0].1, Reason::NonFiniteGradient);
        assert_eq!((shown[0].step, shown[0].updates), (STEPS, STEPS - 1), "one step was not applied");
    }
}

#[test]
fn a_nan_on_one_rank_makes_all_skip_the_same_step() {
    all_skip_the_step_that_one_spoils(&[]);
}

#[test]
fn a_nan_on_one_rank_makes_all_skip_the_same_step_with_a_divided_optimizer() {
    all_skip_the_step_that_one_spoils(&["cluster.zero=1"]);
}

/// Inverts one bit of one value of one parameter.
fn flip(session: &mut Session, bit: u32) {
    let tensor = session.state.params.tensors_mut().iter_mut().last().unwrap();
    let mut values = tensor.clone().into_data().try_into_vec::<f32>().unwrap();
    let middle = values.len() / 2;
    values[middle] = f32::from_bits(values[middle].to_bits() ^ (1 << bit));
    let len = values.len();
    *tensor = burn::tensor::Tensor::from_data(TensorData::new(values, [len]), &session.opened.device);
}

#[test]
fn one_bit_of_one_rank_is_found_at_the_next_comparison_and_the_rank_named() {
    // The lowest bit of a fraction, one in the middle, the sign.
    for (odd, bit, stop_at) in [(0, 0, 4), (2, 12, 7), (3, 31, 10)] {
        let folder = tempfile::tempdir().unwrap();
        let verdicts = Scene::new(folder.path(), &[]).as_ranks(move |mut session| {
            let (outcome, _) = go(&mut session, &StopFlag::default(), Some(stop_at));
            assert!(matches!(outcome, Ok(Outcome::Stopped)), "{outcome:?}");
            let stopped = session.state.step;
            if session.team.rank() == odd {
                flip(&mut session, bit);
            }
            match go(&mut session, &StopFlag::default(), None).0 {
                Err(TrainError::Cluster(ClusterError::Lost(verdict))) => (stopped, verdict),
                other => panic!("{other:?}"),
            }
        });
        for (stopped, verdict) in verdicts {
            assert_eq!((verdict.rank, verdict.cause), (odd, Cause::Disagrees), "{verdict}");
            assert!(verdict.detail.contains("3 of 4 processes hold"), "{verdict}");
            assert!(verdict.step > stopped && verdict.step <= stopped + COMPARED_EVERY, "{stopped}: {verdict}");
        }
    }
}

#[test]
fn a_nan_on_one_rank_makes_all_skip_the_same_step_with_divided_gradients() {
    all_skip_the_step_that_one_spoils(&["cluster.zero=2", "micro_batch_size=1"]);
}

#[test]
fn threads_end_with_the_state_of_one_process_whether_tensors_are_added_here_or_on_the_device() {
    let folder = tempfile::tempdir().unwrap();
    let leaves = "micro_batch_size=1";
    let more = [&settings()[..], &[leaves]].concat();
    train_tiny(&folder.path().join("whole"), &more);
    for on_device in [false, true] {
        for zero in 0..=2 {
            let folder_of_run = folder.path().join(format!("{on_device}-{zero}"));
            std::fs::create_dir(&folder_of_run).unwrap();
            let stage = format!("cluster.zero={zero}");
            let mut scene = Scene::new(&folder_of_run, &[leaves, &stage, "cluster.bucket_cap_mb=0.1"]);
            scene.on_device = on_device;
            // Stopped on the way and resumed, so that the state is shared from a checkpoint as well.
            for stop_at in [Some(11), None] {
                scene.as_ranks(move |mut session| {
                    let outcome = go(&mut session, &StopFlag::default(), stop_at).0.unwrap();
                    assert_eq!(matches!(outcome, Outcome::Stopped), stop_at.is_some());
                    session.team.leave();
                });
            }
            let (found, expected) = (folder_of_run.join("run"), folder.path().join("whole"));
            assert_eq!(final_digest(&found), final_digest(&expected), "on the device: {on_device}, stage {zero}");
        }
    }
}

/// Inverts one bit of every copy of `pattern` in the memory of a process; how many there were, or why not.
fn flip_in_memory(pid: i32, pattern: &[u8]) -> std::io::Result<usize> {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let memory = OpenOptions::new().read(true).write(true).open(format!("/proc/{pid}/mem"))?;
    let mut found = 0;
    for line in maps.lines().filter(|line| line.contains(" rw-p ")) {
        let (start, end) = line.split(' ').next().and_then(|range| range.split_once('-')).unwrap();
        let (start, end) = (u64::from_str_radix(start, 16).unwrap(), u64::from_str_radix(end, 16).unwrap());
        let mut bytes = vec![0; usize::try_from(end - start).unwrap()];
        if memory.read_exact_at(&mut bytes, start).is_err() {
            continue;
        }
        for at in (0..bytes.len().saturating_sub(pattern.len())).step_by(4) {
            if bytes[at..].starts_with(pattern) {
                // The highest bit of the fraction of the first value.
                memory.write_all_at(&[bytes[at + 2] ^ 0x40], start + at as u64 + 2)?;
                found += 1;
            }
        }
    }
    Ok(found)
}

#[test]
fn one_bit_of_one_rank_that_flips_in_memory_is_found_and_the_rank_named() {
    const SETTINGS: [&str; 4] = ["save_steps=4", "max_steps=60", "cluster.digest_steps=4", "cluster.peer_timeout=20"];
    let folder = tempfile::tempdir().unwrap();
    let (whole, run) = (folder.path().join("whole"), folder.path().join("run"));
    train_tiny(&whole, &SETTINGS);
    let mut running = Running::start(&launch_arguments(WORLD, &[], &run, &SETTINGS));
    running.until(LIMIT, |line| line.contains("saved ")).unwrap();
    // While rank 0 saves, the others hold exactly what is saved.
    let waited = Instant::now();
    while !is_saving(&run) {
        assert!(waited.elapsed() < LIMIT, "no save");
    }
    let (rank, before) = (2, newest_step(&run));
    running.signal(rank, Signal::STOP);
    while newest_step(&run) <= before && waited.elapsed() < LIMIT {
        std::thread::sleep(Duration::from_millis(1));
    }
    let step = newest_step(&run).unwrap();
    let weights = run.join(format!("checkpoints/step-{step:08}/model.safetensors"));
    let file = File::open(&weights).unwrap();
    let mut pattern = [0; 64];
    file.read_exact_at(&mut pattern, file.metadata().unwrap().len() - 4096).unwrap();
    match flip_in_memory(running.pids[rank], &pattern) {
        Ok(found) => assert!(found > 0, "the parameters of step {step} are not in the memory of rank {rank}"),
        Err(error) => return eprintln!("SKIPPED: no access to the memory of a process here: {error}"),
    }
    let from = running.seen.len();
    running.signal(rank, Signal::CONT);
    running.over().unwrap();
    let said = running.said(from);
    let verdicts: Vec<&str> = said.lines().filter(|line| line.contains("] error[J0701]: rank ")).collect();
    assert_eq!(verdicts.len(), WORLD, "{said}");
    for line in verdicts {
        let words = format!("rank {rank} (host ");
        assert!(line.contains(&words) && line.contains("disagrees with the others at step"), "{line}");
        assert!(line.contains("3 of 4 processes hold"), "{line}");
    }
    assert!(said.contains("left with code 75"), "{said}");
    assert_eq!(running.code(), Some(0), "{}", running.said(from));
    assert_eq!(final_digest(&run), final_digest(&whole));
}
