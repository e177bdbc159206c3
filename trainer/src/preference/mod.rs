//! Owns what is learned from preferences: losses over pairs of answers, and their slopes; never touches tensors.
//!
//! A loss sees of an answer only the sum of the log-probabilities of its trained tokens and their number, so its gradient
//! is a factor for each answer. Everything here is in f64; the sums come from the model in f32.

pub mod pairs;
pub mod pass;
pub mod reference;

use serde::{Deserialize, Serialize};

pub use self::pass::{Preferences, Tally};
pub use self::reference::Reference;
use crate::config::raw::{ObjectiveName, RawObjective};

/// A loss over a chosen and a rejected answer to the same prompt.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Objective {
    /// Rafailov et al. 2023 (arXiv:2305.18290), equation 7; with label smoothing as in its authors' code (conservative
    /// DPO, Mitchell 2023).
    Dpo {
        /// How far the model may move from the reference.
        beta: f64,
        /// Share of preferences that are taken to be the wrong way round.
        label_smoothing: f64,
    },
    /// Hong et al. 2024 (arXiv:2403.07691), equation 6: the loss of the chosen answer and the odds ratio of both.
    Orpo {
        /// Weight of the odds ratio (`lambda` there).
        beta: f64,
    },
    /// Meng et al. 2024 (arXiv:2405.14734), equation 6: mean log-probabilities and a margin.
    Simpo {
        /// Factor of the mean log-probabilities.
        beta: f64,
        /// Margin that the chosen answer must reach.
        gamma: f64,
    },
}

/// An answer as a model sees it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Answer {
    /// Sum of the log-probabilities of its trained tokens, nats.
    pub log_prob: f64,
    /// Number of its trained tokens.
    pub tokens: u64,
}

/// What a pair contributes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PairLoss {
    /// The loss, nats.
    pub loss: f64,
    /// Its slope by the log-probability of the chosen answer.
    pub chosen_slope: f64,
    /// Its slope by the log-probability of the rejected answer.
    pub rejected_slope: f64,
    /// Reward of the chosen answer less that of the rejected one.
    pub margin: f64,
}

/// A probability of one has no odds: closer to it than this is as good.
const LARGEST_MEAN_LOG_PROB: f64 = -1e-9;

impl Objective {
    /// The objective that a configuration asks for, with its defaults.
    pub fn from_raw(raw: &RawObjective) -> Self {
        match raw.kind {
            ObjectiveName::Dpo => {
                Self::Dpo { beta: raw.beta.unwrap_or(0.1), label_smoothing: raw.label_smoothing.unwrap_or(0.0) }
            }
            ObjectiveName::Orpo => Self::Orpo { beta: raw.beta.unwrap_or(0.1) },
            ObjectiveName::Simpo => Self::Simpo { beta: raw.beta.unwrap_or(2.0), gamma: raw.gamma.unwrap_or(1.0) },
        }
    }

    /// The objective as a configuration writes it.
    pub fn to_raw(self) -> RawObjective {
        let (kind, beta, label_smoothing, gamma) = match self {
            Self::Dpo { beta, label_smoothing } => (ObjectiveName::Dpo, beta, Some(label_smoothing), None),
            Self::Orpo { beta } => (ObjectiveName::Orpo, beta, None, None),
            Self::Simpo { beta, gamma } => (ObjectiveName::Simpo, beta, None, Some(gamma)),
        };
        RawObjective { kind, beta: Some(beta), label_smoothing, gamma }
    }

    /// Whether it needs the log-probabilities of the starting weights.
    pub fn needs_reference(self) -> bool {
        matches!(self, Self::Dpo { .. })
    }

    /// The loss of a pair; `reference` are the log-probabilities of the chosen and the rejected answer under the starting
    /// weights, which only [`Objective::Dpo`] reads.
    pub fn pair(self, chosen: Answer, rejected: Answer, reference: (f64, f64)) -> PairLoss {
        let mean = |answer: Answer| (answer.log_prob / answer.tokens.max(1) as f64).min(LARGEST_MEAN_LOG_PROB);
        let (chosen_tokens, rejected_tokens) = (chosen.tokens.max(1) as f64, rejected.tokens.max(1) as f64);
        match self {
            Self::Dpo { beta, label_smoothing } => {
                let margin = beta * ((chosen.log_prob - reference.0) - (rejected.log_prob - reference.1));
                let loss = -(1.0 - label_smoothing) * log_sigmoid(margin) - label_smoothing * log_sigmoid(-margin);
                let slope = beta * (label_smoothing * sigmoid(margin) - (1.0 - label_smoothing) * sigmoid(-margin));
                PairLoss { loss, chosen_slope: slope, rejected_slope: -slope, margin }
            }
            Self::Orpo { beta } => {
                let (better, worse) = (mean(chosen), mean(rejected));
                // log(1 - p) of the mean log-probability.
                let complement = |mean: f64| (-mean.exp_m1()).ln();
                let log_odds_ratio = better - worse - (complement(better) - complement(worse));
                let push = beta * sigmoid(-log_odds_ratio);
                PairLoss {
                    loss: -better - beta * log_sigmoid(log_odds_ratio),
                    chosen_slope: -(1.0 + push / -better.exp_m1()) / chosen_tokens,
                    rejected_slope: push / -worse.exp_m1() / rejected_tokens,
                    margin: beta * (better - worse),
                }
            }
            Self::Simpo { beta, gamma } => {
                let margin = beta * (chosen.log_prob / chosen_tokens - rejected.log_prob / rejected_tokens);
                let slope = -beta * sigmoid(gamma - margin);
                let (chosen_slope, rejected_slope) = (slope / chosen_tokens, -slope / rejected_tokens);
                PairLoss { loss: -log_sigmoid(margin - gamma), chosen_slope, rejected_slope, margin }
            }
        }
    }
}

fn sigmoid(x: f64) -> f64 {
    if x >= 0.0 { 1.0 / (1.0 + (-x).exp()) } else { x.exp() / (1.0 + x.exp()) }
}

/// Logarithm of the sigmoid, exact where the sigmoid is near 0 and finite everywhere.
fn log_sigmoid(x: f64) -> f64 {
    x.min(0.0) - (-x.abs()).exp().ln_1p()
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
