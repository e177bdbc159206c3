//! Owns the Llama family; never touches files, optimizers or where parameters come from.

use std::sync::Arc;

use burn::tensor::{Int, Tensor};

use crate::config::LlamaConfig;
use crate::family::{BlockOutput, Family, Heads, Pass};
use crate::init::residual_std;
use crate::ops::{self, AttentionRule};
use crate::params::{Init, ParamSpec};
use crate::rotary::{RotaryTable, Rotation};
use crate::weights::{Weights, widen};

/// Places of a block's parameters after its first.
const INPUT_NORM: usize = 0;
const QUERY: usize = 1;
const KEY: usize = 2;
const VALUE: usize = 3;
const OUTPUT: usize = 4;
const POST_ATTENTION_NORM: usize = 5;
const GATE: usize = 6;
const UP: usize = 7;
const DOWN: usize = 8;
const PARAMS_PER_BLOCK: usize = 9;

/// A Llama: token embedding, blocks of (RMSNorm, grouped-query attention with rotary positions, RMSNorm, SwiGLU) on a
/// residual stream, a final RMSNorm and a linear head (Touvron et al. 2023, arXiv:2302.13971; grouped-query attention
/// as in Llama 2, arXiv:2307.09288).
#[derive(Debug)]
pub(crate) struct Llama {
    config: LlamaConfig,
    specs: Arc<[ParamSpec]>,
    rotary: RotaryTable,
}

impl Llama {
    /// The model of a valid configuration.
    pub(crate) fn new(config: LlamaConfig) -> Self {
        let rotary = RotaryTable::new(&config.rope, config.head_dim);
        Self { specs: specs(&config), rotary, config }
    }

    fn norm(&self, weights: &Weights<'_>, x: Tensor<2>, index: usize) -> Tensor<2> {
        ops::rms_norm(x, weights.vector(index), self.config.rms_norm_eps)
    }
}

impl Family for Llama {
    fn specs(&self) -> Arc<[ParamSpec]> {
        Arc::clone(&self.specs)
    }

    fn num_blocks(&self) -> usize {
        self.config.num_hidden_layers
    }

    fn embedding_params(&self) -> Vec<usize> {
        vec![0]
    }

    fn block_params(&self, layer: usize) -> Vec<usize> {
        let first = 1 + layer * PARAMS_PER_BLOCK;
        (first..first + PARAMS_PER_BLOCK).collect()
    }

    fn head_params(&self) -> Vec<usize> {
        let norm = 1 + self.config.num_hidden_layers * PARAMS_PER_BLOCK;
        vec![norm, if self.config.tie_word_embeddings { 0 } else { norm + 1 }]
    }

    fn kv_width(&self) -> usize {
        self.config.num_key_value_heads * self.config.head_dim
    }

    fn rotations(&self, positions: &Tensor<1, Int>, limit: usize) -> Vec<Rotation> {
        vec![self.rotary.rotation(positions.clone(), limit)]
    }

    fn embed(&self, weights: &Weights<'_>, tokens: Tensor<1, Int>, _positions: Tensor<1, Int>) -> Tensor<2> {
        weights.embedding(0, tokens)
    }

    fn block(&self, weights: &Weights<'_>, layer: usize, stream: Tensor<2>, pass: &mut Pass<'_>) -> BlockOutput {
        let LlamaConfig { num_attention_heads: heads, num_key_value_heads: kv_heads, head_dim, .. } = self.config;
        let first = 1 + layer * PARAMS_PER_BLOCK;
        let rotate = |x, heads| {
            let Rotation { cos, sin } = pass.rotations[0].clone();
            weights.narrow(ops::rope(widen(x), cos, sin, heads))
        };

        let x = weights.narrow(self.norm(weights, stream.clone(), first + INPUT_NORM));
        let query = rotate(weights.linear(x.clone(), first + QUERY), heads);
        let key = rotate(weights.linear(x.clone(), first + KEY), kv_heads);
        let value = weights.linear(x, first + VALUE);
        let rule = AttentionRule::plain(head_dim);
        let attended = pass.attend(layer, (query, key, value), Heads { heads, kv_heads, head_dim }, rule);
        let stream = ops::add(stream, widen(weights.linear(attended, first + OUTPUT)));

        let x = weights.narrow(self.norm(weights, stream.clone(), first + POST_ATTENTION_NORM));
        let inner = ops::swiglu(weights.linear(x.clone(), first + GATE), weights.linear(x, first + UP));
        ops::add(stream, widen(weights.linear(inner, first + DOWN))).into()
    }

    fn final_norm(&self, weights: &Weights<'_>, stream: Tensor<2>) -> Tensor<2> {
        self.norm(weights, stream, 1 + self.config.num_hidden_layers * PARAMS_PER_BLOCK)
    }

    fn head_weight(&self, weights: &Weights<'_>) -> Tensor<2> {
        let untied = 2 + self.config.num_hidden_layers * PARAMS_PER_BLOCK;
        weights.matrix(if self.config.tie_word_embeddings { 0 } else { untied })
    }
}

/// Names, shapes and first values of every parameter (names: transformers, modeling_llama.py).
fn specs(config: &LlamaConfig) -> Arc<[ParamSpec]> {
    let LlamaConfig { vocab_size, hidden_size, intermediate_size, num_hidden_layers, head_dim, .. } = *config;
    let (query_size, kv_size) = (config.num_attention_heads * head_dim, config.num_key_value_heads * head_dim);
    let std = config.initializer_range;
    let normal = Init::Normal { std };
    let residual = Init::Normal { std: residual_std(std, num_hidden_layers) };

    let mut specs = vec![ParamSpec::new("model.embed_tokens.weight".into(), vec![vocab_size, hidden_size], normal)];
    for layer in 0..num_hidden_layers {
        let mut push = |part: &str, shape: Vec<usize>, init| {
            specs.push(ParamSpec::new(format!("model.layers.{layer}.{part}.weight"), shape, init));
        };
        push("input_layernorm", vec![hidden_size], Init::Ones);
        push("self_attn.q_proj", vec![query_size, hidden_size], normal);
        push("self_attn.k_proj", vec![kv_size, hidden_size], normal);
        push("self_attn.v_proj", vec![kv_size, hidden_size], normal);
        push("self_attn.o_proj", vec![hidden_size, query_size], residual);
        push("post_attention_layernorm", vec![hidden_size], Init::Ones);
        push("mlp.gate_proj", vec![intermediate_size, hidden_size], normal);
        push("mlp.up_proj", vec![intermediate_size, hidden_size], normal);
        push("mlp.down_proj", vec![hidden_size, intermediate_size], residual);
    }
    specs.push(ParamSpec::new("model.norm.weight".into(), vec![hidden_size], Init::Ones));
    if !config.tie_word_embeddings {
        specs.push(ParamSpec::new("lm_head.weight".into(), vec![vocab_size, hidden_size], normal));
    }
    specs.into()
}
