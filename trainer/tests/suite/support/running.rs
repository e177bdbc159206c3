//! Owns a launched run as a test sees it from outside: its lines with their times, its processes; never touches what
//! the lines mean.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use trainer::checkpoint::{Manifest, store};

use super::jazari;

/// Nothing in these tests may take longer; a hang does.
pub const LIMIT: Duration = Duration::from_secs(90);

/// A launched run whose output is read line by line, with the time of each line.
pub struct Running {
    child: Child,
    lines: Receiver<(Instant, String)>,
    pub seen: Vec<(Instant, String)>,
    /// Process ids of the newest start, by local rank.
    pub pids: Vec<i32>,
}

impl Running {
    /// Starts the binary and waits until its processes are started.
    pub fn start(arguments: &[String]) -> Self {
        let mut child = jazari(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (send, lines) = channel();
        read(child.stdout.take().unwrap(), send.clone());
        read(child.stderr.take().unwrap(), send);
        let mut running = Self { child, lines, seen: Vec::new(), pids: Vec::new() };
        running.until(LIMIT, |line| line.contains("started ranks"));
        running
    }

    /// Reads until a line that `wanted` accepts and returns when it came; `None` at the end of the output or after
    /// `limit`.
    pub fn until(&mut self, limit: Duration, wanted: impl Fn(&str) -> bool) -> Option<Instant> {
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

    /// Reads what is there.
    pub fn catch_up(&mut self) {
        self.until(Duration::ZERO, |_| false);
    }

    /// Waits until all processes of this start have ended.
    pub fn over(&mut self) -> Option<Instant> {
        self.until(LIMIT, |line| line.contains("launch: start") && line.contains(" over after"))
    }

    /// Waits for the first step of this start that is done.
    pub fn first_step(&mut self) -> Option<Instant> {
        self.until(LIMIT, |line| line.contains("] step ") && line.contains("  loss "))
    }

    /// Sends a signal to a rank; it may have ended this very moment.
    pub fn signal(&self, rank: usize, signal: Signal) {
        let _ = kill_process(Pid::from_raw(self.pids[rank]).unwrap(), signal);
    }

    /// Sends a signal to the supervisor.
    pub fn signal_supervisor(&self, signal: Signal) {
        let _ = kill_process(Pid::from_child(&self.child), signal);
    }

    /// Everything that was said from line `from` on.
    pub fn said(&self, from: usize) -> String {
        self.seen[from..].iter().map(|(_, line)| format!("{line}\n")).collect()
    }

    pub fn is_over(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Waits for the end and gives the exit code; `None` for a hang.
    pub fn code(&mut self) -> Option<i32> {
        self.until(LIMIT, |_| false);
        let end = Instant::now() + LIMIT;
        while !self.is_over() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(5));
        }
        self.child.try_wait().unwrap().map(|status| status.code().unwrap_or(-1))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read(stream: impl Read + Send + 'static, lines: Sender<(Instant, String)>) {
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            let _ = lines.send((Instant::now(), line));
        }
    });
}

/// Step of the newest checkpoint that is committed.
pub fn newest_step(run: &Path) -> Option<u64> {
    store::list(&run.join("checkpoints")).ok()?.first().map(|(step, _)| *step)
}

/// Step of the newest checkpoint whose every byte is as its manifest says.
pub fn newest_valid_step(run: &Path) -> Option<u64> {
    let checkpoints = store::list(&run.join("checkpoints")).ok()?;
    let valid = |path: &Path| Manifest::read(path).and_then(|manifest| store::verify_files(path, &manifest)).is_ok();
    checkpoints.into_iter().find(|(_, path)| valid(path)).map(|(step, _)| step)
}

/// Whether a save is under way, as the folder shows it.
pub fn is_saving(run: &Path) -> bool {
    let entries = std::fs::read_dir(run.join("checkpoints")).into_iter().flatten().flatten();
    entries.into_iter().any(|entry| entry.file_name().to_string_lossy().ends_with(".tmp"))
}

/// xorshift64: the moments are random but the same in every run of a test.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }

    /// Sleeps for up to so many milliseconds.
    pub fn sleep(&mut self, milliseconds: u64) {
        std::thread::sleep(Duration::from_micros(self.below(milliseconds * 1000)));
    }

    pub fn rank(&mut self, world: usize) -> usize {
        usize::try_from(self.below(world as u64)).unwrap()
    }
}
