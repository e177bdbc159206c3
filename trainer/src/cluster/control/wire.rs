//! Owns the way of frames over control connections; never touches what they mean.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::cluster::channel::{ChannelError, Receiver, Sender};

use super::frame::Frame;
use super::shared::{Event, Shared};

/// How long a control frame may take to fit into the socket. Frames are small and buffers are not: only a process that
/// has been stopped for hours fills them.
const SEND_LIMIT: Duration = Duration::from_millis(200);

/// The way out to one rank.
pub(super) struct Outlet(Option<Sender>);

impl Outlet {
    pub(super) fn new(mut sender: Sender) -> Self {
        // Without a limit a send still works, it can only take longer.
        let _ = sender.set_write_timeout(Some(SEND_LIMIT));
        Self(Some(sender))
    }

    pub(super) fn none() -> Self {
        Self(None)
    }

    /// Sends a frame. After a failure nothing more is sent: half a frame may be on its way. The reader of the same
    /// connection tells about its end.
    pub(super) fn send(&mut self, frame: &Frame) {
        let Some(sender) = &mut self.0 else { return };
        let sent = frame.encode().is_ok_and(|(kind, payload)| sender.send(kind, &payload).is_ok());
        if !sent {
            self.0 = None;
        }
    }
}

/// Turns frames of `from` into events until the connection ends.
pub(super) fn read(shared: &Arc<Shared>, from: usize, mut receiver: Receiver) {
    let why = loop {
        match receiver.recv() {
            Ok((kind, payload)) => match Frame::decode(kind, &payload) {
                Ok(frame) => shared.post(Event::Frame { from, frame, at: Instant::now() }),
                Err(why) => break why,
            },
            Err(ChannelError::Closed) => break "end of stream".to_owned(),
            Err(error) => break error.to_string(),
        }
    };
    shared.post(Event::Closed { from, why });
}
