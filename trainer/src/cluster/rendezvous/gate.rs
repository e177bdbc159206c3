//! Owns a listening socket and the connections that have proven nothing yet; never touches what members say.
//!
//! Strangers cost little and delay nobody: no connection is waited for alone, at most [`MAX_PENDING`] are held at a
//! time, each for at most [`PROOF_TIMEOUT`] and 4 KiB. When the room is full, the connection that has been silent
//! longest makes place for the new one: an honest member speaks at once, and dials again if it was too slow.

use std::collections::HashSet;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::super::channel::handshake::Answer;
use super::super::channel::{Channel, ChannelError};
use super::{MAX_PENDING, PROOF_TIMEOUT};

/// Addresses remembered as reported; beyond these, strangers are turned away without a word.
const MAX_REPORTED: usize = 1024;
/// Connections taken from the system in one round, so that pending ones are looked at in between.
const ACCEPTS_PER_ROUND: usize = 64;
/// Connections the system may hold for us until we take them: a burst must not push members into the slow retries of
/// the network protocol. The system may cap it.
const BACKLOG: i32 = 4096;
/// Pause when the system is out of descriptors, instead of asking again at once.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(10);

/// A connection whose first sealed frame opened: it holds the token.
pub(crate) struct Arrival {
    pub channel: Channel,
    /// Its first frame: kind and payload.
    pub first: (u8, Vec<u8>),
    pub from: SocketAddr,
}

/// What a wait at the gate brought.
#[derive(Default)]
pub(crate) struct News {
    pub arrivals: Vec<Arrival>,
    /// Which of the channels watched besides can be read, by their index.
    pub readable: Vec<usize>,
}

enum Stage {
    Greeting(Answer, TcpStream),
    /// The first message opened; it may be a recording, so nothing is proven yet.
    Proving(Box<Channel>),
}

struct Pending {
    from: SocketAddr,
    since: Instant,
    stage: Stage,
}

/// What became of a pending connection when it was looked at.
enum Progress {
    Waits(Pending),
    Proven(Box<Arrival>),
    Refused(SocketAddr, String),
}

/// A listening socket with its pending connections.
pub(crate) struct Gate<'a> {
    listener: TcpListener,
    key: [u8; 32],
    prologue: Vec<u8>,
    pending: Vec<Pending>,
    reported: HashSet<IpAddr>,
    refusals: u64,
    last_refusal: Option<String>,
    on_refused: &'a dyn Fn(&str),
}

impl<'a> Gate<'a> {
    pub(crate) fn new(
        listener: TcpListener,
        key: [u8; 32],
        prologue: Vec<u8>,
        on_refused: &'a dyn Fn(&str),
    ) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        rustix::net::listen(&listener, BACKLOG)?;
        Ok(Self {
            listener,
            key,
            prologue,
            pending: Vec::new(),
            reported: HashSet::new(),
            refusals: 0,
            last_refusal: None,
            on_refused,
        })
    }

    /// How many connections were turned away and why the last one was, as a clause for an error message.
    pub(super) fn refusals(&self) -> Option<String> {
        let last = self.last_refusal.as_ref()?;
        Some(format!("{} connections were turned away, the last one {last}", self.refusals))
    }

    /// Waits at most `patience` until a member has proven itself or one of `watched` can be read.
    pub(crate) fn wait(&mut self, patience: Duration, watched: &[&Channel]) -> io::Result<News> {
        let until = Instant::now() + patience;
        loop {
            let mut news = News::default();
            let now = Instant::now();
            let (accepts, ready) = self.poll(until.saturating_duration_since(now), watched, &mut news.readable)?;
            self.advance_ready(&ready, &mut news.arrivals);
            if accepts {
                self.accept(&mut news.arrivals);
            }
            self.expire();
            if !news.arrivals.is_empty() || !news.readable.is_empty() || Instant::now() >= until {
                return Ok(news);
            }
        }
    }

    /// Asks the system what is ready: the listener, which pending connections, which watched channels.
    fn poll(
        &self,
        patience: Duration,
        watched: &[&Channel],
        readable: &mut Vec<usize>,
    ) -> io::Result<(bool, Vec<bool>)> {
        let mut sockets = Vec::with_capacity(1 + self.pending.len() + watched.len());
        sockets.push(PollFd::new(&self.listener, PollFlags::IN));
        for pending in &self.pending {
            let stream = match &pending.stage {
                Stage::Greeting(_, stream) => stream,
                Stage::Proving(channel) => channel.stream(),
            };
            sockets.push(PollFd::new(stream, PollFlags::IN));
        }
        sockets.extend(watched.iter().map(|channel| PollFd::new(channel.stream(), PollFlags::IN)));
        let timeout = Timespec::try_from(patience).map_err(io::Error::other)?;
        match poll(&mut sockets, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let mut ready = sockets.iter().map(|socket| !socket.revents().is_empty());
        let accepts = ready.next().unwrap_or(false);
        let pending: Vec<bool> = ready.by_ref().take(self.pending.len()).collect();
        readable.extend(ready.enumerate().filter(|(_, ready)| *ready).map(|(index, _)| index));
        Ok((accepts, pending))
    }

    fn advance_ready(&mut self, ready: &[bool], arrivals: &mut Vec<Arrival>) {
        let pending = std::mem::take(&mut self.pending);
        let flags = ready.iter().copied().chain(std::iter::repeat(false));
        for (one, is_ready) in pending.into_iter().zip(flags) {
            if is_ready {
                self.settle(one, arrivals);
            } else {
                self.pending.push(one);
            }
        }
    }

    fn accept(&mut self, arrivals: &mut Vec<Arrival>) {
        for _ in 0..ACCEPTS_PER_ROUND {
            match self.listener.accept() {
                Ok((stream, from)) => {
                    if stream.set_nonblocking(true).is_err() {
                        continue;
                    }
                    self.make_room(arrivals);
                    let stage = Stage::Greeting(Answer::new(), stream);
                    // Its first message may be there already: whoever speaks at once never takes up room.
                    self.settle(Pending { from, since: Instant::now(), stage }, arrivals);
                }
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => return,
                    // The connection was given up before we took it, or a signal came.
                    io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted => {}
                    _ => return std::thread::sleep(EXHAUSTED_PAUSE),
                },
            }
        }
    }

    /// Turns away the connection that has been silent longest; one whose first message opened goes last.
    fn make_room(&mut self, arrivals: &mut Vec<Arrival>) {
        while self.pending.len() >= MAX_PENDING {
            let silent = self.pending.iter().position(|p| matches!(&p.stage, Stage::Greeting(..)));
            let oldest = self.pending.remove(silent.unwrap_or(0));
            // It may have spoken since it was looked at last.
            match self.advance(oldest) {
                Progress::Waits(pending) => self.refuse(pending.from, "had to make place for others"),
                Progress::Proven(arrival) => arrivals.push(*arrival),
                Progress::Refused(from, why) => self.refuse(from, &why),
            }
        }
    }

    fn expire(&mut self) {
        let pending = std::mem::take(&mut self.pending);
        for one in pending {
            if one.since.elapsed() < PROOF_TIMEOUT {
                self.pending.push(one);
            } else {
                let limit = PROOF_TIMEOUT.as_secs();
                self.refuse(one.from, &format!("did not prove within {limit} s that it holds the token"));
            }
        }
    }

    fn settle(&mut self, pending: Pending, arrivals: &mut Vec<Arrival>) {
        match self.advance(pending) {
            Progress::Waits(pending) => self.pending.push(pending),
            Progress::Proven(arrival) => arrivals.push(*arrival),
            Progress::Refused(from, why) => self.refuse(from, &why),
        }
    }

    /// Reads what a pending connection has sent, without waiting.
    fn advance(&self, mut pending: Pending) -> Progress {
        let from = pending.from;
        if let Stage::Greeting(mut answer, stream) = pending.stage {
            match answer.read(&stream) {
                Ok(true) => {}
                Ok(false) => {
                    pending.stage = Stage::Greeting(answer, stream);
                    return Progress::Waits(pending);
                }
                Err(_) => {
                    let what = if answer.has_begun() { "closed in the middle of its greeting" } else { "said nothing" };
                    return Progress::Refused(from, what.to_owned());
                }
            }
            match answer.reply(stream, &self.key, &self.prologue) {
                Ok(channel) => pending.stage = Stage::Proving(Box::new(channel)),
                Err(ChannelError::Tampered(_)) => {
                    return Progress::Refused(from, "holds another token, or is another program".to_owned());
                }
                Err(error) => return Progress::Refused(from, format!("failed: {error}")),
            }
        }
        let Stage::Proving(mut channel) = pending.stage else {
            return Progress::Refused(from, "was lost".to_owned());
        };
        match channel.receiver().recv_now() {
            Ok(Some(first)) => match channel.stream().set_nonblocking(false) {
                Ok(()) => {
                    channel.trust();
                    Progress::Proven(Box::new(Arrival { channel: *channel, first, from }))
                }
                Err(error) => Progress::Refused(from, format!("failed: {error}")),
            },
            Ok(None) => {
                pending.stage = Stage::Proving(channel);
                Progress::Waits(pending)
            }
            Err(ChannelError::Closed) => {
                Progress::Refused(from, "left before it had proven that it holds the token".to_owned())
            }
            Err(_) => Progress::Refused(from, "sent a recorded or forged greeting".to_owned()),
        }
    }

    fn refuse(&mut self, from: SocketAddr, why: &str) {
        let ip = from.ip().to_canonical();
        self.refusals += 1;
        self.last_refusal = Some(format!("from {ip} {why}"));
        if self.reported.len() < MAX_REPORTED && self.reported.insert(ip) {
            let text =
                format!("a connection from {ip} was turned away: it {why}; further ones from {ip} are not reported");
            (self.on_refused)(&text);
        }
    }
}
