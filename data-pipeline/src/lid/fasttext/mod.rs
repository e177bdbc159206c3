//! Owns answering with a supervised fastText model (GlotLID, lid.176): words, subwords, hidden vector, loss; never
//! trains one.
//!
//! The same arithmetic as the reference (facebookresearch/fastText: dictionary.cc, model.cc, loss.cc): the mean of the
//! vectors of all words, subwords and word n-grams of a line, then softmax, a Huffman tree or one sigmoid a label.

mod labels;
mod matrix;
mod read;

use std::collections::HashMap;

use super::Identification;
use super::file::Fault;
use super::tally::{Tally, UND, ZXX};
use super::words::sentences;
use matrix::Matrix;

const END_OF_LINE: &str = "</s>";
const LABEL_PREFIX: &str = "__label__";

/// The loss a model was trained with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Loss {
    /// Huffman tree.
    Hierarchical,
    /// All labels share one unit.
    Softmax,
    /// One yes or no for each label (negative sampling and one-vs-all).
    Sigmoid,
}

/// A supervised fastText model.
#[derive(Debug)]
pub struct FastText {
    /// Words with their numbers.
    words: HashMap<Box<[u8]>, u32, ahash::RandomState>,
    /// Labels without `__label__`.
    labels: Vec<String>,
    loss: Loss,
    /// Children of the inner nodes of the Huffman tree; leaves are the labels.
    tree: Vec<[usize; 2]>,
    bucket: u64,
    shortest: usize,
    longest: usize,
    word_ngrams: usize,
    /// Renumbered subwords of a pruned model; `None` when all are kept.
    pruned: Option<HashMap<u32, u32, ahash::RandomState>>,
    input: Matrix,
    output: Matrix,
    /// Labels as documents carry them, `und` and `zxx` first.
    names: Vec<String>,
}

impl FastText {
    /// Reads a `.bin` or `.ftz`; `None` when the bytes are no fastText model.
    pub fn read(bytes: Vec<u8>) -> Option<Result<FastText, Fault>> {
        read::is_fasttext(&bytes).then(|| read::read(bytes))
    }

    /// Labels that an answer may have.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The language of a text: every sentence by itself, weighted by its letters.
    pub fn identify(&self, text: &str) -> Identification {
        let mut tally = Tally::new(self.names.len());
        sentences(text, |sentence| {
            tally.note(sentence);
            if tally.is_code(sentence) {
                return;
            }
            let (Some(first), Some(last)) = (sentence.words.first(), sentence.words.last()) else { return };
            let Some(spoken) = text.get(first.start..last.end) else { return };
            let letters = sentence.num_letters();
            let probabilities = self.probabilities(spoken);
            tally.add(2, &probabilities, letters, self.labels.len());
            let best = probabilities.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1).then(b.0.cmp(&a.0)));
            tally.push_span(best.map_or(0, |(label, _)| label + 2), (first.start, last.end), letters, false);
        });
        tally.finish(&self.names)
    }

    /// Labels as the model names them with their probabilities for one line, best first.
    pub fn predict(&self, line: &str) -> Vec<(&str, f32)> {
        let mut ranked: Vec<(&str, f32)> =
            self.labels.iter().map(String::as_str).zip(self.probabilities(line)).collect();
        ranked.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(b.0)));
        ranked
    }

    fn probabilities(&self, line: &str) -> Vec<f32> {
        let rows = self.rows_of(line);
        let mut hidden = vec![0f32; self.input.columns()];
        for row in &rows {
            self.input.add_row(*row as usize, &mut hidden);
        }
        let scale = 1.0 / rows.len().max(1) as f32;
        hidden.iter_mut().for_each(|h| *h *= scale);
        if rows.is_empty() {
            return vec![0.0; self.labels.len()];
        }
        match self.loss {
            Loss::Hierarchical => self.descend(&hidden),
            Loss::Sigmoid => (0..self.labels.len()).map(|label| sigmoid(self.output.dot(label, &hidden))).collect(),
            Loss::Softmax => {
                let mut values: Vec<f32> =
                    (0..self.labels.len()).map(|label| self.output.dot(label, &hidden)).collect();
                let top = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                values.iter_mut().for_each(|v| *v = (*v - top).exp());
                let sum: f32 = values.iter().sum();
                values.iter_mut().for_each(|v| *v /= sum);
                values
            }
        }
    }

    /// Probabilities of the leaves of the Huffman tree.
    fn descend(&self, hidden: &[f32]) -> Vec<f32> {
        let leaves = self.labels.len();
        let mut probabilities = vec![0.0; leaves];
        let mut open = vec![(leaves + self.tree.len() - 1, 1.0f32)];
        while let Some((node, p)) = open.pop() {
            match (node.checked_sub(leaves).map(|inner| (inner, self.tree.get(inner))), probabilities.get_mut(node)) {
                (None, Some(leaf)) => *leaf = p,
                (Some((inner, Some([left, right]))), _) => {
                    let to_right = sigmoid(self.output.dot(inner, hidden));
                    open.push((*left, p * (1.0 - to_right)));
                    open.push((*right, p * to_right));
                }
                _ => {}
            }
        }
        probabilities
    }

    /// Input rows of a line: words, their subwords, n-grams of words.
    fn rows_of(&self, line: &str) -> Vec<u32> {
        let mut rows = Vec::new();
        let mut hashes: Vec<i32> = Vec::new();
        let is_space = |c: char| matches!(c, ' ' | '\n' | '\r' | '\t' | '\x0b' | '\x0c' | '\0');
        for word in line.split(is_space).filter(|word| !word.is_empty()).chain([END_OF_LINE]) {
            let known = self.words.get(word.as_bytes()).copied();
            if known.is_none() && word.starts_with(LABEL_PREFIX) {
                continue;
            }
            hashes.push(hash(word.as_bytes()) as i32);
            rows.extend(known);
            if word != END_OF_LINE && self.longest > 0 {
                self.subwords(word, &mut rows);
            }
        }
        for (start, first) in hashes.iter().enumerate() {
            let mut h = *first as i64 as u64;
            for next in hashes.iter().skip(start + 1).take(self.word_ngrams.saturating_sub(1)) {
                h = h.wrapping_mul(116_049_371).wrapping_add(*next as i64 as u64);
                self.push_bucket(h, &mut rows);
            }
        }
        rows
    }

    fn subwords(&self, word: &str, rows: &mut Vec<u32>) {
        let framed = format!("<{word}>");
        let bytes = framed.as_bytes();
        let starts: Vec<usize> = framed.char_indices().map(|(at, _)| at).chain([bytes.len()]).collect();
        let last = starts.len() - 1;
        for first in 0..last {
            for count in self.shortest.max(1)..=self.longest {
                let (Some(from), Some(to)) = (starts.get(first), starts.get(first + count)) else { break };
                // Single edges are no subwords.
                if count == 1 && (first == 0 || first + 1 == last) {
                    continue;
                }
                self.push_bucket(u64::from(hash(bytes.get(*from..*to).unwrap_or_default())), rows);
            }
        }
    }

    fn push_bucket(&self, hash: u64, rows: &mut Vec<u32>) {
        if self.bucket == 0 {
            return;
        }
        let bucket = (hash % self.bucket) as u32;
        let kept = match &self.pruned {
            None => Some(bucket),
            Some(pruned) => pruned.get(&bucket).copied(),
        };
        rows.extend(kept.map(|bucket| self.words.len() as u32 + bucket));
    }
}

/// FNV-1a over signed bytes, as fastText has it.
fn hash(bytes: &[u8]) -> u32 {
    bytes.iter().fold(2_166_136_261, |h: u32, b| (h ^ (*b as i8 as u32)).wrapping_mul(16_777_619))
}

fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

/// `und`, `zxx` and the labels of the model as documents carry them.
fn outer_names(labels: &[String]) -> Vec<String> {
    [UND, ZXX].into_iter().map(str::to_owned).chain(labels.iter().map(|l| labels::document_label(l))).collect()
}
