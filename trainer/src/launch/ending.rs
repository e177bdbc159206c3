//! Owns how processes end and what follows from it: restart or not, the final exit code; never touches processes.

use std::fmt;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

/// Exit codes that mean something to the supervisor; the same as `jazari` itself gives.
pub(super) mod code {
    pub const DONE: i32 = 0;
    pub const FAILED: i32 = 1;
    pub const USAGE: i32 = 2;
    pub const MISSED: i32 = 3;
    pub const LOST: i32 = 75;
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// It left with this code.
    Left(i32),
    /// This signal ended it.
    Killed(i32),
}

/// What an ending means for the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Meaning {
    Done,
    /// A peer was lost, or this process was killed: the same start may well succeed.
    Lost,
    /// It failed by itself: the same error would come back.
    Failed,
    Missed,
    Usage,
}

impl Ending {
    /// Reads what the operating system reports.
    #[must_use]
    pub fn of(status: ExitStatus) -> Self {
        status.code().map_or_else(|| Self::Killed(status.signal().unwrap_or(0)), Self::Left)
    }

    /// Whether it is no failure.
    #[must_use]
    pub fn is_done(self) -> bool {
        self == Self::Left(code::DONE)
    }

    fn meaning(self) -> Meaning {
        match self {
            Self::Left(code::DONE) => Meaning::Done,
            Self::Left(code::USAGE) => Meaning::Usage,
            Self::Left(code::MISSED) => Meaning::Missed,
            // A shell in between reports a signal as 128 + its number.
            Self::Left(code::LOST | 129..=192) | Self::Killed(_) => Meaning::Lost,
            Self::Left(_) => Meaning::Failed,
        }
    }
}

impl Meaning {
    fn code(self) -> i32 {
        match self {
            Self::Done => code::DONE,
            Self::Lost => code::LOST,
            Self::Failed => code::FAILED,
            Self::Missed => code::MISSED,
            Self::Usage => code::USAGE,
        }
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Left(code::LOST) => write!(f, "left with code 75 (a peer was lost)"),
            Self::Left(code) => write!(f, "left with code {code}"),
            Self::Killed(signal) => match signal_hook::low_level::signal_name(*signal) {
                Some(name) => write!(f, "was killed by {name}"),
                None => write!(f, "was killed by signal {signal}"),
            },
        }
    }
}

/// A process that ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Its rank.
    pub rank: usize,
    /// Its process id.
    pub pid: u32,
    /// How.
    pub ending: Ending,
    /// Since the start.
    pub after: Duration,
    /// Whether the supervisor had already told it to end, so that its ending explains nothing.
    pub told: bool,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rank {} (pid {}) {}", self.rank, self.pid, self.ending)
    }
}

fn failures(ended: &[Ended]) -> impl Iterator<Item = &Ended> {
    ended.iter().filter(|e| !e.told && !e.ending.is_done())
}

/// The failure that came first, if there was one.
pub(super) fn first_failure(ended: &[Ended]) -> Option<&Ended> {
    failures(ended).next()
}

/// Whether starting again can help, or why not. `ended` is in the order of time.
pub(super) fn restart_helps(ended: &[Ended]) -> Result<(), String> {
    let deterministic = |e: &&Ended| matches!(e.ending.meaning(), Meaning::Usage | Meaning::Missed);
    if let Some(ended) = failures(ended).find(deterministic) {
        return Err(format!("{ended}, which a restart would repeat"));
    }
    match first_failure(ended) {
        // Survivors leave with 75 because of the first one: what it did decides.
        Some(first) if first.ending.meaning() == Meaning::Failed => {
            Err(format!("{first} first, which a restart would most likely repeat"))
        }
        Some(_) => Ok(()),
        None => Err("nothing failed".into()),
    }
}

/// The exit code that tells most: 2, 3, 1, 75, 0 in this order.
pub(super) fn most_telling(ended: &[Ended]) -> i32 {
    failures(ended).map(|e| e.ending.meaning()).max().unwrap_or(Meaning::Done).code()
}

/// The exit code of the first failure, 0 when there is none.
pub(super) fn first_code(ended: &[Ended]) -> i32 {
    first_failure(ended).map_or(code::DONE, |e| e.ending.meaning().code())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(endings: &[Ending]) -> Vec<Ended> {
        let one = |(rank, ending): (usize, &Ending)| Ended {
            rank,
            pid: 100 + rank as u32,
            ending: *ending,
            after: Duration::ZERO,
            told: false,
        };
        endings.iter().enumerate().map(one).collect()
    }

    #[test]
    fn only_lost_and_killed_processes_are_worth_a_restart() {
        use Ending::{Killed, Left};
        let check = |endings: &[Ending], helps: bool| {
            assert_eq!(restart_helps(&ended(endings)).is_ok(), helps, "{endings:?}");
        };
        check(&[Left(75)], true);
        check(&[Killed(9), Left(75)], true);
        check(&[Left(0), Killed(11)], true);
        check(&[Left(137), Left(75)], true);
        check(&[Left(75), Left(1)], true);
        check(&[Left(1), Left(75)], false);
        check(&[Left(101), Left(75)], false);
        check(&[Left(75), Left(2)], false);
        check(&[Left(0), Left(3)], false);
        check(&[Left(0), Left(0)], false);
    }

    #[test]
    fn the_final_code_is_the_most_telling_one() {
        use Ending::{Killed, Left};
        let check = |endings: &[Ending], most: i32, first: i32| {
            let ended = ended(endings);
            assert_eq!((most_telling(&ended), first_code(&ended)), (most, first), "{endings:?}");
        };
        check(&[Left(0), Left(0)], 0, 0);
        check(&[Killed(9), Left(75)], 75, 75);
        check(&[Left(75), Left(1)], 1, 75);
        check(&[Left(1), Left(3), Left(75)], 3, 1);
        check(&[Left(3), Left(2)], 2, 3);
        check(&[Left(0), Left(17)], 1, 1);
    }

    #[test]
    fn who_was_told_to_end_explains_nothing() {
        let mut all = ended(&[Ending::Killed(9), Ending::Left(2)]);
        all.iter_mut().for_each(|e| e.told = true);
        assert_eq!((most_telling(&all), first_code(&all)), (0, 0));
        assert!(first_failure(&all).is_none() && restart_helps(&all).is_err());
    }

    #[test]
    fn endings_read_as_sentences() {
        let all = ended(&[Ending::Killed(9), Ending::Left(75), Ending::Killed(77)]);
        let lines: Vec<String> = all.iter().map(ToString::to_string).collect();
        assert_eq!(lines[0], "rank 0 (pid 100) was killed by SIGKILL");
        assert_eq!(lines[1], "rank 1 (pid 101) left with code 75 (a peer was lost)");
        assert_eq!(lines[2], "rank 2 (pid 102) was killed by signal 77");
    }
}
