//! Owns reading one record as a sample, in the forms that data sets of chats have; never touches files, and never
//! guesses: a record that is not understood is an error that says why.

use serde_json::{Map, Value as Json};

use super::{Message, RecordKind, Role, Sample};
use crate::config::FieldNames;
use crate::normalize::Normalize;

/// Most messages of a record.
const MAX_MESSAGES: usize = 10_000;
/// Keys shown in a message.
const MAX_LISTED: usize = 12;

/// A record that is no sample; each ends in what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Not JSON, or not an object.
    #[error("is not one whole JSON object; correct or remove it")]
    NotAnObject,
    /// A record that no reader could cut out.
    #[error("is unreadable ({0}); correct or remove it, or raise `limits.max_record_bytes` if it is merely long")]
    Unreadable(String),
    /// None of the known forms.
    #[error("has {found}, not {expected}; name its fields under `fields:`, or choose another `type:`")]
    NoFields {
        /// What was looked for.
        expected: &'static str,
        /// The keys there are.
        found: String,
    },
    /// A field of the wrong type.
    #[error("`{field}` is {found}, expected {expected}; correct or remove the record")]
    Field {
        /// Its name.
        field: String,
        /// What it is.
        found: &'static str,
        /// What it should be.
        expected: &'static str,
    },
    /// A list without messages, or with far too many.
    #[error("`{field}` has {count} messages, expected 1 to {MAX_MESSAGES}; remove or split the record")]
    Count {
        /// Its name.
        field: String,
        /// How many.
        count: usize,
    },
    /// A role that is not known.
    #[error(
        "message {message} has the role `{role:.40}`; known are system, user (human) and assistant (gpt, model, bot): rename \
         it or remove the record"
    )]
    Role {
        /// Number of the message, from 1.
        message: usize,
        /// The role.
        role: String,
    },
    /// Tool calls and their results.
    #[error("message {message} is a tool call or a tool's answer, which are not supported; remove the record")]
    Tool {
        /// Number of the message, from 1.
        message: usize,
    },
    /// Images, sound.
    #[error("message {message} holds a part of type `{kind:.40}`; only text is supported: remove the record")]
    Part {
        /// Number of the message, from 1.
        message: usize,
        /// Its type.
        kind: String,
    },
    /// Nothing said.
    #[error("message {message} says nothing: its content is {what}; write one or remove the record")]
    Empty {
        /// Number of the message, from 1.
        message: usize,
        /// "null", "absent" or "empty".
        what: &'static str,
    },
    /// Nobody whose words are learned says anything.
    #[error(
        "has no message of a role to train ({roles}), so nothing would be learned; remove it, or write `roles_to_train`"
    )]
    Untrained {
        /// The roles.
        roles: String,
    },
    /// Two equal answers.
    #[error("`chosen` and `rejected` are the same, so nothing is preferred; remove the record")]
    SameAnswers,
    /// An answer that does not end with the assistant.
    #[error("`{field}` does not end with a message of the assistant; correct or remove the record")]
    NoAnswer {
        /// `chosen` or `rejected`.
        field: &'static str,
    },
    /// A label that the gates refuse.
    #[error("its language, source, licence or id cannot be used ({0}); write for example `lang: ary_Arab`")]
    Label(String),
}

/// Names of a form's fields: what the configuration says, else the usual ones.
struct Names<'a>(&'a FieldNames);

impl Names<'_> {
    fn of<'v>(given: Option<&'v String>, usual: &[&'v str]) -> Vec<&'v str> {
        given.map_or_else(|| usual.to_vec(), |name| vec![name.as_str()])
    }

    fn messages(&self) -> Vec<&str> {
        Self::of(self.0.messages.as_ref(), &["messages", "conversations", "conversation"])
    }

    fn role(&self) -> Vec<&str> {
        Self::of(self.0.role.as_ref(), &["role", "from"])
    }

    fn content(&self) -> Vec<&str> {
        Self::of(self.0.content.as_ref(), &["content", "value"])
    }
}

/// Reads a record. Texts are brought into training form one by one.
///
/// # Errors
/// What is wrong with the record.
pub fn parse(
    line: &str,
    names: &FieldNames,
    kind: RecordKind,
    normalize: Normalize,
    roles: &[Role],
) -> Result<Sample, RecordError> {
    let object = match serde_json::from_str(line) {
        Ok(Json::Object(object)) => object,
        _ => return Err(RecordError::NotAnObject),
    };
    let reader = Reader { names: Names(names), fields: names, object: &object, normalize };
    let sample = match kind {
        RecordKind::Preference => reader.preference()?,
        RecordKind::Chat | RecordKind::Text => reader.chat()?,
    };
    let learned = if kind == RecordKind::Preference { &sample.chosen } else { &sample.messages };
    if !learned.iter().any(|message| roles.contains(&message.role)) {
        let roles: Vec<&str> = roles.iter().map(|role| role.name()).collect();
        return Err(RecordError::Untrained { roles: roles.join(", ") });
    }
    Ok(sample)
}

struct Reader<'a> {
    names: Names<'a>,
    fields: &'a FieldNames,
    object: &'a Map<String, Json>,
    normalize: Normalize,
}

impl<'a> Reader<'a> {
    fn chat(&self) -> Result<Sample, RecordError> {
        let sample = |messages| Sample { messages, chosen: Vec::new(), rejected: Vec::new() };
        if let Some((name, value)) = first(self.object, &self.names.messages()) {
            return self.messages(name, value).map(sample);
        }
        let instruction = first(self.object, &Names::of(self.fields.instruction.as_ref(), &["instruction"]));
        let output = first(self.object, &Names::of(self.fields.output.as_ref(), &["output"]));
        let (Some((name, instruction)), Some((answer_name, output))) = (instruction, output) else {
            let expected = "`messages`, `conversations`, or `instruction` and `output`";
            return Err(RecordError::NoFields { expected, found: listed(self.object) });
        };
        let mut messages = Vec::new();
        if let Some((name, system)) = first(self.object, &Names::of(self.fields.system.as_ref(), &["system"]))
            && !text(name, system)?.trim().is_empty()
        {
            messages.push(self.message(Role::System, text(name, system)?));
        }
        let mut question = text(name, instruction)?.to_owned();
        if let Some((name, input)) = first(self.object, &Names::of(self.fields.input.as_ref(), &["input"]))
            && !text(name, input)?.trim().is_empty()
        {
            question = format!("{question}\n\n{}", text(name, input)?);
        }
        messages.push(self.message(Role::User, &question));
        messages.push(self.message(Role::Assistant, text(answer_name, output)?));
        check_content(&messages)?;
        Ok(sample(messages))
    }

    fn preference(&self) -> Result<Sample, RecordError> {
        let get = |given: Option<&'a String>, usual: &'static str| first(self.object, &Names::of(given, &[usual]));
        let chosen = get(self.fields.chosen.as_ref(), "chosen");
        let rejected = get(self.fields.rejected.as_ref(), "rejected");
        let (Some((chosen_name, chosen)), Some((rejected_name, rejected))) = (chosen, rejected) else {
            let expected = "`chosen` and `rejected`";
            return Err(RecordError::NoFields { expected, found: listed(self.object) });
        };
        let prompt = match get(self.fields.prompt.as_ref(), "prompt") {
            Some((name, prompt)) => self.turns(name, prompt, Role::User)?,
            None => Vec::new(),
        };
        let chosen = self.turns(chosen_name, chosen, Role::Assistant)?;
        let rejected = self.turns(rejected_name, rejected, Role::Assistant)?;
        let shared = match prompt.len() {
            // Whole conversations: what they have in common is the prompt.
            0 => chosen.iter().zip(&rejected).take_while(|(a, b)| a == b).count(),
            len if chosen.starts_with(&prompt) && rejected.starts_with(&prompt) => len,
            _ => 0,
        };
        let messages = if prompt.is_empty() { chosen.iter().take(shared).cloned().collect() } else { prompt };
        let after = |answer: Vec<Message>| -> Vec<Message> { answer.into_iter().skip(shared).collect() };
        let (chosen, rejected) = (after(chosen), after(rejected));
        for (field, answer) in [("chosen", &chosen), ("rejected", &rejected)] {
            if answer.last().is_none_or(|message| message.role != Role::Assistant) {
                return Err(if chosen == rejected {
                    RecordError::SameAnswers
                } else {
                    RecordError::NoAnswer { field }
                });
            }
        }
        if chosen == rejected {
            return Err(RecordError::SameAnswers);
        }
        if messages.is_empty() {
            let expected = "a `prompt`";
            return Err(RecordError::NoFields { expected, found: listed(self.object) });
        }
        Ok(Sample { messages, chosen, rejected })
    }

    /// A text of `role`, or a list of messages.
    fn turns(&self, name: &str, value: &Json, role: Role) -> Result<Vec<Message>, RecordError> {
        match value {
            Json::Array(_) => self.messages(name, value),
            _ => {
                let messages = vec![self.message(role, text(name, value)?)];
                check_content(&messages)?;
                Ok(messages)
            }
        }
    }

    fn messages(&self, name: &str, value: &Json) -> Result<Vec<Message>, RecordError> {
        let Json::Array(turns) = value else {
            let (field, found, expected) = (name.to_owned(), kind_of(value), "a list of messages");
            return Err(RecordError::Field { field, found, expected });
        };
        if turns.is_empty() || turns.len() > MAX_MESSAGES {
            return Err(RecordError::Count { field: name.to_owned(), count: turns.len() });
        }
        let messages = turns.iter().zip(1..).map(|(turn, number)| self.turn(name, turn, number));
        let messages = messages.collect::<Result<Vec<_>, _>>()?;
        check_content(&messages)?;
        Ok(messages)
    }

    fn turn(&self, name: &str, turn: &Json, message: usize) -> Result<Message, RecordError> {
        let field = |what: &str| format!("{name}[{}]{what}", message - 1);
        let Json::Object(turn) = turn else {
            let (field, found) = (field(""), kind_of(turn));
            return Err(RecordError::Field { field, found, expected: "an object with a role and a content" });
        };
        let calls = ["tool_calls", "function_call", "tool_call_id"];
        let is_call = |key: &&str| {
            turn.get(*key).is_some_and(|call| !call.is_null() && call.as_array().is_none_or(|c| !c.is_empty()))
        };
        if calls.iter().any(is_call) {
            return Err(RecordError::Tool { message });
        }
        let role = match first(turn, &self.names.role()) {
            Some((_, Json::String(role))) => role,
            Some((key, other)) => {
                let (field, found) = (field(&format!(".{key}")), kind_of(other));
                return Err(RecordError::Field { field, found, expected: "the name of a role" });
            }
            None => {
                let expected = "a role and a content in every message";
                return Err(RecordError::NoFields { expected, found: listed(turn) });
            }
        };
        let role = match role.trim().to_lowercase().as_str() {
            "system" => Role::System,
            "user" | "human" | "prompter" => Role::User,
            "assistant" | "gpt" | "model" | "bot" | "chatgpt" => Role::Assistant,
            "tool" | "function" | "function_call" | "function_response" | "observation" | "ipython" => {
                return Err(RecordError::Tool { message });
            }
            _ => return Err(RecordError::Role { message, role: role.clone() }),
        };
        match first(turn, &self.names.content()) {
            None => Err(RecordError::Empty { message, what: "absent" }),
            Some((_, Json::Null)) => Err(RecordError::Empty { message, what: "null" }),
            Some((_, Json::Array(parts))) => Ok(self.message(role, &joined(parts, message)?)),
            Some((key, value)) => Ok(self.message(role, text(&field(&format!(".{key}")), value)?)),
        }
    }

    fn message(&self, role: Role, content: &str) -> Message {
        Message { role, content: self.normalize.apply(content).into_owned() }
    }
}

fn check_content(messages: &[Message]) -> Result<(), RecordError> {
    match messages.iter().position(|message| message.content.trim().is_empty()) {
        Some(at) => Err(RecordError::Empty { message: at + 1, what: "empty" }),
        None => Ok(()),
    }
}

/// The texts of a content that is written in parts.
fn joined(parts: &[Json], message: usize) -> Result<String, RecordError> {
    let mut whole = String::new();
    for part in parts {
        match (part.get("type").and_then(Json::as_str), part.get("text").and_then(Json::as_str)) {
            (Some("text"), Some(text)) => whole.push_str(text),
            (kind, _) => {
                return Err(RecordError::Part { message, kind: kind.unwrap_or("unknown").to_owned() });
            }
        }
    }
    Ok(whole)
}

/// The first of the names that the object has; a name with dots reaches into objects.
fn first<'o, 'n>(object: &'o Map<String, Json>, names: &[&'n str]) -> Option<(&'n str, &'o Json)> {
    names.iter().find_map(|name| {
        let mut parts = name.split('.');
        let head = object.get(parts.next()?)?;
        let value = parts.try_fold(head, |value, part| value.get(part))?;
        Some((*name, value))
    })
}

fn text<'v>(field: &str, value: &'v Json) -> Result<&'v str, RecordError> {
    let wrong = || RecordError::Field { field: field.to_owned(), found: kind_of(value), expected: "a text" };
    value.as_str().ok_or_else(wrong)
}

fn kind_of(value: &Json) -> &'static str {
    match value {
        Json::Null => "null",
        Json::Bool(_) => "a truth value",
        Json::Number(_) => "a number",
        Json::String(_) => "a text",
        Json::Array(_) => "a list",
        Json::Object(_) => "an object",
    }
}

fn listed(object: &Map<String, Json>) -> String {
    let mut keys: Vec<String> = object.keys().take(MAX_LISTED).map(|key| format!("`{key:.40}`")).collect();
    if object.len() > MAX_LISTED {
        keys.push("more".to_owned());
    }
    if keys.is_empty() { "no fields".to_owned() } else { keys.join(", ") }
}

#[cfg(test)]
#[path = "record_tests.rs"]
mod tests;
