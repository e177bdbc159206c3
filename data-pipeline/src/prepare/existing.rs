//! Owns recognising a dataset that is finished already, by its configuration and its input files; never writes into it.

use std::path::Path;
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};

use super::PREPARE_VERSION;
use super::error::PrepareError;
use crate::chat::ChatEncoder;
use crate::config::{PrepareConfig, json_digest};
use crate::source::discover::InputFile;
use crate::source::{SourceError, digest_file};
use crate::stats::Stats;
use crate::tokenizer::Tokenizer;

/// File of a dataset that tells what it was made from. It holds modification times, so no digest covers it.
pub const INPUTS_FILE: &str = "inputs.json";

/// What a dataset was made from.
#[derive(Debug, Serialize, Deserialize)]
struct Inputs {
    version: u32,
    rules: String,
    /// Digest of the tokenizer, when the configuration names one.
    tokenizer: Option<String>,
    /// Digest of the gates that the tokenizer has passed, where there were any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    gates: Option<String>,
    files: Vec<InputRecord>,
}

#[derive(Debug, Serialize, Deserialize)]
struct InputRecord {
    entry: usize,
    file: String,
    bytes: u64,
    modified_ns: u64,
    blake3: String,
}

/// A file as the file system describes it, without reading it.
#[derive(Debug, Serialize)]
struct Fingerprint<'a> {
    entry: usize,
    file: &'a str,
    bytes: u64,
    modified_ns: u64,
}

/// Modification time in nanoseconds since 1970; 0 where the system has none.
fn modified_ns(path: &Path) -> Result<u64, PrepareError> {
    let metadata = std::fs::metadata(path);
    let metadata = metadata.map_err(|source| SourceError::Io { path: path.to_owned(), action: "opened", source })?;
    let since = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    Ok(since.and_then(|since| u64::try_from(since.as_nanos()).ok()).unwrap_or(0))
}

/// Names what the documents are made from: rules, files, sizes and times.
pub(crate) fn documents_key(config: &PrepareConfig, files: &[InputFile]) -> Result<String, PrepareError> {
    let prints = files
        .iter()
        .map(|file| {
            let modified_ns = modified_ns(&file.path)?;
            Ok(Fingerprint { entry: file.entry, file: &file.label, bytes: file.bytes, modified_ns })
        })
        .collect::<Result<Vec<_>, PrepareError>>()?;
    let documents = json_digest(&(PREPARE_VERSION, config.documents_digest(), prints));
    Ok(match config.stage_files_digest()? {
        None => documents,
        Some(files) => json_digest(&(documents, files)),
    })
}

/// Digest of the rules, the chat template and the files of the stages included.
fn rules(config: &PrepareConfig, chats: Option<&ChatEncoder<'_>>) -> Result<String, PrepareError> {
    let rules = match config.stage_files_digest()? {
        None => config.rules_digest(),
        Some(files) => json_digest(&(config.rules_digest(), files)),
    };
    Ok(match chats {
        None => rules,
        Some(encoder) => json_digest(&(rules, encoder.template().source(), encoder.roles())),
    })
}

/// Names what a dataset is made from, wherever it lies: rules and the digests of the input files.
pub(crate) fn origin_digest(
    config: &PrepareConfig,
    chats: Option<&ChatEncoder<'_>>,
    stats: &Stats,
) -> Result<String, PrepareError> {
    let files: Vec<_> = stats.files.iter().map(|file| (file.entry, &file.file, &file.blake3)).collect();
    Ok(json_digest(&(PREPARE_VERSION, rules(config, chats)?, files)))
}

/// The record of a finished dataset's inputs, as [`INPUTS_FILE`] holds it.
pub(crate) fn record(
    config: &PrepareConfig,
    (given, chats): (Option<&Tokenizer>, Option<&ChatEncoder<'_>>),
    files: &[InputFile],
    stats: &Stats,
) -> Result<Vec<u8>, PrepareError> {
    let files = files
        .iter()
        .zip(&stats.files)
        .map(|(file, read)| {
            let modified_ns = modified_ns(&file.path)?;
            let (entry, bytes, blake3) = (file.entry, read.bytes, read.blake3.clone());
            Ok(InputRecord { entry, file: file.label.clone(), bytes, modified_ns, blake3 })
        })
        .collect::<Result<Vec<_>, PrepareError>>()?;
    let tokenizer = given.map(|tokenizer| tokenizer.digest().to_owned());
    let gates = gates_digest(config);
    let inputs = Inputs { version: PREPARE_VERSION, rules: rules(config, chats)?, tokenizer, gates, files };
    // Plain data always has a JSON form.
    let mut json = serde_json::to_vec_pretty(&inputs).unwrap_or_default();
    json.push(b'\n');
    Ok(json)
}

fn gates_digest(config: &PrepareConfig) -> Option<String> {
    let gates = &config.tokenizer.gates;
    (!gates.is_empty()).then(|| json_digest(gates))
}

/// Whether the tokenizer of the finished dataset has passed the gates of `config`. They decide nothing about its bytes, so
/// other gates make no other dataset.
pub(crate) fn has_passed_gates(config: &PrepareConfig) -> bool {
    let Some(gates) = gates_digest(config) else { return true };
    let json = std::fs::read(config.output_dir.join(INPUTS_FILE)).unwrap_or_default();
    serde_json::from_slice::<Inputs>(&json).is_ok_and(|inputs| inputs.gates == Some(gates))
}

/// Whether the output folder already holds what `config` would make of `files`.
///
/// # Errors
/// [`PrepareError::OutputTaken`] and [`PrepareError::OutputDiffers`] when it holds anything else.
pub(crate) fn is_prepared(
    config: &PrepareConfig,
    (given, chats): (Option<&Tokenizer>, Option<&ChatEncoder<'_>>),
    files: &[InputFile],
) -> Result<bool, PrepareError> {
    let dir = &config.output_dir;
    if !dir.exists() {
        return Ok(false);
    }
    let taken = || PrepareError::OutputTaken { dir: dir.clone() };
    if !dir.is_dir() {
        return Err(PrepareError::OutputIsFile { path: dir.clone() });
    }
    if std::fs::read_dir(dir).map_err(PrepareError::io(dir, "listed"))?.next().is_none() {
        return Ok(false);
    }
    let json = std::fs::read(dir.join(INPUTS_FILE)).map_err(|_| taken())?;
    let inputs: Inputs = serde_json::from_slice(&json).map_err(|_| taken())?;
    let difference = if inputs.version != PREPARE_VERSION {
        Some(format!("version {} of the preparation, this program has {PREPARE_VERSION}", inputs.version))
    } else if inputs.rules != rules(config, chats)? {
        Some("another configuration".to_owned())
    } else if inputs.tokenizer.as_deref() != given.map(Tokenizer::digest) {
        Some("another tokenizer".to_owned())
    } else {
        differing_input(&inputs, files)?
    };
    match difference {
        None => Ok(true),
        Some(difference) => Err(PrepareError::OutputDiffers { dir: dir.clone(), difference }),
    }
}

fn differing_input(inputs: &Inputs, files: &[InputFile]) -> Result<Option<String>, PrepareError> {
    if inputs.files.len() != files.len() {
        return Ok(Some(format!("{} input files where there are now {}", inputs.files.len(), files.len())));
    }
    for (record, file) in inputs.files.iter().zip(files) {
        let same_place = record.file == file.label && record.entry == file.entry;
        if !same_place || record.bytes != file.bytes {
            return Ok(Some(format!("another `{}`", file.label)));
        }
        // A new time with the same size may be a mere copy; only then is the file read.
        if record.modified_ns != modified_ns(&file.path)? && record.blake3 != digest_file(&file.path)?.blake3 {
            return Ok(Some(format!("another `{}`", file.label)));
        }
    }
    Ok(None)
}
