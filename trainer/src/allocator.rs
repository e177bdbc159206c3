//! Owns the settings of the memory allocator that the programs install; never allocates.

use libmimalloc_sys::{mi_option_get, mi_option_set, mi_option_t};

/// `mi_option_purge_delay`, which the bindings do not name.
const PURGE_DELAY: mi_option_t = 15;
/// Its default in mimalloc 3, milliseconds.
const DEFAULT_DELAY: std::ffi::c_long = 1000;
/// Freed memory is kept for the next allocation.
const NEVER: std::ffi::c_long = -1;

/// Keeps freed blocks instead of giving them back to the system: a training step frees and allocates the same large
/// blocks again and again, and each return costs page faults (docs/log.md has the figures). `MIMALLOC_PURGE_DELAY` in
/// the environment wins.
pub fn keep_freed_memory() {
    // SAFETY: reading an option has no precondition.
    let now = unsafe { mi_option_get(PURGE_DELAY) };
    // Another value was set by the user, or this number means another option in a later release.
    if now == DEFAULT_DELAY {
        // SAFETY: the number names an option of this release, whose default was just seen; options may be set at any
        // time.
        unsafe { mi_option_set(PURGE_DELAY, NEVER) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
