//! Owns the questions asked of the NVIDIA driver before burn touches it; never computes.
//!
//! CubeCL panics on its own threads where the driver, NVRTC or a header is missing. This module asks the same libraries
//! first, through `dlopen` as CubeCL will, and turns every gap into a [`CudaMissing`].

use std::ffi::{CStr, OsStr, c_char, c_int, c_uint};

use cubecl::cuda::compiler::CudaBackend;
use libloading::{Library, Symbol};

use super::CudaMissing;
use super::nccl::words;
use super::toolkit::{Headers, Surroundings, find_headers, nvrtc_libraries};

/// One GPU as the driver describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CudaDevice {
    /// Marketing name, such as `NVIDIA H200`.
    pub name: String,
    /// Memory in bytes.
    pub memory: u64,
    /// Compute capability, major and minor.
    pub capability: (i32, i32),
}

/// A machine on which CUDA kernels can be compiled and run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cuda {
    /// CUDA version of the driver, as it writes it: 13.0 is 13000.
    pub driver: i32,
    /// Version of the run-time compiler, major and minor.
    pub nvrtc: (i32, i32),
    /// Its headers.
    pub headers: Headers,
    /// GPUs in the driver's order.
    pub devices: Vec<CudaDevice>,
}

/// Asks driver, compiler and headers; loads libraries but creates no context.
///
/// # Errors
/// The first thing that is missing.
pub fn probe() -> Result<Cuda, CudaMissing> {
    if !uses_cpp_backend() {
        return Err(CudaMissing::Compiler);
    }
    let driver = Driver::open()?;
    let devices = driver.devices()?;
    let around = Surroundings::from_env();
    let nvrtc = load_nvrtc(&around)?;
    let headers = find_headers(&around)?;
    let version = driver.version()?;
    // CubeCL loads the same libraries by name for as long as the process lives.
    std::mem::forget(driver);
    Ok(Cuda { driver: version, nvrtc, headers, devices })
}

/// Whether CubeCL compiles kernels as CUDA C++ (NVRTC) in this build: the other compiler is a stand-in here that
/// compiles nothing (`patches/cubecl-llvm`).
pub fn uses_cpp_backend() -> bool {
    CudaBackend::default() == CudaBackend::Cpp
}

fn load(name: impl AsRef<OsStr>) -> Result<Library, libloading::Error> {
    // SAFETY: loading runs the initialisers of a library. The names asked for here are NVIDIA's driver and compiler,
    // which CubeCL loads in the same way as soon as a CUDA device is used; neither has preconditions.
    unsafe { Library::new(name.as_ref()) }
}

/// The driver library, initialised.
struct Driver(Library);

type Get = unsafe extern "C" fn(*mut c_int) -> c_int;
type GetOf = unsafe extern "C" fn(*mut c_int, c_int) -> c_int;
type GetAttribute = unsafe extern "C" fn(*mut c_int, c_int, c_int) -> c_int;
type GetName = unsafe extern "C" fn(*mut c_char, c_int, c_int) -> c_int;
type GetBytes = unsafe extern "C" fn(*mut usize, c_int) -> c_int;
type Init = unsafe extern "C" fn(c_uint) -> c_int;
type ErrorName = unsafe extern "C" fn(c_int, *mut *const c_char) -> c_int;

/// `CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR` and `..._MINOR` of cuda.h.
const CAPABILITY: (c_int, c_int) = (75, 76);
/// Bytes for a device name; the driver cuts longer ones.
const NAME_BYTES: usize = 256;

impl Driver {
    fn open() -> Result<Self, CudaMissing> {
        let library = load("libcuda.so.1").or_else(|_| load("libcuda.so"));
        let driver = Self(library.map_err(|error| CudaMissing::Driver { reason: words(&error) })?);
        let init: Symbol<'_, Init> = driver.symbol("cuInit")?;
        // SAFETY: `cuInit` takes a flags word that must be zero and may be called any number of times.
        driver.check("cuInit", unsafe { init(0) })?;
        Ok(driver)
    }

    /// A function of the driver; callers name its type as cuda.h declares it.
    fn symbol<T>(&self, name: &str) -> Result<Symbol<'_, T>, CudaMissing> {
        // SAFETY: every caller of this private function passes the signature that cuda.h gives for `name`.
        let symbol = unsafe { self.0.get::<T>(name) };
        symbol.map_err(|error| CudaMissing::Driver { reason: words(&error) })
    }

    fn check(&self, call: &'static str, code: c_int) -> Result<(), CudaMissing> {
        if code == 0 {
            return Ok(());
        }
        let mut text: *const c_char = std::ptr::null();
        let error_name: Symbol<'_, ErrorName> = self.symbol("cuGetErrorName")?;
        // SAFETY: `text` is a valid place for one pointer; on success the driver points it at a static string.
        let known = unsafe { error_name(code, &raw mut text) } == 0 && !text.is_null();
        // SAFETY: `known` says that `text` points at a string of the driver, which ends in NUL and is never freed.
        let name = known.then(|| unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned());
        Err(CudaMissing::Call { call, code, name: name.unwrap_or_default() })
    }

    fn version(&self) -> Result<i32, CudaMissing> {
        let (get, mut version) = (self.symbol::<Get>("cuDriverGetVersion")?, 0);
        // SAFETY: `version` is a valid place for one int.
        self.check("cuDriverGetVersion", unsafe { get(&raw mut version) })?;
        Ok(version)
    }

    fn devices(&self) -> Result<Vec<CudaDevice>, CudaMissing> {
        let (get, mut count) = (self.symbol::<Get>("cuDeviceGetCount")?, 0);
        // SAFETY: `count` is a valid place for one int.
        self.check("cuDeviceGetCount", unsafe { get(&raw mut count) })?;
        if count == 0 {
            return Err(CudaMissing::NoDevice);
        }
        (0..count).map(|ordinal| self.device(ordinal)).collect()
    }

    fn device(&self, ordinal: c_int) -> Result<CudaDevice, CudaMissing> {
        let (get, mut device) = (self.symbol::<GetOf>("cuDeviceGet")?, 0);
        // SAFETY: `device` is a valid place for one CUdevice, which cuda.h declares as int.
        self.check("cuDeviceGet", unsafe { get(&raw mut device, ordinal) })?;
        let (get_name, mut name) = (self.symbol::<GetName>("cuDeviceGetName")?, [0_u8; NAME_BYTES]);
        // SAFETY: the buffer has the length given; its last byte stays zero because one byte less is offered.
        self.check("cuDeviceGetName", unsafe { get_name(name.as_mut_ptr().cast(), NAME_BYTES as c_int - 1, device) })?;
        let (get_bytes, mut memory) = (self.symbol::<GetBytes>("cuDeviceTotalMem_v2")?, 0_usize);
        // SAFETY: `memory` is a valid place for one size_t.
        self.check("cuDeviceTotalMem_v2", unsafe { get_bytes(&raw mut memory, device) })?;
        let get_attribute: Symbol<'_, GetAttribute> = self.symbol("cuDeviceGetAttribute")?;
        let attribute = |which: c_int| -> Result<i32, CudaMissing> {
            let mut value = 0;
            // SAFETY: `value` is a valid place for one int and `which` one of the constants above.
            self.check("cuDeviceGetAttribute", unsafe { get_attribute(&raw mut value, which, device) })?;
            Ok(value)
        };
        let name = CStr::from_bytes_until_nul(&name).unwrap_or_default().to_string_lossy().into_owned();
        let capability = (attribute(CAPABILITY.0)?, attribute(CAPABILITY.1)?);
        Ok(CudaDevice { name, memory: memory as u64, capability })
    }
}

type NvrtcVersion = unsafe extern "C" fn(*mut c_int, *mut c_int) -> c_int;

/// Names under which cudarc asks for NVRTC, of those that exist for CUDA 12 and 13.
const NVRTC_NAMES: [&str; 3] = ["libnvrtc.so", "libnvrtc.so.13", "libnvrtc.so.12"];

/// Makes NVRTC loadable by name and returns its version.
///
/// A library that only a folder of pip holds is loaded by its path and kept: the loader then knows its name, and
/// CubeCL's own search by name finds it without LD_LIBRARY_PATH.
fn load_nvrtc(around: &Surroundings) -> Result<(i32, i32), CudaMissing> {
    let by_name = || NVRTC_NAMES.into_iter().find_map(|name| load(name).ok());
    let library = by_name().or_else(|| {
        for path in nvrtc_libraries(around) {
            if let Ok(library) = load(&path) {
                std::mem::forget(library);
                if let Some(found) = by_name() {
                    return Some(found);
                }
            }
        }
        None
    });
    let Some(library) = library else {
        return Err(CudaMissing::Nvrtc { found: nvrtc_libraries(around).into_iter().next() });
    };
    let (mut major, mut minor) = (0, 0);
    {
        // SAFETY: nvrtc.h declares `nvrtcResult nvrtcVersion(int *major, int *minor)`.
        let version: Symbol<'_, NvrtcVersion> =
            unsafe { library.get("nvrtcVersion") }.map_err(|error| CudaMissing::Driver { reason: words(&error) })?;
        // SAFETY: both pointers are valid places for one int each.
        let code = unsafe { version(&raw mut major, &raw mut minor) };
        if code != 0 {
            return Err(CudaMissing::Call { call: "nvrtcVersion", code, name: String::new() });
        }
    }
    std::mem::forget(library);
    Ok((major, minor))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lost when another crate's features no longer select `cubecl/cuda-cpp`: every kernel would then be refused.
    #[test]
    fn kernels_are_compiled_by_the_cpp_backend() {
        assert!(uses_cpp_backend(), "cubecl's feature cuda-cpp is off: model-zoo's feature `cuda` must select it");
    }
}
