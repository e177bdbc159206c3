//! Owns what a certificate says of program and machine: version, digest of the binary, versions of every dependency,
//! processor; never touches a run.

use std::collections::BTreeMap;
use std::fs;

use serde::{Deserialize, Serialize};

use crate::device::host::{Processor, total_memory};

/// The versions that this program was built with, as cargo locked them.
const LOCK: &str = include_str!("../../../Cargo.lock");

/// The machine a run used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Processor.
    pub processor: String,
    /// Vector instructions: runs agree to the bit on machines that have the same.
    pub simd: String,
    /// Hardware threads that the process may use.
    pub hardware_threads: usize,
    /// Memory, bytes.
    pub memory_bytes: Option<u64>,
    /// Operating system and its version.
    pub system: String,
}

impl Machine {
    /// Describes this machine; nothing in it names the host.
    pub fn detect() -> Self {
        let processor = Processor::detect();
        let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Self {
            processor: processor.name,
            simd: processor.simd.into(),
            hardware_threads: processor.hardware_threads,
            memory_bytes: total_memory(),
            system: format!("{} {}", std::env::consts::OS, release.trim()).trim().to_owned(),
        }
    }
}

/// BLAKE3 of the running binary; `None` where the system does not show it.
pub fn binary_blake3() -> Option<String> {
    let mut hasher = blake3::Hasher::new();
    let file = fs::File::open("/proc/self/exe").ok()?;
    hasher.update_reader(std::io::BufReader::with_capacity(1 << 20, file)).ok()?;
    Some(hasher.finalize().to_hex().to_string())
}

/// Name and versions of every crate in the lock file: what the program may be built of, whatever its features.
pub fn crates() -> BTreeMap<String, Vec<String>> {
    let value = |line: &str, key: &str| {
        line.strip_prefix(key).and_then(|rest| rest.strip_prefix(" = \"")?.strip_suffix('"')).map(str::to_owned)
    };
    let mut crates: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut name = None;
    for line in LOCK.lines() {
        if let Some(found) = value(line, "name") {
            name = Some(found);
        } else if let Some((version, name)) = value(line, "version").zip(name.take()) {
            crates.entry(name).or_default().push(version);
        }
    }
    crates
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_come_from_the_lock_file() {
        let crates = crates();
        assert_eq!(crates.get("burn"), Some(&vec![crate::checkpoint::store::BURN_VERSION.to_owned()]));
        assert_eq!(crates.get("trainer"), Some(&vec![env!("CARGO_PKG_VERSION").to_owned()]));
        assert_eq!(crates.values().map(Vec::len).sum::<usize>(), LOCK.matches("[[package]]").count());
        assert!(binary_blake3().is_some_and(|digest| digest.len() == 64) || cfg!(not(target_os = "linux")));
    }
}
