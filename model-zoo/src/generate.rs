//! Owns decoding of one document token by token: the key-value cache, sampling and stopping; never touches text.

use std::ops::ControlFlow;

use burn::tensor::{DType, Device, Int, Tensor, TensorData, activation};
use thiserror::Error;

use crate::model::{Model, Precision};
use crate::ops::{self, AttentionRule, AttentionShape};
use crate::params::Params;
use crate::philox::Stream;

/// Keys and values of the tokens decoded so far, for one document.
#[derive(Debug)]
pub struct KvCache {
    layers: Vec<LayerCache>,
    len: usize,
}

/// `[capacity, kv_heads * head_dim]` each; rows at and after the length of the cache hold nothing.
#[derive(Debug)]
struct LayerCache {
    keys: Tensor<2>,
    values: Tensor<2>,
}

impl KvCache {
    /// An empty cache with room for `capacity` tokens of `model`.
    #[must_use]
    pub fn new(model: &Model, capacity: usize, device: &Device) -> Self {
        let dtype = match model.precision() {
            Precision::F32 => DType::F32,
            Precision::Bf16Mixed => DType::BF16,
        };
        let width = model.family().kv_width();
        let empty = || Tensor::zeros([capacity, width], (device, dtype));
        let layers = (0..model.family().num_blocks()).map(|_| LayerCache { keys: empty(), values: empty() }).collect();
        Self { layers, len: 0 }
    }

    /// Tokens held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no token has been decoded yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Stores the keys and values of new tokens in `layer` and attends from their queries to everything held.
    pub(crate) fn attend(
        &mut self,
        layer: usize,
        query: Tensor<2>,
        key: Tensor<2>,
        value: Tensor<2>,
        shape: &AttentionShape,
        rule: AttentionRule,
    ) -> Tensor<2> {
        let (past, total) = (self.len, self.len + shape.seq);
        let cache = &mut self.layers[layer];
        cache.keys.inplace(|keys| keys.slice_assign(past..total, key.clone()));
        cache.values.inplace(|values| values.slice_assign(past..total, value.clone()));
        if past == 0 {
            let segments = Tensor::zeros([shape.batch, shape.seq], &query.device());
            return ops::attention(query, key, value, segments, *shape, rule);
        }
        // What lies before the window of the first query is hidden from all of them.
        let first = rule.window.map_or(0, |window| (past + 1).saturating_sub(window));
        let keys = cache.keys.clone().narrow(0, first, total - first);
        let values = cache.values.clone().narrow(0, first, total - first);
        attend_to_past(query, keys, values, past - first, shape, rule)
    }

    /// Counts tokens whose keys and values every layer has stored.
    pub(crate) fn advance(&mut self, new: usize) {
        self.len += new;
    }
}

/// Causal attention of `new` queries that stand behind `past` tokens. `query` `[new, heads * head_dim]`, `keys` and
/// `values` `[past + new, kv_heads * head_dim]`; gives `[new, heads * head_dim]`. Softmax in f32.
fn attend_to_past(
    query: Tensor<2>,
    keys: Tensor<2>,
    values: Tensor<2>,
    past: usize,
    shape: &AttentionShape,
    rule: AttentionRule,
) -> Tensor<2> {
    let AttentionShape { seq: new, heads, kv_heads, head_dim, .. } = *shape;
    let (group, total, dtype) = (heads / kv_heads, past + new, query.dtype());
    // The heads that share keys become rows of one product: [kv_heads, new * group, head_dim].
    let query = query.reshape([new, kv_heads, group * head_dim]).swap_dims(0, 1);
    let query = query.reshape([kv_heads, new * group, head_dim]);
    let keys = keys.reshape([total, kv_heads, head_dim]).permute([1, 2, 0]);
    let values = values.reshape([total, kv_heads, head_dim]).swap_dims(0, 1);
    let mut scores = ops::softcap(query.matmul(keys).cast(DType::F32).mul_scalar(rule.scale), rule.softcap);
    if new > 1 {
        let (device, dims) = (scores.device(), [kv_heads, new * group, total]);
        let row = Tensor::<1, Int>::arange(0..(new * group) as i64, &device).div_scalar(group as i64);
        let last_visible = row.add_scalar(past as i64).reshape([1, new * group, 1]).expand(dims);
        let column = Tensor::<1, Int>::arange(0..total as i64, &device).reshape([1, 1, total]).expand(dims);
        let mut hidden = column.clone().greater(last_visible.clone());
        if let Some(window) = rule.window {
            hidden = hidden.bool_or(column.add_scalar(window as i64).lower_equal(last_visible));
        }
        scores = scores.mask_fill(hidden, f32::NEG_INFINITY);
    }
    let weights = activation::softmax(scores, 2).cast(dtype);
    let attended = weights.matmul(values).reshape([kv_heads, new, group * head_dim]).swap_dims(0, 1);
    attended.reshape([new, heads * head_dim])
}

/// How the next token is chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    /// Divides the logits; 0 takes the most likely token.
    pub temperature: f64,
    /// Only this many most likely tokens may be drawn; 0 = all.
    pub top_k: usize,
    /// Only the most likely tokens whose probabilities reach this sum may be drawn; 1 = all.
    pub top_p: f64,
}

impl Sampling {
    /// Always the most likely token.
    pub const GREEDY: Self = Self { temperature: 0.0, top_k: 0, top_p: 1.0 };
}

/// Chooses a token: a pure function of its arguments. `draw` in [0, 1) is the random number; ties go to the lower id.
/// Order of the rules: temperature, then `top_k`, then `top_p`, as in transformers. `None` when a logit is not a
/// number or none is finite.
#[must_use]
pub fn sample(logits: &[f32], sampling: &Sampling, draw: f64) -> Option<u32> {
    if logits.iter().any(|logit| logit.is_nan()) {
        return None;
    }
    let mut order: Vec<(u32, f64)> = (0..).zip(logits.iter().map(|logit| f64::from(*logit))).collect();
    if sampling.temperature <= 0.0 {
        let best = order.into_iter().reduce(|best, next| if next.1 > best.1 { next } else { best })?;
        return best.1.is_finite().then_some(best.0);
    }
    order.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    if sampling.top_k > 0 {
        order.truncate(sampling.top_k);
    }
    let peak = order.first()?.1;
    if !peak.is_finite() {
        return None;
    }
    for (_, value) in &mut order {
        *value = ((*value - peak) / sampling.temperature).exp();
    }
    let total: f64 = order.iter().map(|(_, weight)| weight).sum();
    let (mut kept, mut kept_weight) = (0, 0.0);
    for (_, weight) in &order {
        kept += 1;
        kept_weight += weight;
        if kept_weight >= sampling.top_p * total {
            break;
        }
    }
    let mut remaining = draw * kept_weight;
    for (id, weight) in order.iter().take(kept) {
        remaining -= weight;
        if remaining < 0.0 {
            return Some(*id);
        }
    }
    order.get(kept.saturating_sub(1)).map(|(id, _)| *id)
}

/// What to generate.
#[derive(Debug, Clone)]
pub struct GenerateOptions {
    /// Most tokens to add.
    pub max_new_tokens: usize,
    /// How each is chosen.
    pub sampling: Sampling,
    /// Seed of the draws; draw `i` is a pure function of (seed, `i`).
    pub seed: u64,
    /// Ids that end the text; empty = none do.
    pub eos: Vec<u32>,
}

/// Why generation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// This end id was chosen; it is the last of the tokens.
    Eos(u32),
    /// `max_new_tokens` were made.
    Length,
    /// The model's context is full.
    Context,
    /// The caller asked to stop.
    Stopped,
}

/// Generated tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generation {
    /// New ids, without the prompt.
    pub tokens: Vec<u32>,
    /// Why there are no more.
    pub finish: Finish,
}

/// A text that cannot be continued.
#[derive(Debug, Error, PartialEq)]
pub enum GenerateError {
    /// Nothing to continue.
    #[error("the prompt has no tokens; give at least one, such as the id that begins a document")]
    EmptyPrompt,
    /// The prompt does not fit.
    #[error("the prompt has {tokens} tokens, but the model takes {context}; shorten it")]
    LongPrompt {
        /// Tokens in the prompt.
        tokens: usize,
        /// Longest context of the model.
        context: usize,
    },
    /// A prompt id is outside the vocabulary.
    #[error("prompt token id {id} is not below the vocabulary size {vocab_size}; use the model's own tokenizer")]
    Token {
        /// Token id.
        id: u32,
        /// Rows of the embedding.
        vocab_size: usize,
    },
    /// Temperature, `top_p` out of range.
    #[error("{name} is {value}; choose {range}")]
    Sampling {
        /// Which setting.
        name: &'static str,
        /// Its value.
        value: f64,
        /// What is possible.
        range: &'static str,
    },
    /// The model computed something that is not a number.
    #[error("the logits after {tokens} tokens are not finite; the weights are damaged or overflow in this precision")]
    NotFinite {
        /// Tokens before.
        tokens: usize,
    },
    /// The device would not hand the logits back.
    #[error("logits could not be read from the device: {cause}; the device may have failed, start again")]
    Read {
        /// What the backend said.
        cause: String,
    },
}

/// Continues `prompt`. `on_token` sees every new token and may stop the generation.
///
/// # Errors
/// [`GenerateError`] when the prompt does not fit the model, a setting is out of range or the model computes
/// non-finite logits.
pub fn generate(
    model: &Model,
    params: &Params,
    prompt: &[u32],
    options: &GenerateOptions,
    on_token: &mut dyn FnMut(u32) -> ControlFlow<()>,
) -> Result<Generation, GenerateError> {
    let context = model.config().max_positions();
    check(model, prompt, options, context)?;
    let params = params.untracked();
    let Some(device) = params.tensors().first().map(Tensor::device) else {
        return Err(GenerateError::NotFinite { tokens: 0 });
    };
    let upload = |ids: &[u32]| {
        let ids: Vec<i32> = ids.iter().map(|id| *id as i32).collect();
        Tensor::<1, Int>::from_data(TensorData::new(ids.clone(), [ids.len()]), &device)
    };
    let capacity = context.min(prompt.len().saturating_add(options.max_new_tokens));
    let mut cache = KvCache::new(model, capacity, &device);
    let stream = Stream::new(options.seed, "generate");
    let mut tokens = Vec::new();
    let mut pending = prompt.to_vec();
    while tokens.len() < options.max_new_tokens {
        if cache.len() + pending.len() > context {
            return Ok(Generation { tokens, finish: Finish::Context });
        }
        let hidden = model.decode(&params, upload(&pending), &mut cache);
        let last = hidden.narrow(0, pending.len() - 1, 1);
        let logits = model.head(&params, last).try_into_vec_as::<f32>();
        let logits = logits.map_err(|error| GenerateError::Read { cause: error.to_string() })?;
        let [draw, _] = stream.uniforms(tokens.len() as u64);
        let next = sample(&logits, &options.sampling, draw);
        let next = next.ok_or(GenerateError::NotFinite { tokens: cache.len() })?;
        tokens.push(next);
        if options.eos.contains(&next) {
            return Ok(Generation { tokens, finish: Finish::Eos(next) });
        }
        if on_token(next).is_break() {
            return Ok(Generation { tokens, finish: Finish::Stopped });
        }
        pending = vec![next];
    }
    Ok(Generation { tokens, finish: Finish::Length })
}

fn check(model: &Model, prompt: &[u32], options: &GenerateOptions, context: usize) -> Result<(), GenerateError> {
    if prompt.is_empty() {
        return Err(GenerateError::EmptyPrompt);
    }
    if prompt.len() > context {
        return Err(GenerateError::LongPrompt { tokens: prompt.len(), context });
    }
    let vocab_size = model.config().vocab_size();
    if let Some(id) = prompt.iter().copied().find(|id| *id as usize >= vocab_size) {
        return Err(GenerateError::Token { id, vocab_size });
    }
    let Sampling { temperature, top_p, .. } = options.sampling;
    if !(temperature.is_finite() && temperature >= 0.0) {
        return Err(GenerateError::Sampling { name: "temperature", value: temperature, range: "0 or more" });
    }
    if !(top_p > 0.0 && top_p <= 1.0) {
        return Err(GenerateError::Sampling { name: "top_p", value: top_p, range: "a number in (0, 1]" });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use proptest::prelude::*;

    use super::*;

    const LOGITS: [f32; 5] = [0.0, 2.0, 1.0, 2.0, -3.0];

    fn warm(top_k: usize, top_p: f64) -> Sampling {
        Sampling { temperature: 1.0, top_k, top_p }
    }

    #[test]
    fn greedy_takes_the_first_of_equals() {
        assert_eq!(sample(&LOGITS, &Sampling::GREEDY, 0.99), Some(1));
    }

    #[test]
    fn draws_walk_the_tokens_from_the_most_likely() {
        assert_eq!(sample(&LOGITS, &warm(0, 1.0), 0.0), Some(1));
        assert_eq!(sample(&LOGITS, &warm(0, 1.0), 0.5), Some(3));
        assert_eq!(sample(&LOGITS, &warm(0, 1.0), 0.999_999), Some(4));
    }

    #[test]
    fn top_k_and_top_p_cut_the_tail() {
        assert_eq!(sample(&LOGITS, &warm(2, 1.0), 0.999_999), Some(3));
        assert_eq!(sample(&LOGITS, &warm(1, 1.0), 0.999_999), Some(1));
        // Probabilities 0.40, 0.40, 0.15, ...: 0.5 needs two tokens, 0.85 three.
        assert_eq!(sample(&LOGITS, &warm(0, 0.5), 0.999_999), Some(3));
        assert_eq!(sample(&LOGITS, &warm(0, 0.85), 0.999_999), Some(2));
        assert_eq!(sample(&LOGITS, &warm(0, 1e-9), 0.999_999), Some(1));
    }

    #[test]
    fn logits_that_are_no_numbers_choose_nothing() {
        assert_eq!(sample(&[0.0, f32::NAN], &Sampling::GREEDY, 0.0), None);
        assert_eq!(sample(&[], &Sampling::GREEDY, 0.0), None);
        assert_eq!(sample(&[f32::NEG_INFINITY; 3], &warm(0, 1.0), 0.0), None);
        assert_eq!(sample(&[f32::NEG_INFINITY, 1.0], &warm(0, 1.0), 0.9), Some(1));
    }

    proptest! {
        #[test]
        fn a_sample_is_always_an_allowed_token(
            logits in proptest::collection::vec(-20.0_f32..20.0, 1..40),
            temperature in 0.0_f64..3.0, top_k in 0_usize..50, top_p in 0.01_f64..1.0, draw in 0.0_f64..1.0,
        ) {
            let id = sample(&logits, &Sampling { temperature, top_k, top_p }, draw).unwrap() as usize;
            let better = logits.iter().filter(|logit| **logit > logits[id]).count();
            prop_assert!(top_k == 0 || better < top_k);
        }

        #[test]
        fn frequencies_follow_the_softmax(draws in 3_000_u32..3_001) {
            let counts = (0..draws).fold([0_u32; 5], |mut counts, i| {
                let id = sample(&LOGITS, &warm(0, 1.0), (f64::from(i) + 0.5) / f64::from(draws)).unwrap();
                counts[id as usize] += 1;
                counts
            });
            let total: f64 = LOGITS.iter().map(|l| f64::from(*l).exp()).sum();
            for (count, logit) in counts.iter().zip(LOGITS) {
                prop_assert!((f64::from(*count) / f64::from(draws) - f64::from(logit).exp() / total).abs() < 2e-3);
            }
        }
    }
}
