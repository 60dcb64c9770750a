//! What one engine step computes, laid out as a device wants it: flat arrays, ragged by offsets, no strings, no maps.
//!
//! A batch of running sequences has `query_len == 1` everywhere, so its shape is a function of the number of sequences
//! alone: a runner can pad it to a bucket and replay a recorded CUDA graph. [`BatchSequence::input_from_row`] lets a
//! step be launched before the tokens of the step before it have reached the host.

use crate::{BlockId, SamplingParams, SequenceId, Slot, TokenId};
use std::ops::Range;
use std::sync::Arc;

/// One engine step. Per-token arrays have [`num_tokens`](Self::num_tokens) entries, in the order of `sequences`;
/// parts of [`Phase::Decode`] come before those of [`Phase::Prefill`], and of the former those with one token first.
#[derive(Clone, Debug, Default)]
pub struct StepBatch {
    /// Counts steps of one engine, from 1.
    pub step: u64,
    /// Input tokens. Meaningless where the sequence takes its input from a row of the step before.
    pub token_ids: Vec<TokenId>,
    /// Position of each token in its sequence, from 0.
    pub positions: Vec<u32>,
    /// Where each token's keys and values go.
    pub slot_mapping: Vec<Slot>,
    /// Block tables of all sequences, end to end; [`BatchSequence::blocks`] cuts them apart.
    pub block_ids: Vec<BlockId>,
    /// The sequences, `Decode` first.
    pub sequences: Vec<BatchSequence>,
}

/// What kind of token a sequence's part of a step computes. A runner may use other kernels or weights formats for the one
/// than for the other, but must not let a result depend on what else is in the batch or on how many tokens the part has.
///
/// The phase goes with the token, not with the moment: when a preempted sequence computes its output tokens anew it does
/// so many at once but still in `Decode`, and gets the very same numbers as before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Tokens of the prompt.
    Prefill,
    /// Tokens that were sampled. One while the sequence runs; more while it catches up after a preemption.
    Decode,
}

/// One sequence's part of a step.
#[derive(Clone, Debug)]
pub struct BatchSequence {
    /// Whose part this is.
    pub id: SequenceId,
    /// Prompt tokens or output tokens; never both in one part.
    pub phase: Phase,
    /// Range of this sequence in the per-token arrays; its length is `query_len`.
    pub tokens: Range<usize>,
    /// Tokens of this sequence whose keys and values are already in its blocks (`context_len`).
    pub context_len: usize,
    /// Range of this sequence's block table in [`StepBatch::block_ids`]. It covers `context_len + query_len` slots.
    pub blocks: Range<usize>,
    /// Overlapped scheduling: the input token is the one sampled by this row of the step before, still on the device.
    pub input_from_row: Option<usize>,
    /// Sample a token after the last one of this part. `None` for a chunk that is not the last of its prompt.
    pub sample: Option<SampleRequest>,
    /// Report log-probabilities of the known tokens that follow each token of this chunk: this many most likely ones,
    /// and which token follows the chunk's last one (`None` when it is the prompt's last).
    pub prompt_logprobs: Option<(u8, Option<TokenId>)>,
}

/// What a runner needs to choose one token.
#[derive(Clone, Debug)]
pub struct SampleRequest {
    /// Shared with every step of the sequence.
    pub params: Arc<SamplingParams>,
    /// Position in the sequence of the token to be chosen; with the seed, the key of its random number.
    pub position: u32,
    /// Tokens before it, where [`SamplingParams::needs_history`].
    pub history: Option<TokenHistory>,
    /// Tokens that must not be chosen (end tokens before `min_tokens`).
    pub banned: Vec<TokenId>,
}

/// A sequence's tokens so far, for penalties.
#[derive(Clone, Debug)]
pub struct TokenHistory {
    /// Prompt, then output.
    pub tokens: Vec<TokenId>,
    /// How many of them are prompt.
    pub prompt_len: usize,
}

impl StepBatch {
    /// Query tokens in this step, over all sequences.
    pub fn num_tokens(&self) -> usize {
        self.token_ids.len()
    }

    /// Asserts what every runner relies on; `block_size` is that of the pool.
    ///
    /// # Panics
    /// Where the batch contradicts itself: a bug of the scheduler, never of a request.
    pub fn check(&self, block_size: usize) {
        assert_eq!(self.positions.len(), self.num_tokens());
        assert_eq!(self.slot_mapping.len(), self.num_tokens());
        let (mut next_token, mut next_block, mut last_rank) = (0, 0, 0);
        for sequence in &self.sequences {
            assert_eq!(sequence.tokens.start, next_token, "sequence {}: tokens have a gap", sequence.id);
            assert_eq!(sequence.blocks.start, next_block, "sequence {}: blocks have a gap", sequence.id);
            (next_token, next_block) = (sequence.tokens.end, sequence.blocks.end);
            assert!(!sequence.tokens.is_empty(), "sequence {}: nothing to compute", sequence.id);
            let seq_len = sequence.context_len + sequence.tokens.len();
            assert!(
                sequence.blocks.len() * block_size >= seq_len,
                "sequence {}: {} blocks cannot hold {seq_len} tokens",
                sequence.id,
                sequence.blocks.len()
            );
            let rank = match (sequence.phase, sequence.tokens.len()) {
                (Phase::Decode, 1) => 0,
                (Phase::Decode, _) => 1,
                (Phase::Prefill, _) => 2,
            };
            assert!(rank >= last_rank, "sequence {}: out of order", sequence.id);
            last_rank = rank;
            let table = &self.block_ids[sequence.blocks.clone()];
            for (offset, index) in sequence.tokens.clone().enumerate() {
                let position = sequence.context_len + offset;
                assert_eq!(self.positions[index] as usize, position, "sequence {}: position", sequence.id);
                let slot = table[position / block_size].0 as usize * block_size + position % block_size;
                assert_eq!(self.slot_mapping[index].0 as usize, slot, "sequence {}: slot", sequence.id);
            }
        }
        assert_eq!(next_token, self.num_tokens());
        assert_eq!(next_block, self.block_ids.len());
    }
}
