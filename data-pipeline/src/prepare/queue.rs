//! Owns how several processes that share a folder divide tasks among them: leases with a heartbeat, and taking over from
//! a process that died; never knows what a task does.
//!
//! A lease is a file `NAME.gN.lease`. Whoever creates generation N first owns the task; it rewrites the file again and
//! again. Another process that has seen a lease unchanged for the lease time by its own clock creates generation N + 1.
//! Clocks of machines are never compared, and a file is created only if it is not there (`O_EXCL`), which network file
//! systems do atomically.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Heartbeats in a lease time.
const BEATS: u32 = 5;
/// Content of a lease whose owner gave up.
const RELEASED: &str = "released";

/// The leases of one process in one folder.
pub(super) struct Queue {
    dir: PathBuf,
    lease_time: Duration,
    /// Names this process in the leases.
    owner: String,
    /// What was last seen of others' leases, and since when it has not changed.
    seen: Mutex<HashMap<PathBuf, (String, Instant)>>,
}

/// What became of the wish to have a task.
pub(super) enum Claim {
    /// It is ours.
    Ours(Lease),
    /// Another process works on it.
    Taken,
}

impl Queue {
    pub fn open(dir: &Path, lease_time: Duration) -> io::Result<Queue> {
        fs::create_dir_all(dir)?;
        // Unique on every machine without asking for its name.
        static STARTED: AtomicU64 = AtomicU64::new(0);
        let nonce = Instant::now();
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let state = std::hash::RandomState::new();
        let random = std::hash::BuildHasher::hash_one(&state, (nonce, number));
        let owner = format!("process {} {random:016x}", std::process::id());
        Ok(Queue { dir: dir.to_owned(), lease_time, owner, seen: Mutex::default() })
    }

    /// Asks for the task `name`.
    pub fn claim(&self, name: &str) -> io::Result<Claim> {
        let generation = match self.newest(name)? {
            None => 0,
            Some(generation) => {
                let path = self.lease(name, generation);
                if !self.is_dead(&path)? {
                    return Ok(Claim::Taken);
                }
                generation + 1
            }
        };
        let path = self.lease(name, generation);
        match File::options().write(true).create_new(true).open(&path) {
            Ok(file) => {
                let next = self.lease(name, generation + 1);
                Ok(Claim::Ours(Lease::start(file, path, next, generation, self.owner.clone(), self.lease_time)))
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(Claim::Taken),
            Err(error) => Err(error),
        }
    }

    /// A work folder for generation `lease` of `name`, which holds what its predecessors had done.
    pub fn inherit(&self, name: &str, lease: &Lease) -> io::Result<PathBuf> {
        let own = self.dir.join(format!("{name}.g{}", lease.generation));
        for generation in (0..lease.generation).rev() {
            match fs::rename(self.dir.join(format!("{name}.g{generation}")), &own) {
                Ok(()) => break,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        fs::create_dir_all(&own)?;
        Ok(own)
    }

    fn lease(&self, name: &str, generation: u64) -> PathBuf {
        self.dir.join(format!("{name}.g{generation}.lease"))
    }

    fn newest(&self, name: &str) -> io::Result<Option<u64>> {
        let mut generation = None;
        // Generations have no gaps.
        while self.lease(name, generation.map_or(0, |newest: u64| newest + 1)).try_exists()? {
            generation = Some(generation.map_or(0, |newest| newest + 1));
        }
        Ok(generation)
    }

    /// Whether a lease was given up, or has not changed for the lease time while this process looked on.
    fn is_dead(&self, path: &Path) -> io::Result<bool> {
        let content = fs::read_to_string(path)?;
        if content.starts_with(RELEASED) {
            return Ok(true);
        }
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        match seen.get(path) {
            Some((before, since)) if *before == content => Ok(since.elapsed() > self.lease_time),
            _ => {
                seen.insert(path.to_owned(), (content, Instant::now()));
                Ok(false)
            }
        }
    }
}

/// A task that is ours while the heartbeat goes on.
pub(super) struct Lease {
    path: PathBuf,
    next: PathBuf,
    generation: u64,
    beating: Arc<(Mutex<bool>, Condvar)>,
    heart: Option<JoinHandle<()>>,
}

impl Lease {
    fn start(file: File, path: PathBuf, next: PathBuf, generation: u64, owner: String, lease_time: Duration) -> Lease {
        let beating = Arc::new((Mutex::new(true), Condvar::new()));
        let (shared, beat_path) = (Arc::clone(&beating), path.clone());
        let heart = std::thread::spawn(move || {
            let (on, changed) = &*shared;
            let mut beats = 0_u64;
            drop(file);
            let mut going = on.lock().unwrap_or_else(PoisonError::into_inner);
            while *going {
                // A beat that cannot be written costs the lease at worst, and then another process does the task.
                _ = write_lease(&beat_path, &format!("{owner} beat {beats}"));
                beats += 1;
                let waited = changed.wait_timeout(going, lease_time / BEATS);
                going = waited.map_or_else(|poisoned| poisoned.into_inner().0, |(going, _)| going);
            }
        });
        Lease { path, next, generation, beating, heart: Some(heart) }
    }

    /// Whether another process has taken the task over.
    pub fn is_lost(&self) -> bool {
        self.next.exists() || !self.path.exists()
    }

    fn stop(&mut self) {
        let (on, changed) = &*self.beating;
        *on.lock().unwrap_or_else(PoisonError::into_inner) = false;
        changed.notify_all();
        if let Some(heart) = self.heart.take() {
            _ = heart.join();
        }
    }

    /// Stops the heartbeat for good; the task is done.
    pub fn done(mut self) {
        self.stop();
    }
}

impl Drop for Lease {
    /// Gives the task up at once, so that nobody has to wait for the lease time.
    fn drop(&mut self) {
        if self.heart.is_some() {
            self.stop();
            _ = write_lease(&self.path, RELEASED);
        }
    }
}

/// Writes over a lease that exists; one that was removed is not made again.
fn write_lease(path: &Path, content: &str) -> io::Result<()> {
    let mut file = File::options().write(true).truncate(true).open(path)?;
    file.write_all(content.as_bytes())?;
    file.sync_data()
}

/// Waits a little; false when `stop` was raised.
pub(super) fn pause(time: Duration, stop: &AtomicBool) -> bool {
    std::thread::sleep(time);
    !stop.load(Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    fn claimed(queue: &Queue, name: &str) -> Option<Lease> {
        match queue.claim(name).unwrap() {
            Claim::Ours(lease) => Some(lease),
            Claim::Taken => None,
        }
    }

    #[test]
    fn a_task_has_one_owner_until_it_is_given_up() {
        let dir = tempfile::tempdir().unwrap();
        let long = Duration::from_secs(3600);
        let (a, b) = (Queue::open(dir.path(), long).unwrap(), Queue::open(dir.path(), long).unwrap());
        let lease = claimed(&a, "t").unwrap();
        assert!(claimed(&b, "t").is_none() && claimed(&a, "t").is_none());
        assert!(claimed(&b, "other").is_some());
        let folder = a.inherit("t", &lease).unwrap();
        fs::write(folder.join("work"), "half").unwrap();
        drop(lease);
        let lease = claimed(&b, "t").unwrap();
        assert_eq!(fs::read_to_string(b.inherit("t", &lease).unwrap().join("work")).unwrap(), "half");
        assert!(!folder.exists() && !lease.is_lost());
    }

    #[test]
    fn a_lease_that_never_changes_is_taken_over() {
        let dir = tempfile::tempdir().unwrap();
        let short = Duration::from_millis(20);
        fs::write(dir.path().join("t.g0.lease"), "a process that was killed").unwrap();
        let queue = Queue::open(dir.path(), short).unwrap();
        assert!(claimed(&queue, "t").is_none(), "the first look can prove nothing");
        std::thread::sleep(short * 2);
        let lease = claimed(&queue, "t").unwrap();
        assert_eq!(lease.generation, 1);
        fs::write(dir.path().join("t.g2.lease"), "").unwrap();
        assert!(lease.is_lost());
    }
}
