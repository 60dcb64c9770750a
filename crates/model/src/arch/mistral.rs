//! Mistral 7B and later dense Mistral models (Jiang et al. 2023, <https://arxiv.org/abs/2310.06825>).
//!
//! Llama's decoder with a head size of its own and, in the first version, attention over a sliding window of 4096
//! tokens (also what an absent key means). GGUF files call it `llama`.

use super::{ArchSpec, GGUF, HUGGING_FACE, SlidingWindowDefault};

pub(super) const MISTRAL: ArchSpec = ArchSpec {
    hugging_face: HUGGING_FACE,
    gguf: GGUF,
    always_qkv_bias: false,
    qk_norm: false,
    gguf_rows_interleaved: true,
    sliding_window_default: SlidingWindowDefault { size: Some(4096), needs_flag: false },
    head_dim_default: None,
    max_position_default: 4096 * 32,
};
