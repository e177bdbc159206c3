//! Owns the thread that makes all calls of MPI and the buffers it works on; never touches what they mean.
//!
//! A request of MPI borrows its buffers until it completes, which it never does once a rank is lost, and a request to
//! send cannot be cancelled. So buffers travel to the thread and come back, and on a loss the thread keeps what it
//! has, while the main thread leaves with the verdict. The system ends both.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use ::mpi::collective::{CommunicatorCollectives, Root, SystemOperation};
use ::mpi::environment::Universe;
use ::mpi::point_to_point::{Destination, Source};
use ::mpi::request::{Request, RequestCollection, Scope};
use ::mpi::topology::{Communicator, Rank};
use ::mpi::{Threading, request};

use crate::cluster::control::Control;
use crate::cluster::error::ClusterError;

/// Between two looks for a verdict while waiting for the thread.
const LOOK: Duration = Duration::from_millis(40);

/// The thread asks MPI again and again, giving way to other threads; after so long it sleeps in between, since then
/// somebody is late and others can use the processor.
const EAGER: Duration = Duration::from_millis(5);

/// Sleep between two questions afterwards.
const NAP: Duration = Duration::from_micros(50);

/// How long the others have to come to the end as well. A process that leaves without `MPI_Finalize` ends the job.
const FINISH_LIMIT: Duration = Duration::from_secs(5);

/// Stands for no rank in [`State::awaited`].
const NOBODY: usize = usize::MAX;

/// What the thread is asked to do. It comes back when it is done.
pub(super) enum Work {
    Exchange(Exchange),
    /// The sum of `mine` over all ranks, by MPI itself.
    Sum {
        mine: Vec<f32>,
        sum: Vec<f32>,
    },
    /// The bytes of `root` to all; as many everywhere.
    Spread {
        root: usize,
        bytes: Vec<u8>,
    },
    /// Waits for all and ends MPI.
    Finish,
}

/// Bytes to and from other ranks, all at the same time. Both sides know how many.
#[derive(Default)]
pub(super) struct Exchange {
    tag: i32,
    outgoing: Vec<Vec<u8>>,
    /// To whom which of them.
    letters: Vec<(usize, usize)>,
    incoming: Vec<(usize, Vec<u8>)>,
}

impl Exchange {
    /// Messages of different tags do not meet.
    pub(super) fn tagged(tag: i32) -> Self {
        Self { tag, ..Self::default() }
    }

    /// Sends one buffer to several ranks.
    pub(super) fn send(&mut self, ranks: impl Iterator<Item = usize>, buffer: Vec<u8>) {
        let which = self.outgoing.len();
        self.outgoing.push(buffer);
        self.letters.extend(ranks.map(|rank| (rank, which)));
    }

    /// Expects as many bytes of a rank as the buffer holds.
    pub(super) fn expect(&mut self, rank: usize, buffer: Vec<u8>) {
        self.incoming.push((rank, buffer));
    }

    /// What came, in the order in which it was expected.
    pub(super) fn received(&self) -> impl Iterator<Item = (usize, &[u8])> {
        self.incoming.iter().map(|(rank, bytes)| (*rank, bytes.as_slice()))
    }
}

/// What both threads see at any time.
struct State {
    /// The main thread has left with a verdict: nothing will complete any more.
    abandoned: AtomicBool,
    /// A rank whose bytes are missing.
    awaited: AtomicUsize,
}

/// The main thread's side.
pub(super) struct Port {
    work: mpsc::Sender<Work>,
    done: mpsc::Receiver<Work>,
    state: Arc<State>,
    spare_bytes: Vec<Vec<u8>>,
    spare_values: Vec<Vec<f32>>,
}

impl Port {
    /// Starts MPI; returns the port with the rank and the number of processes that MPI knows. All processes must call
    /// it.
    pub(super) fn open(control: &Control) -> Result<(Self, usize, usize), ClusterError> {
        let (work, queue) = mpsc::channel();
        let (give_back, done) = mpsc::channel();
        let (tell, told) = mpsc::channel();
        let state = Arc::new(State { abandoned: AtomicBool::new(false), awaited: AtomicUsize::new(NOBODY) });
        let shared = Arc::clone(&state);
        let body = move || match ::mpi::initialize_with_threading(Threading::Funneled) {
            Some((universe, level)) if level >= Threading::Funneled => {
                let world = universe.world();
                // The constructor waits for this as long as this thread lives.
                let _ = tell.send((world.rank(), world.size()));
                serve(universe, &queue, &give_back, &shared);
            }
            // Dropping `tell` says it.
            Some((universe, _)) => std::mem::forget(universe),
            None => {}
        };
        let spawned = thread::Builder::new().name("mpi".into()).spawn(body);
        spawned.map_err(|e| local("start its thread", e.to_string()))?;
        let port = Self { work, done, state, spare_bytes: Vec::new(), spare_values: Vec::new() };
        loop {
            match told.recv_timeout(LOOK) {
                Ok((rank, world)) => {
                    let number = |n: Rank| usize::try_from(n).unwrap_or(usize::MAX);
                    return Ok((port, number(rank), number(world)));
                }
                Err(RecvTimeoutError::Timeout) => control.check()?,
                Err(RecvTimeoutError::Disconnected) => {
                    let cause = "it does not allow more than one thread, or was started before".to_owned();
                    return Err(local("start MPI", cause));
                }
            }
        }
    }

    /// A buffer of so many bytes; what is in it is arbitrary.
    pub(super) fn buffer(&mut self, len: usize) -> Vec<u8> {
        let mut buffer = self.spare_bytes.pop().unwrap_or_default();
        buffer.resize(len, 0);
        buffer
    }

    /// A buffer of so many values; what is in it is arbitrary.
    pub(super) fn values(&mut self, len: usize) -> Vec<f32> {
        let mut buffer = self.spare_values.pop().unwrap_or_default();
        buffer.resize(len, 0.0);
        buffer
    }

    /// Hands work to the thread, which does one after the other.
    pub(super) fn submit(&mut self, work: Work) -> Result<(), ClusterError> {
        self.work.send(work).map_err(|_| ended())
    }

    /// Waits until the oldest work is done.
    pub(super) fn complete(&mut self, control: &Control) -> Result<Work, ClusterError> {
        loop {
            match self.done.recv_timeout(LOOK) {
                Ok(work) => {
                    control.progress();
                    return Ok(work);
                }
                Err(RecvTimeoutError::Timeout) => {
                    let awaited = self.state.awaited.load(Ordering::Relaxed);
                    if awaited != NOBODY {
                        control.wait_for(awaited);
                    }
                    if let Err(verdict) = control.check() {
                        self.abandon();
                        return Err(verdict);
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return Err(ended()),
            }
        }
    }

    /// Keeps the buffers of finished work for the next.
    pub(super) fn recycle(&mut self, work: Work) {
        match work {
            Work::Exchange(exchange) => {
                self.spare_bytes.extend(exchange.outgoing);
                self.spare_bytes.extend(exchange.incoming.into_iter().map(|(_, buffer)| buffer));
            }
            Work::Sum { mine, sum } => self.spare_values.extend([mine, sum]),
            Work::Spread { bytes, .. } => self.spare_bytes.push(bytes),
            Work::Finish => {}
        }
    }

    fn abandon(&self) {
        self.state.abandoned.store(true, Ordering::Relaxed);
    }

    /// Ends MPI together with all others; gives up on it when they do not come.
    pub(super) fn finish(&mut self) {
        let finished = self.work.send(Work::Finish).is_ok()
            && loop {
                match self.done.recv_timeout(FINISH_LIMIT) {
                    Ok(Work::Finish) => break true,
                    Ok(_) => {}
                    Err(_) => break false,
                }
            };
        if !finished {
            self.abandon();
        }
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        // After `finish` there is nothing left to abandon; before it nothing else may end MPI (see `serve`).
        self.abandon();
    }
}

fn local(what: &str, cause: String) -> ClusterError {
    ClusterError::Local {
        what: format!("the engine `mpi` cannot {what}"),
        cause,
        advice: "check the installation of MPI, or use the engine `tcp`".into(),
    }
}

fn ended() -> ClusterError {
    local("go on", "its thread has ended".to_owned())
}

/// The thread's loop. `MPI_Finalize` waits for the other ranks, for ever when one of them is lost or fails, so it is
/// called only after [`Work::Finish`] has brought all of them to the end.
fn serve(universe: Universe, queue: &mpsc::Receiver<Work>, give_back: &mpsc::Sender<Work>, state: &State) {
    let world = universe.world();
    for mut work in queue {
        match &mut work {
            Work::Exchange(exchange) => exchange_bytes(&world, exchange, state),
            Work::Sum { mine, sum } => request::scope(|scope| {
                let sum = sum.as_mut_slice();
                let operation = SystemOperation::sum();
                settle(world.immediate_all_reduce_into(scope, mine.as_slice(), sum, operation), state);
            }),
            Work::Spread { root, bytes } => request::scope(|scope| {
                let root = world.process_at_rank(number(*root));
                settle(root.immediate_broadcast_into(scope, bytes.as_mut_slice()), state);
            }),
            Work::Finish => {
                settle(world.immediate_barrier(), state);
                drop(world);
                drop(universe);
                let _ = give_back.send(work);
                return;
            }
        }
        if give_back.send(work).is_err() {
            break;
        }
    }
    std::mem::forget(universe);
}

fn number(rank: usize) -> Rank {
    Rank::try_from(rank).unwrap_or(Rank::MAX)
}

fn exchange_bytes(world: &impl Communicator, exchange: &mut Exchange, state: &State) {
    let Exchange { tag, outgoing, letters, incoming } = exchange;
    let (tag, outgoing) = (*tag, &*outgoing);
    // By the number of the request.
    let mut missing: Vec<Option<usize>> = incoming.iter().map(|(rank, _)| Some(*rank)).collect();
    let count = incoming.len() + letters.len();
    request::multiple_scope(count, |scope, requests| {
        for (rank, buffer) in incoming {
            let from = world.process_at_rank(number(*rank));
            requests.add(from.immediate_receive_into_with_tag(scope, buffer.as_mut_slice(), tag));
        }
        for (rank, which) in letters {
            let buffer = outgoing.get(*which).map(Vec::as_slice).unwrap_or_default();
            requests.add(world.process_at_rank(number(*rank)).immediate_send_with_tag(scope, buffer, tag));
        }
        settle_all(requests, count, &mut missing, state);
    });
}

fn settle_all(requests: &mut RequestCollection<'_, [u8]>, count: usize, missing: &mut [Option<usize>], state: &State) {
    let (mut left, mut done, mut pause) = (count, Vec::with_capacity(count), Pause::default());
    while left > 0 {
        requests.test_some(&mut done);
        left -= done.len();
        for (index, _, _) in &done {
            if let Some(entry) = missing.get_mut(*index) {
                *entry = None;
            }
        }
        if done.is_empty() {
            pause.take(state, || missing.iter().flatten().next().copied());
        } else {
            pause = Pause::default();
        }
    }
    state.awaited.store(NOBODY, Ordering::Relaxed);
}

fn settle<'a, D: ?Sized, S: Scope<'a>>(mut request: Request<'a, D, S>, state: &State) {
    let mut pause = Pause::default();
    while let Err(unfinished) = request.test() {
        request = unfinished;
        pause.take(state, || None);
    }
}

/// The time since something last completed.
#[derive(Default)]
struct Pause(Option<Instant>);

impl Pause {
    /// Lets others run for a moment. Does not return once the work is abandoned.
    fn take(&mut self, state: &State, missing: impl Fn() -> Option<usize>) {
        let since = *self.0.get_or_insert_with(Instant::now);
        if since.elapsed() < EAGER {
            return thread::yield_now();
        }
        state.awaited.store(missing().unwrap_or(NOBODY), Ordering::Relaxed);
        while state.abandoned.load(Ordering::Relaxed) {
            // The buffers belong to MPI for as long as this process lives.
            thread::park();
        }
        thread::sleep(NAP);
    }
}
