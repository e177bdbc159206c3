//! Owns networks that misbehave: TCP connections led through them are delayed, starved, cut, reset, swallowed or
//! altered; never touches what the bytes mean. Also compiled into the library's own tests.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// How often a thread that waits looks at the weather.
const LOOK: Duration = Duration::from_millis(10);
/// Bytes forwarded at a time.
const PIECE_BYTES: usize = 64 * 1024;

/// What happens to all bytes from now on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Weather {
    /// They arrive.
    Fair,
    /// They arrive so much later.
    Late(Duration),
    /// They arrive in pieces of so many bytes, with a pause before each.
    Trickle(usize, Duration),
    /// Connections are accepted and stand, and nothing ever arrives.
    BlackHole,
}

/// What happens once to the connections that exist.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Blow {
    /// Half of what is on the way arrives, then the stream ends in good order.
    Cut,
    /// Half of what is on the way arrives, then a reset.
    Reset,
}

struct Shared {
    weather: Mutex<Weather>,
    /// Connections that are older than the newest blow do not survive it.
    blows: AtomicU64,
    blow: Mutex<Blow>,
    /// Pieces of at least so many bytes have one bit inverted on the way, once a direction; 0 for none.
    flips_from: AtomicU64,
    flipped: AtomicU64,
    over: AtomicBool,
}

/// A network with a weather of its own, for any number of connections. Fair until told otherwise.
pub struct Network(Arc<Shared>);

impl Default for Network {
    fn default() -> Self {
        Self(Arc::new(Shared {
            weather: Mutex::new(Weather::Fair),
            blows: AtomicU64::new(0),
            blow: Mutex::new(Blow::Cut),
            flips_from: AtomicU64::new(0),
            flipped: AtomicU64::new(0),
            over: AtomicBool::new(false),
        }))
    }
}

impl Network {
    /// An address whose connections reach `target` through this network.
    pub fn lead_to(&self, target: SocketAddr) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        listener.set_nonblocking(true).unwrap();
        let shared = Arc::clone(&self.0);
        thread::spawn(move || {
            while !shared.over.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((from, _)) => connect(&shared, from, target),
                    Err(_) => thread::sleep(LOOK),
                }
            }
        });
        address
    }

    pub fn becomes(&self, weather: Weather) {
        *self.0.weather.lock().unwrap() = weather;
    }

    /// Hits all connections that exist; later ones are not affected.
    pub fn strike(&self, blow: Blow) {
        *self.0.blow.lock().unwrap() = blow;
        self.0.blows.fetch_add(1, Ordering::Relaxed);
    }

    /// From now on every direction of every connection inverts one bit in the middle of its next piece of at least so
    /// many bytes.
    pub fn flip_a_bit_in_pieces_of(&self, bytes: u64) {
        self.0.flips_from.store(bytes, Ordering::Relaxed);
    }

    /// Bits inverted so far.
    pub fn flipped(&self) -> u64 {
        self.0.flipped.load(Ordering::Relaxed)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::Relaxed);
    }
}

fn connect(shared: &Arc<Shared>, from: TcpStream, target: SocketAddr) {
    // Whoever dials a place where nobody is sees the connection end, instead of a refusal.
    let Ok(to) = TcpStream::connect(target) else { return };
    from.set_nonblocking(false).unwrap();
    let (from, to) = (Arc::new(from), Arc::new(to));
    let born = shared.blows.load(Ordering::Relaxed);
    for (source, sink) in [(&from, &to), (&to, &from)] {
        source.set_nodelay(true).unwrap();
        source.set_read_timeout(Some(LOOK)).unwrap();
        let (send, queue) = sync_channel(8);
        let way = Way { shared: Arc::clone(shared), source: Arc::clone(source), sink: Arc::clone(sink), born };
        let end = Way { shared: Arc::clone(shared), source: Arc::clone(source), sink: Arc::clone(sink), born };
        thread::spawn(move || way.take(&send));
        thread::spawn(move || end.give(&queue));
    }
}

/// One direction of a connection.
struct Way {
    shared: Arc<Shared>,
    source: Arc<TcpStream>,
    sink: Arc<TcpStream>,
    born: u64,
}

impl Way {
    fn weather(&self) -> Weather {
        *self.shared.weather.lock().unwrap()
    }

    fn is_struck(&self) -> bool {
        self.shared.blows.load(Ordering::Relaxed) > self.born
    }

    fn is_over(&self) -> bool {
        self.shared.over.load(Ordering::Relaxed)
    }

    /// Ends both sides of the connection as the blow wants it.
    fn end(&self) {
        let blow = *self.shared.blow.lock().unwrap();
        for side in [&self.source, &self.sink] {
            // To connect with nobody is to reset the connection.
            if !(self.is_struck() && blow == Blow::Reset && rustix::net::connect_unspec(side).is_ok()) {
                let _ = side.shutdown(Shutdown::Both);
            }
        }
    }

    /// Takes bytes from the source, with the time at which they came.
    fn take(&self, queue: &SyncSender<(Instant, Vec<u8>)>) {
        let mut piece = vec![0; PIECE_BYTES];
        while !self.is_struck() && !self.is_over() {
            if self.weather() == Weather::BlackHole {
                thread::sleep(LOOK);
                continue;
            }
            match (&*self.source).read(&mut piece) {
                Ok(0) => return,
                Ok(count) if queue.send((Instant::now(), piece[..count].to_vec())).is_err() => return,
                Ok(_) => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(_) => return,
            }
        }
    }

    /// Gives them to the sink.
    fn give(&self, queue: &Receiver<(Instant, Vec<u8>)>) {
        let mut flipped = false;
        loop {
            let next = queue.recv_timeout(LOOK);
            if self.is_struck() || self.is_over() {
                if let Ok((_, piece)) = next {
                    let _ = (&*self.sink).write_all(&piece[..piece.len() / 2]);
                }
                return self.end();
            }
            match next {
                Ok((came, mut piece)) => {
                    let from = self.shared.flips_from.load(Ordering::Relaxed);
                    if from > 0 && !flipped && piece.len() as u64 >= from {
                        let middle = piece.len() / 2;
                        piece[middle] ^= 1 << 3;
                        flipped = true;
                        self.shared.flipped.fetch_add(1, Ordering::Relaxed);
                    }
                    if self.forward(came, &piece).is_none() {
                        return self.end();
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    // The source is done sending; what comes the other way still passes.
                    let _ = self.sink.shutdown(Shutdown::Write);
                    return;
                }
            }
        }
    }

    /// Forwards a piece as the weather has it; `None` when the connection must end.
    fn forward(&self, came: Instant, piece: &[u8]) -> Option<()> {
        let mut sink = &*self.sink;
        match self.weather() {
            Weather::Late(delay) => thread::sleep((came + delay).saturating_duration_since(Instant::now())),
            Weather::Trickle(bytes, pause) => {
                for part in piece.chunks(bytes) {
                    thread::sleep(pause);
                    sink.write_all(part).ok()?;
                }
                return Some(());
            }
            Weather::Fair => {}
            Weather::BlackHole => {
                while self.weather() == Weather::BlackHole {
                    if self.is_struck() || self.is_over() {
                        return None;
                    }
                    thread::sleep(LOOK);
                }
            }
        }
        sink.write_all(piece).ok()
    }
}
