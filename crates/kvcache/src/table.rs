//! The blocks of one sequence, in order.

use crate::{BlockPool, MutableBlock, PoolFull, SharedBlock};
use baton_types::{BlockHash, BlockId, BlockRef};
use std::collections::VecDeque;

/// A sequence's blocks: a readable prefix, then blocks being written. Append-only; dropping it gives all back, the
/// tail first, so that the part most likely to be shared (the front) is evicted last.
#[derive(Debug, Default)]
pub struct BlockTable {
    registered: Vec<SharedBlock>,
    writable: VecDeque<MutableBlock>,
    ids: Vec<BlockId>,
}

impl BlockTable {
    /// A table that starts with blocks found in the cache.
    pub fn with_prefix(prefix: Vec<SharedBlock>) -> Self {
        let ids = prefix.iter().map(SharedBlock::id).collect();
        Self { registered: prefix, writable: VecDeque::new(), ids }
    }

    /// Block ids, in order.
    pub fn ids(&self) -> &[BlockId] {
        &self.ids
    }

    /// Blocks whose contents others may read.
    pub fn num_registered(&self) -> usize {
        self.registered.len()
    }

    /// References to the blocks from `first` on.
    pub fn references_from(&self, first: usize) -> Vec<BlockRef> {
        let registered = self.registered.iter().map(SharedBlock::reference);
        registered.chain(self.writable.iter().map(MutableBlock::reference)).skip(first).collect()
    }

    /// Whether the block at `index` is this one, in this allocation, and may be written.
    pub fn is_writable(&self, index: usize, reference: BlockRef) -> bool {
        let writable = index.checked_sub(self.registered.len()).and_then(|offset| self.writable.get(offset));
        writable.is_some_and(|block| block.reference() == reference)
    }

    /// Allocates what is missing so that the table holds `tokens`.
    ///
    /// # Errors
    /// [`PoolFull`]; the table is then unchanged.
    pub fn grow(&mut self, pool: &BlockPool, tokens: usize) -> Result<(), PoolFull> {
        let missing = pool.blocks_for(tokens).saturating_sub(self.ids.len());
        for block in pool.allocate(missing)? {
            self.ids.push(block.id());
            self.writable.push_back(block);
        }
        Ok(())
    }

    /// Registers blocks whose contents are written: afterwards the first `hashes.len()` blocks are readable by others.
    /// Hashes of blocks registered before are ignored.
    ///
    /// # Panics
    /// If the table has fewer blocks.
    pub fn register(&mut self, hashes: &[BlockHash]) {
        assert!(hashes.len() <= self.ids.len(), "{} hashes for {} blocks", hashes.len(), self.ids.len());
        for hash in hashes.iter().skip(self.registered.len()) {
            let block = self.writable.pop_front().expect("counted above");
            self.registered.push(block.register(*hash));
        }
    }
}

impl Drop for BlockTable {
    fn drop(&mut self) {
        while self.writable.pop_back().is_some() {}
        while self.registered.pop().is_some() {}
    }
}
