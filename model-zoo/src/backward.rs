//! Owns the training pass of a model, one block at a time; never touches optimizers, sums of micro-batches or files.
//!
//! The autodiff graph of a block begins and ends with the block: its input is a leaf, and that leaf's gradient starts
//! the backward pass of the block before. So the gradients of a block are complete, and handed out, before the pass
//! turns to the next one: they can travel while the rest is computed, and what a block kept for its backward pass is
//! freed as soon as it was used (`docs/adr/0007-backward-block-by-block.md`).

use burn::tensor::{Gradients, Int, Tensor};
use thiserror::Error;

use crate::family::{BlockOutput, Pass};
use crate::model::{Inputs, Model};
use crate::ops;
use crate::params::Params;

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
/// With `recompute` the blocks keep only their inputs; each is computed once more when its turn comes in the backward
/// pass (Chen et al. 2016, arXiv:1604.06174). The bits are the same. Below the lowest block with something to train
/// nothing is kept and no backward pass is made.
pub(crate) fn loss_and_gradients<E: From<NoGradient>>(
    model: &Model,
    params: &Params,
    inputs: &Inputs,
    targets: Tensor<2, Int>,
    recompute: bool,
    done: &mut dyn FnMut(usize, Tensor<1>) -> Result<(), E>,
) -> Result<f64, E> {
    let family = model.family();
    let auxiliary_weight = if family.has_auxiliary_loss() { count_valid(&targets) } else { 0.0 };
    let mut pass = model.pass(inputs, auxiliary_weight);
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
    let mut blocks = Vec::with_capacity(family.num_blocks());
    for layer in 0..family.num_blocks() {
        let input = stream.clone();
        let segment = (!recompute && layer >= lowest).then(|| open(layer, input.clone(), &mut pass));
        stream = match &segment {
            Some(segment) => segment.output.stream.clone().inner(),
            None => family.block(&model.weights(params), layer, input.clone(), &mut pass).stream.inner(),
        };
        if layer >= lowest {
            blocks.push((layer, input, segment));
        }
    }

    let of_head = model.trained(&family.head_params());
    let (head, last) = (params.tracked_only(&of_head), leaf(stream));
    let loss = model.head_loss(&head, last.clone(), targets);
    let loss_sum = loss.clone().inner();
    let mut gradients = loss.backward();
    let mut tied = Vec::new();
    for index in of_head {
        let gradient = take(&head, index, &mut gradients)?;
        if of_embedding.contains(&index) {
            tied.push((index, gradient));
        } else {
            done(index, gradient)?;
        }
    }
    let mut upstream = gradient_of(&last, &mut gradients);
    drop(gradients);
    for (layer, input, segment) in blocks.into_iter().rev() {
        let Segment { tracked, leaf, output } = segment.unwrap_or_else(|| open(layer, input, &mut pass));
        let BlockOutput { stream, auxiliary } = output;
        let root = ops::pull_back(stream, upstream);
        let mut gradients = auxiliary.map_or(root.clone(), |auxiliary| root + auxiliary).backward();
        for index in of_block(layer) {
            done(index, take(&tracked, index, &mut gradients)?)?;
        }
        upstream = gradient_of(&leaf, &mut gradients);
    }
    let loss_sum = f64::from(loss_sum.into_scalar::<f32>());
    if of_embedding.is_empty() {
        return Ok(loss_sum);
    }
    let mut gradients = ops::pull_back(embedded, upstream).backward();
    for index in of_embedding {
        let mut gradient = take(&embedding, index, &mut gradients)?;
        if let Some((_, of_head)) = tied.pop_if(|(tied, _)| *tied == index) {
            gradient = ops::add(gradient, of_head);
        }
        done(index, gradient)?;
    }
    Ok(loss_sum)
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
fn leaf(stream: Tensor<2>) -> Tensor<2> {
    stream.inner().autodiff().require_grad()
}

/// Targets that are not ignored.
fn count_valid(targets: &Tensor<2, Int>) -> f64 {
    targets.clone().greater_equal_elem(0).int().sum().into_scalar::<i64>() as f64
}

/// Every block adds to the stream that it reads, so a gradient always reaches it.
fn gradient_of(leaf: &Tensor<2>, gradients: &mut Gradients) -> Tensor<2> {
    leaf.grad_remove(gradients).unwrap_or_else(|| leaf.clone().inner().zeros_like())
}

fn take(tracked: &Params, index: usize, gradients: &mut Gradients) -> Result<Tensor<1>, NoGradient> {
    let missing = || NoGradient { name: tracked.specs()[index].name.clone() };
    tracked.tensors()[index].grad_remove(gradients).ok_or_else(missing)
}
