//! Owns the gates of one chunk: rows in, documents, tallies and quarantine entries out; never writes, and knows nothing
//! of other chunks, so chunks are judged in parallel.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use serde::Serialize;

use super::curate::{Applied, Curation};
use crate::chat::{RecordError, RecordKind, Role, record};
use crate::config::is_source_name;
use crate::dedup::KeyDigest;
use crate::document::{DOCUMENT_ID_BYTES, Notes, document_id, id_to_hex, language_label};
use crate::licence::{LicenceGate, Verdict};
use crate::normalize::Normalize;
use crate::opt_out::{Candidate, MarkerKind, OptOuts};
use crate::pii::AuditSample;
use crate::source::discover::InputFile;
use crate::source::{Chunk, Fields, Place, Reason, Reject, RowChunk, Slot, Value, excerpt, lines, parse_line};
use crate::stats::count_words;

/// Language label of records that could not be read far enough to know.
pub(crate) const UNKNOWN_LANGUAGE: &str = "und_Zzzz";
/// Licence name of rows without one.
const MISSING_LICENCE: &str = "missing";

/// The rules, shared by all chunks.
pub(crate) struct Admission<'a> {
    pub files: &'a [InputFile],
    pub normalize: Normalize,
    pub gate: LicenceGate,
    pub opt_outs: OptOuts,
    pub max_record_bytes: u64,
    /// Whose words of chats are learned.
    pub roles: Vec<Role>,
    /// What is done to texts beyond their normal form.
    pub curation: Option<&'a Curation>,
}

/// What the rows of a chunk have in common: one entry each combination of labels seen.
#[derive(Debug)]
pub(crate) struct Labels {
    pub lang: String,
    pub source: String,
    pub licence: String,
    pub rows: u64,
    pub dropped: BTreeMap<Reason, u64>,
    /// How often each rule of a stage fired.
    pub applied: BTreeMap<String, u64>,
    problem: Option<Reason>,
    refused: bool,
}

impl Labels {
    fn new(lang: String, source: String, licence: String) -> Labels {
        let (dropped, applied) = (BTreeMap::new(), BTreeMap::new());
        Labels { lang, source, licence, rows: 0, dropped, applied, problem: None, refused: false }
    }

    /// The language, when it is known.
    fn given(&self) -> Option<&str> {
        Some(self.lang.as_str()).filter(|lang| *lang != UNKNOWN_LANGUAGE)
    }
}

/// A document of a chunk; its address, text and notes lie in [`Admitted::content`].
#[derive(Debug)]
pub(crate) struct AdmittedDocument {
    pub id: [u8; DOCUMENT_ID_BYTES],
    pub digest: KeyDigest,
    /// Index into [`Admitted::labels`].
    pub labels: usize,
    pub url_len: u32,
    pub text_len: u32,
    pub notes_len: u32,
    pub words: u32,
}

impl AdmittedDocument {
    /// Bytes of address, text and notes.
    pub fn content_len(&self) -> usize {
        self.url_len as usize + self.text_len as usize + self.notes_len as usize
    }
}

/// A record that is broken, as the quarantine file holds it.
#[derive(Debug, Serialize)]
pub(crate) struct QuarantineEntry {
    pub file: String,
    /// Record number from 1; 0 stands for the file as a whole.
    pub row: u64,
    /// Position in the decompressed stream, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub byte: Option<u64>,
    pub reason: String,
    pub excerpt: String,
}

/// A row that stops the run.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub place: Place,
    pub source: String,
    pub licence: String,
}

/// A record that is no chat.
#[derive(Debug)]
pub(crate) struct BadRecord {
    pub place: Place,
    pub id: Option<String>,
    pub problem: RecordError,
}

/// One chunk's outcome.
#[derive(Debug, Default)]
pub(crate) struct Admitted {
    pub file: usize,
    pub labels: Vec<Labels>,
    pub documents: Vec<AdmittedDocument>,
    pub content: Vec<u8>,
    pub quarantine: Vec<QuarantineEntry>,
    /// Lines about texts that hold parts of benchmarks.
    pub hits: Vec<u8>,
    /// A sample of the personal data that was found, masked.
    pub audit: AuditSample,
    pub refusal: Option<Refusal>,
    /// The first record that stops a preparation of chats.
    pub bad_record: Option<BadRecord>,
}

impl Admission<'_> {
    /// Whether rows without a language get one.
    fn identifies(&self) -> bool {
        self.curation.is_some_and(Curation::identifies)
    }

    /// Judges the rows of a chunk of file number `file`.
    pub fn judge(&self, file: usize, chunk: &Chunk) -> Admitted {
        let Some(input) = self.files.get(file) else { return Admitted::default() };
        let mut judge = Judge {
            rules: self,
            input,
            out: Admitted {
                file,
                audit: self.curation.map(Curation::audit_sample).unwrap_or_default(),
                ..Admitted::default()
            },
            known: HashMap::new(),
            name: String::new(),
            key: String::new(),
        };
        match chunk {
            Chunk::Lines { bytes, first, rejects } => {
                judge.rejects(rejects);
                judge.lines(bytes, *first);
            }
            Chunk::Rows(rows) => judge.rows(rows),
            // Web pages are taken apart here, on all threads, and not where they are read.
            Chunk::Pages(pages) => judge.rows(&pages.rows(self.opt_outs.markers)),
        }
        judge.out
    }
}

/// State while one chunk is judged.
struct Judge<'r> {
    rules: &'r Admission<'r>,
    input: &'r InputFile,
    out: Admitted,
    /// Label fields as the file holds them, joined, to the index of their entry.
    known: HashMap<String, usize>,
    name: String,
    key: String,
}

impl Judge<'_> {
    fn rejects(&mut self, rejects: &[Reject]) {
        for reject in rejects {
            let labels = self.labels(&Fields::default());
            self.count(labels, reject.reason.clone());
            if reject.reason.is_quarantined() {
                self.quarantine(reject.place, &reject.reason, reject.excerpt.clone());
            }
            // A damaged file is judged as a whole.
            if !self.kind().is_text() && reject.reason != Reason::Damaged {
                let problem = RecordError::Unreadable(reject.reason.to_string());
                self.bad_record(reject.place, None, problem);
            }
        }
    }

    fn rows(&mut self, rows: &RowChunk) {
        self.rejects(&rows.rejects);
        for row in rows.rows() {
            let text = rows.bytes(row, Slot::Text).unwrap_or_default();
            match rows.fields(row) {
                Ok(fields) => self.row(row.place, &fields, text),
                Err(reason) => self.broken(row.place, reason, text),
            }
        }
    }

    fn lines(&mut self, bytes: &[u8], first: Place) {
        // One check for the whole chunk; only a chunk with damage is checked line by line.
        let whole = std::str::from_utf8(bytes).ok();
        let mut start = 0;
        for (place, line) in lines(bytes, first) {
            let end = start + line.len();
            let text = match whole {
                Some(whole) => whole.get(start..end),
                None => std::str::from_utf8(line).ok(),
            };
            start = end + 1;
            if line.len() as u64 > self.rules.max_record_bytes {
                self.broken(place, Reason::RecordTooLarge, line);
                continue;
            }
            let Some(text) = text else {
                self.broken(place, Reason::InvalidUtf8, line);
                continue;
            };
            if text.trim().is_empty() {
                let labels = self.labels(&Fields::default());
                self.count(labels, Reason::BlankLine);
                continue;
            }
            match parse_line(text, &self.input.spec.tree) {
                Ok(fields) if self.kind().is_text() => self.row(place, &fields, line),
                Ok(fields) => self.chat(place, fields, text),
                Err(reason) => self.broken(place, reason, line),
            }
        }
    }

    fn kind(&self) -> RecordKind {
        self.input.spec.config.kind
    }

    /// A record whose text is a chat.
    fn chat(&mut self, place: Place, mut fields: Fields<'_>, line: &str) {
        let (rules, config) = (self.rules, &self.input.spec.config);
        match record::parse(line, &config.fields, config.kind, rules.normalize, &rules.roles) {
            Ok(sample) => {
                fields.set(Slot::Text, Value::Str(Cow::Owned(sample.to_text())));
                self.row(place, &fields, line.as_bytes());
            }
            Err(problem) => self.bad_record(place, id_of(line), problem),
        }
    }

    fn bad_record(&mut self, place: Place, id: Option<String>, problem: RecordError) {
        self.out.bad_record.get_or_insert(BadRecord { place, id, problem });
    }

    /// A record without fields.
    fn broken(&mut self, place: Place, reason: Reason, raw: &[u8]) {
        if !self.kind().is_text() {
            let problem = match reason {
                Reason::InvalidJson => RecordError::NotAnObject,
                ref other => RecordError::Unreadable(other.to_string()),
            };
            self.bad_record(place, None, problem);
        }
        let labels = self.labels(&Fields::default());
        self.count(labels, reason.clone());
        self.quarantine(place, &reason, excerpt(raw));
    }

    fn row(&mut self, place: Place, fields: &Fields<'_>, raw: &[u8]) {
        let mut index = self.labels(fields);
        match self.document(place, fields, &mut index) {
            Ok(document) => {
                if let Some(labels) = self.out.labels.get_mut(document.labels) {
                    labels.rows += 1;
                }
                self.out.documents.push(document);
            }
            Err(reason) => {
                self.count(index, reason.clone());
                if reason.is_quarantined() && !self.kind().is_text() {
                    let id = std::str::from_utf8(raw).ok().and_then(id_of);
                    self.bad_record(place, id, RecordError::Label(reason.to_string()));
                }
                if reason.is_quarantined() {
                    self.quarantine(place, &reason, excerpt(raw));
                }
            }
        }
    }

    /// Makes a document of a row. `index` becomes the entry of the labels that the row ends with.
    fn document(&mut self, place: Place, fields: &Fields<'_>, index: &mut usize) -> Result<AdmittedDocument, Reason> {
        let text = match fields.get(Slot::Text) {
            Value::Missing => return Err(Reason::MissingText),
            Value::Null => return Err(Reason::NullText),
            Value::Number(_) | Value::Other => return Err(Reason::TextNotString),
            Value::Str(text) => text,
        };
        let mut applied = Applied::default();
        let text = self.normalized(text, *index, &mut applied);
        if text.trim().is_empty() {
            return Err(Reason::EmptyText);
        }
        let url = optional(fields.get(Slot::Url))?.unwrap_or_default();
        let given_id = match fields.get(Slot::Id) {
            Value::Number(number) => Some(number.as_str()),
            other => optional(other)?,
        };
        let Some(labels) = self.out.labels.get(*index) else { return Err(Reason::BadField) };
        let id = document_id(&labels.source, given_id.unwrap_or(&text));
        // Who is left out anyway is no reason to refuse the run.
        if let Some(what) = opted_out(&self.rules.opt_outs, fields, (&id, given_id), (url, &labels.source)) {
            return Err(Reason::OptOut(what));
        }
        if labels.refused && self.out.refusal.is_none() {
            let (source, licence) = (labels.source.clone(), labels.licence.clone());
            self.out.refusal = Some(Refusal { place, source, licence });
        }
        if let Some(problem) = &labels.problem {
            return Err(problem.clone());
        }
        let date = date_of(fields);
        applied.dated(date.as_deref());
        let (text, notes) = match self.rules.curation.filter(|curation| curation.is_on()) {
            Some(curation) => self.curated(curation, text, &id, applied, index)?,
            None => (text, date.map(|date| notes(&Notes { date: Some(date), ..Notes::default() })).unwrap_or_default()),
        };
        let digest = KeyDigest::of(&text, &mut self.key);
        let words = u32::try_from(count_words(&text)).unwrap_or(u32::MAX);
        let length = |bytes: &[u8]| u32::try_from(bytes.len()).map_err(|_| Reason::RecordTooLarge);
        let (url_len, text_len, notes_len) = (length(url.as_bytes())?, length(text.as_bytes())?, length(&notes)?);
        self.out.content.extend_from_slice(url.as_bytes());
        self.out.content.extend_from_slice(text.as_bytes());
        self.out.content.extend_from_slice(&notes);
        Ok(AdmittedDocument { id, digest, labels: *index, url_len, text_len, notes_len, words })
    }

    /// Takes a text through the stages; the text and the notes about it.
    fn curated<'t>(
        &mut self,
        curation: &Curation,
        text: Cow<'t, str>,
        id: &[u8; DOCUMENT_ID_BYTES],
        mut applied: Applied,
        index: &mut usize,
    ) -> Result<(Cow<'t, str>, Vec<u8>), Reason> {
        let labels = self.out.labels.get(*index);
        let (given, source) = labels.map_or((None, ""), |labels| (labels.given(), labels.source.as_str()));
        applied.audit = std::mem::take(&mut self.out.audit);
        let outcome = curation.apply(text, given, (id, source), &mut applied);
        self.out.audit = std::mem::take(&mut applied.audit);
        if let Some(label) = applied.label.take() {
            *index = self.relabelled(*index, label);
        }
        if let Some(labels) = self.out.labels.get_mut(*index) {
            for (rule, count) in &applied.counts {
                match labels.applied.get_mut(rule) {
                    Some(sum) => *sum += count,
                    None => _ = labels.applied.insert(rule.clone(), *count),
                }
            }
        }
        self.out.hits.append(&mut applied.hits);
        let text = outcome.map_err(Reason::Judged)?;
        if text.trim().is_empty() {
            return Err(Reason::EmptyText);
        }
        Ok((text, notes(&applied.into_notes())))
    }

    /// The text in its normal form.
    fn normalized<'t>(&self, text: &'t str, index: usize, applied: &mut Applied) -> Cow<'t, str> {
        let given = self.out.labels.get(index).and_then(Labels::given);
        applied.normalize(self.rules.normalize, text, given)
    }

    /// The entry of the same labels with another language.
    fn relabelled(&mut self, index: usize, lang: String) -> usize {
        let Some(labels) = self.out.labels.get(index) else { return index };
        if labels.lang == lang {
            return index;
        }
        let name = format!("{index}\u{3}{lang}");
        if let Some(&known) = self.known.get(&name) {
            return known;
        }
        let (source, licence) = (labels.source.clone(), labels.licence.clone());
        self.out.labels.push(Labels::new(lang, source, licence));
        self.known.insert(name, self.out.labels.len() - 1);
        self.out.labels.len() - 1
    }

    /// Index of the entry for a row's labels.
    fn labels(&mut self, fields: &Fields<'_>) -> usize {
        self.name.clear();
        for slot in [Slot::Lang, Slot::Script, Slot::Source, Slot::Licence] {
            match fields.get(slot) {
                Value::Str(text) => self.name.push_str(text),
                Value::Missing | Value::Null => {}
                Value::Number(_) | Value::Other => self.name.push('\u{2}'),
            }
            self.name.push('\u{1}');
        }
        if let Some(&index) = self.known.get(self.name.as_str()) {
            return index;
        }
        self.out.labels.push(self.resolve(fields));
        self.known.insert(self.name.clone(), self.out.labels.len() - 1);
        self.out.labels.len() - 1
    }

    fn resolve(&self, fields: &Fields<'_>) -> Labels {
        let config = &self.input.spec.config;
        let mut problem = None;
        let mut text = |slot| match optional(fields.get(slot)) {
            Ok(text) => text.map(str::trim).filter(|text| !text.is_empty()),
            Err(reason) => {
                problem.get_or_insert(reason);
                None
            }
        };
        let (lang, script) = (text(Slot::Lang), text(Slot::Script));
        let source = text(Slot::Source).unwrap_or(&self.input.default_source).to_owned();
        let licence = text(Slot::Licence).or(config.licence.as_deref());
        let lang = match lang {
            Some(lang) => language_label(lang, script).ok_or(Reason::BadLanguage),
            None if self.kind().is_text() && !self.rules.identifies() => {
                config.lang.clone().ok_or(Reason::MissingLanguage)
            }
            None => Ok(config.lang.clone().unwrap_or_else(|| UNKNOWN_LANGUAGE.to_owned())),
        };
        let lang = lang.unwrap_or_else(|reason| {
            problem.get_or_insert(reason);
            UNKNOWN_LANGUAGE.to_owned()
        });
        let source = if is_source_name(&source) {
            source
        } else {
            problem.get_or_insert(Reason::BadField);
            self.input.default_source.clone()
        };
        let verdict = licence.map_or(Verdict::NotListed, |licence| self.rules.gate.judge(licence));
        let licence = licence.unwrap_or(MISSING_LICENCE).to_owned();
        if verdict == Verdict::NotListed {
            problem.get_or_insert(Reason::Licence(licence.clone()));
        }
        let says_no = self.rules.opt_outs.licence_says_no(&licence);
        if says_no {
            problem = Some(Reason::OptOut("licence"));
        }
        let refused = verdict == Verdict::NonCommercial && !says_no;
        Labels { problem, refused, ..Labels::new(lang, source, licence) }
    }

    fn count(&mut self, index: usize, reason: Reason) {
        if let Some(labels) = self.out.labels.get_mut(index) {
            labels.rows += 1;
            *labels.dropped.entry(reason).or_default() += 1;
        }
    }

    fn quarantine(&mut self, place: Place, reason: &Reason, excerpt: String) {
        self.out.quarantine.push(QuarantineEntry {
            file: self.input.label.clone(),
            row: place.row,
            byte: place.byte,
            reason: reason.to_string(),
            excerpt,
        });
    }
}

/// What keeps a row out because somebody asked for it.
fn opted_out(
    opt_outs: &OptOuts,
    fields: &Fields<'_>,
    (id, given_id): (&[u8; DOCUMENT_ID_BYTES], Option<&str>),
    (url, source): (&str, &str),
) -> Option<&'static str> {
    let is_marked = |kind: &MarkerKind| *fields.get(Slot::of_marker(*kind)) != Value::Missing;
    if opt_outs.markers
        && let Some(kind) = MarkerKind::ALL.iter().find(|kind| is_marked(kind))
    {
        return Some(kind.name());
    }
    if opt_outs.list.is_empty() {
        return None;
    }
    let url = Some(url).filter(|url| !url.is_empty());
    opt_outs.list.find(Candidate { id: &id_to_hex(id), given_id, url, source })
}

/// The date of a row, as it is written there; what is no short text is none.
fn date_of(fields: &Fields<'_>) -> Option<String> {
    const MAX_DATE_BYTES: usize = 64;
    let date = match fields.get(Slot::Date) {
        Value::Str(text) => text.trim(),
        Value::Number(number) => number.as_str(),
        _ => return None,
    };
    (!date.is_empty() && date.len() <= MAX_DATE_BYTES).then(|| date.to_owned())
}

/// Notes as they pass through the stages.
fn notes(notes: &Notes) -> Vec<u8> {
    // Plain data always has a JSON form.
    serde_json::to_vec(notes).unwrap_or_default()
}

/// A field that may be absent but, if there, must be a string.
fn optional<'v>(value: &'v Value<'_>) -> Result<Option<&'v str>, Reason> {
    match value {
        Value::Missing | Value::Null => Ok(None),
        Value::Str(text) => Ok(Some(text)),
        Value::Number(_) | Value::Other => Err(Reason::BadField),
    }
}

/// The `id` of a record, to name it by.
fn id_of(line: &str) -> Option<String> {
    let record: serde_json::Value = serde_json::from_str(line).ok()?;
    let id = ["id", "uid", "conversation_id"].iter().find_map(|key| record.get(key))?;
    let id = id.as_str().map_or_else(|| id.to_string(), str::to_owned);
    Some(id.chars().take(64).collect())
}
