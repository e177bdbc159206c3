//! Owns rotary position angles (RoPE) and their scalings; never touches activations.

use std::sync::{Mutex, PoisonError};

use burn::tensor::{DType, Device, Int, Tensor, TensorData};

use crate::config::{RopeConfig, RopeScaling};

/// Cosines and sines for a run of tokens, each `[tokens, head_dim / 2]`, f32.
#[derive(Debug, Clone)]
pub struct Rotation {
    /// Cosines of the angles.
    pub cos: Tensor<2>,
    /// Sines of the angles.
    pub sin: Tensor<2>,
}

/// Angles of one model. Tables are computed on the host, where sine and cosine of large angles are exact to f32 on
/// every device's behalf, and kept on the device that last asked.
#[derive(Debug)]
pub struct RotaryTable {
    inverse_frequencies: Vec<f32>,
    cached: Mutex<Option<Cached>>,
}

#[derive(Debug)]
struct Cached {
    device: Device,
    positions: usize,
    cos: Tensor<2>,
    sin: Tensor<2>,
}

impl RotaryTable {
    /// Angles for heads of `head_dim` elements.
    #[must_use]
    pub fn new(rope: &RopeConfig, head_dim: usize) -> Self {
        Self { inverse_frequencies: inverse_frequencies(rope, head_dim), cached: Mutex::new(None) }
    }

    /// Rotation for tokens at `positions` (`[tokens]`), all of which must be below `limit`.
    #[must_use]
    pub fn rotation(&self, positions: Tensor<1, Int>, limit: usize) -> Rotation {
        let positions = positions.inner();
        let device = positions.device();
        let mut cached = self.cached.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = cached.as_ref().is_some_and(|table| table.device == device && table.positions >= limit);
        if !fits {
            *cached = None;
        }
        // Doubling keeps token-by-token decoding from rebuilding the table at every step.
        let table = cached.get_or_insert_with(|| self.table(limit.next_power_of_two(), &device));
        Rotation { cos: table.cos.clone().select(0, positions.clone()), sin: table.sin.clone().select(0, positions) }
    }

    fn table(&self, positions: usize, device: &Device) -> Cached {
        let half = self.inverse_frequencies.len();
        let mut cos = Vec::with_capacity(positions * half);
        let mut sin = Vec::with_capacity(positions * half);
        for position in 0..positions {
            for frequency in &self.inverse_frequencies {
                // The product is rounded to f32 as transformers does (modeling_rope_utils.py); the served model
                // must see the trained model's angles, also where they are not the best possible ones.
                let angle = f64::from(position as f32 * frequency);
                cos.push(angle.cos() as f32);
                sin.push(angle.sin() as f32);
            }
        }
        let upload = |values| Tensor::<2>::from_data(TensorData::new(values, [positions, half]), (device, DType::F32));
        Cached { device: device.clone(), positions, cos: upload(cos), sin: upload(sin) }
    }
}

/// Radians a position, for each pair of elements: `theta^(-2i / head_dim)` (Su et al. 2021, "RoFormer"), then scaled.
/// Rounded to f32 at the steps where transformers rounds.
fn inverse_frequencies(rope: &RopeConfig, head_dim: usize) -> Vec<f32> {
    let plain = (0..head_dim / 2).map(|pair| {
        let exponent = (2 * pair) as f32 / head_dim as f32;
        1.0 / rope.theta.powf(f64::from(exponent)) as f32
    });
    match rope.scaling {
        RopeScaling::None => plain.collect(),
        RopeScaling::Linear { factor } => plain.map(|f| f / factor as f32).collect(),
        RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_position_embeddings } => {
            let original = original_max_position_embeddings as f64;
            plain.map(|f| llama3_frequency(f, factor, low_freq_factor, high_freq_factor, original)).collect()
        }
    }
}

/// Llama 3.1's scaling of one frequency (`apply_scaling` in meta-llama/llama-models,
/// models/llama3/reference_impl/model.py): wavelengths longer than `original / low` are slowed by `factor`, those
/// shorter than `original / high` stay, those between are blended linearly in `original / wavelength`.
fn llama3_frequency(frequency: f32, factor: f64, low: f64, high: f64, original: f64) -> f32 {
    let exact = f64::from(frequency);
    let wavelength = std::f64::consts::TAU / exact;
    if wavelength < original / high {
        return frequency;
    }
    if wavelength > original / low {
        return (exact / factor) as f32;
    }
    let smooth = (original / wavelength - low) / (high - low);
    ((1.0 - smooth) * exact / factor + smooth * exact) as f32
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    fn rope(scaling: RopeScaling) -> RopeConfig {
        RopeConfig { theta: 10_000.0, scaling }
    }

    fn positions(list: &[i32]) -> Tensor<1, Int> {
        Tensor::from_data(TensorData::new(list.to_vec(), [list.len()]), &Device::flex())
    }

    #[test]
    fn plain_frequencies_are_powers_of_theta() {
        let frequencies = inverse_frequencies(&rope(RopeScaling::None), 8);
        for (found, expected) in frequencies.iter().zip([1.0, 0.1, 0.01, 0.001]) {
            assert!((found / expected - 1.0).abs() < 1e-6, "{found} against {expected}");
        }
    }

    #[test]
    fn llama3_keeps_short_slows_long_and_blends_between() {
        let (factor, low, high, original) = (8.0, 1.0, 4.0, 64.0);
        let scale = |frequency: f32| llama3_frequency(frequency, factor, low, high, original);
        let of_wavelength = |wavelength: f64| (std::f64::consts::TAU / wavelength) as f32;
        assert_eq!(scale(of_wavelength(10.0)), of_wavelength(10.0));
        assert!((scale(of_wavelength(100.0)) / of_wavelength(800.0) - 1.0).abs() < 1e-6);
        // Wavelength 32: original / wavelength = 2, smooth = 1/3, so the factor is 2/3 / 8 + 1/3.
        let blended = f64::from(scale(of_wavelength(32.0)) / of_wavelength(32.0));
        assert!((blended - (2.0 / 3.0 / 8.0 + 1.0 / 3.0)).abs() < 1e-6, "{blended}");
    }

    #[test]
    fn rotation_picks_the_rows_of_its_positions() {
        let table = RotaryTable::new(&rope(RopeScaling::None), 4);
        let rotation = table.rotation(positions(&[3, 0, 3]), 4);
        let cos = rotation.cos.try_into_vec_as::<f32>().unwrap();
        assert_eq!(cos.len(), 6);
        assert_eq!(cos[0..2], cos[4..6]);
        assert_eq!(cos[2..4], [1.0, 1.0]);
        assert!((cos[0] - 3.0_f32.cos()).abs() < 1e-7);
        let sin = rotation.sin.try_into_vec_as::<f32>().unwrap();
        assert!((sin[1] - 0.03_f32.sin()).abs() < 1e-7);
    }

    #[test]
    fn growing_the_table_changes_no_value() {
        let table = RotaryTable::new(&rope(RopeScaling::None), 6);
        let before = table.rotation(positions(&[0, 1, 2]), 3).sin.try_into_vec_as::<f32>().unwrap();
        let _ = table.rotation(positions(&[900]), 901);
        let after = table.rotation(positions(&[0, 1, 2]), 3).sin.try_into_vec_as::<f32>().unwrap();
        assert_eq!(before, after);
    }
}
