//! Owns the reading stage: chunks of a part's files judged in parallel and gathered in file order, so that a crash costs
//! no more than what was read since the last commit; never tokenises or compares documents.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use super::admit::{Admission, Admitted, AdmittedDocument, BadRecord, Labels, QuarantineEntry};
use super::curate::Curation;
use super::error::PrepareError;
use super::event::{Observer, PrepareEvent, Stage};
use crate::config::{OnDamage, PrepareConfig};
use crate::licence::LicenceGate;
use crate::opt_out::OptOuts;
use crate::rounds::{Reading, Step, read_all};
use crate::source::discover::InputFile;
use crate::source::{Chunk, FileEnd, Place, Reason, SourceError};
use crate::spool::{Entry, Group, Next, PartState, PartWriter};
use crate::stats::{ComponentStats, FileStats};

/// Pairs of language and source at most.
pub(crate) const MAX_COMPONENTS: usize = 10_000;
/// Share of the allowed memory that the rows of a round may take. Three rounds and what is made of them are held at once.
const ROUND_SHARE: u64 = 16;

/// What reading needs to know.
pub(super) struct Reader<'a> {
    pub config: &'a PrepareConfig,
    pub files: &'a [InputFile],
    pub admission: Admission<'a>,
    pub key: &'a str,
    pub observe: Observer<'a>,
    pub stop: &'a AtomicBool,
}

impl<'a> Reader<'a> {
    pub fn new(
        config: &'a PrepareConfig,
        files: &'a [InputFile],
        curation: &'a Curation,
        key: &'a str,
        observe: Observer<'a>,
        stop: &'a AtomicBool,
    ) -> Result<Reader<'a>, PrepareError> {
        let admission = Admission {
            files,
            normalize: config.normalize,
            gate: LicenceGate::new(&config.allow_licences, config.non_commercial),
            opt_outs: OptOuts::open(&config.opt_outs.clone().unwrap_or_default())?,
            max_record_bytes: config.limits.max_record_bytes,
            roles: config.chat.clone().unwrap_or_default().roles(),
            curation: Some(curation),
        };
        Ok(Reader { config, files, admission, key, observe, stop })
    }

    /// Reads the files of `range` into the part in `dir`, going on where an earlier run was cut off.
    pub fn part(&self, range: Range<usize>, dir: &Path) -> Result<PartState, PrepareError> {
        let failed = || PrepareError::io(dir, "written");
        let mut writer = PartWriter::open(dir, self.key).map_err(failed())?;
        if writer.state.done {
            return Ok(writer.state);
        }
        if writer.state.files.is_empty() {
            let named =
                |file: &InputFile| FileStats { file: file.label.clone(), entry: file.entry, ..FileStats::default() };
            writer.state.files = self.files.get(range.clone()).unwrap_or_default().iter().map(named).collect();
            writer.state.next = Next { file: range.start, row: 1 };
        }
        let next = writer.state.next;
        let limits = &self.config.limits;
        let checkpoint = limits.checkpoint_bytes;
        let round_bytes = usize::try_from(checkpoint.min(limits.max_memory_bytes / ROUND_SHARE)).unwrap_or(usize::MAX);
        let (files, range) = (self.files, next.file..range.end);
        let first_file = range.end - writer.state.files.len();
        let reading = Reading { files, limits, range, first_row: next.row, round_bytes };
        let mut collector = Collector::new(self, writer, dir, first_file);
        let admission = &self.admission;
        let judge = |file: usize, chunk: &Chunk| (admission.judge(file, chunk), chunk.next_row(), chunk.len_bytes());
        read_all(&reading, self.stop, &judge, &mut |step| match step {
            Step::Chunk((admitted, next_row, bytes)) => {
                collector.since_commit += bytes as u64;
                // A chunk may hold no row at all (web records that are no pages): then reading goes on where it was.
                let before = collector.writer.state.next;
                let row = if before.file == admitted.file { next_row.max(before.row) } else { next_row.max(1) };
                collector.writer.state.next = Next { file: admitted.file, row };
                collector.chunk(admitted)
            }
            Step::End(end) => {
                collector.writer.state.next = Next { file: end.file + 1, row: 1 };
                collector.end(end)
            }
            Step::Position(bytes) => {
                let rows = collector.writer.state.files.iter().map(|file| file.rows).sum();
                (self.observe)(&PrepareEvent::Progress { stage: Stage::Read, bytes, rows });
                if collector.since_commit.max(collector.writer.uncommitted()) >= checkpoint {
                    collector.since_commit = 0;
                    collector.writer.commit().map_err(failed())?;
                }
                Ok::<(), PrepareError>(())
            }
        })?;
        collector.writer.finish().map_err(failed())
    }
}

/// Gathers judged chunks: numbers groups and licences, counts, writes.
struct Collector<'a> {
    reader: &'a Reader<'a>,
    writer: PartWriter,
    dir: &'a Path,
    /// Number of the part's first file among all.
    first_file: usize,
    groups: HashMap<Group, usize>,
    licences: HashMap<String, usize>,
    /// Bytes of rows judged since the last commit.
    since_commit: u64,
}

/// The numbers that a chunk's labels have in the part.
#[derive(Clone, Copy)]
struct Numbers {
    group: usize,
    licence: usize,
}

impl<'a> Collector<'a> {
    fn new(reader: &'a Reader<'a>, writer: PartWriter, dir: &'a Path, first_file: usize) -> Self {
        let groups = writer.state.groups.iter().cloned().zip(0..).collect();
        let licences = writer.state.licences.iter().cloned().zip(0..).collect();
        Collector { reader, writer, dir, first_file, groups, licences, since_commit: 0 }
    }

    fn chunk(&mut self, admitted: Admitted) -> Result<(), PrepareError> {
        let inputs = self.reader.files;
        refuse_bad_record(inputs, &admitted)?;
        if let Some(refusal) = admitted.refusal {
            let file = inputs.get(admitted.file).map(|file| file.path.clone()).unwrap_or_default();
            let Place { row, .. } = refusal.place;
            let (source_name, licence) = (refusal.source, refusal.licence);
            return Err(PrepareError::NonCommercial { file, place: format!("row {row}"), source_name, licence });
        }
        let numbers = admitted.labels.iter().map(|labels| self.number(labels)).collect::<Result<Vec<_>, _>>()?;
        let mut rows = 0;
        for (labels, numbers) in admitted.labels.iter().zip(&numbers) {
            rows += labels.rows;
            if let Some(component) = self.writer.state.components.get_mut(numbers.group) {
                component.tally.rows += labels.rows;
                for (reason, count) in &labels.dropped {
                    *component.tally.dropped.entry(reason.to_string()).or_default() += count;
                }
                for (rule, count) in &labels.applied {
                    *component.applied.entry(rule.clone()).or_default() += count;
                }
            }
        }
        for entry in &admitted.quarantine {
            self.record(entry)?;
        }
        self.writer.state.audit.merge(admitted.audit);
        self.writer.hits(&admitted.hits).map_err(PrepareError::io(self.dir, "written"))?;
        let mut rest = admitted.content.as_slice();
        for document in &admitted.documents {
            let length = document.content_len();
            let (content, tail) = rest.split_at_checked(length).unwrap_or((rest, &[]));
            rest = tail;
            let Some(&numbers) = numbers.get(document.labels) else { continue };
            self.document(admitted.file, document, numbers, content)?;
        }
        if let Some(file) = self.writer.state.files.get_mut(admitted.file - self.first_file) {
            file.rows += rows;
        }
        Ok(())
    }

    fn document(
        &mut self,
        file: usize,
        document: &AdmittedDocument,
        numbers: Numbers,
        content: &[u8],
    ) -> Result<(), PrepareError> {
        let entry = Entry {
            offset: 0,
            segment: 0,
            id: document.id,
            split: document.digest.split,
            key: document.digest.key,
            group: numbers.group as u32,
            licence: numbers.licence as u32,
            file: file as u32,
            url_len: document.url_len,
            text_len: document.text_len,
            notes_len: document.notes_len,
            words: document.words,
        };
        self.writer.add(entry, content).map_err(PrepareError::io(self.dir, "written"))
    }

    fn number(&mut self, labels: &Labels) -> Result<Numbers, PrepareError> {
        let state = &mut self.writer.state;
        let group = Group { lang: labels.lang.clone(), source: labels.source.clone() };
        let next = self.groups.len();
        if next >= MAX_COMPONENTS && !self.groups.contains_key(&group) {
            return Err(PrepareError::too_many_components(&group));
        }
        let group = *self.groups.entry(group).or_insert_with_key(|group| {
            state.groups.push(group.clone());
            let (lang, source) = (group.lang.clone(), group.source.clone());
            state.components.push(ComponentStats { lang, source, ..ComponentStats::default() });
            next
        });
        let next = self.licences.len();
        let licence = *self.licences.entry(labels.licence.clone()).or_insert_with_key(|licence| {
            state.licences.push(licence.clone());
            next
        });
        Ok(Numbers { group, licence })
    }

    fn record(&mut self, entry: &QuarantineEntry) -> Result<(), PrepareError> {
        let line = serde_json::to_vec(entry).map_err(std::io::Error::from);
        line.and_then(|line| self.writer.quarantine(&line)).map_err(PrepareError::io(self.dir, "written"))
    }

    fn end(&mut self, end: FileEnd) -> Result<(), PrepareError> {
        let (files, observe) = (self.reader.files, self.reader.observe);
        let number = end.file - self.first_file;
        let (Some(input), Some(file)) = (files.get(end.file), self.writer.state.files.get_mut(number)) else {
            return Ok(());
        };
        if end.stored.bytes != input.bytes {
            return Err(PrepareError::InputChanged { path: input.path.clone() });
        }
        file.bytes = end.stored.bytes;
        file.blake3 = end.stored.blake3;
        file.encoding = end.encoding.map(|encoding| encoding.name().to_owned());
        if let Some(encoding) = &file.encoding {
            let text = format!("{}: read as {encoding}; write `encoding:` if it is another", input.path.display());
            (self.reader.observe)(&PrepareEvent::Warning(text));
        }
        let Some(damage) = end.damage else { return Ok(()) };
        let damage = match damage {
            SourceError::Damaged { path, byte, what, .. } => SourceError::Damaged { path, byte, what, rows: file.rows },
            other => return Err(other.into()),
        };
        if self.reader.config.on_damage == OnDamage::Error {
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
    let opt_outs = OptOuts::open(&config.opt_outs.clone().unwrap_or_default())?;
    let normalize = config.normalize;
    let admission = Admission { files, normalize, gate, opt_outs, max_record_bytes, roles, curation: None };
    let mut found = BTreeMap::new();
    let judge = |file: usize, chunk: &Chunk| admission.judge(file, chunk);
    read_all(&Reading::all(files, &config.limits), stop, &judge, &mut |step| {
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
