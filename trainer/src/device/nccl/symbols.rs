//! Owns NCCL's functions as this process has loaded them; never touches a communicator.
//!
//! Signatures and numbers are those of `nccl.h` (2.18 to 2.30, where none of them changed). Results are plain
//! integers here: a newer library may return codes that an enumeration of an older one lacks.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::path::PathBuf;
use std::ptr;

use libloading::Library;

use super::library::{NcclMissing, Places};

/// A communicator of the library.
pub(super) type Comm = *mut c_void;
/// A stream of CUDA.
pub(super) type Stream = *mut c_void;

/// `ncclSuccess`.
pub(super) const SUCCESS: c_int = 0;
/// `ncclInProgress`.
pub(super) const IN_PROGRESS: c_int = 7;
/// `ncclSum`.
pub(super) const SUM: c_int = 0;
/// `ncclFloat16`.
pub(super) const FLOAT16: c_int = 6;
/// `ncclFloat32`.
pub(super) const FLOAT32: c_int = 7;
/// `ncclBfloat16`.
pub(super) const BFLOAT16: c_int = 9;
/// `NCCL_UNIQUE_ID_BYTES`.
pub(super) const ID_BYTES: usize = 128;

/// `ncclUniqueId`, passed by value.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct UniqueId {
    pub(super) internal: [u8; ID_BYTES],
}

/// The part of `ncclConfig_t` that NCCL 2.18 has: the library reads as much as `size` says, and takes its defaults
/// for what came later by `version`.
#[repr(C)]
pub(super) struct Config {
    size: usize,
    magic: c_uint,
    version: c_uint,
    blocking: c_int,
    cga_cluster_size: c_int,
    min_ctas: c_int,
    max_ctas: c_int,
    net_name: *const c_char,
    split_share: c_int,
}

/// `NCCL_CONFIG_UNDEF_INT`.
const UNDEFINED: c_int = c_int::MIN;

impl Config {
    /// Calls return at once, and what became of them is asked for.
    pub(super) fn non_blocking() -> Self {
        Self {
            size: size_of::<Self>(),
            magic: 0xcafe_beef,
            version: 2_18_00,
            blocking: 0,
            cga_cluster_size: UNDEFINED,
            min_ctas: UNDEFINED,
            max_ctas: UNDEFINED,
            net_name: ptr::null(),
            split_share: UNDEFINED,
        }
    }
}

/// The numbers and the structure above are those of the bindings that cudarc generated from nccl.h.
#[cfg(feature = "cuda")]
const _: () = {
    use std::mem::offset_of;

    use cudarc::nccl::sys::{ncclConfig_t, ncclDataType_t, ncclRedOp_t, ncclResult_t, ncclUniqueId};

    assert!(ncclDataType_t::ncclFloat16 as c_int == FLOAT16);
    assert!(ncclDataType_t::ncclFloat32 as c_int == FLOAT32);
    assert!(ncclDataType_t::ncclBfloat16 as c_int == BFLOAT16);
    assert!(ncclRedOp_t::ncclSum as c_int == SUM);
    assert!(ncclResult_t::ncclSuccess as c_int == SUCCESS && ncclResult_t::ncclInProgress as c_int == IN_PROGRESS);
    assert!(size_of::<ncclUniqueId>() == size_of::<UniqueId>());
    assert!(offset_of!(ncclConfig_t, version) == offset_of!(Config, version));
    assert!(offset_of!(ncclConfig_t, blocking) == offset_of!(Config, blocking));
    assert!(offset_of!(ncclConfig_t, maxCTAs) == offset_of!(Config, max_ctas));
    assert!(offset_of!(ncclConfig_t, netName) == offset_of!(Config, net_name));
    assert!(offset_of!(ncclConfig_t, splitShare) == offset_of!(Config, split_share));
};

macro_rules! functions {
    ($($(#[$doc:meta])* $field:ident = $symbol:literal ($($argument:ty),*) -> $result:ty;)*) => {
        /// The functions, good for as long as the process lives: the library is never unloaded.
        pub(super) struct Functions {
            $($(#[$doc])* pub(super) $field: unsafe extern "C" fn($($argument),*) -> $result,)*
        }

        impl Functions {
            fn of(library: &'static Library) -> Result<Self, String> {
                Ok(Self {
                    $(
                        // SAFETY: the type is the one that nccl.h declares for this symbol, and the library outlives
                        // every use because it is never unloaded.
                        $field: unsafe {
                            *library
                                .get::<unsafe extern "C" fn($($argument),*) -> $result>($symbol)
                                .map_err(|error| format!("no {}: {}", $symbol, words(&error)))?
                        },
                    )*
                })
            }
        }
    };
}

functions! {
    get_version = "ncclGetVersion" (*mut c_int) -> c_int;
    get_error_string = "ncclGetErrorString" (c_int) -> *const c_char;
    get_last_error = "ncclGetLastError" (Comm) -> *const c_char;
    get_unique_id = "ncclGetUniqueId" (*mut UniqueId) -> c_int;
    comm_init_rank_config = "ncclCommInitRankConfig" (*mut Comm, c_int, UniqueId, c_int, *mut Config) -> c_int;
    comm_get_async_error = "ncclCommGetAsyncError" (Comm, *mut c_int) -> c_int;
    comm_finalize = "ncclCommFinalize" (Comm) -> c_int;
    comm_destroy = "ncclCommDestroy" (Comm) -> c_int;
    comm_abort = "ncclCommAbort" (Comm) -> c_int;
    group_start = "ncclGroupStart" () -> c_int;
    group_end = "ncclGroupEnd" () -> c_int;
    all_reduce = "ncclAllReduce" (*const c_void, *mut c_void, usize, c_int, c_int, Comm, Stream) -> c_int;
    /// The count is that of a region.
    reduce_scatter = "ncclReduceScatter" (*const c_void, *mut c_void, usize, c_int, c_int, Comm, Stream) -> c_int;
    /// The count is that of a region.
    all_gather = "ncclAllGather" (*const c_void, *mut c_void, usize, c_int, Comm, Stream) -> c_int;
    broadcast = "ncclBroadcast" (*const c_void, *mut c_void, usize, c_int, c_int, Comm, Stream) -> c_int;
    send = "ncclSend" (*const c_void, usize, c_int, c_int, Comm, Stream) -> c_int;
    recv = "ncclRecv" (*mut c_void, usize, c_int, c_int, Comm, Stream) -> c_int;
}

/// The library.
pub(super) struct Api {
    pub(super) functions: Functions,
    /// Its version as it writes it: 2.28.9 is 22809.
    pub(super) version: i32,
    /// What it was loaded as.
    pub(super) path: PathBuf,
}

impl Api {
    /// Finds and loads the library.
    pub(super) fn load(places: &Places) -> Result<Self, NcclMissing> {
        let mut tried = Vec::new();
        for path in places.candidates() {
            // SAFETY: loading runs the library's initialisers. Only files that are called NCCL or that the user named
            // as such are loaded; NCCL's initialisers have no preconditions.
            match unsafe { Library::new(&path) } {
                Ok(library) => return Self::of(library, path),
                Err(error) => tried.push(words(&error)),
            }
        }
        Err(places.missing(tried))
    }

    fn of(library: Library, path: PathBuf) -> Result<Self, NcclMissing> {
        // Loaded for good: CUDA's teardown at the end of the process may still call into it.
        let library: &'static Library = Box::leak(Box::new(library));
        let strange = |reason: String| NcclMissing::Strange { path: path.clone(), reason };
        let functions = Functions::of(library).map_err(strange)?;
        let mut version = 0;
        // SAFETY: `version` is a valid place for one int.
        let code = unsafe { (functions.get_version)(&raw mut version) };
        if code != SUCCESS {
            return Err(strange(format!("ncclGetVersion returned {code}")));
        }
        Ok(Self { functions, version, path })
    }

    /// An id for a new communicator, to be given to all ranks. The process that makes it must be rank 0, and live.
    pub(super) fn unique_id(&self) -> Result<UniqueId, String> {
        let mut id = UniqueId { internal: [0; ID_BYTES] };
        // SAFETY: `id` is a valid place for one id.
        let code = unsafe { (self.functions.get_unique_id)(&raw mut id) };
        // SAFETY: without a communicator the library returns the last error of the process.
        unsafe { self.check(ptr::null_mut(), "ncclGetUniqueId", code) }.map(|()| id)
    }

    /// Turns a result into words. Work in progress is no error.
    ///
    /// # Safety
    /// `comm` is a living communicator or null.
    pub(super) unsafe fn check(&self, comm: Comm, call: &str, code: c_int) -> Result<(), String> {
        if code == SUCCESS || code == IN_PROGRESS {
            return Ok(());
        }
        // SAFETY: the library returns static strings, for unknown codes as well; the caller vouches for `comm`.
        let (error, last) =
            unsafe { (text((self.functions.get_error_string)(code)), text((self.functions.get_last_error)(comm))) };
        let last = last.trim();
        Err(if last.is_empty() { format!("{call}: {error}") } else { format!("{call}: {error} ({last})") })
    }
}

/// What the loader said: `libloading` itself only names the call.
pub(in crate::device) fn words(error: &libloading::Error) -> String {
    std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string)
}

/// A string of the library.
///
/// # Safety
/// `string` is null or ends in NUL, and lives.
unsafe fn text(string: *const c_char) -> String {
    if string.is_null() {
        return String::new();
    }
    // SAFETY: as the caller says.
    unsafe { CStr::from_ptr(string) }.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)]
    use super::*;

    /// The library of this machine; without one the test says so and holds nothing.
    fn api() -> Option<Api> {
        match Api::load(&Places::from_env()) {
            Ok(api) => Some(api),
            Err(error @ NcclMissing::Anywhere { .. }) => {
                eprintln!("NOT TESTED, there is no NCCL here: {error}");
                None
            }
            Err(error) => unreachable!("{error}"),
        }
    }

    #[test]
    fn the_library_is_found_and_has_every_function() {
        let Some(api) = api() else { return };
        assert!(api.version >= 2_18_00, "{} is {}", api.path.display(), api.version);
        eprintln!("NCCL {} from {}", super::super::passport::version_text(api.version), api.path.display());
    }

    #[test]
    fn ids_differ_and_errors_have_words() {
        let Some(api) = api() else { return };
        let (a, b) = (api.unique_id().unwrap(), api.unique_id().unwrap());
        assert_ne!(a.internal, b.internal);
        // SAFETY: there is no communicator.
        let message = unsafe { api.check(ptr::null_mut(), "ncclSend", 4) }.unwrap_err();
        assert!(message.starts_with("ncclSend: invalid argument"), "{message}");
        // SAFETY: as above.
        assert_eq!(unsafe { api.check(ptr::null_mut(), "ncclSend", IN_PROGRESS) }, Ok(()));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_file_that_is_no_library_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("libnccl.so.2");
        std::fs::write(&file, "no ELF".repeat(1000)).unwrap();
        let error = Api::load(&Places::chosen(file.clone())).map(|api| api.version).unwrap_err().to_string();
        assert!(error.contains(&file.display().to_string()) && error.contains("ELF header"), "{error}");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_library_that_is_not_nccl_is_strange() {
        // The C library is on every machine and has none of the functions.
        let error = Api::load(&Places::chosen("libc.so.6".into())).map(|api| api.version).unwrap_err();
        assert!(matches!(&error, NcclMissing::Strange { .. }), "{error}");
        assert!(error.to_string().contains("ncclGetVersion"), "{error}");
    }
}
