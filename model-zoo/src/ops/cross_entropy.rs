//! Owns the loss over a vocabulary, projection included, and its gradients; never keeps the logits of all rows.

use super::anywhere;
use super::flex::{self, Backward, Checkpointer, Gradients, Input, Ops, dims, floats, floats_mut};
use super::gemm::{Mat, add_product, product};
use super::parallel::{
    CHUNK, Shared, chunks_mut, chunks_mut2, for_each_task, initialised, part, rows_per_task, written, zeros,
};
use super::scratch::Scratch;
use super::simd::{Isa, exp, exp_in_place, max, multiversion, scale, softcap_in_place, sum_exp};
use burn::Tensor;
use burn::backend::flex::FlexTensor;
use burn::backend::{DispatchTensor, Flex};
use burn::tensor::Int;
use std::mem::MaybeUninit;

/// Logits that are held at a time: 16 MiB of them.
const LOGITS: usize = 1 << 22;
/// Rows whose logits are held at a time, at least and at most: every chunk of rows reads the weights and adds to their
/// gradient once, which many rows make worth it.
const ROWS: (usize, usize) = (128, 1024);

/// Sum of the negative log-likelihoods, in nats, of `targets` `[n]` under the softmax of the logits `h · wᵀ`, with
/// rows `h` `[n, d]` and vocabulary `w` `[vocab, d]`; a negative target is ignored. Shape `[1]`. With a bound `c` the
/// logits `x` are `c * tanh(x / c)`.
///
/// Rows are worked off in chunks, so that the logits of all rows never exist at one time, and the gradients are
/// computed with the loss (as in P.-L. Hsu et al., "Liger Kernel", 2024).
///
/// # Panics
/// If the shapes do not fit together or a target is no row of `w`.
pub fn linear_cross_entropy(h: Tensor<2>, w: Tensor<2>, targets: Tensor<1, Int>, bound: Option<f64>) -> Tensor<1> {
    match fusible(h, w, targets) {
        Ok((graph, [h, w], targets)) => {
            let wanted = Gradient { h: h.tracked, w: w.tracked };
            let result = Problem::new(&h.tensor, &w.tensor, &targets, bound).solve(wanted);
            // Added in the order of the rows, in f64: the sum is the same for any number of threads.
            let sum: f64 = result.losses.iter().map(|&loss| f64::from(loss)).sum();
            let output = flex::tensor(vec![sum as f32], [1]);
            graph.finish(CrossEntropy, [h.node, w.node], output, || result.gradients)
        }
        Err(arguments) => {
            let (tensors, targets) = *arguments;
            anywhere::linear_cross_entropy(tensors, targets, bound)
        }
    }
}

/// The negative log-likelihood, in nats, of every target, 0 where the target is negative: `[n]`. Arguments as for
/// [`linear_cross_entropy`]; the result has no gradient.
///
/// # Panics
/// If the shapes do not fit together or a target is no row of `w`.
pub fn linear_cross_entropy_tokens(
    h: Tensor<2>,
    w: Tensor<2>,
    targets: Tensor<1, Int>,
    bound: Option<f64>,
) -> Tensor<1> {
    match fusible(h, w, targets) {
        Ok((graph, [h, w], targets)) => {
            let problem = Problem::new(&h.tensor, &w.tensor, &targets, bound);
            let mut losses = vec![0.0; targets.len()];
            let solved = problem.solve(Gradient { h: false, w: false });
            for (&row, loss) in problem.rows.iter().zip(solved.losses) {
                losses[row] = loss;
            }
            let n = losses.len();
            graph.constant::<Flex, _>(flex::tensor(losses, [n]))
        }
        Err(arguments) => {
            let (tensors, targets) = *arguments;
            anywhere::linear_cross_entropy_tokens(tensors, targets, bound)
        }
    }
}

type Fusible = (flex::Graph, [Input; 2], Vec<i32>);
type Arguments = Box<([DispatchTensor; 2], Tensor<1, Int>)>;

/// The inputs for the fused kernel, or the arguments back.
fn fusible(h: Tensor<2>, w: Tensor<2>, targets: Tensor<1, Int>) -> Result<Fusible, Arguments> {
    assert_eq!(h.dims()[1], w.dims()[1], "linear_cross_entropy: rows and vocabulary differ in width");
    assert_eq!(h.dims()[0], targets.dims()[0], "linear_cross_entropy: there must be a target for every row");
    let targets: DispatchTensor = targets.into_dispatch();
    let tensors = [h.into_dispatch(), w.into_dispatch()];
    let Some(ids) = flex::ints(&targets) else { return Err(Box::new((tensors, Tensor::from_dispatch(targets)))) };
    match flex::inputs(tensors) {
        Ok((graph, inputs)) => Ok((graph, inputs, ids)),
        Err(tensors) => Err(Box::new((tensors, Tensor::from_dispatch(targets)))),
    }
}

/// Which gradients are wanted.
#[derive(Clone, Copy)]
struct Gradient {
    h: bool,
    w: bool,
}

/// The rows that have a target.
struct Problem<'a> {
    isa: Isa,
    w: &'a [f32],
    h: &'a [f32],
    /// Rows of `h`, all of them.
    n: usize,
    d: usize,
    vocab: usize,
    /// Rows that have a target.
    rows: Vec<usize>,
    /// Their targets.
    targets: Vec<usize>,
    /// Bound of the logits.
    bound: Option<f32>,
}

/// Losses of the rows that have a target, and the gradients for an upstream gradient of 1.
struct Solution {
    losses: Vec<f32>,
    gradients: Both,
}

/// Gradients of `h` and `w`, as far as they are wanted.
type Both = [Option<FlexTensor>; 2];

/// Copies rows of `d` floats, one after another, to the rows `places` of `to`, which are in rising order.
fn spread(rows: &[f32], places: &[usize], d: usize, to: &mut [f32]) {
    let tasks = places.len().div_ceil(rows_per_task(d));
    let to = Shared::new(to);
    for_each_task(tasks, |task| {
        for at in part(places.len(), tasks, task) {
            // SAFETY: every row of `to` has one place at most, and every place belongs to one task.
            let to = unsafe { to.slice(places[at] * d..(places[at] + 1) * d) };
            to.copy_from_slice(&rows[at * d..(at + 1) * d]);
        }
    });
}

impl<'a> Problem<'a> {
    fn new(h: &'a FlexTensor, w: &'a FlexTensor, targets: &[i32], bound: Option<f64>) -> Self {
        let ([n, d], [vocab, _]) = (dims(h), dims(w));
        let rows: Vec<usize> = (0..n).filter(|&row| targets[row] >= 0).collect();
        let targets: Vec<usize> = rows.iter().map(|&row| targets[row] as usize).collect();
        if let Some(bad) = targets.iter().find(|&&target| target >= vocab) {
            panic!("linear_cross_entropy: target {bad} is no row of a vocabulary of {vocab}");
        }
        let bound = bound.map(|bound| bound as f32);
        Self { isa: Isa::detect(), w: floats(w), h: floats(h), n, d, vocab, rows, targets, bound }
    }

    /// Works off the rows chunk by chunk.
    fn solve(&self, wanted: Gradient) -> Solution {
        let chunk = (LOGITS / self.vocab.max(1)).clamp(ROWS.0, ROWS.1).min(self.rows.len().max(1));
        let mut logits = Scratch::new(chunk * self.vocab);
        let mut rows_h = Scratch::new(chunk * self.d);
        let mut rows_dh = Scratch::new(if wanted.h { chunk * self.d } else { 0 });
        let mut losses = vec![0.0; self.rows.len()];
        let mut dh = wanted.h.then(|| zeros(self.n * self.d));
        let mut dw = wanted.w.then(Vec::new);
        for start in (0..self.rows.len()).step_by(chunk) {
            let range = start..(start + chunk).min(self.rows.len());
            let (len, d, vocab) = (range.len(), self.d, self.vocab);
            let h = self.gather(&self.rows[range.clone()], &mut rows_h.uninit()[..len * d]);
            let h = Mat::new(h, len, d);
            let w = Mat::new(self.w, vocab, d);
            let logits = product(self.isa, h, w.t(), &mut logits.uninit()[..len * vocab]);
            self.losses(logits, &self.targets[range.clone()], &mut losses[range.clone()], wanted.h || wanted.w);
            let slopes = Mat::new(logits, len, vocab);
            if let Some(dh) = &mut dh {
                let rows = product(self.isa, slopes, w, &mut rows_dh.uninit()[..len * d]);
                spread(rows, &self.rows[range], d, dh);
            }
            match &mut dw {
                Some(dw) if dw.is_empty() => {
                    *dw = written(vocab * d, |dw| product(self.isa, slopes.t(), h, dw));
                }
                Some(dw) => add_product(self.isa, slopes.t(), h, dw),
                None => {}
            }
        }
        if let Some(dw) = &mut dw {
            dw.resize(self.vocab * self.d, 0.0);
        }
        let gradients =
            [dh.map(|dh| flex::tensor(dh, [self.n, self.d])), dw.map(|dw| flex::tensor(dw, [self.vocab, self.d]))];
        Solution { losses, gradients }
    }

    /// The given rows of `h`, one after another.
    fn gather<'b>(&self, rows: &[usize], to: &'b mut [MaybeUninit<f32>]) -> &'b [f32] {
        let d = self.d;
        chunks_mut(to, rows_per_task(d) * d.max(1), |start, to| {
            for (to, &row) in to.chunks_exact_mut(d).zip(&rows[start / d..]) {
                to.write_copy_of_slice(&self.h[row * d..(row + 1) * d]);
            }
        });
        // SAFETY: the chunks consist of whole rows, and every row is written.
        unsafe { initialised(to) }
    }

    /// The losses of a chunk of rows from their logits, which become the gradients of the logits if `slopes`.
    fn losses(&self, logits: &mut [f32], targets: &[usize], losses: &mut [f32], slopes: bool) {
        let (isa, vocab) = (self.isa, self.vocab);
        chunks_mut2((losses, 1), (logits, vocab), |row, loss, logits| {
            let target = targets[row];
            if let Some(bound) = self.bound {
                softcap_in_place(isa, logits, bound);
            }
            let at_target = logits[target];
            let top = max(isa, logits);
            // Bounded logits are needed once more, for their slopes.
            let in_place = slopes && self.bound.is_none();
            let sum = if in_place { exp_in_place(isa, logits, top) } else { sum_exp(isa, logits, top) };
            // In f64: for a nearly certain prediction the logarithm and the difference of the logits nearly cancel.
            let value = f64::from(sum).ln() - (f64::from(at_target) - f64::from(top));
            for loss in loss {
                *loss = value as f32;
            }
            match self.bound {
                Some(bound) if slopes => {
                    let tanh = at_target / bound;
                    capped_slopes(isa, logits, top, 1.0 / sum, bound);
                    logits[target] -= 1.0 - tanh * tanh;
                }
                None if slopes => {
                    scale(isa, logits, 1.0 / sum);
                    logits[target] -= 1.0;
                }
                _ => {}
            }
        });
    }
}

multiversion! {
    /// Turns logits bounded by `bound` into their probabilities times the slopes of the bound, `1 - tanh²`.
    fn capped_slopes<FMA>(logits: &mut [f32], top: f32, inverse_sum: f32, bound: f32) {
        for x in logits {
            let tanh = *x / bound;
            *x = exp::<FMA>(*x - top) * inverse_sum * (1.0 - tanh * tanh);
        }
    }
}

/// Backward of [`linear_cross_entropy`]; the state is the gradients for an upstream gradient of 1.
#[derive(Debug)]
struct CrossEntropy;

impl Backward<Flex, 2> for CrossEntropy {
    type State = Both;

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let isa = Isa::detect();
        let upstream = flex::dense(grads.consume::<Flex>(&ops.node));
        let factor: f32 = floats(&upstream).iter().sum();
        for (node, gradient) in ops.parents.into_iter().zip(ops.state) {
            if let (Some(node), Some(mut gradient)) = (node, gradient) {
                if factor != 1.0 {
                    chunks_mut(floats_mut(&mut gradient), CHUNK, |_, part| scale(isa, part, factor));
                }
                grads.register::<Flex>(node.id, gradient);
            }
        }
    }
}
