//! Owns one authenticated connection: bounded frames and streams of bulk data; never touches what they mean.
//!
//! A connection starts with a Noise handshake (see [`handshake`]). Afterwards it is *sealed*, every byte in a Noise
//! record of at most 65,535 bytes, or *plain*. The two directions have keys and counters of their own, so that two
//! threads can use them at the same time. On the wire:
//!
//! - sealed: records `[length u16 big-endian][ciphertext and 16-byte tag]`; a frame is one or more records whose
//!   plaintext is `[kind u8][length u32 little-endian][payload]`, bulk data is plaintext as it is. The nonce of a
//!   record is its number in its direction, with the highest bit set for bulk data: a record of one sort never opens as
//!   the other.
//! - plain: frames `[kind u8][length u32 little-endian][payload]`, bulk data as it is.

pub mod handshake;
mod receiver;
mod sender;

use std::io;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;

use snow::StatelessTransportState;

use super::error::ClusterError;
pub use receiver::Receiver;
pub use sender::Sender;

/// Largest payload of a frame in bytes.
pub const MAX_FRAME: usize = 1 << 20;
/// Kind and length before the payload of a frame.
const FRAME_HEADER_BYTES: usize = 5;
/// Length before a sealed record.
const RECORD_HEADER_BYTES: usize = 2;
/// Largest sealed record (Noise specification, section 3).
const MAX_RECORD_BYTES: usize = 65_535;
/// The authenticator at the end of a sealed record.
const TAG_BYTES: usize = 16;
/// Most plaintext of a record.
const MAX_PLAIN_BYTES: usize = MAX_RECORD_BYTES - TAG_BYTES;
/// Sealed bulk data is handed to the system this many records at a time.
const RECORDS_PER_CALL: usize = 4;
/// Set in the nonce of bulk records.
const BULK_NONCE: u64 = 1 << 63;

/// How the bytes of a connection travel after the handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wire {
    /// Encrypted and authenticated with the session keys (ChaCha20-Poly1305).
    Sealed,
    /// As they are, after mutual authentication: between processes of one host, or on a fabric the user vouches for.
    Plain,
}

impl Wire {
    /// The word for messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sealed => "sealed",
            Self::Plain => "plain",
        }
    }
}

/// Why a channel cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// The other side closed the connection or its process is gone.
    #[error("the other side closed the connection")]
    Closed,
    /// Nothing came (or could be sent) in time. A frame that came in part is kept: receiving again goes on with it.
    #[error("the other side did not answer in time")]
    Timeout,
    /// Sealed data that does not open: damaged, forged, replayed or of another sort than expected.
    #[error("damaged or forged data: {0}; the network or something between the hosts alters it")]
    Tampered(String),
    /// The two sides do not agree on what comes next.
    #[error("{0}; the processes run different programs, or this is a mistake of ours worth reporting")]
    Protocol(String),
    /// The operating system's answer.
    #[error("network error: {0}; check the connection between the hosts")]
    Io(io::Error),
    /// The caller's idle check ended the wait.
    #[error("{0}")]
    Interrupted(Box<ClusterError>),
}

impl ChannelError {
    /// Sorts an error of a socket.
    fn of(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::NotConnected => Self::Closed,
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Self::Timeout,
            _ => Self::Io(error),
        }
    }
}

/// Both directions of an authenticated connection.
#[derive(Debug)]
pub struct Channel {
    sender: Sender,
    receiver: Receiver,
}

impl Channel {
    /// Takes over a connection after its handshake; `limit` bounds the payload of frames it accepts, in bytes.
    fn sealed(stream: TcpStream, keys: StatelessTransportState, limit: usize) -> Self {
        let (stream, keys) = (Arc::new(stream), Arc::new(keys));
        Self {
            sender: Sender::new(Arc::clone(&stream), Arc::clone(&keys)),
            receiver: Receiver::new(stream, keys, limit),
        }
    }

    /// From here on the bytes travel as `wire` says. Both sides must change at the same place of the conversation.
    pub fn into_wire(mut self, wire: Wire) -> Self {
        if wire == Wire::Plain {
            self.sender.seal = None;
            self.receiver.seal = None;
        }
        self
    }

    /// Accepts frames up to [`MAX_FRAME`] from a peer that has proven to hold the token.
    pub(super) fn trust(&mut self) {
        self.receiver.limit = MAX_FRAME;
    }

    /// How the bytes travel.
    pub fn wire(&self) -> Wire {
        if self.sender.seal.is_some() { Wire::Sealed } else { Wire::Plain }
    }

    /// Two halves for two threads. The connection closes when both are dropped.
    ///
    /// # Errors
    /// None at present: the halves share one socket.
    pub fn split(self) -> Result<(Sender, Receiver), ChannelError> {
        Ok((self.sender, self.receiver))
    }

    /// The sending half, in place.
    pub fn sender(&mut self) -> &mut Sender {
        &mut self.sender
    }

    /// The receiving half, in place.
    pub fn receiver(&mut self) -> &mut Receiver {
        &mut self.receiver
    }

    /// A handle with which any thread can end the connection, also while another waits in it.
    pub fn closer(&self) -> Closer {
        Closer(Arc::clone(&self.sender.stream))
    }

    /// The socket, for waiting on several at once.
    pub(super) fn stream(&self) -> &TcpStream {
        &self.sender.stream
    }

    /// The other side's address.
    ///
    /// # Errors
    /// When the connection is gone.
    pub fn peer_addr(&self) -> Result<SocketAddr, ChannelError> {
        self.stream().peer_addr().map_err(ChannelError::of)
    }

    /// This side's address.
    ///
    /// # Errors
    /// When the connection is gone.
    pub fn local_addr(&self) -> Result<SocketAddr, ChannelError> {
        self.stream().local_addr().map_err(ChannelError::of)
    }
}

/// Ends a connection from any thread: waits in either half then return [`ChannelError::Closed`].
#[derive(Debug, Clone)]
pub struct Closer(Arc<TcpStream>);

impl Closer {
    /// Ends the connection. A second call does nothing.
    pub fn close(&self) {
        // The only failure is a connection that is gone already.
        let _ = self.0.shutdown(Shutdown::Both);
    }
}

#[cfg(test)]
mod tests;
