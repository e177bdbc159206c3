//! Owns what a configuration's JSON Schema knows about its keys: where a key belongs and an example of its value;
//! never reads a configuration.

use serde_json::Value;

use super::de::Step;

/// Least similarity (0 to 1, Damerau-Levenshtein over the longer name) at which a known key is suggested for an
/// unknown one. At 0.6 two slips in five letters are still forgiven.
const MIN_SIMILARITY: f64 = 0.6;
/// Deepest nesting of blocks that a key is searched in; also ends the walk of a recursive schema.
const MAX_SEARCH_DEPTH: usize = 4;

/// The JSON Schema of one kind of configuration, without the nulls that serde would take for an absent value: a key
/// without a value is an error here.
pub(crate) fn schema_of<T: schemars::JsonSchema>() -> Value {
    let mut schema = schemars::schema_for!(T).to_value();
    remove_nulls(&mut schema);
    schema
}

fn remove_nulls(node: &mut Value) {
    if let Value::Array(items) = node {
        items.iter_mut().for_each(remove_nulls);
    }
    let Value::Object(entries) = node else { return };
    if let Some(Value::Array(kinds)) = entries.get_mut("type") {
        kinds.retain(|kind| kind != "null");
        if let [kind] = kinds.as_slice() {
            let kind = kind.clone();
            entries.insert("type".into(), kind);
        }
    }
    if let Some(Value::Array(choices)) = entries.get_mut("anyOf") {
        choices.retain(|choice| choice.get("type").is_none_or(|kind| kind != "null"));
        if let [Value::Object(only)] = choices.as_slice() {
            let only = only.clone();
            entries.shift_remove("anyOf");
            for (key, value) in only {
                entries.entry(key).or_insert(value);
            }
        }
    }
    entries.values_mut().for_each(remove_nulls);
}

/// What a configuration's schema can be asked.
pub(crate) struct Keys {
    root: Value,
}

impl Keys {
    pub fn of<T: schemars::JsonSchema>() -> Self {
        Keys { root: schema_of::<T>() }
    }

    /// An example of the value at a key path, as YAML would spell it in one line; where there is none its default.
    pub fn example(&self, path: &[Step]) -> Option<String> {
        let node = self.at(path)?;
        // An example beside the reference is about this key; one inside the referenced type is about any such value.
        let examples = node.get("examples").or_else(|| self.resolve(node).get("examples"));
        let written = examples.and_then(|examples| examples.get(0));
        written.or_else(|| node.get("default").filter(|value| value.is_number() || value.is_string())).map(flow)
    }

    /// The default of the value at a key path, when it is a word or a number.
    pub fn default(&self, path: &[Step]) -> Option<String> {
        self.at(path)?.get("default").filter(|value| value.is_number() || value.is_string()).map(flow)
    }

    /// Whether a key path holds a block whose keys may all be left out.
    pub fn is_optional_block(&self, path: &[Step]) -> bool {
        let Some(node) = self.at(path).map(|node| self.resolve(node)) else { return false };
        node.get("properties").is_some() && node.get("required").is_none()
    }

    /// The keys of the block at a path as the documentation spells them, without aliases.
    pub fn names(&self, path: &[Step]) -> Option<Vec<&str>> {
        let properties = self.resolve(self.at(path)?).get("properties")?.as_object()?;
        Some(properties.keys().map(String::as_str).collect())
    }

    fn at(&self, path: &[Step]) -> Option<&Value> {
        path.iter().try_fold(&self.root, |node, step| self.child(node, step))
    }

    /// The full paths at which a key of this name exists, other than directly under `path`; those inside lists, which
    /// have `[]` in them, last.
    pub fn homes(&self, key: &str, path: &[Step]) -> Vec<String> {
        let mut found = Vec::new();
        self.search(&self.root, "", key, 0, &mut found);
        // An item of a list is named without its number, as `search` names it.
        let here: String = path.iter().fold(String::new(), |here, step| match step {
            Step::Key(key) => super::tree::join(&here, key),
            Step::Index(_) => format!("{here}[]"),
        });
        let here = super::tree::join(&here, key);
        found.retain(|home| *home != here);
        let depth = |home: &String| if home.contains("[]") { 1 + home.matches('.').count() } else { 0 };
        found.sort_by_key(depth);
        found
    }

    fn search(&self, node: &Value, prefix: &str, key: &str, depth: usize, found: &mut Vec<String>) {
        let Some(properties) = self.resolve(node).get("properties").and_then(Value::as_object) else { return };
        for (name, property) in properties {
            let path = super::tree::join(prefix, name);
            if name == key {
                found.push(path.clone());
            }
            if depth < MAX_SEARCH_DEPTH {
                self.search(property, &path, key, depth + 1, found);
                if let Some(items) = self.resolve(property).get("items") {
                    self.search(items, &format!("{path}[]"), key, depth + 1, found);
                }
            }
        }
    }

    fn child<'a>(&'a self, node: &'a Value, step: &Step) -> Option<&'a Value> {
        let node = self.resolve(node);
        match step {
            Step::Key(key) => {
                let named = node.get("properties").and_then(|properties| properties.get(key));
                named.or_else(|| node.get("additionalProperties").filter(|value| value.is_object()))
            }
            Step::Index(_) => node.get("items").filter(|value| value.is_object()),
        }
    }

    /// Follows `$ref`.
    fn resolve<'a>(&'a self, node: &'a Value) -> &'a Value {
        let reference = node.get("$ref").and_then(Value::as_str).and_then(|text| text.strip_prefix('#'));
        reference.and_then(|pointer| self.root.pointer(pointer)).unwrap_or(node)
    }
}

/// The known name nearest to `name`, if any is near enough to be what was meant.
pub(crate) fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let plain = |text: &str| text.to_lowercase().replace('-', "_");
    let name = plain(name);
    known
        .into_iter()
        .map(|candidate| (strsim::normalized_damerau_levenshtein(&name, &plain(candidate)), candidate))
        .filter(|(similarity, _)| *similarity >= MIN_SIMILARITY)
        .max_by(|(left, _), (right, _)| left.total_cmp(right))
        .map(|(_, candidate)| candidate)
}

/// A JSON value as YAML in one line.
fn flow(value: &Value) -> String {
    match value {
        Value::Array(items) => format!("[{}]", items.iter().map(flow).collect::<Vec<_>>().join(", ")),
        Value::Object(entries) => {
            let inner: Vec<String> = entries.iter().map(|(key, value)| format!("{key}: {}", flow(value))).collect();
            format!("{{{}}}", inner.join(", "))
        }
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::super::raw::RawConfig;
    use super::*;

    fn keys(names: &[&str]) -> Vec<Step> {
        names.iter().map(|name| Step::Key((*name).into())).collect()
    }

    #[test]
    fn examples_are_found_at_every_depth() {
        let schema = Keys::of::<RawConfig>();
        assert_eq!(schema.example(&keys(&["learning_rate"])).as_deref(), Some("0.0006"));
        assert_eq!(schema.example(&keys(&["model", "rope_scaling", "factor"])).as_deref(), Some("8.0"));
        assert_eq!(schema.example(&keys(&["global_batch_size"])).as_deref(), Some("32 seq"));
        assert_eq!(schema.example(&keys(&["mixture", "weights"])).as_deref(), Some("{ary_Arab: 2.0}"));
        let path = [keys(&["datasets"]), vec![Step::Index(0)], keys(&["path"])].concat();
        assert_eq!(schema.example(&path).as_deref(), Some("data/moroccan"));
        assert_eq!(schema.example(&keys(&["nonsense"])), None);
    }

    #[test]
    fn a_misplaced_key_is_found() {
        let schema = Keys::of::<RawConfig>();
        assert_eq!(schema.homes("rope_theta", &[]), ["model.rope_theta"]);
        assert_eq!(schema.homes("seed", &keys(&["model"])), ["seed"]);
        assert!(schema.homes("seed", &[]).is_empty());
    }

    #[test]
    fn every_scalar_key_has_an_example() {
        let schema = Keys::of::<RawConfig>();
        for (name, property) in schema.root["properties"].as_object().unwrap() {
            let is_block = schema.resolve(property).get("properties").is_some();
            assert!(is_block || schema.example(&keys(&[name])).is_some(), "{name}");
        }
    }

    #[test]
    fn slips_are_forgiven_and_strangers_are_not() {
        let known = ["learning_rate", "lr_scheduler", "eps", "seed"];
        assert_eq!(nearest("learning_rte", known), Some("learning_rate"));
        assert_eq!(nearest("Learning-Rate", known), Some("learning_rate"));
        assert_eq!(nearest("sead", known), Some("seed"));
        assert_eq!(nearest("tensor_parallel", known), None);
    }
}
