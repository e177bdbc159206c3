//! Owns what is fuzzed and with what it begins; never ships.
pub mod seeds;
pub mod targets;

/// Runs a target on one input, in a folder that is kept for the process.
pub fn run_named(name: &str, bytes: &[u8]) {
    use std::sync::OnceLock;
    static FOLDER: OnceLock<std::path::PathBuf> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let folder = std::env::temp_dir().join(format!("jazari-fuzz-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        folder
    });
    let (_, target) = targets::TARGETS.iter().find(|(known, _)| *known == name).unwrap();
    target(folder, bytes);
}
