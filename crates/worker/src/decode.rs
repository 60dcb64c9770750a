//! The decode side: takes requests, streams tokens, has long prompts prefilled elsewhere.

mod handoffs;
mod turn;

use crate::config::WorkerConfig;
use crate::gauges::EngineGauges;
use crate::handoff::FromPrefill;
use crate::health::WorkerHealth;
use crate::prefill::PrefillHandle;
use crate::request::{Cancel, EventSink, LiveRequest, NewRequest};
use baton_engine::{Engine, Goal, NewSequence};
use baton_types::{AdmitError, GenerateRequest, ModelRunner, SequenceId};
use handoffs::Handoffs;
use parking_lot::{Condvar, Mutex};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::Instant;
use turn::DecodeLoop;

/// What a decode worker's thread is told.
pub(crate) enum ToDecode {
    /// A client's sequence.
    Request(Box<NewRequest>),
    /// Something about a handoff.
    News(FromPrefill),
    /// Look at the flags.
    Wake,
}

/// A thread with an engine that serves requests. Stop it with [`stop`](Self::stop); dropped, it stops by itself.
pub struct DecodeWorker {
    inbox: SyncSender<ToDecode>,
    shared: Arc<Shared>,
    wake: Arc<dyn Fn() + Send + Sync>,
    next_sequence: AtomicU64,
    max_model_len: usize,
    config: WorkerConfig,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What the thread and its owner both see.
pub(crate) struct Shared {
    pub(crate) health: Arc<WorkerHealth>,
    pub(crate) stop: AtomicBool,
    /// A wake-up lies in the inbox.
    pub(crate) wake_pending: AtomicBool,
    draining: AtomicBool,
    /// Requests taken and not ended.
    live: Mutex<usize>,
    live_changed: Condvar,
}

impl Shared {
    pub(crate) fn request_ended(&self) {
        *self.live.lock() -= 1;
        self.live_changed.notify_all();
    }
}

impl DecodeWorker {
    /// Starts the thread. With `prefill`, sequences that the engine parks are prefilled there.
    ///
    /// # Errors
    /// When the system has no thread to give.
    pub fn start<R: ModelRunner + 'static>(
        engine: Engine<R>,
        config: WorkerConfig,
        prefill: Option<PrefillHandle>,
    ) -> std::io::Result<Self> {
        let limits = engine.scheduler().config();
        // Room for every request, and for all that may be on its way of every handoff: pieces, signs of life during the
        // longest step, the first token or a failure. So sending never has to wait.
        let news_max = config.handoff.pieces_in_flight_max + 8;
        let capacity = config.requests_max + limits.handoffs_max * news_max + 16;
        let max_model_len = limits.max_model_len;
        let (inbox, receiver) = sync_channel(capacity);
        let health = Arc::new(WorkerHealth::new(config.step_stall));
        let shared = Arc::new(Shared {
            health: health.clone(),
            stop: AtomicBool::new(false),
            wake_pending: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            live: Mutex::new(0),
            live_changed: Condvar::new(),
        });
        let role = if prefill.is_some() { "decode" } else { "aggregated" };
        let state = DecodeLoop {
            handoffs: Handoffs::new(prefill, inbox.clone(), config.handoff, &engine),
            engine,
            inbox: receiver,
            live: HashMap::new(),
            gauges: EngineGauges::new(role),
            shared: shared.clone(),
        };
        let thread = std::thread::Builder::new().name("baton-decode".into()).spawn(move || {
            crate::health::run_guarded("baton-decode", &health, move || state.run());
        })?;
        let (waker, woken) = (inbox.clone(), shared.clone());
        Ok(Self {
            // One in the inbox is enough, however many requests are called off during one step.
            wake: Arc::new(move || {
                let first = !woken.wake_pending.swap(true, Ordering::AcqRel);
                if first && waker.try_send(ToDecode::Wake).is_err() {
                    woken.wake_pending.store(false, Ordering::Release); // full: it is awake
                }
            }),
            inbox,
            shared,
            next_sequence: AtomicU64::new(0),
            max_model_len,
            config,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Takes a request; its events go to `sink`, of which exactly one is `Finished` unless the worker breaks. Never
    /// blocks.
    ///
    /// # Errors
    /// [`AdmitError`]: nothing was started, and `sink` was dropped.
    pub fn submit(&self, request: GenerateRequest, sink: EventSink) -> Result<Cancel, AdmitError> {
        self.check(&request)?;
        let cancel = Cancel::new(self.wake.clone());
        let sequence = NewSequence {
            id: SequenceId(self.next_sequence.fetch_add(1, Ordering::Relaxed) + 1),
            prompt_len: request.prompt.len(),
            tokens: request.prompt.to_vec(),
            params: Arc::new(request.sampling),
            salt: self.config.salt.for_tenant(&request.cache_salt),
            goal: Goal::Generate,
        };
        let live = LiveRequest {
            request_id: request.request_id,
            sink,
            cancel: cancel.clone(),
            deadline: request.deadline,
        };
        self.enter()?;
        self.inbox.try_send(ToDecode::Request(Box::new(NewRequest { sequence, live }))).map_err(
            |refused| {
                self.shared.request_ended();
                match refused {
                    TrySendError::Full(_) => {
                        AdmitError::QueueFull { waiting: self.live(), limit: self.config.requests_max }
                    }
                    TrySendError::Disconnected(_) => self.down_error(),
                }
            },
        )?;
        Ok(cancel)
    }

    /// Whether a request could be taken; `Err` says why not.
    pub fn ready(&self) -> Result<(), String> {
        self.shared.health.live()?;
        if self.shared.draining.load(Ordering::Acquire) { Err("shutting down".into()) } else { Ok(()) }
    }

    /// Whether it works.
    pub fn health(&self) -> Arc<WorkerHealth> {
        self.shared.health.clone()
    }

    /// Requests taken and not ended.
    pub fn live(&self) -> usize {
        *self.shared.live.lock()
    }

    /// Takes no new requests from now on.
    pub fn drain(&self) {
        self.shared.draining.store(true, Ordering::Release);
    }

    /// Waits until no request is left, or `deadline`. Blocks. True if none is left.
    pub fn wait_until_idle(&self, deadline: Instant) -> bool {
        let mut live = self.shared.live.lock();
        while *live > 0 && !self.shared.health.is_down() {
            if self.shared.live_changed.wait_until(&mut live, deadline).timed_out() {
                break;
            }
        }
        *live == 0
    }

    /// Drains, waits for running requests until `deadline`, ends the others with an error, and ends the thread. Blocks.
    /// True if all requests ended by themselves.
    pub fn stop(&self, deadline: Instant) -> bool {
        self.drain();
        let all_ended = self.wait_until_idle(deadline);
        self.tell_to_stop();
        if let Some(thread) = self.thread.lock().take() {
            let _ = thread.join(); // a panic was logged by the thread itself
        }
        all_ended
    }

    fn tell_to_stop(&self) {
        self.shared.stop.store(true, Ordering::Release);
        (self.wake)();
    }

    fn check(&self, request: &GenerateRequest) -> Result<(), AdmitError> {
        if self.shared.health.is_down() {
            return Err(self.down_error());
        }
        if self.shared.draining.load(Ordering::Acquire) {
            return Err(AdmitError::ShuttingDown);
        }
        let (prompt_tokens, limit) = (request.prompt.len(), self.max_model_len - 1);
        if prompt_tokens == 0 {
            return Err(AdmitError::PromptEmpty);
        }
        if prompt_tokens > limit {
            return Err(AdmitError::PromptTooLong { prompt_tokens, limit });
        }
        Ok(())
    }

    fn enter(&self) -> Result<(), AdmitError> {
        let mut live = self.shared.live.lock();
        if *live >= self.config.requests_max {
            return Err(AdmitError::QueueFull { waiting: *live, limit: self.config.requests_max });
        }
        *live += 1;
        Ok(())
    }

    fn down_error(&self) -> AdmitError {
        AdmitError::EngineDown(self.shared.health.live().err().unwrap_or_else(|| "it has stopped".into()))
    }
}

impl Drop for DecodeWorker {
    /// Does not wait: a step under way may take long, and a stuck one for ever.
    fn drop(&mut self) {
        self.drain();
        self.tell_to_stop();
    }
}
