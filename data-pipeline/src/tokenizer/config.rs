//! Owns what a data configuration says of its tokenizer: where it comes from and what it must reach; never opens one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::TrainConfig;
use super::gates::Gates;
use crate::document::is_language_label;

/// Where the tokenizer comes from: `path` or `train`, and what it must reach.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenizerConfig {
    /// A tokenizer.json, as `tokenizer train` or Hugging Face tokenizers write it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// Train one on the training documents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub train: Option<TrainConfig>,
    /// Bounds by language and script: a preparation whose tokenizer does not keep them ends with exit code 3.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub gates: Gates,
}

/// Where a tokenizer comes from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum TokenizerSource<'a> {
    /// A file.
    Path(&'a Path),
    /// Training.
    Train(&'a TrainConfig),
    /// Nothing is written, which [`PrepareConfig::validate`] refuses.
    Missing,
}

impl TokenizerConfig {
    /// A tokenizer.json.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: Some(path.into()), ..Self::default() }
    }

    /// One that is trained.
    pub fn trained(train: TrainConfig) -> Self {
        Self { train: Some(train), ..Self::default() }
    }

    /// Where the tokenizer comes from.
    pub fn source(&self) -> TokenizerSource<'_> {
        match (&self.path, &self.train) {
            (Some(path), _) => TokenizerSource::Path(path),
            (None, Some(train)) => TokenizerSource::Train(train),
            (None, None) => TokenizerSource::Missing,
        }
    }

    /// Adds every rule that is broken to `problems`, with its key and what to write.
    pub(crate) fn check(&self, problems: &mut Vec<String>) {
        match (&self.path, &self.train) {
            (Some(_), Some(_)) => {
                problems.push("tokenizer: has both `path` and `train`; keep the one that is meant".to_owned())
            }
            (None, None) => problems.push(
                "tokenizer: has neither `path` nor `train`; write `{train: {vocab_size: 32768}}`, or `{path: FILE}`"
                    .to_owned(),
            ),
            (None, Some(train)) => {
                problems.extend(train.validate().err().map(|error| format!("tokenizer.train.{error}")));
            }
            (Some(_), None) => {}
        }
        for (name, gate) in &self.gates {
            problems.extend(gate.problems().map(|problem| format!("tokenizer.gates.{name}.{problem}")));
            if gate.max_parity.is_some() {
                problems.push(format!(
                    "tokenizer.gates.{name}.max_parity: is measured by `jazari tokenizer eval --reference LANG` only; \
                     remove it here"
                ));
            }
            if !(is_language_label(name) || name == "*" || name.starts_with("*_")) {
                problems.push(format!("tokenizer.gates.{name}: is no language; write `zgh_Tfng`, `*_Tfng` or `*`"));
            }
        }
    }
}
