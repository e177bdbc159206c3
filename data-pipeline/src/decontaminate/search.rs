//! Owns looking for benchmark items in one text; never touches files.

use std::collections::HashMap;

use serde::Serialize;

use super::config::OnHit;
use super::index::{Benchmarks, gram};
use crate::near::hash::hash_bytes;
use crate::near::words::{KeyBuffers, compare_key, words};

/// Longest matched text of a hit, in characters.
const MATCHED_CHARS: usize = 400;

/// What becomes of a document that is hit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// It stays; the hit is listed.
    Report,
    /// It goes.
    Drop,
}

/// A benchmark item in a document.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Hit {
    /// Benchmark file, as a path below its folder.
    pub benchmark: String,
    /// Number of the item in the file, from 1: record of a table, line of a text.
    pub item: u32,
    /// Field of the record.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub field: String,
    /// Words in a row that are the same.
    pub words: u32,
    /// Share of the item's n-grams that the document holds.
    pub coverage: f64,
    /// The words that match, in the key form.
    pub matched: String,
    /// What becomes of the document.
    pub action: Action,
}

/// Room that [`Benchmarks::hits`] keeps between texts.
#[derive(Debug, Default)]
pub struct SearchBuffers {
    buffers: KeyBuffers,
    key: String,
    /// All segments' keys, end to end.
    keys: String,
    hashes: Vec<u64>,
    /// Where in `keys` each word lies.
    spans: Vec<(usize, usize)>,
}

/// A target as far as it has been met.
#[derive(Debug, Default)]
struct Match {
    /// First and last n-gram of the run at hand.
    run: (usize, usize),
    /// First n-gram and length in n-grams of the longest run.
    best: (usize, usize),
    grams: Vec<u64>,
}

impl Benchmarks {
    /// The items that `text` holds, one hit an item, by file and number; `label` is the language label or empty.
    pub fn hits(&self, text: &str, label: &str, buffers: &mut SearchBuffers) -> Vec<Hit> {
        let mut whole: Vec<(u32, usize, usize)> = Vec::new();
        self.cut(text, label, buffers, &mut whole);
        let base = self.config.short_ngram;
        let mut matches: HashMap<u32, Match> = HashMap::new();
        for (at, window) in buffers.hashes.windows(base).enumerate() {
            let hash = gram(window);
            for &target in self.gram(hash) {
                matches.entry(target).or_default().meet(at, hash);
            }
        }
        let mut hits: HashMap<(u32, u32), Hit> = HashMap::new();
        for (target, found) in matches {
            self.judge(target, found, label, buffers, &mut hits);
        }
        for (target, from, to) in whole {
            let count = (to - from) as u32;
            self.add(target, count, 1.0, buffers.between(from, to), &mut hits);
        }
        let mut hits: Vec<((u32, u32), Hit)> = hits.into_iter().collect();
        hits.sort_by_key(|(place, _)| *place);
        hits.into_iter().map(|(_, hit)| hit).collect()
    }

    /// Words of the whole text into the buffers; lines and sentences that are an item as a whole into `whole`.
    fn cut(&self, text: &str, label: &str, buffers: &mut SearchBuffers, whole: &mut Vec<(u32, usize, usize)>) {
        let SearchBuffers { buffers: key_buffers, key, keys, hashes, spans } = buffers;
        keys.clear();
        hashes.clear();
        spans.clear();
        let short = |count: usize| count > 0 && count < self.config.short_ngram;
        for line in text.lines() {
            let from_line = hashes.len();
            let mut sentences = 0;
            for sentence in Sentences(line) {
                let from = hashes.len();
                compare_key(sentence, label, key_buffers, key);
                let offset = keys.len();
                for (at, word) in words(key) {
                    hashes.push(hash_bytes(0, word.as_bytes()));
                    spans.push((offset + at, offset + at + word.len()));
                }
                keys.push_str(key);
                keys.push(' ');
                sentences += 1;
                self.meet_whole(hashes, from, &short, whole);
            }
            if sentences > 1 {
                self.meet_whole(hashes, from_line, &short, whole);
            }
        }
        if text.trim().contains('\n') {
            self.meet_whole(hashes, 0, &short, whole);
        }
    }

    fn meet_whole(
        &self,
        hashes: &[u64],
        from: usize,
        short: &dyn Fn(usize) -> bool,
        found: &mut Vec<(u32, usize, usize)>,
    ) {
        let words = hashes.get(from..).unwrap_or_default();
        if short(words.len()) {
            found.extend(self.whole(gram(words)).iter().map(|&target| (target, from, hashes.len())));
        }
    }

    fn judge(
        &self,
        target: u32,
        mut found: Match,
        label: &str,
        buffers: &SearchBuffers,
        hits: &mut HashMap<(u32, u32), Hit>,
    ) {
        let Some(place) = self.targets.get(target as usize) else { return };
        found.close();
        let (from, grams) = found.best;
        let words = grams + self.config.short_ngram - 1;
        let needed = self.config.words_needed(label).min(place.reach as usize);
        if words < needed {
            return;
        }
        found.grams.sort_unstable();
        found.grams.dedup();
        let coverage = found.grams.len() as f64 / f64::from(place.grams.max(1));
        self.add(target, words as u32, coverage, buffers.between(from, from + words), hits);
    }

    /// Keeps the hit of an item that covers most.
    fn add(&self, target: u32, words: u32, coverage: f64, matched: &str, hits: &mut HashMap<(u32, u32), Hit>) {
        let Some(place) = self.targets.get(target as usize) else { return };
        let drops = self.config.on_hit == OnHit::Drop && coverage >= self.config.coverage;
        let hit = Hit {
            benchmark: self.file_name(place).to_owned(),
            item: place.item,
            field: place.field.clone(),
            words,
            // Four digits are enough to judge by, and the same on paper everywhere.
            coverage: (coverage * 10_000.0).round() / 10_000.0,
            matched: matched.chars().take(MATCHED_CHARS).collect(),
            action: if drops { Action::Drop } else { Action::Report },
        };
        let key = (place.file, place.item);
        let better = |old: &Hit| {
            (hit.coverage, hit.words) > (old.coverage, old.words)
                || (hit.coverage, hit.words) == (old.coverage, old.words) && hit.field < old.field
        };
        if hits.get(&key).is_none_or(better) {
            hits.insert(key, hit);
        }
    }
}

impl Match {
    fn meet(&mut self, at: usize, hash: u64) {
        if self.grams.is_empty() {
            self.run = (at, at);
        } else if self.run.1 + 1 == at {
            self.run.1 = at;
        } else if self.run.1 != at {
            self.close();
            self.run = (at, at);
        }
        self.grams.push(hash);
    }

    fn close(&mut self) {
        let length = self.run.1 - self.run.0 + 1;
        if length > self.best.1 {
            self.best = (self.run.0, length);
        }
    }
}

impl SearchBuffers {
    /// The key form from one word to before another.
    fn between(&self, from: usize, to: usize) -> &str {
        let start = self.spans.get(from).map(|span| span.0);
        let end = to.checked_sub(1).and_then(|last| self.spans.get(last)).map(|span| span.1);
        match (start, end) {
            (Some(start), Some(end)) => self.keys.get(start..end).unwrap_or_default(),
            _ => "",
        }
    }
}

/// The sentences of a line: cut after marks that end one, when white space follows.
struct Sentences<'a>(&'a str);

impl<'a> Iterator for Sentences<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        if self.0.is_empty() {
            return None;
        }
        let mut ended = false;
        for (at, c) in self.0.char_indices() {
            if ended && c.is_whitespace() {
                let (sentence, rest) = self.0.split_at_checked(at)?;
                self.0 = rest;
                return Some(sentence);
            }
            ended = matches!(c, '.' | '!' | '?' | '؟' | '؛' | ';' | '…' | '۔' | '"' | '»' | '”')
                && (ended || !matches!(c, '"' | '»' | '”'));
        }
        Some(std::mem::take(&mut self.0))
    }
}
