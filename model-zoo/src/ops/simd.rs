//! Owns the choice of instruction set at run time and the vectorised loops over slices; never touches tensors.
//!
//! A loop is written once, as plain Rust over lanes, and compiled for every instruction set by [`multiversion!`].
//! The same instruction set always gives the same bits; two instruction sets may differ in the last ones.

/// The instruction set that the kernels run with. A value exists only for a set that this CPU has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Isa(Level);

/// The instruction sets that kernels are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    /// 512-bit vectors with fused multiply-add and lane masks.
    Avx512,
    /// 256-bit vectors with fused multiply-add.
    Avx2,
    /// Whatever the compiler's baseline for the target offers.
    Portable,
}

impl Isa {
    /// The widest instruction set of this CPU.
    pub(crate) fn detect() -> Self {
        Self::supported(Level::Avx512).or(Self::supported(Level::Avx2)).unwrap_or(Self(Level::Portable))
    }

    /// `level` as a value to run with, when this CPU has it.
    pub(crate) fn supported(level: Level) -> Option<Self> {
        let present = match level {
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => {
                std::arch::is_x86_feature_detected!("avx512f")
                    && std::arch::is_x86_feature_detected!("avx512bw")
                    && std::arch::is_x86_feature_detected!("avx512dq")
                    && std::arch::is_x86_feature_detected!("avx512vl")
                    && std::arch::is_x86_feature_detected!("fma")
            }
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma"),
            #[cfg(not(target_arch = "x86_64"))]
            Level::Avx512 | Level::Avx2 => false,
            Level::Portable => true,
        };
        present.then_some(Self(level))
    }

    /// The level behind this value, to match on.
    pub(crate) fn level(self) -> Level {
        self.0
    }
}

/// Whether `a * b + c` with one rounding is a single instruction of the portable baseline.
pub(crate) const PORTABLE_FMA: bool = cfg!(any(target_arch = "aarch64", target_feature = "fma"));

/// `a * b + c`; with one rounding where `FMA` says that the hardware does it.
#[inline(always)]
pub(crate) fn mul_add<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

/// Compiles one loop for every instruction set: `fn name<FMA>(args) -> ret { body }` becomes
/// `fn name(isa: Isa, args) -> ret`, and inside the body `FMA` is a constant for [`mul_add`].
macro_rules! multiversion {
    ($(
        $(#[$meta:meta])*
        $vis:vis fn $name:ident<$fma:ident>($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block
    )*) => {$(
        $(#[$meta])*
        #[allow(clippy::too_many_arguments)]
        $vis fn $name(isa: $crate::ops::simd::Isa, $($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            #[allow(clippy::too_many_arguments)]
            fn body<const $fma: bool>($($arg: $ty),*) $(-> $ret)? $body
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
            #[allow(clippy::too_many_arguments)]
            fn avx512($($arg: $ty),*) $(-> $ret)? { body::<true>($($arg),*) }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            #[allow(clippy::too_many_arguments)]
            fn avx2($($arg: $ty),*) $(-> $ret)? { body::<true>($($arg),*) }
            match isa.level() {
                #[cfg(target_arch = "x86_64")]
                // SAFETY: an `Isa` of this level exists only where the CPU reported these features.
                $crate::ops::simd::Level::Avx512 => unsafe { avx512($($arg),*) },
                #[cfg(target_arch = "x86_64")]
                // SAFETY: an `Isa` of this level exists only where the CPU reported these features.
                $crate::ops::simd::Level::Avx2 => unsafe { avx2($($arg),*) },
                _ => body::<{ $crate::ops::simd::PORTABLE_FMA }>($($arg),*),
            }
        }
    )*};
}
pub(crate) use multiversion;

/// Lanes of a running reduction: four 512-bit registers of partial results hide the latency of an add.
const LANES: usize = 64;

/// Lanes that short rows and the ends of long ones are worked off with.
pub(crate) const STEP: usize = 16;

/// Below this argument `e^x` is no normal `f32`; above the other its power of two is none.
const EXP_UNDERFLOW: f32 = -87.336_54;
const EXP_OVERFLOW: f32 = 88.37;

/// `e^x` with a relative error below 1.5e-7; 0 below -87.3 and infinite above 88.37.
///
/// Range reduction `x = n ln 2 + r` with `|r| <= ln 2 / 2` (Cody and Waite's split of `ln 2`), then a polynomial of
/// degree 6 fitted at Chebyshev nodes to `(e^r - 1 - r) / r^2` (approximation error 1e-8), then the exponent bits.
#[inline(always)]
pub(crate) fn exp<const FMA: bool>(x: f32) -> f32 {
    // Adding 1.5 * 2^23 rounds to an integer and leaves it in the low bits of the sum.
    const ROUND: f32 = 12_582_912.0;
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -0.000_212_194_44;
    let shifted = mul_add::<FMA>(x, std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = mul_add::<FMA>(n, -LN2_LOW, mul_add::<FMA>(n, -LN2_HIGH, x));
    let mut p = 0.001_392_625_1;
    p = mul_add::<FMA>(p, r, 0.008_363_233);
    p = mul_add::<FMA>(p, r, 0.041_666_556);
    p = mul_add::<FMA>(p, r, 0.166_665_77);
    p = mul_add::<FMA>(p, r, 0.5);
    p = mul_add::<FMA>(p, r * r, r) + 1.0;
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(1.0f32.to_bits()));
    let value = if x > EXP_OVERFLOW { f32::INFINITY } else { p * power };
    if x < EXP_UNDERFLOW { 0.0 } else { value }
}

/// `tanh(x)` with a relative error below 3e-7: near 0 the odd polynomial of the Cephes library (`tanhf.c`,
/// S. L. Moshier), elsewhere `1 - 2 / (e^2x + 1)`, which would cancel there.
#[inline(always)]
pub(crate) fn tanh<const FMA: bool>(x: f32) -> f32 {
    let (size, square) = (x.abs(), x * x);
    let mut p = -0.005_704_988_7;
    p = mul_add::<FMA>(p, square, 0.020_639_088);
    p = mul_add::<FMA>(p, square, -0.053_739_715);
    p = mul_add::<FMA>(p, square, 0.133_314_43);
    p = mul_add::<FMA>(p, square, -0.333_332_8);
    let near = mul_add::<FMA>(p * square, x, x);
    let far = (1.0 - 2.0 / (exp::<FMA>(2.0 * size) + 1.0)).copysign(x);
    // A NaN is not below the limit and passes through the exponential.
    if size < 0.625 { near } else { far }
}

/// Folds `a` into `lanes`: element `i` into a lane that depends on `i` and the length only.
#[inline(always)]
fn fold(a: &[f32], lanes: &mut [f32; LANES], f: impl Fn(f32, f32) -> f32) {
    let mut long = a.chunks_exact(LANES);
    for chunk in &mut long {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            *lane = f(*lane, x);
        }
    }
    let mut short = long.remainder().chunks_exact(STEP);
    for chunk in &mut short {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            *lane = f(*lane, x);
        }
    }
    for (lane, &x) in lanes.iter_mut().zip(short.remainder()) {
        *lane = f(*lane, x);
    }
}

/// Joins `lanes` pairwise, in a fixed order.
#[inline(always)]
fn join<const N: usize>(lanes: &[f32; N], f: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = *lanes;
    let mut width = N;
    while width > 1 {
        width /= 2;
        for i in 0..width {
            lanes[i] = f(lanes[i], lanes[i + width]);
        }
    }
    lanes[0]
}

#[inline(always)]
fn add(a: f32, b: f32) -> f32 {
    a + b
}

#[inline(always)]
fn larger(a: f32, b: f32) -> f32 {
    if b > a { b } else { a }
}

multiversion! {
    /// The largest element, minus infinity of nothing; NaN is skipped.
    pub(crate) fn max<FMA>(a: &[f32]) -> f32 {
        let mut lanes = [f32::NEG_INFINITY; LANES];
        fold(a, &mut lanes, larger);
        join(&lanes, larger)
    }

    /// Sum of `e^(x - shift)`.
    pub(crate) fn sum_exp<FMA>(a: &[f32], shift: f32) -> f32 {
        let mut lanes = [0.0; LANES];
        fold(a, &mut lanes, |sum, x| sum + exp::<FMA>(x - shift));
        join(&lanes, add)
    }

    /// Replaces every `x` by `e^(x - shift)` and returns their sum.
    pub(crate) fn exp_in_place<FMA>(a: &mut [f32], shift: f32) -> f32 {
        let mut lanes = [0.0f32; STEP];
        let mut chunks = a.chunks_exact_mut(STEP);
        for chunk in &mut chunks {
            for (lane, x) in lanes.iter_mut().zip(chunk) {
                *x = exp::<FMA>(*x - shift);
                *lane += *x;
            }
        }
        for (lane, x) in lanes.iter_mut().zip(chunks.into_remainder()) {
            *x = exp::<FMA>(*x - shift);
            *lane += *x;
        }
        join(&lanes, add)
    }

    /// Replaces every `x` by `bound * tanh(x / bound)`.
    pub(crate) fn softcap_in_place<FMA>(a: &mut [f32], bound: f32) {
        for x in a {
            *x = bound * tanh::<FMA>(*x / bound);
        }
    }

    /// `a *= factor`.
    pub(crate) fn scale<FMA>(a: &mut [f32], factor: f32) {
        for x in a {
            *x *= factor;
        }
    }

    /// `a += b`.
    pub(crate) fn add_assign<FMA>(a: &mut [f32], b: &[f32]) {
        for (x, &y) in a.iter_mut().zip(b) {
            *x += y;
        }
    }

    /// Sum of squares.
    pub(crate) fn sum_squares<FMA>(a: &[f32]) -> f32 {
        let mut lanes = [0.0; LANES];
        fold(a, &mut lanes, |sum, x| mul_add::<FMA>(x, x, sum));
        join(&lanes, add)
    }

    /// Sum of `a * b`.
    pub(crate) fn dot<FMA>(a: &[f32], b: &[f32]) -> f32 {
        let mut lanes = [0.0f32; LANES];
        let (mut ca, mut cb) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
        for (x, y) in (&mut ca).zip(&mut cb) {
            for ((lane, &x), &y) in lanes.iter_mut().zip(x).zip(y) {
                *lane = mul_add::<FMA>(x, y, *lane);
            }
        }
        for ((lane, &x), &y) in lanes.iter_mut().zip(ca.remainder()).zip(cb.remainder()) {
            *lane = mul_add::<FMA>(x, y, *lane);
        }
        join(&lanes, add)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    fn all() -> impl Iterator<Item = Isa> {
        [Level::Avx512, Level::Avx2, Level::Portable].into_iter().filter_map(Isa::supported)
    }

    #[test]
    fn the_exponential_is_accurate_where_it_is_normal() {
        for isa in all() {
            let xs: Vec<f32> = (0..200_000).map(|i| -87.3 + i as f32 * (175.6 / 200_000.0)).collect();
            let mut values = xs.clone();
            exp_in_place(isa, &mut values, 0.0);
            for (x, value) in xs.iter().zip(&values) {
                let error = f64::from(*value) / f64::from(*x).exp() - 1.0;
                assert!(error.abs() < 1.5e-7, "{isa:?}: e^{x} is off by {error:e}");
            }
        }
    }

    #[test]
    fn the_exponential_at_and_beyond_its_limits() {
        for isa in all() {
            let mut values =
                [0.0, -0.0, -1000.0, f32::NEG_INFINITY, 89.0, 1e30, f32::INFINITY, f32::NAN, -87.4, -1e-30];
            exp_in_place(isa, &mut values, 0.0);
            let infinite = f32::INFINITY;
            assert_eq!(&values[..7], &[1.0, 1.0, 0.0, 0.0, infinite, infinite, infinite]);
            assert!(values[7].is_nan());
            assert_eq!(&values[8..], &[0.0, 1.0]);
        }
    }

    #[test]
    fn the_hyperbolic_tangent_is_accurate_and_bounded() {
        for isa in all() {
            let xs: Vec<f32> = (-200_000..200_000).map(|i| i as f32 * 1e-4 + 1e-6).chain([1e-30, -3e-8]).collect();
            let mut values = xs.clone();
            softcap_in_place(isa, &mut values, 1.0);
            for (x, value) in xs.iter().zip(&values) {
                let error = f64::from(*value) / f64::from(*x).tanh() - 1.0;
                assert!(error.abs() < 3e-7, "{isa:?}: tanh({x}) is off by {error:e}");
            }
            let mut values = [0.0, 1e30, -1e30, f32::INFINITY, f32::NEG_INFINITY, f32::NAN];
            softcap_in_place(isa, &mut values, 50.0);
            assert_eq!(&values[..5], &[0.0, 50.0, -50.0, 50.0, -50.0]);
            assert!(values[5].is_nan());
        }
    }

    #[test]
    fn reductions_of_any_length_agree_with_exact_ones() {
        for isa in all() {
            for len in [0, 1, 15, 16, 17, 63, 64, 65, 200, 1000] {
                let a: Vec<f32> = (0..len).map(|i| ((i * 37 % 101) as f32 - 50.0) / 25.0).collect();
                let b: Vec<f32> = (0..len).map(|i| ((i * 53 % 97) as f32 - 40.0) / 25.0).collect();
                let wide = |a: &[f32]| a.iter().map(|&x| f64::from(x)).collect::<Vec<_>>();
                let (x, y) = (wide(&a), wide(&b));
                let close = |value: f32, exact: f64| (f64::from(value) - exact).abs() <= 2e-6 * exact.abs().max(1.0);
                assert!(close(sum_squares(isa, &a), x.iter().map(|x| x * x).sum()));
                assert!(close(dot(isa, &a, &b), x.iter().zip(&y).map(|(x, y)| x * y).sum()));
                assert!(close(sum_exp(isa, &a, 0.5), x.iter().map(|x| (x - 0.5).exp()).sum()));
                let mut values = a.clone();
                assert!(close(exp_in_place(isa, &mut values, 0.5), x.iter().map(|x| (x - 0.5).exp()).sum()));
                assert_eq!(max(isa, &a), a.iter().copied().fold(f32::NEG_INFINITY, f32::max));
            }
        }
    }
}
