//! Owns PEFT's adapter directories: reading them strictly, writing them and proving what was written; never touches
//! bases.
//!
//! Format: `adapter_config.json` and `adapter_model.safetensors` of the Python library peft (0.21), whose tensors are
//! named `base_model.model.LAYER.lora_A.weight`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::tensor::Device;
use model_zoo::{Model, ParamSpec, Params, WeightDtype};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::config::LoraConfig;
use super::targets::{Targets, endings};
use super::{AdapterFileError, AdapterPlan};
use crate::durable::{FileError, create_folder, read_text, sync_folder, write_atomic};
use crate::hub;
use crate::tensor_file::{self, TensorFile};

/// Settings of an adapter.
pub const CONFIG_FILE: &str = "adapter_config.json";
/// Its tensors.
pub const WEIGHTS_FILE: &str = "adapter_model.safetensors";
/// Largest settings that are read, bytes.
const CONFIG_LIMIT_BYTES: u64 = 1 << 20;
/// Names listed in one message before the rest is only counted.
const MAX_LISTED: usize = 4;

/// Keys that change nothing about what a finished adapter computes.
const WITHOUT_EFFECT: &[&str] = &[
    "auto_mapping",
    "base_model_name_or_path",
    "corda_config",
    "ensure_weight_tying",
    "eva_config",
    "fan_in_fan_out",
    "inference_mode",
    "init_lora_weights",
    "layers_pattern",
    "loftq_config",
    "lora_dropout",
    "lora_ga_config",
    "megatron_core",
    "peft_version",
    "qalora_group_size",
    "revision",
    "runtime_config",
    "task_type",
];

/// An adapter's directory whose settings were understood.
#[derive(Debug)]
pub struct AdapterDir {
    dir: PathBuf,
    /// Its settings.
    pub config: LoraConfig,
    /// The base that it names.
    pub base: Option<String>,
    file: TensorFile,
}

/// Reads the settings of an adapter's directory.
///
/// # Errors
/// When the file is missing, damaged, or asks for something that is not computed here.
pub fn read_config(dir: &Path) -> Result<(LoraConfig, Option<String>), AdapterFileError> {
    let path = dir.join(CONFIG_FILE);
    if !path.is_file() {
        let cause = format!("there is no {CONFIG_FILE} here; name the directory of an adapter as PEFT saves it");
        return Err(AdapterFileError::Directory { path: dir.to_owned(), cause });
    }
    let wrong = |cause: String| AdapterFileError::Directory { path: path.clone(), cause };
    let text = read_text(&path, CONFIG_LIMIT_BYTES)?;
    let mut keys: Map<String, Value> =
        serde_json::from_str(&text).map_err(|error| wrong(format!("not valid JSON: {error}; copy the file again")))?;
    let kind = keys.remove("peft_type").unwrap_or_default();
    if kind != "LORA" {
        return Err(wrong(format!("the adapter is of type {kind}; only LORA is supported")));
    }
    let bias = keys.remove("bias").unwrap_or_default();
    if !bias.is_null() && bias != "none" {
        return Err(wrong(format!("\"bias\" is {bias}: adapters that train biases are not supported")));
    }
    let base = keys.get("base_model_name_or_path").and_then(Value::as_str).map(str::to_owned);
    let mut keys = Keys { keys, path: &path };
    let config = LoraConfig {
        rank: keys.take("r")?.ok_or_else(|| wrong("\"r\" is missing; copy the file again".into()))?,
        alpha: keys
            .take("lora_alpha")?
            .ok_or_else(|| wrong("\"lora_alpha\" is missing; copy the file again".into()))?,
        targets: keys.take("target_modules")?.ok_or_else(|| wrong("\"target_modules\" is missing".into()))?,
        exclude: keys.take("exclude_modules")?,
        layers: keys.take_one_or_many("layers_to_transform")?,
        rank_pattern: keys.take("rank_pattern")?.unwrap_or_default(),
        alpha_pattern: keys.take("alpha_pattern")?.unwrap_or_default(),
        rslora: keys.take("use_rslora")?.unwrap_or(false),
        dora: keys.take("use_dora")?.unwrap_or(false),
        modules_to_save: keys.take("modules_to_save")?.unwrap_or_default(),
    };
    keys.refuse_rest()?;
    if !config.alpha.is_finite() {
        return Err(wrong("\"lora_alpha\" is no number; copy the file again".into()));
    }
    Ok((config, base))
}

/// The keys that have not been understood yet.
struct Keys<'a> {
    keys: Map<String, Value>,
    path: &'a Path,
}

impl Keys<'_> {
    fn wrong(&self, cause: String) -> AdapterFileError {
        AdapterFileError::Directory { path: self.path.to_owned(), cause }
    }

    /// A value, where it is there and not null.
    fn take<T: DeserializeOwned>(&mut self, key: &str) -> Result<Option<T>, AdapterFileError> {
        match self.keys.remove(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => serde_json::from_value(value)
                .map(Some)
                .map_err(|error| self.wrong(format!("{key:?} cannot be read: {error}; copy the file again"))),
        }
    }

    fn take_one_or_many(&mut self, key: &str) -> Result<Option<Vec<usize>>, AdapterFileError> {
        if let Some(one) = self.keys.get(key).and_then(Value::as_u64) {
            self.keys.insert(key.into(), json!([one]));
        }
        self.take(key)
    }

    /// A key that is not known is harmless while it is switched off.
    fn refuse_rest(&self) -> Result<(), AdapterFileError> {
        let is_off = |value: &Value| match value {
            Value::Null | Value::Bool(false) => true,
            Value::Array(items) => items.is_empty(),
            Value::Object(entries) => entries.is_empty(),
            _ => false,
        };
        let used = |(key, value): &(&String, &Value)| !WITHOUT_EFFECT.contains(&key.as_str()) && !is_off(value);
        match self.keys.iter().find(used) {
            None => Ok(()),
            Some((key, _)) => Err(self.wrong(format!(
                "{key:?} is set, and what it does is not computed here; merge the adapter with the program that made it"
            ))),
        }
    }
}

impl AdapterDir {
    /// Opens an adapter's directory.
    ///
    /// # Errors
    /// As [`read_config`], or when the tensors cannot be opened.
    pub fn open(dir: &Path) -> Result<Self, AdapterFileError> {
        let (config, base) = read_config(dir)?;
        let path = dir.join(WEIGHTS_FILE);
        if !path.is_file() {
            let cause = format!("there is no {WEIGHTS_FILE} here; pickled adapters (.bin) are never read");
            return Err(AdapterFileError::Directory { path: dir.to_owned(), cause });
        }
        Ok(Self { dir: dir.to_owned(), config, base, file: TensorFile::open(&path)? })
    }

    /// The adapter's parameters, of which exactly those of `specs` must be stored.
    ///
    /// # Errors
    /// Names what is missing, surplus, misshapen or not finite.
    pub fn params(&self, specs: &Arc<[ParamSpec]>, device: &Device) -> Result<Params, AdapterFileError> {
        let wrong = |cause: String| AdapterFileError::Directory { path: self.dir.join(WEIGHTS_FILE), cause };
        let mut rest: BTreeSet<String> = self.file.names().into_iter().collect();
        let mut values = Vec::with_capacity(specs.len());
        let mut missing = Vec::new();
        for spec in specs.iter() {
            // Versions of peft disagree about the end of a magnitude's name.
            let names = [spec.name.clone(), format!("{}.weight", spec.name)];
            let Some(name) = names.into_iter().find(|name| rest.remove(name)) else {
                missing.push(spec.name.clone());
                continue;
            };
            let shape = self.file.info(&name).map(|info| info.shape.clone()).unwrap_or_default();
            let is_column = spec.shape.len() == 1 && shape.iter().product::<usize>() == spec.num_elements();
            if shape != spec.shape && !is_column {
                let cause = format!("tensor {name:?} has shape {shape:?}, but {CONFIG_FILE} makes it {:?}", spec.shape);
                return Err(wrong(cause));
            }
            let found = self.file.floats(&name)?;
            if let Some(index) = found.iter().position(|value| !value.is_finite()) {
                return Err(wrong(format!("tensor {name:?} is not finite at element {index}; the adapter is damaged")));
            }
            values.push(found);
        }
        let advice = format!("check that {CONFIG_FILE} belongs to these tensors and to this base");
        if !missing.is_empty() {
            return Err(wrong(format!("{} missing: {}; {advice}", count(missing.len()), listed(&missing))));
        }
        if !rest.is_empty() {
            let rest: Vec<String> = rest.into_iter().collect();
            return Err(wrong(format!("{} without a place: {}; {advice}", count(rest.len()), listed(&rest))));
        }
        Ok(Params::from_host(Arc::clone(specs), values, device)?)
    }
}

/// Digest of an adapter's tensors.
///
/// # Errors
/// When the file cannot be read.
pub fn digest(dir: &Path) -> Result<String, AdapterFileError> {
    Ok(tensor_file::describe(&dir.join(WEIGHTS_FILE))?.blake3)
}

/// A directory that was written and read back.
#[derive(Debug, Clone, PartialEq)]
pub struct AdapterReport {
    /// The directory.
    pub dir: PathBuf,
    /// Its files with their sizes in bytes.
    pub files: Vec<(String, u64)>,
    /// Tensors that were read back and found equal after rounding, bit for bit.
    pub num_tensors: usize,
}

/// Writes an adapter as PEFT's directory `out`, reads it again and compares every tensor; only then is the directory
/// renamed into place. `base` is what the settings name as the base model.
///
/// # Errors
/// When `out` exists, the disk refuses, or what was read back differs.
pub fn write(
    out: &Path,
    (model, params): (&Model, &Params),
    plan: &AdapterPlan,
    base: &str,
    dtype: WeightDtype,
    device: &Device,
) -> Result<AdapterReport, AdapterFileError> {
    if out.symlink_metadata().is_ok() {
        return Err(hub::HubError::Exists { path: out.to_owned() }.into());
    }
    let parent = out.parent().filter(|path| !path.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = out.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let partial = parent.join(format!(".{name}.partial-{}", std::process::id()));
    create_folder(parent)?;
    fs::create_dir(&partial).map_err(FileError::at(&partial, "create the folder"))?;
    let written = write_and_prove(&partial, (model, params), plan, base, dtype, device).and_then(|files| {
        fs::rename(&partial, out).map_err(FileError::at(out, "put the adapter into place"))?;
        sync_folder(parent)?;
        Ok(AdapterReport { dir: out.to_owned(), files, num_tensors: params.specs().len() })
    });
    if written.is_err() {
        // The failure itself is what the caller must hear about; a leftover is hidden and harmless.
        let _ = fs::remove_dir_all(&partial);
    }
    written
}

fn write_and_prove(
    dir: &Path,
    (model, params): (&Model, &Params),
    plan: &AdapterPlan,
    base: &str,
    dtype: WeightDtype,
    device: &Device,
) -> Result<Vec<(String, u64)>, AdapterFileError> {
    let settings = settings(model, &plan.lora, base)?;
    write_atomic(&dir.join(CONFIG_FILE), format!("{settings:#}\n").as_bytes())?;
    hub::write_tensors(&dir.join(WEIGHTS_FILE), params, dtype)?;
    sync_folder(dir)?;
    let reopened = AdapterDir::open(dir)?;
    let (asked, found) = (plan.lora.spec(model)?, reopened.config.spec(model)?);
    if asked != found {
        let what = format!("the settings that were written are read back as {:?}", reopened.config);
        return Err(AdapterFileError::Differs { what });
    }
    let again = reopened.params(params.shared_specs(), device)?;
    for (index, spec) in params.specs().iter().enumerate() {
        let pairs = params.to_host(index)?.into_iter().zip(again.to_host(index)?);
        if pairs.into_iter().any(|(a, b)| hub::round(a, dtype).to_bits() != b.to_bits()) {
            return Err(AdapterFileError::Differs { what: format!("tensor {:?} is read back as another", spec.name) });
        }
    }
    let size = |name: &str| fs::metadata(dir.join(name)).map(|data| (name.to_owned(), data.len()));
    [CONFIG_FILE, WEIGHTS_FILE]
        .into_iter()
        .map(|name| Ok(size(name).map_err(FileError::at(dir, "read the size of a file of"))?))
        .collect()
}

/// `adapter_config.json`.
fn settings(model: &Model, lora: &LoraConfig, base: &str) -> Result<Value, AdapterFileError> {
    let known = model.adaptable_modules();
    let spec = lora.spec(model)?;
    let names = || spec.modules.iter().map(|module| module.name.clone()).collect();
    // peft takes numbers of blocks only beside a list of names.
    let (targets, layers) = match (&lora.targets, &lora.layers) {
        (Targets::AllLinear, layers) => (Targets::Endings(endings(&known)), layers.clone()),
        (Targets::Pattern(_), Some(_)) => (Targets::Endings(names()), None),
        (targets, layers) => (targets.clone(), layers.clone()),
    };
    let is_tied = model.config().tied_head() && lora.modules_to_save.iter().any(|name| name == "embed_tokens");
    // Whole names: peft takes any name that ends in these letters, `input_layernorm` for `norm`.
    let module = |name: String| name.rsplit_once('.').map_or(String::new(), |(module, _)| module.to_owned());
    let mut whole: Vec<String> = spec.whole.into_iter().map(module).collect();
    whole.dedup();
    let number = |number: f64| if number.fract() == 0.0 { json!(number as i64) } else { json!(number) };
    Ok(json!({
        "alpha_pattern": lora.alpha_pattern,
        "base_model_name_or_path": base,
        "bias": "none",
        "ensure_weight_tying": is_tied,
        "exclude_modules": lora.exclude,
        "fan_in_fan_out": false,
        "inference_mode": true,
        "init_lora_weights": true,
        "layers_pattern": null,
        "layers_to_transform": layers,
        "lora_alpha": number(lora.alpha),
        "lora_dropout": 0.0,
        "modules_to_save": (!whole.is_empty()).then_some(&whole),
        "peft_type": "LORA",
        "r": lora.rank,
        "rank_pattern": lora.rank_pattern,
        "revision": null,
        "target_modules": targets,
        "task_type": "CAUSAL_LM",
        "use_dora": lora.dora,
        "use_rslora": lora.rslora,
    }))
}

fn count(tensors: usize) -> String {
    if tensors == 1 { "1 tensor".into() } else { format!("{tensors} tensors") }
}

fn listed(names: &[String]) -> String {
    let shown: Vec<String> = names.iter().take(MAX_LISTED).map(|name| format!("{name:?}")).collect();
    let more = names.len().saturating_sub(MAX_LISTED);
    if more > 0 { format!("{} and {more} more", shown.join(", ")) } else { shown.join(", ") }
}
