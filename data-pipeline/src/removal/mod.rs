//! Owns taking documents out of a finished data set: which, the rewritten folder, the one exchange that publishes it, and
//! the log; never touches raw files or runs.
//!
//! The new data set is written and verified beside the old one, then both folders change places in one system call. A
//! process that is killed leaves the old or the new data set whole, and what else it left is cleared by the next removal.

mod exchange;
mod log;
mod rewrite;
mod selection;
mod sums;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

pub use self::log::{
    LOG_FILE, OldStream, REMOVED_FILE, Removal, RemovedDocument, old_streams, read_log, removed_document,
};
pub use self::selection::Selection;
pub(crate) use self::sums::replace;

use self::exchange::Workplace;
use crate::dataset::DataError;
use crate::manifest::Manifest;
use crate::stats::StatsError;
use crate::verify::{self, VerifyProgress};

/// Why nothing was removed. The data set is as it was.
#[derive(Debug, thiserror::Error)]
pub enum RemovalError {
    /// The data set cannot be read, or the new one not written.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The statistics cannot be read.
    #[error(transparent)]
    Stats(#[from] StatsError),
    /// Nothing is named.
    #[error("nothing is named; write for example `--id`, `--source`, `--licence`, `--url-prefix` or `--ids-file`")]
    EmptySelection,
    /// A selection that no document fits.
    #[error(
        "{}: no document fits {selection}; `jazari data stats` lists sources and licences, `jazari data trace --document` \
         looks for an identifier", .dir.display()
    )]
    Nothing {
        /// The data set.
        dir: PathBuf,
        /// What was looked for.
        selection: String,
    },
    /// A selection that leaves nothing.
    #[error("{}: nothing would be left of {documents} documents; delete the folder instead", .dir.display())]
    Everything {
        /// The data set.
        dir: PathBuf,
        /// Its documents.
        documents: u64,
    },
    /// A selection that leaves nothing to learn from.
    #[error(
        "{}: no training document would be left, only held-out ones; prepare the data again without the sources",
        .dir.display()
    )]
    NothingToLearn {
        /// The data set.
        dir: PathBuf,
    },
    /// Another process removes documents from this data set.
    #[error("{}: another process is removing documents here; wait for it", .dir.display())]
    Busy {
        /// The data set.
        dir: PathBuf,
    },
}

/// When and why, as the log keeps it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cause {
    /// Time in UTC, ISO 8601.
    pub time: String,
    /// Why, in the user's words.
    pub reason: Option<String>,
}

/// What a removal does, or would do.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// What goes into the log; of a dry run `new` is empty.
    pub removal: Removal,
    /// Documents that stay.
    pub documents_left: u64,
    /// Tokens that stay.
    pub tokens_left: u64,
    /// Shards that are rewritten or go.
    pub shards_changed: usize,
    /// What is worth knowing.
    pub warnings: Vec<String>,
    /// The very same was removed before, and nothing was left to do: `removal` is that of the log.
    pub already: bool,
}

/// What the observer hears.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RemovalProgress {
    /// Shards looked through.
    Searching(VerifyProgress),
    /// Tokens copied into new shards, in bytes.
    Writing(VerifyProgress),
    /// Bytes of the new data set read back.
    Verifying(VerifyProgress),
}

/// Takes the documents that `selection` names out of the data set in `dir`, or with `dry_run` only counts them.
///
/// # Errors
/// See [`RemovalError`]; the data set is then as it was.
pub fn remove(
    dir: &Path,
    selection: &Selection,
    cause: &Cause,
    dry_run: bool,
    observe: &dyn Fn(RemovalProgress),
    stop: &AtomicBool,
) -> Result<Report, RemovalError> {
    if selection.is_empty() {
        return Err(RemovalError::EmptySelection);
    }
    let workplace = if dry_run { None } else { Some(Workplace::open(dir)?) };
    let manifest = Manifest::read(dir)?;
    let found = selection::search(dir, &manifest, selection, observe, stop)?;
    if found.documents.is_empty() {
        // A process that was killed after the exchange leaves its user in doubt; the same command says that all is well.
        if let Some(report) = done_before(dir, &manifest, selection)? {
            return Ok(report);
        }
        return Err(RemovalError::Nothing { dir: dir.to_owned(), selection: selection.to_string() });
    }
    let mut report = found.report(&manifest, selection, cause);
    refuse_empty(dir, &manifest, &found)?;
    let Some(workplace) = workplace else { return Ok(report) };
    let fresh = workplace.fresh()?;
    let made = make((dir, &fresh), &manifest, &found, &mut report, observe, stop);
    if made.is_err() {
        // Half a data set is of no use.
        _ = std::fs::remove_dir_all(&fresh);
    }
    made?;
    workplace.publish()?;
    Ok(report)
}

/// The newest removal of the log, if it was of this selection and made this data set.
fn done_before(dir: &Path, manifest: &Manifest, selection: &Selection) -> Result<Option<Report>, RemovalError> {
    let last = read_log(dir)?.pop();
    let same = last.filter(|removal| removal.new == manifest.id() && removal.selection == selection.entries());
    let sum = |count: fn(&crate::manifest::ShardRecord) -> u64| manifest.shards.iter().map(count).sum();
    Ok(same.map(|removal| Report {
        removal,
        documents_left: sum(|shard| shard.documents),
        tokens_left: sum(|shard| shard.tokens),
        shards_changed: 0,
        warnings: Vec::new(),
        already: true,
    }))
}

/// Makes the new data set in `fresh` and reads all of it back.
fn make(
    (dir, fresh): (&Path, &Path),
    manifest: &Manifest,
    found: &selection::Found,
    report: &mut Report,
    observe: &dyn Fn(RemovalProgress),
    stop: &AtomicBool,
) -> Result<(), RemovalError> {
    let new = rewrite::rewrite((dir, fresh), manifest, found, observe, stop)?;
    report.removal.new = new.id();
    log::append(fresh, &report.removal, &found.documents)?;
    sums::write(dir, fresh, manifest, &new, found)?;
    let progress = |at: VerifyProgress| observe(RemovalProgress::Verifying(at));
    report.warnings.extend(verify::verify(fresh, &progress, stop)?.warnings);
    Ok(())
}

fn refuse_empty(dir: &Path, manifest: &Manifest, found: &selection::Found) -> Result<(), RemovalError> {
    let documents: u64 = manifest.shards.iter().map(|shard| shard.documents).sum();
    if found.documents.len() as u64 == documents {
        return Err(RemovalError::Everything { dir: dir.to_owned(), documents });
    }
    let mut left: BTreeMap<crate::manifest::Split, u64> = BTreeMap::new();
    for (shard, numbers) in manifest.shards.iter().zip(&found.by_shard) {
        *left.entry(shard.split).or_default() += shard.documents - numbers.len() as u64;
    }
    match left.get(&crate::manifest::Split::Train) {
        Some(0) | None => Err(RemovalError::NothingToLearn { dir: dir.to_owned() }),
        Some(_) => Ok(()),
    }
}
