//! Owns the Llama family; never touches files, optimizers or where parameters come from.

use burn::tensor::Tensor;

use super::decoder::{BlockSpecs, Decoder, NormScale, Trunk};
use crate::config::LlamaConfig;
use crate::family::{BlockOutput, Pass};
use crate::ops::{self, AttentionRule, Gate};
use crate::params::ParamSpec;
use crate::weights::{Weights, widen};

/// Places of a block's parameters.
const INPUT_NORM: usize = 0;
const QUERY: usize = 1;
const KEY: usize = 2;
const VALUE: usize = 3;
const OUTPUT: usize = 4;
pub(super) const POST_ATTENTION_NORM: usize = 5;
const GATE: usize = ATTENTION_PARAMS;
const UP: usize = ATTENTION_PARAMS + 1;
const DOWN: usize = ATTENTION_PARAMS + 2;

/// Number of parameters of a block before its feed-forward half.
pub(super) const ATTENTION_PARAMS: usize = 6;

/// A Llama: token embedding, blocks of (RMSNorm, grouped-query attention with rotary positions, RMSNorm, SwiGLU) on a
/// residual stream, a final RMSNorm and a linear head (Touvron et al. 2023, arXiv:2302.13971; grouped-query attention
/// as in Llama 2, arXiv:2307.09288).
#[derive(Debug)]
pub(crate) struct Llama {
    trunk: Trunk,
    rule: AttentionRule,
}

impl Llama {
    /// The model of a valid configuration.
    pub(crate) fn new(config: LlamaConfig) -> Self {
        Self::with_window(config, None)
    }

    /// The model of a valid configuration whose tokens attend to the last `window` tokens only, themselves included.
    pub(super) fn with_window(config: LlamaConfig, window: Option<usize>) -> Self {
        let (rope, rule) = (config.rope, AttentionRule { window, ..AttentionRule::plain(config.head_dim) });
        Self { trunk: Trunk::new(config, &[rope], NormScale::Weight, block_specs), rule }
    }
}

/// Names, shapes and first values of a block's parameters (names: transformers, modeling_llama.py).
fn block_specs(s: &BlockSpecs) -> Vec<ParamSpec> {
    let mut specs = attention_specs(s);
    specs.extend([
        s.linear("mlp.gate_proj", s.inner, s.hidden),
        s.linear("mlp.up_proj", s.inner, s.hidden),
        s.residual("mlp.down_proj", s.inner),
    ]);
    specs
}

/// The first [`ATTENTION_PARAMS`] of a block: its attention and the norms before and after.
pub(super) fn attention_specs(s: &BlockSpecs) -> Vec<ParamSpec> {
    vec![
        s.norm("input_layernorm", s.hidden),
        s.linear("self_attn.q_proj", s.query, s.hidden),
        s.linear("self_attn.k_proj", s.key_value, s.hidden),
        s.linear("self_attn.v_proj", s.key_value, s.hidden),
        s.residual("self_attn.o_proj", s.query),
        s.norm("post_attention_layernorm", s.hidden),
    ]
}

/// The first half of block `layer`: the stream with what attention adds to it.
pub(super) fn attention_half(
    trunk: &Trunk,
    rule: AttentionRule,
    weights: &Weights<'_>,
    layer: usize,
    stream: Tensor<2>,
    pass: &mut Pass<'_>,
) -> Tensor<2> {
    let at = |place| trunk.at(layer, place);
    let (stream, [query, key, value]) =
        trunk.normed_linears(weights, stream, at(INPUT_NORM), [at(QUERY), at(KEY), at(VALUE)]);
    let query = trunk.rotate(weights, query, &pass.rotations[0]);
    let key = trunk.rotate(weights, key, &pass.rotations[0]);
    let attended = pass.attend(layer, (query, key, value), trunk.heads(), rule);
    ops::add(stream, widen(weights.linear(attended, at(OUTPUT))))
}

impl Decoder for Llama {
    fn trunk(&self) -> &Trunk {
        &self.trunk
    }

    fn block(&self, weights: &Weights<'_>, layer: usize, stream: Tensor<2>, pass: &mut Pass<'_>) -> BlockOutput {
        let stream = attention_half(&self.trunk, self.rule, weights, layer, stream, pass);
        let at = |place| self.trunk.at(layer, place);
        let (stream, inner) = self.trunk.normed_linears(weights, stream, at(POST_ATTENTION_NORM), [at(GATE), at(UP)]);
        ops::add(stream, widen(weights.gated_linear(Gate::Silu, inner, at(DOWN)))).into()
    }
}
