//! Owns multiple choice by log-likelihood: how a question becomes requests, and accuracies with their standard errors;
//! never reads task files. Rules are those of lm-evaluation-harness 0.4.13 (`api/task.py`, `api/model.py`).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::score::{Request, log_likelihoods};
use super::subject::Subject;
use super::task::{Metric, Question, Task};
use super::{EvalError, Watch};

/// A share of right answers.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Accuracy {
    /// 0 to 1.
    pub value: f64,
    /// Standard error of the mean (from the sample's standard deviation); 0 for a single question.
    pub stderr: f64,
    /// Questions.
    pub questions: usize,
}

impl Accuracy {
    fn of(right: impl Iterator<Item = bool>) -> Self {
        let (mut hits, mut questions) = (0_usize, 0_usize);
        right.for_each(|hit| {
            hits += usize::from(hit);
            questions += 1;
        });
        let value = hits as f64 / questions.max(1) as f64;
        // Of zeros and ones, the sum of squared deviations is n p (1 - p).
        let variance = value * (1.0 - value) * questions as f64 / questions.saturating_sub(1).max(1) as f64;
        Self { value, stderr: (variance / questions.max(1) as f64).sqrt(), questions }
    }
}

/// Accuracies of one task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskResult {
    /// Solved examples before each question.
    pub num_fewshot: usize,
    /// What guessing would reach on average.
    pub chance: f64,
    /// By metric.
    pub metrics: BTreeMap<Metric, Accuracy>,
    /// By language and script, then by metric, where the records have a field `lang`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub languages: BTreeMap<String, BTreeMap<Metric, Accuracy>>,
}

/// What the model answered to one question.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Answered {
    /// Number of the question, from 1.
    pub question: usize,
    /// Language and script.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub language: Option<String>,
    /// The choices.
    pub choices: Vec<String>,
    /// Indices of the right ones.
    pub gold: Vec<usize>,
    /// Log-likelihood of each, nats.
    pub log_likelihoods: Vec<f64>,
    /// The index that each metric picks.
    pub picked: BTreeMap<Metric, usize>,
}

/// Asks all questions of a task.
///
/// # Errors
/// A question that does not fit the model; a device that fails; a stop.
pub fn answer(
    subject: &Subject,
    task: &Task,
    batch_tokens: usize,
    watch: &Watch<'_>,
) -> Result<(TaskResult, Vec<Answered>), EvalError> {
    let context = subject.model.config().max_positions();
    let mut requests = Vec::new();
    for (index, question) in task.questions.iter().enumerate() {
        let refused = |what: String| EvalError::Question { task: task.name.clone(), number: index + 1, what };
        for choice in &question.choices {
            let continuation = format!("{}{choice}", task.target_delimiter);
            let request = encode_pair(subject, &question.context, &continuation)?;
            if request.scored == 0 || request.scored > context {
                let (tokens, begins) = (request.scored, choice.chars().take(40).collect::<String>());
                let what = format!("the choice {begins:?} has {tokens} tokens; it must have 1 to {context}");
                return Err(refused(what));
            }
            requests.push(request);
        }
    }
    let scored = log_likelihoods(subject, &requests, batch_tokens, watch)?;
    let mut scores = scored.iter();
    let mut answers = Vec::with_capacity(task.questions.len());
    for (index, question) in task.questions.iter().enumerate() {
        let own: Vec<f64> = scores.by_ref().take(question.choices.len()).copied().collect();
        answers.push(judge(index + 1, question, &own, &task.metrics));
    }
    Ok((result(task, &answers), answers))
}

/// Token ids of a context and what follows it. White space at the end of the context goes over to the continuation,
/// because tokenizers join it with the word behind; the whole is encoded at once and cut at the context's length.
fn encode_pair(subject: &Subject, context: &str, continuation: &str) -> Result<Request, EvalError> {
    let tokenizer = &subject.tokenizer;
    if context.is_empty() {
        let mut tokens = tokenizer.encode(continuation, false)?;
        match subject.prefix() {
            // The continuation brings its own beginning.
            Some(prefix) if tokens.first() == Some(&prefix) => {}
            Some(prefix) => tokens.insert(0, prefix),
            None => {}
        }
        let scored = tokens.len().saturating_sub(1);
        return Ok(Request { tokens, scored });
    }
    let kept = context.trim_end();
    let moved = context.get(kept.len()..).unwrap_or_default();
    let whole = tokenizer.encode(&format!("{kept}{moved}{continuation}"), true)?;
    let context = tokenizer.encode(kept, true)?;
    Ok(Request { scored: whole.len().saturating_sub(context.len().max(1)), tokens: whole })
}

/// Which choice each metric picks; of equals the first.
fn judge(number: usize, question: &Question, scored: &[f64], metrics: &[Metric]) -> Answered {
    let pick = |metric: &Metric| {
        let lengths = question.choices.iter().map(|choice| metric.length(choice));
        let values: Vec<f64> = scored.iter().zip(lengths).map(|(nats, length)| nats / length).collect();
        let best = values
            .iter()
            .enumerate()
            .fold((0, f64::NEG_INFINITY), |best, (i, value)| if *value > best.1 { (i, *value) } else { best });
        (*metric, best.0)
    };
    Answered {
        question: number,
        language: question.language.clone(),
        choices: question.choices.clone(),
        gold: question.gold.clone(),
        log_likelihoods: scored.to_vec(),
        picked: metrics.iter().map(pick).collect(),
    }
}

fn result(task: &Task, answers: &[Answered]) -> TaskResult {
    let metrics = |wanted: Option<&String>| -> BTreeMap<Metric, Accuracy> {
        let of = |metric: &Metric| {
            let own = answers.iter().filter(|a| wanted.is_none() || a.language.as_ref() == wanted);
            let right = own.map(|a| a.picked.get(metric).is_some_and(|picked| a.gold.contains(picked)));
            (*metric, Accuracy::of(right))
        };
        task.metrics.iter().map(of).collect()
    };
    let mut languages: Vec<&String> = answers.iter().filter_map(|a| a.language.as_ref()).collect();
    languages.sort();
    languages.dedup();
    let chance: f64 = answers.iter().map(|a| a.gold.len() as f64 / a.choices.len().max(1) as f64).sum();
    TaskResult {
        num_fewshot: task.num_fewshot,
        chance: chance / answers.len().max(1) as f64,
        metrics: metrics(None),
        languages: languages.into_iter().map(|language| (language.clone(), metrics(Some(language)))).collect(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    fn question(choices: &[&str], gold: usize) -> Question {
        let choices = choices.iter().map(|choice| (*choice).to_owned()).collect();
        Question { context: "?".into(), choices, gold: vec![gold], language: None }
    }

    #[test]
    fn lengths_are_characters_or_bytes_and_ties_go_to_the_first() {
        let metrics = [Metric::Acc, Metric::AccNorm, Metric::AccBytes];
        // Per character -1, -1.5, -2.25; per byte -0.5, -1.5, -1.125.
        let picked = |nats: &[f64]| judge(1, &question(&["لا", "no", "لايه"], 0), nats, &metrics).picked;
        let first = picked(&[-2.0, -3.0, -9.0]);
        assert_eq!((first[&Metric::Acc], first[&Metric::AccNorm], first[&Metric::AccBytes]), (0, 0, 0));
        // -3 / 2 against -2.5 / 2 characters; -3 / 4 against -2.5 / 2 bytes.
        let second = picked(&[-3.0, -2.5, -9.0]);
        assert_eq!((second[&Metric::Acc], second[&Metric::AccNorm], second[&Metric::AccBytes]), (1, 1, 0));
        let tie = picked(&[-2.0, -2.0, -4.0]);
        assert_eq!((tie[&Metric::Acc], tie[&Metric::AccNorm], tie[&Metric::AccBytes]), (0, 0, 0));
    }

    #[test]
    fn standard_errors_are_those_of_the_sample() {
        let accuracy = Accuracy::of([true, false, false, true, false].into_iter());
        // Python: statistics.stdev([1, 0, 0, 1, 0]) / 5 ** 0.5
        assert!((accuracy.value - 0.4).abs() < 1e-15 && (accuracy.stderr - 0.244_948_974_278_317_8).abs() < 1e-15);
        assert_eq!(Accuracy::of([true].into_iter()).stderr, 0.0);
        assert_eq!(Accuracy::of(std::iter::empty()).questions, 0);
    }
}
