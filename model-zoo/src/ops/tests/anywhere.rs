//! Owns the ops for devices without kernels of ours: the same op on the same values as plain `f64` arithmetic, whatever the
//! number of chunks, and in half precision as the tensor operations of the reference.

use super::super::{self as ops, AttentionRule, AttentionShape, Gate, anywhere, reference};
use super::{Matrix, Numbers, check, exact, ids, matrix, relative_error, values, with_gradients};
use burn::Tensor;
use burn::tensor::{DType, Device};
use proptest::prelude::*;

#[test]
fn norms_gates_and_rotations_agree() {
    for (n, d) in [(1, 2), (7, 20), (65, 34)] {
        let mut numbers = Numbers((n * 1000 + d) as u64);
        let (x, gamma) = (numbers.matrix(n, d), numbers.matrix(1, d));
        let g = numbers.matrix(n, d).values;
        let run = |op: &dyn Fn(Tensor<2>, Tensor<1>) -> Tensor<2>| {
            with_gradients(&[x.clone(), gamma.clone()], &g, |t, _| op(t[0].clone(), t[1].clone().flatten(0, 1)))
        };
        let by_hand = run(&|x, gamma| anywhere::rms_norm([x.into_dispatch(), gamma.into_dispatch()], 1e-5));
        let recorded = run(&|x, gamma| reference::rms_norm(x, gamma, 1e-5));
        check("rms_norm", &by_hand, &recorded, &exact::rms_norm(&x, &gamma, 1e-5, &g), 2e-6);

        let mut gate = numbers.matrix(n, d);
        gate.values.iter_mut().for_each(|x| *x *= 6.0);
        let inputs = [gate, x];
        for (kind, exact) in [
            (Gate::Silu, exact::swiglu(&inputs[0], &inputs[1], &g)),
            (Gate::GeluTanh, exact::geglu(&inputs[0], &inputs[1], &g)),
        ] {
            let by_hand = with_gradients(&inputs, &g, |t, _| {
                anywhere::gated(kind, [&t[0], &t[1]].map(|t| t.clone().into_dispatch()))
            });
            let recorded = with_gradients(&inputs, &g, |t, _| match kind {
                Gate::Silu => reference::swiglu(t[0].clone(), t[1].clone()),
                Gate::GeluTanh => reference::geglu(t[0].clone(), t[1].clone()),
            });
            check(&format!("{kind:?}"), &by_hand, &recorded, &exact, 1e-6);
        }

        let angles: Vec<f32> = (0..n * d / 2).map(|_| numbers.float() * 3.0).collect();
        let table = |f: fn(f32) -> f32| Matrix { values: angles.iter().map(|&a| f(a)).collect(), shape: [n, d / 2] };
        let (cos, sin) = (table(f32::cos), table(f32::sin));
        let x = &inputs[1..];
        let by_hand = with_gradients(x, &g, |t, device| {
            anywhere::rope([t[0].clone(), matrix(&cos, device), matrix(&sin, device)].map(Tensor::into_dispatch), 1)
        });
        let recorded = with_gradients(x, &g, |t, device| {
            reference::rope(t[0].clone(), matrix(&cos, device), matrix(&sin, device), 1)
        });
        check("rope", &by_hand, &recorded, &exact::rope(&x[0], &cos, &sin, &g), 1e-6);
    }
}

fn check_attention(shape: AttentionShape, segments: &[i32], rule: AttentionRule, chunk: usize) {
    let AttentionShape { batch, seq, heads, kv_heads, head_dim } = shape;
    let mut numbers = Numbers((seq * 64 + head_dim * 8 + heads) as u64);
    let (q, kv) = ([batch * seq, heads * head_dim], [batch * seq, kv_heads * head_dim]);
    let inputs = [numbers.matrix(q[0], q[1]), numbers.matrix(kv[0], kv[1]), numbers.matrix(kv[0], kv[1])];
    let g = numbers.matrix(q[0], q[1]).values;
    let by_hand = with_gradients(&inputs, &g, |t, device| {
        let tensors = [&t[0], &t[1], &t[2]].map(|t| t.clone().into_dispatch());
        anywhere::chunked_attention(tensors, ids(segments, [batch, seq], device), shape, rule, chunk)
    });
    let recorded = with_gradients(&inputs, &g, |t, device| {
        reference::attention(t[0].clone(), t[1].clone(), t[2].clone(), ids(segments, [batch, seq], device), shape, rule)
    });
    let exact = exact::attention([&inputs[0], &inputs[1], &inputs[2]], segments, shape, rule, &g);
    check(&format!("{shape:?} {rule:?}, {chunk} queries at a time"), &by_hand, &recorded, &exact, 4e-6);
}

fn check_cross_entropy(n: usize, d: usize, vocab: usize, targets: &[i32], bound: Option<f64>, chunk: usize) {
    let mut numbers = Numbers((n * 100 + vocab) as u64);
    let inputs = [numbers.matrix(n, d), numbers.matrix(vocab, d)];
    let mut exact = exact::cross_entropy(&inputs[0], &inputs[1], targets, bound);
    exact[0] = vec![exact[0].iter().sum()];
    exact[1..].iter_mut().flatten().for_each(|x| *x *= 0.25);
    let by_hand = with_gradients(&inputs, &[0.25], |t, device| {
        let tensors = [&t[0], &t[1]].map(|t| t.clone().into_dispatch());
        anywhere::chunked_cross_entropy(tensors, ids(targets, [n], device), bound, chunk)
    });
    let recorded = with_gradients(&inputs, &[0.25], |t, device| {
        reference::linear_cross_entropy(t[0].clone(), t[1].clone(), ids(targets, [n], device), bound)
    });
    check(&format!("cross-entropy of {n} rows, {chunk} at a time, bound {bound:?}"), &by_hand, &recorded, &exact, 4e-6);
}

#[test]
fn attention_agrees_however_the_queries_are_cut() {
    let torn: Vec<i32> = (0..2 * 33).map(|i| i % 3).collect();
    let shape = AttentionShape { batch: 2, seq: 33, heads: 6, kv_heads: 2, head_dim: 8 };
    for chunk in [1, 7, 32, 33, 1000] {
        for (window, softcap) in
            [(None, None), (Some(1), None), (Some(10), Some(1.5)), (Some(33), None), (None, Some(3.0))]
        {
            let rule = AttentionRule { scale: 0.7, window, softcap };
            check_attention(shape, &Numbers(9).segments(2, 33, 20), rule, chunk);
            check_attention(shape, &torn, rule, chunk);
        }
    }
}

#[test]
fn the_loss_agrees_however_the_rows_are_cut() {
    for chunk in [1, 7, 32, 33, 1000] {
        for bound in [None, Some(0.8), Some(30.0)] {
            check_cross_entropy(33, 20, 129, &Numbers(4).targets(33, 129), bound, chunk);
            check_cross_entropy(8, 3, 5, &[-1; 8], bound, chunk);
        }
    }
}

/// What an op gives in half precision: its output in `f32`, then the gradients of all inputs, which have their dtypes.
fn in_half_precision(inputs: &[Matrix], op: &dyn Fn(Vec<Tensor<2>>, &Device) -> Tensor<2>) -> Vec<Vec<f32>> {
    let device = Device::flex().autodiff();
    let leaves: Vec<Tensor<2>> = inputs.iter().map(|m| matrix(m, &device).cast(DType::BF16).require_grad()).collect();
    let output = op(leaves.clone(), &device);
    let gradients = output.clone().cast(DType::F32).square().sum().backward();
    let mut all = vec![values(output.inner().cast(DType::F32))];
    for leaf in &leaves {
        let gradient = leaf.grad(&gradients).expect("every input has a gradient");
        assert_eq!(gradient.dtype(), DType::BF16, "a gradient has the dtype of its input");
        all.push(values(gradient.cast(DType::F32)));
    }
    all
}

#[test]
fn half_precision_agrees_with_what_autodiff_records() {
    let near = |what: &str, by_hand: Vec<Vec<f32>>, recorded: Vec<Vec<f32>>| {
        for (a, b) in by_hand.iter().zip(&recorded) {
            let exact: Vec<f64> = b.iter().map(|&x| f64::from(x)).collect();
            let error = relative_error(a, &exact);
            assert!(error <= 2e-2, "{what}: {error:.1e}");
        }
    };
    let mut numbers = Numbers(12);
    let inputs = [numbers.matrix(40, 32), numbers.matrix(40, 32), numbers.matrix(40, 32)];
    let shape = AttentionShape { batch: 2, seq: 20, heads: 4, kv_heads: 4, head_dim: 8 };
    let (rule, segments) = (AttentionRule::plain(8), numbers.segments(2, 20, 12));
    let attend = |op: fn(_, _, _, _, _, _) -> Tensor<2>| {
        in_half_precision(&inputs, &|t, device| {
            op(t[0].clone(), t[1].clone(), t[2].clone(), ids(&segments, [2, 20], device), shape, rule)
        })
    };
    near("attention", attend(ops::attention), attend(reference::attention));
    let gate = |op: fn(_, _) -> Tensor<2>| in_half_precision(&inputs[..2], &|t, _| op(t[0].clone(), t[1].clone()));
    near("swiglu", gate(ops::swiglu), gate(reference::swiglu));
    near("geglu", gate(ops::geglu), gate(reference::geglu));
    let targets = numbers.targets(40, 40);
    let lose = |op: fn(_, _, _, _) -> Tensor<1>| {
        in_half_precision(&inputs[..2], &|t, device| {
            op(t[0].clone(), t[1].clone(), ids(&targets, [40], device), None).unsqueeze_dim(1)
        })
    };
    near("cross-entropy", lose(ops::linear_cross_entropy), lose(reference::linear_cross_entropy));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn attention_agrees_on_any_shape_and_cut(
        batch in 1usize..3, seq in 1usize..60, kv_heads in 1usize..3, group in 1usize..4, half in 1usize..20,
        longest in 1usize..80, seed in 0u64..1000, window in proptest::option::of(1usize..70),
        softcap in proptest::option::of(0.5f64..20.0), chunk in 1usize..70,
    ) {
        let shape = AttentionShape { batch, seq, heads: kv_heads * group, kv_heads, head_dim: 2 * half };
        let rule = AttentionRule { scale: 0.7, window, softcap };
        check_attention(shape, &Numbers(seed).segments(batch, seq, longest), rule, chunk);
    }

    #[test]
    fn the_loss_agrees_on_any_shape_and_cut(
        n in 1usize..40, d in 1usize..40, vocab in 1usize..300, seed in 0u64..1000, chunk in 1usize..50,
        bound in proptest::option::of(0.5f64..20.0),
    ) {
        check_cross_entropy(n, d, vocab, &Numbers(seed).targets(n, vocab), bound, chunk);
    }
}
