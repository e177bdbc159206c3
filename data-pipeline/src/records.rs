//! Owns reading small tables (JSON Lines, JSON, CSV, TSV, Parquet) as JSON objects, for evaluation tasks; never touches
//! corpora, which are read in chunks by `source`.

use std::fs::File;
use std::io::Read;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use csv_core::{ReadRecordResult, Reader, ReaderBuilder};
use parquet::file::reader::FileReader;
use parquet::record::{Field, Row};
use serde_json::{Map, Value};

use crate::source::CheckedFile;

/// Largest table in bytes, as stored and as it expands: the largest multiple-choice sets in use have about 100 MB.
pub const MAX_TABLE_BYTES: u64 = 512 << 20;
/// Most records of a table.
pub const MAX_RECORDS: usize = 1 << 20;

/// One record: field names with their values.
pub type Record = Map<String, Value>;

/// A table that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The file cannot be read.
    #[error("{}: cannot be read ({source}); check the path and its permissions", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// Larger than any table of questions.
    #[error("{}: {what}, more than the {limit} of an evaluation table; cut it into several files", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// What is too large.
        what: String,
        /// The limit.
        limit: u64,
    },
    /// Not the format that the name says.
    #[error("{}:{place}: {reason}; correct the record", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Line or row, from 1.
        place: usize,
        /// What is wrong.
        reason: String,
    },
    /// The name says no format.
    #[error("{}: not a table that can be read; use .jsonl, .json, .csv, .tsv or .parquet", path.display())]
    Format {
        /// The file.
        path: PathBuf,
    },
}

/// Reads every record of a table; its format is that of its name's ending.
///
/// # Errors
/// A file that is absent, too large or not of that format; the place is named.
pub fn read_records(path: &Path) -> Result<Vec<Record>, RecordError> {
    let ending = path.extension().map(|e| e.to_string_lossy().to_lowercase()).unwrap_or_default();
    match ending.as_str() {
        "parquet" => parquet(path),
        "jsonl" | "ndjson" | "json" | "csv" | "tsv" => parse_records(path, &ending, read_bytes(path)?),
        _ => Err(RecordError::Format { path: path.to_owned() }),
    }
}

/// The records of a table whose bytes are at hand; `path` is what errors name, `ending` says the format.
pub(crate) fn parse_records(path: &Path, ending: &str, bytes: Vec<u8>) -> Result<Vec<Record>, RecordError> {
    match ending {
        "jsonl" | "ndjson" => json_lines(path, &text_of(path, bytes)?),
        "json" => json(path, &text_of(path, bytes)?),
        "csv" => delimited(path, text_of(path, bytes)?.as_bytes(), b','),
        "tsv" => delimited(path, text_of(path, bytes)?.as_bytes(), b'\t'),
        _ => Err(RecordError::Format { path: path.to_owned() }),
    }
}

fn read_bytes(path: &Path) -> Result<Vec<u8>, RecordError> {
    let io = |source| RecordError::Io { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    File::open(path).map_err(io)?.take(MAX_TABLE_BYTES + 1).read_to_end(&mut bytes).map_err(io)?;
    if bytes.len() as u64 > MAX_TABLE_BYTES {
        return Err(too_large(path, "has more bytes".to_owned(), MAX_TABLE_BYTES));
    }
    Ok(bytes)
}

fn text_of(path: &Path, bytes: Vec<u8>) -> Result<String, RecordError> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").map(<[u8]>::to_vec).unwrap_or(bytes);
    String::from_utf8(bytes).map_err(|error| {
        let before = error.as_bytes().get(..error.utf8_error().valid_up_to()).unwrap_or_default();
        let line = 1 + before.iter().filter(|&&byte| byte == b'\n').count();
        malformed(path, line, "is not UTF-8".to_owned())
    })
}

fn too_large(path: &Path, what: String, limit: u64) -> RecordError {
    RecordError::TooLarge { path: path.to_owned(), what, limit }
}

fn malformed(path: &Path, place: usize, reason: String) -> RecordError {
    RecordError::Malformed { path: path.to_owned(), place, reason }
}

fn push(path: &Path, records: &mut Vec<Record>, record: Record) -> Result<(), RecordError> {
    if records.len() >= MAX_RECORDS {
        return Err(too_large(path, "has more records".to_owned(), MAX_RECORDS as u64));
    }
    records.push(record);
    Ok(())
}

fn json_lines(path: &Path, text: &str) -> Result<Vec<Record>, RecordError> {
    let mut records = Vec::new();
    for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let record =
            serde_json::from_str(line).map_err(|e| malformed(path, index + 1, format!("no JSON object ({e})")))?;
        push(path, &mut records, record)?;
    }
    Ok(records)
}

/// A list of objects, or JSON Lines under the wrong name.
fn json(path: &Path, text: &str) -> Result<Vec<Record>, RecordError> {
    if !text.trim_start().starts_with('[') {
        return json_lines(path, text);
    }
    let records: Vec<Record> = serde_json::from_str(text)
        .map_err(|error| malformed(path, error.line(), format!("no list of JSON objects ({error})")))?;
    if records.len() > MAX_RECORDS {
        return Err(too_large(path, format!("has {} records", records.len()), MAX_RECORDS as u64));
    }
    Ok(records)
}

/// Values stay text: a task's templates turn `2` into a number where they need one.
fn delimited(path: &Path, mut input: &[u8], delimiter: u8) -> Result<Vec<Record>, RecordError> {
    let mut reader: Reader = ReaderBuilder::new().delimiter(delimiter).build();
    let mut header: Option<Vec<String>> = None;
    let (mut records, mut row) = (Vec::new(), 0);
    let (mut output, mut ends) = (vec![0; 1 << 16], vec![0; 1 << 10]);
    let (mut out_len, mut num_ends) = (0, 0);
    loop {
        let free = (output.get_mut(out_len..).unwrap_or_default(), ends.get_mut(num_ends..).unwrap_or_default());
        let (result, read, wrote, ended) = reader.read_record(input, free.0, free.1);
        input = input.get(read..).unwrap_or_default();
        out_len += wrote;
        num_ends += ended;
        match result {
            // An empty input tells the reader that the file ends.
            ReadRecordResult::InputEmpty => {}
            ReadRecordResult::OutputFull => output.resize(output.len() * 2, 0),
            ReadRecordResult::OutputEndsFull => ends.resize(ends.len() * 2, 0),
            ReadRecordResult::Record => {
                let fields = fields(&output, ends.get(..num_ends).unwrap_or_default());
                (out_len, num_ends) = (0, 0);
                row += 1;
                match &header {
                    None => header = Some(fields),
                    Some(names) if names.len() == fields.len() => {
                        let values = names.iter().cloned().zip(fields.into_iter().map(Value::from)).collect();
                        push(path, &mut records, values)?;
                    }
                    Some(names) => {
                        let reason = format!("has {} fields where the header has {}", fields.len(), names.len());
                        return Err(malformed(path, row, reason));
                    }
                }
            }
            ReadRecordResult::End => return Ok(records),
        }
    }
}

fn fields(output: &[u8], ends: &[usize]) -> Vec<String> {
    let starts = std::iter::once(0).chain(ends.iter().copied());
    starts
        .zip(ends)
        .map(|(start, &end)| String::from_utf8_lossy(output.get(start..end).unwrap_or_default()).into_owned())
        .collect()
}

fn parquet(path: &Path) -> Result<Vec<Record>, RecordError> {
    let io = |source| RecordError::Io { path: path.to_owned(), source };
    let file = File::open(path).map_err(io)?;
    // The decoder may panic on malformed data.
    let work = catch_unwind(AssertUnwindSafe(|| parquet_rows(path, file)));
    work.unwrap_or_else(|_| Err(malformed(path, 1, "the Parquet decoder gave up on malformed data".to_owned())))
}

fn parquet_rows(path: &Path, file: File) -> Result<Vec<Record>, RecordError> {
    let damaged = |row: usize, error| malformed(path, row, format!("no whole Parquet file ({error})"));
    let reader = CheckedFile::of_default_limits(file).map_err(|error| damaged(1, error))?;
    let size = |group: &parquet::file::metadata::RowGroupMetaData| u64::try_from(group.total_byte_size()).ok();
    let total: Option<u64> = reader.metadata().row_groups().iter().map(size).sum();
    if total.is_none_or(|total| total > MAX_TABLE_BYTES) {
        return Err(too_large(path, "expands to more bytes".to_owned(), MAX_TABLE_BYTES));
    }
    let mut records = Vec::new();
    for row in reader.get_row_iter(None).map_err(|error| damaged(1, error))? {
        let row = row.map_err(|error| damaged(records.len() + 1, error))?;
        push(path, &mut records, object(&row))?;
    }
    Ok(records)
}

fn object(row: &Row) -> Record {
    row.get_column_iter().map(|(name, field)| (name.clone(), value(field))).collect()
}

fn value(field: &Field) -> Value {
    match field {
        Field::Null => Value::Null,
        Field::Bool(value) => (*value).into(),
        Field::Byte(value) => (*value).into(),
        Field::Short(value) => (*value).into(),
        Field::Int(value) => (*value).into(),
        Field::Long(value) => (*value).into(),
        Field::UByte(value) => (*value).into(),
        Field::UShort(value) => (*value).into(),
        Field::UInt(value) => (*value).into(),
        Field::ULong(value) => (*value).into(),
        Field::Float(value) => (*value).into(),
        Field::Double(value) => (*value).into(),
        Field::Str(text) => text.clone().into(),
        Field::Bytes(bytes) => String::from_utf8_lossy(bytes.data()).into_owned().into(),
        Field::Group(row) => Value::Object(object(row)),
        Field::ListInternal(list) => list.elements().iter().map(value).collect(),
        other => other.to_string().into(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use serde_json::json;

    use super::*;

    fn file(name: &str, bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        (dir, path)
    }

    #[test]
    fn json_csv_and_tsv_give_the_same_records() {
        let lines = "{\"q\":\"wach, labas?\",\"a\":\"1\"}\n\n{\"q\":\"two\\nlines\",\"a\":\"0\"}\n";
        let (_a, jsonl) = file("t.jsonl", lines.as_bytes());
        let (_b, csv) = file("t.csv", b"\xef\xbb\xbfq,a\n\"wach, labas?\",1\n\"two\nlines\",0");
        let (_c, tsv) = file("t.tsv", b"q\ta\nwach, labas?\t1\n\"two\nlines\"\t0\n");
        let (_d, list) = file("t.json", br#"[{"q":"wach, labas?","a":"1"},{"q":"two\nlines","a":"0"}]"#);
        let expected = read_records(&jsonl).unwrap();
        assert_eq!(expected[0], json!({"q": "wach, labas?", "a": "1"}).as_object().unwrap().clone());
        for path in [csv, tsv, list] {
            assert_eq!(read_records(&path).unwrap(), expected, "{}", path.display());
        }
    }

    #[test]
    fn broken_tables_are_named_with_their_place() {
        let message = |name: &str, bytes: &[u8]| {
            let (_dir, path) = file(name, bytes);
            read_records(&path).unwrap_err().to_string().split_once(name).unwrap().1.to_owned()
        };
        assert!(message("t.jsonl", b"{\"a\":1}\n[2]\n").starts_with(":2: no JSON object"));
        assert!(message("t.csv", b"a,b\n1,2\n3\n").starts_with(":3: has 1 fields where the header has 2"));
        assert!(message("t.jsonl", b"{}\n\xff\n").starts_with(":2: is not UTF-8"));
        assert!(message("t.parquet", b"PAR1 not a table").starts_with(":1: no whole Parquet file"));
        assert!(message("t.xlsx", b"").contains("use .jsonl"));
    }

    #[test]
    fn a_long_field_and_many_fields_do_not_overflow_the_buffers() {
        let names: Vec<String> = (0..3000).map(|i| format!("f{i}")).collect();
        let values = vec!["x".repeat(50); 3000];
        let (_dir, path) = file("t.csv", format!("{}\n{}\n", names.join(","), values.join(",")).as_bytes());
        let records = read_records(&path).unwrap();
        assert_eq!((records.len(), records[0].len()), (1, 3000));
        assert_eq!(records[0]["f2999"], json!("x".repeat(50)));
    }
}
