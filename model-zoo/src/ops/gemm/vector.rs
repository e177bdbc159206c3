//! Owns the vector registers that the matrix kernels are written in, one type for each instruction set.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

/// Most lanes that any register here has.
pub(super) const MAX_LANES: usize = 16;

/// A register of `LANES` floats.
///
/// # Safety
/// Every function needs the CPU to have the type's instruction set, and must be inlined into a function compiled for
/// it. Pointers need no alignment and must be valid for the lanes that are read or written.
pub(super) trait Vector: Copy {
    /// Floats in a register.
    const LANES: usize;
    /// Zero in every lane.
    unsafe fn zero() -> Self;
    /// `x` in every lane.
    unsafe fn splat(x: f32) -> Self;
    /// All lanes from memory.
    unsafe fn load(p: *const f32) -> Self;
    /// The first `n` lanes from memory, zero in the others; touches no memory behind them.
    unsafe fn load_first(p: *const f32, n: usize) -> Self;
    /// All lanes to memory.
    unsafe fn store(self, p: *mut f32);
    /// The first `n` lanes to memory.
    unsafe fn store_first(self, p: *mut f32, n: usize);
    /// `self * b + c`.
    unsafe fn mul_add(self, b: Self, c: Self) -> Self;
    /// `self + b`.
    unsafe fn add(self, b: Self) -> Self;
    /// Transposes the square of the first `LANES` registers.
    unsafe fn transpose(square: &mut [Self; MAX_LANES]);
    /// Asks for the cache line at `p`, which need not be valid.
    unsafe fn prefetch(_p: *const f32) {}
}

#[cfg(target_arch = "x86_64")]
impl Vector for __m512 {
    const LANES: usize = 16;
    #[inline(always)]
    unsafe fn prefetch(p: *const f32) {
        // SAFETY: a prefetch is a hint and faults on no address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) }
    }
    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: the caller promises AVX-512F.
        unsafe { _mm512_setzero_ps() }
    }
    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        // SAFETY: the caller promises AVX-512F.
        unsafe { _mm512_set1_ps(x) }
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self {
        // SAFETY: the caller promises AVX-512F and 16 readable floats.
        unsafe { _mm512_loadu_ps(p) }
    }
    #[inline(always)]
    unsafe fn load_first(p: *const f32, n: usize) -> Self {
        // SAFETY: the caller promises AVX-512F and `n` readable floats; masked lanes are not accessed.
        unsafe { _mm512_maskz_loadu_ps(first_lanes(n), p) }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32) {
        // SAFETY: the caller promises AVX-512F and 16 writable floats.
        unsafe { _mm512_storeu_ps(p, self) }
    }
    #[inline(always)]
    unsafe fn store_first(self, p: *mut f32, n: usize) {
        // SAFETY: the caller promises AVX-512F and `n` writable floats; masked lanes are not accessed.
        unsafe { _mm512_mask_storeu_ps(p, first_lanes(n), self) }
    }
    #[inline(always)]
    unsafe fn mul_add(self, b: Self, c: Self) -> Self {
        // SAFETY: the caller promises AVX-512F.
        unsafe { _mm512_fmadd_ps(self, b, c) }
    }
    #[inline(always)]
    unsafe fn add(self, b: Self) -> Self {
        // SAFETY: the caller promises AVX-512F.
        unsafe { _mm512_add_ps(self, b) }
    }
    #[inline(always)]
    unsafe fn transpose(square: &mut [Self; MAX_LANES]) {
        // Four rounds, each halving the distance of what still has to change places: floats, pairs, and twice quarters.
        let mut t = *square;
        // SAFETY: the caller promises AVX-512F; every intrinsic works on registers only.
        unsafe {
            for i in 0..8 {
                square[2 * i] = _mm512_unpacklo_ps(t[2 * i], t[2 * i + 1]);
                square[2 * i + 1] = _mm512_unpackhi_ps(t[2 * i], t[2 * i + 1]);
            }
            for i in 0..4 {
                let q = &square[4 * i..4 * i + 4];
                t[4 * i] = _mm512_shuffle_ps::<0x44>(q[0], q[2]);
                t[4 * i + 1] = _mm512_shuffle_ps::<0xEE>(q[0], q[2]);
                t[4 * i + 2] = _mm512_shuffle_ps::<0x44>(q[1], q[3]);
                t[4 * i + 3] = _mm512_shuffle_ps::<0xEE>(q[1], q[3]);
            }
            for i in 0..4 {
                square[i] = _mm512_shuffle_f32x4::<0x88>(t[i], t[4 + i]);
                square[4 + i] = _mm512_shuffle_f32x4::<0xDD>(t[i], t[4 + i]);
                square[8 + i] = _mm512_shuffle_f32x4::<0x88>(t[8 + i], t[12 + i]);
                square[12 + i] = _mm512_shuffle_f32x4::<0xDD>(t[8 + i], t[12 + i]);
            }
            t = *square;
            for i in 0..4 {
                square[i] = _mm512_shuffle_f32x4::<0x88>(t[i], t[8 + i]);
                square[8 + i] = _mm512_shuffle_f32x4::<0xDD>(t[i], t[8 + i]);
                square[4 + i] = _mm512_shuffle_f32x4::<0x88>(t[4 + i], t[12 + i]);
                square[12 + i] = _mm512_shuffle_f32x4::<0xDD>(t[4 + i], t[12 + i]);
            }
        }
    }
}

/// Mask of the first `n` of 16 lanes.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn first_lanes(n: usize) -> __mmask16 {
    ((1u32 << n) - 1) as __mmask16
}

#[cfg(target_arch = "x86_64")]
impl Vector for __m256 {
    const LANES: usize = 8;
    #[inline(always)]
    unsafe fn prefetch(p: *const f32) {
        // SAFETY: a prefetch is a hint and faults on no address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) }
    }
    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: the caller promises AVX2.
        unsafe { _mm256_setzero_ps() }
    }
    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        // SAFETY: the caller promises AVX2.
        unsafe { _mm256_set1_ps(x) }
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self {
        // SAFETY: the caller promises AVX2 and 8 readable floats.
        unsafe { _mm256_loadu_ps(p) }
    }
    #[inline(always)]
    unsafe fn load_first(p: *const f32, n: usize) -> Self {
        // SAFETY: the caller promises AVX2 and `n` readable floats; masked lanes are not accessed.
        unsafe { _mm256_maskload_ps(p, first_lanes_256(n)) }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32) {
        // SAFETY: the caller promises AVX2 and 8 writable floats.
        unsafe { _mm256_storeu_ps(p, self) }
    }
    #[inline(always)]
    unsafe fn store_first(self, p: *mut f32, n: usize) {
        // SAFETY: the caller promises AVX2 and `n` writable floats; masked lanes are not accessed.
        unsafe { _mm256_maskstore_ps(p, first_lanes_256(n), self) }
    }
    #[inline(always)]
    unsafe fn mul_add(self, b: Self, c: Self) -> Self {
        // SAFETY: the caller promises FMA.
        unsafe { _mm256_fmadd_ps(self, b, c) }
    }
    #[inline(always)]
    unsafe fn add(self, b: Self) -> Self {
        // SAFETY: the caller promises AVX2.
        unsafe { _mm256_add_ps(self, b) }
    }
    #[inline(always)]
    unsafe fn transpose(square: &mut [Self; MAX_LANES]) {
        let mut t = *square;
        // SAFETY: the caller promises AVX2; every intrinsic works on registers only.
        unsafe {
            for i in 0..4 {
                square[2 * i] = _mm256_unpacklo_ps(t[2 * i], t[2 * i + 1]);
                square[2 * i + 1] = _mm256_unpackhi_ps(t[2 * i], t[2 * i + 1]);
            }
            for i in 0..2 {
                let q = &square[4 * i..4 * i + 4];
                t[4 * i] = _mm256_shuffle_ps::<0x44>(q[0], q[2]);
                t[4 * i + 1] = _mm256_shuffle_ps::<0xEE>(q[0], q[2]);
                t[4 * i + 2] = _mm256_shuffle_ps::<0x44>(q[1], q[3]);
                t[4 * i + 3] = _mm256_shuffle_ps::<0xEE>(q[1], q[3]);
            }
            for i in 0..4 {
                square[i] = _mm256_permute2f128_ps::<0x20>(t[i], t[4 + i]);
                square[4 + i] = _mm256_permute2f128_ps::<0x31>(t[i], t[4 + i]);
            }
        }
    }
}

/// Mask of the first `n` of 8 lanes: the sign bit of a lane switches it on.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn first_lanes_256(n: usize) -> __m256i {
    // SAFETY: the caller promises AVX2; every intrinsic works on registers only.
    unsafe { _mm256_cmpgt_epi32(_mm256_set1_epi32(n as i32), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)) }
}

/// Four floats that the compiler maps to whatever the target's baseline has.
#[derive(Clone, Copy)]
pub(super) struct Quad([f32; 4]);

impl Vector for Quad {
    const LANES: usize = 4;
    #[inline(always)]
    unsafe fn zero() -> Self {
        Self([0.0; 4])
    }
    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        Self([x; 4])
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self {
        // SAFETY: the caller promises 4 readable floats; an array of floats is as aligned as a float.
        Self(unsafe { p.cast::<[f32; 4]>().read() })
    }
    #[inline(always)]
    unsafe fn load_first(p: *const f32, n: usize) -> Self {
        let mut out = [0.0; 4];
        for (i, x) in out.iter_mut().enumerate().take(n) {
            // SAFETY: the caller promises `n` readable floats.
            *x = unsafe { *p.add(i) };
        }
        Self(out)
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32) {
        // SAFETY: the caller promises 4 writable floats; an array of floats is as aligned as a float.
        unsafe { p.cast::<[f32; 4]>().write(self.0) }
    }
    #[inline(always)]
    unsafe fn store_first(self, p: *mut f32, n: usize) {
        for (i, x) in self.0.iter().enumerate().take(n) {
            // SAFETY: the caller promises `n` writable floats.
            unsafe { p.add(i).write(*x) };
        }
    }
    #[inline(always)]
    unsafe fn mul_add(self, b: Self, c: Self) -> Self {
        Self(std::array::from_fn(|i| {
            crate::ops::simd::mul_add::<{ crate::ops::simd::PORTABLE_FMA }>(self.0[i], b.0[i], c.0[i])
        }))
    }
    #[inline(always)]
    unsafe fn add(self, b: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] + b.0[i]))
    }
    #[inline(always)]
    unsafe fn transpose(square: &mut [Self; MAX_LANES]) {
        let t: [[f32; 4]; 4] = std::array::from_fn(|i| square[i].0);
        for i in 0..4 {
            square[i] = Self(std::array::from_fn(|j| t[j][i]));
        }
    }
}
