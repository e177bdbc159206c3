//! Owns sums over flat parameters and gradients; never touches what they are summed for.

use super::flex::{self, Backward, Checkpointer, Gradients, Ops, floats, floats_mut};
use super::parallel::{CHUNK, chunks_mut, initialised, map_tasks, written};
use super::reference;
use super::simd::{Isa, add_assign, multiversion};
use burn::Tensor;
use burn::backend::Flex;
use burn::backend::flex::FlexTensor;
use std::mem::MaybeUninit;

/// Elements whose squares are summed before the sums are added, in order.
const SQUARES: usize = 1 << 14;

/// `a + b`, elementwise. On the CPU the sum is written over whichever of the two nobody else holds.
///
/// # Panics
/// If the shapes differ.
pub fn add<const D: usize>(a: Tensor<D>, b: Tensor<D>) -> Tensor<D> {
    assert_eq!(a.dims(), b.dims(), "add: the tensors differ in shape");
    match flex::inputs([a.into_dispatch(), b.into_dispatch()]) {
        Ok((graph, [a, b])) => {
            let sum = sum(Isa::detect(), a.tensor, b.tensor);
            graph.finish(Add, [a.node, b.node], sum, || ())
        }
        Err([a, b]) => reference::add(Tensor::from_dispatch(a), Tensor::from_dispatch(b)),
    }
}

/// Backward of [`add`]: the gradient goes to both.
#[derive(Debug)]
struct Add;

impl Backward<Flex, 2> for Add {
    type State = ();

    fn backward(self, ops: Ops<(), 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let g = grads.consume::<Flex>(&ops.node);
        for node in ops.parents.into_iter().flatten() {
            grads.register::<Flex>(node.id, g.clone());
        }
    }
}

/// `a + b`, in the place of one of them that nobody else holds.
pub(super) fn sum(isa: Isa, mut a: FlexTensor, mut b: FlexTensor) -> FlexTensor {
    if b.is_unique() && !a.is_unique() {
        std::mem::swap(&mut a, &mut b);
    }
    if a.is_unique() {
        let b = floats(&b);
        chunks_mut(floats_mut(&mut a), CHUNK, |start, a| add_assign(isa, a, &b[start..]));
        return a;
    }
    let (x, y) = (floats(&a), floats(&b));
    let sum = written(x.len(), |sum| {
        chunks_mut(sum, CHUNK, |start, sum| add_into(isa, sum, &x[start..], &y[start..]));
        // SAFETY: the chunks cover `sum`, `x` and `y` are as long, and `add_into` writes a chunk whole.
        unsafe { initialised(sum) }
    });
    flex::like(sum, &a)
}

/// Elements of a unit of work of the kernels over flat tensors: a tensor cut at multiples of it gives the same bits.
pub const SUM_CHUNK: usize = CHUNK;

/// Sum of the squares of all elements. On the CPU it is accumulated in `f64` over chunks of [`SUM_CHUNK`].
pub fn sum_squares(g: &Tensor<1>) -> f64 {
    chunk_squares(g).iter().sum()
}

/// The terms of [`sum_squares`] in order: one for each [`SUM_CHUNK`] elements on the CPU, one in all on other devices.
pub fn chunk_squares(g: &Tensor<1>) -> Vec<f64> {
    match flex::inputs([g.clone().into_dispatch()]) {
        Ok((_, [g])) => {
            let (isa, g) = (Isa::detect(), floats(&g.tensor));
            map_tasks(g.len().div_ceil(CHUNK), |task| {
                let chunk = &g[task * CHUNK..((task + 1) * CHUNK).min(g.len())];
                chunk.chunks(SQUARES).map(|part| squares(isa, part)).sum::<f64>()
            })
        }
        Err([g]) => vec![reference::sum_squares(Tensor::from_dispatch(g))],
    }
}

multiversion! {
    fn add_into<FMA>(sum: &mut [MaybeUninit<f32>], a: &[f32], b: &[f32]) {
        for ((sum, &a), &b) in sum.iter_mut().zip(a).zip(b) {
            sum.write(a + b);
        }
    }

    fn squares<FMA>(a: &[f32]) -> f64 {
        let mut lanes = [0.0f64; 32];
        let mut chunks = a.chunks_exact(32);
        for chunk in &mut chunks {
            for (lane, &x) in lanes.iter_mut().zip(chunk) {
                let x = f64::from(x);
                *lane += x * x;
            }
        }
        for (lane, &x) in lanes.iter_mut().zip(chunks.remainder()) {
            let x = f64::from(x);
            *lane += x * x;
        }
        lanes.iter().sum()
    }
}
