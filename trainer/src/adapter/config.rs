//! Owns what an adapter is asked to be, and which layers of a model that means; never touches files.

use std::collections::BTreeMap;
use std::path::PathBuf;

use fancy_regex::Regex;
use model_zoo::{AdaptedModule, AdapterSpec, BaseFormat, Model};
use serde::{Deserialize, Serialize};

use super::AdapterFileError;
use super::targets::{Targets, has_suffix, matches_end, pattern};

/// The settings of a LoRA adapter, with PEFT's meaning.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LoraConfig {
    /// Rank of the corrections.
    pub rank: usize,
    /// Numerator of their factor: `alpha / rank`, or `alpha / sqrt(rank)` with `rslora`.
    pub alpha: f64,
    /// Linear layers that are corrected.
    pub targets: Targets,
    /// Linear layers that are not, although `targets` means them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exclude: Option<Targets>,
    /// Numbers of the blocks that are corrected; absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layers: Option<Vec<usize>>,
    /// Ranks of some layers, by a pattern for the end of their names.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub rank_pattern: BTreeMap<String, usize>,
    /// Alphas of some layers, likewise.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub alpha_pattern: BTreeMap<String, f64>,
    /// Whether the factor falls with the root of the rank (Kalajdzievski 2023, arXiv:2312.03732).
    pub rslora: bool,
    /// Whether corrected matrices also learn the length of their rows (DoRA, arXiv:2402.09353).
    pub dora: bool,
    /// Layers that are trained whole, by the end of their names: `embed_tokens`, `lm_head`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub modules_to_save: Vec<String>,
}

/// The adapter of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AdapterPlan {
    /// Its settings.
    pub lora: LoraConfig,
    /// Number format of the frozen weights.
    pub base: BaseFormat,
    /// The adapter that training starts from; absent: a fresh one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<StartPlan>,
}

/// An adapter that training starts from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartPlan {
    /// Its directory.
    pub path: PathBuf,
    /// Digest of its tensors.
    pub weights: String,
}

impl AdapterPlan {
    /// What decides the numbers of the run.
    pub fn decisive(&self) -> serde_json::Value {
        let start = self.start.as_ref().map_or("fresh", |start| start.weights.as_str());
        serde_json::json!({ "lora": self.lora, "base": self.base, "starts_from": start })
    }
}

impl LoraConfig {
    /// The layers of `model` that this means.
    ///
    /// # Errors
    /// [`AdapterFileError::Settings`] for a pattern that is none, that means no layer, or that contradicts another.
    pub fn spec(&self, model: &Model) -> Result<AdapterSpec, AdapterFileError> {
        let known = model.adaptable_modules();
        let names = self.targets.select(&known, "lora_target_modules")?;
        let excluded = self.exclude.as_ref().map(|exclude| exclude.select(&known, "exclude_modules"));
        let excluded = excluded.transpose()?.unwrap_or_default();
        let in_layers = |name: &String| {
            let layers = self.layers.as_ref();
            layers.is_none_or(|layers| block_of(name).is_some_and(|block| layers.contains(&block)))
        };
        let names: Vec<&String> = names.iter().filter(|name| !excluded.contains(name) && in_layers(name)).collect();
        self.refuse_unknown_blocks(&known)?;
        let ranks = compiled(&self.rank_pattern, &names, "lora_rank_pattern")?;
        let alphas = compiled(&self.alpha_pattern, &names, "lora_alpha_pattern")?;
        let mut modules = Vec::with_capacity(names.len());
        for name in names {
            let rank = chosen(&ranks, name, "lora_rank_pattern")?.unwrap_or(self.rank);
            let alpha = chosen(&alphas, name, "lora_alpha_pattern")?.unwrap_or(self.alpha);
            let root = if self.rslora { (rank as f64).sqrt() } else { rank as f64 };
            modules.push(AdaptedModule { name: name.clone(), rank, scale: alpha / root });
        }
        let whole = self.whole(model, &modules)?;
        if modules.is_empty() && whole.is_empty() {
            let what = "nothing is left to train after `lora_layers_to_transform` and exclusions".into();
            return Err(AdapterFileError::Settings { key: "lora_layers_to_transform", what });
        }
        Ok(AdapterSpec { modules, learns_magnitude: self.dora, whole })
    }

    fn refuse_unknown_blocks(&self, known: &[String]) -> Result<(), AdapterFileError> {
        let blocks: Vec<usize> = known.iter().filter_map(|name| block_of(name)).collect();
        let Some(missing) = self.layers.iter().flatten().find(|layer| !blocks.contains(layer)) else { return Ok(()) };
        let last = blocks.iter().max().copied().unwrap_or(0);
        let what = format!("there is no block {missing}: the model's are 0 to {last}");
        Err(AdapterFileError::Settings { key: "lora_layers_to_transform", what })
    }

    /// Parameters that are trained whole.
    fn whole(&self, model: &Model, modules: &[AdaptedModule]) -> Result<Vec<String>, AdapterFileError> {
        let specs = model.family_specs();
        let wrong = |what: String| AdapterFileError::Settings { key: "lora_modules_to_save", what };
        let module = |name: &str| name.rsplit_once('.').map(|(module, _)| module.to_owned()).unwrap_or_default();
        let mut whole = Vec::new();
        for wanted in &self.modules_to_save {
            let found: Vec<String> = specs
                .iter()
                .filter(|spec| has_suffix(&module(&spec.name), wanted))
                .map(|spec| spec.name.clone())
                .collect();
            if found.is_empty() && wanted == "lm_head" && model.config().tied_head() {
                return Err(wrong("the model's head is its embedding; write `embed_tokens`, which trains both".into()));
            }
            if found.is_empty() {
                let mut known: Vec<String> = specs.iter().map(|spec| module(&spec.name)).collect();
                known = super::targets::endings(&known);
                return Err(wrong(format!("no layer's name ends in `{wanted}`; the model has {}", known.join(", "))));
            }
            if let Some(both) = modules.iter().find(|adapted| found.iter().any(|name| module(name) == adapted.name)) {
                return Err(wrong(format!("`{}` is trained whole and corrected; leave it out of one", both.name)));
            }
            whole.extend(found.into_iter().filter(|name| !whole.contains(name)).collect::<Vec<_>>());
        }
        Ok(whole)
    }
}

/// Number of the block in a layer's name: its first part that is a number.
fn block_of(name: &str) -> Option<usize> {
    name.split('.').find_map(|part| part.parse().ok())
}

/// Patterns with their values; each must mean a layer that is corrected.
fn compiled<T: Copy>(
    patterns: &BTreeMap<String, T>,
    names: &[&String],
    key: &'static str,
) -> Result<Vec<(Regex, T)>, AdapterFileError> {
    let mut all = Vec::new();
    for (text, value) in patterns {
        let regex = pattern(&format!(r"^(?:.*\.)?(?:{text})$"), text, key)?;
        if !names.iter().any(|name| matches_end(&regex, name)) {
            let endings = super::targets::endings(&names.iter().map(|name| (*name).clone()).collect::<Vec<_>>());
            let what = format!("`{text}` means no layer that is corrected; corrected are {}", endings.join(", "));
            return Err(AdapterFileError::Settings { key, what });
        }
        all.push((regex, *value));
    }
    Ok(all)
}

/// The value for a layer; two patterns must not disagree about it.
fn chosen<T: Copy + PartialEq>(
    patterns: &[(Regex, T)],
    name: &str,
    key: &'static str,
) -> Result<Option<T>, AdapterFileError> {
    let mut values = patterns.iter().filter(|(regex, _)| matches_end(regex, name)).map(|(_, value)| *value);
    let first = values.next();
    if values.any(|value| Some(value) != first) {
        let what = format!("two patterns mean `{name}` and give different values; write patterns that do not overlap");
        return Err(AdapterFileError::Settings { key, what });
    }
    Ok(first)
}
