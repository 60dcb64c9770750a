//! A response as a token stream: server-sent events (<https://html.spec.whatwg.org/multipage/server-sent-events.html>).
//!
//! Everything that is there when the connection can take more goes into one frame, so into one write: a step of the
//! engine costs one write a connection, however many choices it moved on.

use crate::Frontend;
use crate::generation::Generation;
use crate::json::push_str;
use crate::openai::{ApiError, ResponseWriter};
use crate::record::Record;
use axum::body::{Body, Bytes};
use axum::http::HeaderValue;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::Response;
use bytes::BytesMut;
use hyper::body::Frame;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Sleep;

/// How long after its deadline a request is ended from here, should an engine fail to do it.
pub(crate) const DEADLINE_GRACE: Duration = Duration::from_secs(2);

/// The response that sends `generation` on as it goes.
pub(crate) fn stream_response(
    frontend: &Frontend,
    generation: Generation,
    writer: ResponseWriter,
    record: Arc<Record>,
    place: OwnedSemaphorePermit,
) -> Response {
    let config = frontend.config();
    let now = Instant::now();
    let deadline = record.started() + config.request_timeout + DEADLINE_GRACE;
    let first_timer = deadline.min(now + config.keep_alive_interval);
    let body = SseBody {
        running: Some(Running { generation, _place: place }),
        writer,
        buffer: BytesMut::with_capacity(1024),
        timer: Box::pin(tokio::time::sleep_until(first_timer.into())),
        last_frame_at: now,
        keep_alive_interval: config.keep_alive_interval,
        deadline,
        timeout_secs: config.request_timeout.as_secs(),
        record,
    };
    let mut response = Response::new(Body::new(body));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    // nginx would collect chunks otherwise.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

/// The body. Dropping it, because the client left, cancels its sequences.
struct SseBody {
    /// `None`: the last frame was made.
    running: Option<Running>,
    writer: ResponseWriter,
    buffer: BytesMut,
    /// Goes off when a sign of life may be due, or at the deadline. It is not moved for each frame: that would cost a
    /// lock a token.
    timer: Pin<Box<Sleep>>,
    last_frame_at: Instant,
    keep_alive_interval: Duration,
    deadline: Instant,
    timeout_secs: u64,
    record: Arc<Record>,
}

struct Running {
    generation: Generation,
    _place: OwnedSemaphorePermit,
}

impl hyper::body::Body for SseBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = self.get_mut();
        loop {
            let Some(running) = &mut this.running else { return Poll::Ready(None) };
            match running.generation.poll_progress(context) {
                Poll::Ready(Ok(())) => this.write_progress(),
                Poll::Ready(Err(error)) => this.fail(&error),
                Poll::Pending => match this.poll_timer(context) {
                    Poll::Ready(()) => {}
                    Poll::Pending => return Poll::Pending,
                },
            }
            if !this.buffer.is_empty() {
                this.last_frame_at = Instant::now();
                return Poll::Ready(Some(Ok(Frame::data(this.buffer.split().freeze()))));
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.running.is_none()
    }
}

impl SseBody {
    fn write_progress(&mut self) {
        let Some(Running { generation, .. }) = &mut self.running else { return };
        let usage = generation.usage();
        for (index, choice) in generation.choices_mut().iter_mut().enumerate() {
            let has_delta = !choice.delta().text.is_empty() || !choice.delta().logprobs.is_empty();
            let ends = choice.ending.filter(|_| !choice.closed);
            if !has_delta && ends.is_none() {
                continue;
            }
            if !choice.opened {
                self.writer.push_opening(&mut self.buffer, index, usage);
                choice.opened = true;
            }
            if has_delta {
                self.writer.push_delta(&mut self.buffer, index, choice.delta(), usage);
                choice.clear_delta();
            }
            if let Some(ending) = ends {
                self.writer.push_ending(&mut self.buffer, index, ending, usage);
                choice.closed = true;
            }
        }
        if generation.is_over() {
            self.writer.push_done(&mut self.buffer, usage);
            if let Some((_, ending)) = generation.finished().next() {
                self.record.set_outcome(ending.name());
            }
            self.running = None;
        }
    }

    /// An event tells the client, and the missing end mark that this was not all.
    fn fail(&mut self, error: &ApiError) {
        push_str(&mut self.buffer, "data: ");
        error.write(&mut self.buffer);
        push_str(&mut self.buffer, "\n\n");
        self.record.set_failure(error.status);
        self.running = None;
    }

    /// Ready when the timer went off: it may have written something, and is to be polled again if not.
    fn poll_timer(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.timer.as_mut().poll(context).is_pending() {
            return Poll::Pending;
        }
        let now = Instant::now();
        if now >= self.deadline {
            self.fail(&ApiError::deadline(self.timeout_secs));
            return Poll::Ready(());
        }
        if now >= self.last_frame_at + self.keep_alive_interval {
            push_str(&mut self.buffer, ": keep-alive\n\n");
            self.last_frame_at = now;
        }
        let next = self.deadline.min(self.last_frame_at + self.keep_alive_interval);
        self.timer.as_mut().reset(next.into());
        Poll::Ready(())
    }
}
