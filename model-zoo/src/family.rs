//! Owns what a model family must say of itself; never touches parameters' values or the passes over a whole model.

use std::fmt::Debug;
use std::sync::Arc;

use burn::tensor::{Int, Tensor};

use crate::balance::Routing;
use crate::generate::KvCache;
use crate::model::Inputs;
use crate::ops::{self, AttentionRule, AttentionShape};
use crate::params::ParamSpec;
use crate::rotary::Rotation;
use crate::weights::Weights;

/// A family: an embedding, blocks on a residual stream `[tokens, hidden]`, a final norm and a linear head.
///
/// Parameters are meant by their index in [`Family::specs`]. Activations are two-dimensional, `[tokens, width]`, with
/// `tokens = batch * seq`. Under [`crate::Precision::Bf16Mixed`] the residual stream, norms, rotations and everything
/// after the head stay in f32; [`Weights::linear`] computes in bf16.
pub(crate) trait Family: Debug + Send + Sync {
    /// Parameters in order, under their Hugging Face names.
    fn specs(&self) -> Arc<[ParamSpec]>;

    /// Number of blocks.
    fn num_blocks(&self) -> usize;

    /// Parameters that [`Family::embed`] reads.
    fn embedding_params(&self) -> Vec<usize>;

    /// Parameters that block `layer` reads, and nothing else does.
    fn block_params(&self, layer: usize) -> Vec<usize>;

    /// Parameters that [`Family::final_norm`] and [`Family::head_weight`] read; a tied head is among those of the
    /// embedding too.
    fn head_params(&self) -> Vec<usize>;

    /// Elements of the keys of one token in one block, and of its values.
    fn kv_width(&self) -> usize;

    /// What turns queries and keys, computed once for all blocks: one rotation for each base in use, none without
    /// rotary positions. `positions` `[tokens]` are below `limit`.
    fn rotations(&self, positions: &Tensor<1, Int>, limit: usize) -> Vec<Rotation>;

    /// The stream before the first block; `tokens` and `positions` `[tokens]`.
    fn embed(&self, weights: &Weights<'_>, tokens: Tensor<1, Int>, positions: Tensor<1, Int>) -> Tensor<2>;

    /// The stream after block `layer`.
    fn block(&self, weights: &Weights<'_>, layer: usize, stream: Tensor<2>, pass: &mut Pass<'_>) -> BlockOutput;

    /// The stream after the last norm, f32.
    fn final_norm(&self, weights: &Weights<'_>, stream: Tensor<2>) -> Tensor<2>;

    /// Weights of the head, `[vocab, hidden]`, f32.
    fn head_weight(&self, weights: &Weights<'_>) -> Tensor<2>;

    /// Whether its linear layers are stored `[out, in]`, as adapters take them.
    fn takes_adapters(&self) -> bool {
        true
    }

    /// Bound `c` of logits `x`, which become `c * tanh(x / c)`.
    fn logit_softcap(&self) -> Option<f64> {
        None
    }

    /// Positions that the model has parameters for; `None` = it computes them, and takes any.
    fn position_limit(&self) -> Option<usize> {
        None
    }
}

/// What a block gives.
pub(crate) struct BlockOutput {
    /// The stream after it, `[tokens, hidden]`, f32.
    pub(crate) stream: Tensor<2>,
    /// How tokens were spread over experts, where there are any.
    pub(crate) routing: Option<Routing>,
}

impl From<Tensor<2>> for BlockOutput {
    fn from(stream: Tensor<2>) -> Self {
        Self { stream, routing: None }
    }
}

/// What all blocks of one pass read beside the stream.
pub(crate) struct Pass<'a> {
    /// See [`Family::rotations`].
    pub(crate) rotations: Vec<Rotation>,
    /// What queries attend to.
    pub(crate) attend: Attend<'a>,
}

/// What the queries of a pass attend to.
pub(crate) enum Attend<'a> {
    /// Earlier tokens of their own document in their own row.
    Rows(&'a Inputs),
    /// Everything in the cache of one document, and earlier tokens among these.
    Cache(&'a mut KvCache),
}

/// The heads of an attention.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Heads {
    /// Query heads.
    pub(crate) heads: usize,
    /// Key and value heads; divides `heads`.
    pub(crate) kv_heads: usize,
    /// Elements of one.
    pub(crate) head_dim: usize,
}

impl Pass<'_> {
    /// Attention of block `layer`: rotated queries `[tokens, heads * head_dim]`, keys and values
    /// `[tokens, kv_heads * head_dim]`; gives `[tokens, heads * head_dim]`.
    pub(crate) fn attend(
        &mut self,
        layer: usize,
        (query, key, value): (Tensor<2>, Tensor<2>, Tensor<2>),
        Heads { heads, kv_heads, head_dim }: Heads,
        rule: AttentionRule,
    ) -> Tensor<2> {
        match &mut self.attend {
            Attend::Rows(inputs) => {
                let [batch, seq] = inputs.dims();
                let shape = AttentionShape { batch, seq, heads, kv_heads, head_dim };
                ops::attention(query, key, value, inputs.segments.clone(), shape, rule)
            }
            Attend::Cache(cache) => {
                let shape = AttentionShape { batch: 1, seq: query.dims()[0], heads, kv_heads, head_dim };
                cache.attend(layer, query, key, value, &shape, rule)
            }
        }
    }
}
