//! Owns bits per byte of a prepared data set's held-out documents and of raw text, by language and script; never
//! touches questions. The numbers are those of the evaluation during training.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use data_pipeline::config::SourceConfig;
use data_pipeline::dataset::Dataset;
use data_pipeline::documents::{ReadOptions, read_documents};
use data_pipeline::loader::Loader;
use data_pipeline::order::{MixtureSpec, Order};
use serde::{Deserialize, Serialize};

use super::score::batch_of;
use super::subject::Subject;
use super::{EvalError, Watch};
use crate::evaluate::{self, Totals};
use crate::events::LanguageScore;

/// Bits per byte of one body of text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TextResult {
    /// Tokens of a row: the longest context a token is predicted from.
    pub row_length: usize,
    /// By language and script, `ary_Arab`.
    pub languages: BTreeMap<String, LanguageScore>,
    /// By script, `Arab`.
    pub scripts: BTreeMap<String, LanguageScore>,
    /// Everything together.
    pub all: LanguageScore,
}

/// How text is measured.
#[derive(Debug, Clone, Copy)]
pub struct TextOptions {
    /// Tokens of a row.
    pub row_length: usize,
    /// Most tokens of a language.
    pub max_tokens: u64,
    /// Tokens that go through the model at once.
    pub batch_tokens: usize,
}

fn result(row_length: usize, totals: &BTreeMap<String, Totals>) -> TextResult {
    let (mut all, mut scripts) = (Totals::default(), BTreeMap::<String, Totals>::new());
    for (label, own) in totals {
        all.add(*own);
        let script = label.rsplit('_').next().unwrap_or(label);
        scripts.entry(script.to_owned()).or_default().add(*own);
    }
    let scores = |totals: &BTreeMap<String, Totals>| totals.iter().map(|(l, t)| (l.clone(), t.score())).collect();
    TextResult { row_length, languages: scores(totals), scripts: scores(&scripts), all: all.score() }
}

/// Scores the validation split of a prepared data set, which must have the model's tokenizer.
///
/// # Errors
/// A data set that is damaged, of another tokenizer, or without held-out documents.
pub fn data_set(
    subject: &Subject,
    dir: &Path,
    options: TextOptions,
    watch: &Watch<'_>,
) -> Result<TextResult, EvalError> {
    let dataset = Arc::new(Dataset::open(dir)?);
    dataset.expect_tokenizer(subject.tokenizer.digest())?;
    let len = options.row_length.max(1);
    let order = Order::new(&dataset.streams(len), &MixtureSpec::default(), 1, 0)?;
    let loader = Loader::new(Arc::clone(&dataset), order, len);
    let mut budget: BTreeMap<&str, u64> = BTreeMap::new();
    let mut work = Vec::new();
    for (index, component) in dataset.validation().iter().enumerate() {
        let left = budget.entry(component.lang()).or_insert(options.max_tokens);
        let rows = component.num_rows(len).min(left.div_ceil(len as u64));
        *left = left.saturating_sub(rows.saturating_mul(len as u64));
        work.push((index, component.lang(), rows));
    }
    let total: u64 = work.iter().map(|(_, _, rows)| rows).sum();
    let at_once = (options.batch_tokens / len).max(1) as u64;
    let (mut totals, mut done) = (BTreeMap::<String, Totals>::new(), 0);
    for (component, lang, rows) in work {
        let mut at = 0;
        while at < rows {
            let end = (at + at_once).min(rows);
            let batch = loader.validation_rows(component, at..end)?;
            let scored =
                evaluate::score(&subject.model, &subject.params, &subject.device, dataset.token_bytes(), &batch)?;
            totals.entry(lang.to_owned()).or_default().add(scored);
            done += end - at;
            at = end;
            watch.at(done * len as u64, total * len as u64)?;
        }
    }
    Ok(result(len, &totals))
}

/// Scores raw text: JSON Lines (`text`, `lang`, `script`), plain text and whatever else `jazari data prepare` reads.
/// Every document begins afresh; without a BOS in front of it its first token has no probability and does not count.
///
/// # Errors
/// A file that cannot be read.
pub fn raw(subject: &Subject, file: &str, options: TextOptions, watch: &Watch<'_>) -> Result<TextResult, EvalError> {
    let rows = read_rows(subject, file, options, watch)?;
    let bytes_of = subject.tokenizer.token_bytes();
    let total: u64 = rows.values().flatten().map(|row| row.len() as u64).sum();
    let (mut totals, mut done) = (BTreeMap::<String, Totals>::new(), 0);
    for (lang, mut rows) in rows {
        rows.sort_by(|a, b| b.len().cmp(&a.len()).then(a.cmp(b)));
        let mut rest = rows.as_slice();
        while let Some(longest) = rest.first() {
            let (now, after) = rest.split_at((options.batch_tokens / longest.len().max(1)).clamp(1, rest.len()));
            let inputs: Vec<&[u32]> =
                now.iter().map(|row| row.split_last().map_or(&[][..], |(_, head)| head)).collect();
            let mut batch = batch_of(&inputs);
            for (slots, row) in batch.targets.chunks_exact_mut(batch.seq_len).zip(now) {
                // Ids are below the vocabulary's size, which fits 31 bits.
                slots.iter_mut().zip(row.iter().skip(1)).for_each(|(slot, id)| *slot = *id as i32);
            }
            let scored = evaluate::score(&subject.model, &subject.params, &subject.device, &bytes_of, &batch)?;
            totals.entry(lang.clone()).or_default().add(scored);
            done += now.iter().map(|row| row.len() as u64).sum::<u64>();
            watch.at(done, total)?;
            rest = after;
        }
    }
    Ok(result(options.row_length, &totals))
}

/// Rows of `row_length + 1` tokens or fewer, of which each is predicted from those before it, by language.
fn read_rows(
    subject: &Subject,
    file: &str,
    options: TextOptions,
    watch: &Watch<'_>,
) -> Result<BTreeMap<String, Vec<Vec<u32>>>, EvalError> {
    let len = options.row_length.max(1);
    let mut encoder = subject.tokenizer.document_encoder();
    let mut rows: BTreeMap<String, Vec<Vec<u32>>> = BTreeMap::new();
    let mut taken: BTreeMap<String, u64> = BTreeMap::new();
    let mut failed = None;
    let sources = [SourceConfig::at(file)];
    read_documents(&sources, &ReadOptions::default(), watch.stop.as_atomic(), &mut |document| {
        let taken = taken.entry(document.lang.clone()).or_default();
        if failed.is_some() || *taken >= options.max_tokens {
            return Ok(());
        }
        let mut ids: Vec<u32> = subject.tokenizer.document_bos().into_iter().collect();
        failed = encoder.encode(&document.text, &mut ids).err();
        let mut at = 0;
        while at + 1 < ids.len() && *taken < options.max_tokens {
            let end = (at + len + 1).min(ids.len());
            *taken += (end - at - 1) as u64;
            rows.entry(document.lang.clone()).or_default().push(ids.get(at..end).unwrap_or_default().to_vec());
            at = end - 1;
        }
        Ok(())
    })?;
    failed.map_or(Ok(rows), |error| Err(error.into()))
}
