//! Owns the collectives' check: starting the processes, reading what they say, judging it; never touches sockets.

use std::ffi::OsString;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use signal_hook::consts::SIGTERM;

use super::Setup;
use super::rank::{Line, RANK_COMMAND, SIZES, Sum};
use super::table::{Finding, Outcome};
use crate::launch::{self, Event, Launch, LineSink, Patience, PrivateToken, StopBell, Stream, Supervisor};
use crate::signals::StopFlag;

/// No machine that is worth training on needs this long for all checks together.
const LIMIT: Duration = Duration::from_secs(90);
/// Between the wish to end and the order.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// How often the wish to stop is looked at.
const LOOK: Duration = Duration::from_millis(50);
/// Lines of standard error that explain a failure.
const TOLD_LINES: usize = 3;

/// What the processes said.
#[derive(Debug, Default)]
pub(super) struct Report {
    processes: usize,
    /// From the start to the end of the processes.
    seconds: f64,
    /// With the rank of each.
    lines: Vec<(usize, Line)>,
}

/// Runs the processes to their end.
pub(super) fn run(setup: &Setup) -> Result<Report, String> {
    let said = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&said);
    let sink: LineSink = Arc::new(move |stream, line: &str| {
        kept.lock().unwrap_or_else(PoisonError::into_inner).push((stream, line.to_owned()));
    });
    let token = PrivateToken::create(&setup.folder).map_err(|error| error.to_string())?;
    let launch = Launch {
        program: setup.program.clone(),
        arguments: vec![OsString::from(RANK_COMMAND)],
        environment: vec![("JAZARI_BIND".into(), OsString::new())],
        nproc: setup.processes,
        nnodes: 1,
        node_rank: 0,
        rendezvous: None,
        run_id: launch::random_name().map_err(|error| error.to_string())?,
        token: token.path().to_owned(),
        max_restarts: 0,
        patience: Patience::default(),
    };
    let supervisor = Supervisor::new(launch, sink);
    let (bell, stop, begin) = (supervisor.bell(), setup.stop.clone(), Instant::now());
    let (over, is_over) = channel::<()>();
    let watch = move || {
        let mut rung = None;
        while matches!(is_over.recv_timeout(LOOK), Err(RecvTimeoutError::Timeout)) {
            ring_when_late(&bell, &stop, begin, &mut rung);
        }
    };
    let watcher = thread::Builder::new().name("selftest-limit".into()).spawn(watch);
    watcher.map_err(|error| format!("cannot start a thread: {error}; check the limits on processes"))?;
    let mut failed = None;
    let mut observe = |event: &Event| {
        if let Event::Failed { ended, .. } = event {
            failed.get_or_insert(ended.to_string());
        }
    };
    let code = supervisor.run(&|| None, &mut observe).map_err(|error| error.to_string());
    drop(over);
    let said = said.lock().unwrap_or_else(PoisonError::into_inner);
    let processes = setup.processes;
    match code? {
        // Processes that were told to end may well do so in good order.
        _ if begin.elapsed() > LIMIT => Err(format!("not done after {} s{}", LIMIT.as_secs(), last_errors(&said))),
        0 => Ok(Report { processes, seconds: begin.elapsed().as_secs_f64(), lines: lines(&said) }),
        code => {
            let first = failed.unwrap_or_else(|| format!("the processes ended with code {code}"));
            Err(format!("{first}{}", last_errors(&said)))
        }
    }
}

/// Asks the processes to end when the user wants that or the time is over, and a little later makes them.
fn ring_when_late(bell: &StopBell, stop: &StopFlag, begin: Instant, rung: &mut Option<Instant>) {
    match rung {
        None if stop.is_set() || begin.elapsed() > LIMIT => {
            bell.ring(SIGTERM);
            *rung = Some(Instant::now());
        }
        Some(at) if at.elapsed() > LAST_WORDS => bell.ring(SIGTERM),
        _ => {}
    }
}

/// What stands on standard output behind the prefix `[rank] ` of the supervisor.
fn lines(said: &[(Stream, String)]) -> Vec<(usize, Line)> {
    let parse = |line: &str| -> Option<(usize, Line)> {
        let (rank, json) = line.strip_prefix('[')?.split_once("] ")?;
        Some((rank.parse().ok()?, serde_json::from_str(json).ok()?))
    };
    said.iter().filter(|(stream, _)| *stream == Stream::Output).filter_map(|(_, line)| parse(line)).collect()
}

/// What was said last on standard error.
fn last_errors(said: &[(Stream, String)]) -> String {
    let errors: Vec<_> = said.iter().filter(|(s, _)| *s == Stream::Error).map(|(_, line)| line.as_str()).collect();
    let last = errors.get(errors.len().saturating_sub(TOLD_LINES)..).unwrap_or_default();
    if last.is_empty() { String::new() } else { format!(": {}", last.join(" | ")) }
}

impl Report {
    /// Whether every process found every check to hold.
    pub(super) fn correctness(&self) -> Outcome {
        let mut counts = vec![0_usize; self.processes];
        for (rank, line) in &self.lines {
            let Line::Check { name, passed, detail } = line else { continue };
            if !passed {
                return Err(format!("{name}: rank {rank} found: {detail}; sums of this machine cannot be trusted"));
            }
            if let Some(count) = counts.get_mut(*rank) {
                *count += 1;
            }
        }
        let checks = counts.iter().copied().min().unwrap_or(0);
        if checks == 0 || counts.iter().any(|count| *count != checks) {
            return Err(format!("the processes reported {counts:?} checks; this is a defect, please report it"));
        }
        let result = format!("{checks} checks of the sums' bits, messages and order hold on every process");
        let others = self.seconds - self.seconds_of(Sum::Exact) - self.seconds_of(Sum::Fast);
        Ok(Finding::ok(result).with("processes", self.processes as f64, "").lasting(others))
    }

    /// Bytes of the vector by the seconds of the slowest process.
    pub(super) fn speed(&self, wanted: Sum) -> Outcome {
        const NAMES: [&str; SIZES.len()] = ["1 MiB", "16 MiB", "64 MiB"];
        let mut finding = Finding::ok("time until the sum of a vector is on every process, over TCP on this host");
        for ((size, _), name) in SIZES.into_iter().zip(NAMES) {
            let times: Vec<_> = self.times(wanted, size).collect();
            if let Some((rank, ..)) = times.iter().find(|(_, _, right)| !right) {
                return Err(format!("a sum of {name} is wrong on rank {rank}; sums of this machine cannot be trusted"));
            }
            if times.len() != self.processes {
                return Err(format!("{} of {} processes timed {name}", times.len(), self.processes));
            }
            let slowest = times.iter().map(|(_, seconds, _)| *seconds).fold(0.0, f64::max);
            finding = finding.with(name, (size << 20) as f64 / slowest / 1e9, "GB/s");
        }
        Ok(finding.lasting(self.seconds_of(wanted)))
    }

    /// Rank, median seconds and whether the sums were right, for one order and size.
    fn times(&self, wanted: Sum, size: u64) -> impl Iterator<Item = (usize, f64, bool)> + '_ {
        self.lines.iter().filter_map(move |(rank, line)| match line {
            Line::Time { sum, mebibytes, seconds, right } if *sum == wanted && *mebibytes == size => {
                Some((*rank, *seconds, *right))
            }
            _ => None,
        })
    }

    /// About how long the timed sums took together.
    fn seconds_of(&self, sum: Sum) -> f64 {
        let slowest = |size| self.times(sum, size).map(|(_, seconds, _)| seconds).fold(0.0, f64::max);
        SIZES.into_iter().map(|(size, repeats)| slowest(size) * repeats as f64).sum()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn time(sum: Sum, mebibytes: u64, seconds: f64, right: bool) -> Line {
        Line::Time { sum, mebibytes, seconds, right }
    }

    fn report(lines: Vec<(usize, Line)>) -> Report {
        Report { processes: 2, seconds: 1.0, lines }
    }

    fn check(passed: bool) -> Line {
        Line::Check { name: "barrier".into(), passed, detail: "late".into() }
    }

    #[test]
    fn lines_of_ranks_are_told_from_noise() {
        let json = serde_json::to_string(&check(true)).unwrap();
        let said = [
            (Stream::Output, format!("[1] {json}")),
            (Stream::Error, format!("[0] {json}")),
            (Stream::Output, "[0] hello".to_owned()),
            (Stream::Output, "hello".to_owned()),
        ];
        assert_eq!(lines(&said), [(1, check(true))]);
        assert_eq!(last_errors(&said), format!(": [0] {json}"));
    }

    #[test]
    fn every_rank_must_pass_every_check() {
        assert!(report(vec![(0, check(true)), (1, check(true))]).correctness().is_ok());
        let failed = report(vec![(0, check(true)), (1, check(false))]).correctness().unwrap_err();
        assert!(failed.starts_with("barrier: rank 1 found: late"), "{failed}");
        assert!(report(vec![(0, check(true))]).correctness().is_err());
        assert!(report(Vec::new()).correctness().is_err());
    }

    #[test]
    fn the_slowest_rank_counts_and_wrong_sums_are_misses() {
        let all = |wrong: bool| {
            let of = |(size, _): (u64, usize)| {
                let sums = [(Sum::Exact, 9.0), (Sum::Fast, 0.001)];
                sums.into_iter().flat_map(move |(sum, fast)| {
                    [(0, time(sum, size, fast / 2.0, true)), (1, time(sum, size, fast, !wrong || size != 16))]
                })
            };
            report(SIZES.into_iter().flat_map(of).collect())
        };
        let finding = format!("{:?}", all(false).speed(Sum::Fast).unwrap());
        assert!(finding.contains("1.048576") && finding.contains("67.108864"), "{finding}");
        assert!(all(true).speed(Sum::Exact).unwrap_err().contains("16 MiB is wrong on rank 1"));
        assert!(report(Vec::new()).speed(Sum::Fast).is_err());
    }
}
