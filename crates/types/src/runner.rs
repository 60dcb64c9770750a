//! The contract between an engine and a model: a batch goes in, chosen tokens come out, KV blocks can be read and
//! written whole.

use crate::{BlockId, OutputToken, StepBatch, TokenLogprobs};
use thiserror::Error;

/// A model with the KV memory of one block pool. Owned by one engine thread.
pub trait ModelRunner: Send {
    /// Shape and name of the KV memory.
    fn kv_layout(&self) -> &KvLayout;

    /// Runs one step: writes keys and values of every input token to its slot, and chooses a token for every sequence
    /// that asks for one. When it returns, all of it is visible.
    ///
    /// # Errors
    /// [`RunnerError`]: the step had no effect that a later step relies on; its sequences cannot go on.
    fn execute(&mut self, batch: &StepBatch) -> Result<Sampled, RunnerError>;

    /// Copies whole blocks out, end to end, `bytes_per_block` each, in the byte order of the layout.
    ///
    /// # Errors
    /// [`RunnerError`] if the device fails.
    fn read_blocks(&mut self, blocks: &[BlockId]) -> Result<Vec<u8>, RunnerError>;

    /// Copies whole blocks in; `bytes` is what [`read_blocks`](Self::read_blocks) of a runner with the same layout
    /// fingerprint gave.
    ///
    /// # Errors
    /// [`RunnerError`] if the device fails or the length is not `blocks.len() * bytes_per_block`.
    fn write_blocks(&mut self, blocks: &[BlockId], bytes: &[u8]) -> Result<(), RunnerError>;
}

/// Shape of one engine's KV memory. Two engines can hand blocks over when their fingerprints agree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KvLayout {
    /// Tokens in a block.
    pub block_size: usize,
    /// Blocks in the pool.
    pub num_blocks: usize,
    /// Bytes of one block over all layers.
    pub bytes_per_block: usize,
    /// Hash of everything that must agree for a block's bytes to mean the same: model weights, layers, heads, head
    /// size, element type, block size, order of dimensions.
    pub fingerprint: [u8; 16],
}

/// What one step chose.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sampled {
    /// One entry a sequence of the batch, in its order.
    pub sequences: Vec<SampledSequence>,
}

/// What one step gave for one sequence.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SampledSequence {
    /// The chosen token, where one was asked for.
    pub token: Option<OutputToken>,
    /// Where asked for: log-probabilities of the known token after each token of the chunk (one fewer for the chunk
    /// that ends the prompt).
    pub prompt_logprobs: Vec<TokenLogprobs>,
}

/// Why a step failed. Text for people: the engine can only fail the step's sequences.
#[derive(Debug, Error)]
pub enum RunnerError {
    /// The device or a library reported an error.
    #[error("the model runner failed: {0}")]
    Device(String),
    /// Block bytes that do not fit the layout.
    #[error("{got} bytes do not fill {blocks} KV blocks of {bytes_per_block} bytes")]
    BlockBytes {
        /// Bytes given.
        got: usize,
        /// Blocks named.
        blocks: usize,
        /// Bytes of one block.
        bytes_per_block: usize,
    },
}
