//! Owns the linear model of one script: hashed character n-grams, marker counts, bias; never touches files.
//!
//! Logit of a label = bias + Σ weights of the known n-grams / √(number of them) + Σ weights of marker features. The
//! n-grams are those of 2 to 5 letters inside a word with its two edges, and whole words. A bitmap over hash values says
//! which are known, its rank is the row of weights, so that most n-grams of unseen words cost one probe.

/// Most labels of one script; rows of weights have this many entries.
pub const MAX_LABELS: usize = 16;

/// Bits of the hash of an n-gram.
pub const HASH_BITS: u32 = 20;

/// Features for each marker group: seen, seen twice, seen three times, share of the words.
pub const GROUP_FEATURES: usize = 4;

const BITMAP_WORDS: usize = 1 << (HASH_BITS - 6);
const LONGEST_NGRAM: usize = 5;
const EDGE: u32 = 1;
const WHOLE_WORD: u32 = 0x51ED_270B;

/// One value for each label.
pub type Logits = [f32; MAX_LABELS];

/// Sums of quantised weights for the n-grams of a word.
#[derive(Debug, Clone, Copy, Default)]
pub struct WordScore {
    /// Sum of weights for each label.
    pub sums: [i16; MAX_LABELS],
    /// One over the root of the number of known n-grams, for a word by itself.
    pub root: f32,
    /// Known n-grams.
    pub known: u16,
    /// N-grams of the word.
    pub total: u16,
}

/// The model of one script.
#[derive(Debug, Clone, Default)]
pub struct Model {
    /// Labels in the order of the logits.
    pub labels: Vec<String>,
    /// Bitmap of the known hash values.
    bitmap: Vec<u64>,
    /// For each word of the bitmap, the number of known values before it. Apart from the bitmap: most probes end there.
    before: Vec<u32>,
    /// Quantised weights of each known value.
    rows: Vec<[i8; MAX_LABELS]>,
    /// What one unit of a quantised weight is worth.
    pub scale: f32,
    /// Logit of each label for no evidence.
    pub bias: Logits,
    /// Weights of the marker features, [`GROUP_FEATURES`] rows for each group.
    pub markers: Vec<Logits>,
    /// Factors on the logits, by number of words: 1 to 2, 3 to 6, more. They make scores probabilities.
    pub sharpness: [f32; 3],
}

/// Calls `each` with the hash of every n-gram of a folded word.
#[inline]
pub fn ngrams(letters: &[u32], mut each: impl FnMut(u32)) {
    let mut framed = [EDGE; super::words::MAX_WORD_LETTERS + 2];
    let len = letters.len().min(super::words::MAX_WORD_LETTERS);
    for (to, from) in framed.iter_mut().skip(1).zip(letters.iter().take(len)) {
        *to = *from;
    }
    let framed = framed.get(..len + 2).unwrap_or_default();
    let mut whole = WHOLE_WORD;
    for (start, first) in framed.iter().enumerate() {
        let mut hash = step(0, *first);
        whole = step(whole, *first);
        for letter in framed.iter().skip(start + 1).take(LONGEST_NGRAM - 1) {
            hash = step(hash, *letter);
            each(hash >> (32 - HASH_BITS));
        }
    }
    if framed.len() > LONGEST_NGRAM {
        each(whole >> (32 - HASH_BITS));
    }
}

#[inline]
fn step(hash: u32, letter: u32) -> u32 {
    (hash.rotate_left(7) ^ letter).wrapping_mul(0x9E37_79B1)
}

impl Model {
    /// A model of rows of weights; `known` are their hash values in rising order.
    pub fn new(labels: Vec<String>, known: &[u32], rows: Vec<[i8; MAX_LABELS]>) -> Model {
        let mut model = Model { labels, rows, scale: 1.0, sharpness: [1.0; 3], ..Model::default() };
        model.bitmap = vec![0; BITMAP_WORDS];
        for value in known {
            if let Some(word) = model.bitmap.get_mut((value >> 6) as usize) {
                *word |= 1 << (value & 63);
            }
        }
        let mut known = 0;
        for word in &model.bitmap {
            model.before.push(known);
            known += word.count_ones();
        }
        model
    }

    /// The known hash values in rising order.
    pub fn known(&self) -> Vec<u32> {
        let values = 0..(self.bitmap.len() as u32) << 6;
        values.filter(|value| self.row(*value).is_some()).collect()
    }

    /// The quantised rows in the order of [`Self::known`].
    pub fn rows(&self) -> &[[i8; MAX_LABELS]] {
        &self.rows
    }

    #[inline]
    fn row(&self, value: u32) -> Option<&[i8; MAX_LABELS]> {
        let at = (value >> 6) as usize;
        let word = *self.bitmap.get(at)?;
        let bit = 1u64 << (value & 63);
        if word & bit == 0 {
            return None;
        }
        let rank = self.before.get(at)? + (word & (bit - 1)).count_ones();
        self.rows.get(rank as usize)
    }

    /// Sums of the weights of a word.
    #[inline]
    pub fn score_word(&self, letters: &[u32]) -> WordScore {
        let mut score = WordScore::default();
        ngrams(letters, |value| {
            score.total += 1;
            if let Some(row) = self.row(value) {
                score.known += 1;
                for (sum, weight) in score.sums.iter_mut().zip(row) {
                    *sum = sum.wrapping_add(i16::from(*weight));
                }
            }
        });
        score.root = 1.0 / f32::from(score.known.max(1)).sqrt();
        score
    }

    /// Logits of a sentence from the sums over its words and its marker features, before calibration.
    pub fn logits(&self, sums: &[i32; MAX_LABELS], known: u32, counts: &MarkerCounts) -> Logits {
        let mut logits = self.bias;
        let factor = self.scale / (known.max(1) as f32).sqrt();
        for (logit, sum) in logits.iter_mut().zip(sums) {
            *logit += factor * *sum as f32;
        }
        counts.each_feature(|feature, value| {
            if let Some(row) = self.markers.get(feature) {
                for (logit, weight) in logits.iter_mut().zip(row) {
                    *logit += value * weight;
                }
            }
        });
        logits
    }

    /// The factor on logits for a text of `num_words` words.
    pub fn sharpness_of(&self, num_words: u32) -> f32 {
        self.sharpness[sharpness_class(num_words)]
    }
}

/// Which of the three factors a text of `num_words` words takes.
pub fn sharpness_class(num_words: u32) -> usize {
    match num_words {
        0..=2 => 0,
        3..=6 => 1,
        _ => 2,
    }
}

/// How many words of a sentence belong to each marker group.
#[derive(Debug, Clone, Default)]
pub struct MarkerCounts {
    counts: [u16; super::lexicon::MAX_GROUPS],
    words: u32,
}

impl MarkerCounts {
    /// Counts one word with its groups.
    #[inline]
    pub fn add(&mut self, mut mask: u32) {
        self.words += 1;
        while mask != 0 {
            if let Some(count) = self.counts.get_mut(mask.trailing_zeros() as usize) {
                *count = count.saturating_add(1);
            }
            mask &= mask - 1;
        }
    }

    /// Back to nothing counted.
    pub fn clear(&mut self) {
        *self = MarkerCounts::default();
    }

    /// Calls `each` with the number and the value of every feature that is not zero.
    pub fn each_feature(&self, mut each: impl FnMut(usize, f32)) {
        for (group, count) in self.counts.iter().enumerate().filter(|(_, count)| **count > 0) {
            let first = group * GROUP_FEATURES;
            for seen in 0..usize::from((*count).min(3)) {
                each(first + seen, 1.0);
            }
            each(first + 3, (f32::from(*count) / self.words.max(1) as f32).min(0.6));
        }
    }
}

/// Probabilities of the first `labels` logits times `sharpness`.
pub fn softmax(logits: &Logits, labels: usize, sharpness: f32) -> Logits {
    let used = logits.get(..labels.min(MAX_LABELS)).unwrap_or_default();
    let top = used.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut probabilities = [0.0; MAX_LABELS];
    let mut sum = 0.0;
    for (p, logit) in probabilities.iter_mut().zip(used) {
        *p = ((logit - top) * sharpness).exp();
        sum += *p;
    }
    probabilities.iter_mut().for_each(|p| *p /= sum);
    probabilities
}
