//! Owns the choice of hardware and everything that depends on a backend; never touches models, data or run files.
//!
//! The only module that knows backends. A device is asked whether it answers *before* burn uses it, because burn
//! panics, or answers "data not available", on a machine without a driver.

mod choice;
#[cfg(feature = "cuda")]
pub mod cuda;
pub mod energy;
mod error;
pub mod host;
pub mod nccl;
#[cfg(feature = "cuda")]
mod nvml;
pub mod peak;
pub mod toolkit;

use std::panic::{AssertUnwindSafe, catch_unwind};

use burn::tensor::{DType, Device, Tensor, TensorData};
use model_zoo::Precision;

pub use choice::{DeviceChoice, DeviceChoiceError, LAST_INDEX};
pub use error::{CudaMissing, DeviceError};
pub use host::{ProcessMemory, Processor, process_memory};
pub use peak::{measure_peak_flops, published_peak_flops};

/// The backend a device belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DeviceKind {
    /// The processor.
    Cpu,
    /// An NVIDIA GPU.
    Cuda,
    /// An AMD GPU through HIP.
    Rocm,
    /// A graphics adapter through wgpu.
    Wgpu,
}

/// A device that has answered.
#[derive(Debug, Clone)]
pub struct Opened {
    /// The burn device, without autodiff.
    pub device: Device,
    /// What it is called in a config; never [`DeviceChoice::Auto`].
    pub choice: DeviceChoice,
    /// Its backend.
    pub kind: DeviceKind,
    /// Its own name, such as `NVIDIA H200` or the processor's model.
    pub name: String,
    /// What else is worth printing once: capability, driver, cores, vector width.
    pub details: String,
    /// Memory it has, in bytes, where that is known.
    pub total_memory: Option<u64>,
    /// Threads of the CPU kernels (they also serve a GPU run: data, optimizer state on the host).
    pub threads: usize,
    /// Whether it is an adapter that computes on the CPU (lavapipe, WARP).
    pub software: bool,
    /// What the user should know: why `auto` passed other devices over, what may not work.
    pub notes: Vec<String>,
}

/// Memory in bytes, as far as the device reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MemoryUse {
    /// What it has.
    pub total: Option<u64>,
    /// In use now: resident memory of the process on a CPU, memory reserved by burn's pools on a GPU.
    pub used: Option<u64>,
    /// Most that was in use; GPUs do not report it, keep the maximum of `used` over steps there.
    pub peak: Option<u64>,
}

impl Opened {
    /// One line for the start of a run: `cuda:0 NVIDIA H200 (compute 9.0, ...), 2 CPU threads`.
    pub fn summary(&self) -> String {
        let details = if self.details.is_empty() { String::new() } else { format!(" ({})", self.details) };
        let threads = if self.threads == 1 { "thread" } else { "threads" };
        format!("{} {}{details}, {} CPU {threads}", self.choice, self.name, self.threads)
    }

    /// Memory as it is now.
    pub fn memory(&self) -> MemoryUse {
        if self.kind == DeviceKind::Cpu {
            let ProcessMemory { resident, peak_resident } = process_memory();
            return MemoryUse { total: self.total_memory, used: resident, peak: peak_resident };
        }
        let used = self.device.memory_pool_usage().map(|usage| usage.bytes_reserved);
        MemoryUse { total: self.total_memory, used, peak: None }
    }

    /// Whether `precision: bf16-mixed` can be computed here.
    pub fn supports_bf16(&self) -> bool {
        self.device.supports_dtype(DType::BF16)
    }

    /// The device's peak in FLOP/s: the published one where there is one, else `None`; see [`measure_peak_flops`].
    pub fn published_peak_flops(&self, precision: Precision) -> Option<f64> {
        match self.kind {
            DeviceKind::Cuda => published_peak_flops(&self.name, precision),
            DeviceKind::Cpu | DeviceKind::Rocm | DeviceKind::Wgpu => None,
        }
    }
}

/// Opens what `choice` names, with `threads` threads for the CPU kernels (`None`: all this process may use).
///
/// Call it once, at the start: the first call fixes the number of threads.
///
/// # Errors
/// [`DeviceError`] says what is missing and what to do; nothing falls back silently. `auto` ends at the CPU and
/// collects in [`Opened::notes`] why.
pub fn open(choice: DeviceChoice, threads: Option<usize>) -> Result<Opened, DeviceError> {
    open_for(choice, 0, threads)
}

/// [`open`] for one of several processes of this host: the `local_rank`-th of them takes the `local_rank`-th device from
/// the one that `choice` names. With `auto`, processes share GPUs where there are fewer.
///
/// # Errors
/// As [`open`].
pub fn open_for(choice: DeviceChoice, local_rank: usize, threads: Option<usize>) -> Result<Opened, DeviceError> {
    let choice = choice.of_process(local_rank);
    let threads = host::start_threads(threads)?;
    if let Some(feature) = choice.feature().filter(|_| !choice.is_built()) {
        return Err(DeviceError::NotBuilt { wanted: choice, feature });
    }
    let mut opened = match choice {
        DeviceChoice::Auto => open_best(local_rank),
        DeviceChoice::Cpu => Ok(open_cpu()),
        DeviceChoice::Cuda(_) | DeviceChoice::Rocm(_) | DeviceChoice::Wgpu(_) => open_gpu(choice),
    }?;
    opened.threads = threads;
    Ok(opened)
}

/// The first GPU that answers, in order of speed, else the CPU.
fn open_best(local_rank: usize) -> Result<Opened, DeviceError> {
    let mut notes = Vec::new();
    for first in [DeviceChoice::Cuda(0), DeviceChoice::Rocm(0), DeviceChoice::Wgpu(0)] {
        let candidate = first.of_process(local_rank);
        if !candidate.is_built() {
            continue;
        }
        let opened = match open_gpu(candidate) {
            // Not the CPU beside processes that have a GPU: the slowest would decide the speed of all.
            Err(DeviceError::NoSuchDevice { found, .. }) if !found.is_empty() => {
                let shared = first.of_process(local_rank % found.len());
                let gpus = found.len();
                notes.push(format!("there is no `{candidate}`, this host has {gpus}: sharing `{shared}`"));
                open_gpu(shared)
            }
            other => other,
        };
        match opened {
            Ok(opened) if !opened.software => return Ok(Opened { notes: [notes, opened.notes].concat(), ..opened }),
            Ok(opened) => notes.push(format!("`{candidate}` ({}) computes on the CPU: passed over", opened.name)),
            Err(error) => notes.push(error.to_string()),
        }
    }
    // The kernel module of the driver shows itself here without loading anything.
    if !DeviceChoice::Cuda(0).is_built() && std::path::Path::new("/proc/driver/nvidia/version").exists() {
        notes.push(DeviceError::NotBuilt { wanted: DeviceChoice::Cuda(0), feature: "cuda" }.to_string());
    }
    Ok(Opened { notes, ..open_cpu() })
}

fn open_cpu() -> Opened {
    let processor = Processor::detect();
    let cores = processor.cores.map(|cores| format!("{cores} cores, ")).unwrap_or_default();
    Opened {
        device: Device::flex(),
        choice: DeviceChoice::Cpu,
        kind: DeviceKind::Cpu,
        name: processor.name,
        details: format!("{cores}{} hardware threads, {}", processor.hardware_threads, processor.simd),
        total_memory: host::total_memory(),
        threads: 0,
        software: false,
        notes: Vec::new(),
    }
}

/// Finds the GPU and lets it compute.
fn open_gpu(wanted: DeviceChoice) -> Result<Opened, DeviceError> {
    let opened = find_gpu(wanted)?;
    match add_four_numbers(&opened.device) {
        Ok(()) => Ok(opened),
        Err(reason) => {
            let reason = [vec![reason], opened.notes].concat().join("; ");
            Err(DeviceError::NoAnswer { wanted, name: opened.name, reason })
        }
    }
}

/// Finds the GPU among those that exist, without computing; no GPU for a choice that is not built in.
fn find_gpu(wanted: DeviceChoice) -> Result<Opened, DeviceError> {
    match wanted {
        #[cfg(feature = "cuda")]
        DeviceChoice::Cuda(index) => find_cuda(wanted, index),
        #[cfg(feature = "rocm")]
        DeviceChoice::Rocm(index) => find_rocm(wanted, index),
        #[cfg(feature = "wgpu")]
        DeviceChoice::Wgpu(index) => find_wgpu(wanted, index),
        _ => Err(DeviceError::NoSuchDevice { wanted, found: Vec::new() }),
    }
}

#[cfg(feature = "cuda")]
fn find_cuda(wanted: DeviceChoice, index: usize) -> Result<Opened, DeviceError> {
    let machine = cuda::probe().map_err(|missing| DeviceError::Cuda { wanted, missing })?;
    let Some(gpu) = machine.devices.get(index) else {
        let found = machine.devices.into_iter().map(|gpu| gpu.name).collect();
        return Err(DeviceError::NoSuchDevice { wanted, found });
    };
    let dotted = |cuda: i32| format!("{}.{}", cuda / 1000, cuda % 1000 / 10);
    let mut notes = Vec::new();
    let (major, minor) = machine.nvrtc;
    if major * 1000 + minor * 10 > machine.driver {
        notes.push(format!(
            "the CUDA compiler (NVRTC {major}.{minor}) is newer than the driver (CUDA {}), which may refuse its \
             kernels: update the driver or use an older toolkit",
            dotted(machine.driver)
        ));
    }
    if !machine.headers.has_barrier {
        notes.push(format!(
            "{}/include has no cuda/barrier: kernels with TMA and asynchronous copies will not compile; \
             install the CUDA C++ core libraries (pip: `nvidia-cuda-cccl`)",
            machine.headers.root.display()
        ));
    }
    Ok(Opened {
        device: Device::cuda(index),
        choice: wanted,
        kind: DeviceKind::Cuda,
        name: gpu.name.clone(),
        details: format!(
            "compute {}.{}, driver CUDA {}, NVRTC {major}.{minor}",
            gpu.capability.0,
            gpu.capability.1,
            dotted(machine.driver)
        ),
        total_memory: Some(gpu.memory),
        threads: 0,
        software: false,
        notes,
    })
}

#[cfg(feature = "rocm")]
fn find_rocm(wanted: DeviceChoice, index: usize) -> Result<Opened, DeviceError> {
    let devices = burn::tensor::Device::enumerate(burn::tensor::DeviceType::Rocm).into_vec();
    pick(wanted, index, DeviceKind::Rocm, devices.into_iter().map(|device| (device, false)).collect())
}

/// Lists the adapters that wgpu reaches in the order in which `wgpu:N` numbers them.
#[cfg(feature = "wgpu")]
fn find_wgpu(wanted: DeviceChoice, index: usize) -> Result<Opened, DeviceError> {
    use burn::tensor::DeviceKind as Adapter;
    let mut left = burn::tensor::Device::enumerate(burn::tensor::DeviceType::Wgpu).into_vec();
    let count = left.len();
    let software = Device::wgpu(Adapter::Cpu);
    let named = [Adapter::DiscreteGpu as fn(usize) -> Adapter, Adapter::IntegratedGpu, Adapter::VirtualGpu];
    let mut ordered = Vec::new();
    for device in named.iter().flat_map(|kind| (0..count).map(|i| Device::wgpu(kind(i)))) {
        if left.contains(&device) {
            left.retain(|other| *other != device);
            ordered.push((device, false));
        }
    }
    ordered.extend(left.iter().filter(|device| **device != software).map(|device| (device.clone(), false)));
    ordered.extend(left.into_iter().filter(|device| *device == software).map(|device| (device, true)));
    pick(wanted, index, DeviceKind::Wgpu, ordered)
}

/// The device at `index` of a list of devices, each with whether it computes on the CPU.
#[cfg(any(feature = "rocm", feature = "wgpu"))]
fn pick(
    wanted: DeviceChoice,
    index: usize,
    kind: DeviceKind,
    devices: Vec<(Device, bool)>,
) -> Result<Opened, DeviceError> {
    // A device opens to tell its name, which can fail on a broken driver.
    let name = |device: &Device| {
        catch_unwind(AssertUnwindSafe(|| device.identity()))
            .ok()
            .flatten()
            .map_or_else(|| "unnamed".into(), |id| id.name)
    };
    let Some((device, software)) = devices.get(index).cloned() else {
        let found = devices.iter().map(|(device, _)| name(device)).collect();
        return Err(DeviceError::NoSuchDevice { wanted, found });
    };
    let notes = if software { vec![format!("`{wanted}` is a software adapter: `cpu` is faster")] } else { Vec::new() };
    Ok(Opened {
        name: name(&device),
        device,
        choice: wanted,
        kind,
        details: String::new(),
        total_memory: None,
        threads: 0,
        software,
        notes,
    })
}

/// The smallest computation that needs all of a device: memory, a compiled kernel, the way back.
fn add_four_numbers(device: &Device) -> Result<(), String> {
    let compute = || {
        let numbers = Tensor::<1>::from_data(TensorData::new(vec![1.0_f32, 2.0, 3.0, 4.0], [4]), device);
        (numbers * 2.0).sum().try_into_data().map_err(|error| error.to_string())
    };
    let data = catch_unwind(AssertUnwindSafe(compute)).map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("it panicked").to_owned()
    })??;
    match data.try_into_vec::<f32>() {
        Ok(sum) if sum == [20.0] => Ok(()),
        Ok(sum) => Err(format!("2 * (1 + 2 + 3 + 4) came out as {sum:?}")),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn the_cpu_opens_and_describes_itself() {
        let opened = open(DeviceChoice::Cpu, None).unwrap();
        assert_eq!((opened.choice, opened.kind), (DeviceChoice::Cpu, DeviceKind::Cpu));
        assert!(opened.threads >= 1 && !opened.name.is_empty() && opened.notes.is_empty());
        assert!(opened.summary().starts_with("cpu ") && opened.summary().contains("hardware threads"));
        assert_eq!(opened.published_peak_flops(Precision::F32), None);
        add_four_numbers(&opened.device).unwrap();
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn memory_of_the_cpu_grows_with_what_is_used() {
        let opened = open(DeviceChoice::Cpu, None).unwrap();
        let before = opened.memory().used.unwrap();
        let block = vec![1_u8; 64 << 20];
        let after = opened.memory();
        assert!(after.used.unwrap() >= before + (32 << 20), "{before} -> {after:?} with {} bytes", block.len());
        assert!(after.peak >= after.used && after.used < after.total);
    }

    #[test]
    fn auto_always_ends_at_a_device() {
        let opened = open(DeviceChoice::Auto, None).unwrap();
        assert_ne!(opened.choice, DeviceChoice::Auto);
        add_four_numbers(&opened.device).unwrap();
    }

    #[test]
    fn a_backend_that_was_not_built_says_how_to_build_it() {
        for (choice, feature) in
            [(DeviceChoice::Cuda(0), "cuda"), (DeviceChoice::Rocm(1), "rocm"), (DeviceChoice::Wgpu(2), "wgpu")]
        {
            if choice.is_built() {
                continue;
            }
            let message = open(choice, None).unwrap_err().to_string();
            let expected = format!(
                "`{choice}` was asked for, but this binary was built without the feature `{feature}`: \
                 build with `cargo build --release -p trainer --features {feature}`, or write `device: cpu`"
            );
            assert_eq!(message, expected);
        }
    }

    #[test]
    fn what_cuda_lacks_ends_in_what_to_do() {
        let missing = [
            CudaMissing::Driver { reason: "libcuda.so.1: cannot open shared object file".into() },
            CudaMissing::Call { call: "cuInit", code: 803, name: "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH".into() },
            CudaMissing::NoDevice,
            CudaMissing::Nvrtc { found: None },
            CudaMissing::Nvrtc { found: Some("/venv/nvidia/cu13/lib/libnvrtc.so.13".into()) },
            CudaMissing::Headers(toolkit::find_headers(&toolkit::Surroundings::default()).unwrap_err()),
        ];
        let todo = [
            "install the driver",
            "restarted",
            "nvidia-smi",
            "install the CUDA toolkit",
            "LD_LIBRARY_PATH=/venv/nvidia/cu13/lib",
            "pip install",
        ];
        for (missing, todo) in missing.into_iter().zip(todo) {
            let message = DeviceError::Cuda { wanted: DeviceChoice::Cuda(0), missing }.to_string();
            assert!(message.starts_with("`cuda:0` cannot be used: ") && message.contains(todo), "{message}");
        }
        let found = vec!["NVIDIA H200".to_owned(), "NVIDIA H200".to_owned()];
        let message = DeviceError::NoSuchDevice { wanted: DeviceChoice::Cuda(2), found }.to_string();
        assert!(message.contains("this machine has 2: NVIDIA H200, NVIDIA H200;"), "{message}");
    }

    /// On a machine with a working GPU this says nothing; on any other, a build with the feature must not panic.
    #[cfg(feature = "cuda")]
    #[test]
    fn without_a_driver_cuda_is_a_message() {
        match open(DeviceChoice::Cuda(0), None) {
            Ok(opened) => assert_eq!(opened.kind, DeviceKind::Cuda),
            Err(error) => assert!(matches!(error, DeviceError::Cuda { .. }), "{error}"),
        }
    }
}
