//! Owns the rules of the adapter keys, and what they resolve to; never touches an adapter's files.

use model_zoo::config::ModelConfig;
use model_zoo::frozen::frozen_bytes;
use model_zoo::size::flops_per_token;
use model_zoo::{BaseFormat, Model};

use super::check::Rules;
use super::error::{ConfigError, Note, Places};
use super::plan::Plan;
use super::raw::{AdapterKind, BaseDtype, RawConfig};
use super::resolve::BaseFacts;
use crate::adapter::{AdapterFileError, AdapterPlan, LoraConfig, StartPlan, Targets};

/// Rank by default.
const DEFAULT_RANK: usize = 16;
/// Alpha by default, as a multiple of the rank.
const DEFAULT_ALPHA_RATIO: f64 = 2.0;
/// Largest rank.
const MAX_RANK: u64 = 1 << 16;

/// What a plan needs to know of an adapter that training starts from.
#[derive(Clone, Debug, PartialEq)]
pub struct AdapterFacts {
    /// Its settings.
    pub lora: LoraConfig,
    /// Digest of its tensors.
    pub weights: String,
}

impl RawConfig {
    /// The adapter keys that are written, apart from `adapter`.
    fn adapter_keys(&self) -> Vec<&'static str> {
        let written = [
            ("lora_r", self.lora_r.is_some()),
            ("lora_alpha", self.lora_alpha.is_some()),
            ("lora_target_modules", self.lora_target_modules.is_some()),
            ("lora_target_linear", self.lora_target_linear.is_some()),
            ("lora_layers_to_transform", self.lora_layers_to_transform.is_some()),
            ("lora_rank_pattern", self.lora_rank_pattern.is_some()),
            ("lora_alpha_pattern", self.lora_alpha_pattern.is_some()),
            ("lora_modules_to_save", self.lora_modules_to_save.is_some()),
            ("use_rslora", self.use_rslora.is_some()),
            ("use_dora", self.use_dora.is_some()),
            ("lora_dropout", self.lora_dropout.is_some()),
            ("lora_model_dir", self.lora_model_dir.is_some()),
            ("base_dtype", self.base_dtype.is_some()),
        ];
        written.into_iter().filter_map(|(key, is_written)| is_written.then_some(key)).collect()
    }

    /// Rules of the adapter keys that need neither base nor data set.
    pub(super) fn check_adapter(&self, rules: &Rules<'_>) -> Result<(), ConfigError> {
        let (places, keys) = (rules.places, self.adapter_keys());
        let Some(kind) = self.adapter else {
            let Some(key) = keys.first() else { return Ok(()) };
            let message = format!("`{key}` has no effect without an adapter");
            return Err(places.invalid(key, message, "add `adapter: lora`, or delete the line"));
        };
        if self.base_model.is_none() {
            let message = "an adapter needs a trained model to stand on, and `base_model` is not written";
            let hint = "write `base_model: DIRECTORY` instead of `model`, or delete `adapter` to train all weights";
            return Err(places.invalid("adapter", message, hint));
        }
        if self.lora_dropout.is_some_and(|dropout| dropout != 0.0) {
            let message = "`lora_dropout` above 0 is not part of this version: a run must give the same bits however \
                           it is cut into micro-batches and processes";
            let hint = "write `lora_dropout: 0`, or delete the line; `weight_decay` and a lower rank work against \
                        overfitting as well";
            return Err(places.invalid("lora_dropout", message, hint));
        }
        if kind == AdapterKind::Qlora && self.base_dtype.is_some_and(|dtype| dtype != BaseDtype::Auto) {
            let message = "`base_dtype` contradicts `adapter: qlora`, which holds the base in 4 bits";
            return Err(places.invalid("base_dtype", message, "delete the line, or write `adapter: lora`"));
        }
        if self.outer.is_some() {
            let message = "adapters cannot be trained at several sites in this version";
            return Err(places.invalid("outer", message, "delete `outer`, or train all weights"));
        }
        let from_file = ["lora_dropout", "lora_model_dir", "base_dtype"];
        if let (Some(_), Some(key)) = (&self.lora_model_dir, keys.iter().find(|key| !from_file.contains(key))) {
            let message = format!("`{key}` is written, but the settings are those of the adapter in `lora_model_dir`");
            return Err(places.invalid(key, message, "delete the line, or `lora_model_dir` to start a fresh adapter"));
        }
        self.check_lora(rules)
    }

    fn check_lora(&self, rules: &Rules<'_>) -> Result<(), ConfigError> {
        let places = rules.places;
        rules.count("lora_r", self.lora_r.map(|rank| rank as u64), 1..=MAX_RANK, "the rank of the corrections")?;
        rules.above_zero("lora_alpha", self.lora_alpha, 1e6, "corrections are scaled by it over the rank")?;
        for (pattern, rank) in self.lora_rank_pattern.iter().flatten() {
            let path = format!("lora_rank_pattern.{pattern}");
            rules.count(&path, Some(*rank as u64), 1..=MAX_RANK, "the rank of some corrections")?;
        }
        for (pattern, alpha) in self.lora_alpha_pattern.iter().flatten() {
            let path = format!("lora_alpha_pattern.{pattern}");
            rules.above_zero(&path, Some(*alpha), 1e6, "some corrections are scaled by it over their rank")?;
        }
        if let (Some(true), Some(targets)) = (self.lora_target_linear, &self.lora_target_modules)
            && *targets != Targets::AllLinear
        {
            let message = "`lora_target_linear: true` means every linear layer, `lora_target_modules` names some";
            return Err(places.invalid("lora_target_modules", message, "keep one of them"));
        }
        if self.lora_target_linear == Some(false) && self.lora_target_modules.is_none() {
            let message = "`lora_target_linear: false` is written, and nothing says which layers are meant";
            let hint = "add `lora_target_modules: [q_proj, v_proj]`, or delete the line to take every linear layer";
            return Err(places.invalid("lora_target_linear", message, hint));
        }
        if self.lora_layers_to_transform.as_ref().is_some_and(Vec::is_empty) {
            let message = "`lora_layers_to_transform` is empty, so nothing would be trained";
            return Err(places.invalid("lora_layers_to_transform", message, "name blocks, or delete the line"));
        }
        Ok(())
    }
}

/// The adapter of a run, if there is one; the layers that it means are looked up in the model.
pub(super) fn resolve_adapter(
    raw: &RawConfig,
    model: &ModelConfig,
    base: Option<&BaseFacts>,
    notes: &mut Vec<Note>,
) -> Result<Option<AdapterPlan>, ConfigError> {
    let Some(kind) = raw.adapter else { return Ok(None) };
    let places = &raw.places;
    let facts = base.and_then(|base| base.adapter.as_ref());
    let (lora, start) = match (facts, &raw.lora_model_dir) {
        (Some(facts), Some(path)) => {
            (facts.lora.clone(), Some(StartPlan { path: path.clone(), weights: facts.weights.clone() }))
        }
        _ => (fresh(raw), None),
    };
    let impossible = |error: String| places.invalid("base_model", error, "correct `base_model`");
    let model = Model::new(model).map_err(|error| impossible(error.to_string()))?;
    let spec = lora.spec(&model).map_err(|error| misfit(places, &error, start.is_some()))?;
    let specs = model.adapter_specs(&spec).map_err(|error| {
        let key = if start.is_some() { "lora_model_dir" } else { "lora_r" };
        places.invalid(key, error.to_string(), "correct the settings of the adapter")
    })?;
    let stored_in_bf16 = base.is_some_and(|base| base.stored_in_bf16);
    let base = match (kind, raw.base_dtype.unwrap_or_default()) {
        (AdapterKind::Qlora, _) => BaseFormat::Nf4,
        (AdapterKind::Lora, BaseDtype::Bf16) => BaseFormat::Bf16,
        (AdapterKind::Lora, BaseDtype::Auto) if stored_in_bf16 => BaseFormat::Bf16,
        (AdapterKind::Lora, BaseDtype::Fp32 | BaseDtype::Auto) => BaseFormat::F32,
    };
    let trained: usize = specs.iter().map(|spec| spec.num_elements()).sum();
    let all: usize = model.family_specs().iter().map(|spec| spec.num_elements()).sum();
    let text = format!(
        "the adapter trains {trained} parameters ({:.2} % of the base's {all}) in {} layers of rank {}{}",
        100.0 * trained as f64 / all.max(1) as f64,
        spec.modules.len(),
        ranks(&spec),
        if spec.whole.is_empty() { String::new() } else { format!(" and {} parameters whole", spec.whole.len()) },
    );
    notes.push(places.note("adapter", text));
    Ok(Some(AdapterPlan { lora, base, start }))
}

fn ranks(spec: &model_zoo::AdapterSpec) -> String {
    let ranks = spec.modules.iter().map(|module| module.rank);
    match (ranks.clone().min(), ranks.max()) {
        (Some(least), Some(most)) if least != most => format!("{least} to {most}"),
        (least, _) => least.unwrap_or(0).to_string(),
    }
}

/// The settings that a configuration asks for.
fn fresh(raw: &RawConfig) -> LoraConfig {
    let rank = raw.lora_r.unwrap_or(DEFAULT_RANK);
    LoraConfig {
        rank,
        alpha: raw.lora_alpha.unwrap_or(DEFAULT_ALPHA_RATIO * rank as f64),
        targets: raw.lora_target_modules.clone().unwrap_or(Targets::AllLinear),
        exclude: None,
        layers: raw.lora_layers_to_transform.clone(),
        rank_pattern: raw.lora_rank_pattern.clone().unwrap_or_default(),
        alpha_pattern: raw.lora_alpha_pattern.clone().unwrap_or_default(),
        rslora: raw.use_rslora.unwrap_or(false),
        dora: raw.use_dora.unwrap_or(false),
        modules_to_save: raw.lora_modules_to_save.clone().unwrap_or_default(),
    }
}

fn misfit(places: &Places, error: &AdapterFileError, from_file: bool) -> ConfigError {
    let hint = "name layers that this model has";
    match error {
        AdapterFileError::Settings { what, .. } if from_file => {
            let message = format!("the adapter does not fit `base_model`: {what}");
            places.invalid("lora_model_dir", message, "name the adapter's own base, or another adapter")
        }
        AdapterFileError::Settings { key, what } => places.invalid(key, format!("`{key}`: {what}"), hint),
        other => places.invalid("adapter", other.to_string(), hint),
    }
}

/// What an adapter run trains and holds, by arithmetic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdapterCost {
    /// Parameters that are trained.
    pub trained: u64,
    /// Bytes of the frozen weights.
    pub frozen_bytes: u64,
    /// What they would take in bf16.
    pub frozen_bytes_bf16: u64,
}

impl Plan {
    /// What the plan's adapter trains and holds; `None` where all weights are trained.
    pub fn adapter_cost(&self) -> Option<AdapterCost> {
        let adapter = self.adapter.as_ref()?;
        // The plan was made with this very model and adapter.
        let model = Model::new(&self.model).ok()?;
        let specs = model.adapter_specs(&adapter.lora.spec(&model).ok()?).ok()?;
        let bytes = |format| frozen_bytes(&model.family_specs(), &model.linear_params(), format);
        Some(AdapterCost {
            trained: specs.iter().map(|spec| spec.num_elements() as u64).sum(),
            frozen_bytes: bytes(adapter.base),
            frozen_bytes_bf16: bytes(BaseFormat::Bf16),
        })
    }

    /// Floating-point operations to train on one token. A frozen matrix needs no gradient of its own: 4 a weight instead
    /// of 6.
    pub fn flops_per_token(&self) -> f64 {
        let whole = flops_per_token(&self.model, self.sequence_len);
        let Some(cost) = self.adapter_cost() else { return whole };
        // Without a context only the products with weights are left.
        let products = flops_per_token(&self.model, 0);
        whole - products / 3.0 + 6.0 * cost.trained as f64
    }
}

/// The adapter keys of a resolved configuration.
pub(super) fn write_out(plan: Option<&AdapterPlan>, raw: &mut RawConfig) {
    let Some(AdapterPlan { lora, base, start }) = plan else { return };
    raw.adapter = Some(if *base == BaseFormat::Nf4 { AdapterKind::Qlora } else { AdapterKind::Lora });
    raw.base_dtype = match base {
        BaseFormat::F32 => Some(BaseDtype::Fp32),
        BaseFormat::Bf16 => Some(BaseDtype::Bf16),
        BaseFormat::Nf4 => None,
    };
    if let Some(start) = start {
        raw.lora_model_dir = Some(start.path.clone());
        return;
    }
    raw.lora_r = Some(lora.rank);
    raw.lora_alpha = Some(lora.alpha);
    raw.lora_target_modules = Some(lora.targets.clone());
    raw.lora_layers_to_transform = lora.layers.clone();
    raw.lora_rank_pattern = (!lora.rank_pattern.is_empty()).then(|| lora.rank_pattern.clone());
    raw.lora_alpha_pattern = (!lora.alpha_pattern.is_empty()).then(|| lora.alpha_pattern.clone());
    raw.use_rslora = Some(lora.rslora);
    raw.use_dora = Some(lora.dora);
    raw.lora_modules_to_save = (!lora.modules_to_save.is_empty()).then(|| lora.modules_to_save.clone());
}
