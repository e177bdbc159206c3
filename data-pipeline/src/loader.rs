//! Owns cutting rows of a dataset into batches of plain integers; never decides which row comes when.

use std::ops::Range;
use std::sync::Arc;

use crate::dataset::{Component, DataError, Dataset, RowSlots};
use crate::order::{Order, RowRef};

/// Rows of tokens, row by row: every field but `components` is `[rows, seq_len]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenBatch {
    /// Number of rows.
    pub rows: usize,
    /// Tokens of a row.
    pub seq_len: usize,
    /// Input ids.
    pub tokens: Vec<u32>,
    /// Id that follows each input; -1 where there is none to learn: after the last token of a document, and in the
    /// filled rest of a component's last row.
    pub targets: Vec<i32>,
    /// Number of the document inside its row, from 0. Tokens attend to their own segment only.
    pub segments: Vec<u32>,
    /// Position inside the document's part of the row, from 0.
    pub positions: Vec<u32>,
    /// Component of each row, `[rows]`: an index into the dataset's training components, or into its validation
    /// components for validation rows.
    pub components: Vec<u32>,
    /// Samples of each row, `[rows]`, by their numbers in the component; empty lists of texts. Of preferences sample `k`
    /// of a row is segments `2 k`, the chosen answer, and `2 k + 1`, the rejected one.
    pub samples: Vec<Vec<u64>>,
}

impl TokenBatch {
    fn zeros(rows: usize, seq_len: usize) -> Self {
        let len = rows * seq_len;
        Self {
            rows,
            seq_len,
            tokens: vec![0; len],
            targets: vec![-1; len],
            segments: vec![0; len],
            positions: vec![0; len],
            components: Vec::with_capacity(rows),
            samples: Vec::with_capacity(rows),
        }
    }

    /// Number of targets to learn.
    pub fn num_targets(&self) -> usize {
        self.targets.iter().filter(|&&target| target >= 0).count()
    }
}

/// Reads the rows of a run.
#[derive(Debug, Clone)]
pub struct Loader {
    dataset: Arc<Dataset>,
    order: Order,
    seq_len: usize,
}

impl Loader {
    /// A loader of rows of `seq_len` tokens in `order`, which was made for this dataset and length.
    pub fn new(dataset: Arc<Dataset>, order: Order, seq_len: usize) -> Self {
        Self { dataset, order, seq_len: seq_len.max(1) }
    }

    /// The dataset.
    pub fn dataset(&self) -> &Arc<Dataset> {
        &self.dataset
    }

    /// The order of the rows.
    pub fn order(&self) -> &Order {
        &self.order
    }

    /// Tokens of a row.
    pub fn seq_len(&self) -> usize {
        self.seq_len
    }

    /// Rows `range` of the run, counted over all steps and ranks.
    ///
    /// # Errors
    /// When the order was made for another dataset or sequence length.
    pub fn rows(&self, range: Range<u64>) -> Result<TokenBatch, DataError> {
        self.batch(self.dataset.train(), range, |i| self.order.row(i))
    }

    /// Rows `range` of a training component, an index into [`Dataset::train`], in their order on disk.
    ///
    /// # Errors
    /// A component or row past the last.
    pub fn training_rows(&self, component: usize, range: Range<u64>) -> Result<TokenBatch, DataError> {
        self.batch(self.dataset.train(), range, |row| RowRef { component, row })
    }

    /// Rows `range` of a held-out component, an index into [`Dataset::validation`], in their order on disk.
    ///
    /// # Errors
    /// A component or row past the last.
    pub fn validation_rows(&self, component: usize, range: Range<u64>) -> Result<TokenBatch, DataError> {
        self.batch(self.dataset.validation(), range, |row| RowRef { component, row })
    }

    fn batch(
        &self,
        components: &[Component],
        range: Range<u64>,
        row_of: impl Fn(u64) -> RowRef,
    ) -> Result<TokenBatch, DataError> {
        let mut batch = TokenBatch::zeros(range.end.saturating_sub(range.start) as usize, self.seq_len);
        let fields = (batch.tokens.chunks_exact_mut(self.seq_len))
            .zip(batch.targets.chunks_exact_mut(self.seq_len))
            .zip(batch.segments.chunks_exact_mut(self.seq_len))
            .zip(batch.positions.chunks_exact_mut(self.seq_len));
        for (i, (((tokens, targets), segments), positions)) in range.zip(fields) {
            let RowRef { component: number, row } = row_of(i);
            let component = components.get(number).ok_or_else(|| DataError::OutOfRange {
                what: "component",
                number: number as u64,
                of: "the dataset".to_owned(),
                available: components.len() as u64,
            })?;
            component.fill_row(row, RowSlots { tokens, targets, segments, positions })?;
            batch.components.push(number as u32);
            batch.samples.push(component.samples_of(row, self.seq_len));
        }
        Ok(batch)
    }
}
