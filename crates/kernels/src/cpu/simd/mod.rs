//! One vector of f32 lanes per tier, behind a trait, so that each kernel is written once.
//!
//! Every method is `#[inline(always)]` and used only below [`Tier::run`](crate::cpu::Tier), whose wrappers enable the
//! instructions.
#![allow(unsafe_op_in_unsafe_fn, reason = "each function as a whole relies on the two promises of `Simd`")]

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod portable;

#[cfg(target_arch = "x86_64")]
pub(crate) use avx2::Avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) use avx512::Avx512;
pub(crate) use portable::Portable;

/// Outputs that one panel of a quantised matrix interleaves.
pub(crate) const PANEL: usize = 16;

/// Vector operations of one tier.
///
/// # Safety of every method
/// The machine runs the tier's instructions, and pointers are valid for the lanes or bytes named.
pub(crate) trait Simd: Copy + 'static {
    /// f32 lanes of a vector; divides [`PANEL`].
    const LANES: usize;
    /// Rows of the largest f32 tile that keeps its accumulators in registers, at two vectors a row.
    const FLOAT_ROWS: usize;
    /// Rows of the largest quantised tile that does.
    const QUANTISED_ROWS: usize;
    /// Rows of the largest tile of attention outputs that does, at four vectors a row.
    const VALUE_ROWS: usize;
    /// A vector.
    type F: Copy;

    unsafe fn splat(x: f32) -> Self::F;
    unsafe fn load(from: *const f32) -> Self::F;
    unsafe fn store(to: *mut f32, v: Self::F);
    unsafe fn load_bf16(from: *const u16) -> Self::F;
    unsafe fn load_f16(from: *const u16) -> Self::F;
    unsafe fn add(a: Self::F, b: Self::F) -> Self::F;
    unsafe fn sub(a: Self::F, b: Self::F) -> Self::F;
    unsafe fn mul(a: Self::F, b: Self::F) -> Self::F;
    unsafe fn div(a: Self::F, b: Self::F) -> Self::F;
    /// `a` where `a > b`, else `b`.
    unsafe fn max(a: Self::F, b: Self::F) -> Self::F;
    /// `a * b + c`, rounded once where the tier has FMA.
    unsafe fn mul_add(a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// `v` rounded to the nearest integer `n`, and `2^n`; `v` in [-126, 127].
    unsafe fn round_exp2(v: Self::F) -> (Self::F, Self::F);

    /// Dots of one block (32 weights) of [`LANES`](Self::LANES) outputs with `R` rows of activations, as f32 (exact).
    ///
    /// `w`: four groups, 64 bytes apart, of four bytes a lane; the low nibbles of group `g` are weights `4 g ..`, the
    /// high nibbles weights `16 + 4 g ..`. `x`: `R` rows of 32 signed bytes in [-127, 127].
    unsafe fn dot_q4<const R: usize>(w: *const u8, x: *const i8) -> [Self::F; R];

    /// The same for bytes: eight groups of four bytes a lane, each weight plus 128. `offsets`: for each row, -128 times
    /// the sum of its activations, which cancels the 128.
    unsafe fn dot_q8<const R: usize>(w: *const u8, x: *const i8, offsets: *const i32) -> [Self::F; R];

    /// `e^v`, to about 1e-7 of its value, and at least 1e-38: arguments are clamped to [-87, 88].
    #[inline(always)]
    unsafe fn exp(v: Self::F) -> Self::F {
        const C: [f32; 6] = [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0];
        let low = Self::max(v, Self::splat(-87.0));
        let x = Self::sub(Self::splat(0.0), Self::max(Self::sub(Self::splat(0.0), low), Self::splat(-88.0)));
        let (n, scale) = Self::round_exp2(Self::mul(x, Self::splat(std::f32::consts::LOG2_E)));
        // ln 2 in two parts, so that the remainder keeps its bits.
        let r = Self::mul_add(n, Self::splat(-0.693_359_4), x);
        let r = Self::mul_add(n, Self::splat(2.121_944_4e-4), r);
        let mut p = Self::splat(1.0 / 5040.0);
        for c in C {
            p = Self::mul_add(p, r, Self::splat(c));
        }
        Self::mul(Self::mul_add(p, r, Self::splat(1.0)), scale)
    }
}
