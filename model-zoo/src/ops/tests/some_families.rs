//! Owns the comparison of the ops that only some families use: GPT-2's norm, activation and projections, and the sum of
//! experts.

use super::super::{self as ops, reference};
use super::{Matrix, Numbers, check, ids, matrix, relative_error, same_bits, values, with_gradients};
use burn::tensor::{DType, Device};
use proptest::prelude::*;
use rayon::ThreadPoolBuilder;

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&x| f64::from(x)).collect()
}

fn exact_layer_norm(inputs: &[Matrix], eps: f64, g: &[f32]) -> Vec<Vec<f64>> {
    let [n, d] = inputs[0].shape;
    let [x, gamma, beta] = [0, 1, 2].map(|i| wide(&inputs[i].values));
    let (mut y, mut dx, mut d_gamma, mut d_beta) = (vec![0.0; n * d], vec![0.0; n * d], vec![0.0; d], vec![0.0; d]);
    for i in 0..n {
        let row = &x[i * d..(i + 1) * d];
        let g = wide(&g[i * d..(i + 1) * d]);
        let mean = row.iter().sum::<f64>() / d as f64;
        let inverse = 1.0 / (row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / d as f64 + eps).sqrt();
        let unit: Vec<f64> = row.iter().map(|x| (x - mean) * inverse).collect();
        let slopes: Vec<f64> = g.iter().zip(&gamma).map(|(g, gamma)| g * gamma).collect();
        let common = slopes.iter().sum::<f64>() / d as f64;
        let along = slopes.iter().zip(&unit).map(|(s, u)| s * u).sum::<f64>() / d as f64;
        for j in 0..d {
            y[i * d + j] = unit[j] * gamma[j] + beta[j];
            dx[i * d + j] = inverse * (slopes[j] - common - unit[j] * along);
            d_gamma[j] += g[j] * unit[j];
            d_beta[j] += g[j];
        }
    }
    vec![y, dx, d_gamma, d_beta]
}

fn check_layer_norm(n: usize, d: usize, offset: f32, tolerance: f64) {
    let mut numbers = Numbers((n * 1000 + d) as u64);
    let mut inputs = [numbers.matrix(n, d), numbers.matrix(1, d), numbers.matrix(1, d)];
    inputs[0].values.iter_mut().for_each(|x| *x += offset);
    let g = numbers.matrix(n, d).values;
    let run = |op: fn(_, _, _, _) -> _| {
        with_gradients(&inputs, &g, |t, _| {
            op(t[0].clone(), t[1].clone().flatten(0, 1), t[2].clone().flatten(0, 1), 1e-5)
        })
    };
    let exact = exact_layer_norm(&inputs, 1e-5, &g);
    let what = format!("layer_norm {n} x {d} around {offset}");
    check(&what, &run(ops::layer_norm), &run(reference::layer_norm), &exact, tolerance);
}

#[test]
fn layer_norm_agrees() {
    // Of two values only the signs of their distances to the mean are left: gradients are small differences.
    check_layer_norm(1, 2, 0.0, 1e-5);
    for (n, d) in [(1, 8), (7, 20), (65, 33), (129, 64), (3, 700)] {
        check_layer_norm(n, d, 0.0, 3e-6);
    }
}

/// Far from 0 the values themselves keep few digits; statistics that subtracted squares would keep none.
#[test]
fn layer_norm_agrees_far_from_zero() {
    check_layer_norm(9, 64, 100.0, 2e-4);
    check_layer_norm(9, 50, -1000.0, 2e-3);
}

#[test]
fn layer_norm_of_equal_values_is_the_bias() {
    let device = Device::flex();
    let x = Matrix { values: vec![3.0; 10], shape: [2, 5] };
    let row = |value| matrix(&Matrix { values: vec![value; 5], shape: [1, 5] }, &device).flatten::<1>(0, 1);
    assert_eq!(values(ops::layer_norm(matrix(&x, &device), row(2.0), row(0.25), 1e-5)), [0.25; 10]);
}

#[test]
fn gelu_agrees() {
    for (n, d) in [(1, 1), (3, 17), (65, 33)] {
        let mut numbers = Numbers((n * 100 + d) as u64);
        let mut x = [numbers.matrix(n, d)];
        x[0].values.iter_mut().for_each(|x| *x *= 6.0);
        let g = numbers.matrix(n, d).values;
        let run = |op: fn(_) -> _| with_gradients(&x, &g, |t, _| op(t[0].clone()));
        let root = (2.0 / std::f64::consts::PI).sqrt();
        let (mut y, mut dx) = (Vec::new(), Vec::new());
        for (x, g) in wide(&x[0].values).into_iter().zip(wide(&g)) {
            let tanh = (root * (x + 0.044715 * x.powi(3))).tanh();
            y.push(0.5 * x * (1.0 + tanh));
            let slope = root * (1.0 + 3.0 * 0.044715 * x * x) * (1.0 - tanh * tanh);
            dx.push(g * (0.5 * (1.0 + tanh) + 0.5 * x * slope));
        }
        check(&format!("gelu {n} x {d}"), &run(ops::gelu_tanh), &run(reference::gelu_tanh), &[y, dx], 1e-6);
    }
}

#[test]
fn gelu_far_out_is_zero_or_the_identity() {
    let far = [Matrix { values: vec![-1e30, -50.0, -11.0, 11.0, 50.0, 1e30], shape: [1, 6] }];
    let all = with_gradients(&far, &[1.0; 6], |t, _| ops::gelu_tanh(t[0].clone()));
    assert_eq!(all[0][3..], [11.0, 50.0, 1e30]);
    assert!(all[0][..3].iter().chain(&all[1][..3]).all(|x| x.abs() < 1e-30), "{all:?}");
    assert_eq!(all[1][3..], [1.0; 3]);
    let device = Device::flex();
    let nothing = Matrix { values: vec![f32::NAN], shape: [1, 1] };
    assert!(values(ops::gelu_tanh(matrix(&nothing, &device)))[0].is_nan());
    assert!(with_gradients(&[nothing], &[1.0], |t, _| ops::gelu_tanh(t[0].clone()))[1][0].is_nan());
}

fn check_linear_in_out(n: usize, features: usize, out: usize) {
    let mut numbers = Numbers((n * 31 + features * 7 + out) as u64);
    let inputs = [numbers.matrix(n, features), numbers.matrix(features, out), numbers.matrix(1, out)];
    let g = numbers.matrix(n, out).values;
    let [x, w, b] = [0, 1, 2].map(|i| wide(&inputs[i].values));
    let (mut y, mut dx) = (vec![0.0; n * out], vec![0.0; n * features]);
    let (mut dw, mut db) = (vec![0.0; features * out], vec![0.0; out]);
    for (i, j) in (0..n).flat_map(|i| (0..out).map(move |j| (i, j))) {
        let g = f64::from(g[i * out + j]);
        y[i * out + j] = b[j];
        db[j] += g;
        for p in 0..features {
            y[i * out + j] += x[i * features + p] * w[p * out + j];
            dx[i * features + p] += g * w[p * out + j];
            dw[p * out + j] += g * x[i * features + p];
        }
    }
    let fused = with_gradients(&inputs, &g, |t, _| {
        ops::add_bias(ops::linear_in_out(t[0].clone(), t[1].clone()), t[2].clone().flatten(0, 1))
    });
    let tensors = with_gradients(&inputs, &g, |t, _| {
        reference::add_bias(reference::linear_in_out(t[0].clone(), t[1].clone()), t[2].clone().flatten(0, 1))
    });
    let what = format!("linear_in_out of {n} rows, {features} to {out}, with a bias");
    check(&what, &fused, &tensors, &[y, dx, dw, db], 3e-6);
}

#[test]
fn transposed_weights_and_biases_agree() {
    for (n, features, out) in [(1, 5, 3), (2, 64, 65), (4, 7, 33), (5, 1, 1), (130, 33, 45), (700, 3, 2)] {
        check_linear_in_out(n, features, out);
    }
}

#[test]
fn a_bias_is_added_in_place_only_where_nobody_else_looks() {
    let device = Device::flex();
    let x = matrix(&Matrix { values: vec![1.0, 2.0], shape: [1, 2] }, &device);
    let held = x.clone();
    let bias = matrix(&Matrix { values: vec![10.0, 20.0], shape: [1, 2] }, &device).flatten::<1>(0, 1);
    assert_eq!(values(ops::add_bias(x, bias)), [11.0, 22.0]);
    assert_eq!(values(held), [1.0, 2.0]);
}

/// `n` tokens that own `k` rows each among `n * k + idle`, in an order of their own.
fn places(numbers: &mut Numbers, n: usize, k: usize, idle: usize) -> Vec<i32> {
    let mut order: Vec<i32> = (0..(n * k + idle) as i32).collect();
    for i in (1..order.len()).rev() {
        order.swap(i, numbers.below(i + 1));
    }
    order.truncate(n * k);
    order
}

fn check_mix_rows(n: usize, k: usize, idle: usize, d: usize) {
    let mut numbers = Numbers((n * 31 + k * 7 + d) as u64);
    let inputs = [numbers.matrix(n * k + idle, d), numbers.matrix(n, k)];
    let (places, g) = (places(&mut numbers, n, k, idle), numbers.matrix(n, d).values);
    let [rows, weights] = [0, 1].map(|i| wide(&inputs[i].values));
    let (mut y, mut d_rows, mut d_weights) = (vec![0.0; n * d], vec![0.0; rows.len()], vec![0.0; n * k]);
    for (slot, &place) in places.iter().enumerate() {
        for e in 0..d {
            let (at, row) = (slot / k * d + e, place as usize * d + e);
            y[at] += weights[slot] * rows[row];
            d_rows[row] += weights[slot] * f64::from(g[at]);
            d_weights[slot] += rows[row] * f64::from(g[at]);
        }
    }
    let run = |op: fn(_, _, _) -> _| {
        with_gradients(&inputs, &g, |t, device| op(t[0].clone(), ids(&places, [n, k], device), t[1].clone()))
    };
    let what = format!("{k} of {d} elements for {n} tokens");
    let fused = run(ops::mix_rows);
    check(&what, &fused, &run(reference::mix_rows), &[y, d_rows, d_weights], 2e-6);
    let alone = ThreadPoolBuilder::new().num_threads(1).build().unwrap().install(|| run(ops::mix_rows));
    assert!(same_bits(&fused, &alone), "{what}: the bits depend on the number of threads");
}

#[test]
fn softmax_agrees_and_has_the_same_bits_without_autodiff() {
    for (n, d) in [(1, 1), (3, 4), (65, 17), (2, 300)] {
        let mut numbers = Numbers((n * 100 + d) as u64);
        let mut x = [numbers.matrix(n, d)];
        x[0].values.iter_mut().for_each(|x| *x *= 20.0);
        let g = numbers.matrix(n, d).values;
        let run = |op: fn(_) -> _| with_gradients(&x, &g, |t, _| op(t[0].clone()));
        let (mut y, mut dx) = (Vec::new(), Vec::new());
        for (row, g) in x[0].values.chunks(d).zip(g.chunks(d)) {
            let row = wide(row);
            let top = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let sum: f64 = row.iter().map(|x| (x - top).exp()).sum();
            let shares: Vec<f64> = row.iter().map(|x| (x - top).exp() / sum).collect();
            let mean: f64 = shares.iter().zip(g).map(|(y, g)| y * f64::from(*g)).sum();
            dx.extend(shares.iter().zip(g).map(|(y, g)| y * (f64::from(*g) - mean)));
            y.extend(shares);
        }
        let fused = run(ops::softmax);
        check(&format!("softmax {n} x {d}"), &fused, &run(reference::softmax_rows), &[y, dx], 2e-6);
        let plain = values(ops::softmax(matrix(&x[0], &Device::flex())));
        assert!(same_bits(&[plain], &fused[..1]));
    }
}

#[test]
fn rows_of_experts_are_mixed() {
    for (n, k, idle, d) in [(1, 1, 0, 1), (7, 2, 3, 20), (300, 2, 1, 65), (65, 3, 0, 700)] {
        check_mix_rows(n, k, idle, d);
    }
}

#[test]
#[should_panic(expected = "row 1 is named twice")]
fn a_row_belongs_to_one_token() {
    let device = Device::flex();
    let (rows, weights) = (matrix(&Numbers(1).matrix(3, 2), &device), matrix(&Numbers(2).matrix(2, 1), &device));
    ops::mix_rows(rows, ids(&[1, 1], [2, 1], &device), weights);
}

#[test]
fn half_precision_runs_as_tensor_operations() {
    let device = Device::flex();
    let mut numbers = Numbers(8);
    let (x, w) = (numbers.matrix(5, 8), numbers.matrix(8, 3));
    let half = ops::linear_in_out(matrix(&x, &device).cast(DType::BF16), matrix(&w, &device));
    let bias = matrix(&numbers.matrix(1, 3), &device).flatten::<1>(0, 1);
    let half = ops::add_bias(half, bias.clone());
    assert_eq!(half.dtype(), DType::BF16);
    let single = ops::add_bias(ops::linear_in_out(matrix(&x, &device), matrix(&w, &device)), bias);
    let exact = wide(&values(single));
    assert!(relative_error(&values(half.cast(DType::F32)), &exact) < 2e-2);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn layer_norm_agrees_on_any_shape(n in 1usize..80, d in 2usize..90) {
        check_layer_norm(n, d, 0.5, 2e-5);
    }

    #[test]
    fn experts_agree_on_any_shape(n in 1usize..60, k in 1usize..4, idle in 0usize..4, d in 1usize..70) {
        check_mix_rows(n, k, idle, d);
    }
}
