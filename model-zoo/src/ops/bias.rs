//! Owns adding one row to all rows of a matrix and its gradients; never touches what the rows are.

use super::flex::{self, Backward, Checkpointer, Gradients, Ops, dims, floats, floats_mut};
use super::parallel::{chunks_mut, chunks_mut2, rows_per_task};
use super::reference;
use super::simd::{Isa, add_assign};
use burn::Tensor;
use burn::backend::Flex;

/// Rows that are summed before the sums are added, in order.
const SUMMED_ROWS: usize = 64;

/// `x` `[n, d]` with `b` `[d]` added to every row.
///
/// # Panics
/// If `b` has not as many elements as a row of `x`.
pub fn add_bias(x: Tensor<2>, b: Tensor<1>) -> Tensor<2> {
    assert_eq!(x.dims()[1], b.dims()[0], "add_bias: rows and biases differ in length");
    match flex::inputs([x.into_dispatch(), b.into_dispatch()]) {
        Ok((graph, [mut x, b])) => {
            let (isa, d, bias) = (Isa::detect(), dims(&x.tensor)[1], floats(&b.tensor));
            chunks_mut(floats_mut(&mut x.tensor), rows_per_task(d) * d, |_, rows| {
                rows.chunks_exact_mut(d).for_each(|row| add_assign(isa, row, bias));
            });
            graph.finish(AddBias, [x.node, b.node], x.tensor, || ())
        }
        Err([x, b]) => reference::add_bias(Tensor::from_dispatch(x), Tensor::from_dispatch(b)),
    }
}

/// Backward of [`add_bias`]: the gradient goes to `x` as it is, and summed over the rows to `b`.
#[derive(Debug)]
struct AddBias;

impl Backward<Flex, 2> for AddBias {
    type State = ();

    fn backward(self, ops: Ops<(), 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let g = flex::dense(grads.consume::<Flex>(&ops.node));
        let [x_node, b_node] = ops.parents;
        if let Some(node) = b_node {
            let d = dims(&g)[1];
            grads.register::<Flex>(node.id, flex::tensor(column_sums(Isa::detect(), floats(&g), d), [d]));
        }
        if let Some(node) = x_node {
            grads.register::<Flex>(node.id, g);
        }
    }
}

/// Sums of the columns of `g`, rows of `d` elements.
pub(crate) fn column_sums(isa: Isa, g: &[f32], d: usize) -> Vec<f32> {
    let mut blocks = vec![(); (g.len() / d.max(1)).div_ceil(SUMMED_ROWS)];
    let mut shares = vec![0.0; blocks.len() * d];
    chunks_mut2((&mut shares, d), (&mut blocks, 1), |block, share, _| {
        let start = block * SUMMED_ROWS * d;
        for row in g[start..g.len().min(start + SUMMED_ROWS * d)].chunks_exact(d) {
            add_assign(isa, share, row);
        }
    });
    let mut sums = vec![0.0; d];
    chunks_mut(&mut sums, 1 << 12, |start, sums| {
        for share in shares.chunks_exact(d) {
            add_assign(isa, sums, &share[start..start + sums.len()]);
        }
    });
    sums
}
