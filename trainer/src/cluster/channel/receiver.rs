//! Owns the receiving half of a channel and its waiting; never touches the sending half.
//!
//! A wait that ends early loses nothing: bytes stay in the buffer, a frame that came in part stays in `frame`.

use std::io::{self, Read};
use std::net::TcpStream;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use snow::StatelessTransportState;

use super::{
    BULK_NONCE, ChannelError, Closer, FRAME_HEADER_BYTES, MAX_FRAME, MAX_RECORD_BYTES, RECORD_HEADER_BYTES,
    RECORDS_PER_CALL, TAG_BYTES,
};

/// How long a read of bulk data waits before the caller's check: under the promised 50 ms, since the kernel rounds
/// timeouts up to its clock ticks.
const IDLE_TICK: Duration = Duration::from_millis(40);
/// The shortest timeout that the kernel does not take for "for ever".
const SHORTEST_WAIT: Duration = Duration::from_millis(1);
/// Bytes read ahead for plain frames: enough for most, little enough that bulk data behind is not copied twice.
const PLAIN_ROOM: usize = 4096;
/// Bytes read ahead for sealed bulk data.
const BULK_ROOM: usize = RECORDS_PER_CALL * (RECORD_HEADER_BYTES + MAX_RECORD_BYTES);

/// How to wait for bytes.
pub(super) enum Wait<'a> {
    /// Not at all: the socket does not block.
    Now,
    /// Until a moment, or for ever.
    Until(Option<Instant>),
    /// With a check whenever nothing came for [`IDLE_TICK`].
    Idle(&'a mut dyn FnMut() -> Result<(), ChannelError>),
}

/// A socket that remembers its read timeout, to spare a system call per read.
#[derive(Debug)]
pub(super) struct Socket {
    stream: Arc<TcpStream>,
    timeout: Option<Option<Duration>>,
}

impl Socket {
    pub(super) fn new(stream: Arc<TcpStream>) -> Self {
        Self { stream, timeout: None }
    }

    /// Reads at least one byte.
    pub(super) fn read_some(&mut self, into: &mut [u8], wait: &mut Wait<'_>) -> Result<usize, ChannelError> {
        let mut last = Instant::now();
        loop {
            let until = match wait {
                Wait::Until(until) => *until,
                _ => None,
            };
            self.set_timeout(match wait {
                Wait::Now => self.timeout.flatten(),
                Wait::Idle(_) => Some(IDLE_TICK),
                Wait::Until(_) => until.map(|t| t.saturating_duration_since(last).max(SHORTEST_WAIT)),
            })?;
            let mut signalled = false;
            match (&*self.stream).read(into) {
                Ok(0) => return Err(ChannelError::Closed),
                Ok(count) => return Ok(count),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => signalled = true,
                Err(error) => match ChannelError::of(error) {
                    ChannelError::Timeout => {}
                    other => return Err(other),
                },
            }
            let now = Instant::now();
            match wait {
                Wait::Now if signalled => {}
                Wait::Now => return Err(ChannelError::Timeout),
                Wait::Until(_) if until.is_some_and(|t| now >= t) => return Err(ChannelError::Timeout),
                Wait::Until(_) => last = now,
                // Frequent signals must not put the check off for ever; a few must not bring it forward.
                Wait::Idle(_) if signalled && now - last < IDLE_TICK => {}
                Wait::Idle(check) => {
                    last = now;
                    check()?;
                }
            }
        }
    }

    fn set_timeout(&mut self, timeout: Option<Duration>) -> Result<(), ChannelError> {
        if self.timeout != Some(timeout) {
            self.stream.set_read_timeout(timeout).map_err(ChannelError::of)?;
            self.timeout = Some(timeout);
        }
        Ok(())
    }
}

/// A frame whose header came, but perhaps not all of its payload.
#[derive(Debug)]
struct Assembly {
    kind: u8,
    payload: Vec<u8>,
    filled: usize,
}

/// The receiving half of a channel.
#[derive(Debug)]
pub struct Receiver {
    socket: Socket,
    pub(super) seal: Option<Arc<StatelessTransportState>>,
    /// Records opened so far.
    opened: u64,
    /// Bytes as they came; `raw[unread]` is not looked at yet.
    raw: Vec<u8>,
    unread: Range<usize>,
    /// Plaintext of a record; `plain[waiting]` is bulk data that the caller has not taken yet.
    plain: Vec<u8>,
    waiting: Range<usize>,
    frame: Option<Assembly>,
    /// Largest payload accepted, in bytes.
    pub(super) limit: usize,
    timeout: Option<Duration>,
    /// Bulk data was read in part: its rest would be taken for something else.
    torn: bool,
}

impl Receiver {
    pub(super) fn new(stream: Arc<TcpStream>, seal: Arc<StatelessTransportState>, limit: usize) -> Self {
        Self {
            socket: Socket::new(stream),
            seal: Some(seal),
            opened: 0,
            raw: Vec::new(),
            unread: 0..0,
            plain: Vec::new(),
            waiting: 0..0,
            frame: None,
            limit: limit.min(MAX_FRAME),
            timeout: None,
            torn: false,
        }
    }

    /// Receives one frame: its kind and its payload of at most [`MAX_FRAME`] bytes.
    ///
    /// # Errors
    /// [`ChannelError::Timeout`] when the whole frame does not come within the read timeout; what came is kept.
    pub fn recv(&mut self) -> Result<(u8, Vec<u8>), ChannelError> {
        self.recv_frame(&mut Wait::Until(self.timeout.map(|t| Instant::now() + t)))
    }

    /// A frame if one comes whole within this time; what came of it is kept otherwise.
    ///
    /// # Errors
    /// When the connection is gone or damaged.
    pub fn try_recv(&mut self, within: Duration) -> Result<Option<(u8, Vec<u8>)>, ChannelError> {
        match self.recv_frame(&mut Wait::Until(Some(Instant::now() + within))) {
            Ok(frame) => Ok(Some(frame)),
            Err(ChannelError::Timeout) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A frame, calling `idle` whenever 50 ms pass without a byte; its error ends the wait, and what came is kept.
    ///
    /// # Errors
    /// When the connection is gone or damaged, or `idle` says so.
    pub fn recv_idle(
        &mut self,
        idle: &mut dyn FnMut() -> Result<(), ChannelError>,
    ) -> Result<(u8, Vec<u8>), ChannelError> {
        self.recv_frame(&mut Wait::Idle(idle))
    }

    /// A frame if the bytes of a whole one are there; for sockets that do not block.
    pub(in super::super) fn recv_now(&mut self) -> Result<Option<(u8, Vec<u8>)>, ChannelError> {
        match self.recv_frame(&mut Wait::Now) {
            Ok(frame) => Ok(Some(frame)),
            Err(ChannelError::Timeout) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Fills `into` with bulk data, calling `idle` whenever 50 ms pass without a byte.
    ///
    /// # Errors
    /// When the connection is gone or damaged, or `idle` says so. If a part had come by then, that part is lost and
    /// nothing can be received any more.
    pub fn recv_bulk(
        &mut self,
        into: &mut [u8],
        idle: &mut dyn FnMut() -> Result<(), ChannelError>,
    ) -> Result<(), ChannelError> {
        self.check_whole()?;
        if self.frame.is_some() {
            return Err(ChannelError::Protocol("bulk data was asked for in the middle of a frame".to_owned()));
        }
        let mut done = 0;
        let result = match self.seal.clone() {
            Some(seal) => self.fill_sealed(&seal, into, &mut done, &mut Wait::Idle(idle)),
            None => self.fill_plain(into, &mut done, &mut Wait::Idle(idle)),
        };
        self.torn = result.is_err() && done > 0;
        result
    }

    /// Bounds the wait of [`Receiver::recv`] for a whole frame; `None` waits for ever.
    ///
    /// # Errors
    /// None at present: it is set when a read needs it.
    pub fn set_read_timeout(&mut self, timeout: Option<Duration>) -> Result<(), ChannelError> {
        self.timeout = timeout;
        Ok(())
    }

    /// A handle with which any thread can end the connection.
    pub fn closer(&self) -> Closer {
        Closer(Arc::clone(&self.socket.stream))
    }

    /// Forgets what came, so that a test can go on after damaged bytes.
    #[cfg(test)]
    pub(super) fn discard_unread(&mut self) {
        self.unread = 0..0;
    }

    fn check_whole(&self) -> Result<(), ChannelError> {
        if self.torn {
            return Err(ChannelError::Protocol("earlier bulk data was received only in part".to_owned()));
        }
        Ok(())
    }

    fn recv_frame(&mut self, wait: &mut Wait<'_>) -> Result<(u8, Vec<u8>), ChannelError> {
        self.check_whole()?;
        if !self.waiting.is_empty() {
            let left = self.waiting.len();
            return Err(ChannelError::Protocol(format!(
                "a frame was asked for, but {left} bytes of bulk data are left"
            )));
        }
        match self.seal.clone() {
            Some(seal) => self.assemble_sealed(&seal, wait)?,
            None => self.assemble_plain(wait)?,
        }
        match self.frame.take() {
            Some(frame) => Ok((frame.kind, frame.payload)),
            None => Err(ChannelError::Protocol("a frame without a header".to_owned())),
        }
    }

    /// Reads a header and makes room for its payload, whose length is checked first.
    fn open_frame(&self, header: [u8; FRAME_HEADER_BYTES]) -> Result<Assembly, ChannelError> {
        let [kind, a, b, c, d] = header;
        let length = u32::from_le_bytes([a, b, c, d]) as usize;
        if length > self.limit {
            let limit = self.limit;
            return Err(ChannelError::Protocol(format!("a frame of {length} bytes came, the limit is {limit}")));
        }
        Ok(Assembly { kind, payload: vec![0; length], filled: 0 })
    }

    fn assemble_plain(&mut self, wait: &mut Wait<'_>) -> Result<(), ChannelError> {
        let mut frame = match self.frame.take() {
            Some(frame) => frame,
            None => {
                self.fill(FRAME_HEADER_BYTES, PLAIN_ROOM, wait)?;
                let mut header = [0; FRAME_HEADER_BYTES];
                self.take_raw(&mut header);
                self.open_frame(header)?
            }
        };
        while frame.filled < frame.payload.len() {
            let rest = &mut frame.payload[frame.filled..];
            let taken = self.take_raw(rest);
            let got = if taken > 0 { Ok(taken) } else { self.socket.read_some(rest, wait) };
            match got {
                Ok(count) => frame.filled += count,
                Err(error) => {
                    self.frame = Some(frame);
                    return Err(error);
                }
            }
        }
        self.frame = Some(frame);
        Ok(())
    }

    fn assemble_sealed(&mut self, seal: &StatelessTransportState, wait: &mut Wait<'_>) -> Result<(), ChannelError> {
        // Before authentication the limit is small, and so is what a stranger can make this side hold.
        let most = (self.limit + FRAME_HEADER_BYTES + TAG_BYTES).min(MAX_RECORD_BYTES);
        loop {
            if self.frame.as_ref().is_some_and(|f| f.filled == f.payload.len()) {
                return Ok(());
            }
            let body = self.record(most, RECORD_HEADER_BYTES + most, wait)?;
            let length = self.open_into_plain(seal, body, 0)?;
            let mut rest = &self.plain[..length];
            let mut frame = match self.frame.take() {
                Some(frame) => frame,
                None => {
                    let Some((header, payload)) = rest.split_first_chunk::<FRAME_HEADER_BYTES>() else {
                        return Err(ChannelError::Protocol(format!("a frame started with only {length} bytes")));
                    };
                    rest = payload;
                    self.open_frame(*header)?
                }
            };
            let Some(room) = frame.payload.get_mut(frame.filled..frame.filled + rest.len()) else {
                return Err(ChannelError::Protocol("a frame is longer than its header says".to_owned()));
            };
            room.copy_from_slice(rest);
            frame.filled += rest.len();
            self.frame = Some(frame);
        }
    }

    fn fill_plain(&mut self, into: &mut [u8], done: &mut usize, wait: &mut Wait<'_>) -> Result<(), ChannelError> {
        *done = self.take_raw(into);
        while *done < into.len() {
            *done += self.socket.read_some(&mut into[*done..], wait)?;
        }
        Ok(())
    }

    fn fill_sealed(
        &mut self,
        seal: &StatelessTransportState,
        into: &mut [u8],
        done: &mut usize,
        wait: &mut Wait<'_>,
    ) -> Result<(), ChannelError> {
        while *done < into.len() {
            if !self.waiting.is_empty() {
                let count = self.waiting.len().min(into.len() - *done);
                let from = self.waiting.start;
                into[*done..*done + count].copy_from_slice(&self.plain[from..from + count]);
                self.waiting.start += count;
                *done += count;
                continue;
            }
            let body = self.record(MAX_RECORD_BYTES, BULK_ROOM, wait)?;
            let length = body.len() - TAG_BYTES;
            match into.get_mut(*done..).filter(|target| target.len() >= length) {
                // With the room behind it: there some ciphers open a record in place, tag and all. The next record
                // overwrites that.
                Some(target) => {
                    open_record(seal, self.opened | BULK_NONCE, &self.raw[body.clone()], target)?;
                    self.opened += 1;
                    self.unread.start = body.end;
                    *done += length;
                }
                // The record reaches beyond what was asked for: keep its end for the next call.
                None => self.waiting = 0..self.open_into_plain(seal, body, BULK_NONCE)?,
            }
        }
        Ok(())
    }

    /// Opens the record at `raw[body]` into `plain`; returns the length of its plaintext.
    fn open_into_plain(
        &mut self,
        seal: &StatelessTransportState,
        body: Range<usize>,
        sort: u64,
    ) -> Result<usize, ChannelError> {
        let length = body.len() - TAG_BYTES;
        if self.plain.len() < body.len() {
            // Records of bulk data are all but one of full size: grow once.
            self.plain.resize(if sort == BULK_NONCE { MAX_RECORD_BYTES } else { body.len() }, 0);
        }
        open_record(seal, self.opened | sort, &self.raw[body.clone()], &mut self.plain)?;
        self.opened += 1;
        self.unread.start = body.end;
        Ok(length)
    }

    /// Waits for a whole record of at most `most` bytes; returns where its ciphertext stands in `raw`.
    fn record(&mut self, most: usize, room: usize, wait: &mut Wait<'_>) -> Result<Range<usize>, ChannelError> {
        self.fill(RECORD_HEADER_BYTES, room, wait)?;
        let at = self.unread.start;
        let length = usize::from(u16::from_be_bytes([self.raw[at], self.raw[at + 1]]));
        if length <= TAG_BYTES || length > most {
            return Err(ChannelError::Tampered(format!("a record of {length} bytes; {most} are allowed")));
        }
        self.fill(RECORD_HEADER_BYTES + length, room, wait)?;
        let body = self.unread.start + RECORD_HEADER_BYTES;
        Ok(body..body + length)
    }

    /// Reads until `need` bytes are unread; at most `room` bytes are held.
    fn fill(&mut self, need: usize, room: usize, wait: &mut Wait<'_>) -> Result<(), ChannelError> {
        while self.unread.len() < need {
            if self.unread.is_empty() {
                self.unread = 0..0;
            }
            if self.raw.len() < room.max(need) {
                self.raw.resize(room.max(need), 0);
            }
            if self.unread.start + need > self.raw.len() {
                self.raw.copy_within(self.unread.clone(), 0);
                self.unread = 0..self.unread.len();
            }
            self.unread.end += self.socket.read_some(&mut self.raw[self.unread.end..], wait)?;
        }
        Ok(())
    }

    /// Moves unread bytes into `into`, as many as there are and fit; returns how many.
    fn take_raw(&mut self, into: &mut [u8]) -> usize {
        let count = self.unread.len().min(into.len());
        let from = self.unread.start;
        into[..count].copy_from_slice(&self.raw[from..from + count]);
        self.unread.start += count;
        count
    }
}

fn open_record(
    seal: &StatelessTransportState,
    nonce: u64,
    record: &[u8],
    plain: &mut [u8],
) -> Result<(), ChannelError> {
    match seal.read_message(nonce, record, plain) {
        Ok(_) => Ok(()),
        Err(_) => Err(ChannelError::Tampered(format!("record {} does not open", nonce & !BULK_NONCE))),
    }
}
