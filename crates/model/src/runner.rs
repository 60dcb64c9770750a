//! The CPU's [`ModelRunner`]: one model, one pool of KV blocks, one pool of threads.

use crate::decoder::Decoder;
use crate::fingerprint;
use crate::head::Head;
use crate::weights::Weights;
use baton_kernels::cpu::{KvShape, PagedKv};
use baton_types::{BlockId, KvLayout, ModelRunner, RunnerError, Sampled, StepBatch, TokenId};
use rayon::{ThreadPool, ThreadPoolBuilder};
use std::sync::Arc;

/// Sizes of a [`CpuRunner`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuRunnerOptions {
    /// Tokens in a KV block; at least 1.
    pub block_size: usize,
    /// KV blocks; at least 1. Memory for all of them is reserved, and used as they are.
    pub num_blocks: usize,
    /// Threads of its own; at least 1.
    pub threads: usize,
    /// Let other threads of the machine go first (Linux; elsewhere no effect). For a prefill engine that shares its
    /// cores with a decode engine: tokens keep coming while a prompt is computed.
    pub low_priority: bool,
}

/// How much nicer low-priority threads are: about a third of the time of a thread of normal priority when both want
/// the same core.
const LOW_PRIORITY_NICE: i32 = 5;

/// Runs a model on the CPU.
pub struct CpuRunner {
    weights: Arc<Weights>,
    pool: ThreadPool,
    kv: PagedKv,
    layout: KvLayout,
    decoder: Decoder,
    head: Head,
    /// Tokens chosen by the step before, by row: [`baton_types::BatchSequence::input_from_row`] refers to them.
    chosen_before: Vec<Option<TokenId>>,
    /// Input tokens of this step.
    inputs: Vec<TokenId>,
}

impl CpuRunner {
    /// A runner with its own threads and KV memory, over shared weights.
    ///
    /// # Errors
    /// [`RunnerError::Device`] if threads cannot be started, or a size is 0.
    pub fn new(weights: Arc<Weights>, options: CpuRunnerOptions) -> Result<Self, RunnerError> {
        let CpuRunnerOptions { block_size, num_blocks, threads, low_priority } = options;
        if block_size == 0 || num_blocks == 0 || threads == 0 {
            return Err(RunnerError::Device(format!(
                "block_size, num_blocks and threads must be at least 1: {options:?}"
            )));
        }
        let config = weights.config();
        let shape = KvShape {
            num_blocks,
            layers: config.layers,
            kv_heads: config.kv_heads,
            head_dim: config.head_dim,
            block_size,
        };
        let kv = PagedKv::new(shape);
        let layout = KvLayout {
            block_size,
            num_blocks,
            bytes_per_block: shape.block_bytes(),
            fingerprint: fingerprint::kv_layout(&weights.identity, config, block_size),
        };
        let decoder = Decoder::new(&weights);
        let pool = start_threads(threads, low_priority)?;
        let head = Head::default();
        Ok(Self { weights, pool, kv, layout, decoder, head, chosen_before: Vec::new(), inputs: Vec::new() })
    }

    /// The weights it runs with.
    pub fn weights(&self) -> &Arc<Weights> {
        &self.weights
    }

    /// Fills `inputs`, and refuses what the model has no row for.
    fn read_inputs(&mut self, batch: &StepBatch) -> Result<(), RunnerError> {
        self.inputs.clear();
        self.inputs.extend(&batch.token_ids);
        for sequence in &batch.sequences {
            let Some(row) = sequence.input_from_row else { continue };
            let token = self.chosen_before.get(row).copied().flatten().ok_or_else(|| {
                RunnerError::Device(format!(
                    "sequence {}: the step before chose no token in row {row}",
                    sequence.id
                ))
            })?;
            self.inputs[sequence.tokens.start] = token;
        }
        let vocab = self.weights.config().vocab;
        match self.inputs.iter().find(|token| token.0 as usize >= vocab) {
            Some(token) => Err(RunnerError::Device(format!(
                "token {token} is outside the model's vocabulary of {vocab}"
            ))),
            None => Ok(()),
        }
    }

    fn check_blocks(&self, blocks: &[BlockId]) -> Result<(), RunnerError> {
        let count = self.layout.num_blocks;
        match blocks.iter().find(|block| block.0 as usize >= count) {
            Some(block) => Err(RunnerError::Device(format!("block {block} is outside the pool of {count}"))),
            None => Ok(()),
        }
    }
}

impl ModelRunner for CpuRunner {
    fn kv_layout(&self) -> &KvLayout {
        &self.layout
    }

    fn execute(&mut self, batch: &StepBatch) -> Result<Sampled, RunnerError> {
        if cfg!(debug_assertions) {
            batch.check(self.layout.block_size);
        }
        self.check_blocks(&batch.block_ids)?;
        self.read_inputs(batch)?;
        let Self { weights, pool, kv, decoder, head, inputs, .. } = self;
        let sampled = pool.install(|| {
            let hidden = decoder.forward(weights, kv, batch, inputs);
            head.choose(weights, hidden, batch)
        });
        self.chosen_before.clear();
        self.chosen_before.extend(sampled.sequences.iter().map(|s| s.token.as_ref().map(|token| token.id)));
        Ok(sampled)
    }

    fn read_blocks(&mut self, blocks: &[BlockId]) -> Result<Vec<u8>, RunnerError> {
        self.check_blocks(blocks)?;
        let mut bytes = Vec::with_capacity(blocks.len() * self.layout.bytes_per_block);
        for block in blocks {
            bytes.extend_from_slice(self.kv.block_bytes(*block));
        }
        Ok(bytes)
    }

    fn write_blocks(&mut self, blocks: &[BlockId], bytes: &[u8]) -> Result<(), RunnerError> {
        self.check_blocks(blocks)?;
        let bytes_per_block = self.layout.bytes_per_block;
        if bytes.len() != blocks.len() * bytes_per_block {
            return Err(RunnerError::BlockBytes { got: bytes.len(), blocks: blocks.len(), bytes_per_block });
        }
        for (block, bytes) in blocks.iter().zip(bytes.chunks_exact(bytes_per_block)) {
            self.kv.block_bytes_mut(*block).copy_from_slice(bytes);
        }
        Ok(())
    }
}

fn start_threads(threads: usize, low_priority: bool) -> Result<ThreadPool, RunnerError> {
    let kind = if low_priority { "compute-low" } else { "compute" };
    ThreadPoolBuilder::new()
        .num_threads(threads)
        .thread_name(move |index| format!("{kind}-{index}"))
        .start_handler(move |_| {
            if low_priority {
                lower_priority();
            }
        })
        .build()
        .map_err(|error| RunnerError::Device(format!("cannot start {threads} threads: {error}")))
}

/// On Linux niceness belongs to a thread, and a thread may name itself where other systems expect a process.
#[cfg(target_os = "linux")]
fn lower_priority() {
    let thread = Some(rustix::thread::gettid());
    if let Err(error) = rustix::process::setpriority_process(thread, LOW_PRIORITY_NICE) {
        tracing::warn!(%error, "cannot lower the priority of a compute thread");
    }
}

#[cfg(not(target_os = "linux"))]
fn lower_priority() {}
