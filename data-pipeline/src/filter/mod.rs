//! Owns running one stage over the rows of files: any readable format in, JSONL out, in order; never knows what a stage
//! does.
//!
//! Fields that a stage does not touch are passed through byte for byte (JSONL), or as JSON (other formats). Chunks are
//! worked on in parallel; what comes out does not depend on the number of threads.

mod output;
mod splice;

pub use output::AtomicFile;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use serde_json::Value as Json;

use crate::chat::RecordKind;
use crate::config::{Limits, OnDamage, SourceConfig};
use crate::prepare::admit::UNKNOWN_LANGUAGE;
use crate::rounds::{Reading, Step, Stopped, read_all};
use crate::source::discover::{InputFile, Layout, discover, of_standard_input};
use crate::source::{Chunk, Fields, FileEnd, Place, Reason, RowChunk, Slot, SourceError, Value, lines, parse_line};

/// The name of standard input among the paths.
pub const STANDARD_INPUT: &str = "-";

/// One stage, called from many threads at once.
pub trait Stage: Sync {
    /// What becomes of a row. `counts` is merged over all rows of a run.
    fn apply(&self, row: &Row<'_>, counts: &mut Counts) -> Outcome;
}

/// A row as a stage sees it.
#[derive(Debug)]
pub struct Row<'a> {
    /// Number of its file, from 0.
    pub file: usize,
    /// Its number in the file, from 1; broken rows count as well.
    pub number: u64,
    /// The text.
    pub text: &'a str,
    /// The language as the row (or `lang:` of the source) gives it.
    pub lang: Option<&'a str>,
    /// The script, when it has a field of its own.
    pub script: Option<&'a str>,
    /// The corpus: the field, `source:` of the configuration, or the name of the file.
    pub source: &'a str,
    /// The licence.
    pub licence: Option<&'a str>,
    /// The address.
    pub url: Option<&'a str>,
    /// The identifier, when `fields.id` names one.
    pub id: Option<&'a str>,
    line: &'a str,
}

impl Row<'_> {
    /// Any other field, by its name or path (`metadata.year`).
    pub fn field(&self, path: &str) -> Option<Json> {
        serde_json::from_str(self.line.get(splice::find(self.line, path)?)?).ok()
    }

    /// The row as one JSON object, as it was read.
    pub(crate) fn line(&self) -> &str {
        self.line
    }

    /// The label `ary_Arab` of the row, from one field or two.
    pub fn label(&self) -> Option<String> {
        crate::document::language_label(self.lang?, self.script)
    }

    /// The fields that give the row the label `ary_Arab`: one field or two, as the row had them.
    pub fn label_fields(&self, label: &str) -> [(String, Json); 2] {
        let (lang, script) = label.split_once('_').unwrap_or((label, ""));
        let joined = self.script.is_none() && self.lang.is_some_and(|given| given.contains(['_', '-']));
        let lang = if joined { label } else { lang };
        [("lang".to_owned(), lang.into()), ("script".to_owned(), script.into())]
    }
}

/// What becomes of a row.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// It stays, with these changes.
    Keep(Edits),
    /// It goes; the reason is counted.
    Drop(Cow<'static, str>),
}

/// Changes of a row.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Edits {
    /// The new text.
    pub text: Option<String>,
    /// Fields (top level) that are replaced, or added at the end in this order.
    pub set: Vec<(String, Json)>,
}

/// Counts by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts(pub BTreeMap<String, u64>);

impl Counts {
    /// Adds `count` to `name`.
    pub fn add(&mut self, name: &str, count: u64) {
        match self.0.get_mut(name) {
            Some(sum) => *sum += count,
            None => _ = self.0.insert(name.to_owned(), count),
        }
    }

    fn merge(&mut self, other: &Counts) {
        for (name, count) in &other.0 {
            self.add(name, *count);
        }
    }
}

/// What was read and written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// Files read.
    pub files: u64,
    /// Rows read, good or bad.
    pub rows: u64,
    /// Rows handed on.
    pub kept: u64,
    /// Of these, with another text than before.
    pub changed: u64,
    /// UTF-8 bytes of the texts read.
    pub text_bytes: u64,
    /// Rows that the stage dropped, by reason.
    pub dropped: Counts,
    /// Rows that could not be used, by reason (`invalid_json`, `missing_text`...), blank lines included.
    pub broken: Counts,
    /// What the stage counted.
    pub counts: Counts,
    /// Damaged files whose whole rows were read.
    pub damaged: Vec<String>,
}

/// How far a run has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Stored bytes of the input read.
    pub bytes: u64,
    /// Stored bytes of the input, 0 when unknown.
    pub total_bytes: u64,
    /// Rows read.
    pub rows: u64,
}

/// How to read.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Bounds on each file.
    pub limits: Limits,
    /// What a damaged file does.
    pub on_damage: OnDamage,
}

/// A run that came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    /// An input cannot be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// Not one row can be used.
    #[error("none of the {rows} rows can be used ({reasons}); check the name of the text field and the format")]
    NothingReadable {
        /// Rows read.
        rows: u64,
        /// Counts by reason.
        reasons: String,
    },
    /// The output refuses.
    #[error("{}: cannot be {action}; check permissions and free space", .path.display())]
    Io {
        /// The output.
        path: PathBuf,
        /// "created", "written".
        action: &'static str,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// The output cannot be made; nothing was read.
    #[error("{}: cannot be created; name a file in a folder that exists and that you may write to", .path.display())]
    Out {
        /// The output.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// The stage itself failed.
    #[error(transparent)]
    Stage(Box<dyn std::error::Error + Send + Sync>),
    /// The stop flag was raised.
    #[error("stopped; nothing was written")]
    Stopped,
}

impl From<Stopped> for FilterError {
    fn from(_: Stopped) -> Self {
        FilterError::Stopped
    }
}

/// The files of a run; `-` alone is standard input, JSONL unless `format` says otherwise.
#[derive(Debug, Clone)]
pub struct Inputs {
    files: Vec<InputFile>,
}

impl Inputs {
    /// Finds the files of `sources`. Text files need neither language nor licence here.
    ///
    /// # Errors
    /// As in a preparation; a format that cannot be read from a pipe.
    pub fn open(sources: &[SourceConfig]) -> Result<Inputs, FilterError> {
        if let [only] = sources
            && only.path == STANDARD_INPUT
        {
            return Ok(Inputs { files: vec![of_standard_input(only)?] });
        }
        let with_labels = |source: &SourceConfig| {
            let mut source = source.clone();
            source.kind = RecordKind::Text;
            source.lang.get_or_insert_with(|| UNKNOWN_LANGUAGE.to_owned());
            source.licence.get_or_insert_with(String::new);
            source
        };
        let mut files = discover(&sources.iter().map(with_labels).collect::<Vec<_>>())?;
        for file in &mut files {
            file.whole = true;
        }
        Ok(Inputs { files })
    }

    /// Paths of the files, in the order read.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(|file| file.path.as_path())
    }

    /// Whether `path` is one of the files, by whatever name.
    pub fn hold(&self, path: &Path) -> bool {
        let Ok(resolved) = path.canonicalize() else { return false };
        self.paths().any(|input| input.canonicalize().is_ok_and(|input| input == resolved))
    }

    /// Whether they can be read only once.
    pub fn is_standard_input(&self) -> bool {
        self.files.iter().any(|file| file.label == STANDARD_INPUT)
    }

    fn total_bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }
}

/// Who is told of the progress of a run, and what ends it early.
#[derive(Clone, Copy)]
pub struct Watch<'a> {
    /// Told after every round of chunks.
    pub observe: &'a dyn Fn(Progress),
    /// Ends the run when raised.
    pub stop: &'a AtomicBool,
}

/// Runs `stage` over all rows and writes those that stay, one JSON object a line.
///
/// # Errors
/// An input that cannot be read, inputs without a usable row, an output that refuses (named `out_path`), the stop flag.
pub fn run(
    inputs: &Inputs,
    options: &Options,
    stage: &dyn Stage,
    (out, out_path): (&mut dyn Write, &Path),
    watch: Watch<'_>,
) -> Result<Summary, FilterError> {
    let each_row = |out: &mut Vec<u8>, row: &Row<'_>, tally: &mut Tally, input: &InputFile| {
        let outcome = stage.apply(row, &mut tally.counts);
        match outcome {
            Outcome::Drop(reason) => tally.dropped.add(&reason, 1),
            Outcome::Keep(edits) => {
                tally.kept += 1;
                tally.changed += u64::from(edits.text.as_deref().is_some_and(|text| text != row.text));
                out.extend_from_slice(edited(row.line, &edits, input.text_path()).as_bytes());
                out.push(b'\n');
            }
        }
    };
    let write = |bytes: Vec<u8>| {
        let failed = |source| FilterError::Io { path: out_path.to_owned(), action: "written", source };
        out.write_all(&bytes).map_err(failed)
    };
    let summary = fold(inputs, options, &each_row, write, watch)?;
    out.flush().map_err(|source| FilterError::Io { path: out_path.to_owned(), action: "written", source })?;
    Ok(summary)
}

/// Hands what `map` makes of each row to `each`, in order; `map` runs on all threads.
///
/// # Errors
/// As [`run`]; an error of `each`.
pub fn read<T: Send>(
    inputs: &Inputs,
    options: &Options,
    map: &(dyn Fn(&Row<'_>, &mut Counts) -> T + Sync),
    each: &mut dyn FnMut(T) -> Result<(), FilterError>,
    watch: Watch<'_>,
) -> Result<Summary, FilterError> {
    let each_row = |out: &mut Vec<T>, row: &Row<'_>, tally: &mut Tally, _: &InputFile| {
        tally.kept += 1;
        out.push(map(row, &mut tally.counts));
    };
    fold(inputs, options, &each_row, |items: Vec<T>| items.into_iter().try_for_each(&mut *each), watch)
}

/// What a chunk adds to the summary.
#[derive(Default)]
struct Tally {
    rows: u64,
    kept: u64,
    changed: u64,
    text_bytes: u64,
    dropped: Counts,
    broken: Counts,
    counts: Counts,
}

fn fold<S: Default + Send>(
    inputs: &Inputs,
    options: &Options,
    each_row: &(dyn Fn(&mut S, &Row<'_>, &mut Tally, &InputFile) + Sync),
    mut take: impl FnMut(S) -> Result<(), FilterError>,
    watch: Watch<'_>,
) -> Result<Summary, FilterError> {
    let judge = |file: usize, chunk: &Chunk| {
        let mut judged = Judged { tally: Tally::default(), out: S::default() };
        if let Some(input) = inputs.files.get(file) {
            let limit = options.limits.max_record_bytes;
            rows_of(chunk, (file, input), limit, &mut judged.tally, &mut |row, tally| {
                each_row(&mut judged.out, row, tally, input);
            });
        }
        judged
    };
    let mut summary = Summary::default();
    let mut rows_of_file = 0;
    let total_bytes = inputs.total_bytes();
    read_all(&Reading::all(&inputs.files, &options.limits), watch.stop, &judge, &mut |step| match step {
        Step::Chunk(Judged { tally, out }) => {
            rows_of_file += tally.rows;
            summary.add(&tally);
            take(out)
        }
        Step::End(end) => summary.end(end, std::mem::take(&mut rows_of_file), options.on_damage),
        Step::Position(bytes) => {
            (watch.observe)(Progress { bytes, total_bytes, rows: summary.rows });
            Ok::<(), FilterError>(())
        }
    })?;
    let broken: u64 = summary.broken.0.values().sum();
    if summary.rows > 0 && broken == summary.rows {
        let reasons: Vec<String> = summary.broken.0.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
        return Err(FilterError::NothingReadable { rows: summary.rows, reasons: reasons.join(", ") });
    }
    Ok(summary)
}

struct Judged<S> {
    tally: Tally,
    out: S,
}

impl Summary {
    fn add(&mut self, tally: &Tally) {
        self.rows += tally.rows;
        self.kept += tally.kept;
        self.changed += tally.changed;
        self.text_bytes += tally.text_bytes;
        self.dropped.merge(&tally.dropped);
        self.broken.merge(&tally.broken);
        self.counts.merge(&tally.counts);
    }

    fn end(&mut self, end: FileEnd, rows: u64, on_damage: OnDamage) -> Result<(), FilterError> {
        self.files += 1;
        match end.damage {
            Some(SourceError::Damaged { path, byte, what, .. }) if on_damage == OnDamage::Error => {
                Err(SourceError::Damaged { path, byte, what, rows }.into())
            }
            Some(damage @ SourceError::Damaged { .. }) => {
                self.damaged.push(damage.to_string());
                Ok(())
            }
            Some(other) => Err(other.into()),
            None => Ok(()),
        }
    }
}

type OnRow<'f> = &'f mut dyn FnMut(&Row<'_>, &mut Tally);

/// Calls `each` for every usable row of a chunk and counts the others.
fn rows_of(chunk: &Chunk, (file, input): (usize, &InputFile), limit: u64, tally: &mut Tally, each: OnRow<'_>) {
    match chunk {
        Chunk::Lines { bytes, first, rejects } => {
            rejects.iter().for_each(|reject| tally.broken(&reject.reason));
            for (place, line) in lines(bytes, *first) {
                json_row(line, place, (file, input), limit, tally, each);
            }
        }
        Chunk::Rows(rows) => of_rows(rows, (file, input), limit, tally, each),
        Chunk::Pages(pages) => of_rows(&pages.rows(true), (file, input), limit, tally, each),
    }
}

fn of_rows(rows: &RowChunk, (file, input): (usize, &InputFile), limit: u64, tally: &mut Tally, each: OnRow<'_>) {
    rows.rejects.iter().for_each(|reject| tally.broken(&reject.reason));
    for row in rows.rows() {
        if matches!(input.layout, Layout::Delimited(_) | Layout::Warc) {
            let line = rows.bytes(row, Slot::Text).unwrap_or_default();
            json_row(line, row.place, (file, input), limit, tally, each);
            continue;
        }
        match rows.fields(row) {
            Ok(fields) => json_row(object(&fields).as_bytes(), row.place, (file, input), limit, tally, each),
            Err(reason) => tally.broken(&reason),
        }
    }
}

fn json_row(
    line: &[u8],
    place: Place,
    (file, input): (usize, &InputFile),
    limit: u64,
    tally: &mut Tally,
    each: OnRow<'_>,
) {
    let used = usable(line, limit, input);
    let (line, fields) = match used {
        Ok(used) => used,
        Err(reason) => return tally.broken(&reason),
    };
    let text = match fields.get(Slot::Text) {
        Value::Str(text) => text,
        Value::Missing => return tally.broken(&Reason::MissingText),
        Value::Null => return tally.broken(&Reason::NullText),
        Value::Number(_) | Value::Other => return tally.broken(&Reason::TextNotString),
    };
    let config = &input.spec.config;
    let known = |label: &Option<String>| label.clone().filter(|label| !label.is_empty() && label != UNKNOWN_LANGUAGE);
    let (lang, licence) = (known(&config.lang), known(&config.licence));
    let row = Row {
        file,
        number: place.row,
        text,
        lang: string(&fields, Slot::Lang).or(lang.as_deref()),
        script: string(&fields, Slot::Script),
        source: string(&fields, Slot::Source).unwrap_or(&input.default_source),
        licence: string(&fields, Slot::Licence).or(licence.as_deref()),
        url: string(&fields, Slot::Url),
        id: string(&fields, Slot::Id),
        line,
    };
    tally.rows += 1;
    tally.text_bytes += text.len() as u64;
    each(&row, tally);
}

fn usable<'l>(line: &'l [u8], limit: u64, input: &InputFile) -> Result<(&'l str, Fields<'l>), Reason> {
    if line.len() as u64 > limit {
        return Err(Reason::RecordTooLarge);
    }
    let line = std::str::from_utf8(line).map_err(|_| Reason::InvalidUtf8)?.trim();
    if line.is_empty() {
        return Err(Reason::BlankLine);
    }
    parse_line(line, &input.spec.tree).map(|fields| (line, fields))
}

fn string<'v>(fields: &'v Fields<'_>, slot: Slot) -> Option<&'v str> {
    match fields.get(slot) {
        Value::Str(text) => Some(text.trim()).filter(|text| !text.is_empty()),
        _ => None,
    }
}

/// The fields of a row that was no JSON, as an object under their usual names.
fn object(fields: &Fields<'_>) -> String {
    const NAMES: [(Slot, &str); 7] = [
        (Slot::Text, "text"),
        (Slot::Lang, "lang"),
        (Slot::Script, "script"),
        (Slot::Source, "source"),
        (Slot::Licence, "licence"),
        (Slot::Url, "url"),
        (Slot::Id, "id"),
    ];
    let mut line = String::from("{");
    for (slot, name) in NAMES {
        let Value::Str(text) = fields.get(slot) else { continue };
        if line.len() > 1 {
            line.push(',');
        }
        line.push_str(&splice::quoted(name));
        line.push(':');
        line.push_str(&splice::quoted(text));
    }
    line.push('}');
    line
}

fn edited<'l>(line: &'l str, edits: &Edits, text_path: &str) -> Cow<'l, str> {
    let (mut replaced, mut added) = (Vec::new(), Vec::new());
    if let Some(text) = &edits.text
        && let Some(at) = splice::find(line, text_path)
    {
        replaced.push((at, splice::quoted(text)));
    }
    for (name, value) in &edits.set {
        match splice::member(line, 0..line.len(), name) {
            Some(at) => replaced.push((at, value.to_string())),
            None => added.push((name.clone(), value.to_string())),
        }
    }
    if replaced.is_empty() && added.is_empty() {
        return Cow::Borrowed(line);
    }
    Cow::Owned(splice::splice(line, replaced, &added))
}

impl Tally {
    fn broken(&mut self, reason: &Reason) {
        self.rows += 1;
        self.broken.add(&reason.to_string(), 1);
    }
}

impl InputFile {
    /// Name or path of the text in a row as JSON.
    fn text_path(&self) -> &str {
        let given = self.spec.config.fields.text.as_deref();
        match self.layout {
            Layout::Text(_) => "text",
            _ => given.unwrap_or("text"),
        }
    }
}

/// A stage that leaves everything as it is: for changing the format alone, and for measuring this frame.
#[derive(Debug, Clone, Copy, Default)]
pub struct Nothing;

impl Stage for Nothing {
    fn apply(&self, _: &Row<'_>, _: &mut Counts) -> Outcome {
        Outcome::Keep(Edits::default())
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
