//! Products with quantised weights and activations in signed bytes.
//!
//! For each block of 32 weights: an exact integer dot of each output and row, then `sum += (d * scale) * dot` and, for
//! `Q4_1`, `sum += m * (scale * sum of q)` in f32, in the order of blocks. AVX2 needs 2.1 instructions for 32 products of
//! 4-bit weights and 4 for 8-bit ones; VNNI 1 for 64 of either.
#![allow(unsafe_op_in_unsafe_fn, reason = "each function as a whole relies on its task's bounds")]

use crate::cpu::activations::{BLOCK, row_tiles};
use crate::cpu::matrix::Product;
use crate::cpu::simd::{PANEL, Simd};
use crate::cpu::tier::Kernel;

/// A [`Product`] with `Q4_1` (`Q4`) or `Q8_0` weights.
pub(crate) struct QuantisedTask<'a, const Q4: bool>(pub(crate) Product<'a>);

impl<const Q4: bool> Kernel for QuantisedTask<'_, Q4> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let p = self.0;
        for panel in p.panels.clone() {
            let weights = p.weights[panel * p.panel_bytes..][..p.panel_bytes].as_ptr();
            for tile in row_tiles(p.rows, S::QUANTISED_ROWS) {
                let x = p.x[tile.start * p.x_words..][..tile.height * p.x_words].as_ptr();
                let args = TileArgs::<Q4> { weights, x, product: &p, panel, row: p.first_row + tile.start };
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

struct TileArgs<'a, const Q4: bool> {
    weights: *const u8,
    x: *const f32,
    product: &'a Product<'a>,
    panel: usize,
    row: usize,
}

impl<const Q4: bool> TileArgs<'_, Q4> {
    /// `R` rows of the panel, one vector of outputs at a time, or two where few rows leave registers free.
    #[inline(always)]
    unsafe fn rows<S: Simd, const R: usize>(&self) {
        if R > S::QUANTISED_ROWS {
            return;
        }
        if S::LANES == PANEL {
            self.tile::<S, R, 1>(0);
        } else if R <= 2 {
            self.tile::<S, R, 2>(0);
        } else {
            self.tile::<S, R, 1>(0);
            self.tile::<S, R, 1>(S::LANES);
        }
    }

    /// `R` rows times `V` vectors of outputs, from `lane` of the panel on.
    #[inline(always)]
    unsafe fn tile<S: Simd, const R: usize, const V: usize>(&self, lane: usize) {
        let blocks = self.product.k / BLOCK;
        let block_bytes = if Q4 { PANEL * BLOCK / 2 } else { PANEL * BLOCK };
        let mut w = self.weights.add(4 * lane);
        let mut d: *const u16 = self.weights.add(blocks * block_bytes).cast::<u16>().add(lane);
        let mut x = self.x;
        let mut sums = [[S::splat(0.0); R]; V];
        for _ in 0..blocks {
            let scales = x.add(8 * R);
            for (v, sums) in sums.iter_mut().enumerate() {
                let w = w.add(4 * S::LANES * v);
                let dots: [S::F; R] = if Q4 {
                    S::dot_q4(w, x.cast())
                } else {
                    S::dot_q8(w, x.cast(), scales.add(2 * R).cast())
                };
                let scale = S::load_f16(d.add(v * S::LANES));
                for (r, sum) in sums.iter_mut().enumerate() {
                    *sum = S::mul_add(S::mul(scale, S::splat(*scales.add(r))), dots[r], *sum);
                }
                if Q4 {
                    let minimum = S::load_f16(d.add(PANEL + v * S::LANES));
                    for (r, sum) in sums.iter_mut().enumerate() {
                        *sum = S::mul_add(minimum, S::splat(*scales.add(R + r)), *sum);
                    }
                }
            }
            w = w.add(block_bytes);
            d = d.add(if Q4 { 2 * PANEL } else { PANEL });
            x = x.add(11 * R);
        }
        for (v, sums) in sums.iter().enumerate() {
            for (r, sum) in sums.iter().enumerate() {
                let column = self.panel * PANEL + lane + v * S::LANES;
                self.product.store_lanes::<S>(self.row + r, column, *sum);
            }
        }
    }
}
