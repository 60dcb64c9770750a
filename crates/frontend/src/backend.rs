//! What the frontend asks of the engines: take a request without blocking, send back a stream of events, say how you are.
//!
//! The engines live on threads of their own, so the sending side is synchronous, and a stream is sized so that sending
//! never has to wait. The way back is a `Drop`: whoever lets go of a [`TokenStream`] cancels its sequence.

use baton_types::{AdmitError, GenerateRequest, SequenceEvent};
use std::task::{Context, Poll};
use thiserror::Error;
use tokio::sync::mpsc;

/// The engines, as the frontend sees them.
pub trait Backend: Send + Sync + 'static {
    /// Takes one sequence, or says at once why not. Never blocks.
    ///
    /// # Errors
    /// [`AdmitError`]: nothing was started.
    fn generate(&self, request: GenerateRequest) -> Result<TokenStream, AdmitError>;

    /// How the engines are. Never blocks; called for each probe.
    fn health(&self) -> Health;
}

/// How the engines are. The text of an `Err` says why not, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// New requests would be served.
    pub ready: Result<(), String>,
    /// The process works; if not, it should be started anew.
    pub live: Result<(), String>,
}

impl Health {
    /// Ready and live.
    pub fn good() -> Self {
        Self { ready: Ok(()), live: Ok(()) }
    }
}

/// The events of one sequence, in order. Dropping it, at whatever time, runs its cancel guard once.
pub struct TokenStream {
    events: mpsc::Receiver<SequenceEvent>,
    _cancel: CancelGuard,
}

/// The sending side of a [`TokenStream`], for an engine's thread.
#[derive(Clone, Debug)]
pub struct TokenSink {
    events: mpsc::Sender<SequenceEvent>,
}

/// Nobody will read any more: stop working on this sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the receiver of this token stream is gone")]
pub struct Gone;

impl TokenStream {
    /// A stream that holds at most `capacity` unread events. The caller makes it large enough for all of them
    /// (`max_tokens + 4`: prompt log-probabilities and the end besides the tokens); memory is taken as events arrive.
    ///
    /// `on_drop` runs when the stream is dropped, finished or not. It must not block.
    ///
    /// # Panics
    /// If `capacity` is 0.
    pub fn channel(capacity: usize, on_drop: impl FnOnce() + Send + 'static) -> (TokenSink, TokenStream) {
        let (sender, receiver) = mpsc::channel(capacity);
        let guard = CancelGuard(Some(Box::new(on_drop)));
        (TokenSink { events: sender }, TokenStream { events: receiver, _cancel: guard })
    }

    /// Waits for the next event. `None`: the engine let go of the sink without a `Finished`.
    pub async fn recv(&mut self) -> Option<SequenceEvent> {
        self.events.recv().await
    }

    /// Moves up to `limit` events that are there to the end of `events`, and waits only if there is none. Ready with 0
    /// once the sink is gone and everything was read.
    pub fn poll_recv_many(
        &mut self,
        context: &mut Context<'_>,
        events: &mut Vec<SequenceEvent>,
        limit: usize,
    ) -> Poll<usize> {
        self.events.poll_recv_many(context, events, limit)
    }
}

impl TokenSink {
    /// Passes an event on. Never blocks: a full stream, which its producer sized wrongly, counts as gone.
    ///
    /// # Errors
    /// [`Gone`]: the event was dropped, and so will be all that follow.
    pub fn send(&self, event: SequenceEvent) -> Result<(), Gone> {
        self.events.try_send(event).map_err(|_| Gone)
    }

    /// Whether the stream was dropped.
    pub fn is_gone(&self) -> bool {
        self.events.is_closed()
    }
}

struct CancelGuard(Option<Box<dyn FnOnce() + Send>>);

impl Drop for CancelGuard {
    fn drop(&mut self) {
        if let Some(on_drop) = self.0.take() {
            on_drop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use baton_types::{OutputToken, TokenId};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn token(id: u32) -> SequenceEvent {
        SequenceEvent::Token(OutputToken { id: TokenId(id), logprobs: None })
    }

    #[tokio::test]
    async fn events_arrive_in_order_and_the_guard_runs_once() {
        let runs = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&runs);
        let (sink, mut stream) = TokenStream::channel(2, move || {
            counted.fetch_add(1, Ordering::SeqCst);
        });
        assert_eq!(sink.send(token(1)), Ok(()));
        assert_eq!(sink.send(token(2)), Ok(()));
        assert_eq!(sink.send(token(3)), Err(Gone), "full counts as gone");
        assert_eq!(stream.recv().await, Some(token(1)));
        assert_eq!(stream.recv().await, Some(token(2)));
        assert!(!sink.is_gone());
        assert_eq!(runs.load(Ordering::SeqCst), 0);
        drop(stream);
        assert_eq!(runs.load(Ordering::SeqCst), 1);
        assert!(sink.is_gone());
        assert_eq!(sink.send(token(4)), Err(Gone));
    }

    #[tokio::test]
    async fn a_dropped_sink_ends_the_stream() {
        let (sink, mut stream) = TokenStream::channel(1, || {});
        drop(sink);
        assert_eq!(stream.recv().await, None);
    }
}
