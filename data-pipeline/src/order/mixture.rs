//! Owns how languages and sources share the training rows: temperature, weights, repeat caps; never touches row
//! numbers.

use std::collections::{BTreeMap, BTreeSet};

use crate::share::{Portion, pour};

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
    /// The datasets whose streams stand one after another, with their shares of the rows; empty where they share as one
    /// dataset would.
    pub parts: Vec<PartShare>,
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
        Self { temperature: 1.0, weights: BTreeMap::new(), max_epochs: f64::INFINITY, parts: Vec::new() }
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

/// Shares of `streams` in a run of `total_rows` rows: what temperature and weights ask for, and what the cap leaves.
pub(crate) fn resolve(
    streams: &[Stream],
    spec: &MixtureSpec,
    total_rows: u64,
) -> Result<Vec<(f64, Portion)>, OrderError> {
    check_numbers(spec)?;
    check_names(streams, spec)?;
    let wanted = if spec.parts.is_empty() { wanted_shares(streams, spec)? } else { shares_by_part(streams, spec)? };
    let caps: Vec<f64> = streams.iter().map(|s| spec.max_epochs * s.rows as f64 / total_rows.max(1) as f64).collect();
    let rows: u64 = streams.iter().zip(&wanted).filter(|(_, w)| **w > 0.0).map(|(s, _)| s.rows).sum();
    let portions = pour(&wanted, &caps).ok_or_else(|| OrderError::TooFewRows {
        rows,
        max_epochs: spec.max_epochs,
        available: (rows as f64 * spec.max_epochs) as u64,
        needed: total_rows,
        least: (total_rows as f64 / rows as f64 * 100.0).ceil() / 100.0,
    })?;
    Ok(wanted.into_iter().zip(portions).collect())
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
    let mut known: BTreeSet<String> = BTreeSet::new();
    for stream in streams {
        known.extend([stream.lang.clone(), stream.name(), format!("*/{}", stream.source)]);
    }
    match spec.weights.keys().find(|name| !known.contains(*name)) {
        None => Ok(()),
        Some(name) => {
            let listed: Vec<String> = known.iter().map(|name| format!("`{name}`")).collect();
            Err(OrderError::UnknownWeight { name: name.clone(), known: listed.join(", ") })
        }
    }
}

fn factor(stream: &Stream, spec: &MixtureSpec) -> f64 {
    [stream.lang.clone(), stream.name(), format!("*/{}", stream.source)]
        .iter()
        .filter_map(|name| spec.weights.get(name))
        .product()
}
