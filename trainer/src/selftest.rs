//! Owns the checks of a user's own machine: which there are, in what order, what counts as a miss; never touches the
//! terminal.
//!
//! What involves training runs the program itself as child processes, in a work folder, through the same commands that
//! a user types: a self-test that took another way would prove little about the real one.

mod child;
mod collectives;
mod corpus;
mod disk;
mod exported;
mod folder;
mod gpu;
mod machine;
mod nccl;
mod rank;
mod table;
mod training;

use std::path::PathBuf;

use crate::durable::{self, FileError};
use crate::signals::StopFlag;

pub use folder::{WorkFolder, WorkFolderError};
pub use rank::{RANK_COMMAND, rank};
pub use table::{Figure, Progress, Row, Verdict};

use rank::Sum;
use table::{Finding, Table};
use training::Trained;

/// Fewest and most processes that the checks of the cluster run with.
pub const PROCESSES: std::ops::RangeInclusive<usize> = 2..=32;

/// What a self-test needs.
#[derive(Debug, Clone)]
pub struct Setup {
    /// This program, which is run again and again.
    pub program: PathBuf,
    /// Processes that talk to each other, within [`PROCESSES`].
    pub processes: usize,
    /// An absolute path to an empty folder.
    pub folder: PathBuf,
    /// Ends the self-test early.
    pub stop: StopFlag,
}

/// Why a self-test did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum SelftestError {
    /// A signal came.
    #[error("stopped by a signal before all checks were done; start `jazari selftest` again")]
    Interrupted,
    /// The work folder cannot be used.
    #[error(transparent)]
    Folder(#[from] FileError),
}

/// Runs every check. One that fails is a row that says so; the others are still run.
///
/// # Errors
/// When the work folder cannot be written, or a signal came.
pub fn run(setup: &Setup, observe: &mut dyn FnMut(Progress<'_>)) -> Result<Vec<Row>, SelftestError> {
    durable::create_folder(&setup.folder.join(child::LOGS))?;
    training::write_inputs(setup)?;
    let mut table = Table::new(setup.stop.clone(), observe);
    table.check("machine", || machine::describe(&setup.folder))?;
    table.check("kernels", machine::cpu_kernels)?;
    table.check("disk", || disk::bandwidth(&setup.folder, &setup.stop))?;
    table.check("commit", || disk::commit_latency(&setup.folder))?;
    check_collectives(setup, &mut table)?;
    let reference = check_training(setup, &mut table)?;
    gpu::check(setup, reference.as_ref(), &mut table)?;
    Ok(table.into_rows())
}

fn check_collectives(setup: &Setup, table: &mut Table<'_>) -> Result<(), SelftestError> {
    let mut report = None;
    table.check("collectives", || report.insert(collectives::run(setup)?).correctness())?;
    for (name, sum) in [("all_reduce, exact", Sum::Exact), ("all_reduce, fast", Sum::Fast)] {
        let report = report.as_ref();
        table.check(name, || report.ok_or("not measured: the collectives did not work")?.speed(sum))?;
    }
    Ok(())
}

/// Returns the run of one process, which others are compared with.
fn check_training(setup: &Setup, table: &mut Table<'_>) -> Result<Option<Trained>, SelftestError> {
    let mut reference = None;
    table.check("data", || training::prepare(setup))?;
    table.check("training", || {
        let trained = reference.insert(training::train(setup, "run-1", 1, &[])?);
        let (first, last) = trained.ends();
        let result = format!("{} steps of a small model on one process", trained.losses.len());
        Ok(Finding::ok(result).with("first loss", first, "nats").with("last loss", last, "nats"))
    })?;
    let found = reference.as_ref();
    let needed = || found.ok_or("not checked: the run of one process failed");
    table.check("invariance", || training::invariance(setup, needed()?))?;
    table.check("resume", || training::resume(setup, needed()?))?;
    table.check("export", || exported::export(setup, needed()?))?;
    table.check("parity", || exported::parity(setup))?;
    table.check("generate", || exported::generate(setup))?;
    Ok(reference)
}
