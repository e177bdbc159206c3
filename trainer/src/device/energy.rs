//! Owns the energy counters of a host: RAPL of its processors and, with the feature `cuda`, NVML of a GPU; never touches a
//! run.
//!
//! RAPL counters (Linux, `/sys/class/powercap`, kernel documentation "powercap") belong to the whole processor: what other
//! programs draw is in them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Where Linux shows the counters.
const POWERCAP: &str = "/sys/class/powercap";
/// Microjoules of a joule.
const MICRO: f64 = 1e6;

#[cfg(feature = "cuda")]
use super::nvml::GpuMeter;

/// The counters that can be read here.
#[derive(Debug)]
pub struct EnergyMeter {
    domains: Vec<Domain>,
    gpu: Option<GpuMeter>,
}

/// Without the feature `cuda` there is no such counter.
#[cfg(not(feature = "cuda"))]
#[derive(Debug)]
enum GpuMeter {}

#[cfg(not(feature = "cuda"))]
impl GpuMeter {
    fn open(_index: usize) -> Result<Self, String> {
        Err("of this GPU no counters are read".into())
    }

    fn take(&mut self) -> f64 {
        match *self {}
    }
}

/// One counter of a processor or its memory.
#[derive(Debug)]
struct Domain {
    counter: PathBuf,
    /// The counter begins again at 0 after this value, microjoules.
    range: u64,
    last: u64,
}

/// What is measured, or why nothing can be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sources(pub String);

impl EnergyMeter {
    /// Opens the counters of this host's processors (`host`: one process of a host counts them) and of the GPU number
    /// `gpu`, and says what they are.
    ///
    /// # Errors
    /// Why nothing can be measured, in words.
    pub fn open(host: bool, gpu: Option<usize>) -> Result<(Self, Sources), String> {
        let mut told = Vec::new();
        let mut kept = |source: &str, found: Result<(), String>| {
            told.push(found.map_or_else(|why| why, |()| source.to_owned()));
        };
        let domains = domains(Path::new(POWERCAP));
        kept(
            "processors (RAPL; other programs on the host are in it)",
            domains.as_ref().map(|_| ()).map_err(Clone::clone),
        );
        let gpu = gpu.map(GpuMeter::open);
        if let Some(gpu) = &gpu {
            kept("GPU (NVML)", gpu.as_ref().map(|_| ()).map_err(Clone::clone));
        }
        let (domains, gpu) = (domains.unwrap_or_default(), gpu.and_then(Result::ok));
        let told = told.join("; ");
        if domains.is_empty() && gpu.is_none() {
            return Err(format!("not measurable here: {told}"));
        }
        let domains = if host { domains } else { Vec::new() };
        Ok((Self { domains, gpu }, Sources(told)))
    }

    /// Joules drawn since this was last asked. A counter that cannot be read any more counts nothing.
    pub fn take(&mut self) -> f64 {
        let of_host: f64 = self.domains.iter_mut().map(Domain::take).sum();
        of_host + self.gpu.as_mut().map_or(0.0, GpuMeter::take)
    }
}

impl Domain {
    fn take(&mut self) -> f64 {
        let Ok(now) = read_number(&self.counter) else { return 0.0 };
        let drawn = if now >= self.last { now - self.last } else { (self.range - self.last).saturating_add(now) };
        self.last = now;
        drawn as f64 / MICRO
    }
}

/// The packages of processors below `powercap` and the memory beside them; cores and graphics are parts of a package.
fn domains(powercap: &Path) -> Result<Vec<Domain>, String> {
    let folder = powercap.display();
    let entries = fs::read_dir(powercap).map_err(|_| {
        format!("the processors show no counters ({folder} is absent; virtual machines rarely have it)")
    })?;
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.sort();
    let mut found = Vec::new();
    for path in paths {
        let name = fs::read_to_string(path.join("name")).unwrap_or_default();
        if !(name.starts_with("package") || name.trim() == "dram") {
            continue;
        }
        let counter = path.join("energy_uj");
        let last = read_number(&counter).map_err(|error| {
            let at = counter.display();
            format!("{at} cannot be read ({error}); an administrator can allow it with `chmod a+r {at}`")
        })?;
        let range = read_number(&path.join("max_energy_range_uj")).unwrap_or(u64::MAX).max(last);
        found.push(Domain { counter, range, last });
    }
    if found.is_empty() {
        return Err(format!("the processors show no counters (nothing in {folder})"));
    }
    Ok(found)
}

fn read_number(path: &Path) -> io::Result<u64> {
    fs::read_to_string(path)?.trim().parse().map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    fn domain(folder: &Path, name: &str, kind: &str, value: u64) {
        let at = folder.join(name);
        fs::create_dir_all(&at).unwrap();
        fs::write(at.join("name"), format!("{kind}\n")).unwrap();
        fs::write(at.join("max_energy_range_uj"), "1000000000\n").unwrap();
        fs::write(at.join("energy_uj"), format!("{value}\n")).unwrap();
    }

    #[test]
    fn packages_and_memory_are_added_and_counters_begin_again() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path();
        domain(folder, "intel-rapl:0", "package-0", 5_000_000);
        domain(folder, "intel-rapl:0:0", "core", 1);
        domain(folder, "intel-rapl:0:1", "dram", 2_000_000);
        domain(folder, "intel-rapl:1", "package-1", 999_000_000);
        let mut found = domains(folder).unwrap();
        assert_eq!(found.len(), 3);
        domain(folder, "intel-rapl:0", "package-0", 7_000_000);
        domain(folder, "intel-rapl:0:1", "dram", 2_500_000);
        domain(folder, "intel-rapl:1", "package-1", 1_000_000);
        let mut take = || found.iter_mut().map(Domain::take).sum::<f64>();
        assert!((take() - 4.5).abs() < 1e-9);
        assert_eq!(take(), 0.0);
        fs::remove_dir_all(folder.join("intel-rapl:1")).unwrap();
        assert_eq!(take(), 0.0);
    }

    #[test]
    fn where_there_is_nothing_it_is_said() {
        let dir = tempfile::tempdir().unwrap();
        assert!(domains(dir.path()).unwrap_err().contains("show no counters"));
        assert!(domains(&dir.path().join("none")).unwrap_err().contains("is absent"));
        fs::create_dir_all(dir.path().join("intel-rapl:0")).unwrap();
        fs::write(dir.path().join("intel-rapl:0/name"), "package-0").unwrap();
        let told = domains(dir.path()).unwrap_err();
        assert!(told.contains("energy_uj cannot be read") && told.contains("chmod a+r"), "{told}");
    }
}
