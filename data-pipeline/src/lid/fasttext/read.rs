//! Owns the layout of fastText files, versions 11 and 12, with every length checked against the bytes that are there;
//! never answers.

use std::collections::HashMap;

use super::matrix::{CENTROIDS, Matrix, Quantiser};
use super::{FastText, LABEL_PREFIX, Loss, outer_names};
use crate::lid::file::Fault;

const MAGIC: i32 = 793_712_314;
const SUPERVISED: i32 = 3;
/// Longest word, in bytes.
const MAX_WORD_BYTES: usize = 4096;
/// Longest subword, in letters; the usual value is at most 6.
const MAX_SUBWORD_LETTERS: i32 = 64;
/// Most labels, as each costs a product for every sentence.
const MAX_LABELS: usize = 1 << 16;

/// Whether the bytes open like a fastText model.
pub(super) fn is_fasttext(bytes: &[u8]) -> bool {
    bytes.starts_with(&MAGIC.to_le_bytes())
}

/// Reads a model.
pub(super) fn read(bytes: Vec<u8>) -> Result<FastText, Fault> {
    let mut cursor = Cursor { bytes: &bytes, at: 4 };
    let version = cursor.i32()?;
    if version != 11 && version != 12 {
        return Err(cursor.fault(format!("version {version}; versions 11 and 12 are read")));
    }
    let arguments = Arguments::read(&mut cursor, version)?;
    let dictionary = Dictionary::read(&mut cursor)?;
    let quantised = cursor.u8()? != 0;
    let input = if quantised { cursor.quantised()? } else { cursor.dense()? };
    let quantised_output = cursor.u8()? != 0;
    let output = if quantised && quantised_output { cursor.quantised()? } else { cursor.dense()? };
    let labels = dictionary.labels.len();
    if arguments.dim != input.columns() || output.columns() != input.columns() || output.rows() < labels {
        return Err(cursor.fault("the matrices do not fit the dictionary".into()));
    }
    let tree = if arguments.loss == Loss::Hierarchical { huffman(&dictionary.counts) } else { Vec::new() };
    Ok(FastText {
        names: outer_names(&dictionary.labels),
        words: dictionary.words,
        labels: dictionary.labels,
        loss: arguments.loss,
        tree,
        bucket: arguments.bucket,
        shortest: arguments.shortest,
        longest: arguments.longest,
        word_ngrams: arguments.word_ngrams,
        pruned: dictionary.pruned,
        input,
        output,
    })
}

struct Arguments {
    dim: usize,
    loss: Loss,
    bucket: u64,
    shortest: usize,
    longest: usize,
    word_ngrams: usize,
}

impl Arguments {
    /// dim, ws, epoch, minCount, neg, wordNgrams, loss, model, bucket, minn, maxn, lrUpdateRate, t (Args::save).
    fn read(cursor: &mut Cursor<'_>, version: i32) -> Result<Arguments, Fault> {
        let mut numbers = [0i32; 12];
        for number in &mut numbers {
            *number = cursor.i32()?;
        }
        cursor.take(8)?;
        let [dim, _, _, _, _, word_ngrams, loss, kind, bucket, shortest, mut longest, _] = numbers;
        if kind != SUPERVISED {
            return Err(cursor.fault("word vectors, not a classifier; identification needs a supervised model".into()));
        }
        let loss = match loss {
            1 => Loss::Hierarchical,
            2 | 4 => Loss::Sigmoid,
            3 => Loss::Softmax,
            other => return Err(cursor.fault(format!("unknown loss {other}"))),
        };
        if version == 11 {
            // Supervised models of version 11 were trained without subwords, whatever they say.
            longest = 0;
        }
        if dim <= 0 || bucket < 0 || shortest < 0 || !(0..=MAX_SUBWORD_LETTERS).contains(&longest) || word_ngrams > 64 {
            return Err(cursor.fault("settings out of range".into()));
        }
        Ok(Arguments {
            dim: dim as usize,
            loss,
            bucket: bucket as u64,
            shortest: shortest as usize,
            longest: longest as usize,
            word_ngrams: word_ngrams.max(1) as usize,
        })
    }
}

struct Dictionary {
    words: HashMap<Box<[u8]>, u32, ahash::RandomState>,
    labels: Vec<String>,
    counts: Vec<i64>,
    pruned: Option<HashMap<u32, u32, ahash::RandomState>>,
}

impl Dictionary {
    fn read(cursor: &mut Cursor<'_>) -> Result<Dictionary, Fault> {
        let (size, num_words, num_labels) = (cursor.i32()?, cursor.i32()?, cursor.i32()?);
        let _tokens = cursor.i64()?;
        let pruned_size = cursor.i64()?;
        let fits = num_words >= 0 && num_labels > 0 && num_words.checked_add(num_labels) == Some(size);
        if !fits || num_labels as usize > MAX_LABELS {
            return Err(cursor.fault(format!("{num_words} words and {num_labels} labels of {size} entries")));
        }
        let mut read = Dictionary { words: HashMap::default(), labels: Vec::new(), counts: Vec::new(), pruned: None };
        for entry in 0..size {
            let word = cursor.text()?;
            let count = cursor.i64()?;
            let is_label = cursor.u8()? != 0;
            if is_label != (entry >= num_words) {
                return Err(cursor.fault("labels among the words".into()));
            }
            if is_label {
                let name = String::from_utf8_lossy(word);
                read.labels.push(name.strip_prefix(LABEL_PREFIX).unwrap_or(&name).to_owned());
                read.counts.push(count.max(0));
            } else if read.words.insert(word.into(), entry as u32).is_some() {
                return Err(cursor.fault("a word stands twice in the dictionary".into()));
            }
        }
        if pruned_size >= 0 {
            let mut pruned = HashMap::default();
            for _ in 0..pruned_size {
                let (from, to) = (cursor.i32()?, cursor.i32()?);
                pruned.insert(from as u32, to as u32);
            }
            read.pruned = Some(pruned);
        }
        Ok(read)
    }
}

/// Children of the inner nodes: the two rarest nodes are joined until one is left (loss.cc, buildTree). Counts fall.
fn huffman(counts: &[i64]) -> Vec<[usize; 2]> {
    const NOT_YET: i64 = 1_000_000_000_000_000;
    let leaves = counts.len();
    let inner = leaves.saturating_sub(1);
    // Counts as large as the mark of a node that is not made yet would let a node be chosen before it is there.
    let mut weights: Vec<i64> = counts.iter().map(|&count| count.clamp(0, NOT_YET - 1)).collect();
    weights.resize(leaves + inner, NOT_YET);
    let mut tree = Vec::with_capacity(inner);
    let (mut next_leaf, mut next_inner) = (leaves as isize - 1, leaves);
    for node in leaves..leaves + inner {
        let mut children = [0usize; 2];
        for child in &mut children {
            let leaf = usize::try_from(next_leaf).ok().and_then(|at| weights.get(at)).copied();
            if leaf.is_some_and(|leaf| weights.get(next_inner).is_none_or(|inner| leaf < *inner)) {
                *child = next_leaf as usize;
                next_leaf -= 1;
            } else {
                *child = next_inner;
                next_inner += 1;
            }
        }
        let sum = children.iter().filter_map(|c| weights.get(*c)).fold(0i64, |a, b| a.saturating_add(*b));
        if let Some(weight) = weights.get_mut(node) {
            *weight = sum.min(NOT_YET - 1);
        }
        tree.push(children);
    }
    tree
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn fault(&self, what: String) -> Fault {
        (self.at as u64, what)
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], Fault> {
        let end = self.at.checked_add(count);
        let found = end.and_then(|end| self.bytes.get(self.at..end));
        let found = found.ok_or_else(|| self.fault(format!("{count} bytes are missing")))?;
        self.at += count;
        Ok(found)
    }

    fn u8(&mut self) -> Result<u8, Fault> {
        Ok(self.take(1)?.first().copied().unwrap_or(0))
    }

    fn i32(&mut self) -> Result<i32, Fault> {
        let bytes = self.take(4)?.try_into().map_err(|_| self.fault("cut short".into()))?;
        Ok(i32::from_le_bytes(bytes))
    }

    fn i64(&mut self) -> Result<i64, Fault> {
        let bytes = self.take(8)?.try_into().map_err(|_| self.fault("cut short".into()))?;
        Ok(i64::from_le_bytes(bytes))
    }

    fn text(&mut self) -> Result<&'a [u8], Fault> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let end = rest.iter().take(MAX_WORD_BYTES).position(|b| *b == 0);
        let end = end.ok_or_else(|| self.fault(format!("a word of more than {MAX_WORD_BYTES} bytes")))?;
        let word = self.take(end)?;
        self.take(1)?;
        Ok(word)
    }

    fn floats(&mut self, count: usize) -> Result<Vec<f32>, Fault> {
        let bytes = count.checked_mul(4).ok_or_else(|| self.fault("a matrix too large".into()))?;
        let found = self.take(bytes)?;
        let number = |b: &[u8]| b.try_into().map(f32::from_le_bytes).unwrap_or(0.0);
        Ok(found.chunks_exact(4).map(number).collect())
    }

    fn size(&mut self) -> Result<(usize, usize), Fault> {
        let (rows, columns) = (self.i64()?, self.i64()?);
        match (usize::try_from(rows), usize::try_from(columns)) {
            (Ok(rows), Ok(columns)) if columns > 0 => Ok((rows, columns)),
            _ => Err(self.fault(format!("a matrix of {rows} rows and {columns} columns"))),
        }
    }

    fn dense(&mut self) -> Result<Matrix, Fault> {
        let (rows, columns) = self.size()?;
        let count = rows.checked_mul(columns).ok_or_else(|| self.fault("a matrix too large".into()))?;
        Ok(Matrix::Dense { data: self.floats(count)?, columns })
    }

    fn quantised(&mut self) -> Result<Matrix, Fault> {
        let with_norms = self.u8()? != 0;
        let (rows, columns) = self.size()?;
        let code_bytes = self.i32()?;
        let codes = self.take(usize::try_from(code_bytes).unwrap_or(usize::MAX))?.to_vec();
        let quantiser = self.quantiser()?;
        let fits = quantiser.dim == columns && rows.checked_mul(quantiser.groups) == Some(codes.len());
        if !fits {
            return Err(self.fault("codes and quantiser of different sizes".into()));
        }
        let norms = if with_norms {
            let codes = self.take(rows)?.to_vec();
            Some((codes, self.quantiser()?))
        } else {
            None
        };
        Ok(Matrix::Quantised { codes, quantiser, norms })
    }

    fn quantiser(&mut self) -> Result<Quantiser, Fault> {
        let mut sizes = [0usize; 4];
        for size in &mut sizes {
            let value = self.i32()?;
            *size = usize::try_from(value).map_err(|_| self.fault(format!("a size of {value}")))?;
        }
        let [dim, groups, width, last_width] = sizes;
        let covers =
            groups > 0 && last_width <= width && (groups - 1).checked_mul(width).is_some_and(|w| w + last_width == dim);
        if !covers {
            return Err(self.fault("a quantiser whose groups do not make its columns".into()));
        }
        let count = dim.checked_mul(CENTROIDS).ok_or_else(|| self.fault("a quantiser too large".into()))?;
        Ok(Quantiser { dim, groups, width, last_width, centroids: self.floats(count)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rarest_labels_lie_deepest_in_the_tree() {
        assert_eq!(huffman(&[10, 3, 1]), [[2, 1], [3, 0]]);
        assert!(huffman(&[5]).is_empty());
        // Counts that do not fall make a tree all the same.
        assert_eq!(huffman(&[1, 100, 2]).len(), 2);
        // Every node has one parent, however large the counts: a walk down the tree ends.
        for counts in [vec![i64::MAX; 40], vec![i64::MAX, 1, i64::MAX - 5, 0, 1 << 50], vec![-7; 9]] {
            let children: std::collections::BTreeSet<usize> = huffman(&counts).into_iter().flatten().collect();
            assert_eq!(children, (0..2 * counts.len() - 2).collect());
        }
    }
}
