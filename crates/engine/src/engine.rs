//! A scheduler, a block pool and a model runner, stepping.

use crate::scheduler::{EngineEvent, Scheduler, SchedulerConfig};
use crate::sequence::NewSequence;
use baton_kvcache::BlockPool;
use baton_types::{
    AdmitError, BlockId, BlockRef, FinishReason, ModelRunner, OutputToken, RunnerError, Salt, SamplingParams,
    SequenceId, TokenId,
};
use std::sync::Arc;
use thiserror::Error;

/// One engine. Owned by one thread, which calls [`step`](Self::step) while there is work.
pub struct Engine<R> {
    scheduler: Scheduler,
    pool: BlockPool,
    runner: R,
}

/// What a prefill elsewhere needs to know of a parked sequence.
#[derive(Clone, Debug)]
pub struct Reservation {
    /// All known tokens.
    pub tokens: Vec<TokenId>,
    /// How many of them are prompt.
    pub prompt_len: usize,
    /// For choosing the first token.
    pub params: Arc<SamplingParams>,
    /// For finding cached blocks.
    pub salt: Salt,
    /// Index in the block table of the first block that is not here yet.
    pub first_block: usize,
    /// Where that block and those after it go.
    pub destination: Vec<BlockRef>,
}

/// Why pushed blocks were refused. The sender drops the handoff; nothing was written.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ImportError {
    /// The sequence is not waiting for blocks: it was aborted, or went on without them.
    #[error("sequence {0} is not waiting for blocks")]
    NotParked(SequenceId),
    /// Pieces arrive in order, without gaps.
    #[error("block {got} arrived where block {expected} was next")]
    OutOfOrder {
        /// Index of the first block of the piece.
        got: usize,
        /// Index of the next block that is missing.
        expected: usize,
    },
    /// A block of the piece is not the one that was reserved.
    #[error("block {0} is not reserved for this handoff")]
    StaleBlock(BlockId),
    /// The runner could not write.
    #[error("{0}")]
    Runner(String),
}

impl<R: ModelRunner> Engine<R> {
    /// An engine over the runner's KV memory.
    ///
    /// # Errors
    /// When the memory cannot hold one sequence of `max_model_len` tokens: such a request could never finish.
    pub fn new(config: SchedulerConfig, runner: R) -> Result<Self, PoolTooSmall> {
        let layout = runner.kv_layout();
        let pool = BlockPool::new(layout.num_blocks, layout.block_size);
        let needed = pool.blocks_for(config.max_model_len);
        if layout.num_blocks < needed {
            return Err(PoolTooSmall {
                blocks: layout.num_blocks,
                needed,
                max_model_len: config.max_model_len,
            });
        }
        Ok(Self { scheduler: Scheduler::new(config), pool, runner })
    }

    /// Plans a step, runs it, and takes in the results; says what happened.
    pub fn step(&mut self) -> Vec<EngineEvent> {
        if let Some(batch) = self.scheduler.plan(&self.pool) {
            match self.runner.execute(&batch) {
                Ok(sampled) => self.scheduler.commit(&batch, sampled, &self.pool),
                Err(error) => self.scheduler.fail(&batch, &error),
            }
        }
        self.scheduler.take_events()
    }

    /// What happened outside of steps, e.g. by [`abort`](Self::abort). The next step's events begin with it if not asked.
    pub fn take_events(&mut self) -> Vec<EngineEvent> {
        self.scheduler.take_events()
    }

    /// See [`Scheduler::submit`].
    ///
    /// # Errors
    /// [`AdmitError`] when it can never fit, or the queue is full.
    pub fn submit(&mut self, new: NewSequence) -> Result<(), AdmitError> {
        self.scheduler.submit(new)
    }

    /// See [`Scheduler::abort`].
    pub fn abort(&mut self, id: SequenceId, reason: FinishReason) {
        self.scheduler.abort(id, reason);
    }

    /// What a prefill elsewhere needs for this parked sequence; `None` if it is not parked.
    pub fn reservation(&self, id: SequenceId) -> Option<Reservation> {
        let sequence = self.scheduler.parked(id)?;
        let first_block = sequence.computed_len / self.pool.block_size();
        Some(Reservation {
            tokens: sequence.tokens.clone(),
            prompt_len: sequence.prompt_len,
            params: sequence.params.clone(),
            salt: sequence.salt(),
            first_block,
            destination: sequence.table.references_from(first_block),
        })
    }

    /// Writes blocks that a prefill elsewhere computed for a parked sequence. `bytes` holds `blocks.len()` whole blocks,
    /// the first of which is number `first_block` of the sequence. Full ones become readable for others at once.
    ///
    /// # Errors
    /// [`ImportError`]; nothing was written.
    pub fn import(
        &mut self,
        id: SequenceId,
        first_block: usize,
        blocks: &[BlockRef],
        bytes: &[u8],
    ) -> Result<(), ImportError> {
        let block_size = self.pool.block_size();
        let sequence = self.scheduler.parked_mut(id).ok_or(ImportError::NotParked(id))?;
        let expected = sequence.computed_len.div_ceil(block_size);
        if first_block != expected {
            return Err(ImportError::OutOfOrder { got: first_block, expected });
        }
        for (offset, block) in blocks.iter().enumerate() {
            if !sequence.table.is_writable(first_block + offset, *block) {
                return Err(ImportError::StaleBlock(block.block));
            }
        }
        let ids: Vec<BlockId> = blocks.iter().map(|block| block.block).collect();
        self.runner.write_blocks(&ids, bytes).map_err(|error| ImportError::Runner(error.to_string()))?;
        sequence.computed_len = ((first_block + blocks.len()) * block_size).min(sequence.tokens.len());
        sequence.register_computed(block_size);
        Ok(())
    }

    /// Whether a parked sequence lacks nothing but its next token.
    pub fn is_complete(&self, id: SequenceId) -> bool {
        self.scheduler.parked(id).is_some_and(|sequence| sequence.computed_len == sequence.tokens.len())
    }

    /// See [`Scheduler::resume`].
    pub fn resume(&mut self, id: SequenceId, token: OutputToken) {
        self.scheduler.resume(id, token);
    }

    /// See [`Scheduler::resume_locally`].
    pub fn resume_locally(&mut self, id: SequenceId) {
        self.scheduler.resume_locally(id);
    }

    /// See [`Scheduler::release`].
    pub fn release(&mut self, id: SequenceId) {
        self.scheduler.release(id);
    }

    /// Tokens of a sequence that holds blocks here whose KV is computed, and all it knows.
    pub fn computed_and_known_len(&self, id: SequenceId) -> Option<(usize, usize)> {
        let sequence = self.scheduler.holding(id)?;
        Some((sequence.computed_len, sequence.tokens.len()))
    }

    /// Copies out blocks `range` of a sequence that holds them.
    ///
    /// # Errors
    /// [`RunnerError`] if the device fails.
    ///
    /// # Panics
    /// If the sequence holds no such blocks: the caller asked before.
    pub fn export(&mut self, id: SequenceId, range: std::ops::Range<usize>) -> Result<Vec<u8>, RunnerError> {
        let sequence = self.scheduler.holding(id).expect("only sequences that hold blocks are exported");
        self.runner.read_blocks(&sequence.table.ids()[range])
    }

    /// The sequences' side.
    pub fn scheduler(&self) -> &Scheduler {
        &self.scheduler
    }

    /// The blocks' side.
    pub fn pool(&self) -> &BlockPool {
        &self.pool
    }

    /// The model's side.
    pub fn runner(&self) -> &R {
        &self.runner
    }

    /// The model's side, to inject failures into a simulated one.
    pub fn runner_mut(&mut self) -> &mut R {
        &mut self.runner
    }
}

/// The KV memory cannot hold one request of the greatest length: give it more blocks, or lower the length.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error(
    "{blocks} KV blocks cannot hold one sequence of {max_model_len} tokens ({needed} blocks); \
     raise --kv-blocks or lower --max-model-len"
)]
pub struct PoolTooSmall {
    /// Blocks there are.
    pub blocks: usize,
    /// Blocks that one sequence of the greatest length needs.
    pub needed: usize,
    /// The greatest length.
    pub max_model_len: usize,
}
