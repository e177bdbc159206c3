//! Owns the `expect:` block of a config, which turns a run into a convergence test; never touches training.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::checkpoint::LossSpan;
use crate::events::EvalRecord;
use crate::regression;

/// What the finished run must show; anything missed ends the program with exit code 3.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Expect {
    /// The last training loss, nats a token, must be below this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub final_loss_below: Option<f64>,
    /// The last training loss must be at least this much below the first, nats a token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loss_drop_at_least: Option<f64>,
    /// Validation bits per byte that each named language must end below, e.g. `{ary_Arab: 2.5}`; `all` is the total.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub val_bpb_below: BTreeMap<String, f64>,
    /// Validation bits per byte of every language must be lower at the end than at the first evaluation, which a fresh
    /// run makes before its first step.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub every_language_improves: bool,
    /// Most that the bits per byte of each named language may rise over the first evaluation, as a share of it:
    /// `{fra_Latn: 0.05}` allows 5 %. For runs that continue a trained model.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub max_regression: BTreeMap<String, f64>,
}

impl Expect {
    /// Whether nothing is expected.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The expectations that were missed, one sentence each; empty when all were met.
    pub fn missed(&self, losses: &LossSpan, eval: Option<&EvalRecord>) -> Vec<String> {
        let mut missed = Vec::new();
        if let Some(limit) = self.final_loss_below {
            match losses.last {
                Some(loss) if loss < limit => {}
                Some(loss) => missed.push(format!("final_loss_below: {limit}, the last loss is {loss:.4}")),
                None => missed.push(format!("final_loss_below: {limit}, but no step was applied")),
            }
        }
        if let Some(drop) = self.loss_drop_at_least {
            match (losses.first, losses.last) {
                (Some(first), Some(last)) if first - last >= drop => {}
                (Some(first), Some(last)) => missed.push(format!(
                    "loss_drop_at_least: {drop}, the loss went from {first:.4} to {last:.4} ({:.4})",
                    first - last
                )),
                _ => missed.push(format!("loss_drop_at_least: {drop}, but no step was applied")),
            }
        }
        for (language, limit) in &self.val_bpb_below {
            let bpb = match (eval, language.as_str()) {
                (Some(eval), "all") => Some(eval.val_bpb_all),
                (Some(eval), language) => eval.val.get(language).map(|score| score.bpb),
                (None, _) => None,
            };
            match bpb {
                Some(bpb) if bpb < *limit => {}
                Some(bpb) => missed.push(format!("val_bpb_below: {language}: {limit}, measured {bpb:.4}")),
                None => missed.push(format!("val_bpb_below: {language}: {limit}, but the language was not evaluated")),
            }
        }
        if self.every_language_improves {
            missed.extend(not_improved(losses, eval));
        }
        missed.extend(
            self.max_regression.iter().filter_map(|(language, limit)| too_much_worse(language, *limit, losses, eval)),
        );
        missed
    }
}

/// Why a language misses its `max_regression`.
fn too_much_worse(language: &str, limit: f64, losses: &LossSpan, eval: Option<&EvalRecord>) -> Option<String> {
    match eval.and_then(|eval| regression::rise(&losses.first_val_bpb, eval, language)) {
        Some(rise) if rise <= limit => None,
        Some(rise) => Some(format!("max_regression: {language}: {limit}, its bits per byte rose by {rise:.4}")),
        None => Some(format!("max_regression: {language}: {limit}, but there are no two evaluations of it")),
    }
}

fn not_improved(losses: &LossSpan, eval: Option<&EvalRecord>) -> Vec<String> {
    let Some(eval) = eval.filter(|_| !losses.first_val_bpb.is_empty()) else {
        return vec!["every_language_improves: true, but there are no two evaluations".into()];
    };
    let last = |language: &String| eval.val.get(language).map_or(f64::NAN, |score| score.bpb);
    let pairs = losses.first_val_bpb.iter().map(|(language, first)| (language, *first, last(language)));
    // A value that is not a number compares to nothing, so it counts as a miss.
    let worse = pairs.filter(|(_, first, last)| last.partial_cmp(first) != Some(Ordering::Less));
    worse.map(|(language, a, b)| format!("every_language_improves: {language} went from {a:.4} to {b:.4}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::LanguageScore;

    fn eval(bpb: f64) -> EvalRecord {
        let score = LanguageScore { bpb, loss: 1.0, tokens: 1, bytes: 1 };
        EvalRecord {
            step: 1,
            val_bpb_all: bpb,
            val: [("ary_Arab".to_owned(), score)].into(),
            seconds: 0.0,
            energy_joules: None,
        }
    }

    #[test]
    fn met_and_missed() {
        let expect = Expect {
            final_loss_below: Some(2.0),
            loss_drop_at_least: Some(1.0),
            val_bpb_below: [("ary_Arab".to_owned(), 1.5), ("all".to_owned(), 1.5)].into(),
            every_language_improves: true,
            max_regression: [("ary_Arab".to_owned(), -0.05)].into(),
        };
        let losses = |first, last| LossSpan {
            first: Some(first),
            last: Some(last),
            first_val_bpb: [("ary_Arab".to_owned(), 1.5)].into(),
        };
        assert!(expect.missed(&losses(3.0, 1.9), Some(&eval(1.4))).is_empty());
        assert_eq!(expect.missed(&losses(2.5, 2.0), Some(&eval(1.5))).len(), 6);
        assert_eq!(expect.missed(&losses(f64::NAN, f64::NAN), Some(&eval(f64::NAN))).len(), 6, "NaN meets nothing");
        assert_eq!(expect.missed(&LossSpan::default(), None).len(), 6);
        assert!(Expect::default().is_empty() && !expect.is_empty());
    }

    #[test]
    fn a_language_that_was_not_evaluated_is_a_miss() {
        let expect = Expect { val_bpb_below: [("zgh_Tfng".to_owned(), 9.0)].into(), ..Expect::default() };
        assert!(expect.missed(&LossSpan::default(), Some(&eval(1.0)))[0].contains("was not evaluated"));
    }
}
