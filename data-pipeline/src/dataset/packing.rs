//! Owns which samples share a row: whole samples, by best fit from their lengths alone; never touches tokens.

use std::collections::{BTreeMap, VecDeque};

/// What a packing did with the samples of a component.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PackingCounts {
    /// Samples in rows.
    pub samples: u64,
    /// Of these, samples whose end is cut off.
    pub truncated: u64,
    /// Samples that are longer than a row and left out.
    pub dropped: u64,
    /// Tokens of the longest sample.
    pub longest: u64,
    /// Rows.
    pub rows: u64,
    /// Tokens in rows.
    pub tokens: u64,
}

/// Samples by row. Equal lengths give equal packings on every machine.
#[derive(Debug, Default)]
pub(super) struct Packing {
    /// Where each row's members begin, and where the last one's end.
    starts: Vec<u64>,
    /// Samples and how many of their tokens stand in the row.
    members: Vec<(u64, u32)>,
    counts: PackingCounts,
}

impl Packing {
    /// Packs samples of `lengths` tokens, in their order, into rows of `capacity`. `cut` says how many tokens of a longer
    /// sample are kept; 0 leaves it out.
    ///
    /// Best fit, the longest first (Johnson 1974): a sample goes to the fullest row that has room for it, of equally full
    /// ones to the one begun first.
    pub fn new(lengths: impl Iterator<Item = u64>, capacity: usize, mut cut: impl FnMut(u64) -> u32) -> Self {
        let mut counts = PackingCounts::default();
        let mut samples: Vec<(u64, u32)> = Vec::new();
        for (sample, length) in (0_u64..).zip(lengths) {
            counts.longest = counts.longest.max(length);
            let kept = u32::try_from(length).ok().filter(|_| length <= capacity as u64).unwrap_or_else(|| cut(sample));
            if kept == 0 {
                counts.dropped += 1;
                continue;
            }
            counts.truncated += u64::from(u64::from(kept) < length);
            counts.tokens += u64::from(kept);
            samples.push((sample, kept));
        }
        counts.samples = samples.len() as u64;
        samples.sort_by_key(|&(sample, kept)| (std::cmp::Reverse(kept), sample));
        let mut rows: Vec<Vec<(u64, u32)>> = Vec::new();
        // Rows by the room they have left, the first begun first.
        let mut open: BTreeMap<u64, VecDeque<usize>> = BTreeMap::new();
        for (sample, kept) in samples {
            let needed = u64::from(kept);
            let best = open.range(needed..).next().map(|(&room, _)| room);
            let (row, room) = match best.and_then(|room| Some((open.get_mut(&room)?.pop_front()?, room))) {
                Some((row, room)) => {
                    if open.get(&room).is_some_and(VecDeque::is_empty) {
                        open.remove(&room);
                    }
                    (row, room)
                }
                None => {
                    rows.push(Vec::new());
                    (rows.len() - 1, capacity as u64)
                }
            };
            if let Some(members) = rows.get_mut(row) {
                members.push((sample, kept));
            }
            open.entry(room - needed.min(room)).or_default().push_back(row);
        }
        counts.rows = rows.len() as u64;
        let mut packing = Self { starts: vec![0], members: Vec::with_capacity(counts.samples as usize), counts };
        for row in rows {
            packing.members.extend(row);
            packing.starts.push(packing.members.len() as u64);
        }
        packing
    }

    /// What became of the samples.
    pub fn counts(&self) -> PackingCounts {
        self.counts
    }

    /// The samples of a row and how many of their tokens stand in it; `None` past the last row.
    pub fn row(&self, row: u64) -> Option<&[(u64, u32)]> {
        let at = usize::try_from(row).ok()?;
        let (start, end) = (*self.starts.get(at)?, *self.starts.get(at + 1)?);
        self.members.get(start as usize..end as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rows(packing: &Packing) -> Vec<Vec<u64>> {
        (0..packing.counts.rows)
            .map(|row| packing.row(row).unwrap_or_default().iter().map(|(sample, _)| *sample).collect())
            .collect()
    }

    #[test]
    fn a_sample_goes_where_it_leaves_least_room() {
        let packing = Packing::new([5, 7, 3, 2, 3].into_iter(), 10, |_| 0);
        assert_eq!(rows(&packing), [vec![1, 2], vec![0, 4, 3]]);
        assert_eq!(packing.counts.tokens, 20);
        assert!(packing.row(2).is_none());
    }

    #[test]
    fn longer_samples_are_cut_or_left_out_and_counted() {
        let packing = Packing::new([12, 4, 30].into_iter(), 10, |sample| if sample == 0 { 10 } else { 0 });
        let PackingCounts { samples, truncated, dropped, longest, rows, tokens } = packing.counts;
        assert_eq!((samples, truncated, dropped, longest, rows, tokens), (2, 1, 1, 30, 2, 14));
        assert_eq!(packing.row(0), Some(&[(0, 10)][..]));
        assert_eq!(Packing::new([].into_iter(), 10, |_| 0).counts, PackingCounts::default());
    }

    proptest! {
        #[test]
        fn every_sample_stands_in_one_row_and_rows_hold_no_more_than_they_can(
            lengths in proptest::collection::vec(1..40_u64, 0..200), capacity in 8..40_usize,
        ) {
            let packing = Packing::new(lengths.iter().copied(), capacity, |_| 0);
            let mut seen: Vec<u64> = rows(&packing).concat();
            seen.sort_unstable();
            let fitting = (0..).zip(&lengths).filter(|(_, length)| **length <= capacity as u64);
            prop_assert_eq!(seen, fitting.map(|(i, _)| i).collect::<Vec<u64>>());
            let mut sums = Vec::new();
            for row in 0..packing.counts.rows {
                sums.push(packing.row(row).unwrap_or_default().iter().map(|(_, kept)| u64::from(*kept)).sum::<u64>());
            }
            prop_assert!(sums.iter().all(|sum| (1..=capacity as u64).contains(sum)));
            // Two rows that fit one would have become one.
            sums.sort_unstable();
            prop_assert!(sums.len() < 2 || sums[0] + sums[1] > capacity as u64);
        }
    }
}
