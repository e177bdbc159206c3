//! Owns near duplicates found the slow way: sets of shingles as strings and their exact similarity, no hashing of texts.

use std::collections::{BTreeMap, HashMap};

use data_pipeline::near::NearConfig;
use data_pipeline::near::words::{KeyBuffers, compare_key, words};

/// The sets of a text: by characters, by words, or both at the border.
pub type Sets = [Option<Vec<u32>>; 2];

/// Shingles of all texts, numbered so that rare ones come first.
pub fn shingle_sets<'a>(texts: impl Iterator<Item = (&'a str, &'a str)>, config: &NearConfig) -> Vec<Sets> {
    let (mut numbers, mut counts) = (HashMap::new(), Vec::new());
    let mut sets: Vec<Sets> = texts
        .map(|(text, label)| {
            shingles(text, label, config).map(|kind| {
                kind.map(|shingles| {
                    let number = |shingle: String| {
                        let next = counts.len() as u32;
                        let number = *numbers.entry(shingle).or_insert(next);
                        if number == next {
                            counts.push(0_u32);
                        }
                        number
                    };
                    let mut set: Vec<u32> = shingles.into_iter().map(number).collect();
                    set.sort_unstable();
                    set.dedup();
                    set.iter().for_each(|&number| counts[number as usize] += 1);
                    set
                })
            })
        })
        .collect();
    let mut order: Vec<u32> = (0..counts.len() as u32).collect();
    order.sort_by_key(|&number| counts[number as usize]);
    let mut rank = vec![0; order.len()];
    order.iter().enumerate().for_each(|(place, &number)| rank[number as usize] = place as u32);
    for set in sets.iter_mut().flatten().flatten() {
        set.iter_mut().for_each(|number| *number = rank[*number as usize]);
        set.sort_unstable();
    }
    sets
}

fn shingles(text: &str, label: &str, config: &NearConfig) -> [Option<Vec<String>>; 2] {
    let mut key = String::new();
    compare_key(text, label, &mut KeyBuffers::default(), &mut key);
    let words: Vec<&str> = words(&key).map(|(_, word)| word).collect();
    let windows = |units: Vec<String>, length: usize, joint: &str| -> Vec<String> {
        if units.len() < length {
            return vec![format!("whole {}", units.join(joint))];
        }
        units.windows(length).map(|window| window.join(joint)).collect()
    };
    let by_chars = (!words.is_empty() && words.len() <= config.short_words + config.short_words / 4).then(|| {
        let chars = words.join(" ").chars().map(String::from).collect();
        windows(chars, config.short_chars, "")
    });
    let by_words = (!words.is_empty() && words.len() >= config.short_words)
        .then(|| windows(words.iter().map(|word| (*word).to_owned()).collect(), config.ngram, " "));
    [by_chars.map(|s| tagged("c", s)), by_words.map(|s| tagged("w", s))]
}

fn tagged(kind: &str, shingles: Vec<String>) -> Vec<String> {
    shingles.into_iter().map(|shingle| format!("{kind}{shingle}")).collect()
}

pub fn jaccard(a: &[u32], b: &[u32]) -> f64 {
    let (mut i, mut j, mut shared) = (0, 0, 0);
    while i < a.len() && j < b.len() {
        shared += usize::from(a[i] == b[j]);
        (i, j) = (i + usize::from(a[i] <= b[j]), j + usize::from(b[j] <= a[i]));
    }
    shared as f64 / (a.len() + b.len() - shared) as f64
}

fn alike(a: &Sets, b: &Sets, threshold: f64) -> bool {
    a.iter().zip(b).any(|(a, b)| matches!((a, b), (Some(a), Some(b)) if jaccard(a, b) >= threshold))
}

/// Every pair of at least the threshold, by looking at every pair.
pub fn all_pairs(sets: &[Sets], threshold: f64) -> Vec<(u32, u32)> {
    let mut pairs = Vec::new();
    for a in 0..sets.len() {
        for b in a + 1..sets.len() {
            if alike(&sets[a], &sets[b], threshold) {
                pairs.push((a as u32, b as u32));
            }
        }
    }
    pairs
}

/// The same pairs without looking at all: two sets of similarity t share one of their |x| - t |x| + 1 rarest members
/// (prefix filtering, Chaudhuri, Ganti and Kaushik 2006).
pub fn all_pairs_by_prefix(sets: &[Sets], threshold: f64) -> Vec<(u32, u32)> {
    let mut pairs = Vec::new();
    let mut holders: HashMap<u32, Vec<u32>> = HashMap::new();
    for (b, own) in sets.iter().enumerate() {
        let mut candidates = Vec::new();
        for set in own.iter().flatten() {
            let prefix = set.len() - ((set.len() as f64 * threshold).ceil() as usize).min(set.len()) + 1;
            for &shingle in set.iter().take(prefix) {
                let holders = holders.entry(shingle).or_default();
                candidates.extend_from_slice(holders);
                holders.push(b as u32);
            }
        }
        candidates.sort_unstable();
        candidates.dedup();
        for a in candidates {
            if a as usize != b && alike(&sets[a as usize], own, threshold) {
                pairs.push((a, b as u32));
            }
        }
    }
    pairs.sort_unstable();
    pairs.dedup();
    pairs
}

/// The connected parts of at least two, each sorted, sorted by their first.
pub fn components(count: usize, pairs: &[(u32, u32)]) -> Vec<Vec<u32>> {
    let mut leader: Vec<usize> = (0..count).collect();
    fn find(leader: &mut [usize], mut at: usize) -> usize {
        while leader[at] != at {
            leader[at] = leader[leader[at]];
            at = leader[at];
        }
        at
    }
    for &(a, b) in pairs {
        let (a, b) = (find(&mut leader, a as usize), find(&mut leader, b as usize));
        leader[a.max(b)] = a.min(b);
    }
    let mut groups: BTreeMap<usize, Vec<u32>> = BTreeMap::new();
    for at in 0..count {
        groups.entry(find(&mut leader, at)).or_default().push(at as u32);
    }
    groups.into_values().filter(|group| group.len() > 1).collect()
}
