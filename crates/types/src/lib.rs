//! The vocabulary of Baton: ids, block hashes, sampling parameters, and the two contracts that the other crates meet
//! in: what an engine asks of a model ([`ModelRunner`]) and what a frontend asks of an engine ([`GenerateRequest`]).
//!
//! Nothing here does I/O, knows a wire format, waits, or names a device.

pub mod batch;
pub mod block_hash;
pub mod ids;
pub mod random;
pub mod request;
pub mod runner;
pub mod sampling;
pub mod tokenizer_source;

pub use batch::{BatchSequence, Phase, SampleRequest, StepBatch, TokenHistory};
pub use block_hash::{BlockHash, Salt, hash_blocks};
pub use ids::{BlockId, BlockRef, Generation, HandoffId, SequenceId, Slot, TokenId};
pub use request::{AdmitError, Finish, FinishReason, GenerateRequest, OutputToken, SequenceEvent};
pub use runner::{KvLayout, ModelRunner, RunnerError, Sampled, SampledSequence};
pub use sampling::{SamplingParams, TokenLogprobs};
pub use tokenizer_source::TokenizerSource;
