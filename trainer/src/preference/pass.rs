//! Owns the loss and gradients of a micro-batch of preferences, and the counts that a log shows; never touches the
//! optimizer.

use burn::tensor::{Device, Tensor};
use data_pipeline::loader::TokenBatch;
use model_zoo::{Model, Params, Parts, Recompute, Weighed};

use super::pairs::PairBatch;
use super::reference::Reference;
use super::{Answer, Objective};
use crate::step::{Interrupted, StepError};

/// What the pairs since the last record have come to.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Tally {
    /// Pairs.
    pub pairs: f64,
    /// Sum of their reward margins.
    pub margins: f64,
    /// Pairs whose margin is above 0.
    pub right: f64,
}

impl Tally {
    /// The bytes that travel between processes.
    pub fn to_bytes(self) -> Vec<u8> {
        [self.pairs, self.margins, self.right].into_iter().flat_map(f64::to_le_bytes).collect()
    }

    /// The sum of [`Tally::to_bytes`] of several processes.
    pub fn sum(shares: &[Vec<u8>]) -> Self {
        let mut sum = Self::default();
        for share in shares {
            let mut parts = share.as_chunks::<8>().0.iter().map(|eight| f64::from_le_bytes(*eight));
            let mut next = || parts.next().unwrap_or(f64::NAN);
            sum = Self { pairs: sum.pairs + next(), margins: sum.margins + next(), right: sum.right + next() };
        }
        sum
    }
}

/// What a run learns from preferences, and what it measures on the way.
#[derive(Clone, Debug)]
pub struct Preferences {
    /// The loss.
    pub objective: Objective,
    /// Log-probabilities under the starting weights; empty where the loss needs none.
    pub reference: Reference,
    /// Since the last record.
    pub tally: Tally,
}

/// Forward and backward pass of one micro-batch: the sum of the losses of its pairs in nats and their number; gradients
/// go to `done` as in [`crate::step::loss_and_gradients`].
///
/// # Errors
/// See [`StepError`]; and what `done` returns.
pub fn loss_and_gradients<E: From<StepError>>(
    (model, params, device): (&Model, &Params, &Device),
    batch: &TokenBatch,
    preferences: &mut Preferences,
    recompute: Recompute,
    done: &mut dyn FnMut(usize, Tensor<1>) -> Result<(), E>,
) -> Result<(f64, u64), E> {
    let PairBatch { inputs, targets, pairs } = PairBatch::new(batch, model.vocab_size(), device)?;
    let Preferences { objective, reference, tally } = preferences;
    let mut weigh = |losses: &[f64]| {
        let mut weighed = Weighed { loss: 0.0, weights: Vec::with_capacity(losses.len()) };
        for (pair, [chosen, rejected]) in pairs.iter().zip(losses.as_chunks::<2>().0) {
            let answer = |loss: f64, tokens: u64| Answer { log_prob: -loss, tokens };
            let known = reference.of(pair.component, pair.sample);
            let found = objective.pair(answer(*chosen, pair.tokens.0), answer(*rejected, pair.tokens.1), known);
            weighed.loss += found.loss;
            // The model gives losses, which are log-probabilities with the other sign.
            weighed.weights.extend([-found.chosen_slope, -found.rejected_slope]);
            tally.pairs += 1.0;
            tally.margins += found.margin;
            tally.right += f64::from(u8::from(found.margin > 0.0));
        }
        weighed
    };
    let mut pass_on = |index: usize, gradient: Tensor<1>| done(index, gradient).map_err(Interrupted::Receiver);
    let loss = model.weighed_loss_and_gradients(
        params,
        &inputs,
        Parts { targets, weigh: &mut weigh },
        recompute,
        &mut pass_on,
    );
    loss.map(|loss| (loss, pairs.len() as u64)).map_err(Interrupted::either)
}
