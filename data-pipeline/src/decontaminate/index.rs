//! Owns the index of benchmark texts: which n-gram of words stands in which text of which item; never reads documents.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use super::config::DecontaminateConfig;
use super::items::{BenchmarkError, Part, declared_tasks, files_below, read_items};
use crate::near::hash::{hash_bytes, mix};
use crate::near::words::{KeyBuffers, compare_key, words};

/// An n-gram that stands in more items of a file than this, and in more than one in [`TEMPLATE_SHARE`], is wording that
/// the benchmark repeats (an instruction, a question stem) and marks no item.
const TEMPLATE_ITEMS: usize = 8;
const TEMPLATE_SHARE: usize = 100;
/// Bits of the filter for each n-gram.
const FILTER_BITS: usize = 16;
const ROLL: u64 = 0x9e37_79b9_7f4a_7c15;

/// A benchmark file and what of it can be found.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct BenchmarkFile {
    /// Path below the folder.
    pub file: String,
    /// Records or lines.
    pub items: u64,
    /// Of these, items with a text that is looked for.
    pub searchable: u64,
}

/// Where a searchable text stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    pub file: u32,
    /// Number of the item in its file, from 1.
    pub item: u32,
    pub field: String,
    /// Different n-grams that are indexed; 0 for a text that is looked for as a whole.
    pub grams: u32,
    /// Words of the longest run of indexed n-grams.
    pub reach: u32,
}

/// Benchmarks, ready to be looked for; one for all threads.
#[derive(Debug, Clone)]
pub struct Benchmarks {
    pub(super) config: DecontaminateConfig,
    files: Vec<BenchmarkFile>,
    ignored: Vec<String>,
    declared: BTreeMap<String, String>,
    pub(super) targets: Vec<Target>,
    grams: GramIndex,
    /// Texts of fewer words than an n-gram, as a whole.
    whole: HashMap<u64, Vec<u32>>,
}

impl Benchmarks {
    /// Reads every benchmark below `config.against` (valid settings, see [`DecontaminateConfig::check`]).
    ///
    /// # Errors
    /// A file that cannot be read, no item at all, a required benchmark that is not there.
    pub fn open(config: &DecontaminateConfig) -> Result<Benchmarks, BenchmarkError> {
        let folder = &config.against;
        let paths = files_below(folder)?;
        let mut builder = Builder::new(config);
        for path in &paths {
            builder.file(path, folder)?;
        }
        let Builder { files, ignored, declared, targets, entries, whole, .. } = builder;
        if files.iter().all(|file| file.searchable == 0) {
            return Err(BenchmarkError::Empty { folder: folder.clone(), files: paths.len(), ignored: ignored.len() });
        }
        let plain = |name: &str| name.to_lowercase().chars().filter(|c| c.is_alphanumeric()).collect::<String>();
        let has =
            |name: &&String| files.iter().any(|file| file.searchable > 0 && plain(&file.file).contains(&plain(name)));
        let missing: Vec<String> = config.require.iter().filter(|name| !has(name)).cloned().collect();
        if !missing.is_empty() {
            return Err(BenchmarkError::Missing { folder: folder.clone(), missing: missing.join(", ") });
        }
        let grams = GramIndex::new(entries);
        Ok(Benchmarks { config: config.clone(), files, ignored, declared, targets, grams, whole })
    }

    /// The files that were read, with their counts.
    pub fn files(&self) -> &[BenchmarkFile] {
        &self.files
    }

    /// Files whose type is not read, by their path below the folder.
    pub fn ignored(&self) -> &[String] {
        &self.ignored
    }

    /// Tasks that lm-evaluation-harness task files in the folder declare, with the data set each of them loads: such a
    /// file holds no items, so the data must lie beside it.
    pub fn declared_tasks(&self) -> &BTreeMap<String, String> {
        &self.declared
    }

    /// N-grams in the index.
    pub fn num_grams(&self) -> usize {
        self.grams.hashes.len()
    }

    pub(super) fn gram(&self, hash: u64) -> &[u32] {
        self.grams.get(hash)
    }

    pub(super) fn whole(&self, hash: u64) -> &[u32] {
        self.whole.get(&hash).map(Vec::as_slice).unwrap_or_default()
    }

    pub(super) fn file_name(&self, target: &Target) -> &str {
        self.files.get(target.file as usize).map(|file| file.file.as_str()).unwrap_or_default()
    }
}

/// Gathers files one after another.
struct Builder<'c> {
    config: &'c DecontaminateConfig,
    files: Vec<BenchmarkFile>,
    ignored: Vec<String>,
    declared: BTreeMap<String, String>,
    targets: Vec<Target>,
    /// N-gram and target.
    entries: Vec<(u64, u32)>,
    whole: HashMap<u64, Vec<u32>>,
    buffers: KeyBuffers,
    key: String,
}

/// A text of the file at hand.
struct Candidate {
    item: u32,
    field: String,
    /// Hashes of its n-grams in order, or of the whole text.
    grams: Vec<u64>,
    is_whole: bool,
}

impl<'c> Builder<'c> {
    fn new(config: &'c DecontaminateConfig) -> Self {
        Builder {
            config,
            files: Vec::new(),
            ignored: Vec::new(),
            declared: BTreeMap::new(),
            targets: Vec::new(),
            entries: Vec::new(),
            whole: HashMap::new(),
            buffers: KeyBuffers::default(),
            key: String::new(),
        }
    }

    fn file(&mut self, path: &Path, folder: &Path) -> Result<(), BenchmarkError> {
        let below = path.strip_prefix(folder).ok().filter(|below| !below.as_os_str().is_empty());
        let name = below.map(Path::to_owned).or_else(|| path.file_name().map(PathBuf::from)).unwrap_or_default();
        let name = name.display().to_string();
        let Some(items) = read_items(path)? else {
            self.declared.extend(declared_tasks(path));
            self.ignored.push(name);
            return Ok(());
        };
        let label = label_in(&name);
        let mut candidates = Vec::new();
        for (number, parts) in (1_u32..).zip(&items) {
            parts.iter().for_each(|part| candidates.extend(self.candidate(number, part, label)));
        }
        let limit = TEMPLATE_ITEMS.max(items.len() / TEMPLATE_SHARE);
        let templates = templates(&candidates, limit);
        let mut searchable: Vec<u32> = Vec::new();
        for candidate in candidates {
            searchable.extend(self.target(&candidate, &templates));
        }
        searchable.dedup();
        if self.targets.len() >= u32::MAX as usize {
            let folder = folder.to_owned();
            return Err(BenchmarkError::TooMany { folder, what: "texts", limit: u32::MAX as usize });
        }
        self.files.push(BenchmarkFile { file: name, items: items.len() as u64, searchable: searchable.len() as u64 });
        Ok(())
    }

    fn candidate(&mut self, item: u32, part: &Part, label: &str) -> Option<Candidate> {
        compare_key(&part.text, label, &mut self.buffers, &mut self.key);
        let hashes: Vec<u64> = words(&self.key).map(|(_, word)| hash_bytes(0, word.as_bytes())).collect();
        let base = self.config.short_ngram;
        if hashes.len() >= base {
            let grams = hashes.windows(base).map(gram).collect();
            return Some(Candidate { item, field: part.field.clone(), grams, is_whole: false });
        }
        // Choices of a few words (`in the 19th century`) are common lines; the question marks the item.
        if hashes.len() < self.config.min_words || part.in_list {
            return None;
        }
        Some(Candidate { item, field: part.field.clone(), grams: vec![gram(&hashes)], is_whole: true })
    }

    /// Adds what is left of a text without templates; the number of its item when something is.
    fn target(&mut self, candidate: &Candidate, templates: &HashMap<u64, usize>) -> Option<u32> {
        let (mut run, mut longest) = (0, 0);
        let mut kept: Vec<u64> = Vec::with_capacity(candidate.grams.len());
        for &gram in &candidate.grams {
            run = if templates.contains_key(&gram) { 0 } else { run + 1 };
            longest = longest.max(run);
            if run > 0 {
                kept.push(gram);
            }
        }
        kept.sort_unstable();
        kept.dedup();
        if kept.is_empty() {
            return None;
        }
        let number = self.targets.len() as u32;
        let (grams, reach) = if candidate.is_whole {
            self.whole.entry(*kept.first()?).or_default().push(number);
            (0, 0)
        } else {
            self.entries.extend(kept.iter().map(|&gram| (gram, number)));
            (kept.len() as u32, (longest + self.config.short_ngram - 1) as u32)
        };
        let file = self.files.len() as u32;
        self.targets.push(Target { file, item: candidate.item, field: candidate.field.clone(), grams, reach });
        Some(candidate.item)
    }
}

/// N-grams that stand in more than `limit` items.
fn templates(candidates: &[Candidate], limit: usize) -> HashMap<u64, usize> {
    let mut places: Vec<(u64, u32)> =
        candidates.iter().flat_map(|c| c.grams.iter().map(|&gram| (gram, c.item))).collect();
    places.sort_unstable();
    places.dedup();
    let groups = places.chunk_by(|a, b| a.0 == b.0).filter(|group| group.len() > limit);
    groups.filter_map(|group| Some((group.first()?.0, group.len()))).collect()
}

/// The language label in a file name such as `flores/ary_Arab.devtest`, or nothing.
fn label_in(name: &str) -> &str {
    let parts = name.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let mut pieces = parts.filter_map(|part| {
        let at = part.find(|c: char| c.is_ascii_uppercase())?.checked_sub(4)?;
        part.get(at..at + 8)
    });
    pieces.find(|piece| crate::document::is_language_label(piece)).unwrap_or_default()
}

/// Hash of the words of an n-gram.
pub(super) fn gram(hashes: &[u64]) -> u64 {
    mix(hashes.iter().fold(0_u64, |state, hash| state.wrapping_mul(ROLL).wrapping_add(*hash)))
}

/// N-grams sorted by their hash, each with its targets, behind a filter that nearly every other n-gram fails.
#[derive(Debug, Clone, Default)]
struct GramIndex {
    filter: Vec<u64>,
    hashes: Vec<u64>,
    /// Where the targets of an n-gram begin; one more than there are n-grams.
    starts: Vec<usize>,
    targets: Vec<u32>,
}

impl GramIndex {
    fn new(mut entries: Vec<(u64, u32)>) -> GramIndex {
        entries.sort_unstable();
        let mut index = GramIndex::default();
        for group in entries.chunk_by(|a, b| a.0 == b.0) {
            index.hashes.extend(group.first().map(|(hash, _)| *hash));
            index.starts.push(index.targets.len());
            index.targets.extend(group.iter().map(|(_, target)| *target));
        }
        index.starts.push(index.targets.len());
        let bits = (index.hashes.len() * FILTER_BITS).next_power_of_two().max(64);
        index.filter = vec![0; bits / 64];
        for &hash in &index.hashes {
            if let Some(word) = index.filter.get_mut(hash as usize / 64 % (bits / 64)) {
                *word |= 1 << (hash % 64);
            }
        }
        index
    }

    #[inline]
    fn get(&self, hash: u64) -> &[u32] {
        // The number of words of the filter is a power of two.
        let word = self.filter.get((hash as usize / 64) & (self.filter.len() - 1)).copied().unwrap_or(0);
        if word >> (hash % 64) & 1 == 0 {
            return &[];
        }
        let Ok(at) = self.hashes.binary_search(&hash) else { return &[] };
        match (self.starts.get(at), self.starts.get(at + 1)) {
            (Some(&start), Some(&end)) => self.targets.get(start..end).unwrap_or_default(),
            _ => &[],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_in_file_names() {
        assert_eq!(label_in("flores200/devtest/ary_Arab.devtest"), "ary_Arab");
        assert_eq!(label_in("sib200-zgh_Tfng-test.tsv"), "zgh_Tfng");
        assert_eq!(label_in("eng_Latn_questions.jsonl"), "eng_Latn");
        assert_eq!(label_in("DarijaMMLU/test.parquet"), "");
    }

    #[test]
    fn an_index_finds_its_own_and_nothing_else() {
        let entries: Vec<(u64, u32)> = (0..5000).map(|i| (mix(i / 2), i as u32)).collect();
        let index = GramIndex::new(entries);
        assert_eq!(index.get(mix(7)), [14, 15]);
        assert!((2500..9000).all(|i| index.get(mix(i)).is_empty()));
        assert!(GramIndex::new(Vec::new()).get(5).is_empty());
    }
}
