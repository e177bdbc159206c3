//! Owns the thread that adds gradients among processes while the backward pass computes more; never touches tensors.

use std::sync::mpsc::{Receiver, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::cluster::{ClusterError, Collective, Order};

/// Buckets that may wait for the network before the backward pass waits for them: bounds the memory they hold.
const QUEUED_BUCKETS: usize = 2;

/// A collective that the loop and the worker take turns with.
pub(super) type Shared = Arc<Mutex<Box<dyn Collective>>>;

/// Takes the turn. A thread that panicked with it left no state behind that the next collective would trust: headers
/// are compared every time.
pub(super) fn lock(collective: &Shared) -> MutexGuard<'_, Box<dyn Collective>> {
    collective.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Values on their way, `[len]` each, and which parameters they are of.
pub(super) struct Part {
    /// Parameters end to end, with their lengths; empty where a partition knows better.
    pub(super) params: Vec<(usize, usize)>,
    /// Their values.
    pub(super) values: Vec<f32>,
}

/// A bucket to be added.
pub(super) struct Job {
    pub(super) bucket: usize,
    pub(super) parts: Vec<Part>,
    /// Whether every process gets only its own slice of the sum.
    pub(super) scatter: bool,
}

/// A bucket that was added.
pub(super) struct Done {
    pub(super) bucket: usize,
    pub(super) parts: Vec<Part>,
    /// Time in collectives, waiting for other processes included.
    pub(super) busy: Duration,
}

/// The thread's ends. Results come in the order of jobs. It ends when this is dropped or after an error.
pub(super) struct Worker {
    jobs: SyncSender<Job>,
    done: Receiver<Result<Done, ClusterError>>,
}

impl Worker {
    /// Starts the thread.
    pub(super) fn start(collective: Shared, order: Order) -> Result<Self, ClusterError> {
        let (jobs, queue) = sync_channel::<Job>(QUEUED_BUCKETS);
        let (results, done) = channel();
        let run = move || {
            for job in queue {
                let result = add(&collective, order, job);
                let ends = result.is_err();
                if results.send(result).is_err() || ends {
                    return;
                }
            }
        };
        let started = std::thread::Builder::new().name("gradients".into()).spawn(run);
        started.map_err(|error| ClusterError::Local {
            what: "the thread that adds gradients could not be started".into(),
            cause: error.to_string(),
            advice: "lower the number of threads on this machine".into(),
        })?;
        Ok(Self { jobs, done })
    }

    /// Hands over a bucket; waits while too many are queued.
    pub(super) fn submit(&self, job: Job) -> Result<(), ClusterError> {
        match self.jobs.send(job) {
            Ok(()) => Ok(()),
            // The thread has left: its last words say why.
            Err(_) => loop {
                self.next()?;
            },
        }
    }

    /// The next result; waits for it.
    pub(super) fn next(&self) -> Result<Done, ClusterError> {
        self.done.recv().unwrap_or_else(|_| {
            Err(ClusterError::Local {
                what: "gradients could not be added".into(),
                cause: "the thread that does it has left".into(),
                advice: "this is a defect, please report it".into(),
            })
        })
    }

    /// The next result if it is there already.
    pub(super) fn ready(&self) -> Result<Option<Done>, ClusterError> {
        self.done.try_recv().ok().transpose()
    }
}

fn add(collective: &Shared, order: Order, job: Job) -> Result<Done, ClusterError> {
    let start = Instant::now();
    let Job { bucket, mut parts, scatter } = job;
    let mut collective = lock(collective);
    for Part { values, .. } in &mut parts {
        if scatter {
            collective.reduce_scatter(values, order)?;
        } else {
            collective.all_reduce(values, order)?;
        }
    }
    Ok(Done { bucket, parts, busy: start.elapsed() })
}
