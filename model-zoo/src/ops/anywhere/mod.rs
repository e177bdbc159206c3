//! Owns the ops for devices without kernels of ours (and for number formats without, on the CPU): tensor operations
//! whose backward pass is written by hand, so that neither scores nor logits of all rows are ever kept.
//!
//! Inside an op nothing is recorded: [`plain`] tensors have no autodiff around them.
// The tensors of an op come back if no backend holds all of them.
#![allow(clippy::result_large_err)]

mod attention;
mod cross_entropy;
mod elementwise;

pub(super) use attention::attention;
pub(super) use cross_entropy::{linear_cross_entropy, linear_cross_entropy_tokens};
pub(super) use elementwise::{gated, rms_norm, rope};

#[cfg(test)]
pub(super) use attention::chunked as chunked_attention;
#[cfg(test)]
pub(super) use cross_entropy::chunked as chunked_cross_entropy;

use super::graph::{self, Gradients, Input, Place};
use burn::Tensor;
use burn::backend::autodiff::NodeId;
use burn::backend::{DispatchAutodiffContext, DispatchTensor};
use burn::tensor::{DType, Int};

/// The values of an input.
fn plain<B: Place, const D: usize>(input: &Input<B>) -> Tensor<D> {
    graph::tensor::<B, D>(input.tensor.clone())
}

/// Indices without autodiff around them.
fn plain_ids<const D: usize>(ids: Tensor<D, Int>) -> Tensor<D, Int> {
    let DispatchTensor { kind, .. } = ids.into_dispatch();
    Tensor::from_dispatch(DispatchTensor { kind, autodiff: DispatchAutodiffContext::Disabled })
}

/// Hands the gradient of a parent on, in the dtype that the parent has.
fn register<B: Place, const D: usize>(grads: &mut Gradients, node: Option<NodeId>, gradient: Tensor<D>, dtype: DType) {
    if let Some(node) = node {
        grads.register::<B>(node, graph::primitive::<B, D>(to(gradient, dtype)));
    }
}

/// The tensor in another dtype.
fn to<const D: usize>(x: Tensor<D>, dtype: DType) -> Tensor<D> {
    if x.dtype() == dtype { x } else { x.cast(dtype) }
}

/// The tensor in `f32`, but for `f64`, which is wider.
fn wide<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    if x.dtype() == DType::F64 { x } else { to(x, DType::F32) }
}
