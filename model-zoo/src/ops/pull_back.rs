//! Owns the beginning of a backward pass in the middle of a model; never touches what comes before or after it.

use super::flex::{self, Backward, Checkpointer, Gradients, Ops};
use super::reference;
use burn::Tensor;
use burn::backend::Flex;
use burn::backend::flex::FlexTensor;

/// A scalar `[1]` without meaning of its own, whose backward pass gives `output` (any shape) the gradient `gradient`
/// (the same shape).
///
/// # Panics
/// If the shapes differ.
pub fn pull_back<const D: usize>(output: Tensor<D>, gradient: Tensor<D>) -> Tensor<1> {
    assert_eq!(output.dims(), gradient.dims(), "pull_back: tensor and gradient differ in shape");
    match flex::inputs([output.into_dispatch(), gradient.into_dispatch()]) {
        Ok((graph, [output, gradient])) => {
            graph.finish(PullBack, [output.node], flex::tensor(vec![0.0], [1]), || gradient.tensor)
        }
        Err([output, gradient]) => {
            reference::pull_back(Tensor::<D>::from_dispatch(output), Tensor::from_dispatch(gradient))
        }
    }
}

/// Backward of [`pull_back`]: the gradient is what was given.
#[derive(Debug)]
struct PullBack;

impl Backward<Flex, 1> for PullBack {
    type State = FlexTensor;

    fn backward(self, ops: Ops<FlexTensor, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let _ = grads.consume::<Flex>(&ops.node);
        let [parent] = ops.parents;
        if let Some(node) = parent {
            grads.register::<Flex>(node.id, ops.state);
        }
    }
}
