//! Owns adding a bias to rows and its gradients; never touches the products before it.

use super::flex::{self, Backward, Checkpointer, Gradients, Input, Ops, dims, floats, floats_mut};
use super::parallel::{chunks_mut, rows_per_task};
use super::reference;
use super::simd::{Isa, add_assign};
use burn::Tensor;
use burn::backend::Flex;

/// Rows whose share of the bias's gradient is summed before the shares are added, in order.
const GRADIENT_ROWS: usize = 64;

/// `x + bias` for every row of `x` `[n, d]`, with `bias` `[d]`, which is cast to the dtype of `x`.
///
/// # Panics
/// If `bias` has not as many elements as a row of `x`.
pub fn add_bias(x: Tensor<2>, bias: Tensor<1>) -> Tensor<2> {
    assert_eq!(x.dims()[1], bias.dims()[0], "add_bias: rows and bias differ in length");
    match flex::inputs([x.into_dispatch(), bias.into_dispatch()]) {
        Ok((graph, [x, bias])) => {
            let (isa, [n, d]) = (Isa::detect(), dims(&x.tensor));
            let Input { tensor: mut output, node: x_node, .. } = x;
            let row = floats(&bias.tensor);
            chunks_mut(floats_mut(&mut output), rows_per_task(d) * d.max(1), |_, rows| {
                rows.chunks_mut(d.max(1)).for_each(|x| add_assign(isa, x, row));
            });
            graph.finish(AddBias, [x_node, bias.node], output, || [n, d])
        }
        Err([x, bias]) => reference::add_bias(Tensor::from_dispatch(x), Tensor::from_dispatch(bias)),
    }
}

/// Backward of [`add_bias`]; the state is the shape of the rows.
#[derive(Debug)]
struct AddBias;

impl Backward<Flex, 2> for AddBias {
    type State = [usize; 2];

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let (isa, [n, d]) = (Isa::detect(), ops.state);
        let g = flex::dense(grads.consume::<Flex>(&ops.node));
        let [x_node, bias_node] = ops.parents;
        if let Some(node) = bias_node {
            let gradient = column_sums(isa, floats(&g), n, d);
            grads.register::<Flex>(node.id, flex::tensor(gradient, [d]));
        }
        if let Some(node) = x_node {
            grads.register::<Flex>(node.id, g);
        }
    }
}

/// Sums of the columns of `g` `[n, d]`.
pub(crate) fn column_sums(isa: Isa, g: &[f32], n: usize, d: usize) -> Vec<f32> {
    let mut shares = vec![0.0; n.div_ceil(GRADIENT_ROWS) * d];
    chunks_mut(&mut shares, d.max(1), |start, share| {
        // `start` is the number of the block times `d`.
        for row in g[start * GRADIENT_ROWS..].chunks_exact(d.max(1)).take(GRADIENT_ROWS) {
            add_assign(isa, share, row);
        }
    });
    let mut sums = vec![0.0; d];
    chunks_mut(&mut sums, 1 << 12, |start, sums| {
        for share in shares.chunks_exact(d.max(1)) {
            add_assign(isa, sums, &share[start..start + sums.len()]);
        }
    });
    sums
}
