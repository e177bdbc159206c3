//! Owns products with matrices that are read and never trained, in the number formats they are stored in, with and
//! without a low-rank correction that is trained; never touches which matrices those are.
//!
//! A matrix in a narrow format is widened to `f32` for one product and forgotten, in the forward pass and again in the
//! backward pass: never more than one of them stands in memory.

use std::mem::MaybeUninit;
use std::ops::Range;
use std::sync::Arc;

use burn::Tensor;
use burn::backend::Flex;
use burn::backend::flex::FlexTensor;
use burn::tensor::{DType, Device, Int, TensorData};

use super::flex::{self, Backward, Checkpointer, Gradients, Input, Ops, dims, floats};
use super::gemm::{Mat, add_product, product, products};
use super::linear::{FEW_ROWS, few_rows};
use super::nf4::Nf4;
use super::parallel::{CHUNK, chunks_mut, initialised, rows_per_task, written};
use super::scratch::Scratch;
use super::simd::{Isa, dot, scale as scale_by};
use super::{linear, reference};

/// The values of a weight that is never trained, row-major.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "one for a weight; the weights themselves are far larger")]
pub enum Stored {
    /// On a device, flat `[elements]`, f32 or bf16.
    Plain(Tensor<1>),
    /// bf16 in host memory.
    Bf16(Arc<[u16]>),
    /// 4 bits each in host memory.
    Nf4(Arc<Nf4>),
}

impl Stored {
    /// f32 values on a device.
    #[must_use]
    pub fn f32(values: Vec<f32>, device: &Device) -> Self {
        let count = values.len();
        Self::Plain(Tensor::from_data(TensorData::new(values, [count]), (device, DType::F32)))
    }

    /// Values rounded to bf16, in host memory for the CPU's kernels, else on the device.
    #[must_use]
    pub fn bf16(values: Vec<f32>, device: &Device, in_host_memory: bool) -> Self {
        if in_host_memory {
            let mut narrow = vec![0_u16; values.len()];
            chunks_mut(&mut narrow, CHUNK, |start, narrow| {
                narrow.iter_mut().zip(&values[start..]).for_each(|(to, from)| *to = bf16_bits(*from));
            });
            return Self::Bf16(narrow.into());
        }
        let Self::Plain(tensor) = Self::f32(values, device) else { unreachable!("f32 values are plain") };
        Self::Plain(tensor.cast(DType::BF16))
    }

    /// Values rounded to 4 bits.
    #[must_use]
    pub fn nf4(values: &[f32]) -> Self {
        Self::Nf4(Arc::new(Nf4::quantise(values)))
    }

    /// Number of values.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Plain(tensor) => tensor.dims()[0],
            Self::Bf16(values) => values.len(),
            Self::Nf4(values) => values.len(),
        }
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes that it occupies.
    #[must_use]
    pub fn num_bytes(&self) -> usize {
        match self {
            Self::Plain(tensor) if tensor.dtype() == DType::F32 => 4 * self.len(),
            Self::Plain(_) | Self::Bf16(_) => 2 * self.len(),
            Self::Nf4(values) => values.num_bytes(),
        }
    }

    /// All values in f32, flat, on `device`: no copy where that is how they are stored.
    #[must_use]
    pub fn widened(&self, device: &Device) -> Tensor<1> {
        match self {
            Self::Plain(tensor) if tensor.dtype() == DType::F32 => tensor.clone(),
            Self::Plain(tensor) => tensor.clone().cast(DType::F32),
            Self::Bf16(values) => upload(written(values.len(), |out| unpack_bf16(values, out)), device),
            Self::Nf4(values) => upload(values.dequantise(), device),
        }
    }
}

fn upload(values: Vec<f32>, device: &Device) -> Tensor<1> {
    let count = values.len();
    Tensor::from_data(TensorData::new(values, [count]), (device, DType::F32))
}

/// The upper half of a float, rounded to nearest, ties to even. Values that are not finite do not get here.
fn bf16_bits(value: f32) -> u16 {
    let bits = value.to_bits();
    (bits.wrapping_add(0x7FFF + ((bits >> 16) & 1)) >> 16) as u16
}

fn widen(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

fn unpack_bf16<'a>(values: &[u16], out: &'a mut [MaybeUninit<f32>]) -> &'a mut [f32] {
    chunks_mut(out, CHUNK, |start, out| {
        for (place, bits) in out.iter_mut().zip(&values[start..]) {
            place.write(widen(*bits));
        }
    });
    // SAFETY: there are as many values as places, and the chunks cover all of them.
    unsafe { initialised(out) }
}

/// A matrix as the CPU's kernels read it.
#[derive(Debug, Clone)]
enum Source {
    Wide(FlexTensor),
    Bf16(Arc<[u16]>),
    Nf4(Arc<Nf4>),
}

impl Source {
    /// Hands over all values in f32; they stand in memory only until `read` returns.
    fn with<R>(&self, read: impl FnOnce(&[f32]) -> R) -> R {
        match self {
            Self::Wide(tensor) => read(floats(tensor)),
            Self::Bf16(values) => read(unpack_bf16(values, Scratch::new(values.len()).uninit())),
            Self::Nf4(values) => read(values.unpack_all(Scratch::new(values.len()).uninit())),
        }
    }

    /// Hands over the values `range`.
    fn with_part<R>(&self, range: Range<usize>, read: impl FnOnce(&[f32]) -> R) -> R {
        match self {
            Self::Wide(tensor) => read(&floats(tensor)[range]),
            Self::Bf16(values) => {
                let mut scratch = Scratch::new(range.len());
                let places = scratch.uninit();
                for (place, bits) in places.iter_mut().zip(&values[range]) {
                    place.write(widen(*bits));
                }
                // SAFETY: the range has as many values as there are places.
                read(unsafe { initialised(places) })
            }
            Self::Nf4(values) => read(values.unpack(range.clone(), Scratch::new(range.len()).uninit())),
        }
    }

    /// `x · wᵀ` for rows `x` `[n, features]` and this matrix `w` `[out, features]`.
    fn times(&self, isa: Isa, x: &[f32], [n, features, out]: [usize; 3]) -> Vec<f32> {
        written(n * out, |y| match self {
            _ if n > FEW_ROWS || features == 0 => {
                self.with(|w| product(isa, Mat::new(x, n, features), Mat::new(w, out, features).t(), y))
            }
            Self::Wide(w) => few_rows(isa, x, floats(w), features, y),
            _ => self.times_few(isa, x, features, y),
        })
    }

    /// The same for few rows: a row of the matrix is widened where it is used, so that nothing wide goes to memory.
    fn times_few<'a>(&self, isa: Isa, x: &[f32], features: usize, y: &'a mut [MaybeUninit<f32>]) -> &'a mut [f32] {
        let n = x.len() / features;
        let out = y.len() / n.max(1);
        let columns = rows_per_task(features);
        let mut by_column = vec![0.0; y.len()];
        // Column by column first, so that tasks write apart.
        chunks_mut(&mut by_column, columns * n.max(1), |start, part| {
            for (column, part) in part.chunks_mut(n.max(1)).enumerate() {
                let row = start / n.max(1) + column;
                self.with_part(row * features..(row + 1) * features, |w| {
                    part.iter_mut().zip(x.chunks_exact(features)).for_each(|(y, x)| *y = dot(isa, x, w));
                });
            }
        });
        for (place, at) in y.iter_mut().zip(0..) {
            let (row, column): (usize, usize) = (at / out.max(1), at % out.max(1));
            place.write(by_column[column * n + row]);
        }
        // SAFETY: the loop above writes every place.
        unsafe { initialised(y) }
    }
}

/// Rows `ids` `[tokens]` of a matrix of so many columns, `[tokens, columns]`, f32, without a gradient.
///
/// # Panics
/// If an id is no row of the matrix.
#[must_use]
pub fn frozen_rows(w: &Stored, columns: usize, ids: Tensor<1, Int>) -> Tensor<2> {
    let source = match w {
        Stored::Plain(tensor) => {
            let rows = tensor.dims()[0] / columns.max(1);
            if tensor.dtype() == DType::F32 {
                return super::embedding(tensor.clone().reshape([rows, columns]), ids);
            }
            return tensor.clone().reshape([rows, columns]).select(0, ids).cast(DType::F32);
        }
        Stored::Bf16(values) => Source::Bf16(Arc::clone(values)),
        Stored::Nf4(values) => Source::Nf4(Arc::clone(values)),
    };
    let device = ids.device();
    let ids = ids.into_data().iter::<i64>().collect::<Vec<_>>();
    let count = ids.len();
    let mut rows = vec![0.0; count * columns];
    chunks_mut(&mut rows, rows_per_task(columns) * columns.max(1), |start, rows| {
        for (to, id) in rows.chunks_mut(columns.max(1)).zip(&ids[start / columns.max(1)..]) {
            let row = usize::try_from(*id).unwrap_or(usize::MAX / columns.max(1) - 1);
            source.with_part(row * columns..(row + 1) * columns, |from| to.copy_from_slice(from));
        }
    });
    Tensor::<1>::from_data(TensorData::new(rows, [count * columns]), &device).reshape([count, columns])
}

/// A low-rank correction `scale · b · a` of a matrix `[out, in]`: `a` `[rank, in]` and `b` `[out, rank]` are trained.
#[derive(Debug, Clone)]
pub struct LowRank {
    /// Reads the input.
    pub a: Tensor<2>,
    /// Writes the output.
    pub b: Tensor<2>,
    /// Factor of the correction.
    pub scale: f64,
}

/// `x · wᵀ`, rows `x` `[n, in]` through `w` `[out, in]`, giving `[n, out]` in the dtype of `x`. Only `x` gets a
/// gradient.
///
/// # Panics
/// If `w` has another number of elements.
#[must_use]
pub fn frozen_linear(x: Tensor<2>, w: &Stored, [out, features]: [usize; 2]) -> Tensor<2> {
    let source = match w {
        Stored::Plain(tensor) => return linear(x, tensor.clone().reshape([out, features])),
        Stored::Bf16(values) => Source::Bf16(Arc::clone(values)),
        Stored::Nf4(values) => Source::Nf4(Arc::clone(values)),
    };
    assert_eq!((x.dims()[1], out * features), (features, w.len()), "frozen_linear: shapes do not fit together");
    match flex::inputs([x.into_dispatch()]) {
        Ok((graph, [Input { tensor: x, node, .. }])) => {
            let [n, _] = dims(&x);
            let y = source.times(Isa::detect(), floats(&x), [n, features, out]);
            graph.finish(FrozenLinear, [node], flex::tensor(y, [n, out]), || (source, [n, features, out]))
        }
        Err([x]) => {
            let x = Tensor::<2>::from_dispatch(x);
            let w = w.widened(&x.device()).reshape([out, features]);
            reference::linear(x, w)
        }
    }
}

/// Backward of [`frozen_linear`].
#[derive(Debug)]
struct FrozenLinear;

impl Backward<Flex, 1> for FrozenLinear {
    type State = (Source, [usize; 3]);

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let g = flex::dense(grads.consume::<Flex>(&ops.node));
        let [node] = ops.parents;
        let (source, [n, features, out]) = ops.state;
        if let Some(node) = node {
            let dx = written(n * features, |dx| {
                source.with(|w| product(Isa::detect(), Mat::new(floats(&g), n, out), Mat::new(w, out, features), dx))
            });
            grads.register::<Flex>(node.id, flex::tensor(dx, [n, features]));
        }
    }
}

/// `x · (w + scale · b · a)ᵀ` without making that sum: rows `x` `[n, in]` through `w` `[out, in]` and through the
/// low-rank correction, giving `[n, out]` in the dtype of `x`. `x`, `a` and `b` get gradients, `w` does not.
///
/// E. Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", 2021 (arXiv:2106.09685).
///
/// # Panics
/// If the shapes do not fit together.
#[must_use]
pub fn adapted_linear(x: Tensor<2>, w: &Stored, [out, features]: [usize; 2], low_rank: LowRank) -> Tensor<2> {
    let LowRank { a, b, scale } = low_rank;
    let ([rank, a_in], [b_out, b_rank]) = (a.dims(), b.dims());
    let fits = (x.dims()[1], w.len(), a_in, b_out, b_rank) == (features, out * features, features, out, rank);
    assert!(fits, "adapted_linear: shapes do not fit together");
    let packed = match w {
        Stored::Plain(tensor) => {
            let tensors = [x, tensor.clone().reshape([out, features]), a, b].map(Tensor::into_dispatch);
            return match flex::inputs(tensors) {
                Ok((graph, [x, w, a, b])) => fused(graph, [x, a, b], Source::Wide(w.tensor), scale),
                Err(tensors) => {
                    let [x, w, a, b] = tensors.map(Tensor::<2>::from_dispatch);
                    reference::adapted_linear(x, w, LowRank { a, b, scale })
                }
            };
        }
        Stored::Bf16(values) => Source::Bf16(Arc::clone(values)),
        Stored::Nf4(values) => Source::Nf4(Arc::clone(values)),
    };
    match flex::inputs([x, a, b].map(Tensor::into_dispatch)) {
        Ok((graph, inputs)) => fused(graph, inputs, packed, scale),
        Err(tensors) => {
            let [x, a, b] = tensors.map(Tensor::<2>::from_dispatch);
            let w = w.widened(&x.device()).reshape([out, features]);
            reference::adapted_linear(x, w, LowRank { a, b, scale })
        }
    }
}

fn fused(graph: flex::Graph, [x, a, b]: [Input; 3], source: Source, scale: f64) -> Tensor<2> {
    let isa = Isa::detect();
    let ([n, features], [rank, _], [out, _]) = (dims(&x.tensor), dims(&a.tensor), dims(&b.tensor));
    let shape = [n, features, out];
    let a_matrix = Mat::new(floats(&a.tensor), rank, features).t();
    let rows = Mat::new(floats(&x.tensor), n, features);
    let (mut inner, mut y) = if n > FEW_ROWS {
        // Both products read the same rows.
        two(source.with(|w| products(isa, rows, &[a_matrix, Mat::new(w, out, features).t()])))
    } else {
        let inner = written(n * rank, |inner| product(isa, rows, a_matrix, inner));
        (inner, source.times(isa, floats(&x.tensor), shape))
    };
    scale_by(isa, &mut inner, scale as f32);
    add_product(isa, Mat::new(&inner, n, rank), Mat::new(floats(&b.tensor), out, rank).t(), &mut y);
    let nodes = [x.node, a.node, b.node];
    let (x, a, b) = (x.tensor, a.tensor, b.tensor);
    graph.finish(Adapted, nodes, flex::tensor(y, [n, out]), || State { x, a, b, inner, source, scale: scale as f32 })
}

/// What the backward pass of [`adapted_linear`] needs: its inputs, and what stands between `a` and `b`.
#[derive(Debug, Clone)]
struct State {
    x: FlexTensor,
    a: FlexTensor,
    b: FlexTensor,
    inner: Vec<f32>,
    source: Source,
    scale: f32,
}

/// Backward of [`adapted_linear`].
#[derive(Debug)]
struct Adapted;

impl Backward<Flex, 3> for Adapted {
    type State = State;

    fn backward(self, ops: Ops<State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let isa = Isa::detect();
        let g = flex::dense(grads.consume::<Flex>(&ops.node));
        let [x_node, a_node, b_node] = ops.parents;
        let State { x, a, b, inner, source, scale } = ops.state;
        let ([n, features], [rank, _], [out, _]) = (dims(&x), dims(&a), dims(&b));
        let (g, b) = (Mat::new(floats(&g), n, out), Mat::new(floats(&b), out, rank));
        if let Some(node) = b_node {
            let db = written(out * rank, |db| product(isa, g.t(), Mat::new(&inner, n, rank), db));
            grads.register::<Flex>(node.id, flex::tensor(db, [out, rank]));
        }
        // Both products read the same rows.
        let (mut slopes, dx) = if x_node.is_some() {
            let (slopes, dx) = two(source.with(|w| products(isa, g, &[b, Mat::new(w, out, features)])));
            (slopes, Some(dx))
        } else {
            (written(n * rank, |slopes| product(isa, g, b, slopes)), None)
        };
        scale_by(isa, &mut slopes, scale);
        let slopes = Mat::new(&slopes, n, rank);
        if let Some(node) = a_node {
            let da = written(rank * features, |da| product(isa, slopes.t(), Mat::new(floats(&x), n, features), da));
            grads.register::<Flex>(node.id, flex::tensor(da, [rank, features]));
        }
        if let (Some(node), Some(mut dx)) = (x_node, dx) {
            add_product(isa, slopes, Mat::new(floats(&a), rank, features), &mut dx);
            grads.register::<Flex>(node.id, flex::tensor(dx, [n, features]));
        }
    }
}

/// The results of two products.
fn two(results: Vec<Vec<f32>>) -> (Vec<f32>, Vec<f32>) {
    let mut results = results.into_iter();
    (results.next().unwrap_or_default(), results.next().unwrap_or_default())
}
