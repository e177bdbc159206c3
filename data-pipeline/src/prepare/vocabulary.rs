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
use crate::config::json_digest;
use crate::document::id_to_hex;
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
    let training: Vec<&Entry> = spool.entries.iter().filter(|entry| !spool.is_validation(entry)).collect();
    let total_bytes = training.iter().map(|entry| u64::from(entry.text_len)).sum();
    observe(&PrepareEvent::StageStarted { stage, total_bytes });
    let key = json_digest(&(PREPARE_VERSION, spool.digest(), config));
    let dir = work.at(FOLDER);
    let reused = is_done(&dir, &key);
    if !reused {
        let dir = work.fresh(FOLDER)?;
        let files = learn(config, spool, &training, observe, stop).map_err(|error| match error {
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
    let (held_out, training): (Vec<&Entry>, Vec<&Entry>) = spool.entries.iter().partition(|e| spool.is_validation(e));
    let mut chunk = Vec::new();
    for entry in held_out.into_iter().chain(training) {
        let bytes = measured.entry(&spool.group(entry).lang).or_default();
        if *bytes >= GATE_BYTES {
            continue;
        }
        *bytes += u64::from(entry.text_len);
        chunk.push(spool.document(entry).map_err(PrepareError::io(spool.dir(), "read"))?);
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
    training: &[&Entry],
    observe: Observer<'_>,
    stop: &AtomicBool,
) -> Result<BTreeMap<&'static str, Vec<u8>>, PrepareError> {
    let stage = Stage::Tokenizer;
    let mut bytes_by_language: BTreeMap<String, u64> = BTreeMap::new();
    for entry in training {
        *bytes_by_language.entry(spool.group(entry).lang.clone()).or_default() += u64::from(entry.text_len);
    }
    let mut trainer = TokenizerTrainer::new(config, &bytes_by_language)?;
    let (mut bytes, mut rows) = (0, 0);
    for entry in training {
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
