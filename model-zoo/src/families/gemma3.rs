//! Owns the Gemma 3 family; never touches files, optimizers or where parameters come from.

use burn::tensor::Tensor;

use super::decoder::{BlockSpecs, Decoder, NormScale, Trunk};
use crate::config::{Gemma3Config, LayerWindows};
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
const PRE_FEEDFORWARD_NORM: usize = 8;
const GATE: usize = 9;
const UP: usize = 10;
const DOWN: usize = 11;
const POST_FEEDFORWARD_NORM: usize = 12;

/// Places of the rotations.
const GLOBAL: usize = 0;
const LOCAL: usize = 1;

/// A Gemma 3 for text: the blocks of a Gemma 2 without bounded scores, with every head of queries and keys normalised,
/// several layers with a window for one without, and a rotary base for each kind of layer (Gemma Team 2025,
/// arXiv:2503.19786).
#[derive(Debug)]
pub(crate) struct Gemma3 {
    trunk: Trunk,
    rule: AttentionRule,
    windows: LayerWindows,
    embedding_scale: f32,
    final_bound: Option<f64>,
}

impl Gemma3 {
    /// The model of a valid configuration.
    pub(crate) fn new(config: Gemma3Config) -> Self {
        let Gemma3Config { decoder, windows, local_rope, query_pre_attn_scalar, final_logit_softcapping } = config;
        let ropes = [decoder.rope, local_rope];
        Self {
            embedding_scale: (decoder.hidden_size as f64).sqrt() as f32,
            rule: AttentionRule::scaled(query_pre_attn_scalar.powf(-0.5)),
            final_bound: final_logit_softcapping,
            trunk: Trunk::new(decoder, &ropes, NormScale::OnePlusWeight, block_specs),
            windows,
        }
    }
}

/// Names, shapes and first values of a block's parameters (names: transformers, modeling_gemma3.py).
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
        s.norm("pre_feedforward_layernorm", s.hidden),
        s.linear("mlp.gate_proj", s.inner, s.hidden),
        s.linear("mlp.up_proj", s.inner, s.hidden),
        s.residual("mlp.down_proj", s.inner),
        s.norm("post_feedforward_layernorm", s.hidden),
    ]
}

impl Decoder for Gemma3 {
    fn trunk(&self) -> &Trunk {
        &self.trunk
    }

    fn embedding_scale(&self) -> Option<f32> {
        Some(self.embedding_scale)
    }

    fn logit_softcap(&self) -> Option<f64> {
        self.final_bound
    }

    fn block(&self, weights: &Weights<'_>, layer: usize, stream: Tensor<2>, pass: &mut Pass<'_>) -> BlockOutput {
        let trunk = &self.trunk;
        let at = |place| trunk.at(layer, place);

        let (stream, [query, key, value]) =
            trunk.normed_linears(weights, stream, at(INPUT_NORM), [at(QUERY), at(KEY), at(VALUE)]);
        let window = self.windows.of(layer);
        let rotation = &pass.rotations[if window.is_some() { LOCAL } else { GLOBAL }];
        let query = trunk.head_norm(weights, query, at(QUERY_NORM));
        let key = trunk.head_norm(weights, key, at(KEY_NORM));
        let (query, key) = (trunk.rotate(weights, query, rotation), trunk.rotate(weights, key, rotation));
        let rule = AttentionRule { window, ..self.rule };
        let attended = pass.attend(layer, (query, key, value), trunk.heads(), rule);
        let change = widen(weights.linear(attended, at(OUTPUT)));
        let stream = ops::add(stream, trunk.norm(weights, change, at(POST_ATTENTION_NORM)));

        let (stream, inner) = trunk.normed_linears(weights, stream, at(PRE_FEEDFORWARD_NORM), [at(GATE), at(UP)]);
        let change = widen(weights.gated_linear(Gate::GeluTanh, inner, at(DOWN)));
        ops::add(stream, trunk.norm(weights, change, at(POST_FEEDFORWARD_NORM))).into()
    }
}
