//! Owns `jazari bundle`: arguments, progress, printing; never touches archives itself.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use indicatif::HumanBytes;

use super::certify::with_progress;
use super::failure::{Exit, Failure, note, say};
use crate::bundle::{self, BundleError};
use crate::certificate::CertificateError;
use crate::certificate::envelope::{PrivateKey, PublicKey};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Pack this program and whatever a site needs into one signed file
    Create(CreateArguments),
    /// Check a bundle from its first byte to its last
    Verify(VerifyArguments),
    /// Check a bundle and unpack it into a folder that does not exist yet
    Unpack(UnpackArguments),
}

#[derive(Debug, Args)]
pub(super) struct CreateArguments {
    /// Files and folders: recipes, data sets, base models, certificates, documents; NAME=PATH gives another name
    #[arg(required = true, value_name = "[NAME=]PATH")]
    content: Vec<String>,
    /// Private key that signs, made by `jazari key new`
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// Where the bundle is written
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Leave this program out; else it is packed as bin/jazari
    #[arg(long)]
    no_program: bool,
}

#[derive(Debug, Args)]
pub(super) struct VerifyArguments {
    /// A bundle
    bundle: PathBuf,
    /// The public key that must have signed it
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct UnpackArguments {
    #[command(flatten)]
    bundle: VerifyArguments,
    /// Folder to make
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

impl From<BundleError> for Failure {
    fn from(error: BundleError) -> Self {
        match error {
            // To refuse is what the command is for.
            BundleError::Refused { .. } | BundleError::List(CertificateError::Refused { .. }) => Self::failed(error),
            other => Self::usage(other),
        }
    }
}

pub(super) fn run(command: &Command) -> Result<Exit, Failure> {
    match command {
        Command::Create(arguments) => create(arguments),
        Command::Verify(arguments) => open(arguments, None),
        Command::Unpack(arguments) => open(&arguments.bundle, Some(&arguments.out)),
    }
}

fn create(arguments: &CreateArguments) -> Result<Exit, Failure> {
    let key = PrivateKey::read(&arguments.key).map_err(Failure::usage)?;
    let mut content = arguments.content.iter().map(|text| named(text)).collect::<Result<Vec<_>, _>>()?;
    if !arguments.no_program {
        content.push(("bin/jazari".into(), std::env::current_exe().map_err(Failure::failed)?));
    }
    let out = &arguments.out;
    let statement = with_progress(|on_bytes| bundle::pack(out, &content, &key, on_bytes))?;
    let files = &statement.predicate.files;
    let bytes: u64 = files.values().map(|entry| entry.bytes).sum();
    let packed = std::fs::metadata(out).map(|metadata| metadata.len()).unwrap_or_default();
    say(&format!("{}: {} files, {}, packed {}", out.display(), files.len(), HumanBytes(bytes), HumanBytes(packed)));
    say(&format!("signed with key {}", key.public().id()));
    Ok(Exit::Done)
}

/// `NAME=PATH`, or a path that is called by its last part.
fn named(text: &str) -> Result<(String, PathBuf), Failure> {
    if let Some((name, path)) = text.split_once('=').filter(|_| !Path::new(text).exists()) {
        return Ok((name.to_owned(), path.into()));
    }
    let path = PathBuf::from(text);
    let name = path.canonicalize().ok().and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned()));
    match name {
        Some(name) => Ok((name, path)),
        None => Err(Failure::usage(format!("{text}: there is no such file or folder; check the path"))),
    }
}

fn open(arguments: &VerifyArguments, into: Option<&Path>) -> Result<Exit, Failure> {
    let trusted = arguments.key.as_deref().map(PublicKey::read).transpose().map_err(Failure::usage)?;
    let path = &arguments.bundle;
    let opened = with_progress(|on_bytes| bundle::open(path, trusted.as_ref(), into, on_bytes))?;
    let id = opened.signer.id();
    if trusted.is_none() {
        note("warning: anybody can sign with a key of their own; name the one you trust with --key FILE.pub");
    }
    let (files, bytes) = bundle::total(&opened);
    let done =
        into.map_or_else(|| "every file is as signed".to_owned(), |out| format!("unpacked into {}", out.display()));
    say(&format!("{}: {files} files, {}, signed with key {id}: {done}", path.display(), HumanBytes(bytes)));
    Ok(Exit::Done)
}
