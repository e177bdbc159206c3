//! Owns the second half of a gated feed-forward block, activation and linear map, as one op; never keeps what stands
//! between the two for the backward pass.

use super::flex::{self, Backward, Checkpointer, Gradients, Ops, dims, floats, floats_mut};
use super::gemm::{Made, Mat, Panels, Rows, product};
use super::glu::Gate;
use super::linear::{FEW_ROWS, few_rows};
use super::parallel::{CHUNK, chunks_mut2, written};
use super::scratch::Scratch;
use super::simd::Isa;
use super::{gated, linear};
use burn::Tensor;
use burn::backend::Flex;
use burn::backend::flex::FlexTensor;
use std::mem::MaybeUninit;
use std::ops::Range;

/// Gradients of activations that stand in memory at a time: 4 MiB of them.
const GRADIENTS: usize = 1 << 20;

/// [`gated`] activations of `gate` and `up` `[n, inner]` through weights `w` `[out, inner]`, giving `[n, out]`:
/// `(silu(gate) · up) · wᵀ`, or with the GELU in place of the SiLU.
///
/// # Panics
/// If the shapes do not fit together.
pub fn gated_linear(kind: Gate, gate: Tensor<2>, up: Tensor<2>, w: Tensor<2>) -> Tensor<2> {
    assert_eq!(gate.dims(), up.dims(), "gated activation: gate and up differ in shape");
    assert_eq!(gate.dims()[1], w.dims()[1], "linear: inputs and weights differ in their number of features");
    match flex::inputs([gate.into_dispatch(), up.into_dispatch(), w.into_dispatch()]) {
        Ok((graph, inputs)) => {
            let [gate, up, w] = inputs;
            let state = State { kind, gate: gate.tensor, up: up.tensor, w: w.tensor };
            let output = state.forward(Isa::detect());
            graph.finish(GatedLinear, [gate.node, up.node, w.node], output, || state)
        }
        Err(tensors) => {
            let [gate, up, w] = tensors.map(Tensor::<2>::from_dispatch);
            linear(gated(kind, gate, up), w)
        }
    }
}

/// Inputs of the op, which are all that its backward pass needs.
#[derive(Clone, Debug)]
struct State {
    kind: Gate,
    gate: FlexTensor,
    up: FlexTensor,
    w: FlexTensor,
}

impl State {
    fn forward(&self, isa: Isa) -> FlexTensor {
        let ([n, inner], [out, _]) = (dims(&self.gate), dims(&self.w));
        let w = floats(&self.w);
        let y = written(n * out, |y| {
            if n <= FEW_ROWS && inner > 0 {
                let mut rows = Scratch::new(n * inner);
                let (gate, up) = (floats(&self.gate), floats(&self.up));
                let rows = self.kind.apply(isa, gate, up, &mut rows.uninit()[..n * inner]);
                few_rows(isa, rows, w, inner, y)
            } else {
                product(isa, Made(isa, self), Mat::new(w, out, inner).t(), y)
            }
        });
        flex::tensor(y, [n, out])
    }

    /// The gradient of the weights, for the upstream gradient `g`.
    fn weight_gradient(&self, isa: Isa, g: Mat) -> FlexTensor {
        let [out, inner] = dims(&self.w);
        flex::tensor(written(out * inner, |dw| product(isa, g.t(), Made(isa, self), dw)), [out, inner])
    }

    /// The gradients of gate and up, in their places: nobody else reads them by now.
    fn gradients(self, isa: Isa, g: &[f32]) -> [FlexTensor; 2] {
        let Self { kind, mut gate, mut up, w } = self;
        let ([n, inner], [out, _]) = (dims(&gate), dims(&w));
        let rows = (GRADIENTS / inner.max(1)).clamp(1, n.max(1));
        let mut scratch = Scratch::new(rows * inner);
        let w = Panels::right(isa, Mat::new(floats(&w), out, inner));
        let (gates, ups) = (floats_mut(&mut gate), floats_mut(&mut up));
        for start in (0..n).step_by(rows) {
            let end = (start + rows).min(n);
            let g = Mat::new(&g[start * out..end * out], end - start, out);
            let slopes = &*product(isa, g, &w, &mut scratch.uninit()[..(end - start) * inner]);
            let part = start * inner..end * inner;
            chunks_mut2((&mut gates[part.clone()], CHUNK), (&mut ups[part], CHUNK), |chunk, gate, up| {
                kind.gradients(isa, &slopes[chunk * CHUNK..], gate, up);
            });
        }
        [gate, up]
    }
}

/// The gated activations.
impl Rows for State {
    fn dims(&self) -> [usize; 2] {
        dims(&self.gate)
    }

    fn part<'a>(
        &self,
        isa: Isa,
        row: usize,
        columns: Range<usize>,
        places: &'a mut [MaybeUninit<f32>],
    ) -> &'a mut [f32] {
        let [_, inner] = self.dims();
        let part = row * inner + columns.start..row * inner + columns.end;
        self.kind.apply(isa, &floats(&self.gate)[part.clone()], &floats(&self.up)[part], places)
    }
}

/// Backward of a gated activation and its linear map.
#[derive(Debug)]
struct GatedLinear;

impl Backward<Flex, 3> for GatedLinear {
    type State = State;

    fn backward(self, ops: Ops<State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let isa = Isa::detect();
        let g = flex::dense(grads.consume::<Flex>(&ops.node));
        let [gate_node, up_node, w_node] = ops.parents;
        let ([n, _], [out, _]) = (dims(&ops.state.gate), dims(&ops.state.w));
        if let Some(node) = w_node {
            grads.register::<Flex>(node.id, ops.state.weight_gradient(isa, Mat::new(floats(&g), n, out)));
        }
        if gate_node.is_none() && up_node.is_none() {
            return;
        }
        let gradients = ops.state.gradients(isa, floats(&g));
        for (node, gradient) in [gate_node, up_node].into_iter().zip(gradients) {
            if let Some(node) = node {
                grads.register::<Flex>(node.id, gradient);
            }
        }
    }
}
