//! Owns dividing a whole among claimants by weight, none above its cap; never knows what is divided.

/// What a claimant gets.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Portion {
    /// Part of the whole; all parts sum to 1.
    pub share: f64,
    /// Whether the cap lowered it.
    pub capped: bool,
}

/// Rounding of the caps alone must not make an exact fit fail.
const SLACK: f64 = 1e-9;

/// Pours 1 into vessels in proportion to `weights`, none above its cap; what a full vessel refuses goes to the others
/// in proportion. `None` when all vessels with a weight are full before the whole is used up.
pub(crate) fn pour(weights: &[f64], caps: &[f64]) -> Option<Vec<Portion>> {
    let mut capped = vec![false; weights.len()];
    loop {
        let (mut full, mut open) = (0.0, 0.0);
        for ((&weight, &cap), &is_capped) in weights.iter().zip(caps).zip(&capped) {
            if is_capped {
                full += cap;
            } else {
                open += weight;
            }
        }
        let level = if open > 0.0 { (1.0 - full).max(0.0) / open } else { 0.0 };
        let mut changed = false;
        for ((&weight, &cap), is_capped) in weights.iter().zip(caps).zip(&mut capped) {
            if !*is_capped && weight > 0.0 && weight * level > cap * (1.0 + SLACK) {
                *is_capped = true;
                changed = true;
            }
        }
        if changed {
            continue;
        }
        if open <= 0.0 && full < 1.0 - SLACK {
            return None;
        }
        let portion = |((&weight, &cap), &is_capped): ((&f64, &f64), &bool)| Portion {
            share: if is_capped { cap } else { weight * level },
            capped: is_capped,
        };
        return Some(weights.iter().zip(caps).zip(&capped).map(portion).collect());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_one_cannot_take_goes_to_the_others_in_proportion() {
        let portions = pour(&[6.0, 3.0, 1.0], &[0.2, 1.0, 1.0]);
        let shares: Vec<f64> = portions.iter().flatten().map(|p| p.share).collect();
        assert!((shares[0] - 0.2).abs() < 1e-12 && (shares[1] - 0.6).abs() < 1e-12 && (shares[2] - 0.2).abs() < 1e-12);
        let capped: Vec<bool> = portions.iter().flatten().map(|p| p.capped).collect();
        assert_eq!(capped, [true, false, false]);
        assert_eq!(pour(&[1.0, 1.0], &[0.4, 0.5]), None);
        assert_eq!(pour(&[1.0, 0.0], &[0.4, 9.0]), None);
        assert_eq!(pour(&[0.0, 0.0], &[1.0, 1.0]), None);
    }

    proptest! {
        #[test]
        fn shares_sum_to_one_respect_caps_and_keep_proportions(
            vessels in proptest::collection::vec((0.0..10.0_f64, 0.0..0.6_f64), 1..9)
        ) {
            let (weights, caps): (Vec<f64>, Vec<f64>) = vessels.into_iter().unzip();
            let room: f64 = weights.iter().zip(&caps).filter(|(w, _)| **w > 0.0).map(|(_, c)| *c).sum();
            let portions = pour(&weights, &caps);
            prop_assert_eq!(portions.is_some(), room >= 1.0 - 1e-6, "room {}", room);
            let Some(portions) = portions else { return Ok(()) };
            prop_assert!((portions.iter().map(|p| p.share).sum::<f64>() - 1.0).abs() < 1e-6);
            let mut level = None;
            for ((portion, &weight), &cap) in portions.iter().zip(&weights).zip(&caps) {
                prop_assert!(portion.share <= cap * (1.0 + 1e-6));
                if !portion.capped && weight > 0.0 {
                    let ratio = portion.share / weight;
                    prop_assert!((ratio - *level.get_or_insert(ratio)).abs() < 1e-9);
                }
            }
        }
    }
}
