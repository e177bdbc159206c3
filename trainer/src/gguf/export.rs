//! Owns turning a model into a GGUF file that has been proven to be the same model; never touches training state.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use model_zoo::{Model, Params, WeightDtype};
use serde_json::{Map, Value as Json};

use super::GgufError;
use super::metadata::{ROPE_FACTORS, Settings, config_of};
use super::mix::{MixModel, Quantization};
use super::model::{Description, open_model, parts};
use super::names::{PlannedTensor, plan};
use super::quantise::quantise;
use super::read::GgufFile;
use super::tokenizer::{Agreement, Converted, Vocabulary, compare, convert};
use super::types::TensorType;
use super::write::{Entry, Piece, write};
use crate::durable::read_text;
use crate::hub::publish::{Record, publish};
use crate::hub::tokenizer_files::{chat_template, object};
use crate::hub::weights::Weights;
use crate::hub::{
    CONFIG_FILE, ExportProgress, GenerationConfig, HEAD_NAME, JSON_LIMIT_BYTES, TOKENIZER_CONFIG_FILE, probe,
};

/// Gives the values of a tensor by its place in the list, row-major, in f32.
pub type ReadTensor<'a> = Box<dyn Fn(usize) -> Result<Vec<f32>, GgufError> + 'a>;

/// A model as Hugging Face names it.
pub struct GgufSource<'a> {
    /// config.json.
    pub config: String,
    /// Names and shapes.
    pub tensors: Vec<(String, Vec<usize>)>,
    /// Their values.
    pub read: ReadTensor<'a>,
    /// Folder with tokenizer.json.
    pub tokenizer: PathBuf,
    /// Ids that begin, end and pad texts.
    pub generation: GenerationConfig,
    /// How the model was taught to chat; `None`: as the tokenizer's folder says.
    pub chat_template: Option<String>,
    /// The same model in memory; without it logits are not compared.
    pub trained: Option<(&'a Model, &'a Params, &'a Device)>,
}

impl<'a> GgufSource<'a> {
    /// A model in memory.
    #[must_use]
    pub fn of_params(
        model: &'a Model,
        params: &'a Params,
        tokenizer: &Path,
        generation: GenerationConfig,
        device: &'a Device,
    ) -> Self {
        Self {
            config: model.config().to_hub_json(WeightDtype::F32),
            tensors: params.specs().iter().map(|spec| (spec.name.clone(), spec.shape.clone())).collect(),
            read: Box::new(|index| Ok(params.to_host(index)?)),
            tokenizer: tokenizer.to_owned(),
            generation,
            chat_template: None,
            trained: Some((model, params, device)),
        }
    }

    /// A Hugging Face directory, tensor by tensor, of any family that GGUF is written for.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn of_folder(folder: &Path) -> Result<Self, GgufError> {
        let config = read_text(&folder.join(CONFIG_FILE), JSON_LIMIT_BYTES).map_err(GgufError::from)?;
        let settings = Settings::read(&config)?;
        let weights = Weights::open(folder)?;
        let needed = |name: &str| {
            !(settings.tied_head && name == HEAD_NAME)
                && ![".rotary_emb.inv_freq", ".attn.bias", ".attn.masked_bias"].iter().any(|end| name.ends_with(end))
        };
        let tensors: Vec<_> = weights
            .tensors()
            .filter(|(name, _)| needed(name))
            .map(|(name, shape)| (name.clone(), shape.to_vec()))
            .collect();
        let names: Vec<String> = tensors.iter().map(|(name, _)| name.clone()).collect();
        let read = move |index: usize| Ok(weights.floats(names.get(index).map_or("", String::as_str))?);
        let generation = generation_of(folder, &config)?;
        Ok(Self {
            config,
            tensors,
            read: Box::new(read),
            tokenizer: folder.to_owned(),
            generation,
            chat_template: None,
            trained: None,
        })
    }
}

/// generation_config.json over config.json, without a model.
fn generation_of(folder: &Path, config: &str) -> Result<GenerationConfig, GgufError> {
    let config: Map<String, Json> = serde_json::from_str(config).unwrap_or_default();
    let settings = object(&folder.join(crate::hub::GENERATION_CONFIG_FILE))?;
    let ids = |key: &str| -> Vec<u32> {
        let value = settings.get(key).filter(|value| !value.is_null()).or(config.get(key));
        let list = value.map(|value| value.as_array().cloned().unwrap_or_else(|| vec![value.clone()]));
        list.unwrap_or_default().iter().filter_map(|id| id.as_u64()?.try_into().ok()).collect()
    };
    Ok(GenerationConfig {
        bos_token_id: ids("bos_token_id").first().copied(),
        eos_token_ids: ids("eos_token_id"),
        pad_token_id: ids("pad_token_id").first().copied(),
    })
}

/// What to write and where.
#[derive(Debug, Clone)]
pub struct GgufOptions<'a> {
    /// The folder to make; it must not exist. The file in it is named for the folder and the number format.
    pub out: &'a Path,
    /// Number format of the weights.
    pub quantization: Quantization,
}

/// A finished file and the proof that it is the model it was made from.
#[derive(Debug, Clone, PartialEq)]
pub struct GgufReport {
    /// The file.
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// Tensors in it.
    pub num_tensors: usize,
    /// How many tensors have each number format.
    pub formats: Vec<(TensorType, usize)>,
    /// Largest root mean square error of a tensor, as a part of its root mean square, and which.
    pub worst_tensor: (f64, String),
    /// Largest difference of a logit on the probe, the largest logit, and the mean divergence in nats a token.
    pub logits: Option<LogitDifference>,
    /// Texts that get the same ids under llama.cpp's rules, of so many.
    pub equal_texts: (usize, usize),
    /// What the user should know.
    pub warnings: Vec<String>,
}

/// How far two models' logits are apart on the probe.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LogitDifference {
    /// Largest absolute difference.
    pub largest: f64,
    /// Largest accepted.
    pub tolerance: f64,
    /// Largest absolute logit of the source.
    pub peak: f64,
    /// Mean Kullback-Leibler divergence from the source, nats a position.
    pub divergence: f64,
    /// Largest accepted.
    pub divergence_tolerance: f64,
}

/// Writes a model as a GGUF file, opens it again and compares: settings, every tensor within what its number format
/// allows, vocabulary, token ids of texts, logits of a fixed probe. Only then is the folder put into place.
///
/// # Errors
/// [`GgufError::Differs`] when the reopened file is another model, and what the disk, the device, the tokenizer or the
/// family may refuse.
pub fn export(
    source: &GgufSource<'_>,
    options: &GgufOptions<'_>,
    progress: &dyn Fn(ExportProgress),
) -> Result<GgufReport, GgufError> {
    let stem = options.out.file_name().map_or_else(|| "model".into(), |name| name.to_string_lossy().into_owned());
    let name = format!("{stem}-{}.gguf", options.quantization.name());
    let mut report = publish(options.out, |partial| -> Result<GgufReport, GgufError> {
        let path = partial.join(&name);
        let written = write_file(source, options.quantization, &stem, &path, progress)?;
        progress(ExportProgress::Reopening);
        let report = prove(source, options.quantization, &path, written, progress)?;
        Record::write(partial)?;
        Ok(report)
    })?;
    report.path = options.out.join(&name);
    Ok(report)
}

/// What was written.
struct Written {
    settings: Settings,
    plan: Vec<PlannedTensor>,
    converted: Converted,
    bytes: u64,
}

fn write_file(
    source: &GgufSource<'_>,
    quantization: Quantization,
    name: &str,
    path: &Path,
    progress: &dyn Fn(ExportProgress),
) -> Result<Written, GgufError> {
    let settings = Settings::read(&source.config)?;
    let plan = plan(settings.family, settings.head_dim, &source.tensors)?;
    let template = match &source.chat_template {
        Some(template) => Some(template.clone()),
        None => chat_template(&source.tokenizer, &object(&source.tokenizer.join(TOKENIZER_CONFIG_FILE))?)?,
    };
    let converted = convert(&source.tokenizer, settings.vocab_size, &source.generation, template)?;
    let mut metadata = settings.describe(name, quantization)?;
    metadata.extend(converted.vocabulary.describe());
    let model = MixModel { layers: settings.layers, experts: settings.experts, tied_head: settings.tied_head };
    let mut entries = Vec::with_capacity(plan.len() + 1);
    if let Some(factors) = settings.rope_factors()? {
        let pieces: Vec<Piece<'_>> = vec![Box::new({
            let factors = factors.clone();
            move || Ok(quantise(&factors, TensorType::F32))
        })];
        entries.push(Entry { name: ROPE_FACTORS.into(), shape: vec![factors.len()], kind: TensorType::F32, pieces });
    }
    for planned in &plan {
        let kind = quantization.of_tensor(&planned.name, &planned.shape, model);
        let pieces = planned.parts.iter().map(|part| -> Piece<'_> {
            Box::new(move || {
                let values = part.change.apply((source.read)(part.index)?);
                check_range(&planned.name, &values, kind)?;
                Ok(quantise(&values, kind))
            })
        });
        let (name, shape) = (planned.name.clone(), planned.shape.clone());
        entries.push(Entry { name, shape, kind, pieces: pieces.collect() });
    }
    let total = entries.len();
    let bytes = write(path, &metadata, entries, &|tensors| progress(ExportProgress::Written { tensors, total }))?;
    Ok(Written { settings, plan, converted, bytes })
}

/// Half precision, in which weights or their scales are stored, ends at 65504.
fn check_range(name: &str, values: &[f32], kind: TensorType) -> Result<(), GgufError> {
    let limit = match kind {
        TensorType::F32 | TensorType::Bf16 => f32::MAX,
        _ => 65_504.0,
    };
    match values.iter().enumerate().find(|(_, value)| value.is_nan() || value.abs() > limit) {
        None => Ok(()),
        Some((index, value)) => {
            Err(GgufError::Overflow { name: name.to_owned(), value: *value, index, kind: kind.name() })
        }
    }
}

fn prove(
    source: &GgufSource<'_>,
    quantization: Quantization,
    path: &Path,
    written: Written,
    progress: &dyn Fn(ExportProgress),
) -> Result<GgufReport, GgufError> {
    let file = GgufFile::open(path)?;
    let Written { settings, plan, converted, bytes } = written;
    let worst_tensor = compare_tensors(source, &file, &plan, quantization)?;
    let found = Vocabulary::read(&file)?;
    if found != converted.vocabulary {
        return Err(GgufError::Differs { what: "its vocabulary is read as another one".into() });
    }
    let agreement = compare_texts(source, &found)?;
    progress(ExportProgress::Comparing);
    let logits = match source.trained {
        Some((model, params, device)) => {
            compare_settings(source, &file)?;
            Some(compare_logits(model, params, device, path, quantization)?)
        }
        None => None,
    };
    let mut formats: Vec<(TensorType, usize)> = Vec::new();
    for kind in TensorType::ALL {
        let count = file.tensors().values().filter(|place| place.kind == kind).count();
        if count > 0 {
            formats.push((kind, count));
        }
    }
    let mut warnings = settings.warnings();
    warnings.extend(converted.warnings);
    if source.generation.eos_token_ids.len() > 2 {
        warnings.push("GGUF has room for two end ids; llama.cpp recognises common end-of-turn tokens by name".into());
    }
    Ok(GgufReport {
        path: path.to_owned(),
        bytes,
        num_tensors: file.tensors().len(),
        formats,
        worst_tensor,
        logits,
        equal_texts: (agreement.texts - agreement.other_texts, agreement.texts),
        warnings,
    })
}

fn compare_texts(source: &GgufSource<'_>, found: &Vocabulary) -> Result<Agreement, GgufError> {
    let path = source.tokenizer.join(crate::hub::TOKENIZER_FILE);
    let original = data_pipeline::tokenizer::Tokenizer::open(&path)
        .map_err(|error| GgufError::Tokenizer { path: path.clone(), cause: error.to_string() })?;
    compare(&original, found, &path)
}

/// Every stored tensor against its source: the largest relative error.
fn compare_tensors(
    source: &GgufSource<'_>,
    file: &GgufFile,
    plan: &[PlannedTensor],
    quantization: Quantization,
) -> Result<(f64, String), GgufError> {
    let mut worst = (0.0, String::new());
    for planned in plan {
        for (index, found) in parts(file, planned)? {
            let expected = (source.read)(index)?;
            let error = relative_error(&expected, &found);
            let name = source.tensors.get(index).map(|(name, _)| name.clone()).unwrap_or_default();
            if error.is_nan() || error > quantization.tolerance() || expected.len() != found.len() {
                let what =
                    format!("tensor {name:?} by {error:.3e} of its size, more than {:.1e}", quantization.tolerance());
                return Err(GgufError::Differs { what });
            }
            if error > worst.0 {
                worst = (error, name);
            }
        }
    }
    Ok(worst)
}

/// Root mean square of the difference over that of `expected`.
fn relative_error(expected: &[f32], found: &[f32]) -> f64 {
    let square = |sum: f64, value: f64| sum + value * value;
    let size = expected.iter().map(|value| f64::from(*value)).fold(0.0, square);
    let difference = expected.iter().zip(found).map(|(a, b)| f64::from(*a) - f64::from(*b)).fold(0.0, square);
    if size == 0.0 { difference.sqrt() } else { (difference / size).sqrt() }
}

/// Settings that training or other programs use and that no answer depends on.
const IGNORED: [&str; 3] = ["initializer_range", "eos_token_id", "router_aux_loss_coef"];

fn compare_settings(source: &GgufSource<'_>, file: &GgufFile) -> Result<(), GgufError> {
    let described = Description::of(file)?;
    let found: Json = serde_json::from_str(&described.config.to_hub_json(WeightDtype::F32)).unwrap_or_default();
    let expected: Json = serde_json::from_str(&source.config).unwrap_or_default();
    let keys = expected.as_object().into_iter().flatten().filter(|(key, _)| !IGNORED.contains(&key.as_str()));
    for (key, value) in keys {
        if !same(value, &found[key]) {
            let raw = config_of(file)?.get(key).cloned().unwrap_or_default();
            let what = format!("{key} is {value}, but is read as {} ({raw} in the file)", found[key]);
            return Err(GgufError::Differs { what });
        }
    }
    Ok(())
}

/// Equal, numbers in single precision: GGUF has no other for settings.
fn same(a: &Json, b: &Json) -> bool {
    match (a, b) {
        (Json::Number(a), Json::Number(b)) => a.as_f64().map(|a| a as f32) == b.as_f64().map(|b| b as f32),
        (Json::Object(a), Json::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, value)| b.get(key).is_some_and(|other| same(value, other)))
        }
        (Json::Array(a), Json::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        _ => a == b,
    }
}

fn compare_logits(
    model: &Model,
    params: &Params,
    device: &Device,
    path: &Path,
    quantization: Quantization,
) -> Result<LogitDifference, GgufError> {
    let opened = open_model(path, device)?;
    let expected = probe::logits(model, params, device)?;
    let found = probe::logits(&opened.model, &opened.params, device)?;
    let (peak, largest) = probe::compare(&expected, &found);
    let divergence = mean_divergence(&expected, &found, model.vocab_size());
    let (relative, divergence_tolerance) = quantization.logit_tolerance();
    let tolerance = relative * peak.max(1.0);
    if !(largest <= tolerance && divergence <= divergence_tolerance) {
        let what = format!(
            "logits by {largest:.3e} (allowed {tolerance:.3e}), {divergence:.3e} nats a token (allowed \
             {divergence_tolerance:.1e}); choose a finer format"
        );
        return Err(GgufError::Differs { what });
    }
    Ok(LogitDifference { largest, tolerance, peak, divergence, divergence_tolerance })
}

/// Mean over positions of the Kullback-Leibler divergence of `found` from `expected`, nats.
pub(crate) fn mean_divergence(expected: &[f32], found: &[f32], vocab_size: usize) -> f64 {
    let rows = expected.chunks_exact(vocab_size.max(1)).zip(found.chunks_exact(vocab_size.max(1)));
    let positions = rows.len().max(1) as f64;
    let divergence = |(expected, found): (&[f32], &[f32])| -> f64 {
        let (p_total, q_total) = (log_sum(expected), log_sum(found));
        let terms = expected.iter().zip(found).map(|(p, q)| {
            let (p, q) = (f64::from(*p) - p_total, f64::from(*q) - q_total);
            p.exp() * (p - q)
        });
        terms.sum()
    };
    rows.map(divergence).sum::<f64>() / positions
}

fn log_sum(logits: &[f32]) -> f64 {
    let peak = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|logit| f64::from(logit - peak).exp()).sum();
    f64::from(peak) + sum.ln()
}
