//! Owns a GGUF file as a model with parameters and a tokenizer; never touches how it was written.

use std::path::Path;

use burn::tensor::{DType, Device, Tensor, TensorData};
use data_pipeline::tokenizer::Tokenizer;
use model_zoo::{Model, ModelConfig, Params};
use serde_json::Value as Json;

use super::GgufError;
use super::metadata::{ROPE_FACTORS, Settings, config_of};
use super::names::{PlannedTensor, plan};
use super::read::GgufFile;
use super::tokenizer::Vocabulary;

/// A model read from a GGUF file.
pub struct OpenedModel {
    /// The model, computing in f32.
    pub model: Model,
    /// Its parameters, dequantised to f32.
    pub params: Params,
    /// A tokenizer that encodes as llama.cpp does.
    pub tokenizer: Tokenizer,
    /// Ids that end a text or a turn.
    pub eos_token_ids: Vec<u32>,
}

/// Opens a GGUF file as a model. Tensors are read one at a time.
///
/// # Errors
/// [`GgufError`] names the file and what is missing, surplus, misshapen, not finite or not known.
pub fn open_model(path: &Path, device: &Device) -> Result<OpenedModel, GgufError> {
    let file = GgufFile::open(path)?;
    let described = Description::of(&file)?;
    let params = described.params(&file, device)?;
    let vocabulary = Vocabulary::read(&file)?;
    let eos_token_ids = vocabulary.eos.into_iter().chain(vocabulary.eot).collect();
    Ok(OpenedModel { tokenizer: vocabulary.open(path)?, model: described.model, params, eos_token_ids })
}

/// What a file says it is, checked against its tensors.
pub(super) struct Description {
    pub config: ModelConfig,
    pub model: Model,
    pub plan: Vec<PlannedTensor>,
}

impl Description {
    pub fn of(file: &GgufFile) -> Result<Self, GgufError> {
        let path = file.path();
        let text = Json::Object(config_of(file)?).to_string();
        let wrong = |source| GgufError::Config { path: path.to_owned(), source: Box::new(source) };
        let config = ModelConfig::from_hub_json(&text).map_err(wrong)?;
        let model = Model::new(&config).map_err(wrong)?;
        let settings = Settings::read(&text)?;
        let names: Vec<_> = model.specs().iter().map(|spec| (spec.name.clone(), spec.shape.clone())).collect();
        let plan = plan(settings.family, settings.head_dim, &names)?;
        check_tensors(file, &plan, &settings)?;
        Ok(Self { config, model, plan })
    }

    fn params(&self, file: &GgufFile, device: &Device) -> Result<Params, GgufError> {
        let specs = self.model.specs();
        let mut tensors: Vec<Option<Tensor<1>>> = vec![None; specs.len()];
        for planned in &self.plan {
            for (index, values) in parts(file, planned)? {
                let count = values.len();
                let tensor = Tensor::<1>::from_data(TensorData::new(values, [count]), (device, DType::F32));
                if let Some(slot) = tensors.get_mut(index) {
                    *slot = Some(tensor);
                }
            }
        }
        Ok(Params::from_tensors(specs, tensors.into_iter().flatten().collect())?)
    }
}

/// The Hugging Face tensors inside one tensor of a file, by their place in the plan's names; all values finite.
pub(super) fn parts(file: &GgufFile, planned: &PlannedTensor) -> Result<Vec<(usize, Vec<f32>)>, GgufError> {
    let values = file.floats(&planned.name)?;
    if let Some((index, value)) = values.iter().enumerate().find(|(_, value)| !value.is_finite()) {
        let cause = format!("tensor {:?} holds {value} at element {index}", planned.name);
        return Err(GgufError::Damaged { path: file.path().to_owned(), cause });
    }
    let mut left = values.as_slice();
    let mut list = Vec::with_capacity(planned.parts.len());
    for part in &planned.parts {
        let (own, rest) = left.split_at_checked(part.len).unwrap_or((left, &[]));
        list.push((part.index, part.change.undo(own.to_vec())));
        left = rest;
    }
    Ok(list)
}

fn check_tensors(file: &GgufFile, plan: &[PlannedTensor], settings: &Settings) -> Result<(), GgufError> {
    let damaged = |cause: String| GgufError::Damaged { path: file.path().to_owned(), cause };
    for planned in plan {
        let place = file.tensors().get(&planned.name);
        let place = place.ok_or_else(|| damaged(format!("tensor {:?} is missing", planned.name)))?;
        if place.shape != planned.shape {
            let (found, expected) = (&place.shape, &planned.shape);
            let cause = format!("tensor {:?} has shape {found:?}, its settings make it {expected:?}", planned.name);
            return Err(damaged(cause));
        }
    }
    let known = |name: &str| name == ROPE_FACTORS || plan.iter().any(|planned| planned.name == name);
    if let Some(name) = file.tensors().keys().find(|name| !known(name)) {
        return Err(damaged(format!("tensor {name:?} has no place in the model that its settings describe")));
    }
    let (stored, expected) = (file.tensors().contains_key(ROPE_FACTORS), settings.rope_factors()?);
    match expected {
        None if stored => Err(damaged(format!("it holds {ROPE_FACTORS}, but its settings scale nothing"))),
        Some(factors) if !stored || file.floats(ROPE_FACTORS)? != factors => {
            Err(damaged(format!("{ROPE_FACTORS} is not what its settings make it")))
        }
        _ => Ok(()),
    }
}
