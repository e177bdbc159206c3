//! Owns small file systems that tests fill; never touches what is written there.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A file system in memory, unmounted when dropped.
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Mounts one of `mebibytes` at a folder, which is created; `None`, loudly, where this is not allowed.
    pub fn mount(folder: &Path, mebibytes: u32) -> Option<SmallDisk> {
        std::fs::create_dir(folder).unwrap();
        let options = format!("size={mebibytes}m,mode=0700");
        let output = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(folder).output();
        if !output.is_ok_and(|output| output.status.success()) {
            eprintln!("SKIPPED: a file system cannot be mounted here, so no disk was filled");
            return None;
        }
        Some(SmallDisk(folder.to_owned()))
    }

    /// Gives it another size.
    pub fn resize(&self, mebibytes: u32) {
        let options = format!("remount,size={mebibytes}m");
        assert!(Command::new("mount").args(["-o", &options]).arg(&self.0).status().unwrap().success());
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        _ = Command::new("umount").arg(&self.0).status();
    }
}
