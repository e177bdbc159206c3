//! Owns the reading stage: chunks of all files judged in parallel and gathered in file order; never tokenises.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::atomic::AtomicBool;

use super::admit::{Admission, Admitted, BadRecord, Labels, QuarantineEntry};
use super::error::PrepareError;
use super::event::{Observer, PrepareEvent, Stage};
use crate::config::{OnDamage, PrepareConfig};
use crate::dedup::{Dedup, SeenKeys};
use crate::licence::LicenceGate;
use crate::rounds::{Step, read_all};
use crate::source::discover::InputFile;
use crate::source::{FileEnd, Place, Reason, SourceError};
use crate::split::SplitCount;
use crate::spool::{Entry, Group, SpoolWriter};
use crate::stats::{ComponentStats, FileStats, STATS_VERSION, Stats};

/// Pairs of language and source at most.
pub(crate) const MAX_COMPONENTS: usize = 10_000;
/// File name of the quarantine inside a dataset.
pub const QUARANTINE_FILE: &str = "quarantine.jsonl";

/// Reads the inputs of `config` into a spool at `dir`.
pub(crate) fn ingest(
    config: &PrepareConfig,
    files: &[InputFile],
    key: &str,
    dir: &Path,
    observe: Observer<'_>,
    stop: &AtomicBool,
) -> Result<(), PrepareError> {
    let admission = Admission {
        files,
        normalize: config.normalize,
        gate: LicenceGate::new(&config.allow_licences, config.non_commercial),
        max_record_bytes: config.limits.max_record_bytes,
        roles: config.chat.clone().unwrap_or_default().roles(),
    };
    let mut collector = Collector::create(config, files, dir)?;
    let judge = |file: usize, chunk: &_| admission.judge(file, chunk);
    read_all(files, &config.limits, stop, &judge, &mut |step| match step {
        Step::Chunk(admitted) => collector.chunk(admitted),
        Step::End(end) => collector.end(end, observe),
        Step::Position(bytes) => {
            let rows = collector.files.iter().map(|file| file.rows).sum();
            observe(&PrepareEvent::Progress { stage: Stage::Read, bytes, rows });
            Ok::<(), PrepareError>(())
        }
    })?;
    collector.finish(key, dir)
}

/// Gathers judged chunks: numbers groups and licences, removes duplicates, counts, writes.
struct Collector<'a> {
    config: &'a PrepareConfig,
    inputs: &'a [InputFile],
    spool: SpoolWriter,
    dir: &'a Path,
    quarantine: BufWriter<File>,
    quarantined: u64,
    languages: HashMap<String, usize>,
    splits: Vec<SplitCount>,
    groups: HashMap<Group, usize>,
    components: Vec<ComponentStats>,
    licences: Vec<(String, u64)>,
    licence_numbers: HashMap<String, usize>,
    licence_words: Vec<u64>,
    seen: SeenKeys,
    files: Vec<FileStats>,
}

/// The numbers that a chunk's labels have in the whole run.
#[derive(Clone, Copy)]
struct Numbers {
    group: usize,
    language: usize,
    licence: usize,
}

impl<'a> Collector<'a> {
    fn create(config: &'a PrepareConfig, inputs: &'a [InputFile], dir: &'a Path) -> Result<Self, PrepareError> {
        let path = dir.join(QUARANTINE_FILE);
        let quarantine = File::create(&path).map_err(PrepareError::io(&path, "created"))?;
        Ok(Collector {
            config,
            inputs,
            spool: SpoolWriter::create(dir).map_err(PrepareError::io(dir, "written"))?,
            dir,
            quarantine: BufWriter::new(quarantine),
            quarantined: 0,
            languages: HashMap::new(),
            splits: Vec::new(),
            groups: HashMap::new(),
            components: Vec::new(),
            licences: Vec::new(),
            licence_numbers: HashMap::new(),
            licence_words: Vec::new(),
            seen: SeenKeys::default(),
            files: inputs.iter().map(|file| FileStats { file: file.label.clone(), ..FileStats::default() }).collect(),
        })
    }

    fn chunk(&mut self, admitted: Admitted) -> Result<(), PrepareError> {
        refuse_bad_record(self.inputs, &admitted)?;
        if let Some(refusal) = admitted.refusal {
            let file = self.inputs.get(admitted.file).map(|file| file.path.clone()).unwrap_or_default();
            let Place { row, .. } = refusal.place;
            let (source_name, licence) = (refusal.source, refusal.licence);
            return Err(PrepareError::NonCommercial { file, place: format!("row {row}"), source_name, licence });
        }
        let numbers = admitted.labels.iter().map(|labels| self.number(labels)).collect::<Result<Vec<_>, _>>()?;
        let mut rows = 0;
        for (labels, numbers) in admitted.labels.iter().zip(&numbers) {
            rows += labels.rows;
            if let Some(component) = self.components.get_mut(numbers.group) {
                component.tally.rows += labels.rows;
                for (reason, count) in &labels.dropped {
                    *component.tally.dropped.entry(reason.to_string()).or_default() += count;
                }
            }
        }
        for entry in &admitted.quarantine {
            self.record(entry)?;
        }
        let mut documents = 0;
        let mut rest = admitted.content.as_slice();
        for document in &admitted.documents {
            let length = document.url_len as usize + document.text_len as usize;
            let (content, tail) = rest.split_at_checked(length).unwrap_or((rest, &[]));
            rest = tail;
            let Some(&numbers) = numbers.get(document.labels) else { continue };
            documents += u64::from(self.document(document, numbers, content)?);
        }
        if let Some(file) = self.files.get_mut(admitted.file) {
            file.rows += rows;
            file.documents += documents;
        }
        Ok(())
    }

    /// Keeps a document, or counts it as a duplicate and returns false.
    fn document(
        &mut self,
        document: &super::admit::AdmittedDocument,
        numbers: Numbers,
        content: &[u8],
    ) -> Result<bool, PrepareError> {
        let Some(component) = self.components.get_mut(numbers.group) else { return Ok(false) };
        if self.config.dedup == Dedup::Exact && !self.seen.insert(numbers.language, document.digest.key) {
            *component.tally.dropped.entry(Reason::Duplicate.to_string()).or_default() += 1;
            return Ok(false);
        }
        if let Some(split) = self.splits.get_mut(numbers.language) {
            split.add(document.digest.split);
        }
        component.tally.documents += 1;
        component.tally.bytes += u64::from(document.text_len);
        component.tally.words += document.words;
        if let (Some((name, count)), Some(words)) =
            (self.licences.get_mut(numbers.licence), self.licence_words.get_mut(numbers.licence))
        {
            *count += 1;
            *words += document.words;
            match component.licences.get_mut(name.as_str()) {
                Some(count) => *count += 1,
                None => _ = component.licences.insert(name.clone(), 1),
            }
        }
        let entry = Entry {
            offset: 0,
            id: document.id,
            split: document.digest.split,
            group: numbers.group as u32,
            licence: numbers.licence as u32,
            url_len: document.url_len,
            text_len: document.text_len,
        };
        self.spool.add(entry, content).map_err(PrepareError::io(self.dir, "written"))?;
        Ok(true)
    }

    fn number(&mut self, labels: &Labels) -> Result<Numbers, PrepareError> {
        let next = self.languages.len();
        let language = *self.languages.entry(labels.lang.clone()).or_insert(next);
        if language == self.splits.len() {
            self.splits.push(SplitCount::new(&self.config.validation));
        }
        let group = Group { lang: labels.lang.clone(), source: labels.source.clone() };
        let next = self.groups.len();
        if next >= MAX_COMPONENTS && !self.groups.contains_key(&group) {
            let example = format!("{}/{}", group.lang, group.source);
            return Err(PrepareError::TooManyComponents { limit: MAX_COMPONENTS, example });
        }
        let group = *self.groups.entry(group).or_insert(next);
        if group == self.components.len() {
            let (lang, source) = (labels.lang.clone(), labels.source.clone());
            self.components.push(ComponentStats { lang, source, ..ComponentStats::default() });
        }
        let next = self.licence_numbers.len();
        let licence = *self.licence_numbers.entry(labels.licence.clone()).or_insert(next);
        if licence == self.licences.len() {
            self.licences.push((labels.licence.clone(), 0));
            self.licence_words.push(0);
        }
        Ok(Numbers { group, language, licence })
    }

    fn record(&mut self, entry: &QuarantineEntry) -> Result<(), PrepareError> {
        let failed = PrepareError::io(self.dir, "written");
        self.quarantined += 1;
        let line = serde_json::to_vec(entry).map_err(std::io::Error::from);
        line.and_then(|line| {
            self.quarantine.write_all(&line)?;
            self.quarantine.write_all(b"\n")
        })
        .map_err(failed)
    }

    fn end(&mut self, end: FileEnd, observe: Observer<'_>) -> Result<(), PrepareError> {
        let (Some(input), Some(file)) = (self.inputs.get(end.file), self.files.get_mut(end.file)) else {
            return Ok(());
        };
        if end.stored.bytes != input.bytes {
            return Err(PrepareError::InputChanged { path: input.path.clone() });
        }
        file.bytes = end.stored.bytes;
        file.blake3 = end.stored.blake3;
        file.entry = input.entry;
        if file.rows > 0 && file.documents == 0 {
            let path = input.path.display();
            observe(&PrepareEvent::Warning(format!("{path}: none of its {} rows was kept", file.rows)));
        }
        let Some(damage) = end.damage else { return Ok(()) };
        let damage = match damage {
            SourceError::Damaged { path, byte, what, .. } => SourceError::Damaged { path, byte, what, rows: file.rows },
            other => return Err(other.into()),
        };
        if self.config.on_damage == OnDamage::Error {
            return Err(damage.into());
        }
        let what = match &damage {
            SourceError::Damaged { byte, what, .. } => format!("at or before byte {byte}: {what}"),
            other => other.to_string(),
        };
        file.damage = Some(what.clone());
        observe(&PrepareEvent::Warning(format!("{}: damaged {what}; its whole rows were kept", input.path.display())));
        let label = input.label.clone();
        self.record(&QuarantineEntry {
            file: label,
            row: 0,
            byte: None,
            reason: Reason::Damaged.to_string(),
            excerpt: what,
        })
    }

    fn finish(mut self, key: &str, dir: &Path) -> Result<(), PrepareError> {
        let failed = || PrepareError::io(dir, "written");
        self.quarantine.flush().and_then(|()| self.quarantine.get_ref().sync_all()).map_err(failed())?;
        let mut stats = Stats {
            version: STATS_VERSION,
            quarantined: self.quarantined,
            components: self.components,
            files: self.files,
            ..Stats::default()
        };
        for ((name, documents), words) in self.licences.iter().zip(&self.licence_words) {
            if *documents > 0 {
                let tally = stats.licences.entry(name.clone()).or_default();
                tally.documents = *documents;
                tally.words = *words;
            }
        }
        stats.sum();
        if stats.total.documents == 0 {
            return Err(PrepareError::NothingLeft { rows: stats.total.rows, dropped: stats.total.dropped });
        }
        stats.reconcile().map_err(|what| PrepareError::Unreconciled { what })?;
        let cutoffs: Vec<Option<u64>> = self.splits.into_iter().map(SplitCount::cutoff).collect();
        let mut groups: Vec<(Group, usize)> = self.groups.into_iter().collect();
        groups.sort_by_key(|(_, number)| *number);
        let of_group = |group: &Group| {
            self.languages.get(&group.lang).and_then(|&language| cutoffs.get(language)).copied().flatten()
        };
        let cutoffs: Vec<Option<u64>> = groups.iter().map(|(group, _)| of_group(group)).collect();
        let groups = groups.into_iter().map(|(group, _)| group).collect();
        let licences = self.licences.into_iter().map(|(name, _)| name).collect();
        self.spool.finish(key.to_owned(), groups, licences, cutoffs, stats).map_err(failed())
    }
}

/// Ends a preparation of chats at the first record that is none.
fn refuse_bad_record(inputs: &[InputFile], admitted: &Admitted) -> Result<(), PrepareError> {
    let Some(BadRecord { place, id, problem }) = &admitted.bad_record else { return Ok(()) };
    let file = inputs.get(admitted.file).map(|file| file.path.clone()).unwrap_or_default();
    let byte = place.byte.map(|byte| format!(" (byte {byte})")).unwrap_or_default();
    let id = id.as_ref().map(|id| format!(", id `{id}`")).unwrap_or_default();
    let place = format!("row {}{byte}{id}", place.row);
    Err(PrepareError::Record { file, place, problem: problem.clone() })
}

/// Licences that the files name, with the number of rows: read before anything is decided, written nowhere.
pub(crate) fn survey(
    config: &PrepareConfig,
    files: &[InputFile],
    stop: &AtomicBool,
) -> Result<BTreeMap<String, u64>, PrepareError> {
    let gate = LicenceGate::new(&["*".to_owned()], true);
    let max_record_bytes = config.limits.max_record_bytes;
    let roles = config.chat.clone().unwrap_or_default().roles();
    let admission = Admission { files, normalize: config.normalize, gate, max_record_bytes, roles };
    let mut found = BTreeMap::new();
    let judge = |file: usize, chunk: &_| admission.judge(file, chunk);
    read_all(files, &config.limits, stop, &judge, &mut |step| {
        if let Step::Chunk(admitted) = step {
            refuse_bad_record(files, &admitted)?;
            for document in &admitted.documents {
                if let Some(labels) = admitted.labels.get(document.labels) {
                    *found.entry(labels.licence.clone()).or_default() += 1;
                }
            }
        }
        Ok::<(), PrepareError>(())
    })?;
    Ok(found)
}
