//! The block pool, and the guards that own its blocks.

use baton_types::{BlockHash, BlockId, BlockRef, Generation};
use parking_lot::Mutex;
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;
use thiserror::Error;

/// A fixed number of blocks. Clones are handles to the same pool; one engine writes through it.
#[derive(Clone)]
pub struct BlockPool {
    shared: Arc<PoolShared>,
}

struct PoolShared {
    block_size: usize,
    state: Mutex<PoolState>,
}

struct PoolState {
    blocks: Vec<BlockState>,
    /// Never written or evicted. A stack: the block used last is the one most likely still in a cache.
    free: Vec<BlockId>,
    /// Registered blocks nobody holds, by when they were let go: the first is evicted first.
    inactive: BTreeMap<u64, BlockId>,
    /// Registered blocks, held or inactive.
    by_hash: HashMap<BlockHash, BlockId>,
    release_count: u64,
}

#[derive(Clone, Default)]
struct BlockState {
    generation: Generation,
    holders: u32,
    /// Set while this block is the one that `by_hash` names for its contents.
    hash: Option<BlockHash>,
    /// Key in `inactive` while nobody holds it.
    released_at: u64,
}

/// Not enough blocks: wait for some to be given back, or go to another worker.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("the KV pool is full: {needed} blocks are needed, {available} can be had")]
pub struct PoolFull {
    /// Blocks asked for.
    pub needed: usize,
    /// Blocks that are free or can be evicted.
    pub available: usize,
}

/// Where a pool's blocks are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BlockCounts {
    /// Hold nothing.
    pub free: usize,
    /// Hold reusable contents; nobody uses them now.
    pub inactive: usize,
    /// Owned by a guard.
    pub held: usize,
    /// All.
    pub total: usize,
}

impl BlockPool {
    /// A pool of `num_blocks` blocks of `block_size` tokens.
    ///
    /// # Panics
    /// If either is 0 or the block ids do not fit 32 bits.
    pub fn new(num_blocks: usize, block_size: usize) -> Self {
        assert!(num_blocks > 0 && block_size > 0, "a pool needs blocks and blocks need tokens");
        let count = u32::try_from(num_blocks).expect("block ids fit 32 bits");
        let state = PoolState {
            blocks: vec![BlockState::default(); num_blocks],
            free: (0..count).rev().map(BlockId).collect(),
            inactive: BTreeMap::new(),
            by_hash: HashMap::new(),
            release_count: 0,
        };
        Self { shared: Arc::new(PoolShared { block_size, state: Mutex::new(state) }) }
    }

    /// Tokens in a block.
    pub fn block_size(&self) -> usize {
        self.shared.block_size
    }

    /// Blocks needed to hold `tokens`.
    pub fn blocks_for(&self, tokens: usize) -> usize {
        tokens.div_ceil(self.shared.block_size)
    }

    /// Takes `count` blocks for writing, evicting unused ones as needed, or none at all.
    ///
    /// # Errors
    /// [`PoolFull`] when fewer are free or inactive.
    pub fn allocate(&self, count: usize) -> Result<Vec<MutableBlock>, PoolFull> {
        let mut state = self.shared.state.lock();
        let available = state.free.len() + state.inactive.len();
        if available < count {
            return Err(PoolFull { needed: count, available });
        }
        Ok((0..count)
            .map(|_| {
                let id = state.take_free_or_evict();
                let block = state.block(id);
                block.generation.0 = block.generation.0.wrapping_add(1);
                block.holders = 1;
                MutableBlock(Hold { id, generation: block.generation, pool: self.clone() })
            })
            .collect())
    }

    /// The longest run of registered blocks that starts at the front of `hashes`.
    pub fn match_prefix(&self, hashes: &[BlockHash]) -> Vec<SharedBlock> {
        let mut state = self.shared.state.lock();
        let mut found = Vec::new();
        for hash in hashes {
            let Some(&id) = state.by_hash.get(hash) else { break };
            state.hold(id);
            found.push(SharedBlock(Hold { id, generation: state.block(id).generation, pool: self.clone() }));
        }
        found
    }

    /// How many leading `hashes` are registered, without holding them.
    pub fn prefix_len(&self, hashes: &[BlockHash]) -> usize {
        let state = self.shared.state.lock();
        hashes.iter().take_while(|hash| state.by_hash.contains_key(*hash)).count()
    }

    /// Where the blocks are now.
    pub fn counts(&self) -> BlockCounts {
        let state = self.shared.state.lock();
        let (free, inactive, total) = (state.free.len(), state.inactive.len(), state.blocks.len());
        BlockCounts { free, inactive, held: total - free - inactive, total }
    }

    /// Asserts that every block is in exactly one place and that the lists agree with the blocks.
    ///
    /// # Panics
    /// If not: a bug of this crate.
    pub fn check(&self) {
        let state = self.shared.state.lock();
        let held = state.blocks.iter().filter(|block| block.holders > 0).count();
        assert_eq!(
            state.free.len() + state.inactive.len() + held,
            state.blocks.len(),
            "free + inactive + held = total"
        );
        for id in &state.free {
            let block = &state.blocks[id.0 as usize];
            assert!(block.holders == 0 && block.hash.is_none(), "free block {id} is held or registered");
        }
        for (key, id) in &state.inactive {
            let block = &state.blocks[id.0 as usize];
            assert!(
                block.holders == 0 && block.released_at == *key,
                "inactive block {id} is held or misplaced"
            );
            assert!(block.hash.is_some(), "inactive block {id} has no contents to reuse");
        }
        for (hash, id) in &state.by_hash {
            assert_eq!(state.blocks[id.0 as usize].hash, Some(*hash), "block {id} is known by another hash");
        }
        let registered = state.blocks.iter().filter(|block| block.hash.is_some()).count();
        assert_eq!(registered, state.by_hash.len(), "every registered block is found by its hash");
    }

    fn release(&self, id: BlockId) {
        let mut state = self.shared.state.lock();
        state.release_count += 1;
        let now = state.release_count;
        let block = state.block(id);
        debug_assert!(block.holders > 0, "block {id} released twice");
        block.holders -= 1;
        if block.holders > 0 {
            return;
        }
        if block.hash.is_some() {
            block.released_at = now;
            state.inactive.insert(now, id);
        } else {
            state.free.push(id);
        }
    }
}

impl fmt::Debug for BlockPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.counts().fmt(f)
    }
}

impl PoolState {
    fn block(&mut self, id: BlockId) -> &mut BlockState {
        &mut self.blocks[id.0 as usize]
    }

    fn take_free_or_evict(&mut self) -> BlockId {
        if let Some(id) = self.free.pop() {
            return id;
        }
        let (_, id) = self.inactive.pop_first().expect("the caller counted the blocks");
        let hash = self.block(id).hash.take().expect("an inactive block is registered");
        self.by_hash.remove(&hash);
        id
    }

    fn hold(&mut self, id: BlockId) {
        let block = self.block(id);
        block.holders += 1;
        if block.holders == 1 {
            let key = block.released_at;
            self.inactive.remove(&key);
        }
    }
}

/// One hold on a block, given back in Drop.
struct Hold {
    id: BlockId,
    generation: Generation,
    pool: BlockPool,
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.pool.release(self.id);
    }
}

/// A block that its one owner may write. Dropping it makes it free.
#[must_use]
pub struct MutableBlock(Hold);

impl MutableBlock {
    /// The block's index in its pool.
    pub fn id(&self) -> BlockId {
        self.0.id
    }

    /// A name for this allocation that goes stale when the block is allocated again.
    pub fn reference(&self) -> BlockRef {
        BlockRef { block: self.0.id, generation: self.0.generation }
    }

    /// Makes a full block readable for others under `hash`. Call it only when the device has finished writing the block.
    ///
    /// If another block already holds the same contents, that one stays the one that is found; this one is still
    /// readable by its holders and becomes free after them.
    pub fn register(self, hash: BlockHash) -> SharedBlock {
        let mut state = self.0.pool.shared.state.lock();
        if let Entry::Vacant(entry) = state.by_hash.entry(hash) {
            entry.insert(self.0.id);
            state.block(self.0.id).hash = Some(hash);
        }
        drop(state);
        SharedBlock(self.0)
    }
}

impl fmt::Debug for MutableBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MutableBlock({})", self.0.id)
    }
}

/// A full block with immutable contents. When its last holder lets go it becomes inactive: still found by its hash
/// until its room is needed.
#[must_use]
pub struct SharedBlock(Hold);

impl SharedBlock {
    /// The block's index in its pool.
    pub fn id(&self) -> BlockId {
        self.0.id
    }

    /// A name for this allocation that goes stale when the block is allocated again.
    pub fn reference(&self) -> BlockRef {
        BlockRef { block: self.0.id, generation: self.0.generation }
    }
}

impl fmt::Debug for SharedBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SharedBlock({})", self.0.id)
    }
}
