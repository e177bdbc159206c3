//! Owns the forward pass of attention: blocks of queries against strips of keys; never touches gradients.

use super::panels::{Address, HeadPanels, Order, Rows, panels_len};
use super::{AttentionShape, Problem};
use crate::ops::gemm::{Kernel, Tile};
use crate::ops::parallel::{for_each_task, initialised, written};
use crate::ops::scratch::Scratch;
use crate::ops::simd::{exp_in_place, max, scale, softcap_in_place};
use std::ops::Range;

/// Keys whose scores a group of queries holds at a time; a multiple of every kernel's columns.
const STRIP: usize = 384;
/// Distance of two rows of scores: not a power of two, so that rows do not compete for the same cache lines.
const SCORES: usize = STRIP + 16;
/// Groups of queries (of the kernel's rows) that pass over a strip before the next strip is touched.
const GROUPS: usize = 8;

/// Output `[batch · seq, heads · head_dim]` and normalisers `[batch · seq, heads]`.
pub(super) fn forward(problem: &Problem, q: &[f32], k: &[f32], v: &[f32]) -> (Vec<f32>, Vec<f32>) {
    let AttentionShape { batch, seq, heads, kv_heads, .. } = problem.shape;
    let kernel = Kernel::of(problem.isa);
    let keys = HeadPanels::pack(problem, k, Order::Positions, 1.0);
    let values = HeadPanels::pack(problem, v, Order::Elements, 1.0);
    let mut normalisers = vec![0.0; batch * seq * heads];
    let blocks = seq.div_ceil(GROUPS * kernel.mr);
    let output = written(q.len(), |output| {
        let pass = Pass {
            problem,
            kernel,
            q,
            keys: &keys,
            values: &values,
            output: Address(output.as_mut_ptr().cast()),
            normalisers: Address(normalisers.as_mut_ptr()),
        };
        for_each_task(batch * kv_heads * blocks, |task| {
            let (b, kv_head, block) = (task / blocks / kv_heads, task / blocks % kv_heads, task % blocks);
            let start = block * GROUPS * kernel.mr;
            // SAFETY: every task writes the output and the normalisers of its own queries and heads.
            unsafe { pass.block(b, kv_head, start..(start + GROUPS * kernel.mr).min(seq)) };
        });
        // SAFETY: the tasks cover all positions and heads, and `block` writes their outputs whole.
        unsafe { initialised(output) }
    });
    (output, normalisers)
}

/// What the tasks share.
struct Pass<'a> {
    problem: &'a Problem,
    kernel: &'static Kernel,
    q: &'a [f32],
    keys: &'a HeadPanels,
    values: &'a HeadPanels,
    output: Address,
    normalisers: Address,
}

/// The state of a block of queries of one head on its way over the keys.
struct State {
    /// Largest score of every query so far.
    top: Vec<f32>,
    /// Sum of `e^(score - top)` so far.
    sum: Vec<f32>,
    /// Whether a group of queries has an output already.
    started: [bool; GROUPS],
    scores: Scratch,
    queries: Scratch,
}

/// A group of queries of one head.
struct Group {
    b: usize,
    head: usize,
    kv_head: usize,
    /// Index in its block.
    index: usize,
    rows: Range<usize>,
}

impl Pass<'_> {
    /// Queries `rows` of row `b`, for all heads that share `kv_head`.
    ///
    /// # Safety
    /// Nobody else may use their outputs and normalisers.
    unsafe fn block(&self, b: usize, kv_head: usize, rows: Range<usize>) {
        let AttentionShape { seq, head_dim, .. } = self.problem.shape;
        let mr = self.kernel.mr;
        let mut state = State {
            top: Vec::new(),
            sum: Vec::new(),
            started: [false; GROUPS],
            scores: Scratch::new(mr * SCORES),
            queries: Scratch::new(panels_len(rows.len(), head_dim, Order::Positions, mr)),
        };
        let group = self.problem.shape.group();
        let first = self.problem.spans.first_of(b, rows.clone()) / STRIP * STRIP;
        for head in kv_head * group..(kv_head + 1) * group {
            state.restart(rows.len());
            let queries = Rows {
                start: &self.q[self.query(b * seq + rows.start, head)..],
                count: rows.len(),
                stride: self.problem.shape.q_stride(),
                head_dim,
            };
            // SAFETY: `state.queries` has room for the panels; the groups lie inside of `rows`.
            unsafe {
                let to = state.queries.as_mut_ptr();
                queries.pack(self.problem.isa, Order::Positions, mr, self.problem.scale, to);
                for strip in (first..rows.end).step_by(STRIP) {
                    for (index, row) in rows.clone().step_by(mr).enumerate() {
                        let rows = row..(row + mr).min(rows.end);
                        let group = Group { b, head, kv_head, index, rows };
                        self.strip(&group, strip, &mut state);
                    }
                }
                self.finish(b, head, rows.clone(), &state);
            }
        }
    }

    /// Offset of a query of a head; `row` counts over the batch.
    fn query(&self, row: usize, head: usize) -> usize {
        row * self.problem.shape.q_stride() + head * self.problem.shape.head_dim
    }

    /// Adds what the keys from `strip` on contribute to a group of queries.
    ///
    /// # Safety
    /// As for [`Pass::block`].
    unsafe fn strip(&self, group: &Group, strip: usize, state: &mut State) {
        let AttentionShape { seq, head_dim, .. } = self.problem.shape;
        let nr = self.kernel.nr;
        let start = self.problem.spans.first_of(group.b, group.rows.clone()).max(strip) / nr * nr;
        let end = group.rows.end.min(strip + STRIP);
        if start >= end {
            return;
        }
        let scores = state.scores.as_mut_ptr();
        let queries = state.queries.as_ptr().wrapping_add(group.index * self.kernel.mr * head_dim);
        for key in (start..end).step_by(nr) {
            let tile = Tile {
                rows: group.rows.len(),
                cols: nr,
                k: head_dim,
                a: queries,
                a_stride: self.kernel.mr,
                b: self.keys.head(group.b, group.kv_head).wrapping_add(key * head_dim),
                c: scores.wrapping_add(key - start),
                c_stride: SCORES,
                add: false,
            };
            // SAFETY: the panels of queries and keys are packed; the scores have room for a strip of whole panels.
            unsafe { self.kernel.tile_of_columns(&tile) };
        }
        // SAFETY: the scores of this group and strip were just written.
        unsafe { self.softmax(group, start, (end - start).next_multiple_of(nr), state) };
        for element in (0..head_dim).step_by(nr) {
            let tile = Tile {
                rows: group.rows.len(),
                cols: nr.min(head_dim - element),
                k: end - start,
                a: scores,
                a_stride: SCORES,
                b: self.values.head(group.b, group.kv_head).wrapping_add(element * seq + start * nr),
                c: self.output.at(self.query(group.b * seq + group.rows.start, group.head) + element),
                c_stride: self.problem.shape.q_stride(),
                add: state.started[group.index],
            };
            // SAFETY: the weights are in `scores`, the values are packed, the caller promises the output.
            unsafe { self.kernel.tile_of_rows(&tile) };
        }
        state.started[group.index] = true;
    }

    /// Turns the scores of a group with `width` keys from `start` on into weights relative to the largest score so far,
    /// and rescales what was summed relative to an earlier one.
    ///
    /// # Safety
    /// The scores must have been written; the caller must own the outputs of the group.
    unsafe fn softmax(&self, group: &Group, start: usize, width: usize, state: &mut State) {
        let AttentionShape { seq, head_dim, .. } = self.problem.shape;
        let isa = self.problem.isa;
        let block_row = group.index * self.kernel.mr;
        for (i, row) in group.rows.clone().enumerate() {
            // SAFETY: row `i` of the scores, of which `width` were written.
            let scores = unsafe { std::slice::from_raw_parts_mut(state.scores.as_mut_ptr().add(i * SCORES), width) };
            if let Some(bound) = self.problem.softcap {
                softcap_in_place(isa, scores, bound);
            }
            if !self.problem.spans.mask(group.b, row, start, scores) {
                scores.fill(0.0);
                continue;
            }
            let (top, sum) = (&mut state.top[block_row + i], &mut state.sum[block_row + i]);
            let new_top = max(isa, scores).max(*top);
            if *sum != 0.0 && new_top > *top {
                let factor = (*top - new_top).exp();
                *sum *= factor;
                // SAFETY: this group has an output already, or its sum were zero; the caller owns it.
                let output = unsafe {
                    let first = self.output.at(self.query(group.b * seq + row, group.head));
                    std::slice::from_raw_parts_mut(first, head_dim)
                };
                scale(isa, output, factor);
            }
            *top = new_top;
            *sum += exp_in_place(isa, scores, new_top);
        }
    }

    /// Divides the outputs by the sums and writes the normalisers.
    ///
    /// # Safety
    /// As for [`Pass::block`]; all keys must have contributed.
    unsafe fn finish(&self, b: usize, head: usize, rows: Range<usize>, state: &State) {
        let AttentionShape { seq, heads, head_dim, .. } = self.problem.shape;
        for ((row, top), sum) in rows.zip(&state.top).zip(&state.sum) {
            let row = b * seq + row;
            // SAFETY: every query sees itself, so its output is written; the caller owns it and its normaliser.
            unsafe {
                let output = std::slice::from_raw_parts_mut(self.output.at(self.query(row, head)), head_dim);
                scale(self.problem.isa, output, 1.0 / sum);
                self.normalisers.at(row * heads + head).write(top + sum.ln());
            }
        }
    }
}

impl State {
    /// Forgets the head before.
    fn restart(&mut self, rows: usize) {
        self.started = [false; GROUPS];
        self.top.clear();
        self.top.resize(rows, f32::NEG_INFINITY);
        self.sum.clear();
        self.sum.resize(rows, 0.0);
    }
}
