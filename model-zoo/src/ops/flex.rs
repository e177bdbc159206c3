//! Owns the way between burn's tensors and the slices that CPU kernels work on; never computes.

use burn::Tensor;
use burn::backend::autodiff::checkpoint::strategy::NoCheckpointing;
use burn::backend::autodiff::ops::{NodeGuard, OpsKind};
use burn::backend::flex::{FlexTensor, Layout};
use burn::backend::tensor::FloatTensor;
use burn::backend::{
    Autodiff, BackendTensor, DispatchAutodiffContext, DispatchTensor, DispatchTensorKind, Flex, TensorMetadata,
};
use burn::tensor::{Bytes, DType, Shape};

pub(crate) use burn::backend::autodiff::checkpoint::base::Checkpointer;
pub(crate) use burn::backend::autodiff::grads::Gradients;
pub(crate) use burn::backend::autodiff::ops::{Backward, Ops};

/// A float tensor of Flex in an autodiff graph.
type GraphTensor = FloatTensor<Autodiff<Flex>>;

/// An input of a fused op.
pub(crate) struct Input {
    /// The values: `f32`, dense and row-major from the start of their buffer.
    pub(crate) tensor: FlexTensor,
    /// Whether the input wants a gradient.
    pub(crate) tracked: bool,
    /// The input's place in the autodiff graph; a place of its own, known to nobody, without autodiff.
    pub(crate) node: NodeGuard,
}

/// How the output of a fused op joins the autodiff graph, if there is one.
#[derive(Clone, Copy)]
pub(crate) struct Graph(DispatchAutodiffContext);

/// The float inputs of an op, or all of them given back if they are not all `f32` tensors of Flex; the op then runs as
/// tensor operations.
pub(crate) fn inputs<const N: usize>(tensors: [DispatchTensor; N]) -> Result<(Graph, [Input; N]), [DispatchTensor; N]> {
    let contexts = tensors.each_ref().map(|t| t.autodiff);
    let disabled = DispatchAutodiffContext::Disabled;
    let context = contexts.into_iter().find(|c| *c != disabled).unwrap_or(disabled);
    let agree = contexts.iter().all(|c| *c == disabled || *c == context);
    if !agree || !tensors.iter().all(is_fusible) {
        return Err(tensors);
    }
    let inputs = tensors.map(|t| {
        let tensor = into_graph(t);
        let tracked = tensor.is_tracked();
        let (primitive, node) = tensor.into_parts();
        Input { tensor: dense(primitive), tracked, node }
    });
    Ok((Graph(context), inputs))
}

/// Whether the fused kernels can work on this tensor.
fn is_fusible(tensor: &DispatchTensor) -> bool {
    let on_flex = match &tensor.kind {
        DispatchTensorKind::Flex(BackendTensor::Float(_)) => true,
        DispatchTensorKind::Autodiff(inner) => {
            matches!(**inner, DispatchTensorKind::Flex(BackendTensor::Autodiff(_)))
        }
        _ => false,
    };
    on_flex && tensor.dtype() == DType::F32
}

/// A tensor that [`is_fusible`], as a member of a graph.
fn into_graph(tensor: DispatchTensor) -> GraphTensor {
    match tensor.kind {
        DispatchTensorKind::Flex(BackendTensor::Float(primitive)) => GraphTensor::new(primitive),
        DispatchTensorKind::Autodiff(inner) => match *inner {
            DispatchTensorKind::Flex(BackendTensor::Autodiff(tensor)) => tensor,
            _ => unreachable!("only tensors of Flex get here"),
        },
        _ => unreachable!("only tensors of Flex get here"),
    }
}

impl Graph {
    /// Wraps an op's output; if an input is tracked, `op` computes the gradients from `state`.
    pub(crate) fn finish<Op: Backward<Flex, N>, const N: usize, const D: usize>(
        self,
        op: Op,
        nodes: [NodeGuard; N],
        output: FlexTensor,
        state: impl FnOnce() -> Op::State,
    ) -> Tensor<D> {
        if self.0 == DispatchAutodiffContext::Disabled {
            return Tensor::from_primitive::<Flex>(output);
        }
        self.wrap(match op.prepare::<NoCheckpointing>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => prepared.finish(state(), output),
            OpsKind::UnTracked(prepared) => prepared.finish(output),
        })
    }

    /// Wraps an output that never has a gradient.
    pub(crate) fn constant<const D: usize>(self, output: FlexTensor) -> Tensor<D> {
        if self.0 == DispatchAutodiffContext::Disabled {
            return Tensor::from_primitive::<Flex>(output);
        }
        self.wrap(GraphTensor::new(output))
    }

    fn wrap<const D: usize>(self, output: GraphTensor) -> Tensor<D> {
        let kind = DispatchTensorKind::Flex(BackendTensor::Autodiff(output));
        Tensor::from_dispatch(DispatchTensor { kind: DispatchTensorKind::Autodiff(Box::new(kind)), autodiff: self.0 })
    }
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
