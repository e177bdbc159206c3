//! Tests of the engine on processes that mpirun starts: this test binary, with a role; never touches training.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::exit)]

use super::*;
use crate::cluster::conformance;
use crate::cluster::control::{Members, Timing};
use crate::cluster::place::{Place, PlaceFlags};
use crate::cluster::rendezvous::{JoinOptions, Membership, join};
use crate::cluster::token::Token;
use rustix::process::{Signal, getpid, kill_process};
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

const ROLE: &str = "JAZARI_TEST_ROLE";

/// This test binary on `n` processes with a role; `None` where there is no mpirun. mpirun ends what takes longer than
/// its `--timeout`.
fn mpirun(n: usize, role: &str) -> Option<Output> {
    let token = tempfile::tempdir().unwrap();
    Token::generate(&token.path().join("token")).unwrap();
    let mut command = Command::new("mpirun");
    command.args(["--oversubscribe", "--allow-run-as-root", "--timeout", "60", "-n", &n.to_string()]);
    command.arg(std::env::current_exe().unwrap());
    command.args(["--exact", "cluster::engine::mpi::tests::roles", "--nocapture", "--test-threads=1"]);
    command.env(ROLE, role).env("JAZARI_TOKEN_FILE", token.path().join("token"));
    // mpirun reads its input on behalf of rank 0.
    match command.stdin(Stdio::null()).output() {
        Ok(output) => Some(output),
        Err(error) => {
            said(format_args!("SKIPPED: mpirun cannot be started ({error}), so this test checked NOTHING"));
            None
        }
    }
}

fn said(line: std::fmt::Arguments<'_>) {
    writeln!(std::io::stdout(), "{line}").unwrap();
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// One rank under mpirun.
fn engine() -> (MpiCollective, Arc<Control>) {
    let place = Place::find(&PlaceFlags::default(), &|name| std::env::var(name).ok()).unwrap();
    let token = Token::read(Path::new(&std::env::var_os("JAZARI_TOKEN_FILE").unwrap())).unwrap();
    let mesh = join(&JoinOptions {
        rank: place.rank,
        world: place.world,
        host: "host".into(),
        rendezvous: place.rendezvous,
        bind: None,
        token: &token,
        wire: None,
        deadline: Duration::from_secs(30),
        members: &Membership { run_id: place.run_id, ..Membership::default() },
        on_refused: &|_| {},
        keep_waiting: &|| Ok(()),
    });
    let mesh = mesh.unwrap();
    let timing = Timing { peer_timeout: Duration::from_secs(2), ..Timing::default() };
    let members = Members { rank: mesh.rank, hosts: mesh.hosts, pids: mesh.pids };
    let control = Control::start(members, mesh.control, timing, Box::new(|_| {})).unwrap();
    (MpiCollective::new(Arc::clone(&control)).unwrap(), control)
}

/// What the processes of the tests below do; nothing when it runs as a test of its own.
#[test]
fn roles() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let (mut mpi, control) = engine();
    let (rank, last) = (mpi.rank(), mpi.rank() + 1 == mpi.world());
    match role.as_str() {
        "conform" => {
            let report = conformance::run(&mut mpi);
            assert!(report.len() == 12 && report.iter().all(|check| check.passed), "rank {rank}: {report:?}");
            said(format_args!("\nrank {rank} conforms"));
            mpi.barrier().unwrap();
            drop(mpi);
            control.leave();
        }
        "panic" if last => panic!("as ordered"),
        "another collective" if last => panic!("{}", mpi.barrier().unwrap_err()),
        "stop" if last => {
            let stop = || {
                std::thread::sleep(Duration::from_millis(500));
                kill_process(getpid(), Signal::STOP)
            };
            std::thread::spawn(stop);
            let _ = sum_for_ever(&mut mpi);
        }
        _ => {
            let error = sum_for_ever(&mut mpi);
            said(format_args!("\nrank {rank} heard: {error}"));
            drop((mpi, control));
            std::process::exit(75);
        }
    }
}

fn sum_for_ever(mpi: &mut MpiCollective) -> ClusterError {
    let mut values = vec![0.0; 1 << 20];
    loop {
        for order in [Order::Exact, Order::Fast] {
            if let Err(error) = mpi.all_reduce(&mut values, order) {
                return error;
            }
        }
    }
}

#[test]
fn one_to_four_processes_conform() {
    for n in 1..=4 {
        let Some(output) = mpirun(n, "conform") else { return };
        assert!(output.status.success(), "{n} processes: {}", text(&output));
        assert_eq!(text(&output).matches(" conforms").count(), n, "{}", text(&output));
    }
}

#[test]
fn whoever_is_lost_is_named_and_nobody_hangs() {
    for (role, words) in [
        ("stop", "rank 1 (host host, pid "),
        ("panic", "as ordered"),
        ("another collective", "it has barrier #1, rank 0 has all_reduce #1 of 1048576 values (exact)"),
    ] {
        let Some(output) = mpirun(2, role) else { return };
        assert!(!output.status.success(), "{role}: {}", text(&output));
        assert!(text(&output).contains(words), "{role}: {}", text(&output));
        assert!(!text(&output).contains("timeout"), "{role}: {}", text(&output));
    }
}

#[test]
fn pieces_cover_messages() {
    for len in [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES + 5] {
        let pieces: Vec<_> = (0..).map_while(|round| piece(len, round)).collect();
        assert_eq!(pieces.len(), len.div_ceil(CHUNK_BYTES));
        assert_eq!(pieces.iter().map(ExactSizeIterator::len).sum::<usize>(), len);
    }
}
