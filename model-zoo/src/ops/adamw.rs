//! Owns the parameter update; never touches gradients beyond their scale, schedules or parameter groups.

use super::flex::{self, floats, floats_mut};
use super::parallel::CHUNK;
use super::reference;
use super::simd::{Isa, mul_add, multiversion};
use burn::Tensor;
use burn::backend::Flex;
use burn::backend::flex::FlexTensor;
use rayon::prelude::*;

/// One step of AdamW for one parameter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamwStep {
    /// Learning rate of this step.
    pub lr: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the square root of the second moment.
    pub eps: f64,
    /// Decoupled weight decay; the parameter shrinks by `lr * weight_decay`.
    pub weight_decay: f64,
    /// Number of this step, from 1: the moments are corrected for having started at zero.
    pub step: u64,
    /// Multiplies the gradient before anything else: one over the tokens of the step, times the clipping factor.
    pub grad_scale: f32,
}

/// What a step multiplies with, computed once in `f64`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Factors {
    pub(crate) grad_scale: f32,
    pub(crate) keep: f32,
    pub(crate) one_minus_beta1: f32,
    pub(crate) beta2: f32,
    pub(crate) one_minus_beta2: f32,
    pub(crate) root_correction: f32,
    pub(crate) eps: f32,
    pub(crate) rate: f32,
}

impl AdamwStep {
    /// The factors of this step.
    pub(crate) fn factors(&self) -> Factors {
        let correction = |beta: f64| 1.0 - beta.powf(self.step as f64);
        Factors {
            grad_scale: self.grad_scale,
            keep: (1.0 - self.lr * self.weight_decay) as f32,
            one_minus_beta1: (1.0 - self.beta1) as f32,
            beta2: self.beta2 as f32,
            one_minus_beta2: (1.0 - self.beta2) as f32,
            root_correction: correction(self.beta2).sqrt() as f32,
            eps: self.eps as f32,
            rate: (self.lr / correction(self.beta1)) as f32,
        }
    }
}

/// One step of AdamW on parameter `p` with gradient `g` and moments `m` and `v`, all of one length; returns the new
/// `(p, m, v)`. On the CPU buffers that nobody else holds are updated in place.
///
/// I. Loshchilov, F. Hutter, "Decoupled Weight Decay Regularization", 2019, as `torch.optim.AdamW` computes it: decay
/// first, then `m += (1 - beta1) (g - m)`, `v = beta2 v + (1 - beta2) g²`,
/// `p -= lr / (1 - beta1^t) · m / (sqrt(v) / sqrt(1 - beta2^t) + eps)`.
///
/// # Panics
/// If the lengths differ.
pub fn adamw(
    p: Tensor<1>,
    g: Tensor<1>,
    m: Tensor<1>,
    v: Tensor<1>,
    s: &AdamwStep,
) -> (Tensor<1>, Tensor<1>, Tensor<1>) {
    let len = p.dims();
    assert!(
        g.dims() == len && m.dims() == len && v.dims() == len,
        "adamw: parameter, gradient and moments differ in length"
    );
    let factors = s.factors();
    match flex::inputs([p, g, m, v].map(Tensor::into_dispatch)) {
        Ok((graph, [p, g, m, v])) => {
            let (mut p, mut m, mut v) = (p.tensor, m.tensor, v.tensor);
            update(Isa::detect(), &mut p, &g.tensor, &mut m, &mut v, factors);
            (graph.constant::<Flex, _>(p), graph.constant::<Flex, _>(m), graph.constant::<Flex, _>(v))
        }
        Err(tensors) => {
            let [p, g, m, v] = tensors.map(Tensor::from_dispatch);
            reference::adamw(p, g, m, v, factors)
        }
    }
}

fn update(isa: Isa, p: &mut FlexTensor, g: &FlexTensor, m: &mut FlexTensor, v: &mut FlexTensor, factors: Factors) {
    let moments = floats_mut(m).par_chunks_mut(CHUNK).zip_eq(floats_mut(v).par_chunks_mut(CHUNK));
    let parameters = floats_mut(p).par_chunks_mut(CHUNK).zip_eq(floats(g).par_chunks(CHUNK));
    parameters.zip_eq(moments).for_each(|((p, g), (m, v))| update_chunk(isa, p, g, m, v, factors));
}

multiversion! {
    fn update_chunk<FMA>(p: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32], f: Factors) {
        for (((p, &g), m), v) in p.iter_mut().zip(g).zip(m).zip(v) {
            let g = g * f.grad_scale;
            *m = mul_add::<FMA>(f.one_minus_beta1, g - *m, *m);
            *v = mul_add::<FMA>(f.one_minus_beta2 * g, g, f.beta2 * *v);
            let root = v.sqrt() / f.root_correction + f.eps;
            *p = mul_add::<FMA>(-f.rate, *m / root, *p * f.keep);
        }
    }
}
