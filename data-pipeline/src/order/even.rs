//! Owns spreading the places of a block so evenly that every beginning of it holds each share to within one place;
//! never touches rows or weights.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// The claimant of each place. Claimant `c` gets `quotas[c]` of them; the quotas sum to the length.
///
/// Of a claimant with q of n places, number j belongs between j n / q rounded down and (j + 1) n / q rounded up. The
/// earliest deadline goes first. Such a schedule always exists (Tijdeman 1980, The chairman assignment problem; Baruah,
/// Cohen, Plaxton and Varvel 1996, Proportionate progress), and on one machine the earliest deadline finds it.
pub(super) fn spread(quotas: &[u64]) -> Vec<usize> {
    let len: u64 = quotas.iter().sum();
    let release = |quota: u64, number: u64| number * len / quota;
    let deadline = |quota: u64, number: u64| ((number + 1) * len).div_ceil(quota);
    // (release, claimant, number) of those that may not come yet, (deadline, claimant, number) of those that may.
    let mut waiting: BinaryHeap<Reverse<(u64, usize, u64)>> =
        (0..).zip(quotas).filter(|(_, quota)| **quota > 0).map(|(c, _)| Reverse((0, c, 0))).collect();
    let mut ready: BinaryHeap<Reverse<(u64, usize, u64)>> = BinaryHeap::new();
    let mut places = Vec::with_capacity(len as usize);
    for at in 0..len {
        while let Some(&Reverse((from, claimant, number))) = waiting.peek().filter(|Reverse((from, ..))| *from <= at) {
            debug_assert!(from <= at);
            waiting.pop();
            let quota = quotas.get(claimant).copied().unwrap_or(1);
            ready.push(Reverse((deadline(quota, number), claimant, number)));
        }
        let Some(Reverse((_, claimant, number))) = ready.pop() else { break };
        places.push(claimant);
        let quota = quotas.get(claimant).copied().unwrap_or(1);
        if number + 1 < quota {
            waiting.push(Reverse((release(quota, number + 1), claimant, number + 1)));
        }
    }
    places
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn places_alternate() {
        assert_eq!(spread(&[2, 2]), [0, 1, 0, 1]);
        assert_eq!(spread(&[4, 1, 0, 1]), [0, 0, 1, 0, 0, 3]);
        assert!(spread(&[]).is_empty());
        assert!(spread(&[0]).is_empty());
    }

    proptest! {
        #[test]
        fn every_beginning_holds_every_share_to_within_one(quotas in proptest::collection::vec(0..400_u64, 1..30)) {
            let len: u64 = quotas.iter().sum();
            let places = spread(&quotas);
            prop_assert_eq!(places.len() as u64, len);
            let mut counts = vec![0_u64; quotas.len()];
            for (before, &claimant) in (1..).zip(&places) {
                counts[claimant] += 1;
                for (count, quota) in counts.iter().zip(&quotas) {
                    // |count - before * quota / len| < 1, in whole numbers.
                    prop_assert!((count * len).abs_diff(before * quota) < len, "{} of {} after {}", count, quota, before);
                }
            }
            prop_assert_eq!(counts, quotas);
        }
    }
}
