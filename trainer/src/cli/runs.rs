//! Owns `jazari runs`: run directories side by side, and what tells their configurations apart; never writes.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Value, json};

use super::failure::{Exit, Failure, note, say};
use super::progress::{short, thousands};
use crate::card::{RunFacts, number};
use crate::run_dir;

/// Folders below the named ones that are looked into.
const DEPTH: usize = 3;
/// Longest value of a configuration that is printed, characters.
const SHOWN: usize = 60;

#[derive(Debug, Args)]
pub(super) struct RunsArguments {
    /// Run directories, or folders that hold some; default: runs, else the folder you are in
    folders: Vec<PathBuf>,
    /// Show the values by which the configurations differ
    #[arg(long)]
    diff: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// A run in a line.
struct Row {
    path: PathBuf,
    facts: RunFacts,
    state: &'static str,
}

/// Lists and compares runs.
pub(super) fn runs(arguments: &RunsArguments) -> Result<Exit, Failure> {
    let default = || vec![if Path::new("runs").is_dir() { "runs".into() } else { PathBuf::from(".") }];
    let folders = if arguments.folders.is_empty() { default() } else { arguments.folders.clone() };
    let mut found = Vec::new();
    for folder in &folders {
        if !folder.is_dir() {
            return Err(Failure::usage(format!("{}: there is no such folder; check the path", folder.display())));
        }
        search(folder, DEPTH, &mut found);
    }
    let rows: Vec<Row> = found.into_iter().map(Row::read).collect();
    if rows.is_empty() {
        let names: Vec<String> = folders.iter().map(|folder| folder.display().to_string()).collect();
        note(&format!("{}: no run here; `jazari train` makes one in its output_dir", names.join(", ")));
        return Ok(Exit::Done);
    }
    if arguments.json {
        let rows: Vec<Value> = rows.iter().map(Row::to_json).collect();
        say(&format!("{:#}", json!(rows)));
        return Ok(Exit::Done);
    }
    print(&rows);
    if arguments.diff {
        differences(&rows);
    }
    Ok(Exit::Done)
}

/// The run at or below `folder` whose log was written to last.
pub(super) fn newest(folder: &Path) -> Result<PathBuf, Failure> {
    if !folder.is_dir() {
        return Err(Failure::usage(format!("{}: there is no such folder; check the path", folder.display())));
    }
    let mut found = Vec::new();
    search(folder, DEPTH, &mut found);
    let written = |run: &PathBuf| fs::metadata(run.join("metrics.jsonl")).and_then(|facts| facts.modified()).ok();
    found.into_iter().max_by_key(written).ok_or_else(|| {
        let what = format!("{}: no run here; `jazari train` makes one in its output_dir", folder.display());
        Failure::usage(what)
    })
}

/// Run directories at and below `folder`, in the order of their names; what cannot be listed holds none.
fn search(folder: &Path, depth: usize, found: &mut Vec<PathBuf>) {
    if folder.join("metrics.jsonl").is_file() && folder.join("plan.json").is_file() {
        found.push(folder.to_owned());
        return;
    }
    let mut inside: Vec<PathBuf> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())))
        .map(|entry| entry.path())
        .collect();
    inside.sort();
    inside.iter().filter(|_| depth > 0).for_each(|path| search(path, depth - 1, found));
}

impl Row {
    fn read(path: PathBuf) -> Self {
        let facts = RunFacts::read(&path);
        let (done, all) = (last(&facts, "step").unwrap_or(0.0), planned(&facts, "/max_steps").unwrap_or(f64::NAN));
        let state = match (run_dir::is_locked(&path), done >= all) {
            (true, _) => "running",
            (false, true) => "finished",
            (false, false) => "stopped",
        };
        Self { path, facts, state }
    }

    /// Bits per byte over all held-out text at the newest evaluation.
    fn bits_per_byte(&self) -> Option<f64> {
        self.facts.evaluations.last().and_then(|record| number(record, "val_bpb_all"))
    }

    fn parameters(&self) -> Option<f64> {
        self.facts.event("started").and_then(|event| number(event, "parameters"))
    }

    fn to_json(&self) -> Value {
        let facts = &self.facts;
        let scores = facts.evaluations.last().map(RunFacts::scores).unwrap_or_default();
        json!({
            "run": self.path,
            "state": self.state,
            "step": last(facts, "step"),
            "max_steps": planned(facts, "/max_steps"),
            "tokens": last(facts, "tokens"),
            "loss": last(facts, "loss"),
            "bits_per_byte": self.bits_per_byte(),
            "bits_per_byte_by_language": scores.into_iter().collect::<BTreeMap<_, _>>(),
            "tokens_per_second": last(facts, "tokens_per_second"),
            "parameters": self.parameters(),
            "plan": facts.planned("/digest"),
            "dataset": facts.planned("/dataset/id"),
        })
    }
}

fn last(facts: &RunFacts, key: &str) -> Option<f64> {
    facts.steps.last().and_then(|record| number(record, key))
}

fn planned(facts: &RunFacts, pointer: &str) -> Option<f64> {
    facts.plan.pointer(pointer).and_then(Value::as_f64)
}

fn print(rows: &[Row]) {
    let text = |value: Option<f64>, digits: usize| value.map_or_else(|| "-".to_owned(), |v| format!("{v:.digits$}"));
    let count = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), thousands);
    let head = ["run", "state", "steps", "tokens", "loss", "bits/byte", "tok/s", "parameters", "plan", "data"];
    let mut table = vec![head.map(str::to_owned)];
    for row in rows {
        let facts = &row.facts;
        table.push([
            row.path.display().to_string(),
            row.state.to_owned(),
            format!("{}/{}", text(last(facts, "step"), 0), text(planned(facts, "/max_steps"), 0)),
            count(last(facts, "tokens")),
            text(last(facts, "loss"), 4),
            text(row.bits_per_byte(), 4),
            count(last(facts, "tokens_per_second")),
            count(row.parameters()),
            facts.planned("/digest").as_deref().map_or("-", short).to_owned(),
            facts.planned("/dataset/id").as_deref().map_or("-", short).to_owned(),
        ]);
    }
    let width =
        |column: usize| table.iter().filter_map(|row| Some(row.get(column)?.chars().count())).max().unwrap_or(0);
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    for row in &table {
        // Names and words stand left, numbers right.
        let cell = |(column, (cell, width)): (usize, (&String, &usize))| match column {
            0 | 1 | 8 | 9 => format!("{cell:<width$}"),
            _ => format!("{cell:>width$}"),
        };
        let cells: Vec<String> = row.iter().zip(&widths).enumerate().map(cell).collect();
        say(cells.join("  ").trim_end());
    }
}

/// What decides the numbers and is not the same in all runs.
fn differences(rows: &[Row]) {
    let mut values: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (number, row) in rows.iter().enumerate() {
        let mut leaves = Vec::new();
        collect("", row.facts.plan.get("decisive").unwrap_or(&Value::Null), &mut leaves);
        for (key, value) in leaves {
            let all = values.entry(key).or_default();
            all.resize(number, "-".to_owned());
            all.push(value);
        }
    }
    say("");
    let mut shown = 0;
    for (key, mut all) in values {
        all.resize(rows.len(), "-".to_owned());
        if all.windows(2).all(|pair| pair[0] == pair[1]) {
            continue;
        }
        shown += 1;
        say(&format!("{key}:"));
        for (row, value) in rows.iter().zip(&all) {
            let cut: String = value.chars().take(SHOWN).collect();
            let dots = if cut.len() < value.len() { "..." } else { "" };
            say(&format!("  {:<40} {cut}{dots}", row.path.display().to_string()));
        }
    }
    if shown == 0 {
        say("the configurations do not differ in anything that decides the numbers");
    }
}

/// Leaves of a value with their paths.
fn collect(prefix: &str, value: &Value, leaves: &mut Vec<(String, String)>) {
    match value {
        Value::Object(entries) if !entries.is_empty() => {
            for (key, value) in entries {
                let path = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
                collect(&path, value, leaves);
            }
        }
        other => leaves.push((prefix.to_owned(), other.to_string())),
    }
}
