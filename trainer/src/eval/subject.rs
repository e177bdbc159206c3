//! Owns what a user may name as a model: a run directory, a checkpoint, a directory in the layout of Hugging Face or of
//! Mistral; never computes with it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::tensor::Device;
use data_pipeline::tokenizer::Tokenizer;
use data_pipeline::tokenizer::chat::ChatTemplate;
use data_pipeline::tokenizer::files::TOKENIZER_FILE;
use model_zoo::{FrozenBase, Model, Params};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::EvalError;
use crate::adapter::{self, AdapterDir, AdapterFileError};
use crate::checkpoint::{self, read};
use crate::durable::{self, FileError};
use crate::hub::{self, ChatFormat, Imported};
use crate::mistral;

/// Largest `plan.json` that is read, bytes.
const PLAN_LIMIT_BYTES: u64 = 16 << 20;

/// Which model was evaluated.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Origin {
    /// The checkpoint or the directory.
    pub path: PathBuf,
    /// Steps of training, of a checkpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<u64>,
    /// Digest of the state (checkpoint) or of the weight files (directory).
    pub digest: String,
    /// Parameters.
    pub parameters: u64,
}

/// The kinds of path that hold a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A checkpoint; the newest valid one where a run directory was named.
    Checkpoint(PathBuf),
    /// A Hugging Face directory.
    Hub(PathBuf),
    /// A directory in Mistral's own layout.
    Mistral(PathBuf),
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
        if mistral::is_layout(path) {
            return Ok(Self::Mistral(path.to_owned()));
        }
        Err(EvalError::NoModel { path: path.to_owned() })
    }

    /// The folder that holds the model.
    pub fn folder(&self) -> &Path {
        match self {
            Self::Checkpoint(path) | Self::Hub(path) | Self::Mistral(path) => path,
        }
    }

    /// The folder, where it has `config.json` and weights under their Hugging Face names, as training needs them.
    ///
    /// # Errors
    /// For Mistral's layout.
    pub fn hub_folder(&self) -> Result<&Path, EvalError> {
        match self {
            Self::Checkpoint(path) | Self::Hub(path) => Ok(path),
            Self::Mistral(path) => Err(EvalError::MistralBase { path: path.clone() }),
        }
    }

    /// Where the tokenizer's files are.
    pub fn tokenizer(&self) -> PathBuf {
        match self {
            // RUN/checkpoints/step-N -> RUN/tokenizer
            Self::Checkpoint(path) => path.ancestors().nth(2).unwrap_or(Path::new(".")).join("tokenizer"),
            Self::Hub(path) | Self::Mistral(path) => path.clone(),
        }
    }

    /// The folder of `tokenizer.json`: `given` if the user named one, else [`Self::tokenizer`]; Mistral's Tekken file
    /// is translated into a folder of its own.
    ///
    /// # Errors
    /// When there is no tokenizer, or Mistral's cannot be translated.
    pub fn tokenizer_folder(&self, given: Option<&Path>) -> Result<TokenizerFolder, EvalError> {
        let path = given.map_or_else(|| self.tokenizer(), Path::to_owned);
        if path.join(TOKENIZER_FILE).is_file() {
            return Ok(TokenizerFolder { path, is_own: false });
        }
        match self {
            Self::Mistral(dir) if given.is_none() => TokenizerFolder::unpacked(dir),
            _ => Err(EvalError::NoTokenizer { path }),
        }
    }
}

/// A folder with `tokenizer.json`. One that was made for the purpose lies under the system's temporary folder and is
/// removed with the value.
#[derive(Debug)]
pub struct TokenizerFolder {
    path: PathBuf,
    is_own: bool,
}

impl TokenizerFolder {
    fn unpacked(layout: &Path) -> Result<Self, EvalError> {
        let path = std::env::temp_dir().join(format!("jazari-tokenizer-{}", std::process::id()));
        std::fs::create_dir(&path).map_err(FileError::at(&path, "create the folder"))?;
        let folder = Self { path, is_own: true };
        mistral::unpack_tokenizer(layout, &folder.path)?;
        Ok(folder)
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for TokenizerFolder {
    fn drop(&mut self) {
        if self.is_own {
            // What is left behind is small and harmless.
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

/// Opens the model of a directory in the layout of Hugging Face or Mistral; `None` for a checkpoint.
///
/// # Errors
/// As [`hub::import`] and [`mistral::import`].
pub fn import(place: &Place, device: &Device) -> Result<Option<Imported>, EvalError> {
    match place {
        Place::Checkpoint(_) => Ok(None),
        Place::Hub(dir) => Ok(Some(hub::import(dir, device)?)),
        Place::Mistral(dir) => Ok(Some(mistral::import(dir, device)?)),
    }
}

/// A model with everything that is needed to ask it.
pub struct Subject {
    /// The model.
    pub model: Model,
    /// Its parameters.
    pub params: Params,
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
    /// How it was taught to chat, if it was.
    pub chat_template: Option<ChatTemplate>,
    /// Ids that end a text or a turn.
    pub eos: Vec<u32>,
    /// Where the parameters are.
    pub device: Device,
    /// The checkpoint or the directory.
    pub place: Place,
    /// The run it belongs to, if it is one's checkpoint.
    pub run: Option<PathBuf>,
    /// The plan of that run; null without one.
    pub plan: Value,
    /// Step and digest of a checkpoint's state.
    state: Option<(u64, String)>,
    /// Folder of the adapter that was put on top.
    adapter: Option<PathBuf>,
}

impl Subject {
    /// Opens whatever `path` names; `tokenizer` replaces the tokenizer's folder.
    ///
    /// # Errors
    /// When there is no model, or it is damaged, or has no tokenizer.
    pub fn open(path: &Path, tokenizer: Option<&Path>, device: &Device) -> Result<Self, EvalError> {
        let place = Place::of(path)?;
        let folder = place.tokenizer_folder(tokenizer)?;
        let tokenizer = Tokenizer::open(folder.path())?;
        let chat_template = ChatTemplate::open(folder.path())?;
        let device = device.clone();
        let Some(imported) = import(&place, &device)? else {
            return Self::of_checkpoint(place, tokenizer, chat_template, device);
        };
        let Imported { model, params, generation, .. } = imported;
        let (eos, run, plan) = (generation.eos_token_ids, None, Value::Null);
        Ok(Self { model, params, tokenizer, chat_template, eos, device, place, run, plan, state: None, adapter: None })
    }

    fn of_checkpoint(
        place: Place,
        tokenizer: Tokenizer,
        mut chat_template: Option<ChatTemplate>,
        device: Device,
    ) -> Result<Self, EvalError> {
        let dir = place.folder();
        let saved = read::read_model(dir, &device)?;
        let refused = |error: model_zoo::config::ConfigError| checkpoint::CheckpointError::Damaged {
            path: dir.join(hub::CONFIG_FILE),
            what: error.to_string(),
        };
        let model = match &saved.adapter {
            None => Model::new(&saved.config).map_err(refused)?,
            Some(adapter) => adapter::saved_model(&saved, adapter, None, &device)?,
        };
        let mut eos = saved.config.eos_token_ids().to_vec();
        if let Some(chat) = ChatFormat::read(dir)? {
            let special = chat_template.map(|template| template.special_tokens().clone()).unwrap_or_default();
            chat_template = Some(ChatTemplate::new(&chat.chat_template, special)?);
            eos.extend(chat.end_of_turn.iter().filter(|id| !saved.config.eos_token_ids().contains(id)));
        }
        let plan = durable::read_text(&dir.join("plan.json"), PLAN_LIMIT_BYTES).unwrap_or_default();
        Ok(Self {
            model,
            params: saved.params,
            tokenizer,
            chat_template,
            eos,
            device,
            run: dir.ancestors().nth(2).map(Path::to_owned),
            plan: serde_json::from_str(&plan).unwrap_or_default(),
            state: Some((saved.manifest.step, saved.manifest.state_digest)),
            adapter: None,
            place,
        })
    }

    /// Which model it is. The weight files of a directory are read once more for their digest.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn origin(&self) -> Result<Origin, EvalError> {
        let (step, digest) = match (&self.state, &self.place) {
            (Some((step, digest)), _) => (Some(*step), digest.clone()),
            (None, Place::Mistral(dir)) => (None, mistral::weights_digest(dir)?),
            (None, place) => (None, hub::weights_digest(place.folder())?),
        };
        let parameters = self.params.num_elements() as u64;
        Ok(match &self.adapter {
            None => Origin { path: self.path().to_owned(), step, digest, parameters },
            Some(dir) => {
                let digest = format!("{digest} with {}", adapter::digest(dir)?);
                Origin { path: dir.clone(), step: None, digest, parameters }
            }
        })
    }

    /// The checkpoint or the directory; the adapter's where one was put on top.
    pub fn path(&self) -> &Path {
        self.adapter.as_deref().unwrap_or_else(|| self.place.folder())
    }

    /// The same model with an adapter, as PEFT saves it, on top.
    ///
    /// # Errors
    /// When the adapter cannot be read, does not fit, or the model has one already.
    pub fn with_adapter(self, dir: &Path) -> Result<Self, EvalError> {
        let opened = AdapterDir::open(dir)?;
        if self.model.frozen_base().is_some() {
            return Err(AdapterFileError::NotWhole { path: self.path().to_owned() }.into());
        }
        let base = Arc::new(FrozenBase::of_params(&self.params));
        let model = adapter::adapted_model(self.model, &opened.config, base)?;
        let params = opened.params(&model.specs(), &self.device)?;
        Ok(Self { model, params, adapter: Some(dir.to_owned()), run: None, ..self })
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
