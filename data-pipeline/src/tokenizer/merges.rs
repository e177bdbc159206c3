//! Owns learning byte-pair merges from word counts (Sennrich, Haddow and Birch 2016); never touches text or files.
//!
//! The trainer of the `tokenizers` crate gives the same merges (a test compares them), but it counts pairs in 32 bits,
//! wants every repeat of a document as text, and walks hash maps whose order changes from run to run. Here counts
//! have 64 bits and weigh a word as often as the sample wants it, and every choice is the largest count and then the
//! smallest pair of ids, so that the result is a function of the counts alone.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};

/// Two ids side by side.
pub(crate) type Pair = (u32, u32);

/// What to learn from and how far to go.
pub(crate) struct Task<'a> {
    /// Ids of each distinct word with the number of times it occurs. The words' order decides nothing.
    pub words: Vec<(Vec<u32>, u64)>,
    /// Bytes that each id stands for; merges are appended.
    pub pieces: Vec<Vec<u8>>,
    /// Ids below this are never part of a merge.
    pub first_id: u32,
    /// Size at which the vocabulary is complete.
    pub vocab_size: usize,
    /// Pairs seen less often are not merged.
    pub min_frequency: u64,
    /// Longest token in bytes.
    pub max_token_bytes: usize,
    /// Receives the size of the vocabulary now and then.
    pub progress: &'a dyn Fn(usize),
    /// Ends the work early.
    pub stop: &'a AtomicBool,
}

/// The merges in order of rank, with the bytes of every id.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Learned {
    pub merges: Vec<Pair>,
    pub pieces: Vec<Vec<u8>>,
}

/// Merges between two calls of `progress` and looks at `stop`.
const MERGES_PER_REPORT: usize = 256;

struct Learner {
    words: Vec<(Vec<u32>, u64)>,
    counts: HashMap<Pair, u64>,
    /// Words that hold a pair, or held it once.
    places: HashMap<Pair, Vec<u32>>,
    /// Pairs by count, then smallest first. Entries whose count is out of date are corrected when they come up.
    queue: BinaryHeap<(u64, Reverse<Pair>)>,
}

/// Learns merges until the vocabulary is complete or no pair is frequent enough; `None` when stopped.
pub(crate) fn learn(task: Task<'_>) -> Option<Learned> {
    let mut pieces = task.pieces;
    let mut ids: HashMap<Vec<u8>, u32> =
        (0..).zip(&pieces).skip(task.first_id as usize).map(|(id, piece)| (piece.clone(), id)).collect();
    let mut learner = Learner::new(task.words);
    let mut merges = Vec::new();
    while pieces.len() < task.vocab_size {
        if merges.len().is_multiple_of(MERGES_PER_REPORT) {
            (task.progress)(pieces.len());
            if task.stop.load(Ordering::Relaxed) {
                return None;
            }
        }
        let Some((pair, count)) = learner.most_frequent() else { break };
        if count < task.min_frequency.max(1) {
            break;
        }
        let Some(piece) = join(&pieces, pair).filter(|piece| piece.len() <= task.max_token_bytes) else {
            learner.counts.remove(&pair);
            continue;
        };
        // Two routes may lead to the same bytes; they share an id.
        let id = *ids.entry(piece.clone()).or_insert_with(|| {
            pieces.push(piece);
            pieces.len() as u32 - 1
        });
        merges.push(pair);
        learner.merge(pair, id);
    }
    Some(Learned { merges, pieces })
}

fn join(pieces: &[Vec<u8>], (a, b): Pair) -> Option<Vec<u8>> {
    Some([pieces.get(a as usize)?.as_slice(), pieces.get(b as usize)?].concat())
}

impl Learner {
    fn new(words: Vec<(Vec<u32>, u64)>) -> Self {
        let mut counts: HashMap<Pair, u64> = HashMap::new();
        let mut places: HashMap<Pair, Vec<u32>> = HashMap::new();
        for (index, (ids, count)) in (0..).zip(&words) {
            for pair in pairs(ids) {
                *counts.entry(pair).or_default() += count;
                note(&mut places, pair, index);
            }
        }
        let queue = counts.iter().map(|(&pair, &count)| (count, Reverse(pair))).collect();
        Self { words, counts, places, queue }
    }

    /// The most frequent pair; of equally frequent ones, the smallest.
    fn most_frequent(&mut self) -> Option<(Pair, u64)> {
        loop {
            let (count, Reverse(pair)) = self.queue.pop()?;
            match self.counts.get(&pair) {
                Some(&now) if now == count => return Some((pair, count)),
                Some(&now) => self.queue.push((now, Reverse(pair))),
                None => {}
            }
        }
    }

    /// Replaces every `pair` by `id`, from left to right in each word.
    fn merge(&mut self, pair: Pair, id: u32) {
        let mut changes: HashMap<Pair, i128> = HashMap::new();
        let mut at = self.places.remove(&pair).unwrap_or_default();
        at.sort_unstable();
        at.dedup();
        for index in at {
            let Some((ids, count)) = self.words.get_mut(index as usize) else { continue };
            let change = i128::from(*count);
            let places = &mut self.places;
            replace(ids, pair, id, |found, times| {
                *changes.entry(found).or_default() += change * times;
                if times > 0 {
                    note(places, found, index);
                }
            });
        }
        for (changed, by) in changes {
            let before = self.counts.get(&changed).copied().unwrap_or(0);
            let now = u64::try_from(i128::from(before) + by).unwrap_or(0);
            if now == 0 {
                self.counts.remove(&changed);
            } else {
                self.counts.insert(changed, now);
                if now > before {
                    self.queue.push((now, Reverse(changed)));
                }
            }
        }
        self.counts.remove(&pair);
    }
}

fn pairs(ids: &[u32]) -> impl Iterator<Item = Pair> {
    ids.iter().zip(ids.iter().skip(1)).map(|(&a, &b)| (a, b))
}

fn note(places: &mut HashMap<Pair, Vec<u32>>, pair: Pair, index: u32) {
    let list = places.entry(pair).or_default();
    if list.last() != Some(&index) {
        list.push(index);
    }
}

/// Replaces `pair` in a word; `changed` hears of every neighbouring pair that appears (1) or disappears (-1).
fn replace(ids: &mut Vec<u32>, pair: Pair, id: u32, mut changed: impl FnMut(Pair, i128)) {
    let mut merged: Vec<u32> = Vec::with_capacity(ids.len());
    let mut rest = ids.as_slice();
    while let Some((&a, tail)) = rest.split_first() {
        match tail.split_first() {
            Some((&b, after)) if (a, b) == pair => {
                if let Some(&left) = merged.last() {
                    changed((left, a), -1);
                    changed((left, id), 1);
                }
                changed(pair, -1);
                if let Some(&right) = after.first() {
                    changed((b, right), -1);
                    changed((id, right), 1);
                }
                merged.push(id);
                rest = after;
            }
            _ => {
                merged.push(a);
                rest = tail;
            }
        }
    }
    *ids = merged;
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use proptest::prelude::*;

    use super::*;

    fn task(words: &[(&str, u64)], vocab_size: usize) -> Task<'static> {
        static NEVER: AtomicBool = AtomicBool::new(false);
        Task {
            words: words.iter().map(|(word, count)| (word.bytes().map(u32::from).collect(), *count)).collect(),
            pieces: (0..=255).map(|byte| vec![byte]).collect(),
            first_id: 0,
            vocab_size,
            min_frequency: 1,
            max_token_bytes: 64,
            progress: &|_| {},
            stop: &NEVER,
        }
    }

    fn tokens(learned: &Learned) -> Vec<String> {
        learned.pieces.iter().skip(256).map(|piece| String::from_utf8_lossy(piece).into_owned()).collect()
    }

    #[test]
    fn the_most_frequent_pair_comes_first_and_the_smallest_of_equals() {
        let learned = learn(task(&[("roses", 1), ("are", 2), ("red", 1), ("is", 2)], 259)).unwrap();
        // "re" 3, then "are" and "is" 2 each: the pair (97, 256) is smaller than (105, 115).
        assert_eq!(tokens(&learned), ["re", "are", "is"]);
        assert_eq!(learned.merges, [(114, 101), (97, 256), (105, 115)]);
    }

    #[test]
    fn rare_pairs_long_tokens_and_a_stop_end_it() {
        let mut rare = task(&[("ab", 1), ("cd", 5)], 300);
        rare.min_frequency = 2;
        assert_eq!(tokens(&learn(rare).unwrap()), ["cd"]);
        let mut short = task(&[("abcd", 5)], 300);
        short.max_token_bytes = 2;
        assert_eq!(tokens(&learn(short).unwrap()), ["ab", "cd"]);
        let stop = AtomicBool::new(true);
        assert!(learn(Task { stop: &stop, ..task(&[("ab", 5)], 300) }).is_none());
    }

    #[test]
    fn counts_beyond_32_bits_do_not_wrap() {
        let many = u64::from(u32::MAX);
        let learned = learn(task(&[("ab", many), ("abx", many), ("cd", many + 1)], 258)).unwrap();
        assert_eq!(tokens(&learned), ["ab", "cd"]);
    }

    /// Counts all pairs anew for every merge.
    fn slow(words: &[(String, u64)], vocab_size: usize) -> Vec<Pair> {
        let mut words: Vec<(Vec<u32>, u64)> =
            words.iter().map(|(word, count)| (word.bytes().map(u32::from).collect(), *count)).collect();
        let mut pieces: Vec<Vec<u8>> = (0..=255).map(|byte| vec![byte]).collect();
        let mut merges = Vec::new();
        while pieces.len() < vocab_size {
            let mut counts: std::collections::BTreeMap<Pair, u64> = Default::default();
            for (ids, count) in &words {
                pairs(ids).for_each(|pair| *counts.entry(pair).or_default() += count);
            }
            let Some((pair, _)) = counts.iter().max_by_key(|(pair, count)| (**count, Reverse(**pair))) else { break };
            let piece = join(&pieces, *pair).unwrap();
            let id = pieces.iter().position(|p| *p == piece).unwrap_or(pieces.len());
            if id == pieces.len() {
                pieces.push(piece);
            }
            words.iter_mut().for_each(|(ids, _)| replace(ids, *pair, id as u32, |_, _| {}));
            merges.push(*pair);
        }
        merges
    }

    proptest! {
        #[test]
        fn incremental_counts_equal_counting_anew(
            mut words in proptest::collection::vec(("[a-c]{1,9}", 1..5_u64), 1..12), swap: prop::sample::Index,
        ) {
            let expected = slow(&words, 280);
            let at = swap.index(words.len());
            words.rotate_left(at);
            let borrowed: Vec<(&str, u64)> = words.iter().map(|(w, c)| (w.as_str(), *c)).collect();
            prop_assert_eq!(learn(task(&borrowed, 280)).unwrap().merges, expected);
        }
    }
}
