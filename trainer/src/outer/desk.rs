//! Owns the rules of an outer run on the coordinator's side: who fits, who has delivered, when a round ends and what
//! becomes of a late delta; never touches sockets or clocks.
//!
//! A round ends when every site that still trains has delivered, or when at least `min_sites` have and `round_timeout`
//! has passed since the first delivery. A delta for a round that is over is dropped. Sites are averaged in the order of
//! their names. The new state is on disk before any site hears of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::average::{OuterHyper, OuterState, Part};
use super::messages::{Form, Hello, Offer, Purpose, Refused, Shape, Update, Waiting, Welcome, fact};
use super::quantise::{Layout, digest};
use super::store::{Record, Store};
use super::{MAX_SITE_NAME, OuterError};
use crate::config::raw::OuterCompress;

/// When a round ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// Sites that a round waits for.
    pub sites: usize,
    /// Sites that are enough once [`Patience::round_timeout`] is over.
    pub min_sites: usize,
    /// Time after the first delivery in which the others may still deliver.
    pub round_timeout: Duration,
}

/// What happened, for logs and for the terminal.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum DeskEvent {
    /// The first site has brought the parameters of round 0.
    Begun {
        /// That site.
        site: String,
        /// Number of parameters.
        parameters: u64,
    },
    /// A site has joined.
    Joined {
        /// The site.
        site: String,
        /// The round it joins.
        round: u64,
    },
    /// A delta has come.
    Delivered {
        /// The site.
        site: String,
        /// Its round.
        round: u64,
        /// Target tokens behind it.
        tokens: u64,
    },
    /// A delta was dropped, because its round is over.
    Late {
        /// The site.
        site: String,
        /// Its round.
        round: u64,
        /// The round that is open now.
        open: u64,
    },
    /// A site was turned away.
    Refused {
        /// The site.
        site: String,
        /// Why.
        what: String,
    },
    /// A round is over and its result on disk.
    Closed {
        /// The round.
        round: u64,
        /// The sites whose deltas are part of it.
        sites: Vec<String>,
        /// Sites that were expected.
        expected: usize,
        /// Target tokens of all of them.
        tokens: u64,
        /// L2 norm of the averaged delta.
        delta_norm: f64,
        /// Seconds from the first delivery to the last.
        seconds: f64,
        /// Bytes of a delta.
        delta_bytes: u64,
        /// Bytes of the update.
        update_bytes: u64,
        /// Digest of the state after it.
        state_digest: String,
    },
}

/// Parameters on their way to a site.
#[derive(Debug, Clone)]
pub enum Vector {
    /// It holds them.
    Nothing,
    /// An encoded update.
    Update(Arc<Vec<u8>>),
    /// All, as floats.
    Whole(Arc<Vec<f32>>),
}

/// What a session must do next for its site.
#[derive(Debug, Clone)]
pub enum Next {
    /// Answer a check.
    Welcome(Welcome),
    /// Ask for the parameters of round 0.
    AskShapes,
    /// Ask for the delta.
    AskDelta {
        /// Its bytes.
        bytes: usize,
    },
    /// Wait.
    Wait(Waiting),
    /// Send the parameters.
    Update(Update, Vector),
    /// Turn it away.
    Refuse(Refused),
}

#[derive(Debug)]
struct Delivery {
    payload: Vec<u8>,
    digest: String,
    tokens: u64,
    last: bool,
}

/// What is known once a site has joined.
struct Run {
    record: Record,
    hyper: OuterHyper,
    layout: Layout,
    state: OuterState,
    theta: Arc<Vec<f32>>,
    theta_digest: String,
    /// The change that made this round of the one before; lost at a restart, then all parameters travel.
    update: Option<Arc<Vec<u8>>>,
    /// The sites of the round before.
    sites: Vec<String>,
}

/// The coordinator without its sockets.
pub struct Desk {
    patience: Patience,
    store: Store,
    run: Option<Run>,
    delivered: BTreeMap<String, Delivery>,
    first_delivery: Option<Instant>,
    /// The session that was asked for round 0's parameters.
    seeding: Option<u64>,
    /// The newest session of each site.
    sessions: BTreeMap<String, u64>,
    /// Sites whose runs have ended and that do not hold the result of their last round yet.
    unsettled: BTreeSet<String>,
    events: Vec<DeskEvent>,
}

impl Desk {
    /// Opens the folder and goes on from its newest round.
    ///
    /// # Errors
    /// When the folder cannot be used or its newest round is damaged.
    pub fn open(patience: Patience, store: Store) -> Result<Self, OuterError> {
        let run = store.newest()?.map(|(state, record)| Run::new(state, record)).transpose()?;
        // Whether those of the newest round have its result is not known any more.
        let is_newest =
            |run: &Run, site: &String| run.record.included.get(site).is_some_and(|r| r + 1 == run.state.round);
        let ended = run.iter().flat_map(|run| run.record.finished.iter().filter(|site| is_newest(run, site)));
        let unsettled = ended.cloned().collect();
        Ok(Self {
            patience,
            store,
            run,
            delivered: BTreeMap::new(),
            first_delivery: None,
            seeding: None,
            sessions: BTreeMap::new(),
            unsettled,
            events: Vec::new(),
        })
    }

    /// The open round and the digest of the state; `None` before the first site has joined.
    #[must_use]
    pub fn position(&self) -> Option<(u64, String)> {
        self.run.as_ref().map(|run| (run.state.round, run.state.digest()))
    }

    /// What happened since the last call; also written to the log of rounds.
    ///
    /// # Errors
    /// When the log cannot be written.
    pub fn take_events(&mut self) -> Result<Vec<DeskEvent>, OuterError> {
        let events = std::mem::take(&mut self.events);
        events.iter().try_for_each(|event| self.store.log(event))?;
        Ok(events)
    }

    /// Whether every site has ended its run and holds the result.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.all_finished() && self.unsettled.is_empty()
    }

    /// Whether every site has ended its run.
    #[must_use]
    pub fn all_finished(&self) -> bool {
        self.run.as_ref().is_some_and(|run| run.record.finished.len() >= self.patience.sites)
    }

    /// What session `id` must do for a site that has just said hello, or that waits.
    pub fn next(&mut self, id: u64, hello: &Hello) -> Next {
        let newest = self.sessions.get(&hello.site);
        if hello.purpose != Purpose::Check && newest.is_some_and(|newest| *newest != id) {
            // Mostly the site itself over a new connection; then nobody reads this.
            return Next::Refuse(Refused {
                what: format!("another process has come as site {} after this one", shown(&hello.site)),
                advice: "give every site a name of its own (outer.site), and start each only once".into(),
            });
        }
        if let Err(refused) = self.judge(hello) {
            self.events.push(DeskEvent::Refused { site: shown(&hello.site), what: refused.what.clone() });
            return Next::Refuse(refused);
        }
        match &hello.purpose {
            Purpose::Check => Next::Welcome(Welcome {
                round: self.run.as_ref().map(|run| run.state.round),
                included: self.run.as_ref().and_then(|run| run.record.included.get(&hello.site).copied()),
            }),
            Purpose::Join { theta } => self.join(id, &hello.site, theta),
            Purpose::Deliver(offer) => self.offer(&hello.site, offer),
        }
    }

    /// A session begins: from now on it alone speaks for its site.
    pub fn begin(&mut self, id: u64, hello: &Hello) {
        if hello.purpose != Purpose::Check {
            self.sessions.insert(hello.site.clone(), id);
        }
    }

    /// A session has ended, in whatever way.
    pub fn end(&mut self, id: u64) {
        self.sessions.retain(|_, session| *session != id);
        if self.seeding == Some(id) {
            self.seeding = None;
        }
    }

    /// Whether `hello` may take part at all.
    fn judge(&self, hello: &Hello) -> Result<(), Refused> {
        let refuse = |what: String, advice: &str| Err(Refused { what, advice: advice.into() });
        let (site, host) = (shown(&hello.site), shown(&hello.host));
        if hello.site.is_empty() || hello.site.len() > MAX_SITE_NAME || site != hello.site {
            let advice = format!("choose outer.site from 1 to {MAX_SITE_NAME} printable characters");
            return refuse(format!("'{site}' is no name of a site"), &advice);
        }
        let Some(run) = &self.run else { return Ok(()) };
        let value = |facts: &[(String, String)], key: &str| {
            facts.iter().find(|(k, _)| k == key).map_or("missing".to_owned(), |(_, value)| shown(value))
        };
        let keys = run.record.facts.iter().chain(&hello.facts).map(|(key, _)| key);
        let mut differences: Vec<String> = Vec::new();
        for key in keys {
            let (here, there) = (value(&run.record.facts, key), value(&hello.facts, key));
            let text = format!("{} is {there} at site {site} (host {host}), {here} in this run", shown(key));
            if here != there && !differences.contains(&text) {
                differences.push(text);
            }
        }
        if differences.is_empty() {
            return Ok(());
        }
        let advice = format!(
            "all sites must agree: correct the site, or, if site {} which came first is the wrong one, begin anew with \
             another --output",
            shown(&run.record.set_by)
        );
        refuse(differences.join("; "), &advice)
    }

    fn join(&mut self, id: u64, site: &str, theta: &str) -> Next {
        let Some(run) = &mut self.run else {
            return match self.seeding {
                Some(other) if other != id => Next::Wait(Waiting { delivered: Vec::new(), expected: 1 }),
                _ => {
                    self.seeding = Some(id);
                    Next::AskShapes
                }
            };
        };
        run.record.finished.remove(site);
        self.events.push(DeskEvent::Joined { site: site.to_owned(), round: run.state.round });
        match run.theta_digest == theta {
            true => run.answer(Form::Same, false),
            false => run.answer(Form::Whole, false),
        }
    }

    /// Takes the parameters of round 0.
    ///
    /// # Errors
    /// When they cannot be saved.
    pub fn seed(&mut self, hello: &Hello, shapes: Vec<Shape>, theta: Vec<f32>) -> Result<(), OuterError> {
        if self.run.is_some() {
            return Ok(());
        }
        let record = Record {
            facts: hello.facts.clone(),
            set_by: hello.site.clone(),
            shapes,
            included: BTreeMap::new(),
            finished: BTreeSet::new(),
        };
        let hyper = hyper(&record.facts)?;
        let run = Run::new(OuterState::new(theta, hyper.compress), record)?;
        self.store.commit(&run.state, &run.record)?;
        self.events.push(DeskEvent::Begun { site: hello.site.clone(), parameters: run.layout.len() as u64 });
        self.run = Some(run);
        Ok(())
    }

    fn offer(&mut self, site: &str, offer: &Offer) -> Next {
        let open = self.run.as_ref().map(|run| run.state.round);
        let Some(run) = self.run.as_mut().filter(|run| offer.round <= run.state.round) else {
            let open = open.map_or("no round".to_owned(), |round| format!("round {round}"));
            return Next::Refuse(Refused {
                what: format!("site {site} is in round {}, the coordinator only in {open}", offer.round),
                advice: "start the coordinator with the --output folder of this run, newest copy; or begin anew with \
                         other folders on all sides"
                    .into(),
            });
        };
        if !offer.last {
            run.record.finished.remove(site);
        }
        if offer.round == run.state.round {
            return match self.delivered.get(site) {
                Some(delivery) if delivery.digest == offer.digest => Next::Wait(self.waiting()),
                _ => Next::AskDelta { bytes: run.layout.bytes(run.hyper.compress) },
            };
        }
        let included = run.record.included.get(site) == Some(&offer.round);
        let follows = offer.round + 1 == run.state.round && !offer.whole;
        let answer = match run.update {
            Some(_) if follows && run.hyper.compress != OuterCompress::None => run.answer(Form::Update, included),
            _ => run.answer(Form::Whole, included),
        };
        if !included && !offer.whole {
            let (round, open) = (offer.round, run.state.round);
            self.events.push(DeskEvent::Late { site: site.to_owned(), round, open });
            if offer.last {
                // Its run is over although its last delta came too late: nobody needs to wait for it any more.
                run.record.finished.insert(site.to_owned());
                self.unsettled.insert(site.to_owned());
            }
        }
        answer
    }

    /// Takes a delta and ends the round if it was the last one missing. One whose round has ended meanwhile is left.
    ///
    /// # Errors
    /// [`OuterError::Refused`] when the bytes are not those that were offered; other errors end the coordinator.
    pub fn deliver(&mut self, site: &str, offer: &Offer, payload: Vec<u8>, now: Instant) -> Result<(), OuterError> {
        let Some(run) = self.run.as_ref().filter(|run| run.state.round == offer.round) else { return Ok(()) };
        let found = blake3::hash(&payload).to_hex().to_string();
        let bad = |what: String| Err(OuterError::refused(what, "check the memory and the version of that site"));
        if found != offer.digest {
            return bad(format!("the delta of site {site} has the digest {found}, it was offered as {}", offer.digest));
        }
        if let Err(error) = run.layout.decoder(run.hyper.compress, &payload) {
            return bad(format!("the delta of site {site} cannot be used: {error}"));
        }
        let (round, tokens) = (offer.round, offer.tokens);
        self.events.push(DeskEvent::Delivered { site: site.to_owned(), round, tokens });
        let delivery = Delivery { payload, digest: offer.digest.clone(), tokens, last: offer.last };
        self.delivered.insert(site.to_owned(), delivery);
        self.first_delivery.get_or_insert(now);
        self.tick(now)
    }

    /// Ends the round if it is time; whoever waits must look again afterwards.
    ///
    /// # Errors
    /// When the new state is not finite or cannot be saved.
    pub fn tick(&mut self, now: Instant) -> Result<(), OuterError> {
        let Some(first) = self.first_delivery else { return Ok(()) };
        let expected = self.expected();
        let waited = now.saturating_duration_since(first);
        let is_enough = self.delivered.len() >= self.patience.min_sites.min(expected);
        let is_over = self.delivered.len() >= expected || (is_enough && waited >= self.patience.round_timeout);
        if is_over { self.close(expected, waited) } else { Ok(()) }
    }

    fn close(&mut self, expected: usize, waited: Duration) -> Result<(), OuterError> {
        let Some(run) = &mut self.run else { return Ok(()) };
        let round = run.state.round;
        let parts: Vec<Part<'_>> =
            self.delivered.values().map(|d| Part { payload: &d.payload, tokens: d.tokens }).collect();
        let stepped = run.state.step(&run.layout, &run.hyper, &parts).map_err(|error| {
            OuterError::local(
                format!("round {round}: the outer step cannot be done: {error}"),
                "a site has diverged: look at the losses of the sites and lower their learning rate, then start the \
                 coordinator again",
            )
        })?;
        let sites: Vec<String> = self.delivered.keys().cloned().collect();
        let tokens = self.delivered.values().map(|delivery| delivery.tokens).sum();
        for (site, delivery) in std::mem::take(&mut self.delivered) {
            if delivery.last {
                run.record.finished.insert(site.clone());
                self.unsettled.insert(site.clone());
            }
            run.record.included.insert(site, round);
        }
        self.first_delivery = None;
        self.store.commit(&run.state, &run.record)?;
        run.refresh();
        let (delta_bytes, update_bytes) = (run.layout.bytes(run.hyper.compress) as u64, stepped.update.len() as u64);
        run.update = Some(Arc::new(stepped.update));
        run.sites.clone_from(&sites);
        let (delta_norm, seconds, state_digest) = (stepped.delta_norm, waited.as_secs_f64(), run.state.digest());
        self.events.push(DeskEvent::Closed {
            round,
            sites,
            expected,
            tokens,
            delta_norm,
            seconds,
            delta_bytes,
            update_bytes,
            state_digest,
        });
        Ok(())
    }

    /// A site holds what it was sent.
    pub fn acknowledge(&mut self, site: &str) {
        self.unsettled.remove(site);
    }

    fn waiting(&self) -> Waiting {
        Waiting { delivered: self.delivered.keys().cloned().collect(), expected: self.expected() }
    }

    /// Sites that the open round waits for: all but those whose runs have ended.
    fn expected(&self) -> usize {
        let finished = self.run.as_ref().map_or(0, |run| run.record.finished.len());
        self.patience.sites.saturating_sub(finished).max(1)
    }
}

impl Run {
    fn new(state: OuterState, record: Record) -> Result<Self, OuterError> {
        let layout = Layout::new(&Shape::to_specs(&record.shapes));
        let hyper = hyper(&record.facts)?;
        if state.theta.len() != layout.len() {
            let what = format!("{} parameters came for shapes of {}", state.theta.len(), layout.len());
            return Err(OuterError::refused(what, "use the same jazari everywhere"));
        }
        let (theta, update, sites) = (Arc::new(Vec::new()), None, Vec::new());
        let mut run = Self { record, hyper, layout, state, theta, theta_digest: String::new(), update, sites };
        run.refresh();
        Ok(run)
    }

    /// Takes over the state's parameters as what is sent.
    fn refresh(&mut self) {
        self.theta_digest = digest(&[&self.state.theta]);
        self.theta = Arc::new(self.state.theta.clone());
    }

    fn answer(&self, form: Form, included: bool) -> Next {
        let (round, theta, sites) = (self.state.round, self.theta_digest.clone(), self.sites.clone());
        let vector = match (form, &self.update) {
            (Form::Same, _) => Vector::Nothing,
            (Form::Update, Some(update)) => Vector::Update(Arc::clone(update)),
            (Form::Update | Form::Whole, _) => Vector::Whole(Arc::clone(&self.theta)),
        };
        Next::Update(Update { round, theta, form, included, sites }, vector)
    }
}

/// The numbers of an outer step, as the first site wrote them.
fn hyper(facts: &[(String, String)]) -> Result<OuterHyper, OuterError> {
    let value = |key: &str| facts.iter().find(|(k, _)| k == key).map_or("", |(_, value)| value.as_str());
    let number = |key: &str| {
        let text = value(key);
        text.parse::<f64>().ok().filter(|number| number.is_finite()).ok_or_else(|| {
            OuterError::refused(format!("{key} is '{}', no number", shown(text)), "use the same jazari everywhere")
        })
    };
    let compress = match value(fact::COMPRESS) {
        "none" => OuterCompress::None,
        "int8" => OuterCompress::Int8,
        other => {
            let what = format!("{} is '{}', which is not known here", fact::COMPRESS, shown(other));
            return Err(OuterError::refused(what, "use the same jazari everywhere"));
        }
    };
    Ok(OuterHyper { learning_rate: number(fact::LEARNING_RATE)?, momentum: number(fact::MOMENTUM)?, compress })
}

/// What a site said, as a message or a terminal may repeat it.
fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(120).collect()
}

#[cfg(test)]
#[path = "desk_tests.rs"]
mod tests;
