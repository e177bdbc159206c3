//! Owns what decoders with rotary positions share around their blocks; never touches what one family alone does.

use std::fmt::Debug;
use std::sync::Arc;

use burn::tensor::{Int, Tensor};

use crate::config::{DecoderConfig, RopeConfig};
use crate::family::{BlockOutput, Family, Heads, Pass};
use crate::init::residual_std;
use crate::ops;
use crate::params::{Init, ParamSpec};
use crate::rotary::{RotaryTable, Rotation};
use crate::weights::{Weights, widen};

/// A family that differs from its relatives in its blocks: the embedding is the first parameter, then come the blocks,
/// all of the same parameters, the final norm, and the head where it is not the embedding.
pub(crate) trait Decoder: Debug + Send + Sync {
    /// What it shares with its relatives.
    fn trunk(&self) -> &Trunk;

    /// The stream after block `layer`.
    fn block(&self, weights: &Weights<'_>, layer: usize, stream: Tensor<2>, pass: &mut Pass<'_>) -> BlockOutput;

    /// Factor of the embeddings.
    fn embedding_scale(&self) -> Option<f32> {
        None
    }

    /// Bound of the logits.
    fn logit_softcap(&self) -> Option<f64> {
        None
    }
}

impl<D: Decoder> Family for D {
    fn specs(&self) -> Arc<[ParamSpec]> {
        Arc::clone(&self.trunk().specs)
    }

    fn num_blocks(&self) -> usize {
        self.trunk().config.num_hidden_layers
    }

    fn embedding_params(&self) -> Vec<usize> {
        vec![0]
    }

    fn block_params(&self, layer: usize) -> Vec<usize> {
        let trunk = self.trunk();
        (trunk.at(layer, 0)..trunk.at(layer + 1, 0)).collect()
    }

    fn head_params(&self) -> Vec<usize> {
        vec![self.trunk().final_norm(), self.trunk().head()]
    }

    fn kv_width(&self) -> usize {
        self.trunk().config.num_key_value_heads * self.trunk().config.head_dim
    }

    fn rotations(&self, positions: &Tensor<1, Int>, limit: usize) -> Vec<Rotation> {
        self.trunk().rotary.iter().map(|table| table.rotation(positions.clone(), limit)).collect()
    }

    fn embed(&self, weights: &Weights<'_>, tokens: Tensor<1, Int>, _positions: Tensor<1, Int>) -> Tensor<2> {
        let embedded = weights.embedding(0, tokens);
        match self.embedding_scale() {
            Some(scale) => embedded.mul_scalar(scale),
            None => embedded,
        }
    }

    fn block(&self, weights: &Weights<'_>, layer: usize, stream: Tensor<2>, pass: &mut Pass<'_>) -> BlockOutput {
        Decoder::block(self, weights, layer, stream, pass)
    }

    fn final_norm(&self, weights: &Weights<'_>, stream: Tensor<2>) -> Tensor<2> {
        self.trunk().norm(weights, stream, self.trunk().final_norm())
    }

    fn head_weight(&self, weights: &Weights<'_>) -> Tensor<2> {
        weights.matrix(self.trunk().head())
    }

    fn logit_softcap(&self) -> Option<f64> {
        Decoder::logit_softcap(self)
    }
}

/// How a norm scales what it has normalised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NormScale {
    /// By its weights.
    Weight,
    /// By one more than its weights (Gemma).
    OnePlusWeight,
}

/// What decoders share: sizes, the places of parameters, rotary angles and the form of norms.
#[derive(Debug)]
pub(crate) struct Trunk {
    config: DecoderConfig,
    specs: Arc<[ParamSpec]>,
    params_per_block: usize,
    rotary: Vec<RotaryTable>,
    norm_scale: NormScale,
}

impl Trunk {
    /// A trunk with one table of angles for each of `ropes`; `block` gives the parameters of a block.
    pub(crate) fn new(
        config: DecoderConfig,
        ropes: &[RopeConfig],
        norm_scale: NormScale,
        block: impl Fn(&BlockSpecs) -> Vec<ParamSpec>,
    ) -> Self {
        let rotary = ropes.iter().map(|rope| RotaryTable::new(rope, config.head_dim)).collect();
        let DecoderConfig { vocab_size, hidden_size, num_hidden_layers, .. } = config;
        let block = block(&BlockSpecs::new(&config, norm_scale));
        let normal = Init::Normal { std: config.initializer_range };
        let matrix = |name: &str| ParamSpec::new(name.into(), vec![vocab_size, hidden_size], normal);
        let mut specs = vec![matrix("model.embed_tokens.weight")];
        for layer in 0..num_hidden_layers {
            let named =
                |spec: &ParamSpec| ParamSpec { name: format!("model.layers.{layer}.{}", spec.name), ..spec.clone() };
            specs.extend(block.iter().map(named));
        }
        specs.push(ParamSpec::new("model.norm.weight".into(), vec![hidden_size], norm_scale.init()));
        if !config.tie_word_embeddings {
            specs.push(matrix("lm_head.weight"));
        }
        Self { specs: specs.into(), params_per_block: block.len(), rotary, norm_scale, config }
    }

    /// Index of the parameter at `place` of block `layer`.
    pub(crate) fn at(&self, layer: usize, place: usize) -> usize {
        1 + layer * self.params_per_block + place
    }

    fn final_norm(&self) -> usize {
        self.at(self.config.num_hidden_layers, 0)
    }

    fn head(&self) -> usize {
        if self.config.tie_word_embeddings { 0 } else { self.final_norm() + 1 }
    }

    /// The heads of every block.
    pub(crate) fn heads(&self) -> Heads {
        let DecoderConfig { num_attention_heads: heads, num_key_value_heads: kv_heads, head_dim, .. } = self.config;
        Heads { heads, kv_heads, head_dim }
    }

    /// Rows of `x` normalised by the norm of index `index`; f32.
    pub(crate) fn norm(&self, weights: &Weights<'_>, x: Tensor<2>, index: usize) -> Tensor<2> {
        ops::rms_norm(x, self.scale(weights, index), self.config.rms_norm_eps)
    }

    /// `stream` normalised by the norm of index `norm` and through the weights of `indices`; first the stream for its next
    /// reader. In and out f32, the rest in the number format of matrix products.
    pub(crate) fn normed_linears<const N: usize>(
        &self,
        weights: &Weights<'_>,
        stream: Tensor<2>,
        norm: usize,
        indices: [usize; N],
    ) -> (Tensor<2>, [Tensor<2>; N]) {
        weights.normed_linears(stream, (self.scale(weights, norm), self.config.rms_norm_eps), indices)
    }

    /// The scale of the norm of index `index`.
    fn scale(&self, weights: &Weights<'_>, index: usize) -> Tensor<1> {
        match self.norm_scale {
            NormScale::Weight => weights.vector(index),
            NormScale::OnePlusWeight => weights.vector(index).add_scalar(1.0),
        }
    }

    /// Every head of `x` `[tokens, heads * head_dim]` normalised by the norm of index `index`; f32.
    pub(crate) fn head_norm(&self, weights: &Weights<'_>, x: Tensor<2>, index: usize) -> Tensor<2> {
        let [tokens, width] = x.dims();
        let head_dim = self.config.head_dim;
        let heads = widen(x).reshape([tokens * width / head_dim, head_dim]);
        self.norm(weights, heads, index).reshape([tokens, width])
    }

    /// Queries or keys `x` `[tokens, heads * head_dim]` turned by their positions, in the number format of matrix
    /// products.
    pub(crate) fn rotate(&self, weights: &Weights<'_>, x: Tensor<2>, rotation: &Rotation) -> Tensor<2> {
        let heads = x.dims()[1] / self.config.head_dim;
        let Rotation { cos, sin } = rotation.clone();
        weights.narrow(ops::rope(widen(x), cos, sin, heads))
    }
}

impl NormScale {
    /// What makes a fresh norm leave the scale alone.
    fn init(self) -> Init {
        match self {
            Self::Weight => Init::Ones,
            Self::OnePlusWeight => Init::Zeros,
        }
    }
}

/// Makes the specs of a block's parameters; their names lack the number of the layer.
pub(crate) struct BlockSpecs {
    /// Width of the residual stream.
    pub(crate) hidden: usize,
    /// Width inside the feed-forward block.
    pub(crate) inner: usize,
    /// Width of all queries.
    pub(crate) query: usize,
    /// Width of all keys, and of all values.
    pub(crate) key_value: usize,
    /// Width of a head.
    pub(crate) head_dim: usize,
    std: f64,
    residual_std: f64,
    norm_init: Init,
}

impl BlockSpecs {
    fn new(config: &DecoderConfig, norm_scale: NormScale) -> Self {
        let std = config.initializer_range;
        Self {
            hidden: config.hidden_size,
            inner: config.intermediate_size,
            query: config.num_attention_heads * config.head_dim,
            key_value: config.num_key_value_heads * config.head_dim,
            head_dim: config.head_dim,
            std,
            residual_std: residual_std(std, config.num_hidden_layers),
            norm_init: norm_scale.init(),
        }
    }

    /// A norm over `width` elements.
    pub(crate) fn norm(&self, part: &str, width: usize) -> ParamSpec {
        ParamSpec::new(format!("{part}.weight"), vec![width], self.norm_init)
    }

    /// A linear map.
    pub(crate) fn linear(&self, part: &str, out: usize, from: usize) -> ParamSpec {
        ParamSpec::new(format!("{part}.weight"), vec![out, from], Init::Normal { std: self.std })
    }

    /// A linear map that writes into the residual stream.
    pub(crate) fn residual(&self, part: &str, from: usize) -> ParamSpec {
        ParamSpec::new(format!("{part}.weight"), vec![self.hidden, from], Init::Normal { std: self.residual_std })
    }

    /// The bias of a linear map.
    pub(crate) fn bias(&self, part: &str, out: usize) -> ParamSpec {
        ParamSpec::new(format!("{part}.bias"), vec![out], Init::Zeros)
    }
}
