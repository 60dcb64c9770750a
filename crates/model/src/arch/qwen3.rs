//! Qwen 3, dense (Yang et al. 2025, <https://arxiv.org/abs/2505.09388>).
//!
//! Llama's decoder with an RMS norm over each query and key head before rope, and a head size of its own. Qwen 2's
//! biases are gone.

use super::{ArchSpec, GGUF, HUGGING_FACE, SlidingWindowDefault};

pub(super) const QWEN3: ArchSpec = ArchSpec {
    hugging_face: HUGGING_FACE,
    gguf: GGUF,
    always_qkv_bias: false,
    qk_norm: true,
    gguf_rows_interleaved: false,
    sliding_window_default: SlidingWindowDefault { size: Some(4096), needs_flag: true },
    head_dim_default: Some(128),
    max_position_default: 32768,
};
