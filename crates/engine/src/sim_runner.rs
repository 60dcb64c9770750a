//! A model in place of a model: exact, instant, and merciless about KV.
//!
//! A slot of its KV memory holds the token that was written there. To choose a token it reads the sequence's whole
//! context back through the block table and hashes it, so that a block that was never written, was reused too early, or
//! belongs to somebody else gives another token than [`SimRunner::expected`], or a panic.

use baton_types::{
    BlockId, KvLayout, ModelRunner, OutputToken, RunnerError, Sampled, SampledSequence, SamplingParams,
    StepBatch, TokenId, TokenLogprobs, random::philox4x32,
};

/// Simulated model with simulated KV memory.
#[derive(Debug)]
pub struct SimRunner {
    layout: KvLayout,
    vocab_size: u32,
    /// By slot: token id + 1, or 0 where nothing was written.
    slots: Vec<u32>,
    /// Steps left until one fails, if any shall.
    fail_in: Option<u64>,
}

impl SimRunner {
    /// A model with tokens `0..vocab_size` and this much KV memory.
    pub fn new(num_blocks: usize, block_size: usize, vocab_size: u32) -> Self {
        let layout = KvLayout {
            block_size,
            num_blocks,
            bytes_per_block: block_size * 4,
            fingerprint: [block_size as u8; 16],
        };
        Self { layout, vocab_size, slots: vec![0; num_blocks * block_size], fail_in: None }
    }

    /// Lets the `steps`-th step from now fail.
    pub fn fail_after(&mut self, steps: u64) {
        self.fail_in = Some(steps);
    }

    /// The token that follows `tokens`, whoever computes it.
    pub fn expected(
        tokens: &[TokenId],
        params: &SamplingParams,
        banned: &[TokenId],
        vocab_size: u32,
    ) -> TokenId {
        let mut state = [params.seed as u32, (params.seed >> 32) as u32, 0, 0];
        for token in tokens {
            state[2] ^= token.0;
            state = philox4x32(state, [0, 0]);
        }
        let mut token = TokenId(state[0] % vocab_size);
        while banned.contains(&token) && banned.len() < vocab_size as usize {
            token = TokenId((token.0 + 1) % vocab_size);
        }
        token
    }

    fn context(&self, table: &[BlockId], len: usize) -> Vec<TokenId> {
        let block_size = self.layout.block_size;
        (0..len)
            .map(|position| {
                let block = table[position / block_size].0 as usize;
                let written = self.slots[block * block_size + position % block_size];
                assert_ne!(written, 0, "position {position} was read before it was written");
                TokenId(written - 1)
            })
            .collect()
    }
}

impl ModelRunner for SimRunner {
    fn kv_layout(&self) -> &KvLayout {
        &self.layout
    }

    fn execute(&mut self, batch: &StepBatch) -> Result<Sampled, RunnerError> {
        batch.check(self.layout.block_size);
        if let Some(steps) = &mut self.fail_in {
            *steps = steps.saturating_sub(1);
            if *steps == 0 {
                self.fail_in = None;
                return Err(RunnerError::Device("simulated failure".into()));
            }
        }
        for (slot, token) in batch.slot_mapping.iter().zip(&batch.token_ids) {
            self.slots[slot.0 as usize] = token.0 + 1;
        }
        let sequences = batch.sequences.iter().map(|part| {
            let context =
                self.context(&batch.block_ids[part.blocks.clone()], part.context_len + part.tokens.len());
            let token = part.sample.as_ref().map(|request| {
                let id = Self::expected(&context, &request.params, &request.banned, self.vocab_size);
                let logprobs = request.params.logprobs.map(|_| flat_logprobs(self.vocab_size));
                OutputToken { id, logprobs }
            });
            let prompt_logprobs = part.prompt_logprobs.map_or(Vec::new(), |(_, next)| {
                let rows = part.tokens.len() - usize::from(next.is_none());
                vec![flat_logprobs(self.vocab_size); rows]
            });
            SampledSequence { token, prompt_logprobs }
        });
        Ok(Sampled { sequences: sequences.collect() })
    }

    fn read_blocks(&mut self, blocks: &[BlockId]) -> Result<Vec<u8>, RunnerError> {
        let size = self.layout.block_size;
        let slots = blocks.iter().flat_map(|block| &self.slots[block.0 as usize * size..][..size]);
        Ok(slots.flat_map(|slot| slot.to_le_bytes()).collect())
    }

    fn write_blocks(&mut self, blocks: &[BlockId], bytes: &[u8]) -> Result<(), RunnerError> {
        let bytes_per_block = self.layout.bytes_per_block;
        if bytes.len() != blocks.len() * bytes_per_block {
            return Err(RunnerError::BlockBytes { got: bytes.len(), blocks: blocks.len(), bytes_per_block });
        }
        for (block, contents) in blocks.iter().zip(bytes.chunks_exact(bytes_per_block)) {
            let start = block.0 as usize * self.layout.block_size;
            for (offset, word) in contents.chunks_exact(4).enumerate() {
                self.slots[start + offset] = u32::from_le_bytes([word[0], word[1], word[2], word[3]]);
            }
        }
        Ok(())
    }
}

fn flat_logprobs(vocab_size: u32) -> TokenLogprobs {
    TokenLogprobs { logprob: -(vocab_size as f32).ln(), top: Vec::new() }
}
