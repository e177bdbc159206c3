//! Owns the energy counter of an NVIDIA GPU; never touches tensors. Only with the feature `cuda`.

use nvml_wrapper::Nvml;
use nvml_wrapper::error::NvmlError;

/// Millijoules of a joule.
const MILLI: f64 = 1e3;

/// Which GPUs CUDA shows, and in which order.
const VISIBLE: &str = "CUDA_VISIBLE_DEVICES";

/// The counter of one GPU.
#[derive(Debug)]
pub struct GpuMeter {
    nvml: Nvml,
    /// Index or UUID, as NVML knows it.
    name: String,
    last: u64,
}

impl GpuMeter {
    /// Opens the counter of the GPU that CUDA calls `cuda:index`.
    ///
    /// # Errors
    /// Why there is none, in words.
    pub fn open(index: usize) -> Result<Self, String> {
        let why = |error: NvmlError| format!("the GPU shows no counter ({error})");
        let nvml = Nvml::init().map_err(why)?;
        let name = nvml_name(index, std::env::var(VISIBLE).ok().as_deref());
        let last = read(&nvml, &name).map_err(why)?;
        Ok(Self { nvml, name, last })
    }

    /// Joules drawn since this was last asked.
    pub fn take(&mut self) -> f64 {
        let Ok(now) = read(&self.nvml, &self.name) else { return 0.0 };
        let drawn = now.saturating_sub(self.last);
        self.last = now;
        drawn as f64 / MILLI
    }
}

fn read(nvml: &Nvml, name: &str) -> Result<u64, NvmlError> {
    let device = match name.parse() {
        Ok(index) => nvml.device_by_index(index),
        Err(_) => nvml.device_by_uuid(name),
    }?;
    device.total_energy_consumption()
}

/// NVML counts every GPU of the host, CUDA only those that it may see.
fn nvml_name(index: usize, visible: Option<&str>) -> String {
    let names = visible.map(|list| list.split(',').map(str::trim).filter(|name| !name.is_empty()).collect::<Vec<_>>());
    names.and_then(|names| names.get(index).map(|name| (*name).to_owned())).unwrap_or_else(|| index.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gpus_are_named_as_nvml_counts_them() {
        assert_eq!(nvml_name(1, None), "1");
        assert_eq!(nvml_name(1, Some("4, 6")), "6");
        assert_eq!(nvml_name(0, Some("GPU-8932f937")), "GPU-8932f937");
        assert_eq!(nvml_name(2, Some("4")), "2");
    }
}
