//! Owns the control plane of a run: heartbeats, who is to blame, leaving; never touches the data connections.
//!
//! A star around rank 0, whose process also holds the coordinator. Every rank sends a heartbeat with its position and
//! reports what it sees; the coordinator lets the evidence settle, blames one rank and sends everybody the same
//! [`Verdict`](super::Verdict). Members judge only one rank by themselves: rank 0, when its connection ends or goes
//! silent. The main thread hears of a verdict through [`Control::check`], which engines call while they wait; a
//! watchdog ends a process whose main thread does not.

mod coordinator;
mod docket;
mod frame;
mod member;
mod shared;
mod standing;
mod stragglers;
mod watchdog;
mod wire;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use self::coordinator::Coordinator;
use self::docket::Finding;
use self::frame::{Claim, Frame, Phases, bounded};
use self::member::Member;
use self::shared::{Event, Shared, lock};
use self::wire::Outlet;
use super::channel::{Channel, ChannelError, Closer};
use super::error::{Cause, ClusterError};
use super::recorder::{Kind, Record};

pub use self::stragglers::{Phase, Straggler};

/// How long a leaving process waits until the others know.
const LEAVE_LIMIT: Duration = Duration::from_secs(1);

/// How long a failing process waits until the others know.
const FAIL_LIMIT: Duration = Duration::from_secs(2);

/// When the control plane gives up on whom.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// Between two heartbeats. At most a fifth of `peer_timeout`.
    pub heartbeat: Duration,
    /// Without a heartbeat for so long a rank is silent.
    pub peer_timeout: Duration,
    /// A rank that others wait for so long in a collective is stuck.
    pub collective_timeout: Duration,
    /// After a verdict the main thread must have asked within this time.
    pub check_grace: Duration,
    /// After a verdict the main thread must have dropped the [`Control`] within this time.
    pub exit_grace: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_secs(1),
            peer_timeout: Duration::from_secs(10),
            collective_timeout: Duration::from_secs(600),
            // A long kernel must not keep the name of a dead rank for itself for two seconds.
            check_grace: Duration::from_millis(1500),
            exit_grace: Duration::from_secs(30),
        }
    }
}

/// Who takes part, by rank.
#[derive(Debug, Clone)]
pub struct Members {
    /// This process.
    pub rank: usize,
    /// Host of every rank.
    pub hosts: Vec<String>,
    /// Process id of every rank.
    pub pids: Vec<u32>,
}

/// The handle of the main thread on the control plane. Dropping it without [`Control::leave`] is death to the others.
pub struct Control {
    shared: Arc<Shared>,
    timing: Timing,
    stop: AtomicBool,
    closers: Vec<Closer>,
}

impl Control {
    /// Starts the threads. `channels` is indexed by rank: rank 0 has one to every other rank, the others only one to
    /// rank 0. `on_fatal` is called at most once, from a thread of its own, when the main thread does not react to a
    /// verdict; it should end the process.
    ///
    /// # Errors
    /// [`ClusterError::Local`] when a thread cannot be started or a channel cannot be split.
    pub fn start(
        members: Members,
        channels: Vec<Option<Channel>>,
        timing: Timing,
        on_fatal: Box<dyn Fn(&ClusterError) + Send>,
    ) -> Result<Arc<Self>, ClusterError> {
        let timing = Timing { heartbeat: timing.heartbeat.min(timing.peer_timeout / 5), ..timing };
        let (post, events) = mpsc::channel();
        let Members { rank, hosts, pids } = members;
        let world = hosts.len();
        let shared = Arc::new(Shared::new(rank, hosts, pids, post));
        let closers = channels.iter().flatten().map(Channel::closer).collect();
        // From here on a failure must end the threads that have been started: dropping this does.
        let control = Arc::new(Self { shared: Arc::clone(&shared), timing, stop: AtomicBool::new(false), closers });
        let mut outlets: Vec<Outlet> = (0..world).map(|_| Outlet::none()).collect();
        for (peer, channel) in channels.into_iter().enumerate() {
            let (Some(channel), Some(outlet)) = (channel, outlets.get_mut(peer)) else { continue };
            let (sender, receiver) = channel.split().map_err(|e| cannot_split(peer, &e))?;
            *outlet = Outlet::new(sender);
            let shared = Arc::clone(&shared);
            spawn(format!("control-from-{peer}"), move || wire::read(&shared, peer, receiver))?;
        }
        let (check_grace, exit_grace) = (timing.check_grace, timing.exit_grace);
        let watched = Arc::clone(&shared);
        spawn("control-watchdog".into(), move || watchdog::watch(&watched, check_grace, exit_grace, &on_fatal))?;
        if rank == 0 {
            let coordinator = Coordinator::new(shared, timing, outlets);
            spawn("control".into(), move || coordinator.run(&events))?;
        } else {
            let outlet = outlets.into_iter().next().unwrap_or_else(Outlet::none);
            let member = Member::new(shared, timing, outlet);
            spawn("control".into(), move || member.run(&events))?;
        }
        Ok(control)
    }

    /// This process.
    #[must_use]
    pub fn rank(&self) -> usize {
        self.shared.rank
    }

    /// Number of processes.
    #[must_use]
    pub fn world(&self) -> usize {
        self.shared.hosts.len()
    }

    /// The host of this process, as the ranks know it.
    #[must_use]
    pub fn host(&self) -> String {
        self.shared.hosts.get(self.shared.rank).cloned().unwrap_or_default()
    }

    /// Tells where the main thread is: `step` optimizer steps are done and it begins `phase` of the next one.
    pub fn at(&self, step: u64, phase: &'static str) {
        lock(&self.shared.recorder).at(step, phase);
    }

    /// The main thread enters collective number `sequence` (from 1) and passes `elements`. Engines call it; messages
    /// between two ranks carry the number of the newest collective.
    pub fn arrive(&self, sequence: u64, kind: Kind, elements: u64) {
        lock(&self.shared.recorder).arrive(sequence, kind, elements);
    }

    /// The main thread leaves the collective.
    pub fn depart(&self) {
        lock(&self.shared.recorder).depart();
    }

    /// The main thread hands a collective of `elements` to the device and goes on; returns its number in the run, for
    /// [`Control::land`]. While the main thread is in no collective itself, the others see this process in the oldest
    /// one that has not landed, so that the rank that keeps a device waiting is found like any other.
    pub fn issue(&self, kind: Kind, elements: u64) -> u64 {
        lock(&self.shared.recorder).issue(kind, elements)
    }

    /// The device has finished collective number `sequence`.
    pub fn land(&self, sequence: u64) {
        lock(&self.shared.recorder).land(sequence);
    }

    /// When this control plane gives up on whom.
    #[must_use]
    pub fn timing(&self) -> Timing {
        self.timing
    }

    /// The verdict, for threads other than the main thread: the main thread does not count as told.
    #[must_use]
    pub fn verdict(&self) -> Option<ClusterError> {
        self.shared.verdict().cloned()
    }

    /// Bytes of the collective have arrived.
    pub fn progress(&self) {
        lock(&self.shared.recorder).progress();
    }

    /// The main thread waits for bytes of `rank`.
    pub fn wait_for(&self, rank: usize) {
        lock(&self.shared.recorder).wait_for(rank);
    }

    /// The newest collectives of this process, oldest first, at most [`super::recorder::KEPT_RECORDS`].
    #[must_use]
    pub fn newest_records(&self, count: usize) -> Vec<Record> {
        lock(&self.shared.recorder).newest(count)
    }

    /// Cheap. Whoever waits for others calls it again and again.
    ///
    /// # Errors
    /// The verdict, once there is one.
    pub fn check(&self) -> Result<(), ClusterError> {
        self.shared.tell().map_or(Ok(()), Err)
    }

    /// A data connection to `rank` ended or failed (`detail`): asks the coordinator, who knows best, and returns the
    /// verdict, which may name another rank.
    #[must_use]
    pub fn lost(&self, rank: usize, detail: &str) -> ClusterError {
        self.claim(rank, Cause::Died, "", "", detail)
    }

    /// `rank` is somewhere else than this process or holds something else; both in words that every rank would choose
    /// for the same thing. Returns the verdict: what most ranks have is right.
    #[must_use]
    pub fn disagree(&self, rank: usize, mine: &str, theirs: &str) -> ClusterError {
        self.claim(rank, Cause::Disagrees, mine, theirs, "")
    }

    /// Blames `rank` for something that only the main thread can know (other bits than the others). Every rank that
    /// knows may call it. Returns the verdict.
    #[must_use]
    pub fn accuse(&self, rank: usize, cause: Cause, detail: &str) -> ClusterError {
        self.claim(rank, cause, "", "", detail)
    }

    fn claim(&self, rank: usize, cause: Cause, mine: &str, theirs: &str, detail: &str) -> ClusterError {
        let claim = Claim { rank, cause, mine: bounded(mine), theirs: bounded(theirs), detail: bounded(detail) };
        let own_words = if mine == theirs { detail.to_owned() } else { format!("it has {theirs}, this rank {mine}") };
        self.shared.post(Event::Mine(Frame::Claim(claim)));
        // A coordinator that does not answer is dead or silent itself, which ends in a verdict about rank 0.
        self.shared.wait_for_verdict(self.timing.peer_timeout * 3 / 2 + FAIL_LIMIT);
        if self.shared.verdict().is_none() {
            let position = self.shared.position();
            let detail = format!("{own_words}; rank 0 did not answer");
            let finding = Finding { rank, cause, during: None, detail };
            let verdict = self.shared.verdict_of(finding, position.step, position.activity());
            self.shared.set_verdict(ClusterError::Lost(verdict));
        }
        self.shared.tell().unwrap_or_else(|| ClusterError::Local {
            what: format!("rank {rank} is lost"),
            cause: own_words,
            advice: "restart the run".into(),
        })
    }

    /// This process failed by itself and will leave; the others end with its words. Returns once they have been
    /// told, after two seconds at most. Without effect after a verdict.
    pub fn fail(&self, message: &str) {
        if self.shared.verdict().is_none() {
            self.shared.post(Event::Mine(Frame::Failed(bounded(message))));
            self.shared.wait_for_verdict(FAIL_LIMIT);
        }
    }

    /// Leaves in good order: from now on the end of this process is no death. Call it after the last collective.
    /// Returns once the others know (rank 0: once all others have left as well), after one second at most.
    pub fn leave(&self) {
        self.shared.set_leaving();
        if self.shared.verdict().is_none() {
            self.shared.post(Event::Mine(Frame::Goodbye));
            self.shared.wait_for_farewell(LEAVE_LIMIT);
        }
    }

    /// Tells rank 0 the seconds spent in the phases of the window of steps that ends after `step` done ones.
    /// `communication` is the time in collectives, waiting included.
    pub fn report_phases(&self, step: u64, data: Duration, compute: Duration, communication: Duration) {
        let seconds = |d: Duration| d.as_secs_f64();
        let (data, compute, communication) = (seconds(data), seconds(compute), seconds(communication));
        self.shared.post(Event::Mine(Frame::Phases(Phases { step, data, compute, communication })));
    }

    /// On rank 0: the ranks that held the others up in the newest window that all have reported.
    #[must_use]
    pub fn stragglers(&self) -> Vec<Straggler> {
        lock(&self.shared.phases).stragglers(&self.shared.hosts)
    }

    /// On rank 0, after a verdict: the newest collectives of every rank, for the log.
    #[must_use]
    pub fn flight_recorder(&self) -> Option<String> {
        lock(&self.shared.report).clone()
    }

    /// Notes that this process was asked to stop. The agreement on a step is not made here.
    pub fn request_stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Whether this process was asked to stop.
    #[must_use]
    pub fn stop_requested(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.shared.set_closed();
        // Readers wait in their sockets without a limit.
        self.closers.iter().for_each(Closer::close);
    }
}

fn spawn(name: String, body: impl FnOnce() + Send + 'static) -> Result<(), ClusterError> {
    let spawned = thread::Builder::new().name(name.clone()).spawn(body);
    spawned.map(drop).map_err(|e| ClusterError::Local {
        what: format!("cannot start the thread {name}"),
        cause: e.to_string(),
        advice: "raise the limit on processes (`ulimit -u`)".into(),
    })
}

fn cannot_split(peer: usize, error: &ChannelError) -> ClusterError {
    ClusterError::Local {
        what: format!("cannot use the control connection to rank {peer} from two threads"),
        cause: error.to_string(),
        advice: "raise the limit on open files (`ulimit -n`)".into(),
    }
}

#[cfg(test)]
pub(crate) mod tests;
