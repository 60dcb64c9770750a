//! Every metric: one constant for its name, one row for what it means.
//!
//! Names follow <https://prometheus.io/docs/practices/naming/>: a prefix, a base unit, `_total` on counters. Every label
//! takes its values from a fixed list, so the number of series is bounded.

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

/// Seconds from a request's arrival to its first token, by request.
pub const TIME_TO_FIRST_TOKEN: &str = "baton_time_to_first_token_seconds";
/// Seconds between two tokens of one sequence.
pub const INTER_TOKEN_LATENCY: &str = "baton_inter_token_latency_seconds";
/// Seconds from a request's arrival to the end of its response.
pub const REQUEST_DURATION: &str = "baton_request_duration_seconds";
/// HTTP requests by `endpoint` and `status`.
pub const HTTP_REQUESTS: &str = "baton_http_requests_total";
/// Prompt tokens of the requests that were admitted.
pub const PROMPT_TOKENS: &str = "baton_prompt_tokens_total";
/// Output tokens.
pub const OUTPUT_TOKENS: &str = "baton_output_tokens_total";
/// Requests that generate, between arrival and the end of their response.
pub const REQUESTS_IN_FLIGHT: &str = "baton_requests_in_flight";
/// Requests refused at the door, by `reason`.
pub const REJECTED: &str = "baton_rejected_total";
/// Requests that were admitted and are over, by `reason`.
pub const REQUESTS_FINISHED: &str = "baton_requests_finished_total";

/// Seconds a step took, by `role`.
pub const STEP_DURATION: &str = "baton_step_duration_seconds";
/// Sequences that have blocks and take part in steps, by `role`.
pub const SEQUENCES_RUNNING: &str = "baton_sequences_running";
/// Sequences that wait for blocks, by `role`.
pub const SEQUENCES_WAITING: &str = "baton_sequences_waiting";
/// Blocks that hold nothing, by `role`.
pub const KV_BLOCKS_FREE: &str = "baton_kv_blocks_free";
/// Blocks that some sequence uses, by `role`.
pub const KV_BLOCKS_HELD: &str = "baton_kv_blocks_held";
/// Blocks that no sequence uses and that a prefix hit can bring back, by `role`.
pub const KV_BLOCKS_INACTIVE: &str = "baton_kv_blocks_inactive";
/// Blocks in the pool, by `role`: the sum of the three above.
pub const KV_BLOCKS_TOTAL: &str = "baton_kv_blocks_total";
/// Prompt tokens found in the KV cache at admission, by `role`.
pub const PREFIX_HIT_TOKENS: &str = "baton_prefix_hit_tokens_total";
/// Prompt tokens looked up in the KV cache at admission, by `role`.
pub const PREFIX_QUERY_TOKENS: &str = "baton_prefix_query_tokens_total";
/// Sequences that lost their blocks to another and were put back to wait, by `role`.
pub const PREEMPTIONS: &str = "baton_preemptions_total";
/// Steps, by `role`.
pub const STEPS: &str = "baton_steps_total";
/// Tokens computed in steps, by `role` and `phase`.
pub const STEP_TOKENS: &str = "baton_step_tokens_total";

/// Handoffs that are over, by `outcome`.
pub const HANDOFFS: &str = "baton_handoffs_total";
/// Seconds from the end of a prefill to the sequence's being resumed.
pub const HANDOFF_DURATION: &str = "baton_handoff_duration_seconds";
/// Block bytes moved in handoffs.
pub const HANDOFF_BYTES: &str = "baton_handoff_bytes_total";

/// Values of `role`.
pub const ROLES: [&str; 3] = ["prefill", "decode", "aggregated"];
/// Values of `phase`.
pub const PHASES: [&str; 2] = ["prefill", "decode"];
/// Values of a handoff's `outcome`.
pub const HANDOFF_OUTCOMES: [&str; 4] = ["completed", "failed", "cancelled", "expired"];
/// Values of the `reason` a request is refused for.
pub const REJECT_REASONS: [&str; 5] =
    ["overloaded", "queue_full", "shutting_down", "engine_down", "unauthorized"];
/// Values of the `reason` a request is over for.
pub const FINISH_REASONS: [&str; 5] = ["stop", "length", "cancelled", "deadline", "error"];
/// Values of `endpoint`; what matches no route is `other`.
pub const ENDPOINTS: [&str; 8] =
    ["chat_completions", "completions", "models", "health", "live", "metrics", "version", "other"];

/// 1 ms (a prefix hit on a small model) to 10 minutes (the longest a request may take), three or so a decade.
const REQUEST_BUCKETS: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 10.0, 20.0,
    40.0, 80.0, 160.0, 320.0, 640.0,
];
/// 100 µs (tokens that arrived together) to 10 s (a stall), fine around the targets people set: 10 to 100 ms.
const TOKEN_BUCKETS: &[f64] = &[
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.075, 0.1,
    0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// A distribution over fixed buckets.
    Histogram(Buckets),
}

/// Which buckets a histogram has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Buckets {
    /// A whole request, or its first token.
    Request,
    /// One token, one step, one handoff.
    Token,
}

impl Buckets {
    /// Upper bounds, in seconds.
    pub fn bounds(self) -> &'static [f64] {
        match self {
            Self::Request => REQUEST_BUCKETS,
            Self::Token => TOKEN_BUCKETS,
        }
    }
}

/// One row of the list of metrics.
pub struct Metric {
    /// The name, as scraped.
    pub name: &'static str,
    /// Counter, gauge or histogram.
    pub kind: Kind,
    /// The unit of its values.
    pub unit: Unit,
    /// One sentence for the person who reads a dashboard.
    pub help: &'static str,
}

const fn metric(name: &'static str, kind: Kind, unit: Unit, help: &'static str) -> Metric {
    Metric { name, kind, unit, help }
}

const BY_REQUEST: Kind = Kind::Histogram(Buckets::Request);
const BY_TOKEN: Kind = Kind::Histogram(Buckets::Token);

/// All metrics.
pub const ALL: &[Metric] = &[
    metric(
        TIME_TO_FIRST_TOKEN,
        BY_REQUEST,
        Unit::Seconds,
        "Time from a request's arrival to its first token.",
    ),
    metric(INTER_TOKEN_LATENCY, BY_TOKEN, Unit::Seconds, "Time between two tokens of one sequence."),
    metric(
        REQUEST_DURATION,
        BY_REQUEST,
        Unit::Seconds,
        "Time from a request's arrival to the end of its response.",
    ),
    metric(
        HTTP_REQUESTS,
        Kind::Counter,
        Unit::Count,
        "HTTP requests by endpoint and status (499: the client left).",
    ),
    metric(PROMPT_TOKENS, Kind::Counter, Unit::Count, "Prompt tokens of admitted requests."),
    metric(OUTPUT_TOKENS, Kind::Counter, Unit::Count, "Output tokens."),
    metric(REQUESTS_IN_FLIGHT, Kind::Gauge, Unit::Count, "Generating requests whose response is not over."),
    metric(REJECTED, Kind::Counter, Unit::Count, "Requests refused at the door, by reason."),
    metric(REQUESTS_FINISHED, Kind::Counter, Unit::Count, "Admitted requests that are over, by reason."),
    metric(STEP_DURATION, BY_TOKEN, Unit::Seconds, "Time an engine step took."),
    metric(SEQUENCES_RUNNING, Kind::Gauge, Unit::Count, "Sequences that have blocks."),
    metric(SEQUENCES_WAITING, Kind::Gauge, Unit::Count, "Sequences that wait for blocks."),
    metric(KV_BLOCKS_FREE, Kind::Gauge, Unit::Count, "KV blocks that hold nothing."),
    metric(KV_BLOCKS_HELD, Kind::Gauge, Unit::Count, "KV blocks that a sequence uses."),
    metric(KV_BLOCKS_INACTIVE, Kind::Gauge, Unit::Count, "KV blocks kept only for later prefix hits."),
    metric(KV_BLOCKS_TOTAL, Kind::Gauge, Unit::Count, "KV blocks in the pool."),
    metric(
        PREFIX_HIT_TOKENS,
        Kind::Counter,
        Unit::Count,
        "Prompt tokens found in the KV cache at admission.",
    ),
    metric(
        PREFIX_QUERY_TOKENS,
        Kind::Counter,
        Unit::Count,
        "Prompt tokens looked up in the KV cache at admission.",
    ),
    metric(
        PREEMPTIONS,
        Kind::Counter,
        Unit::Count,
        "Sequences that lost their blocks and were put back to wait.",
    ),
    metric(STEPS, Kind::Counter, Unit::Count, "Engine steps."),
    metric(STEP_TOKENS, Kind::Counter, Unit::Count, "Tokens computed in engine steps, by phase."),
    metric(HANDOFFS, Kind::Counter, Unit::Count, "Handoffs that are over, by outcome."),
    metric(
        HANDOFF_DURATION,
        BY_REQUEST,
        Unit::Seconds,
        "Time from reserving blocks to resuming the sequence with its first token: queue, prefill, transfer.",
    ),
    metric(HANDOFF_BYTES, Kind::Counter, Unit::Bytes, "KV block bytes moved in handoffs."),
];

/// Gives the installed recorder every metric's help and unit, and starts at zero the series whose labels are known: a
/// dashboard then tells "never happened" from "not measured". The `role` series start when an engine makes its
/// [`EngineMetrics`](crate::EngineMetrics).
pub fn describe_all() {
    for metric in ALL {
        match metric.kind {
            Kind::Counter => describe_counter!(metric.name, metric.unit, metric.help),
            Kind::Gauge => describe_gauge!(metric.name, metric.unit, metric.help),
            Kind::Histogram(_) => describe_histogram!(metric.name, metric.unit, metric.help),
        }
    }
    for reason in REJECT_REASONS {
        metrics::counter!(REJECTED, "reason" => reason).increment(0);
    }
    for reason in FINISH_REASONS {
        metrics::counter!(REQUESTS_FINISHED, "reason" => reason).increment(0);
    }
    for outcome in HANDOFF_OUTCOMES {
        metrics::counter!(HANDOFFS, "outcome" => outcome).increment(0);
    }
    for name in [PROMPT_TOKENS, OUTPUT_TOKENS, HANDOFF_BYTES] {
        metrics::counter!(name).increment(0);
    }
    metrics::gauge!(REQUESTS_IN_FLIGHT).set(0.0);
}
