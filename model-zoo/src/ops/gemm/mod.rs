//! Owns single-precision matrix products on the CPU: how they are cut into tasks and blocks; never touches tensors.
//!
//! Products are cut by their shape alone and every element is summed in one fixed order, so the bits of a result do
//! not depend on the number of threads. The blocking is Goto's (K. Goto, R. van de Geijn, "Anatomy of
//! high-performance matrix multiplication", 2008): panels of one operand stay in the second-level cache, a panel of
//! the other in the first, the tile of the result in registers. The smaller operand is packed once for all tasks;
//! the larger one is packed by each task, which reads it from memory once and keeps it in its own cache. An operand of
//! several products can be packed once for all of them, and one that is a function of other values need not stand in
//! memory: it is computed where it is packed.

mod kernel;
mod operand;
#[cfg(test)]
mod tests;
mod vector;

pub(crate) use kernel::{Kernel, Lanes, Tile};
pub(crate) use operand::{Made, Mat, Operand, Panels, Rows};

use crate::ops::parallel::{for_each_task, initialised, part, written};
use crate::ops::scratch::Scratch;
use crate::ops::simd::{Isa, add_assign};
use operand::{Side, k_blocks, k_range};
use std::mem::MaybeUninit;
use std::ops::Range;

/// Panels of A (of `mr` rows) that a task packs at a time.
const ROW_PANELS: usize = 12;
/// Panels of B (of `nr` columns) that stay in the second-level cache while panels of A pass by.
const COLUMN_PANELS: usize = 16;
/// A task smaller than this many multiply-adds costs more to hand out than it saves.
const TASK_FMAS: usize = 3_000_000;
/// Tasks that a product is cut into if it is large enough, even where a task could be larger.
const TASKS: usize = 32;
/// Sums longer than this many blocks are cut into parts that are computed apart and then added.
const SPLIT_BLOCKS: usize = 8;

/// `A · B` into places that hold nothing yet; returns them as values.
pub(crate) fn product<'a, 'b, 'c>(
    isa: Isa,
    a: impl Into<Operand<'a>>,
    b: impl Into<Operand<'b>>,
    c: &'c mut [MaybeUninit<f32>],
) -> &'c mut [f32] {
    let (a, b) = (a.into(), b.into());
    assert_eq!(c.len(), a.rows() * b.cols(), "the result of a product has the rows of A and the columns of B");
    // SAFETY: `c` is exclusive and has room for the result, which `run` writes whole without reading it.
    unsafe {
        run(isa, a, b, Place(c.as_mut_ptr().cast()), false);
        initialised(c)
    }
}

/// `C += A · B`.
pub(crate) fn add_product<'a, 'b>(isa: Isa, a: impl Into<Operand<'a>>, b: impl Into<Operand<'b>>, c: &mut [f32]) {
    let (a, b) = (a.into(), b.into());
    assert_eq!(c.len(), a.rows() * b.cols(), "the result of a product has the rows of A and the columns of B");
    // SAFETY: `c` is exclusive, initialised and of the size of the result.
    unsafe { run(isa, a, b, Place(c.as_mut_ptr()), true) }
}

/// Chooses how to cut the product, by its shape, and computes it.
///
/// # Safety
/// `c` must be writable, exclusive and, if `add`, initialised for `a.rows() * b.cols()` floats.
unsafe fn run(isa: Isa, a: Operand, b: Operand, c: Place, add: bool) {
    assert_eq!(a.cols(), b.rows(), "a product needs as many columns of A as rows of B");
    let kernel = Kernel::of(isa);
    let (m, n, k) = (a.rows(), b.cols(), a.cols());
    if m == 0 || n == 0 {
        return;
    }
    if k_blocks(k) >= 4 * SPLIT_BLOCKS && m * n <= 1 << 20 {
        // SAFETY: the caller's promise.
        return unsafe { split_sums(isa, a, b, c, add) };
    }
    let shared = match (a, b) {
        // Nothing but the rows is left to pack.
        (Operand::Own(_), Operand::Shared(_)) => Side::Right,
        _ if m <= n => Side::Left,
        _ => Side::Right,
    };
    let mut panels = None;
    let (a, b) = match shared {
        Side::Left => (a.shared(kernel, shared, &mut panels), b),
        Side::Right => (a, b.shared(kernel, shared, &mut panels)),
    };
    let job = Job { kernel, a, b, k, c, c_stride: n, add };
    let (width, lanes, most, least) = match shared {
        Side::Left => (kernel.nr, n, COLUMN_PANELS, COLUMN_PANELS / 8),
        Side::Right => (kernel.mr, m, ROW_PANELS, ROW_PANELS / 3),
    };
    let count = lanes.div_ceil(width);
    let tasks = tasks(count, most, least, m * n * k);
    for_each_task(tasks, |task| {
        let panels = part(count, tasks, task);
        let own = panels.start * width..(panels.end * width).min(lanes);
        let (rows, cols) = if shared == Side::Left { (0..m, own) } else { (own, 0..n) };
        // SAFETY: tasks cover disjoint parts of C, for which the caller made its promise.
        unsafe { job.block(rows, cols, 0..k_blocks(k)) }
    });
}

/// `A · B` for each of `bs`. What a task needs of A is packed, or computed, once for all of them.
pub(crate) fn products<'a>(isa: Isa, a: impl Into<Operand<'a>>, bs: &[Mat]) -> Vec<Vec<f32>> {
    let (a, kernel) = (a.into(), Kernel::of(isa));
    let (m, k) = (a.rows(), a.cols());
    let widths: Vec<usize> = bs.iter().map(|&b| Operand::from(b).cols()).collect();
    let by_rows = m > widths.iter().copied().max().unwrap_or(0) && k_blocks(k) < 4 * SPLIT_BLOCKS;
    let mut panels = None;
    if !by_rows {
        let a = a.shared(kernel, Side::Left, &mut panels);
        return bs.iter().zip(&widths).map(|(&b, n)| written(m * n, |c| product(isa, a, b, c))).collect();
    }
    let packed: Vec<Panels> = bs.iter().map(|&b| Panels::right(isa, b)).collect();
    let mut results: Vec<Vec<f32>> = widths.iter().map(|n| Vec::with_capacity(m * n)).collect();
    let mut jobs = Vec::new();
    for ((b, &n), c) in packed.iter().zip(&widths).zip(&mut results) {
        assert_eq!(k, Operand::from(b).rows(), "a product needs as many columns of A as rows of B");
        jobs.push((Job { kernel, a, b: b.into(), k, c: Place(c.as_mut_ptr()), c_stride: n, add: false }, n));
    }
    let count = m.div_ceil(kernel.mr);
    let tasks = tasks(count, ROW_PANELS, ROW_PANELS / 3, m * k * widths.iter().sum::<usize>());
    for_each_task(tasks, |task| {
        let panels = part(count, tasks, task);
        let rows = panels.start * kernel.mr..(panels.end * kernel.mr).min(m);
        let Some((first, _)) = jobs.first() else { return };
        let (mut own_a, mut own_b) = (first.room_a(&rows), Scratch::new(0));
        for block in 0..k_blocks(k) {
            for (index, (job, n)) in jobs.iter().enumerate() {
                let own_a = (&mut own_a, index == 0);
                // SAFETY: tasks cover disjoint rows of the results, which have room for them; a task has no more rows
                // than are packed at a time, and the jobs have the same A.
                unsafe { job.pass(rows.clone(), 0..*n, block, block > 0, own_a, &mut own_b) }
            }
        }
    });
    for (result, n) in results.iter_mut().zip(widths) {
        // SAFETY: the tasks wrote all rows.
        unsafe { result.set_len(m * n) };
    }
    results
}

/// Number of tasks, along the operand that every task packs a part of; by the shape of the product alone.
fn tasks(panels: usize, most: usize, least: usize, fmas: usize) -> usize {
    let wanted = (fmas / TASK_FMAS).clamp(1, TASKS);
    panels.div_ceil(most).max(wanted.min(panels.div_ceil(least)))
}

/// Long sums of a small result: parts of the sums are tasks, and the partial results are added in order.
///
/// # Safety
/// As for [`run`].
unsafe fn split_sums(isa: Isa, a: Operand, b: Operand, c: Place, add: bool) {
    const ROWS: usize = 16;
    let (m, n, k) = (a.rows(), b.cols(), a.cols());
    let blocks = k_blocks(k);
    let parts = (blocks / SPLIT_BLOCKS).min(16);
    let mut partial = Scratch::new((parts - 1) * m * n);
    let partial = Place(partial.as_mut_ptr());
    let place = |index: usize| if index == 0 { c } else { partial.at((index - 1) * m * n) };
    for_each_task(parts, |index| {
        let job = Job { kernel: Kernel::of(isa), a, b, k, c: place(index), c_stride: n, add: add && index == 0 };
        // SAFETY: every task writes m * n floats of its own; for `c` the caller made its promise.
        unsafe { job.block(0..m, 0..n, part(blocks, parts, index)) }
    });
    for_each_task(m.div_ceil(ROWS), |task| {
        let start = task * ROWS * n;
        let len = ((task + 1) * ROWS).min(m) * n - start;
        for index in 1..parts {
            // SAFETY: all partial results are written by now, and tasks cover disjoint ranges.
            let (sum, other) = unsafe {
                (
                    std::slice::from_raw_parts_mut(c.at(start).0, len),
                    std::slice::from_raw_parts(place(index).at(start).0, len),
                )
            };
            add_assign(isa, sum, other);
        }
    });
}

/// Where results go. Several tasks hold a copy; each writes elements of its own.
#[derive(Clone, Copy)]
struct Place(*mut f32);

// SAFETY: a pointer to floats; the functions here that write through it promise that no two tasks write one element.
unsafe impl Send for Place {}
// SAFETY: as above.
unsafe impl Sync for Place {}

impl Place {
    fn at(self, offset: usize) -> Self {
        Self(self.0.wrapping_add(offset))
    }
}

/// A product as the tasks see it.
struct Job<'a, 'b> {
    kernel: &'static Kernel,
    a: Operand<'a>,
    b: Operand<'b>,
    k: usize,
    c: Place,
    c_stride: usize,
    add: bool,
}

impl Job<'_, '_> {
    /// Computes `rows` and `cols` of C, summing over `blocks`. Both ranges start at a panel.
    ///
    /// # Safety
    /// That part of C must be writable, exclusive and, if `add`, initialised.
    unsafe fn block(&self, rows: Range<usize>, cols: Range<usize>, blocks: Range<usize>) {
        let (mut own_a, mut own_b) = (self.room_a(&rows), self.room_b(&cols));
        for block in blocks.clone() {
            let add = self.add || block != blocks.start;
            // SAFETY: the caller's promise, and the rooms are those of the ranges.
            unsafe { self.pass(rows.clone(), cols.clone(), block, add, (&mut own_a, true), &mut own_b) }
        }
    }

    /// Room for what a task packs of A at a time, if it has to.
    fn room_a(&self, rows: &Range<usize>) -> Scratch {
        let mr = self.kernel.mr;
        self.a.room(rows.len().min(ROW_PANELS * mr).next_multiple_of(mr) * k_range(self.k, 0).len())
    }

    /// The same of B.
    fn room_b(&self, cols: &Range<usize>) -> Scratch {
        let nr = self.kernel.nr;
        self.b.room(cols.len().min(COLUMN_PANELS * nr).next_multiple_of(nr) * k_range(self.k, 0).len())
    }

    /// Adds block `block` of the sums to `rows` and `cols` of C, or writes it there. Unless `stale`, `own_a` holds the
    /// panels of `rows` already, which are as many as it has room for.
    ///
    /// # Safety
    /// As for [`Job::block`]; the rooms must be those of the ranges.
    unsafe fn pass(
        &self,
        rows: Range<usize>,
        cols: Range<usize>,
        block: usize,
        add: bool,
        (own_a, stale): (&mut Scratch, bool),
        own_b: &mut Scratch,
    ) {
        let (row_step, col_step) = (ROW_PANELS * self.kernel.mr, COLUMN_PANELS * self.kernel.nr);
        for col in cols.clone().step_by(col_step) {
            let some_cols = col..(col + col_step).min(cols.end);
            // SAFETY: `own_b` has room for a block of that many columns.
            let b = unsafe { self.packed(self.b, Side::Right, some_cols.clone(), block, own_b, true) };
            for row in rows.clone().step_by(row_step) {
                let some_rows = row..(row + row_step).min(rows.end);
                let stale = (stale && col == cols.start) || rows.len() > row_step;
                // SAFETY: `own_a` has room for a block of that many rows; the tiles lie inside of this call's part of C.
                unsafe {
                    let a = self.packed(self.a, Side::Left, some_rows.clone(), block, own_a, stale);
                    self.tiles(some_rows, some_cols.clone(), k_range(self.k, block).len(), a, b, add);
                }
            }
        }
    }

    /// Start of the packed panels of `lanes`. If nobody packed them for all tasks, they are packed into `own` now,
    /// unless they lie there already and are not `stale`.
    ///
    /// # Safety
    /// `own` must have room for them.
    unsafe fn packed(
        &self,
        operand: Operand,
        side: Side,
        lanes: Range<usize>,
        block: usize,
        own: &mut Scratch,
        stale: bool,
    ) -> *const f32 {
        match operand {
            Operand::Shared(panels) => panels.block(block, lanes.start),
            Operand::Own(_) if !stale => own.as_ptr(),
            Operand::Own(source) => {
                // SAFETY: the caller promises the room.
                unsafe { source.pack(self.kernel, side, lanes, k_range(self.k, block), own.as_mut_ptr()) };
                own.as_ptr()
            }
        }
    }

    /// Computes a block of C from packed panels: a panel of A stays in the first-level cache while those of B pass.
    ///
    /// # Safety
    /// As for [`Job::block`]; `a` and `b` must hold the panels of `rows` and `cols`, `k` long.
    unsafe fn tiles(&self, rows: Range<usize>, cols: Range<usize>, k: usize, a: *const f32, b: *const f32, add: bool) {
        let (mr, nr) = (self.kernel.mr, self.kernel.nr);
        for (ip, row) in rows.clone().step_by(mr).enumerate() {
            for (jp, col) in cols.clone().step_by(nr).enumerate() {
                let tile = Tile {
                    rows: mr.min(rows.end - row),
                    cols: nr.min(cols.end - col),
                    k,
                    a: a.wrapping_add(ip * mr * k),
                    a_stride: mr,
                    b: b.wrapping_add(jp * nr * k),
                    c: self.c.at(row * self.c_stride + col).0,
                    c_stride: self.c_stride,
                    add,
                };
                // SAFETY: the panels hold `k` rows of `mr` and `nr` floats; the caller promises C.
                unsafe { self.kernel.tile_of_columns(&tile) }
            }
        }
    }
}
