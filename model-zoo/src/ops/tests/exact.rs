//! Owns the ops in plain `f64` arithmetic, output first, then the gradients of the inputs.

use super::super::{AttentionRule, AttentionShape};
use super::Matrix;

fn wide(m: &Matrix) -> Vec<f64> {
    m.values.iter().map(|&x| f64::from(x)).collect()
}

/// `a [m, k] · b [k, n]`, where `b` is read as `b(k, n)`.
fn product(m: usize, n: usize, k: usize, a: impl Fn(usize, usize) -> f64, b: impl Fn(usize, usize) -> f64) -> Vec<f64> {
    let mut out = vec![0.0; m * n];
    for i in 0..m {
        for j in 0..n {
            out[i * n + j] = (0..k).map(|p| a(i, p) * b(p, j)).sum();
        }
    }
    out
}

pub(super) fn linear(x: &Matrix, w: &Matrix, g: &[f32]) -> Vec<Vec<f64>> {
    let ([n, d], [out, _]) = (x.shape, w.shape);
    let (x, w) = (wide(x), wide(w));
    let g = |i: usize, j: usize| f64::from(g[i * out + j]);
    vec![
        product(n, out, d, |i, p| x[i * d + p], |p, j| w[j * d + p]),
        product(n, d, out, g, |p, j| w[p * d + j]),
        product(out, d, n, |i, p| g(p, i), |p, j| x[p * d + j]),
    ]
}

pub(super) fn rms_norm(x: &Matrix, gamma: &Matrix, eps: f64, g: &[f32]) -> Vec<Vec<f64>> {
    let [n, d] = x.shape;
    let (x, gamma) = (wide(x), wide(gamma));
    let (mut y, mut dx, mut d_gamma) = (vec![0.0; n * d], vec![0.0; n * d], vec![0.0; d]);
    for i in 0..n {
        let row = i * d..(i + 1) * d;
        let inverse = 1.0 / (x[row.clone()].iter().map(|x| x * x).sum::<f64>() / d as f64 + eps).sqrt();
        let along: f64 = row.clone().map(|r| f64::from(g[r]) * gamma[r - i * d] * x[r]).sum();
        for (j, r) in row.enumerate() {
            y[r] = x[r] * inverse * gamma[j];
            dx[r] = inverse * f64::from(g[r]) * gamma[j] - x[r] * inverse.powi(3) * along / d as f64;
            d_gamma[j] += f64::from(g[r]) * x[r] * inverse;
        }
    }
    vec![y, dx, d_gamma]
}

pub(super) fn rope(x: &Matrix, cos: &Matrix, sin: &Matrix, g: &[f32]) -> Vec<Vec<f64>> {
    let ([n, width], half) = (x.shape, cos.shape[1]);
    let (cos, sin) = (wide(cos), wide(sin));
    let turn = |x: &[f64], direction: f64| {
        let mut y = vec![0.0; x.len()];
        for i in 0..n {
            for first in (0..width).step_by(2 * half) {
                for p in 0..half {
                    let (a, b) = (i * width + first + p, i * width + first + half + p);
                    let (c, s) = (cos[i * half + p], direction * sin[i * half + p]);
                    y[a] = x[a] * c - x[b] * s;
                    y[b] = x[b] * c + x[a] * s;
                }
            }
        }
        y
    };
    let g: Vec<f64> = g.iter().map(|&g| f64::from(g)).collect();
    vec![turn(&wide(x), 1.0), turn(&g, -1.0)]
}

pub(super) fn swiglu(gate: &Matrix, up: &Matrix, g: &[f32]) -> Vec<Vec<f64>> {
    let (gate, up) = (wide(gate), wide(up));
    let (mut y, mut d_gate, mut d_up) = (Vec::new(), Vec::new(), Vec::new());
    for ((z, u), &g) in gate.into_iter().zip(up).zip(g) {
        let (sigmoid, g) = (1.0 / (1.0 + (-z).exp()), f64::from(g));
        y.push(z * sigmoid * u);
        d_gate.push(g * u * sigmoid * (1.0 + z * (1.0 - sigmoid)));
        d_up.push(g * z * sigmoid);
    }
    vec![y, d_gate, d_up]
}

pub(super) fn geglu(gate: &Matrix, up: &Matrix, g: &[f32]) -> Vec<Vec<f64>> {
    let (gate, up) = (wide(gate), wide(up));
    let (mut y, mut d_gate, mut d_up) = (Vec::new(), Vec::new(), Vec::new());
    let root = (2.0 / std::f64::consts::PI).sqrt();
    for ((z, u), &g) in gate.into_iter().zip(up).zip(g) {
        let (tanh, g) = ((root * (z + 0.044_715 * z.powi(3))).tanh(), f64::from(g));
        let slope = 0.5 * (1.0 + tanh) + 0.5 * z * (1.0 - tanh * tanh) * root * (1.0 + 3.0 * 0.044_715 * z * z);
        y.push(0.5 * z * (1.0 + tanh) * u);
        d_gate.push(g * u * slope);
        d_up.push(g * 0.5 * z * (1.0 + tanh));
    }
    vec![y, d_gate, d_up]
}

pub(super) fn add_bias(x: &Matrix, bias: &Matrix, g: &[f32]) -> Vec<Vec<f64>> {
    let d = x.shape[1];
    let (x, bias) = (wide(x), wide(bias));
    let g: Vec<f64> = g.iter().map(|&g| f64::from(g)).collect();
    let sums = (0..d).map(|j| g.iter().skip(j).step_by(d).sum()).collect();
    vec![x.iter().enumerate().map(|(i, x)| x + bias[i % d]).collect(), g, sums]
}

pub(super) fn attention(
    qkv: [&Matrix; 3],
    segments: &[i32],
    shape: AttentionShape,
    rule: AttentionRule,
    g: &[f32],
) -> Vec<Vec<f64>> {
    let AttentionShape { batch, seq, heads, kv_heads, head_dim } = shape;
    let [q, k, v] = qkv.map(wide);
    let (mut y, mut dq) = (vec![0.0; q.len()], vec![0.0; q.len()]);
    let (mut dk, mut dv) = (vec![0.0; k.len()], vec![0.0; v.len()]);
    for (b, head) in (0..batch).flat_map(|b| (0..heads).map(move |head| (b, head))) {
        let query = |i: usize| ((b * seq + i) * heads + head) * head_dim;
        let key = |j: usize| ((b * seq + j) * kv_heads + head / (heads / kv_heads)) * head_dim;
        for i in 0..seq {
            let visible = |j: usize| {
                segments[b * seq + j] == segments[b * seq + i] && rule.window.is_none_or(|window| i - j < window)
            };
            let seen: Vec<usize> = (0..=i).filter(|&j| visible(j)).collect();
            let scale = rule.scale;
            let dot = |j: usize| (0..head_dim).map(|e| q[query(i) + e] * k[key(j) + e]).sum::<f64>() * scale;
            let cap = |x: f64| rule.softcap.map_or(x, |c| c * (x / c).tanh());
            let cap_slope = |x: f64| rule.softcap.map_or(1.0, |c| 1.0 - (x / c).tanh().powi(2));
            let scores: Vec<f64> = seen.iter().map(|&j| cap(dot(j))).collect();
            let top = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let sum: f64 = scores.iter().map(|s| (s - top).exp()).sum();
            let weights: Vec<f64> = scores.iter().map(|s| (s - top).exp() / sum).collect();
            let upstream = |e: usize| f64::from(g[query(i) + e]);
            let slopes: Vec<f64> =
                seen.iter().map(|&j| (0..head_dim).map(|e| upstream(e) * v[key(j) + e]).sum()).collect();
            let mean: f64 = weights.iter().zip(&slopes).map(|(w, s)| w * s).sum();
            for ((&j, &weight), &slope) in seen.iter().zip(&weights).zip(&slopes) {
                let scale = scale * cap_slope(dot(j));
                for e in 0..head_dim {
                    y[query(i) + e] += weight * v[key(j) + e];
                    dv[key(j) + e] += weight * upstream(e);
                    dq[query(i) + e] += weight * (slope - mean) * scale * k[key(j) + e];
                    dk[key(j) + e] += weight * (slope - mean) * scale * q[query(i) + e];
                }
            }
        }
    }
    vec![y, dq, dk, dv]
}

/// The losses of all rows, then the gradients of their sum; logits are bounded by `bound`.
pub(super) fn cross_entropy(h: &Matrix, w: &Matrix, targets: &[i32], bound: Option<f64>) -> Vec<Vec<f64>> {
    let ([n, d], [vocab, _]) = (h.shape, w.shape);
    let (h, w) = (wide(h), wide(w));
    let logits = product(n, vocab, d, |i, p| h[i * d + p], |p, j| w[j * d + p]);
    let (mut losses, mut slopes) = (vec![0.0; n], vec![0.0; n * vocab]);
    for i in (0..n).filter(|&i| targets[i] >= 0) {
        let cap = |x: &f64| bound.map_or(*x, |c| c * (x / c).tanh());
        let row: Vec<f64> = logits[i * vocab..(i + 1) * vocab].iter().map(cap).collect();
        let top = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = row.iter().map(|x| (x - top).exp()).sum();
        losses[i] = sum.ln() + top - row[targets[i] as usize];
        for (j, x) in row.iter().enumerate() {
            let cap_slope = bound.map_or(1.0, |c| 1.0 - (x / c).powi(2));
            slopes[i * vocab + j] = ((x - top).exp() / sum - f64::from(j == targets[i] as usize)) * cap_slope;
        }
    }
    vec![
        losses,
        product(n, d, vocab, |i, p| slopes[i * vocab + p], |p, j| w[p * d + j]),
        product(vocab, d, n, |i, p| slopes[p * vocab + i], |p, j| h[p * d + j]),
    ]
}

pub(super) fn embedding(w: &Matrix, ids: &[i32], g: &[f32]) -> Vec<Vec<f64>> {
    let d = w.shape[1];
    let w = wide(w);
    let (mut y, mut dw) = (Vec::new(), vec![0.0; w.len()]);
    for (i, &id) in ids.iter().enumerate() {
        for e in 0..d {
            y.push(w[id as usize * d + e]);
            dw[id as usize * d + e] += f64::from(g[i * d + e]);
        }
    }
    vec![y, dw]
}
