//! Owns `jazari eval`: arguments, progress and the table of results; never scores anything itself.

use std::cell::RefCell;
use std::path::PathBuf;

use clap::Args;
use model_zoo::generate::Sampling;
use serde_json::json;

use super::failure::{Exit, Failure, note, say};
use super::progress::{StageProgress, thousands};
use crate::card;
use crate::device::{self, DeviceChoice};
use crate::durable;
use crate::eval::choice::{Accuracy, TaskResult, answer};
use crate::eval::results::Results;
use crate::eval::sample::{SampleOptions, samples};
use crate::eval::subject::Subject;
use crate::eval::task::{Task, TaskOptions, refuse_doubles};
use crate::eval::text::{self, TextOptions, TextResult};
use crate::eval::{EvalError, Progress, Watch};
use crate::signals::StopFlag;

#[derive(Debug, Args)]
pub(super) struct EvalArguments {
    /// A run directory (its newest valid checkpoint is taken), a checkpoint or a Hugging Face directory
    model: PathBuf,
    /// Adapter to put on the model, as PEFT saves it
    #[arg(long, value_name = "DIR")]
    adapter: Option<PathBuf>,
    /// Bits per byte of the held-out documents of a prepared data set; a run's own, when nothing else is asked for
    #[arg(long, value_name = "DATASET")]
    data: Vec<PathBuf>,
    /// Bits per byte of raw text: .jsonl with `text`, `lang` and `script`, .txt, .csv, .parquet
    #[arg(long, value_name = "FILE")]
    text: Vec<String>,
    /// Multiple choice: task files in the format of lm-evaluation-harness
    #[arg(long, value_name = "YAML", num_args = 1..)]
    tasks: Vec<PathBuf>,
    /// Folder with the data sets that task files name as on the Hub
    #[arg(long, value_name = "DIR")]
    task_data: Option<PathBuf>,
    /// Solved examples before each question; default: what the task says
    #[arg(long, value_name = "N")]
    num_fewshot: Option<usize>,
    /// Most questions of a task
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Continue the prompts of a table: a field `prompt` in .jsonl, .csv or .parquet
    #[arg(long, value_name = "PROMPTS")]
    generate: Option<PathBuf>,
    /// Most tokens of a sample
    #[arg(long, default_value_t = 64, value_name = "N")]
    max_tokens: usize,
    /// Of samples: 0 always takes the likeliest token
    #[arg(long, default_value_t = 0.0)]
    temperature: f64,
    /// Seed of the samples
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Tokens of a row of text; default: that of the run, or at most 1024
    #[arg(long, value_name = "N")]
    sequence_len: Option<usize>,
    /// Most tokens of text to score in each language
    #[arg(long, default_value_t = 1 << 20, value_name = "N")]
    max_tokens_per_language: u64,
    /// Tokens that go through the model at once; less takes less memory
    #[arg(long, default_value_t = 4096, value_name = "N")]
    batch_tokens: usize,
    /// Folder with tokenizer.json; default: that of the run or of the directory
    #[arg(long, value_name = "DIR")]
    tokenizer: Option<PathBuf>,
    /// Also write the results to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Also write every question with its log-likelihoods to this file, a JSON object a line
    #[arg(long, value_name = "FILE")]
    log_samples: Option<PathBuf>,
    /// Where to compute: auto, cpu, cuda:N, wgpu:N
    #[arg(long, default_value = "auto")]
    device: DeviceChoice,
}

/// Evaluates a model.
pub(super) fn eval(arguments: &EvalArguments) -> Result<Exit, Failure> {
    let stop = StopFlag::install(true).map_err(Failure::failed)?;
    // Tables are read before the model: a mistake in a task shows at once.
    let options =
        TaskOptions { data: arguments.task_data.clone(), num_fewshot: arguments.num_fewshot, limit: arguments.limit };
    let load = |path: &PathBuf| Task::load(path, &options).map(|task| (path.clone(), task));
    let tasks: Vec<(PathBuf, Task)> = arguments.tasks.iter().map(load).collect::<Result<_, _>>()?;
    refuse_doubles(&tasks)?;
    let opened = device::open(arguments.device, None).map_err(Failure::usage)?;
    let mut subject = Subject::open(&arguments.model, arguments.tokenizer.as_deref(), &opened.device)?;
    if let Some(dir) = &arguments.adapter {
        subject = subject.with_adapter(dir)?;
    }
    let asks = !arguments.text.is_empty() || !tasks.is_empty() || arguments.generate.is_some();
    let data = match (arguments.data.is_empty() && !asks, subject.data_set()) {
        (true, Some(own)) => vec![own],
        (true, None) => {
            let what = "say what to evaluate on: --data DATASET, --text FILE, --tasks YAML or --generate PROMPTS";
            return Err(Failure::usage(what));
        }
        (false, _) => arguments.data.clone(),
    };
    note(&format!(
        "evaluating {} ({:.2} M parameters) on {}",
        subject.path().display(),
        subject.params.num_elements() as f64 / 1e6,
        opened.summary()
    ));
    let results = run(arguments, &subject, &data, &tasks, &stop)?;
    if let Some(path) = &arguments.json {
        durable::write_atomic(path, results.to_json().as_bytes()).map_err(Failure::failed)?;
    }
    if let Some(run) = &subject.run {
        let path = results.add_to_run(run)?;
        card::html::write_report(run).map_err(Failure::failed)?;
        note(&format!("added to {} and to the run's report.html", path.display()));
    }
    Ok(Exit::Done)
}

fn run(
    arguments: &EvalArguments,
    subject: &Subject,
    data: &[PathBuf],
    tasks: &[(PathBuf, Task)],
    stop: &StopFlag,
) -> Result<Results, Failure> {
    let shown = RefCell::new(StageProgress::new());
    let progress = |at: Progress| {
        let percent = 100.0 * at.done as f64 / at.total.max(1) as f64;
        shown.borrow_mut().at(0, &format!("{percent:.0} %"));
    };
    let watch = Watch { stop, progress: &progress };
    let stage = |name: &str| shown.borrow_mut().stage(name, None);
    let longest = subject.model.config().max_positions().max(1);
    let options = TextOptions {
        row_length: arguments.sequence_len.map_or(subject.row_length(), |len| len.clamp(1, longest)),
        max_tokens: arguments.max_tokens_per_language,
        batch_tokens: arguments.batch_tokens.max(1),
    };
    let mut results = Results::of(subject.origin()?);
    for dir in data {
        stage(&format!("text of {}", dir.display()));
        let found = text::data_set(subject, dir, options, &watch)?;
        results.text.insert(dir.display().to_string(), found);
    }
    for file in &arguments.text {
        stage(&format!("text of {file}"));
        results.text.insert(file.clone(), text::raw(subject, file, options, &watch)?);
    }
    let mut log = String::new();
    for (_, task) in tasks {
        stage(&format!("questions of {}", task.name));
        let (found, answers) = answer(subject, task, options.batch_tokens, &watch)?;
        for answered in &answers {
            log.push_str(&format!("{}\n", json!({"task": task.name, "answer": answered})));
        }
        results.tasks.insert(task.name.clone(), found);
    }
    if let Some(prompts) = &arguments.generate {
        stage("samples");
        let sampling = Sampling { temperature: arguments.temperature, top_k: 0, top_p: 1.0 };
        let options = SampleOptions { max_tokens: arguments.max_tokens, sampling, seed: arguments.seed };
        results.samples = samples(subject, prompts, &options, &watch)?;
    }
    shown.borrow_mut().end();
    show(&results);
    if let Some(path) = &arguments.log_samples {
        durable::write_atomic(path, log.as_bytes()).map_err(Failure::failed)?;
    }
    Ok(results)
}

fn show(results: &Results) {
    for (name, found) in &results.text {
        show_text(name, found);
    }
    if !results.tasks.is_empty() {
        say(&format!(
            "{:<26} {:>5} {:>9}  {:<9} {:>18} {:>7}",
            "task", "shots", "questions", "metric", "value ± stderr", "chance"
        ));
    }
    for (name, found) in &results.tasks {
        show_task(name, found);
    }
    for sample in &results.samples {
        say(&format!("--- {}\n{}{}", sample.finish, sample.prompt, sample.text));
    }
}

fn show_text(name: &str, found: &TextResult) {
    say(&format!("bits per byte on {name}, rows of {} tokens", found.row_length));
    let line = |label: &str, score: &crate::events::LanguageScore| {
        let (tokens, bytes) = (thousands(score.tokens as f64), thousands(score.bytes as f64));
        say(&format!("  {label:<12} {:>8.4}  {tokens:>12} tokens {bytes:>14} bytes", score.bpb));
    };
    found.languages.iter().for_each(|(label, score)| line(label, score));
    if found.scripts.len() > 1 {
        found.scripts.iter().for_each(|(label, score)| line(&format!("*_{label}"), score));
    }
    line("all", &found.all);
}

fn show_task(name: &str, found: &TaskResult) {
    let line = |name: &str, metric: &str, accuracy: &Accuracy| {
        say(&format!(
            "{name:<26} {:>5} {:>9}  {metric:<9} {:>8.2} ± {:>5.2} % {:>7.1}",
            found.num_fewshot,
            accuracy.questions,
            accuracy.value * 100.0,
            accuracy.stderr * 100.0,
            found.chance * 100.0
        ));
    };
    found.metrics.iter().for_each(|(metric, accuracy)| line(name, metric.name(), accuracy));
    for (language, metrics) in found.languages.iter().filter(|_| found.languages.len() > 1) {
        metrics.iter().for_each(|(metric, accuracy)| line(&format!("  {language}"), metric.name(), accuracy));
    }
}

impl From<EvalError> for Failure {
    fn from(error: EvalError) -> Self {
        match error {
            EvalError::Stopped | EvalError::Read { .. } | EvalError::NotFinite => Self::failed(error),
            other => Self::usage(other),
        }
    }
}
