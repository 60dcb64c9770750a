//! Rows of activations, laid out for the matrix kernels: cut into tiles of a few rows whose elements alternate, so that
//! a kernel walks one pointer. Tile heights never change a result, only its speed.

use crate::cpu::parallel::{SharedMut, for_each_task};
use crate::cpu::simd::Simd;
use crate::cpu::tier::{Kernel, Tier};
use std::cell::RefCell;

/// Weights of one row in a block of a quantised format.
pub(crate) const BLOCK: usize = 32;

/// Tile heights that kernels are compiled for.
const HEIGHTS: [usize; 7] = [12, 8, 6, 4, 3, 2, 1];

/// Rows `start..start + height`.
#[derive(Clone, Copy)]
pub(crate) struct RowTile {
    pub(crate) start: usize,
    pub(crate) height: usize,
}

/// Cuts `rows` into tiles of at most `max` rows, the highest first.
#[inline(always)]
pub(crate) fn row_tiles(rows: usize, max: usize) -> impl Iterator<Item = RowTile> {
    let mut start = 0;
    std::iter::from_fn(move || {
        let left = rows - start;
        let height = HEIGHTS.into_iter().find(|height| *height <= left && *height <= max)?;
        start += height;
        Some(RowTile { start: start - height, height })
    })
}

thread_local! {
    static SCRATCH: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// Lends a buffer of `len` 4-byte words that keeps its memory from call to call. It is taken out while lent: a thread
/// that waits inside a parallel region may start another kernel of the same pool.
pub(crate) fn with_scratch<T>(len: usize, f: impl FnOnce(&mut [f32]) -> T) -> T {
    let mut buffer = SCRATCH.with(|scratch| std::mem::take(&mut *scratch.borrow_mut()));
    if buffer.len() < len {
        buffer.resize(len, 0.0);
    }
    let result = f(&mut buffer[..len]);
    SCRATCH.with(|scratch| *scratch.borrow_mut() = buffer);
    result
}

/// f32 activations: tile after tile, each `[k][height]`.
pub(crate) fn pack_float(x: &[f32], k: usize, rows: usize, max_height: usize, packed: &mut [f32]) {
    let tiles: Vec<RowTile> = row_tiles(rows, max_height).collect();
    let shared = SharedMut::new(packed);
    let chunk = tiles_a_task(k);
    for_each_task(tiles.len().div_ceil(chunk), |task| {
        for tile in tiles.iter().skip(task * chunk).take(chunk) {
            // SAFETY: tiles are disjoint rows, and the tiles of one task are visited by that task alone.
            let packed = unsafe { shared.slice(tile.start * k..(tile.start + tile.height) * k) };
            for r in 0..tile.height {
                let row = &x[(tile.start + r) * k..][..k];
                for (to, from) in packed[r..].iter_mut().step_by(tile.height).zip(row) {
                    *to = *from;
                }
            }
        }
    });
}

/// Words of one row of quantised activations: 8 of bytes, then scale, scaled sum and offset for each block.
pub(crate) fn quantised_row_words(k: usize) -> usize {
    k / BLOCK * 11
}

/// Activations in signed bytes, a scale for each row and block of 32: `x = scale * q`, `|q| <= 127`. Tile after tile,
/// each `[k / 32]` times `[height][32]` bytes, `[height]` scales (f32), `[height]` of scale times the sum of `q` (f32),
/// `[height]` of -128 times the sum of `q` (i32).
pub(crate) fn pack_quantised(
    tier: Tier,
    x: &[f32],
    k: usize,
    rows: usize,
    max_height: usize,
    packed: &mut [f32],
) {
    let tiles: Vec<RowTile> = row_tiles(rows, max_height).collect();
    let shared = SharedMut::new(packed);
    let words = quantised_row_words(k);
    let chunk = tiles_a_task(k);
    for_each_task(tiles.len().div_ceil(chunk), |task| {
        for tile in tiles.iter().skip(task * chunk).take(chunk) {
            // SAFETY: tiles are disjoint rows, and the tiles of one task are visited by that task alone.
            let packed = unsafe { shared.slice(tile.start * words..(tile.start + tile.height) * words) };
            let x = &x[tile.start * k..][..tile.height * k];
            tier.run(QuantiseTile { x, k, height: tile.height, packed });
        }
    });
}

/// Enough rows for some microseconds of work.
fn tiles_a_task(k: usize) -> usize {
    (16 * 1024 / k.max(1)).div_ceil(12).max(1)
}

struct QuantiseTile<'a> {
    x: &'a [f32],
    k: usize,
    height: usize,
    packed: &'a mut [f32],
}

impl Kernel for QuantiseTile<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        for (index, packed) in self.packed.chunks_exact_mut(11 * self.height).enumerate() {
            let (bytes, rest) = packed.split_at_mut(8 * self.height);
            let (scales, rest) = rest.split_at_mut(self.height);
            let (sums, offsets) = rest.split_at_mut(self.height);
            for r in 0..self.height {
                let x: &[f32; BLOCK] =
                    self.x[r * self.k + index * BLOCK..][..BLOCK].try_into().expect("32 elements");
                let (scale, q) = quantise(x);
                let sum: i32 = q.iter().sum();
                (scales[r], sums[r], offsets[r]) =
                    (scale, scale * sum as f32, f32::from_bits((-128 * sum) as u32));
                let q = q.map(|q| q as i8);
                // SAFETY: 8 words hold 32 bytes, and any bytes are valid words.
                unsafe { bytes[8 * r..][..8].as_mut_ptr().cast::<[i8; BLOCK]>().write_unaligned(q) };
            }
        }
    }
}

/// Symmetric quantisation of one block: scale, and integers in [-127, 127].
#[inline(always)]
fn quantise(x: &[f32; BLOCK]) -> (f32, [i32; BLOCK]) {
    // Eight running maxima: a maximum is the same in any order, and this one vectorises.
    let mut maxima = [0.0_f32; 8];
    for chunk in x.chunks_exact(8) {
        for (max, x) in maxima.iter_mut().zip(chunk) {
            *max = if x.abs() > *max { x.abs() } else { *max };
        }
    }
    let max = maxima.into_iter().fold(0.0, f32::max);
    let inverse = if max > 0.0 { 127.0 / max } else { 0.0 };
    // Adding 1.5 * 2^23 rounds to the nearest integer, ties to even, in the low bits of the mantissa.
    const MAGIC: f32 = 12_582_912.0;
    let mut q = [0; BLOCK];
    for (q, x) in q.iter_mut().zip(x) {
        *q = (x * inverse + MAGIC).to_bits() as i32 - MAGIC.to_bits() as i32;
    }
    (max / 127.0, q)
}
