//! Owns checking a dataset on disk to the last byte; never repairs it.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use sha2::{Digest, Sha256};

use crate::card::{CARD_FILE, HTML_FILE};
use crate::chat::{REJECTED, TRAINED};
use crate::dataset::DataError;
use crate::manifest::{FileRecord, MANIFEST_FILE, Manifest, ShardRecord, TOKEN_BYTES_FILE, TOKENIZER_FOLDER};
use crate::prepare::{CONTAMINATION_FILE, INPUTS_FILE, NEAR_DUPLICATES_FILE, PII_AUDIT_FILE, QUARANTINE_FILE};
use crate::removal::{LOG_FILE, REMOVED_FILE};
use crate::shard::digest_of;
use crate::shard::format::{Dtype, ENDS, MARKS, MEGATRON_INDEX, SIDECAR, TOKENS, endings, megatron_index};
use crate::shard::reader::{ShardReader, check_size};
use crate::shard::sidecar::count_documents;
use crate::stats::STATS_FILE;
use crate::tokenizer::files::TOKENIZER_FILE;

/// Files that `data prepare` writes beside those of the manifest.
const COMPANIONS: [&str; 11] = [
    MANIFEST_FILE,
    STATS_FILE,
    INPUTS_FILE,
    QUARANTINE_FILE,
    CONTAMINATION_FILE,
    NEAR_DUPLICATES_FILE,
    PII_AUDIT_FILE,
    CARD_FILE,
    HTML_FILE,
    LOG_FILE,
    REMOVED_FILE,
];
/// Tokens looked at between two looks at the stop flag.
const TOKENS_PER_READ: usize = 1 << 18;

/// How far a check has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct VerifyProgress {
    /// Bytes read.
    pub bytes: u64,
    /// Bytes to read.
    pub total_bytes: u64,
}

/// What a check of a sound dataset found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VerifyReport {
    /// The DatasetId.
    pub id: String,
    /// Files whose content was checked.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Documents.
    pub documents: u64,
    /// Tokens.
    pub tokens: u64,
    /// What is odd without being wrong, such as files that the manifest does not name.
    pub warnings: Vec<String>,
}

/// Reads every file of the dataset in `dir` and compares it with the manifest: lengths, digests, heads, the bounds of
/// every document and the range of every token.
///
/// # Errors
/// Everything that is wrong, each with its file, what was expected and what to do.
pub fn verify(dir: &Path, progress: &dyn Fn(VerifyProgress), stop: &AtomicBool) -> Result<VerifyReport, DataError> {
    let manifest = Manifest::read(dir)?;
    let files = files_of(dir, &manifest);
    let total_bytes = files.iter().map(|(_, record)| record.bytes).sum();
    let mut report = VerifyReport { id: manifest.id(), ..VerifyReport::default() };
    let mut problems = Vec::new();
    for (path, record) in &files {
        let before = report.bytes;
        let read = &mut |bytes| {
            report.bytes += bytes;
            progress(VerifyProgress { bytes: report.bytes, total_bytes });
        };
        problems.extend(check_file(path, record, read).err());
        report.bytes = before + record.bytes;
        report.files += 1;
        if stop.load(Ordering::Relaxed) {
            return Err(DataError::Stopped);
        }
    }
    problems.extend(check_tokenizer(dir, &manifest).err());
    let damaged: BTreeSet<PathBuf> =
        problems.iter().filter_map(|problem| path_of(problem).map(Path::to_owned)).collect();
    for record in &manifest.shards {
        report.documents += record.documents;
        report.tokens += record.tokens;
        // The structure of files that are already known to be damaged says nothing new.
        let sound = endings(manifest.chat.is_some())
            .iter()
            .all(|ending| !damaged.contains(&dir.join(format!("{}.{ending}", record.name))));
        if sound {
            problems.extend(check_shard(dir, record, &manifest, stop).err());
        }
    }
    if stop.load(Ordering::Relaxed) {
        return Err(DataError::Stopped);
    }
    report.warnings = surplus(dir, &files)?;
    DataError::join(problems).map_or(Ok(report), Err)
}

/// Every file that the manifest names.
fn files_of(dir: &Path, manifest: &Manifest) -> Vec<(PathBuf, FileRecord)> {
    let mut files = vec![(dir.join(TOKEN_BYTES_FILE), manifest.token_bytes.clone())];
    for (name, record) in &manifest.tokenizer.files {
        files.push((dir.join(TOKENIZER_FOLDER).join(name), record.clone()));
    }
    for shard in &manifest.shards {
        let of_shard =
            |(ending, record): (&String, &FileRecord)| (dir.join(format!("{}.{ending}", shard.name)), record.clone());
        files.extend(shard.files.iter().map(of_shard));
    }
    files
}

fn check_file(path: &Path, record: &FileRecord, read: &mut dyn FnMut(u64)) -> Result<(), DataError> {
    check_size(path, record.bytes)?;
    let found = digest_of(path, read)?;
    if found.blake3 == record.blake3 {
        return Ok(());
    }
    Err(DataError::Digest { path: path.to_owned(), expected: record.blake3.clone(), found: found.blake3 })
}

/// The tokenizer.json must be the one whose SHA-256 models are compared with.
fn check_tokenizer(dir: &Path, manifest: &Manifest) -> Result<(), DataError> {
    let path = dir.join(TOKENIZER_FOLDER).join(TOKENIZER_FILE);
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        // Already reported as missing when the manifest names it.
        Err(error)
            if error.kind() == io::ErrorKind::NotFound && manifest.tokenizer.files.contains_key(TOKENIZER_FILE) =>
        {
            return Ok(());
        }
        Err(error) => return Err(DataError::io(&path, "read")(error)),
    };
    let found: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    let expected = &manifest.tokenizer.sha256;
    if found == *expected {
        return Ok(());
    }
    let reason = format!("is another tokenizer: its SHA-256 is {found}, the manifest says {expected}");
    Err(DataError::Content { path, reason })
}

fn check_shard(dir: &Path, record: &ShardRecord, manifest: &Manifest, stop: &AtomicBool) -> Result<(), DataError> {
    let reader = ShardReader::open(dir, record, manifest.dtype)?;
    let rows = count_documents(&reader.sidecar())?;
    if rows != record.documents {
        let reason = format!("has {rows} rows, the shard has {} documents", record.documents);
        return Err(DataError::Content { path: reader.path(SIDECAR), reason });
    }
    check_index(&reader, record, manifest.dtype)?;
    if manifest.chat.is_some() {
        check_marks(&reader, record)?;
    }
    check_tokens(&reader, record, manifest, stop)
}

/// Both indices must bound the same documents.
fn check_index(reader: &ShardReader, record: &ShardRecord, dtype: Dtype) -> Result<(), DataError> {
    let wrong = |ending: &str, reason: String| Err(DataError::Content { path: reader.path(ending), reason });
    let path = reader.path(MEGATRON_INDEX);
    let found = std::fs::read(&path).map_err(DataError::io(&path, "read"))?;
    let (mut lengths, mut start) = (Vec::new(), 0);
    for document in 0..record.documents {
        let end = reader.end_of(document);
        match i32::try_from(end.saturating_sub(start)) {
            Ok(length) if length > 0 => lengths.push(length),
            _ => return wrong(ENDS, format!("ends document {document} at token {end}, the one before it at {start}")),
        }
        start = end;
    }
    let (mut at, mut same) = (0, true);
    megatron_index(dtype, &lengths, |bytes| {
        same &= found.get(at..at + bytes.len()) == Some(bytes);
        at += bytes.len();
    });
    if same && at == found.len() {
        return Ok(());
    }
    wrong(MEGATRON_INDEX, "does not bound the same documents as the other index".to_owned())
}

/// Marks must be known bits, and every sample must have something to learn.
fn check_marks(reader: &ShardReader, record: &ShardRecord) -> Result<(), DataError> {
    for document in 0..record.documents {
        let tokens = reader.document(document);
        let marks = reader.marks(tokens.start, (tokens.end - tokens.start) as usize);
        let known = marks.iter().all(|mark| mark & !(TRAINED | REJECTED) == 0);
        if !known || !marks.iter().skip(1).any(|mark| mark & TRAINED != 0) {
            let reason = format!("marks sample {document} in a way that cannot be");
            return Err(DataError::Content { path: reader.path(MARKS), reason });
        }
    }
    Ok(())
}

/// Every token must be in the vocabulary, and every document must end as the manifest says.
fn check_tokens(
    reader: &ShardReader,
    record: &ShardRecord,
    manifest: &Manifest,
    stop: &AtomicBool,
) -> Result<(), DataError> {
    let vocab_size = manifest.tokenizer.vocab_size;
    let mut buffer = vec![0; TOKENS_PER_READ];
    let mut at = 0;
    while at < record.tokens && !stop.load(Ordering::Relaxed) {
        let count = reader.read(at, &mut buffer);
        let ids = buffer.get(..count).unwrap_or_default();
        if let Some((i, &id)) = ids.iter().enumerate().find(|(_, id)| **id as usize >= vocab_size) {
            return Err(DataError::TokenOutOfRange { path: reader.path(TOKENS), index: at + i as u64, id, vocab_size });
        }
        at += count.max(1) as u64;
    }
    if manifest.chat.is_some() {
        // A chat ends as its template does.
        return Ok(());
    }
    let eos = manifest.tokenizer.eos_id;
    for document in 0..record.documents {
        let mut last = [0];
        reader.read(reader.end_of(document) - 1, &mut last);
        if last != [eos] {
            let reason = format!("ends document {document} with token {}, the manifest says {eos}", last[0]);
            return Err(DataError::Content { path: reader.path(TOKENS), reason });
        }
    }
    Ok(())
}

/// Files that look as if they belonged to the dataset, though the manifest does not name them.
fn surplus(dir: &Path, files: &[(PathBuf, FileRecord)]) -> Result<Vec<String>, DataError> {
    let named: BTreeSet<&Path> = files.iter().map(|(path, _)| path.as_path()).collect();
    let mut found = Vec::new();
    for folder in [dir.to_owned(), dir.join(TOKENIZER_FOLDER)] {
        let entries = match std::fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(DataError::io(&folder, "listed")(error)),
        };
        for entry in entries {
            let path = entry.map_err(DataError::io(&folder, "listed"))?.path();
            let companion = folder == dir && path.file_name().is_some_and(|name| COMPANIONS.iter().any(|c| name == *c));
            if path.is_file() && !companion && !named.contains(path.as_path()) {
                found.push(path);
            }
        }
    }
    found.sort();
    let warn = |path: &PathBuf| {
        format!("{}: is not named by the manifest; remove it if nothing else needs it", path.display())
    };
    Ok(found.iter().map(warn).collect())
}

fn path_of(problem: &DataError) -> Option<&Path> {
    match problem {
        DataError::Missing { path }
        | DataError::Size { path, .. }
        | DataError::Digest { path, .. }
        | DataError::Io { path, .. } => Some(path),
        _ => None,
    }
}
