//! Owns what an evaluation found, as a value and as a file in the run's folder `eval/`; never computes a score.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::EvalError;
use super::choice::TaskResult;
use super::sample::Sample;
use super::subject::Origin;
use super::text::TextResult;
use crate::durable::{self, FileError};

/// Largest results that are read, bytes.
const LIMIT_BYTES: u64 = 64 << 20;
/// Folder of results inside a run directory.
pub const FOLDER: &str = "eval";

/// Everything that is known of one model. Equal models, inputs and options give equal bytes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Results {
    /// Version of the program.
    pub jazari: String,
    /// The model.
    pub model: Origin,
    /// Bits per byte by what was measured.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub text: BTreeMap<String, TextResult>,
    /// Multiple choice by task.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tasks: BTreeMap<String, TaskResult>,
    /// Samples.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub samples: Vec<Sample>,
}

impl Results {
    /// None yet.
    pub fn of(model: Origin) -> Self {
        let jazari = env!("CARGO_PKG_VERSION").to_owned();
        Self { jazari, model, text: BTreeMap::new(), tasks: BTreeMap::new(), samples: Vec::new() }
    }

    /// As JSON text.
    pub fn to_json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).unwrap_or_default();
        text.push('\n');
        text
    }

    /// Adds these results to those that the run already has of the same state, and returns the file.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn add_to_run(&self, run: &Path) -> Result<PathBuf, EvalError> {
        let folder = run.join(FOLDER);
        let path = folder.join(format!("step-{:08}.json", self.model.step.unwrap_or(0)));
        let mut all = match read(&path) {
            Some(earlier) if earlier.model.digest == self.model.digest => earlier,
            _ => Self::of(self.model.clone()),
        };
        all.text.extend(self.text.clone());
        all.tasks.extend(self.tasks.clone());
        if !self.samples.is_empty() {
            all.samples.clone_from(&self.samples);
        }
        durable::create_folder(&folder)?;
        durable::write_atomic(&path, all.to_json().as_bytes())?;
        Ok(path)
    }

    /// The results of the latest step that a run has.
    pub fn newest(run: &Path) -> Option<Self> {
        let entries = std::fs::read_dir(run.join(FOLDER)).ok()?;
        let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        files.sort();
        files.iter().rev().find_map(|path| read(path))
    }
}

fn read(path: &Path) -> Option<Results> {
    let text: Result<String, FileError> = durable::read_text(path, LIMIT_BYTES);
    serde_json::from_str(&text.ok()?).ok()
}
