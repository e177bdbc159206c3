//! Owns the comparison of the fused ops with tensor operations and with plain `f64` arithmetic.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod anywhere;
mod exact;
mod frozen;
mod gradients;
mod joined;
mod limits;
mod muon;
mod some_families;
mod threads;

use burn::Tensor;
use burn::tensor::{Device, Int, TensorData};

/// A matrix on the host, row after row.
#[derive(Clone, Debug)]
struct Matrix {
    values: Vec<f32>,
    shape: [usize; 2],
}

/// The same sequence of numbers everywhere: a linear congruential generator (Knuth's MMIX constants).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    /// Uniform in -1..1.
    fn float(&mut self) -> f32 {
        (self.next() % 20_001) as f32 / 10_000.0 - 1.0
    }

    fn below(&mut self, end: usize) -> usize {
        self.next() as usize % end.max(1)
    }

    fn matrix(&mut self, rows: usize, cols: usize) -> Matrix {
        Matrix { values: (0..rows * cols).map(|_| self.float()).collect(), shape: [rows, cols] }
    }

    /// Targets below `vocab`, about one in five ignored.
    fn targets(&mut self, n: usize, vocab: usize) -> Vec<i32> {
        (0..n).map(|_| if self.below(5) == 0 { -1 } else { self.below(vocab) as i32 }).collect()
    }

    /// Documents of random lengths from 1 to `longest`, numbered in every row from 0.
    fn segments(&mut self, batch: usize, seq: usize, longest: usize) -> Vec<i32> {
        let mut all = Vec::new();
        for _ in 0..batch {
            let (mut row, mut id) = (Vec::new(), 0);
            while row.len() < seq {
                let len = 1 + self.below(longest);
                row.extend(std::iter::repeat_n(id, len));
                id += 1;
            }
            all.extend_from_slice(&row[..seq]);
        }
        all
    }
}

fn matrix(m: &Matrix, device: &Device) -> Tensor<2> {
    Tensor::from_data(TensorData::new(m.values.clone(), m.shape), device)
}

fn ids<const D: usize>(values: &[i32], shape: [usize; D], device: &Device) -> Tensor<D, Int> {
    Tensor::from_data(TensorData::new(values.to_vec(), shape), device)
}

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_into_vec::<f32>().unwrap()
}

/// Output of `op`, then the gradients of its inputs for the upstream gradient `upstream` (of the output's shape).
fn with_gradients<const D: usize>(
    inputs: &[Matrix],
    upstream: &[f32],
    op: impl Fn(Vec<Tensor<2>>, &Device) -> Tensor<D>,
) -> Vec<Vec<f32>> {
    let device = Device::flex().autodiff();
    let leaves: Vec<Tensor<2>> = inputs.iter().map(|m| matrix(m, &device).require_grad()).collect();
    let output = op(leaves.clone(), &device);
    let shape = output.dims();
    let weight = Tensor::<D>::from_data(TensorData::new(upstream.to_vec(), shape), &device);
    let gradients = (output.clone() * weight).sum().backward();
    let mut all = vec![values(output.inner())];
    all.extend(leaves.iter().map(|leaf| values(leaf.grad(&gradients).expect("every input has a gradient"))));
    all
}

/// Largest difference, relative to the largest element (or to 0.5, where all cancel); panics where a value is
/// not finite.
fn relative_error(actual: &[f32], exact: &[f64]) -> f64 {
    assert_eq!(actual.len(), exact.len());
    let size = exact.iter().fold(0.5f64, |m, x| m.max(x.abs()));
    let difference = actual.iter().zip(exact).fold(0.0f64, |m, (a, e)| {
        assert!(a.is_finite(), "{a} where {e} was expected");
        m.max((f64::from(*a) - e).abs())
    });
    difference / size
}

/// Compares output and gradients of the fused op and of the tensor operations with exact ones.
fn check(what: &str, fused: &[Vec<f32>], reference: &[Vec<f32>], exact: &[Vec<f64>], tolerance: f64) {
    assert_eq!(fused.len(), exact.len(), "{what}");
    for (i, exact) in exact.iter().enumerate() {
        let name = if i == 0 { "output".to_owned() } else { format!("gradient {i}") };
        let (error, peer) = (relative_error(&fused[i], exact), relative_error(&reference[i], exact));
        assert!(error <= tolerance, "{what}: {name} of the fused op is off by {error:.2e} (reference {peer:.2e})");
        assert!(peer <= 10.0 * tolerance, "{what}: {name} of the reference is off by {peer:.2e}");
    }
}

/// Exactly the same bits.
fn same_bits(a: &[Vec<f32>], b: &[Vec<f32>]) -> bool {
    let bits = |all: &[Vec<f32>]| all.iter().flatten().map(|x| x.to_bits()).collect::<Vec<_>>();
    bits(a) == bits(b)
}
