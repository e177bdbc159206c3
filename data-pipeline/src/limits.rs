//! Owns the bounds on what files may make this process hold or write; never enforces them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Bounds on what one input file may do, and on what the preparation may take.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Largest record in bytes; a larger one is quarantined.
    #[serde(default = "default_record_bytes")]
    pub max_record_bytes: u64,
    /// Most bytes that one file may expand to; beyond it the run stops.
    #[serde(default = "default_file_bytes")]
    pub max_file_bytes: u64,
    /// Most bytes out for one compressed byte in, counted once a gzip or Zstandard file has produced 1 MiB, rows of
    /// Parquet and Arrow 64 MiB.
    #[serde(default = "default_expansion")]
    pub max_expansion: u64,
    /// Memory that the preparation may use, about, in bytes: what does not fit is sorted on disk. It changes nothing in the
    /// result. A model of languages and a tokenizer being trained come on top.
    #[serde(default = "default_memory_bytes", skip_serializing_if = "is_default_memory")]
    pub max_memory_bytes: u64,
    /// Bytes of rows between two checkpoints of the reading stage, and about how much a worker takes at a time. It changes
    /// nothing in the result.
    #[serde(default = "default_checkpoint_bytes", skip_serializing_if = "is_default_checkpoint")]
    pub checkpoint_bytes: u64,
}

/// Default of [`Limits::max_memory_bytes`]: 4 GiB.
pub const DEFAULT_MEMORY_BYTES: u64 = 4 * 1024 * 1024 * 1024;
/// Smallest [`Limits::max_memory_bytes`]: 128 MiB.
pub const MIN_MEMORY_BYTES: u64 = 128 * 1024 * 1024;
/// Default of [`Limits::checkpoint_bytes`]: 256 MiB.
pub const DEFAULT_CHECKPOINT_BYTES: u64 = 256 * 1024 * 1024;
/// Smallest [`Limits::checkpoint_bytes`]: 64 KiB.
pub const MIN_CHECKPOINT_BYTES: u64 = 64 * 1024;
/// Default of [`Limits::max_record_bytes`]: 16 MiB, thirty times the longest law of the Moroccan collection.
pub const DEFAULT_RECORD_BYTES: u64 = 16 * 1024 * 1024;
/// Largest [`Limits::max_record_bytes`]: 1 GiB, so that lengths fit 32 bits.
pub const MAX_RECORD_BYTES: u64 = 1024 * 1024 * 1024;
/// Default of [`Limits::max_file_bytes`]: 1 TiB.
pub const DEFAULT_FILE_BYTES: u64 = 1024 * 1024 * 1024 * 1024;
/// Default of [`Limits::max_expansion`]. Text corpora compress 3 to 30 times; gzip cannot pass 1032.
pub const DEFAULT_EXPANSION: u64 = 200;
/// The default before it was lowered; it stands for the default in digests, as the limit decides about no row of a file that
/// is read.
const FIRST_DEFAULT_EXPANSION: u64 = 250;

impl Default for Limits {
    fn default() -> Self {
        Limits {
            max_record_bytes: DEFAULT_RECORD_BYTES,
            max_file_bytes: DEFAULT_FILE_BYTES,
            max_expansion: DEFAULT_EXPANSION,
            max_memory_bytes: DEFAULT_MEMORY_BYTES,
            checkpoint_bytes: DEFAULT_CHECKPOINT_BYTES,
        }
    }
}

fn default_record_bytes() -> u64 {
    DEFAULT_RECORD_BYTES
}

fn default_file_bytes() -> u64 {
    DEFAULT_FILE_BYTES
}

fn default_memory_bytes() -> u64 {
    DEFAULT_MEMORY_BYTES
}

fn default_checkpoint_bytes() -> u64 {
    DEFAULT_CHECKPOINT_BYTES
}

fn default_expansion() -> u64 {
    DEFAULT_EXPANSION
}

fn is_default_memory(bytes: &u64) -> bool {
    *bytes == DEFAULT_MEMORY_BYTES
}

fn is_default_checkpoint(bytes: &u64) -> bool {
    *bytes == DEFAULT_CHECKPOINT_BYTES
}

impl Limits {
    /// The limits that decide about the result, the others at their defaults.
    pub(crate) fn deciding(&self) -> Limits {
        let Limits { max_memory_bytes, checkpoint_bytes, .. } = Limits::default();
        let max_expansion =
            if self.max_expansion == DEFAULT_EXPANSION { FIRST_DEFAULT_EXPANSION } else { self.max_expansion };
        Limits { max_memory_bytes, checkpoint_bytes, max_expansion, ..self.clone() }
    }

    /// The share `1 / parts` of the memory, in MiB, at least one.
    pub(crate) fn memory_mib(&self, parts: u64) -> usize {
        usize::try_from((self.max_memory_bytes / parts.max(1)) >> 20).unwrap_or(usize::MAX).max(1)
    }

    pub(crate) fn check(&self, problems: &mut Vec<String>) {
        if self.max_record_bytes == 0 || self.max_record_bytes > MAX_RECORD_BYTES {
            problems.push(format!(
                "limits.max_record_bytes: {} is not between 1 and {MAX_RECORD_BYTES}; the default is {DEFAULT_RECORD_BYTES}",
                self.max_record_bytes
            ));
        }
        if self.max_file_bytes == 0 {
            problems.push(format!("limits.max_file_bytes: is 0; the default is {DEFAULT_FILE_BYTES}"));
        }
        if self.max_expansion == 0 {
            problems.push(format!("limits.max_expansion: is 0; the default is {DEFAULT_EXPANSION}"));
        }
        if self.max_memory_bytes < MIN_MEMORY_BYTES {
            problems.push(format!(
                "limits.max_memory_bytes: {} is less than {MIN_MEMORY_BYTES} (128 MiB); the default is {DEFAULT_MEMORY_BYTES}",
                self.max_memory_bytes
            ));
        }
        if self.checkpoint_bytes < MIN_CHECKPOINT_BYTES {
            problems.push(format!(
                "limits.checkpoint_bytes: {} is less than {MIN_CHECKPOINT_BYTES}; the default is {DEFAULT_CHECKPOINT_BYTES}",
                self.checkpoint_bytes
            ));
        }
    }
}
