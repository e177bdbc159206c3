//! Promise: a rank that dies or hangs is named by all others, the run goes on from its newest checkpoint, and ends with
//! the bits of an undisturbed one; a stop is agreed on by all ranks and saved.
//!
//! `JAZARI_CLUSTER_FAULTS=200` sets the number of SIGKILLs (a quarter as many SIGSTOPs, half as many SIGTERMs).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)]

mod support;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use support::{final_digest, jazari, launch_arguments, train_tiny};

const PROCESSES: usize = 4;
const PEER_TIMEOUT: &str = "cluster.peer_timeout=2";
const SETTINGS: [&str; 6] =
    ["save_steps=4", "logging_steps=20", "eval_steps=40", "max_steps=120", "cluster.digest_steps=40", PEER_TIMEOUT];
/// Nothing in these tests may take longer; a hang ends them.
const LIMIT: Duration = Duration::from_secs(90);

fn faults() -> usize {
    std::env::var("JAZARI_CLUSTER_FAULTS").ok().and_then(|n| n.parse().ok()).unwrap_or(8)
}

/// A launched run whose output is read line by line, with the time of each line.
struct Running {
    child: Child,
    lines: Receiver<(Instant, String)>,
    seen: Vec<(Instant, String)>,
    pids: Vec<i32>,
}

impl Running {
    fn start(run: &Path) -> Self {
        let arguments = launch_arguments(PROCESSES, &["--max-restarts", "50", "--grace", "6"], run, &SETTINGS);
        let mut child = jazari(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (send, lines) = channel();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                let _ = send.send((Instant::now(), line));
            }
        });
        let mut running = Self { child, lines, seen: Vec::new(), pids: Vec::new() };
        running.until(LIMIT, |line| line.contains("started ranks"));
        running
    }

    /// Reads until a line that `wanted` accepts and returns when it came; `None` at the end of the output or after
    /// `limit`.
    fn until(&mut self, limit: Duration, wanted: impl Fn(&str) -> bool) -> Option<Instant> {
        let end = Instant::now() + limit;
        loop {
            match self.lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok((at, line)) => {
                    if let Some((_, pids)) = line.split_once(", pids ") {
                        self.pids = pids.split(", ").map(|pid| pid.trim().parse().unwrap()).collect();
                    }
                    let found = wanted(&line);
                    self.seen.push((at, line));
                    if found {
                        return Some(at);
                    }
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return None,
            }
        }
    }

    fn signal(&self, rank: usize, signal: Signal) {
        kill_process(Pid::from_raw(self.pids[rank]).unwrap(), signal).unwrap();
    }

    /// Everything that was said from line `from` on.
    fn said(&self, from: usize) -> String {
        self.seen[from..].iter().map(|(_, line)| format!("{line}\n")).collect()
    }

    fn is_over(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Waits for the end and insists on exit code 0.
    fn finish(mut self) {
        self.until(LIMIT, |_| false);
        assert_eq!(self.child.wait().unwrap().code(), Some(0), "{}", self.said(0));
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// xorshift64: the moments are random but the same in every run of this test.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// Seconds of each fault until it was named by anybody, and until training went on.
#[derive(Default)]
struct Times {
    named: Vec<f64>,
    resumed: Vec<f64>,
    by_survivors: usize,
}

impl Times {
    fn print(&mut self, name: &str, runs: usize) {
        let faults = self.named.len();
        let mut line = format!("{name}: {faults} faults over {runs} runs, {} named by survivors", self.by_survivors);
        for (what, times) in [("named after", &mut self.named), ("training again after", &mut self.resumed)] {
            times.sort_by(f64::total_cmp);
            let at =
                |part: f64| times.get((times.len() as f64 * part) as usize).or(times.last()).copied().unwrap_or(0.0);
            line += &format!("; {what} {:.2} s (p50), {:.2} s (p99), {:.2} s (max)", at(0.5), at(0.99), at(1.0));
        }
        eprintln!("{line}; 0 wrong names, 0 hangs, 0 lost checkpoints, same bits");
    }
}

/// Does `fault` to a random rank at a random moment, again and again over as many runs as it takes, and insists that
/// nobody blames another rank and that every run ends with the bits of an undisturbed one.
fn disturb(name: &str, count: usize, fault: Signal, blame: &str) {
    let dir = tempfile::tempdir().unwrap();
    let whole = dir.path().join("whole");
    train_tiny(&whole, &SETTINGS);
    let expected = final_digest(&whole);
    let run = |number: usize| -> PathBuf { dir.path().join(format!("{name}-{number}")) };
    let (mut random, mut number, mut times) = (Random(0x5bd1_e995_9e37_79b9), 0, Times::default());
    let mut running = Running::start(&run(0));
    while times.named.len() < count {
        std::thread::sleep(Duration::from_micros(100_000 + random.below(3_000_000)));
        running.until(Duration::ZERO, |_| false);
        if running.is_over() {
            running.finish();
            assert_eq!(final_digest(&run(number)), expected, "after {} faults", times.named.len());
            number += 1;
            running = Running::start(&run(number));
            continue;
        }
        let rank = usize::try_from(random.below(PROCESSES as u64)).unwrap();
        let (from, at) = (running.seen.len(), Instant::now());
        let pid = format!("pid {}) ", running.pids[rank]);
        running.signal(rank, fault);
        let over = running.until(LIMIT, |line| line.contains("launch: start") && line.contains(" over after"));
        let said = running.said(from);
        assert!(over.is_some(), "{name} of rank {rank}: no end\n{said}");
        if running.seen.last().unwrap().1.contains("all ranks left with code 0") {
            // The fault came when everything was done.
            continue;
        }
        for line in said.lines().filter(|line| line.contains("] error: rank ")) {
            assert!(line.contains(&pid), "{name} of rank {rank}, {pid}: {line}");
        }
        let naming = |line: &str| line.contains(&pid) && (line.contains(blame) || line.contains("was killed by"));
        let named = running.seen[from..].iter().find(|(_, line)| naming(line)).map(|(at, _)| *at);
        let named = named.unwrap_or_else(|| panic!("{name} of rank {rank}, {pid}: nobody names it\n{said}"));
        times.named.push((named - at).as_secs_f64());
        times.by_survivors += usize::from(said.lines().any(|l| l.contains("] error: rank ") && l.contains(blame)));
        let resumed = running.until(LIMIT, |line| line.contains("] training ")).expect("it never started again");
        times.resumed.push((resumed - at).as_secs_f64());
    }
    running.finish();
    assert_eq!(final_digest(&run(number)), expected);
    times.print(name, number + 1);
}

#[test]
fn killed_ranks_are_named_and_the_run_ends_with_the_same_bits() {
    disturb("SIGKILL", faults(), Signal::KILL, " died ");
}

#[test]
fn stopped_ranks_are_named_and_the_run_ends_with_the_same_bits() {
    disturb("SIGSTOP", faults().div_ceil(4), Signal::STOP, " sends no heartbeats ");
}

#[test]
fn a_stop_is_agreed_on_and_saved() {
    let dir = tempfile::tempdir().unwrap();
    let whole = dir.path().join("whole");
    train_tiny(&whole, &SETTINGS);
    let expected = final_digest(&whole);
    let (mut random, mut number, mut stops) = (Random(0x2545_f491_4f6c_dd1d), 0, 0);
    while stops < faults().div_ceil(2) {
        let run = dir.path().join(format!("run-{number}"));
        let mut running = Running::start(&run);
        std::thread::sleep(Duration::from_micros(random.below(1_500_000)));
        let rank = usize::try_from(random.below(PROCESSES as u64)).unwrap();
        if !running.is_over() {
            running.signal(rank, Signal::TERM);
            stops += 1;
        }
        running.finish();
        // A run that was stopped goes on; one that was done starts anew.
        let newest = trainer::checkpoint::store::list(&run.join("checkpoints")).ok().and_then(|l| Some(l.first()?.0));
        if newest == Some(120) {
            assert_eq!(final_digest(&run), expected, "after {stops} stops");
            number += 1;
        }
    }
}
