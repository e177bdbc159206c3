//! Owns the comparison of outputs and gradients on ordinary values and odd shapes.

use super::super::{self as ops, AttentionRule, AttentionShape, reference};
use super::{Matrix, Numbers, check, exact, ids, matrix, same_bits, values, with_gradients};
use burn::Tensor;
use burn::tensor::Device;
use proptest::prelude::*;

fn check_linear(n: usize, features: usize, out: usize, tolerance: f64) {
    let mut numbers = Numbers((n * 31 + features * 7 + out) as u64);
    let inputs = [numbers.matrix(n, features), numbers.matrix(out, features)];
    let g = numbers.matrix(n, out).values;
    let run = |op: fn(_, _) -> _| with_gradients(&inputs, &g, |t, _| op(t[0].clone(), t[1].clone()));
    let exact = exact::linear(&inputs[0], &inputs[1], &g);
    let what = format!("linear of {n} rows, {features} to {out}");
    check(&what, &run(ops::linear), &run(reference::linear), &exact, tolerance);
}

#[test]
fn linear_agrees_on_odd_shapes() {
    for (n, features, out) in [(1, 5, 3), (2, 64, 65), (4, 7, 33), (5, 1, 1), (7, 33, 65), (65, 7, 200), (130, 257, 45)]
    {
        check_linear(n, features, out, 2e-6);
    }
}

#[test]
fn linear_agrees_on_sums_that_are_split() {
    check_linear(13, 8192, 9, 5e-6);
    check_linear(9, 11, 8300, 5e-6);
}

#[test]
fn branches_have_the_gradients_of_clones() {
    for (n, d) in [(1, 1), (7, 33), (300, 256)] {
        let mut numbers = Numbers((n * 10 + d) as u64);
        let inputs = [numbers.matrix(n, d), numbers.matrix(d, d)];
        let g = numbers.matrix(n, d).values;
        let run = |op: &dyn Fn(Tensor<2>, Tensor<2>) -> Tensor<2>| {
            with_gradients(&inputs, &g, |t, _| op(t[0].clone(), t[1].clone()))
        };
        // Two terms: their order is no matter.
        let branched = run(&|x, w| {
            let [a, b] = ops::branches(x);
            ops::add(a, ops::linear(b, w))
        });
        assert!(same_bits(&branched, &run(&|x, w| ops::add(x.clone(), ops::linear(x, w)))), "{n} by {d}");
        // Three: equal but for rounding, and the same every time.
        let join = |[a, b, c]: [Tensor<2>; 3], w| ops::add(ops::swiglu(a, b), ops::linear(c, w));
        let branched = run(&|x, w| join(ops::branches(x), w));
        assert!(same_bits(&branched, &run(&|x, w| join(ops::branches(x), w))), "{n} by {d}");
        let cloned = run(&|x, w| join([x.clone(), x.clone(), x], w));
        let near = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-5 * b.abs().max(1.0);
        assert!(branched.iter().flatten().zip(cloned.iter().flatten()).all(near), "{n} by {d}");
    }
}

#[test]
fn branches_of_a_tensor_without_gradient_are_the_tensor() {
    let device = Device::flex();
    let x = matrix(&Numbers(1).matrix(3, 4), &device);
    let [a, b] = ops::branches(x.clone());
    assert_eq!((values(a), values(b)), (values(x.clone()), values(x)));
}

#[test]
#[cfg(debug_assertions)]
#[should_panic(expected = "1 readers of a tensor did not contribute")]
fn a_branch_that_is_not_read_is_a_defect() {
    let inputs = [Numbers(1).matrix(3, 4)];
    let g = Numbers(2).matrix(3, 4).values;
    with_gradients(&inputs, &g, |t, _| {
        let [a, _unread] = ops::branches(t[0].clone());
        a
    });
}

#[test]
fn rms_norm_agrees() {
    for (n, d) in [(1, 1), (1, 8), (7, 20), (65, 33), (129, 64), (3, 700)] {
        let mut numbers = Numbers((n * 1000 + d) as u64);
        let inputs = [numbers.matrix(n, d), numbers.matrix(1, d)];
        let g = numbers.matrix(n, d).values;
        let run = |op: fn(_, _, _) -> _| {
            with_gradients(&inputs, &g, |t, _| op(t[0].clone(), t[1].clone().flatten(0, 1), 1e-5))
        };
        let exact = exact::rms_norm(&inputs[0], &inputs[1], 1e-5, &g);
        check(&format!("rms_norm {n} x {d}"), &run(ops::rms_norm), &run(reference::rms_norm), &exact, 2e-6);
    }
}

#[test]
fn rope_agrees() {
    for (n, heads, half) in [(1, 1, 1), (7, 3, 4), (33, 4, 10), (65, 2, 32)] {
        let mut numbers = Numbers((n * 100 + half) as u64);
        let x = [numbers.matrix(n, heads * 2 * half)];
        let angles: Vec<f32> = (0..n * half).map(|_| numbers.float() * 3.0).collect();
        let table = |f: fn(f32) -> f32| Matrix { values: angles.iter().map(|&a| f(a)).collect(), shape: [n, half] };
        let (cos, sin) = (table(f32::cos), table(f32::sin));
        let g = numbers.matrix(n, heads * 2 * half).values;
        let run = |op: fn(_, _, _, _) -> _| {
            with_gradients(&x, &g, |t, device| op(t[0].clone(), matrix(&cos, device), matrix(&sin, device), heads))
        };
        let exact = exact::rope(&x[0], &cos, &sin, &g);
        check(&format!("rope of {n} rows"), &run(ops::rope), &run(reference::rope), &exact, 1e-6);
    }
}

#[test]
fn swiglu_agrees() {
    for (n, d) in [(1, 1), (3, 17), (65, 33)] {
        let mut numbers = Numbers((n * 100 + d) as u64);
        let mut inputs = [numbers.matrix(n, d), numbers.matrix(n, d)];
        inputs[0].values.iter_mut().for_each(|x| *x *= 12.0);
        let g = numbers.matrix(n, d).values;
        let run = |op: fn(_, _) -> _| with_gradients(&inputs, &g, |t, _| op(t[0].clone(), t[1].clone()));
        let exact = exact::swiglu(&inputs[0], &inputs[1], &g);
        check(&format!("swiglu {n} x {d}"), &run(ops::swiglu), &run(reference::swiglu), &exact, 1e-6);
    }
}

#[test]
fn geglu_agrees() {
    for (n, d) in [(1, 1), (3, 17), (65, 33)] {
        let mut numbers = Numbers((n * 100 + d) as u64);
        let mut inputs = [numbers.matrix(n, d), numbers.matrix(n, d)];
        inputs[0].values.iter_mut().for_each(|x| *x *= 6.0);
        let g = numbers.matrix(n, d).values;
        let run = |op: fn(_, _) -> _| with_gradients(&inputs, &g, |t, _| op(t[0].clone(), t[1].clone()));
        let exact = exact::geglu(&inputs[0], &inputs[1], &g);
        check(&format!("geglu {n} x {d}"), &run(ops::geglu), &run(reference::geglu), &exact, 1e-6);
    }
}

#[test]
fn add_bias_agrees() {
    for (n, d) in [(1, 1), (7, 20), (65, 33), (129, 64), (200, 5)] {
        let mut numbers = Numbers((n * 1000 + d) as u64);
        let inputs = [numbers.matrix(n, d), numbers.matrix(1, d)];
        let g = numbers.matrix(n, d).values;
        let run = |op: fn(_, _) -> _| with_gradients(&inputs, &g, |t, _| op(t[0].clone(), t[1].clone().flatten(0, 1)));
        let exact = exact::add_bias(&inputs[0], &inputs[1], &g);
        check(&format!("add_bias {n} x {d}"), &run(ops::add_bias), &run(reference::add_bias), &exact, 1e-6);
    }
}

fn check_attention(shape: AttentionShape, segments: &[i32], scale: f64, tolerance: f64) {
    check_rule(shape, segments, AttentionRule::scaled(scale), tolerance);
}

fn check_rule(shape: AttentionShape, segments: &[i32], rule: AttentionRule, tolerance: f64) {
    let AttentionShape { batch, seq, heads, kv_heads, head_dim } = shape;
    let mut numbers = Numbers((seq * 64 + head_dim * 8 + heads) as u64);
    let (q, kv) = ([batch * seq, heads * head_dim], [batch * seq, kv_heads * head_dim]);
    let inputs = [numbers.matrix(q[0], q[1]), numbers.matrix(kv[0], kv[1]), numbers.matrix(kv[0], kv[1])];
    let g = numbers.matrix(q[0], q[1]).values;
    let run = |op: fn(_, _, _, _, _, _) -> _| {
        with_gradients(&inputs, &g, |t, device| {
            op(t[0].clone(), t[1].clone(), t[2].clone(), ids(segments, [batch, seq], device), shape, rule)
        })
    };
    let exact = exact::attention([&inputs[0], &inputs[1], &inputs[2]], segments, shape, rule, &g);
    check(&format!("{shape:?} {rule:?}"), &run(ops::attention), &run(reference::attention), &exact, tolerance);
}

#[test]
fn attention_agrees_on_odd_shapes() {
    for seq in [1, 7, 33, 65] {
        for (heads, kv_heads) in [(4, 2), (3, 1)] {
            for head_dim in [8, 20, 32, 64] {
                let shape = AttentionShape { batch: 2, seq, heads, kv_heads, head_dim };
                let segments = Numbers(seq as u64).segments(2, seq, 40);
                check_attention(shape, &segments, 1.0 / (head_dim as f64).sqrt(), 3e-6);
            }
        }
    }
}

#[test]
fn attention_agrees_over_several_strips_and_blocks() {
    let shape = AttentionShape { batch: 1, seq: 1000, heads: 2, kv_heads: 1, head_dim: 8 };
    check_attention(shape, &vec![0; 1000], 2.0, 5e-6);
    check_attention(shape, &Numbers(5).segments(1, 1000, 600), 2.0, 5e-6);
    let shape = AttentionShape { batch: 1, seq: 450, heads: 20, kv_heads: 20, head_dim: 4 };
    check_attention(shape, &Numbers(6).segments(1, 450, 300), 1.0, 5e-6);
}

#[test]
fn attention_agrees_with_documents_of_one_token_and_with_torn_ones() {
    let shape = AttentionShape { batch: 1, seq: 70, heads: 2, kv_heads: 2, head_dim: 8 };
    let each_its_own: Vec<i32> = (0..70).collect();
    check_attention(shape, &each_its_own, 1.0, 3e-6);
    let torn: Vec<i32> = (0..70).map(|i| i % 3).collect();
    check_attention(shape, &torn, 1.0, 3e-6);
}

#[test]
fn attention_agrees_with_windows_and_bounded_scores() {
    for (seq, window) in [(1, 1), (7, 3), (33, 16), (65, 16), (65, 64), (65, 65), (65, 1000)] {
        for softcap in [None, Some(1.5)] {
            let shape = AttentionShape { batch: 2, seq, heads: 3, kv_heads: 1, head_dim: 20 };
            let rule = AttentionRule { scale: 0.7, window: Some(window), softcap };
            check_rule(shape, &vec![0; 2 * seq], rule, 3e-6);
            check_rule(shape, &Numbers(seq as u64).segments(2, seq, 40), rule, 3e-6);
        }
    }
    let torn: Vec<i32> = (0..70).map(|i| i % 3).collect();
    let shape = AttentionShape { batch: 1, seq: 70, heads: 2, kv_heads: 2, head_dim: 8 };
    check_rule(shape, &torn, AttentionRule { scale: 1.0, window: Some(10), softcap: Some(2.0) }, 3e-6);
}

#[test]
fn windows_are_kept_over_several_strips_and_blocks() {
    let shape = AttentionShape { batch: 1, seq: 1000, heads: 2, kv_heads: 1, head_dim: 8 };
    for window in [1, 100, 257, 384, 500, 999] {
        let rule = AttentionRule { scale: 2.0, window: Some(window), softcap: None };
        check_rule(shape, &vec![0; 1000], rule, 5e-6);
        let rule = AttentionRule { softcap: Some(3.0), ..rule };
        check_rule(shape, &Numbers(5).segments(1, 1000, 600), rule, 5e-6);
    }
}

fn check_cross_entropy(n: usize, d: usize, vocab: usize, targets: &[i32], tolerance: f64) {
    for bound in [None, Some(0.8), Some(30.0)] {
        check_bounded_cross_entropy(n, d, vocab, targets, bound, tolerance);
    }
}

fn check_bounded_cross_entropy(n: usize, d: usize, vocab: usize, targets: &[i32], bound: Option<f64>, tolerance: f64) {
    let mut numbers = Numbers((n * 100 + vocab) as u64);
    let inputs = [numbers.matrix(n, d), numbers.matrix(vocab, d)];
    let exact = exact::cross_entropy(&inputs[0], &inputs[1], targets, bound);
    let scaled = |factor: f64, all: &[Vec<f64>]| {
        let total = vec![all[0].iter().sum::<f64>()];
        let mut scaled = vec![total];
        scaled.extend(all[1..].iter().map(|g| g.iter().map(|x| x * factor).collect()));
        scaled
    };
    for factor in [1.0f32, 0.25] {
        let run = |op: fn(_, _, _, _) -> _| {
            with_gradients(&inputs, &[factor], |t, device| {
                op(t[0].clone(), t[1].clone(), ids(targets, [n], device), bound)
            })
        };
        let exact = scaled(f64::from(factor), &exact);
        let what = format!("cross-entropy of {n} rows, {d} wide, vocabulary {vocab}, bound {bound:?}");
        let (fused, tensors) = (run(ops::linear_cross_entropy), run(reference::linear_cross_entropy));
        check(&what, &fused, &tensors, &exact, tolerance);
    }
    let device = Device::flex();
    let (h, w) = (matrix(&inputs[0], &device), matrix(&inputs[1], &device));
    let losses = values(ops::linear_cross_entropy_tokens(h, w, ids(targets, [n], &device), bound));
    assert!(super::relative_error(&losses, &exact[0]) <= tolerance);
}

#[test]
fn cross_entropy_agrees() {
    for (n, d, vocab) in [(1, 8, 7), (7, 20, 33), (33, 32, 1000), (65, 17, 129), (300, 5, 50)] {
        let targets = Numbers(n as u64).targets(n, vocab);
        check_cross_entropy(n, d, vocab, &targets, 3e-6);
    }
}

#[test]
fn cross_entropy_agrees_over_several_chunks() {
    // 2,500 rows with targets are three chunks of at most 1,024.
    let targets = Numbers(3).targets(2500, 11);
    check_cross_entropy(2500, 4, 11, &targets, 3e-6);
}

#[test]
fn embedding_agrees() {
    for (n, vocab, d) in [(1, 1, 3), (7, 3, 5), (200, 10, 33), (100, 1000, 8)] {
        let mut numbers = Numbers((n * 10 + vocab) as u64);
        let table = [numbers.matrix(vocab, d)];
        let rows: Vec<i32> = (0..n).map(|_| numbers.below(vocab) as i32).collect();
        let g = numbers.matrix(n, d).values;
        let run = |op: fn(_, _) -> _| with_gradients(&table, &g, |t, device| op(t[0].clone(), ids(&rows, [n], device)));
        let exact = exact::embedding(&table[0], &rows, &g);
        check(&format!("embedding of {n}"), &run(ops::embedding), &run(reference::embedding), &exact, 2e-6);
    }
}

#[test]
fn add_passes_gradients_on() {
    let mut numbers = Numbers(1);
    let inputs = [numbers.matrix(1, 100), numbers.matrix(1, 100)];
    let g = numbers.matrix(1, 100).values;
    let run = |op: fn(_, _) -> _| {
        with_gradients(&inputs, &g, |t, _| op(t[0].clone().flatten::<1>(0, 1), t[1].clone().flatten::<1>(0, 1)))
    };
    assert!(super::same_bits(&run(ops::add), &run(reference::add)));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn linear_agrees_on_any_shape(n in 1usize..80, features in 1usize..70, out in 1usize..90) {
        check_linear(n, features, out, 3e-6);
    }

    #[test]
    fn attention_agrees_on_any_shape(
        batch in 1usize..3, seq in 1usize..60, kv_heads in 1usize..3, group in 1usize..4, half in 1usize..20,
        longest in 1usize..80, seed in 0u64..1000, window in proptest::option::of(1usize..70),
        softcap in proptest::option::of(0.5f64..20.0),
    ) {
        let shape = AttentionShape { batch, seq, heads: kv_heads * group, kv_heads, head_dim: 2 * half };
        let rule = AttentionRule { scale: 0.7, window, softcap };
        check_rule(shape, &Numbers(seed).segments(batch, seq, longest), rule, 4e-6);
    }

    #[test]
    fn cross_entropy_agrees_on_any_shape(n in 1usize..40, d in 1usize..40, vocab in 1usize..300, seed in 0u64..1000) {
        let mut targets = Numbers(seed).targets(n, vocab);
        targets[0] = 0;
        check_cross_entropy(n, d, vocab, &targets, 4e-6);
    }
}
