//! What distinguishes one architecture from another. The forward pass is the same for all ([`crate::decoder`]); each
//! file here says which tensors feed it, under which names, and how its rope frequencies come about.

mod llama;
mod mistral;
mod qwen2;
mod qwen3;

use crate::config::{Architecture, ModelConfig, RopeScaling};

/// One architecture's differences.
pub(crate) struct ArchSpec {
    /// Names in Hugging Face checkpoints.
    pub(crate) hugging_face: TensorNames,
    /// Names in GGUF files.
    pub(crate) gguf: TensorNames,
    /// Query, key and value always have biases, the output projection never.
    pub(crate) always_qkv_bias: bool,
    /// Query and key heads are RMS-normalised before rope.
    pub(crate) qk_norm: bool,
    /// llama.cpp stores query and key rows of this architecture for rope over neighbouring elements (0 with 1, 2 with
    /// 3); we rotate halves (0 with `head_dim / 2`) as the published checkpoints do, so rows go back to their places.
    pub(crate) gguf_rows_interleaved: bool,
    /// What `config.json` means when it says nothing.
    pub(crate) sliding_window_default: SlidingWindowDefault,
    /// Head size when `config.json` gives none; `None`: hidden / heads.
    pub(crate) head_dim_default: Option<usize>,
    /// Context when `config.json` gives none.
    pub(crate) max_position_default: usize,
}

/// How a configuration class reads an absent `sliding_window`.
#[derive(Clone, Copy)]
pub(crate) struct SlidingWindowDefault {
    /// The window it assumes.
    pub(crate) size: Option<usize>,
    /// The window counts only with `use_sliding_window`.
    pub(crate) needs_flag: bool,
}

/// No window unless the configuration names one.
const NO_WINDOW: SlidingWindowDefault = SlidingWindowDefault { size: None, needs_flag: false };

/// Tensor names of one file format. Those below `layer_prefix` follow the layer's number and a dot.
#[derive(Clone, Copy)]
pub(crate) struct TensorNames {
    pub(crate) embedding: &'static str,
    pub(crate) final_norm: &'static str,
    pub(crate) lm_head: &'static str,
    pub(crate) layer_prefix: &'static str,
    pub(crate) attention_norm: &'static str,
    pub(crate) q: &'static str,
    pub(crate) k: &'static str,
    pub(crate) v: &'static str,
    pub(crate) q_bias: &'static str,
    pub(crate) k_bias: &'static str,
    pub(crate) v_bias: &'static str,
    pub(crate) q_norm: &'static str,
    pub(crate) k_norm: &'static str,
    pub(crate) output: &'static str,
    pub(crate) output_bias: &'static str,
    pub(crate) ffn_norm: &'static str,
    pub(crate) gate: &'static str,
    pub(crate) up: &'static str,
    pub(crate) down: &'static str,
}

impl TensorNames {
    /// The full name of a layer's tensor.
    pub(crate) fn layer(&self, index: usize, name: &str) -> String {
        format!("{}{index}.{name}", self.layer_prefix)
    }
}

/// Names that all four architectures use on the Hugging Face hub.
const HUGGING_FACE: TensorNames = TensorNames {
    embedding: "model.embed_tokens.weight",
    final_norm: "model.norm.weight",
    lm_head: "lm_head.weight",
    layer_prefix: "model.layers.",
    attention_norm: "input_layernorm.weight",
    q: "self_attn.q_proj.weight",
    k: "self_attn.k_proj.weight",
    v: "self_attn.v_proj.weight",
    q_bias: "self_attn.q_proj.bias",
    k_bias: "self_attn.k_proj.bias",
    v_bias: "self_attn.v_proj.bias",
    q_norm: "self_attn.q_norm.weight",
    k_norm: "self_attn.k_norm.weight",
    output: "self_attn.o_proj.weight",
    output_bias: "self_attn.o_proj.bias",
    ffn_norm: "post_attention_layernorm.weight",
    gate: "mlp.gate_proj.weight",
    up: "mlp.up_proj.weight",
    down: "mlp.down_proj.weight",
};

/// Names that all four architectures use in GGUF files.
const GGUF: TensorNames = TensorNames {
    embedding: "token_embd.weight",
    final_norm: "output_norm.weight",
    lm_head: "output.weight",
    layer_prefix: "blk.",
    attention_norm: "attn_norm.weight",
    q: "attn_q.weight",
    k: "attn_k.weight",
    v: "attn_v.weight",
    q_bias: "attn_q.bias",
    k_bias: "attn_k.bias",
    v_bias: "attn_v.bias",
    q_norm: "attn_q_norm.weight",
    k_norm: "attn_k_norm.weight",
    output: "attn_output.weight",
    output_bias: "attn_output.bias",
    ffn_norm: "ffn_norm.weight",
    gate: "ffn_gate.weight",
    up: "ffn_up.weight",
    down: "ffn_down.weight",
};

impl Architecture {
    /// Its differences.
    pub(crate) fn spec(self) -> &'static ArchSpec {
        match self {
            Self::Llama => &llama::LLAMA,
            Self::Mistral => &mistral::MISTRAL,
            Self::Qwen2 => &qwen2::QWEN2,
            Self::Qwen3 => &qwen3::QWEN3,
        }
    }
}

/// The model's rope frequencies: by how many radians each of the `head_dim / 2` pairs turns per position.
pub(crate) fn inverse_frequencies(config: &ModelConfig) -> Vec<f32> {
    let plain = (0..config.head_dim / 2)
        .map(|pair| config.rope.theta.powf(-((2 * pair) as f64) / config.head_dim as f64));
    match &config.rope.scaling {
        RopeScaling::None => plain.map(|frequency| frequency as f32).collect(),
        RopeScaling::Linear { factor } => plain.map(|frequency| (frequency / factor) as f32).collect(),
        RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_position } => plain
            .map(|frequency| {
                let context = *original_max_position;
                llama::scale_frequency(frequency, *factor, *low_freq_factor, *high_freq_factor, context)
                    as f32
            })
            .collect(),
        RopeScaling::Divisors(divisors) => {
            plain.zip(divisors).map(|(frequency, divisor)| (frequency / f64::from(*divisor)) as f32).collect()
        }
    }
}
