//! Owns a normalisation and the linear maps that read its result, as one op; never keeps that result for the backward
//! pass.

use super::flex::{self, Backward, Checkpointer, Gradients, Input, Ops, dims, floats, floats_mut};
use super::gemm::{Made, Mat, Panels, Rows, add_product, product, products};
use super::linear::{FEW_ROWS, few_rows};
use super::outputs::{self, Arrived};
use super::parallel::{written, zeros};
use super::rms_norm::Normed;
use super::simd::Isa;
use super::{linear, rms_norm};
use burn::Tensor;
use burn::backend::autodiff::ops::NodeGuard;
use burn::backend::flex::FlexTensor;
use burn::backend::{DispatchTensor, Flex};

/// [`rms_norm`] of `x` `[n, d]` with weights `gamma` `[d]`, and its result through each of the matrices `ws` `[out, d]`,
/// giving `[n, out]` each. Returned with them is `x` for its next reader: the gradient of that reader joins the others
/// without a pass of its own.
///
/// # Panics
/// If the shapes do not fit together.
pub fn rms_norm_linears<const N: usize>(
    x: Tensor<2>,
    gamma: Tensor<1>,
    eps: f64,
    ws: [Tensor<2>; N],
) -> (Tensor<2>, [Tensor<2>; N]) {
    let d = x.dims()[1];
    assert_eq!(d, gamma.dims()[0], "rms_norm_linears: rows and weights of the norm differ in length");
    assert!(
        ws.iter().all(|w| w.dims()[1] == d),
        "rms_norm_linears: rows and matrices differ in their number of features"
    );
    match N {
        2 => with_parents::<N, 3, 4>(x, gamma, eps, ws),
        3 => with_parents::<N, 4, 5>(x, gamma, eps, ws),
        _ => one_by_one(x, gamma, eps, ws),
    }
}

fn one_by_one<const N: usize>(
    x: Tensor<2>,
    gamma: Tensor<1>,
    eps: f64,
    ws: [Tensor<2>; N],
) -> (Tensor<2>, [Tensor<2>; N]) {
    let normed = rms_norm(x.clone(), gamma, eps);
    (x, ws.map(|w| linear(normed.clone(), w)))
}

/// The op with `N` matrices: `OUTPUTS` is one more, `PARENTS` two more.
fn with_parents<const N: usize, const OUTPUTS: usize, const PARENTS: usize>(
    x: Tensor<2>,
    gamma: Tensor<1>,
    eps: f64,
    ws: [Tensor<2>; N],
) -> (Tensor<2>, [Tensor<2>; N]) {
    let tensors = [x.into_dispatch(), gamma.into_dispatch()].into_iter().chain(ws.map(Tensor::into_dispatch));
    match flex::inputs(array::<DispatchTensor, PARENTS>(tensors)) {
        Ok((graph, inputs)) => {
            let (tensors, nodes): (Vec<FlexTensor>, Vec<NodeGuard>) =
                inputs.into_iter().map(|Input { tensor, node, .. }| (tensor, node)).unzip();
            let mut tensors = tensors.into_iter();
            let (Some(x), Some(gamma)) = (tensors.next(), tensors.next()) else { unreachable!("both were given") };
            let ws: Vec<FlexTensor> = tensors.collect();
            let isa = Isa::detect();
            let normed = Normed::new(isa, x.clone(), gamma, eps as f32);
            let values = array::<_, OUTPUTS>(std::iter::once(x).chain(forward(isa, &normed, &ws)));
            let state = |arrived| State { normed, ws, arrived };
            let outputs = outputs::finish::<_, OUTPUTS, PARENTS>(graph, NormLinears, array(nodes), values, state);
            let mut outputs = outputs.into_iter();
            let Some(x) = outputs.next() else { unreachable!("the first output is the input") };
            (x, array(outputs))
        }
        Err(tensors) => {
            let mut tensors = tensors.into_iter();
            let (Some(x), Some(gamma)) = (tensors.next(), tensors.next()) else { unreachable!("both were given") };
            let (x, gamma) = (Tensor::from_dispatch(x), Tensor::from_dispatch(gamma));
            one_by_one::<N>(x, gamma, eps, array(tensors.map(Tensor::from_dispatch)))
        }
    }
}

/// So many items as there are, as an array.
fn array<T, const N: usize>(items: impl IntoIterator<Item = T>) -> [T; N] {
    let items: Vec<T> = items.into_iter().collect();
    items.try_into().unwrap_or_else(|items: Vec<T>| unreachable!("{} items are not {N}", items.len()))
}

fn forward(isa: Isa, normed: &Normed, ws: &[FlexTensor]) -> Vec<FlexTensor> {
    let [n, d] = normed.dims();
    if n <= FEW_ROWS && d > 0 {
        let rows = normed.rows(isa);
        let few = |w: &FlexTensor| {
            let [out, _] = dims(w);
            flex::tensor(written(n * out, |y| few_rows(isa, &rows, floats(w), d, y)), [n, out])
        };
        return ws.iter().map(few).collect();
    }
    // Computed while it is packed, once for all matrices.
    let matrices: Vec<Mat> = ws.iter().map(|w| Mat::new(floats(w), dims(w)[0], d).t()).collect();
    let ys = products(isa, Made(isa, normed), &matrices);
    ys.into_iter().zip(ws).map(|(y, w)| flex::tensor(y, [n, dims(w)[0]])).collect()
}

/// What the backward pass needs.
#[derive(Clone, Debug)]
struct State {
    normed: Normed,
    ws: Vec<FlexTensor>,
    arrived: Arrived,
}

/// Backward of [`rms_norm_linears`]; its parents are `x`, `gamma` and the matrices.
#[derive(Debug)]
struct NormLinears;

impl<const PARENTS: usize> Backward<Flex, PARENTS> for NormLinears {
    type State = State;

    fn backward(self, ops: Ops<State, PARENTS>, grads: &mut Gradients, _: &mut Checkpointer) {
        let isa = Isa::detect();
        grads.consume::<Flex>(&ops.node);
        let State { normed, ws, arrived } = ops.state;
        let [n, d] = normed.dims();
        let mut parents = ops.parents.into_iter();
        let (x_node, gamma_node) = (parents.next().flatten(), parents.next().flatten());
        let mut gs = arrived.take().into_iter();
        let passed_on = gs.next().flatten();
        let gs: Vec<FlexTensor> = gs
            .zip(&ws)
            .map(|(g, w)| g.unwrap_or_else(|| flex::tensor(zeros(n * dims(w)[0]), [n, dims(w)[0]])))
            .collect();
        let nodes: Vec<_> = parents.collect();
        if nodes.iter().any(Option::is_some) {
            let rows = Panels::right(isa, Made(isa, &normed));
            for (node, g) in nodes.into_iter().zip(&gs) {
                let [_, out] = dims(g);
                let Some(node) = node else { continue };
                let dw = written(out * d, |dw| product(isa, Mat::new(floats(g), n, out).t(), &rows, dw));
                grads.register::<Flex>(node.id, flex::tensor(dw, [out, d]));
            }
        }
        if x_node.is_none() && gamma_node.is_none() {
            return;
        }
        let mut terms = gs.into_iter().zip(&ws);
        let Some((g, w)) = terms.next() else { return };
        let mut dx = written(n * d, |dx| {
            let [_, out] = dims(&g);
            product(isa, Mat::new(floats(&g), n, out), Mat::new(floats(w), out, d), dx)
        });
        drop(g);
        for (g, w) in terms {
            let [_, out] = dims(&g);
            add_product(isa, Mat::new(floats(&g), n, out), Mat::new(floats(w), out, d), &mut dx);
        }
        let mut dx = flex::tensor(dx, [n, d]);
        let d_gamma = normed.backward(isa, floats_mut(&mut dx), passed_on.as_ref().map(floats));
        if let Some(node) = x_node {
            grads.register::<Flex>(node.id, dx);
        }
        if let Some(node) = gamma_node {
            grads.register::<Flex>(node.id, flex::tensor(d_gamma, [d]));
        }
    }
}
