//! Owns all calls of MPI and the buffers it works on; never touches what they mean.
//!
//! MPI may read and write the buffers of a request until it has told that the request is complete, which never happens
//! once a rank is lost, and a request to send cannot be cancelled. So buffers are not borrowed from the caller but live
//! here, and those of a request that did not complete are never freed ([`Flight`]). Calls return their errors: what MPI
//! does by default, ending the process at once, would leave nobody the time to be named.

use std::collections::VecDeque;
use std::ffi::{c_char, c_int};
use std::mem::ManuallyDrop;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use std::{ptr, thread};

use mpi_sys as ffi;

use crate::cluster::control::Control;
use crate::cluster::error::ClusterError;

/// MPI is asked again and again whether something has arrived, other threads first; after so long there is a sleep in
/// between, since then somebody is late and others can use the processor.
const EAGER: Duration = Duration::from_millis(5);

/// Sleep between two questions afterwards.
const NAP: Duration = Duration::from_micros(50);

/// How long the others have to come to the end as well. A process that leaves without `MPI_Finalize` ends the job.
const FINISH_LIMIT: Duration = Duration::from_secs(5);

/// More than any MPI's `MPI_MAX_ERROR_STRING` (256 to 1024).
const ERROR_TEXT_BYTES: usize = 4096;

/// Buffers that travel together.
#[derive(Default)]
pub(super) struct Batch {
    outgoing: Vec<Vec<u8>>,
    /// To whom which of them.
    letters: Vec<(usize, usize)>,
    incoming: Vec<(usize, Vec<u8>)>,
    /// A rank's own values and what becomes of them.
    values: [Vec<f32>; 2],
}

impl Batch {
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

    /// What [`Port::sum`] gave.
    pub(super) fn sum(&self) -> &[f32] {
        let [_, sum] = &self.values;
        sum
    }
}

/// In the order in which they are waited for, each with the rank at its other end if there is one.
type Requests = Vec<(ffi::MPI_Request, Option<usize>)>;

/// Requests that have begun, with their buffers. Dropped before all are complete, it leaves the buffers to MPI for as
/// long as the process lives.
#[derive(Default)]
struct Flight {
    requests: Requests,
    batch: ManuallyDrop<Batch>,
}

// SAFETY: what is not `Send` is a handle of MPI, which was started so that any thread may use it, one at a time; whoever
// holds a flight by value or exclusively is the only one. The buffers are plain vectors.
unsafe impl Send for Flight {}

impl Flight {
    fn of(batch: Batch) -> Self {
        Self { requests: Vec::new(), batch: ManuallyDrop::new(batch) }
    }
}

/// A call of MPI that failed.
struct Fault {
    /// The rank at the other end, where there is one.
    peer: Option<usize>,
    code: c_int,
}

/// MPI, as one thread after the other uses it.
pub(super) struct Port {
    control: Arc<Control>,
    /// Oldest first.
    flights: VecDeque<Flight>,
    /// A request failed or was given up: MPI must not be ended in order, because that waits for it.
    broken: bool,
    spare_bytes: Vec<Vec<u8>>,
    spare_values: Vec<Vec<f32>>,
}

impl Port {
    /// Starts MPI; returns the port with the rank and the number of processes that MPI knows. All processes must call
    /// it, once.
    pub(super) fn open(control: Arc<Control>) -> Result<(Self, usize, usize), ClusterError> {
        static STARTED: AtomicBool = AtomicBool::new(false);
        if STARTED.swap(true, Ordering::SeqCst) {
            return Err(failed("cannot be started twice in one process", String::new()));
        }
        let (mut level, mut rank, mut world) = (0, 0, 0);
        // SAFETY: the first call of MPI in this process, made once; null stands for the arguments of `main`.
        let code = unsafe {
            ffi::MPI_Init_thread(ptr::null_mut(), ptr::null_mut(), ffi::RSMPI_THREAD_SERIALIZED, &raw mut level)
        };
        done(code).map_err(|code| failed("cannot be started", text(code)))?;
        // SAFETY: MPI runs, and the pointers are to variables that live as long as the calls.
        let code = unsafe {
            [
                ffi::MPI_Comm_set_errhandler(ffi::RSMPI_COMM_WORLD, ffi::RSMPI_ERRORS_RETURN),
                ffi::MPI_Comm_rank(ffi::RSMPI_COMM_WORLD, &raw mut rank),
                ffi::MPI_Comm_size(ffi::RSMPI_COMM_WORLD, &raw mut world),
            ]
        };
        code.into_iter().try_for_each(done).map_err(|code| failed("cannot be started", text(code)))?;
        // SAFETY: a constant of the C side; the levels are ordered.
        if level < unsafe { ffi::RSMPI_THREAD_SERIALIZED } {
            let why = format!("it allows calls from one thread only (level {level})");
            return Err(failed("cannot be used", why));
        }
        let flights = VecDeque::new();
        let port = Self { control, flights, broken: false, spare_bytes: Vec::new(), spare_values: Vec::new() };
        let number = |n: c_int| usize::try_from(n).unwrap_or(usize::MAX);
        Ok((port, number(rank), number(world)))
    }

    /// A buffer of so many bytes; what is in it is arbitrary.
    pub(super) fn buffer(&mut self, len: usize) -> Vec<u8> {
        let mut buffer = self.spare_bytes.pop().unwrap_or_default();
        buffer.resize(len, 0);
        buffer
    }

    /// A buffer of so many values; what is in it is arbitrary.
    fn values(&mut self, len: usize) -> Vec<f32> {
        let mut buffer = self.spare_values.pop().unwrap_or_default();
        buffer.resize(len, 0.0);
        buffer
    }

    /// Keeps the buffers of a complete batch for the next.
    pub(super) fn recycle(&mut self, batch: Batch) {
        self.spare_bytes.extend(batch.outgoing);
        self.spare_bytes.extend(batch.incoming.into_iter().map(|(_, buffer)| buffer));
        self.spare_values.extend(batch.values.into_iter().filter(|values| values.capacity() > 0));
    }

    /// Begins to send and receive; [`Port::complete`] gives the batch back. Messages of different tags do not meet.
    pub(super) fn exchange(&mut self, tag: c_int, batch: Batch) -> Result<(), ClusterError> {
        let mut flight = Flight::of(batch);
        let begun = begin_exchange(&mut flight, tag);
        self.depart(flight, begun)
    }

    /// Begins a sum over all ranks by MPI itself, to be found in [`Batch::sum`].
    pub(super) fn sum(&mut self, values: &[f32]) -> Result<(), ClusterError> {
        let (mut mine, sum) = (self.values(values.len()), self.values(values.len()));
        mine.copy_from_slice(values);
        let batch = Batch { values: [mine, sum], ..Batch::default() };
        let mut flight = Flight::of(batch);
        let [mine, sum] = &mut flight.batch.values;
        let (from, to, count) = (mine.as_ptr().cast(), sum.as_mut_ptr().cast(), number(mine.len()));
        // SAFETY: both buffers hold `count` values, do not overlap, and stay where they are until the request is
        // complete (`Flight`).
        let begun = begin(&mut flight.requests, None, |request| unsafe {
            ffi::MPI_Iallreduce(from, to, count, ffi::RSMPI_FLOAT, ffi::RSMPI_SUM, ffi::RSMPI_COMM_WORLD, request)
        });
        self.depart(flight, begun)
    }

    /// Begins to give the bytes of `root` to all; as many everywhere. They are what [`Batch::received`] gives.
    pub(super) fn spread(&mut self, root: usize, bytes: Vec<u8>) -> Result<(), ClusterError> {
        let batch = Batch { incoming: vec![(root, bytes)], ..Batch::default() };
        let mut flight = Flight::of(batch);
        let bytes = flight.batch.incoming.iter_mut().map(|(_, bytes)| bytes).next();
        let (at, count) = bytes.map_or((ptr::null_mut(), 0), |bytes| (bytes.as_mut_ptr().cast(), number(bytes.len())));
        // SAFETY: the buffer holds `count` bytes and stays where it is until the request is complete (`Flight`).
        let begun = begin(&mut flight.requests, None, |request| unsafe {
            ffi::MPI_Ibcast(at, count, ffi::RSMPI_UINT8_T, number(root), ffi::RSMPI_COMM_WORLD, request)
        });
        self.depart(flight, begun)
    }

    fn depart(&mut self, flight: Flight, begun: Result<(), Fault>) -> Result<(), ClusterError> {
        self.flights.push_back(flight);
        begun.map_err(|fault| self.blame(&fault))
    }

    /// Waits until the oldest batch is complete.
    pub(super) fn complete(&mut self) -> Result<Batch, ClusterError> {
        let Some(mut flight) = self.flights.pop_front() else {
            return Err(failed("was waited for", "nothing had begun".to_owned()));
        };
        let mut pause = Pause::default();
        for (request, peer) in &mut flight.requests {
            while !ended(request).map_err(|code| self.blame(&Fault { peer: *peer, code }))? {
                if let Err(verdict) = self.control.check() {
                    self.broken = true;
                    return Err(verdict);
                }
                if pause.take()
                    && let Some(peer) = *peer
                {
                    self.control.wait_for(peer);
                }
            }
            pause = Pause::default();
        }
        self.control.progress();
        Ok(ManuallyDrop::into_inner(flight.batch))
    }

    /// The error of a call that failed: a verdict where another rank may be the cause.
    fn blame(&mut self, fault: &Fault) -> ClusterError {
        self.broken = true;
        let what = text(fault.code);
        match fault.peer {
            Some(peer) => self.control.lost(peer, &format!("MPI: {what}")),
            None => failed("failed in a collective", what),
        }
    }

    /// Ends MPI together with all others. `MPI_Finalize` waits for the other ranks, for ever when one of them is lost,
    /// so it is called only once all have come here; where they do not, MPI is left as it is.
    pub(super) fn finish(&mut self) {
        if self.broken || !self.flights.is_empty() {
            return;
        }
        self.broken = true;
        let (mut flight, start, mut pause) = (Flight::default(), Instant::now(), Pause::default());
        // SAFETY: MPI runs, there are no buffers.
        if begin(&mut flight.requests, None, |request| unsafe { ffi::MPI_Ibarrier(ffi::RSMPI_COMM_WORLD, request) })
            .is_err()
        {
            return;
        }
        for (request, _) in &mut flight.requests {
            while !matches!(ended(request), Ok(true)) {
                if start.elapsed() > FINISH_LIMIT || self.control.check().is_err() {
                    return;
                }
                pause.take();
            }
        }
        // SAFETY: the last call of MPI in this process: `STARTED` lets no second port be opened. No request is open. It
        // returns nothing that could still be acted on.
        unsafe { ffi::MPI_Finalize() };
    }
}

fn begin_exchange(flight: &mut Flight, tag: c_int) -> Result<(), Fault> {
    let Flight { requests, batch } = flight;
    let Batch { outgoing, letters, incoming, .. } = &mut **batch;
    for (peer, buffer) in incoming {
        let (at, count, from) = (buffer.as_mut_ptr().cast(), number(buffer.len()), number(*peer));
        // SAFETY: the buffer holds `count` bytes and stays where it is until the request is complete (`Flight`).
        begin(requests, Some(*peer), |request| unsafe {
            ffi::MPI_Irecv(at, count, ffi::RSMPI_UINT8_T, from, tag, ffi::RSMPI_COMM_WORLD, request)
        })?;
    }
    for (peer, which) in letters {
        let Some(buffer) = outgoing.get(*which) else { continue };
        let (at, count, to) = (buffer.as_ptr().cast(), number(buffer.len()), number(*peer));
        // SAFETY: as above; MPI only reads it, so several requests may share it.
        begin(requests, Some(*peer), |request| unsafe {
            ffi::MPI_Isend(at, count, ffi::RSMPI_UINT8_T, to, tag, ffi::RSMPI_COMM_WORLD, request)
        })?;
    }
    Ok(())
}

/// Notes a request that `call` begins.
fn begin(
    requests: &mut Requests,
    peer: Option<usize>,
    call: impl FnOnce(*mut ffi::MPI_Request) -> c_int,
) -> Result<(), Fault> {
    // SAFETY: a constant of the C side.
    let mut request = unsafe { ffi::RSMPI_REQUEST_NULL };
    done(call(&raw mut request)).map_err(|code| Fault { peer, code })?;
    requests.push((request, peer));
    Ok(())
}

/// Whether a request is complete; lets MPI work on all of them.
fn ended(request: &mut ffi::MPI_Request) -> Result<bool, c_int> {
    let mut flag = 0;
    // SAFETY: the request was begun by MPI or is its null, which is complete; the status is not wanted.
    done(unsafe { ffi::MPI_Test(request, &raw mut flag, ffi::RSMPI_STATUS_IGNORE) })?;
    Ok(flag != 0)
}

fn done(code: c_int) -> Result<(), c_int> {
    if code == ffi::MPI_SUCCESS as c_int { Ok(()) } else { Err(code) }
}

/// Counts and ranks are small: what is too large becomes what MPI refuses.
fn number(n: usize) -> c_int {
    c_int::try_from(n).unwrap_or(-1)
}

/// MPI's own words for an error.
fn text(code: c_int) -> String {
    let (mut bytes, mut len) = (vec![0u8; ERROR_TEXT_BYTES], 0);
    // SAFETY: the buffer is larger than what any MPI writes.
    let told = unsafe { ffi::MPI_Error_string(code, bytes.as_mut_ptr().cast::<c_char>(), &raw mut len) };
    let words = bytes.get(..usize::try_from(len).unwrap_or(0)).filter(|words| done(told).is_ok() && !words.is_empty());
    words.map_or_else(|| format!("error {code}"), |words| String::from_utf8_lossy(words).into_owned())
}

fn failed(how: &str, cause: String) -> ClusterError {
    ClusterError::Local {
        what: format!("MPI {how}"),
        cause,
        advice: "check the installation of MPI, or train with `cluster.engine: tcp`".into(),
    }
}

/// The time since something last completed.
#[derive(Default)]
struct Pause(Option<Instant>);

impl Pause {
    /// Lets others run for a moment; whether somebody is late.
    fn take(&mut self) -> bool {
        let late = self.0.get_or_insert_with(Instant::now).elapsed() >= EAGER;
        if late {
            thread::sleep(NAP)
        } else {
            thread::yield_now()
        }
        late
    }
}
