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

/// Chosen, its tokens, rejected, its tokens, reference of both.
type Pair = (f64, u64, f64, u64, (f64, f64));

const PAIRS: [Pair; 3] =
    [(-12.5, 7, -10.25, 5, (-13.0, -9.75)), (-3.0, 4, -40.0, 11, (-5.5, -38.0)), (-55.0, 20, -6.0, 3, (-50.0, -7.5))];

/// Loss, its slopes by both log-probabilities, and the margin, by the formulas written in PyTorch (f64, autograd).
const TORCH: [[f64; 4]; 12] = [
    [0.6443966600735709, -0.047502081252106004, 0.047502081252106004, 0.1],
    [0.4932489459974549, -0.03893607660507781, 0.03893607660507781, 0.45],
    [1.0700553357027152, -0.06570104626734988, 0.06570104626734988, -0.65],
    [0.5740769841801068, -0.08877033439907275, 0.08877033439907275, 0.5],
    [0.5502065589167472, 0.05232526755044524, -0.05232526755044524, 2.25],
    [2.638041371687783, -0.3813365563279353, 0.3813365563279353, -3.25],
    [1.9507463645201768, -0.164643602765701, 0.029137759398385497, 0.0792857142857142],
    [0.7589337844133774, -0.25417054409117995, 0.0008218424549724314, 0.8659090909090909],
    [3.1074331129537716, -0.06115647390980491, 0.08051879679816913, -0.22499999999999998],
    [0.9563885727893617, -0.17592052123052918, 0.24628872972274082, 0.528571428571428],
    [0.008421720906612867, -0.0041931787790737, 0.0015247922832995274, 5.7727272727272725],
    [2.5788897342925496, -0.09241418199787564, 0.6160945466525043, -1.5],
];

#[test]
fn losses_and_slopes_are_those_of_pytorch() {
    let cases = OBJECTIVES.iter().flat_map(|objective| PAIRS.iter().map(move |pair| (objective, pair)));
    for ((objective, &(chosen, n, rejected, m, reference)), expected) in cases.zip(TORCH) {
        let found = objective.pair(answer(chosen, n), answer(rejected, m), reference);
        let found = [found.loss, found.chosen_slope, found.rejected_slope, found.margin];
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-12, "{objective:?} {chosen} {rejected}: {found} and {expected}");
        }
    }
}
