//! Owns the rules of mixing and what they come to: quotas, stages, caps; never touches the data.

use std::collections::BTreeMap;

use data_pipeline::order::{MixtureSpec, PartShare, Quota, StageSpec};

use super::check::{MAX_EPOCHS, Rules};
use super::error::{ConfigError, Places};
use super::keys::nearest;
use super::plan::{MixturePlan, PartPlan, Plan, StagePlan};
use super::raw::{RawConfig, RawMixture, RawQuota, RawStage};
use super::resolve::{ComponentFacts, DatasetFacts, languages, listed};
use super::units::StageEnd;

/// Exponent on the languages' sizes by default.
const DEFAULT_TEMPERATURE: f64 = 0.7;
/// Repetitions of a row allowed by default.
const DEFAULT_MAX_EPOCHS: f64 = 8.0;
/// Most stages of a run; each has a table of its own in memory.
const MAX_STAGES: usize = 64;

/// Rules that need no data.
pub(super) fn check(mixture: &RawMixture, rules: &Rules<'_>) -> Result<(), ConfigError> {
    let temperature_rule = "1 keeps natural shares, 0 makes languages equal";
    rules.number("mixture.temperature", mixture.temperature, 0.0..=1.0, temperature_rule)?;
    let epochs_rule = "it caps how often a document is repeated";
    rules.above_zero("mixture.max_epochs", mixture.max_epochs, MAX_EPOCHS, epochs_rule)?;
    check_weights("mixture", mixture.weights.as_ref(), rules)?;
    check_quotas("mixture", mixture.quotas.as_ref(), rules)?;
    let Some(stages) = &mixture.stages else { return Ok(()) };
    if stages.is_empty() || stages.len() > MAX_STAGES {
        let message = format!("`mixture.stages` has {} stages; it must have from 1 to {MAX_STAGES}", stages.len());
        let hint = "write `stages: [{until: 40%, temperature: 0.7}, {temperature: 0.3}]`, or delete the key";
        return Err(rules.places.invalid("mixture.stages", message, hint));
    }
    for (number, stage) in stages.iter().enumerate() {
        let path = format!("mixture.stages[{number}]");
        rules.number(&format!("{path}.temperature"), stage.temperature, 0.0..=1.0, temperature_rule)?;
        check_weights(&path, stage.weights.as_ref(), rules)?;
        check_quotas(&path, stage.quotas.as_ref(), rules)?;
        if let Some((name, _)) = stage.quotas.iter().flatten().find(|(_, quota)| quota.max_epochs.is_some()) {
            let key = format!("{path}.quotas.{name}.max_epochs");
            let message = format!("`{key}` is that of a stage, but repetitions are counted over the whole run");
            let hint = format!("write `mixture: {{quotas: {{\"{name}\": {{max_epochs: ...}}}}}}`");
            return Err(rules.places.invalid(&key, message, hint));
        }
        if stage.until.is_none() && number + 1 < stages.len() {
            let message = format!("`{path}` does not say where it ends");
            let hint = "add `until: 40%`, or a number of steps; only the last stage ends with the run";
            return Err(rules.places.missing(&format!("{path}.until"), message, hint));
        }
    }
    Ok(())
}

fn check_weights(block: &str, weights: Option<&BTreeMap<String, f64>>, rules: &Rules<'_>) -> Result<(), ConfigError> {
    for (name, weight) in weights.into_iter().flatten() {
        let path = format!("{block}.weights.{name}");
        let why = "it multiplies a share; 0 leaves the language or source out";
        rules.number(&path, Some(*weight), 0.0..=1e6, why)?;
    }
    Ok(())
}

fn check_quotas(
    block: &str,
    quotas: Option<&BTreeMap<String, RawQuota>>,
    rules: &Rules<'_>,
) -> Result<(), ConfigError> {
    for (name, quota) in quotas.into_iter().flatten() {
        let path = |key: &str| format!("{block}.quotas.{name}.{key}");
        rules.number(&path("min_share"), quota.min_share, 0.0..=1.0, "it is a share of the rows")?;
        let why = "it is a share of the rows; `weights` of 0 leave a part out";
        rules.above_zero(&path("max_share"), quota.max_share, 1.0, why)?;
        rules.above_zero(
            &path("max_epochs"),
            quota.max_epochs,
            MAX_EPOCHS,
            "it caps how often a document is repeated",
        )?;
        let key = path("min_share");
        if *quota == RawQuota::default() {
            let message = format!("the quota of `{name}` bounds nothing");
            let hint = "write `min_share`, `max_share` or `max_epochs`, or delete it";
            return Err(rules.places.invalid(&format!("{block}.quotas.{name}"), message, hint));
        }
        if quota.min_share.zip(quota.max_share).is_some_and(|(least, most)| least > most) {
            let message = format!("`{key}` is larger than the `max_share` beside it");
            return Err(rules.places.invalid(&key, message, "exchange them, or delete one"));
        }
    }
    Ok(())
}

/// The mixture of a run of `max_steps` steps.
pub(super) fn resolve(raw: &RawConfig, dataset: &DatasetFacts, max_steps: u64) -> Result<MixturePlan, ConfigError> {
    let mixture = raw.mixture.clone().unwrap_or_default();
    check_names("mixture", mixture.weights.as_ref(), &raw.places, dataset)?;
    let written = mixture.stages.unwrap_or_default();
    let (mut stages, mut before) = (Vec::new(), 0);
    for (number, stage) in written.iter().enumerate() {
        let path = format!("mixture.stages[{number}]");
        check_names(&path, stage.weights.as_ref(), &raw.places, dataset)?;
        let is_last = number + 1 == written.len();
        let until_step = stage.until.map_or(max_steps, |end| end.steps(max_steps));
        if until_step <= before || until_step > max_steps || (is_last && until_step != max_steps) {
            let rule = if is_last {
                "the last stage ends with the run".to_owned()
            } else {
                format!("it must end after step {before} and before the run does, at step {max_steps}")
            };
            let message = format!("stage {} would end at step {until_step}; {rule}", number + 1);
            let hint = if is_last { "delete its `until`" } else { "correct its `until`" };
            return Err(raw.places.invalid(&format!("{path}.until"), message, hint));
        }
        before = until_step;
        stages.push(StagePlan {
            until_step,
            temperature: stage.temperature,
            weights: stage.weights.clone(),
            quotas: stage.quotas.clone().unwrap_or_default(),
        });
    }
    Ok(MixturePlan {
        temperature: mixture.temperature.unwrap_or(DEFAULT_TEMPERATURE),
        weights: mixture.weights.unwrap_or_default(),
        max_epochs: mixture.max_epochs.unwrap_or(DEFAULT_MAX_EPOCHS),
        quotas: mixture.quotas.unwrap_or_default(),
        stages,
    })
}

fn check_names(
    block: &str,
    weights: Option<&BTreeMap<String, f64>>,
    places: &Places,
    dataset: &DatasetFacts,
) -> Result<(), ConfigError> {
    let mut names: Vec<String> = dataset
        .train
        .iter()
        .flat_map(|part| [part.lang.clone(), format!("{}/{}", part.lang, part.source), format!("*/{}", part.source)])
        .collect();
    names.sort();
    names.dedup();
    let Some(name) = weights.into_iter().flat_map(BTreeMap::keys).find(|name| !names.contains(name)) else {
        return Ok(());
    };
    let message = format!("`{}` is no language or source of the data set", super::error::shown(name));
    let hint = match nearest(name, names.iter().map(String::as_str)) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("it has {}", listed(&languages(&dataset.train))),
    };
    Err(places.invalid(&format!("{block}.weights.{name}"), message, hint))
}

/// Refuses a run that would need more repetitions than allowed even if it could use every row alike. The order of
/// rows applies the cap to each component exactly; this catches the plain mistake early and in the user's words.
pub(super) fn refuse_overuse(
    places: &Places,
    dataset: &DatasetFacts,
    mixture: &MixturePlan,
    total_rows: u64,
) -> Result<(), ConfigError> {
    let is_used = |part: &&ComponentFacts| {
        let keys = [part.lang.clone(), format!("{}/{}", part.lang, part.source), format!("*/{}", part.source)];
        // A stage may use what the others leave out.
        !mixture.stages.is_empty() || keys.iter().all(|key| mixture.weights.get(key).is_none_or(|weight| *weight > 0.0))
    };
    let usable: u64 = dataset.train.iter().filter(is_used).map(|part| part.rows).sum();
    if usable == 0 {
        let (message, hint) = if mixture.weights.is_empty() {
            ("the data set has no training rows", "prepare it again and look at `jazari data stats`")
        } else {
            ("the weights leave out every part of the data set", "raise a weight above 0")
        };
        return Err(places.invalid("mixture.weights", message, hint));
    }
    let epochs = total_rows as f64 / usable as f64;
    let most = mixture.quotas.values().filter_map(|quota| quota.max_epochs).fold(mixture.max_epochs, f64::max);
    if epochs > most {
        let message = format!(
            "the run takes {total_rows} rows from a data set of {usable}: {epochs:.1} passes, more than the {most} allowed"
        );
        let hint = "shorten the run, add data, or raise `mixture: {max_epochs: ...}` knowing that repetition overfits";
        return Err(places.invalid("mixture.max_epochs", message, hint));
    }
    Ok(())
}

impl Plan {
    /// The mixture as the order of rows wants it.
    pub fn mixture_spec(&self) -> MixtureSpec {
        let MixturePlan { temperature, weights, max_epochs, quotas, stages } = self.mixture.clone();
        let share = |part: &PartPlan| Some(PartShare { streams: part.streams, weight: part.weight? });
        let parts = self.dataset.parts.iter().map(share).collect::<Option<Vec<_>>>().unwrap_or_default();
        let stage = |stage: StagePlan| StageSpec {
            until_row: stage.until_step.saturating_mul(self.global_batch_rows),
            temperature: stage.temperature,
            weights: stage.weights,
            quotas: bounds(&stage.quotas),
        };
        let stages = stages.into_iter().map(stage).collect();
        MixtureSpec { temperature, weights, max_epochs, quotas: bounds(&quotas), stages, parts }
    }
}

fn bounds(quotas: &BTreeMap<String, RawQuota>) -> BTreeMap<String, Quota> {
    let bound = |quota: &RawQuota| Quota {
        min_share: quota.min_share,
        max_share: quota.max_share,
        max_epochs: quota.max_epochs,
    };
    quotas.iter().map(|(name, quota)| (name.clone(), bound(quota))).collect()
}

impl MixturePlan {
    /// The mixture as a configuration writes it.
    pub(super) fn to_raw(&self) -> RawMixture {
        let last = self.stages.len().saturating_sub(1);
        let stage = |(number, stage): (usize, &StagePlan)| RawStage {
            until: (number < last).then_some(StageEnd::Steps(stage.until_step)),
            temperature: stage.temperature,
            weights: stage.weights.clone(),
            quotas: Some(stage.quotas.clone()).filter(|quotas| !quotas.is_empty()),
        };
        RawMixture {
            temperature: Some(self.temperature),
            weights: Some(self.weights.clone()),
            max_epochs: Some(self.max_epochs),
            quotas: Some(self.quotas.clone()).filter(|quotas| !quotas.is_empty()),
            stages: (!self.stages.is_empty()).then(|| self.stages.iter().enumerate().map(stage).collect()),
        }
    }
}
