//! Promise: a full disk loses nothing: the run goes on, or stops and says why; committed checkpoints stay valid.

use std::path::Path;
use std::process::Command;

use crate::support::{final_digest, jazari, text, tiny_arguments, train_tiny};

/// A small file system of its own; unmounted when dropped.
struct Mounted<'a>(&'a Path);

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0).status();
    }
}

fn mount(folder: &Path, bytes: &str) -> bool {
    let options = format!("{bytes},mode=0700");
    let output = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(folder).output();
    output.is_ok_and(|o| o.status.success())
}

#[test]
fn a_full_disk_stops_the_run_and_space_lets_it_go_on_to_the_same_bits() {
    let dir = tempfile::tempdir().unwrap();
    let whole = dir.path().join("whole");
    let settings = ["save_steps=2", "logging_steps=1", "save_total_limit=8"];
    train_tiny(&whole, &settings);

    let disk = dir.path().join("disk");
    std::fs::create_dir(&disk).unwrap();
    if !mount(&disk, "size=8m") {
        eprintln!("SKIPPED: a file system cannot be mounted here, so no disk was filled");
        return;
    }
    let _mounted = Mounted(&disk);
    let run = disk.join("run");
    let arguments = tiny_arguments(&run, &settings);
    let output = jazari(&arguments.iter().map(String::as_str).collect::<Vec<_>>()).output().unwrap();
    let said = text(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("free some space") && said.contains("older checkpoints are intact"), "{said}");
    assert!(!said.contains("panicked"), "{said}");

    assert!(Command::new("mount").args(["-o", "remount,size=64m"]).arg(&disk).status().unwrap().success());
    let resumed = train_tiny(&run, &settings);
    assert!(text(&resumed).contains("resumed at step"), "{}", text(&resumed));
    assert_eq!(final_digest(&whole), final_digest(&run));
}
