//! Owns what a finished run tells people: the facts of its data, the model card of an export, the page `report.html`;
//! never touches weights. Everything is read from the run directory, so a report can be made again at any time.

pub mod chart;
mod course;
pub mod data;
pub mod happened;
pub mod html;
pub mod markdown;

use std::path::{Path, PathBuf};

use serde_json::Value;

use self::data::DataFacts;
use crate::durable;
use crate::eval::results::Results;

/// Largest log that is read, bytes.
const LOG_LIMIT_BYTES: u64 = 4 << 30;
/// Largest of the other files, bytes.
const FILE_LIMIT_BYTES: u64 = 64 << 20;

/// What a run directory says about itself; what is absent or unreadable is empty.
#[derive(Debug, Clone, Default)]
pub struct RunFacts {
    /// The run directory.
    pub root: PathBuf,
    /// `plan.json`.
    pub plan: Value,
    /// `config.resolved.yaml`.
    pub config: String,
    /// Records of logged steps.
    pub steps: Vec<Value>,
    /// Records of evaluations.
    pub evaluations: Vec<Value>,
    /// Digests of parameters.
    pub digests: Vec<Value>,
    /// `events.jsonl`.
    pub events: Vec<Value>,
    /// `data.json`.
    pub data: DataFacts,
    /// Results of `jazari eval` at the latest step.
    pub results: Option<Results>,
}

impl RunFacts {
    /// Reads a run directory.
    pub fn read(root: &Path) -> Self {
        let text = |name: &str| durable::read_text(&root.join(name), FILE_LIMIT_BYTES).unwrap_or_default();
        let lines = |name: &str| -> Vec<Value> {
            let text = durable::read_text(&root.join(name), LOG_LIMIT_BYTES).unwrap_or_default();
            text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
        };
        let (steps, others): (Vec<Value>, Vec<Value>) =
            lines("metrics.jsonl").into_iter().partition(|record| record.get("loss").is_some());
        let (evaluations, digests) = others.into_iter().partition(|record| record.get("val").is_some());
        Self {
            root: root.to_owned(),
            plan: serde_json::from_str(&text("plan.json")).unwrap_or_default(),
            config: text("config.resolved.yaml"),
            steps,
            evaluations,
            digests,
            events: lines("events.jsonl"),
            data: serde_json::from_str(&text(data::FILE)).unwrap_or_default(),
            results: Results::newest(root),
        }
    }

    /// A value of the plan by its JSON pointer, as text.
    pub fn planned(&self, pointer: &str) -> Option<String> {
        match self.plan.pointer(pointer)? {
            Value::String(text) => Some(text.clone()),
            Value::Null => None,
            other => Some(other.to_string()),
        }
    }

    /// The newest event of a kind.
    pub fn event(&self, kind: &str) -> Option<&Value> {
        self.events.iter().rev().find(|event| event.get("event").and_then(Value::as_str) == Some(kind))
    }

    /// Target tokens and bytes of text that the model was shown by the last record, by language.
    pub fn seen(&self) -> Vec<(String, f64, f64)> {
        let last = self.steps.last().and_then(|record| record.get("seen")).and_then(Value::as_object);
        let figures = |(language, counts): (&String, &Value)| {
            Some((language.clone(), number(counts, "tokens")?, number(counts, "bytes")?))
        };
        last.into_iter().flatten().filter_map(figures).collect()
    }

    /// Bits per byte by language at an evaluation.
    pub fn scores(evaluation: &Value) -> Vec<(String, f64)> {
        let scores = evaluation.get("val").and_then(Value::as_object).into_iter().flatten();
        scores.filter_map(|(language, score)| Some((language.clone(), score.get("bpb")?.as_f64()?))).collect()
    }
}

/// A number of a record.
pub(crate) fn number(record: &Value, key: &str) -> Option<f64> {
    record.get(key).and_then(Value::as_f64)
}

/// The schedule in words.
pub(crate) fn schedule(facts: &RunFacts) -> String {
    let of = |key: &str| facts.planned(&format!("/schedule/{key}"));
    let mut text = format!("{}, peak {}", of("kind").unwrap_or_default(), of("peak").unwrap_or_default());
    if let Some(steps) = of("warmup_steps") {
        text.push_str(&format!(", {steps} steps of warm-up"));
    }
    text
}
