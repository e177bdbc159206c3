//! Owns the optimizer: AdamW, Muon for matrices, the global-norm clip, the division by valid tokens; never touches files.
//!
//! burn's own optimizers clip each parameter alone, keep records that cannot be sharded and restore less than they
//! should without saying so (`docs/adr/0003-flat-parameters-and-own-optimizer.md`). Here the state is two flat tensors
//! a parameter, so a checkpoint can count it and a later sharded optimizer can slice it.

use burn::tensor::{Device, Tensor};
use model_zoo::ops::{self, AdamwStep, MuonStep};
use model_zoo::{ParamSpec, Params};
use serde::{Deserialize, Serialize};

use crate::partition::{Partition, Piece};

/// Hyper-parameters of AdamW with the semantics of `torch.optim.AdamW` (Loshchilov & Hutter, arXiv 1711.05101), and
/// of Muon where it is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct OptimizerHyper {
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
    /// Momentum of Muon, which then updates the matrices between hidden layers; AdamW the rest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub muon_momentum: Option<f64>,
}

impl OptimizerHyper {
    /// Whether Muon updates a parameter.
    pub fn by_muon(&self, spec: &ParamSpec) -> bool {
        self.muon_momentum.is_some() && spec.is_hidden_matrix()
    }

    /// Elements of a parameter's first (0) or second (1) moment: Muon has no second one.
    pub fn moment_len(&self, moment: usize, spec: &ParamSpec) -> usize {
        if moment == 1 && self.by_muon(spec) { 0 } else { spec.num_elements() }
    }
}

/// What an update did.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepStats {
    /// Global norm of the mean gradient before clipping.
    pub grad_norm: f64,
    /// Whether the clip made it smaller.
    pub clipped: bool,
}

/// AdamW, or Muon and AdamW, over flat parameters.
pub struct Optimizer {
    /// Hyper-parameters.
    pub hyper: OptimizerHyper,
    /// Updates applied so far (skipped steps do not count); bias correction uses it.
    pub updates: u64,
    /// First moments, flat: `[numel]` a parameter in the order of `Params::specs`, or one a piece of the partition.
    pub exp_avg: Vec<Tensor<1>>,
    /// Second moments, likewise; empty where Muon needs none.
    pub exp_avg_sq: Vec<Tensor<1>>,
    /// What this process keeps; `None` keeps everything.
    pub partition: Option<Partition>,
}

impl Optimizer {
    /// Zero moments for every parameter, on `device`.
    pub fn new(hyper: OptimizerHyper, params: &Params, device: &Device) -> Self {
        Self::divided(hyper, params, None, device)
    }

    /// Zero moments for the pieces that this process keeps; gradients must come by these pieces.
    pub fn divided(hyper: OptimizerHyper, params: &Params, partition: Option<Partition>, device: &Device) -> Self {
        let zeros = |moment: usize| {
            let lengths: Vec<usize> = match &partition {
                None => params.specs().iter().map(|spec| hyper.moment_len(moment, spec)).collect(),
                Some(partition) => partition.own().iter().map(|piece| piece.moment_len(moment)).collect(),
            };
            lengths.into_iter().map(|len| Tensor::zeros([len], device)).collect()
        };
        Self { hyper, updates: 0, exp_avg: zeros(0), exp_avg_sq: zeros(1), partition }
    }

    /// Clips and applies the gradient of a loss *sum* over `valid` target tokens.
    pub fn step(&mut self, params: &mut Params, grads: Vec<Tensor<1>>, valid: u64, lr: f64) -> StepStats {
        let grad_norm = grad_norm(&grads, valid);
        self.apply(params, grads, valid, grad_norm, lr)
    }

    /// [`Optimizer::step`] with the norm already known (the guard looks at it first).
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
            let grad_scale = (clip / valid.max(1) as f64) as f32;
            let weight_decay = if spec.decay { self.hyper.weight_decay } else { 0.0 };
            if let (Some(momentum), true, [rows, cols]) =
                (self.hyper.muon_momentum, spec.is_hidden_matrix(), &*spec.shape)
            {
                let step = MuonStep { lr, momentum, weight_decay, grad_scale };
                (*p, *m) = ops::muon(taken(p), grad, taken(m), [*rows, *cols], &step);
                continue;
            }
            let step = AdamwStep {
                lr,
                beta1: self.hyper.beta1,
                beta2: self.hyper.beta2,
                eps: self.hyper.eps,
                weight_decay,
                step: self.updates,
                grad_scale,
            };
            match piece.flatten().filter(|piece| piece.len() < spec.num_elements()) {
                None => replace3(p, m, v, |p, m, v| ops::adamw(p, grad, m, v, &step)),
                Some(piece) => {
                    let mut own = cut(p.clone(), piece);
                    replace3(&mut own, m, v, |p, m, v| ops::adamw(p, grad, m, v, &step));
                    *p = taken(p).slice_assign([piece.range.clone()], own);
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
    (*p, *m, *v) = f(taken(p), taken(m), taken(v));
}

/// A tensor out of its place, which is left empty.
fn taken(place: &mut Tensor<1>) -> Tensor<1> {
    std::mem::replace(place, Tensor::empty([0], &Device::flex()))
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

    const HYPER: OptimizerHyper = OptimizerHyper {
        beta1: 0.9,
        beta2: 0.95,
        eps: 1e-8,
        weight_decay: 0.1,
        max_grad_norm: Some(1.0),
        muon_momentum: None,
    };

    #[test]
    fn first_step_moves_by_the_learning_rate_and_decays() {
        for (decay, expected) in [(true, 2.0 * (1.0 - 0.01 * 0.1) - 0.01), (false, 2.0 - 0.01)] {
            let mut p = params(&[2.0], decay);
            let mut adamw = Optimizer::new(HYPER, &p, &Device::flex());
            let stats = adamw.step(&mut p, vec![tensor(&[0.5])], 1, 0.01);
            assert!((f64::from(values(&p.tensors()[0])[0]) - expected).abs() < 1e-6);
            assert_eq!(stats, StepStats { grad_norm: 0.5, clipped: false });
            assert_eq!(adamw.updates, 1);
        }
    }

    #[test]
    fn dividing_by_valid_tokens_is_invisible_to_how_the_sum_was_cut() {
        let (mut a, mut b) = (params(&[1.0, -1.0], true), params(&[1.0, -1.0], true));
        let (mut oa, mut ob) = (Optimizer::new(HYPER, &a, &Device::flex()), Optimizer::new(HYPER, &b, &Device::flex()));
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
    #[test]
    fn muon_takes_the_matrices_between_layers_and_keeps_one_moment_of_them() {
        let device = Device::flex();
        let spec = |name: &str, shape: &[usize]| ParamSpec::new(name.into(), shape.to_vec(), Init::Ones);
        let specs = vec![
            spec("model.embed_tokens.weight", &[6, 4]),
            spec("model.layers.0.mlp.up_proj.weight", &[3, 4]),
            spec("model.norm.weight", &[4]),
            spec("lm_head.weight", &[6, 4]),
        ];
        let ones = specs.iter().map(|spec| vec![1.0; spec.num_elements()]).collect();
        let mut by_muon = Params::from_host(specs.into(), ones, &device).unwrap();
        let mut by_adamw =
            Params::from_tensors(std::sync::Arc::clone(by_muon.shared_specs()), by_muon.tensors().to_vec()).unwrap();
        let hyper = OptimizerHyper { muon_momentum: Some(0.95), ..HYPER };
        let mut muon = Optimizer::new(hyper, &by_muon, &device);
        let mut adamw = Optimizer::new(HYPER, &by_adamw, &device);
        let lengths = |tensors: &[Tensor<1>]| tensors.iter().map(|t| t.dims()[0]).collect::<Vec<_>>();
        assert_eq!(lengths(&muon.exp_avg), [24, 12, 4, 24]);
        assert_eq!(lengths(&muon.exp_avg_sq), [24, 0, 4, 24]);
        let grads = |params: &Params| {
            let ramp = |t: &Tensor<1>| (0..t.dims()[0]).map(|i| (i as f32 * 0.7).sin()).collect::<Vec<_>>();
            params.tensors().iter().map(|t| tensor(&ramp(t))).collect::<Vec<_>>()
        };
        let (a, b) = (grads(&by_muon), grads(&by_adamw));
        let stats = (muon.step(&mut by_muon, a, 3, 0.01), adamw.step(&mut by_adamw, b, 3, 0.01));
        assert_eq!(stats.0, stats.1);
        let same: Vec<bool> =
            by_muon.tensors().iter().zip(by_adamw.tensors()).map(|(a, b)| values(a) == values(b)).collect();
        assert_eq!(same, [true, false, true, true]);
        assert_eq!(lengths(&muon.exp_avg_sq), [24, 0, 4, 24]);
    }
}
