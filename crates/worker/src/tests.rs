//! Both workers over simulated models: the handoff and every way in which it can fail.

use crate::decode::ToDecode;
use crate::handoff::{FromPrefill, Piece, PrefillNews, PrefillRequest, ToPrefill};
use crate::health::WorkerHealth;
use crate::{Cancel, DecodeWorker, HandoffConfig, PrefillHandle, PrefillWorker, WorkerConfig};
use baton_engine::{Engine, SchedulerConfig, SimRunner};
use baton_types::{
    AdmitError, BlockId, Finish, FinishReason, GenerateRequest, KvLayout, ModelRunner, OutputToken,
    RunnerError, Salt, Sampled, SamplingParams, SequenceEvent, StepBatch, TokenId,
};
use rand::{Rng, SeedableRng, rngs::StdRng};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

const VOCAB: u32 = 50;
const BLOCK_SIZE: usize = 2;
/// Longest that any wait of a test may take before it counts as a hang.
const PATIENCE: Duration = Duration::from_secs(20);

fn config() -> WorkerConfig {
    let handoff =
        HandoffConfig { stall: Duration::from_millis(300), piece_bytes_max: 24, pieces_in_flight_max: 2 };
    WorkerConfig { requests_max: 64, handoff, ..WorkerConfig::new(Salt::new(&[])) }
}

fn engine<R: ModelRunner>(runner: R, handoff_threshold: Option<usize>) -> Engine<R> {
    let config = SchedulerConfig {
        max_model_len: 64,
        step_token_budget: 5,
        sequences_max: 16,
        waiting_max: 64,
        end_tokens: vec![],
        handoff_threshold,
        handoffs_max: 8,
    };
    Engine::new(config, runner).unwrap()
}

fn sim(num_blocks: usize) -> SimRunner {
    SimRunner::new(num_blocks, BLOCK_SIZE, VOCAB)
}

/// A request under way, and what came of it.
struct Stream {
    prompt: Vec<TokenId>,
    params: SamplingParams,
    events: Receiver<SequenceEvent>,
    cancel: Cancel,
}

impl Stream {
    fn start(
        worker: &DecodeWorker,
        prompt: Vec<TokenId>,
        params: SamplingParams,
    ) -> Result<Self, AdmitError> {
        let (sender, events) = sync_channel(128);
        let request = GenerateRequest {
            request_id: "test".into(),
            prompt: prompt.clone().into(),
            sampling: params.clone(),
            cache_salt: Arc::from(&[][..]),
            deadline: Instant::now() + PATIENCE,
        };
        let cancel = worker.submit(request, Box::new(move |event| sender.try_send(event).is_ok()))?;
        Ok(Self { prompt, params, events, cancel })
    }

    /// Waits for the end; asserts that every token is the one that its prompt and seed determine.
    fn finish(self) -> Finish {
        let mut tokens = self.prompt;
        loop {
            match self.events.recv_timeout(PATIENCE).expect("an event before the test's patience ends") {
                SequenceEvent::Token(token) => {
                    assert_eq!(token.id, SimRunner::expected(&tokens, &self.params, &[], VOCAB));
                    tokens.push(token.id);
                }
                SequenceEvent::Finished(finish) => return finish,
                SequenceEvent::Admitted { .. } => {}
                SequenceEvent::PromptLogprobs(_) => panic!("nobody asked"),
            }
        }
    }
}

fn prompt(len: usize, salt: u32) -> Vec<TokenId> {
    (0..len as u32).map(|i| TokenId((i * 7 + salt) % VOCAB)).collect()
}

fn params(max_tokens: u32) -> SamplingParams {
    SamplingParams { max_tokens, seed: 9, ..SamplingParams::default() }
}

fn run(worker: &DecodeWorker, prompt_len: usize, max_tokens: u32) -> Finish {
    Stream::start(worker, prompt(prompt_len, 0), params(max_tokens)).unwrap().finish()
}

/// Ends the worker and asserts that it gave everything back.
fn stop(worker: &DecodeWorker) {
    assert!(worker.stop(Instant::now() + PATIENCE));
    assert_eq!(worker.live(), 0);
}

fn length(prompt_tokens: usize, output_tokens: usize) -> Finish {
    Finish { reason: FinishReason::Length, prompt_tokens, cached_tokens: 0, output_tokens }
}

#[test]
fn one_worker_does_both_phases() {
    let worker = DecodeWorker::start(engine(sim(64), None), config(), None).unwrap();
    assert_eq!(run(&worker, 13, 8), length(13, 8));
    assert_eq!(run(&worker, 13, 8), Finish { cached_tokens: 12, ..length(13, 8) });
    stop(&worker);
}

#[test]
fn a_long_prompt_is_prefilled_elsewhere_and_a_short_one_here() {
    let prefill = PrefillWorker::start(engine(sim(64), None), &config()).unwrap();
    let worker = DecodeWorker::start(engine(sim(64), Some(6)), config(), Some(prefill.handle())).unwrap();
    assert_eq!(run(&worker, 31, 8), length(31, 8));
    // The blocks that were handed over are in the decode worker's cache: what is left is short.
    assert_eq!(run(&worker, 31, 8), Finish { cached_tokens: 30, ..length(31, 8) });
    stop(&worker);
    assert!(worker.ready().is_err() && prefill.health().live().is_ok());
}

#[test]
fn many_streams_at_once_in_small_pools() {
    let prefill = PrefillWorker::start(engine(sim(40), None), &config()).unwrap();
    let worker = DecodeWorker::start(engine(sim(40), Some(4)), config(), Some(prefill.handle())).unwrap();
    let mut rng = StdRng::seed_from_u64(3);
    let streams: Vec<_> = (0..40)
        .map(|i| {
            let prompt = prompt(rng.random_range(1..50), i % 3);
            Stream::start(&worker, prompt, params(rng.random_range(1..14))).unwrap()
        })
        .collect();
    for (i, stream) in streams.into_iter().enumerate() {
        if i % 3 == 0 {
            stream.cancel.cancel();
        } else if i % 7 != 0 {
            assert_eq!(stream.finish().reason, FinishReason::Length);
        } // else dropped: its sink says that nobody listens
    }
    stop(&worker);
}

#[test]
fn a_prefill_worker_that_is_gone_costs_nothing_but_time() {
    let prefill = PrefillWorker::start(engine(sim(64), None), &config()).unwrap();
    let handle = prefill.handle();
    prefill.stop();
    let worker = DecodeWorker::start(engine(sim(64), Some(6)), config(), Some(handle)).unwrap();
    assert_eq!(run(&worker, 31, 8), length(31, 8));
    stop(&worker);
}

/// Panics in its n-th step.
struct Breaks(SimRunner, u32);

impl ModelRunner for Breaks {
    fn kv_layout(&self) -> &KvLayout {
        self.0.kv_layout()
    }
    fn execute(&mut self, batch: &StepBatch) -> Result<Sampled, RunnerError> {
        self.1 -= 1;
        assert!(self.1 > 0, "planted");
        self.0.execute(batch)
    }
    fn read_blocks(&mut self, blocks: &[BlockId]) -> Result<Vec<u8>, RunnerError> {
        self.0.read_blocks(blocks)
    }
    fn write_blocks(&mut self, blocks: &[BlockId], bytes: &[u8]) -> Result<(), RunnerError> {
        self.0.write_blocks(blocks, bytes)
    }
}

#[test]
fn a_prefill_worker_that_breaks_half_way_is_replaced_by_the_decode_worker() {
    let prefill = PrefillWorker::start(engine(Breaks(sim(64), 4), None), &config()).unwrap();
    let health = prefill.health();
    let worker = DecodeWorker::start(engine(sim(64), Some(6)), config(), Some(prefill.handle())).unwrap();
    assert_eq!(run(&worker, 31, 8), length(31, 8));
    assert_eq!(health.live(), Err("baton-prefill broke: planted".into()));
    stop(&worker);
}

#[test]
fn a_decode_worker_that_breaks_says_so_and_closes_its_streams() {
    let worker = DecodeWorker::start(engine(Breaks(sim(64), 3), None), config(), None).unwrap();
    let stream = Stream::start(&worker, prompt(13, 0), params(8)).unwrap();
    while stream.events.recv_timeout(PATIENCE).is_ok() {} // ends when the sink is dropped, without Finished
    let give_up = Instant::now() + PATIENCE;
    while worker.ready().is_ok() && Instant::now() < give_up {
        std::thread::yield_now();
    }
    assert_eq!(worker.ready(), Err("baton-decode broke: planted".into()));
    let refused = Stream::start(&worker, prompt(13, 0), params(8)).err();
    assert_eq!(refused, Some(AdmitError::EngineDown("baton-decode broke: planted".into())));
}

/// Takes a step only when the test lets it: the first says that it has begun, and waits for a word.
struct Gated {
    inner: SimRunner,
    begun: SyncSender<()>,
    go_on: Receiver<()>,
}

impl ModelRunner for Gated {
    fn kv_layout(&self) -> &KvLayout {
        self.inner.kv_layout()
    }
    fn execute(&mut self, batch: &StepBatch) -> Result<Sampled, RunnerError> {
        let _ = self.begun.try_send(());
        let _ = self.go_on.recv_timeout(PATIENCE); // an error once the test has let go: every step goes on then
        self.inner.execute(batch)
    }
    fn read_blocks(&mut self, blocks: &[BlockId]) -> Result<Vec<u8>, RunnerError> {
        self.inner.read_blocks(blocks)
    }
    fn write_blocks(&mut self, blocks: &[BlockId], bytes: &[u8]) -> Result<(), RunnerError> {
        self.inner.write_blocks(blocks, bytes)
    }
}

#[test]
fn cancels_during_a_long_step_leave_room_for_requests() {
    let (begun, has_begun) = sync_channel(1);
    let (go_on, wait) = sync_channel(1);
    let runner = Gated { inner: sim(64), begun, go_on: wait };
    let worker = DecodeWorker::start(engine(runner, None), config(), None).unwrap();
    let stream = Stream::start(&worker, prompt(13, 0), params(8)).unwrap();
    has_begun.recv_timeout(PATIENCE).unwrap();
    for _ in 0..10_000 {
        stream.cancel.cancel();
    }
    let next = Stream::start(&worker, prompt(9, 1), params(3)).unwrap();
    drop(go_on);
    assert_eq!(stream.finish().reason, FinishReason::Cancelled);
    assert_eq!(next.finish(), length(9, 3));
    stop(&worker);
}

/// A prefill side played by the test.
struct FakePrefill {
    inbox: Receiver<ToPrefill>,
    worker: DecodeWorker,
}

impl FakePrefill {
    fn start() -> Self {
        let (sender, inbox) = sync_channel(64);
        let handle = PrefillHandle { inbox: sender, health: Arc::new(WorkerHealth::new(PATIENCE)) };
        Self { inbox, worker: DecodeWorker::start(engine(sim(64), Some(6)), config(), Some(handle)).unwrap() }
    }

    fn request(&self) -> Box<PrefillRequest> {
        match self.inbox.recv_timeout(PATIENCE) {
            Ok(ToPrefill::Prefill(request)) => request,
            _ => panic!("a prefill request was due"),
        }
    }

    fn cancelled(&self, request: &PrefillRequest) {
        let give_up = Instant::now() + PATIENCE;
        while let Ok(message) = self.inbox.recv_timeout(give_up - Instant::now()) {
            if matches!(message, ToPrefill::Cancel(id) if id == request.handoff) {
                return;
            }
        }
        panic!("the prefill was not called off");
    }
}

fn tell(request: &PrefillRequest, news: PrefillNews) {
    let news = FromPrefill { handoff: request.handoff, news };
    request.reply.try_send(ToDecode::News(news)).unwrap_or_else(|_| panic!("the decode worker listens"));
}

/// The first blocks of a request, as an honest prefill would push them.
fn blocks(request: &PrefillRequest, count: usize) -> Piece {
    let words = request.tokens[..count * BLOCK_SIZE].iter().flat_map(|token| (token.0 + 1).to_le_bytes());
    Piece::new(0, request.destination[..count].to_vec(), words.collect())
}

/// Plays a prefill side that misbehaves in some way; the request must be served all the same.
fn misbehave(behaviour: impl FnOnce(&FakePrefill, &PrefillRequest)) {
    let fake = FakePrefill::start();
    let stream = Stream::start(&fake.worker, prompt(31, 0), params(8)).unwrap();
    let request = fake.request();
    behaviour(&fake, &request);
    fake.cancelled(&request);
    assert_eq!(stream.finish(), length(31, 8));
    // Whatever still comes is of a handoff that is over.
    tell(&request, PrefillNews::Blocks(blocks(&request, 2)));
    tell(&request, PrefillNews::FirstToken(OutputToken { id: TokenId(0), logprobs: None }));
    assert_eq!(run(&fake.worker, 5, 3), length(5, 3).with_cached(4));
    stop(&fake.worker);
}

trait WithCached {
    fn with_cached(self, cached_tokens: usize) -> Self;
}

impl WithCached for Finish {
    fn with_cached(self, cached_tokens: usize) -> Self {
        Self { cached_tokens, ..self }
    }
}

#[test]
fn silence_ends_a_handoff() {
    misbehave(|_, _| {});
}

#[test]
fn silence_after_some_blocks_ends_a_handoff() {
    misbehave(|fake, request| {
        tell(request, PrefillNews::Blocks(blocks(request, 3)));
        assert!(matches!(fake.inbox.recv_timeout(PATIENCE), Ok(ToPrefill::Acknowledge(_))));
    });
}

#[test]
fn a_refusal_ends_a_handoff() {
    misbehave(|_, request| tell(request, PrefillNews::Failed("planted".into())));
}

#[test]
fn a_damaged_piece_ends_a_handoff() {
    misbehave(|_, request| {
        let mut piece = blocks(request, 3);
        piece.bytes[5] ^= 1;
        tell(request, PrefillNews::Blocks(piece));
    });
}

#[test]
fn a_piece_of_the_wrong_length_ends_a_handoff() {
    misbehave(|_, request| {
        let piece = blocks(request, 3);
        tell(request, PrefillNews::Blocks(Piece::new(0, piece.blocks[..2].to_vec(), piece.bytes)));
    });
}

#[test]
fn a_gap_ends_a_handoff() {
    misbehave(|_, request| {
        let piece = Piece { first_block: 1, ..blocks(request, 3) };
        tell(request, PrefillNews::Blocks(piece));
    });
}

#[test]
fn a_block_that_is_not_reserved_ends_a_handoff() {
    misbehave(|_, request| {
        let mut piece = blocks(request, 3);
        piece.blocks[1].generation.0 += 1;
        tell(request, PrefillNews::Blocks(piece));
    });
}

#[test]
fn a_token_without_blocks_ends_a_handoff() {
    misbehave(|_, request| {
        tell(request, PrefillNews::FirstToken(OutputToken { id: TokenId(0), logprobs: None }));
    });
}

#[test]
fn signs_of_life_keep_a_handoff_and_a_cancel_ends_it_at_once() {
    let fake = FakePrefill::start();
    let stream = Stream::start(&fake.worker, prompt(31, 0), params(8)).unwrap();
    let request = fake.request();
    let long = Instant::now() + config().handoff.stall * 3;
    while Instant::now() < long {
        tell(&request, PrefillNews::Alive);
        // The pause is the behaviour under test; a message in it would be the failure.
        assert!(fake.inbox.recv_timeout(Duration::from_millis(30)).is_err(), "nothing was called off");
    }
    stream.cancel.cancel();
    fake.cancelled(&request);
    assert_eq!(stream.finish().reason, FinishReason::Cancelled);
    stop(&fake.worker);
}

#[test]
fn limits_are_told_apart() {
    let config = WorkerConfig { requests_max: 2, ..config() };
    let worker = DecodeWorker::start(engine(sim(64), None), config, None).unwrap();
    let submit = |len, max_tokens| Stream::start(&worker, prompt(len, 0), params(max_tokens));
    assert_eq!(submit(0, 1).err(), Some(AdmitError::PromptEmpty));
    assert_eq!(submit(64, 1).err(), Some(AdmitError::PromptTooLong { prompt_tokens: 64, limit: 63 }));
    assert_eq!(submit(63, 5).unwrap().finish(), length(63, 1));
    worker.drain();
    assert_eq!(submit(5, 1).err(), Some(AdmitError::ShuttingDown));
    stop(&worker);
}

#[test]
fn a_full_worker_refuses_and_then_recovers() {
    let fake_config = WorkerConfig { requests_max: 2, ..config() };
    let (sender, inbox) = sync_channel(64);
    let handle = PrefillHandle { inbox: sender, health: Arc::new(WorkerHealth::new(PATIENCE)) };
    let worker = DecodeWorker::start(engine(sim(64), Some(6)), fake_config, Some(handle)).unwrap();
    let held: Vec<_> = (0..2).map(|i| Stream::start(&worker, prompt(31, i), params(4)).unwrap()).collect();
    let refused = Stream::start(&worker, prompt(5, 0), params(1)).err();
    assert_eq!(refused, Some(AdmitError::QueueFull { waiting: 2, limit: 2 }));
    drop(inbox); // the handoffs fail, the decode worker goes on
    for stream in held {
        assert_eq!(stream.finish(), length(31, 4));
    }
    assert_eq!(run(&worker, 5, 3).output_tokens, 3);
    stop(&worker);
}

#[test]
fn stopping_ends_what_does_not_end_by_itself() {
    let fake = FakePrefill::start();
    let stream = Stream::start(&fake.worker, prompt(31, 0), params(8)).unwrap();
    let _request = fake.request();
    assert!(!fake.worker.stop(Instant::now()), "one request was cut off");
    assert_eq!(stream.finish().reason, FinishReason::Error("the server is shutting down".into()));
    assert_eq!(fake.worker.live(), 0);
}
