//! A scheduler of a few lines: builds step batches for a [`CpuRunner`], one block pool each.
#![allow(dead_code, unreachable_pub, missing_docs, reason = "each test binary uses its part")]

use baton_model::{CpuRunner, CpuRunnerOptions, Weights, WeightsFormat};
use baton_types::{
    BatchSequence, BlockId, ModelRunner, Phase, SampleRequest, SampledSequence, SamplingParams, SequenceId,
    Slot, StepBatch, TokenId,
};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub const BLOCK_SIZE: usize = 16;

/// The shared folder of reference outputs.
pub fn golden_path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden").join(name)
}

pub fn golden(name: &str) -> Value {
    let path = golden_path(name);
    let text = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_slice(&text).unwrap()
}

pub fn tokens(value: &Value) -> Vec<TokenId> {
    value.as_array().unwrap().iter().map(|id| TokenId(id.as_u64().unwrap() as u32)).collect()
}

pub fn floats(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap() as f32).collect()
}

pub fn load(path: &Path, format: WeightsFormat) -> Arc<Weights> {
    baton_model::open(path).unwrap().load_weights(format, &|_, _| ()).unwrap()
}

/// A runner and the free blocks of its pool.
pub struct World {
    pub runner: CpuRunner,
    free: Vec<BlockId>,
    step: u64,
}

/// A sequence in one world.
#[derive(Clone)]
pub struct Seq {
    id: SequenceId,
    pub tokens: Vec<TokenId>,
    pub prompt_len: usize,
    pub context_len: usize,
    pub blocks: Vec<BlockId>,
    pub params: Arc<SamplingParams>,
}

/// A sequence's part of a step.
#[derive(Clone, Copy)]
pub enum Part {
    /// Up to this many of the tokens that are not computed yet; samples after the last one.
    Chunk(usize),
    /// The last token.
    Decode,
}

impl Seq {
    pub fn new(id: u64, prompt: &[TokenId], params: SamplingParams) -> Self {
        Self {
            id: SequenceId(id),
            tokens: prompt.to_vec(),
            prompt_len: prompt.len(),
            context_len: 0,
            blocks: Vec::new(),
            params: Arc::new(params),
        }
    }

    pub fn output(&self) -> &[TokenId] {
        &self.tokens[self.prompt_len..]
    }
}

impl World {
    pub fn new(weights: &Arc<Weights>, num_blocks: usize) -> Self {
        Self::with_threads(weights, num_blocks, 2)
    }

    pub fn with_threads(weights: &Arc<Weights>, num_blocks: usize, threads: usize) -> Self {
        let options = CpuRunnerOptions { block_size: BLOCK_SIZE, num_blocks, threads, low_priority: false };
        let runner = CpuRunner::new(weights.clone(), options).unwrap();
        // Every other block first, so that no sequence's blocks lie side by side.
        let even = (0..num_blocks as u32).step_by(2);
        let free = even.chain((1..num_blocks as u32).step_by(2)).map(BlockId).collect();
        Self { runner, free, step: 0 }
    }

    pub fn fingerprint(&self) -> [u8; 16] {
        self.runner.kv_layout().fingerprint
    }

    /// Gives a sequence blocks for `len` tokens.
    pub fn allocate(&mut self, seq: &mut Seq, len: usize) {
        while seq.blocks.len() * BLOCK_SIZE < len {
            seq.blocks.push(self.free.pop().expect("the test's pool is too small"));
        }
    }

    /// The batch of one step; gives out the blocks it needs.
    pub fn batch(&mut self, parts: &mut [(&mut Seq, Part)]) -> StepBatch {
        self.step += 1;
        let mut batch = StepBatch { step: self.step, ..Default::default() };
        for (seq, part) in parts.iter_mut() {
            let (phase, len) = match part {
                Part::Chunk(len) => (Phase::Prefill, (*len).min(seq.tokens.len() - seq.context_len)),
                Part::Decode => (Phase::Decode, 1),
            };
            self.allocate(seq, seq.context_len + len);
            push(&mut batch, seq, phase, len);
        }
        batch.check(BLOCK_SIZE);
        batch
    }

    /// Runs one step, decode parts first, and appends what was sampled.
    pub fn step(&mut self, parts: &mut [(&mut Seq, Part)]) -> Vec<SampledSequence> {
        let batch = self.batch(parts);
        let sampled = self.runner.execute(&batch).unwrap().sequences;
        for ((seq, _), (result, entry)) in parts.iter_mut().zip(sampled.iter().zip(&batch.sequences)) {
            seq.context_len += entry.tokens.len();
            seq.tokens.extend(result.token.as_ref().map(|token| token.id));
        }
        sampled
    }

    /// Computes the rest of the prompt in chunks; the results of all chunks.
    pub fn prefill(&mut self, seq: &mut Seq, chunk: usize) -> Vec<SampledSequence> {
        let mut results = Vec::new();
        while seq.context_len < seq.prompt_len {
            results.extend(self.step(&mut [(&mut *seq, Part::Chunk(chunk))]));
        }
        results
    }

    /// Decodes until `count` tokens are output.
    pub fn decode(&mut self, seq: &mut Seq, count: usize) {
        while seq.output().len() < count {
            self.step(&mut [(&mut *seq, Part::Decode)]);
        }
    }

    /// Moves a sequence's blocks into another world.
    pub fn hand_over(&mut self, seq: &Seq, other: &mut Self) -> Seq {
        let bytes = self.runner.read_blocks(&seq.blocks).unwrap();
        let mut moved = Seq { blocks: Vec::new(), ..seq.clone() };
        other.allocate(&mut moved, seq.blocks.len() * BLOCK_SIZE);
        assert_ne!(moved.blocks, seq.blocks, "other block ids, or the test shows nothing");
        other.runner.write_blocks(&moved.blocks, &bytes).unwrap();
        moved
    }
}

fn push(batch: &mut StepBatch, seq: &Seq, phase: Phase, len: usize) {
    let (start, end) = (seq.context_len, seq.context_len + len);
    let first_token = batch.num_tokens();
    let first_block = batch.block_ids.len();
    let used = &seq.blocks[..end.div_ceil(BLOCK_SIZE)];
    batch.token_ids.extend(&seq.tokens[start..end]);
    batch.positions.extend(start as u32..end as u32);
    let slot = |position: usize| {
        Slot(used[position / BLOCK_SIZE].0 * BLOCK_SIZE as u32 + (position % BLOCK_SIZE) as u32)
    };
    batch.slot_mapping.extend((start..end).map(slot));
    batch.block_ids.extend(used);
    let samples = end == seq.tokens.len();
    let in_prompt = phase == Phase::Prefill;
    batch.sequences.push(BatchSequence {
        id: seq.id,
        phase,
        tokens: first_token..first_token + len,
        context_len: start,
        blocks: first_block..batch.block_ids.len(),
        input_from_row: None,
        sample: samples.then(|| SampleRequest {
            params: seq.params.clone(),
            position: end as u32,
            history: None,
            banned: Vec::new(),
        }),
        prompt_logprobs: seq
            .params
            .prompt_logprobs
            .filter(|_| in_prompt)
            .map(|top| (top, seq.tokens.get(end).copied())),
    });
}

/// Greedy, with log-probabilities of the prompt and of the 255 most likely tokens of each choice.
pub fn greedy_with_logprobs() -> SamplingParams {
    SamplingParams { temperature: 0.0, logprobs: Some(255), prompt_logprobs: Some(1), ..Default::default() }
}

pub fn greedy() -> SamplingParams {
    SamplingParams { temperature: 0.0, ..Default::default() }
}
