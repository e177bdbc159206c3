//! Owns the training configuration as it is written: every key, its type and its documentation; never a default that
//! depends on another key (those are resolved in `resolve.rs`).
//!
//! The doc comments below are what `jazari schema` shows in editors, the examples what error messages suggest.

mod adapter;
mod chat;
mod cluster;
mod mixture;
mod model;
mod power;

use std::collections::BTreeMap;
use std::path::PathBuf;

use data_pipeline::config::FieldNames;
use model_zoo::Recompute;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::adapter::{AdapterKind, BaseDtype};
pub use self::chat::{DatasetType, ObjectiveName, RawChat, RawObjective};
pub use self::cluster::{EngineChoice, OuterCompress, OuterOptimizer, RawCluster, RawOuter, WireChoice};
pub use self::mixture::{RawMixture, RawQuota, RawStage, SamplePacking};
pub use self::model::{Family, RawModel, RawRopeScaling, RopeScalingKind, SizePreset};
pub use self::power::{RawEnergy, RawPowerWindow};
use super::error::Places;
use super::units::{BatchSize, TokenCount};
use crate::adapter::Targets;
use crate::device::DeviceChoice;
use crate::expect::Expect;

/// A training run, as written in YAML. Relative paths are relative to the directory that `jazari` is started in.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "Jazari training configuration")]
pub struct RawConfig {
    /// Version of this configuration format; always 1 today.
    #[schemars(example = 1)]
    pub config_version: u32,
    /// Directory of the run: checkpoints, metrics, the resolved configuration. Made when it does not exist.
    #[schemars(example = &"runs/darija-30m")]
    pub output_dir: PathBuf,
    /// Seed of the initial weights and of the data order. Default: 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = 1)]
    pub seed: Option<u64>,

    /// Hugging Face directory, run directory or checkpoint whose weights training starts from. Either this or `model`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = &"models/base")]
    pub base_model: Option<PathBuf>,
    /// A model with fresh weights. Either this or `base_model`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<RawModel>,

    /// Freeze the weights of `base_model` and train an adapter on top: `lora`, or `qlora` with the base in 4 bits.
    /// Default: none, all weights are trained.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = &"lora")]
    pub adapter: Option<AdapterKind>,
    /// Rank of the corrections. Default: 16.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = 16)]
    pub lora_r: Option<usize>,
    /// Corrections are scaled by `lora_alpha / lora_r`. Default: twice the rank.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = 32)]
    pub lora_alpha: Option<f64>,
    /// Linear layers that are corrected: the ends of their names, a regular expression for whole names, or
    /// `all-linear`. Default: all-linear.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = ["q_proj", "v_proj"])]
    pub lora_target_modules: Option<Targets>,
    /// Another way to write `lora_target_modules: all-linear`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = true)]
    pub lora_target_linear: Option<bool>,
    /// Numbers of the blocks that are corrected, from 0. Default: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = [2, 3])]
    pub lora_layers_to_transform: Option<Vec<usize>>,
    /// Other ranks for some layers, by a pattern for the end of their names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = BTreeMap::from([("down_proj", 32)]))]
    pub lora_rank_pattern: Option<BTreeMap<String, usize>>,
    /// Other alphas for some layers, likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = BTreeMap::from([("down_proj", 64.0)]))]
    pub lora_alpha_pattern: Option<BTreeMap<String, f64>>,
    /// Layers that are trained whole and saved with the adapter, by the ends of their names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = ["embed_tokens", "lm_head"])]
    pub lora_modules_to_save: Option<Vec<String>>,
    /// Scale corrections by `lora_alpha / sqrt(lora_r)`, which suits large ranks. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = true)]
    pub use_rslora: Option<bool>,
    /// Also train the length of every row of a corrected matrix (DoRA). Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = true)]
    pub use_dora: Option<bool>,
    /// Only 0 for now, the default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = 0.0)]
    pub lora_dropout: Option<f64>,
    /// Directory of an adapter as PEFT saves it, to go on training; its settings take the place of the `lora_` keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = &"adapters/darija")]
    pub lora_model_dir: Option<PathBuf>,
    /// Number format of the frozen base: fp32, bf16 or auto (bf16 if that is how it is stored). Default: auto.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = &"bf16")]
    pub base_dtype: Option<BaseDtype>,

    /// Prepared data sets, each a directory made by `jazari data prepare`, all with one tokenizer.
    #[schemars(example = [BTreeMap::from([("path", "data/moroccan")])])]
    pub datasets: Vec<RawDataset>,
    /// How languages, sources and licences share the training rows; a list is a list of its `stages`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mixture: Option<RawMixture>,
    /// How chats become rows, when `datasets` holds chats or preferences; see `docs/guide/sft.md`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chat: Option<RawChat>,
    /// What is learned from preferences; of other data sets the next token is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub objective: Option<RawObjective>,
    /// Length of a training row in tokens.
    #[schemars(example = 1024)]
    pub sequence_len: usize,
    /// How documents fill rows, in which they never attend to each other. true: one after another, cut where a row is
    /// full. best_fit: whole where they fit, with some places left empty. Default: true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = true)]
    pub sample_packing: Option<SamplePacking>,

    /// What one optimizer step trains on, over all processes, with its unit: `32 seq` or `64 KiTok`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = &"32 seq")]
    pub global_batch_size: Option<BatchSize>,
    /// Sequences that go through the model at once; divides the global batch. Default: the largest divisor that
    /// keeps a micro-batch at 8192 tokens or fewer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = 8)]
    pub micro_batch_size: Option<u64>,
    /// Another way to write the global batch: `micro_batch_size` × this many micro-batches in one step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = 4)]
    pub gradient_accumulation_steps: Option<u64>,

    /// Number of optimizer steps. Exactly one of `max_steps`, `max_tokens` and `num_epochs`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = 1000)]
    pub max_steps: Option<u64>,
    /// Number of tokens to train on, rounded up to whole steps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = &"300 MTok")]
    pub max_tokens: Option<TokenCount>,
    /// Passes over the data set, rounded up to whole steps; with a mixture, passes in total rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = 1.0)]
    pub num_epochs: Option<f64>,

    /// The optimizer. Default: adamw, with the semantics and defaults of torch.optim.AdamW. With muon, the matrices between
    /// hidden layers are updated as by torch.optim.Muon(adjust_lr_fn="match_rms_adamw").
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = &"adamw")]
    pub optimizer: Option<OptimizerName>,
    /// Momentum of `optimizer: muon`. Default: 0.95.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = 0.95)]
    pub muon_momentum: Option<f64>,
    /// Highest learning rate of the schedule.
    #[schemars(example = 6e-4)]
    pub learning_rate: f64,
    /// Decay of AdamW's two moments. Default: [0.9, 0.999].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = [0.9, 0.95])]
    pub betas: Option<[f64; 2]>,
    /// Added to the root of the second moment. Default: 1e-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = 1e-8)]
    pub eps: Option<f64>,
    /// Decoupled weight decay of matrices; norms and biases never decay. Default: 0.01.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = 0.1)]
    pub weight_decay: Option<f64>,
    /// Scale the gradient down to this global norm; 0 switches clipping off. Default: 1.0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = 1.0)]
    pub max_grad_norm: Option<f64>,
    /// Factor of the loss that keeps experts equally busy, for models that have them; 0 leaves it out. The logged loss
    /// does not contain it. Default: 0.02 for fresh weights; for `base_model` the value of its `config.json` where that
    /// sets `output_router_logits`, else 0, as in transformers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = 0.02)]
    pub router_aux_loss_coef: Option<f64>,

    /// Shape of the learning rate after warm-up: cosine, wsd (stable, then a linear decay), linear or constant.
    /// Default: cosine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = &"cosine")]
    pub lr_scheduler: Option<SchedulerName>,
    /// Steps over which the rate rises to `learning_rate`. Either this or `warmup_ratio`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = 100)]
    pub warmup_steps: Option<u64>,
    /// The same as a share of all steps, 0 to 1. Default: 0.01.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = 0.02)]
    pub warmup_ratio: Option<f64>,
    /// Where the warm-up starts, as a share of `learning_rate`, 0 to 1: a run that continues a trained model may start
    /// near the rate at which that one ended. Default: 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = 0.1)]
    pub warmup_start_ratio: Option<f64>,
    /// Rate of the last step as a share of `learning_rate`. Default: 0.1 for cosine and linear, 0 for wsd.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = 0.1)]
    pub min_lr_ratio: Option<f64>,
    /// Another way to write `min_lr_ratio`: the rate of the last step itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = 6e-5)]
    pub min_lr: Option<f64>,
    /// Share of all steps that wsd spends on its final decay. Default: 0.2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = 0.2)]
    pub decay_ratio: Option<f64>,

    /// Arithmetic: fp32, or bf16-mixed (bf16 compute, fp32 weights and optimizer; GPU only). Default: fp32.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = &"fp32")]
    pub precision: Option<Precision>,
    /// Recompute activations in the backward pass to save memory. Only `none` for now, the default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = &"none")]
    pub gradient_checkpointing: Option<GradientCheckpointing>,
    /// Where to train: auto, cpu, cuda:N, rocm:N or wgpu:N. Default: auto.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = &"auto")]
    pub device: Option<DeviceChoice>,
    /// CPU threads of the run; the result does not depend on it. Default: all cores.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = 2)]
    pub threads: Option<usize>,
    /// exact: gradients are added along one fixed tree, so the bits do not depend on the number of processes.
    /// fast: the collective library chooses the order. Default: exact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = &"exact")]
    pub reduction: Option<Reduction>,
    /// When a step is too bad to apply.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guard: Option<RawGuard>,

    /// How the processes of a run watch each other; their number is the launcher's matter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<RawCluster>,

    /// When the run may draw power; see `docs/guide/power.md`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub power_window: Option<RawPowerWindow>,

    /// What the machines draw and what their electricity is made of; for estimates and reports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub energy: Option<RawEnergy>,

    /// Makes this run one site of several that are joined by slow links; see `docs/guide/sites.md`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outer: Option<RawOuter>,

    /// Evaluate after every this many steps, and after the last. Default: a tenth of the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = 100)]
    pub eval_steps: Option<u64>,
    /// What an evaluation looks at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eval: Option<RawEval>,
    /// Save a checkpoint after every this many steps, and after the last. Default: a tenth of the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = 500)]
    pub save_steps: Option<u64>,
    /// Checkpoints to keep, 2 or more; older ones go once a newer one is proven readable. Default: 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = 3)]
    pub save_total_limit: Option<u64>,
    /// Write metrics after every this many steps. Default: 10.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = 10)]
    pub logging_steps: Option<u64>,

    /// Write the figures of the run for TensorBoard as well, in `tensorboard/` of the run. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = true)]
    pub tensorboard: Option<bool>,
    /// Address at which Prometheus reads the figures of the run (`/metrics`), from rank 0. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = &"127.0.0.1:9464")]
    pub prometheus: Option<String>,

    /// What the run must reach: a run that misses it ends with exit code 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expect: Option<Expect>,

    /// Where each key was written; filled in by the loader.
    #[serde(skip)]
    #[schemars(skip)]
    pub places: Places,
}

/// One data set.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawDataset {
    /// Directory that `jazari data prepare` made; of chats and preferences a file, a folder or a glob.
    #[schemars(example = &"data/moroccan")]
    pub path: PathBuf,
    /// What lies there: prepared (a directory made by `jazari data prepare`), or files of chat or preference records.
    /// Default: prepared.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    #[schemars(example = &"chat")]
    pub kind: Option<DatasetType>,
    /// Names of the fields of records; the usual ones are known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fields: Option<FieldNames>,
    /// Language of records that name none, `ary_Arab`. Default: unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = &"ary_Arab")]
    pub lang: Option<String>,
    /// Share of the training rows against the other data sets: 0.8 beside 0.2. With none written, the data sets share
    /// as if they had been prepared together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = 1.0)]
    pub weight: Option<f64>,
}

/// When a step is too bad to apply.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawGuard {
    /// Skip a step whose loss or gradient norm lies this many standard deviations above the recent mean. Default: 6.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = 6.0)]
    pub outlier_sigma: Option<f64>,
    /// Number of recent steps that the mean is taken over. Default: 128.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = 128)]
    pub window: Option<usize>,
    /// Stop the run at this many skipped steps in a row. Default: 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = 3)]
    pub max_consecutive_skips: Option<u32>,
}

/// What an evaluation looks at.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawEval {
    /// Most held-out tokens to score for each language. Default: 32768.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = 32768)]
    pub max_tokens_per_language: Option<u64>,
}

/// Optimizers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OptimizerName {
    /// AdamW with decoupled weight decay.
    #[default]
    Adamw,
    /// Muon for the matrices between hidden layers, AdamW for the rest; one learning rate serves both.
    Muon,
}

/// Shapes of the learning rate after warm-up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SchedulerName {
    /// Half a cosine down to the minimum.
    #[default]
    Cosine,
    /// Warm-up, stable, then a linear decay at the end.
    Wsd,
    /// A straight line down to the minimum.
    Linear,
    /// No decay.
    Constant,
}

impl SchedulerName {
    /// The name as a configuration writes it.
    pub fn name(self) -> &'static str {
        match self {
            SchedulerName::Cosine => "cosine",
            SchedulerName::Wsd => "wsd",
            SchedulerName::Linear => "linear",
            SchedulerName::Constant => "constant",
        }
    }
}

/// Arithmetic of the forward and backward pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
pub enum Precision {
    /// 32-bit floats throughout.
    #[default]
    #[serde(rename = "fp32")]
    Fp32,
    /// bf16 compute inside the layers; fp32 master weights, gradient sums and optimizer state.
    #[serde(rename = "bf16-mixed")]
    Bf16Mixed,
}

impl From<Precision> for model_zoo::Precision {
    fn from(precision: Precision) -> Self {
        match precision {
            Precision::Fp32 => Self::F32,
            Precision::Bf16Mixed => Self::Bf16Mixed,
        }
    }
}

/// Which activations are recomputed in the backward pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum GradientCheckpointing {
    /// None: all are kept.
    #[default]
    None,
    /// Those of every other block, from its input: the same bits, half of a forward pass more, half of the memory.
    Selective,
    /// Those of every block, from its input: the same bits, one more forward pass, a fraction of the memory.
    Block,
}

impl From<GradientCheckpointing> for Recompute {
    fn from(checkpointing: GradientCheckpointing) -> Self {
        match checkpointing {
            GradientCheckpointing::None => Self::Nothing,
            GradientCheckpointing::Selective => Self::EveryOther,
            GradientCheckpointing::Block => Self::Everything,
        }
    }
}

/// Order in which gradients are added.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Reduction {
    /// Along one fixed tree: the same bits for any number of processes.
    #[default]
    Exact,
    /// As the collective library likes.
    Fast,
}
