//! Owns the way from token ids to a loss and its gradients; never touches the optimizer, files or ranks.
//!
//! This is the one place where the plain integers of `data_pipeline` become tensors, and the one definition of the
//! training loss: the *sum* of token losses of a micro-batch. Division by the number of valid target tokens of the
//! whole optimizer step happens once, in [`crate::optim`], so micro-batches and processes can be cut anywhere.

use burn::tensor::{Device, Int, Tensor, TensorData};
use data_pipeline::loader::TokenBatch;
use model_zoo::{Inputs, Model, NoGradient, Params, Recompute};

use crate::gradient_sum::{GradientSum, TreeSum};

/// What a micro-batch cannot be turned into gradients for.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// A token id lies outside the model's vocabulary.
    #[error(
        "token id {id} at row {row}, position {position} is outside the model's vocabulary of {vocab_size}; \
         the dataset was made with another tokenizer: prepare it again with the model's tokenizer"
    )]
    TokenOutOfRange {
        /// The offending id.
        id: u32,
        /// Row of the micro-batch.
        row: usize,
        /// Position in the row.
        position: usize,
        /// Rows of the embedding.
        vocab_size: usize,
    },
    /// A position lies beyond those the model has parameters for.
    #[error("position {position} is beyond the {limit} positions that the model has; use shorter rows")]
    PositionOutOfRange {
        /// The position, from 0.
        position: u32,
        /// Positions of the model.
        limit: usize,
    },
    /// A parameter took no part in the loss.
    #[error(transparent)]
    NoGradient(#[from] NoGradient),
}

/// Loss and gradients of one micro-batch or of a sum of micro-batches.
pub struct StepGradients {
    /// Sum of the token losses, in nats.
    pub loss_sum: f64,
    /// Number of target tokens the sum runs over.
    pub valid: u64,
    /// Gradient of `loss_sum` for every parameter, flat `[numel]`, in the order of `Params::specs`.
    pub grads: Vec<Tensor<1>>,
}

/// Tensors of one micro-batch on a device: model inputs and targets, all `[batch, seq]`.
pub struct DeviceBatch {
    /// Token ids, positions and segment ids.
    pub inputs: Inputs,
    /// Next-token targets; negative where there is none.
    pub targets: Tensor<2, Int>,
    /// Number of targets that count.
    pub valid: u64,
}

/// Refuses positions beyond those `model` has parameters for: burn would panic on them deep inside a kernel.
///
/// # Errors
/// [`StepError::PositionOutOfRange`] names the largest.
pub fn check_positions(batch: &TokenBatch, model: &Model) -> Result<(), StepError> {
    match (batch.positions.iter().max(), model.position_limit()) {
        (Some(&position), Some(limit)) if position as usize >= limit => {
            Err(StepError::PositionOutOfRange { position, limit })
        }
        _ => Ok(()),
    }
}

/// Copies a batch to `device`.
///
/// # Errors
/// [`StepError::TokenOutOfRange`] when an id has no row in the embedding: burn would panic on it deep inside a kernel.
pub fn to_device(batch: &TokenBatch, vocab_size: usize, device: &Device) -> Result<DeviceBatch, StepError> {
    if let Some(at) = batch.tokens.iter().position(|&id| id as usize >= vocab_size) {
        return Err(StepError::TokenOutOfRange {
            id: batch.tokens.get(at).copied().unwrap_or_default(),
            row: at / batch.seq_len.max(1),
            position: at % batch.seq_len.max(1),
            vocab_size,
        });
    }
    let out_of_range = |&t: &i32| t >= 0 && t as usize >= vocab_size;
    if let Some(at) = batch.targets.iter().position(out_of_range) {
        return Err(StepError::TokenOutOfRange {
            id: batch.targets.get(at).copied().unwrap_or_default().unsigned_abs(),
            row: at / batch.seq_len.max(1),
            position: at % batch.seq_len.max(1) + 1,
            vocab_size,
        });
    }
    let shape = [batch.rows, batch.seq_len];
    let int = |values: Vec<i64>| Tensor::<2, Int>::from_data(TensorData::new(values, shape), device);
    let widen = |values: &[u32]| values.iter().map(|&v| i64::from(v)).collect::<Vec<_>>();
    Ok(DeviceBatch {
        inputs: Inputs {
            tokens: int(widen(&batch.tokens)),
            positions: int(widen(&batch.positions)),
            segments: int(widen(&batch.segments)),
        },
        targets: int(batch.targets.iter().map(|&v| i64::from(v)).collect()),
        valid: batch.targets.iter().filter(|&&t| t >= 0).count() as u64,
    })
}

/// Forward and backward pass of one micro-batch: the loss sum in nats and the number of targets it runs over; every
/// gradient goes to `done(parameter, gradient)`, flat `[numel]` on `device`, as soon as it is complete.
///
/// `device` is the plain (not autodiff) device that holds `params`. With `recompute` activations are computed twice
/// instead of being kept.
///
/// # Errors
/// See [`StepError`]; and what `done` returns.
pub fn loss_and_gradients<E: From<StepError>>(
    model: &Model,
    params: &Params,
    batch: &TokenBatch,
    device: &Device,
    recompute: Recompute,
    done: &mut dyn FnMut(usize, Tensor<1>) -> Result<(), E>,
) -> Result<(f64, u64), E> {
    check_positions(batch, model)?;
    let batch = to_device(batch, model.vocab_size(), device)?;
    let mut pass_on = |index: usize, gradient: Tensor<1>| done(index, gradient).map_err(Interrupted::Receiver);
    let loss_sum = model.loss_and_gradients(params, &batch.inputs, batch.targets, recompute, &mut pass_on);
    loss_sum.map(|loss_sum| (loss_sum, batch.valid)).map_err(Interrupted::either)
}

/// Who ended a backward pass.
pub(crate) enum Interrupted<E> {
    Model(NoGradient),
    Receiver(E),
}

impl<E: From<StepError>> Interrupted<E> {
    /// The error, whoever it comes from.
    pub(crate) fn either(self) -> E {
        match self {
            Self::Model(error) => StepError::from(error).into(),
            Self::Receiver(error) => error,
        }
    }
}

impl<E> From<NoGradient> for Interrupted<E> {
    fn from(error: NoGradient) -> Self {
        Self::Model(error)
    }
}

/// [`loss_and_gradients`] of several micro-batches, summed along the canonical tree, by one process.
///
/// # Errors
/// See [`StepError`].
pub fn summed_gradients(
    model: &Model,
    params: &Params,
    batches: &[&TokenBatch],
    device: &Device,
) -> Result<StepGradients, StepError> {
    let (mut grads, mut losses, mut valid) = (GradientSum::new(params.specs().len()), TreeSum::default(), 0);
    for batch in batches {
        let mut add = |index: usize, gradient: Tensor<1>| {
            grads.add(index, gradient);
            Ok::<(), StepError>(())
        };
        let (loss_sum, targets) = loss_and_gradients(model, params, batch, device, Recompute::Nothing, &mut add)?;
        losses.push(loss_sum, |a, b| a + b);
        valid += targets;
    }
    let loss_sum = losses.finish(|a, b| a + b).unwrap_or_default();
    Ok(StepGradients { loss_sum, valid, grads: grads.finish().unwrap_or_default() })
}
