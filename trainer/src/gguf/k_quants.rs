//! Owns the K formats, super-blocks of 256 elements with quantised scales; never touches files.

use half::f16;

use super::quantise::{copy, half_at};
use super::types::SUPER_BLOCK;

/// Elements that share a scale and a minimum in Q4_K and Q5_K.
const GROUP: usize = 32;
const GROUPS: usize = SUPER_BLOCK / GROUP;
/// Elements that share a scale in Q6_K.
const GROUP_6: usize = 16;
const GROUPS_6: usize = SUPER_BLOCK / GROUP_6;
/// Largest value of a 6-bit scale.
const LARGEST_U6: f32 = 63.0;
/// Q6_K stores -32..=31 as 0..=63.
const HALF_RANGE_6: f32 = 32.0;

/// Value = scale * level - offset, with scale and offset of at least 0.
#[derive(Clone, Copy, Default)]
struct Line {
    scale: f32,
    offset: f32,
}

/// The line with the least squared error over several starting scales; each start is refined by least squares.
fn fit_line(values: &[f32], levels: f32) -> Line {
    let low = values.iter().copied().fold(0.0_f32, f32::min);
    let high = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    if high <= low {
        return Line { scale: 0.0, offset: -low };
    }
    let mut best = Line { scale: (high - low) / levels, offset: -low };
    let mut best_error = line_error(values, levels, best);
    for start in -8..=10_i8 {
        let inverse = (levels + 0.1 * f32::from(start)) / (high - low);
        let mut line = Line { scale: 1.0 / inverse, offset: -low };
        for _ in 0..2 {
            let Some(refined) = refine(values, levels, line) else { break };
            line = refined;
            let error = line_error(values, levels, line);
            if error < best_error {
                (best, best_error) = (line, error);
            }
        }
    }
    best
}

fn level_on(value: f32, line: Line, levels: f32) -> f32 {
    if line.scale > 0.0 { ((value + line.offset) / line.scale).round().clamp(0.0, levels) } else { 0.0 }
}

fn line_error(values: &[f32], levels: f32, line: Line) -> f32 {
    let error = |value: &f32| value - (line.scale * level_on(*value, line, levels) - line.offset);
    values.iter().map(error).map(|e| e * e).sum()
}

/// The best line for the levels that `line` gives.
fn refine(values: &[f32], levels: f32, line: Line) -> Option<Line> {
    let count = values.len() as f32;
    let (mut sum_l, mut sum_ll, mut sum_x, mut sum_lx) = (0.0_f32, 0.0, 0.0, 0.0);
    for value in values {
        let level = level_on(*value, line, levels);
        sum_l += level;
        sum_ll += level * level;
        sum_x += value;
        sum_lx += level * value;
    }
    let determinant = count * sum_ll - sum_l * sum_l;
    if determinant <= 0.0 {
        return None;
    }
    let scale = (count * sum_lx - sum_l * sum_x) / determinant;
    let offset = (sum_l * sum_lx - sum_ll * sum_x) / determinant;
    // The offset is stored without a sign: where it would be negative the line goes through zero.
    let line = if offset < 0.0 { Line { scale: sum_lx / sum_ll, offset: 0.0 } } else { Line { scale, offset } };
    (line.scale > 0.0 && line.scale.is_finite()).then_some(line)
}

/// Scales and offsets as 6-bit numbers, with their common factors, and the lines that result.
struct Lines {
    factors: [f16; 2],
    packed: [u8; 12],
    lines: [Line; GROUPS],
}

fn pack_lines(fitted: [Line; GROUPS]) -> Lines {
    let largest = |pick: fn(&Line) -> f32| fitted.iter().map(pick).fold(0.0_f32, f32::max);
    let factor = |peak: f32| f16::from_f32(peak / LARGEST_U6);
    let (scale, offset) = (factor(largest(|line| line.scale)), factor(largest(|line| line.offset)));
    let six_bits = |value: f32, factor: f16| {
        let factor = factor.to_f32();
        if factor > 0.0 { (value / factor).round().clamp(0.0, LARGEST_U6) as u8 } else { 0 }
    };
    let mut packed = [0_u8; 12];
    let mut lines = [Line::default(); GROUPS];
    for (group, (fitted, line)) in fitted.iter().zip(&mut lines).enumerate() {
        let (s, o) = (six_bits(fitted.scale, scale), six_bits(fitted.offset, offset));
        *line = Line { scale: f32::from(s) * scale.to_f32(), offset: f32::from(o) * offset.to_f32() };
        // Groups 0..4 have a byte each; those of groups 4..8 are spread over nibbles and the free high bits.
        if group < 4 {
            packed[group] |= s;
            packed[group + 4] |= o;
        } else {
            packed[group + 4] = (s & 15) | ((o & 15) << 4);
            packed[group - 4] |= (s >> 4) << 6;
            packed[group] |= (o >> 4) << 6;
        }
    }
    Lines { factors: [scale, offset], packed, lines }
}

fn unpack_lines(block: &[u8]) -> [Line; GROUPS] {
    let (scale, offset) = (half_at(block, 0), half_at(block, 2));
    let packed: [u8; 12] = block.get(4..16).and_then(|bytes| bytes.try_into().ok()).unwrap_or_default();
    std::array::from_fn(|group| {
        let (s, o) = if group < 4 {
            (packed[group] & 63, packed[group + 4] & 63)
        } else {
            (
                (packed[group + 4] & 15) | ((packed[group - 4] >> 6) << 4),
                (packed[group + 4] >> 4) | ((packed[group] >> 6) << 4),
            )
        };
        Line { scale: scale * f32::from(s), offset: offset * f32::from(o) }
    })
}

/// The levels of a super-block and the 16 bytes before them.
fn encode_lines(values: &[f32], levels: f32, out: &mut [u8]) -> [u8; SUPER_BLOCK] {
    let mut fitted = [Line::default(); GROUPS];
    for (line, group) in fitted.iter_mut().zip(values.chunks_exact(GROUP)) {
        *line = fit_line(group, levels);
    }
    let Lines { factors: [scale, offset], packed, lines } = pack_lines(fitted);
    let [a, b] = scale.to_le_bytes();
    let [c, d] = offset.to_le_bytes();
    copy(out, &[a, b, c, d]);
    copy(out.get_mut(4..).unwrap_or_default(), &packed);
    let mut chosen = [0_u8; SUPER_BLOCK];
    for (index, (level, value)) in chosen.iter_mut().zip(values).enumerate() {
        *level = level_on(*value, lines[index / GROUP], levels) as u8;
    }
    chosen
}

/// Two groups share 32 bytes of nibbles: the first has the low ones.
fn nibble_place(index: usize) -> (usize, u32) {
    (index / (2 * GROUP) * GROUP + index % GROUP, if (index / GROUP).is_multiple_of(2) { 0 } else { 4 })
}

pub(super) fn encode_q4_k(values: &[f32], out: &mut [u8]) {
    let levels = encode_lines(values, 15.0, out);
    let nibbles = out.get_mut(16..).unwrap_or_default();
    nibbles.fill(0);
    for (index, level) in levels.into_iter().enumerate() {
        let (at, shift) = nibble_place(index);
        if let Some(byte) = nibbles.get_mut(at) {
            *byte |= level << shift;
        }
    }
}

pub(super) fn decode_q4_k(block: &[u8], out: &mut Vec<f32>) {
    let lines = unpack_lines(block);
    let nibbles = block.get(16..).unwrap_or_default();
    for index in 0..SUPER_BLOCK {
        let (at, shift) = nibble_place(index);
        let level = (nibbles.get(at).copied().unwrap_or_default() >> shift) & 15;
        let Line { scale, offset } = lines[index / GROUP];
        out.push(scale * f32::from(level) - offset);
    }
}

/// As Q4_K with 32 bytes of fifth bits before the nibbles: bit g of byte i belongs to element i of group g.
pub(super) fn encode_q5_k(values: &[f32], out: &mut [u8]) {
    let levels = encode_lines(values, 31.0, out);
    let (high, nibbles) = out.get_mut(16..).unwrap_or_default().split_at_mut(GROUP);
    high.fill(0);
    nibbles.fill(0);
    for (index, level) in levels.into_iter().enumerate() {
        let (at, shift) = nibble_place(index);
        if let Some(byte) = nibbles.get_mut(at) {
            *byte |= (level & 15) << shift;
        }
        if let Some(byte) = high.get_mut(index % GROUP) {
            *byte |= (level >> 4) << (index / GROUP);
        }
    }
}

pub(super) fn decode_q5_k(block: &[u8], out: &mut Vec<f32>) {
    let lines = unpack_lines(block);
    let (high, nibbles) = block.get(16..).unwrap_or_default().split_at(GROUP);
    for index in 0..SUPER_BLOCK {
        let (at, shift) = nibble_place(index);
        let low = (nibbles.get(at).copied().unwrap_or_default() >> shift) & 15;
        let top = (high.get(index % GROUP).copied().unwrap_or_default() >> (index / GROUP)) & 1;
        let Line { scale, offset } = lines[index / GROUP];
        out.push(scale * f32::from(low | top << 4) - offset);
    }
}

/// The scale for levels -32..=31 with the least squared error over several starting points.
fn fit_scale(values: &[f32]) -> f32 {
    let peak = values.iter().fold(0.0_f32, |peak, value| if value.abs() > peak.abs() { *value } else { peak });
    if peak == 0.0 {
        return 0.0;
    }
    let (mut best, mut best_gain) = (0.0, f32::NEG_INFINITY);
    for start in -9..=9_i8 {
        let inverse = -(HALF_RANGE_6 + 0.1 * f32::from(start)) / peak;
        let (mut along, mut square) = (0.0_f32, 0.0_f32);
        for value in values {
            let level = (value * inverse).round().clamp(-HALF_RANGE_6, HALF_RANGE_6 - 1.0);
            along += level * value;
            square += level * level;
        }
        if square > 0.0 && along * along / square > best_gain {
            (best, best_gain) = (along / square, along * along / square);
        }
    }
    best
}

/// Where the six bits of an element stand: byte and shift of its low nibble, byte and shift of its high pair. Each half
/// of 128 elements has 64 bytes of nibbles and 32 of pairs; its quarters take turns in them.
fn six_bit_places(index: usize) -> [(usize, u32); 2] {
    let (half, rest) = (index / 128, index % 128);
    let (quarter, at) = (rest / 32, rest % 32);
    let low = (half * 64 + (quarter % 2) * 32 + at, if quarter < 2 { 0 } else { 4 });
    [low, (half * 32 + at, 2 * quarter as u32)]
}

/// 128 bytes of low nibbles, 64 of high pairs, 16 signed scales, the scale of scales.
pub(super) fn encode_q6_k(values: &[f32], out: &mut [u8]) {
    let mut fitted = [0.0_f32; GROUPS_6];
    for (scale, group) in fitted.iter_mut().zip(values.chunks_exact(GROUP_6)) {
        *scale = fit_scale(group);
    }
    let peak = fitted.iter().fold(0.0_f32, |peak, scale| if scale.abs() > peak.abs() { *scale } else { peak });
    // Signed so that the largest scale becomes -128.
    let factor = f16::from_f32(peak / -128.0);
    let inverse = if factor.to_f32() == 0.0 { 0.0 } else { 1.0 / factor.to_f32() };
    let scales = fitted.map(|scale| (scale * inverse).round().clamp(-128.0, 127.0) as i8);
    out.fill(0);
    let (low, rest) = out.split_at_mut(SUPER_BLOCK / 2);
    let (high, rest) = rest.split_at_mut(SUPER_BLOCK / 4);
    let (scale_bytes, tail) = rest.split_at_mut(GROUPS_6);
    for (index, value) in values.iter().enumerate() {
        let scale = f32::from(scales[index / GROUP_6]) * factor.to_f32();
        let level = if scale == 0.0 { 0.0 } else { (value / scale).round().clamp(-HALF_RANGE_6, HALF_RANGE_6 - 1.0) };
        let level = (level + HALF_RANGE_6) as u8;
        let [(low_at, low_shift), (high_at, high_shift)] = six_bit_places(index);
        if let (Some(low), Some(high)) = (low.get_mut(low_at), high.get_mut(high_at)) {
            *low |= (level & 15) << low_shift;
            *high |= (level >> 4) << high_shift;
        }
    }
    copy(scale_bytes, &scales.map(|scale| scale as u8));
    copy(tail, &factor.to_le_bytes());
}

pub(super) fn decode_q6_k(block: &[u8], out: &mut Vec<f32>) {
    let (low, rest) = block.split_at(SUPER_BLOCK / 2);
    let (high, rest) = rest.split_at(SUPER_BLOCK / 4);
    let factor = half_at(rest, GROUPS_6);
    for index in 0..SUPER_BLOCK {
        let [(low_at, low_shift), (high_at, high_shift)] = six_bit_places(index);
        let low = (low.get(low_at).copied().unwrap_or_default() >> low_shift) & 15;
        let high = (high.get(high_at).copied().unwrap_or_default() >> high_shift) & 3;
        let scale = rest.get(index / GROUP_6).copied().unwrap_or_default() as i8;
        out.push(factor * f32::from(scale) * (f32::from(low | high << 4) - HALF_RANGE_6));
    }
}
