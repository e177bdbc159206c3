//! Owns what a data card tells: statistics, sizes of shards, lengths of documents, removals; never formats.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use crate::dataset::DataError;
use crate::manifest::Manifest;
use crate::pii::AuditEntry;
use crate::prepare::PII_AUDIT_FILE;
use crate::removal::{Removal, read_log};
use crate::shard::reader::ShardReader;
use crate::stats::Stats;

/// Everything on a card.
pub(crate) struct CardFacts<'a> {
    pub stats: &'a Stats,
    pub manifest: &'a Manifest,
    /// Lengths of the documents of each language.
    pub lengths: BTreeMap<String, Lengths>,
    /// Figures of stages that this module knows nothing of: title and rows.
    pub extras: Vec<Extra>,
    /// How the data set was made, a sentence each.
    pub method: Vec<String>,
    /// What was taken down later.
    pub removals: Vec<Removal>,
}

/// A table of figures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Extra {
    pub title: String,
    pub rows: Vec<(String, String)>,
}

/// Lengths of documents in tokens, by powers of two.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Lengths {
    /// Documents of `2^i` up to `2^(i+1) - 1` tokens.
    pub buckets: [u64; BUCKETS],
    pub documents: u64,
    pub tokens: u64,
    pub longest: u64,
}

/// Lengths are below 2^31, see [`crate::shard::format`].
pub(crate) const BUCKETS: usize = 32;

impl Lengths {
    pub fn count(&mut self, tokens: u64) {
        let at = (u64::BITS - tokens.max(1).leading_zeros() - 1) as usize;
        if let Some(bucket) = self.buckets.get_mut(at.min(BUCKETS - 1)) {
            *bucket += 1;
        }
        self.documents += 1;
        self.tokens += tokens;
        self.longest = self.longest.max(tokens);
    }

    pub fn add(&mut self, other: &Self) {
        self.buckets.iter_mut().zip(other.buckets).for_each(|(sum, more)| *sum += more);
        self.documents += other.documents;
        self.tokens += other.tokens;
        self.longest = self.longest.max(other.longest);
    }

    /// Tokens of an average document.
    pub fn mean(&self) -> f64 {
        self.tokens as f64 / self.documents.max(1) as f64
    }
}

impl<'a> CardFacts<'a> {
    /// Gathers the facts of the data set in `dir`.
    ///
    /// # Errors
    /// Shards or logs that cannot be read.
    pub fn gather(
        dir: &Path,
        manifest: &'a Manifest,
        stats: &'a Stats,
        method: Vec<String>,
    ) -> Result<Self, DataError> {
        let mut lengths: BTreeMap<String, Lengths> = BTreeMap::new();
        for shard in &manifest.shards {
            let reader = ShardReader::open(dir, shard, manifest.dtype)?;
            let of_language = lengths.entry(shard.lang.clone()).or_default();
            for document in 0..shard.documents {
                let tokens = reader.document(document);
                of_language.count(tokens.end - tokens.start);
            }
        }
        let mut extras = extras(&serde_json::to_value(stats).unwrap_or_default());
        extras.extend(applied(stats));
        extras.extend(audit(dir)?);
        Ok(Self { stats, manifest, lengths, extras, method, removals: read_log(dir)? })
    }

    /// Lengths over all languages.
    pub fn all_lengths(&self) -> Lengths {
        let mut all = Lengths::default();
        self.lengths.values().for_each(|lengths| all.add(lengths));
        all
    }
}

/// Keys of the statistics that have a place of their own on the card.
const KNOWN: [&str; 15] = [
    "version",
    "total",
    "quarantined",
    "licences",
    "components",
    "files",
    "rows",
    "documents",
    "validation_documents",
    "bytes",
    "words",
    "train_tokens",
    "validation_tokens",
    "dropped",
    "id",
];

/// Tables for whatever else stages have counted, of the whole and in its total.
fn extras(stats: &Value) -> Vec<Extra> {
    let mut extras = Vec::new();
    for object in [stats.get("total"), Some(stats)].into_iter().flatten().filter_map(Value::as_object) {
        for (key, value) in object.iter().filter(|(key, _)| !KNOWN.contains(&key.as_str())) {
            let mut rows = Vec::new();
            flatten("", value, &mut rows);
            if !rows.is_empty() {
                extras.push(Extra { title: title(key), rows });
            }
        }
    }
    extras
}

/// What each stage changed or found, over all languages and sources: a table a stage.
fn applied(stats: &Stats) -> Vec<Extra> {
    let mut stages: BTreeMap<&str, BTreeMap<&str, u64>> = BTreeMap::new();
    for (rule, count) in stats.components.iter().flat_map(|component| &component.applied) {
        let (stage, name) = rule.split_once(':').unwrap_or(("", rule));
        *stages.entry(stage).or_default().entry(name).or_default() += count;
    }
    let table = |(stage, rules): (&str, BTreeMap<&str, u64>)| {
        let mut rules: Vec<_> = rules.into_iter().collect();
        rules.sort_by_key(|(name, count)| (std::cmp::Reverse(*count), *name));
        let title = match stage {
            "normalize" => "Changes by the normaliser".to_owned(),
            "repair" => "Repairs".to_owned(),
            "" => "Changes made to texts".to_owned(),
            other => title(other),
        };
        let rows = rules.into_iter().map(|(name, count)| (name.to_owned(), count.to_string())).collect();
        Extra { title, rows }
    };
    stages.into_iter().map(table).collect()
}

/// How many findings of personal data the audit file shows, by kind and language.
fn audit(dir: &Path) -> Result<Option<Extra>, DataError> {
    let path = dir.join(PII_AUDIT_FILE);
    let lines = match std::fs::read_to_string(&path) {
        Ok(lines) => lines,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(DataError::io(&path, "read")(error)),
    };
    let mut shown: BTreeMap<&str, BTreeMap<String, u64>> = BTreeMap::new();
    for entry in lines.lines().filter_map(|line| serde_json::from_str::<AuditEntry>(line).ok()) {
        *shown.entry(entry.kind.name()).or_default().entry(entry.lang).or_default() += 1;
    }
    let rows = shown.into_iter().map(|(kind, languages)| {
        let parts: Vec<String> = languages.iter().map(|(lang, count)| format!("{lang} {count}")).collect();
        (kind.to_owned(), parts.join(", "))
    });
    let rows: Vec<_> = rows.collect();
    let title = format!("Personal data shown, masked, in `{PII_AUDIT_FILE}`");
    Ok((!rows.is_empty()).then_some(Extra { title, rows }))
}

/// Rows of one table at most.
const MAX_ROWS: usize = 400;

fn flatten(path: &str, value: &Value, rows: &mut Vec<(String, String)>) {
    let below = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path} / {key}") };
    match value {
        _ if rows.len() >= MAX_ROWS => {}
        Value::Object(entries) => entries.iter().for_each(|(key, value)| flatten(&below(key), value, rows)),
        Value::Array(items) => {
            items.iter().zip(1..).for_each(|(item, number)| flatten(&below(&number.to_string()), item, rows));
        }
        Value::Null => {}
        Value::String(text) => rows.push((path.to_owned(), text.clone())),
        other => rows.push((path.to_owned(), other.to_string())),
    }
}

fn title(key: &str) -> String {
    match key {
        "pii" => "Personal data found".to_owned(),
        "changes" | "repairs" => "Changes made to texts".to_owned(),
        "stages" => "Stages".to_owned(),
        "signals" => "Quality signals".to_owned(),
        "clusters" | "near_duplicates" => "Near duplicates".to_owned(),
        other => {
            let spaced = other.replace('_', " ");
            let mut letters = spaced.chars();
            letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
        }
    }
}

/// What a drop belongs to, from its reason: `licence:X` and `opt_out:X` name their stage.
pub(crate) fn stage_of(reason: &str) -> &'static str {
    let head = reason.split([':', '.', '/']).next().unwrap_or(reason);
    match head {
        "licence" => "licence gate",
        "opt_out" => "opt-outs",
        "duplicate" => "exact duplicates",
        "pii" => "personal data",
        "taken_down" => "taken down later",
        "filter" | "filters" | "quality" => "quality filters",
        "near_duplicate" | "near" | "paragraph" | "paragraphs" | "boilerplate" => "near duplicates",
        "language" | "script" | "lid" | "unsure" => "language identification",
        "repair" | "garbage" | "unreadable" => "repair",
        "contaminated" | "contamination" | "decontaminate" | "benchmark" => "decontamination",
        _ => "reading",
    }
}

/// What people call a language and its script, in its own words and in English; empty for other labels.
pub(crate) fn language_name(label: &str) -> (&'static str, &'static str) {
    match label {
        "ary_Arab" => ("الدارجة المغربية", "Moroccan Arabic, Arabic script"),
        "ary_Latn" => ("Darija", "Moroccan Arabic, Latin script"),
        "arq_Latn" => ("Darja", "Algerian Arabic, Latin script"),
        "arb_Arab" => ("العربية", "Standard Arabic"),
        "mey_Arab" => ("الحسانية", "Hassaniya"),
        "zgh_Tfng" => ("ⵜⴰⵎⴰⵣⵉⵖⵜ", "Standard Moroccan Amazigh, Tifinagh"),
        "tzm_Tfng" => ("ⵜⴰⵎⴰⵣⵉⵖⵜ", "Central Atlas Amazigh, Tifinagh"),
        "tzm_Latn" => ("Tamaziɣt", "Central Atlas Amazigh, Latin script"),
        "shi_Tfng" => ("ⵜⴰⵛⵍⵃⵉⵜ", "Tashelhit, Tifinagh"),
        "shi_Latn" => ("Taclḥit", "Tashelhit, Latin script"),
        "rif_Latn" => ("Tarifit", "Tarifit, Latin script"),
        "kab_Latn" => ("Taqbaylit", "Kabyle"),
        "fra_Latn" => ("Français", "French"),
        "spa_Latn" => ("Español", "Spanish"),
        "eng_Latn" => ("English", "English"),
        "und_Zzzz" => ("", "not known"),
        _ => ("", ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn lengths_fall_into_powers_of_two() {
        let mut lengths = Lengths::default();
        [1, 2, 3, 4, 1023, 1024, u64::MAX >> 1].into_iter().for_each(|n| lengths.count(n));
        assert_eq!(lengths.buckets.get(..3), Some(&[1, 2, 1][..]));
        assert_eq!((lengths.buckets[9], lengths.buckets[10], lengths.buckets[31]), (1, 1, 1));
        assert_eq!(lengths.documents, 7);
    }

    #[test]
    fn figures_of_unknown_stages_become_tables() {
        let stats = json!({
            "version": 1, "quarantined": 0,
            "total": {"rows": 3, "pii": {"email": 2, "phone": {"kept": 1}}},
            "near_duplicates": {"clusters": 4}, "empty": {}, "none": null,
        });
        let tables = extras(&stats);
        let titles: Vec<&str> = tables.iter().map(|extra| extra.title.as_str()).collect();
        assert_eq!(titles, ["Personal data found", "Near duplicates"]);
        assert_eq!(tables[0].rows, [("email".to_owned(), "2".to_owned()), ("phone / kept".to_owned(), "1".to_owned())]);
        assert_eq!(stage_of("licence:MIT"), "licence gate");
        assert_eq!(stage_of("invalid_json"), "reading");
    }
}
