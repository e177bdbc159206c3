//! Owns what the document stages do to one text, in their order; never counts over documents or reads files after it was
//! opened.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::BTreeMap;

use super::error::PrepareError;
use crate::clean::CleanConfig;
use crate::decontaminate::{Action, Benchmarks, DecontaminateConfig, SearchBuffers};
use crate::document::{DOCUMENT_ID_BYTES, Notes, id_to_hex};
use crate::filters::Filters;
use crate::lid::{Decision, Identification, Identifier, IdentifyConfig};
use crate::normalize::{Changes, Normalize};
use crate::pii::{AuditSample, Scrubber};
use crate::repair::Repairer;

/// Languages with a smaller share of a text are not noted as mixed into it.
const MIN_MIXED_SHARE: f32 = 0.05;

/// The stages that a configuration asks for, opened once and shared by all threads.
pub(crate) struct Curation {
    /// The normal form is more than NFC, so what it changed is noted.
    normalize: Normalize,
    repair: Option<(Repairer, f32)>,
    identify: Option<(Model, IdentifyConfig)>,
    filters: Option<Filters>,
    clean_lines: bool,
    benchmarks: Option<Benchmarks>,
    scrubber: Option<Scrubber>,
    /// Findings of personal data that are shown, of each kind and language.
    audit_per_kind: u32,
}

/// A model of languages: the one in the binary, or one from a file.
enum Model {
    Embedded(&'static Identifier),
    Opened(Box<Identifier>),
}

impl Model {
    fn identify(&self, text: &str) -> Identification {
        match self {
            Model::Embedded(identifier) => identifier.identify(text),
            Model::Opened(identifier) => identifier.identify(text),
        }
    }
}

/// What the stages did to one text and found out about it.
#[derive(Default)]
pub(crate) struct Applied {
    /// How often each rule fired, by stage and name.
    pub counts: BTreeMap<String, u64>,
    /// The label that the text ends with, when that is another than the given one.
    pub label: Option<String>,
    /// Lines about parts of benchmarks in the text.
    pub hits: Vec<u8>,
    /// The sample of findings that those of this text are added to.
    pub audit: AuditSample,
    notes: Notes,
}

impl Applied {
    /// Brings a text into its normal form.
    pub fn normalize<'t>(&mut self, normalize: Normalize, text: &'t str, given: Option<&str>) -> Cow<'t, str> {
        let mut changes = Changes::default();
        let text = normalize.apply_to(text, given, &mut changes);
        self.count("normalize", &changes);
        text
    }

    /// Notes when the text was published.
    pub fn dated(&mut self, date: Option<&str>) {
        self.notes.date = date.map(str::to_owned);
    }

    /// What is kept of this beside the text.
    pub fn into_notes(self) -> Notes {
        Notes { history: self.counts, ..self.notes }
    }

    fn count(&mut self, stage: &str, changes: &Changes) {
        for (rule, count) in changes.iter() {
            self.add(stage, rule, count);
        }
    }

    fn add(&mut self, stage: &str, rule: &str, count: u64) {
        if count > 0 {
            *self.counts.entry(format!("{stage}:{rule}")).or_default() += count;
        }
    }
}

impl Curation {
    /// Opens models, word lists and benchmarks.
    ///
    /// # Errors
    /// One that cannot be read.
    pub fn open(config: &CleanConfig, decontaminate: Option<&DecontaminateConfig>) -> Result<Curation, PrepareError> {
        fn failed<E: std::error::Error>(key: &'static str) -> impl FnOnce(E) -> PrepareError {
            move |error| {
                let text = error.to_string();
                let cause = error.source().map(ToString::to_string).filter(|cause| !text.contains(cause));
                PrepareError::Stage { key, problem: cause.map_or(text.clone(), |cause| format!("{text}: {cause}")) }
            }
        }
        let repair = match &config.repair {
            Some(repair) => Some((Repairer::new(repair).map_err(failed("repair.lexicons"))?, repair.max_garbage)),
            None => None,
        };
        let identify = match &config.identify {
            Some(identify) => {
                let model = match &identify.model {
                    Some(path) => Model::Opened(Box::new(Identifier::open(path).map_err(failed("identify.model"))?)),
                    None => Model::Embedded(Identifier::embedded()),
                };
                Some((model, identify.clone()))
            }
            None => None,
        };
        let benchmarks = match decontaminate {
            Some(config) => Some(Benchmarks::open(config).map_err(failed("decontaminate.against"))?),
            None => None,
        };
        let filters = match &config.filters {
            Some(filters) => Some(Filters::new(filters).map_err(failed("filters.word_lists"))?),
            None => None,
        };
        let clean_lines = config.filters.as_ref().is_some_and(|filters| filters.clean_lines);
        let scrubber = config.pii.as_ref().map(Scrubber::new);
        let audit_per_kind = config.pii.as_ref().map_or(0, |pii| pii.audit_per_kind);
        let normalize = config.normalize;
        Ok(Curation { normalize, repair, identify, filters, clean_lines, benchmarks, scrubber, audit_per_kind })
    }

    /// A text in its normal form.
    pub fn normalized<'t>(&self, text: &'t str, given: Option<&str>, applied: &mut Applied) -> Cow<'t, str> {
        applied.normalize(self.normalize, text, given)
    }

    /// An empty sample of the size that is asked for.
    pub fn audit_sample(&self) -> AuditSample {
        AuditSample::new(self.audit_per_kind)
    }

    /// Whether there is anything to note about texts.
    pub fn is_on(&self) -> bool {
        matches!(self.normalize, Normalize::Profile(_))
            || self.repair.is_some()
            || self.identify.is_some()
            || self.filters.is_some()
            || self.benchmarks.is_some()
            || self.scrubber.is_some()
    }

    /// Whether rows without a language get one.
    pub fn identifies(&self) -> bool {
        self.identify.is_some()
    }

    /// Takes a text in its normal form through the stages.
    ///
    /// # Errors
    /// The reason to drop it.
    pub fn apply<'t>(
        &self,
        text: Cow<'t, str>,
        given: Option<&str>,
        (id, source): (&[u8; DOCUMENT_ID_BYTES], &str),
        applied: &mut Applied,
    ) -> Result<Cow<'t, str>, Cow<'static, str>> {
        applied.notes.given = given.map(str::to_owned);
        let text = self.repaired(text, given, applied)?;
        if let Some((model, config)) = &self.identify {
            let found = model.identify(&text);
            applied.notes.score = Some(found.score);
            applied.notes.mixed = mixed(&found);
            applied.notes.identified = Some(found.document_label());
            match config.decide(given, &found) {
                Decision::Keep(label) => applied.label = Some(label).filter(|label| Some(label.as_str()) != given),
                Decision::Drop(reason) => return Err(format!("language:{}", reason.replace(' ', "_")).into()),
            }
        }
        let label = applied.label.clone().or_else(|| given.map(str::to_owned)).unwrap_or_default();
        let text = self.filtered(text, &label, source, applied)?;
        self.decontaminated(&text, &label, (id, source), applied)?;
        self.scrubbed(text, id, &label, applied)
    }

    fn repaired<'t>(
        &self,
        text: Cow<'t, str>,
        given: Option<&str>,
        applied: &mut Applied,
    ) -> Result<Cow<'t, str>, Cow<'static, str>> {
        let Some((repairer, max_garbage)) = &self.repair else { return Ok(text) };
        let mut changes = Changes::default();
        let (repaired, verdict) = repairer.repair(&text, given, &mut changes);
        let repaired = match repaired {
            Cow::Owned(repaired) => Some(repaired),
            Cow::Borrowed(_) => None,
        };
        applied.count("repair", &changes);
        if verdict.score > 0.0 {
            applied.notes.figures.insert("garbage".to_owned(), verdict.score);
        }
        match verdict.garbage(*max_garbage) {
            Some(reason) => Err(format!("garbage:{}", reason.name()).into()),
            // What a repair decoded has yet to be brought into normal form.
            None => {
                Ok(repaired
                    .map_or(text, |text| Cow::Owned(applied.normalize(self.normalize, &text, given).into_owned())))
            }
        }
    }

    /// Leaves out lines, if asked to, and judges the rest.
    fn filtered<'t>(
        &self,
        text: Cow<'t, str>,
        label: &str,
        source: &str,
        applied: &mut Applied,
    ) -> Result<Cow<'t, str>, Cow<'static, str>> {
        let Some(filters) = &self.filters else { return Ok(text) };
        let text = if self.clean_lines {
            let (cleaned, counts) = filters.clean_lines(&text, label, source);
            applied.add("filters", "unfinished_line", counts.unfinished);
            applied.add("filters", "short_line", counts.short);
            applied.add("filters", "boilerplate_line", counts.boilerplate);
            match cleaned {
                Cow::Owned(cleaned) => Cow::Owned(cleaned),
                Cow::Borrowed(_) => text,
            }
        } else {
            text
        };
        match filters.judge(&text, label, source) {
            Ok(signals) => {
                let figures = [
                    ("alphabetic_words", signals.alphabetic_words),
                    ("duplicate_line_chars", signals.duplicate_line_chars),
                    ("dup_5_gram", signals.dup_5_gram),
                    ("top_2_gram", signals.top_2_gram),
                    ("word_length", signals.word_length),
                ];
                let told = figures.into_iter().filter(|(_, value)| *value > 0.0);
                applied.notes.figures.extend(told.map(|(name, value)| (name.to_owned(), rounded(value))));
                Ok(text)
            }
            Err(reason) => Err(format!("filter:{}", reason.rule.name()).into()),
        }
    }

    /// Replaces personal data.
    fn scrubbed<'t>(
        &self,
        text: Cow<'t, str>,
        id: &[u8; DOCUMENT_ID_BYTES],
        label: &str,
        applied: &mut Applied,
    ) -> Result<Cow<'t, str>, Cow<'static, str>> {
        let Some(scrubber) = &self.scrubber else { return Ok(text) };
        let findings = scrubber.find(&text);
        if findings.is_empty() {
            return Ok(text);
        }
        applied.audit.add(&id_to_hex(id), label, &text, &findings);
        let (scrubbed, counts) = scrubber.replace(&text, &findings);
        for (kind, count) in counts.by_name() {
            applied.add("pii", kind, count);
        }
        if let Some(kind) = counts.dropped_for {
            return Err(format!("pii:{}", kind.name()).into());
        }
        Ok(match scrubbed {
            Cow::Owned(scrubbed) => Cow::Owned(scrubbed),
            Cow::Borrowed(_) => text,
        })
    }

    /// Lists the benchmark items in a text; an error when one of them drops it.
    fn decontaminated(
        &self,
        text: &str,
        label: &str,
        (id, source): (&[u8; DOCUMENT_ID_BYTES], &str),
        applied: &mut Applied,
    ) -> Result<(), Cow<'static, str>> {
        thread_local! {
            static BUFFERS: RefCell<SearchBuffers> = RefCell::default();
        }
        let Some(benchmarks) = &self.benchmarks else { return Ok(()) };
        let hits = BUFFERS.with_borrow_mut(|buffers| benchmarks.hits(text, label, buffers));
        let mut dropped = false;
        for hit in &hits {
            dropped |= hit.action == Action::Drop;
            let line = serde_json::json!({"document": id_to_hex(id), "lang": label, "source": source, "hit": hit});
            applied.hits.extend_from_slice(line.to_string().as_bytes());
            applied.hits.push(b'\n');
        }
        applied.add("decontaminate", "hit", hits.len() as u64);
        if dropped { Err("contaminated".into()) } else { Ok(()) }
    }
}

/// Three digits after the point are enough, and keep tables small.
fn rounded(value: f32) -> f32 {
    (value * 1000.0).round() / 1000.0
}

/// `fra_Latn 0.31, eng_Latn 0.12`: what is mixed into a text.
fn mixed(found: &Identification) -> String {
    let shares: Vec<String> =
        found.with(MIN_MIXED_SHARE).iter().map(|(label, share)| format!("{label} {share:.2}")).collect();
    shares.join(", ")
}
