//! CPU kernels: matrix products, attention over paged KV, norms, rotary embedding, sampling.
//!
//! # Batch invariance
//! A row's result has the same bits whatever the other rows are, however a prompt was cut into chunks, and on any number
//! of threads. Every output accumulates over `k` in one order: a SIMD lane is one output, so no sum is ever split across
//! lanes, and integer dots are exact. Attention goes over KV blocks in the order of the sequence. Bits may differ
//! between instruction tiers ([`Tier`]), not within one.
//!
//! # Floors
//! What no kernel can beat, for a model of `P` weights in its layers (SmolLM2-135M: 106 M, plus a head of 28 M), on `c`
//! cores of `f` GHz that start two vector instructions a cycle:
//!
//! | work | floor | AVX2, 2 cores, 3 GHz | AVX-512 |
//! |---|---|---|---|
//! | f32, many rows | `P / (2 lanes c f)` a token | 1.1 ms a token | 0.55 ms |
//! | Q4_1, many rows | a block of 32 weights and a vector of outputs: 8 `maddubs`, 8 additions, 5 float operations (AVX2); 8 `vpdpbusd`, 4 float operations (VNNI) | 0.5 ms | 0.21 ms |
//! | one row | bytes of all weights (Q4_1: 20 a block of 32, Q8_0: 34) over memory bandwidth | 97 MB: 4.8 ms at 20 GB/s | the same |
//!
//! Measured on one Sapphire Rapids core, 512 rows, in billions of operations a second: f32 80 (AVX2) and 120 (AVX-512),
//! Q4_1 170 and 315. So 4-bit weights are the faster format for prefill too, and one copy of the weights serves both
//! phases. `benches/kernels.rs` prints the rest.

mod activations;
mod attention;
mod elementwise;
pub mod mapped_file;
mod matmul_float;
mod matmul_quantised;
mod matrix;
mod memory;
mod paged_kv;
mod parallel;
mod rope;
mod sampling;
mod simd;
mod tier;

pub use attention::{AttentionSequence, paged_attention, paged_attention_on};
pub use elementwise::{add_rms_norm, add_rms_norm_on, rms_norm, rms_norm_on, silu_mul, silu_mul_on};
pub use matrix::{MatrixFormat, PackedMatrix};
pub use paged_kv::{KvShape, PagedKv};
pub use rope::{RopePairs, RopeRotation, RopeTable, rope_in_place};
pub use sampling::{SampleScratch, log_softmax_top, sample};
pub use tier::{Tier, TierError};

use thiserror::Error;

/// Arguments that do not fit each other: a bug of the caller, or a file that is not what its header says.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ShapeError {
    /// A buffer of the wrong length.
    #[error("{what}: {got} elements given, {expected} needed")]
    Length {
        /// Which buffer.
        what: &'static str,
        /// Its length.
        got: usize,
        /// The length that the other arguments ask for.
        expected: usize,
    },
    /// Quantised formats hold blocks of 32 weights of one row.
    #[error(
        "rows of {k} weights cannot be stored in a quantised format: {k} is no multiple of 32; use F32 or BF16"
    )]
    PartialBlock {
        /// Inputs of the matrix.
        k: usize,
    },
    /// A dimension that must not be zero.
    #[error("{what} is zero")]
    Zero {
        /// Which dimension.
        what: &'static str,
    },
}

fn check_len(what: &'static str, got: usize, expected: usize) -> Result<(), ShapeError> {
    if got == expected { Ok(()) } else { Err(ShapeError::Length { what, got, expected }) }
}
