//! Owns `jazari outer serve`: arguments, printing, the exit code; never touches the rounds.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use indicatif::HumanBytes;

use super::failure::{Exit, Failure, note, say};
use super::progress::{short, thousands};
use crate::outer::desk::{DeskEvent, Patience};
use crate::outer::serve::{self, Notice, Options};
use crate::outer::{self, MAX_SITES, OuterError};
use crate::signals::StopFlag;

/// Longest time a round may stay open for late sites: 30 days.
const MAX_ROUND_TIMEOUT_SECONDS: u64 = 30 * 24 * 3600;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Coordinate the sites: average what they send and keep the result; needs no data and no GPU
    Serve(ServeArguments),
}

#[derive(Debug, Args)]
pub(super) struct ServeArguments {
    /// Address to listen at; the sites name it in outer.coordinator
    #[arg(long, value_name = "HOST:PORT")]
    bind: String,
    /// Number of sites; a round waits for all of them
    #[arg(long, value_name = "N")]
    sites: usize,
    /// Folder of the state; a coordinator that is started again goes on from it
    #[arg(long, value_name = "DIR")]
    output: PathBuf,
    /// File with the secret that coordinator and sites share (mode 0600); default: $JAZARI_OUTER_TOKEN_FILE
    #[arg(long, value_name = "FILE")]
    token: Option<PathBuf>,
    /// Sites that are enough for a round once --round-timeout is over; default: all
    #[arg(long, value_name = "M")]
    min_sites: Option<usize>,
    /// Seconds after the first delivery in which the other sites may still deliver, if --min-sites have
    #[arg(long, default_value_t = 3600, value_name = "SECONDS")]
    round_timeout: u64,
}

pub(super) fn run(command: Command) -> Result<Exit, Failure> {
    let Command::Serve(arguments) = command;
    serve(arguments)
}

fn serve(arguments: ServeArguments) -> Result<Exit, Failure> {
    let ServeArguments { bind, sites, output, token, min_sites, round_timeout } = arguments;
    let min_sites = min_sites.unwrap_or(sites);
    if !(1..=MAX_SITES).contains(&sites) {
        return Err(Failure::usage(format!("--sites {sites}: give a number from 1 to {MAX_SITES}")));
    }
    if !(1..=sites).contains(&min_sites) {
        return Err(Failure::usage(format!("--min-sites {min_sites}: give a number from 1 to --sites {sites}")));
    }
    if round_timeout > MAX_ROUND_TIMEOUT_SECONDS {
        let text = format!("--round-timeout {round_timeout}: give at most {MAX_ROUND_TIMEOUT_SECONDS} seconds");
        return Err(Failure::usage(text));
    }
    let token = outer::token(token)?;
    let stop = StopFlag::install(true).map_err(Failure::failed)?;
    let patience = Patience { sites, min_sites, round_timeout: Duration::from_secs(round_timeout) };
    let options = Options { bind, token: &token, patience, output };
    let ended = serve::serve(&options, &stop, &mut show)?;
    let at = match &ended.position {
        Some((round, digest)) => format!("{round} rounds are done, state {}", short(digest)),
        None => "no site has come yet".to_owned(),
    };
    match ended.finished {
        true => say(&format!("all sites have ended their runs: {at}")),
        false => say(&format!("stopped: {at}; run the same command again to continue")),
    }
    Ok(Exit::Done)
}

fn show(notice: Notice) {
    match notice {
        Notice::Listening { address, position: None } => note(&format!("listening at {address}; no site has come yet")),
        Notice::Listening { address, position: Some((round, digest)) } => {
            note(&format!("listening at {address}; round {round} is open, state {}", short(&digest)));
        }
        Notice::TurnedAway(line) => note(&format!("warning: {line}")),
        Notice::Event(event) => note(&text(&event)),
    }
}

fn text(event: &DeskEvent) -> String {
    match event {
        DeskEvent::Begun { site, parameters } => {
            format!("site {site} brings {} parameters as round 0", thousands(*parameters as f64))
        }
        DeskEvent::Joined { site, round } => format!("site {site} joins in round {round}"),
        DeskEvent::Delivered { site, round, tokens } => {
            format!("round {round}: site {site} has delivered ({} target tokens)", thousands(*tokens as f64))
        }
        DeskEvent::Late { site, round, open } => {
            format!("site {site} comes with round {round}, round {open} is open: dropped, it goes on from there")
        }
        DeskEvent::Refused { site, what } => format!("warning: site {site} was turned away: {what}"),
        DeskEvent::Closed {
            round, sites, expected, tokens, delta_norm, seconds, delta_bytes, state_digest, ..
        } => {
            format!(
                "round {round} is over after {seconds:.1} s: {} of {expected} sites ({}), {} target tokens, change \
                 {delta_norm:.3}, {} from each; state {}",
                sites.len(),
                sites.join(", "),
                thousands(*tokens as f64),
                HumanBytes(*delta_bytes),
                short(state_digest)
            )
        }
    }
}

impl From<&OuterError> for Exit {
    fn from(error: &OuterError) -> Self {
        match error {
            // Stopped before anything was started: nothing is written.
            OuterError::Refused { .. } | OuterError::Damaged { .. } | OuterError::Stopped => Self::Usage,
            OuterError::Unreachable(_) => Self::PeerLost,
            OuterError::Cluster(error) => Self::from(error),
            OuterError::Local { .. } | OuterError::File(_) | OuterError::Tensors(_) => Self::Failed,
        }
    }
}

impl From<OuterError> for Failure {
    fn from(error: OuterError) -> Self {
        Self::with(Exit::from(&error), error)
    }
}
