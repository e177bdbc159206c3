//! Owns what a training pass computes at its head: the sum of all losses, or parts of it that are weighed once they are
//! known; never touches blocks.

use burn::tensor::{Gradients, Int, Tensor};

use crate::backward::{NoGradient, gradient_of, leaf, take};
use crate::model::Model;
use crate::ops;
use crate::params::Params;

/// What a pass is for.
#[expect(clippy::large_enum_variant, reason = "one is made for a pass and moved once")]
pub(crate) enum Goal<'a> {
    /// The sum of the losses of `[batch, seq]` targets, < 0 = ignored.
    Sum(Box<Tensor<2, Int>>),
    /// A function of the losses of several sets of targets.
    Parts(Parts<'a>),
}

/// Several sets of targets, and a function of their losses.
pub struct Parts<'a> {
    /// The sets, each `[batch, seq]`, < 0 = ignored.
    pub targets: Vec<Tensor<2, Int>>,
    /// Gets the losses, nats, and gives the function's value and its slope by each of them.
    pub weigh: &'a mut dyn FnMut(&[f64]) -> Weighed,
}

/// A function of several losses at the point where it was evaluated.
#[derive(Debug, Clone, PartialEq)]
pub struct Weighed {
    /// Its value.
    pub loss: f64,
    /// Its slope by each of them.
    pub weights: Vec<f64>,
}

/// What the head gives.
pub(crate) struct HeadPass {
    pub(crate) loss: f64,
    /// Gradients of what is trained of the head, in the order of [`crate::family::Family::head_params`].
    pub(crate) gradients: Vec<(usize, Tensor<1>)>,
    /// Gradient of the last stream, `[batch * seq, hidden]`.
    pub(crate) upstream: Tensor<2>,
}

impl Goal<'_> {
    /// Targets that count towards losses of blocks, which only the sum of all losses has.
    pub(crate) fn targets(&self) -> Option<&Tensor<2, Int>> {
        match self {
            Self::Sum(targets) => Some(targets),
            Self::Parts(_) => None,
        }
    }

    /// Forward and backward pass of the head on the last stream `[batch * seq, hidden]`.
    pub(crate) fn head(self, model: &Model, params: &Params, stream: Tensor<2>) -> Result<HeadPass, NoGradient> {
        match self {
            Self::Sum(targets) => pass(model, params, stream, *targets, None),
            Self::Parts(Parts { targets: parts, weigh }) => {
                let losses: Vec<f64> = parts
                    .iter()
                    .map(|targets| value(model.head_loss(params, stream.clone(), targets.clone())))
                    .collect();
                let Weighed { loss, weights } = weigh(&losses);
                let mut sum: Option<HeadPass> = None;
                // One part after another, so that one gradient of the vocabulary is held beside the sum.
                for (targets, weight) in parts.into_iter().zip(weights) {
                    let part = pass(model, params, stream.clone(), targets, Some(weight))?;
                    sum = Some(match sum {
                        None => part,
                        Some(sum) => sum.add(part),
                    });
                }
                let nothing = || pass(model, params, stream.clone(), no_targets(&stream), None);
                Ok(HeadPass { loss, ..sum.map_or_else(nothing, Ok)? })
            }
        }
    }
}

/// As many ignored targets as the stream has rows.
fn no_targets(stream: &Tensor<2>) -> Tensor<2, Int> {
    Tensor::full([1, stream.dims()[0]], -1, &stream.device())
}

impl HeadPass {
    fn add(self, other: Self) -> Self {
        let both = self.gradients.into_iter().zip(other.gradients);
        let gradients = both.map(|((index, a), (_, b))| (index, ops::add(a, b))).collect();
        Self { loss: self.loss, gradients, upstream: self.upstream + other.upstream }
    }
}

fn pass(
    model: &Model,
    params: &Params,
    stream: Tensor<2>,
    targets: Tensor<2, Int>,
    weight: Option<f64>,
) -> Result<HeadPass, NoGradient> {
    let indices = model.trained(&model.family().head_params());
    let (head, last) = (params.tracked_only(&indices), leaf(stream));
    let loss = model.head_loss(&head, last.clone(), targets);
    let found = value(loss.clone().inner());
    let mut gradients: Gradients = match weight {
        None => loss.backward(),
        Some(weight) => loss.mul_scalar(weight).backward(),
    };
    let of = |index: usize, gradients: &mut Gradients| Ok((index, take(&head, index, gradients)?));
    let found_gradients = indices.into_iter().map(|index| of(index, &mut gradients)).collect::<Result<_, _>>()?;
    Ok(HeadPass { loss: found, gradients: found_gradients, upstream: gradient_of(&last, &mut gradients) })
}

fn value(loss: Tensor<1>) -> f64 {
    f64::from(loss.into_scalar::<f32>())
}
