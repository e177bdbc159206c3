//! Owns how ops with a backward pass by hand join an autodiff graph, on any device; never computes.

use burn::Tensor;
use burn::backend::autodiff::checkpoint::strategy::NoCheckpointing;
use burn::backend::autodiff::ops::{NodeGuard, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{
    Autodiff, Backend, BackendTensor, DispatchAutodiffContext, DispatchTensor, DispatchTensorKind, Flex,
};

pub(crate) use burn::backend::autodiff::checkpoint::base::Checkpointer;
pub(crate) use burn::backend::autodiff::grads::Gradients;
pub(crate) use burn::backend::autodiff::ops::{Backward, Ops};

/// A backend whose tensors burn's dispatch holds.
pub(crate) trait Place: Backend {
    /// Whether it holds this tensor (without autodiff around it).
    fn holds(kind: &DispatchTensorKind) -> bool;

    /// A tensor that it holds.
    fn open(kind: DispatchTensorKind) -> BackendTensor<Self>;

    /// A tensor for the dispatch.
    fn close(tensor: BackendTensor<Self>) -> DispatchTensorKind;
}

macro_rules! place {
    ($backend:ident) => {
        impl Place for $backend {
            fn holds(kind: &DispatchTensorKind) -> bool {
                matches!(kind, DispatchTensorKind::$backend(_))
            }

            #[allow(unreachable_patterns)]
            fn open(kind: DispatchTensorKind) -> BackendTensor<Self> {
                match kind {
                    DispatchTensorKind::$backend(tensor) => tensor,
                    _ => unreachable!("a tensor of another backend"),
                }
            }

            fn close(tensor: BackendTensor<Self>) -> DispatchTensorKind {
                DispatchTensorKind::$backend(tensor)
            }
        }
    };
}

place!(Flex);
#[cfg(any(feature = "cuda", feature = "rocm", feature = "wgpu"))]
use burn::backend::Cube;
#[cfg(any(feature = "cuda", feature = "rocm", feature = "wgpu"))]
place!(Cube);

/// `op::<B>(tensors, arguments)` for the backend `B` that holds the tensors; `Err` with the tensors if none does.
macro_rules! on_any_backend {
    ($op:ident($tensors:expr $(, $argument:expr)*)) => {{
        let done = $op::<burn::backend::Flex>($tensors $(, $argument)*);
        #[cfg(any(feature = "cuda", feature = "rocm", feature = "wgpu"))]
        let done = done.or_else(|tensors| $op::<burn::backend::Cube>(tensors $(, $argument)*));
        done
    }};
}
pub(crate) use on_any_backend;

/// An input of an op.
pub(crate) struct Input<B: Backend> {
    /// The values.
    pub(crate) tensor: FloatTensor<B>,
    /// Whether the input wants a gradient.
    pub(crate) tracked: bool,
    /// The input's place in the autodiff graph; a place of its own, known to nobody, without autodiff.
    pub(crate) node: NodeGuard,
}

/// How the output of an op joins the autodiff graph, if there is one.
#[derive(Clone, Copy)]
pub(crate) struct Graph(DispatchAutodiffContext);

/// The float inputs of an op, or all of them given back if `B` does not hold them all, or they belong to graphs that do
/// not go together.
pub(crate) fn inputs<B: Place, const N: usize>(
    tensors: [DispatchTensor; N],
) -> Result<(Graph, [Input<B>; N]), [DispatchTensor; N]> {
    let contexts = tensors.each_ref().map(|t| t.autodiff);
    let disabled = DispatchAutodiffContext::Disabled;
    let context = contexts.into_iter().find(|c| *c != disabled).unwrap_or(disabled);
    let agree = contexts.iter().all(|c| *c == disabled || *c == context);
    if !agree || !tensors.iter().all(held::<B>) {
        return Err(tensors);
    }
    let inputs = tensors.map(|t| {
        let tensor = into_graph::<B>(t);
        let tracked = tensor.is_tracked();
        let (tensor, node) = tensor.into_parts();
        Input { tensor, tracked, node }
    });
    Ok((Graph(context), inputs))
}

fn held<B: Place>(tensor: &DispatchTensor) -> bool {
    match &tensor.kind {
        DispatchTensorKind::Autodiff(inner) => B::holds(inner),
        kind => B::holds(kind),
    }
}

/// A float tensor that `B` holds, as a member of a graph.
fn into_graph<B: Place>(tensor: DispatchTensor) -> FloatTensor<Autodiff<B>> {
    let kind = match tensor.kind {
        DispatchTensorKind::Autodiff(inner) => *inner,
        kind => kind,
    };
    match B::open(kind) {
        BackendTensor::Autodiff(tensor) => tensor,
        tensor => FloatTensor::<Autodiff<B>>::new(tensor.float()),
    }
}

impl Graph {
    /// Wraps an op's output; if an input is tracked, `op` computes the gradients from `state`.
    pub(crate) fn finish<B: Place, Op: Backward<B, N>, const N: usize, const D: usize>(
        self,
        op: Op,
        nodes: [NodeGuard; N],
        output: FloatTensor<B>,
        state: impl FnOnce() -> Op::State,
    ) -> Tensor<D> {
        if self.0 == DispatchAutodiffContext::Disabled {
            return tensor::<B, D>(output);
        }
        self.wrap::<B, D>(match op.prepare::<NoCheckpointing>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => prepared.finish(state(), output),
            OpsKind::UnTracked(prepared) => prepared.finish(output),
        })
    }

    /// Wraps an output that never has a gradient.
    pub(crate) fn constant<B: Place, const D: usize>(self, output: FloatTensor<B>) -> Tensor<D> {
        if self.0 == DispatchAutodiffContext::Disabled {
            return tensor::<B, D>(output);
        }
        self.wrap::<B, D>(FloatTensor::<Autodiff<B>>::new(output))
    }

    fn wrap<B: Place, const D: usize>(self, output: FloatTensor<Autodiff<B>>) -> Tensor<D> {
        let kind = DispatchTensorKind::Autodiff(Box::new(B::close(BackendTensor::Autodiff(output))));
        Tensor::from_dispatch(DispatchTensor { kind, autodiff: self.0 })
    }
}

/// A tensor without autodiff.
pub(crate) fn tensor<B: Place, const D: usize>(primitive: FloatTensor<B>) -> Tensor<D> {
    let kind = B::close(BackendTensor::Float(primitive));
    Tensor::from_dispatch(DispatchTensor { kind, autodiff: DispatchAutodiffContext::Disabled })
}

/// What `B` holds of a tensor without autodiff.
pub(crate) fn primitive<B: Place, const D: usize>(tensor: Tensor<D>) -> FloatTensor<B> {
    B::open(tensor.into_dispatch().kind).float()
}
