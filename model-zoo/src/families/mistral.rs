//! Owns the Mistral family; never touches files, optimizers or where parameters come from.

use burn::tensor::Tensor;

use super::decoder::{Decoder, Trunk};
use super::llama::Llama;
use crate::config::MistralConfig;
use crate::family::{BlockOutput, Pass};
use crate::weights::Weights;

/// A Mistral: the blocks of a Llama under the same names, with attention to a window of earlier tokens in version 0.1
/// and without since 0.2 (A. Q. Jiang et al. 2023, arXiv:2310.06825).
#[derive(Debug)]
pub(crate) struct Mistral(Llama);

impl Mistral {
    /// The model of a valid configuration.
    pub(crate) fn new(config: MistralConfig) -> Self {
        Self(Llama::with_window(config.decoder, config.sliding_window))
    }
}

impl Decoder for Mistral {
    fn trunk(&self) -> &Trunk {
        self.0.trunk()
    }

    fn block(&self, weights: &Weights<'_>, layer: usize, stream: Tensor<2>, pass: &mut Pass<'_>) -> BlockOutput {
        Decoder::block(&self.0, weights, layer, stream, pass)
    }
}
