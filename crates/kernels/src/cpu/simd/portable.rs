//! The plain twin of the vector tiers: arrays and loops.

use super::Simd;
use half::{bf16, f16};
use std::array::from_fn;

/// Eight lanes in an array.
#[derive(Clone, Copy)]
pub(crate) struct Portable;

impl Simd for Portable {
    const LANES: usize = 8;
    const FLOAT_ROWS: usize = 2;
    const QUANTISED_ROWS: usize = 2;
    const VALUE_ROWS: usize = 1;
    type F = [f32; 8];

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self::F {
        [x; 8]
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self::F {
        from.cast::<Self::F>().read_unaligned()
    }
    #[inline(always)]
    unsafe fn store(to: *mut f32, v: Self::F) {
        to.cast::<Self::F>().write_unaligned(v);
    }
    #[inline(always)]
    unsafe fn load_bf16(from: *const u16) -> Self::F {
        let bits = from.cast::<[u16; 8]>().read_unaligned();
        from_fn(|i| bf16::from_bits(bits[i]).to_f32())
    }
    #[inline(always)]
    unsafe fn load_f16(from: *const u16) -> Self::F {
        let bits = from.cast::<[u16; 8]>().read_unaligned();
        from_fn(|i| f16::from_bits(bits[i]).to_f32())
    }
    #[inline(always)]
    unsafe fn add(a: Self::F, b: Self::F) -> Self::F {
        from_fn(|i| a[i] + b[i])
    }
    #[inline(always)]
    unsafe fn sub(a: Self::F, b: Self::F) -> Self::F {
        from_fn(|i| a[i] - b[i])
    }
    #[inline(always)]
    unsafe fn mul(a: Self::F, b: Self::F) -> Self::F {
        from_fn(|i| a[i] * b[i])
    }
    #[inline(always)]
    unsafe fn div(a: Self::F, b: Self::F) -> Self::F {
        from_fn(|i| a[i] / b[i])
    }
    #[inline(always)]
    unsafe fn max(a: Self::F, b: Self::F) -> Self::F {
        from_fn(|i| if a[i] > b[i] { a[i] } else { b[i] })
    }
    #[inline(always)]
    unsafe fn mul_add(a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        // Not `f32::mul_add`: without the instruction that is a slow library call.
        from_fn(|i| a[i] * b[i] + c[i])
    }
    #[inline(always)]
    unsafe fn round_exp2(v: Self::F) -> (Self::F, Self::F) {
        // Adding 1.5 * 2^23 leaves the nearest integer in the low bits of the mantissa.
        const MAGIC: f32 = 12_582_912.0;
        let shifted: [f32; 8] = from_fn(|i| v[i] + MAGIC);
        let n = from_fn(|i| shifted[i] - MAGIC);
        let scale = from_fn(|i| f32::from_bits(shifted[i].to_bits().wrapping_add(127) << 23));
        (n, scale)
    }

    #[inline(always)]
    unsafe fn dot_q4<const R: usize>(w: *const u8, x: *const i8) -> [Self::F; R] {
        let mut sums = [[0_i32; 8]; R];
        for group in 0..4 {
            let bytes = w.add(64 * group).cast::<[[u8; 4]; 8]>().read_unaligned();
            for (r, sums) in sums.iter_mut().enumerate() {
                let low = x.add(32 * r + 4 * group).cast::<[i8; 4]>().read_unaligned();
                let high = x.add(32 * r + 16 + 4 * group).cast::<[i8; 4]>().read_unaligned();
                for (sum, bytes) in sums.iter_mut().zip(bytes) {
                    for i in 0..4 {
                        *sum += i32::from(bytes[i] & 15) * i32::from(low[i]);
                        *sum += i32::from(bytes[i] >> 4) * i32::from(high[i]);
                    }
                }
            }
        }
        sums.map(|lanes| lanes.map(|sum| sum as f32))
    }

    #[inline(always)]
    unsafe fn dot_q8<const R: usize>(w: *const u8, x: *const i8, offsets: *const i32) -> [Self::F; R] {
        let mut sums: [[i32; 8]; R] = from_fn(|r| [offsets.add(r).read_unaligned(); 8]);
        for group in 0..8 {
            let bytes = w.add(64 * group).cast::<[[u8; 4]; 8]>().read_unaligned();
            for (r, sums) in sums.iter_mut().enumerate() {
                let x = x.add(32 * r + 4 * group).cast::<[i8; 4]>().read_unaligned();
                for (sum, bytes) in sums.iter_mut().zip(bytes) {
                    for i in 0..4 {
                        *sum += i32::from(bytes[i]) * i32::from(x[i]);
                    }
                }
            }
        }
        sums.map(|lanes| lanes.map(|sum| sum as f32))
    }
}
