//! Owns the tokenizer files of an export: copied, and completed so that every server finds what it looks for; never
//! touches how a tokenizer encodes.

use std::path::Path;

use data_pipeline::tokenizer::chat::without_generation_marks;
use model_zoo::ModelConfig;
use serde_json::{Map, Value, json};

use super::generation_config::GenerationConfig;
use super::{
    CHAT_TEMPLATE_FILE, HubError, JSON_LIMIT_BYTES, MAX_TOKENIZER_BYTES, SPECIAL_TOKENS_FILE, TOKENIZER_CONFIG_FILE,
    TOKENIZER_FILE,
};
use crate::durable::{read_bytes, read_text, write_atomic};

/// Copied byte for byte where they exist.
const COPIED: [&str; 2] = [TOKENIZER_FILE, "tokenizer.model"];
/// The only class name that transformers 4 and 5 both know for a bare tokenizer.json.
const TOKENIZER_CLASS: &str = "PreTrainedTokenizerFast";

/// Writes the tokenizer of `source` into `out`: `tokenizer.json` (and `tokenizer.model`) as they are;
/// `tokenizer_config.json` and `special_tokens_map.json` completed from the special tokens of the model; the chat
/// template, where there is one, both in `tokenizer_config.json` and in `chat_template.jinja`, because some servers
/// read only one of them.
///
/// # Errors
/// [`HubError`] when a file cannot be read or a special id has no token.
pub(crate) fn write_tokenizer(
    (source, template): (&Path, Option<&str>),
    out: &Path,
    config: &ModelConfig,
    generation: &GenerationConfig,
) -> Result<(), HubError> {
    for name in COPIED {
        let path = source.join(name);
        if name == TOKENIZER_FILE || path.exists() {
            let bytes = read_bytes(&path, MAX_TOKENIZER_BYTES)?;
            write_atomic(&out.join(name), &bytes)?;
        }
    }
    let added = added_tokens(&source.join(TOKENIZER_FILE))?;
    let mut settings = object(&source.join(TOKENIZER_CONFIG_FILE))?;
    let mut specials = object(&source.join(SPECIAL_TOKENS_FILE))?;
    let roles = [
        ("bos_token", generation.bos_token_id),
        ("eos_token", generation.eos_token_ids.first().copied()),
        ("pad_token", generation.pad_token_id),
    ];
    for (role, id) in roles {
        let Some(id) = id.filter(|_| !settings.contains_key(role)) else { continue };
        let content = added.get(&id.to_string()).and_then(|token| token.get("content")).cloned();
        let content = content.ok_or_else(|| HubError::Tokenizer {
            path: source.join(TOKENIZER_FILE),
            cause: format!("the {role} id {id} is no special token there; use the tokenizer the model was made with"),
        })?;
        settings.insert(role.into(), content);
    }
    for (role, _) in roles {
        if let Some(content) = settings.get(role).filter(|_| !specials.contains_key(role)) {
            specials.insert(role.into(), content.clone());
        }
    }
    settings.insert("tokenizer_class".into(), json!(TOKENIZER_CLASS));
    let context = config.max_positions() as u64;
    if settings.get("model_max_length").and_then(Value::as_u64).is_none_or(|longest| longest > context) {
        settings.insert("model_max_length".into(), json!(context));
    }
    settings.entry("clean_up_tokenization_spaces").or_insert(json!(false));
    settings.entry("added_tokens_decoder").or_insert(Value::Object(added));
    let own = template.map(str::to_owned).map_or_else(|| chat_template(source, &settings), |given| Ok(Some(given)))?;
    if let Some(template) = own {
        // Servers do not know the marks of what is trained.
        let template = without_generation_marks(&template);
        write_atomic(&out.join(CHAT_TEMPLATE_FILE), template.as_bytes())?;
        settings.insert("chat_template".into(), json!(template));
    }
    write_json(&out.join(TOKENIZER_CONFIG_FILE), settings)?;
    write_json(&out.join(SPECIAL_TOKENS_FILE), specials)
}

/// `chat_template.jinja`, else the template inside `tokenizer_config.json`.
pub(crate) fn chat_template(source: &Path, settings: &Map<String, Value>) -> Result<Option<String>, HubError> {
    let path = source.join(CHAT_TEMPLATE_FILE);
    if path.exists() {
        return Ok(Some(read_text(&path, JSON_LIMIT_BYTES)?));
    }
    Ok(settings.get("chat_template").and_then(Value::as_str).map(str::to_owned))
}

/// The `added_tokens` of tokenizer.json in the form of `added_tokens_decoder`: id -> token without its id.
pub(crate) fn added_tokens(path: &Path) -> Result<Map<String, Value>, HubError> {
    let text = read_text(path, MAX_TOKENIZER_BYTES)?;
    let json: Value = serde_json::from_str(&text)
        .map_err(|error| HubError::Json { path: path.to_owned(), cause: error.to_string() })?;
    let mut decoder = Map::new();
    for token in json.get("added_tokens").and_then(Value::as_array).into_iter().flatten() {
        let mut token = token.as_object().cloned().unwrap_or_default();
        if let Some(id) = token.remove("id").and_then(|id| id.as_u64()) {
            decoder.insert(id.to_string(), Value::Object(token));
        }
    }
    Ok(decoder)
}

/// The object in a JSON file; empty when there is no file.
pub(crate) fn object(path: &Path) -> Result<Map<String, Value>, HubError> {
    if !path.exists() {
        return Ok(Map::new());
    }
    let text = read_text(path, JSON_LIMIT_BYTES)?;
    serde_json::from_str(&text).map_err(|error| HubError::Json { path: path.to_owned(), cause: error.to_string() })
}

fn write_json(path: &Path, map: Map<String, Value>) -> Result<(), HubError> {
    Ok(write_atomic(path, format!("{:#}\n", Value::Object(map)).as_bytes())?)
}
