//! Owns the log-likelihood of given tokens after given tokens: batches of similar length, one forward pass for all
//! continuations that differ in their last token only; never touches text.

use std::collections::BTreeMap;

use burn::tensor::{Int, Tensor, TensorData};
use data_pipeline::loader::TokenBatch;

use super::subject::Subject;
use super::{EvalError, Watch};
use crate::step;

/// Rows of logits that are held at once, `[POSITIONS, vocab]`.
const POSITIONS: usize = 128;

/// Tokens of which the last `scored` are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Context and continuation.
    pub tokens: Vec<u32>,
    /// Length of the continuation, 1 or more and less than all.
    pub scored: usize,
}

/// One row of a batch and the requests that it answers.
struct Row<'a> {
    /// Every token but the last.
    input: &'a [u32],
    requests: Vec<usize>,
    /// Longest continuation among them.
    scored: usize,
}

/// Log-likelihoods of `requests`, nats, in their order. Tokens before the last `context + 1` are left out, as
/// lm-evaluation-harness does. `batch_tokens` bounds a batch, padding included.
///
/// # Errors
/// When a continuation is empty or longer than the model's context, or the device fails.
pub fn log_likelihoods(
    subject: &Subject,
    requests: &[Request],
    batch_tokens: usize,
    watch: &Watch<'_>,
) -> Result<Vec<f64>, EvalError> {
    let context = subject.model.config().max_positions();
    let rows = rows(requests, context);
    let total: u64 = rows.iter().map(|row| row.input.len() as u64).sum();
    let mut scored = vec![0.0; requests.len()];
    let (mut rest, mut done) = (rows.as_slice(), 0);
    while let Some(first) = rest.first() {
        // Rows are sorted, so the first of a batch is its longest.
        let count = (batch_tokens / first.input.len().max(1)).clamp(1, rest.len());
        let (batch, after) = rest.split_at(count);
        score_batch(subject, requests, batch, &mut scored)?;
        done += batch.iter().map(|row| row.input.len() as u64).sum::<u64>();
        watch.at(done, total)?;
        rest = after;
    }
    if scored.iter().any(|nats: &f64| !nats.is_finite()) {
        return Err(EvalError::NotFinite);
    }
    Ok(scored)
}

/// Requests whose tokens agree in all but the last share a row; longest first, then by their tokens.
fn rows(requests: &[Request], context: usize) -> Vec<Row<'_>> {
    let mut shared: BTreeMap<&[u32], Row<'_>> = BTreeMap::new();
    for (index, request) in requests.iter().enumerate() {
        let start = request.tokens.len().saturating_sub(context + 1);
        let kept = request.tokens.get(start..).unwrap_or_default();
        let input = kept.get(..kept.len().saturating_sub(1)).unwrap_or_default();
        let row = shared.entry(input).or_insert_with(|| Row { input, requests: Vec::new(), scored: 0 });
        row.requests.push(index);
        row.scored = row.scored.max(request.scored);
    }
    let mut rows: Vec<Row<'_>> = shared.into_values().collect();
    rows.sort_by(|a, b| b.input.len().cmp(&a.input.len()).then(a.input.cmp(b.input)));
    rows
}

/// Right-padded rows; what stands behind a token never changes it, as attention is causal.
pub(super) fn batch_of(inputs: &[&[u32]]) -> TokenBatch {
    let seq_len = inputs.iter().map(|input| input.len()).max().unwrap_or(0).max(1);
    let rows = inputs.len();
    let mut tokens = vec![0; rows * seq_len];
    for (slots, input) in tokens.chunks_exact_mut(seq_len).zip(inputs) {
        slots.iter_mut().zip(input.iter()).for_each(|(slot, id)| *slot = *id);
    }
    TokenBatch {
        rows,
        seq_len,
        tokens,
        targets: vec![-1; rows * seq_len],
        segments: vec![0; rows * seq_len],
        positions: (0..rows).flat_map(|_| 0..seq_len as u32).collect(),
        components: vec![0; rows],
        samples: Vec::new(),
    }
}

fn score_batch(subject: &Subject, requests: &[Request], rows: &[Row<'_>], scored: &mut [f64]) -> Result<(), EvalError> {
    let inputs: Vec<&[u32]> = rows.iter().map(|row| row.input).collect();
    let batch = batch_of(&inputs);
    step::check_positions(&batch, &subject.model)?;
    let on_device = step::to_device(&batch, subject.model.vocab_size(), &subject.device)?;
    let hidden = subject.model.hidden(&subject.params, &on_device.inputs);
    // Positions whose next token is asked for, with what they answer: (request, token).
    let mut asked: Vec<(i32, Vec<(usize, u32)>)> = Vec::new();
    for (number, row) in rows.iter().enumerate() {
        for back in (1..=row.scored).rev() {
            let Some(at) = row.input.len().checked_sub(back) else { continue };
            let wanted = row.requests.iter().filter_map(|&index| {
                let request = requests.get(index)?;
                let token = *request.tokens.get(request.tokens.len().checked_sub(back)?)?;
                (back <= request.scored).then_some((index, token))
            });
            asked.push(((number * batch.seq_len + at) as i32, wanted.collect()));
        }
    }
    for chunk in asked.chunks(POSITIONS) {
        let places: Vec<i32> = chunk.iter().map(|(place, _)| *place).collect();
        let places = Tensor::<1, Int>::from_data(TensorData::new(places, [chunk.len()]), &subject.device);
        let logits = subject.model.head(&subject.params, hidden.clone().select(0, places));
        let vocab = logits.dims()[1];
        let logits = logits.try_into_vec_as::<f32>().map_err(|error| EvalError::Read { cause: error.to_string() })?;
        for ((_, wanted), logits) in chunk.iter().zip(logits.chunks_exact(vocab.max(1))) {
            let log_sum = log_sum_exp(logits);
            for &(index, token) in wanted {
                if let (Some(logit), Some(nats)) = (logits.get(token as usize), scored.get_mut(index)) {
                    *nats += f64::from(*logit) - log_sum;
                }
            }
        }
    }
    Ok(())
}

/// The logarithm of the sum of the exponentials, in f64.
fn log_sum_exp(logits: &[f32]) -> f64 {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|logit| (f64::from(*logit) - f64::from(largest)).exp()).sum();
    f64::from(largest) + sum.ln()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    fn request(tokens: &[u32], scored: usize) -> Request {
        Request { tokens: tokens.to_vec(), scored }
    }

    #[test]
    fn one_row_answers_all_choices_of_one_token() {
        let requests =
            [request(&[1, 2, 3, 7], 1), request(&[1, 2, 3, 8], 1), request(&[1, 2, 3, 7, 9], 2), request(&[5, 6], 1)];
        let rows = rows(&requests, 64);
        let shape: Vec<_> = rows.iter().map(|row| (row.input, row.requests.as_slice(), row.scored)).collect();
        let expected: [(&[u32], &[usize], usize); 3] =
            [(&[1, 2, 3, 7], &[2], 2), (&[1, 2, 3], &[0, 1], 1), (&[5], &[3], 1)];
        assert_eq!(shape, expected);
    }

    #[test]
    fn long_contexts_lose_their_beginning() {
        let requests = [request(&[1, 2, 3, 4, 5, 6], 2)];
        // A context of 3 positions takes the last four tokens: three inputs and one more target.
        assert_eq!(rows(&requests, 3)[0].input, [3, 4, 5]);
    }

    #[test]
    fn log_sums_do_not_overflow() {
        let log_sum = log_sum_exp(&[1000.0, 1000.0, -1000.0]);
        assert!((log_sum - (1000.0 + std::f64::consts::LN_2)).abs() < 1e-12);
    }
}
