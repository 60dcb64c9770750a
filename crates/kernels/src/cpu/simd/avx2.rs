//! AVX2 with FMA and F16C: eight lanes, sixteen registers.

use super::Simd;
use std::arch::x86_64::*;

/// A `__m256`.
#[derive(Clone, Copy)]
pub(crate) struct Avx2;

impl Simd for Avx2 {
    const LANES: usize = 8;
    const FLOAT_ROWS: usize = 6;
    const QUANTISED_ROWS: usize = 4;
    const VALUE_ROWS: usize = 3;
    type F = __m256;

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self::F {
        _mm256_set1_ps(x)
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self::F {
        _mm256_loadu_ps(from)
    }
    #[inline(always)]
    unsafe fn store(to: *mut f32, v: Self::F) {
        _mm256_storeu_ps(to, v);
    }
    #[inline(always)]
    unsafe fn load_bf16(from: *const u16) -> Self::F {
        let bits = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.cast()));
        _mm256_castsi256_ps(_mm256_slli_epi32::<16>(bits))
    }
    #[inline(always)]
    unsafe fn load_f16(from: *const u16) -> Self::F {
        _mm256_cvtph_ps(_mm_loadu_si128(from.cast()))
    }
    #[inline(always)]
    unsafe fn add(a: Self::F, b: Self::F) -> Self::F {
        _mm256_add_ps(a, b)
    }
    #[inline(always)]
    unsafe fn sub(a: Self::F, b: Self::F) -> Self::F {
        _mm256_sub_ps(a, b)
    }
    #[inline(always)]
    unsafe fn mul(a: Self::F, b: Self::F) -> Self::F {
        _mm256_mul_ps(a, b)
    }
    #[inline(always)]
    unsafe fn div(a: Self::F, b: Self::F) -> Self::F {
        _mm256_div_ps(a, b)
    }
    #[inline(always)]
    unsafe fn max(a: Self::F, b: Self::F) -> Self::F {
        _mm256_max_ps(a, b)
    }
    #[inline(always)]
    unsafe fn mul_add(a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        _mm256_fmadd_ps(a, b, c)
    }
    #[inline(always)]
    unsafe fn round_exp2(v: Self::F) -> (Self::F, Self::F) {
        let n = _mm256_cvtps_epi32(v);
        let scale = _mm256_slli_epi32::<23>(_mm256_add_epi32(n, _mm256_set1_epi32(127)));
        (_mm256_cvtepi32_ps(n), _mm256_castsi256_ps(scale))
    }

    #[inline(always)]
    unsafe fn dot_q4<const R: usize>(w: *const u8, x: *const i8) -> [Self::F; R] {
        // A pair of products is at most 2 * 15 * 127, and a block has 8 pairs a 16-bit half lane: 30480 fits an i16, so
        // one widening a block is enough.
        let mask = _mm256_set1_epi8(15);
        let mut sums = [_mm256_setzero_si256(); R];
        for group in 0..4 {
            let bytes = _mm256_loadu_si256(w.add(64 * group).cast());
            let low = _mm256_and_si256(bytes, mask);
            let high = _mm256_and_si256(_mm256_srli_epi16::<4>(bytes), mask);
            for (r, sum) in sums.iter_mut().enumerate() {
                let at = x.add(32 * r + 4 * group);
                *sum = _mm256_add_epi16(*sum, _mm256_maddubs_epi16(low, broadcast(at)));
                *sum = _mm256_add_epi16(*sum, _mm256_maddubs_epi16(high, broadcast(at.add(16))));
            }
        }
        let mut dots = [_mm256_setzero_ps(); R];
        for (dot, sum) in dots.iter_mut().zip(sums) {
            *dot = _mm256_cvtepi32_ps(_mm256_madd_epi16(sum, _mm256_set1_epi16(1)));
        }
        dots
    }

    #[inline(always)]
    unsafe fn dot_q8<const R: usize>(w: *const u8, x: *const i8, _offsets: *const i32) -> [Self::F; R] {
        // `maddubs` takes unsigned times signed and saturates pairs: |w| <= 128 times x with w's sign keeps every pair
        // within 2 * 128 * 127 = 32512. The 128 is taken off the weights here, so no offset is left to cancel.
        let bias = _mm256_set1_epi8(-128);
        let ones = _mm256_set1_epi16(1);
        let mut sums = [_mm256_setzero_si256(); R];
        for group in 0..8 {
            let signed = _mm256_xor_si256(_mm256_loadu_si256(w.add(64 * group).cast()), bias);
            let magnitude = _mm256_abs_epi8(signed);
            for (r, sum) in sums.iter_mut().enumerate() {
                let x = _mm256_sign_epi8(broadcast(x.add(32 * r + 4 * group)), signed);
                *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(_mm256_maddubs_epi16(magnitude, x), ones));
            }
        }
        let mut dots = [_mm256_setzero_ps(); R];
        for (dot, sum) in dots.iter_mut().zip(sums) {
            *dot = _mm256_cvtepi32_ps(sum);
        }
        dots
    }
}

/// Four bytes in every lane.
#[inline(always)]
unsafe fn broadcast(from: *const i8) -> __m256i {
    _mm256_set1_epi32(from.cast::<i32>().read_unaligned())
}
