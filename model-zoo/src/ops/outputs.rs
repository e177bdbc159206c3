//! Owns how an op with several outputs joins the autodiff graph, whose ops have one; never computes.
//!
//! The op itself is a hub with an output that nobody reads, and each real output is a child of the hub that keeps the
//! gradient it gets for the hub. Children come before their parents in the backward pass, so the hub finds all of them.

use super::flex::{self, Backward, Checkpointer, Gradients, Graph, Ops};
use burn::Tensor;
use burn::backend::Flex;
use burn::backend::autodiff::ops::NodeGuard;
use burn::backend::flex::FlexTensor;
use std::sync::{Arc, Mutex, PoisonError};

/// The gradients of an op's outputs, as they arrive; `None` for an output that the loss does not read.
#[derive(Clone, Debug)]
pub(super) struct Arrived(Arc<Mutex<Vec<Option<FlexTensor>>>>);

impl Arrived {
    /// The gradients that have arrived, in the order of the outputs.
    pub(super) fn take(&self) -> Vec<Option<FlexTensor>> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Joins an op with the outputs `values`, `[rows, columns]` each, to the graph. Its [`Backward`] must consume the gradient
/// of its node, which means nothing, and take those of the outputs from what `state` was given.
pub(super) fn finish<Op: Backward<Flex, M>, const N: usize, const M: usize>(
    graph: Graph,
    op: Op,
    nodes: [NodeGuard; M],
    values: [FlexTensor; N],
    state: impl FnOnce(Arrived) -> Op::State,
) -> [Tensor<2>; N] {
    let arrived = Arrived(Arc::new(Mutex::new(vec![None; N])));
    let hub: Tensor<1> = graph.finish(op, nodes, nothing(), || state(arrived.clone()));
    let mut values = values.into_iter().enumerate();
    std::array::from_fn(|_| match (values.next(), flex::inputs([hub.clone().into_dispatch()])) {
        (Some((index, value)), Ok((graph, [hub]))) if hub.tracked => {
            graph.finish(Output, [hub.node], value, || (arrived.clone(), index))
        }
        (Some((_, value)), _) => graph.constant::<Flex, _>(value),
        (None, _) => unreachable!("there is a value for every output"),
    })
}

/// The value of a hub, and its gradient.
fn nothing() -> FlexTensor {
    flex::tensor(vec![0.0], [1])
}

/// Backward of one output: hands its gradient to the hub.
#[derive(Debug)]
struct Output;

impl Backward<Flex, 1> for Output {
    type State = (Arrived, usize);

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let gradient = flex::dense(grads.consume::<Flex>(&ops.node));
        let (arrived, index) = ops.state;
        if let Some(place) = arrived.0.lock().unwrap_or_else(PoisonError::into_inner).get_mut(index) {
            *place = Some(gradient);
        }
        if let [Some(hub)] = ops.parents {
            grads.register::<Flex>(hub.id, nothing());
        }
    }
}
