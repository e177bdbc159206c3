//! Owns norms, gates and rotations as tensor operations that keep their inputs and nothing else for the backward pass.

use super::super::graph::{self, Backward, Checkpointer, Gradients, Ops, Place, on_any_backend};
use super::super::{Gate, reference};
use super::{plain, register, wide};
use burn::Tensor;
use burn::backend::DispatchTensor;
use burn::tensor::activation::sigmoid;

/// [`super::super::rms_norm`] of rows `[n, d]` and weights `[d]`.
pub(crate) fn rms_norm(tensors: [DispatchTensor; 2], eps: f64) -> Tensor<2> {
    on_any_backend!(rms_norm_on(tensors, eps))
        .unwrap_or_else(|[x, gamma]| reference::rms_norm(Tensor::from_dispatch(x), Tensor::from_dispatch(gamma), eps))
}

fn rms_norm_on<B: Place>(tensors: [DispatchTensor; 2], eps: f64) -> Result<Tensor<2>, [DispatchTensor; 2]> {
    let (graph, [x, gamma]) = graph::inputs::<B, 2>(tensors)?;
    let (rows, weights) = (plain::<B, 2>(&x), plain::<B, 1>(&gamma));
    let output = graph::primitive::<B, 2>(reference::rms_norm(rows.clone(), weights.clone(), eps));
    Ok(graph.finish::<B, _, 2, 2>(RmsNorm { eps }, [x.node, gamma.node], output, || (rows, weights)))
}

/// Backward of [`rms_norm`]; the state is the rows and the weights.
#[derive(Debug)]
struct RmsNorm {
    eps: f64,
}

impl<B: Place> Backward<B, 2> for RmsNorm {
    type State = (Tensor<2>, Tensor<1>);

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let g = wide(graph::tensor::<B, 2>(grads.consume::<B>(&ops.node)));
        let (x, gamma) = ops.state;
        let (x_dtype, gamma_dtype) = (x.dtype(), gamma.dtype());
        let (x, gamma) = (wide(x), wide(gamma));
        let inverse = (x.clone().square().mean_dim(1) + self.eps).sqrt().recip();
        let normed = x * inverse.clone();
        let [x_node, gamma_node] = ops.parents;
        if gamma_node.is_some() {
            let gradient = (g.clone() * normed.clone()).sum_dim(0).flatten(0, 1);
            register::<B, 1>(grads, gamma_node.map(|node| node.id), gradient, gamma_dtype);
        }
        if x_node.is_some() {
            let g = g * gamma.unsqueeze_dim(0);
            let along = (g.clone() * normed.clone()).mean_dim(1);
            register::<B, 2>(grads, x_node.map(|node| node.id), (g - normed * along) * inverse, x_dtype);
        }
    }
}

/// [`super::super::gated`] of gate and up, both `[n, d]`.
pub(crate) fn gated(kind: Gate, tensors: [DispatchTensor; 2]) -> Tensor<2> {
    on_any_backend!(gated_on(tensors, kind)).unwrap_or_else(|tensors| {
        let [gate, up] = tensors.map(Tensor::from_dispatch);
        activation(kind, gate, up)
    })
}

fn activation(kind: Gate, gate: Tensor<2>, up: Tensor<2>) -> Tensor<2> {
    match kind {
        Gate::Silu => reference::swiglu(gate, up),
        Gate::GeluTanh => reference::geglu(gate, up),
    }
}

fn gated_on<B: Place>(tensors: [DispatchTensor; 2], kind: Gate) -> Result<Tensor<2>, [DispatchTensor; 2]> {
    let (graph, inputs) = graph::inputs::<B, 2>(tensors)?;
    let [gate, up] = inputs.each_ref().map(plain::<B, 2>);
    let output = graph::primitive::<B, 2>(activation(kind, gate.clone(), up.clone()));
    Ok(graph.finish::<B, _, 2, 2>(Gated(kind), inputs.map(|input| input.node), output, || (gate, up)))
}

/// Backward of [`gated`]; the state is gate and up.
#[derive(Debug)]
struct Gated(Gate);

impl<B: Place> Backward<B, 2> for Gated {
    type State = (Tensor<2>, Tensor<2>);

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let g = wide(graph::tensor::<B, 2>(grads.consume::<B>(&ops.node)));
        let (gate, up) = ops.state;
        let dtype = gate.dtype();
        let (gate, up) = (wide(gate), wide(up));
        // Both gates are logistic functions times the gate, of the gate itself or of twice the u of the GELU.
        let root = 2.0 * (2.0 / std::f64::consts::PI).sqrt();
        let cube = gate.clone().square() * 0.044_715;
        let (z, slope) = match self.0 {
            Gate::Silu => (gate.clone(), None),
            Gate::GeluTanh => (gate.clone() * (cube.clone() + 1.0) * root, Some((cube * 3.0 + 1.0) * root)),
        };
        let share = sigmoid(z.clone());
        let active = gate * share.clone();
        // One minus the share, without the cancellation.
        let rest = active.clone() * sigmoid(z.neg());
        let rest = match slope {
            Some(slope) => rest * slope,
            None => rest,
        };
        let [gate_node, up_node] = ops.parents;
        register::<B, 2>(grads, gate_node.map(|node| node.id), g.clone() * up * (share + rest), dtype);
        register::<B, 2>(grads, up_node.map(|node| node.id), g * active, dtype);
    }
}

/// [`super::super::rope`] of rows and the cosines and sines of their angles.
pub(crate) fn rope(tensors: [DispatchTensor; 3], heads: usize) -> Tensor<2> {
    on_any_backend!(rope_on(tensors, heads)).unwrap_or_else(|tensors| {
        let [x, cos, sin] = tensors.map(Tensor::from_dispatch);
        reference::rope(x, cos, sin, heads)
    })
}

fn rope_on<B: Place>(tensors: [DispatchTensor; 3], heads: usize) -> Result<Tensor<2>, [DispatchTensor; 3]> {
    let (graph, inputs) = graph::inputs::<B, 3>(tensors)?;
    let [x, cos, sin] = inputs.each_ref().map(plain::<B, 2>);
    let output = graph::primitive::<B, 2>(reference::rope(x, cos.clone(), sin.clone(), heads));
    let [x, ..] = inputs;
    Ok(graph.finish::<B, _, 1, 2>(Rope { heads }, [x.node], output, || (cos, sin)))
}

/// Backward of [`rope`]: the rotation by the opposite angles, whose cosines and sines are the state.
#[derive(Debug)]
struct Rope {
    heads: usize,
}

impl<B: Place> Backward<B, 1> for Rope {
    type State = (Tensor<2>, Tensor<2>);

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let g = graph::tensor::<B, 2>(grads.consume::<B>(&ops.node));
        let dtype = g.dtype();
        let (cos, sin) = ops.state;
        let [node] = ops.parents;
        register::<B, 2>(grads, node.map(|node| node.id), reference::rope(g, cos, sin.neg(), self.heads), dtype);
    }
}
