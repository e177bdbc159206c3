//! Owns looking up rows of a table and the table's gradient; never touches what the rows mean.

use super::flex::{self, Backward, Checkpointer, Gradients, Input, Ops, dims, floats};
use super::parallel::{Shared, chunks_mut, for_each_task, initialised, part, rows_per_task, written, zeros};
use super::reference;
use super::simd::{Isa, add_assign};
use burn::Tensor;
use burn::backend::Flex;
use burn::backend::flex::FlexTensor;
use burn::tensor::Int;

/// Row `ids[i]` of the table `w` `[vocab, d]` for every `i` of `ids` `[n]`, giving `[n, d]`.
///
/// # Panics
/// If an id is no row of the table.
pub fn embedding(w: Tensor<2>, ids: Tensor<1, Int>) -> Tensor<2> {
    let ids = ids.into_dispatch();
    let Some(rows) = flex::ints(&ids) else { return reference::embedding(w, Tensor::from_dispatch(ids)) };
    match flex::inputs([w.into_dispatch()]) {
        Ok((graph, [Input { tensor: w, node, .. }])) => {
            let [vocab, d] = dims(&w);
            let rows: Vec<usize> = rows.into_iter().map(|id| row(id, vocab)).collect();
            let output = gather(&w, &rows);
            graph.finish(Embedding, [node], output, || Saved { rows, vocab, d })
        }
        Err([w]) => reference::embedding(Tensor::from_dispatch(w), Tensor::from_dispatch(ids)),
    }
}

fn row(id: i32, vocab: usize) -> usize {
    usize::try_from(id)
        .ok()
        .filter(|row| *row < vocab)
        .unwrap_or_else(|| panic!("embedding: id {id} is no row of a table of {vocab}"))
}

fn gather(w: &FlexTensor, rows: &[usize]) -> FlexTensor {
    let [_, d] = dims(w);
    let w = floats(w);
    let out = written(rows.len() * d, |out| {
        chunks_mut(out, rows_per_task(d) * d, |start, out| {
            for (out, &row) in out.chunks_exact_mut(d).zip(&rows[start / d..]) {
                let row = &w[row * d..(row + 1) * d];
                for (out, &x) in out.iter_mut().zip(row) {
                    out.write(x);
                }
            }
        });
        // SAFETY: the chunks consist of whole rows, and every row is written.
        unsafe { initialised(out) }
    });
    flex::tensor(out, [rows.len(), d])
}

/// What the backward pass needs: the rows that were taken and the shape of the table.
#[derive(Clone, Debug)]
struct Saved {
    rows: Vec<usize>,
    vocab: usize,
    d: usize,
}

/// Backward of [`embedding`].
#[derive(Debug)]
struct Embedding;

impl Backward<Flex, 1> for Embedding {
    type State = Saved;

    fn backward(self, ops: Ops<Saved, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let g = flex::dense(grads.consume::<Flex>(&ops.node));
        let [node] = ops.parents;
        if let Some(node) = node {
            grads.register::<Flex>(node.id, scatter(Isa::detect(), floats(&g), &ops.state));
        }
    }
}

/// Adds row `i` of `g` to row `rows[i]` of a table of zeros, in the order of `i`.
fn scatter(isa: Isa, g: &[f32], saved: &Saved) -> FlexTensor {
    const TASKS: usize = 32;
    let Saved { rows, vocab, d } = saved;
    let mut order: Vec<usize> = (0..rows.len()).collect();
    order.sort_by_key(|&i| (rows[i], i));
    let mut table = zeros(vocab * d);
    let places = Shared::new(&mut table);
    for_each_task(TASKS, |task| {
        // A task starts and ends where the row changes, so that it alone adds to its rows.
        let start_of_row = |i: usize| {
            let same = order[i..].iter().take_while(|&&j| i > 0 && rows[j] == rows[order[i - 1]]).count();
            i + same
        };
        let range = part(order.len(), TASKS, task);
        for &i in &order[start_of_row(range.start)..start_of_row(range.end)] {
            // SAFETY: only this task adds to row `rows[i]`, which is below `vocab`.
            let row = unsafe { places.slice(rows[i] * d..(rows[i] + 1) * d) };
            add_assign(isa, row, &g[i * d..(i + 1) * d]);
        }
    });
    flex::tensor(table, [*vocab, *d])
}
