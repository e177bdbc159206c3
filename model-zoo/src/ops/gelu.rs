//! Owns the GELU activation and its gradient; never touches the projections around it.

use super::flex::{self, Backward, Checkpointer, Gradients, Input, Ops, floats, floats_mut};
use super::glu::{gelu_shares, gelu_slope};
use super::parallel::{CHUNK, chunks_mut, initialised, written};
use super::reference;
use super::simd::{Isa, multiversion};
use burn::Tensor;
use burn::backend::Flex;
use burn::backend::flex::FlexTensor;
use std::mem::MaybeUninit;

/// `0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x³)))` elementwise, `[n, d]`: the approximation that GPT-2 calls
/// `gelu_new` and others `gelu_pytorch_tanh`.
///
/// D. Hendrycks, K. Gimpel, "Gaussian Error Linear Units (GELUs)", 2016.
pub fn gelu_tanh(x: Tensor<2>) -> Tensor<2> {
    match flex::inputs([x.into_dispatch()]) {
        Ok((graph, [Input { tensor: x, node, .. }])) => {
            let output = forward(Isa::detect(), &x);
            graph.finish(GeluTanh, [node], output, || x)
        }
        Err([x]) => reference::gelu_tanh(Tensor::from_dispatch(x)),
    }
}

fn forward(isa: Isa, x: &FlexTensor) -> FlexTensor {
    let values = floats(x);
    let y = written(values.len(), |y| {
        chunks_mut(y, CHUNK, |start, y| activate(isa, &values[start..], y));
        // SAFETY: the chunks cover `y`, `values` is as long, and `activate` writes a chunk whole.
        unsafe { initialised(y) }
    });
    flex::like(y, x)
}

multiversion! {
    fn activate<FMA>(x: &[f32], y: &mut [MaybeUninit<f32>]) {
        for (y, &x) in y.iter_mut().zip(x) {
            y.write(x * gelu_shares::<FMA>(x).0);
        }
    }

    /// Turns `x` into its gradient, for the upstream gradient `g`.
    fn gradient<FMA>(g: &[f32], x: &mut [f32]) {
        for (x, &g) in x.iter_mut().zip(g) {
            *x = g * gelu_slope::<FMA>(*x, gelu_shares::<FMA>(*x));
        }
    }
}

/// Backward of [`gelu_tanh`]; the state is `x`.
#[derive(Debug)]
struct GeluTanh;

impl Backward<Flex, 1> for GeluTanh {
    type State = FlexTensor;

    fn backward(self, ops: Ops<FlexTensor, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let isa = Isa::detect();
        let g = flex::dense(grads.consume::<Flex>(&ops.node));
        let g = floats(&g);
        let mut x = ops.state;
        // Nobody else reads the activations by now: their gradients take their places.
        chunks_mut(floats_mut(&mut x), CHUNK, |start, x| gradient(isa, &g[start..], x));
        let [node] = ops.parents;
        if let Some(node) = node {
            grads.register::<Flex>(node.id, x);
        }
    }
}
