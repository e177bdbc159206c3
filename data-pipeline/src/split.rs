//! Owns which documents are held out for validation, from a digest of their text alone; never touches files.

use std::collections::BinaryHeap;

use crate::config::ValidationConfig;

/// To reach `min_documents`, documents whose digest lies in this lowest share of all digests may be held out.
const MIN_DOCUMENTS_SHARE: f64 = 0.1;

/// Gathers the split digests of one language.
#[derive(Debug)]
pub(crate) struct SplitCount {
    /// Digests below this are held out by `fraction` (2^64 stands for all).
    threshold: u128,
    min: u64,
    max: Option<u64>,
    below: u64,
    /// The smallest digests, at most `capacity`, the largest of them on top.
    smallest: BinaryHeap<u64>,
    capacity: usize,
}

impl SplitCount {
    pub fn new(config: &ValidationConfig) -> SplitCount {
        let threshold = share(config.fraction);
        let largest = config.min_documents.max(config.max_documents.unwrap_or(0));
        SplitCount {
            threshold,
            min: config.min_documents,
            max: config.max_documents,
            below: 0,
            smallest: BinaryHeap::new(),
            capacity: usize::try_from(largest).unwrap_or(usize::MAX),
        }
    }

    pub fn add(&mut self, split: u64) {
        self.below += u64::from(u128::from(split) < self.threshold);
        if self.smallest.len() < self.capacity {
            self.smallest.push(split);
        } else if self.smallest.peek().is_some_and(|&top| split < top) {
            self.smallest.pop();
            self.smallest.push(split);
        }
    }

    /// The largest digest that is held out, `None` when no document is.
    ///
    /// Both shares are fixed and a digest's rank can only grow as documents are added, so a document that was used for
    /// training never becomes a validation document.
    pub fn cutoff(self) -> Option<u64> {
        if self.threshold == 0 {
            return None;
        }
        let sorted = self.smallest.into_sorted_vec();
        let ranked = |rank: u64| {
            let last = usize::try_from(rank).ok()?.checked_sub(1)?;
            Some(sorted.get(last).copied().unwrap_or(u64::MAX))
        };
        if let Some(max) = self.max.filter(|&max| self.below > max) {
            return ranked(max);
        }
        let by_share = largest_below(self.threshold);
        let by_count = ranked(self.min).map(|cutoff| cutoff.min(largest_below(share(MIN_DOCUMENTS_SHARE))));
        Some(by_count.map_or(by_share, |by_count| by_count.max(by_share)))
    }
}

/// The digests below this make up `fraction` of all digests.
fn share(fraction: f64) -> u128 {
    (fraction * 2_f64.powi(64)) as u128
}

fn largest_below(threshold: u128) -> u64 {
    u64::try_from(threshold.saturating_sub(1)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use proptest::prelude::*;

    fn digest(i: u64) -> u64 {
        let hash = blake3::hash(&i.to_le_bytes());
        u64::from_le_bytes(hash.as_bytes()[..8].try_into().unwrap())
    }

    fn held_out(config: &ValidationConfig, documents: u64) -> Vec<u64> {
        let mut count = SplitCount::new(config);
        (0..documents).for_each(|i| count.add(digest(i)));
        let cutoff = count.cutoff();
        (0..documents).filter(|&i| cutoff.is_some_and(|c| digest(i) <= c)).collect()
    }

    fn config(fraction: f64, min_documents: u64, max_documents: Option<u64>) -> ValidationConfig {
        ValidationConfig { fraction, min_documents, max_documents }
    }

    #[test]
    fn shares_and_bounds() {
        let share = held_out(&config(0.1, 0, None), 10_000).len();
        assert!((900..1_100).contains(&share), "{share}");
        assert_eq!(held_out(&config(0.001, 20, None), 1_000).len(), 20);
        let few = held_out(&config(0.001, 20, None), 50).len();
        assert!((1..=10).contains(&few), "{few}");
        assert_eq!(held_out(&config(0.1, 0, Some(7)), 10_000).len(), 7);
        assert_eq!(held_out(&config(0.1, 0, Some(0)), 10_000).len(), 0);
        assert_eq!(held_out(&config(0.0, 16, None), 10_000).len(), 0);
        assert_eq!(held_out(&config(0.02, 16, None), 0).len(), 0);
    }

    proptest! {
        #[test]
        fn adding_data_never_moves_training_documents_into_validation(
            fraction in 0.0..0.2_f64, min in 0..20_u64, extra in 0..30_u64, before in 0..400_u64, added in 0..400_u64,
        ) {
            let config = config(fraction, min, (extra > 5).then_some(min + extra));
            let first = held_out(&config, before);
            let later = held_out(&config, before + added);
            prop_assert!(later.iter().filter(|&&i| i < before).all(|i| first.contains(i)));
        }

        #[test]
        fn without_bounds_nothing_moves(fraction in 0.0..0.5_f64, before in 0..300_u64, added in 0..300_u64) {
            let config = config(fraction, 0, None);
            let first = held_out(&config, before);
            let later = held_out(&config, before + added);
            prop_assert_eq!(first, later.into_iter().filter(|&i| i < before).collect::<Vec<_>>());
        }
    }
}
