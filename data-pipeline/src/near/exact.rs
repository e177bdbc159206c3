//! Owns the keys of documents seen so far when they may not fit in memory: a set in memory and sorted tables on disk;
//! never reads texts.

use std::collections::HashSet;
use std::hash::BuildHasherDefault;
use std::path::{Path, PathBuf};

use super::DedupError;
use super::hash::mix;
use super::table::{Table, TableWriter};
use crate::dedup::AlreadyHashed;

/// Memory that a key costs before it goes to disk: its place in a set that grows by doubling, and its copy while sorting.
const BYTES_PER_KEY: usize = 72;
/// Tables of one level that are merged into one of the next.
const TABLES_PER_LEVEL: usize = 4;
/// Bits of the filter for each key on disk; with six of them set, under one lookup in a hundred goes to disk in vain.
const FILTER_BITS: u64 = 12;

/// The keys seen so far, a set for each language, in bounded memory: beyond it keys go to sorted tables on disk, which
/// cost 1.6 bytes of memory each. The answers are the same.
pub struct SpillingKeys {
    folder: PathBuf,
    cap: usize,
    memory: HashSet<u128, BuildHasherDefault<AlreadyHashed>>,
    tables: Vec<KeyTable>,
}

struct KeyTable {
    level: u32,
    filter: Filter,
    table: Table<(u128,)>,
}

impl SpillingKeys {
    /// Holds about `memory_mib` MiB of keys; tables go to `folder`, which must exist.
    pub fn new(memory_mib: usize, folder: &Path) -> SpillingKeys {
        let cap = (memory_mib.saturating_mul(1 << 20) / BYTES_PER_KEY).max(1024);
        SpillingKeys::with_cap(cap, folder)
    }

    fn with_cap(cap: usize, folder: &Path) -> SpillingKeys {
        SpillingKeys { folder: folder.to_owned(), cap, memory: HashSet::default(), tables: Vec::new() }
    }

    /// Records a key of the language numbered `language`; false when the language had it before. Use one number for all
    /// languages to find duplicates across them.
    ///
    /// # Errors
    /// A scratch file that refuses.
    pub fn insert(&mut self, language: usize, key: u128) -> Result<bool, DedupError> {
        let salt = mix(language as u64);
        let key = key ^ (u128::from(salt) << 64 | u128::from(mix(salt)));
        if self.memory.contains(&key) {
            return Ok(false);
        }
        for table in &self.tables {
            if table.filter.may_hold(key) && table.table.contains(&(key,))? {
                return Ok(false);
            }
        }
        if self.memory.len() >= self.cap {
            self.spill()?;
        }
        self.memory.insert(key);
        Ok(true)
    }

    fn spill(&mut self) -> Result<(), DedupError> {
        let mut keys: Vec<u128> = self.memory.drain().collect();
        keys.sort_unstable();
        let mut writer = KeyTableWriter::create(&self.folder, keys.len() as u64)?;
        for key in keys {
            writer.push(key)?;
        }
        self.tables.push(writer.finish(0)?);
        while let Some(level) = self.full_level() {
            let (merged, rest) = std::mem::take(&mut self.tables).into_iter().partition(|table| table.level == level);
            self.tables = rest;
            self.tables.push(self.merge(merged, level + 1)?);
        }
        Ok(())
    }

    fn full_level(&self) -> Option<u32> {
        let last = self.tables.last()?.level;
        (self.tables.iter().filter(|table| table.level == last).count() >= TABLES_PER_LEVEL).then_some(last)
    }

    fn merge(&self, tables: Vec<KeyTable>, level: u32) -> Result<KeyTable, DedupError> {
        let mut writer = KeyTableWriter::create(&self.folder, tables.iter().map(|table| table.table.len()).sum())?;
        let mut cursors: Vec<Cursor<'_>> = tables.iter().map(|table| Cursor::new(&table.table)).collect();
        loop {
            let mut least: Option<(u128, usize)> = None;
            for (number, cursor) in cursors.iter_mut().enumerate() {
                if let Some(key) = cursor.peek()?
                    && least.is_none_or(|(other, _)| key < other)
                {
                    least = Some((key, number));
                }
            }
            let Some((key, number)) = least else { break };
            writer.push(key)?;
            if let Some(cursor) = cursors.get_mut(number) {
                cursor.at += 1;
            }
        }
        writer.finish(level)
    }
}

struct KeyTableWriter {
    filter: Filter,
    table: TableWriter<(u128,)>,
}

impl KeyTableWriter {
    fn create(folder: &Path, keys: u64) -> Result<KeyTableWriter, DedupError> {
        Ok(KeyTableWriter { filter: Filter::new(keys), table: TableWriter::create(folder)? })
    }

    fn push(&mut self, key: u128) -> Result<(), DedupError> {
        self.filter.add(key);
        self.table.push((key,))
    }

    fn finish(self, level: u32) -> Result<KeyTable, DedupError> {
        Ok(KeyTable { level, filter: self.filter, table: self.table.finish()? })
    }
}

/// A place in a table that is read from its start.
struct Cursor<'a> {
    table: &'a Table<(u128,)>,
    block: usize,
    records: Vec<(u128,)>,
    at: usize,
}

impl Cursor<'_> {
    fn new(table: &Table<(u128,)>) -> Cursor<'_> {
        Cursor { table, block: 0, records: Vec::new(), at: 0 }
    }

    fn peek(&mut self) -> Result<Option<u128>, DedupError> {
        if self.at >= self.records.len() && self.block < self.table.num_blocks() {
            self.records = self.table.block(self.block)?;
            self.block += 1;
            self.at = 0;
        }
        Ok(self.records.get(self.at).map(|(key,)| *key))
    }
}

/// A Bloom filter whose bits for a key lie in one cache line (Putze, Sanders and Singler 2007). Keys are digests already.
struct Filter {
    lines: Vec<[u64; 8]>,
}

impl Filter {
    fn new(keys: u64) -> Filter {
        let lines = usize::try_from((keys * FILTER_BITS).div_ceil(512)).unwrap_or(1).max(1);
        Filter { lines: vec![[0; 8]; lines] }
    }

    /// The line of a key, and which bits of each word.
    fn place(&self, key: u128) -> (usize, [u64; 8]) {
        let line = ((u128::from(key as u64) * self.lines.len() as u128) >> 64) as usize;
        let mut mask = [0; 8];
        let mut bits = mix((key >> 64) as u64);
        for _ in 0..6 {
            if let Some(word) = mask.get_mut((bits & 7) as usize) {
                *word |= 1 << (bits >> 3 & 63);
            }
            bits >>= 9;
        }
        (line, mask)
    }

    fn add(&mut self, key: u128) {
        let (line, mask) = self.place(key);
        for (word, bits) in self.lines.get_mut(line).into_iter().flatten().zip(mask) {
            *word |= bits;
        }
    }

    fn may_hold(&self, key: u128) -> bool {
        let (line, mask) = self.place(key);
        self.lines.get(line).is_none_or(|words| words.iter().zip(mask).all(|(word, bits)| word & bits == bits))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use std::collections::HashSet;

    fn key(i: u64) -> u128 {
        u128::from(mix(i + 1)) << 64 | u128::from(mix(i + 77_777))
    }

    #[test]
    fn the_answers_are_those_of_a_set_in_memory() {
        let dir = tempfile::tempdir().unwrap();
        let mut spilling = SpillingKeys::with_cap(500, dir.path());
        let mut seen = HashSet::new();
        let mut repeats = 0;
        for i in 0..30_000_u64 {
            // About a third were there before, from long ago and from just before, in two languages.
            let value = if i % 3 == 0 { mix(i) % (i + 1) } else { i };
            let language = (mix(value) % 2) as usize;
            let expected = seen.insert((language, key(value)));
            assert_eq!(spilling.insert(language, key(value)).unwrap(), expected, "{i}");
            repeats += u64::from(!expected);
        }
        assert!(repeats > 5_000, "{repeats}");
        assert!(spilling.memory.len() <= 500);
        assert!(spilling.tables.len() < 4 * TABLES_PER_LEVEL, "{}", spilling.tables.len());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn few_keys_that_are_absent_pass_the_filter() {
        let mut filter = Filter::new(100_000);
        (0..100_000).for_each(|i| filter.add(key(i)));
        assert!((0..100_000).all(|i| filter.may_hold(key(i))));
        let passed = (100_000..200_000).filter(|&i| filter.may_hold(key(i))).count();
        assert!(passed < 1_500, "{passed}");
    }

    #[test]
    fn a_key_of_another_language_is_new() {
        let dir = tempfile::tempdir().unwrap();
        let mut keys = SpillingKeys::new(1, dir.path());
        assert!(keys.insert(0, 5).unwrap() && keys.insert(1, 5).unwrap());
        assert!(!keys.insert(0, 5).unwrap() && !keys.insert(1, 5).unwrap());
    }
}
