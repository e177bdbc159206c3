//! Owns the health check of GPUs: arithmetic, speed, and the small run beside that of the CPU; never touches drivers.

use std::path::Path;

use super::machine::{GPUS, kernels};
use super::nccl;
use super::table::{Finding, Outcome, Table};
use super::training::{self, Trained};
use super::{SelftestError, Setup};
use crate::device::{self, DeviceChoice, DeviceError};

/// Largest relative difference of a loss from that of the CPU: both compute in fp32, in another order.
const TOLERANCE: f64 = 1e-3;

/// One row for each backend of this build, or one that says there is none.
pub(super) fn check(setup: &Setup, cpu: Option<&Trained>, table: &mut Table<'_>) -> Result<(), SelftestError> {
    let built: Vec<_> = GPUS.into_iter().filter(|gpu| gpu.is_built()).collect();
    if built.is_empty() {
        return table.check("gpu", || Ok(Finding::absent("not in this build")));
    }
    for gpu in built {
        table.check(&format!("gpu {gpu}"), || health(setup, gpu, cpu))?;
        if matches!(gpu, DeviceChoice::Cuda(_)) {
            table.check(&format!("nccl {gpu}"), || nccl::alone(gpu))?;
        }
    }
    Ok(())
}

fn health(setup: &Setup, gpu: DeviceChoice, cpu: Option<&Trained>) -> Outcome {
    let opened = match device::open(gpu, None) {
        Ok(opened) if opened.software => {
            return Ok(Finding::absent(format!("{} computes on the CPU: no GPU", opened.name)));
        }
        Ok(opened) => opened,
        Err(error) if is_present(gpu, &error) => return Err(error.to_string()),
        Err(error) => return Ok(Finding::absent(error.to_string())),
    };
    let flops = kernels(&opened.device)?;
    let cpu = cpu.ok_or("not compared: the run on the CPU failed")?;
    let name = format!("run-gpu-{}", gpu.feature().unwrap_or_default());
    let trained = training::train(setup, &name, 1, &[&format!("device={gpu}")])?;
    let difference = cpu.largest_difference(&trained);
    // A difference that is not a number is a miss too.
    if difference.is_nan() || difference > TOLERANCE {
        return Err(format!(
            "{}: losses differ from the CPU's by {difference:.1e}, more than {TOLERANCE:.0e}; check the driver and the \
             memory of the GPU, or report it",
            opened.name
        ));
    }
    let result = format!("{} ({}): trains as the CPU does", opened.name, opened.details);
    let finding = Finding::ok(result).with("fp32 peak", flops / 1e9, "GFLOP/s");
    Ok(finding.with("largest difference", difference * 1e6, "ppm"))
}

/// Whether there is a GPU that should have answered.
fn is_present(gpu: DeviceChoice, error: &DeviceError) -> bool {
    match error {
        DeviceError::NoAnswer { .. } => true,
        // The kernel module of the driver shows itself here.
        DeviceError::Cuda { .. } => {
            matches!(gpu, DeviceChoice::Cuda(_)) && Path::new("/proc/driver/nvidia/version").exists()
        }
        _ => false,
    }
}
