//! Owns checking an exported directory as a server will read it; never changes it.

use std::path::Path;

use data_pipeline::tokenizer::Tokenizer;
use model_zoo::{Init, Model, ModelConfig};
use serde_json::Value;

use super::generation_config::GenerationConfig;
use super::import::read_config;
use super::publish::{RECORD_FILE, Record};
use super::tokenizer_files::{added_tokens, object};
use super::weights::Weights;
use super::{
    CHAT_TEMPLATE_FILE, CONFIG_FILE, GENERATION_CONFIG_FILE, HubError, INDEX_FILE, TOKENIZER_CONFIG_FILE,
    TOKENIZER_FILE,
};

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What was looked at.
    pub name: &'static str,
    /// What was found, in a few words; on a failure, what is wrong and what to do.
    pub detail: String,
    /// Whether it is as it should be.
    pub passed: bool,
}

/// Everything that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct VerifyReport {
    /// In order.
    pub checks: Vec<Check>,
}

impl VerifyReport {
    /// Whether every check passed.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.checks.iter().all(|check| check.passed)
    }

    /// Notes the outcome of a check and hands its value on.
    pub(crate) fn note<T>(&mut self, name: &'static str, outcome: Result<(String, T), String>) -> Option<T> {
        match outcome {
            Ok((detail, value)) => {
                self.checks.push(Check { name, detail, passed: true });
                Some(value)
            }
            Err(detail) => {
                self.checks.push(Check { name, detail, passed: false });
                None
            }
        }
    }
}

/// Checks a Hugging Face directory: configuration, headers, names and shapes, finite values, totals of the index,
/// tokenizer, end ids, generation settings. `checked` is told how many tensors have been read, of how many.
///
/// Later checks that need what an earlier one could not read are left out.
#[must_use]
pub fn verify(dir: &Path, checked: &dyn Fn(usize, usize)) -> VerifyReport {
    let mut report = VerifyReport::default();
    let Some(config) = report.note("configuration", configuration(dir)) else { return report };
    if let Some(weights) = report.note("weight files", weight_files(dir, &config)) {
        report.note("number format", number_format(dir, &weights));
        report.note("finite values", finite_values(&weights, &config, checked));
    }
    let generation = report.note("generation settings", generation_settings(dir, &config));
    let tokenizer = report.note("tokenizer", tokenizer(dir, &config));
    if let (Some(generation), Some(())) = (generation, tokenizer) {
        report.note("end ids", end_ids(dir, &generation));
    }
    report.note("tokenizer settings", tokenizer_settings(dir));
    report.note("recorded digests", recorded(dir));
    report
}

/// Weights can be wrong in ways that no look at them shows; the record of the export knows what was proven.
pub(crate) fn recorded(dir: &Path) -> Result<(String, ()), String> {
    match Record::read(dir).map_err(|error| error.to_string())? {
        Some(record) => Ok((record.compare(dir)?, ())),
        None => Ok((format!("none (no {RECORD_FILE}): wrong but well-formed values would not be noticed"), ())),
    }
}

fn configuration(dir: &Path) -> Result<(String, ModelConfig), String> {
    let config = read_config(dir).map_err(|error| error.to_string())?;
    let (family, layers, width) = (config.family_name(), config.num_layers(), config.hidden_size());
    let detail = format!("{family}, {layers} layers of {width}, vocabulary {}", config.vocab_size());
    Ok((detail, config))
}

fn weight_files(dir: &Path, config: &ModelConfig) -> Result<(String, Weights), String> {
    let specs = Model::new(config).map_err(|error| error.to_string())?.specs();
    let open = || -> Result<(Weights, Vec<String>), HubError> {
        let weights = Weights::open(dir)?;
        let dropped = weights.check(config, &specs)?;
        Ok((weights, dropped))
    };
    let (weights, dropped) = open().map_err(|error| error.to_string())?;
    if let Some(name) = dropped.first() {
        return Err(format!("{name:?} is stored but not needed, and some servers stop at it; export the model again"));
    }
    // Published GPT-2 files have names without a prefix, and every server reads those.
    if let (Some(name), ModelConfig::Mixtral(_)) =
        (specs.iter().find_map(|spec| weights.foreign_name(config, spec)), config)
    {
        return Err(format!("{name:?} is a form that only transformers 5 reads; import and export the model again"));
    }
    let stored: u64 = weights.shards().iter().map(crate::tensor_file::TensorFile::data_len).sum();
    if let Some(indexed) = weights.indexed_bytes().filter(|indexed| *indexed != stored) {
        return Err(format!("{INDEX_FILE} counts {indexed} bytes, the files hold {stored}; export the model again"));
    }
    for shard in weights.shards() {
        if shard.note("format") != Some("pt") {
            let file = shard.path().display();
            return Err(format!("{file}: the header lacks format=pt, without which some loaders stop; export again"));
        }
    }
    Ok((format!("{} tensors, {stored} bytes in {} file(s)", specs.len(), weights.shards().len()), weights))
}

fn number_format(dir: &Path, weights: &Weights) -> Result<(String, ()), String> {
    let dtypes = weights.dtypes().map_err(|error| error.to_string())?;
    let [dtype] = dtypes.as_slice() else {
        return Err(format!("tensors of {} number formats are mixed; export the model again", dtypes.len()));
    };
    let config = object(&dir.join(CONFIG_FILE)).map_err(|error| error.to_string())?;
    for key in ["torch_dtype", "dtype"] {
        if let Some(found) = config.get(key).and_then(Value::as_str).filter(|found| *found != dtype.hub_name()) {
            return Err(format!(
                "{CONFIG_FILE}: {key} is {found}, but the tensors are {}; correct it",
                dtype.hub_name()
            ));
        }
    }
    Ok((dtype.hub_name().into(), ()))
}

fn finite_values(
    weights: &Weights,
    config: &ModelConfig,
    checked: &dyn Fn(usize, usize),
) -> Result<(String, ()), String> {
    let specs = Model::new(config).map_err(|error| error.to_string())?.specs();
    let mut elements = 0;
    for (done, spec) in specs.iter().enumerate() {
        let values = weights.parameter(config, spec).map_err(|error| error.to_string())?;
        // What begins as zeros may still be zeros.
        if spec.init != Init::Zeros && values.len() > 1 && values.iter().all(|value| *value == 0.0) {
            return Err(format!("every element of {:?} is 0; these weights are damaged", spec.name));
        }
        elements += values.len();
        checked(done + 1, specs.len());
    }
    Ok((format!("{elements} values"), ()))
}

fn generation_settings(dir: &Path, config: &ModelConfig) -> Result<(String, GenerationConfig), String> {
    if !dir.join(GENERATION_CONFIG_FILE).exists() {
        return Err(format!("{GENERATION_CONFIG_FILE} is missing; export the model again"));
    }
    let settings = GenerationConfig::read(dir, config).map_err(|error| error.to_string())?;
    if settings.eos_token_ids.is_empty() {
        return Err("no end id is set, so a server would never stop; export with an end-of-text token".into());
    }
    if let Some(id) = config.eos_token_ids().iter().find(|id| !settings.eos_token_ids.contains(id)) {
        return Err(format!("{GENERATION_CONFIG_FILE} lacks end id {id} of {CONFIG_FILE}; add it"));
    }
    Ok((format!("end ids {:?}", settings.eos_token_ids), settings))
}

fn tokenizer(dir: &Path, config: &ModelConfig) -> Result<(String, ()), String> {
    let tokenizer = Tokenizer::open(&dir.join(TOKENIZER_FILE)).map_err(|error| error.to_string())?;
    let (entries, rows) = (tokenizer.vocab_size(), config.vocab_size());
    if entries > rows {
        return Err(format!(
            "{TOKENIZER_FILE} has {entries} entries, but the embedding only {rows} rows; take the tokenizer the model was trained with"
        ));
    }
    Ok((format!("{entries} entries for {rows} rows"), ()))
}

fn end_ids(dir: &Path, generation: &GenerationConfig) -> Result<(String, ()), String> {
    let added = added_tokens(&dir.join(TOKENIZER_FILE)).map_err(|error| error.to_string())?;
    let content = |id: &u32| added.get(&id.to_string())?.get("content")?.as_str().map(str::to_owned);
    let mut names = Vec::new();
    for id in &generation.eos_token_ids {
        match content(id) {
            Some(name) => names.push(name),
            None => {
                return Err(format!(
                    "end id {id} is no special token of {TOKENIZER_FILE}; correct {GENERATION_CONFIG_FILE}"
                ));
            }
        }
    }
    let settings = object(&dir.join(TOKENIZER_CONFIG_FILE)).map_err(|error| error.to_string())?;
    let token = |value: &Value| value.as_str().or_else(|| value.get("content")?.as_str()).map(str::to_owned);
    match settings.get("eos_token").and_then(token) {
        Some(name) if !names.contains(&name) => Err(format!(
            "eos_token {name:?} of {TOKENIZER_CONFIG_FILE} is none of the end ids {:?}, so a server would not stop at it; correct {GENERATION_CONFIG_FILE}",
            generation.eos_token_ids
        )),
        _ => Ok((names.join(" "), ())),
    }
}

fn tokenizer_settings(dir: &Path) -> Result<(String, ()), String> {
    let settings = object(&dir.join(TOKENIZER_CONFIG_FILE)).map_err(|error| error.to_string())?;
    match settings.get("tokenizer_class").and_then(Value::as_str) {
        Some("PreTrainedTokenizerFast") => {}
        found => {
            let found = found.unwrap_or("not set");
            return Err(format!(
                "{TOKENIZER_CONFIG_FILE}: tokenizer_class is {found}, which not every version of transformers knows; set it to PreTrainedTokenizerFast"
            ));
        }
    }
    match settings.get("chat_template").and_then(Value::as_str) {
        Some(template) if template.contains("generation %}") || template.contains("generation -%}") => Err(format!(
            "{TOKENIZER_CONFIG_FILE}: the chat template has generation marks, at which servers stop; remove them"
        )),
        Some(_) if !dir.join(CHAT_TEMPLATE_FILE).exists() => {
            Ok((format!("chat template inside {TOKENIZER_CONFIG_FILE}"), ()))
        }
        Some(_) => Ok(("chat template in both places".into(), ())),
        None if dir.join(CHAT_TEMPLATE_FILE).exists() => Err(format!(
            "{CHAT_TEMPLATE_FILE} is there, but {TOKENIZER_CONFIG_FILE} has no chat_template, where some servers look for it; export again"
        )),
        None => Ok(("no chat template (a base model)".into(), ())),
    }
}
