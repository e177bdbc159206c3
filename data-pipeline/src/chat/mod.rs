//! Owns chats and preferences: what a sample is, how records say it, how it becomes tokens with a loss mask; never
//! touches files.
//!
//! A chat passes through the stages of a preparation as a document whose text is [`Sample::to_text`]; only the shard
//! stage renders it with a chat template ([`encode::ChatEncoder`]).

pub mod config;
pub mod encode;
pub mod record;

use serde::{Deserialize, Serialize};

pub use self::config::{ChatConfig, RecordKind};
pub use self::encode::{ChatEncoder, EncodedSample, SampleError};
pub use self::record::RecordError;

/// Bit of a token's mark: its loss counts.
pub const TRAINED: u8 = 1;
/// Bit of a token's mark: it belongs to the second answer of a preference, the rejected one.
pub const REJECTED: u8 = 2;

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Sets the scene.
    System,
    /// Asks.
    User,
    /// Answers.
    Assistant,
}

impl Role {
    /// The name that templates get.
    pub fn name(self) -> &'static str {
        match self {
            Role::System => "system",
            Role::User => "user",
            Role::Assistant => "assistant",
        }
    }
}

/// One turn.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Message {
    /// Who.
    pub role: Role,
    /// What, never empty.
    pub content: String,
}

/// A chat, or a prompt with two answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sample {
    /// The chat; of a preference what both answers follow.
    pub messages: Vec<Message>,
    /// The better answer of a preference.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub chosen: Vec<Message>,
    /// The worse answer of a preference.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rejected: Vec<Message>,
}

impl Sample {
    /// The one spelling of a sample, as JSON: the text of its document.
    pub fn to_text(&self) -> String {
        // Plain data always has a JSON form.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Reads [`Sample::to_text`] back.
    ///
    /// # Errors
    /// A text that is no sample.
    pub fn from_text(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text)
    }

    /// The first words of the sample, to know it by.
    pub fn beginning(&self) -> String {
        const CHARS: usize = 48;
        let content = self.messages.first().or(self.chosen.first()).map_or("", |message| message.content.as_str());
        let head: String = content.chars().take(CHARS).map(|c| if c.is_control() { ' ' } else { c }).collect();
        if content.chars().nth(CHARS).is_some() { format!("{head}...") } else { head }
    }
}
