//! Owns certificates: one signed statement about a run, how it is made and how it is checked; never touches training.
//!
//! A certificate is an in-toto Statement, version 1, in a signed envelope ([`envelope`]). Its subjects are the files of the
//! run's newest checkpoint, of its tokenizer, its data and its exports; its predicate holds what the run is repeated from
//! (the configuration with every value), and what it computed ([`trace`]). `jazari replay` does the run again.

pub mod envelope;
pub mod program;
pub mod statement;
pub mod subjects;
pub mod trace;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use self::envelope::{EnvelopeError, KeyError, PrivateKey, PublicKey};
use self::statement::Predicate;
use self::subjects::{Finding, OnBytes, Subject};
use self::trace::Trace;
use crate::card::RunFacts;
use crate::card::data::DataFacts;
use crate::checkpoint::{self, CheckpointError, DatasetChange, Manifest};
use crate::durable::{self, FileError};
use crate::run_dir;

/// File name inside a run directory.
pub const FILE: &str = "certificate.json";
/// Largest certificate that is read, bytes: a million logged steps fit.
const LIMIT_BYTES: u64 = 512 << 20;
/// Files of a run directory that a certificate speaks for, beside its newest checkpoint and its tokenizer.
const RUN_FILES: [&str; 4] = ["config.resolved.yaml", "plan.json", crate::card::data::FILE, "metrics.jsonl"];

/// Why a certificate cannot be made or used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A key cannot be used.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// Disk trouble.
    #[error(transparent)]
    File(#[from] FileError),
    /// A checkpoint is damaged.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The run cannot be certified.
    #[error("{}: {what}", run.display())]
    NotCertifiable {
        /// The run directory.
        run: PathBuf,
        /// Why, and what to do.
        what: String,
    },
    /// The certificate is not what was signed.
    #[error("{}: refused: {source}", path.display())]
    Refused {
        /// The certificate.
        path: PathBuf,
        /// Why.
        source: EnvelopeError,
    },
    /// The certificate exists.
    #[error("{}: it exists already; move it away, or choose another file with --out", path.display())]
    Exists {
        /// The certificate.
        path: PathBuf,
    },
}

/// A signed certificate.
pub type Statement = statement::Statement<Certificate>;
/// A certificate whose signature was checked.
pub type Opened = statement::Opened<Certificate>;

impl Predicate for Certificate {
    const TYPE: &'static str = "urn:jazari:training-certificate:1";
    const WHAT: &'static str = "certificate";

    fn signer(&self) -> &str {
        &self.signer
    }
}

/// What a certificate says of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Certificate {
    /// Name of the run directory.
    pub run: String,
    /// When it was signed, milliseconds since 1970, by the signer's clock.
    pub signed_unix_ms: u64,
    /// Public key of the signer, PEM. It proves that nothing was changed since; whose key it is, it does not prove.
    pub signer: String,
    /// The checkpoint that stands for the run.
    pub checkpoint: CertifiedCheckpoint,
    /// `config.resolved.yaml`: every value, defaults included.
    pub config: String,
    /// `plan.json`.
    pub plan: Value,
    /// The data: identities, languages, sources, licences.
    pub data: DataFacts,
    /// Where exports were when they were certified, in the order of the places `export-0`, `export-1`, ...
    pub exports: Vec<PathBuf>,
    /// Every start of the run, as its log has it: version, binary, device, machine, processes.
    pub starts: Vec<Value>,
    /// Steps that were skipped, checkpoints set aside, languages that got worse, other data sets.
    pub incidents: Vec<Value>,
    /// Crates and versions of the program that signs.
    pub crates: BTreeMap<String, Vec<String>>,
    /// What the run computed.
    pub trace: Trace,
    /// Newest evaluation on held-out text.
    pub evaluation: Option<Value>,
    /// Newest results of `jazari eval`.
    pub results: Option<Value>,
}

/// The checkpoint that stands for a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CertifiedCheckpoint {
    /// Folder below `checkpoints/`.
    pub name: String,
    /// Steps done.
    pub step: u64,
    /// Target tokens.
    pub tokens: u64,
    /// Digest of its state.
    pub state_digest: String,
    /// Digest of the plan.
    pub plan: String,
    /// Digest of the data set.
    pub dataset: String,
    /// Data sets that took another's place on the way.
    pub dataset_changes: Vec<DatasetChange>,
}

/// What to certify.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The run directory.
    pub run: &'a Path,
    /// Exports of it.
    pub exports: &'a [PathBuf],
    /// Where its data sets are now; empty: where they were when it ran.
    pub datasets: &'a [PathBuf],
}

/// States what a run is and did.
///
/// # Errors
/// When the run has no valid checkpoint, its logs hold no trace, or a file cannot be read.
pub fn certify(request: Request<'_>, signer: &PublicKey, on_bytes: OnBytes<'_>) -> Result<Statement, CertificateError> {
    let run = request.run;
    let refuse = |what: String| CertificateError::NotCertifiable { run: run.to_owned(), what };
    if run_dir::is_locked(run) {
        return Err(refuse("a process trains in it now; certify it when it has ended".into()));
    }
    let newest = checkpoint::read::find(run)?;
    let manifest = Manifest::read(&newest)?;
    let facts = RunFacts::read(run);
    let trace = Trace::read(run, &facts)?;
    if trace.steps.is_empty() {
        let what = "its metrics.jsonl has no exact losses, which this version writes; train again with it";
        return Err(refuse(what.into()));
    }
    let planned = facts.planned("/digest").unwrap_or_default();
    if planned != manifest.identity.plan {
        return Err(refuse(format!(
            "plan.json is of plan {planned}, the newest checkpoint of plan {}; let the run save once more, then certify it",
            manifest.identity.plan
        )));
    }
    let name = newest.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let mut subject = run_subjects(run, &name, on_bytes)?;
    for (number, folder) in data_places(&facts.data, request.datasets).iter().enumerate() {
        let files = subjects::files_of(folder)
            .map_err(|error| refuse(format!("its data set is not at hand ({error}); name it with --dataset")))?;
        subject.extend(subjects::describe(&format!("data-{number}"), &files, on_bytes)?);
    }
    for (number, folder) in request.exports.iter().enumerate() {
        subject.extend(subjects::describe(&format!("export-{number}"), &subjects::files_of(folder)?, on_bytes)?);
    }
    let predicate = predicate(request, signer, (name, &manifest), facts, trace);
    Ok(Statement::new(subject, predicate))
}

fn predicate(
    request: Request<'_>,
    signer: &PublicKey,
    (name, manifest): (String, &Manifest),
    facts: RunFacts,
    trace: Trace,
) -> Certificate {
    let kinds = |names: &[&str]| -> Vec<Value> {
        let is_one =
            |event: &&Value| event.get("event").and_then(Value::as_str).is_some_and(|kind| names.contains(&kind));
        facts.events.iter().filter(is_one).cloned().collect()
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Certificate {
        run: std::path::absolute(request.run)
            .ok()
            .and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned()))
            .unwrap_or_default(),
        signed_unix_ms: u64::try_from(now.as_millis()).unwrap_or(u64::MAX),
        signer: signer.to_pem(),
        checkpoint: CertifiedCheckpoint {
            name,
            step: manifest.step,
            tokens: manifest.tokens,
            state_digest: manifest.state_digest.clone(),
            plan: manifest.identity.plan.clone(),
            dataset: manifest.identity.dataset.clone(),
            dataset_changes: manifest.dataset_changes.clone(),
        },
        starts: kinds(&["started"]),
        incidents: kinds(&["skipped", "set_aside", "regressed", "dataset_changed", "save_failed", "resumed"]),
        exports: request.exports.to_vec(),
        crates: program::crates(),
        trace,
        evaluation: facts.evaluations.last().cloned(),
        results: facts.results.as_ref().and_then(|results| serde_json::to_value(results).ok()),
        config: facts.config,
        plan: facts.plan,
        data: facts.data,
    }
}

/// The files of a run directory that a certificate speaks for.
fn run_subjects(run: &Path, checkpoint: &str, on_bytes: OnBytes<'_>) -> Result<Vec<Subject>, FileError> {
    let mut files: BTreeMap<String, PathBuf> =
        RUN_FILES.iter().map(|name| ((*name).to_owned(), run.join(name))).collect();
    for folder in [format!("checkpoints/{checkpoint}"), "tokenizer".into()] {
        let inside = subjects::files_of(&run.join(&folder))?;
        files.extend(inside.into_iter().map(|(name, path)| (format!("{folder}/{name}"), path)));
    }
    subjects::describe("run", &files, on_bytes)
}

/// Where the data sets are.
fn data_places(data: &DataFacts, named: &[PathBuf]) -> Vec<PathBuf> {
    if named.is_empty() { data.datasets.iter().map(|dataset| dataset.path.clone()).collect() } else { named.to_vec() }
}

/// Signs a statement and writes it to a file that must not exist yet.
///
/// # Errors
/// When the file exists or cannot be written.
pub fn write(path: &Path, statement: &Statement, key: &PrivateKey) -> Result<(), CertificateError> {
    if path.exists() {
        return Err(CertificateError::Exists { path: path.to_owned() });
    }
    Ok(durable::write_atomic(path, statement.seal(key).as_bytes())?)
}

/// Reads a certificate and checks its signature: against `trusted`, or, where nobody is named, against the key that the
/// certificate itself names.
///
/// # Errors
/// When the file cannot be read, is no certificate, or the signature does not fit.
pub fn open(path: &Path, trusted: Option<&PublicKey>) -> Result<Opened, CertificateError> {
    Statement::open(path, &durable::read_text(path, LIMIT_BYTES)?, trusted)
}

/// Where the files of a certificate are now; empty: where they were.
#[derive(Debug, Clone, Default)]
pub struct Places {
    /// The run directory.
    pub run: Option<PathBuf>,
    /// The data sets, in the certificate's order.
    pub datasets: Vec<PathBuf>,
    /// The exports, in the certificate's order.
    pub exports: Vec<PathBuf>,
}

/// The result of checking one of the places of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlaceReport {
    /// Its name in the certificate: `run`, `data-0`, `export-0`.
    pub place: String,
    /// Where it was looked for.
    pub folder: PathBuf,
    /// Files that were compared; `None` where the folder is not at hand.
    pub files: Option<usize>,
    /// What is wrong.
    pub findings: Vec<Finding>,
}

/// Compares every file that is at hand with the certificate that lies at `path`.
///
/// # Errors
/// When a folder cannot be listed.
pub fn check(
    path: &Path,
    opened: &Opened,
    places: &Places,
    on_bytes: OnBytes<'_>,
) -> Result<Vec<PlaceReport>, FileError> {
    let certificate = &opened.statement.predicate;
    let beside = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let run = places.run.clone().unwrap_or_else(|| beside.to_owned());
    // A folder that only happens to hold the certificate is no run; one that was named must be.
    let run_is_there = places.run.is_some() || run.join("checkpoints").is_dir();
    let mut wanted = vec![("run".to_owned(), run, run_is_there, false)];
    let mut add = |kind: &str, certified: Vec<PathBuf>, named: &[PathBuf]| {
        for (number, folder) in certified.into_iter().enumerate() {
            let named = named.get(number);
            let folder = named.cloned().unwrap_or(folder);
            let is_there = named.is_some() || folder.is_dir();
            wanted.push((format!("{kind}-{number}"), folder, is_there, true));
        }
    };
    add("data", data_places(&certificate.data, &[]), &places.datasets);
    add("export", certificate.exports.clone(), &places.exports);
    let mut reports = Vec::new();
    for (place, folder, is_there, whole) in wanted {
        let mine = |subject: &&Subject| subject.name.split('/').next() == Some(place.as_str());
        let count = opened.statement.subject.iter().filter(mine).count();
        let findings = if is_there {
            subjects::check(&place, &folder, &opened.statement.subject, whole, on_bytes)?
        } else {
            Vec::new()
        };
        reports.push(PlaceReport { place, folder, files: is_there.then_some(count), findings });
    }
    Ok(reports)
}
