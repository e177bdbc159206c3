//! Owns the tests of the supervisor, with small shell scripts as processes.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::cell::RefCell;
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use signal_hook::consts::{SIGINT, SIGTERM};

use super::*;

/// Patience of a test: short where it always runs out, long where it should not.
const PATIENCE: Patience = Patience {
    grace: Duration::from_millis(300),
    last_one: Duration::from_millis(100),
    terminate: Duration::from_millis(300),
    kill: Duration::from_secs(20),
    first_pause: Duration::from_millis(5),
    longest_pause: Duration::from_millis(20),
};

fn launch(script: &str, nproc: usize, max_restarts: u32) -> Launch {
    Launch {
        program: "/bin/sh".into(),
        arguments: vec!["-c".into(), script.into()],
        environment: Vec::new(),
        nproc,
        nnodes: 1,
        node_rank: 0,
        rendezvous: None,
        run_id: "test".into(),
        token: PathBuf::from("/nonexistent/token"),
        max_restarts,
        patience: PATIENCE,
    }
}

/// What a run did.
struct Seen {
    code: i32,
    lines: Vec<(Stream, String)>,
    events: Vec<Event>,
}

impl Seen {
    fn sorted(&self) -> Vec<&str> {
        let mut lines: Vec<&str> = self.lines.iter().map(|(_, line)| line.as_str()).collect();
        lines.sort_unstable();
        lines
    }

    fn starts(&self) -> usize {
        self.events.iter().filter(|e| matches!(e, Event::Started { .. })).count()
    }

    fn told(&self) -> Vec<&'static str> {
        let told = |event: &Event| match event {
            Event::Ending { signal, .. } => Some(*signal),
            _ => None,
        };
        self.events.iter().filter_map(told).collect()
    }

    fn why_not_again(&self) -> &str {
        match self.events.last() {
            Some(Event::GaveUp { why }) => why,
            other => panic!("the last event is {other:?}"),
        }
    }
}

/// Runs to the end; a line that contains a key of `rings` rings the bell with the signal beside it.
fn run_with(launch: Launch, newest: &dyn Fn() -> Option<u64>, rings: &[(&'static str, i32)]) -> Seen {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let bell: Arc<Mutex<Option<StopBell>>> = Arc::default();
    let (rings, kept, cord) = (rings.to_vec(), Arc::clone(&lines), Arc::clone(&bell));
    let sink: LineSink = Arc::new(move |stream, line: &str| {
        kept.lock().unwrap().push((stream, line.to_owned()));
        for (_, signal) in rings.iter().filter(|(key, _)| line.contains(key)) {
            cord.lock().unwrap().as_ref().unwrap().ring(*signal);
        }
    });
    let supervisor = Supervisor::new(launch, sink);
    *bell.lock().unwrap() = Some(supervisor.bell());
    let mut events = Vec::new();
    let code = supervisor.run(newest, &mut |event| events.push(event.clone())).unwrap();
    let lines = lines.lock().unwrap().clone();
    Seen { code, lines, events }
}

fn run(launch: Launch) -> Seen {
    run_with(launch, &|| None, &[])
}

#[test]
fn every_process_knows_its_place_and_its_lines_say_whose_they_are() {
    let script = "echo $JAZARI_LOCAL_RANK/$JAZARI_LOCAL_WORLD_SIZE $JAZARI_RANK/$JAZARI_WORLD_SIZE $JAZARI_RUN_ID \
                  $JAZARI_RESTART $JAZARI_TOKEN_FILE $JAZARI_RENDEZVOUS $A; echo to the other stream >&2; \
                  [ $JAZARI_SUPERVISOR_PID = $PPID ] || echo who started me";
    let mut two_hosts = launch(script, 2, 0);
    two_hosts.environment = vec![("A".into(), "b".into())];
    (two_hosts.nnodes, two_hosts.node_rank, two_hosts.rendezvous) = (2, 1, Some("node0:4000".into()));
    let seen = run(two_hosts);
    assert_eq!(seen.code, 0);
    assert_eq!(
        seen.sorted(),
        [
            "[2] 0/2 2/4 test 0 /nonexistent/token node0:4000 b",
            "[2] to the other stream",
            "[3] 1/2 3/4 test 0 /nonexistent/token node0:4000 b",
            "[3] to the other stream",
        ]
    );
    assert!(seen.lines.iter().all(|(s, line)| (*s == Stream::Error) == line.contains("other stream")));
}

#[test]
fn one_host_meets_at_a_free_port_of_its_own() {
    let seen = run(launch("echo $JAZARI_RENDEZVOUS", 2, 0));
    let port = |line: &str| line.split_once(":").unwrap().1.parse::<u16>().unwrap();
    let lines = seen.sorted();
    assert!(lines[0].starts_with("[0] 127.0.0.1:") && port(lines[0]) > 0);
    assert_eq!(port(lines[0]), port(lines[1]));
}

#[test]
fn survivors_that_leave_in_time_are_not_told_to() {
    let mut patient = launch("[ $JAZARI_RANK = 1 ] && kill -9 $$; sleep 0.05; exit 75", 3, 0);
    patient.patience.grace = Duration::from_secs(20);
    let seen = run(patient);
    assert_eq!((seen.code, seen.starts(), seen.told().len()), (75, 1, 0));
    let Some(Event::Over { ended, .. }) = seen.events.iter().find(|e| matches!(e, Event::Over { .. })) else {
        panic!("{:?}", seen.events)
    };
    assert_eq!((ended.len(), ended[0].rank, ended[0].ending), (3, 1, Ending::Killed(9)));
    let summary = seen.events.iter().map(ToString::to_string).find(|e| e.starts_with("start 0 over")).unwrap();
    assert!(summary.contains("rank 1 (pid ") && summary.contains("was killed by SIGKILL, then rank "), "{summary}");
    assert!(summary.ends_with("; no checkpoint yet"), "{summary}");
}

#[test]
fn survivors_that_stay_get_sigterm() {
    let seen = run(launch("[ $JAZARI_RANK = 1 ] && exit 75; sleep 100", 2, 0));
    assert_eq!((seen.code, seen.told()), (75, vec!["SIGTERM"]));
}

#[test]
fn who_ignores_sigterm_gets_sigkill() {
    let script = "[ $JAZARI_RANK = 1 ] && exit 75; trap '' TERM; while :; do sleep 0.02; done";
    let seen = run(launch(script, 2, 0));
    assert_eq!((seen.code, seen.told()), (75, vec!["SIGTERM", "SIGKILL"]));
}

#[test]
fn what_a_process_leaves_behind_is_ended_with_it() {
    let seen = run(launch("sleep 100 & echo $!; exit 0", 1, 0));
    let pid = seen.sorted()[0].trim_start_matches("[0] ").to_owned();
    // Gone, or a zombie that its new parent has not fetched yet; SIGKILL takes effect a moment after it is sent.
    let state = || fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let ended = |state: &str| state.is_empty() || state.contains(") Z ") || state.contains(") X ");
    let waits = (0..1000).take_while(|_| !ended(&state())).inspect(|_| std::thread::sleep(Duration::from_millis(10)));
    assert!(waits.count() < 1000, "{}", state());
}

#[test]
fn restarts_without_progress_are_counted() {
    let seen = run_with(launch("echo $JAZARI_RESTART; exit 75", 1, 2), &|| Some(7), &[]);
    assert_eq!((seen.code, seen.starts()), (75, 3));
    assert_eq!(seen.sorted(), ["[0] 0", "[0] 1", "[0] 2"]);
    assert_eq!(seen.why_not_again(), "2 restarts in a row brought no new checkpoint (step 7 is still the newest)");
    let pauses = seen.events.iter().filter_map(|e| match e {
        Event::Restarting { pause, .. } => Some(pause.as_millis()),
        _ => None,
    });
    assert_eq!(pauses.collect::<Vec<_>>(), [5, 10]);
}

#[test]
fn progress_forgives_earlier_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("steps");
    let script = format!("echo x >> {0}; [ $JAZARI_RESTART -ge 4 ] || exit 75", log.display());
    let newest = || fs::read_to_string(&log).ok().map(|text| text.lines().count() as u64);
    let seen = run_with(launch(&script, 1, 1), &newest, &[]);
    assert_eq!((seen.code, seen.starts()), (0, 5));
    // The first checkpoint ever is progress too, and later starts that bring none count from zero.
    let script = format!("[ $JAZARI_RESTART -ge 2 ] || echo x >> {}; exit 75", log.display());
    let seen = run_with(launch(&script, 1, 1), &newest, &[]);
    assert_eq!((seen.code, seen.starts()), (75, 3));
}

#[test]
fn failures_that_would_come_back_are_not_restarted() {
    for (code, expect) in [(1, 1), (2, 2), (3, 3), (17, 1)] {
        let script = format!("[ $JAZARI_RANK = 0 ] && exit {code}; sleep 0.05; exit 75");
        let mut once = launch(&script, 2, 5);
        once.patience.grace = Duration::from_secs(20);
        let seen = run(once);
        assert_eq!((seen.code, seen.starts()), (expect, 1), "code {code}");
        assert!(seen.why_not_again().starts_with("rank 0 (pid "), "{}", seen.why_not_again());
    }
    let mut lost_first = launch("[ $JAZARI_RANK = 0 ] && exit 75; sleep 0.05; exit 1", 2, 1);
    lost_first.patience.grace = Duration::from_secs(20);
    let seen = run(lost_first);
    assert_eq!((seen.code, seen.starts()), (1, 2));
    assert_eq!(run(launch("kill -6 $$", 1, 1)).starts(), 2);
}

#[test]
fn without_restarts_the_first_failure_gives_the_code() {
    let script = "[ $JAZARI_RANK = 0 ] && exit 75; sleep 0.05; exit 1";
    let mut once = launch(script, 2, 0);
    once.patience.grace = Duration::from_secs(20);
    let seen = run(once);
    assert_eq!((seen.code, seen.why_not_again()), (75, "--max-restarts is 0"));
}

#[test]
fn the_first_signal_lets_the_processes_save() {
    for (signal, name) in [(SIGTERM, "TERM"), (SIGINT, "INT")] {
        let script = format!("trap 'echo saved; exit 0' {name}; echo ready; while :; do sleep 0.02; done");
        let seen = run_with(launch(&script, 1, 3), &|| None, &[("ready", signal)]);
        assert_eq!((seen.code, seen.starts(), seen.told().len()), (0, 1, 0));
        assert_eq!(seen.sorted(), ["[0] ready", "[0] saved"]);
    }
    // One that has no handler yet has not failed.
    let seen = run_with(launch("echo ready; sleep 100", 1, 3), &|| None, &[("ready", SIGTERM)]);
    assert_eq!((seen.code, seen.starts()), (0, 1));
}

#[test]
fn a_failure_after_the_signal_is_reported_and_not_restarted() {
    let script = "trap 'exit 1' TERM; echo ready; while :; do sleep 0.02; done";
    let seen = run_with(launch(script, 1, 3), &|| None, &[("ready", SIGTERM)]);
    assert_eq!((seen.code, seen.starts()), (1, 1));
}

#[test]
fn the_second_signal_ends_everything() {
    let script = "trap 'echo again' TERM; echo ready; while :; do sleep 0.02; done";
    let seen = run_with(launch(script, 1, 3), &|| None, &[("ready", SIGTERM), ("again", SIGTERM)]);
    assert_eq!((seen.code, seen.starts(), seen.told()), (1, 1, vec!["SIGKILL"]));
}

#[test]
fn a_signal_during_the_pause_ends_the_run() {
    let mut slow = launch("exit 75", 1, 3);
    slow.patience.first_pause = Duration::from_secs(100);
    slow.patience.longest_pause = Duration::from_secs(100);
    let supervisor = Supervisor::new(slow, Arc::new(|_, _: &str| {}));
    let bell = supervisor.bell();
    let last = RefCell::new(String::new());
    let mut observe = |event: &Event| {
        *last.borrow_mut() = event.to_string();
        if matches!(event, Event::Restarting { .. }) {
            bell.ring(SIGTERM);
        }
    };
    assert_eq!(supervisor.run(&|| None, &mut observe).unwrap(), 75);
    assert_eq!(*last.borrow(), "not restarted: a signal came during the pause");
}

#[test]
fn mistakes_are_refused_before_anything_starts() {
    let check = |change: &dyn Fn(&mut Launch), expect: &str| {
        let mut launch = launch("echo started", 2, 0);
        change(&mut launch);
        let supervisor = Supervisor::new(launch, Arc::new(|_, line: &str| panic!("{line}")));
        let error = supervisor.run(&|| None, &mut |_| {}).unwrap_err().to_string();
        assert!(error.starts_with(expect), "{error}");
    };
    check(&|l| l.nproc = 0, "--nproc 0: a host has 1 to 1024 processes");
    check(&|l| l.nproc = 1025, "--nproc 1025:");
    check(&|l| l.nnodes = 0, "--nnodes 0 with --nproc 2:");
    check(&|l| l.nnodes = usize::MAX, "--nnodes ");
    check(&|l| l.node_rank = 1, "--node-rank 1 contradicts --nnodes 1");
    check(&|l| l.nnodes = 2, "--nnodes 2 needs --rendezvous");
    check(&|l| l.program = "/nonexistent/jazari".into(), "cannot start /nonexistent/jazari as rank 0: No such file");
}
