//! What the two sides of a handoff tell each other. In one process these are values in bounded channels; nothing in
//! them would not fit on a wire.

use baton_types::{BlockRef, HandoffId, OutputToken, Salt, SamplingParams, TokenId};
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::Instant;

/// Decode to prefill.
pub(crate) enum ToPrefill {
    /// Compute this prompt and push its blocks.
    Prefill(Box<PrefillRequest>),
    /// A piece was written: another may come.
    Acknowledge(HandoffId),
    /// Nobody wants this any more: stop, and push nothing further.
    Cancel(HandoffId),
    /// Look at the stop flag.
    Wake,
}

/// A prompt to prefill, and where its blocks go.
pub(crate) struct PrefillRequest {
    pub(crate) handoff: HandoffId,
    /// Everything known; the next token is to be chosen.
    pub(crate) tokens: Vec<TokenId>,
    pub(crate) prompt_len: usize,
    /// All the sampler's state: random numbers are keyed by seed and position, penalties count known tokens.
    pub(crate) params: Arc<SamplingParams>,
    pub(crate) salt: Salt,
    /// Layout of the blocks wanted; another one is refused.
    pub(crate) fingerprint: [u8; 16],
    /// Index of the first block that is missing.
    pub(crate) first_block: usize,
    /// Reserved blocks for that one and all after it.
    pub(crate) destination: Vec<BlockRef>,
    pub(crate) deadline: Instant,
    pub(crate) reply: SyncSender<crate::decode::ToDecode>,
}

/// Prefill to decode, all with the handoff they belong to.
pub(crate) struct FromPrefill {
    pub(crate) handoff: HandoffId,
    pub(crate) news: PrefillNews,
}

/// What happened to a handoff on the prefill side.
pub(crate) enum PrefillNews {
    /// Finished blocks.
    Blocks(Piece),
    /// All blocks were sent, and this is the next token.
    FirstToken(OutputToken),
    /// The prefill cannot be done; the text says why.
    Failed(String),
    /// Still there; waiting for its turn, or in a long step.
    Alive,
}

/// Consecutive whole blocks of one handoff.
pub(crate) struct Piece {
    /// Number of the first block in the sequence.
    pub(crate) first_block: usize,
    /// Where they go, one a block.
    pub(crate) blocks: Vec<BlockRef>,
    /// The blocks' bytes, end to end.
    pub(crate) bytes: Vec<u8>,
    /// Of `bytes`.
    pub(crate) checksum: blake3::Hash,
}

impl Piece {
    pub(crate) fn new(first_block: usize, blocks: Vec<BlockRef>, bytes: Vec<u8>) -> Self {
        let checksum = blake3::hash(&bytes);
        Self { first_block, blocks, bytes, checksum }
    }

    pub(crate) fn is_intact(&self) -> bool {
        blake3::hash(&self.bytes) == self.checksum
    }
}
