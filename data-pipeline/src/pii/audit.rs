//! Owns a small sample of findings with masked values, by which a person can judge what was replaced; never holds a value.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::Finding;
use super::kind::Kind;

/// Languages with a sample of their own; of more, those whose labels come first.
const MAX_LANGUAGES: usize = 64;
/// Characters of text shown on either side of a finding.
const CONTEXT_CHARS: usize = 40;

/// One finding as the audit file shows it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct AuditEntry {
    /// What was found.
    pub kind: Kind,
    /// Language of the document, as far as it is known.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub lang: String,
    /// Identifier of the document.
    pub document: String,
    /// The text around it; digits of findings are `#`, letters `x`.
    pub context: String,
}

/// Findings chosen by a hash of their document and place: the same documents give the same sample, in any order and
/// however they are shared out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditSample {
    per_kind: usize,
    /// By kind and language, ranked.
    chosen: BTreeMap<Kind, BTreeMap<String, BTreeSet<(u64, AuditEntry)>>>,
}

impl AuditSample {
    /// An empty sample of at most `per_kind` findings of each kind and language.
    pub fn new(per_kind: u32) -> AuditSample {
        AuditSample { per_kind: per_kind as usize, chosen: BTreeMap::new() }
    }

    /// Takes the findings of a document into account. `text` is what they were found in; `lang` may be empty.
    pub fn add(&mut self, document: &str, lang: &str, text: &str, findings: &[Finding]) {
        if self.per_kind == 0 {
            return;
        }
        for (at, finding) in findings.iter().enumerate() {
            let rank = rank(document, finding.range.start);
            let chosen = self.chosen.entry(finding.kind).or_default().entry(lang.to_owned()).or_default();
            if chosen.len() >= self.per_kind && chosen.last().is_some_and(|(last, _)| *last <= rank) {
                continue;
            }
            let (document, lang, context) = (document.to_owned(), lang.to_owned(), masked(text, findings, at));
            chosen.insert((rank, AuditEntry { kind: finding.kind, lang, document, context }));
        }
        self.bound();
    }

    /// Forgets what is too much. What is left does not depend on the order in which findings came.
    fn bound(&mut self) {
        for languages in self.chosen.values_mut() {
            while languages.len() > MAX_LANGUAGES {
                languages.pop_last();
            }
            for chosen in languages.values_mut() {
                while chosen.len() > self.per_kind {
                    chosen.pop_last();
                }
            }
        }
    }

    /// Joins the sample of other documents.
    pub fn merge(&mut self, other: AuditSample) {
        self.per_kind = self.per_kind.max(other.per_kind);
        for (kind, languages) in other.chosen {
            let own = self.chosen.entry(kind).or_default();
            for (lang, entries) in languages {
                own.entry(lang).or_default().extend(entries);
            }
        }
        self.bound();
    }

    /// The sample, by kind and language.
    pub fn entries(&self) -> impl Iterator<Item = &AuditEntry> {
        self.chosen.values().flat_map(BTreeMap::values).flatten().map(|(_, entry)| entry)
    }

    /// The sample as lines of JSON.
    pub fn to_lines(&self) -> Vec<u8> {
        // Plain data always has a JSON form.
        let line = |entry| serde_json::to_string(entry).unwrap_or_default() + "\n";
        self.entries().map(line).collect::<String>().into_bytes()
    }
}

fn rank(document: &str, start: usize) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(document.as_bytes());
    hasher.update(&start.to_le_bytes());
    let mut bytes = [0; 8];
    hasher.finalize_xof().fill(&mut bytes);
    u64::from_le_bytes(bytes)
}

/// The text around a finding in one line, with every finding in it masked.
fn masked(text: &str, findings: &[Finding], at: usize) -> String {
    let Some(range) = findings.get(at).map(|finding| finding.range.clone()) else { return String::new() };
    let before = text.get(..range.start).unwrap_or_default();
    let start = before.char_indices().rev().nth(CONTEXT_CHARS - 1).map_or(0, |(at, _)| at);
    let behind = text.get(range.end..).unwrap_or_default();
    let end = range.end + behind.char_indices().nth(CONTEXT_CHARS).map_or(behind.len(), |(at, _)| at);
    let mut out = String::new();
    let near = findings.iter().skip(at.saturating_sub(CONTEXT_CHARS)).take(2 * CONTEXT_CHARS);
    let near: Vec<_> = near.map(|finding| finding.range.clone()).collect();
    for (offset, c) in text.get(start..end).unwrap_or_default().char_indices() {
        let hidden = near.iter().any(|range| range.contains(&(start + offset)));
        out.push(match c {
            c if c.is_control() => ' ',
            c if hidden && c.is_numeric() => '#',
            c if hidden && c.is_alphabetic() => 'x',
            c => c,
        });
    }
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::{PiiConfig, Scrubber};
    use super::*;

    #[test]
    fn samples_do_not_depend_on_order_or_sharing_and_show_no_value() {
        let scrubber = Scrubber::new(&PiiConfig::default());
        let texts: Vec<String> =
            (0..30).map(|i| format!("Tél : 06 61 23 45 {i:02}\nou sara{i}@gmail.com, merci")).collect();
        let lang = |i: usize| if i.is_multiple_of(3) { "fra_Latn" } else { "ary_Latn" };
        let mut all = AuditSample::new(5);
        let mut parts = [AuditSample::new(5), AuditSample::new(5)];
        for (i, text) in texts.iter().enumerate() {
            let findings = scrubber.find(text);
            assert_eq!(findings.len(), 2, "{text}");
            all.add(&i.to_string(), lang(i), text, &findings);
        }
        for (i, text) in texts.iter().enumerate().rev() {
            parts[i % 2].add(&i.to_string(), lang(i), text, &scrubber.find(text));
        }
        let [mut one, two] = parts;
        one.merge(two);
        let shown: Vec<_> = all.entries().cloned().collect();
        assert_eq!(shown, one.entries().cloned().collect::<Vec<_>>());
        // Two kinds in two languages.
        assert_eq!(shown.len(), 20);
        assert_eq!(shown.iter().filter(|entry| entry.lang == "fra_Latn").count(), 10);
        let saved = serde_json::to_string(&one).unwrap();
        assert_eq!(serde_json::from_str::<AuditSample>(&saved).unwrap(), one);
        for entry in shown {
            assert!(!entry.context.contains(|c: char| c.is_ascii_digit()), "{}", entry.context);
            assert!(!entry.context.contains("sara") && entry.context.contains("## ## ##"), "{}", entry.context);
        }
    }

    #[test]
    fn languages_are_bounded_alike_in_any_order() {
        let scrubber = Scrubber::new(&PiiConfig::default());
        let text = "Tél : 06 61 23 45 67";
        let labels: Vec<String> = (0..100).map(|i| format!("x{i:02}_Latn")).collect();
        let (mut up, mut down) = (AuditSample::new(1), AuditSample::new(1));
        labels.iter().for_each(|label| up.add(label, label, text, &scrubber.find(text)));
        labels.iter().rev().for_each(|label| down.add(label, label, text, &scrubber.find(text)));
        assert_eq!(up, down);
        assert_eq!(up.entries().count(), MAX_LANGUAGES);
    }
}
