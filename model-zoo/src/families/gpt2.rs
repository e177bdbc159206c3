//! Owns the GPT-2 family; never touches files, optimizers or where parameters come from.

use std::sync::Arc;

use burn::tensor::{Int, Tensor};

use crate::config::Gpt2Config;
use crate::family::{BlockOutput, Family, Heads, Pass};
use crate::init::residual_std;
use crate::ops::{self, AttentionRule};
use crate::params::{Init, ParamSpec};
use crate::rotary::Rotation;
use crate::weights::{Weights, widen};

/// Places of the embeddings, and of the first block.
const TOKENS: usize = 0;
const POSITIONS: usize = 1;
const BLOCKS: usize = 2;

/// Places of a block's weights after its first; each one's bias follows it.
const ATTENTION_NORM: usize = 0;
const QUERY_KEY_VALUE: usize = 2;
const OUTPUT: usize = 4;
const FEED_FORWARD_NORM: usize = 6;
const UP: usize = 8;
const DOWN: usize = 10;
const PARAMS_PER_BLOCK: usize = 12;

/// A GPT-2: token and position embeddings, blocks of (LayerNorm, attention, LayerNorm, feed-forward with GELU) on a
/// residual stream, a final LayerNorm and a linear head, biases everywhere but in the head (Radford et al. 2019,
/// "Language models are unsupervised multitask learners").
///
/// Its projections are stored `[in, out]`, unlike those of every later family. Queries, keys and values come from one
/// projection. There is no dropout, in training either.
#[derive(Debug)]
pub(crate) struct Gpt2 {
    config: Gpt2Config,
    specs: Arc<[ParamSpec]>,
}

impl Gpt2 {
    /// The model of a valid configuration.
    pub(crate) fn new(config: Gpt2Config) -> Self {
        Self { specs: specs(&config), config }
    }

    fn last_norm(&self) -> usize {
        BLOCKS + self.config.n_layer * PARAMS_PER_BLOCK
    }

    /// Through the norm whose weight is `index`.
    fn norm(&self, weights: &Weights<'_>, x: Tensor<2>, index: usize) -> Tensor<2> {
        ops::layer_norm(x, weights.vector(index), weights.vector(index + 1), self.config.layer_norm_epsilon)
    }
}

/// Through the projection whose weight is `index`.
fn project(weights: &Weights<'_>, x: Tensor<2>, index: usize) -> Tensor<2> {
    ops::add_bias(weights.linear_in_out(x, index), weights.vector(index + 1))
}

impl Family for Gpt2 {
    fn specs(&self) -> Arc<[ParamSpec]> {
        Arc::clone(&self.specs)
    }

    fn num_blocks(&self) -> usize {
        self.config.n_layer
    }

    fn embedding_params(&self) -> Vec<usize> {
        vec![TOKENS, POSITIONS]
    }

    fn block_params(&self, layer: usize) -> Vec<usize> {
        let first = BLOCKS + layer * PARAMS_PER_BLOCK;
        (first..first + PARAMS_PER_BLOCK).collect()
    }

    fn head_params(&self) -> Vec<usize> {
        let norm = self.last_norm();
        vec![norm, norm + 1, if self.config.tie_word_embeddings { TOKENS } else { norm + 2 }]
    }

    fn stores_in_out(&self) -> bool {
        true
    }

    fn kv_width(&self) -> usize {
        self.config.n_embd
    }

    fn rotations(&self, _positions: &Tensor<1, Int>, _limit: usize) -> Vec<Rotation> {
        Vec::new()
    }

    fn embed(&self, weights: &Weights<'_>, tokens: Tensor<1, Int>, positions: Tensor<1, Int>) -> Tensor<2> {
        ops::add(weights.embedding(TOKENS, tokens), weights.embedding(POSITIONS, positions))
    }

    fn block(&self, weights: &Weights<'_>, layer: usize, stream: Tensor<2>, pass: &mut Pass<'_>) -> BlockOutput {
        let Gpt2Config { n_embd: width, n_head: heads, .. } = self.config;
        let first = BLOCKS + layer * PARAMS_PER_BLOCK;

        let [stream, input] = ops::branches(stream);
        let x = weights.narrow(self.norm(weights, input, first + ATTENTION_NORM));
        let projected = project(weights, x, first + QUERY_KEY_VALUE);
        let [query, key, value] = [0, 1, 2].map(|part| projected.clone().narrow(1, part * width, width));
        let heads = Heads { heads, kv_heads: heads, head_dim: width / heads };
        let rule = AttentionRule { scale: self.config.attention_scale(layer), window: None, softcap: None };
        let attended = pass.attend(layer, (query, key, value), heads, rule);
        let stream = ops::add(stream, widen(project(weights, attended, first + OUTPUT)));

        let [stream, input] = ops::branches(stream);
        let x = weights.narrow(self.norm(weights, input, first + FEED_FORWARD_NORM));
        let inner = ops::gelu_tanh(project(weights, x, first + UP));
        ops::add(stream, widen(project(weights, inner, first + DOWN))).into()
    }

    fn final_norm(&self, weights: &Weights<'_>, stream: Tensor<2>) -> Tensor<2> {
        self.norm(weights, stream, self.last_norm())
    }

    fn head_weight(&self, weights: &Weights<'_>) -> Tensor<2> {
        weights.matrix(if self.config.tie_word_embeddings { TOKENS } else { self.last_norm() + 2 })
    }

    fn position_limit(&self) -> Option<usize> {
        Some(self.config.n_positions)
    }
}

/// Names, shapes and first values of every parameter (names: transformers, modeling_gpt2.py).
fn specs(config: &Gpt2Config) -> Arc<[ParamSpec]> {
    let Gpt2Config { vocab_size, n_positions, n_embd: width, n_inner: inner, n_layer, .. } = *config;
    let std = config.initializer_range;
    let normal = Init::Normal { std };
    let residual = Init::Normal { std: residual_std(std, n_layer) };

    let mut specs = vec![
        ParamSpec::new("transformer.wte.weight".into(), vec![vocab_size, width], normal),
        ParamSpec::new("transformer.wpe.weight".into(), vec![n_positions, width], normal),
    ];
    let mut push = |part: String, shape: Vec<usize>, init| {
        let bias = vec![shape.last().copied().unwrap_or_default()];
        specs.push(ParamSpec::new(format!("transformer.{part}.weight"), shape, init));
        specs.push(ParamSpec::new(format!("transformer.{part}.bias"), bias, Init::Zeros));
    };
    for layer in 0..n_layer {
        push(format!("h.{layer}.ln_1"), vec![width], Init::Ones);
        push(format!("h.{layer}.attn.c_attn"), vec![width, 3 * width], normal);
        push(format!("h.{layer}.attn.c_proj"), vec![width, width], residual);
        push(format!("h.{layer}.ln_2"), vec![width], Init::Ones);
        push(format!("h.{layer}.mlp.c_fc"), vec![width, inner], normal);
        push(format!("h.{layer}.mlp.c_proj"), vec![inner, width], residual);
    }
    push("ln_f".into(), vec![width], Init::Ones);
    if !config.tie_word_embeddings {
        specs.push(ParamSpec::new("lm_head.weight".into(), vec![vocab_size, width], normal));
    }
    specs.into()
}
