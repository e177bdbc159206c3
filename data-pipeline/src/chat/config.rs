//! Owns what a user may ask about chats: the template, the roles that are learned; never touches files.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Role;

/// What a record of a source is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RecordKind {
    /// A text.
    #[default]
    Text,
    /// A conversation: `messages` (role, content), ShareGPT `conversations` (from, value), or Alpaca `instruction`,
    /// `input`, `output`.
    Chat,
    /// A `prompt` with a `chosen` and a `rejected` answer, each a text or a list of messages.
    Preference,
}

impl RecordKind {
    /// Whether it is [`RecordKind::Text`].
    pub fn is_text(&self) -> bool {
        *self == RecordKind::Text
    }

    /// The name in configurations.
    pub fn name(self) -> &'static str {
        match self {
            RecordKind::Text => "text",
            RecordKind::Chat => "chat",
            RecordKind::Preference => "preference",
        }
    }
}

/// How chats become tokens.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ChatConfig {
    /// The chat template: a file, or one of `chatml`, `llama3`, `mistral`. Default: the tokenizer's own
    /// (`chat_template.jinja`, or `chat_template` in `tokenizer_config.json`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = &"chatml")]
    pub chat_template: Option<String>,
    /// Whose words are learned. Default: `[assistant]`.
    #[serde(default, alias = "train_on_roles", skip_serializing_if = "Option::is_none")]
    pub roles_to_train: Option<Vec<Role>>,
}

impl ChatConfig {
    /// Whose words are learned, each role once.
    pub fn roles(&self) -> Vec<Role> {
        let mut roles = self.roles_to_train.clone().unwrap_or_else(|| vec![Role::Assistant]);
        roles.sort_unstable();
        roles.dedup();
        roles
    }
}

/// What becomes of samples that are longer than a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ExcessLength {
    /// The run does not start.
    #[default]
    Raise,
    /// They are left out and counted.
    Drop,
    /// Their end is cut off and counted; chats only.
    Truncate,
}
