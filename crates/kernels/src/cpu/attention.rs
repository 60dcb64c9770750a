//! Attention of query tokens over paged keys and values: causal, with grouped heads, one pass over the blocks with a
//! running softmax (Milakov and Gimelshein 2018; Dao et al. 2022).
//!
//! A task is one sequence, one KV head and a tile of query tokens; a row is one query token and one query head of the
//! group, so a block that is loaded serves every head of the group and every token of the tile. For each block: scores
//! (lanes are the block's tokens), running maximum and sum, values (lanes are elements of the head). The block is the
//! step of the softmax for every row, and each sum runs in order, so bits do not depend on tile or chunk.
//!
//! Floor: `4 * head_dim` operations for each pair of query row and token at the vector peak; for one query row a sequence,
//! the bytes of its KV.
#![allow(unsafe_op_in_unsafe_fn, reason = "each function as a whole relies on the bounds of `Tile`")]

use crate::cpu::activations::{row_tiles, with_scratch};
use crate::cpu::paged_kv::{KvShape, PagedKv};
use crate::cpu::parallel::{SharedMut, for_each_task};
use crate::cpu::simd::Simd;
use crate::cpu::tier::Kernel;
use crate::cpu::{ShapeError, Tier, check_len};
use baton_types::BlockId;
use std::ops::Range;

/// Query rows of a tile, unless a group of heads alone is more: enough that reading a block costs little beside using it.
const TILE_ROWS: usize = 24;

/// Rows of the largest tile of scores.
const SCORE_ROWS: usize = 12;

/// One sequence's part in an attention call.
#[derive(Clone, Debug)]
pub struct AttentionSequence<'a> {
    /// Its query tokens.
    pub tokens: Range<usize>,
    /// Tokens before the first of them that have keys and values.
    pub context_len: usize,
    /// Its blocks, at least up to its last query token, whose keys and values are already written.
    pub block_table: &'a [BlockId],
}

/// `out = softmax(scale * q k) v` for each query token and head over the tokens up to its own. `queries` and `out` are
/// `[tokens, heads, head_dim]`; query head `h` uses KV head `h / (heads / kv_heads)`. Runs on the current rayon pool.
///
/// # Errors
/// [`ShapeError`] if lengths do not fit, a block table is too short, or `heads` is no multiple of the KV heads.
pub fn paged_attention(
    kv: &PagedKv,
    layer: usize,
    queries: &[f32],
    sequences: &[AttentionSequence<'_>],
    heads: usize,
    scale: f32,
    out: &mut [f32],
) -> Result<(), ShapeError> {
    paged_attention_on(Tier::current(), kv, layer, queries, sequences, heads, scale, out)
}

/// [`paged_attention`] with the instructions of `tier`.
///
/// # Errors
/// As there.
#[expect(clippy::too_many_arguments, reason = "those of `paged_attention`, and the tier")]
pub fn paged_attention_on(
    tier: Tier,
    kv: &PagedKv,
    layer: usize,
    queries: &[f32],
    sequences: &[AttentionSequence<'_>],
    heads: usize,
    scale: f32,
    out: &mut [f32],
) -> Result<(), ShapeError> {
    let shape = *kv.shape();
    check_shapes(&shape, queries, sequences, heads, out)?;
    let group = heads / shape.kv_heads;
    let tile_tokens = (TILE_ROWS / group).max(1);
    // Later tiles of a chunk see more tokens: they go first, so that no long task is left for the end.
    let mut tiles: Vec<(usize, Range<usize>)> = Vec::new();
    for (index, sequence) in sequences.iter().enumerate() {
        let starts = sequence.tokens.clone().step_by(tile_tokens);
        tiles.extend(starts.map(|start| (index, start..sequence.tokens.end.min(start + tile_tokens))));
    }
    tiles.sort_by_key(|(index, tokens)| {
        std::cmp::Reverse(sequences[*index].context_len + tokens.end - sequences[*index].tokens.start)
    });
    let out = SharedMut::new(out);
    for_each_task(tiles.len() * shape.kv_heads, |task| {
        let (index, tokens) = &tiles[task / shape.kv_heads];
        let sequence = &sequences[*index];
        let rows = tokens.len() * group;
        with_scratch(scratch_words(&shape, rows), |scratch| {
            tier.run(Tile {
                kv,
                layer,
                kv_head: task % shape.kv_heads,
                group,
                queries,
                first_token: tokens.start,
                first_position: sequence.context_len + tokens.start - sequence.tokens.start,
                rows,
                block_table: sequence.block_table,
                scale,
                out,
                scratch,
            });
        });
    });
    Ok(())
}

fn check_shapes(
    shape: &KvShape,
    queries: &[f32],
    sequences: &[AttentionSequence<'_>],
    heads: usize,
    out: &[f32],
) -> Result<(), ShapeError> {
    let expected = heads.next_multiple_of(shape.kv_heads).max(shape.kv_heads);
    check_len("query heads", heads, expected)?;
    let tokens = queries.len() / (heads * shape.head_dim);
    check_len("queries", queries.len(), tokens * heads * shape.head_dim)?;
    check_len("attention outputs", out.len(), queries.len())?;
    let mut next = 0;
    for sequence in sequences {
        // Tasks write to the rows of their sequence alone.
        check_len("first query token of a sequence", sequence.tokens.start, next)?;
        next = sequence.tokens.end;
        let needed = (sequence.context_len + sequence.tokens.len()).div_ceil(shape.block_size);
        if sequence.block_table.len() < needed {
            return Err(ShapeError::Length {
                what: "blocks of a sequence",
                got: sequence.block_table.len(),
                expected: needed,
            });
        }
    }
    check_len("query tokens", tokens, next)
}

/// Block size and head size rounded up to whole vectors of the widest tier.
fn padded(shape: &KvShape) -> (usize, usize) {
    (shape.block_size.next_multiple_of(16), shape.head_dim.next_multiple_of(16))
}

/// Queries, scores, outputs, sums (16 lanes) and maxima of each row.
fn scratch_words(shape: &KvShape, rows: usize) -> usize {
    let (block_size, head_dim) = padded(shape);
    rows * (shape.head_dim + block_size + head_dim + 16 + 1)
}

/// One task: some query tokens of one sequence, with the heads of one KV head.
struct Tile<'a> {
    kv: &'a PagedKv,
    layer: usize,
    kv_head: usize,
    /// Query heads of the KV head.
    group: usize,
    queries: &'a [f32],
    first_token: usize,
    /// Position of the first token in its sequence.
    first_position: usize,
    /// Tokens times `group`, tokens outermost.
    rows: usize,
    block_table: &'a [BlockId],
    scale: f32,
    out: SharedMut<f32>,
    scratch: &'a mut [f32],
}

/// What a tile keeps between blocks, each an array over rows.
struct Rows {
    /// Tiles of rows, each `[head_dim][height]`, times the scale.
    queries: *mut f32,
    /// `[rows][padded block size]`: scores, then weights.
    scores: *mut f32,
    /// `[rows][padded head_dim]`.
    values: *mut f32,
    /// `[rows][16]`: sums of weights, by lane.
    sums: *mut f32,
    /// `[rows]`.
    maxima: *mut f32,
    score_stride: usize,
    value_stride: usize,
}

impl Kernel for Tile<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let shape = *self.kv.shape();
        let rows = self.split_scratch(&shape);
        self.load_queries(&shape, &rows);
        let last_position = self.first_position + (self.rows - 1) / self.group;
        for (index, block) in self.block_table[..=last_position / shape.block_size].iter().enumerate() {
            let first = index * shape.block_size;
            let (keys, values) = self.kv.head_pointers(*block, self.layer, self.kv_head);
            score_block::<S>(&rows, self.rows, &shape, keys);
            for row in 0..self.rows {
                softmax_row::<S>(&rows, row, self.visible(row, first, shape.block_size));
            }
            if self.visible(0, first, shape.block_size) == shape.block_size {
                // The first row sees least: every row sees the whole block.
                for tile in row_tiles(self.rows, S::VALUE_ROWS) {
                    add_values::<S>(&rows, tile.start, tile.height, shape.block_size, &shape, values);
                }
            } else {
                for row in 0..self.rows {
                    let visible = self.visible(row, first, shape.block_size);
                    add_values::<S>(&rows, row, 1, visible, &shape, values);
                }
            }
        }
        self.store_outputs(&shape, &rows);
    }
}

impl Tile<'_> {
    /// Tokens that `row` sees of the block that begins at position `first`.
    #[inline(always)]
    fn visible(&self, row: usize, first: usize, block_size: usize) -> usize {
        (self.first_position + row / self.group + 1).saturating_sub(first).min(block_size)
    }

    #[inline(always)]
    unsafe fn split_scratch(&self, shape: &KvShape) -> Rows {
        let (score_stride, value_stride) = padded(shape);
        let queries = self.scratch.as_ptr().cast_mut();
        let scores = queries.add(self.rows * shape.head_dim);
        let values = scores.add(self.rows * score_stride);
        let sums = values.add(self.rows * value_stride);
        let maxima = sums.add(self.rows * 16);
        for i in 0..self.rows * (value_stride + 16) {
            *values.add(i) = 0.0;
        }
        for row in 0..self.rows {
            *maxima.add(row) = f32::NEG_INFINITY;
        }
        Rows { queries, scores, values, sums, maxima, score_stride, value_stride }
    }

    /// Where `row` begins in queries and outputs.
    #[inline(always)]
    fn row_at(&self, row: usize, shape: &KvShape) -> usize {
        let heads = self.group * shape.kv_heads;
        let head = self.kv_head * self.group + row % self.group;
        ((self.first_token + row / self.group) * heads + head) * shape.head_dim
    }

    #[inline(always)]
    unsafe fn load_queries(&self, shape: &KvShape, rows: &Rows) {
        for tile in row_tiles(self.rows, SCORE_ROWS) {
            let to = rows.queries.add(tile.start * shape.head_dim);
            for r in 0..tile.height {
                let query = &self.queries[self.row_at(tile.start + r, shape)..][..shape.head_dim];
                for (d, q) in query.iter().enumerate() {
                    *to.add(d * tile.height + r) = q * self.scale;
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn store_outputs(&self, shape: &KvShape, rows: &Rows) {
        for row in 0..self.rows {
            let mut sum = 0.0;
            for lane in 0..16 {
                sum += *rows.sums.add(16 * row + lane);
            }
            let at = self.row_at(row, shape);
            // Rows of different tiles and KV heads are different parts of `out`.
            let out = self.out.slice(at..at + shape.head_dim);
            for (d, out) in out.iter_mut().enumerate() {
                *out = *rows.values.add(row * rows.value_stride + d) / sum;
            }
        }
    }
}

/// Scores of every row with every token of a block; lanes beyond the block hold garbage.
#[inline(always)]
unsafe fn score_block<S: Simd>(rows: &Rows, count: usize, shape: &KvShape, keys: *const f32) {
    for tile in row_tiles(count, SCORE_ROWS) {
        let queries = rows.queries.add(tile.start * shape.head_dim);
        let scores = rows.scores.add(tile.start * rows.score_stride);
        for token in (0..shape.block_size).step_by(S::LANES) {
            let (keys, scores) = (keys.add(token), scores.add(token));
            match tile.height {
                12 => score_tile::<S, 12>(queries, keys, scores, rows.score_stride, shape),
                8 => score_tile::<S, 8>(queries, keys, scores, rows.score_stride, shape),
                6 => score_tile::<S, 6>(queries, keys, scores, rows.score_stride, shape),
                4 => score_tile::<S, 4>(queries, keys, scores, rows.score_stride, shape),
                3 => score_tile::<S, 3>(queries, keys, scores, rows.score_stride, shape),
                2 => score_tile::<S, 2>(queries, keys, scores, rows.score_stride, shape),
                _ => score_tile::<S, 1>(queries, keys, scores, rows.score_stride, shape),
            }
        }
    }
}

#[inline(always)]
unsafe fn score_tile<S: Simd, const R: usize>(
    mut queries: *const f32,
    mut keys: *const f32,
    scores: *mut f32,
    stride: usize,
    shape: &KvShape,
) {
    let mut sums = [S::splat(0.0); R];
    for _ in 0..shape.head_dim {
        let key = S::load(keys);
        for (r, sum) in sums.iter_mut().enumerate() {
            *sum = S::mul_add(key, S::splat(*queries.add(r)), *sum);
        }
        keys = keys.add(shape.block_size);
        queries = queries.add(R);
    }
    for (r, sum) in sums.iter().enumerate() {
        S::store(scores.add(r * stride), *sum);
    }
}

/// Turns the first `visible` scores of a row into weights relative to its running maximum, and rescales what it has
/// summed so far.
#[inline(always)]
unsafe fn softmax_row<S: Simd>(rows: &Rows, row: usize, visible: usize) {
    if visible == 0 {
        return;
    }
    let scores = rows.scores.add(row * rows.score_stride);
    for token in visible..rows.score_stride {
        *scores.add(token) = f32::NEG_INFINITY;
    }
    let mut lanes = S::load(scores);
    for token in (S::LANES..visible).step_by(S::LANES) {
        lanes = S::max(S::load(scores.add(token)), lanes);
    }
    let mut array = [f32::NEG_INFINITY; 16];
    S::store(array.as_mut_ptr(), lanes);
    let before = *rows.maxima.add(row);
    let mut max = before;
    for lane in array {
        max = if lane > max { lane } else { max };
    }
    *rows.maxima.add(row) = max;
    let sums = rows.sums.add(16 * row);
    if max > before {
        let shrink = S::exp(S::splat(before - max));
        S::store(sums, S::mul(S::load(sums), shrink));
        let values = rows.values.add(row * rows.value_stride);
        for d in (0..rows.value_stride).step_by(S::LANES) {
            S::store(values.add(d), S::mul(S::load(values.add(d)), shrink));
        }
    }
    let mut sum = S::load(sums);
    for token in (0..visible).step_by(S::LANES) {
        let weight = S::exp(S::sub(S::load(scores.add(token)), S::splat(max)));
        S::store(scores.add(token), weight);
        sum = S::add(sum, weight);
    }
    S::store(sums, sum);
}

/// Adds the weighted values of a block's first `visible` tokens to `height` rows.
#[inline(always)]
unsafe fn add_values<S: Simd>(
    rows: &Rows,
    row: usize,
    height: usize,
    visible: usize,
    shape: &KvShape,
    values: *const f32,
) {
    let weights = rows.scores.add(row * rows.score_stride);
    let mut d = 0;
    while d < shape.head_dim {
        let sums = rows.values.add(row * rows.value_stride + d);
        let values = values.add(d);
        let strides = (rows.score_stride, shape.head_dim, rows.value_stride);
        if d + 3 * S::LANES < shape.head_dim {
            match height {
                6 => value_tile::<S, 6, 4>(weights, values, sums, visible, strides),
                4 => value_tile::<S, 4, 4>(weights, values, sums, visible, strides),
                3 => value_tile::<S, 3, 4>(weights, values, sums, visible, strides),
                2 => value_tile::<S, 2, 4>(weights, values, sums, visible, strides),
                _ => value_tile::<S, 1, 4>(weights, values, sums, visible, strides),
            }
            d += 4 * S::LANES;
        } else {
            match height {
                6 => value_tile::<S, 6, 1>(weights, values, sums, visible, strides),
                4 => value_tile::<S, 4, 1>(weights, values, sums, visible, strides),
                3 => value_tile::<S, 3, 1>(weights, values, sums, visible, strides),
                2 => value_tile::<S, 2, 1>(weights, values, sums, visible, strides),
                _ => value_tile::<S, 1, 1>(weights, values, sums, visible, strides),
            }
            d += S::LANES;
        }
    }
}

/// `R` rows times `V` vectors of a head; `strides`: from row to row of weights, token to token of values, row to row of
/// sums.
#[inline(always)]
unsafe fn value_tile<S: Simd, const R: usize, const V: usize>(
    weights: *const f32,
    mut values: *const f32,
    sums: *mut f32,
    tokens: usize,
    strides: (usize, usize, usize),
) {
    let mut tile = [[S::splat(0.0); V]; R];
    for (r, tile) in tile.iter_mut().enumerate() {
        for (v, sum) in tile.iter_mut().enumerate() {
            *sum = S::load(sums.add(r * strides.2 + v * S::LANES));
        }
    }
    for token in 0..tokens {
        let mut value = [S::splat(0.0); V];
        for (v, value) in value.iter_mut().enumerate() {
            *value = S::load(values.add(v * S::LANES));
        }
        for (r, tile) in tile.iter_mut().enumerate() {
            let weight = S::splat(*weights.add(r * strides.0 + token));
            for (sum, value) in tile.iter_mut().zip(value) {
                *sum = S::mul_add(value, weight, *sum);
            }
        }
        values = values.add(strides.1);
    }
    for (r, tile) in tile.iter().enumerate() {
        for (v, sum) in tile.iter().enumerate() {
            S::store(sums.add(r * strides.2 + v * S::LANES), *sum);
        }
    }
}
