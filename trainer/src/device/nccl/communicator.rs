//! Owns one communicator of NCCL: joining, groups of calls, cutting it short; never touches tensors or streams.
//!
//! The communicator does not block: a call returns at once and is asked about until it is no longer in progress, so
//! that a peer that died meanwhile ends the waiting. It stands behind a lock that is held for single calls only:
//! whoever cuts it short takes it away, and everybody else finds it gone.

use std::ffi::c_int;
use std::ptr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::fabric::Fault;
use super::symbols::{Api, Comm, Config, IN_PROGRESS, SUCCESS, UniqueId};
use crate::cluster::ClusterError;

/// Between two questions while a group is being launched.
const SHORT_LOOK: Duration = Duration::from_micros(20);
/// Between two questions while ranks join or leave.
const LONG_LOOK: Duration = Duration::from_millis(2);
/// How long ranks may take to leave in good order.
const LEAVE_LIMIT: Duration = Duration::from_secs(5);

/// The library's communicator.
struct Raw(Comm);

// SAFETY: NCCL allows calls on a communicator from any thread as long as they do not overlap (ncclCommAbort and
// ncclCommGetAsyncError even if they do); the lock around it sees to that.
unsafe impl Send for Raw {}

impl Group<'_> {
    /// Turns the result of a call into words.
    pub(super) fn check(&self, call: &str, code: c_int) -> Result<(), String> {
        // SAFETY: the communicator lives for as long as its group is being made.
        unsafe { self.api.check(self.comm, call, code) }
    }
}

/// This process's part in a communicator.
pub(super) struct Communicator {
    api: Arc<Api>,
    /// `None` once it has been cut short or closed.
    raw: Mutex<Option<Raw>>,
}

/// What the calls of a group are made with.
pub(super) struct Group<'a> {
    pub(super) api: &'a Api,
    pub(super) comm: Comm,
}

impl Communicator {
    /// Joins the communicator `id`. The device's context must be current on this thread. `keep_waiting` is asked again
    /// and again and ends the waiting with its error.
    pub(super) fn join(
        api: Arc<Api>,
        id: UniqueId,
        rank: usize,
        world: usize,
        keep_waiting: &dyn Fn() -> Result<(), ClusterError>,
    ) -> Result<Self, Fault> {
        let (mut comm, mut config): (Comm, _) = (ptr::null_mut(), Config::non_blocking());
        let number = |n: usize| c_int::try_from(n).map_err(|_| Fault::Defect(format!("{n} is no number of ranks")));
        let (world, rank) = (number(world)?, number(rank)?);
        // SAFETY: `comm` and `config` are valid places for what nccl.h declares; `config` says how long it is.
        let code = unsafe { (api.functions.comm_init_rank_config)(&raw mut comm, world, id, rank, &raw mut config) };
        // SAFETY: the communicator is null or was just made.
        unsafe { api.check(comm, "ncclCommInitRankConfig", code) }.map_err(Fault::Broken)?;
        let joined = Self { api, raw: Mutex::new(Some(Raw(comm))) };
        loop {
            let fault = match joined.is_in_progress() {
                Ok(false) => return Ok(joined),
                Ok(true) => keep_waiting().err().map(|_| Fault::Aborted),
                Err(fault) => Some(fault),
            };
            if let Some(fault) = fault {
                // One that never came about cannot be left in good order.
                joined.abort();
                return Err(fault);
            }
            thread::sleep(LONG_LOOK);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Raw>> {
        self.raw.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether what was asked of the communicator last is not done; an error of its own or of a peer shows here.
    pub(super) fn is_in_progress(&self) -> Result<bool, Fault> {
        let guard = self.lock();
        let Some(Raw(comm)) = *guard else { return Err(Fault::Aborted) };
        let mut state: c_int = SUCCESS;
        // SAFETY: the communicator lives while the lock is held, and `state` is a valid place for one result.
        let code = unsafe { (self.api.functions.comm_get_async_error)(comm, &raw mut state) };
        // SAFETY: as above.
        unsafe {
            self.api.check(comm, "ncclCommGetAsyncError", code).map_err(Fault::Broken)?;
            self.api.check(comm, "NCCL reports", state).map_err(Fault::Broken)?;
        }
        Ok(state == IN_PROGRESS)
    }

    /// Makes `calls` as one group and returns once the library has launched it on the stream: an event that is
    /// recorded there now comes after it.
    pub(super) fn group(&self, calls: &mut dyn FnMut(&Group<'_>) -> Result<(), String>) -> Result<(), Fault> {
        {
            let guard = self.lock();
            let Some(Raw(comm)) = *guard else { return Err(Fault::Aborted) };
            let functions = &self.api.functions;
            // SAFETY: the communicator lives while the lock is held. Every start of a group has its end, whatever the
            // calls between them return; groups belong to the thread.
            unsafe {
                self.api.check(comm, "ncclGroupStart", (functions.group_start)()).map_err(Fault::Broken)?;
                let made = calls(&Group { api: &self.api, comm });
                let ended = self.api.check(comm, "ncclGroupEnd", (functions.group_end)());
                made.and(ended).map_err(Fault::Broken)?;
            }
        }
        // The first collective of a kind connects to the peers, which takes as long as they do. A lost one makes the
        // watch cut the communicator short, which ends this.
        while self.is_in_progress()? {
            thread::sleep(SHORT_LOOK);
        }
        Ok(())
    }

    /// Ends all its collectives, here and, as far as they wait for this rank, elsewhere. Any thread may do it.
    pub(super) fn abort(&self) {
        let taken = self.lock().take();
        if let Some(Raw(comm)) = taken {
            // SAFETY: nobody else has the communicator any more. An error changes nothing: it is not used again.
            unsafe { (self.api.functions.comm_abort)(comm) };
        }
    }

    /// Whether [`Communicator::abort`] was called.
    pub(super) fn is_aborted(&self) -> bool {
        self.lock().is_none()
    }

    /// Leaves in good order, together with the others; after a few seconds without them.
    pub(super) fn close(&self) {
        {
            let guard = self.lock();
            let Some(Raw(comm)) = *guard else { return };
            // SAFETY: the communicator lives while the lock is held. What it returns shows in the loop below.
            unsafe { (self.api.functions.comm_finalize)(comm) };
        }
        let end = Instant::now() + LEAVE_LIMIT;
        while self.is_in_progress() == Ok(true) && Instant::now() < end {
            thread::sleep(LONG_LOOK);
        }
        if self.is_in_progress() != Ok(false) {
            return self.abort();
        }
        let taken = self.lock().take();
        if let Some(Raw(comm)) = taken {
            // SAFETY: it is finalized, and nobody else has it any more.
            unsafe { (self.api.functions.comm_destroy)(comm) };
        }
    }
}

impl Drop for Communicator {
    fn drop(&mut self) {
        self.close();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::print_stderr)]
    use super::*;
    use crate::device::nccl::library::{NcclMissing, Places};

    /// With the real library on a machine without a GPU: the start-up structure is read, and the error has words.
    /// With a GPU a world of one is joined.
    #[test]
    fn joining_ends_in_a_communicator_or_in_words() {
        let api = match Api::load(&Places::from_env()) {
            Ok(api) => Arc::new(api),
            Err(missing @ NcclMissing::Anywhere { .. }) => {
                eprintln!("NOT TESTED, there is no NCCL here: {missing}");
                return;
            }
            Err(missing) => unreachable!("{missing}"),
        };
        let id = api.unique_id().unwrap();
        match Communicator::join(api, id, 0, 1, &|| Ok(())) {
            Ok(comm) => {
                eprintln!("there is a GPU: a world of one was joined");
                assert!(!comm.is_aborted());
                comm.close();
                assert_eq!(comm.is_in_progress(), Err(Fault::Aborted));
            }
            Err(fault) => {
                let Fault::Broken(words) = fault else { unreachable!("{fault:?}") };
                eprintln!("{words}");
                assert!(words.contains("CUDA") || words.contains("cuda"), "{words}");
            }
        }
    }
}
