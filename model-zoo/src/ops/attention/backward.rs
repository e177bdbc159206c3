//! Owns the backward pass of attention: strips of keys against blocks of queries; never keeps weights.

use super::panels::{Address, HeadPanels, Order, Rows, panels_len};
use super::{AttentionShape, Problem, Saved};
use crate::ops::flex::floats;
use crate::ops::gemm::{Kernel, Tile};
use crate::ops::parallel::{CHUNK, chunks_mut, for_each_task};
use crate::ops::scratch::Scratch;
use crate::ops::simd::{add_assign, dot, exp, multiversion, softcap_in_place};
use std::ops::Range;

/// Keys of a strip; a multiple of every kernel's columns.
const STRIP: usize = 256;
/// Distance of two rows of weights: not a power of two, so that rows do not compete for the same cache lines.
const WEIGHTS: usize = STRIP + 16;
/// Groups of queries (of the kernel's rows) in a block: long enough sums for the gradients of keys and values.
const GROUPS: usize = 8;
/// With fewer heads than this, the strips of a head are shared out to several tasks.
const HEADS: usize = 16;

/// Gradients of queries, keys and values for the gradient `g` of the output.
pub(super) fn backward(saved: &Saved, g: &[f32]) -> [Vec<f32>; 3] {
    let Saved { q, k, v, output, normalisers, problem } = saved;
    let (q, k, v, output) = (floats(q), floats(k), floats(v), floats(output));
    let AttentionShape { batch, seq, kv_heads, .. } = problem.shape;
    let keys = HeadPanels::pack(problem, k, Order::Positions, 1.0);
    let scaled_keys = HeadPanels::pack(problem, k, Order::Elements, problem.scale);
    let values = HeadPanels::pack(problem, v, Order::Positions, 1.0);
    let along = along_output(problem, g, output);
    let strips = seq.div_ceil(STRIP);
    let shares = HEADS.div_ceil((batch * kv_heads).max(1)).clamp(1, strips.max(1));
    let (mut dk, mut dv) = (vec![0.0; k.len()], vec![0.0; v.len()]);
    let mut dq: Vec<Vec<f32>> = (0..shares).map(|_| vec![0.0; q.len()]).collect();
    let dq_starts: Vec<Address> = dq.iter_mut().map(|dq| Address(dq.as_mut_ptr())).collect();
    let pass = Pass {
        problem,
        kernel: Kernel::of(problem.isa),
        q,
        g,
        keys: &keys,
        scaled_keys: &scaled_keys,
        values: &values,
        normalisers,
        along: &along,
        dk: Address(dk.as_mut_ptr()),
        dv: Address(dv.as_mut_ptr()),
    };
    for_each_task(batch * kv_heads * shares, |task| {
        let (b, kv_head, share) = (task / shares / kv_heads, task / shares % kv_heads, task % shares);
        let mut room = Room::new(&pass);
        for strip in (share..strips).step_by(shares) {
            let keys = strip * STRIP..((strip + 1) * STRIP).min(seq);
            // SAFETY: this task alone has these keys of this head, and this head's part of this share of `dq`.
            unsafe { pass.strip(b, kv_head, keys, dq_starts[share], &mut room) };
        }
    });
    let mut shares = dq.into_iter();
    let mut dq = shares.next().unwrap_or_default();
    for share in shares {
        chunks_mut(&mut dq, CHUNK, |start, dq| add_assign(problem.isa, dq, &share[start..start + dq.len()]));
    }
    [dq, dk, dv]
}

/// What a query's gradient has along its output, `[batch · seq, heads]`: the softmax's weights sum to 1, so that much
/// of every weight's gradient does not count.
fn along_output(problem: &Problem, g: &[f32], output: &[f32]) -> Vec<f32> {
    let AttentionShape { batch, seq, heads, head_dim, .. } = problem.shape;
    let mut along = vec![0.0; batch * seq * heads];
    chunks_mut(&mut along, (CHUNK / head_dim).max(1), |start, along| {
        for (i, along) in along.iter_mut().enumerate() {
            let range = (start + i) * head_dim..(start + i + 1) * head_dim;
            *along = dot(problem.isa, &g[range.clone()], &output[range]);
        }
    });
    along
}

/// What the tasks share.
struct Pass<'a> {
    problem: &'a Problem,
    kernel: &'static Kernel,
    q: &'a [f32],
    g: &'a [f32],
    keys: &'a HeadPanels,
    scaled_keys: &'a HeadPanels,
    values: &'a HeadPanels,
    normalisers: &'a [f32],
    along: &'a [f32],
    dk: Address,
    dv: Address,
}

/// Working memory of a task.
struct Room {
    /// Weights, then their gradients, of a block of queries with a strip of keys.
    weights: Scratch,
    slopes: Scratch,
    /// Queries and gradients of a block, as left and as right operands.
    q_rows: Scratch,
    q_elements: Scratch,
    g_rows: Scratch,
    g_elements: Scratch,
}

impl Room {
    fn new(pass: &Pass) -> Self {
        let (mr, nr) = (pass.kernel.mr, pass.kernel.nr);
        let head_dim = pass.problem.shape.head_dim;
        let queries = GROUPS * mr;
        let rows = || Scratch::new(panels_len(queries, head_dim, Order::Positions, mr));
        let elements = || Scratch::new(panels_len(queries, head_dim, Order::Elements, nr));
        Self {
            weights: Scratch::new(queries * WEIGHTS),
            slopes: Scratch::new(queries * WEIGHTS),
            q_rows: rows(),
            q_elements: elements(),
            g_rows: rows(),
            g_elements: elements(),
        }
    }
}

/// A block of queries of one head and the keys of a strip that any of them sees.
struct Block {
    b: usize,
    head: usize,
    kv_head: usize,
    queries: Range<usize>,
    /// Starts at a panel.
    keys: Range<usize>,
    dq: Address,
}

impl Pass<'_> {
    /// Adds what the keys of a strip contribute to all gradients.
    ///
    /// # Safety
    /// Nobody else may use the gradients of these keys and values, nor this head's part of `dq`.
    unsafe fn strip(&self, b: usize, kv_head: usize, keys: Range<usize>, dq: Address, room: &mut Room) {
        let (seq, group) = (self.problem.shape.seq, self.problem.shape.group());
        let step = GROUPS * self.kernel.mr;
        for head in kv_head * group..(kv_head + 1) * group {
            for start in (keys.start / step * step..seq).step_by(step) {
                let queries = start..(start + step).min(seq);
                let first = self.problem.spans.first_of(b, queries.clone()).max(keys.start);
                let keys = first / self.kernel.nr * self.kernel.nr..keys.end.min(queries.end);
                if keys.start < keys.end {
                    let block = Block { b, head, kv_head, queries, keys, dq };
                    // SAFETY: the caller's promise.
                    unsafe { self.block(&block, room) };
                }
            }
        }
    }

    /// Offset of a query of a head.
    fn query(&self, block: &Block, row: usize) -> usize {
        (block.b * self.problem.shape.seq + row) * self.problem.shape.q_stride()
            + block.head * self.problem.shape.head_dim
    }

    /// # Safety
    /// As for [`Pass::strip`].
    unsafe fn block(&self, block: &Block, room: &mut Room) {
        let (isa, scale, mr, nr) = (self.problem.isa, self.problem.scale, self.kernel.mr, self.kernel.nr);
        let rows = |x| Rows {
            start: x,
            count: block.queries.len(),
            stride: self.problem.shape.q_stride(),
            head_dim: self.problem.shape.head_dim,
        };
        let start = self.query(block, block.queries.start);
        let (q, g) = (rows(&self.q[start..]), rows(&self.g[start..]));
        // SAFETY: `room` was made for blocks of this size; the caller promises the gradients.
        unsafe {
            q.pack(isa, Order::Positions, mr, scale, room.q_rows.as_mut_ptr());
            q.pack(isa, Order::Elements, nr, scale, room.q_elements.as_mut_ptr());
            g.pack(isa, Order::Positions, mr, 1.0, room.g_rows.as_mut_ptr());
            g.pack(isa, Order::Elements, nr, 1.0, room.g_elements.as_mut_ptr());
            for start in block.queries.clone().step_by(mr) {
                self.group(block, start..(start + mr).min(block.queries.end), room);
            }
            for start in block.keys.clone().step_by(mr) {
                self.keys(block, start..(start + mr).min(block.keys.end), room);
            }
        }
    }

    /// The keys of the block that a group of queries sees, from the start of a panel on; an empty range if none.
    fn seen(&self, block: &Block, rows: Range<usize>) -> Range<usize> {
        let end = block.keys.end.min(rows.end);
        let start = self.problem.spans.first_of(block.b, rows).max(block.keys.start);
        if start < end { start / self.kernel.nr * self.kernel.nr..end } else { block.keys.start..block.keys.start }
    }

    /// Weights and their gradients of a group of queries, and what they add to the gradients of the queries.
    ///
    /// # Safety
    /// As for [`Pass::strip`]; the block's operands must be packed.
    unsafe fn group(&self, block: &Block, rows: Range<usize>, room: &mut Room) {
        let AttentionShape { seq, head_dim, .. } = self.problem.shape;
        let (mr, nr) = (self.kernel.mr, self.kernel.nr);
        let first_row = rows.start - block.queries.start;
        let Range { start, end } = self.seen(block, rows.clone());
        let (offset, panel) = (first_row * WEIGHTS + start - block.keys.start, first_row * head_dim);
        for key in (start..end).step_by(nr) {
            let tile = |left: &Scratch, right: &HeadPanels, to: *mut f32| Tile {
                rows: rows.len(),
                cols: nr,
                k: head_dim,
                a: left.as_ptr().wrapping_add(panel),
                a_stride: mr,
                b: right.head(block.b, block.kv_head).wrapping_add(key * head_dim),
                c: to.wrapping_add(offset + key - start),
                c_stride: WEIGHTS,
                add: false,
            };
            let scores = tile(&room.q_rows, self.keys, room.weights.as_mut_ptr());
            let slopes = tile(&room.g_rows, self.values, room.slopes.as_mut_ptr());
            // SAFETY: both operands are packed, and the rows have room for a strip of whole panels.
            unsafe {
                self.kernel.tile_of_columns(&scores);
                self.kernel.tile_of_columns(&slopes);
            }
        }
        // SAFETY: the scores and slopes from `start` to `end` were just written.
        unsafe { self.weigh(block, rows.clone(), start..end, room) };
        for element in (0..head_dim).step_by(nr).filter(|_| start < end) {
            let tile = Tile {
                rows: rows.len(),
                cols: nr.min(head_dim - element),
                k: end - start,
                a: room.slopes.as_ptr().wrapping_add(offset),
                a_stride: WEIGHTS,
                b: self.scaled_keys.head(block.b, block.kv_head).wrapping_add(element * seq + start * nr),
                c: block.dq.at(self.query(block, rows.start) + element),
                c_stride: self.problem.shape.q_stride(),
                add: true,
            };
            // SAFETY: the slopes are written, the keys packed; the caller promises `dq`.
            unsafe { self.kernel.tile_of_rows(&tile) };
        }
    }

    /// Turns scores into weights and the weights' gradients into those of the scores, and writes zeros where a query of
    /// the group does not see a key of the block.
    ///
    /// # Safety
    /// Scores and slopes of the keys `seen`, up to whole panels, must have been written.
    unsafe fn weigh(&self, block: &Block, rows: Range<usize>, seen: Range<usize>, room: &mut Room) {
        let width = (block.keys.end - block.keys.start).next_multiple_of(self.kernel.nr);
        let from = seen.start - block.keys.start;
        let to = from + (seen.end - seen.start).next_multiple_of(self.kernel.nr);
        for row in rows {
            let offset = (row - block.queries.start) * WEIGHTS;
            // SAFETY: the row lies in the block's room, which nobody else uses; a pointer to it may be made into
            // slices as everything outside of `from..to` is written below before it is read, and what lies inside
            // was written before.
            let (weights, slopes) = unsafe {
                let (weights, slopes) = (room.weights.as_mut_ptr().add(offset), room.slopes.as_mut_ptr().add(offset));
                for outside in (0..from).chain(to..width) {
                    weights.add(outside).write(0.0);
                    slopes.add(outside).write(0.0);
                }
                (
                    std::slice::from_raw_parts_mut(weights.add(from), to - from),
                    std::slice::from_raw_parts_mut(slopes.add(from), to - from),
                )
            };
            if let Some(bound) = self.problem.softcap {
                softcap_in_place(self.problem.isa, weights, bound);
            }
            if from == to || !self.problem.spans.mask(block.b, row, seen.start, weights) {
                weights.fill(0.0);
                slopes.fill(0.0);
                continue;
            }
            let index = (block.b * self.problem.shape.seq + row) * self.problem.shape.heads + block.head;
            let (isa, normaliser, along) = (self.problem.isa, self.normalisers[index], self.along[index]);
            match self.problem.softcap {
                None => weigh_row(isa, weights, slopes, normaliser, along),
                Some(bound) => weigh_capped_row(isa, weights, slopes, normaliser, along, bound),
            }
        }
    }

    /// What the block adds to the gradients of some keys and values.
    ///
    /// # Safety
    /// As for [`Pass::strip`]; the block's weights and slopes must be written.
    unsafe fn keys(&self, block: &Block, keys: Range<usize>, room: &Room) {
        let AttentionShape { seq, head_dim, .. } = self.problem.shape;
        let nr = self.kernel.nr;
        // Earlier queries do not see these keys, and neither do those behind whose documents start later.
        let first = block.queries.start.max(keys.start);
        let mut last = block.queries.end;
        while last > first && self.problem.spans.first(block.b, last - 1) >= keys.end {
            last -= 1;
        }
        if first >= last {
            return;
        }
        let row = first - block.queries.start;
        let to = (block.b * seq + keys.start) * self.problem.shape.kv_stride() + block.kv_head * head_dim;
        for element in (0..head_dim).step_by(nr) {
            let tile = |left: &Scratch, right: &Scratch, to: *mut f32| Tile {
                rows: keys.len(),
                cols: nr.min(head_dim - element),
                k: last - first,
                a: left.as_ptr().wrapping_add(row * WEIGHTS + keys.start - block.keys.start),
                a_stride: WEIGHTS,
                b: right.as_ptr().wrapping_add(element * block.queries.len() + row * nr),
                c: to,
                c_stride: self.problem.shape.kv_stride(),
                add: true,
            };
            let values = tile(&room.weights, &room.g_elements, self.dv.at(to + element));
            let keys = tile(&room.slopes, &room.q_elements, self.dk.at(to + element));
            // SAFETY: weights, slopes and operands of the block are written; the caller promises the gradients.
            unsafe {
                self.kernel.tile_of_columns(&values);
                self.kernel.tile_of_columns(&keys);
            }
        }
    }
}

multiversion! {
    /// Scores to weights, gradients of weights to gradients of scores.
    fn weigh_row<FMA>(weights: &mut [f32], slopes: &mut [f32], normaliser: f32, along: f32) {
        for (weight, slope) in weights.iter_mut().zip(slopes) {
            *weight = exp::<FMA>(*weight - normaliser);
            *slope = *weight * (*slope - along);
        }
    }

    /// The same where the scores `c * tanh(x / c)` are bounded by `c`: their slope is `1 - tanh²`.
    fn weigh_capped_row<FMA>(weights: &mut [f32], slopes: &mut [f32], normaliser: f32, along: f32, bound: f32) {
        for (weight, slope) in weights.iter_mut().zip(slopes) {
            // A hidden score is minus infinity.
            let tanh = if *weight < -bound { -1.0 } else { *weight / bound };
            *weight = exp::<FMA>(*weight - normaliser);
            *slope = *weight * (*slope - along) * (1.0 - tanh * tanh);
        }
    }
}
