//! Owns opening a Hugging Face directory as a model with parameters; never touches tokenizers or training state.

use std::path::Path;

use burn::tensor::{DType, Device, Tensor, TensorData};
use model_zoo::{Model, ModelConfig, ParamSpec, Params};

use super::generation_config::GenerationConfig;
use super::weights::Weights;
use super::{CONFIG_FILE, HEAD_NAME, HubError, JSON_LIMIT_BYTES};
use crate::durable::read_text;

/// A model read from a Hugging Face directory.
#[derive(Debug)]
pub struct Imported {
    /// The model, computing in f32.
    pub model: Model,
    /// Its parameters, in f32 on the device asked for.
    pub params: Params,
    /// Ids that begin, end and pad texts: `generation_config.json` over `config.json`.
    pub generation: GenerationConfig,
    /// Stored tensors that were not needed: a copy of a tied head, rotary frequencies of old files.
    pub dropped: Vec<String>,
}

/// Reads `config.json` of a directory.
///
/// # Errors
/// [`HubError::Config`] when the model is not supported or the file contradicts itself.
pub fn read_config(dir: &Path) -> Result<ModelConfig, HubError> {
    let path = dir.join(CONFIG_FILE);
    let text = read_text(&path, JSON_LIMIT_BYTES)?;
    ModelConfig::from_hub_json(&text).map_err(|source| HubError::Config { path, source })
}

/// Opens a Hugging Face directory: `config.json` and `model.safetensors` or shards with their index.
///
/// Everything is checked against the configuration before a tensor is read. Tensors are read one at a time, so the
/// host needs the memory of the parameters in f32 (none of it for a GPU device) and of the largest tensor.
///
/// # Errors
/// [`HubError`] names the file and the tensor that is missing, surplus, misshapen, of an unknown format or not finite.
pub fn import(dir: &Path, device: &Device) -> Result<Imported, HubError> {
    let config = read_config(dir)?;
    let generation = GenerationConfig::read(dir, &config)?;
    let model = Model::new(&config).map_err(|source| HubError::Config { path: dir.join(CONFIG_FILE), source })?;
    let mut weights = OpenedWeights::open(dir, &model)?;
    let specs = model.specs();
    let mut tensors = Vec::with_capacity(specs.len());
    for spec in specs.iter() {
        let values = weights.read(spec)?;
        let count = values.len();
        tensors.push(Tensor::<1>::from_data(TensorData::new(values, [count]), (device, DType::F32)));
    }
    let params = Params::from_tensors(specs, tensors)?;
    Ok(Imported { model, params, generation, dropped: weights.dropped })
}

/// The weights of a directory, found to be those of a model, to be read one by one.
#[derive(Debug)]
pub struct OpenedWeights {
    weights: Weights,
    config: ModelConfig,
    embedding: Option<String>,
    dropped: Vec<String>,
}

impl OpenedWeights {
    /// Opens a directory's weights and checks their names, shapes and number formats against all parameters of `model`.
    ///
    /// # Errors
    /// As [`import`].
    pub fn open(dir: &Path, model: &Model) -> Result<Self, HubError> {
        let weights = Weights::open(dir)?;
        let dropped = weights.check(model.config(), &model.family_specs())?;
        // The embedding is the first parameter of every family.
        let embedding = model.family_specs().first().map(|spec| spec.name.clone());
        Ok(Self { weights, config: model.config().clone(), embedding, dropped })
    }

    /// The values of a parameter, widened to f32, all of them finite.
    ///
    /// # Errors
    /// As [`import`].
    pub fn read(&mut self, spec: &ParamSpec) -> Result<Vec<f32>, HubError> {
        let values = self.weights.parameter(&self.config, spec)?;
        if self.embedding.as_ref() == Some(&spec.name) && self.dropped.iter().any(|name| name == HEAD_NAME) {
            check_tied_head(&self.weights, &spec.name, &values)?;
        }
        Ok(values)
    }
}

/// A stored head that config.json ties must equal the embedding: dropping it must not change the model.
fn check_tied_head(weights: &Weights, name: &str, embedding: &[f32]) -> Result<(), HubError> {
    let head = weights.floats(HEAD_NAME)?;
    match head.iter().zip(embedding).position(|(head, embedding)| head.to_bits() != embedding.to_bits()) {
        None => Ok(()),
        Some(index) => Err(HubError::UntiedHead {
            path: weights.shard_of(HEAD_NAME).map(|shard| shard.path().to_owned()).unwrap_or_default(),
            embedding: name.to_owned(),
            index,
        }),
    }
}
