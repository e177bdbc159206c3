//! Owns what Muon promises: PyTorch's update, f64's values, orthogonal results, the same bits on any number of threads.

use super::super::{self as ops, MuonStep};
use super::threads::check;
use super::{Numbers, matrix, relative_error, values};
use burn::tensor::{Device, Tensor, TensorData};

const STEP: MuonStep = MuonStep { lr: 0.01, momentum: 0.95, weight_decay: 0.1, grad_scale: 1.0 };

fn flat(values: &[f32]) -> Tensor<1> {
    Tensor::from_data(TensorData::new(values.to_vec(), [values.len()]), &Device::flex())
}

/// Three steps from the numbers of `seed` on a matrix of this shape.
fn three_steps(shape: [usize; 2], seed: u64) -> Vec<f32> {
    let mut numbers = Numbers(seed);
    let mut draw = || flat(&numbers.matrix(shape[0], shape[1]).values);
    let start = draw();
    let mut state = (start.clone(), start.zeros_like());
    for gradient in [draw(), draw(), draw()] {
        state = ops::muon(state.0, gradient, state.1, shape, &STEP);
    }
    values(state.0)
}

type Rows = Vec<Vec<f64>>;

fn product(a: &Rows, b: &Rows) -> Rows {
    let dot = |row: &[f64], col: usize| row.iter().zip(b).map(|(x, y)| x * y[col]).sum();
    a.iter().map(|row| (0..b[0].len()).map(|col| dot(row, col)).collect()).collect()
}

fn transpose(a: &Rows) -> Rows {
    (0..a[0].len()).map(|col| a.iter().map(|row| row[col]).collect()).collect()
}

/// The iteration in f64, from the paper's formula.
fn exactly_orthogonal(x: &Rows) -> Rows {
    let is_tall = x.len() > x[0].len();
    let norm = x.iter().flatten().map(|v| v * v).sum::<f64>().sqrt();
    let mut x: Rows = if is_tall { transpose(x) } else { x.clone() };
    x.iter_mut().flatten().for_each(|v| *v /= norm);
    for _ in 0..5 {
        let square = product(&x, &transpose(&x));
        let fourth = product(&square, &square);
        let first = product(&square, &x);
        let third = product(&fourth, &x);
        for (row, (a, b)) in x.iter_mut().zip(first.iter().zip(&third)) {
            for (v, (a, b)) in row.iter_mut().zip(a.iter().zip(b)) {
                *v = 3.4445 * *v - 4.7750 * a + 2.0315 * b;
            }
        }
    }
    if is_tall { transpose(&x) } else { x }
}

/// Printed by torch.optim.Muon of PyTorch 2.11 (lr 0.01, momentum 0.95, weight decay 0.1, match_rms_adamw) from the same
/// numbers; it iterates in bf16, which moves its result by up to 9e-5 here.
const TORCH: [f32; 24] = [
    0.22976, -0.93581, 0.93344, -0.07116, 0.69159, -0.75935, -0.3322, -0.88645, -0.35564, -0.04966, -0.30339, 0.3025,
    0.28322, 0.50532, -0.839, -0.78254, 0.76152, 0.80422, 0.81114, 0.08616, -0.20976, 0.49109, 0.83042, 0.49611,
];

#[test]
fn three_steps_are_those_of_torch() {
    let ours = three_steps([6, 4], 7);
    let apart = ours.iter().zip(TORCH).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(apart < 2e-4, "{apart}: {ours:?}");
    // The steps themselves are some 0.005 an element.
    let start = Numbers(7).matrix(6, 4).values;
    assert!(ours.iter().zip(start).any(|(a, b)| (a - b).abs() > 5e-3));
}

#[test]
fn the_update_is_orthogonal_and_equals_f64() {
    for shape in [[1, 7], [7, 1], [5, 9], [9, 5], [16, 16], [33, 130]] {
        let x = Numbers(shape[0] as u64).matrix(shape[0], shape[1]);
        let rows: Rows = x.values.chunks(shape[1]).map(|row| row.iter().map(|v| f64::from(*v)).collect()).collect();
        let exact = exactly_orthogonal(&rows);
        let flat: Vec<f64> = exact.iter().flatten().copied().collect();
        let ours = values(ops::orthogonal(matrix(&x, &Device::flex())));
        assert!(relative_error(&ours, &flat) < 2e-5, "{shape:?}");
        let short = if shape[0] > shape[1] { transpose(&exact) } else { exact };
        let gram = product(&short, &transpose(&short));
        let trace = (0..gram.len()).map(|i| gram[i][i]).sum::<f64>() / gram.len() as f64;
        assert!((0.4..1.4).contains(&trace), "{shape:?}: mean squared singular value {trace}");
    }
}

#[test]
fn a_gradient_of_zero_only_decays() {
    let p = flat(&[1.0, -2.0, 3.0, 4.0]);
    let (p, m) = ops::muon(p, flat(&[0.0; 4]), flat(&[0.0; 4]), [2, 2], &STEP);
    assert_eq!(values(p), [1.0, -2.0, 3.0, 4.0].map(|v: f32| v * 0.999));
    assert_eq!(values(m), [0.0; 4]);
}

#[test]
fn bits_do_not_depend_on_the_number_of_threads() {
    check("muon", || vec![three_steps([300, 520], 3), three_steps([520, 300], 4)]);
}
