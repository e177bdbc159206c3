//! Owns simulated sites and coordinators on one machine, for the tests of outer runs; never touches what they compute.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use crate::support::{jazari, tiny_arguments};

/// Nothing in these tests may take longer; a hang ends them.
pub const LIMIT: Duration = Duration::from_secs(600);
/// The languages that each of two sites does not have.
pub const ARABIC_AND_TIFINAGH: &str = "mixture.weights={ary_Latn: 0, fra_Latn: 0}";
pub const LATIN: &str = "mixture.weights={arb_Arab: 0, ary_Arab: 0, zgh_Tfng: 0}";

/// A process whose standard error is read line by line.
pub struct Process {
    pub child: Child,
    lines: Receiver<String>,
    said: String,
}

impl Process {
    fn start(arguments: &[String], token: &Path) -> Self {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let mut child = jazari(&arguments)
            .env("JAZARI_OUTER_TOKEN_FILE", token)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (send, lines) = channel();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                let _ = send.send(line);
            }
        });
        Self { child, lines, said: String::new() }
    }

    /// Reads until a line that holds `part`, which must come.
    pub fn until(&mut self, part: &str) -> String {
        let end = Instant::now() + LIMIT;
        loop {
            match self.lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    self.said.push_str(&line);
                    self.said.push('\n');
                    if line.contains(part) {
                        return line;
                    }
                }
                Err(RecvTimeoutError::Timeout) => panic!("{part:?} never came:\n{}", self.said),
                Err(RecvTimeoutError::Disconnected) => panic!("it ended before {part:?}:\n{}", self.said),
            }
        }
    }

    /// Waits for the end; returns the exit code and everything that was said.
    pub fn end(mut self) -> (Option<i32>, String) {
        let end = Instant::now() + LIMIT;
        loop {
            match self.lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    self.said.push_str(&line);
                    self.said.push('\n');
                }
                Err(RecvTimeoutError::Timeout) => panic!("it never ended:\n{}", self.said),
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        (self.child.wait().unwrap().code(), std::mem::take(&mut self.said))
    }

    /// Waits for the end and insists on exit code 0.
    pub fn finish(self) -> String {
        let (code, said) = self.end();
        assert_eq!(code, Some(0), "{said}");
        said
    }

    /// SIGKILL.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An outer run: a folder with a token, a coordinator's state and the sites' run directories.
pub struct Outer {
    pub dir: PathBuf,
    pub token: PathBuf,
    address: String,
    serve: Vec<String>,
}

impl Outer {
    /// Starts a coordinator at a free port.
    pub fn start(dir: &Path, serve: &[&str]) -> (Self, Process) {
        fs::create_dir_all(dir).unwrap();
        let token = write_token(&dir.join("token"), "0123456789abcdef0123456789abcdef");
        let serve = serve.iter().map(|option| (*option).to_owned()).collect();
        let mut outer = Self { dir: dir.to_owned(), token, address: "127.0.0.1:0".into(), serve };
        let coordinator = outer.coordinator();
        (outer, coordinator)
    }

    /// Starts the coordinator (again), at the same port.
    pub fn coordinator(&mut self) -> Process {
        let mut arguments: Vec<String> = ["outer", "serve", "--bind", &self.address].map(str::to_owned).into();
        arguments.extend(["--output".to_owned(), self.dir.join("outer").display().to_string()]);
        arguments.extend(self.serve.iter().cloned());
        let mut process = Process::start(&arguments, &self.token);
        let line = process.until("listening at");
        let (_, address) = line.split_once("listening at ").unwrap();
        self.address = address.split(';').next().unwrap().to_owned();
        process
    }

    /// The address that sites are told.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Run directory of a site.
    pub fn run(&self, site: &str) -> PathBuf {
        self.dir.join(site)
    }

    /// Arguments of a site's training.
    pub fn arguments(&self, site: &str, outer: &str, more: &[&str]) -> Vec<String> {
        let outer = format!("outer={{coordinator: \"{}\", site: {site}, {outer}}}", self.address);
        tiny_arguments(&self.run(site), &[&[outer.as_str()], more].concat())
    }

    /// Starts a site.
    pub fn site(&self, site: &str, outer: &str, more: &[&str]) -> Process {
        Process::start(&self.arguments(site, outer, more), &self.token)
    }

    /// Starts a site of several processes.
    pub fn launched_site(&self, processes: usize, site: &str, outer: &str, more: &[&str]) -> Process {
        let mut arguments = ["launch", "--nproc", &processes.to_string(), "--"].map(str::to_owned).to_vec();
        arguments.extend(self.arguments(site, outer, more));
        Process::start(&arguments, &self.token)
    }

    /// The open round and the digest of the coordinator's state; round 0 and nothing before there is one.
    pub fn position(&self) -> (u64, String) {
        let entries = fs::read_dir(self.dir.join("outer")).into_iter().flatten();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let Some(newest) = names.filter(|name| name.starts_with("round-")).max() else { return (0, String::new()) };
        // An older round may be removed while it is read.
        let text = fs::read_to_string(self.dir.join("outer").join(newest).join("ROUND.json")).unwrap_or_default();
        let record: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        let digest = record["state_digest"].as_str().unwrap_or_default().to_owned();
        (record["round"].as_u64().unwrap_or(0), digest)
    }

    /// Waits until `round` is open.
    pub fn wait_for_round(&self, round: u64) {
        let limit = Instant::now() + LIMIT;
        while self.position().0 < round {
            assert!(Instant::now() < limit, "round {round} never began");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// What a site's log says of its rounds.
    pub fn rounds(&self, site: &str) -> Vec<serde_json::Value> {
        let text = fs::read_to_string(self.run(site).join("events.jsonl")).unwrap();
        let events = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        events.filter(|event| event["event"] == "outer_round").collect()
    }
}

/// A token file that only its owner may read.
pub fn write_token(path: &Path, secret: &str) -> PathBuf {
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path).unwrap();
    file.write_all(secret.as_bytes()).unwrap();
    path.to_owned()
}

/// Bits per byte over all languages at the last evaluation of a run.
pub fn final_bpb(run: &Path) -> f64 {
    let text = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let records = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    records.rev().find_map(|record| record["val_bpb_all"].as_f64()).unwrap()
}
