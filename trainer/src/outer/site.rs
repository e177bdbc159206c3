//! Owns a site's side of a conversation with the coordinator: dialling, trying again, giving up; never touches training.

use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use model_zoo::ParamSpec;

use super::OuterError;
use super::average::apply;
use super::messages::{self, Form, Hello, Offer, Purpose, Refused, Shape, Update, Waiting, Welcome};
use super::quantise::{Layout, digest};
use crate::cluster::channel::handshake::{self, HandshakeError, UNPROVEN_FRAME_BYTES};
use crate::cluster::channel::{Channel, ChannelError};
use crate::config::raw::OuterCompress;

/// Pauses between attempts grow from the first to the last value.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LAST_PAUSE: Duration = Duration::from_secs(15);
/// Longest wait for a host to accept a connection: a slow link may lose the first packets.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Time for the handshake.
const PROOF_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a wrong answer is met with another attempt: the port may just be changing hands.
const STRANGER_PATIENCE: Duration = Duration::from_secs(3);
/// Longest wait before the caller is asked again whether to go on.
const TICK: Duration = Duration::from_millis(50);

/// A site of an outer run, as the coordinator knows it.
pub struct Site {
    /// Its name.
    pub name: String,
    /// This host, for messages.
    pub host: String,
    /// `host:port` of the coordinator.
    pub coordinator: String,
    /// Key of the conversation, derived from the token.
    pub key: [u8; 32],
    /// What all sites must have alike.
    pub facts: Vec<(String, String)>,
    /// How vectors travel.
    pub compress: OuterCompress,
    /// Without a word of the coordinator for this long, the site gives up.
    pub give_up_after: Duration,
    /// What the coordinator said at the start of this process, if it was there.
    pub seen: Option<Welcome>,
}

/// What is told to the caller while a conversation goes on.
#[derive(Debug)]
pub enum Beat<'a> {
    /// Nothing new; comes at least every few seconds.
    Idle,
    /// The coordinator could not be reached and is tried again.
    Retrying(&'a str),
    /// The coordinator waits for others.
    Waiting(&'a Waiting),
}

/// Called while a conversation goes on; its error ends it.
pub type Keep<'a> = dyn FnMut(Beat<'_>) -> Result<(), OuterError> + 'a;

/// What a conversation brought.
#[derive(Debug, Clone, PartialEq)]
pub struct Received {
    /// The coordinator's words.
    pub update: Update,
    /// The parameters of the round that begins.
    pub theta: Vec<f32>,
    /// Bytes of messages and vectors sent, over all attempts.
    pub sent: u64,
    /// Bytes received.
    pub received: u64,
}

/// How an attempt ended that did not succeed.
enum Attempt {
    /// Nobody there, or the connection was lost.
    Again(String),
    /// Somebody there that does not hold the token.
    Stranger(String),
    /// It will not get better.
    Over(OuterError),
}

/// One attempt over a connection that stands.
type Try<'a, T> = dyn FnMut(&mut Talk<'_, '_>) -> Result<T, Attempt> + 'a;

/// Bytes that passed, and when the coordinator was last heard.
struct Meter {
    sent: u64,
    received: u64,
    heard: Instant,
}

impl Site {
    /// Asks the coordinator whether this site fits.
    ///
    /// # Errors
    /// [`OuterError::Refused`] when it does not; [`OuterError::Unreachable`] after `patience`.
    pub fn check(&self, patience: Duration, keep: &mut Keep<'_>) -> Result<Welcome, OuterError> {
        let (welcome, _) = self.persist(patience, keep, &mut |talk| {
            talk.hello(self, Purpose::Check)?;
            talk.expect(messages::WELCOME)
        })?;
        Ok(welcome)
    }

    /// Joins the run and takes over its parameters; brings `theta` as those of round 0 if it is the first.
    ///
    /// # Errors
    /// As [`Site::check`], after `give_up_after`.
    pub fn join(&self, specs: &[ParamSpec], theta: &[f32], keep: &mut Keep<'_>) -> Result<Received, OuterError> {
        let own = digest(&[theta]);
        self.persist_update(keep, &mut |talk| {
            talk.hello(self, Purpose::Join { theta: own.clone() })?;
            let mut frame = talk.receive_not_waiting()?;
            if frame.0 == messages::SEND {
                talk.send(messages::SHAPES, &Shape::of(specs))?;
                talk.meter.sent += 4 * theta.len() as u64;
                talk.checked(|channel, check| messages::send_floats(channel, theta, check))?;
                frame = talk.receive_not_waiting()?;
            }
            let update: Update = talk.parse(messages::UPDATE, &frame)?;
            let received = match update.form {
                Form::Same => theta.to_vec(),
                Form::Whole => talk.floats(theta.len())?,
                Form::Update => return Err(talk.again("it sent a change to a site that has just come")),
            };
            Ok((update, received))
        })
    }

    /// Delivers a delta and waits for the parameters of the next round; `base` are those of its own.
    ///
    /// # Errors
    /// As [`Site::check`], after `give_up_after`.
    pub fn deliver(
        &self,
        layout: &Layout,
        mut offer: Offer,
        payload: &[u8],
        base: &[f32],
        keep: &mut Keep<'_>,
    ) -> Result<Received, OuterError> {
        self.persist_update(keep, &mut |talk| {
            talk.hello(self, Purpose::Deliver(offer.clone()))?;
            let mut frame = talk.receive_not_waiting()?;
            if frame.0 == messages::SEND {
                talk.meter.sent += payload.len() as u64;
                talk.checked(|channel, check| messages::send_bytes(channel, payload, check))?;
                frame = talk.receive_not_waiting()?;
            }
            let update: Update = talk.parse(messages::UPDATE, &frame)?;
            let theta = match update.form {
                Form::Same => base.to_vec(),
                Form::Whole => talk.floats(base.len())?,
                Form::Update => {
                    let bytes = talk.bytes(layout.bytes(self.compress))?;
                    let mut theta = base.to_vec();
                    let applied = apply(layout, self.compress, &bytes, &mut theta);
                    if applied.is_err() || digest(&[&theta]) != update.theta {
                        offer.whole = true;
                        return Err(talk.again("its update does not fit what this site holds; asking for all of it"));
                    }
                    theta
                }
            };
            Ok((update, theta))
        })
    }

    /// Tries until an update is here and right, and acknowledges it.
    fn persist_update(
        &self,
        keep: &mut Keep<'_>,
        attempt: &mut Try<'_, (Update, Vec<f32>)>,
    ) -> Result<Received, OuterError> {
        let ((update, theta), meter) = self.persist(self.give_up_after, keep, &mut |talk| {
            let (update, theta) = attempt(talk)?;
            if digest(&[&theta]) != update.theta {
                return Err(talk.again("the parameters that came have another digest than announced"));
            }
            // Should this get lost, the coordinator only lingers a little longer at the end.
            let _ = talk.send(messages::DONE, &());
            Ok((update, theta))
        })?;
        Ok(Received { update, theta, sent: meter.sent, received: meter.received })
    }

    /// Attempts with growing pauses, until nothing was heard of the coordinator for `patience`.
    fn persist<T>(
        &self,
        patience: Duration,
        keep: &mut Keep<'_>,
        attempt: &mut Try<'_, T>,
    ) -> Result<(T, Meter), OuterError> {
        let mut meter = Meter { sent: 0, received: 0, heard: Instant::now() };
        let (mut pause, mut strange_since) = (FIRST_PAUSE, None::<Instant>);
        loop {
            let heard = meter.heard;
            let tried = self
                .dial(keep)
                .and_then(|channel| attempt(&mut Talk { site: self, channel, keep: &mut *keep, meter: &mut meter }));
            let met = match tried {
                Ok(value) => return Ok((value, meter)),
                Err(Attempt::Over(error)) => return Err(error),
                Err(Attempt::Again(met)) => {
                    strange_since = None;
                    met
                }
                Err(Attempt::Stranger(met)) => {
                    let since = *strange_since.get_or_insert_with(Instant::now);
                    if since.elapsed() >= STRANGER_PATIENCE {
                        return Err(OuterError::refused(
                            format!("site {} was turned away at {}: {met}", self.name, self.coordinator),
                            "give the coordinator and every site the same token file, and check outer.coordinator",
                        ));
                    }
                    met
                }
            };
            let waited = meter.heard.elapsed();
            if waited >= patience {
                let (site, at) = (&self.name, &self.coordinator);
                return Err(OuterError::Unreachable(format!(
                    "site {site} has not heard of the coordinator at {at} for {waited:.0?} ({met})"
                )));
            }
            keep(Beat::Retrying(&met))?;
            if meter.heard > heard {
                pause = FIRST_PAUSE;
            }
            let until = Instant::now() + pause.min(patience.saturating_sub(waited));
            pause = pause.mul_f64(1.6).min(LAST_PAUSE);
            while Instant::now() < until {
                keep(Beat::Idle)?;
                std::thread::sleep(TICK.min(until.saturating_duration_since(Instant::now())));
            }
        }
    }

    /// Connects and proves the token.
    fn dial(&self, keep: &mut Keep<'_>) -> Result<Channel, Attempt> {
        let at = &self.coordinator;
        let addresses = at.to_socket_addrs().map_err(|error| Attempt::Again(format!("cannot find {at}: {error}")))?;
        let mut met = format!("{at} has no address");
        for address in addresses {
            keep(Beat::Idle).map_err(Attempt::Over)?;
            let stream = match TcpStream::connect_timeout(&address, CONNECT_TIMEOUT) {
                Ok(stream) => stream,
                Err(error) => {
                    met = format!("{address} said: {error}");
                    continue;
                }
            };
            let mut interrupted = None;
            let mut check = || {
                keep(Beat::Idle).map_err(|error| {
                    interrupted = Some(error);
                    ChannelError::Timeout
                })
            };
            let deadline = Instant::now() + PROOF_TIMEOUT;
            let dialled = handshake::dial(stream, &self.key, messages::PROLOGUE, deadline, &mut check);
            return dialled.map_err(|error| match (interrupted, error) {
                (Some(error), _) => Attempt::Over(error),
                (None, HandshakeError::Channel(error)) => Attempt::Again(format!("{address}: {error}")),
                (None, error) => Attempt::Stranger(format!("{address}: {error}")),
            });
        }
        Err(Attempt::Again(met))
    }
}

/// A conversation under way.
struct Talk<'a, 'k> {
    site: &'a Site,
    channel: Channel,
    keep: &'a mut Keep<'k>,
    meter: &'a mut Meter,
}

impl Talk<'_, '_> {
    fn again(&self, why: &str) -> Attempt {
        Attempt::Again(format!("{}: {why}", self.site.coordinator))
    }

    /// Does something with the channel while the caller is asked whether to go on.
    fn checked<T>(
        &mut self,
        work: impl FnOnce(&mut Channel, &mut messages::Check<'_>) -> Result<T, ChannelError>,
    ) -> Result<T, Attempt> {
        let mut interrupted = None;
        let keep = &mut *self.keep;
        let mut check = || {
            keep(Beat::Idle).map_err(|error| {
                interrupted = Some(error);
                ChannelError::Timeout
            })
        };
        let result = work(&mut self.channel, &mut check);
        match (interrupted, result) {
            (Some(error), _) => Err(Attempt::Over(error)),
            (None, Ok(value)) => {
                self.meter.heard = Instant::now();
                Ok(value)
            }
            (None, Err(error)) => Err(self.again(&error.to_string())),
        }
    }

    fn send<T: serde::Serialize>(&mut self, kind: u8, message: &T) -> Result<(), Attempt> {
        let text = serde_json::to_vec(message).unwrap_or_default();
        self.meter.sent += text.len() as u64;
        let sent = self.channel.sender().send(kind, &text);
        sent.map_err(|error| self.again(&error.to_string()))
    }

    fn hello(&mut self, site: &Site, purpose: Purpose) -> Result<(), Attempt> {
        let hello = Hello { site: site.name.clone(), host: site.host.clone(), facts: site.facts.clone(), purpose };
        let len = serde_json::to_vec(&hello).map_or(0, |text| text.len());
        if len > UNPROVEN_FRAME_BYTES {
            return Err(Attempt::Over(OuterError::refused(
                format!("what this site must say of itself takes {len} bytes"),
                format!("shorten outer.site and the host's name to {UNPROVEN_FRAME_BYTES} bytes in all"),
            )));
        }
        let timeout = self.channel.sender().set_write_timeout(Some(messages::SILENCE));
        timeout.map_err(|error| self.again(&error.to_string()))?;
        self.send(messages::HELLO, &hello)
    }

    /// The next frame. A refusal ends everything.
    fn receive(&mut self) -> Result<(u8, Vec<u8>), Attempt> {
        let frame = self.checked(messages::receive)?;
        self.meter.received += frame.1.len() as u64;
        if frame.0 == messages::REFUSED {
            let Refused { what, advice } = self.parse(messages::REFUSED, &frame)?;
            return Err(Attempt::Over(OuterError::Refused { what, advice }));
        }
        Ok(frame)
    }

    /// The next frame that is more than a request for patience.
    fn receive_not_waiting(&mut self) -> Result<(u8, Vec<u8>), Attempt> {
        loop {
            let frame = self.receive()?;
            if frame.0 != messages::WAITING {
                return Ok(frame);
            }
            let waiting: Waiting = self.parse(messages::WAITING, &frame)?;
            (self.keep)(Beat::Waiting(&waiting)).map_err(Attempt::Over)?;
        }
    }

    fn parse<T: serde::de::DeserializeOwned>(&self, kind: u8, frame: &(u8, Vec<u8>)) -> Result<T, Attempt> {
        messages::parse(kind, frame).map_err(|error| self.again(&error.to_string()))
    }

    fn expect<T: serde::de::DeserializeOwned>(&mut self, kind: u8) -> Result<T, Attempt> {
        let frame = self.receive()?;
        self.parse(kind, &frame)
    }

    fn floats(&mut self, len: usize) -> Result<Vec<f32>, Attempt> {
        self.meter.received += 4 * len as u64;
        self.checked(|channel, check| messages::receive_floats(channel, len, check))
    }

    fn bytes(&mut self, len: usize) -> Result<Vec<u8>, Attempt> {
        self.meter.received += len as u64;
        self.checked(|channel, check| messages::receive_bytes(channel, len, check))
    }
}
