//! Owns the ops as plain tensor operations, on any device, with the gradients of burn's autodiff: what the fused
//! kernels are compared with, and what runs where there is none.

use super::adamw::Factors;
use super::attention::{AttentionRule, AttentionShape};
use super::frozen::LowRank;
use burn::Tensor;
use burn::tensor::activation::{log_softmax, sigmoid, softmax};
use burn::tensor::{Bool, DType, Int};
use std::ops::Range;

/// [`super::linear`]: computes in the dtype of `x`.
pub(crate) fn linear(x: Tensor<2>, w: Tensor<2>) -> Tensor<2> {
    let w = if w.dtype() == x.dtype() { w } else { w.cast(x.dtype()) };
    x.matmul(w.transpose())
}

/// [`super::adapted_linear`]: computes in the dtype of `x`.
pub(crate) fn adapted_linear(x: Tensor<2>, w: Tensor<2>, low_rank: LowRank) -> Tensor<2> {
    let LowRank { a, b, scale } = low_rank;
    let inner = linear(x.clone(), a).mul_scalar(scale);
    linear(x, w) + linear(inner, b)
}

/// [`super::adapted_matrix`], in `f32`.
pub(crate) fn adapted_matrix(w: Tensor<2>, low_rank: LowRank) -> Tensor<2> {
    let LowRank { a, b, scale } = low_rank;
    single(w) + single(b).matmul(single(a)).mul_scalar(scale)
}

/// [`super::scale_columns`].
pub(crate) fn scale_columns(x: Tensor<2>, factors: Tensor<1>, lengths: Tensor<1>) -> Tensor<2> {
    let dtype = x.dtype();
    x * (single(factors) / single(lengths)).cast(dtype).unsqueeze_dim(0)
}

/// [`super::rms_norm`]: computes in `f32`.
pub(crate) fn rms_norm(x: Tensor<2>, gamma: Tensor<1>, eps: f64) -> Tensor<2> {
    let dtype = x.dtype();
    let (x, gamma) = (single(x), single(gamma));
    let inverse = (x.clone().square().mean_dim(1) + eps).sqrt().recip();
    (x * inverse * gamma.unsqueeze_dim(0)).cast(dtype)
}

/// [`super::linear_in_out`]: computes in the dtype of `x`.
pub(crate) fn linear_in_out(x: Tensor<2>, w: Tensor<2>) -> Tensor<2> {
    let w = if w.dtype() == x.dtype() { w } else { w.cast(x.dtype()) };
    x.matmul(w)
}

/// [`super::layer_norm`]: computes in `f32`.
pub(crate) fn layer_norm(x: Tensor<2>, gamma: Tensor<1>, beta: Tensor<1>, eps: f64) -> Tensor<2> {
    let dtype = x.dtype();
    let (x, gamma, beta) = (single(x), single(gamma), single(beta));
    let distance = x.clone() - x.mean_dim(1);
    let inverse = (distance.clone().square().mean_dim(1) + eps).sqrt().recip();
    (distance * inverse * gamma.unsqueeze_dim(0) + beta.unsqueeze_dim(0)).cast(dtype)
}

/// [`super::rope`]: computes in `f32`.
pub(crate) fn rope(x: Tensor<2>, cos: Tensor<2>, sin: Tensor<2>, heads: usize) -> Tensor<2> {
    let ([n, width], half, dtype) = (x.dims(), cos.dims()[1], x.dtype());
    let x = single(x).reshape([n, heads, 2 * half]);
    let (first, second) = (x.clone().narrow(2, 0, half), x.narrow(2, half, half));
    let (cos, sin) = (single(cos).unsqueeze_dim::<3>(1), single(sin).unsqueeze_dim::<3>(1));
    let rotated =
        Tensor::cat(vec![first.clone() * cos.clone() - second.clone() * sin.clone(), second * cos + first * sin], 2);
    rotated.reshape([n, width]).cast(dtype)
}

/// [`super::swiglu`]: computes in the dtype of its inputs.
pub(crate) fn swiglu(gate: Tensor<2>, up: Tensor<2>) -> Tensor<2> {
    gate.clone() * sigmoid(gate) * up
}

/// [`super::gelu_tanh`]: computes in the dtype of its input.
pub(crate) fn gelu_tanh(x: Tensor<2>) -> Tensor<2> {
    let twice_z = (x.clone().square() * x.clone() * 0.044_715 + x.clone()) * (8.0 / std::f64::consts::PI).sqrt();
    x * sigmoid(twice_z)
}

/// [`super::softmax`].
pub(crate) fn softmax_rows(x: Tensor<2>) -> Tensor<2> {
    softmax(x, 1)
}

/// [`super::mix_rows`]: computes in `f32`.
pub(crate) fn mix_rows(rows: Tensor<2>, places: Tensor<2, Int>, weights: Tensor<2>) -> Tensor<2> {
    let ([n, k], d) = (places.dims(), rows.dims()[1]);
    let chosen = single(rows).select(0, places.flatten::<1>(0, 1)).reshape([n, k, d]);
    (chosen * single(weights).unsqueeze_dim::<3>(2)).sum_dim(1).reshape([n, d])
}

/// [`super::geglu`]: computes in the dtype of its inputs.
pub(crate) fn geglu(gate: Tensor<2>, up: Tensor<2>) -> Tensor<2> {
    let inner = (gate.clone() + gate.clone().square() * gate.clone() * 0.044_715) * (2.0 / std::f64::consts::PI).sqrt();
    gate * 0.5 * (inner.tanh() + 1.0) * up
}

/// [`super::add_bias`]: computes in the dtype of `x`.
pub(crate) fn add_bias(x: Tensor<2>, bias: Tensor<1>) -> Tensor<2> {
    let bias = if bias.dtype() == x.dtype() { bias } else { bias.cast(x.dtype()) };
    x + bias.unsqueeze_dim(0)
}

/// [`super::attention`]: scores in the dtype of its inputs, softmax in `f32`.
pub(crate) fn attention(
    q: Tensor<2>,
    k: Tensor<2>,
    v: Tensor<2>,
    segments: Tensor<2, Int>,
    shape: AttentionShape,
    rule: AttentionRule,
) -> Tensor<2> {
    let AttentionShape { batch, seq, heads, kv_heads, head_dim } = shape;
    let (group, dtype) = (heads / kv_heads, q.dtype());
    // The heads that share keys and values become rows of one product, so that nothing is repeated.
    let q = q.reshape([batch, seq, kv_heads, group, head_dim]).permute([0, 2, 3, 1, 4]);
    let q = q.reshape([batch, kv_heads, group * seq, head_dim]);
    let k = k.reshape([batch, seq, kv_heads, head_dim]).permute([0, 2, 3, 1]);
    let v = v.reshape([batch, seq, kv_heads, head_dim]).permute([0, 2, 1, 3]);
    let scores = single(q.matmul(k)).reshape([batch, kv_heads, group, seq, seq]) * rule.scale;
    let scores = softcap(scores, rule.softcap);
    let hidden = hidden(&segments, 0..seq, 0..seq, rule.window)
        .reshape([batch, 1, 1, seq, seq])
        .expand([batch, kv_heads, group, seq, seq]);
    let weights = softmax(scores.mask_fill(hidden, f32::NEG_INFINITY), 4).cast(dtype);
    let mixed = weights.reshape([batch, kv_heads, group * seq, seq]).matmul(v);
    let mixed = mixed.reshape([batch, kv_heads, group, seq, head_dim]).permute([0, 3, 1, 2, 4]);
    mixed.reshape([batch * seq, heads * head_dim])
}

/// `c * tanh(x / c)` for a bound `c`.
pub(crate) fn softcap<const D: usize>(x: Tensor<D>, bound: Option<f64>) -> Tensor<D> {
    match bound {
        Some(bound) => (x / bound).tanh() * bound,
        None => x,
    }
}

/// `[batch, queries, keys]`: whether the key is later than the query, before its window, or of another document.
pub(crate) fn hidden(
    segments: &Tensor<2, Int>,
    queries: Range<usize>,
    keys: Range<usize>,
    window: Option<usize>,
) -> Tensor<3, Bool> {
    let [batch, seq] = segments.dims();
    let shape = [batch, queries.len(), keys.len()];
    let positions =
        |range: &Range<usize>| Tensor::<1, Int>::arange(range.start as i64..range.end as i64, &segments.device());
    let documents = |range: &Range<usize>| segments.clone().narrow(1, range.start, range.len());
    let of_query = documents(&queries).reshape([batch, queries.len(), 1]).expand(shape);
    let of_key = documents(&keys).reshape([batch, 1, keys.len()]).expand(shape);
    let query = positions(&queries).reshape([1, queries.len(), 1]).expand(shape);
    let key = positions(&keys).reshape([1, 1, keys.len()]).expand(shape);
    let hidden = key.clone().greater(query.clone()).bool_or(of_query.not_equal(of_key));
    match window {
        Some(window) if window < seq => hidden.bool_or((key + window as i64).lower_equal(query)),
        _ => hidden,
    }
}

/// [`super::linear_cross_entropy_tokens`]: logits in the dtype of `h`, the rest in `f32`.
pub(crate) fn linear_cross_entropy_tokens(
    h: Tensor<2>,
    w: Tensor<2>,
    targets: Tensor<1, Int>,
    bound: Option<f64>,
) -> Tensor<1> {
    let n = h.dims()[0];
    let ignored = targets.clone().lower_elem(0);
    let log_probabilities = log_softmax(softcap(single(linear(h, w)), bound), 1);
    let losses = log_probabilities.gather(1, targets.clamp_min(0).reshape([n, 1])).reshape([n]).neg();
    losses.mask_fill(ignored, 0.0)
}

/// [`super::linear_cross_entropy`].
pub(crate) fn linear_cross_entropy(
    h: Tensor<2>,
    w: Tensor<2>,
    targets: Tensor<1, Int>,
    bound: Option<f64>,
) -> Tensor<1> {
    linear_cross_entropy_tokens(h, w, targets, bound).sum()
}

/// [`super::embedding`].
pub(crate) fn embedding(w: Tensor<2>, ids: Tensor<1, Int>) -> Tensor<2> {
    w.select(0, ids)
}

/// [`super::adamw`].
pub(crate) fn adamw(
    p: Tensor<1>,
    g: Tensor<1>,
    m: Tensor<1>,
    v: Tensor<1>,
    f: Factors,
) -> (Tensor<1>, Tensor<1>, Tensor<1>) {
    let g = single(g) * f.grad_scale;
    let m = m.clone() + (g.clone() - m) * f.one_minus_beta1;
    let v = v * f.beta2 + g.square() * f.one_minus_beta2;
    let root = v.clone().sqrt() / f.root_correction + f.eps;
    (p * f.keep - m.clone() / root * f.rate, m, v)
}

/// [`super::add`].
pub(crate) fn add<const D: usize>(a: Tensor<D>, b: Tensor<D>) -> Tensor<D> {
    a + b
}

/// [`super::pull_back`]: the gradient of `sum(output * gradient)`.
pub(crate) fn pull_back<const D: usize>(output: Tensor<D>, gradient: Tensor<D>) -> Tensor<1> {
    (output * gradient.autodiff()).sum()
}

/// [`super::sum_squares`].
pub(crate) fn sum_squares(g: Tensor<1>) -> f64 {
    f64::from(single(g).square().sum().into_scalar::<f32>())
}

/// The tensor in `f32`.
fn single<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    if x.dtype() == DType::F32 { x } else { x.cast(DType::F32) }
}
