//! Owns bringing a training configuration to the version and the names of this program, comments and layout included;
//! never changes what it says: the new text is read and compared before anybody sees it.

use std::path::Path;

use serde_json::Value as Json;

use super::alias::{self, Alias, Carry};
use super::check::CONFIG_VERSION;
use super::error::{ConfigError, Diagnosis, Note, Place};
use super::raw::RawConfig;
use super::tree::{self, Entry, Node, Value};
use super::yaml;

/// What became of a file.
#[derive(Debug, Clone)]
pub struct Migrated {
    /// The file's new text.
    pub text: String,
    /// What was changed, and what another tool's form was left as it is, in the order of the file.
    pub notes: Vec<Note>,
    /// Whether the text differs from the old one.
    pub is_changed: bool,
}

/// A piece of a line that is replaced: line and column from 1, what stands there, what comes instead.
struct Edit {
    line: u64,
    column: u64,
    old: String,
    new: String,
}

/// Brings the text of a training configuration up to date: other tools' names become ours, and the version is written
/// down. `path` is what errors call it. A data configuration has no versions and comes back as it is.
///
/// # Errors
/// The text is not a configuration that this program can read, with the place and what to write.
pub fn migrate(path: &Path, text: &str) -> Result<Migrated, ConfigError> {
    let (mark, body) = text.strip_prefix('\u{feff}').map_or(("", text), |body| ("\u{feff}", body));
    let unchanged = || Migrated { text: text.to_owned(), notes: Vec::new(), is_changed: false };
    let Ok(Node { value: Value::Map(entries), .. }) = tree::parse(body) else {
        // Read again for the error.
        return yaml::parse::<RawConfig>(path, body, &[]).map(|_| unchanged());
    };
    if entries.iter().any(|entry| entry.key == "sources") {
        return yaml::parse::<data_pipeline::config::PrepareConfig>(path, body, &[]).map(|_| unchanged());
    }
    let version = format!("config_version={CONFIG_VERSION}");
    let has_version = entries.iter().any(|entry| entry.key == "config_version");
    let implied: &[String] = if has_version { &[] } else { std::slice::from_ref(&version) };
    let before = meaning(path, body, implied)?;
    let (mut edits, mut notes) = renames(body, &entries);
    if !has_version {
        edits.extend(version_line(body, &entries));
        let text = format!("`config_version: {CONFIG_VERSION}` is written down");
        notes.push(Note { file: None, place: Place::File, text });
    }
    let new = applied(body, edits);
    let is_same = meaning(path, &new, &[]).is_ok_and(|after| after == before);
    if !is_same {
        let message = "cannot be brought up to date by machine: its layout is too unusual".to_owned();
        let hint = "write the keys one a line, `key: value`, and try again".to_owned();
        let file = Some(path.to_owned());
        return Err(ConfigError::Syntax(Box::new(Diagnosis { file, place: Place::File, message, hint })));
    }
    for note in &mut notes {
        note.file = Some(path.to_owned());
    }
    Ok(Migrated { is_changed: new != body, text: format!("{mark}{new}"), notes })
}

/// Every value of a configuration, whatever names and layout it is written with.
fn meaning(path: &Path, text: &str, overrides: &[String]) -> Result<Json, ConfigError> {
    let (config, _) = yaml::parse::<RawConfig>(path, text, overrides)?;
    Ok(serde_json::to_value(config).unwrap_or_default())
}

/// Other tools' names and the values that go with them.
fn renames(text: &str, entries: &[Entry]) -> (Vec<Edit>, Vec<Note>) {
    let (mut edits, mut notes) = (Vec::new(), Vec::new());
    for entry in entries {
        let Some(alias) = alias::TRAINING.iter().find(|alias| alias.theirs == entry.key) else { continue };
        let new_value = carried(alias, &entry.node.value);
        if alias.theirs == alias.ours && new_value.is_none() {
            continue;
        }
        let place = entry.key_place.clone();
        let is_twice = alias.theirs != alias.ours && entries.iter().any(|other| other.key == alias.ours);
        let (key, value) =
            (token(text, &place), new_value.and_then(|new| Some((token(text, &entry.node.place)?, new))));
        let said = match (is_twice, key, alias.value) {
            (false, Some(key), Carry::Same | Carry::Sequences | Carry::Bf16Switch | Carry::RecomputeSwitch)
                if key.old == alias.theirs =>
            {
                edits.push(Edit { new: alias.ours.to_owned(), ..key });
                let shown = value.as_ref().map(|(_, new)| format!(": {new}")).unwrap_or_default();
                edits.extend(value.map(|(value, new)| Edit { new, ..value }));
                format!("`{}` becomes `{}{shown}`", alias.theirs, alias.ours)
            }
            (true, ..) => format!("`{}` stays: `{}` says the same; delete one of them", alias.theirs, alias.ours),
            _ => format!("`{}` stays as it is: it is read as `{}`", alias.theirs, alias.ours),
        };
        notes.push(Note { file: None, place, text: said });
    }
    (edits, notes)
}

/// The new value, where it is not the old one.
fn carried(alias: &Alias, value: &Value) -> Option<String> {
    match (alias.value, value) {
        (Carry::Sequences, Value::Int(count)) => Some(format!("{count} seq")),
        (Carry::Bf16Switch, Value::Bool(on)) => Some(if *on { "bf16-mixed" } else { "fp32" }.into()),
        (Carry::RecomputeSwitch, Value::Bool(on)) => Some(if *on { "block" } else { "none" }.into()),
        _ => None,
    }
}

/// The word at a place, unquoted.
fn token(text: &str, place: &Place) -> Option<Edit> {
    let Place::Line { line, column } = *place else { return None };
    let content = text.lines().nth(usize::try_from(line).ok()?.checked_sub(1)?)?;
    let rest = content.chars().skip(usize::try_from(column).ok()?.checked_sub(1)?);
    let old: String = rest.take_while(|c| c.is_alphanumeric() || *c == '_' || *c == '-').collect();
    (!old.is_empty()).then(|| Edit { line, column, old, new: String::new() })
}

/// Where the version goes: before the first key.
fn version_line(text: &str, entries: &[Entry]) -> Option<Edit> {
    let Place::Line { line, column } = entries.first()?.key_place else { return None };
    let first = text.split_inclusive('\n').nth(usize::try_from(line).ok()?.checked_sub(1)?)?;
    let end = match (first.trim_start().starts_with('{'), first.ends_with("\r\n")) {
        (true, _) => ", ",
        (false, true) => "\r\n",
        (false, false) => "\n",
    };
    Some(Edit { line, column, old: String::new(), new: format!("config_version: {CONFIG_VERSION}{end}") })
}

fn applied(text: &str, mut edits: Vec<Edit>) -> String {
    edits.sort_by_key(|edit| (edit.line, edit.column, !edit.old.is_empty()));
    let mut new = String::with_capacity(text.len() + 32);
    for (line, number) in text.split_inclusive('\n').zip(1u64..) {
        let mut rest = line.chars();
        let mut column = 1;
        for edit in edits.iter().filter(|edit| edit.line == number) {
            let upto = usize::try_from(edit.column.saturating_sub(column)).unwrap_or(usize::MAX);
            new.extend(rest.by_ref().take(upto));
            new.push_str(&edit.new);
            rest.by_ref().take(edit.old.chars().count()).for_each(drop);
            column = edit.column + edit.old.chars().count() as u64;
        }
        new.extend(rest);
    }
    new
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const OLD: &str = "\
# A recipe from elsewhere.
model: {size: 10m}      # comments stay
datasets: [{path: data}]
out_dir: runs/x
seq_len: 256            # tokens
train_batch_size: 32    # sequences
bf16: false
  # odd indentation of a comment
activation_checkpointing: true
max_steps: 10
lr: 1.0e-3
";

    fn done(text: &str) -> Migrated {
        migrate(Path::new("recipe.yaml"), text).unwrap()
    }

    #[test]
    fn names_values_and_the_version_change_and_nothing_else() {
        let migrated = done(OLD);
        let expected = "\
# A recipe from elsewhere.
config_version: 1
model: {size: 10m}      # comments stay
datasets: [{path: data}]
output_dir: runs/x
sequence_len: 256            # tokens
global_batch_size: 32 seq    # sequences
precision: fp32
  # odd indentation of a comment
gradient_checkpointing: block
max_steps: 10
learning_rate: 1.0e-3
";
        assert_eq!(migrated.text, expected);
        assert!(migrated.is_changed);
        let said: Vec<String> = migrated.notes.iter().map(ToString::to_string).collect();
        assert_eq!(said.len(), 7, "{said:?}");
        assert!(said[2].contains("recipe.yaml:6:1") && said[2].contains("`global_batch_size: 32 seq`"), "{said:?}");
        // Doing it again changes nothing.
        let again = done(&migrated.text);
        assert!(!again.is_changed && again.notes.is_empty() && again.text == expected);
    }

    #[test]
    fn flow_marks_line_ends_and_what_cannot_be_carried() {
        let flow = "\u{feff}{datasets: [{path: d}], model: {size: 10m}, output_dir: o, lr: 1.0e-3, seq_len: 64, max_steps: 1, global_batch_size: 8 seq}\r\n";
        let migrated = done(flow);
        assert!(migrated.text.starts_with("\u{feff}{config_version: 1, datasets: "), "{}", migrated.text);
        assert!(migrated.text.contains("learning_rate: 1.0e-3, sequence_len: 64,") && migrated.text.ends_with("\r\n"));
        // Line ends stay what they are.
        let windows = OLD.replace('\n', "\r\n");
        let migrated = done(&windows);
        assert_eq!(migrated.text.matches("\r\n").count(), migrated.text.matches('\n').count(), "{:?}", migrated.text);
        // A list under `mixture` and a name that is written twice are valid, and stay.
        let base = OLD.replace("lr: 1.0e-3", "lr: 1.0e-3\nlearning_rate: 1.0e-3");
        let migrated = done(&base);
        assert!(migrated.text.contains("\nlr: 1.0e-3\nlearning_rate: 1.0e-3\n"), "{}", migrated.text);
        assert!(migrated.notes.iter().any(|note| note.text.contains("delete one of them")));
        let quoted = OLD.replace("lr: 1", "\"lr\": 1");
        let migrated = done(&quoted);
        assert!(migrated.text.contains("\n\"lr\": 1.0e-3\n"), "{}", migrated.text);
    }

    #[test]
    fn every_alias_of_a_plain_value_is_brought_over() {
        for alias in alias::TRAINING.iter().filter(|alias| alias.theirs != alias.ours && alias.value == Carry::Same) {
            let entry = |key: &str| Entry {
                key: key.into(),
                key_place: Place::Line { line: 1, column: 1 },
                node: Node { value: Value::Int(1), place: Place::Line { line: 1, column: key.len() as u64 + 3 } },
            };
            let text = format!("{}: 1\n", alias.theirs);
            let (edits, _) = renames(&text, &[entry(alias.theirs)]);
            assert_eq!(applied(&text, edits), format!("{}: 1\n", alias.ours));
        }
    }

    #[test]
    fn later_versions_mistakes_and_data_configurations() {
        let later = migrate(Path::new("r.yaml"), "config_version: 2\nnew_key: 1\n").unwrap_err().to_string();
        assert!(later.contains("r.yaml:1:17: `config_version: 2` is of a later Jazari"), "{later}");
        let typo = migrate(Path::new("r.yaml"), &OLD.replace("max_steps", "max_stepz")).unwrap_err().to_string();
        assert!(typo.contains("r.yaml:10:1: unknown key `max_stepz`"), "{typo}");
        let data = "sources: [{path: x.jsonl, licence: CC0-1.0, lang: fra_Latn}]\noutput_dir: d\nallow_licences: [CC0-1.0]\ntokenizer: {train: {vocab_size: 300}}\n";
        assert!(!done(data).is_changed);
    }
}
