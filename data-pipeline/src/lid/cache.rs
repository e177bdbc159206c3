//! Owns the scores of words that were just seen: a small table for each thread; never computes a score.
//!
//! Running text repeats its words: most come from here instead of forty probes into the weights. The table only
//! remembers what the model would say again, so results do not depend on it. A word has two places; the one that was
//! not asked for lately makes room, so that a rare word does not push out one of every sentence.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};

use super::model::WordScore;

const SET_BITS: u32 = 13;

#[derive(Debug, Clone, Copy, Default)]
struct Entry {
    /// Hash of the letters, never 0 for a filled entry.
    key: u64,
    score: WordScore,
    groups: u32,
}

#[derive(Debug, Default)]
struct Cache {
    owner: u64,
    sets: Vec<[Entry; 2]>,
}

thread_local! {
    static CACHE: RefCell<Cache> = RefCell::new(Cache::default());
}

/// A number that no other judge of this process has.
pub fn new_owner() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Words that a judge looks up, for the length of one text.
pub fn with_words<T>(owner: u64, work: impl FnOnce(&mut Words<'_>) -> T) -> T {
    CACHE.with(|cache| match cache.try_borrow_mut() {
        Ok(mut cache) => {
            if cache.owner != owner || cache.sets.is_empty() {
                cache.owner = owner;
                cache.sets.clear();
                cache.sets.resize(1 << SET_BITS, Default::default());
            }
            work(&mut Words { sets: &mut cache.sets })
        }
        // Only a judge called from inside a judge would come here.
        Err(_) => work(&mut Words { sets: &mut [] }),
    })
}

/// The table of a thread.
pub struct Words<'a> {
    sets: &'a mut [[Entry; 2]],
}

impl Words<'_> {
    /// Score and marker groups of a word, computed when it was not seen lately.
    #[inline]
    pub fn get(&mut self, letters: &[u32], compute: impl FnOnce() -> (WordScore, u32)) -> (WordScore, u32) {
        let key = hash(letters);
        let Some([first, second]) = self.sets.get_mut((key >> (64 - SET_BITS)) as usize) else { return compute() };
        if first.key != key {
            std::mem::swap(first, second);
        }
        if first.key != key {
            let (score, groups) = compute();
            *first = Entry { key, score, groups };
        }
        (first.score, first.groups)
    }
}

/// A 64-bit hash of the letters: multiply and fold, as in wyhash.
#[inline]
fn hash(letters: &[u32]) -> u64 {
    let mut hash = 0x9E37_79B9_7F4A_7C15u64 ^ letters.len() as u64;
    for letter in letters {
        hash = (hash.rotate_left(23) ^ u64::from(*letter)).wrapping_mul(0xA24B_AED4_963E_E407);
    }
    (hash ^ (hash >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9) | 1
}
