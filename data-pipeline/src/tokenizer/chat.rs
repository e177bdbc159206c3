//! Owns rendering chat templates the way Hugging Face does, inside bounds of work and size; never touches token ids.
//!
//! The template comes from a model that may be anyone's: it runs in MiniJinja, which has no files, network or clock,
//! with a budget of instructions and of output. Settings and globals are those of `apply_chat_template` in
//! transformers: `trim_blocks`, `lstrip_blocks`, loop controls, `raise_exception`, `strftime_now`, a `tojson` that
//! escapes nothing for HTML, and Python's methods on strings, lists and dictionaries. `{% generation %}` marks are
//! accepted and have no effect on the text; `spans.rs` reads them.

mod builtin;
mod growth;
mod moment;
mod python_json;
mod spans;

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Serde};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, Value};
use serde_json::Value as Json;

pub use self::builtin::{BUILTIN_TEMPLATES, builtin_template};
pub use self::moment::Moment;
pub use self::spans::TrainedText;
use super::files::CONFIG_FILE;
use super::special::{read_object, token_text};
use super::{TokenizerError, open};

/// File name of a template that lies beside the tokenizer.
pub const CHAT_TEMPLATE_FILE: &str = "chat_template.jinja";
/// Largest template in bytes; the longest in use have about 30 kB.
pub const MAX_TEMPLATE_BYTES: usize = 1 << 20;
/// Largest rendered chat in bytes.
pub const MAX_RENDERED_BYTES: usize = 64 << 20;
/// Most instructions of one rendering; a chat of 10,000 turns takes about a tenth.
const FUEL: u64 = 10_000_000;
const TEMPLATE_NAME: &str = "chat_template";
/// The same template, whose `{% generation %}` marks leave their traces in the text.
const MARKED_NAME: &str = "chat_template_marked";
const MARK_FILTER: &str = "jazari_generation";

/// A chat that cannot be rendered.
#[derive(Debug, thiserror::Error)]
pub enum ChatError {
    /// The template's file cannot be read.
    #[error(transparent)]
    File(#[from] TokenizerError),
    /// A template larger than any in use.
    #[error("the chat template has {bytes} bytes, more than {limit}; check that it is a chat template")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// The template itself says no.
    #[error("the chat template refuses these messages: {message}; change their roles or order")]
    Refused {
        /// What the template says.
        message: String,
    },
    /// The template used up its instructions or its output.
    #[error("the chat template {what}; shorten the chat, or check the template for an endless loop")]
    Limit {
        /// Which bound was met.
        what: &'static str,
    },
    /// The template has a fault, or does not fit the messages.
    #[error("the chat template fails in line {line}: {reason}; correct the template or the messages")]
    Template {
        /// Line of the template, from 1.
        line: usize,
        /// What the engine says.
        reason: String,
    },
    /// A trained message cannot be found in what the template renders.
    #[error(
        "the chat template does not tell which words are those of message {message}: {reason}; put `{{% generation %}}` and \
         `{{% endgeneration %}}` around what the assistant writes, or use a `chat_template` such as chatml"
    )]
    NoSpan {
        /// Number of the message, from 1.
        message: usize,
        /// Why.
        reason: String,
    },
    /// Marks that cannot be followed.
    #[error(
        "the chat template's `{{% generation %}}` marks cannot be used: {reason}; put them right around what the assistant \
         writes, once a message"
    )]
    Marks {
        /// What is wrong with them.
        reason: String,
    },
    /// Neither a file nor the name of a template.
    #[error("`{name}` is neither a file nor a known chat template; write a path, or one of {known}", known = builtin_names())]
    Unknown {
        /// What was asked for.
        name: String,
    },
}

fn builtin_names() -> String {
    let names: Vec<String> = BUILTIN_TEMPLATES.iter().map(|(name, _)| format!("`{name}`")).collect();
    names.join(", ")
}

/// What a rendering depends on beside the messages.
#[derive(Debug, Clone, Copy, Default)]
pub struct RenderOptions {
    /// End with the beginning of an assistant's turn.
    pub add_generation_prompt: bool,
    /// What `strftime_now` shows; without it the function is undefined and templates fall back to a fixed date.
    pub now: Option<Moment>,
}

/// A compiled chat template with the special tokens it may name.
pub struct ChatTemplate {
    environment: Environment<'static>,
    /// `bos_token` and the like.
    special_tokens: BTreeMap<String, String>,
    source: String,
    /// Whether it has `{% generation %}` marks.
    marked: bool,
}

impl std::fmt::Debug for ChatTemplate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChatTemplate").field("source", &self.source).finish_non_exhaustive()
    }
}

impl ChatTemplate {
    /// The template of a tokenizer's folder: `chat_template.jinja`, or `chat_template` in `tokenizer_config.json`
    /// (the one named `default` when there are several). `None` when there is no template.
    ///
    /// # Errors
    /// Files that cannot be read, and templates that do not compile.
    pub fn open(folder: &Path) -> Result<Option<Self>, ChatError> {
        let config = read_object(&folder.join(CONFIG_FILE))?.unwrap_or_default();
        let special_tokens = special_tokens(&config);
        let source = match read_template(&folder.join(CHAT_TEMPLATE_FILE))? {
            Some(source) => source,
            None => match config.get("chat_template").and_then(inline_template) {
                Some(source) => source.to_owned(),
                None => return Ok(None),
            },
        };
        Self::new(&source, special_tokens).map(Some)
    }

    /// The template that `name` asks for, with the special tokens of a tokenizer's folder: a file, one of
    /// [`BUILTIN_TEMPLATES`], or without a name the tokenizer's own.
    ///
    /// # Errors
    /// As [`ChatTemplate::open`]; and a name that is neither.
    pub fn choose(name: Option<&str>, folder: &Path) -> Result<Option<Self>, ChatError> {
        let Some(name) = name else { return Self::open(folder) };
        let config = read_object(&folder.join(CONFIG_FILE))?.unwrap_or_default();
        let source = match (builtin_template(name), read_template(Path::new(name))?) {
            (_, Some(source)) => source,
            (Some(source), None) => source.to_owned(),
            (None, None) => return Err(ChatError::Unknown { name: name.to_owned() }),
        };
        Self::new(&source, special_tokens(&config)).map(Some)
    }

    /// Compiles `source`; `special_tokens` are visible to it under their names (`bos_token`, `eos_token`, ...).
    ///
    /// # Errors
    /// A template that is too large or does not compile.
    pub fn new(source: &str, special_tokens: BTreeMap<String, String>) -> Result<Self, ChatError> {
        if source.len() > MAX_TEMPLATE_BYTES {
            return Err(ChatError::TooLarge { bytes: source.len(), limit: MAX_TEMPLATE_BYTES });
        }
        if growth::joins_too_much(source) {
            return Err(ChatError::Limit { what: "joins more than a hundred texts in one expression" });
        }
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build().map_err(|e| explain(&e))?;
        environment.set_syntax(syntax);
        environment.set_auto_escape_callback(|_| AutoEscape::None);
        environment.set_fuel(Some(growth::fuel(source, FUEL)));
        growth::install(&mut environment);
        environment.add_filter("tojson", to_json);
        environment.add_function("raise_exception", raise_exception);
        environment.add_filter(MARK_FILTER, |text: String| format!("{}{text}{}", spans::OPEN, spans::CLOSE));
        let plain = without_generation_marks(source);
        let marked = plain != source;
        let plain = growth::bound(&plain);
        environment.add_template_owned(TEMPLATE_NAME, plain).map_err(|error| explain(&error))?;
        if marked {
            let traced = replace_generation_marks(source, &format!("filter {MARK_FILTER}"), "endfilter");
            let traced = growth::bound(&traced);
            environment.add_template_owned(MARKED_NAME, traced).map_err(|error| explain(&error))?;
        }
        Ok(Self { environment, special_tokens, source: source.to_owned(), marked })
    }

    /// The template as given.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The special tokens that the template may name: `bos_token` and the like.
    pub fn special_tokens(&self) -> &BTreeMap<String, String> {
        &self.special_tokens
    }

    /// Renders `messages`, each an object with `role` and `content` and whatever else the template reads.
    ///
    /// # Errors
    /// When the template refuses, fails or meets a bound.
    pub fn render(&self, messages: &[Json], options: RenderOptions) -> Result<String, ChatError> {
        self.render_as(TEMPLATE_NAME, messages, options)
    }

    fn render_as(&self, name: &str, messages: &[Json], options: RenderOptions) -> Result<String, ChatError> {
        let mut context: BTreeMap<String, Value> =
            self.special_tokens.iter().map(|(name, token)| (name.clone(), Value::from(token))).collect();
        context.insert("messages".into(), Value::from(Serde(messages)));
        context.insert("add_generation_prompt".into(), Value::from(options.add_generation_prompt));
        context.insert("tools".into(), Value::from(()));
        context.insert("documents".into(), Value::from(()));
        if let Some(now) = options.now {
            let show = move |format: String| {
                now.format(&format).map_err(|reason| Error::new(ErrorKind::InvalidOperation, reason))
            };
            context.insert("strftime_now".into(), Value::from_function(show));
        }
        let mut output = Bounded { bytes: Vec::new(), full: false };
        let template = self.environment.get_template(name).map_err(|error| explain(&error))?;
        let result = template.render_captured_to(context, &mut output).map(|_| ()).map_err(|error| explain(&error));
        if output.full {
            return Err(ChatError::Limit { what: "writes more than 64 MiB" });
        }
        result?;
        String::from_utf8(output.bytes)
            .map_err(|error| ChatError::Template { line: 1, reason: format!("its output is no text ({error})") })
    }
}

fn read_template(path: &Path) -> Result<Option<String>, ChatError> {
    if !path.is_file() {
        return Ok(None);
    }
    let malformed = |error: std::string::FromUtf8Error| TokenizerError::Malformed {
        path: path.to_owned(),
        reason: format!("is not UTF-8 ({error})"),
    };
    Ok(Some(String::from_utf8(open::read_limited(path)?).map_err(malformed)?))
}

/// A template as a string, or the one named `default` of a list.
fn inline_template(value: &Json) -> Option<&str> {
    match value {
        Json::String(source) => Some(source),
        Json::Array(named) => {
            let default = named.iter().find(|entry| entry.get("name").and_then(Json::as_str) == Some("default"));
            default?.get("template")?.as_str()
        }
        _ => None,
    }
}

/// Output that ends at [`MAX_RENDERED_BYTES`].
struct Bounded {
    bytes: Vec<u8>,
    full: bool,
}

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + bytes.len() > MAX_RENDERED_BYTES {
            self.full = true;
            return Err(io::Error::other("the output is full"));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What the template itself raised, so that it can be told from the engine's errors.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Raised(String);

fn raise_exception(message: String) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, message.clone()).with_source(Raised(message)))
}

fn explain(error: &Error) -> ChatError {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(found) = cause {
        if let Some(Raised(message)) = found.downcast_ref() {
            return ChatError::Refused { message: message.clone() };
        }
        if found.downcast_ref::<growth::Overgrown>().is_some() {
            return ChatError::Limit { what: "builds up variables of more than 16 MiB" };
        }
        cause = found.source();
    }
    if error.kind() == ErrorKind::OutOfFuel {
        return ChatError::Limit { what: "takes more than ten million steps" };
    }
    let reason = match error.detail() {
        Some(detail) => format!("{}: {detail}", error.kind()),
        None => error.kind().to_string(),
    };
    ChatError::Template { line: error.line().unwrap_or(1), reason }
}

fn to_json(value: &Value, indent: Option<usize>, options: Kwargs) -> Result<String, Error> {
    let indent = match indent {
        Some(indent) => Some(indent),
        None => options.get::<Option<usize>>("indent")?,
    };
    // Python accepts these; neither changes what templates get here.
    for name in ["ensure_ascii", "separators", "sort_keys"] {
        _ = options.get::<Option<Value>>(name)?;
    }
    options.assert_all_used()?;
    python_json::dump(value, indent).map_err(|error| Error::new(ErrorKind::BadSerialization, error.to_string()))
}

/// The special tokens that a tokenizer_config.json names.
fn special_tokens(config: &serde_json::Map<String, Json>) -> BTreeMap<String, String> {
    let tokens = config.keys().filter(|key| key.ends_with("_token"));
    tokens.filter_map(|key| Some((key.clone(), token_text(config, key)?.to_owned()))).collect()
}

/// The template with blocks without effect for `{% generation %}` and `{% endgeneration %}`, which only some engines
/// know: white space around them is treated as around any block.
pub fn without_generation_marks(source: &str) -> String {
    replace_generation_marks(source, "if true", "endif")
}

fn replace_generation_marks(source: &str, begin: &str, end_with: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let (before, tag) = rest.split_at(start);
        out.push_str(before);
        let Some(end) = tag.find("%}") else {
            rest = tag;
            break;
        };
        let (tag, after) = tag.split_at(end);
        let inner = tag.trim_start_matches("{%");
        let name = inner.trim_matches(|c: char| c.is_whitespace() || c == '-' || c == '+');
        out.push_str(&match name {
            "generation" => tag.replacen(name, begin, 1),
            "endgeneration" => tag.replacen(name, end_with, 1),
            _ => tag.to_owned(),
        });
        rest = after;
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests;
