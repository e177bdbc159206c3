//! Owns the 4-bit NormalFloat number format with double quantisation; never touches models or tensors of a device.
//!
//! T. Dettmers, A. Pagnoni, A. Holtzman, L. Zettlemoyer, "QLoRA: Efficient Finetuning of Quantized LLMs", 2023
//! (arXiv:2305.14314). The numbers are those of bitsandbytes (`quantize_4bit` with `nf4` and `compress_statistics`),
//! so that a base model means the same in both: the codes are equal, and the scales as far as a mean over all blocks is,
//! which we take in f64.

use std::mem::MaybeUninit;
use std::ops::Range;

use super::parallel::{CHUNK, chunks_mut, chunks_mut2, initialised, written};

/// Values that share a scale.
pub const BLOCK: usize = 64;
/// Scales that share a scale of their own.
const SCALE_BLOCK: usize = 256;
/// Smallest scale of a block, so that a block of zeros can be divided by it.
const SMALLEST: f32 = 1e-38;

/// The 16 values of a block whose largest magnitude is 1: quantiles of the normal distribution with an exact 0 (appendix
/// E of the paper).
#[allow(clippy::excessive_precision)]
const CODES: [f32; 16] = [
    -1.0,
    -0.696_192_800_998_687_7,
    -0.525_073_051_452_636_7,
    -0.394_917_488_098_144_53,
    -0.284_441_381_692_886_35,
    -0.184_773_430_228_233_34,
    -0.091_050_036_251_544_95,
    0.0,
    0.079_580_299_556_255_34,
    0.160_930_201_411_247_25,
    0.246_112_301_945_686_34,
    0.337_915_241_718_292_24,
    0.440_709_829_330_444_34,
    0.562_617_003_917_694_1,
    0.722_956_836_223_602_3,
    1.0,
];

/// The values of both halves of a byte, the upper half first.
static PAIRS: [[f32; 2]; 256] = {
    let mut pairs = [[0.0; 2]; 256];
    let mut byte = 0;
    while byte < 256 {
        pairs[byte] = [CODES[byte >> 4], CODES[byte & 15]];
        byte += 1;
    }
    pairs
};

/// Values in 4 bits each, with an 8-bit scale a block of 64 and a 32-bit scale for 256 of those.
#[derive(Debug, Clone, PartialEq)]
pub struct Nf4 {
    len: usize,
    /// Two values a byte, the first in the upper half.
    codes: Vec<u8>,
    /// Largest magnitude of each block, less [`Nf4::offset`], as an index into [`DYNAMIC`] times its scale.
    scales: Vec<u8>,
    /// Largest magnitude of 256 scales.
    scale_scales: Vec<f32>,
    /// Mean of the blocks' largest magnitudes.
    offset: f32,
}

impl Nf4 {
    /// Rounds values to the nearest that can be stored. They must be finite.
    #[must_use]
    pub fn quantise(values: &[f32]) -> Self {
        let blocks = values.len().div_ceil(BLOCK);
        let mut largest = vec![0.0_f32; blocks];
        let mut codes = vec![0_u8; values.len().div_ceil(2)];
        // Whole blocks a task, so that no two write the same byte.
        let blocks_a_task = CHUNK / BLOCK;
        chunks_mut2((&mut largest, blocks_a_task), (&mut codes, CHUNK / 2), |task, largest, codes| {
            let values = &values[task * CHUNK..(task * CHUNK + CHUNK).min(values.len())];
            for ((values, largest), codes) in values.chunks(BLOCK).zip(largest).zip(codes.chunks_mut(BLOCK / 2)) {
                *largest = quantise_block(values, codes);
            }
        });
        let sum: f64 = largest.iter().map(|scale| f64::from(*scale)).sum();
        let offset = (sum / blocks.max(1) as f64) as f32;
        let mut scales = Vec::with_capacity(blocks);
        let mut scale_scales = Vec::with_capacity(blocks.div_ceil(SCALE_BLOCK));
        for group in largest.chunks(SCALE_BLOCK) {
            let peak = group.iter().fold(0.0_f32, |peak, scale| peak.max((scale - offset).abs())).max(SMALLEST);
            let whole = group.len() == SCALE_BLOCK;
            scales.extend(group.iter().map(|scale| {
                let part = normalised(scale - offset, peak, whole);
                code_of(&DYNAMIC, part)
            }));
            scale_scales.push(peak);
        }
        Self { len: values.len(), codes, scales, scale_scales, offset }
    }

    /// Number of values.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes that it occupies.
    #[must_use]
    pub fn num_bytes(&self) -> usize {
        self.codes.len() + self.scales.len() + 4 * self.scale_scales.len() + 4
    }

    /// All values.
    #[must_use]
    pub fn dequantise(&self) -> Vec<f32> {
        written(self.len, |out| self.unpack_all(out))
    }

    /// All values, on all threads, into places for as many.
    pub(crate) fn unpack_all<'a>(&self, out: &'a mut [MaybeUninit<f32>]) -> &'a mut [f32] {
        assert_eq!(out.len(), self.len, "there is a place for every value");
        chunks_mut(out, CHUNK, |start, out| {
            self.unpack(start..start + out.len(), out);
        });
        // SAFETY: the chunks cover all places, and `unpack` writes every place that it is given.
        unsafe { initialised(out) }
    }

    /// Values `range` into places for as many; returns them as values.
    pub(crate) fn unpack<'a>(&self, range: Range<usize>, out: &'a mut [MaybeUninit<f32>]) -> &'a mut [f32] {
        assert!(range.end <= self.len && out.len() == range.len(), "a range of values lies outside their number");
        let mut at = range.start;
        while at < range.end {
            let block = at / BLOCK;
            let end = ((block + 1) * BLOCK).min(range.end);
            self.unpack_block(at, self.scale(block), &mut out[at - range.start..end - range.start]);
            at = end;
        }
        // SAFETY: the blocks cover the range, and `unpack_block` writes every place that it is given.
        unsafe { initialised(out) }
    }

    /// Largest magnitude of a block, as far as it is known.
    fn scale(&self, block: usize) -> f32 {
        DYNAMIC[usize::from(self.scales[block])] * self.scale_scales[block / SCALE_BLOCK] + self.offset
    }

    /// Values from `start` on, all of one block.
    fn unpack_block(&self, start: usize, scale: f32, out: &mut [MaybeUninit<f32>]) {
        let mut at = start;
        let mut out = out;
        if at % 2 == 1 && !out.is_empty() {
            let (first, rest) = std::mem::take(&mut out).split_at_mut(1);
            first[0].write(PAIRS[usize::from(self.codes[at / 2])][1] * scale);
            (at, out) = (at + 1, rest);
        }
        let (pairs, last) = out.as_chunks_mut::<2>();
        let bytes = &self.codes[at / 2..at / 2 + pairs.len()];
        for (places, byte) in pairs.iter_mut().zip(bytes) {
            let [first, second] = PAIRS[usize::from(*byte)];
            places[0].write(first * scale);
            places[1].write(second * scale);
        }
        if let Some(place) = last.first_mut() {
            place.write(PAIRS[usize::from(self.codes[at / 2 + pairs.len()])][0] * scale);
        }
    }
}

/// Writes the codes of a block and returns its largest magnitude.
fn quantise_block(values: &[f32], codes: &mut [u8]) -> f32 {
    let largest = values.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
    let scale = largest.max(SMALLEST);
    let whole = values.len() == BLOCK;
    let code = |value: &f32| code_of(&CODES, normalised(*value, scale, whole));
    for (pair, byte) in values.chunks(2).zip(codes) {
        // An odd end is filled up with the code of 0.
        let second = pair.get(1).map_or(7, code);
        *byte = (pair.first().map_or(7, code) << 4) | second;
    }
    if whole { largest } else { scale }
}

/// Place of the ascending `values` that is nearest to `part`; in the middle between two, the lower.
fn code_of(values: &[f32], part: f32) -> u8 {
    let (mut low, mut high) = (0, values.len() - 1);
    while low < high {
        let at = usize::midpoint(low, high);
        let is_above = (values[at] + values[at + 1]) / 2.0 < part;
        (low, high) = if is_above { (at + 1, high) } else { (low, at) };
    }
    low as u8
}

/// A value as a part of the largest, -1 to 1. bitsandbytes multiplies by the reciprocal in whole blocks and divides in
/// the last one.
fn normalised(value: f32, largest: f32, whole: bool) -> f32 {
    let part = if whole { value * (1.0 / largest) } else { value / largest };
    part.clamp(-1.0, 1.0)
}

/// The 256 values of the 8-bit "dynamic" format (T. Dettmers, "8-bit approximations for parallelism in deep learning",
/// 2015, arXiv:1511.04561), ascending: seven decades below 1, each with twice as many values as the one below it, at both
/// signs; 0; and 1.
static DYNAMIC: [f32; 256] = {
    const DECADES: [f32; 7] = [1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0];
    let mut map = [0.0; 256];
    map[255] = 1.0;
    let (mut decade, mut place) = (0, 128);
    while decade < 7 {
        let count = 1 << decade;
        let mut i = 0;
        while i < count {
            let value =
                DECADES[decade] * ((between_tenth_and_one(i, count) + between_tenth_and_one(i + 1, count)) / 2.0);
            map[place] = value;
            map[254 - place] = -value;
            (i, place) = (i + 1, place + 1);
        }
        decade += 1;
    }
    map
};

/// Point `i` of `count + 1` from 0.1 to 1, reckoned from the nearer end and rounded once, as torch.linspace does.
const fn between_tenth_and_one(i: usize, count: usize) -> f32 {
    const TENTH: f32 = 0.1;
    // The product of two floats is exact in f64.
    let step = ((1.0 - TENTH) / count as f32) as f64;
    if i < count.div_ceil(2) {
        (TENTH as f64 + step * i as f64) as f32
    } else {
        (1.0 - step * (count - i) as f64) as f32
    }
}

#[cfg(test)]
#[path = "nf4_tests.rs"]
mod tests;
