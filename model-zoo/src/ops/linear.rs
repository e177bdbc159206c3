//! Owns the linear map of rows and its gradients; never touches biases or activations.

use super::flex::{self, Backward, Checkpointer, Gradients, Input, Ops, dims, floats};
use super::gemm::{Mat, product};
use super::parallel::{chunks_mut, initialised, written};
use super::reference;
use super::simd::{Isa, dot};
use burn::Tensor;
use burn::backend::Flex;
use burn::backend::flex::FlexTensor;
use std::mem::MaybeUninit;

/// Up to this many rows (a step of generation) reading the weights once is the whole cost, and packing them would
/// double it.
pub(crate) const FEW_ROWS: usize = 4;

/// `x · wᵀ`: rows `x` `[n, in]` through weights `w` `[out, in]`, giving `[n, out]`.
///
/// Computes in the dtype of `x`; weights of another dtype are cast to it.
///
/// # Panics
/// If `x` and `w` differ in their last dimension.
pub fn linear(x: Tensor<2>, w: Tensor<2>) -> Tensor<2> {
    assert_eq!(x.dims()[1], w.dims()[1], "linear: inputs and weights differ in their number of features");
    match flex::inputs([x.into_dispatch(), w.into_dispatch()]) {
        Ok((graph, [x, w])) => {
            let output = forward(Isa::detect(), &x.tensor, &w.tensor);
            let (Input { tensor: x, node: x_node, .. }, Input { tensor: w, node: w_node, .. }) = (x, w);
            graph.finish(Linear, [x_node, w_node], output, || (x, w))
        }
        Err([x, w]) => reference::linear(Tensor::from_dispatch(x), Tensor::from_dispatch(w)),
    }
}

fn forward(isa: Isa, x: &FlexTensor, w: &FlexTensor) -> FlexTensor {
    let ([n, features], [out, _]) = (dims(x), dims(w));
    let (x, w) = (floats(x), floats(w));
    let y = written(n * out, |y| {
        if n <= FEW_ROWS && features > 0 {
            few_rows(isa, x, w, features, y)
        } else {
            product(isa, Mat::new(x, n, features), Mat::new(w, out, features).t(), y)
        }
    });
    flex::tensor(y, [n, out])
}

/// `x · w`: rows `x` `[n, in]` through weights `w` `[in, out]`, giving `[n, out]`: [`linear`] for weights that are stored
/// transposed, as GPT-2 has them.
///
/// Computes in the dtype of `x`; weights of another dtype are cast to it.
///
/// # Panics
/// If a row of `x` has not as many elements as `w` has rows.
pub fn linear_in_out(x: Tensor<2>, w: Tensor<2>) -> Tensor<2> {
    assert_eq!(x.dims()[1], w.dims()[0], "linear_in_out: inputs and weights differ in their number of features");
    match flex::inputs([x.into_dispatch(), w.into_dispatch()]) {
        Ok((graph, [x, w])) => {
            let ([n, features], [_, out]) = (dims(&x.tensor), dims(&w.tensor));
            let (rows, weights) =
                (Mat::new(floats(&x.tensor), n, features), Mat::new(floats(&w.tensor), features, out));
            let y = written(n * out, |y| product(Isa::detect(), rows, weights, y));
            let (Input { tensor: x, node: x_node, .. }, Input { tensor: w, node: w_node, .. }) = (x, w);
            graph.finish(LinearInOut, [x_node, w_node], flex::tensor(y, [n, out]), || (x, w))
        }
        Err([x, w]) => reference::linear_in_out(Tensor::from_dispatch(x), Tensor::from_dispatch(w)),
    }
}

/// Every output as a dot product: reads the weights once and writes nothing between.
pub(crate) fn few_rows<'a>(
    isa: Isa,
    x: &[f32],
    w: &[f32],
    features: usize,
    y: &'a mut [MaybeUninit<f32>],
) -> &'a mut [f32] {
    const OUTPUTS: usize = 64;
    let out = w.len() / features;
    y.fill(MaybeUninit::new(0.0));
    // SAFETY: the line above wrote every element.
    let y = unsafe { initialised(y) };
    for (x, y) in x.chunks_exact(features).zip(y.chunks_exact_mut(out.max(1))) {
        chunks_mut(y, OUTPUTS, |start, y| {
            for (y, w) in y.iter_mut().zip(w[start * features..].chunks_exact(features)) {
                *y = dot(isa, x, w);
            }
        });
    }
    y
}

/// Backward of [`linear`]; the state is `x` and `w`.
#[derive(Debug)]
struct Linear;

impl Backward<Flex, 2> for Linear {
    type State = (FlexTensor, FlexTensor);

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let isa = Isa::detect();
        let g = flex::dense(grads.consume::<Flex>(&ops.node));
        let [x_node, w_node] = ops.parents;
        let (x, w) = ops.state;
        let ([n, features], [out, _]) = (dims(&x), dims(&w));
        let g = Mat::new(floats(&g), n, out);
        if let Some(node) = x_node {
            let dx = written(n * features, |dx| product(isa, g, Mat::new(floats(&w), out, features), dx));
            grads.register::<Flex>(node.id, flex::tensor(dx, [n, features]));
        }
        if let Some(node) = w_node {
            let dw = written(out * features, |dw| product(isa, g.t(), Mat::new(floats(&x), n, features), dw));
            grads.register::<Flex>(node.id, flex::tensor(dw, [out, features]));
        }
    }
}

/// Backward of [`linear_in_out`]; the state is `x` and `w`.
#[derive(Debug)]
struct LinearInOut;

impl Backward<Flex, 2> for LinearInOut {
    type State = (FlexTensor, FlexTensor);

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let isa = Isa::detect();
        let g = flex::dense(grads.consume::<Flex>(&ops.node));
        let [x_node, w_node] = ops.parents;
        let (x, w) = ops.state;
        let ([n, features], [_, out]) = (dims(&x), dims(&w));
        let g = Mat::new(floats(&g), n, out);
        if let Some(node) = x_node {
            let dx = written(n * features, |dx| product(isa, g, Mat::new(floats(&w), features, out).t(), dx));
            grads.register::<Flex>(node.id, flex::tensor(dx, [n, features]));
        }
        if let Some(node) = w_node {
            let dw = written(features * out, |dw| product(isa, Mat::new(floats(&x), n, features).t(), g, dw));
            grads.register::<Flex>(node.id, flex::tensor(dw, [features, out]));
        }
    }
}
