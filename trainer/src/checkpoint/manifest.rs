//! Owns `MANIFEST.json`, the last file of a checkpoint to be written; never touches tensors.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{CheckpointError, LossSpan};
use crate::durable;
use crate::guard::Guard;
use crate::seen::Seen;
use crate::tensor_file::FileEntry;

/// Name of the manifest inside a checkpoint.
pub const FILE_NAME: &str = "MANIFEST.json";
/// Version of the layout; a reader refuses what it does not know.
pub const FORMAT_VERSION: u32 = 1;
/// Largest manifest that is read, bytes. A file list of a hundred thousand entries fits.
const LIMIT_BYTES: u64 = 16 << 20;

/// What a checkpoint must agree with before it may be loaded.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Identity {
    /// Digest of the plan: everything that determines the numbers.
    pub plan: String,
    /// Digest of the dataset.
    pub dataset: String,
}

/// A data set that took another's place between two steps, because the user said so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatasetChange {
    /// Steps done on the old one.
    pub step: u64,
    /// The data set before.
    pub from: String,
    /// The data set after.
    pub to: String,
    /// The plan before; it differs from the new one in nothing but the data set.
    pub from_plan: String,
}

/// The description of a checkpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`FORMAT_VERSION`].
    pub format_version: u32,
    /// Steps done.
    pub step: u64,
    /// Target tokens of applied steps.
    pub tokens: u64,
    /// Updates applied by the optimizer.
    pub updates: u64,
    /// What the checkpoint belongs to.
    pub identity: Identity,
    /// Processes that made it; any number may load it.
    pub world_size: u32,
    /// Version of the program.
    pub jazari: String,
    /// Version of the tensor library.
    pub burn: String,
    /// Number of parameter tensors.
    pub parameters: usize,
    /// Number of optimizer moments (two a parameter).
    pub moments: usize,
    /// Digest over parameters, moments and counters, see [`super::digest`].
    pub state_digest: String,
    /// Data sets that took another's place, the first first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dataset_changes: Vec<DatasetChange>,
    /// First and last loss.
    pub losses: LossSpan,
    /// What was trained on, by language and source; absent in checkpoints of earlier versions.
    #[serde(default, skip_serializing_if = "Seen::is_empty")]
    pub seen: Seen,
    /// The guard's windows.
    pub guard: Guard,
    /// Every other file.
    pub files: Vec<FileEntry>,
}

impl Manifest {
    /// Reads and checks the manifest of a checkpoint folder.
    ///
    /// # Errors
    /// When it is missing, unreadable, of another version or contradicts itself.
    pub fn read(checkpoint: &Path) -> Result<Self, CheckpointError> {
        let path = checkpoint.join(FILE_NAME);
        let damaged = |what: String| CheckpointError::Damaged { path: path.clone(), what };
        if !path.exists() {
            return Err(damaged("there is no manifest, so this checkpoint was never finished".into()));
        }
        let text = durable::read_text(&path, LIMIT_BYTES)?;
        let value: serde_json::Value =
            serde_json::from_str(&text).map_err(|e| damaged(format!("the manifest is not valid JSON: {e}")))?;
        let version = value.get("format_version").and_then(serde_json::Value::as_u64);
        if version != Some(u64::from(FORMAT_VERSION)) {
            return Err(damaged(format!(
                "format version {} is not known to this program, which reads version {FORMAT_VERSION}; \
                 use the release that wrote it",
                version.map_or("(missing)".into(), |v| v.to_string())
            )));
        }
        let manifest: Self =
            serde_json::from_value(value).map_err(|e| damaged(format!("the manifest is incomplete: {e}")))?;
        let safe = |name: &str| {
            !name.is_empty() && name != FILE_NAME && !name.starts_with('.') && !name.contains(['/', '\\', '\0'])
        };
        if let Some(file) = manifest.files.iter().find(|f| !safe(&f.name)) {
            return Err(damaged(format!("the file name {:?} is not allowed", file.name)));
        }
        Ok(manifest)
    }

    /// The manifest as it is written.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec_pretty(self).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }
}
