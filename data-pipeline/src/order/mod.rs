//! Owns which row of which component is the i-th row of a run; never touches files or tokens.
//!
//! `Order::row(i)` is a function of the seed, the mixture and `i`: nothing is stored between steps, any rank computes
//! any row, and resuming is starting at another `i`.
//!
//! Rows come in blocks of [`BLOCK_ROWS`]. In a block every component has a whole number of places, its quota, and the
//! places of all components are spread evenly, with a seeded jitter, so that every stretch of the run holds the mixture
//! to within a few rows. The k-th draw of a component is row `k mod n` of its own seeded permutation for epoch
//! `k div n`: an epoch ends before the next one begins, however short the run.

pub(crate) mod feistel;
mod mixture;

#[cfg(test)]
mod tests;

use self::feistel::{Permutation, mix_pair};
pub use self::mixture::{MixtureSpec, OrderError, PartShare, Stream};

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
    quota: u64,
    key: u64,
}

/// The order of the training rows of a run.
#[derive(Debug, Clone)]
pub struct Order {
    lanes: Vec<Lane>,
    places: Vec<Place>,
    shares: Vec<Share>,
    total_rows: u64,
}

impl Order {
    /// Resolves the mixture for a run of `total_rows` rows over `streams`, the dataset's training components in order.
    ///
    /// # Errors
    /// When a number of the mixture is out of range, a weight names nothing, nothing is left, or the repeat cap leaves
    /// fewer rows than the run asks for.
    pub fn new(streams: &[Stream], spec: &MixtureSpec, total_rows: u64, seed: u64) -> Result<Self, OrderError> {
        let parts = mixture::resolve(streams, spec, total_rows)?;
        let shares: Vec<f64> = parts.iter().map(|(_, portion)| portion.share).collect();
        let quotas = largest_remainder(&shares, BLOCK_ROWS);
        let lanes: Vec<Lane> = streams
            .iter()
            .zip(&quotas)
            .enumerate()
            .map(|(i, (stream, &quota))| {
                // Joined datasets may hold streams of one name; they are shuffled apart.
                let earlier = streams.iter().take(i).filter(|other| other.name() == stream.name()).count() as u64;
                let name = name_key(stream);
                let name = if earlier == 0 { name } else { mix_pair(name, earlier) };
                Lane { rows: stream.rows, quota, key: mix_pair(seed, name) }
            })
            .collect();
        let places = spread(&lanes);
        let mut order = Self { lanes, places, shares: Vec::new(), total_rows };
        order.shares = streams
            .iter()
            .zip(&parts)
            .zip(order.draws_before(total_rows))
            .zip(&quotas)
            .map(|(((stream, &(wanted, portion)), draws), &quota)| Share {
                stream: stream.clone(),
                wanted,
                share: quota as f64 / BLOCK_ROWS as f64,
                draws,
                epochs: if stream.rows == 0 { 0.0 } else { draws as f64 / stream.rows as f64 },
                capped: portion.capped,
            })
            .collect();
        Ok(order)
    }

    /// The `i`-th row of the run. Rows past the run's end continue in the same pattern.
    pub fn row(&self, i: u64) -> RowRef {
        let place = self.places[(i % BLOCK_ROWS) as usize];
        let component = place.component as usize;
        let lane = self.lanes[component];
        let draw = (i / BLOCK_ROWS) * lane.quota + u64::from(place.draw);
        let (epoch, within) = (draw / lane.rows, draw % lane.rows);
        let row = Permutation::new(lane.rows, mix_pair(lane.key, epoch)).at(within);
        RowRef { component, row }
    }

    /// What each component contributes, in the order of the components.
    pub fn shares(&self) -> &[Share] {
        &self.shares
    }

    /// Rows of the whole run.
    pub fn total_rows(&self) -> u64 {
        self.total_rows
    }

    /// Rows that each component has given to the first `rows` rows of the run.
    pub fn draws_before(&self, rows: u64) -> Vec<u64> {
        let mut draws: Vec<u64> = self.lanes.iter().map(|lane| lane.quota * (rows / BLOCK_ROWS)).collect();
        for place in self.places.iter().take((rows % BLOCK_ROWS) as usize) {
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
fn spread(lanes: &[Lane]) -> Vec<Place> {
    let mut places: Vec<(u64, Place)> = Vec::with_capacity(BLOCK_ROWS as usize);
    for (component, lane) in lanes.iter().enumerate() {
        for draw in 0..lane.quota {
            // (draw + jitter) / quota as a fraction of 2^64; draw < quota <= 2^16 leaves 47 bits for the jitter.
            let jitter = mix_pair(lane.key, !draw) >> 17;
            let point = (((u128::from(draw) << 47) + u128::from(jitter)) << 17) / u128::from(lane.quota);
            places.push((point as u64, Place { component: component as u32, draw: draw as u32 }));
        }
    }
    places.sort_by_key(|(point, place)| (*point, place.component, place.draw));
    places.into_iter().map(|(_, place)| place).collect()
}
