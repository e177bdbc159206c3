//! Owns identification as a stage over rows (`jazari data identify`): which fields it writes and what it counts; never
//! touches files.

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};

use super::{Identification, Identifier};
use crate::filter::{Counts, Edits, Outcome, Row, Stage};

/// Identifies the text of every row.
#[derive(Debug)]
pub struct IdentifyStage<'m> {
    identifier: &'m Identifier,
    spans: bool,
}

impl<'m> IdentifyStage<'m> {
    /// A stage that asks `identifier`; `spans` writes the spans of every text, not only of mixed ones.
    pub fn new(identifier: &'m Identifier, spans: bool) -> Self {
        IdentifyStage { identifier, spans }
    }

    fn fields(&self, found: &Identification, row: &Row<'_>) -> Vec<(String, Json)> {
        let label = found.document_label();
        let mut fields = Vec::from(row.label_fields(&label));
        fields.extend([
            ("lid_score".to_owned(), json!(rounded(found.score))),
            ("lid_margin".to_owned(), json!(rounded(found.margin))),
            ("lid_sure".to_owned(), json!(found.sure)),
        ]);
        let with = found.with(0.05);
        if !with.is_empty() {
            let shares: serde_json::Map<String, Json> =
                with.iter().map(|(label, share)| (label.clone(), json!(rounded(*share)))).collect();
            fields.push(("lid_with".to_owned(), Json::Object(shares)));
        }
        if self.spans || !with.is_empty() {
            let spans: Vec<Json> = found
                .spans
                .iter()
                .map(|s| json!({"start": s.start, "end": s.end, "lang": s.label, "share": rounded(s.share)}))
                .collect();
            fields.push(("lid_spans".to_owned(), Json::Array(spans)));
        }
        if let Some(given) = row.label().filter(|given| *given != label) {
            fields.push(("lid_given".to_owned(), json!(given)));
        }
        fields
    }
}

impl Stage for IdentifyStage<'_> {
    fn apply(&self, row: &Row<'_>, counts: &mut Counts) -> Outcome {
        let found = self.identifier.identify(row.text);
        count(counts, row, &found);
        Outcome::Keep(Edits { text: None, set: self.fields(&found, row) })
    }
}

fn rounded(value: f32) -> f64 {
    (f64::from(value) * 1000.0).round() / 1000.0
}

fn count(counts: &mut Counts, row: &Row<'_>, found: &Identification) {
    counts.add(&format!("label {}", found.label), 1);
    if !found.sure {
        counts.add(&format!("unsure {}", found.label), 1);
    }
    for (with, _) in found.with(0.1) {
        counts.add(&format!("mixed {} with {with}", found.label), 1);
    }
    if let Some(given) = row.label() {
        counts.add(&format!("given {given} -> {}", found.label), 1);
    }
}

/// A table of what was counted: texts by label, how many of them unsure, and what the rows said.
pub fn summary(counts: &Counts) -> String {
    let of = |prefix: &str| -> BTreeMap<&str, u64> {
        counts.0.iter().filter_map(|(name, n)| Some((name.strip_prefix(prefix)?, *n))).collect()
    };
    let (labels, unsure, mixed, given) = (of("label "), of("unsure "), of("mixed "), of("given "));
    let total: u64 = labels.values().sum();
    let mut lines = vec!["| label | texts | share | unsure |".to_owned(), "|---|---|---|---|".to_owned()];
    let mut ranked: Vec<(&str, u64)> = labels.into_iter().collect();
    ranked.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
    for (label, texts) in ranked {
        let share = 100.0 * texts as f64 / total.max(1) as f64;
        let unsure = unsure.get(label).copied().unwrap_or(0);
        lines.push(format!("| {label} | {texts} | {share:.2} % | {unsure} |"));
    }
    for (title, of) in [("mixed", mixed), ("given -> found", given)] {
        if !of.is_empty() {
            lines.push(String::new());
            lines.push(format!("| {title} | texts |"));
            lines.push("|---|---|".to_owned());
            lines.extend(of.into_iter().map(|(name, texts)| format!("| {name} | {texts} |")));
        }
    }
    lines.join("\n")
}
