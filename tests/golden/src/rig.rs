//! A model behind the workers that `baton serve` uses, without HTTP.

use baton_engine::{Engine, SchedulerConfig};
use baton_model::{CpuRunner, CpuRunnerOptions, Weights};
use baton_types::{
    BlockId, FinishReason, GenerateRequest, KvLayout, ModelRunner, OutputToken, RunnerError, Salt, Sampled,
    SamplingParams, SequenceEvent, StepBatch, TokenId,
};
use baton_worker::{DecodeWorker, PrefillWorker, WorkerConfig};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Longest wait for one event: far more than the slowest machine needs.
const PATIENCE: Duration = Duration::from_secs(300);

/// How a model is run.
#[derive(Clone, Copy, Debug)]
pub struct RigConfig {
    /// A prefill engine and a decode engine, or one for both.
    pub disaggregated: bool,
    /// Most tokens of a step, and so of a chunk.
    pub step_token_budget: usize,
    /// KV blocks of each engine.
    pub num_blocks: usize,
    /// Most tokens of a sequence.
    pub max_model_len: usize,
}

/// What the runners saw, counted from outside the engines.
#[derive(Debug, Default)]
pub struct Seen {
    /// Bytes of KV blocks written from elsewhere.
    pub imported_bytes: AtomicU64,
    /// Sequences that did not go on where they had stopped: preempted, and computed anew here or elsewhere.
    pub recomputed: AtomicU64,
}

/// Running workers.
pub struct Rig {
    decode: DecodeWorker,
    prefill: Option<PrefillWorker>,
    /// Of both runners.
    pub seen: Arc<Seen>,
}

/// What came of one prompt.
#[derive(Debug)]
pub struct Output {
    /// Tokens with what was asked for.
    pub tokens: Vec<OutputToken>,
    /// Prompt tokens found in the cache.
    pub cached_tokens: usize,
}

impl Output {
    /// Token ids only.
    pub fn ids(&self) -> Vec<u32> {
        self.tokens.iter().map(|token| token.id.0).collect()
    }
}

impl Rig {
    /// Starts the workers over these weights.
    pub fn start(weights: &Arc<Weights>, config: RigConfig) -> Self {
        let seen = Arc::new(Seen::default());
        let engine = |handoff_threshold| {
            let options = CpuRunnerOptions {
                block_size: 16,
                num_blocks: config.num_blocks,
                threads: 2,
                low_priority: false,
            };
            let runner = Watched {
                inner: CpuRunner::new(weights.clone(), options).expect("a runner"),
                seen: seen.clone(),
                next_context_len: Mutex::default(),
            };
            let scheduler = SchedulerConfig {
                max_model_len: config.max_model_len,
                step_token_budget: config.step_token_budget,
                sequences_max: 64,
                waiting_max: 64,
                end_tokens: Vec::new(),
                handoff_threshold,
                handoffs_max: 64,
            };
            Engine::new(scheduler, runner).expect("a pool for one sequence")
        };
        let worker = WorkerConfig::new(Salt::new(&[b"golden"]));
        let prefill =
            config.disaggregated.then(|| PrefillWorker::start(engine(None), &worker).expect("a thread"));
        let handle = prefill.as_ref().map(PrefillWorker::handle);
        let threshold = config.disaggregated.then_some(0);
        let decode = DecodeWorker::start(engine(threshold), worker, handle).expect("a thread");
        Self { decode, prefill, seen }
    }

    /// Runs prompts at once, each for its number of greedy tokens; five log-probabilities with each.
    pub fn run(&self, prompts: &[(Vec<TokenId>, usize)]) -> Vec<Output> {
        let started: Vec<_> =
            prompts.iter().map(|(prompt, max_tokens)| self.submit(prompt, *max_tokens)).collect();
        started.into_iter().map(|events| collect(&events)).collect()
    }

    fn submit(&self, prompt: &[TokenId], max_tokens: usize) -> Receiver<SequenceEvent> {
        let (sender, events) = sync_channel(max_tokens + 4);
        let request = GenerateRequest {
            request_id: "golden".into(),
            prompt: prompt.into(),
            sampling: SamplingParams {
                temperature: 0.0,
                max_tokens: max_tokens as u32,
                logprobs: Some(5),
                ..SamplingParams::default()
            },
            cache_salt: Arc::from(&[][..]),
            deadline: Instant::now() + PATIENCE,
        };
        let sink = Box::new(move |event| sender.try_send(event).is_ok());
        self.decode.submit(request, sink).expect("admitted");
        events
    }

    /// Stops the workers; every request must have ended.
    pub fn stop(self) {
        assert!(self.decode.stop(Instant::now() + PATIENCE), "requests were left over");
        if let Some(prefill) = self.prefill {
            prefill.stop();
        }
    }
}

fn collect(events: &Receiver<SequenceEvent>) -> Output {
    let mut tokens = Vec::new();
    loop {
        match events.recv_timeout(PATIENCE).expect("an event in time") {
            SequenceEvent::Admitted { .. } => {}
            SequenceEvent::Token(token) => tokens.push(token),
            SequenceEvent::Finished(finish) => {
                assert_eq!(finish.reason, FinishReason::Length);
                return Output { tokens, cached_tokens: finish.cached_tokens };
            }
            SequenceEvent::PromptLogprobs(_) => panic!("nobody asked"),
        }
    }
}

/// A runner that counts what the tests must know to have happened.
struct Watched {
    inner: CpuRunner,
    seen: Arc<Seen>,
    /// By sequence: where its next part begins, unless it loses its blocks.
    next_context_len: Mutex<HashMap<u64, usize>>,
}

impl ModelRunner for Watched {
    fn kv_layout(&self) -> &KvLayout {
        self.inner.kv_layout()
    }

    fn execute(&mut self, batch: &StepBatch) -> Result<Sampled, RunnerError> {
        let mut started = self.next_context_len.lock().expect("no panic here");
        for part in &batch.sequences {
            let next = started.insert(part.id.0, part.context_len + part.tokens.len());
            if next.is_some_and(|context_len| context_len != part.context_len) {
                self.seen.recomputed.fetch_add(1, Ordering::Relaxed);
            }
        }
        self.inner.execute(batch)
    }

    fn read_blocks(&mut self, blocks: &[BlockId]) -> Result<Vec<u8>, RunnerError> {
        self.inner.read_blocks(blocks)
    }

    fn write_blocks(&mut self, blocks: &[BlockId], bytes: &[u8]) -> Result<(), RunnerError> {
        self.seen.imported_bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        self.inner.write_blocks(blocks, bytes)
    }
}
