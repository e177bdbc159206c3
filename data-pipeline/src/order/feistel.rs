//! Owns a seeded permutation of 0..n that is computed, not stored; never touches rows or weights.
//!
//! A balanced Feistel network permutes the smallest power of four that holds `n` numbers; results outside 0..n are sent
//! through the network again until they fall inside ("cycle walking", Black and Rogaway 2002, Ciphers with arbitrary
//! finite domains). The walk ends because a permutation returns to its starting point, and takes fewer than four
//! applications on average because the domain is less than four times as large as `n`.

/// Rounds of the network. Luby and Rackoff 1988 need four for a good random function; two more cost nothing here.
const ROUNDS: usize = 6;

/// A permutation of `0..len`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Permutation {
    len: u64,
    half_bits: u32,
    keys: [u64; ROUNDS],
}

impl Permutation {
    /// The permutation of `0..len` that belongs to `key`. An empty one is treated as holding one number.
    pub fn new(len: u64, key: u64) -> Self {
        let len = len.max(1);
        let bits = u64::BITS - (len - 1).leading_zeros();
        let mut keys = [0; ROUNDS];
        let mut state = key;
        for round_key in &mut keys {
            state = state.wrapping_add(GOLDEN_GAMMA);
            *round_key = mix(state);
        }
        Self { len, half_bits: bits.div_ceil(2), keys }
    }

    /// Where `i` goes; indices past the end wrap around.
    pub fn at(&self, i: u64) -> u64 {
        let mut value = i % self.len;
        if self.half_bits == 0 {
            return value;
        }
        loop {
            value = self.network(value);
            if value < self.len {
                return value;
            }
        }
    }

    fn network(&self, value: u64) -> u64 {
        let mask = (1_u64 << self.half_bits) - 1;
        let (mut left, mut right) = (value >> self.half_bits, value & mask);
        for key in self.keys {
            (left, right) = (right, left ^ (mix(right ^ key) & mask));
        }
        (left << self.half_bits) | right
    }
}

/// Increment of the SplitMix64 generator: 2^64 divided by the golden ratio, made odd.
const GOLDEN_GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

/// The finaliser of SplitMix64 (Steele, Lea and Flood 2014, Fast splittable pseudorandom number generators): a
/// bijection of 64-bit words in which every input bit flips about half of the output bits.
pub(crate) fn mix(word: u64) -> u64 {
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

/// One word from two, different for swapped arguments.
pub(crate) fn mix_pair(a: u64, b: u64) -> u64 {
    mix(mix(a.wrapping_add(GOLDEN_GAMMA)) ^ b)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_length_is_permuted_without_loss(len in 1_u64..5000, key: u64) {
            let permutation = Permutation::new(len, key);
            let mut seen = vec![false; len as usize];
            for i in 0..len {
                let to = permutation.at(i);
                prop_assert!(to < len);
                prop_assert!(!std::mem::replace(&mut seen[to as usize], true), "{to} is hit twice");
            }
        }

        #[test]
        fn huge_domains_stay_in_range_and_do_not_collide(len in (1_u64 << 40)..=u64::MAX, key: u64, i: u64) {
            let permutation = Permutation::new(len, key);
            let (a, b) = (i % len, i.wrapping_add(1) % len);
            prop_assert!(permutation.at(a) < len);
            prop_assert!(a == b || permutation.at(a) != permutation.at(b));
        }
    }

    #[test]
    fn the_values_are_fixed_for_ever() {
        let permutation = Permutation::new(10, 42);
        let values: Vec<u64> = (0..10).map(|i| permutation.at(i)).collect();
        assert_eq!(values, GOLDEN, "a change here reorders the data of every resumed run");
    }

    const GOLDEN: [u64; 10] = [2, 7, 4, 0, 8, 3, 6, 9, 5, 1];

    #[test]
    fn seeds_give_different_orders_that_look_shuffled() {
        let len = 1000;
        let first = Permutation::new(len, 1);
        let second = Permutation::new(len, 2);
        let equal = (0..len).filter(|&i| first.at(i) == second.at(i)).count();
        assert!(equal < 10, "{equal} of {len} places agree between two seeds");
        let fixed = (0..len).filter(|&i| first.at(i) == i).count();
        assert!(fixed < 10, "{fixed} fixed points");
        let rising = (1..len).filter(|&i| first.at(i) > first.at(i - 1)).count();
        assert!((400..600).contains(&rising), "{rising} rises of 999");
        let mean_step: f64 =
            (1..len).map(|i| first.at(i).abs_diff(first.at(i - 1)) as f64).sum::<f64>() / (len - 1) as f64;
        assert!((300.0..370.0).contains(&mean_step), "neighbours lie {mean_step} apart, a shuffle gives 333");
    }
}
