//! An engine's state, told to the metrics.

use baton_engine::{Engine, SchedulerStats};
use baton_telemetry::EngineMetrics;
use baton_types::ModelRunner;

/// Publishes what changed since the last turn.
pub(crate) struct EngineGauges {
    metrics: EngineMetrics,
    last: SchedulerStats,
}

impl EngineGauges {
    pub(crate) fn new(role: &'static str) -> Self {
        Self { metrics: EngineMetrics::new(role), last: SchedulerStats::default() }
    }

    /// Whether the engine computed something since the last call.
    pub(crate) fn publish<R: ModelRunner>(&mut self, engine: &Engine<R>, turn: std::time::Duration) -> bool {
        let (now, last, metrics) = (engine.scheduler().stats(), self.last, &self.metrics);
        let (waiting, running, parked) = engine.scheduler().num_waiting_running_parked();
        let blocks = engine.pool().counts();
        metrics.sequences_waiting.set(waiting as f64);
        metrics.sequences_running.set((running + parked) as f64);
        metrics.kv_blocks_free.set(blocks.free as f64);
        metrics.kv_blocks_held.set(blocks.held as f64);
        metrics.kv_blocks_inactive.set(blocks.inactive as f64);
        metrics.kv_blocks_total.set(blocks.total as f64);
        metrics.prefill_tokens.increment(now.prefill_tokens - last.prefill_tokens);
        metrics.decode_tokens.increment(now.decode_tokens - last.decode_tokens);
        metrics.preemptions.increment(now.preemptions - last.preemptions);
        metrics.prefix_query_tokens.increment(now.prefix_query_tokens - last.prefix_query_tokens);
        metrics.prefix_hit_tokens.increment(now.prefix_hit_tokens - last.prefix_hit_tokens);
        metrics.steps.increment(now.steps - last.steps);
        let stepped = now.steps > last.steps;
        if stepped {
            metrics.step_duration.record(turn.as_secs_f64());
        }
        self.last = now;
        stepped
    }
}
