//! Owns the dedup stage: the parts of the spool joined, repeated documents and paragraphs left out, the split and the
//! sums; never reads inputs.
//!
//! Every search goes over the documents in the order read, and what it keeps is written to an index for the next. Memory
//! is bounded: keys and signatures that do not fit are sorted on disk.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rayon::prelude::*;

use super::error::PrepareError;
use super::event::{Observer, PrepareEvent, Stage};
use super::ingest::MAX_COMPONENTS;
use crate::config::PrepareConfig;
use crate::dedup::Dedup;
use crate::document::id_to_hex;
use crate::near::SpillingKeys;
use crate::near::{Clusterer, Clusters, NearConfig, ParagraphConfig, Paragraphs, RepeatFinder, Signer};
use crate::source::Reason;
use crate::source::discover::InputFile;
use crate::split::SplitCount;
use crate::spool::{
    Contents, ENTRY_BYTES, Entry, EntryReader, Group, PartState, SpoolLabels, SpoolWriter, segment_file,
};
use crate::stats::{ComponentStats, STATS_VERSION, Stats, count_words};

/// Near duplicates of a data set: one line each, with the document that stays.
pub const NEAR_DUPLICATES_FILE: &str = "near_duplicates.jsonl";
/// Text that is held at once, in bytes, over all threads.
const BATCH_BYTES: u64 = 8 << 20;
/// Documents that are held at once.
const BATCH_DOCUMENTS: usize = 1 << 14;
/// Share of the memory that a search may use.
const SEARCH_SHARE: u64 = 4;

/// What the searches need to know.
pub(super) struct Searches<'a> {
    pub config: &'a PrepareConfig,
    pub files: &'a [InputFile],
    /// The work folder.
    pub root: &'a Path,
    /// The folder of this stage's results, empty.
    pub dir: &'a Path,
    pub observe: Observer<'a>,
    pub stop: &'a AtomicBool,
}

/// The parts joined.
struct Joined {
    labels: SpoolLabels,
    stats: Stats,
    /// The number of each group's language.
    languages: Vec<usize>,
    num_languages: usize,
    /// Groups and licences of each part, in the numbers of the whole, and its first segment.
    parts: Vec<PartNumbers>,
}

struct PartNumbers {
    dir: PathBuf,
    segments: usize,
    first_segment: u32,
    groups: Vec<u32>,
    licences: Vec<u32>,
}

impl Searches<'_> {
    /// Joins `parts` (folders below the work folder) and writes the final index.
    pub fn run(&self, parts: &[(PathBuf, PartState)], key: &str) -> Result<(), PrepareError> {
        let mut joined = self.join(parts)?;
        let read_bytes: u64 = parts.iter().flat_map(|(_, part)| &part.segments).map(|segment| segment.bytes).sum();
        let passes = 1 + 2 * u64::from(self.config.paragraphs.is_some()) + u64::from(self.config.near.is_some());
        (self.observe)(&PrepareEvent::StageStarted { stage: Stage::Dedup, total_bytes: read_bytes * passes });
        let mut at = Progress { observe: self.observe, bytes: 0, rows: 0 };
        let mut index = self.dir.join("exact.idx");
        self.exact(&mut joined, &index, &mut at)?;
        if let Some(paragraphs) = &self.config.paragraphs {
            index = self.paragraphs(paragraphs, &mut joined, &index, &mut at)?;
        }
        if let Some(near) = &self.config.near {
            index = self.near(near, &mut joined, &index, &mut at)?;
        }
        self.finish(joined, &index, key)?;
        (self.observe)(&PrepareEvent::StageFinished { stage: Stage::Dedup, reused: false });
        Ok(())
    }

    fn failed(&self) -> impl FnOnce(io::Error) -> PrepareError + use<> {
        PrepareError::io(self.dir, "written")
    }

    fn join(&self, parts: &[(PathBuf, PartState)]) -> Result<Joined, PrepareError> {
        let labels =
            SpoolLabels { groups: Vec::new(), licences: Vec::new(), cutoffs: Vec::new(), segments: Vec::new() };
        let mut stats = Stats { version: STATS_VERSION, ..Stats::default() };
        let mut joined =
            Joined { labels, stats: Stats::default(), languages: Vec::new(), num_languages: 0, parts: Vec::new() };
        let (mut groups, mut licences) = (HashMap::new(), HashMap::new());
        for (dir, part) in parts {
            let first_segment = joined.labels.segments.len() as u32;
            let mut numbers = PartNumbers {
                dir: dir.clone(),
                segments: part.segments.len(),
                first_segment,
                groups: vec![],
                licences: vec![],
            };
            for (number, segment) in part.segments.iter().enumerate() {
                let path = segment_file(dir, number, "bin");
                joined.labels.segments.push((path, segment.bytes, segment.bytes_blake3.clone()));
            }
            for (group, component) in part.groups.iter().zip(&part.components) {
                let next = groups.len();
                let number = *groups.entry(group.clone()).or_insert(next);
                if number == stats.components.len() {
                    let (lang, source) = (group.lang.clone(), group.source.clone());
                    stats.components.push(ComponentStats { lang, source, ..ComponentStats::default() });
                    joined.labels.groups.push(group.clone());
                }
                if next >= MAX_COMPONENTS {
                    return Err(PrepareError::too_many_components(group));
                }
                if let Some(sum) = stats.components.get_mut(number) {
                    sum.add(component);
                }
                numbers.groups.push(number as u32);
            }
            for licence in &part.licences {
                let next = licences.len();
                let number = *licences.entry(licence.clone()).or_insert(next);
                if number == joined.labels.licences.len() {
                    joined.labels.licences.push(licence.clone());
                }
                numbers.licences.push(number as u32);
            }
            stats.quarantined += part.quarantined;
            stats.files.extend(part.files.iter().cloned());
            joined.parts.push(numbers);
        }
        joined.stats = stats;
        joined.number_languages();
        Ok(joined)
    }

    /// Leaves out documents with the key of an earlier one of their language.
    fn exact(&self, joined: &mut Joined, index: &Path, at: &mut Progress<'_>) -> Result<(), PrepareError> {
        let mut seen = SpillingKeys::new(self.config.limits.memory_mib(SEARCH_SHARE), self.dir);
        let mut out = IndexWriter::create(index)?;
        for part in std::mem::take(&mut joined.parts) {
            for segment in 0..part.segments {
                let path = segment_file(&self.root.join(&part.dir), segment, "idx");
                for entry in EntryReader::open(&path).map_err(PrepareError::io(&path, "read"))? {
                    let entry = part.translate(entry.map_err(PrepareError::io(&path, "read"))?);
                    let Some(entry) = entry else { return Err(PrepareError::changed(&path)) };
                    at.add(entry.content_len() as u64);
                    let language = joined.languages.get(entry.group as usize).copied().unwrap_or(0);
                    if self.config.dedup == Dedup::Exact && !seen.insert(language, entry.key)? {
                        joined.drop(&entry, Reason::Duplicate);
                    } else {
                        out.add(entry)?;
                    }
                }
                at.report();
                self.check_stop()?;
            }
        }
        out.finish()
    }

    /// Leaves out paragraphs that repeat, and documents of which nothing else stays.
    fn paragraphs(
        &self,
        config: &ParagraphConfig,
        joined: &mut Joined,
        index: &Path,
        at: &mut Progress<'_>,
    ) -> Result<PathBuf, PrepareError> {
        let config = ParagraphConfig { memory_mib: self.memory_mib(config.memory_mib), ..config.clone() };
        let cutter = Paragraphs::new(&config);
        let mut finder = RepeatFinder::new(&config, self.dir);
        let contents = self.contents(joined);
        self.batches(index, at, &mut |entries| {
            let keys = |entry: &Entry| {
                let text = contents.text(entry)?;
                Ok(cutter.keys(&text, joined.label(entry), &mut Default::default()))
            };
            let keys: Vec<_> = entries.par_iter().map(keys).collect::<io::Result<_>>().map_err(self.read_failed())?;
            keys.iter().try_for_each(|keys| finder.add(keys).map(|_| ())).map_err(PrepareError::from)
        })?;
        let repeats = finder.finish(self.stop)?;
        let out_path = self.dir.join("paragraphs.idx");
        let mut out = IndexWriter::create(&out_path)?;
        let mut overlay = Overlay::create(self.dir, joined.labels.segments.len() as u32)?;
        let (mut first, dir) = (0_u32, self.dir);
        self.batches(index, at, &mut |entries| {
            let edit = |(number, entry): (usize, &Entry)| -> Result<Edited, PrepareError> {
                let gone = repeats.of(first + number as u32)?;
                if gone.is_empty() {
                    return Ok(Edited::Same);
                }
                let content = contents.read(entry).map_err(PrepareError::io(dir, "read"))?;
                Ok(Edited::of(entry, &content, &gone, &cutter))
            };
            let edited: Vec<_> = entries.par_iter().enumerate().map(|(n, e)| edit((n, e))).collect();
            first += entries.len() as u32;
            for (entry, edited) in entries.iter().zip(edited) {
                match edited? {
                    Edited::Same => out.add(*entry)?,
                    Edited::Gone => joined.drop(entry, Reason::Judged("repeated_paragraphs".into())),
                    Edited::Changed(changed, content, removed) => {
                        joined.applied(entry, "dedup:repeated_paragraph", removed);
                        out.add(overlay.add(changed, &content)?)?;
                    }
                }
            }
            Ok(())
        })?;
        out.finish()?;
        joined.labels.segments.push(overlay.finish(self.root)?);
        Ok(out_path)
    }

    /// Leaves out near duplicates.
    fn near(
        &self,
        config: &NearConfig,
        joined: &mut Joined,
        index: &Path,
        at: &mut Progress<'_>,
    ) -> Result<PathBuf, PrepareError> {
        let config = NearConfig { memory_mib: self.memory_mib(config.memory_mib), ..config.clone() };
        let signer = Signer::new(&config);
        let mut clusterer = Clusterer::create(&config, self.dir)?;
        let contents = self.contents(joined);
        self.batches(index, at, &mut |entries| {
            let sign = |entry: &Entry| {
                let text = contents.text(entry)?;
                Ok(signer.sign(&text, joined.label(entry), &mut Default::default()))
            };
            let signatures: Vec<_> =
                entries.par_iter().map(sign).collect::<io::Result<_>>().map_err(self.read_failed())?;
            signatures.iter().try_for_each(|signature| clusterer.add(signature).map(|_| ())).map_err(PrepareError::from)
        })?;
        let clusters = clusterer.finish(&|_, _| (), self.stop)?;
        self.without_near(&clusters, joined, index)
    }

    fn without_near(&self, clusters: &Clusters, joined: &mut Joined, index: &Path) -> Result<PathBuf, PrepareError> {
        let out_path = self.dir.join("near.idx");
        let mut out = IndexWriter::create(&out_path)?;
        let list_path = self.dir.join(NEAR_DUPLICATES_FILE);
        let mut list = BufWriter::new(File::create(&list_path).map_err(self.failed())?);
        let all = File::open(index).map_err(self.read_failed())?;
        let entries = EntryReader::open(index).map_err(self.read_failed())?;
        for (entry, number) in entries.zip(0_u32..) {
            let entry = entry.map_err(self.read_failed())?;
            let Some(kept) = clusters.duplicate_of(number) else {
                out.add(entry)?;
                continue;
            };
            joined.drop(&entry, Reason::Judged("near_duplicate".into()));
            let mut bytes = [0; ENTRY_BYTES];
            all.read_exact_at(&mut bytes, u64::from(kept) * ENTRY_BYTES as u64).map_err(self.read_failed())?;
            let (id, kept) = (id_to_hex(&entry.id), Entry::from_bytes(&bytes));
            let Group { lang, source } = joined.group(&entry);
            let line = serde_json::json!({"id": id, "lang": lang, "source": source, "kept": id_to_hex(&kept.id)});
            writeln!(list, "{line}").map_err(self.failed())?;
        }
        list.flush().and_then(|()| list.get_ref().sync_all()).map_err(self.failed())?;
        out.finish()?;
        Ok(out_path)
    }

    /// Counts what is kept, decides what is held out, and writes the final index.
    fn finish(&self, mut joined: Joined, index: &Path, key: &str) -> Result<(), PrepareError> {
        let mut splits: Vec<SplitCount> =
            (0..joined.num_languages).map(|_| SplitCount::new(&self.config.validation)).collect();
        let mut writer = SpoolWriter::create(self.dir).map_err(self.failed())?;
        let mut licence_words = vec![(0, 0); joined.labels.licences.len()];
        for entry in EntryReader::open(index).map_err(self.read_failed())? {
            let entry = entry.map_err(self.read_failed())?;
            let language = joined.languages.get(entry.group as usize).copied().unwrap_or(0);
            if let Some(split) = splits.get_mut(language) {
                split.add(entry.split);
            }
            if let Some((documents, words)) = licence_words.get_mut(entry.licence as usize) {
                *documents += 1;
                *words += u64::from(entry.words);
            }
            joined.keep(&entry);
            writer.add(entry).map_err(self.failed())?;
        }
        let Joined { mut labels, mut stats, languages, .. } = joined;
        for (name, (documents, words)) in labels.licences.iter().zip(licence_words) {
            if documents > 0 {
                let tally = stats.licences.entry(name.clone()).or_default();
                (tally.documents, tally.words) = (documents, words);
            }
        }
        stats.sum();
        for (file, input) in stats.files.iter().zip(self.files) {
            if file.rows > 0 && file.documents == 0 {
                let path = input.path.display();
                let text = format!("{path}: none of its {} rows was kept", file.rows);
                (self.observe)(&PrepareEvent::Warning(text));
            }
        }
        if stats.total.documents == 0 {
            return Err(PrepareError::NothingLeft { rows: stats.total.rows, dropped: stats.total.dropped });
        }
        stats.reconcile().map_err(|what| PrepareError::Unreconciled { what })?;
        let cutoffs: Vec<Option<u64>> = splits.into_iter().map(SplitCount::cutoff).collect();
        labels.cutoffs = languages.iter().map(|&language| cutoffs.get(language).copied().flatten()).collect();
        writer.finish(key.to_owned(), labels, stats).map_err(self.failed())?;
        for name in ["exact.idx", "paragraphs.idx", "near.idx"] {
            // They have done their work; one that stays costs disk and nothing else.
            _ = std::fs::remove_file(self.dir.join(name));
        }
        Ok(())
    }

    /// Hands out the entries of an index in batches.
    fn batches(
        &self,
        index: &Path,
        at: &mut Progress<'_>,
        each: &mut dyn FnMut(&[Entry]) -> Result<(), PrepareError>,
    ) -> Result<(), PrepareError> {
        let mut entries = EntryReader::open(index).map_err(self.read_failed())?;
        loop {
            let (mut batch, mut bytes) = (Vec::new(), 0);
            while bytes < BATCH_BYTES && batch.len() < BATCH_DOCUMENTS {
                let Some(entry) = entries.next().transpose().map_err(self.read_failed())? else { break };
                bytes += entry.content_len() as u64;
                batch.push(entry);
            }
            if batch.is_empty() {
                return Ok(());
            }
            self.check_stop()?;
            each(&batch)?;
            at.bytes += bytes;
            at.rows += batch.len() as u64;
            at.report();
        }
    }

    fn contents(&self, joined: &Joined) -> Contents {
        Contents::new(self.root, joined.labels.segments.clone())
    }

    fn read_failed(&self) -> impl FnOnce(io::Error) -> PrepareError + use<> {
        PrepareError::io(self.dir, "read")
    }

    fn memory_mib(&self, asked: usize) -> usize {
        asked.min(self.config.limits.memory_mib(SEARCH_SHARE))
    }

    fn check_stop(&self) -> Result<(), PrepareError> {
        let stopped = self.stop.load(Ordering::Relaxed);
        if stopped { Err(PrepareError::Interrupted { stage: Stage::Dedup.name() }) } else { Ok(()) }
    }
}

impl PartNumbers {
    /// An entry in the numbers of the whole; `None` when it names what its part does not have.
    fn translate(&self, entry: Entry) -> Option<Entry> {
        let group = *self.groups.get(entry.group as usize)?;
        let licence = *self.licences.get(entry.licence as usize)?;
        Some(Entry { group, licence, segment: self.first_segment + entry.segment, ..entry })
    }
}

impl Joined {
    /// Numbers the languages in the order of their first group.
    fn number_languages(&mut self) {
        let mut numbers = HashMap::new();
        for group in &self.labels.groups {
            let next = numbers.len();
            self.languages.push(*numbers.entry(group.lang.clone()).or_insert(next));
        }
        self.num_languages = numbers.len();
    }

    fn group(&self, entry: &Entry) -> Group {
        let unknown = || Group { lang: String::new(), source: String::new() };
        self.labels.groups.get(entry.group as usize).cloned().unwrap_or_else(unknown)
    }

    fn label(&self, entry: &Entry) -> &str {
        self.labels.groups.get(entry.group as usize).map_or("", |group| group.lang.as_str())
    }

    fn drop(&mut self, entry: &Entry, reason: Reason) {
        if let Some(component) = self.stats.components.get_mut(entry.group as usize) {
            *component.tally.dropped.entry(reason.to_string()).or_default() += 1;
        }
    }

    fn applied(&mut self, entry: &Entry, rule: &str, count: u64) {
        if let Some(component) = self.stats.components.get_mut(entry.group as usize) {
            *component.applied.entry(rule.to_owned()).or_default() += count;
        }
    }

    fn keep(&mut self, entry: &Entry) {
        if let Some(file) = self.stats.files.get_mut(entry.file as usize) {
            file.documents += 1;
        }
        let licence = self.labels.licences.get(entry.licence as usize);
        let (Some(component), Some(licence)) = (self.stats.components.get_mut(entry.group as usize), licence) else {
            return;
        };
        component.tally.documents += 1;
        component.tally.bytes += u64::from(entry.text_len);
        component.tally.words += u64::from(entry.words);
        match component.licences.get_mut(licence.as_str()) {
            Some(count) => *count += 1,
            None => _ = component.licences.insert(licence.clone(), 1),
        }
    }
}

/// What the removal of paragraphs makes of a document.
enum Edited {
    Same,
    Gone,
    /// The new entry, its content, and how many paragraphs went.
    Changed(Entry, Vec<u8>, u64),
}

impl Edited {
    fn of(entry: &Entry, content: &[u8], gone: &[u32], cutter: &Paragraphs) -> Edited {
        let (url, rest) = content.split_at_checked(entry.url_len as usize).unwrap_or((content, &[]));
        let (text, notes) = rest.split_at_checked(entry.text_len as usize).unwrap_or((rest, &[]));
        let Some(text) = cutter.without(&String::from_utf8_lossy(text), gone) else { return Edited::Gone };
        let words = u32::try_from(count_words(&text)).unwrap_or(u32::MAX);
        // It can only have become shorter.
        let entry = Entry { text_len: text.len() as u32, words, ..*entry };
        Edited::Changed(entry, [url, text.as_bytes(), notes].concat(), gone.len() as u64)
    }
}

/// Texts that were changed after reading.
struct Overlay {
    path: PathBuf,
    segment: u32,
    file: BufWriter<File>,
    hasher: blake3::Hasher,
    len: u64,
}

impl Overlay {
    fn create(dir: &Path, segment: u32) -> Result<Overlay, PrepareError> {
        let path = dir.join("changed.bin");
        let file = BufWriter::with_capacity(1 << 20, File::create(&path).map_err(PrepareError::io(&path, "created"))?);
        Ok(Overlay { path, segment, file, hasher: blake3::Hasher::new(), len: 0 })
    }

    fn add(&mut self, entry: Entry, content: &[u8]) -> Result<Entry, PrepareError> {
        let entry = Entry { segment: self.segment, offset: self.len, ..entry };
        self.hasher.update(content);
        self.len += content.len() as u64;
        self.file.write_all(content).map_err(PrepareError::io(&self.path, "written"))?;
        Ok(entry)
    }

    fn finish(mut self, root: &Path) -> Result<(PathBuf, u64, String), PrepareError> {
        let written = self.file.flush().and_then(|()| self.file.get_ref().sync_all());
        written.map_err(PrepareError::io(&self.path, "written"))?;
        let below = self.path.strip_prefix(root).unwrap_or(&self.path).to_owned();
        Ok((below, self.len, self.hasher.finalize().to_hex().to_string()))
    }
}

/// An index between two searches.
struct IndexWriter {
    path: PathBuf,
    file: BufWriter<File>,
}

impl IndexWriter {
    fn create(path: &Path) -> Result<IndexWriter, PrepareError> {
        let file = File::create(path).map_err(PrepareError::io(path, "created"))?;
        Ok(IndexWriter { path: path.to_owned(), file: BufWriter::with_capacity(1 << 20, file) })
    }

    fn add(&mut self, entry: Entry) -> Result<(), PrepareError> {
        self.file.write_all(&entry.to_bytes()).map_err(PrepareError::io(&self.path, "written"))
    }

    fn finish(mut self) -> Result<(), PrepareError> {
        self.file.flush().map_err(PrepareError::io(&self.path, "written"))
    }
}

/// How far the searches have come.
struct Progress<'a> {
    observe: Observer<'a>,
    bytes: u64,
    rows: u64,
}

impl Progress<'_> {
    fn add(&mut self, bytes: u64) {
        self.bytes += bytes;
        self.rows += 1;
    }

    fn report(&self) {
        (self.observe)(&PrepareEvent::Progress { stage: Stage::Dedup, bytes: self.bytes, rows: self.rows });
    }
}
