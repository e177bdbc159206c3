//! Owns paragraphs that repeat over a whole corpus (menus, notices, letterheads): finding and removing them; never drops
//! a document itself, and its only files are scratch files.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::hash::{hash_bytes, mix};
use super::sort::ExternalSort;
use super::table::{Table, TableWriter};
use super::words::{KeyBuffers, compare_key};
use super::{DEFAULT_MEMORY_MIB, DedupError, MAX_DOCUMENTS};

/// Removal of paragraphs that repeat over the corpus. What stays of a document stays in order; a document of which
/// nothing stays is dropped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ParagraphConfig {
    /// What is compared.
    pub unit: ParagraphUnit,
    /// Shorter paragraphs always stay; characters of the key form.
    pub min_chars: usize,
    /// A paragraph is removed when it occurs at least this often in the corpus, 2 or more.
    pub min_count: u32,
    /// Which occurrences stay.
    pub keep: KeepParagraph,
    /// Memory for sorting in MiB; what goes beyond is sorted on disk (24 bytes a paragraph).
    pub memory_mib: usize,
}

/// What a paragraph is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ParagraphUnit {
    /// Every line.
    #[default]
    Line,
    /// Lines up to the next blank line.
    Paragraph,
}

/// Which occurrences of a repeated paragraph stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum KeepParagraph {
    /// The first of the corpus.
    #[default]
    First,
    /// None of them.
    None,
}

impl Default for ParagraphConfig {
    fn default() -> Self {
        ParagraphConfig {
            unit: ParagraphUnit::Line,
            min_chars: 40,
            min_count: 3,
            keep: KeepParagraph::First,
            memory_mib: DEFAULT_MEMORY_MIB,
        }
    }
}

impl ParagraphConfig {
    /// Checks the values; `key` is where they stand (`paragraphs`).
    ///
    /// # Errors
    /// Adds a line to `problems` for each value that cannot be used.
    pub fn check(&self, key: &str, problems: &mut Vec<String>) {
        if self.min_count < 2 {
            problems.push(format!("{key}.min_count: is {}; write 2 or more", self.min_count));
        }
        if self.min_chars == 0 {
            problems.push(format!("{key}.min_chars: is 0; write a number of characters, for example 40"));
        }
        if self.memory_mib == 0 || self.memory_mib > 1 << 20 {
            problems.push(format!("{key}.memory_mib: is {}; write a number from 1 to 1048576", self.memory_mib));
        }
    }
}

/// A paragraph that is long enough to be compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParagraphKey {
    /// Its number in the text, from 0; paragraphs that are blank or too short count as well.
    pub number: u32,
    /// Hash of its key form.
    pub key: u128,
}

/// Cuts texts into paragraphs; one for all threads.
#[derive(Debug, Clone)]
pub struct Paragraphs {
    config: ParagraphConfig,
}

/// Room that [`Paragraphs::keys`] keeps between texts.
#[derive(Debug, Default)]
pub struct ParagraphBuffers {
    buffers: KeyBuffers,
    key: String,
}

impl Paragraphs {
    /// For valid settings (see [`ParagraphConfig::check`]).
    pub fn new(config: &ParagraphConfig) -> Paragraphs {
        Paragraphs { config: config.clone() }
    }

    /// Keys of the paragraphs of `text` that are long enough; `label` is its language label or empty.
    pub fn keys(&self, text: &str, label: &str, buffers: &mut ParagraphBuffers) -> Vec<ParagraphKey> {
        let mut keys = Vec::new();
        for (number, paragraph) in (0..).zip(pieces(text, self.config.unit)) {
            // Only ligatures such as U+FDFA make a key longer than its text; a line of those is no paragraph.
            if paragraph.len() < self.config.min_chars {
                continue;
            }
            compare_key(paragraph, label, &mut buffers.buffers, &mut buffers.key);
            if buffers.key.chars().count() < self.config.min_chars {
                continue;
            }
            let bytes = buffers.key.as_bytes();
            let (high, low) = (mix(hash_bytes(1, bytes)), mix(hash_bytes(2, bytes)));
            keys.push(ParagraphKey { number, key: u128::from(high) << 64 | u128::from(low) });
        }
        keys
    }

    /// `text` without the paragraphs numbered `gone` (ascending), or `None` when no letter or digit stays.
    pub fn without(&self, text: &str, gone: &[u32]) -> Option<String> {
        let mut gone = gone.iter().copied().peekable();
        let (mut out, mut cut) = (String::with_capacity(text.len()), true);
        for (number, piece) in (0_u32..).zip(pieces(text, self.config.unit)) {
            if gone.next_if_eq(&number).is_some() {
                cut = true;
                continue;
            }
            // What stood around a removed line leaves no gap.
            if cut && piece.trim().is_empty() && (out.is_empty() || out.ends_with("\n\n")) {
                continue;
            }
            cut = false;
            out.push_str(piece);
        }
        let kept = out.trim_end_matches(['\n', ' ']).len();
        out.truncate(kept);
        out.chars().any(char::is_alphanumeric).then_some(out)
    }
}

/// The paragraphs of a text, each with the line ends after it: together they are the text.
fn pieces(text: &str, unit: ParagraphUnit) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let end = match unit {
            ParagraphUnit::Line => memchr::memchr(b'\n', rest.as_bytes()).map_or(rest.len(), |at| at + 1),
            ParagraphUnit::Paragraph => end_of_paragraph(rest),
        };
        let (piece, tail) = rest.split_at_checked(end)?;
        rest = tail;
        Some(piece)
    })
}

fn end_of_paragraph(text: &str) -> usize {
    let (mut end, mut blank) = (0, false);
    for line in text.split_inclusive('\n') {
        let is_blank = line.trim().is_empty();
        if blank && !is_blank {
            return end;
        }
        // Blank lines at the start of a text belong to its first paragraph.
        blank = is_blank && end > 0;
        end += line.len();
    }
    end
}

/// Takes the keys of documents in order, then says which paragraphs go.
pub struct RepeatFinder {
    config: ParagraphConfig,
    folder: std::path::PathBuf,
    keys: ExternalSort<(u128, u32, u32)>,
    documents: u32,
}

impl RepeatFinder {
    /// Scratch files go to `folder`, which must exist.
    pub fn new(config: &ParagraphConfig, folder: &Path) -> RepeatFinder {
        let keys = ExternalSort::new(folder, config.memory_mib.saturating_mul(1 << 20));
        RepeatFinder { config: config.clone(), folder: folder.to_owned(), keys, documents: 0 }
    }

    /// Adds the next document and returns its number, from 0.
    ///
    /// # Errors
    /// A scratch file that refuses, too many documents.
    pub fn add(&mut self, keys: &[ParagraphKey]) -> Result<u32, DedupError> {
        let document = self.documents;
        if u64::from(document) + 1 >= MAX_DOCUMENTS {
            return Err(DedupError::TooMany);
        }
        for key in keys {
            self.keys.push((key.key, document, key.number))?;
        }
        self.documents += 1;
        Ok(document)
    }

    /// Finds the paragraphs that go.
    ///
    /// # Errors
    /// A scratch file that refuses, the stop flag.
    pub fn finish(self, stop: &AtomicBool) -> Result<Repeats, DedupError> {
        let mut sorted = self.keys.finish()?;
        let memory = self.config.memory_mib.saturating_mul(1 << 20);
        let mut gone = ExternalSort::new(&self.folder, memory);
        let mut repeats = Repeats { table: None, distinct: 0, removed: 0 };
        let mut group = Group { key: None, count: 0, held: Vec::new() };
        let mut seen: u64 = 0;
        while let Some((key, document, number)) = sorted.next()? {
            if group.key != Some(key) {
                group = Group { key: Some(key), count: 0, held: std::mem::take(&mut group.held) };
                group.held.clear();
            }
            group.count += 1;
            if group.count > 1 || self.config.keep == KeepParagraph::None {
                group.held.push((document, number));
            }
            if group.count >= self.config.min_count {
                repeats.distinct += u64::from(group.count == self.config.min_count);
                repeats.removed += group.held.len() as u64;
                group.held.drain(..).try_for_each(|record| gone.push(record))?;
            }
            seen += 1;
            if seen.is_multiple_of(1 << 16) && stop.load(Ordering::Relaxed) {
                return Err(DedupError::Stopped);
            }
        }
        if repeats.removed == 0 {
            return Ok(repeats);
        }
        let (mut gone, mut writer) = (gone.finish()?, TableWriter::create(&self.folder)?);
        while let Some(record) = gone.next()? {
            writer.push(record)?;
        }
        repeats.table = Some(writer.finish()?);
        Ok(repeats)
    }
}

/// The occurrences of one paragraph, as they come by.
struct Group {
    key: Option<u128>,
    count: u32,
    /// Occurrences that go, once there are enough of them.
    held: Vec<(u32, u32)>,
}

/// Which paragraphs go; looking up is safe from many threads.
pub struct Repeats {
    /// Absent when none goes.
    table: Option<Table<(u32, u32)>>,
    /// Different paragraphs that occur too often.
    pub distinct: u64,
    /// Paragraphs that go.
    pub removed: u64,
}

impl Repeats {
    /// Numbers of the paragraphs of a document that go, in order, for [`Paragraphs::without`].
    ///
    /// # Errors
    /// A scratch file that refuses.
    pub fn of(&self, document: u32) -> Result<Vec<u32>, DedupError> {
        let mut numbers = Vec::new();
        if let Some(table) = &self.table {
            table.range(&(document, 0), |(at, number)| {
                let inside = at == document;
                if inside {
                    numbers.push(number);
                }
                inside
            })?;
        }
        Ok(numbers)
    }
}
