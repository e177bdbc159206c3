//! Owns the Philox counter-based generator and the draws made from it; never touches tensors or global state.

/// Multipliers and key increments of Philox4x32 (Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as
/// 1, 2, 3", SC 2011, table 2).
const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];
const ROUNDS: usize = 10;

/// Philox4x32-10: maps a 128-bit counter to 128 random bits under a 64-bit key.
///
/// Nothing is stored between calls, so value `i` of a stream costs the same as value 0 and does not depend on which
/// thread or process asks for it.
#[must_use]
pub fn philox4x32(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    let [mut c0, mut c1, mut c2, mut c3] = counter;
    let [mut k0, mut k1] = key;
    for _ in 0..ROUNDS {
        let (high0, low0) = multiply(MULTIPLIERS[0], c0);
        let (high1, low1) = multiply(MULTIPLIERS[1], c2);
        (c0, c1, c2, c3) = (high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0);
        k0 = k0.wrapping_add(WEYL[0]);
        k1 = k1.wrapping_add(WEYL[1]);
    }
    [c0, c1, c2, c3]
}

/// Both halves of a 32 x 32 bit product.
fn multiply(a: u32, b: u32) -> (u32, u32) {
    let product = u64::from(a) * u64::from(b);
    ((product >> 32) as u32, product as u32)
}

/// FNV-1a, 64 bits (Fowler, Noll, Vo; draft-eastlake-fnv): the number by which a name enters the counter.
#[must_use]
pub fn fnv1a64(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xCBF2_9CE4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01B3))
}

/// One named stream of random numbers: a pure function of (seed, name, index).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stream {
    key: [u32; 2],
    name: [u32; 2],
}

impl Stream {
    /// The stream called `name` under `seed`.
    #[must_use]
    pub fn new(seed: u64, name: &str) -> Self {
        Self { key: halves(seed), name: halves(fnv1a64(name.as_bytes())) }
    }

    /// Two uniform numbers of 53 bits, in [0, 1), of counter `index`.
    #[must_use]
    pub fn uniforms(&self, index: u64) -> [f64; 2] {
        let [low, high] = halves(index);
        let [a, b, c, d] = philox4x32([low, high, self.name[0], self.name[1]], self.key);
        [unit(a, b), unit(c, d)]
    }

    /// Two independent standard normal numbers of counter `index` (Box and Muller, 1958).
    ///
    /// Logarithm, sine and cosine are computed here from IEEE additions, multiplications, divisions and square roots
    /// alone, so the bits are the same on every platform; a system's mathematics library would not promise that.
    #[must_use]
    pub fn normals(&self, index: u64) -> [f64; 2] {
        let [u, v] = self.uniforms(index);
        // 1 - u lies in (0, 1] and is exact: u is a multiple of 2^-53.
        let radius = (-2.0 * ln(1.0 - u)).sqrt();
        let (sine, cosine) = sin_cos_turns(v);
        [radius * cosine, radius * sine]
    }
}

fn halves(value: u64) -> [u32; 2] {
    [value as u32, (value >> 32) as u32]
}

/// The upper 53 bits of two words as a number in [0, 1).
fn unit(low: u32, high: u32) -> f64 {
    let bits = (u64::from(high) << 32) | u64::from(low);
    (bits >> 11) as f64 * (1.0 / 9_007_199_254_740_992.0)
}

/// Coefficients of `artanh(s) / s` in powers of `s^2`: 1, 1/3, 1/5, ...
const ARTANH: [f64; 12] = {
    let mut series = [0.0; 12];
    let mut k = 0;
    while k < series.len() {
        series[k] = 1.0 / (2 * k + 1) as f64;
        k += 1;
    }
    series
};
/// Coefficients of `sin(x) / x` in powers of `x^2`: 1, -1/3!, 1/5!, ...
const SINE: [f64; 9] = alternating(1);
/// Coefficients of `cos(x)` in powers of `x^2`: 1, -1/2!, 1/4!, ...
const COSINE: [f64; 9] = alternating(0);

/// `(-1)^k / (2k + odd)!`.
const fn alternating(odd: usize) -> [f64; 9] {
    let mut series = [1.0; 9];
    let mut k = 1;
    while k < series.len() {
        series[k] = -series[k - 1] / ((2 * k + odd) * (2 * k + odd - 1)) as f64;
        k += 1;
    }
    series
}

/// The polynomial of these coefficients at `x`, lowest power first.
fn polynomial(coefficients: &[f64], x: f64) -> f64 {
    coefficients.iter().rev().fold(0.0, |sum, coefficient| sum * x + coefficient)
}

/// Natural logarithm of a normal number in (0, 1], to about 1 unit in the last place.
fn ln(x: f64) -> f64 {
    const FRACTION_BITS: u64 = 0x000F_FFFF_FFFF_FFFF;
    const ONE_BITS: u64 = 0x3FF0_0000_0000_0000;
    let bits = x.to_bits();
    let mut exponent = ((bits >> 52) & 0x7FF) as i64 - 1023;
    let mut mantissa = f64::from_bits((bits & FRACTION_BITS) | ONE_BITS);
    if mantissa > std::f64::consts::SQRT_2 {
        mantissa *= 0.5;
        exponent += 1;
    }
    // ln(m) = 2 artanh(s) with s = (m - 1) / (m + 1); |s| < 0.1716, so s^25 / 25 is below half a unit.
    let s = (mantissa - 1.0) / (mantissa + 1.0);
    2.0 * s * polynomial(&ARTANH, s * s) + exponent as f64 * std::f64::consts::LN_2
}

/// Sine and cosine of 2 pi `turns`, for `turns` in [0, 1): Taylor series on [-pi/4, pi/4], turned by quarters.
fn sin_cos_turns(turns: f64) -> (f64, f64) {
    let quarter = (turns * 4.0 + 0.5).floor();
    let angle = (turns - quarter * 0.25) * std::f64::consts::TAU;
    let sine = angle * polynomial(&SINE, angle * angle);
    let cosine = polynomial(&COSINE, angle * angle);
    match quarter as u8 % 4 {
        0 => (sine, cosine),
        1 => (cosine, -sine),
        2 => (-sine, -cosine),
        _ => (-cosine, sine),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Known answers of the reference implementation (Random123, `kat_vectors`).
    #[test]
    fn philox_gives_the_known_answers() {
        assert_eq!(philox4x32([0; 4], [0; 2]), [0x6627_E8D5, 0xE169_C58D, 0xBC57_AC4C, 0x9B00_DBD8]);
        assert_eq!(philox4x32([u32::MAX; 4], [u32::MAX; 2]), [0x408F_276D, 0x41C8_3B0E, 0xA20B_C7C6, 0x6D54_51FD]);
        assert_eq!(
            philox4x32([0x243F_6A88, 0x85A3_08D3, 0x1319_8A2E, 0x0370_7344], [0xA409_3822, 0x299F_31D0]),
            [0xD16C_FE09, 0x94FD_CCEB, 0x5001_E420, 0x2412_6EA1]
        );
    }

    #[test]
    fn fnv_gives_the_known_answers() {
        assert_eq!(fnv1a64(b""), 0xCBF2_9CE4_8422_2325);
        assert_eq!(fnv1a64(b"a"), 0xAF63_DC4C_8601_EC8C);
        assert_eq!(fnv1a64(b"foobar"), 0x8594_4171_F739_67E8);
    }

    #[test]
    fn own_functions_agree_with_the_system_library() {
        let stream = Stream::new(3, "angles");
        for index in 0..20_000 {
            let [u, v] = stream.uniforms(index);
            let x = 1.0 - u;
            assert!((ln(x) - x.ln()).abs() <= 4e-16 * x.ln().abs().max(1.0), "ln({x})");
            let (sine, cosine) = sin_cos_turns(v);
            let angle = v * std::f64::consts::TAU;
            assert!((sine - angle.sin()).abs() < 1e-15, "sin of {v} turns");
            assert!((cosine - angle.cos()).abs() < 1e-15, "cos of {v} turns");
        }
        assert_eq!(ln(1.0), 0.0);
        assert!((ln(f64::EPSILON / 2.0) + 53.0 * std::f64::consts::LN_2).abs() < 1e-14);
    }

    #[test]
    fn normals_have_the_moments_of_a_normal_distribution() {
        let stream = Stream::new(11, "moments");
        let draws: Vec<f64> = (0..50_000).flat_map(|index| stream.normals(index)).collect();
        let count = draws.len() as f64;
        let mean = draws.iter().sum::<f64>() / count;
        let variance = draws.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / count;
        let kurtosis = draws.iter().map(|x| (x - mean).powi(4)).sum::<f64>() / count / variance.powi(2);
        assert!(mean.abs() < 0.01, "mean {mean}");
        assert!((variance - 1.0).abs() < 0.02, "variance {variance}");
        assert!((kurtosis - 3.0).abs() < 0.1, "kurtosis {kurtosis}");
    }

    #[test]
    fn seed_name_and_index_all_matter() {
        let base = Stream::new(1, "a").uniforms(0);
        assert_ne!(base, Stream::new(2, "a").uniforms(0));
        assert_ne!(base, Stream::new(1 << 32, "a").uniforms(0));
        assert_ne!(base, Stream::new(1, "b").uniforms(0));
        assert_ne!(base, Stream::new(1, "a").uniforms(1 << 32));
    }
}
