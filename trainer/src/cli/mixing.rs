//! Owns showing what a run will see and has seen of its data, and `jazari data packing`; never computes a share itself.

use std::path::PathBuf;

use clap::Args;
use data_pipeline::dataset::{Dataset, TextPackingCounts};
use data_pipeline::order::{ExposureTable, Exposures, Order};
use serde_json::{Value, json};

use super::failure::{Exit, Failure, say};
use super::progress::thousands;
use crate::config::Plan;

/// What a run will see, as a whole and by stage.
pub(super) struct Outlook {
    whole: Exposures,
    stages: Vec<Exposures>,
    rows_per_step: u64,
}

/// One of the tables of what is seen.
type TableOf = fn(&Exposures) -> &ExposureTable;

impl Outlook {
    /// What the order of a plan's rows shows.
    pub(super) fn of(plan: &Plan, dataset: &Dataset, order: &Order) -> Result<Self, Failure> {
        let streams = dataset.licensed_streams(plan.sequence_len).map_err(Failure::usage)?;
        let (whole, stages) = order.exposures(&streams);
        Ok(Self { whole, stages, rows_per_step: plan.global_batch_rows.max(1) })
    }

    /// For programs.
    pub(super) fn to_json(&self) -> Value {
        json!({"whole": self.whole, "stages": self.stages})
    }

    /// For people.
    pub(super) fn print(&self) {
        let tables: [(&str, TableOf); 3] =
            [("language", |e| &e.languages), ("source", |e| &e.sources), ("licence", |e| &e.licences)];
        for (title, table_of) in tables {
            let staged = if self.stages.len() > 1 { self.stages.as_slice() } else { &[] };
            let width = table_of(&self.whole).keys().map(|name| name.chars().count()).max().unwrap_or(0).max(10);
            let heads: String = staged.iter().map(|stage| format!(" {:>15}", self.steps_of(stage))).collect();
            let number = |text: &str| format!("{text:>14}");
            say(&format!(
                "{title:width$} {}{}{:>8}{:>11}{heads}",
                number("tokens"),
                number("bytes"),
                "epochs",
                "share"
            ));
            for (name, seen) in table_of(&self.whole) {
                let share = |stage: &Exposures| {
                    let own = table_of(stage).get(name).copied().unwrap_or_default();
                    format!(" {:>13.2} %", 100.0 * own.share)
                };
                let shares: String = staged.iter().map(share).collect();
                let (tokens, bytes) = (number(&thousands(seen.tokens.round())), number(&thousands(seen.bytes.round())));
                say(&format!("{name:width$} {tokens}{bytes}{:>8.2}{:>9.2} %{shares}", seen.epochs, 100.0 * seen.share));
            }
            say("");
        }
    }

    fn steps_of(&self, stage: &Exposures) -> String {
        format!("steps {}-{}", stage.first_row / self.rows_per_step, stage.end_row / self.rows_per_step)
    }
}

/// Shows what a run has seen by its last record of metrics.
pub(super) fn print_seen(record: &Value) {
    let Some(seen) = record.get("seen").and_then(Value::as_object).filter(|seen| !seen.is_empty()) else { return };
    let count = |counts: &Value, key: &str| counts.get(key).and_then(Value::as_f64).unwrap_or(0.0);
    let all: f64 = seen.values().map(|counts| count(counts, "tokens")).sum();
    let step = count(record, "step");
    say(&format!(
        "{:<22} {:>14} {:>14} {:>10} {:>8}",
        format!("seen by step {step}"),
        "tokens",
        "bytes",
        "rows",
        "share"
    ));
    for (language, counts) in seen {
        let [tokens, bytes, rows] = ["tokens", "bytes", "rows"].map(|key| count(counts, key));
        let (shown_tokens, shown_bytes) = (thousands(tokens), thousands(bytes));
        let share = 100.0 * tokens / all.max(1.0);
        say(&format!("{language:<22} {shown_tokens:>14} {shown_bytes:>14} {:>10} {share:>6.2} %", thousands(rows)));
    }
}

#[derive(Debug, Args)]
pub(super) struct PackingArguments {
    /// Folder made by `jazari data prepare`
    folder: PathBuf,
    /// Tokens of a row; may be given several times
    #[arg(long, required = true, value_name = "N")]
    sequence_len: Vec<usize>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Compares the two ways to fill rows with texts.
pub(super) fn packing(arguments: &PackingArguments) -> Result<Exit, Failure> {
    let dataset = Dataset::open(&arguments.folder).map_err(Failure::usage)?;
    let mut lengths = Vec::new();
    for &length in &arguments.sequence_len {
        if length < 2 {
            return Err(Failure::usage(format!("--sequence-len {length}: give a number of 2 or more")));
        }
        let compared = dataset.compare_packings(length).map_err(Failure::usage)?;
        if compared.is_empty() {
            let what = format!("{}: holds chats, whose samples are always packed whole", arguments.folder.display());
            return Err(Failure::usage(what));
        }
        lengths.push((length, compared));
    }
    if arguments.json {
        let table: Vec<Value> =
            lengths.iter().map(|(length, compared)| json!({"sequence_len": length, "components": compared})).collect();
        say(&format!("{:#}", Value::from(table)));
        return Ok(Exit::Done);
    }
    for (length, compared) in lengths {
        let width = compared.iter().map(|c| c.lang.len() + c.source.len() + 1).max().unwrap_or(0).max(12);
        say(&format!(
            "| {:width$} | documents | rows | empty | cut | needlessly | context | rows | empty | cut | context |",
            format!("rows of {length}")
        ));
        say(&format!("|{:-<1$}|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|", "", width + 2));
        let (mut before, mut after) = (TextPackingCounts::default(), TextPackingCounts::default());
        for component in &compared {
            before.add(&component.end_to_end);
            after.add(&component.best_fit);
            let name = format!("{}/{}", component.lang, component.source);
            say(&line(&format!("{name:width$}"), &component.end_to_end, &component.best_fit));
        }
        say(&line(&format!("{:width$}", "all"), &before, &after));
        say("");
    }
    Ok(Exit::Done)
}

fn line(name: &str, before: &TextPackingCounts, after: &TextPackingCounts) -> String {
    let share = |part: u64, counts: &TextPackingCounts| 100.0 * part as f64 / counts.documents.max(1) as f64;
    format!(
        "| {name} | {} | {} | {:.2} % | {:.1} % | {:.1} % | {:.0} | {} | {:.2} % | {:.1} % | {:.0} |",
        before.documents,
        before.rows,
        100.0 * before.idle_share(),
        share(before.cut, before),
        share(before.cut_needlessly, before),
        before.mean_context(),
        after.rows,
        100.0 * after.idle_share(),
        share(after.cut, after),
        after.mean_context()
    )
}
