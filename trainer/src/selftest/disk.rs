//! Owns the checks of the disk under the work folder: bandwidth, what comes back, the time of a commit; never touches
//! other folders.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::table::{Finding, Outcome};
use crate::durable::{self, FileError};
use crate::signals::StopFlag;

/// Size of the file that is written and read, bytes.
const FILE_BYTES: u64 = 256_000_000;
/// Bytes of one write and one read.
const CHUNK_BYTES: usize = 4_000_000;
/// Space that must stay free beside it.
const SPARE_BYTES: u64 = 64_000_000;
/// A slow disk is judged by what it wrote in this time.
const WRITE_LIMIT: Duration = Duration::from_secs(15);
/// Size of the small file, bytes: that of a checkpoint's manifest.
const SMALL_BYTES: usize = 4096;
/// Commits that are timed.
const COMMITS: usize = 20;
/// A disk that takes longer for them is judged by fewer.
const COMMIT_LIMIT: Duration = Duration::from_secs(5);
/// `f_type` of memory that looks like a disk (linux/magic.h).
#[cfg(target_os = "linux")]
const TMPFS_MAGIC: u64 = 0x0102_1994;

/// A file that is removed when this is dropped.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        // It lies in the work folder, which goes as well.
        let _ = fs::remove_file(&self.0);
    }
}

/// Writes a large file, syncs it, reads it back and compares.
pub(super) fn bandwidth(folder: &Path, stop: &StopFlag) -> Outcome {
    if let Some(free) = durable::free_bytes(folder).filter(|free| *free < FILE_BYTES + SPARE_BYTES) {
        let (needed, free) = ((FILE_BYTES + SPARE_BYTES) / 1_000_000, free / 1_000_000);
        return Err(format!(
            "{}: {free} MB are free, {needed} MB are needed; free some space, or name a folder on another disk with \
             --keep",
            folder.display()
        ));
    }
    let file = Scratch(folder.join("bandwidth.bin"));
    let (bytes, written) = write(&file.0, stop).map_err(|error| error.to_string())?;
    let before = bytes_from_devices();
    let read = read_back(&file.0, bytes)?;
    let origin = match before.zip(bytes_from_devices()) {
        Some((before, after)) if after.saturating_sub(before) >= bytes / 2 => "read back from the disk",
        // Some network file systems do not count what they fetch.
        Some(_) => "read back from the cache (the system counted no read from a disk)",
        None => "read back, perhaps from the cache",
    };
    let kind = if is_memory(folder) { "; this folder is in memory: --keep DIR measures a disk" } else { "" };
    let speed = |time: Duration| bytes as f64 / time.as_secs_f64().max(1e-9) / 1e6;
    let result = format!("{} MB written, synced, {origin}, equal{kind}", bytes / 1_000_000);
    Ok(Finding::ok(result).with("write", speed(written), "MB/s").with("read", speed(read), "MB/s"))
}

/// Bytes that no compressing disk makes smaller, a function of their place.
fn fill(chunk: &mut [u8], number: u64) {
    let mut state = (number + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    for word in chunk.as_chunks_mut().0 {
        // xorshift64
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        *word = state.to_le_bytes();
    }
}

/// Returns the bytes written and the time until they were safe.
fn write(path: &Path, stop: &StopFlag) -> Result<(u64, Duration), FileError> {
    let create = OpenOptions::new().write(true).create_new(true).open(path);
    let mut file = create.map_err(FileError::at(path, "create the file"))?;
    let mut chunk = vec![0; CHUNK_BYTES];
    let (mut bytes, mut time) = (0, Duration::ZERO);
    while bytes < FILE_BYTES && time < WRITE_LIMIT && !stop.is_set() {
        fill(&mut chunk, bytes);
        let start = Instant::now();
        file.write_all(&chunk).map_err(FileError::at(path, "write"))?;
        time += start.elapsed();
        bytes += chunk.len() as u64;
    }
    let start = Instant::now();
    file.sync_all().map_err(FileError::at(path, "sync"))?;
    forget(&file);
    Ok((bytes, time + start.elapsed()))
}

/// Asks the system to drop its copy of the file, so that reading has to go to the disk. It may decline.
#[cfg(target_os = "linux")]
fn forget(file: &File) {
    let _ = rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed);
}

#[cfg(not(target_os = "linux"))]
fn forget(_: &File) {}

/// Returns the time of reading, without that of comparing.
fn read_back(path: &Path, bytes: u64) -> Result<Duration, String> {
    let failed = |error: FileError| error.to_string();
    let mut file = File::open(path).map_err(FileError::at(path, "open")).map_err(failed)?;
    let (mut chunk, mut expected) = (vec![0; CHUNK_BYTES], vec![0; CHUNK_BYTES]);
    let (mut at, mut time) = (0, Duration::ZERO);
    while at < bytes {
        let start = Instant::now();
        file.read_exact(&mut chunk).map_err(FileError::at(path, "read")).map_err(failed)?;
        time += start.elapsed();
        fill(&mut expected, at);
        if chunk != expected {
            return Err(format!(
                "{}: other bytes came back than were written, within {CHUNK_BYTES} bytes from {at}; do not store \
                 checkpoints on this disk before it is checked",
                path.display()
            ));
        }
        at += CHUNK_BYTES as u64;
    }
    Ok(time)
}

/// Bytes that this process has made the system fetch from storage so far; `None` where it does not say.
fn bytes_from_devices() -> Option<u64> {
    let text = fs::read_to_string("/proc/self/io").ok()?;
    text.lines().find_map(|line| line.strip_prefix("read_bytes:")?.trim().parse().ok())
}

#[cfg(target_os = "linux")]
fn is_memory(folder: &Path) -> bool {
    rustix::fs::statfs(folder).is_ok_and(|stat| stat.f_type as u64 == TMPFS_MAGIC)
}

#[cfg(not(target_os = "linux"))]
fn is_memory(_: &Path) -> bool {
    false
}

/// How long a small file takes to be safe: write, sync, rename, sync the folder. A checkpoint pays it several times.
pub(super) fn commit_latency(folder: &Path) -> Outcome {
    let file = Scratch(folder.join("commit.bin"));
    let mut bytes = vec![0; SMALL_BYTES];
    let (begin, mut times) = (Instant::now(), Vec::new());
    while times.len() < COMMITS && begin.elapsed() < COMMIT_LIMIT {
        fill(&mut bytes, times.len() as u64);
        let start = Instant::now();
        durable::write_atomic(&file.0, &bytes).map_err(|error| error.to_string())?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    if fs::read(&file.0).ok().as_deref() != Some(bytes.as_slice()) {
        return Err(format!("{}: the newest content did not come back after a rename", file.0.display()));
    }
    times.sort_by(f64::total_cmp);
    let median = times.get(times.len() / 2).copied().unwrap_or(f64::NAN);
    let worst = times.last().copied().unwrap_or(f64::NAN);
    let result = format!("{} files of {SMALL_BYTES} bytes written, synced, renamed, folder synced", times.len());
    Ok(Finding::ok(result).with("median", median, "ms").with("worst", worst, "ms"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_was_written_comes_back_and_a_flipped_bit_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let mut content = vec![0; 2 * CHUNK_BYTES];
        for (number, chunk) in content.chunks_mut(CHUNK_BYTES).enumerate() {
            fill(chunk, (number * CHUNK_BYTES) as u64);
        }
        let bytes = content.len() as u64;
        fs::write(&path, &content).unwrap();
        read_back(&path, bytes).unwrap();
        content[CHUNK_BYTES + 17] ^= 1;
        fs::write(&path, &content).unwrap();
        let error = read_back(&path, bytes).unwrap_err();
        assert!(error.contains("within 4000000 bytes from 4000000"), "{error}");
        assert!(read_back(&path, 3 * bytes / 2).is_err());
    }

    #[test]
    fn chunks_differ_and_are_full_of_noise() {
        let (mut a, mut b) = (vec![0; 4096], vec![0; 4096]);
        fill(&mut a, 0);
        fill(&mut b, 1);
        assert_ne!(a, b);
        assert!(a.iter().filter(|byte| **byte == 0).count() < 64);
    }

    #[test]
    fn commits_are_timed_and_nothing_stays() {
        let dir = tempfile::tempdir().unwrap();
        commit_latency(dir.path()).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
