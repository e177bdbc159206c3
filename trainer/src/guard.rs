//! Owns the decision whether a step's update may be applied; never touches tensors, clocks or ranks.
//!
//! It judges numbers that are already reduced over all micro-batches and processes, so no two ranks can disagree.

use std::collections::VecDeque;
use std::fmt;

use serde::{Deserialize, Serialize};

/// When a step counts as bad.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct GuardSpec {
    /// A loss or gradient norm further than this many standard deviations above the window's mean is an outlier.
    pub outlier_sigma: f64,
    /// Number of applied steps the statistics run over; outliers are judged once the window is full.
    pub window: usize,
    /// The run halts at this many skipped steps in a row.
    pub max_consecutive_skips: u32,
}

impl Default for GuardSpec {
    fn default() -> Self {
        Self { outlier_sigma: 6.0, window: 128, max_consecutive_skips: 3 }
    }
}

/// Why a step was not applied.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Reason {
    /// The loss is NaN or infinite.
    NonFiniteLoss,
    /// The gradient norm is NaN or infinite.
    NonFiniteGradient,
    /// No target token of the whole step counts.
    NoTargets,
    /// The loss is an outlier.
    LossOutlier {
        /// The step's loss.
        value: f64,
        /// Mean over the window.
        mean: f64,
        /// Standard deviation over the window.
        std: f64,
    },
    /// The gradient norm is an outlier.
    GradientOutlier {
        /// The step's gradient norm.
        value: f64,
        /// Mean over the window.
        mean: f64,
        /// Standard deviation over the window.
        std: f64,
    },
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NonFiniteLoss => write!(f, "the loss is not finite"),
            Self::NonFiniteGradient => write!(f, "the gradient norm is not finite"),
            Self::NoTargets => write!(f, "no target token of the step counts"),
            Self::LossOutlier { value, mean, std } => {
                write!(f, "the loss {value:.4} is an outlier (window mean {mean:.4}, standard deviation {std:.4})")
            }
            Self::GradientOutlier { value, mean, std } => {
                write!(
                    f,
                    "the gradient norm {value:.4} is an outlier (window mean {mean:.4}, standard deviation {std:.4})"
                )
            }
        }
    }
}

/// What to do with a step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Verdict {
    /// Apply the update.
    Apply,
    /// Leave the parameters alone and go on with the next rows.
    Skip(Reason),
    /// Leave the parameters alone and stop the run: too many bad steps in a row.
    Halt(Reason),
}

/// The guard's memory; saved in checkpoints so that a resumed run judges like the uninterrupted one.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Guard {
    losses: VecDeque<f64>,
    grad_norms: VecDeque<f64>,
    consecutive_skips: u32,
}

impl Guard {
    /// Judges one step from its mean loss (nats a token), gradient norm and number of targets.
    pub fn judge(&mut self, spec: &GuardSpec, loss: f64, grad_norm: f64, valid: u64) -> Verdict {
        let reason = if valid == 0 {
            Some(Reason::NoTargets)
        } else if !loss.is_finite() {
            Some(Reason::NonFiniteLoss)
        } else if !grad_norm.is_finite() {
            Some(Reason::NonFiniteGradient)
        } else if let Some((mean, std)) = outlier(&self.losses, spec, loss) {
            Some(Reason::LossOutlier { value: loss, mean, std })
        } else {
            outlier(&self.grad_norms, spec, grad_norm).map(|(mean, std)| Reason::GradientOutlier {
                value: grad_norm,
                mean,
                std,
            })
        };
        let Some(reason) = reason else {
            self.consecutive_skips = 0;
            remember(&mut self.losses, spec.window, loss);
            remember(&mut self.grad_norms, spec.window, grad_norm);
            return Verdict::Apply;
        };
        self.consecutive_skips += 1;
        if self.consecutive_skips >= spec.max_consecutive_skips { Verdict::Halt(reason) } else { Verdict::Skip(reason) }
    }
}

fn remember(window: &mut VecDeque<f64>, capacity: usize, value: f64) {
    if window.len() >= capacity.max(1) {
        window.pop_front();
    }
    window.push_back(value);
}

/// Mean and standard deviation of a full window when `value` lies too far above it.
///
/// The deviation has a floor of 1 % of the mean: a run on very regular data has almost none, and the smallest wobble
/// would count as an outlier.
fn outlier(window: &VecDeque<f64>, spec: &GuardSpec, value: f64) -> Option<(f64, f64)> {
    if window.len() < spec.window {
        return None;
    }
    let n = window.len() as f64;
    let mean = window.iter().sum::<f64>() / n;
    let std = (window.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n).sqrt().max(mean.abs() * 0.01);
    (value > mean + spec.outlier_sigma * std).then_some((mean, std))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPEC: GuardSpec = GuardSpec { outlier_sigma: 6.0, window: 8, max_consecutive_skips: 3 };

    fn warm() -> Guard {
        let mut guard = Guard::default();
        for i in 0..8 {
            assert_eq!(guard.judge(&SPEC, 2.0 + 0.01 * f64::from(i % 2), 1.0, 10), Verdict::Apply);
        }
        guard
    }

    #[test]
    fn bad_numbers_skip_and_then_halt() {
        for (loss, norm, valid, reason) in [
            (f64::NAN, 1.0, 10, Reason::NonFiniteLoss),
            (f64::INFINITY, 1.0, 10, Reason::NonFiniteLoss),
            (2.0, f64::NAN, 10, Reason::NonFiniteGradient),
            (2.0, 1.0, 0, Reason::NoTargets),
        ] {
            let mut guard = Guard::default();
            assert_eq!(guard.judge(&SPEC, loss, norm, valid), Verdict::Skip(reason));
            assert_eq!(guard.judge(&SPEC, loss, norm, valid), Verdict::Skip(reason));
            assert_eq!(guard.judge(&SPEC, loss, norm, valid), Verdict::Halt(reason));
        }
    }

    #[test]
    fn a_good_step_forgives() {
        let mut guard = Guard::default();
        for _ in 0..10 {
            assert!(matches!(guard.judge(&SPEC, f64::NAN, 1.0, 1), Verdict::Skip(_)));
            assert_eq!(guard.judge(&SPEC, 2.0, 1.0, 1), Verdict::Apply);
        }
    }

    #[test]
    fn outliers_need_a_full_window_and_leave_it_alone() {
        let mut young = Guard::default();
        assert_eq!(young.judge(&SPEC, 2.0, 1.0, 1), Verdict::Apply);
        assert_eq!(young.judge(&SPEC, 2000.0, 1.0, 1), Verdict::Apply);
        let mut guard = warm();
        let before = guard.losses.clone();
        assert!(matches!(guard.judge(&SPEC, 3.0, 1.0, 1), Verdict::Skip(Reason::LossOutlier { .. })));
        assert!(matches!(guard.judge(&SPEC, 2.0, 50.0, 1), Verdict::Skip(Reason::GradientOutlier { .. })));
        assert_eq!(guard.losses, before, "a skipped step must not widen the window it was judged by");
        assert_eq!(guard.judge(&SPEC, 0.5, 0.1, 1), Verdict::Apply, "a drop is good news");
    }
}
