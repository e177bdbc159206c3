//! Owns what DoRA needs of a corrected matrix: its rows, their lengths, and columns of outputs scaled by a trained
//! magnitude; never touches products with it.
//!
//! S.-Y. Liu et al., "DoRA: Weight-Decomposed Low-Rank Adaptation", 2024 (arXiv:2402.09353): a row of the corrected
//! matrix is a direction times a trained magnitude. Its length is a constant of the gradient (section 4.3).

use burn::Tensor;
use burn::backend::Flex;
use burn::backend::flex::FlexTensor;

use super::flex::{self, Backward, Checkpointer, Gradients, Ops, dims, floats, floats_mut};
use super::frozen::{LowRank, Stored};
use super::parallel::{chunks_mut, initialised, rows_per_task, written};
use super::reference;
use super::simd::{Isa, mul_add, multiversion, sum_squares};

/// Columns whose sums a task adds up.
const SUM_COLUMNS: usize = 256;

multiversion! {
    /// Adds `factor · from` to a row.
    fn add_scaled<FMA>(row: &mut [f32], factor: f32, from: &[f32]) {
        for (to, &from) in row.iter_mut().zip(from) {
            *to = mul_add::<FMA>(factor, from, *to);
        }
    }

    /// Writes a row times the factors of its columns.
    fn times<FMA>(row: &[f32], factors: &[f32], out: &mut [std::mem::MaybeUninit<f32>]) {
        for ((out, &x), &factor) in out.iter_mut().zip(row).zip(factors) {
            out.write(x * factor);
        }
    }

    /// Adds the products of two rows to sums.
    fn add_products<FMA>(sums: &mut [f32], a: &[f32], b: &[f32]) {
        for ((sum, &a), &b) in sums.iter_mut().zip(a).zip(b) {
            *sum = mul_add::<FMA>(a, b, *sum);
        }
    }
}

/// Host values of `a` and `b`, `None` on another device than the CPU.
fn host(low_rank: &LowRank) -> Option<[FlexTensor; 2]> {
    let tensors = [low_rank.a.clone().inner(), low_rank.b.clone().inner()].map(Tensor::into_dispatch);
    flex::inputs(tensors).ok().map(|(_, [a, b])| [a.tensor, b.tensor])
}

/// Adds `scale · b · a` to rows of a matrix, of which `start` is the first.
fn correct(isa: Isa, rows: &mut [f32], start: usize, [a, b]: &[FlexTensor; 2], scale: f32) {
    let [rank, features] = dims(a);
    for (row, b) in rows.chunks_exact_mut(features).zip(floats(b)[start * rank..].chunks_exact(rank)) {
        for (b, a) in b.iter().zip(floats(a).chunks_exact(features)) {
            add_scaled(isa, row, scale * b, a);
        }
    }
}

/// `w + scale · b · a` as f32, `[out * in]`, on the device of `a`, without a gradient.
#[must_use]
pub fn adapted_matrix(w: &Stored, [out, features]: [usize; 2], low_rank: &LowRank) -> Tensor<1> {
    let device = low_rank.a.clone().inner().device();
    let wide = w.widened(&device);
    let Some(correction) = host(low_rank) else {
        let low_rank = LowRank { a: low_rank.a.clone().inner(), b: low_rank.b.clone().inner(), scale: low_rank.scale };
        return reference::adapted_matrix(wide.reshape([out, features]), low_rank).reshape([out * features]);
    };
    let Ok((graph, [input])) = flex::inputs([wide.into_dispatch()]) else {
        unreachable!("a matrix in f32 beside corrections on the CPU is on the CPU")
    };
    let (mut tensor, isa) = (input.tensor, Isa::detect());
    let rows = rows_per_task(features);
    chunks_mut(floats_mut(&mut tensor), rows * features.max(1), |start, part| {
        correct(isa, part, start / features.max(1), &correction, low_rank.scale as f32);
    });
    graph.constant::<Flex, _>(tensor)
}

/// Lengths (Euclidean norms) of the rows of `w + scale · b · a`, `[out]`, f32, without a gradient.
#[must_use]
pub fn adapted_row_lengths(w: &Stored, [out, features]: [usize; 2], low_rank: &LowRank) -> Tensor<1> {
    let corrected = adapted_matrix(w, [out, features], low_rank);
    row_lengths(corrected, [out, features])
}

/// Lengths of the rows of a matrix, given flat.
pub(crate) fn row_lengths(matrix: Tensor<1>, [out, features]: [usize; 2]) -> Tensor<1> {
    match flex::inputs([matrix.into_dispatch()]) {
        Ok((graph, [matrix])) => {
            let (isa, mut lengths) = (Isa::detect(), vec![0.0; out]);
            let (values, rows) = (floats(&matrix.tensor), rows_per_task(features));
            chunks_mut(&mut lengths, rows, |start, lengths| {
                let values = &values[start * features..];
                for (length, row) in lengths.iter_mut().zip(values.chunks_exact(features.max(1))) {
                    *length = sum_squares(isa, row).sqrt();
                }
            });
            graph.constant::<Flex, _>(flex::tensor(lengths, [out]))
        }
        Err([matrix]) => {
            let matrix = Tensor::<1>::from_dispatch(matrix).reshape([out, features]);
            matrix.square().sum_dim(1).sqrt().reshape([out])
        }
    }
}

/// Columns of `x` `[n, columns]` times `factors` `[columns]`, divided by the constants `lengths` `[columns]`.
///
/// # Panics
/// If the numbers of columns differ.
#[must_use]
pub fn scale_columns(x: Tensor<2>, factors: Tensor<1>, lengths: Tensor<1>) -> Tensor<2> {
    let columns = x.dims()[1];
    assert_eq!([factors.dims()[0], lengths.dims()[0]], [columns; 2], "scale_columns: numbers of columns differ");
    match flex::inputs([x.into_dispatch(), factors.into_dispatch(), lengths.into_dispatch()]) {
        Ok((graph, [x, factors, lengths])) => {
            let isa = Isa::detect();
            let [n, _] = dims(&x.tensor);
            let by_column: Vec<f32> = floats(&factors.tensor)
                .iter()
                .zip(floats(&lengths.tensor))
                .map(|(factor, length)| factor / length)
                .collect();
            let values = floats(&x.tensor);
            let y = written(n * columns, |y| {
                chunks_mut(y, rows_per_task(columns) * columns.max(1), |start, y| {
                    let rows = values[start..].chunks_exact(columns.max(1));
                    y.chunks_exact_mut(columns.max(1)).zip(rows).for_each(|(y, x)| times(isa, x, &by_column, y));
                });
                // SAFETY: the chunks consist of whole rows, and `times` writes a row whole.
                unsafe { initialised(y) }
            });
            let state = || State { x: x.tensor, lengths: lengths.tensor, by_column };
            graph.finish(ScaleColumns, [x.node, factors.node], flex::tensor(y, [n, columns]), state)
        }
        Err([x, factors, lengths]) => reference::scale_columns(
            Tensor::from_dispatch(x),
            Tensor::from_dispatch(factors),
            Tensor::<1>::from_dispatch(lengths).inner(),
        ),
    }
}

/// What the backward pass of [`scale_columns`] needs.
#[derive(Debug, Clone)]
struct State {
    x: FlexTensor,
    lengths: FlexTensor,
    by_column: Vec<f32>,
}

/// Backward of [`scale_columns`].
#[derive(Debug)]
struct ScaleColumns;

impl Backward<Flex, 2> for ScaleColumns {
    type State = State;

    fn backward(self, ops: Ops<State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let isa = Isa::detect();
        let g = flex::dense(grads.consume::<Flex>(&ops.node));
        let [x_node, factors_node] = ops.parents;
        let State { x, lengths, by_column } = ops.state;
        let [n, columns] = dims(&x);
        if let Some(node) = factors_node {
            let (g, x) = (floats(&g), floats(&x));
            let mut sums = vec![0.0; columns];
            chunks_mut(&mut sums, SUM_COLUMNS, |at, sums| {
                for row in 0..n {
                    let range = row * columns + at..row * columns + at + sums.len();
                    add_products(isa, sums, &g[range.clone()], &x[range]);
                }
            });
            sums.iter_mut().zip(floats(&lengths)).for_each(|(sum, length)| *sum /= length);
            grads.register::<Flex>(node.id, flex::tensor(sums, [columns]));
        }
        if let Some(node) = x_node {
            let values = floats(&g);
            let dx = written(n * columns, |dx| {
                chunks_mut(dx, rows_per_task(columns) * columns.max(1), |start, dx| {
                    let rows = values[start..].chunks_exact(columns.max(1));
                    dx.chunks_exact_mut(columns.max(1)).zip(rows).for_each(|(dx, g)| times(isa, g, &by_column, dx));
                });
                // SAFETY: the chunks consist of whole rows, and `times` writes a row whole.
                unsafe { initialised(dx) }
            });
            grads.register::<Flex>(node.id, flex::tensor(dx, [n, columns]));
        }
    }
}
