//! Promise: a rank that dies, hangs, is cut off or holds other bits is named by all others, the run goes on from its
//! newest checkpoint, and ends with the bits of an undisturbed one; a stop is agreed on by all ranks and saved.
//!
//! `JAZARI_CLUSTER_FAULTS=200` sets the number of SIGKILLs; a quarter as many SIGSTOPs, half as many SIGTERMs, an eighth
//! as many cuts. `scripts/faults.sh` makes a table of it.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::support::proxy::{Blow, Network, Weather};
use crate::support::running::{LIMIT, Random, Running, is_saving, newest_step, newest_valid_step};
use crate::support::table::{Row, faults};
use crate::support::{final_digest, jazari, launch_arguments, text, tiny_arguments, train_tiny};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};

const PROCESSES: usize = 4;

/// Whether there are so many faults that longer runs save time.
fn is_long() -> bool {
    faults() > 40
}

fn steps() -> u64 {
    if is_long() { 240 } else { 80 }
}

fn settings() -> [&'static str; 8] {
    [
        if is_long() { "max_steps=240" } else { "max_steps=80" },
        "save_steps=4",
        "logging_steps=1",
        "eval_steps=5",
        "eval.max_tokens_per_language=2048",
        "cluster.digest_steps=40",
        "cluster.peer_timeout=2",
        "cluster.join_timeout=10",
    ]
}

fn arguments(run: &Path) -> Vec<String> {
    launch_arguments(PROCESSES, &["--max-restarts", "50", "--grace", "3"], run, &settings())
}

/// When a fault comes.
#[derive(Clone, Copy, PartialEq)]
enum Moment {
    /// While the processes find each other.
    StartUp,
    /// While a checkpoint is being written.
    Saving,
    /// At any time after the first step.
    Working,
}

/// One kind of fault, again and again over as many runs as it takes.
struct Campaign {
    name: &'static str,
    signal: Signal,
    folder: tempfile::TempDir,
    expected: String,
    number: usize,
    running: Running,
    random: Random,
    /// By what the rank was doing.
    rows: BTreeMap<&'static str, Row>,
    /// What the rank of the newest fault was doing, until training goes on.
    pending: Option<&'static str>,
    same_bits: bool,
    by_survivors: usize,
}

impl Campaign {
    fn new(name: &'static str, signal: Signal) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let whole = folder.path().join("whole");
        train_tiny(&whole, &settings());
        Self {
            name,
            signal,
            expected: final_digest(&whole),
            running: Running::start(&arguments(&folder.path().join("0"))),
            folder,
            number: 0,
            random: Random(0x5bd1_e995_9e37_79b9),
            rows: BTreeMap::new(),
            pending: None,
            same_bits: true,
            by_survivors: 0,
        }
    }

    fn run(&self) -> PathBuf {
        self.folder.path().join(self.number.to_string())
    }

    fn row(&mut self, phase: &'static str) -> &mut Row {
        self.rows.entry(phase).or_insert_with(|| Row { lost: Some(Vec::new()), ..Row::default() })
    }

    fn count(&self) -> usize {
        self.rows.values().map(|row| row.count).sum()
    }

    /// Looks at how this run ended and begins another one.
    fn next_run(&mut self) {
        self.check_end();
        self.pending = None;
        self.number += 1;
        self.running = Running::start(&arguments(&self.run()));
    }

    fn check_end(&mut self) {
        match self.running.code() {
            None => {
                let said = self.running.said(0);
                self.row("hung").hangs.push(said);
            }
            Some(code) => assert_eq!(code, 0, "{}", self.running.said(0)),
        }
        self.same_bits &= final_digest(&self.run()) == self.expected;
    }

    /// Waits for the moment; false when the run was over before it came.
    fn await_moment(&mut self, moment: Moment) -> bool {
        let is_started = |line: &str| line.contains("started ranks");
        let started = match self.running.seen.last().filter(|(_, line)| is_started(line)) {
            Some((at, _)) => Some(*at),
            None => self.running.until(LIMIT, is_started),
        };
        let Some(started) = started else { return false };
        if moment == Moment::StartUp {
            self.random.sleep(700);
            self.running.catch_up();
            return !self.running.is_over();
        }
        let Some(went_on) = self.running.first_step() else { return false };
        if let Some(phase) = self.pending.take() {
            self.row(phase).resumed.push((went_on - started).as_secs_f64());
        }
        self.random.sleep(900);
        if moment == Moment::Saving {
            let end = Instant::now() + Duration::from_secs(5);
            while !is_saving(&self.run()) && !self.running.is_over() && Instant::now() < end {
                std::thread::sleep(Duration::from_micros(200));
            }
            self.random.sleep(4);
        }
        !self.running.is_over()
    }

    /// Does the fault to a random rank and looks at what everybody made of it.
    fn strike(&mut self) {
        let rank = self.random.rank(PROCESSES);
        let before = newest_step(&self.run());
        let is_saving = is_saving(&self.run());
        self.running.catch_up();
        let from = self.running.seen.len();
        // A line of this start that only comes after the processes have met.
        let has_met = self.running.seen.iter().rev().take_while(|(_, line)| !line.contains("started ranks"));
        let has_met = has_met.into_iter().any(|(_, line)| line.contains("] training "));
        let (at, pid) = (Instant::now(), self.running.pids[rank]);
        self.running.signal(rank, self.signal);
        let over = self.running.over();
        let said = self.running.said(from);
        if self.running.seen.last().is_some_and(|(_, line)| line.contains("all ranks left with code 0")) {
            // It came when everything was done.
            return;
        }
        let phase = match has_met {
            false => "start-up",
            true if is_saving => "save",
            true => phase_of(&said, rank),
        };
        self.pending = Some(phase);
        let now = newest_valid_step(&self.run());
        let context = format!("{} of rank {rank} (pid {pid}) in {phase}:\n{said}", self.name);
        let (named, by_survivors, wrong) = names(&self.running.seen[from..], rank, pid);
        self.by_survivors += usize::from(by_survivors);
        let row = self.row(phase);
        row.count += 1;
        match named {
            Some(named) => row.named.push((named - at).as_secs_f64()),
            None => row.wrong.push(format!("nobody named it: {context}")),
        }
        row.wrong.extend(wrong.map(|line| format!("{line}\n{context}")));
        if now < before {
            row.lost.get_or_insert_default().push(format!("{before:?} was there, {now:?} is valid: {context}"));
        }
        if over.is_none() {
            row.hangs.push(context);
            self.number += 1;
            self.running = Running::start(&arguments(&self.run()));
        }
    }

    /// Does so many faults, one in `every` at start-up and one during a save.
    fn go(mut self, count: usize, every: usize) {
        let mut tried = 0;
        while self.count() < count {
            let moment = match tried % every {
                0 => Moment::StartUp,
                n if n == every / 2 => Moment::Saving,
                _ => Moment::Working,
            };
            tried += 1;
            if self.await_moment(moment) { self.strike() } else { self.next_run() }
        }
        self.check_end();
        let mut total = Row { same_bits: Some(self.same_bits), lost: Some(Vec::new()), ..Row::default() };
        for (phase, row) in &self.rows {
            row.print(&format!("{}: {phase}", self.name));
            total.add(row);
        }
        let (runs, survivors) = (self.number + 1, self.by_survivors);
        total.finish(&format!("{}: all, in {runs} runs, {survivors} named by other ranks", self.name));
    }
}

/// What the rank was doing, as the verdict tells: its own newest heartbeat, or, for rank 0, what the others were doing.
fn phase_of(said: &str, rank: usize) -> &'static str {
    let last_seen = said.split_once(&format!("rank {rank} was last seen at step ")).map(|(_, rest)| rest);
    let last_seen = last_seen.and_then(|rest| rest.split_once(" in ")).map(|(_, place)| place);
    let during = said.split_once(", during ").map(|(_, place)| place);
    let place = last_seen.or(during).unwrap_or_default();
    let is = |words: &[&str]| words.iter().any(|word| place.starts_with(word));
    match () {
        () if is(&["adding", "all_reduce", "reduce_scatter", "all_gather"]) => "in a collective",
        () if is(&["forward"]) => "forward and backward",
        () if is(&["evaluation"]) => "evaluation",
        () if is(&["saving", "broadcast"]) => "save",
        () if is(&["comparing"]) => "comparison of replicas",
        () => "start-up",
    }
}

/// When the rank was first named, whether another rank did it, and a line that names a wrong one.
fn names(lines: &[(Instant, String)], rank: usize, pid: i32) -> (Option<Instant>, bool, Option<String>) {
    let verdict =
        |line: &str| line.split_once("] error[J0701]: rank ").filter(|(_, rest)| rest.contains(" (host ")).is_some();
    let right = |line: &str| {
        let named = line.contains(&format!("] error[J0701]: rank {rank} (host "))
            && line.contains(" this run ends with code 75");
        let absent = line.contains(&format!("rank {rank} of {PROCESSES} never came"));
        let unreachable = line.contains(&format!("]: rank {rank} (host ")) && line.contains("has not connected to");
        named || absent || unreachable || (rank == 0 && line.contains("did not reach rank 0"))
    };
    let survivor = lines.iter().find(|(_, line)| right(line)).map(|(at, _)| *at);
    let supervisor = format!("launch: rank {rank} (pid {pid}) was killed by ");
    let supervisor = lines.iter().find(|(_, line)| line.contains(&supervisor)).map(|(at, _)| *at);
    let wrong = lines.iter().find(|(_, line)| verdict(line) && !right(line)).map(|(_, line)| line.clone());
    (survivor.or(supervisor), survivor.is_some(), wrong)
}

#[test]
fn killed_ranks_are_named_and_the_run_ends_with_the_same_bits() {
    Campaign::new("SIGKILL", Signal::KILL).go(faults(), 8);
}

#[test]
fn stopped_ranks_are_named_and_the_run_ends_with_the_same_bits() {
    Campaign::new("SIGSTOP (deadline 2 s)", Signal::STOP).go(faults().div_ceil(4), 12);
}

#[test]
fn a_stop_is_agreed_on_and_saved() {
    let folder = tempfile::tempdir().unwrap();
    let whole = folder.path().join("whole");
    train_tiny(&whole, &settings());
    let expected = final_digest(&whole);
    let (mut random, mut number) = (Random(0x2545_f491_4f6c_dd1d), 0);
    let mut row = Row { lost: Some(Vec::new()), same_bits: Some(true), ..Row::default() };
    while row.count < faults().div_ceil(2) {
        let run = folder.path().join(number.to_string());
        let mut running = Running::start(&arguments(&run));
        // One in four comes at start-up.
        if !row.count.is_multiple_of(4) {
            running.first_step();
        }
        random.sleep(900);
        let (rank, before, at) = (random.rank(PROCESSES), newest_step(&run), Instant::now());
        if !running.is_over() {
            running.signal(rank, Signal::TERM);
            row.count += 1;
        }
        let Some(end) = running.over() else {
            row.hangs.push(running.said(0));
            number += 1;
            continue;
        };
        if running.seen.last().is_some_and(|(_, line)| !line.contains("all ranks left with code 0")) {
            // It came before the process could listen, which ended it; the supervisor starts all again.
            running.until(LIMIT, |line| line.contains("started ranks"));
            running.signal_supervisor(Signal::TERM);
        }
        assert_eq!(running.code(), Some(0), "{}", running.said(0));
        let stopped =
            running.seen.iter().find_map(|(_, line)| line.split_once("] stopped at step ")?.1.split(' ').next());
        let stopped: Option<u64> = stopped.map(|step| step.parse().unwrap());
        let newest = newest_valid_step(&run);
        if newest < before || stopped.is_some_and(|step| newest != Some(step)) {
            row.lost.get_or_insert_default().push(format!("{newest:?} is saved:\n{}", running.said(0)));
        }
        if stopped.is_some() {
            row.named.push((end - at).as_secs_f64());
        }
        // A run that was stopped goes on; one that was done starts anew.
        if newest == Some(steps()) {
            row.same_bits = Some(row.same_bits == Some(true) && final_digest(&run) == expected);
            number += 1;
        }
    }
    let last = folder.path().join(number.to_string());
    assert_eq!(Running::start(&arguments(&last)).code(), Some(0));
    row.same_bits = Some(row.same_bits == Some(true) && final_digest(&last) == expected);
    row.finish("SIGTERM to one rank (time until all have saved and left)");
}

#[test]
fn a_second_signal_ends_everything_at_once_and_nothing_is_lost() {
    const SETTINGS: [&str; 4] = ["save_steps=4", "max_steps=40", "eval_steps=40", "cluster.peer_timeout=20"];
    let folder = tempfile::tempdir().unwrap();
    let (whole, run) = (folder.path().join("whole"), folder.path().join("run"));
    train_tiny(&whole, &SETTINGS);
    // Supervised: a rank that is stopped keeps the others from finishing their step, so only the second signal ends them.
    let mut running = Running::start(&launch_arguments(PROCESSES, &[], &run, &SETTINGS));
    running.until(LIMIT, |line| line.contains("saved ")).unwrap();
    let (before, pids) = (newest_step(&run), running.pids.clone());
    running.signal(1, Signal::STOP);
    running.signal_supervisor(Signal::TERM);
    running.until(LIMIT, |line| line.contains("SIGTERM passed on")).unwrap();
    let second = Instant::now();
    running.signal_supervisor(Signal::TERM);
    assert_eq!(running.code(), Some(1), "{}", running.said(0));
    eprintln!("all processes ended {:.3} s after the second signal", second.elapsed().as_secs_f64());
    for pid in pids {
        assert!(test_kill_process(Pid::from_raw(pid).unwrap()).is_err(), "{pid} lives");
    }
    assert!(newest_valid_step(&run) >= before && before.is_some());
    // Alone: the process ends itself.
    let alone = tiny_arguments(&run, &SETTINGS);
    let child = jazari(&alone.iter().map(String::as_str).collect::<Vec<_>>())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let waited = Instant::now();
    while newest_step(&run) <= before && waited.elapsed() < LIMIT {
        std::thread::sleep(Duration::from_millis(1));
    }
    // It stands still meanwhile: otherwise it may have saved and left before the second signal is sent.
    for signal in [Signal::STOP, Signal::INT, Signal::TERM, Signal::CONT] {
        kill_process(Pid::from_child(&child), signal).unwrap();
    }
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", text(&output));
    train_tiny(&run, &SETTINGS);
    assert_eq!(final_digest(&run), final_digest(&whole));
}

/// Three hosts, each with a supervisor of its own; the last one reaches rank 0 through a network of ours.
struct Hosts {
    run: PathBuf,
    token: PathBuf,
    rendezvous: SocketAddr,
    network: Network,
    /// Where the last host finds rank 0.
    detour: SocketAddr,
    hosts: Vec<Running>,
}

const HOSTS: usize = 3;
const AWAY: usize = 2;

impl Hosts {
    fn start(folder: &Path) -> Self {
        let token = folder.join("token");
        trainer::cluster::token::Token::generate(&token).unwrap();
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let network = Network::default();
        let detour = network.lead_to(free);
        let mut hosts = Self { run: folder.join("run"), token, rendezvous: free, network, detour, hosts: Vec::new() };
        hosts.hosts = (0..HOSTS).map(|rank| hosts.supervisor(rank)).collect();
        hosts
    }

    fn supervisor(&self, rank: usize) -> Running {
        let (rank, address) = (rank.to_string(), if rank == AWAY { self.detour } else { self.rendezvous }.to_string());
        let (hosts, token) = (HOSTS.to_string(), self.token.display().to_string());
        let options = [
            ["--nnodes", &hosts],
            ["--node-rank", &rank],
            ["--rendezvous", &address],
            ["--token", &token],
            ["--run-id", "faults"],
            ["--max-restarts", "50"],
            ["--grace", "3"],
        ];
        Running::start(&launch_arguments(1, options.as_flattened(), &self.run, &host_settings()))
    }

    /// Does a fault to the last host and notes what the others made of it.
    /// One fault; whether the run was still going on.
    fn strike(&mut self, number: usize, row: &mut Row) -> bool {
        let fault = FAULTS[number % FAULTS.len()].1;
        self.hosts.iter_mut().for_each(Running::catch_up);
        let from: Vec<usize> = self.hosts.iter().map(|host| host.seen.len()).collect();
        let (at, before) = (Instant::now(), newest_step(&self.run));
        match fault {
            Fault::Cut => self.network.strike(Blow::Cut),
            Fault::Reset => self.network.strike(Blow::Reset),
            Fault::BlackHole => self.network.becomes(Weather::BlackHole),
            Fault::Replace => self.hosts[AWAY].signal_supervisor(Signal::KILL),
        }
        let over: Vec<bool> = self.hosts[..AWAY].iter_mut().map(|host| host.over().is_some()).collect();
        if self.hosts[0].seen.last().is_some_and(|(_, line)| line.contains("all ranks left with code 0")) {
            // It came when everything was done.
            self.network.becomes(Weather::Fair);
            return false;
        }
        row.count += 1;
        for ((host, from), is_over) in self.hosts[..AWAY].iter_mut().zip(&from).zip(over) {
            if !is_over {
                row.hangs.push(host.said(*from));
            }
            let (named, _, wrong) = names(&host.seen[*from..], AWAY, 0);
            row.wrong.extend(wrong);
            match named {
                Some(named) => row.named.push((named - at).as_secs_f64()),
                None => row.wrong.push(format!("fault {number}: nobody is named:\n{}", host.said(*from))),
            }
        }
        if newest_valid_step(&self.run) < before {
            row.lost.get_or_insert_default().push(format!("fault {number}: {before:?}"));
        }
        self.network.becomes(Weather::Fair);
        if fault == Fault::Replace {
            // A new machine: its supervisor counts restarts from zero.
            self.hosts[AWAY] = self.supervisor(AWAY);
        }
        let started = self.hosts[0].until(LIMIT, |line| line.contains("started ranks"));
        match (started, self.hosts[0].first_step()) {
            (Some(started), Some(step)) => row.resumed.push((step - started).as_secs_f64()),
            _ => row.hangs.push(format!("fault {number}: it never went on:\n{}", self.hosts[0].said(from[0]))),
        }
        true
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Fault {
    Cut,
    Reset,
    BlackHole,
    Replace,
}

const FAULTS: [(&str, Fault); 4] = [
    ("host: control connection cut", Fault::Cut),
    ("host: … reset", Fault::Reset),
    ("host: … in a black hole (deadline 2 s)", Fault::BlackHole),
    ("host: lost and replaced, restarts counted from 0", Fault::Replace),
];

fn host_steps() -> u64 {
    if is_long() { 600 } else { 160 }
}

fn host_settings() -> [&'static str; 7] {
    [
        if is_long() { "max_steps=600" } else { "max_steps=160" },
        "save_steps=4",
        "eval_steps=600",
        "logging_steps=1",
        "cluster.digest_steps=40",
        "cluster.peer_timeout=2",
        "global_batch_size=6 seq",
    ]
}

#[test]
fn a_host_that_is_cut_off_or_replaced_joins_again_and_the_bits_are_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let whole = folder.path().join("whole");
    train_tiny(&whole, &host_settings());
    let row = || Row { lost: Some(Vec::new()), same_bits: Some(true), ..Row::default() };
    let mut rows = FAULTS.map(|_| row());
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let wanted = faults().div_ceil(8).max(4);
    let (mut runs, mut done) = (0, 0);
    while done < wanted {
        runs += 1;
        let scene = folder.path().join(runs.to_string());
        std::fs::create_dir(&scene).unwrap();
        let mut hosts = Hosts::start(&scene);
        // The newest faults come early enough for the run to see them.
        while done < wanted && newest_step(&hosts.run).unwrap_or(0) < host_steps() / 2 {
            if newest_step(&hosts.run).is_none() {
                hosts.hosts[0].first_step().unwrap();
            }
            random.sleep(600);
            if !hosts.strike(done, &mut rows[done % FAULTS.len()]) {
                break;
            }
            done += 1;
        }
        hosts.network.becomes(Weather::Late(Duration::from_millis(200)));
        for host in &mut hosts.hosts {
            assert_eq!(host.code(), Some(0), "{}", host.said(0));
        }
        let is_same = final_digest(&hosts.run) == final_digest(&whole);
        rows.iter_mut().for_each(|row| row.same_bits = Some(row.same_bits == Some(true) && is_same));
    }
    for ((what, _), row) in FAULTS.iter().zip(&rows) {
        row.finish(what);
    }
}

#[test]
fn a_host_that_waits_alone_stops_when_told_and_asks_for_a_restart_at_the_deadline() {
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    trainer::cluster::token::Token::generate(&token).unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let token = token.display().to_string();
    let options =
        ["--nnodes", "2", "--node-rank", "0", "--rendezvous", &port, "--token", &token, "--max-restarts", "0"];
    let run = folder.path().join("run");
    let alone = |limit: &str| Running::start(&launch_arguments(2, &options, &run, &[limit]));
    let mut stopped = alone("cluster.join_timeout=80");
    // From these lines on they listen to signals. The first one may come before the supervisor's own line.
    let listens = |line: &str| line.contains("] rank ") && line.contains(" of 4, ");
    while stopped.seen.iter().filter(|(_, line)| listens(line)).count() < 2 {
        stopped.until(LIMIT, listens).unwrap();
    }
    stopped.signal_supervisor(Signal::TERM);
    assert_eq!(stopped.code(), Some(0), "{}", stopped.said(0));
    assert!(stopped.said(0).contains("was told to stop while it waited for the others; nothing was started"));
    let mut waited = alone("cluster.join_timeout=1");
    assert_eq!(waited.code(), Some(75), "{}", waited.said(0));
    assert!(
        waited.said(0).contains("error[J0703]: ranks 2, 3 of 4 never came to the rendezvous"),
        "{}",
        waited.said(0)
    );
    assert!(!run.exists());
}
