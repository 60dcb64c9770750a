//! The wall clock, for the API's `created` fields. Everything that is measured uses `Instant`.

use std::time::{SystemTime, UNIX_EPOCH};

/// Seconds since 1970; 0 on a machine whose clock stands before that.
#[expect(clippy::disallowed_methods, reason = "the API reports wall-clock times, and nothing else uses them")]
pub(crate) fn unix_secs() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs())
}
