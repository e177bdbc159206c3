//! Owns the passes over a whole model of any family, and the form of their inputs; never touches files or optimizers.

use std::sync::Arc;

use burn::tensor::{Int, Tensor};
use serde::{Deserialize, Serialize};

use crate::adapter::Adapted;
use crate::backward::Recompute;
use crate::backward::{self, NoGradient};
use crate::balance::Load;
use crate::config::{ConfigError, ModelConfig};
use crate::families;
use crate::family::{Attend, BlockOutput, Family, Pass};
use crate::generate::KvCache;
use crate::goal::{Goal, Parts};
use crate::ops;
use crate::params::{ParamSpec, Params};
use crate::weights::{Weights, widen};

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

/// A model of one of the families of [`ModelConfig`]. It holds no trained weights: every method takes the [`Params`] it
/// computes with, which must have been made from this model's [`Model::specs`].
///
/// An adapted model ([`Model::with_adapter`]) also holds the frozen weights that its parameters correct; clones share
/// them.
#[derive(Debug, Clone)]
pub struct Model {
    config: ModelConfig,
    family: Arc<dyn Family>,
    precision: Precision,
    router_aux_loss_coef: f64,
    adapted: Option<Adapted>,
}

impl Model {
    /// The model of a configuration, computing in f32.
    ///
    /// # Errors
    /// [`ConfigError`] when the configuration breaks a rule of its family.
    pub fn new(config: &ModelConfig) -> Result<Self, ConfigError> {
        config.validate()?;
        Ok(Self {
            config: config.clone(),
            family: families::build(config.clone()),
            precision: Precision::F32,
            router_aux_loss_coef: config.router_aux_loss_coef().unwrap_or_default(),
            adapted: None,
        })
    }

    /// The same model computing in `precision`.
    #[must_use]
    pub fn with_precision(self, precision: Precision) -> Self {
        Self { precision, ..self }
    }

    /// The same model, whose training adds `coefficient` times the load-balancing loss of its experts, as transformers
    /// defines it for Mixtral, taken over a micro-batch; 0 leaves it out. A model without experts has no such loss.
    /// Until this is called, `config.json` decides: [`ModelConfig::router_aux_loss_coef`].
    #[must_use]
    pub fn with_router_aux_loss_coef(self, coefficient: f64) -> Self {
        Self { router_aux_loss_coef: coefficient, ..self }
    }

    pub(crate) fn router_aux_loss_coef(&self) -> f64 {
        self.router_aux_loss_coef
    }

    /// Positions that the model has parameters for; `None` = any position is possible. Inputs beyond them must be
    /// refused before they get here.
    #[must_use]
    pub fn position_limit(&self) -> Option<usize> {
        self.family.position_limit()
    }

    /// The arithmetic in use.
    #[must_use]
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// What the model is made of.
    #[must_use]
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Rows of the embedding.
    #[must_use]
    pub fn vocab_size(&self) -> usize {
        self.config.vocab_size()
    }

    /// Its parameters in order, under their Hugging Face names; of an adapted model those that are trained, under PEFT's.
    #[must_use]
    pub fn specs(&self) -> Arc<[ParamSpec]> {
        self.adapted.as_ref().map_or_else(|| self.family.specs(), |adapted| Arc::clone(&adapted.layout.specs))
    }

    pub(crate) fn adapted(&self) -> Option<&Adapted> {
        self.adapted.as_ref()
    }

    pub(crate) fn adapted_to(self, adapted: Option<Adapted>) -> Self {
        Self { adapted, ..self }
    }

    pub(crate) fn family(&self) -> &dyn Family {
        self.family.as_ref()
    }

    pub(crate) fn weights<'a>(&'a self, params: &'a Params) -> Weights<'a> {
        Weights::new(params, self.precision, self.adapted.as_ref())
    }

    /// A pass over rows.
    pub(crate) fn pass<'a>(&self, inputs: &'a Inputs) -> Pass<'a> {
        let [_, seq] = inputs.dims();
        let rotations = self.family.rotations(&inputs.positions.clone().flatten(0, 1), seq);
        Pass { rotations, attend: Attend::Rows(inputs) }
    }

    /// The stream before the first block.
    pub(crate) fn embed(&self, params: &Params, inputs: &Inputs) -> Tensor<2> {
        let Inputs { tokens, positions, .. } = inputs.clone();
        self.family.embed(&self.weights(params), tokens.flatten(0, 1), positions.flatten(0, 1))
    }

    /// Final hidden states after the last norm, `[batch * seq, hidden]`.
    #[must_use]
    pub fn hidden(&self, params: &Params, inputs: &Inputs) -> Tensor<2> {
        let weights = self.weights(params);
        let mut pass = self.pass(inputs);
        let stream = (0..self.family.num_blocks()).fold(self.embed(params, inputs), |stream, layer| {
            self.family.block(&weights, layer, stream, &mut pass).stream
        });
        self.family.final_norm(&weights, stream)
    }

    /// The residual stream before each block, then the final hidden states: `num_hidden_layers + 1` tensors
    /// `[batch * seq, hidden]` (the convention of transformers' `output_hidden_states`).
    #[must_use]
    pub fn hidden_states(&self, params: &Params, inputs: &Inputs) -> Vec<Tensor<2>> {
        let weights = self.weights(params);
        let mut pass = self.pass(inputs);
        let mut stream = self.embed(params, inputs);
        let mut states = Vec::with_capacity(self.family.num_blocks() + 1);
        for layer in 0..self.family.num_blocks() {
            states.push(stream.clone());
            stream = self.family.block(&weights, layer, stream, &mut pass).stream;
        }
        states.push(self.family.final_norm(&weights, stream));
        states
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
        let weights = self.weights(params);
        let mut pass = self.pass(inputs);
        let stream = (0..self.family.num_blocks()).fold(self.embed(params, inputs), |stream, layer| {
            self.family.block(&weights, layer, stream, &mut pass).stream
        });
        self.head_loss(params, stream, targets)
    }

    /// The load-balancing loss of the experts, `[1]`, without its coefficient; `None` without experts.
    #[must_use]
    pub fn balance_loss(&self, params: &Params, inputs: &Inputs) -> Option<Tensor<1>> {
        let (weights, mut pass) = (self.weights(params), self.pass(inputs));
        let (mut stream, mut load, mut routings) = (self.embed(params, inputs), Load::default(), Vec::new());
        for layer in 0..self.family.num_blocks() {
            let BlockOutput { stream: next, routing } = self.family.block(&weights, layer, stream, &mut pass);
            stream = next;
            routings.extend(routing.inspect(|routing| load.add(routing)));
        }
        let num_tokens = inputs.dims().iter().product();
        routings.into_iter().map(|routing| load.loss(routing, num_tokens)).reduce(|a, b| a + b)
    }

    /// Sum of the losses of `targets` (`[batch, seq]`, < 0 = ignored) from the last stream, `[1]`.
    pub(crate) fn head_loss(&self, params: &Params, stream: Tensor<2>, targets: Tensor<2, Int>) -> Tensor<1> {
        let weights = self.weights(params);
        let hidden = weights.narrow(self.family.final_norm(&weights, stream));
        let head = weights.narrow(self.family.head_weight(&weights));
        ops::linear_cross_entropy(hidden, head, targets.flatten(0, 1), self.family.logit_softcap())
    }

    /// Forward and backward pass of one micro-batch: the loss of [`Model::loss_sum`], and one call of
    /// `done(index, gradient)` (flat, `[num_elements]`, f32) for every parameter as soon as its gradient is complete, in
    /// the order of [`Model::gradient_order`]. `params` and the gradients are plain, `inputs` and `targets` too.
    ///
    /// Blocks that `recompute` covers are computed a second time in the backward pass instead of being kept: the same bits
    /// for less memory.
    ///
    /// # Errors
    /// What `done` returns; [`NoGradient`] when the loss does not depend on a parameter.
    pub fn loss_and_gradients<E: From<NoGradient>>(
        &self,
        params: &Params,
        inputs: &Inputs,
        targets: Tensor<2, Int>,
        recompute: Recompute,
        done: &mut dyn FnMut(usize, Tensor<1>) -> Result<(), E>,
    ) -> Result<f64, E> {
        backward::loss_and_gradients(self, params, inputs, Goal::Sum(Box::new(targets)), recompute, done)
    }

    /// The same for a function of the losses of several sets of targets, whose value is returned.
    ///
    /// # Errors
    /// As [`Model::loss_and_gradients`].
    pub fn weighed_loss_and_gradients<E: From<NoGradient>>(
        &self,
        params: &Params,
        inputs: &Inputs,
        parts: Parts<'_>,
        recompute: Recompute,
        done: &mut dyn FnMut(usize, Tensor<1>) -> Result<(), E>,
    ) -> Result<f64, E> {
        backward::loss_and_gradients(self, params, inputs, Goal::Parts(parts), recompute, done)
    }

    /// The losses of several sets of `targets`, nats: what [`Model::weighed_loss_and_gradients`] weighs, to the bit.
    #[must_use]
    pub fn part_losses(&self, params: &Params, inputs: &Inputs, targets: Vec<Tensor<2, Int>>) -> Vec<f64> {
        let weights = self.weights(params);
        let mut pass = self.pass(inputs);
        let stream = (0..self.family.num_blocks()).fold(self.embed(params, inputs), |stream, layer| {
            self.family.block(&weights, layer, stream, &mut pass).stream
        });
        let loss = |targets| f64::from(self.head_loss(params, stream.clone(), targets).into_scalar::<f32>());
        targets.into_iter().map(loss).collect()
    }

    /// All parameters, in the order in which [`Model::loss_and_gradients`] completes their gradients.
    #[must_use]
    pub fn gradient_order(&self) -> Vec<usize> {
        backward::gradient_order(self)
    }

    /// Negative log-likelihood of each target, nats, `[batch, seq]`, f32; 0 where `targets` is < 0. Meant for
    /// evaluation: no gradient passes through it.
    #[must_use]
    pub fn token_losses(&self, params: &Params, inputs: &Inputs, targets: Tensor<2, Int>) -> Tensor<2> {
        let (weights, dims) = (self.weights(params), targets.dims());
        let hidden = weights.narrow(self.hidden(params, inputs));
        let head = weights.narrow(self.family.head_weight(&weights));
        ops::linear_cross_entropy_tokens(hidden, head, targets.flatten(0, 1), self.family.logit_softcap()).reshape(dims)
    }

    /// Scores of every vocabulary entry from final hidden states, `[n, hidden]` -> `[n, vocab]`, f32.
    #[must_use]
    pub fn head(&self, params: &Params, hidden: Tensor<2>) -> Tensor<2> {
        let weights = self.weights(params);
        let logits = widen(ops::linear(weights.narrow(hidden), weights.narrow(self.family.head_weight(&weights))));
        ops::softcap(logits, self.family.logit_softcap())
    }

    /// Final hidden states `[new, hidden]` of `tokens` (`[new]`), which continue the one document in `cache`. The
    /// cache must have room for them.
    #[must_use]
    pub fn decode(&self, params: &Params, tokens: Tensor<1, Int>, cache: &mut KvCache) -> Tensor<2> {
        let (past, new) = (cache.len(), tokens.dims()[0]);
        let positions = Tensor::arange(past as i64..(past + new) as i64, &tokens.device());
        let weights = self.weights(params);
        let rotations = self.family.rotations(&positions, past + new);
        let mut stream = self.family.embed(&weights, tokens, positions);
        let mut pass = Pass { rotations, attend: Attend::Cache(cache) };
        for layer in 0..self.family.num_blocks() {
            stream = self.family.block(&weights, layer, stream, &mut pass).stream;
        }
        cache.advance(new);
        self.family.final_norm(&weights, stream)
    }
}
