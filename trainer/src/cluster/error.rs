//! Owns what can go wrong between processes and who is to blame for it; never touches sockets.

use std::fmt;

/// Why the processes of a run cannot go on together.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ClusterError {
    /// A peer is gone, hangs or disagrees: all survivors end with the same verdict and exit code 75.
    #[error("{0}")]
    Lost(Verdict),
    /// The processes do not belong together, or a mistake in the set-up: exit code 2, nothing was started.
    #[error("{what}; {advice}")]
    Refused {
        /// What was found, with both values where two differ.
        what: String,
        /// What to do.
        advice: String,
    },
    /// Others did not come or could not be reached in time: exit code 75, as they may be there at the next attempt.
    #[error("{what}; {advice}")]
    Absent {
        /// Who, where and for how long.
        what: String,
        /// What to do.
        advice: String,
    },
    /// A process was told to stop before all had come: exit code 0, nothing was started and nothing written.
    #[error("{0}; nothing was started and nothing written: run the same command again to go on")]
    Stopped(String),
    /// This process itself failed (a socket, a thread, a file).
    #[error("{what}: {cause}; {advice}")]
    Local {
        /// What was tried.
        what: String,
        /// The operating system's answer.
        cause: String,
        /// What to do.
        advice: String,
    },
}

/// Who is to blame, for what, and when: the same words on every rank.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Verdict {
    /// The rank that is lost.
    pub rank: usize,
    /// Its host.
    pub host: String,
    /// Its process id.
    pub pid: u32,
    /// What it did.
    pub cause: Cause,
    /// Optimizer steps done when it happened, as far as the coordinator knew.
    pub step: u64,
    /// What the others were doing: the collective they waited in, or the phase.
    pub during: String,
    /// Anything else worth reading: socket errors, both sides of a disagreement, the last collectives of each rank.
    pub detail: String,
}

/// What a lost rank did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// Its connections closed without a farewell: it was killed or crashed.
    Died,
    /// It sends no heartbeats although its connections stand: it is stopped, swapped out or cut off.
    Silent,
    /// It sends heartbeats, but does not arrive where the others wait.
    Stuck,
    /// It reached another collective, or holds other bits than the others.
    Disagrees,
    /// It failed by itself and said so before it left.
    Failed,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rank, host, pid, step, during, detail, .. } = self;
        let did = match self.cause {
            Cause::Died => "died",
            Cause::Silent => "sends no heartbeats (stopped, swapped out or cut off from the network)",
            Cause::Stuck => "is alive but does not arrive where the others wait",
            Cause::Disagrees => "disagrees with the others",
            Cause::Failed => "failed",
        };
        write!(f, "rank {rank} (host {host}, pid {pid}) {did} at step {step}, during {during}")?;
        if !detail.is_empty() {
            write!(f, ": {detail}")?;
        }
        write!(f, "; this run ends with code 75: restart it to go on from the newest checkpoint")
    }
}
