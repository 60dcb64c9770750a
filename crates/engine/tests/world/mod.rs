//! One simulated world: an engine, or a decode engine and a prefill engine with a lossy hand between them.

use baton_engine::{Engine, EngineEvent, Goal, NewSequence, Reservation, SchedulerConfig, SimRunner};
use baton_types::{FinishReason, OutputToken, Salt, SamplingParams, SequenceEvent, SequenceId, TokenId};
use rand::{Rng, SeedableRng, rngs::StdRng};
use std::collections::BTreeMap;
use std::sync::Arc;

const VOCAB: u32 = 5;
const END: TokenId = TokenId(4);
const BLOCK_SIZE: usize = 2;
const MAX_MODEL_LEN: usize = 16;

#[derive(Clone, Copy, Debug)]
pub(crate) struct WorldConfig {
    pub(crate) num_blocks: usize,
    pub(crate) failures: bool,
    pub(crate) handoff: bool,
    pub(crate) handoff_faults: bool,
}

impl Default for WorldConfig {
    fn default() -> Self {
        Self { num_blocks: 10, failures: false, handoff: false, handoff_faults: false }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Coverage {
    pub(crate) finished: u64,
    pub(crate) aborted: u64,
    pub(crate) failed: u64,
    pub(crate) refused: u64,
    pub(crate) preemptions: u64,
    pub(crate) prefix_hit_tokens: u64,
    pub(crate) handed_over: u64,
    pub(crate) taken_back: u64,
}

impl Coverage {
    pub(crate) fn add(&mut self, other: &Self) {
        self.finished += other.finished;
        self.aborted += other.aborted;
        self.failed += other.failed;
        self.refused += other.refused;
        self.preemptions += other.preemptions;
        self.prefix_hit_tokens += other.prefix_hit_tokens;
        self.handed_over += other.handed_over;
        self.taken_back += other.taken_back;
    }
}

/// What the test knows of a request, to judge the engine by.
struct Request {
    tokens: Vec<TokenId>,
    prompt_len: usize,
    params: Arc<SamplingParams>,
    admitted: bool,
    end: Option<FinishReason>,
}

/// A prompt being prefilled on the other engine for `decode`'s sequence.
struct Handoff {
    reservation: Reservation,
    pushed_blocks: usize,
    first_token: Option<OutputToken>,
}

pub(crate) struct World {
    pub(crate) trace: Vec<String>,
    pub(crate) coverage: Coverage,
    rng: StdRng,
    config: WorldConfig,
    decode: Engine<SimRunner>,
    prefill: Option<Engine<SimRunner>>,
    requests: BTreeMap<SequenceId, Request>,
    /// By the decode side's sequence; the prefill side uses the same number.
    handoffs: BTreeMap<SequenceId, Handoff>,
    next_id: u64,
}

impl World {
    pub(crate) fn new(seed: u64, config: WorldConfig) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let scheduler = SchedulerConfig {
            max_model_len: MAX_MODEL_LEN,
            step_token_budget: rng.random_range(1..12),
            sequences_max: rng.random_range(1..6),
            waiting_max: 4,
            end_tokens: vec![END],
            handoff_threshold: config.handoff.then(|| rng.random_range(0..6)),
            handoffs_max: rng.random_range(1..4),
        };
        let engine = |handoff_threshold| SchedulerConfig { handoff_threshold, ..scheduler.clone() };
        let runner = || SimRunner::new(config.num_blocks, BLOCK_SIZE, VOCAB);
        let decode = Engine::new(engine(scheduler.handoff_threshold), runner()).unwrap();
        let prefill = config.handoff.then(|| Engine::new(engine(None), runner()).unwrap());
        Self {
            trace: vec![format!("seed {seed}")],
            coverage: Coverage::default(),
            rng,
            config,
            decode,
            prefill,
            requests: BTreeMap::new(),
            handoffs: BTreeMap::new(),
            next_id: 0,
        }
    }

    /// Arrivals, aborts and steps at random, then steps until all have ended.
    pub(crate) fn run(&mut self) {
        for _ in 0..60 {
            if self.rng.random_bool(0.4) {
                self.arrive();
            }
            if self.rng.random_bool(0.08) {
                self.leave();
            }
            self.turn();
        }
        let mut turns = 0;
        while self.requests.values().any(|request| request.end.is_none()) {
            self.turn();
            turns += 1;
            assert!(turns < 5000, "{}: a sequence never ends", self.trace[0]);
        }
        let stats = self.decode.scheduler().stats();
        self.coverage.preemptions += stats.preemptions;
        self.coverage.prefix_hit_tokens += stats.prefix_hit_tokens;
        assert_eq!(self.decode.pool().counts().held, 0, "{}: blocks leaked", self.trace[0]);
        if let Some(prefill) = &self.prefill {
            assert_eq!(prefill.pool().counts().held, 0, "{}: prefill blocks leaked", self.trace[0]);
        }
    }

    fn arrive(&mut self) {
        self.next_id += 1;
        let id = SequenceId(self.next_id);
        let prompt_len = self.rng.random_range(1..MAX_MODEL_LEN + 2);
        let tokens: Vec<TokenId> = (0..prompt_len).map(|_| TokenId(self.rng.random_range(0..2))).collect();
        let params = Arc::new(SamplingParams {
            seed: self.rng.random_range(0..3),
            max_tokens: self.rng.random_range(1..10),
            min_tokens: self.rng.random_range(0..3),
            prompt_logprobs: self.rng.random_bool(0.1).then_some(0),
            ..SamplingParams::default()
        });
        let new = NewSequence {
            id,
            tokens: tokens.clone(),
            prompt_len,
            params: params.clone(),
            salt: Salt::new(&[]),
            goal: Goal::Generate,
        };
        match self.decode.submit(new) {
            Ok(()) => {
                self.requests.insert(id, Request { tokens, prompt_len, params, admitted: false, end: None });
            }
            Err(refusal) => {
                self.trace.push(format!("{id} refused: {refusal}"));
                self.coverage.refused += 1;
            }
        }
    }

    fn leave(&mut self) {
        // Any request, ended ones too: aborting those must do nothing.
        if let Some(id) = self.pick_request() {
            self.decode.abort(id, FinishReason::Cancelled);
            self.drop_handoff(id);
        }
    }

    fn pick_request(&mut self) -> Option<SequenceId> {
        let ids: Vec<_> = self.requests.keys().copied().collect();
        (!ids.is_empty()).then(|| ids[self.rng.random_range(0..ids.len())])
    }

    fn turn(&mut self) {
        if self.config.failures && self.rng.random_bool(0.03) {
            self.decode.runner_mut().fail_after(1);
        }
        let events = self.decode.step();
        for event in events {
            self.on_decode_event(event);
        }
        self.prefill_turn();
        self.decode.pool().check();
    }

    fn on_decode_event(&mut self, event: EngineEvent) {
        self.trace.push(format!("{event:?}"));
        match event {
            EngineEvent::Sequence(id, event) => self.on_sequence_event(id, event),
            EngineEvent::Reserved(id) => self.start_handoff(id),
            EngineEvent::Prefilled(id, _) => panic!("sequence {id} was not submitted as prefill-only"),
        }
    }

    fn on_sequence_event(&mut self, id: SequenceId, event: SequenceEvent) {
        let seed = self.trace[0].clone();
        let request = self.requests.get_mut(&id).expect("a submitted sequence");
        assert!(request.end.is_none(), "{seed}: sequence {id}: {event:?} after its end");
        match event {
            SequenceEvent::Admitted { cached_tokens } => {
                assert!(!request.admitted, "{seed}: sequence {id} was admitted twice");
                assert!(
                    cached_tokens < request.prompt_len,
                    "{seed}: sequence {id}: something is left to compute"
                );
                request.admitted = true;
            }
            SequenceEvent::PromptLogprobs(logprobs) => {
                assert_eq!(logprobs.len(), request.prompt_len - 1, "{seed}: sequence {id}");
                assert_eq!(request.tokens.len(), request.prompt_len, "{seed}: before any token");
            }
            SequenceEvent::Token(token) => {
                assert!(request.admitted, "{seed}: sequence {id} has a token before its blocks");
                let output_len = request.tokens.len() - request.prompt_len;
                let banned: &[TokenId] =
                    if output_len < request.params.min_tokens as usize { &[END] } else { &[] };
                let expected = SimRunner::expected(&request.tokens, &request.params, banned, VOCAB);
                assert_eq!(token.id, expected, "{seed}: sequence {id}, output token {output_len}");
                request.tokens.push(token.id);
            }
            SequenceEvent::Finished(finish) => {
                let output_len = request.tokens.len() - request.prompt_len;
                assert_eq!(finish.output_tokens, output_len, "{seed}: sequence {id}");
                assert_eq!(finish.prompt_tokens, request.prompt_len, "{seed}: sequence {id}");
                let last = *request.tokens.last().unwrap();
                match &finish.reason {
                    FinishReason::Stop(token) => {
                        assert_eq!((*token, last), (END, END), "{seed}: sequence {id}")
                    }
                    FinishReason::Length => assert!(
                        output_len == request.params.max_tokens as usize
                            || request.tokens.len() == MAX_MODEL_LEN,
                        "{seed}: sequence {id} ended early"
                    ),
                    FinishReason::Cancelled => self.coverage.aborted += 1,
                    FinishReason::Error(_) => self.coverage.failed += 1,
                    FinishReason::DeadlineExceeded => panic!("nothing has a deadline here"),
                }
                self.coverage.finished +=
                    u64::from(matches!(finish.reason, FinishReason::Stop(_) | FinishReason::Length));
                request.end = Some(finish.reason);
                self.drop_handoff(id);
            }
        }
    }

    fn start_handoff(&mut self, id: SequenceId) {
        let Some(reservation) = self.decode.reservation(id) else { return };
        let prefill = self.prefill.as_mut().expect("only a disaggregated world parks sequences");
        let new = NewSequence {
            id,
            tokens: reservation.tokens.clone(),
            prompt_len: reservation.prompt_len,
            params: reservation.params.clone(),
            salt: reservation.salt,
            goal: Goal::PrefillOnly,
        };
        if prefill.submit(new).is_err() {
            return self.take_back(id);
        }
        self.handoffs.insert(id, Handoff { reservation, pushed_blocks: 0, first_token: None });
    }

    /// One step of the prefill engine, and blocks pushed as far as a moody network lets them.
    fn prefill_turn(&mut self) {
        let Some(prefill) = &mut self.prefill else { return };
        let events = prefill.step();
        for event in events {
            self.trace.push(format!("prefill {event:?}"));
            match event {
                EngineEvent::Prefilled(id, token) => match self.handoffs.get_mut(&id) {
                    Some(handoff) => handoff.first_token = Some(token),
                    None => self.prefill_mut().release(id),
                },
                EngineEvent::Sequence(..) => {}
                EngineEvent::Reserved(id) => panic!("the prefill side parked sequence {id}"),
            }
        }
        for id in self.handoffs.keys().copied().collect::<Vec<_>>() {
            let fault = self.config.handoff_faults && self.rng.random_bool(0.05);
            if fault {
                self.take_back(id);
            } else if self.rng.random_bool(0.7) {
                self.push(id);
            }
        }
        self.prefill_mut().pool().check();
    }

    /// Pushes every block that is complete, and with the last one the first token.
    fn push(&mut self, id: SequenceId) {
        let Some(prefill) = &mut self.prefill else { return };
        let Some((computed, known)) = prefill.computed_and_known_len(id) else { return };
        let handoff = self.handoffs.get_mut(&id).expect("a handoff under way");
        let first = handoff.reservation.first_block + handoff.pushed_blocks;
        let ready =
            if handoff.first_token.is_some() { known.div_ceil(BLOCK_SIZE) } else { computed / BLOCK_SIZE };
        if ready > first {
            let bytes = prefill.export(id, first..ready).unwrap();
            let blocks = &handoff.reservation.destination[handoff.pushed_blocks..][..ready - first];
            self.decode.import(id, first, blocks, &bytes).unwrap();
            handoff.pushed_blocks += ready - first;
        }
        if let Some(token) = handoff.first_token.clone() {
            assert!(self.decode.is_complete(id));
            self.drop_handoff(id);
            self.decode.resume(id, token);
            self.coverage.handed_over += 1;
        }
    }

    fn take_back(&mut self, id: SequenceId) {
        self.drop_handoff(id);
        self.decode.resume_locally(id);
        self.coverage.taken_back += 1;
    }

    fn drop_handoff(&mut self, id: SequenceId) {
        if let (Some(_), Some(prefill)) = (self.handoffs.remove(&id), &mut self.prefill) {
            prefill.abort(id, FinishReason::Cancelled);
        }
    }

    fn prefill_mut(&mut self) -> &mut Engine<SimRunner> {
        self.prefill.as_mut().expect("a disaggregated world")
    }
}
