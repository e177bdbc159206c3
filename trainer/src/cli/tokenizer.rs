//! Owns `jazari tokenizer`: training and evaluation from raw files; never touches merges itself.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use data_pipeline::config::{PrepareConfig, SourceConfig, TokenizerConfig};
use data_pipeline::documents::{ReadOptions, read_documents};
use data_pipeline::tokenizer::eval::Evaluation;
use data_pipeline::tokenizer::{Tokenizer, TokenizerTrainer};

use super::failure::{Exit, Failure, note, say};
use super::progress::{StageProgress, thousands};
use crate::signals::StopFlag;
use crate::{config, durable};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Train a byte-level BPE tokenizer on the sources of a data config
    Train(TrainArguments),
    /// Tokens per word, bytes per token and round trip, by language
    Eval(EvalArguments),
    /// Append tokens learned on new text to a tokenizer; its ids keep their meaning
    Extend(super::extend::ExtendArguments),
}

#[derive(Debug, Args)]
pub(super) struct TrainArguments {
    /// Data config (YAML) with `tokenizer: {train: ...}`
    config: PathBuf,
    /// Folder to write; it must not exist
    #[arg(long)]
    out: PathBuf,
    /// Change a value: `--set tokenizer.train.vocab_size=8192`
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
}

#[derive(Debug, Args)]
pub(super) struct EvalArguments {
    /// tokenizer.json, or a folder that holds it
    tokenizer: PathBuf,
    /// Raw files, folders or globs
    #[arg(required = true)]
    inputs: Vec<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs one of the commands.
pub(super) fn run(command: Command) -> Result<Exit, Failure> {
    match command {
        Command::Train(arguments) => train(&arguments),
        Command::Eval(arguments) => eval(&arguments),
        Command::Extend(arguments) => super::extend::extend(&arguments),
    }
}

/// Trains on the raw files of a data config, without preparing a data set.
fn train(arguments: &TrainArguments) -> Result<Exit, Failure> {
    let (config, notes) = config::load::<PrepareConfig>(&arguments.config, &arguments.set).map_err(Failure::usage)?;
    for line in &notes {
        note(&format!("note: {line}"));
    }
    let TokenizerConfig::Train(settings) = &config.tokenizer else {
        return Err(Failure::usage(format!(
            "{}: `tokenizer` names a finished tokenizer; write `tokenizer: {{train: {{vocab_size: 32768}}}}` to train one",
            arguments.config.display()
        )));
    };
    if arguments.out.symlink_metadata().is_ok() {
        return Err(Failure::usage(format!("{}: exists already; choose another --out", arguments.out.display())));
    }
    let stop = StopFlag::install(true).map_err(Failure::failed)?;
    let options = ReadOptions { normalize: config.normalize, on_damage: config.on_damage, limits: config.limits };
    let mut progress = StageProgress::new();
    // Two passes: the sample of a language depends on how much text there is of it.
    progress.stage("measuring the languages", None);
    let mut bytes: BTreeMap<String, u64> = BTreeMap::new();
    read_documents(&config.sources, &options, stop.as_atomic(), &mut |document| {
        *bytes.entry(document.lang).or_default() += document.text.len() as u64;
        Ok(())
    })?;
    let mut trainer = TokenizerTrainer::new(settings, &bytes).map_err(Failure::usage)?;
    progress.stage("counting words", None);
    read_documents(&config.sources, &options, stop.as_atomic(), &mut |document| {
        trainer.add(&document);
        Ok(())
    })?;
    progress.stage("learning merges", None);
    let shown = std::cell::RefCell::new(progress);
    let trained = trainer.finish(&|size| shown.borrow_mut().at(0, &format!("{size} tokens")), stop.as_atomic());
    shown.borrow_mut().end();
    let trained = trained.map_err(Failure::failed)?;
    write_folder(&arguments.out, &trained.files)?;
    say(&format!("{:<10} {:>14} {:>14} {:>8}", "language", "bytes", "sampled", "copies"));
    for (language, sample) in &trained.report.languages {
        let (bytes, sampled) = (thousands(sample.bytes as f64), thousands(sample.sampled_bytes as f64));
        say(&format!("{language:<10} {bytes:>14} {sampled:>14} {:>8.2}", sample.copies));
    }
    say(&format!("{}: {} tokens", arguments.out.display(), trained.report.vocab_size));
    Ok(Exit::Done)
}

fn write_folder(folder: &Path, files: &BTreeMap<&'static str, Vec<u8>>) -> Result<(), Failure> {
    durable::create_folder(folder).map_err(Failure::failed)?;
    for (name, bytes) in files {
        durable::write_atomic(&folder.join(name), bytes).map_err(Failure::failed)?;
    }
    Ok(())
}

/// Measures a tokenizer on raw files.
fn eval(arguments: &EvalArguments) -> Result<Exit, Failure> {
    let path = if arguments.tokenizer.is_dir() {
        arguments.tokenizer.join("tokenizer.json")
    } else {
        arguments.tokenizer.clone()
    };
    let tokenizer = Tokenizer::open(&path).map_err(Failure::usage)?;
    let stop = StopFlag::install(true).map_err(Failure::failed)?;
    let sources: Vec<SourceConfig> = arguments.inputs.iter().map(SourceConfig::at).collect();
    let mut evaluation = Evaluation::new(&tokenizer);
    let mut failed = None;
    read_documents(&sources, &ReadOptions::default(), stop.as_atomic(), &mut |document| {
        if failed.is_none() {
            failed = evaluation.add(&document).err();
        }
        Ok(())
    })?;
    if let Some(error) = failed {
        return Err(Failure::failed(error));
    }
    let languages = evaluation.finish();
    if arguments.json {
        say(&serde_json::to_string_pretty(&languages).map_err(Failure::failed)?);
        return Ok(Exit::Done);
    }
    say(&format!(
        "{:<10} {:>10} {:>12} {:>12} {:>8} {:>10} {:>10}",
        "language", "documents", "words", "tokens/word", "bytes/token", "unknown", "round trip"
    ));
    for (language, e) in &languages {
        let trip =
            if e.failed_round_trips == 0 { "exact".to_owned() } else { format!("{} FAIL", e.failed_round_trips) };
        say(&format!(
            "{language:<10} {:>10} {:>12} {:>12.3} {:>8.3} {:>10} {trip:>10}",
            e.documents,
            thousands(e.words as f64),
            e.fertility(),
            e.bytes_per_token(),
            e.unknown
        ));
    }
    Ok(Exit::Done)
}
