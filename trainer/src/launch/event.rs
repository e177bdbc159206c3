//! Owns what a supervisor reports, as data and in words; never touches the terminal.

use std::fmt;
use std::time::Duration;

use super::ending::Ended;

/// Something the user of `jazari launch` should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// All processes of this host run.
    Started {
        /// Restarts before this start.
        restart: u32,
        /// Ranks of this host, from..to.
        ranks: std::ops::Range<usize>,
        /// Processes of the run on all hosts.
        world: usize,
        /// Where rank 0 listens.
        rendezvous: String,
        /// Process ids, in the order of ranks.
        pids: Vec<u32>,
    },
    /// A process failed; the others are given time to notice and leave.
    Failed {
        /// Which and how.
        ended: Ended,
        /// Processes that still run.
        running: usize,
        /// How long they have.
        grace: Duration,
    },
    /// Processes that did not leave in time are told to, with SIGTERM and then with SIGKILL.
    Ending {
        /// Their ranks.
        ranks: Vec<usize>,
        /// `SIGTERM` or `SIGKILL`.
        signal: &'static str,
    },
    /// The user or the scheduler wants the run to stop.
    Stopping {
        /// Name of the signal that was passed on.
        signal: &'static str,
    },
    /// All processes of this start have ended.
    Over {
        /// Restarts before this start.
        restart: u32,
        /// How long it lasted.
        after: Duration,
        /// How each ended, in the order of time.
        ended: Vec<Ended>,
        /// Step of the newest checkpoint.
        newest_step: Option<u64>,
    },
    /// The run is started again after a pause.
    Restarting {
        /// Number of the restart.
        restart: u32,
        /// Restarts since the newest checkpoint last grew, this one included.
        without_progress: u32,
        /// Most of these.
        max_restarts: u32,
        /// Until the start.
        pause: Duration,
    },
    /// The run is not started again.
    GaveUp {
        /// Why.
        why: String,
    },
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Started { restart, ranks, world, rendezvous, pids } => {
                let start = if *restart == 0 { "started".into() } else { format!("restart {restart}: started") };
                let pids = list(pids);
                let last = ranks.end.saturating_sub(1);
                write!(f, "{start} ranks {}..{last} of {world}, rank 0 at {rendezvous}, pids {pids}", ranks.start)
            }
            Self::Failed { ended, running: 0, .. } => write!(f, "{ended}"),
            Self::Failed { ended, running, grace } => {
                write!(f, "{ended}; the other {running} have {} s to leave by themselves", grace.as_secs_f32())
            }
            Self::Ending { ranks, signal } => write!(f, "{signal} to rank {}", list(ranks)),
            Self::Stopping { signal } => write!(
                f,
                "{signal} passed on: the processes finish their step, save and leave; a second one ends them at once"
            ),
            Self::Over { restart, after, ended, newest_step } => over(f, *restart, *after, ended, *newest_step),
            Self::Restarting { restart, without_progress, max_restarts, pause } => write!(
                f,
                "restart {restart} in {} s ({without_progress} of {max_restarts} without progress)",
                pause.as_secs_f32()
            ),
            Self::GaveUp { why } => write!(f, "not restarted: {why}"),
        }
    }
}

fn list<T: fmt::Display>(values: &[T]) -> String {
    values.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// One line for a start: who ended first with what, then the rest.
fn over(
    f: &mut fmt::Formatter<'_>,
    restart: u32,
    after: Duration,
    ended: &[Ended],
    newest_step: Option<u64>,
) -> fmt::Result {
    write!(f, "start {restart} over after {:.1} s: ", after.as_secs_f64())?;
    if ended.iter().all(|e| e.ending.is_done()) {
        write!(f, "all ranks left with code 0")?;
    } else {
        let told = |e: &Ended| if e.told { " when told to" } else { "" };
        let each: Vec<_> = ended.iter().map(|e| format!("{e}{}", told(e))).collect();
        write!(f, "{}", each.join(", then "))?;
    }
    match newest_step {
        Some(step) => write!(f, "; newest checkpoint: step {step}"),
        None => write!(f, "; no checkpoint yet"),
    }
}
