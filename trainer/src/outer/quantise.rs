//! Owns how a vector of parameters travels between sites: as floats, or as 8-bit integers in blocks; never touches
//! sockets or what the vector means.
//!
//! `int8`: blocks of [`BLOCK`] elements, none across two parameters, each with one scale: the largest magnitude / 127.
//! An element is decoded as `q * scale`, at most half a scale from what it was. What rounding has taken away is kept by
//! the sender and added to its next vector (error feedback, Seide et al. 2014), so that nothing is lost for good.

use std::ops::Range;

use model_zoo::ParamSpec;

use crate::config::raw::OuterCompress;

/// Elements that share a scale: 4 bytes over 1,024 elements are a cost of 0.4 %.
pub const BLOCK: usize = 1024;
/// Bytes of a float and of a scale.
const FLOAT_BYTES: usize = 4;
/// Largest magnitude of a quantised element; -128 is not used, so that both signs reach as far.
const MAX_QUANTUM: f32 = 127.0;

/// How all parameters, laid end to end, are cut into blocks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    blocks: Vec<Range<usize>>,
    len: usize,
}

/// What cannot be sent or was not sent as a vector.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QuantiseError {
    /// An element is infinite or not a number.
    #[error("element {0} is not finite")]
    NotFinite(usize),
    /// The bytes are not those of such a vector.
    #[error("{found} bytes came, a vector of this model has {expected}")]
    Length {
        /// Bytes given.
        found: usize,
        /// Bytes of a vector.
        expected: usize,
    },
}

impl Layout {
    /// The blocks of a model's parameters.
    #[must_use]
    pub fn new(specs: &[ParamSpec]) -> Self {
        Self::of_sizes(specs.iter().map(ParamSpec::num_elements))
    }

    /// The blocks of parameters with these numbers of elements.
    #[must_use]
    pub fn of_sizes(sizes: impl IntoIterator<Item = usize>) -> Self {
        let (mut blocks, mut len) = (Vec::new(), 0);
        for size in sizes {
            let end = len + size;
            blocks.extend((len..end).step_by(BLOCK).map(|start| start..(start + BLOCK).min(end)));
            len = end;
        }
        Self { blocks, len }
    }

    /// Elements of all parameters.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The blocks, in order.
    #[must_use]
    pub fn blocks(&self) -> &[Range<usize>] {
        &self.blocks
    }

    /// Bytes of a vector on the wire.
    #[must_use]
    pub fn bytes(&self, compress: OuterCompress) -> usize {
        match compress {
            OuterCompress::None => self.len * FLOAT_BYTES,
            OuterCompress::Int8 => self.blocks.len() * FLOAT_BYTES + self.len,
        }
    }

    /// Encodes `values` and leaves in them what the encoding has lost: zeros without compression.
    ///
    /// # Errors
    /// [`QuantiseError::NotFinite`]; `values` are then as they were.
    pub fn encode(&self, compress: OuterCompress, values: &mut [f32]) -> Result<Vec<u8>, QuantiseError> {
        if let Some(at) = values.iter().position(|value| !value.is_finite()) {
            return Err(QuantiseError::NotFinite(at));
        }
        let mut bytes = Vec::with_capacity(self.bytes(compress));
        match compress {
            OuterCompress::None => {
                bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
                values.fill(0.0);
            }
            OuterCompress::Int8 => {
                let scales: Vec<f32> = self.blocks.iter().map(|block| scale(&values[block.clone()])).collect();
                bytes.extend(scales.iter().flat_map(|scale| scale.to_le_bytes()));
                for (block, scale) in self.blocks.iter().zip(scales) {
                    for value in &mut values[block.clone()] {
                        let quantum = quantum(*value, scale);
                        *value -= f32::from(quantum) * scale;
                        bytes.push(quantum.to_le_bytes()[0]);
                    }
                }
            }
        }
        Ok(bytes)
    }

    /// A reader of encoded bytes.
    ///
    /// # Errors
    /// When there are too many or too few bytes, or a float among them is not finite.
    pub fn decoder<'a>(&'a self, compress: OuterCompress, bytes: &'a [u8]) -> Result<Decoder<'a>, QuantiseError> {
        let expected = self.bytes(compress);
        if bytes.len() != expected {
            return Err(QuantiseError::Length { found: bytes.len(), expected });
        }
        let num_floats = match compress {
            OuterCompress::None => self.len,
            OuterCompress::Int8 => self.blocks.len(),
        };
        let (floats, quanta) = bytes.split_at(num_floats * FLOAT_BYTES);
        let floats = floats.as_chunks::<FLOAT_BYTES>().0;
        match floats.iter().position(|bytes| !f32::from_le_bytes(*bytes).is_finite()) {
            Some(at) => Err(QuantiseError::NotFinite(at)),
            None => Ok(Decoder { layout: self, compress, floats, quanta }),
        }
    }
}

/// Encoded bytes that can be read block by block.
pub struct Decoder<'a> {
    layout: &'a Layout,
    compress: OuterCompress,
    /// The elements, or the scales.
    floats: &'a [[u8; FLOAT_BYTES]],
    quanta: &'a [u8],
}

impl Decoder<'_> {
    /// The elements of block `index`, in order.
    pub fn block(&self, index: usize) -> impl Iterator<Item = f32> + '_ {
        let range = self.layout.blocks.get(index).cloned().unwrap_or_default();
        let is_whole = self.compress == OuterCompress::None;
        let scale = if is_whole { 0.0 } else { self.floats.get(index).map_or(0.0, |bytes| f32::from_le_bytes(*bytes)) };
        range.map(move |at| {
            if is_whole {
                self.floats.get(at).map_or(0.0, |bytes| f32::from_le_bytes(*bytes))
            } else {
                self.quanta.get(at).map_or(0.0, |byte| f32::from(i8::from_le_bytes([*byte])) * scale)
            }
        })
    }

    /// Calls `apply` with every element of `target` and the decoded one beside it.
    pub fn each(&self, target: &mut [f32], mut apply: impl FnMut(&mut f32, f32)) {
        for (index, block) in self.layout.blocks.iter().enumerate() {
            for (target, value) in target.iter_mut().skip(block.start).zip(self.block(index)) {
                apply(target, value);
            }
        }
    }
}

/// The scale of a block. Not below the smallest normal number: what is smaller still is rounded to zero and kept as an
/// error, and no division by a subnormal scale can exceed 127.
fn scale(values: &[f32]) -> f32 {
    let largest = values.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
    if largest == 0.0 {
        return 0.0;
    }
    let scale = (largest / MAX_QUANTUM).max(f32::MIN_POSITIVE);
    // At the very top of the range the quotient may be rounded up, and its product beyond what a float can hold.
    if (scale * MAX_QUANTUM).is_finite() { scale } else { scale.next_down() }
}

fn quantum(value: f32, scale: f32) -> i8 {
    if scale == 0.0 {
        return 0;
    }
    // In range by the clamp; `as` would saturate anyway.
    (value / scale).round().clamp(-MAX_QUANTUM, MAX_QUANTUM) as i8
}

/// Little-endian bytes of floats, in pieces that fit a cache.
pub fn float_bytes(values: &[f32]) -> impl Iterator<Item = Vec<u8>> + '_ {
    values.chunks(1 << 16).map(|chunk| chunk.iter().flat_map(|value| value.to_le_bytes()).collect())
}

/// Hex BLAKE3 of the floats of several vectors, one after another.
#[must_use]
pub fn digest(vectors: &[&[f32]]) -> String {
    let mut hasher = blake3::Hasher::new();
    for vector in vectors {
        hasher.update(&(vector.len() as u64).to_le_bytes());
        float_bytes(vector).for_each(|bytes| {
            hasher.update(&bytes);
        });
    }
    hasher.finalize().to_hex().to_string()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn decoded(layout: &Layout, compress: OuterCompress, bytes: &[u8]) -> Vec<f32> {
        let decoder = layout.decoder(compress, bytes).unwrap();
        let mut values = vec![f32::NAN; layout.len()];
        decoder.each(&mut values, |target, value| *target = value);
        values
    }

    fn finite() -> impl Strategy<Value = f32> {
        prop_oneof![-1e-3_f32..1e-3, any::<f32>().prop_filter("finite", |x| x.is_finite() && x.abs() < 1e30), Just(0.0)]
    }

    #[test]
    fn blocks_never_cross_parameters() {
        let layout = Layout::of_sizes([3, 2 * BLOCK + 1, 0, BLOCK]);
        let lengths: Vec<usize> = layout.blocks().iter().map(ExactSizeIterator::len).collect();
        assert_eq!(lengths, [3, BLOCK, BLOCK, 1, BLOCK]);
        assert_eq!(layout.len(), 3 + 2 * BLOCK + 1 + BLOCK);
        assert_eq!(layout.bytes(OuterCompress::Int8), layout.len() + 5 * 4);
        assert_eq!(layout.bytes(OuterCompress::None), layout.len() * 4);
    }

    #[test]
    fn what_cannot_travel_is_refused_and_left_alone() {
        let layout = Layout::of_sizes([3]);
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut values = [1.0, bad, 2.0];
            for compress in [OuterCompress::None, OuterCompress::Int8] {
                assert_eq!(layout.encode(compress, &mut values), Err(QuantiseError::NotFinite(1)));
                assert_eq!((values[0], values[2]), (1.0, 2.0));
            }
        }
        let short = layout.decoder(OuterCompress::Int8, &[0; 6]).map(|_| ()).unwrap_err();
        assert_eq!(short.to_string(), "6 bytes came, a vector of this model has 7");
        let scale = [f32::NAN.to_le_bytes().as_slice(), &[0; 3]].concat();
        assert_eq!(layout.decoder(OuterCompress::Int8, &scale).map(|_| ()), Err(QuantiseError::NotFinite(0)));
    }

    #[test]
    fn extremes_stay_in_range() {
        let layout = Layout::of_sizes([4, 2, 1]);
        let values = [f32::MAX, -f32::MAX, 0.0, 1.0, 1e-44, -1e-45, 0.0];
        let mut rest = values;
        let bytes = layout.encode(OuterCompress::Int8, &mut rest).unwrap();
        let found = decoded(&layout, OuterCompress::Int8, &bytes);
        assert!(found.iter().all(|value| value.is_finite()), "{found:?}");
        assert_eq!((found[4], rest[4], rest[5]), (0.0, 1e-44, -1e-45), "what is too small is kept as an error");
    }

    proptest! {
        #[test]
        fn int8_is_within_half_a_scale(sizes in vec(0_usize..2500, 1..4), seed in vec(finite(), 1..50)) {
            let layout = Layout::of_sizes(sizes);
            let values: Vec<f32> = (0..layout.len()).map(|i| seed[i % seed.len()] * (i % 7) as f32).collect();
            let mut rest = values.clone();
            let bytes = layout.encode(OuterCompress::Int8, &mut rest).unwrap();
            prop_assert_eq!(bytes.len(), layout.bytes(OuterCompress::Int8));
            let found = decoded(&layout, OuterCompress::Int8, &bytes);
            for block in layout.blocks() {
                let half = scale(&values[block.clone()]) * 0.5;
                for i in block.clone() {
                    // Division and product are rounded once each: a few units in the last place of the largest value.
                    let error = (f64::from(found[i]) - f64::from(values[i])).abs();
                    let slack = f64::from(half) * 1e-4;
                    prop_assert!(error <= f64::from(half) + slack, "{} became {}", values[i], found[i]);
                    prop_assert_eq!(rest[i], values[i] - found[i]);
                }
            }
        }

        #[test]
        fn error_feedback_loses_nothing(rounds in vec(vec(-1.0_f32..1.0, 40), 1..12)) {
            let layout = Layout::of_sizes([30, 10]);
            let (mut rest, mut sent, mut given) = (vec![0.0_f32; 40], vec![0.0_f64; 40], vec![0.0_f64; 40]);
            for round in &rounds {
                for (rest, value) in rest.iter_mut().zip(round) {
                    *rest += value;
                }
                let bytes = layout.encode(OuterCompress::Int8, &mut rest).unwrap();
                let found = decoded(&layout, OuterCompress::Int8, &bytes);
                for i in 0..40 {
                    sent[i] += f64::from(found[i]);
                    given[i] += f64::from(round[i]);
                }
            }
            for i in 0..40 {
                // Every round adds a rounding error of a single-precision sum of magnitude below 2.
                let tolerance = rounds.len() as f64 * 3.0 * f64::from(f32::EPSILON);
                prop_assert!((sent[i] + f64::from(rest[i]) - given[i]).abs() <= tolerance);
                prop_assert!(rest[i].abs() <= 1.01 / 127.0, "the error stays below half a scale: {}", rest[i]);
            }
        }

        #[test]
        fn without_compression_bits_survive(values in vec(finite(), 0..3000)) {
            let layout = Layout::of_sizes([values.len()]);
            let mut rest = values.clone();
            let bytes = layout.encode(OuterCompress::None, &mut rest).unwrap();
            prop_assert_eq!(decoded(&layout, OuterCompress::None, &bytes), values);
            prop_assert!(rest.iter().all(|rest| *rest == 0.0));
        }
    }
}
