//! Products with f32 and bf16 weights.
//!
//! A tile is `R` rows times two vectors of outputs (four vectors for one or two rows); its accumulators stay in registers
//! over the whole of `k`, so every output is one chain of multiply-adds in the order of `k`. A tile reads each weight
//! once for `R` rows and each activation once for its outputs. 12 x 32 on AVX-512: 24 multiply-adds for 2 loads of
//! weights and 12 broadcasts, so arithmetic is the limit. One row streams the weights, and memory is the limit.
#![allow(unsafe_op_in_unsafe_fn, reason = "each function as a whole relies on its task's bounds")]

use crate::cpu::activations::row_tiles;
use crate::cpu::matrix::Product;
use crate::cpu::simd::Simd;
use crate::cpu::tier::Kernel;
use half::bf16;
use std::marker::PhantomData;

/// Outputs that one panel interleaves.
pub(crate) const FLOAT_PANEL: usize = 32;

/// A stored weight that widens to f32 without rounding.
pub(crate) trait FloatWeight: Copy {
    /// # Safety
    /// `from` has a vector of weights, and the machine runs the instructions of `S`.
    unsafe fn load<S: Simd>(from: *const Self) -> S::F;
}

impl FloatWeight for f32 {
    #[inline(always)]
    unsafe fn load<S: Simd>(from: *const Self) -> S::F {
        S::load(from)
    }
}

impl FloatWeight for bf16 {
    #[inline(always)]
    unsafe fn load<S: Simd>(from: *const Self) -> S::F {
        S::load_bf16(from.cast())
    }
}

/// A [`Product`] with weights of type `W`.
pub(crate) struct FloatTask<'a, W>(Product<'a>, PhantomData<W>);

impl<'a, W> FloatTask<'a, W> {
    pub(crate) fn new(product: Product<'a>) -> Self {
        Self(product, PhantomData)
    }
}

impl<W: FloatWeight> Kernel for FloatTask<'_, W> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let p = self.0;
        for panel in p.panels.clone() {
            let weights: *const W = p.weights[panel * p.panel_bytes..][..p.panel_bytes].as_ptr().cast();
            for tile in row_tiles(p.rows, S::FLOAT_ROWS) {
                let x = p.x[tile.start * p.k..][..tile.height * p.k].as_ptr();
                let args = TileArgs { weights, x, k: p.k, product: &p, panel, row: p.first_row + tile.start };
                match tile.height {
                    12 => args.rows::<S, 12>(),
                    8 => args.rows::<S, 8>(),
                    6 => args.rows::<S, 6>(),
                    4 => args.rows::<S, 4>(),
                    3 => args.rows::<S, 3>(),
                    2 => args.rows::<S, 2>(),
                    _ => args.rows::<S, 1>(),
                }
            }
        }
    }
}

struct TileArgs<'a, W> {
    weights: *const W,
    x: *const f32,
    k: usize,
    product: &'a Product<'a>,
    panel: usize,
    row: usize,
}

impl<W: FloatWeight> TileArgs<'_, W> {
    /// `R` rows of the panel, as many vectors at a time as registers allow.
    #[inline(always)]
    unsafe fn rows<S: Simd, const R: usize>(&self) {
        if R > S::FLOAT_ROWS {
            return;
        }
        let vectors = FLOAT_PANEL / S::LANES;
        if vectors == 4 && R <= 2 {
            self.tile::<S, R, 4>(0);
            return;
        }
        for first in (0..vectors).step_by(2) {
            self.tile::<S, R, 2>(first * S::LANES);
        }
    }

    /// `R` rows times `V` vectors of outputs, from `lane` of the panel on.
    #[inline(always)]
    unsafe fn tile<S: Simd, const R: usize, const V: usize>(&self, lane: usize) {
        let mut sums = [[S::splat(0.0); V]; R];
        let (mut w, mut x) = (self.weights.add(lane), self.x);
        for _ in 0..self.k {
            let mut weights = [S::splat(0.0); V];
            for (v, weight) in weights.iter_mut().enumerate() {
                *weight = W::load::<S>(w.add(v * S::LANES));
            }
            for (r, sums) in sums.iter_mut().enumerate() {
                let x = S::splat(*x.add(r));
                for (sum, weight) in sums.iter_mut().zip(weights) {
                    *sum = S::mul_add(weight, x, *sum);
                }
            }
            w = w.add(FLOAT_PANEL);
            x = x.add(R);
        }
        for (r, sums) in sums.iter().enumerate() {
            for (v, sum) in sums.iter().enumerate() {
                let column = self.panel * FLOAT_PANEL + lane + v * S::LANES;
                self.product.store_lanes::<S>(self.row + r, column, *sum);
            }
        }
    }
}

impl Product<'_> {
    /// Writes one vector of outputs, less what hangs over the matrix's edge.
    ///
    /// # Safety
    /// The row and the panel of `column` belong to this task alone.
    #[inline(always)]
    pub(crate) unsafe fn store_lanes<S: Simd>(&self, row: usize, column: usize, v: S::F) {
        let to = self.out.pointer().add(row * self.n);
        if column + S::LANES <= self.n {
            S::store(to.add(column), v);
        } else if column < self.n {
            let mut lanes = [0.0; 16];
            S::store(lanes.as_mut_ptr(), v);
            std::ptr::copy_nonoverlapping(lanes.as_ptr(), to.add(column), self.n - column);
        }
    }
}
