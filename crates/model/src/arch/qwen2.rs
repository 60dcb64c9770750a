//! Qwen 2 and 2.5 (Yang et al. 2024, <https://arxiv.org/abs/2407.10671>).
//!
//! Llama's decoder with biases on query, key and value. A sliding window is in the configuration but switched off in
//! every published model.

use super::{ArchSpec, GGUF, HUGGING_FACE, SlidingWindowDefault};

pub(super) const QWEN2: ArchSpec = ArchSpec {
    hugging_face: HUGGING_FACE,
    gguf: GGUF,
    always_qkv_bias: true,
    qk_norm: false,
    gguf_rows_interleaved: false,
    sliding_window_default: SlidingWindowDefault { size: Some(4096), needs_flag: true },
    head_dim_default: None,
    max_position_default: 32768,
};
