//! Models: opens what is on disk, packs its weights for the kernels, and runs it behind
//! [`ModelRunner`](baton_types::ModelRunner).
//!
//! ```no_run
//! # use baton_model::{CpuRunner, CpuRunnerOptions, WeightsFormat, open};
//! let files = open("model.gguf".as_ref())?;
//! let weights = files.load_weights(WeightsFormat::Auto, &|done, total| println!("{done}/{total}"))?;
//! let options = CpuRunnerOptions { block_size: 16, num_blocks: 1024, threads: 2, low_priority: false };
//! let runner = CpuRunner::new(weights, options)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Nothing here knows scheduling or a network. The way of a model: [`open`] (configuration), then
//! [`ModelFiles::load_weights`] (everything checked, then packed), then a [`CpuRunner`] per engine; they share the
//! weights.

mod arch;
mod config;
mod decoder;
mod error;
mod files;
mod fingerprint;
mod format;
mod head;
mod runner;
mod source;
mod weights;

pub use config::{Architecture, GenerationDefaults, ModelConfig, Rope, RopeScaling, kv_bytes_per_token};
pub use error::LoadError;
pub use files::{ModelFiles, open};
pub use format::{ParseWeightsFormatError, WeightsFormat};
pub use runner::{CpuRunner, CpuRunnerOptions};
pub use weights::Weights;
