//! Owns the sending half of a channel; never touches the receiving half.

use std::io::{self, IoSlice, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use snow::StatelessTransportState;

use super::{
    BULK_NONCE, ChannelError, Closer, FRAME_HEADER_BYTES, MAX_FRAME, MAX_PLAIN_BYTES, RECORD_HEADER_BYTES,
    RECORDS_PER_CALL, TAG_BYTES,
};

/// The sending half of a channel.
#[derive(Debug)]
pub struct Sender {
    pub(super) stream: Arc<TcpStream>,
    pub(super) seal: Option<Arc<StatelessTransportState>>,
    /// Records sealed so far.
    sealed: u64,
    /// Sealed records on their way to the system; reused.
    records: Vec<u8>,
    /// The plaintext of a frame; reused.
    frame: Vec<u8>,
    /// A message went out in part: whatever followed would be taken for its rest.
    torn: bool,
}

impl Sender {
    pub(super) fn new(stream: Arc<TcpStream>, seal: Arc<StatelessTransportState>) -> Self {
        Self { stream, seal: Some(seal), sealed: 0, records: Vec::new(), frame: Vec::new(), torn: false }
    }

    /// Sends one frame of at most [`MAX_FRAME`] bytes.
    ///
    /// # Errors
    /// When the payload is too long, the connection is gone or the write timeout passes.
    pub fn send(&mut self, kind: u8, payload: &[u8]) -> Result<(), ChannelError> {
        if payload.len() > MAX_FRAME {
            let length = payload.len();
            return Err(ChannelError::Protocol(format!("a frame of {length} bytes exceeds the limit of {MAX_FRAME}")));
        }
        let mut header = [kind, 0, 0, 0, 0];
        header[1..].copy_from_slice(&(payload.len() as u32).to_le_bytes());
        let Some(seal) = self.seal.clone() else {
            return self.write(&mut [IoSlice::new(&header), IoSlice::new(payload)]);
        };
        let mut frame = std::mem::take(&mut self.frame);
        frame.clear();
        frame.reserve(FRAME_HEADER_BYTES + payload.len());
        frame.extend_from_slice(&header);
        frame.extend_from_slice(payload);
        let sent = self.write_sealed(&seal, &frame, 0);
        self.frame = frame;
        sent
    }

    /// Sends bytes without a frame around them: the other side must call [`super::Receiver::recv_bulk`] for as many
    /// bytes in all, in pieces of any size.
    ///
    /// # Errors
    /// When the connection is gone or the write timeout passes.
    pub fn send_bulk(&mut self, bytes: &[u8]) -> Result<(), ChannelError> {
        match self.seal.clone() {
            Some(seal) => self.write_sealed(&seal, bytes, BULK_NONCE),
            None => self.write(&mut [IoSlice::new(bytes)]),
        }
    }

    /// Ends waits in [`Sender::send`] and [`Sender::send_bulk`] when the other side accepts nothing for this long;
    /// `None` waits for ever. After such a [`ChannelError::Timeout`] nothing can be sent any more.
    ///
    /// # Errors
    /// When the system refuses the timeout, or it is zero.
    pub fn set_write_timeout(&mut self, timeout: Option<Duration>) -> Result<(), ChannelError> {
        self.stream.set_write_timeout(timeout).map_err(ChannelError::of)
    }

    /// A handle with which any thread can end the connection.
    pub fn closer(&self) -> Closer {
        Closer(Arc::clone(&self.stream))
    }

    fn write_sealed(&mut self, seal: &StatelessTransportState, bytes: &[u8], sort: u64) -> Result<(), ChannelError> {
        let mut records = std::mem::take(&mut self.records);
        let mut result = Ok(());
        for batch in bytes.chunks(MAX_PLAIN_BYTES * RECORDS_PER_CALL) {
            result = self
                .seal_batch(seal, batch, sort, &mut records)
                .and_then(|length| self.write(&mut [IoSlice::new(records.get(..length).unwrap_or_default())]));
            if result.is_err() {
                break;
            }
        }
        self.records = records;
        result
    }

    /// Seals `bytes` into records at the start of `records`; returns how many bytes these take.
    fn seal_batch(
        &mut self,
        seal: &StatelessTransportState,
        bytes: &[u8],
        sort: u64,
        records: &mut Vec<u8>,
    ) -> Result<usize, ChannelError> {
        let count = bytes.len().div_ceil(MAX_PLAIN_BYTES);
        let needed = bytes.len() + count * (RECORD_HEADER_BYTES + TAG_BYTES);
        if records.len() < needed {
            records.resize(needed, 0);
        }
        let mut at = 0;
        for plain in bytes.chunks(MAX_PLAIN_BYTES) {
            let length = plain.len() + TAG_BYTES;
            let body = at + RECORD_HEADER_BYTES;
            records[at..body].copy_from_slice(&(length as u16).to_be_bytes());
            seal.write_message(self.sealed | sort, plain, &mut records[body..body + length])
                .map_err(|e| ChannelError::Protocol(format!("cannot seal a record: {e}")))?;
            self.sealed += 1;
            at = body + length;
        }
        Ok(at)
    }

    /// Writes everything, with one system call where the socket's buffer allows it.
    fn write(&mut self, mut parts: &mut [IoSlice<'_>]) -> Result<(), ChannelError> {
        if self.torn {
            return Err(ChannelError::Protocol("an earlier message went out only in part".to_owned()));
        }
        // Drops empty parts, for which a write of 0 bytes would look like a closed connection.
        IoSlice::advance_slices(&mut parts, 0);
        while !parts.is_empty() {
            match (&*self.stream).write_vectored(parts) {
                Ok(0) => return Err(self.tear(ChannelError::Closed)),
                Ok(count) => IoSlice::advance_slices(&mut parts, count),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.tear(ChannelError::of(error))),
            }
        }
        Ok(())
    }

    fn tear(&mut self, error: ChannelError) -> ChannelError {
        // A closed connection stays closed by itself and keeps its own error.
        self.torn = !matches!(error, ChannelError::Closed);
        error
    }
}
