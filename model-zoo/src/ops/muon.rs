//! Owns the update of a matrix by Muon: momentum, orthogonalisation, decay; never touches embeddings, norms or schedules.
//!
//! K. Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024, with the step size of J. Liu et al.,
//! "Muon is Scalable for LLM Training", arXiv 2502.16982 (`torch.optim.Muon(adjust_lr_fn="match_rms_adamw")`).

use super::{linear, linear_in_out, sum_squares};
use burn::Tensor;

/// Coefficients of the quintic Newton-Schulz iteration: steep at zero, so that small singular values come up in a few
/// steps; all end between about 0.7 and 1.2.
const COEFFICIENTS: (f32, f32, f32) = (3.4445, -4.7750, 2.0315);
/// Iterations of it.
const ITERATIONS: usize = 5;
/// Least norm of an update that is divided by it.
const EPS: f64 = 1e-7;
/// Root mean square of an element of AdamW's update, which the update of a matrix is scaled to: one learning rate and one
/// weight decay then serve both.
const RMS: f64 = 0.2;

/// One step of Muon for one matrix.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MuonStep {
    /// Learning rate of this step.
    pub lr: f64,
    /// Decay of the momentum, which is applied as Nesterov's.
    pub momentum: f64,
    /// Decoupled weight decay; the matrix shrinks by `lr * weight_decay`.
    pub weight_decay: f64,
    /// Multiplies the gradient before anything else: one over the tokens of the step, times the clipping factor.
    pub grad_scale: f32,
}

/// One step of Muon on matrix `p`, flat `[rows * cols]`, with gradient `g` and momentum `m`; returns the new `(p, m)`.
///
/// `m += (1 - momentum) (g - m)`, `u = g + momentum (m - g)`, `p -= lr · weight_decay · p`,
/// `p -= lr · 0.2 · sqrt(max(rows, cols)) · orthogonal(u)`. Computes in the dtype of `p`.
///
/// # Panics
/// If a length is not `rows * cols`.
pub fn muon(
    p: Tensor<1>,
    g: Tensor<1>,
    m: Tensor<1>,
    [rows, cols]: [usize; 2],
    s: &MuonStep,
) -> (Tensor<1>, Tensor<1>) {
    let len = [rows * cols];
    assert!(p.dims() == len && g.dims() == len && m.dims() == len, "muon: a length is not that of the matrix");
    let g = g.mul_scalar(s.grad_scale);
    let m = m.clone() + (g.clone() - m).mul_scalar((1.0 - s.momentum) as f32);
    let u = g.clone() + (m.clone() - g).mul_scalar(s.momentum as f32);
    let u = orthogonal(u.reshape([rows, cols])).reshape(len);
    let rate = s.lr * RMS * (rows.max(cols) as f64).sqrt();
    let p = p.mul_scalar((1.0 - s.lr * s.weight_decay) as f32) - u.mul_scalar(rate as f32);
    (p, m)
}

/// Nearly the closest matrix to `x` `[rows, cols]` whose rows (or columns, if there are more rows) are orthonormal: `x`
/// with all its singular values moved to about 1. Zero stays zero.
pub fn orthogonal(x: Tensor<2>) -> Tensor<2> {
    let [rows, cols] = x.dims();
    let norm = sum_squares(&x.clone().reshape([rows * cols])).sqrt().max(EPS);
    let is_tall = rows > cols;
    // The products then are of the shorter side.
    let mut x = if is_tall { x.transpose() } else { x }.mul_scalar((1.0 / norm) as f32);
    let (a, b, c) = COEFFICIENTS;
    for _ in 0..ITERATIONS {
        let square = linear(x.clone(), x.clone());
        // The square is symmetric, so that times its transpose is times itself.
        let fourth = linear(square.clone(), square.clone());
        let polynomial = square.mul_scalar(b) + fourth.mul_scalar(c);
        x = x.clone().mul_scalar(a) + linear_in_out(polynomial, x);
    }
    if is_tall { x.transpose() } else { x }
}
