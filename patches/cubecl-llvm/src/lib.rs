//! Owns the names that `cubecl-cuda` and `cubecl-hip` 0.11.3 import from `cubecl-llvm`; never touches LLVM.
//!
//! The published `cubecl-llvm` compiles kernels with LLVM, which its build script downloads. Jazari compiles kernels
//! with CubeCL's C++ backend (NVRTC on NVIDIA, HIP RTC on AMD), so that none of that code would ever run; but the two
//! runtime crates name its types unconditionally, so that something must define them for a build to succeed. This
//! crate does, and [`PlironCompiler::compile`] answers every kernel with an error that says which feature was lost.
//! Remove the `[patch.crates-io]` entry of the workspace to get the LLVM compiler back.

use cubecl_core::prelude::KernelDefinition;
use cubecl_environment::backtrace::BackTrace;
use cubecl_runtime::compiler::{CompilationError, Compiler};
use cubecl_runtime::kernel::BufferIOAttr;

/// What every compilation through this crate ends in.
pub const NO_LLVM: &str = "this build has no LLVM compiler: the C++ backend must be in use. \
    Build with the CubeCL feature `cuda-cpp` (NVIDIA) or `hip-cpp` (AMD), \
    or remove the `cubecl-llvm` entry under [patch.crates-io] and build with network access";

/// What a kernel would be compiled for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LlvmTarget {
    /// The processor this program runs on.
    #[default]
    Cpu,
    /// An AMD GPU.
    #[cfg(feature = "amdgpu")]
    AmdGpu,
    /// An NVIDIA GPU.
    #[cfg(feature = "nvptx")]
    Nvptx,
}

/// The compiler that is not here.
#[derive(Clone, Debug, Default)]
pub struct PlironCompiler {
    /// What it was asked to compile for.
    pub target: LlvmTarget,
}

/// What the runtimes tell the compiler about the device.
#[derive(Clone, Debug, Default)]
pub struct PlironOptions {
    /// AMD architecture, `None` on any other device.
    pub arch: Option<cubecl_core::ir::amd::GfxArch>,
    /// NVIDIA architecture, `None` on any other device.
    #[cfg(feature = "nvptx")]
    pub sm_arch: Option<cubecl_core::ir::nvidia::SmArch>,
    /// PTX version the driver loads, `None` where it is not known.
    #[cfg(feature = "nvptx")]
    pub ptx_version: Option<nvptx::ptx_version::PtxVersion>,
    /// Whether scalars and metadata travel in the kernel's parameter block.
    pub grid_constants: bool,
}

/// PTX of one kernel; no value of it is ever made here.
#[cfg(feature = "nvptx")]
#[derive(Clone, Debug)]
pub struct NvptxModule {
    /// PTX text ending in NUL.
    pub ptx: Vec<core::ffi::c_char>,
    /// Name of the kernel in it.
    pub entrypoint: String,
    /// Intermediate representation, for logs.
    pub ir: String,
    /// Shared memory of a launch, bytes.
    pub shared_memory_size: usize,
    /// How each buffer is used, in binding order.
    pub io: Vec<BufferIOAttr>,
}

/// AMD code object of one kernel; no value of it is ever made here.
#[cfg(feature = "amdgpu")]
#[derive(Clone, Debug)]
pub struct AmdGpuModule {
    /// Loadable code object.
    pub code_object: Vec<u8>,
    /// Name of the kernel in it.
    pub entrypoint: String,
    /// Intermediate representation, for logs.
    pub ir: String,
    /// Shared memory of a launch, bytes.
    pub shared_memory_size: usize,
    /// How each buffer is used, in binding order.
    pub io: Vec<BufferIOAttr>,
}

/// What a compilation would give.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum PlironArtifact {
    /// For an NVIDIA GPU.
    #[cfg(feature = "nvptx")]
    NvptxCode(NvptxModule),
    /// For an AMD GPU.
    #[cfg(feature = "amdgpu")]
    AmdGpuCode(AmdGpuModule),
}

impl core::fmt::Display for PlironArtifact {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            #[cfg(feature = "nvptx")]
            PlironArtifact::NvptxCode(module) => f.write_str(&module.ir),
            #[cfg(feature = "amdgpu")]
            PlironArtifact::AmdGpuCode(module) => f.write_str(&module.ir),
            #[allow(unreachable_patterns)]
            _ => Ok(()),
        }
    }
}

impl Compiler for PlironCompiler {
    type Representation = PlironArtifact;
    type CompilationOptions = PlironOptions;

    fn compile(
        &mut self,
        _kernel: KernelDefinition,
        _options: &Self::CompilationOptions,
    ) -> Result<Self::Representation, CompilationError> {
        Err(CompilationError::Generic { reason: NO_LLVM.to_string(), backtrace: BackTrace::capture() })
    }

    fn extension(&self) -> &'static str {
        "ll"
    }

    fn lang_tag(&self) -> &'static str {
        "llvm"
    }
}

/// Names for NVIDIA GPUs.
#[cfg(feature = "nvptx")]
pub mod nvptx {
    /// The PTX version of a driver.
    pub mod ptx_version {
        /// Stands for a PTX version; here the CUDA version of the driver that loads it, as `cuDriverGetVersion`
        /// writes it (13.0 is `13000`), because no PTX is emitted.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub struct PtxVersion(i32);

        impl PtxVersion {
            /// What a driver of CUDA version `driver` loads; `None` below CUDA 10.0.
            pub fn for_driver(driver: i32) -> Option<Self> {
                (driver >= 10_000).then_some(Self(driver))
            }
        }

        impl core::fmt::Display for PtxVersion {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                write!(f, "driver-{}", self.0)
            }
        }
    }
}

/// Names shared by the targets.
pub mod shared {
    /// What a device advertises, as the LLVM compiler would narrow it.
    pub mod lowered_features {
        use cubecl_core::ir::DeviceProperties;

        /// The kind of GPU whose features would be narrowed.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum GpuTarget {
            /// An NVIDIA GPU.
            #[cfg(feature = "nvptx")]
            Nvptx,
            /// An AMD GPU.
            #[cfg(feature = "amdgpu")]
            AmdGpu {
                /// Generation of its matrix instructions.
                wmma: Option<cubecl_core::ir::amd::AmdWmma>,
            },
        }

        /// Leaves `_props` as they are: a device that reaches this has the LLVM compiler selected and cannot run a
        /// kernel, which [`crate::PlironCompiler`] says at the first one.
        pub fn restrict_features(_props: &mut DeviceProperties, _target: GpuTarget) {}
    }
}
