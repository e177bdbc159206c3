//! Owns what a site keeps of the outer run beside its own state, and how a checkpoint holds it; never touches sockets.

use std::path::Path;

use model_zoo::ParamSpec;
use serde::{Deserialize, Serialize};

use crate::checkpoint::CheckpointError;
use crate::durable;
use crate::tensor_file::{self, Entry, FileEntry, TensorFile};

/// Counters of the outer run inside a checkpoint.
pub const COUNTERS_FILE: &str = "outer.json";
/// Its vectors: `theta/NAME`, and `residual/NAME` with compression.
pub const TENSORS_FILE: &str = "outer.safetensors";
/// Largest counters file, bytes.
const LIMIT_BYTES: u64 = 1 << 16;

/// Where a site stands in the outer run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counters {
    /// The round it is in.
    pub round: u64,
    /// Its own step at which it took over that round's parameters.
    pub since_step: u64,
    /// Its target tokens at that step.
    pub since_tokens: u64,
    /// Deltas of this site that came too late for their round.
    pub dropped: u64,
}

/// What a site must not lose between two rounds. Only the process that leads a site's team holds it.
#[derive(Debug, Clone, PartialEq)]
pub struct Held {
    /// Where it stands.
    pub counters: Counters,
    /// The outer parameters that the round began with, laid end to end.
    pub theta: Vec<f32>,
    /// What compression has kept back of this site's deltas; empty without compression.
    pub residual: Vec<f32>,
}

impl Held {
    /// Writes both files into an unfinished checkpoint.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn write(&self, folder: &Path, specs: &[ParamSpec]) -> Result<Vec<FileEntry>, CheckpointError> {
        let mut entries = Vec::new();
        for (kind, values) in [("theta", &self.theta), ("residual", &self.residual)] {
            entries.extend(entries_of::<CheckpointError>(kind, values, specs));
        }
        let tensors = tensor_file::write::<CheckpointError>(&folder.join(TENSORS_FILE), entries)?;
        let counters = folder.join(COUNTERS_FILE);
        durable::write_atomic(&counters, &serde_json::to_vec_pretty(&self.counters).unwrap_or_default())?;
        Ok(vec![tensors, tensor_file::describe(&counters)?])
    }

    /// Reads them from a checkpoint whose files were verified; `None` when it is of a run without an outer loop.
    ///
    /// # Errors
    /// When they do not fit the model.
    pub fn read(checkpoint: &Path, specs: &[ParamSpec]) -> Result<Option<Self>, CheckpointError> {
        let path = checkpoint.join(COUNTERS_FILE);
        if !path.exists() {
            return Ok(None);
        }
        let text = durable::read_text(&path, LIMIT_BYTES)?;
        let counters: Counters = serde_json::from_str(&text)
            .map_err(|error| CheckpointError::Damaged { path, what: format!("the counters are not valid: {error}") })?;
        let path = checkpoint.join(TENSORS_FILE);
        let file = TensorFile::open(&path)?;
        let theta = floats_of(&file, "theta", specs)?;
        let has_residual = file.names().iter().any(|name| name.starts_with("residual/"));
        let residual = if has_residual { floats_of(&file, "residual", specs)? } else { Vec::new() };
        let expected: usize = specs.iter().map(ParamSpec::num_elements).sum();
        if theta.len() != expected || (has_residual && residual.len() != expected) {
            let what = format!("{} outer parameters are stored, the model has {expected}", theta.len());
            return Err(CheckpointError::Damaged { path, what });
        }
        Ok(Some(Self { counters, theta, residual }))
    }

    /// Bytes of the vectors in a checkpoint.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        (self.theta.len() + self.residual.len()) as u64 * 4
    }
}

/// A flat vector as one entry for each parameter, `KIND/NAME`; none when the vector is empty.
pub(super) fn entries_of<'a, E: 'a>(kind: &str, values: &'a [f32], specs: &[ParamSpec]) -> Vec<Entry<'a, E>> {
    let (mut entries, mut rest) = (Vec::new(), values);
    for spec in specs {
        let Some((own, tail)) = rest.split_at_checked(spec.num_elements()) else { break };
        rest = tail;
        let name = if kind.is_empty() { spec.name.clone() } else { format!("{kind}/{}", spec.name) };
        let bytes = Box::new(move || Ok(own.iter().flat_map(|value| value.to_le_bytes()).collect()));
        entries.push(Entry { name, dtype: safetensors::Dtype::F32, shape: spec.shape.clone(), bytes });
    }
    entries
}

/// The entries of a kind laid end to end again.
pub(super) fn floats_of(
    file: &TensorFile,
    kind: &str,
    specs: &[ParamSpec],
) -> Result<Vec<f32>, tensor_file::TensorFileError> {
    let mut values = Vec::new();
    for spec in specs {
        let name = if kind.is_empty() { spec.name.clone() } else { format!("{kind}/{}", spec.name) };
        values.extend(file.floats(&name)?);
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use model_zoo::Init;

    use super::*;

    fn specs() -> Vec<ParamSpec> {
        vec![
            ParamSpec::new("a.weight".into(), vec![2, 3], Init::Ones),
            ParamSpec::new("norm.weight".into(), vec![4], Init::Ones),
        ]
    }

    #[test]
    fn what_is_written_is_read() {
        let counters = Counters { round: 7, since_step: 70, since_tokens: 1234, dropped: 1 };
        for residual in [Vec::new(), vec![0.25; 10]] {
            let dir = tempfile::tempdir().unwrap();
            assert_eq!(Held::read(dir.path(), &specs()).unwrap(), None);
            let held = Held { counters, theta: (0..10).map(|i| i as f32).collect(), residual };
            let files = held.write(dir.path(), &specs()).unwrap();
            assert_eq!(files.len(), 2);
            assert_eq!(Held::read(dir.path(), &specs()).unwrap(), Some(held));
            let other = vec![ParamSpec::new("b".into(), vec![10], Init::Ones)];
            assert!(Held::read(dir.path(), &other).unwrap_err().to_string().contains("theta/b"));
        }
    }
}
