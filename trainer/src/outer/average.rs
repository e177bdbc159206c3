//! Owns the numbers of an outer run: parameters, momentum, what compression has left over, and the step that a round
//! makes of the sites' deltas; never touches sockets or files.
//!
//! DiLoCo (Douillard et al., arXiv 2311.08105): with `delta = theta_r - theta_site` as gradient, averaged over the sites
//! that delivered, SGD with Nesterov momentum as in `torch.optim.SGD`: `m = mu m + g; theta = theta - lr (g + mu m)`.
//! Every element is computed by itself, in double precision, over the sites in the order of their names: the result
//! depends neither on who came first nor on the machine.

use super::quantise::{Layout, QuantiseError, digest};
use crate::config::raw::OuterCompress;

/// What an outer step is done with.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OuterHyper {
    /// Outer learning rate.
    pub learning_rate: f64,
    /// Nesterov momentum; 0 is plain SGD.
    pub momentum: f64,
    /// How vectors travel.
    pub compress: OuterCompress,
}

/// One site's part in a round.
#[derive(Debug, Clone, Copy)]
pub struct Part<'a> {
    /// Its encoded delta.
    pub payload: &'a [u8],
    /// Target tokens behind it: its weight in the average.
    pub tokens: u64,
}

/// What a round did.
#[derive(Debug, Clone, PartialEq)]
pub struct Stepped {
    /// The change of the parameters as it is sent: to be subtracted from what the round began with.
    pub update: Vec<u8>,
    /// L2 norm of the averaged delta.
    pub delta_norm: f64,
}

/// The state that the coordinator keeps: flat vectors over all parameters.
#[derive(Debug, Clone, PartialEq)]
pub struct OuterState {
    /// Rounds done.
    pub round: u64,
    /// The parameters that every site begins the round with.
    pub theta: Vec<f32>,
    /// Nesterov momentum.
    pub momentum: Vec<f32>,
    /// What compression has kept back of earlier updates; empty without compression.
    pub residual: Vec<f32>,
}

impl OuterState {
    /// Round 0 with these parameters.
    #[must_use]
    pub fn new(theta: Vec<f32>, compress: OuterCompress) -> Self {
        let len = theta.len();
        let residual = if compress == OuterCompress::None { 0 } else { len };
        Self { round: 0, theta, momentum: vec![0.0; len], residual: vec![0.0; residual] }
    }

    /// Makes a round of the deltas in `parts`, which stand in the order of the sites' names.
    ///
    /// # Errors
    /// When a part cannot be decoded or the result is not finite; the state is then as it was.
    pub fn step(&mut self, layout: &Layout, hyper: &OuterHyper, parts: &[Part<'_>]) -> Result<Stepped, QuantiseError> {
        let total: u64 = parts.iter().map(|part| part.tokens).sum();
        // Sites that skipped every step have no tokens; if all did, they count alike.
        let weight = |part: &Part<'_>| match total {
            0 => 1.0 / parts.len().max(1) as f64,
            total => part.tokens as f64 / total as f64,
        };
        let decoders = parts
            .iter()
            .map(|part| Ok((weight(part), layout.decoder(hyper.compress, part.payload)?)))
            .collect::<Result<Vec<_>, QuantiseError>>()?;
        let (mut momentum, mut update) = (self.momentum.clone(), self.residual.clone());
        update.resize(layout.len(), 0.0);
        let mut sum_squares = 0.0;
        let mut average = Vec::new();
        for (index, block) in layout.blocks().iter().enumerate() {
            average.clear();
            average.resize(block.len(), 0.0_f64);
            for (weight, decoder) in &decoders {
                average.iter_mut().zip(decoder.block(index)).for_each(|(sum, value)| *sum += weight * f64::from(value));
            }
            let state = momentum.iter_mut().skip(block.start).zip(update.iter_mut().skip(block.start));
            for ((momentum, update), gradient) in state.zip(&average) {
                sum_squares += gradient * gradient;
                let moved = hyper.momentum * f64::from(*momentum) + gradient;
                *momentum = moved as f32;
                *update += (hyper.learning_rate * (gradient + hyper.momentum * moved)) as f32;
            }
        }
        let encoded = layout.encode(hyper.compress, &mut update)?;
        apply(layout, hyper.compress, &encoded, &mut self.theta)?;
        update.truncate(self.residual.len());
        (self.momentum, self.residual) = (momentum, update);
        self.round += 1;
        Ok(Stepped { update: encoded, delta_norm: sum_squares.sqrt() })
    }

    /// Hex BLAKE3 of everything that later rounds depend on.
    #[must_use]
    pub fn digest(&self) -> String {
        let vectors = digest(&[&self.theta, &self.momentum, &self.residual]);
        blake3::hash(format!("{} {vectors}", self.round).as_bytes()).to_hex().to_string()
    }
}

/// Subtracts an encoded update: coordinator and sites call this with the same bytes and hold the same bits afterwards.
///
/// # Errors
/// When the bytes cannot be decoded, or the result is not finite; `theta` is then as it was.
pub fn apply(layout: &Layout, compress: OuterCompress, update: &[u8], theta: &mut [f32]) -> Result<(), QuantiseError> {
    let decoder = layout.decoder(compress, update)?;
    let mut bad = None;
    for (index, block) in layout.blocks().iter().enumerate() {
        let is_finite =
            theta.iter().skip(block.start).zip(decoder.block(index)).all(|(theta, u)| (theta - u).is_finite());
        if !is_finite {
            bad = bad.or(Some(block.start));
        }
    }
    if let Some(at) = bad {
        return Err(QuantiseError::NotFinite(at));
    }
    decoder.each(theta, |theta, update| *theta -= update);
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    fn encoded(layout: &Layout, compress: OuterCompress, values: &[f32]) -> Vec<u8> {
        layout.encode(compress, &mut values.to_vec()).unwrap()
    }

    /// Five steps of `torch.optim.SGD(lr=0.7, momentum=0.9, nesterov=True)` on one weight, computed by the recursion
    /// as torch documents it (with torch, the first momentum is the gradient itself, as here).
    #[test]
    fn nesterov_is_that_of_torch() {
        let layout = Layout::of_sizes([1]);
        let hyper = OuterHyper { learning_rate: 0.7, momentum: 0.9, compress: OuterCompress::None };
        let mut state = OuterState::new(vec![1.0], hyper.compress);
        let (mut weight, mut buffer) = (1.0_f64, 0.0_f64);
        for gradient in [0.5_f32, -0.25, 0.125, 1.0, 0.0] {
            let payload = encoded(&layout, hyper.compress, &[gradient]);
            state.step(&layout, &hyper, &[Part { payload: &payload, tokens: 3 }]).unwrap();
            buffer = 0.9 * buffer + f64::from(gradient);
            weight -= 0.7 * (f64::from(gradient) + 0.9 * buffer);
            assert!((f64::from(state.theta[0]) - weight).abs() < 1e-6, "{} {weight}", state.theta[0]);
        }
        assert_eq!(state.round, 5);
    }

    #[test]
    fn sites_count_by_their_tokens() {
        let layout = Layout::of_sizes([2]);
        let hyper = OuterHyper { learning_rate: 1.0, momentum: 0.0, compress: OuterCompress::None };
        let (a, b) = (encoded(&layout, hyper.compress, &[1.0, 0.0]), encoded(&layout, hyper.compress, &[0.0, 4.0]));
        let mut state = OuterState::new(vec![0.0, 0.0], hyper.compress);
        let parts = [Part { payload: &a, tokens: 30 }, Part { payload: &b, tokens: 10 }];
        let stepped = state.step(&layout, &hyper, &parts).unwrap();
        assert_eq!(state.theta, [-0.75, -1.0]);
        assert!((stepped.delta_norm - 1.25).abs() < 1e-12);
        let idle = [Part { payload: &a, tokens: 0 }, Part { payload: &b, tokens: 0 }];
        state.step(&layout, &hyper, &idle).unwrap();
        assert_eq!(state.theta, [-1.25, -3.0]);
    }

    #[test]
    fn sites_and_coordinator_hold_the_same_bits_and_errors_are_fed_back() {
        let layout = Layout::of_sizes([700, 1500]);
        let hyper = OuterHyper { learning_rate: 0.7, momentum: 0.9, compress: OuterCompress::Int8 };
        let start: Vec<f32> = (0..layout.len()).map(|i| (i as f32 * 0.37).sin()).collect();
        let (mut state, mut site) = (OuterState::new(start.clone(), hyper.compress), start.clone());
        let exact_hyper = OuterHyper { compress: OuterCompress::None, ..hyper };
        let mut exact = OuterState::new(start, OuterCompress::None);
        for round in 0..20 {
            let delta: Vec<f32> = (0..layout.len()).map(|i| ((i * 7 + round) as f32).cos() * 0.01).collect();
            let payload = encoded(&layout, hyper.compress, &delta);
            let whole = encoded(&layout, OuterCompress::None, &delta);
            let update = state.step(&layout, &hyper, &[Part { payload: &payload, tokens: 1 }]).unwrap().update;
            apply(&layout, hyper.compress, &update, &mut site).unwrap();
            assert_eq!(digest(&[&site]), digest(&[&state.theta]), "round {round}");
            exact.step(&layout, &exact_hyper, &[Part { payload: &whole, tokens: 1 }]).unwrap();
        }
        let off = exact.theta.iter().zip(&state.theta).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(off < 0.02, "20 rounds of updates of about 0.05 each stay within {off}");
    }

    #[test]
    fn a_bad_part_changes_nothing() {
        let layout = Layout::of_sizes([2]);
        let hyper = OuterHyper { learning_rate: 0.7, momentum: 0.9, compress: OuterCompress::None };
        let mut state = OuterState::new(vec![1.0, 2.0], hyper.compress);
        let before = state.clone();
        let good = encoded(&layout, hyper.compress, &[0.1, 0.1]);
        let huge = encoded(&layout, hyper.compress, &[f32::MAX, 0.0]);
        for payload in [&good[..7], &f32::NAN.to_le_bytes().repeat(2), &huge] {
            let parts = [Part { payload: &good, tokens: 1 }, Part { payload, tokens: 1 << 40 }];
            assert!(state.step(&layout, &OuterHyper { learning_rate: 1.9, ..hyper }, &parts).is_err());
            assert_eq!(state, before);
        }
    }
}
