//! A request on its way into a worker, and the way to call it off.

use baton_engine::NewSequence;
use baton_types::SequenceEvent;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Where a sequence's events go. Called on the worker's thread: it must not block. `false` means that nobody listens any
/// more, and ends the sequence.
pub type EventSink = Box<dyn FnMut(SequenceEvent) -> bool + Send>;

/// Calls one sequence off. Dropping it does nothing: whoever made the request decides.
#[derive(Clone)]
pub struct Cancel {
    flag: Arc<AtomicBool>,
    wake: Arc<dyn Fn() + Send + Sync>,
}

impl Cancel {
    pub(crate) fn new(wake: Arc<dyn Fn() + Send + Sync>) -> Self {
        Self { flag: Arc::default(), wake }
    }

    /// Ends the sequence before the worker's next step. Never blocks, never fails, and may come too late.
    pub fn cancel(&self) {
        self.flag.store(true, Ordering::Release);
        (self.wake)();
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.flag.load(Ordering::Acquire)
    }
}

/// A request as it lies in a worker's inbox.
pub(crate) struct NewRequest {
    pub(crate) sequence: NewSequence,
    pub(crate) live: LiveRequest,
}

/// What a worker keeps of a request until it ends.
pub(crate) struct LiveRequest {
    pub(crate) request_id: Arc<str>,
    pub(crate) sink: EventSink,
    pub(crate) cancel: Cancel,
    pub(crate) deadline: Instant,
}
