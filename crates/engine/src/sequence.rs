//! One request's run inside an engine.

use baton_kvcache::BlockTable;
use baton_types::{
    BlockHash, Finish, FinishReason, Phase, Salt, SampleRequest, SamplingParams, SequenceId, TokenHistory,
    TokenId, TokenLogprobs,
};
use std::sync::Arc;

/// A sequence as it is handed to an engine.
#[derive(Clone, Debug)]
pub struct NewSequence {
    /// Unique within the process.
    pub id: SequenceId,
    /// Prompt, then output tokens that are known already.
    pub tokens: Vec<TokenId>,
    /// How many of them are prompt.
    pub prompt_len: usize,
    /// How to choose tokens, and when to stop.
    pub params: Arc<SamplingParams>,
    /// Model and tenant salt of its block hashes.
    pub salt: Salt,
    /// What is wanted.
    pub goal: Goal,
}

/// What an engine does with a sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    /// Generate until it ends.
    Generate,
    /// Compute the known tokens' KV, choose one token, then keep the blocks until released.
    PrefillOnly,
}

/// A sequence's state. `tokens[..computed_len]` have their keys and values in `table`.
#[derive(Debug)]
pub(crate) struct Sequence {
    pub(crate) id: SequenceId,
    pub(crate) tokens: Vec<TokenId>,
    pub(crate) prompt_len: usize,
    pub(crate) params: Arc<SamplingParams>,
    pub(crate) goal: Goal,
    pub(crate) table: BlockTable,
    pub(crate) computed_len: usize,
    /// Prompt tokens found in the cache when it was first admitted; `None` before.
    pub(crate) cached_len: Option<usize>,
    salt: Salt,
    /// Hashes of the leading full blocks of `tokens`, as far as they were asked for.
    hashes: Vec<BlockHash>,
    prompt_logprobs: PromptLogprobs,
}

/// Log-probabilities of the prompt, gathered chunk by chunk.
#[derive(Debug)]
enum PromptLogprobs {
    NotAsked,
    Gathering(Vec<TokenLogprobs>),
    Reported,
}

impl Sequence {
    pub(crate) fn new(new: NewSequence) -> Self {
        let prompt_logprobs = match new.params.prompt_logprobs {
            Some(_) if new.goal == Goal::Generate => PromptLogprobs::Gathering(Vec::new()),
            _ => PromptLogprobs::NotAsked,
        };
        Self {
            id: new.id,
            tokens: new.tokens,
            prompt_len: new.prompt_len,
            params: new.params,
            goal: new.goal,
            table: BlockTable::default(),
            computed_len: 0,
            cached_len: None,
            salt: new.salt,
            hashes: Vec::new(),
            prompt_logprobs,
        }
    }

    pub(crate) fn salt(&self) -> Salt {
        self.salt
    }

    pub(crate) fn output_len(&self) -> usize {
        self.tokens.len() - self.prompt_len
    }

    /// Whether only its newest token is left to compute, and that one was sampled.
    pub(crate) fn is_decoding(&self) -> bool {
        self.computed_len >= self.prompt_len && self.computed_len + 1 == self.tokens.len()
    }

    /// The phase of the next token to compute, and how many tokens of that phase there are.
    pub(crate) fn next_chunk(&self) -> (Phase, usize) {
        if self.computed_len < self.prompt_len {
            (Phase::Prefill, self.prompt_len - self.computed_len)
        } else {
            (Phase::Decode, self.tokens.len() - self.computed_len)
        }
    }

    /// Hashes of the first `blocks` blocks, all full.
    pub(crate) fn block_hashes(&mut self, blocks: usize, block_size: usize) -> &[BlockHash] {
        while self.hashes.len() < blocks {
            let parent = self.hashes.last().copied().unwrap_or_else(|| self.salt.root());
            let start = self.hashes.len() * block_size;
            self.hashes.push(self.salt.child(parent, &self.tokens[start..start + block_size]));
        }
        &self.hashes[..blocks]
    }

    /// Registers the blocks that are full and written.
    pub(crate) fn register_computed(&mut self, block_size: usize) {
        let full = self.computed_len / block_size;
        if full > self.table.num_registered() {
            self.block_hashes(full, block_size);
            self.table.register(&self.hashes[..full]);
        }
    }

    /// Gives its blocks back; everything has to be computed (or found in the cache) again.
    pub(crate) fn preempt(&mut self) {
        self.table = BlockTable::default();
        self.computed_len = 0;
        if let PromptLogprobs::Gathering(gathered) = &mut self.prompt_logprobs {
            gathered.clear();
        }
    }

    /// Whether each prompt token must go through the model, cached or not.
    pub(crate) fn needs_prompt_logprobs(&self) -> bool {
        matches!(self.prompt_logprobs, PromptLogprobs::Gathering(_))
    }

    pub(crate) fn gather_prompt_logprobs(&mut self, chunk: Vec<TokenLogprobs>) {
        if let PromptLogprobs::Gathering(gathered) = &mut self.prompt_logprobs {
            gathered.extend(chunk);
        }
    }

    /// The whole prompt's log-probabilities, once, when the prompt is computed.
    pub(crate) fn take_prompt_logprobs(&mut self) -> Option<Vec<TokenLogprobs>> {
        if self.computed_len < self.prompt_len || !self.needs_prompt_logprobs() {
            return None;
        }
        match std::mem::replace(&mut self.prompt_logprobs, PromptLogprobs::Reported) {
            PromptLogprobs::Gathering(gathered) => Some(gathered),
            PromptLogprobs::NotAsked | PromptLogprobs::Reported => None,
        }
    }

    /// What a runner needs to choose the token after the last known one.
    pub(crate) fn sample_request(&self, end_tokens: &[TokenId]) -> SampleRequest {
        let history = self
            .params
            .needs_history()
            .then(|| TokenHistory { tokens: self.tokens.clone(), prompt_len: self.prompt_len });
        let banned = if self.output_len() < self.params.min_tokens as usize {
            end_tokens.iter().chain(&self.params.stop_token_ids).copied().collect()
        } else {
            Vec::new()
        };
        SampleRequest { params: self.params.clone(), position: self.tokens.len() as u32, history, banned }
    }

    /// Whether the token just appended is the last one.
    pub(crate) fn finish_reason(&self, end_tokens: &[TokenId], max_model_len: usize) -> Option<FinishReason> {
        let last = *self.tokens.last()?;
        let params = &self.params;
        if params.stop_token_ids.contains(&last) || (!params.ignore_eos && end_tokens.contains(&last)) {
            return Some(FinishReason::Stop(last));
        }
        let full = self.output_len() >= params.max_tokens as usize || self.tokens.len() >= max_model_len;
        full.then_some(FinishReason::Length)
    }

    pub(crate) fn finish(&self, reason: FinishReason) -> Finish {
        Finish {
            reason,
            prompt_tokens: self.prompt_len,
            cached_tokens: self.cached_len.unwrap_or(0),
            output_tokens: self.output_len(),
        }
    }
}
