//! Owns the Mistral family; never touches files, optimizers or where parameters come from.

use burn::tensor::Tensor;

use super::decoder::{BlockSpecs, Decoder, NormScale, Trunk};
use crate::config::MistralConfig;
use crate::family::{BlockOutput, Pass};
use crate::ops::{self, AttentionRule};
use crate::params::ParamSpec;
use crate::weights::{Weights, widen};

/// Places of a block's parameters.
const INPUT_NORM: usize = 0;
const QUERY: usize = 1;
const KEY: usize = 2;
const VALUE: usize = 3;
const OUTPUT: usize = 4;
const POST_ATTENTION_NORM: usize = 5;
const GATE: usize = 6;
const UP: usize = 7;
const DOWN: usize = 8;

/// A Mistral: the blocks of a Llama, with attention to a window of earlier tokens in version 0.1 and without since 0.2
/// (A. Q. Jiang et al. 2023, arXiv:2310.06825).
#[derive(Debug)]
pub(crate) struct Mistral {
    trunk: Trunk,
    rule: AttentionRule,
}

impl Mistral {
    /// The model of a valid configuration.
    pub(crate) fn new(config: MistralConfig) -> Self {
        let MistralConfig { decoder, sliding_window: window } = config;
        let (rope, rule) = (decoder.rope, AttentionRule { window, ..AttentionRule::plain(decoder.head_dim) });
        Self { trunk: Trunk::new(decoder, &[rope], NormScale::Weight, block_specs), rule }
    }
}

/// Names, shapes and first values of a block's parameters (names: transformers, modeling_mistral.py).
fn block_specs(s: &BlockSpecs) -> Vec<ParamSpec> {
    vec![
        s.norm("input_layernorm", s.hidden),
        s.linear("self_attn.q_proj", s.query, s.hidden),
        s.linear("self_attn.k_proj", s.key_value, s.hidden),
        s.linear("self_attn.v_proj", s.key_value, s.hidden),
        s.residual("self_attn.o_proj", s.query),
        s.norm("post_attention_layernorm", s.hidden),
        s.linear("mlp.gate_proj", s.inner, s.hidden),
        s.linear("mlp.up_proj", s.inner, s.hidden),
        s.residual("mlp.down_proj", s.inner),
    ]
}

impl Decoder for Mistral {
    fn trunk(&self) -> &Trunk {
        &self.trunk
    }

    fn block(&self, weights: &Weights<'_>, layer: usize, stream: Tensor<2>, pass: &mut Pass<'_>) -> BlockOutput {
        let trunk = &self.trunk;
        let at = |place| trunk.at(layer, place);

        let x = weights.narrow(trunk.norm(weights, stream.clone(), at(INPUT_NORM)));
        let query = trunk.rotate(weights, weights.linear(x.clone(), at(QUERY)), &pass.rotations[0]);
        let key = trunk.rotate(weights, weights.linear(x.clone(), at(KEY)), &pass.rotations[0]);
        let value = weights.linear(x, at(VALUE));
        let attended = pass.attend(layer, (query, key, value), trunk.heads(), self.rule);
        let stream = ops::add(stream, widen(weights.linear(attended, at(OUTPUT))));

        let x = weights.narrow(trunk.norm(weights, stream.clone(), at(POST_ATTENTION_NORM)));
        let inner = ops::swiglu(weights.linear(x.clone(), at(GATE)), weights.linear(x, at(UP)));
        ops::add(stream, widen(weights.linear(inner, at(DOWN)))).into()
    }
}
