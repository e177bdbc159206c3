//! Owns the shard stage: the order of the documents and the last sums; never encodes a text itself.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use super::error::PrepareError;
use super::event::{Observer, PrepareEvent, Stage};
use super::existing;
use crate::chat::ChatEncoder;
use crate::config::PrepareConfig;
use crate::dataset::{ChatsToWrite, DataError, Dataset, DatasetMeta, Group, WriteProgress, write_chats, write_dataset};
use crate::document::{DOCUMENT_ID_BYTES, Document};
use crate::manifest::{Manifest, Split};
use crate::spool::{Entry, Spool};
use crate::stats::Stats;
use crate::tokenizer::Tokenizer;

/// Writes the shards of `spool` and its manifest into `dir`, and completes the statistics.
pub(super) fn encode(
    config: &PrepareConfig,
    spool: &Spool,
    (tokenizer, chats): (&Tokenizer, Option<&ChatEncoder<'_>>),
    dir: &Path,
    observe: Observer<'_>,
    stop: &AtomicBool,
) -> Result<(Manifest, Stats), PrepareError> {
    let stage = Stage::Shards;
    observe(&PrepareEvent::StageStarted { stage, total_bytes: spool.manifest.stats.total.bytes });
    let meta = DatasetMeta {
        config_digest: existing::origin_digest(config, chats, &spool.manifest.stats),
        seed: config.seed,
        max_shard_tokens: config.shards.max_tokens,
    };
    let progress = |progress: WriteProgress| {
        let (bytes, rows) = (progress.counts.text_bytes, progress.counts.documents);
        observe(&PrepareEvent::Progress { stage, bytes, rows });
    };
    let groups = groups(spool, config.seed);
    let written = match chats {
        None => write_dataset(dir, groups, tokenizer, &meta, &progress, stop),
        Some(encoder) => {
            let chats = ChatsToWrite { encoder, kind: config.kind() };
            write_chats(dir, groups, (tokenizer, chats), &meta, &progress, stop)
        }
    };
    let manifest = written.map_err(|error| match error {
        DataError::Stopped => PrepareError::Interrupted { stage: stage.name() },
        error => error.into(),
    })?;
    warn_of_bos(dir, &manifest, tokenizer, observe);
    let stats = complete(spool, &manifest)?;
    observe(&PrepareEvent::StageFinished { stage, reused: false });
    Ok((manifest, stats))
}

/// Servers differ in whether they add a token that the tokenizer puts before texts and the template does not.
fn warn_of_bos(dir: &Path, manifest: &Manifest, tokenizer: &Tokenizer, observe: Observer<'_>) {
    let (Some(bos), true) = (tokenizer.document_bos(), manifest.chat.is_some()) else { return };
    let Ok(dataset) = Dataset::open(dir) else { return };
    let first = dataset.train().first().or(dataset.validation().first()).and_then(|c| c.document(0).ok());
    if first.is_some_and(|ids| ids.first() != Some(&bos)) {
        let token = tokenizer.piece(bos).unwrap_or_default();
        observe(&PrepareEvent::Warning(format!(
            "the chat template writes no `{token}`, which this tokenizer puts before every text; some servers add it to \
             chats and some do not: write `{{{{ bos_token }}}}` at the beginning of the template"
        )));
    }
}

/// The documents by split, language and source, each group in an order that the seed decides.
fn groups(spool: &Spool, seed: u64) -> impl Iterator<Item = Group<impl Iterator<Item = Result<Document, DataError>>>> {
    let mut members: BTreeMap<(Split, &crate::spool::Group), Vec<usize>> = BTreeMap::new();
    for (entry, number) in spool.entries.iter().zip(0..) {
        let split = if spool.is_validation(entry) { Split::Validation } else { Split::Train };
        members.entry((split, spool.group(entry))).or_default().push(number);
    }
    let entry = |number: usize| spool.entries.get(number);
    members.into_iter().map(move |((split, group), mut numbers)| {
        // Equal identifiers (kept duplicates) stay in the order read.
        numbers.sort_by_cached_key(|&number| entry(number).map(|entry| place(seed, &entry.id)));
        let documents = numbers.into_iter().filter_map(entry).map(|entry| read(spool, entry));
        Group { split, lang: group.lang.clone(), source: group.source.clone(), documents }
    })
}

/// A document's place in its group: BLAKE3 of seed and identifier.
fn place(seed: u64, id: &[u8; DOCUMENT_ID_BYTES]) -> u128 {
    let mut place = [0; 16];
    blake3::Hasher::new().update(&seed.to_le_bytes()).update(id).finalize_xof().fill(&mut place);
    u128::from_be_bytes(place)
}

fn read(spool: &Spool, entry: &Entry) -> Result<Document, DataError> {
    spool.document(entry).map_err(DataError::io(spool.dir(), "read"))
}

/// Adds tokens and held-out documents, and checks that no document was lost on the way.
fn complete(spool: &Spool, manifest: &Manifest) -> Result<Stats, PrepareError> {
    let mut stats = spool.manifest.stats.clone();
    stats.components.sort_by(|a, b| (&a.lang, &a.source).cmp(&(&b.lang, &b.source)));
    let mut written = 0;
    for component in &mut stats.components {
        let of_component =
            |shard: &&crate::manifest::ShardRecord| shard.lang == component.lang && shard.source == component.source;
        for shard in manifest.shards.iter().filter(of_component) {
            written += shard.documents;
            match shard.split {
                Split::Train => component.tally.train_tokens += shard.tokens,
                Split::Validation => {
                    component.tally.validation_tokens += shard.tokens;
                    component.tally.validation_documents += shard.documents;
                }
            }
        }
    }
    stats.sum();
    stats.reconcile().map_err(|what| PrepareError::Unreconciled { what })?;
    let bytes: u64 = manifest.shards.iter().map(|shard| shard.text_bytes).sum();
    if written != stats.total.documents || bytes != stats.total.bytes {
        let kept = stats.total.documents;
        let what = format!("{written} documents of {bytes} bytes in shards, {kept} of {} kept", stats.total.bytes);
        return Err(PrepareError::Unreconciled { what });
    }
    Ok(stats)
}
