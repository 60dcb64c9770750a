use super::{assert_close, bits, on_threads, random};
use baton_kernels::cpu::{
    AttentionSequence, KvShape, PagedKv, ShapeError, Tier, paged_attention, paged_attention_on,
};
use baton_types::{BlockId, Slot};

/// A pool with one sequence's keys and values in scattered blocks, and what they are.
struct World {
    kv: PagedKv,
    table: Vec<BlockId>,
    keys: Vec<f32>,
    values: Vec<f32>,
    queries: Vec<f32>,
    heads: usize,
    len: usize,
}

const LAYER: usize = 1;
const SCALE: f32 = 0.3;

fn world(block_size: usize, kv_heads: usize, group: usize, head_dim: usize, len: usize, seed: u64) -> World {
    let num_blocks = len.div_ceil(block_size);
    let shape = KvShape { num_blocks: num_blocks + 2, block_size, layers: 2, kv_heads, head_dim };
    let mut kv = PagedKv::new(shape);
    // Whatever else is in the pool must not matter, not even if it is no number.
    for block in 0..shape.num_blocks {
        kv.block_bytes_mut(BlockId(block as u32)).fill(0xff);
    }
    let table: Vec<BlockId> = (0..num_blocks).map(|i| BlockId((num_blocks + 1 - i) as u32)).collect();
    let row = kv_heads * head_dim;
    let (keys, values) = (random(seed, len * row), random(seed + 1, len * row));
    for token in 0..len {
        let slot = Slot(table[token / block_size].0 * block_size as u32 + (token % block_size) as u32);
        kv.write(LAYER, slot, &keys[token * row..][..row], &values[token * row..][..row]);
    }
    let heads = kv_heads * group;
    World { kv, table, keys, values, queries: random(seed + 2, len * heads * head_dim), heads, len }
}

impl World {
    fn row(&self) -> usize {
        self.heads * self.kv.shape().head_dim
    }

    /// Attention of the tokens from `from` on, in chunks of `chunk`.
    fn attend(&self, tier: Tier, from: usize, chunk: usize) -> Vec<f32> {
        let row = self.row();
        let mut out = Vec::new();
        for start in (from..self.len).step_by(chunk) {
            let tokens = chunk.min(self.len - start);
            let sequence =
                AttentionSequence { tokens: 0..tokens, context_len: start, block_table: &self.table };
            let queries = &self.queries[start * row..][..tokens * row];
            let mut part = vec![f32::NAN; tokens * row];
            paged_attention_on(tier, &self.kv, LAYER, queries, &[sequence], self.heads, SCALE, &mut part)
                .expect("shapes fit");
            out.extend(part);
        }
        out
    }

    /// Softmax over all tokens up to each, in f64.
    fn reference(&self) -> Vec<f32> {
        let KvShape { kv_heads, head_dim, .. } = *self.kv.shape();
        let mut out = Vec::new();
        for token in 0..self.len {
            for head in 0..self.heads {
                let query = &self.queries[(token * self.heads + head) * head_dim..][..head_dim];
                let kv_head = head / (self.heads / kv_heads);
                let at = |other: usize| (other * kv_heads + kv_head) * head_dim;
                let dot = |other| -> f64 {
                    let key = &self.keys[at(other)..][..head_dim];
                    query.iter().zip(key).map(|(q, k)| f64::from(*q) * f64::from(*k)).sum()
                };
                let weights: Vec<f64> = (0..=token).map(|t| (dot(t) * f64::from(SCALE)).exp()).collect();
                let sum: f64 = weights.iter().sum();
                out.extend((0..head_dim).map(|d| {
                    let term = |(t, w): (usize, &f64)| w * f64::from(self.values[at(t) + d]);
                    (weights.iter().enumerate().map(term).sum::<f64>() / sum) as f32
                }));
            }
        }
        out
    }
}

#[test]
fn attention_matches_a_plain_softmax() {
    for (block_size, kv_heads, group, head_dim, len) in
        [(16, 3, 3, 64, 70), (4, 1, 1, 16, 9), (32, 2, 4, 80, 65), (5, 2, 7, 24, 23), (8, 1, 30, 8, 17)]
    {
        let world = world(block_size, kv_heads, group, head_dim, len, 11);
        for tier in Tier::supported() {
            let what =
                format!("block {block_size}, {kv_heads}x{group} heads of {head_dim}, {len} tokens, {tier:?}");
            assert_close(&world.attend(tier, 0, len), &world.reference(), 2e-6, &what);
        }
    }
}

#[test]
fn chunks_and_threads_do_not_change_bits() {
    let world = world(16, 3, 3, 64, 101, 21);
    for tier in Tier::supported() {
        let whole = on_threads(2, || world.attend(tier, 0, world.len));
        for (chunk, threads) in [(7, 1), (7, 2), (1, 1), (16, 2), (101, 1)] {
            let parts = on_threads(threads, || world.attend(tier, 0, chunk));
            assert_eq!(bits(&parts), bits(&whole), "{tier:?}: chunks of {chunk}, {threads} threads");
        }
        let from_the_middle = world.attend(tier, 37, 64);
        assert_eq!(bits(&from_the_middle), bits(&whole[37 * world.row()..]), "{tier:?}: prefix hit");
    }
}

#[test]
fn sequences_of_a_batch_do_not_touch_each_other() {
    let world = world(8, 2, 2, 32, 50, 31);
    let row = world.row();
    for tier in Tier::supported() {
        let whole = world.attend(tier, 0, world.len);
        // Decodes at three lengths and a chunk, all reading the same blocks.
        let parts = [(49, 50), (12, 13), (0, 1), (20, 41)];
        let (mut queries, mut expected, mut sequences) = (Vec::new(), Vec::new(), Vec::new());
        for (start, end) in parts {
            let first = queries.len() / row;
            queries.extend_from_slice(&world.queries[start * row..end * row]);
            expected.extend_from_slice(&whole[start * row..end * row]);
            let tokens = first..first + end - start;
            sequences.push(AttentionSequence { tokens, context_len: start, block_table: &world.table });
        }
        let mut out = vec![f32::NAN; queries.len()];
        paged_attention_on(tier, &world.kv, LAYER, &queries, &sequences, world.heads, SCALE, &mut out)
            .expect("shapes fit");
        assert_eq!(bits(&out), bits(&expected), "{tier:?}");
    }
}

#[test]
fn a_block_moves_with_its_bytes() {
    let mut world = world(4, 2, 2, 16, 8, 41);
    let before = world.attend(Tier::Portable, 0, 8);
    let bytes = world.kv.block_bytes(world.table[0]).to_vec();
    assert_eq!(bytes.len(), world.kv.shape().block_bytes());
    world.kv.block_bytes_mut(BlockId(0)).copy_from_slice(&bytes);
    world.table[0] = BlockId(0);
    assert_eq!(bits(&world.attend(Tier::Portable, 0, 8)), bits(&before));
}

#[test]
fn shapes_that_do_not_fit_are_refused() {
    let world = world(4, 2, 2, 16, 8, 51);
    let attend = |sequence: AttentionSequence<'_>, heads| {
        let mut out = vec![0.0; world.queries.len()];
        paged_attention(&world.kv, LAYER, &world.queries, &[sequence], heads, SCALE, &mut out)
    };
    let whole = AttentionSequence { tokens: 0..8, context_len: 0, block_table: &world.table };
    assert_eq!(attend(whole.clone(), 4), Ok(()));
    assert_eq!(
        attend(whole.clone(), 3),
        Err(ShapeError::Length { what: "query heads", got: 3, expected: 4 })
    );
    let short = AttentionSequence { block_table: &world.table[..1], ..whole.clone() };
    assert_eq!(
        attend(short, 4),
        Err(ShapeError::Length { what: "blocks of a sequence", got: 1, expected: 2 })
    );
    assert!(attend(AttentionSequence { tokens: 0..7, ..whole }, 4).is_err());
}
