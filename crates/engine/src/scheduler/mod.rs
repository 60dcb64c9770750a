//! Which sequences run, wait, or are parked, and the moves between these places.

mod commit;
mod plan;

use crate::sequence::{Goal, NewSequence, Sequence};
use baton_types::{AdmitError, FinishReason, OutputToken, SequenceEvent, SequenceId, TokenId};
use std::collections::{BTreeMap, VecDeque};

/// Limits and rules of one engine.
#[derive(Clone, Debug)]
pub struct SchedulerConfig {
    /// Most tokens of a sequence, prompt and output.
    pub max_model_len: usize,
    /// Most query tokens per step.
    pub step_token_budget: usize,
    /// Most sequences that hold blocks at once.
    pub sequences_max: usize,
    /// Most sequences that wait.
    pub waiting_max: usize,
    /// The model's end tokens.
    pub end_tokens: Vec<TokenId>,
    /// Sequences with more uncached tokens than this are parked for a handoff instead of being prefilled here.
    /// `None`: all are prefilled here.
    pub handoff_threshold: Option<usize>,
    /// Most sequences parked at once; further ones are prefilled here.
    pub handoffs_max: usize,
}

/// Something an engine tells its owner.
#[derive(Clone, Debug, PartialEq)]
pub enum EngineEvent {
    /// For whoever asked for the sequence.
    Sequence(SequenceId, SequenceEvent),
    /// Blocks for all its tokens are reserved here and its prompt is to be prefilled elsewhere.
    Reserved(SequenceId),
    /// A [`Goal::PrefillOnly`] sequence is computed, and this is its next token. Its blocks stay until released.
    Prefilled(SequenceId, OutputToken),
}

/// Counters since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SchedulerStats {
    /// Steps planned.
    pub steps: u64,
    /// Query tokens of prompts.
    pub prefill_tokens: u64,
    /// Query tokens that had been sampled.
    pub decode_tokens: u64,
    /// Sequences that lost their blocks to others.
    pub preemptions: u64,
    /// Tokens of admitted sequences.
    pub prefix_query_tokens: u64,
    /// Those of them found in the cache.
    pub prefix_hit_tokens: u64,
}

/// The sequences of one engine. Pure: the same calls in the same order give the same plans.
#[derive(Debug)]
pub struct Scheduler {
    config: SchedulerConfig,
    /// First come, first served; preempted sequences go back to the front.
    waiting: VecDeque<Sequence>,
    /// In order of admission: the last is preempted first.
    running: Vec<Sequence>,
    parked: BTreeMap<SequenceId, Sequence>,
    /// Indices into `running` of the planned batch's sequences, in its order.
    in_flight: Vec<usize>,
    events: Vec<EngineEvent>,
    stats: SchedulerStats,
}

impl Scheduler {
    /// A scheduler without sequences.
    pub fn new(config: SchedulerConfig) -> Self {
        assert!(
            config.step_token_budget > 0 && config.sequences_max > 0,
            "an engine must be able to run something"
        );
        Self {
            config,
            waiting: VecDeque::new(),
            running: Vec::new(),
            parked: BTreeMap::new(),
            in_flight: Vec::new(),
            events: Vec::new(),
            stats: SchedulerStats::default(),
        }
    }

    /// Limits and rules.
    pub fn config(&self) -> &SchedulerConfig {
        &self.config
    }

    /// Takes a sequence into the waiting queue.
    ///
    /// # Errors
    /// [`AdmitError`] when it can never fit, or the queue is full.
    pub fn submit(&mut self, new: NewSequence) -> Result<(), AdmitError> {
        // A sequence that generates needs room for at least one output token.
        let limit = self.config.max_model_len - usize::from(new.goal == Goal::Generate);
        if new.tokens.is_empty() {
            return Err(AdmitError::PromptEmpty);
        }
        if new.tokens.len() > limit {
            return Err(AdmitError::PromptTooLong { prompt_tokens: new.tokens.len(), limit });
        }
        let (waiting, limit) = (self.waiting.len(), self.config.waiting_max);
        if waiting >= limit {
            return Err(AdmitError::QueueFull { waiting, limit });
        }
        self.waiting.push_back(Sequence::new(new));
        Ok(())
    }

    /// Ends a sequence wherever it is, and gives its blocks back. Unknown and ended sequences are left alone.
    pub fn abort(&mut self, id: SequenceId, reason: FinishReason) {
        if let Some(sequence) = self.remove(id) {
            self.emit(id, SequenceEvent::Finished(sequence.finish(reason)));
        }
    }

    /// Drops a parked sequence without a word: its prefill has been handed over.
    pub fn release(&mut self, id: SequenceId) {
        self.parked.remove(&id);
    }

    /// Continues a parked sequence whose known tokens are all computed, with the token chosen elsewhere.
    ///
    /// # Panics
    /// If the sequence is not parked or not all computed: the caller checked both.
    pub fn resume(&mut self, id: SequenceId, token: OutputToken) {
        let mut sequence = self.parked.remove(&id).expect("only parked sequences are resumed");
        assert_eq!(
            sequence.computed_len,
            sequence.tokens.len(),
            "sequence {id} resumed before its blocks arrived"
        );
        if self.append(&mut sequence, token) {
            self.running.push(sequence);
        }
    }

    /// Continues a parked sequence here, from what has arrived so far. Unknown sequences are left alone.
    pub fn resume_locally(&mut self, id: SequenceId) {
        if let Some(mut sequence) = self.parked.remove(&id) {
            // With everything computed there is nothing to sample from: compute the last token again.
            sequence.computed_len = sequence.computed_len.min(sequence.tokens.len() - 1);
            self.running.push(sequence);
        }
    }

    /// Whether a call of [`plan`](Self::plan) may find something to do.
    pub fn has_work(&self) -> bool {
        !self.running.is_empty() || !self.waiting.is_empty()
    }

    /// Sequences waiting, running, parked.
    pub fn num_waiting_running_parked(&self) -> (usize, usize, usize) {
        (self.waiting.len(), self.running.len(), self.parked.len())
    }

    /// Counters since the start.
    pub fn stats(&self) -> SchedulerStats {
        self.stats
    }

    /// What happened since the last call, in order.
    pub fn take_events(&mut self) -> Vec<EngineEvent> {
        std::mem::take(&mut self.events)
    }

    pub(crate) fn parked(&self, id: SequenceId) -> Option<&Sequence> {
        self.parked.get(&id)
    }

    pub(crate) fn parked_mut(&mut self, id: SequenceId) -> Option<&mut Sequence> {
        self.parked.get_mut(&id)
    }

    /// A sequence that holds blocks.
    pub(crate) fn holding(&self, id: SequenceId) -> Option<&Sequence> {
        self.parked.get(&id).or_else(|| self.running.iter().find(|sequence| sequence.id == id))
    }

    fn remove(&mut self, id: SequenceId) -> Option<Sequence> {
        debug_assert!(self.in_flight.is_empty(), "sequences are removed between steps only");
        if let Some(index) = self.running.iter().position(|sequence| sequence.id == id) {
            return Some(self.running.remove(index));
        }
        if let Some(index) = self.waiting.iter().position(|sequence| sequence.id == id) {
            return self.waiting.remove(index);
        }
        self.parked.remove(&id)
    }

    fn emit(&mut self, id: SequenceId, event: SequenceEvent) {
        self.events.push(EngineEvent::Sequence(id, event));
    }
}
