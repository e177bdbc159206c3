//! Owns reading the files of a benchmark folder as items: records with their texts; never searches.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::records::{MAX_TABLE_BYTES, Record, RecordError, parse_records, read_records};

/// Folders below the benchmark folder at most.
const MAX_DEPTH: usize = 16;
/// Files of a benchmark folder at most.
const MAX_FILES: usize = 100_000;

/// Fields that hold no text of a benchmark: identifiers, addresses, labels, and what a model answered.
const NO_TEXT: &[&str] = &[
    "id",
    "uid",
    "uuid",
    "url",
    "link",
    "hash",
    "doc_hash",
    "prompt_hash",
    "target_hash",
    "licence",
    "license",
    "lang",
    "language",
    "script",
    "split",
    "resps",
    "filtered_resps",
    "metadata",
    "meta",
];

/// Benchmarks that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BenchmarkError {
    /// The folder or a file in it cannot be read.
    #[error("{}: cannot be read; check the path and its permissions", .path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
    /// A file is not what its name says.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// Nothing to look for.
    #[error("{}: no benchmark item in {files} files ({ignored} of other types ignored); a folder of .jsonl, .json, .csv, .tsv, .parquet or .txt files is needed", .folder.display())]
    Empty {
        /// The folder.
        folder: PathBuf,
        /// Files there are.
        files: usize,
        /// Files whose type is not read.
        ignored: usize,
    },
    /// A benchmark that is asked for is not there.
    #[error("{}: no file or folder for {missing}; add it, or take it out of `require`", .folder.display())]
    Missing {
        /// The folder.
        folder: PathBuf,
        /// The names.
        missing: String,
    },
    /// More than fits.
    #[error("{}: more than {limit} {what}; split the folder", .folder.display())]
    TooMany {
        /// The folder.
        folder: PathBuf,
        /// What there is too much of.
        what: &'static str,
        /// How many are possible.
        limit: usize,
    },
}

/// A text of an item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Part {
    /// Path of the field: `question`, `choices.2`; empty for a line of a text file.
    pub field: String,
    pub text: String,
    /// One of several in a list, such as the choices of a question.
    pub in_list: bool,
}

/// All files below `folder`, sorted by path.
pub(crate) fn files_below(folder: &Path) -> Result<Vec<PathBuf>, BenchmarkError> {
    let mut files = Vec::new();
    walk(folder, folder, 0, &mut files)?;
    files.sort();
    Ok(files)
}

fn walk(top: &Path, folder: &Path, depth: usize, files: &mut Vec<PathBuf>) -> Result<(), BenchmarkError> {
    let io = |source| BenchmarkError::Io { path: folder.to_owned(), source };
    if folder.is_file() {
        files.push(folder.to_owned());
        return Ok(());
    }
    for entry in fs::read_dir(folder).map_err(io)? {
        let path = entry.map_err(io)?.path();
        let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if hidden {
            continue;
        }
        if path.is_dir() {
            if depth < MAX_DEPTH {
                walk(top, &path, depth + 1, files)?;
            }
        } else {
            files.push(path);
        }
        if files.len() > MAX_FILES {
            return Err(BenchmarkError::TooMany { folder: top.to_owned(), what: "files", limit: MAX_FILES });
        }
    }
    Ok(())
}

/// The items of a file, or `None` when it is of a type that holds none (documentation, programs, archives).
pub(crate) fn read_items(path: &Path) -> Result<Option<Vec<Vec<Part>>>, BenchmarkError> {
    let name = path.file_name().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
    let (stem, packing) = match name.rsplit_once('.') {
        Some((stem, packing @ ("gz" | "zst" | "zstd"))) => (stem, Some(packing)),
        _ => (name.as_str(), None),
    };
    let ending = stem.rsplit_once('.').map_or("", |(_, ending)| ending);
    match ending {
        "parquet" if packing.is_none() => Ok(Some(of_records(read_records(path)?))),
        "csv" | "tsv" | "jsonl" | "ndjson" => Ok(Some(of_records(parse_records(path, ending, bytes(path, packing)?)?))),
        "json" => Ok(Some(json(path, bytes(path, packing)?)?)),
        // FLORES has its sentences in files that end in .dev and .devtest.
        "txt" | "dev" | "devtest" | "test" | "val" => Ok(Some(text_lines(&bytes(path, packing)?))),
        _ => Ok(None),
    }
}

fn bytes(path: &Path, packing: Option<&str>) -> Result<Vec<u8>, BenchmarkError> {
    let io = |source| BenchmarkError::Io { path: path.to_owned(), source };
    let file = fs::File::open(path).map_err(io)?;
    let mut reader: Box<dyn Read> = match packing {
        Some("gz") => Box::new(flate2::read::MultiGzDecoder::new(file)),
        Some(_) => Box::new(zstd::Decoder::new(file).map_err(io)?),
        None => Box::new(file),
    };
    let mut bytes = Vec::new();
    (&mut reader).take(MAX_TABLE_BYTES + 1).read_to_end(&mut bytes).map_err(io)?;
    if bytes.len() as u64 > MAX_TABLE_BYTES {
        let what = "has more bytes".to_owned();
        return Err(RecordError::TooLarge { path: path.to_owned(), what, limit: MAX_TABLE_BYTES }.into());
    }
    Ok(bytes)
}

fn text_lines(bytes: &[u8]) -> Vec<Vec<Part>> {
    let text = String::from_utf8_lossy(bytes);
    let part = |line: &str| Part { field: String::new(), text: line.to_owned(), in_list: false };
    text.lines().map(|line| if line.trim().is_empty() { Vec::new() } else { vec![part(line)] }).collect()
}

/// A list of items; an object whose lists are items (`{"data": [...]}`); an object that is one item; JSON Lines under
/// the wrong name.
fn json(path: &Path, bytes: Vec<u8>) -> Result<Vec<Vec<Part>>, BenchmarkError> {
    match serde_json::from_slice::<Value>(&bytes) {
        Ok(Value::Array(list)) => Ok(list.iter().map(parts).collect()),
        Ok(Value::Object(object)) => {
            let lists: Vec<&Value> = object
                .values()
                .filter_map(Value::as_array)
                .filter(|list| list.iter().any(Value::is_object))
                .flatten()
                .collect();
            if lists.is_empty() {
                return Ok(vec![parts(&Value::Object(object))]);
            }
            Ok(lists.into_iter().map(parts).collect())
        }
        Ok(other) => Ok(vec![parts(&other)]),
        Err(_) => Ok(of_records(parse_records(path, "jsonl", bytes)?)),
    }
}

fn of_records(records: Vec<Record>) -> Vec<Vec<Part>> {
    records.into_iter().map(|record| parts(&Value::Object(record))).collect()
}

/// Every string below a value that may be text.
fn parts(value: &Value) -> Vec<Part> {
    let mut found = Vec::new();
    gather(value, &mut String::new(), false, 0, &mut found);
    found
}

fn gather(value: &Value, field: &mut String, in_list: bool, depth: usize, found: &mut Vec<Part>) {
    if let Value::String(text) = value {
        found.push(Part { field: field.clone(), text: text.clone(), in_list });
        return;
    }
    let length = field.len();
    let mut below = |name: &str, value: &Value, in_list: bool| {
        if length > 0 {
            field.push('.');
        }
        field.push_str(name);
        gather(value, field, in_list, depth + 1, found);
        field.truncate(length);
    };
    match value {
        _ if depth > MAX_DEPTH => {}
        Value::Array(list) => {
            // A list of one is no list of choices.
            let in_list = in_list || list.len() > 1 && list.iter().all(Value::is_string);
            list.iter().enumerate().for_each(|(i, value)| below(&i.to_string(), value, in_list));
        }
        Value::Object(object) => {
            for (name, value) in object {
                let lower = name.to_lowercase();
                if !NO_TEXT.contains(&lower.as_str()) && !lower.ends_with("_id") {
                    below(name, value, in_list);
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// The task names that an lm-evaluation-harness task file (YAML) declares, with the data set that it loads.
pub(crate) fn declared_tasks(path: &Path) -> BTreeMap<String, String> {
    let mut declared = BTreeMap::new();
    let is_yaml = path.extension().is_some_and(|ending| ending == "yaml" || ending == "yml");
    let Ok(text) = is_yaml.then(|| fs::read_to_string(path)).transpose() else { return declared };
    let text = text.unwrap_or_default();
    let value = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
        let value = line.trim().trim_matches(['"', '\'']);
        (!value.is_empty()).then(|| value.to_owned())
    };
    if let Some(task) = value("task") {
        declared.insert(task, value("dataset_path").unwrap_or_default());
    }
    declared
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use serde_json::json;

    use super::*;

    #[test]
    fn every_string_that_may_be_text_is_a_part() {
        let record = json!({
            "id": "q-1", "question": "شنو هي العاصمة؟", "choices": ["الرباط", "فاس"], "answer": 0,
            "doc": {"passage": "نص طويل", "doc_id": "7"}, "texts": ["واحد"], "resps": [["x"]],
        });
        let found: Vec<(String, bool)> = parts(&record).into_iter().map(|part| (part.field, part.in_list)).collect();
        let expected =
            [("question", false), ("choices.0", true), ("choices.1", true), ("doc.passage", false), ("texts.0", false)];
        assert_eq!(found, expected.map(|(field, list)| (field.to_owned(), list)));
    }

    #[test]
    fn one_benchmark_in_every_format() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, bytes: &[u8]| {
            let path = dir.path().join(name);
            fs::write(&path, bytes).unwrap();
            path
        };
        let lines = "{\"q\":\"wach labas\"}\n{\"q\":\"chno smitek\"}\n";
        let packed = zstd::encode_all(lines.as_bytes(), 1).unwrap();
        let paths = [
            write("a.jsonl", lines.as_bytes()),
            write("b.json", br#"[{"q":"wach labas"},{"q":"chno smitek"}]"#),
            write("c.json", br#"{"version":"1","data":[{"q":"wach labas"},{"q":"chno smitek"}]}"#),
            write("d.csv", b"q\nwach labas\nchno smitek\n"),
            write("e.jsonl.zst", &packed),
            write("f.json", lines.as_bytes()),
        ];
        let expected = read_items(&paths[0]).unwrap().unwrap();
        assert_eq!(expected[1][0], Part { field: "q".into(), text: "chno smitek".into(), in_list: false });
        for path in &paths {
            assert_eq!(read_items(path).unwrap().unwrap(), expected, "{}", path.display());
        }
        let flores = read_items(&write("ary_Arab.devtest", "سطر\n\nآخر\n".as_bytes())).unwrap().unwrap();
        assert_eq!(flores.iter().map(Vec::len).collect::<Vec<_>>(), [1, 0, 1]);
        assert_eq!(read_items(&write("README.md", b"wach labas")).unwrap(), None);
        assert!(read_items(&write("bad.jsonl", b"{\n")).is_err());
        let task = write("t.yaml", b"task: darijammlu\ndataset_path: \"MBZUAI-Paris/DarijaMMLU\"\n");
        assert_eq!(declared_tasks(&task)["darijammlu"], "MBZUAI-Paris/DarijaMMLU");
    }
}
