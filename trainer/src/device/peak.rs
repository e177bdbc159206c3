//! Owns the yardstick for "% of peak": published figures of GPUs and a measured matrix product; never touches models.

use std::time::Instant;

use burn::tensor::{Device, Tensor, TensorData};
use model_zoo::Precision;

/// Peaks of one GPU in TFLOP/s, dense (not the doubled figure for 2:4 sparsity).
struct Published {
    /// Words that must all occur in the name the driver gives.
    words: &'static [&'static str],
    bf16: f64,
    f32: f64,
}

/// From NVIDIA's datasheets, the most specific name first: H200 and H200 NVL ("NVIDIA H200 Tensor Core GPU", 2024);
/// H100 SXM, PCIe, NVL ("NVIDIA H100 Tensor Core GPU", 2023); A100 (2021); L40S (2023); L4 (2023). Where a datasheet
/// gives bf16 with sparsity only, half of it.
const PUBLISHED: [Published; 8] = [
    Published { words: &["H200", "NVL"], bf16: 835.5, f32: 60.0 },
    Published { words: &["H200"], bf16: 989.0, f32: 67.0 },
    Published { words: &["H100", "NVL"], bf16: 835.5, f32: 60.0 },
    Published { words: &["H100", "PCIe"], bf16: 756.0, f32: 51.0 },
    Published { words: &["H100"], bf16: 989.0, f32: 67.0 },
    Published { words: &["A100"], bf16: 312.0, f32: 19.5 },
    Published { words: &["L40S"], bf16: 362.0, f32: 91.6 },
    Published { words: &["L4"], bf16: 121.0, f32: 30.3 },
];

/// Published dense peak of the GPU that its driver calls `name`, in FLOP/s; `None` for a GPU that is not in the table.
pub fn published_peak_flops(name: &str, precision: Precision) -> Option<f64> {
    let words: Vec<&str> = name.split(|c: char| !c.is_ascii_alphanumeric()).collect();
    let entry = PUBLISHED.iter().find(|entry| entry.words.iter().all(|word| words.contains(word)))?;
    let tflops = match precision {
        Precision::F32 => entry.f32,
        Precision::Bf16Mixed => entry.bf16,
    };
    Some(tflops * 1e12)
}

/// Rows and columns of the square product that is timed on a CPU: 1024³ is 2.1 GFLOP, out of the inner caches and
/// some 15 ms on two cores.
const CPU_SIZE: usize = 1024;
/// The first product that is timed on another device: 0.27 GFLOP, which an adapter in software does in 0.1 s.
const FIRST_SIZE: usize = 512;
/// The largest: a fast GPU needs about 2 ms for it.
const LARGEST_SIZE: usize = 4096;
/// How long one product should take, in seconds: long against its launch, and short where a device that tunes its
/// kernels runs it dozens of times, some of them many times slower than the best.
const LONG_ENOUGH: f64 = 0.01;
/// Timed products; the best counts, as a peak is what the machine can do when nothing disturbs it.
const TIMED: usize = 5;

/// Best speed of a few float32 matrix products on `device`, in FLOP/s: what "% of measured peak" is measured against.
///
/// Takes about a tenth of a second on a CPU, more where the device tunes its kernels first. `None` when the device
/// fails.
pub fn measure_peak_flops(device: &Device) -> Option<f64> {
    let plain = device.clone().without_autodiff();
    if plain == Device::flex() {
        return best_product_flops(&plain, CPU_SIZE, TIMED);
    }
    let first = best_product_flops(&plain, FIRST_SIZE, TIMED)?;
    let size = size_for(first);
    if size <= FIRST_SIZE { Some(first) } else { best_product_flops(&plain, size, TIMED).map(|flops| flops.max(first)) }
}

/// The power of two whose product takes [`LONG_ENOUGH`] or a little less at `flops`, up to [`LARGEST_SIZE`].
fn size_for(flops: f64) -> usize {
    let mut size = FIRST_SIZE;
    while size < LARGEST_SIZE && 2.0 * ((2 * size) as f64).powi(3) <= flops * LONG_ENOUGH {
        size *= 2;
    }
    size
}

fn best_product_flops(device: &Device, size: usize, timed: usize) -> Option<f64> {
    let matrix = |phase: f32| -> Tensor<2> {
        let values = (0..size * size).map(|i| (i as f32).mul_add(0.618, phase).fract() - 0.5).collect::<Vec<_>>();
        Tensor::from_data(TensorData::new(values, [size, size]), device)
    };
    let (a, b) = (matrix(0.1), matrix(0.7));
    let mut best = f64::INFINITY;
    // The first product pays for page faults, kernel compilation and tuning.
    for timed in (0..=timed).map(|i| i > 0) {
        device.sync().ok()?;
        let start = Instant::now();
        let product = model_zoo::ops::linear(a.clone(), b.clone());
        device.sync().ok()?;
        let seconds = start.elapsed().as_secs_f64();
        if timed {
            best = best.min(seconds);
        }
        // A device reports what went wrong when a result is read.
        product.slice([0..1, 0..1]).try_into_data().ok()?;
    }
    let flops = 2.0 * (size as f64).powi(3) / best;
    (flops.is_finite() && flops > 0.0).then_some(flops)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn names_of_drivers_find_their_row() {
        for (name, bf16) in [
            ("NVIDIA H200", 989.0),
            ("NVIDIA H200 NVL", 835.5),
            ("NVIDIA H100 80GB HBM3", 989.0),
            ("NVIDIA H100 PCIe", 756.0),
            ("NVIDIA A100-SXM4-80GB", 312.0),
            ("NVIDIA L40S", 362.0),
            ("NVIDIA L4", 121.0),
        ] {
            assert_eq!(published_peak_flops(name, Precision::Bf16Mixed), Some(bf16 * 1e12), "{name}");
        }
        assert_eq!(published_peak_flops("NVIDIA H200", Precision::F32), Some(67e12));
        assert_eq!(published_peak_flops("NVIDIA L40", Precision::Bf16Mixed), None);
        assert_eq!(published_peak_flops("llvmpipe", Precision::F32), None);
    }

    #[test]
    fn slow_devices_time_small_products() {
        for (flops, size) in [(5e9, 512), (2e11, 512), (3e11, 1024), (2e12, 2048), (1.4e13, 4096), (1e15, 4096)] {
            assert_eq!(size_for(flops), size, "{flops}");
        }
    }

    #[test]
    fn a_small_product_has_a_speed() {
        let flops = best_product_flops(&Device::flex(), 96, 2).unwrap();
        assert!(flops > 1e6, "{flops}");
    }
}
