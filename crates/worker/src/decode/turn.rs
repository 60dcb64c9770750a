//! The decode thread's loop: inbox, deadlines, one step, events out.

use super::handoffs::{Handoffs, Outcome};
use super::{Shared, ToDecode};
use crate::gauges::EngineGauges;
use crate::inbox;
use crate::request::{LiveRequest, NewRequest};
use baton_engine::{Engine, EngineEvent};
use baton_types::{Finish, FinishReason, ModelRunner, SequenceEvent, SequenceId};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};
use tracing::debug;

/// Longest sleep of an idle thread: the precision of deadlines while nothing runs.
const IDLE_WAIT: Duration = Duration::from_millis(50);

pub(crate) struct DecodeLoop<R> {
    pub(super) engine: Engine<R>,
    pub(super) inbox: Receiver<ToDecode>,
    pub(super) live: HashMap<SequenceId, LiveRequest>,
    pub(super) handoffs: Handoffs,
    pub(super) gauges: EngineGauges,
    pub(super) shared: Arc<Shared>,
}

impl<R: ModelRunner> DecodeLoop<R> {
    pub(super) fn run(mut self) {
        let mut idle = true;
        while !self.shared.stop.load(Ordering::Acquire) {
            let Some(messages) = inbox::take(&self.inbox, idle.then_some(IDLE_WAIT)) else { break };
            messages.into_iter().for_each(|message| self.on_message(message));
            self.end_cancelled_and_expired();
            self.handoffs.take_back_stalled(&mut self.engine);
            let began = Instant::now();
            self.shared.health.step_begins();
            let events = self.engine.step();
            self.shared.health.step_ends();
            let stepped = self.gauges.publish(&self.engine, began.elapsed());
            idle = !stepped && events.is_empty();
            events.into_iter().for_each(|event| self.on_event(event));
        }
        self.end_all();
    }

    fn on_message(&mut self, message: ToDecode) {
        match message {
            ToDecode::Request(new) => self.begin(*new),
            ToDecode::News(news) => self.handoffs.on_news(news, &mut self.engine),
            ToDecode::Wake => self.shared.wake_pending.store(false, Ordering::Release),
        }
    }

    fn begin(&mut self, new: NewRequest) {
        let id = new.sequence.id;
        let prompt_tokens = new.sequence.prompt_len;
        self.live.insert(id, new.live);
        // The worker's own limits are stricter than the engine's, so this is a bug; its client must still hear of it.
        if let Err(error) = self.engine.submit(new.sequence) {
            let reason = FinishReason::Error(error.to_string());
            let finish = Finish { reason, prompt_tokens, cached_tokens: 0, output_tokens: 0 };
            self.pass_on(id, SequenceEvent::Finished(finish));
        }
    }

    fn end_cancelled_and_expired(&mut self) {
        let now = Instant::now();
        let ended: Vec<_> = self
            .live
            .iter()
            .filter_map(|(id, live)| match (live.cancel.is_cancelled(), live.deadline <= now) {
                (true, _) => Some((*id, FinishReason::Cancelled)),
                (false, true) => Some((*id, FinishReason::DeadlineExceeded)),
                (false, false) => None,
            })
            .collect();
        for (id, reason) in ended {
            self.engine.abort(id, reason);
            self.handoffs.give_up(id, Outcome::Cancelled);
        }
    }

    fn on_event(&mut self, event: EngineEvent) {
        match event {
            EngineEvent::Sequence(id, event) => self.pass_on(id, event),
            EngineEvent::Reserved(id) => {
                if let Some(live) = self.live.get(&id) {
                    self.handoffs.begin(id, live.deadline, &mut self.engine);
                }
            }
            EngineEvent::Prefilled(id, _) => unreachable!("sequence {id} was submitted to generate"),
        }
    }

    /// Passes an event to its client. The last event, and a client that is gone, end the request here.
    fn pass_on(&mut self, id: SequenceId, event: SequenceEvent) {
        let Some(live) = self.live.get_mut(&id) else { return };
        let is_last = matches!(event, SequenceEvent::Finished(_));
        let heard = (live.sink)(event);
        if !is_last && heard {
            return;
        }
        if !is_last {
            debug!(request = %live.request_id, sequence = %id, "the client is gone");
            self.engine.abort(id, FinishReason::Cancelled);
        }
        self.live.remove(&id);
        self.handoffs.give_up(id, Outcome::Cancelled);
        self.shared.request_ended();
    }

    /// The thread ends: tells everybody who still waits, those in the inbox too.
    fn end_all(mut self) {
        while let Ok(message) = self.inbox.try_recv() {
            if let ToDecode::Request(new) = message {
                self.begin(*new);
            }
        }
        for id in self.live.keys().copied().collect::<Vec<_>>() {
            self.engine.abort(id, FinishReason::Error("the server is shutting down".into()));
            self.handoffs.give_up(id, Outcome::Cancelled);
        }
        for event in self.engine.take_events() {
            self.on_event(event);
        }
        self.gauges.publish(&self.engine, Duration::ZERO);
    }
}
