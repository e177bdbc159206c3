//! Owns validation during a run: bits per byte for every language; never touches gradients.
//!
//! Perplexity a token cannot be compared between tokenizers or scripts; bits a byte of UTF-8 text can. Every token of
//! a held-out document but its BOS is scored exactly once; special tokens stand for no text and count neither in the
//! loss nor in the bytes.

use std::collections::BTreeMap;
use std::time::Instant;

use data_pipeline::loader::TokenBatch;

use crate::checkpoint::TrainState;
use crate::config::plan::Plan;
use crate::events::{EvalRecord, Event, LanguageScore};
use crate::step;
use crate::train::{Context, TrainError};

/// Running totals of one language.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Totals {
    nats: f64,
    tokens: u64,
    bytes: u64,
}

impl Totals {
    fn score(self) -> LanguageScore {
        LanguageScore {
            bpb: self.nats / std::f64::consts::LN_2 / self.bytes.max(1) as f64,
            loss: self.nats / self.tokens.max(1) as f64,
            tokens: self.tokens,
            bytes: self.bytes,
        }
    }

    fn add(&mut self, other: Self) {
        self.nats += other.nats;
        self.tokens += other.tokens;
        self.bytes += other.bytes;
    }
}

/// Scores the held-out documents of every language, at most `eval.max_tokens_per_language` tokens of each.
///
/// # Errors
/// When the data cannot be read.
pub fn evaluate(plan: &Plan, state: &TrainState, cx: &mut Context<'_>) -> Result<EvalRecord, TrainError> {
    let start = Instant::now();
    let work = rows_by_component(plan, cx);
    let rows: u64 = work.iter().map(|(_, _, rows)| rows).sum();
    let mut rows_done = 0;
    let mut totals: BTreeMap<String, Totals> = BTreeMap::new();
    for (component, language, component_rows) in work {
        let mut at = 0;
        while at < component_rows {
            let end = (at + plan.micro_batch_rows).min(component_rows);
            let batch = cx.loader.validation_rows(component, at..end)?;
            totals.entry(language.clone()).or_default().add(score(state, cx, &batch)?);
            rows_done += end - at;
            at = end;
            (cx.observer)(&Event::Evaluating { language: language.clone(), rows_done, rows })?;
        }
    }
    let mut all = Totals::default();
    totals.values().for_each(|t| all.add(*t));
    Ok(EvalRecord {
        step: state.step,
        val_bpb_all: all.score().bpb,
        val: totals.into_iter().map(|(language, t)| (language, t.score())).collect(),
        seconds: start.elapsed().as_secs_f64(),
    })
}

/// Components to score with the number of their rows: a language's budget is shared in the order of its components.
fn rows_by_component(plan: &Plan, cx: &Context<'_>) -> Vec<(usize, String, u64)> {
    let mut budget: BTreeMap<&str, u64> = BTreeMap::new();
    let mut work = Vec::new();
    let seq_len = plan.sequence_len;
    for (i, component) in cx.dataset.validation().iter().enumerate() {
        let left = budget.entry(component.lang()).or_insert(plan.eval.max_tokens_per_language);
        let rows = component.num_rows(seq_len).min(left.div_ceil(seq_len as u64));
        *left = left.saturating_sub(rows * seq_len as u64);
        if rows > 0 {
            work.push((i, component.lang().to_owned(), rows));
        }
    }
    work
}

fn score(state: &TrainState, cx: &Context<'_>, batch: &TokenBatch) -> Result<Totals, TrainError> {
    let on_device = step::to_device(batch, cx.model.vocab_size(), &cx.device)
        .map_err(|source| TrainError::Step { step: state.step, source })?;
    let losses = cx.model.token_losses(&state.params, &on_device.inputs, on_device.targets);
    let losses = losses.into_data().convert::<f32>();
    let losses = losses.as_slice::<f32>().unwrap_or_default();
    let bytes_of = cx.dataset.token_bytes();
    let mut totals = Totals::default();
    for (&target, &loss) in batch.targets.iter().zip(losses) {
        let bytes = usize::try_from(target).ok().and_then(|id| bytes_of.get(id)).copied().unwrap_or(0);
        if bytes > 0 {
            totals.add(Totals { nats: f64::from(loss), tokens: 1, bytes: u64::from(bytes) });
        }
    }
    Ok(totals)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_per_byte_is_nats_over_ln2_over_bytes() {
        let score = Totals { nats: std::f64::consts::LN_2 * 12.0, tokens: 4, bytes: 8 }.score();
        assert!((score.bpb - 1.5).abs() < 1e-12);
        assert!((score.loss - std::f64::consts::LN_2 * 3.0).abs() < 1e-12);
        assert_eq!((score.tokens, score.bytes), (4, 8));
    }
}
