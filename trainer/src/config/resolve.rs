//! Owns the way from a written configuration to a plan: every default and every rule that spans keys, the data set and
//! the base model; never touches files or devices.

use model_zoo::config::ModelConfig;

use super::adapter::{AdapterFacts, resolve_adapter};
use super::error::{ConfigError, Note, Places};
use super::fresh::fresh_model;
use super::keys::nearest;
use super::mixture;
use super::plan::{ChatPlan, ClusterPlan, DatasetPlan, EvalPlan, OuterPlan, PartPlan, Plan};
use super::power;
use super::raw::{OptimizerName, RawCluster, RawConfig, RawDataset, RawEval, RawGuard, RawOuter, SchedulerName};
use crate::guard::GuardSpec;
use crate::optim::OptimizerHyper;
use crate::schedule::Schedule;

/// A chosen micro-batch has at most this many tokens: enough to keep matrix products efficient on a CPU, and small
/// enough for the activations of a 1-billion-parameter model on one GPU. Set `micro_batch_size` to go beyond.
const MICRO_BATCH_TOKENS: u64 = 8192;
/// A run that says nothing else evaluates and saves this many times.
const DEFAULT_INTERVALS: u64 = 10;
/// Held-out tokens scored for each language by default.
const DEFAULT_EVAL_TOKENS: u64 = 32_768;
/// Checkpoints kept by default.
const DEFAULT_SAVE_TOTAL_LIMIT: u64 = 3;
/// Steps between metrics by default.
const DEFAULT_LOGGING_STEPS: u64 = 10;
/// Warm-up by default, as a share of all steps.
const DEFAULT_WARMUP_RATIO: f64 = 0.01;
/// Share of all steps that wsd decays over by default.
const DEFAULT_DECAY_RATIO: f64 = 0.2;
/// End of cosine and linear decays by default, as a share of the peak.
/// As PyTorch's DistributedDataParallel.
const DEFAULT_BUCKET_CAP_MB: f64 = 25.0;
const DEFAULT_MIN_LR_RATIO: f64 = 0.1;

/// Outer learning rate and momentum by default (Douillard et al., arXiv 2311.08105, section 3.2).
const DEFAULT_OUTER_LEARNING_RATE: f64 = 0.7;
const DEFAULT_OUTER_MOMENTUM: f64 = 0.9;
/// Seconds that a site waits for a coordinator that is not there by default.
const DEFAULT_GIVE_UP_AFTER: f64 = 3600.0;

/// What a plan needs to know about a prepared data set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DatasetFacts {
    /// Identity: the digest of the manifest.
    pub id: String,
    /// Vocabulary of its tokenizer.
    pub vocab_size: usize,
    /// Id that begins a document.
    pub bos: Option<u32>,
    /// Id that ends a document.
    pub eos: Option<u32>,
    /// Id that fills unused places.
    pub pad: Option<u32>,
    /// Training streams.
    pub train: Vec<ComponentFacts>,
    /// Held-out streams.
    pub validation: Vec<ComponentFacts>,
    /// Size of its files, bytes.
    pub bytes: u64,
    /// What chats are beside their tokens; `None` of texts.
    pub chat: Option<ChatPlan>,
    /// Identity and number of training streams of each data set that it is joined of.
    pub parts: Vec<(String, usize)>,
    /// Digest of the best-fit packing of the training texts; `None` where they stand end to end.
    pub best_fit: Option<String>,
}

impl DatasetFacts {
    /// Rows and tokens of all training streams.
    fn trained(&self) -> (u64, u64) {
        self.train.iter().fold((0, 0), |(rows, tokens), stream| (rows + stream.rows, tokens + stream.tokens))
    }
}

/// What a plan needs to know about the weights training starts from.
#[derive(Clone, Debug, PartialEq)]
pub struct BaseFacts {
    /// Their architecture.
    pub model: ModelConfig,
    /// Digest of their files: a run that is resumed must have started from the same weights.
    pub weights: String,
    /// Whether all of them are stored in bf16.
    pub stored_in_bf16: bool,
    /// The adapter that training starts from, when one is named.
    pub adapter: Option<AdapterFacts>,
}

/// One stream of a data set: one language in one source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ComponentFacts {
    /// Language and script, `ary_Arab`.
    pub lang: String,
    /// Source.
    pub source: String,
    /// Tokens.
    pub tokens: u64,
    /// Rows at the configuration's `sequence_len`.
    pub rows: u64,
}

/// Decides every value of a run. `base` describes `base_model`, when one is named.
///
/// # Errors
/// The first rule that the configuration breaks by itself ([`RawConfig::check`]) or against the data set and base
/// model.
pub fn resolve(raw: RawConfig, dataset: &DatasetFacts, base: Option<BaseFacts>) -> Result<Plan, ConfigError> {
    raw.check()?;
    let mut notes = Vec::new();
    let base_weights = base.as_ref().map(|base| base.weights.clone());
    let model = resolve_model(&raw, dataset, base.as_ref().map(|base| base.model.clone()), &mut notes)?;
    let adapter = resolve_adapter(&raw, &model, base.as_ref(), &mut notes)?;
    let (global_batch_rows, micro_batch_rows) = resolve_batch(&raw, &mut notes)?;
    let (train_rows, train_tokens) = dataset.trained();
    let max_steps = resolve_steps(&raw, global_batch_rows, train_rows)?;
    let mixture = mixture::resolve(&raw, dataset, max_steps)?;
    mixture::refuse_overuse(&raw.places, dataset, &mixture, max_steps.saturating_mul(global_batch_rows))?;
    let schedule = resolve_schedule(&raw, max_steps)?;
    check_languages(&raw, dataset)?;
    let objective = super::chat::objective(&raw, dataset)?;
    let router_aux_loss_coef = super::experts::coefficient(&raw, &model)?;
    let interval = max_steps.div_ceil(DEFAULT_INTERVALS).max(1);
    let parts = resolve_parts(&raw.datasets, dataset);
    let adamw = resolve_adamw(&raw);
    let path = raw.datasets.into_iter().next().map(|dataset| dataset.path).unwrap_or_default();
    let chat = dataset.chat.clone();
    Ok(Plan {
        output_dir: raw.output_dir,
        seed: raw.seed.unwrap_or_default(),
        base_model: raw.base_model,
        base_weights,
        model,
        adapter,
        dataset: DatasetPlan {
            path,
            id: dataset.id.clone(),
            train_tokens,
            train_rows,
            bytes: dataset.bytes,
            chat,
            parts,
        },
        mixture,
        best_fit: dataset.best_fit.clone(),
        objective,
        sequence_len: raw.sequence_len,
        global_batch_rows,
        micro_batch_rows,
        max_steps,
        optimizer: raw.optimizer.unwrap_or_default(),
        adamw,
        router_aux_loss_coef,
        schedule,
        warmup_start_ratio: raw.warmup_start_ratio.unwrap_or(0.0),
        precision: raw.precision.unwrap_or_default(),
        gradient_checkpointing: raw.gradient_checkpointing.unwrap_or_default(),
        reduction: raw.reduction.unwrap_or_default(),
        cluster: resolve_cluster(raw.cluster.unwrap_or_default()),
        energy: raw.energy,
        tensorboard: raw.tensorboard.unwrap_or(false),
        prometheus: raw.prometheus.clone(),
        power_window: raw.power_window.as_ref().map(|window| power::resolve(window, &raw.places)).transpose()?,
        outer: raw.outer.map(|outer| resolve_outer(outer, max_steps, &raw.places)).transpose()?,
        guard: resolve_guard(raw.guard.unwrap_or_default()),
        device: raw.device.unwrap_or_default(),
        threads: raw.threads,
        eval_steps: raw.eval_steps.unwrap_or(interval),
        eval: resolve_eval(raw.eval),
        save_steps: raw.save_steps.unwrap_or(interval),
        save_total_limit: raw.save_total_limit.unwrap_or(DEFAULT_SAVE_TOTAL_LIMIT),
        logging_steps: raw.logging_steps.unwrap_or(DEFAULT_LOGGING_STEPS),
        expect: raw.expect.unwrap_or_default(),
        notes,
        places: raw.places,
    })
}

fn resolve_adamw(raw: &RawConfig) -> OptimizerHyper {
    let [beta1, beta2] = raw.betas.unwrap_or([0.9, 0.999]);
    OptimizerHyper {
        beta1,
        beta2,
        eps: raw.eps.unwrap_or(1e-8),
        weight_decay: raw.weight_decay.unwrap_or(0.01),
        max_grad_norm: Some(raw.max_grad_norm.unwrap_or(1.0)).filter(|norm| *norm > 0.0),
        muon_momentum: (raw.optimizer == Some(OptimizerName::Muon)).then(|| raw.muon_momentum.unwrap_or(0.95)),
    }
}

fn resolve_guard(guard: RawGuard) -> GuardSpec {
    let default = GuardSpec::default();
    GuardSpec {
        outlier_sigma: guard.outlier_sigma.unwrap_or(default.outlier_sigma),
        window: guard.window.unwrap_or(default.window),
        max_consecutive_skips: guard.max_consecutive_skips.unwrap_or(default.max_consecutive_skips),
    }
}

/// The data sets of a joined one.
fn resolve_parts(raw: &[RawDataset], joined: &DatasetFacts) -> Vec<PartPlan> {
    if raw.len() < 2 {
        return Vec::new();
    }
    let part = |(raw, (id, streams)): (&RawDataset, &(String, usize))| PartPlan {
        path: raw.path.clone(),
        id: id.clone(),
        streams: *streams,
        weight: raw.weight,
    };
    raw.iter().zip(&joined.parts).map(part).collect()
}

fn resolve_eval(eval: Option<RawEval>) -> EvalPlan {
    let max_tokens_per_language = eval.and_then(|eval| eval.max_tokens_per_language).unwrap_or(DEFAULT_EVAL_TOKENS);
    EvalPlan { max_tokens_per_language }
}

fn resolve_cluster(cluster: RawCluster) -> ClusterPlan {
    ClusterPlan {
        zero: cluster.zero.unwrap_or(0),
        bucket_cap_mb: cluster.bucket_cap_mb.unwrap_or(DEFAULT_BUCKET_CAP_MB),
        digest_steps: cluster.digest_steps.unwrap_or(100),
        peer_timeout: cluster.peer_timeout.unwrap_or(10.0),
        collective_timeout: cluster.collective_timeout.unwrap_or(600.0),
        join_timeout: cluster.join_timeout.unwrap_or(300.0),
        wire: cluster.wire.unwrap_or_default(),
        engine: cluster.engine.unwrap_or_default(),
    }
}

fn resolve_outer(outer: RawOuter, max_steps: u64, places: &Places) -> Result<OuterPlan, ConfigError> {
    let RawOuter { coordinator, site, sync_every, .. } = outer;
    if sync_every > max_steps {
        let message = format!("`outer.sync_every` {sync_every} is longer than the run of {max_steps} steps");
        let hint = "train longer, or talk to the other sites more often";
        return Err(places.invalid("outer.sync_every", message, hint));
    }
    Ok(OuterPlan {
        coordinator,
        site,
        sync_every,
        optimizer: outer.optimizer.unwrap_or_default(),
        learning_rate: outer.learning_rate.unwrap_or(DEFAULT_OUTER_LEARNING_RATE),
        momentum: outer.momentum.unwrap_or(DEFAULT_OUTER_MOMENTUM),
        compress: outer.compress.unwrap_or_default(),
        give_up_after: outer.give_up_after.unwrap_or(DEFAULT_GIVE_UP_AFTER),
    })
}

fn resolve_model(
    raw: &RawConfig,
    dataset: &DatasetFacts,
    base: Option<ModelConfig>,
    notes: &mut Vec<Note>,
) -> Result<ModelConfig, ConfigError> {
    let places = &raw.places;
    let (model, vocab_key, length_key) = match (&raw.model, base) {
        (Some(model), _) => {
            (fresh_model(model, raw.sequence_len, dataset), "model.vocab_size", "model.max_position_embeddings")
        }
        (None, Some(base)) => (base, "base_model", "base_model"),
        (None, None) => {
            let message = "the configuration of `base_model` was not read";
            return Err(places.invalid("base_model", message, "check that the directory holds a `config.json`"));
        }
    };
    model.validate().map_err(|error| {
        let text = error.to_string();
        let message = text.trim_end_matches("; correct the configuration");
        let key: String = message.chars().take_while(|c| c.is_ascii_lowercase() || matches!(c, '_' | '.')).collect();
        let block = if raw.base_model.is_some() { "base_model".into() } else { format!("model.{key}") };
        places.invalid(&block, format!("the model is impossible: {message}"), "correct that dimension")
    })?;
    if model.vocab_size() < dataset.vocab_size {
        let message = format!(
            "the model's vocabulary of {} is smaller than the data set's tokenizer's of {}",
            model.vocab_size(),
            dataset.vocab_size
        );
        let hint = match raw.base_model {
            Some(_) => "prepare the data again with the tokenizer of `base_model`",
            None => "delete `vocab_size`: the tokenizer's is the default",
        };
        return Err(places.invalid(vocab_key, message, hint));
    }
    if model.max_positions() < raw.sequence_len {
        let message =
            format!("`sequence_len` {} is beyond the model's {} positions", raw.sequence_len, model.max_positions());
        return Err(places.invalid(length_key, message, "shorten `sequence_len`"));
    }
    if let (Some(eos), true) = (dataset.eos, raw.base_model.is_some())
        && !model.eos_token_ids().contains(&eos)
    {
        let text = format!("the data ends documents with token {eos}, which `base_model` does not know as an end");
        notes.push(places.note("base_model", text));
    }
    Ok(model)
}

/// Rows of a step and of a micro-batch.
fn resolve_batch(raw: &RawConfig, notes: &mut Vec<Note>) -> Result<(u64, u64), ConfigError> {
    let global_rows = raw.global_rows()?;
    let len = raw.sequence_len as u64;
    let micro_rows = raw.micro_batch_size.unwrap_or_else(|| default_micro_rows(global_rows, len));
    let micro_batches_per_step = global_rows / micro_rows.max(1);
    let how = if raw.micro_batch_size.is_some() { "" } else { ", chosen as `micro_batch_size`" };
    let cut = match micro_batches_per_step {
        1 => format!("one micro-batch{how}"),
        count => format!("{count} micro-batches of {micro_rows}{how}"),
    };
    let tokens = global_rows.saturating_mul(len);
    let text = format!("a step trains on {global_rows} sequences of {len} tokens ({tokens} tokens), cut into {cut}");
    notes.push(raw.places.note("global_batch_size", text));
    Ok((global_rows, micro_rows))
}

/// The largest divisor of the global rows that keeps a micro-batch at [`MICRO_BATCH_TOKENS`] tokens or fewer.
fn default_micro_rows(global_rows: u64, sequence_len: u64) -> u64 {
    let most = (MICRO_BATCH_TOKENS / sequence_len.max(1)).clamp(1, global_rows.max(1));
    (1..=most).rev().find(|rows| global_rows.is_multiple_of(*rows)).unwrap_or(1)
}

fn resolve_steps(raw: &RawConfig, global_rows: u64, train_rows: u64) -> Result<u64, ConfigError> {
    if let Some(steps) = raw.max_steps {
        return Ok(steps);
    }
    if let Some(tokens) = raw.max_tokens {
        return Ok(tokens.0.div_ceil(global_rows.saturating_mul(raw.sequence_len as u64).max(1)).max(1));
    }
    let rows = train_rows as f64 * raw.num_epochs.unwrap_or_default();
    let steps = (rows / global_rows.max(1) as f64).ceil();
    if steps < 1.0 {
        let message = "the data set has no training row to make an epoch of";
        return Err(raw.places.invalid("num_epochs", message, "prepare a larger data set"));
    }
    // At most 10^4 epochs of a data set that fits a disk: far inside 64 bits.
    Ok(steps as u64)
}

fn resolve_schedule(raw: &RawConfig, total_steps: u64) -> Result<Schedule, ConfigError> {
    let peak = raw.learning_rate;
    let scheduler = raw.lr_scheduler.unwrap_or_default();
    let share = |ratio: f64| ((total_steps as f64 * ratio).round() as u64).min(total_steps);
    let warmup_key = if raw.warmup_steps.is_some() { "warmup_steps" } else { "warmup_ratio" };
    let warmup_steps = raw.warmup_steps.unwrap_or_else(|| share(raw.warmup_ratio.unwrap_or(DEFAULT_WARMUP_RATIO)));
    if warmup_steps > total_steps {
        let message = format!("a warm-up of {warmup_steps} steps is longer than the run of {total_steps}");
        let hint = "shorten the warm-up; a hundredth of the run is common";
        return Err(raw.places.invalid(warmup_key, message, hint));
    }
    let default_ratio = if scheduler == SchedulerName::Wsd { 0.0 } else { DEFAULT_MIN_LR_RATIO };
    let min = raw.min_lr.unwrap_or(peak * raw.min_lr_ratio.unwrap_or(default_ratio));
    Ok(match scheduler {
        SchedulerName::Cosine => Schedule::Cosine { peak, min, warmup_steps, total_steps },
        SchedulerName::Linear => Schedule::Linear { peak, min, warmup_steps, total_steps },
        SchedulerName::Constant => Schedule::Constant { peak, warmup_steps },
        SchedulerName::Wsd => {
            let decay_steps = share(raw.decay_ratio.unwrap_or(DEFAULT_DECAY_RATIO)).max(1);
            if warmup_steps.saturating_add(decay_steps) > total_steps {
                let message = format!(
                    "{warmup_steps} steps of warm-up and {decay_steps} of decay are more than the run of {total_steps}"
                );
                return Err(raw.places.invalid("decay_ratio", message, "lower `decay_ratio` or the warm-up"));
            }
            Schedule::Wsd { peak, min, warmup_steps, decay_steps, total_steps }
        }
    })
}

fn check_languages(raw: &RawConfig, dataset: &DatasetFacts) -> Result<(), ConfigError> {
    let languages = languages(&dataset.validation);
    let below = raw.expect.iter().flat_map(|expect| expect.val_bpb_below.keys().map(|name| ("val_bpb_below", name)));
    let risen = raw.expect.iter().flat_map(|expect| expect.max_regression.keys().map(|name| ("max_regression", name)));
    for (key, name) in below.chain(risen) {
        // `all` is the total over the languages.
        let is_total = key == "val_bpb_below" && name == "all" && !languages.is_empty();
        if is_total || languages.contains(name) {
            continue;
        }
        let message = format!("`{}` has no held-out documents in the data set", super::error::shown(name));
        let hint = match nearest(name, languages.iter().map(String::as_str)) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("it holds out {}", listed(&languages)),
        };
        return Err(raw.places.invalid(&format!("expect.{key}.{name}"), message, hint));
    }
    Ok(())
}

pub(super) fn languages(parts: &[ComponentFacts]) -> Vec<String> {
    let mut languages: Vec<String> = parts.iter().map(|part| part.lang.clone()).collect();
    languages.sort();
    languages.dedup();
    languages
}

pub(super) fn listed(names: &[String]) -> String {
    let quoted: Vec<&str> = names.iter().map(String::as_str).collect();
    if quoted.is_empty() { "nothing".into() } else { super::de::quoted_list(&quoted) }
}
