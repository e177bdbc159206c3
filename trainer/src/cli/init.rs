//! Owns `jazari init`: flags, questions, writing two files; never touches what they say.

use std::io::{BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use data_pipeline::config::PrepareConfig;

use super::failure::{Exit, Failure, note, say};
use crate::config::raw::SizePreset;
use crate::config::{self, RawConfig};
use crate::durable;
use crate::eval::subject::Place;
use crate::hub;
use crate::recipe::{self, Base, Hardware, Language, Task, Wish};

#[derive(Debug, Args)]
pub(super) struct InitArguments {
    /// Folder for the configurations, and later for data and run; default: my-model
    folder: Option<PathBuf>,
    /// What is to be made
    #[arg(long, value_enum)]
    task: Option<TaskName>,
    /// What it is made on
    #[arg(long, value_enum)]
    hardware: Option<HardwareName>,
    /// Languages to keep, separated by commas; default: all
    #[arg(long, value_enum, value_delimiter = ',')]
    languages: Vec<LanguageName>,
    /// Size of a model with fresh weights; default: what the hardware trains in a reasonable time
    #[arg(long, value_enum)]
    size: Option<SizeName>,
    /// What to learn from: texts, chats or preferences; a file, a folder or a glob
    #[arg(long, value_name = "PATH")]
    texts: Option<String>,
    /// Licence of texts that name none, as SPDX writes it; default: LicenseRef-mine, to be replaced
    #[arg(long, value_name = "SPDX")]
    licence: Option<String>,
    /// Model to start from: a run, a checkpoint or a Hugging Face directory
    #[arg(long, value_name = "DIR")]
    base: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum TaskName {
    /// A model with fresh weights
    Pretrain,
    /// A trained model on more text, all weights
    Continue,
    /// A trained model on more text, as an adapter
    Lora,
    /// A trained model learns to answer
    Chat,
    /// A model that answers learns which answers are better
    Preferences,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum HardwareName {
    /// No GPU
    Cpu,
    /// One GPU with about 24 GB
    #[value(name = "gpu-24gb")]
    Gpu24,
    /// One GPU with about 80 GB
    #[value(name = "gpu-80gb")]
    Gpu80,
    /// Eight of these in one host
    #[value(name = "8xgpu-80gb")]
    EightGpus,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LanguageName {
    /// In Arabic and Latin letters
    Darija,
    /// In Tifinagh and Latin letters
    Tamazight,
    Hassaniya,
    /// Standard Arabic
    Arabic,
    French,
    English,
    Spanish,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum SizeName {
    #[value(name = "3m")]
    M3,
    #[value(name = "10m")]
    M10,
    #[value(name = "30m")]
    M30,
    #[value(name = "110m")]
    M110,
    #[value(name = "350m")]
    M350,
    #[value(name = "1b")]
    B1,
}

impl From<TaskName> for Task {
    fn from(name: TaskName) -> Self {
        match name {
            TaskName::Pretrain => Self::Pretrain,
            TaskName::Continue => Self::Continue,
            TaskName::Lora => Self::Lora,
            TaskName::Chat => Self::Chat,
            TaskName::Preferences => Self::Preferences,
        }
    }
}

impl From<HardwareName> for Hardware {
    fn from(name: HardwareName) -> Self {
        match name {
            HardwareName::Cpu => Self::Cpu,
            HardwareName::Gpu24 => Self::Gpu24,
            HardwareName::Gpu80 => Self::Gpu80,
            HardwareName::EightGpus => Self::EightGpus,
        }
    }
}

impl From<LanguageName> for Language {
    fn from(name: LanguageName) -> Self {
        match name {
            LanguageName::Darija => Self::Darija,
            LanguageName::Tamazight => Self::Tamazight,
            LanguageName::Hassaniya => Self::Hassaniya,
            LanguageName::Arabic => Self::Arabic,
            LanguageName::French => Self::French,
            LanguageName::English => Self::English,
            LanguageName::Spanish => Self::Spanish,
        }
    }
}

impl From<SizeName> for SizePreset {
    fn from(name: SizeName) -> Self {
        match name {
            SizeName::M3 => Self::M3,
            SizeName::M10 => Self::M10,
            SizeName::M30 => Self::M30,
            SizeName::M110 => Self::M110,
            SizeName::M350 => Self::M350,
            SizeName::B1 => Self::B1,
        }
    }
}

/// Writes the configurations of a new model.
pub(super) fn init(arguments: &InitArguments) -> Result<Exit, Failure> {
    let asks = std::io::stdin().is_terminal() && std::io::stderr().is_terminal();
    let folder = match &arguments.folder {
        Some(folder) => folder.clone(),
        None if asks => ask_text("folder", "my-model")?.into(),
        None => "my-model".into(),
    };
    let files = ["data.yaml", "train.yaml"].map(|name| folder.join(name));
    if let Some(there) = files.iter().find(|file| file.exists()) {
        let why = format!("{}: it exists already; choose another folder, or move it away", there.display());
        return Err(Failure::usage(why));
    }
    let wish = wish(arguments, folder, asks)?;
    let (data, train) = (wish.data_yaml(), wish.train_yaml());
    check(&files, data.as_deref(), &train)?;
    durable::create_folder(&wish.folder).map_err(Failure::usage)?;
    for (path, text) in files.iter().zip([data.as_deref(), Some(train.as_str())]) {
        let Some(text) = text else { continue };
        durable::write_atomic(path, text.as_bytes()).map_err(Failure::usage)?;
        say(&format!("{}: written", path.display()));
    }
    if wish.base.is_none() {
        say(&dimensions(wish.size));
    }
    say("next:");
    let [data_path, train_path] = &files;
    if wish.task.reads_texts() {
        say(&format!("  jazari data prepare {}", data_path.display()));
    }
    say(&format!("  jazari plan {}", train_path.display()));
    say(&format!("  {}", wish.train_command()));
    Ok(Exit::Done)
}

fn wish(arguments: &InitArguments, folder: PathBuf, asks: bool) -> Result<Wish, Failure> {
    let task: Task = chosen("task", arguments.task, TaskName::Pretrain, asks)?.into();
    let hardware: Hardware = chosen("hardware", arguments.hardware, HardwareName::Cpu, asks)?.into();
    let refuse = |what: &str| Err(Failure::usage(what.to_owned()));
    let base = match (&arguments.base, task) {
        (Some(_), Task::Pretrain) => {
            return refuse(
                "--base is for a model that goes on learning; write --task continue, lora, chat or preferences",
            );
        }
        (None, Task::Pretrain) => None,
        (Some(path), _) => Some(base(path)?),
        (None, _) if asks => Some(base(Path::new(&ask_text("model to start from", "models/base")?))?),
        (None, _) => return refuse("this task starts from a model: name its directory with --base DIR"),
    };
    if arguments.size.is_some() && base.is_some() {
        return refuse("--size is for a model with fresh weights; this one has the size of its base");
    }
    if !task.reads_texts() && !arguments.languages.is_empty() {
        return refuse("--languages is for texts; chats and preferences are used as they are");
    }
    let default = match task {
        Task::Chat => "chats.jsonl",
        Task::Preferences => "preferences.jsonl",
        _ => "texts/*.jsonl",
    };
    let texts = match &arguments.texts {
        Some(texts) => texts.clone(),
        None if asks => ask_text("what to learn from", default)?,
        None => default.to_owned(),
    };
    Ok(Wish {
        folder,
        task,
        hardware,
        size: arguments.size.map_or(recipe::usual_size(hardware), SizePreset::from),
        texts,
        licence: arguments.licence.clone().unwrap_or_else(|| "LicenseRef-mine".into()),
        languages: arguments.languages.iter().copied().map(Language::from).collect(),
        base,
    })
}

/// What a configuration must know of a base.
fn base(path: &Path) -> Result<Base, Failure> {
    let place = Place::of(path).map_err(Failure::usage)?;
    let folder = place.folder();
    let model = hub::read_config(folder).map_err(Failure::usage)?;
    let tokenizer = place.tokenizer();
    let names_a_template = |name: &str| {
        durable::read_text(&tokenizer.join(name), TEMPLATE_LIMIT_BYTES).is_ok_and(|text| text.contains("chat_template"))
    };
    let has_template = tokenizer.join("chat_template.jinja").is_file() || names_a_template("tokenizer_config.json");
    Ok(Base {
        path: path.to_owned(),
        max_positions: model.max_positions(),
        has_template,
        tokenizer: tokenizer.join("tokenizer.json"),
    })
}

/// Largest tokenizer_config.json that is looked at, bytes.
const TEMPLATE_LIMIT_BYTES: u64 = 16 << 20;

/// What is written must be what the program reads: a mistake here is ours.
fn check(files: &[PathBuf; 2], data: Option<&str>, train: &str) -> Result<(), Failure> {
    let [data_path, train_path] = files;
    if let Some(data) = data {
        let (config, _) = config::yaml::parse::<PrepareConfig>(data_path, data, &[]).map_err(Failure::failed)?;
        config.validate().map_err(Failure::failed)?;
    }
    let (raw, _) = config::yaml::parse::<RawConfig>(train_path, train, &[]).map_err(Failure::failed)?;
    raw.check().map_err(Failure::failed)
}

/// The dimensions behind a size.
fn dimensions(size: SizePreset) -> String {
    let (at, (parameters, vocab_size)) = (size.dimensions(), size.nominal());
    format!(
        "size {}: about {} M parameters with a vocabulary of {vocab_size}; {} layers, hidden_size {}, intermediate_size {}, \
         {} query and {} key-value heads of {}, embedding {}",
        recipe::size_name(size),
        parameters / 1_000_000,
        at.num_hidden_layers,
        at.hidden_size,
        at.intermediate_size,
        at.num_attention_heads,
        at.num_key_value_heads,
        at.head_dim,
        if at.tie_word_embeddings { "tied" } else { "of its own at the output" }
    )
}

/// What was given, or asked for, or the default.
fn chosen<T: ValueEnum>(what: &str, given: Option<T>, default: T, asks: bool) -> Result<T, Failure> {
    if let (None, true) = (&given, asks) {
        let name = |value: &T| value.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
        let names: Vec<String> = T::value_variants().iter().map(name).collect();
        loop {
            let answer = ask_text(&format!("{what} ({})", names.join(", ")), &name(&default))?;
            match T::from_str(answer.trim(), true) {
                Ok(value) => return Ok(value),
                Err(_) => note(&format!("{answer:?} is none of {}", names.join(", "))),
            }
        }
    }
    Ok(given.unwrap_or(default))
}

/// A line from the user; an empty one is the default.
fn ask_text(what: &str, default: &str) -> Result<String, Failure> {
    let mut error = std::io::stderr().lock();
    // A question that cannot be shown is answered by its default or not at all.
    let _ = write!(error, "{what} [{default}]: ").and_then(|()| error.flush());
    let mut line = String::new();
    match std::io::stdin().lock().read_line(&mut line).map_err(Failure::failed)? {
        0 => Err(Failure::usage("the input ended before everything was answered; nothing was written")),
        _ if line.trim().is_empty() => Ok(default.to_owned()),
        _ => Ok(line.trim().to_owned()),
    }
}
