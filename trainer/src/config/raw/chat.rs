//! Owns the keys of fine-tuning on chats and preferences, as they are written; never touches the data.

use std::path::PathBuf;

use data_pipeline::chat::config::ExcessLength;
use data_pipeline::chat::{ChatConfig, RecordKind, Role};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What an entry of `datasets` is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DatasetType {
    /// A directory made by `jazari data prepare`.
    #[default]
    Prepared,
    /// JSONL or Parquet files of chats, prepared once into the run directory.
    Chat,
    /// JSONL or Parquet files of preferences (`prompt`, `chosen`, `rejected`), prepared likewise.
    Preference,
}

impl DatasetType {
    /// What the files hold; `None` of a prepared data set.
    pub fn records(self) -> Option<RecordKind> {
        match self {
            DatasetType::Prepared => None,
            DatasetType::Chat => Some(RecordKind::Chat),
            DatasetType::Preference => Some(RecordKind::Preference),
        }
    }
}

/// How chats become rows.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawChat {
    /// The chat template: a file, or one of `chatml`, `llama3`, `mistral`. Default: the tokenizer's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = &"chatml")]
    pub chat_template: Option<String>,
    /// Whose words are learned. Default: [assistant].
    #[serde(default, alias = "train_on_roles", skip_serializing_if = "Option::is_none")]
    pub roles_to_train: Option<Vec<Role>>,
    /// What becomes of samples longer than `sequence_len`: raise (the run does not start), drop or truncate; both are
    /// counted and reported. Default: raise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = &"drop")]
    pub excess_length_strategy: Option<ExcessLength>,
    /// Folder of the tokenizer for files of chats. Default: that of `base_model`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = &"models/base")]
    pub tokenizer: Option<PathBuf>,
    /// Share of the chats of each language that is held out, 0 to 0.5. Default: 0.02, and up to a tenth of small sets.
    #[serde(default, alias = "val_set_size", skip_serializing_if = "Option::is_none")]
    #[schemars(example = 0.02)]
    pub validation_fraction: Option<f64>,
}

impl RawChat {
    /// The part that decides how samples become tokens.
    pub fn encoding(&self) -> ChatConfig {
        ChatConfig { chat_template: self.chat_template.clone(), roles_to_train: self.roles_to_train.clone() }
    }
}

/// What a run learns from preferences.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawObjective {
    /// Which loss.
    #[serde(rename = "type")]
    #[schemars(example = &"dpo")]
    pub kind: ObjectiveName,
    /// dpo: how far the model may move from the starting weights (default 0.1). orpo: weight of the odds ratio (default
    /// 0.1). simpo: factor of the mean log-probabilities (default 2.0).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = 0.1)]
    pub beta: Option<f64>,
    /// dpo: share of preferences that are taken to be the wrong way round, 0 to below 0.5. Default: 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = 0.0)]
    pub label_smoothing: Option<f64>,
    /// simpo: margin that the chosen answer must reach. Default: 1.0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = 1.0)]
    pub gamma: Option<f64>,
}

/// Losses over preferences.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ObjectiveName {
    /// Direct preference optimisation (Rafailov et al. 2023), against the starting weights.
    Dpo,
    /// Odds-ratio preference optimisation (Hong et al. 2024), without a reference.
    Orpo,
    /// Simple preference optimisation (Meng et al. 2024), without a reference.
    Simpo,
}
