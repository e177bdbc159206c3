//! Owns the fixed inputs by which a reopened export is compared with the trained model; never touches files.

use burn::tensor::Device;
use data_pipeline::loader::TokenBatch;
use model_zoo::{Model, ModelConfig, Params, WeightDtype};

use super::HubError;
use crate::step;

/// Rows and tokens of the probe; short enough for any context.
const ROWS: usize = 2;
const MAX_SEQ_LEN: usize = 48;
/// Multiplier that spreads the ids over the vocabulary (2^32 divided by the golden ratio; Knuth, TAOCP 3, 6.4).
const SPREAD: u64 = 2_654_435_769;

/// Texts whose token ids must survive an export: every script of the corpora, digits, emoji, odd spaces.
pub(crate) const TEXTS: [&str; 8] = [
    "",
    "السلام عليكم، كيداير؟ لاباس عليك؟",
    "wach nta labas 3lik? ana mzyan l7amdollah",
    "ⴰⵣⵓⵍ, ⵎⴰⵏⵣⴰⴽⵉⵏ? ⵜⴰⵏⵎⵎⵉⵔⵜ ⴱⴰⵀⵔⴰ.",
    "azul, manzakin? tanmmirt bahra",
    "Aujourd'hui, l'été à Fès coûte 1 250,50 DH.",
    "قَرَأْتُ كِتَابًا فِي سَنَةِ ١٩٩٩ و 2024",
    "  tabs\tand\n\nlines \u{200F}🙂\u{1F1F2}\u{1F1E6} ",
];

/// The probe: the first row is one document, the second two.
pub(crate) fn batch(vocab_size: usize, max_positions: usize) -> TokenBatch {
    let seq_len = MAX_SEQ_LEN.min(max_positions).max(1);
    let count = ROWS * seq_len;
    let cut = seq_len / 2;
    let second = |index: usize| index >= seq_len + cut;
    TokenBatch {
        rows: ROWS,
        seq_len,
        tokens: (1..=count as u64).map(|i| (i * SPREAD % (1 << 32) % vocab_size as u64) as u32).collect(),
        targets: vec![-1; count],
        segments: (0..count).map(|index| u32::from(second(index))).collect(),
        positions: (0..count).map(|i| (i % seq_len - if second(i) { cut } else { 0 }) as u32).collect(),
        components: vec![0; ROWS],
        samples: Vec::new(),
    }
}

/// Logits of the probe, `[rows * seq_len * vocab]`.
pub(crate) fn logits(model: &Model, params: &Params, device: &Device) -> Result<Vec<f32>, HubError> {
    let config = model.config();
    let batch = step::to_device(&batch(config.vocab_size(), config.max_positions()), config.vocab_size(), device)?;
    let logits = model.logits(&params.untracked(), &batch.inputs).try_into_vec_as::<f32>();
    logits.map_err(|error| HubError::Differs { what: format!("its logits cannot be read from the device ({error})") })
}

/// Largest absolute value, and largest absolute difference; NaN where either holds one.
pub(crate) fn compare(expected: &[f32], found: &[f32]) -> (f64, f64) {
    let peak = expected.iter().fold(0.0, |peak, value| larger(peak, f64::from(value.abs())));
    let pairs = expected.iter().zip(found);
    let difference = pairs.fold(0.0, |worst, (a, b)| larger(worst, (f64::from(*a) - f64::from(*b)).abs()));
    (peak, difference)
}

/// The maximum, which unlike `f64::max` does not forget a NaN.
pub(crate) fn larger(a: f64, b: f64) -> f64 {
    if a.is_nan() || a > b { a } else { b }
}

/// Largest difference between two readings of the same weights, as a part of the largest logit: only a device that
/// chooses other kernels can differ at all.
const SAME_WEIGHTS: f64 = 1e-5;

/// How far the logits of a reopened export are from those of the model it was written from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LogitDistance {
    /// Largest absolute difference on the probe.
    pub largest: f64,
    /// Largest absolute logit of the model in memory.
    pub peak: f64,
    /// Largest difference that would have been accepted; `None` where rounding the weights has no bound, see
    /// [`prove`].
    pub tolerance: Option<f64>,
}

/// Proves that `reopened` is the model of `config` with `trained` rounded to `dtype`. Its tensors have been compared
/// bit for bit by then, so two questions are left. Do both models make the same of the same weights? That shows every
/// setting that the layout may have lost, to [`SAME_WEIGHTS`]. And how far did rounding move the answers?
/// [`rounding_tolerance`] bounds that in dense models. In a model with experts a rounding can send a token to another
/// expert, which moves its logits by a good part of the largest: the distance is told, and has no bound.
pub(crate) fn prove(
    config: &ModelConfig,
    trained: &Params,
    reopened: (&Model, &Params),
    dtype: WeightDtype,
    device: &Device,
) -> Result<LogitDistance, HubError> {
    let model = Model::new(config).map_err(|error| HubError::Differs { what: format!("its settings ({error})") })?;
    let found = logits(reopened.0, reopened.1, device)?;
    let (peak, difference) = compare(&logits(&model, reopened.1, device)?, &found);
    within(difference, SAME_WEIGHTS * peak.max(1.0), "logits of the same weights")?;
    let (peak, largest) = compare(&logits(&model, trained, device)?, &found);
    let has_experts = config.router_aux_loss_coef().is_some();
    let tolerance = (!has_experts || dtype == WeightDtype::F32).then(|| rounding_tolerance(dtype) * peak.max(1.0));
    within(largest, tolerance.unwrap_or(f64::MAX), "logits")?;
    Ok(LogitDistance { largest, peak, tolerance })
}

fn within(difference: f64, tolerance: f64, what: &str) -> Result<(), HubError> {
    if difference.is_nan() || difference > tolerance {
        return Err(HubError::Differs { what: format!("{what} by {difference:.3e}, more than {tolerance:.3e}") });
    }
    Ok(())
}

/// Largest accepted difference of logits after rounding the weights, as a part of the largest logit: a relative error
/// of 2^-9 (bf16) or 2^-12 (f16) a weight, grown by depth.
fn rounding_tolerance(dtype: WeightDtype) -> f64 {
    match dtype {
        WeightDtype::F32 => SAME_WEIGHTS,
        WeightDtype::F16 => 1e-2,
        WeightDtype::Bf16 => 8e-2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_probe_fits_every_model_and_reaches_the_whole_vocabulary() {
        for (vocab, context) in [(3, 1), (512, 256), (1 << 20, 4096)] {
            let probe = batch(vocab, context);
            assert!(probe.tokens.iter().all(|id| (*id as usize) < vocab));
            assert!(probe.positions.iter().enumerate().all(|(i, p)| *p as usize <= i % probe.seq_len));
            assert_eq!(probe.tokens.len(), probe.rows * probe.seq_len);
        }
        let ids = batch(1 << 20, 4096).tokens;
        assert!(ids.iter().any(|id| *id > 900_000) && ids.iter().any(|id| *id < 100_000));
    }

    #[test]
    fn a_number_that_is_none_is_never_a_small_difference() {
        assert!(compare(&[1.0, 2.0], &[1.0, f32::NAN]).1.is_nan());
        assert!(compare(&[f32::NAN, 2.0], &[1.0, 2.0]).1.is_nan());
        assert_eq!(compare(&[1.0, -4.0], &[1.5, -4.0]), (4.0, 0.5));
    }
}
