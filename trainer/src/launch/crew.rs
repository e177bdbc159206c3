//! Owns the processes of one start: spawning, signals, reaping; never touches the decision to restart.

use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, kill_process_group, waitid};

use super::ending::{Ended, Ending};
use super::output::{self, LineSink, Stream};
use super::supervisor::Message;
use super::tether::SUPERVISOR_VARIABLE;
use super::{Launch, LaunchError};

/// How long output may still arrive after the processes have ended; longer only when a grandchild that left its
/// process group holds the pipe.
const OUTPUT_REST: Duration = Duration::from_secs(1);

/// What one start needs.
pub(super) struct Start<'a> {
    pub launch: &'a Launch,
    /// Restarts before this start.
    pub restart: u32,
    /// Where rank 0 will listen.
    pub rendezvous: &'a str,
    /// Receives the output.
    pub sink: &'a LineSink,
    /// Told when a process has ended.
    pub bell: &'a Sender<Message>,
}

/// One process.
struct Member {
    rank: usize,
    pid: Pid,
    child: Child,
    running: bool,
    /// The supervisor told it to end.
    told: bool,
}

/// All processes of one start on this host; dropping it kills and reaps what still runs.
pub(super) struct Crew {
    members: Vec<Member>,
    started: Instant,
    /// Disconnects when the last reader of output has ended.
    output: Receiver<()>,
    /// Order of time.
    ended: Vec<Ended>,
}

impl Crew {
    /// Starts all processes. They belong to the calling thread: the kernel ends them with it.
    pub fn start(start: &Start<'_>) -> Result<Self, LaunchError> {
        let (alive, output) = channel();
        let mut crew = Self { members: Vec::new(), started: Instant::now(), output, ended: Vec::new() };
        for local_rank in 0..start.launch.nproc {
            crew.add(start, local_rank, &alive)?;
        }
        Ok(crew)
    }

    fn add(&mut self, start: &Start<'_>, local_rank: usize, alive: &Sender<()>) -> Result<(), LaunchError> {
        let launch = start.launch;
        let rank = launch.node_rank * launch.nproc + local_rank;
        let advice = "check that the program can run and that the limits on processes and memory allow it";
        let refused = |what: &str| LaunchError::system(format!("{what} rank {rank}"), advice);
        let mut child =
            command(start, local_rank).spawn().map_err(refused(&format!("start {} as", launch.program.display())))?;
        let pid = Pid::from_child(&child);
        let pipes = (child.stdout.take(), child.stderr.take());
        self.members.push(Member { rank, pid, child, running: true, told: false });
        let thread = |name: String| thread::Builder::new().name(name);
        if let (Some(stdout), Some(stderr)) = pipes {
            let (sink_out, sink_err) = (LineSink::clone(start.sink), LineSink::clone(start.sink));
            let (alive_out, alive_err) = (alive.clone(), alive.clone());
            let read = move || {
                let _alive = alive_out;
                output::copy_lines(stdout, rank, Stream::Output, &sink_out);
            };
            thread(format!("output-{rank}")).spawn(read).map_err(refused("read the output of"))?;
            let read = move || {
                let _alive = alive_err;
                output::copy_lines(stderr, rank, Stream::Error, &sink_err);
            };
            thread(format!("errors-{rank}")).spawn(read).map_err(refused("read the errors of"))?;
        }
        let bell = start.bell.clone();
        let wait = move || {
            // The process stays a zombie until the supervisor reaps it, so its id cannot mean another process yet.
            let how = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
            while matches!(waitid(WaitId::Pid(pid), how), Err(Errno::INTR)) {}
            let _ = bell.send(Message::Ended(rank));
        };
        thread(format!("wait-{rank}")).spawn(wait).map_err(refused("wait for"))?;
        Ok(())
    }

    /// Process ids in the order of ranks.
    pub fn pids(&self) -> Vec<u32> {
        self.members.iter().map(|m| m.child.id()).collect()
    }

    /// Since the start.
    pub fn age(&self) -> Duration {
        self.started.elapsed()
    }

    /// Ranks that still run.
    pub fn running(&self) -> Vec<usize> {
        self.members.iter().filter(|m| m.running).map(|m| m.rank).collect()
    }

    /// Process id of a rank.
    pub fn pid(&self, rank: usize) -> u32 {
        self.members.iter().find(|m| m.rank == rank).map_or(0, |m| m.child.id())
    }

    /// Passes a signal on to every running process.
    pub fn signal(&self, signal: Signal) {
        for member in self.members.iter().filter(|m| m.running) {
            // It may have ended this very moment.
            let _ = kill_process(member.pid, signal);
        }
    }

    /// Tells every running process to end; how it ends then explains nothing any more.
    pub fn tell(&mut self, signal: Signal) {
        for member in self.members.iter_mut().filter(|m| m.running) {
            member.told = true;
            let _ = match signal {
                Signal::KILL => kill_process_group(member.pid, signal),
                // A stopped process can only act on the signal once it goes on.
                _ => kill_process(member.pid, signal).and_then(|()| kill_process(member.pid, Signal::CONT)),
            };
        }
    }

    /// Reaps a process that has ended, with what it left behind in its process group.
    ///
    /// `stopping` is the signal that was passed on: a process that had no handler for it yet has not failed.
    pub fn reap(&mut self, rank: usize, stopping: Option<i32>) -> Result<Option<Ended>, LaunchError> {
        let after = self.started.elapsed();
        let Some(member) = self.members.iter_mut().find(|m| m.rank == rank && m.running) else { return Ok(None) };
        let _ = kill_process_group(member.pid, Signal::KILL);
        let advice = "this is a defect of jazari, please report it";
        let status = member.child.wait().map_err(LaunchError::system(format!("wait for rank {rank}"), advice))?;
        member.running = false;
        let ending = Ending::of(status);
        let by = |signal| ending == Ending::Killed(signal) || ending == Ending::Left(128 + signal);
        let told = member.told || stopping.is_some_and(by);
        let ended = Ended { rank, pid: member.child.id(), ending, after, told };
        self.ended.push(ended.clone());
        Ok(Some(ended))
    }

    /// Waits for the rest of the output and gives the endings, in the order of time.
    pub fn finish(mut self) -> Vec<Ended> {
        // Nothing is ever sent: the wait ends when the last reader drops its end, or at the deadline.
        let _ = self.output.recv_timeout(OUTPUT_REST);
        std::mem::take(&mut self.ended)
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        self.tell(Signal::KILL);
        for member in self.members.iter_mut().filter(|m| m.running) {
            // Not `wait`: a process stuck in the kernel must not hang the supervisor as well.
            for _ in 0..50 {
                if !matches!(member.child.try_wait(), Ok(None)) {
                    break;
                }
                thread::sleep(Duration::from_millis(10));
            }
        }
    }
}

fn command(start: &Start<'_>, local_rank: usize) -> Command {
    let launch = start.launch;
    let mut command = Command::new(&launch.program);
    let rank = launch.node_rank * launch.nproc + local_rank;
    let numbers = [
        ("JAZARI_RANK", rank),
        ("JAZARI_LOCAL_RANK", local_rank),
        ("JAZARI_WORLD_SIZE", launch.world()),
        ("JAZARI_LOCAL_WORLD_SIZE", launch.nproc),
        ("JAZARI_RESTART", start.restart as usize),
        (SUPERVISOR_VARIABLE, std::process::id() as usize),
    ];
    command
        .args(&launch.arguments)
        .envs(launch.environment.iter().map(|(name, value)| (name, value)))
        .envs(numbers.map(|(name, value)| (name, value.to_string())))
        .env("JAZARI_RENDEZVOUS", start.rendezvous)
        .env("JAZARI_RUN_ID", &launch.run_id)
        .env("JAZARI_TOKEN_FILE", &launch.token)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // A group of its own: Ctrl-C in the terminal reaches the supervisor only, which passes it on once.
        .process_group(0);
    command
}
