//! Owns the innermost loops of matrix products: tiles held in registers, and packing; never touches threads.

use super::vector::{MAX_LANES, Quad, Vector};
use crate::ops::simd::{Isa, Level};
#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{__m256, __m512};

/// One tile: `C[rows, cols] (+)= A[rows, k] · B[k, cols]` with at most [`Kernel::mr`] rows and [`Kernel::nr`] columns.
pub(crate) struct Tile {
    /// Rows of the tile, at least 1.
    pub(crate) rows: usize,
    /// Columns of the tile.
    pub(crate) cols: usize,
    /// Length of the sums.
    pub(crate) k: usize,
    /// First element of A.
    pub(crate) a: *const f32,
    /// Distance of two rows of A where its columns lie side by side, or of two columns where its rows do.
    pub(crate) a_stride: usize,
    /// First element of a packed panel of B: `k` rows of [`Kernel::nr`] floats.
    pub(crate) b: *const f32,
    /// First element of C, whose columns lie side by side.
    pub(crate) c: *mut f32,
    /// Distance of two rows of C.
    pub(crate) c_stride: usize,
    /// Add to C instead of overwriting it.
    pub(crate) add: bool,
}

/// Vectors to pack side by side: element `i` of lane `l` lies at `start + l * lane_stride + i * stride`.
pub(crate) struct Lanes {
    /// First element.
    pub(crate) start: *const f32,
    /// Number of vectors (rows of A or columns of B).
    pub(crate) count: usize,
    /// Elements of each.
    pub(crate) len: usize,
    /// Distance of two vectors.
    pub(crate) lane_stride: usize,
    /// Distance of two elements of a vector; this or `lane_stride` is 1.
    pub(crate) stride: usize,
}

/// The innermost loops for one instruction set.
pub(crate) struct Kernel {
    /// Rows of a full tile.
    pub(crate) mr: usize,
    /// Columns of a full tile.
    pub(crate) nr: usize,
    by_rows: unsafe fn(&Tile),
    by_columns: unsafe fn(&Tile),
    pack_left: unsafe fn(&Lanes, *mut f32),
    pack_right: unsafe fn(&Lanes, *mut f32),
}

impl Kernel {
    /// The kernel for `isa`.
    pub(crate) fn of(isa: Isa) -> &'static Self {
        match isa.level() {
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => &AVX512,
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => &AVX2,
            _ => &PORTABLE,
        }
    }

    /// Computes a tile whose A has its rows side by side: column `j` at `a + j * a_stride` (so is a packed panel).
    ///
    /// # Safety
    /// `rows <= mr`, `cols <= nr`; A, B and, if `add`, C must be readable and initialised, C writable, as `t` says;
    /// nobody else may use C meanwhile. `self` must come from [`Kernel::of`].
    #[inline]
    pub(crate) unsafe fn tile_of_columns(&self, t: &Tile) {
        debug_assert!(t.rows <= self.mr && t.cols <= self.nr);
        // SAFETY: the caller's promise; `of` chose functions that this CPU can run.
        unsafe { (self.by_columns)(t) }
    }

    /// Computes a tile whose A has its columns side by side: row `i` at `a + i * a_stride`.
    ///
    /// # Safety
    /// As for [`Kernel::tile_of_columns`].
    #[inline]
    pub(crate) unsafe fn tile_of_rows(&self, t: &Tile) {
        debug_assert!(t.rows <= self.mr && t.cols <= self.nr);
        // SAFETY: the caller's promise; `of` chose functions that this CPU can run.
        unsafe { (self.by_rows)(t) }
    }

    /// Packs `lanes` into panels of `width`, which is `mr` or `nr`: panel `p` holds lanes `p * width ..` as `len` rows
    /// of `width` floats, lanes beyond the last one as zeros.
    ///
    /// # Safety
    /// The lanes must be readable, and `to` writable for `count.div_ceil(width) * width * len` floats. `self` must
    /// come from [`Kernel::of`].
    pub(crate) unsafe fn pack(&self, lanes: &Lanes, width: usize, to: *mut f32) {
        debug_assert!(lanes.lane_stride == 1 || lanes.stride == 1 || lanes.count <= 1 || lanes.len <= 1);
        let pack = if width == self.mr { self.pack_left } else { self.pack_right };
        assert!(width == self.mr || width == self.nr, "panels are as wide as a tile is high or wide");
        // SAFETY: the caller's promise; `of` chose functions that this CPU can run.
        unsafe { pack(lanes, to) }
    }
}

/// Repeats a block for every row that a tile can have, with the row's index as a constant. A loop would be unrolled
/// too late for the compiler to keep an array of registers in registers.
macro_rules! for_rows {
    ($row:ident < $rows:ident, $body:block) => {
        for_rows!($row < $rows, $body, 0 1 2 3 4 5 6 7 8 9 10 11)
    };
    ($row:ident < $rows:ident, $body:block, $($index:literal)*) => {
        $({
            const $row: usize = $index;
            if $row < $rows $body
        })*
    };
}

/// Rows of B that are asked for before they are needed: panels of B come from the second-level cache, whose latency the
/// hardware's own prefetching does not hide (5 to 8 % of a product, `docs/log.md`).
const AHEAD: usize = 8;
/// Floats of a cache line.
const CACHE_LINE: usize = 16;

/// Keeps the tile of `ROWS` by two registers in registers while it walks along `k`.
#[inline(always)]
unsafe fn tile<V: Vector, const ROWS: usize, const A_BY_ROWS: bool>(t: &Tile) {
    let (row_stride, step) = if A_BY_ROWS { (t.a_stride, 1) } else { (1, t.a_stride) };
    // SAFETY: the caller of the enclosing function promises the instruction set and that A, B and C are as `t` says.
    unsafe {
        let mut sums = [[V::zero(); 2]; ROWS];
        let (mut a, mut b) = (t.a, t.b);
        for _ in 0..t.k {
            let b0 = V::load(b);
            let b1 = V::load(b.add(V::LANES));
            V::prefetch(b.wrapping_add(AHEAD * 2 * V::LANES));
            if V::LANES >= CACHE_LINE {
                V::prefetch(b.wrapping_add(AHEAD * 2 * V::LANES + V::LANES));
            }
            for_rows!(ROW < ROWS, {
                let x = V::splat(*a.add(ROW * row_stride));
                sums[ROW][0] = x.mul_add(b0, sums[ROW][0]);
                sums[ROW][1] = x.mul_add(b1, sums[ROW][1]);
            });
            a = a.wrapping_add(step);
            b = b.wrapping_add(2 * V::LANES);
        }
        if t.cols == 2 * V::LANES {
            for_rows!(ROW < ROWS, {
                let (left, right) = (t.c.add(ROW * t.c_stride), t.c.add(ROW * t.c_stride + V::LANES));
                if t.add {
                    sums[ROW] = [sums[ROW][0].add(V::load(left)), sums[ROW][1].add(V::load(right))];
                }
                sums[ROW][0].store(left);
                sums[ROW][1].store(right);
            });
        } else {
            let (first, second) = (t.cols.min(V::LANES), t.cols.saturating_sub(V::LANES));
            for_rows!(ROW < ROWS, {
                let left = t.c.add(ROW * t.c_stride);
                let right = left.wrapping_add(V::LANES);
                if t.add {
                    sums[ROW] =
                        [sums[ROW][0].add(V::load_first(left, first)), sums[ROW][1].add(V::load_first(right, second))];
                }
                sums[ROW][0].store_first(left, first);
                sums[ROW][1].store_first(right, second);
            });
        }
    }
}

/// Rows that are copied to one panel before the next.
const COPIED_ROWS: usize = 32;

/// Packs as [`Kernel::pack`] says.
#[inline(always)]
unsafe fn pack<V: Vector, const WIDTH: usize>(lanes: &Lanes, to: *mut f32) {
    let (full, rest) = (lanes.count / WIDTH, lanes.count % WIDTH);
    let panel = |index: usize| {
        (lanes.start.wrapping_add(index * WIDTH * lanes.lane_stride), to.wrapping_add(index * WIDTH * lanes.len))
    };
    // SAFETY: the caller of the enclosing function promises the instruction set, readable lanes and a writable
    // target; every pointer below is that of a lane or of its place.
    unsafe {
        if lanes.lane_stride == 1 {
            // Some rows at a time: few enough that they stay in the first-level cache from panel to panel, and enough
            // that the panels, which often lie whole pages apart, do not push each other out of it.
            for start in (0..lanes.len).step_by(COPIED_ROWS) {
                let rows = start..(start + COPIED_ROWS).min(lanes.len);
                for index in 0..full {
                    let (from, to) = panel(index);
                    for i in rows.clone() {
                        // Long strides are beyond the hardware's own prefetching.
                        V::prefetch(from.wrapping_add((i + COPIED_ROWS) * lanes.stride));
                        from.add(i * lanes.stride).copy_to_nonoverlapping(to.add(i * WIDTH), WIDTH);
                    }
                }
                for i in rows.filter(|_| rest > 0) {
                    let (from, to) = panel(full);
                    let to = to.add(i * WIDTH);
                    from.add(i * lanes.stride).copy_to_nonoverlapping(to, rest);
                    to.add(rest).write_bytes(0, WIDTH - rest);
                }
            }
            return;
        }
        for index in 0..full {
            let (from, to) = panel(index);
            transpose_panel::<V, WIDTH>(lanes, WIDTH, from, to);
        }
        if rest > 0 {
            let (from, to) = panel(full);
            transpose_panel::<V, WIDTH>(lanes, rest, from, to);
        }
    }
}

/// Lanes whose elements lie side by side are transposed in squares; lanes from `valid` on are zeros.
#[inline(always)]
unsafe fn transpose_panel<V: Vector, const WIDTH: usize>(lanes: &Lanes, valid: usize, from: *const f32, to: *mut f32) {
    for offset in (0..WIDTH).step_by(V::LANES) {
        let columns = (WIDTH - offset).min(V::LANES);
        let valid = valid.saturating_sub(offset).min(columns);
        for start in (0..lanes.len).step_by(V::LANES) {
            let rows = (lanes.len - start).min(V::LANES);
            // SAFETY: the caller of `pack` promises readable lanes and room for `WIDTH` floats in every row.
            unsafe {
                let mut square = [V::zero(); MAX_LANES];
                for (l, row) in square.iter_mut().enumerate().take(V::LANES) {
                    if l < valid {
                        let from = from.add((offset + l) * lanes.lane_stride + start);
                        *row = if rows == V::LANES { V::load(from) } else { V::load_first(from, rows) };
                    }
                }
                V::transpose(&mut square);
                for (i, row) in square.iter().enumerate().take(V::LANES) {
                    let to = to.wrapping_add((start + i) * WIDTH + offset);
                    if i < rows && columns == V::LANES {
                        row.store(to);
                    } else if i < rows {
                        row.store_first(to, columns);
                    }
                }
            }
        }
    }
}

/// The entry points of one instruction set: a tile for every number of rows, and packing.
macro_rules! kernel {
    (
        $kernel:ident, $module:ident, $vector:ty, $mr:literal by $nr:literal, [$($rows:literal)*], $($feature:literal)?
    ) => {
        mod $module {
            use super::*;

            $(#[target_feature(enable = $feature)])?
            pub(super) unsafe fn by_rows(t: &Tile) {
                // SAFETY: the caller's promise about `t`; this function is compiled for the instruction set.
                unsafe { match t.rows { $($rows => tile::<$vector, $rows, true>(t),)* _ => {} } }
            }

            $(#[target_feature(enable = $feature)])?
            pub(super) unsafe fn by_columns(t: &Tile) {
                // SAFETY: the caller's promise about `t`; this function is compiled for the instruction set.
                unsafe { match t.rows { $($rows => tile::<$vector, $rows, false>(t),)* _ => {} } }
            }

            $(#[target_feature(enable = $feature)])?
            pub(super) unsafe fn pack_left(lanes: &Lanes, to: *mut f32) {
                // SAFETY: the caller's promise; this function is compiled for the instruction set.
                unsafe { pack::<$vector, $mr>(lanes, to) }
            }

            $(#[target_feature(enable = $feature)])?
            pub(super) unsafe fn pack_right(lanes: &Lanes, to: *mut f32) {
                // SAFETY: the caller's promise; this function is compiled for the instruction set.
                unsafe { pack::<$vector, $nr>(lanes, to) }
            }
        }

        static $kernel: Kernel = Kernel {
            mr: $mr,
            nr: $nr,
            by_rows: $module::by_rows,
            by_columns: $module::by_columns,
            pack_left: $module::pack_left,
            pack_right: $module::pack_right,
        };
    };
}

// 12 by 32: 24 of the 32 registers hold sums, and two loads feed 24 multiply-adds.
#[cfg(target_arch = "x86_64")]
kernel!(AVX512, avx512, __m512, 12 by 32, [1 2 3 4 5 6 7 8 9 10 11 12], "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma");
// 6 by 16: 12 of the 16 registers.
#[cfg(target_arch = "x86_64")]
kernel!(AVX2, avx2, __m256, 6 by 16, [1 2 3 4 5 6], "avx2,fma");
// 4 by 8: 8 of 16 registers of four floats.
kernel!(PORTABLE, portable, Quad, 4 by 8, [1 2 3 4],);
