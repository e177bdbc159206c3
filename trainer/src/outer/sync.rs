//! Owns the place of the outer run in the training loop: when a site talks to the coordinator, what it says, and how the
//! processes of a site share the result; never touches sockets.
//!
//! Only the process that leads a team talks. The others wait for it in a broadcast that comes at least every second, so
//! that nobody takes a coordinator's slowness for a lost peer.

use std::time::{Duration, Instant};

use burn::tensor::{Device, Tensor, TensorData};
use model_zoo::Params;

use super::OuterError;
use super::held::{Counters, Held};
use super::messages::{KEY_PURPOSE, Offer, fact};
use super::quantise::Layout;
use super::site::{Beat, Received, Site};
use crate::checkpoint::TrainState;
use crate::config::plan::{OuterPlan, Plan};
use crate::config::raw::OuterCompress;
use crate::events::Event;
use crate::signals::StopFlag;
use crate::team::Team;
use crate::train::{Context, TrainError};

/// How often the leader of a team tells the others that it still waits.
const TEAM_TICK: Duration = Duration::from_secs(1);
/// First byte of what the leader tells the others.
const WORKING: u8 = 0;
const DONE: u8 = 1;
const STOPPED: u8 = 2;
const GAVE_UP: u8 = 3;

/// How a synchronisation ended, the same for every process of a site.
#[derive(Debug)]
pub enum Ended {
    /// There was nothing to do.
    Nothing,
    /// The parameters are those of the round that begins.
    Adopted,
    /// A stop was asked for; the delta is still to be delivered.
    Stopped,
    /// The coordinator was not there for too long; the delta is still to be delivered.
    GaveUp(OuterError),
}

/// What the leader did while the others waited.
enum Together<T> {
    /// Its result; `None` in the others.
    Done(Option<T>),
    Stopped,
    GaveUp(String),
}

/// Reads the secret and asks the coordinator whether this site fits, before anything is written. A run that has
/// checkpoints goes on without an answer; a fresh one waits for it. `None` without an outer run, and in processes that
/// do not lead.
///
/// # Errors
/// [`OuterError::Refused`] when the site does not fit, [`OuterError::Unreachable`] when a fresh one finds nobody.
pub fn meet(
    plan: &Plan,
    tokenizer: &str,
    team: &mut Team,
    stop: &StopFlag,
    note: &dyn Fn(&str),
) -> Result<Option<Site>, OuterError> {
    let Some(outer) = &plan.outer else { return Ok(None) };
    let checkpoints = plan.output_dir.join("checkpoints");
    let is_fresh = crate::checkpoint::store::list(&checkpoints).map_or(true, |found| found.is_empty());
    let met = as_team(team, stop, |tick| {
        let mut site = site(plan, outer, tokenizer)?;
        let patience = if is_fresh { site.give_up_after } else { Duration::ZERO };
        let mut last = String::new();
        let checked = site.check(patience, &mut |beat| {
            if let Beat::Retrying(why) = beat
                && last != why
            {
                note(&format!("waiting for the coordinator of the outer run: {why}"));
                why.clone_into(&mut last);
            }
            tick()
        });
        site.seen = match checked {
            Err(OuterError::Unreachable(why)) if !is_fresh => {
                note(&format!("note: {why}; training goes on until it is needed"));
                None
            }
            other => Some(other?),
        };
        Ok(site)
    })?;
    match met {
        Together::Done(site) => Ok(site),
        Together::Stopped => Err(OuterError::Stopped),
        Together::GaveUp(why) => Err(OuterError::Unreachable(why)),
    }
}

fn site(plan: &Plan, outer: &OuterPlan, tokenizer: &str) -> Result<Site, OuterError> {
    Ok(Site {
        name: outer.site.clone(),
        host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
        coordinator: outer.coordinator.clone(),
        key: super::token(None)?.derive(KEY_PURPOSE),
        facts: facts(plan, outer, tokenizer)?,
        compress: outer.compress,
        give_up_after: Duration::from_secs_f64(outer.give_up_after),
        seen: None,
    })
}

/// What all sites must have alike. Data, batch, schedule and length of a run are each site's own.
fn facts(plan: &Plan, outer: &OuterPlan, tokenizer: &str) -> Result<Vec<(String, String)>, OuterError> {
    // The longest position that an export claims follows from the length of a site's rows.
    let config = plan.model.clone().with_max_positions(0);
    let (family, layers, width) = (config.family_name(), config.num_layers(), config.hidden_size());
    let dimensions = format!("{family} of {layers} layers of width {width}");
    let specs = model_zoo::Model::new(&plan.model).map(|model| model.specs());
    let specs = specs.map_err(|error| OuterError::refused(error.to_string(), "correct the model"))?;
    let mut hasher = blake3::Hasher::new();
    hasher.update(serde_json::to_string(&config).unwrap_or_default().as_bytes());
    for spec in specs.iter() {
        hasher.update(format!("\n{} {:?}", spec.name, spec.shape).as_bytes());
    }
    let model = hasher.finalize().to_hex();
    let short = |digest: &str| digest.chars().take(16).collect::<String>();
    let compress = match outer.compress {
        OuterCompress::None => "none",
        OuterCompress::Int8 => "int8",
    };
    let facts = [
        (fact::VERSION, env!("CARGO_PKG_VERSION").to_owned()),
        (fact::MODEL, format!("{dimensions} ({})", short(&model))),
        (fact::TOKENIZER, short(tokenizer)),
        (fact::SYNC_EVERY, outer.sync_every.to_string()),
        (fact::OPTIMIZER, "nesterov".to_owned()),
        // Display of a float reads back as the same bits.
        (fact::LEARNING_RATE, outer.learning_rate.to_string()),
        (fact::MOMENTUM, outer.momentum.to_string()),
        (fact::COMPRESS, compress.to_owned()),
    ];
    Ok(facts.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
}

/// At the start of a run: joins, delivers what an earlier process of this run has not, or leaves a round that ended
/// without this site.
///
/// # Errors
/// When the coordinator refuses this site, or a process of it is lost.
pub fn start(plan: &Plan, state: &mut TrainState, cx: &mut Context<'_>) -> Result<Ended, TrainError> {
    if plan.outer.is_none() {
        return Ok(Ended::Nothing);
    }
    let is_pending = |held: &Held| plan.syncs_at(state.step) && held.counters.since_step < state.step;
    let has_moved_on = |held: &Held| {
        let seen = cx.outer.as_ref().and_then(|site| site.seen.as_ref());
        seen.is_some_and(|seen| {
            seen.round.is_some_and(|open| open > held.counters.round) && seen.included != Some(held.counters.round)
        })
    };
    let (must_join, must_deliver) = match &state.outer {
        None => (true, false),
        Some(held) if has_moved_on(held) => (true, false),
        Some(held) => (false, is_pending(held)),
    };
    let answer = cx.team.from_leader(vec![u8::from(must_join), u8::from(must_deliver)])?;
    match answer.as_slice() {
        [1, _] => join(state, cx),
        [_, 1] => deliver(plan, state, cx),
        _ => Ok(Ended::Nothing),
    }
}

/// Takes over the parameters of the open round.
fn join(state: &mut TrainState, cx: &mut Context<'_>) -> Result<Ended, TrainError> {
    let specs = std::sync::Arc::clone(state.params.shared_specs());
    let theta = if cx.team.leads() { flat(&state.params)? } else { Vec::new() };
    let ended = converse(cx, state.step, |site, keep| site.join(&specs, &theta, keep))?;
    let Together::Done(received) = ended else { return Ok(not_done(ended)) };
    if let Some((received, site, _)) = received {
        let dropped = match &state.outer {
            Some(held) => held.counters.dropped + u64::from(held.counters.since_step < state.step),
            None => 0,
        };
        let Received { update, sent, received: bytes, theta } = received;
        let compress = cx.outer.as_ref().map_or(OuterCompress::None, |site| site.compress);
        let residual = state.outer.take().map(|held| held.residual);
        let residual = residual.unwrap_or_else(|| match compress {
            OuterCompress::None => Vec::new(),
            OuterCompress::Int8 => vec![0.0; theta.len()],
        });
        hold(state, &cx.device, update.round, dropped, theta, residual);
        let (round, sent_bytes, received_bytes) = (update.round, sent, bytes);
        (cx.observer)(&Event::OuterJoined { step: state.step, round, site, sent_bytes, received_bytes })?;
    }
    cx.team.copy_parameters_of_leader(&mut state.params, &cx.device)?;
    Ok(Ended::Adopted)
}

/// Delivers this site's delta and takes over the parameters of the next round.
///
/// # Errors
/// When the coordinator refuses it, or a process of this site is lost.
pub fn deliver(plan: &Plan, state: &mut TrainState, cx: &mut Context<'_>) -> Result<Ended, TrainError> {
    let layout = Layout::new(state.params.specs());
    let compress = plan.outer.as_ref().map_or(OuterCompress::None, |outer| outer.compress);
    let mut residual = Vec::new();
    let (mut offer, mut payload) = (None, Vec::new());
    if let (true, Some(held)) = (cx.team.leads(), &state.outer) {
        residual = flat(&state.params)?;
        residual.iter_mut().zip(&held.theta).for_each(|(local, theta)| *local = theta - *local);
        residual.iter_mut().zip(&held.residual).for_each(|(delta, rest)| *delta += rest);
        payload = layout.encode(compress, &mut residual).map_err(|error| {
            let what = format!("step {}: what this site would send cannot be sent: {error}", state.step);
            OuterError::local(what, "it has diverged: lower learning_rate, and resume from an older checkpoint")
        })?;
        residual.truncate(held.residual.len());
        offer = Some(Offer {
            round: held.counters.round,
            digest: blake3::hash(&payload).to_hex().to_string(),
            tokens: state.tokens - held.counters.since_tokens,
            last: state.step >= plan.max_steps,
            whole: false,
        });
    }
    let base = state.outer.as_ref().map_or(&[][..], |held| &held.theta);
    let ended = converse(cx, state.step, |site, keep| match offer.clone() {
        Some(offer) => site.deliver(&layout, offer, &payload, base, keep),
        None => Err(OuterError::local("this site never joined the outer run", "this is a defect, please report it")),
    })?;
    let Together::Done(received) = ended else { return Ok(not_done(ended)) };
    if let (Some((received, _, waited)), Some(held), Some(offer)) = (received, state.outer.take(), offer) {
        let Received { update, theta, sent, received } = received;
        // What rounding took from a delta that was dropped was never taken.
        let residual = if update.included { residual } else { held.residual };
        let dropped = held.counters.dropped + u64::from(!update.included);
        hold(state, &cx.device, update.round, dropped, theta, residual);
        (cx.observer)(&Event::OuterRound {
            step: state.step,
            round: offer.round,
            included: update.included,
            sites: update.sites,
            tokens: offer.tokens,
            sent_bytes: sent,
            received_bytes: received,
            seconds: waited.as_secs_f64(),
        })?;
    }
    cx.team.copy_parameters_of_leader(&mut state.params, &cx.device)?;
    Ok(Ended::Adopted)
}

/// Lets the leader talk while the others wait, and tells the observer what it waits for.
fn converse(
    cx: &mut Context<'_>,
    step: u64,
    talk: impl FnOnce(&Site, &mut super::site::Keep<'_>) -> Result<Received, OuterError>,
) -> Result<Together<(Received, String, Duration)>, TrainError> {
    cx.team.at(step, "waiting for the other sites");
    let Context { team, outer, observer, stop, .. } = cx;
    let started = Instant::now();
    let (mut logged, mut last) = (Ok(()), None);
    let ended = as_team(team, stop, |tick| {
        let Some(site) = outer else {
            return Err(OuterError::local("this process speaks for no site", "this is a defect, please report it"));
        };
        let received = talk(site, &mut |beat| {
            let event = match beat {
                Beat::Idle => None,
                Beat::Retrying(why) => Some(Event::OuterRetrying { step, why: why.to_owned() }),
                Beat::Waiting(w) => {
                    Some(Event::OuterWaiting { step, delivered: w.delivered.clone(), expected: w.expected })
                }
            };
            // The same words again would only fill the log.
            if let (Some(event), Ok(())) = (event, &logged)
                && last.as_ref() != Some(&event)
            {
                logged = observer(&event);
                last = Some(event);
            }
            tick()
        })?;
        Ok((received, site.name.clone(), started.elapsed()))
    })?;
    logged.map(|()| ended)
}

fn not_done<T>(ended: Together<T>) -> Ended {
    match ended {
        Together::Done(_) => Ended::Adopted,
        Together::Stopped => Ended::Stopped,
        Together::GaveUp(why) => Ended::GaveUp(OuterError::Unreachable(why)),
    }
}

/// Runs `work` in the leader; the others learn how it ended. `work` calls its argument at least every few seconds.
fn as_team<T>(
    team: &mut Team,
    stop: &StopFlag,
    work: impl FnOnce(&mut dyn FnMut() -> Result<(), OuterError>) -> Result<T, OuterError>,
) -> Result<Together<T>, OuterError> {
    if !team.leads() {
        return follow(team);
    }
    let mut last = Instant::now();
    let result = work(&mut || {
        if stop.is_set() {
            return Err(OuterError::Stopped);
        }
        if last.elapsed() >= TEAM_TICK {
            team.from_leader(vec![WORKING])?;
            last = Instant::now();
        }
        Ok(team.check()?)
    });
    let (code, ended) = match result {
        Ok(value) => (DONE, Together::Done(Some(value))),
        Err(OuterError::Stopped) => (STOPPED, Together::Stopped),
        Err(OuterError::Unreachable(why)) => (GAVE_UP, Together::GaveUp(why)),
        // The others hear of it when this process says farewell.
        Err(error) => return Err(error),
    };
    let mut message = vec![code];
    if let Together::GaveUp(why) = &ended {
        message.extend_from_slice(why.as_bytes());
    }
    team.from_leader(message)?;
    Ok(ended)
}

fn follow<T>(team: &mut Team) -> Result<Together<T>, OuterError> {
    loop {
        let message = team.from_leader(Vec::new())?;
        match message.split_first() {
            Some((&WORKING, _)) => {}
            Some((&DONE, _)) => return Ok(Together::Done(None)),
            Some((&STOPPED, _)) => return Ok(Together::Stopped),
            _ => {
                let why = message.get(1..).unwrap_or_default();
                return Ok(Together::GaveUp(String::from_utf8_lossy(why).into_owned()));
            }
        }
    }
}

/// Takes over the parameters of a round.
fn hold(state: &mut TrainState, device: &Device, round: u64, dropped: u64, theta: Vec<f32>, residual: Vec<f32>) {
    let mut rest = theta.as_slice();
    for tensor in state.params.tensors_mut() {
        let len = tensor.dims().iter().product::<usize>();
        let Some((own, tail)) = rest.split_at_checked(len) else { break };
        rest = tail;
        *tensor = Tensor::from_data(TensorData::new(own.to_vec(), [len]), device);
    }
    let counters = Counters { round, since_step: state.step, since_tokens: state.tokens, dropped };
    state.outer = Some(Held { counters, theta, residual });
}

/// All parameters, laid end to end.
fn flat(params: &Params) -> Result<Vec<f32>, OuterError> {
    let mut values = Vec::with_capacity(params.num_elements());
    for index in 0..params.specs().len() {
        values.extend(params.to_host(index).map_err(|error| {
            OuterError::local(format!("the parameters cannot be read: {error}"), "the device may have failed: restart")
        })?);
    }
    Ok(values)
}
