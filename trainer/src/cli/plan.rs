//! Owns `jazari validate`, `migrate`, `plan` and `schema`; never touches a device.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::ConfigArguments;
use super::failure::{Exit, Failure, note, say};
use super::mixing::Outlook;
use super::progress::short;
use crate::config::{self, Estimate, Throughput};
use crate::durable;
use crate::session::{self, Resolved};

#[derive(Debug, Args)]
pub(super) struct PlanArguments {
    #[command(flatten)]
    config: ConfigArguments,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Estimate hours from the speed of an earlier run (its output_dir)
    #[arg(long, value_name = "RUN", conflicts_with = "tokens_per_second")]
    measured: Option<PathBuf>,
    /// Estimate hours from this speed
    #[arg(long, value_name = "N")]
    tokens_per_second: Option<f64>,
}

#[derive(Debug, Args)]
pub(super) struct MigrateArguments {
    /// Training configs (YAML)
    #[arg(required = true)]
    configs: Vec<PathBuf>,
    /// Change the files; without it, the new text of one file is printed
    #[arg(long)]
    write: bool,
    /// Change nothing and print no text: exit code 3 when a file is not up to date
    #[arg(long, conflicts_with = "write")]
    check: bool,
}

#[derive(Debug, Args)]
pub(super) struct SchemaArguments {
    /// Which config
    #[arg(value_enum, default_value_t = SchemaKind::Train)]
    kind: SchemaKind,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum SchemaKind {
    /// `jazari train`
    Train,
    /// `jazari data prepare` and `jazari tokenizer train`
    Data,
}

/// Checks a config against its data set and base model.
pub(super) fn validate(arguments: &ConfigArguments) -> Result<Exit, Failure> {
    let Resolved { plan, notes, .. } = session::resolve(&arguments.config, &arguments.set).map_err(Failure::usage)?;
    for line in &notes {
        note(&format!("note: {line}"));
    }
    say(&format!("{}: valid, plan {}", arguments.config.display(), short(&plan.digest())));
    Ok(Exit::Done)
}

/// Brings configs up to date; all are read before the first is written.
pub(super) fn migrate(arguments: &MigrateArguments) -> Result<Exit, Failure> {
    if arguments.configs.len() > 1 && !arguments.write && !arguments.check {
        return Err(Failure::usage("several files are brought up to date with `--write` or looked at with `--check`"));
    }
    let mut all = Vec::new();
    for path in &arguments.configs {
        let text = config::yaml::read(path).map_err(Failure::usage)?;
        all.push((path, config::migrate::migrate(path, &text).map_err(Failure::usage)?));
    }
    for (path, migrated) in &all {
        for line in &migrated.notes {
            note(&format!("note: {line}"));
        }
        match (arguments.write, arguments.check, migrated.is_changed) {
            (_, _, false) if arguments.write || arguments.check => say(&format!("{}: up to date", path.display())),
            (true, _, _) => {
                // A link stays one: what it leads to is changed.
                let file = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
                durable::write_atomic(&file, migrated.text.as_bytes()).map_err(Failure::failed)?;
                say(&format!("{}: brought up to date", path.display()));
            }
            (_, true, _) => say(&format!("{}: not up to date; `jazari migrate --write` changes it", path.display())),
            _ => say(migrated.text.trim_end_matches('\n')),
        }
    }
    let is_behind = arguments.check && all.iter().any(|(_, migrated)| migrated.is_changed);
    Ok(if is_behind { Exit::Missed } else { Exit::Done })
}

/// Shows what a run will cost.
pub(super) fn plan(arguments: &PlanArguments) -> Result<Exit, Failure> {
    let ConfigArguments { config, set } = &arguments.config;
    let Resolved { plan, notes, dataset, order, .. } = session::resolve(config, set).map_err(Failure::usage)?;
    let outlook = Outlook::of(&plan, &dataset, &order)?;
    let throughput = match (&arguments.measured, arguments.tokens_per_second) {
        (Some(run), _) => Some(Throughput::of_run(run).map_err(Failure::usage)?),
        (None, Some(speed)) if speed.is_finite() && speed > 0.0 => {
            Some(Throughput { tokens_per_second: speed, source: "given on the command line".into() })
        }
        (None, Some(speed)) => {
            return Err(Failure::usage(format!("--tokens-per-second {speed}: give a number above 0")));
        }
        (None, None) => None,
    };
    let estimate = Estimate::of(&plan, throughput);
    if arguments.json {
        let mut value = plan.to_json();
        value["estimate"] = serde_json::to_value(&estimate).map_err(Failure::failed)?;
        value["data"] = outlook.to_json();
        say(&format!("{value:#}"));
        return Ok(Exit::Done);
    }
    for line in &notes {
        note(&format!("note: {line}"));
    }
    say(&plan.resolved_yaml().map_err(Failure::usage)?);
    say(&estimate.render());
    outlook.print();
    Ok(Exit::Done)
}

/// Prints a JSON schema.
pub(super) fn schema(arguments: &SchemaArguments) -> Result<Exit, Failure> {
    let schema = match arguments.kind {
        SchemaKind::Train => config::training_schema(),
        SchemaKind::Data => config::data_schema(),
    };
    say(&format!("{schema:#}"));
    Ok(Exit::Done)
}
