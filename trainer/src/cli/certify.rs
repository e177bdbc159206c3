//! Owns `jazari key`, `jazari certify` and the check of a certificate: arguments, progress, printing; never touches what is
//! signed.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use clap::{Args, Subcommand};

use super::failure::{Exit, Failure, note, say};
use super::progress::{StageProgress, short, thousands};
use crate::certificate::envelope::{self, PrivateKey, PublicKey};
use crate::certificate::subjects::OnBytes;
use crate::certificate::{self, CertificateError, Opened, PlaceReport, Places, Request};

#[derive(Debug, Subcommand)]
pub(super) enum KeyCommand {
    /// Make a pair of keys: NAME, which stays with you, and NAME.pub, which everybody may have
    New {
        /// Where the private key is written; no file of this name may exist
        name: PathBuf,
    },
    /// Print the id of a public key, to compare it with what its owner says
    Id {
        /// A public key (NAME.pub)
        key: PathBuf,
    },
}

#[derive(Debug, Args)]
pub(super) struct CertifyArguments {
    /// A run directory
    run: PathBuf,
    /// Private key that signs, made by `jazari key new` or `openssl genpkey -algorithm ed25519`
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// An export of this run that the certificate speaks for too; may be given several times
    #[arg(long = "export", value_name = "DIR")]
    exports: Vec<PathBuf>,
    /// Where the run's data set is now; default: where it was; may be given several times, in the order of the config
    #[arg(long = "dataset", value_name = "DIR")]
    datasets: Vec<PathBuf>,
    /// Where the certificate is written; default: certificate.json in the run directory
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// What checking a certificate needs to know beside its path.
#[derive(Debug, Args)]
pub(super) struct CertificateArguments {
    /// For a certificate: the public key that must have signed it
    #[arg(long, value_name = "FILE")]
    pub(super) key: Option<PathBuf>,
    /// For a certificate: the run directory; default: the folder it lies in
    #[arg(long, value_name = "DIR")]
    run: Option<PathBuf>,
    /// For a certificate: where a data set is now, in the order of the config; may be given several times
    #[arg(long = "dataset", value_name = "DIR")]
    datasets: Vec<PathBuf>,
    /// For a certificate: where an export is now, in the order of certification; may be given several times
    #[arg(long = "export", value_name = "DIR")]
    exports: Vec<PathBuf>,
}

impl From<CertificateError> for Failure {
    fn from(error: CertificateError) -> Self {
        match error {
            // To refuse is what the command is for.
            CertificateError::Refused { .. } => Self::failed(error),
            other => Self::usage(other),
        }
    }
}

/// Makes a key or names one.
pub(super) fn key(command: &KeyCommand) -> Result<Exit, Failure> {
    match command {
        KeyCommand::New { name } => {
            let (key, public) = PrivateKey::create(name).map_err(Failure::usage)?;
            say(&format!("{}: private key, keep it to yourself (mode 600)", name.display()));
            say(&format!("{}: public key, give it to those who check your certificates", public.display()));
            say(&format!("key id {}", key.public().id()));
        }
        KeyCommand::Id { key } => {
            say(&PublicKey::read(key).map_err(Failure::usage)?.id());
        }
    }
    Ok(Exit::Done)
}

/// Signs what a run is and did.
pub(super) fn certify(arguments: &CertifyArguments) -> Result<Exit, Failure> {
    let key = PrivateKey::read(&arguments.key).map_err(Failure::usage)?;
    let path = arguments.out.clone().unwrap_or_else(|| arguments.run.join(certificate::FILE));
    if path.exists() {
        return Err(CertificateError::Exists { path }.into());
    }
    let CertifyArguments { run, exports, datasets, .. } = arguments;
    let request = Request { run, exports, datasets };
    let statement = with_progress(|on_bytes| certificate::certify(request, &key.public(), on_bytes))?;
    certificate::write(&path, &statement, &key).map_err(Failure::from)?;
    let certified = &statement.predicate;
    let trace = &certified.trace;
    say(&format!(
        "{}: step {}, {} target tokens, state {}; {} files, {} logged steps, {} digests of parameters, {} of states",
        path.display(),
        certified.checkpoint.step,
        thousands(certified.checkpoint.tokens as f64),
        short(&certified.checkpoint.state_digest),
        statement.subject.len(),
        trace.steps.len(),
        trace.parameters.len(),
        trace.states.len()
    ));
    say(&format!("signed with key {}", key.public().id()));
    let public = envelope::public_path(&arguments.key);
    say(&format!("check it: jazari verify {} --key {}", path.display(), public.display()));
    say(&format!("repeat the run: jazari replay {} --key {}", path.display(), public.display()));
    Ok(Exit::Done)
}

/// Runs work that reads many bytes.
pub(super) fn with_progress<T, E>(work: impl FnOnce(OnBytes<'_>) -> Result<T, E>) -> Result<T, Failure>
where
    Failure: From<E>,
{
    let mut progress = StageProgress::new();
    progress.stage("reading files", None);
    let (progress, read) = (Mutex::new(progress), AtomicU64::new(0));
    let on_bytes = |bytes: u64| {
        let all = read.fetch_add(bytes, Ordering::Relaxed) + bytes;
        // Whoever finds the bar busy leaves it to the others.
        if let Ok(mut progress) = progress.try_lock() {
            progress.at(all, "");
        }
    };
    let done = work(&on_bytes);
    if let Ok(mut progress) = progress.lock() {
        progress.end();
    }
    Ok(done?)
}

/// Opens a certificate and says who signed it.
pub(super) fn open(path: &Path, key: Option<&Path>) -> Result<Opened, Failure> {
    let trusted = key.map(PublicKey::read).transpose().map_err(Failure::usage)?;
    let opened = certificate::open(path, trusted.as_ref()).map_err(Failure::from)?;
    let id = opened.signer.id();
    match trusted {
        Some(_) => say(&format!("ok   signature              of the key that you trust, {id}")),
        None => {
            say(&format!("ok   signature              of key {id}, which the certificate itself names"));
            note("warning: anybody can sign with a key of their own; name the one you trust with --key FILE.pub");
        }
    }
    Ok(opened)
}

/// Checks a certificate and every file of it that is at hand.
pub(super) fn verify(path: &Path, arguments: &CertificateArguments) -> Result<Exit, Failure> {
    let opened = open(path, arguments.key.as_deref())?;
    let CertificateArguments { run, datasets, exports, .. } = arguments;
    let places = Places { run: run.clone(), datasets: datasets.clone(), exports: exports.clone() };
    let reports =
        with_progress(|on_bytes| certificate::check(path, &opened, &places, on_bytes).map_err(Failure::usage))?;
    reports.iter().for_each(show);
    let bad: usize = reports.iter().map(|report| report.findings.len()).sum();
    let unseen = reports.iter().filter(|report| report.files.is_none()).count();
    let certified = &opened.statement.predicate;
    let verdict = match (bad, unseen) {
        (0, 0) => "everything is as certified".to_owned(),
        (0, _) => "what is at hand is as certified".to_owned(),
        (bad, _) => format!("REFUSED, {bad} files are not as certified"),
    };
    let step = certified.checkpoint.step;
    say(&format!("{}: run {} at step {step}: {verdict}", path.display(), certified.run));
    Ok(if bad == 0 { Exit::Done } else { Exit::Failed })
}

fn show(report: &PlaceReport) {
    let (place, folder) = (&report.place, report.folder.display());
    for finding in &report.findings {
        say(&format!("FAIL {place:<22} {}: {}", finding.path.display(), finding.what));
    }
    match report.files {
        None => {
            let kind = place.split('-').next().unwrap_or_default();
            let option = if kind == "data" { "dataset" } else { kind };
            note(&format!("note: {place} was not checked: it is not at {folder}; say where it is with --{option} DIR"));
        }
        Some(files) if report.findings.is_empty() => say(&format!("ok   {place:<22} {folder}: {files} files")),
        Some(_) => {}
    }
}
