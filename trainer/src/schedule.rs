//! Owns the learning rate as a pure function of the step; never touches an optimizer or a clock.
//!
//! Steps count from 0. Warm-up rises in equal parts and reaches the peak at its last step, so step 0 already learns;
//! decay reaches its minimum exactly at the last step. Cosine: Loshchilov & Hutter, arXiv 1608.03983. Warm-up, stable,
//! decay: Hu et al., arXiv 2404.06395, with the linear decay of Hägele et al., arXiv 2405.18392.

use std::f64::consts::PI;

use serde::{Deserialize, Serialize};

/// Learning rate over a run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Schedule {
    /// Warm-up, then half a cosine from `peak` down to `min`.
    Cosine {
        /// Highest rate.
        peak: f64,
        /// Rate of the last step.
        min: f64,
        /// Steps of warm-up.
        warmup_steps: u64,
        /// Steps of the run.
        total_steps: u64,
    },
    /// Warm-up, stable at `peak`, then a straight line down to `min` over the last `decay_steps`.
    Wsd {
        /// Highest rate.
        peak: f64,
        /// Rate of the last step.
        min: f64,
        /// Steps of warm-up.
        warmup_steps: u64,
        /// Steps below the peak at the end.
        decay_steps: u64,
        /// Steps of the run.
        total_steps: u64,
    },
    /// Warm-up, then a straight line from `peak` down to `min`.
    Linear {
        /// Highest rate.
        peak: f64,
        /// Rate of the last step.
        min: f64,
        /// Steps of warm-up.
        warmup_steps: u64,
        /// Steps of the run.
        total_steps: u64,
    },
    /// Warm-up, then `peak` for ever.
    Constant {
        /// The rate.
        peak: f64,
        /// Steps of warm-up.
        warmup_steps: u64,
    },
}

impl Schedule {
    /// Learning rate of a step, counted from 0. Steps after the last one have the rate of the last.
    pub fn lr(&self, step: u64) -> f64 {
        let peak = self.peak();
        let warmup_steps = self.warmup_steps();
        if step < warmup_steps {
            // Written as one product and one quotient so that the last step of warm-up is the peak to the bit.
            return peak * ((step + 1) as f64 / warmup_steps as f64);
        }
        match *self {
            Schedule::Cosine { min, total_steps, .. } => {
                let progress = progress(step, warmup_steps.saturating_sub(1), total_steps);
                if progress == 0.0 { peak } else { min + (peak - min) * 0.5 * (1.0 + (PI * progress).cos()) }
            }
            Schedule::Linear { min, total_steps, .. } => {
                falling(peak, min, progress(step, warmup_steps.saturating_sub(1), total_steps))
            }
            Schedule::Wsd { min, decay_steps, total_steps, .. } => {
                let last_at_peak = total_steps.saturating_sub(1).saturating_sub(decay_steps);
                falling(peak, min, progress(step, last_at_peak, total_steps))
            }
            Schedule::Constant { .. } => peak,
        }
    }

    /// Highest rate.
    pub fn peak(&self) -> f64 {
        match *self {
            Schedule::Cosine { peak, .. }
            | Schedule::Wsd { peak, .. }
            | Schedule::Linear { peak, .. }
            | Schedule::Constant { peak, .. } => peak,
        }
    }

    /// Steps of warm-up.
    pub fn warmup_steps(&self) -> u64 {
        match *self {
            Schedule::Cosine { warmup_steps, .. }
            | Schedule::Wsd { warmup_steps, .. }
            | Schedule::Linear { warmup_steps, .. }
            | Schedule::Constant { warmup_steps, .. } => warmup_steps,
        }
    }
}

/// Share of the decay that is done: 0 up to the step `last_at_peak`, 1 from the last step on.
fn progress(step: u64, last_at_peak: u64, total_steps: u64) -> f64 {
    let span = total_steps.saturating_sub(1).saturating_sub(last_at_peak);
    let done = step.saturating_sub(last_at_peak).min(span);
    if span == 0 { 0.0 } else { done as f64 / span as f64 }
}

/// A straight line that is exactly `peak` at 0 and exactly `min` at 1.
fn falling(peak: f64, min: f64, progress: f64) -> f64 {
    if progress == 0.0 { peak } else { min + (peak - min) * (1.0 - progress) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    const PEAK: f64 = 6e-4;
    const MIN: f64 = 6e-5;

    fn cosine(warmup_steps: u64, total_steps: u64) -> Schedule {
        Schedule::Cosine { peak: PEAK, min: MIN, warmup_steps, total_steps }
    }

    fn linear(warmup_steps: u64, total_steps: u64) -> Schedule {
        Schedule::Linear { peak: PEAK, min: MIN, warmup_steps, total_steps }
    }

    fn wsd(warmup_steps: u64, decay_steps: u64, total_steps: u64) -> Schedule {
        Schedule::Wsd { peak: PEAK, min: MIN, warmup_steps, decay_steps, total_steps }
    }

    fn constant(warmup_steps: u64) -> Schedule {
        Schedule::Constant { peak: PEAK, warmup_steps }
    }

    /// Compares with closed forms; boundaries must hold to the bit, so `exact` rows allow no difference.
    #[track_caller]
    fn check(schedule: Schedule, exact: &[(u64, f64)], close: &[(u64, f64)]) {
        for &(step, lr) in exact {
            assert_eq!(schedule.lr(step).to_bits(), lr.to_bits(), "step {step}: {} is not {lr}", schedule.lr(step));
        }
        for &(step, lr) in close {
            assert!((schedule.lr(step) - lr).abs() <= 1e-15, "step {step}: {} is not {lr}", schedule.lr(step));
        }
    }

    #[test]
    fn cosine_meets_its_closed_form() {
        let half = MIN + (PEAK - MIN) * 0.5;
        let quarter = MIN + (PEAK - MIN) * 0.5 * (1.0 + std::f64::consts::FRAC_1_SQRT_2);
        // Warm-up 0..=9, decay over 9..=109: the middle is step 59, a quarter step 34.
        check(
            cosine(10, 110),
            &[(9, PEAK), (109, MIN), (110, MIN), (u64::MAX, MIN)],
            &[(0, PEAK / 10.0), (4, PEAK / 2.0), (59, half), (34, quarter)],
        );
        check(cosine(0, 101), &[(0, PEAK), (100, MIN)], &[(50, half)]);
    }

    #[test]
    fn linear_meets_its_closed_form() {
        check(
            linear(4, 14),
            &[(3, PEAK), (13, MIN), (14, MIN), (u64::MAX, MIN)],
            &[(0, PEAK / 4.0), (1, PEAK / 2.0), (8, (PEAK + MIN) / 2.0)],
        );
        check(linear(0, 2), &[(0, PEAK), (1, MIN)], &[]);
    }

    #[test]
    fn wsd_is_stable_then_falls() {
        check(
            wsd(5, 20, 100),
            &[(4, PEAK), (5, PEAK), (50, PEAK), (79, PEAK), (99, MIN), (100, MIN), (u64::MAX, MIN)],
            &[(0, PEAK / 5.0), (89, (PEAK + MIN) / 2.0)],
        );
        assert!(wsd(5, 20, 100).lr(80) < PEAK, "the decay takes its 20 steps: 80..=99");
        check(wsd(0, 99, 100), &[(0, PEAK), (99, MIN)], &[]);
    }

    #[test]
    fn constant_stays() {
        check(constant(3), &[(2, PEAK), (3, PEAK), (u64::MAX, PEAK)], &[(0, PEAK / 3.0)]);
        check(constant(0), &[(0, PEAK)], &[]);
    }

    #[test]
    fn the_shortest_runs_are_defined() {
        for schedule in [cosine(0, 1), linear(0, 1), wsd(0, 1, 1), constant(0)] {
            assert!(schedule.lr(0) > 0.0 && schedule.lr(0).is_finite(), "{schedule:?}");
        }
        check(cosine(1, 1), &[(0, PEAK)], &[]);
        check(linear(5, 5), &[(4, PEAK), (9, PEAK)], &[]);
    }

    #[test]
    fn the_rate_rises_then_never_rises_again() {
        for schedule in [cosine(7, 60), linear(7, 60), wsd(7, 13, 60), constant(7)] {
            for step in 0..80 {
                let (now, next) = (schedule.lr(step), schedule.lr(step + 1));
                assert!(if step < 6 { next > now } else { next <= now }, "{schedule:?} at {step}: {now} then {next}");
                assert!((0.0..=PEAK).contains(&now));
            }
        }
    }
}
