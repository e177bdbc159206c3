//! Owns the way from a YAML file and `--set` overrides to a typed configuration with notes; never knows what the
//! values mean.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use schemars::JsonSchema;
use serde::de::DeserializeOwned;

use super::alias::{self, Alias};
use super::de::{self, Misfit, MisfitKind, Step, quoted_list};
use super::error::{ConfigError, Diagnosis, Note, Place, Places, shown};
use super::hints::{choice_hint, missing_hint, value_hint, with_key};
use super::keys::{Keys, nearest};
use super::tree::{self, Entry, Node, Value};

/// Largest configuration file, bytes. The largest recipe that we ship has about 5 KiB.
pub const MAX_FILE_BYTES: u64 = 1 << 20;
/// Most keys that an error message lists.
const MAX_LISTED_KEYS: usize = 16;

/// A type that is read from a configuration file.
pub trait ConfigFile: DeserializeOwned + JsonSchema {
    /// What such a file is, in words: `a training configuration`.
    const WHAT: &'static str;
    /// The newest `config_version` that is known; `None` for files without versions.
    const VERSION: Option<u32> = None;

    /// Keys of other tools that stand for ours.
    fn aliases() -> &'static [Alias] {
        &[]
    }

    /// Keys that do not exist here, with what to do instead.
    fn elsewhere() -> &'static [(&'static str, &'static str)] {
        &[]
    }

    /// Values that belong to another key or another tool: key, value, what to do instead.
    fn misnomers() -> &'static [(&'static str, &'static str, &'static str)] {
        &[]
    }

    /// Takes the places of the keys, for the rules that are checked after parsing.
    fn attach(&mut self, _places: Places) {}
}

/// Reads a configuration file, applies `KEY=VALUE` overrides in order and returns it with what was understood on the
/// way. Nothing is written and nothing but the file is read.
///
/// # Errors
/// The first mistake, with its place, its cause and what to write instead.
pub fn load<T: ConfigFile>(path: &Path, overrides: &[String]) -> Result<(T, Vec<Note>), ConfigError> {
    let text = read(path)?;
    parse(path, &text, overrides)
}

/// [`load`] of a text that is already in memory; `path` is what errors call it.
///
/// # Errors
/// As [`load`], apart from those of reading.
pub fn parse<T: ConfigFile>(path: &Path, text: &str, overrides: &[String]) -> Result<(T, Vec<Note>), ConfigError> {
    let (config, notes, _) = parse_placed(path, text, overrides)?;
    Ok((config, notes))
}

/// [`load`], with the places of all keys, for types that are checked where no place is known.
///
/// # Errors
/// As [`load`].
pub fn load_placed<T: ConfigFile>(path: &Path, overrides: &[String]) -> Result<(T, Vec<Note>, Places), ConfigError> {
    parse_placed(path, &read(path)?, overrides)
}

fn parse_placed<T: ConfigFile>(
    path: &Path,
    text: &str,
    overrides: &[String],
) -> Result<(T, Vec<Note>, Places), ConfigError> {
    let (aliases, elsewhere, misnomers) = (T::aliases(), T::elsewhere(), T::misnomers());
    let reader = Reader { path, keys: Keys::of::<T>, aliases, elsewhere, misnomers };
    let mut root = tree::parse(text).map_err(|error| {
        let place = Place::Line { line: error.line, column: error.column };
        ConfigError::Syntax(reader.diagnosis(place, error.message, error.hint))
    })?;
    reader.refuse_non_block::<T>(&root)?;
    reader.refuse_later_version::<T>(&root)?;
    let mut notes = reader.renamed(&mut root)?;
    for text in overrides {
        notes.extend(reader.set(&mut root, text)?);
    }
    let mut config: T = de::from_node(&root).map_err(|misfit| reader.explain(misfit, &root))?;
    let mut by_path = BTreeMap::new();
    root.walk("", &mut |path, place| {
        by_path.insert(path, place.clone());
    });
    let places = Places::new(path, by_path);
    config.attach(places.clone());
    for note in &mut notes {
        note.file = Some(path.to_path_buf());
    }
    Ok((config, notes, places))
}

/// The text of a configuration file.
///
/// # Errors
/// The file is absent, too large, or not UTF-8.
pub fn read(path: &Path) -> Result<String, ConfigError> {
    let unreadable = |message: String, hint: &str| {
        let (file, hint) = (Some(path.to_path_buf()), hint.to_string());
        ConfigError::Unreadable(Box::new(Diagnosis { file, place: Place::File, message, hint }))
    };
    let file = File::open(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => unreadable(
            "there is no such file".into(),
            "check the path; the recipes that come with Jazari are in `configs/`",
        ),
        _ => unreadable(format!("cannot be opened: {error}"), "check its permissions"),
    })?;
    if file.metadata().is_ok_and(|metadata| metadata.is_dir()) {
        return Err(unreadable("is a directory, not a file".into(), "name the YAML file inside it"));
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| unreadable(format!("cannot be read: {error}"), "check the disk"))?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(unreadable("is larger than 1 MiB".into(), "is this really a configuration file?"));
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        unreadable(format!("is not UTF-8 text (byte {at})"), "save the file with the encoding UTF-8")
    })?;
    if text.contains('\0') {
        return Err(unreadable("holds a NUL byte".into(), "is this really a text file?"));
    }
    Ok(text)
}

struct Reader<'a> {
    path: &'a Path,
    /// Made only for an error: a schema takes longer than reading a file.
    keys: fn() -> Keys,
    aliases: &'static [Alias],
    elsewhere: &'static [(&'static str, &'static str)],
    misnomers: &'static [(&'static str, &'static str, &'static str)],
}

impl Reader<'_> {
    fn diagnosis(&self, place: Place, message: impl Into<String>, hint: impl Into<String>) -> Box<Diagnosis> {
        let file = Some(self.path.to_path_buf());
        Box::new(Diagnosis { file, place, message: message.into(), hint: hint.into() })
    }

    fn refuse_non_block<T: ConfigFile>(&self, root: &Node) -> Result<(), ConfigError> {
        match root.value {
            Value::Map(_) => Ok(()),
            Value::Null => Err(ConfigError::Unreadable(self.diagnosis(
                Place::File,
                "is empty",
                format!("write {}: `jazari schema` prints its keys, `configs/` holds examples", T::WHAT),
            ))),
            _ => Err(ConfigError::WrongType(self.diagnosis(
                root.place.clone(),
                format!("{} is a block of `key: value` lines, found {}", T::WHAT, root.found()),
                "start from one of the examples in `configs/`",
            ))),
        }
    }

    /// A later version may hold keys that are unknown here: they are not what is wrong with the file.
    fn refuse_later_version<T: ConfigFile>(&self, root: &Node) -> Result<(), ConfigError> {
        match (T::VERSION, root.entry("config_version").map(|entry| &entry.node)) {
            (Some(known), Some(Node { value: Value::Int(version), place })) if *version > i128::from(known) => {
                let message = format!("`config_version: {version}` is of a later Jazari; this one knows up to {known}");
                let hint = format!("use a newer Jazari: this is {}", env!("CARGO_PKG_VERSION"));
                Err(ConfigError::Invalid(self.diagnosis(place.clone(), message, hint)))
            }
            _ => Ok(()),
        }
    }

    fn renamed(&self, root: &mut Node) -> Result<Vec<Note>, ConfigError> {
        alias::rename(root, self.aliases)
            .map_err(|(place, message, hint)| ConfigError::Invalid(self.diagnosis(place, message, hint)))
    }

    /// Applies one `a.b=c`: the value replaces whatever the file says, missing blocks are made.
    fn set(&self, root: &mut Node, text: &str) -> Result<Vec<Note>, ConfigError> {
        let place = Place::Set(text.to_string());
        let wrong = |message: String, hint: &str| ConfigError::Syntax(self.diagnosis(place.clone(), message, hint));
        let form = "write `--set key=value`, for example `--set learning_rate=3e-4` or `--set model.size=10m`";
        let Some((keys, value)) = text.split_once('=') else {
            return Err(wrong("has no `=`".into(), form));
        };
        let steps = steps(keys).ok_or_else(|| wrong(format!("`{}` is not a key path", shown(keys)), form))?;
        let mut node = tree::parse(value).map_err(|error| wrong(error.message, "put the value in quotes"))?;
        node.move_to(&place);
        // A lone key may be another tool's name; the alias table works on a block.
        let [key] = steps.as_slice() else {
            insert(root, &steps, node, &place).map_err(|message| wrong(message, form))?;
            return Ok(Vec::new());
        };
        let entry = Entry { key: key.clone(), key_place: place.clone(), node };
        let mut block = Node { value: Value::Map(vec![entry]), place: place.clone() };
        let notes = self.renamed(&mut block)?;
        if let Value::Map(entries) = block.value {
            for entry in entries {
                insert(root, &[entry.key], entry.node, &place).map_err(|message| wrong(message, form))?;
            }
        }
        Ok(notes)
    }

    fn explain(&self, misfit: Misfit, root: &Node) -> ConfigError {
        let place = misfit.place.clone().unwrap_or_default();
        let path = misfit.path_text();
        match &misfit.kind {
            MisfitKind::UnknownKey { key, known } => self.unknown_key(key, known, &misfit, place),
            MisfitKind::UnknownVariant { value, known } => {
                let message = format!("`{path}` is one of {}, found `{}`", quoted_list(known), shown(value));
                let hint = choice_hint(&(self.keys)(), self.misnomers, &misfit.path, value, known);
                ConfigError::WrongType(self.diagnosis(place, message, hint))
            }
            MisfitKind::MissingKey { key } => {
                let full = [misfit.path.clone(), vec![Step::Key((*key).to_string())]].concat();
                let hint = missing_hint(&(self.keys)(), &full, key);
                let place = if misfit.path.is_empty() { Place::File } else { place };
                let message = format!("`{}` is missing", de::path_text(&full));
                ConfigError::MissingKey(self.diagnosis(place, message, hint))
            }
            MisfitKind::WrongType { found, .. } if found == "nothing" => {
                let hint = value_hint(&(self.keys)(), &misfit.path, "a value", found);
                ConfigError::WrongType(self.diagnosis(place, format!("`{path}` has no value"), hint))
            }
            MisfitKind::WrongType { expected, found } => {
                let hint = value_hint(&(self.keys)(), &misfit.path, expected, found);
                let message = format!("`{path}` takes {expected}, found {found}");
                ConfigError::WrongType(self.diagnosis(place, message, hint))
            }
            MisfitKind::Refused { message } => {
                let (message, hint) = message.split_once("\nhint: ").unwrap_or((message, ""));
                let hint = match (hint.is_empty(), (self.keys)().example(&misfit.path)) {
                    (true, Some(example)) => format!("write for example `{}`", with_key(&misfit.path, &example)),
                    _ => hint.to_string(),
                };
                let place = if misfit.path.is_empty() { root.place.clone() } else { place };
                let message = if path.is_empty() { message.to_string() } else { format!("`{path}`: {message}") };
                ConfigError::Invalid(self.diagnosis(place, message, hint))
            }
        }
    }

    fn unknown_key(&self, key: &str, known: &[&str], misfit: &Misfit, place: Place) -> ConfigError {
        let within = match misfit.path.is_empty() {
            true => String::new(),
            false => format!(" in `{}`", misfit.path_text()),
        };
        let at_top = misfit.path.is_empty();
        let elsewhere = self.elsewhere.iter().find(|(name, _)| at_top && *name == key).map(|(_, hint)| *hint);
        let aliases = self.aliases.iter().filter(|_| at_top).map(|alias| alias.theirs);
        let keys = (self.keys)();
        // The documented names: serde also knows their other spellings.
        let documented = keys.names(&misfit.path).unwrap_or_default();
        let names = known.iter().copied().filter(|name| documented.is_empty() || documented.contains(name));
        let near = nearest(key, names.chain(aliases));
        let home = keys.homes(key, &misfit.path).into_iter().next();
        // Inside lists many names exist, so a slip is likelier.
        let home = home.filter(|home| near.is_none() || !home.contains("[]"));
        let hint = match (elsewhere, near, home) {
            (Some(hint), _, _) => hint.to_string(),
            (None, _, Some(home)) => match home.rsplit_once('.') {
                Some((block, key)) if block.contains("[]") => {
                    format!("`{key}` belongs into an item of `{}:`", block.replace("[]", ""))
                }
                Some((block, key)) => format!("`{key}` belongs under `{block}:`"),
                None => format!("`{home}` belongs at the top of the file, without indentation"),
            },
            (None, Some(near), None) => {
                let ours = self.aliases.iter().find(|alias| alias.theirs == near).map_or(near, |alias| alias.ours);
                let path = [misfit.path.clone(), vec![Step::Key(ours.to_string())]].concat();
                match keys.example(&path) {
                    Some(example) => {
                        format!("did you mean `{ours}`? Write for example `{}`", with_key(&path, &example))
                    }
                    None => format!("did you mean `{ours}`?"),
                }
            }
            (None, None, None) if known.len() <= MAX_LISTED_KEYS => {
                format!("delete the line; the keys here are {}", quoted_list(known))
            }
            (None, None, None) => "delete the line; `jazari schema` prints the keys that exist".into(),
        };
        let message = format!("unknown key `{}`{within}", shown(key));
        ConfigError::UnknownKey(self.diagnosis(place, message, hint))
    }
}

/// Splits `a.b."c.d"` at the dots outside quotes.
fn steps(text: &str) -> Option<Vec<String>> {
    let mut steps = vec![String::new()];
    let mut quoted = false;
    for c in text.trim().chars() {
        match c {
            '"' => quoted = !quoted,
            '.' if !quoted => steps.push(String::new()),
            _ => steps.last_mut()?.push(c),
        }
    }
    let sound = !quoted && steps.len() <= tree::MAX_DEPTH && steps.iter().all(|step| !step.trim().is_empty());
    sound.then_some(steps)
}

/// Puts `node` at the path, making blocks on the way; a number steps into a list.
fn insert(root: &mut Node, path: &[String], node: Node, place: &Place) -> Result<(), String> {
    let Some((key, rest)) = path.split_first() else {
        *root = node;
        return Ok(());
    };
    match &mut root.value {
        Value::Map(entries) => {
            let index = match entries.iter().position(|entry| entry.key == *key) {
                Some(index) => index,
                None => {
                    let empty = Node { value: Value::Map(Vec::new()), place: place.clone() };
                    entries.push(Entry { key: key.clone(), key_place: place.clone(), node: empty });
                    entries.len() - 1
                }
            };
            let Some(entry) = entries.get_mut(index) else { return Ok(()) };
            insert(&mut entry.node, rest, node, place)
        }
        Value::List(items) => {
            let len = items.len();
            let item = key.parse::<usize>().ok().and_then(|index| items.get_mut(index));
            match item {
                Some(item) => insert(item, rest, node, place),
                None => Err(format!("`{}` is not an item of a list of {len}, counted from 0", shown(key))),
            }
        }
        _ => Err(format!("`{}` stands under {}, which is not a block", shown(key), root.found())),
    }
}

#[cfg(test)]
#[path = "yaml_tests.rs"]
mod tests;
