//! Owns clusters of near duplicates: candidate pairs from bands sorted on disk, verified by exact similarity, joined by
//! union-find; never reads texts.
//!
//! The clusters are the connected parts of the graph of verified pairs, so they depend neither on the order in which
//! pairs come up nor on threads.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rayon::prelude::*;

use super::hash::mix;
use super::signature::{Signature, Sketch, overlap};
use super::sort::{ExternalSort, scratch_file};
use super::{DedupError, Keep, MAX_DOCUMENTS, NearConfig};

/// Each document of a bucket is compared with the first and with this many before it. Larger buckets hold families of
/// texts that are mostly joined already; with all pairs, a bucket of n documents would cost n^2 / 2 comparisons.
pub const BUCKET_WINDOW: usize = 64;
/// Pairs that are verified together.
const BATCH_PAIRS: usize = 1 << 16;
/// Rejected pairs that are remembered, so that a pair which meets in several bands is compared once (8 bytes each).
const REMEMBERED_PAIRS: usize = 1 << 20;
/// Bytes of an entry: offset of the shingles, how many of the short and of the long sketch.
const ENTRY_BYTES: usize = 16;
const WRITE_BYTES: usize = 1024 * 1024;

/// Takes signatures in document order, then finds the clusters.
pub struct Clusterer {
    config: NearConfig,
    bands: ExternalSort<(u64, u32)>,
    sets: SetWriter,
    documents: u32,
    /// Bytes of each text, with `keep: longest`.
    lengths: Vec<u32>,
}

impl Clusterer {
    /// Scratch files go to `folder`, which must exist. Without verification little is written there; with it about 0.4
    /// bytes a byte of text beside the bands (12 bytes a band and document, once memory is full).
    ///
    /// # Errors
    /// A folder that cannot be written.
    pub fn create(config: &NearConfig, folder: &Path) -> Result<Clusterer, DedupError> {
        let memory = config.memory_mib.saturating_mul(1 << 20);
        Ok(Clusterer {
            config: config.clone(),
            bands: ExternalSort::new(folder, memory),
            sets: SetWriter::create(folder)?,
            documents: 0,
            lengths: Vec::new(),
        })
    }

    /// Adds the next document and returns its number, from 0. An empty signature resembles nothing.
    ///
    /// # Errors
    /// A scratch file that cannot be written, too many documents.
    pub fn add(&mut self, signature: &Signature) -> Result<u32, DedupError> {
        let document = self.documents;
        if u64::from(document) + 1 >= MAX_DOCUMENTS {
            return Err(DedupError::TooMany);
        }
        for sketch in &signature.sketches {
            for &band in &sketch.bands {
                // Short and long sketches never meet in a bucket.
                self.bands.push((band & !1 | u64::from(sketch.short), document))?;
            }
        }
        if self.config.verify {
            self.sets.add(&signature.sketches)?;
        }
        if self.config.keep == Keep::Longest {
            self.lengths.push(signature.bytes);
        }
        self.documents += 1;
        Ok(document)
    }

    /// Finds the clusters; `progress` gets how many of the band keys have been looked at, of how many.
    ///
    /// # Errors
    /// A scratch file that refuses, the stop flag.
    pub fn finish(self, progress: &dyn Fn(u64, u64), stop: &AtomicBool) -> Result<Clusters, DedupError> {
        let total = self.bands.len();
        let mut sorted = self.bands.finish()?;
        let mut joiner = Joiner {
            sets: if self.config.verify { Some(self.sets.finish()?) } else { None },
            threshold: self.config.threshold,
            forest: Forest::new(self.documents),
            pending: Vec::new(),
            rejected: vec![u64::MAX; if self.config.verify { REMEMBERED_PAIRS } else { 0 }],
            compared: 0,
            capped: 0,
        };
        let mut bucket = Bucket::default();
        let mut seen = 0;
        while let Some((key, document)) = sorted.next()? {
            bucket.meet(key, document, &mut joiner);
            seen += 1;
            if joiner.pending.len() >= BATCH_PAIRS {
                joiner.settle()?;
            }
            if seen % (1 << 16) == 0 {
                if stop.load(Ordering::Relaxed) {
                    return Err(DedupError::Stopped);
                }
                progress(seen, total);
            }
        }
        joiner.settle()?;
        progress(total, total);
        let Joiner { forest, compared, capped, .. } = joiner;
        Ok(Clusters::new(forest, &self.lengths, compared, capped))
    }
}

/// The documents of one band key, as they come by.
#[derive(Default)]
struct Bucket {
    key: u64,
    first: u32,
    size: usize,
    /// The last [`BUCKET_WINDOW`] members, as a ring.
    window: Vec<u32>,
}

impl Bucket {
    fn meet(&mut self, key: u64, document: u32, joiner: &mut Joiner) {
        if self.size == 0 || key != self.key {
            *self = Bucket { key, first: document, size: 1, window: std::mem::take(&mut self.window) };
            self.window.clear();
            self.window.push(document);
            return;
        }
        let short = key & 1 == 1;
        for &other in &self.window {
            joiner.pair(other, document, short);
        }
        if self.size >= BUCKET_WINDOW {
            joiner.pair(self.first, document, short);
            joiner.capped += u64::from(self.size == BUCKET_WINDOW);
            if let Some(place) = self.window.get_mut(self.size % BUCKET_WINDOW) {
                *place = document;
            }
        } else {
            self.window.push(document);
        }
        self.size += 1;
    }
}

/// Verifies candidate pairs and joins what they belong to.
struct Joiner {
    sets: Option<SetStore>,
    threshold: f64,
    forest: Forest,
    pending: Vec<(u32, u32, bool)>,
    rejected: Vec<u64>,
    compared: u64,
    capped: u64,
}

impl Joiner {
    fn pair(&mut self, a: u32, b: u32, short: bool) {
        if a != b && self.forest.root(a) != self.forest.root(b) && !self.was_rejected(a, b, short) {
            self.pending.push((a.min(b), a.max(b), short));
        }
    }

    fn slot(a: u32, b: u32, short: bool) -> (u64, usize) {
        // Numbers stay below 2^32 - 1, so that no pair has the code of an empty slot.
        let code = u64::from(a.min(b)) << 32 | u64::from(a.max(b));
        let code = if short { code.rotate_left(1) ^ mix(1) } else { code };
        (code, (mix(code) % REMEMBERED_PAIRS as u64) as usize)
    }

    fn was_rejected(&self, a: u32, b: u32, short: bool) -> bool {
        let (code, slot) = Joiner::slot(a, b, short);
        self.rejected.get(slot) == Some(&code)
    }

    /// Verifies what is pending: first as many pairs as could join everything, then those that are still needed.
    fn settle(&mut self) -> Result<(), DedupError> {
        let mut pending = std::mem::take(&mut self.pending);
        pending.sort_unstable();
        pending.dedup();
        while !pending.is_empty() {
            let mut tentative: HashMap<u32, u32> = HashMap::new();
            let (mut now, mut later) = (Vec::new(), Vec::new());
            for (a, b, short) in pending {
                let (x, y) = (self.forest.root(a), self.forest.root(b));
                if x == y {
                    continue;
                }
                let (x, y) = (tentative_root(&mut tentative, x), tentative_root(&mut tentative, y));
                if x == y {
                    later.push((a, b, short));
                } else {
                    tentative.insert(x.max(y), x.min(y));
                    now.push((a, b, short));
                }
            }
            let verdicts = match &self.sets {
                None => vec![true; now.len()],
                Some(sets) => {
                    let verdict = |&(a, b, short): &(u32, u32, bool)| sets.alike(a, b, short, self.threshold);
                    now.par_iter().map(verdict).collect::<Result<Vec<bool>, DedupError>>()?
                }
            };
            self.compared += now.len() as u64;
            for ((a, b, short), alike) in now.into_iter().zip(verdicts) {
                if alike {
                    self.forest.join(a, b);
                } else {
                    let (code, slot) = Joiner::slot(a, b, short);
                    if let Some(place) = self.rejected.get_mut(slot) {
                        *place = code;
                    }
                }
            }
            pending = later;
        }
        Ok(())
    }
}

fn tentative_root(parents: &mut HashMap<u32, u32>, mut at: u32) -> u32 {
    let start = at;
    while let Some(&parent) = parents.get(&at) {
        at = parent;
    }
    if start != at {
        parents.insert(start, at);
    }
    at
}

/// Union-find; the root of a part is its first document.
struct Forest {
    parents: Vec<u32>,
}

impl Forest {
    fn new(documents: u32) -> Forest {
        Forest { parents: (0..documents).collect() }
    }

    fn parent(&self, at: u32) -> u32 {
        self.parents.get(at as usize).copied().unwrap_or(at)
    }

    /// Parents come before their children, so the way up ends.
    fn root(&mut self, mut at: u32) -> u32 {
        loop {
            let parent = self.parent(at);
            if parent == at {
                return at;
            }
            let above = self.parent(parent);
            if let Some(place) = self.parents.get_mut(at as usize) {
                *place = above;
            }
            at = above;
        }
    }

    fn join(&mut self, a: u32, b: u32) {
        let (a, b) = (self.root(a), self.root(b));
        if let Some(place) = self.parents.get_mut(a.max(b) as usize) {
            *place = a.min(b);
        }
    }
}

/// Shingles of all documents on disk, as they are written.
struct SetWriter {
    folder: PathBuf,
    sets: File,
    entries: File,
    set_buffer: Vec<u8>,
    entry_buffer: Vec<u8>,
    offset: u64,
}

impl SetWriter {
    fn create(folder: &Path) -> Result<SetWriter, DedupError> {
        Ok(SetWriter {
            folder: folder.to_owned(),
            sets: scratch_file(folder)?,
            entries: scratch_file(folder)?,
            set_buffer: Vec::new(),
            entry_buffer: Vec::new(),
            offset: 0,
        })
    }

    fn add(&mut self, sketches: &[Sketch]) -> Result<(), DedupError> {
        let of_kind = |short| sketches.iter().find(|sketch| sketch.short == short).map(|sketch| &*sketch.shingles);
        let (short, long) = (of_kind(true).unwrap_or_default(), of_kind(false).unwrap_or_default());
        self.entry_buffer.extend_from_slice(&self.offset.to_le_bytes());
        for set in [short, long] {
            self.entry_buffer.extend_from_slice(&(set.len() as u32).to_le_bytes());
            self.offset += 4 * set.len() as u64;
            self.set_buffer.extend(set.iter().flat_map(|shingle| shingle.to_le_bytes()));
        }
        if self.set_buffer.len() >= WRITE_BYTES || self.entry_buffer.len() >= WRITE_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), DedupError> {
        let written = self.sets.write_all(&self.set_buffer).and_then(|()| self.entries.write_all(&self.entry_buffer));
        written.map_err(DedupError::scratch(&self.folder, "written"))?;
        self.set_buffer.clear();
        self.entry_buffer.clear();
        Ok(())
    }

    fn finish(mut self) -> Result<SetStore, DedupError> {
        self.flush()?;
        Ok(SetStore { folder: self.folder, sets: self.sets, entries: self.entries })
    }
}

/// Shingles of all documents on disk.
struct SetStore {
    folder: PathBuf,
    sets: File,
    entries: File,
}

impl SetStore {
    /// Whether two documents have a similarity of at least `threshold`.
    fn alike(&self, a: u32, b: u32, short: bool, threshold: f64) -> Result<bool, DedupError> {
        let (a, b) = (self.place(a, short)?, self.place(b, short)?);
        let reaches = |shared: u64, all: u64| all > 0 && shared as f64 >= threshold * all as f64;
        // No similarity is above the ratio of the sizes.
        if !reaches(a.1.min(b.1).into(), a.1.max(b.1).into()) {
            return Ok(false);
        }
        let (shared, all) = overlap(&self.set(a)?, &self.set(b)?);
        Ok(reaches(shared as u64, all as u64))
    }

    /// Offset and size of a set.
    fn place(&self, document: u32, short: bool) -> Result<(u64, u32), DedupError> {
        let mut entry = [0; ENTRY_BYTES];
        let read = self.entries.read_exact_at(&mut entry, u64::from(document) * ENTRY_BYTES as u64);
        read.map_err(DedupError::scratch(&self.folder, "read"))?;
        let whole = u128::from_le_bytes(entry);
        let (offset, short_len, long_len) = (whole as u64, (whole >> 64) as u32, (whole >> 96) as u32);
        Ok(if short { (offset, short_len) } else { (offset + 4 * u64::from(short_len), long_len) })
    }

    fn set(&self, (offset, len): (u64, u32)) -> Result<Vec<u32>, DedupError> {
        let mut bytes = vec![0; 4 * len as usize];
        self.sets.read_exact_at(&mut bytes, offset).map_err(DedupError::scratch(&self.folder, "read"))?;
        Ok(bytes.as_chunks::<4>().0.iter().map(|chunk| u32::from_le_bytes(*chunk)).collect())
    }
}

/// A cluster of at least two documents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    /// The document that stays.
    pub kept: u32,
    /// All documents, in order, the one that stays among them.
    pub members: Vec<u32>,
}

/// Which documents are near duplicates of which.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clusters {
    /// For each document the one of its cluster that stays.
    kept: Vec<u32>,
    /// Pairs whose exact similarity was computed (or that were joined without).
    pub compared: u64,
    /// Buckets with more documents than [`BUCKET_WINDOW`], in which not all pairs were compared.
    pub capped_buckets: u64,
}

impl Clusters {
    fn new(mut forest: Forest, lengths: &[u32], compared: u64, capped_buckets: u64) -> Clusters {
        let documents = forest.parents.len() as u32;
        for document in 0..documents {
            let root = forest.root(document);
            if let Some(place) = forest.parents.get_mut(document as usize) {
                *place = root;
            }
        }
        let mut kept = forest.parents;
        if !lengths.is_empty() {
            let length = |document: u32| lengths.get(document as usize).copied().unwrap_or(0);
            let mut longest: Vec<u32> = (0..documents).collect();
            for (document, &root) in (0..documents).zip(&kept) {
                if let Some(best) = longest.get_mut(root as usize)
                    && length(document) > length(*best)
                {
                    *best = document;
                }
            }
            for place in &mut kept {
                *place = longest.get(*place as usize).copied().unwrap_or(*place);
            }
        }
        Clusters { kept, compared, capped_buckets }
    }

    /// Documents added.
    pub fn num_documents(&self) -> usize {
        self.kept.len()
    }

    /// The document that stays in the place of this one, `None` when it stays itself.
    pub fn duplicate_of(&self, document: u32) -> Option<u32> {
        self.kept.get(document as usize).copied().filter(|&kept| kept != document)
    }

    /// Documents that go.
    pub fn num_duplicates(&self) -> u64 {
        self.kept.iter().enumerate().filter(|&(document, &kept)| kept != document as u32).count() as u64
    }

    /// The clusters of at least two documents, in the order of those that stay. Holds 8 bytes for each of their members.
    pub fn clusters(&self) -> impl Iterator<Item = Cluster> + use<> {
        let mut pairs: Vec<(u32, u32)> = Vec::new();
        for (document, &kept) in (0_u32..).zip(&self.kept) {
            if kept != document {
                pairs.push((kept, document));
            }
        }
        pairs.sort_unstable();
        let mut at = 0;
        std::iter::from_fn(move || {
            let (kept, _) = *pairs.get(at)?;
            let group = pairs.get(at..).unwrap_or_default().iter().take_while(|(other, _)| *other == kept);
            let mut members: Vec<u32> = group.map(|(_, document)| *document).collect();
            at += members.len();
            members.push(kept);
            members.sort_unstable();
            Some(Cluster { kept, members })
        })
    }

    /// How many clusters there are of each size from 2.
    pub fn sizes(&self) -> BTreeMap<usize, u64> {
        let mut sizes = BTreeMap::new();
        for cluster in self.clusters() {
            *sizes.entry(cluster.members.len()).or_default() += 1;
        }
        sizes
    }
}
