//! Writes the seeds of every target to `corpus/TARGET/` beside this crate.

fn main() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    for (name, _) in jazari_fuzz::targets::TARGETS {
        let folder = root.join("corpus").join(name);
        std::fs::create_dir_all(&folder).unwrap();
        for (i, seed) in jazari_fuzz::seeds::seeds(name, &root.join("../samples")).iter().enumerate() {
            std::fs::write(folder.join(format!("seed-{i}")), seed).unwrap();
        }
    }
}
