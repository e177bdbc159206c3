//! Owns the way between burn's tensors and the slices that CPU kernels work on; never computes.

use burn::backend::flex::{FlexTensor, Layout};
use burn::backend::{BackendTensor, DispatchTensor, DispatchTensorKind, Flex, TensorMetadata};
use burn::tensor::{Bytes, DType, Shape};

use super::graph;

pub(crate) use super::graph::{Backward, Checkpointer, Gradients, Graph, Ops};

/// An input of a fused op: `f32`, dense and row-major from the start of its buffer.
pub(crate) type Input = graph::Input<Flex>;

/// The float inputs of an op, or all of them given back if they are not all `f32` tensors of Flex; the op then runs as
/// tensor operations.
pub(crate) fn inputs<const N: usize>(tensors: [DispatchTensor; N]) -> Result<(Graph, [Input; N]), [DispatchTensor; N]> {
    if !tensors.iter().all(|tensor| tensor.dtype() == DType::F32) {
        return Err(tensors);
    }
    let (graph, inputs) = graph::inputs::<Flex, N>(tensors)?;
    Ok((graph, inputs.map(|input| Input { tensor: dense(input.tensor), ..input })))
}

/// The values of an integer tensor of Flex, `None` of another backend. Values that no `i32` holds become `i32::MAX`,
/// which is no valid index anywhere.
pub(crate) fn ints(tensor: &DispatchTensor) -> Option<Vec<i32>> {
    let DispatchTensorKind::Flex(BackendTensor::Int(tensor)) = &tensor.kind else { return None };
    let tensor = tensor.to_contiguous();
    match tensor.dtype() {
        DType::I32 => Some(tensor.storage::<i32>().to_vec()),
        DType::I64 => Some(tensor.storage::<i64>().iter().map(|&i| i32::try_from(i).unwrap_or(i32::MAX)).collect()),
        _ => None,
    }
}

/// The same values, row-major from the start of a buffer that holds nothing else; a copy only where they are not.
pub(crate) fn dense(tensor: FlexTensor) -> FlexTensor {
    tensor.to_contiguous()
}

/// The values of a dense `f32` tensor.
pub(crate) fn floats(tensor: &FlexTensor) -> &[f32] {
    tensor.storage::<f32>()
}

/// The values of a dense `f32` tensor to change; copied before if another tensor shares them.
pub(crate) fn floats_mut(tensor: &mut FlexTensor) -> &mut [f32] {
    tensor.storage_mut::<f32>()
}

/// A tensor of `values`, row-major.
pub(crate) fn tensor<const D: usize>(values: Vec<f32>, shape: [usize; D]) -> FlexTensor {
    FlexTensor::new(Bytes::from_elems(values), Layout::contiguous(Shape::from(shape.to_vec())), DType::F32)
}

/// A tensor of `values` with the shape of another.
pub(crate) fn like(values: Vec<f32>, other: &FlexTensor) -> FlexTensor {
    FlexTensor::new(Bytes::from_elems(values), Layout::contiguous(other.layout().shape().clone()), DType::F32)
}

/// Rows and columns of a matrix.
pub(crate) fn dims(tensor: &FlexTensor) -> [usize; 2] {
    match tensor.layout().shape().as_slice() {
        [rows, cols] => [*rows, *cols],
        other => [other.iter().product(), 1],
    }
}
