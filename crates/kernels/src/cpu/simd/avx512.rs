//! AVX-512 with VNNI: sixteen lanes, thirty-two registers.

use super::Simd;
use std::arch::x86_64::*;

/// A `__m512`.
#[derive(Clone, Copy)]
pub(crate) struct Avx512;

impl Simd for Avx512 {
    const LANES: usize = 16;
    const FLOAT_ROWS: usize = 12;
    const QUANTISED_ROWS: usize = 12;
    const VALUE_ROWS: usize = 6;
    type F = __m512;

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self::F {
        _mm512_set1_ps(x)
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self::F {
        _mm512_loadu_ps(from)
    }
    #[inline(always)]
    unsafe fn store(to: *mut f32, v: Self::F) {
        _mm512_storeu_ps(to, v);
    }
    #[inline(always)]
    unsafe fn load_bf16(from: *const u16) -> Self::F {
        let bits = _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast()));
        _mm512_castsi512_ps(_mm512_slli_epi32::<16>(bits))
    }
    #[inline(always)]
    unsafe fn load_f16(from: *const u16) -> Self::F {
        _mm512_cvtph_ps(_mm256_loadu_si256(from.cast()))
    }
    #[inline(always)]
    unsafe fn add(a: Self::F, b: Self::F) -> Self::F {
        _mm512_add_ps(a, b)
    }
    #[inline(always)]
    unsafe fn sub(a: Self::F, b: Self::F) -> Self::F {
        _mm512_sub_ps(a, b)
    }
    #[inline(always)]
    unsafe fn mul(a: Self::F, b: Self::F) -> Self::F {
        _mm512_mul_ps(a, b)
    }
    #[inline(always)]
    unsafe fn div(a: Self::F, b: Self::F) -> Self::F {
        _mm512_div_ps(a, b)
    }
    #[inline(always)]
    unsafe fn max(a: Self::F, b: Self::F) -> Self::F {
        _mm512_max_ps(a, b)
    }
    #[inline(always)]
    unsafe fn mul_add(a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        _mm512_fmadd_ps(a, b, c)
    }
    #[inline(always)]
    unsafe fn round_exp2(v: Self::F) -> (Self::F, Self::F) {
        let n = _mm512_cvtps_epi32(v);
        let scale = _mm512_slli_epi32::<23>(_mm512_add_epi32(n, _mm512_set1_epi32(127)));
        (_mm512_cvtepi32_ps(n), _mm512_castsi512_ps(scale))
    }

    #[inline(always)]
    unsafe fn dot_q4<const R: usize>(w: *const u8, x: *const i8) -> [Self::F; R] {
        let mask = _mm512_set1_epi8(15);
        let mut sums = [_mm512_setzero_si512(); R];
        for group in 0..4 {
            let bytes = _mm512_loadu_si512(w.add(64 * group).cast());
            let low = _mm512_and_si512(bytes, mask);
            let high = _mm512_and_si512(_mm512_srli_epi16::<4>(bytes), mask);
            for (r, sum) in sums.iter_mut().enumerate() {
                let at = x.add(32 * r + 4 * group);
                *sum = _mm512_dpbusd_epi32(*sum, low, broadcast(at));
                *sum = _mm512_dpbusd_epi32(*sum, high, broadcast(at.add(16)));
            }
        }
        let mut dots = [_mm512_setzero_ps(); R];
        for (dot, sum) in dots.iter_mut().zip(sums) {
            *dot = _mm512_cvtepi32_ps(sum);
        }
        dots
    }

    #[inline(always)]
    unsafe fn dot_q8<const R: usize>(w: *const u8, x: *const i8, offsets: *const i32) -> [Self::F; R] {
        let mut sums = [_mm512_setzero_si512(); R];
        for (r, sum) in sums.iter_mut().enumerate() {
            *sum = _mm512_set1_epi32(offsets.add(r).read_unaligned());
        }
        for group in 0..8 {
            let bytes = _mm512_loadu_si512(w.add(64 * group).cast());
            for (r, sum) in sums.iter_mut().enumerate() {
                *sum = _mm512_dpbusd_epi32(*sum, bytes, broadcast(x.add(32 * r + 4 * group)));
            }
        }
        let mut dots = [_mm512_setzero_ps(); R];
        for (dot, sum) in dots.iter_mut().zip(sums) {
            *dot = _mm512_cvtepi32_ps(sum);
        }
        dots
    }
}

/// Four bytes in every lane.
#[inline(always)]
unsafe fn broadcast(from: *const i8) -> __m512i {
    _mm512_set1_epi32(from.cast::<i32>().read_unaligned())
}
