//! Owns what can go wrong between a device's name in a config and its first answer; never decides anything.

use std::path::PathBuf;

use super::choice::DeviceChoice;
use super::host::MAX_THREADS;
use super::toolkit::HeadersMissing;

/// Why no device could be opened.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// The binary lacks the backend.
    #[error(
        "`{wanted}` was asked for, but this binary was built without the feature `{feature}`: build with \
         `cargo build --release -p trainer --features {feature}`, or write `device: cpu`"
    )]
    NotBuilt {
        /// What was asked for.
        wanted: DeviceChoice,
        /// The cargo feature to build with.
        feature: &'static str,
    },
    /// CUDA is compiled in but something on this machine is missing.
    #[error("`{wanted}` cannot be used: {missing}")]
    Cuda {
        /// What was asked for.
        wanted: DeviceChoice,
        /// What is missing and what to do.
        missing: CudaMissing,
    },
    /// The backend works, without a device of that number.
    #[error(
        "`{wanted}` was asked for, but this machine has {}; write a device that exists, or `device: cpu`",
        listed(.found)
    )]
    NoSuchDevice {
        /// What was asked for.
        wanted: DeviceChoice,
        /// Names of the devices that exist, in order.
        found: Vec<String>,
    },
    /// The device is there and fails at the first sum.
    #[error(
        "`{wanted}` ({name}) did not add four numbers: {reason}; \
         check the driver (for NVIDIA: `nvidia-smi`, and that the CUDA toolkit is not newer than the driver), \
         or write `device: cpu`"
    )]
    NoAnswer {
        /// What was asked for.
        wanted: DeviceChoice,
        /// The device's own name.
        name: String,
        /// What came back.
        reason: String,
    },
    /// A number of threads that no host has.
    #[error("`threads: {wanted}` is not a number of threads; write 1 to {MAX_THREADS}, or leave the key out")]
    ThreadCount {
        /// What was asked for.
        wanted: usize,
    },
    /// The pool was started with another size.
    #[error(
        "`threads: {wanted}` came too late: {running} threads of this process already run; \
         set the number before the first computation"
    )]
    ThreadsFixed {
        /// What was asked for.
        wanted: usize,
        /// What runs.
        running: usize,
    },
    /// The system started no threads.
    #[error("{wanted} threads could not be started: {reason}; write a smaller `threads`")]
    ThreadsRefused {
        /// What was asked for.
        wanted: usize,
        /// The system's answer.
        reason: String,
    },
}

fn listed(found: &[String]) -> String {
    match found {
        [] => "no such device".to_owned(),
        names => format!("{}: {}", names.len(), names.join(", ")),
    }
}

/// What a machine lacks for CUDA.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CudaMissing {
    /// The build lost the compiler it relies on.
    #[error(
        "this binary compiles kernels with LLVM, which it does not contain; build it with the feature `cuda` of \
         `trainer`, which selects CubeCL's C++ backend, and report this"
    )]
    Compiler,
    /// No driver library.
    #[error(
        "no NVIDIA driver was found ({reason}); install the driver (Debian, Ubuntu: package `nvidia-driver`), \
         start a container with `--gpus all`, or write `device: cpu`"
    )]
    Driver {
        /// What the loader said.
        reason: String,
    },
    /// The driver refused a call.
    #[error(
        "the NVIDIA driver refused {call}: error {code} {name}; `nvidia-smi` shows its state, and after an update of \
         the driver the machine must be restarted"
    )]
    Call {
        /// The function.
        call: &'static str,
        /// Its result.
        code: i32,
        /// The driver's name for it, or nothing.
        name: String,
    },
    /// A driver without a GPU.
    #[error("the NVIDIA driver answers but shows no GPU; look at `nvidia-smi` and at CUDA_VISIBLE_DEVICES")]
    NoDevice,
    /// No run-time compiler.
    #[error("the CUDA run-time compiler (libnvrtc.so.13 or .12) was not found; {}", nvrtc_advice(.found))]
    Nvrtc {
        /// A file that looks like it but could not be loaded by name.
        found: Option<PathBuf>,
    },
    /// No headers.
    #[error(transparent)]
    Headers(#[from] HeadersMissing),
}

fn nvrtc_advice(found: &Option<PathBuf>) -> String {
    match found.as_ref().and_then(|file| file.parent()) {
        Some(folder) => format!(
            "one that could not be loaded by name is in {0}: run again with LD_LIBRARY_PATH={0}",
            folder.display()
        ),
        None => "install the CUDA toolkit (12.8 or newer), or `pip install nvidia-cuda-nvrtc` in the active Python \
                 environment"
            .to_owned(),
    }
}
