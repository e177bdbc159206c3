//! Owns what a site and the coordinator say to each other; never touches when they say it.
//!
//! A site dials, proves that it holds the token, and says `HELLO` with one of three purposes:
//!
//! - *check*: `WELCOME` or `REFUSED`; nothing changes.
//! - *join*: `UPDATE` with the current parameters. The first site of a run is asked for its own instead (`SEND`,
//!   answered by `SHAPES` and the parameters): they are round 0.
//! - *deliver*: `SEND` asks for the delta, unless the coordinator has it already or its round is over. `WAITING` comes
//!   every few seconds until the round ends, then `UPDATE`, which the site acknowledges with `DONE`.
//!
//! `REFUSED` may come instead of any answer. Vectors follow their frame as bulk data.

use std::time::{Duration, Instant};

use model_zoo::ParamSpec;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::cluster::channel::{Channel, ChannelError};

/// Bound into the handshake, so that other versions and the processes of a cluster are strangers.
pub const PROLOGUE: &[u8] = b"jazari outer, version 1";
/// Purpose for which the key is derived from the token.
pub const KEY_PURPOSE: &str = "outer";

/// Site to coordinator: who I am and what I want.
pub const HELLO: u8 = 1;
/// Coordinator to site: you fit.
pub const WELCOME: u8 = 2;
/// Coordinator to site: send what you offered.
pub const SEND: u8 = 3;
/// Coordinator to site: the round is open still.
pub const WAITING: u8 = 4;
/// Coordinator to site: the parameters of the round that begins.
pub const UPDATE: u8 = 5;
/// Site to coordinator: I have them.
pub const DONE: u8 = 6;
/// Coordinator to site: you do not fit.
pub const REFUSED: u8 = 7;
/// Site to coordinator: names and shapes of the parameters that follow.
pub const SHAPES: u8 = 8;

/// How often a coordinator that waits says so.
pub const WAITING_EVERY: Duration = Duration::from_secs(5);
/// How long nothing may come of what was announced before the connection counts as lost.
pub const SILENCE: Duration = Duration::from_secs(60);
/// Bulk data is sent and received in pieces of this size, with a look around in between.
const PIECE_BYTES: usize = 256 << 10;

/// Keys of [`Hello::facts`].
pub mod fact {
    /// Version of the program.
    pub const VERSION: &str = "version of jazari";
    /// Architecture and size of the model.
    pub const MODEL: &str = "model";
    /// Digest of the tokenizer.
    pub const TOKENIZER: &str = "tokenizer";
    /// Inner steps of a round.
    pub const SYNC_EVERY: &str = "outer.sync_every";
    /// The outer optimizer.
    pub const OPTIMIZER: &str = "outer.optimizer";
    /// Outer learning rate.
    pub const LEARNING_RATE: &str = "outer.learning_rate";
    /// Outer momentum.
    pub const MOMENTUM: &str = "outer.momentum";
    /// How vectors travel.
    pub const COMPRESS: &str = "outer.compress";
}

/// What a site says first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Name of the site.
    pub site: String,
    /// Its host, for messages.
    pub host: String,
    /// What all sites of a run must have alike, as key and value.
    pub facts: Vec<(String, String)>,
    /// What it wants.
    pub purpose: Purpose,
}

/// What a site wants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// To know whether it fits.
    Check,
    /// The current parameters; it holds those with this digest.
    Join {
        /// Digest of what it holds.
        theta: String,
    },
    /// To deliver a delta and have the next round's parameters.
    Deliver(Offer),
}

/// A delta that a site offers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// The round it belongs to.
    pub round: u64,
    /// Hex BLAKE3 of its bytes.
    pub digest: String,
    /// Target tokens behind it.
    pub tokens: u64,
    /// This site's run ends with it.
    pub last: bool,
    /// Whether the answer must hold all parameters, because the update did not fit.
    pub whole: bool,
}

/// The coordinator's answer to a check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// The open round; `None` before the first site has joined.
    pub round: Option<u64>,
    /// The newest round that holds a delta of this site.
    pub included: Option<u64>,
}

/// Who is waited for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// Sites that have delivered.
    pub delivered: Vec<String>,
    /// How many are expected.
    pub expected: usize,
}

/// How the parameters of a round travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// Not at all: the site holds them.
    Same,
    /// As an encoded change of those of the round before.
    Update,
    /// All of them, as floats.
    Whole,
}

/// The parameters of the round that begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Update {
    /// That round.
    pub round: u64,
    /// Digest of its parameters.
    pub theta: String,
    /// How they travel.
    pub form: Form,
    /// Whether the offered delta is part of them.
    pub included: bool,
    /// The sites of the round that has ended.
    pub sites: Vec<String>,
}

/// Why a site does not fit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// What was found, with both values where two differ.
    pub what: String,
    /// What to do.
    pub advice: String,
}

/// A parameter as the first site describes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shape {
    /// Hugging Face name.
    pub name: String,
    /// Shape.
    pub shape: Vec<usize>,
}

impl Shape {
    /// Names and shapes of a model.
    #[must_use]
    pub fn of(specs: &[ParamSpec]) -> Vec<Self> {
        specs.iter().map(|spec| Self { name: spec.name.clone(), shape: spec.shape.clone() }).collect()
    }

    /// As specs, for a process that only keeps the values.
    #[must_use]
    pub fn to_specs(shapes: &[Self]) -> Vec<ParamSpec> {
        let spec = |s: &Self| ParamSpec::new(s.name.clone(), s.shape.clone(), model_zoo::Init::Ones);
        shapes.iter().map(spec).collect()
    }
}

/// Sends a message as JSON in one frame.
///
/// # Errors
/// When the connection is gone.
pub fn send<T: Serialize>(channel: &mut Channel, kind: u8, message: &T) -> Result<(), ChannelError> {
    let text =
        serde_json::to_vec(message).map_err(|e| ChannelError::Protocol(format!("cannot write a message: {e}")))?;
    channel.sender().send(kind, &text)
}

/// Reads a message, which must be of this kind.
///
/// # Errors
/// When it is another one, or unreadable.
pub fn parse<T: DeserializeOwned>(expected: u8, frame: &(u8, Vec<u8>)) -> Result<T, ChannelError> {
    let (kind, payload) = frame;
    if *kind != expected {
        return Err(ChannelError::Protocol(format!("message {expected} was expected, {kind} came")));
    }
    serde_json::from_slice(payload).map_err(|e| ChannelError::Protocol(format!("message {kind} is unreadable: {e}")))
}

/// Called while a conversation waits; its error ends the wait.
pub type Check<'a> = dyn FnMut() -> Result<(), ChannelError> + 'a;

/// Waits for a frame for at most [`SILENCE`].
///
/// # Errors
/// When the connection is gone or silent, or `check` says so.
pub fn receive(channel: &mut Channel, check: &mut Check<'_>) -> Result<(u8, Vec<u8>), ChannelError> {
    let until = Instant::now() + SILENCE;
    channel.receiver().recv_idle(&mut || {
        check()?;
        if Instant::now() >= until { Err(ChannelError::Timeout) } else { Ok(()) }
    })
}

/// Sends bulk data piece by piece.
///
/// # Errors
/// When the other side takes nothing for [`SILENCE`] or is gone, or `check` says so.
pub fn send_bytes(channel: &mut Channel, bytes: &[u8], check: &mut Check<'_>) -> Result<(), ChannelError> {
    for piece in bytes.chunks(PIECE_BYTES) {
        channel.sender().send_bulk(piece)?;
        check()?;
    }
    Ok(())
}

/// Receives `len` bytes of bulk data piece by piece.
///
/// # Errors
/// When nothing comes for [`SILENCE`] or the connection is gone, or `check` says so.
pub fn receive_bytes(channel: &mut Channel, len: usize, check: &mut Check<'_>) -> Result<Vec<u8>, ChannelError> {
    let mut bytes = Vec::new();
    bytes
        .try_reserve_exact(len)
        .map_err(|_| ChannelError::Protocol(format!("there is no memory for the {len} bytes that were announced")))?;
    while bytes.len() < len {
        let start = bytes.len();
        bytes.resize(len.min(start + PIECE_BYTES), 0);
        let until = Instant::now() + SILENCE;
        let piece = bytes.get_mut(start..).unwrap_or_default();
        channel.receiver().recv_bulk(piece, &mut || {
            check()?;
            if Instant::now() >= until { Err(ChannelError::Timeout) } else { Ok(()) }
        })?;
        check()?;
    }
    Ok(bytes)
}

/// Sends floats as bulk data.
///
/// # Errors
/// As [`send_bytes`].
pub fn send_floats(channel: &mut Channel, values: &[f32], check: &mut Check<'_>) -> Result<(), ChannelError> {
    super::quantise::float_bytes(values).try_for_each(|bytes| send_bytes(channel, &bytes, check))
}

/// Receives `len` finite floats.
///
/// # Errors
/// As [`receive_bytes`], or when one is not finite.
pub fn receive_floats(channel: &mut Channel, len: usize, check: &mut Check<'_>) -> Result<Vec<f32>, ChannelError> {
    let bytes = receive_bytes(channel, len.saturating_mul(4), check)?;
    let values: Vec<f32> = bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    match values.iter().position(|value| !value.is_finite()) {
        Some(at) => Err(ChannelError::Protocol(format!("parameter {at} is not finite"))),
        None => Ok(values),
    }
}
