//! Owns the comparison of an evaluation with the first of its run: which languages got worse; never touches training.
//!
//! A run that continues a trained model may gain on average and lose a language that the average hides. The first
//! evaluation, made before the first step, is the base model's score.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use crate::events::EvalRecord;

/// A language whose bits per byte rose by less than this share has not got worse: evaluations of a few thousand tokens
/// differ by as much from one checkpoint to the next.
const NOTICED: f64 = 0.01;

/// One language that got worse.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Worse {
    /// Language and script.
    pub language: String,
    /// Bits per byte at the first evaluation of the run.
    pub before: f64,
    /// Bits per byte now.
    pub now: f64,
    /// Rise as a share of `before`: 0.05 is 5 %.
    pub rise: f64,
}

/// Languages that got worse since the first evaluation.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Regression {
    /// Steps done.
    pub step: u64,
    /// The languages, worst first.
    pub languages: Vec<Worse>,
    /// Mean of the changes of all languages, each as a share of its first score; below 0 is better.
    pub mean_change: f64,
}

impl fmt::Display for Regression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, worse) in self.languages.iter().enumerate() {
            let (percent, Worse { language, before, now, .. }) = (worse.rise * 100.0, worse);
            let comma = if i > 0 { ", " } else { "" };
            write!(f, "{comma}{language} got worse by {percent:.1} % ({before:.3} -> {now:.3} bits per byte)")?;
        }
        match self.mean_change {
            mean if mean < 0.0 => write!(f, " while the mean improved by {:.1} %", -mean * 100.0),
            mean => write!(f, " and the mean by {:.1} %", mean * 100.0),
        }
    }
}

/// How much a language has risen over its first score, as a share of it; a score that is no number has risen without
/// bound. `None` where the language was not scored at first.
pub fn rise(first: &BTreeMap<String, f64>, eval: &EvalRecord, language: &str) -> Option<f64> {
    let before = *first.get(language)?;
    let now = eval.val.get(language).map_or(f64::NAN, |score| score.bpb);
    let rise = (now - before) / before.max(f64::MIN_POSITIVE);
    Some(if rise.is_nan() { f64::INFINITY } else { rise })
}

/// The languages that are worse than at the first evaluation; `None` when there are none.
pub fn find(first: &BTreeMap<String, f64>, eval: &EvalRecord) -> Option<Regression> {
    let rises: Vec<(&String, f64, f64)> =
        first.iter().filter_map(|(language, before)| Some((language, *before, rise(first, eval, language)?))).collect();
    let mean_change = rises.iter().map(|(_, _, rise)| rise).sum::<f64>() / rises.len().max(1) as f64;
    let mut languages: Vec<Worse> = rises
        .into_iter()
        .filter(|(_, _, rise)| *rise > NOTICED)
        .map(|(language, before, rise)| Worse {
            language: language.clone(),
            before,
            now: eval.val.get(language).map_or(f64::NAN, |score| score.bpb),
            rise,
        })
        .collect();
    languages.sort_by(|a, b| b.rise.total_cmp(&a.rise).then(a.language.cmp(&b.language)));
    (!languages.is_empty()).then_some(Regression { step: eval.step, languages, mean_change })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::LanguageScore;

    fn first() -> BTreeMap<String, f64> {
        [("ary_Arab", 2.0), ("ary_Latn", 3.0), ("fra_Latn", 1.0)].map(|(l, b)| (l.to_owned(), b)).into()
    }

    fn eval(scores: &[(&str, f64)]) -> EvalRecord {
        let score = |bpb: f64| LanguageScore { bpb, loss: 1.0, tokens: 1, bytes: 1 };
        let val = scores.iter().map(|(l, bpb)| ((*l).to_owned(), score(*bpb))).collect();
        EvalRecord { step: 7, val_bpb_all: 1.0, val, seconds: 0.0, energy_joules: None }
    }

    #[test]
    fn one_language_is_worse_while_the_mean_improves() {
        let found = find(&first(), &eval(&[("ary_Arab", 1.5), ("ary_Latn", 2.4), ("fra_Latn", 1.05)]));
        let text = found.map(|found| found.to_string()).unwrap_or_default();
        assert_eq!(
            text,
            "fra_Latn got worse by 5.0 % (1.000 -> 1.050 bits per byte) while the mean improved by 13.3 %"
        );
    }

    #[test]
    fn small_rises_are_noise_and_lost_scores_are_the_worst() {
        assert_eq!(find(&first(), &eval(&[("ary_Arab", 2.0), ("ary_Latn", 3.02), ("fra_Latn", 1.009)])), None);
        let lost = find(&first(), &eval(&[("ary_Arab", 2.2), ("fra_Latn", 0.9)]));
        let names: Vec<String> = lost.into_iter().flat_map(|l| l.languages).map(|w| w.language).collect();
        assert_eq!(names, ["ary_Latn", "ary_Arab"]);
        assert_eq!(rise(&first(), &eval(&[]), "zgh_Tfng"), None);
    }
}
