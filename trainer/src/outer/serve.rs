//! Owns the coordinator's sockets and threads: one thread accepts, one a site converses; never touches the rules.
//!
//! Strangers are held by the same gate as at a cluster's rendezvous: nothing of theirs is read before they have proven
//! that they hold the token, and a round never waits for them.

use std::cell::RefCell;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::Scope;
use std::time::{Duration, Instant};

use super::OuterError;
use super::desk::{Desk, DeskEvent, Next, Patience, Vector};
use super::messages::{self, HELLO, Hello, PROLOGUE, Purpose, Shape};
use super::quantise::Layout;
use super::store::Store;
use crate::cluster::channel::{Channel, ChannelError};
use crate::cluster::rendezvous::{Arrival, Gate};
use crate::cluster::token::Token;
use crate::signals::StopFlag;

/// Longest wait before the rounds are looked at again.
const TICK: Duration = Duration::from_millis(50);
/// Conversations at a time: a site has one, and may begin another while its first is found dead.
const MAX_SESSIONS: usize = 4 * super::MAX_SITES;
/// How long a coordinator whose sites have all ended stays for one that has not taken the result yet.
const LINGER: Duration = Duration::from_secs(60);
/// How long a port that is in use is tried again: an earlier coordinator may still be ending.
const BIND_PATIENCE: Duration = Duration::from_secs(5);
/// Most parameters of a model: 64 GiB of floats.
const MAX_PARAMETERS: usize = 1 << 34;

/// What a coordinator is started with.
pub struct Options<'a> {
    /// Where to listen, `HOST:PORT`; port 0 takes a free one.
    pub bind: String,
    /// The secret of the run.
    pub token: &'a Token,
    /// When a round ends.
    pub patience: Patience,
    /// Folder of the state.
    pub output: PathBuf,
}

/// What a coordinator reports.
#[derive(Debug, Clone)]
pub enum Notice {
    /// It listens.
    Listening {
        /// Where.
        address: SocketAddr,
        /// The open round and the state's digest, when there is a run already.
        position: Option<(u64, String)>,
    },
    /// A connection was turned away before it said anything.
    TurnedAway(String),
    /// Something happened in the run.
    Event(DeskEvent),
}

/// How a coordinator ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Whether all sites have ended their runs; otherwise it was stopped.
    pub finished: bool,
    /// The open round and the state's digest.
    pub position: Option<(u64, String)>,
}

/// What the threads share.
struct Shared {
    desk: Mutex<Desk>,
    changed: Condvar,
    closing: AtomicBool,
    sessions: AtomicUsize,
    failure: Mutex<Option<OuterError>>,
}

/// Runs a coordinator until all sites have ended their runs, a stop, or a failure.
///
/// # Errors
/// When the folder or the address cannot be used, the state is damaged or cannot be saved.
pub fn serve(options: &Options<'_>, stop: &StopFlag, observer: &mut dyn FnMut(Notice)) -> Result<Ended, OuterError> {
    let desk = Desk::open(options.patience, Store::open(&options.output)?)?;
    let listener = listen(&options.bind, stop)?;
    let address = listener.local_addr().map_err(|error| network(&options.bind, &error))?;
    observer(Notice::Listening { address, position: desk.position() });
    let refusals = RefCell::new(Vec::new());
    let on_refused = |line: &str| refusals.borrow_mut().push(line.to_owned());
    let gate = Gate::new(listener, options.token.derive(messages::KEY_PURPOSE), PROLOGUE.into(), &on_refused);
    let mut gate = gate.map_err(|error| network(&options.bind, &error))?;
    let shared = Shared {
        desk: Mutex::new(desk),
        changed: Condvar::new(),
        closing: AtomicBool::new(false),
        sessions: AtomicUsize::new(0),
        failure: Mutex::new(None),
    };
    std::thread::scope(|scope| {
        let mut observe = || -> Result<(), OuterError> {
            refusals.take().into_iter().for_each(|line| observer(Notice::TurnedAway(line)));
            let events = shared.desk().take_events()?;
            events.into_iter().for_each(|event| observer(Notice::Event(event)));
            Ok(())
        };
        let ended = shared.accept(scope, &mut gate, stop, &mut observe);
        shared.closing.store(true, Ordering::Relaxed);
        shared.changed.notify_all();
        let last_words = observe();
        ended.and_then(|finished| last_words.map(|()| finished))
    })
    .map(|finished| Ended { finished, position: shared.desk().position() })
}

fn network(at: &str, error: &dyn ToString) -> OuterError {
    OuterError::refused(
        format!("cannot listen at {at}: {}", error.to_string()),
        "give an address of this host as HOST:PORT, with a port that no other program uses",
    )
}

fn listen(bind: &str, stop: &StopFlag) -> Result<TcpListener, OuterError> {
    let addresses: Vec<SocketAddr> = bind.to_socket_addrs().map_err(|error| network(bind, &error))?.collect();
    let until = Instant::now() + BIND_PATIENCE;
    loop {
        match TcpListener::bind(addresses.as_slice()) {
            Ok(listener) => return Ok(listener),
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse && Instant::now() < until && !stop.is_set() => {
                std::thread::sleep(TICK);
            }
            Err(error) => return Err(network(bind, &error)),
        }
    }
}

impl Shared {
    fn desk(&self) -> MutexGuard<'_, Desk> {
        // A panic in another session ends the coordinator below; its state on disk is whole.
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fail(&self, error: OuterError) {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
    }

    /// Takes connections and looks after the rounds; true when all sites have ended.
    fn accept<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
        gate: &mut Gate<'_>,
        stop: &StopFlag,
        observe: &mut dyn FnMut() -> Result<(), OuterError>,
    ) -> Result<bool, OuterError> {
        let (mut id, mut last_session) = (0, Instant::now());
        loop {
            let news = gate.wait(TICK, &[]).map_err(|error| network("the address", &error))?;
            for arrival in news.arrivals {
                id += 1;
                self.converse(scope, id, arrival)?;
            }
            let now = Instant::now();
            self.desk().tick(now)?;
            self.changed.notify_all();
            observe()?;
            if let Some(error) = self.failure.lock().unwrap_or_else(PoisonError::into_inner).take() {
                return Err(error);
            }
            if self.sessions.load(Ordering::Relaxed) > 0 {
                last_session = now;
            }
            let is_over = self.desk().is_over();
            let lingered = self.desk().all_finished() && now.duration_since(last_session) >= LINGER;
            if is_over || lingered || stop.is_set() {
                return Ok(is_over || lingered);
            }
        }
    }

    fn converse<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
        id: u64,
        arrival: Arrival,
    ) -> Result<(), OuterError> {
        if self.sessions.load(Ordering::Relaxed) >= MAX_SESSIONS {
            // It dials again; dead conversations are found within a minute.
            return Ok(());
        }
        self.sessions.fetch_add(1, Ordering::Relaxed);
        let run = move || {
            let Arrival { mut channel, first, .. } = arrival;
            if let Ok(hello) = messages::parse::<Hello>(HELLO, &first) {
                self.desk().begin(id, &hello);
                // A lost connection is the site's to repair: it dials again.
                let _ = self.session(id, &hello, &mut channel);
                self.desk().end(id);
            }
            self.sessions.fetch_sub(1, Ordering::Relaxed);
        };
        std::thread::Builder::new().name("site".into()).spawn_scoped(scope, run).map(|_| ()).map_err(|error| {
            OuterError::local(format!("cannot start a thread: {error}"), "raise this host's limit on threads")
        })
    }

    /// One conversation, from hello to farewell.
    fn session(&self, id: u64, hello: &Hello, channel: &mut Channel) -> Result<(), ChannelError> {
        channel.sender().set_write_timeout(Some(messages::SILENCE))?;
        let mut check = || match self.closing.load(Ordering::Relaxed) {
            true => Err(ChannelError::Timeout),
            false => Ok(()),
        };
        let mut said: Option<Instant> = None;
        loop {
            check()?;
            let next = self.next(id, hello, said);
            match next {
                Next::Wait(waiting) => {
                    messages::send(channel, messages::WAITING, &waiting)?;
                    said = Some(Instant::now());
                }
                Next::Welcome(welcome) => return messages::send(channel, messages::WELCOME, &welcome),
                Next::Refuse(refused) => return messages::send(channel, messages::REFUSED, &refused),
                Next::AskShapes => {
                    messages::send(channel, messages::SEND, &())?;
                    let frame = messages::receive(channel, &mut check)?;
                    let shapes: Vec<Shape> = messages::parse(messages::SHAPES, &frame)?;
                    let len = num_elements(&shapes)?;
                    let theta = messages::receive_floats(channel, len, &mut check)?;
                    let seeded = self.desk().seed(hello, shapes, theta);
                    self.settle(seeded, channel)?;
                }
                Next::AskDelta { bytes } => {
                    let Purpose::Deliver(offer) = &hello.purpose else { return Ok(()) };
                    messages::send(channel, messages::SEND, &())?;
                    let payload = messages::receive_bytes(channel, bytes, &mut check)?;
                    let delivered = self.desk().deliver(&hello.site, offer, payload, Instant::now());
                    self.settle(delivered, channel)?;
                }
                Next::Update(update, vector) => {
                    messages::send(channel, messages::UPDATE, &update)?;
                    match vector {
                        Vector::Nothing => {}
                        Vector::Update(bytes) => messages::send_bytes(channel, &bytes, &mut check)?,
                        Vector::Whole(theta) => messages::send_floats(channel, &theta, &mut check)?,
                    }
                    let (kind, _) = messages::receive(channel, &mut check)?;
                    if kind == messages::DONE {
                        self.desk().acknowledge(&hello.site);
                    }
                    return Ok(());
                }
            }
        }
    }

    /// What to do next, once it is something else than to wait, or it is time to say that the site must wait.
    fn next(&self, id: u64, hello: &Hello, said: Option<Instant>) -> Next {
        let mut desk = self.desk();
        loop {
            let next = desk.next(id, hello);
            let is_quiet = said.is_some_and(|said| said.elapsed() < messages::WAITING_EVERY);
            if !matches!(next, Next::Wait(_)) || !is_quiet || self.closing.load(Ordering::Relaxed) {
                return next;
            }
            desk = self.changed.wait_timeout(desk, TICK).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// What a site brought was taken, or was no good, or ends the coordinator.
    fn settle(&self, result: Result<(), OuterError>, channel: &mut Channel) -> Result<(), ChannelError> {
        self.changed.notify_all();
        match result {
            Ok(()) => Ok(()),
            Err(OuterError::Refused { what, advice }) => {
                messages::send(channel, messages::REFUSED, &messages::Refused { what, advice })?;
                Err(ChannelError::Closed)
            }
            Err(error) => {
                self.fail(error);
                Err(ChannelError::Closed)
            }
        }
    }
}

/// Elements of all shapes, as long as a coordinator can hold them.
fn num_elements(shapes: &[Shape]) -> Result<usize, ChannelError> {
    let size = |shape: &Shape| shape.shape.iter().try_fold(1_usize, |size, dim| size.checked_mul(*dim));
    let total = shapes.iter().try_fold(0_usize, |total, shape| total.checked_add(size(shape)?));
    let total = total.filter(|total| (1..=MAX_PARAMETERS).contains(total));
    total.ok_or_else(|| ChannelError::Protocol(format!("a model has 1 to {MAX_PARAMETERS} parameters")))?;
    Ok(Layout::new(&Shape::to_specs(shapes)).len())
}
