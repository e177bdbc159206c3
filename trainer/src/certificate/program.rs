//! Owns what a certificate says of program and machine: version, digest of the binary, versions of every dependency,
//! processor; never touches a run.

use std::collections::BTreeMap;
use std::fs;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

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

/// A crate of the lock file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Package {
    /// Its name.
    pub name: &'static str,
    /// Its version.
    pub version: &'static str,
    /// SHA-256 of the archive that it was built from; `None` of our own crates.
    pub sha256: Option<&'static str>,
}

/// Every crate in the lock file, in its order: what the program may be built of, whatever its features.
pub fn packages() -> Vec<Package> {
    let block = |text: &'static str| {
        let value =
            |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(" = \"")?.strip_suffix('"'));
        Some(Package { name: value("name")?, version: value("version")?, sha256: value("checksum") })
    };
    LOCK.split("[[package]]").skip(1).filter_map(block).collect()
}

/// Name and versions of [`packages`].
pub fn crates() -> BTreeMap<String, Vec<String>> {
    let mut crates: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for Package { name, version, .. } in packages() {
        crates.entry(name.to_owned()).or_default().push(version.to_owned());
    }
    crates
}

/// The bill of materials of this program: CycloneDX 1.5, JSON.
pub fn bill_of_materials() -> Value {
    let component = |package: &Package| {
        let Package { name, version, sha256 } = package;
        let mut component = json!({
            "type": "library",
            "bom-ref": format!("{name}@{version}"),
            "name": name,
            "version": version,
        });
        if let (Some(sha256), Some(entries)) = (sha256, component.as_object_mut()) {
            entries.insert("purl".into(), format!("pkg:cargo/{name}@{version}").into());
            entries.insert("hashes".into(), json!([{ "alg": "SHA-256", "content": sha256 }]));
        }
        component
    };
    let version = env!("CARGO_PKG_VERSION");
    json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": { "component": { "type": "application", "bom-ref": "jazari", "name": "jazari", "version": version } },
        "components": packages().iter().map(component).collect::<Vec<_>>(),
    })
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
        let bill = bill_of_materials();
        let components = bill["components"].as_array().map(Vec::as_slice).unwrap_or_default();
        let burn = components.iter().find(|component| component["name"] == "burn");
        assert_eq!(components.len(), packages().len());
        assert!(burn.is_some_and(|burn| burn["purl"] == "pkg:cargo/burn@0.22.1" && burn["hashes"][0]["content"].is_string()));
        // Our own crates have no archive.
        assert!(components.iter().any(|component| component["name"] == "model-zoo" && component.get("purl").is_none()));
        assert!(binary_blake3().is_some_and(|digest| digest.len() == 64) || cfg!(not(target_os = "linux")));
    }
}
