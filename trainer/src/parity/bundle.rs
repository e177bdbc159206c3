//! Owns reading a bundle of reference results; never computes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use data_pipeline::loader::TokenBatch;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::ParityError;
use crate::durable::read_text;
use crate::tensor_file::TensorFile;

/// Largest reference file in JSON that is read, bytes.
const JSON_LIMIT_BYTES: u64 = 64 << 20;
/// Label that marks a token as no target.
pub const IGNORED_LABEL: i64 = -100;

/// An open bundle.
pub struct Bundle {
    /// The checkpoint.
    pub hub: PathBuf,
    /// The reference results.
    pub expected: PathBuf,
    /// What the results are and how close they must be met.
    pub manifest: Manifest,
}

/// `expected/manifest.json`, as far as it is compared.
#[derive(Deserialize)]
pub struct Manifest {
    pub name: String,
    pub parameters: u64,
    pub loss: f64,
    pub packed_loss: f64,
    pub tolerances: Tolerances,
    /// How far PyTorch's logits are from these when it computes in bf16.
    pub bf16_compute_logits_max_abs_diff: Option<f64>,
    pub training: Option<Training>,
}

/// Largest differences that pass.
#[derive(Deserialize)]
pub struct Tolerances {
    pub logits_abs: f64,
    #[serde(default = "default_loss")]
    pub loss_abs: f64,
    #[serde(default = "default_norm")]
    pub grad_norm_rel: f64,
    #[serde(default)]
    pub params_step1_mean_abs: f64,
    #[serde(default)]
    pub params_step1_abs: f64,
    #[serde(default)]
    pub params_step10_mean_abs: f64,
    #[serde(default)]
    pub params_step10_abs: f64,
}

fn default_loss() -> f64 {
    1e-5
}

fn default_norm() -> f64 {
    1e-4
}

/// Ten optimizer steps.
#[derive(Deserialize)]
pub struct Training {
    pub betas: [f64; 2],
    pub eps: f64,
    pub weight_decay: f64,
    pub clip_grad_norm: f64,
    pub lr_per_step: Vec<f64>,
    pub loss_per_step: Vec<f64>,
    pub grad_norm_per_step_before_clip: Vec<f64>,
    pub grad_norms_step0: BTreeMap<String, f64>,
    pub decay: Vec<String>,
    pub no_decay: Vec<String>,
    pub grad_accumulation: Accumulation,
}

/// Gradients of several micro-batches divided by their common number of targets.
#[derive(Deserialize)]
pub struct Accumulation {
    pub batches: Vec<usize>,
    pub target_tokens: u64,
    pub global_grad_norm: f64,
    pub grad_norms: BTreeMap<String, f64>,
}

impl Bundle {
    /// Opens a bundle.
    pub fn open(dir: &Path) -> Result<Self, ParityError> {
        let (hub, expected) = (dir.join("hf"), dir.join("expected"));
        for (path, name) in [(&hub, "hf/"), (&expected, "expected/")] {
            if !path.is_dir() {
                return Err(ParityError::NotABundle { dir: dir.to_owned(), cause: format!("{name} is missing") });
            }
        }
        let manifest = read_json(&expected.join("manifest.json"))?;
        Ok(Self { hub, expected, manifest })
    }

    /// A file of expected tensors.
    pub fn tensors(&self, name: &str) -> Result<TensorFile, ParityError> {
        Ok(TensorFile::open(&self.expected.join(name))?)
    }

    /// A file of expected values.
    pub fn json<T: DeserializeOwned>(&self, name: &str) -> Result<T, ParityError> {
        read_json(&self.expected.join(name))
    }
}

pub(super) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, ParityError> {
    let text = read_text(path, JSON_LIMIT_BYTES)?;
    serde_json::from_str(&text)
        .map_err(|error| ParityError::Reference { path: path.to_owned(), cause: error.to_string() })
}

/// Rows of tokens as the reference stores them.
pub struct StoredRows {
    pub rows: usize,
    pub seq_len: usize,
    pub ids: Vec<u32>,
    /// -100 = no target; not shifted.
    pub labels: Vec<i64>,
}

impl StoredRows {
    /// `input_ids` and `labels` of a file, `[rows, seq_len]`, or entry `index` of `[batches, rows, seq_len]`.
    pub fn read(shard: &TensorFile, index: usize) -> Result<Self, ParityError> {
        let wrong = |cause: String| ParityError::Reference { path: shard.path().to_owned(), cause };
        let shape = shard.info("input_ids").map(|info| info.shape.clone()).unwrap_or_default();
        let (rows, seq_len) = match shape[..] {
            [rows, seq_len] | [_, rows, seq_len] => (rows, seq_len),
            _ => return Err(wrong(format!("input_ids has shape {shape:?}"))),
        };
        let size = rows * seq_len;
        let part = |name: &str| -> Result<Vec<i64>, ParityError> {
            let all = shard.integers(name)?;
            let part = all.get(index * size..(index + 1) * size).map(<[i64]>::to_vec);
            part.ok_or_else(|| wrong(format!("{name} has no entry {index} of {size} values")))
        };
        let ids = part("input_ids")?.into_iter().map(u32::try_from).collect::<Result<_, _>>();
        let ids = ids.map_err(|error| wrong(format!("input_ids: {error}")))?;
        Ok(Self { rows, seq_len, ids, labels: part("labels")? })
    }

    /// The batch the trainer would see: targets are the labels shifted by one. `positions` and `segments` make a row
    /// several documents; without them it is one.
    pub fn batch(&self, documents: Option<(Vec<u32>, Vec<u32>)>) -> TokenBatch {
        let column = |index: usize| index % self.seq_len.max(1);
        let count = self.rows * self.seq_len;
        let target = |index: usize| match self.labels.get(index + 1) {
            Some(label) if column(index) + 1 < self.seq_len && *label != IGNORED_LABEL => *label as i32,
            _ => -1,
        };
        let one = || ((0..count).map(|index| column(index) as u32).collect(), vec![0; count]);
        let (positions, segments) = documents.unwrap_or_else(one);
        TokenBatch {
            rows: self.rows,
            seq_len: self.seq_len,
            tokens: self.ids.clone(),
            targets: (0..count).map(target).collect(),
            segments,
            positions,
            components: vec![0; self.rows],
            samples: Vec::new(),
        }
    }
}
