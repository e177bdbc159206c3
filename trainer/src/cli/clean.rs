//! Owns `jazari data clean`: which steps are asked for and by which rules; never judges a text.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use data_pipeline::clean::{Clean, CleanConfig};
use data_pipeline::normalize::Normalize;

use super::failure::{Exit, Failure};
use super::filter::{FilterArguments, filter, refuse_dropped, write_dropped};
use crate::config;

#[derive(Debug, Args)]
pub(super) struct CleanArguments {
    #[command(flatten)]
    rows: FilterArguments,
    /// Steps to take, always in this order; without --steps and --rules all of them
    #[arg(long, value_enum, value_delimiter = ',', value_name = "STEP")]
    steps: Vec<Step>,
    /// A YAML file with the sections `normalize:`, `repair:`, `identify:`, `filters:` and `pii:` of a data configuration
    #[arg(long, value_name = "FILE")]
    rules: Option<PathBuf>,
    /// Add the field `notes`: score of the language, figures of the filters, how often each rule fired
    #[arg(long)]
    notes: bool,
    /// Write the dropped rows with their reason here; reads the inputs a second time
    #[arg(long, value_name = "FILE")]
    dropped: Option<PathBuf>,
}

/// Values of `--steps`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Step {
    /// The training form of the scripts of Morocco
    Normalize,
    /// What extraction and wrong encodings did
    Repair,
    /// The language
    Identify,
    /// Texts of poor quality go
    Filters,
    /// Personal data is replaced
    Pii,
}

/// Runs the command.
pub(super) fn run(arguments: &CleanArguments) -> Result<Exit, Failure> {
    let config = clean_config(arguments)?;
    let inputs = arguments.rows.open()?;
    refuse_dropped(arguments.dropped.as_deref(), &inputs)?;
    let stage = Clean::new(&config).map_err(Failure::usage)?;
    let stage = if arguments.notes { stage.with_notes() } else { stage };
    if let Some(path) = &arguments.dropped {
        // Made now, so that a place that refuses is told before anything is read.
        drop(arguments.rows.side_file("--dropped", path, &inputs)?);
    }
    let (exit, _) = filter(&arguments.rows, "cleaning", &stage)?;
    if let Some(path) = &arguments.dropped {
        let stage = Clean::new(&config).map_err(Failure::usage)?.only_dropped();
        write_dropped(&arguments.rows, &inputs, &stage, path)?;
    }
    Ok(exit)
}

/// The sections of the file, or everything; of these the steps that the command line names.
fn clean_config(arguments: &CleanArguments) -> Result<CleanConfig, Failure> {
    let all = CleanConfig::everything();
    let mut config = match &arguments.rules {
        Some(path) => config::load::<CleanConfig>(path, &[]).map_err(Failure::usage)?.0,
        None => all.clone(),
    };
    if !arguments.steps.is_empty() {
        let named = |step| arguments.steps.contains(&step);
        config = CleanConfig {
            normalize: match (named(Step::Normalize), &arguments.rules) {
                (false, _) => Normalize::None,
                (true, Some(_)) => config.normalize,
                (true, None) => all.normalize,
            },
            repair: named(Step::Repair).then(|| config.repair.or(all.repair)).flatten(),
            identify: named(Step::Identify).then(|| config.identify.or(all.identify)).flatten(),
            filters: named(Step::Filters).then(|| config.filters.or(all.filters)).flatten(),
            pii: named(Step::Pii).then(|| config.pii.or(all.pii)).flatten(),
        };
    }
    let problems = config.validate();
    if problems.is_empty() { Ok(config) } else { Err(Failure::usage(problems.join("\n"))) }
}
