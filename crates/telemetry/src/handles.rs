//! Handles to metrics, made once: recording through one is an atomic operation, without a look-up by name and labels.
//!
//! Make them after [`Metrics::install`](crate::Metrics::install); made before, they record nothing.

use crate::names;
use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

/// What the HTTP side records for each token and request.
#[derive(Clone)]
pub struct FrontendMetrics {
    /// [`names::TIME_TO_FIRST_TOKEN`].
    pub time_to_first_token: Histogram,
    /// [`names::INTER_TOKEN_LATENCY`].
    pub inter_token_latency: Histogram,
    /// [`names::REQUEST_DURATION`].
    pub request_duration: Histogram,
    /// [`names::PROMPT_TOKENS`].
    pub prompt_tokens: Counter,
    /// [`names::OUTPUT_TOKENS`].
    pub output_tokens: Counter,
    /// [`names::REQUESTS_IN_FLIGHT`].
    pub requests_in_flight: Gauge,
}

impl FrontendMetrics {
    /// Looks every handle up.
    pub fn new() -> Self {
        Self {
            time_to_first_token: histogram!(names::TIME_TO_FIRST_TOKEN),
            inter_token_latency: histogram!(names::INTER_TOKEN_LATENCY),
            request_duration: histogram!(names::REQUEST_DURATION),
            prompt_tokens: counter!(names::PROMPT_TOKENS),
            output_tokens: counter!(names::OUTPUT_TOKENS),
            requests_in_flight: gauge!(names::REQUESTS_IN_FLIGHT),
        }
    }

    /// Counts an HTTP request that is over. `endpoint` is one of [`names::ENDPOINTS`].
    pub fn http_request(&self, endpoint: &'static str, status: u16) {
        counter!(names::HTTP_REQUESTS, "endpoint" => endpoint, "status" => status.to_string()).increment(1);
    }

    /// Counts a refusal. `reason` is one of [`names::REJECT_REASONS`].
    pub fn rejected(&self, reason: &'static str) {
        counter!(names::REJECTED, "reason" => reason).increment(1);
    }

    /// Counts an admitted request that is over. `reason` is one of [`names::FINISH_REASONS`].
    pub fn finished(&self, reason: &'static str) {
        counter!(names::REQUESTS_FINISHED, "reason" => reason).increment(1);
    }
}

impl Default for FrontendMetrics {
    fn default() -> Self {
        Self::new()
    }
}

/// What one engine records.
#[derive(Clone)]
pub struct EngineMetrics {
    /// [`names::STEP_DURATION`].
    pub step_duration: Histogram,
    /// [`names::STEPS`].
    pub steps: Counter,
    /// [`names::STEP_TOKENS`] of prefill chunks.
    pub prefill_tokens: Counter,
    /// [`names::STEP_TOKENS`] of decoding sequences.
    pub decode_tokens: Counter,
    /// [`names::SEQUENCES_RUNNING`].
    pub sequences_running: Gauge,
    /// [`names::SEQUENCES_WAITING`].
    pub sequences_waiting: Gauge,
    /// [`names::KV_BLOCKS_FREE`].
    pub kv_blocks_free: Gauge,
    /// [`names::KV_BLOCKS_HELD`].
    pub kv_blocks_held: Gauge,
    /// [`names::KV_BLOCKS_INACTIVE`].
    pub kv_blocks_inactive: Gauge,
    /// [`names::KV_BLOCKS_TOTAL`].
    pub kv_blocks_total: Gauge,
    /// [`names::PREFIX_HIT_TOKENS`].
    pub prefix_hit_tokens: Counter,
    /// [`names::PREFIX_QUERY_TOKENS`].
    pub prefix_query_tokens: Counter,
    /// [`names::PREEMPTIONS`].
    pub preemptions: Counter,
}

impl EngineMetrics {
    /// Looks every handle up and starts its series at zero. `role` is one of [`names::ROLES`].
    pub fn new(role: &'static str) -> Self {
        let zero_counter = |counter: Counter| {
            counter.increment(0);
            counter
        };
        let zero_gauge = |gauge: Gauge| {
            gauge.set(0.0);
            gauge
        };
        let phase_tokens = |phase: &'static str| {
            zero_counter(counter!(names::STEP_TOKENS, "role" => role, "phase" => phase))
        };
        Self {
            step_duration: histogram!(names::STEP_DURATION, "role" => role),
            steps: zero_counter(counter!(names::STEPS, "role" => role)),
            prefill_tokens: phase_tokens("prefill"),
            decode_tokens: phase_tokens("decode"),
            sequences_running: zero_gauge(gauge!(names::SEQUENCES_RUNNING, "role" => role)),
            sequences_waiting: zero_gauge(gauge!(names::SEQUENCES_WAITING, "role" => role)),
            kv_blocks_free: zero_gauge(gauge!(names::KV_BLOCKS_FREE, "role" => role)),
            kv_blocks_held: zero_gauge(gauge!(names::KV_BLOCKS_HELD, "role" => role)),
            kv_blocks_inactive: zero_gauge(gauge!(names::KV_BLOCKS_INACTIVE, "role" => role)),
            kv_blocks_total: zero_gauge(gauge!(names::KV_BLOCKS_TOTAL, "role" => role)),
            prefix_hit_tokens: zero_counter(counter!(names::PREFIX_HIT_TOKENS, "role" => role)),
            prefix_query_tokens: zero_counter(counter!(names::PREFIX_QUERY_TOKENS, "role" => role)),
            preemptions: zero_counter(counter!(names::PREEMPTIONS, "role" => role)),
        }
    }
}

/// What is recorded about handoffs.
#[derive(Clone)]
pub struct HandoffMetrics {
    /// [`names::HANDOFF_DURATION`].
    pub duration: Histogram,
    /// [`names::HANDOFF_BYTES`].
    pub bytes: Counter,
    /// [`names::HANDOFFS`] whose sequence was resumed.
    pub completed: Counter,
    /// [`names::HANDOFFS`] that broke.
    pub failed: Counter,
    /// [`names::HANDOFFS`] whose client left.
    pub cancelled: Counter,
    /// [`names::HANDOFFS`] whose deadline passed.
    pub expired: Counter,
}

impl HandoffMetrics {
    /// Looks every handle up.
    pub fn new() -> Self {
        let over = |outcome: &'static str| counter!(names::HANDOFFS, "outcome" => outcome);
        Self {
            duration: histogram!(names::HANDOFF_DURATION),
            bytes: counter!(names::HANDOFF_BYTES),
            completed: over("completed"),
            failed: over("failed"),
            cancelled: over("cancelled"),
            expired: over("expired"),
        }
    }
}

impl Default for HandoffMetrics {
    fn default() -> Self {
        Self::new()
    }
}
