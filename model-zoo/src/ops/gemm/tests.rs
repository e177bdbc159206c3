//! Owns the comparison of matrix products with `f64` sums, for every instruction set that this CPU has.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::{Made, Mat, Panels, Rows, add_product, product, products};
use crate::ops::simd::{Isa, Level};
use proptest::prelude::*;
use std::mem::MaybeUninit;
use std::ops::Range;

fn numbers(len: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 33) % 2001) as f32 / 1000.0 - 1.0
    };
    (0..len).map(|_| next()).collect()
}

/// Compares `A · B` and `C + A · B` with exact sums; `turned` says which operands lie in memory transposed.
fn check(m: usize, n: usize, k: usize, turned: (bool, bool)) {
    let (a, b) = (numbers(m * k, 1), numbers(k * n, 2));
    let view = |data, rows, cols, turned| {
        if turned { Mat::new(data, cols, rows).t() } else { Mat::new(data, rows, cols) }
    };
    let at = |data: &[f32], mat: Mat, r: usize, c: usize| f64::from(data[r * mat.row_stride + c * mat.column_stride]);
    let (left, right) = (view(&a, m, k, turned.0), view(&b, k, n, turned.1));
    for isa in [Level::Avx512, Level::Avx2, Level::Portable].into_iter().filter_map(Isa::supported) {
        let mut places = vec![MaybeUninit::new(f32::NAN); m * n];
        let once = product(isa, left, right, &mut places).to_vec();
        let mut twice = once.clone();
        add_product(isa, left, right, &mut twice);
        for (i, (once, twice)) in once.iter().zip(&twice).enumerate() {
            let exact: f64 = (0..k).map(|p| at(&a, left, i / n, p) * at(&b, right, p, i % n)).sum();
            let bound = 1e-6 * (k as f64).sqrt().max(1.0);
            let (error, sum_error) = ((f64::from(*once) - exact).abs(), (f64::from(*twice) - 2.0 * exact).abs());
            assert!(
                error <= bound && sum_error <= 3.0 * bound,
                "{isa:?}, {m} x {n} x {k}, {turned:?}: element {i} is {once} and {twice} where the product is {exact}"
            );
        }
    }
}

#[test]
fn products_at_the_edges_of_tiles_panels_and_blocks() {
    let shapes = [
        (1, 1, 1),
        (1, 40, 3),
        (40, 1, 3),
        (12, 32, 16),
        (13, 33, 17),
        (11, 31, 15),
        (65, 7, 256),
        (30, 600, 257),
        (200, 20, 513),
        (400, 100, 40),
    ];
    for (m, n, k) in shapes {
        for turned in [(false, false), (false, true), (true, false), (true, true)] {
            check(m, n, k, turned);
        }
    }
}

#[test]
fn sums_long_enough_to_be_split() {
    check(3, 2, 8192, (false, true));
    check(14, 35, 8500, (false, false));
    check(5, 40, 9000, (true, false));
}

/// A matrix in memory that poses as one that is computed.
struct Copied<'a>(&'a [f32], [usize; 2]);

impl Rows for Copied<'_> {
    fn dims(&self) -> [usize; 2] {
        self.1
    }

    fn part<'a>(&self, _: Isa, row: usize, columns: Range<usize>, to: &'a mut [MaybeUninit<f32>]) -> &'a mut [f32] {
        to.write_copy_of_slice(&self.0[row * self.1[1]..][columns])
    }
}

#[test]
fn operands_packed_before_or_computed_while_packed_give_the_same_bits() {
    for (m, n, k) in
        [(1, 1, 1), (13, 33, 17), (65, 7, 256), (30, 600, 257), (200, 20, 513), (400, 100, 40), (9, 40, 8300)]
    {
        let (a, b) = (numbers(m * k, 1), numbers(k * n, 2));
        let (left, right) = (Mat::new(&a, m, k), Mat::new(&b, k, n));
        let (made_left, made_right) = (Copied(&a, [m, k]), Copied(&b, [k, n]));
        for isa in [Level::Avx512, Level::Avx2, Level::Portable].into_iter().filter_map(Isa::supported) {
            let bits = |c: &[f32]| c.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            let mut places = vec![MaybeUninit::new(f32::NAN); m * n];
            let stored = bits(product(isa, left, right, &mut places));
            let packed = Panels::right(isa, right);
            let (made_left, made_right) = (Made(isa, &made_left), Made(isa, &made_right));
            let packed_made = Panels::right(isa, made_right);
            let others = [
                bits(product(isa, left, &packed, &mut places)),
                bits(product(isa, made_left, right, &mut places)),
                bits(product(isa, left, made_right, &mut places)),
                bits(product(isa, made_left, &packed_made, &mut places)),
            ];
            assert!(others.iter().all(|other| *other == stored), "{isa:?}, {m} x {n} x {k}");
        }
    }
}

#[test]
fn several_products_of_one_operand_have_the_bits_of_each() {
    for (m, k, widths) in
        [(1, 5, [3, 4]), (50, 40, [33, 2]), (400, 300, [100, 40]), (30, 17, [64, 20]), (9, 8300, [3, 2])]
    {
        let a = numbers(m * k, 1);
        let bs = widths.map(|n| numbers(k * n, n as u64));
        let bs = [Mat::new(&bs[0], k, widths[0]), Mat::new(&bs[1], widths[1], k).t()];
        for isa in [Level::Avx512, Level::Avx2, Level::Portable].into_iter().filter_map(Isa::supported) {
            let all = products(isa, Mat::new(&a, m, k), &bs);
            let made = products(isa, Made(isa, &Copied(&a, [m, k])), &bs);
            for ((b, n), (all, made)) in bs.into_iter().zip(widths).zip(all.iter().zip(&made)) {
                let mut places = vec![MaybeUninit::new(f32::NAN); m * n];
                let one = product(isa, Mat::new(&a, m, k), b, &mut places);
                assert!(one == all && one == made, "{isa:?}, {m} x {k} by {n}");
            }
        }
    }
    assert!(products(Isa::detect(), Mat::new(&[], 0, 3), &[Mat::new(&[1.0; 6], 3, 2)])[0].is_empty());
}

#[test]
fn empty_sums_are_zero() {
    check(3, 5, 0, (false, false));
    check(0, 5, 3, (false, false));
    check(3, 0, 5, (false, true));
}

#[test]
#[should_panic(expected = "as many columns of A as rows of B")]
fn operands_that_do_not_fit_are_refused() {
    let (a, b) = (numbers(6, 1), numbers(6, 2));
    product(Isa::detect(), Mat::new(&a, 2, 3), Mat::new(&b, 2, 3), &mut [MaybeUninit::uninit(); 6]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn products_of_any_shape(m in 1usize..70, n in 1usize..110, k in 0usize..300, a: bool, b: bool) {
        check(m, n, k, (a, b));
    }
}
