//! Owns Parquet rows with nested columns as lines of JSON, for records that are more than strings; never interprets them.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use parquet::errors::ParquetError;
use parquet::file::reader::FileReader;
use parquet::record::reader::RowIter;
use parquet::record::{Field, Row};
use serde_json::{Map, Value as Json};

use super::error::SourceError;
use super::jsonl::CHUNK_BYTES;
use super::parquet::{check_expansion, check_group};
use super::parquet_pages::CheckedFile;
use super::row::{Chunk, Place};
use crate::config::Limits;

/// Nesting of a value at most.
const MAX_DEPTH: usize = 16;

/// Reads a Parquet file row by row.
pub(crate) struct JsonRows {
    path: PathBuf,
    iter: RowIter<'static>,
    stored_bytes: u64,
    /// Rows that the file says it has.
    all_rows: u64,
    ended: bool,
    rows: u64,
    produced: u64,
    limits: Limits,
    failure: Option<SourceError>,
}

impl JsonRows {
    pub fn open(path: &Path, limits: &Limits) -> Result<JsonRows, SourceError> {
        let io_error = |source| SourceError::Io { path: path.to_owned(), action: "opened", source };
        let file = File::open(path).map_err(io_error)?;
        let stored_bytes = file.metadata().map_err(io_error)?.len();
        let damaged = |what| SourceError::Damaged { path: path.to_owned(), byte: stored_bytes, what, rows: 0 };
        let file = fenced(|| CheckedFile::open(file, limits.max_expansion)).map_err(damaged)?;
        for (number, group) in file.metadata().row_groups().iter().enumerate() {
            (0..group.num_columns()).try_for_each(|column| check_group(path, group, number, column, limits))?;
        }
        let all_rows = u64::try_from(file.metadata().file_metadata().num_rows()).unwrap_or(0);
        let iter = fenced(|| Ok(RowIter::from_file_into(Box::new(file)))).map_err(damaged)?;
        let (path, limits) = (path.to_owned(), limits.clone());
        Ok(JsonRows { path, iter, stored_bytes, all_rows, ended: false, rows: 0, produced: 0, limits, failure: None })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Stored bytes that the rows so far stand for, by their share of all rows.
    pub fn stored_bytes(&self) -> u64 {
        let all = self.all_rows.max(1);
        (u128::from(self.stored_bytes) * u128::from(self.rows.min(all)) / u128::from(all)) as u64
    }

    /// What ended the rows before their time.
    pub fn into_failure(self) -> Option<SourceError> {
        self.failure
    }

    /// The next rows as lines, or `None` at the end or at a failure.
    pub fn next_chunk(&mut self) -> Option<Chunk> {
        let first = Place { row: self.rows + 1, byte: None };
        let mut bytes = Vec::new();
        if self.ended {
            return None;
        }
        let iter = &mut self.iter;
        match fenced(|| read_lines(iter, &mut bytes)) {
            Ok(ended) => self.ended = ended,
            Err(what) => self.fail(what),
        }
        // A batch that fails may have added whole rows before the damage.
        self.rows += memchr::memchr_iter(b'\n', &bytes).count() as u64;
        self.produced += bytes.len() as u64;
        if let Err(bomb) = check_expansion(&self.path, self.produced, self.stored_bytes, &self.limits) {
            (self.failure, self.ended) = (Some(bomb), true);
        }
        if self.ended && self.failure.is_none() && self.rows < self.all_rows {
            // The decoder ends without a word when a row group has fewer rows than the footer says.
            self.fail(format!("its footer says {} rows", self.all_rows));
        }
        (!bytes.is_empty()).then_some(Chunk::Lines { bytes, first, rejects: Vec::new() })
    }

    fn fail(&mut self, what: String) {
        let (path, byte) = (self.path.clone(), self.stored_bytes);
        self.failure = Some(SourceError::Damaged { path, byte, what, rows: self.rows });
        self.ended = true;
    }
}

/// Adds a chunk of rows as lines, and says whether they were the last.
fn read_lines(iter: &mut RowIter<'_>, lines: &mut Vec<u8>) -> Result<bool, ParquetError> {
    while lines.len() < CHUNK_BYTES {
        let Some(row) = iter.next() else { return Ok(true) };
        lines.extend(object(&row?, 0)?.to_string().into_bytes());
        lines.push(b'\n');
    }
    Ok(false)
}

fn object(row: &Row, depth: usize) -> Result<Json, ParquetError> {
    let mut object = Map::new();
    for (name, field) in row.get_column_iter() {
        object.insert(name.clone(), value(field, depth)?);
    }
    Ok(Json::Object(object))
}

fn value(field: &Field, depth: usize) -> Result<Json, ParquetError> {
    if depth > MAX_DEPTH {
        return Err(ParquetError::General(format!("a value is nested more than {MAX_DEPTH} deep")));
    }
    Ok(match field {
        Field::Null => Json::Null,
        Field::Bool(value) => Json::Bool(*value),
        Field::Int(value) => (*value).into(),
        Field::Long(value) => (*value).into(),
        Field::Double(value) => (*value).into(),
        Field::Float(value) => f64::from(*value).into(),
        Field::Str(text) => Json::String(text.clone()),
        Field::Bytes(bytes) => match std::str::from_utf8(bytes.data()) {
            Ok(text) => Json::String(text.to_owned()),
            Err(_) => Json::Null,
        },
        Field::Group(row) => object(row, depth + 1)?,
        Field::ListInternal(list) => {
            Json::Array(list.elements().iter().map(|item| value(item, depth + 1)).collect::<Result<_, _>>()?)
        }
        // Dates, decimals and maps are labels of no chat.
        other => Json::String(other.to_string()),
    })
}

/// Runs the decoder so that a panic on a malformed file becomes an error like any other.
fn fenced<T>(read: impl FnOnce() -> Result<T, ParquetError>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(read)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(format!("not a whole Parquet file ({error})")),
        Err(_) => Err("the Parquet decoder gave up on malformed data".to_owned()),
    }
}
