//! Limits of workers.

use baton_types::Salt;
use std::time::Duration;

/// Limits of one worker, besides those of its engine.
#[derive(Clone, Debug)]
pub struct WorkerConfig {
    /// Most requests taken and not ended, running or waiting. One more is refused.
    pub requests_max: usize,
    /// Names the model's KV contents; tenants' salts are derived from it.
    pub salt: Salt,
    /// A step that lasts longer than this counts as a wedged engine.
    pub step_stall: Duration,
    /// The hand-over of KV caches.
    pub handoff: HandoffConfig,
}

/// Longest that a step may last: 512 tokens of a model of 8 billion weights take some 15 s on two slow cores.
const STEP_STALL: Duration = Duration::from_secs(120);

impl WorkerConfig {
    /// Defaults around a salt.
    pub fn new(salt: Salt) -> Self {
        Self {
            requests_max: 1024,
            salt,
            step_stall: Duration::from_secs(120),
            handoff: HandoffConfig::default(),
        }
    }
}

/// Limits of handoffs. Both sides of a pair use the same.
#[derive(Clone, Copy, Debug)]
pub struct HandoffConfig {
    /// The decode side takes a handoff back after this long without a block or a sign of life from the prefill side,
    /// which gives one between steps, four times in that span, while the handoff waits its turn. So the limit does not
    /// depend on how long the queue is, only on how long a step may last. A thread that broke is noticed at once.
    pub stall: Duration,
    /// Most bytes in one piece, but at least one block. 4 MiB: large enough that a piece's cost is its copy, small
    /// enough that a decode step is delayed by milliseconds.
    pub piece_bytes_max: usize,
    /// Most pieces of one handoff that the decode side has not acknowledged.
    pub pieces_in_flight_max: usize,
}

impl Default for HandoffConfig {
    fn default() -> Self {
        Self { stall: STEP_STALL, piece_bytes_max: 4 << 20, pieces_in_flight_max: 4 }
    }
}
