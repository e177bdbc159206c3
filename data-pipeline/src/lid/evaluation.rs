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
    /// By label and source: texts, called right.
    pub by_source: BTreeMap<(String, String), (u64, u64)>,
}

impl Report {
    fn add(&mut self, text: &LabelledText, answer: &str) {
        self.total.add(&text.label, answer);
        let entry = self.by_source.entry((text.label.clone(), text.source.clone())).or_default();
        entry.0 += 1;
        entry.1 += u64::from(answer == text.label);
    }

    /// Markdown: the confusion table, then recall by label and source.
    pub fn table(&self) -> String {
        let mut table = self.total.table();
        table.push_str("\n| label | source | texts | recall |\n|---|---|---|---|\n");
        for ((label, source), (texts, right)) in &self.by_source {
            table.push_str(&format!(
                "| {label} | {source} | {texts} | {:.3} |\n",
                *right as f64 / (*texts).max(1) as f64
            ));
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
        let answers: Vec<String> = chosen.par_iter().map(|text| identifier.identify(&text.text).label).collect();
        chosen.into_iter().zip(answers).for_each(|(text, answer)| report.add(text, &answer));
    }
}
