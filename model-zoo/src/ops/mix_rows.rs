//! Owns the weighted sum of a few rows for every token, as a mixture of experts needs it, and its gradients; never
//! touches how the rows are chosen.

use super::flex::{self, Backward, Checkpointer, Gradients, Input, Ops, dims, floats};
use super::parallel::{Shared, chunks_mut, for_each_task, initialised, rows_per_task, written};
use super::reference;
use super::simd::{Isa, dot, mul_add, multiversion};
use burn::Tensor;
use burn::backend::Flex;
use burn::backend::flex::FlexTensor;
use burn::tensor::Int;
use std::mem::MaybeUninit;

/// Row `t` of the result `[n, d]` is the sum over `s` of `weights[t, s]` times row `places[t, s]` of `rows` `[m, d]`;
/// `places` and `weights` are `[n, k]`. The sum runs in the order of `s`.
///
/// # Panics
/// If the shapes do not fit together, or a place is no row or is named twice.
pub fn mix_rows(rows: Tensor<2>, places: Tensor<2, Int>, weights: Tensor<2>) -> Tensor<2> {
    assert_eq!(places.dims(), weights.dims(), "mix_rows: places and weights differ in shape");
    let places = places.into_dispatch();
    let Some(indices) = flex::ints(&places) else {
        return reference::mix_rows(rows, Tensor::from_dispatch(places), weights);
    };
    match flex::inputs([rows.into_dispatch(), weights.into_dispatch()]) {
        Ok((graph, [rows, weights])) => {
            let indices = checked(&indices, dims(&rows.tensor)[0]);
            let output = forward(Isa::detect(), &rows.tensor, &indices, &weights.tensor);
            let Input { tensor: rows, node: rows_node, .. } = rows;
            let Input { tensor: weights, node: weights_node, .. } = weights;
            graph.finish(MixRows, [rows_node, weights_node], output, || Saved { rows, weights, indices })
        }
        Err([rows, weights]) => reference::mix_rows(
            Tensor::from_dispatch(rows),
            Tensor::from_dispatch(places),
            Tensor::from_dispatch(weights),
        ),
    }
}

/// The places as indices. Each row belongs to one token at most: the backward pass writes the gradients of all rows at
/// once.
fn checked(places: &[i32], count: usize) -> Vec<usize> {
    let mut taken = vec![false; count];
    let check = |&place: &i32| {
        let place = usize::try_from(place).ok().filter(|place| *place < count);
        let place = place.unwrap_or_else(|| panic!("mix_rows: a place is no row of {count}"));
        assert!(!std::mem::replace(&mut taken[place], true), "mix_rows: row {place} is named twice");
        place
    };
    places.iter().map(check).collect()
}

/// What the backward pass needs: the inputs.
#[derive(Clone, Debug)]
struct Saved {
    rows: FlexTensor,
    weights: FlexTensor,
    indices: Vec<usize>,
}

fn forward(isa: Isa, rows: &FlexTensor, indices: &[usize], weights: &FlexTensor) -> FlexTensor {
    let ([_, d], [n, k]) = (dims(rows), dims(weights));
    let (rows, weights) = (floats(rows), floats(weights));
    let y = written(n * d, |y| {
        y.fill(MaybeUninit::new(0.0));
        // SAFETY: the line above wrote every element.
        let y = unsafe { initialised(y) };
        chunks_mut(y, rows_per_task(d) * d, |start, y| {
            for (token, y) in (start / d.max(1)..).zip(y.chunks_exact_mut(d.max(1))) {
                for slot in token * k..(token + 1) * k {
                    let row = indices[slot] * d;
                    add_scaled(isa, y, weights[slot], &rows[row..row + d]);
                }
            }
        });
        y
    });
    flex::tensor(y, [n, d])
}

multiversion! {
    /// `y += factor · x`.
    fn add_scaled<FMA>(y: &mut [f32], factor: f32, x: &[f32]) {
        for (y, &x) in y.iter_mut().zip(x) {
            *y = mul_add::<FMA>(factor, x, *y);
        }
    }
}

/// Backward of [`mix_rows`].
#[derive(Debug)]
struct MixRows;

impl Backward<Flex, 2> for MixRows {
    type State = Saved;

    fn backward(self, ops: Ops<Saved, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let g = flex::dense(grads.consume::<Flex>(&ops.node));
        let (d_rows, d_weights) = backward(Isa::detect(), floats(&g), &ops.state);
        let gradients = [(d_rows, dims(&ops.state.rows)), (d_weights, dims(&ops.state.weights))];
        for (node, (gradient, shape)) in ops.parents.into_iter().zip(gradients) {
            if let Some(node) = node {
                grads.register::<Flex>(node.id, flex::tensor(gradient, shape));
            }
        }
    }
}

/// Gradients of the rows and of the weights; rows that no token names get zeros.
fn backward(isa: Isa, g: &[f32], saved: &Saved) -> (Vec<f32>, Vec<f32>) {
    let ([m, d], [n, k]) = (dims(&saved.rows), dims(&saved.weights));
    let (rows, weights) = (floats(&saved.rows), floats(&saved.weights));
    let (mut d_rows, mut d_weights) = (vec![0.0; m * d], vec![0.0; n * k]);
    let (row_places, weight_places) = (Shared::new(&mut d_rows), Shared::new(&mut d_weights));
    let tokens = rows_per_task(d * k);
    for_each_task(n.div_ceil(tokens), |task| {
        for token in task * tokens..n.min((task + 1) * tokens) {
            let g = &g[token * d..(token + 1) * d];
            for (slot, &factor) in (token * k..).zip(&weights[token * k..(token + 1) * k]) {
                let place = saved.indices[slot] * d..(saved.indices[slot] + 1) * d;
                // SAFETY: a token belongs to one task, and no row to two tokens (`checked`).
                let (row, weight) = unsafe { (row_places.slice(place.clone()), weight_places.slice(slot..slot + 1)) };
                weight[0] = dot(isa, g, &rows[place]);
                add_scaled(isa, row, factor, g);
            }
        }
    });
    (d_rows, d_weights)
}
