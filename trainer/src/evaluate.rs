//! Owns validation during a run: bits per byte for every language; never touches gradients.
//!
//! Perplexity a token cannot be compared between tokenizers or scripts; bits a byte of UTF-8 text can. Every token of
//! a held-out document but its BOS is scored exactly once; special tokens stand for no text and count neither in the
//! loss nor in the bytes.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Instant;

use burn::tensor::Device;
use data_pipeline::loader::TokenBatch;
use model_zoo::{Model, Params};

use crate::checkpoint::TrainState;
use crate::config::plan::Plan;
use crate::events::{EvalRecord, Event, LanguageScore};
use crate::step::{self, StepError};
use crate::train::{Context, TrainError};

/// Running totals of one language.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Totals {
    nats: f64,
    tokens: u64,
    bytes: u64,
}

impl Totals {
    pub(crate) fn score(self) -> LanguageScore {
        LanguageScore {
            bpb: self.nats / std::f64::consts::LN_2 / self.bytes.max(1) as f64,
            loss: self.nats / self.tokens.max(1) as f64,
            tokens: self.tokens,
            bytes: self.bytes,
        }
    }

    /// What a share that does not arrive counts as: it spoils the score instead of improving it.
    const NONE: Self = Self { nats: f64::NAN, tokens: 0, bytes: 0 };

    fn to_bytes(self) -> [u8; 24] {
        let mut bytes = [0; 24];
        let parts = [self.nats.to_bits(), self.tokens, self.bytes];
        bytes.as_chunks_mut().0.iter_mut().zip(parts).for_each(|(to, part)| *to = part.to_le_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8; 24]) -> Self {
        let mut parts = bytes.as_chunks().0.iter().map(|part| u64::from_le_bytes(*part));
        let mut next = || parts.next().unwrap_or_default();
        Self { nats: f64::from_bits(next()), tokens: next(), bytes: next() }
    }

    pub(crate) fn add(&mut self, other: Self) {
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
    let work = batches(plan, cx);
    let rows: u64 = work.iter().map(|batch| batch.rows.end - batch.rows.start).sum();
    let (rank, world) = (cx.team.rank(), cx.team.world());
    let (mut rows_done, mut mine) = (0, Vec::new());
    for (index, batch) in work.iter().enumerate() {
        rows_done += batch.rows.end - batch.rows.start;
        if index % world == rank {
            let mut tokens = cx.loader.validation_rows(batch.component, batch.rows.clone())?;
            if plan.objective.is_some() {
                forget_rejected(&mut tokens);
            }
            let scored = score(&cx.model, &state.params, &cx.device, cx.dataset.token_bytes(), &tokens);
            mine.push(scored.map_err(|source| TrainError::Step { step: state.step, source })?);
            (cx.observer)(&Event::Evaluating { language: batch.language.clone(), rows_done, rows })?;
        }
    }
    let shares = cx.team.gather(mine.iter().flat_map(|totals| totals.to_bytes()).collect())?;
    let mut totals: BTreeMap<String, Totals> = BTreeMap::new();
    // In the order of the batches, whoever scored them: sums of floats depend on it.
    for (index, batch) in work.iter().enumerate() {
        let share = shares.get(index % world).map_or(&[][..], |share| share.as_chunks().0);
        let scored = share.get(index / world).map_or(Totals::NONE, Totals::from_bytes);
        totals.entry(batch.language.clone()).or_default().add(scored);
    }
    let mut all = Totals::default();
    totals.values().for_each(|t| all.add(*t));
    Ok(EvalRecord {
        step: state.step,
        val_bpb_all: all.score().bpb,
        val: totals.into_iter().map(|(language, t)| (language, t.score())).collect(),
        seconds: start.elapsed().as_secs_f64(),
        energy_joules: None,
    })
}

/// Rows that go through the model at once.
struct Batch {
    component: usize,
    language: String,
    rows: Range<u64>,
}

fn batches(plan: &Plan, cx: &Context<'_>) -> Vec<Batch> {
    let mut batches = Vec::new();
    for (component, language, rows) in rows_by_component(plan, cx) {
        let mut at = 0;
        while at < rows {
            let end = (at + plan.micro_batch_rows.max(1)).min(rows);
            batches.push(Batch { component, language: language.clone(), rows: at..end });
            at = end;
        }
    }
    batches
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

/// Of preferences the chosen answers are scored: what the model should say.
fn forget_rejected(batch: &mut TokenBatch) {
    for (target, segment) in batch.targets.iter_mut().zip(&batch.segments) {
        if segment % 2 == 1 {
            *target = -1;
        }
    }
}

/// Scores the targets of a batch that stand for text, by the bytes of each id.
///
/// # Errors
/// An id outside the vocabulary.
pub(crate) fn score(
    model: &Model,
    params: &Params,
    device: &Device,
    bytes_of: &[u16],
    batch: &TokenBatch,
) -> Result<Totals, StepError> {
    step::check_positions(batch, model)?;
    let on_device = step::to_device(batch, model.vocab_size(), device)?;
    let losses = model.token_losses(params, &on_device.inputs, on_device.targets);
    let losses = losses.into_data().convert::<f32>();
    let losses = losses.as_slice::<f32>().unwrap_or_default();
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
    fn totals_survive_the_wire() {
        let totals = Totals { nats: -0.1, tokens: 7, bytes: u64::MAX };
        assert_eq!(Totals::from_bytes(&totals.to_bytes()), totals);
    }

    #[test]
    fn bits_per_byte_is_nats_over_ln2_over_bytes() {
        let score = Totals { nats: std::f64::consts::LN_2 * 12.0, tokens: 4, bytes: 8 }.score();
        assert!((score.bpb - 1.5).abs() < 1e-12);
        assert!((score.loss - std::f64::consts::LN_2 * 3.0).abs() < 1e-12);
        assert_eq!((score.tokens, score.bytes), (4, 8));
    }
}
