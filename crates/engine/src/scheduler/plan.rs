//! From sequences to the next step's batch.

use super::{EngineEvent, Scheduler};
use crate::sequence::{Goal, Sequence};
use baton_kvcache::{BlockPool, BlockTable, PoolFull};
use baton_types::{BatchSequence, Phase, SequenceEvent, Slot, StepBatch, TokenId};

impl Scheduler {
    /// The next step, or `None` when nothing can be computed now.
    ///
    /// Running sequences come first: each gets its one token, so a long prompt never delays them by more than the rest
    /// of the budget. That rest goes to prompts under way, then to waiting sequences in their order.
    pub fn plan(&mut self, pool: &BlockPool) -> Option<StepBatch> {
        let mut parts = Vec::new();
        let mut budget = self.config.step_token_budget;
        self.plan_decodes(pool, &mut parts, &mut budget);
        self.plan_chunks(&mut parts, &mut budget);
        self.admit(pool, &mut parts, &mut budget);
        if parts.is_empty() {
            return None;
        }
        self.stats.steps += 1;
        parts.sort_by_key(Part::rank);
        self.in_flight = parts.iter().map(|part| part.running_index).collect();
        Some(self.build(&parts, pool.block_size()))
    }

    /// One token for every decoding sequence, preempting the latest ones where blocks run out.
    fn plan_decodes(&mut self, pool: &BlockPool, parts: &mut Vec<Part>, budget: &mut usize) {
        let mut index = 0;
        while index < self.running.len() && *budget > 0 {
            let sequence = &mut self.running[index];
            if sequence.is_decoding() {
                if sequence.table.grow(pool, sequence.computed_len + 1).is_err() {
                    self.preempt_last();
                    continue; // the same index again; it may be the one that was preempted
                }
                parts.push(Part { running_index: index, phase: Phase::Decode, query_len: 1 });
                *budget -= 1;
            }
            index += 1;
        }
    }

    /// The next chunk of every running sequence that still has known tokens to compute. Its blocks are reserved.
    fn plan_chunks(&mut self, parts: &mut Vec<Part>, budget: &mut usize) {
        for (index, sequence) in self.running.iter().enumerate() {
            if *budget == 0 {
                break;
            }
            if !sequence.is_decoding() {
                parts.push(Part::chunk(index, sequence, budget));
            }
        }
    }

    /// Moves waiting sequences to running, or to parked, while blocks and budget last.
    fn admit(&mut self, pool: &BlockPool, parts: &mut Vec<Part>, budget: &mut usize) {
        while *budget > 0 && self.running.len() + self.parked.len() < self.config.sequences_max {
            let Some(mut sequence) = self.waiting.pop_front() else { break };
            // Every decoding sequence may need a block in the next steps; taking the last ones would only preempt somebody.
            let spare = self.running.len();
            let Ok(hit) = reserve(&mut sequence, pool, spare) else {
                self.waiting.push_front(sequence);
                break;
            };
            self.stats.prefix_query_tokens += sequence.tokens.len() as u64;
            self.stats.prefix_hit_tokens += hit as u64;
            sequence.computed_len = hit;
            if sequence.cached_len.is_none() {
                let cached_tokens = hit.min(sequence.prompt_len);
                sequence.cached_len = Some(cached_tokens);
                self.emit(sequence.id, SequenceEvent::Admitted { cached_tokens });
            }
            if self.is_for_handoff(&sequence) {
                self.events.push(EngineEvent::Reserved(sequence.id));
                self.parked.insert(sequence.id, sequence);
            } else {
                parts.push(Part::chunk(self.running.len(), &sequence, budget));
                self.running.push(sequence);
            }
        }
    }

    fn is_for_handoff(&self, sequence: &Sequence) -> bool {
        let uncached = sequence.tokens.len() - sequence.computed_len;
        sequence.goal == Goal::Generate
            && !sequence.needs_prompt_logprobs()
            && self.parked.len() < self.config.handoffs_max
            && self.config.handoff_threshold.is_some_and(|threshold| uncached > threshold)
    }

    fn preempt_last(&mut self) {
        let mut sequence = self.running.pop().expect("the sequence that needs a block is running");
        sequence.preempt();
        self.stats.preemptions += 1;
        self.waiting.push_front(sequence);
    }

    fn build(&mut self, parts: &[Part], block_size: usize) -> StepBatch {
        let mut batch = StepBatch { step: self.stats.steps, ..StepBatch::default() };
        for part in parts {
            let sequence = &self.running[part.running_index];
            append_part(&mut batch, sequence, part, block_size, &self.config.end_tokens);
            match part.phase {
                Phase::Prefill => self.stats.prefill_tokens += part.query_len as u64,
                Phase::Decode => self.stats.decode_tokens += part.query_len as u64,
            }
        }
        batch
    }
}

/// A running sequence's share of the step.
struct Part {
    running_index: usize,
    phase: Phase,
    query_len: usize,
}

impl Part {
    fn chunk(running_index: usize, sequence: &Sequence, budget: &mut usize) -> Self {
        let (phase, len) = sequence.next_chunk();
        let query_len = len.min(*budget);
        *budget -= query_len;
        Self { running_index, phase, query_len }
    }

    /// The order that [`StepBatch::sequences`] asks for.
    fn rank(&self) -> u8 {
        match (self.phase, self.query_len) {
            (Phase::Decode, 1) => 0,
            (Phase::Decode, _) => 1,
            (Phase::Prefill, _) => 2,
        }
    }
}

/// Blocks for all known tokens: cached ones first. Leaves `spare` blocks for others. Returns the cached tokens.
fn reserve(sequence: &mut Sequence, pool: &BlockPool, spare: usize) -> Result<usize, PoolFull> {
    let (len, block_size) = (sequence.tokens.len(), pool.block_size());
    // At least one token is computed: the next token is sampled from its logits.
    let reusable = if sequence.needs_prompt_logprobs() { 0 } else { (len - 1) / block_size };
    let prefix = pool.match_prefix(sequence.block_hashes(reusable, block_size));
    let hit = prefix.len() * block_size;
    let needed = pool.blocks_for(len) - prefix.len();
    let counts = pool.counts();
    let available = counts.free + counts.inactive;
    if available < needed + spare {
        return Err(PoolFull { needed: needed + spare, available });
    }
    let mut table = BlockTable::with_prefix(prefix);
    table.grow(pool, len)?;
    sequence.table = table;
    Ok(hit)
}

fn append_part(
    batch: &mut StepBatch,
    sequence: &Sequence,
    part: &Part,
    block_size: usize,
    end_tokens: &[TokenId],
) {
    let (start, end) = (sequence.computed_len, sequence.computed_len + part.query_len);
    let table = &sequence.table.ids()[..end.div_ceil(block_size)];
    let (token_start, block_start) = (batch.token_ids.len(), batch.block_ids.len());
    batch.token_ids.extend_from_slice(&sequence.tokens[start..end]);
    for position in start..end {
        batch.positions.push(position as u32);
        let block = table[position / block_size].0 as usize;
        batch.slot_mapping.push(Slot((block * block_size + position % block_size) as u32));
    }
    batch.block_ids.extend_from_slice(table);
    let is_prompt = part.phase == Phase::Prefill;
    batch.sequences.push(BatchSequence {
        id: sequence.id,
        phase: part.phase,
        tokens: token_start..batch.token_ids.len(),
        context_len: start,
        blocks: block_start..batch.block_ids.len(),
        input_from_row: None,
        sample: (end == sequence.tokens.len()).then(|| sequence.sample_request(end_tokens)),
        prompt_logprobs: (is_prompt && sequence.needs_prompt_logprobs())
            .then(|| (sequence.params.prompt_logprobs.unwrap_or(0), prompt_token(sequence, end))),
    });
}

fn prompt_token(sequence: &Sequence, position: usize) -> Option<TokenId> {
    (position < sequence.prompt_len).then(|| sequence.tokens[position])
}
