//! What Baton says about itself: the name, help, unit and buckets of every metric in one place ([`names`]), handles that
//! record them without a look-up ([`handles`]), the Prometheus recorder ([`Metrics`]), and log output ([`init_logging`]).
//!
//! Who records what is none of this crate's business.

pub mod handles;
mod logging;
pub mod names;
mod recorder;

pub use handles::{EngineMetrics, FrontendMetrics, HandoffMetrics};
pub use logging::{LogFormat, LoggingError, init_logging};
pub use recorder::{Metrics, RecorderError};
