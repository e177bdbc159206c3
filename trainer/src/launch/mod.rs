//! Owns the supervisor behind `jazari launch`: start, watch, stop, restart; never touches training or the terminal.
//!
//! Suggested reading order: `ending` (what follows from how processes end, pure), `supervisor` (the loop), `crew`
//! (the processes of one start), `output`, `tether` (the child's side of "nobody outlives the supervisor").

mod crew;
mod ending;
mod event;
mod output;
mod private;
mod supervisor;
#[cfg(test)]
mod tests;
mod tether;

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::cluster::token::TokenError;

pub use ending::{Ended, Ending};
pub use event::Event;
pub use output::{LineSink, Stream};
pub use private::{PrivateToken, random_name};
pub use supervisor::{StopBell, Supervisor, pass_signals_on};
pub use tether::{SUPERVISOR_VARIABLE, TetherError, is_supervised, tie_to_supervisor};

/// Most processes that one supervisor starts.
pub const MAX_PROCESSES: usize = 1024;

/// What to start, where, and how long to be patient with it.
#[derive(Debug, Clone)]
pub struct Launch {
    /// The program of every process.
    pub program: PathBuf,
    /// Its arguments, the same for every process.
    pub arguments: Vec<OsString>,
    /// More variables for every process.
    pub environment: Vec<(OsString, OsString)>,
    /// Processes on this host.
    pub nproc: usize,
    /// Hosts of the run, each with `nproc` processes.
    pub nnodes: usize,
    /// This host among them, from 0.
    pub node_rank: usize,
    /// Where rank 0 listens, `host:port`; `None` takes a free port of this host at every start (one host only).
    pub rendezvous: Option<String>,
    /// Name that all processes of the run share.
    pub run_id: String,
    /// File with the run's secret, which every process reads by itself.
    pub token: PathBuf,
    /// Restarts without progress before giving up; 0 never restarts.
    pub max_restarts: u32,
    /// How long to wait for what.
    pub patience: Patience,
}

/// How long the supervisor waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// After the first failure, for the others to notice and leave by themselves.
    pub grace: Duration,
    /// Instead, for the last one when all others have left because they lost a peer.
    pub last_one: Duration,
    /// Between SIGTERM and SIGKILL.
    pub terminate: Duration,
    /// After SIGKILL, before a process counts as stuck in the kernel.
    pub kill: Duration,
    /// Before the first restart; doubles with each further one that brings no progress.
    pub first_pause: Duration,
    /// Longest pause before a restart.
    pub longest_pause: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            // A hung peer is named after 10 s without heartbeats, and a stuck survivor leaves 2 s after that.
            grace: Duration::from_secs(20),
            last_one: Duration::from_secs(1),
            terminate: Duration::from_secs(5),
            kill: Duration::from_secs(10),
            first_pause: Duration::from_secs(1),
            longest_pause: Duration::from_secs(30),
        }
    }
}

/// Why processes could not be started or watched.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// What was asked for makes no sense; nothing was started.
    #[error("{what}; {advice}")]
    Usage {
        /// What is wrong, with its value.
        what: String,
        /// What to do.
        advice: &'static str,
    },
    /// The operating system refused something.
    #[error("cannot {action}: {source}; {advice}")]
    System {
        /// What was tried, as an infinitive.
        action: String,
        /// Its answer.
        source: io::Error,
        /// What to do.
        advice: &'static str,
    },
    /// A token that cannot be made.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// A process that even SIGKILL does not end.
    #[error(
        "rank {rank} (pid {pid}) does not end, even after SIGKILL: it is stuck in the kernel, in a driver or on a file \
         system that does not answer; look at its state with `ps -o pid,stat,wchan -p {pid}` and restart the host"
    )]
    Unkillable {
        /// The rank.
        rank: usize,
        /// Its process id.
        pid: u32,
    },
}

impl LaunchError {
    /// For `map_err` on what the operating system refused.
    fn system(action: impl Into<String>, advice: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::System { action: action.into(), source, advice }
    }
}

impl Launch {
    /// Processes of the run on all hosts.
    #[must_use]
    pub fn world(&self) -> usize {
        self.nproc.saturating_mul(self.nnodes)
    }

    /// Checks the numbers against each other.
    ///
    /// # Errors
    /// [`LaunchError::Usage`] names what is wrong.
    pub fn check(&self) -> Result<(), LaunchError> {
        let wrong = |what: String, advice| Err(LaunchError::Usage { what, advice });
        let Self { nproc, nnodes, node_rank, .. } = self;
        if *nproc == 0 || *nproc > MAX_PROCESSES {
            return wrong(
                format!("--nproc {nproc}: a host has 1 to {MAX_PROCESSES} processes"),
                "usually one for each GPU, or 1 on a CPU",
            );
        }
        if *nnodes == 0 || self.world() > crate::cluster::place::MAX_WORLD {
            return wrong(
                format!("--nnodes {nnodes} with --nproc {nproc}: a run has 1 to 65536 processes"),
                "correct the numbers",
            );
        }
        if node_rank >= nnodes {
            return wrong(
                format!("--node-rank {node_rank} contradicts --nnodes {nnodes}"),
                "number the hosts from 0 to one less than their number",
            );
        }
        if *nnodes > 1 && self.rendezvous.is_none() {
            return wrong(
                format!("--nnodes {nnodes} needs --rendezvous"),
                "give every host the same host:port, on the host with --node-rank 0",
            );
        }
        Ok(())
    }
}
