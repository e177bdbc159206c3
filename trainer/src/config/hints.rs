//! Owns what to write instead of a value or key that did not fit; never reads a configuration.

use super::de::{Step, quoted_list};
use super::keys::{Keys, nearest};

/// What to write where a word was none of the `known` ones.
pub(super) fn choice_hint(
    keys: &Keys,
    misnomers: &[(&str, &str, &str)],
    path: &[Step],
    value: &str,
    known: &[&str],
) -> String {
    let lower = value.to_lowercase();
    if let Some((_, _, hint)) = misnomers.iter().find(|(key, name, _)| *key == last_key(path) && *name == lower) {
        return (*hint).to_owned();
    }
    match (nearest(value, known.iter().copied()), keys.default(path)) {
        (Some(near), _) => format!("write `{}`", with_key(path, near)),
        (None, Some(default)) => format!("write one of these, or delete the line to get `{default}`"),
        (None, None) => format!("write one of {}", quoted_list(known)),
    }
}

/// What to add where a key is missing; `path` ends in it.
pub(super) fn missing_hint(keys: &Keys, path: &[Step], key: &str) -> String {
    match keys.example(path) {
        Some(example) => format!("add it, for example `{key}: {example}`"),
        None => format!("add a `{key}:` block"),
    }
}

/// What to write where `found` stands, and `expected` should.
pub(super) fn value_hint(keys: &Keys, path: &[Step], expected: &str, found: &str) -> String {
    let nothing = found == "nothing";
    if keys.is_optional_block(path) && (nothing || matches!(found, "`true`" | "`false`")) {
        let or = if nothing || found == "`false`" { ", or delete the line to go without" } else { "" };
        return format!("write `{}` for its defaults{or}", with_key(path, "{}"));
    }
    if let Some(bytes) = found.strip_prefix("the text `").and_then(|text| bytes(text.trim_end_matches('`'))) {
        return format!("write it without a unit: `{}`", with_key(path, &bytes.to_string()));
    }
    if let ("a list", Some(text)) = (expected, found.strip_prefix("the text `")) {
        return format!("put it in brackets: `{}`", with_key(path, &format!("[{}]", text.trim_end_matches('`'))));
    }
    match (keys.example(path), nothing) {
        (Some(example), true) => format!("write for example `{}: {example}`, or delete the line", last_key(path)),
        (Some(example), false) => format!("write for example `{}`", with_key(path, &example)),
        (None, true) => "write a value, or delete the line to get the default".to_owned(),
        (None, false) => format!("write {expected}"),
    }
}

/// The bytes of `4 GiB`, `512MB`.
fn bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at_checked(end)?;
    let power = match unit.trim().to_lowercase().as_str() {
        "k" | "kb" => 1000,
        "m" | "mb" => 1_000_000,
        "g" | "gb" => 1_000_000_000,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(power)
}

/// The last named key of a path, which an example line starts with.
fn last_key(path: &[Step]) -> &str {
    path.iter()
        .rev()
        .find_map(|step| match step {
            Step::Key(key) => Some(key.as_str()),
            Step::Index(_) => None,
        })
        .unwrap_or("key")
}

/// `key: example`, or `- example` for an item of a list.
pub(super) fn with_key(path: &[Step], example: &str) -> String {
    match path.last() {
        Some(Step::Index(_)) => format!("- {example}"),
        _ => format!("{}: {example}", last_key(path)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_with_units_are_told_in_bytes() {
        assert_eq!(bytes("4 GiB"), Some(4 << 30));
        assert_eq!(bytes("500kb"), Some(500_000));
        for text in ["", "4", "GiB", "4 apples", "99999999999 GiB"] {
            assert_eq!(bytes(text), None, "{text}");
        }
    }
}
