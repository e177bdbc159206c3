//! Owns `jazari data remove`, `convert` and `card`: arguments, progress, reports; never touches shards itself.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use clap::{Args, ValueEnum};
use data_pipeline::card;
use data_pipeline::convert::{self, Choice, ConvertError, Target};
use data_pipeline::dataset::{DataError, Dataset};
use data_pipeline::manifest::Split;
use data_pipeline::removal::{self, Cause, REMOVED_FILE, RemovalError, RemovalProgress, Report, Selection};

use super::failure::{Exit, Failure, note, say};
use super::progress::{StageProgress, short, thousands};
use crate::signals::StopFlag;

#[derive(Debug, Args)]
pub(super) struct RemoveArguments {
    /// Folder made by `jazari data prepare`
    folder: PathBuf,
    /// Documents with this identifier, ours or the corpus's own; may be given several times, as all of these
    #[arg(long = "id", value_name = "ID")]
    ids: Vec<String>,
    /// Documents of this source
    #[arg(long = "source", value_name = "NAME")]
    sources: Vec<String>,
    /// Documents under this licence, or under a prefix such as `CC-BY-NC-*`
    #[arg(long = "licence", alias = "license", value_name = "LICENCE")]
    licences: Vec<String>,
    /// Documents whose address begins so
    #[arg(long = "url-prefix", alias = "url", value_name = "URL")]
    url_prefixes: Vec<String>,
    /// Documents of this host and the hosts below it
    #[arg(long = "domain", value_name = "HOST")]
    domains: Vec<String>,
    /// Everything that an opt-out list names: `id: X`, `url: PREFIX`, `domain: HOST` or `source: NAME` a line
    #[arg(long = "ids-file", value_name = "FILE")]
    lists: Vec<PathBuf>,
    /// Why, for the log
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Only count what would go
    #[arg(long)]
    dry_run: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Takes documents out of a data set.
pub(super) fn remove(arguments: &RemoveArguments) -> Result<Exit, Failure> {
    let selection = selection(arguments)?;
    let cause = Cause { time: utc_now(), reason: arguments.reason.clone() };
    let stop = StopFlag::install(true).map_err(Failure::failed)?;
    let progress = RefCell::new((StageProgress::new(), ""));
    let observe = |at: RemovalProgress| {
        let (name, at) = match at {
            RemovalProgress::Searching(at) => ("looking for documents", at),
            RemovalProgress::Writing(at) => ("writing shards", at),
            RemovalProgress::Verifying(at) => ("verifying", at),
        };
        let (stage, current) = &mut *progress.borrow_mut();
        if *current != name {
            *current = name;
            stage.stage(name, Some(at.total_bytes));
        }
        stage.at(at.bytes, "");
    };
    let result = removal::remove(&arguments.folder, &selection, &cause, arguments.dry_run, &observe, stop.as_atomic());
    progress.borrow_mut().0.end();
    let report = result.map_err(Failure::from)?;
    if arguments.json {
        say(&serde_json::to_string_pretty(&report.removal).map_err(Failure::failed)?);
        return Ok(Exit::Done);
    }
    show_removal(arguments, &report);
    Ok(Exit::Done)
}

fn selection(arguments: &RemoveArguments) -> Result<Selection, Failure> {
    let mut selection = Selection::default();
    for (option, kind, values) in [
        ("--id", "id", &arguments.ids),
        ("--source", "source", &arguments.sources),
        ("--licence", "licence", &arguments.licences),
        ("--url-prefix", "url", &arguments.url_prefixes),
        ("--domain", "domain", &arguments.domains),
    ] {
        for value in values {
            let wrong = |reason| Failure::usage(format!("{option} {value}: {reason}; write what the documents have"));
            selection.insert(kind, value).map_err(wrong)?;
        }
    }
    for path in &arguments.lists {
        selection.read_list(path).map_err(Failure::usage)?;
    }
    Ok(selection)
}

fn show_removal(arguments: &RemoveArguments, report: &Report) {
    let removal = &report.removal;
    if report.already {
        let (old, new) = (short(&removal.old), short(&removal.new));
        say(&format!(
            "nothing to do: {} documents that fit were removed at {} already; data set {old} became {new}",
            thousands(removal.documents as f64),
            removal.time
        ));
        return;
    }
    let verb = if arguments.dry_run { "would be removed" } else { "removed" };
    say(&format!(
        "{} documents {verb} ({} of them held out): {} tokens, {} bytes of text",
        thousands(removal.documents as f64),
        thousands(removal.validation_documents as f64),
        thousands(removal.tokens as f64),
        thousands(removal.text_bytes as f64)
    ));
    let parts = [
        ("named by", &removal.by_entry),
        ("languages", &removal.languages),
        ("sources", &removal.sources),
        ("licences", &removal.licences),
    ];
    for (name, counts) in parts {
        say(&format!("  {name}: {}", listed(counts)));
    }
    say(&format!(
        "{} documents and {} tokens stay; {} shards {}",
        thousands(report.documents_left as f64),
        thousands(report.tokens_left as f64),
        report.shards_changed,
        if arguments.dry_run { "would be written anew" } else { "were written anew" }
    ));
    report.warnings.iter().for_each(|warning| note(&format!("warning: {warning}")));
    if arguments.dry_run {
        say("nothing was changed; leave `--dry-run` out to remove them");
        return;
    }
    let (old, new) = (short(&removal.old), short(&removal.new));
    say(&format!("data set {old} is now {new} (verified; {} tells what went)", removal::LOG_FILE));
    say(&format!("  runs on it go on with `jazari train CONFIG --accept-dataset-change {old}..{new}`"));
    say(&format!(
        "  the raw files still hold the documents: list {} under `opt_outs: lists:` before you prepare again",
        arguments.folder.join(REMOVED_FILE).display()
    ));
}

/// The largest counts of a map, in words.
fn listed(counts: &BTreeMap<String, u64>) -> String {
    const MOST: usize = 8;
    let mut sorted: Vec<_> = counts.iter().collect();
    sorted.sort_by_key(|(name, count)| (std::cmp::Reverse(**count), *name));
    let mut parts: Vec<String> = sorted.iter().take(MOST).map(|(name, count)| format!("{name} {count}")).collect();
    if sorted.len() > MOST {
        parts.push(format!("and {} more", sorted.len() - MOST));
    }
    parts.join(", ")
}

/// Now, as `2026-11-22T10:00:00Z`.
fn utc_now() -> String {
    utc(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()))
}

/// Seconds since 1970 as a date and a time of day (Hinnant, "chrono-compatible low-level date algorithms").
fn utc(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let day_of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", rest / 3600, rest / 60 % 60, rest % 60)
}

impl From<RemovalError> for Failure {
    fn from(error: RemovalError) -> Self {
        match error {
            RemovalError::Data(ref cause @ (DataError::Io { .. } | DataError::Stopped)) if !cause.refuses_output() => {
                Self::failed(error)
            }
            other => Self::usage(other),
        }
    }
}

#[derive(Debug, Args)]
pub(super) struct CardArguments {
    /// Folder made by `jazari data prepare`
    folder: PathBuf,
}

/// Writes both data cards anew.
pub(super) fn card(arguments: &CardArguments) -> Result<Exit, Failure> {
    for name in card::rewrite(&arguments.folder).map_err(Failure::usage)? {
        say(&arguments.folder.join(name).display().to_string());
    }
    Ok(Exit::Done)
}

#[derive(Debug, Args)]
pub(super) struct ConvertArguments {
    /// Folder made by `jazari data prepare`
    folder: PathBuf,
    /// The form
    #[arg(long, value_name = "FORM")]
    to: Form,
    /// Output: a file, for dolma, megatron and datatrove a folder; `-` for standard output (jsonl, text)
    #[arg(long, value_name = "PATH")]
    out: PathBuf,
    /// Only this split
    #[arg(long, value_name = "SPLIT")]
    split: Option<SplitName>,
    /// Only this language, such as ary_Arab
    #[arg(long)]
    lang: Option<String>,
    /// Only this source
    #[arg(long)]
    source: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Form {
    /// One JSON object a document; FILE.gz and FILE.zst are compressed
    Jsonl,
    /// The same as a Parquet table
    Parquet,
    /// A folder `documents/` as dolma reads it
    Dolma,
    /// Plain text, an empty line between documents
    Text,
    /// `.bin` and `.idx` of Megatron-LM, one pair a split, language and source
    Megatron,
    /// `.ds`, `.ds.index` and `.ds.metadata` of datatrove
    Datatrove,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum SplitName {
    /// Training documents
    Train,
    /// Held-out documents
    Validation,
}

/// Writes a data set in another form.
pub(super) fn convert(arguments: &ConvertArguments) -> Result<Exit, Failure> {
    let target = match arguments.to {
        Form::Jsonl => Target::Jsonl,
        Form::Parquet => Target::Parquet,
        Form::Dolma => Target::Dolma,
        Form::Text => Target::Text,
        Form::Megatron => Target::Megatron,
        Form::Datatrove => Target::Datatrove,
    };
    let split = arguments.split.map(|split| match split {
        SplitName::Train => Split::Train,
        SplitName::Validation => Split::Validation,
    });
    let choice = Choice { split, lang: arguments.lang.clone(), source: arguments.source.clone() };
    let dataset = Dataset::open(&arguments.folder).map_err(Failure::usage)?;
    let stop = StopFlag::install(true).map_err(Failure::failed)?;
    if arguments.out == Path::new("-") {
        if !matches!(target, Target::Jsonl | Target::Text) {
            return Err(Failure::usage("--out -: only jsonl and text go to standard output; write a path"));
        }
        let mut sink = std::io::BufWriter::new(std::io::stdout().lock());
        let written = convert::stream(&dataset, target, &mut sink, &choice, stop.as_atomic());
        // A closed pipe (`| head`) is no reason to fail.
        return match written.map_err(Failure::from).and_then(|_| sink.flush().map_err(Failure::failed)) {
            Err(failure) if !is_closed_pipe(&failure) => Err(failure),
            _ => Ok(Exit::Done),
        };
    }
    let progress = RefCell::new(StageProgress::new());
    progress.borrow_mut().stage("converting", None);
    let observe = |done: u64, total: u64| {
        let text = format!("{} of {} documents", thousands(done as f64), thousands(total as f64));
        progress.borrow_mut().at(0, &text);
    };
    let written = convert::convert(&dataset, target, &arguments.out, &choice, &observe, stop.as_atomic());
    progress.borrow_mut().end();
    let written = written.map_err(Failure::from)?;
    say(&format!(
        "{}: {} documents, {} tokens in {} files",
        arguments.out.display(),
        thousands(written.documents as f64),
        thousands(written.tokens as f64),
        written.files
    ));
    Ok(Exit::Done)
}

fn is_closed_pipe(failure: &Failure) -> bool {
    let mut cause = failure.source();
    while let Some(error) = cause {
        if error.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe) {
            return true;
        }
        cause = error.source();
    }
    false
}

impl From<ConvertError> for Failure {
    fn from(error: ConvertError) -> Self {
        match error {
            ConvertError::Data(ref cause @ (DataError::Io { .. } | DataError::Stopped)) if !cause.refuses_output() => {
                Self::failed(error)
            }
            other => Self::usage(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_dates_of_the_calendar() {
        assert_eq!(utc(0), "1970-01-01T00:00:00Z");
        assert_eq!(utc(951_827_696), "2000-02-29T12:34:56Z");
        assert_eq!(utc(1_795_341_600), "2026-11-22T10:00:00Z");
    }
}
