//! Owns the Llama forward pass; never touches files, optimizers or where parameters come from.

use std::sync::Arc;

use burn::tensor::{DType, Int, Tensor};

use crate::backward::Blocks;
use crate::config::LlamaConfig;
use crate::generate::KvCache;
use crate::init::residual_std;
use crate::model::{Inputs, Precision};
use crate::ops::{self, AttentionShape};
use crate::params::{Init, ParamSpec, Params};
use crate::rotary::{RotaryTable, Rotation};

/// Parameters of one block, in the order of [`Block`].
const PARAMS_PER_BLOCK: usize = 9;

/// A Llama: token embedding, blocks of (RMSNorm, grouped-query attention with rotary positions, RMSNorm, SwiGLU) on a
/// residual stream, a final RMSNorm and a linear head (Touvron et al. 2023, arXiv:2302.13971; grouped-query attention
/// as in Llama 2, arXiv:2307.09288).
///
/// Activations are two-dimensional, `[batch * seq, width]`. Under [`Precision::Bf16Mixed`] the residual stream stays
/// in f32: each norm reads it, takes its statistic and scales in f32, and only its output is cast to bf16 for the
/// matrix products; a block's output is cast back to f32 before it is added. Queries and keys are rotated in f32.
#[derive(Debug)]
pub struct Llama {
    config: LlamaConfig,
    specs: Arc<[ParamSpec]>,
    precision: Precision,
    rotary: RotaryTable,
}

/// The weights of one block, in the shapes the ops take.
struct Block {
    input_norm: Tensor<1>,
    query: Tensor<2>,
    key: Tensor<2>,
    value: Tensor<2>,
    output: Tensor<2>,
    post_attention_norm: Tensor<1>,
    gate: Tensor<2>,
    up: Tensor<2>,
    down: Tensor<2>,
}

impl Llama {
    /// The model of a valid configuration, computing in f32.
    #[must_use]
    pub fn new(config: LlamaConfig) -> Self {
        let rotary = RotaryTable::new(&config.rope, config.head_dim);
        Self { specs: specs(&config), rotary, config, precision: Precision::F32 }
    }

    /// The same model computing in `precision`.
    #[must_use]
    pub fn with_precision(self, precision: Precision) -> Self {
        Self { precision, ..self }
    }

    /// The arithmetic in use.
    #[must_use]
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// What the model is made of.
    #[must_use]
    pub fn config(&self) -> &LlamaConfig {
        &self.config
    }

    /// Parameters in order: embedding, blocks, final norm, head (unless tied).
    #[must_use]
    pub fn specs(&self) -> Arc<[ParamSpec]> {
        Arc::clone(&self.specs)
    }

    /// Final hidden states `[batch * seq, hidden]`.
    #[must_use]
    pub fn hidden(&self, params: &Params, inputs: &Inputs) -> Tensor<2> {
        let rotation = self.rotation(inputs);
        let embedded = self.embed(params, inputs);
        let stream = (0..self.config.num_hidden_layers)
            .fold(embedded, |stream, layer| self.block(params, layer, stream, inputs, &rotation));
        self.final_norm(params, stream)
    }

    /// The residual stream before each block, then the final hidden states.
    #[must_use]
    pub fn hidden_states(&self, params: &Params, inputs: &Inputs) -> Vec<Tensor<2>> {
        let rotation = self.rotation(inputs);
        let mut stream = self.embed(params, inputs);
        let mut states = Vec::with_capacity(self.config.num_hidden_layers + 1);
        for layer in 0..self.config.num_hidden_layers {
            states.push(stream.clone());
            stream = self.block(params, layer, stream, inputs, &rotation);
        }
        states.push(self.final_norm(params, stream));
        states
    }

    /// Negative log-likelihood of each target, `[batch, seq]`; 0 where ignored. No gradient passes through it.
    #[must_use]
    pub fn token_losses(&self, params: &Params, inputs: &Inputs, targets: Tensor<2, Int>) -> Tensor<2> {
        let dims = targets.dims();
        let hidden = self.narrow(self.hidden(params, inputs));
        let weight = self.narrow(self.head_weight(params));
        ops::linear_cross_entropy_tokens(hidden, weight, targets.flatten(0, 1)).reshape(dims)
    }

    /// Scores of every vocabulary entry, `[n, hidden]` -> `[n, vocab]`, f32.
    #[must_use]
    pub fn head(&self, params: &Params, hidden: Tensor<2>) -> Tensor<2> {
        widen(ops::linear(self.narrow(hidden), self.narrow(self.head_weight(params))))
    }

    /// Final hidden states of tokens that continue the document in `cache`, `[new]` -> `[new, hidden]`.
    #[must_use]
    pub fn decode(&self, params: &Params, tokens: Tensor<1, Int>, cache: &mut KvCache) -> Tensor<2> {
        let new = tokens.dims()[0];
        let past = cache.len();
        let positions = Tensor::arange(past as i64..(past + new) as i64, &tokens.device());
        let rotation = self.rotary.rotation(positions, past + new);
        let mut stream = ops::embedding(params.matrix(0), tokens);
        for layer in 0..self.config.num_hidden_layers {
            stream = self.block_around(params, layer, stream, &rotation, |query, key, value| {
                cache.attend(layer, query, key, value, &self.attention_shape(1, new), self.attention_scale())
            });
        }
        cache.advance(new);
        self.final_norm(params, stream)
    }

    /// One block around any attention: `attend(query, key, value)` takes rotated `[n, heads * head_dim]` queries and
    /// `[n, kv_heads * head_dim]` keys and values and gives `[n, heads * head_dim]`.
    fn block_around(
        &self,
        params: &Params,
        layer: usize,
        stream: Tensor<2>,
        rotation: &Rotation,
        attend: impl FnOnce(Tensor<2>, Tensor<2>, Tensor<2>) -> Tensor<2>,
    ) -> Tensor<2> {
        let LlamaConfig { num_attention_heads, num_key_value_heads, rms_norm_eps, .. } = self.config;
        let weights = self.weights(params, layer);

        let x = self.narrow(ops::rms_norm(stream.clone(), weights.input_norm, rms_norm_eps));
        let query = self.rotate(ops::linear(x.clone(), weights.query), rotation, num_attention_heads);
        let key = self.rotate(ops::linear(x.clone(), weights.key), rotation, num_key_value_heads);
        let value = ops::linear(x, weights.value);
        let stream = ops::add(stream, widen(ops::linear(attend(query, key, value), weights.output)));

        let x = self.narrow(ops::rms_norm(stream.clone(), weights.post_attention_norm, rms_norm_eps));
        let inner = ops::swiglu(ops::linear(x.clone(), weights.gate), ops::linear(x, weights.up));
        ops::add(stream, widen(ops::linear(inner, weights.down)))
    }

    fn weights(&self, params: &Params, layer: usize) -> Block {
        let first = 1 + layer * PARAMS_PER_BLOCK;
        let matrix = |offset| self.narrow(params.matrix(first + offset));
        Block {
            input_norm: params.vector(first),
            query: matrix(1),
            key: matrix(2),
            value: matrix(3),
            output: matrix(4),
            post_attention_norm: params.vector(first + 5),
            gate: matrix(6),
            up: matrix(7),
            down: matrix(8),
        }
    }

    fn final_norm(&self, params: &Params, stream: Tensor<2>) -> Tensor<2> {
        let index = 1 + self.config.num_hidden_layers * PARAMS_PER_BLOCK;
        ops::rms_norm(stream, params.vector(index), self.config.rms_norm_eps)
    }

    fn head_weight(&self, params: &Params) -> Tensor<2> {
        let untied = 2 + self.config.num_hidden_layers * PARAMS_PER_BLOCK;
        params.matrix(if self.config.tie_word_embeddings { 0 } else { untied })
    }

    fn rotation(&self, inputs: &Inputs) -> Rotation {
        let [_, seq] = inputs.dims();
        self.rotary.rotation(inputs.positions.clone().flatten(0, 1), seq)
    }

    fn rotate(&self, x: Tensor<2>, rotation: &Rotation, heads: usize) -> Tensor<2> {
        self.narrow(ops::rope(widen(x), rotation.cos.clone(), rotation.sin.clone(), heads))
    }

    fn attention_shape(&self, batch: usize, seq: usize) -> AttentionShape {
        AttentionShape {
            batch,
            seq,
            heads: self.config.num_attention_heads,
            kv_heads: self.config.num_key_value_heads,
            head_dim: self.config.head_dim,
        }
    }

    fn attention_scale(&self) -> f64 {
        1.0 / (self.config.head_dim as f64).sqrt()
    }

    /// To the number format of matrix products.
    fn narrow(&self, x: Tensor<2>) -> Tensor<2> {
        match self.precision {
            Precision::F32 => x,
            Precision::Bf16Mixed => x.cast(DType::BF16),
        }
    }
}

impl Blocks for Llama {
    type Shared = Rotation;

    fn shared(&self, inputs: &Inputs) -> Rotation {
        self.rotation(inputs)
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

    fn embed(&self, params: &Params, inputs: &Inputs) -> Tensor<2> {
        ops::embedding(params.matrix(0), inputs.tokens.clone().flatten(0, 1))
    }

    fn block(
        &self,
        params: &Params,
        layer: usize,
        stream: Tensor<2>,
        inputs: &Inputs,
        rotation: &Rotation,
    ) -> Tensor<2> {
        let [batch, seq] = inputs.dims();
        let shape = self.attention_shape(batch, seq);
        self.block_around(params, layer, stream, rotation, |query, key, value| {
            ops::attention(query, key, value, inputs.segments.clone(), shape, self.attention_scale())
        })
    }

    fn head_loss(&self, params: &Params, stream: Tensor<2>, targets: Tensor<2, Int>) -> Tensor<1> {
        let hidden = self.narrow(self.final_norm(params, stream));
        ops::linear_cross_entropy(hidden, self.narrow(self.head_weight(params)), targets.flatten(0, 1))
    }
}

/// To the number format of the residual stream.
fn widen(x: Tensor<2>) -> Tensor<2> {
    if x.dtype() == DType::F32 { x } else { x.cast(DType::F32) }
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
