//! Owns the supervising loop: watch, give grace, end, pause, restart; never touches what the processes compute.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use signal_hook::consts::{SIGINT, SIGTERM};

use super::crew::{Crew, Start};
use super::ending::{self, Ended, Ending};
use super::event::Event;
use super::output::LineSink;
use super::{Launch, LaunchError};

/// What wakes the supervisor.
pub(super) enum Message {
    /// A process of this rank has ended and waits to be reaped.
    Ended(usize),
    /// A signal: the first asks for a stop, the second ends everything.
    Signal(i32),
}

/// Asks a supervisor to stop, from a thread that receives signals.
#[derive(Debug, Clone)]
pub struct StopBell(Sender<Message>);

impl StopBell {
    /// Passes on SIGINT or SIGTERM; the second call ends all processes at once.
    pub fn ring(&self, signal: i32) {
        // A supervisor that is gone has nothing left to stop.
        let _ = self.0.send(Message::Signal(signal));
    }
}

/// Starts the processes of one host, watches them, and starts them again when that can help.
pub struct Supervisor {
    launch: Launch,
    sink: LineSink,
    bell: Sender<Message>,
    messages: Receiver<Message>,
    /// First signal received.
    stopping: Option<i32>,
    /// A second one was received.
    killed: bool,
}

/// What ends the waiting for processes that should leave.
#[derive(Clone, Copy)]
enum Phase {
    Working,
    /// Someone failed; the others may leave by themselves until then.
    Grace(Instant),
    /// SIGTERM was sent; SIGKILL follows then.
    Terminating(Instant),
    /// SIGKILL was sent; who is still there then, stays.
    Killing(Instant),
}

/// Restarts since the newest checkpoint last grew.
struct Progress {
    best: Option<u64>,
    without: u32,
}

impl Supervisor {
    /// A supervisor that has not started anything yet; `sink` receives every line of output.
    #[must_use]
    pub fn new(launch: Launch, sink: LineSink) -> Self {
        let (bell, messages) = channel();
        Self { launch, sink, bell, messages, stopping: None, killed: false }
    }

    /// What signals are passed to.
    #[must_use]
    pub fn bell(&self) -> StopBell {
        StopBell(self.bell.clone())
    }

    /// Runs until all processes are done or a restart cannot help, and gives the exit code: 0 when all left with 0,
    /// else the most telling of the last start (2, 3, 1, 75); with `max_restarts: 0` that of the first failure.
    ///
    /// `newest_step` is the step of the newest checkpoint: when it grows, the run makes progress. Call it on a thread
    /// that lives as long as the supervisor, since the kernel ties the processes to it.
    ///
    /// # Errors
    /// When processes cannot be started or do not end; all that were started are then killed.
    pub fn run(
        mut self,
        newest_step: &dyn Fn() -> Option<u64>,
        observe: &mut dyn FnMut(&Event),
    ) -> Result<i32, LaunchError> {
        self.launch.check()?;
        let mut progress = Progress { best: newest_step(), without: 0 };
        let mut restart = 0;
        loop {
            let ended = self.start_once(restart, newest_step, observe)?;
            let code =
                if self.launch.max_restarts == 0 { ending::first_code(&ended) } else { ending::most_telling(&ended) };
            if self.killed {
                return Ok(ending::code::FAILED);
            }
            if code == ending::code::DONE || self.stopping.is_some() {
                return Ok(code);
            }
            if let Err(why) = self.may_restart(&ended, &mut progress, newest_step()) {
                observe(&Event::GaveUp { why });
                return Ok(code);
            }
            restart += 1;
            let pause = self.pause(progress.without);
            let (without_progress, max_restarts) = (progress.without, self.launch.max_restarts);
            observe(&Event::Restarting { restart, without_progress, max_restarts, pause });
            if self.interrupted_within(pause) {
                observe(&Event::GaveUp { why: "a signal came during the pause".into() });
                return Ok(code);
            }
        }
    }

    /// One start: until every process has ended.
    fn start_once(
        &mut self,
        restart: u32,
        newest_step: &dyn Fn() -> Option<u64>,
        observe: &mut dyn FnMut(&Event),
    ) -> Result<Vec<Ended>, LaunchError> {
        let rendezvous = self.rendezvous()?;
        let Self { launch, sink, bell, .. } = &*self;
        let mut crew = Crew::start(&Start { launch, restart, rendezvous: &rendezvous, sink, bell })?;
        let first = self.launch.node_rank * self.launch.nproc;
        observe(&Event::Started {
            restart,
            ranks: first..first + self.launch.nproc,
            world: self.launch.world(),
            rendezvous,
            pids: crew.pids(),
        });
        let mut phase = Phase::Working;
        while !crew.running().is_empty() {
            match self.next_message(phase) {
                Some(Message::Ended(rank)) => {
                    let ended = crew.reap(rank, self.stopping)?;
                    phase = self.after_end(phase, ended, &crew, observe);
                }
                Some(Message::Signal(signal)) => phase = self.on_signal(phase, signal, &mut crew, observe),
                None => phase = self.on_deadline(phase, &mut crew, observe)?,
            }
        }
        let after = crew.age();
        let ended = crew.finish();
        observe(&Event::Over { restart, after, ended: ended.clone(), newest_step: newest_step() });
        Ok(ended)
    }

    /// The next message, or nothing when the phase's deadline has passed.
    fn next_message(&self, phase: Phase) -> Option<Message> {
        let deadline = match phase {
            // The supervisor holds a sender itself, so the channel never disconnects.
            Phase::Working => return self.messages.recv().ok(),
            Phase::Grace(at) | Phase::Terminating(at) | Phase::Killing(at) => at,
        };
        self.messages.recv_timeout(deadline.saturating_duration_since(Instant::now())).ok()
    }

    fn after_end(&self, phase: Phase, ended: Option<Ended>, crew: &Crew, observe: &mut dyn FnMut(&Event)) -> Phase {
        let Some(ended) = ended.filter(|e| !e.told && !e.ending.is_done()) else { return phase };
        if let (Phase::Grace(until), [_], Ending::Left(ending::code::LOST)) = (phase, &*crew.running(), ended.ending) {
            // The others have lost a peer, and this one is left: it hangs, and need not be waited for.
            return Phase::Grace(until.min(Instant::now() + self.launch.patience.last_one));
        }
        let Phase::Working = phase else { return phase };
        let grace = self.launch.patience.grace;
        observe(&Event::Failed { ended, running: crew.running().len(), grace });
        Phase::Grace(Instant::now() + grace)
    }

    fn on_signal(&mut self, phase: Phase, signal: i32, crew: &mut Crew, observe: &mut dyn FnMut(&Event)) -> Phase {
        if self.stopping.is_none() {
            self.stopping = Some(signal);
            let (name, signal) = if signal == SIGINT { ("SIGINT", Signal::INT) } else { ("SIGTERM", Signal::TERM) };
            observe(&Event::Stopping { signal: name });
            crew.signal(signal);
            return phase;
        }
        self.killed = true;
        self.kill(crew, observe)
    }

    fn kill(&self, crew: &mut Crew, observe: &mut dyn FnMut(&Event)) -> Phase {
        observe(&Event::Ending { ranks: crew.running(), signal: "SIGKILL" });
        crew.tell(Signal::KILL);
        Phase::Killing(Instant::now() + self.launch.patience.kill)
    }

    fn on_deadline(
        &self,
        phase: Phase,
        crew: &mut Crew,
        observe: &mut dyn FnMut(&Event),
    ) -> Result<Phase, LaunchError> {
        match phase {
            Phase::Working => Ok(phase),
            Phase::Grace(_) => {
                observe(&Event::Ending { ranks: crew.running(), signal: "SIGTERM" });
                crew.tell(Signal::TERM);
                Ok(Phase::Terminating(Instant::now() + self.launch.patience.terminate))
            }
            Phase::Terminating(_) => Ok(self.kill(crew, observe)),
            Phase::Killing(_) => {
                let rank = crew.running().first().copied().unwrap_or_default();
                Err(LaunchError::Unkillable { rank, pid: crew.pid(rank) })
            }
        }
    }

    /// Counts the restart, or says why there is none.
    fn may_restart(&self, ended: &[Ended], progress: &mut Progress, newest: Option<u64>) -> Result<(), String> {
        let max = self.launch.max_restarts;
        if max == 0 {
            return Err("--max-restarts is 0".into());
        }
        ending::restart_helps(ended)?;
        if newest > progress.best {
            *progress = Progress { best: newest, without: 0 };
        }
        if progress.without >= max {
            let since =
                progress.best.map_or("no checkpoint was written".into(), |s| format!("step {s} is still the newest"));
            return Err(format!("{max} restarts in a row brought no new checkpoint ({since})"));
        }
        progress.without += 1;
        Ok(())
    }

    /// Doubles with each restart that brings no progress.
    fn pause(&self, without_progress: u32) -> Duration {
        let doublings = without_progress.saturating_sub(1).min(16);
        let pause = self.launch.patience.first_pause.saturating_mul(1 << doublings);
        pause.min(self.launch.patience.longest_pause)
    }

    /// Waits; whether a signal came.
    fn interrupted_within(&mut self, pause: Duration) -> bool {
        let until = Instant::now() + pause;
        loop {
            match self.messages.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(Message::Signal(signal)) => {
                    self.stopping = Some(signal);
                    return true;
                }
                Ok(Message::Ended(_)) => {}
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return false,
            }
        }
    }

    /// Where rank 0 of this start will listen: as given, or at a port that was free a moment ago. A new port for each
    /// start, since the last one may rest in TIME_WAIT.
    fn rendezvous(&self) -> Result<String, LaunchError> {
        if let Some(address) = &self.launch.rendezvous {
            return Ok(address.clone());
        }
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
        let address = free.map_err(LaunchError::system("find a free port", "pass --rendezvous 127.0.0.1:PORT"))?;
        Ok(address.to_string())
    }
}

/// Passes SIGINT and SIGTERM of this process on to a supervisor, from a thread of its own.
///
/// # Errors
/// When the operating system refuses the handlers or the thread.
pub fn pass_signals_on(bell: StopBell) -> Result<(), LaunchError> {
    let advice = "this is a defect of jazari, please report it";
    let signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM]);
    let mut signals = signals.map_err(LaunchError::system("handle SIGINT and SIGTERM", advice))?;
    let listen = move || signals.forever().for_each(|signal| bell.ring(signal));
    let thread = std::thread::Builder::new().name("signals".into()).spawn(listen);
    thread.map(|_| ()).map_err(LaunchError::system("start the thread that waits for signals", advice))
}
