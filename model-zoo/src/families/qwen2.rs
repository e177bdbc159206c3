//! Owns the Qwen2 family; never touches files, optimizers or where parameters come from.

use burn::tensor::Tensor;

use super::decoder::{BlockSpecs, Decoder, NormScale, Trunk};
use crate::config::{LayerWindows, Qwen2Config};
use crate::family::{BlockOutput, Pass};
use crate::ops::{self, AttentionRule, Gate};
use crate::params::ParamSpec;
use crate::weights::{Weights, widen};

/// Places of a block's parameters.
const INPUT_NORM: usize = 0;
const QUERY: usize = 1;
const QUERY_BIAS: usize = 2;
const KEY: usize = 3;
const KEY_BIAS: usize = 4;
const VALUE: usize = 5;
const VALUE_BIAS: usize = 6;
const OUTPUT: usize = 7;
const POST_ATTENTION_NORM: usize = 8;
const GATE: usize = 9;
const UP: usize = 10;
const DOWN: usize = 11;

/// A Qwen2 or Qwen2.5: the blocks of a Llama, with biases on queries, keys and values (A. Yang et al. 2024,
/// arXiv:2407.10671).
#[derive(Debug)]
pub(crate) struct Qwen2 {
    trunk: Trunk,
    rule: AttentionRule,
    windows: Option<LayerWindows>,
}

impl Qwen2 {
    /// The model of a valid configuration.
    pub(crate) fn new(config: Qwen2Config) -> Self {
        let Qwen2Config { decoder, windows } = config;
        let (rope, rule) = (decoder.rope, AttentionRule::plain(decoder.head_dim));
        Self { trunk: Trunk::new(decoder, &[rope], NormScale::Weight, block_specs), rule, windows }
    }
}

/// Names, shapes and first values of a block's parameters (names: transformers, modeling_qwen2.py).
fn block_specs(s: &BlockSpecs) -> Vec<ParamSpec> {
    vec![
        s.norm("input_layernorm", s.hidden),
        s.linear("self_attn.q_proj", s.query, s.hidden),
        s.bias("self_attn.q_proj", s.query),
        s.linear("self_attn.k_proj", s.key_value, s.hidden),
        s.bias("self_attn.k_proj", s.key_value),
        s.linear("self_attn.v_proj", s.key_value, s.hidden),
        s.bias("self_attn.v_proj", s.key_value),
        s.residual("self_attn.o_proj", s.query),
        s.norm("post_attention_layernorm", s.hidden),
        s.linear("mlp.gate_proj", s.inner, s.hidden),
        s.linear("mlp.up_proj", s.inner, s.hidden),
        s.residual("mlp.down_proj", s.inner),
    ]
}

impl Decoder for Qwen2 {
    fn trunk(&self) -> &Trunk {
        &self.trunk
    }

    fn block(&self, weights: &Weights<'_>, layer: usize, stream: Tensor<2>, pass: &mut Pass<'_>) -> BlockOutput {
        let trunk = &self.trunk;
        let at = |place| trunk.at(layer, place);

        let (stream, [query, key, value]) =
            trunk.normed_linears(weights, stream, at(INPUT_NORM), [at(QUERY), at(KEY), at(VALUE)]);
        let query = ops::add_bias(query, weights.vector(at(QUERY_BIAS)));
        let key = ops::add_bias(key, weights.vector(at(KEY_BIAS)));
        let value = ops::add_bias(value, weights.vector(at(VALUE_BIAS)));
        let query = trunk.rotate(weights, query, &pass.rotations[0]);
        let key = trunk.rotate(weights, key, &pass.rotations[0]);
        let rule = AttentionRule { window: self.windows.as_ref().and_then(|windows| windows.of(layer)), ..self.rule };
        let attended = pass.attend(layer, (query, key, value), trunk.heads(), rule);
        let stream = ops::add(stream, widen(weights.linear(attended, at(OUTPUT))));

        let (stream, inner) = trunk.normed_linears(weights, stream, at(POST_ATTENTION_NORM), [at(GATE), at(UP)]);
        ops::add(stream, widen(weights.gated_linear(Gate::Silu, inner, at(DOWN)))).into()
    }
}
