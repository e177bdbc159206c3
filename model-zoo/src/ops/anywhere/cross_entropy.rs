//! Owns the loss over a vocabulary as tensor operations over some rows at a time, with its gradients; never keeps their
//! logits.

use super::super::graph::{self, Backward, Checkpointer, Gradients, Ops, Place, on_any_backend};
use super::super::reference::{self, softcap};
use super::{plain, plain_ids, register, to, wide};
use burn::Tensor;
use burn::backend::DispatchTensor;
use burn::tensor::Int;

/// Logits that stand in memory at a time: 128 MiB of them.
const LOGITS: usize = 1 << 25;
/// Fewest rows of a chunk, but for the last: every chunk reads the weights and adds to their gradient.
const ROWS: usize = 256;

/// [`super::super::linear_cross_entropy`] of rows and weights.
pub(crate) fn linear_cross_entropy(
    tensors: [DispatchTensor; 2],
    targets: Tensor<1, Int>,
    bound: Option<f64>,
) -> Tensor<1> {
    let chunk = rows_at_a_time(&tensors[1]);
    chunked(tensors, targets, bound, chunk)
}

/// The same with `chunk` rows at a time.
pub(crate) fn chunked(
    tensors: [DispatchTensor; 2],
    targets: Tensor<1, Int>,
    bound: Option<f64>,
    chunk: usize,
) -> Tensor<1> {
    let problem = Problem { targets: plain_ids(targets.clone()), bound, chunk };
    on_any_backend!(summed(tensors, &problem)).unwrap_or_else(|tensors| {
        let [h, w] = tensors.map(Tensor::from_dispatch);
        reference::linear_cross_entropy(h, w, targets, bound)
    })
}

/// [`super::super::linear_cross_entropy_tokens`] of rows and weights.
pub(crate) fn linear_cross_entropy_tokens(
    tensors: [DispatchTensor; 2],
    targets: Tensor<1, Int>,
    bound: Option<f64>,
) -> Tensor<1> {
    let problem = Problem { targets: plain_ids(targets.clone()), bound, chunk: rows_at_a_time(&tensors[1]) };
    on_any_backend!(each(tensors, &problem)).unwrap_or_else(|tensors| {
        let [h, w] = tensors.map(Tensor::from_dispatch);
        reference::linear_cross_entropy_tokens(h, w, targets, bound).detach()
    })
}

/// Rows whose logits over the vocabulary `w` stand in memory at a time.
fn rows_at_a_time(w: &DispatchTensor) -> usize {
    use burn::backend::TensorMetadata;
    let vocab = w.shape().as_slice().first().copied().unwrap_or(1);
    (LOGITS / vocab.max(1)).max(ROWS)
}

fn summed<B: Place>(tensors: [DispatchTensor; 2], problem: &Problem) -> Result<Tensor<1>, [DispatchTensor; 2]> {
    let (graph, inputs) = graph::inputs::<B, 2>(tensors)?;
    let [h, w] = inputs.each_ref().map(plain::<B, 2>);
    let [h_wanted, w_wanted] = inputs.each_ref().map(|input| input.tracked);
    let (losses, gradients) = problem.solve(&h, &w, h_wanted, w_wanted);
    let output = graph::primitive::<B, 1>(losses.sum());
    Ok(graph.finish::<B, CrossEntropy, 2, 1>(CrossEntropy, inputs.map(|input| input.node), output, || gradients))
}

fn each<B: Place>(tensors: [DispatchTensor; 2], problem: &Problem) -> Result<Tensor<1>, [DispatchTensor; 2]> {
    let (graph, inputs) = graph::inputs::<B, 2>(tensors)?;
    let [h, w] = inputs.each_ref().map(plain::<B, 2>);
    let (losses, _) = problem.solve(&h, &w, false, false);
    Ok(graph.constant::<B, 1>(graph::primitive::<B, 1>(losses)))
}

/// Gradients of rows and weights for an upstream gradient of 1, as far as they are wanted.
type Both = [Option<Tensor<2>>; 2];

struct Problem {
    targets: Tensor<1, Int>,
    bound: Option<f64>,
    /// Rows at a time.
    chunk: usize,
}

impl Problem {
    /// The losses `[n]`, 0 where the target is negative, and the gradients of their sum.
    fn solve(&self, h: &Tensor<2>, w: &Tensor<2>, h_wanted: bool, w_wanted: bool) -> (Tensor<1>, Both) {
        let [n, _] = h.dims();
        let narrow_w = to(w.clone(), h.dtype());
        let mut losses = Vec::new();
        let mut dh = Vec::new();
        let mut dw: Option<Tensor<2>> = None;
        for start in (0..n).step_by(self.chunk) {
            let rows = self.chunk.min(n - start);
            let h = h.clone().narrow(0, start, rows);
            let targets = self.targets.clone().narrow(0, start, rows);
            let (part, slopes) = self.part(&h, &narrow_w, targets, h_wanted || w_wanted);
            losses.push(part);
            let Some(slopes) = slopes else { continue };
            if w_wanted {
                let part = to(slopes.clone().transpose().matmul(h), w.dtype());
                dw = Some(dw.map_or_else(|| part.clone(), |dw| dw + part.clone()));
            }
            if h_wanted {
                dh.push(slopes.matmul(narrow_w.clone()));
            }
        }
        let dw = w_wanted.then(|| dw.unwrap_or_else(|| w.zeros_like()));
        let dh = h_wanted.then(|| if dh.is_empty() { h.zeros_like() } else { Tensor::cat(dh, 0) });
        let losses = if losses.is_empty() { wide(h.clone()).sum_dim(1).flatten(0, 1) } else { Tensor::cat(losses, 0) };
        (losses, [dh, dw])
    }

    /// The losses of some rows, and the gradient of their sum over the logits, in the dtype of `h`.
    fn part(
        &self,
        h: &Tensor<2>,
        w: &Tensor<2>,
        targets: Tensor<1, Int>,
        slopes: bool,
    ) -> (Tensor<1>, Option<Tensor<2>>) {
        let ([rows, _], [vocab, _], dtype) = (h.dims(), w.dims(), h.dtype());
        let ignored = targets.clone().lower_elem(0);
        let places = targets.clamp_min(0).reshape([rows, 1]);
        let logits = softcap(wide(reference::linear(h.clone(), w.clone())), self.bound);
        let top = logits.clone().max_dim(1);
        let shares = (logits.clone() - top.clone()).exp();
        let sum = shares.clone().sum_dim(1);
        let losses = sum.clone().log() + top - logits.clone().gather(1, places.clone());
        let losses = losses.reshape([rows]).mask_fill(ignored.clone(), 0.0);
        if !slopes {
            return (losses, None);
        }
        let columns = Tensor::<1, Int>::arange(0..vocab as i64, &places.device()).reshape([1, vocab]);
        let at_target = columns.expand([rows, vocab]).equal(places.expand([rows, vocab]));
        let probabilities = shares / sum;
        let mut slopes = probabilities.clone().mask_where(at_target, probabilities - 1.0);
        if let Some(bound) = self.bound {
            slopes = slopes * (1.0 - (logits / bound).square());
        }
        let slopes = slopes.mask_fill(ignored.reshape([rows, 1]).expand([rows, vocab]), 0.0);
        (losses, Some(to(slopes, dtype)))
    }
}

/// Backward of [`linear_cross_entropy`]; the state is the gradients for an upstream gradient of 1.
#[derive(Debug)]
struct CrossEntropy;

impl<B: Place> Backward<B, 2> for CrossEntropy {
    type State = Both;

    fn backward(self, ops: Ops<Both, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let factor = graph::tensor::<B, 1>(grads.consume::<B>(&ops.node)).reshape([1, 1]);
        for (node, gradient) in ops.parents.into_iter().zip(ops.state) {
            if let Some(gradient) = gradient {
                let dtype = gradient.dtype();
                let gradient = gradient * to(factor.clone(), dtype);
                register::<B, 2>(grads, node.map(|node| node.id), gradient, dtype);
            }
        }
    }
}
