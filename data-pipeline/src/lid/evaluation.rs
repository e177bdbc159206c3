//! Owns judging each source by a model that never saw it; never reads files.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicBool;

use rayon::prelude::*;

use super::confusion::Confusion;
use super::judge::Judge;
use super::lexicon::{BUILT_IN, Lexicon};
use super::train::{Corpus, FitConfig, is_learned, train};
use super::{Identifier, LidError};

/// Texts judged of one label and source; taken at even distances.
const MAX_TEXTS: usize = 3_000;

/// A text with what is true of it.
#[derive(Debug, Clone)]
pub struct LabelledText {
    /// The text.
    pub text: String,
    /// `ary_Arab`.
    pub label: String,
    /// The corpus.
    pub source: String,
}

/// What came of the evaluation.
#[derive(Debug, Default)]
pub struct Report {
    /// Over all sources.
    pub total: Confusion,
    /// By label and source.
    pub by_source: BTreeMap<(String, String), Tested>,
}

/// What came of the texts of one label and source.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tested {
    /// Texts judged.
    pub texts: u64,
    /// Called what they are.
    pub right: u64,
    /// Answered with certainty.
    pub sure: u64,
    /// Of the sure answers, those that are right.
    pub surely_right: u64,
}

impl Tested {
    fn add(&mut self, right: bool, sure: bool) {
        self.texts += 1;
        self.right += u64::from(right);
        self.sure += u64::from(sure);
        self.surely_right += u64::from(right && sure);
    }

    fn merge(&mut self, other: &Tested) {
        self.texts += other.texts;
        self.right += other.right;
        self.sure += other.sure;
        self.surely_right += other.surely_right;
    }

    /// Recall, share of sure answers, accuracy among these, as cells of a table.
    fn cells(&self) -> String {
        let ratio = |of: u64, all: u64| of as f64 / all.max(1) as f64;
        let accuracy = match self.sure {
            0 => "-".to_owned(),
            sure => format!("{:.4}", ratio(self.surely_right, sure)),
        };
        format!("{:.4} | {:.4} | {accuracy}", ratio(self.right, self.texts), ratio(self.sure, self.texts))
    }
}

impl Report {
    fn add(&mut self, text: &LabelledText, (answer, sure): &(String, bool)) {
        self.total.add(&text.label, answer);
        let entry = self.by_source.entry((text.label.clone(), text.source.clone())).or_default();
        entry.add(*answer == text.label, *sure);
    }

    /// Markdown: the confusion table, then recall and what the sure answers are worth, by label and by source.
    pub fn table(&self) -> String {
        let mut table = self.total.table();
        let mut by_label: BTreeMap<&str, Tested> = BTreeMap::new();
        for ((label, _), tested) in &self.by_source {
            by_label.entry(label).or_default().merge(tested);
        }
        table.push_str("\n| label | texts | recall | sure | right of the sure |\n|---|---|---|---|---|\n");
        for (label, tested) in &by_label {
            table.push_str(&format!("| {label} | {} | {} |\n", tested.texts, tested.cells()));
        }
        table.push_str("\n| label | source | texts | recall | sure | right of the sure |\n|---|---|---|---|---|---|\n");
        for ((label, source), tested) in &self.by_source {
            table.push_str(&format!("| {label} | {source} | {} | {} |\n", tested.texts, tested.cells()));
        }
        table
    }
}

/// A corpus of those texts that a model learns from, without some sources.
pub fn corpus(texts: &[LabelledText], without: &BTreeSet<String>) -> Corpus {
    let mut corpus = Corpus::default();
    for text in texts.iter().filter(|t| !without.contains(&t.source) && is_learned(&t.label)) {
        corpus.push(&text.text, &text.label, &text.source);
    }
    corpus
}

/// Judges every text of the labels that models learn by a model trained without its source, nor ever with a source of
/// `never_learn`. `observe` hears the name of each source. `None` when `stop` was raised.
///
/// # Errors
/// Nothing is left to learn from.
pub fn by_source(
    texts: &[LabelledText],
    never_learn: &BTreeSet<String>,
    (config, scale): (&FitConfig, f64),
    observe: &dyn Fn(&str),
    stop: &AtomicBool,
) -> Result<Option<Report>, LidError> {
    let sources: BTreeSet<&str> = texts.iter().map(|t| t.source.as_str()).collect();
    let mut report = Report::default();
    // Sources that no model learns from share one model.
    let mut shared: Option<Identifier> = None;
    for source in sources {
        observe(source);
        let mut without = never_learn.clone();
        let is_learned_from = without.insert(source.to_owned());
        let judge = || -> Result<Option<Identifier>, LidError> {
            let models = train(&corpus(texts, &without), config, scale, stop)?;
            Ok(models.map(|models| Judge::new(Lexicon::parse(BUILT_IN), models).into()))
        };
        let fresh;
        let identifier = if is_learned_from {
            let Some(made) = judge()? else { return Ok(None) };
            fresh = made;
            &fresh
        } else {
            if shared.is_none() {
                shared = judge()?;
            }
            let Some(made) = &shared else { return Ok(None) };
            made
        };
        judge_source(identifier, texts, source, &mut report);
    }
    Ok(Some(report))
}

fn judge_source(identifier: &Identifier, texts: &[LabelledText], source: &str, report: &mut Report) {
    let mut by_label: BTreeMap<&str, Vec<&LabelledText>> = BTreeMap::new();
    for text in texts.iter().filter(|t| t.source == source && is_learned(&t.label)) {
        by_label.entry(&text.label).or_default().push(text);
    }
    for of_label in by_label.into_values() {
        let step = of_label.len().div_ceil(MAX_TEXTS).max(1);
        let chosen: Vec<&LabelledText> = of_label.into_iter().step_by(step).collect();
        let answer = |text: &&LabelledText| {
            let found = identifier.identify(&text.text);
            (found.label, found.sure)
        };
        let answers: Vec<(String, bool)> = chosen.par_iter().map(answer).collect();
        chosen.into_iter().zip(&answers).for_each(|(text, answer)| report.add(text, answer));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_tells_recall_apart_from_what_sure_answers_are_worth() {
        let text = LabelledText { text: "x".into(), label: "fra_Latn".into(), source: "s".into() };
        let mut report = Report::default();
        for (answer, sure) in [("fra_Latn", true), ("fra_Latn", false), ("eng_Latn", false), ("eng_Latn", true)] {
            report.add(&text, &(answer.to_owned(), sure));
        }
        let table = report.table();
        assert!(table.contains("| fra_Latn | 4 | 0.5000 | 0.5000 | 0.5000 |"), "{table}");
        assert!(table.contains("| fra_Latn | s | 4 | 0.5000 | 0.5000 | 0.5000 |"), "{table}");
    }
}
