//! Owns `jazari tokenizer extend`: reading new text, writing the larger tokenizer, fertility before and after; never
//! learns a merge itself.

use std::cell::RefCell;
use std::path::PathBuf;

use clap::Args;
use data_pipeline::config::SourceConfig;
use data_pipeline::documents::{ReadOptions, read_documents};
use data_pipeline::tokenizer::eval::{Evaluation, LanguageEvaluation};
use data_pipeline::tokenizer::{Tokenizer, TokenizerError, TokenizerExtender};

use super::failure::{Exit, Failure, say};
use super::filter::refuse_unwritable;
use super::progress::StageProgress;
use crate::durable;
use crate::signals::StopFlag;

#[derive(Debug, Args)]
pub(super) struct ExtendArguments {
    /// Folder with the tokenizer.json of a base model
    base: PathBuf,
    /// Raw files, folders or globs with text of the new languages
    #[arg(long, required = true, num_args = 1.., value_name = "INPUT")]
    data: Vec<String>,
    /// Most tokens to add
    #[arg(long, value_name = "N")]
    add: usize,
    /// Folder to write; it must not exist
    #[arg(long)]
    out: PathBuf,
}

/// Learns new tokens and writes the larger tokenizer.
pub(super) fn extend(arguments: &ExtendArguments) -> Result<Exit, Failure> {
    if arguments.out.symlink_metadata().is_ok() {
        return Err(Failure::usage(format!("{}: exists already; choose another --out", arguments.out.display())));
    }
    refuse_unwritable(&arguments.out)?;
    let base = Tokenizer::open(&arguments.base).map_err(Failure::usage)?;
    let mut extender = TokenizerExtender::new(&base).map_err(Failure::usage)?;
    let stop = StopFlag::install(true).map_err(Failure::failed)?;
    let sources: Vec<SourceConfig> = arguments.data.iter().map(SourceConfig::at).collect();
    let mut progress = StageProgress::new();
    progress.stage("counting words", None);
    read_documents(&sources, &ReadOptions::default(), stop.as_atomic(), &mut |document| {
        extender.add(&document);
        Ok(())
    })?;
    progress.stage("learning merges", None);
    let shown = RefCell::new(progress);
    let report = |size: usize| shown.borrow_mut().at(0, &format!("{size} tokens"));
    let extended = extender.finish(arguments.add, &report, stop.as_atomic());
    let extended = extended.map_err(|error| match error {
        TokenizerError::Stopped => Failure::failed(error),
        other => Failure::usage(other),
    })?;
    durable::create_folder(&arguments.out).map_err(Failure::failed)?;
    for (name, bytes) in &extended.files {
        durable::write_atomic(&arguments.out.join(name), bytes).map_err(Failure::failed)?;
    }
    shown.borrow_mut().stage("reading it back, measuring both", None);
    let new = Tokenizer::open(&arguments.out).map_err(Failure::failed)?;
    let is_kept = |id: u32| base.piece(id).is_none() || base.piece(id) == new.piece(id);
    if let Some(id) = (0..base.vocab_size() as u32).find(|id| !is_kept(*id)) {
        let what = format!("{}: id {id} has changed its meaning; this is a defect", arguments.out.display());
        return Err(Failure::failed(what));
    }
    let (mut before, mut after, mut failed) = (Evaluation::new(&base), Evaluation::new(&new), None);
    read_documents(&sources, &ReadOptions::default(), stop.as_atomic(), &mut |document| {
        if failed.is_none() {
            failed = before.add(&document).and_then(|()| after.add(&document)).err();
        }
        Ok(())
    })?;
    shown.borrow_mut().end();
    if let Some(error) = failed {
        return Err(Failure::failed(error));
    }
    say(&format!("{:<10} {:>12} {:>12} {:>8}  {}", "language", "tokens/word", "extended", "change", "round trip"));
    let (before, after) = (before.finish(), after.finish());
    for (language, old) in &before {
        let new = after.get(language).cloned().unwrap_or_default();
        say(&line(language, old, &new));
    }
    let report = &extended.report;
    say(&format!(
        "{}: {} tokens, {} of them new (from {} distinct words)",
        arguments.out.display(),
        report.base + report.added,
        report.added,
        report.distinct_words
    ));
    let broken: u64 = after.values().map(|language| language.failed_round_trips).sum();
    Ok(if broken == 0 { Exit::Done } else { Exit::Failed })
}

fn line(language: &str, old: &LanguageEvaluation, new: &LanguageEvaluation) -> String {
    let change = (new.tokens as f64 / old.tokens.max(1) as f64 - 1.0) * 100.0;
    let trip = if new.failed_round_trips == 0 { "exact".into() } else { format!("{} FAIL", new.failed_round_trips) };
    format!("{language:<10} {:>12.3} {:>12.3} {change:>+6.1} %  {trip}", old.fertility(), new.fertility())
}
