//! Owns the data connection to one rank: a thread that sends, buffers that go round, waits that end with a verdict;
//! never touches what is computed.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crate::cluster::channel::{Channel, ChannelError, Closer, Receiver, Sender};
use crate::cluster::control::Control;
use crate::cluster::error::{Cause, ClusterError};

use crate::cluster::header::{HEADER_BYTES, Header};

/// Bytes handed over at a time. Small enough to stay in the cache between the copy into the buffer, the kernel's copy
/// and, on the other side, the sum.
pub(super) const CHUNK_BYTES: usize = 256 * 1024;

/// Buffers a link owns: so many chunks may be on their way to the socket.
pub(super) const BUFFERS: usize = 4;

/// Between two looks for a verdict while waiting for a buffer.
const LOOK: Duration = Duration::from_millis(40);

/// The data connection to one rank.
pub(super) struct Link {
    peer: usize,
    /// To the sending thread.
    full: mpsc::Sender<Vec<u8>>,
    /// From the sending thread; disconnected once it has failed.
    empty: mpsc::Receiver<Vec<u8>>,
    spare: Vec<Vec<u8>>,
    /// Why the sending thread ended.
    failure: Arc<Mutex<Option<String>>>,
    receiver: Receiver,
    closer: Closer,
    /// Goes out before the next data.
    header: Option<Header>,
    /// Messages sent and received with [`Link::begin`]/[`Link::expect`] outside collectives.
    pub(super) messages: (u32, u32),
}

impl Link {
    /// Takes over the connection to `peer` and starts its sending thread.
    pub(super) fn new(peer: usize, channel: Channel) -> Result<Self, ClusterError> {
        let local = |cause: String, advice: &str| ClusterError::Local {
            what: format!("cannot use the data connection to rank {peer}"),
            cause,
            advice: advice.into(),
        };
        let closer = channel.closer();
        let (sender, receiver) = channel.split().map_err(|e| local(e.to_string(), "restart the run"))?;
        let (full, queue) = mpsc::channel();
        let (give_back, empty) = mpsc::channel();
        let failure = Arc::new(Mutex::new(None));
        let noted = Arc::clone(&failure);
        thread::Builder::new()
            .name(format!("data-to-{peer}"))
            .spawn(move || send_all(sender, &queue, &give_back, &noted))
            .map_err(|e| local(e.to_string(), "raise the limit on processes (`ulimit -u`)"))?;
        let spare = (0..BUFFERS).map(|_| Vec::with_capacity(HEADER_BYTES + CHUNK_BYTES)).collect();
        Ok(Self { peer, full, empty, spare, failure, receiver, closer, header: None, messages: (0, 0) })
    }

    /// The next data belongs to `header`.
    pub(super) fn begin(&mut self, header: Header) {
        self.header = Some(header);
    }

    /// Whether [`Link::buffer`] would return at once.
    pub(super) fn has_room(&mut self) -> bool {
        self.spare.extend(self.empty.try_iter());
        !self.spare.is_empty()
    }

    /// A buffer for at most [`CHUNK_BYTES`] more bytes, which already holds the header where one is due. Waits while
    /// all are on their way.
    pub(super) fn buffer(&mut self, control: &Control) -> Result<Vec<u8>, ClusterError> {
        while !self.has_room() {
            self.await_buffer(control)?;
        }
        let mut buffer = self.spare.pop().unwrap_or_default();
        buffer.clear();
        if let Some(header) = self.header.take() {
            buffer.extend_from_slice(&header.encode());
        }
        Ok(buffer)
    }

    fn await_buffer(&mut self, control: &Control) -> Result<(), ClusterError> {
        match self.empty.recv_timeout(LOOK) {
            Ok(buffer) => self.spare.push(buffer),
            Err(RecvTimeoutError::Timeout) => {
                control.wait_for(self.peer);
                control.check()?;
            }
            Err(RecvTimeoutError::Disconnected) => return Err(self.sending_failed(control)),
        }
        Ok(())
    }

    fn sending_failed(&self, control: &Control) -> ClusterError {
        let failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner).take();
        control.lost(self.peer, &format!("sending data failed: {}", failure.unwrap_or_default()))
    }

    /// Hands a buffer of [`Link::buffer`] to the sending thread.
    pub(super) fn push(&mut self, buffer: Vec<u8>, control: &Control) -> Result<(), ClusterError> {
        self.full.send(buffer).map_err(|_| self.sending_failed(control))
    }

    /// Sends bytes, chunk by chunk.
    pub(super) fn push_bytes(&mut self, bytes: &[u8], control: &Control) -> Result<(), ClusterError> {
        for chunk in bytes.chunks(CHUNK_BYTES) {
            let mut buffer = self.buffer(control)?;
            buffer.extend_from_slice(chunk);
            self.push(buffer, control)?;
        }
        Ok(())
    }

    /// Sends the header now if no data has taken it along.
    pub(super) fn flush_header(&mut self, control: &Control) -> Result<(), ClusterError> {
        if self.header.is_some() {
            let buffer = self.buffer(control)?;
            self.push(buffer, control)?;
        }
        Ok(())
    }

    /// Waits until the system has everything: afterwards the connection may be closed without losing any.
    pub(super) fn finish(&mut self, control: &Control) -> Result<(), ClusterError> {
        self.header = None;
        while self.spare.len() < BUFFERS {
            self.await_buffer(control)?;
        }
        Ok(())
    }

    /// Fills `into`.
    pub(super) fn recv(&mut self, into: &mut [u8], control: &Control) -> Result<(), ClusterError> {
        let peer = self.peer;
        let mut idle = || {
            control.wait_for(peer);
            control.check().map_err(|e| ChannelError::Interrupted(Box::new(e)))
        };
        let received = self.receiver.recv_bulk(into, &mut idle);
        match received {
            Ok(()) => {
                control.progress();
                Ok(())
            }
            Err(ChannelError::Interrupted(error)) => Err(*error),
            // It lives, but what comes from it is useless.
            Err(error @ (ChannelError::Tampered(_) | ChannelError::Protocol(_))) => {
                let detail = format!("rank {} cannot use what comes from it: {error}", control.rank());
                Err(control.accuse(peer, Cause::Disagrees, &detail))
            }
            Err(error) => Err(control.lost(peer, &format!("receiving data failed: {error}"))),
        }
    }

    /// Receives a header and compares it with `mine`; `exact` includes the number of elements. Returns that number.
    pub(super) fn expect(&mut self, mine: Header, exact: bool, control: &Control) -> Result<u64, ClusterError> {
        let mut bytes = [0; HEADER_BYTES];
        self.recv(&mut bytes, control)?;
        match Header::decode(bytes) {
            Some(theirs) if theirs == mine || (!exact && mine.agrees_except_length(&theirs)) => Ok(theirs.elements),
            Some(theirs) => Err(control.disagree(self.peer, &mine.describe(), &theirs.describe())),
            None => Err(control.disagree(self.peer, &mine.describe(), "something that cannot be read")),
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // Also ends a write to a rank that does not read.
        self.closer.close();
    }
}

fn send_all(
    mut sender: Sender,
    queue: &mpsc::Receiver<Vec<u8>>,
    give_back: &mpsc::Sender<Vec<u8>>,
    failure: &Mutex<Option<String>>,
) {
    for buffer in queue {
        if let Err(error) = sender.send_bulk(&buffer) {
            *failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.to_string());
            return;
        }
        if give_back.send(buffer).is_err() {
            return;
        }
    }
}
