//! Owns blocks of elements as bytes and back, for every number format; never touches files.
//!
//! Layouts: `ggml-common.h` of llama.cpp. The search for scales is ours (least squares over several starting points).

use half::{bf16, f16};
use rayon::prelude::*;

use super::k_quants;
use super::types::{BLOCK, TensorType};

/// Elements handed to one thread.
const ELEMENTS_A_TASK: usize = 1 << 14;
const LARGEST_I8: f32 = 127.0;
/// Q5_0 stores -16..=15 as 0..=31.
const HALF_RANGE_5: f32 = 16.0;

/// Little-endian bytes of `values`, whose number must be a multiple of the format's block.
#[must_use]
pub fn quantise(values: &[f32], kind: TensorType) -> Vec<u8> {
    let task = ELEMENTS_A_TASK.next_multiple_of(kind.block_len());
    let mut bytes = vec![0; values.len() / kind.block_len() * kind.block_bytes()];
    let task_bytes = task / kind.block_len() * kind.block_bytes();
    let pieces = values.par_chunks(task).zip(bytes.par_chunks_mut(task_bytes));
    pieces.for_each(|(values, bytes)| {
        let blocks = values.chunks_exact(kind.block_len()).zip(bytes.chunks_exact_mut(kind.block_bytes()));
        blocks.for_each(|(values, bytes)| encode_block(values, kind, bytes));
    });
    bytes
}

fn encode_block(values: &[f32], kind: TensorType, out: &mut [u8]) {
    match kind {
        TensorType::F32 => copy(out, &values.first().copied().unwrap_or_default().to_le_bytes()),
        TensorType::F16 => copy(out, &f16::from_f32(values.first().copied().unwrap_or_default()).to_le_bytes()),
        TensorType::Bf16 => copy(out, &bf16::from_f32(values.first().copied().unwrap_or_default()).to_le_bytes()),
        TensorType::Q5_0 => encode_q5_0(values, out),
        TensorType::Q8_0 => encode_q8_0(values, out),
        TensorType::Q4K => k_quants::encode_q4_k(values, out),
        TensorType::Q5K => k_quants::encode_q5_k(values, out),
        TensorType::Q6K => k_quants::encode_q6_k(values, out),
    }
}

/// Appends the values of `bytes`, whole blocks of a format, to `out`.
pub fn dequantise(bytes: &[u8], kind: TensorType, out: &mut Vec<f32>) {
    match kind {
        TensorType::F32 => out.extend(bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b))),
        TensorType::F16 => out.extend(bytes.as_chunks().0.iter().map(|b| f16::from_le_bytes(*b).to_f32())),
        TensorType::Bf16 => out.extend(bytes.as_chunks().0.iter().map(|b| bf16::from_le_bytes(*b).to_f32())),
        TensorType::Q5_0 => bytes.chunks_exact(kind.block_bytes()).for_each(|block| decode_q5_0(block, out)),
        TensorType::Q8_0 => bytes.chunks_exact(kind.block_bytes()).for_each(|block| decode_q8_0(block, out)),
        TensorType::Q4K => bytes.chunks_exact(kind.block_bytes()).for_each(|block| k_quants::decode_q4_k(block, out)),
        TensorType::Q5K => bytes.chunks_exact(kind.block_bytes()).for_each(|block| k_quants::decode_q5_k(block, out)),
        TensorType::Q6K => bytes.chunks_exact(kind.block_bytes()).for_each(|block| k_quants::decode_q6_k(block, out)),
    }
}

/// Copies `from` to the start of `to`.
pub(super) fn copy(to: &mut [u8], from: &[u8]) {
    to.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
}

/// The half-precision number at byte `at`.
pub(super) fn half_at(bytes: &[u8], at: usize) -> f32 {
    let pair = [bytes.get(at).copied().unwrap_or_default(), bytes.get(at + 1).copied().unwrap_or_default()];
    f16::from_le_bytes(pair).to_f32()
}

fn encode_q8_0(values: &[f32], out: &mut [u8]) {
    let peak = values.iter().fold(0.0_f32, |peak, value| peak.max(value.abs()));
    let scale = peak / LARGEST_I8;
    let inverse = if scale > 0.0 { 1.0 / scale } else { 0.0 };
    let (head, levels) = out.split_at_mut(2);
    copy(head, &f16::from_f32(scale).to_le_bytes());
    for (level, value) in levels.iter_mut().zip(values) {
        *level = ((value * inverse).round() as i8) as u8;
    }
}

fn decode_q8_0(block: &[u8], out: &mut Vec<f32>) {
    let scale = half_at(block, 0);
    out.extend(block.iter().skip(2).map(|level| f32::from(*level as i8) * scale));
}

/// Scale first, then 32 high bits, then low nibbles: byte i holds elements i and i + 16.
fn encode_q5_0(values: &[f32], out: &mut [u8]) {
    // The scale takes the sign that gives the largest value the level -16, of which there is one more than of +15.
    let peak = values.iter().fold(0.0_f32, |peak, value| if value.abs() > peak.abs() { *value } else { peak });
    let scale = best_symmetric_scale(values, peak / -HALF_RANGE_5);
    let scale = f16::from_f32(scale);
    let inverse = if scale.to_f32() == 0.0 { 0.0 } else { 1.0 / scale.to_f32() };
    let level = |value: f32| ((value * inverse).round() + HALF_RANGE_5).clamp(0.0, 31.0) as u8;
    let (head, nibbles) = out.split_at_mut(6);
    let mut high = 0_u32;
    for (index, value) in values.iter().enumerate() {
        let level = level(*value);
        high |= u32::from(level >> 4) << index;
        let (at, shift) = (index % (BLOCK / 2), 4 * (index / (BLOCK / 2)));
        if let Some(byte) = nibbles.get_mut(at) {
            *byte = if shift == 0 { level & 15 } else { *byte | ((level & 15) << 4) };
        }
    }
    let [a, b] = scale.to_le_bytes();
    let [c, d, e, f] = high.to_le_bytes();
    copy(head, &[a, b, c, d, e, f]);
}

/// The scale near `first` with the least squared error for levels -16..=15.
fn best_symmetric_scale(values: &[f32], first: f32) -> f32 {
    if first == 0.0 {
        return 0.0;
    }
    let (mut best, mut best_gain) = (first, f32::NEG_INFINITY);
    for step in -4..=4_i8 {
        let inverse = (1.0 + 0.02 * f32::from(step)) / first;
        let (mut along, mut square) = (0.0_f32, 0.0_f32);
        for value in values {
            let level = (value * inverse).round().clamp(-HALF_RANGE_5, HALF_RANGE_5 - 1.0);
            along += level * value;
            square += level * level;
        }
        // Of all scales for these levels, along / square is the best; it takes along^2 / square off the error.
        if square > 0.0 && along * along / square > best_gain {
            (best, best_gain) = (along / square, along * along / square);
        }
    }
    best
}

fn decode_q5_0(block: &[u8], out: &mut Vec<f32>) {
    let scale = half_at(block, 0);
    let word: [u8; 4] = block.get(2..6).and_then(|bytes| bytes.try_into().ok()).unwrap_or_default();
    let high = u32::from_le_bytes(word);
    let nibbles = block.get(6..).unwrap_or_default();
    for index in 0..BLOCK {
        let byte = nibbles.get(index % (BLOCK / 2)).copied().unwrap_or_default();
        let low = if index < BLOCK / 2 { byte & 15 } else { byte >> 4 };
        let level = low | (((high >> index) & 1) as u8) << 4;
        out.push((f32::from(level) - HALF_RANGE_5) * scale);
    }
}
