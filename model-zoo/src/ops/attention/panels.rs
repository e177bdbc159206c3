//! Owns keys and values (or rows of queries) packed as operands of the tiles; never computes scores.

use super::{AttentionShape, Problem};
use crate::ops::gemm::{Kernel, Lanes};
use crate::ops::parallel::for_each_task;
use crate::ops::scratch::Scratch;
use crate::ops::simd::{Isa, scale};

/// How a matrix `[positions, head_dim]` is packed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// Positions side by side: the transposed matrix as a right operand, or the matrix itself as a left one.
    Positions,
    /// Elements side by side: the matrix as a right operand.
    Elements,
}

/// The keys or values of all heads, packed as right operands.
pub(super) struct HeadPanels {
    data: Scratch,
    head_len: usize,
    kv_heads: usize,
}

impl HeadPanels {
    /// Packs `x` `[batch · seq, kv_heads · head_dim]`, multiplied by `factor`.
    pub(super) fn pack(problem: &Problem, x: &[f32], order: Order, factor: f32) -> Self {
        let AttentionShape { batch, seq, kv_heads, head_dim, .. } = problem.shape;
        let kernel = Kernel::of(problem.isa);
        let head_len = panels_len(seq, head_dim, order, kernel.nr);
        let mut data = Scratch::new(batch * kv_heads * head_len);
        let target = Address(data.as_mut_ptr());
        for_each_task(batch * kv_heads, |task| {
            let (b, head) = (task / kv_heads, task % kv_heads);
            let rows = Rows {
                start: &x[b * seq * problem.shape.kv_stride() + head * head_dim..],
                count: seq,
                stride: problem.shape.kv_stride(),
                head_dim,
            };
            // SAFETY: every task fills the `head_len` floats of its own head.
            unsafe { rows.pack(problem.isa, order, kernel.nr, factor, target.at(task * head_len)) };
        });
        Self { data, head_len, kv_heads }
    }

    /// Start of the panels of a head.
    pub(super) fn head(&self, b: usize, head: usize) -> *const f32 {
        self.data.as_ptr().wrapping_add((b * self.kv_heads + head) * self.head_len)
    }
}

/// Floats of a packed matrix.
pub(super) fn panels_len(positions: usize, head_dim: usize, order: Order, width: usize) -> usize {
    match order {
        Order::Positions => positions.next_multiple_of(width) * head_dim,
        Order::Elements => head_dim.next_multiple_of(width) * positions,
    }
}

/// Some positions of one head.
pub(super) struct Rows<'a> {
    /// From the first element on.
    pub(super) start: &'a [f32],
    /// Number of positions.
    pub(super) count: usize,
    /// Distance of two positions.
    pub(super) stride: usize,
    /// Elements of each.
    pub(super) head_dim: usize,
}

impl Rows<'_> {
    /// Packs the rows into panels of `width`, multiplied by `factor`.
    ///
    /// # Safety
    /// `to` must be writable for [`panels_len`] floats.
    pub(super) unsafe fn pack(&self, isa: Isa, order: Order, width: usize, factor: f32, to: *mut f32) {
        let needed = (self.count.max(1) - 1) * self.stride + self.head_dim;
        assert!(self.start.len() >= needed, "positions lie outside of their tensor");
        let start = self.start.as_ptr();
        let lanes = match order {
            Order::Positions => {
                Lanes { start, count: self.count, len: self.head_dim, lane_stride: self.stride, stride: 1 }
            }
            Order::Elements => {
                Lanes { start, count: self.head_dim, len: self.count, lane_stride: 1, stride: self.stride }
            }
        };
        // SAFETY: the assertion above keeps the lanes inside the slice; the caller promises the target, which
        // packing writes whole.
        unsafe {
            Kernel::of(isa).pack(&lanes, width, to);
            if factor != 1.0 {
                let len = panels_len(self.count, self.head_dim, order, width);
                scale(isa, std::slice::from_raw_parts_mut(to, len), factor);
            }
        }
    }
}

/// Where tasks write. Several hold a copy; each writes elements of its own.
#[derive(Clone, Copy)]
pub(super) struct Address(pub(super) *mut f32);

// SAFETY: a pointer to floats; the functions that write through it promise that no two tasks write one element.
unsafe impl Send for Address {}
// SAFETY: as above.
unsafe impl Sync for Address {}

impl Address {
    /// The address `offset` elements further on.
    pub(super) fn at(self, offset: usize) -> *mut f32 {
        self.0.wrapping_add(offset)
    }
}
