//! Owns comparing this implementation with stored reference results, check by check; never touches runs.
//!
//! A bundle is a directory with `hf/` (a Hugging Face checkpoint) and `expected/` (what PyTorch computed from it), or
//! with `adapter/` (an adapter for the checkpoint of another bundle) and `expected/`.
//! Gradients and optimizer steps go through the functions that training calls.

mod adapter;
mod bundle;
mod difference;
mod error;
mod inference;
mod mixed;
mod reference;
mod text;
mod training;

use std::path::Path;

use burn::tensor::{DType, Device};

use crate::hub;
use bundle::Bundle;
pub use error::ParityError;
pub use reference::write_reference;

/// One comparison.
#[derive(Debug, Clone, PartialEq)]
pub struct ParityRow {
    /// What was compared.
    pub check: String,
    /// The largest difference found, or the number of cases that differ.
    pub value: f64,
    /// The largest value that passes.
    pub tolerance: f64,
    /// How much was compared, and where the largest difference lies.
    pub detail: String,
}

impl ParityRow {
    /// Whether the value is within the tolerance; a value that is not a number never is.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.value <= self.tolerance
    }
}

/// All comparisons of a bundle.
#[derive(Debug, Clone, PartialEq)]
pub struct ParityReport {
    /// Name of the bundle.
    pub name: String,
    /// In order.
    pub rows: Vec<ParityRow>,
    /// What was not compared: the bundle has no reference for it, or the device cannot compute it.
    pub absent: Vec<&'static str>,
}

impl ParityReport {
    /// Whether every row passed.
    #[must_use]
    pub fn passed(&self) -> bool {
        !self.rows.is_empty() && self.rows.iter().all(ParityRow::passed)
    }
}

/// Runs every comparison of the bundle in `dir` on `device`. `observer` sees each row as it is done.
///
/// # Errors
/// [`ParityError`] when the bundle is not one, is damaged, or is of a kind that is not supported yet. A difference is
/// no error: it is a row that did not pass.
pub fn run(dir: &Path, device: &Device, observer: &dyn Fn(&ParityRow)) -> Result<ParityReport, ParityError> {
    let mut table = Table { rows: Vec::new(), observer };
    if dir.join("adapter").is_dir() {
        let name = adapter::run(dir, device, &mut table)?;
        return Ok(ParityReport { name, rows: table.rows, absent: Vec::new() });
    }
    let bundle = Bundle::open(dir)?;
    let imported = hub::import(&bundle.hub, device)?;
    let mut absent = Vec::new();
    inference::compare(&bundle, &imported, device, &mut table)?;
    if bundle.manifest.training.is_some() {
        training::compare(&bundle, &imported, device, &mut table)?;
    } else {
        absent.push("training: the bundle has no reference for it");
    }
    // A kernel that cannot be compiled computes nothing, and its output is whatever stood there.
    if device.supports_dtype(DType::BF16) {
        mixed::compare(&bundle, &imported, device, &mut table)?;
    } else {
        absent.push("bf16: this device cannot compute in it");
    }
    text::compare(&bundle, &mut table)?;
    Ok(ParityReport { name: bundle.manifest.name.clone(), rows: table.rows, absent })
}

/// Rows under construction.
struct Table<'a> {
    rows: Vec<ParityRow>,
    observer: &'a dyn Fn(&ParityRow),
}

impl Table<'_> {
    fn add(&mut self, check: impl Into<String>, value: f64, tolerance: f64, detail: String) {
        let row = ParityRow { check: check.into(), value, tolerance, detail };
        (self.observer)(&row);
        self.rows.push(row);
    }

    /// A row for cases of which none may differ; `first` describes the first that does.
    fn add_cases(&mut self, check: &str, total: usize, differing: usize, first: Option<String>) {
        let detail =
            first.map_or_else(|| format!("{total} cases"), |first| format!("of {total} cases; first: {first}"));
        self.add(check, differing as f64, 0.0, detail);
    }
}
