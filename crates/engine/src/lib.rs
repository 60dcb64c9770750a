//! The engine: which tokens are computed next, over which KV blocks.
//!
//! [`Scheduler`] is a pure state machine: it plans a [`StepBatch`](baton_types::StepBatch) from its sequences and the
//! block pool, and takes in what the step sampled. [`Engine`] puts it together with a pool and a model runner; its
//! [`step`](Engine::step) is the whole loop. Nothing here waits, sends, reads a clock, or knows a device or a role.
//!
//! A sequence is in one of four places:
//!
//! ```text
//! submit ──> waiting ── admitted, blocks reserved ──> running ── end token, length, abort ──> finished
//!               ^   │                                 │   ^
//!               │   └── long uncached prompt ──> parked ──┘ blocks imported, first token known
//!               └───────────── preempted ─────────────┘
//! ```
//!
//! `parked` is either a sequence whose prompt is prefilled elsewhere, or, on the prefill side, one whose prompt is done
//! and whose blocks are still being pushed.

mod engine;
mod scheduler;
mod sequence;
mod sim_runner;

pub use engine::{Engine, ImportError, Reservation};
pub use scheduler::{EngineEvent, Scheduler, SchedulerConfig, SchedulerStats};
pub use sequence::{Goal, NewSequence};
pub use sim_runner::SimRunner;
