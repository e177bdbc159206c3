//! Owns which documents of a data set a removal names, and finding them; never changes anything.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use super::log::{OldStream, Removal, RemovedDocument};
use super::{Cause, RemovalProgress, Report};
use crate::dataset::DataError;
use crate::document::{document_id, id_to_hex};
use crate::licence;
use crate::manifest::{Manifest, ShardRecord, Split};
use crate::opt_out::{Candidate, OptOutError, OptOutList};
use crate::shard::format::SIDECAR;
use crate::shard::reader::ShardReader;
use crate::shard::sidecar::{DocumentFacts, scan_facts};
use crate::verify::VerifyProgress;

/// Documents by what they are called. A document that fits any entry is named.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    list: OptOutList,
    /// Identifiers as a corpus gives them: ours is a digest of source and identifier.
    given_ids: Vec<String>,
    licences: Vec<String>,
    entries: Vec<String>,
}

impl Selection {
    /// Adds an entry: `id`, `url` (a prefix), `domain`, `source` or `licence`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn insert(&mut self, kind: &str, value: &str) -> Result<(), &'static str> {
        match kind {
            "licence" if value.trim().is_empty() => return Err("nothing is named"),
            "licence" => self.licences.push(value.trim().to_owned()),
            _ => self.list.insert(kind, value)?,
        }
        let value = value.trim();
        if kind == "id" && !is_own_id(value) {
            self.given_ids.push(value.to_owned());
        }
        self.entries.push(format!("{kind}: {value}"));
        Ok(())
    }

    /// Adds the entries of an opt-out list.
    ///
    /// # Errors
    /// As [`OptOutList::read`].
    pub fn read_list(&mut self, path: &Path) -> Result<(), OptOutError> {
        let text = std::fs::read_to_string(path).map_err(|source| OptOutError::Io { path: path.to_owned(), source })?;
        let before = self.list.len();
        self.list.add_text(path, &text)?;
        self.given_ids.extend(self.list.ids().filter(|id| !is_own_id(id)).map(str::to_owned));
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        self.entries.push(format!("list: {name} ({} entries)", self.list.len() - before));
        Ok(())
    }

    /// Whether nothing is named.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty() && self.licences.is_empty()
    }

    /// What was named, a line each.
    pub(super) fn entries(&self) -> &[String] {
        &self.entries
    }

    /// What of a document is named.
    fn finds(&self, facts: &DocumentFacts) -> Option<&'static str> {
        if self.licences.iter().any(|named| licence::names(&facts.licence, named)) {
            return Some("licence");
        }
        let candidate = Candidate { id: &facts.id, given_id: None, url: facts.url.as_deref(), source: &facts.source };
        self.list.find(candidate).map(|what| what.strip_prefix("list_").unwrap_or(what))
    }

    /// The selection with the identifiers that rows gave turned into ours.
    fn resolved(&self, manifest: &Manifest) -> Self {
        let mut resolved = self.clone();
        let mut sources: Vec<&str> = manifest.shards.iter().map(|shard| shard.source.as_str()).collect();
        sources.sort_unstable();
        sources.dedup();
        for id in &self.given_ids {
            for source in &sources {
                // An identifier is never refused.
                _ = resolved.list.insert("id", &id_to_hex(&document_id(source, id)));
            }
        }
        resolved
    }
}

impl fmt::Display for Selection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.entries.join(", "))
    }
}

fn is_own_id(id: &str) -> bool {
    id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit())
}

/// The documents that a selection names.
pub(super) struct Found {
    /// Numbers in each shard, ascending.
    pub by_shard: Vec<Vec<u64>>,
    /// All of them, shard by shard.
    pub documents: Vec<RemovedDocument>,
    by_entry: BTreeMap<String, u64>,
}

/// Looks through the tables of all shards.
pub(super) fn search(
    dir: &Path,
    manifest: &Manifest,
    selection: &Selection,
    observe: &dyn Fn(RemovalProgress),
    stop: &AtomicBool,
) -> Result<Found, DataError> {
    let selection = selection.resolved(manifest);
    let mut found = Found { by_shard: Vec::new(), documents: Vec::new(), by_entry: BTreeMap::new() };
    // Documents and tokens of each component before the shard.
    let mut before: BTreeMap<(Split, &str, &str), (u64, u64)> = BTreeMap::new();
    let total_bytes = manifest.shards.iter().map(|shard| shard.documents).sum();
    let mut at = VerifyProgress { bytes: 0, total_bytes };
    for shard in &manifest.shards {
        let start = before.entry((shard.split, &shard.lang, &shard.source)).or_default();
        found.look_through(dir, manifest, shard, &selection, *start)?;
        *start = (start.0 + shard.documents, start.1 + shard.tokens);
        at.bytes += shard.documents;
        observe(RemovalProgress::Searching(at));
        if stop.load(Ordering::Relaxed) {
            return Err(DataError::Stopped);
        }
    }
    Ok(found)
}

impl Found {
    fn look_through(
        &mut self,
        dir: &Path,
        manifest: &Manifest,
        shard: &ShardRecord,
        selection: &Selection,
        (first_document, first_token): (u64, u64),
    ) -> Result<(), DataError> {
        let reader = ShardReader::open(dir, shard, manifest.dtype)?;
        let mut numbers = Vec::new();
        scan_facts(&reader.path(SIDECAR), &mut |number, facts| {
            let Some(entry) = selection.finds(&facts) else { return Ok(()) };
            *self.by_entry.entry(entry.to_owned()).or_default() += 1;
            numbers.push(number);
            let DocumentFacts { id, lang, source, licence, url, text_bytes, tokens, .. } = facts;
            self.documents.push(RemovedDocument {
                id,
                split: shard.split,
                lang,
                source,
                licence,
                url,
                tokens,
                text_bytes,
                document: first_document + number,
                first_token: first_token + reader.document(number).start,
                removal: 0,
            });
            Ok(())
        })?;
        self.by_shard.push(numbers);
        Ok(())
    }

    /// What the log and the user are told.
    pub fn report(&self, manifest: &Manifest, selection: &Selection, cause: &Cause) -> Report {
        let mut removal = Removal {
            time: cause.time.clone(),
            reason: cause.reason.clone(),
            selection: selection.entries.clone(),
            old: manifest.id(),
            streams: OldStream::of(manifest),
            by_entry: self.by_entry.clone(),
            ..Removal::default()
        };
        for document in &self.documents {
            removal.documents += 1;
            removal.validation_documents += u64::from(document.split == Split::Validation);
            removal.tokens += document.tokens;
            removal.text_bytes += document.text_bytes;
            let sums = [
                (&mut removal.languages, &document.lang),
                (&mut removal.sources, &document.source),
                (&mut removal.licences, &document.licence),
            ];
            for (sum, name) in sums {
                *sum.entry(name.clone()).or_default() += 1;
            }
        }
        let sum = |count: fn(&ShardRecord) -> u64| manifest.shards.iter().map(count).sum::<u64>();
        Report {
            documents_left: sum(|shard| shard.documents) - removal.documents,
            tokens_left: sum(|shard| shard.tokens) - removal.tokens,
            shards_changed: self.by_shard.iter().filter(|numbers| !numbers.is_empty()).count(),
            removal,
            warnings: Vec::new(),
            already: false,
        }
    }
}
