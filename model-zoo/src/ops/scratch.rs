//! Owns working memory of kernels: aligned, unzeroed, kept by its thread for the next call; never touches tensors.

use std::cell::RefCell;
use std::mem::MaybeUninit;

/// A cache line of floats: packed panels start on one, so no vector load of a panel crosses two lines.
#[repr(C, align(64))]
#[derive(Clone, Copy)]
struct Line([f32; Line::FLOATS]);

impl Line {
    const FLOATS: usize = 16;
}

/// Buffers that a thread keeps for its next kernel. More would hold memory that no kernel needs at one time.
const KEPT: usize = 6;

/// Lines of a buffer that is worth no thought: 64 KiB.
const SMALL: usize = 1 << 10;

thread_local! {
    static KEPT_BUFFERS: RefCell<Vec<Vec<MaybeUninit<Line>>>> = const { RefCell::new(Vec::new()) };
}

/// A 64-byte aligned buffer of floats of unspecified content, returned to its thread when dropped.
pub(crate) struct Scratch {
    lines: Vec<MaybeUninit<Line>>,
    len: usize,
}

impl Scratch {
    /// A buffer of at least `len` floats; whoever reads an element has written it before.
    pub(crate) fn new(len: usize) -> Self {
        let needed = len.div_ceil(Line::FLOATS);
        if needed == 0 {
            return Self { lines: Vec::new(), len };
        }
        let reused = KEPT_BUFFERS.with_borrow_mut(|kept| {
            // A small request must not occupy a large buffer that the next request would need.
            let fits = (0..kept.len()).filter(|&i| (needed..=4 * needed + SMALL).contains(&kept[i].capacity()));
            let best = fits.min_by_key(|&i| kept[i].capacity());
            match best {
                Some(i) => Some(kept.swap_remove(i)),
                None => {
                    // The new buffer takes the place of the smallest, or small ones would pile up beside it.
                    if kept.len() + 1 >= KEPT
                        && let Some(i) = (0..kept.len()).min_by_key(|&i| kept[i].capacity())
                    {
                        kept.swap_remove(i);
                    }
                    None
                }
            }
        });
        Self { lines: reused.unwrap_or_else(|| Vec::with_capacity(needed)), len }
    }

    /// Start of the buffer, valid for reads of what was written and for writes of `len` floats.
    pub(crate) fn as_mut_ptr(&mut self) -> *mut f32 {
        self.lines.as_mut_ptr().cast()
    }

    /// Start of the buffer for reading.
    pub(crate) fn as_ptr(&self) -> *const f32 {
        self.lines.as_ptr().cast()
    }

    /// The buffer as places to write.
    pub(crate) fn uninit(&mut self) -> &mut [MaybeUninit<f32>] {
        // SAFETY: the allocation holds `capacity` lines, hence at least `len` floats, aligned to 64 bytes, and a
        // `MaybeUninit` needs no initialisation; the borrow of `self` keeps it exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.len) }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let lines = std::mem::take(&mut self.lines);
        if lines.capacity() == 0 {
            return;
        }
        // A thread that is ending has no pool any more; the buffer is then simply freed.
        let _ = KEPT_BUFFERS.try_with(|kept| {
            if let Ok(mut kept) = kept.try_borrow_mut()
                && kept.len() < KEPT
            {
                kept.push(lines);
            }
        });
    }
}
