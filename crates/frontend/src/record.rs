//! What is known about one HTTP request, logged and counted once when everybody has let go of it: the handler, and the
//! body of its response.

use crate::Frontend;
use axum::http::StatusCode;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tracing::{debug, info};

/// One HTTP request.
pub(crate) struct Record {
    frontend: Frontend,
    request_id: Arc<str>,
    endpoint: &'static str,
    started: Instant,
    status: AtomicU16,
    model: OnceLock<String>,
    in_flight: AtomicBool,
    admitted: AtomicBool,
    prompt_tokens: AtomicUsize,
    output_tokens: AtomicUsize,
    first_token: OnceLock<Duration>,
    outcome: OnceLock<&'static str>,
}

/// The client left before there was a response (nginx's convention; nobody receives it).
const CLIENT_LEFT: u16 = 499;

impl Record {
    /// A request that has just arrived. `endpoint` is one of [`baton_telemetry::names::ENDPOINTS`].
    pub(crate) fn new(frontend: &Frontend, request_id: Arc<str>, endpoint: &'static str) -> Self {
        Self {
            frontend: frontend.clone(),
            request_id,
            endpoint,
            started: Instant::now(),
            status: AtomicU16::new(CLIENT_LEFT),
            model: OnceLock::new(),
            in_flight: AtomicBool::new(false),
            admitted: AtomicBool::new(false),
            prompt_tokens: AtomicUsize::new(0),
            output_tokens: AtomicUsize::new(0),
            first_token: OnceLock::new(),
            outcome: OnceLock::new(),
        }
    }

    pub(crate) fn request_id(&self) -> Arc<str> {
        Arc::clone(&self.request_id)
    }

    pub(crate) fn started(&self) -> Instant {
        self.started
    }

    pub(crate) fn set_status(&self, status: StatusCode) {
        self.status.store(status.as_u16(), Ordering::Relaxed);
    }

    pub(crate) fn set_model(&self, model: &str) {
        let _ = self.model.set(model.to_owned());
    }

    /// The request took one of the places that are there for requests which generate.
    pub(crate) fn set_in_flight(&self) {
        if !self.in_flight.swap(true, Ordering::Relaxed) {
            self.frontend.metrics().requests_in_flight.increment(1.0);
        }
    }

    /// The engines took all of its sequences.
    pub(crate) fn admitted(&self, prompt_tokens: usize) {
        self.admitted.store(true, Ordering::Relaxed);
        self.prompt_tokens.store(prompt_tokens, Ordering::Relaxed);
        self.frontend.metrics().prompt_tokens.increment(prompt_tokens as u64);
    }

    /// A token of a sequence arrived; `previous` is when the one before it did.
    pub(crate) fn token(&self, now: Instant, previous: &mut Option<Instant>) {
        let metrics = self.frontend.metrics();
        match previous.replace(now) {
            Some(previous) => metrics.inter_token_latency.record(now.duration_since(previous)),
            None if self.first_token.get().is_none() => {
                let elapsed = now.duration_since(self.started);
                if self.first_token.set(elapsed).is_ok() {
                    metrics.time_to_first_token.record(elapsed);
                }
            }
            None => {}
        }
    }

    pub(crate) fn add_output_tokens(&self, count: usize) {
        if count > 0 {
            self.output_tokens.fetch_add(count, Ordering::Relaxed);
            self.frontend.metrics().output_tokens.increment(count as u64);
        }
    }

    /// How it ended: one of [`baton_telemetry::names::FINISH_REASONS`]. The first call counts; without one, it was
    /// cancelled.
    pub(crate) fn set_outcome(&self, outcome: &'static str) {
        let _ = self.outcome.set(outcome);
    }

    /// How it failed, from what the client is told.
    pub(crate) fn set_failure(&self, status: StatusCode) {
        self.set_outcome(if status == StatusCode::GATEWAY_TIMEOUT { "deadline" } else { "error" });
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let (duration, status) = (self.started.elapsed(), self.status.load(Ordering::Relaxed));
        let metrics = self.frontend.metrics();
        metrics.http_request(self.endpoint, status);
        if self.in_flight.load(Ordering::Relaxed) {
            metrics.requests_in_flight.decrement(1.0);
        }
        if matches!(self.endpoint, "health" | "live" | "metrics") {
            debug!(request_id = &*self.request_id, endpoint = self.endpoint, status, "probe");
            return;
        }
        let mut outcome = "";
        if self.admitted.load(Ordering::Relaxed) {
            outcome = self.outcome.get().copied().unwrap_or("cancelled");
            metrics.request_duration.record(duration);
            metrics.finished(outcome);
        }
        info!(
            request_id = &*self.request_id,
            endpoint = self.endpoint,
            status,
            model = self.model.get().map_or("", String::as_str),
            prompt_tokens = self.prompt_tokens.load(Ordering::Relaxed),
            output_tokens = self.output_tokens.load(Ordering::Relaxed),
            ttft_ms = self.first_token.get().map(|elapsed| elapsed.as_secs_f64() * 1e3),
            duration_ms = duration.as_secs_f64() * 1e3,
            outcome,
            "request"
        );
    }
}
