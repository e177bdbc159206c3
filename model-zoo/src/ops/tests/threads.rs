//! Owns the promise that bits do not depend on the number of threads: shapes large enough to be cut into many tasks.

use super::super::{self as ops, AdamwStep, AttentionRule, AttentionShape};
use super::{Matrix, Numbers, ids, matrix, same_bits, values, with_gradients};
use burn::tensor::{Device, TensorData};

/// The results of `run` have the same bits in pools of 1, 2, 3 and 4 threads.
pub(super) fn check(what: &str, run: impl Fn() -> Vec<Vec<f32>> + Sync) {
    let in_pool = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(&run)
    };
    let alone = in_pool(1);
    for threads in 2..=4 {
        assert!(same_bits(&in_pool(threads), &alone), "{what}: {threads} threads give other bits than one");
    }
}

#[test]
fn linear() {
    for (n, features, out) in [(300, 200, 500), (700, 300, 100), (2, 300, 1000), (20, 8200, 24)] {
        let mut numbers = Numbers(n as u64);
        let inputs = [numbers.matrix(n, features), numbers.matrix(out, features)];
        let g = numbers.matrix(n, out).values;
        check("linear", || with_gradients(&inputs, &g, |t, _| ops::linear(t[0].clone(), t[1].clone())));
    }
}

#[test]
fn norm_activation_and_rotation() {
    let (n, d) = (500, 256);
    let mut numbers = Numbers(5);
    let inputs = [numbers.matrix(n, d), numbers.matrix(1, d)];
    let pair = [numbers.matrix(n, d), numbers.matrix(n, d)];
    let angles = numbers.matrix(n, 16);
    let g = numbers.matrix(n, d).values;
    check("rms_norm", || {
        with_gradients(&inputs, &g, |t, _| ops::rms_norm(t[0].clone(), t[1].clone().flatten(0, 1), 1e-6))
    });
    check("swiglu", || with_gradients(&pair, &g, |t, _| ops::swiglu(t[0].clone(), t[1].clone())));
    check("rope", || {
        with_gradients(&pair[..1], &g, |t, device| {
            ops::rope(t[0].clone(), matrix(&angles, device), matrix(&angles, device), 8)
        })
    });
}

#[test]
fn attention() {
    for (batch, heads, kv_heads, seq) in [(1, 2, 1, 700), (2, 4, 2, 200), (3, 6, 6, 150)] {
        let shape = AttentionShape { batch, seq, heads, kv_heads, head_dim: 16 };
        let mut numbers = Numbers(seq as u64);
        let inputs = [
            numbers.matrix(batch * seq, heads * 16),
            numbers.matrix(batch * seq, kv_heads * 16),
            numbers.matrix(batch * seq, kv_heads * 16),
        ];
        let segments = numbers.segments(batch, seq, 400);
        let g = numbers.matrix(batch * seq, heads * 16).values;
        let plain = AttentionRule::scaled(0.25);
        for rule in [plain, AttentionRule { window: Some(90), softcap: Some(2.0), ..plain }] {
            check("attention", || {
                with_gradients(&inputs, &g, |t, device| {
                    let segments = ids(&segments, [batch, seq], device);
                    ops::attention(t[0].clone(), t[1].clone(), t[2].clone(), segments, shape, rule)
                })
            });
        }
    }
}

#[test]
fn cross_entropy() {
    for (n, d, vocab) in [(1500, 16, 300), (70, 32, 9000)] {
        let mut numbers = Numbers(n as u64);
        let inputs = [numbers.matrix(n, d), numbers.matrix(vocab, d)];
        let targets = numbers.targets(n, vocab);
        for bound in [None, Some(3.0)] {
            check("linear_cross_entropy", || {
                with_gradients(&inputs, &[0.5], |t, device| {
                    ops::linear_cross_entropy(t[0].clone(), t[1].clone(), ids(&targets, [n], device), bound)
                })
            });
        }
    }
}

#[test]
fn embedding() {
    let mut numbers = Numbers(5);
    let table = [numbers.matrix(50, 64)];
    let rows: Vec<i32> = (0..3000).map(|_| numbers.below(50) as i32).collect();
    let g = numbers.matrix(3000, 64).values;
    check("embedding", || {
        with_gradients(&table, &g, |t, device| ops::embedding(t[0].clone(), ids(&rows, [3000], device)))
    });
}

#[test]
fn update_and_sums() {
    let mut numbers = Numbers(5);
    let all = [0, 1, 2, 3].map(|_| numbers.matrix(1, 200_000));
    let step = AdamwStep { lr: 0.1, beta1: 0.9, beta2: 0.99, eps: 1e-8, weight_decay: 0.1, step: 3, grad_scale: 0.5 };
    let vector = |m: &Matrix, device: &Device| {
        burn::Tensor::<1>::from_data(TensorData::new(m.values.clone(), [m.values.len()]), device)
    };
    check("adamw, add and sum_squares", || {
        let device = Device::flex();
        let [p, g, m, v] = all.each_ref().map(|m| vector(m, &device));
        let squares = ops::sum_squares(&g).to_bits();
        let sum = ops::add(p.clone(), g.clone());
        let v = v.abs();
        let (p, m, v) = ops::adamw(p, g, m, v, &step);
        let halves = vec![f32::from_bits(squares as u32), f32::from_bits((squares >> 32) as u32)];
        vec![values(sum), values(p), values(m), values(v), halves]
    });
}
