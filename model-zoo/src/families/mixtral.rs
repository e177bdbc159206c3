//! Owns the Mixtral family; never touches files, optimizers or where parameters come from.

use std::sync::Arc;

use burn::tensor::{Int, Tensor, TensorData, activation};

use crate::balance::Routing;
use crate::config::{DecoderConfig, MixtralConfig};
use crate::family::{BlockOutput, Family, Heads, Pass};
use crate::init::residual_std;
use crate::ops::{self, AttentionRule};
use crate::params::{Init, ParamSpec};
use crate::rotary::{RotaryTable, Rotation};
use crate::weights::{Weights, widen};

/// Places of a block's parameters after its first.
const INPUT_NORM: usize = 0;
const QUERY: usize = 1;
const KEY: usize = 2;
const VALUE: usize = 3;
const OUTPUT: usize = 4;
const POST_ATTENTION_NORM: usize = 5;
const ROUTER: usize = 6;
const EXPERTS: usize = 7;
/// Places of an expert's parameters after its first; transformers calls them `w1`, `w2` and `w3`.
const GATE: usize = 0;
const DOWN: usize = 1;
const UP: usize = 2;
const PARAMS_PER_EXPERT: usize = 3;

/// A Mixtral: a Mistral whose feed-forward block is a mixture of experts. A router scores all experts for every token;
/// the softmax of the scores chooses the best few, and their outputs are added up with their probabilities, scaled to
/// a sum of 1, as weights (A. Q. Jiang et al. 2024, arXiv:2401.04088).
///
/// Every expert computes with the tokens that chose it and no others. Which these are is decided on the host, so a
/// device waits for the router of every block.
#[derive(Debug)]
pub(crate) struct Mixtral {
    config: MixtralConfig,
    specs: Arc<[ParamSpec]>,
    rotary: RotaryTable,
}

impl Mixtral {
    /// The model of a valid configuration.
    pub(crate) fn new(config: MixtralConfig) -> Self {
        let rotary = RotaryTable::new(&config.decoder.rope, config.decoder.head_dim);
        Self { specs: specs(&config), rotary, config }
    }

    fn params_per_block(&self) -> usize {
        EXPERTS + self.config.num_local_experts * PARAMS_PER_EXPERT
    }

    fn first_of(&self, layer: usize) -> usize {
        1 + layer * self.params_per_block()
    }

    fn norm(&self, weights: &Weights<'_>, x: Tensor<2>, index: usize) -> Tensor<2> {
        ops::rms_norm(x, weights.vector(index), self.config.decoder.rms_norm_eps)
    }

    /// The mixture of experts of the block whose parameters begin with `first`; `x` `[tokens, hidden]` and the result
    /// in the number format of matrix products.
    fn mixture(&self, weights: &Weights<'_>, first: usize, x: Tensor<2>) -> (Tensor<2>, Routing) {
        let scores = widen(weights.linear(x.clone(), first + ROUTER));
        let probabilities = activation::softmax(scores, 1);
        let choice = Choice::of(&host(&probabilities), self.config.num_local_experts, self.config.num_experts_per_tok);
        let device = x.device();
        let chosen = probabilities.clone().gather(1, choice.experts(&device));
        let share = chosen.clone() / chosen.sum_dim(1);

        // Without a graph there is no gradient to be had, and an expert that nobody chose computes nothing.
        let training = device.is_autodiff();
        let mut outputs = Vec::with_capacity(self.config.num_local_experts);
        let mut places = Places::default();
        for (expert, tokens) in choice.tokens.iter().enumerate() {
            let input = match tokens.as_slice() {
                [] if !training => continue,
                // A row of zeros that nobody reads: the expert's gradient is 0, and not absent.
                [] => x.clone().narrow(0, 0, 1).zeros_like(),
                tokens => ops::embedding(x.clone(), integers(tokens.iter().copied(), [tokens.len()], &device)),
            };
            places.take(expert, tokens.len(), input.dims()[0]);
            let first = first + EXPERTS + expert * PARAMS_PER_EXPERT;
            let inner = ops::swiglu(weights.linear(input.clone(), first + GATE), weights.linear(input, first + UP));
            outputs.push(weights.linear(inner, first + DOWN));
        }
        let rows = places.of(&choice, &device);
        let mixed = ops::mix_rows(Tensor::cat(outputs, 0), rows, share);
        let counts = choice.tokens.iter().map(|tokens| tokens.len() as u64).collect();
        (mixed, Routing { counts, probabilities: probabilities.sum_dim(0).flatten(0, 1) })
    }
}

/// Which experts each token chose.
struct Choice {
    /// Experts of each token, ascending: the order in which transformers adds their outputs.
    of_token: Vec<Vec<usize>>,
    /// Tokens of each expert, ascending.
    tokens: Vec<Vec<usize>>,
}

impl Choice {
    /// The `count` most likely of `experts` for every row of `probabilities`; of equals the first.
    fn of(probabilities: &[f32], experts: usize, count: usize) -> Self {
        let mut tokens = vec![Vec::new(); experts];
        let mut of_token = Vec::with_capacity(probabilities.len() / experts.max(1));
        for (token, row) in probabilities.chunks_exact(experts.max(1)).enumerate() {
            let mut order: Vec<usize> = (0..experts).collect();
            // A total order: scores that are no numbers must end the run where the loss is judged, not here.
            order.sort_by(|a, b| row[*b].total_cmp(&row[*a]));
            order.truncate(count);
            order.sort_unstable();
            order.iter().for_each(|&expert| tokens[expert].push(token));
            of_token.push(order);
        }
        Self { of_token, tokens }
    }

    /// `[tokens, experts of a token]`.
    fn experts(&self, device: &burn::tensor::Device) -> Tensor<2, Int> {
        integers(self.of_token.iter().flatten().copied(), self.shape(), device)
    }

    fn shape(&self) -> [usize; 2] {
        [self.of_token.len(), self.of_token.first().map_or(0, Vec::len)]
    }
}

/// Where each expert's rows begin among the outputs of all.
#[derive(Default)]
struct Places {
    starts: Vec<usize>,
    end: usize,
}

impl Places {
    fn take(&mut self, expert: usize, used: usize, rows: usize) {
        self.starts.resize(expert, self.end);
        self.starts.push(self.end);
        self.end += used.max(rows);
    }

    /// The row of each choice, `[tokens, experts of a token]`.
    fn of(mut self, choice: &Choice, device: &burn::tensor::Device) -> Tensor<2, Int> {
        let mut next = |expert: usize| {
            let place = self.starts.get_mut(expert)?;
            *place += 1;
            Some(*place - 1)
        };
        let rows = choice.of_token.iter().flatten().map(|&expert| next(expert).unwrap_or_default());
        integers(rows.collect::<Vec<_>>().into_iter(), choice.shape(), device)
    }
}

fn integers<const D: usize>(
    values: impl Iterator<Item = usize>,
    shape: [usize; D],
    device: &burn::tensor::Device,
) -> Tensor<D, Int> {
    Tensor::from_data(TensorData::new(values.map(|value| value as i64).collect::<Vec<_>>(), shape), device)
}

/// Values of a tensor, read from its device.
fn host(tensor: &Tensor<2>) -> Vec<f32> {
    tensor.clone().inner().into_data().iter::<f32>().collect()
}

impl Family for Mixtral {
    fn specs(&self) -> Arc<[ParamSpec]> {
        Arc::clone(&self.specs)
    }

    fn num_blocks(&self) -> usize {
        self.config.decoder.num_hidden_layers
    }

    fn embedding_params(&self) -> Vec<usize> {
        vec![0]
    }

    fn block_params(&self, layer: usize) -> Vec<usize> {
        (self.first_of(layer)..self.first_of(layer + 1)).collect()
    }

    fn head_params(&self) -> Vec<usize> {
        let norm = self.first_of(self.num_blocks());
        vec![norm, if self.config.decoder.tie_word_embeddings { 0 } else { norm + 1 }]
    }

    fn kv_width(&self) -> usize {
        self.config.decoder.num_key_value_heads * self.config.decoder.head_dim
    }

    fn rotations(&self, positions: &Tensor<1, Int>, limit: usize) -> Vec<Rotation> {
        vec![self.rotary.rotation(positions.clone(), limit)]
    }

    fn embed(&self, weights: &Weights<'_>, tokens: Tensor<1, Int>, _positions: Tensor<1, Int>) -> Tensor<2> {
        weights.embedding(0, tokens)
    }

    fn block(&self, weights: &Weights<'_>, layer: usize, stream: Tensor<2>, pass: &mut Pass<'_>) -> BlockOutput {
        let DecoderConfig { num_attention_heads: heads, num_key_value_heads: kv_heads, head_dim, .. } =
            self.config.decoder;
        let first = self.first_of(layer);
        let rotate = |x, heads| {
            let Rotation { cos, sin } = pass.rotations[0].clone();
            weights.narrow(ops::rope(widen(x), cos, sin, heads))
        };

        let x = weights.narrow(self.norm(weights, stream.clone(), first + INPUT_NORM));
        let query = rotate(weights.linear(x.clone(), first + QUERY), heads);
        let key = rotate(weights.linear(x.clone(), first + KEY), kv_heads);
        let value = weights.linear(x, first + VALUE);
        let rule = AttentionRule { window: self.config.sliding_window, ..AttentionRule::plain(head_dim) };
        let attended = pass.attend(layer, (query, key, value), Heads { heads, kv_heads, head_dim }, rule);
        let stream = ops::add(stream, widen(weights.linear(attended, first + OUTPUT)));

        let x = weights.narrow(self.norm(weights, stream.clone(), first + POST_ATTENTION_NORM));
        let (mixed, routing) = self.mixture(weights, first, x);
        BlockOutput { stream: ops::add(stream, widen(mixed)), routing: Some(routing) }
    }

    fn final_norm(&self, weights: &Weights<'_>, stream: Tensor<2>) -> Tensor<2> {
        self.norm(weights, stream, self.first_of(self.num_blocks()))
    }

    fn head_weight(&self, weights: &Weights<'_>) -> Tensor<2> {
        let untied = self.first_of(self.num_blocks()) + 1;
        weights.matrix(if self.config.decoder.tie_word_embeddings { 0 } else { untied })
    }
}

/// Names, shapes and first values of every parameter (names: those of the published files, which transformers 4 has in
/// modeling_mixtral.py and transformers 5 writes too).
fn specs(config: &MixtralConfig) -> Arc<[ParamSpec]> {
    let decoder = &config.decoder;
    let DecoderConfig { vocab_size, hidden_size, intermediate_size, num_hidden_layers, head_dim, .. } = *decoder;
    let (query_size, kv_size) = (decoder.num_attention_heads * head_dim, decoder.num_key_value_heads * head_dim);
    let std = decoder.initializer_range;
    let normal = Init::Normal { std };
    let residual = Init::Normal { std: residual_std(std, num_hidden_layers) };

    let mut specs = vec![ParamSpec::new("model.embed_tokens.weight".into(), vec![vocab_size, hidden_size], normal)];
    for layer in 0..num_hidden_layers {
        let mut push = |part: &str, shape: Vec<usize>, init| {
            specs.push(ParamSpec::new(format!("model.layers.{layer}.{part}.weight"), shape, init));
        };
        push("input_layernorm", vec![hidden_size], Init::Ones);
        push("self_attn.q_proj", vec![query_size, hidden_size], normal);
        push("self_attn.k_proj", vec![kv_size, hidden_size], normal);
        push("self_attn.v_proj", vec![kv_size, hidden_size], normal);
        push("self_attn.o_proj", vec![hidden_size, query_size], residual);
        push("post_attention_layernorm", vec![hidden_size], Init::Ones);
        push("block_sparse_moe.gate", vec![config.num_local_experts, hidden_size], normal);
        for expert in 0..config.num_local_experts {
            let name = |part: &str| format!("block_sparse_moe.experts.{expert}.{part}");
            push(&name("w1"), vec![intermediate_size, hidden_size], normal);
            push(&name("w2"), vec![hidden_size, intermediate_size], residual);
            push(&name("w3"), vec![intermediate_size, hidden_size], normal);
        }
    }
    specs.push(ParamSpec::new("model.norm.weight".into(), vec![hidden_size], Init::Ones));
    if !decoder.tie_word_embeddings {
        specs.push(ParamSpec::new("lm_head.weight".into(), vec![vocab_size, hidden_size], normal));
    }
    specs.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_likely_experts_are_chosen_and_of_equals_the_first() {
        let choice = Choice::of(&[0.1, 0.4, 0.2, 0.3, 0.25, 0.25, 0.25, 0.25, 0.4, 0.1, 0.4, 0.1], 4, 2);
        assert_eq!(choice.of_token, [[1, 3], [0, 1], [0, 2]]);
        assert_eq!(choice.tokens, [vec![1, 2], vec![0, 1], vec![2], vec![0]]);
    }

    #[test]
    fn scores_that_are_no_numbers_choose_something() {
        let choice = Choice::of(&[f32::NAN; 4], 4, 2);
        assert_eq!(choice.of_token, [[0, 1]]);
    }

    #[test]
    fn every_choice_has_a_row_of_its_own() {
        let device = burn::tensor::Device::flex();
        let choice = Choice::of(&[0.6, 0.0, 0.4, 0.7, 0.0, 0.3], 3, 2);
        let mut places = Places::default();
        for (expert, (used, rows)) in [(2, 2), (0, 1), (2, 2)].into_iter().enumerate() {
            places.take(expert, used, rows);
        }
        let rows: Vec<i64> = places.of(&choice, &device).into_data().iter::<i64>().collect();
        assert_eq!(rows, [0, 3, 1, 4]);
        let mut places = Places::default();
        places.take(0, 2, 2);
        places.take(2, 2, 2);
        let rows: Vec<i64> = places.of(&choice, &device).into_data().iter::<i64>().collect();
        assert_eq!(rows, [0, 2, 1, 3]);
    }
}
