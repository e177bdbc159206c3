//! Owns what can be an operand of a product and how it is packed into panels; never multiplies.

use super::kernel::{Kernel, Lanes};
use crate::ops::parallel::{Shared, for_each_task};
use crate::ops::scratch::Scratch;
use crate::ops::simd::Isa;
use std::mem::MaybeUninit;
use std::ops::Range;

/// Longest sums that one pass over a block adds to the result.
const K_BLOCK: usize = 256;
/// Blocks but the last are multiples of this long: whole vectors, for packing and for what is computed while packing.
const K_STEP: usize = 16;

/// Number of blocks that sums of length `k` are cut into; 1 for empty sums, which still write zeros.
pub(super) fn k_blocks(k: usize) -> usize {
    k.div_ceil(K_BLOCK).max(1)
}

/// Range of block `index` of sums of length `k`.
pub(super) fn k_range(k: usize, index: usize) -> Range<usize> {
    // No block is empty: this is at most `K_BLOCK`, and `k` is longer than all blocks but one of that length.
    let len = k.div_ceil(k_blocks(k)).next_multiple_of(K_STEP);
    (index * len).min(k)..((index + 1) * len).min(k)
}

/// A read-only matrix: element `(r, c)` lies at `r * row_stride + c * column_stride`, and one of the two strides is 1.
#[derive(Clone, Copy)]
pub(crate) struct Mat<'a> {
    data: &'a [f32],
    rows: usize,
    cols: usize,
    pub(super) row_stride: usize,
    pub(super) column_stride: usize,
}

impl<'a> Mat<'a> {
    /// `data` as `rows` by `cols`, row after row.
    pub(crate) fn new(data: &'a [f32], rows: usize, cols: usize) -> Self {
        assert_eq!(data.len(), rows * cols, "a matrix of {rows} by {cols} needs as many elements");
        Self { data, rows, cols, row_stride: cols, column_stride: 1 }
    }

    /// The transposed matrix, of the same memory.
    pub(crate) fn t(self) -> Self {
        Self {
            rows: self.cols,
            cols: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            ..self
        }
    }

    /// Elements `ks` of some lanes: of rows of a left operand, of columns of a right one.
    fn lanes(&self, lanes: Range<usize>, ks: Range<usize>, side: Side) -> Lanes {
        let (rows, cols) = side.rows_and_cols(lanes, ks);
        assert!(rows.end <= self.rows && cols.end <= self.cols, "a block lies outside its matrix");
        let start = self.data.as_ptr().wrapping_add(rows.start * self.row_stride + cols.start * self.column_stride);
        match side {
            Side::Left => Lanes {
                start,
                count: rows.len(),
                len: cols.len(),
                lane_stride: self.row_stride,
                stride: self.column_stride,
            },
            Side::Right => Lanes {
                start,
                count: cols.len(),
                len: rows.len(),
                lane_stride: self.column_stride,
                stride: self.row_stride,
            },
        }
    }
}

/// A matrix that is a function of other values and need not stand in memory: its blocks are computed where they are
/// packed.
pub(crate) trait Rows: Sync {
    /// Number of rows and of columns.
    fn dims(&self) -> [usize; 2];

    /// Writes columns `columns` of row `row` to `places` and returns them as values.
    fn part<'a>(
        &self,
        isa: Isa,
        row: usize,
        columns: Range<usize>,
        places: &'a mut [MaybeUninit<f32>],
    ) -> &'a mut [f32];
}

/// [`Rows`] as an operand.
#[derive(Clone, Copy)]
pub(crate) struct Made<'a>(pub(crate) Isa, pub(crate) &'a dyn Rows);

impl Made<'_> {
    /// The block of `rows` and `cols`, row after row.
    fn block<'b>(&self, rows: Range<usize>, cols: Range<usize>, room: &'b mut Scratch) -> Mat<'b> {
        let Self(isa, matrix) = *self;
        let (height, width) = (rows.len(), cols.len());
        let places = &mut room.uninit()[..height * width];
        let start = places.as_ptr().cast::<f32>();
        for (row, places) in rows.zip(places.chunks_exact_mut(width.max(1))) {
            let at = places.as_ptr().cast::<f32>();
            let made = matrix.part(isa, row, cols.clone(), places);
            assert!(made.len() == width && made.as_ptr() == at, "all places of a row must be written");
        }
        // SAFETY: the loop above saw every row returned as initialised floats, and `room` stays borrowed.
        Mat::new(unsafe { std::slice::from_raw_parts(start, height * width) }, height, width)
    }
}

/// Which operand of a product a matrix is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Left,
    Right,
}

impl Side {
    /// Rows and columns of a block of lanes (rows of a left operand, columns of a right one) and places in the sums.
    fn rows_and_cols(self, lanes: Range<usize>, ks: Range<usize>) -> (Range<usize>, Range<usize>) {
        if self == Self::Left { (lanes, ks) } else { (ks, lanes) }
    }

    /// Lanes in a panel.
    fn width(self, kernel: &Kernel) -> usize {
        if self == Self::Left { kernel.mr } else { kernel.nr }
    }
}

/// Where the values of an operand come from.
#[derive(Clone, Copy)]
pub(crate) enum Source<'a> {
    /// From memory.
    Stored(Mat<'a>),
    /// From a function.
    Made(Made<'a>),
}

impl Source<'_> {
    fn rows(&self) -> usize {
        match self {
            Self::Stored(mat) => mat.rows,
            Self::Made(made) => made.1.dims()[0],
        }
    }

    fn cols(&self) -> usize {
        match self {
            Self::Stored(mat) => mat.cols,
            Self::Made(made) => made.1.dims()[1],
        }
    }

    /// Packs elements `ks` of `lanes` into panels.
    ///
    /// # Safety
    /// `to` must be writable for the lanes, rounded up to whole panels, times the length of `ks`.
    pub(super) unsafe fn pack(&self, kernel: &Kernel, side: Side, lanes: Range<usize>, ks: Range<usize>, to: *mut f32) {
        let width = side.width(kernel);
        match self {
            // SAFETY: the lanes lie inside the matrix, and the caller promises the room.
            Self::Stored(mat) => unsafe { kernel.pack(&mat.lanes(lanes, ks, side), width, to) },
            Self::Made(made) => {
                let mut room = Scratch::new(lanes.len() * ks.len());
                let (count, len) = (lanes.len(), ks.len());
                let (rows, cols) = side.rows_and_cols(lanes, ks);
                let block = made.block(rows, cols, &mut room);
                // SAFETY: the lanes are the whole block, and the caller promises the room.
                unsafe { kernel.pack(&block.lanes(0..count, 0..len, side), width, to) }
            }
        }
    }
}

/// An operand of a product.
#[derive(Clone, Copy)]
pub(crate) enum Operand<'a> {
    /// Packed already.
    Shared(&'a Panels),
    /// To be packed, whole or by each task, block by block.
    Own(Source<'a>),
}

impl<'a> From<Mat<'a>> for Source<'a> {
    fn from(mat: Mat<'a>) -> Self {
        Self::Stored(mat)
    }
}

impl<'a> From<Made<'a>> for Source<'a> {
    fn from(made: Made<'a>) -> Self {
        Self::Made(made)
    }
}

impl<'a> From<Mat<'a>> for Operand<'a> {
    fn from(mat: Mat<'a>) -> Self {
        Self::Own(mat.into())
    }
}

impl<'a> From<Made<'a>> for Operand<'a> {
    fn from(made: Made<'a>) -> Self {
        Self::Own(made.into())
    }
}

impl<'a> From<&'a Panels> for Operand<'a> {
    fn from(panels: &'a Panels) -> Self {
        Self::Shared(panels)
    }
}

impl Operand<'_> {
    pub(super) fn rows(&self) -> usize {
        match self {
            Self::Shared(Panels { side: Side::Left, lanes, .. }) => *lanes,
            Self::Shared(Panels { k, .. }) => *k,
            Self::Own(source) => source.rows(),
        }
    }

    pub(super) fn cols(&self) -> usize {
        match self {
            Self::Shared(Panels { side: Side::Right, lanes, .. }) => *lanes,
            Self::Shared(Panels { k, .. }) => *k,
            Self::Own(source) => source.cols(),
        }
    }

    /// The operand packed whole; `place` holds it if it was not packed yet.
    pub(super) fn shared<'s>(self, kernel: &Kernel, side: Side, place: &'s mut Option<Panels>) -> Operand<'s>
    where
        Self: 's,
    {
        match self {
            Self::Shared(panels) => Operand::Shared(panels),
            Self::Own(source) => Operand::Shared(place.insert(Panels::pack(kernel, source, side))),
        }
    }

    /// Room for `len` floats where a task has to pack, none where it need not.
    pub(super) fn room(&self, len: usize) -> Scratch {
        Scratch::new(match self {
            Self::Shared(_) => 0,
            Self::Own(_) => len,
        })
    }
}

/// An operand packed whole, for all tasks and perhaps several products: block after block of the sums, panel after panel.
pub(crate) struct Panels {
    data: Scratch,
    side: Side,
    width: usize,
    lanes: usize,
    k: usize,
}

impl Panels {
    /// A right operand, packed in parallel.
    pub(crate) fn right<'a>(isa: Isa, source: impl Into<Source<'a>>) -> Self {
        Self::pack(Kernel::of(isa), source.into(), Side::Right)
    }

    fn pack(kernel: &Kernel, source: Source, side: Side) -> Self {
        const PANELS: usize = 8;
        let width = side.width(kernel);
        let (lanes, k) = match side {
            Side::Left => (source.rows(), source.cols()),
            Side::Right => (source.cols(), source.rows()),
        };
        let len = lanes.next_multiple_of(width) * k;
        let mut packed = Self { data: Scratch::new(len), side, width, lanes, k };
        let layout = Self { data: Scratch::new(0), ..packed };
        let to = Shared::new(&mut packed.data.uninit()[..len]);
        let groups = lanes.div_ceil(width * PANELS);
        for_each_task(groups * k_blocks(k), |task| {
            let (group, block) = (task % groups, task / groups);
            let own = group * width * PANELS..((group + 1) * width * PANELS).min(lanes);
            let ks = k_range(k, block);
            let start = layout.offset(block, group * PANELS);
            // SAFETY: every task fills the panels of its own group and block, which is the room that `pack` needs.
            unsafe {
                let to = to.slice(start..start + own.len().next_multiple_of(width) * ks.len());
                source.pack(kernel, side, own, ks, to.as_mut_ptr().cast());
            }
        });
        packed
    }

    /// Start of the panels of block `block` of the sums, from lane `lane`, the first of its panel.
    pub(super) fn block(&self, block: usize, lane: usize) -> *const f32 {
        self.data.as_ptr().wrapping_add(self.offset(block, lane / self.width))
    }

    /// Offset of panel `panel` of block `block`.
    fn offset(&self, block: usize, panel: usize) -> usize {
        let ks = k_range(self.k, block);
        ks.start * self.lanes.next_multiple_of(self.width) + panel * self.width * ks.len()
    }
}
