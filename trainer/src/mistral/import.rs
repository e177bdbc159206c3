//! Owns opening a folder in Mistral's layout as a model with parameters; never touches tokenizers.

use std::path::Path;

use burn::tensor::{DType, Device, Tensor, TensorData};
use model_zoo::{Model, ModelConfig, Params};
use serde_json::Value;

use super::names::{Place, places};
use super::tekken::to_hub;
use super::{PARAMS_FILE, SENTENCE_PIECE_FILE, TEKKEN_FILE, WEIGHTS_FILE, settings};
use crate::durable::{read_text, write_atomic};
use crate::gguf::Settings;
use crate::hub::tokenizer_files::object;
use crate::hub::{GenerationConfig, HubError, Imported, MAX_TOKENIZER_BYTES, TOKENIZER_CONFIG_FILE, TOKENIZER_FILE};
use crate::tensor_file::{TensorFile, describe};

/// Special ids of Tekken and of Mistral's SentencePiece files: 1 begins a text, 2 ends it.
const BOS: u32 = 1;
const EOS: u32 = 2;

/// Whether a folder is in Mistral's layout and not in that of Hugging Face.
#[must_use]
pub fn is_layout(folder: &Path) -> bool {
    folder.join(PARAMS_FILE).is_file() && !folder.join("config.json").is_file()
}

/// Opens `params.json` and `consolidated.safetensors`, tensor by tensor.
///
/// # Errors
/// [`HubError`] names the file and the tensor that is missing, surplus, misshapen, of an unknown format or not finite.
pub fn import(folder: &Path, device: &Device) -> Result<Imported, HubError> {
    let path = folder.join(PARAMS_FILE);
    let wrong = |cause: String| HubError::Json { path: path.clone(), cause };
    let mut config = settings::read(&object(&path)?).map_err(wrong)?;
    let (bos, eos) = special_ids(folder)?;
    config.insert("bos_token_id".into(), serde_json::json!(bos));
    config.insert("eos_token_id".into(), serde_json::json!(eos));
    let text = Value::Object(config).to_string();
    let refused = |source| HubError::Config { path: path.clone(), source };
    let config = ModelConfig::from_hub_json(&text).map_err(refused)?;
    let model = Model::new(&config).map_err(refused)?;
    let params = read_params(folder, &model, &text, device)?;
    let generation = GenerationConfig::read(folder, &config)?;
    Ok(Imported { model, params, generation, dropped: Vec::new() })
}

/// Digest of the weight file.
///
/// # Errors
/// When the disk refuses.
pub fn weights_digest(folder: &Path) -> Result<String, HubError> {
    Ok(describe(&folder.join(WEIGHTS_FILE))?.blake3)
}

/// Writes the tokenizer.json and tokenizer_config.json of a folder's `tekken.json` into `out`.
///
/// # Errors
/// When there is no `tekken.json`, or it contradicts itself.
pub fn unpack_tokenizer(folder: &Path, out: &Path) -> Result<(), HubError> {
    let path = folder.join(TEKKEN_FILE);
    let text = read_text(&path, MAX_TOKENIZER_BYTES)?;
    let wrong = |cause: String| HubError::Json { path: path.clone(), cause };
    let tekken: Value = serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
    let (tokenizer, config) = to_hub(&tekken).map_err(wrong)?;
    write_atomic(&out.join(TOKENIZER_FILE), format!("{tokenizer:#}\n").as_bytes())?;
    Ok(write_atomic(&out.join(TOKENIZER_CONFIG_FILE), format!("{config:#}\n").as_bytes())?)
}

/// Where `<s>` and `</s>` stand.
fn special_ids(folder: &Path) -> Result<(u32, u32), HubError> {
    let path = folder.join(TEKKEN_FILE);
    if !path.exists() || folder.join(SENTENCE_PIECE_FILE).exists() {
        return Ok((BOS, EOS));
    }
    let text = read_text(&path, MAX_TOKENIZER_BYTES)?;
    let tekken: Value =
        serde_json::from_str(&text).map_err(|error| HubError::Json { path: path.clone(), cause: error.to_string() })?;
    let listed = tekken["special_tokens"].as_array().cloned().unwrap_or_default();
    let place = |name: &str| listed.iter().position(|token| token["token_str"].as_str() == Some(name));
    let id = |name: &str, default: u32| place(name).and_then(|at| u32::try_from(at).ok()).unwrap_or(default);
    Ok((id("<s>", BOS), id("</s>", EOS)))
}

fn read_params(folder: &Path, model: &Model, config: &str, device: &Device) -> Result<Params, HubError> {
    let file = TensorFile::open(&folder.join(WEIGHTS_FILE))?;
    let head_dim = Settings::read(config).map_err(|error| HubError::Layout { what: error.to_string() })?.head_dim;
    let specs = model.specs();
    let listed: Vec<_> = specs.iter().map(|spec| (spec.name.clone(), spec.shape.clone())).collect();
    let places = places(head_dim, &listed)?;
    let surplus: Vec<String> =
        file.names().into_iter().filter(|name| !places.iter().any(|place| place.name == *name)).collect();
    if !surplus.is_empty() {
        return Err(HubError::Surplus { path: file.path().to_owned(), names: surplus });
    }
    let mut tensors = Vec::with_capacity(places.len());
    for (Place { name, change }, spec) in places.into_iter().zip(specs.iter()) {
        let found = file.info(&name).map(|info| info.shape.clone());
        let found = found.ok_or_else(|| HubError::Missing { dir: folder.to_owned(), names: vec![name.clone()] })?;
        if found != spec.shape {
            let (path, expected) = (file.path().to_owned(), spec.shape.clone());
            return Err(HubError::Shape { path, name, found, expected });
        }
        let values = file.floats(&name)?;
        if let Some((index, value)) = values.iter().enumerate().find(|(_, value)| !value.is_finite()) {
            return Err(HubError::NotFinite { path: file.path().to_owned(), name, index, value: *value });
        }
        let values = change.undo(values);
        let count = values.len();
        tensors.push(Tensor::<1>::from_data(TensorData::new(values, [count]), (device, DType::F32)));
    }
    Ok(Params::from_tensors(specs, tensors)?)
}
