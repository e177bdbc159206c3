//! Owns how kernels use several threads: fixed tasks that any thread may run; never decides anything by their number.

use rayon::prelude::*;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ops::Range;

/// Elements of an elementwise task: 128 KiB of floats, some tens of microseconds.
pub(crate) const CHUNK: usize = 1 << 15;

/// Runs tasks `0..count`, each once, on the threads of the current pool. Tasks must not wait for each other.
///
/// What a task computes may depend on its index only, so results cannot depend on the number of threads.
pub(crate) fn for_each_task(count: usize, task: impl Fn(usize) + Sync + Send) {
    if count <= 1 {
        (0..count).for_each(task);
    } else {
        (0..count).into_par_iter().with_max_len(1).for_each(task);
    }
}

/// Collects the results of tasks `0..count` in the order of their indices.
pub(crate) fn map_tasks<T: Send>(count: usize, task: impl Fn(usize) -> T + Sync + Send) -> Vec<T> {
    if count <= 1 {
        (0..count).map(task).collect()
    } else {
        (0..count).into_par_iter().with_max_len(1).map(task).collect()
    }
}

/// Part `index` of `0..len` cut into `parts` ranges whose lengths differ by one at most.
pub(crate) fn part(len: usize, parts: usize, index: usize) -> Range<usize> {
    len * index / parts..len * (index + 1) / parts
}

/// Rows in a task such that it covers about [`CHUNK`] elements.
pub(crate) fn rows_per_task(row_len: usize) -> usize {
    (CHUNK / row_len.max(1)).max(1)
}

/// A mutable buffer that several tasks write at places of their own.
pub(crate) struct Shared<'a, T> {
    start: *mut T,
    len: usize,
    borrow: PhantomData<&'a mut [T]>,
}

impl<T> Clone for Shared<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Shared<'_, T> {}

// SAFETY: a `Shared` gives out parts of a buffer of `Send` elements, and its users promise that no two tasks hold
// overlapping parts (contract of `slice`).
unsafe impl<T: Send> Send for Shared<'_, T> {}
// SAFETY: as above; `&Shared` offers the same as `Shared`, which is `Copy`.
unsafe impl<T: Send> Sync for Shared<'_, T> {}

impl<'a, T> Shared<'a, T> {
    /// Lends `buffer` out to tasks.
    pub(crate) fn new(buffer: &'a mut [T]) -> Self {
        Self { start: buffer.as_mut_ptr(), len: buffer.len(), borrow: PhantomData }
    }

    /// The elements `range`.
    ///
    /// # Safety
    /// While the result lives, nobody else may use an element of `range`.
    #[allow(clippy::mut_from_ref)]
    pub(crate) unsafe fn slice(&self, range: Range<usize>) -> &'a mut [T] {
        assert!(range.start <= range.end && range.end <= self.len, "a task's part lies outside the buffer");
        // SAFETY: the range lies inside the buffer borrowed for 'a, and the caller keeps it exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(range.start), range.end - range.start) }
    }
}

/// Runs `task(start, chunk)` for every chunk of `size` elements of `data`, the last one shorter.
pub(crate) fn chunks_mut<T: Send>(data: &mut [T], size: usize, task: impl Fn(usize, &mut [T]) + Sync + Send) {
    if data.len() <= size {
        task(0, data);
    } else {
        data.par_chunks_mut(size).enumerate().for_each(|(i, chunk)| task(i * size, chunk));
    }
}

/// Runs `task(index, a, b)` for every chunk of two buffers that are cut into the same number of chunks.
pub(crate) fn chunks_mut2<A: Send, B: Send>(
    (a, a_size): (&mut [A], usize),
    (b, b_size): (&mut [B], usize),
    task: impl Fn(usize, &mut [A], &mut [B]) + Sync + Send,
) {
    if a.len() <= a_size {
        task(0, a, b);
    } else {
        let pairs = a.par_chunks_mut(a_size).zip_eq(b.par_chunks_mut(b_size));
        pairs.enumerate().for_each(|(i, (a, b))| task(i, a, b));
    }
}

/// A vector of `len` floats, not zeroed before: `fill` writes all of its places and returns them as values.
pub(crate) fn written(len: usize, fill: impl for<'a> FnOnce(&'a mut [MaybeUninit<f32>]) -> &'a mut [f32]) -> Vec<f32> {
    let mut out = Vec::with_capacity(len);
    let places = &mut out.spare_capacity_mut()[..len];
    let start = places.as_ptr().cast::<f32>();
    let values = fill(places);
    assert!(values.len() == len && values.as_ptr() == start, "the places of a vector must all be written");
    // SAFETY: `fill` returned exactly these places as initialised floats, and the capacity is at least `len`.
    unsafe { out.set_len(len) };
    out
}

/// `len` zeros, written on all threads: those of the allocator cost one thread the page faults of a large buffer.
pub(crate) fn zeros(len: usize) -> Vec<f32> {
    written(len, |places| {
        chunks_mut(places, CHUNK, |_, places| places.fill(MaybeUninit::new(0.0)));
        // SAFETY: the chunks cover all places.
        unsafe { initialised(places) }
    })
}

/// Places as values.
///
/// # Safety
/// Every place must have been written.
pub(crate) unsafe fn initialised(places: &mut [MaybeUninit<f32>]) -> &mut [f32] {
    // SAFETY: `MaybeUninit<f32>` has the layout of `f32`, and the caller promises values.
    unsafe { &mut *(std::ptr::from_mut(places) as *mut [f32]) }
}
