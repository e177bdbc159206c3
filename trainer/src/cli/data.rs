//! Owns `jazari data`: arguments, progress, tables; never touches raw files or shards itself.

use std::cell::RefCell;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};
use data_pipeline::chat::{REJECTED, TRAINED};
use data_pipeline::config::PrepareConfig;
use data_pipeline::dataset::{DataError, Dataset};
use data_pipeline::filter::Nothing;
use data_pipeline::inspect::{self, InspectedDocument, Selection};
use data_pipeline::manifest::Split;
use data_pipeline::prepare::{self, PrepareError, PrepareEvent, Stage, Worker};
use data_pipeline::stats::{Stats, Tally};
use data_pipeline::tokenizer::{Tokenizer, TokenizerError};
use data_pipeline::trace::find;
use data_pipeline::verify::{self, VerifyProgress};

use super::clean::{self, CleanArguments};
use super::failure::{Exit, Failure, note, say};
use super::filter::{FilterArguments, filter};
use super::identify::{self, IdentifyArguments};
use super::normalize::{self, LexiconArguments, NormalizeArguments};
use super::progress::{StageProgress, short, thousands};
use super::scrub::{self, ScrubArguments};
use super::transliterate::{self, TransliterateArguments};
use super::{ConfigArguments, governance, trace};
use crate::config::{self, Places};
use crate::signals::StopFlag;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Corpora to tokenizer, token shards, manifest, statistics, data card
    Prepare(PrepareArguments),
    /// Rows of any readable format as JSONL, every field as it was
    Read(FilterArguments),
    /// Rows normalised, repaired, identified, filtered and without personal data, in one pass: what `prepare` would take
    Clean(CleanArguments),
    /// Find rows that repeat others, whole, nearly or by paragraph: marks or drops them
    Dedup(super::dedup::DedupArguments),
    /// Drop rows that hold items of benchmarks, and list what was found
    Decontaminate(super::dedup::DecontaminateArguments),
    /// Texts in training form, and repaired, as JSONL (docs/guide/normalisation.md)
    Normalize(NormalizeArguments),
    /// Texts in another script of their language: Tifinagh and Latin both ways, Arabizi in Arabic letters
    Transliterate(TransliterateArguments),
    /// Rows without poor texts and without personal data
    Scrub(ScrubArguments),
    /// The Arabic words of texts and how often they occur, for `data normalize --lexicon` and `repair.lexicons`
    Lexicon(LexiconArguments),
    /// Name the language of every row: label, score, code-switch spans; train and judge models of languages
    Identify(IdentifyArguments),
    /// Show documents of a prepared data set: text, tokens, origin
    Inspect(InspectArguments),
    /// Check every digest of a prepared data set
    Verify(FolderArguments),
    /// Documents, words and tokens by language, source and licence
    Stats(StatsArguments),
    /// Compare the ways to fill rows: documents end to end, or whole where they fit
    Packing(super::mixing::PackingArguments),
    /// Take documents out of a prepared data set, by identifier, source, licence or address
    Remove(governance::RemoveArguments),
    /// Which documents a step or a row of a run saw; which rows and steps saw a document
    Trace(trace::TraceArguments),
    /// Write a prepared data set in another form: jsonl, parquet, text, dolma, megatron, datatrove
    Convert(governance::ConvertArguments),
    /// Write the data cards (DATACARD.md, datacard.html) of a prepared data set anew
    Card(governance::CardArguments),
}

#[derive(Debug, Args)]
pub(super) struct PrepareArguments {
    #[command(flatten)]
    config: ConfigArguments,
    /// Work together with other processes that run this very command on this config, here or on other machines that see
    /// the same files under the same paths (Slurm array tasks, ssh and NFS): they share the reading, and one writes
    #[arg(long)]
    worker: bool,
    /// A worker that is not heard of for so long is taken for dead, and its work is done by another
    #[arg(long, default_value_t = 60, value_name = "SECONDS", requires = "worker", value_parser = clap::value_parser!(u64).range(1..))]
    lease_seconds: u64,
}

#[derive(Debug, Args)]
pub(super) struct FolderArguments {
    /// Folder made by `jazari data prepare`
    folder: PathBuf,
}

#[derive(Debug, Args)]
pub(super) struct StatsArguments {
    /// Folder made by `jazari data prepare`
    folder: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct InspectArguments {
    /// Folder made by `jazari data prepare`
    folder: PathBuf,
    /// Only this language, such as ary_Arab
    #[arg(long)]
    lang: Option<String>,
    /// Only this source
    #[arg(long)]
    source: Option<String>,
    /// Held-out documents instead of training documents
    #[arg(long)]
    validation: bool,
    /// Documents to show of each language and source
    #[arg(long, default_value_t = 2, value_name = "N")]
    limit: u64,
    /// The first document to show of each language and source
    #[arg(long, default_value_t = 0, value_name = "N", conflicts_with = "row")]
    first: u64,
    /// Show this row of each language and source instead, as training at --sequence-len sees it
    #[arg(long, value_name = "N", requires = "sequence_len")]
    row: Option<u64>,
    /// Tokens of a row
    #[arg(long, value_name = "N")]
    sequence_len: Option<usize>,
    /// How the run packs texts into rows (`sample_packing` of its config); chats are always packed whole
    #[arg(long, value_enum, default_value_t = RowPacking::EndToEnd, requires = "row")]
    packing: RowPacking,
    /// Show the document with this identifier
    #[arg(long, value_name = "ID", conflicts_with_all = ["row", "first", "lang", "source"])]
    id: Option<String>,
    /// Print one JSON object a document
    #[arg(long)]
    json: bool,
}

/// Packings of `--packing`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum RowPacking {
    /// `sample_packing: true`: documents end to end
    EndToEnd,
    /// `sample_packing: best_fit`: documents whole where they fit
    BestFit,
}

/// Runs one of the commands.
pub(super) fn run(command: Command) -> Result<Exit, Failure> {
    match command {
        Command::Prepare(arguments) => prepare(&arguments),
        Command::Read(arguments) => Ok(filter(&arguments, "reading", &Nothing)?.0),
        Command::Dedup(arguments) => super::dedup::dedup(&arguments),
        Command::Decontaminate(arguments) => super::dedup::decontaminate(&arguments),
        Command::Normalize(arguments) => normalize::normalize(&arguments),
        Command::Transliterate(arguments) => transliterate::run(&arguments),
        Command::Clean(arguments) => clean::run(&arguments),
        Command::Scrub(arguments) => scrub::run(&arguments),
        Command::Lexicon(arguments) => normalize::lexicon(&arguments),
        Command::Identify(arguments) => identify::run(&arguments),
        Command::Inspect(arguments) => inspect(&arguments),
        Command::Verify(arguments) => verify(&arguments.folder),
        Command::Stats(arguments) => stats(&arguments),
        Command::Packing(arguments) => super::mixing::packing(&arguments),
        Command::Remove(arguments) => governance::remove(&arguments),
        Command::Trace(arguments) => trace::trace(&arguments),
        Command::Convert(arguments) => governance::convert(&arguments),
        Command::Card(arguments) => governance::card(&arguments),
    }
}

fn prepare(arguments: &PrepareArguments) -> Result<Exit, Failure> {
    let ConfigArguments { config: path, set } = &arguments.config;
    let (config, notes, places) = config::load_placed::<PrepareConfig>(path, set).map_err(Failure::usage)?;
    for line in &notes {
        note(&format!("note: {line}"));
    }
    let stop = StopFlag::install(true).map_err(Failure::failed)?;
    let progress = RefCell::new(StageProgress::new());
    let observer = |event: &PrepareEvent| show(&mut progress.borrow_mut(), event);
    let worker = Worker { lease_time: Duration::from_secs(arguments.lease_seconds) };
    let result = match arguments.worker {
        true => prepare::prepare_together(&config, &worker, &observer, stop.as_atomic()),
        false => prepare::prepare(&config, &observer, stop.as_atomic()),
    };
    progress.borrow_mut().end();
    let outcome = result.map_err(|error| located(error, &places))?;
    if outcome.already {
        say(&format!("{}: already prepared from the same config and files", config.output_dir.display()));
    }
    print_stats(&config.output_dir)?;
    say(&format!("data set {} in {}", short(&outcome.id), config.output_dir.display()));
    Ok(Exit::Done)
}

/// A failure with the place of the keys that it names.
fn located(error: PrepareError, places: &Places) -> Failure {
    let lines: Vec<String> = error.by_key().iter().map(|problem| places.located(problem)).collect();
    let failure = Failure::from(error);
    if lines.is_empty() { failure } else { failure.told(lines.join("\n")) }
}

fn show(progress: &mut StageProgress, event: &PrepareEvent) {
    match event {
        PrepareEvent::StageStarted { stage, total_bytes } => {
            let name = match stage {
                Stage::Read => "reading, cleaning",
                Stage::Dedup => "deduplicating",
                Stage::Tokenizer => "tokenizer",
                Stage::Shards => "writing token shards",
            };
            progress.stage(name, Some(*total_bytes));
        }
        PrepareEvent::Progress { bytes, rows, .. } => progress.at(*bytes, &format!("{} rows", thousands(*rows as f64))),
        PrepareEvent::StageFinished { stage, reused } => {
            if *reused {
                progress.line(&format!("{}: taken over from an interrupted run", stage.name()));
            }
            progress.end();
        }
        PrepareEvent::Warning(text) => progress.line(&format!("warning: {text}")),
    }
}

/// Shows documents.
fn inspect(arguments: &InspectArguments) -> Result<Exit, Failure> {
    let mut dataset = Dataset::open(&arguments.folder).map_err(Failure::usage)?;
    if let (RowPacking::BestFit, Some(len)) = (arguments.packing, arguments.sequence_len) {
        dataset = dataset.with_best_fit(len.max(1)).map_err(Failure::usage)?;
    }
    let dataset = dataset;
    let tokenizer = Tokenizer::open(&dataset.tokenizer_file()).map_err(Failure::usage)?;
    let selection = Selection {
        validation: arguments.validation,
        lang: arguments.lang.clone(),
        source: arguments.source.clone(),
        first: arguments.first,
        documents: arguments.limit,
    };
    let shown = match (arguments.row, arguments.sequence_len) {
        _ if arguments.id.is_some() => with_id(&dataset, &tokenizer, arguments.id.as_deref().unwrap_or_default()),
        (Some(row), Some(len)) => inspect::component_rows(&dataset, &tokenizer, &selection, row, len.max(1)),
        _ => inspect::documents(&dataset, &tokenizer, &selection),
    };
    let shown = shown.map_err(Failure::usage)?;
    if shown.is_empty() {
        let languages: Vec<_> = dataset.manifest().languages.keys().cloned().collect();
        return Err(Failure::usage(format!(
            "{}: no document fits the selection; the languages are {}",
            arguments.folder.display(),
            languages.join(", ")
        )));
    }
    for document in &shown {
        if arguments.json {
            say(&serde_json::to_string(document).map_err(Failure::failed)?);
        } else {
            show_document(document);
        }
    }
    Ok(Exit::Done)
}

/// The document with this identifier, wherever it stands.
fn with_id(dataset: &Dataset, tokenizer: &Tokenizer, id: &str) -> Result<Vec<InspectedDocument>, DataError> {
    let mut shown = Vec::new();
    for place in find(dataset, id)? {
        let selection = Selection {
            validation: place.document.split == Split::Validation,
            lang: Some(place.document.lang),
            source: Some(place.document.source),
            first: place.document.number,
            documents: 1,
        };
        shown.extend(inspect::documents(dataset, tokenizer, &selection)?);
    }
    Ok(shown)
}

/// Text that cannot steer the terminal, its lines set in.
fn harmless(text: &str) -> String {
    let text: String =
        text.chars().map(|c| if c.is_control() && c != '\n' { char::REPLACEMENT_CHARACTER } else { c }).collect();
    text.replace('\n', "\n  ")
}

fn show_document(document: &InspectedDocument) {
    let InspectedDocument { lang, source, number, id, licence, url, text_bytes, num_tokens, text, pieces, .. } =
        document;
    say(&format!("{lang}/{source} #{number}  {id}  {licence}  {text_bytes} bytes, {num_tokens} tokens"));
    if let Some(url) = url {
        say(&format!("  {}", harmless(url)));
    }
    if !document.marks.is_empty() {
        show_marked(document);
        return;
    }
    say(&format!("  {}", harmless(text)));
    say(&format!("  {}\n", harmless(&pieces.join("|"))));
}

/// A chat: what is trained stands out, in colour where a person looks, else between `[[` and `]]`; tokens that are
/// trained have a `*`.
fn show_marked(document: &InspectedDocument) {
    let colour = std::io::stdout().is_terminal();
    let mut text = String::new();
    for (mark, run) in &document.runs {
        let run = harmless(run);
        text.push_str(&match (colour, mark & TRAINED != 0, mark & REJECTED != 0) {
            (true, true, false) => format!("\u{1b}[1;32m{run}\u{1b}[0m"),
            (true, true, true) => format!("\u{1b}[1;31m{run}\u{1b}[0m"),
            (true, false, _) => format!("\u{1b}[2m{run}\u{1b}[0m"),
            (false, true, _) => format!("[[{run}]]"),
            (false, false, _) => run,
        });
    }
    say(&format!("  {text}"));
    let star = |at: usize| if document.marks.get(at).is_some_and(|mark| mark & TRAINED != 0) { "*" } else { "" };
    let pieces: Vec<String> = document.pieces.iter().enumerate().map(|(at, p)| format!("{}{p}", star(at))).collect();
    let ids: Vec<String> = document.tokens.iter().enumerate().map(|(at, id)| format!("{}{id}", star(at))).collect();
    say(&format!("  {}", pieces.join("|")));
    let trained = document.marks.iter().filter(|mark| **mark & TRAINED != 0).count();
    say(&format!("  {}\n  {trained} of {} tokens trained\n", ids.join(" "), document.marks.len()));
}

/// Checks every digest.
pub(super) fn verify(folder: &Path) -> Result<Exit, Failure> {
    let stop = StopFlag::install(true).map_err(Failure::failed)?;
    let progress = RefCell::new(StageProgress::new());
    let started = std::cell::Cell::new(false);
    let show = |at: VerifyProgress| {
        let mut progress = progress.borrow_mut();
        if !started.replace(true) {
            progress.stage("verifying", Some(at.total_bytes));
        }
        progress.at(at.bytes, "");
    };
    let report = verify::verify(folder, &show, stop.as_atomic());
    progress.borrow_mut().end();
    let report = report.map_err(|error| match error {
        // A damaged file is what the command was asked to find.
        DataError::NotADataset { .. } => Failure::usage(error),
        other => Failure::failed(other),
    })?;
    for warning in &report.warnings {
        note(&format!("warning: {warning}"));
    }
    say(&format!(
        "{}: valid; data set {}, {} files, {} documents, {} tokens",
        folder.display(),
        short(&report.id),
        report.files,
        thousands(report.documents as f64),
        thousands(report.tokens as f64)
    ));
    Ok(Exit::Done)
}

fn stats(arguments: &StatsArguments) -> Result<Exit, Failure> {
    if arguments.json {
        let stats = Stats::read(&arguments.folder).map_err(Failure::usage)?;
        say(&serde_json::to_string_pretty(&stats).map_err(Failure::failed)?);
        return Ok(Exit::Done);
    }
    print_stats(&arguments.folder)?;
    Ok(Exit::Done)
}

fn print_stats(folder: &Path) -> Result<(), Failure> {
    let stats = Stats::read(folder).map_err(Failure::usage)?;
    for (title, tallies) in [("language", stats.by_language()), ("source", stats.by_source())] {
        // Names may be longer than a column, and are counted in characters.
        let width = tallies.keys().map(|name| name.chars().count()).max().unwrap_or(0).clamp(12, 40);
        say(&format!(
            "{title:<width$} {:>10} {:>10} {:>9} {:>14} {:>14} {:>7} {:>9} {:>9}",
            "rows", "documents", "held out", "words", "tokens", "share", "tok/word", "dropped"
        ));
        let mut sorted: Vec<_> = tallies.iter().collect();
        sorted.sort_by_key(|(name, tally)| (std::cmp::Reverse(tally.tokens()), *name));
        for (name, tally) in sorted {
            say(&tally_line(name, width, tally, &stats.total));
        }
        say(&tally_line("total", width, &stats.total, &stats.total));
        say("");
    }
    let mut licences: Vec<_> = stats.licences.iter().collect();
    licences.sort_by_key(|(name, tally)| (std::cmp::Reverse(tally.words), *name));
    for (licence, tally) in licences {
        let (documents, words) = (thousands(tally.documents as f64), thousands(tally.words as f64));
        say(&format!("{licence:<32} {documents:>12} documents {words:>14} words"));
    }
    let Tally { rows, documents, dropped, .. } = &stats.total;
    let lost = stats.total.num_dropped();
    say(&format!(
        "\n{} rows = {} documents + {} dropped",
        thousands(*rows as f64),
        thousands(*documents as f64),
        thousands(lost as f64)
    ));
    let mut reasons: Vec<_> = dropped.iter().collect();
    reasons.sort_by_key(|(reason, count)| (std::cmp::Reverse(**count), *reason));
    for (reason, count) in reasons {
        let share = 100.0 * *count as f64 / (*rows).max(1) as f64;
        say(&format!("{:>12}  {share:>5.2} %  {reason}", thousands(*count as f64)));
    }
    Ok(())
}

fn tally_line(name: &str, width: usize, tally: &Tally, total: &Tally) -> String {
    let share = 100.0 * tally.tokens() as f64 / total.tokens().max(1) as f64;
    let per_word = tally.tokens() as f64 / tally.words.max(1) as f64;
    format!(
        "{name:<width$} {:>10} {:>10} {:>9} {:>14} {:>14} {share:>5.1} % {per_word:>9.2} {:>9}",
        tally.rows,
        tally.documents,
        tally.validation_documents,
        thousands(tally.words as f64),
        thousands(tally.tokens() as f64),
        tally.num_dropped()
    )
}

impl From<PrepareError> for Failure {
    fn from(error: PrepareError) -> Self {
        match error {
            PrepareError::Io { .. }
            | PrepareError::Dedup(_)
            | PrepareError::Changed { .. }
            | PrepareError::Unreconciled { .. }
            | PrepareError::Interrupted { .. } => Self::failed(error),
            PrepareError::Gates { .. } | PrepareError::Tokenizer(TokenizerError::Gates { .. }) => {
                Self::with(Exit::Missed, error)
            }
            other => Self::usage(other),
        }
    }
}
