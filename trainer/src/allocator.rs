//! Owns the settings of the memory allocator that the programs install, and of the pages it gets; never allocates.

use libmimalloc_sys::{mi_option_get, mi_option_set, mi_option_t};

/// `mi_option_purge_delay`, which the bindings do not name.
const PURGE_DELAY: mi_option_t = 15;
/// Its default in mimalloc 3, milliseconds.
const DEFAULT_DELAY: std::ffi::c_long = 1000;
/// Freed memory is kept for the next allocation.
const NEVER: std::ffi::c_long = -1;

/// Fits the allocator to training, whose steps free and allocate the same large blocks again and again; what the user sets
/// in the environment wins. Called first in `main`.
pub fn fit_training() {
    keep_freed_memory();
    // The variable is mimalloc's; its own way to the same setting is open only before `main`.
    if std::env::var_os("MIMALLOC_ALLOW_THP").is_none() {
        use_small_pages();
    }
}

/// Keeps freed blocks instead of giving them back to the system: each return costs page faults (docs/log.md has the
/// figures).
fn keep_freed_memory() {
    // SAFETY: reading an option has no precondition.
    let now = unsafe { mi_option_get(PURGE_DELAY) };
    // Another value was set by the user, or this number means another option in a later release.
    if now == DEFAULT_DELAY {
        // SAFETY: the number names an option of this release, whose default was just seen; options may be set at any
        // time.
        unsafe { mi_option_set(PURGE_DELAY, NEVER) };
    }
}

/// Declines huge pages, which mimalloc asks for: rounding every block up to 2 MiB costs a tenth of the memory of a small
/// model, and no step gets faster by them (docs/log.md has the figures).
#[cfg(target_os = "linux")]
fn use_small_pages() {
    // A system that refuses keeps what it had: more memory, the same results.
    // SAFETY: this option takes four numbers, concerns this process alone and touches no memory.
    let _ = unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0) };
}

#[cfg(not(target_os = "linux"))]
fn use_small_pages() {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn huge_pages_are_declined() {
        use_small_pages();
        // SAFETY: this option takes no pointer and only reads.
        assert_eq!(unsafe { libc::prctl(libc::PR_GET_THP_DISABLE, 0, 0, 0, 0) }, 1);
    }

    #[test]
    fn the_number_names_the_option() {
        // SAFETY: reading an option has no precondition.
        let before = unsafe { mi_option_get(PURGE_DELAY) };
        assert!(before == DEFAULT_DELAY || std::env::var_os("MIMALLOC_PURGE_DELAY").is_some(), "{before}");
        keep_freed_memory();
        // SAFETY: as above.
        let after = unsafe { mi_option_get(PURGE_DELAY) };
        assert_eq!(after, if before == DEFAULT_DELAY { NEVER } else { before });
    }
}
