//! The losses against numbers computed with PyTorch, and their slopes against differences.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use proptest::prelude::*;

use super::*;

fn answer(log_prob: f64, tokens: u64) -> Answer {
    Answer { log_prob, tokens }
}

const OBJECTIVES: [Objective; 4] = [
    Objective::Dpo { beta: 0.1, label_smoothing: 0.0 },
    Objective::Dpo { beta: 0.5, label_smoothing: 0.2 },
    Objective::Orpo { beta: 0.3 },
    Objective::Simpo { beta: 2.0, gamma: 1.0 },
];

proptest! {
    #[test]
    fn slopes_are_those_of_the_loss(
        chosen in -80.0..-0.5_f64, rejected in -80.0..-0.5_f64, n in 1..40_u64, m in 1..40_u64,
        reference in (-80.0..0.0_f64, -80.0..0.0_f64),
    ) {
        const STEP: f64 = 1e-6;
        for objective in OBJECTIVES {
            let loss = |c: f64, r: f64| objective.pair(answer(c, n), answer(r, m), reference).loss;
            let found = objective.pair(answer(chosen, n), answer(rejected, m), reference);
            let by_chosen = (loss(chosen + STEP, rejected) - loss(chosen - STEP, rejected)) / (2.0 * STEP);
            let by_rejected = (loss(chosen, rejected + STEP) - loss(chosen, rejected - STEP)) / (2.0 * STEP);
            let near = |a: f64, b: f64| (a - b).abs() < 1e-5 * a.abs().max(1.0);
            prop_assert!(near(found.chosen_slope, by_chosen), "{:?}: {} and {}", objective, found.chosen_slope, by_chosen);
            prop_assert!(near(found.rejected_slope, by_rejected), "{:?}: {} and {}", objective, found.rejected_slope, by_rejected);
            prop_assert!(found.loss.is_finite());
        }
    }
}

#[test]
fn extreme_log_probabilities_stay_finite() {
    for objective in OBJECTIVES {
        for (chosen, rejected) in [(-1e6, 0.0), (0.0, -1e6), (0.0, 0.0), (-1e6, -1e6)] {
            let pair = objective.pair(answer(chosen, 3), answer(rejected, 5), (0.0, 0.0));
            let all = [pair.loss, pair.chosen_slope, pair.rejected_slope, pair.margin];
            assert!(all.iter().all(|x| x.is_finite()), "{objective:?} {chosen} {rejected}: {all:?}");
        }
    }
}
