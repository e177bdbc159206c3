//! Owns the take-down log of a data set: `removals.jsonl`, one line a removal, and `removed.jsonl`, one line a document;
//! never decides what goes.
//!
//! The log keeps no text. It keeps where a document stood and how large the streams were, so that it can still be told
//! which rows and steps saw it.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::dataset::DataError;
use crate::manifest::{Manifest, Split};
use crate::order::Stream;

/// File name of the removals inside a data set.
pub const LOG_FILE: &str = "removals.jsonl";
/// File name of the removed documents inside a data set; an opt-out list as well.
pub const REMOVED_FILE: &str = "removed.jsonl";

/// One removal.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Removal {
    /// When, UTC, ISO 8601.
    pub time: String,
    /// Why, in the user's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What was named.
    pub selection: Vec<String>,
    /// DatasetId before.
    pub old: String,
    /// DatasetId after.
    pub new: String,
    /// Documents removed, held-out ones included.
    pub documents: u64,
    /// Of these, held-out ones.
    pub validation_documents: u64,
    /// Their tokens.
    pub tokens: u64,
    /// UTF-8 bytes of their text.
    pub text_bytes: u64,
    /// Documents by the kind of entry that named them.
    pub by_entry: BTreeMap<String, u64>,
    /// Documents by language.
    pub languages: BTreeMap<String, u64>,
    /// Documents by source.
    pub sources: BTreeMap<String, u64>,
    /// Documents by licence.
    pub licences: BTreeMap<String, u64>,
    /// The training streams as they were before.
    pub streams: Vec<OldStream>,
}

/// A training stream before a removal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OldStream {
    /// `ary_Arab`.
    pub lang: String,
    /// Corpus.
    pub source: String,
    /// Tokens.
    pub tokens: u64,
}

impl OldStream {
    /// The training streams of a data set, in their order.
    pub(super) fn of(manifest: &Manifest) -> Vec<Self> {
        let mut streams: Vec<Self> = Vec::new();
        for shard in manifest.shards.iter().filter(|shard| shard.split == Split::Train) {
            match streams.iter_mut().find(|stream| stream.lang == shard.lang && stream.source == shard.source) {
                Some(stream) => stream.tokens += shard.tokens,
                None => {
                    streams.push(Self { lang: shard.lang.clone(), source: shard.source.clone(), tokens: shard.tokens })
                }
            }
        }
        streams
    }
}

/// The training streams before a removal, in rows of `seq_len` tokens.
pub fn old_streams(removal: &Removal, seq_len: usize) -> Vec<Stream> {
    let stream = |old: &OldStream| Stream {
        lang: old.lang.clone(),
        source: old.source.clone(),
        rows: old.tokens.saturating_sub(1).div_ceil(seq_len.max(1) as u64),
        tokens: old.tokens,
        text_bytes: 0,
        licences: BTreeMap::new(),
    };
    removal.streams.iter().map(stream).collect()
}

/// A document that was removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemovedDocument {
    /// Its identifier.
    pub id: String,
    /// What it was for.
    pub split: Split,
    /// `ary_Arab`.
    pub lang: String,
    /// Corpus.
    pub source: String,
    /// Licence.
    pub licence: String,
    /// Where it was published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Its tokens.
    pub tokens: u64,
    /// UTF-8 bytes of its text.
    pub text_bytes: u64,
    /// Its number in its stream.
    pub document: u64,
    /// Where its tokens began in its stream.
    pub first_token: u64,
    /// Number of its removal, from 1: the line of [`LOG_FILE`].
    pub removal: u64,
}

/// Appends a removal to the logs in `dir`.
pub(super) fn append(dir: &Path, removal: &Removal, documents: &[RemovedDocument]) -> Result<(), DataError> {
    let number = read_log(dir)?.len() as u64 + 1;
    append_lines(&dir.join(LOG_FILE), std::slice::from_ref(removal).iter())?;
    let numbered = documents.iter().map(|document| RemovedDocument { removal: number, ..document.clone() });
    append_lines(&dir.join(REMOVED_FILE), numbered)
}

fn append_lines(path: &Path, values: impl Iterator<Item = impl Serialize>) -> Result<(), DataError> {
    let failed = || DataError::io(path, "written");
    // The file may share its bytes with the old data set's: it is replaced, not extended.
    let mut bytes = if path.exists() { std::fs::read(path).map_err(failed())? } else { Vec::new() };
    for value in values {
        serde_json::to_writer(&mut bytes, &value).map_err(std::io::Error::from).map_err(failed())?;
        bytes.push(b'\n');
    }
    if path.exists() {
        std::fs::remove_file(path).map_err(failed())?;
    }
    let mut file = std::fs::File::create_new(path).map_err(failed())?;
    file.write_all(&bytes).and_then(|()| file.sync_all()).map_err(failed())
}

/// The removals from the data set in `dir`, the first first.
///
/// # Errors
/// A log that cannot be read.
pub fn read_log(dir: &Path) -> Result<Vec<Removal>, DataError> {
    let mut removals = Vec::new();
    read_lines(&dir.join(LOG_FILE), &mut |removal| {
        removals.push(removal);
        true
    })?;
    Ok(removals)
}

/// A document that was removed from the data set in `dir`, by its identifier; every time that it was.
///
/// # Errors
/// A log that cannot be read.
pub fn removed_document(dir: &Path, id: &str) -> Result<Vec<RemovedDocument>, DataError> {
    let mut found = Vec::new();
    read_lines(&dir.join(REMOVED_FILE), &mut |document: RemovedDocument| {
        if document.id == id {
            found.push(document);
        }
        true
    })?;
    Ok(found)
}

fn read_lines<T: serde::de::DeserializeOwned>(path: &Path, each: &mut dyn FnMut(T) -> bool) -> Result<(), DataError> {
    if !path.exists() {
        return Ok(());
    }
    let file = std::fs::File::open(path).map_err(DataError::io(path, "read"))?;
    for (number, line) in (1..).zip(BufReader::new(file).lines()) {
        let line = line.map_err(DataError::io(path, "read"))?;
        let value = serde_json::from_str(&line).map_err(|error| DataError::Content {
            path: path.to_owned(),
            reason: format!("line {number} is no entry of a take-down log ({error})"),
        })?;
        if !each(value) {
            break;
        }
    }
    Ok(())
}
