//! Owns the training pass of a model, one block at a time; never touches optimizers, sums of micro-batches or files.
//!
//! The autodiff graph of a block begins and ends with the block: its input is a leaf, and that leaf's gradient starts
//! the backward pass of the block before. So the gradients of a block are complete, and handed out, before the pass
//! turns to the next one: they can travel while the rest is computed, and what a block kept for its backward pass is
//! freed as soon as it was used (`docs/adr/0007-backward-block-by-block.md`).

use burn::tensor::{Gradients, Int, Tensor};
use thiserror::Error;

use crate::model::Inputs;
use crate::ops;
use crate::params::Params;

/// A model as the training pass sees it: an embedding, blocks on a residual stream `[batch * seq, hidden]`, a head.
pub(crate) trait Blocks {
    /// What all blocks read beside the stream, such as rotations.
    type Shared;

    /// Computes it.
    fn shared(&self, inputs: &Inputs) -> Self::Shared;

    /// Number of blocks.
    fn num_blocks(&self) -> usize;

    /// Parameters that [`Blocks::embed`] reads.
    fn embedding_params(&self) -> Vec<usize>;

    /// Parameters that block `layer` reads, and nothing else does.
    fn block_params(&self, layer: usize) -> Vec<usize>;

    /// Parameters that [`Blocks::head_loss`] reads; a tied head's are among those of the embedding too.
    fn head_params(&self) -> Vec<usize>;

    /// The stream before the first block.
    fn embed(&self, params: &Params, inputs: &Inputs) -> Tensor<2>;

    /// The stream after block `layer`.
    fn block(
        &self,
        params: &Params,
        layer: usize,
        stream: Tensor<2>,
        inputs: &Inputs,
        shared: &Self::Shared,
    ) -> Tensor<2>;

    /// Sum of the losses of `targets` (`[batch, seq]`, < 0 = ignored) from the last stream, `[1]`.
    fn head_loss(&self, params: &Params, stream: Tensor<2>, targets: Tensor<2, Int>) -> Tensor<1>;
}

/// A parameter took no part in the loss.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("parameter `{name}` received no gradient; this is a defect of the model's forward pass, please report it")]
pub struct NoGradient {
    /// Hugging Face name of the parameter.
    pub name: String,
}

/// Parameters in the order in which [`loss_and_gradients`] completes their gradients.
pub(crate) fn gradient_order(model: &impl Blocks) -> Vec<usize> {
    let embedding = model.embedding_params();
    let head = model.head_params().into_iter().filter(|index| !embedding.contains(index));
    let blocks = (0..model.num_blocks()).rev().flat_map(|layer| model.block_params(layer));
    head.chain(blocks).chain(embedding.iter().copied()).collect()
}

/// Forward and backward pass of one micro-batch: the loss sum, and for every parameter one call of
/// `done(index, gradient)` (flat, `[num_elements]`) as soon as the gradient is complete, in [`gradient_order`].
///
/// With `recompute` the blocks keep only their inputs; each is computed once more when its turn comes in the backward
/// pass (Chen et al. 2016, arXiv:1604.06174). The bits are the same.
pub(crate) fn loss_and_gradients<M: Blocks, E: From<NoGradient>>(
    model: &M,
    params: &Params,
    inputs: &Inputs,
    targets: Tensor<2, Int>,
    recompute: bool,
    done: &mut dyn FnMut(usize, Tensor<1>) -> Result<(), E>,
) -> Result<f64, E> {
    let shared = model.shared(inputs);
    let open = |layer: usize, input: Tensor<2>| {
        let (tracked, leaf) = (params.tracked_only(&model.block_params(layer)), leaf(input));
        let output = model.block(&tracked, layer, leaf.clone(), inputs, &shared);
        Segment { tracked, leaf, output }
    };

    let embedding = params.tracked_only(&model.embedding_params());
    let embedded = model.embed(&embedding, inputs);
    let mut stream = embedded.clone().inner();
    let mut blocks = Vec::with_capacity(model.num_blocks());
    for layer in 0..model.num_blocks() {
        let input = stream.clone();
        let segment = (!recompute).then(|| open(layer, input.clone()));
        stream = match &segment {
            Some(segment) => segment.output.clone().inner(),
            None => model.block(params, layer, input.clone(), inputs, &shared).inner(),
        };
        blocks.push((input, segment));
    }

    let (head, last) = (params.tracked_only(&model.head_params()), leaf(stream));
    let loss = model.head_loss(&head, last.clone(), targets);
    let loss_sum = loss.clone().inner();
    let mut gradients = loss.backward();
    let mut tied = Vec::new();
    for index in model.head_params() {
        let gradient = take(&head, index, &mut gradients)?;
        if model.embedding_params().contains(&index) {
            tied.push((index, gradient));
        } else {
            done(index, gradient)?;
        }
    }
    let mut upstream = gradient_of(&last, &mut gradients);
    for (layer, (input, segment)) in blocks.into_iter().enumerate().rev() {
        let Segment { tracked, leaf, output } = segment.unwrap_or_else(|| open(layer, input));
        let mut gradients = ops::pull_back(output, upstream).backward();
        for index in model.block_params(layer) {
            done(index, take(&tracked, index, &mut gradients)?)?;
        }
        upstream = gradient_of(&leaf, &mut gradients);
    }
    let mut gradients = ops::pull_back(embedded, upstream).backward();
    for index in model.embedding_params() {
        let mut gradient = take(&embedding, index, &mut gradients)?;
        if let Some((_, of_head)) = tied.pop_if(|(tied, _)| *tied == index) {
            gradient = ops::add(gradient, of_head);
        }
        done(index, gradient)?;
    }
    Ok(f64::from(loss_sum.into_scalar::<f32>()))
}

/// The graph of one block.
struct Segment {
    tracked: Params,
    leaf: Tensor<2>,
    output: Tensor<2>,
}

/// A stream that remembers nothing of how it came about, and keeps its gradient.
fn leaf(stream: Tensor<2>) -> Tensor<2> {
    stream.inner().autodiff().require_grad()
}

/// Every block adds to the stream that it reads, so a gradient always reaches it.
fn gradient_of(leaf: &Tensor<2>, gradients: &mut Gradients) -> Tensor<2> {
    leaf.grad_remove(gradients).unwrap_or_else(|| leaf.clone().inner().zeros_like())
}

fn take(tracked: &Params, index: usize, gradients: &mut Gradients) -> Result<Tensor<1>, NoGradient> {
    let missing = || NoGradient { name: tracked.specs()[index].name.clone() };
    tracked.tensors()[index].grad_remove(gradients).ok_or_else(missing)
}
