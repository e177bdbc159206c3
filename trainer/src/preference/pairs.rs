//! Owns the way from rows of preferences to losses of answers: which targets belong to which answer; never touches the
//! loss over them.

use burn::tensor::{Device, Int, Tensor, TensorData};
use data_pipeline::loader::TokenBatch;
use model_zoo::Inputs;

use crate::step::{self, StepError};

/// A pair of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair {
    /// Component of its row.
    pub component: usize,
    /// Number in the component.
    pub sample: u64,
    /// Trained tokens of the chosen and of the rejected answer.
    pub tokens: (u64, u64),
}

/// A batch of preferences on a device.
pub struct PairBatch {
    /// Token ids, positions, segments.
    pub inputs: Inputs,
    /// Targets of each answer, `[rows, seq]`, < 0 elsewhere: chosen and rejected of each pair in turn.
    pub targets: Vec<Tensor<2, Int>>,
    /// The pairs.
    pub pairs: Vec<Pair>,
}

impl PairBatch {
    /// Copies a batch to `device` and divides its targets by answers.
    ///
    /// # Errors
    /// As [`step::to_device`].
    pub fn new(batch: &TokenBatch, vocab_size: usize, device: &Device) -> Result<Self, StepError> {
        let on_device = step::to_device(batch, vocab_size, device)?;
        let (mut targets, mut pairs) = (Vec::new(), Vec::new());
        for (row, (samples, &component)) in batch.samples.iter().zip(&batch.components).enumerate() {
            for (segment, &sample) in (0_u32..).step_by(2).zip(samples) {
                let (chosen, chosen_tokens) = targets_of(batch, row, segment);
                let (rejected, rejected_tokens) = targets_of(batch, row, segment + 1);
                let shape = [batch.rows, batch.seq_len];
                let tensor = |values| Tensor::<2, Int>::from_data(TensorData::new(values, shape), device);
                targets.extend([tensor(chosen), tensor(rejected)]);
                let tokens = (chosen_tokens, rejected_tokens);
                pairs.push(Pair { component: component as usize, sample, tokens });
            }
        }
        Ok(Self { inputs: on_device.inputs, targets, pairs })
    }
}

/// The targets of one segment of one row, -1 elsewhere, and their number.
fn targets_of(batch: &TokenBatch, row: usize, segment: u32) -> (Vec<i64>, u64) {
    let range = row * batch.seq_len..(row + 1) * batch.seq_len;
    let mut count = 0;
    let of = |(at, (&target, &own)): (usize, (&i32, &u32))| {
        if !range.contains(&at) || own != segment || target < 0 {
            return -1;
        }
        count += 1;
        i64::from(target)
    };
    let values = batch.targets.iter().zip(&batch.segments).enumerate().map(of).collect();
    (values, count)
}
