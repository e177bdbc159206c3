//! Owns what a user may name as a model: a run directory, a checkpoint, a Hugging Face directory; never computes with
//! it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::tensor::Device;
use data_pipeline::tokenizer::Tokenizer;
use data_pipeline::tokenizer::files::TOKENIZER_FILE;
use model_zoo::{FrozenBase, Model, Params};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::EvalError;
use crate::adapter::{self, AdapterDir, AdapterFileError};
use crate::checkpoint::{self, read};
use crate::durable;
use crate::hub;

/// Largest `plan.json` that is read, bytes.
const PLAN_LIMIT_BYTES: u64 = 16 << 20;

/// Which model was evaluated.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Origin {
    /// The checkpoint or the Hugging Face directory.
    pub path: PathBuf,
    /// Steps of training, of a checkpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<u64>,
    /// Digest of the state (checkpoint) or of the weight files (Hugging Face directory).
    pub digest: String,
    /// Parameters.
    pub parameters: u64,
}

/// A model with everything that is needed to ask it.
pub struct Subject {
    /// The model.
    pub model: Model,
    /// Its parameters.
    pub params: Params,
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
    /// Ids that end a text.
    pub eos: Vec<u32>,
    /// Where the parameters are.
    pub device: Device,
    /// Which model it is.
    pub origin: Origin,
    /// The run it belongs to, if it is one's checkpoint.
    pub run: Option<PathBuf>,
    /// The plan of that run; null without one.
    pub plan: Value,
}

/// The kinds of path that hold a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A checkpoint; the newest valid one where a run directory was named.
    Checkpoint(PathBuf),
    /// A Hugging Face directory.
    Hub(PathBuf),
}

impl Place {
    /// Finds out what `path` is.
    ///
    /// # Errors
    /// When it holds no model, or a run has no valid checkpoint.
    pub fn of(path: &Path) -> Result<Self, EvalError> {
        if path.join(checkpoint::manifest::FILE_NAME).is_file() || path.join("checkpoints").is_dir() {
            return Ok(Self::Checkpoint(read::find(path)?));
        }
        if path.join(hub::CONFIG_FILE).is_file() {
            return Ok(Self::Hub(path.to_owned()));
        }
        Err(EvalError::NoModel { path: path.to_owned() })
    }

    /// The folder with `config.json` and weights under their Hugging Face names, which checkpoints have as well.
    pub fn folder(&self) -> &Path {
        match self {
            Self::Checkpoint(path) | Self::Hub(path) => path,
        }
    }

    /// Where the tokenizer's files are.
    pub fn tokenizer(&self) -> PathBuf {
        match self {
            // RUN/checkpoints/step-N -> RUN/tokenizer
            Self::Checkpoint(path) => path.ancestors().nth(2).unwrap_or(Path::new(".")).join("tokenizer"),
            Self::Hub(path) => path.clone(),
        }
    }
}

impl Subject {
    /// Opens whatever `path` names; `tokenizer` replaces the tokenizer's folder.
    ///
    /// # Errors
    /// When there is no model, or it is damaged, or has no tokenizer.
    pub fn open(path: &Path, tokenizer: Option<&Path>, device: &Device) -> Result<Self, EvalError> {
        let place = Place::of(path)?;
        let folder = tokenizer.map_or_else(|| place.tokenizer(), Path::to_owned);
        if !folder.join(TOKENIZER_FILE).is_file() {
            return Err(EvalError::NoTokenizer { path: folder });
        }
        let tokenizer = Tokenizer::open(&folder)?;
        match place {
            Place::Hub(dir) => {
                let imported = hub::import(&dir, device)?;
                let origin = Origin {
                    digest: hub::weights_digest(&dir)?,
                    step: None,
                    parameters: imported.params.num_elements() as u64,
                    path: dir,
                };
                let eos = imported.generation.eos_token_ids;
                let (model, params, device) = (imported.model, imported.params, device.clone());
                Ok(Self { model, params, tokenizer, eos, device, origin, run: None, plan: Value::Null })
            }
            Place::Checkpoint(dir) => {
                let saved = read::read_model(&dir, device)?;
                let refused = |error: model_zoo::config::ConfigError| checkpoint::CheckpointError::Damaged {
                    path: dir.join(hub::CONFIG_FILE),
                    what: error.to_string(),
                };
                let model = match &saved.adapter {
                    None => Model::new(&saved.config).map_err(refused)?,
                    Some(adapter) => adapter::saved_model(&saved, adapter, None, device)?,
                };
                let origin = Origin {
                    path: saved.path.clone(),
                    step: Some(saved.manifest.step),
                    digest: saved.manifest.state_digest.clone(),
                    parameters: saved.params.num_elements() as u64,
                };
                let plan = durable::read_text(&dir.join("plan.json"), PLAN_LIMIT_BYTES).unwrap_or_default();
                Ok(Self {
                    model,
                    params: saved.params,
                    tokenizer,
                    eos: saved.config.eos_token_ids().to_vec(),
                    device: device.clone(),
                    origin,
                    run: dir.ancestors().nth(2).map(Path::to_owned),
                    plan: serde_json::from_str(&plan).unwrap_or_default(),
                })
            }
        }
    }

    /// The same model with an adapter, as PEFT saves it, on top.
    ///
    /// # Errors
    /// When the adapter cannot be read, does not fit, or the model has one already.
    pub fn with_adapter(self, dir: &Path) -> Result<Self, EvalError> {
        let opened = AdapterDir::open(dir)?;
        if self.model.frozen_base().is_some() {
            return Err(AdapterFileError::NotWhole { path: self.origin.path }.into());
        }
        let base = Arc::new(FrozenBase::of_params(&self.params));
        let model = adapter::adapted_model(self.model, &opened.config, base)?;
        let params = opened.params(&model.specs(), &self.device)?;
        let digest = format!("{} with {}", self.origin.digest, adapter::digest(dir)?);
        let origin = Origin { path: dir.to_owned(), digest, step: None, ..self.origin };
        Ok(Self { model, params, origin, run: None, ..self })
    }

    /// Data set of the run that the model belongs to.
    pub fn data_set(&self) -> Option<PathBuf> {
        self.plan.pointer("/dataset/path").and_then(Value::as_str).map(PathBuf::from)
    }

    /// Length of training rows, of a run; at most 1024 tokens of any other model.
    pub fn row_length(&self) -> usize {
        let planned = self.plan.get("sequence_len").and_then(Value::as_u64).and_then(|len| usize::try_from(len).ok());
        planned.unwrap_or(1024).clamp(1, self.model.config().max_positions().max(1))
    }

    /// The token that stands before a text without a context: BOS, else an end token.
    pub fn prefix(&self) -> Option<u32> {
        self.tokenizer.bos().or(self.tokenizer.eos()).or(self.eos.first().copied())
    }
}
