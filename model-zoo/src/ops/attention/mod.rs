//! Owns causal attention within documents and windows, and its gradients; never touches projections or positions.
//!
//! Blockwise with an online softmax: nothing of the size of the scores is kept, only the output and the logarithm of
//! every row's normaliser, from which the backward pass computes the weights again (T. Dao et al.,
//! "FlashAttention", 2022). Query heads that share keys and values read the same packed panels of them.

mod backward;
mod forward;
mod panels;
mod span;

use super::anywhere;
use super::flex::{self, Backward, Checkpointer, Gradients, Ops, floats};
use super::simd::Isa;
use burn::Tensor;
use burn::backend::Flex;
use burn::backend::flex::FlexTensor;
use burn::tensor::Int;
use span::Spans;

/// The shape of an attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttentionShape {
    /// Rows of the batch.
    pub batch: usize,
    /// Positions in a row.
    pub seq: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; each serves `heads / kv_heads` query heads.
    pub kv_heads: usize,
    /// Elements of a head.
    pub head_dim: usize,
}

impl AttentionShape {
    /// Query heads that share a key and value head.
    fn group(&self) -> usize {
        self.heads / self.kv_heads
    }

    /// Elements between two positions of the queries.
    fn q_stride(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Elements between two positions of the keys or values.
    fn kv_stride(&self) -> usize {
        self.kv_heads * self.head_dim
    }
}

/// How scores become weights.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AttentionRule {
    /// Factor of the scores.
    pub scale: f64,
    /// Most tokens a query sees, itself included; `None` = all earlier ones.
    pub window: Option<usize>,
    /// Bound `c` of scaled scores `x`, which become `c * tanh(x / c)`.
    pub softcap: Option<f64>,
}

impl AttentionRule {
    /// The rule of Vaswani et al. 2017: every earlier token, scores divided by the root of the width of a head.
    #[must_use]
    pub fn plain(head_dim: usize) -> Self {
        Self::scaled(1.0 / (head_dim as f64).sqrt())
    }

    /// Every earlier token, scores times `scale`.
    #[must_use]
    pub fn scaled(scale: f64) -> Self {
        Self { scale, window: None, softcap: None }
    }
}

/// Softmax attention `softmax(scale · q · kᵀ) · v` for every head: queries `q` `[batch · seq, heads · head_dim]`, keys
/// `k` and values `v` `[batch · seq, kv_heads · head_dim]`, giving the shape of `q`.
///
/// A position attends to itself and to earlier positions with the same entry in `segments` `[batch, seq]`, with a
/// window of `w` only to those fewer than `w` places before it. A bound of the scores holds before anything is hidden.
///
/// # Panics
/// If the shapes do not fit together, or a window or a bound is 0.
pub fn attention(
    q: Tensor<2>,
    k: Tensor<2>,
    v: Tensor<2>,
    segments: Tensor<2, Int>,
    shape: AttentionShape,
    rule: AttentionRule,
) -> Tensor<2> {
    let AttentionShape { batch, seq, heads, kv_heads, head_dim } = shape;
    assert!(
        kv_heads > 0 && heads > 0 && head_dim > 0 && heads.is_multiple_of(kv_heads),
        "attention: {heads} query heads of {head_dim} elements cannot share {kv_heads} key heads evenly"
    );
    assert_eq!(q.dims(), [batch * seq, heads * head_dim], "attention: the queries have another shape");
    assert_eq!(k.dims(), [batch * seq, kv_heads * head_dim], "attention: the keys have another shape");
    assert_eq!(v.dims(), k.dims(), "attention: keys and values differ in shape");
    assert_eq!(segments.dims(), [batch, seq], "attention: there must be a segment for every position");
    assert!(rule.window != Some(0) && rule.softcap.is_none_or(|c| c > 0.0), "attention: {rule:?} lets nothing through");
    let segments = segments.into_dispatch();
    let Some(ids) = flex::ints(&segments) else {
        let tensors = [q, k, v].map(Tensor::into_dispatch);
        return anywhere::attention(tensors, Tensor::from_dispatch(segments), shape, rule);
    };
    match flex::inputs([q.into_dispatch(), k.into_dispatch(), v.into_dispatch()]) {
        Ok((graph, [q, k, v])) => {
            let problem = Problem::new(&ids, shape, rule);
            let (output, normalisers) =
                forward::forward(&problem, floats(&q.tensor), floats(&k.tensor), floats(&v.tensor));
            let output = flex::tensor(output, [batch * seq, heads * head_dim]);
            let nodes = [q.node, k.node, v.node];
            let [q, k, v] = [q.tensor, k.tensor, v.tensor];
            graph.finish(Attention, nodes, output.clone(), || Saved { q, k, v, output, normalisers, problem })
        }
        Err(tensors) => anywhere::attention(tensors, Tensor::from_dispatch(segments), shape, rule),
    }
}

/// What the passes share.
#[derive(Clone, Debug)]
struct Problem {
    isa: Isa,
    shape: AttentionShape,
    scale: f32,
    softcap: Option<f32>,
    spans: Spans,
}

impl Problem {
    fn new(segments: &[i32], shape: AttentionShape, rule: AttentionRule) -> Self {
        let AttentionRule { scale, window, softcap } = rule;
        let spans = Spans::new(segments, shape.seq, window);
        Self { isa: Isa::detect(), shape, scale: scale as f32, softcap: softcap.map(|c| c as f32), spans }
    }
}

/// What the backward pass needs: the inputs, the output, and the logarithm of the sum of `e^score` for every position
/// and head, `[batch · seq, heads]`.
#[derive(Clone, Debug)]
struct Saved {
    q: FlexTensor,
    k: FlexTensor,
    v: FlexTensor,
    output: FlexTensor,
    normalisers: Vec<f32>,
    problem: Problem,
}

/// Backward of [`attention`].
#[derive(Debug)]
struct Attention;

impl Backward<Flex, 3> for Attention {
    type State = Saved;

    fn backward(self, ops: Ops<Saved, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let g = flex::dense(grads.consume::<Flex>(&ops.node));
        let saved = &ops.state;
        let gradients = backward::backward(saved, floats(&g));
        for ((node, gradient), like) in ops.parents.into_iter().zip(gradients).zip([&saved.q, &saved.k, &saved.v]) {
            if let Some(node) = node {
                grads.register::<Flex>(node.id, flex::like(gradient, like));
            }
        }
    }
}
