//! What the frontend can be told, with the defaults and their reasons.

use baton_types::TokenId;
use std::time::Duration;

/// Settings of a [`Frontend`](crate::Frontend), already validated by whoever read them.
#[derive(Clone, Debug)]
pub struct FrontendConfig {
    /// Names that a request may ask for. The first is the one that responses carry.
    pub served_model_names: Vec<String>,
    /// Most tokens of a sequence, prompt and output together.
    pub max_model_len: usize,
    /// Most bytes of a request's body; beyond it: 413.
    pub body_bytes_max: usize,
    /// Most requests between arrival and the end of their response; beyond it: 429 with `Retry-After`.
    pub requests_max: usize,
    /// Longest a request may take, from arrival to its last token.
    pub request_timeout: Duration,
    /// Longest a client may take to send a request's body; beyond it: 408.
    pub body_timeout: Duration,
    /// Keys of which each request to `/v1/` must carry one (`Authorization: Bearer KEY`). Empty: open to all.
    pub api_keys: Vec<String>,
    /// A token stream that is silent for this long gets an SSE comment, so that no proxy takes it for dead.
    pub keep_alive_interval: Duration,
    /// What a request that is silent about sampling gets (a model's `generation_config.json`).
    pub sampling_defaults: SamplingDefaults,
    /// Tokens that end an output besides the tokenizer's own end tokens (`eos_token_id` of `generation_config.json`).
    pub eos_ids: Vec<TokenId>,
    /// `system_fingerprint` of every response: names what could change the output of a seed.
    pub system_fingerprint: String,
}

/// Sampling parameters a model's owner recommends. `None`: the OpenAI API's default, or no effect.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SamplingDefaults {
    /// See [`SamplingParams::temperature`](baton_types::SamplingParams::temperature).
    pub temperature: Option<f32>,
    /// See [`SamplingParams::top_p`](baton_types::SamplingParams::top_p).
    pub top_p: Option<f32>,
    /// See [`SamplingParams::top_k`](baton_types::SamplingParams::top_k).
    pub top_k: Option<u32>,
    /// See [`SamplingParams::min_p`](baton_types::SamplingParams::min_p).
    pub min_p: Option<f32>,
    /// See [`SamplingParams::repetition_penalty`](baton_types::SamplingParams::repetition_penalty).
    pub repetition_penalty: Option<f32>,
}

impl FrontendConfig {
    /// The defaults, for one model.
    ///
    /// 8 MiB hold a prompt of two million tokens as text; 1,024 requests are more than the engines of one machine run at
    /// once; 600 s and 15 s are what clients and proxies of the OpenAI API assume.
    pub fn new(model_name: impl Into<String>, max_model_len: usize) -> Self {
        Self {
            served_model_names: vec![model_name.into()],
            max_model_len,
            body_bytes_max: 8 << 20,
            requests_max: 1024,
            request_timeout: Duration::from_secs(600),
            body_timeout: Duration::from_secs(30),
            api_keys: Vec::new(),
            keep_alive_interval: Duration::from_secs(15),
            sampling_defaults: SamplingDefaults::default(),
            eos_ids: Vec::new(),
            system_fingerprint: format!("baton-{}", env!("CARGO_PKG_VERSION")),
        }
    }
}
