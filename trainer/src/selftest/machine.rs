//! Owns the checks of processor, memory and kernels; never touches disks, networks or child processes.

use std::path::Path;

use burn::tensor::{Device, Tensor, TensorData};

use super::table::{Finding, Outcome};
use crate::device::{self, DeviceChoice, host};
use crate::durable;

/// GPU backends, the first device of each.
pub(super) const GPUS: [DeviceChoice; 3] = [DeviceChoice::Cuda(0), DeviceChoice::Rocm(0), DeviceChoice::Wgpu(0)];

const GIB: f64 = (1u64 << 30) as f64;

/// Rows, inner dimension and columns of the product whose result is known: no multiples of a vector's width, so that
/// the edges of kernels take part.
const PRODUCT: [usize; 3] = [67, 131, 71];

/// What this machine is.
pub(super) fn describe(folder: &Path) -> Outcome {
    let opened = device::open(DeviceChoice::Cpu, None).map_err(|error| error.to_string())?;
    let built: Vec<_> = GPUS.into_iter().filter(|gpu| gpu.is_built()).filter_map(DeviceChoice::feature).collect();
    let gpus =
        if built.is_empty() { "no GPU backend".to_owned() } else { format!("GPU backends {}", built.join(", ")) };
    let version = env!("CARGO_PKG_VERSION");
    let result = format!("{} ({}); jazari {version} with {gpus}", opened.name, opened.details);
    let mut finding = Finding::ok(result).with("threads", opened.threads as f64, "");
    if let Some(bytes) = host::total_memory() {
        finding = finding.with("memory", bytes as f64 / GIB, "GiB");
    }
    if let Some(bytes) = durable::free_bytes(folder) {
        finding = finding.with("free in the work folder", bytes as f64 / GIB, "GiB");
    }
    Ok(finding)
}

/// The matrix product on the CPU.
pub(super) fn cpu_kernels() -> Outcome {
    let opened = device::open(DeviceChoice::Cpu, None).map_err(|error| error.to_string())?;
    let flops = kernels(&opened.device)?;
    Ok(Finding::ok("a matrix product of integers is exact").with("fp32 peak", flops / 1e9, "GFLOP/s"))
}

/// Checks a matrix product whose result is known, then times larger ones: FLOP/s.
pub(super) fn kernels(device: &Device) -> Result<f64, String> {
    exact_product(device)?;
    device::measure_peak_flops(device).ok_or_else(|| "the device failed while matrix products were timed".to_owned())
}

/// Integers this small are added without rounding, in whatever order and on whatever device.
fn exact_product(device: &Device) -> Result<(), String> {
    let [rows, inner, columns] = PRODUCT;
    let value = |index: usize, salt: usize| ((index * 37 + salt) % 17) as f32 - 8.0;
    let matrix = |rows: usize, salt: usize| -> Tensor<2> {
        let values: Vec<f32> = (0..rows * inner).map(|index| value(index, salt)).collect();
        Tensor::from_data(TensorData::new(values, [rows, inner]), device)
    };
    let product = model_zoo::ops::linear(matrix(rows, 3), matrix(columns, 11));
    let product = product.try_into_data().map_err(|error| format!("the device failed: {error}"))?;
    let product = product.try_into_vec::<f32>().map_err(|error| format!("the device failed: {error}"))?;
    if product.len() != rows * columns {
        return Err(format!("a product of {rows} x {columns} numbers has {}", product.len()));
    }
    for (index, found) in product.into_iter().enumerate() {
        let (row, column) = (index / columns, index % columns);
        let expected: f32 = (0..inner).map(|k| value(row * inner + k, 3) * value(column * inner + k, 11)).sum();
        if found != expected {
            return Err(format!("a matrix product is wrong: row {row}, column {column} is {found}, not {expected}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_product_of_this_machine_is_exact() {
        exact_product(&Device::flex()).unwrap();
    }
}
