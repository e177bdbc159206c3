//! Owns the chat format of a run: the template and the ids that end turns, as they travel from the data set through
//! checkpoints to exports; never renders.

use std::path::Path;

use data_pipeline::dataset::Dataset;
use serde::{Deserialize, Serialize};

use super::{CHAT_TEMPLATE_FILE, HubError, JSON_LIMIT_BYTES};
use crate::durable::read_text;

/// Name of the file inside a checkpoint.
pub const CHAT_FORMAT_FILE: &str = "chat.json";

/// How a model was taught to chat.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChatFormat {
    /// The template as it was given, with its `{% generation %}` marks.
    pub chat_template: String,
    /// Ids that end a turn.
    pub end_of_turn: Vec<u32>,
}

impl ChatFormat {
    /// That of a data set of chats; `None` of texts.
    pub fn of(dataset: &Dataset) -> Option<Self> {
        let chat = dataset.manifest().chat.as_ref()?;
        let path = dataset.tokenizer_folder().join(CHAT_TEMPLATE_FILE);
        let chat_template = read_text(&path, JSON_LIMIT_BYTES).ok()?;
        Some(Self { chat_template, end_of_turn: chat.end_of_turn_ids.clone() })
    }

    /// The bytes of the file.
    pub fn to_json(&self) -> Vec<u8> {
        // Plain data always has a JSON form.
        let mut bytes = serde_json::to_vec_pretty(self).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }

    /// Reads the file of a checkpoint; `None` when the model was not taught to chat.
    ///
    /// # Errors
    /// A file that is there and cannot be read.
    pub fn read(checkpoint: &Path) -> Result<Option<Self>, HubError> {
        let path = checkpoint.join(CHAT_FORMAT_FILE);
        if !path.exists() {
            return Ok(None);
        }
        let text = read_text(&path, JSON_LIMIT_BYTES)?;
        serde_json::from_str(&text).map(Some).map_err(|error| HubError::Json { path, cause: error.to_string() })
    }
}
