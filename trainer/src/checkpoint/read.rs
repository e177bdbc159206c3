//! Owns reading tensors back from checkpoints, strictly; never touches the commit protocol.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::tensor::{Device, Tensor, TensorData};
use model_zoo::{Model, ModelConfig, ParamSpec, Params};

use super::store::{MODEL_FILE, MOMENTS, OPTIMIZER_FILE, list, verify_files};
use super::{CheckpointError, Manifest, digest};
use crate::adapter::AdapterPlan;
use crate::durable;
use crate::optim::{OptimizerHyper, cut};
use crate::partition::{Partition, Piece};
use crate::tensor_file::TensorFile;

/// Largest `config.json` that is read, bytes.
const CONFIG_LIMIT_BYTES: u64 = 1 << 20;
/// Largest `plan.json` that is read, bytes.
const PLAN_LIMIT_BYTES: u64 = 16 << 20;

/// Name of one slice of a moment: a later sharded optimizer writes several a parameter, each at its first element.
pub(super) fn slice_name(kind: &str, parameter: &str, start: usize) -> String {
    format!("{kind}/{parameter}/{start}")
}

/// The model inside a checkpoint, without the optimizer.
pub struct SavedModel {
    /// The checkpoint it came from.
    pub path: PathBuf,
    /// Its description.
    pub manifest: Manifest,
    /// Architecture.
    pub config: ModelConfig,
    /// Weights; of an adapter run those of the adapter.
    pub params: Params,
    /// What they were trained on top of, of an adapter run.
    pub adapter: Option<SavedAdapter>,
}

/// What the weights of an adapter run are to be put on.
#[derive(Debug, Clone)]
pub struct SavedAdapter {
    /// The adapter.
    pub plan: AdapterPlan,
    /// Directory of the base, as the run knew it.
    pub base_model: PathBuf,
    /// Digest of its weights.
    pub base_weights: String,
}

/// The parts of `plan.json` that say what an adapter is to be put on.
#[derive(serde::Deserialize)]
struct StoredPlan {
    adapter: Option<AdapterPlan>,
    base_model: Option<PathBuf>,
    base_weights: Option<String>,
}

/// Finds the checkpoint that `path` means: a checkpoint itself, or the newest valid one of a run directory.
///
/// # Errors
/// When there is none.
pub fn find(path: &Path) -> Result<PathBuf, CheckpointError> {
    if path.join(super::manifest::FILE_NAME).is_file() {
        return Ok(path.to_owned());
    }
    let damaged = |what: &str| CheckpointError::Damaged { path: path.to_owned(), what: what.into() };
    let folder = path.join("checkpoints");
    if !folder.is_dir() {
        return Err(damaged("this is neither a checkpoint nor a run directory; name one of the two"));
    }
    list(&folder)?
        .into_iter()
        .map(|(_, path)| path)
        .find(|path| Manifest::read(path).is_ok_and(|manifest| verify_files(path, &manifest).is_ok()))
        .ok_or_else(|| damaged("the run has no valid checkpoint; train first"))
}

/// Reads the model of a checkpoint or of a run's newest valid one, after checking every byte.
///
/// # Errors
/// When the checkpoint is damaged.
pub fn read_model(path: &Path, device: &Device) -> Result<SavedModel, CheckpointError> {
    let path = find(path)?;
    let manifest = Manifest::read(&path)?;
    verify_files(&path, &manifest)?;
    let at = path.join("config.json");
    let damaged = |what: String| CheckpointError::Damaged { path: at.clone(), what };
    let text = durable::read_text(&at, CONFIG_LIMIT_BYTES)?;
    let config = ModelConfig::from_hub_json(&text).map_err(|e| damaged(e.to_string()))?;
    let model = Model::new(&config).map_err(|e| damaged(e.to_string()))?;
    let adapter = read_adapter(&path)?;
    let specs = match &adapter {
        None => model.specs(),
        Some(SavedAdapter { plan, .. }) => {
            let spec = plan.lora.spec(&model).map_err(|e| damaged(e.to_string()))?;
            model.adapter_specs(&spec).map_err(|e| damaged(e.to_string()))?
        }
    };
    let params = read_parameters(&path, &specs, device)?;
    Ok(SavedModel { path, manifest, config, params, adapter })
}

/// The adapter that a checkpoint's plan speaks of; `None` of a folder without such a plan.
///
/// # Errors
/// When the plan is damaged.
pub fn read_adapter(checkpoint: &Path) -> Result<Option<SavedAdapter>, CheckpointError> {
    let at = checkpoint.join("plan.json");
    if !at.is_file() {
        return Ok(None);
    }
    let damaged = |what: String| CheckpointError::Damaged { path: at.clone(), what };
    let text = durable::read_text(&at, PLAN_LIMIT_BYTES)?;
    let stored: StoredPlan = serde_json::from_str(&text).map_err(|e| damaged(format!("the plan is damaged: {e}")))?;
    match stored {
        StoredPlan { adapter: None, .. } => Ok(None),
        StoredPlan { adapter: Some(plan), base_model: Some(base_model), base_weights: Some(base_weights) } => {
            Ok(Some(SavedAdapter { plan, base_model, base_weights }))
        }
        _ => Err(damaged("the plan has an adapter and names no base".into())),
    }
}

fn read_parameters(path: &Path, specs: &Arc<[ParamSpec]>, device: &Device) -> Result<Params, CheckpointError> {
    let damaged = |what: String| CheckpointError::Damaged { path: path.join(MODEL_FILE), what };
    let model = TensorFile::open(&path.join(MODEL_FILE))?;
    let values =
        exact(&model, specs, |s| (s.name.clone(), s.shape.clone())).map_err(|error| error.in_file(path, MODEL_FILE))?;
    if model.names().len() != specs.len() {
        return Err(damaged(format!("{} tensors instead of {}", model.names().len(), specs.len())));
    }
    Params::from_host(Arc::clone(specs), values, device).map_err(|error| damaged(error.to_string()))
}

/// What a checkpoint holds, checked.
pub(super) struct StateTensors {
    pub(super) params: Params,
    pub(super) exp_avg: Vec<Tensor<1>>,
    pub(super) exp_avg_sq: Vec<Tensor<1>>,
    /// Digest of the whole state.
    pub(super) digest: String,
}

/// Parameters and both moments of a checkpoint whose files were verified; of the moments only this process's pieces
/// where there is a partition, so that a state larger than the memory of one host can be loaded.
///
/// # Errors
/// When a tensor or moment is missing, surplus, misshapen or not finite: nothing is ever filled in silently.
pub(super) fn read_state_tensors(
    path: &Path,
    manifest: &Manifest,
    specs: &Arc<[ParamSpec]>,
    hyper: OptimizerHyper,
    partition: Option<&Partition>,
    device: &Device,
) -> Result<StateTensors, CheckpointError> {
    let damaged = |file: &str, what: String| CheckpointError::Damaged { path: path.join(file), what };
    if manifest.parameters != specs.len() || manifest.moments != specs.len() * MOMENTS.len() {
        let what = format!(
            "{} parameters and {} moments are stored, the model needs {} and {}",
            manifest.parameters,
            manifest.moments,
            specs.len(),
            specs.len() * MOMENTS.len()
        );
        return Err(damaged(super::manifest::FILE_NAME, what));
    }
    let params = read_parameters(path, specs, device)?;
    let mut digests = digest::of_parts(specs, &[("parameter", params.tensors())]);
    let file = Moments::open(path, specs, hyper)?;
    if file.file.names().len() != manifest.moments {
        let what = format!("{} tensors instead of {}", file.file.names().len(), manifest.moments);
        return Err(damaged(OPTIMIZER_FILE, what));
    }
    let mut moments = [Vec::new(), Vec::new()];
    for (moment, (kind, kept)) in MOMENTS.into_iter().zip(&mut moments).enumerate() {
        for (param, spec) in specs.iter().enumerate() {
            let values = file.read(moment, param)?;
            let len = values.len();
            let data = TensorData::new(values, [len]);
            digests.push(digest::of_values(kind, spec, data.as_bytes()));
            let whole = Tensor::from_data(data, device);
            match partition {
                None => kept.push(whole),
                Some(partition) => {
                    let own = partition.own().iter().filter(|piece| piece.param == param);
                    let part = |piece: &Piece| {
                        if piece.moment_len(moment) == 0 { whole.clone() } else { cut(whole.clone(), piece) }
                    };
                    kept.extend(own.map(part));
                }
            }
        }
    }
    let digest = digest::combine(digests, manifest.step, manifest.tokens, manifest.updates);
    let [exp_avg, exp_avg_sq] = moments;
    Ok(StateTensors { params, exp_avg, exp_avg_sq, digest })
}

/// The moments of a checkpoint, one at a time.
pub struct Moments {
    folder: PathBuf,
    file: TensorFile,
    specs: Arc<[ParamSpec]>,
    hyper: OptimizerHyper,
}

impl Moments {
    /// Opens those of a checkpoint that was verified.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn open(checkpoint: &Path, specs: &Arc<[ParamSpec]>, hyper: OptimizerHyper) -> Result<Self, CheckpointError> {
        let file = TensorFile::open(&checkpoint.join(OPTIMIZER_FILE))?;
        Ok(Self { folder: checkpoint.to_owned(), file, specs: Arc::clone(specs), hyper })
    }

    /// The values of one moment (0 or 1) of one parameter.
    ///
    /// # Errors
    /// When it is missing, misshapen or not finite.
    pub fn read(&self, moment: usize, param: usize) -> Result<Vec<f32>, CheckpointError> {
        let (Some(kind), Some(spec)) = (MOMENTS.get(moment), self.specs.get(param)) else { return Ok(Vec::new()) };
        let of = |s: &ParamSpec| (slice_name(kind, &s.name, 0), vec![self.hyper.moment_len(moment, s)]);
        let read = exact(&self.file, std::slice::from_ref(spec), of);
        Ok(read.map_err(|error| error.in_file(&self.folder, OPTIMIZER_FILE))?.pop().unwrap_or_default())
    }
}

enum ReadError {
    What(String),
    Other(CheckpointError),
}

impl ReadError {
    fn in_file(self, folder: &Path, file: &str) -> CheckpointError {
        match self {
            Self::What(what) => CheckpointError::Damaged { path: folder.join(file), what },
            Self::Other(error) => error,
        }
    }
}

/// Reads one tensor a spec, with exactly the expected shape and only finite values.
fn exact(
    file: &TensorFile,
    specs: &[ParamSpec],
    expected: impl Fn(&ParamSpec) -> (String, Vec<usize>),
) -> Result<Vec<Vec<f32>>, ReadError> {
    let mut all = Vec::with_capacity(specs.len());
    for spec in specs {
        let (name, shape) = expected(spec);
        if let Some(info) = file.info(&name)
            && (info.shape != shape || info.dtype != safetensors::Dtype::F32)
        {
            let (found, dtype) = (&info.shape, info.dtype);
            return Err(ReadError::What(format!("tensor `{name}` is {dtype:?} {found:?}, expected F32 {shape:?}")));
        }
        let values = file.floats(&name).map_err(|error| ReadError::Other(error.into()))?;
        if let Some(i) = values.iter().position(|v| !v.is_finite()) {
            return Err(ReadError::What(format!("tensor `{name}` is not finite at element {i}")));
        }
        all.push(values);
    }
    Ok(all)
}
