//! Owns `jazari tokenizer`: training from raw files and its gates; never touches merges itself.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use clap::{Args, Subcommand};
use data_pipeline::config::{PrepareConfig, TokenizerSource};
use data_pipeline::documents::{ReadOptions, read_documents};
use data_pipeline::tokenizer::eval::Evaluation;
use data_pipeline::tokenizer::files::{CONFIG_FILE, TOKENIZER_FILE};
use data_pipeline::tokenizer::gates;
use data_pipeline::tokenizer::{Tokenizer, TokenizerError, TokenizerTrainer};

use super::failure::{Exit, Failure, note, say};
use super::filter::refuse_unwritable;
use super::progress::{StageProgress, thousands};
use crate::signals::StopFlag;
use crate::{config, durable};

/// Text of a language that gates are measured on, in bytes.
const GATE_BYTES: u64 = 4 << 20;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Train a byte-level BPE tokenizer on the sources of a data config
    Train(TrainArguments),
    /// Tokens per word, bytes per token and round trip, by language
    Eval(super::tokenizer_eval::EvalArguments),
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

/// Runs one of the commands.
pub(super) fn run(command: Command) -> Result<Exit, Failure> {
    match command {
        Command::Train(arguments) => train(&arguments),
        Command::Eval(arguments) => super::tokenizer_eval::eval(&arguments),
        Command::Extend(arguments) => super::extend::extend(&arguments),
    }
}

/// Trains on the raw files of a data config, without preparing a data set.
fn train(arguments: &TrainArguments) -> Result<Exit, Failure> {
    let (config, notes) = config::load::<PrepareConfig>(&arguments.config, &arguments.set).map_err(Failure::usage)?;
    for line in &notes {
        note(&format!("note: {line}"));
    }
    let TokenizerSource::Train(settings) = config.tokenizer.source() else {
        return Err(Failure::usage(format!(
            "{}: `tokenizer` names a finished tokenizer; write `tokenizer: {{train: {{vocab_size: 32768}}}}` to train one",
            arguments.config.display()
        )));
    };
    if arguments.out.symlink_metadata().is_ok() {
        return Err(Failure::usage(format!("{}: exists already; choose another --out", arguments.out.display())));
    }
    refuse_unwritable(&arguments.out)?;
    let stop = StopFlag::install(true).map_err(Failure::failed)?;
    let options =
        ReadOptions { normalize: config.normalize, on_damage: config.on_damage, limits: config.limits.clone() };
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
    check_gates(&config, &trained.files, &arguments.out, stop.as_atomic())?;
    write_folder(&arguments.out, &trained.files)?;
    say(&format!("{:<10} {:>14} {:>14} {:>8}", "language", "bytes", "sampled", "copies"));
    for (language, sample) in &trained.report.languages {
        let (bytes, sampled) = (thousands(sample.bytes as f64), thousands(sample.sampled_bytes as f64));
        say(&format!("{language:<10} {bytes:>14} {sampled:>14} {:>8.2}", sample.copies));
    }
    say(&format!("{}: {} tokens", arguments.out.display(), trained.report.vocab_size));
    Ok(Exit::Done)
}

/// Measures the tokenizer where gates ask for it; nothing is written when one fails.
fn check_gates(
    config: &PrepareConfig,
    files: &BTreeMap<&'static str, Vec<u8>>,
    out: &Path,
    stop: &AtomicBool,
) -> Result<(), Failure> {
    if config.tokenizer.gates.is_empty() {
        return Ok(());
    }
    let file = |name: &str| files.get(name).map(Vec::as_slice).unwrap_or_default();
    let roles = serde_json::from_slice(file(CONFIG_FILE)).map_err(Failure::failed)?;
    let tokenizer = Tokenizer::from_json(file(TOKENIZER_FILE), &roles, &out.join(TOKENIZER_FILE));
    let tokenizer = tokenizer.map_err(Failure::failed)?;
    let options =
        ReadOptions { normalize: config.normalize, on_damage: config.on_damage, limits: config.limits.clone() };
    let mut evaluations = [Evaluation::new(&tokenizer)];
    super::tokenizer_eval::measure(&config.sources, &options, stop, &mut evaluations, GATE_BYTES)?;
    let [evaluation] = evaluations;
    let verdict = gates::check(&config.tokenizer.gates, &evaluation.report(None));
    if verdict.passed() {
        say(&format!("{verdict}\n"));
        return Ok(());
    }
    Err(Failure::with(Exit::Missed, TokenizerError::Gates { verdict: Box::new(verdict) }))
}

fn write_folder(folder: &Path, files: &BTreeMap<&'static str, Vec<u8>>) -> Result<(), Failure> {
    durable::create_folder(folder).map_err(Failure::failed)?;
    for (name, bytes) in files {
        durable::write_atomic(&folder.join(name), bytes).map_err(Failure::failed)?;
    }
    Ok(())
}
