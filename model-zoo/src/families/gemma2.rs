//! Owns the Gemma 2 family; never touches files, optimizers or where parameters come from.

use burn::tensor::Tensor;

use super::decoder::{BlockSpecs, Decoder, NormScale, Trunk};
use crate::config::{Gemma2Config, LayerWindows};
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
const POST_ATTENTION_NORM: usize = 5;
const PRE_FEEDFORWARD_NORM: usize = 6;
const GATE: usize = 7;
const UP: usize = 8;
const DOWN: usize = 9;
const POST_FEEDFORWARD_NORM: usize = 10;

/// A Gemma 2: scaled embeddings, norms before and after attention and feed-forward block, GEGLU, bounded scores and
/// logits, and a window in every other layer (Gemma Team 2024, arXiv:2408.00118).
#[derive(Debug)]
pub(crate) struct Gemma2 {
    trunk: Trunk,
    rule: AttentionRule,
    windows: LayerWindows,
    embedding_scale: f32,
    final_bound: Option<f64>,
}

impl Gemma2 {
    /// The model of a valid configuration.
    pub(crate) fn new(config: Gemma2Config) -> Self {
        let Gemma2Config { decoder, windows, .. } = config;
        let (rope, scale) = (decoder.rope, config.query_pre_attn_scalar.powf(-0.5));
        Self {
            embedding_scale: (decoder.hidden_size as f64).sqrt() as f32,
            rule: AttentionRule { softcap: config.attn_logit_softcapping, ..AttentionRule::scaled(scale) },
            final_bound: config.final_logit_softcapping,
            trunk: Trunk::new(decoder, &[rope], NormScale::OnePlusWeight, block_specs),
            windows,
        }
    }
}

/// Names, shapes and first values of a block's parameters (names: transformers, modeling_gemma2.py).
fn block_specs(s: &BlockSpecs) -> Vec<ParamSpec> {
    vec![
        s.norm("input_layernorm", s.hidden),
        s.linear("self_attn.q_proj", s.query, s.hidden),
        s.linear("self_attn.k_proj", s.key_value, s.hidden),
        s.linear("self_attn.v_proj", s.key_value, s.hidden),
        s.residual("self_attn.o_proj", s.query),
        s.norm("post_attention_layernorm", s.hidden),
        s.norm("pre_feedforward_layernorm", s.hidden),
        s.linear("mlp.gate_proj", s.inner, s.hidden),
        s.linear("mlp.up_proj", s.inner, s.hidden),
        s.residual("mlp.down_proj", s.inner),
        s.norm("post_feedforward_layernorm", s.hidden),
    ]
}

impl Decoder for Gemma2 {
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
        let query = trunk.rotate(weights, query, &pass.rotations[0]);
        let key = trunk.rotate(weights, key, &pass.rotations[0]);
        let rule = AttentionRule { window: self.windows.of(layer), ..self.rule };
        let attended = pass.attend(layer, (query, key, value), trunk.heads(), rule);
        let change = widen(weights.linear(attended, at(OUTPUT)));
        let stream = ops::add(stream, trunk.norm(weights, change, at(POST_ATTENTION_NORM)));

        let (stream, inner) = trunk.normed_linears(weights, stream, at(PRE_FEEDFORWARD_NORM), [at(GATE), at(UP)]);
        let change = widen(weights.gated_linear(Gate::GeluTanh, inner, at(DOWN)));
        ops::add(stream, trunk.norm(weights, change, at(POST_FEEDFORWARD_NORM))).into()
    }
}
