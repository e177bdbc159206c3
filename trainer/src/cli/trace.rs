//! Owns `jazari data trace`: from steps and rows to documents, from documents to rows, steps and runs; never touches
//! shards or checkpoints itself.

use std::path::{Path, PathBuf};

use clap::Args;
use data_pipeline::dataset::Dataset;
use data_pipeline::loader::Loader;
use data_pipeline::manifest::MANIFEST_FILE;
use data_pipeline::order::Order;
use data_pipeline::removal::{self, RemovedDocument};
use data_pipeline::trace::{self, Location, Sighting, TracedRow};
use serde_json::json;

use super::failure::{Exit, Failure, note, say};
use super::progress::{short, thousands};
use crate::checkpoint::DatasetChange;
use crate::config::Plan;
use crate::dataset_change::{dataset_of_step, history};
use crate::session;

/// Rows of a document that are listed without `--json`.
const LISTED_ROWS: usize = 20;

#[derive(Debug, Args)]
pub(super) struct TraceArguments {
    /// Run directories, or a data set; with a data set, steps and rows need --config
    #[arg(required = true, value_name = "DIR|RUN")]
    places: Vec<PathBuf>,
    /// Which documents did step S see, as metrics.jsonl counts steps, from 1
    #[arg(long, value_name = "S", conflicts_with_all = ["row", "document"])]
    step: Option<u64>,
    /// Which documents did row R of the run see, from 0
    #[arg(long, value_name = "R", conflicts_with = "document")]
    row: Option<u64>,
    /// Which rows and steps saw this document
    #[arg(long, value_name = "ID")]
    document: Option<String>,
    /// Training config, where the place is a data set
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Change a value of the run's config, such as the place of its data set
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Name the process that computed a row, of so many
    #[arg(long, value_name = "PROCESSES")]
    world: Option<usize>,
    /// Print one JSON object a row, or a place of a document
    #[arg(long)]
    json: bool,
}

/// A run and its data, opened for looking.
struct Run {
    name: String,
    plan: Plan,
    loader: Loader,
    changes: Vec<DatasetChange>,
    /// Steps done.
    done: u64,
}

/// Answers one question.
pub(super) fn trace(arguments: &TraceArguments) -> Result<Exit, Failure> {
    if arguments.step.is_none() && arguments.row.is_none() && arguments.document.is_none() {
        return Err(Failure::usage("nothing is asked; write `--step S`, `--row R` or `--document ID`"));
    }
    let mut found = false;
    for place in &arguments.places {
        let is_dataset = place.join(MANIFEST_FILE).is_file();
        found |= match (&arguments.document, is_dataset && arguments.config.is_none()) {
            (Some(id), true) => in_dataset(place, id, arguments)?,
            (Some(id), false) => in_run(&Run::open(place, arguments)?, id, arguments)?,
            (None, true) => {
                return Err(Failure::usage(format!(
                    "{}: a data set has no steps; give a run directory, or the training config with `--config`",
                    place.display()
                )));
            }
            (None, false) => show_rows(&Run::open(place, arguments)?, arguments)?,
        };
    }
    match &arguments.document {
        Some(id) if !found => Err(Failure::usage(format!(
            "{id}: no document with this identifier; `jazari data inspect` shows the identifiers of documents"
        ))),
        _ => Ok(Exit::Done),
    }
}

impl Run {
    fn open(place: &Path, arguments: &TraceArguments) -> Result<Self, Failure> {
        let config = arguments.config.clone().unwrap_or_else(|| place.join("config.resolved.yaml"));
        if !config.is_file() {
            return Err(Failure::usage(format!(
                "{}: is neither a run directory (no config.resolved.yaml) nor a data set (no manifest.json)",
                place.display()
            )));
        }
        let resolved = session::resolve(&config, &arguments.set).map_err(Failure::from)?;
        let (plan, dataset, order) = (resolved.plan, resolved.dataset, resolved.order);
        if let Some(world) = arguments.world {
            plan.check_world(world).map_err(Failure::usage)?;
        }
        let loader = Loader::new(dataset, order, plan.sequence_len);
        let run = if arguments.config.is_some() { plan.output_dir.clone() } else { place.to_owned() };
        let (changes, done) = history(&run);
        Ok(Self { name: run.display().to_string(), plan, loader, changes, done })
    }

    fn dataset(&self) -> &Dataset {
        self.loader.dataset()
    }

    /// Steps that saw the data set as it is now, from 0.
    fn first_step(&self) -> u64 {
        self.changes.last().map_or(0, |change| change.step)
    }

    /// Step of a row, as logs count them.
    fn step_of(&self, row: u64) -> u64 {
        row / self.plan.global_batch_rows.max(1) + 1
    }

    /// The process that computes a row, of `world`.
    fn rank_of(&self, row: u64, world: usize) -> Option<usize> {
        let step = self.step_of(row) - 1;
        (0..world).find(|&rank| self.plan.micro_batches_of(step, rank, world).iter().any(|rows| rows.contains(&row)))
    }
}

/// Shows the rows asked for.
fn show_rows(run: &Run, arguments: &TraceArguments) -> Result<bool, Failure> {
    let range = match (arguments.step, arguments.row) {
        (Some(0), _) => return Err(Failure::usage("--step 0: steps are counted from 1, as in metrics.jsonl")),
        (Some(step), _) => run.plan.rows_of(step - 1),
        (None, row) => row.unwrap_or_default()..row.unwrap_or_default().saturating_add(1),
    };
    if range.end > run.plan.total_rows() {
        return Err(Failure::usage(format!(
            "{}: the run has {} steps of {} rows; ask for a smaller number",
            run.name, run.plan.max_steps, run.plan.global_batch_rows
        )));
    }
    let step = run.step_of(range.start);
    let current = run.dataset().id();
    let seen = dataset_of_step(&run.changes, current, step - 1);
    if seen != current {
        return Err(Failure::usage(format!(
            "{}: step {step} saw data set {}, which is now {} (documents were taken down after step {}); restore the old \
             data set from a copy and name it with `--set datasets=[{{path: DIR}}]`",
            run.name,
            short(seen),
            short(current),
            run.first_step()
        )));
    }
    let rows = trace::rows(&run.loader, range.clone()).map_err(Failure::usage)?;
    if arguments.json {
        for row in &rows {
            let rank = arguments.world.and_then(|world| run.rank_of(row.row, world));
            let mut line = json!(row);
            if let Some(object) = line.as_object_mut() {
                object.insert("run".into(), run.name.clone().into());
                object.insert("step".into(), run.step_of(row.row).into());
                rank.map(|rank| object.insert("rank".into(), rank.into()));
            }
            say(&line.to_string());
        }
        return Ok(true);
    }
    let parts = || rows.iter().flat_map(|row| &row.parts);
    let tokens: u64 = parts().map(|part| part.in_row[1] - part.in_row[0]).sum();
    let bytes: u64 = parts().map(|part| part.bytes).sum();
    let when = if step <= run.done { "saw" } else { "will see" };
    say(&format!(
        "{}: step {step} {when} rows {} to {} of data set {}: {} parts of documents, {} tokens, {} bytes of text",
        run.name,
        range.start,
        range.end - 1,
        short(current),
        parts().count(),
        thousands(tokens as f64),
        thousands(bytes as f64)
    ));
    rows.iter().for_each(|row| show_row(run, row, arguments.world));
    Ok(true)
}

fn show_row(run: &Run, row: &TracedRow, world: Option<usize>) {
    let rank = world.and_then(|world| run.rank_of(row.row, world));
    let rank = rank.map(|rank| format!(", computed by process {rank}")).unwrap_or_default();
    say(&format!("row {} = row {} of {}{rank}", row.row, row.component_row, row.component));
    for part in &row.parts {
        let document = &part.document;
        let url = document.url.as_ref().map(|url| format!("  {url}")).unwrap_or_default();
        say(&format!(
            "  {:>5}..{:<5} {}  tokens {}..{} of {}, {} bytes  {}  {}{url}",
            part.in_row[0],
            part.in_row[1],
            document.id,
            part.of_document[0],
            part.of_document[1],
            document.tokens,
            part.bytes,
            document.source,
            document.licence
        ));
    }
}

/// Says where a data set holds a document, or when it was taken down.
fn in_dataset(place: &Path, id: &str, arguments: &TraceArguments) -> Result<bool, Failure> {
    let dataset = Dataset::open(place).map_err(Failure::usage)?;
    let found = trace::find(&dataset, id).map_err(Failure::usage)?;
    found.iter().for_each(|location| show_location(&place.display().to_string(), location, &[], arguments.json));
    let removed = removal::removed_document(place, id).map_err(Failure::usage)?;
    for document in &removed {
        show_removed(place, document, &[], arguments.json);
    }
    Ok(!found.is_empty() || !removed.is_empty())
}

/// Says which rows and steps of a run saw a document.
fn in_run(run: &Run, id: &str, arguments: &TraceArguments) -> Result<bool, Failure> {
    let locations = trace::find(run.dataset(), id).map_err(Failure::usage)?;
    let rows = |step: u64| step.saturating_mul(run.plan.global_batch_rows);
    let range = rows(run.first_step())..rows(run.done).max(rows(run.first_step()));
    for location in &locations {
        let sightings = trace::sightings(&run.loader, location, range.clone()).map_err(Failure::usage)?;
        let lines: Vec<serde_json::Value> = sightings.iter().map(|sighting| seen(run, sighting, arguments)).collect();
        show_location(&run.name, location, &lines, arguments.json);
        if !arguments.json {
            show_sightings(run, &sightings);
        }
    }
    let mut found = !locations.is_empty();
    for part in run.dataset().parts() {
        for document in removal::removed_document(&part.dir, id).map_err(Failure::usage)? {
            found = true;
            let sightings = before_removal(run, &part.dir, &document)?;
            let lines: Vec<serde_json::Value> =
                sightings.iter().flatten().map(|sighting| seen(run, sighting, arguments)).collect();
            show_removed(&part.dir, &document, &lines, arguments.json);
            match (&sightings, arguments.json) {
                (Some(sightings), false) => show_sightings(run, sightings),
                (None, false) => say(&format!("  {}: whether it was seen cannot be told any more", run.name)),
                (_, true) => {}
            }
        }
    }
    if let (Some(change), false) = (run.changes.last(), arguments.json || locations.is_empty()) {
        note(&format!(
            "note: {}: steps 1 to {} saw data set {} before documents were taken down; they are not counted here",
            run.name,
            change.step,
            short(&change.from)
        ));
    }
    Ok(found)
}

fn seen(run: &Run, sighting: &Sighting, arguments: &TraceArguments) -> serde_json::Value {
    let mut line = json!(sighting);
    if let Some(object) = line.as_object_mut() {
        object.insert("step".into(), run.step_of(sighting.row).into());
        let rank = arguments.world.and_then(|world| run.rank_of(sighting.row, world));
        rank.map(|rank| object.insert("rank".into(), rank.into()));
    }
    line
}

fn show_location(place: &str, location: &Location, seen: &[serde_json::Value], as_json: bool) {
    let document = &location.document;
    if as_json {
        let mut line = json!(location);
        if let Some(object) = line.as_object_mut() {
            object.insert("place".into(), place.into());
            object.insert("seen".into(), seen.into());
        }
        say(&line.to_string());
        return;
    }
    let url = document.url.as_ref().map(|url| format!("\n  {url}")).unwrap_or_default();
    say(&format!(
        "{place}: document {} is number {} of {} {}/{} in data set {}: tokens {}..{} of the stream, {} bytes, {}{url}",
        document.id,
        document.number,
        document.split.name(),
        document.lang,
        document.source,
        short(&document.dataset),
        location.in_component[0],
        location.in_component[1],
        document.text_bytes,
        document.licence
    ));
}

fn show_sightings(run: &Run, sightings: &[Sighting]) {
    let tokens: u64 = sightings.iter().map(|seen| seen.of_document[1] - seen.of_document[0]).sum();
    let bytes: u64 = sightings.iter().map(|seen| seen.bytes).sum();
    say(&format!(
        "  {}: seen in {} rows of {} steps done: {} tokens, {} bytes",
        run.name,
        sightings.len(),
        run.done,
        thousands(tokens as f64),
        thousands(bytes as f64)
    ));
    for seen in sightings.iter().take(LISTED_ROWS) {
        let [from, to] = seen.of_document;
        say(&format!("    step {}, row {}: tokens {from}..{to}", run.step_of(seen.row), seen.row));
    }
    if sightings.len() > LISTED_ROWS {
        say(&format!("    and {} more rows (`--json` lists all)", sightings.len() - LISTED_ROWS));
    }
}

fn show_removed(place: &Path, document: &RemovedDocument, seen: &[serde_json::Value], as_json: bool) {
    let log = removal::read_log(place).unwrap_or_default();
    let entry = usize::try_from(document.removal).ok().and_then(|number| log.get(number.checked_sub(1)?));
    if as_json {
        let (time, reason) = (entry.map(|entry| &entry.time), entry.and_then(|entry| entry.reason.as_ref()));
        say(&json!({
            "place": place, "removed": document, "time": time, "reason": reason, "seen": seen,
        })
        .to_string());
        return;
    }
    let (time, reason) = entry
        .map(|entry| (entry.time.clone(), entry.reason.as_ref().map(|why| format!(" ({why})")).unwrap_or_default()))
        .unwrap_or_default();
    say(&format!(
        "{}: document {} was taken down at {time}{reason}; it was number {} of {} {}/{}, {} tokens, {}",
        place.display(),
        document.id,
        document.document,
        document.split.name(),
        document.lang,
        document.source,
        document.tokens,
        document.licence
    ));
}

/// The rows of a run that saw a document before it was taken down, from where it stood and how large the streams were;
/// `None` where that does not tell the order of the rows.
fn before_removal(run: &Run, dir: &Path, document: &RemovedDocument) -> Result<Option<Vec<Sighting>>, Failure> {
    let log = removal::read_log(dir).map_err(Failure::usage)?;
    let entry = usize::try_from(document.removal).ok().and_then(|number| log.get(number.checked_sub(1)?));
    let Some(entry) = entry else { return Ok(None) };
    // The steps that saw the data set that this removal changed.
    let from = run.changes.iter().position(|change| change.from == entry.old);
    let steps = match from {
        Some(at) => {
            let before = at.checked_sub(1).and_then(|before| run.changes.get(before)).map_or(0, |change| change.step);
            before..run.changes.get(at).map_or(0, |change| change.step)
        }
        None if run.changes.is_empty() && run.dataset().id() != entry.new => return Ok(None),
        // The run has only ever seen what came after.
        None => return Ok(Some(Vec::new())),
    };
    let packed = run.dataset().manifest().chat.is_some() || run.dataset().best_fit().is_some();
    if packed || run.dataset().parts().len() > 1 || run.plan.mixture_spec().names_licences() {
        return Ok(None);
    }
    let streams = removal::old_streams(entry, run.plan.sequence_len);
    let Some(component) = streams.iter().position(|s| s.lang == document.lang && s.source == document.source) else {
        return Ok(Some(Vec::new()));
    };
    let order: Order = session::order_of(&run.plan, &streams).map_err(Failure::from)?;
    let rows = |step: u64| step.saturating_mul(run.plan.global_batch_rows);
    let range = rows(steps.start)..rows(steps.end);
    Ok(Some(trace::removed_sightings(&order, component, document, run.plan.sequence_len, range)))
}
