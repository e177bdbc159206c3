//! Owns turning a trained model into a Hugging Face directory that has been proven to be the same model; never
//! touches checkpoints or training state.

use std::fs;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use data_pipeline::tokenizer::Tokenizer;
use model_zoo::{Model, ModelConfig, Params, WeightDtype};

use super::generation_config::GenerationConfig;
use super::import::{Imported, import};
use super::probe::LogitDistance;
use super::publish::{Record, publish};
use super::tokenizer_files::write_tokenizer;
use super::writer::{round, write_weights};
use super::{CONFIG_FILE, GENERATION_CONFIG_FILE, HubError, TOKENIZER_FILE, probe};
use crate::durable::{FileError, sync_folder, write_atomic};

/// What to write and where.
#[derive(Debug, Clone)]
pub struct ExportOptions<'a> {
    /// The directory to make; it must not exist.
    pub out: &'a Path,
    /// Folder of the tokenizer the model was trained with; it must hold `tokenizer.json`.
    pub tokenizer: &'a Path,
    /// Number format of the weights.
    pub dtype: WeightDtype,
    /// Largest weight file, bytes of tensors.
    pub max_shard_bytes: u64,
    /// Ids that end a turn, beside those of the model's configuration.
    pub end_of_turn: &'a [u32],
    /// The chat template that the model was taught, over that of the tokenizer's folder.
    pub chat_template: Option<&'a str>,
}

/// What an export is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExportProgress {
    /// This many tensors have been written.
    Written {
        /// Done.
        tensors: usize,
        /// Of so many.
        total: usize,
    },
    /// The export is being opened again.
    Reopening,
    /// Logits and token ids are being compared.
    Comparing,
}

/// A finished export and the proof that it is the trained model.
#[derive(Debug, Clone, PartialEq)]
pub struct ExportReport {
    /// The directory.
    pub dir: PathBuf,
    /// Its files with their sizes in bytes, by name.
    pub files: Vec<(String, u64)>,
    /// Tensors that were stored, read back and found equal to the rounded parameters, bit for bit.
    pub num_tensors: usize,
    /// How far its logits are from those of the trained model.
    pub logits: LogitDistance,
    /// Token ids of the probe texts that were compared.
    pub num_token_ids: usize,
}

/// Writes `params` as a Hugging Face directory, opens it again and compares it with the model in memory: every stored
/// tensor bit for bit with the rounded parameter, logits of a fixed probe, token ids of fixed texts. Only then is the
/// directory renamed into place; until then it is a hidden sibling, which is removed on failure.
///
/// # Errors
/// [`HubError::Exists`] when `out` is there already, [`HubError::Differs`] when the reopened model is another one, and
/// everything the disk, the device and [`import`] may refuse.
pub fn export(
    model: &Model,
    params: &Params,
    options: &ExportOptions<'_>,
    device: &Device,
    progress: &dyn Fn(ExportProgress),
) -> Result<ExportReport, HubError> {
    publish(options.out, |partial| write_and_prove(model, params, options, device, partial, progress))
}

fn write_and_prove(
    model: &Model,
    params: &Params,
    options: &ExportOptions<'_>,
    device: &Device,
    dir: &Path,
    progress: &dyn Fn(ExportProgress),
) -> Result<ExportReport, HubError> {
    let config = model.config();
    let generation = GenerationConfig::of(config, options.end_of_turn);
    write_atomic(&dir.join(CONFIG_FILE), config.to_hub_json(options.dtype).as_bytes())?;
    write_atomic(&dir.join(GENERATION_CONFIG_FILE), generation.to_json().as_bytes())?;
    write_tokenizer((options.tokenizer, options.chat_template), dir, config, &generation)?;
    let total = params.specs().len();
    let written = |tensors| progress(ExportProgress::Written { tensors, total });
    write_weights(dir, params, options.dtype, options.max_shard_bytes, &written)?;
    sync_folder(dir)?;

    progress(ExportProgress::Reopening);
    let reopened = import(dir, device)?;
    progress(ExportProgress::Comparing);
    compare_settings(config, &generation, &reopened)?;
    compare_tensors(params, &reopened.params, options.dtype)?;
    let reopened = (&reopened.model, &reopened.params);
    let logits = probe::prove(config, params, reopened, options.dtype, device)?;
    let num_token_ids = compare_tokenizers(options.tokenizer, dir)?;
    Record::write(dir)?;
    sync_folder(dir)?;
    Ok(ExportReport { dir: options.out.to_owned(), files: list_files(dir)?, num_tensors: total, logits, num_token_ids })
}

fn compare_settings(config: &ModelConfig, generation: &GenerationConfig, reopened: &Imported) -> Result<(), HubError> {
    if reopened.generation != *generation {
        return Err(HubError::Differs {
            what: format!("{GENERATION_CONFIG_FILE} is read as {:?}", reopened.generation),
        });
    }
    // config.json holds one end id, generation_config.json all of them.
    let dtype = WeightDtype::F32;
    if reopened.model.config().to_hub_json(dtype) != config.to_hub_json(dtype) {
        return Err(HubError::Differs { what: format!("{CONFIG_FILE} is read as {:?}", reopened.model.config()) });
    }
    Ok(())
}

fn compare_tensors(trained: &Params, reopened: &Params, dtype: WeightDtype) -> Result<(), HubError> {
    for (index, spec) in trained.specs().iter().enumerate() {
        let (expected, found) = (trained.to_host(index)?, reopened.to_host(index)?);
        let differs = |(a, b): (&f32, &f32)| round(*a, dtype).to_bits() != b.to_bits();
        if let Some(element) = expected.iter().zip(&found).position(differs) {
            return Err(HubError::Differs { what: format!("tensor {:?} at element {element}", spec.name) });
        }
    }
    Ok(())
}

fn compare_tokenizers(trained_with: &Path, exported: &Path) -> Result<usize, HubError> {
    let open = |dir: &Path| {
        let path = dir.join(TOKENIZER_FILE);
        Tokenizer::open(&path).map_err(|error| HubError::Tokenizer { path, cause: error.to_string() })
    };
    let (expected, found) = (open(trained_with)?, open(exported)?);
    let mut compared = 0;
    for text in probe::TEXTS {
        for special in [true, false] {
            let encode = |tokenizer: &Tokenizer| {
                let refused = |error: data_pipeline::tokenizer::TokenizerError| HubError::Tokenizer {
                    path: trained_with.join(TOKENIZER_FILE),
                    cause: error.to_string(),
                };
                tokenizer.encode(text, special).map_err(refused)
            };
            let ids = encode(&expected)?;
            if ids != encode(&found)? {
                return Err(HubError::Differs { what: format!("token ids of {text:?}") });
            }
            compared += ids.len();
        }
    }
    Ok(compared)
}

fn list_files(dir: &Path) -> Result<Vec<(String, u64)>, HubError> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).map_err(FileError::at(dir, "list the folder"))? {
        let entry = entry.map_err(FileError::at(dir, "list the folder"))?;
        let size = entry.metadata().map_err(FileError::at(dir, "read the size of a file of"))?.len();
        files.push((entry.file_name().to_string_lossy().into_owned(), size));
    }
    files.sort();
    Ok(files)
}
