//! Owns the optimizer: AdamW moments, the global-norm clip and the division by valid tokens; never touches files.
//!
//! burn's own optimizers clip each parameter alone, keep records that cannot be sharded and restore less than they
//! should without saying so (`docs/adr/0003-flat-parameters-and-own-optimizer.md`). Here the state is two flat tensors
//! a parameter, so a checkpoint can count it and a later sharded optimizer can slice it.

use burn::tensor::{Device, Tensor};
use model_zoo::ops::{self, AdamwStep};
use model_zoo::{ParamSpec, Params};
use serde::{Deserialize, Serialize};

use crate::partition::{Partition, Piece};

/// Hyper-parameters of AdamW with the semantics of `torch.optim.AdamW` (Loshchilov & Hutter, arXiv 1711.05101).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct AdamwHyper {
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Decoupled weight decay, applied to parameters whose spec says so (matrices; never norms or biases).
    pub weight_decay: f64,
    /// Clip the global gradient norm to this; `None` leaves it alone.
    pub max_grad_norm: Option<f64>,
}

/// What an update did.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepStats {
    /// Global norm of the mean gradient before clipping.
    pub grad_norm: f64,
    /// Whether the clip made it smaller.
    pub clipped: bool,
}

/// AdamW over flat parameters.
pub struct Adamw {
    /// Hyper-parameters.
    pub hyper: AdamwHyper,
    /// Updates applied so far (skipped steps do not count); bias correction uses it.
    pub updates: u64,
    /// First moments, flat: `[numel]` a parameter in the order of `Params::specs`, or one a piece of the partition.
    pub exp_avg: Vec<Tensor<1>>,
    /// Second moments, likewise.
    pub exp_avg_sq: Vec<Tensor<1>>,
    /// What this process keeps; `None` keeps everything.
    pub partition: Option<Partition>,
}

impl Adamw {
    /// Zero moments for every parameter, on `device`.
    pub fn new(hyper: AdamwHyper, params: &Params, device: &Device) -> Self {
        Self::divided(hyper, params, None, device)
    }

    /// Zero moments for the pieces that this process keeps; gradients must come by these pieces.
    pub fn divided(hyper: AdamwHyper, params: &Params, partition: Option<Partition>, device: &Device) -> Self {
        let lengths: Vec<usize> = match &partition {
            None => params.specs().iter().map(ParamSpec::num_elements).collect(),
            Some(partition) => partition.own().iter().map(Piece::len).collect(),
        };
        let zeros = || lengths.iter().map(|len| Tensor::zeros([*len], device)).collect();
        Self { hyper, updates: 0, exp_avg: zeros(), exp_avg_sq: zeros(), partition }
    }

    /// Clips and applies the gradient of a loss *sum* over `valid` target tokens.
    pub fn step(&mut self, params: &mut Params, grads: Vec<Tensor<1>>, valid: u64, lr: f64) -> StepStats {
        let grad_norm = grad_norm(&grads, valid);
        self.apply(params, grads, valid, grad_norm, lr)
    }

    /// [`Adamw::step`] with the norm already known (the guard looks at it first).
    pub fn apply(
        &mut self,
        params: &mut Params,
        grads: Vec<Tensor<1>>,
        valid: u64,
        grad_norm: f64,
        lr: f64,
    ) -> StepStats {
        let clip = self.hyper.max_grad_norm.map_or(1.0, |max| clip_scale(grad_norm, max));
        self.updates += 1;
        let specs = std::sync::Arc::clone(params.shared_specs());
        let pieces = self.partition.as_ref().map(Partition::own);
        for (i, grad) in grads.into_iter().enumerate() {
            let piece = pieces.map(|pieces| pieces.get(i));
            let param = match piece {
                Some(Some(piece)) => piece.param,
                Some(None) => break,
                None => i,
            };
            let (Some(spec), Some(p), Some(m), Some(v)) = (
                specs.get(param),
                params.tensors_mut().get_mut(param),
                self.exp_avg.get_mut(i),
                self.exp_avg_sq.get_mut(i),
            ) else {
                break;
            };
            let step = AdamwStep {
                lr,
                beta1: self.hyper.beta1,
                beta2: self.hyper.beta2,
                eps: self.hyper.eps,
                weight_decay: if spec.decay { self.hyper.weight_decay } else { 0.0 },
                step: self.updates,
                grad_scale: (clip / valid.max(1) as f64) as f32,
            };
            match piece.flatten().filter(|piece| piece.len() < spec.num_elements()) {
                None => replace3(p, m, v, |p, m, v| ops::adamw(p, grad, m, v, &step)),
                Some(piece) => {
                    let mut own = cut(p.clone(), piece);
                    replace3(&mut own, m, v, |p, m, v| ops::adamw(p, grad, m, v, &step));
                    let whole = std::mem::replace(p, Tensor::empty([0], &Device::flex()));
                    *p = whole.slice_assign([piece.range.clone()], own);
                }
            }
        }
        StepStats { grad_norm, clipped: clip < 1.0 }
    }
}

/// Global L2 norm of the mean gradient: `sqrt(sum of squares of the summed gradient) / valid`.
pub fn grad_norm(grads: &[Tensor<1>], valid: u64) -> f64 {
    norm(grads.iter().map(ops::sum_squares).sum(), valid)
}

/// [`grad_norm`] of a gradient whose squares add up to `squares`.
pub fn norm(squares: f64, valid: u64) -> f64 {
    squares.sqrt() / valid.max(1) as f64
}

/// `min(1, max / (norm + 1e-6))`, the rule of `torch.nn.utils.clip_grad_norm_`.
pub fn clip_scale(norm: f64, max: f64) -> f64 {
    (max / (norm + 1e-6)).min(1.0)
}

/// The elements of a piece, in a buffer of their own.
pub(crate) fn cut(whole: Tensor<1>, piece: &Piece) -> Tensor<1> {
    if piece.len() == whole.dims().iter().product::<usize>() {
        return whole;
    }
    whole.slice([piece.range.clone()])
}

/// Moves three tensors out of their places, so that the kernel sees unique buffers and can write in place.
fn replace3(
    p: &mut Tensor<1>,
    m: &mut Tensor<1>,
    v: &mut Tensor<1>,
    f: impl FnOnce(Tensor<1>, Tensor<1>, Tensor<1>) -> (Tensor<1>, Tensor<1>, Tensor<1>),
) {
    let empty = || Tensor::<1>::empty([0], &Device::flex());
    let (new_p, new_m, new_v) =
        f(std::mem::replace(p, empty()), std::mem::replace(m, empty()), std::mem::replace(v, empty()));
    (*p, *m, *v) = (new_p, new_m, new_v);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use burn::tensor::TensorData;
    use model_zoo::Init;

    fn params(values: &[f32], decay: bool) -> Params {
        let spec = ParamSpec { name: "w".into(), shape: vec![values.len()], init: Init::Ones, decay };
        Params::from_host(vec![spec].into(), vec![values.to_vec()], &Device::flex()).unwrap()
    }

    fn tensor(values: &[f32]) -> Tensor<1> {
        Tensor::from_data(TensorData::new(values.to_vec(), [values.len()]), &Device::flex())
    }

    fn values(t: &Tensor<1>) -> Vec<f32> {
        t.clone().into_data().try_into_vec::<f32>().unwrap()
    }

    const HYPER: AdamwHyper =
        AdamwHyper { beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1, max_grad_norm: Some(1.0) };

    #[test]
    fn first_step_moves_by_the_learning_rate_and_decays() {
        for (decay, expected) in [(true, 2.0 * (1.0 - 0.01 * 0.1) - 0.01), (false, 2.0 - 0.01)] {
            let mut p = params(&[2.0], decay);
            let mut adamw = Adamw::new(HYPER, &p, &Device::flex());
            let stats = adamw.step(&mut p, vec![tensor(&[0.5])], 1, 0.01);
            assert!((f64::from(values(&p.tensors()[0])[0]) - expected).abs() < 1e-6);
            assert_eq!(stats, StepStats { grad_norm: 0.5, clipped: false });
            assert_eq!(adamw.updates, 1);
        }
    }

    #[test]
    fn dividing_by_valid_tokens_is_invisible_to_how_the_sum_was_cut() {
        let (mut a, mut b) = (params(&[1.0, -1.0], true), params(&[1.0, -1.0], true));
        let (mut oa, mut ob) = (Adamw::new(HYPER, &a, &Device::flex()), Adamw::new(HYPER, &b, &Device::flex()));
        let sa = oa.step(&mut a, vec![tensor(&[3.0, 4.0])], 1, 0.1);
        let sb = ob.step(&mut b, vec![tensor(&[24.0, 32.0])], 8, 0.1);
        assert_eq!(sa, sb);
        assert!(sa.clipped);
        assert_eq!(values(&a.tensors()[0]), values(&b.tensors()[0]));
    }

    #[test]
    fn clip_is_global_and_follows_torch() {
        assert_eq!(clip_scale(0.5, 1.0), 1.0);
        assert!((clip_scale(4.0, 1.0) - 1.0 / 4.000_001).abs() < 1e-15);
        assert!((grad_norm(&[tensor(&[3.0]), tensor(&[4.0])], 2) - 2.5).abs() < 1e-12);
    }
}
