//! Owns which keys a query sees; never touches values.

use std::collections::HashMap;
use std::ops::Range;

/// The documents of every row of a batch.
#[derive(Clone, Debug)]
pub(super) struct Spans {
    seq: usize,
    segments: Vec<i32>,
    /// The first key that each query sees, counted in its row.
    first: Vec<usize>,
    /// Whether every document is one run of positions: then a query sees exactly the keys from its first to itself.
    runs: bool,
}

impl Spans {
    /// From the document of every position, `[batch, seq]`, and the most keys that a query sees.
    pub(super) fn new(segments: &[i32], seq: usize, window: Option<usize>) -> Self {
        let window = window.unwrap_or(usize::MAX);
        let mut first = Vec::with_capacity(segments.len());
        let mut runs = true;
        for row in segments.chunks(seq.max(1)) {
            let mut starts = HashMap::new();
            for (i, id) in row.iter().enumerate() {
                let start = *starts.entry(id).or_insert(i);
                runs &= start == i || row[i - 1] == *id;
                first.push(start.max((i + 1).saturating_sub(window)));
            }
        }
        Self { seq, segments: segments.to_vec(), first, runs }
    }

    /// The first key that query `i` of row `b` sees.
    pub(super) fn first(&self, b: usize, i: usize) -> usize {
        self.first[b * self.seq + i]
    }

    /// The first key that any of the queries sees.
    pub(super) fn first_of(&self, b: usize, queries: Range<usize>) -> usize {
        let first = &self.first[b * self.seq..][queries];
        first.iter().copied().min().unwrap_or(0)
    }

    /// Prepares the scores of query `i` with the keys from `start` on for the softmax: minus infinity where the query
    /// does not see the key. Returns whether it sees any of them.
    pub(super) fn mask(&self, b: usize, i: usize, start: usize, scores: &mut [f32]) -> bool {
        let from = self.first(b, i).max(start) - start;
        let to = (i + 1).saturating_sub(start).min(scores.len());
        if from >= to {
            return false;
        }
        scores[..from].fill(f32::NEG_INFINITY);
        scores[to..].fill(f32::NEG_INFINITY);
        if self.runs {
            return true;
        }
        let row = &self.segments[b * self.seq..][..self.seq];
        let mut any = false;
        for (score, segment) in scores[from..to].iter_mut().zip(&row[start + from..]) {
            if *segment == row[i] {
                any = true;
            } else {
                *score = f32::NEG_INFINITY;
            }
        }
        any
    }
}

#[cfg(test)]
mod tests {
    use super::Spans;

    fn visible(segments: &[i32], start: usize, i: usize) -> Option<Vec<usize>> {
        visible_in(segments, None, start, i)
    }

    fn visible_in(segments: &[i32], window: Option<usize>, start: usize, i: usize) -> Option<Vec<usize>> {
        let spans = Spans::new(segments, segments.len(), window);
        let mut scores = vec![1.0; segments.len() - start];
        let any = spans.mask(0, i, start, &mut scores);
        any.then(|| (0..scores.len()).filter(|&j| scores[j] == 1.0).map(|j| j + start).collect())
    }

    #[test]
    fn a_query_sees_its_document_up_to_itself() {
        let segments = [0, 0, 0, 1, 1, 2];
        assert_eq!(visible(&segments, 0, 1), Some(vec![0, 1]));
        assert_eq!(visible(&segments, 0, 4), Some(vec![3, 4]));
        assert_eq!(visible(&segments, 4, 4), Some(vec![4]));
        assert_eq!(visible(&segments, 4, 3), None);
        assert_eq!(visible(&segments, 0, 5), Some(vec![5]));
    }

    #[test]
    fn a_window_hides_what_lies_before_it() {
        let segments = [0, 0, 0, 0, 1, 1];
        assert_eq!(visible_in(&segments, Some(2), 0, 3), Some(vec![2, 3]));
        assert_eq!(visible_in(&segments, Some(2), 0, 0), Some(vec![0]));
        assert_eq!(visible_in(&segments, Some(3), 0, 5), Some(vec![4, 5]));
        assert_eq!(visible_in(&segments, Some(1), 0, 5), Some(vec![5]));
        assert_eq!(visible_in(&[7, 3, 7, 7, 3], Some(3), 0, 4), Some(vec![4]));
    }

    #[test]
    fn a_document_may_go_on_after_another() {
        let segments = [7, 3, 7, 7, 3];
        assert_eq!(visible(&segments, 0, 3), Some(vec![0, 2, 3]));
        assert_eq!(visible(&segments, 0, 4), Some(vec![1, 4]));
        assert_eq!(visible(&segments, 2, 4), Some(vec![4]));
    }
}
