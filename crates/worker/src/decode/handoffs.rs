//! The decode side's handoffs: `Reserved -> Prefilling/Transferring -> Ready | Failed`.
//!
//! `Reserved` and all after it live in the engine as a parked sequence with its blocks; this is the book-keeping around
//! it. Every way out of the map either resumes the sequence with its first token, resumes it locally from the last block
//! that arrived, or finds it gone already.

use super::ToDecode;
use crate::config::HandoffConfig;
use crate::handoff::{FromPrefill, Piece, PrefillNews, PrefillRequest, ToPrefill};
use crate::prefill::PrefillHandle;
use baton_engine::Engine;
use baton_telemetry::HandoffMetrics;
use baton_types::{HandoffId, ModelRunner, OutputToken, SequenceId};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::SyncSender;
use std::time::Instant;
use tracing::{debug, warn};

/// Unique in the process, so that two decode workers of one prefill worker never use the same.
static NEXT_HANDOFF: AtomicU64 = AtomicU64::new(1);

/// How a handoff ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The sequence was resumed with a first token from elsewhere.
    Completed,
    /// Something broke; the sequence went on here.
    Failed,
    /// No sign of life for too long; the sequence went on here.
    Expired,
    /// The sequence ended first.
    Cancelled,
}

pub(crate) struct Handoffs {
    prefill: Option<PrefillHandle>,
    reply: SyncSender<ToDecode>,
    config: HandoffConfig,
    fingerprint: [u8; 16],
    under_way: HashMap<HandoffId, Handoff>,
    by_sequence: HashMap<SequenceId, HandoffId>,
    metrics: HandoffMetrics,
}

struct Handoff {
    sequence: SequenceId,
    began: Instant,
    last_news: Instant,
}

impl Handoffs {
    pub(super) fn new<R: ModelRunner>(
        prefill: Option<PrefillHandle>,
        reply: SyncSender<ToDecode>,
        config: HandoffConfig,
        engine: &Engine<R>,
    ) -> Self {
        Self {
            prefill,
            reply,
            config,
            fingerprint: engine.runner().kv_layout().fingerprint,
            under_way: HashMap::new(),
            by_sequence: HashMap::new(),
            metrics: HandoffMetrics::new(),
        }
    }

    /// Asks for the prefill of a sequence whose blocks were just reserved.
    pub(super) fn begin<R: ModelRunner>(
        &mut self,
        id: SequenceId,
        deadline: Instant,
        engine: &mut Engine<R>,
    ) {
        let Some(reservation) = engine.reservation(id) else { return };
        let handoff = HandoffId(NEXT_HANDOFF.fetch_add(1, Ordering::Relaxed));
        let now = Instant::now();
        self.under_way.insert(handoff, Handoff { sequence: id, began: now, last_news: now });
        self.by_sequence.insert(id, handoff);
        let sent = self.send(ToPrefill::Prefill(Box::new(PrefillRequest {
            handoff,
            tokens: reservation.tokens,
            prompt_len: reservation.prompt_len,
            params: reservation.params,
            salt: reservation.salt,
            fingerprint: self.fingerprint,
            first_block: reservation.first_block,
            destination: reservation.destination,
            deadline,
            reply: self.reply.clone(),
        })));
        if !sent {
            self.take_back(handoff, Outcome::Failed, "the prefill worker takes no requests", engine);
        }
    }

    pub(super) fn on_news<R: ModelRunner>(&mut self, from: FromPrefill, engine: &mut Engine<R>) {
        let id = from.handoff;
        let Some(handoff) = self.under_way.get_mut(&id) else {
            // Taken back or called off: its blocks may belong to somebody else by now. Said again, should it have been lost.
            self.send(ToPrefill::Cancel(id));
            return;
        };
        handoff.last_news = Instant::now();
        match from.news {
            PrefillNews::Alive => {}
            PrefillNews::Blocks(piece) => self.write(id, &piece, engine),
            PrefillNews::FirstToken(token) => self.resume(id, token, engine),
            PrefillNews::Failed(reason) => self.take_back(id, Outcome::Failed, &reason, engine),
        }
    }

    /// Takes handoffs back that have been silent for too long, or all of them when the other side is down.
    pub(super) fn take_back_stalled<R: ModelRunner>(&mut self, engine: &mut Engine<R>) {
        if self.under_way.is_empty() {
            return;
        }
        let down = self.prefill.as_ref().is_none_or(|prefill| prefill.health.is_down());
        let stall = self.config.stall;
        let stalled: Vec<_> = self
            .under_way
            .iter()
            .filter(|(_, h)| down || h.last_news.elapsed() > stall)
            .map(|(id, _)| *id)
            .collect();
        for id in stalled {
            let (outcome, reason) = if down {
                (Outcome::Failed, "the prefill worker is down")
            } else {
                (Outcome::Expired, "no sign of life from the prefill worker")
            };
            self.take_back(id, outcome, reason, engine);
        }
    }

    /// Forgets the handoff of a sequence that has ended, and calls the prefill off.
    pub(super) fn give_up(&mut self, sequence: SequenceId, outcome: Outcome) {
        if let Some(id) = self.by_sequence.get(&sequence).copied() {
            self.end(id, outcome);
        }
    }

    fn write<R: ModelRunner>(&mut self, id: HandoffId, piece: &Piece, engine: &mut Engine<R>) {
        let sequence = self.under_way[&id].sequence;
        if !piece.is_intact() {
            return self.take_back(id, Outcome::Failed, "a piece arrived damaged", engine);
        }
        match engine.import(sequence, piece.first_block, &piece.blocks, &piece.bytes) {
            Ok(()) => {
                self.metrics.bytes.increment(piece.bytes.len() as u64);
                if !self.send(ToPrefill::Acknowledge(id)) {
                    self.take_back(id, Outcome::Failed, "the prefill worker takes no messages", engine);
                }
            }
            Err(error) => self.take_back(id, Outcome::Failed, &error.to_string(), engine),
        }
    }

    fn resume<R: ModelRunner>(&mut self, id: HandoffId, token: OutputToken, engine: &mut Engine<R>) {
        let sequence = self.under_way[&id].sequence;
        if !engine.is_complete(sequence) {
            return self.take_back(id, Outcome::Failed, "the first token arrived before all blocks", engine);
        }
        self.end(id, Outcome::Completed);
        engine.resume(sequence, token);
    }

    /// Goes on here from the last block that arrived. Counted and logged: it costs a prefill.
    fn take_back<R: ModelRunner>(
        &mut self,
        id: HandoffId,
        outcome: Outcome,
        reason: &str,
        engine: &mut Engine<R>,
    ) {
        if let Some(sequence) = self.end(id, outcome) {
            warn!(handoff = %id, %sequence, reason, "a handoff failed; the prompt is prefilled by the decode worker");
            engine.resume_locally(sequence);
        }
    }

    fn end(&mut self, id: HandoffId, outcome: Outcome) -> Option<SequenceId> {
        let handoff = self.under_way.remove(&id)?;
        self.by_sequence.remove(&handoff.sequence);
        match outcome {
            Outcome::Completed => self.metrics.completed.increment(1),
            Outcome::Failed => self.metrics.failed.increment(1),
            Outcome::Expired => self.metrics.expired.increment(1),
            Outcome::Cancelled => self.metrics.cancelled.increment(1),
        }
        if outcome == Outcome::Completed {
            self.metrics.duration.record(handoff.began.elapsed().as_secs_f64());
        } else {
            self.send(ToPrefill::Cancel(id));
        }
        debug!(handoff = %id, sequence = %handoff.sequence, ?outcome, "a handoff ended");
        Some(handoff.sequence)
    }

    fn send(&self, message: ToPrefill) -> bool {
        self.prefill.as_ref().is_some_and(|prefill| prefill.inbox.try_send(message).is_ok())
    }
}
