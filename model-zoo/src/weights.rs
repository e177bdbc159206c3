//! Owns how a forward pass reads the weights it computes with; never touches where they are stored or trained.

use burn::tensor::{DType, Int, Tensor};

use crate::adapter::{Adapted, Correction, Place, matrix_dims};
use crate::model::Precision;
use crate::ops::{self, Gate, LowRank, Stored};
use crate::params::Params;

/// The weights of one pass, by their index in the family's specs.
pub(crate) struct Weights<'a> {
    params: &'a Params,
    precision: Precision,
    adapted: Option<&'a Adapted>,
}

/// Where one weight is.
enum Source<'a> {
    /// Among the parameters.
    Param(usize),
    /// Frozen, `[rows, columns]`, perhaps with a correction.
    Frozen(&'a Stored, [usize; 2], Option<Correction>),
}

impl<'a> Weights<'a> {
    /// Weights that are parameters, or, of an adapted model, frozen with parameters on top.
    pub(crate) fn new(params: &'a Params, precision: Precision, adapted: Option<&'a Adapted>) -> Self {
        Self { params, precision, adapted }
    }

    fn source(&self, index: usize) -> Source<'a> {
        let Some(Adapted { base, layout }) = self.adapted else { return Source::Param(index) };
        let frozen = |correction| Source::Frozen(base.stored(index), matrix_dims(&base.specs()[index]), correction);
        match layout.places[index] {
            Place::Trained(index) => Source::Param(index),
            Place::Frozen => frozen(None),
            Place::Corrected(correction) => frozen(Some(correction)),
        }
    }

    /// Weight `index` as `[elements]`, f32.
    pub(crate) fn vector(&self, index: usize) -> Tensor<1> {
        match self.source(index) {
            Source::Param(index) => self.params.vector(index),
            Source::Frozen(stored, ..) => self.widened(stored),
        }
    }

    /// Weight `index` as `[rows, columns]`, f32. Meant for what is no linear layer of a block: a correction is not seen.
    pub(crate) fn matrix(&self, index: usize) -> Tensor<2> {
        match self.source(index) {
            Source::Param(index) => self.params.matrix(index),
            Source::Frozen(stored, dims, _) => self.widened(stored).reshape(dims),
        }
    }

    /// Rows `ids` `[tokens]` of weight `index`, `[tokens, columns]`, f32.
    pub(crate) fn embedding(&self, index: usize, ids: Tensor<1, Int>) -> Tensor<2> {
        match self.source(index) {
            Source::Param(index) => ops::embedding(self.params.matrix(index), ids),
            Source::Frozen(stored, [_, columns], _) => ops::frozen_rows(stored, columns, ids),
        }
    }

    /// `x` `[tokens, in]` through weight `index` `[out, in]`; in and out in the number format of matrix products.
    pub(crate) fn linear(&self, x: Tensor<2>, index: usize) -> Tensor<2> {
        match self.source(index) {
            Source::Param(index) => ops::linear(x, self.narrow(self.params.matrix(index))),
            Source::Frozen(stored, dims, None) => ops::frozen_linear(x, stored, dims),
            Source::Frozen(stored, dims, Some(correction)) => self.corrected(x, stored, dims, correction),
        }
    }

    /// `stream` `[tokens, in]` normalised with scale `gamma` `[in]` and through the weights of `indices`, see
    /// [`Weights::linear`]; returned first is `stream` for its next reader.
    pub(crate) fn normed_linears<const N: usize>(
        &self,
        stream: Tensor<2>,
        (gamma, eps): (Tensor<1>, f64),
        indices: [usize; N],
    ) -> (Tensor<2>, [Tensor<2>; N]) {
        if let (Precision::F32, Some(matrices)) = (self.precision, self.plain(indices)) {
            return ops::rms_norm_linears(stream, gamma, eps, matrices);
        }
        let [stream, input] = ops::branches(stream);
        let readers: [Tensor<2>; N] = ops::branches(self.narrow(ops::rms_norm(input, gamma, eps)));
        let mut readers = readers.into_iter().zip(indices);
        let outputs = std::array::from_fn(|_| match readers.next() {
            Some((reader, index)) => self.linear(reader, index),
            None => unreachable!("there is a reader for every weight"),
        });
        (stream, outputs)
    }

    /// The activations of a gated feed-forward block through weight `index`, see [`Weights::linear`].
    pub(crate) fn gated_linear(&self, gate: Gate, [gates, ups]: [Tensor<2>; 2], index: usize) -> Tensor<2> {
        match (self.precision, self.plain([index])) {
            (Precision::F32, Some([matrix])) => ops::gated_linear(gate, gates, ups, matrix),
            _ => self.linear(ops::gated(gate, gates, ups), index),
        }
    }

    /// Weights that are parameters and nothing else, `[out, in]` each.
    fn plain<const N: usize>(&self, indices: [usize; N]) -> Option<[Tensor<2>; N]> {
        let places = indices.map(|index| match self.source(index) {
            Source::Param(place) => Some(place),
            Source::Frozen(..) => None,
        });
        places.iter().all(Option::is_some).then(|| places.map(|place| self.params.matrix(place.unwrap_or_default())))
    }

    fn corrected(&self, x: Tensor<2>, stored: &Stored, dims: [usize; 2], correction: Correction) -> Tensor<2> {
        let Correction { a, b, magnitude, scale } = correction;
        let low_rank = LowRank { a: self.params.matrix(a), b: self.params.matrix(b), scale };
        let lengths = magnitude.map(|_| ops::adapted_row_lengths(stored, dims, &low_rank));
        let LowRank { a, b, scale } = low_rank;
        let low_rank = LowRank { a: self.narrow(a), b: self.narrow(b), scale };
        let y = ops::adapted_linear(x, stored, dims, low_rank);
        match (magnitude, lengths) {
            (Some(magnitude), Some(lengths)) => ops::scale_columns(y, self.params.vector(magnitude), lengths),
            _ => y,
        }
    }

    fn widened(&self, stored: &Stored) -> Tensor<1> {
        // Parameters are on the device that the pass runs on.
        let device = self.params.tensors().first().map(|tensor| tensor.clone().inner().device());
        stored.widened(&device.unwrap_or_default())
    }

    /// `x` `[tokens, in]` through weight `index` `[in, out]`, see [`Weights::linear`].
    pub(crate) fn linear_in_out(&self, x: Tensor<2>, index: usize) -> Tensor<2> {
        let y = ops::linear_in_out(x.clone(), self.narrow(self.matrix(index)));
        let Source::Frozen(_, _, Some(Correction { a, b, scale, .. })) = self.source(index) else { return y };
        let (a, b) = (self.narrow(self.params.matrix(a)), self.narrow(self.params.matrix(b)));
        ops::add(y, ops::linear(ops::linear(x, a).mul_scalar(scale), b))
    }

    /// To the number format of matrix products.
    pub(crate) fn narrow(&self, x: Tensor<2>) -> Tensor<2> {
        match self.precision {
            Precision::F32 => x,
            Precision::Bf16Mixed => x.cast(DType::BF16),
        }
    }
}

/// To the number format of the residual stream.
pub(crate) fn widen(x: Tensor<2>) -> Tensor<2> {
    if x.dtype() == DType::F32 { x } else { x.cast(DType::F32) }
}
