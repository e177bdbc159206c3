//! Owns how languages, sources and licences share the training rows: temperature, weights, quotas, repeat caps, stages;
//! never touches row numbers.

use std::collections::{BTreeMap, BTreeSet};

use super::quota::{Quota, Wanted, coverage, known_names, names_licences, nearest};
use crate::share::pour;

/// How languages and sources share the training rows.
#[derive(Debug, Clone, PartialEq)]
pub struct MixtureSpec {
    /// A language's share is proportional to (its tokens)^temperature: 1 keeps natural shares, 0 makes all equal.
    /// Inside a language, sources share by their tokens.
    pub temperature: f64,
    /// Factors on those shares by language (`ary_Latn`), source in a language (`ary_Latn/doda-mit`) or source
    /// (`*/doda-mit`). All that apply multiply; 0 leaves the stream out.
    pub weights: BTreeMap<String, f64>,
    /// Most times that a row may be repeated over the run, on average over its stream.
    pub max_epochs: f64,
    /// Bounds on parts of the data: `ary_Latn`, `ary_Latn/doda-mit`, `*/doda-mit`, `*_Tfng`, `licence:CC-BY-SA-*`.
    /// Shares hold in every stage.
    pub quotas: BTreeMap<String, Quota>,
    /// Parts of the run with shares of their own, in order; empty where the whole run is one.
    pub stages: Vec<StageSpec>,
    /// The datasets whose streams stand one after another, with their shares of the rows; empty where they share as one
    /// dataset would.
    pub parts: Vec<PartShare>,
}

/// What a part of the run has of its own.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct StageSpec {
    /// The first row of the run after it; of the last stage the end of the run.
    pub until_row: u64,
    /// Instead of the mixture's.
    pub temperature: Option<f64>,
    /// Instead of the mixture's.
    pub weights: Option<BTreeMap<String, f64>>,
    /// Each instead of the mixture's quota of that name. Their `max_epochs` are those of the whole run.
    pub quotas: BTreeMap<String, Quota>,
}

/// A dataset's place in a mixture.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PartShare {
    /// Number of its streams.
    pub streams: usize,
    /// Its share of the rows against those of the other parts. Temperature and factors divide it among its streams.
    pub weight: f64,
}

impl Default for MixtureSpec {
    /// Every row as often as every other: natural shares, no factors, no cap.
    fn default() -> Self {
        Self {
            temperature: 1.0,
            weights: BTreeMap::new(),
            max_epochs: f64::INFINITY,
            quotas: BTreeMap::new(),
            stages: Vec::new(),
            parts: Vec::new(),
        }
    }
}

impl MixtureSpec {
    /// Whether one temperature, weights and a cap are all there is.
    pub(super) fn is_plain(&self) -> bool {
        self.quotas.is_empty() && self.stages.is_empty()
    }

    /// Whether it names licences, so that streams must know theirs.
    pub fn names_licences(&self) -> bool {
        let own = self.quotas.keys();
        own.chain(self.stages.iter().flat_map(|stage| stage.quotas.keys())).any(|name| names_licences(name))
    }

    /// Most times that the rows of a stream may be repeated: the smallest cap of a quota that stands for any of it, or
    /// else the mixture's own.
    pub fn epochs_cap(&self, stream: &Stream) -> f64 {
        let own = self.quotas.iter().filter(|(name, _)| coverage(name, stream) > 0.0);
        own.filter_map(|(_, quota)| quota.max_epochs).min_by(f64::total_cmp).unwrap_or(self.max_epochs)
    }

    /// The mixture inside a stage.
    fn of_stage(&self, stage: &StageSpec) -> Self {
        let mut quotas = self.quotas.clone();
        quotas.extend(stage.quotas.iter().map(|(name, quota)| (name.clone(), *quota)));
        Self {
            temperature: stage.temperature.unwrap_or(self.temperature),
            weights: stage.weights.as_ref().unwrap_or(&self.weights).clone(),
            quotas,
            stages: Vec::new(),
            ..self.clone()
        }
    }
}

/// What the mixture knows of a component.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stream {
    /// `ary_Arab`.
    pub lang: String,
    /// Name of the corpus.
    pub source: String,
    /// Rows at the run's sequence length.
    pub rows: u64,
    /// Tokens.
    pub tokens: u64,
    /// UTF-8 bytes of text.
    pub text_bytes: u64,
    /// Tokens by licence; empty where nobody counted.
    pub licences: BTreeMap<String, u64>,
}

impl Stream {
    /// `ary_Arab/doda-mit`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.lang, self.source)
    }
}

/// A mixture that cannot be carried out.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum OrderError {
    /// A number outside its range.
    #[error("{key}: {value} is not {rule}")]
    Number {
        /// `mixture.temperature`.
        key: String,
        /// What was given.
        value: f64,
        /// What it must be and what to write.
        rule: &'static str,
    },
    /// A weight that names nothing.
    #[error("mixture.weights.{name}: the dataset has no such language or source; it has {known}")]
    UnknownWeight {
        /// The key as written.
        name: String,
        /// What could have been written.
        known: String,
    },
    /// A quota that names nothing.
    #[error("mixture.quotas.{name}: the dataset has no such language, source or licence; it has {known}")]
    UnknownQuota {
        /// The key as written.
        name: String,
        /// What could have been written.
        known: String,
    },
    /// Stages that do not follow each other.
    #[error(
        "mixture.stages[{stage}].until: the stage would end at row {until} of {total}, where the one before it ends at \
         {before}; let each stage end later than the one before it, and the last with the run"
    )]
    Stages {
        /// Number of the stage, from 0.
        stage: usize,
        /// Its end.
        until: u64,
        /// The end of the one before.
        before: u64,
        /// Rows of the run.
        total: u64,
    },
    /// A least share that a part cannot reach with its rows.
    #[error(
        "mixture.quotas.{name}: min_share {share} of {needed} rows (stage {stage}) is {wanted} rows, but {name} has \
         {rows}, which may be repeated {epochs} times; lower it to {possible} or raise `max_epochs` of {name} to {least}"
    )]
    OutOfRows {
        /// The quota.
        name: String,
        /// Its least share.
        share: f64,
        /// Number of the stage, from 1.
        stage: usize,
        /// Rows of the stage.
        needed: u64,
        /// Rows that the share asks for.
        wanted: u64,
        /// Rows of the part.
        rows: u64,
        /// Repetitions that are allowed.
        epochs: f64,
        /// Largest share that is possible.
        possible: f64,
        /// Least cap that suffices.
        least: f64,
    },
    /// Bounds that leave no room for each other.
    #[error(
        "mixture.quotas: in stage {stage} of {stages} these cannot be met together with the repeat caps: {quotas}; lower a \
         `min_share`, raise a `max_share` or `max_epochs`, or give more of the data a weight above 0"
    )]
    Contradiction {
        /// Number of the stage, from 1.
        stage: usize,
        /// How many there are.
        stages: usize,
        /// The bounds that pull against each other.
        quotas: String,
    },
    /// Every stream is left out or empty.
    #[error("mixture.weights: nothing is left to train on; give at least one language that has rows a weight above 0")]
    NothingLeft,
    /// The repeat cap leaves fewer rows than the run asks for.
    #[error(
        "mixture.max_epochs: {available} rows at most can be drawn ({rows} rows, each up to {max_epochs} times), the run \
         asks for {needed}; write max_epochs: {least} or more, train fewer steps, or prepare more data"
    )]
    TooFewRows {
        /// Rows of the streams in the mixture.
        rows: u64,
        /// The cap.
        max_epochs: f64,
        /// Rows times the cap.
        available: u64,
        /// Rows of the whole run.
        needed: u64,
        /// Smallest cap that suffices, rounded up to a hundredth.
        least: f64,
    },
}

/// What one stage gives to the streams.
pub(super) struct Resolved {
    /// Rows of the run before its end.
    pub until: u64,
    /// Shares that temperature and weights ask for.
    pub wanted: Vec<f64>,
    /// Shares after quotas and caps, summing to 1.
    pub shares: Vec<f64>,
    /// Whether the repeat cap lowered the share of a stream.
    pub capped: Vec<bool>,
}

/// Shares of `streams` in a run of `total_rows` rows, by stage: what temperature and weights ask for, and what quotas
/// and caps leave.
pub(super) fn resolve(streams: &[Stream], spec: &MixtureSpec, total_rows: u64) -> Result<Vec<Resolved>, OrderError> {
    check_numbers(spec)?;
    check_names(streams, spec)?;
    if spec.is_plain() {
        return Ok(vec![resolve_plain(streams, spec, total_rows)?]);
    }
    let stages = stages_of(spec, total_rows)?;
    for (_, stage) in &stages {
        check_numbers(stage)?;
        check_names(streams, stage)?;
    }
    let total = total_rows.max(1) as f64;
    let caps: Vec<f64> = streams.iter().map(|s| spec.epochs_cap(s) * s.rows as f64 / total).collect();
    let mut wanted = Vec::with_capacity(stages.len());
    let mut begin = 0;
    for (number, (until, stage)) in stages.iter().enumerate() {
        let shares = wanted_of(streams, stage)?;
        check_reach(streams, (number, until - begin), stage, &shares, spec)?;
        wanted.push(Wanted { length: (until - begin) as f64 / total, shares, quotas: &stage.quotas });
        begin = *until;
    }
    // One stage takes what it can; together they must not take more than there is.
    let used = |c: usize| wanted.iter().any(|stage| stage.shares.get(c).is_some_and(|share| *share > 0.0));
    let room: f64 = (0..).zip(&caps).filter(|(c, _)| used(*c)).map(|(_, cap)| cap).sum();
    if room < 1.0 - 1e-9 {
        let rows = (0..).zip(streams).filter(|(c, _)| used(*c)).map(|(_, s)| s.rows).sum::<u64>();
        let least = (total / rows.max(1) as f64 * 100.0).ceil() / 100.0;
        let available = (room * total) as u64;
        return Err(OrderError::TooFewRows { rows, max_epochs: spec.max_epochs, available, needed: total_rows, least });
    }
    let bounded = nearest(streams, &wanted, &caps)?;
    let resolved = |(((until, _), wanted), shares): ((&(u64, MixtureSpec), Wanted<'_>), Vec<f64>)| Resolved {
        until: *until,
        wanted: wanted.shares,
        shares,
        capped: bounded.capped.clone(),
    };
    Ok(stages.iter().zip(wanted).zip(bounded.stages).map(resolved).collect())
}

/// One stage with neither quotas nor others beside it.
fn resolve_plain(streams: &[Stream], spec: &MixtureSpec, total_rows: u64) -> Result<Resolved, OrderError> {
    let wanted = wanted_of(streams, spec)?;
    let caps: Vec<f64> = streams.iter().map(|s| spec.max_epochs * s.rows as f64 / total_rows.max(1) as f64).collect();
    let rows: u64 = streams.iter().zip(&wanted).filter(|(_, w)| **w > 0.0).map(|(s, _)| s.rows).sum();
    let portions = pour(&wanted, &caps).ok_or_else(|| OrderError::TooFewRows {
        rows,
        max_epochs: spec.max_epochs,
        available: (rows as f64 * spec.max_epochs) as u64,
        needed: total_rows,
        least: (total_rows as f64 / rows as f64 * 100.0).ceil() / 100.0,
    })?;
    let (shares, capped) = portions.iter().map(|portion| (portion.share, portion.capped)).unzip();
    Ok(Resolved { until: total_rows, wanted, shares, capped })
}

fn wanted_of(streams: &[Stream], spec: &MixtureSpec) -> Result<Vec<f64>, OrderError> {
    if spec.parts.is_empty() { wanted_shares(streams, spec) } else { shares_by_part(streams, spec) }
}

/// The stages with the first row after each.
fn stages_of(spec: &MixtureSpec, total_rows: u64) -> Result<Vec<(u64, MixtureSpec)>, OrderError> {
    let mut stages: Vec<(u64, MixtureSpec)> = Vec::new();
    let last = spec.stages.len().saturating_sub(1);
    for (number, stage) in spec.stages.iter().enumerate() {
        let before = stages.last().map_or(0, |(until, _)| *until);
        let until = if number == last { total_rows } else { stage.until_row };
        if until <= before || until > total_rows {
            return Err(OrderError::Stages { stage: number, until, before, total: total_rows });
        }
        stages.push((until, spec.of_stage(stage)));
    }
    if stages.is_empty() {
        stages.push((total_rows, spec.clone()));
    }
    Ok(stages)
}

/// Refuses a least share that a part cannot reach alone, in its own words.
fn check_reach(
    streams: &[Stream],
    (number, rows): (usize, u64),
    stage: &MixtureSpec,
    wanted: &[f64],
    spec: &MixtureSpec,
) -> Result<(), OrderError> {
    for (name, quota) in &stage.quotas {
        let Some(share) = quota.min_share.filter(|share| *share > 0.0) else { continue };
        let own = || {
            let part = |(stream, wanted): (&Stream, &f64)| {
                let part = if *wanted > 0.0 { coverage(name, stream) } else { 0.0 };
                (part * stream.rows as f64, spec.epochs_cap(stream))
            };
            streams.iter().zip(wanted).map(part).filter(|(rows, _)| *rows > 0.0)
        };
        let available: f64 = own().map(|(rows, cap)| rows * cap).sum();
        let needed = share * rows as f64;
        if needed > available * (1.0 + 1e-9) {
            let all: f64 = own().map(|(rows, _)| rows).sum();
            return Err(OrderError::OutOfRows {
                name: name.clone(),
                share,
                stage: number + 1,
                needed: rows,
                wanted: needed.ceil() as u64,
                rows: all as u64,
                epochs: available / all.max(1.0),
                possible: (available / rows.max(1) as f64 * 1e4).floor() / 1e4,
                least: (needed / all.max(1.0) * 100.0).ceil() / 100.0,
            });
        }
    }
    Ok(())
}

fn check_numbers(spec: &MixtureSpec) -> Result<(), OrderError> {
    let number = |key: &str, value: f64, good: bool, rule| {
        if good { Ok(()) } else { Err(OrderError::Number { key: key.to_owned(), value, rule }) }
    };
    let t = spec.temperature;
    number("mixture.temperature", t, (0.0..=1.0).contains(&t), "between 0 (languages equal) and 1 (natural shares)")?;
    let m = spec.max_epochs;
    number("mixture.max_epochs", m, m > 0.0, "a number above 0; it caps how often a row is repeated")?;
    for (name, &weight) in &spec.weights {
        let good = weight.is_finite() && weight >= 0.0;
        number(&format!("mixture.weights.{name}"), weight, good, "a factor of 0 or more")?;
    }
    for (name, quota) in &spec.quotas {
        let key = |of: &str| format!("mixture.quotas.{name}.{of}");
        let (least, most) = (quota.min_share.unwrap_or(0.0), quota.max_share.unwrap_or(1.0));
        number(&key("min_share"), least, (0.0..=1.0).contains(&least), "a share from 0 to 1")?;
        let rule = "a share above 0 and at most 1; `weights: {NAME: 0}` leaves a part out";
        number(&key("max_share"), most, most > 0.0 && most <= 1.0, rule)?;
        number(&key("min_share"), least, least <= most, "at most the `max_share` beside it")?;
        let epochs = quota.max_epochs.unwrap_or(1.0);
        number(&key("max_epochs"), epochs, epochs > 0.0 && epochs.is_finite(), "a number above 0")?;
    }
    for (i, part) in spec.parts.iter().enumerate() {
        let good = part.weight.is_finite() && part.weight >= 0.0;
        number(&format!("datasets[{i}].weight"), part.weight, good, "a share of 0 or more")?;
    }
    Ok(())
}

/// The shares of each part, which are divided among its own streams. A weight of 0 leaves a part out; a part whose
/// streams are all left out gives its share to the others.
fn shares_by_part(streams: &[Stream], spec: &MixtureSpec) -> Result<Vec<f64>, OrderError> {
    let mut rest = streams;
    let mut shares = Vec::with_capacity(streams.len());
    for part in &spec.parts {
        let (own, after) = rest.split_at(part.streams.min(rest.len()));
        rest = after;
        match wanted_shares(own, spec) {
            Ok(own) => shares.extend(own.into_iter().map(|share| share * part.weight)),
            Err(OrderError::NothingLeft) => shares.resize(shares.len() + own.len(), 0.0),
            Err(error) => return Err(error),
        }
    }
    shares.resize(streams.len(), 0.0);
    let sum: f64 = shares.iter().sum();
    if !(sum > 0.0 && sum.is_finite()) {
        return Err(OrderError::NothingLeft);
    }
    shares.iter_mut().for_each(|share| *share /= sum);
    Ok(shares)
}

/// Shares by temperature and weights, summing to 1; streams without rows get 0.
fn wanted_shares(streams: &[Stream], spec: &MixtureSpec) -> Result<Vec<f64>, OrderError> {
    let mut language_tokens: BTreeMap<&str, f64> = BTreeMap::new();
    for stream in streams.iter().filter(|s| s.rows > 0) {
        *language_tokens.entry(&stream.lang).or_default() += stream.tokens as f64;
    }
    let mut shares: Vec<f64> = streams
        .iter()
        .map(|stream| {
            let total = language_tokens.get(stream.lang.as_str()).copied().unwrap_or(0.0);
            if stream.rows == 0 || total == 0.0 {
                return 0.0;
            }
            total.powf(spec.temperature) * (stream.tokens as f64 / total) * factor(stream, spec)
        })
        .collect();
    let sum: f64 = shares.iter().sum();
    if !(sum > 0.0 && sum.is_finite()) {
        return Err(OrderError::NothingLeft);
    }
    shares.iter_mut().for_each(|share| *share /= sum);
    Ok(shares)
}

fn check_names(streams: &[Stream], spec: &MixtureSpec) -> Result<(), OrderError> {
    let listed = |known: BTreeSet<String>| {
        let names: Vec<String> = known.iter().map(|name| format!("`{name}`")).collect();
        names.join(", ")
    };
    let known = || -> BTreeSet<String> {
        let names = |s: &Stream| [s.lang.clone(), s.name(), format!("*/{}", s.source)];
        streams.iter().flat_map(names).collect()
    };
    if !spec.weights.is_empty() {
        let known = known();
        if let Some(name) = spec.weights.keys().find(|name| !known.contains(*name)) {
            return Err(OrderError::UnknownWeight { name: name.clone(), known: listed(known) });
        }
    }
    let is_unknown = |name: &&String| streams.iter().all(|stream| coverage(name, stream) == 0.0);
    match spec.quotas.keys().find(is_unknown) {
        None => Ok(()),
        Some(name) => Err(OrderError::UnknownQuota { name: name.clone(), known: listed(known_names(streams)) }),
    }
}

fn factor(stream: &Stream, spec: &MixtureSpec) -> f64 {
    [stream.lang.clone(), stream.name(), format!("*/{}", stream.source)]
        .iter()
        .filter_map(|name| spec.weights.get(name))
        .product()
}
