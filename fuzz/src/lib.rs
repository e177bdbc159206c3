//! Owns what is fuzzed and with what it begins; never ships.
pub mod seeds;
pub mod targets;

/// Names the folder that a target writes its first inputs into, beside running.
const SEEDS: &str = "JAZARI_FUZZ_SEEDS";

/// Runs a target on one input, in a folder that is kept for the process.
pub fn run_named(name: &str, bytes: &[u8]) {
    use std::sync::OnceLock;
    static FOLDER: OnceLock<std::path::PathBuf> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let folder = std::env::temp_dir().join(format!("jazari-fuzz-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        // libFuzzer's hook ends the process at every panic, those of libraries that the code fences off included.
        std::panic::set_hook(Box::new(|_| {}));
        if let Some(corpus) = std::env::var_os(SEEDS) {
            write_seeds(name, std::path::Path::new(&corpus));
        }
        folder
    });
    let (_, target) = targets::TARGETS.iter().find(|(known, _)| *known == name).unwrap();
    if let Err(panic) = std::panic::catch_unwind(|| target(folder, bytes)) {
        let said = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
        eprintln!("{name}: {}", said.unwrap_or("a panic"));
        std::panic::resume_unwind(panic);
    }
}

fn write_seeds(name: &str, corpus: &std::path::Path) {
    let samples = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../samples");
    std::fs::create_dir_all(corpus).unwrap();
    for (i, seed) in seeds::seeds(name, &samples).iter().enumerate() {
        std::fs::write(corpus.join(format!("seed-{i}")), seed).unwrap();
    }
}
