//! Owns `data decontaminate`: benchmark items in the rows of files, listed, and the rows left out; never knows a data set.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::sync::Mutex;

use serde_json::{Value, json};

use super::index::Benchmarks;
use super::search::{Action, Hit, SearchBuffers};
use crate::filter::{self, Counts, Edits, FilterError, Inputs, Options, Outcome, Row, Stage, Summary, Watch};

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DecontaminationReport {
    /// Hits listed.
    pub hits: u64,
    /// Rows with a hit.
    pub rows: u64,
    /// Different items that were found, by benchmark file.
    pub items: BTreeMap<String, u64>,
}

/// Leaves out rows that hold benchmark items and writes the list of hits: a JSON line a hit with the row (`document`),
/// its `id` when it has one, and the fields of [`Hit`], in the order of the rows.
///
/// # Errors
/// As [`filter::run`].
pub fn decontaminate(
    (inputs, options): (&Inputs, &Options),
    benchmarks: &Benchmarks,
    out: (&mut dyn Write, &Path),
    (hits_out, hits_path): (&mut dyn Write, &Path),
    watch: Watch<'_>,
) -> Result<(Summary, DecontaminationReport), FilterError> {
    let stage = Searching { benchmarks, found: Mutex::new(Vec::new()) };
    let summary = filter::run(inputs, options, &stage, out, watch)?;
    let mut found = stage.found.into_inner().unwrap_or_default();
    found.sort_by_key(|row| (row.file, row.number));
    let names: Vec<String> = inputs.paths().map(|path| path.display().to_string()).collect();
    let mut report = DecontaminationReport { rows: found.len() as u64, ..DecontaminationReport::default() };
    let mut items: BTreeMap<(&str, u32), ()> = BTreeMap::new();
    for row in &found {
        for hit in &row.hits {
            report.hits += 1;
            items.insert((hit.benchmark.as_str(), hit.item), ());
            let document = format!("{}:{}", names.get(row.file).map_or("", String::as_str), row.number);
            let mut line = json!({"document": document});
            if let (Some(line), Ok(Value::Object(fields))) = (line.as_object_mut(), serde_json::to_value(hit)) {
                line.extend(row.id.clone().map(|id| ("id".to_owned(), id)));
                line.extend(fields);
            }
            let io = |source| FilterError::Io { path: hits_path.to_owned(), action: "written", source };
            writeln!(hits_out, "{line}").map_err(io)?;
        }
    }
    for (file, _) in items.keys() {
        *report.items.entry((*file).to_owned()).or_default() += 1;
    }
    Ok((summary, report))
}

struct Searching<'a> {
    benchmarks: &'a Benchmarks,
    found: Mutex<Vec<RowHits>>,
}

struct RowHits {
    file: usize,
    number: u64,
    id: Option<Value>,
    hits: Vec<Hit>,
}

impl Stage for Searching<'_> {
    fn apply(&self, row: &Row<'_>, counts: &mut Counts) -> Outcome {
        let label = row.label().unwrap_or_default();
        let hits = self.benchmarks.hits(row.text, &label, &mut SearchBuffers::default());
        if hits.is_empty() {
            return Outcome::Keep(Edits::default());
        }
        let drops = hits.iter().any(|hit| hit.action == Action::Drop);
        counts.add(if drops { "contaminated" } else { "reported" }, 1);
        let id = row.id.map(|id| json!(id)).or_else(|| row.field("id"));
        if let Ok(mut found) = self.found.lock() {
            found.push(RowHits { file: row.file, number: row.number, id, hits });
        }
        if drops { Outcome::Drop("benchmark".into()) } else { Outcome::Keep(Edits::default()) }
    }
}
