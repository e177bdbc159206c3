//! Owns the accounting of a preparation: every row read is kept or dropped for a reason, per language and source; never
//! decides either.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// File name of the statistics inside a dataset.
pub const STATS_FILE: &str = "stats.json";
/// Version of the statistics' layout.
pub const STATS_VERSION: u32 = 1;
/// Reason in [`Tally::dropped`] of documents that were in the data set and were removed from it.
pub const TAKEN_DOWN: &str = "taken_down";

/// What was read, kept and dropped.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stats {
    /// [`STATS_VERSION`].
    pub version: u32,
    /// Sums over all components.
    pub total: Tally,
    /// Records written to the quarantine.
    pub quarantined: u64,
    /// Documents per licence expression.
    pub licences: BTreeMap<String, LicenceTally>,
    /// One entry a language and source, sorted.
    pub components: Vec<ComponentStats>,
    /// One entry an input file, in the order read.
    pub files: Vec<FileStats>,
}

/// The rows, documents and sizes of one language and source.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ComponentStats {
    /// `ary_Arab`; `und_Zzzz` for records that could not be read so far.
    pub lang: String,
    /// Corpus name.
    pub source: String,
    /// Documents per licence expression.
    pub licences: BTreeMap<String, u64>,
    /// The figures.
    pub tally: Tally,
    /// How often each rule changed or found something in the rows, by stage and name (`normalize:tatweel`, `pii:phone`).
    /// Rows that were dropped later count as well.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub applied: BTreeMap<String, u64>,
}

/// Counts that add up.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tally {
    /// Records read, good or bad.
    pub rows: u64,
    /// Records that became documents; `rows` less all of `dropped`.
    pub documents: u64,
    /// Of these, held out for validation.
    pub validation_documents: u64,
    /// UTF-8 bytes of the documents.
    pub bytes: u64,
    /// Words of the documents, divided by white space.
    pub words: u64,
    /// Tokens of the training documents, special tokens included.
    pub train_tokens: u64,
    /// Tokens of the validation documents, special tokens included.
    pub validation_tokens: u64,
    /// Records dropped, by reason.
    pub dropped: BTreeMap<String, u64>,
}

/// Number of words of a text: what white space divides.
pub(crate) fn count_words(text: &str) -> u64 {
    // Outside ASCII, white space begins with one of these bytes; without them every byte speaks for itself.
    let wide = text.bytes().fold(false, |found, byte| found | matches!(byte, 0xc2 | 0xe1..=0xe3));
    if wide {
        return text.split_whitespace().count() as u64;
    }
    let bytes = text.as_bytes();
    let is_space = |byte: u8| (byte == b' ') | (byte.wrapping_sub(b'\t') < 5);
    let starts = |before: u8, byte: u8| u8::from(is_space(before) & !is_space(byte));
    // Sums of so few bytes fit one, which lets the compiler count many bytes at a time.
    const BLOCK: usize = u8::MAX as usize;
    let after = bytes.get(1..).unwrap_or_default();
    let blocks = bytes.chunks(BLOCK).zip(after.chunks(BLOCK));
    let later: u64 = blocks.map(|(a, b)| u64::from(a.iter().zip(b).map(|(&a, &b)| starts(a, b)).sum::<u8>())).sum();
    later + bytes.first().map_or(0, |&first| u64::from(starts(b' ', first)))
}

impl Tally {
    /// All records dropped.
    pub fn num_dropped(&self) -> u64 {
        self.dropped.values().sum()
    }

    /// Records dropped as duplicates.
    pub fn duplicates(&self) -> u64 {
        self.dropped.get("duplicate").copied().unwrap_or(0)
    }

    /// Tokens of both splits.
    pub fn tokens(&self) -> u64 {
        self.train_tokens + self.validation_tokens
    }

    fn add(&mut self, other: &Tally) {
        self.rows += other.rows;
        self.documents += other.documents;
        self.validation_documents += other.validation_documents;
        self.bytes += other.bytes;
        self.words += other.words;
        self.train_tokens += other.train_tokens;
        self.validation_tokens += other.validation_tokens;
        for (reason, count) in &other.dropped {
            *self.dropped.entry(reason.clone()).or_default() += count;
        }
    }
}

/// What a licence covers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LicenceTally {
    /// Documents.
    pub documents: u64,
    /// Words.
    pub words: u64,
}

/// One input file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileStats {
    /// Place below the path of its `sources` entry.
    pub file: String,
    /// Number of that entry, from 0.
    pub entry: usize,
    /// Size as stored.
    pub bytes: u64,
    /// Hexadecimal BLAKE3 of the stored bytes.
    pub blake3: String,
    /// Records read.
    pub rows: u64,
    /// Records that became documents.
    pub documents: u64,
    /// Its text encoding, when that is not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoding: Option<String>,
    /// What was wrong with the file, when `on_damage: quarantine` let it pass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub damage: Option<String>,
}

impl ComponentStats {
    /// Adds the figures of a part of the rows.
    pub(crate) fn add(&mut self, part: &ComponentStats) {
        self.tally.add(&part.tally);
        for (licence, count) in &part.licences {
            *self.licences.entry(licence.clone()).or_default() += count;
        }
        for (rule, count) in &part.applied {
            *self.applied.entry(rule.clone()).or_default() += count;
        }
    }
}

impl Stats {
    /// Adds the components up into `total`.
    pub(crate) fn sum(&mut self) {
        self.total = Tally::default();
        for component in &self.components {
            self.total.add(&component.tally);
        }
    }

    /// Checks that everything adds up: rows = documents + dropped in every component, and components, files and licences
    /// agree with the totals.
    ///
    /// # Errors
    /// The first sum that does not.
    pub fn reconcile(&self) -> Result<(), String> {
        let same = |what: &str, a: u64, b: u64| if a == b { Ok(()) } else { Err(format!("{what}: {a} is not {b}")) };
        for ComponentStats { lang, source, licences, tally, .. } in &self.components {
            let name = format!("{lang}/{source}");
            same(&format!("{name} rows"), tally.rows, tally.documents + tally.num_dropped())?;
            same(&format!("{name} licences"), tally.documents, licences.values().sum())?;
        }
        let mut recount = Stats { components: self.components.clone(), ..Stats::default() };
        recount.sum();
        if recount.total != self.total {
            return Err("the total is not the sum of the components".to_owned());
        }
        same("rows of all files", self.total.rows, self.files.iter().map(|f| f.rows).sum())?;
        // Files tell what was read, so they still count what was taken down later.
        let taken_down = self.total.dropped.get(TAKEN_DOWN).copied().unwrap_or(0);
        let read = self.total.documents + taken_down;
        same("documents of all files", read, self.files.iter().map(|f| f.documents).sum())?;
        same("documents of all licences", self.total.documents, self.licences.values().map(|l| l.documents).sum())?;
        same("words of all licences", self.total.words, self.licences.values().map(|l| l.words).sum())
    }

    /// Sums by language, sorted.
    pub fn by_language(&self) -> BTreeMap<String, Tally> {
        let mut sums: BTreeMap<String, Tally> = BTreeMap::new();
        for component in &self.components {
            sums.entry(component.lang.clone()).or_default().add(&component.tally);
        }
        sums
    }

    /// Sums by source, sorted.
    pub fn by_source(&self) -> BTreeMap<String, Tally> {
        let mut sums: BTreeMap<String, Tally> = BTreeMap::new();
        for component in &self.components {
            sums.entry(component.source.clone()).or_default().add(&component.tally);
        }
        sums
    }

    /// Reads the statistics of a dataset directory.
    ///
    /// # Errors
    /// When the file is absent or of another layout.
    pub fn read(dataset: &Path) -> Result<Stats, StatsError> {
        let path = dataset.join(STATS_FILE);
        let failed = |what: String| StatsError { path: path.display().to_string(), what };
        let json = std::fs::read(&path).map_err(|error| failed(error.to_string()))?;
        let stats: Stats = serde_json::from_slice(&json).map_err(|error| failed(error.to_string()))?;
        match stats.version {
            STATS_VERSION => Ok(stats),
            other => Err(failed(format!("its version is {other}, this program reads {STATS_VERSION}"))),
        }
    }
}

/// Statistics that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("{path}: no statistics of a dataset ({what}); give the folder that `data prepare` wrote")]
pub struct StatsError {
    path: String,
    what: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stats() -> Stats {
        let tally = Tally {
            rows: 3,
            documents: 2,
            bytes: 9,
            words: 4,
            dropped: BTreeMap::from([("duplicate".to_owned(), 1)]),
            ..Tally::default()
        };
        let licences = BTreeMap::from([("MIT".to_owned(), 2)]);
        let mut stats = Stats {
            version: STATS_VERSION,
            components: vec![ComponentStats {
                lang: "ary_Arab".into(),
                source: "s".into(),
                licences,
                tally,
                ..ComponentStats::default()
            }],
            licences: BTreeMap::from([("MIT".to_owned(), LicenceTally { documents: 2, words: 4 })]),
            files: vec![FileStats { rows: 3, documents: 2, ..FileStats::default() }],
            ..Stats::default()
        };
        stats.sum();
        stats
    }

    proptest::proptest! {
        #[test]
        fn words_are_what_white_space_divides(text in "[a-z\u{620}-\u{64a}\u{a0}\u{2003}\u{3000}\u{85}\u{2d30} \t\n\u{b}\u{c}\r\u{1c}é]{0,700}") {
            proptest::prop_assert_eq!(count_words(&text), text.split_whitespace().count() as u64);
        }
    }

    #[test]
    fn sums_that_agree_reconcile_and_any_that_does_not_is_named() {
        assert_eq!(stats().reconcile(), Ok(()));
        type Break = fn(&mut Stats);
        let breaks: [(&str, Break); 6] = [
            ("ary_Arab/s rows", |s| s.components.iter_mut().for_each(|c| c.tally.rows += 1)),
            ("ary_Arab/s licences", |s| s.components.iter_mut().for_each(|c| c.licences.clear())),
            ("total", |s| s.total.words += 1),
            ("rows of all files", |s| s.files.clear()),
            ("documents of all files", |s| s.files.iter_mut().for_each(|f| f.documents = 1)),
            ("words of all licences", |s| s.licences.values_mut().for_each(|l| l.words = 0)),
        ];
        for (what, break_it) in breaks {
            let mut broken = stats();
            break_it(&mut broken);
            let message = broken.reconcile().err().unwrap_or_default();
            assert!(message.contains(what), "{what}: {message}");
        }
    }
}
