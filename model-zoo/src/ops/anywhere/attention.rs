//! Owns attention as tensor operations over a few queries at a time, with its gradients; never keeps their scores.
//!
//! A chunk of queries reads the keys that it can see, so that later ones cost nothing. The backward pass computes the
//! weights of a chunk again from the logarithm of every row's normaliser, as in T. Dao et al., "FlashAttention", 2022.

use super::super::graph::{self, Backward, Checkpointer, Gradients, Ops, Place, on_any_backend};
use super::super::reference::{self, hidden, softcap};
use super::super::{AttentionRule, AttentionShape};
use super::{plain, plain_ids, register, to, wide};
use burn::Tensor;
use burn::backend::DispatchTensor;
use burn::tensor::{DType, Int};
use std::ops::Range;

/// Scores that stand in memory at a time: 128 MiB of them.
const SCORES: usize = 1 << 25;
/// Fewest queries of a chunk, but for the last: fewer leave a device idle.
const QUERIES: usize = 64;

/// [`super::super::attention`] of queries, keys and values.
pub(crate) fn attention(
    tensors: [DispatchTensor; 3],
    segments: Tensor<2, Int>,
    shape: AttentionShape,
    rule: AttentionRule,
) -> Tensor<2> {
    let chunk = (SCORES / (shape.batch * shape.heads * shape.seq).max(1)).max(QUERIES);
    chunked(tensors, segments, shape, rule, chunk)
}

/// The same with `chunk` queries at a time.
pub(crate) fn chunked(
    tensors: [DispatchTensor; 3],
    segments: Tensor<2, Int>,
    shape: AttentionShape,
    rule: AttentionRule,
    chunk: usize,
) -> Tensor<2> {
    let problem = Problem { segments: plain_ids(segments.clone()), shape, rule, chunk };
    on_any_backend!(on(tensors, &problem)).unwrap_or_else(|tensors| {
        let [q, k, v] = tensors.map(Tensor::from_dispatch);
        reference::attention(q, k, v, segments, shape, rule)
    })
}

fn on<B: Place>(tensors: [DispatchTensor; 3], problem: &Problem) -> Result<Tensor<2>, [DispatchTensor; 3]> {
    let (graph, inputs) = graph::inputs::<B, 3>(tensors)?;
    let [q, k, v] = inputs.each_ref().map(plain::<B, 2>);
    let (output, normalisers) = problem.forward(&q, &k, &v);
    let nodes = inputs.map(|input| input.node);
    let saved = || Saved { q, k, v, output: output.clone(), normalisers, problem: problem.clone() };
    Ok(graph.finish::<B, Attention, 3, 2>(Attention, nodes, graph::primitive::<B, 2>(output.clone()), saved))
}

/// What the passes share.
#[derive(Clone, Debug)]
struct Problem {
    segments: Tensor<2, Int>,
    shape: AttentionShape,
    rule: AttentionRule,
    /// Queries at a time.
    chunk: usize,
}

impl Problem {
    /// The chunks of queries, in order.
    fn chunks(&self) -> impl DoubleEndedIterator<Item = Range<usize>> + ExactSizeIterator + use<> {
        let (seq, chunk) = (self.shape.seq, self.chunk);
        (0..seq.div_ceil(chunk)).map(move |i| i * chunk..seq.min((i + 1) * chunk))
    }

    /// The keys that some of these queries see.
    fn keys(&self, queries: &Range<usize>) -> Range<usize> {
        let first = self.rule.window.map_or(0, |window| (queries.start + 1).saturating_sub(window));
        first..queries.end
    }

    /// `[batch, kv_heads, group, seq, head_dim]` of queries or what has their shape.
    fn by_query_head(&self, x: Tensor<2>) -> Tensor<5> {
        let AttentionShape { batch, seq, heads, kv_heads, head_dim } = self.shape;
        x.reshape([batch, seq, kv_heads, heads / kv_heads, head_dim]).permute([0, 2, 3, 1, 4])
    }

    /// Back to `[batch · seq, heads · head_dim]`.
    fn join_query_heads(&self, x: Tensor<5>) -> Tensor<2> {
        let AttentionShape { batch, seq, heads, head_dim, .. } = self.shape;
        x.permute([0, 3, 1, 2, 4]).reshape([batch * seq, heads * head_dim])
    }

    /// `[batch, kv_heads, seq, head_dim]` of keys or values.
    fn by_key_head(&self, x: Tensor<2>) -> Tensor<4> {
        let AttentionShape { batch, seq, kv_heads, head_dim, .. } = self.shape;
        x.reshape([batch, seq, kv_heads, head_dim]).permute([0, 2, 1, 3])
    }

    /// Back to `[batch · seq, kv_heads · head_dim]`.
    fn join_key_heads(&self, x: Tensor<4>) -> Tensor<2> {
        let AttentionShape { batch, seq, kv_heads, head_dim, .. } = self.shape;
        x.permute([0, 2, 1, 3]).reshape([batch * seq, kv_heads * head_dim])
    }

    /// Part of the queries, those that share a head of keys as rows of one matrix: `[batch, kv_heads, rows, head_dim]`.
    fn rows(&self, x: &Tensor<5>, queries: &Range<usize>) -> Tensor<4> {
        let AttentionShape { batch, heads, kv_heads, head_dim, .. } = self.shape;
        x.clone().narrow(3, queries.start, queries.len()).reshape([
            batch,
            kv_heads,
            heads / kv_heads * queries.len(),
            head_dim,
        ])
    }

    /// `[batch, kv_heads, group, queries, columns]` of [`Self::rows`], or of a matrix with as many rows.
    fn split(&self, x: Tensor<4>, queries: usize) -> Tensor<5> {
        let AttentionShape { batch, heads, kv_heads, .. } = self.shape;
        let columns = x.dims()[3];
        x.reshape([batch, kv_heads, heads / kv_heads, queries, columns])
    }

    /// Bounded scores of a chunk, and the same with what is hidden at minus infinity.
    fn scores(&self, q: Tensor<4>, k: Tensor<4>, queries: &Range<usize>) -> [Tensor<5>; 2] {
        let AttentionShape { batch, heads, kv_heads, .. } = self.shape;
        let keys = self.keys(queries);
        let scores = wide(self.split(q.matmul(k.swap_dims(2, 3)), queries.len())) * self.rule.scale;
        let scores = softcap(scores, self.rule.softcap);
        let hidden = hidden(&self.segments, queries.clone(), keys.clone(), self.rule.window)
            .reshape([batch, 1, 1, queries.len(), keys.len()])
            .expand([batch, kv_heads, heads / kv_heads, queries.len(), keys.len()]);
        [scores.clone(), scores.mask_fill(hidden, f32::NEG_INFINITY)]
    }

    /// The output, and of every chunk the logarithms of the sums of `e^score`, `[batch, kv_heads, group, queries, 1]`.
    fn forward(&self, q: &Tensor<2>, k: &Tensor<2>, v: &Tensor<2>) -> (Tensor<2>, Vec<Tensor<5>>) {
        let dtype = q.dtype();
        let q = self.by_query_head(q.clone());
        let [k, v] = [k, v].map(|x| self.by_key_head(x.clone()));
        let mut parts = Vec::new();
        let mut normalisers = Vec::new();
        for queries in self.chunks() {
            let keys = self.keys(&queries);
            let k = k.clone().narrow(2, keys.start, keys.len());
            let v = v.clone().narrow(2, keys.start, keys.len());
            let [_, scores] = self.scores(self.rows(&q, &queries), k, &queries);
            let top = scores.clone().max_dim(4);
            let shares = (scores - top.clone()).exp();
            let sum = shares.clone().sum_dim(4);
            let weights = to(shares / sum.clone(), dtype).flatten::<4>(2, 3);
            parts.push(self.split(weights.matmul(v), queries.len()));
            normalisers.push(top + sum.log());
        }
        (self.join_query_heads(Tensor::cat(parts, 3)), normalisers)
    }
}

/// What the backward pass needs: the inputs, the output, and the normalisers of every chunk.
#[derive(Clone, Debug)]
struct Saved {
    q: Tensor<2>,
    k: Tensor<2>,
    v: Tensor<2>,
    output: Tensor<2>,
    normalisers: Vec<Tensor<5>>,
    problem: Problem,
}

impl Saved {
    /// Gradients of queries, keys and values for the upstream gradient `g`.
    fn gradients(&self, g: Tensor<2>) -> [Tensor<2>; 3] {
        let (problem, dtype) = (&self.problem, self.q.dtype());
        let along = problem.by_query_head(wide(g.clone()) * wide(self.output.clone())).sum_dim(4);
        let q = problem.by_query_head(self.q.clone());
        let g = problem.by_query_head(to(g, dtype));
        let [k, v] = [&self.k, &self.v].map(|x| problem.by_key_head(x.clone()));
        let [mut dk, mut dv] = [Sum::default(), Sum::default()];
        let mut parts = Vec::new();
        // The last chunk sees most keys: what the others have is added to it.
        for (queries, normaliser) in problem.chunks().zip(&self.normalisers).rev() {
            let keys = problem.keys(&queries);
            let k = k.clone().narrow(2, keys.start, keys.len());
            let v = v.clone().narrow(2, keys.start, keys.len());
            let (q, g) = (problem.rows(&q, &queries), problem.rows(&g, &queries));
            let [scores, seen] = problem.scores(q.clone(), k.clone(), &queries);
            let weights = (seen - normaliser.clone()).exp();
            dv.add(to(weights.clone(), dtype).flatten::<4>(2, 3).swap_dims(2, 3).matmul(g.clone()), &keys, problem);
            let d_weights = wide(problem.split(g.matmul(v.swap_dims(2, 3)), queries.len()));
            let along = along.clone().narrow(3, queries.start, queries.len());
            let mut slopes = weights * (d_weights - along) * problem.rule.scale;
            if let Some(bound) = problem.rule.softcap {
                slopes = slopes * (1.0 - (scores / bound).square());
            }
            let slopes = to(slopes, dtype).flatten::<4>(2, 3);
            parts.push(problem.split(slopes.clone().matmul(k), queries.len()));
            dk.add(slopes.swap_dims(2, 3).matmul(q), &keys, problem);
        }
        parts.reverse();
        let dq = problem.join_query_heads(Tensor::cat(parts, 3));
        let [dk, dv] = [dk, dv].map(|sum| problem.join_key_heads(sum.0.unwrap_or_else(|| k.zeros_like())));
        [dq, dk, dv]
    }
}

/// A gradient of keys or values, `[batch, kv_heads, seq, head_dim]`, as chunks of queries add to it.
#[derive(Default)]
struct Sum(Option<Tensor<4>>);

impl Sum {
    fn add(&mut self, part: Tensor<4>, keys: &Range<usize>, problem: &Problem) {
        let [batch, kv_heads, _, head_dim] = part.dims();
        let seq = problem.shape.seq;
        let places = [0..batch, 0..kv_heads, keys.clone(), 0..head_dim];
        self.0 = Some(match self.0.take() {
            None if keys.len() == seq && problem.chunk >= seq => part,
            // Several chunks add up in a wide format.
            None if keys.len() == seq => wide(part),
            None => {
                let part = wide(part);
                let all = Tensor::zeros([batch, kv_heads, seq, head_dim], (&part.device(), part.dtype()));
                all.slice_assign(places, part)
            }
            Some(sum) => {
                let part = sum.clone().slice(places.clone()) + wide(part);
                sum.slice_assign(places, part)
            }
        });
    }
}

/// Backward of [`attention`].
#[derive(Debug)]
struct Attention;

impl<B: Place> Backward<B, 3> for Attention {
    type State = Saved;

    fn backward(self, ops: Ops<Saved, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let g = graph::tensor::<B, 2>(grads.consume::<B>(&ops.node));
        let dtype: DType = ops.state.q.dtype();
        let gradients = ops.state.gradients(g);
        for (node, gradient) in ops.parents.into_iter().zip(gradients) {
            register::<B, 2>(grads, node.map(|node| node.id), gradient, dtype);
        }
    }
}
