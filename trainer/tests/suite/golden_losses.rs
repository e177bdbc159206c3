//! Promise: the losses of `configs/ci-tiny.yaml` do not change by a bit unless somebody means it.
//!
//! `JAZARI_BLESS=1 cargo nextest run -p trainer --test golden_losses` writes the file anew; say why in the commit.

use crate::support;
use std::fmt::Write;
use std::fs;
use std::path::Path;

#[test]
fn ci_tiny_losses_are_the_golden_ones() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    support::train_tiny(&run, &["logging_steps=1"]);
    let mut found = String::new();
    for (step, bits) in support::losses(&run) {
        writeln!(found, "{step} {bits:016x} {}", f64::from_bits(bits)).unwrap();
    }
    writeln!(found, "digest {}", support::final_digest(&run)).unwrap();

    // Kernels differ between instruction sets, and so may the last bits; each has its own golden file.
    let kernels = trainer::device::Processor::detect().simd.to_lowercase().replace([' ', ',', '+'], "_");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/ci_tiny_losses.{kernels}.txt"));
    if std::env::var_os("JAZARI_BLESS").is_some() {
        fs::write(&path, &found).unwrap();
        return;
    }
    let golden = fs::read_to_string(&path).unwrap_or_default();
    if golden.is_empty() {
        eprintln!("SKIPPED: no golden losses for {kernels} kernels; bless them on this machine");
        return;
    }
    assert_eq!(golden, found, "the numbers of training changed");
}
