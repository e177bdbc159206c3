//! Owns which special token has which role, as Hugging Face files beside a tokenizer.json say; never touches texts.

use std::path::Path;

use serde_json::{Map, Value};

use super::error::TokenizerError;
use super::files::{CONFIG_FILE, SPECIAL_TOKENS_FILE};
use super::open::read_limited;

/// Ids of the special tokens by role.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Roles {
    pub bos: Option<u32>,
    pub eos: Option<u32>,
    pub pad: Option<u32>,
    pub unknown: Option<u32>,
}

/// Reads the roles from the files in `folder`; the first file that names a role decides it.
pub(super) fn read_roles(folder: &Path, id_of: &dyn Fn(&str) -> Option<u32>) -> Result<Roles, TokenizerError> {
    let mut roles = Roles::default();
    for name in [CONFIG_FILE, SPECIAL_TOKENS_FILE] {
        let path = folder.join(name);
        let Some(object) = read_object(&path)? else { continue };
        add_roles(&mut roles, &object, &path, id_of)?;
    }
    Ok(roles)
}

/// Adds the roles that `object`, the content of `path`, names and that are not decided yet.
pub(super) fn add_roles(
    roles: &mut Roles,
    object: &Map<String, Value>,
    path: &Path,
    id_of: &dyn Fn(&str) -> Option<u32>,
) -> Result<(), TokenizerError> {
    for (role, slot) in [
        ("bos_token", &mut roles.bos),
        ("eos_token", &mut roles.eos),
        ("pad_token", &mut roles.pad),
        ("unk_token", &mut roles.unknown),
    ] {
        let Some(token) = token_text(object, role) else { continue };
        if slot.is_none() {
            let unknown = || TokenizerError::UnknownSpecial { path: path.to_owned(), role, token: token.to_owned() };
            *slot = Some(id_of(token).ok_or_else(unknown)?);
        }
    }
    Ok(())
}

/// A JSON object from a file that may be absent.
pub(super) fn read_object(path: &Path) -> Result<Option<Map<String, Value>>, TokenizerError> {
    if !path.is_file() {
        return Ok(None);
    }
    let malformed = |reason: String| TokenizerError::Malformed { path: path.to_owned(), reason };
    match serde_json::from_slice(&read_limited(path)?) {
        Ok(Value::Object(object)) => Ok(Some(object)),
        Ok(_) => Err(malformed("is no JSON object".to_owned())),
        Err(error) => Err(malformed(error.to_string())),
    }
}

/// The text of a token that is written as a string or as an object with `content`.
pub(super) fn token_text<'a>(object: &'a Map<String, Value>, role: &str) -> Option<&'a str> {
    match object.get(role)? {
        Value::String(token) => Some(token),
        Value::Object(token) => token.get("content")?.as_str(),
        _ => None,
    }
}
