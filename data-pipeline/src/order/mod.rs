//! Owns which row of which component is the i-th row of a run; never touches files or tokens.
//!
//! `Order::row(i)` is a function of the seed, the mixture and `i`: nothing is stored between steps, any rank computes
//! any row, and resuming is starting at another `i`.
//!
//! Rows come in blocks of [`BLOCK_ROWS`]. In a block every component has a whole number of places, its quota, and the
//! places of all components are spread evenly, with a seeded jitter, so that every stretch of the run holds the mixture
//! to within a few rows. The k-th draw of a component is row `k mod n` of its own seeded permutation for epoch
//! `k div n`: an epoch ends before the next one begins, however short the run.
//!
//! A run with stages has a block of its own for each; draws are counted on from one stage to the next. Where there are
//! stages or quotas the places of a block are spread without jitter, so that every beginning of a stage holds each share
//! to within one row.

mod even;
mod exposure;
pub(crate) mod feistel;
mod mixture;
mod quota;

#[cfg(test)]
mod staged_tests;
#[cfg(test)]
mod tests;

use std::ops::Range;

pub use self::exposure::{Exposure, ExposureTable, Exposures};
use self::feistel::{Permutation, mix_pair};
use self::mixture::Resolved;
pub use self::mixture::{MixtureSpec, OrderError, PartShare, StageSpec, Stream};
pub use self::quota::{Quota, names_licences};

/// Rows of a block; a component's share of the run is a multiple of one over this number.
pub const BLOCK_ROWS: u64 = 65_536;

/// One row of one component.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RowRef {
    /// Index into the dataset's training components.
    pub component: usize,
    /// Row of the component.
    pub row: u64,
}

/// What a component contributes to the run.
#[derive(Debug, Clone, PartialEq)]
pub struct Share {
    /// The component.
    pub stream: Stream,
    /// Share of the rows that temperature and weights ask for.
    pub wanted: f64,
    /// Share of the rows it gets, after the repeat cap and rounding to places of a block.
    pub share: f64,
    /// Rows drawn over the whole run.
    pub draws: u64,
    /// `draws` over its rows: how often each of its rows is seen on average.
    pub epochs: f64,
    /// Whether the repeat cap lowered its share.
    pub capped: bool,
}

/// A place in a block.
#[derive(Debug, Clone, Copy)]
struct Place {
    component: u32,
    /// How many places of the same component come before it in the block.
    draw: u32,
}

#[derive(Debug, Clone, Copy)]
struct Lane {
    rows: u64,
    key: u64,
}

/// A stretch of the run with shares of its own.
#[derive(Debug, Clone)]
struct Stage {
    rows: Range<u64>,
    /// Places of each component in a block.
    quotas: Vec<u64>,
    places: Vec<Place>,
    /// Rows that each component has given before the stage begins.
    before: Vec<u64>,
}

/// The order of the training rows of a run.
#[derive(Debug, Clone)]
pub struct Order {
    lanes: Vec<Lane>,
    /// At least one.
    stages: Vec<Stage>,
    shares: Vec<Share>,
    total_rows: u64,
}

impl Order {
    /// Resolves the mixture for a run of `total_rows` rows over `streams`, the dataset's training components in order.
    ///
    /// # Errors
    /// When a number of the mixture is out of range, a weight or quota names nothing, nothing is left, the repeat cap
    /// leaves fewer rows than the run asks for, or quotas leave no room for each other.
    pub fn new(streams: &[Stream], spec: &MixtureSpec, total_rows: u64, seed: u64) -> Result<Self, OrderError> {
        let resolved = mixture::resolve(streams, spec, total_rows)?;
        let lane = |(i, stream): (usize, &Stream)| {
            // Joined datasets may hold streams of one name; they are shuffled apart.
            let earlier = streams.iter().take(i).filter(|other| other.name() == stream.name()).count() as u64;
            let name = name_key(stream);
            let name = if earlier == 0 { name } else { mix_pair(name, earlier) };
            Lane { rows: stream.rows, key: mix_pair(seed, name) }
        };
        let lanes: Vec<Lane> = streams.iter().enumerate().map(lane).collect();
        let mut order = Self { lanes, stages: Vec::new(), shares: Vec::new(), total_rows };
        for stage in &resolved {
            order.add_stage(stage, spec.is_plain());
        }
        order.shares = order.shares_of(streams, &resolved);
        Ok(order)
    }

    fn add_stage(&mut self, stage: &Resolved, is_plain: bool) {
        let start = self.stages.last().map_or(0, |last| last.rows.end);
        let before = if start == 0 { vec![0; self.lanes.len()] } else { self.draws_before(start) };
        let quotas = largest_remainder(&stage.shares, BLOCK_ROWS);
        let places =
            if is_plain { spread(&self.lanes, &quotas) } else { numbered(even::spread(&quotas), quotas.len()) };
        self.stages.push(Stage { rows: start..stage.until, quotas, places, before });
    }

    fn shares_of(&self, streams: &[Stream], resolved: &[Resolved]) -> Vec<Share> {
        let total = self.total_rows.max(1) as f64;
        let over_stages = |of: &dyn Fn(&Stage, &Resolved) -> f64| -> f64 {
            match (self.stages.as_slice(), resolved) {
                ([stage], [resolved]) => of(stage, resolved),
                (stages, resolved) => {
                    let part = |(stage, resolved): (&Stage, &Resolved)| {
                        (stage.rows.end - stage.rows.start) as f64 / total * of(stage, resolved)
                    };
                    stages.iter().zip(resolved).map(part).sum()
                }
            }
        };
        let draws = self.draws_before(self.total_rows);
        let share = |((c, stream), draws): ((usize, &Stream), u64)| Share {
            stream: stream.clone(),
            wanted: over_stages(&|_, resolved| resolved.wanted.get(c).copied().unwrap_or(0.0)),
            share: over_stages(&|stage, _| stage.quotas.get(c).map_or(0.0, |q| *q as f64 / BLOCK_ROWS as f64)),
            draws,
            epochs: if stream.rows == 0 { 0.0 } else { draws as f64 / stream.rows as f64 },
            capped: resolved.iter().any(|stage| stage.capped.get(c).copied().unwrap_or(false)),
        };
        streams.iter().enumerate().zip(draws).map(share).collect()
    }

    /// The `i`-th row of the run. Rows past the run's end continue in the same pattern.
    pub fn row(&self, i: u64) -> RowRef {
        let stage = &self.stages[self.stage_of(i)];
        let within = i - stage.rows.start;
        let place = stage.places[(within % BLOCK_ROWS) as usize];
        let component = place.component as usize;
        let lane = self.lanes[component];
        let draw = stage.before[component] + (within / BLOCK_ROWS) * stage.quotas[component] + u64::from(place.draw);
        let (epoch, within) = (draw / lane.rows, draw % lane.rows);
        let row = Permutation::new(lane.rows, mix_pair(lane.key, epoch)).at(within);
        RowRef { component, row }
    }

    /// The stage that row `i` belongs to.
    fn stage_of(&self, i: u64) -> usize {
        self.stages.partition_point(|stage| stage.rows.end <= i).min(self.stages.len() - 1)
    }

    /// What each component contributes, in the order of the components.
    pub fn shares(&self) -> &[Share] {
        &self.shares
    }

    /// Rows of the whole run.
    pub fn total_rows(&self) -> u64 {
        self.total_rows
    }

    /// The rows of each stage; one stage where the mixture has none.
    pub fn stages(&self) -> Vec<Range<u64>> {
        self.stages.iter().map(|stage| stage.rows.clone()).collect()
    }

    /// Rows that each component has given to the first `rows` rows of the run.
    pub fn draws_before(&self, rows: u64) -> Vec<u64> {
        // A row more than the last of a stage belongs to the next one, whose draws before it begins are those sought.
        let Some(stage) = self.stages.get(self.stage_of(rows)) else { return Vec::new() };
        let within = rows - stage.rows.start;
        let whole = |(quota, before): (&u64, &u64)| before + quota * (within / BLOCK_ROWS);
        let mut draws: Vec<u64> = stage.quotas.iter().zip(&stage.before).map(whole).collect();
        for place in stage.places.iter().take((within % BLOCK_ROWS) as usize) {
            draws[place.component as usize] += 1;
        }
        draws
    }
}

/// A key that stays with a component when others are added beside it.
fn name_key(stream: &Stream) -> u64 {
    let mut bytes = [0; 8];
    blake3::Hasher::new().update(stream.name().as_bytes()).finalize_xof().fill(&mut bytes);
    u64::from_le_bytes(bytes)
}

/// Whole numbers that sum to `total` and lie within one of `shares` times `total` (Hamilton's method).
fn largest_remainder(shares: &[f64], total: u64) -> Vec<u64> {
    let exact: Vec<f64> = shares.iter().map(|share| share * total as f64).collect();
    let mut quotas: Vec<u64> = exact.iter().map(|x| x.floor() as u64).collect();
    let mut by_remainder: Vec<usize> = (0..shares.len()).filter(|&i| shares[i] > 0.0).collect();
    by_remainder
        .sort_by(|&a, &b| (exact[b] - exact[b].floor()).total_cmp(&(exact[a] - exact[a].floor())).then(a.cmp(&b)));
    let left = total.saturating_sub(quotas.iter().sum());
    for &i in by_remainder.iter().cycle().take(left as usize) {
        quotas[i] += 1;
    }
    quotas
}

/// The places of a block: the j-th of a component's q places falls at a jittered point of the j-th q-th of the block.
fn spread(lanes: &[Lane], quotas: &[u64]) -> Vec<Place> {
    let mut places: Vec<(u64, Place)> = Vec::with_capacity(BLOCK_ROWS as usize);
    for (component, (lane, &quota)) in lanes.iter().zip(quotas).enumerate() {
        for draw in 0..quota {
            // (draw + jitter) / quota as a fraction of 2^64; draw < quota <= 2^16 leaves 47 bits for the jitter.
            let jitter = mix_pair(lane.key, !draw) >> 17;
            let point = (((u128::from(draw) << 47) + u128::from(jitter)) << 17) / u128::from(quota);
            places.push((point as u64, Place { component: component as u32, draw: draw as u32 }));
        }
    }
    places.sort_by_key(|(point, place)| (*point, place.component, place.draw));
    places.into_iter().map(|(_, place)| place).collect()
}

/// Places with the number of earlier ones of the same component.
fn numbered(components: Vec<usize>, num_components: usize) -> Vec<Place> {
    let mut drawn = vec![0; num_components];
    let place = |component: usize| {
        let draw = drawn[component];
        drawn[component] += 1;
        Place { component: component as u32, draw }
    };
    components.into_iter().map(place).collect()
}
