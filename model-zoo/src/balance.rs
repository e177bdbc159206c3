//! Owns the loss that keeps experts equally busy; never touches how tokens are routed or blocks computed.
//!
//! With `E` experts and `T` tokens in `L` blocks, `c_e` choices of expert `e` and `p_e` the sum of its probabilities, both
//! over all tokens of all blocks, the loss is `E · sum_e (c_e / LT) · (p_e / LT)` (W. Fedus et al. 2021, "Switch
//! Transformers", equations 4 to 6, as transformers computes it for Mixtral: modeling_mixtral.py,
//! `load_balancing_loss_func`). The counts are constants. So the loss is a sum over the blocks once all have been
//! counted, and the backward pass can go on block by block.

use burn::tensor::{Tensor, TensorData};

/// How a block's tokens were spread over its experts.
pub(crate) struct Routing {
    /// Choices of each expert.
    pub(crate) counts: Vec<u64>,
    /// Sum over the tokens of each expert's probability, `[experts]`, f32.
    pub(crate) probabilities: Tensor<1>,
}

/// The load of all experts over all blocks.
#[derive(Debug, Default)]
pub(crate) struct Load {
    counts: Vec<u64>,
    blocks: usize,
}

impl Load {
    /// Counts the choices of one block.
    pub(crate) fn add(&mut self, routing: &Routing) {
        self.counts.resize(routing.counts.len(), 0);
        for (sum, count) in self.counts.iter_mut().zip(&routing.counts) {
            *sum += count;
        }
        self.blocks += 1;
    }

    /// One block's share of the loss, `[1]`, for `tokens` tokens a block; the shares of all blocks add up to it.
    pub(crate) fn loss(&self, routing: Routing, tokens: usize) -> Tensor<1> {
        let rows = (self.blocks * tokens).max(1) as f64;
        let factor = |count: &u64| (self.counts.len() as f64 * *count as f64 / (rows * rows)) as f32;
        let factors: Vec<f32> = self.counts.iter().map(factor).collect();
        let device = routing.probabilities.device();
        let factors = Tensor::<1>::from_data(TensorData::new(factors, [self.counts.len()]), &device);
        (routing.probabilities * factors).sum()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use burn::tensor::Device;

    use super::*;

    fn routing(counts: [u64; 2], probabilities: [f32; 2]) -> Routing {
        let probabilities = Tensor::from_data(TensorData::new(probabilities.to_vec(), [2]), &Device::flex());
        Routing { counts: counts.to_vec(), probabilities }
    }

    fn total(blocks: [([u64; 2], [f32; 2]); 2], tokens: usize) -> f32 {
        let mut load = Load::default();
        blocks.iter().for_each(|(counts, probabilities)| load.add(&routing(*counts, *probabilities)));
        blocks.iter().map(|(counts, p)| load.loss(routing(*counts, *p), tokens).into_scalar::<f32>()).sum()
    }

    /// Even loads give the smallest loss: the number of experts that a token chooses.
    #[test]
    fn even_loads_cost_least() {
        assert!((total([([5, 5], [5.0, 5.0]); 2], 10) - 1.0).abs() < 1e-6);
        assert!((total([([10, 0], [10.0, 0.0]); 2], 10) - 2.0).abs() < 1e-6);
        // Blocks are judged together: one expert in the first and the other in the second is even.
        assert!((total([([10, 0], [10.0, 0.0]), ([0, 10], [0.0, 10.0])], 10) - 1.0).abs() < 1e-6);
    }
}
