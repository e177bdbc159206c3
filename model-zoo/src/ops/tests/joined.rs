//! Owns the comparison of ops that do the work of several with exact arithmetic and with those ops one by one.

use super::super::{self as ops, Gate, reference};
use super::{Matrix, Numbers, check, exact, matrix, same_bits, threads, values, with_gradients};
use burn::Tensor;
use burn::tensor::Device;

const EPS: f64 = 1e-5;

fn narrow(values: &[f64], shape: [usize; 2]) -> Matrix {
    Matrix { values: values.iter().map(|&x| x as f32).collect(), shape }
}

/// The columns of `wide` from `start` on, as many as `count`.
fn columns(wide: &[f32], n: usize, start: usize, count: usize) -> Vec<f32> {
    wide.chunks_exact(wide.len() / n).flat_map(|row| row[start..start + count].to_vec()).collect()
}

/// Rows, norm weights, matrices of so many rows, and an upstream gradient of all outputs side by side.
fn problem(n: usize, d: usize, outs: &[usize]) -> (Vec<Matrix>, Vec<f32>) {
    let mut numbers = Numbers((n * 1000 + d) as u64);
    let mut inputs = vec![numbers.matrix(n, d), numbers.matrix(1, d)];
    inputs.extend(outs.iter().map(|&out| numbers.matrix(out, d)));
    let g = numbers.matrix(n, d + outs.iter().sum::<usize>()).values;
    (inputs, g)
}

/// The stream and the outputs, side by side.
fn joined<const N: usize>(t: &[Tensor<2>]) -> Tensor<2> {
    let ws: [Tensor<2>; N] = std::array::from_fn(|i| t[2 + i].clone());
    let (x, ys) = ops::rms_norm_linears(t[0].clone(), t[1].clone().flatten(0, 1), EPS, ws);
    Tensor::cat([vec![x], ys.to_vec()].concat(), 1)
}

fn one_by_one(t: &[Tensor<2>]) -> Tensor<2> {
    let normed = reference::rms_norm(t[0].clone(), t[1].clone().flatten(0, 1), EPS);
    let ys = t[2..].iter().map(|w| reference::linear(normed.clone(), w.clone()));
    Tensor::cat(std::iter::once(t[0].clone()).chain(ys).collect(), 1)
}

/// Outputs side by side, then the gradients of all inputs.
fn exactly(inputs: &[Matrix], g: &[f32]) -> Vec<Vec<f64>> {
    let [n, d] = inputs[0].shape;
    let normed = narrow(&exact::rms_norm(&inputs[0], &inputs[1], EPS, &vec![0.0; n * d])[0], [n, d]);
    let (mut outputs, mut d_normed, mut dws, mut start) = (Vec::new(), vec![0.0; n * d], Vec::new(), d);
    for w in &inputs[2..] {
        let out = w.shape[0];
        let [y, dx, dw]: [_; 3] = exact::linear(&normed, w, &columns(g, n, start, out)).try_into().unwrap();
        d_normed.iter_mut().zip(dx).for_each(|(sum, dx)| *sum += dx);
        outputs.push((y, out));
        dws.push(dw);
        start += out;
    }
    let [_, mut dx, d_gamma]: [_; 3] =
        exact::rms_norm(&inputs[0], &inputs[1], EPS, &narrow(&d_normed, [n, d]).values).try_into().unwrap();
    dx.iter_mut().zip(columns(g, n, 0, d)).for_each(|(dx, g)| *dx += f64::from(g));
    let mut rows = Vec::new();
    for row in 0..n {
        rows.extend(inputs[0].values[row * d..(row + 1) * d].iter().map(|&x| f64::from(x)));
        outputs.iter().for_each(|(y, out)| rows.extend_from_slice(&y[row * out..(row + 1) * out]));
    }
    [vec![rows, dx, d_gamma], dws].concat()
}

#[test]
fn a_norm_and_its_readers_agree() {
    for (n, d, outs) in [(1, 1, [1, 2, 3]), (3, 20, [8, 1, 5]), (7, 33, [40, 20, 20]), (130, 70, [64, 33, 300])] {
        let (inputs, g) = problem(n, d, &outs);
        let fused = with_gradients(&inputs, &g, |t, _| joined::<3>(&t));
        let parts = with_gradients(&inputs, &g, |t, _| one_by_one(&t));
        check(&format!("norm and three maps, {n} x {d}"), &fused, &parts, &exactly(&inputs, &g), 6e-6);
        let (inputs, g) = problem(n, d, &outs[1..]);
        let fused = with_gradients(&inputs, &g, |t, _| joined::<2>(&t));
        let parts = with_gradients(&inputs, &g, |t, _| one_by_one(&t));
        check(&format!("norm and two maps, {n} x {d}"), &fused, &parts, &exactly(&inputs, &g), 6e-6);
    }
}

#[test]
fn other_numbers_of_readers_run_one_by_one() {
    let (inputs, g) = problem(5, 12, &[7]);
    let fused = with_gradients(&inputs, &g, |t, _| joined::<1>(&t));
    check("norm and one map", &fused, &fused, &exactly(&inputs, &g), 6e-6);
}

#[test]
fn a_reader_that_the_loss_does_not_see_adds_nothing() {
    let (inputs, g) = problem(9, 16, &[4, 6]);
    let only = |keep: bool| {
        let g = columns(&g, 9, 16, 4);
        with_gradients(&inputs, &g, |t, _| {
            let ws = [t[2].clone(), t[3].clone()];
            let (_, [first, second]) = ops::rms_norm_linears(t[0].clone(), t[1].clone().flatten(0, 1), EPS, ws);
            if keep {
                first + second.slice([0..9, 0..4]) * 0.0
            } else {
                first + t[3].clone().sum().unsqueeze::<2>() * 0.0
            }
        })
    };
    assert!(same_bits(&only(false), &only(true)));
}

#[test]
fn without_a_gradient_the_values_are_the_same() {
    for n in [2, 50] {
        let (inputs, g) = problem(n, 24, &[16, 8, 8]);
        let tensors: Vec<Tensor<2>> = inputs.iter().map(|m| matrix(m, &Device::flex())).collect();
        let tracked = with_gradients(&inputs, &g, |t, _| joined::<3>(&t));
        assert!(same_bits(&[values(joined::<3>(&tensors))], &tracked[..1]), "{n} rows");
    }
}

#[test]
fn frozen_matrices_get_no_gradient_and_change_none() {
    let (inputs, g) = problem(40, 24, &[16, 8]);
    let all = with_gradients(&inputs, &g, |t, _| joined::<2>(&t));
    let frozen = inputs[2..].to_vec();
    let some = with_gradients(&inputs[..2], &g, |t, device| {
        joined::<2>(&[t, frozen.iter().map(|m| matrix(m, device)).collect()].concat())
    });
    assert!(same_bits(&all[..3], &some));
}

type Gated = fn(Tensor<2>, Tensor<2>, Tensor<2>) -> Tensor<2>;
type Exact = fn(&Matrix, &Matrix, &[f32]) -> Vec<Vec<f64>>;

fn check_gated(name: &str, fused: Gated, parts: Gated, activation: Exact) {
    for (n, inner, out) in [(1, 1, 1), (3, 17, 5), (4, 40, 33), (65, 33, 20), (300, 70, 40)] {
        let mut numbers = Numbers((n * 100 + inner) as u64);
        let mut inputs = [numbers.matrix(n, inner), numbers.matrix(n, inner), numbers.matrix(out, inner)];
        inputs[0].values.iter_mut().for_each(|x| *x *= 6.0);
        let g = numbers.matrix(n, out).values;
        let values = activation(&inputs[0], &inputs[1], &vec![0.0; n * inner]).swap_remove(0);
        let [y, d_inner, dw]: [_; 3] = exact::linear(&narrow(&values, [n, inner]), &inputs[2], &g).try_into().unwrap();
        let [_, d_gate, d_up]: [_; 3] =
            activation(&inputs[0], &inputs[1], &narrow(&d_inner, [n, inner]).values).try_into().unwrap();
        let run = |op: Gated| with_gradients(&inputs, &g, |t, _| op(t[0].clone(), t[1].clone(), t[2].clone()));
        check(&format!("{name} {n} x {inner}"), &run(fused), &run(parts), &[y, d_gate, d_up, dw], 6e-6);
    }
}

#[test]
fn gated_activations_and_their_map_agree() {
    let silu: Gated = |gate, up, w| reference::linear(reference::swiglu(gate, up), w);
    let gelu: Gated = |gate, up, w| reference::linear(reference::geglu(gate, up), w);
    check_gated("SiLU", |gate, up, w| ops::gated_linear(Gate::Silu, gate, up, w), silu, exact::swiglu);
    check_gated("GELU", |gate, up, w| ops::gated_linear(Gate::GeluTanh, gate, up, w), gelu, exact::geglu);
}

#[test]
fn bits_do_not_depend_on_the_number_of_threads() {
    let (inputs, g) = problem(700, 300, &[100, 500]);
    threads::check("rms_norm_linears", || with_gradients(&inputs, &g, |t, _| joined::<2>(&t)));
    let mut numbers = Numbers(3);
    // Long enough for several rounds of gradients.
    let inputs = [numbers.matrix(1100, 1000), numbers.matrix(1100, 1000), numbers.matrix(200, 1000)];
    let g = numbers.matrix(1100, 200).values;
    threads::check("gated_linear", || {
        with_gradients(&inputs, &g, |t, _| ops::gated_linear(Gate::Silu, t[0].clone(), t[1].clone(), t[2].clone()))
    });
}
