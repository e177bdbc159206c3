//! Owns `jazari data scrub`: which filters and kinds of personal data are asked for; never judges a text.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use data_pipeline::filter::AtomicFile;
use data_pipeline::filters::FilterConfig;
use data_pipeline::pii::{Action, AuditEntry, Kind, PiiConfig};
use data_pipeline::scrub::{Scrub, ScrubConfig};

use super::failure::{Exit, Failure};
use super::filter::{FilterArguments, filter, refuse_dropped, write_dropped};
use crate::config;

#[derive(Debug, Args)]
pub(super) struct ScrubArguments {
    #[command(flatten)]
    rows: FilterArguments,
    /// Drop rows of poor quality; without --filters and --pii both are done
    #[arg(long)]
    filters: bool,
    /// Replace personal data
    #[arg(long)]
    pii: bool,
    /// Kinds of personal data to replace, others are kept: phone,email; or what to do: cnss=replace,card=drop,ip=keep
    #[arg(long, value_delimiter = ',', value_name = "KIND[=ACTION]")]
    kinds: Vec<String>,
    /// A YAML file with the sections `filters:` and `pii:` of a data configuration
    #[arg(long, value_name = "FILE")]
    rules: Option<PathBuf>,
    /// Write what the filters measured into the field `signals`
    #[arg(long)]
    signals: bool,
    /// Write the dropped rows with their reason here; reads the inputs a second time
    #[arg(long, value_name = "FILE")]
    dropped: Option<PathBuf>,
    /// Write a sample of what was found, masked, here
    #[arg(long, value_name = "FILE")]
    audit: Option<PathBuf>,
}

/// Runs the command.
pub(super) fn run(arguments: &ScrubArguments) -> Result<Exit, Failure> {
    let scrub = scrub_config(arguments)?;
    let inputs = arguments.rows.open()?;
    refuse_dropped(arguments.dropped.as_deref(), &inputs)?;
    let stage = Scrub::new(&scrub).map_err(Failure::usage)?;
    let stage = if arguments.signals { stage.with_signals() } else { stage };
    let side = |option: &'static str, path: &Option<PathBuf>| {
        path.as_ref().map(|path| arguments.rows.side_file(option, path, &inputs)).transpose()
    };
    let audit = side("--audit", &arguments.audit)?;
    // Made now, so that a place that refuses is told before anything is read.
    drop(side("--dropped", &arguments.dropped)?);
    let (exit, _) = filter(&arguments.rows, "scrubbing", &stage)?;
    if let Some(audit) = audit {
        write_audit(audit, &stage.audit())?;
    }
    if let Some(path) = &arguments.dropped {
        let stage = Scrub::new(&scrub).map_err(Failure::usage)?.only_dropped();
        write_dropped(&arguments.rows, &inputs, &stage, path)?;
    }
    Ok(exit)
}

/// The sections of the file, then what the command line says.
fn scrub_config(arguments: &ScrubArguments) -> Result<ScrubConfig, Failure> {
    let mut scrub = match &arguments.rules {
        Some(path) => config::load::<ScrubConfig>(path, &[]).map_err(Failure::usage)?.0,
        None => ScrubConfig::default(),
    };
    let pii_named = arguments.pii || !arguments.kinds.is_empty();
    let nothing_named = !arguments.filters && !pii_named && arguments.rules.is_none();
    if arguments.filters || nothing_named {
        scrub.filters.get_or_insert_with(FilterConfig::default);
    }
    if pii_named || nothing_named {
        scrub.pii.get_or_insert_with(PiiConfig::default);
    }
    // A file may hold both sections while the command line asks for one.
    if arguments.filters && !pii_named {
        scrub.pii = None;
    }
    if pii_named && !arguments.filters && arguments.rules.is_none() {
        scrub.filters = None;
    }
    if let Some(pii) = &mut scrub.pii {
        name_kinds(&arguments.kinds, pii)?;
    }
    let problems = scrub.validate();
    if problems.is_empty() { Ok(scrub) } else { Err(Failure::usage(problems.join("\n"))) }
}

/// `phone,email` replaces these and keeps the others; `card=drop` says what is done with one kind.
fn name_kinds(names: &[String], pii: &mut PiiConfig) -> Result<(), Failure> {
    if names.iter().any(|name| !name.contains('=')) {
        pii.kinds = Kind::ALL.into_iter().map(|kind| (kind, Action::Keep)).collect();
    }
    for name in names {
        let (kind, action) = name.split_once('=').unwrap_or((name, "replace"));
        let action = match action {
            "replace" => Action::Replace,
            "keep" => Action::Keep,
            "drop" => Action::Drop,
            other => return Err(Failure::usage(format!("--kinds: {other:?} is not replace, keep or drop"))),
        };
        let known: Vec<&str> = Kind::ALL.iter().map(|kind| kind.name()).collect();
        let kind = Kind::named(kind.trim())
            .ok_or_else(|| Failure::usage(format!("--kinds: {kind:?} is not one of {}", known.join(", "))))?;
        pii.kinds.insert(kind, action);
    }
    Ok(())
}

fn write_audit(mut out: AtomicFile, entries: &[AuditEntry]) -> Result<(), Failure> {
    for entry in entries {
        let line = serde_json::to_string(entry).map_err(Failure::failed)?;
        writeln!(out, "{line}").map_err(Failure::failed)?;
    }
    out.commit()?;
    Ok(())
}
