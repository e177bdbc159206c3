//! Owns the Qwen3 family; never touches files, optimizers or where parameters come from.

use burn::tensor::Tensor;

use super::decoder::{BlockSpecs, Decoder, NormScale, Trunk};
use crate::config::{LayerWindows, Qwen3Config};
use crate::family::{BlockOutput, Pass};
use crate::ops::{self, AttentionRule, Gate};
use crate::params::ParamSpec;
use crate::weights::{Weights, widen};

/// Places of a block's parameters.
const INPUT_NORM: usize = 0;
const QUERY: usize = 1;
const KEY: usize = 2;
const VALUE: usize = 3;
const QUERY_NORM: usize = 4;
const KEY_NORM: usize = 5;
const OUTPUT: usize = 6;
const POST_ATTENTION_NORM: usize = 7;
const GATE: usize = 8;
const UP: usize = 9;
const DOWN: usize = 10;

/// A dense Qwen3: the blocks of a Llama, with every head of queries and keys normalised before its rotation (A. Yang et
/// al. 2025, arXiv:2505.09388).
#[derive(Debug)]
pub(crate) struct Qwen3 {
    trunk: Trunk,
    rule: AttentionRule,
    windows: Option<LayerWindows>,
}

impl Qwen3 {
    /// The model of a valid configuration.
    pub(crate) fn new(config: Qwen3Config) -> Self {
        let Qwen3Config { decoder, windows } = config;
        let (rope, rule) = (decoder.rope, AttentionRule::plain(decoder.head_dim));
        Self { trunk: Trunk::new(decoder, &[rope], NormScale::Weight, block_specs), rule, windows }
    }
}

/// Names, shapes and first values of a block's parameters (names: transformers, modeling_qwen3.py).
fn block_specs(s: &BlockSpecs) -> Vec<ParamSpec> {
    vec![
        s.norm("input_layernorm", s.hidden),
        s.linear("self_attn.q_proj", s.query, s.hidden),
        s.linear("self_attn.k_proj", s.key_value, s.hidden),
        s.linear("self_attn.v_proj", s.key_value, s.hidden),
        s.norm("self_attn.q_norm", s.head_dim),
        s.norm("self_attn.k_norm", s.head_dim),
        s.residual("self_attn.o_proj", s.query),
        s.norm("post_attention_layernorm", s.hidden),
        s.linear("mlp.gate_proj", s.inner, s.hidden),
        s.linear("mlp.up_proj", s.inner, s.hidden),
        s.residual("mlp.down_proj", s.inner),
    ]
}

impl Decoder for Qwen3 {
    fn trunk(&self) -> &Trunk {
        &self.trunk
    }

    fn block(&self, weights: &Weights<'_>, layer: usize, stream: Tensor<2>, pass: &mut Pass<'_>) -> BlockOutput {
        let trunk = &self.trunk;
        let at = |place| trunk.at(layer, place);

        let (stream, [query, key, value]) =
            trunk.normed_linears(weights, stream, at(INPUT_NORM), [at(QUERY), at(KEY), at(VALUE)]);
        let query = trunk.head_norm(weights, query, at(QUERY_NORM));
        let key = trunk.head_norm(weights, key, at(KEY_NORM));
        let query = trunk.rotate(weights, query, &pass.rotations[0]);
        let key = trunk.rotate(weights, key, &pass.rotations[0]);
        let rule = AttentionRule { window: self.windows.as_ref().and_then(|windows| windows.of(layer)), ..self.rule };
        let attended = pass.attend(layer, (query, key, value), trunk.heads(), rule);
        let stream = ops::add(stream, widen(weights.linear(attended, at(OUTPUT))));

        let (stream, inner) = trunk.normed_linears(weights, stream, at(POST_ATTENTION_NORM), [at(GATE), at(UP)]);
        ops::add(stream, widen(weights.gated_linear(Gate::Silu, inner, at(DOWN)))).into()
    }
}
