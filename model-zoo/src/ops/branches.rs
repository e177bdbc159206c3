//! Owns a tensor that several ops read: their gradients meet on all threads, in the place of one of them; never changes
//! values.
//!
//! burn adds the gradients of a tensor that is read twice on one thread, into a new buffer. In a transformer block that
//! happens five times (queries, keys and values; gate and up; twice the stream), while the other threads wait.

use super::flex::{self, Backward, Checkpointer, Gradients, Ops};
use super::reduce::sum;
use super::simd::Isa;
use burn::Tensor;
use burn::backend::Flex;
use burn::backend::flex::FlexTensor;
use std::sync::{Arc, Mutex, PoisonError};

/// `x` (any shape) for `N` readers. The gradient of `x` is the sum of theirs, in the order in which the backward pass reaches
/// them, which follows from the graph alone.
///
/// Every reader must contribute to the loss: the gradient is handed on when the last one has arrived. A debug build
/// panics where one did not, for the others' gradients were lost.
pub fn branches<const N: usize, const D: usize>(x: Tensor<D>) -> [Tensor<D>; N] {
    let state = Arc::new(Mutex::new(Sum { gradient: None, missing: N }));
    std::array::from_fn(|_| match flex::inputs([x.clone().into_dispatch()]) {
        Ok((graph, [input])) if input.tracked => {
            graph.finish(Branch, [input.node], input.tensor, || Arc::clone(&state))
        }
        _ => x.clone(),
    })
}

/// What has arrived of a gradient.
#[derive(Debug)]
struct Sum {
    gradient: Option<FlexTensor>,
    missing: usize,
}

impl Drop for Sum {
    fn drop(&mut self) {
        debug_assert!(
            self.gradient.is_none() || std::thread::panicking(),
            "{} readers of a tensor did not contribute to the loss",
            self.missing
        );
    }
}

/// Backward of one of the [`branches`]; the state is what they share.
#[derive(Debug)]
struct Branch;

impl Backward<Flex, 1> for Branch {
    type State = Arc<Mutex<Sum>>;

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let arrived = flex::dense(grads.consume::<Flex>(&ops.node));
        let mut shared = ops.state.lock().unwrap_or_else(PoisonError::into_inner);
        let total = match shared.gradient.take() {
            Some(total) => sum(Isa::detect(), arrived, total),
            None => arrived,
        };
        shared.missing = shared.missing.saturating_sub(1);
        let [parent] = ops.parents;
        match parent {
            Some(node) if shared.missing == 0 => grads.register::<Flex>(node.id, total),
            _ => shared.gradient = Some(total),
        }
    }
}
