//! Owns task files in the format of lm-evaluation-harness: reading them, finding their tables, making questions of
//! records; never asks a model and never opens a network.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use data_pipeline::document::language_label;
use data_pipeline::records::{Record, read_records};
use data_pipeline::template::RecordTemplate;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::EvalError;
use crate::durable;

/// Largest task file, bytes.
const TASK_LIMIT_BYTES: u64 = 1 << 20;
/// Task files that include each other, at most.
const MAX_INCLUDES: usize = 8;
/// Most solved examples before a question.
const MAX_SHOTS: usize = 64;

/// Keys of the format that decide nothing here: names for groups, settings of generation. The last three are read
/// before the others.
const WITHOUT_EFFECT: [&str; 19] = [
    "tag",
    "group",
    "group_alias",
    "task_alias",
    "metadata",
    "training_split",
    "repeats",
    "should_decontaminate",
    "doc_to_decontamination_query",
    "generation_kwargs",
    "unsafe_code",
    "gen_prefix",
    "filter_list",
    "weight_by_size",
    "custom_dataset",
    "use_prompt",
    "test_split",
    "validation_split",
    "dataset_name",
];

/// How the model's choice is read off the log-likelihoods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// The likeliest choice.
    Acc,
    /// The likeliest choice a character.
    AccNorm,
    /// The likeliest choice a byte of UTF-8.
    AccBytes,
}

impl Metric {
    /// What a log-likelihood is divided by.
    pub fn length(self, choice: &str) -> f64 {
        match self {
            Self::Acc => 1.0,
            Self::AccNorm => choice.chars().count() as f64,
            Self::AccBytes => choice.len() as f64,
        }
    }

    /// As in task files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Acc => "acc",
            Self::AccNorm => "acc_norm",
            Self::AccBytes => "acc_bytes",
        }
    }
}

/// One question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// Everything before a choice, examples included.
    pub context: String,
    /// What may follow, two or more, none empty.
    pub choices: Vec<String>,
    /// Indices of the right ones.
    pub gold: Vec<usize>,
    /// Language and script, where the record names them.
    pub language: Option<String>,
}

/// A task with all its questions.
#[derive(Debug, Clone, PartialEq)]
pub struct Task {
    /// Its name.
    pub name: String,
    /// Solved examples before each question.
    pub num_fewshot: usize,
    /// Stands between context and choice.
    pub target_delimiter: String,
    /// What is reported.
    pub metrics: Vec<Metric>,
    /// The questions.
    pub questions: Vec<Question>,
}

/// What the user asks for beside the file.
#[derive(Debug, Clone, Default)]
pub struct TaskOptions {
    /// Folder with the data sets that task files name as on the Hub.
    pub data: Option<PathBuf>,
    /// Replaces `num_fewshot`.
    pub num_fewshot: Option<usize>,
    /// Most questions of a task.
    pub limit: Option<usize>,
}

/// The keys of a task file that decide something.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    task: String,
    dataset_path: String,
    #[serde(default)]
    dataset_kwargs: Option<Map<String, Value>>,
    #[serde(default)]
    fewshot_split: Option<String>,
    #[serde(default)]
    fewshot_config: Option<Map<String, Value>>,
    #[serde(default)]
    process_docs: Option<Value>,
    #[serde(default = "multiple_choice")]
    output_type: String,
    doc_to_text: Value,
    doc_to_choice: Value,
    doc_to_target: Value,
    #[serde(default)]
    description: String,
    #[serde(default = "space")]
    target_delimiter: String,
    #[serde(default = "blank_line")]
    fewshot_delimiter: String,
    #[serde(default)]
    num_fewshot: Option<usize>,
    #[serde(default)]
    metric_list: Option<Vec<WrittenMetric>>,
}

#[derive(Debug, Deserialize)]
struct WrittenMetric {
    metric: String,
}

fn multiple_choice() -> String {
    "multiple_choice".into()
}

fn space() -> String {
    " ".into()
}

fn blank_line() -> String {
    "\n\n".into()
}

/// How a part of a question is made.
enum Part {
    /// A field of the record.
    Field(String),
    /// A template.
    Template(Box<RecordTemplate>),
    /// The same for every record.
    Fixed(Value),
}

impl Part {
    /// A string is the field of that name where the records have one, else a template.
    fn new(written: &Value, record: &Record) -> Result<Self, String> {
        match written {
            Value::String(name) if record.contains_key(name) => Ok(Self::Field(name.clone())),
            Value::String(template) => {
                Ok(Self::Template(Box::new(RecordTemplate::new(template).map_err(|error| error.to_string())?)))
            }
            other => Ok(Self::Fixed(other.clone())),
        }
    }

    fn of(&self, record: &Record) -> Result<Value, String> {
        match self {
            Self::Field(name) => record.get(name).cloned().ok_or_else(|| format!("there is no field `{name}`")),
            Self::Template(template) => template.value(record).map_err(|error| error.to_string()),
            Self::Fixed(value) => Ok(value.clone()),
        }
    }

    fn text(&self, record: &Record) -> Result<String, String> {
        match self {
            Self::Template(template) => template.render(record).map_err(|error| error.to_string()),
            other => other.of(record).and_then(|value| plain(&value)),
        }
    }
}

/// A string or number as text.
fn plain(value: &Value) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(number) => Ok(number.to_string()),
        other => Err(format!("{} is no text", short(other))),
    }
}

fn short(value: &Value) -> String {
    value.to_string().chars().take(60).collect()
}

impl Task {
    /// Reads a task file with the tables it names.
    ///
    /// # Errors
    /// [`EvalError::Task`] says what is wrong with the file, [`EvalError::Question`] with a record.
    pub fn load(path: &Path, options: &TaskOptions) -> Result<Self, EvalError> {
        let wrong = |what: String| EvalError::Task { path: path.to_owned(), what };
        let mut keys = read(path, 0)?;
        let split = |keys: &Map<String, Value>, name: &str| keys.get(name).and_then(Value::as_str).map(str::to_owned);
        let (test, validation) = (split(&keys, "test_split"), split(&keys, "validation_split"));
        let subset = split(&keys, "dataset_name");
        keys.retain(|key, _| !WITHOUT_EFFECT.contains(&key.as_str()));
        let written: Written = serde_json::from_value(Value::Object(keys)).map_err(|e| wrong(e.to_string()))?;
        written.check().map_err(wrong)?;
        let metrics = written.metrics().map_err(wrong)?;
        let asked = test.or(validation).ok_or_else(|| wrong("write `test_split: test`".into()))?;
        let tables = Tables { file: path, written: &written, subset: subset.as_deref(), data: options.data.as_deref() };
        let mut records = tables.split(&asked)?;
        let num_fewshot = options.num_fewshot.or(written.num_fewshot).unwrap_or(0);
        if num_fewshot > MAX_SHOTS {
            return Err(wrong(format!("num_fewshot is {num_fewshot}; at most {MAX_SHOTS} examples are shown")));
        }
        let shown = match &written.fewshot_split {
            _ if num_fewshot == 0 => Vec::new(),
            Some(split) if *split != asked => tables.split(split)?,
            _ => records.clone(),
        };
        records.truncate(options.limit.unwrap_or(usize::MAX));
        let first = records.first().ok_or_else(|| wrong(format!("the split `{asked}` holds no record")))?;
        let part = |key: &str, value: &Value| Part::new(value, first).map_err(|what| wrong(format!("{key}: {what}")));
        let maker = Maker {
            task: &written,
            text: part("doc_to_text", &written.doc_to_text)?,
            choices: part("doc_to_choice", &written.doc_to_choice)?,
            target: part("doc_to_target", &written.doc_to_target)?,
        };
        let questions = maker.questions(&records, &shown, num_fewshot)?;
        let (name, target_delimiter) = (written.task, written.target_delimiter);
        Ok(Self { name, num_fewshot, target_delimiter, metrics, questions })
    }
}

/// Reads the keys of a file over those of the file that it includes.
fn read(path: &Path, depth: usize) -> Result<Map<String, Value>, EvalError> {
    let wrong = |what: String| EvalError::Task { path: path.to_owned(), what };
    if depth > MAX_INCLUDES {
        return Err(wrong(format!("more than {MAX_INCLUDES} task files include each other")));
    }
    let text = durable::read_text(path, TASK_LIMIT_BYTES)?;
    if let Some(line) = text.lines().position(|line| line.contains("!function")) {
        return Err(wrong(format!(
            "line {} names Python code (`!function`), which is not run here; write a template in its place, such as \
             `doc_to_text: \"{{{{question}}}}\"` (docs/guide/evaluation.md)",
            line + 1
        )));
    }
    let mut keys: Map<String, Value> = serde_saphyr::from_str(&text).map_err(|error| wrong(error.to_string()))?;
    match keys.shift_remove("include") {
        None => Ok(keys),
        Some(Value::String(name)) => {
            let mut all = read(&path.parent().unwrap_or(Path::new(".")).join(name), depth + 1)?;
            all.extend(keys);
            Ok(all)
        }
        Some(_) => Err(wrong("`include` must name one file".into())),
    }
}

impl Written {
    fn check(&self) -> Result<(), String> {
        if self.output_type != multiple_choice() {
            let kind = &self.output_type;
            return Err(format!("output_type is {kind}; only `multiple_choice` can be asked here"));
        }
        if self.process_docs.as_ref().is_some_and(|value| !value.is_null()) {
            return Err("`process_docs` is Python code, which is not run here; write templates over the fields".into());
        }
        let sampler = self.fewshot_config.as_ref().and_then(|config| config.get("sampler")).and_then(Value::as_str);
        match sampler {
            None | Some("default" | "first_n") => Ok(()),
            Some(other) => Err(format!("fewshot_config.sampler is {other}; write first_n")),
        }
    }

    fn metrics(&self) -> Result<Vec<Metric>, String> {
        let Some(list) = &self.metric_list else { return Ok(vec![Metric::Acc, Metric::AccNorm]) };
        let mut metrics = Vec::new();
        for WrittenMetric { metric } in list {
            let known = [Metric::Acc, Metric::AccNorm, Metric::AccBytes].into_iter().find(|m| m.name() == metric);
            let known =
                known.ok_or_else(|| format!("metric `{metric}` is not known; use acc, acc_norm or acc_bytes"))?;
            if !metrics.contains(&known) {
                metrics.push(known);
            }
        }
        if metrics.is_empty() { Err("`metric_list` is empty; write `- metric: acc`".into()) } else { Ok(metrics) }
    }
}

/// Where the records of a task are.
struct Tables<'a> {
    file: &'a Path,
    written: &'a Written,
    subset: Option<&'a str>,
    data: Option<&'a Path>,
}

impl Tables<'_> {
    fn split(&self, split: &str) -> Result<Vec<Record>, EvalError> {
        let files = self.files(split).map_err(|what| EvalError::Task { path: self.file.to_owned(), what })?;
        let mut records = Vec::new();
        for file in files {
            records.extend(read_records(&file)?);
        }
        Ok(records)
    }

    /// A path of the task file: beside it, or as seen from the working directory.
    fn place(&self, name: &str) -> PathBuf {
        let beside = self.file.parent().unwrap_or(Path::new(".")).join(name);
        if beside.exists() { beside } else { PathBuf::from(name) }
    }

    fn files(&self, split: &str) -> Result<Vec<PathBuf>, String> {
        let named = self.written.dataset_kwargs.as_ref().and_then(|kwargs| kwargs.get("data_files"));
        let of_split = match named {
            Some(Value::Object(splits)) => Some(splits.get(split).ok_or_else(|| {
                let known: Vec<&str> = splits.keys().map(String::as_str).collect();
                format!("dataset_kwargs.data_files has no split `{split}`, only {}", known.join(", "))
            })?),
            other => other,
        };
        match of_split {
            Some(Value::String(name)) => Ok(vec![self.place(name)]),
            Some(Value::Array(names)) => {
                let name = |value: &Value| value.as_str().map(|name| self.place(name));
                names.iter().map(name).collect::<Option<_>>().ok_or_else(|| "data_files must be names".to_owned())
            }
            Some(_) => Err("dataset_kwargs.data_files must be a file, a list of files, or files by split".into()),
            None => self.search(split),
        }
    }

    /// Files of a folder that is laid out as a data set on the Hub: `test-00000-of-00001.parquet`, `data/test.jsonl`, in
    /// the folder of the subset where there is one.
    fn search(&self, split: &str) -> Result<Vec<PathBuf>, String> {
        let name = &self.written.dataset_path;
        let last = name.rsplit('/').next().unwrap_or(name);
        let mut roots = vec![self.place(name)];
        roots.extend(self.data.into_iter().flat_map(|data| [data.join(name), data.join(last)]));
        let root = roots.iter().find(|root| root.is_dir()).ok_or_else(|| {
            format!(
                "the data set `{name}` is not on this machine, and nothing is downloaded here; get its files, put them \
                 into a folder {last}/ and name the folder above with --task-data"
            )
        })?;
        let subset = self.subset.into_iter().flat_map(|subset| [root.join(subset), root.join("data").join(subset)]);
        for folder in subset.chain([root.clone(), root.join("data")]) {
            let mut found: Vec<PathBuf> = std::fs::read_dir(&folder)
                .into_iter()
                .flatten()
                .flatten()
                .map(|entry| entry.path())
                .filter(|path| is_of_split(path, split))
                .collect();
            found.sort();
            if !found.is_empty() {
                return Ok(found);
            }
        }
        let of = self.subset.map(|subset| format!(" of `{subset}`")).unwrap_or_default();
        Err(format!("{}: there is no file of the split `{split}`{of}, such as {split}.jsonl", root.display()))
    }
}

fn is_of_split(path: &Path, split: &str) -> bool {
    let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
    let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    let rest = stem.strip_prefix(split);
    ["jsonl", "ndjson", "json", "csv", "tsv", "parquet"].contains(&ending)
        && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['-', '.', '_']))
}

/// Makes questions of records.
struct Maker<'a> {
    task: &'a Written,
    text: Part,
    choices: Part,
    target: Part,
}

impl Maker<'_> {
    fn questions(&self, records: &[Record], shown: &[Record], shots: usize) -> Result<Vec<Question>, EvalError> {
        let mut questions = Vec::with_capacity(records.len());
        for (index, record) in records.iter().enumerate() {
            let refused = |what| EvalError::Question { task: self.task.task.clone(), number: index + 1, what };
            // The first examples that are not the question itself.
            let examples: Vec<&Record> = shown.iter().filter(|example| *example != record).take(shots).collect();
            if examples.len() < shots {
                return Err(refused(format!("{shots} examples are wanted, the split has {}", examples.len())));
            }
            questions.push(self.question(record, &examples).map_err(refused)?);
        }
        Ok(questions)
    }

    fn question(&self, record: &Record, examples: &[&Record]) -> Result<Question, String> {
        let mut context = self.task.description.clone();
        for example in examples {
            let (choices, gold) = (self.choices(example)?, self.gold(example)?);
            let right = gold.first().and_then(|index| choices.get(*index)).ok_or("an example has no right choice")?;
            let Written { target_delimiter, fewshot_delimiter, .. } = self.task;
            context.push_str(&format!("{}{target_delimiter}{right}{fewshot_delimiter}", self.text.text(example)?));
        }
        context.push_str(&self.text.text(record)?);
        let (choices, gold) = (self.choices(record)?, self.gold(record)?);
        if let Some(index) = gold.iter().find(|index| **index >= choices.len()) {
            return Err(format!("the right choice is number {index} (from 0), but there are {}", choices.len()));
        }
        let field = |name: &str| record.get(name).and_then(Value::as_str);
        let language = field("lang").and_then(|lang| language_label(lang, field("script")));
        Ok(Question { context, choices, gold, language })
    }

    fn choices(&self, record: &Record) -> Result<Vec<String>, String> {
        let value = match self.choices.of(record).map_err(|what| format!("doc_to_choice: {what}"))? {
            // What a longer template writes, or what a table of text holds.
            Value::String(text) => serde_json::from_str(&text)
                .map_err(|_| format!("doc_to_choice gives the text {text:?}; it must give a list"))?,
            other => other,
        };
        let values: Vec<Value> = match value {
            Value::Array(values) => values,
            Value::Object(named) => named.into_iter().map(|(_, value)| value).collect(),
            other => return Err(format!("doc_to_choice gives {}; it must give a list", short(&other))),
        };
        let choices: Vec<String> = values.iter().map(plain).collect::<Result<_, _>>()?;
        if choices.len() < 2 {
            return Err(format!("there are {} choices; give two or more", choices.len()));
        }
        match choices.iter().position(|choice| choice.is_empty()) {
            Some(index) => Err(format!("choice {} is empty, so it has no likelihood; fill or remove it", index + 1)),
            None => Ok(choices),
        }
    }

    /// Indices of the right choices: numbers, digits, the text of a choice, or a list of them.
    fn gold(&self, record: &Record) -> Result<Vec<usize>, String> {
        let value = self.target.of(record).map_err(|what| format!("doc_to_target: {what}"))?;
        let values = match value {
            Value::Array(values) => values,
            one => vec![one],
        };
        let index = |value: &Value| -> Result<usize, String> {
            if let Some(index) = value.as_u64() {
                return usize::try_from(index).map_err(|error| error.to_string());
            }
            let text = plain(value)?;
            match text.trim().parse() {
                Ok(index) => Ok(index),
                Err(_) => (self.choices(record)?.iter().position(|choice| *choice == text))
                    .ok_or_else(|| format!("doc_to_target gives {text:?}, which is no choice")),
            }
        };
        let gold: Vec<usize> = values.iter().map(index).collect::<Result<_, _>>()?;
        if gold.is_empty() { Err("doc_to_target gives no right choice".into()) } else { Ok(gold) }
    }
}

/// Results by task name, with the names of tasks that were asked twice refused.
///
/// # Errors
/// Two files with the same `task`.
pub fn refuse_doubles(tasks: &[(PathBuf, Task)]) -> Result<(), EvalError> {
    let mut seen: BTreeMap<&str, &Path> = BTreeMap::new();
    for (path, task) in tasks {
        if let Some(other) = seen.insert(&task.name, path) {
            let what = format!("the task `{}` is in {} as well; name it once", task.name, other.display());
            return Err(EvalError::Task { path: path.clone(), what });
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "task_tests.rs"]
mod tests;
