//! Owns the files of the new data set: shards without the removed documents, everything else as it was; never decides
//! what goes.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use rayon::prelude::*;

use super::RemovalProgress;
use super::selection::Found;
use crate::chat::TRAINED;
use crate::dataset::DataError;
use crate::manifest::{Counts, MANIFEST_FILE, Manifest, ManifestHead, ShardRecord, TOKEN_BYTES_FILE, TOKENIZER_FOLDER};
use crate::pii::AuditEntry;
use crate::prepare::PII_AUDIT_FILE;
use crate::shard::format::{SIDECAR, shard_number};
use crate::shard::reader::ShardReader;
use crate::shard::sidecar::{DocumentFacts, scan_facts};
use crate::shard::writer::{ShardKey, ShardWriter};
use crate::shard::{DigestedFile, sync_folder};
use crate::verify::VerifyProgress;

/// Folders inside a data set folder deeper than this are not taken over.
const MAX_DEPTH: usize = 8;

/// Writes the data set of `old` without the documents of `found` into the empty folder `new`, the manifest included.
pub(super) fn rewrite(
    (old, new): (&Path, &Path),
    manifest: &Manifest,
    found: &Found,
    observe: &dyn Fn(RemovalProgress),
    stop: &AtomicBool,
) -> Result<Manifest, DataError> {
    take_over(old, new, manifest)?;
    audit((old, new), found)?;
    let (shards, trained_removed) = shards((old, new), manifest, found, observe, stop)?;
    let mut licences = manifest.licences.clone();
    for document in &found.documents {
        if let Some(counts) = licences.get_mut(&document.licence) {
            counts.documents = counts.documents.saturating_sub(1);
            counts.tokens = counts.tokens.saturating_sub(document.tokens);
            counts.text_bytes = counts.text_bytes.saturating_sub(document.text_bytes);
        }
    }
    licences.retain(|_, counts| *counts != Counts::default());
    let head = ManifestHead {
        dtype: manifest.dtype,
        tokenizer: manifest.tokenizer.clone(),
        token_bytes: manifest.token_bytes.clone(),
        seed: manifest.seed,
        config_digest: manifest.config_digest.clone(),
    };
    let mut rewritten = Manifest::new(head, licences, shards);
    if let Some(mut chat) = manifest.chat.clone() {
        chat.trained_tokens = chat.trained_tokens.saturating_sub(trained_removed);
        rewritten = rewritten.with_chat(chat);
    }
    let mut file = DigestedFile::create(&new.join(MANIFEST_FILE))?;
    file.put(&rewritten.to_bytes())?;
    file.finish()?;
    sync_folder(new)?;
    Ok(rewritten)
}

/// Everything but shards and manifest: linked where the file system can, else copied.
fn take_over(old: &Path, new: &Path, manifest: &Manifest) -> Result<(), DataError> {
    let is_shards = |name: &str| {
        let stem = name.split('.').next().unwrap_or_default();
        manifest.shards.iter().any(|shard| shard.name == stem)
    };
    let entries = std::fs::read_dir(old).map_err(DataError::io(old, "listed"))?;
    for entry in entries {
        let path = entry.map_err(DataError::io(old, "listed"))?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        if name != MANIFEST_FILE && name != PII_AUDIT_FILE && !is_shards(name) {
            link(&path, &new.join(name), 0)?;
        }
    }
    // What the manifest names must be there, or the verification would blame the new folder.
    for named in [old.join(TOKEN_BYTES_FILE), old.join(TOKENIZER_FOLDER)] {
        if !named.exists() {
            return Err(DataError::Missing { path: named });
        }
    }
    Ok(())
}

/// The masked sample of personal data shows pieces of texts: those of removed documents go with them.
fn audit((old, new): (&Path, &Path), found: &Found) -> Result<(), DataError> {
    let (from, to) = (old.join(PII_AUDIT_FILE), new.join(PII_AUDIT_FILE));
    let lines = match std::fs::read_to_string(&from) {
        Ok(lines) => lines,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(DataError::io(&from, "read")(error)),
    };
    let removed: HashSet<&str> = found.documents.iter().map(|document| document.id.as_str()).collect();
    let mut file = DigestedFile::create(&to)?;
    for line in lines.lines() {
        // A line that is not ours names no document, and stays.
        let entry: Option<AuditEntry> = serde_json::from_str(line).ok();
        if !entry.is_some_and(|entry| removed.contains(entry.document.as_str())) {
            file.put(line.as_bytes())?;
            file.put(b"\n")?;
        }
    }
    file.finish().map(|_| ())
}

fn link(from: &Path, to: &Path, depth: usize) -> Result<(), DataError> {
    if from.is_dir() {
        if depth < MAX_DEPTH {
            std::fs::create_dir(to).map_err(DataError::io(to, "created"))?;
            for entry in std::fs::read_dir(from).map_err(DataError::io(from, "listed"))? {
                let path = entry.map_err(DataError::io(from, "listed"))?.path();
                if let Some(name) = path.file_name() {
                    link(&path, &to.join(name), depth + 1)?;
                }
            }
            sync_folder(to)?;
        }
        return Ok(());
    }
    if std::fs::hard_link(from, to).is_ok() {
        return Ok(());
    }
    std::fs::copy(from, to).map_err(DataError::io(to, "written"))?;
    std::fs::File::open(to).and_then(|file| file.sync_all()).map_err(DataError::io(to, "synced"))
}

/// The shards that are left, in their order, and how many trained tokens of chats went.
fn shards(
    (old, new): (&Path, &Path),
    manifest: &Manifest,
    found: &Found,
    observe: &dyn Fn(RemovalProgress),
    stop: &AtomicBool,
) -> Result<(Vec<ShardRecord>, u64), DataError> {
    let tasks: Vec<(&ShardRecord, &Vec<u64>)> = manifest.shards.iter().zip(&found.by_shard).collect();
    let total_bytes = tasks.iter().map(|(shard, _)| shard.tokens * manifest.dtype.width() as u64).sum();
    let done = Mutex::new(0_u64);
    // The observer belongs to this thread: rounds of shards keep it informed.
    let mut records = Vec::new();
    let mut trained_removed = 0;
    for round in tasks.chunks(rayon::current_num_threads().max(1)) {
        let written: Vec<(Option<ShardRecord>, u64)> = round
            .par_iter()
            .map(|(shard, removed)| {
                let result = one_shard((old, new), manifest, shard, removed, stop)?;
                if let Ok(mut done) = done.lock() {
                    *done += shard.tokens * manifest.dtype.width() as u64;
                }
                Ok(result)
            })
            .collect::<Result<_, DataError>>()?;
        for (record, trained) in written {
            records.extend(record);
            trained_removed += trained;
        }
        let bytes = done.lock().map_or(0, |done| *done);
        observe(RemovalProgress::Writing(VerifyProgress { bytes, total_bytes }));
    }
    Ok((records, trained_removed))
}

fn one_shard(
    (old, new): (&Path, &Path),
    manifest: &Manifest,
    record: &ShardRecord,
    removed: &[u64],
    stop: &AtomicBool,
) -> Result<(Option<ShardRecord>, u64), DataError> {
    if stop.load(Ordering::Relaxed) {
        return Err(DataError::Stopped);
    }
    if removed.is_empty() {
        for ending in record.files.keys() {
            let name = format!("{}.{ending}", record.name);
            link(&old.join(&name), &new.join(&name), 0)?;
        }
        return Ok((Some(record.clone()), 0));
    }
    let reader = ShardReader::open(old, record, manifest.dtype)?;
    let mut removed = removed.iter().copied().peekable();
    let mut writer: Option<ShardWriter> = None;
    let mut trained = 0;
    let mut ids = Vec::new();
    scan_facts(&reader.path(SIDECAR), &mut |number, facts| {
        let range = reader.document(number);
        let marks = reader.marks(range.start, (range.end - range.start) as usize);
        if removed.next_if_eq(&number).is_some() {
            trained += marks.iter().skip(1).filter(|&mark| mark & TRAINED != 0).count() as u64;
            return Ok(());
        }
        ids.resize((range.end - range.start) as usize, 0);
        reader.read(range.start, &mut ids);
        let shard = match &mut writer {
            Some(shard) => shard,
            None => writer.insert(create(new, manifest, record)?),
        };
        add(shard, &facts, &ids, marks, stop)
    })?;
    let record = writer.map(ShardWriter::finish).transpose()?;
    Ok((record, trained))
}

fn create(new: &Path, manifest: &Manifest, record: &ShardRecord) -> Result<ShardWriter, DataError> {
    let ShardRecord { split, lang, source, .. } = record;
    let key = ShardKey { split: *split, lang: lang.clone(), source: source.clone() };
    let number = shard_number(&record.name).unwrap_or_default();
    ShardWriter::create(new, number, manifest.dtype, key, manifest.chat.is_some())
}

fn add(
    shard: &mut ShardWriter,
    facts: &DocumentFacts,
    ids: &[u32],
    marks: &[u8],
    stop: &AtomicBool,
) -> Result<(), DataError> {
    if stop.load(Ordering::Relaxed) {
        return Err(DataError::Stopped);
    }
    shard.add_facts(facts, ids, marks)
}

/// Sums of removed documents by language and source.
pub(super) fn by_component(found: &Found) -> BTreeMap<(String, String), Vec<&super::RemovedDocument>> {
    let mut sums: BTreeMap<(String, String), Vec<&super::RemovedDocument>> = BTreeMap::new();
    for document in &found.documents {
        sums.entry((document.lang.clone(), document.source.clone())).or_default().push(document);
    }
    sums
}
