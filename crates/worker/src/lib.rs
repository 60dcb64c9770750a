//! Workers: engines with a thread, an inbox, deadlines, and a hand to pass KV caches with.
//!
//! [`DecodeWorker`] takes requests and streams their tokens. Given a [`PrefillWorker`], it has long prompts prefilled
//! there: it reserves blocks for the whole prompt first, sends the tokens and the destinations, writes the blocks that
//! come back chunk by chunk, and resumes with the first token. Whatever goes wrong on that way, it goes on by itself
//! from the last block that arrived. Without a prefill worker it does both phases.
//!
//! Rules that hold on both threads: every wait has a deadline, every inbox a bound, no turn of a loop blocks on the
//! other side, deadlines are looked at on every turn (also idle ones), and a sequence leaves by one way only:
//! [`Engine::abort`](baton_engine::Engine::abort) or its own last token, after which dropping its state gives everything
//! back.

mod config;
mod decode;
mod gauges;
mod handoff;
mod health;
mod inbox;
mod prefill;
mod request;

pub use config::{HandoffConfig, WorkerConfig};
pub use decode::DecodeWorker;
pub use health::WorkerHealth;
pub use prefill::{PrefillHandle, PrefillWorker};
pub use request::{Cancel, EventSink};

#[cfg(test)]
mod tests;
