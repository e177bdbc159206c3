//! Owns turning a model into a folder in Mistral's layout that has been proven to be the same model; never touches
//! training state.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use data_pipeline::tokenizer::Tokenizer;
use half::{bf16, f16};
use model_zoo::{Model, Params, WeightDtype};
use safetensors::Dtype;
use serde_json::{Map, Value};

use super::byte_order::ByteOrder;
use super::import::import;
use super::names::{Place, places};
use super::tekken::{byte_order, from_hub, to_hub};
use super::{PARAMS_FILE, SENTENCE_PIECE_FILE, TEKKEN_FILE, WEIGHTS_FILE, settings};
use crate::durable::{FileError, read_text, sync_folder, write_atomic};
use crate::gguf::Settings;
use crate::hub::publish::{Record, publish};
use crate::hub::tokenizer_files::object;
use crate::hub::writer::round;
use crate::hub::{
    ExportOptions, ExportProgress, GENERATION_CONFIG_FILE, GenerationConfig, HubError, MAX_TOKENIZER_BYTES,
    PROBE_TEXTS, TOKENIZER_CONFIG_FILE, TOKENIZER_FILE, probe,
};
use crate::tensor_file::{self, Entry};

/// A finished export and the proof that it is the model.
#[derive(Debug, Clone, PartialEq)]
pub struct MistralReport {
    /// The folder.
    pub dir: PathBuf,
    /// Tensors that were stored, read back and found equal to the rounded parameters, bit for bit.
    pub num_tensors: usize,
    /// Largest difference of a logit on the probe, and the largest logit.
    pub logits: (f64, f64),
    /// The tokenizer file that was written.
    pub tokenizer: &'static str,
    /// What the user should know.
    pub warnings: Vec<String>,
}

/// Writes `params.json`, `consolidated.safetensors` and the tokenizer (`tokenizer.model` where there is one, else
/// `tekken.json`), opens them again and compares: every tensor bit for bit, logits of a fixed probe, token ids of fixed
/// texts. Only then is the folder put into place.
///
/// # Errors
/// [`HubError::Layout`] when the model or its tokenizer has no such form, [`HubError::Differs`] when the reopened model
/// is another one, and what the disk and the device may refuse.
pub fn export(
    model: &Model,
    params: &Params,
    options: &ExportOptions<'_>,
    device: &Device,
    progress: &dyn Fn(ExportProgress),
) -> Result<MistralReport, HubError> {
    let mut report = publish(options.out, |dir| -> Result<MistralReport, HubError> {
        let mut warnings = Vec::new();
        let (tokenizer, ends, order) = write_tokenizer(model, options, dir, &mut warnings)?;
        write_model((model, params), options, order.as_ref(), dir, progress)?;
        write_atomic(&dir.join(GENERATION_CONFIG_FILE), ends.to_json().as_bytes())?;
        sync_folder(dir)?;
        progress(ExportProgress::Reopening);
        let reopened = import(dir, device)?;
        progress(ExportProgress::Comparing);
        let found = match &order {
            Some(order) => order.undo(&reopened.params, device)?,
            None => reopened.params,
        };
        compare_tensors(params, &found, options.dtype)?;
        let expected = probe::logits(model, params, device)?;
        let found = probe::logits(&reopened.model, &found, device)?;
        let (peak, largest) = probe::compare(&expected, &found);
        let tolerance = crate::hub::relative_tolerance(options.dtype, model.config()) * peak.max(1.0);
        if largest.is_nan() || largest > tolerance {
            return Err(HubError::Differs { what: format!("logits by {largest:.3e}, more than {tolerance:.3e}") });
        }
        Record::write(dir)?;
        let num_tensors = params.specs().len();
        Ok(MistralReport { dir: dir.to_owned(), num_tensors, logits: (largest, peak), tokenizer, warnings })
    })?;
    report.dir = options.out.to_owned();
    Ok(report)
}

fn write_model(
    (model, params): (&Model, &Params),
    options: &ExportOptions<'_>,
    order: Option<&ByteOrder>,
    dir: &Path,
    progress: &dyn Fn(ExportProgress),
) -> Result<(), HubError> {
    let layout = |error: crate::gguf::GgufError| HubError::Layout { what: error.to_string() };
    let text = model.config().to_hub_json(options.dtype);
    let config: Map<String, Value> = serde_json::from_str(&text).unwrap_or_default();
    let settings = format!("{:#}\n", Value::Object(settings::write(&config)?));
    write_atomic(&dir.join(PARAMS_FILE), settings.as_bytes())?;
    let head_dim = Settings::read(&text).map_err(layout)?.head_dim;
    let listed: Vec<_> = params.specs().iter().map(|spec| (spec.name.clone(), spec.shape.clone())).collect();
    let (dtype, total) = (options.dtype, listed.len());
    let stored = match dtype {
        WeightDtype::F32 => Dtype::F32,
        WeightDtype::F16 => Dtype::F16,
        WeightDtype::Bf16 => Dtype::BF16,
    };
    let mut entries = Vec::with_capacity(total);
    for (index, (Place { name, change }, (_, shape))) in places(head_dim, &listed)?.into_iter().zip(&listed).enumerate()
    {
        let bytes = Box::new({
            let name = name.clone();
            move || -> Result<Vec<u8>, HubError> {
                let values = change.apply(params.to_host(index)?);
                let values = match (order, params.specs().get(index)) {
                    (Some(order), Some(spec)) => order.apply(&spec.name, &spec.shape, values),
                    _ => values,
                };
                if let Some(value) = values.iter().find(|value| !round(**value, dtype).is_finite()) {
                    return Err(HubError::Overflow { name, value: *value, dtype });
                }
                progress(ExportProgress::Written { tensors: index + 1, total });
                Ok(encode(&values, dtype))
            }
        });
        entries.push(Entry { name, dtype: stored, shape: shape.clone(), bytes });
    }
    tensor_file::write::<HubError>(&dir.join(WEIGHTS_FILE), entries).map(|_| ())
}

fn encode(values: &[f32], dtype: WeightDtype) -> Vec<u8> {
    match dtype {
        WeightDtype::F32 => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
        WeightDtype::F16 => values.iter().flat_map(|value| f16::from_f32(*value).to_le_bytes()).collect(),
        WeightDtype::Bf16 => values.iter().flat_map(|value| bf16::from_f32(*value).to_le_bytes()).collect(),
    }
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

/// Writes the tokenizer; gives its file, the special ids, and which ids of single bytes are others in it.
fn write_tokenizer(
    model: &Model,
    options: &ExportOptions<'_>,
    dir: &Path,
    warnings: &mut Vec<String>,
) -> Result<(&'static str, GenerationConfig, Option<ByteOrder>), HubError> {
    let ends = GenerationConfig::of(model.config(), options.end_of_turn);
    let sentence_piece = options.tokenizer.join(SENTENCE_PIECE_FILE);
    if sentence_piece.is_file() {
        let bytes = std::fs::read(&sentence_piece).map_err(FileError::at(&sentence_piece, "read"))?;
        write_atomic(&dir.join(SENTENCE_PIECE_FILE), &bytes)?;
        copy_hub_tokenizer(options.tokenizer, dir)?;
        return Ok((SENTENCE_PIECE_FILE, ends, None));
    }
    let path = options.tokenizer.join(TOKENIZER_FILE);
    let refused = |cause: String| HubError::Tokenizer { path: path.clone(), cause };
    let hub: Value = serde_json::from_str(&read_text(&path, MAX_TOKENIZER_BYTES)?)
        .map_err(|error| refused(format!("it is no JSON ({error})")))?;
    let roles = object(&options.tokenizer.join(TOKENIZER_CONFIG_FILE))?;
    let tekken = match from_hub(&hub, &roles) {
        Ok(tekken) => tekken,
        Err(cause) => {
            warnings.push(format!("no {TEKKEN_FILE} was written ({cause}); {TOKENIZER_FILE} is there instead"));
            copy_hub_tokenizer(options.tokenizer, dir)?;
            return Ok((TOKENIZER_FILE, ends, None));
        }
    };
    write_atomic(&dir.join(TEKKEN_FILE), format!("{tekken:#}\n").as_bytes())?;
    let order = byte_order(&hub, &roles).map_err(refused)?;
    compare_texts(&path, &dir.join(TEKKEN_FILE), order.as_ref())?;
    if order.is_some() {
        let text = format!("single bytes have other ids in {TEKKEN_FILE}, and the rows of the model by token stand so");
        warnings.push(text);
    }
    Ok((TEKKEN_FILE, ends, order))
}

fn copy_hub_tokenizer(from: &Path, to: &Path) -> Result<(), HubError> {
    for name in [TOKENIZER_FILE, TOKENIZER_CONFIG_FILE] {
        let path = from.join(name);
        if path.is_file() {
            let bytes = std::fs::read(&path).map_err(FileError::at(&path, "read"))?;
            write_atomic(&to.join(name), &bytes)?;
        }
    }
    Ok(())
}

/// The written file, turned back, must give every text the ids of the original.
fn compare_texts(original: &Path, written: &Path, order: Option<&ByteOrder>) -> Result<(), HubError> {
    let refused = |cause: String| HubError::Tokenizer { path: written.to_owned(), cause };
    let tekken: Value =
        serde_json::from_str(&read_text(written, MAX_TOKENIZER_BYTES)?).map_err(|error| refused(error.to_string()))?;
    let (tokenizer, config) = to_hub(&tekken).map_err(refused)?;
    let roles = config.as_object().cloned().unwrap_or_default();
    let found = Tokenizer::from_json(tokenizer.to_string().as_bytes(), &roles, written)
        .map_err(|error| refused(error.to_string()))?;
    let expected = Tokenizer::open(original).map_err(|error| refused(error.to_string()))?;
    for text in PROBE_TEXTS.into_iter().chain(crate::gguf::SAMPLE_TEXTS) {
        let encode = |tokenizer: &Tokenizer| tokenizer.encode(text, false).map_err(|error| refused(error.to_string()));
        let old = |id: u32| order.map_or(id, |order| order.old(id));
        if !encode(&expected)?.into_iter().eq(encode(&found)?.into_iter().map(old)) {
            return Err(HubError::Differs { what: format!("token ids of {text:?} in {TEKKEN_FILE}") });
        }
    }
    Ok(())
}
