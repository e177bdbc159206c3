//! Owns the cases at the borders: extreme values, nothing to do, shared buffers, other dtypes, no autodiff.

use super::super::{self as ops, AdamwStep, AttentionRule, AttentionShape, reference};
use super::{Matrix, Numbers, exact, ids, matrix, relative_error, same_bits, values, with_gradients};
use burn::Tensor;
use burn::backend::Flex;
use burn::tensor::{DType, Device, TensorData};

#[test]
fn cross_entropy_of_extreme_logits() {
    // Logits of +-1e4: certain and right, certain and wrong, and two that tie.
    let h = Matrix { values: vec![1e4, -1e4, 1e4, 1e4], shape: [4, 1] };
    let w = Matrix { values: vec![1.0, -1.0, 1.0, 0.0], shape: [4, 1] };
    let targets = [0, 0, 1, 3];
    let exact = exact::cross_entropy(&h, &w, &targets, None);
    let fused = with_gradients(&[h, w], &[1.0], |t, device| {
        ops::linear_cross_entropy(t[0].clone(), t[1].clone(), ids(&targets, [4], device), None)
    });
    assert!(relative_error(&fused[0], &[exact[0].iter().sum()]) < 1e-6);
    assert!(relative_error(&fused[1], &exact[1]) < 1e-6 && relative_error(&fused[2], &exact[2]) < 1e-6);
}

#[test]
fn attention_of_extreme_scores() {
    let shape = AttentionShape { batch: 1, seq: 40, heads: 1, kv_heads: 1, head_dim: 8 };
    let mut numbers = Numbers(9);
    let [mut q, k, v] = [0, 1, 2].map(|_| numbers.matrix(40, 8));
    q.values.iter_mut().for_each(|x| *x *= 1e4);
    let g = numbers.matrix(40, 8).values;
    let segments = vec![0; 40];
    let rule = AttentionRule::scaled(1.0);
    let exact = exact::attention([&q, &k, &v], &segments, shape, rule, &g);
    let fused = with_gradients(&[q, k, v], &g, |t, device| {
        ops::attention(t[0].clone(), t[1].clone(), t[2].clone(), ids(&segments, [1, 40], device), shape, rule)
    });
    // Scores of 1e4 carry an error of 1e-3 in f32, which the softmax passes on to weights that nearly tie.
    assert!(relative_error(&fused[0], &exact[0]) < 5e-3);
    assert!(fused.iter().flatten().all(|x| x.is_finite()));
}

#[test]
fn a_logit_that_is_no_number_makes_the_loss_no_number() {
    let device = Device::flex();
    let h = Matrix { values: vec![1.0, f32::NAN], shape: [2, 1] };
    let w = Matrix { values: vec![1.0, 2.0, 3.0], shape: [3, 1] };
    let loss = ops::linear_cross_entropy(matrix(&h, &device), matrix(&w, &device), ids(&[0, 1], [2], &device), None);
    assert!(values(loss)[0].is_nan());
    let silu = ops::swiglu(matrix(&h, &device), matrix(&h, &device));
    assert!(values(silu)[1].is_nan());
}

#[test]
fn swiglu_far_out_is_zero_or_the_identity() {
    let device = Device::flex();
    let gate = Matrix { values: vec![-1e30, -200.0, -88.0, 88.0, 200.0, 1e30], shape: [1, 6] };
    let up = Matrix { values: vec![1.0; 6], shape: [1, 6] };
    let out = values(ops::swiglu(matrix(&gate, &device), matrix(&up, &device)));
    assert!(out[0] == 0.0 && out[1] == 0.0 && out[2].abs() < 1e-30, "{out:?}");
    assert_eq!(&out[3..], &[88.0, 200.0, 1e30]);
}

#[test]
fn geglu_far_out_is_zero_or_the_identity_and_its_slopes_are_finite() {
    let gate = Matrix { values: vec![-1e30, -200.0, -13.0, 13.0, 200.0, 1e30], shape: [1, 6] };
    let up = Matrix { values: vec![1.0; 6], shape: [1, 6] };
    let all = with_gradients(&[gate, up], &[1.0; 6], |t, _| ops::geglu(t[0].clone(), t[1].clone()));
    assert_eq!(all[0], [0.0, 0.0, 0.0, 13.0, 200.0, 1e30]);
    assert_eq!(all[1], [0.0, 0.0, 0.0, 1.0, 1.0, 1.0]);
}

#[test]
fn bounded_scores_and_logits_stay_finite_however_large() {
    let shape = AttentionShape { batch: 1, seq: 40, heads: 1, kv_heads: 1, head_dim: 8 };
    let mut numbers = Numbers(9);
    let [mut q, k, v] = [0, 1, 2].map(|_| numbers.matrix(40, 8));
    q.values.iter_mut().for_each(|x| *x *= 1e20);
    let g = numbers.matrix(40, 8).values;
    let rule = AttentionRule { scale: 1.0, window: Some(7), softcap: Some(50.0) };
    let segments = vec![0; 40];
    let exact = exact::attention([&q, &k, &v], &segments, shape, rule, &g);
    let fused = with_gradients(&[q, k, v], &g, |t, device| {
        ops::attention(t[0].clone(), t[1].clone(), t[2].clone(), ids(&segments, [1, 40], device), shape, rule)
    });
    assert!(relative_error(&fused[0], &exact[0]) < 1e-5);
    assert!(fused.iter().flatten().all(|x| x.is_finite()));
    let h = Matrix { values: vec![1e20, -1e20], shape: [2, 1] };
    let w = Matrix { values: vec![1.0, -1.0, 0.5], shape: [3, 1] };
    let exact = exact::cross_entropy(&h, &w, &[0, 0], Some(30.0));
    let fused = with_gradients(&[h, w], &[1.0], |t, device| {
        ops::linear_cross_entropy(t[0].clone(), t[1].clone(), ids(&[0, 0], [2], device), Some(30.0))
    });
    assert!(relative_error(&fused[0], &[exact[0].iter().sum()]) < 1e-6);
    assert!(fused.iter().flatten().all(|x| x.is_finite()));
}

#[test]
fn a_loss_without_targets_is_zero_and_so_are_its_gradients() {
    let mut numbers = Numbers(4);
    let inputs = [numbers.matrix(6, 3), numbers.matrix(5, 3)];
    let all = with_gradients(&inputs, &[1.0], |t, device| {
        ops::linear_cross_entropy(t[0].clone(), t[1].clone(), ids(&[-1; 6], [6], device), None)
    });
    assert!(all.iter().flatten().all(|&x| x == 0.0));
    assert_eq!((all[1].len(), all[2].len()), (18, 15));
}

#[test]
#[should_panic(expected = "target 5 is no row")]
fn a_target_outside_the_vocabulary_is_refused() {
    let device = Device::flex();
    let h = matrix(&Numbers(1).matrix(1, 2), &device);
    let w = matrix(&Numbers(1).matrix(5, 2), &device);
    ops::linear_cross_entropy(h, w, ids(&[5], [1], &device), None);
}

#[test]
#[should_panic(expected = "id -1 is no row")]
fn an_id_outside_the_table_is_refused() {
    let device = Device::flex();
    ops::embedding(matrix(&Numbers(1).matrix(5, 2), &device), ids(&[-1], [1], &device));
}

fn vector(values: &[f32], device: &Device) -> Tensor<1> {
    Tensor::from_data(TensorData::new(values.to_vec(), [values.len()]), device)
}

fn address(tensor: &Tensor<1>) -> usize {
    let tensor = tensor.clone().try_into_primitive::<Flex>().unwrap();
    tensor.storage::<f32>().as_ptr() as usize
}

#[test]
fn add_reuses_a_buffer_only_if_nobody_else_holds_it() {
    let device = Device::flex();
    let (a, b) = (vector(&[1.0, 2.0], &device), vector(&[10.0, 20.0], &device));
    let (held_a, held_b) = (a.clone(), b.clone());
    let sum = ops::add(a, b);
    assert_eq!(values(sum), [11.0, 22.0]);
    assert_eq!((values(held_a.clone()), values(held_b.clone())), (vec![1.0, 2.0], vec![10.0, 20.0]));
    let place = address(&held_b);
    let sum = ops::add(vector(&[0.5, 0.5], &device).clone(), held_b);
    assert_eq!(values(sum.clone()), [10.5, 20.5]);
    let kept = held_a.clone();
    let (place_a, place_sum) = (address(&held_a), address(&sum));
    assert_ne!(place, place_a);
    let sum = ops::add(held_a, sum);
    assert_eq!(address(&sum), place_sum, "the buffer that was held by one tensor only is reused");
    assert_eq!(values(kept), [1.0, 2.0]);
}

#[test]
fn adamw_updates_in_place_and_leaves_shared_buffers_alone() {
    let device = Device::flex();
    let step = AdamwStep { lr: 0.1, beta1: 0.9, beta2: 0.99, eps: 1e-8, weight_decay: 0.1, step: 1, grad_scale: 1.0 };
    let (p, g, m, v) = (vector(&[1.0, -2.0], &device), vector(&[0.5, 0.25], &device), [0.0; 2], [0.0; 2]);
    let (m, v) = (vector(&m, &device), vector(&v, &device));
    let place = address(&p);
    let (p, m, v) = ops::adamw(p, g.clone(), m, v, &step);
    assert_eq!(address(&p), place);
    let held = p.clone();
    let before = values(held.clone());
    let (p, _, _) = ops::adamw(p, g, m, v, &AdamwStep { step: 2, ..step });
    assert_ne!(values(p), before);
    assert_eq!(values(held), before);
}

#[test]
fn adamw_agrees_over_many_steps() {
    let device = Device::flex();
    let mut numbers = Numbers(12);
    let start = numbers.matrix(1, 100).values;
    let mut exact: Vec<[f64; 3]> = start.iter().map(|&p| [f64::from(p), 0.0, 0.0]).collect();
    let zeros = vec![0.0; 100];
    let state = || (vector(&start, &device), vector(&zeros, &device), vector(&zeros, &device));
    let (mut fused, mut tensors) = (state(), state());
    for step in 1..=20 {
        let s = AdamwStep {
            lr: 1e-2 / step as f64,
            beta1: 0.9,
            beta2: 0.95,
            eps: 1e-8,
            weight_decay: 0.1,
            step,
            grad_scale: 0.125,
        };
        let g = numbers.matrix(1, 100).values;
        fused = ops::adamw(fused.0, vector(&g, &device), fused.1, fused.2, &s);
        tensors = reference::adamw(tensors.0, vector(&g, &device), tensors.1, tensors.2, s.factors());
        for ([p, m, v], g) in exact.iter_mut().zip(&g) {
            let g = f64::from(*g) * 0.125;
            *m = s.beta1 * *m + (1.0 - s.beta1) * g;
            *v = s.beta2 * *v + (1.0 - s.beta2) * g * g;
            let (m, v) = (*m / (1.0 - s.beta1.powi(step as i32)), *v / (1.0 - s.beta2.powi(step as i32)));
            *p -= s.lr * s.weight_decay * *p + s.lr * m / (v.sqrt() + s.eps);
        }
    }
    let exact: Vec<f64> = exact.iter().map(|s| s[0]).collect();
    assert!(relative_error(&values(fused.0), &exact) < 2e-6);
    assert!(relative_error(&values(tensors.0), &exact) < 2e-6);
}

#[test]
fn sum_of_squares_is_exact_enough_for_huge_and_tiny_values() {
    let device = Device::flex();
    let mut numbers = Numbers(2);
    let mut g = numbers.matrix(1, 100_003).values;
    g[5] = 3e19;
    g[70_000] = 1e-30;
    let exact: f64 = g.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
    let sum = ops::sum_squares(&vector(&g, &device));
    assert!((sum / exact - 1.0).abs() < 1e-14, "{sum} {exact}");
    assert_eq!(ops::sum_squares(&vector(&[], &device)), 0.0);
    assert!(ops::sum_squares(&vector(&[f32::NAN], &device)).is_nan());
}

#[test]
fn without_autodiff_the_output_has_the_same_bits() {
    let mut numbers = Numbers(8);
    let inputs = [numbers.matrix(70, 40), numbers.matrix(90, 40)];
    let targets = numbers.targets(70, 90);
    let loss = |t: Vec<Tensor<2>>, device: &Device| {
        let targets = ids(&targets, [70], device);
        ops::linear_cross_entropy(t[0].clone(), t[1].clone(), targets, None)
    };
    let tracked = with_gradients(&inputs, &[1.0], loss);
    for device in [Device::flex(), Device::flex().autodiff()] {
        let plain = loss(inputs.iter().map(|m| matrix(m, &device)).collect(), &device);
        assert_eq!(plain.device().is_autodiff(), device.is_autodiff());
        assert!(same_bits(&[values(plain)], &tracked[..1]));
    }
}

#[test]
fn a_weight_alone_may_be_tracked() {
    let mut numbers = Numbers(8);
    let (x, w) = (numbers.matrix(5, 4), numbers.matrix(3, 4));
    let device = Device::flex();
    let weight = matrix(&w, &device.clone().autodiff()).require_grad();
    let gradients = ops::linear(matrix(&x, &device), weight.clone()).sum().backward();
    let exact = exact::linear(&x, &w, &[1.0; 15]);
    assert!(relative_error(&values(weight.grad(&gradients).unwrap()), &exact[2]) < 1e-6);
}

#[test]
fn half_precision_runs_as_tensor_operations_and_leaves_master_weights_in_single() {
    let device = Device::flex().autodiff();
    let mut numbers = Numbers(8);
    let (x, w) = (numbers.matrix(5, 8), numbers.matrix(3, 8));
    let weight = matrix(&w, &device).require_grad();
    let y = ops::linear(matrix(&x, &device).cast(DType::BF16), weight.clone());
    assert_eq!(y.dtype(), DType::BF16);
    let gradients = y.cast(DType::F32).sum().backward();
    let gradient = weight.grad(&gradients).unwrap();
    assert_eq!(gradient.dtype(), DType::F32);
    let exact = exact::linear(&x, &w, &[1.0; 15]);
    assert!(relative_error(&values(gradient), &exact[2]) < 2e-2);
}

#[test]
fn views_are_read_as_they_look() {
    let device = Device::flex();
    let x = matrix(&Numbers(3).matrix(6, 10), &device);
    let w = matrix(&Numbers(4).matrix(10, 7), &device);
    let part = x.clone().narrow(0, 1, 3);
    let copy = matrix(&Matrix { values: values(part.clone()), shape: [3, 10] }, &device);
    let turned = Matrix { values: values(w.clone().transpose()), shape: [7, 10] };
    let direct = ops::linear(copy, matrix(&turned, &device));
    assert_eq!(values(ops::linear(part, w.transpose())), values(direct));
}
