//! Owns the gated activation of the feed-forward block and its gradients; never touches its projections.

use super::flex::{self, Backward, Checkpointer, Gradients, Input, Ops, dims, floats, floats_mut};
use super::parallel::{CHUNK, chunks_mut, chunks_mut2, initialised, written};
use super::reference;
use super::simd::{Isa, exp, mul_add, multiversion};
use burn::Tensor;
use burn::backend::Flex;
use burn::backend::flex::FlexTensor;
use std::mem::MaybeUninit;

/// `silu(gate) · up` elementwise, both `[n, d]`, with `silu(z) = z / (1 + e^-z)`.
///
/// N. Shazeer, "GLU Variants Improve Transformer", 2020.
///
/// # Panics
/// If the shapes differ.
pub fn swiglu(gate: Tensor<2>, up: Tensor<2>) -> Tensor<2> {
    assert_eq!(gate.dims(), up.dims(), "swiglu: gate and up differ in shape");
    match flex::inputs([gate.into_dispatch(), up.into_dispatch()]) {
        Ok((graph, [gate, up])) => {
            let output = forward(Isa::detect(), &gate.tensor, &up.tensor);
            let (Input { tensor: gate, node: gate_node, .. }, Input { tensor: up, node: up_node, .. }) = (gate, up);
            graph.finish(SwiGlu, [gate_node, up_node], output, || (gate, up))
        }
        Err([gate, up]) => reference::swiglu(Tensor::from_dispatch(gate), Tensor::from_dispatch(up)),
    }
}

fn forward(isa: Isa, gate: &FlexTensor, up: &FlexTensor) -> FlexTensor {
    let [n, d] = dims(gate);
    let (gate, up) = (floats(gate), floats(up));
    let y = written(n * d, |y| {
        chunks_mut(y, CHUNK, |start, y| activate(isa, &gate[start..], &up[start..], y));
        // SAFETY: the chunks cover `y`, `gate` and `up` are as long, and `activate` writes a chunk whole.
        unsafe { initialised(y) }
    });
    flex::tensor(y, [n, d])
}

multiversion! {
    fn activate<FMA>(gate: &[f32], up: &[f32], y: &mut [MaybeUninit<f32>]) {
        for ((y, &gate), &up) in y.iter_mut().zip(gate).zip(up) {
            y.write(gate / (1.0 + exp::<FMA>(-gate)) * up);
        }
    }

    /// Turns `gate` and `up` into their gradients, for the upstream gradient `g`.
    fn gradients<FMA>(g: &[f32], gate: &mut [f32], up: &mut [f32]) {
        for ((&g, gate), up) in g.iter().zip(gate).zip(up) {
            let sigmoid = 1.0 / (1.0 + exp::<FMA>(-*gate));
            let silu = *gate * sigmoid;
            let slope = mul_add::<FMA>(silu, 1.0 - sigmoid, sigmoid);
            *gate = g * *up * slope;
            *up = g * silu;
        }
    }
}

/// Backward of [`swiglu`]; the state is `gate` and `up`.
#[derive(Debug)]
struct SwiGlu;

impl Backward<Flex, 2> for SwiGlu {
    type State = (FlexTensor, FlexTensor);

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let isa = Isa::detect();
        let g = flex::dense(grads.consume::<Flex>(&ops.node));
        let g = floats(&g);
        let (mut gate, mut up) = ops.state;
        // Nobody else reads the activations by now: their gradients take their places.
        chunks_mut2((floats_mut(&mut gate), CHUNK), (floats_mut(&mut up), CHUNK), |chunk, gate, up| {
            gradients(isa, &g[chunk * CHUNK..], gate, up);
        });
        for (node, gradient) in ops.parents.into_iter().zip([gate, up]) {
            if let Some(node) = node {
                grads.register::<Flex>(node.id, gradient);
            }
        }
    }
}
