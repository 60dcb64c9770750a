//! What a model is, whatever file it came from: sizes, architecture, rope, and the publisher's generation defaults.

pub(crate) mod gguf;
pub(crate) mod hugging_face;

use baton_types::TokenId;
use std::fmt;

/// Model families that run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Architecture {
    /// Llama 1 to 3 and everything published as `llama` (SmolLM2, TinyLlama, ...).
    Llama,
    /// Mistral 7B and its like.
    Mistral,
    /// Qwen 2 and 2.5.
    Qwen2,
    /// Qwen 3, dense.
    Qwen3,
}

impl Architecture {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Llama, Self::Mistral, Self::Qwen2, Self::Qwen3];

    /// The `model_type` of `config.json` and the `general.architecture` of GGUF (where Mistral is called `llama`).
    pub fn name(self) -> &'static str {
        match self {
            Self::Llama => "llama",
            Self::Mistral => "mistral",
            Self::Qwen2 => "qwen2",
            Self::Qwen3 => "qwen3",
        }
    }

    /// The architecture of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|architecture| architecture.name() == name)
    }

    /// All names, for messages.
    pub(crate) fn names() -> String {
        Self::ALL.map(Self::name).join(", ")
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Sizes and constants of a model. All sizes are at least 1.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    /// Family.
    pub architecture: Architecture,
    /// Elements of a token's hidden state.
    pub hidden: usize,
    /// Decoder layers.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Elements of one head; even. Need not be `hidden / heads`.
    pub head_dim: usize,
    /// Inner size of the feed-forward part.
    pub ffn: usize,
    /// Rows of the embedding: token ids are below it.
    pub vocab: usize,
    /// Most tokens of a sequence. Already cut to [`sliding_window`](Self::sliding_window): attention here is over the
    /// whole sequence, which is the same thing up to the window's size and another model beyond it.
    pub max_position: usize,
    /// The sliding attention window the model was made with, if any.
    pub sliding_window: Option<usize>,
    /// Added to the mean square in every RMS norm.
    pub norm_eps: f32,
    /// Rotary position embedding.
    pub rope: Rope,
    /// The output projection is the embedding.
    pub tie_embeddings: bool,
    /// The query, key and value projections have biases.
    pub qkv_bias: bool,
    /// The attention's output projection has a bias.
    pub output_bias: bool,
    /// Each query and key head is RMS-normalised.
    pub qk_norm: bool,
}

/// Rotary position embedding (Su et al. 2021, <https://arxiv.org/abs/2104.09864>).
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    /// Base of the frequencies.
    pub theta: f64,
    /// How they were stretched for a longer context.
    pub scaling: RopeScaling,
}

/// How rope frequencies were changed after pre-training.
#[derive(Clone, Debug, PartialEq)]
pub enum RopeScaling {
    /// Not at all.
    None,
    /// All divided by `factor`.
    Linear {
        /// New context over old.
        factor: f64,
    },
    /// Llama 3.1: long wavelengths divided by `factor`, short ones kept, smooth in between.
    Llama3 {
        /// What long wavelengths are divided by.
        factor: f64,
        /// Wavelengths above `original_max_position / low_freq_factor` are long.
        low_freq_factor: f64,
        /// Wavelengths below `original_max_position / high_freq_factor` are short.
        high_freq_factor: f64,
        /// Context of the pre-training.
        original_max_position: f64,
    },
    /// A divisor for each of the `head_dim / 2` frequencies: GGUF's `rope_freqs.weight`.
    Divisors(Vec<f32>),
}

/// The publisher's defaults for requests that do not say otherwise.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GenerationDefaults {
    /// Tokens that end the output.
    pub eos: Vec<TokenId>,
    /// From `generation_config.json`.
    pub temperature: Option<f32>,
    /// From `generation_config.json`.
    pub top_p: Option<f32>,
    /// From `generation_config.json`; 0 there means off, here `None`.
    pub top_k: Option<u32>,
    /// From `generation_config.json`.
    pub repetition_penalty: Option<f32>,
}

/// Bytes that one token's keys and values take over all layers, in f32: for sizing a KV pool.
pub fn kv_bytes_per_token(config: &ModelConfig) -> usize {
    2 * config.layers * config.kv_heads * config.head_dim * size_of::<f32>()
}
