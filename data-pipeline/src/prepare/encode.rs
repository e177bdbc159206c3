//! Owns the shard stage: the order of the documents and the last sums; never encodes a text itself.

use std::cell::RefCell;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use super::PREPARE_VERSION;
use super::error::PrepareError;
use super::event::{Observer, PrepareEvent, Stage};
use super::existing;
use crate::chat::ChatEncoder;
use crate::config::{PrepareConfig, json_digest};
use crate::dataset::{ChatsToWrite, DataError, Dataset, DatasetMeta, Group, ShardLog, WriteProgress, write};
use crate::document::{DOCUMENT_ID_BYTES, Document};
use crate::manifest::{Manifest, Split};
use crate::near::sort::{ExternalSort, Merged, Record};
use crate::spool::{ENTRY_BYTES, Entry, Spool};
use crate::stats::Stats;
use crate::tokenizer::Tokenizer;

/// Share of the memory that sorting may use.
const SORT_SHARE: u64 = 4;

/// Writes the shards of `spool` and its manifest into `dir`, and completes the statistics. Shards that `log` lists as
/// finished, by an earlier run that was cut off, are taken over.
pub(super) fn encode(
    config: &PrepareConfig,
    spool: &Spool,
    (tokenizer, chats): (&Tokenizer, Option<&ChatEncoder<'_>>),
    (dir, log): (&Path, &Path),
    observe: Observer<'_>,
    stop: &AtomicBool,
) -> Result<(Manifest, Stats), PrepareError> {
    let stage = Stage::Shards;
    observe(&PrepareEvent::StageStarted { stage, total_bytes: spool.manifest.stats.total.bytes });
    let meta = DatasetMeta {
        config_digest: existing::origin_digest(config, chats, &spool.manifest.stats)?,
        seed: config.seed,
        max_shard_tokens: config.shards.max_tokens,
    };
    let progress = |progress: WriteProgress| {
        let (bytes, rows) = (progress.counts.text_bytes, progress.counts.documents);
        observe(&PrepareEvent::Progress { stage, bytes, rows });
    };
    let key = json_digest(&(
        (PREPARE_VERSION, spool.digest(), tokenizer.digest()),
        (&meta.config_digest, meta.seed, meta.max_shard_tokens),
    ));
    let log = ShardLog::open(log, dir, &key)?;
    let mut ordered = Ordered::new(config, spool)?;
    ordered.skip(log.documents())?;
    let ordered = RefCell::new(ordered);
    let groups = groups(&ordered);
    let chats = chats.map(|encoder| ChatsToWrite { encoder, kind: config.kind() });
    let written = write(dir, groups, (tokenizer, chats), &meta, Some(log), &progress, stop);
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

/// A document in the order of the shards: split, language and source, place in the group, place in the order read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Placed {
    held_out: bool,
    group: u32,
    place: u128,
    number: u64,
    entry: [u8; ENTRY_BYTES],
}

impl Record for Placed {
    const BYTES: usize = 1 + 4 + 16 + 8 + ENTRY_BYTES;

    fn write(&self, out: &mut Vec<u8>) {
        out.push(u8::from(self.held_out));
        out.extend_from_slice(&self.group.to_le_bytes());
        out.extend_from_slice(&self.place.to_le_bytes());
        out.extend_from_slice(&self.number.to_le_bytes());
        out.extend_from_slice(&self.entry);
    }

    fn read(bytes: &[u8]) -> Placed {
        fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
            bytes.get(at..at + N).and_then(|part| part.try_into().ok()).unwrap_or([0; N])
        }
        Placed {
            held_out: bytes.first() == Some(&1),
            group: u32::from_le_bytes(array(bytes, 1)),
            place: u128::from_le_bytes(array(bytes, 5)),
            number: u64::from_le_bytes(array(bytes, 21)),
            entry: array(bytes, 29),
        }
    }
}

/// All documents in the order of the shards, sorted within the memory allowed.
struct Ordered<'a> {
    spool: &'a Spool,
    sorted: Merged<Placed>,
    next: Option<Placed>,
    failure: Option<DataError>,
}

impl<'a> Ordered<'a> {
    fn new(config: &PrepareConfig, spool: &'a Spool) -> Result<Ordered<'a>, PrepareError> {
        let failed = || PrepareError::io(spool.dir(), "read");
        // Numbers of groups are those of the order read; shards follow their names.
        let mut names: Vec<usize> = (0..spool.manifest.groups.len()).collect();
        names.sort_by_key(|&number| spool.manifest.groups.get(number));
        let mut ranks = vec![0_u32; names.len()];
        for (&number, rank) in names.iter().zip(0..) {
            if let Some(place) = ranks.get_mut(number) {
                *place = rank;
            }
        }
        let memory = config.limits.memory_mib(SORT_SHARE) << 20;
        let mut sort = ExternalSort::new(spool.dir(), memory);
        for (entry, number) in spool.entries().map_err(failed())?.zip(0..) {
            let entry = entry.map_err(failed())?;
            let group = ranks.get(entry.group as usize).copied().unwrap_or(0);
            let (held_out, place) = (spool.is_validation(&entry), place(config.seed, &entry.id));
            // Equal identifiers (kept duplicates) stay in the order read.
            sort.push(Placed { held_out, group, place, number, entry: entry.to_bytes() })?;
        }
        let mut sorted = sort.finish()?;
        let next = sorted.next()?;
        Ok(Ordered { spool, sorted, next, failure: None })
    }

    /// Passes over documents, without reading them.
    fn skip(&mut self, documents: u64) -> Result<(), PrepareError> {
        for _ in 0..documents {
            self.next = self.sorted.next()?;
        }
        Ok(())
    }

    /// The next document, if it belongs to the split and group.
    fn next_of(&mut self, held_out: bool, group: u32) -> Option<Result<Document, DataError>> {
        if let Some(failure) = self.failure.take() {
            return Some(Err(failure));
        }
        let placed = self.next.filter(|placed| (placed.held_out, placed.group) == (held_out, group))?;
        self.next = match self.sorted.next() {
            Ok(next) => next,
            Err(error) => {
                let source = std::io::Error::other(error.to_string());
                self.failure = Some(DataError::io(self.spool.dir(), "read")(source));
                Some(placed)
            }
        };
        Some(read(self.spool, &Entry::from_bytes(&placed.entry)))
    }
}

/// The documents by split, language and source, each group in an order that the seed decides.
fn groups<'a>(
    ordered: &'a RefCell<Ordered<'_>>,
) -> impl Iterator<Item = Group<impl Iterator<Item = Result<Document, DataError>> + 'a>> + 'a {
    std::iter::from_fn(move || {
        let this = ordered.borrow();
        let head = this.next.as_ref()?;
        let (held_out, number) = (head.held_out, head.group);
        let crate::spool::Group { lang, source } = this.spool.group(&Entry::from_bytes(&head.entry)).clone();
        let split = if held_out { Split::Validation } else { Split::Train };
        let documents = std::iter::from_fn(move || ordered.borrow_mut().next_of(held_out, number));
        Some(Group { split, lang, source, documents })
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
