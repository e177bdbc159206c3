//! Owns how much of a text stood in it before: lines, paragraphs, runs of words; never decides.

use ahash::AHashSet;

use super::signals::Signals;

/// Longest run of words that is looked at.
const MAX_N: usize = 10;

/// A run of words counts as the most frequent one from this count on: twice in fifty words is no pattern.
const MIN_TOP_COUNT: u32 = 3;

/// Lines and paragraphs of a text as they go by.
#[derive(Default)]
pub(super) struct LineRepeats {
    lines: Seen,
    paragraphs: Seen,
    /// Hash and characters of the paragraph that is being read.
    open: Option<(u64, u32)>,
}

/// How many things, how many of them stood before, and their characters.
#[derive(Default)]
struct Seen {
    known: AHashSet<u64>,
    all: u32,
    all_chars: u64,
    again: u32,
    again_chars: u64,
}

impl Seen {
    fn add(&mut self, hash: u64, chars: u32) {
        self.all += 1;
        self.all_chars += u64::from(chars);
        if !self.known.insert(hash) {
            self.again += 1;
            self.again_chars += u64::from(chars);
        }
    }

    fn shares(&self) -> (f32, f32) {
        let share = |part: f64, whole: f64| if whole == 0.0 { 0.0 } else { (part / whole) as f32 };
        (share(f64::from(self.again), f64::from(self.all)), share(self.again_chars as f64, self.all_chars as f64))
    }
}

impl LineRepeats {
    /// A line that is not blank.
    pub fn line(&mut self, hash: u64, chars: u32) {
        self.lines.add(hash, chars);
        let (before, sum) = self.open.unwrap_or((0, 0));
        self.open = Some((mix(before, hash), sum.saturating_add(chars)));
    }

    /// A blank line.
    pub fn blank(&mut self) {
        if let Some((hash, chars)) = self.open.take() {
            self.paragraphs.add(hash, chars);
        }
    }

    /// Writes the shares into the signals.
    pub fn write(mut self, signals: &mut Signals) {
        self.blank();
        (signals.duplicate_lines, signals.duplicate_line_chars) = self.lines.shares();
        (signals.duplicate_paragraphs, signals.duplicate_paragraph_chars) = self.paragraphs.shares();
    }
}

/// One hash from two in order: a multiplication whose halves are folded.
fn mix(a: u64, b: u64) -> u64 {
    let wide = u128::from(a ^ 0x9e37_79b9_7f4a_7c15) * u128::from(b.rotate_left(23) | 1);
    (wide as u64) ^ ((wide >> 64) as u64) ^ b
}

/// Counts of hashes, in a table that is cleared for every length of run.
#[derive(Default)]
struct Counter {
    slots: Vec<(u64, u32)>,
    mask: usize,
}

impl Counter {
    fn clear(&mut self, expected: usize) {
        let size = (2 * expected.max(8)).next_power_of_two();
        self.slots.clear();
        self.slots.resize(size, (0, 0));
        self.mask = size - 1;
    }

    fn slot(&mut self, hash: u64) -> Option<&mut (u64, u32)> {
        let hash = hash.max(1);
        let mut at = (hash ^ (hash >> 32)) as usize & self.mask;
        // At most half of the slots are taken, so a free one is met.
        while self.slots.get(at).is_some_and(|slot| slot.0 != 0 && slot.0 != hash) {
            at = (at + 1) & self.mask;
        }
        let slot = self.slots.get_mut(at)?;
        slot.0 = hash;
        Some(slot)
    }

    /// Counts a hash and gives back how often it was met, this time included.
    fn add(&mut self, hash: u64) -> u32 {
        self.slot(hash).map_or(0, |slot| {
            slot.1 += 1;
            slot.1
        })
    }

    fn count(&mut self, hash: u64) -> u32 {
        self.slot(hash).map_or(0, |slot| slot.1)
    }
}

/// Shares of the letters and digits of a text that lie in repeated runs of words: for 2, 3 and 4 words those of the most
/// frequent run, for 5 to 10 those of all runs that stood before, none counted twice (Gopher, table A1).
///
/// A run of n words can only be repeated where both its runs of n - 1 words are, so each length looks at the places that
/// the one before left over.
pub(super) fn n_grams(hashes: &[u64], lens: &[u32], signals: &mut Signals) {
    let total: f64 = lens.iter().map(|len| f64::from(*len)).sum();
    if total == 0.0 {
        return;
    }
    let mut counter = Counter::default();
    // The hash of the run of n words at every place, and whether it occurs again.
    let mut runs = hashes.to_vec();
    let mut places: Vec<u32> = (0..hashes.len() as u32).collect();
    let share = |chars: u64| (chars as f64 / total) as f32;
    for n in 1..=MAX_N {
        let (top, again) = repeated(&mut counter, &runs, &places, lens, n);
        if n >= 5 {
            let chars = covered(&mut counter, &runs, &places, lens, n);
            match n {
                5 => signals.dup_5_gram = share(chars),
                6 => signals.dup_6_gram = share(chars),
                7 => signals.dup_7_gram = share(chars),
                8 => signals.dup_8_gram = share(chars),
                9 => signals.dup_9_gram = share(chars),
                _ => signals.dup_10_gram = share(chars),
            }
        }
        match n {
            2 => signals.top_2_gram = share(top),
            3 => signals.top_3_gram = share(top),
            4 => signals.top_4_gram = share(top),
            _ => {}
        }
        // Places whose run of n + 1 words can be repeated: the next place is left over as well.
        places = again
            .iter()
            .zip(again.iter().skip(1))
            .filter(|(place, next)| **next == **place + 1)
            .map(|(place, _)| *place)
            .collect();
        if places.is_empty() {
            return;
        }
        for &place in &places {
            let at = place as usize;
            if let Some(next) = hashes.get(at + n).copied()
                && let Some(run) = runs.get_mut(at)
            {
                *run = mix(*run, next);
            }
        }
    }
}

/// Characters of the most frequent run of n words times its count, when it occurs three times or more; and the places whose
/// run does.
fn repeated(counter: &mut Counter, runs: &[u64], places: &[u32], lens: &[u32], n: usize) -> (u64, Vec<u32>) {
    counter.clear(places.len());
    let run_at = |place: u32| runs.get(place as usize).copied().unwrap_or(0);
    let mut top = (0, 0);
    for &place in places {
        let count = counter.add(run_at(place));
        if count >= top.0.max(MIN_TOP_COUNT) {
            let chars = chars_of(lens, place as usize, n) * u64::from(count);
            if count > top.0 || chars > top.1 {
                top = (count, chars);
            }
        }
    }
    let again = places.iter().copied().filter(|place| counter.count(run_at(*place)) > 1).collect();
    (top.1, again)
}

/// Characters of the runs of n words that stood before, from left to right, without overlaps.
fn covered(counter: &mut Counter, runs: &[u64], places: &[u32], lens: &[u32], n: usize) -> u64 {
    counter.clear(places.len());
    let (mut chars, mut free) = (0, 0);
    for &place in places {
        let at = place as usize;
        if at < free {
            continue;
        }
        if counter.add(runs.get(at).copied().unwrap_or(0)) > 1 {
            chars += chars_of(lens, at, n);
            free = at + n;
        }
    }
    chars
}

fn chars_of(lens: &[u32], at: usize, n: usize) -> u64 {
    lens.get(at..at + n).unwrap_or_default().iter().map(|len| u64::from(*len)).sum()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::{HashMap, HashSet};

    use proptest::prelude::*;

    use super::*;

    /// The definitions, word for word.
    fn naive(words: &[u64], lens: &[u32], n: usize) -> (u64, u64) {
        let chars = |at: usize| lens[at..at + n].iter().map(|len| u64::from(*len)).sum::<u64>();
        let mut counts: HashMap<&[u64], u64> = HashMap::new();
        words.windows(n).for_each(|run| *counts.entry(run).or_default() += 1);
        let top = counts.values().max().copied().unwrap_or(0);
        let top_chars = (0..(words.len() + 1).saturating_sub(n))
            .filter(|at| counts[&words[*at..at + n]] == top && top >= u64::from(MIN_TOP_COUNT))
            .map(|at| chars(at) * top)
            .max()
            .unwrap_or(0);
        let (mut seen, mut at, mut dup) = (HashSet::new(), 0, 0);
        while at + n <= words.len() {
            if seen.insert(&words[at..at + n]) {
                at += 1;
            } else {
                dup += chars(at);
                at += n;
            }
        }
        (top_chars, dup)
    }

    proptest! {
        #[test]
        fn shares_are_those_of_the_definition(words in prop::collection::vec(1u64..6, 0..120)) {
            // Words of one spelling have one length.
            let lens: Vec<u32> = words.iter().map(|word| *word as u32 + 1).collect();
            let hashes: Vec<u64> = words.iter().map(|word| word.wrapping_mul(0x9e37_79b9_7f4a_7c15)).collect();
            let mut signals = Signals::default();
            n_grams(&hashes, &lens, &mut signals);
            let total: u32 = lens.iter().sum();
            let share = |chars: u64| if total == 0 { 0.0 } else { (chars as f64 / f64::from(total)) as f32 };
            for (n, value) in [(2, signals.top_2_gram), (3, signals.top_3_gram), (4, signals.top_4_gram)] {
                prop_assert_eq!(value, share(naive(&words, &lens, n).0), "top {}", n);
            }
            let dups = [signals.dup_5_gram, signals.dup_6_gram, signals.dup_7_gram, signals.dup_8_gram, signals.dup_9_gram, signals.dup_10_gram];
            for (n, value) in (5..).zip(dups) {
                prop_assert_eq!(value, share(naive(&words, &lens, n).1), "dup {}", n);
            }
        }
    }

    #[test]
    fn lines_and_paragraphs() {
        let mut repeats = LineRepeats::default();
        for hash in [1, 2, 0, 1, 2, 0, 3] {
            if hash == 0 { repeats.blank() } else { repeats.line(hash, 10) }
        }
        let mut signals = Signals::default();
        repeats.write(&mut signals);
        assert_eq!((signals.duplicate_lines, signals.duplicate_line_chars), (0.4, 0.4));
        assert!((signals.duplicate_paragraphs - 1.0 / 3.0).abs() < 1e-6);
    }
}
