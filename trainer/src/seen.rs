//! Owns what a model was shown: rows, target tokens and bytes of text by language and source, counted as they are
//! trained on; never decides what comes next.
//!
//! Every process counts its own rows. The sums are put together when metrics are written and before a state is saved,
//! so that a resumed run goes on counting where the saved one was. Rows of skipped steps do not count.

use std::collections::BTreeMap;

use data_pipeline::dataset::Dataset;
use data_pipeline::loader::TokenBatch;
use serde::{Deserialize, Serialize};

use crate::cluster::ClusterError;
use crate::team::Team;

/// How much of a part of the data was trained on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenCounts {
    /// Rows.
    pub rows: u64,
    /// Tokens that were predicted.
    pub tokens: u64,
    /// UTF-8 bytes of text that they stand for.
    pub bytes: u64,
}

impl SeenCounts {
    fn add(&mut self, other: Self) {
        self.rows += other.rows;
        self.tokens += other.tokens;
        self.bytes += other.bytes;
    }
}

/// What a run has seen, by `language/source`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Seen {
    /// Counts by component.
    pub components: BTreeMap<String, SeenCounts>,
}

impl Seen {
    /// Whether nothing was seen.
    pub fn is_empty(&self) -> bool {
        self.components.is_empty()
    }

    /// The sums by language and script.
    pub fn languages(&self) -> BTreeMap<String, SeenCounts> {
        let mut languages: BTreeMap<String, SeenCounts> = BTreeMap::new();
        for (name, counts) in &self.components {
            let language = name.split_once('/').map_or(name.as_str(), |(language, _)| language);
            languages.entry(language.to_owned()).or_default().add(*counts);
        }
        languages
    }
}

/// Counts what one process trains on.
#[derive(Debug, Clone)]
pub struct Viewer {
    names: Vec<String>,
    token_bytes: Vec<u16>,
    /// Of the step that is under way.
    step: Vec<SeenCounts>,
    /// Of steps that were applied, since the sums were last put together.
    pending: Vec<SeenCounts>,
}

impl Viewer {
    /// Has seen nothing of `dataset`.
    pub fn new(dataset: &Dataset) -> Self {
        let names: Vec<String> = dataset.train().iter().map(|component| component.name()).collect();
        let none = vec![SeenCounts::default(); names.len()];
        Self { names, token_bytes: dataset.token_bytes().to_vec(), step: none.clone(), pending: none }
    }

    /// Counts the rows of a micro-batch.
    pub fn look(&mut self, batch: &TokenBatch) {
        let rows = batch.targets.chunks(batch.seq_len.max(1));
        for (targets, &component) in rows.zip(&batch.components) {
            let Some(counts) = self.step.get_mut(component as usize) else { continue };
            counts.rows += 1;
            for id in targets.iter().filter_map(|target| usize::try_from(*target).ok()) {
                counts.tokens += 1;
                counts.bytes += self.token_bytes.get(id).copied().map_or(0, u64::from);
            }
        }
    }

    /// The step is over: what was looked at counts if it was applied.
    pub fn end_step(&mut self, applied: bool) {
        for (step, pending) in self.step.iter_mut().zip(&mut self.pending) {
            let counts = std::mem::take(step);
            if applied {
                pending.add(counts);
            }
        }
    }

    /// Adds what all processes have seen since the last time to `seen`. All must call it at the same step.
    ///
    /// # Errors
    /// When a process is lost.
    pub fn put_together(&mut self, seen: &mut Seen, team: &mut Team) -> Result<(), ClusterError> {
        let words = self.pending.iter().flat_map(|counts| [counts.rows, counts.tokens, counts.bytes]);
        let shares = team.gather(words.flat_map(u64::to_le_bytes).collect())?;
        for share in shares {
            for (name, counts) in self.names.iter().zip(share.as_chunks::<24>().0) {
                let mut words = counts.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word));
                let mut next = || words.next().unwrap_or_default();
                let counts = SeenCounts { rows: next(), tokens: next(), bytes: next() };
                if counts != SeenCounts::default() {
                    seen.components.entry(name.clone()).or_default().add(counts);
                }
            }
        }
        self.pending.fill(SeenCounts::default());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(components: &[u32], targets: &[i32]) -> TokenBatch {
        let (rows, len) = (components.len(), targets.len());
        TokenBatch {
            rows,
            seq_len: len / rows,
            tokens: vec![0; len],
            targets: targets.to_vec(),
            segments: vec![0; len],
            positions: vec![0; len],
            components: components.to_vec(),
            samples: vec![Vec::new(); rows],
        }
    }

    #[test]
    fn applied_rows_count_and_skipped_ones_do_not() {
        let names: Vec<String> = ["ary_Arab/a", "ary_Arab/b", "fra_Latn/a"].map(str::to_owned).into();
        let none = vec![SeenCounts::default(); 3];
        let mut viewer = Viewer { names, token_bytes: vec![0, 2, 5], step: none.clone(), pending: none };
        viewer.look(&batch(&[0, 2], &[1, 2, -1, 0]));
        viewer.end_step(true);
        viewer.look(&batch(&[1], &[2, 2]));
        viewer.end_step(false);
        viewer.look(&batch(&[1], &[1, -1]));
        viewer.end_step(true);
        let counts = |rows, tokens, bytes| SeenCounts { rows, tokens, bytes };
        assert_eq!(viewer.pending, [counts(1, 2, 7), counts(1, 1, 2), counts(1, 1, 0)]);
        let components = viewer.names.iter().cloned().zip(viewer.pending).collect();
        let languages = Seen { components }.languages();
        assert_eq!((languages["ary_Arab"], languages["fra_Latn"]), (counts(2, 3, 9), counts(1, 1, 0)));
    }
}
