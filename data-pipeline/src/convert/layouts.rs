//! Owns tokens in the file layouts of other trainers, one set of files a split, language and source; never turns tokens
//! into text.
//!
//! Our shards have both layouts already and can be given to those trainers as they are. These folders join the shards of
//! each stream and name files as those tools do: `NAME.bin` and `NAME.idx` for Megatron-LM, with `data_paths.txt` (tokens
//! and prefix a line, the weights of a blend); `NAME.ds`, `NAME.ds.index` and `NAME.ds.metadata` for datatrove.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::Ordering;

use super::{ConvertError, Job, Target, file_name};
use crate::dataset::{Component, DataError};
use crate::shard::format::{Dtype, megatron_index};
use crate::shard::reader::ShardReader;
use crate::shard::{DigestedFile, sync_folder};

/// Tokens copied at a time.
const COPY_TOKENS: usize = 1 << 18;

/// Writes the token files of all components into the new folder `folder`.
pub(super) fn folder(job: &mut Job<'_>, target: Target, folder: &Path) -> Result<(), ConvertError> {
    std::fs::create_dir(folder).map_err(DataError::io(folder, "created"))?;
    let mut taken = BTreeSet::new();
    let mut paths = String::new();
    for component in job.components.clone() {
        let stem = format!("{}-{}-{}", component.split().name(), component.lang(), file_name(component.source()));
        // Two sources may have one name once it is made safe.
        let names = (0..).map(|number| if number == 0 { stem.clone() } else { format!("{stem}-{number}") });
        let Some(name) = names.into_iter().find(|name| taken.insert(name.clone())) else { continue };
        let ends = tokens(job, component, target, &folder.join(format!("{name}.{}", ending(target))))?;
        indices(job, target, folder, &name, &ends)?;
        paths.push_str(&format!("{} {name}\n", component.num_tokens()));
    }
    if target == Target::Megatron {
        put(&folder.join("data_paths.txt"), paths.as_bytes())?;
        job.done.files += 1;
    }
    Ok(sync_folder(folder)?)
}

fn ending(target: Target) -> &'static str {
    if target == Target::Megatron { "bin" } else { "ds" }
}

/// Writes the tokens of a component end to end; returns where each document ends.
fn tokens(job: &mut Job<'_>, component: &Component, target: Target, path: &Path) -> Result<Vec<u64>, ConvertError> {
    let dtype = job.dataset.manifest().dtype;
    let mut file = DigestedFile::create(path)?;
    let mut ends: Vec<u64> = Vec::new();
    let mut buffer = Vec::new();
    component.scan(&mut |_, facts, reader: &ShardReader, range: Range<u64>| {
        copy(reader, range.clone(), dtype, &mut buffer, &mut file)?;
        ends.push(ends.last().copied().unwrap_or(0) + (range.end - range.start));
        job.count(facts.tokens);
        if job.done.documents.is_multiple_of(super::CHUNK_DOCUMENTS as u64) {
            (job.observe)(job.done.documents, job.total);
        }
        if job.stop.load(Ordering::Relaxed) { Err(DataError::Stopped) } else { Ok(()) }
    })?;
    file.finish()?;
    debug_assert!(matches!(target, Target::Megatron | Target::Datatrove));
    job.done.files += 1;
    Ok(ends)
}

fn copy(
    reader: &ShardReader,
    range: Range<u64>,
    dtype: Dtype,
    buffer: &mut Vec<u8>,
    file: &mut DigestedFile,
) -> Result<(), DataError> {
    let mut at = range.start;
    while at < range.end {
        let mut ids = vec![0; ((range.end - at) as usize).min(COPY_TOKENS)];
        let count = reader.read(at, &mut ids).max(1);
        buffer.clear();
        dtype.write(&ids, buffer);
        file.put(buffer)?;
        at += count as u64;
    }
    Ok(())
}

fn indices(job: &mut Job<'_>, target: Target, folder: &Path, name: &str, ends: &[u64]) -> Result<(), ConvertError> {
    let manifest = job.dataset.manifest();
    if target == Target::Megatron {
        let starts = std::iter::once(0).chain(ends.iter().copied());
        // Lengths of documents fit, or no shard would hold them.
        let lengths: Vec<i32> =
            starts.zip(ends).map(|(start, end)| i32::try_from(end - start).unwrap_or(i32::MAX)).collect();
        let mut bytes = Vec::new();
        megatron_index(manifest.dtype, &lengths, |part| bytes.extend_from_slice(part));
        put(&folder.join(format!("{name}.idx")), &bytes)?;
        job.done.files += 1;
        return Ok(());
    }
    let bytes: Vec<u8> = ends.iter().flat_map(|end| end.to_le_bytes()).collect();
    put(&folder.join(format!("{name}.ds.index")), &bytes)?;
    let total = ends.last().copied().unwrap_or(0);
    let tokenizer = manifest.tokenizer.sha256.get(..12).unwrap_or_default();
    let metadata = format!("jazari-{tokenizer}|{}\n{total}\n{total}", manifest.dtype.width());
    put(&folder.join(format!("{name}.ds.metadata")), metadata.as_bytes())?;
    job.done.files += 2;
    Ok(())
}

fn put(path: &Path, bytes: &[u8]) -> Result<(), DataError> {
    let mut file = DigestedFile::create(path)?;
    file.put(bytes)?;
    file.finish().map(|_| ())
}
