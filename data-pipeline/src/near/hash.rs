//! Owns the 64-bit hashes behind shingles and signatures: integers only, the same on every machine; never touches texts
//! other than as bytes.

/// Mixes all bits of `x` into all others (the finaliser of SplitMix64, Steele, Lea and Flood 2014).
#[inline]
pub(crate) const fn mix(x: u64) -> u64 {
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// The sequence of SplitMix64 from `state`.
pub(crate) fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mix(*state)
}

#[inline]
const fn fold(a: u64, b: u64) -> u64 {
    let product = (a as u128) * (b as u128);
    (product as u64) ^ ((product >> 64) as u64)
}

const SECRET: [u64; 3] = [0xa076_1d64_78bd_642f, 0xe703_7ed1_a0b4_28db, 0x8ebc_6af0_9c88_c6e3];

/// Hash of `bytes`: eight at a time by folded multiplication. Not meant against forged collisions.
#[inline]
pub(crate) fn hash_bytes(seed: u64, bytes: &[u8]) -> u64 {
    let mut state = seed ^ SECRET[0];
    let (chunks, rest) = bytes.as_chunks::<8>();
    for chunk in chunks {
        state = fold(state ^ u64::from_le_bytes(*chunk), SECRET[1]);
    }
    let mut tail = 0;
    for &byte in rest {
        tail = tail << 8 | u64::from(byte);
    }
    fold(state ^ tail, SECRET[2] ^ bytes.len() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Signatures that were written on one machine are compared on another.
    #[test]
    fn hashes_never_change() {
        assert_eq!(mix(1), 0x5692_161d_100b_05e5);
        let mut state = 0;
        assert_eq!(split_mix(&mut state), 0xe220_a839_7b1d_cdaf);
        let texts = ["", "a", "salam", "السلام عليكم", "ⵜⴰⵎⴰⵣⵉⵖⵜ"];
        let hashes: Vec<u64> = texts.iter().map(|text| hash_bytes(7, text.as_bytes())).collect();
        let distinct: std::collections::BTreeSet<_> = hashes.iter().collect();
        assert_eq!(distinct.len(), texts.len());
        assert_ne!(hash_bytes(7, b"salam"), hash_bytes(8, b"salam"));
        assert_ne!(hash_bytes(7, b"a"), hash_bytes(7, b"a\0"));
        assert_ne!(hash_bytes(7, b"\0"), hash_bytes(7, b""));
    }

    #[test]
    fn every_bit_is_used() {
        let mut ones = [0_u32; 64];
        for i in 0..4096_u32 {
            let hash = hash_bytes(0, &i.to_le_bytes());
            for (bit, count) in ones.iter_mut().enumerate() {
                *count += (hash >> bit & 1) as u32;
            }
        }
        // Six standard deviations of a fair coin tossed 4096 times are 192.
        assert!(ones.iter().all(|&count| (1856..=2240).contains(&count)), "{ones:?}");
    }
}
