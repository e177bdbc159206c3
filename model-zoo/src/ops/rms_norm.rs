//! Owns root-mean-square normalisation and its gradients; never touches the residual around it.

use super::anywhere;
use super::flex::{self, Backward, Checkpointer, Gradients, Input, Ops, dims, floats, floats_mut};
use super::gemm::Rows;
use super::parallel::{chunks_mut, chunks_mut2, initialised, rows_per_task, written};
use super::simd::{Isa, add_assign, mul_add, multiversion, sum_squares};
use burn::Tensor;
use burn::backend::Flex;
use burn::backend::flex::FlexTensor;
use std::mem::MaybeUninit;
use std::ops::Range;

/// Rows whose share of the weights' gradient is summed before the shares are added, in order.
const GRADIENT_ROWS: usize = 64;

/// `x / sqrt(mean(x²) + eps) · gamma` over every row of `x` `[n, d]`, with `gamma` `[d]`.
///
/// B. Zhang, R. Sennrich, "Root Mean Square Layer Normalization", 2019. Statistics are computed in `f32`, the result
/// has the dtype of `x`.
///
/// # Panics
/// If `gamma` has not as many elements as a row of `x`.
pub fn rms_norm(x: Tensor<2>, gamma: Tensor<1>, eps: f64) -> Tensor<2> {
    assert_eq!(x.dims()[1], gamma.dims()[0], "rms_norm: rows and weights differ in length");
    match flex::inputs([x.into_dispatch(), gamma.into_dispatch()]) {
        Ok((graph, [x, gamma])) => {
            let isa = Isa::detect();
            let (Input { tensor: x, node: x_node, .. }, Input { tensor: gamma, node: gamma_node, .. }) = (x, gamma);
            let normed = Normed::new(isa, x, gamma, eps as f32);
            let output = flex::tensor(normed.rows(isa), normed.dims());
            graph.finish(RmsNorm, [x_node, gamma_node], output, || normed)
        }
        Err(tensors) => anywhere::rms_norm(tensors, eps),
    }
}

/// Rows that are to be normalised, their weights, and `1 / sqrt(mean(x²) + eps)` of every row: enough to compute any part of
/// the result, and the gradients.
#[derive(Clone, Debug)]
pub(super) struct Normed {
    x: FlexTensor,
    gamma: FlexTensor,
    inverse: Vec<f32>,
}

impl Normed {
    /// Rows `x` `[n, d]` and weights `gamma` `[d]`.
    pub(super) fn new(isa: Isa, x: FlexTensor, gamma: FlexTensor, eps: f32) -> Self {
        let [n, d] = dims(&x);
        let mut inverse = vec![0.0; n];
        let (values, rows) = (floats(&x), rows_per_task(d));
        chunks_mut(&mut inverse, rows, |start, inverse| {
            for (x, inverse) in values[start * d..].chunks_exact(d.max(1)).zip(inverse) {
                *inverse = 1.0 / (sum_squares(isa, x) / d as f32 + eps).sqrt();
            }
        });
        Self { x, gamma, inverse }
    }

    /// The whole result.
    pub(super) fn rows(&self, isa: Isa) -> Vec<f32> {
        let [n, d] = self.dims();
        let rows = rows_per_task(d);
        written(n * d, |y| {
            chunks_mut(y, rows * d.max(1), |start, y| {
                for (row, y) in y.chunks_exact_mut(d.max(1)).enumerate() {
                    self.part(isa, start / d.max(1) + row, 0..d, y);
                }
            });
            // SAFETY: the tasks cover all rows, and `part` writes a row whole.
            unsafe { initialised(y) }
        })
    }

    /// Turns the gradient `g` of the result into that of `x`, to which another reader of `x` may have `more` to add, and
    /// returns the gradient of the weights.
    pub(super) fn backward(&self, isa: Isa, g: &mut [f32], more: Option<&[f32]>) -> Vec<f32> {
        let [n, d] = self.dims();
        let (x, gamma) = (floats(&self.x), floats(&self.gamma));
        let blocks = n.div_ceil(GRADIENT_ROWS);
        let mut shares = vec![0.0; blocks * d];
        chunks_mut2((g, GRADIENT_ROWS * d), (&mut shares, d), |block, g, share| {
            let start = block * GRADIENT_ROWS * d;
            let x = &x[start..][..g.len()];
            let inverse = &self.inverse[block * GRADIENT_ROWS..];
            for (row, ((g, x), &inverse)) in g.chunks_exact_mut(d).zip(x.chunks_exact(d)).zip(inverse).enumerate() {
                let along = weighted_dot(isa, g, gamma, x) * inverse * inverse * inverse / d as f32;
                row_gradient(isa, g, x, gamma, share, inverse, along);
                if let Some(more) = more {
                    add_assign(isa, g, &more[start + row * d..][..d]);
                }
            }
        });
        let mut d_gamma = vec![0.0; d];
        chunks_mut(&mut d_gamma, 1 << 12, |start, d_gamma| {
            for share in shares.chunks_exact(d) {
                add_assign(isa, d_gamma, &share[start..start + d_gamma.len()]);
            }
        });
        d_gamma
    }
}

impl Rows for Normed {
    fn dims(&self) -> [usize; 2] {
        dims(&self.x)
    }

    fn part<'a>(&self, isa: Isa, row: usize, columns: Range<usize>, y: &'a mut [MaybeUninit<f32>]) -> &'a mut [f32] {
        let [_, d] = self.dims();
        assert_eq!(columns.len(), y.len(), "a part of a row has the length of its place");
        let x = &floats(&self.x)[row * d..][columns.clone()];
        normalise(isa, x, &floats(&self.gamma)[columns], self.inverse[row], y);
        // SAFETY: `normalise` writes as many places as `x` and the weights are long, which is as long as `y`.
        unsafe { initialised(y) }
    }
}

multiversion! {
    fn normalise<FMA>(x: &[f32], gamma: &[f32], inverse: f32, y: &mut [MaybeUninit<f32>]) {
        for ((y, &x), &gamma) in y.iter_mut().zip(x).zip(gamma) {
            y.write(x * inverse * gamma);
        }
    }

    /// Sum of `g · gamma · x`.
    fn weighted_dot<FMA>(g: &[f32], gamma: &[f32], x: &[f32]) -> f32 {
        let mut lanes = [0.0f32; 32];
        let (mut gs, mut ws, mut xs) = (g.chunks_exact(32), gamma.chunks_exact(32), x.chunks_exact(32));
        for ((g, w), x) in (&mut gs).zip(&mut ws).zip(&mut xs) {
            for (((lane, &g), &w), &x) in lanes.iter_mut().zip(g).zip(w).zip(x) {
                *lane = mul_add::<FMA>(g * w, x, *lane);
            }
        }
        for (((lane, &g), &w), &x) in lanes.iter_mut().zip(gs.remainder()).zip(ws.remainder()).zip(xs.remainder()) {
            *lane = mul_add::<FMA>(g * w, x, *lane);
        }
        lanes.iter().sum()
    }

    /// Turns the gradient `g` of a normalised row into the gradient of the row, and adds the weights' share to
    /// `d_gamma`; `along` is what the gradient loses along `x`.
    fn row_gradient<FMA>(g: &mut [f32], x: &[f32], gamma: &[f32], d_gamma: &mut [f32], inverse: f32, along: f32) {
        for (((g, &x), &gamma), d_gamma) in g.iter_mut().zip(x).zip(gamma).zip(d_gamma) {
            *d_gamma = mul_add::<FMA>(*g * inverse, x, *d_gamma);
            *g = mul_add::<FMA>(-along, x, *g * inverse * gamma);
        }
    }
}

/// Backward of [`rms_norm`].
#[derive(Debug)]
struct RmsNorm;

impl Backward<Flex, 2> for RmsNorm {
    type State = Normed;

    fn backward(self, ops: Ops<Normed, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let mut g = flex::dense(grads.consume::<Flex>(&ops.node));
        let d_gamma = ops.state.backward(Isa::detect(), floats_mut(&mut g), None);
        let [x_node, gamma_node] = ops.parents;
        if let Some(node) = x_node {
            grads.register::<Flex>(node.id, g);
        }
        if let Some(node) = gamma_node {
            let d = d_gamma.len();
            grads.register::<Flex>(node.id, flex::tensor(d_gamma, [d]));
        }
    }
}
