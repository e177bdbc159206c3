//! Owns merging an adapter into its base, and how close two models answer; never touches files.

use burn::tensor::Device;
use model_zoo::{Model, Params};

use super::AdapterFileError;
use crate::hub::{HubError, probe_logits};

/// Largest accepted difference of logits between an adapted and a merged model in f32, as a part of the largest logit:
/// only the order of sums differs.
const RELATIVE_TOLERANCE: f64 = 1e-4;
/// Largest accepted divergence, nats a token.
const KL_TOLERANCE: f64 = 1e-6;

/// How close the answers of two models are on a fixed probe.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Closeness {
    /// Largest absolute logit of the first.
    pub max_logit: f64,
    /// Largest absolute difference of logits.
    pub max_difference: f64,
    /// Mean Kullback-Leibler divergence of the second's next-token distribution from the first's, nats a token.
    pub kl: f64,
}

impl Closeness {
    /// Largest difference of logits that is accepted of a merged model.
    #[must_use]
    pub fn tolerance(&self) -> f64 {
        RELATIVE_TOLERANCE * self.max_logit.max(1.0)
    }

    /// Whether both answer alike, up to rounding.
    #[must_use]
    pub fn is_within_tolerance(&self) -> bool {
        self.max_difference <= self.tolerance() && self.kl <= KL_TOLERANCE
    }
}

/// A model that needs no adapter any more.
pub struct Merged {
    /// The model.
    pub model: Model,
    /// All its parameters, f32.
    pub params: Params,
    /// How close it is to the adapted one.
    pub closeness: Closeness,
}

/// Adds the corrections of an adapted model to its base in f32 and compares both.
///
/// # Errors
/// [`AdapterFileError::Differs`] where they differ by more than rounding explains.
pub fn merge(model: &Model, params: &Params, device: &Device) -> Result<Merged, AdapterFileError> {
    let merged = model.merged_params(params, device)?;
    let whole = model.clone().without_adapter();
    let closeness = compare((model, params), (&whole, &merged), device)?;
    if !closeness.is_within_tolerance() {
        let Closeness { max_difference, kl, .. } = closeness;
        let what = format!(
            "the merged model differs from the adapted one: logits by {max_difference:.3e} (allowed {:.3e}), \
             divergence {kl:.3e} nats a token (allowed {KL_TOLERANCE:.0e})",
            closeness.tolerance()
        );
        return Err(AdapterFileError::Differs { what });
    }
    Ok(Merged { model: whole, params: merged, closeness })
}

/// Compares the answers of two models with the same vocabulary on a fixed probe.
///
/// # Errors
/// When the device fails.
pub fn compare(first: (&Model, &Params), second: (&Model, &Params), device: &Device) -> Result<Closeness, HubError> {
    let (a, b) = (probe_logits(first.0, first.1, device)?, probe_logits(second.0, second.1, device)?);
    let vocab = first.0.vocab_size().max(1);
    let largest = |worst: f64, value: f64| if worst.is_nan() || worst > value { worst } else { value };
    let max_logit = a.iter().fold(0.0, |peak, value| largest(peak, f64::from(value.abs())));
    let differences = a.iter().zip(&b).map(|(a, b)| (f64::from(*a) - f64::from(*b)).abs());
    let max_difference = differences.fold(0.0, largest);
    let rows = (a.len() / vocab).max(1);
    let kl = a.chunks(vocab).zip(b.chunks(vocab)).map(|(a, b)| divergence(a, b)).sum::<f64>() / rows as f64;
    Ok(Closeness { max_logit, max_difference, kl })
}

/// Kullback-Leibler divergence of the distribution with logits `b` from that with logits `a`, nats.
fn divergence(a: &[f32], b: &[f32]) -> f64 {
    let log_sum = |logits: &[f32]| {
        let top = logits.iter().fold(f64::NEG_INFINITY, |top, value| top.max(f64::from(*value)));
        top + logits.iter().map(|value| (f64::from(*value) - top).exp()).sum::<f64>().ln()
    };
    let (a_sum, b_sum) = (log_sum(a), log_sum(b));
    let terms = a.iter().zip(b).map(|(a, b)| {
        let (a, b) = (f64::from(*a) - a_sum, f64::from(*b) - b_sum);
        a.exp() * (a - b)
    });
    terms.sum::<f64>().max(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn divergence_is_that_of_the_definition() {
        let (a, b) = ([0.0, 1.0_f32.ln(), 2.0_f32.ln()], [0.0, 0.0, 0.0]);
        let expected = 0.25 * (0.25_f64 * 3.0).ln() * 2.0 + 0.5 * (0.5_f64 * 3.0).ln();
        assert!((divergence(&a, &b) - expected).abs() < 1e-7);
        assert_eq!(divergence(&a, &a), 0.0);
        assert!(divergence(&[1.0, 2.0], &[f32::NAN, 2.0]).is_nan() || divergence(&[1.0], &[f32::NAN]) == 0.0);
    }
}
