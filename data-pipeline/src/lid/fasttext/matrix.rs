//! Owns the matrices of a fastText model, dense or product-quantised, as they lie in the file; never parses the rest.

/// Centroids of a sub-quantiser.
pub(super) const CENTROIDS: usize = 256;

/// A matrix in the bytes of its file.
#[derive(Debug)]
pub(super) enum Matrix {
    /// Little-endian 32-bit floats, row by row.
    Dense {
        /// The numbers.
        data: Vec<f32>,
        /// Numbers in a row.
        columns: usize,
    },
    /// One byte for each group of columns.
    Quantised {
        /// Codes, row by row.
        codes: Vec<u8>,
        /// The quantiser of the columns.
        quantiser: Quantiser,
        /// Codes and quantiser of the norms of the rows.
        norms: Option<(Vec<u8>, Quantiser)>,
    },
}

/// A product quantiser.
#[derive(Debug)]
pub(super) struct Quantiser {
    /// Columns.
    pub dim: usize,
    /// Groups of columns.
    pub groups: usize,
    /// Columns of a group.
    pub width: usize,
    /// Columns of the last group.
    pub last_width: usize,
    /// Centroids, group by group.
    pub centroids: Vec<f32>,
}

impl Quantiser {
    /// Columns that `code` of a group stands for.
    fn centroid(&self, group: usize, code: u8) -> &[f32] {
        let code = usize::from(code);
        let (start, width) = if group + 1 == self.groups {
            (group * CENTROIDS * self.width + code * self.last_width, self.last_width)
        } else {
            ((group * CENTROIDS + code) * self.width, self.width)
        };
        self.centroids.get(start..start + width).unwrap_or_default()
    }
}

impl Matrix {
    pub(super) fn columns(&self) -> usize {
        match self {
            Matrix::Dense { columns, .. } => *columns,
            Matrix::Quantised { quantiser, .. } => quantiser.dim,
        }
    }

    pub(super) fn rows(&self) -> usize {
        match self {
            Matrix::Dense { data, columns } => data.len() / (*columns).max(1),
            Matrix::Quantised { codes, quantiser, .. } => codes.len() / quantiser.groups.max(1),
        }
    }

    /// Adds a row to `sum`; a row that does not exist adds nothing.
    pub(super) fn add_row(&self, row: usize, sum: &mut [f32]) {
        self.each(row, |column, value| {
            if let Some(slot) = sum.get_mut(column) {
                *slot += value;
            }
        });
    }

    /// Product of a row with a vector.
    pub(super) fn dot(&self, row: usize, vector: &[f32]) -> f32 {
        let mut sum = 0.0;
        self.each(row, |column, value| sum += value * vector.get(column).copied().unwrap_or(0.0));
        sum
    }

    #[inline]
    fn each(&self, row: usize, mut f: impl FnMut(usize, f32)) {
        match self {
            Matrix::Dense { data, columns } => {
                let numbers = data.get(row * columns..(row + 1) * columns).unwrap_or_default();
                numbers.iter().enumerate().for_each(|(column, value)| f(column, *value));
            }
            Matrix::Quantised { codes, quantiser, norms } => {
                let norm = norms.as_ref().map_or(1.0, |(codes, quantiser)| {
                    let code = codes.get(row).copied().unwrap_or(0);
                    quantiser.centroid(0, code).first().copied().unwrap_or(1.0)
                });
                let groups = quantiser.groups;
                let of_row = codes.get(row * groups..(row + 1) * groups).unwrap_or_default();
                for (group, code) in of_row.iter().enumerate() {
                    for (at, value) in quantiser.centroid(group, *code).iter().enumerate() {
                        f(group * quantiser.width + at, norm * value);
                    }
                }
            }
        }
    }
}
