//! Owns samples of what a model writes after given prompts; never judges them.

use std::ops::ControlFlow;
use std::path::Path;

use data_pipeline::records::read_records;
use model_zoo::generate::{Finish, GenerateOptions, Sampling, generate};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::subject::Subject;
use super::{EvalError, Watch};

/// A prompt with what the model wrote.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// The beginning that was given.
    pub prompt: String,
    /// What the model added.
    pub text: String,
    /// `end`: the model ended the text; `length`, `context`: it was cut.
    pub finish: String,
}

/// How samples are made.
#[derive(Debug, Clone)]
pub struct SampleOptions {
    /// Most new tokens.
    pub max_tokens: usize,
    /// How each is chosen.
    pub sampling: Sampling,
    /// Seed of the draws; each prompt draws the same numbers.
    pub seed: u64,
}

/// Continues the field `prompt` (or `text`) of every record of a table, in its order.
///
/// # Errors
/// A table that cannot be read; a prompt that the model cannot take.
pub fn samples(
    subject: &Subject,
    table: &Path,
    options: &SampleOptions,
    watch: &Watch<'_>,
) -> Result<Vec<Sample>, EvalError> {
    let records = read_records(table)?;
    let mut samples = Vec::with_capacity(records.len());
    for (index, record) in records.iter().enumerate() {
        let prompt = record.get("prompt").or(record.get("text")).and_then(Value::as_str);
        let prompt = prompt.ok_or_else(|| EvalError::Question {
            task: table.display().to_string(),
            number: index + 1,
            what: "there is no text in the field `prompt`".into(),
        })?;
        let ids = subject.tokenizer.encode(prompt, true)?;
        let options = GenerateOptions {
            max_new_tokens: options.max_tokens,
            sampling: options.sampling,
            seed: options.seed,
            eos: subject.eos.clone(),
        };
        let mut go_on = |_| if watch.stop.is_set() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
        let made = generate(&subject.model, &subject.params, &ids, &options, &mut go_on)?;
        watch.at(index as u64 + 1, records.len() as u64)?;
        let finish = match made.finish {
            Finish::Eos(_) => "end",
            Finish::Length => "length",
            Finish::Context => "context",
            Finish::Stopped => return Err(EvalError::Stopped),
        };
        samples.push(Sample {
            prompt: prompt.to_owned(),
            text: subject.tokenizer.decode(&made.tokens, true)?,
            finish: finish.to_owned(),
        });
    }
    Ok(samples)
}
