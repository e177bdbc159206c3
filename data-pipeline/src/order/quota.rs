//! Owns which streams a name of the mixture stands for, and the shares nearest to those wanted that keep all bounds;
//! never touches rows.

use std::collections::{BTreeMap, BTreeSet};

use super::mixture::{OrderError, Stream};

/// Bounds on a part of the data, by the name of that part.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Quota {
    /// Least share of the rows.
    pub min_share: Option<f64>,
    /// Largest share of the rows.
    pub max_share: Option<f64>,
    /// Most times that its rows are repeated over the whole run, instead of the mixture's own cap.
    pub max_epochs: Option<f64>,
}

/// Prefix of names of licences.
const LICENCE: &str = "licence:";
/// The other spelling.
const LICENSE: &str = "license:";

/// Whether a name is that of licences, which streams know only when their documents were counted.
pub fn names_licences(name: &str) -> bool {
    name.starts_with(LICENCE) || name.starts_with(LICENSE)
}

/// The part of a stream that a name stands for, 0 to 1: `ary_Arab`, `ary_Arab/doda-mit`, `*/doda-mit`, `*_Tfng` (a
/// script), `licence:MIT` or `licence:CC-BY-*`. Only a licence can stand for a part of a stream.
pub(crate) fn coverage(name: &str, stream: &Stream) -> f64 {
    if let Some(pattern) = name.strip_prefix(LICENCE).or_else(|| name.strip_prefix(LICENSE)) {
        let all: u64 = stream.licences.values().sum();
        let fits = |licence: &str| match pattern.strip_suffix('*') {
            Some(prefix) => licence.starts_with(prefix),
            None => licence == pattern,
        };
        let own: u64 = stream.licences.iter().filter(|(licence, _)| fits(licence)).map(|(_, tokens)| tokens).sum();
        return if all == 0 { 0.0 } else { own as f64 / all as f64 };
    }
    let matches = match (name.strip_prefix("*_"), name.split_once('/')) {
        (Some(script), None) => stream.lang.split_once('_').is_some_and(|(_, own)| own == script),
        (_, Some(("*", source))) => stream.source == source,
        (_, Some((lang, source))) => stream.lang == lang && stream.source == source,
        (None, None) => stream.lang == name,
    };
    f64::from(u8::from(matches))
}

/// Every name that some stream answers to, for messages.
pub(crate) fn known_names(streams: &[Stream]) -> BTreeSet<String> {
    let mut known = BTreeSet::new();
    for stream in streams {
        known.extend([stream.lang.clone(), stream.name(), format!("*/{}", stream.source)]);
        known.extend(stream.licences.keys().map(|licence| format!("{LICENCE}{licence}")));
    }
    known
}

/// What the shares of one stage are to be.
pub(crate) struct Wanted<'a> {
    /// Part of the run.
    pub length: f64,
    /// Share of each stream, summing to 1.
    pub shares: Vec<f64>,
    /// Bounds by name.
    pub quotas: &'a BTreeMap<String, Quota>,
}

/// Shares of a stage and the streams whose repeat cap lowered them.
pub(crate) struct Bounded {
    /// Shares of the streams by stage.
    pub stages: Vec<Vec<f64>>,
    /// Whether the cap of a stream was met.
    pub capped: Vec<bool>,
}

/// A linear bound on the parts of the run that streams have in stages.
struct Bound {
    /// Stage and quota, for messages; `None` of a repeat cap.
    of: Option<(usize, String, bool)>,
    /// Place in the table and coefficient.
    terms: Vec<(usize, f64)>,
    limit: f64,
    /// Whether the sum must be at least the limit.
    is_least: bool,
    /// By how much the bound has moved its terms, 1 or more.
    factor: f64,
}

/// Sweeps over all bounds. Bounds on separate parts settle in a few, entangled ones in some hundred.
const MAX_SWEEPS: usize = 20_000;
/// Change of a sweep below which the shares are taken as settled.
const SETTLED: f64 = 1e-13;
/// A bound may be missed by this part of the run: less than a place in a block.
const TOLERANCE: f64 = 1e-6;
/// A bound that has moved its terms this far moves against another.
const MAX_FACTOR: f64 = 1e200;

/// The shares nearest to the wanted ones, in the sense of least relative entropy, that keep every bound and give no
/// stream more than `caps` (a part of the run) over all stages.
///
/// Each bound in turn is met by multiplying its terms with one factor, and undoes its own factor as far as later ones
/// have made it unnecessary (Bregman 1967, The relaxation method of finding the common point of convex sets; Csiszar
/// 1975, I-divergence geometry). With no bound but caps this is filling in proportion, as in [`crate::share`].
pub(crate) fn nearest(streams: &[Stream], wanted: &[Wanted<'_>], caps: &[f64]) -> Result<Bounded, OrderError> {
    let width = streams.len();
    let mut parts: Vec<f64> = wanted.iter().flat_map(|stage| stage.shares.iter().map(|s| s * stage.length)).collect();
    let mut bounds = bounds_of(streams, wanted, caps);
    for _ in 0..MAX_SWEEPS {
        let mut change: f64 = 0.0;
        for (stage, row) in wanted.iter().zip(parts.chunks_mut(width.max(1))) {
            let sum: f64 = row.iter().sum();
            if sum > 0.0 {
                let factor = stage.length / sum;
                row.iter_mut().for_each(|part| *part *= factor);
                change = change.max((factor - 1.0).abs());
            }
        }
        for bound in &mut bounds {
            change = change.max(bound.meet(&mut parts));
        }
        if change < SETTLED || bounds.iter().any(|bound| bound.factor > MAX_FACTOR) {
            break;
        }
    }
    missed(&bounds, &parts, wanted, width)?;
    let capped = (0..width).map(|c| bounds.iter().any(|b| b.caps(c) && b.factor > 1.0 + TOLERANCE)).collect();
    let stages = wanted.iter().zip(parts.chunks(width.max(1))).map(|(_, row)| {
        let sum: f64 = row.iter().sum();
        row.iter().map(|part| snapped(part / sum.max(f64::MIN_POSITIVE))).collect()
    });
    Ok(Bounded { stages: stages.collect(), capped })
}

/// Rounded far below a place of a block, so that the last bits of a sum decide nothing.
fn snapped(share: f64) -> f64 {
    const GRID: f64 = (1_u64 << 36) as f64;
    (share * GRID).round() / GRID
}

fn bounds_of(streams: &[Stream], wanted: &[Wanted<'_>], caps: &[f64]) -> Vec<Bound> {
    let width = streams.len();
    let mut bounds = Vec::new();
    for (number, stage) in wanted.iter().enumerate() {
        for (name, quota) in stage.quotas {
            let terms: Vec<(usize, f64)> = streams
                .iter()
                .enumerate()
                .map(|(c, stream)| (number * width + c, coverage(name, stream)))
                .filter(|(_, part)| *part > 0.0)
                .collect();
            for (limit, is_least) in [(quota.max_share, false), (quota.min_share, true)] {
                let Some(limit) = limit else { continue };
                let of = Some((number, name.clone(), is_least));
                bounds.push(Bound { of, terms: terms.clone(), limit: limit * stage.length, is_least, factor: 1.0 });
            }
        }
    }
    for (c, &cap) in caps.iter().enumerate().filter(|(_, cap)| cap.is_finite()) {
        let terms = (0..wanted.len()).map(|stage| (stage * width + c, 1.0)).collect();
        bounds.push(Bound { of: None, terms, limit: cap, is_least: false, factor: 1.0 });
    }
    bounds
}

impl Bound {
    fn sum(&self, parts: &[f64]) -> f64 {
        self.terms.iter().map(|&(at, part)| part * parts.get(at).copied().unwrap_or(0.0)).sum()
    }

    /// Whether it is the repeat cap of stream `c`, which its first term names.
    fn caps(&self, c: usize) -> bool {
        self.of.is_none() && self.terms.first().is_some_and(|(at, _)| *at == c)
    }

    /// Multiplies the terms so that the bound holds, no more than needed; by how much they changed.
    fn meet(&mut self, parts: &mut [f64]) -> f64 {
        let sum = self.sum(parts);
        if sum <= 0.0 {
            return 0.0;
        }
        let is_whole = self.terms.iter().all(|(_, part)| *part == 1.0);
        // By how much the bound wants to be tightened; below 1 it is loosened, but not beyond where it began.
        let ratio = if is_whole { self.ratio(sum) } else { self.ratio_of_parts(parts) };
        let tightened = (self.factor * ratio).max(1.0);
        let step = tightened / self.factor;
        self.factor = tightened;
        for &(at, part) in &self.terms {
            let Some(slot) = parts.get_mut(at) else { continue };
            let by = if part == 1.0 { step } else { step.powf(part) };
            *slot = if self.is_least { *slot * by } else { *slot / by };
        }
        (step - 1.0).abs()
    }

    fn ratio(&self, sum: f64) -> f64 {
        if self.is_least { self.limit / sum } else { sum / self.limit.max(f64::MIN_POSITIVE) }
    }

    /// The same where terms count in part: there is no closed form, but the sum falls or rises with the factor.
    fn ratio_of_parts(&self, parts: &[f64]) -> f64 {
        let at = |log: f64| -> f64 {
            let moved = |&(at, part): &(usize, f64)| {
                let now = parts.get(at).copied().unwrap_or(0.0);
                part * now * if self.is_least { (log * part).exp() } else { (-log * part).exp() }
            };
            self.terms.iter().map(moved).sum()
        };
        let is_tight = |log: f64| if self.is_least { at(log) >= self.limit } else { at(log) <= self.limit };
        let (mut low, mut high) = (-self.factor.ln(), 60.0);
        if is_tight(low) {
            return low.exp();
        }
        for _ in 0..80 {
            let middle = f64::midpoint(low, high);
            if is_tight(middle) { high = middle } else { low = middle }
        }
        high.exp()
    }
}

/// Names the bounds that the others do not leave room for.
fn missed(bounds: &[Bound], parts: &[f64], wanted: &[Wanted<'_>], width: usize) -> Result<(), OrderError> {
    let is_missed = |bound: &&Bound| {
        let sum = bound.sum(parts);
        if bound.is_least { sum < bound.limit - TOLERANCE } else { sum > bound.limit + TOLERANCE }
    };
    // Whole stages may be short as well: when every part of one is at its cap.
    let short = wanted
        .iter()
        .zip(parts.chunks(width.max(1)))
        .position(|(stage, row)| (row.iter().sum::<f64>() - stage.length).abs() > TOLERANCE);
    let first = bounds.iter().filter(is_missed).find(|bound| bound.of.is_some());
    let any_missed = short.is_some() || bounds.iter().any(|bound| is_missed(&bound));
    if !any_missed {
        return Ok(());
    }
    let pulling = |bound: &&Bound| bound.of.is_some() && (is_missed(bound) || bound.factor > 1e3);
    let mut named: Vec<String> = bounds.iter().filter(pulling).chain(first).filter_map(|b| b.words(wanted)).collect();
    named.sort();
    named.dedup();
    if named.is_empty() {
        named.extend(bounds.iter().filter_map(|bound| bound.words(wanted)));
    }
    let stage = short.or_else(|| first.and_then(|b| b.of.as_ref()).map(|(stage, ..)| *stage)).unwrap_or(0);
    Err(OrderError::Contradiction { stage: stage + 1, stages: wanted.len(), quotas: named.join(", ") })
}

impl Bound {
    /// `zgh_Tfng.min_share 0.2`.
    fn words(&self, wanted: &[Wanted<'_>]) -> Option<String> {
        let (stage, name, is_least) = self.of.as_ref()?;
        let quota = wanted.get(*stage)?.quotas.get(name)?;
        let (key, value) = if *is_least { ("min_share", quota.min_share) } else { ("max_share", quota.max_share) };
        Some(format!("`{name}: {{{key}: {}}}`", value?))
    }
}
