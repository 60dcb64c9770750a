//! The pool against hand-made cases, and against a model under random use.

use baton_kvcache::{BlockCounts, BlockPool, BlockTable, PoolFull};
use baton_types::{BlockHash, BlockId, Salt, TokenId, hash_blocks};
use rand::{Rng, SeedableRng, rngs::StdRng};

fn counts(free: usize, inactive: usize, held: usize) -> BlockCounts {
    BlockCounts { free, inactive, held, total: free + inactive + held }
}

fn hashes(ids: &[u32], block_size: usize) -> Vec<BlockHash> {
    let tokens: Vec<_> = ids.iter().map(|id| TokenId(*id)).collect();
    hash_blocks(&Salt::new(&[]), block_size, &tokens)
}

/// A table of full blocks with these tokens, as a finished prefill leaves it.
fn filled(pool: &BlockPool, ids: &[u32]) -> BlockTable {
    let hashes = hashes(ids, pool.block_size());
    let mut table = BlockTable::with_prefix(pool.match_prefix(&hashes));
    table.grow(pool, ids.len()).unwrap();
    table.register(&hashes);
    table
}

#[test]
fn guards_return_blocks() {
    let pool = BlockPool::new(4, 2);
    let blocks = pool.allocate(3).unwrap();
    assert_eq!(pool.counts(), counts(1, 0, 3));
    drop(blocks);
    assert_eq!(pool.counts(), counts(4, 0, 0));
    pool.check();
}

#[test]
fn allocation_is_all_or_nothing() {
    let pool = BlockPool::new(4, 2);
    let held = pool.allocate(3).unwrap();
    assert_eq!(pool.allocate(2).unwrap_err(), PoolFull { needed: 2, available: 1 });
    assert_eq!(pool.counts(), counts(1, 0, 3));
    drop(held);
}

#[test]
fn a_registered_prefix_is_found_while_held_and_after() {
    let pool = BlockPool::new(8, 2);
    let first = filled(&pool, &[1, 2, 3, 4]);
    let again = filled(&pool, &[1, 2, 3, 4, 5, 6]);
    assert_eq!(again.ids()[..2], first.ids()[..2], "shared, not copied");
    assert_eq!(pool.counts(), counts(5, 0, 3));
    drop(first);
    assert_eq!(pool.counts(), counts(5, 0, 3), "still held by the second");
    drop(again);
    assert_eq!(pool.counts(), counts(5, 3, 0));
    assert_eq!(pool.match_prefix(&hashes(&[1, 2, 3, 4, 9, 9], 2)).len(), 2);
    assert_eq!(pool.match_prefix(&hashes(&[9, 2, 3, 4], 2)).len(), 0);
    pool.check();
}

#[test]
fn eviction_takes_the_oldest_table_first_and_its_tail_before_its_front() {
    let pool = BlockPool::new(4, 2);
    drop(filled(&pool, &[1, 2, 3, 4]));
    drop(filled(&pool, &[5, 6, 7, 8]));
    let _one = pool.allocate(1).unwrap();
    assert_eq!(pool.prefix_len(&hashes(&[1, 2, 3, 4], 2)), 1, "the tail of the older table went");
    let _two = pool.allocate(1).unwrap();
    assert_eq!(pool.prefix_len(&hashes(&[1, 2, 3, 4], 2)), 0);
    assert_eq!(pool.prefix_len(&hashes(&[5, 6, 7, 8], 2)), 2);
    pool.check();
}

#[test]
fn an_unregistered_block_is_invisible_and_goes_back_to_free() {
    let pool = BlockPool::new(2, 2);
    let mut table = BlockTable::default();
    table.grow(&pool, 4).unwrap();
    assert_eq!(pool.prefix_len(&hashes(&[1, 2, 3, 4], 2)), 0);
    table.register(&hashes(&[1, 2], 2));
    assert_eq!(pool.prefix_len(&hashes(&[1, 2, 3, 4], 2)), 1);
    drop(table);
    assert_eq!(pool.counts(), counts(1, 1, 0));
}

#[test]
fn the_second_copy_of_the_same_contents_becomes_free() {
    let pool = BlockPool::new(4, 2);
    let hash = hashes(&[1, 2], 2);
    let mut tables = [BlockTable::default(), BlockTable::default()];
    for table in &mut tables {
        table.grow(&pool, 2).unwrap();
        table.register(&hash);
    }
    assert_eq!(pool.counts(), counts(2, 0, 2));
    drop(tables);
    assert_eq!(pool.counts(), counts(3, 1, 0));
    pool.check();
}

#[test]
fn a_reference_goes_stale_when_the_block_is_allocated_again() {
    let pool = BlockPool::new(1, 2);
    let mut table = BlockTable::default();
    table.grow(&pool, 2).unwrap();
    let reference = table.references_from(0)[0];
    assert!(table.is_writable(0, reference));
    drop(table);
    let mut table = BlockTable::default();
    table.grow(&pool, 2).unwrap();
    assert_eq!(table.ids(), [BlockId(0)]);
    assert!(!table.is_writable(0, reference), "same block, another allocation");
    table.register(&hashes(&[1, 2], 2));
    assert!(!table.is_writable(0, table.references_from(0)[0]), "registered blocks are immutable");
}

#[test]
fn random_use_keeps_the_pool_whole() {
    for seed in 0..200 {
        let mut rng = StdRng::seed_from_u64(seed);
        let pool = BlockPool::new(6, 2);
        let mut tables: Vec<BlockTable> = Vec::new();
        for _ in 0..200 {
            if rng.random_bool(0.5) {
                let len = rng.random_range(1..7);
                let ids: Vec<u32> = (0..len).map(|_| rng.random_range(0..2)).collect();
                let hashes = hashes(&ids, 2);
                let mut table = BlockTable::with_prefix(pool.match_prefix(&hashes));
                if table.grow(&pool, ids.len()).is_ok() {
                    table.register(&hashes[..rng.random_range(0..=hashes.len())]);
                    tables.push(table);
                }
            } else if !tables.is_empty() {
                tables.swap_remove(rng.random_range(0..tables.len()));
            }
            pool.check();
        }
        tables.clear();
        assert_eq!(pool.counts().held, 0, "seed {seed}");
    }
}
