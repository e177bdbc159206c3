//! Owns how a forward pass reads the weights it computes with; never touches where they are stored or trained.

use burn::tensor::{DType, Int, Tensor};

use crate::model::Precision;
use crate::ops;
use crate::params::Params;

/// The weights of one pass, by their index in the family's specs.
pub(crate) struct Weights<'a> {
    params: &'a Params,
    precision: Precision,
}

impl<'a> Weights<'a> {
    /// Weights that are all parameters.
    pub(crate) fn new(params: &'a Params, precision: Precision) -> Self {
        Self { params, precision }
    }

    /// Weight `index` as `[elements]`, f32.
    pub(crate) fn vector(&self, index: usize) -> Tensor<1> {
        self.params.vector(index)
    }

    /// Weight `index` as `[rows, columns]`, f32.
    pub(crate) fn matrix(&self, index: usize) -> Tensor<2> {
        self.params.matrix(index)
    }

    /// Rows `ids` `[tokens]` of weight `index`, `[tokens, columns]`, f32.
    pub(crate) fn embedding(&self, index: usize, ids: Tensor<1, Int>) -> Tensor<2> {
        ops::embedding(self.matrix(index), ids)
    }

    /// `x` `[tokens, in]` through weight `index` `[out, in]`; in and out in the number format of matrix products.
    pub(crate) fn linear(&self, x: Tensor<2>, index: usize) -> Tensor<2> {
        ops::linear(x, self.narrow(self.matrix(index)))
    }

    /// [`Weights::linear`], then the bias of index `bias`, `[out]`.
    pub(crate) fn linear_bias(&self, x: Tensor<2>, index: usize, bias: usize) -> Tensor<2> {
        ops::add_bias(self.linear(x, index), self.vector(bias))
    }

    /// `x` `[tokens, in]` through weight `index` `[in, out]`, see [`Weights::linear`].
    pub(crate) fn linear_in_out(&self, x: Tensor<2>, index: usize) -> Tensor<2> {
        ops::linear_in_out(x, self.narrow(self.matrix(index)))
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
