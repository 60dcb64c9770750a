//! Whether a worker's thread is there and moves.

use parking_lot::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A worker's sign of life, shared with whoever asks.
#[derive(Debug)]
pub struct WorkerHealth {
    start: Instant,
    step_stall: Duration,
    /// Milliseconds after `start` at which the step under way began; `IDLE` between steps.
    step_began: AtomicU64,
    down: Mutex<Option<String>>,
}

const IDLE: u64 = u64::MAX;

impl WorkerHealth {
    pub(crate) fn new(step_stall: Duration) -> Self {
        Self { start: Instant::now(), step_stall, step_began: AtomicU64::new(IDLE), down: Mutex::new(None) }
    }

    /// `Err` says why the worker will not do anything any more: its thread ended, or a step has lasted too long.
    pub fn live(&self) -> Result<(), String> {
        if let Some(reason) = self.down.lock().clone() {
            return Err(reason);
        }
        let began = self.step_began.load(Ordering::Relaxed);
        let now = self.start.elapsed().as_millis() as u64;
        let lasted = Duration::from_millis(now.saturating_sub(began));
        if began != IDLE && lasted > self.step_stall {
            return Err(format!("a step has lasted {} s", lasted.as_secs()));
        }
        Ok(())
    }

    pub(crate) fn is_down(&self) -> bool {
        self.down.lock().is_some()
    }

    pub(crate) fn set_down(&self, reason: String) {
        self.down.lock().get_or_insert(reason);
    }

    pub(crate) fn step_begins(&self) {
        self.step_began.store(self.start.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    pub(crate) fn step_ends(&self) {
        self.step_began.store(IDLE, Ordering::Relaxed);
    }
}

/// Runs a worker's loop; when it ends, in whatever way, the worker is down.
pub(crate) fn run_guarded(name: &str, health: &WorkerHealth, body: impl FnOnce()) {
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
    match result {
        Ok(()) => health.set_down(format!("{name} has stopped")),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
            tracing::error!(thread = name, panic = text, "a worker broke");
            health.set_down(format!("{name} broke: {text}"));
        }
    }
}
