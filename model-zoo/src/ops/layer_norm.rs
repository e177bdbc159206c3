//! Owns layer normalisation and its gradients; never touches the residual around it.

use super::bias::column_sums;
use super::flex::{self, Backward, Checkpointer, Gradients, Input, Ops, dims, floats, floats_mut};
use super::parallel::{chunks_mut, chunks_mut2, initialised, rows_per_task, written};
use super::reference;
use super::simd::{Isa, add_assign, mul_add, multiversion};
use burn::Tensor;
use burn::backend::Flex;
use burn::backend::flex::FlexTensor;
use std::mem::MaybeUninit;

/// Rows whose share of the weights' gradient is summed before the shares are added, in order.
const GRADIENT_ROWS: usize = 64;

/// `(x - mean(x)) / sqrt(var(x) + eps) · gamma + beta` over every row of `x` `[n, d]`, with `gamma` and `beta` `[d]`;
/// `var` divides by `d`.
///
/// J. L. Ba, J. R. Kiros, G. E. Hinton, "Layer Normalization", 2016. Statistics are computed in `f32`, the variance from
/// distances to the mean; the result has the dtype of `x`.
///
/// # Panics
/// If `gamma` or `beta` has not as many elements as a row of `x`.
pub fn layer_norm(x: Tensor<2>, gamma: Tensor<1>, beta: Tensor<1>, eps: f64) -> Tensor<2> {
    assert_eq!(x.dims()[1], gamma.dims()[0], "layer_norm: rows and weights differ in length");
    assert_eq!(x.dims()[1], beta.dims()[0], "layer_norm: rows and biases differ in length");
    match flex::inputs([x.into_dispatch(), gamma.into_dispatch(), beta.into_dispatch()]) {
        Ok((graph, [x, gamma, beta])) => {
            let (output, moments) = forward(Isa::detect(), &x.tensor, &gamma.tensor, &beta.tensor, eps as f32);
            let Input { tensor: x, node: x_node, .. } = x;
            let Input { tensor: gamma, node: gamma_node, .. } = gamma;
            graph.finish(LayerNorm, [x_node, gamma_node, beta.node], output, || Saved { x, gamma, moments })
        }
        Err([x, gamma, beta]) => reference::layer_norm(
            Tensor::from_dispatch(x),
            Tensor::from_dispatch(gamma),
            Tensor::from_dispatch(beta),
            eps,
        ),
    }
}

/// What the backward pass needs: the inputs, and of every row the mean and `1 / sqrt(var(x) + eps)`.
#[derive(Clone, Debug)]
struct Saved {
    x: FlexTensor,
    gamma: FlexTensor,
    moments: Vec<Moments>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Moments {
    mean: f32,
    inverse: f32,
}

fn forward(isa: Isa, x: &FlexTensor, gamma: &FlexTensor, beta: &FlexTensor, eps: f32) -> (FlexTensor, Vec<Moments>) {
    let [n, d] = dims(x);
    let (x, gamma, beta) = (floats(x), floats(gamma), floats(beta));
    let mut moments = vec![Moments::default(); n];
    let rows = rows_per_task(d);
    let y = written(n * d, |y| {
        chunks_mut2((y, rows * d), (&mut moments, rows), |task, y, moments| {
            let x = &x[task * rows * d..][..y.len()];
            for ((x, y), moments) in x.chunks_exact(d).zip(y.chunks_exact_mut(d)).zip(moments) {
                let mean = sum(isa, x) / d as f32;
                let inverse = 1.0 / (squared_distance(isa, x, mean) / d as f32 + eps).sqrt();
                *moments = Moments { mean, inverse };
                normalise(isa, x, gamma, beta, mean, inverse, y);
            }
        });
        // SAFETY: the tasks cover all rows, and `normalise` writes a row whole.
        unsafe { initialised(y) }
    });
    (flex::tensor(y, [n, d]), moments)
}

multiversion! {
    fn sum<FMA>(x: &[f32]) -> f32 {
        let mut lanes = [0.0f32; 32];
        let mut chunks = x.chunks_exact(32);
        for chunk in &mut chunks {
            for (lane, &x) in lanes.iter_mut().zip(chunk) {
                *lane += x;
            }
        }
        for (lane, &x) in lanes.iter_mut().zip(chunks.remainder()) {
            *lane += x;
        }
        lanes.iter().sum()
    }

    /// Sum of `(x - mean)²`.
    fn squared_distance<FMA>(x: &[f32], mean: f32) -> f32 {
        let mut lanes = [0.0f32; 32];
        let mut chunks = x.chunks_exact(32);
        for chunk in &mut chunks {
            for (lane, &x) in lanes.iter_mut().zip(chunk) {
                *lane = mul_add::<FMA>(x - mean, x - mean, *lane);
            }
        }
        for (lane, &x) in lanes.iter_mut().zip(chunks.remainder()) {
            *lane = mul_add::<FMA>(x - mean, x - mean, *lane);
        }
        lanes.iter().sum()
    }

    fn normalise<FMA>(
        x: &[f32], gamma: &[f32], beta: &[f32], mean: f32, inverse: f32, y: &mut [MaybeUninit<f32>],
    ) {
        for (((y, &x), &gamma), &beta) in y.iter_mut().zip(x).zip(gamma).zip(beta) {
            y.write(mul_add::<FMA>((x - mean) * inverse, gamma, beta));
        }
    }

    /// Sums of `g · gamma` and of `g · gamma · (x - mean)`.
    fn weighted_sums<FMA>(g: &[f32], gamma: &[f32], x: &[f32], mean: f32) -> (f32, f32) {
        let (mut plain, mut along) = ([0.0f32; 32], [0.0f32; 32]);
        let (mut gs, mut ws, mut xs) = (g.chunks_exact(32), gamma.chunks_exact(32), x.chunks_exact(32));
        for ((g, w), x) in (&mut gs).zip(&mut ws).zip(&mut xs) {
            for ((((plain, along), &g), &w), &x) in plain.iter_mut().zip(&mut along).zip(g).zip(w).zip(x) {
                *plain = mul_add::<FMA>(g, w, *plain);
                *along = mul_add::<FMA>(g * w, x - mean, *along);
            }
        }
        let rest = gs.remainder().iter().zip(ws.remainder()).zip(xs.remainder());
        for ((plain, along), ((&g, &w), &x)) in plain.iter_mut().zip(&mut along).zip(rest) {
            *plain = mul_add::<FMA>(g, w, *plain);
            *along = mul_add::<FMA>(g * w, x - mean, *along);
        }
        (plain.iter().sum(), along.iter().sum())
    }

    /// Turns the gradient `g` of a normalised row into the gradient of the row, and adds the weights' share to
    /// `d_gamma`. `common` is what every element's gradient loses, `along` what it loses by its distance to the mean.
    fn row_gradient<FMA>(
        g: &mut [f32], x: &[f32], gamma: &[f32], d_gamma: &mut [f32], mean: f32, inverse: f32, common: f32, along: f32,
    ) {
        for (((g, &x), &gamma), d_gamma) in g.iter_mut().zip(x).zip(gamma).zip(d_gamma) {
            *d_gamma = mul_add::<FMA>(*g * inverse, x - mean, *d_gamma);
            *g = mul_add::<FMA>(-along, x - mean, mul_add::<FMA>(*g * inverse, gamma, -common));
        }
    }
}

/// Backward of [`layer_norm`].
#[derive(Debug)]
struct LayerNorm;

impl Backward<Flex, 3> for LayerNorm {
    type State = Saved;

    fn backward(self, ops: Ops<Saved, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let isa = Isa::detect();
        let mut g = flex::dense(grads.consume::<Flex>(&ops.node));
        let [x_node, gamma_node, beta_node] = ops.parents;
        let [n, d] = dims(&ops.state.x);
        if let Some(node) = beta_node {
            grads.register::<Flex>(node.id, flex::tensor(column_sums(isa, floats(&g), n, d), [d]));
        }
        let d_gamma = backward(isa, &mut g, &ops.state);
        if let Some(node) = x_node {
            grads.register::<Flex>(node.id, g);
        }
        if let Some(node) = gamma_node {
            grads.register::<Flex>(node.id, flex::tensor(d_gamma, [d]));
        }
    }
}

/// Turns `g` into the gradient of `x` and returns that of `gamma`.
fn backward(isa: Isa, g: &mut FlexTensor, saved: &Saved) -> Vec<f32> {
    let [n, d] = dims(&saved.x);
    let (x, gamma) = (floats(&saved.x), floats(&saved.gamma));
    let mut shares = vec![0.0; n.div_ceil(GRADIENT_ROWS) * d];
    chunks_mut2((floats_mut(g), GRADIENT_ROWS * d), (&mut shares, d), |block, g, share| {
        let x = &x[block * GRADIENT_ROWS * d..][..g.len()];
        let moments = &saved.moments[block * GRADIENT_ROWS..];
        for ((g, x), &Moments { mean, inverse }) in g.chunks_exact_mut(d).zip(x.chunks_exact(d)).zip(moments) {
            let (plain, along) = weighted_sums(isa, g, gamma, x, mean);
            let (common, along) = (plain * inverse / d as f32, along * inverse * inverse * inverse / d as f32);
            row_gradient(isa, g, x, gamma, share, mean, inverse, common, along);
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
