//! Owns the closed set of models behind one interface, and the form of their inputs; never touches files
//! or optimizers.

use std::sync::Arc;

use burn::tensor::{Int, Tensor};
use serde::{Deserialize, Serialize};

use crate::backward::{self, Blocks, NoGradient};
use crate::config::{ConfigError, ModelConfig};
use crate::generate::KvCache;
use crate::llama::Llama;
use crate::params::{ParamSpec, Params};

/// Arithmetic of the forward and backward pass. Parameters, their gradients and the loss are f32 in both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Precision {
    /// Everything in f32.
    #[serde(rename = "fp32")]
    F32,
    /// Matrix products, attention and SwiGLU read and write bf16; weights are cast where they are used. The residual
    /// stream, embeddings, norms, rotations and the loss stay in f32.
    Bf16Mixed,
}

/// A batch of token rows on a device. Whoever makes one checks the values: an id without a row in the embedding or a
/// position above its column would make a backend panic or read beyond a table.
#[derive(Debug, Clone)]
pub struct Inputs {
    /// Token ids, `[batch, seq]`.
    pub tokens: Tensor<2, Int>,
    /// Positions inside each document, `[batch, seq]`; a position is never above its column.
    pub positions: Tensor<2, Int>,
    /// Document numbers inside each row, `[batch, seq]`; tokens attend only to their own document.
    pub segments: Tensor<2, Int>,
}

impl Inputs {
    /// `[batch, seq]`.
    #[must_use]
    pub fn dims(&self) -> [usize; 2] {
        self.tokens.dims()
    }
}

/// The closed set of models. A model holds no weights: every method takes the [`Params`] it computes with, which must
/// have been made from this model's [`Model::specs`].
#[derive(Debug)]
pub enum Model {
    /// Llama 2, 3 and look-alikes.
    Llama(Llama),
}

impl Model {
    /// The model of a configuration, computing in f32.
    ///
    /// # Errors
    /// [`ConfigError`] when the configuration breaks a rule of its family.
    pub fn new(config: &ModelConfig) -> Result<Self, ConfigError> {
        config.validate()?;
        match config {
            ModelConfig::Llama(config) => Ok(Self::Llama(Llama::new(config.clone()))),
        }
    }

    /// The same model computing in `precision`.
    #[must_use]
    pub fn with_precision(self, precision: Precision) -> Self {
        match self {
            Self::Llama(model) => Self::Llama(model.with_precision(precision)),
        }
    }

    /// The arithmetic in use.
    #[must_use]
    pub fn precision(&self) -> Precision {
        match self {
            Self::Llama(model) => model.precision(),
        }
    }

    /// What the model is made of.
    #[must_use]
    pub fn config(&self) -> ModelConfig {
        match self {
            Self::Llama(model) => ModelConfig::Llama(model.config().clone()),
        }
    }

    /// Rows of the embedding.
    #[must_use]
    pub fn vocab_size(&self) -> usize {
        match self {
            Self::Llama(model) => model.config().vocab_size,
        }
    }

    /// Its parameters in order, under their Hugging Face names.
    #[must_use]
    pub fn specs(&self) -> Arc<[ParamSpec]> {
        match self {
            Self::Llama(model) => model.specs(),
        }
    }

    /// Final hidden states after the last norm, `[batch * seq, hidden]`.
    #[must_use]
    pub fn hidden(&self, params: &Params, inputs: &Inputs) -> Tensor<2> {
        match self {
            Self::Llama(model) => model.hidden(params, inputs),
        }
    }

    /// The residual stream before each block, then the final hidden states: `num_hidden_layers + 1` tensors
    /// `[batch * seq, hidden]` (the convention of transformers' `output_hidden_states`).
    #[must_use]
    pub fn hidden_states(&self, params: &Params, inputs: &Inputs) -> Vec<Tensor<2>> {
        match self {
            Self::Llama(model) => model.hidden_states(params, inputs),
        }
    }

    /// Scores of every vocabulary entry as the next token, `[batch, seq, vocab]`, f32.
    #[must_use]
    pub fn logits(&self, params: &Params, inputs: &Inputs) -> Tensor<3> {
        let [batch, seq] = inputs.dims();
        let logits = self.head(params, self.hidden(params, inputs));
        let vocab = logits.dims()[1];
        logits.reshape([batch, seq, vocab])
    }

    /// Sum of the negative log-likelihoods of `targets` (`[batch, seq]`, < 0 = ignored), nats, `[1]`, f32.
    #[must_use]
    pub fn loss_sum(&self, params: &Params, inputs: &Inputs, targets: Tensor<2, Int>) -> Tensor<1> {
        match self {
            Self::Llama(model) => {
                let (stream, shared) = (model.embed(params, inputs), model.shared(inputs));
                let blocks = 0..model.num_blocks();
                let stream = blocks.fold(stream, |stream, layer| model.block(params, layer, stream, inputs, &shared));
                model.head_loss(params, stream, targets)
            }
        }
    }

    /// Forward and backward pass of one micro-batch: the loss of [`Model::loss_sum`], and one call of
    /// `done(index, gradient)` (flat, `[num_elements]`, f32) for every parameter as soon as its gradient is complete, in
    /// the order of [`Model::gradient_order`]. `params` and the gradients are plain, `inputs` and `targets` too.
    ///
    /// With `recompute` each block is computed a second time in the backward pass instead of being kept: the same bits
    /// for less memory.
    ///
    /// # Errors
    /// What `done` returns; [`NoGradient`] when the loss does not depend on a parameter.
    pub fn loss_and_gradients<E: From<NoGradient>>(
        &self,
        params: &Params,
        inputs: &Inputs,
        targets: Tensor<2, Int>,
        recompute: bool,
        done: &mut dyn FnMut(usize, Tensor<1>) -> Result<(), E>,
    ) -> Result<f64, E> {
        match self {
            Self::Llama(model) => backward::loss_and_gradients(model, params, inputs, targets, recompute, done),
        }
    }

    /// All parameters, in the order in which [`Model::loss_and_gradients`] completes their gradients.
    #[must_use]
    pub fn gradient_order(&self) -> Vec<usize> {
        match self {
            Self::Llama(model) => backward::gradient_order(model),
        }
    }

    /// Negative log-likelihood of each target, nats, `[batch, seq]`, f32; 0 where `targets` is < 0. Meant for
    /// evaluation: no gradient passes through it.
    #[must_use]
    pub fn token_losses(&self, params: &Params, inputs: &Inputs, targets: Tensor<2, Int>) -> Tensor<2> {
        match self {
            Self::Llama(model) => model.token_losses(params, inputs, targets),
        }
    }

    /// Scores of every vocabulary entry from final hidden states, `[n, hidden]` -> `[n, vocab]`, f32.
    #[must_use]
    pub fn head(&self, params: &Params, hidden: Tensor<2>) -> Tensor<2> {
        match self {
            Self::Llama(model) => model.head(params, hidden),
        }
    }

    /// Final hidden states `[new, hidden]` of `tokens` (`[new]`), which continue the one document in `cache`. The
    /// cache must have room for them.
    #[must_use]
    pub fn decode(&self, params: &Params, tokens: Tensor<1, Int>, cache: &mut KvCache) -> Tensor<2> {
        match self {
            Self::Llama(model) => model.decode(params, tokens, cache),
        }
    }
}
