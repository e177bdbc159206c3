//! Owns the handshake that proves both sides hold the token; never touches what they say afterwards.
//!
//! Pattern `NNpsk0` of the Noise protocol framework (revision 34): both sides send a fresh ephemeral key, and the
//! pre-shared key goes into every step. Both messages are 48 bytes: a key and the authenticator of an empty payload. A
//! recorded first message can be sent again by anyone, so the side that answers knows its peer only when the first
//! sealed frame opens: until then [`UNPROVEN_FRAME_BYTES`] bounds what it reads.

use std::io::{self, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Instant;

use snow::{Builder, HandshakeState};

use super::receiver::{Socket, Wait};
use super::{Channel, ChannelError, FRAME_HEADER_BYTES, RECORD_HEADER_BYTES, TAG_BYTES};

const PATTERN: &str = "Noise_NNpsk0_25519_ChaChaPoly_BLAKE2s";
/// Length of either message of the handshake.
pub const MESSAGE_BYTES: usize = 48;
/// Largest payload of the first frame: with everything around it and the first message, a stranger can make this side
/// hold 4 KiB.
pub const UNPROVEN_FRAME_BYTES: usize = 4096 - MESSAGE_BYTES - RECORD_HEADER_BYTES - FRAME_HEADER_BYTES - TAG_BYTES;
/// What the side that answers sends instead of its message when the first one does not open. It proves nothing, but
/// lets an honest member with the wrong token say so.
pub const OTHER_TOKEN: [u8; MESSAGE_BYTES] = *b"jazari: this run has another token or protocol.\n";

/// Why a handshake failed, as seen by the side that dialled.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// A process of Jazari answered that it could not open our message.
    #[error("it holds another token, or runs another version of Jazari")]
    OtherToken,
    /// What came back is no answer that a holder of the token would give.
    #[error("what answers there is another program, or holds another token")]
    Stranger,
    /// The connection failed.
    #[error("{0}")]
    Channel(ChannelError),
}

fn builder<'a>(key: &'a [u8; 32], prologue: &'a [u8]) -> Result<Builder<'a>, snow::Error> {
    Builder::new(PATTERN.parse()?).psk(0, key)?.prologue(prologue)
}

fn unusable(error: snow::Error) -> ChannelError {
    ChannelError::Protocol(format!("cannot prepare the handshake: {error}"))
}

/// Dials: sends the first message and checks the answer. `check` is called whenever 50 ms pass without a byte; its
/// error ends the wait.
///
/// # Errors
/// When the other side does not hold the same key and prologue, or does not answer before `deadline`.
pub fn dial(
    stream: TcpStream,
    key: &[u8; 32],
    prologue: &[u8],
    deadline: Instant,
    check: &mut dyn FnMut() -> Result<(), ChannelError>,
) -> Result<Channel, HandshakeError> {
    let mut state =
        builder(key, prologue).and_then(Builder::build_initiator).map_err(|e| HandshakeError::Channel(unusable(e)))?;
    let mut message = [0; MESSAGE_BYTES];
    state.write_message(&[], &mut message).map_err(|e| HandshakeError::Channel(unusable(e)))?;
    let failed = |e: io::Error| HandshakeError::Channel(ChannelError::of(e));
    stream.set_nodelay(true).map_err(failed)?;
    (&stream).write_all(&message).map_err(failed)?;
    let stream = Arc::new(stream);
    let mut socket = Socket::new(Arc::clone(&stream));
    let mut filled = 0;
    while filled < MESSAGE_BYTES {
        let mut idle = || if Instant::now() >= deadline { Err(ChannelError::Timeout) } else { check() };
        filled +=
            socket.read_some(&mut message[filled..], &mut Wait::Idle(&mut idle)).map_err(HandshakeError::Channel)?;
    }
    drop(socket);
    if message == OTHER_TOKEN {
        return Err(HandshakeError::OtherToken);
    }
    state.read_message(&message, &mut []).map_err(|_| HandshakeError::Stranger)?;
    let keys = state.into_stateless_transport_mode().map_err(|e| HandshakeError::Channel(unusable(e)))?;
    let Some(stream) = Arc::into_inner(stream) else {
        return Err(HandshakeError::Channel(ChannelError::Protocol("the socket is in use".to_owned())));
    };
    Ok(Channel::sealed(stream, keys, super::MAX_FRAME))
}

/// The answering side of a handshake on a socket that does not block.
pub(in super::super) struct Answer {
    message: [u8; MESSAGE_BYTES],
    filled: usize,
}

impl Answer {
    pub(in super::super) fn new() -> Self {
        Self { message: [0; MESSAGE_BYTES], filled: 0 }
    }

    /// Reads what is there of the first message; true once it is complete.
    pub(in super::super) fn read(&mut self, stream: &TcpStream) -> Result<bool, ChannelError> {
        use std::io::Read;
        while let Some(rest) = self.message.get_mut(self.filled..).filter(|rest| !rest.is_empty()) {
            match (&*stream).read(rest) {
                Ok(0) => return Err(ChannelError::Closed),
                Ok(count) => self.filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(ChannelError::of(error)),
            }
        }
        Ok(true)
    }

    /// Whether any byte came.
    pub(in super::super) fn has_begun(&self) -> bool {
        self.filled > 0
    }

    /// Checks the complete message and answers it. The peer is proven only by its first sealed frame.
    pub(in super::super) fn reply(
        &self,
        stream: TcpStream,
        key: &[u8; 32],
        prologue: &[u8],
    ) -> Result<Channel, ChannelError> {
        let mut state: HandshakeState = builder(key, prologue).and_then(Builder::build_responder).map_err(unusable)?;
        if state.read_message(&self.message, &mut []).is_err() {
            // 48 bytes always fit into the empty buffer of a new socket; a stranger that does not read loses them.
            let _ = (&stream).write(&OTHER_TOKEN);
            return Err(ChannelError::Tampered("the first message does not open".to_owned()));
        }
        let mut message = [0; MESSAGE_BYTES];
        state.write_message(&[], &mut message).map_err(unusable)?;
        stream.set_nodelay(true).map_err(ChannelError::of)?;
        match (&stream).write(&message) {
            Ok(MESSAGE_BYTES) => {}
            Ok(_) => return Err(ChannelError::Timeout),
            Err(error) => return Err(ChannelError::of(error)),
        }
        let keys = state.into_stateless_transport_mode().map_err(unusable)?;
        Ok(Channel::sealed(stream, keys, UNPROVEN_FRAME_BYTES))
    }
}
