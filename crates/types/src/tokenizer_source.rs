//! Where a model's tokenizer comes from: what a weights loader found and a tokenizer can be built from.

use crate::TokenId;
use std::path::PathBuf;

/// A tokenizer, not yet built.
#[derive(Clone, Debug)]
pub enum TokenizerSource {
    /// A Hugging Face directory: `tokenizer.json`, with `tokenizer_config.json`, `special_tokens_map.json` and
    /// `chat_template.jinja` where they exist.
    HuggingFace {
        /// The directory.
        directory: PathBuf,
    },
    /// The `tokenizer.*` keys of a GGUF file.
    Gguf(Box<GgufTokenizer>),
}

/// The tokenizer keys of GGUF (<https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>), typed.
#[derive(Clone, Debug, Default)]
pub struct GgufTokenizer {
    /// `tokenizer.ggml.model`: `gpt2` (byte-level BPE) or `llama` (SentencePiece).
    pub model: String,
    /// `tokenizer.ggml.pre`: which pre-tokenizer, e.g. `smollm`, `llama-bpe`, `qwen2`.
    pub pre: Option<String>,
    /// Token texts, by id.
    pub tokens: Vec<String>,
    /// 1 normal, 2 unknown, 3 control, 4 user defined, 5 unused, 6 byte; by id. Empty: all normal.
    pub token_types: Vec<i32>,
    /// SentencePiece scores, by id. Empty for BPE.
    pub scores: Vec<f32>,
    /// BPE merges in order of rank, `"left right"`. Empty for SentencePiece.
    pub merges: Vec<String>,
    /// Beginning-of-sequence token.
    pub bos: Option<TokenId>,
    /// End-of-sequence token.
    pub eos: Option<TokenId>,
    /// Unknown token.
    pub unknown: Option<TokenId>,
    /// Padding token.
    pub padding: Option<TokenId>,
    /// Put `bos` before an encoded prompt.
    pub add_bos: Option<bool>,
    /// Put a space before an encoded prompt (SentencePiece).
    pub add_space_prefix: Option<bool>,
    /// The Jinja chat template.
    pub chat_template: Option<String>,
}
