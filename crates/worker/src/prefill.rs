//! The prefill side: an engine that computes prompts for others and pushes their blocks as they are done.

use crate::config::{HandoffConfig, WorkerConfig};
use crate::decode::ToDecode;
use crate::gauges::EngineGauges;
use crate::handoff::{FromPrefill, Piece, PrefillNews, PrefillRequest, ToPrefill};
use crate::health::WorkerHealth;
use crate::inbox;
use baton_engine::{Engine, EngineEvent, Goal, NewSequence};
use baton_types::{FinishReason, HandoffId, ModelRunner, OutputToken, SequenceEvent, SequenceId};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tracing::{debug, error, warn};

/// Most messages that wait for the prefill thread. More are a sign that it is stuck, and are refused: the decode side
/// then prefills by itself.
const INBOX_MAX: usize = 4096;

/// Longest sleep of an idle thread. Nothing depends on it: whatever must be done earlier wakes the thread.
const IDLE_WAIT: Duration = Duration::from_millis(100);

/// A thread with an engine that prefills. Stop it with [`stop`](Self::stop); dropped, it stops by itself.
pub struct PrefillWorker {
    handle: PrefillHandle,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// How a decode worker reaches a prefill worker.
#[derive(Clone)]
pub struct PrefillHandle {
    pub(crate) inbox: SyncSender<ToPrefill>,
    pub(crate) health: Arc<WorkerHealth>,
}

impl PrefillWorker {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system has no thread to give.
    pub fn start<R: ModelRunner + 'static>(
        engine: Engine<R>,
        config: &WorkerConfig,
    ) -> std::io::Result<Self> {
        let (inbox, receiver) = sync_channel(INBOX_MAX);
        let health = Arc::new(WorkerHealth::new(config.step_stall));
        let stop = Arc::new(AtomicBool::new(false));
        let state = PrefillLoop {
            fingerprint: engine.runner().kv_layout().fingerprint,
            bytes_per_block: engine.runner().kv_layout().bytes_per_block,
            block_size: engine.pool().block_size(),
            engine,
            inbox: receiver,
            handoffs: BTreeMap::new(),
            by_sequence: HashMap::new(),
            next_sequence: 0,
            gauges: EngineGauges::new("prefill"),
            config: config.handoff,
            health: health.clone(),
            stop: stop.clone(),
        };
        let (thread_health, name) = (health.clone(), "baton-prefill");
        let thread = std::thread::Builder::new().name(name.into()).spawn(move || {
            crate::health::run_guarded(name, &thread_health, move || state.run());
        })?;
        Ok(Self { handle: PrefillHandle { inbox, health }, stop, thread: Some(thread) })
    }

    /// For a decode worker.
    pub fn handle(&self) -> PrefillHandle {
        self.handle.clone()
    }

    /// Whether it works.
    pub fn health(&self) -> Arc<WorkerHealth> {
        self.handle.health.clone()
    }

    /// Ends the thread after the step under way. Handoffs not done fail on the decode side, which goes on by itself.
    pub fn stop(mut self) {
        self.tell_to_stop();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // a panic was logged by the thread itself
        }
    }

    fn tell_to_stop(&self) {
        self.stop.store(true, Ordering::Release);
        let _ = self.handle.inbox.try_send(ToPrefill::Wake); // full: it is awake
    }
}

impl Drop for PrefillWorker {
    /// Does not wait: a step under way may take long, and a stuck one for ever.
    fn drop(&mut self) {
        self.tell_to_stop();
    }
}

/// A handoff under way.
struct Handoff {
    sequence: SequenceId,
    request: PrefillRequest,
    pushed_blocks: usize,
    pieces_in_flight: usize,
    first_token: Option<OutputToken>,
    /// When the decode side last heard of it.
    last_news: Instant,
}

struct PrefillLoop<R> {
    engine: Engine<R>,
    inbox: Receiver<ToPrefill>,
    handoffs: BTreeMap<HandoffId, Handoff>,
    by_sequence: HashMap<SequenceId, HandoffId>,
    next_sequence: u64,
    fingerprint: [u8; 16],
    bytes_per_block: usize,
    block_size: usize,
    gauges: EngineGauges,
    config: HandoffConfig,
    health: Arc<WorkerHealth>,
    stop: Arc<AtomicBool>,
}

impl<R: ModelRunner> PrefillLoop<R> {
    fn run(mut self) {
        let mut idle = true;
        while !self.stop.load(Ordering::Acquire) {
            let patience = idle.then(|| IDLE_WAIT.min(self.config.stall / 4));
            let Some(messages) = inbox::take(&self.inbox, patience) else { return };
            messages.into_iter().for_each(|message| self.on_message(message));
            self.expire();
            let began = Instant::now();
            self.health.step_begins();
            let events = self.engine.step();
            self.health.step_ends();
            events.into_iter().for_each(|event| self.on_event(event));
            self.push_all();
            idle = !self.gauges.publish(&self.engine, began.elapsed());
        }
        for id in self.handoffs.keys().copied().collect::<Vec<_>>() {
            self.fail(id, "the prefill worker is shutting down");
        }
    }

    fn on_message(&mut self, message: ToPrefill) {
        match message {
            ToPrefill::Prefill(request) => self.begin(*request),
            ToPrefill::Acknowledge(id) => {
                if let Some(handoff) = self.handoffs.get_mut(&id) {
                    handoff.pieces_in_flight = handoff.pieces_in_flight.saturating_sub(1);
                }
            }
            ToPrefill::Cancel(id) => self.end(id),
            ToPrefill::Wake => {}
        }
    }

    fn begin(&mut self, request: PrefillRequest) {
        self.next_sequence += 1;
        let (id, sequence) = (request.handoff, SequenceId(self.next_sequence));
        let new = NewSequence {
            id: sequence,
            tokens: request.tokens.clone(),
            prompt_len: request.prompt_len,
            params: request.params.clone(),
            salt: request.salt,
            goal: Goal::PrefillOnly,
        };
        let refusal = if request.fingerprint == self.fingerprint {
            self.engine.submit(new).err().map(|error| error.to_string())
        } else {
            Some("the two engines lay out KV blocks differently".into())
        };
        let last_news = Instant::now();
        let handoff = Handoff {
            sequence,
            request,
            pushed_blocks: 0,
            pieces_in_flight: 0,
            first_token: None,
            last_news,
        };
        self.handoffs.insert(id, handoff);
        self.by_sequence.insert(sequence, id);
        if let Some(reason) = refusal {
            self.fail(id, &reason);
        }
    }

    fn on_event(&mut self, event: EngineEvent) {
        match event {
            EngineEvent::Prefilled(sequence, token) => {
                let id = self.by_sequence.get(&sequence).copied();
                if let Some(handoff) = id.and_then(|id| self.handoffs.get_mut(&id)) {
                    handoff.first_token = Some(token);
                } else {
                    self.engine.release(sequence);
                }
            }
            EngineEvent::Sequence(sequence, SequenceEvent::Finished(finish)) => {
                // Only a failed step ends a prefill on its own; one that was called off is not in the map any more.
                if let Some(id) = self.by_sequence.get(&sequence).copied() {
                    let reason = match finish.reason {
                        FinishReason::Error(reason) => reason,
                        other => format!("the prefill ended early: {other:?}"),
                    };
                    self.fail(id, &reason);
                }
            }
            EngineEvent::Sequence(..) | EngineEvent::Reserved(_) => {}
        }
    }

    /// Pushes what is done, and gives a sign of life for what is not.
    fn push_all(&mut self) {
        for id in self.handoffs.keys().copied().collect::<Vec<_>>() {
            while self.push_next(id) {}
            let silent =
                self.handoffs.get(&id).is_some_and(|h| h.last_news.elapsed() > self.config.stall / 4);
            if silent {
                self.tell(id, PrefillNews::Alive);
            }
        }
    }

    /// Pushes one piece, or the first token after the last piece. False: nothing more to push now.
    fn push_next(&mut self, id: HandoffId) -> bool {
        let Some(handoff) = self.handoffs.get(&id) else { return false };
        let Some((computed, known)) = self.engine.computed_and_known_len(handoff.sequence) else {
            return false;
        };
        let done = match handoff.first_token {
            Some(_) => known.div_ceil(self.block_size), // the partly filled last block too
            None => computed / self.block_size,
        };
        let first = handoff.request.first_block + handoff.pushed_blocks;
        let piece_blocks = (self.config.piece_bytes_max / self.bytes_per_block).max(1);
        let count = done.saturating_sub(first).min(piece_blocks);
        if count == 0 {
            return self.push_first_token(id);
        }
        if handoff.pieces_in_flight >= self.config.pieces_in_flight_max {
            return false;
        }
        let blocks = handoff.request.destination[handoff.pushed_blocks..][..count].to_vec();
        match self.engine.export(handoff.sequence, first..first + count) {
            Ok(bytes) => {
                let sent = self.tell(id, PrefillNews::Blocks(Piece::new(first, blocks, bytes)));
                if let (true, Some(handoff)) = (sent, self.handoffs.get_mut(&id)) {
                    handoff.pushed_blocks += count;
                    handoff.pieces_in_flight += 1;
                }
                sent
            }
            Err(error) => {
                self.fail(id, &error.to_string());
                false
            }
        }
    }

    /// All blocks are sent: sends the token, and is done.
    fn push_first_token(&mut self, id: HandoffId) -> bool {
        let token = self.handoffs.get(&id).and_then(|handoff| handoff.first_token.clone());
        if let Some(token) = token
            && self.tell(id, PrefillNews::FirstToken(token))
        {
            self.end(id);
        }
        false
    }

    fn expire(&mut self) {
        let now = Instant::now();
        let expired: Vec<_> =
            self.handoffs.iter().filter(|(_, h)| h.request.deadline <= now).map(|(id, _)| *id).collect();
        for id in expired {
            self.fail(id, "the request's deadline passed");
        }
    }

    /// Sends news. False when it was not sent: try again on a later turn, if the handoff is still there.
    fn tell(&mut self, id: HandoffId, news: PrefillNews) -> bool {
        let Some(handoff) = self.handoffs.get_mut(&id) else { return false };
        match handoff.request.reply.try_send(ToDecode::News(FromPrefill { handoff: id, news })) {
            Ok(()) => {
                handoff.last_news = Instant::now();
                true
            }
            Err(TrySendError::Full(_)) => {
                warn!(handoff = %id, "the decode worker's inbox is full, which was sized for all that can come");
                false
            }
            Err(TrySendError::Disconnected(_)) => {
                debug!(handoff = %id, "the decode worker is gone");
                self.end(id);
                false
            }
        }
    }

    fn fail(&mut self, id: HandoffId, reason: &str) {
        debug!(handoff = %id, reason, "a prefill failed");
        self.tell(id, PrefillNews::Failed(reason.into()));
        self.end(id);
    }

    /// Forgets a handoff and gives its blocks back.
    fn end(&mut self, id: HandoffId) {
        if let Some(handoff) = self.handoffs.remove(&id) {
            self.by_sequence.remove(&handoff.sequence);
            self.engine.abort(handoff.sequence, FinishReason::Cancelled);
        }
    }
}

impl<R> Drop for PrefillLoop<R> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            error!("the prefill worker broke; decode workers prefill by themselves");
        }
    }
}
