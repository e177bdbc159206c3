//! Owns the tokenizer stage: training on the training documents of the spool, and reusing a result that is whole; never
//! decides how merges are learned.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::{Deserialize, Serialize};

use super::PREPARE_VERSION;
use super::error::PrepareError;
use super::event::{Observer, PrepareEvent, Stage};
use super::work::WorkDir;
use super::write_durably;
use crate::config::{PrepareConfig, json_digest};
use crate::dataset::Dataset;
use crate::document::{Document, id_to_hex};
use crate::spool::{Entry, Spool};
use crate::tokenizer::eval::Evaluation;
use crate::tokenizer::gates::{self, Gates};
use crate::tokenizer::{Tokenizer, TokenizerError, TokenizerTrainer, TrainConfig};

/// Folder of the stage's result inside the work folder.
const FOLDER: &str = "tokenizer";
/// Written last: what the result was made from and the digests of its files.
const DONE_FILE: &str = "done.json";
/// Documents between two reports.
const DOCUMENTS_PER_REPORT: u64 = 4096;

#[derive(Debug, Serialize, Deserialize)]
struct Done {
    key: String,
    /// Hexadecimal BLAKE3 by file name.
    files: BTreeMap<String, String>,
}

/// The tokenizer trained on the training documents of `spool`.
pub(super) fn train(
    config: &TrainConfig,
    spool: &Spool,
    work: &WorkDir,
    observe: Observer<'_>,
    stop: &AtomicBool,
) -> Result<Tokenizer, PrepareError> {
    let stage = Stage::Tokenizer;
    let bytes_by_language = bytes_by_language(spool)?;
    let total_bytes = bytes_by_language.values().sum();
    observe(&PrepareEvent::StageStarted { stage, total_bytes });
    let key = json_digest(&(PREPARE_VERSION, spool.digest(), config));
    let dir = work.at(FOLDER);
    let reused = is_done(&dir, &key);
    if !reused {
        let dir = work.fresh(FOLDER)?;
        let files = learn(config, spool, &bytes_by_language, observe, stop).map_err(|error| match error {
            PrepareError::Tokenizer(TokenizerError::Stopped) => PrepareError::Interrupted { stage: stage.name() },
            error => error,
        })?;
        let mut done = Done { key, files: BTreeMap::new() };
        for (name, bytes) in files {
            write_durably(&dir.join(name), &bytes)?;
            done.files.insert(name.to_owned(), blake3::hash(&bytes).to_hex().to_string());
        }
        write_durably(&dir.join(DONE_FILE), &serde_json::to_vec(&done).unwrap_or_default())?;
    }
    let tokenizer = Tokenizer::open(&dir)?;
    observe(&PrepareEvent::StageFinished { stage, reused });
    Ok(tokenizer)
}

/// The training documents, in the order read.
fn training(spool: &Spool) -> Result<impl Iterator<Item = Result<Entry, PrepareError>>, PrepareError> {
    side(spool, false)
}

/// The documents of one side of the split, in the order read.
fn side(spool: &Spool, held_out: bool) -> Result<impl Iterator<Item = Result<Entry, PrepareError>>, PrepareError> {
    let failed = || PrepareError::io(spool.dir(), "read");
    let entries = spool.entries().map_err(failed())?;
    let wanted = move |entry: &Result<Entry, PrepareError>| {
        !entry.as_ref().is_ok_and(|entry| spool.is_validation(entry) != held_out)
    };
    Ok(entries.map(move |entry| entry.map_err(failed())).filter(wanted))
}

fn bytes_by_language(spool: &Spool) -> Result<BTreeMap<String, u64>, PrepareError> {
    let mut by_group = vec![0; spool.manifest.groups.len()];
    for entry in training(spool)? {
        let entry = entry?;
        if let Some(bytes) = by_group.get_mut(entry.group as usize) {
            *bytes += u64::from(entry.text_len);
        }
    }
    let mut sums = BTreeMap::new();
    for (group, bytes) in spool.manifest.groups.iter().zip(by_group).filter(|(_, bytes)| *bytes > 0) {
        *sums.entry(group.lang.clone()).or_default() += bytes;
    }
    Ok(sums)
}

/// Text of a language that gates are measured on, in bytes: enough for three digits, and bounded whatever the corpus.
const GATE_BYTES: u64 = 4 << 20;

/// Measures the tokenizer on the languages that gates name, on held-out documents first, and compares.
///
/// # Errors
/// [`TokenizerError::Gates`] with a table of all bounds when one does not hold.
pub(super) fn check_gates(
    gates: &Gates,
    tokenizer: &Tokenizer,
    spool: &Spool,
    stop: &AtomicBool,
) -> Result<(), PrepareError> {
    if gates.is_empty() {
        return Ok(());
    }
    let mut measured: BTreeMap<&str, u64> = BTreeMap::new();
    let mut evaluation = Evaluation::new(tokenizer);
    let mut chunk = Vec::new();
    for entry in side(spool, true)?.chain(side(spool, false)?) {
        let entry = entry?;
        let bytes = measured.entry(&spool.group(&entry).lang).or_default();
        if *bytes >= GATE_BYTES {
            continue;
        }
        *bytes += u64::from(entry.text_len);
        chunk.push(spool.document(&entry).map_err(PrepareError::io(spool.dir(), "read"))?);
        if chunk.len() as u64 >= DOCUMENTS_PER_REPORT {
            evaluation.add_all(&std::mem::take(&mut chunk))?;
            if stop.load(Ordering::Relaxed) {
                return Err(PrepareError::Interrupted { stage: Stage::Tokenizer.name() });
            }
        }
    }
    evaluation.add_all(&chunk)?;
    let verdict = gates::check(gates, &evaluation.report(None));
    if verdict.passed() { Ok(()) } else { Err(TokenizerError::Gates { verdict: Box::new(verdict) }.into()) }
}

/// [`check_gates`] of a dataset that is there already, made when there were other gates: on the texts that its tokens
/// stand for. Nothing of it is changed.
///
/// # Errors
/// [`PrepareError::Gates`] when one does not hold.
pub(super) fn check_gates_again(config: &PrepareConfig, stop: &AtomicBool) -> Result<(), PrepareError> {
    let dataset = Dataset::open(&config.output_dir)?;
    let tokenizer = Tokenizer::open(&dataset.tokenizer_file())?;
    let mut measured: BTreeMap<&str, u64> = BTreeMap::new();
    let mut evaluation = Evaluation::new(&tokenizer);
    for component in dataset.validation().iter().chain(dataset.train()) {
        let bytes = measured.entry(component.lang()).or_default();
        for number in 0..component.num_documents() {
            if *bytes >= GATE_BYTES {
                break;
            }
            if stop.load(Ordering::Relaxed) {
                return Err(PrepareError::Interrupted { stage: Stage::Tokenizer.name() });
            }
            let text = tokenizer.decode(&component.document(number)?, true)?;
            *bytes += text.len() as u64;
            let (lang, source) = (component.lang().to_owned(), component.source().to_owned());
            let (id, licence) = (String::new(), String::new());
            evaluation.add_all(&[Document { id, text, lang, source, licence, url: None, notes: None }])?;
        }
    }
    let verdict = gates::check(&config.tokenizer.gates, &evaluation.report(None));
    let dir = config.output_dir.clone();
    if verdict.passed() { Ok(()) } else { Err(PrepareError::Gates { dir, verdict: Box::new(verdict) }) }
}

fn is_done(dir: &Path, key: &str) -> bool {
    let read = |name: &str| std::fs::read(dir.join(name)).ok();
    let done: Option<Done> = read(DONE_FILE).and_then(|json| serde_json::from_slice(&json).ok());
    let whole = |(name, digest): (&String, &String)| {
        read(name).is_some_and(|bytes| blake3::hash(&bytes).to_hex().as_str() == digest)
    };
    done.is_some_and(|done| done.key == key && done.files.iter().all(whole))
}

fn learn(
    config: &TrainConfig,
    spool: &Spool,
    bytes_by_language: &BTreeMap<String, u64>,
    observe: Observer<'_>,
    stop: &AtomicBool,
) -> Result<BTreeMap<&'static str, Vec<u8>>, PrepareError> {
    let stage = Stage::Tokenizer;
    let mut trainer = TokenizerTrainer::new(config, bytes_by_language)?;
    let (mut bytes, mut rows) = (0, 0);
    for entry in training(spool)? {
        let entry = &entry?;
        bytes += u64::from(entry.text_len);
        rows += 1;
        if rows % DOCUMENTS_PER_REPORT == 0 {
            observe(&PrepareEvent::Progress { stage, bytes, rows });
            if stop.load(Ordering::Relaxed) {
                return Err(TokenizerError::Stopped.into());
            }
        }
        if trainer.copies(&spool.group(entry).lang, &id_to_hex(&entry.id)) > 0 {
            let document = spool.document(entry).map_err(PrepareError::io(spool.dir(), "read"))?;
            trainer.add(&document);
        }
    }
    let report = |_| observe(&PrepareEvent::Progress { stage, bytes, rows });
    let trained = trainer.finish(&report, stop)?;
    let (asked, got) = (trained.report.requested_vocab_size, trained.report.vocab_size);
    if got < asked {
        observe(&PrepareEvent::Warning(format!(
            "the text gave a vocabulary of {got} tokens, not the {asked} of tokenizer.train.vocab_size"
        )));
    }
    Ok(trained.files)
}
