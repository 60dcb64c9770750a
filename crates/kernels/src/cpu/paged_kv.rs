//! KV memory of one block pool, in f32.
//!
//! Order: `[block][layer]`, then `[kv_head][head_dim][token in block]` of keys, then `[kv_head][token in block][head_dim]`
//! of values. A block is one run of bytes, so it moves with one copy. Keys lie transposed: scores of one query with a
//! block's tokens are lanes side by side, and each is a plain sum over `head_dim` in order.

use crate::cpu::memory::ZeroedBuffer;
use baton_types::{BlockId, Slot};

/// Dimensions of a KV pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvShape {
    /// Blocks in the pool.
    pub num_blocks: usize,
    /// Tokens in a block.
    pub block_size: usize,
    /// Layers of the model.
    pub layers: usize,
    /// Heads that have keys and values.
    pub kv_heads: usize,
    /// Elements of a head.
    pub head_dim: usize,
}

impl KvShape {
    /// f32 elements of the keys (or values) of one block, layer and head.
    pub(crate) fn head_len(&self) -> usize {
        self.block_size * self.head_dim
    }

    /// f32 elements of one block.
    pub fn block_len(&self) -> usize {
        self.layers * 2 * self.kv_heads * self.head_len()
    }

    /// Bytes of one block.
    pub fn block_bytes(&self) -> usize {
        4 * self.block_len()
    }
}

/// Keys and values of all blocks of a pool. Memory is taken from the system as blocks are first written.
pub struct PagedKv {
    shape: KvShape,
    data: ZeroedBuffer<f32>,
}

impl PagedKv {
    /// Elements after the last block, so that kernels may load a whole vector at its end.
    const OVERHANG: usize = 16;

    /// An empty pool.
    ///
    /// # Panics
    /// If the system has no memory for it.
    pub fn new(shape: KvShape) -> Self {
        Self { shape, data: ZeroedBuffer::new(shape.num_blocks * shape.block_len() + Self::OVERHANG) }
    }

    /// The pool's dimensions.
    pub fn shape(&self) -> &KvShape {
        &self.shape
    }

    /// Writes one token's keys and values of one layer, each `[kv_heads, head_dim]`.
    ///
    /// # Panics
    /// If there is no such slot or layer, or the lengths do not fit.
    pub fn write(&mut self, layer: usize, slot: Slot, k: &[f32], v: &[f32]) {
        let KvShape { block_size, kv_heads, head_dim, .. } = self.shape;
        assert_eq!(k.len(), kv_heads * head_dim, "keys of one token");
        assert_eq!(v.len(), kv_heads * head_dim, "values of one token");
        let (block, offset) = (slot.0 as usize / block_size, slot.0 as usize % block_size);
        for head in 0..kv_heads {
            let (keys, values) = self.heads_at(BlockId(block as u32), layer, head);
            let len = self.shape.head_len();
            let to = &mut self.data[keys..keys + len];
            for (to, k) in to[offset..].iter_mut().step_by(block_size).zip(&k[head * head_dim..][..head_dim])
            {
                *to = *k;
            }
            self.data[values + offset * head_dim..][..head_dim]
                .copy_from_slice(&v[head * head_dim..][..head_dim]);
        }
    }

    /// Where the keys and the values of a block, layer and head begin, in elements.
    ///
    /// # Panics
    /// If there is none.
    fn heads_at(&self, block: BlockId, layer: usize, kv_head: usize) -> (usize, usize) {
        let KvShape { num_blocks, layers, kv_heads, .. } = self.shape;
        assert!((block.0 as usize) < num_blocks, "block {block} of {num_blocks}");
        assert!(
            layer < layers && kv_head < kv_heads,
            "layer {layer} of {layers}, head {kv_head} of {kv_heads}"
        );
        let (head_len, layer_len) = (self.shape.head_len(), 2 * kv_heads * self.shape.head_len());
        let keys = block.0 as usize * self.shape.block_len() + layer * layer_len + kv_head * head_len;
        (keys, keys + kv_heads * head_len)
    }

    /// Keys `[head_dim][block_size]` and values `[block_size][head_dim]`, each with at least a vector's lanes of readable
    /// memory behind any of its elements.
    pub(crate) fn head_pointers(
        &self,
        block: BlockId,
        layer: usize,
        kv_head: usize,
    ) -> (*const f32, *const f32) {
        let (keys, values) = self.heads_at(block, layer, kv_head);
        assert!(values + self.shape.head_len() + Self::OVERHANG <= self.data.len());
        let data = self.data.as_ptr();
        // SAFETY: both offsets lie in the buffer (asserted above; keys come before values).
        unsafe { (data.add(keys), data.add(values)) }
    }

    /// One block's bytes, in the order above.
    ///
    /// # Panics
    /// If there is no such block.
    pub fn block_bytes(&self, block: BlockId) -> &[u8] {
        let range = self.block_range(block);
        let floats = &self.data[range];
        // SAFETY: floats are plain bytes, with a weaker alignment.
        unsafe { std::slice::from_raw_parts(floats.as_ptr().cast(), size_of_val(floats)) }
    }

    /// One block's bytes, to be overwritten with those of a pool of the same shape.
    ///
    /// # Panics
    /// If there is no such block.
    pub fn block_bytes_mut(&mut self, block: BlockId) -> &mut [u8] {
        let range = self.block_range(block);
        let floats = &mut self.data[range];
        // SAFETY: floats are plain bytes, with a weaker alignment, and any bytes are floats.
        unsafe { std::slice::from_raw_parts_mut(floats.as_mut_ptr().cast(), size_of_val(floats)) }
    }

    fn block_range(&self, block: BlockId) -> std::ops::Range<usize> {
        let (index, len) = (block.0 as usize, self.shape.block_len());
        assert!(index < self.shape.num_blocks, "block {block} of {}", self.shape.num_blocks);
        index * len..(index + 1) * len
    }
}
