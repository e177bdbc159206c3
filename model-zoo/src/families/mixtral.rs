//! Owns the Mixtral family; never touches files, optimizers or where parameters come from.

use burn::tensor::{Device, Int, Tensor, TensorData};

use super::decoder::{BlockSpecs, Decoder, NormScale, Trunk};
use super::llama::{ATTENTION_PARAMS, POST_ATTENTION_NORM, attention_half, attention_specs};
use crate::balance::Routing;
use crate::config::MixtralConfig;
use crate::family::{BlockOutput, Pass};
use crate::ops::{self, AttentionRule, Gate};
use crate::params::ParamSpec;
use crate::weights::{Weights, widen};

/// Places of a block's parameters after those of its attention.
const ROUTER: usize = ATTENTION_PARAMS;
const EXPERTS: usize = ATTENTION_PARAMS + 1;
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
    trunk: Trunk,
    rule: AttentionRule,
    num_experts: usize,
    experts_per_token: usize,
}

impl Mixtral {
    /// The model of a valid configuration.
    pub(crate) fn new(config: MixtralConfig) -> Self {
        let MixtralConfig { decoder, sliding_window: window, num_local_experts, num_experts_per_tok, .. } = config;
        let (rope, rule) = (decoder.rope, AttentionRule { window, ..AttentionRule::plain(decoder.head_dim) });
        let specs = |s: &BlockSpecs| block_specs(s, num_local_experts);
        Self {
            trunk: Trunk::new(decoder, &[rope], NormScale::Weight, specs),
            rule,
            num_experts: num_local_experts,
            experts_per_token: num_experts_per_tok,
        }
    }

    /// The mixture of experts of block `layer`: `x` `[tokens, hidden]` in the number format of matrix products, the
    /// result in f32.
    fn mixture(&self, weights: &Weights<'_>, layer: usize, x: Tensor<2>) -> (Tensor<2>, Routing) {
        let scores = widen(weights.linear(x.clone(), self.trunk.at(layer, ROUTER)));
        let probabilities = ops::softmax(scores);
        let choice = Choice::of(&host(&probabilities), self.num_experts, self.experts_per_token);
        let device = x.device();
        let chosen = probabilities.clone().gather(1, choice.experts(&device));
        let share = chosen.clone() / chosen.sum_dim(1);

        // Without a graph there is no gradient to be had, and an expert that nobody chose computes nothing.
        let training = device.is_autodiff();
        let mut outputs = Vec::with_capacity(self.num_experts);
        let mut places = Places::default();
        for (expert, tokens) in choice.tokens.iter().enumerate() {
            let input = match tokens.as_slice() {
                [] if !training => continue,
                // A row of zeros that nobody reads: the expert's gradient is 0, and not absent.
                [] => x.clone().narrow(0, 0, 1).zeros_like(),
                tokens => ops::embedding(x.clone(), integers(tokens.iter().copied(), [tokens.len()], &device)),
            };
            places.take(expert, tokens.len(), input.dims()[0]);
            let first = self.trunk.at(layer, EXPERTS + expert * PARAMS_PER_EXPERT);
            let inner = [weights.linear(input.clone(), first + GATE), weights.linear(input, first + UP)];
            outputs.push(weights.gated_linear(Gate::Silu, inner, first + DOWN));
        }
        let rows = places.of(&choice, &device);
        let mixed = ops::mix_rows(widen(Tensor::cat(outputs, 0)), rows, share);
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
    fn experts(&self, device: &Device) -> Tensor<2, Int> {
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
    fn of(mut self, choice: &Choice, device: &Device) -> Tensor<2, Int> {
        let mut next = |expert: usize| {
            let place = self.starts.get_mut(expert)?;
            *place += 1;
            Some(*place - 1)
        };
        let rows = choice.of_token.iter().flatten().map(|&expert| next(expert).unwrap_or_default());
        integers(rows.collect::<Vec<_>>().into_iter(), choice.shape(), device)
    }
}

fn integers<const D: usize>(values: impl Iterator<Item = usize>, shape: [usize; D], device: &Device) -> Tensor<D, Int> {
    Tensor::from_data(TensorData::new(values.map(|value| value as i64).collect::<Vec<_>>(), shape), device)
}

/// Values of a tensor, read from its device.
fn host(tensor: &Tensor<2>) -> Vec<f32> {
    tensor.clone().inner().into_data().iter::<f32>().collect()
}

impl Decoder for Mixtral {
    fn trunk(&self) -> &Trunk {
        &self.trunk
    }

    fn block(&self, weights: &Weights<'_>, layer: usize, stream: Tensor<2>, pass: &mut Pass<'_>) -> BlockOutput {
        let stream = attention_half(&self.trunk, self.rule, weights, layer, stream, pass);
        let [stream, input] = ops::branches(stream);
        let normed = self.trunk.norm(weights, input, self.trunk.at(layer, POST_ATTENTION_NORM));
        let (mixed, routing) = self.mixture(weights, layer, weights.narrow(normed));
        BlockOutput { stream: ops::add(stream, mixed), routing: Some(routing) }
    }
}

/// Names, shapes and first values of a block's parameters (names: those of the published files, which transformers 4
/// has in modeling_mixtral.py and transformers 5 writes too).
fn block_specs(s: &BlockSpecs, num_experts: usize) -> Vec<ParamSpec> {
    let mut specs = attention_specs(s);
    specs.push(s.linear("block_sparse_moe.gate", num_experts, s.hidden));
    for expert in 0..num_experts {
        let name = |part: &str| format!("block_sparse_moe.experts.{expert}.{part}");
        specs.push(s.linear(&name("w1"), s.inner, s.hidden));
        specs.push(s.residual(&name("w2"), s.inner));
        specs.push(s.linear(&name("w3"), s.inner, s.hidden));
    }
    specs
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
        let device = Device::flex();
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
