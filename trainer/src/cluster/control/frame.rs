//! Owns the frames of the control connections; never touches what they lead to.

use serde::{Deserialize, Serialize};

use crate::cluster::error::{Cause, Verdict};
use crate::cluster::recorder::{Position, Record};

/// Kind byte of every control frame.
const CONTROL_KIND: u8 = 0x43;

/// Bytes of text that a frame carries at most for one message.
const MAX_TEXT_BYTES: usize = 2000;

/// What rank 0 and the others say to each other.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Frame {
    /// Heartbeat, both ways.
    Beat(Position),
    /// To rank 0: something is wrong with a rank.
    Claim(Claim),
    /// To rank 0: the sender failed by itself and will leave.
    Failed(String),
    /// Both ways: the sender leaves in good order.
    Goodbye,
    /// From rank 0: the goodbye has been read, nothing more will be sent.
    Farewell,
    /// To rank 0: seconds of the last window.
    Phases(Phases),
    /// From rank 0: tell me where you are and your newest collectives.
    Ask,
    /// To rank 0: the answer.
    Answer {
        /// Where the sender is now.
        position: Position,
        /// Its newest collectives.
        records: Vec<Record>,
    },
    /// From rank 0: who is to blame. Everybody leaves.
    Verdict(Verdict),
    /// To rank 0: the verdict has been read.
    Understood,
    /// To rank 0: the sender has lost rank 0 and leaves with this verdict.
    Concluded(Verdict),
}

/// What one rank says about another.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Claim {
    /// The rank it is about.
    pub(super) rank: usize,
    /// What it did.
    pub(super) cause: Cause,
    /// Of a disagreement: what the sender has.
    pub(super) mine: String,
    /// Of a disagreement: what the other has.
    pub(super) theirs: String,
    /// How it was noticed.
    pub(super) detail: String,
}

/// Seconds that one rank spent in the phases of a window of steps.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct Phases {
    /// Steps done at the end of the window.
    pub(super) step: u64,
    /// Waiting for data.
    pub(super) data: f64,
    /// Forward, backward, optimizer.
    pub(super) compute: f64,
    /// Communication, which is mostly waiting for others.
    pub(super) communication: f64,
}

impl Frame {
    /// Kind byte and payload for [`crate::cluster::channel::Sender::send`].
    pub(super) fn encode(&self) -> Result<(u8, Vec<u8>), String> {
        serde_json::to_vec(self).map(|payload| (CONTROL_KIND, payload)).map_err(|e| e.to_string())
    }

    /// The opposite of [`Frame::encode`].
    pub(super) fn decode(kind: u8, payload: &[u8]) -> Result<Self, String> {
        if kind != CONTROL_KIND {
            return Err(format!("a frame of kind {kind} where kind {CONTROL_KIND} was due"));
        }
        serde_json::from_slice(payload).map_err(|e| format!("a control frame that cannot be read: {e}"))
    }
}

/// The beginning of a text that others will read.
pub(super) fn bounded(text: &str) -> String {
    let mut end = text.len().min(MAX_TEXT_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn frames_survive_the_way() {
        let mut position = Position::start();
        position.waits_for = Some(3);
        for frame in [
            Frame::Beat(position.clone()),
            Frame::Goodbye,
            Frame::Failed("disk full".into()),
            Frame::Answer { position, records: Vec::new() },
        ] {
            let (kind, payload) = frame.encode().unwrap();
            assert_eq!(Frame::decode(kind, &payload), Ok(frame));
        }
        assert!(Frame::decode(1, b"\"goodbye\"").is_err());
        assert!(Frame::decode(CONTROL_KIND, b"{").is_err());
        assert_eq!(bounded(&"é".repeat(3000)).len(), MAX_TEXT_BYTES);
    }
}
