//! Owns the softmax of rows and its gradient; never touches what is chosen by it.

use super::flex::{self, Backward, Checkpointer, Gradients, Input, Ops, dims, floats, floats_mut};
use super::parallel::{chunks_mut, rows_per_task};
use super::reference;
use super::simd::{Isa, dot, exp_in_place, max, scale};
use burn::Tensor;
use burn::backend::Flex;
use burn::backend::flex::FlexTensor;

/// `e^x` divided by its sum, for every row of `x` `[n, d]`; the same bits with and without autodiff.
pub fn softmax(x: Tensor<2>) -> Tensor<2> {
    match flex::inputs([x.into_dispatch()]) {
        Ok((graph, [Input { tensor: mut x, node, .. }])) => {
            let (isa, d) = (Isa::detect(), dims(&x)[1].max(1));
            chunks_mut(floats_mut(&mut x), rows_per_task(d) * d, |_, rows| {
                for row in rows.chunks_exact_mut(d) {
                    let top = max(isa, row);
                    let sum = exp_in_place(isa, row, top);
                    scale(isa, row, 1.0 / sum);
                }
            });
            let y = x.clone();
            graph.finish(Softmax, [node], x, || y)
        }
        Err([x]) => reference::softmax_rows(Tensor::from_dispatch(x)),
    }
}

/// Backward of [`softmax`]; the state is its output.
#[derive(Debug)]
struct Softmax;

impl Backward<Flex, 1> for Softmax {
    type State = FlexTensor;

    fn backward(self, ops: Ops<FlexTensor, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let (isa, y) = (Isa::detect(), floats(&ops.state));
        let mut g = flex::dense(grads.consume::<Flex>(&ops.node));
        let d = dims(&ops.state)[1].max(1);
        chunks_mut(floats_mut(&mut g), rows_per_task(d) * d, |start, rows| {
            for (g, y) in rows.chunks_exact_mut(d).zip(y[start..].chunks_exact(d)) {
                let mean = dot(isa, g, y);
                g.iter_mut().zip(y).for_each(|(g, y)| *g = (*g - mean) * y);
            }
        });
        let [node] = ops.parents;
        if let Some(node) = node {
            grads.register::<Flex>(node.id, g);
        }
    }
}
