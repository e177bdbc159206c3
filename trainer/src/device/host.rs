//! Owns what is known about the host: processor, threads, memory of the process; never touches tensors.

use std::collections::BTreeSet;
use std::fs;

use super::DeviceError;

/// The processor as `/proc/cpuinfo` and the CPU itself describe it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Processor {
    /// Model name, or the architecture where the system does not say.
    pub name: String,
    /// Physical cores, counted once for every pair of hardware threads; `None` where the system does not say.
    pub cores: Option<usize>,
    /// Hardware threads this process may use (affinity mask and container quota are respected).
    pub hardware_threads: usize,
    /// Widest vector instructions that our kernels and the GEMM can use here.
    pub simd: &'static str,
}

impl Processor {
    /// Describes the host.
    pub fn detect() -> Self {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let (name, cores) = parse_cpuinfo(&cpuinfo);
        Self {
            name: name.unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
            cores,
            hardware_threads: std::thread::available_parallelism().map_or(1, usize::from),
            simd: simd_level(),
        }
    }
}

/// Model name and number of physical cores in the text of `/proc/cpuinfo`.
fn parse_cpuinfo(text: &str) -> (Option<String>, Option<usize>) {
    let value = |block: &str, key: &str| {
        block.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            (name.trim() == key).then(|| value.trim().to_owned())
        })
    };
    let name = ["model name", "Model", "Processor", "cpu model"].into_iter().find_map(|key| value(text, key));
    let cores: BTreeSet<_> =
        text.split("\n\n").filter_map(|block| Some((value(block, "physical id")?, value(block, "core id")?))).collect();
    (name.filter(|name| !name.is_empty()), (!cores.is_empty()).then_some(cores.len()))
}

fn simd_level() -> &'static str {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") {
            return "AVX-512";
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            return "AVX2+FMA";
        }
        "SSE2"
    }
    #[cfg(target_arch = "aarch64")]
    {
        "NEON"
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    {
        "scalar"
    }
}

/// Starts the thread pool of the CPU kernels with `wanted` threads, of which the calling thread is one, and returns its
/// size.
///
/// `None` leaves the choice to rayon: `RAYON_NUM_THREADS`, else every hardware thread this process may use. The number
/// changes speed only: the kernels cut their work by shape, so results have the same bits for any of them.
///
/// A step runs some hundred kernels one after the other. The thread that starts them computes as well: handing each to a
/// pool of other threads and sleeping meanwhile costs two wake-ups a kernel (docs/log.md has the figures). Other threads
/// of this process do not use this pool, for it stands still while the calling thread waits for something else; they have
/// rayon's global one.
///
/// # Errors
/// [`DeviceError::ThreadsFixed`] when the calling thread belongs to a pool of another size,
/// [`DeviceError::ThreadsRefused`] when the system starts none.
pub fn start_threads(wanted: Option<usize>) -> Result<usize, DeviceError> {
    if let Some(wanted) = wanted.filter(|&wanted| wanted == 0 || wanted > MAX_THREADS) {
        return Err(DeviceError::ThreadCount { wanted });
    }
    // A pool cannot be left again; asking for what is already there is no error.
    if rayon::current_thread_index().is_some() {
        let running = rayon::current_num_threads();
        return match wanted {
            Some(wanted) if wanted != running => Err(DeviceError::ThreadsFixed { wanted, running }),
            _ => Ok(running),
        };
    }
    let builder =
        || rayon::ThreadPoolBuilder::new().num_threads(wanted.unwrap_or(0)).thread_name(|i| format!("kernel-{i}"));
    let refused = |error: rayon::ThreadPoolBuildError| DeviceError::ThreadsRefused {
        wanted: wanted.or_else(|| std::thread::available_parallelism().ok().map(Into::into)).unwrap_or(1),
        reason: error.to_string(),
    };
    if wanted.is_some() {
        // For the other threads; one that runs already keeps its size, which no result depends on.
        let _ = builder().build_global();
    }
    let pool = builder().use_current_thread().build().map_err(refused)?;
    let threads = pool.current_num_threads();
    // The calling thread stays its member for good.
    std::mem::forget(pool);
    Ok(threads)
}

/// More threads than any host has; a larger number is a typing error that would only exhaust the system.
pub const MAX_THREADS: usize = 4096;

/// Memory of this process in bytes; `None` where the system does not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ProcessMemory {
    /// Resident now (`VmRSS`).
    pub resident: Option<u64>,
    /// Most that was ever resident (`VmHWM`).
    pub peak_resident: Option<u64>,
}

/// Reads `/proc/self/status`.
pub fn process_memory() -> ProcessMemory {
    parse_status(&fs::read_to_string("/proc/self/status").unwrap_or_default())
}

fn parse_status(text: &str) -> ProcessMemory {
    ProcessMemory { resident: kib_field(text, "VmRSS"), peak_resident: kib_field(text, "VmHWM") }
}

/// Memory this process may use, in bytes: the machine's, or the limit of its control group where that is lower.
pub fn total_memory() -> Option<u64> {
    let machine = kib_field(&fs::read_to_string("/proc/meminfo").ok()?, "MemTotal")?;
    let limit = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"]
        .into_iter()
        .find_map(|path| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok());
    Some(limit.map_or(machine, |limit| limit.min(machine)))
}

/// The field `key` of a `/proc` file whose values are written as `1234 kB`, in bytes.
fn kib_field(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        let kib = value.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?;
        (name == key).then(|| kib.saturating_mul(1024))
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    const TWO_CORES_FOUR_THREADS: &str = "processor\t: 0\nmodel name\t: Fast CPU @ 2.5GHz\nphysical id\t: 0\n\
        core id\t: 0\n\nprocessor\t: 1\nmodel name\t: Fast CPU @ 2.5GHz\nphysical id\t: 0\ncore id\t: 1\n\n\
        processor\t: 2\nmodel name\t: Fast CPU @ 2.5GHz\nphysical id\t: 0\ncore id\t: 0\n\n\
        processor\t: 3\nmodel name\t: Fast CPU @ 2.5GHz\nphysical id\t: 0\ncore id\t: 1\n";

    #[test]
    fn cpuinfo_gives_name_and_physical_cores() {
        assert_eq!(parse_cpuinfo(TWO_CORES_FOUR_THREADS), (Some("Fast CPU @ 2.5GHz".into()), Some(2)));
        assert_eq!(parse_cpuinfo("processor\t: 0\nBogoMIPS\t: 50\n"), (None, None));
        assert_eq!(parse_cpuinfo(""), (None, None));
    }

    #[test]
    fn status_is_read_in_bytes() {
        let text = "Name:\tjazari\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\nThreads:\t4\n";
        let expected = ProcessMemory { resident: Some(1 << 20), peak_resident: Some(2 << 20) };
        assert_eq!(parse_status(text), expected);
        assert_eq!(parse_status("VmRSS: many kB\n"), ProcessMemory::default());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_has_memory_below_the_total() {
        let ProcessMemory { resident, peak_resident } = process_memory();
        assert!(resident.unwrap() > 0 && resident <= peak_resident);
        assert!(resident < total_memory());
        assert!(Processor::detect().hardware_threads >= 1);
    }

    #[test]
    fn impossible_thread_counts_are_refused() {
        for wanted in [0, MAX_THREADS + 1] {
            let message = start_threads(Some(wanted)).unwrap_err().to_string();
            assert!(message.contains("threads") && message.contains(&wanted.to_string()), "{message}");
        }
    }

    #[test]
    fn a_running_pool_keeps_its_size() {
        let running = start_threads(None).unwrap();
        assert_eq!(start_threads(Some(running)).unwrap(), running);
        let message = start_threads(Some(running + 1)).unwrap_err().to_string();
        assert!(message.contains(&format!("{running} threads")), "{message}");
    }
}
