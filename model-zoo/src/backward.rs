//! Owns the training pass of a model, one block at a time; never touches optimizers, sums of micro-batches or files.
//!
//! The autodiff graph of a block begins and ends with the block: its input is a leaf, and that leaf's gradient starts
//! the backward pass of the block before. So the gradients of a block are complete, and handed out, before the pass
//! turns to the next one: they can travel while the rest is computed, and what a block kept for its backward pass is
//! freed as soon as it was used (`docs/adr/0007-backward-block-by-block.md`).

use burn::tensor::{Gradients, Int, Tensor};
use thiserror::Error;

use crate::balance::Load;
use crate::family::{BlockOutput, Pass};
use crate::goal::{Goal, HeadPass};
use crate::model::{Inputs, Model};
use crate::ops;
use crate::params::Params;

/// Which blocks keep only their inputs, and are computed once more when their turn comes in the backward pass (Chen et al.
/// 2016, arXiv:1604.06174). The bits are the same.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Recompute {
    /// None.
    #[default]
    Nothing,
    /// The first, the third and so on: half of the memory for half of the time.
    EveryOther,
    /// All.
    Everything,
}

impl Recompute {
    /// Whether block `layer` is computed twice.
    #[must_use]
    pub fn covers(self, layer: usize) -> bool {
        match self {
            Self::Nothing => false,
            Self::EveryOther => layer.is_multiple_of(2),
            Self::Everything => true,
        }
    }
}

/// A parameter took no part in the loss.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("parameter `{name}` received no gradient; this is a defect of the model's forward pass, please report it")]
pub struct NoGradient {
    /// Hugging Face name of the parameter.
    pub name: String,
}

/// Parameters in the order in which [`loss_and_gradients`] completes their gradients.
pub(crate) fn gradient_order(model: &Model) -> Vec<usize> {
    let family = model.family();
    let embedding = model.trained(&family.embedding_params());
    let head = model.trained(&family.head_params()).into_iter().filter(|index| !embedding.contains(index));
    let blocks = (0..family.num_blocks()).rev().flat_map(|layer| model.trained(&family.block_params(layer)));
    head.chain(blocks).chain(embedding.iter().copied()).collect()
}

/// Forward and backward pass of one micro-batch: the loss sum, and for every parameter one call of
/// `done(index, gradient)` (flat, `[num_elements]`) as soon as the gradient is complete, in [`gradient_order`].
///
/// Below the lowest block with something to train nothing is kept and no backward pass is made.
///
/// The load-balancing loss of experts ([`crate::balance`]), where it is trained, is no part of the loss sum that is
/// returned. Its gradients are: a mean over tokens, it is weighted with the number of valid targets, because everything
/// else here is a sum over targets.
pub(crate) fn loss_and_gradients<E: From<NoGradient>>(
    model: &Model,
    params: &Params,
    inputs: &Inputs,
    goal: Goal<'_>,
    recompute: Recompute,
    done: &mut dyn FnMut(usize, Tensor<1>) -> Result<(), E>,
) -> Result<f64, E> {
    let (family, num_tokens) = (model.family(), inputs.dims().iter().product());
    let balance_weight = balance_weight(model, &goal);
    let mut pass = model.pass(inputs);
    let of_block = |layer: usize| model.trained(&family.block_params(layer));
    let of_embedding = model.trained(&family.embedding_params());
    let lowest = lowest_trained(model, &of_embedding);
    let open = |layer: usize, input: Tensor<2>, pass: &mut Pass<'_>| {
        let (tracked, leaf) = (params.tracked_only(&of_block(layer)), leaf(input));
        let output = family.block(&model.weights(&tracked), layer, leaf.clone(), pass);
        Segment { tracked, leaf, output }
    };

    let embedding = params.tracked_only(&of_embedding);
    let embedded = model.embed(&embedding, inputs);
    let mut stream = embedded.clone().inner();
    let (mut blocks, mut load) = (Vec::with_capacity(family.num_blocks()), Load::default());
    for layer in 0..family.num_blocks() {
        let input = stream.clone();
        let segment = (!recompute.covers(layer) && layer >= lowest).then(|| open(layer, input.clone(), &mut pass));
        stream = match &segment {
            Some(segment) => load.seen(&segment.output).inner(),
            None => load.seen(&family.block(&model.weights(params), layer, input.clone(), &mut pass)).inner(),
        };
        if layer >= lowest {
            blocks.push((layer, input, segment));
        }
    }

    let HeadPass { loss, gradients, mut upstream } = goal.head(model, params, stream)?;
    let is_tied = |(index, _): &(usize, Tensor<1>)| of_embedding.contains(index);
    let (mut tied, complete): (Vec<_>, Vec<_>) = gradients.into_iter().partition(is_tied);
    for (index, gradient) in complete {
        done(index, gradient)?;
    }
    for (layer, input, segment) in blocks.into_iter().rev() {
        let Segment { tracked, leaf, output } = segment.unwrap_or_else(|| open(layer, input, &mut pass));
        let BlockOutput { stream, routing } = output;
        let root = ops::pull_back(stream, upstream);
        let balance = routing.filter(|_| balance_weight != 0.0).map(|routing| load.loss(routing, num_tokens));
        let root = balance.map_or(root.clone(), |loss| root + loss.mul_scalar(balance_weight));
        let mut gradients = root.backward();
        for index in of_block(layer) {
            done(index, take(&tracked, index, &mut gradients)?)?;
        }
        upstream = gradient_of(&leaf, &mut gradients);
    }
    if of_embedding.is_empty() {
        return Ok(loss);
    }
    let mut gradients = ops::pull_back(embedded, upstream).backward();
    for index in of_embedding {
        let mut gradient = take(&embedding, index, &mut gradients)?;
        if let Some((_, of_head)) = tied.pop_if(|(tied, _)| *tied == index) {
            gradient = ops::add(gradient, of_head);
        }
        done(index, gradient)?;
    }
    Ok(loss)
}

/// The first block that the backward pass has to reach; behind the last one where only the head is trained.
fn lowest_trained(model: &Model, of_embedding: &[usize]) -> usize {
    let family = model.family();
    if !of_embedding.is_empty() {
        return 0;
    }
    let trains = |layer: &usize| !model.trained(&family.block_params(*layer)).is_empty();
    (0..family.num_blocks()).find(trains).unwrap_or(family.num_blocks())
}

/// The graph of one block.
struct Segment {
    tracked: Params,
    leaf: Tensor<2>,
    output: BlockOutput,
}

/// A stream that remembers nothing of how it came about, and keeps its gradient.
pub(crate) fn leaf(stream: Tensor<2>) -> Tensor<2> {
    stream.inner().autodiff().require_grad()
}

impl Load {
    /// The stream after a block, whose choices of experts are counted.
    fn seen(&mut self, output: &BlockOutput) -> Tensor<2> {
        output.routing.iter().for_each(|routing| self.add(routing));
        output.stream.clone()
    }
}

/// What the load-balancing loss of experts counts in a pass; 0 where it is not trained.
fn balance_weight(model: &Model, goal: &Goal<'_>) -> f64 {
    match model.router_aux_loss_coef() {
        0.0 => 0.0,
        coefficient => goal.targets().map_or(0.0, |targets| coefficient * count_valid(targets)),
    }
}

/// Targets that are not ignored.
fn count_valid(targets: &Tensor<2, Int>) -> f64 {
    targets.clone().greater_equal_elem(0).int().sum().into_scalar::<i64>() as f64
}

/// Every block adds to the stream that it reads, so a gradient always reaches it.
pub(crate) fn gradient_of(leaf: &Tensor<2>, gradients: &mut Gradients) -> Tensor<2> {
    leaf.grad_remove(gradients).unwrap_or_else(|| leaf.clone().inner().zeros_like())
}

pub(crate) fn take(tracked: &Params, index: usize, gradients: &mut Gradients) -> Result<Tensor<1>, NoGradient> {
    let missing = || NoGradient { name: tracked.specs()[index].name.clone() };
    tracked.tensors()[index].grad_remove(gradients).ok_or_else(missing)
}
