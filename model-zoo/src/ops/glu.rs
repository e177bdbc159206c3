//! Owns the gated activations of the feed-forward block and their gradients; never touches its projections.

use super::anywhere;
use super::flex::{self, Backward, Checkpointer, Gradients, Input, Ops, dims, floats, floats_mut};
use super::parallel::{CHUNK, chunks_mut, chunks_mut2, initialised, written};
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
    gated(Gate::Silu, gate, up)
}

/// `gelu(gate) · up` elementwise, both `[n, d]`, with the GELU approximated by a hyperbolic tangent.
///
/// D. Hendrycks, K. Gimpel, "Gaussian Error Linear Units", 2016; N. Shazeer, "GLU Variants Improve Transformer", 2020.
///
/// # Panics
/// If the shapes differ.
pub fn geglu(gate: Tensor<2>, up: Tensor<2>) -> Tensor<2> {
    gated(Gate::GeluTanh, gate, up)
}

/// What a gated feed-forward block does to its gate.
#[derive(Clone, Copy, Debug)]
pub enum Gate {
    /// The sigmoid linear unit: [`swiglu`].
    Silu,
    /// The Gaussian error linear unit, approximated by a hyperbolic tangent: [`geglu`].
    GeluTanh,
}

impl Gate {
    /// The gated activations of some elements.
    pub(super) fn apply<'a>(self, isa: Isa, gate: &[f32], up: &[f32], y: &'a mut [MaybeUninit<f32>]) -> &'a mut [f32] {
        assert!(gate.len() == y.len() && up.len() == y.len(), "gated activation: the lengths differ");
        match self {
            Self::Silu => silu(isa, gate, up, y),
            Self::GeluTanh => gelu(isa, gate, up, y),
        }
        // SAFETY: the activations write as many places as gate and up are long, which is all of them.
        unsafe { initialised(y) }
    }

    /// Turns `gate` and `up` into their gradients, for the upstream gradient `g`.
    pub(super) fn gradients(self, isa: Isa, g: &[f32], gate: &mut [f32], up: &mut [f32]) {
        match self {
            Self::Silu => silu_gradients(isa, g, gate, up),
            Self::GeluTanh => gelu_gradients(isa, g, gate, up),
        }
    }
}

/// [`swiglu`] or [`geglu`] of `gate` and `up`, both `[n, d]`.
///
/// # Panics
/// If the shapes differ.
pub fn gated(kind: Gate, gate: Tensor<2>, up: Tensor<2>) -> Tensor<2> {
    assert_eq!(gate.dims(), up.dims(), "gated activation: gate and up differ in shape");
    match flex::inputs([gate.into_dispatch(), up.into_dispatch()]) {
        Ok((graph, [gate, up])) => {
            let output = forward(Isa::detect(), kind, &gate.tensor, &up.tensor);
            let (Input { tensor: gate, node: gate_node, .. }, Input { tensor: up, node: up_node, .. }) = (gate, up);
            graph.finish(Gated(kind), [gate_node, up_node], output, || (gate, up))
        }
        Err(tensors) => anywhere::gated(kind, tensors),
    }
}

fn forward(isa: Isa, kind: Gate, gate: &FlexTensor, up: &FlexTensor) -> FlexTensor {
    let [n, d] = dims(gate);
    let (gate, up) = (floats(gate), floats(up));
    let y = written(n * d, |y| {
        chunks_mut(y, CHUNK, |start, y| {
            let part = start..start + y.len();
            kind.apply(isa, &gate[part.clone()], &up[part], y);
        });
        // SAFETY: the chunks cover `y`, and the activations write a chunk whole.
        unsafe { initialised(y) }
    });
    flex::tensor(y, [n, d])
}

/// Beyond this the GELU is 0 or the identity to all bits; its cubes might overflow further out.
const GELU_FLAT: f32 = 12.0;
/// `2 * sqrt(2 / pi)`.
const GELU_SLOPE: f32 = 1.595_769_2;
const GELU_CUBE: f32 = 0.044_715;

/// `(1 + tanh(u)) / 2` and `(1 - tanh(u)) / 2` of the GELU's `u`, as logistic functions of `2u`, which do not cancel
/// where they are small.
#[inline(always)]
pub(super) fn gelu_shares<const FMA: bool>(x: f32) -> (f32, f32) {
    let x = x.clamp(-GELU_FLAT, GELU_FLAT);
    let twice = GELU_SLOPE * mul_add::<FMA>(GELU_CUBE * x * x, x, x);
    let e = exp::<FMA>(-twice);
    let share = 1.0 / (1.0 + e);
    (share, e.min(f32::MAX) * share)
}

/// The derivative of the GELU, of whose `x` [`gelu_shares`] are `share` and `other`.
#[inline(always)]
pub(super) fn gelu_slope<const FMA: bool>(x: f32, (share, other): (f32, f32)) -> f32 {
    let x = x.clamp(-GELU_FLAT, GELU_FLAT);
    let inner = GELU_SLOPE * mul_add::<FMA>(3.0 * GELU_CUBE * x, x, 1.0);
    mul_add::<FMA>(x * share * inner, other, share)
}

multiversion! {
    fn silu<FMA>(gate: &[f32], up: &[f32], y: &mut [MaybeUninit<f32>]) {
        for ((y, &gate), &up) in y.iter_mut().zip(gate).zip(up) {
            y.write(gate / (1.0 + exp::<FMA>(-gate)) * up);
        }
    }

    fn gelu<FMA>(gate: &[f32], up: &[f32], y: &mut [MaybeUninit<f32>]) {
        for ((y, &gate), &up) in y.iter_mut().zip(gate).zip(up) {
            y.write(gate * gelu_shares::<FMA>(gate).0 * up);
        }
    }

    /// Turns `gate` and `up` into their gradients, for the upstream gradient `g`.
    fn silu_gradients<FMA>(g: &[f32], gate: &mut [f32], up: &mut [f32]) {
        for ((&g, gate), up) in g.iter().zip(gate).zip(up) {
            let sigmoid = 1.0 / (1.0 + exp::<FMA>(-*gate));
            let silu = *gate * sigmoid;
            let slope = mul_add::<FMA>(silu, 1.0 - sigmoid, sigmoid);
            *gate = g * *up * slope;
            *up = g * silu;
        }
    }

    /// The same for the GELU.
    fn gelu_gradients<FMA>(g: &[f32], gate: &mut [f32], up: &mut [f32]) {
        for ((&g, gate), up) in g.iter().zip(gate).zip(up) {
            let (share, other) = gelu_shares::<FMA>(*gate);
            let gelu = *gate * share;
            let slope = gelu_slope::<FMA>(*gate, (share, other));
            *gate = g * *up * slope;
            *up = g * gelu;
        }
    }
}

/// Backward of a gated activation; the state is `gate` and `up`.
#[derive(Debug)]
struct Gated(Gate);

impl Backward<Flex, 2> for Gated {
    type State = (FlexTensor, FlexTensor);

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let isa = Isa::detect();
        let g = flex::dense(grads.consume::<Flex>(&ops.node));
        let g = floats(&g);
        let (mut gate, mut up) = ops.state;
        // Nobody else reads the activations by now: their gradients take their places.
        chunks_mut2((floats_mut(&mut gate), CHUNK), (floats_mut(&mut up), CHUNK), |chunk, gate, up| {
            self.0.gradients(isa, &g[chunk * CHUNK..], gate, up);
        });
        for (node, gradient) in ops.parents.into_iter().zip([gate, up]) {
            if let Some(node) = node {
                grads.register::<Flex>(node.id, gradient);
            }
        }
    }
}
