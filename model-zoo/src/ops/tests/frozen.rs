//! Owns the comparison of products with frozen matrices, in every number format, with exact ones.

use super::super::{LowRank, Stored, adapted_linear, adapted_matrix, adapted_row_lengths, frozen_linear, frozen_rows};
use super::super::{reference, scale_columns};
use super::{Matrix, Numbers, check, exact, ids, matrix, same_bits, values, with_gradients};
use burn::tensor::Device;

const SHAPES: [[usize; 4]; 6] =
    [[1, 5, 3, 1], [2, 64, 65, 4], [4, 7, 33, 3], [7, 33, 65, 2], [65, 70, 200, 8], [130, 257, 45, 5]];

/// The same matrix in every format, with the values that it stands for.
fn formats(w: &Matrix) -> Vec<(&'static str, Stored, Matrix)> {
    let device = Device::flex();
    let all = [
        ("f32", Stored::f32(w.values.clone(), &device)),
        ("bf16", Stored::bf16(w.values.clone(), &device, true)),
        ("nf4", Stored::nf4(&w.values)),
    ];
    let wide = |stored: &Stored| Matrix { values: values(stored.widened(&device)), shape: w.shape };
    all.into_iter().map(|(name, stored)| (name, stored.clone(), wide(&stored))).collect()
}

fn low_rank(t: &[burn::Tensor<2>], scale: f64) -> LowRank {
    LowRank { a: t[1].clone(), b: t[2].clone(), scale }
}

/// `w + scale · b · a` in f64, rounded once.
fn corrected(w: &Matrix, a: &Matrix, b: &Matrix, scale: f64) -> Matrix {
    let ([out, features], rank) = (w.shape, a.shape[0]);
    let at = |o: usize, f: usize| {
        let sum: f64 =
            (0..rank).map(|r| f64::from(b.values[o * rank + r]) * f64::from(a.values[r * features + f])).sum();
        (f64::from(w.values[o * features + f]) + scale * sum) as f32
    };
    Matrix { values: (0..out * features).map(|i| at(i / features, i % features)).collect(), shape: w.shape }
}

#[test]
fn products_with_frozen_matrices_agree() {
    for [n, features, out, _] in SHAPES {
        let mut numbers = Numbers((n * 31 + features) as u64);
        let (x, w, g) = (numbers.matrix(n, features), numbers.matrix(out, features), numbers.matrix(n, out).values);
        for (name, stored, wide) in formats(&w) {
            let dims = [out, features];
            let found = with_gradients(std::slice::from_ref(&x), &g, |t, _| frozen_linear(t[0].clone(), &stored, dims));
            let mut exact = exact::linear(&x, &wide, &g);
            exact.truncate(2);
            check(&format!("frozen {name} {n} x {features} to {out}"), &found, &found, &exact, 2e-6);
        }
    }
}

#[test]
fn corrected_products_and_their_gradients_agree() {
    for [n, features, out, rank] in SHAPES {
        let mut numbers = Numbers((n * 7 + features * 3 + rank) as u64);
        let inputs = [numbers.matrix(n, features), numbers.matrix(rank, features), numbers.matrix(out, rank)];
        let (w, g, scale) = (numbers.matrix(out, features), numbers.matrix(n, out).values, 0.75);
        for (name, stored, wide) in formats(&w) {
            let dims = [out, features];
            let found =
                with_gradients(&inputs, &g, |t, _| adapted_linear(t[0].clone(), &stored, dims, low_rank(&t, scale)));
            let reference = with_gradients(&inputs, &g, |t, device| {
                reference::adapted_linear(t[0].clone(), matrix(&wide, device), low_rank(&t, scale))
            });
            let whole = exact::linear(&inputs[0], &corrected(&wide, &inputs[1], &inputs[2], scale), &g);
            let dw = |o: usize, f: usize| whole[2][o * features + f];
            let (a, b) = (&inputs[1].values, &inputs[2].values);
            let da = (0..rank * features)
                .map(|i| (0..out).map(|o| scale * f64::from(b[o * rank + i / features]) * dw(o, i % features)).sum());
            let db = (0..out * rank)
                .map(|i| (0..features).map(|f| scale * f64::from(a[i % rank * features + f]) * dw(i / rank, f)).sum());
            let exact = vec![whole[0].clone(), whole[1].clone(), da.collect(), db.collect()];
            check(&format!("adapted {name} {n} x {features} to {out}, rank {rank}"), &found, &reference, &exact, 4e-6);
        }
    }
}

#[test]
fn a_correction_of_nothing_keeps_every_bit() {
    let mut numbers = Numbers(3);
    let (x, w, a) = (numbers.matrix(9, 70), numbers.matrix(33, 70), numbers.matrix(4, 70));
    let b = Matrix { values: vec![0.0; 33 * 4], shape: [33, 4] };
    let device = Device::flex();
    for (name, stored, _) in formats(&w) {
        let plain = frozen_linear(matrix(&x, &device), &stored, [33, 70]);
        let low_rank = LowRank { a: matrix(&a, &device), b: matrix(&b, &device), scale: 2.0 };
        let found = adapted_linear(matrix(&x, &device), &stored, [33, 70], low_rank);
        assert!(same_bits(&[values(plain)], &[values(found)]), "{name}");
    }
}

#[test]
fn rows_of_frozen_matrices_are_theirs() {
    let mut numbers = Numbers(8);
    let w = numbers.matrix(11, 37);
    let (device, rows) = (Device::flex(), [3, 0, 10, 3]);
    for (name, stored, wide) in formats(&w) {
        let found = values(frozen_rows(&stored, 37, ids(&rows, [4], &device)));
        let expected: Vec<f32> = rows.iter().flat_map(|row| wide.values[*row as usize * 37..][..37].to_vec()).collect();
        assert_eq!(found, expected, "{name}");
    }
}

#[test]
fn corrected_matrices_and_their_rows_agree() {
    let mut numbers = Numbers(21);
    let (w, a, b) = (numbers.matrix(45, 130), numbers.matrix(3, 130), numbers.matrix(45, 3));
    let device = Device::flex();
    for (name, stored, wide) in formats(&w) {
        let low_rank = LowRank { a: matrix(&a, &device), b: matrix(&b, &device), scale: 1.5 };
        let expected = corrected(&wide, &a, &b, 1.5);
        let found = values(adapted_matrix(&stored, [45, 130], &low_rank));
        assert!(found.iter().zip(&expected.values).all(|(a, b)| (a - b).abs() <= 2e-6), "{name}");
        let lengths = values(adapted_row_lengths(&stored, [45, 130], &low_rank));
        for (length, row) in lengths.iter().zip(expected.values.chunks(130)) {
            let exact = row.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
            assert!((f64::from(*length) - exact).abs() <= 1e-6 * exact, "{name}");
        }
    }
}

#[test]
fn scaled_columns_and_their_gradients_agree() {
    for (n, columns) in [(1, 1), (7, 20), (65, 33), (3, 700)] {
        let mut numbers = Numbers((n * 100 + columns) as u64);
        let inputs = [numbers.matrix(n, columns), numbers.matrix(1, columns)];
        let lengths = Matrix { values: (0..columns).map(|i| 0.5 + i as f32 / 100.0).collect(), shape: [1, columns] };
        let g = numbers.matrix(n, columns).values;
        let run = |op: fn(_, _, _) -> _| {
            with_gradients(&inputs, &g, |t, device| {
                op(t[0].clone(), t[1].clone().flatten(0, 1), matrix(&lengths, device).flatten(0, 1).inner())
            })
        };
        let factor = |i: usize| f64::from(inputs[1].values[i % columns]) / f64::from(lengths.values[i % columns]);
        let scaled = |values: &[f32]| values.iter().enumerate().map(|(i, x)| f64::from(*x) * factor(i)).collect();
        let sums = (0..columns).map(|c| {
            let products = (0..n).map(|r| f64::from(g[r * columns + c]) * f64::from(inputs[0].values[r * columns + c]));
            products.sum::<f64>() / f64::from(lengths.values[c])
        });
        let exact = vec![scaled(&inputs[0].values), scaled(&g), sums.collect()];
        check(
            &format!("columns of {n} x {columns}"),
            &run(scale_columns),
            &run(reference::scale_columns),
            &exact,
            1e-6,
        );
    }
}

#[test]
fn the_number_of_threads_is_invisible() {
    let mut numbers = Numbers(77);
    let inputs = [numbers.matrix(130, 300), numbers.matrix(8, 300), numbers.matrix(257, 8)];
    let (w, g) = (numbers.matrix(257, 300), numbers.matrix(130, 257).values);
    for (name, stored, _) in formats(&w) {
        let run = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let mut all = with_gradients(&inputs, &g, |t, _| {
                    adapted_linear(t[0].clone(), &stored, [257, 300], low_rank(&t, 0.5))
                });
                let few = Matrix { values: inputs[0].values[..600].to_vec(), shape: [2, 300] };
                all.push(values(frozen_linear(matrix(&few, &Device::flex()), &stored, [257, 300])));
                all
            })
        };
        let one = run(1);
        assert!(same_bits(&one, &run(2)) && same_bits(&one, &run(5)), "{name}");
    }
}
