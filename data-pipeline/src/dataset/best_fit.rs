//! Owns which parts of texts share a row: documents whole where they fit, by best fit in blocks; never touches tokens.
//!
//! A document of n tokens has n - 1 inputs with something to learn behind them. One with more inputs than a row has
//! places is cut into full rows and a rest (Ding et al. 2024, Fewer truncations improve language modeling). Documents are
//! packed in blocks of consecutive ones, which the seed of the data set has shuffled: blocks are independent, so they are
//! packed in parallel and in bounded memory, and what half-filled rows they leave behind is far below a hundredth of a
//! percent.
//!
//! The table depends on the lengths of the documents and the row length alone, so every process makes the same one.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use memmap2::Mmap;
use rayon::prelude::*;

use super::error::DataError;

/// A block is closed by the document that brings it to this many parts.
const BLOCK_PARTS: usize = 1 << 16;
/// Blocks packed at a time.
const BLOCKS_AT_A_TIME: usize = 32;
/// Largest table kept in memory, in words of 4 bytes: 256 MiB. A larger one lies in a file that is mapped.
const MAX_WORDS_IN_MEMORY: usize = 1 << 26;

/// A part of a document in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Part {
    /// Number of the document in its component.
    pub document: u64,
    /// Which stretch of `capacity` inputs of it, from 0.
    pub chunk: u64,
}

/// What a packing of texts does with the documents of a component.
#[derive(Debug, Clone, Copy, Default, PartialEq, serde::Serialize)]
pub struct TextPackingCounts {
    /// Documents.
    pub documents: u64,
    /// Documents in more than one row.
    pub cut: u64,
    /// Of these, documents in more rows than their length asks for.
    pub cut_needlessly: u64,
    /// Rows.
    pub rows: u64,
    /// Places in rows.
    pub places: u64,
    /// Places with something to learn.
    pub targets: u64,
    /// Sum over all targets of the tokens before them that they can see.
    pub context: u128,
}

impl TextPackingCounts {
    /// Share of the places with nothing to learn, 0 to 1.
    pub fn idle_share(&self) -> f64 {
        (self.places - self.targets) as f64 / self.places.max(1) as f64
    }

    /// Tokens that a target sees before it, on average.
    pub fn mean_context(&self) -> f64 {
        self.context as f64 / self.targets.max(1) as f64
    }

    /// Adds those of another component.
    pub fn add(&mut self, other: &Self) {
        self.documents += other.documents;
        self.cut += other.cut;
        self.cut_needlessly += other.cut_needlessly;
        self.rows += other.rows;
        self.places += other.places;
        self.targets += other.targets;
        self.context += other.context;
    }

    /// Counts a document of `inputs` inputs that stands in parts of these lengths.
    fn count(&mut self, inputs: u64, capacity: u64, parts: impl Iterator<Item = u64>) {
        let mut number = 0;
        for part in parts {
            number += 1;
            self.context += u128::from(part) * u128::from(part + 1) / 2;
        }
        self.documents += 1;
        self.targets += inputs;
        self.cut += u64::from(number > 1);
        self.cut_needlessly += u64::from(number > inputs.div_ceil(capacity).max(1));
    }

    /// Those of documents of these lengths that stand end to end, cut wherever a row is full.
    pub(super) fn end_to_end(lengths: impl Iterator<Item = u64>, capacity: usize) -> Self {
        let (capacity, mut at, mut counts) = (capacity.max(1) as u64, 0_u64, Self::default());
        for length in lengths {
            let inputs = length.saturating_sub(1);
            let (first, end) = (at, at + inputs);
            let rows = if inputs == 0 { 0..0 } else { first / capacity..end.div_ceil(capacity) };
            let part = |row: u64| end.min((row + 1) * capacity) - first.max(row * capacity);
            counts.count(inputs, capacity, rows.map(part));
            at += length;
        }
        counts.rows = at.saturating_sub(1).div_ceil(capacity);
        counts.places = counts.rows * capacity;
        counts
    }
}

#[derive(Debug, Clone, Copy)]
struct Block {
    first_document: u64,
    first_row: u64,
    first_part: u64,
}

/// Parts of documents by row.
#[derive(Debug)]
pub(super) struct BestFit {
    capacity: usize,
    blocks: Vec<Block>,
    /// Where each row's parts begin, in its block.
    starts: Words,
    /// Document in its block and chunk of it, for each part.
    parts: Words,
    counts: TextPackingCounts,
    digest: String,
}

impl BestFit {
    /// Packs documents of `lengths` tokens into rows of `capacity` inputs.
    ///
    /// # Errors
    /// When a table too large for the memory allowed cannot be written to the temporary folder.
    pub fn new(lengths: impl Iterator<Item = u64>, capacity: usize) -> Result<Self, DataError> {
        let capacity = capacity.max(1);
        let mut lengths = lengths.peekable();
        let (mut starts, mut parts) = (WordsWriter::default(), WordsWriter::default());
        let (mut blocks, mut counts) = (Vec::new(), TextPackingCounts::default());
        let mut digest = blake3::Hasher::new_derive_key("jazari best-fit packing of texts");
        digest.update(&(capacity as u64).to_le_bytes());
        while lengths.peek().is_some() {
            let mut batch: Vec<Vec<u64>> = Vec::new();
            while batch.len() < BLOCKS_AT_A_TIME && lengths.peek().is_some() {
                batch.push(next_block(&mut lengths, capacity as u64));
            }
            let packed: Vec<Packed> = batch.par_iter().map(|lengths| Packed::new(lengths, capacity)).collect();
            for (lengths, packed) in batch.iter().zip(packed) {
                let first_part = parts.len() / 2;
                blocks.push(Block { first_document: counts.documents, first_row: counts.rows, first_part });
                for &length in lengths {
                    let inputs = length.saturating_sub(1);
                    counts.count(inputs, capacity as u64, chunks(inputs, capacity as u64));
                }
                counts.rows += packed.starts.len() as u64;
                for words in [&packed.starts, &packed.parts] {
                    words.iter().for_each(|word| _ = digest.update(&word.to_le_bytes()));
                }
                starts.extend(&packed.starts)?;
                parts.extend(&packed.parts)?;
            }
        }
        counts.places = counts.rows * capacity as u64;
        let digest = digest.finalize().to_hex().to_string();
        Ok(Self { capacity, blocks, starts: starts.finish()?, parts: parts.finish()?, counts, digest })
    }

    /// Inputs of a row.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// What became of the documents.
    pub fn counts(&self) -> TextPackingCounts {
        self.counts
    }

    /// Digest of the whole table.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// The parts of a row; `None` past the last row.
    pub fn row(&self, row: u64) -> Option<Vec<Part>> {
        if row >= self.counts.rows {
            return None;
        }
        let number = self.blocks.partition_point(|block| block.first_row <= row).checked_sub(1)?;
        let block = self.blocks.get(number)?;
        let next = self.blocks.get(number + 1);
        let from = u64::from(self.starts.get(row)?);
        // The first row of the next block begins at its own beginning.
        let is_last = next.map_or(self.counts.rows, |next| next.first_row) == row + 1;
        let all = next.map_or(self.parts.len() / 2, |next| next.first_part) - block.first_part;
        let to = if is_last { all } else { u64::from(self.starts.get(row + 1)?) };
        let part = |at: u64| {
            let at = 2 * (block.first_part + at);
            let document = block.first_document + u64::from(self.parts.get(at)?);
            Some(Part { document, chunk: u64::from(self.parts.get(at + 1)?) })
        };
        (from..to).map(part).collect()
    }
}

/// Lengths of the chunks that a document of `inputs` inputs is cut into.
fn chunks(inputs: u64, capacity: u64) -> impl Iterator<Item = u64> {
    (0..inputs.div_ceil(capacity)).map(move |chunk| (inputs - chunk * capacity).min(capacity))
}

fn next_block(lengths: &mut impl Iterator<Item = u64>, capacity: u64) -> Vec<u64> {
    let (mut block, mut parts) = (Vec::new(), 0);
    while parts < BLOCK_PARTS as u64 {
        let Some(length) = lengths.next() else { break };
        parts += length.saturating_sub(1).div_ceil(capacity).max(1);
        block.push(length);
    }
    block
}

/// The rows of one block.
struct Packed {
    starts: Vec<u32>,
    parts: Vec<u32>,
}

impl Packed {
    /// Best fit, the longest first (Johnson 1974): a part goes to the fullest row that has room for it, of equally full
    /// ones to the one that has waited longest.
    fn new(lengths: &[u64], capacity: usize) -> Self {
        // (document, chunk, inputs) in the order of the documents.
        let mut all: Vec<(u32, u32, u32)> = Vec::new();
        for (document, length) in (0_u32..).zip(lengths) {
            let own = chunks(length.saturating_sub(1), capacity as u64);
            // Documents are at most 2^30 bytes long, rows at most 2^20 tokens.
            all.extend((0_u32..).zip(own).map(|(chunk, inputs)| (document, chunk, inputs as u32)));
        }
        all.sort_by_key(|&(document, chunk, inputs)| (std::cmp::Reverse(inputs), document, chunk));
        let mut rooms = Rooms::new(capacity);
        let row_of: Vec<u32> = all.iter().map(|&(_, _, inputs)| rooms.place(inputs as usize)).collect();
        let mut sizes = vec![0_u32; rooms.rows as usize];
        for &row in &row_of {
            sizes[row as usize] += 1;
        }
        let starts: Vec<u32> = sizes.iter().scan(0, |next, size| Some(std::mem::replace(next, *next + size))).collect();
        let mut at = starts.clone();
        let mut parts = vec![0; 2 * all.len()];
        for (&(document, chunk, _), &row) in all.iter().zip(&row_of) {
            let to = &mut at[row as usize];
            parts[2 * *to as usize] = document;
            parts[2 * *to as usize + 1] = chunk;
            *to += 1;
        }
        Self { starts, parts }
    }
}

const NOBODY: u32 = u32::MAX;

/// Rows by the room they have left, each room a queue.
struct Rooms {
    first: Vec<u32>,
    last: Vec<u32>,
    /// The row behind each row in its queue.
    behind: Vec<u32>,
    /// Bit by bit which rooms have rows, and which words of that have bits.
    open: Vec<u64>,
    open_words: Vec<u64>,
    capacity: usize,
    rows: u32,
}

impl Rooms {
    fn new(capacity: usize) -> Self {
        let words = capacity / 64 + 1;
        Self {
            first: vec![NOBODY; capacity + 1],
            last: vec![NOBODY; capacity + 1],
            behind: Vec::new(),
            open: vec![0; words],
            open_words: vec![0; words / 64 + 1],
            capacity,
            rows: 0,
        }
    }

    /// The row that takes `needed` places, begun when none has them.
    fn place(&mut self, needed: usize) -> u32 {
        let (row, room) = match self.smallest_from(needed) {
            Some(room) => (self.take(room), room),
            None => {
                self.rows += 1;
                self.behind.push(NOBODY);
                (self.rows - 1, self.capacity)
            }
        };
        if room > needed {
            self.put(row, room - needed);
        }
        row
    }

    fn smallest_from(&self, room: usize) -> Option<usize> {
        let word = room / 64;
        let here = self.open.get(word)? & (u64::MAX << (room % 64));
        if here != 0 {
            return Some(64 * word + here.trailing_zeros() as usize);
        }
        let word = next_bit(&self.open_words, word + 1)?;
        Some(64 * word + self.open.get(word)?.trailing_zeros() as usize)
    }

    fn take(&mut self, room: usize) -> u32 {
        let row = self.first[room];
        self.first[room] = self.behind[row as usize];
        if self.first[room] == NOBODY {
            self.last[room] = NOBODY;
            self.open[room / 64] &= !(1 << (room % 64));
            if self.open[room / 64] == 0 {
                self.open_words[room / 4096] &= !(1 << (room / 64 % 64));
            }
        }
        row
    }

    fn put(&mut self, row: u32, room: usize) {
        self.behind[row as usize] = NOBODY;
        match self.last[room] {
            NOBODY => self.first[room] = row,
            last => self.behind[last as usize] = row,
        }
        self.last[room] = row;
        self.open[room / 64] |= 1 << (room % 64);
        self.open_words[room / 4096] |= 1 << (room / 64 % 64);
    }
}

/// The first set bit from `bit` on.
fn next_bit(words: &[u64], bit: usize) -> Option<usize> {
    let first = words.get(bit / 64)? & (u64::MAX << (bit % 64));
    if first != 0 {
        return Some(bit / 64 * 64 + first.trailing_zeros() as usize);
    }
    let (at, word) = words.iter().enumerate().skip(bit / 64 + 1).find(|(_, word)| **word != 0)?;
    Some(64 * at + word.trailing_zeros() as usize)
}

/// Numbers of 32 bits, in memory or in a mapped file without a name.
#[derive(Debug)]
enum Words {
    Held(Vec<u32>),
    Mapped(Mmap),
}

impl Words {
    fn get(&self, at: u64) -> Option<u32> {
        let at = usize::try_from(at).ok()?;
        match self {
            Self::Held(words) => words.get(at).copied(),
            Self::Mapped(map) => map.as_chunks::<4>().0.get(at).map(|bytes| u32::from_le_bytes(*bytes)),
        }
    }

    fn len(&self) -> u64 {
        match self {
            Self::Held(words) => words.len() as u64,
            Self::Mapped(map) => map.len() as u64 / 4,
        }
    }
}

#[derive(Default)]
struct WordsWriter {
    held: Vec<u32>,
    spilled: Option<(PathBuf, BufWriter<File>)>,
    len: u64,
}

impl WordsWriter {
    fn len(&self) -> u64 {
        self.len
    }

    fn extend(&mut self, words: &[u32]) -> Result<(), DataError> {
        self.len += words.len() as u64;
        if self.spilled.is_none() && self.held.len() + words.len() > MAX_WORDS_IN_MEMORY {
            self.spilled = Some(nameless_file()?);
            let held = std::mem::take(&mut self.held);
            self.write(&held)?;
        }
        if self.spilled.is_some() {
            return self.write(words);
        }
        self.held.extend_from_slice(words);
        Ok(())
    }

    fn write(&mut self, words: &[u32]) -> Result<(), DataError> {
        let Some((path, file)) = &mut self.spilled else { return Ok(()) };
        let written = words.iter().try_for_each(|word| file.write_all(&word.to_le_bytes()));
        written.map_err(DataError::io(path, "written"))
    }

    fn finish(self) -> Result<Words, DataError> {
        let Some((path, file)) = self.spilled else { return Ok(Words::Held(self.held)) };
        let file = file.into_inner().map_err(|error| DataError::io(&path, "written")(error.into_error()))?;
        // SAFETY: the file has no name, so nobody else can open or change it; the map is read-only, and any bytes are
        // valid numbers.
        unsafe { Mmap::map(&file) }.map(Words::Mapped).map_err(DataError::io(&path, "mapped"))
    }
}

/// A file in the temporary folder whose name is gone at once, so that nothing is left behind however the process ends.
fn nameless_file() -> Result<(PathBuf, BufWriter<File>), DataError> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("jazari-packing-{}-{number}", std::process::id()));
    let file = File::options().read(true).write(true).create_new(true).open(&path);
    let file = file.map_err(DataError::io(&path, "created"))?;
    std::fs::remove_file(&path).map_err(DataError::io(&path, "removed"))?;
    Ok((path, BufWriter::new(file)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use proptest::prelude::*;

    use super::*;

    fn rows(packing: &BestFit) -> Vec<Vec<(u64, u64)>> {
        let row = |row| packing.row(row).unwrap().iter().map(|part| (part.document, part.chunk)).collect();
        (0..packing.counts().rows).map(row).collect()
    }

    #[test]
    fn documents_stay_whole_and_rests_fill_gaps() {
        // Inputs 5, 7, 3, 2, 3 and 23 = 10 + 10 + 3.
        let packing = BestFit::new([6, 8, 4, 3, 4, 24].into_iter(), 10).unwrap();
        let expected: [&[(u64, u64)]; 5] =
            [&[(5, 0)], &[(5, 1)], &[(1, 0), (2, 0)], &[(0, 0), (4, 0), (3, 0)], &[(5, 2)]];
        assert_eq!(rows(&packing), expected);
        let counts = packing.counts();
        assert_eq!(
            (counts.documents, counts.cut, counts.cut_needlessly, counts.rows, counts.targets),
            (6, 1, 0, 5, 43)
        );
        assert!(packing.row(5).is_none());
    }

    #[test]
    fn end_to_end_cuts_what_would_fit() {
        let counts = TextPackingCounts::end_to_end([6, 8, 4].into_iter(), 10);
        // Tokens 0..6, 6..14 and 14..18: the second lies across places 9 and 10.
        assert_eq!((counts.documents, counts.cut, counts.cut_needlessly), (3, 1, 1));
        assert_eq!((counts.rows, counts.places, counts.targets), (2, 20, 15));
        assert_eq!(counts.context, 15 + (10 + 6) + 6);
    }

    #[test]
    fn the_table_is_fixed_for_ever_and_independent_of_threads() {
        let lengths = || (0..200_000_u64).map(|i| 2 + i * i % 701);
        let many = BestFit::new(lengths(), 512).unwrap();
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        let one = pool.install(|| BestFit::new(lengths(), 512)).unwrap();
        assert!(many.blocks.len() > 3);
        assert_eq!(many.digest(), one.digest());
        assert_eq!(&many.digest()[..16], GOLDEN, "a change here reorders the data of every resumed run");
        assert!(many.counts().idle_share() < 0.01, "{}", many.counts().idle_share());
    }

    const GOLDEN: &str = "a698703b487e7ed3";

    #[test]
    fn a_table_in_a_file_is_the_same() {
        let mut writer = WordsWriter { spilled: Some(nameless_file().unwrap()), ..WordsWriter::default() };
        writer.extend(&[1, 2, 3]).unwrap();
        writer.extend(&[u32::MAX]).unwrap();
        let words = writer.finish().unwrap();
        assert!(matches!(words, Words::Mapped(_)));
        assert_eq!(
            (0..5).map(|at| words.get(at)).collect::<Vec<_>>(),
            [Some(1), Some(2), Some(3), Some(u32::MAX), None]
        );
        assert_eq!(words.len(), 4);
    }

    proptest! {
        #[test]
        fn every_input_stands_in_one_place_and_rows_hold_no_more_than_they_can(
            lengths in proptest::collection::vec(1..90_u64, 0..300), capacity in 2..70_usize,
        ) {
            let packing = BestFit::new(lengths.iter().copied(), capacity).unwrap();
            let mut expected: Vec<(u64, u64)> = Vec::new();
            for (document, length) in (0..).zip(&lengths) {
                expected.extend((0..(length - 1).div_ceil(capacity as u64)).map(|chunk| (document, chunk)));
            }
            let all = rows(&packing);
            let mut seen: Vec<(u64, u64)> = all.concat();
            seen.sort_unstable();
            prop_assert_eq!(seen, expected);
            let inputs = |&(document, chunk): &(u64, u64)| {
                (lengths[document as usize] - 1 - chunk * capacity as u64).min(capacity as u64)
            };
            let mut sums: Vec<u64> = all.iter().map(|row| row.iter().map(inputs).sum()).collect();
            prop_assert!(sums.iter().all(|sum| (1..=capacity as u64).contains(sum)));
            prop_assert_eq!(sums.iter().sum::<u64>(), packing.counts().targets);
            // Two rows that fit one would have become one.
            sums.sort_unstable();
            prop_assert!(sums.len() < 2 || sums[0] + sums[1] > capacity as u64);
        }
    }
}
