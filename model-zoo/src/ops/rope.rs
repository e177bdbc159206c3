//! Owns the rotation of queries and keys by their positions; never touches the table of angles.

use super::anywhere;
use super::flex::{self, Backward, Checkpointer, Gradients, Input, Ops, dims, floats, floats_mut};
use super::parallel::{chunks_mut, rows_per_task};
use super::simd::{Isa, mul_add, multiversion};
use burn::Tensor;
use burn::backend::Flex;
use burn::backend::flex::FlexTensor;

/// Rotates every head of every row of `x` `[n, heads · head_dim]` by the row's angles, whose cosines and sines are
/// `cos` and `sin` `[n, head_dim / 2]`.
///
/// Elements `i` and `i + head_dim / 2` of a head form a pair (the "rotate half" convention of Hugging Face
/// checkpoints; J. Su et al., "RoFormer", 2021, pairs neighbours instead). `cos` and `sin` get no gradient.
///
/// # Panics
/// If the shapes do not fit together.
pub fn rope(x: Tensor<2>, cos: Tensor<2>, sin: Tensor<2>, heads: usize) -> Tensor<2> {
    let [n, width] = x.dims();
    assert_eq!(cos.dims(), sin.dims(), "rope: cosines and sines differ in shape");
    assert!(
        heads > 0 && cos.dims()[0] == n && cos.dims()[1] * 2 * heads == width,
        "rope: {width} columns are not {heads} heads of twice {} angles, or there are not {n} rows of angles",
        cos.dims()[1],
    );
    match flex::inputs([x.into_dispatch(), cos.into_dispatch(), sin.into_dispatch()]) {
        Ok((graph, [x, cos, sin])) => {
            let Input { tensor: mut output, node, .. } = x;
            let angles = Angles { cos: cos.tensor, sin: sin.tensor };
            rotate(Isa::detect(), &mut output, &angles, 1.0);
            graph.finish(Rope, [node], output, || angles)
        }
        Err(tensors) => anywhere::rope(tensors, heads),
    }
}

/// Cosines and sines of the angles of every row.
#[derive(Clone, Debug)]
struct Angles {
    cos: FlexTensor,
    sin: FlexTensor,
}

/// Rotates in place, forwards (`direction` 1) or back (-1).
fn rotate(isa: Isa, x: &mut FlexTensor, angles: &Angles, direction: f32) {
    let ([_, width], [_, half]) = (dims(x), dims(&angles.cos));
    if width == 0 {
        return;
    }
    let (cos, sin) = (floats(&angles.cos), floats(&angles.sin));
    let rows = rows_per_task(width);
    chunks_mut(floats_mut(x), rows * width, |start, x| {
        let first = start / width;
        for (i, row) in x.chunks_exact_mut(width).enumerate() {
            let angles = (first + i) * half..(first + i + 1) * half;
            rotate_row(isa, row, &cos[angles.clone()], &sin[angles], direction);
        }
    });
}

multiversion! {
    fn rotate_row<FMA>(row: &mut [f32], cos: &[f32], sin: &[f32], direction: f32) {
        for head in row.chunks_exact_mut(2 * cos.len()) {
            let (first, second) = head.split_at_mut(cos.len());
            for (((a, b), &cos), &sin) in first.iter_mut().zip(second).zip(cos).zip(sin) {
                let sin = sin * direction;
                let rotated = mul_add::<FMA>(*a, cos, -*b * sin);
                *b = mul_add::<FMA>(*b, cos, *a * sin);
                *a = rotated;
            }
        }
    }
}

/// Backward of [`rope`]: the rotation by the opposite angles.
#[derive(Debug)]
struct Rope;

impl Backward<Flex, 1> for Rope {
    type State = Angles;

    fn backward(self, ops: Ops<Angles, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let mut g = flex::dense(grads.consume::<Flex>(&ops.node));
        let [node] = ops.parents;
        if let Some(node) = node {
            rotate(Isa::detect(), &mut g, &ops.state, -1.0);
            grads.register::<Flex>(node.id, g);
        }
    }
}
